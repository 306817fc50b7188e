//! What an agent that registers anew brings along, against what the master has in its books.
//!
//! Both sides may know more than the other: the master may have restarted, a launch may have been
//! lost on the way, an end may not have been heard of. After this every task of the agent is known
//! to both in the same state, or is being ended by one of them.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use ebb_types::{
    AgentId, FrameworkId, FrameworkInfo, Lots, MasterToAgent, Reason, Resources, Role,
    RunningExecutor, RunningTask, Source, TaskId, TaskKey, TaskState, TaskStatus,
};

use super::limits::MAX_FRAMEWORKS;
use super::remains::Runner;
use super::state::{Core, Executor, Framework, Part};
use super::task::{Task, holds};
use super::timers::Deadline;

/// Something that an agent brings along and nobody owns, with what it holds.
type Unowned = ((FrameworkId, Runner), (Resources, Lots));

impl Core {
    /// Takes in what an agent has. `returns` says that it was unreachable, so that frameworks were
    /// told so of its tasks.
    pub(super) fn adopt(
        &mut self,
        agent_id: &AgentId,
        tasks: Vec<RunningTask>,
        executors: Vec<RunningExecutor>,
        returns: bool,
    ) {
        let owners: BTreeSet<FrameworkId> = tasks
            .iter()
            .map(|task| &task.framework_id)
            .chain(executors.iter().map(|executor| &executor.framework_id))
            .cloned()
            .collect();
        let ended: BTreeSet<FrameworkId> = owners
            .into_iter()
            .filter(|owner| !self.ensure_framework(owner))
            .collect();
        for framework_id in &ended {
            let framework_id = framework_id.clone();
            self.order(agent_id, MasterToAgent::ShutdownFramework { framework_id });
        }
        self.end_all_remains(agent_id);
        let mut brought = BTreeSet::new();
        let mut present = BTreeSet::new();
        // An agent in confusion may name one twice.
        let mut unowned = BTreeMap::new();
        for executor in executors {
            if !ended.contains(&executor.framework_id) {
                let key = (
                    executor.framework_id.clone(),
                    executor.info.executor_id.clone(),
                );
                present.insert(key);
                self.adopt_executor(agent_id, executor);
            } else {
                let runner = Runner::Executor(executor.info.executor_id);
                let held = (executor.info.resources, executor.info.lots);
                unowned.insert((executor.framework_id, runner), held);
            }
        }
        self.drop_executors(agent_id, &present);
        for task in tasks {
            if !ended.contains(&task.framework_id) {
                brought.insert((task.framework_id.clone(), task.info.task_id.clone()));
                unowned.extend(self.adopt_task(agent_id, task, returns));
            } else {
                unowned.extend(still_held(task));
            }
        }
        self.drop_missing(agent_id, &brought, returns);
        // What has an owner comes first where an agent is in confusion.
        for (key, held) in unowned {
            self.take_remains(agent_id, key, held);
        }
    }

    /// Whether a framework is live; one that was never heard of (the registry was lost) is taken in
    /// until its scheduler comes back or its time is over. It is not made durable: its agents bring
    /// it along again.
    fn ensure_framework(&mut self, id: &FrameworkId) -> bool {
        if self.frameworks.contains_key(id) {
            return true;
        }
        if self.completed.iter().any(|completed| completed.id == *id)
            || self.frameworks.len() >= MAX_FRAMEWORKS
        {
            return false;
        }
        let info = FrameworkInfo {
            id: Some(id.clone()),
            name: format!("recovered {id}"),
            user: String::new(),
            roles: Role::new("*").into_iter().collect(),
            failover_timeout_ms: self.config.agent_reregister_timeout_ms,
            hostname: String::new(),
            principal: String::new(),
            webui_url: String::new(),
            capabilities: Vec::new(),
            labels: Vec::new(),
        };
        let deadline = self.now.plus_ms(info.failover_timeout_ms);
        let mut framework = Framework::new(info, self.now);
        framework.stand_in = true;
        framework.failover_deadline = Some(deadline);
        self.set_timer(deadline, Deadline::Failover(id.clone()));
        self.frameworks.insert(id.clone(), framework);
        self.publish_terms(id);
        self.framework_changed(id);
        true
    }

    /// The role that a task counts for. The agent does not know it: the only role of its framework,
    /// or else its first.
    fn role_of(&self, framework_id: &FrameworkId) -> Option<Role> {
        let framework = self.frameworks.get(framework_id)?;
        framework.info.roles.first().cloned()
    }

    fn adopt_executor(&mut self, agent_id: &AgentId, running: RunningExecutor) {
        let key = (
            running.framework_id.clone(),
            running.info.executor_id.clone(),
        );
        let known = self
            .agents
            .get(agent_id)
            .is_some_and(|agent| agent.executors.contains_key(&key));
        let Some(role) = self.role_of(&running.framework_id).filter(|_| !known) else {
            return;
        };
        let resources = running.info.resources;
        let lots = self.countable(agent_id, running.info.lots.clone());
        let owner = (&running.framework_id, &role);
        self.charge(Part::Allocated, owner, agent_id, &resources);
        self.charge_lots(Part::Allocated, owner, agent_id, &lots);
        self.executor_added(
            agent_id,
            &running.framework_id,
            &role,
            (&running.info, &lots),
        );
        if let Some(agent) = self.agents.get_mut(agent_id) {
            let info = running.info;
            agent.executors.insert(key, Executor { info, role, lots });
        }
    }

    /// Frees what executors held that an agent no longer has.
    pub(super) fn drop_executors(
        &mut self,
        agent_id: &AgentId,
        present: &BTreeSet<(FrameworkId, ebb_types::ExecutorId)>,
    ) {
        let Some(agent) = self.agents.get_mut(agent_id) else {
            return;
        };
        let gone: Vec<_> = agent
            .executors
            .extract_if(.., |key, _| !present.contains(key))
            .collect();
        for ((framework_id, executor_id), executor) in gone {
            self.executor_gone(agent_id, &framework_id, &executor_id);
            let owner = (&framework_id, &executor.role);
            self.recover(owner, None, agent_id, &executor.info.resources);
            self.recover_lots(owner, agent_id, &executor.lots);
        }
    }

    /// Takes a task into the books, or has it ended; then it is given with what it holds until it has.
    fn adopt_task(
        &mut self,
        agent_id: &AgentId,
        running: RunningTask,
        returns: bool,
    ) -> Option<Unowned> {
        let (framework_id, task_id) = (running.framework_id.clone(), running.info.task_id.clone());
        let framework = self.frameworks.get_mut(&framework_id)?;
        if let Some(task) = framework.tasks.get_mut(&task_id) {
            if task.agent_id != *agent_id {
                self.end_duplicate(agent_id, &running);
                return still_held(running);
            }
            task.confirmed = true;
            if running.container_id.is_some() {
                task.container_id = running.container_id;
            }
            self.advance(&framework_id, &task_id, running.state);
            self.task_changed(&framework_id, &task_id);
            return None;
        }
        let elsewhere = framework
            .unreachable
            .get(&task_id)
            .is_some_and(|task| task.agent_id != *agent_id);
        if elsewhere || framework.completed.contains(&task_id) {
            self.end_duplicate(agent_id, &running);
            return still_held(running);
        }
        let stranded = framework.unreachable.take(&task_id);
        self.restore_task(agent_id, running, stranded, returns);
        None
    }

    /// The master holds another task of that name, or its end: this one must not run. Its updates
    /// are settled by the master as they come.
    fn end_duplicate(&mut self, agent_id: &AgentId, running: &RunningTask) {
        if !running.state.is_terminal() {
            self.counters.tasks_duplicated += 1;
            self.order_kill(agent_id, &running.framework_id, &running.info.task_id, None);
        }
    }

    /// Takes a task into the books (again).
    fn restore_task(
        &mut self,
        agent_id: &AgentId,
        running: RunningTask,
        stranded: Option<Task>,
        returns: bool,
    ) {
        let (framework_id, task_id) = (running.framework_id.clone(), running.info.task_id.clone());
        let role = match &stranded {
            Some(task) => Some(task.role.clone()),
            None => self.role_of(&framework_id),
        };
        let Some(role) = role else { return };
        let statuses = stranded.map_or_else(VecDeque::new, |task| task.statuses);
        let mut task = Task {
            agent_id: agent_id.clone(),
            role,
            seat: None,
            name: Arc::from(running.info.name),
            resources: running.info.resources,
            lots: Lots::NONE,
            kill_grace_ms: running.info.kill_grace_ms,
            state: running.state,
            told: None,
            executor_id: running.info.executor.map(|executor| executor.executor_id),
            container_id: running.container_id,
            statuses,
            unacknowledged: None,
            confirmed: true,
        };
        self.counters.tasks_by_state[running.state as usize] += 1;
        if task.holds() {
            let owner = (&framework_id, &task.role);
            task.lots = self.countable(agent_id, running.info.lots);
            if !task.resources.is_zero() {
                task.seat = self.charge(Part::Allocated, owner, agent_id, &task.resources);
            }
            self.charge_lots(Part::Allocated, owner, agent_id, &task.lots);
        }
        let mut status = TaskStatus::new(task_id.clone(), running.state, Source::Master, self.now);
        status.reason = Some(Reason::AgentReregistered);
        status.message = String::from("The agent came back");
        status.agent_id = Some(agent_id.clone());
        status.executor_id.clone_from(&task.executor_id);
        status.container_id.clone_from(&task.container_id);
        let news = returns && task.holds();
        if news {
            task.told = Some(running.state);
            task.remember(status.clone());
        }
        if let Some(agent) = self.agents.get_mut(agent_id) {
            agent.tasks.insert((framework_id.clone(), task_id.clone()));
        }
        if let Some(framework) = self.frameworks.get_mut(&framework_id) {
            framework.tasks.insert(task_id.clone(), task);
        }
        self.task_changed(&framework_id, &task_id);
        if news {
            self.tell(&framework_id, status);
        }
    }

    /// Tasks in the books that the agent does not have: never started if the agent never spoke of
    /// them, gone otherwise.
    fn drop_missing(&mut self, agent_id: &AgentId, brought: &BTreeSet<TaskKey>, returns: bool) {
        if returns {
            self.recall_stranded(agent_id);
        }
        let Some(agent) = self.agents.get(agent_id) else {
            return;
        };
        let missing: Vec<TaskKey> = agent.tasks.difference(brought).cloned().collect();
        for (framework_id, task_id) in missing {
            self.drop_task(agent_id, &framework_id, &task_id);
        }
    }

    /// Puts the tasks that are still taken to be on an unreachable agent back on it, now that it is
    /// back without them. They hold nothing: they end in the same step.
    fn recall_stranded(&mut self, agent_id: &AgentId) {
        let Some(agent) = self.agents.get_mut(agent_id) else {
            return;
        };
        for (framework_id, framework) in &mut self.frameworks {
            let stranded: Vec<TaskId> = framework
                .unreachable
                .iter()
                .filter(|(_, task)| task.agent_id == *agent_id)
                .map(|(task_id, _)| task_id.clone())
                .collect();
            for task_id in stranded {
                if let Some(task) = framework.unreachable.take(&task_id) {
                    agent.tasks.insert((framework_id.clone(), task_id.clone()));
                    framework.tasks.insert(task_id, task);
                }
            }
        }
    }

    fn drop_task(&mut self, agent_id: &AgentId, framework_id: &FrameworkId, task_id: &TaskId) {
        let task = self
            .frameworks
            .get(framework_id)
            .and_then(|framework| framework.tasks.get(task_id));
        let Some(task) = task else { return };
        let state = match task.state {
            ended if ended.is_terminal() => ended,
            _ if task.confirmed => TaskState::Gone,
            _ => TaskState::Dropped,
        };
        if task.told != Some(state) {
            let mut status = TaskStatus::new(task_id.clone(), state, Source::Master, self.now);
            status.reason = Some(Reason::Reconciliation);
            status.message = String::from("The agent came back without the task");
            status.agent_id = Some(agent_id.clone());
            status.executor_id.clone_from(&task.executor_id);
            self.advance(framework_id, task_id, state);
            if let Some(framework) = self.frameworks.get_mut(framework_id)
                && let Some(task) = framework.tasks.get_mut(task_id)
            {
                task.told = Some(state);
                task.remember(status.clone());
            }
            self.tell(framework_id, status);
        }
        self.close_task(framework_id, task_id);
    }

    /// Kills that could not be delivered while the agent was away.
    pub(super) fn resend_kills(&mut self, agent_id: &AgentId) {
        let Some(agent) = self.agents.get_mut(agent_id) else {
            return;
        };
        for ((framework_id, task_id), grace_ms) in std::mem::take(&mut agent.pending_kills) {
            let live = self
                .frameworks
                .get(&framework_id)
                .and_then(|framework| framework.tasks.get(&task_id))
                .is_some_and(|task| !task.state.is_terminal());
            if live {
                self.order_kill(agent_id, &framework_id, &task_id, grace_ms);
            }
        }
    }
}

/// What a task without an owner holds until it has ended.
fn still_held(running: RunningTask) -> Option<Unowned> {
    let key = (running.framework_id, Runner::Task(running.info.task_id));
    let held = (running.info.resources, running.info.lots);
    holds(running.state).then_some((key, held))
}
