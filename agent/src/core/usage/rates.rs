//! What the meter gives out: rates and gauges, each `None` where it was not measured.

use std::collections::BTreeMap;

use ebb_types::{ContainerId, MeasureSource};

use super::{MemorySample, SampleVerdict};

/// Rates of one container over one window. Those marked "full" stand in the fast window only of full
/// samples.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rates {
    /// CPU, in thousandths of a core.
    pub cpu_milli: Option<u64>,
    /// CPU in the programs' own code, in thousandths of a core. Full.
    pub cpu_user_milli: Option<u64>,
    /// CPU in the kernel, in thousandths of a core. Full.
    pub cpu_system_milli: Option<u64>,
    /// Runnable threads that others kept from running, on average, in thousandths. Without what its
    /// own quota held back, where that is known.
    pub waiting_milli: Option<u64>,
    /// Runnable threads that its own quota kept from running, on average, in thousandths.
    pub waiting_own_milli: Option<u64>,
    /// Waits from runnable to running in the window.
    pub waits: Option<u64>,
    /// Their mean without the quota's part, in nanoseconds; none where there was no wait.
    pub wait_mean_ns: Option<u64>,
    /// Upper bound of their median, in nanoseconds; none where there was no wait.
    pub wait_p50_ns: Option<u64>,
    /// Upper bound of their 99th percentile, in nanoseconds; none where there was no wait.
    pub wait_p99_ns: Option<u64>,
    /// Preemptions by revocable containers, a second.
    pub preempted_by_revocable_per_s: Option<u64>,
    /// Preemptions by others, a second.
    pub preempted_by_other_per_s: Option<u64>,
    /// Moves of its tasks between CPUs, a second.
    pub migrations_per_s: Option<u64>,
    /// Time for which its own quota held it back, summed over its threads, in thousandths of the
    /// time passed. Full.
    pub throttled_permille: Option<u64>,
    /// Time for which its tasks freed memory before they got some, summed over its threads, in
    /// thousandths of the time passed.
    pub reclaim_permille: Option<u64>,
    /// Page faults that needed no disk, a second. Full where files tell them.
    pub faults_minor_per_s: Option<u64>,
    /// Page faults that needed a disk, a second. Full where files tell them.
    pub faults_major_per_s: Option<u64>,
    /// Bytes to and from block devices, a second. Full.
    pub disk_bytes_per_s: Option<u64>,
    /// Bytes from block devices, a second. Full.
    pub disk_read_bytes_per_s: Option<u64>,
    /// Bytes to block devices, a second. Full.
    pub disk_write_bytes_per_s: Option<u64>,
    /// How long its requests to block devices took. Full.
    pub io: IoLatency,
    /// Bytes of IP packets received, a second.
    pub net_in_bytes_per_s: Option<u64>,
    /// Bytes of IP packets sent, a second.
    pub net_out_bytes_per_s: Option<u64>,
    /// Bytes of IP packets received through network devices, a second: without those of the loopback device. Over the last
    /// sample, and those before until they span 90 ms.
    pub traffic_in_bytes_per_s: Option<u64>,
    /// The same sent.
    pub traffic_out_bytes_per_s: Option<u64>,
    /// Packets that were dropped for exceeding the network bandwidth that it has, a second, of both directions.
    pub traffic_dropped_per_s: Option<u64>,
    /// New processes, a second.
    pub forks_per_s: Option<u64>,
    /// Time that at least one of its tasks waited for a CPU, in thousandths of the time passed. Full.
    pub cpu_pressure_permille: Option<u64>,
    /// The same for memory. Full.
    pub mem_pressure_permille: Option<u64>,
    /// The same for disks. Full.
    pub io_pressure_permille: Option<u64>,
}

impl Rates {
    /// What it takes of the network's bandwidth, in bytes a second: the direction of which it uses more.
    pub fn traffic_bytes_per_s(&self) -> Option<u64> {
        let (received, sent) = (self.traffic_in_bytes_per_s?, self.traffic_out_bytes_per_s?);
        Some(received.max(sent))
    }
}

/// How long requests to block devices took; none where there was none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct IoLatency {
    /// Mean time in the kernel's queue and in the device together, in nanoseconds.
    pub mean_ns: Option<u64>,
    /// Upper bound of the 99th percentile of the time in the kernel's queue, in nanoseconds.
    pub queue_p99_ns: Option<u64>,
    /// Upper bound of the 99th percentile of the device's time, in nanoseconds.
    pub device_p99_ns: Option<u64>,
}

/// What one container uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ContainerUse {
    /// Over the last sample.
    pub fast: Rates,
    /// Over the last second.
    pub slow: Rates,
    /// Memory without reclaimable page cache, in bytes, of the last full sample.
    pub mem_bytes: Option<u64>,
    /// More of its memory, of the last full sample.
    pub memory: MemorySample,
    /// Processes of it that were killed for want of memory, ever.
    pub oom_kills: Option<u64>,
    /// Where the CPU figures come from.
    pub cpu_source: MeasureSource,
    /// Where the page faults come from.
    pub faults_source: MeasureSource,
    /// Where the kills come from.
    pub oom_source: MeasureSource,
    /// Where the traffic with block devices comes from.
    pub disk_source: MeasureSource,
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
    /// Time that at least one task waited for a CPU, in thousandths of the last second.
    pub cpu_pressure_permille: Option<u64>,
    /// The same for memory.
    pub mem_pressure_permille: Option<u64>,
    /// The same for disks.
    pub io_pressure_permille: Option<u64>,
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
