//! From absolute counters to rates: differences are taken here, once, and nowhere else.
//!
//! **Problem.** The probes and the kernel's files give counters that only rise. A rate needs two
//! of them, and between the two anything may have happened: the probe was loaded again and starts
//! from 0, the sampler slept, the clock stood still, a file could not be read. Whoever subtracts
//! without looking gets a rate of 10^19, and an agent that lends by it gives its machine away.
//!
//! **Units.** Counters in nanoseconds, counts and bytes; `taken_ns` is a monotonic clock; rates are
//! thousandths of a core and units a second. Two windows: *fast* is the last sample (about 100 ms),
//! *slow* is the last second.
//!
//! **Invariants.**
//! - The first reading of every counter is a baseline and yields no rate.
//! - A counter that steps back is a reset, a sample later than [`Config::max_gap_ms`] is a
//!   gap: both are counted and start a new baseline. A sample of the same or an earlier time yields
//!   no rate at all.
//! - What was not measured is `None`, never 0, and `None` never becomes a rate later on.
//! - Waits are those that others may be blamed for: without the part that the container's own quota
//!   made, where the kernel tells it. That part stands by itself.
//! - A container that used more CPU than twice what the machine has was measured wrongly: counted,
//!   and `None`.
//!
//! **Price.** Per container and sample a constant number of subtractions, about 14 KiB of memory; at most
//! [`MAX_CONTAINERS`] containers are followed, the rest are counted and have no rates (so nothing of
//! theirs is lent).

mod container;
mod io;
mod meter;
mod rates;
mod sample;
mod track;

pub use meter::Meter;
pub use rates::{ContainerUse, IoLatency, MachineUse, Rates, UsageView};
pub use sample::{
    ContainerSample, HostCounters, IoLatencySample, IoSample, MemorySample, OomKill,
    PressureSample, Sample, TrafficSample,
};

/// Buckets of a run-queue histogram: bucket `i` counts waits of `[2^i, 2^(i+1))` nanoseconds, the
/// first also those of 0, the last also everything longer (34 s and more).
pub const RUN_QUEUE_BUCKETS: usize = 36;

/// Buckets of the histograms of disk requests: as those of waits, in units of 1,024 ns; the last also
/// counts everything longer (8.6 s and more).
pub const IO_BUCKETS: usize = 24;

/// Most containers that are followed at a time.
pub const MAX_CONTAINERS: usize = 4096;

/// Counts of waits by duration; see [`RUN_QUEUE_BUCKETS`].
pub type RunQueueHistogram = [u64; RUN_QUEUE_BUCKETS];

/// Counts of disk requests by duration; see [`IO_BUCKETS`].
pub type IoHistogram = [u64; IO_BUCKETS];

/// When a difference may be trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// Longest time between two samples that still make a rate. Ten times the sampling period: a
    /// sampler that was held up for a moment is no gap, one that slept for longer tells nothing
    /// about the present.
    pub max_gap_ms: u64,
    /// The same for figures that are only in full samples, of which one a second is expected.
    pub full_max_gap_ms: u64,
    /// Length of the slow window. One second is ten samples: enough to smooth the periods of CPU
    /// quotas (100 ms) and the ticks in which files count (10 ms).
    pub window_ms: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            max_gap_ms: 1_000,
            full_max_gap_ms: 3_000,
            window_ms: 1_000,
        }
    }
}

/// What a sample was good for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum SampleVerdict {
    /// It follows another one: rates can be had.
    Valid,
    /// The first of all.
    #[default]
    Baseline,
    /// Too long after the one before: a new baseline.
    Gap,
    /// Of the same time as the one before: nothing is learnt.
    Duplicate,
    /// Of an earlier time than the one before: a new baseline.
    Backward,
}

/// What went wrong with readings, ever; these only rise.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Samples taken in.
    pub samples: u64,
    /// Samples that came too late after the one before.
    pub gaps: u64,
    /// Samples of the same time as the one before.
    pub duplicates: u64,
    /// Samples of an earlier time than the one before.
    pub backward: u64,
    /// Counters that stepped back.
    pub resets: u64,
    /// CPU time that cannot be.
    pub implausible: u64,
    /// Containers in samples beyond [`MAX_CONTAINERS`].
    pub containers_ignored: u64,
}

#[cfg(test)]
mod tests;
