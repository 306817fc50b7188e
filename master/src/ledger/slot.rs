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

use crossbeam_epoch::{Atomic, Guard, Owned};
use ebb_types::Incarnation;

use super::transition::{AgentLedger, Refused, Transition};
use crate::steps::step;

/// How often one transition tries its exchange before it is refused as contended.
pub const MAX_EXCHANGE_ATTEMPTS: u32 = 1024;

/// What reads a ledger sees all that was written into it before it was published …
const READ: Ordering = Ordering::Acquire;
/// … by the exchange, which in turn has seen what it replaces.
const EXCHANGE: Ordering = Ordering::AcqRel;

/// An exchange was lost to another thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Conflict;

/// The atomic steps that a slot is made of.
pub trait Memory {
    /// While it lasts, nothing is freed that its thread may be reading.
    type Pin;

    /// A cell that holds `first`.
    fn new(first: AgentLedger) -> Self;

    /// Keeps what is read from being freed.
    fn pin() -> Self::Pin;

    /// Shows what the cell holds.
    fn read<T>(&self, pin: &Self::Pin, look: impl FnOnce(&AgentLedger) -> T) -> T;

    /// Loads, lets `change` make the successor of a copy, and puts that in the cell unless the cell has
    /// changed meanwhile. A refusal by `change` leaves the cell as it is.
    ///
    /// # Errors
    /// [`Conflict`] when the cell had changed; nothing was written then.
    fn attempt<T>(
        &self,
        pin: &Self::Pin,
        change: impl FnOnce(&mut AgentLedger) -> Result<T, Refused>,
    ) -> Result<Result<T, Refused>, Conflict>;
}

/// The memory of the product: crossbeam-epoch.
#[derive(Debug)]
pub struct Epoch(Atomic<AgentLedger>);

impl Memory for Epoch {
    type Pin = Guard;

    fn new(first: AgentLedger) -> Self {
        Self(Atomic::new(first))
    }

    fn pin() -> Guard {
        crossbeam_epoch::pin()
    }

    #[inline]
    fn read<T>(&self, pin: &Guard, look: impl FnOnce(&AgentLedger) -> T) -> T {
        step("load");
        let shared = self.0.load(READ, pin);
        // SAFETY: the pointer is never null (`new` sets it, exchanges only replace it by another
        // allocation), what it points to is immutable, and it is freed no earlier than all guards
        // that were pinned when it was replaced are gone; the caller holds ours to the end of this function.
        look(unsafe { shared.deref() })
    }

    #[inline]
    fn attempt<T>(
        &self,
        pin: &Guard,
        change: impl FnOnce(&mut AgentLedger) -> Result<T, Refused>,
    ) -> Result<Result<T, Refused>, Conflict> {
        step("load to exchange");
        let current = self.0.load(READ, pin);
        // SAFETY: as in `read`; the guard is held to the end of this function.
        let ledger = unsafe { current.deref() };
        // Copied once: straight to where it will stand.
        let mut next = Owned::from(Box::write(Box::new_uninit(), *ledger));
        let seen = match change(&mut next) {
            Ok(seen) => seen,
            Err(refused) => return Ok(Err(refused)),
        };
        step("exchange");
        self.0
            .compare_exchange(current, next, EXCHANGE, READ, pin)
            .map_err(|_| Conflict)?;
        step("have exchanged");
        // SAFETY: our exchange took `current` out of the only place from which it can be reached,
        // and exchanges that take out the same pointer cannot both succeed while a guard keeps it
        // from being freed and used again: so it is handed to the collector once.
        unsafe { pin.defer_destroy(current) };
        Ok(Ok(seen))
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

    /// Shows the ledger as it is now.
    #[inline]
    pub fn read<T>(&self, pin: &M::Pin, look: impl FnOnce(&AgentLedger) -> T) -> T {
        self.0.read(pin, look)
    }

    /// A copy of the ledger as it is now.
    pub fn load(&self) -> AgentLedger {
        self.read(&M::pin(), |ledger| *ledger)
    }

    /// Applies a transition, and says what `look` has seen of the ledger after it, and how many exchanges were lost to
    /// other threads on the way.
    ///
    /// The result is refused when the agent is in another incarnation, when the transition does
    /// not add up, or when [`MAX_EXCHANGE_ATTEMPTS`] exchanges were lost.
    #[inline]
    pub fn apply<T>(
        &self,
        pin: &M::Pin,
        incarnation: Incarnation,
        transition: &Transition,
        look: impl Fn(&AgentLedger) -> T,
    ) -> (Result<T, Refused>, u32) {
        for conflicts in 0..MAX_EXCHANGE_ATTEMPTS {
            let attempt = self.0.attempt(pin, |ledger| {
                if ledger.incarnation != incarnation {
                    return Err(Refused::Incarnation {
                        theirs: incarnation,
                        ours: ledger.incarnation,
                    });
                }
                ledger.change(transition)?;
                Ok(look(ledger))
            });
            if let Ok(result) = attempt {
                return (result, conflicts);
            }
        }
        let attempts = MAX_EXCHANGE_ATTEMPTS;
        (Err(Refused::Contended { attempts }), attempts)
    }
}

/// The slot on loom's model of the memory, for the model checker alone.
///
/// It differs from [`Epoch`] in one thing: ledgers are kept to the end of the model instead of being
/// freed when nobody reads them any more, because loom cannot run crossbeam-epoch. What is checked
/// is that no update is lost and that no ledger is read before it is wholly written; that none is
/// freed too early rests on crossbeam-epoch and the SAFETY comments above.
#[cfg(feature = "loom")]
pub mod model {
    use std::marker::PhantomData;
    use std::sync::{Arc, Mutex, PoisonError};

    use loom::cell::UnsafeCell;
    use loom::sync::atomic::AtomicUsize;

    use super::{AgentLedger, Conflict, EXCHANGE, Memory, Ordering, READ, Refused};

    /// A ledger whose reads and writes loom watches.
    struct Watched(UnsafeCell<AgentLedger>);

    // SAFETY: the ledger is written once, in `Watched::new`, and only read afterwards; that the
    // write comes before every read is what loom checks.
    unsafe impl Sync for Watched {}
    // SAFETY: it owns plain data.
    unsafe impl Send for Watched {}

    impl Watched {
        fn new(ledger: AgentLedger) -> Self {
            let cell = UnsafeCell::new(ledger);
            // SAFETY: nobody else can reach the cell yet. The write repeats what is there, so that
            // loom knows when it was written.
            cell.with_mut(|place| unsafe { *place = ledger });
            Self(cell)
        }

        fn read(&self) -> AgentLedger {
            // SAFETY: nobody writes after `new`; see the `Sync` above.
            self.0.with(|place| unsafe { *place })
        }
    }

    /// How an index is exchanged.
    pub trait Exchange {
        /// Puts `next` in the place of `current`; false where another was there.
        fn exchange(cell: &AtomicUsize, current: usize, next: usize) -> bool;
    }

    /// As the product does.
    #[derive(Debug)]
    pub struct Sound;

    impl Exchange for Sound {
        fn exchange(cell: &AtomicUsize, current: usize, next: usize) -> bool {
            cell.compare_exchange(current, next, EXCHANGE, READ).is_ok()
        }
    }

    /// A planted fault: a load and a store instead of an exchange.
    #[derive(Debug)]
    pub struct LoadThenStore;

    impl Exchange for LoadThenStore {
        fn exchange(cell: &AtomicUsize, current: usize, next: usize) -> bool {
            let unchanged = cell.load(READ) == current;
            if unchanged {
                cell.store(next, Ordering::Release);
            }
            unchanged
        }
    }

    /// A planted fault: an exchange that publishes nothing.
    #[derive(Debug)]
    pub struct Unordered;

    impl Exchange for Unordered {
        fn exchange(cell: &AtomicUsize, current: usize, next: usize) -> bool {
            cell.compare_exchange(current, next, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok()
        }
    }

    /// The memory of the model.
    pub struct Modelled<E> {
        /// Which of the ledgers is the current one.
        current: AtomicUsize,
        /// All ledgers that ever were. A mutex of the standard library, which loom does not see: it
        /// orders nothing in the model.
        ledgers: Mutex<Vec<Arc<Watched>>>,
        exchange: PhantomData<E>,
    }

    impl<E> Modelled<E> {
        fn get(&self, index: usize) -> AgentLedger {
            let ledgers = self.ledgers.lock().unwrap_or_else(PoisonError::into_inner);
            let watched = Arc::clone(&ledgers[index]);
            drop(ledgers);
            watched.read()
        }

        fn put(&self, ledger: AgentLedger) -> usize {
            let watched = Arc::new(Watched::new(ledger));
            let mut ledgers = self.ledgers.lock().unwrap_or_else(PoisonError::into_inner);
            ledgers.push(watched);
            ledgers.len() - 1
        }
    }

    impl<E: Exchange> Memory for Modelled<E> {
        type Pin = ();

        fn pin() {}

        fn new(first: AgentLedger) -> Self {
            let memory = Self {
                current: AtomicUsize::new(0),
                ledgers: Mutex::default(),
                exchange: PhantomData,
            };
            memory.put(first);
            memory
        }

        fn read<T>(&self, (): &(), look: impl FnOnce(&AgentLedger) -> T) -> T {
            look(&self.get(self.current.load(READ)))
        }

        fn attempt<T>(
            &self,
            (): &(),
            change: impl FnOnce(&mut AgentLedger) -> Result<T, Refused>,
        ) -> Result<Result<T, Refused>, Conflict> {
            let current = self.current.load(READ);
            let mut next = self.get(current);
            let seen = match change(&mut next) {
                Ok(seen) => seen,
                Err(refused) => return Ok(Err(refused)),
            };
            let index = self.put(next);
            if E::exchange(&self.current, current, index) {
                Ok(Ok(seen))
            } else {
                Err(Conflict)
            }
        }
    }
}
