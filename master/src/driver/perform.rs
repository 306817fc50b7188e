//! Performing effects: durable writes first, then connections and the ledger in order, then the
//! allocator, once a batch.

use std::collections::HashMap;

use ebb_types::{AgentId, Incarnation, Timestamp};

use super::outbox::{Cut, Outbox, Unsent};
use super::{Driver, DriverError};
use crate::allocator::MAX_AGENTS_AT_ONCE;
use crate::core::allocate::Planner;
use crate::core::record::RegistryWrite;
use crate::core::{ConnectionId, Effect, Input};
use crate::ledger::{Refused, Transition};
use crate::metrics::DriverFigures;

/// How often a transition that was contended is tried again before it counts as lost.
const MAX_LEDGER_RETRIES: u32 = 1000;

/// What one batch leaves to do at its end.
#[derive(Default)]
struct Round {
    publish: bool,
    wake: Vec<AgentId>,
    wake_all: bool,
    wake_held_back: bool,
    lost: Vec<Input>,
}

impl Driver {
    /// Performs effects, and the effects of the connections that are lost on the way.
    pub(super) async fn perform(
        &mut self,
        now: Timestamp,
        effects: Vec<Effect>,
    ) -> Result<(), DriverError> {
        let mut round = Round::default();
        self.settle(now, effects, &mut round).await?;
        self.wake_held_back(&mut round);
        // What is little is offered again at once: no thread has to be woken for it, and no book is newer than this one.
        if !round.wake_all && (1..=MAX_AGENTS_AT_ONCE).contains(&round.wake.len()) {
            let agents = std::mem::take(&mut round.wake);
            let allocator = &self.allocator;
            let plan = |planner: &mut Planner| allocator.plan_at_once(planner, &agents);
            let proposals = self.core.plan(plan);
            if !proposals.is_empty() {
                let batch = None;
                let input = Input::Proposals { batch, proposals };
                let effects = self.core.step(now, input);
                self.settle(now, effects, &mut round).await?;
            }
        }
        self.wake_held_back(&mut round);
        self.publish(&mut round);
        if round.wake_all {
            self.allocator.wake_all();
        } else if !round.wake.is_empty() {
            self.allocator.wake_ids(&round.wake);
        }
        Ok(())
    }

    fn wake_held_back(&mut self, round: &mut Round) {
        if std::mem::take(&mut round.wake_held_back) && !round.wake_all {
            self.publish(round);
            self.allocator.wake_held_back();
        }
    }

    fn publish(&mut self, round: &mut Round) {
        if std::mem::take(&mut round.publish) {
            let entries = self.core.publish();
            self.allocator
                .publish(&entries, || self.core.claims().copy());
        }
    }

    /// Performs all but what concerns the allocator, which is left in the round.
    async fn settle(
        &mut self,
        now: Timestamp,
        mut effects: Vec<Effect>,
        round: &mut Round,
    ) -> Result<(), DriverError> {
        loop {
            self.persist(&mut effects).await?;
            // Before anybody is told of it, so that whoever is told and then reads finds it.
            let news = self.core.news();
            self.feed.push(now, news, || self.core.everything());
            if effects.is_empty() {
                break;
            }
            for effect in effects.drain(..) {
                self.perform_one(effect, round);
            }
            for input in std::mem::take(&mut round.lost) {
                effects.extend(self.core.step(now, input));
            }
        }
        Ok(())
    }

    /// Makes the writes of all effects durable, before any of them is performed.
    async fn persist(&mut self, effects: &mut [Effect]) -> Result<(), DriverError> {
        let mut writes: Vec<RegistryWrite> = Vec::new();
        for effect in effects {
            if let Effect::Persist(more) = effect {
                writes.append(more);
            }
        }
        if writes.is_empty() {
            return Ok(());
        }
        self.figures.registry_writes += writes.len() as u64;
        let seconds = self.registry.commit(writes).await?;
        self.figures.note_commit(seconds);
        Ok(())
    }

    fn perform_one(&mut self, effect: Effect, round: &mut Round) {
        match effect {
            // Made durable before.
            Effect::Persist(_) => {}
            Effect::ToScheduler { connection, event } => {
                if let Some(lost) = send(&mut self.schedulers, connection, event, &mut self.figures)
                {
                    round.lost.push(Input::SchedulerGone { connection: lost });
                }
            }
            Effect::ToAgent {
                connection,
                message,
            } => {
                if let Some(lost) = send(&mut self.agents, connection, message, &mut self.figures) {
                    round.lost.push(Input::AgentGone { connection: lost });
                }
            }
            Effect::CloseScheduler { connection, reason } => {
                tracing::info!(
                    connection = connection.0,
                    reason,
                    "a scheduler's connection is ended"
                );
                // Its last event says why.
                self.schedulers.remove(&connection);
            }
            Effect::CloseAgent { connection, reason } => {
                tracing::info!(
                    connection = connection.0,
                    reason,
                    "an agent's connection is ended"
                );
                if let Some(outbox) = self.agents.remove(&connection) {
                    outbox.end(Cut::Closed(reason));
                }
            }
            Effect::InsertSlot {
                agent_id,
                number,
                ledger,
            } => {
                self.ledger.insert(agent_id, number, ledger);
            }
            Effect::RemoveSlot { agent_id } => {
                self.ledger.remove(&agent_id);
            }
            Effect::Ledger {
                agent_id,
                incarnation,
                transition,
            } => self.transit(&agent_id, incarnation, &transition),
            Effect::Publish => round.publish = true,
            Effect::Wake(agents) => round.wake.extend(agents),
            Effect::WakeAll => round.wake_all = true,
            Effect::WakeHeldBack => round.wake_held_back = true,
            Effect::Answer { request, outcome } => {
                if let Some(answer) = self.answers.remove(&request) {
                    let _unheard = answer.send(outcome).is_err();
                }
            }
        }
    }

    /// The core's books say that a transition is possible; only other threads' exchanges can be in
    /// its way.
    fn transit(&mut self, agent_id: &AgentId, incarnation: Incarnation, transition: &Transition) {
        let mut result = self.ledger.apply(agent_id, incarnation, transition);
        for _ in 0..MAX_LEDGER_RETRIES {
            if !matches!(result, Err(Refused::Contended { .. })) {
                break;
            }
            std::hint::spin_loop();
            result = self.ledger.apply(agent_id, incarnation, transition);
        }
        if let Err(refused) = result {
            self.figures.ledger_disagreements += 1;
            tracing::error!(%agent_id, ?transition, %refused, "the ledger and the master's books disagree");
            debug_assert!(false, "{agent_id}: {transition:?}: {refused}");
        }
    }
}

/// Hands a message to a connection; that connection, if it is lost by that.
fn send<T>(
    outboxes: &mut HashMap<ConnectionId, Outbox<T>>,
    connection: ConnectionId,
    message: T,
    figures: &mut DriverFigures,
) -> Option<ConnectionId> {
    let unsent = outboxes.get(&connection)?.push(message).err()?;
    let outbox = outboxes.remove(&connection)?;
    if unsent == Unsent::Full {
        figures.slow_readers_cut += 1;
        outbox.cut_off();
    }
    Some(connection)
}
