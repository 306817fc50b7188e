//! What is measured: plain records of absolute counters and momentary sizes.
//!
//! Nanoseconds, bytes and counts. What was not measured is `None`, and absent is not zero. A figure that may come from
//! more than one source says from which ([`Figure`]); where there can only be one, the record's comment names it.
//!
//! Counters of one container: [`container`]; of its disks: [`disk`]. Here stands what surrounds them: a reading of
//! everything, the machine, and what was lost.

mod container;
mod disk;

pub use self::container::{
    ContainerCounters, CpuSplit, Faults, Memory, Network, Pressure, Processes, Reclaim, RunQueue,
    Switches, Throttling, Traffic,
};
pub use self::disk::{Device, DeviceCounters, DeviceLatency, DiskTotals, disk_totals};
pub(super) use self::{container::Available, disk::disk_from_probes};
use ebb_types::MeasureSource;

/// A figure and where it was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Figure<T> {
    /// The figure.
    pub value: T,
    /// Its source.
    pub source: MeasureSource,
}

impl<T> Figure<T> {
    /// A figure of the probes.
    pub const fn ebpf(value: T) -> Self {
        Self {
            value,
            source: MeasureSource::Ebpf,
        }
    }

    /// A figure of the kernel's files.
    pub const fn files(value: T) -> Self {
        Self {
            value,
            source: MeasureSource::Files,
        }
    }
}

/// What the machine has and has used since it was booted. From files.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HostCounters {
    /// CPUs.
    pub cpus: Option<u32>,
    /// Time in which CPUs worked, summed over them.
    pub busy_ns: Option<u64>,
    /// Time in which they did not.
    pub idle_ns: Option<u64>,
    /// Time in which the hypervisor withheld them.
    pub steal_ns: Option<u64>,
    /// Memory in all.
    pub mem_total_bytes: Option<u64>,
    /// Memory that can be had without swapping.
    pub mem_available_bytes: Option<u64>,
    /// Memory that nothing uses, not even as cache.
    pub mem_free_bytes: Option<u64>,
    /// Time that tasks of the machine stood still; in full samples.
    pub pressure: Option<Pressure>,
}

/// A task that the kernel killed for want of memory. From the probes only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OomEvent<K> {
    /// The victim's container, unless it was in none.
    pub container: Option<K>,
    /// Process id of the victim, in the first pid namespace.
    pub pid: u32,
    /// The process that asked for the memory that there was not.
    pub asked_by: u32,
    /// When, by the kernel's monotonic clock.
    pub at_ns: u64,
}

/// One reading of everything.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sample<K> {
    /// When, by the kernel's monotonic clock.
    pub taken_ns: u64,
    /// The machine.
    pub host: HostCounters,
    /// Each registered container, in the order of the keys.
    pub containers: Vec<(K, ContainerCounters)>,
    /// Last readings of the containers that were unregistered since the last sample, so that totals are complete. A
    /// key that was registered anew at once stands here for its first life and in `containers` for its second.
    pub ended: Vec<(K, ContainerCounters)>,
    /// Tasks that were killed for want of memory since the last sample.
    pub oom_kills: Vec<OomEvent<K>>,
    /// All that belongs to no container; from the probes only.
    pub unmanaged: Option<ContainerCounters>,
}

/// How much to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Detail {
    /// CPU figures and the machine: what is needed to notice interference in time.
    Quick,
    /// Everything.
    Full,
}

/// What was lost or done another way, since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Losses {
    /// Containers that got no slot of the probes and are measured by files.
    pub without_slot: u64,
    /// Readings of the probes that failed and gave way to files.
    pub failed_reads: u64,
    /// Containers that the probes could not be made to forget at once.
    pub failed_unregisters: u64,
    /// Tasks that could not be charged at a reading, and were at their next switch.
    pub late_charges: u64,
    /// Context switches that the kernel did not show to the probes. What ran is charged at its
    /// next switch or reading; only the moments of a task that ends unseen are lost.
    pub missed_switches: u64,
    /// Requests to block devices whose latency or bytes could not be attributed for want of room in a map.
    pub io_untracked: u64,
    /// Rare events (kills for want of memory) that found the ring buffer full.
    pub events_lost: u64,
    /// Probes that stopped running and were attached anew.
    pub probes_detached: u64,
    /// Times that the kernel had no memory for what the probes keep with a task: it was charged by its container's
    /// last account alone.
    pub storage_misses: u64,
}
