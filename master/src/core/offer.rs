//! Offers: made out of the allocator's proposals, and every way in which they end.
//!
//! An offer is removed from the accounts and its resources are moved in the ledger in the same step;
//! so none is accepted twice, lost, or outlives its framework's connection or its agent's.

use std::collections::BTreeMap;

use ebb_types::limits::MIN_DECLINE_MS;
use ebb_types::{
    AgentId, Event, Filters, FrameworkId, Lasting, Lots, Offer, OfferId, Resources, Role,
};

use super::claims::{BatchId, Seat};
use super::input::{ConnectionId, Effect};
use super::limits::MAX_OFFERS;
use super::news::News;
use super::state::{Core, OfferRecord, Part};
use super::timers::Deadline;
use crate::allocator::Proposal;
use crate::ledger::Transition;

/// Who is to be offered a proposal, and of which agent.
struct Receiver {
    connection: ConnectionId,
    framework_id: FrameworkId,
    role: Role,
    agent_id: AgentId,
}

impl Core {
    pub(super) fn on_proposals(&mut self, batch: Option<BatchId>, mut proposals: Vec<Proposal>) {
        if let Some(batch) = batch {
            self.roles.note_batch(batch);
            self.changed = true;
        }
        let mut offers: BTreeMap<ConnectionId, Vec<Offer>> = BTreeMap::new();
        // What the core's own book was planned with is charged there already.
        let mut planned = std::mem::take(&mut self.planned);
        debug_assert!(planned.is_empty() || planned.len() == proposals.len());
        let mut charged = planned.drain(..);
        for proposal in proposals.drain(..) {
            let charged = charged.next();
            let Some(receiver) = self.receiver(&proposal, charged.is_some()) else {
                if let Some((member, resources)) = charged {
                    self.roles.uncharge(member, &resources);
                }
                self.refuse_proposal(&proposal);
                continue;
            };
            match charged {
                Some((member, resources)) => self.roles.adopt(member, &resources),
                None => self.roles.charge_seat(proposal.seat, &proposal.resources),
            }
            let connection = receiver.connection;
            if let Some(offer) = self.make_offer(&proposal, receiver) {
                offers.entry(connection).or_default().push(offer);
            }
        }
        drop(charged);
        self.planned = planned;
        // Else a worker's, which takes room for each of its batches: they are large.
        if batch.is_none() {
            self.planner.keep_proposals(proposals);
        }
        for (connection, offers) in offers {
            self.send_offers(connection, offers);
        }
    }

    /// The scheduler to be offered a proposal, where it still holds: the world may have moved on
    /// since the allocator looked at it.
    fn receiver(&self, proposal: &Proposal, is_charged: bool) -> Option<Receiver> {
        let seat = proposal.seat;
        let (framework_id, role) = self.roles.in_seat(seat)?;
        let framework = self.frameworks.get(framework_id)?;
        let agent_id = self.meant_agent(proposal)?;
        let holds = framework.info.roles.contains(role)
            && !framework.suppressed.contains(role)
            && !proposal.resources.is_zero()
            && self.offers.len() < MAX_OFFERS
            && (is_charged || self.roles.has_room(seat, &proposal.resources))
            && self.roles.admits(seat, proposal.agent, &proposal.resources);
        let connection = framework.connection.filter(|_| holds)?;
        Some(Receiver {
            connection,
            framework_id: framework_id.clone(),
            role: role.clone(),
            agent_id: agent_id.clone(),
        })
    }

    /// The agent of a proposal, while the registration that it speaks of is in the ledger.
    fn meant_agent(&self, proposal: &Proposal) -> Option<&AgentId> {
        let id = self.roles.agent_id(proposal.agent)?;
        let agent = self.agents.get(id)?;
        (agent.in_ledger && agent.registration == proposal.incarnation).then_some(id)
    }

    /// Gives the resources of a proposal back, unless the registration that it speaks of is gone
    /// and its ledger with it.
    fn refuse_proposal(&mut self, proposal: &Proposal) {
        self.counters.proposals_refused += 1;
        let Some(agent_id) = self.meant_agent(proposal).cloned() else {
            return;
        };
        self.transit(&agent_id, Transition::Rescind(proposal.resources));
        if self.offers.len() < MAX_OFFERS {
            self.wake.insert(agent_id);
        }
        self.changed = true;
    }

    /// Makes an offer of what is charged in the book.
    fn make_offer(&mut self, proposal: &Proposal, receiver: Receiver) -> Option<Offer> {
        let Receiver {
            framework_id,
            role,
            agent_id,
            ..
        } = receiver;
        let lots = match proposal.resources.regular.is_zero() {
            true => Lots::NONE,
            false => self.lots_to_offer((&framework_id, &role), &agent_id),
        };
        let plain = Some((proposal.seat, proposal.resources));
        let offer = self.put_offer(agent_id, framework_id, role, plain, lots);
        if offer.is_none() {
            let credited = self.roles.credit_seat(proposal.seat, &proposal.resources);
            debug_assert!(credited, "an offer was not charged");
            self.refuse_proposal(proposal);
        }
        offer
    }

    /// Takes an offer into the books; nothing where no id is left for it. What is plain of it is charged in the book of
    /// claims already.
    pub(super) fn put_offer(
        &mut self,
        agent_id: AgentId,
        framework_id: FrameworkId,
        role: Role,
        plain: Option<(Seat, Resources)>,
        lots: Lots,
    ) -> Option<Offer> {
        let id = self.ids.offer().ok()?;
        let owner = (&framework_id, &role);
        if let Some((_, resources)) = &plain {
            self.hold(Part::Offered, owner, &agent_id, resources);
        }
        self.charge_lots(Part::Offered, owner, &agent_id, &lots);
        let seat = plain.map(|(seat, _)| seat);
        let resources = plain.map_or(Resources::ZERO, |(_, resources)| resources);
        let deadline = self
            .config
            .offer_timeout_ms
            .map(|timeout_ms| self.now.plus_ms(timeout_ms));
        if let Some(deadline) = deadline {
            self.set_timer(deadline, Deadline::Offer(id.clone()));
        }
        if let Some(framework) = self.frameworks.get_mut(&framework_id) {
            framework.offers.insert(id.clone());
        }
        if let Some(agent) = self.agents.get_mut(&agent_id) {
            agent.offers.insert(id.clone());
        }
        let record = OfferRecord {
            unavailability: self.unavailability(&agent_id),
            lasting: self.lasting(&agent_id, &resources),
            framework_id,
            agent_id,
            role,
            seat,
            resources,
            lots,
            deadline,
        };
        let offer = self.offer_view(&id, &record);
        self.note(|| News::Offer(id.clone(), record.clone()));
        self.offers.insert(id, record);
        offer
    }

    /// For how long what is revocable of `offered` can be expected to stay, by the last word of its agent. All that is
    /// out already, this offer too, is in the books.
    fn lasting(&self, agent_id: &AgentId, offered: &Resources) -> Lasting {
        let agent = self.agents.get(agent_id).filter(|_| offered.is_revocable());
        let Some((agent, usage)) = agent.and_then(|agent| Some((agent, agent.usage.as_ref()?)))
        else {
            return Lasting::UNKNOWN;
        };
        let out =
            (agent.holding.offered.revocable).saturating_add(&agent.holding.allocated.revocable);
        let others = out.saturating_sub(&offered.revocable);
        usage
            .lasting
            .of_offer(&agent.oversubscribed, &others, &offered.revocable)
    }

    /// An offer as its framework sees it.
    pub(super) fn offer_view(&self, id: &OfferId, record: &OfferRecord) -> Option<Offer> {
        let agent = self.agents.get(&record.agent_id)?;
        let executor_ids = agent
            .executors
            .keys()
            .filter(|(owner, _)| *owner == record.framework_id)
            .map(|(_, executor_id)| executor_id.clone())
            .collect();
        Some(Offer {
            id: id.clone(),
            framework_id: record.framework_id.clone(),
            agent_id: record.agent_id.clone(),
            hostname: agent.info.hostname.clone(),
            role: record.role.clone(),
            resources: record.resources,
            lots: record.lots.clone(),
            attributes: agent.info.attributes.clone(),
            executor_ids,
            deadline: record.deadline,
            domain: agent.info.domain.clone(),
            unavailability: record.unavailability,
            lasting: record.lasting.clone(),
        })
    }

    /// Removes an offer from everywhere but the accounts of who holds what.
    pub(super) fn forget_offer(&mut self, id: &OfferId) -> Option<OfferRecord> {
        let record = self.offers.remove(id)?;
        self.note(|| News::OfferGone(id.clone()));
        // At the bound, proposals are refused without being looked at again; now they may be.
        if self.offers.len() + 1 == MAX_OFFERS {
            self.wake_all = true;
        }
        if let Some(framework) = self.frameworks.get_mut(&record.framework_id) {
            framework.offers.remove(id);
        }
        if let Some(agent) = self.agents.get_mut(&record.agent_id) {
            agent.offers.remove(id);
        }
        if let Some(deadline) = record.deadline {
            self.timers.clear(deadline, Deadline::Offer(id.clone()));
        }
        Some(record)
    }

    /// Ends an offer and frees what it held.
    pub(super) fn end_offer(
        &mut self,
        id: &OfferId,
        transition: fn(Resources) -> Transition,
    ) -> Option<OfferRecord> {
        let record = self.forget_offer(id)?;
        let owner = (&record.framework_id, &record.role);
        self.credit_lots(Part::Offered, owner, &record.agent_id, &record.lots);
        if !record.resources.is_zero() {
            let (seat, agent_id) = (record.seat, &record.agent_id);
            self.credit(Part::Offered, owner, seat, agent_id, &record.resources);
            self.transit(&record.agent_id, transition(record.resources));
        }
        Some(record)
    }

    /// Withdraws an offer and tells its framework.
    pub(super) fn rescind(&mut self, id: &OfferId) {
        let Some(record) = self.end_offer(id, Transition::Rescind) else {
            return;
        };
        self.counters.offers_rescinded += 1;
        let connection = self
            .frameworks
            .get(&record.framework_id)
            .and_then(|framework| framework.connection);
        if let Some(connection) = connection {
            self.emit(Effect::ToScheduler {
                connection,
                event: Event::Rescind(id.clone()),
            });
        }
    }

    /// Withdraws all offers of an agent.
    pub(super) fn rescind_agent(&mut self, agent_id: &AgentId, only_revocable: bool) {
        let Some(agent) = self.agents.get(agent_id) else {
            return;
        };
        let meant: Vec<OfferId> = agent
            .offers
            .iter()
            .filter(|id| {
                !only_revocable
                    || self
                        .offers
                        .get(*id)
                        .is_some_and(|offer| offer.resources.is_revocable())
            })
            .cloned()
            .collect();
        for id in meant {
            self.rescind(&id);
        }
    }

    /// Takes back all offers of a framework whose scheduler is gone.
    pub(super) fn take_back_offers(&mut self, framework_id: &FrameworkId) {
        let Some(framework) = self.frameworks.get(framework_id) else {
            return;
        };
        for id in framework.offers.clone() {
            if self.end_offer(&id, Transition::Rescind).is_some() {
                self.counters.offers_rescinded += 1;
            }
        }
    }

    pub(super) fn expire_offer(&mut self, id: &OfferId) {
        if self.offers.contains_key(id) {
            self.counters.offers_expired += 1;
            self.rescind(id);
        }
    }

    pub(super) fn decline(
        &mut self,
        framework_id: &FrameworkId,
        ids: &[OfferId],
        filters: Filters,
    ) {
        let refuse_ms = filters.refuse_ms.max(MIN_DECLINE_MS);
        let filters = Filters { refuse_ms };
        for id in ids {
            let own = self
                .offers
                .get(id)
                .is_some_and(|offer| offer.framework_id == *framework_id);
            if !own {
                continue;
            }
            let Some(record) = self.end_offer(id, Transition::Decline) else {
                continue;
            };
            self.counters.offers_declined += 1;
            self.refuse(record.seat, &record.agent_id, &record.resources, filters);
            let owner = (framework_id, &record.role);
            self.refuse_lots(owner, &record.agent_id, &record.lots, filters);
        }
    }

    /// Moves resources in the ledger of an agent, if that has it.
    pub(super) fn transit(&mut self, agent_id: &AgentId, transition: Transition) {
        let Some(agent) = self.agents.get(agent_id).filter(|agent| agent.in_ledger) else {
            return;
        };
        let effect = Effect::Ledger {
            agent_id: agent_id.clone(),
            incarnation: agent.registration,
            transition,
        };
        self.emit(effect);
    }
}
