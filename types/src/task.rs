//! Tasks: what a framework asks to run, the states a task goes through, and what is said of it.

use crate::ids::{AgentId, ContainerId, ExecutorId, FrameworkId, TaskId, UpdateUuid};
use crate::lots::Lots;
use crate::resources::Resources;
use crate::time::Timestamp;

/// How to run a program.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CommandInfo {
    /// With `shell`, a line for `/bin/sh -c`; else the program to execute.
    pub value: String,
    /// Whether `value` is a line for the shell.
    pub shell: bool,
    /// Without `shell`, the whole argument vector, its first element included.
    pub arguments: Vec<String>,
    /// Environment; of two variables of one name the later wins.
    pub environment: Vec<(String, String)>,
    /// The account to run as; unset means the framework's user.
    pub user: Option<String>,
}

/// An executor that a framework brings itself: a program that runs tasks for it inside one container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExecutorInfo {
    /// Names it within the framework and agent.
    pub executor_id: ExecutorId,
    /// Display name.
    pub name: String,
    /// The program.
    pub command: CommandInfo,
    /// What it needs beside its tasks.
    pub resources: Resources,
    /// What else.
    pub lots: Lots,
    /// Handed to it when it subscribes.
    pub data: Vec<u8>,
}

/// What a framework asks to run on an offer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaskInfo {
    /// Chosen by the framework; unique among its live tasks.
    pub task_id: TaskId,
    /// Display name; tasks of one name are taken to be alike.
    pub name: String,
    /// The agent of the offer.
    pub agent_id: AgentId,
    /// What it is allocated.
    pub resources: Resources,
    /// What else.
    pub lots: Lots,
    /// A command to run; exactly one of this and `executor` is set.
    pub command: Option<CommandInfo>,
    /// The framework's own executor that runs it.
    pub executor: Option<ExecutorInfo>,
    /// Time between the polite and the forced kill, in milliseconds.
    pub kill_grace_ms: Option<u64>,
    /// The signal, by its number, that warns it before it is evicted; SIGTERM if unset. Neither SIGKILL nor SIGSTOP.
    pub warn_signal: Option<u32>,
    /// The task is killed and reported failed after this long, in milliseconds.
    pub max_completion_ms: Option<u64>,
    /// A hard ceiling on CPU in thousandths of a core, at least the allocation; without one a task
    /// may use idle CPU beyond its allocation.
    pub cpu_limit_milli: Option<u64>,
    /// Handed to the framework's own executor.
    pub data: Vec<u8>,
    /// Free tags.
    pub labels: Vec<(String, String)>,
}

impl TaskInfo {
    /// What it may use of each kind, reserved or not.
    pub fn usable(&self) -> Resources {
        with_lots(&self.resources, &self.lots)
    }
}

impl ExecutorInfo {
    /// What it may use of each kind, reserved or not.
    pub fn usable(&self) -> Resources {
        with_lots(&self.resources, &self.lots)
    }
}

fn with_lots(resources: &Resources, lots: &Lots) -> Resources {
    if lots.is_none() {
        return *resources;
    }
    resources.saturating_add(&Resources::regular(lots.quantities()))
}

/// The states of a task, with the names and numbers of Mesos.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(i32)]
pub enum TaskState {
    /// Being started.
    Starting = 0,
    /// Running.
    Running = 1,
    /// Ended with success.
    Finished = 2,
    /// Ended without success.
    Failed = 3,
    /// Ended because it was asked to.
    Killed = 4,
    /// For frameworks that are not partition-aware: gone or out of reach.
    Lost = 5,
    /// Accepted by the master; nothing heard of its start yet.
    Staging = 6,
    /// Never started: its description broke a rule.
    Error = 7,
    /// Being killed.
    Killing = 8,
    /// Never started; may be launched anew.
    Dropped = 9,
    /// Its agent cannot be reached; it may come back.
    Unreachable = 10,
    /// Was running and certainly is no more.
    Gone = 11,
    /// An operator said that its agent is gone.
    GoneByOperator = 12,
    /// Not known to the master; only in answers to reconciliation.
    Unknown = 13,
}

impl TaskState {
    /// Every state.
    pub const ALL: [Self; 14] = [
        Self::Starting,
        Self::Running,
        Self::Finished,
        Self::Failed,
        Self::Killed,
        Self::Lost,
        Self::Staging,
        Self::Error,
        Self::Killing,
        Self::Dropped,
        Self::Unreachable,
        Self::Gone,
        Self::GoneByOperator,
        Self::Unknown,
    ];

    /// Whether a task in this state never runs again.
    pub const fn is_terminal(self) -> bool {
        matches!(
            self,
            Self::Finished
                | Self::Failed
                | Self::Killed
                | Self::Error
                | Self::Lost
                | Self::Dropped
                | Self::Gone
                | Self::GoneByOperator
        )
    }

    /// The name as in Mesos.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Starting => "TASK_STARTING",
            Self::Running => "TASK_RUNNING",
            Self::Finished => "TASK_FINISHED",
            Self::Failed => "TASK_FAILED",
            Self::Killed => "TASK_KILLED",
            Self::Lost => "TASK_LOST",
            Self::Staging => "TASK_STAGING",
            Self::Error => "TASK_ERROR",
            Self::Killing => "TASK_KILLING",
            Self::Dropped => "TASK_DROPPED",
            Self::Unreachable => "TASK_UNREACHABLE",
            Self::Gone => "TASK_GONE",
            Self::GoneByOperator => "TASK_GONE_BY_OPERATOR",
            Self::Unknown => "TASK_UNKNOWN",
        }
    }

    /// The state of that number.
    pub fn from_number(number: i32) -> Option<Self> {
        Self::ALL.into_iter().find(|state| *state as i32 == number)
    }

    /// What a framework is told: those that are not partition-aware hear TASK_LOST instead of the
    /// states that they do not know.
    #[must_use]
    pub const fn for_framework(self, partition_aware: bool) -> Self {
        match self {
            Self::Dropped
            | Self::Unreachable
            | Self::Gone
            | Self::GoneByOperator
            | Self::Unknown
                if !partition_aware =>
            {
                Self::Lost
            }
            state => state,
        }
    }
}

/// Who made a status.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(i32)]
pub enum Source {
    /// The master.
    Master = 0,
    /// The agent.
    Agent = 1,
    /// The executor.
    Executor = 2,
}

macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident = $number:literal, $text:literal;)*) => {
        /// Why a task is in its state, with the names and numbers of Mesos.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(i32)]
        pub enum Reason { $($(#[$doc])* $name = $number,)* }

        impl Reason {
            /// Every reason.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The name as in Mesos.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }

            /// The reason of that number.
            pub fn from_number(number: i32) -> Option<Self> {
                match number { $($number => Some(Self::$name),)* _ => None }
            }
        }
    };
}

reasons! {
    /// The executor ended while the task was live.
    ExecutorTerminated = 1, "REASON_EXECUTOR_TERMINATED";
    /// Its framework was removed.
    FrameworkRemoved = 3, "REASON_FRAMEWORK_REMOVED";
    /// An offer named in the accept was not valid.
    InvalidOffers = 6, "REASON_INVALID_OFFERS";
    /// It used more memory than it may.
    ContainerLimitationMemory = 8, "REASON_CONTAINER_LIMITATION_MEMORY";
    /// An answer to reconciliation.
    Reconciliation = 9, "REASON_RECONCILIATION";
    /// Its agent was disconnected when it was to be launched.
    AgentDisconnected = 10, "REASON_AGENT_DISCONNECTED";
    /// Its agent is unreachable or was removed.
    AgentRemoved = 11, "REASON_AGENT_REMOVED";
    /// Its agent restarted before it was started.
    AgentRestarted = 12, "REASON_AGENT_RESTARTED";
    /// Its description broke a rule.
    TaskInvalid = 14, "REASON_TASK_INVALID";
    /// It ran on revocable resources, which its owner needed back.
    ContainerPreempted = 17, "REASON_CONTAINER_PREEMPTED";
    /// It asks for resources that the agent does not have.
    ResourcesUnknown = 18, "REASON_RESOURCES_UNKNOWN";
    /// It used more of something than it may.
    ContainerLimitation = 19, "REASON_CONTAINER_LIMITATION";
    /// It used more disk than it may.
    ContainerLimitationDisk = 20, "REASON_CONTAINER_LIMITATION_DISK";
    /// Its container could not be started.
    ContainerLaunchFailed = 21, "REASON_CONTAINER_LAUNCH_FAILED";
    /// Its executor did not subscribe in time.
    ExecutorRegistrationTimeout = 23, "REASON_EXECUTOR_REGISTRATION_TIMEOUT";
    /// Its executor did not come back in time after a restart of the agent.
    ExecutorReregistrationTimeout = 24, "REASON_EXECUTOR_REREGISTRATION_TIMEOUT";
    /// It was killed before it was started.
    TaskKilledDuringLaunch = 30, "REASON_TASK_KILLED_DURING_LAUNCH";
    /// An operator removed its agent.
    AgentRemovedByOperator = 31, "REASON_AGENT_REMOVED_BY_OPERATOR";
    /// Its agent came back.
    AgentReregistered = 32, "REASON_AGENT_REREGISTERED";
    /// It ran longer than it may.
    MaxCompletionTimeReached = 33, "REASON_MAX_COMPLETION_TIME_REACHED";
    /// Its agent is being drained.
    AgentDraining = 34, "REASON_AGENT_DRAINING";
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ExitStatus {
    /// It exited with this code.
    Code(i32),
    /// This signal ended it.
    Signal(i32),
}

impl ExitStatus {
    /// Whether it is exit code 0.
    pub const fn is_success(self) -> bool {
        matches!(self, Self::Code(0))
    }

    /// The sentence that Mesos' command executor puts into its last status.
    pub fn sentence(self) -> String {
        match self {
            Self::Code(code) => format!("Command exited with status {code}"),
            Self::Signal(signal) => format!("Command terminated with signal {signal}"),
        }
    }
}

/// Which limit a task broke.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limitation {
    /// The resources whose limit was exceeded.
    pub resources: Resources,
}

/// What is said of a task at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaskStatus {
    /// The task.
    pub task_id: TaskId,
    /// Its state.
    pub state: TaskState,
    /// Who says so.
    pub source: Source,
    /// Why.
    pub reason: Option<Reason>,
    /// For people.
    pub message: String,
    /// Where it runs or ran.
    pub agent_id: Option<AgentId>,
    /// The framework's own executor that runs it.
    pub executor_id: Option<ExecutorId>,
    /// The container it runs in.
    pub container_id: Option<ContainerId>,
    /// When this was found.
    pub timestamp: Timestamp,
    /// Names the update for its acknowledgement; statuses that the master makes have none and must
    /// not be acknowledged.
    pub uuid: Option<UpdateUuid>,
    /// How its process ended.
    pub exit: Option<ExitStatus>,
    /// Which limit it broke.
    pub limitation: Option<Limitation>,
    /// From the framework's own executor.
    pub data: Vec<u8>,
}

impl TaskStatus {
    /// A status with nothing but the necessary.
    pub fn new(task_id: TaskId, state: TaskState, source: Source, timestamp: Timestamp) -> Self {
        Self {
            task_id,
            state,
            source,
            reason: None,
            message: String::new(),
            agent_id: None,
            executor_id: None,
            container_id: None,
            timestamp,
            uuid: None,
            exit: None,
            limitation: None,
            data: Vec::new(),
        }
    }
}

/// Names a task in the whole cluster.
pub type TaskKey = (FrameworkId, TaskId);
