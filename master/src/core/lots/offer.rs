//! Who is offered which lots.
//!
//! Lots take no part in the order of need (all but the amounts of each kind among the reserved, which count as
//! held). With a plain offer ride all free lots of the agent that its framework may use in the offer's role. What is
//! reserved for a role and large enough to be offered by itself, and that no plain offer to that role or one below it has
//! taken along for [`LOTS_WAIT_MS`], is offered alone, to the neediest below that role who has not refused it.
//!
//! A refusal of such an offer stands while no more is free for who has refused than was refused; it ends with its
//! time or when its framework revives.

use std::collections::BTreeSet;

use ebb_types::limits::MAX_REFUSE_MS;
use ebb_types::{
    AgentId, Capability, Event, Filters, FrameworkId, GPUS, LotKey, Lots, Offer, Role, Timestamp,
};

use super::is_for;
use crate::core::input::{ConnectionId, Effect};
use crate::core::limits::{
    LOTS_WAIT_MS, MAX_LOT_REFUSALS, MAX_OFFERS, MAX_RANGES_PER_OFFER, is_allocatable,
};
use crate::core::state::{Core, Framework};
use crate::core::timers::Deadline;

/// What was refused, until when.
#[derive(Debug)]
pub(super) struct Refusal {
    expires: Timestamp,
    refused: Lots,
}

impl Framework {
    fn may_use(&self, key: &LotKey) -> bool {
        (key.name != GPUS || self.info.has(Capability::GpuResources))
            && (!key.shared || self.info.has(Capability::SharedResources))
    }
}

impl Core {
    /// The free lots of an agent that a framework may be offered in a role.
    pub(in crate::core) fn lots_for(
        &self,
        owner: (&FrameworkId, &Role),
        agent_id: &AgentId,
    ) -> Lots {
        self.within_lot_limits(owner.1, self.usable_lots(owner, agent_id))
    }

    /// The same, whatever limits of named lots say.
    pub(super) fn usable_lots(
        &self,
        (framework_id, role): (&FrameworkId, &Role),
        agent_id: &AgentId,
    ) -> Lots {
        let (Some(framework), Some(agent)) =
            (self.frameworks.get(framework_id), self.agents.get(agent_id))
        else {
            return Lots::NONE;
        };
        if agent.info.lots.is_none() {
            return Lots::NONE;
        }
        let free = agent.free_lots();
        let lots = free.only(|key| {
            is_for(key, role)
                && framework.may_use(key)
                && !(key.shared && self.has_offer_of(framework, agent_id, key))
        });
        self.within_limits(role, lots)
            .with_at_most(MAX_RANGES_PER_OFFER)
    }

    /// Whether a shared lot is out to a framework already.
    fn has_offer_of(&self, framework: &Framework, agent_id: &AgentId, key: &LotKey) -> bool {
        let mut offers = framework.offers.iter().filter_map(|id| self.offers.get(id));
        offers.any(|offer| offer.agent_id == *agent_id && offer.lots.get(key).is_some())
    }

    /// Those that take no role beyond its limits: what is reserved for a role counts towards its limits and those above
    /// it whoever holds it, and towards those below it once it is held there.
    fn within_limits(&self, role: &Role, lots: Lots) -> Lots {
        if !self.roles.has_quotas() || lots.charged().is_zero() {
            return lots;
        }
        let states = self.roles.quotas_above(role);
        lots.only(|key| {
            let more = lots.only(|one| one == key).charged();
            states.iter().all(|state| {
                let is_counted = (key.role()).is_some_and(|of| of.is_within(&state.role));
                let mut limits = state.quota.limits.iter();
                is_counted
                    || limits.all(|(kind, limit)| {
                        state.held.get(kind).saturating_add(more.get(kind)) <= limit
                            || more.get(kind) == 0
                    })
            })
        })
    }

    /// Offers what is free of the lots that this step has touched, or sees to it that it is offered soon.
    pub(in crate::core) fn offer_touched_lots(&mut self) {
        for agent_id in std::mem::take(&mut self.lots.touched) {
            self.look_at_lots(&agent_id);
        }
    }

    /// Has a look at the reservations of all agents.
    pub(in crate::core) fn touch_all_lots(&mut self) {
        let with_lots = self.agents.iter().filter(|(_, agent)| {
            let mut lots = agent.info.lots.iter();
            lots.any(|(key, _)| key.role().is_some())
        });
        let ids: Vec<AgentId> = with_lots.map(|(id, _)| id.clone()).collect();
        self.lots.touched.extend(ids);
    }

    fn look_at_lots(&mut self, agent_id: &AgentId) {
        let now = self.now;
        let Some(agent) = self.agents.get_mut(agent_id) else {
            return;
        };
        let reserved = |key: &LotKey| key.role().is_some();
        let free = agent.free_lots().only(reserved);
        if !agent.in_ledger || !is_allocatable(&free.charged()) {
            return;
        }
        match agent.lots.due {
            Some(due) if due <= now => agent.lots.due = None,
            Some(_) => return,
            None => {
                let due = now.plus_ms(LOTS_WAIT_MS);
                agent.lots.due = Some(due);
                self.set_timer(due, Deadline::Lots(agent_id.clone()));
                return;
            }
        }
        let roles: BTreeSet<Role> = free
            .iter()
            .filter_map(|(key, _)| key.role().cloned())
            .collect();
        // Those further down first: what is reserved for a role above rides along.
        for role in roles.into_iter().rev() {
            if let Some((framework_id, role, lots)) = self.neediest_for_lots(agent_id, &role) {
                self.offer_lots_alone(agent_id, framework_id, role, lots);
            } else if !self.lots.limits.is_empty() {
                self.lots.held_back.insert(agent_id.clone());
            }
        }
    }

    pub(in crate::core) fn lots_due(&mut self, agent_id: &AgentId) {
        self.lots.touch(agent_id);
    }

    /// Who is to be offered what is reserved for a role, and all that it is offered with it.
    fn neediest_for_lots(
        &self,
        agent_id: &AgentId,
        reserved: &Role,
    ) -> Option<(FrameworkId, Role, Lots)> {
        let mut best = None;
        for (id, framework) in &self.frameworks {
            if framework.connection.is_none() {
                continue;
            }
            let roles = framework.info.roles.iter();
            for role in roles.filter(|role| role.is_within(reserved)) {
                let lots = self.lots_for((id, role), agent_id);
                let own = lots.only(|key| key.role() == Some(reserved));
                let all = lots.only(|key| key.role().is_some());
                if framework.suppressed.contains(role)
                    || own.is_none()
                    || !self.roles.may_choose((id, role), agent_id, &all.charged())
                    || self.has_refused_lots((id, role), agent_id, &lots)
                {
                    continue;
                }
                let need = self.roles.needs_below(id, role, reserved);
                if best.as_ref().is_none_or(|(least, _)| need < *least) {
                    best = Some((need, (id.clone(), role.clone(), lots)));
                }
            }
        }
        best.map(|(_, chosen)| chosen)
    }

    fn offer_lots_alone(
        &mut self,
        agent_id: &AgentId,
        framework_id: FrameworkId,
        role: Role,
        lots: Lots,
    ) {
        let Some(connection) = self
            .frameworks
            .get(&framework_id)
            .and_then(|framework| framework.connection)
        else {
            return;
        };
        if self.offers.len() >= MAX_OFFERS {
            return;
        }
        let agent_id = agent_id.clone();
        let offer = self.put_offer(agent_id, framework_id, role, None, lots);
        if let Some(offer) = offer {
            self.send_offers(connection, vec![offer]);
        }
    }

    pub(in crate::core) fn send_offers(&mut self, connection: ConnectionId, offers: Vec<Offer>) {
        self.counters.offers_made += offers.len() as u64;
        self.emit(Effect::ToScheduler {
            connection,
            event: Event::Offers(offers),
        });
    }

    /// Remembers that lots were refused; a time of 0 is none.
    pub(in crate::core) fn refuse_lots(
        &mut self,
        (framework_id, role): (&FrameworkId, &Role),
        agent_id: &AgentId,
        lots: &Lots,
        filters: Filters,
    ) {
        if filters.refuse_ms == 0 || lots.iter().all(|(key, _)| key.role().is_none()) {
            return;
        }
        let of_agent = self.lots.refusals.entry(agent_id.clone()).or_default();
        let key = (framework_id.clone(), role.clone());
        if !of_agent.contains_key(&key) && self.lots.refusal_count >= MAX_LOT_REFUSALS {
            self.counters.lot_refusals_dropped += 1;
            return;
        }
        let refusal = Refusal {
            expires: self.now.plus_ms(filters.refuse_ms.min(MAX_REFUSE_MS)),
            refused: lots.clone(),
        };
        let is_new = of_agent.insert(key, refusal).is_none();
        self.lots.refusal_count += usize::from(is_new);
        self.set_refusal_timer(agent_id);
    }

    /// One timer an agent: for the refusal that ends first.
    fn set_refusal_timer(&mut self, agent_id: &AgentId) {
        let of_agent = self.lots.refusals.get(agent_id);
        let first = of_agent.and_then(|all| all.values().map(|one| one.expires).min());
        if first.is_none() {
            self.lots.refusals.remove(agent_id);
        }
        let known = match first {
            Some(first) => self.lots.refusal_timers.insert(agent_id.clone(), first),
            None => self.lots.refusal_timers.remove(agent_id),
        };
        if known == first {
            return;
        }
        let deadline = Deadline::LotRefusals(agent_id.clone());
        if let Some(known) = known {
            self.timers.clear(known, deadline.clone());
        }
        if let Some(first) = first {
            self.set_timer(first, deadline);
        }
    }

    fn has_refused_lots(
        &self,
        (framework_id, role): (&FrameworkId, &Role),
        agent_id: &AgentId,
        lots: &Lots,
    ) -> bool {
        let key = (framework_id.clone(), role.clone());
        let of_agent = self.lots.refusals.get(agent_id);
        let refusal = of_agent.and_then(|all| all.get(&key));
        refusal.is_some_and(|refusal| refusal.expires > self.now && refusal.refused.covers(lots))
    }

    /// Forgets refusals of an agent's lots.
    pub(super) fn keep_lot_refusals(
        &mut self,
        agent_id: &AgentId,
        is_kept: impl Fn(&(FrameworkId, Role), &Refusal) -> bool,
    ) {
        if let Some(of_agent) = self.lots.refusals.get_mut(agent_id) {
            let before = of_agent.len();
            of_agent.retain(|by, refusal| is_kept(by, refusal));
            self.lots.refusal_count -= before - of_agent.len();
            self.set_refusal_timer(agent_id);
        }
    }

    fn forget_lot_refusals(&mut self, is_meant: impl Fn(&(FrameworkId, Role)) -> bool) {
        let agents: Vec<AgentId> = self.lots.refusals.keys().cloned().collect();
        for agent_id in agents {
            self.keep_lot_refusals(&agent_id, |by, _| !is_meant(by));
        }
    }

    /// A framework wants to be offered again what it has refused in a role.
    pub(in crate::core) fn void_lot_refusals(&mut self, framework_id: &FrameworkId, role: &Role) {
        self.forget_lot_refusals(|(by, of)| by == framework_id && of == role);
        self.touch_all_lots();
    }

    /// A framework is no more.
    pub(in crate::core) fn forget_lot_refusals_of(&mut self, framework_id: &FrameworkId) {
        self.forget_lot_refusals(|(by, _)| by == framework_id);
    }

    /// A refusal of an agent's lots may have ended.
    pub(in crate::core) fn lot_refusals_due(&mut self, agent_id: &AgentId) {
        let now = self.now;
        self.keep_lot_refusals(agent_id, |_, refusal| refusal.expires > now);
        self.lots.touch(agent_id);
    }
}
