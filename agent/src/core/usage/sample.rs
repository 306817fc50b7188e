//! What the sampler hands over: absolute counters and gauges, each `None` where it could not be read.

use std::collections::BTreeMap;

use ebb_types::{ContainerId, FigureSource, MeasureSource};

use super::{IoHistogram, RunQueueHistogram};

/// One reading of everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sample {
    /// When it was taken, on a monotonic clock, in nanoseconds.
    pub taken_ns: u64,
    /// Whether the figures that are dear to read were read. In between, the last ones stand for at
    /// most [`Config::full_max_gap_ms`](super::Config::full_max_gap_ms).
    pub full: bool,
    /// The machine as a whole.
    pub host: HostCounters,
    /// Each container that the sampler knows.
    pub containers: BTreeMap<ContainerId, ContainerSample>,
    /// Last readings of containers that it knows no longer, each full.
    pub ended: Vec<(ContainerId, ContainerSample)>,
    /// Processes that the kernel has killed for want of memory, where the probes tell.
    pub oom_kills: Vec<OomKill>,
    /// Where each kind of figure comes from; given with the first sample and whenever it changes.
    pub sources: Option<Vec<FigureSource>>,
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
    /// Time that tasks of the machine stood still. In full samples.
    pub pressure: Option<PressureSample>,
}

/// A process was killed for want of memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OomKill {
    /// The container that it was in, if any.
    pub container_id: Option<ContainerId>,
    /// Its process id.
    pub pid: u32,
    /// The process that asked for the memory that there was not.
    pub asked_by: u32,
}

/// Counters of one container. A change of a counter's source starts a new baseline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ContainerSample {
    /// Time on CPUs, in nanoseconds.
    pub cpu_ns: Option<u64>,
    /// Where `cpu_ns` comes from.
    pub cpu_source: MeasureSource,
    /// The part of it in the programs' own code, and in the kernel, in nanoseconds. In full samples.
    pub cpu_split_ns: Option<(u64, u64)>,
    /// Sum of the times from runnable to running, in nanoseconds.
    pub run_queue_wait_ns: Option<u64>,
    /// The part of it that its own CPU quota made, in nanoseconds; where the kernel tells.
    pub run_queue_wait_own_ns: Option<u64>,
    /// How many such waits there were.
    pub run_queue_count: Option<u64>,
    /// The same waits by duration, without the quota's part where it is known.
    pub run_queue_histogram: Option<RunQueueHistogram>,
    /// How often a revocable container took a CPU from it while it could have run on.
    pub preempted_by_revocable: Option<u64>,
    /// How often anything else of another container or of the system did.
    pub preempted_by_other: Option<u64>,
    /// Moves of its tasks between CPUs.
    pub migrations: Option<u64>,
    /// Time for which its own CPU quota held it back, in nanoseconds. In full samples.
    pub throttled_ns: Option<u64>,
    /// Memory in use without reclaimable page cache, in bytes (a gauge). In full samples.
    pub mem_bytes: Option<u64>,
    /// More of its memory (gauges). In full samples.
    pub memory: Option<MemorySample>,
    /// Page faults that needed no disk, and those that did.
    pub faults: Option<(u64, u64)>,
    /// Where `faults` comes from; of files in full samples.
    pub faults_source: MeasureSource,
    /// Time for which its tasks freed memory before they got some, in nanoseconds.
    pub reclaim_ns: Option<u64>,
    /// Processes killed for want of memory.
    pub oom_kills: Option<u64>,
    /// Where `oom_kills` comes from; of files in full samples.
    pub oom_source: MeasureSource,
    /// Traffic with block devices. In full samples.
    pub disk: Option<IoSample>,
    /// Where `disk` comes from.
    pub disk_source: MeasureSource,
    /// Bytes of IP packets received, and sent.
    pub net_bytes: Option<(u64, u64)>,
    /// What of that went through network devices.
    pub traffic: Option<TrafficSample>,
    /// New processes.
    pub forks: Option<u64>,
    /// Time that tasks of it stood still. In full samples.
    pub pressure: Option<PressureSample>,
}

impl ContainerSample {
    /// A sample in which nothing could be read.
    pub const fn absent(cpu_source: MeasureSource) -> Self {
        Self {
            cpu_ns: None,
            cpu_source,
            cpu_split_ns: None,
            run_queue_wait_ns: None,
            run_queue_wait_own_ns: None,
            run_queue_count: None,
            run_queue_histogram: None,
            preempted_by_revocable: None,
            preempted_by_other: None,
            migrations: None,
            throttled_ns: None,
            mem_bytes: None,
            memory: None,
            faults: None,
            faults_source: MeasureSource::Files,
            reclaim_ns: None,
            oom_kills: None,
            oom_source: MeasureSource::Files,
            disk: None,
            disk_source: MeasureSource::Files,
            net_bytes: None,
            traffic: None,
            forks: None,
            pressure: None,
        }
    }
}

/// Memory of one container, in bytes but for the counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemorySample {
    /// Anonymous memory.
    pub anon_bytes: Option<u64>,
    /// Page cache.
    pub file_bytes: Option<u64>,
    /// Swapped out.
    pub swap_bytes: Option<u64>,
    /// The most that was ever in use.
    pub peak_bytes: Option<u64>,
    /// Its limit, if it has one.
    pub limit_bytes: Option<u64>,
    /// Times that its limit was met.
    pub limit_hits: Option<u64>,
    /// Times that its limit could not be kept but by a kill, where the kernel tells them apart.
    pub limit_ooms: Option<u64>,
}

/// Traffic of one container with all block devices.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct IoSample {
    /// Bytes read.
    pub read_bytes: u64,
    /// Bytes written.
    pub write_bytes: u64,
    /// How long requests took, where the probes tell.
    pub latency: Option<IoLatencySample>,
}

/// How long requests to block devices took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct IoLatencySample {
    /// Time in the kernel's queues and in the devices together, in nanoseconds.
    pub total_ns: u64,
    /// Requests by their time in the kernel's queues.
    pub queue_histogram: IoHistogram,
    /// Requests by the devices' time.
    pub device_histogram: IoHistogram,
}

/// What one container sent and received through network devices other than loopback.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TrafficSample {
    /// Bytes received.
    pub in_bytes: u64,
    /// Bytes sent.
    pub out_bytes: u64,
    /// Packets of both directions that were dropped for exceeding the bandwidth that it has.
    pub dropped_packets: u64,
}

impl TrafficSample {
    /// The three as they are counted together.
    pub(super) const fn parts(&self) -> [u64; 3] {
        [self.in_bytes, self.out_bytes, self.dropped_packets]
    }
}

/// Time that at least one task stood still for want of something, in nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PressureSample {
    /// For want of a CPU.
    pub cpu_ns: u64,
    /// For want of memory.
    pub memory_ns: u64,
    /// For want of a disk.
    pub io_ns: u64,
}

impl PressureSample {
    /// The three as they are counted together.
    pub(super) const fn parts(&self) -> [u64; 3] {
        [self.cpu_ns, self.memory_ns, self.io_ns]
    }
}
