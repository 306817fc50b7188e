//! What the probe and the agent say to each other.
//!
//! The probe runs in the kernel and adds; the agent reads. They share nothing but the records of this crate, which
//! both compile: one for the bpf target, one for the machine. Every record is `#[repr(C)]`, has no padding (asserted
//! below) and is written by one side only, as its comment says.
//!
//! Units: nanoseconds and counts, absolute since the slot was handed out. Nothing here is ever reset while in use.
#![no_std]

/// Buckets of the run-queue latency histogram: bucket `i` counts waits of `2^i <= ns < 2^(i+1)`, bucket 0 also 0 ns,
/// the last one everything from 34 s on.
pub const HIST_BUCKETS: usize = 36;

/// Who ran when a task was taken off a CPU against its will: an index into [`SlotCounters::preempted_by`].
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Preemptor {
    /// A task of the same container.
    Same = 0,
    /// A task of a revocable container.
    Revocable = 1,
    /// A task of a container that is not revocable.
    Owned = 2,
    /// A task of no container: the system, a kernel thread.
    Unmanaged = 3,
    /// Nobody: the task was runnable and the CPU went idle, as happens when a CPU quota is used up.
    Idle = 4,
}

/// The number of values of [`Preemptor`].
pub const PREEMPTORS: usize = 5;

/// Depths of the cgroup tree at which containers may stand at the same time.
pub const MAX_LEVELS: usize = 4;

/// The slot to which everything is charged that belongs to no container.
pub const UNMANAGED_SLOT: u32 = 0;

/// Stands in [`Current::slot`] while a CPU is idle.
pub const IDLE_SLOT: u32 = u32::MAX;

/// Slots when the loader asks for no other number: the unmanaged one and 1,023 containers.
pub const DEFAULT_SLOTS: u32 = 1024;

/// How far the estimate of a running task's time may run ahead of the scheduler's own account, which is brought up to
/// date at every tick: the longest tick there is (100 Hz).
pub const TICK_MAX_NS: u64 = 10_000_000;

/// The counters of one slot on one CPU. Written by the probe on that CPU alone; by the agent only while no container
/// has the slot.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlotCounters {
    /// Time on this CPU.
    pub on_cpu_ns: u64,
    /// What `on_cpu_ns` is ahead of the scheduler's account; later time on this CPU pays it off first.
    pub ahead_ns: u64,
    /// Time between becoming runnable and running, of all arrivals on this CPU.
    pub wait_ns: u64,
    /// Arrivals on this CPU.
    pub wait_count: u64,
    /// Departures of tasks that blocked, slept or exited.
    pub voluntary: u64,
    /// Departures of tasks that were still runnable, by [`Preemptor`]; their sum is the involuntary switches.
    pub preempted_by: [u64; PREEMPTORS],
    /// Arrivals by the logarithm of their wait.
    pub wait_hist: [u64; HIST_BUCKETS],
}

impl SlotCounters {
    /// Counters of a slot that was never charged.
    pub const ZERO: Self = Self {
        on_cpu_ns: 0,
        ahead_ns: 0,
        wait_ns: 0,
        wait_count: 0,
        voluntary: 0,
        preempted_by: [0; PREEMPTORS],
        wait_hist: [0; HIST_BUCKETS],
    };
}

/// How much of a task's accounts has been charged. The kernel keeps one with each task of a container.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Charged {
    /// [`Registration::stamp`] of the container that it was charged to; 0 if to none yet.
    pub stamp: u64,
    /// Running time. While the task is on a CPU it may be ahead of the scheduler's account by up to [`TICK_MAX_NS`].
    pub exec_ns: u64,
    /// Waiting time.
    pub wait_ns: u64,
    /// Arrivals on a CPU.
    pub arrivals: u64,
    /// Voluntary departures.
    pub voluntary: u64,
}

/// The task on one CPU and what was known of it when it came. Written by the probe on that CPU alone.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Current {
    /// Thread id of the task; meaningless before the first switch, when `armed` is 0.
    pub pid: u32,
    /// The slot it is charged to, or [`IDLE_SLOT`].
    pub slot: u32,
    /// 1 once this CPU has switched since the probe was attached.
    pub armed: u32,
    /// [`Class`] of the slot.
    pub class: u32,
    /// [`Registration::stamp`] of the slot.
    pub stamp: u64,
    /// The kernel's monotonic clock when the task came.
    pub since_ns: u64,
    /// The scheduler's account of its running time when it came.
    pub exec_ns: u64,
    /// Switches of this CPU that the kernel did not show to the probe.
    pub missed: u64,
    /// Its accounts when it came. `sched_info` counts the arrival itself only afterwards.
    pub base: Charged,
}

/// What a container is to its neighbours.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// No container at all.
    Unmanaged = 0,
    /// Runs on resources of its own.
    Owned = 1,
    /// Runs on lent resources.
    Revocable = 2,
}

/// Which slot a cgroup is charged to. Written by the agent when a container comes, keyed by the cgroup's v2 id.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Registration {
    /// Index into the counters.
    pub slot: u32,
    /// [`Class`] of the container.
    pub class: u32,
    /// Another number for each registration, never 0: a slot is used again, a stamp is not.
    pub stamp: u64,
}

/// Depths of the cgroup tree at which containers stand, deepest first, 0 after the last. Written by the agent.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Levels {
    /// The depths; the root has depth 0.
    pub depth: [u32; MAX_LEVELS],
}

/// Names of the programs, maps and read-only globals in the object.
pub mod name {
    /// Program on the `sched_switch` tracepoint.
    pub const SCHED_SWITCH: &str = "sched_switch";
    /// Program that the agent runs on a CPU to charge the task that is on it.
    pub const FLUSH: &str = "flush";
    /// Per-CPU array of [`super::SlotCounters`], indexed by slot.
    pub const COUNTERS: &str = "COUNTERS";
    /// Per-CPU array with one [`super::Current`].
    pub const CURRENT: &str = "CURRENT";
    /// Hash of [`super::Registration`], keyed by cgroup v2 id.
    pub const REGISTRY: &str = "REGISTRY";
    /// Array with one [`super::Levels`].
    pub const LEVELS: &str = "LEVELS";
    /// Offset of `task_struct.pid`.
    pub const TASK_PID: &str = "TASK_PID";
    /// Offset of `task_struct.nvcsw`.
    pub const TASK_VOLUNTARY: &str = "TASK_VOLUNTARY";
    /// Offset of `task_struct.se.sum_exec_runtime`.
    pub const TASK_EXEC: &str = "TASK_EXEC";
    /// Offset of `task_struct.sched_info.run_delay`.
    pub const TASK_WAIT: &str = "TASK_WAIT";
    /// Offset of `task_struct.sched_info.pcount`.
    pub const TASK_ARRIVALS: &str = "TASK_ARRIVALS";
    /// Offset of `task_struct.cgroups`.
    pub const TASK_CSS_SET: &str = "TASK_CSS_SET";
    /// Offset of `css_set.dfl_cgrp`.
    pub const CSS_SET_CGROUP: &str = "CSS_SET_CGROUP";
    /// Offset of `cgroup.kn`.
    pub const CGROUP_NODE: &str = "CGROUP_NODE";
    /// Offset of `cgroup.level`.
    pub const CGROUP_LEVEL: &str = "CGROUP_LEVEL";
    /// Offset of `cgroup.ancestors`, or of `cgroup.ancestor_ids` on kernels before 6.1.
    pub const CGROUP_ANCESTORS: &str = "CGROUP_ANCESTORS";
    /// 1 if the ancestors are pointers to cgroups, 0 if they are ids.
    pub const ANCESTORS_ARE_POINTERS: &str = "ANCESTORS_ARE_POINTERS";
    /// Offset of `kernfs_node.id`.
    pub const NODE_ID: &str = "NODE_ID";
    /// 1 if the kernel keeps `sched_info`: without it there is no run-queue latency.
    pub const HAS_WAIT: &str = "HAS_WAIT";
}

/// The bucket of a wait.
#[inline(always)]
pub const fn bucket(wait_ns: u64) -> usize {
    // By halves, since the bpf target has no instruction that counts leading zeros.
    let mut rest = wait_ns;
    let mut log = 0;
    let mut half = 32;
    while half > 0 {
        if rest >> half > 0 {
            rest >>= half;
            log += half;
        }
        half /= 2;
    }
    if log < HIST_BUCKETS {
        log
    } else {
        HIST_BUCKETS - 1
    }
}

const _: () = assert!(size_of::<SlotCounters>() == 8 * (5 + PREEMPTORS + HIST_BUCKETS));
const _: () = assert!(size_of::<Charged>() == 8 * 5);
const _: () = assert!(size_of::<Current>() == 4 * 4 + 8 * 4 + size_of::<Charged>());
const _: () = assert!(size_of::<Registration>() == 16);
const _: () = assert!(size_of::<Levels>() == 4 * MAX_LEVELS);
const _: () = assert!(Preemptor::Idle as usize + 1 == PREEMPTORS);
const _: () = assert!(UNMANAGED_SLOT < DEFAULT_SLOTS);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_are_the_floor_of_the_logarithm() {
        assert_eq!(bucket(0), 0);
        for shift in 0..64u32 {
            let low = 1u64 << shift;
            let high = low + (low - 1);
            let expected = (shift as usize).min(HIST_BUCKETS - 1);
            assert_eq!(bucket(low), expected, "2^{shift}");
            assert_eq!(bucket(high), expected, "2^{}-1", shift + 1);
        }
    }
}
