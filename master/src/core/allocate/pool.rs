//! The agents of one pass whose resources are still to be offered, as words of bits: 64 agents are passed over in one
//! step. Its tables are kept from pass to pass, so that a pass costs what it looks at.

use ebb_types::{Quantities, Resources};

use crate::core::bits::Bits;
use crate::core::claims::Claims;
use crate::core::drf::Class;
use crate::core::limits::is_allocatable;

const CLASSES: usize = Class::ALL.len();

/// What a pass knows of an agent.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Candidate {
    /// What can be offered.
    pub(super) free: Resources,
    /// Where it stands in the caller's list.
    pub(super) position: usize,
    /// How often it was looked at anew because another thread was faster.
    pub(super) looked: u32,
    /// One more than its last proposal of this pass; 0 if there is none.
    pub(super) proposal: usize,
}

/// The agents of a pass.
#[derive(Clone, Debug, Default)]
pub(super) struct Pool {
    waiting: [Bits; CLASSES],
    /// Those of which more is free than all have refused who refused some.
    passing: [Bits; CLASSES],
    /// By row of 64 agents: those that somebody may have refused.
    refused: [Vec<u64>; CLASSES],
    candidates: Vec<Candidate>,
}

impl Pool {
    /// Adds an agent; false if it is there already.
    #[inline]
    pub(super) fn add(&mut self, claims: &Claims, agent: u32, candidate: &Candidate) -> bool {
        if Class::ALL.into_iter().any(|class| self.waits(agent, class)) {
            return false;
        }
        let at = agent as usize;
        if at >= self.candidates.len() {
            self.candidates.resize(at + 1, Candidate::default());
        }
        self.candidates[at] = *candidate;
        for class in Class::ALL {
            let part = class.part(&candidate.free);
            if claims.is_offerable(part) {
                self.waiting[class as usize].set(agent);
                if claims.passes_refusals(agent, class, part) {
                    self.passing[class as usize].set(agent);
                }
            }
        }
        true
    }

    /// Looks up what was refused of the agents that were added; before the first search.
    pub(super) fn look_up_refusals(&mut self, claims: &Claims) {
        for class in Class::ALL {
            if self.len(class) == 0 {
                continue;
            }
            let refused = &mut self.refused[class as usize];
            for (row, waiting) in self.waiting[class as usize].pages() {
                let by_anybody = claims.refused_by_anybody(row, class, waiting.count_ones());
                note_refused(refused, row, by_anybody);
            }
        }
    }

    /// Takes up what is free of an agent now.
    pub(super) fn look_again(&mut self, claims: &Claims, agent: u32) {
        for class in Class::ALL {
            self.remove(agent, class);
            // It may wait for what nobody had looked up.
            note_refused(&mut self.refused[class as usize], agent / 64, u64::MAX);
        }
        let candidate = self.candidates[agent as usize];
        self.add(claims, agent, &candidate);
    }

    pub(super) fn candidate(&mut self, agent: u32) -> &mut Candidate {
        &mut self.candidates[agent as usize]
    }

    pub(super) fn remove(&mut self, agent: u32, class: Class) {
        self.waiting[class as usize].unset(agent);
        self.passing[class as usize].unset(agent);
    }

    pub(super) fn waits(&self, agent: u32, class: Class) -> bool {
        self.waiting[class as usize].has(agent)
    }

    pub(super) const fn len(&self, class: Class) -> usize {
        self.waiting[class as usize].len()
    }

    /// Where the agents stand in the caller's list that still wait.
    pub(super) fn left(&self, class: Class) -> impl Iterator<Item = usize> {
        let agents = self.waiting[class as usize].iter();
        agents.map(|agent| self.candidates[agent as usize].position)
    }

    /// Forgets all that waits.
    pub(super) fn clear(&mut self, class: Class) {
        self.waiting[class as usize].clear();
        self.passing[class as usize].clear();
    }

    /// The first agent that a member is not kept from and has not refused, and of which it may have a part that is large
    /// enough: of what is owned it may have at most `most`.
    pub(super) fn first_for(
        &self,
        claims: &Claims,
        member: u32,
        class: Class,
        most: Option<&Quantities>,
    ) -> Option<u32> {
        let gate = claims.gate(member);
        // Quotas leave what is usual or nothing, even to whoever takes little.
        if most.is_some_and(|most| !is_allocatable(most) || !gate.floor.admits(most)) {
            return None;
        }
        let slot = class as usize;
        let takes_any = gate.is_open() && most.is_none();
        for (page, waiting) in self.waiting[slot].pages() {
            let refused = match self.refused[slot][page as usize] {
                0 => 0,
                by_anybody => by_anybody & claims.refused(member, page, class),
            };
            let passing = !refused | self.passing[slot].word(page);
            let mut rest = waiting & !gate.kept_word(page) & passing;
            while rest != 0 {
                let bit = rest.trailing_zeros();
                let agent = page * 64 + bit;
                if takes_any && refused & (1 << bit) == 0 {
                    return Some(agent);
                }
                let all: &Quantities = class.part(&self.candidates[agent as usize].free);
                let part = most.map_or(*all, |most| all.min(most));
                let is_withheld =
                    refused & (1 << bit) != 0 && claims.withholds(member, agent, class, &part);
                if gate.floor.admits(&part) && !is_withheld {
                    return Some(agent);
                }
                rest &= rest - 1;
            }
        }
        None
    }
}

fn note_refused(rows: &mut Vec<u64>, row: u32, by_anybody: u64) {
    let row = row as usize;
    if row >= rows.len() {
        rows.resize(row + 1, 0);
    }
    rows[row] = by_anybody;
}
