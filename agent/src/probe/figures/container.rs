//! The counters of one container.

use ebb_agent_ebpf_common::{HIST_BUCKETS, Preemptor, SlotCounters, Traffic as Counted};

use super::{DeviceCounters, Figure};

/// What a container has used since it was registered.
///
/// "In full samples" marks what [`Detail::Quick`](super::Detail::Quick) leaves out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ContainerCounters {
    /// Time on the CPUs.
    pub on_cpu_ns: Option<Figure<u64>>,
    /// The same by mode; in full samples.
    pub cpu_split: Option<CpuSplit>,
    /// Run-queue latency.
    pub run_queue: Option<RunQueue>,
    /// Context switches.
    pub switches: Option<Switches>,
    /// Throttling by its own quota; in full samples.
    pub throttling: Option<Throttling>,
    /// Memory; in full samples.
    pub memory: Option<Memory>,
    /// Page faults; of files in full samples.
    pub faults: Option<Figure<Faults>>,
    /// Stalls for want of memory.
    pub reclaim: Option<Reclaim>,
    /// Tasks killed for want of memory; of files in full samples.
    pub oom_kills: Option<Figure<u64>>,
    /// Traffic with each block device, in the order of the devices; in full samples.
    pub disk: Option<Figure<Vec<DeviceCounters>>>,
    /// Network.
    pub network: Option<Network>,
    /// What of that passed network devices.
    pub traffic: Option<Traffic>,
    /// Processes.
    pub processes: Option<Processes>,
    /// Pressure; in full samples.
    pub pressure: Option<Pressure>,
}

/// Time on the CPUs by mode. From files only; the kernel scales the two so that their sum is all of it, which is a
/// little late where ticks count it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CpuSplit {
    /// In the program's own code.
    pub user_ns: u64,
    /// In the kernel on its behalf.
    pub system_ns: u64,
}

/// Time between becoming runnable and running, of all tasks of a container. From the probes only.
///
/// A wait counts when it ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RunQueue {
    /// The sum.
    pub wait_ns: u64,
    /// The part of it in which the container's own CPU quota held a task back, where the kernel tells.
    pub wait_own_ns: Option<u64>,
    /// How many waits.
    pub wait_count: u64,
    /// How many of `2^i <= ns < 2^(i+1)`, without the part of the quota where that is known; the last bucket is open.
    pub wait_hist: [u64; HIST_BUCKETS],
}

impl RunQueue {
    /// The part of the waits that others may be blamed for: all but what the container's own quota made.
    pub fn wait_blamed_ns(&self) -> u64 {
        self.wait_ns.saturating_sub(self.wait_own_ns.unwrap_or(0))
    }
}

/// Context switches away from a container's tasks. From the probes only.
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
    /// None came: its CPU quota was used up, or the CPU went idle.
    pub preempted_by_quota: u64,
    /// Moves of tasks between CPUs.
    pub migrations: u64,
}

impl Switches {
    /// Departures of tasks that were still runnable.
    pub fn involuntary(&self) -> u64 {
        self.preempted_by_same
            + self.preempted_by_revocable
            + self.preempted_by_owned
            + self.preempted_by_unmanaged
            + self.preempted_by_quota
    }
}

/// Time that a container's own CPU quota held it back. From files only.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Throttling {
    /// Enforcement periods in which it ran.
    pub periods: u64,
    /// Those in which the quota was used up.
    pub throttled_periods: u64,
    /// Time held back, summed over its run queues.
    pub throttled_ns: u64,
}

/// Memory of a container. From files only: the memory controller counts every page.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// All that is charged to it, page cache included.
    pub usage_bytes: u64,
    /// Page cache that can be reclaimed without harm.
    pub inactive_file_bytes: Option<u64>,
    /// Anonymous memory.
    pub anon_bytes: Option<u64>,
    /// Page cache, with what `tmpfs` holds.
    pub file_bytes: Option<u64>,
    /// Swapped out.
    pub swap_bytes: Option<u64>,
    /// The most that was charged to it since its cgroup was made.
    pub peak_bytes: Option<u64>,
    /// Its limit, if it has one.
    pub limit_bytes: Option<u64>,
    /// Times that an allocation met the limit (v2 `max` of `memory.events`; v1 `failcnt`, which newer kernels leave at 0).
    pub limit_hits: Option<u64>,
    /// Times that its own limit could not be kept but by a kill (v2 `oom` of `memory.events`).
    pub limit_ooms: Option<u64>,
    /// Tasks of it that the kernel killed for want of memory.
    pub oom_kills: Option<u64>,
}

impl Memory {
    /// What cannot be taken from it without harm: all but the inactive page cache.
    pub fn working_set_bytes(&self) -> u64 {
        self.usage_bytes
            .saturating_sub(self.inactive_file_bytes.unwrap_or(0))
    }
}

/// Page faults.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Faults {
    /// Those that needed no disk.
    pub minor: u64,
    /// Those that did.
    pub major: u64,
}

/// Tasks that had to free memory before they got some. From the probes only.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reclaim {
    /// Times that the machine had none.
    pub direct_count: u64,
    /// How long they took.
    pub direct_ns: u64,
    /// Times that the limit of the cgroup was reached.
    pub limit_count: u64,
    /// How long they took.
    pub limit_ns: u64,
}

impl Reclaim {
    /// Time in which tasks freed memory instead of going on.
    pub fn stalled_ns(&self) -> u64 {
        self.direct_ns.saturating_add(self.limit_ns)
    }
}

/// IP traffic, also of containers that share the host's network. From the probes only.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Network {
    /// Received.
    pub in_bytes: u64,
    /// Packets received.
    pub in_packets: u64,
    /// Sent.
    pub out_bytes: u64,
    /// Packets sent.
    pub out_packets: u64,
}

/// IP traffic with network devices other than loopback: the part of [`Network`] that a limit is about. From the probes
/// only; absent where they do not see the container's packets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Bytes received.
    pub in_bytes: u64,
    /// Bytes sent.
    pub out_bytes: u64,
    /// Packets of either direction that a limit has dropped, whose bytes count nowhere; one that its sender tries again,
    /// as TCP does before it has sent it, counts each time.
    pub dropped_packets: u64,
}

impl From<Counted> for Traffic {
    fn from(counted: Counted) -> Self {
        Self {
            in_bytes: counted.in_bytes,
            out_bytes: counted.out_bytes,
            dropped_packets: counted.dropped_packets,
        }
    }
}

/// Births and deaths. From the probes only.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Processes {
    /// New processes.
    pub forks: u64,
    /// New threads of processes that were there.
    pub threads: u64,
    /// Ended processes.
    pub exits: u64,
    /// Of these, those that lived for less than 5 ms.
    pub short_lived: u64,
}

/// Time that tasks stood still (PSI). From files only.
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

/// Which groups of figures the attached probes really feed. The others stand as 0 in a slot and are absent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Available {
    /// Waits: the kernel keeps `sched_info`.
    pub wait: bool,
    /// The part of the waits that is a quota's doing.
    pub own_wait: bool,
    /// Page faults.
    pub faults: bool,
    /// Forks and exits.
    pub processes: bool,
    /// Reclaim.
    pub reclaim: bool,
    /// Kills for want of memory.
    pub oom: bool,
    /// IP traffic.
    pub network: bool,
}

impl ContainerCounters {
    /// What the probes tell, but for disks ([`super::disk_from_probes`]) and traffic, which stand elsewhere.
    pub(in crate::probe) fn from_slot(slot: &SlotCounters, available: &Available) -> Self {
        let preempted = |by: Preemptor| slot.preempted_by[by as usize];
        ContainerCounters {
            on_cpu_ns: Some(Figure::ebpf(slot.on_cpu_ns + slot.ended_ns)),
            run_queue: available.wait.then_some(RunQueue {
                wait_ns: slot.wait_ns,
                wait_own_ns: available.own_wait.then_some(slot.wait_own_ns),
                wait_count: slot.wait_count,
                wait_hist: slot.wait_hist,
            }),
            switches: Some(Switches {
                voluntary: slot.voluntary,
                preempted_by_same: preempted(Preemptor::Same),
                preempted_by_revocable: preempted(Preemptor::Revocable),
                preempted_by_owned: preempted(Preemptor::Owned),
                preempted_by_unmanaged: preempted(Preemptor::Unmanaged),
                preempted_by_quota: preempted(Preemptor::Quota),
                migrations: slot.migrations,
            }),
            faults: available.faults.then_some(Figure::ebpf(Faults {
                minor: slot.faults_minor,
                major: slot.faults_major,
            })),
            reclaim: available.reclaim.then_some(Reclaim {
                direct_count: slot.reclaim_direct,
                direct_ns: slot.reclaim_direct_ns,
                limit_count: slot.reclaim_limit,
                limit_ns: slot.reclaim_limit_ns,
            }),
            oom_kills: available.oom.then_some(Figure::ebpf(slot.oom_kills)),
            network: available.network.then_some(Network {
                in_bytes: slot.net_in_bytes,
                in_packets: slot.net_in_packets,
                out_bytes: slot.net_out_bytes,
                out_packets: slot.net_out_packets,
            }),
            processes: available.processes.then_some(Processes {
                forks: slot.forks,
                threads: slot.threads,
                exits: slot.exits,
                short_lived: slot.short_lived,
            }),
            ..ContainerCounters::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slot() -> SlotCounters {
        SlotCounters {
            on_cpu_ns: 9,
            preempted_by: [1, 2, 4, 8, 16],
            wait_ns: 10,
            wait_own_ns: 4,
            faults_minor: 3,
            oom_kills: 1,
            net_out_bytes: 7,
            forks: 5,
            reclaim_direct_ns: 20,
            reclaim_limit_ns: 30,
            ..SlotCounters::ZERO
        }
    }

    #[test]
    fn a_slot_keeps_preemptors_apart() {
        let counters = ContainerCounters::from_slot(&slot(), &Available::default());
        let switches = counters.switches.unwrap();
        assert_eq!(switches.preempted_by_same, 1);
        assert_eq!(switches.preempted_by_revocable, 2);
        assert_eq!(switches.preempted_by_owned, 4);
        assert_eq!(switches.preempted_by_unmanaged, 8);
        assert_eq!(switches.preempted_by_quota, 16);
        assert_eq!(switches.involuntary(), 31);
    }

    #[test]
    fn what_no_probe_feeds_is_absent_and_the_rest_says_its_source() {
        let none = ContainerCounters::from_slot(&slot(), &Available::default());
        assert_eq!(none.on_cpu_ns, Some(Figure::ebpf(9)));
        assert_eq!(none.run_queue, None, "what the kernel does not keep");
        assert_eq!((none.faults, none.oom_kills), (None, None));
        assert_eq!((none.reclaim, none.network), (None, None));
        assert_eq!(none.processes, None);
        let all = Available {
            wait: true,
            own_wait: true,
            faults: true,
            processes: true,
            reclaim: true,
            oom: true,
            network: true,
        };
        let counters = ContainerCounters::from_slot(&slot(), &all);
        assert_eq!(counters.run_queue.unwrap().wait_blamed_ns(), 6);
        let faults = Faults { minor: 3, major: 0 };
        assert_eq!(counters.faults, Some(Figure::ebpf(faults)));
        assert_eq!(counters.oom_kills, Some(Figure::ebpf(1)));
        assert_eq!(counters.network.unwrap().out_bytes, 7);
        assert_eq!(counters.processes.unwrap().forks, 5);
        assert_eq!(counters.reclaim.unwrap().stalled_ns(), 50);
        let no_quota = Available {
            own_wait: false,
            ..all
        };
        let run_queue = ContainerCounters::from_slot(&slot(), &no_quota).run_queue;
        assert_eq!(run_queue.unwrap().wait_own_ns, None);
    }
}
