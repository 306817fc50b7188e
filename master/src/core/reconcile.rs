//! Reconciliation: what the master knows of tasks, told on demand.
//!
//! Explicit, for each task named: its last told state; else, by what is known of its agent: GONE on
//! a registered one, UNREACHABLE on an unreachable one, no answer while an agent that may hold it
//! has yet to come back, UNKNOWN otherwise. Implicit: every task that is not ended. Answers come
//! from the master with the reason RECONCILIATION and carry no uuid.

use ebb_types::{
    AgentId, FrameworkId, Reason, ReconcileTask, Source, TaskId, TaskState, TaskStatus,
};

use super::state::{Absence, Core};
use super::task::Task;

impl Core {
    pub(super) fn reconcile(&mut self, framework_id: &FrameworkId, tasks: Vec<ReconcileTask>) {
        if !tasks.is_empty() {
            for task in tasks {
                self.answer_reconcile(framework_id, &task.task_id, task.agent_id.as_ref());
            }
            return;
        }
        let Some(framework) = self.frameworks.get(framework_id) else {
            return;
        };
        let answers: Vec<TaskStatus> = framework
            .tasks
            .iter()
            .chain(framework.unreachable.iter())
            .map(|(task_id, task)| self.answer(task_id, task))
            .collect();
        for status in answers {
            self.tell(framework_id, status);
        }
    }

    pub(super) fn answer_reconcile(
        &mut self,
        framework_id: &FrameworkId,
        task_id: &TaskId,
        agent_id: Option<&AgentId>,
    ) {
        let Some(framework) = self.frameworks.get(framework_id) else {
            return;
        };
        let known = framework
            .tasks
            .get(task_id)
            .or_else(|| framework.unreachable.get(task_id));
        let status = match known {
            Some(task) => self.answer(task_id, task),
            None => {
                let Some(state) = self.state_by_agent(agent_id) else {
                    return;
                };
                let mut status = self.blank_answer(task_id, state);
                status.agent_id = agent_id.cloned();
                status
            }
        };
        self.tell(framework_id, status);
    }

    /// What can be said of a task that is not known, by where it is believed to be.
    fn state_by_agent(&self, agent_id: Option<&AgentId>) -> Option<TaskState> {
        match agent_id {
            Some(id) if self.agents.contains_key(id) => Some(TaskState::Gone),
            Some(id) => match self.absent.get(id).map(|absent| absent.absence) {
                Some(Absence::Recovered { .. }) => None,
                Some(Absence::Unreachable { .. }) => Some(TaskState::Unreachable),
                None => Some(TaskState::Unknown),
            },
            None if self.awaited > 0 => None,
            None => Some(TaskState::Unknown),
        }
    }

    fn answer(&self, task_id: &TaskId, task: &Task) -> TaskStatus {
        let mut status = self.blank_answer(task_id, task.told_state());
        status.agent_id = Some(task.agent_id.clone());
        status.executor_id.clone_from(&task.executor_id);
        status.container_id.clone_from(&task.container_id);
        status
    }

    fn blank_answer(&self, task_id: &TaskId, state: TaskState) -> TaskStatus {
        let mut status = TaskStatus::new(task_id.clone(), state, Source::Master, self.now);
        status.reason = Some(Reason::Reconciliation);
        status.message = String::from("Reconciliation: the latest state that was told");
        status
    }
}
