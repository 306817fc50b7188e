//! How agents come, go and come back.
//!
//! An agent is *registered* (connected or not), or *absent*: awaited since the master started, or
//! unreachable. Becoming registered for the first time and becoming unreachable are durable before
//! anybody hears of them. A registration of a later incarnation, or of the same on another
//! connection, takes the place of the one before; one of an earlier incarnation is refused. Every
//! registration has a number of its own in the ledger, so that what was planned on the one before
//! is void.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ebb_types::limits::{MAX_ATTRIBUTES, MAX_NAME_BYTES};
use ebb_types::{
    AgentId, AgentInfo, Incarnation, MasterToAgent, Quantities, Resources, RunningExecutor,
    RunningTask, Timestamp,
};

use super::input::{ConnectionId, Effect};
use super::limits::{MAX_AGENTS, MAX_EXECUTORS_PER_AGENT, MAX_TASKS_PER_AGENT};
use super::record::{Activity, AgentRecord, RegistryWrite};
use super::remains::Remains;
use super::state::{Absence, Agent, Core, Holding};
use super::task::is_of_agents;
use super::timers::Deadline;
use crate::ledger::AgentLedger;

impl Core {
    pub(super) fn register(
        &mut self,
        connection: ConnectionId,
        mut info: AgentInfo,
        incarnation: Incarnation,
    ) {
        if let Some(id) = self.links.get(&connection).cloned() {
            // The same agent asks again.
            self.greet(connection, &id);
            return;
        }
        if let Err(message) = check_agent(&info) {
            self.refuse_agent(connection, message);
            return;
        }
        if info.id.is_some() {
            let message = "An agent that has an id must register anew with it and its tasks";
            self.refuse_agent(connection, message.to_owned());
            return;
        }
        if self.agents.len() >= MAX_AGENTS {
            let message = format!("The master has {MAX_AGENTS} agents and takes no more");
            self.refuse_agent(connection, message);
            return;
        }
        let id = match self.ids.agent() {
            Ok(id) => id,
            Err(error) => {
                self.refuse_agent(connection, error.to_string());
                return;
            }
        };
        info.id = Some(id.clone());
        self.counters.agents_admitted += 1;
        self.insert_agent(&id, info, self.now, Activity::Active);
        self.connect_agent(connection, &id, incarnation, Quantities::ZERO);
        self.persist_agent(&id);
        self.greet(connection, &id);
        self.agent_changed(&id);
    }

    pub(super) fn reregister(
        &mut self,
        connection: ConnectionId,
        info: AgentInfo,
        incarnation: Incarnation,
        tasks: Vec<RunningTask>,
        executors: Vec<RunningExecutor>,
        oversubscribed: Quantities,
    ) {
        let checked = check_agent(&info)
            .and_then(|()| check_belongings(&tasks, &executors, &oversubscribed))
            .and_then(|()| self.check_claim(connection, &info, incarnation));
        let id = match checked {
            Ok(id) => id,
            Err(message) => {
                self.refuse_agent(connection, message);
                return;
            }
        };
        if self.is_repetition(connection, &id, incarnation) {
            return;
        }
        self.counters.agents_reregistered += 1;
        self.leave_connection(&id, Some(connection));
        let absent = self.absent.remove(&id);
        let absence = absent.as_ref().map(|absent| absent.absence);
        if let Some(Absence::Recovered { deadline }) = absence {
            self.awaited -= 1;
            self.timers.clear(deadline, Deadline::Recovery(id.clone()));
        }
        let unchanged = match (&absent, self.agents.get(&id)) {
            (Some(absent), _) => {
                *absent.info == info && matches!(absent.absence, Absence::Recovered { .. })
            }
            (None, Some(agent)) => *agent.info == info,
            (None, None) => false,
        };
        match self.agents.get_mut(&id) {
            Some(agent) => agent.info = Arc::new(info),
            None => {
                let (since, activity) = absent.map_or((self.now, Activity::Active), |absent| {
                    (absent.registered_at, absent.activity)
                });
                self.insert_agent(&id, info, since, activity);
            }
        }
        self.settle_operations(&id);
        self.connect_agent(connection, &id, incarnation, oversubscribed);
        if !unchanged {
            self.persist_agent(&id);
        }
        self.greet(connection, &id);
        let returns = matches!(absence, Some(Absence::Unreachable { .. }));
        self.adopt(&id, tasks, executors, returns);
        self.resend_kills(&id);
        self.go_on_draining(&id);
        self.agent_changed(&id);
    }

    /// Whether a registration is one that was taken in already, or was overtaken by one on a newer
    /// connection: what it brings along is not what the agent has now.
    fn is_repetition(
        &mut self,
        connection: ConnectionId,
        id: &AgentId,
        incarnation: Incarnation,
    ) -> bool {
        let Some(agent) = self.agents.get(id) else {
            return false;
        };
        if agent.incarnation != incarnation {
            return false;
        }
        if agent.connection == Some(connection) {
            self.greet(connection, id);
            return true;
        }
        if connection < agent.newest {
            self.counters.stale_messages += 1;
            self.emit(Effect::CloseAgent {
                connection,
                reason: format!("Agent {id} has registered on a newer connection"),
            });
            return true;
        }
        false
    }

    /// The id under which an agent may come back, or why it may not.
    fn check_claim(
        &self,
        connection: ConnectionId,
        info: &AgentInfo,
        incarnation: Incarnation,
    ) -> Result<AgentId, String> {
        let Some(id) = info.id.clone() else {
            return Err(String::from("An agent without an id must register as new"));
        };
        if self
            .links
            .get(&connection)
            .is_some_and(|other| *other != id)
        {
            return Err(format!(
                "Another agent than {id} is registered on this connection"
            ));
        }
        let registered = self.agents.get(&id).map(|agent| agent.incarnation);
        let absent = self.absent.get(&id).and_then(|absent| absent.incarnation);
        if let Some(known) = registered.or(absent)
            && incarnation < known
        {
            return Err(format!(
                "Agent {id} is in incarnation {} by now, and this is incarnation {}; a later process has taken its place, so end this one",
                known.0, incarnation.0
            ));
        }
        if registered.is_none() && self.agents.len() >= MAX_AGENTS {
            return Err(format!(
                "The master has {MAX_AGENTS} agents and takes no more"
            ));
        }
        Ok(id)
    }

    fn insert_agent(
        &mut self,
        id: &AgentId,
        info: AgentInfo,
        registered_at: Timestamp,
        activity: Activity,
    ) {
        let silence_at = self.now.plus_ms(self.config.unreachable_after_ms);
        self.set_timer(silence_at, Deadline::Silence(id.clone()));
        let agent = Agent {
            info: Arc::new(info),
            incarnation: Incarnation::default(),
            registration: Incarnation::default(),
            connection: None,
            newest: ConnectionId(0),
            activity,
            in_ledger: false,
            registered_at,
            last_heard: self.now,
            silence_at,
            oversubscribed: Quantities::ZERO,
            holding: Holding::default(),
            lots: self.lots.account(id),
            offers: BTreeSet::new(),
            tasks: BTreeSet::new(),
            executors: BTreeMap::new(),
            remains: Remains::default(),
            pending_kills: BTreeMap::new(),
            usage: None,
        };
        self.agents.insert(id.clone(), agent);
    }

    fn connect_agent(
        &mut self,
        connection: ConnectionId,
        id: &AgentId,
        incarnation: Incarnation,
        oversubscribed: Quantities,
    ) {
        let registration = self.ids.registration();
        let Some(agent) = self.agents.get_mut(id) else {
            return;
        };
        agent.connection = Some(connection);
        agent.newest = connection;
        agent.incarnation = incarnation;
        agent.registration = registration;
        agent.last_heard = self.now;
        agent.oversubscribed = oversubscribed;
        self.links.insert(connection, id.clone());
        let whole = agent.whole();
        let named = agent.info.lots.named_amounts().into();
        self.roles.set_agent(id, whole, oversubscribed);
        if let Some(number) = self.roles.agent_number(id) {
            self.roles.set_named(number, named);
        }
        self.gate.see_agent(&mut self.roles, &agent.info);
        self.maintenance.see(id);
        self.touch_lots(id);
        self.roles.void_agent_refusals(id);
        self.changed = true;
        self.enter_ledger.insert(id.clone());
    }

    fn greet(&mut self, connection: ConnectionId, id: &AgentId) {
        let message = MasterToAgent::Registered {
            agent_id: id.clone(),
            generation: self.generation,
            heartbeat_interval_ms: self.config.heartbeat_interval_ms,
            unreachable_after_ms: self.config.unreachable_after_ms,
        };
        self.emit(Effect::ToAgent {
            connection,
            message,
        });
    }

    fn refuse_agent(&mut self, connection: ConnectionId, message: String) {
        self.counters.agents_refused += 1;
        self.emit(Effect::ToAgent {
            connection,
            message: MasterToAgent::Refused {
                message: message.clone(),
            },
        });
        self.emit(Effect::CloseAgent {
            connection,
            reason: message,
        });
        self.agent_gone(connection);
    }

    /// Puts a connected agent into the ledger, unless an operator has deactivated it or its tasks hold
    /// more than it has (it came back smaller): then it is offered from when enough of them have ended.
    pub(super) fn insert_slot(&mut self, id: &AgentId) {
        let Some(agent) = self.agents.get_mut(id) else {
            return;
        };
        let fits = agent.info.total.contains(&agent.holding.allocated.regular);
        let active = agent.activity == Activity::Active;
        let fits = fits && agent.has_lots_held();
        if agent.in_ledger || agent.connection.is_none() || !active || !fits {
            return;
        }
        agent.in_ledger = true;
        self.outside.insert(id.clone());
        self.lots.touch(id);
        let mut ledger =
            AgentLedger::new(agent.registration, agent.info.total, agent.oversubscribed);
        ledger.allocated = agent.holding.allocated;
        ledger.offered = agent.holding.offered;
        let Some(number) = self.roles.agent_number(id) else {
            debug_assert!(false, "{id} is registered and has no number");
            return;
        };
        self.emit(Effect::InsertSlot {
            agent_id: id.clone(),
            number,
            ledger,
        });
        self.wake.insert(id.clone());
    }

    pub(super) fn agent_gone(&mut self, connection: ConnectionId) {
        let Some(id) = self.links.get(&connection).cloned() else {
            return;
        };
        self.leave_connection(&id, Some(connection));
        self.agent_changed(&id);
    }

    /// Takes an agent's offers back and takes it out of the ledger. `heir` is the connection that
    /// need not be closed: its own, when it has ended already or is registered upon anew.
    pub(super) fn leave_connection(&mut self, id: &AgentId, heir: Option<ConnectionId>) {
        self.leave_ledger(id);
        let Some(agent) = self.agents.get_mut(id) else {
            return;
        };
        let connection = agent.connection.take();
        let Some(connection) = connection else { return };
        self.links.remove(&connection);
        if heir != Some(connection) {
            self.emit(Effect::CloseAgent {
                connection,
                reason: format!(
                    "Agent {id} is registered elsewhere or out of reach; register anew"
                ),
            });
        }
    }

    /// Takes an agent's offers back and takes it out of the ledger.
    pub(super) fn leave_ledger(&mut self, id: &AgentId) {
        self.rescind_agent(id, false);
        self.remove_slot(id);
    }

    /// Takes an agent out of the ledger; its offers stay in the books, for when it is put back in this step.
    pub(super) fn remove_slot(&mut self, id: &AgentId) {
        let Some(agent) = self.agents.get_mut(id) else {
            return;
        };
        if std::mem::take(&mut agent.in_ledger) {
            self.outside.insert(id.clone());
            self.emit(Effect::RemoveSlot {
                agent_id: id.clone(),
            });
        }
    }

    pub(super) fn persist_agent(&mut self, id: &AgentId) {
        let Some(agent) = self.agents.get(id) else {
            return;
        };
        let record = AgentRecord {
            info: (*agent.info).clone(),
            registered_at: agent.registered_at,
            unreachable_since: None,
            activity: agent.activity,
        };
        self.emit(Effect::Persist(vec![RegistryWrite::PutAgent(record)]));
    }
}

fn check_agent(info: &AgentInfo) -> Result<(), String> {
    let whole = info.total.saturating_add(&info.lots.quantities());
    if !info.total.is_within_bounds() || !whole.is_within_bounds() {
        return Err(format!(
            "The agent reports {}, which is more than can be counted; correct its configuration",
            info.total
        ));
    }
    if info.hostname.len() > MAX_NAME_BYTES || info.attributes.len() > MAX_ATTRIBUTES {
        return Err(format!(
            "The agent's host name is longer than {MAX_NAME_BYTES} bytes or it has more than {MAX_ATTRIBUTES} attributes; correct its configuration"
        ));
    }
    Ok(())
}

/// What an agent brings along must be countable.
fn check_belongings(
    tasks: &[RunningTask],
    executors: &[RunningExecutor],
    oversubscribed: &Quantities,
) -> Result<(), String> {
    if tasks.len() > MAX_TASKS_PER_AGENT || executors.len() > MAX_EXECUTORS_PER_AGENT {
        return Err(format!(
            "The agent brings {} tasks and {} executors along; at most {MAX_TASKS_PER_AGENT} and {MAX_EXECUTORS_PER_AGENT} are taken",
            tasks.len(),
            executors.len()
        ));
    }
    if let Some(task) = tasks.iter().find(|task| !is_of_agents(task.state)) {
        return Err(format!(
            "The agent brings task {} along as {}, which only a master can find; update the agent",
            task.info.task_id,
            task.state.name()
        ));
    }
    let held = tasks.iter().map(RunningTask::resources);
    let run = executors.iter().map(|executor| executor.info.resources);
    let sum = held
        .chain(run)
        .try_fold(Resources::ZERO, |sum, part| sum.checked_add(&part))
        .filter(|sum| sum.regular.is_within_bounds() && sum.revocable.is_within_bounds());
    if sum.is_none() || !oversubscribed.is_within_bounds() {
        return Err(String::from(
            "The agent's tasks hold more, or it lends more, than can be counted; clear its work folder",
        ));
    }
    Ok(())
}
