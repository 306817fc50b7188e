//! What is measured: plain records of absolute counters and momentary sizes.
//!
//! Nanoseconds, bytes and counts. What was not measured is `None`.

use ebb_agent_ebpf_common::{HIST_BUCKETS, Preemptor, SlotCounters};
use ebb_types::MeasureSource;

/// A figure and where it was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Figure<T> {
    /// The figure.
    pub value: T,
    /// Its source.
    pub source: MeasureSource,
}

/// Time between becoming runnable and running, of all tasks of a container.
///
/// A wait counts when it ends. It may be another's doing or that of the container's own CPU quota:
/// [`Switches`] and [`Throttling`] tell which.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RunQueue {
    /// The sum.
    pub wait_ns: u64,
    /// How many waits.
    pub wait_count: u64,
    /// How many of `2^i <= ns < 2^(i+1)`; the last bucket is open.
    pub wait_hist: [u64; HIST_BUCKETS],
}

/// Context switches away from a container's tasks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Switches {
    /// The task blocked, slept or exited.
    pub voluntary: u64,
    /// It was still runnable, and another task of its container came.
    pub preempted_by_same: u64,
    /// A task of a revocable container came.
    pub preempted_by_revocable: u64,
    /// A task of a container that is not revocable came.
    pub preempted_by_owned: u64,
    /// A task of no container came.
    pub preempted_by_unmanaged: u64,
    /// None came: its CPU quota was used up.
    pub preempted_by_idle: u64,
}

impl Switches {
    /// Departures of tasks that were still runnable.
    pub fn involuntary(&self) -> u64 {
        self.preempted_by_same
            + self.preempted_by_revocable
            + self.preempted_by_owned
            + self.preempted_by_unmanaged
            + self.preempted_by_idle
    }
}

/// Time that a container's own CPU quota held it back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Throttling {
    /// Enforcement periods in which it ran.
    pub periods: u64,
    /// Those in which the quota was used up.
    pub throttled_periods: u64,
    /// Time held back, summed over its run queues.
    pub throttled_ns: u64,
}

/// Memory of a container.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// All that is charged to it, page cache included.
    pub usage_bytes: u64,
    /// Page cache that can be reclaimed without harm.
    pub inactive_file_bytes: Option<u64>,
    /// Anonymous memory.
    pub anon_bytes: Option<u64>,
    /// Its limit, if it has one.
    pub limit_bytes: Option<u64>,
    /// Page faults that had to read from disk.
    pub major_faults: Option<u64>,
    /// Processes killed for want of memory.
    pub oom_kills: Option<u64>,
}

impl Memory {
    /// What cannot be taken from it without harm: all but the inactive page cache.
    pub fn working_set_bytes(&self) -> u64 {
        self.usage_bytes
            .saturating_sub(self.inactive_file_bytes.unwrap_or(0))
    }
}

/// Traffic of a container with block devices, over all devices.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Disk {
    /// Read.
    pub read_bytes: u64,
    /// Written. Of buffered writes, what writeback has issued on the container's behalf.
    pub write_bytes: u64,
    /// Read operations.
    pub read_count: Option<u64>,
    /// Write operations.
    pub write_count: Option<u64>,
}

/// Time that tasks of a container stood still (PSI).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pressure {
    /// At least one waited for a CPU.
    pub cpu_some_ns: u64,
    /// At least one waited for memory.
    pub memory_some_ns: u64,
    /// All that were not idle waited for memory.
    pub memory_full_ns: u64,
    /// At least one waited for a disk.
    pub io_some_ns: u64,
    /// All that were not idle waited for a disk.
    pub io_full_ns: u64,
}

/// What a container has used since it was registered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ContainerCounters {
    /// Time on the CPUs.
    pub on_cpu_ns: Option<Figure<u64>>,
    /// Run-queue latency; from the probes only.
    pub run_queue: Option<RunQueue>,
    /// Context switches; from the probes only.
    pub switches: Option<Switches>,
    /// Throttling by its own quota; in full samples.
    pub throttling: Option<Throttling>,
    /// Memory; in full samples.
    pub memory: Option<Memory>,
    /// Disk; in full samples.
    pub disk: Option<Disk>,
    /// Pressure; in full samples.
    pub pressure: Option<Pressure>,
}

/// What the machine has and has used since it was booted.
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
}

impl ContainerCounters {
    /// What the probes tell. `has_wait` says whether the kernel keeps an account of waits.
    pub(super) fn from_slot(slot: &SlotCounters, has_wait: bool) -> Self {
        let preempted = |by: Preemptor| slot.preempted_by[by as usize];
        ContainerCounters {
            on_cpu_ns: Some(Figure {
                value: slot.on_cpu_ns,
                source: MeasureSource::Ebpf,
            }),
            run_queue: has_wait.then_some(RunQueue {
                wait_ns: slot.wait_ns,
                wait_count: slot.wait_count,
                wait_hist: slot.wait_hist,
            }),
            switches: Some(Switches {
                voluntary: slot.voluntary,
                preempted_by_same: preempted(Preemptor::Same),
                preempted_by_revocable: preempted(Preemptor::Revocable),
                preempted_by_owned: preempted(Preemptor::Owned),
                preempted_by_unmanaged: preempted(Preemptor::Unmanaged),
                preempted_by_idle: preempted(Preemptor::Idle),
            }),
            ..ContainerCounters::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_keeps_preemptors_apart() {
        let mut slot = SlotCounters::ZERO;
        slot.on_cpu_ns = 9;
        slot.preempted_by = [1, 2, 4, 8, 16];
        let counters = ContainerCounters::from_slot(&slot, false);
        let switches = counters.switches.unwrap();
        assert_eq!(switches.preempted_by_same, 1);
        assert_eq!(switches.preempted_by_revocable, 2);
        assert_eq!(switches.preempted_by_owned, 4);
        assert_eq!(switches.preempted_by_unmanaged, 8);
        assert_eq!(switches.preempted_by_idle, 16);
        assert_eq!(switches.involuntary(), 31);
        assert_eq!(
            counters.run_queue, None,
            "what the kernel does not keep is absent"
        );
    }
}
