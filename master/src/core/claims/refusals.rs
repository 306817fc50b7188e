//! What a framework has refused in a role, agent by agent, and in words of 64 agents: who looks for an agent that a
//! member has not refused passes over 64 of them in one step, however many refusals there are.
//!
//! A member has one refusal of an agent: the latest, unless an earlier one says all that it says. At worst it is offered
//! once more what it refused. Amounts are kept once for all who refused the same ([`Profiles`]).

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

/// What became of a refusal that was to be set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    None,
    Added,
    Replaced(Refusal),
}

/// A place in a [`Table`].
#[derive(Clone, Copy, Debug)]
struct Cell {
    agent: u32,
    refusal: Refusal,
}

/// No agent has this number: there would have to be as many others.
const NOBODY: u32 = u32::MAX;

const EMPTY: Cell = Cell {
    agent: NOBODY,
    refusal: Refusal {
        profile: 0,
        expires: Timestamp::from_ms(0),
    },
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
        Some(self.cells[at].refusal)
    }

    /// Adds the refusal of an agent that has none, where [`Table::find`] has said that it is to be put.
    fn add(&mut self, place: Option<usize>, agent: u32, refusal: Refusal) {
        let has_room = (self.len + 1) * 4 <= self.cells.len() * 3;
        if let Some(place) = place.filter(|_| has_room) {
            self.cells[place] = Cell { agent, refusal };
            self.len += 1;
            return;
        }
        self.resize((self.cells.len() * 2).max(MIN_CELLS));
        let place = self.find(agent).and_then(Result::err);
        self.add(place, agent, refusal);
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
            let place = self.find(cell.agent).and_then(Result::err);
            self.add(place, cell.agent, cell.refusal);
        }
    }

    fn iter(&self) -> impl Iterator<Item = (u32, Refusal)> {
        let taken = self.cells.iter().filter(|cell| cell.agent != NOBODY);
        taken.map(|cell| (cell.agent, cell.refusal))
    }
}

/// What one member has refused.
#[derive(Clone, Debug, Default)]
pub(super) struct Refusals {
    table: Table,
    /// The agents of which something of a class was refused.
    refused: [Bits; CLASSES],
}

impl Refusals {
    /// The agents of which it has refused something of a class.
    pub(super) const fn refused(&self, class: Class) -> &Bits {
        &self.refused[class as usize]
    }

    pub(super) fn get(&self, agent: u32) -> Option<Refusal> {
        self.table.get(agent)
    }

    /// Sets the refusal of an agent to what `next` makes of the one that was there, with the classes that there is some
    /// of in it; the one that was there. Nothing changes where `next` has none.
    pub(super) fn set(
        &mut self,
        agent: u32,
        next: impl FnOnce(Option<Refusal>) -> Option<(Refusal, [bool; CLASSES])>,
    ) -> Change {
        let found = self.table.find(agent);
        let known = found.and_then(Result::ok);
        let earlier = known.map(|at| self.table.cells[at].refusal);
        let Some((refusal, of_class)) = next(earlier) else {
            return Change::None;
        };
        for (refused, is_some) in self.refused.iter_mut().zip(of_class) {
            if is_some {
                refused.set(agent);
            } else {
                refused.unset(agent);
            }
        }
        match known {
            Some(at) => self.table.cells[at].refusal = refusal,
            None => self.table.add(found.and_then(Result::err), agent, refusal),
        }
        earlier.map_or(Change::Added, Change::Replaced)
    }

    /// Drops the refusal of an agent if it is one of those.
    pub(super) fn remove_if(
        &mut self,
        agent: u32,
        is_one: impl FnOnce(&Refusal) -> bool,
    ) -> Option<Refusal> {
        let refusal = self.table.get(agent).filter(is_one)?;
        self.table.remove(agent);
        for refused in &mut self.refused {
            refused.unset(agent);
        }
        Some(refusal)
    }

    /// All of them, in no order.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, Refusal)> {
        self.table.iter()
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
