//! The work that waits for the allocator's threads: agents by name, or all of them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use arc_swap::ArcSwapOption;
use crossbeam_queue::ArrayQueue;

use super::inbox::Inbox;
use super::workers::{Batch, MAX_AGENTS_PER_PASS};
use crate::ledger::{AgentSlot, Ledger};

/// What the workers count.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) passes: AtomicU64,
    pub(super) agents: AtomicU64,
    pub(super) proposals: AtomicU64,
    pub(super) rejected: AtomicU64,
    pub(super) coalesced: AtomicU64,
    pub(super) overflows: AtomicU64,
    pub(super) copies: AtomicU64,
}

pub(super) fn count(counter: &AtomicU64, amount: usize) {
    counter.fetch_add(amount as u64, Ordering::Relaxed);
}

/// All agents, shared out among the workers.
#[derive(Debug)]
pub(super) struct Sweep {
    slots: Vec<Arc<AgentSlot>>,
    next: AtomicUsize,
}

impl Sweep {
    /// The next agents that no worker has taken yet.
    fn take(&self) -> &[Arc<AgentSlot>] {
        let start = self.next.fetch_add(MAX_AGENTS_PER_PASS, Ordering::AcqRel);
        let end = start.saturating_add(MAX_AGENTS_PER_PASS);
        let start = start.min(self.slots.len());
        &self.slots[start..end.min(self.slots.len())]
    }
}

pub(super) type Sink = Box<dyn Fn(Batch) -> Result<(), Batch> + Send + Sync>;

/// What the allocator and its workers share.
pub(super) struct Shared {
    pub(super) ledger: Arc<Ledger>,
    /// One for each worker.
    pub(super) inboxes: Box<[Inbox]>,
    pub(super) queue: ArrayQueue<Arc<AgentSlot>>,
    /// Whether all agents are to be looked at.
    pub(super) all: AtomicBool,
    pub(super) sweep: ArcSwapOption<Sweep>,
    pub(super) stop: AtomicBool,
    pub(super) counters: Counters,
    pub(super) sink: Sink,
}

impl Shared {
    pub(super) fn enqueue(&self, slot: &Arc<AgentSlot>) {
        if !slot.mark_queued() {
            count(&self.counters.coalesced, 1);
        } else if self.queue.push(Arc::clone(slot)).is_err() {
            slot.unmark_queued();
            count(&self.counters.overflows, 1);
            self.all.store(true, Ordering::Release);
        }
    }

    /// The agents of the next pass; empty when there is nothing to do.
    pub(super) fn take_work(&self) -> Vec<Arc<AgentSlot>> {
        if self.all.swap(false, Ordering::AcqRel) {
            // A sweep that is under way is not lost: this one covers all that it had left.
            self.sweep.store(Some(Arc::new(Sweep {
                slots: self.ledger.slots().values().cloned().collect(),
                next: AtomicUsize::new(0),
            })));
        }
        let sweep = self.sweep.load();
        if let Some(current) = sweep.as_ref() {
            let slots = current.take();
            if !slots.is_empty() {
                return slots.to_vec();
            }
            self.sweep.compare_and_swap(&sweep, None);
        }
        let mut slots = Vec::new();
        while slots.len() < MAX_AGENTS_PER_PASS
            && let Some(slot) = self.queue.pop()
        {
            slot.unmark_queued();
            slots.push(slot);
        }
        slots
    }
}
