//! Which agents a member is kept from, and how much an offer to it holds at least.
//!
//! The book knows neither attributes nor constraints: whoever enters the changes ([`Gatekeeper`](super::Gatekeeper)) has
//! looked at them, once, so that no planner does. A member that is kept from agents has words of bits, one for 64 agents,
//! which a search for an agent masks with what waits; members that are kept from none have no words. The agents of other
//! regions than the master's stand in one such row for all members that do not take any, and those with GPUs in another one.
//!
//! Invariants: no bit is set of an agent that is gone; whoever has words stands in the list of those who do.

use std::collections::BTreeSet;
use std::sync::Arc;

use ebb_types::{AgentId, FrameworkId, Quantities, Resources, Role};

use super::tree::Tree;
use super::{Claims, Entry, FrameworkTerms, Seat};
use crate::core::drf::Class;
use crate::core::limits::is_allocatable;

/// One bit for each agent, by its number; those beyond the last word are not set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Words(Vec<u64>);

impl Words {
    fn word(&self, page: u32) -> u64 {
        self.0.get(page as usize).copied().unwrap_or(0)
    }

    fn has(&self, number: u32) -> bool {
        self.word(number / 64) & (1 << (number % 64)) != 0
    }

    fn set(&mut self, number: u32, is_set: bool) {
        let page = number as usize / 64;
        let bit = 1 << (number % 64);
        if is_set {
            if page >= self.0.len() {
                self.0.resize(page + 1, 0);
            }
            self.0[page] |= bit;
        } else if let Some(word) = self.0.get_mut(page) {
            *word &= !bit;
            self.trim();
        }
    }

    fn trim(&mut self) {
        while self.0.last() == Some(&0) {
            self.0.pop();
        }
    }

    const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn numbers(&self) -> impl Iterator<Item = u32> {
        (0u32..).zip(&self.0).flat_map(|(page, word)| {
            (0..64).filter_map(move |bit| (word & (1 << bit) != 0).then_some(page * 64 + bit))
        })
    }
}

/// What of an agent concerns all members that do not declare that they can deal with it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traits {
    /// It is of another region than the master's.
    pub is_remote: bool,
    /// It has GPUs, which are kept for those who can use them.
    pub has_gpus: bool,
}

/// What a member may be offered, apart from what it has refused.
#[derive(Clone, Debug, Default)]
pub(super) struct Access {
    kept: Words,
    /// Whether it takes agents of other regions.
    any_region: bool,
    /// Whether it takes agents with GPUs.
    takes_gpus: bool,
    /// The least that it states.
    minimum: Option<Arc<[Quantities]>>,
    /// Whether it is subscribed and takes less than is offered by itself else.
    is_eager: bool,
}

/// What is kept of all members together.
#[derive(Clone, Debug, Default)]
pub(super) struct Kept {
    /// The agents of other regions.
    remote: Words,
    /// The agents with GPUs.
    gpus: Words,
    /// Who has words.
    members: BTreeSet<u32>,
    /// How many take less than is offered by itself else.
    eager: usize,
}

/// The least that an offer to somebody holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::core) enum Floor<'a> {
    /// What the cluster says.
    Usual,
    /// One of these; something, where there are none.
    Stated(&'a [Quantities]),
}

impl Floor<'_> {
    /// Whether a part is large enough to be offered.
    pub(in crate::core) fn admits(self, part: &Quantities) -> bool {
        match self {
            Self::Usual => is_allocatable(part),
            Self::Stated([]) => !part.is_zero(),
            Self::Stated(any_of) => any_of.iter().any(|least| part.contains(least)),
        }
    }

    /// Whether it admits what is not offered by itself else.
    fn is_low(self) -> bool {
        match self {
            Self::Usual => false,
            Self::Stated(any_of) => {
                any_of.is_empty() || any_of.iter().any(|least| !is_allocatable(least))
            }
        }
    }
}

/// Which agents a member may be offered, and how much of them at least.
#[derive(Clone, Copy, Debug)]
pub(in crate::core) struct Gate<'a> {
    kept: &'a Words,
    /// None where it takes agents of all regions.
    remote: Option<&'a Words>,
    /// None where it takes agents with GPUs.
    gpus: Option<&'a Words>,
    pub(in crate::core) floor: Floor<'a>,
    /// Whether parts wait that are smaller than what is offered by itself else.
    small_ones_wait: bool,
}

impl Gate<'_> {
    /// Which of 64 agents it is kept from.
    pub(in crate::core) fn kept_word(&self, page: u32) -> u64 {
        let of = |row: Option<&Words>| row.map_or(0, |row| row.word(page));
        self.kept.word(page) | of(self.remote) | of(self.gpus)
    }

    /// Whether it may be offered whatever waits.
    pub(in crate::core) fn is_open(&self) -> bool {
        self.kept.is_empty()
            && self.remote.is_none_or(Words::is_empty)
            && self.gpus.is_none_or(Words::is_empty)
            && self.floor == Floor::Usual
            && !self.small_ones_wait
    }

    /// Whether its constraints keep it from an agent.
    pub(in crate::core) fn is_kept(&self, agent: u32) -> bool {
        self.kept.has(agent)
    }

    /// Whether an agent is of another region, of which it takes none.
    pub(in crate::core) fn is_remote(&self, agent: u32) -> bool {
        self.remote.is_some_and(|remote| remote.has(agent))
    }

    /// Whether an agent has GPUs, which it cannot use.
    pub(in crate::core) fn has_gpus(&self, agent: u32) -> bool {
        self.gpus.is_some_and(|gpus| gpus.has(agent))
    }

    /// Whether it may not be offered an agent, for whatever reason.
    fn bars(&self, agent: u32) -> bool {
        self.is_kept(agent) || self.is_remote(agent) || self.has_gpus(agent)
    }
}

const NO_WORDS: &Words = &Words(Vec::new());

impl Claims {
    /// Which agents a member may be offered. One that is not known takes what is usual, of its own region and without GPUs.
    pub(in crate::core) fn gate(&self, member: u32) -> Gate<'_> {
        let access = self.tree.member(member).map(|member| &member.access);
        let takes_any = access.is_some_and(|access| access.any_region);
        let takes_gpus = access.is_some_and(|access| access.takes_gpus);
        let stated = access.and_then(|access| access.minimum.as_deref());
        Gate {
            kept: access.map_or(NO_WORDS, |access| &access.kept),
            remote: (!takes_any).then_some(&self.kept.remote),
            gpus: (!takes_gpus).then_some(&self.kept.gpus),
            floor: stated.map_or(Floor::Usual, Floor::Stated),
            small_ones_wait: self.kept.eager > 0,
        }
    }

    /// Whether a part of an agent is large enough to be offered to anybody by itself.
    pub(in crate::core) fn is_offerable(&self, part: &Quantities) -> bool {
        is_allocatable(part) || self.kept.eager > 0 && !part.is_zero()
    }

    /// Whether whoever has a seat may be offered an agent, and so much of it.
    pub(in crate::core) fn admits(&self, seat: Seat, agent: u32, resources: &Resources) -> bool {
        let gate = self.gate(seat.member);
        let mut parts = Class::ALL.into_iter().map(|class| class.part(resources));
        !gate.bars(agent) && parts.any(|part| gate.floor.admits(part))
    }

    /// Whether a framework may be offered a part of an agent by itself. One that is not in the role may not.
    pub(in crate::core) fn may_choose(
        &self,
        (framework_id, role): (&FrameworkId, &Role),
        agent_id: &AgentId,
        part: &Quantities,
    ) -> bool {
        let numbers = (self.member(framework_id, role)).zip(self.agent_number(agent_id));
        numbers.is_some_and(|(member, agent)| {
            let gate = self.gate(member);
            !gate.bars(agent) && gate.floor.admits(part)
        })
    }

    /// Says from which agents a framework is kept in a role: words of bits by the agents' numbers.
    pub(in crate::core) fn keep_member(&mut self, id: &FrameworkId, role: &Role, words: Vec<u64>) {
        let Some(member) = self.member(id, role) else {
            return;
        };
        let mut new = Words(words);
        new.trim();
        let old = self.tree.member(member).map(|member| &member.access.kept);
        if old != Some(&new) {
            let words = new.0.into();
            self.enter(Entry::Kept { member, words });
        }
    }

    /// Says who is kept from an agent, and what of it concerns all others: where it came or changed.
    pub(in crate::core) fn keep_agent(&mut self, agent: u32, traits: Traits, members: Vec<u32>) {
        let mut before = self.kept.members.iter().copied();
        let is_known = self.traits(agent) == traits
            && members.iter().all(|member| self.is_kept(*member, agent))
            && before.all(|member| {
                !self.is_kept(member, agent) || members.binary_search(&member).is_ok()
            });
        if !is_known {
            let members = members.into();
            self.enter(Entry::KeptFrom {
                agent,
                traits,
                members,
            });
        }
    }

    /// What of an agent concerns all who do not declare that they can deal with it.
    pub(in crate::core) fn traits(&self, agent: u32) -> Traits {
        Traits {
            is_remote: self.kept.remote.has(agent),
            has_gpus: self.kept.gpus.has(agent),
        }
    }

    fn is_kept(&self, member: u32, agent: u32) -> bool {
        let member = self.tree.member(member);
        member.is_some_and(|member| member.access.kept.has(agent))
    }

    pub(super) fn put_kept(&mut self, member: u32, words: &[u64]) {
        if let Some(of) = self.tree.member_mut(member) {
            of.access.kept = Words(words.to_vec());
            self.kept.note(&self.tree, member);
        }
    }

    /// Sets who is kept from an agent; nobody, where it is gone. The members rise.
    pub(super) fn put_kept_from(&mut self, agent: u32, traits: Traits, members: &[u32]) {
        self.kept.remote.set(agent, traits.is_remote);
        self.kept.gpus.set(agent, traits.has_gpus);
        let before: Vec<u32> = self.kept.members.iter().copied().collect();
        for member in before.into_iter().chain(members.iter().copied()) {
            if let Some(of) = self.tree.member_mut(member) {
                let is_kept = members.binary_search(&member).is_ok();
                of.access.kept.set(agent, is_kept);
                self.kept.note(&self.tree, member);
            }
        }
    }

    /// What a framework's terms say of a member.
    pub(super) fn put_access(&mut self, member: u32, role: &Role, terms: &FrameworkTerms) {
        let Some(of) = self.tree.member_mut(member) else {
            return;
        };
        let access = &mut of.access;
        access.any_region = terms.any_region;
        access.takes_gpus = terms.takes_gpus;
        access.minimum = terms.minima.get(role).cloned();
        let floor = access.minimum.as_deref().map(Floor::Stated);
        let is_eager = terms.roles.contains(role) && floor.is_some_and(Floor::is_low);
        let was_eager = std::mem::replace(&mut access.is_eager, is_eager);
        self.kept.eager += usize::from(is_eager);
        self.kept.eager -= usize::from(was_eager);
    }

    /// A member is about to be forgotten.
    pub(super) fn drop_access(&mut self, member: u32) {
        if let Some(of) = self.tree.member_mut(member) {
            let access = std::mem::take(&mut of.access);
            self.kept.eager -= usize::from(access.is_eager);
            self.kept.members.remove(&member);
        }
    }

    pub(super) fn fault_of_access(&self) -> Option<String> {
        let mut eager = 0;
        let is_gone = |agent: u32| !matches!(self.agents.get(agent as usize), Some(Some(_)));
        for (member, of) in self.tree.members() {
            let access = &of.access;
            eager += usize::from(access.is_eager);
            if self.kept.members.contains(&member) == access.kept.is_empty() {
                return Some(format!(
                    "it is not noted whether {member} is kept from agents"
                ));
            }
            if access.kept.numbers().any(is_gone) {
                return Some(format!("{member} is kept from an agent that is gone"));
            }
        }
        let mut rows = [&self.kept.remote, &self.kept.gpus].into_iter();
        if eager != self.kept.eager || rows.any(|row| row.numbers().any(is_gone)) {
            return Some(String::from(
                "those who take little, or the agents of other regions or with GPUs, are noted wrongly",
            ));
        }
        None
    }
}

impl Kept {
    /// Notes whether a member has words.
    fn note(&mut self, tree: &Tree, member: u32) {
        let has_some = tree
            .member(member)
            .is_some_and(|member| !member.access.kept.is_empty());
        if has_some {
            self.members.insert(member);
        } else {
            self.members.remove(&member);
        }
    }
}
