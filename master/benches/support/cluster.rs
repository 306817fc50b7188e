//! A large cluster whose allocator runs on the caller's thread.

use std::sync::Arc;

use ebb_master::allocator::{Proposal, pass_slots};
use ebb_master::core::allocate::Planner;
use ebb_master::core::claims::BatchId;
use ebb_master::ledger::AgentSlot;

use super::books::Books;
use super::error::Error;

const WORKER: u32 = 0;

/// The books, and a worker's planner that follows them.
pub struct Cluster {
    pub books: Books,
    planner: Planner,
    batches: u64,
}

impl Cluster {
    pub fn new(agents: usize, frameworks: usize) -> Result<Self, Error> {
        let books = Books::new(agents, frameworks)?;
        Ok(Self {
            planner: Planner::of_worker(WORKER, books.claims.copy()),
            books,
            batches: 0,
        })
    }

    pub fn slots(&self) -> Vec<Arc<AgentSlot>> {
        self.books.ledger.slots().values().cloned().collect()
    }

    /// What the driver publishes and a worker follows.
    pub fn follow(&mut self) {
        let entries = self.books.claims.publish();
        self.planner.follow(&entries);
    }

    /// What a worker does when it is woken for these agents.
    pub fn pass(&mut self, slots: &[Arc<AgentSlot>]) -> Vec<Proposal> {
        pass_slots(&mut self.planner, slots)
    }

    /// What the driver does with the batch of that.
    pub fn take_in(&mut self, proposals: &[Proposal]) {
        self.batches += 1;
        let batch = BatchId {
            worker: WORKER,
            number: self.batches,
        };
        self.books.take_in(batch, proposals);
    }
}
