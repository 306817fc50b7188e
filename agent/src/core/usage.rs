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
//! - A container that used more CPU than twice what the machine has was measured wrongly: counted,
//!   and `None`.
//!
//! **Price.** Per container and sample a constant number of subtractions, about 8 KiB of memory; at most
//! [`MAX_CONTAINERS`] containers are followed, the rest are counted and have no rates (so nothing of
//! theirs is lent).

mod meter;
mod track;

use std::collections::BTreeMap;

use ebb_types::{ContainerId, MeasureSource};

pub use meter::Meter;

/// Buckets of a run-queue histogram: bucket `i` counts waits of `[2^i, 2^(i+1))` nanoseconds, the
/// first also those of 0, the last also everything longer (34 s and more).
pub const RUN_QUEUE_BUCKETS: usize = 36;

/// Most containers that are followed at a time.
pub const MAX_CONTAINERS: usize = 4096;

/// Counts of waits by duration; see [`RUN_QUEUE_BUCKETS`].
pub type RunQueueHistogram = [u64; RUN_QUEUE_BUCKETS];

/// One reading of everything: absolute counters, each `None` where it could not be read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sample {
    /// When it was taken, on a monotonic clock, in nanoseconds.
    pub taken_ns: u64,
    /// Whether the figures that are dear to read were read: throttling, memory and disk. In between,
    /// the last ones stand for at most [`Config::full_max_gap_ms`].
    pub full: bool,
    /// The machine as a whole.
    pub host: HostCounters,
    /// Each container that the sampler knows.
    pub containers: BTreeMap<ContainerId, ContainerSample>,
}

/// Counters of the machine as a whole.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HostCounters {
    /// Time that all CPUs together were not idle, in nanoseconds.
    pub cpu_busy_ns: Option<u64>,
    /// Time on CPUs of everything that belongs to no container, in nanoseconds; where the probes
    /// tell it. Else it is what is busy less what the containers used.
    pub unmanaged_cpu_ns: Option<u64>,
    /// CPUs that are online (a gauge).
    pub cpus: Option<u32>,
    /// Memory that could be had without swapping, in bytes (a gauge).
    pub mem_available_bytes: Option<u64>,
    /// Memory of the machine, in bytes (a gauge).
    pub mem_total_bytes: Option<u64>,
}

/// Counters of one container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ContainerSample {
    /// Time on CPUs, in nanoseconds.
    pub cpu_ns: Option<u64>,
    /// Where `cpu_ns` comes from. A change of source starts a new baseline.
    pub cpu_source: MeasureSource,
    /// Sum of the times from runnable to running, in nanoseconds.
    pub run_queue_wait_ns: Option<u64>,
    /// How many such waits there were.
    pub run_queue_count: Option<u64>,
    /// The same waits by duration.
    pub run_queue_histogram: Option<RunQueueHistogram>,
    /// How often a revocable container took a CPU from it while it could have run on.
    pub preempted_by_revocable: Option<u64>,
    /// How often anything else of another container or of the system did.
    pub preempted_by_other: Option<u64>,
    /// Time for which its own CPU quota held it back, in nanoseconds. In full samples.
    pub throttled_ns: Option<u64>,
    /// Memory in use without reclaimable page cache, in bytes (a gauge). In full samples.
    pub mem_bytes: Option<u64>,
    /// Bytes read from and written to block devices. In full samples.
    pub disk_bytes: Option<u64>,
}

impl ContainerSample {
    /// A sample in which nothing could be read.
    pub const fn absent(cpu_source: MeasureSource) -> Self {
        Self {
            cpu_ns: None,
            cpu_source,
            run_queue_wait_ns: None,
            run_queue_count: None,
            run_queue_histogram: None,
            preempted_by_revocable: None,
            preempted_by_other: None,
            throttled_ns: None,
            mem_bytes: None,
            disk_bytes: None,
        }
    }
}

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

/// Rates of one container over one window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rates {
    /// CPU, in thousandths of a core.
    pub cpu_milli: Option<u64>,
    /// Runnable threads that did not run, on average, in thousandths.
    pub waiting_milli: Option<u64>,
    /// Waits from runnable to running in the window.
    pub waits: Option<u64>,
    /// Their mean, in nanoseconds; none where there was no wait.
    pub wait_mean_ns: Option<u64>,
    /// Upper bound of their median, in nanoseconds; none where there was no wait.
    pub wait_p50_ns: Option<u64>,
    /// Upper bound of their 99th percentile, in nanoseconds; none where there was no wait.
    pub wait_p99_ns: Option<u64>,
    /// Preemptions by revocable containers, a second.
    pub preempted_by_revocable_per_s: Option<u64>,
    /// Preemptions by others, a second.
    pub preempted_by_other_per_s: Option<u64>,
    /// Time for which its own quota held it back, summed over its threads, in thousandths of the
    /// time passed. In the fast window only of full samples.
    pub throttled_permille: Option<u64>,
    /// Bytes to and from block devices, a second. In the fast window only of full samples.
    pub disk_bytes_per_s: Option<u64>,
}

/// What one container uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ContainerUse {
    /// Over the last sample.
    pub fast: Rates,
    /// Over the last second.
    pub slow: Rates,
    /// Memory, in bytes, of the last full sample.
    pub mem_bytes: Option<u64>,
    /// Where the CPU figures come from.
    pub cpu_source: MeasureSource,
}

/// What the machine as a whole uses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MachineUse {
    /// CPU in use over the last sample, in thousandths of a core.
    pub fast_busy_milli: Option<u64>,
    /// CPU in use over the last second, in thousandths of a core.
    pub slow_busy_milli: Option<u64>,
    /// CPU of everything that belongs to no container over the last second, in thousandths of a
    /// core.
    pub slow_unmanaged_milli: Option<u64>,
    /// CPUs that are online, in thousandths of a core.
    pub capacity_milli: Option<u64>,
    /// Memory that could be had without swapping, in bytes.
    pub mem_available_bytes: Option<u64>,
    /// Memory of the machine, in bytes.
    pub mem_total_bytes: Option<u64>,
}

/// What a sample says, after the differences.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UsageView {
    /// What the sample was good for; unless it was valid, there is nothing below.
    pub verdict: SampleVerdict,
    /// The machine as a whole.
    pub machine: MachineUse,
    /// Each container of the sample.
    pub containers: BTreeMap<ContainerId, ContainerUse>,
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
