//! The executor API: what a framework's own executor tells the agent, and what it hears.
//!
//! The semantics are those of the Mesos v1 executor API.

use crate::ids::{AgentId, ContainerId, ExecutorId, FrameworkId, TaskId, UpdateUuid};
use crate::task::{ExecutorInfo, TaskInfo, TaskStatus};

/// What a framework's own executor tells its agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ExecutorCall {
    /// It is ready; the first call on a stream.
    Subscribe {
        /// Whose executor.
        framework_id: FrameworkId,
        /// Which.
        executor_id: ExecutorId,
        /// Tasks that it was given and that it has not had an acknowledged status of.
        unacknowledged_tasks: Vec<TaskId>,
        /// Statuses that the agent has not acknowledged.
        unacknowledged_updates: Vec<TaskStatus>,
    },
    /// The state of one of its tasks; its uuid is made by the executor.
    Update(TaskStatus),
    /// Bytes for its scheduler; may be lost.
    Message(Vec<u8>),
}

/// What a framework's own executor hears from its agent.
#[allow(
    clippy::large_enum_variant,
    reason = "the large one is said once a session, and events are not kept"
)]
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ExecutorEvent {
    /// It is in; the first event on a stream.
    Subscribed {
        /// What its framework asked for.
        executor: ExecutorInfo,
        /// Where it runs.
        agent_id: AgentId,
        /// What it runs in.
        container_id: ContainerId,
    },
    /// Run this.
    Launch(Box<TaskInfo>),
    /// End this.
    Kill {
        /// The task.
        task_id: TaskId,
        /// Time between the polite and the forced end, in milliseconds.
        grace_ms: u64,
    },
    /// The agent has the status on disk.
    Acknowledged {
        /// The task.
        task_id: TaskId,
        /// The status.
        uuid: UpdateUuid,
    },
    /// Bytes from its scheduler.
    Message(Vec<u8>),
    /// End all tasks, then yourself.
    Shutdown,
    /// The stream ends after this, and why.
    Error(String),
}
