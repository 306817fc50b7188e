//! Acceptance: offers become tasks.
//!
//! First the offers as a whole are judged; if one is not valid, no task is launched. Then each task
//! is judged on its own against what is left. What is used moves from offered to allocated in one
//! transition of the ledger; the rest is free and refused for as long as the call's filters say.

use std::collections::BTreeSet;
use std::sync::Arc;

use ebb_types::{
    AgentId, Capability, Event, Filters, FrameworkId, MalformedTask, MasterToAgent, OfferId,
    Operation, Reason, Resources, Role, Source, TaskId, TaskInfo, TaskState, TaskStatus,
};

use super::claims::Seat;
use super::input::Effect;
use super::limits::{MAX_EXECUTORS_PER_AGENT, MAX_TASKS_PER_FRAMEWORK};
use super::state::{Core, Executor, Part};
use super::task::Task;
use super::validate::{Charge, Ground, judge};
use crate::ledger::Transition;

/// Offers that are accepted together: of one framework, one role and one agent.
struct Pool {
    agent_id: AgentId,
    role: Role,
    seat: Seat,
    offered: Resources,
    remaining: Resources,
}

impl Core {
    pub(super) fn accept(
        &mut self,
        id: &FrameworkId,
        offer_ids: &[OfferId],
        operations: Vec<Operation>,
        filters: Filters,
    ) {
        let mut tasks = Vec::new();
        let mut malformed = Vec::new();
        for operation in operations {
            let Operation::Launch {
                tasks: more,
                malformed: worse,
            } = operation;
            tasks.extend(more);
            malformed.extend(worse);
        }
        let pool = match self.pool(id, offer_ids) {
            Ok(pool) => pool,
            Err(rule) => {
                self.refuse_accept(id, offer_ids, &tasks, &malformed, &rule);
                return;
            }
        };
        if tasks.is_empty() && malformed.is_empty() {
            self.decline(id, offer_ids, filters);
            return;
        }
        self.counters.offers_accepted += offer_ids.len() as u64;
        self.launch(id, offer_ids, pool, tasks, malformed, filters);
    }

    /// Judges the offers of an accept as a whole.
    fn pool(&self, id: &FrameworkId, offer_ids: &[OfferId]) -> Result<Pool, String> {
        let mut seen = BTreeSet::new();
        let mut pool: Option<Pool> = None;
        for offer_id in offer_ids {
            if !seen.insert(offer_id) {
                return Err(format!(
                    "offer {offer_id} is named twice; name each offer once"
                ));
            }
            let offer = self
                .offers
                .get(offer_id)
                .filter(|offer| offer.framework_id == *id)
                .ok_or_else(|| {
                    format!("offer {offer_id} is not valid any more; wait for the next offer")
                })?;
            match &mut pool {
                None => {
                    pool = Some(Pool {
                        agent_id: offer.agent_id.clone(),
                        role: offer.role.clone(),
                        seat: offer.seat,
                        offered: offer.resources,
                        remaining: offer.resources,
                    });
                }
                Some(pool) if pool.agent_id != offer.agent_id => {
                    return Err(String::from(
                        "the offers are of different agents; accept those of one agent at a time",
                    ));
                }
                Some(pool) if pool.role != offer.role => {
                    return Err(String::from(
                        "the offers are for different roles; accept those of one role at a time",
                    ));
                }
                Some(pool) => {
                    pool.offered = pool.offered.saturating_add(&offer.resources);
                    pool.remaining = pool.offered;
                }
            }
        }
        pool.ok_or_else(|| String::from("the accept names no offer; name at least one"))
    }

    /// Offers that are still valid are taken back, and every task is dropped.
    fn refuse_accept(
        &mut self,
        id: &FrameworkId,
        offer_ids: &[OfferId],
        tasks: &[TaskInfo],
        malformed: &[MalformedTask],
        rule: &str,
    ) {
        self.counters.accepts_invalid += 1;
        for offer_id in offer_ids {
            let own = self
                .offers
                .get(offer_id)
                .is_some_and(|offer| offer.framework_id == *id);
            if own {
                self.end_offer(offer_id, Transition::Rescind);
            }
        }
        let dropped = tasks
            .iter()
            .map(|task| (&task.task_id, Some(&task.agent_id)));
        let broken = malformed.iter().map(|task| (&task.task_id, None));
        for (task_id, agent_id) in dropped.chain(broken) {
            self.counters.tasks_by_state[TaskState::Dropped as usize] += 1;
            let mut status = TaskStatus::new(
                task_id.clone(),
                TaskState::Dropped,
                Source::Master,
                self.now,
            );
            status.reason = Some(Reason::InvalidOffers);
            rule.clone_into(&mut status.message);
            status.agent_id = agent_id.cloned();
            self.tell(id, status);
        }
    }

    fn launch(
        &mut self,
        id: &FrameworkId,
        offer_ids: &[OfferId],
        mut pool: Pool,
        tasks: Vec<TaskInfo>,
        malformed: Vec<MalformedTask>,
        filters: Filters,
    ) {
        for offer_id in offer_ids {
            self.forget_offer(offer_id);
        }
        for task in malformed {
            self.task_error(id, &task.task_id, &pool.agent_id, task.rule);
        }
        let mut launches = Vec::with_capacity(tasks.len());
        for task in tasks {
            match self.judge_task(id, &pool, &task) {
                Ok(charge) => {
                    pool.remaining = pool.remaining.saturating_sub(&charge.sum());
                    self.admit_task(id, &pool, &task, charge);
                    launches.push(task);
                }
                Err(rule) => self.task_error(id, &task.task_id, &pool.agent_id, rule),
            }
        }
        let used = pool.offered.saturating_sub(&pool.remaining);
        self.convert((id, &pool.role), &pool.agent_id, &used);
        if !pool.remaining.is_zero() {
            let (owner, seat) = ((id, &pool.role), pool.seat);
            let (agent_id, rest) = (&pool.agent_id, &pool.remaining);
            self.credit(Part::Offered, owner, Some(seat), agent_id, rest);
            self.refuse(seat, agent_id, rest, filters);
        }
        let offered = pool.offered;
        self.transit(&pool.agent_id, Transition::Accept { offered, used });
        self.send_launches(id, &pool.agent_id, launches);
    }

    fn judge_task(&self, id: &FrameworkId, pool: &Pool, task: &TaskInfo) -> Result<Charge, String> {
        let (Some(framework), Some(agent)) =
            (self.frameworks.get(id), self.agents.get(&pool.agent_id))
        else {
            return Err(String::from("the framework or agent is no more"));
        };
        if framework.tasks.len() >= MAX_TASKS_PER_FRAMEWORK {
            return Err(format!(
                "the framework has {MAX_TASKS_PER_FRAMEWORK} tasks that have not ended; wait for some to end"
            ));
        }
        let running = task.executor.as_ref().and_then(|executor| {
            let key = (id.clone(), executor.executor_id.clone());
            agent.executors.get(&key).map(|running| &running.info)
        });
        if task.executor.is_some()
            && running.is_none()
            && agent.executors.len() >= MAX_EXECUTORS_PER_AGENT
        {
            return Err(format!(
                "agent {} runs {MAX_EXECUTORS_PER_AGENT} executors already; launch on another",
                pool.agent_id
            ));
        }
        let ground = Ground {
            agent_id: &pool.agent_id,
            remaining: &pool.remaining,
            id_in_use: framework.tasks.contains_key(&task.task_id)
                || framework.unreachable.contains(&task.task_id),
            running_executor: running,
        };
        judge(task, &ground)
    }

    /// Takes a valid task into the books as TASK_STAGING; no update is sent for that.
    fn admit_task(&mut self, id: &FrameworkId, pool: &Pool, info: &TaskInfo, charge: Charge) {
        let key = (id.clone(), info.task_id.clone());
        if let Some(agent) = self.agents.get_mut(&pool.agent_id) {
            agent.tasks.insert(key);
            if let (Some(executor), Some(_)) = (&info.executor, charge.executor) {
                agent.executors.insert(
                    (id.clone(), executor.executor_id.clone()),
                    Executor {
                        info: executor.clone(),
                        role: pool.role.clone(),
                    },
                );
                self.executor_added(&pool.agent_id, id, &pool.role, executor);
            }
        }
        let task = Task {
            agent_id: pool.agent_id.clone(),
            role: pool.role.clone(),
            seat: Some(pool.seat),
            name: Arc::from(&*info.name),
            resources: info.resources,
            kill_grace_ms: info.kill_grace_ms,
            state: TaskState::Staging,
            told: None,
            executor_id: info
                .executor
                .as_ref()
                .map(|executor| executor.executor_id.clone()),
            container_id: None,
            statuses: std::collections::VecDeque::new(),
            unacknowledged: None,
            confirmed: false,
        };
        self.counters.tasks_by_state[TaskState::Staging as usize] += 1;
        self.note(|| task.news(id, &info.task_id, false));
        if let Some(framework) = self.frameworks.get_mut(id) {
            // An id may be used again once its last task has ended.
            framework.completed.take(&info.task_id);
            framework.tasks.insert(info.task_id.clone(), task);
        }
    }

    fn send_launches(&mut self, id: &FrameworkId, agent_id: &AgentId, launches: Vec<TaskInfo>) {
        let user = match self.frameworks.get(id) {
            Some(framework) => framework.info.user.clone(),
            None => return,
        };
        let Some((connection, incarnation)) = self
            .agents
            .get(agent_id)
            .and_then(|agent| Some((agent.connection?, agent.incarnation)))
        else {
            return;
        };
        for task in launches {
            self.counters.tasks_launched += 1;
            self.emit(Effect::ToAgent {
                connection,
                message: MasterToAgent::Launch {
                    framework_id: id.clone(),
                    user: user.clone(),
                    incarnation,
                    task: Box::new(task),
                },
            });
        }
    }

    fn task_error(&mut self, id: &FrameworkId, task_id: &TaskId, agent_id: &AgentId, rule: String) {
        self.counters.tasks_by_state[TaskState::Error as usize] += 1;
        let mut status =
            TaskStatus::new(task_id.clone(), TaskState::Error, Source::Master, self.now);
        status.reason = Some(Reason::TaskInvalid);
        status.message = rule;
        status.agent_id = Some(agent_id.clone());
        self.tell(id, status);
    }

    /// Sends a status to a framework, if it is connected, in the states that it understands.
    pub(super) fn tell(&mut self, id: &FrameworkId, mut status: TaskStatus) -> bool {
        let Some(framework) = self.frameworks.get(id) else {
            return false;
        };
        let Some(connection) = framework.connection else {
            return false;
        };
        let aware = framework.info.has(Capability::PartitionAware);
        status.state = status.state.for_framework(aware);
        self.counters.updates_forwarded += 1;
        self.emit(Effect::ToScheduler {
            connection,
            event: Event::Update(status),
        });
        true
    }
}
