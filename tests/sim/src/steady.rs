//! A master that never crashes: its core, ledger and planner, one input after another. For runs in which nothing goes
//! wrong, at scale and over a day.
//!
//! Nothing is restarted, so nothing need be durable. What is published is followed before a pass of the allocator, which
//! is due whenever something was woken.

use std::collections::BTreeSet;

use ebb_master::allocator::{MAX_AGENTS_PER_PASS, Proposal, pass};
use ebb_master::core::allocate::Planner;
use ebb_master::core::record::Restored;
use ebb_master::core::{ConnectionId, Core, CoreConfig, Effect, Input};
use ebb_master::ledger::Ledger;
use ebb_types::{AgentId, Event, Generation, MasterToAgent, Timestamp};

/// What it says to somebody.
pub(crate) enum Said {
    Scheduler(ConnectionId, Event),
    Agent(ConnectionId, MasterToAgent),
}

pub(crate) struct Master {
    pub(crate) core: Core,
    pub(crate) ledger: Ledger,
    pub(crate) planner: Planner,
    awake: BTreeSet<AgentId>,
    all_awake: bool,
}

impl Master {
    pub(crate) fn new(now_ms: u64, cluster: &str) -> Self {
        let restored = Restored {
            cluster: cluster.to_owned(),
            generation: Generation(1),
            ..Restored::default()
        };
        let now = Timestamp::from_ms(now_ms);
        let core = Core::new(now, CoreConfig::default(), restored);
        Self {
            planner: Planner::new(core.claims().copy()),
            core,
            ledger: Ledger::new(),
            awake: BTreeSet::new(),
            all_awake: false,
        }
    }

    /// Hands an input to the core, and says what it says.
    ///
    /// # Errors
    /// A sentence about an effect that does not fit.
    pub(crate) fn step(&mut self, now_ms: u64, input: Input) -> Result<Vec<Said>, String> {
        let mut said = Vec::new();
        for effect in self.core.step(Timestamp::from_ms(now_ms), input) {
            match effect {
                Effect::Persist(_) | Effect::Publish => {}
                Effect::ToScheduler { connection, event } => {
                    said.push(Said::Scheduler(connection, event));
                }
                Effect::ToAgent {
                    connection,
                    message,
                } => said.push(Said::Agent(connection, message)),
                Effect::InsertSlot {
                    agent_id,
                    number,
                    ledger,
                } => {
                    self.ledger.insert(agent_id, number, ledger);
                }
                Effect::Ledger {
                    agent_id,
                    incarnation,
                    transition,
                } => {
                    let applied = self.ledger.apply(&agent_id, incarnation, &transition);
                    applied.map_err(|refused| {
                        format!("the ledger refuses {transition:?} of {agent_id}: {refused}")
                    })?;
                }
                Effect::Wake(agents) => self.awake.extend(agents),
                Effect::WakeAll | Effect::WakeHeldBack => self.all_awake = true,
                Effect::Answer {
                    outcome: Ok(()), ..
                } => {}
                effect => return Err(format!("nothing here asks for {effect:?}")),
            }
        }
        Ok(said)
    }

    /// Whether the allocator has something to look at.
    pub(crate) fn has_work(&self) -> bool {
        self.all_awake || !self.awake.is_empty()
    }

    /// A pass of the allocator over as many agents as a worker thread takes at most.
    pub(crate) fn plan(&mut self) -> Vec<Proposal> {
        if std::mem::take(&mut self.all_awake) {
            self.awake.extend(self.ledger.slots().keys().cloned());
        }
        let now: Vec<AgentId> = std::iter::from_fn(|| self.awake.pop_first())
            .take(MAX_AGENTS_PER_PASS)
            .collect();
        self.follow();
        pass(&self.ledger, &mut self.planner, &now)
    }

    fn follow(&mut self) {
        self.planner.follow(&self.core.publish());
    }

    /// When the core wants to be asked again, if that is by then.
    pub(crate) fn due_by(&self, at_ms: u64) -> Option<u64> {
        let due_ms = self.core.next_deadline().map(Timestamp::as_ms);
        due_ms.filter(|due_ms| *due_ms <= at_ms)
    }

    /// Holds its books against each other, reading all of them.
    ///
    /// # Errors
    /// A sentence about what does not hold.
    pub(crate) fn check(&mut self) -> Result<(), String> {
        self.follow();
        let slot = |id: &_| self.ledger.get(id).map(|slot| slot.load());
        let checked = self.core.check();
        let checked = checked.and_then(|()| self.core.check_ledger(slot, []));
        checked.map_err(|violation| violation.to_string())?;
        let balanced = self.ledger.check();
        balanced.map_err(|imbalance| imbalance.to_string())?;
        for (claims, whose) in [
            (self.core.claims(), "core"),
            (self.planner.claims(), "planner"),
        ] {
            if let Some(fault) = claims.fault() {
                return Err(format!("the {whose}'s book of claims: {fault}"));
            }
        }
        Ok(())
    }
}
