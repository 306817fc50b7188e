//! What is shown of the copy: a state that the books really had after some step. It never changes, so
//! that whoever reads it holds up nobody; making messages or sums of it is the reader's own work.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ebb_types::{
    AgentId, AgentState, AgentStatus, Change, ClusterState, ExecutorId, FrameworkId,
    FrameworkState, LotLimits, LotQuota, Lots, Machine, MaintenanceState, MasterInfo, Offer,
    OfferId, Quantities, Quota, Resources, Role, RoleState, TaskRecord, TaskState, Timestamp,
};

use super::advice::AdviceGauges;
use crate::core::claims::DEFAULT_WEIGHT_MILLI;
use crate::core::{
    AgentLine, ClassBook, FrameworkLine, Holding, NamedSums, OfferRecord, Part, TaskLine,
    reserved_by_role,
};

/// Lines in the order of their ids.
pub(super) type Shown<V> = Arc<Vec<Arc<V>>>;

/// An agent and what is held of it. Without a line nothing but what is held is known of it yet.
#[derive(Clone, Debug)]
pub(super) struct AgentEntry {
    pub(super) id: AgentId,
    pub(super) line: Option<Arc<AgentLine>>,
    pub(super) holding: Holding,
    pub(super) executors: BTreeMap<(FrameworkId, ExecutorId), (Role, Resources, Lots)>,
    pub(super) offered_lots: Lots,
    pub(super) allocated_lots: Lots,
    /// What else is allocated of it, and nobody's.
    pub(super) remains: (Resources, Lots),
}

/// A framework and what it holds.
#[derive(Clone, Debug)]
pub(super) struct FrameworkEntry {
    pub(super) id: FrameworkId,
    pub(super) line: Option<Arc<FrameworkLine>>,
    pub(super) holdings: BTreeMap<Role, Holding>,
    /// What it holds of named lots.
    pub(super) lots_held: NamedSums,
    /// What it is charged with for lots.
    pub(super) charged: BTreeMap<Role, Quantities>,
    pub(super) live_tasks: u64,
}

/// An offer.
#[derive(Clone, Debug)]
pub(super) struct OfferEntry {
    pub(super) id: OfferId,
    pub(super) record: OfferRecord,
}

/// Which parts of a [`View`] are meant.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Parts {
    /// The agents.
    pub agents: bool,
    /// The frameworks.
    pub frameworks: bool,
    /// The tasks.
    pub tasks: bool,
    /// The roles.
    pub roles: bool,
    /// The offers.
    pub offers: bool,
    /// The maintenance of machines.
    pub maintenance: bool,
}

impl Parts {
    /// Everything.
    pub const ALL: Self = Self {
        agents: true,
        frameworks: true,
        tasks: true,
        roles: true,
        offers: true,
        maintenance: true,
    };
}

/// Figures that go up and down, added up anew each time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Gauges {
    /// Agents by status, in the order of [`AgentStatus::ALL`].
    pub agents: [u64; AgentStatus::ALL.len()],
    /// Frameworks whose scheduler is connected.
    pub frameworks_connected: u64,
    /// Frameworks that wait for their scheduler.
    pub frameworks_disconnected: u64,
    /// Tasks in the books by state's number.
    pub tasks: [u64; TaskState::ALL.len()],
    /// Offers that are out.
    pub offers: u64,
    /// What registered agents have.
    pub total: Quantities,
    /// What registered agents lend.
    pub lent: Quantities,
    /// What is out in offers.
    pub offered: Resources,
    /// What tasks and executors hold.
    pub allocated: Resources,
    /// The quotas of roles, by name; at most [`MAX_QUOTAS_SHOWN`].
    pub quotas: Vec<QuotaGauge>,
    /// How many more there are.
    pub quotas_left_out: u64,
    /// What is advised of classes of tasks.
    pub advice: AdviceGauges,
}

/// Most roles whose quotas stand in metrics: each has up to six accounts of each kind.
pub const MAX_QUOTAS_SHOWN: usize = 500;

/// A role's quota and what it holds, with all roles below it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QuotaGauge {
    /// The role.
    pub role: Role,
    /// Its quota.
    pub quota: Quota,
    /// What of what is owned counts towards it: what is offered to it and what its tasks hold.
    pub consumed: Quantities,
    /// What of that its tasks hold.
    pub allocated: Quantities,
    /// What of what is lent counts towards it.
    pub consumed_revocable: Quantities,
}

/// Everything that the master knew after some step.
#[derive(Clone, Debug)]
pub struct View {
    pub(super) master: MasterInfo,
    pub(super) at: Timestamp,
    pub(super) version: u64,
    pub(super) agents: Shown<AgentEntry>,
    pub(super) frameworks: Shown<FrameworkEntry>,
    pub(super) tasks: Shown<TaskLine>,
    pub(super) ended: Shown<TaskLine>,
    pub(super) offers: Shown<OfferEntry>,
    pub(super) weights: Arc<BTreeMap<Role, u32>>,
    pub(super) quotas: Arc<BTreeMap<Role, Quota>>,
    pub(super) lot_limits: Arc<BTreeMap<Role, LotLimits>>,
    pub(super) windows: Arc<BTreeMap<Machine, MaintenanceState>>,
    pub(super) classes: Arc<ClassBook>,
}

impl View {
    /// Rises with every change; a later reading never shows an earlier version.
    pub const fn version(&self) -> u64 {
        self.version
    }

    /// The parts that are meant, the others empty.
    pub fn state(&self, parts: Parts) -> ClusterState {
        let (agents, frameworks) = (&self.agents, &self.frameworks);
        let tasks = self.tasks.iter().chain(self.ended.iter());
        ClusterState {
            master: self.master.clone(),
            at: self.at,
            agents: only(parts.agents, || {
                agents.iter().filter_map(|entry| entry.state()).collect()
            }),
            frameworks: only(parts.frameworks, || {
                let states = frameworks.iter().filter_map(|entry| entry.state());
                states.collect()
            }),
            tasks: only(parts.tasks, || tasks.map(|line| line.record()).collect()),
            roles: only(parts.roles, || self.roles()),
            offers: only(parts.offers, || {
                let offers = self.offers.iter().filter_map(|entry| self.offer(entry));
                offers.collect()
            }),
            maintenance: only(parts.maintenance, || {
                self.windows
                    .values()
                    .map(|line| self.window(line))
                    .collect()
            }),
        }
    }

    /// A machine's maintenance, with the agents that are known of it.
    fn window(&self, line: &MaintenanceState) -> MaintenanceState {
        let is_meant = |agent: &AgentEntry| match &line.window.machine {
            Machine::Agent(id) => *id == agent.id,
            Machine::Host(name) => {
                (agent.line.as_ref()).is_some_and(|line| line.info.hostname == *name)
            }
        };
        let known = self.agents.iter().filter(|agent| agent.line.is_some());
        let meant = known.filter(|agent| is_meant(agent));
        MaintenanceState {
            agents: meant.map(|agent| agent.id.clone()).collect(),
            ..line.clone()
        }
    }

    /// The figures for metrics.
    pub fn gauges(&self) -> Gauges {
        let mut gauges = Gauges {
            offers: self.offers.len() as u64,
            ..Gauges::default()
        };
        for entry in self.agents.iter() {
            let Some(line) = &entry.line else { continue };
            gauges.agents[position(line.status)] += 1;
            if matches!(
                line.status,
                AgentStatus::Registered | AgentStatus::Disconnected
            ) {
                let lots = line.info.lots.quantities();
                let total = gauges.total.saturating_add(&line.info.total);
                gauges.total = total.saturating_add(&lots);
                gauges.lent = gauges.lent.saturating_add(&line.oversubscribed);
            }
            let Holding { offered, allocated } = &entry.holding;
            let reserved = |lots: &Lots| Resources::regular(lots.charged());
            let offered = offered.saturating_add(&reserved(&entry.offered_lots));
            let allocated = allocated.saturating_add(&reserved(&entry.allocated_lots));
            let (remain, lots) = &entry.remains;
            let allocated = allocated
                .saturating_add(remain)
                .saturating_add(&reserved(lots));
            gauges.offered = gauges.offered.saturating_add(&offered);
            gauges.allocated = gauges.allocated.saturating_add(&allocated);
        }
        let lines = self
            .frameworks
            .iter()
            .filter_map(|entry| entry.line.as_ref());
        for line in lines {
            match line.connected {
                true => gauges.frameworks_connected += 1,
                false => gauges.frameworks_disconnected += 1,
            }
        }
        for task in self.tasks.iter() {
            gauges.tasks[task.state as usize] += 1;
        }
        self.gauge_quotas(&mut gauges);
        gauges.advice = self.advice_gauges();
        gauges
    }

    fn gauge_quotas(&self, gauges: &mut Gauges) {
        if self.quotas.is_empty() {
            return;
        }
        let consumed = self.consumed();
        let allocated = self.below(|holding| holding.allocated.regular);
        let lent = self.below(Holding::revocable);
        let of = |sums: &BTreeMap<Role, Quantities>, role| sums.get(role).copied();
        let shown = self.quotas.iter().take(MAX_QUOTAS_SHOWN);
        let shown = shown.map(|(role, quota)| QuotaGauge {
            role: role.clone(),
            quota: *quota,
            consumed: of(&consumed, role).unwrap_or_default(),
            allocated: of(&allocated, role).unwrap_or_default(),
            consumed_revocable: of(&lent, role).unwrap_or_default(),
        });
        gauges.quotas = shown.collect();
        gauges.quotas_left_out = (self.quotas.len() - gauges.quotas.len()) as u64;
    }

    fn offer(&self, OfferEntry { id, record }: &OfferEntry) -> Option<Offer> {
        let place = self
            .agents
            .binary_search_by(|entry| entry.id.cmp(&record.agent_id));
        let agent = self.agents.get(place.ok()?)?;
        let info = &agent.line.as_ref()?.info;
        let own = agent
            .executors
            .keys()
            .filter(|(owner, _)| *owner == record.framework_id);
        Some(Offer {
            id: id.clone(),
            framework_id: record.framework_id.clone(),
            agent_id: record.agent_id.clone(),
            hostname: info.hostname.clone(),
            role: record.role.clone(),
            resources: record.resources,
            lots: record.lots.clone(),
            attributes: info.attributes.clone(),
            executor_ids: own.map(|(_, executor_id)| executor_id.clone()).collect(),
            deadline: record.deadline,
            domain: info.domain.clone(),
            unavailability: record.unavailability,
            lasting: record.lasting.clone(),
        })
    }

    /// What each role and those below it hold of what is owned.
    fn consumed(&self) -> BTreeMap<Role, Quantities> {
        let mut consumed: BTreeMap<Role, Quantities> = BTreeMap::new();
        let mut count = |role: &Role, held: &Quantities| {
            for above in std::iter::successors(Some(role.clone()), Role::parent) {
                let sum = consumed.entry(above).or_default();
                *sum = sum.saturating_add(held);
            }
        };
        for entry in self.frameworks.iter().filter(|one| one.line.is_some()) {
            for (role, holding) in &entry.holdings {
                let held = (holding.offered.regular).saturating_add(&holding.allocated.regular);
                count(role, &held);
            }
            let charged = entry.charged.iter();
            charged.for_each(|(role, held)| count(role, held));
        }
        for entry in self.agents.iter() {
            for (role, free) in entry.unowned_reservations() {
                count(&role, &free);
            }
        }
        consumed
    }

    /// The sums of a part of what is held, for each role with those below it.
    fn below(&self, part: impl Fn(&Holding) -> Quantities) -> BTreeMap<Role, Quantities> {
        let mut sums: BTreeMap<Role, Quantities> = BTreeMap::new();
        for entry in self.frameworks.iter().filter(|one| one.line.is_some()) {
            for (role, holding) in &entry.holdings {
                let held = part(holding);
                for above in std::iter::successors(Some(role.clone()), Role::parent) {
                    let sum = sums.entry(above).or_default();
                    *sum = sum.saturating_add(&held);
                }
            }
        }
        sums
    }

    /// What counts towards limits of named lots, besides what frameworks hold: what is reserved for roles and free.
    fn named_sums(&self) -> NamedSums {
        let mut sums = NamedSums::default();
        if !self.lot_limits.is_empty() {
            let agents = self.agents.iter();
            agents.for_each(|entry| sums.add_reserved(&entry.unowned_lots()));
        }
        sums
    }

    fn lot_quotas(&self, role: &Role, reserved: &NamedSums) -> Vec<LotQuota> {
        let Some(limits) = self.lot_limits.get(role) else {
            return Vec::new();
        };
        let mut quotas = reserved.quotas(role, limits);
        for quota in &mut quotas {
            let held =
                (self.frameworks.iter()).map(|entry| entry.lots_held.held(role, &quota.name));
            let held: u128 = held.sum();
            quota.held = u64::try_from(u128::from(quota.held) + held).unwrap_or(u64::MAX);
        }
        quotas
    }

    /// Every role that somebody is in, or that has a weight or a quota.
    fn roles(&self) -> Vec<RoleState> {
        let mut members: BTreeMap<&Role, (BTreeSet<&FrameworkId>, Holding)> = self
            .weights
            .keys()
            .chain(self.quotas.keys())
            .chain(self.lot_limits.keys())
            .map(|role| (role, Default::default()))
            .collect();
        for entry in self.frameworks.iter() {
            let Some(line) = &entry.line else { continue };
            for role in line.info.roles.iter().chain(entry.holdings.keys()) {
                members.entry(role).or_default().0.insert(&entry.id);
            }
            for (role, holding) in &entry.holdings {
                let sum = &mut members.entry(role).or_default().1;
                sum.offered = sum.offered.saturating_add(&holding.offered);
                sum.allocated = sum.allocated.saturating_add(&holding.allocated);
            }
        }
        let consumed = self.consumed();
        let lent = self.below(Holding::revocable);
        let named = self.named_sums();
        members
            .into_iter()
            .map(|(role, (frameworks, holding))| RoleState {
                quota: self.quotas.get(role).copied().unwrap_or_default(),
                consumed: consumed.get(role).copied().unwrap_or_default(),
                consumed_revocable: lent.get(role).copied().unwrap_or_default(),
                lot_quotas: self.lot_quotas(role, &named),
                weight_milli: u64::from(*self.weights.get(role).unwrap_or(&DEFAULT_WEIGHT_MILLI)),
                role: role.clone(),
                frameworks: frameworks.into_iter().cloned().collect(),
                offered: holding.offered,
                allocated: holding.allocated,
            })
            .collect()
    }
}

fn only<T>(is_meant: bool, list: impl FnOnce() -> Vec<T>) -> Vec<T> {
    if is_meant { list() } else { Vec::new() }
}

fn position(status: AgentStatus) -> usize {
    AgentStatus::ALL
        .into_iter()
        .position(|other| other == status)
        .unwrap_or_default()
}

impl AgentEntry {
    pub(super) fn new(id: AgentId) -> Self {
        Self {
            id,
            line: None,
            holding: Holding::default(),
            executors: BTreeMap::new(),
            offered_lots: Lots::NONE,
            allocated_lots: Lots::NONE,
            remains: (Resources::ZERO, Lots::NONE),
        }
    }

    /// What of it is reserved for each role and nobody's, while it is registered.
    fn unowned_reservations(&self) -> BTreeMap<Role, Quantities> {
        reserved_by_role(&self.unowned_lots())
    }

    /// What of its lots is nobody's, while it is registered.
    fn unowned_lots(&self) -> Lots {
        let is_registered = |line: &&Arc<AgentLine>| {
            let status = line.status;
            matches!(status, AgentStatus::Registered | AgentStatus::Disconnected)
        };
        let Some(line) = self.line.as_ref().filter(is_registered) else {
            return Lots::NONE;
        };
        let left = line.info.lots.free(&self.offered_lots);
        left.free(&self.allocated_lots)
    }

    pub(super) fn count_lots(&mut self, part: Part, lots: &Lots, is_more: bool) {
        let sum = match part {
            Part::Offered => &mut self.offered_lots,
            Part::Allocated => &mut self.allocated_lots,
        };
        let changed = match is_more {
            true => sum.checked_add(lots),
            false => sum.checked_sub(lots),
        };
        debug_assert!(changed.is_some(), "{lots} do not go together with {sum}");
        *sum = changed.unwrap_or_default();
    }

    pub(super) fn state(&self) -> Option<AgentState> {
        let line = self.line.as_ref()?;
        Some(AgentState {
            id: self.id.clone(),
            info: (*line.info).clone(),
            status: line.status,
            registered_at: line.registered_at,
            offered: self.holding.offered,
            allocated: self.holding.allocated.saturating_add(&self.remains.0),
            offered_lots: self.offered_lots.clone(),
            allocated_lots: (self.allocated_lots)
                .checked_add(&self.remains.1)
                .unwrap_or_default(),
            oversubscribed: line.oversubscribed,
            usage: line.usage.as_deref().cloned(),
            activity: line.activity,
        })
    }
}

impl FrameworkEntry {
    pub(super) fn new(id: FrameworkId) -> Self {
        Self {
            id,
            line: None,
            holdings: BTreeMap::new(),
            charged: BTreeMap::new(),
            lots_held: NamedSums::default(),
            live_tasks: 0,
        }
    }

    pub(super) fn state(&self) -> Option<FrameworkState> {
        let line = self.line.as_ref()?;
        let mut sum = Holding::default();
        for holding in self.holdings.values() {
            sum.offered = sum.offered.saturating_add(&holding.offered);
            sum.allocated = sum.allocated.saturating_add(&holding.allocated);
        }
        Some(FrameworkState {
            id: self.id.clone(),
            info: line.info.clone(),
            connected: line.connected,
            registered_at: line.registered_at,
            failover_deadline: line.failover_deadline,
            suppressed_roles: line.suppressed.clone(),
            offered: sum.offered,
            allocated: sum.allocated,
            live_tasks: self.live_tasks,
        })
    }
}

impl TaskLine {
    fn record(&self) -> TaskRecord {
        TaskRecord {
            framework_id: self.framework_id.clone(),
            task_id: self.task_id.clone(),
            name: self.name.to_string(),
            agent_id: self.agent_id.clone(),
            role: self.role.clone(),
            resources: self.resources,
            lots: self.lots.clone(),
            state: self.state,
            executor_id: self.executor_id.clone(),
            container_id: self.container_id.clone(),
            statuses: self.statuses.iter().map(|one| (**one).clone()).collect(),
        }
    }

    /// What those who watch are told of it: its newest status where that is new, else the whole task
    /// where it is not as it was.
    pub(super) fn change(&self, old: Option<&Self>) -> Option<Change> {
        let newest = self.statuses.last();
        if let Some(old) = old {
            if let Some(status) = newest
                && old
                    .statuses
                    .last()
                    .is_none_or(|last| !Arc::ptr_eq(last, status))
            {
                return Some(Change::TaskUpdated {
                    framework_id: self.framework_id.clone(),
                    status: Box::new((**status).clone()),
                });
            }
            if old.state == self.state && old.container_id == self.container_id {
                return None;
            }
        }
        Some(Change::TaskAdded(Box::new(self.record())))
    }
}
