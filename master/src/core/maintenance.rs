//! Maintenance: the windows that operators schedule, and asking frameworks to be gone by then.
//!
//! A window is of a machine: of one agent, or of all agents of a host name, those too that join later. Of two that concern
//! an agent a started one counts before one that is to come, then its own. It is durable. While it is to come, the agent is offered as ever, with its unavailability; when a window is set,
//! changed or cancelled, offers that do not say so are withdrawn. Whoever has live tasks or executors on the agent gets an
//! *inverse offer*, once its answer is as old as the filter that came with it asks for. To *start* the maintenance is to
//! drain the agents (`activity.rs`), to *stop* it is to reactivate them and to forget the window; a window that is over
//! and was never started is forgotten by itself.
//!
//! What is asked of whom follows from the books: [`Core::settle_maintenance`] looks at the agents of which something has
//! changed and makes, renews or withdraws inverse offers. Answers are not durable: after a start of the master frameworks
//! are asked again.
//!
//! Invariants: an inverse offer that is out is of a registered agent with a window to come, to a connected framework; a
//! framework has at most one for each agent.

use std::collections::{BTreeMap, BTreeSet};

use ebb_types::limits::MAX_REFUSE_MS;
use ebb_types::{
    AgentAnswer, AgentId, Event, Filters, FrameworkId, InverseAnswer, InverseOffer, Machine,
    MaintenanceMode, MaintenanceState, OfferId, Timestamp, Unavailability, Window,
};

use super::check::Violation;
use super::input::{ConnectionId, Effect, OperatorError};
use super::limits::{MAX_INVERSE_OFFERS, MAX_WINDOWS, MIN_INVERSE_REFUSE_MS};
use super::news::News;
use super::record::{Activity, RegistryWrite};
use super::state::Core;
use super::timers::Deadline;

/// What a framework was asked about an agent.
#[derive(Clone, Debug)]
struct Asked {
    /// The inverse offer that is out.
    offer: Option<OfferId>,
    unavailability: Unavailability,
    answer: InverseAnswer,
    at: Timestamp,
    /// When it may be asked again.
    next: Timestamp,
}

/// A machine's window, and what was asked because of it.
#[derive(Debug)]
struct Held {
    unavailability: Unavailability,
    mode: MaintenanceMode,
    asked: BTreeMap<(AgentId, FrameworkId), Asked>,
}

/// All that is known of maintenance.
#[derive(Debug, Default)]
pub(super) struct Maintenance {
    windows: BTreeMap<Machine, Held>,
    /// The inverse offers that are out.
    out: BTreeMap<OfferId, (Machine, AgentId, FrameworkId)>,
    /// Registered agents that have a window.
    affected: BTreeSet<AgentId>,
    /// Agents to be looked at in this step.
    dirty: BTreeSet<AgentId>,
    /// Machines of which operators have yet to be told.
    changed: BTreeSet<Machine>,
}

impl Maintenance {
    /// Something has changed on an agent: who holds it, or how it stands.
    pub(super) fn touch(&mut self, id: &AgentId) {
        if self.affected.contains(id) {
            self.dirty.insert(id.clone());
        }
    }

    /// An agent has come, or come back, perhaps as another host.
    pub(super) fn see(&mut self, id: &AgentId) {
        if !self.windows.is_empty() {
            self.dirty.insert(id.clone());
        }
    }

    /// The window that concerns an agent: one that is started before one that is to come, its own before its host's.
    fn of(&self, id: &AgentId, hostname: &str) -> Option<(Machine, &Held)> {
        let find = |machine: Machine| {
            let held = self.windows.get(&machine)?;
            Some((machine, held))
        };
        let own = find(Machine::Agent(id.clone()));
        let is_down = |found: &(Machine, &Held)| found.1.mode == MaintenanceMode::Down;
        if own.as_ref().is_some_and(is_down) {
            return own;
        }
        let of_host = find(Machine::Host(hostname.to_owned()));
        if of_host.as_ref().is_some_and(is_down) {
            return of_host;
        }
        own.or(of_host)
    }

    fn line(&self, machine: &Machine) -> Option<MaintenanceState> {
        let held = self.windows.get(machine)?;
        let answers = held.asked.iter();
        Some(MaintenanceState {
            window: Window {
                machine: machine.clone(),
                unavailability: held.unavailability,
                mode: held.mode,
            },
            agents: Vec::new(),
            answers: answers
                .map(|((agent_id, framework_id), asked)| AgentAnswer {
                    agent_id: agent_id.clone(),
                    framework_id: framework_id.clone(),
                    answer: asked.answer,
                    at: asked.at,
                })
                .collect(),
        })
    }
}

impl Core {
    /// Schedules windows, all or none; a machine's earlier one is replaced.
    pub(super) fn schedule_maintenance(
        &mut self,
        windows: Vec<(Machine, Unavailability)>,
    ) -> Result<(), OperatorError> {
        let wanted: BTreeMap<Machine, Unavailability> = windows.into_iter().collect();
        let known = &self.maintenance.windows;
        let added = wanted
            .keys()
            .filter(|machine| !known.contains_key(*machine));
        if known.len() + added.count() > MAX_WINDOWS {
            return Err(OperatorError::TooManyWindows { max: MAX_WINDOWS });
        }
        for (machine, unavailability) in &wanted {
            self.check_machine(machine)?;
            if unavailability.end().is_some_and(|end| end <= self.now) {
                return Err(OperatorError::WindowOver(machine.clone()));
            }
            let held = known.get(machine);
            if held.is_some_and(|held| held.mode == MaintenanceMode::Down) {
                return Err(OperatorError::MachineDown(machine.clone()));
            }
        }
        let mode = MaintenanceMode::Scheduled;
        for (machine, unavailability) in wanted {
            self.persist_window(&machine, unavailability, mode);
            self.put_window(&machine, unavailability, mode);
        }
        Ok(())
    }

    fn check_machine(&self, machine: &Machine) -> Result<(), OperatorError> {
        match machine {
            Machine::Agent(id)
                if !self.agents.contains_key(id) && !self.absent.contains_key(id) =>
            {
                Err(OperatorError::NoAgent(id.clone()))
            }
            _ => Ok(()),
        }
    }

    fn persist_window(
        &mut self,
        machine: &Machine,
        unavailability: Unavailability,
        mode: MaintenanceMode,
    ) {
        let window = Window {
            machine: machine.clone(),
            unavailability,
            mode,
        };
        self.emit(Effect::Persist(vec![RegistryWrite::PutWindow(window)]));
    }

    fn put_window(
        &mut self,
        machine: &Machine,
        unavailability: Unavailability,
        mode: MaintenanceMode,
    ) {
        self.clear_window_end(machine);
        let asked = self.maintenance.windows.remove(machine);
        let held = Held {
            unavailability,
            mode,
            asked: asked.map(|held| held.asked).unwrap_or_default(),
        };
        self.maintenance.windows.insert(machine.clone(), held);
        if let (Some(end), MaintenanceMode::Scheduled) = (unavailability.end(), mode) {
            self.set_timer(end, Deadline::WindowEnd(machine.clone()));
        }
        self.window_changed(machine);
    }

    fn clear_window_end(&mut self, machine: &Machine) {
        let held = self.maintenance.windows.get(machine);
        if let Some(end) = held.and_then(|held| held.unavailability.end()) {
            self.timers.clear(end, Deadline::WindowEnd(machine.clone()));
        }
    }

    /// Offers of its agents that are out do not say so.
    fn window_changed(&mut self, machine: &Machine) {
        for id in self.agents_of(machine) {
            self.rescind_agent(&id, false);
            self.maintenance.dirty.insert(id);
        }
        self.maintenance.changed.insert(machine.clone());
    }

    /// The registered agents that are meant.
    fn agents_of(&self, machine: &Machine) -> Vec<AgentId> {
        match machine {
            Machine::Agent(id) => Vec::from_iter(self.agents.contains_key(id).then(|| id.clone())),
            Machine::Host(name) => {
                let agents = self.agents.iter();
                let of_host = agents.filter(|(_, agent)| agent.info.hostname == *name);
                of_host.map(|(id, _)| id.clone()).collect()
            }
        }
    }

    /// Calls off windows that have not been started, all or none.
    pub(super) fn cancel_maintenance(&mut self, machines: &[Machine]) -> Result<(), OperatorError> {
        for machine in machines {
            match self.mode_of(machine)? {
                MaintenanceMode::Scheduled => {}
                MaintenanceMode::Down => return Err(OperatorError::MachineDown(machine.clone())),
            }
        }
        for machine in machines {
            self.drop_window(machine);
        }
        Ok(())
    }

    fn mode_of(&self, machine: &Machine) -> Result<MaintenanceMode, OperatorError> {
        let held = self.maintenance.windows.get(machine);
        held.map(|held| held.mode)
            .ok_or_else(|| OperatorError::NoWindow(machine.clone()))
    }

    fn drop_window(&mut self, machine: &Machine) {
        self.clear_window_end(machine);
        let Some(held) = self.maintenance.windows.remove(machine) else {
            return;
        };
        let gone = machine.clone();
        self.emit(Effect::Persist(vec![RegistryWrite::RemoveWindow(gone)]));
        for ((_, framework_id), asked) in held.asked {
            self.withdraw(&framework_id, asked.offer);
        }
        self.window_changed(machine);
    }

    /// Takes the agents of machines out of use: drains them.
    pub(super) fn start_maintenance(&mut self, machines: &[Machine]) -> Result<(), OperatorError> {
        for machine in machines {
            self.mode_of(machine)?;
        }
        for machine in machines {
            let held = self.maintenance.windows.get(machine);
            let Some(unavailability) = held.map(|held| held.unavailability) else {
                continue;
            };
            let mode = MaintenanceMode::Down;
            self.persist_window(machine, unavailability, mode);
            self.put_window(machine, unavailability, mode);
        }
        Ok(())
    }

    /// Brings the agents of machines back into use and forgets the windows, all or none.
    pub(super) fn stop_maintenance(&mut self, machines: &[Machine]) -> Result<(), OperatorError> {
        let mut back = BTreeSet::new();
        for machine in machines {
            if self.mode_of(machine)? == MaintenanceMode::Scheduled {
                return Err(OperatorError::NotStarted(machine.clone()));
            }
            for (id, activity) in self.activities_of(machine) {
                match activity {
                    Activity::Draining { .. } if self.agents.contains_key(&id) => {
                        return Err(OperatorError::StillDraining(id));
                    }
                    Activity::Drained | Activity::Draining { .. } => back.extend([id]),
                    Activity::Active | Activity::Deactivated => {}
                }
            }
        }
        for machine in machines {
            self.drop_window(machine);
        }
        for id in &back {
            if self.down_machine(id).is_some() {
                // It has a window of its own that is started, too.
            } else if self.agents.contains_key(id) {
                self.reactivate(id)?;
            } else {
                // One that is out of reach cannot be waited for.
                self.set_activity(id, Activity::Active);
                self.agent_changed(id);
            }
        }
        Ok(())
    }

    /// All known agents that are meant, registered or not.
    fn activities_of(&self, machine: &Machine) -> Vec<(AgentId, Activity)> {
        let registered = self.agents.iter().map(|(id, a)| (id, &a.info, a.activity));
        let absent = self.absent.iter().map(|(id, a)| (id, &a.info, a.activity));
        let all = registered.chain(absent);
        let meant = all.filter(|(id, info, _)| match machine {
            Machine::Agent(agent) => agent == *id,
            Machine::Host(name) => info.hostname == *name,
        });
        meant
            .map(|(id, _, activity)| (id.clone(), activity))
            .collect()
    }

    /// The machine whose maintenance has taken an agent out of use.
    pub(super) fn down_machine(&self, id: &AgentId) -> Option<Machine> {
        let registered = self.agents.get(id).map(|agent| &agent.info);
        let info = registered.or_else(|| self.absent.get(id).map(|absent| &absent.info));
        let held = info.and_then(|info| self.maintenance.of(id, &info.hostname));
        held.filter(|(_, held)| held.mode == MaintenanceMode::Down)
            .map(|(machine, _)| machine)
    }

    /// A window that was never started is over.
    pub(super) fn window_due(&mut self, machine: &Machine) {
        let held = self.maintenance.windows.get(machine);
        let is_over = held.is_some_and(|held| {
            let end = held.unavailability.end();
            held.mode == MaintenanceMode::Scheduled && end.is_some_and(|end| end <= self.now)
        });
        if is_over {
            self.drop_window(machine);
        }
    }

    /// A framework may be asked again about an agent.
    pub(super) fn inverse_due(&mut self, id: &AgentId) {
        self.maintenance.touch(id);
    }

    /// When an agent will be out of use, if that is known.
    pub(super) fn unavailability(&self, id: &AgentId) -> Option<Unavailability> {
        if self.maintenance.windows.is_empty() {
            return None;
        }
        let agent = self.agents.get(id)?;
        let (_, held) = self.maintenance.of(id, &agent.info.hostname)?;
        Some(held.unavailability)
    }

    /// Looks at the agents of which something has changed in this step, and tells operators of it.
    pub(super) fn settle_maintenance(&mut self) {
        for id in std::mem::take(&mut self.maintenance.dirty) {
            self.settle_agent(&id);
        }
        for machine in std::mem::take(&mut self.maintenance.changed) {
            if self.observed {
                let news = match self.maintenance.line(&machine) {
                    Some(line) => News::Window(Box::new(line)),
                    None => News::WindowGone(machine),
                };
                self.news.push(news);
            }
        }
    }

    fn settle_agent(&mut self, id: &AgentId) {
        let agent = self.agents.get(id);
        let found = agent.and_then(|agent| self.maintenance.of(id, &agent.info.hostname));
        let window = found.map(|(machine, held)| (machine, held.mode, held.unavailability));
        if window.is_some() {
            self.maintenance.affected.insert(id.clone());
        } else {
            self.maintenance.affected.remove(id);
        }
        let is_in_use = agent.is_some_and(|agent| {
            matches!(agent.activity, Activity::Active | Activity::Deactivated)
        });
        let (asking, holders) = match &window {
            Some((machine, MaintenanceMode::Scheduled, _)) => (Some(machine), self.holders(id)),
            Some((_, MaintenanceMode::Down, _)) => {
                // One that has joined, or come back, since the start.
                if is_in_use && self.drain(id, None).is_err() {
                    debug_assert!(false, "{id} is registered and cannot be drained");
                }
                (None, BTreeSet::new())
            }
            None => (None, BTreeSet::new()),
        };
        self.withdraw_all_but(id, asking, &holders);
        if let Some((machine, MaintenanceMode::Scheduled, unavailability)) = window {
            for framework_id in holders {
                self.ask(&machine, (id, &framework_id), unavailability);
            }
        }
    }

    /// The frameworks that have live tasks or executors on an agent.
    fn holders(&self, id: &AgentId) -> BTreeSet<FrameworkId> {
        let Some(agent) = self.agents.get(id) else {
            return BTreeSet::new();
        };
        let is_live = |framework_id: &FrameworkId, task_id| {
            let framework = self.frameworks.get(framework_id);
            let task = framework.and_then(|framework| framework.tasks.get(task_id));
            task.is_some_and(|task| !task.state.is_terminal())
        };
        let tasks = agent.tasks.iter().filter(|key| is_live(&key.0, &key.1));
        let executors = agent.executors.keys().map(|(framework_id, _)| framework_id);
        let holders = tasks.map(|key| &key.0).chain(executors);
        holders.cloned().collect()
    }

    /// Withdraws what was asked about an agent, but of those who hold something there still, because of that machine.
    fn withdraw_all_but(
        &mut self,
        id: &AgentId,
        asking: Option<&Machine>,
        holders: &BTreeSet<FrameworkId>,
    ) {
        let mut withdrawn = Vec::new();
        for (machine, held) in &mut self.maintenance.windows {
            let is_asking = asking == Some(machine);
            let gone = held.asked.extract_if(.., |(agent_id, framework_id), _| {
                agent_id == id && !(is_asking && holders.contains(framework_id))
            });
            for ((_, framework_id), asked) in gone {
                self.maintenance.changed.insert(machine.clone());
                withdrawn.push((framework_id, asked.offer));
            }
        }
        for (framework_id, offer) in withdrawn {
            self.withdraw(&framework_id, offer);
        }
    }

    /// Withdraws an inverse offer, if it is out.
    fn withdraw(&mut self, framework_id: &FrameworkId, offer: Option<OfferId>) {
        if let Some(id) = offer
            && self.maintenance.out.remove(&id).is_some()
        {
            self.tell_event(framework_id, Event::RescindInverseOffer(id));
        }
    }

    /// Asks a framework to be gone from an agent, if it was not asked or may be asked again.
    fn ask(
        &mut self,
        machine: &Machine,
        (id, framework_id): (&AgentId, &FrameworkId),
        unavailability: Unavailability,
    ) {
        let framework = self.frameworks.get(framework_id);
        let Some(connection) = framework.and_then(|framework| framework.connection) else {
            return;
        };
        let key = (id.clone(), framework_id.clone());
        let held = self.maintenance.windows.get(machine);
        let asked = held.and_then(|held| held.asked.get(&key)).cloned();
        if let Some(asked) = &asked
            && asked.unavailability == unavailability
            && (asked.offer.is_some() || asked.next > self.now)
        {
            return;
        }
        self.withdraw(
            framework_id,
            asked.as_ref().and_then(|asked| asked.offer.clone()),
        );
        if self.maintenance.out.len() >= MAX_INVERSE_OFFERS {
            self.counters.inverse_offers_held += 1;
            return;
        }
        let (Ok(offer_id), Some(agent)) = (self.ids.offer(), self.agents.get(id)) else {
            return;
        };
        let offer = InverseOffer {
            id: offer_id.clone(),
            framework_id: framework_id.clone(),
            agent_id: id.clone(),
            hostname: agent.info.hostname.clone(),
            unavailability,
        };
        let is_same = |asked: &&Asked| asked.unavailability == unavailability;
        let last = asked.as_ref().filter(is_same);
        let entry = Asked {
            offer: Some(offer_id.clone()),
            unavailability,
            answer: last.map_or(InverseAnswer::Open, |asked| asked.answer),
            at: last.map_or(self.now, |asked| asked.at),
            next: self.now,
        };
        if let Some(held) = self.maintenance.windows.get_mut(machine) {
            held.asked.insert(key.clone(), entry);
            let out = (machine.clone(), key.0, key.1);
            self.maintenance.out.insert(offer_id, out);
        }
        self.maintenance.changed.insert(machine.clone());
        self.counters.inverse_offers_made += 1;
        self.emit(Effect::ToScheduler {
            connection,
            event: Event::InverseOffers(vec![offer]),
        });
    }

    /// Takes in a framework's answer to inverse offers; unknown ones are ignored. It is asked again when the filter ends.
    pub(super) fn answer_inverse(
        &mut self,
        framework_id: &FrameworkId,
        ids: &[OfferId],
        (answer, filters): (InverseAnswer, Filters),
    ) {
        let wait_ms = filters
            .refuse_ms
            .clamp(MIN_INVERSE_REFUSE_MS, MAX_REFUSE_MS);
        let next = self.now.plus_ms(wait_ms);
        for id in ids {
            let own = self.maintenance.out.get(id);
            if own.is_none_or(|(_, _, asked)| asked != framework_id) {
                continue;
            }
            let Some((machine, agent_id, _)) = self.maintenance.out.remove(id) else {
                continue;
            };
            let key = (agent_id.clone(), framework_id.clone());
            let held = self.maintenance.windows.get_mut(&machine);
            if let Some(asked) = held.and_then(|held| held.asked.get_mut(&key)) {
                asked.offer = None;
                asked.answer = answer;
                asked.at = self.now;
                asked.next = next;
            }
            self.counters.inverse_offers_answered += 1;
            self.maintenance.changed.insert(machine);
            self.set_timer(next, Deadline::Inverse(agent_id));
        }
    }

    /// A framework's scheduler is gone, or is another: inverse offers that it was made are void. It is asked anew when it
    /// is back.
    pub(super) fn forget_inverse_offers(&mut self, framework_id: &FrameworkId) {
        let maintenance = &mut self.maintenance;
        let void = maintenance
            .out
            .extract_if(.., |_, (_, _, asked)| asked == framework_id);
        for (_, (machine, agent_id, framework_id)) in void {
            let held = maintenance.windows.get_mut(&machine);
            if let Some(asked) = held.and_then(|held| held.asked.get_mut(&(agent_id, framework_id)))
            {
                asked.offer = None;
            }
        }
    }

    /// A framework's scheduler is connected: it may have to be asked.
    pub(super) fn ask_anew(&mut self) {
        let affected = self.maintenance.affected.iter().cloned();
        self.maintenance.dirty.extend(affected);
    }

    /// Takes in what the registry holds.
    pub(super) fn restore_windows(&mut self, windows: Vec<Window>) {
        for window in windows {
            self.put_window(&window.machine, window.unavailability, window.mode);
        }
    }

    /// All windows as news.
    pub(super) fn window_news(&self) -> impl Iterator<Item = News> {
        let machines = self.maintenance.windows.keys();
        let lines = machines.filter_map(|machine| self.maintenance.line(machine));
        lines.map(|line| News::Window(Box::new(line)))
    }

    /// All windows as operators see them.
    pub(super) fn maintenance_states(&self) -> Vec<MaintenanceState> {
        let machines = self.maintenance.windows.keys();
        let lines = machines.filter_map(|machine| self.maintenance.line(machine));
        lines
            .map(|line| MaintenanceState {
                agents: self.agents_at(&line.window.machine),
                ..line
            })
            .collect()
    }

    fn agents_at(&self, machine: &Machine) -> Vec<AgentId> {
        let all = self.activities_of(machine).into_iter().map(|(id, _)| id);
        BTreeSet::from_iter(all).into_iter().collect()
    }

    pub(super) fn check_maintenance(&self) -> Result<(), Violation> {
        for (id, (machine, agent_id, framework_id)) in &self.maintenance.out {
            let held = self.maintenance.windows.get(machine);
            let key = (agent_id.clone(), framework_id.clone());
            let asked = held.and_then(|held| held.asked.get(&key));
            let connection: Option<ConnectionId> =
                (self.frameworks.get(framework_id)).and_then(|framework| framework.connection);
            let is_of_window = held.is_some_and(|held| held.mode == MaintenanceMode::Scheduled)
                && asked.is_some_and(|asked| asked.offer.as_ref() == Some(id));
            if !is_of_window || connection.is_none() || !self.agents.contains_key(agent_id) {
                return Err(Violation(format!(
                    "inverse offer {id} about agent {agent_id} to {framework_id} has lost its reason"
                )));
            }
        }
        for (id, offer) in &self.offers {
            if offer.unavailability != self.unavailability(&offer.agent_id) {
                return Err(Violation(format!(
                    "offer {id} says wrongly when its agent will be out of use"
                )));
            }
        }
        Ok(())
    }
}
