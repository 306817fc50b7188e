//! What the allocator's threads share: the work that waits, what was published, what they count.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::inbox::Inbox;
use super::wakes::{BITS, Wakes};
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
    pub(super) copies: AtomicU64,
}

pub(super) fn count(counter: &AtomicU64, amount: usize) {
    counter.fetch_add(amount as u64, Ordering::Relaxed);
}

pub(super) type Sink = Box<dyn Fn(Batch) -> Result<(), Batch> + Send + Sync>;

/// What the allocator and its workers share.
pub(super) struct Shared {
    pub(super) ledger: Arc<Ledger>,
    /// One for each worker.
    pub(super) inboxes: Box<[Inbox]>,
    pub(super) wakes: Wakes,
    /// Agents of which something was left because of a quota.
    pub(super) held_back: Wakes,
    /// How often those were to be looked at again.
    pub(super) held_wakes: AtomicU64,
    pub(super) stop: AtomicBool,
    pub(super) counters: Counters,
    pub(super) sink: Sink,
}

impl Shared {
    /// Has an agent looked at.
    pub(super) fn wake(&self, slot: &AgentSlot) {
        if !self.wakes.set(slot.number()) {
            count(&self.counters.coalesced, 1);
        }
    }

    /// Keeps an agent of which something was left because of a quota, until quotas leave more.
    pub(super) fn hold_back(&self, slot: &AgentSlot) {
        self.held_back.set(slot.number());
    }

    /// Has the agents looked at again that were held back.
    pub(super) fn wake_held_back(&self) {
        self.held_back.move_to(&self.wakes);
    }

    /// Has all agents looked at.
    pub(super) fn wake_all(&self) {
        self.wakes.set_all(self.ledger.numbered().end());
    }

    /// The agents of the next pass; empty when there is nothing to do.
    pub(super) fn take_work(&self) -> Vec<Arc<AgentSlot>> {
        let mut slots = Vec::new();
        self.wakes.take(MAX_AGENTS_PER_PASS, |bits| {
            let before = slots.len();
            // Loaded after the bits were taken: whoever set one has added its agent before.
            let numbered = self.ledger.numbered();
            let alike = bits.flat_map(|bit| (bit..numbered.end()).step_by(BITS as usize));
            slots.extend(alike.filter_map(|number| numbered.get(number).cloned()));
            slots.len() - before
        });
        slots
    }
}
