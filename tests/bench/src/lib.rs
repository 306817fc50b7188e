//! What benchmarks of the whole share: rows of figures, simulated agents and frameworks that load a
//! real master, real daemons as processes, and the yardsticks that they are measured beside.

mod agent;
mod cluster;
mod connection;
mod containers;
mod crowd;
mod daemon;
mod declining;
mod load;
mod monitor;
mod one_by_one;
pub mod play;
pub mod process;
mod rounds;
mod row;
mod running;
mod stand;
mod yardstick;

pub use agent::{SimulatedAgent, agent_capacity};
pub use cluster::Cluster;
pub use containers::Containers;
pub use crowd::Crowd;
pub use daemon::Daemon;
pub use declining::Declining;
pub use load::{LoadReport, submit, submit_paced};
pub use monitor::{Beside, Program, keep_statistics, take_events_of};
pub use one_by_one::{OneByOne, Start};
pub use rounds::{longer_percent, order};
pub use row::{Bar, Row, at_least, at_most, figure, quantile, spread};
pub use running::Running;
pub use stand::{Master, connect, join_agents};
pub use yardstick::{ForkExec, Runc, Yardstick};

/// The time in nanoseconds of the clock that every process of this machine shares.
pub fn monotonic_ns() -> u64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    // The clock counts from the machine's start: it is neither negative nor too large.
    (time.tv_sec as u64) * 1_000_000_000 + time.tv_nsec as u64
}
