//! The executor side of the SDK: for frameworks that bring their own program to run their tasks in one
//! container, as threads, closures or whatever they like.
//!
//! The agent starts the program and hands it a socket; [`run_executor`] connects, takes launches and
//! kills, and delivers what the program says of its tasks, through restarts of the agent, until the
//! agent has it on disk.

mod driver;
mod handle;
mod session;

pub use driver::{ExecutorConfig, ExecutorError, run_executor};
pub use handle::{ExecutorHandle, TooMany};
pub use session::{ExecutorSession, SessionInput, SessionOutput};

use ebb_types::{AgentId, ContainerId, TaskId, TaskInfo};

/// The agent's socket, in the environment of an executor.
pub const ENV_SOCKET: &str = "EBB_AGENT_SOCKET";
/// The framework's id, in the environment of an executor.
pub const ENV_FRAMEWORK_ID: &str = "EBB_FRAMEWORK_ID";
/// The executor's id, in the environment of an executor.
pub const ENV_EXECUTOR_ID: &str = "EBB_EXECUTOR_ID";

/// What the agent said when it took the subscription.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExecutorSubscribed {
    /// Where the executor runs.
    pub agent_id: AgentId,
    /// What it runs in.
    pub container_id: ContainerId,
    /// What its framework handed it.
    pub data: Vec<u8>,
    /// Whether there was a subscription before in this process' life.
    pub again: bool,
}

/// A framework's own executor. Callbacks are made one at a time and should return within
/// milliseconds; tasks run elsewhere, and say how they are through the handle.
pub trait Executor: Send {
    /// The subscription stands, for the first time or anew.
    fn subscribed(&mut self, _handle: &ExecutorHandle, _subscribed: &ExecutorSubscribed) {}

    /// Run a task. Its state is told with [`ExecutorHandle::update`], a terminal one at the end.
    fn launch(&mut self, handle: &ExecutorHandle, task: TaskInfo);

    /// End a task: politely, and by force after the grace.
    fn kill(&mut self, handle: &ExecutorHandle, task_id: &TaskId, grace_ms: u64);

    /// Bytes from the framework's scheduler.
    fn message(&mut self, _handle: &ExecutorHandle, _data: &[u8]) {}

    /// End all tasks. What is said of them within the agent's grace is still delivered; then the
    /// executor ends.
    fn shutdown(&mut self, _handle: &ExecutorHandle) {}

    /// The agent is gone; it may come back.
    fn disconnected(&mut self) {}
}
