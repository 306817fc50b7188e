//! A master and its agents for tests of schedulers: they keep the rules of the real ones at the level
//! of calls and events, under a simulated clock, with every fault that a network has.
//!
//! # What it keeps
//! * Offers of an earlier connection are void; an accept of a void offer gives TASK_DROPPED.
//! * A task is on its agent before it starts; its updates come in order, one at a time, again and
//!   again until acknowledged; everything that is not ended and acknowledged is known to the master.
//! * Calls and events keep their order on a connection and are lost with it.

use std::collections::{BTreeMap, VecDeque};

use ebb_types::{
    AgentId, Call, Event, ExitStatus, FrameworkId, Generation, Incarnation, InverseOffer, Lasting,
    MasterInfo, Offer, OfferId, Operation, Quantities, Reason, Resources, Role, Source, TaskId,
    TaskInfo, TaskState, TaskStatus, Timestamp, Unavailability, UpdateUuid,
};

use crate::backoff::Jitter;
use crate::scheduler::{Engine, Finished, Input, Output, Scheduler, SchedulerConfig};

/// How often, of a thousand times, an agent says again what was not acknowledged.
const AGENT_TRIES_AGAIN: u64 = 20;

/// How tasks end.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Manners {
    /// Of a hundred tasks, so many fail.
    pub(crate) fail: u64,
    /// Of a hundred tasks, so many are preempted.
    pub(crate) preempt: u64,
    /// Of a hundred tasks, so many go on until they are killed.
    pub(crate) endless: u64,
}

/// Which faults happen, each of a thousand steps.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Faults {
    /// The connection breaks.
    pub(crate) broken: u64,
    /// An update is delivered twice.
    pub(crate) twice: u64,
    /// An agent is out of reach for a while.
    pub(crate) unreachable: u64,
    /// An offer is rescinded.
    pub(crate) rescind: u64,
    /// An accepted task never arrives at its agent.
    pub(crate) drop: u64,
}

impl Faults {
    pub(crate) const NONE: Self = Self {
        broken: 0,
        twice: 0,
        unreachable: 0,
        rescind: 0,
        drop: 0,
    };
    pub(crate) const ALL: Self = Self {
        broken: 15,
        twice: 50,
        unreachable: 1,
        rescind: 20,
        drop: 20,
    };
}

struct Agent {
    id: AgentId,
    free: Resources,
    /// Until when it is out of reach.
    away_until: Option<Timestamp>,
}

/// A task on its agent.
#[derive(Clone, Debug)]
pub(crate) struct FakeTask {
    pub(crate) info: TaskInfo,
    agent: usize,
    pub(crate) state: TaskState,
    /// Updates that are not acknowledged; the first is on its way.
    updates: VecDeque<TaskStatus>,
    /// The state that the master told last.
    told: TaskState,
    sent: bool,
    killed: bool,
    counts: u64,
}

/// A master with agents, and the scheduler that is tested.
pub(crate) struct World<S> {
    pub(crate) engine: Engine<S>,
    pub(crate) now: Timestamp,
    rng: Jitter,
    pub(crate) faults: Faults,
    manners: Manners,
    agents: Vec<Agent>,
    /// The agent that will be out of use, and when.
    pub(crate) leaving: Option<(usize, Unavailability)>,
    /// This agent says how long what it lends stays.
    pub(crate) lasting: Option<(usize, Lasting)>,
    /// The inverse offer that is open on this connection.
    asked: Option<OfferId>,
    /// The answers to inverse offers: whether the framework will be gone.
    pub(crate) answers: Vec<bool>,
    offers: BTreeMap<OfferId, (usize, Resources)>,
    next_offer: u64,
    suppressed: bool,
    declined_until: BTreeMap<usize, Timestamp>,
    pub(crate) connected: Option<u64>,
    /// Whether the master has taken the subscription of the connection.
    subscribed: bool,
    calls: VecDeque<Call>,
    events: VecDeque<Event>,
    pub(crate) tasks: BTreeMap<TaskId, FakeTask>,
    /// Every task that ever started on an agent, in order.
    pub(crate) started: Vec<TaskInfo>,
    pub(crate) finished: Option<Finished>,
    pub(crate) torn_down: bool,
    master_up: bool,
}

fn all_of(cpus: u64) -> Resources {
    let amount = Quantities::cpus_mem(cpus * 1000, cpus << 30);
    Resources {
        regular: amount,
        revocable: amount,
    }
}

impl<S: Scheduler> World<S> {
    pub(crate) fn new(
        scheduler: S,
        config: &SchedulerConfig,
        seed: u64,
        agents: usize,
        cpus: u64,
    ) -> Self {
        let now = Timestamp::from_ms(1_000_000);
        Self {
            engine: Engine::new(scheduler, config, now, seed),
            now,
            rng: Jitter::new(seed ^ 0xebb),
            faults: Faults::NONE,
            manners: Manners {
                fail: 0,
                preempt: 0,
                endless: 0,
            },
            agents: (0..agents)
                .map(|index| Agent {
                    id: AgentId::new(format!("agent-{index}")).expect("valid"),
                    free: all_of(cpus),
                    away_until: None,
                })
                .collect(),
            leaving: None,
            lasting: None,
            asked: None,
            answers: Vec::new(),
            offers: BTreeMap::new(),
            next_offer: 0,
            suppressed: false,
            declined_until: BTreeMap::new(),
            connected: None,
            subscribed: false,
            calls: VecDeque::new(),
            events: VecDeque::new(),
            tasks: BTreeMap::new(),
            started: Vec::new(),
            finished: None,
            torn_down: false,
            master_up: true,
        }
    }

    pub(crate) fn with(mut self, faults: Faults, manners: Manners) -> Self {
        self.faults = faults;
        self.manners = manners;
        self
    }

    /// Replaces the scheduler's process: what it had in memory is gone, as after a kill.
    pub(crate) fn restart(&mut self, scheduler: S, config: &SchedulerConfig, seed: u64) {
        self.disconnect();
        self.engine = Engine::new(scheduler, config, self.now, seed);
    }

    fn chance(&mut self, of_thousand: u64) -> bool {
        self.rng.up_to(999) < of_thousand
    }

    fn pick(&mut self, count: usize) -> usize {
        usize::try_from(self.rng.up_to(count as u64 - 1)).expect("small")
    }

    pub(crate) fn input(&mut self, input: Input) {
        for output in self.engine.step(self.now, input) {
            match output {
                Output::Connect {
                    attempt, subscribe, ..
                } => {
                    self.disconnect();
                    if self.master_up {
                        self.connected = Some(attempt);
                        self.calls.push_back(*subscribe);
                    }
                }
                Output::Disconnect => self.disconnect(),
                Output::Send(call) if self.connected.is_some() => self.calls.push_back(call),
                Output::Send(_) => {}
                Output::Finished(finished) => {
                    while let Some(call) = self.calls.pop_front() {
                        self.take(call);
                    }
                    self.disconnect();
                    self.finished = Some(finished);
                }
            }
        }
    }

    /// The master loses the framework's connection: its offers are void.
    fn disconnect(&mut self) {
        self.connected = None;
        self.subscribed = false;
        self.calls.clear();
        self.events.clear();
        let void: Vec<OfferId> = self.offers.keys().cloned().collect();
        for offer in void {
            self.recover(&offer);
        }
        for task in self.tasks.values_mut() {
            task.sent = false;
        }
        self.declined_until.clear();
        self.asked = None;
    }

    fn answered(&mut self, offer_ids: &[OfferId], will_be_gone: bool) {
        if self.asked.as_ref().is_some_and(|id| offer_ids.contains(id)) {
            self.answers.push(will_be_gone);
        }
    }

    /// Asks the agent back that will be out of use while the framework has something there, and takes the question back
    /// when it has nothing.
    fn ask_back(&mut self) {
        let Some((index, window)) = self.leaving.filter(|_| self.subscribed) else {
            return;
        };
        let is_there = |task: &FakeTask| task.agent == index && !task.state.is_terminal();
        let has_tasks = self.tasks.values().any(is_there);
        match (&self.asked, has_tasks) {
            (None, true) => {
                self.next_offer += 1;
                let id = OfferId::new(format!("i{}", self.next_offer)).expect("valid");
                self.asked = Some(id.clone());
                let agent_id = self.agents[index].id.clone();
                self.send(Event::InverseOffers(vec![InverseOffer {
                    id,
                    framework_id: FrameworkId::new("framework").expect("valid"),
                    hostname: agent_id.to_string(),
                    agent_id,
                    unavailability: window,
                }]));
            }
            (Some(id), false) => {
                let event = Event::RescindInverseOffer(id.clone());
                self.asked = None;
                self.send(event);
            }
            _ => {}
        }
    }

    /// Tasks on an agent that have not ended.
    pub(crate) fn live_on(&self, index: usize) -> usize {
        let tasks = self.tasks.values();
        tasks
            .filter(|task| task.agent == index && !task.state.is_terminal())
            .count()
    }

    fn recover(&mut self, offer: &OfferId) -> Option<(usize, Resources)> {
        let (agent, resources) = self.offers.remove(offer)?;
        let free = &mut self.agents[agent].free;
        *free = free.checked_add(&resources).expect("small");
        Some((agent, resources))
    }

    pub(crate) fn break_connection(&mut self) {
        if let Some(attempt) = self.connected {
            self.disconnect();
            let cause = "the connection broke".to_owned();
            let fatal = false;
            self.input(Input::Broken {
                attempt,
                cause,
                fatal,
            });
        }
    }

    fn send(&mut self, event: Event) {
        if self.subscribed {
            self.events.push_back(event);
        }
    }

    fn take(&mut self, call: Call) {
        match call {
            Call::Subscribe {
                info,
                suppressed_roles,
                ..
            } => {
                self.subscribed = true;
                self.suppressed = !suppressed_roles.is_empty();
                let id = info
                    .id
                    .unwrap_or(FrameworkId::new("framework").expect("valid"));
                self.send(Event::Subscribed {
                    framework_id: id,
                    heartbeat_interval_ms: 15_000,
                    master: MasterInfo {
                        id: "m".into(),
                        generation: Generation(1),
                        hostname: "h".into(),
                        port: 1,
                        version: "0".into(),
                        domain: None,
                    },
                });
            }
            Call::Teardown => {
                self.torn_down = true;
                for task in self.tasks.values_mut().filter(|t| !t.state.is_terminal()) {
                    task.state = TaskState::Killed;
                }
                self.send(Event::Error("Framework has been removed".into()));
            }
            Call::Accept {
                offer_ids,
                operations,
                ..
            } => self.accept(&offer_ids, operations),
            Call::Decline { offer_ids, filters } => {
                for offer in offer_ids {
                    if let Some((agent, _)) = self.recover(&offer) {
                        let until = self.now.plus_ms(filters.refuse_ms);
                        self.declined_until.insert(agent, until);
                    }
                }
            }
            Call::AcceptInverseOffers { offer_ids, .. } => self.answered(&offer_ids, true),
            Call::DeclineInverseOffers { offer_ids, .. } => self.answered(&offer_ids, false),
            Call::Revive { .. } => {
                self.suppressed = false;
                self.declined_until.clear();
            }
            Call::Suppress { .. } => self.suppressed = true,
            Call::Kill { task_id, .. } => self.kill(&task_id),
            Call::Acknowledge { task_id, uuid, .. } => self.acknowledge(&task_id, uuid),
            Call::Reconcile { tasks } if tasks.is_empty() => {
                let ids: Vec<TaskId> = self.tasks.keys().cloned().collect();
                for id in ids {
                    self.answer(&id, None);
                }
            }
            Call::Reconcile { tasks } => {
                for task in tasks {
                    self.answer(&task.task_id, task.agent_id.as_ref());
                }
            }
            // It carries no operations out, and answers none.
            Call::AcknowledgeOperation { .. } | Call::ReconcileOperations { .. } => {}
            Call::Message { .. } | Call::Shutdown { .. } | Call::UpdateFramework { .. } => {}
        }
    }

    fn by_master(&self, task_id: &TaskId, state: TaskState, reason: Reason) -> TaskStatus {
        TaskStatus {
            reason: Some(reason),
            ..TaskStatus::new(task_id.clone(), state, Source::Master, self.now)
        }
    }

    fn answer(&mut self, task_id: &TaskId, agent_id: Option<&AgentId>) {
        let away = |agent: &Agent| agent.away_until.is_some();
        let state = match self.tasks.get(task_id) {
            Some(task) if away(&self.agents[task.agent]) => TaskState::Unreachable,
            Some(task) => task.told,
            None => {
                let agent = self.agents.iter().find(|agent| Some(&agent.id) == agent_id);
                match agent {
                    Some(agent) if away(agent) => TaskState::Unreachable,
                    Some(_) => TaskState::Gone,
                    None => TaskState::Unknown,
                }
            }
        };
        let status = self.by_master(task_id, state, Reason::Reconciliation);
        self.send(Event::Update(status));
    }

    fn accept(&mut self, offer_ids: &[OfferId], operations: Vec<Operation>) {
        let tasks = operations
            .into_iter()
            .flat_map(|operation| operation.tasks().to_vec());
        let recovered: Vec<_> = offer_ids.iter().map(|id| self.recover(id)).collect();
        let valid = recovered.iter().all(Option::is_some);
        for info in tasks {
            let agent = self
                .agents
                .iter()
                .position(|agent| agent.id == info.agent_id);
            let agent = agent.expect("a task names an agent that was offered");
            assert!(
                !self.tasks.contains_key(&info.task_id)
                    && self.started.iter().all(|t| t.task_id != info.task_id),
                "the task id {} is used twice",
                info.task_id
            );
            if !valid || self.chance(self.faults.drop) {
                let status =
                    self.by_master(&info.task_id, TaskState::Dropped, Reason::InvalidOffers);
                self.send(Event::Update(status));
                continue;
            }
            let free = &mut self.agents[agent].free;
            *free = free
                .checked_sub(&info.resources)
                .expect("a task takes no more than its offer has");
            self.started.push(info.clone());
            let task_id = info.task_id.clone();
            let task = FakeTask {
                info,
                agent,
                state: TaskState::Staging,
                updates: VecDeque::new(),
                told: TaskState::Staging,
                sent: false,
                killed: false,
                counts: 0,
            };
            self.tasks.insert(task_id, task);
        }
    }

    fn kill(&mut self, task_id: &TaskId) {
        match self.tasks.get_mut(task_id) {
            Some(task) => task.killed = true,
            None => self.answer(task_id, None),
        }
    }

    fn acknowledge(&mut self, task_id: &TaskId, uuid: UpdateUuid) {
        let Some(task) = self.tasks.get_mut(task_id) else {
            return;
        };
        if task
            .updates
            .front()
            .is_some_and(|update| update.uuid == Some(uuid))
        {
            task.updates.pop_front();
            task.sent = false;
        }
        if task.updates.is_empty() && task.state.is_terminal() {
            self.tasks.remove(task_id);
        }
    }

    fn report(
        &mut self,
        task_id: &TaskId,
        state: TaskState,
        reason: Option<Reason>,
        exit: Option<ExitStatus>,
    ) {
        let now = self.now;
        let agent = self.tasks[task_id].agent;
        let agent_id = self.agents[agent].id.clone();
        let task = self.tasks.get_mut(task_id).expect("known");
        task.counts += 1;
        task.state = state;
        task.updates.push_back(TaskStatus {
            reason,
            exit,
            agent_id: Some(agent_id),
            uuid: Some(UpdateUuid::of(Incarnation(1), task.counts)),
            ..TaskStatus::new(task_id.clone(), state, Source::Executor, now)
        });
        if state.is_terminal() {
            let resources = task.info.resources;
            let free = &mut self.agents[agent].free;
            *free = free.checked_add(&resources).expect("small");
        }
    }

    /// Lets one task go one step on its agent.
    fn progress(&mut self) {
        let alive: Vec<TaskId> = self
            .tasks
            .iter()
            .filter(|(_, task)| !task.state.is_terminal())
            .map(|(id, _)| id.clone())
            .collect();
        if alive.is_empty() {
            return;
        }
        let id = alive[self.pick(alive.len())].clone();
        let task = &self.tasks[&id];
        let (state, killed) = (task.state, task.killed);
        if killed {
            let exit = Some(ExitStatus::Signal(15));
            self.report(&id, TaskState::Killed, None, exit);
        } else if state == TaskState::Staging {
            self.report(&id, TaskState::Running, None, None);
        } else {
            self.end(&id);
        }
    }

    fn end(&mut self, id: &TaskId) {
        let dice = self.rng.up_to(99);
        let Manners {
            fail,
            preempt,
            endless,
        } = self.manners;
        if dice < fail {
            let exit = Some(ExitStatus::Code(3));
            self.report(id, TaskState::Failed, None, exit);
        } else if dice < fail + preempt {
            let reason = Some(Reason::ContainerPreempted);
            self.report(id, TaskState::Gone, reason, None);
        } else if dice >= fail + preempt + endless {
            let exit = Some(ExitStatus::Code(0));
            self.report(id, TaskState::Finished, None, exit);
        }
    }

    /// Forwards the oldest status of each task that is not on its way yet.
    fn forward(&mut self) {
        let mut on_their_way = Vec::new();
        if self.chance(AGENT_TRIES_AGAIN) {
            for task in self.tasks.values_mut() {
                task.sent = false;
            }
        }
        for task in self.tasks.values_mut() {
            let reachable = self.agents[task.agent].away_until.is_none();
            if reachable && !task.sent && self.subscribed {
                task.sent = !task.updates.is_empty();
                if let Some(update) = task.updates.front() {
                    task.told = update.state;
                }
                on_their_way.extend(task.updates.front().cloned());
            }
        }
        for status in on_their_way {
            if self.chance(self.faults.twice) {
                self.send(Event::Update(status.clone()));
            }
            self.send(Event::Update(status));
        }
    }

    fn offer(&mut self) {
        if !self.subscribed || self.suppressed {
            return;
        }
        for index in 0..self.agents.len() {
            let refused = self
                .declined_until
                .get(&index)
                .is_some_and(|at| *at > self.now);
            let agent = &mut self.agents[index];
            if refused || agent.away_until.is_some() || agent.free.is_zero() {
                continue;
            }
            let resources = std::mem::take(&mut agent.free);
            let agent_id = agent.id.clone();
            self.next_offer += 1;
            let id = OfferId::new(format!("o{}", self.next_offer)).expect("valid");
            self.offers.insert(id.clone(), (index, resources));
            self.send(Event::Offers(vec![Offer {
                id,
                framework_id: FrameworkId::new("framework").expect("valid"),
                hostname: agent_id.to_string(),
                agent_id,
                role: Role::new("*").expect("valid"),
                lots: ebb_types::Lots::NONE,
                resources,
                attributes: Vec::new(),
                executor_ids: Vec::new(),
                deadline: None,
                domain: None,
                unavailability: (self.leaving)
                    .filter(|(leaving, _)| *leaving == index)
                    .map(|(_, window)| window),
                lasting: (self.lasting.as_ref())
                    .filter(|(lasting, _)| *lasting == index)
                    .map_or(Lasting::UNKNOWN, |(_, lasting)| lasting.clone()),
            }]));
        }
    }

    fn fault(&mut self) {
        if self.chance(self.faults.broken) {
            self.break_connection();
        }
        if self.chance(self.faults.rescind)
            && let Some(id) = self.offers.keys().next().cloned()
        {
            self.recover(&id);
            self.send(Event::Rescind(id));
        }
        if self.chance(self.faults.unreachable) {
            let index = self.pick(self.agents.len());
            self.lose_agent(index);
        }
    }

    pub(crate) fn lose_agent(&mut self, index: usize) {
        let until = self.now.plus_ms(60_000);
        self.agents[index].away_until = Some(until);
        let there: Vec<TaskId> = self.on_agent(index);
        for id in there {
            let status = self.by_master(&id, TaskState::Unreachable, Reason::AgentRemoved);
            self.send(Event::Update(status));
        }
    }

    fn on_agent(&self, index: usize) -> Vec<TaskId> {
        self.tasks
            .iter()
            .filter(|(_, task)| task.agent == index)
            .map(|(id, _)| id.clone())
            .collect()
    }

    fn agents_return(&mut self) {
        for index in 0..self.agents.len() {
            if self.agents[index]
                .away_until
                .is_some_and(|at| at <= self.now)
            {
                self.agents[index].away_until = None;
                for id in self.on_agent(index) {
                    let state = self.tasks[&id].told;
                    let status = self.by_master(&id, state, Reason::AgentReregistered);
                    self.send(Event::Update(status));
                }
            }
        }
    }

    /// One step of the world: something happens, chosen by the seed.
    pub(crate) fn step(&mut self) {
        self.fault();
        match self.rng.up_to(9) {
            0..=2 => {
                if let Some(call) = self.calls.pop_front() {
                    self.take(call);
                }
            }
            3..=5 => {
                if let (Some(attempt), Some(event)) = (self.connected, self.events.pop_front()) {
                    self.input(Input::Event { attempt, event });
                }
            }
            6 => self.progress(),
            7 => {
                self.offer();
                self.ask_back();
            }
            8 => self.forward(),
            _ => {
                let ms = self.rng.up_to(1_000);
                self.pass(ms);
            }
        }
    }

    /// Lets time pass.
    pub(crate) fn pass(&mut self, ms: u64) {
        self.now = self.now.plus_ms(ms);
        self.send(Event::Heartbeat);
        self.agents_return();
        if self.engine.next_wake().is_some_and(|at| at <= self.now) {
            self.input(Input::Tick);
        }
    }

    /// Steps until something holds; panics when it does not within so many steps.
    pub(crate) fn until(&mut self, steps: u64, what: &str, holds: impl Fn(&Self) -> bool) {
        for _ in 0..steps {
            if holds(self) {
                return;
            }
            self.step();
        }
        let tasks: Vec<_> = self
            .tasks
            .iter()
            .map(|(id, task)| (id, task.state, task.killed))
            .collect();
        let (connected, suppressed) = (self.connected, self.suppressed);
        panic!(
            "not within {steps} steps: {what}; connected {connected:?}, suppressed {suppressed}, tasks {tasks:?}"
        );
    }

    /// Tasks that run on agents now.
    pub(crate) fn running(&self) -> impl Iterator<Item = &FakeTask> {
        self.tasks
            .values()
            .filter(|task| task.state == TaskState::Running)
    }
}
