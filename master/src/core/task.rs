//! A task as the master remembers it.
//!
//! Invariant: a task's resources are counted as allocated on its agent exactly while its state is
//! neither terminal nor unreachable; [`Task::holds`] is the one place that says so.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use ebb_types::{
    AgentId, ContainerId, ExecutorId, FrameworkId, Lots, Resources, Role, TaskId, TaskRecord,
    TaskState, TaskStatus, UpdateUuid,
};

use super::claims::Seat;
use super::limits::MAX_STATUSES_PER_TASK;

/// A task.
#[derive(Clone, Debug)]
pub(super) struct Task {
    pub(super) agent_id: AgentId,
    pub(super) role: Role,
    /// Its framework in its role, as the book of claims knows it, while it holds something.
    pub(super) seat: Option<Seat>,
    pub(super) name: Arc<str>,
    pub(super) resources: Resources,
    /// What is counted of its lots.
    pub(super) lots: Lots,
    /// Its own time between the polite and the forced kill, in milliseconds.
    pub(super) kill_grace_ms: Option<u64>,
    /// The latest state that the agent has told, or that the master has given it.
    pub(super) state: TaskState,
    /// The state that its framework was told last.
    pub(super) told: Option<TaskState>,
    pub(super) executor_id: Option<ExecutorId>,
    pub(super) container_id: Option<ContainerId>,
    pub(super) statuses: VecDeque<Arc<TaskStatus>>,
    /// The status that its framework has yet to acknowledge.
    pub(super) unacknowledged: Option<Arc<TaskStatus>>,
    /// Whether its agent has ever spoken of it.
    pub(super) confirmed: bool,
}

impl Task {
    /// Whether its resources are allocated on its agent.
    pub(super) const fn holds(&self) -> bool {
        holds(self.state)
    }

    pub(super) fn remember(&mut self, status: impl Into<Arc<TaskStatus>>) {
        let status = status.into();
        // A repetition of the newest status is no news.
        if status.uuid.is_some()
            && self
                .statuses
                .back()
                .is_some_and(|last| last.uuid == status.uuid)
        {
            return;
        }
        if self.statuses.len() >= MAX_STATUSES_PER_TASK {
            self.statuses.pop_front();
        }
        if status.container_id.is_some() {
            self.container_id.clone_from(&status.container_id);
        }
        self.statuses.push_back(status);
    }

    /// The state that reconciliation answers with: what the framework was told last.
    pub(super) fn told_state(&self) -> TaskState {
        self.told.unwrap_or(self.state)
    }

    pub(super) fn awaits(&self, uuid: UpdateUuid) -> bool {
        self.unacknowledged
            .as_ref()
            .is_some_and(|status| status.uuid == Some(uuid))
    }

    pub(super) fn record(&self, framework_id: &FrameworkId, task_id: &TaskId) -> TaskRecord {
        TaskRecord {
            framework_id: framework_id.clone(),
            task_id: task_id.clone(),
            name: self.name.to_string(),
            agent_id: self.agent_id.clone(),
            role: self.role.clone(),
            resources: self.resources,
            lots: self.lots.clone(),
            state: self.state,
            executor_id: self.executor_id.clone(),
            container_id: self.container_id.clone(),
            statuses: self.statuses.iter().map(|one| (**one).clone()).collect(),
        }
    }
}

/// Whether a task in that state has its resources allocated on its agent.
pub(crate) const fn holds(state: TaskState) -> bool {
    !state.is_terminal() && !matches!(state, TaskState::Unreachable)
}

/// Whether an agent may say that a task is in that state; only the master can find the others.
pub(super) const fn is_of_agents(state: TaskState) -> bool {
    !matches!(state, TaskState::Unreachable | TaskState::Unknown)
}

/// Tasks in the order in which they came, the oldest of which are forgotten beyond a bound.
#[derive(Clone, Debug, Default)]
pub(super) struct Remembered {
    tasks: BTreeMap<TaskId, (u64, Task)>,
    order: BTreeMap<u64, TaskId>,
    next: u64,
}

impl Remembered {
    /// Adds a task; the older one that was forgotten for it.
    pub(super) fn push(&mut self, task_id: TaskId, task: Task, bound: usize) -> Option<TaskId> {
        self.take(&task_id);
        self.order.insert(self.next, task_id.clone());
        self.tasks.insert(task_id, (self.next, task));
        self.next += 1;
        if self.tasks.len() <= bound {
            return None;
        }
        let (_, oldest) = self.order.pop_first()?;
        self.tasks.remove(&oldest);
        Some(oldest)
    }

    pub(super) fn get(&self, task_id: &TaskId) -> Option<&Task> {
        self.tasks.get(task_id).map(|(_, task)| task)
    }

    pub(super) fn take(&mut self, task_id: &TaskId) -> Option<Task> {
        let (number, task) = self.tasks.remove(task_id)?;
        self.order.remove(&number);
        Some(task)
    }

    pub(super) fn contains(&self, task_id: &TaskId) -> bool {
        self.tasks.contains_key(task_id)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&TaskId, &Task)> {
        self.tasks.iter().map(|(id, (_, task))| (id, task))
    }
}
