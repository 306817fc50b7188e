//! The allocator: plan → commit → propose, on the caller's thread ([`pass`], for simulations and
//! tests) or on worker threads ([`Allocator`]).
//!
//! Each agent is planned on what its slot holds now and committed at once, so a plan is never old;
//! where another thread was faster the agent is planned again, at most [`MAX_PLANS_PER_AGENT`]
//! times. What is proposed is already offered in the ledger: the driver gives it an offer id, or
//! takes it back with [`Transition::Rescind`] where the framework has gone meanwhile.

mod work;
mod worker;
mod workers;

use std::sync::Arc;

use ebb_types::{AgentId, Timestamp};

use crate::core::allocate::{Proposal, Round};
use crate::core::snapshot::RoleSnapshot;
use crate::ledger::{AgentSlot, Ledger, Refused, Transition};

pub use workers::{
    Allocator, AllocatorFigures, Batch, MAX_AGENTS_PER_PASS, MAX_QUEUED_AGENTS, MAX_WORKERS,
    StartError,
};

/// How often one pass plans one agent again because another thread took what it had planned with.
/// Then the agent is left alone: whoever took it wakes the allocator when it is free again.
pub const MAX_PLANS_PER_AGENT: u32 = 4;

/// Plans offers for the given agents and commits each to the ledger before it plans the next: what
/// is returned is already offered there. Deterministic when no other thread commits meanwhile.
///
/// Agents that the ledger does not have are passed over.
pub fn pass<'a>(
    ledger: &Ledger,
    snapshot: &RoleSnapshot,
    agents: impl IntoIterator<Item = &'a AgentId>,
    now: Timestamp,
) -> Vec<Proposal> {
    let slots: Vec<_> = agents.into_iter().filter_map(|id| ledger.get(id)).collect();
    pass_slots(snapshot, &slots, now)
}

/// [`pass`] over every agent, by agent id.
pub fn pass_all(ledger: &Ledger, snapshot: &RoleSnapshot, now: Timestamp) -> Vec<Proposal> {
    pass_slots(snapshot, ledger.slots().values(), now)
}

/// [`pass`] over slots.
pub fn pass_slots<'a>(
    snapshot: &RoleSnapshot,
    slots: impl IntoIterator<Item = &'a Arc<AgentSlot>>,
    now: Timestamp,
) -> Vec<Proposal> {
    let snapshot = snapshot.clone().publish();
    let mut round = Round::new(&snapshot, now);
    let mut proposals = Vec::new();
    if round.is_idle() {
        return proposals;
    }
    for slot in slots {
        for _ in 0..MAX_PLANS_PER_AGENT {
            if !plan_and_commit(&mut round, slot, &mut proposals) {
                break;
            }
        }
    }
    proposals
}

/// Plans one agent once; whether another thread was in the way, so that it should be planned again.
fn plan_and_commit(round: &mut Round<'_>, slot: &AgentSlot, proposals: &mut Vec<Proposal>) -> bool {
    let ledger = slot.load();
    let choices = round.choose(slot.agent_id(), &ledger.free());
    for choice in choices.into_iter().flatten() {
        let offer = Transition::Offer(choice.resources);
        match slot.apply(ledger.incarnation, &offer) {
            Ok(_) => {
                round.charge(&choice);
                let proposal = round.proposal(&choice, slot.agent_id(), ledger.incarnation);
                debug_assert!(
                    proposal.is_some(),
                    "a claimant was chosen that does not exist"
                );
                proposals.extend(proposal);
            }
            Err(Refused::NotFree { .. } | Refused::Contended { .. }) => return true,
            // The agent was removed or came back: whoever did that wakes the allocator.
            Err(_) => return false,
        }
    }
    false
}

#[cfg(test)]
mod tests;
