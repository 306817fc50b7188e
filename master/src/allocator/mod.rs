//! The allocator: plan → commit → propose, on the caller's thread ([`pass`]) or on worker threads
//! ([`Allocator`]).

use std::sync::Arc;

use ebb_types::{AgentId, Timestamp};

use crate::core::allocate::Proposal;
use crate::core::snapshot::{BatchId, RoleSnapshot};
use crate::ledger::{AgentSlot, Ledger};

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
    let _ = (ledger, snapshot, agents.into_iter().count(), now);
    Vec::new()
}

/// [`pass`] over every agent, by agent id.
pub fn pass_all(ledger: &Ledger, snapshot: &RoleSnapshot, now: Timestamp) -> Vec<Proposal> {
    let _ = (ledger, snapshot, now);
    Vec::new()
}

/// Proposals of one pass of one worker thread; never empty.
#[derive(Clone, Debug)]
pub struct Batch {
    /// To be noted in the snapshot ([`RoleSnapshot::note_batch`]) when all of them are taken in;
    /// the worker plans no further before a snapshot that says so is published.
    pub id: BatchId,
    /// Already offered in the ledger.
    pub proposals: Vec<Proposal>,
}

/// Worker threads that plan and commit whenever they are woken.
#[derive(Debug)]
pub struct Allocator {}

#[allow(unused_variables, clippy::unused_self, clippy::needless_pass_by_value, clippy::missing_const_for_fn)]
impl Allocator {
    /// Starts the threads. `clock` gives the time as the driver sees it; `sink` hands a batch to the
    /// driver without waiting, or gives it back when it cannot: the worker then rescinds it, and
    /// looks at its agents again after the next publication.
    ///
    /// # Errors
    /// When a thread cannot be started.
    pub fn start(
        workers: u32,
        ledger: Arc<Ledger>,
        clock: impl Fn() -> Timestamp + Send + Sync + 'static,
        sink: impl Fn(Batch) -> Result<(), Batch> + Send + Sync + 'static,
    ) -> std::io::Result<Self> {
        Ok(Self {})
    }

    /// Publishes a snapshot to the workers. Does not by itself make them look at any agent.
    pub fn publish(&self, snapshot: RoleSnapshot) {}

    /// Has the workers look at these agents. Never waits.
    pub fn wake<'a>(&self, agents: impl IntoIterator<Item = &'a Arc<AgentSlot>>) {}

    /// As [`Allocator::wake`], by id.
    pub fn wake_ids<'a>(&self, agents: impl IntoIterator<Item = &'a AgentId>) {}

    /// Has the workers look at every agent. Never waits.
    pub fn wake_all(&self) {}

    /// Ends the threads and waits for them. Dropping the allocator does the same.
    pub fn stop(self) {}
}
