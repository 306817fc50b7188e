//! What must survive a crash of the agent, and how it is read back.
//!
//! [`Restored`] is the fold of all [`Record`]s in order. The journal replays them, the simulator keeps
//! them as its disk; both call [`Restored::apply`], so they cannot disagree.

use std::collections::BTreeMap;

use ebb_types::{
    AgentId, ContainerId, ExecutorId, ExecutorInfo, FrameworkId, Generation, Lots, TaskId,
    TaskInfo, TaskKey, TaskState, TaskStatus, Timestamp, UpdateUuid,
};

use super::ExecutorKey;

/// Why the agent ends a task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EndCause {
    /// Its framework asked for it.
    Killed,
    /// Its owner needed the resources back that it had been lent; the cause as a sentence.
    Evicted(String),
    /// It ran longer than it may.
    MaxCompletion,
    /// Its framework is no more: nobody will acknowledge anything of it.
    FrameworkRemoved,
    /// Its executor was asked to end.
    ExecutorShutdown,
    /// The agent is shut down for good.
    AgentShutdown,
}

/// The end of a task or executor that the agent brings about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ending {
    /// Why.
    pub cause: EndCause,
    /// When force is used.
    pub forced_at: Timestamp,
}

/// A task as it stands on disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaskRecord {
    /// Whose it is.
    pub framework_id: FrameworkId,
    /// The account of the framework.
    pub user: String,
    /// What was asked for.
    pub info: TaskInfo,
    /// The container that it runs in.
    pub container_id: ContainerId,
    /// Its latest state.
    pub state: TaskState,
    /// When it began to run.
    pub started_at: Option<Timestamp>,
    /// Why the agent ends it, if it does.
    pub ending: Option<Ending>,
    /// Its statuses that are not acknowledged, oldest first.
    pub updates: Vec<TaskStatus>,
    /// The GPUs that its container has.
    pub gpus: Vec<u32>,
}

impl TaskRecord {
    /// Names it.
    pub fn key(&self) -> TaskKey {
        (self.framework_id.clone(), self.info.task_id.clone())
    }

    /// Takes a new status into account.
    fn take(&mut self, status: TaskStatus) {
        self.state = status.state;
        if status.state == TaskState::Running && self.started_at.is_none() {
            self.started_at = Some(status.timestamp);
        }
        self.updates.push(status);
    }

    /// Nothing of it is left to be told.
    fn is_over(&self) -> bool {
        self.state.is_terminal() && self.updates.is_empty()
    }
}

/// An executor of a framework's own as it stands on disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExecutorRecord {
    /// Whose it is.
    pub framework_id: FrameworkId,
    /// The account of the framework.
    pub user: String,
    /// What was asked for.
    pub info: ExecutorInfo,
    /// The container that it runs in.
    pub container_id: ContainerId,
    /// Whether it was seen to run.
    pub started: bool,
    /// Why the agent ends it, if it does.
    pub ending: Option<Ending>,
    /// The GPUs that its container has.
    pub gpus: Vec<u32>,
}

impl ExecutorRecord {
    /// Names it.
    pub fn key(&self) -> ExecutorKey {
        (self.framework_id.clone(), self.info.executor_id.clone())
    }
}

/// One change of what is on disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// The master has named the agent.
    AgentId(AgentId),
    /// The latest term of a master that the agent has heard.
    Generation(Generation),
    /// A task, in full.
    Task(Box<TaskRecord>),
    /// A status was added to a task.
    Update {
        /// Whose task.
        framework_id: FrameworkId,
        /// The status.
        status: TaskStatus,
    },
    /// The oldest status of a task was acknowledged.
    Acknowledged {
        /// Whose task.
        framework_id: FrameworkId,
        /// The task.
        task_id: TaskId,
        /// The status.
        uuid: UpdateUuid,
    },
    /// The agent ends a task.
    Ending {
        /// Whose task.
        framework_id: FrameworkId,
        /// The task.
        task_id: TaskId,
        /// Why and when.
        ending: Ending,
    },
    /// A task is forgotten without waiting for acknowledgements, as its framework is no more.
    Forgotten {
        /// Whose task.
        framework_id: FrameworkId,
        /// The task.
        task_id: TaskId,
    },
    /// An executor, in full.
    Executor(Box<ExecutorRecord>),
    /// What was made of the agent's lots, in full.
    Lots {
        /// The version of the order.
        version: u64,
        /// What it made.
        dynamic: Lots,
    },
    /// An executor has ended.
    ExecutorForgotten {
        /// Whose it was.
        framework_id: FrameworkId,
        /// Which.
        executor_id: ExecutorId,
    },
}

/// Everything that was on disk when the agent started.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Restored {
    /// The agent's id, once it has one.
    pub agent_id: Option<AgentId>,
    /// The latest term of a master that it has heard.
    pub generation: Generation,
    /// Its tasks.
    pub tasks: BTreeMap<TaskKey, TaskRecord>,
    /// What was made of its lots by orders.
    pub lots: Lots,
    /// The version of the last of them.
    pub lots_version: u64,
    /// Executors of frameworks' own.
    pub executors: BTreeMap<ExecutorKey, ExecutorRecord>,
}

impl Restored {
    /// Takes one more record into account. Records of what is not known change nothing.
    pub fn apply(&mut self, record: Record) {
        match record {
            Record::AgentId(id) => self.agent_id = Some(id),
            Record::Generation(generation) => self.generation = generation,
            Record::Task(task) => {
                self.tasks.insert(task.key(), *task);
            }
            Record::Update {
                framework_id,
                status,
            } => {
                if let Some(task) = self.tasks.get_mut(&(framework_id, status.task_id.clone())) {
                    task.take(status);
                }
            }
            Record::Acknowledged {
                framework_id,
                task_id,
                uuid,
            } => self.acknowledge((framework_id, task_id), uuid),
            Record::Ending {
                framework_id,
                task_id,
                ending,
            } => {
                if let Some(task) = self.tasks.get_mut(&(framework_id, task_id)) {
                    task.ending = Some(ending);
                }
            }
            Record::Forgotten {
                framework_id,
                task_id,
            } => {
                self.tasks.remove(&(framework_id, task_id));
            }
            Record::Lots { version, dynamic } => {
                self.lots = dynamic;
                self.lots_version = version;
            }
            Record::Executor(executor) => {
                self.executors.insert(executor.key(), *executor);
            }
            Record::ExecutorForgotten {
                framework_id,
                executor_id,
            } => {
                self.executors.remove(&(framework_id, executor_id));
            }
        }
    }

    fn acknowledge(&mut self, key: TaskKey, uuid: UpdateUuid) {
        let Some(task) = self.tasks.get_mut(&key) else {
            return;
        };
        if task
            .updates
            .first()
            .is_some_and(|status| status.uuid == Some(uuid))
        {
            task.updates.remove(0);
        }
        if task.is_over() {
            self.tasks.remove(&key);
        }
    }
}
