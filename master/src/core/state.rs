//! What the master knows, and the accounts of who holds what.
//!
//! Accounts are sums that are kept beside what they sum up (an agent's offers and tasks, a
//! framework's, a role's), so that no step reads more than what it changes; `check.rs` adds them up
//! anew. [`Core::charge`] and its counterparts are the only places that change them.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use ebb_types::{
    AgentId, AgentInfo, AgentUsage, ExecutorId, ExecutorInfo, FaultDomain, FrameworkId,
    FrameworkInfo, Generation, Incarnation, Lasting, Lots, MasterInfo, OfferId, OfferTerms,
    OperationId, Quantities, Quota, Resources, Role, TaskId, TaskKey, Timestamp, Unavailability,
};

use super::allocate::Planner;
use super::claims::{Claims, Entry, Gatekeeper, Seat};
use super::classes::ClassBook;
use super::counters::Counters;
use super::ids::IdMaker;
use super::input::{ConnectionId, Effect};
use super::lots::{LotAccount, LotBook};
use super::maintenance::Maintenance;
use super::news::News;
use super::record::{Activity, OperationRecord, Restored};
use super::remains::Remains;
use super::task::{Remembered, Task};
use super::timers::{Deadline, Timers};

/// What the core is told once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CoreConfig {
    /// The master's host name, as it tells frameworks.
    pub hostname: String,
    /// The port of its API.
    pub port: u16,
    /// Ebb's version.
    pub version: String,
    /// How often either side of a connection says at least something, in milliseconds.
    pub heartbeat_interval_ms: u64,
    /// How long an agent may stay silent before it counts as unreachable, in milliseconds.
    pub unreachable_after_ms: u64,
    /// How long agents from the registry have to come back after a start of the master, in
    /// milliseconds.
    pub agent_reregister_timeout_ms: u64,
    /// How long frameworks from the registry have at least to come back after a start of the master,
    /// in milliseconds; for those whose own failover timeout is shorter.
    pub framework_recovery_ms: u64,
    /// How long a framework may hold an offer, in milliseconds; unset means for ever.
    ///
    /// Mesos leaves it unset; the default here is five minutes, because a scheduler that hangs
    /// would otherwise withhold what it was offered from everybody else for ever.
    pub offer_timeout_ms: Option<u64>,
    /// Where the master stands; agents in other regions are remote.
    pub domain: Option<FaultDomain>,
}

impl Default for CoreConfig {
    fn default() -> Self {
        Self {
            hostname: String::from("localhost"),
            port: 5050,
            version: String::from(env!("CARGO_PKG_VERSION")),
            heartbeat_interval_ms: 15_000,
            unreachable_after_ms: 75_000,
            agent_reregister_timeout_ms: 600_000,
            framework_recovery_ms: 60_000,
            offer_timeout_ms: Some(300_000),
            domain: None,
        }
    }
}

/// Offered and allocated resources of an agent, or of a framework in a role.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Holding {
    pub(crate) offered: Resources,
    pub(crate) allocated: Resources,
}

impl Holding {
    /// What of it is lent.
    pub(crate) fn revocable(&self) -> Quantities {
        (self.offered.revocable).saturating_add(&self.allocated.revocable)
    }

    pub(crate) fn is_zero(&self) -> bool {
        self.offered.is_zero() && self.allocated.is_zero()
    }

    pub(crate) fn add(&mut self, part: Part, resources: &Resources) {
        let sum = self.part(part);
        *sum = sum.saturating_add(resources);
    }

    pub(crate) fn sub(&mut self, part: Part, resources: &Resources) {
        let sum = self.part(part);
        debug_assert!(sum.contains(resources), "{resources} is not in {sum}");
        *sum = sum.saturating_sub(resources);
    }

    const fn part(&mut self, part: Part) -> &mut Resources {
        match part {
            Part::Offered => &mut self.offered,
            Part::Allocated => &mut self.allocated,
        }
    }
}

/// Which part of a [`Holding`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    Offered,
    Allocated,
}

/// A framework that is not completed.
#[derive(Debug)]
pub(super) struct Framework {
    /// Its id is set.
    pub(super) info: FrameworkInfo,
    /// Whether `info` is a stand-in because only an agent has spoken of the framework yet.
    pub(super) stand_in: bool,
    pub(super) connection: Option<ConnectionId>,
    pub(super) registered_at: Timestamp,
    pub(super) failover_deadline: Option<Timestamp>,
    /// While it is not connected: since when, as far as this master knows.
    pub(super) away_since: Timestamp,
    pub(super) suppressed: BTreeSet<Role>,
    /// What it says of its offers.
    pub(super) terms: OfferTerms,
    /// Live tasks and ended ones whose end is not acknowledged, on registered agents.
    pub(super) tasks: BTreeMap<TaskId, Task>,
    /// Tasks on unreachable agents.
    pub(super) unreachable: Remembered,
    /// Ended tasks.
    pub(super) completed: Remembered,
    pub(super) offers: BTreeSet<OfferId>,
    pub(super) holdings: BTreeMap<Role, Holding>,
    /// Where revocable tasks of it were evicted of late: until when nothing revocable is offered to it there.
    pub(super) cooling: BTreeMap<(Role, AgentId), Timestamp>,
    /// Operations without an answer, and answers that are not acknowledged.
    pub(super) operations: BTreeMap<OperationId, OperationRecord>,
}

impl Framework {
    pub(super) fn new(info: FrameworkInfo, registered_at: Timestamp) -> Self {
        Self {
            info,
            stand_in: false,
            connection: None,
            registered_at,
            failover_deadline: None,
            away_since: registered_at,
            suppressed: BTreeSet::new(),
            terms: OfferTerms::new(),
            tasks: BTreeMap::new(),
            unreachable: Remembered::default(),
            completed: Remembered::default(),
            offers: BTreeSet::new(),
            holdings: BTreeMap::new(),
            cooling: BTreeMap::new(),
            operations: BTreeMap::new(),
        }
    }
}

/// A framework that is no more.
#[derive(Debug)]
pub(super) struct CompletedFramework {
    pub(super) id: FrameworkId,
    /// Its ended tasks.
    pub(super) tasks: Remembered,
}

/// An executor of a framework's own on an agent.
#[derive(Debug)]
pub(super) struct Executor {
    pub(super) info: ExecutorInfo,
    pub(super) role: Role,
    /// What is counted of its lots.
    pub(super) lots: Lots,
}

/// An agent that is registered, connected or not.
#[derive(Debug)]
pub(super) struct Agent {
    /// Its id is set.
    pub(super) info: Arc<AgentInfo>,
    /// Its life, as it says.
    pub(super) incarnation: Incarnation,
    /// Its registration, as the ledger knows it.
    pub(super) registration: Incarnation,
    pub(super) connection: Option<ConnectionId>,
    /// The connection of its last registration; what an older one still brings is stale.
    pub(super) newest: ConnectionId,
    /// What an operator has decided about it.
    pub(super) activity: Activity,
    /// Whether the ledger has it: while it is connected, active, and its tasks hold no more than it has.
    pub(super) in_ledger: bool,
    pub(super) registered_at: Timestamp,
    pub(super) last_heard: Timestamp,
    /// When its silence is looked at next.
    pub(super) silence_at: Timestamp,
    pub(super) oversubscribed: Quantities,
    pub(super) holding: Holding,
    pub(super) lots: LotAccount,
    pub(super) offers: BTreeSet<OfferId>,
    pub(super) tasks: BTreeSet<TaskKey>,
    pub(super) executors: BTreeMap<(FrameworkId, ExecutorId), Executor>,
    /// What is allocated of it and nobody's.
    pub(super) remains: Remains,
    pub(super) pending_kills: BTreeMap<TaskKey, Option<u64>>,
    pub(super) usage: Option<Arc<AgentUsage>>,
}

impl Agent {
    /// What of it is neither offered nor held.
    pub(super) fn free(&self) -> Resources {
        let all = Resources {
            regular: self.info.total,
            revocable: self.oversubscribed,
        };
        let held = (self.holding.offered).saturating_add(&self.holding.allocated);
        all.saturating_sub(&held)
    }
}

/// An agent that is known but not registered.
#[derive(Debug)]
pub(super) struct AbsentAgent {
    pub(super) info: Arc<AgentInfo>,
    pub(super) registered_at: Timestamp,
    /// Its last known life; unset after a start of the master.
    pub(super) incarnation: Option<Incarnation>,
    pub(super) activity: Activity,
    pub(super) absence: Absence,
}

/// Why an agent is not registered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Absence {
    /// It is known from the registry and has until then to come back.
    Recovered { deadline: Timestamp },
    /// It has been silent for too long.
    Unreachable { since: Timestamp },
}

/// An offer that is out.
#[derive(Clone, Debug)]
pub struct OfferRecord {
    pub(crate) framework_id: FrameworkId,
    pub(crate) agent_id: AgentId,
    pub(crate) role: Role,
    /// The framework in the role, as the book of claims knows it, where the offer holds more than lots.
    pub(crate) seat: Option<Seat>,
    pub(crate) resources: Resources,
    pub(crate) lots: Lots,
    pub(crate) deadline: Option<Timestamp>,
    pub(crate) unavailability: Option<Unavailability>,
    pub(crate) lasting: Lasting,
}

/// The whole state of a master.
#[derive(Debug)]
pub struct Core {
    pub(super) config: CoreConfig,
    pub(super) generation: Generation,
    pub(super) ids: IdMaker,
    pub(super) now: Timestamp,
    pub(super) frameworks: BTreeMap<FrameworkId, Framework>,
    /// Oldest first.
    pub(super) completed: VecDeque<CompletedFramework>,
    pub(super) agents: BTreeMap<AgentId, Agent>,
    pub(super) absent: BTreeMap<AgentId, AbsentAgent>,
    /// How many of the absent are from the registry and awaited.
    pub(super) awaited: usize,
    /// How many agents the registry knew when the master started, and counted as in.
    pub(super) recovered: usize,
    pub(super) offers: BTreeMap<OfferId, OfferRecord>,
    pub(super) schedulers: BTreeMap<ConnectionId, FrameworkId>,
    pub(super) links: BTreeMap<ConnectionId, AgentId>,
    pub(super) weights: BTreeMap<Role, u32>,
    pub(super) quotas: BTreeMap<Role, Quota>,
    pub(super) roles: Box<Claims>,
    /// Plans with the book, between two steps; what it has of its own is room that is kept.
    pub(super) planner: Planner,
    /// What it has proposed and the book holds already; empty but between [`Core::plan`] and the next step.
    pub(super) planned: Vec<(u32, Resources)>,
    pub(super) gate: Gatekeeper,
    pub(super) maintenance: Maintenance,
    pub(super) lots: LotBook,
    pub(super) classes: ClassBook,
    pub(super) timers: Timers,
    pub(super) counters: Counters,
    /// Whether somebody keeps a copy of the books.
    pub(super) observed: bool,
    /// What they have not been told yet.
    pub(super) news: Vec<News>,
    /// Set when the book of claims has changed in this step.
    pub(super) changed: bool,
    /// Agents that the allocator is to look at after this step.
    pub(super) wake: BTreeSet<AgentId>,
    pub(super) wake_all: bool,
    /// Set when more may be offered of what was left because of a quota.
    pub(super) wake_held_back: bool,
    /// Agents outside of the ledger, or just in, whose free part may have changed in this step.
    pub(super) outside: BTreeSet<AgentId>,
    /// Agents that may have to be put into the ledger after this step.
    pub(super) enter_ledger: BTreeSet<AgentId>,
    /// Agents from which something has gone in this step, so that they may be drained now.
    pub(super) emptied: BTreeSet<AgentId>,
    pub(super) effects: Vec<Effect>,
}

impl Core {
    /// A master that starts now with what its registry holds.
    pub fn new(now: Timestamp, config: CoreConfig, restored: Restored) -> Self {
        let region = config.domain.as_ref().map(|domain| domain.region.clone());
        let mut core = Self {
            ids: IdMaker::new(&restored.cluster, restored.generation),
            generation: restored.generation,
            config,
            now,
            frameworks: BTreeMap::new(),
            completed: VecDeque::new(),
            agents: BTreeMap::new(),
            absent: BTreeMap::new(),
            awaited: 0,
            recovered: 0,
            offers: BTreeMap::new(),
            schedulers: BTreeMap::new(),
            links: BTreeMap::new(),
            weights: BTreeMap::new(),
            quotas: BTreeMap::new(),
            roles: Box::default(),
            planner: Planner::default(),
            planned: Vec::new(),
            gate: Gatekeeper::new(region),
            maintenance: Maintenance::default(),
            lots: LotBook::default(),
            classes: ClassBook::default(),
            timers: Timers::default(),
            counters: Counters::default(),
            observed: false,
            news: Vec::new(),
            changed: false,
            wake: BTreeSet::new(),
            wake_all: false,
            wake_held_back: false,
            outside: BTreeSet::new(),
            enter_ledger: BTreeSet::new(),
            emptied: BTreeSet::new(),
            effects: Vec::new(),
        };
        core.restore(restored);
        core
    }

    /// The term in which this master leads.
    pub const fn generation(&self) -> Generation {
        self.generation
    }

    /// What has been counted so far.
    pub const fn counters(&self) -> &Counters {
        &self.counters
    }

    /// When the core wants [`Input::Tick`](super::Input::Tick) next.
    pub fn next_deadline(&self) -> Option<Timestamp> {
        match (self.timers.next(), self.roles.next_expiry()) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        }
    }

    /// What has changed in the book of claims, to be handed to the allocator at
    /// [`Effect::Publish`](super::Effect::Publish).
    pub fn publish(&mut self) -> Arc<Vec<Entry>> {
        self.roles.publish()
    }

    /// The book of claims.
    pub fn claims(&self) -> &Claims {
        &self.roles
    }

    /// Lends the book itself to be planned with: no copy is newer. All that is proposed is to be handed to
    /// [`Core::step`] before anything else is.
    pub fn plan<T>(&mut self, plan: impl FnOnce(&mut Planner) -> T) -> T {
        self.planner.exchange(&mut self.roles);
        let planned = plan(&mut self.planner);
        self.planner.hand_over(&mut self.planned);
        self.planner.exchange(&mut self.roles);
        planned
    }

    /// The master, as it tells frameworks and operators of itself.
    pub fn master_info(&self) -> MasterInfo {
        MasterInfo {
            id: self.ids.master().to_owned(),
            generation: self.generation,
            hostname: self.config.hostname.clone(),
            port: self.config.port,
            version: self.config.version.clone(),
            domain: self.config.domain.clone(),
        }
    }

    pub(super) fn emit(&mut self, effect: Effect) {
        self.effects.push(effect);
    }

    /// Counts resources as held by a framework in a role on an agent. They must be new to the
    /// book's accounts.
    pub(super) fn charge(
        &mut self,
        part: Part,
        (framework_id, role): (&FrameworkId, &Role),
        agent_id: &AgentId,
        resources: &Resources,
    ) -> Option<Seat> {
        self.hold(part, (framework_id, role), agent_id, resources);
        self.roles.charge(framework_id, role, resources)
    }

    /// The part of [`Core::charge`] that does not concern the book of claims.
    pub(super) fn hold(
        &mut self,
        part: Part,
        (framework_id, role): (&FrameworkId, &Role),
        agent_id: &AgentId,
        resources: &Resources,
    ) {
        self.maintenance.touch(agent_id);
        if let Some(agent) = self.agents.get_mut(agent_id) {
            agent.holding.add(part, resources);
            if !agent.in_ledger {
                self.outside.insert(agent_id.clone());
            }
        }
        if let Some(framework) = self.frameworks.get_mut(framework_id) {
            framework
                .holdings
                .entry(role.clone())
                .or_default()
                .add(part, resources);
        }
        self.changed = true;
    }

    /// The reverse of [`Core::charge`]. Costs less where the seat is told.
    pub(super) fn credit(
        &mut self,
        part: Part,
        (framework_id, role): (&FrameworkId, &Role),
        seat: Option<Seat>,
        agent_id: &AgentId,
        resources: &Resources,
    ) {
        self.disown_part(part, (framework_id, role), seat, agent_id, resources);
        if let Some(agent) = self.agents.get_mut(agent_id) {
            agent.holding.sub(part, resources);
        }
        self.wake.insert(agent_id.clone());
        if self
            .agents
            .get(agent_id)
            .is_some_and(|agent| !agent.in_ledger)
        {
            self.outside.insert(agent_id.clone());
        }
    }

    /// The part of [`Core::credit`] that does not concern the agent's account.
    pub(super) fn disown_part(
        &mut self,
        part: Part,
        (framework_id, role): (&FrameworkId, &Role),
        seat: Option<Seat>,
        agent_id: &AgentId,
        resources: &Resources,
    ) {
        let credited = match seat {
            Some(seat) => self.roles.credit_seat(seat, resources),
            None => self.roles.credit(framework_id, role, resources).is_ok(),
        };
        debug_assert!(
            credited,
            "{framework_id} in {role} does not hold {resources}"
        );
        self.maintenance.touch(agent_id);
        self.shift_out(part, (framework_id, role), resources);
        self.changed = true;
        self.wake_held_back = true;
    }

    /// Turns the used part of an offer into an allocation; the book of claims counts both alike.
    pub(super) fn convert(
        &mut self,
        (framework_id, role): (&FrameworkId, &Role),
        agent_id: &AgentId,
        used: &Resources,
    ) {
        self.maintenance.touch(agent_id);
        self.shift_out(Part::Offered, (framework_id, role), used);
        if let Some(agent) = self.agents.get_mut(agent_id) {
            agent.holding.sub(Part::Offered, used);
            agent.holding.add(Part::Allocated, used);
        }
        if let Some(framework) = self.frameworks.get_mut(framework_id) {
            framework
                .holdings
                .entry(role.clone())
                .or_default()
                .add(Part::Allocated, used);
        }
    }

    fn shift_out(
        &mut self,
        part: Part,
        (framework_id, role): (&FrameworkId, &Role),
        resources: &Resources,
    ) {
        if let Some(framework) = self.frameworks.get_mut(framework_id)
            && let Some(holding) = framework.holdings.get_mut(role)
        {
            holding.sub(part, resources);
            if holding.is_zero() {
                framework.holdings.remove(role);
            }
        }
    }

    /// Sets a deadline.
    pub(super) fn set_timer(&mut self, at: Timestamp, deadline: Deadline) {
        self.timers.set(at, deadline);
    }
}
