//! RESERVE, UNRESERVE, CREATE and DESTROY, by frameworks on what they were offered and by operators on what is free.
//!
//! The books change in the step of the operation, and the agent is ordered the whole of what it is to have. What an agent
//! says when it registers anew is what it has: an operation whose order it never got has not happened, and its framework
//! is told that it was dropped; one that it got is confirmed. How frameworks are told is in [`super::answers`].

use std::collections::VecDeque;
use std::sync::Arc;

use ebb_types::limits::MAX_LOTS;
use ebb_types::{
    AgentId, FrameworkId, LotKey, Lots, MasterToAgent, OperationId, OperationKind, OperationState,
    OperationStatus, Quantities, Role,
};

use super::convert::{Bag, Conversion};
use super::withdraw;
use crate::core::input::OperatorError;
use crate::core::limits::MAX_PENDING_OPERATIONS;
use crate::core::record::OperationRecord;
use crate::core::state::{Agent, Core};

/// An operation of which the agent has not said yet that it is done.
#[derive(Debug)]
pub(super) struct Pending {
    version: u64,
    framework_id: FrameworkId,
    id: OperationId,
}

impl Pending {
    pub(super) fn of(record: &OperationRecord) -> Self {
        Self {
            version: record.version,
            framework_id: record.framework_id.clone(),
            id: record.status.id.clone(),
        }
    }

    /// Whose operation it is, and which.
    pub(super) fn name(&self) -> (FrameworkId, OperationId) {
        (self.framework_id.clone(), self.id.clone())
    }
}

/// The orders about lots to an agent.
#[derive(Debug, Default)]
pub(super) struct Orders {
    /// The version of the last.
    version: u64,
    pending: VecDeque<Pending>,
}

impl Orders {
    /// Of an agent that comes back with this yet to be answered.
    pub(super) fn resumed(pending: VecDeque<Pending>) -> Self {
        Self {
            version: 0,
            pending,
        }
    }

    pub(super) const fn pending(&self) -> &VecDeque<Pending> {
        &self.pending
    }

    pub(super) fn into_pending(self) -> VecDeque<Pending> {
        self.pending
    }
}

/// A framework that wants something done with what it was offered.
pub(in crate::core) struct Asker<'a> {
    pub(in crate::core) id: &'a FrameworkId,
    pub(in crate::core) role: &'a Role,
    pub(in crate::core) agent_id: &'a AgentId,
}

impl Core {
    /// Judges an operation of a framework on what is left of its offers; what is left then. `of_agent` is what the agent
    /// has after the operations before it.
    pub(in crate::core) fn judge_operation(
        &self,
        asker: &Asker<'_>,
        (kind, lots): (OperationKind, &Lots),
        left: &Bag,
        of_agent: &Bag,
    ) -> Result<(Bag, Bag), String> {
        let conversion = Conversion::of(kind, lots)?;
        let Some(framework) = self.frameworks.get(asker.id) else {
            return Err(String::from("the framework is no more"));
        };
        let principal = &framework.info.principal;
        for (key, _) in lots.iter() {
            if kind == OperationKind::Reserve {
                check_reserver(key, asker.role, principal)?;
            }
            if kind == OperationKind::Create
                && let Some(volume) = key.volume()
                && volume.principal != *principal
            {
                return Err(format!(
                    "volume {} names the principal {:?}, but the framework acts as {principal:?}; name that",
                    volume.id, volume.principal
                ));
            }
        }
        if !left.contains(&conversion.from) {
            return Err(format!(
                "{} needs {} and {}, but {} and {} are left of the offer",
                kind.name(),
                conversion.from.plain,
                conversion.from.lots,
                left.plain,
                left.lots
            ));
        }
        self.check_use(asker.agent_id, kind, lots)?;
        let after = changed(of_agent, &conversion)?;
        let left = left.after(&conversion);
        left.map(|left| (left, after))
            .ok_or_else(|| String::from("it comes to more than can be counted"))
    }

    /// A shared volume can be destroyed when nobody uses it.
    fn check_use(
        &self,
        agent_id: &AgentId,
        kind: OperationKind,
        lots: &Lots,
    ) -> Result<(), String> {
        if kind != OperationKind::Destroy {
            return Ok(());
        }
        let used = self.agents.get(agent_id).map(|agent| &agent.lots.allocated);
        let mut keys = lots.iter().map(|(key, _)| key);
        let in_use = keys.find(|key| used.is_some_and(|used| used.get(key).is_some()));
        in_use.map_or(Ok(()), |key| {
            Err(format!("{key} is in use; end the tasks that use it first"))
        })
    }

    /// An agent has this from now on: the books say so, and it is ordered.
    pub(in crate::core) fn set_belongings(&mut self, agent_id: &AgentId, belongings: Bag) {
        let Some(agent) = self.agents.get_mut(agent_id) else {
            return;
        };
        let info = Arc::make_mut(&mut agent.info);
        info.total = belongings.plain;
        info.lots = belongings.lots;
        let dynamic = info.lots.only(LotKey::is_dynamic);
        agent.lots.orders.version += 1;
        let version = agent.lots.orders.version;
        self.rescind_gone(agent_id);
        self.touch_lots(agent_id);
        self.order(agent_id, MasterToAgent::Lots { version, dynamic });
        self.agent_changed(agent_id);
    }

    /// Withdraws as few of an agent's offers as have to be for so much of it to be free.
    fn withdraw_for(&mut self, agent_id: &AgentId, needed: &Bag) {
        let Some(agent) = self.agents.get(agent_id) else {
            return;
        };
        let held = agent.holding.allocated.regular;
        let held = held.saturating_add(&agent.holding.offered.regular);
        let free = Bag {
            plain: agent.info.total.saturating_sub(&held),
            lots: agent.free_lots(),
        };
        let offers = agent.offers.iter().filter_map(|id| {
            let offer = self.offers.get(id)?;
            let bag = Bag {
                plain: offer.resources.regular,
                lots: offer.lots.clone(),
            };
            Some((id.clone(), bag))
        });
        for id in withdraw::fewest(free, needed, offers.collect()) {
            self.rescind(&id);
        }
    }

    /// Withdraws offers of shared volumes that are no more.
    fn rescind_gone(&mut self, agent_id: &AgentId) {
        let Some(agent) = self.agents.get(agent_id) else {
            return;
        };
        if agent.info.lots.covers(&agent.lots.offered) {
            return;
        }
        let is_gone = |id: &&ebb_types::OfferId| {
            let offer = self.offers.get(*id);
            offer.is_some_and(|offer| !agent.info.lots.covers(&offer.lots))
        };
        let gone: Vec<_> = agent.offers.iter().filter(is_gone).cloned().collect();
        for id in gone {
            self.rescind(&id);
        }
    }

    /// Has an operation answered once the agent has carried out the order that comes in the same step.
    pub(in crate::core) fn await_order(
        &mut self,
        agent_id: &AgentId,
        framework_id: &FrameworkId,
        id: OperationId,
    ) {
        let Some(agent) = self.agents.get_mut(agent_id) else {
            return;
        };
        let version = agent.lots.orders.version + 1;
        agent.lots.orders.pending.push_back(Pending {
            version,
            framework_id: framework_id.clone(),
            id: id.clone(),
        });
        let status = OperationStatus {
            id,
            state: OperationState::Pending,
            message: String::new(),
            agent_id: Some(agent_id.clone()),
            uuid: None,
        };
        self.keep_operation(framework_id, version, status);
    }

    /// Whether another operation can be answered.
    pub(in crate::core) fn has_room_for_operation(&self, agent_id: &AgentId) -> bool {
        let agent = self.agents.get(agent_id);
        agent.is_some_and(|agent| agent.lots.orders.pending.len() < MAX_PENDING_OPERATIONS)
    }

    pub(in crate::core) fn on_lots_applied(&mut self, agent_id: &AgentId, version: u64) {
        let Some(agent) = self.agents.get_mut(agent_id) else {
            return;
        };
        if version > agent.lots.orders.version {
            self.counters.calls_invalid += 1;
            return;
        }
        Arc::make_mut(&mut agent.info).lots_version = version;
        self.answer_pending(agent_id, version, false);
        self.agent_changed(agent_id);
    }

    /// An agent has registered anew: what it has carried out is done, the rest is not.
    pub(in crate::core) fn settle_operations(&mut self, agent_id: &AgentId) {
        let Some(agent) = self.agents.get_mut(agent_id) else {
            return;
        };
        let version = agent.info.lots_version;
        // Later than any order that is still under way.
        agent.lots.orders.version = version.max(agent.lots.orders.version);
        self.answer_pending(agent_id, version, true);
    }

    fn answer_pending(&mut self, agent_id: &AgentId, done: u64, drop_others: bool) {
        let Some(agent) = self.agents.get_mut(agent_id) else {
            return;
        };
        let mut answers = Vec::new();
        while let Some(first) = agent.lots.orders.pending.front() {
            let state = match first.version <= done {
                true => OperationState::Finished,
                false if drop_others => OperationState::Dropped,
                false => break,
            };
            let Some(one) = agent.lots.orders.pending.pop_front() else {
                break;
            };
            answers.push((one, state));
        }
        for (one, state) in answers {
            let message = match state {
                OperationState::Dropped => "The agent came back and had not carried it out",
                _ => "",
            };
            self.decide_operation(&one.framework_id, &one.id, (state, message));
        }
    }

    /// An operator makes something else of what is free of an agent or in offers, of which as few as will do are withdrawn.
    pub(in crate::core) fn convert_free(
        &mut self,
        agent_id: &AgentId,
        kind: OperationKind,
        lots: &Lots,
    ) -> Result<(), OperatorError> {
        let failed = |rule: String| OperatorError::Lots {
            agent_id: agent_id.clone(),
            rule,
        };
        let Some(agent) = self.agents.get(agent_id) else {
            return Err(OperatorError::NoAgent(agent_id.clone()));
        };
        if agent.connection.is_none() {
            return Err(failed(String::from(
                "it is not connected; wait until it is back",
            )));
        }
        let conversion = Conversion::of(kind, lots).map_err(failed)?;
        let free = Bag {
            plain: agent
                .info
                .total
                .saturating_sub(&agent.holding.allocated.regular),
            lots: agent.info.lots.free(&agent.lots.allocated),
        };
        if !free.contains(&conversion.from) {
            return Err(failed(format!(
                "{} needs {} and {}, but {} and {} are free or in offers; end tasks that hold the rest, or name less",
                kind.name(),
                conversion.from.plain,
                conversion.from.lots,
                free.plain,
                free.lots
            )));
        }
        self.check_use(agent_id, kind, lots).map_err(failed)?;
        let after = changed(&agent.belongings(), &conversion).map_err(failed)?;
        self.withdraw_for(agent_id, &conversion.from);
        // What the allocator's threads have planned of it meanwhile is void: they plan with another registration.
        match self.is_awaiting_agents() {
            true => self.leave_ledger(agent_id),
            false => self.remove_slot(agent_id),
        }
        let registration = self.ids.registration();
        if let Some(agent) = self.agents.get_mut(agent_id) {
            agent.registration = registration;
        }
        self.set_belongings(agent_id, after);
        self.enter_ledger.insert(agent_id.clone());
        Ok(())
    }
}

impl Agent {
    /// All that it has.
    pub(in crate::core) fn belongings(&self) -> Bag {
        Bag {
            plain: self.info.total,
            lots: self.info.lots.clone(),
        }
    }
}

/// What an agent has after a conversion.
fn changed(before: &Bag, conversion: &Conversion) -> Result<Bag, String> {
    let after = before.after(conversion).filter(|after| {
        after.plain.is_within_bounds() && after.lots.quantities() != Quantities::MAX
    });
    let Some(after) = after else {
        return Err(String::from(
            "it does not go together with what the agent has already; is there such a lot, or a shared one, by now?",
        ));
    };
    if after.lots.count() > MAX_LOTS {
        return Err(format!(
            "the agent would have more than {MAX_LOTS} lots; end some reservations first"
        ));
    }
    for (key, value) in conversion.to.lots.iter() {
        let Some(volume) = key.volume() else { continue };
        let same = |other: &&LotKey| {
            let id = other.volume().map(|volume| &volume.id);
            id == Some(&volume.id) && other.role() == key.role()
        };
        let keys = after.lots.iter().map(|(other, _)| other);
        if keys.filter(same).count() > 1 || after.lots.get(key) != Some(value) {
            return Err(format!(
                "there is a volume {} of that role on the agent; choose another id",
                volume.id
            ));
        }
    }
    let taken = conversion.from.lots.iter().map(|(key, _)| key);
    let mut parted = taken.filter(|key| key.is_whole() && after.lots.get(key).is_some());
    match parted.next() {
        Some(key) => Err(format!(
            "it takes a part of {key}, which is given away as a whole; take all of it"
        )),
        None => Ok(after),
    }
}

/// A framework reserves for the role of the offer, in its own name.
fn check_reserver(key: &LotKey, role: &Role, principal: &str) -> Result<(), String> {
    let Some(last) = key.reservations.last() else {
        return Ok(());
    };
    if last.role != *role {
        return Err(format!(
            "{key} is to be reserved for {}, but the offer is for {role}; reserve for that",
            last.role
        ));
    }
    if last.principal != principal {
        return Err(format!(
            "{key} names the principal {:?}, but the framework acts as {principal:?}; name that",
            last.principal
        ));
    }
    Ok(())
}
