//! What an agent measures and tells: the use of each task, of the machine, and what was done about
//! interference.

use crate::ids::{ContainerId, FrameworkId, TaskId};
use crate::lasting::Lasting;
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
/// `None`. From where each comes stands in [`AgentUsage::sources`], and for those that may differ from
/// task to task in [`TaskSources`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TaskUsageFigures {
    /// CPU, in thousandths of a core.
    pub cpu_milli: Option<u64>,
    /// CPU in the program's own code, in thousandths of a core.
    pub cpu_user_milli: Option<u64>,
    /// CPU in the kernel, in thousandths of a core.
    pub cpu_system_milli: Option<u64>,
    /// Time for which its own CPU quota held it back, summed over its threads, in thousandths of the time
    /// passed.
    pub throttled_permille: Option<u64>,
    /// Memory in use without reclaimable page cache, in bytes.
    pub mem_bytes: Option<u64>,
    /// Anonymous memory, in bytes.
    pub mem_anon_bytes: Option<u64>,
    /// Page cache, in bytes.
    pub mem_file_bytes: Option<u64>,
    /// Swapped out, in bytes.
    pub mem_swap_bytes: Option<u64>,
    /// The most memory that was ever in use, page cache included, in bytes.
    pub mem_peak_bytes: Option<u64>,
    /// Time for which it freed memory before it got some, summed over its threads, in thousandths of the
    /// time passed.
    pub reclaim_permille: Option<u64>,
    /// Page faults that needed no disk, a second.
    pub faults_minor_per_s: Option<u64>,
    /// Page faults that needed a disk, a second.
    pub faults_major_per_s: Option<u64>,
    /// Processes of it that were killed for want of memory, ever.
    pub oom_kills: Option<u64>,
    /// Bytes a second read from and written to block devices.
    pub disk_bytes_per_s: Option<u64>,
    /// Bytes a second read from block devices.
    pub disk_read_bytes_per_s: Option<u64>,
    /// Bytes a second written to block devices.
    pub disk_write_bytes_per_s: Option<u64>,
    /// Mean time of its disk requests in the kernel's queue and in the device, in nanoseconds.
    pub io_mean_ns: Option<u64>,
    /// Upper bound of the 99th percentile of their time in the kernel's queue, in nanoseconds.
    pub io_queue_p99_ns: Option<u64>,
    /// Upper bound of the 99th percentile of their time in the device, in nanoseconds.
    pub io_device_p99_ns: Option<u64>,
    /// Bytes of IP packets received, a second.
    pub net_in_bytes_per_s: Option<u64>,
    /// Bytes of IP packets sent, a second.
    pub net_out_bytes_per_s: Option<u64>,
    /// The part of what is received that came through network devices other than loopback, in bytes a second.
    pub traffic_in_bytes_per_s: Option<u64>,
    /// The same of what is sent.
    pub traffic_out_bytes_per_s: Option<u64>,
    /// Packets that were dropped for exceeding its network bandwidth, a second.
    pub traffic_dropped_per_s: Option<u64>,
    /// Mean time from runnable to running, in nanoseconds; without what its own CPU quota made of it,
    /// where that is known.
    pub run_queue_wait_ns: Option<u64>,
    /// Upper bound of the 99th percentile of the time from runnable to running, in nanoseconds.
    pub run_queue_p99_ns: Option<u64>,
    /// Runnable threads that others kept from running, on average, in thousandths.
    pub waiting_milli: Option<u64>,
    /// Runnable threads that its own CPU quota kept from running, on average, in thousandths.
    pub waiting_own_milli: Option<u64>,
    /// How often a revocable task took the CPU from it, a second.
    pub preempted_by_revocable_per_s: Option<u64>,
    /// How often another task or the system took the CPU from it, a second.
    pub preempted_by_other_per_s: Option<u64>,
    /// Moves of its threads between CPUs, a second.
    pub migrations_per_s: Option<u64>,
    /// New processes, a second.
    pub forks_per_s: Option<u64>,
    /// Time that at least one of its threads waited for a CPU, in thousandths of the time passed (PSI).
    pub cpu_pressure_permille: Option<u64>,
    /// The same for memory.
    pub mem_pressure_permille: Option<u64>,
    /// The same for disks.
    pub io_pressure_permille: Option<u64>,
}

/// Where the figures of one task come from that may differ from task to task: a container that the
/// probes have no room for is measured by files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TaskSources {
    /// CPU.
    pub cpu: MeasureSource,
    /// Page faults.
    pub faults: MeasureSource,
    /// Kills for want of memory.
    pub oom_kills: MeasureSource,
    /// Traffic with block devices.
    pub disk: MeasureSource,
}

impl TaskSources {
    /// All from one source.
    pub const fn all(source: MeasureSource) -> Self {
        Self {
            cpu: source,
            faults: source,
            oom_kills: source,
            disk: source,
        }
    }
}

/// Where an agent measures one kind of figure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FigureSource {
    /// The kind of figure.
    pub figure: String,
    /// Its source; `None` if it is not measured.
    pub source: Option<MeasureSource>,
    /// Why it does not come from a better place; empty if it does.
    pub why: String,
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
    /// Where the figures come from that may differ from task to task.
    pub sources: TaskSources,
    /// A cap on its CPU that the QoS controller has set, in thousandths of a core.
    pub throttled_to_milli: Option<u64>,
    /// Whether the QoS controller has frozen it.
    pub frozen: bool,
    /// A limit on its network bandwidth that the QoS controller has set, in bytes a second each way.
    pub network_limited_to_bytes_per_s: Option<u64>,
    /// Down to how much the QoS controller has its memory reclaimed, in bytes.
    pub memory_reclaimed_to_bytes: Option<u64>,
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
    /// Time for which its threads stood still for want of memory, in thousandths of the time passed: the larger of
    /// what it spent freeing memory and of its PSI.
    MemoryStall,
    /// Mean time of its disk requests in the kernel's queue and in the device, in nanoseconds.
    DiskLatency,
    /// Use of the agent's network bandwidth in the direction of which more is used, in bytes a second.
    MachineNetwork,
}

impl Signal {
    /// Every one of them.
    pub const ALL: [Self; 7] = [
        Self::RunQueueLatency,
        Self::PreemptedByRevocable,
        Self::MachineCpu,
        Self::MachineMemory,
        Self::MemoryStall,
        Self::DiskLatency,
        Self::MachineNetwork,
    ];

    /// The name in API and metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::RunQueueLatency => "run_queue_latency",
            Self::PreemptedByRevocable => "preempted_by_revocable",
            Self::MachineCpu => "machine_cpu",
            Self::MachineMemory => "machine_memory",
            Self::MemoryStall => "memory_stall",
            Self::DiskLatency => "disk_latency",
            Self::MachineNetwork => "machine_network",
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
    /// Lets it run again, without a cap on its CPU.
    Release,
    /// Limits its network bandwidth, each way.
    LimitNetwork {
        /// The limit, in bytes a second.
        bytes_per_s: u64,
    },
    /// Gives it its network bandwidth back.
    ReleaseNetwork,
    /// Has the kernel reclaim its memory, what is only cached first; nothing of it is killed for that.
    ReclaimMemory {
        /// What it is left, in bytes.
        to_bytes: u64,
    },
    /// Lets it have its memory again.
    ReleaseMemory,
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
            Self::LimitNetwork { .. } => "limit_network",
            Self::ReleaseNetwork => "release_network",
            Self::ReclaimMemory { .. } => "reclaim_memory",
            Self::ReleaseMemory => "release_memory",
            Self::Evict => "evict",
        }
    }
}

/// By which rule a container was chosen among those that could have been.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ChoiceRule {
    /// It used the most CPU, in thousandths of a core; of equals the youngest.
    MostCpu,
    /// It held the most memory, in bytes; of equals the youngest.
    MostMemory,
    /// It had the most traffic with block devices, in bytes a second; of equals the youngest.
    MostDisk,
    /// It had the most traffic with the network in the direction that was full, in bytes a second; of equals the youngest.
    MostNetwork,
    /// It was held back longest or hardest; the amount is what it was left, in thousandths of a core, or of the network
    /// in bytes a second.
    HeldHardest,
    /// It was to have ended and had not; the amount is for how long, in milliseconds.
    NotEnded,
}

impl ChoiceRule {
    /// Every one of them.
    pub const ALL: [Self; 6] = [
        Self::MostCpu,
        Self::MostMemory,
        Self::MostDisk,
        Self::MostNetwork,
        Self::HeldHardest,
        Self::NotEnded,
    ];

    /// The name in API and logs.
    pub const fn name(self) -> &'static str {
        match self {
            Self::MostCpu => "most_cpu",
            Self::MostMemory => "most_memory",
            Self::MostDisk => "most_disk",
            Self::MostNetwork => "most_network",
            Self::HeldHardest => "held_hardest",
            Self::NotEnded => "not_ended",
        }
    }
}

/// Why a correction struck this container and not another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Choice {
    /// The rule that ranked them.
    pub rule: ChoiceRule,
    /// What it had by that rule, in the rule's unit.
    pub amount: u64,
    /// Its place by the rule; the first is 1.
    pub rank: u32,
    /// How many could have been chosen.
    pub candidates: u32,
    /// Whether it was spared the end because too many tasks of its framework were ended of late.
    pub spared: bool,
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
    /// What is normal for the disturbed task, in the signal's unit; none where the bound does not rest on that.
    pub baseline: Option<u64>,
    /// For how long it had been passed, in milliseconds.
    pub duration_ms: u64,
    /// Why this container.
    pub choice: Choice,
    /// How long a container that is told to end may take for it, in milliseconds.
    pub grace_ms: u64,
}

/// What tasks contend for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Contended {
    /// CPU.
    Cpu,
    /// Memory.
    Memory,
    /// Disks.
    Disk,
}

impl Contended {
    /// Every one of them.
    pub const ALL: [Self; 3] = [Self::Cpu, Self::Memory, Self::Disk];

    /// The name in API and metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Memory => "mem",
            Self::Disk => "disk",
        }
    }
}

/// A task that disturbs another one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Disturber {
    /// Whose it is.
    pub framework_id: FrameworkId,
    /// The task.
    pub task_id: TaskId,
    /// Its container.
    pub container_id: ContainerId,
    /// Whether it runs on lent resources.
    pub revocable: bool,
    /// Its part of what all others use of the resource, in thousandths.
    pub share_permille: u64,
}

/// A task that is disturbed by its neighbours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Disturbance {
    /// Whose it is.
    pub framework_id: FrameworkId,
    /// The task.
    pub task_id: TaskId,
    /// Its container.
    pub container_id: ContainerId,
    /// By which resource.
    pub resource: Contended,
    /// What shows it.
    pub signal: Signal,
    /// The measured value, in the signal's unit.
    pub value: u64,
    /// What is normal for the task, in the signal's unit.
    pub baseline: u64,
    /// The bound that was passed, in the signal's unit.
    pub threshold: u64,
    /// Since when, without a break.
    pub since: Timestamp,
    /// By whom, the worst first; at most [`crate::limits::MAX_DISTURBERS`]. Empty if no container of this agent uses
    /// enough of the resource to be blamed: then it is work outside of Ebb, or the device itself.
    pub by: Vec<Disturber>,
}

/// How well one kind of resource was kept for its owners while part of it was lent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Promise {
    /// Time for which some of it was lent and owners were measured, in milliseconds; only rises.
    pub watched_ms: u64,
    /// The part of that time in which they used more than the estimate had kept for them, in milliseconds; only rises.
    pub broken_ms: u64,
}

impl Promise {
    /// The part of the time in which it was broken, in millionths; none while nothing was lent.
    pub fn broken_ppm(&self) -> Option<u64> {
        let broken = u128::from(self.broken_ms) * 1_000_000;
        let ppm = broken.checked_div(u128::from(self.watched_ms))?;
        Some(u64::try_from(ppm).unwrap_or(u64::MAX))
    }
}

/// What an agent keeps of its promise to those whose resources it lends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Promises {
    /// Of CPU.
    pub cpu: Promise,
    /// Of memory.
    pub mem: Promise,
    /// How much of the time it may be broken, in millionths, as the agent's settings say.
    pub budget_ppm: u64,
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
    /// Time that at least one thread of the machine waited for a CPU, in thousandths of the time
    /// passed (PSI).
    pub cpu_pressure_permille: Option<u64>,
    /// The same for memory.
    pub mem_pressure_permille: Option<u64>,
    /// The same for disks.
    pub io_pressure_permille: Option<u64>,
    /// Where each kind of figure comes from.
    pub sources: Vec<FigureSource>,
    /// What is lent in all, in use and not.
    pub lent: Quantities,
    /// Revocable CPU that is held back by throttling and freezing now, in thousandths of a core.
    pub taken_back_cpu_milli: u64,
    /// Each task.
    pub tasks: Vec<TaskUsage>,
    /// Decisions since the last report.
    pub corrections: Vec<Correction>,
    /// The last decisions, the latest last, at most [`crate::limits::MAX_RECENT_CORRECTIONS`]; the master keeps them,
    /// an agent leaves this empty.
    pub recent: Vec<Correction>,
    /// Tasks that are disturbed by their neighbours, at most [`crate::limits::MAX_DISTURBANCES`].
    pub disturbances: Vec<Disturbance>,
    /// How well owners' resources were kept for them since the agent started.
    pub promises: Promises,
    /// How much of what is lent can be expected to stay lent for how long.
    pub lasting: Lasting,
}
