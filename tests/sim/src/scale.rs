//! The real core, ledger, book of claims and planner at the largest shape that the master takes, in one thread and
//! deterministic by seed: tens of thousands of agents, thousands of frameworks, a million tasks from offer to
//! acknowledged end.
//!
//! Every task goes the whole way through [`Core::step`](ebb_master::core::Core::step): proposals of a planner's pass,
//! offers, accept, order to the agent, TASK_RUNNING, TASK_FINISHED, both acknowledged, resources free again and offered
//! again. Frameworks decline, refuse for a while, and take what is lent; agents lend; heartbeats come and are answered.
//! What is left out is what the [simulation with faults](crate::run) is for: a network that delays and breaks, real
//! agents' cores, a registry. A message to the master is an input at the time at which it was due.
//!
//! Held at every tenth of the placements and at the end: the core's own books, those against the ledger, conservation on
//! every agent, the book of claims and the planner's copy of it, and all of them against what the simulated agents and
//! frameworks have counted themselves (see `check.rs`). At the end nothing is allocated, every task has ended once, and
//! everything can be offered again.

mod agents;
mod check;
mod frameworks;
mod peers;
mod world;

use std::time::{Duration, Instant};

use world::World;

/// How large a run is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scale {
    /// Agents that register.
    pub agents: u32,
    /// Frameworks that subscribe.
    pub frameworks: u32,
    /// Tasks that are launched, in all.
    pub placements: u32,
    /// What everything that is chosen follows from.
    pub seed: u64,
}

impl Default for Scale {
    fn default() -> Self {
        Self {
            agents: 50_000,
            frameworks: 6_000,
            placements: 1_000_000,
            seed: 1,
        }
    }
}

/// What a run did. All but the times follow from its [`Scale`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Report {
    /// A digest of every placement: which task of which framework on which agent, with what, and when.
    pub digest: u64,
    /// Tasks that were launched, ran, and ended.
    pub placements: u32,
    /// Offers that were made.
    pub offers: u64,
    /// Offers that were declined.
    pub declined: u64,
    /// Steps of the core.
    pub steps: u64,
    /// Most tasks that held resources at once.
    pub most_at_once: u32,
    /// Tasks of the framework that placed fewest.
    pub fewest: u32,
    /// Tasks of the framework that placed most.
    pub most: u32,
    /// How often everything was checked.
    pub checks: u32,
    /// What passed on the simulated clock, in milliseconds.
    pub simulated_ms: u64,
}

/// How long a run took.
#[derive(Clone, Copy, Debug)]
pub struct Times {
    /// The run without the checks.
    pub run: Duration,
    /// The checks.
    pub checks: Duration,
}

/// A run in which something did not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broken {
    /// The run.
    pub scale: Scale,
    /// When, in simulated milliseconds since its start.
    pub at_ms: u64,
    /// What did not hold.
    pub what: String,
}

impl std::fmt::Display for Broken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Scale {
            agents,
            frameworks,
            placements,
            seed,
        } = self.scale;
        write!(
            f,
            "at {} ms: {}; see it again with `cargo run --release -p ebb-tests-sim -- --scale {agents}x{frameworks} --placements {placements} --seed {seed}`",
            self.at_ms, self.what
        )
    }
}

/// Runs to the end.
///
/// # Errors
/// [`Broken`] names the first thing that did not hold.
pub fn run(scale: Scale) -> Result<(Report, Times), Broken> {
    let start = Instant::now();
    let mut world = World::new(scale);
    let report = world.go()?;
    let checks = world.check_time();
    let run = start.elapsed().saturating_sub(checks);
    Ok((report, Times { run, checks }))
}
