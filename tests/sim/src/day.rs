//! A day of a cluster that lends: real agents' cores under the real master's core, ledger and planner, with services that
//! use what machines of real traces used, and a batch framework that takes whatever is lent. One thread, deterministic by
//! seed.
//!
//! # The machines
//! Their kernel is worse than any real one: it knows no priorities and divides a full machine in proportion to what each
//! task asks for. So nothing but the agent protects owners here. An agent reads its counters ten times a second while
//! something is held back or an owner has just asked for more, else once; after a jump of an owner's demand it looks at
//! once, three times, as its probes would have it do.
//!
//! # What is held
//! Once in a simulated minute and at the end: the master's books, each by itself and against each other, and what is
//! allocated of each agent against what runs there. Always: what runs fits into what the agent has; what is lent fits into
//! what was told to be lent; a framework does not come back to an agent within the cool-down of an eviction. Of the report: every owner
//! that gets less than it asks for while lent work runs beside it is satisfied again within [`REACTION_MS`], and of the lent
//! work no more than [`MAX_LOST_PPM`] was lost.

mod cluster;
mod frameworks;
mod load;
mod machine;

use std::path::PathBuf;

pub use load::Loads;

/// How long an owner may get less than it asks for because of lent work, in milliseconds.
pub const REACTION_MS: u64 = 250;
/// Most of the lent work that may be lost to evictions, in millionths of its CPU time.
pub const MAX_LOST_PPM: u64 = 2_000;

/// What is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Day {
    /// Agents, of 16 cores each.
    pub agents: usize,
    /// How long, in minutes.
    pub minutes: u64,
    /// What everything that is chosen follows from.
    pub seed: u64,
    /// A fault that is planted, for whoever checks the checks.
    pub planted: Option<Planted>,
}

/// A fault that a run finds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Planted {
    /// No cap is set and nothing is frozen: owners get what the kernel leaves them.
    CapsIgnored,
}

/// What a run did. All of it follows from its [`Day`] and its loads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// A digest of every launch and every correction.
    pub digest: u64,
    /// Mean use of the machines by owners, in thousandths.
    pub owned_permille: u64,
    /// Mean use of the machines by all, in thousandths.
    pub busy_permille: u64,
    /// Services that were started.
    pub services: u64,
    /// Lent tasks that were started.
    pub lent_started: u64,
    /// Lent tasks that did all their work.
    pub lent_finished: u64,
    /// CPU time of lent tasks, in seconds.
    pub lent_cpu_s: u64,
    /// How often an owner asked for much more at once.
    pub jumps: u64,
    /// How often an owner got less than 95 % of what it asked for beside lent work.
    pub shortages: u64,
    /// How many of them lasted for longer than [`REACTION_MS`].
    pub late: u64,
    /// The longest of them, in milliseconds.
    pub longest_ms: u64,
    /// What owners asked for and did not get in them, in millionths of all that they asked for.
    pub short_ppm: u64,
    /// Caps that were set or changed.
    pub throttles: u64,
    /// Tasks that were frozen.
    pub freezes: u64,
    /// Tasks that were let go.
    pub releases: u64,
    /// Tasks that were evicted.
    pub evictions: u64,
    /// CPU time that was lost with them, in millionths of all lent CPU time.
    pub lost_ppm: u64,
    /// Readings of agents' counters.
    pub samples: u64,
    /// How often everything was checked.
    pub checks: u64,
}

/// Where the excerpts are that the project brings.
pub fn excerpts() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../lending/data"))
}

/// Runs to the end.
///
/// # Errors
/// A sentence that names the first thing that did not hold, and when.
pub fn run(day: Day, loads: &Loads) -> Result<Report, String> {
    let mut cluster = cluster::Cluster::new(day, loads);
    cluster.go().map_err(|what| {
        let Day {
            agents,
            minutes,
            seed,
            ..
        } = day;
        let at_s = cluster.passed_ms() / 1000;
        format!(
            "after {at_s} s: {what}; see it again with `cargo run --release -p ebb-tests-sim -- --day {agents} \
             --minutes {minutes} --seed {seed}`"
        )
    })
}
