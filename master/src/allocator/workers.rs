//! Worker threads that plan and commit whenever they are woken: allocation is event-driven.
//!
//! Wakes are coalesced: an agent waits once however often it is woken (see `wakes.rs`), and a worker takes all that
//! waits, up to [`MAX_AGENTS_PER_PASS`], into one pass. A wake is never lost: an agent's mark is cleared before its
//! ledger is loaded and the inbox read, so whatever changes later has it wait again. Hence the order
//! that the driver keeps: change the ledger, publish the claims, then wake.
//!
//! The driver need not wake anybody for a few agents: it plans for them itself, with the book that it publishes from
//! ([`Allocator::plan_at_once`]), which is newer than every copy. It commits as the workers do, so that neither waits for
//! the other, and what it proposes is in the next publication.
//!
//! Each worker has a copy of the book of claims and follows what is published. Shares of proposals that the driver has
//! not seen yet are in no publication. So a worker that has sent a batch plans no further before a publication accounts
//! for it: the skew of shares is at most one batch of each *other* worker, and none with one worker. The driver takes in
//! the batch, notes it ([`Claims::note_batch`]) and publishes, even where it rescinds all of it. A sink that holds one
//! batch for each worker is therefore never full.
//!
//! Lock-free: waking, taking work, publishing, reading, planning, committing. A thread that is paused anywhere on that path
//! stops nobody (`tests/pauses.rs` stops one before each step): what it keeps to itself are the agents of its pass until
//! they are woken again, what it has offered of them and not handed over, and the memory of whatever is replaced in the
//! meantime if it is paused while it reads a ledger (crossbeam-epoch frees nothing that it might still read).
//! Not lock-free: memory allocation, parking and unparking of idle workers (futex), the thread's own first use of
//! crossbeam-epoch (its collector is made once), and the sink that the driver hands in.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{JoinHandle, Thread};

use ebb_types::AgentId;

use super::inbox::Inbox;
use super::wakes::Wakes;
use super::work::{Counters, Shared, count};
use super::worker::Worker;
use super::{Proposal, pass_and_hold_back};
use crate::core::allocate::Planner;
use crate::core::claims::{BatchId, Claims, Entry};
use crate::ledger::{AgentSlot, Ledger};

/// About the most agents that one pass looks at (up to 63 more), so that a batch stays small enough for one step of the
/// driver.
pub const MAX_AGENTS_PER_PASS: usize = 4096;
/// Most agents for which the driver plans itself; of more, the workers do.
pub const MAX_AGENTS_AT_ONCE: usize = 16;
/// Most worker threads.
pub const MAX_WORKERS: u32 = 64;

/// Proposals of one pass of one worker thread; never empty.
#[derive(Clone, Debug)]
pub struct Batch {
    /// To be noted in the book ([`Claims::note_batch`]) when all of them are taken in; the worker
    /// plans no further before that is published.
    pub id: BatchId,
    /// Already offered in the ledger.
    pub proposals: Vec<Proposal>,
}

/// Why the worker threads could not be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The number of threads is not between 1 and [`MAX_WORKERS`].
    #[error("{asked} allocator threads were asked for; ask for 1 to {MAX_WORKERS}")]
    Number {
        /// What was asked for.
        asked: u32,
    },
    /// The system refuses a thread.
    #[error("allocator thread {worker} cannot be started; raise the limit of threads (ulimit -u)")]
    Thread {
        /// Which thread.
        worker: u32,
        /// What the system said.
        source: std::io::Error,
    },
}

/// What the workers have done since the start; all only rise.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AllocatorFigures {
    /// Passes that were made.
    pub passes: u64,
    /// Agents that passes looked at.
    pub agents: u64,
    /// Proposals that were handed to the driver.
    pub proposals: u64,
    /// Proposals that the driver did not take, and that were rescinded.
    pub rejected: u64,
    /// Wakes of an agent that was waiting already.
    pub coalesced: u64,
    /// Times that a worker was so far behind that it was given a copy of the book.
    pub copies: u64,
}

/// Worker threads that plan and commit whenever they are woken.
pub struct Allocator {
    shared: Arc<Shared>,
    published: AtomicU64,
    threads: Vec<Thread>,
    handles: Vec<JoinHandle<Planner>>,
}

impl Allocator {
    /// Starts the threads with a copy each of the book as it is. `sink` hands a batch to the driver
    /// without waiting, or gives it back when it cannot: the worker then rescinds it, and looks at
    /// its agents again after the next publication.
    ///
    /// # Errors
    /// [`StartError`] when the number is out of range or a thread cannot be started; those that
    /// were are ended.
    pub fn start(
        workers: u32,
        ledger: Arc<Ledger>,
        claims: &Claims,
        sink: impl Fn(Batch) -> Result<(), Batch> + Send + Sync + 'static,
    ) -> Result<Self, StartError> {
        if !(1..=MAX_WORKERS).contains(&workers) {
            return Err(StartError::Number { asked: workers });
        }
        let shared = Arc::new(Shared {
            ledger,
            inboxes: (0..workers).map(|_| Inbox::new()).collect(),
            wakes: Wakes::new(),
            held_back: Wakes::new(),
            held_wakes: AtomicU64::new(0),
            stop: AtomicBool::new(false),
            counters: Counters::default(),
            sink: Box::new(sink),
        });
        let mut allocator = Self {
            shared,
            published: AtomicU64::new(0),
            threads: Vec::new(),
            handles: Vec::new(),
        };
        for worker in 0..workers {
            let shared = Arc::clone(&allocator.shared);
            let planner = Planner::of_worker(worker, claims.copy());
            #[cfg(test)]
            let watcher = crate::steps::watch::of_this_thread();
            let handle = std::thread::Builder::new()
                .name(format!("ebb-alloc-{worker}"))
                .spawn(move || {
                    #[cfg(test)]
                    crate::steps::watch::set(Some(worker), watcher);
                    Worker::new(worker, shared, planner).run()
                })
                .map_err(|source| StartError::Thread { worker, source })?;
            allocator.threads.push(handle.thread().clone());
            allocator.handles.push(handle);
        }
        Ok(allocator)
    }

    /// Tells the workers what has changed in the book. Does not by itself make them look at any agent. `copy` is asked
    /// for a copy of the book after these changes where a worker is too far behind. For the driver alone.
    pub fn publish(&self, entries: &Arc<Vec<Entry>>, copy: impl Fn() -> Claims) {
        let number = self.published.fetch_add(1, Ordering::Relaxed) + 1;
        for inbox in &self.shared.inboxes {
            if inbox.push(number, entries, &copy) {
                count(&self.shared.counters.copies, 1);
            }
        }
        self.unpark();
    }

    /// Has the workers look at these agents. Never waits.
    pub fn wake<'a>(&self, agents: impl IntoIterator<Item = &'a Arc<AgentSlot>>) {
        for slot in agents {
            self.shared.wake(slot);
        }
        self.unpark();
    }

    /// As [`Allocator::wake`], by id; agents that the ledger does not have are passed over.
    pub fn wake_ids<'a>(&self, agents: impl IntoIterator<Item = &'a AgentId>) {
        for slot in agents
            .into_iter()
            .filter_map(|id| self.shared.ledger.get(id))
        {
            self.shared.wake(&slot);
        }
        self.unpark();
    }

    /// Plans and commits on the caller's thread for at most [`MAX_AGENTS_AT_ONCE`] agents: what an event has freed is
    /// offered again without waiting for another thread. Agents that the ledger does not have are passed over. For the
    /// driver alone, with the book that it publishes from; to be called after [`Allocator::wake_held_back`].
    pub fn plan_at_once(&self, planner: &mut Planner, agents: &[AgentId]) -> Vec<Proposal> {
        let ledger = &self.shared.ledger;
        let slots: Vec<_> = agents.iter().filter_map(|id| ledger.get(id)).collect();
        let proposals = pass_and_hold_back(planner, &slots, |slot| self.shared.hold_back(slot));
        let counters = &self.shared.counters;
        count(&counters.passes, 1);
        count(&counters.agents, slots.len());
        count(&counters.proposals, proposals.len());
        proposals
    }

    /// Has the workers look at the agents again of which they have left something because of a quota. To be called after
    /// what has changed is published. Never waits.
    pub fn wake_held_back(&self) {
        // Whoever holds an agent back with an older book sees by this that it is to look again.
        self.shared.held_wakes.fetch_add(1, Ordering::AcqRel);
        self.shared.wake_held_back();
        self.unpark();
    }

    /// Has the workers look at every agent. Never waits.
    pub fn wake_all(&self) {
        self.shared.wake_all();
        self.unpark();
    }

    /// What the workers have done.
    pub fn figures(&self) -> AllocatorFigures {
        let counters = &self.shared.counters;
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        AllocatorFigures {
            passes: read(&counters.passes),
            agents: read(&counters.agents),
            proposals: read(&counters.proposals),
            rejected: read(&counters.rejected),
            coalesced: read(&counters.coalesced),
            copies: read(&counters.copies),
        }
    }

    /// Ends the threads and waits for them. Dropping the allocator does the same.
    pub fn stop(self) {
        drop(self);
    }

    /// Ends the threads; their planners, which have followed all that was published.
    #[cfg(test)]
    pub(super) fn end(mut self) -> Vec<Planner> {
        self.shared.stop.store(true, Ordering::Release);
        self.unpark();
        let handles: Vec<_> = self.handles.drain(..).collect();
        let planners = handles.into_iter().map(JoinHandle::join);
        planners
            .map(|planner| planner.expect("no worker panics"))
            .collect()
    }

    fn unpark(&self) {
        for thread in &self.threads {
            thread.unpark();
        }
    }
}

impl Drop for Allocator {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
        self.unpark();
        for handle in self.handles.drain(..) {
            // A worker that panicked has said so on standard error; there is nothing to add.
            let _panicked = handle.join().is_err();
        }
    }
}

impl fmt::Debug for Allocator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Allocator")
            .field("workers", &self.threads.len())
            .field("figures", &self.figures())
            .finish_non_exhaustive()
    }
}
