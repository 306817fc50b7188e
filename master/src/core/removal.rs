//! The end of a framework: its tasks are killed, its offers taken back, its id never taken again.

use std::collections::BTreeSet;

use ebb_types::{
    AgentId, FrameworkId, MasterToAgent, Reason, Resources, Role, Source, TaskId, TaskState,
    TaskStatus,
};

use super::claims::Seat;
use super::input::Effect;
use super::limits::{MAX_COMPLETED_FRAMEWORKS, MAX_COMPLETED_TASKS_PER_FRAMEWORK};
use super::news::News;
use super::record::RegistryWrite;
use super::remains::Runner;
use super::state::{CompletedFramework, Core, Part};
use super::task::Task;
use super::timers::Deadline;
use crate::ledger::Transition;

impl Core {
    pub(super) fn remove_framework(&mut self, id: &FrameworkId, why: &str) {
        if !self.frameworks.contains_key(id) {
            return;
        }
        self.persist_completion(id);
        self.take_back_offers(id);
        self.forget_inverse_offers(id);
        let agents = self.end_tasks(id, why);
        self.release_executors(id);
        for agent_id in agents {
            let order = MasterToAgent::ShutdownFramework {
                framework_id: id.clone(),
            };
            self.order(&agent_id, order);
        }
        let Some(framework) = self.frameworks.remove(id) else {
            return;
        };
        debug_assert!(framework.holdings.is_empty(), "{id} still holds resources");
        if let Some(deadline) = framework.failover_deadline {
            self.timers.clear(deadline, Deadline::Failover(id.clone()));
        }
        self.completed.push_back(CompletedFramework {
            id: id.clone(),
            tasks: framework.completed,
        });
        self.roles.remove_framework(id);
        self.gate.forget_framework(id);
        self.forget_lot_refusals_of(id);
        self.changed = true;
        self.counters.frameworks_removed += 1;
        if let Some(connection) = framework.connection {
            self.schedulers.remove(&connection);
            self.close_scheduler(connection, why);
        }
        self.note(|| News::FrameworkGone(id.clone()));
    }

    fn persist_completion(&mut self, id: &FrameworkId) {
        let mut writes = vec![RegistryWrite::CompleteFramework {
            id: id.clone(),
            at: self.now,
        }];
        while self.completed.len() >= MAX_COMPLETED_FRAMEWORKS {
            if let Some(oldest) = self.completed.pop_front() {
                self.counters.forgotten += 1;
                self.note(|| News::FrameworkForgotten(oldest.id.clone()));
                writes.push(RegistryWrite::ForgetFramework(oldest.id));
            }
        }
        self.emit(Effect::Persist(writes));
    }

    /// Ends every task of a framework; the registered agents that have something of it.
    fn end_tasks(&mut self, id: &FrameworkId, why: &str) -> BTreeSet<AgentId> {
        let mut agents: BTreeSet<AgentId> = self
            .agents
            .iter()
            .filter(|(_, agent)| agent.executors.keys().any(|(owner, _)| owner == id))
            .map(|(agent_id, _)| agent_id.clone())
            .collect();
        let Some(framework) = self.frameworks.get_mut(id) else {
            return agents;
        };
        let tasks = std::mem::take(&mut framework.tasks);
        let unreachable = std::mem::take(&mut framework.unreachable);
        for (task_id, task) in tasks {
            agents.insert(task.agent_id.clone());
            if task.holds() {
                let runner = Runner::Task(task_id.clone());
                let held = (task.resources, task.lots.clone());
                self.leave_behind(&task.agent_id, (id, &task.role), runner, task.seat, held);
            }
            if let Some(agent) = self.agents.get_mut(&task.agent_id) {
                let key = (id.clone(), task_id.clone());
                agent.tasks.remove(&key);
                agent.pending_kills.remove(&key);
                self.emptied.insert(task.agent_id.clone());
            }
            self.end_task(id, task_id, task, why);
        }
        for (task_id, task) in unreachable.iter() {
            self.end_task(id, task_id.clone(), task.clone(), why);
        }
        agents
    }

    fn end_task(&mut self, id: &FrameworkId, task_id: TaskId, mut task: Task, why: &str) {
        if !task.state.is_terminal() {
            let mut status =
                TaskStatus::new(task_id.clone(), TaskState::Killed, Source::Master, self.now);
            status.reason = Some(Reason::FrameworkRemoved);
            why.clone_into(&mut status.message);
            status.agent_id = Some(task.agent_id.clone());
            self.enter(&mut task, TaskState::Killed);
            task.remember(status);
        }
        self.remember_ended(id, task_id, task);
    }

    /// Keeps an ended task for the operator.
    pub(super) fn remember_ended(&mut self, id: &FrameworkId, task_id: TaskId, task: Task) {
        let Some(framework) = self.frameworks.get_mut(id) else {
            return;
        };
        let news = self.observed.then(|| task.news(id, &task_id, true));
        let bound = MAX_COMPLETED_TASKS_PER_FRAMEWORK;
        let forgotten = framework.completed.push(task_id, task, bound);
        self.news.extend(news);
        if let Some(forgotten) = forgotten {
            self.note(|| News::TaskGone(id.clone(), forgotten));
        }
    }

    /// A task enters a state. Its owner sees to its resources.
    pub(super) fn enter(&mut self, task: &mut Task, state: TaskState) {
        if task.state != state {
            task.state = state;
            self.counters.tasks_by_state[state as usize] += 1;
        }
    }

    fn release_executors(&mut self, id: &FrameworkId) {
        let held: Vec<_> = self
            .agents
            .iter_mut()
            .flat_map(|(agent_id, agent)| {
                agent
                    .executors
                    .extract_if(.., |(owner, _), _| owner == id)
                    .map(|((_, executor_id), executor)| (agent_id.clone(), executor_id, executor))
                    .collect::<Vec<_>>()
            })
            .collect();
        for (agent_id, executor_id, executor) in held {
            self.executor_gone(&agent_id, id, &executor_id);
            let held = (executor.info.resources, executor.lots);
            let runner = Runner::Executor(executor_id);
            self.leave_behind(&agent_id, (id, &executor.role), runner, None, held);
        }
    }

    /// Frees what a task or executor held on an agent.
    pub(super) fn recover(
        &mut self,
        owner: (&FrameworkId, &Role),
        seat: Option<Seat>,
        agent_id: &AgentId,
        resources: &Resources,
    ) {
        if resources.is_zero() {
            return;
        }
        self.credit(Part::Allocated, owner, seat, agent_id, resources);
        self.transit(agent_id, Transition::Recover(*resources));
        self.enter_ledger.insert(agent_id.clone());
    }
}
