//! A small cluster of the real programs, for tests that look at it from outside.
//!
//! **Problem.** What counts in the end is what `ebb`, `ebb-master` and `ebb-agent` do as processes on a kernel: with
//! real probes, containers, kills and restarts. The parts' own tests cannot see that.
//!
//! **Invariants.** Each cluster has a folder, ports and a cgroup base of its own, and takes all of it away at its end,
//! also when the test fails. Nothing is waited for by sleeping where there is something to wait on: lines that a
//! program writes, changes that the master tells, the end of a process. Every wait has an end ([`PATIENCE`]). A
//! missing program or privilege is a failure: a run that has tested nothing proves nothing.

pub mod cluster;
pub mod framework;
pub mod host;
pub mod programs;
pub mod running;
pub mod wire;

pub use cluster::Cluster;
pub use framework::Framework;
pub use running::{Ended, Running};

use std::time::Duration;

/// The longest that anything is waited for; the machine may be busy with other things.
pub const PATIENCE: Duration = Duration::from_secs(90);
