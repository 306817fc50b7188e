//! The service's decisions, as a scheduler: which slots want an instance, which instances must go, when
//! an instance that ended may start again.
//!
//! A service of N instances has the slots 0 to N−1; each holds one instance of the wanted version. A
//! rolling change goes slot by slot: a new instance is started beside the old ones, and when it runs,
//! an old one is stopped. An instance leaves an agent that will be out of use in the same way, all of them at once.
//!
//! # Invariants
//! * Never more than N + [`MAX_SURGE`] instances are wanted at a time, and one more for each that moves; what runs
//!   beyond is stopped.
//! * An instance that moves ends when the one in its place runs, and not before.
//! * A rolling change stops an old instance only while N others run, or, when nothing holds the new one
//!   for [`SURGE_PATIENCE_MS`], N − 1.
//! * An instance is in the state file before it is launched.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use ebb_types::limits::DEFAULT_GRACE_MS;
use ebb_types::{
    AgentId, ExitStatus, Filters, FrameworkId, InvalidId, InverseOffer, Offer, OfferId, Resources,
    TaskId, TaskInfo, TaskState, TaskStatus, Timestamp,
};
use tokio::sync::watch;

use super::leaving::Leaving;
use super::roll::{self, Facts, Instance, Plan, Slot};
use super::spec::{
    InstanceStatus, RESTART_CAP_MS, RESTART_FIRST_MS, STABLE_AFTER_MS, STOP_PATIENCE_MS,
    ServiceReport, ServiceSpec, ServiceStatus,
};
use super::store::{Saved, SavedInstance, Store};
use crate::command::{base36, stem};
use crate::fate::{Fate, fate, is_heard};
use crate::offers::{EXPECTED_RUN_MS, fit, is_leaving, lacking};
use crate::scheduler::{ASK_AGAIN, Calls, Outcome, Scheduler, Subscribed};

/// What the handle asks for, until the scheduler is woken.
#[derive(Debug, Default)]
pub(super) struct Orders {
    pub(super) spec: Option<ServiceSpec>,
    pub(super) stop: bool,
    pub(super) detach: bool,
}

/// A service in the making.
pub(super) struct Service {
    stem: String,
    spec: ServiceSpec,
    version: String,
    wanted: Resources,
    orders: Arc<Mutex<Orders>>,
    instances: BTreeMap<TaskId, Instance>,
    slots: BTreeMap<u32, Slot>,
    leaving: Leaving,
    store: Box<dyn Store>,
    framework_id: Option<FrameworkId>,
    status: watch::Sender<ServiceStatus>,
    connected: bool,
    /// Whether there was a subscription in this process' life.
    subscribed: bool,
    /// Whether the master may make offers.
    asking: bool,
    /// Since when a rolling change finds no offer for the instance beyond the wanted number.
    starved_since: Option<Timestamp>,
    /// What lacked in the best of the last offers.
    lack: Option<Resources>,
    last_trouble: String,
    stop_deadline: Option<Timestamp>,
    over: bool,
    launches: u64,
    restarts: u64,
    detached: bool,
}

impl Service {
    /// A service that has not begun, or goes on from what was saved.
    pub(super) fn new(
        name: &str,
        spec: ServiceSpec,
        orders: Arc<Mutex<Orders>>,
        store: Box<dyn Store>,
        saved: Saved,
        status: watch::Sender<ServiceStatus>,
    ) -> Result<Self, InvalidId> {
        let mut service = Self {
            stem: stem(name),
            version: spec.version(),
            wanted: spec.demand.resources(),
            spec,
            orders,
            instances: BTreeMap::new(),
            slots: BTreeMap::new(),
            leaving: Leaving::default(),
            store,
            framework_id: saved.framework_id.map(FrameworkId::new).transpose()?,
            status,
            connected: false,
            subscribed: false,
            asking: true,
            starved_since: None,
            lack: None,
            last_trouble: String::new(),
            stop_deadline: None,
            over: false,
            launches: 0,
            restarts: 0,
            detached: false,
        };
        for instance in saved.instances {
            let task_id = TaskId::new(instance.task_id)?;
            let agent_id = AgentId::new(instance.agent_id)?;
            service.adopt(task_id, Some(agent_id), instance.hostname);
        }
        Ok(service)
    }

    pub(super) const fn framework_id(&self) -> Option<&FrameworkId> {
        self.framework_id.as_ref()
    }

    /// Whether it came with the id of an earlier framework and was never subscribed under it.
    pub(super) const fn is_left_behind(&self) -> bool {
        self.framework_id.is_some() && !self.subscribed
    }

    /// The earlier framework is gone with all its instances: begins anew.
    pub(super) fn forget_framework(&mut self) {
        self.framework_id = None;
        self.instances.clear();
    }

    /// What came of it.
    pub(super) fn report(&self) -> ServiceReport {
        ServiceReport {
            framework_id: self.framework_id.as_ref().map(ToString::to_string),
            launches: self.launches,
            restarts: self.restarts,
            detached: self.detached,
        }
    }

    /// Takes a task that an earlier process launched, if its id is one of this service.
    fn adopt(&mut self, task_id: TaskId, agent_id: Option<AgentId>, hostname: String) {
        if let Some((version, slot)) = parse(&self.stem, task_id.as_str()) {
            let instance = Instance {
                slot,
                version,
                agent_id,
                hostname,
                state: TaskState::Staging,
                launched_at: Timestamp::from_ms(0),
                running_since: None,
                ending: false,
                heard: false,
            };
            self.instances.insert(task_id, instance);
        }
    }

    fn save(&mut self) -> Outcome {
        let instances = self.instances.iter().filter_map(|(task_id, instance)| {
            Some(SavedInstance {
                task_id: task_id.to_string(),
                agent_id: instance.agent_id.as_ref()?.to_string(),
                hostname: instance.hostname.clone(),
            })
        });
        let saved = Saved {
            framework_id: self.framework_id.as_ref().map(ToString::to_string),
            instances: instances.collect(),
        };
        Ok(self.store.save(&saved)?)
    }

    fn plan(&self, now: Timestamp) -> Plan {
        if self.stop_deadline.is_some() {
            return roll::stop(&self.instances);
        }
        roll::plan(&Facts {
            now,
            wanted: self.spec.instances,
            version: &self.version,
            instances: &self.instances,
            slots: &self.slots,
            starved_since: self.starved_since,
            leaving: &self.leaving.due(now),
        })
    }

    /// The agents with instances that are as they should be.
    fn agents_with(&self, is_meant: impl Fn(&Instance) -> bool) -> BTreeSet<AgentId> {
        let instances = self.instances.values().filter(|one| is_meant(one));
        instances.filter_map(|one| one.agent_id.clone()).collect()
    }

    /// Says of agents that will be out of use whether the service will be gone.
    fn answer(&mut self, calls: &mut Calls, moving: bool) {
        let now = calls.now();
        let here = self.agents_with(Instance::is_present);
        let any = self.agents_with(|_| true);
        let answers = self.leaving.settle(now, &here, &any, moving);
        if !answers.accept.is_empty() {
            calls.accept_inverse(answers.accept, ASK_AGAIN);
        }
        if !answers.decline.is_empty() {
            calls.decline_inverse(answers.decline, ASK_AGAIN);
        }
    }

    /// Kills what must go, says whether offers are wanted and when to look again.
    fn settle(&mut self, calls: &mut Calls) {
        let now = calls.now();
        if self.over {
            return;
        }
        let plan = self.plan(now);
        for task_id in &plan.kill {
            if let Some(instance) = self.instances.get_mut(task_id) {
                instance.ending = true;
            }
        }
        // Said first: once the last instance has ended, nobody is asked any more.
        self.answer(calls, !plan.moves.is_empty());
        for task_id in &plan.kill {
            if let Some(instance) = self.instances.get(task_id) {
                calls.kill(task_id, instance.agent_id.as_ref(), self.spec.kill_grace_ms);
            }
        }
        let wants = !plan.launch.is_empty() || !plan.moves.is_empty();
        if wants != self.asking {
            self.asking = wants;
            self.lack = None;
            if wants {
                calls.revive(Vec::new());
            } else {
                calls.suppress(Vec::new());
            }
        }
        if !wants {
            self.starved_since = None;
        }
        let leaving = self.leaving.look_again_at(now);
        let times = plan.look_again_at.into_iter().chain(leaving);
        for at in times.chain(self.stop_deadline) {
            if at > now {
                calls.wake_at(at);
            }
        }
        self.end_if_stopped(calls);
        self.tell(now);
    }

    fn end_if_stopped(&mut self, calls: &mut Calls) {
        let Some(deadline) = self.stop_deadline else {
            return;
        };
        // What is out of reach is ended when it comes back, because its framework is gone.
        let reachable = self.instances.values().any(Instance::is_in_reach);
        if !reachable || deadline <= calls.now() {
            self.over = true;
            let ended = Saved::default();
            if let Err(error) = self.store.save(&ended) {
                tracing::warn!(%error, "the state file does not say that the service was stopped");
            }
            calls.teardown();
        }
    }

    fn take_orders(&mut self, calls: &mut Calls) {
        let orders = {
            let mut orders = self.orders.lock().unwrap_or_else(PoisonError::into_inner);
            std::mem::take(&mut *orders)
        };
        if let Some(spec) = orders.spec {
            self.change(spec);
        }
        if orders.stop && self.stop_deadline.is_none() {
            let grace_ms = self.spec.kill_grace_ms.unwrap_or(DEFAULT_GRACE_MS);
            let patience_ms = grace_ms.saturating_add(STOP_PATIENCE_MS);
            self.stop_deadline = Some(calls.now().plus_ms(patience_ms));
        }
        if orders.detach && !self.over {
            self.over = true;
            self.detached = true;
            calls.detach();
        }
    }

    fn change(&mut self, spec: ServiceSpec) {
        let version = spec.version();
        if version != self.version {
            self.slots.clear();
            self.last_trouble.clear();
        }
        self.lack = None;
        self.starved_since = None;
        self.wanted = spec.demand.resources();
        self.version = version;
        self.spec = spec;
    }

    /// Chooses offers for slots: each goes where the fewest instances are.
    fn place(
        &self,
        now: Timestamp,
        slots: &[u32],
        offers: &[Offer],
    ) -> Result<Vec<(usize, u32, TaskInfo)>, InvalidId> {
        let mut left: Vec<Resources> = offers.iter().map(|offer| offer.resources).collect();
        let mut crowd: BTreeMap<&AgentId, u64> = BTreeMap::new();
        for instance in self.instances.values().filter(|i| !i.ending) {
            if let Some(agent_id) = &instance.agent_id {
                *crowd.entry(agent_id).or_default() += 1;
            }
        }
        let leaving = self.leaving.due(now);
        let mut placed = Vec::new();
        for slot in slots {
            let best = (0..offers.len())
                .filter(|index| left[*index].contains(&self.wanted))
                .filter(|index| !is_leaving(&offers[*index], now, EXPECTED_RUN_MS))
                .filter(|index| !leaving.contains(&offers[*index].agent_id))
                .min_by_key(|index| crowd.get(&offers[*index].agent_id).copied().unwrap_or(0));
            let Some(index) = best else {
                break;
            };
            let agent_id = &offers[index].agent_id;
            left[index] = left[index].saturating_sub(&self.wanted);
            *crowd.entry(agent_id).or_default() += 1;
            placed.push((index, *slot, self.task(now, *slot, agent_id)?));
        }
        Ok(placed)
    }

    fn task(&self, now: Timestamp, slot: u32, agent_id: &AgentId) -> Result<TaskInfo, InvalidId> {
        // The count keeps ids apart that are made in one millisecond.
        let stamp = format!("{}{}", base36(now.as_ms()), base36(self.launches % 1296));
        let task_id = TaskId::new(format!("{}.{}.{slot}.{stamp}", self.stem, self.version))?;
        let mut task = self
            .spec
            .command
            .to_task(task_id, agent_id.clone(), &self.spec.demand);
        task.name.clone_from(&self.stem);
        task.kill_grace_ms = self.spec.kill_grace_ms;
        task.cpu_limit_milli = self.spec.cpu_limit_milli;
        if let Some(command) = &mut task.command {
            let instance = ("EBB_INSTANCE".to_owned(), slot.to_string());
            command.environment.push(instance);
        }
        Ok(task)
    }

    fn launch(
        &mut self,
        calls: &mut Calls,
        offers: &[Offer],
        placed: Vec<(usize, u32, TaskInfo)>,
    ) -> Outcome {
        let is_held = |slot: u32| {
            let mut instances = self.instances.values();
            instances.any(|i| i.slot == slot && i.version == self.version && i.is_present())
        };
        let moves: BTreeSet<u32> = placed
            .iter()
            .map(|(_, slot, _)| *slot)
            .filter(|slot| is_held(*slot))
            .collect();
        for (index, slot, task) in &placed {
            let instance = Instance {
                slot: *slot,
                version: self.version.clone(),
                agent_id: Some(task.agent_id.clone()),
                hostname: offers[*index].hostname.clone(),
                state: TaskState::Staging,
                launched_at: calls.now(),
                running_since: None,
                ending: false,
                heard: false,
            };
            self.instances.insert(task.task_id.clone(), instance);
        }
        if let Err(error) = self.save() {
            for (_, _, task) in &placed {
                self.instances.remove(&task.task_id);
            }
            return Err(error);
        }
        for (_, slot, _) in &placed {
            let is_move = moves.contains(slot);
            let slot = self.slots.entry(*slot).or_insert_with(new_slot);
            self.launches += 1;
            self.restarts += u64::from(slot.started && !is_move);
            slot.started = true;
        }
        if !moves.is_empty() {
            self.leaving.placed();
        }
        let mut tasks: BTreeMap<usize, Vec<TaskInfo>> = BTreeMap::new();
        for (index, _, task) in placed {
            tasks.entry(index).or_default().push(task);
        }
        let unused = (0..offers.len()).filter(|index| !tasks.contains_key(index));
        let unused = unused.map(|index| offers[index].id.clone()).collect();
        calls.decline_all(unused, Filters::default());
        for (index, tasks) in tasks {
            calls.launch(&offers[index], tasks);
        }
        Ok(())
    }

    /// An instance has ended: says when its slot may start another.
    fn ended(&mut self, now: Timestamp, instance: &Instance, status: &TaskStatus, fate: Fate) {
        if instance.ending || instance.version != self.version {
            return;
        }
        let slot = self.slots.entry(instance.slot).or_insert_with(new_slot);
        slot.started = true;
        let wait_ms = if fate == Fate::NeverStarted && slot.backoff.tries() == 0 {
            NEVER_STARTED_WAIT_MS
        } else {
            let ran_ms = instance
                .running_since
                .map_or(0, |since| now.ms_since(since));
            if ran_ms >= STABLE_AFTER_MS {
                slot.backoff.reset();
            }
            slot.backoff.next_bound_ms()
        };
        slot.not_before = now.plus_ms(wait_ms);
        if fate != Fate::NeverStarted {
            self.last_trouble = trouble(instance.slot, status);
        }
    }

    fn tell(&self, now: Timestamp) {
        let status = self.status_at(now);
        self.status.send_if_modified(|old| {
            let changed = *old != status;
            *old = status;
            changed
        });
    }

    fn status_at(&self, now: Timestamp) -> ServiceStatus {
        let is_current = |instance: &Instance| instance.version == self.version;
        let running = |instance: &&Instance| {
            is_current(instance) && !instance.ending && instance.state == TaskState::Running
        };
        let wanted = if self.stop_deadline.is_some() {
            0
        } else {
            self.spec.instances
        };
        let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        let instances = &self.instances;
        ServiceStatus {
            framework_id: self.framework_id.as_ref().map(ToString::to_string),
            connected: self.connected,
            wanted,
            running: count(instances.values().filter(running).count()),
            outdated: count(instances.values().filter(|i| !is_current(i)).count()),
            restarts: self.restarts,
            waiting_for: self.waiting_for(now),
            instances: instances
                .iter()
                .map(|(task_id, instance)| InstanceStatus {
                    task_id: task_id.to_string(),
                    slot: instance.slot,
                    agent_id: instance
                        .agent_id
                        .as_ref()
                        .map(ToString::to_string)
                        .unwrap_or_default(),
                    hostname: instance.hostname.clone(),
                    state: instance.state.name(),
                    current: is_current(instance),
                    ending: instance.ending,
                })
                .collect(),
        }
    }

    fn waiting_for(&self, now: Timestamp) -> String {
        if self.stop_deadline.is_some() {
            return String::new();
        }
        if !self.connected {
            return "the master is not connected".to_owned();
        }
        let plan = self.plan(now);
        let backing_off = self
            .slots
            .iter()
            .find(|(slot, state)| **slot < self.spec.instances && state.not_before > now);
        match (plan.launch.is_empty(), self.lack, backing_off) {
            (false, Some(lack), _) => {
                format!("no offer holds {}; the best one lacks {lack}", self.wanted)
            }
            (false, None, _) => "offers are awaited".to_owned(),
            (true, _, Some(_)) => {
                format!("{}; it is started again after a wait", self.last_trouble)
            }
            (true, _, None) => self.stuck(now),
        }
    }
}

impl Service {
    /// What keeps instances on agents that will be out of use, as a sentence; empty if nothing does.
    fn stuck(&self, now: Timestamp) -> String {
        let here = self.agents_with(Instance::is_present);
        let hosts = self.leaving.stuck_on(now, &here);
        if hosts.is_empty() {
            return String::new();
        }
        let (hosts, wanted) = (hosts.join(", "), self.wanted);
        format!(
            "{hosts} will be out of use, and no other agent offers {wanted}; add one, or free some"
        )
    }
}

/// Wait before an instance is launched anew that certainly never started, in milliseconds.
const NEVER_STARTED_WAIT_MS: u64 = 100;

fn new_slot() -> Slot {
    Slot::new(RESTART_FIRST_MS, RESTART_CAP_MS)
}

fn trouble(slot: u32, status: &TaskStatus) -> String {
    let how = match status.exit {
        Some(ExitStatus::Code(code)) => format!("exit code {code}"),
        Some(ExitStatus::Signal(signal)) => format!("signal {signal}"),
        None => status.message.clone(),
    };
    format!("instance {slot} ended with {} ({how})", status.state.name())
}

/// The version and the slot in a task id of this service.
fn parse(stem: &str, task_id: &str) -> Option<(String, u32)> {
    let mut parts = task_id.strip_prefix(stem)?.strip_prefix('.')?.split('.');
    let version = parts.next()?.to_owned();
    let slot = parts.next()?.parse().ok()?;
    (parts.count() == 1).then_some((version, slot))
}

impl Scheduler for Service {
    fn subscribed(&mut self, calls: &mut Calls, subscribed: &Subscribed) -> Outcome {
        self.connected = true;
        self.subscribed = true;
        self.leaving.subscribed();
        if self.framework_id.as_ref() != Some(&subscribed.framework_id) {
            self.framework_id = Some(subscribed.framework_id.clone());
            self.save()?;
        }
        if !subscribed.again {
            for (task_id, instance) in &self.instances {
                calls.watch(task_id.clone(), instance.agent_id.clone());
            }
        }
        self.settle(calls);
        Ok(())
    }

    fn offers(&mut self, calls: &mut Calls, offers: Vec<Offer>) -> Outcome {
        let now = calls.now();
        offers.iter().for_each(|offer| self.leaving.offered(offer));
        let plan = self.plan(now);
        let unheld = plan.launch.len();
        let slots = [plan.launch, plan.moves].concat();
        let placed = self.place(now, &slots, &offers)?;
        let starving = placed.is_empty() && unheld > 0;
        self.lack = offers
            .iter()
            .filter(|offer| starving && !fit(&self.wanted, offer))
            .map(|offer| lacking(&self.wanted, offer))
            .min_by_key(ToString::to_string);
        if starving {
            self.starved_since.get_or_insert(now);
        } else {
            self.starved_since = None;
        }
        self.launch(calls, &offers, placed)?;
        self.settle(calls);
        Ok(())
    }

    fn update(&mut self, calls: &mut Calls, status: &TaskStatus) -> Outcome {
        let now = calls.now();
        if status.state == TaskState::Unknown {
            // Its agent is not known either. Should it come back, the instance is taken over again.
            self.instances.remove(&status.task_id);
        } else if !self.instances.contains_key(&status.task_id) && !status.state.is_terminal() {
            let agent_id = status.agent_id.clone();
            self.adopt(status.task_id.clone(), agent_id, String::new());
        }
        let Some(instance) = self.instances.get_mut(&status.task_id) else {
            self.settle(calls);
            return Ok(());
        };
        instance.state = status.state;
        if status.agent_id.is_some() {
            instance.agent_id.clone_from(&status.agent_id);
        }
        if status.state == TaskState::Running {
            instance.running_since.get_or_insert(now);
        }
        let fate = fate(status, instance.heard);
        instance.heard |= is_heard(status.state);
        if fate != Fate::Alive
            && let Some(instance) = self.instances.remove(&status.task_id)
        {
            self.ended(now, &instance, status, fate);
            self.save()?;
        }
        self.settle(calls);
        Ok(())
    }

    fn inverse_offers(&mut self, calls: &mut Calls, offers: &[InverseOffer]) -> Outcome {
        offers.iter().for_each(|offer| self.leaving.asked(offer));
        self.settle(calls);
        Ok(())
    }

    fn inverse_rescinded(&mut self, calls: &mut Calls, offer_id: &OfferId) -> Outcome {
        self.leaving.withdrawn(offer_id);
        self.settle(calls);
        Ok(())
    }

    fn woken(&mut self, calls: &mut Calls) -> Outcome {
        self.take_orders(calls);
        self.settle(calls);
        Ok(())
    }

    fn disconnected(&mut self, calls: &mut Calls, _cause: &str) -> Outcome {
        self.connected = false;
        self.tell(calls.now());
        Ok(())
    }
}
