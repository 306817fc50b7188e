//! Acceptance: offers become tasks.
//!
//! First the offers as a whole are judged; if one is not valid, no task is launched. Then each task
//! is judged on its own against what is left. What is used moves from offered to allocated in one
//! transition of the ledger; the rest is free and refused for as long as the call's filters say.

use std::collections::BTreeSet;
use std::sync::Arc;

use ebb_types::{
    AgentId, Capability, Event, Filters, FrameworkId, Lots, MasterToAgent, OfferId, Operation,
    OperationId, OperationKind, OperationState, Reason, Resources, Role, Source, TaskId, TaskInfo,
    TaskState, TaskStatus,
};

use super::claims::Seat;
use super::input::Effect;
use super::limits::{
    MAX_EXECUTORS_PER_AGENT, MAX_OPERATIONS_PER_FRAMEWORK, MAX_TASKS_PER_FRAMEWORK,
};
use super::lots::{Asker, Bag};
use super::state::{Core, Executor, Part};
use super::task::Task;
use super::validate::{Charge, Ground, judge};
use crate::ledger::Transition;

/// Offers that are accepted together: of one framework, one role and one agent.
struct Pool {
    agent_id: AgentId,
    role: Role,
    seat: Option<Seat>,
    offered: Resources,
    remaining: Resources,
    used: Resources,
    offered_lots: Lots,
    remaining_lots: Lots,
    /// Of a shared lot all that is used at once.
    used_lots: Lots,
    /// What the agent has from now on, once something of it was made something else.
    belongings: Option<Bag>,
}

impl Pool {
    fn take(&mut self, charge: &Charge) {
        self.remaining = self.remaining.saturating_sub(&charge.sum());
        self.used = self.used.saturating_add(&charge.sum());
        self.remaining_lots = self.remaining_lots.free(&charge.lots);
        let used = self.used_lots.checked_add(&charge.lots);
        debug_assert!(used.is_some(), "what was judged adds up");
        self.used_lots = used.unwrap_or_default();
    }
}

impl Core {
    pub(super) fn accept(
        &mut self,
        id: &FrameworkId,
        offer_ids: &[OfferId],
        operations: Vec<Operation>,
        filters: Filters,
    ) {
        let pool = match self.pool(id, offer_ids) {
            Ok(pool) => pool,
            Err(rule) => {
                self.refuse_accept(id, offer_ids, &operations, &rule);
                return;
            }
        };
        let is_idle = |operation: &Operation| match operation {
            Operation::Launch { tasks, malformed } => tasks.is_empty() && malformed.is_empty(),
            Operation::Convert { .. } | Operation::Malformed { .. } => false,
        };
        if operations.iter().all(is_idle) {
            self.decline(id, offer_ids, filters);
            return;
        }
        self.counters.offers_accepted += offer_ids.len() as u64;
        self.carry_out(id, offer_ids, pool, operations, filters);
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
                        used: Resources::ZERO,
                        belongings: None,
                        offered_lots: offer.lots.clone(),
                        remaining_lots: offer.lots.clone(),
                        used_lots: Lots::NONE,
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
                    pool.seat = pool.seat.or(offer.seat);
                    pool.offered = pool.offered.saturating_add(&offer.resources);
                    pool.remaining = pool.offered;
                    let lots = pool.offered_lots.checked_add(&offer.lots);
                    pool.offered_lots = lots.ok_or_else(|| {
                        String::from(
                            "the offers hold more than can be counted; accept fewer at once",
                        )
                    })?;
                    let known = pool.remaining_lots.clone();
                    let new = offer
                        .lots
                        .only(|key| !key.shared || known.get(key).is_none());
                    pool.remaining_lots = known.checked_add(&new).unwrap_or(known);
                }
            }
        }
        pool.ok_or_else(|| String::from("the accept names no offer; name at least one"))
    }

    /// Offers that are still valid are taken back, and everything is dropped.
    fn refuse_accept(
        &mut self,
        id: &FrameworkId,
        offer_ids: &[OfferId],
        operations: &[Operation],
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
        for operation in operations {
            match operation {
                Operation::Launch { tasks, malformed } => {
                    for task in tasks {
                        self.drop_launch(id, &task.task_id, Some(&task.agent_id), rule);
                    }
                    for task in malformed {
                        self.drop_launch(id, &task.task_id, None, rule);
                    }
                }
                Operation::Convert { id: name, .. } | Operation::Malformed { id: name, .. } => {
                    if let Some(name) = name.clone() {
                        let answer = (name, OperationState::Dropped, rule.to_owned());
                        self.answer_operation(id, None, answer);
                    }
                }
            }
        }
    }

    fn drop_launch(
        &mut self,
        id: &FrameworkId,
        task_id: &TaskId,
        agent_id: Option<&AgentId>,
        rule: &str,
    ) {
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

    /// Carries operations out in their order; one that breaks a rule fails alone.
    fn carry_out(
        &mut self,
        id: &FrameworkId,
        offer_ids: &[OfferId],
        mut pool: Pool,
        operations: Vec<Operation>,
        filters: Filters,
    ) {
        for offer_id in offer_ids {
            self.forget_offer(offer_id);
        }
        let mut launches = Vec::new();
        for operation in operations {
            match operation {
                Operation::Launch { tasks, malformed } => {
                    for task in malformed {
                        self.task_error(id, &task.task_id, &pool.agent_id, task.rule);
                    }
                    self.launch(id, &mut pool, tasks, &mut launches);
                }
                Operation::Convert {
                    id: name,
                    kind,
                    lots,
                } => self.convert_named(id, &mut pool, name, (kind, &lots)),
                Operation::Malformed { id: name, rule } => {
                    self.operation_error(id, &pool.agent_id, name, rule);
                }
            }
        }
        self.settle_accept(id, &mut pool, filters);
        if let Some(belongings) = pool.belongings.take() {
            self.set_belongings(&pool.agent_id, belongings);
        }
        self.send_launches(id, &pool.agent_id, launches);
    }

    fn launch(
        &mut self,
        id: &FrameworkId,
        pool: &mut Pool,
        tasks: Vec<TaskInfo>,
        launches: &mut Vec<TaskInfo>,
    ) {
        launches.reserve(tasks.len());
        for task in tasks {
            match self.judge_task(id, pool, &task) {
                Ok(charge) => {
                    pool.take(&charge);
                    self.admit_task(id, pool, &task, &charge);
                    launches.push(task);
                }
                Err(rule) => self.task_error(id, &task.task_id, &pool.agent_id, rule),
            }
        }
    }

    /// Makes something else of what is left of the offers, and has that answered.
    fn convert_named(
        &mut self,
        id: &FrameworkId,
        pool: &mut Pool,
        name: Option<OperationId>,
        (kind, lots): (OperationKind, &Lots),
    ) {
        if self.is_repeated(id, name.as_ref()) {
            return;
        }
        let converted = match name.is_none() || self.has_room_for_answer(id) {
            true => self.convert_offered(id, pool, kind, lots),
            false => Err(format!(
                "{MAX_OPERATIONS_PER_FRAMEWORK} operations of the framework have no answer that it has acknowledged; acknowledge those that have come"
            )),
        };
        match (converted, name) {
            (Ok(()), Some(name)) => self.await_order(&pool.agent_id, id, name),
            (Ok(()), None) => {}
            (Err(rule), name) => self.operation_error(id, &pool.agent_id, name, rule),
        }
    }

    /// Makes something else of what is left of the offers.
    fn convert_offered(
        &mut self,
        id: &FrameworkId,
        pool: &mut Pool,
        kind: OperationKind,
        lots: &Lots,
    ) -> Result<(), String> {
        let of_agent = match &pool.belongings {
            Some(belongings) => belongings.clone(),
            None => {
                let agent = self.agents.get(&pool.agent_id);
                agent.ok_or("the agent is no more")?.belongings()
            }
        };
        if !self.has_room_for_operation(&pool.agent_id) {
            return Err(String::from(
                "too many operations wait for the agent; try again later",
            ));
        }
        if lots
            .iter()
            .any(|(key, _)| pool.used_lots.get(key).is_some() && key.shared)
        {
            return Err(String::from(
                "a task of the same call uses the shared volume; end it first",
            ));
        }
        let asker = Asker {
            id,
            role: &pool.role,
            agent_id: &pool.agent_id,
        };
        let left = Bag {
            plain: pool.remaining.regular,
            lots: pool.remaining_lots.clone(),
        };
        let (left, after) = self.judge_operation(&asker, (kind, lots), &left, &of_agent)?;
        pool.remaining.regular = left.plain;
        pool.remaining_lots = left.lots;
        pool.belongings = Some(after);
        Ok(())
    }

    fn operation_error(
        &mut self,
        id: &FrameworkId,
        agent_id: &AgentId,
        name: Option<OperationId>,
        rule: String,
    ) {
        self.counters.operations_failed += 1;
        if let Some(name) = name {
            let answer = (name, OperationState::Error, rule);
            self.answer_operation(id, Some(agent_id), answer);
        }
    }

    /// Moves what is used from offered to allocated; the rest is free, and refused.
    fn settle_accept(&mut self, id: &FrameworkId, pool: &mut Pool, filters: Filters) {
        let (offered, used) = (pool.offered, pool.used);
        let owner = (id, &pool.role);
        self.credit_lots(Part::Offered, owner, &pool.agent_id, &pool.offered_lots);
        self.charge_lots(Part::Allocated, owner, &pool.agent_id, &pool.used_lots);
        self.refuse_lots(owner, &pool.agent_id, &pool.remaining_lots, filters);
        if !used.is_zero() {
            self.convert(owner, &pool.agent_id, &used);
        }
        let back = offered.saturating_sub(&used);
        if !back.is_zero() {
            self.credit(Part::Offered, owner, pool.seat, &pool.agent_id, &back);
            self.refuse(pool.seat, &pool.agent_id, &pool.remaining, filters);
        }
        let total = pool.belongings.as_ref().map(|all| all.plain);
        match total {
            Some(total) => {
                let transition = Transition::Convert {
                    offered,
                    used,
                    total,
                };
                self.transit(&pool.agent_id, transition);
                self.wake.insert(pool.agent_id.clone());
            }
            None if offered.is_zero() => {}
            None => self.transit(&pool.agent_id, Transition::Accept { offered, used }),
        }
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
            remaining_lots: &pool.remaining_lots,
            used_lots: &pool.used_lots,
            id_in_use: framework.tasks.contains_key(&task.task_id)
                || framework.unreachable.contains(&task.task_id),
            running_executor: running,
        };
        judge(task, &ground)
    }

    /// Takes a valid task into the books as TASK_STAGING; no update is sent for that.
    fn admit_task(&mut self, id: &FrameworkId, pool: &Pool, info: &TaskInfo, charge: &Charge) {
        let key = (id.clone(), info.task_id.clone());
        if let Some(agent) = self.agents.get_mut(&pool.agent_id) {
            agent.tasks.insert(key);
            if let (Some(executor), Some(_)) = (&info.executor, charge.executor) {
                agent.executors.insert(
                    (id.clone(), executor.executor_id.clone()),
                    Executor {
                        info: executor.clone(),
                        role: pool.role.clone(),
                        lots: executor.lots.clone(),
                    },
                );
                let told = (executor, &executor.lots);
                self.executor_added(&pool.agent_id, id, &pool.role, told);
            }
        }
        let task = Task {
            agent_id: pool.agent_id.clone(),
            role: pool.role.clone(),
            seat: pool.seat,
            name: Arc::from(&*info.name),
            resources: info.resources,
            lots: info.lots.clone(),
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
