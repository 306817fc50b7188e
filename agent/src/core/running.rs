//! A running task as estimator, QoS controller and the book of classes see it.

use ebb_types::{ContainerId, FrameworkId, Resources, TaskId, Timestamp};

use super::siblings::Siblings;

/// One running task. A container with several tasks is given as one, with the sum
/// of what is allocated to them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunningView {
    /// Its container.
    pub container_id: ContainerId,
    /// Whose it is.
    pub framework_id: FrameworkId,
    /// The task.
    pub task_id: TaskId,
    /// What it is allocated. It is revocable when any of it is.
    pub allocated: Resources,
    /// A hard ceiling on its CPU, in thousandths of a core.
    pub cpu_limit_milli: Option<u64>,
    /// When it started.
    pub started_at: Timestamp,
    /// When it will have ended, at the latest; `None` where nobody said.
    pub ends_at: Option<Timestamp>,
    /// What was known of others of its class when it began; `None` where nothing was.
    pub siblings: Option<Siblings>,
}
