//! Status updates from agents, their acknowledgement, and kills.
//!
//! An update is forwarded whenever its framework is connected, again and again if the agent repeats
//! it; its resources are freed once, when the master first learns that the task has ended; the task
//! stays in the books until its framework has acknowledged the end. What nobody is left to
//! acknowledge, the master acknowledges itself, so that no agent retries for ever.

use std::sync::Arc;

use ebb_types::{
    AgentId, Capability, FrameworkId, MasterToAgent, Reason, TaskId, TaskState, TaskStatus,
    UpdateUuid,
};

use super::limits::MAX_PENDING_KILLS_PER_AGENT;
use super::remains::Runner;
use super::state::Core;
use super::task::is_of_agents;

impl Core {
    pub(super) fn on_update(
        &mut self,
        agent_id: &AgentId,
        framework_id: &FrameworkId,
        mut status: TaskStatus,
        latest_state: TaskState,
    ) {
        if !is_of_agents(status.state) || !is_of_agents(latest_state) {
            self.counters.calls_invalid += 1;
            return;
        }
        status.agent_id = Some(agent_id.clone());
        self.give_drain_as_reason(agent_id, &mut status);
        if latest_state.is_terminal() {
            let runner = Runner::Task(status.task_id.clone());
            self.end_remains(agent_id, framework_id, runner);
        }
        let Some(framework) = self.frameworks.get_mut(framework_id) else {
            self.settle(agent_id, framework_id, &status);
            if !latest_state.is_terminal() {
                let framework_id = framework_id.clone();
                self.order(agent_id, MasterToAgent::ShutdownFramework { framework_id });
            }
            return;
        };
        let hidden =
            status.state == TaskState::Killing && !framework.info.has(Capability::TaskKillingState);
        let task_id = status.task_id.clone();
        match framework.tasks.get_mut(&task_id) {
            Some(task) if task.agent_id == *agent_id => {
                task.confirmed = true;
                let end = task.unacknowledged.as_ref();
                if end.is_some_and(|end| end.state.is_terminal()) && !status.state.is_terminal() {
                    // Repeated from before the end, which is what the task's framework has to acknowledge.
                    self.settle(agent_id, framework_id, &status);
                    return;
                }
                let told = Arc::new(status.clone());
                if !hidden {
                    task.unacknowledged = Some(Arc::clone(&told));
                }
                task.remember(told);
                let evicted = latest_state.is_terminal()
                    && !task.state.is_terminal()
                    && status.reason == Some(Reason::ContainerPreempted);
                let role = task.role.clone();
                if evicted {
                    self.cool_down((framework_id, &role), agent_id);
                }
                self.advance(framework_id, &task_id, latest_state);
                self.task_changed(framework_id, &task_id);
                if hidden {
                    self.settle(agent_id, framework_id, &status);
                } else {
                    self.forward(framework_id, status);
                }
            }
            Some(_) => self.disown(agent_id, framework_id, &status, latest_state),
            None => self.on_unknown_update(agent_id, framework_id, status, latest_state),
        }
    }

    /// An update of a task that is not in the books: one that was told its end by the master, whose
    /// acknowledgement was lost on the way to the agent, or that was forgotten.
    fn on_unknown_update(
        &mut self,
        agent_id: &AgentId,
        framework_id: &FrameworkId,
        status: TaskStatus,
        latest_state: TaskState,
    ) {
        let known = self.frameworks.get(framework_id).is_some_and(|framework| {
            framework.completed.contains(&status.task_id)
                || framework.unreachable.contains(&status.task_id)
        });
        if known || !latest_state.is_terminal() {
            self.disown(agent_id, framework_id, &status, latest_state);
        } else {
            self.forward(framework_id, status);
        }
    }

    /// A task that should not be: its framework believes it ended or elsewhere. It is killed, and
    /// its framework is not troubled with a second story.
    fn disown(
        &mut self,
        agent_id: &AgentId,
        framework_id: &FrameworkId,
        status: &TaskStatus,
        latest_state: TaskState,
    ) {
        self.settle(agent_id, framework_id, status);
        if !latest_state.is_terminal() {
            self.counters.tasks_duplicated += 1;
            self.order_kill(agent_id, framework_id, &status.task_id, None);
        }
    }

    /// Acknowledges a status in place of its framework.
    fn settle(&mut self, agent_id: &AgentId, framework_id: &FrameworkId, status: &TaskStatus) {
        self.counters.updates_settled += 1;
        if let Some(uuid) = status.uuid {
            let order = MasterToAgent::Acknowledge {
                framework_id: framework_id.clone(),
                task_id: status.task_id.clone(),
                uuid,
            };
            self.order(agent_id, order);
        }
    }

    fn forward(&mut self, framework_id: &FrameworkId, status: TaskStatus) {
        let (task_id, state) = (status.task_id.clone(), status.state);
        if !self.tell(framework_id, status) {
            self.counters.updates_held += 1;
            return;
        }
        if let Some(framework) = self.frameworks.get_mut(framework_id)
            && let Some(task) = framework.tasks.get_mut(&task_id)
        {
            task.told = Some(state);
        }
    }

    /// A task's latest state is known; the first terminal one frees its resources and is final.
    pub(super) fn advance(
        &mut self,
        framework_id: &FrameworkId,
        task_id: &TaskId,
        state: TaskState,
    ) {
        let Some(framework) = self.frameworks.get_mut(framework_id) else {
            return;
        };
        let Some(task) = framework.tasks.get_mut(task_id) else {
            return;
        };
        if task.state == state || task.state.is_terminal() {
            return;
        }
        let held = task.holds();
        task.state = state;
        self.counters.tasks_by_state[state as usize] += 1;
        if held && !task.holds() {
            let (role, seat) = (task.role.clone(), task.seat);
            let (agent_id, resources) = (task.agent_id.clone(), task.resources);
            let lots = task.lots.clone();
            self.recover((framework_id, &role), seat, &agent_id, &resources);
            self.recover_lots((framework_id, &role), &agent_id, &lots);
        }
    }

    pub(super) fn acknowledge(
        &mut self,
        framework_id: &FrameworkId,
        agent_id: &AgentId,
        task_id: &TaskId,
        uuid: UpdateUuid,
    ) {
        let connected = self
            .agents
            .get(agent_id)
            .is_some_and(|agent| agent.connection.is_some());
        if !connected {
            self.counters.acknowledgements_dropped += 1;
            return;
        }
        let order = MasterToAgent::Acknowledge {
            framework_id: framework_id.clone(),
            task_id: task_id.clone(),
            uuid,
        };
        self.order(agent_id, order);
        self.counters.acknowledgements += 1;
        let Some(framework) = self.frameworks.get_mut(framework_id) else {
            return;
        };
        let Some(task) = framework.tasks.get_mut(task_id) else {
            return;
        };
        if task.agent_id != *agent_id || !task.awaits(uuid) {
            return;
        }
        let ended = task
            .unacknowledged
            .take()
            .is_some_and(|status| status.state.is_terminal());
        if ended {
            self.close_task(framework_id, task_id);
        }
    }

    /// An ended task leaves the books.
    pub(super) fn close_task(&mut self, framework_id: &FrameworkId, task_id: &TaskId) {
        let Some(framework) = self.frameworks.get_mut(framework_id) else {
            return;
        };
        let Some(task) = framework.tasks.remove(task_id) else {
            return;
        };
        debug_assert!(!task.holds(), "{task_id} leaves the books with resources");
        if let Some(agent) = self.agents.get_mut(&task.agent_id) {
            let key = (framework_id.clone(), task_id.clone());
            agent.tasks.remove(&key);
            agent.pending_kills.remove(&key);
            self.emptied.insert(task.agent_id.clone());
        }
        self.remember_ended(framework_id, task_id.clone(), task);
    }

    pub(super) fn kill(
        &mut self,
        framework_id: &FrameworkId,
        task_id: &TaskId,
        agent_id: Option<&AgentId>,
        grace_ms: Option<u64>,
    ) {
        let task = self
            .frameworks
            .get(framework_id)
            .and_then(|framework| framework.tasks.get(task_id));
        let Some(task) = task else {
            self.answer_reconcile(framework_id, task_id, agent_id);
            return;
        };
        let home = task.agent_id.clone();
        if agent_id.is_some_and(|named| *named != home) {
            self.counters.calls_invalid += 1;
            return;
        }
        let Some(agent) = self.agents.get_mut(&home) else {
            return;
        };
        if agent.connection.is_some() {
            self.order_kill(&home, framework_id, task_id, grace_ms);
            return;
        }
        let key = (framework_id.clone(), task_id.clone());
        let room = agent.pending_kills.len() < MAX_PENDING_KILLS_PER_AGENT;
        if room || agent.pending_kills.contains_key(&key) {
            agent.pending_kills.insert(key, grace_ms);
        } else {
            self.counters.kills_dropped += 1;
        }
    }

    pub(super) fn order_kill(
        &mut self,
        agent_id: &AgentId,
        framework_id: &FrameworkId,
        task_id: &TaskId,
        grace_ms: Option<u64>,
    ) {
        self.counters.kills += 1;
        let order = MasterToAgent::Kill {
            framework_id: framework_id.clone(),
            task_id: task_id.clone(),
            grace_ms,
        };
        self.order(agent_id, order);
    }
}
