//! How agents become unreachable: they were silent for too long, or did not come back after a start
//! of the master. Durable before anybody hears of it.

use std::collections::BTreeSet;

use ebb_types::{AgentId, FrameworkId, Reason, Source, TaskId, TaskState, TaskStatus};

use super::input::Effect;
use super::limits::{MAX_ABSENT_AGENTS, MAX_UNREACHABLE_TASKS_PER_FRAMEWORK};
use super::news::News;
use super::record::{AgentRecord, RegistryWrite};
use super::state::{Absence, AbsentAgent, Core};
use super::timers::Deadline;

impl Core {
    pub(super) fn silence_due(&mut self, id: &AgentId) {
        let Some(agent) = self.agents.get_mut(id) else {
            return;
        };
        let due = agent.last_heard.plus_ms(self.config.unreachable_after_ms);
        if agent.silence_at > self.now {
            return;
        }
        if due > self.now {
            agent.silence_at = due;
            self.set_timer(due, Deadline::Silence(id.clone()));
        } else {
            self.mark_unreachable(id);
        }
    }

    /// An agent from the registry did not come back.
    pub(super) fn recovery_due(&mut self, id: &AgentId) {
        let Some(absent) = self.absent.get_mut(id) else {
            return;
        };
        if !matches!(absent.absence, Absence::Recovered { .. }) {
            return;
        }
        absent.absence = Absence::Unreachable { since: self.now };
        let record = absent.record();
        self.awaited -= 1;
        self.counters.agents_unreachable += 1;
        self.emit(Effect::Persist(vec![RegistryWrite::PutAgent(record)]));
        self.tell_adrift(id);
        self.tell_failure(id);
        self.agent_changed(id);
    }

    fn mark_unreachable(&mut self, id: &AgentId) {
        let Some(agent) = self.agents.get(id) else {
            return;
        };
        let record = AgentRecord {
            info: (*agent.info).clone(),
            registered_at: agent.registered_at,
            unreachable_since: Some(self.now),
            activity: agent.activity,
        };
        let tasks: Vec<_> = agent.tasks.iter().cloned().collect();
        let mut writes = vec![RegistryWrite::PutAgent(record)];
        writes.extend(self.forget_oldest_absent());
        self.emit(Effect::Persist(writes));
        self.counters.agents_unreachable += 1;
        self.leave_connection(id, None);
        for (framework_id, task_id) in tasks {
            self.strand(&framework_id, &task_id);
        }
        self.drop_executors(id, &BTreeSet::new());
        self.end_all_remains(id);
        self.maintenance.touch(id);
        self.forget_lots(id);
        if let Some(agent) = self.agents.remove(id) {
            debug_assert!(
                agent.holding.is_zero() && agent.lots.is_none(),
                "{id} still holds {:?}",
                agent.holding
            );
            let absent = AbsentAgent {
                info: agent.info,
                registered_at: agent.registered_at,
                incarnation: Some(agent.incarnation),
                activity: agent.activity,
                absence: Absence::Unreachable { since: self.now },
            };
            self.absent.insert(id.clone(), absent);
            self.set_adrift(id, agent.lots);
        }
        self.roles.remove_agent(id);
        self.changed = true;
        self.tell_failure(id);
        self.agent_changed(id);
    }

    /// Makes room for one more absent agent.
    fn forget_oldest_absent(&mut self) -> Option<RegistryWrite> {
        if self.absent.len() < MAX_ABSENT_AGENTS {
            return None;
        }
        let oldest = self
            .absent
            .iter()
            .filter_map(|(id, absent)| match absent.absence {
                Absence::Unreachable { since } => Some((since, id.clone())),
                Absence::Recovered { .. } => None,
            })
            .min()?;
        self.absent.remove(&oldest.1);
        self.forget_adrift(&oldest.1);
        self.counters.classes_dropped += self.classes.forget(&oldest.1);
        self.note(|| News::AgentGone(oldest.1.clone()));
        self.counters.forgotten += 1;
        Some(RegistryWrite::RemoveAgent(oldest.1))
    }

    /// A task of an agent that became unreachable: it may still run.
    fn strand(&mut self, framework_id: &FrameworkId, task_id: &TaskId) {
        let task = self
            .frameworks
            .get(framework_id)
            .and_then(|framework| framework.tasks.get(task_id));
        let Some(task) = task else { return };
        if task.state.is_terminal() {
            // Its end is not acknowledged yet; the agent will say it again when it comes back.
            self.put_aside(framework_id, task_id);
            return;
        }
        self.advance(framework_id, task_id, TaskState::Unreachable);
        let mut status = TaskStatus::new(
            task_id.clone(),
            TaskState::Unreachable,
            Source::Master,
            self.now,
        );
        status.reason = Some(Reason::AgentRemoved);
        status.message = String::from("The agent cannot be reached; the task may still run");
        let task = self
            .frameworks
            .get_mut(framework_id)
            .and_then(|framework| framework.tasks.get_mut(task_id));
        let Some(task) = task else { return };
        status.agent_id = Some(task.agent_id.clone());
        status.executor_id.clone_from(&task.executor_id);
        task.told = Some(TaskState::Unreachable);
        task.unacknowledged = None;
        task.remember(status.clone());
        self.put_aside(framework_id, task_id);
        self.tell(framework_id, status);
    }

    /// Moves a task to those on unreachable agents.
    fn put_aside(&mut self, framework_id: &FrameworkId, task_id: &TaskId) {
        let Some(framework) = self.frameworks.get_mut(framework_id) else {
            return;
        };
        let Some(task) = framework.tasks.remove(task_id) else {
            return;
        };
        if let Some(agent) = self.agents.get_mut(&task.agent_id) {
            agent.tasks.remove(&(framework_id.clone(), task_id.clone()));
        }
        let news = self
            .observed
            .then(|| task.news(framework_id, task_id, false));
        let bound = MAX_UNREACHABLE_TASKS_PER_FRAMEWORK;
        let forgotten = framework.unreachable.push(task_id.clone(), task, bound);
        self.news.extend(news);
        if let Some(forgotten) = forgotten {
            self.counters.forgotten += 1;
            self.note(|| News::TaskGone(framework_id.clone(), forgotten));
        }
    }
}
