//! The allocator: plan → commit → propose, on the caller's thread ([`pass`], for simulations and
//! tests) or on worker threads ([`Allocator`]).
//!
//! Each decision is planned on what the agent's slot held when the pass began and committed at once; where another
//! thread was faster the agent is looked at again, at most [`MAX_LOOKS_PER_AGENT`](crate::core::allocate) times. What is
//! proposed is already offered in the ledger: the driver gives it an offer id, or takes it back with
//! [`Transition::Rescind`] where the framework has gone meanwhile.

mod inbox;
mod wakes;
mod work;
mod worker;
mod workers;

use std::borrow::Borrow;

use ebb_types::{AgentId, Incarnation, Resources};

use crate::core::allocate::{AgentView, Outcome, Planner};
use crate::core::claims::Seat;
use crate::ledger::{AgentSlot, Ledger, Pin, Refused, pin};

pub use inbox::MAX_PUBLICATIONS_BEHIND;
#[cfg(feature = "loom")]
pub use wakes::model;
pub use workers::{
    Allocator, AllocatorFigures, Batch, MAX_AGENTS_AT_ONCE, MAX_AGENTS_PER_PASS, MAX_WORKERS,
    StartError,
};

/// So many agents are planned together: what is known of them stays near while they are offered.
const AGENTS_AT_ONCE: usize = 1024;

/// Resources of one agent for one framework in one role: an offer without an id yet. They are
/// already offered in the ledger when the driver receives it from the allocator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Proposal {
    /// The agent's number in the book of claims.
    pub agent: u32,
    /// Its registration, which is no other agent's: numbers are used again.
    pub incarnation: Incarnation,
    /// Who is to be offered them.
    pub seat: Seat,
    /// What.
    pub resources: Resources,
}

/// Plans offers for the given agents and commits each to the ledger before it plans the next: what
/// is returned is already offered there. Deterministic when no other thread commits meanwhile.
///
/// Agents that the ledger does not have are passed over. The planner forgets the proposals: their shares count for it
/// when it follows what the core makes of them.
pub fn pass<'a>(
    ledger: &Ledger,
    planner: &mut Planner,
    agents: impl IntoIterator<Item = &'a AgentId>,
) -> Vec<Proposal> {
    let slots: Vec<_> = agents.into_iter().filter_map(|id| ledger.get(id)).collect();
    let proposals = pass_slots(planner, &slots);
    planner.forget_proposals();
    proposals
}

/// [`pass`] over every agent.
pub fn pass_all(ledger: &Ledger, planner: &mut Planner) -> Vec<Proposal> {
    let all = ledger.slots();
    let slots: Vec<&AgentSlot> = all.values().map(|slot| &**slot).collect();
    let proposals = pass_slots(planner, &slots);
    planner.forget_proposals();
    proposals
}

/// [`pass`] over slots; the planner goes on counting the proposals.
pub fn pass_slots<S: Borrow<AgentSlot>>(planner: &mut Planner, slots: &[S]) -> Vec<Proposal> {
    pass_and_hold_back(planner, slots, |_| {})
}

/// [`pass_slots`]; `hold_back` is told of each slot of which something was left because of a quota.
fn pass_and_hold_back<'a, S: Borrow<AgentSlot>>(
    planner: &mut Planner,
    slots: &'a [S],
    mut hold_back: impl FnMut(&'a S),
) -> Vec<Proposal> {
    if planner.is_idle() {
        return Vec::new();
    }
    let mut proposals = planner.proposals();
    proposals.reserve(slots.len());
    let pin = pin();
    for slots in slots.chunks(AGENTS_AT_ONCE) {
        pass_some(planner, &pin, slots, &mut proposals);
        let left = planner.held_back().iter();
        left.for_each(|position| hold_back(&slots[*position]));
    }
    proposals
}

fn pass_some<S: Borrow<AgentSlot>>(
    planner: &mut Planner,
    pin: &Pin,
    slots: &[S],
    proposals: &mut Vec<Proposal>,
) {
    let mut views = planner.views();
    views.extend(slots.iter().map(|slot| {
        let slot = slot.borrow();
        let (incarnation, free) = slot.free(pin);
        AgentView {
            agent: slot.number(),
            incarnation,
            free,
        }
    }));
    planner.plan(&views, |position, part| {
        commit(
            slots[position].borrow(),
            pin,
            views[position].incarnation,
            part,
        )
    });
    let claims = planner.claims();
    proposals.extend(planner.choices().iter().filter_map(|choice| {
        let view = views[choice.position];
        let seat = claims.seat(choice.member);
        debug_assert!(seat.is_some(), "a member was chosen that does not exist");
        Some(Proposal {
            agent: view.agent,
            incarnation: view.incarnation,
            seat: seat?,
            resources: choice.resources,
        })
    }));
    planner.keep_views(views);
}

fn commit(slot: &AgentSlot, pin: &Pin, incarnation: Incarnation, part: &Resources) -> Outcome {
    match slot.offer(pin, incarnation, part) {
        Ok(_) => Outcome::Offered,
        Err(Refused::NotFree { .. } | Refused::Contended { .. }) => {
            let (life, free) = slot.free(pin);
            if life == incarnation {
                Outcome::Changed(free)
            } else {
                Outcome::Gone
            }
        }
        // The agent was removed or came back: whoever did that wakes the allocator.
        Err(_) => Outcome::Gone,
    }
}

#[cfg(test)]
mod tests;
