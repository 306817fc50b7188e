//! A whole cluster in one thread: the real cores of one master and several agents, with frameworks
//! of random behaviour, under a simulated clock, network, disk and kernel.
//!
//! Everything follows from a seed; a run that fails prints it, and `cargo run -p ebb-tests-sim -- SEED` shows that run
//! again step by step; `cargo run --release -p ebb-tests-sim -- --seeds 1000..100000` looks further than the tests do. How the same core, ledger and planner fare with 50,000 agents, 6,000 frameworks and a million
//! tasks, without faults, is what [`scale`] is for: `cargo run --release -p ebb-tests-sim -- --scale`.
//!
//! # What goes wrong
//! Any process crashes at any moment, in the middle of performing its effects too, and starts again
//! from what it had made durable; a machine restarts and loses its containers. A stream keeps its
//! order while it stands, as TCP does; when it breaks, each direction loses everything from some
//! point on, either side learns of it late, and what was under way may arrive after a newer stream
//! has begun: loss, delay and reordering happen between streams. A partition silences a stream
//! without either side being told. Messages that may be repeated (statuses, estimates,
//! acknowledgements, kills, heartbeats) are.
//!
//! # What is checked
//! After every step: the cores' own invariants, and the master's books against the ledger. On every
//! event: no task runs twice; what a framework is told of a task's end is what happened to its
//! container, and never changes; of an operation on lots it is told what its agent did, once and for all. When all has healed: every accepted task has reached an end that its
//! framework knows or was declared unknown, nothing runs any more, nothing is allocated any more, and
//! everything can be offered again.

mod agent;
mod check;
pub mod day;
mod framework;
mod lots;
mod master;
mod network;
mod operations;
mod operator;
mod planted;
mod rng;
pub mod scale;
mod steady;
mod sweep;
mod world;

pub use planted::Planted;
pub use sweep::sweep;
pub use world::{Report, run};

/// A run that broke a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The run.
    pub seed: u64,
    /// When, in simulated milliseconds since its start.
    pub at_ms: u64,
    /// The rule and how it was broken.
    pub what: String,
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "seed {} at {} ms: {}; see it again with `cargo run -p ebb-tests-sim -- {}`",
            self.seed, self.at_ms, self.what, self.seed
        )
    }
}
