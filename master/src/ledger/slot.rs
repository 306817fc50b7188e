//! One agent's ledger, shared by all threads without a lock: an atomic pointer to an immutable
//! [`AgentLedger`].
//!
//! Every transition is load → pure apply → compare-exchange. A failed exchange means that another
//! thread's succeeded, so somebody always advances; a paused thread stops nobody. Attempts are
//! bounded by [`MAX_EXCHANGE_ATTEMPTS`]. The price is one allocation a transition, and that a
//! replaced ledger lives on until no thread can still be reading it (crossbeam-epoch).
//!
//! The atomic steps stand behind [`Memory`], so that the same loop runs on crossbeam-epoch in the
//! product ([`Epoch`]) and on loom's model of the memory in the tests (feature `loom`).

use std::sync::atomic::Ordering;

use crossbeam_epoch::{Atomic, Owned, pin};
use ebb_types::Incarnation;

use super::transition::{AgentLedger, Refused, Transition};

/// How often one transition tries its exchange before it is refused as contended.
pub const MAX_EXCHANGE_ATTEMPTS: u32 = 1024;

/// An exchange was lost to another thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Conflict;

/// The atomic steps that a slot is made of.
pub trait Memory {
    /// A cell that holds `first`.
    fn new(first: AgentLedger) -> Self;

    /// A copy of what the cell holds.
    fn load(&self) -> AgentLedger;

    /// Loads, lets `decide` choose the successor, and puts it in the cell unless the cell has
    /// changed meanwhile. A refusal by `decide` leaves the cell as it is.
    ///
    /// # Errors
    /// [`Conflict`] when the cell had changed; nothing was written then.
    fn attempt(
        &self,
        decide: impl FnOnce(&AgentLedger) -> Result<AgentLedger, Refused>,
    ) -> Result<Result<AgentLedger, Refused>, Conflict>;
}

/// The memory of the product: crossbeam-epoch.
#[derive(Debug)]
pub struct Epoch(Atomic<AgentLedger>);

impl Memory for Epoch {
    fn new(first: AgentLedger) -> Self {
        Self(Atomic::new(first))
    }

    fn load(&self) -> AgentLedger {
        let guard = pin();
        let shared = self.0.load(Ordering::Acquire, &guard);
        // SAFETY: the pointer is never null (`new` sets it, exchanges only replace it by another
        // allocation), what it points to is immutable, and it is freed no earlier than all guards
        // that were pinned when it was replaced are gone; ours is held until the copy is made.
        unsafe { *shared.deref() }
    }

    fn attempt(
        &self,
        decide: impl FnOnce(&AgentLedger) -> Result<AgentLedger, Refused>,
    ) -> Result<Result<AgentLedger, Refused>, Conflict> {
        let guard = pin();
        let current = self.0.load(Ordering::Acquire, &guard);
        // SAFETY: as in `load`; the guard is held to the end of this function.
        let next = match decide(unsafe { current.deref() }) {
            Ok(next) => next,
            Err(refused) => return Ok(Err(refused)),
        };
        self.0
            .compare_exchange(
                current,
                Owned::new(next),
                Ordering::AcqRel,
                Ordering::Acquire,
                &guard,
            )
            .map_err(|_| Conflict)?;
        // SAFETY: our exchange took `current` out of the only place from which it can be reached,
        // and exchanges that take out the same pointer cannot both succeed while a guard keeps it
        // from being freed and used again: so it is handed to the collector once.
        unsafe { guard.defer_destroy(current) };
        Ok(Ok(next))
    }
}

impl Drop for Epoch {
    fn drop(&mut self) {
        let cell = std::mem::replace(&mut self.0, Atomic::null());
        // SAFETY: `&mut self` means that no other thread can reach the cell; its pointer was never
        // handed to the collector, because only replaced pointers are.
        drop(unsafe { cell.try_into_owned() });
    }
}

/// A shared ledger on a given memory.
#[derive(Debug)]
pub struct Slot<M = Epoch>(M);

impl<M: Memory> Slot<M> {
    /// A slot that holds `first`.
    pub fn new(first: AgentLedger) -> Self {
        Self(M::new(first))
    }

    /// A copy of the ledger as it is now.
    pub fn load(&self) -> AgentLedger {
        self.0.load()
    }

    /// Applies a transition, and says how many exchanges were lost to other threads on the way.
    ///
    /// The result is refused when the agent is in another incarnation, when the transition does
    /// not add up, or when [`MAX_EXCHANGE_ATTEMPTS`] exchanges were lost.
    pub fn apply(
        &self,
        incarnation: Incarnation,
        transition: &Transition,
    ) -> (Result<AgentLedger, Refused>, u32) {
        for conflicts in 0..MAX_EXCHANGE_ATTEMPTS {
            let attempt = self.0.attempt(|ledger| {
                if ledger.incarnation == incarnation {
                    ledger.apply(transition)
                } else {
                    Err(Refused::Incarnation {
                        theirs: incarnation,
                        ours: ledger.incarnation,
                    })
                }
            });
            if let Ok(result) = attempt {
                return (result, conflicts);
            }
        }
        let attempts = MAX_EXCHANGE_ATTEMPTS;
        (Err(Refused::Contended { attempts }), attempts)
    }
}
