//! What the probes keep of a task: of one of a container's, and of the one on each CPU.

/// Stands in [`Current::slot`] while a CPU is idle.
pub const IDLE_SLOT: u32 = u32::MAX;

/// How much of a task's accounts has been charged.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Charged {
    /// [`crate::Registration::stamp`] of the container that it was charged to; 0 if to none yet.
    pub stamp: u64,
    /// Running time. While the task is on a CPU it may be ahead of the scheduler's account; see [`Current::seen_ns`].
    pub exec_ns: u64,
    /// Waiting time.
    pub wait_ns: u64,
    /// Arrivals on a CPU.
    pub arrivals: u64,
    /// Voluntary departures.
    pub voluntary: u64,
    /// Moves between CPUs.
    pub migrations: u64,
    /// Page faults that needed no disk.
    pub faults_minor: u64,
    /// Page faults that needed a disk.
    pub faults_major: u64,
}

impl Charged {
    /// Nothing of a task's accounts.
    pub const ZERO: Self = Self {
        stamp: 0,
        exec_ns: 0,
        wait_ns: 0,
        arrivals: 0,
        voluntary: 0,
        migrations: 0,
        faults_minor: 0,
        faults_major: 0,
    };
}

/// What the kernel keeps with each task of a container.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TaskRecord {
    /// How much of its accounts has been charged. Written on the CPU that it is on, with interrupts off.
    pub charged: Charged,
    /// When it began to free memory; 0 if it does not. Written by the task itself.
    pub reclaim_since_ns: u64,
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
    /// [`crate::Class`] of the slot.
    pub class: u32,
    /// [`crate::Registration::stamp`] of the slot.
    pub stamp: u64,
    /// Switches of this CPU.
    pub switches: u64,
    /// Switches of this CPU that the kernel did not show to the probe.
    pub missed: u64,
    /// Tasks that the kernel had no memory for to keep a [`TaskRecord`] with.
    pub storage_misses: u64,
    /// The account of its running time at the last reading that saw it change (all ones before the first), and when
    /// that was by the monotonic clock: where the tick is stopped for a task that is alone on its CPU, the clock stands
    /// in for the account.
    pub seen_exec_ns: u64,
    /// See `seen_exec_ns`. Without BTF: when the task came.
    pub seen_ns: u64,
    /// When the task came, where its container's quota has lately held back tasks on this CPU; else 0.
    pub arrived_ns: u64,
    /// When the last hold by the container's quota was seen to have ended; see [`QuotaWatch`].
    pub held_until_ns: u64,
    /// How long that was.
    pub held_ns: u64,
    /// Without BTF: the slot whose task was pushed out by the one that runs now, [`IDLE_SLOT`] if none was.
    pub pushed_out: u32,
    /// 1 while a probe charges that may be interrupted: the one at the end of a task. A reading then leaves it alone.
    pub charging: u32,
    /// Its accounts when it came. `sched_info` counts the arrival itself only afterwards.
    pub base: Charged,
}

/// How long a container's own CPU quota has held back its tasks on one CPU. Written by the probe on that CPU alone.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QuotaWatch {
    /// The container's run queue on this CPU, by its address.
    pub queue: u64,
    /// [`crate::Registration::stamp`] of the container, since addresses are used again.
    pub stamp: u64,
    /// The kernel's account of the time for which that queue was held back.
    pub account_ns: u64,
    /// When the account was last seen to have grown.
    pub held_until_ns: u64,
    /// By how much.
    pub held_ns: u64,
}

const _: () = assert!(size_of::<Charged>() == 8 * 8);
const _: () = assert!(size_of::<TaskRecord>() == size_of::<Charged>() + 8);
const _: () = assert!(size_of::<Current>() == 4 * 6 + 8 * 9 + size_of::<Charged>());
const _: () = assert!(size_of::<QuotaWatch>() == 40);
