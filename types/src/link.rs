//! The agent link: what an agent tells the master, and what the master orders.
//!
//! Every message of an agent carries its incarnation and every message of the master its generation
//! (in the envelope that the transport adds); the receiver refuses older ones, so that a message
//! that was delayed, duplicated or reordered is harmless.

use crate::advice::ClassUse;
use crate::ids::{
    AgentId, ContainerId, ExecutorId, FrameworkId, Generation, Incarnation, TaskId, UpdateUuid,
};
use crate::limits::MAX_ID_BYTES;
use crate::lots::Lots;
use crate::quantities::Quantities;
use crate::resources::Resources;
use crate::task::{ExecutorInfo, TaskInfo, TaskState, TaskStatus};
use crate::usage::AgentUsage;

/// The value of an attribute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AttributeValue {
    /// A number with three decimals, in thousandths.
    ScalarMilli(i64),
    /// A text.
    Text(String),
}

/// A property of an agent that frameworks may choose by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attribute {
    /// Its name.
    pub name: String,
    /// Its value.
    pub value: AttributeValue,
}

/// Where a machine stands: what fails together. As in Mesos.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct FaultDomain {
    /// The region; between regions the network is slow.
    pub region: String,
    /// The zone within the region; within it the network is fast.
    pub zone: String,
}

/// A text that is no [`FaultDomain`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("write a region and a zone of 1 to {MAX_ID_BYTES} bytes each, like eu-west/eu-west-1a")]
pub struct InvalidDomain;

impl std::str::FromStr for FaultDomain {
    type Err = InvalidDomain;

    fn from_str(text: &str) -> Result<Self, InvalidDomain> {
        let (region, zone) = text.split_once('/').ok_or(InvalidDomain)?;
        let is_good = |part: &str| {
            (1..=MAX_ID_BYTES).contains(&part.len())
                && !part.contains(|c: char| c.is_control() || c.is_whitespace() || c == '/')
        };
        if !is_good(region) || !is_good(zone) {
            return Err(InvalidDomain);
        }
        Ok(Self {
            region: region.to_owned(),
            zone: zone.to_owned(),
        })
    }
}

impl std::fmt::Display for FaultDomain {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.region, self.zone)
    }
}

/// What an agent says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentInfo {
    /// Unset on the first registration.
    pub id: Option<AgentId>,
    /// Its host name.
    pub hostname: String,
    /// Where its own API listens; people and tools reach it at `hostname:port`.
    pub port: u16,
    /// What it has, without what it lends and without lots.
    pub total: Quantities,
    /// Its lots as they are now, those that frameworks and operators have made included.
    pub lots: Lots,
    /// The last order about lots that it has carried out.
    pub lots_version: u64,
    /// Its properties.
    pub attributes: Vec<Attribute>,
    /// Ebb's version.
    pub version: String,
    /// Where it stands, if that is known.
    pub domain: Option<FaultDomain>,
}

/// A task that an agent has when it registers anew.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunningTask {
    /// Whose it is.
    pub framework_id: FrameworkId,
    /// What was asked for.
    pub info: TaskInfo,
    /// Its latest state on the agent, which the master may not have heard of yet.
    pub state: TaskState,
    /// The container it runs in, once it has one.
    pub container_id: Option<ContainerId>,
}

/// An executor of a framework's own that an agent has when it registers anew.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunningExecutor {
    /// Whose it is.
    pub framework_id: FrameworkId,
    /// What was asked for.
    pub info: ExecutorInfo,
}

/// What an agent tells the master.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AgentToMaster {
    /// Joins the cluster; the first message of a new agent.
    Register {
        /// Who joins.
        info: AgentInfo,
        /// Its present life.
        incarnation: Incarnation,
    },
    /// Comes back with what it has; the first message of a known agent on every connection.
    Reregister {
        /// Who comes back; its id is set.
        info: AgentInfo,
        /// Its present life.
        incarnation: Incarnation,
        /// Everything that is not terminal and acknowledged.
        tasks: Vec<RunningTask>,
        /// Every executor of frameworks' own.
        executors: Vec<RunningExecutor>,
        /// What it lends in all, in use and not.
        oversubscribed: Quantities,
    },
    /// It lives.
    Heartbeat,
    /// The oldest status of a task that is not acknowledged yet.
    Update {
        /// Whose task.
        framework_id: FrameworkId,
        /// The status, with a uuid.
        status: TaskStatus,
        /// The newest state, which may be later than the status'.
        latest_state: TaskState,
    },
    /// What it lends in all from now on, in use and not: an absolute figure.
    Oversubscribed(Quantities),
    /// What it measures.
    Usage(AgentUsage),
    /// What it has seen of some classes of tasks: absolute, as of now by its own clock; at most
    /// [`crate::limits::MAX_CLASSES_PER_REPORT`].
    Classes(Vec<ClassUse>),
    /// Bytes from a framework's own executor.
    Message {
        /// Whose executor.
        framework_id: FrameworkId,
        /// The executor.
        executor_id: ExecutorId,
        /// The bytes.
        data: Vec<u8>,
    },
    /// It has carried out orders about lots up to this one.
    LotsApplied {
        /// The version of the order.
        version: u64,
    },
    /// A framework's own executor has ended.
    ExecutorExited {
        /// Whose executor.
        framework_id: FrameworkId,
        /// The executor.
        executor_id: ExecutorId,
        /// How its process ended, as a wait status; -1 when that is not known.
        status: i32,
    },
}

/// What the master orders an agent to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MasterToAgent {
    /// The agent is in.
    Registered {
        /// Its id from now on.
        agent_id: AgentId,
        /// The term in which the master leads.
        generation: Generation,
        /// How often either side says at least something, in milliseconds.
        heartbeat_interval_ms: u64,
        /// How long the agent may stay silent before it counts as unreachable, in milliseconds.
        unreachable_after_ms: u64,
    },
    /// The agent may not join; it must not try again as it is.
    Refused {
        /// Why, and what to do.
        message: String,
    },
    /// The master lives.
    Heartbeat,
    /// Run a task.
    Launch {
        /// Whose it is.
        framework_id: FrameworkId,
        /// The account that it runs as unless it says otherwise.
        user: String,
        /// The incarnation of the agent that the order is for.
        incarnation: Incarnation,
        /// What to run.
        task: Box<TaskInfo>,
    },
    /// End a task.
    Kill {
        /// Whose it is.
        framework_id: FrameworkId,
        /// The task.
        task_id: TaskId,
        /// Overrides the task's own grace, in milliseconds.
        grace_ms: Option<u64>,
    },
    /// A framework has a status; the next may be sent.
    Acknowledge {
        /// Whose task.
        framework_id: FrameworkId,
        /// The task.
        task_id: TaskId,
        /// The status.
        uuid: UpdateUuid,
    },
    /// End everything of a framework that is no more.
    ShutdownFramework {
        /// The framework.
        framework_id: FrameworkId,
    },
    /// End one executor of a framework's own.
    ShutdownExecutor {
        /// Whose it is.
        framework_id: FrameworkId,
        /// The executor.
        executor_id: ExecutorId,
    },
    /// What is reserved and which volumes there are from now on, in full.
    Lots {
        /// Larger than that of any order before.
        version: u64,
        /// All lots that are not as the agent's settings give them.
        dynamic: Lots,
    },
    /// Bytes for a framework's own executor.
    Message {
        /// Whose executor.
        framework_id: FrameworkId,
        /// The executor.
        executor_id: ExecutorId,
        /// The bytes.
        data: Vec<u8>,
    },
}

impl RunningTask {
    /// What it holds on the agent.
    pub const fn resources(&self) -> Resources {
        self.info.resources
    }
}
