//! The agent's decisions: which task runs in which container, what the master is told and when, what
//! is lent and what is taken back.
//!
//! The core is a pure state machine. The driver hands it what happened ([`Input`]) and the time, and
//! carries out what it answers ([`Effect`]) *in order*. It knows no clock, file, socket or thread, so
//! the simulator runs the very same code.
//!
//! # Invariants
//! * Effects are carried out in order. What follows a [`Effect::Persist`] may happen only when its
//!   records are durable: a task is on disk before it is launched, a status before it is sent.
//! * What is allocated never exceeds what the agent has; revocable resources are counted apart.
//! * A task is known once. It is forgotten when its terminal status has been acknowledged.
//! * Of each task only the oldest unacknowledged status is on its way to the master.
//! * Messages of an earlier connection or generation are refused and counted.
//!
//! `check` asserts these after every step of a debug build.

use std::collections::{BTreeMap, BTreeSet};

use ebb_types::{
    AgentId, AgentToMaster, Attribute, CommandInfo, ContainerId, Correction, ExecutorId,
    ExitStatus, FaultDomain, FrameworkId, Generation, Lots, MasterToAgent, Quantities, Resources,
    TaskId, TaskKey, TaskState, Timestamp,
};

mod check;
mod classes;
mod container;
mod disks;
mod executors;
mod kill;
mod launch;
mod link;
mod lots;
mod permille;
mod record;
mod sample;
mod sliding;
mod state;
mod step;
mod timers;
mod updates;

pub mod account;
pub mod estimator;
pub mod lending;
pub mod qos;
pub mod running;
pub mod siblings;
pub mod usage;

#[cfg(test)]
mod tests;

pub use ebb_types::{ExecutorCall, ExecutorEvent};

pub use classes::ClassCounters;
pub use disks::{DISKS_VARIABLE, disk_name};
pub use lots::{GPUS_VARIABLE, Place, VOLUMES, folders, with_dynamic};
pub use record::{EndCause, Ending, ExecutorRecord, Record, Restored, TaskRecord};
pub use sample::Past;
pub use state::{Core, Counters, ExecutorView, TaskView};

/// One connection to the master; larger is later. The driver numbers them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Conn(pub u64);

/// One connection of a framework's own executor to the agent; larger is later.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Session(pub u64);

/// Most tasks that an agent knows at a time, those whose end is not acknowledged included.
pub const MAX_TASKS: usize = 20_000;
/// Most executors of frameworks' own that an agent runs at a time.
pub const MAX_EXECUTORS: usize = 2_000;
/// Most unacknowledged statuses of one task; more are taken from its executor and dropped.
pub const MAX_UPDATES_PER_TASK: usize = 256;
/// Most corrections kept between two reports of use; the oldest are dropped.
pub const MAX_CORRECTIONS_PER_REPORT: usize = 256;
/// After this long without an answer to a registration the connection is given up, in milliseconds.
pub const REGISTRATION_TIMEOUT_MS: u64 = 10_000;
/// First wait before a status is sent again, in milliseconds. As in Mesos.
pub const UPDATE_RETRY_MIN_MS: u64 = 10_000;
/// Longest wait before a status is sent again, in milliseconds. As in Mesos.
pub const UPDATE_RETRY_MAX_MS: u64 = 600_000;
/// Wait before a forced kill that had no effect is repeated, in milliseconds.
pub const FORCED_KILL_RETRY_MS: u64 = 5_000;
/// How often the use of all tasks is reported to the master, in milliseconds.
pub const REPORT_INTERVAL_MS: u64 = 1_000;
/// After this long without a sample lending is asked whether anything may still be lent, in
/// milliseconds: just above the longest gap between samples that it puts up with.
pub const SAMPLE_STALE_MS: u64 = 1_001;
/// CPU of a frozen task that is warned before it is evicted, in thousandths of a core: enough to save its state.
pub const WARNED_CPU_MILLI: u64 = 100;
/// How long an executor may take to subscribe after its launch, in milliseconds. As in Mesos.
pub const EXECUTOR_REGISTRATION_TIMEOUT_MS: u64 = 60_000;
/// How long an executor may take to come back after a restart of the agent, in milliseconds. The
/// longest that Mesos allows, because a busy machine is no reason to end tasks.
pub const EXECUTOR_REREGISTRATION_TIMEOUT_MS: u64 = 15_000;
/// Time between the request to an executor to end and the forced end, in milliseconds. As in Mesos.
pub const EXECUTOR_SHUTDOWN_GRACE_MS: u64 = 5_000;

/// Longest grace of a task when the agent is shut down for good, in milliseconds: whoever ends the agent
/// waits for it.
pub const SHUTDOWN_GRACE_MAX_MS: u64 = 10_000;

/// What the core is told of the machine and of its limits once, at its start.
#[derive(Clone, Debug)]
pub struct CoreConfig {
    /// Host name, as the master shows it.
    pub hostname: String,
    /// Port of the agent's own API.
    pub port: u16,
    /// What the agent has, without what it lends: what its lots reserve of it included.
    pub total: Quantities,
    /// Its lots, as the settings give them.
    pub lots: Lots,
    /// Where it keeps volumes of its own disk.
    pub work_dir: String,
    /// What frameworks may choose by.
    pub attributes: Vec<Attribute>,
    /// Where it stands, if that is known.
    pub domain: Option<FaultDomain>,
    /// Ebb's version.
    pub version: String,
    /// Starts every container id, so that ids of agents on one machine differ; safe in a file name.
    pub container_prefix: String,
    /// How much slack is lent, and when it is taken back.
    pub lending: lending::Config,
}

/// What became of a container that an earlier incarnation had started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// It runs.
    Running,
    /// It has ended.
    Ended(Exit),
}

/// How a container ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Exit {
    /// Of its first process; `None` if its keeper died without leaving a record.
    pub status: Option<ExitStatus>,
    /// Whether the kernel ended a process of it because it was at its memory limit.
    pub oom: bool,
    /// The program could not be executed, and why.
    pub launch_error: Option<String>,
}

/// What happened.
#[derive(Clone, Debug)]
pub enum Input {
    /// What stands of the containers of earlier incarnations. The first input, given exactly once;
    /// what is not named is gone without a trace.
    Recovered {
        /// Each container that was found.
        containers: BTreeMap<ContainerId, Found>,
    },
    /// A connection to a master stands.
    LinkUp {
        /// Its number, larger than all before.
        conn: Conn,
    },
    /// A connection is gone.
    LinkDown {
        /// Its number.
        conn: Conn,
    },
    /// A message of the master.
    FromMaster {
        /// The connection that it came over.
        conn: Conn,
        /// The term in which the master that sent it leads.
        generation: Generation,
        /// What it says.
        message: MasterToAgent,
    },
    /// A container runs.
    Started {
        /// Which.
        container_id: ContainerId,
    },
    /// A container could not be started, or was not because of [`Effect::CancelLaunch`].
    StartFailed {
        /// Which.
        container_id: ContainerId,
        /// It was cancelled before anything was started.
        cancelled: bool,
        /// The cause, as a sentence.
        message: String,
    },
    /// A container ended; all its processes are gone.
    Exited {
        /// Which.
        container_id: ContainerId,
        /// How.
        exit: Exit,
    },
    /// One reading of all counters.
    Sample(Box<usage::Sample>),
    /// A framework's own executor speaks.
    FromExecutor {
        /// The connection that it came over, larger than all before of any executor.
        session: Session,
        /// Whose executor.
        framework_id: FrameworkId,
        /// Which.
        executor_id: ExecutorId,
        /// What it says.
        call: Box<ExecutorCall>,
    },
    /// The connection of an executor is gone.
    ExecutorGone {
        /// Its number.
        session: Session,
    },
    /// End all tasks: the agent is about to be shut down for good.
    ShutDown,
    /// Nothing but the passing of time.
    Tick,
}

/// A volume in a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VolumeMount {
    /// Where its data are; made if it is not there.
    pub folder: String,
    /// Where the container sees them, from its sandbox on.
    pub container_path: String,
    /// Whether it may only read them.
    pub read_only: bool,
    /// Whether tasks of other users may see them, too.
    pub shared: bool,
}

/// What to start in a new container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LaunchOrder {
    /// Names the container.
    pub container_id: ContainerId,
    /// Whose it is.
    pub framework_id: FrameworkId,
    /// The task that it runs; `None` for a framework's own executor.
    pub task_id: Option<TaskId>,
    /// The framework's own executor that it runs; `None` for a command task.
    pub executor_id: Option<ExecutorId>,
    /// The program.
    pub command: CommandInfo,
    /// The account to run as; empty means the agent's own.
    pub user: String,
    /// Variables of the agent's, to be set before those of the command.
    pub environment: Vec<(String, String)>,
    /// What it may use.
    pub resources: Resources,
    /// The volumes that it sees.
    pub volumes: Vec<VolumeMount>,
    /// The names of the devices that it has.
    pub devices: BTreeSet<String>,
    /// A hard ceiling on CPU in thousandths of a core.
    pub cpu_limit_milli: Option<u64>,
    /// The signal, by its number, that warns it before it is evicted.
    pub warn_signal: Option<u32>,
}

/// Something worth counting or logging.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Observation {
    /// A container runs; so long after the order came, in milliseconds.
    LaunchTook {
        /// Milliseconds.
        ms: u64,
    },
    /// A task is in a new state.
    TaskState {
        /// The task.
        key: TaskKey,
        /// The state.
        state: TaskState,
        /// The message of its status.
        message: String,
        /// The container that it runs or ran in.
        container_id: ContainerId,
        /// The framework's own executor that runs it.
        executor_id: Option<ExecutorId>,
    },
    /// The QoS controller's decision was carried out.
    Corrected(Correction),
    /// The agent is in.
    Registered {
        /// Its id.
        agent_id: AgentId,
        /// The master's term.
        generation: Generation,
    },
    /// What is lent has changed.
    Lent(Quantities),
    /// A process was killed for want of memory.
    OomKilled(account::OomKilled),
}

/// What is to be done. To be carried out in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Make these records durable before anything that follows.
    Persist(Vec<Record>),
    /// Append these records in order; nothing waits for them, and a crash may lose them.
    Note(Vec<Record>),
    /// Tell the master.
    ToMaster {
        /// The connection; if it is gone the message is dropped.
        conn: Conn,
        /// What to say.
        message: Box<AgentToMaster>,
    },
    /// Give a connection up and make a new one.
    Reconnect {
        /// The connection.
        conn: Conn,
        /// Why, as a sentence.
        reason: String,
    },
    /// The agent must end: the master will not have it.
    Stop {
        /// Why and what to do, as sentences.
        message: String,
    },
    /// Start a container; answered by [`Input::Started`] or [`Input::StartFailed`].
    Launch(Box<LaunchOrder>),
    /// If the start of a container has not begun, drop it and answer with [`Input::StartFailed`];
    /// else do nothing.
    CancelLaunch {
        /// Which.
        container_id: ContainerId,
    },
    /// Ask all processes of a container to end (SIGTERM).
    Terminate {
        /// Which.
        container_id: ContainerId,
    },
    /// Warn a container that it is about to be evicted: by a file in its sandbox, and by the signal that its launch chose.
    Warn {
        /// Which.
        container_id: ContainerId,
        /// Whether its launch chose a signal.
        signal: bool,
        /// When it is ended by force.
        ends_at: Timestamp,
        /// Why, as a sentence.
        cause: String,
    },
    /// End all processes of a container; also when it is frozen.
    KillContainer {
        /// Which.
        container_id: ContainerId,
    },
    /// Cap the CPU of a container, or lift the cap.
    Throttle {
        /// Which.
        container_id: ContainerId,
        /// Thousandths of a core; `None` goes back to what its launch said.
        cpu_milli: Option<u64>,
    },
    /// Limit the network bandwidth of a container, or lift the limit.
    LimitNetwork {
        /// Which.
        container_id: ContainerId,
        /// Bytes a second each way; `None` goes back to what it is allocated.
        bytes_per_s: Option<u64>,
    },
    /// Have the memory of a container reclaimed, or let it have that again.
    ReclaimMemory {
        /// Which.
        container_id: ContainerId,
        /// Down to so many bytes; `None` goes back to what it is allocated.
        to_bytes: Option<u64>,
    },
    /// Stop a container where it is.
    Freeze {
        /// Which.
        container_id: ContainerId,
    },
    /// Let a frozen container run again.
    Thaw {
        /// Which.
        container_id: ContainerId,
    },
    /// Set what the container of a framework's own executor may use.
    Resize {
        /// Which.
        container_id: ContainerId,
        /// What it may use from now on.
        resources: Resources,
    },
    /// Remove what is left of a container that has ended; its sandbox stays.
    Destroy {
        /// Which.
        container_id: ContainerId,
    },
    /// Remove a volume's data.
    RemoveVolume {
        /// The folder.
        folder: String,
    },
    /// Tell an executor.
    ToExecutor {
        /// The session; if it is gone the event is dropped.
        session: Session,
        /// What to say.
        event: Box<ExecutorEvent>,
    },
    /// End the session of an executor.
    DropExecutor {
        /// The session.
        session: Session,
    },
    /// Count or log this.
    Observe(Observation),
}

/// The key of an executor of a framework's own.
pub type ExecutorKey = (FrameworkId, ExecutorId);
