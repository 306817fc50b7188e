//! One worker thread: wait for work, plan and commit, hand over, wait until it is accounted for.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::park;

use super::inbox::Reader;
use super::pass_and_hold_back;
use super::work::{Shared, count};
use super::workers::Batch;
use crate::core::allocate::Planner;
use crate::core::claims::BatchId;
use crate::ledger::{AgentSlot, Transition};
use crate::steps::step;

/// What a worker must have read before it plans on.
#[derive(Clone, Copy, Debug)]
enum Gate {
    Open,
    /// Its last batch.
    Batch(BatchId),
    /// Any publication after this one.
    NewerThan(u64),
}

pub(super) struct Worker {
    id: u32,
    shared: Arc<Shared>,
    reader: Reader,
    batches: u64,
    gate: Gate,
}

impl Worker {
    pub(super) fn new(id: u32, shared: Arc<Shared>, planner: Planner) -> Self {
        Self {
            // Another allocator may have gone before, with the same book.
            batches: planner.claims().last_batch(id),
            id,
            shared,
            reader: Reader { planner, read: 0 },
            gate: Gate::Open,
        }
    }

    /// Parks whenever it can do nothing; whoever changes something unparks it, and an unpark that
    /// comes before the park is not lost. At the end it has read all that was published.
    pub(super) fn run(mut self) -> Planner {
        while !self.shared.stop.load(Ordering::Acquire) {
            if !self.may_plan() {
                step("park, unaccounted for");
                park();
                continue;
            }
            let slots = self.shared.take_work();
            if slots.is_empty() {
                step("park, without work");
                park();
                continue;
            }
            self.pass(&slots);
        }
        self.read();
        self.reader.planner
    }

    fn may_plan(&mut self) -> bool {
        self.read();
        let open = match self.gate {
            Gate::Open => true,
            Gate::Batch(batch) => self.reader.planner.claims().has_batch(batch),
            Gate::NewerThan(number) => self.reader.read > number,
        };
        if open {
            self.gate = Gate::Open;
        }
        open
    }

    fn read(&mut self) {
        self.shared.inboxes[self.id as usize].read(&mut self.reader);
    }

    fn pass(&mut self, slots: &[Arc<AgentSlot>]) {
        step("look for wakes");
        let held_wakes = self.shared.held_wakes.load(Ordering::Acquire);
        // Read after the work was taken: whoever woke these agents has published before.
        self.read();
        let mut held_back = Vec::new();
        let planner = &mut self.reader.planner;
        let proposals = pass_and_hold_back(planner, slots, |slot| held_back.push(slot));
        self.hold_back(&held_back, held_wakes);
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
        step("hand over");
        if let Err(batch) = (self.shared.sink)(Batch { id, proposals }) {
            step("take back");
            self.gate = Gate::NewerThan(self.reader.read);
            self.reader.planner.forget_proposals();
            self.take_back(&batch);
        } else {
            count(&counters.proposals, number);
        }
    }

    /// Holds agents back that were planned after so many wakes of such agents.
    fn hold_back(&self, slots: &[&Arc<AgentSlot>], held_wakes: u64) {
        for slot in slots {
            self.shared.hold_back(slot);
        }
        step("look for wakes again");
        // The next one has woken the others without these.
        if self.shared.held_wakes.load(Ordering::Acquire) != held_wakes {
            slots.iter().for_each(|slot| self.shared.wake(slot));
        }
    }

    /// Rescinds what the driver did not take and queues its agents again.
    fn take_back(&self, batch: &Batch) {
        count(&self.shared.counters.rejected, batch.proposals.len());
        let slots = self.shared.ledger.numbered();
        for proposal in &batch.proposals {
            let Some(slot) = slots.get(proposal.agent) else {
                continue;
            };
            let rescind = Transition::Rescind(proposal.resources);
            // Refused only when the agent was removed or came back, with nothing offered then.
            if slot.apply(proposal.incarnation, &rescind).is_ok() {
                self.shared.wake(slot);
            }
        }
    }
}
