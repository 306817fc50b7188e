//! What agents say once they are registered, and what they are told.

use std::sync::Arc;

use ebb_types::limits::MAX_RECENT_CORRECTIONS;
use ebb_types::{
    AgentId, AgentToMaster, AgentUsage, Correction, Event, ExecutorId, FrameworkId, Incarnation,
    MasterToAgent, Quantities,
};

use super::input::{ConnectionId, Effect};
use super::remains::Runner;
use super::state::Core;
use crate::ledger::Transition;

impl Core {
    pub(super) fn on_agent(
        &mut self,
        connection: ConnectionId,
        incarnation: Incarnation,
        message: AgentToMaster,
    ) {
        match message {
            AgentToMaster::Register { info, incarnation } => {
                self.register(connection, info, incarnation);
            }
            AgentToMaster::Reregister {
                info,
                incarnation,
                tasks,
                executors,
                oversubscribed,
            } => self.reregister(
                connection,
                info,
                incarnation,
                tasks,
                executors,
                oversubscribed,
            ),
            message => {
                if let Some(agent_id) = self.speaker(connection, incarnation) {
                    self.on_agent_message(&agent_id, message);
                }
            }
        }
    }

    /// The agent that speaks, unless another connection or incarnation has taken its place.
    fn speaker(&mut self, connection: ConnectionId, incarnation: Incarnation) -> Option<AgentId> {
        let Some(id) = self.links.get(&connection) else {
            self.counters.stale_messages += 1;
            self.emit(Effect::CloseAgent {
                connection,
                reason: String::from(
                    "No agent is registered on this connection; register on a new one",
                ),
            });
            return None;
        };
        let agent = self.agents.get_mut(id).filter(|agent| {
            agent.connection == Some(connection) && agent.incarnation == incarnation
        });
        match agent {
            Some(agent) => {
                agent.last_heard = self.now;
                Some(id.clone())
            }
            None => {
                self.counters.stale_messages += 1;
                None
            }
        }
    }

    fn on_agent_message(&mut self, agent_id: &AgentId, message: AgentToMaster) {
        match message {
            // Handled by `on_agent`. A heartbeat has done its work by being heard.
            AgentToMaster::Register { .. }
            | AgentToMaster::Reregister { .. }
            | AgentToMaster::Heartbeat => {}
            AgentToMaster::Update {
                framework_id,
                status,
                latest_state,
            } => self.on_update(agent_id, &framework_id, status, latest_state),
            AgentToMaster::Oversubscribed(amount) => self.on_oversubscribed(agent_id, amount),
            AgentToMaster::Usage(usage) => self.on_usage(agent_id, usage),
            AgentToMaster::Classes(classes) => self.on_classes(agent_id, classes),
            AgentToMaster::LotsApplied { version } => self.on_lots_applied(agent_id, version),
            AgentToMaster::Message {
                framework_id,
                executor_id,
                data,
            } => {
                let event = Event::Message {
                    agent_id: agent_id.clone(),
                    executor_id,
                    data,
                };
                if !self.tell_event(&framework_id, event) {
                    self.counters.messages_dropped += 1;
                }
            }
            AgentToMaster::ExecutorExited {
                framework_id,
                executor_id,
                status,
            } => self.on_executor_exited(agent_id, framework_id, executor_id, status),
        }
    }

    /// An agent lends another amount. Offers that it no longer covers are withdrawn; as long as all
    /// that is out is covered they stand, unlike in Mesos, which withdraws them at every change.
    fn on_oversubscribed(&mut self, agent_id: &AgentId, amount: Quantities) {
        let Some(agent) = self.agents.get_mut(agent_id) else {
            return;
        };
        if agent.oversubscribed == amount {
            return;
        }
        if !amount.is_within_bounds() {
            self.counters.calls_invalid += 1;
            return;
        }
        agent.oversubscribed = amount;
        let total = agent.info.total;
        let out = agent
            .holding
            .offered
            .saturating_add(&agent.holding.allocated);
        let whole = agent.whole();
        self.roles.set_agent(agent_id, whole, amount);
        self.changed = true;
        self.wake.insert(agent_id.clone());
        self.transit(
            agent_id,
            Transition::Resize {
                total,
                oversubscribed: amount,
            },
        );
        if !amount.contains(&out.revocable) {
            self.rescind_agent(agent_id, true);
        }
        self.agent_changed(agent_id);
    }

    fn on_usage(&mut self, agent_id: &AgentId, usage: AgentUsage) {
        if let Some(agent) = self.agents.get_mut(agent_id) {
            let mut usage = usage;
            usage.recent = recent(agent.usage.as_deref(), &usage.corrections);
            agent.usage = Some(Arc::new(usage));
        }
        self.agent_changed(agent_id);
    }

    fn on_executor_exited(
        &mut self,
        agent_id: &AgentId,
        framework_id: FrameworkId,
        executor_id: ExecutorId,
        status: i32,
    ) {
        let runner = Runner::Executor(executor_id.clone());
        self.end_remains(agent_id, &framework_id, runner);
        let key = (framework_id, executor_id);
        let executor = self
            .agents
            .get_mut(agent_id)
            .and_then(|agent| agent.executors.remove(&key));
        let Some(executor) = executor else {
            self.counters.stale_messages += 1;
            return;
        };
        let (framework_id, executor_id) = key;
        self.executor_gone(agent_id, &framework_id, &executor_id);
        let owner = (&framework_id, &executor.role);
        self.recover(owner, None, agent_id, &executor.info.resources);
        self.recover_lots(owner, agent_id, &executor.lots);
        let event = Event::Failure {
            agent_id: Some(agent_id.clone()),
            executor_id: Some(executor_id),
            status: Some(status),
        };
        self.tell_event(&framework_id, event);
    }

    /// Sends an event to a framework; whether it is connected.
    pub(super) fn tell_event(&mut self, framework_id: &FrameworkId, event: Event) -> bool {
        let connection = self
            .frameworks
            .get(framework_id)
            .and_then(|framework| framework.connection);
        let Some(connection) = connection else {
            return false;
        };
        self.emit(Effect::ToScheduler { connection, event });
        true
    }

    /// Tells every connected framework that an agent is lost.
    pub(super) fn tell_failure(&mut self, agent_id: &AgentId) {
        for connection in self.schedulers.keys() {
            self.effects.push(Effect::ToScheduler {
                connection: *connection,
                event: Event::Failure {
                    agent_id: Some(agent_id.clone()),
                    executor_id: None,
                    status: None,
                },
            });
        }
    }

    /// Sends something to an agent if it is connected.
    pub(super) fn order(&mut self, agent_id: &AgentId, message: MasterToAgent) {
        let connection = self.agents.get(agent_id).and_then(|agent| agent.connection);
        match connection {
            Some(connection) => self.emit(Effect::ToAgent {
                connection,
                message,
            }),
            None => self.counters.messages_dropped += 1,
        }
    }
}

/// The last corrections of an agent: those that were kept and those that have come.
fn recent(before: Option<&AgentUsage>, come: &[Correction]) -> Vec<Correction> {
    let kept = before.map_or(&[][..], |usage| &usage.recent);
    let left_out = (kept.len() + come.len()).saturating_sub(MAX_RECENT_CORRECTIONS);
    kept.iter().chain(come).skip(left_out).cloned().collect()
}
