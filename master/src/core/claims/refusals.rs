//! What a framework has refused in a role, agent by agent. Who looks for an agent that a member has not refused asks the
//! [grid](super::grid) instead, and passes over 64 of them in one step.
//!
//! A member has one refusal of an agent: the latest, unless an earlier one says all that it says. At worst it is offered
//! once more what it refused. Amounts are kept once for all who refused the same ([`Profiles`]).
//!
//! What accumulates is alike: who declines all that it is offered, for long, refuses the same amounts until the same
//! time (`filter.rs` rounds it). Such refusals are a set of agents and take about a bit each; the others stand in a table.

use std::collections::BTreeMap;

use ebb_types::{Quantities, ResourceKind, Resources, Timestamp};

use crate::core::bits::Bits;
use crate::core::drf::Class;

const CLASSES: usize = Class::ALL.len();

/// One refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    /// What was refused, by its number in [`Profiles`].
    pub(super) profile: u32,
    pub(super) expires: Timestamp,
}

/// A place in a [`Table`]: of the refusal's parts, since as a whole it would take half as much again.
#[derive(Clone, Copy, Debug)]
struct Cell {
    agent: u32,
    profile: u32,
    expires: Timestamp,
}

impl Cell {
    const fn new(agent: u32, refusal: Refusal) -> Self {
        let Refusal { profile, expires } = refusal;
        Self {
            agent,
            profile,
            expires,
        }
    }

    const fn refusal(&self) -> Refusal {
        Refusal {
            profile: self.profile,
            expires: self.expires,
        }
    }
}

/// No agent has this number: there would have to be as many others.
const NOBODY: u32 = u32::MAX;

const EMPTY: Cell = Cell {
    agent: NOBODY,
    profile: 0,
    expires: Timestamp::from_ms(0),
};

/// Fewest places of a table that is not empty; a power of 2.
const MIN_CELLS: usize = 4;

/// Refusals by agent: open addressing with linear probing, at most three quarters full.
#[derive(Clone, Debug, Default)]
struct Table {
    cells: Vec<Cell>,
    len: usize,
}

impl Table {
    /// Where an agent would stand if nobody else did.
    const fn home(&self, agent: u32) -> usize {
        // Fibonacci hashing: neighbours lie far from one another.
        let hash = (agent as u64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        (hash >> 32) as usize & (self.cells.len() - 1)
    }

    /// Where an agent stands, or where it is to be put; nothing of a table that is empty.
    fn find(&self, agent: u32) -> Option<Result<usize, usize>> {
        if self.cells.is_empty() {
            return None;
        }
        let mut at = self.home(agent);
        loop {
            match self.cells[at].agent {
                found if found == agent => return Some(Ok(at)),
                NOBODY => return Some(Err(at)),
                _ => at = (at + 1) & (self.cells.len() - 1),
            }
        }
    }

    fn get(&self, agent: u32) -> Option<Refusal> {
        let at = self.find(agent)?.ok()?;
        Some(self.cells[at].refusal())
    }

    /// Adds the refusal of an agent that has none.
    fn add(&mut self, agent: u32, refusal: Refusal) {
        if (self.len + 1) * 4 > self.cells.len() * 3 {
            self.resize(self.cells.len() * 2);
        }
        if let Some(Err(place)) = self.find(agent) {
            self.cells[place] = Cell::new(agent, refusal);
            self.len += 1;
        }
    }

    fn remove(&mut self, agent: u32) {
        let Some(Ok(mut hole)) = self.find(agent) else {
            return;
        };
        let mask = self.cells.len() - 1;
        let mut at = hole;
        loop {
            at = (at + 1) & mask;
            let next = self.cells[at];
            if next.agent == NOBODY {
                break;
            }
            // It may stand in the hole unless its home lies behind that.
            let from_home = at.wrapping_sub(self.home(next.agent)) & mask;
            if from_home >= at.wrapping_sub(hole) & mask {
                self.cells[hole] = next;
                hole = at;
            }
        }
        self.cells[hole] = EMPTY;
        self.len -= 1;
        if self.len * 8 < self.cells.len() && self.cells.len() > MIN_CELLS {
            self.resize(self.cells.len() / 4);
        }
    }

    fn resize(&mut self, cells: usize) {
        let cells = vec![EMPTY; cells.max(MIN_CELLS)];
        let old = std::mem::replace(&mut self.cells, cells);
        self.len = 0;
        for cell in old.into_iter().filter(|cell| cell.agent != NOBODY) {
            self.add(cell.agent, cell.refusal());
        }
    }

    fn iter(&self) -> impl Iterator<Item = (u32, Refusal)> {
        let taken = self.cells.iter().filter(|cell| cell.agent != NOBODY);
        taken.map(|cell| (cell.agent, cell.refusal()))
    }
}

/// Most [groups](Group) of a member.
const MAX_GROUPS: usize = 4;
/// So many refusals that are alike in all but the agent come one after another before the next ones make a group.
const MIN_RUN: u32 = 64;

/// Agents that were refused alike: a bit each, where a place in the table would take a hundred times as much.
#[derive(Clone, Debug)]
struct Group {
    refusal: Refusal,
    agents: Bits,
}

/// What one member has refused.
#[derive(Clone, Debug, Default)]
pub(super) struct Refusals {
    /// Those that stand in no group.
    table: Table,
    /// None of them is empty.
    groups: Vec<Group>,
    /// The last refusal, and how many like it came one after another.
    run: Option<(Refusal, u32)>,
}

impl Refusals {
    pub(super) fn get(&self, agent: u32) -> Option<Refusal> {
        match self.group_of(agent) {
            Some(at) => Some(self.groups[at].refusal),
            None => self.table.get(agent),
        }
    }

    fn group_of(&self, agent: u32) -> Option<usize> {
        self.groups.iter().position(|group| group.agents.has(agent))
    }

    /// Sets the refusal of an agent that has none.
    pub(super) fn add(&mut self, agent: u32, refusal: Refusal) {
        match self.group_for(refusal) {
            Some(group) => group.agents.set(agent),
            None => self.table.add(agent, refusal),
        }
    }

    /// The group that a refusal belongs to, if any.
    fn group_for(&mut self, refusal: Refusal) -> Option<&mut Group> {
        let run = match self.run {
            Some((last, run)) if last == refusal => run.saturating_add(1),
            _ => 1,
        };
        self.run = Some((refusal, run));
        let known = self.groups.iter().position(|one| one.refusal == refusal);
        let at = known.or_else(|| {
            let is_due = run > MIN_RUN && self.groups.len() < MAX_GROUPS;
            is_due.then(|| {
                let agents = Bits::default();
                self.groups.push(Group { refusal, agents });
                self.groups.len() - 1
            })
        })?;
        self.groups.get_mut(at)
    }

    /// Drops the refusal of an agent that has one.
    pub(super) fn remove(&mut self, agent: u32) {
        match self.group_of(agent) {
            Some(at) => {
                self.groups[at].agents.unset(agent);
                if self.groups[at].agents.len() == 0 {
                    self.groups.swap_remove(at);
                }
            }
            None => self.table.remove(agent),
        }
    }

    /// All of them, in no order.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, Refusal)> {
        let grouped = self.groups.iter().flat_map(|group| {
            let agents = group.agents.iter();
            agents.map(|agent| (agent, group.refusal))
        });
        self.table.iter().chain(grouped)
    }
}

type Amounts = [u64; 2 * ResourceKind::ALL.len()];

fn amounts(resources: &Resources) -> Amounts {
    let mut amounts = Amounts::default();
    let parts = [&resources.regular, &resources.revocable];
    let all = parts
        .into_iter()
        .flat_map(|part| ResourceKind::ALL.map(|kind| part.get(kind)));
    for (slot, amount) in amounts.iter_mut().zip(all) {
        *slot = amount;
    }
    amounts
}

#[derive(Clone, Debug)]
struct Profile {
    resources: Resources,
    users: u32,
}

/// The different amounts that were refused, each kept once.
#[derive(Clone, Debug, Default)]
pub(super) struct Profiles {
    all: Vec<Profile>,
    free: Vec<u32>,
    numbers: BTreeMap<Amounts, u32>,
    /// The last one that was asked for: most refusals of a round are alike.
    last: u32,
}

impl Profiles {
    pub(super) fn get(&self, number: u32) -> &Resources {
        &self.all[number as usize].resources
    }

    /// The number of these amounts, which have one user more from now on.
    pub(super) fn take(&mut self, resources: &Resources) -> u32 {
        let last = self.all.get_mut(self.last as usize);
        if let Some(last) = last.filter(|last| last.users > 0 && last.resources == *resources) {
            last.users += 1;
            return self.last;
        }
        let key = amounts(resources);
        let number = match self.numbers.get(&key) {
            Some(number) => *number,
            None => self.add(key, resources),
        };
        self.all[number as usize].users += 1;
        self.last = number;
        number
    }

    fn add(&mut self, key: Amounts, resources: &Resources) -> u32 {
        let profile = Profile {
            resources: *resources,
            users: 0,
        };
        let number = match self.free.pop() {
            Some(number) => {
                self.all[number as usize] = profile;
                number
            }
            None => {
                self.all.push(profile);
                // There are at most as many as refusals, whose number is bounded.
                self.all.len() as u32 - 1
            }
        };
        self.numbers.insert(key, number);
        number
    }

    /// These amounts have one user less.
    pub(super) fn leave(&mut self, number: u32) {
        let profile = &mut self.all[number as usize];
        profile.users -= 1;
        if profile.users == 0 {
            self.numbers.remove(&amounts(&profile.resources));
            self.free.push(number);
        }
    }

    /// How many are in use.
    pub(super) fn len(&self) -> usize {
        self.numbers.len()
    }
}

/// What of an agent's resources everybody who refused some of a class has refused: where all that is free is within it,
/// each refusal withholds it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Meet([Option<Quantities>; CLASSES]);

impl Meet {
    pub(super) fn add(&mut self, refused: &Resources) {
        for class in Class::ALL {
            let part = class.part(refused);
            if !part.is_zero() {
                let meet = &mut self.0[class as usize];
                *meet = Some(meet.map_or(*part, |meet| meet.min(part)));
            }
        }
    }

    /// Whether some refusal of this class might not withhold as much as this.
    pub(super) fn is_passed_by(&self, class: Class, part: &Quantities) -> bool {
        self.0[class as usize].is_some_and(|meet| !meet.contains(part))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn refusal() -> impl Strategy<Value = Refusal> {
        (0..2u32, 0..3u64).prop_map(|(profile, ends)| Refusal {
            profile,
            expires: Timestamp::from_ms(ends),
        })
    }

    #[test]
    fn what_is_refused_alike_takes_no_place_in_the_table() {
        let mut refusals = Refusals::default();
        let refusal = Refusal {
            profile: 0,
            expires: Timestamp::from_ms(1),
        };
        for agent in 0..10_000 {
            refusals.add(agent, refusal);
        }
        assert_eq!(refusals.table.len, MIN_RUN as usize);
        assert_eq!(refusals.groups.len(), 1);
    }

    proptest! {
        #[test]
        fn refusals_are_a_map_from_agents_however_many_are_alike(
            runs in prop::collection::vec((refusal(), 0..500u32, 0..150u32, any::<bool>()), 0..12)
        ) {
            let (mut refusals, mut map) = (Refusals::default(), BTreeMap::new());
            for (refusal, first, count, is_set) in runs {
                for agent in first..first + count {
                    if map.remove(&agent).is_some() {
                        refusals.remove(agent);
                    }
                    if is_set {
                        refusals.add(agent, refusal);
                        map.insert(agent, refusal);
                    }
                }
                let mut all: Vec<_> = refusals.iter().collect();
                all.sort_unstable_by_key(|(agent, _)| *agent);
                prop_assert!(all.into_iter().eq(map.iter().map(|(agent, one)| (*agent, *one))));
                prop_assert!((0..700).all(|agent| refusals.get(agent) == map.get(&agent).copied()));
                prop_assert!(refusals.groups.iter().all(|group| group.agents.len() > 0));
            }
        }
    }
}
