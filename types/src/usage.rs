//! What an agent measures and tells: the use of each task, of the machine, and what was done about
//! interference.

use crate::ids::{ContainerId, FrameworkId, TaskId};
use crate::quantities::Quantities;
use crate::resources::Resources;
use crate::time::Timestamp;

/// Where a figure comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MeasureSource {
    /// The probes.
    Ebpf,
    /// Files of the kernel: cgroups and /proc.
    Files,
}

impl MeasureSource {
    /// The name in API and metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ebpf => "ebpf",
            Self::Files => "files",
        }
    }
}

/// What a task used over the last interval. Absent is not zero: a figure that was not measured is
/// `None`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TaskUsageFigures {
    /// CPU, in thousandths of a core.
    pub cpu_milli: Option<u64>,
    /// Memory in use without reclaimable page cache, in bytes.
    pub mem_bytes: Option<u64>,
    /// Bytes a second read from and written to block devices.
    pub disk_bytes_per_s: Option<u64>,
    /// Mean time from runnable to running, in nanoseconds.
    pub run_queue_wait_ns: Option<u64>,
    /// Upper bound of the 99th percentile of the time from runnable to running, in nanoseconds.
    pub run_queue_p99_ns: Option<u64>,
    /// How often a revocable task took the CPU from it, a second.
    pub preempted_by_revocable_per_s: Option<u64>,
}

/// One task as its agent sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaskUsage {
    /// Whose it is.
    pub framework_id: FrameworkId,
    /// The task.
    pub task_id: TaskId,
    /// Its container.
    pub container_id: ContainerId,
    /// What it is allocated.
    pub allocated: Resources,
    /// What it uses.
    pub used: TaskUsageFigures,
    /// Where the CPU figure comes from.
    pub cpu_source: MeasureSource,
    /// A cap on its CPU that the QoS controller has set, in thousandths of a core.
    pub throttled_to_milli: Option<u64>,
    /// Whether the QoS controller has frozen it.
    pub frozen: bool,
}

/// Which measurement showed that a task is disturbed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Signal {
    /// Time from runnable to running, in nanoseconds.
    RunQueueLatency,
    /// How often revocable tasks took the CPU from it, a second.
    PreemptedByRevocable,
    /// Use of the machine's CPU, in thousandths of a core.
    MachineCpu,
    /// Memory that the machine has left, in bytes.
    MachineMemory,
}

impl Signal {
    /// The name in API and metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::RunQueueLatency => "run_queue_latency",
            Self::PreemptedByRevocable => "preempted_by_revocable",
            Self::MachineCpu => "machine_cpu",
            Self::MachineMemory => "machine_memory",
        }
    }
}

/// What the QoS controller does to a revocable container.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum CorrectionAction {
    /// Caps its CPU, in thousandths of a core.
    Throttle {
        /// The cap.
        cpu_milli: u64,
    },
    /// Stops it where it is.
    Freeze,
    /// Lets it run again, without a cap.
    Release,
    /// Ends it.
    Evict,
}

impl CorrectionAction {
    /// The name in API and metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Throttle { .. } => "throttle",
            Self::Freeze => "freeze",
            Self::Release => "release",
            Self::Evict => "evict",
        }
    }
}

/// One decision of the QoS controller with its cause.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Correction {
    /// When it was decided.
    pub at: Timestamp,
    /// The container that it judges.
    pub container_id: ContainerId,
    /// The task in it.
    pub task_id: TaskId,
    /// Whose it is.
    pub framework_id: FrameworkId,
    /// What is done to it.
    pub action: CorrectionAction,
    /// Which measurement asked for it.
    pub signal: Signal,
    /// The task that is disturbed; none when it is the machine as a whole.
    pub on_behalf_of: Option<TaskId>,
    /// The measured value, in the signal's unit.
    pub value: u64,
    /// The bound that it passed, in the signal's unit.
    pub threshold: u64,
    /// For how long it had been passed, in milliseconds.
    pub duration_ms: u64,
}

/// What an agent measures, as it tells the master.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AgentUsage {
    /// When it was taken.
    pub at: Timestamp,
    /// CPU in use on the whole machine, in thousandths of a core.
    pub machine_cpu_milli: Option<u64>,
    /// Memory in use on the whole machine, in bytes.
    pub machine_mem_bytes: Option<u64>,
    /// What is lent in all, in use and not.
    pub lent: Quantities,
    /// Revocable CPU that is held back by throttling and freezing now, in thousandths of a core.
    pub taken_back_cpu_milli: u64,
    /// Each task.
    pub tasks: Vec<TaskUsage>,
    /// Decisions since the last report.
    pub corrections: Vec<Correction>,
}
