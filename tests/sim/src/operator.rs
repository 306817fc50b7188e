//! An operator who deactivates, drains and reactivates agents and sets quotas of roles at random, and whether what was
//! decided and answered holds from then on, whatever is restarted meanwhile.

use std::collections::{BTreeMap, BTreeSet};

use ebb_master::core::{Core, Input, OperatorCommand, RequestId};
use ebb_types::{
    AgentActivity, AgentId, AgentState, AgentStatus, ClusterState, Limits, LotKey, LotLimits, Lots,
    Machine, MaintenanceMode, Quantities, Quota, ResourceKind, Role, RoleState, TaskState,
    Unavailability,
};

use crate::planted::Planted;
use crate::world::World;

/// The longest grace of a drain, in milliseconds.
const MAX_GRACE_MS: u64 = 2_000;

/// Roles that get quotas: those of frameworks, and one that nobody is in.
const ROLES: [&str; 4] = ["*", "role-1", "role-3", "nobody"];
/// The most that is guaranteed and the least that is allowed: a task's worth each.
const STEP_CPU_MILLI: u64 = 500;
const STEP_MEM_BYTES: u64 = 256 << 20;
/// Most ports of a limit.
const MOST_PORTS: u64 = 160;

/// What the operator knows.
#[derive(Debug, Default)]
pub struct Operator {
    /// What was asked last, until it is answered.
    asked: Option<OperatorCommand>,
    /// The agents of which nothing may be offered, because the master has said so. Where a master
    /// crashed before its answer, nothing is known.
    withheld: BTreeSet<AgentId>,
    /// The quotas that the master has said are set; none of a role whose last one was not answered.
    quotas: BTreeMap<Role, Quota>,
    /// The windows that the master has said are planned and when they end; none of a machine of which the last word was
    /// not answered.
    windows: BTreeMap<Machine, u64>,
    /// The machines whose maintenance the master has said is started.
    down: BTreeSet<Machine>,
    /// The limits of lots that the master has said are set; none of a role whose last ones were not answered.
    lot_limits: BTreeMap<Role, LotLimits>,
    drains: u64,
    limited: u64,
    maintained: u64,
}

/// What a role with a quota holds, and what is owed to all.
#[derive(Debug, PartialEq, Eq)]
pub struct Held {
    owned: Quantities,
    lent: Quantities,
    shortage: Quantities,
}

impl Held {
    fn now(core: &Core, role: &Role) -> Self {
        let claims = core.claims();
        Self {
            owned: claims.held_below(role),
            lent: claims.held_revocable_below(role),
            shortage: claims.shortage(),
        }
    }
}

impl Operator {
    /// Maintenances that were started and ended.
    pub const fn maintained(&self) -> u64 {
        self.maintained
    }

    /// Drains that were seen to be over.
    pub const fn drains(&self) -> u64 {
        self.drains
    }

    /// Offers that were made under a quota.
    pub const fn limited(&self) -> u64 {
        self.limited
    }
}

impl World {
    fn cluster(&self) -> Option<ClusterState> {
        self.master
            .as_ref()
            .map(|master| master.core.cluster_state())
    }

    /// The operator decides something about an agent.
    pub fn decide(&mut self) {
        let agents = self.cluster().map(|state| state.agents).unwrap_or_default();
        if agents.is_empty() {
            return;
        }
        let agent = agents[self.rng.index(agents.len())].clone();
        let agent_id = agent.id.clone();
        match self.rng.between(0, 21) {
            12..=15 => self.set_quota(),
            16..=21 => self.plan(&agent),
            0 | 1 => self.ask(OperatorCommand::Deactivate(agent_id)),
            2..=4 => {
                let max_grace_ms = self.rng.chance(500).then_some(MAX_GRACE_MS);
                self.ask(OperatorCommand::Drain {
                    agent_id,
                    max_grace_ms,
                });
            }
            _ => self.reactivate(agent_id, agent.activity),
        }
    }

    /// Plans the maintenance of an agent or of its host, starts one, ends one, or calls one off.
    fn plan(&mut self, agent: &AgentState) {
        let machine = match self.rng.chance(500) {
            true => Machine::Agent(agent.id.clone()),
            false => Machine::Host(agent.info.hostname.clone()),
        };
        let known: Vec<Machine> = self.operator.windows.keys().cloned().collect();
        let some = (!known.is_empty()).then(|| known[self.rng.index(known.len())].clone());
        match (self.rng.between(0, 5), some) {
            (0, Some(machine)) => self.call_off(machine),
            (1 | 2, Some(machine)) => self.ask(OperatorCommand::StartMaintenance(vec![machine])),
            (3, Some(machine)) => self.stop(machine),
            _ => {
                let start = self.now().plus_ms(self.rng.between(0, 20_000));
                let duration_ms = self.rng.between(5_000, 60_000);
                self.operator.windows.remove(&machine);
                let window = Unavailability {
                    start,
                    duration_ms: Some(duration_ms),
                };
                self.ask(OperatorCommand::ScheduleMaintenance(vec![(
                    machine, window,
                )]));
            }
        }
    }

    fn call_off(&mut self, machine: Machine) {
        self.operator.windows.remove(&machine);
        self.operator.down.remove(&machine);
        self.ask(OperatorCommand::CancelMaintenance(vec![machine]));
    }

    fn stop(&mut self, machine: Machine) {
        // Its agents may be in use from now on.
        let agents = self
            .cluster()
            .map(|state| state.maintenance)
            .unwrap_or_default();
        for state in agents
            .iter()
            .filter(|state| state.window.machine == machine)
        {
            for id in &state.agents {
                self.operator.withheld.remove(id);
            }
            self.forget_down(&state.agents);
        }
        self.operator.windows.remove(&machine);
        self.operator.down.remove(&machine);
        self.ask(OperatorCommand::StopMaintenance(vec![machine]));
    }

    /// These agents may be in use from now on, so of the maintenances that they are part of nothing is known.
    fn forget_down(&mut self, agents: &[AgentId]) {
        let all = self.cluster().map(|state| state.maintenance);
        for one in all.unwrap_or_default() {
            if one.agents.iter().any(|id| agents.contains(id)) {
                self.operator.down.remove(&one.window.machine);
            }
        }
    }

    /// What was planned and is not over stands.
    fn missing_window(&self, state: &ClusterState) -> Option<String> {
        let planned = &self.operator.windows;
        let mut due = planned.iter().filter(|(_, end)| **end > state.at.as_ms());
        let is_there = |machine: &Machine| {
            let mut windows = state.maintenance.iter();
            windows.any(|one| one.window.machine == *machine)
        };
        let (missing, _) = due.find(|(machine, _)| !is_there(machine))?;
        Some(format!("the maintenance of {missing} is forgotten"))
    }

    fn set_quota(&mut self) {
        let name = ROLES[self.rng.index(ROLES.len())];
        let mut some = |least, most| {
            let (cpu, mem) = (self.rng.between(least, most), self.rng.between(least, most));
            Quantities::cpus_mem(cpu * STEP_CPU_MILLI, mem * STEP_MEM_BYTES)
        };
        let (guarantee, limit, lent) = (some(0, 4), some(4, 12), some(0, 3));
        let quota = match self.rng.between(0, 3) {
            0 => Quota::default(),
            1 => Quota {
                guarantee,
                limits: Limits::NONE,
                ..Quota::default()
            },
            _ => Quota {
                guarantee,
                limits: Limits::NONE
                    .with(ResourceKind::Cpus, Some(limit.cpu_milli()))
                    .with(ResourceKind::Mem, Some(limit.mem_bytes())),
                revocable_limits: Limits::NONE.with(ResourceKind::Cpus, Some(lent.cpu_milli())),
            },
        };
        self.ask_quota(name, quota);
    }

    fn ask_quota(&mut self, name: &str, quota: Quota) {
        let Ok(role) = Role::new(name) else { return };
        self.operator.quotas.remove(&role);
        self.operator.lot_limits.remove(&role);
        let most = self.rng.between(0, MOST_PORTS) * 1000;
        let limits = match quota.is_none() || self.rng.chance(500) {
            true => LotLimits::default(),
            false => LotLimits::new([(String::from("ports"), most)]).unwrap_or_default(),
        };
        let force = self.rng.chance(500);
        self.ask(OperatorCommand::SetQuotas {
            quotas: vec![(role.clone(), quota)],
            lot_limits: vec![(role, limits)],
            force,
        });
    }

    /// No limit of lots is passed by what the master makes of an input, where that hands anything out.
    pub fn check_lot_limits(&mut self, before: &[u64], core: &Core) {
        let now = self.lots_held(core);
        let known = self.operator.lot_limits.clone();
        let known = known.iter();
        let known = known.flat_map(|(role, limits)| limits.iter().map(move |one| (role, one)));
        for ((role, (name, limit)), (before, now)) in known.zip(before.iter().zip(now)) {
            if now > limit.max(*before) {
                self.fail(format!(
                    "role {role} holds {now} of {name}, more than its limit {limit}"
                ));
            }
        }
    }

    /// What is held of what is limited, added up from offers, tasks and agents.
    pub fn lots_held(&self, core: &Core) -> Vec<u64> {
        let all = self.operator.lot_limits.iter();
        let mut held = Vec::new();
        if self.operator.lot_limits.values().all(LotLimits::is_none) {
            return held;
        }
        let state = core.cluster_state();
        for (role, name) in
            all.flat_map(|(role, all)| all.iter().map(move |(name, _)| (role, name)))
        {
            let reserved = |key: &LotKey| key.role().is_some_and(|of| of.is_within(role));
            let count = |lots: &Lots, is_reserved: bool| -> u64 {
                let named = lots.iter().filter(|(key, _)| key.name == name);
                let meant = named.filter(|(key, _)| reserved(key) == is_reserved);
                meant.map(|(_, value)| value.amount()).sum()
            };
            let offers = state
                .offers
                .iter()
                .filter(|offer| offer.role.is_within(role));
            let mut sum: u64 = offers.map(|offer| count(&offer.lots, false)).sum();
            let is_held =
                |state: TaskState| !state.is_terminal() && state != TaskState::Unreachable;
            let tasks = state.tasks.iter().filter(|task| is_held(task.state));
            let tasks = tasks.filter(|task| task.role.is_within(role));
            sum += tasks.map(|task| count(&task.lots, false)).sum::<u64>();
            // Nothing is known of what an agent that is away has by now.
            let is_here = |agent: &&AgentState| {
                matches!(
                    agent.status,
                    AgentStatus::Registered | AgentStatus::Disconnected
                )
            };
            let agents = state.agents.iter().filter(is_here);
            sum += agents
                .map(|agent| count(&agent.info.lots, true))
                .sum::<u64>();
            held.push(sum);
        }
        held
    }

    /// What the master makes of proposals must not take a role further beyond its limits, nor make what is owed to
    /// others lack any more.
    pub fn check_quotas(&mut self, before: &[Held], core: &Core) {
        for (held, (role, quota)) in before.iter().zip(&self.operator.quotas.clone()) {
            let now = Held::now(core, role);
            self.operator.limited += u64::from((now.owned, now.lent) != (held.owned, held.lent));
            let passed = |limits: &Limits, now: &Quantities, held: &Quantities| {
                let mut limits = limits.iter();
                limits.find(|(kind, limit)| now.get(*kind) > held.get(*kind).max(*limit))
            };
            let owned = passed(&quota.limits, &now.owned, &held.owned);
            let lent = passed(&quota.revocable_limits, &now.lent, &held.lent);
            for ((kind, limit), what) in owned
                .zip(Some(""))
                .into_iter()
                .chain(lent.zip(Some("lent ")))
            {
                let name = kind.name();
                self.fail(format!(
                    "role {role} is offered more {what}{name} than its limit {limit}"
                ));
            }
            if !held.shortage.contains(&now.shortage) {
                self.fail(format!(
                    "what is owed to others is offered beside role {role}"
                ));
            }
        }
    }

    /// What is held and owed of each role whose quota is known.
    pub fn quotas_before(&self, core: &Core) -> Vec<Held> {
        let known = self.operator.quotas.keys();
        known.map(|role| Held::now(core, role)).collect()
    }

    /// After all faults every agent is to be offered again, to everybody.
    pub fn reactivate_all(&mut self) {
        let roles = self.cluster().map(|state| state.roles).unwrap_or_default();
        let has_some = |role: &&RoleState| !role.quota.is_none() || !role.lot_quotas.is_empty();
        for role in roles.iter().filter(has_some) {
            self.ask_quota(role.role.as_str(), Quota::default());
        }
        let windows = self
            .cluster()
            .map(|state| state.maintenance)
            .unwrap_or_default();
        for state in windows {
            match state.window.mode {
                MaintenanceMode::Scheduled => self.call_off(state.window.machine),
                MaintenanceMode::Down => self.stop(state.window.machine),
            }
        }
        let agents = self.cluster().map(|state| state.agents).unwrap_or_default();
        for agent in agents {
            if matches!(
                agent.activity,
                AgentActivity::Deactivated | AgentActivity::Drained
            ) {
                self.reactivate(agent.id, agent.activity);
            }
        }
    }

    fn reactivate(&mut self, agent_id: AgentId, activity: AgentActivity) {
        if activity == AgentActivity::Drained {
            self.operator.drains += 1;
        }
        self.operator.withheld.remove(&agent_id);
        self.forget_down(std::slice::from_ref(&agent_id));
        self.ask(OperatorCommand::Reactivate(agent_id));
    }

    fn ask(&mut self, command: OperatorCommand) {
        self.log(|| format!("the operator asks: {command:?}"));
        self.operator.asked = Some(command.clone());
        let mut command = command;
        match (self.planted, &mut command) {
            (Some(Planted::MaintenanceNotStarted), OperatorCommand::StartMaintenance(_)) => {
                self.note_answer(true);
                return;
            }
            (Some(Planted::LotLimitPassed), OperatorCommand::SetQuotas { lot_limits, .. }) => {
                for (_, limits) in lot_limits {
                    let more = limits
                        .iter()
                        .map(|(name, most)| (name.to_owned(), most + 9_000));
                    *limits = LotLimits::new(more).unwrap_or_default();
                }
            }
            _ => {}
        }
        self.master_step(Input::Operator {
            request: RequestId(0),
            command,
        });
        self.operator.asked = None;
    }

    /// The master answers the operator.
    pub fn note_answer(&mut self, done: bool) {
        match self.operator.asked.take() {
            Some(
                OperatorCommand::Deactivate(agent_id) | OperatorCommand::Drain { agent_id, .. },
            ) if done => {
                self.operator.withheld.insert(agent_id);
            }
            Some(OperatorCommand::SetQuotas {
                quotas, lot_limits, ..
            }) if done => {
                self.operator.quotas.extend(quotas);
                self.operator.lot_limits.extend(lot_limits);
            }
            Some(OperatorCommand::ScheduleMaintenance(windows)) if done => {
                let ends = windows
                    .into_iter()
                    .filter_map(|(machine, window)| Some((machine, window.end()?.as_ms())));
                self.operator.windows.extend(ends);
            }
            Some(OperatorCommand::StartMaintenance(machines)) if done => {
                self.operator.down.extend(machines);
            }
            Some(OperatorCommand::StopMaintenance(_)) if done => self.operator.maintained += 1,
            _ => {}
        }
    }

    /// What was decided must hold.
    pub fn check_activities(&mut self) {
        let Some(state) = self.cluster() else { return };
        let mut wrong = Vec::from_iter(self.missing_window(&state));
        for (role, quota) in &self.operator.quotas {
            let found = state.roles.iter().find(|state| state.role == *role);
            let found = found.map(|state| state.quota).unwrap_or_default();
            if found != *quota {
                wrong.push(format!("role {role} has quota {found:?} and not {quota:?}"));
            }
        }
        for (role, limits) in &self.operator.lot_limits {
            let found = state.roles.iter().find(|state| state.role == *role);
            let found = found.map_or(&[][..], |state| &state.lot_quotas);
            let found = found.iter().map(|one| (one.name.as_str(), one.limit));
            if !found.eq(limits.iter()) {
                wrong.push(format!("role {role} has not the limits {limits:?}"));
            }
        }
        for one in &state.maintenance {
            let is_down = self.operator.down.contains(&one.window.machine);
            let offered = |id: &&AgentId| state.offers.iter().any(|offer| offer.agent_id == **id);
            if is_down && let Some(id) = one.agents.iter().find(offered) {
                wrong.push(format!(
                    "agent {id} is out of use for maintenance and offered"
                ));
            }
        }
        for agent in &state.agents {
            let (id, activity) = (&agent.id, agent.activity);
            let name = activity.name();
            if activity == AgentActivity::Active {
                if self.operator.withheld.contains(id) {
                    wrong.push(format!("agent {id} is active and should not be"));
                }
                continue;
            }
            if state.offers.iter().any(|offer| offer.agent_id == *id) {
                wrong.push(format!("agent {id} is {name} and offered"));
            }
            let lives =
                |task: &&ebb_types::TaskRecord| task.agent_id == *id && !task.state.is_terminal();
            if activity == AgentActivity::Drained
                && agent.status == AgentStatus::Registered
                && let Some(task) = state.tasks.iter().find(lives)
            {
                wrong.push(format!(
                    "agent {id} is {name} and has task {}",
                    task.task_id
                ));
            }
        }
        if let Some(first) = wrong.into_iter().next() {
            self.fail(first);
        }
    }
}
