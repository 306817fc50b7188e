//! Scenarios on the core, each named by the rule that it holds.
//!
//! [`World`] is a driver without threads: it performs the effects of every step on a real ledger,
//! lets the allocator plan on the spot, and checks the books, and a copy that follows the news, after each
//! step.

mod accept;
mod activity;
mod advice;
mod agents;
mod allocation;
mod explain;
mod frameworks;
mod kills;
mod lot_limits;
mod lots;
mod maintenance;
mod mirror;
mod offers;
mod operations;
mod operator;
mod quota;
mod reconcile;
mod remains;
mod reservations;
mod restart;
mod revocable_limits;
mod terms;
mod updates;
mod validate;

use std::collections::{BTreeMap, BTreeSet};

use ebb_types::{
    AdviceFilter, AgentId, AgentInfo, AgentToMaster, Call, Capability, Change, CommandInfo, Event,
    Filters, FrameworkId, FrameworkInfo, Generation, Incarnation, MasterToAgent, Offer, OfferId,
    Operation, Quantities, ResourceKind, Resources, Role, RunningTask, Source, TaskId, TaskInfo,
    TaskState, TaskStatus, Timestamp, UpdateUuid,
};

use super::record::{RegistryWrite, Restored};
use super::{ConnectionId, Core, CoreConfig, Effect, Input, News, OperatorError};
use crate::allocator::Proposal;
use crate::allocator::{pass, pass_all};
use crate::core::allocate::Planner;
use crate::ledger::Ledger;
use crate::mirror::{Books, Gauges, Parts};

pub(super) const MIB: u64 = 1 << 20;

pub(super) struct World {
    pub(super) core: Core,
    pub(super) ledger: Ledger,
    planner: Planner,
    pub(super) now: Timestamp,
    pub(super) writes: Vec<RegistryWrite>,
    pub(super) events: BTreeMap<ConnectionId, Vec<Event>>,
    pub(super) orders: BTreeMap<ConnectionId, Vec<MasterToAgent>>,
    pub(super) closed: BTreeMap<ConnectionId, String>,
    pub(super) answers: Vec<Result<(), OperatorError>>,
    /// What those who watch were told.
    pub(super) changes: Vec<Change>,
    books: Books,
    /// News that the test has yet to hand on, where it does.
    unpublished: Option<Vec<News>>,
    /// Proposals that the ledger has and the core has not been told of.
    pub(super) in_flight: Vec<Proposal>,
    /// Whether the allocator runs.
    pub(super) offering: bool,
    next_connection: u64,
}

/// A framework's scheduler as the test plays it.
#[derive(Clone, Debug)]
pub(super) struct Scheduler {
    pub(super) connection: ConnectionId,
    pub(super) id: FrameworkId,
}

/// An agent as the test plays it.
#[derive(Clone, Debug)]
pub(super) struct Played {
    pub(super) connection: ConnectionId,
    pub(super) id: AgentId,
    pub(super) incarnation: Incarnation,
}

pub(super) fn role(text: &str) -> Role {
    Role::new(text).unwrap()
}

pub(super) fn task_id(text: &str) -> TaskId {
    TaskId::new(text).unwrap()
}

pub(super) fn res(cpu_milli: u64, mem_mib: u64) -> Resources {
    Resources::regular(Quantities::cpus_mem(cpu_milli, mem_mib * MIB))
}

pub(super) fn framework_info(name: &str, roles: &[&str]) -> FrameworkInfo {
    FrameworkInfo {
        id: None,
        name: name.to_owned(),
        user: String::from("u"),
        roles: roles.iter().map(|text| role(text)).collect(),
        failover_timeout_ms: 60_000,
        hostname: String::new(),
        principal: String::from("p"),
        webui_url: String::new(),
        capabilities: vec![Capability::PartitionAware],
        labels: Vec::new(),
    }
}

pub(super) fn agent_info(cpu_milli: u64, mem_mib: u64) -> AgentInfo {
    AgentInfo {
        id: None,
        hostname: String::from("h"),
        port: 5051,
        lots: ebb_types::Lots::NONE,
        lots_version: 0,
        total: Quantities::cpus_mem(cpu_milli, mem_mib * MIB),
        attributes: Vec::new(),
        version: String::from("0"),
        domain: None,
    }
}

pub(super) fn command_task(id: &str, agent: &AgentId, resources: Resources) -> TaskInfo {
    TaskInfo {
        task_id: task_id(id),
        name: id.to_owned(),
        agent_id: agent.clone(),
        lots: ebb_types::Lots::NONE,
        resources,
        command: Some(CommandInfo {
            value: String::from("true"),
            shell: true,
            ..CommandInfo::default()
        }),
        executor: None,
        kill_grace_ms: None,
        warn_signal: None,
        max_completion_ms: None,
        cpu_limit_milli: None,
        data: Vec::new(),
        labels: Vec::new(),
    }
}

pub(super) fn running(framework: &FrameworkId, info: TaskInfo, state: TaskState) -> RunningTask {
    RunningTask {
        framework_id: framework.clone(),
        info,
        state,
        container_id: None,
    }
}

pub(super) const NO_FILTER: Filters = Filters { refuse_ms: 0 };

pub(super) fn launch(tasks: Vec<TaskInfo>) -> Vec<Operation> {
    vec![Operation::Launch {
        tasks,
        malformed: Vec::new(),
    }]
}

impl World {
    pub(super) fn new() -> Self {
        Self::restored(Restored {
            cluster: String::from("c"),
            generation: Generation(1),
            ..Restored::default()
        })
    }

    pub(super) fn restored(restored: Restored) -> Self {
        Self::start(CoreConfig::default(), restored)
    }

    pub(super) fn configured(config: CoreConfig) -> Self {
        let restored = Restored {
            cluster: String::from("c"),
            generation: Generation(1),
            ..Restored::default()
        };
        Self::start(config, restored)
    }

    fn start(config: CoreConfig, restored: Restored) -> Self {
        let now = Timestamp::from_ms(1_000_000);
        let mut core = Core::new(now, config, restored);
        core.observe(true);
        let mut books = Books::new(core.master_info());
        books.start_anew(core.everything());
        books.observe(true);
        Self {
            books,
            unpublished: None,
            planner: Planner::new(core.claims().copy()),
            core,
            ledger: Ledger::new(),
            now,
            writes: Vec::new(),
            events: BTreeMap::new(),
            orders: BTreeMap::new(),
            closed: BTreeMap::new(),
            answers: Vec::new(),
            changes: Vec::new(),
            in_flight: Vec::new(),
            offering: true,
            next_connection: 0,
        }
    }

    pub(super) fn connection(&mut self) -> ConnectionId {
        self.next_connection += 1;
        ConnectionId(self.next_connection)
    }

    pub(super) fn step(&mut self, input: Input) -> Vec<Effect> {
        let effects = self.core.step(self.now, input);
        self.check_books();
        let mut woken = BTreeSet::new();
        let mut all = false;
        for effect in effects.clone() {
            match effect {
                Effect::Wake(agents) => woken.extend(agents),
                Effect::WakeAll | Effect::WakeHeldBack => all = true,
                effect => self.perform(effect),
            }
        }
        self.core.check().unwrap();
        self.check_ledger();
        if self.offering && (all || !woken.is_empty()) {
            let proposals = match all {
                true => self.propose(),
                // As the driver does where it is little: with the book itself.
                false => {
                    let ledger = &self.ledger;
                    self.core.plan(|planner| pass(ledger, planner, &woken))
                }
            };
            if !proposals.is_empty() {
                self.step(Input::Proposals {
                    batch: None,
                    proposals,
                });
            }
        }
        effects
    }

    /// Offers all that is free, and does not tell the core.
    pub(super) fn propose(&mut self) -> Vec<Proposal> {
        self.planner.follow(&self.core.publish());
        pass_all(&self.ledger, &mut self.planner)
    }

    fn perform(&mut self, effect: Effect) {
        match effect {
            Effect::Persist(writes) => self.writes.extend(writes),
            Effect::ToScheduler { connection, event } => {
                assert!(
                    !self.closed.contains_key(&connection),
                    "{event:?} after the end"
                );
                self.events.entry(connection).or_default().push(event);
            }
            Effect::ToAgent {
                connection,
                message,
            } => {
                assert!(
                    !self.closed.contains_key(&connection),
                    "{message:?} after the end"
                );
                self.orders.entry(connection).or_default().push(message);
            }
            Effect::CloseScheduler { connection, reason }
            | Effect::CloseAgent { connection, reason } => {
                self.closed.insert(connection, reason);
            }
            Effect::InsertSlot {
                agent_id,
                number,
                ledger,
            } => {
                ledger.check().unwrap();
                self.ledger.insert(agent_id, number, ledger);
            }
            Effect::RemoveSlot { agent_id } => {
                assert!(self.ledger.remove(&agent_id).is_some());
            }
            Effect::Ledger {
                agent_id,
                incarnation,
                transition,
            } => {
                self.ledger
                    .apply(&agent_id, incarnation, &transition)
                    .unwrap();
            }
            Effect::Answer { outcome, .. } => self.answers.push(outcome),
            Effect::Publish | Effect::Wake(_) | Effect::WakeAll | Effect::WakeHeldBack => {}
        }
    }

    /// The copy shows what the core shows, and so does one that begins now.
    fn check_books(&mut self) {
        let news = self.core.news();
        if let Some(unpublished) = &mut self.unpublished {
            unpublished.extend(news.iter().cloned());
        }
        self.books.follow(news);
        self.changes.extend(self.books.changes());
        let state = self.core.cluster_state();
        let view = self.books.show(state.at);
        assert_eq!(view.state(Parts::ALL), state);
        let mut anew = Books::new(self.core.master_info());
        anew.start_anew(self.core.everything());
        let other = anew.show(state.at);
        let all = AdviceFilter::default();
        assert_eq!(view.advice(&all), other.advice(&all));
        assert_eq!(other.state(Parts::ALL), state);
        assert_eq!(other.gauges(), view.gauges());
    }

    pub(super) fn gauges(&mut self) -> Gauges {
        self.books.show(self.now).gauges()
    }

    pub(super) fn check_ledger(&self) {
        let look = |id: &AgentId| self.ledger.get(id).map(|slot| slot.load());
        self.core.check_ledger(look, &self.in_flight).unwrap();
    }

    /// Lets time pass, ticking at every deadline on the way.
    pub(super) fn pass_ms(&mut self, ms: u64) {
        let end = self.now.plus_ms(ms);
        while let Some(due) = self.core.next_deadline().filter(|due| *due <= end) {
            self.now = self.now.max(due);
            self.step(Input::Tick);
        }
        self.now = end;
    }

    pub(super) fn call(&mut self, scheduler: &Scheduler, call: Call) -> Vec<Effect> {
        self.step(Input::Scheduler {
            connection: scheduler.connection,
            call,
        })
    }

    pub(super) fn try_subscribe(&mut self, info: FrameworkInfo) -> (ConnectionId, Vec<Effect>) {
        let connection = self.connection();
        let call = Call::Subscribe {
            info,
            suppressed_roles: Vec::new(),
            terms: ebb_types::OfferTerms::new(),
        };
        (connection, self.step(Input::Scheduler { connection, call }))
    }

    pub(super) fn subscribe(&mut self, info: FrameworkInfo) -> Scheduler {
        let (connection, _) = self.try_subscribe(info);
        match self
            .events
            .get(&connection)
            .and_then(|events| events.first())
        {
            Some(Event::Subscribed { framework_id, .. }) => Scheduler {
                connection,
                id: framework_id.clone(),
            },
            other => panic!("not subscribed: {other:?}"),
        }
    }

    pub(super) fn hang_up(&mut self, scheduler: &Scheduler) {
        self.step(Input::SchedulerGone {
            connection: scheduler.connection,
        });
    }

    pub(super) fn say(&mut self, agent: &Played, message: AgentToMaster) -> Vec<Effect> {
        self.step(Input::Agent {
            connection: agent.connection,
            incarnation: agent.incarnation,
            message,
        })
    }

    pub(super) fn register(&mut self, info: AgentInfo) -> Played {
        let mut agent = Played {
            connection: self.connection(),
            id: AgentId::new("unset").unwrap(),
            incarnation: Incarnation(1),
        };
        let message = AgentToMaster::Register {
            info,
            incarnation: agent.incarnation,
        };
        self.say(&agent, message);
        match self
            .orders
            .get(&agent.connection)
            .and_then(|orders| orders.first())
        {
            Some(MasterToAgent::Registered { agent_id, .. }) => agent.id = agent_id.clone(),
            other => panic!("not registered: {other:?}"),
        }
        agent
    }

    pub(super) fn reregister(
        &mut self,
        old: &Played,
        mut info: AgentInfo,
        tasks: Vec<RunningTask>,
    ) -> Played {
        info.id = Some(old.id.clone());
        let agent = Played {
            connection: self.connection(),
            ..old.clone()
        };
        let message = AgentToMaster::Reregister {
            info,
            incarnation: agent.incarnation,
            tasks,
            executors: Vec::new(),
            oversubscribed: Quantities::ZERO,
        };
        self.say(&agent, message);
        agent
    }

    pub(super) fn agent_gone(&mut self, agent: &Played) {
        self.step(Input::AgentGone {
            connection: agent.connection,
        });
    }

    /// The offers that a scheduler has been sent so far and that still stand.
    pub(super) fn offers(&self, scheduler: &Scheduler) -> Vec<Offer> {
        let mut offers: BTreeMap<OfferId, Offer> = BTreeMap::new();
        for event in self.events.get(&scheduler.connection).into_iter().flatten() {
            match event {
                Event::Offers(more) => {
                    offers.extend(more.iter().map(|offer| (offer.id.clone(), offer.clone())));
                }
                Event::Rescind(id) => {
                    offers.remove(id);
                }
                _ => {}
            }
        }
        offers
            .into_values()
            .filter(|offer| self.core.offers.contains_key(&offer.id))
            .collect()
    }

    pub(super) fn offer(&self, scheduler: &Scheduler) -> Offer {
        let offers = self.offers(scheduler);
        assert_eq!(offers.len(), 1, "{offers:?}");
        offers.into_iter().next().unwrap()
    }

    pub(super) fn accept(&mut self, scheduler: &Scheduler, offer: &Offer, tasks: Vec<TaskInfo>) {
        let call = Call::Accept {
            offer_ids: vec![offer.id.clone()],
            operations: launch(tasks),
            filters: NO_FILTER,
        };
        self.call(scheduler, call);
    }

    /// The updates that a scheduler has been sent so far.
    pub(super) fn updates(&self, scheduler: &Scheduler) -> Vec<TaskStatus> {
        let events = self.events.get(&scheduler.connection).into_iter().flatten();
        events
            .filter_map(|event| match event {
                Event::Update(status) => Some(status.clone()),
                _ => None,
            })
            .collect()
    }

    pub(super) fn last_update(&self, scheduler: &Scheduler) -> TaskStatus {
        self.updates(scheduler).pop().expect("no update was sent")
    }

    pub(super) fn count_events(
        &self,
        scheduler: &Scheduler,
        is_meant: impl Fn(&Event) -> bool,
    ) -> usize {
        let events = self.events.get(&scheduler.connection).into_iter().flatten();
        events.filter(|event| is_meant(event)).count()
    }

    pub(super) fn orders(&self, agent: &Played) -> &[MasterToAgent] {
        self.orders
            .get(&agent.connection)
            .map_or(&[], Vec::as_slice)
    }

    pub(super) fn count_orders(
        &self,
        agent: &Played,
        is_meant: impl Fn(&MasterToAgent) -> bool,
    ) -> usize {
        self.orders(agent)
            .iter()
            .filter(|order| is_meant(order))
            .count()
    }

    /// An agent's update of a task, the `count`-th of the agent.
    pub(super) fn update(
        &mut self,
        agent: &Played,
        scheduler: &Scheduler,
        task: &str,
        state: TaskState,
        count: u64,
    ) -> UpdateUuid {
        let uuid = UpdateUuid::of(agent.incarnation, count);
        let mut status = TaskStatus::new(task_id(task), state, Source::Executor, self.now);
        status.uuid = Some(uuid);
        let message = AgentToMaster::Update {
            framework_id: scheduler.id.clone(),
            status,
            latest_state: state,
        };
        self.say(agent, message);
        uuid
    }

    pub(super) fn acknowledge(
        &mut self,
        scheduler: &Scheduler,
        agent: &Played,
        task: &str,
        uuid: UpdateUuid,
    ) {
        let call = Call::Acknowledge {
            agent_id: agent.id.clone(),
            task_id: task_id(task),
            uuid,
        };
        self.call(scheduler, call);
    }

    pub(super) fn free(&self, agent: &Played) -> Resources {
        self.ledger
            .get(&agent.id)
            .expect("not in the ledger")
            .load()
            .free()
    }

    pub(super) fn allocated(&self, agent: &Played) -> Resources {
        self.ledger
            .get(&agent.id)
            .expect("not in the ledger")
            .load()
            .allocated
    }

    /// One framework, one agent of 4 cores and 4 GiB, one running task `t` of 1 core and 1 GiB.
    pub(super) fn with_running_task() -> (Self, Scheduler, Played) {
        let mut world = Self::new();
        let scheduler = world.subscribe(framework_info("f", &["r"]));
        let agent = world.register(agent_info(4000, 4096));
        let offer = world.offer(&scheduler);
        world.offering = false;
        let task = command_task("t", &agent.id, res(1000, 1024));
        world.accept(&scheduler, &offer, vec![task]);
        let uuid = world.update(&agent, &scheduler, "t", TaskState::Running, 1);
        world.acknowledge(&scheduler, &agent, "t", uuid);
        (world, scheduler, agent)
    }

    pub(super) fn running_task(&self, scheduler: &Scheduler, agent: &Played) -> RunningTask {
        let info = command_task("t", &agent.id, res(1000, 1024));
        running(&scheduler.id, info, TaskState::Running)
    }

    /// What the registry holds after the writes so far, as a master that starts finds it.
    pub(super) fn registry(&self) -> Restored {
        let mut restored = Restored {
            cluster: String::from("c"),
            generation: Generation(self.core.generation().0 + 1),
            ..Restored::default()
        };
        for write in self.writes.clone() {
            restored.apply(write);
        }
        restored
    }
}
