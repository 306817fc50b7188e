//! The ledger: what is offered and allocated on every agent. The only mutable state that the
//! master's driver and the allocator's worker threads share.
//!
//! Invariants: conservation on every agent (see [`AgentLedger`]); agents are added and removed by
//! the driver alone, while transitions may come from any thread. A slot that was removed keeps
//! refusing offers, so a worker that still holds it does no harm.
//!
//! Lock-free: transitions, loads and the look-up of slots. Not lock-free: memory allocation, and
//! adding or removing an agent waits for nobody but copies the path to it in the map of slots.

mod numbers;
mod slot;
mod transition;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::{ArcSwap, Guard};
use ebb_types::{AgentId, Incarnation, Resources};
use imbl::OrdMap;

use self::numbers::Numbers;
use crate::steps::step;

#[cfg(feature = "loom")]
pub use slot::model;
pub use slot::{Conflict, Epoch, MAX_EXCHANGE_ATTEMPTS, Memory, Slot};
pub use transition::{AgentLedger, Imbalance, RETIRED, Refused, Transition};

/// While a thread holds one, no ledger is freed that it may be reading. To be held for as long as a pass takes, not longer.
pub type Pin = <Epoch as Memory>::Pin;

/// Pins the thread.
pub fn pin() -> Pin {
    Epoch::pin()
}

/// How the ledger's exchanges went since the start; all only rise.
#[derive(Debug, Default)]
pub struct LedgerStats {
    applied: AtomicU64,
    conflicts: AtomicU64,
    refused: AtomicU64,
    contended: AtomicU64,
}

/// A reading of [`LedgerStats`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LedgerFigures {
    /// Transitions that were made.
    pub applied: u64,
    /// Exchanges that were lost to another thread and tried again.
    pub conflicts: u64,
    /// Transitions that were refused because they do not add up.
    pub refused: u64,
    /// Transitions that were given up after [`MAX_EXCHANGE_ATTEMPTS`] lost exchanges.
    pub contended: u64,
}

impl LedgerStats {
    fn note<T>(&self, result: &Result<T, Refused>, conflicts: u32) {
        let counter = match result {
            Ok(_) => &self.applied,
            Err(Refused::Contended { .. }) => &self.contended,
            Err(_) => &self.refused,
        };
        counter.fetch_add(1, Ordering::Relaxed);
        if conflicts > 0 {
            self.conflicts
                .fetch_add(u64::from(conflicts), Ordering::Relaxed);
        }
    }

    /// The counters now; each is read on its own.
    pub fn figures(&self) -> LedgerFigures {
        LedgerFigures {
            applied: self.applied.load(Ordering::Relaxed),
            conflicts: self.conflicts.load(Ordering::Relaxed),
            refused: self.refused.load(Ordering::Relaxed),
            contended: self.contended.load(Ordering::Relaxed),
        }
    }
}

/// One agent in the ledger.
#[derive(Debug)]
pub struct AgentSlot {
    agent_id: AgentId,
    number: u32,
    slot: Slot<Epoch>,
    stats: Arc<LedgerStats>,
}

impl AgentSlot {
    /// Whose resources these are.
    pub const fn agent_id(&self) -> &AgentId {
        &self.agent_id
    }

    /// The agent's number in the book of claims.
    pub const fn number(&self) -> u32 {
        self.number
    }

    /// A copy of the ledger as it is now.
    pub fn load(&self) -> AgentLedger {
        self.slot.load()
    }

    /// Its life and what can be offered of it now.
    #[inline]
    pub fn free(&self, pin: &Pin) -> (Incarnation, Resources) {
        self.slot
            .read(pin, |ledger| (ledger.incarnation, ledger.free()))
    }

    /// Offers free resources of the given incarnation of the agent.
    ///
    /// # Errors
    /// [`Refused`] says why nothing was changed.
    #[inline]
    pub fn offer(
        &self,
        pin: &Pin,
        incarnation: Incarnation,
        resources: &Resources,
    ) -> Result<(), Refused> {
        self.apply_pinned(pin, incarnation, &Transition::Offer(*resources))
    }

    /// Applies a transition to the given incarnation of the agent.
    ///
    /// # Errors
    /// [`Refused`] says why nothing was changed.
    pub fn apply(&self, incarnation: Incarnation, transition: &Transition) -> Result<(), Refused> {
        self.apply_pinned(&pin(), incarnation, transition)
    }

    #[inline]
    fn apply_pinned(
        &self,
        pin: &Pin,
        incarnation: Incarnation,
        transition: &Transition,
    ) -> Result<(), Refused> {
        let (result, conflicts) = self.slot.apply(pin, incarnation, transition, |_| ());
        self.stats.note(&result, conflicts);
        result
    }
}

/// Slots by the agents' numbers, as they were at one moment.
pub(crate) struct Numbered(Guard<Arc<Numbers>>);

impl Numbered {
    /// The slot of an agent.
    pub(crate) fn get(&self, number: u32) -> Option<&Arc<AgentSlot>> {
        self.0.get(number)
    }

    /// No number is larger or as large.
    pub(crate) fn end(&self) -> u32 {
        self.0.end()
    }
}

/// All agents' slots.
#[derive(Debug, Default)]
pub struct Ledger {
    slots: ArcSwap<OrdMap<AgentId, Arc<AgentSlot>>>,
    /// The same by number.
    numbers: ArcSwap<Numbers>,
    stats: Arc<LedgerStats>,
}

impl Ledger {
    /// A ledger without agents.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds an agent with its number in the book of claims, or replaces it by a new incarnation. For
    /// the driver alone.
    pub fn insert(&self, agent_id: AgentId, number: u32, first: AgentLedger) -> Arc<AgentSlot> {
        let slot = Arc::new(AgentSlot {
            agent_id: agent_id.clone(),
            number,
            slot: Slot::new(first),
            stats: Arc::clone(&self.stats),
        });
        let earlier = self.get(&agent_id);
        self.slots
            .rcu(|slots| slots.update(agent_id.clone(), Arc::clone(&slot)));
        self.numbers
            .rcu(|slots| slots.with(number, Some(Arc::clone(&slot))));
        if let Some(earlier) = earlier {
            retire(&earlier);
        }
        slot
    }

    /// Removes an agent; the last state of its ledger. Workers that still hold its slot are refused
    /// everything from then on. For the driver alone.
    pub fn remove(&self, agent_id: &AgentId) -> Option<AgentLedger> {
        let slot = self.get(agent_id)?;
        self.slots.rcu(|slots| slots.without(agent_id));
        // Its number may be another agent's by now.
        let same = |other: &Arc<AgentSlot>| Arc::ptr_eq(other, &slot);
        if self.numbered().get(slot.number).is_some_and(same) {
            self.numbers.rcu(|slots| slots.with(slot.number, None));
        }
        retire(&slot)
    }

    /// Slots by number.
    pub(crate) fn numbered(&self) -> Numbered {
        step("look agents up");
        Numbered(self.numbers.load())
    }

    /// An agent's slot.
    pub fn get(&self, agent_id: &AgentId) -> Option<Arc<AgentSlot>> {
        self.slots.load().get(agent_id).cloned()
    }

    /// Applies a transition to an agent.
    ///
    /// # Errors
    /// [`Refused`] says why nothing was changed.
    pub fn apply(
        &self,
        agent_id: &AgentId,
        incarnation: Incarnation,
        transition: &Transition,
    ) -> Result<(), Refused> {
        let slots = self.slots.load();
        let slot = slots.get(agent_id).ok_or(Refused::NoAgent)?;
        slot.apply(incarnation, transition)
    }

    /// Applies a transition to the agent of a number in the book of claims.
    ///
    /// # Errors
    /// [`Refused`] says why nothing was changed.
    pub fn apply_at(
        &self,
        number: u32,
        incarnation: Incarnation,
        transition: &Transition,
    ) -> Result<(), Refused> {
        let slots = self.numbered();
        let slot = slots.get(number).ok_or(Refused::NoAgent)?;
        slot.apply(incarnation, transition)
    }

    /// The slot of the agent of a number in the book of claims.
    pub fn get_at(&self, number: u32) -> Option<Arc<AgentSlot>> {
        self.numbered().get(number).cloned()
    }

    /// All slots, by agent id; a picture that later additions and removals do not touch.
    pub fn slots(&self) -> Arc<OrdMap<AgentId, Arc<AgentSlot>>> {
        step("look at all agents");
        self.slots.load_full()
    }

    /// How the exchanges went.
    pub fn stats(&self) -> &LedgerStats {
        &self.stats
    }

    /// Checks conservation on every agent.
    ///
    /// # Errors
    /// [`Imbalance`] holds the first ledger that does not add up.
    pub fn check(&self) -> Result<(), Imbalance> {
        self.slots()
            .values()
            .try_for_each(|slot| slot.load().check())
    }
}

/// Ends a slot. Only offers of other threads can stand in the way, and each of them uses up what is
/// free, so the attempts of one call are far more than can fail.
fn retire(slot: &AgentSlot) -> Option<AgentLedger> {
    let incarnation = slot.load().incarnation;
    slot.apply(incarnation, &Transition::Retire).ok()?;
    Some(slot.load())
}

#[cfg(test)]
mod tests;
