//! One worker thread: wait for work, plan and commit, hand over, wait until it is accounted for.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::park;

use super::pass_slots;
use super::work::{Shared, count};
use super::workers::Batch;
use crate::core::snapshot::BatchId;
use crate::ledger::{AgentSlot, Transition};

/// What a worker must see in a published snapshot before it plans on.
#[derive(Clone, Copy, Debug)]
enum Gate {
    Open,
    /// Its last batch.
    Batch(BatchId),
    /// Any change since this sequence.
    NewerThan(u64),
}

pub(super) struct Worker {
    id: u32,
    shared: Arc<Shared>,
    batches: u64,
    gate: Gate,
}

impl Worker {
    pub(super) const fn new(id: u32, shared: Arc<Shared>) -> Self {
        Self {
            id,
            shared,
            batches: 0,
            gate: Gate::Open,
        }
    }

    /// Parks whenever it can do nothing; whoever changes something unparks it, and an unpark that
    /// comes before the park is not lost.
    pub(super) fn run(mut self) {
        while !self.shared.stop.load(Ordering::Acquire) {
            if !self.may_plan() {
                park();
                continue;
            }
            let slots = self.shared.take_work();
            if slots.is_empty() {
                park();
                continue;
            }
            self.pass(&slots);
        }
    }

    fn may_plan(&mut self) -> bool {
        let snapshot = self.shared.published.load();
        let open = match self.gate {
            Gate::Open => true,
            Gate::Batch(batch) => snapshot.has_batch(batch),
            Gate::NewerThan(sequence) => snapshot.sequence() > sequence,
        };
        if open {
            self.gate = Gate::Open;
        }
        open
    }

    fn pass(&mut self, slots: &[Arc<AgentSlot>]) {
        // Loaded after the work was taken: see the top of this file.
        let snapshot = self.shared.published.load_full();
        let proposals = pass_slots(&snapshot, slots, (self.shared.clock)());
        let counters = &self.shared.counters;
        count(&counters.passes, 1);
        count(&counters.agents, slots.len());
        if proposals.is_empty() {
            return;
        }
        let number = proposals.len();
        self.batches += 1;
        let id = BatchId {
            worker: self.id,
            number: self.batches,
        };
        self.gate = Gate::Batch(id);
        if let Err(batch) = (self.shared.sink)(Batch { id, proposals }) {
            self.gate = Gate::NewerThan(snapshot.sequence());
            self.take_back(&batch);
        } else {
            count(&counters.proposals, number);
        }
    }

    /// Rescinds what the driver did not take and queues its agents again.
    fn take_back(&self, batch: &Batch) {
        count(&self.shared.counters.rejected, batch.proposals.len());
        for proposal in &batch.proposals {
            let Some(slot) = self.shared.ledger.get(&proposal.agent_id) else {
                continue;
            };
            let rescind = Transition::Rescind(proposal.resources);
            // Refused only when the agent was removed or came back, with nothing offered then.
            if slot.apply(proposal.incarnation, &rescind).is_ok() {
                self.shared.enqueue(&slot);
            }
        }
    }
}
