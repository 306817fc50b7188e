//! The agents that will be out of use, as far as a service has instances on them: when to begin to move, and what to
//! answer.
//!
//! Instances move [`EXPECTED_RUN_MS`] before a window begins, because until then other agents are no better: nothing is
//! placed where a window begins sooner, so what has moved need not move again for the same reason.
//!
//! # Invariants
//! * Each inverse offer is answered once at most.
//! * What is known is forgotten when the window is over, the inverse offer is withdrawn, or an offer of the agent says
//!   otherwise; it outlives a connection, on which the master asks anew.

use std::collections::{BTreeMap, BTreeSet};

use ebb_types::{AgentId, InverseOffer, Offer, OfferId, Timestamp, Unavailability};

use super::spec::MOVE_PATIENCE_MS;
use crate::offers::EXPECTED_RUN_MS;

#[derive(Clone, Debug)]
struct Agent {
    hostname: String,
    window: Unavailability,
    /// The question that is not answered.
    open: Option<OfferId>,
}

impl Agent {
    /// From when on instances are to move.
    fn begin(&self) -> Timestamp {
        let ms = self.window.start.as_ms();
        Timestamp::from_ms(ms.saturating_sub(EXPECTED_RUN_MS))
    }

    fn is_over(&self, now: Timestamp) -> bool {
        self.window.end().is_some_and(|end| end <= now)
    }
}

/// What to answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Answers {
    pub(super) accept: Vec<OfferId>,
    pub(super) decline: Vec<OfferId>,
}

/// The agents that will be out of use.
#[derive(Clone, Debug, Default)]
pub(super) struct Leaving {
    agents: BTreeMap<AgentId, Agent>,
    /// Since when no offer has held an instance that is to move.
    stuck_since: Option<Timestamp>,
}

impl Leaving {
    /// The service is asked to be gone from an agent.
    pub(super) fn asked(&mut self, offer: &InverseOffer) {
        let agent = Agent {
            hostname: offer.hostname.clone(),
            window: offer.unavailability,
            open: Some(offer.id.clone()),
        };
        self.agents.insert(offer.agent_id.clone(), agent);
    }

    /// It is asked no longer.
    pub(super) fn withdrawn(&mut self, offer_id: &OfferId) {
        self.agents
            .retain(|_, agent| agent.open.as_ref() != Some(offer_id));
    }

    /// An offer says when its agent will be out of use, or that it will not.
    pub(super) fn offered(&mut self, offer: &Offer) {
        match offer.unavailability {
            None => {
                self.agents.remove(&offer.agent_id);
            }
            Some(window) => {
                let agent = self.agents.entry(offer.agent_id.clone());
                let agent = agent.or_insert_with(|| Agent {
                    hostname: offer.hostname.clone(),
                    window,
                    open: None,
                });
                agent.window = window;
            }
        }
    }

    /// A new subscription: what was asked before is void.
    pub(super) fn subscribed(&mut self) {
        for agent in self.agents.values_mut() {
            agent.open = None;
        }
    }

    /// An instance that moves has found its place.
    pub(super) const fn placed(&mut self) {
        self.stuck_since = None;
    }

    /// The agents that instances are to leave now.
    pub(super) fn due(&self, now: Timestamp) -> BTreeSet<AgentId> {
        let due = self
            .agents
            .iter()
            .filter(|(_, agent)| agent.begin() < now && !agent.is_over(now));
        due.map(|(id, _)| id.clone()).collect()
    }

    /// Answers what can be answered: yes when nothing is left of an agent but what is ending, no when what is there has
    /// found no other place for [`MOVE_PATIENCE_MS`]. `here` are the agents with instances that are not ending, `any`
    /// those with any; `moving` says whether some wait for a place.
    pub(super) fn settle(
        &mut self,
        now: Timestamp,
        here: &BTreeSet<AgentId>,
        any: &BTreeSet<AgentId>,
        moving: bool,
    ) -> Answers {
        match moving {
            true => {
                self.stuck_since.get_or_insert(now);
            }
            false => self.stuck_since = None,
        }
        let stuck = self.gives_up_at().is_some_and(|at| at <= now);
        let mut answers = Answers::default();
        for (id, agent) in &mut self.agents {
            if !here.contains(id) {
                answers.accept.extend(agent.open.take());
            } else if stuck && agent.begin() < now {
                answers.decline.extend(agent.open.take());
            }
        }
        self.agents
            .retain(|id, agent| !agent.is_over(now) && any.contains(id));
        answers
    }

    fn gives_up_at(&self) -> Option<Timestamp> {
        self.stuck_since
            .map(|since| since.plus_ms(MOVE_PATIENCE_MS))
    }

    /// When time alone changes something.
    pub(super) fn look_again_at(&self, now: Timestamp) -> Option<Timestamp> {
        let begins = self.agents.values().map(|agent| agent.begin().plus_ms(1));
        let ends = self.agents.values().filter_map(|agent| agent.window.end());
        let all = begins.chain(ends).chain(self.gives_up_at());
        all.filter(|at| *at > now).min()
    }

    /// The hosts of agents that instances should have left but have not, for people.
    pub(super) fn stuck_on(&self, now: Timestamp, here: &BTreeSet<AgentId>) -> Vec<&str> {
        if self.gives_up_at().is_none_or(|at| at > now) {
            return Vec::new();
        }
        let stuck = self
            .agents
            .iter()
            .filter(|(id, agent)| here.contains(*id) && agent.begin() < now);
        stuck.map(|(_, agent)| agent.hostname.as_str()).collect()
    }
}
