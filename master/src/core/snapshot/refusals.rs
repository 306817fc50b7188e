//! What frameworks have refused of one agent, and until when.
//!
//! A refusal withholds an offer that is wholly within what was refused; more than that is offered
//! again. Each has a stamp that only rises; those with a stamp up to their member's `refusals_from`
//! are void, so voiding all refusals of a member costs nothing however many there are.

use std::sync::Arc;

use ebb_types::{Resources, Timestamp};

use super::claimants::Claimants;

/// Most refusals of one agent's resources that are remembered for one framework in one role. The one
/// that ends first gives way: at worst it is offered once more.
pub const MAX_REFUSALS_PER_MEMBER: usize = 8;

/// One refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    /// Index of the member that refused.
    pub(crate) member: u32,
    /// Its place in the sequence of all refusals.
    pub(crate) stamp: u64,
    pub(crate) refused: Resources,
    pub(crate) expires: Timestamp,
}

/// What an addition changed.
#[derive(Clone, Debug, Default)]
pub(crate) struct Addition {
    /// Whether the new refusal is remembered.
    pub(crate) added: bool,
    /// Whether another gave way because there were too many.
    pub(crate) crowded_out: bool,
    /// Those that are remembered no more.
    pub(crate) left: Vec<Refusal>,
}

/// The refusals of one agent's resources, sorted by member.
#[derive(Clone, Debug, Default)]
pub(crate) struct Refusals(Arc<[Refusal]>);

impl Refusals {
    /// Whether some refusal withholds these resources from a member.
    pub(crate) fn withhold(
        &self,
        member: u32,
        refusals_from: u64,
        resources: &Resources,
        now: Timestamp,
    ) -> bool {
        let start = self.0.partition_point(|refusal| refusal.member < member);
        self.0[start..]
            .iter()
            .take_while(|refusal| refusal.member == member)
            .any(|refusal| {
                refusal.stamp > refusals_from
                    && refusal.expires > now
                    && refusal.refused.contains(resources)
            })
    }

    /// Adds a refusal; those that it makes pointless (void ones, and those that say less) leave. An
    /// addition that says nothing new changes nothing.
    pub(crate) fn add(&mut self, new: Refusal, claimants: &Claimants) -> Addition {
        let is_void = |old: &Refusal| {
            claimants
                .member(old.member)
                .is_none_or(|member| old.stamp <= member.refusals_from)
        };
        let says_all_of = |a: &Refusal, b: &Refusal| {
            a.member == b.member && a.expires >= b.expires && a.refused.contains(&b.refused)
        };
        if self
            .0
            .iter()
            .any(|old| says_all_of(old, &new) && !is_void(old))
        {
            return Addition::default();
        }
        let mut addition = Addition {
            added: true,
            ..Addition::default()
        };
        let mut kept = Vec::with_capacity(self.0.len() + 1);
        for old in self.0.iter() {
            if is_void(old) || says_all_of(&new, old) {
                addition.left.push(*old);
            } else {
                kept.push(*old);
            }
        }
        let first = kept.partition_point(|refusal| refusal.member < new.member);
        let end = kept.partition_point(|refusal| refusal.member <= new.member);
        kept.insert(end, new);
        if end - first >= MAX_REFUSALS_PER_MEMBER
            && let Some(soonest) = (first..end).min_by_key(|at| kept[*at].expires)
        {
            addition.left.push(kept.remove(soonest));
            addition.crowded_out = true;
        }
        self.0 = kept.into();
        addition
    }

    /// Takes out the refusal with a stamp.
    pub(crate) fn remove(&mut self, stamp: u64) {
        let rest: Vec<Refusal> = self
            .0
            .iter()
            .copied()
            .filter(|old| old.stamp != stamp)
            .collect();
        self.0 = rest.into();
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Refusal> {
        self.0.iter()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }
}
