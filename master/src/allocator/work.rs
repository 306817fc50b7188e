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
    /// Agents of which something was left because of a quota.
    pub(super) held: ArrayQueue<Arc<AgentSlot>>,
    /// Whether there were more of them than are kept by name.
    pub(super) more_held: AtomicBool,
    /// Whether they are to be looked at again.
    pub(super) wake_held: AtomicBool,
    /// How often they were to be.
    pub(super) held_wakes: AtomicU64,
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

    /// Keeps an agent of which something was left because of a quota, until quotas leave more.
    pub(super) fn hold_back(&self, slot: &Arc<AgentSlot>) {
        if slot.mark_held() && self.held.push(Arc::clone(slot)).is_err() {
            slot.unmark_held();
            self.more_held.store(true, Ordering::Release);
        }
    }

    fn queue_held(&self) {
        if self.more_held.swap(false, Ordering::AcqRel) {
            self.all.store(true, Ordering::Release);
        }
        // Not more than there are now: others may go on holding agents back.
        for _ in 0..self.held.len() {
            let Some(slot) = self.held.pop() else { break };
            slot.unmark_held();
            self.enqueue(&slot);
        }
    }

    /// The agents of the next pass; empty when there is nothing to do.
    pub(super) fn take_work(&self) -> Vec<Arc<AgentSlot>> {
        if self.wake_held.swap(false, Ordering::AcqRel) {
            self.queue_held();
        }
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
