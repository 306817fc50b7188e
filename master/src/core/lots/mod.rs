//! Lots: what agents have beyond plain quantities, in the books of the core's one thread.
//!
//! The allocator's threads and the ledger know plain quantities only. What is free of an agent's lots rides along with
//! the plain offers that they make of it, or is offered by itself ([`offer`]). The book of claims counts the amounts of
//! each [`ebb_types::ResourceKind`] that lots hold: as what an agent has, as held by whom they are offered or allocated to, and, while they
//! are free, as kept from being offered; those that are reserved count towards their roles' quotas even so.
//!
//! Invariants: an agent's `offered` and `allocated` are those of its offers, tasks, executors and remains; while it is in
//! the ledger it has what they hold, and no number of a range or item of a set is held twice; what the book was told is
//! nobody's is so ([`check`]).

use std::collections::{BTreeMap, BTreeSet};

use ebb_types::{
    AgentId, FrameworkId, LotKey, LotLimits, Lots, Quantities, Resources, Role, Timestamp,
};

use super::state::{Agent, Core, Part};

mod answers;
mod check;
mod convert;
mod limits;
mod offer;
mod operate;
mod withdraw;

pub(super) use convert::Bag;
pub(crate) use limits::NamedSums;
pub(super) use operate::Asker;

/// What of an agent's lots is offered and allocated.
#[derive(Debug, Default)]
pub(super) struct LotAccount {
    /// A shared lot as often as it is offered.
    pub(super) offered: Lots,
    /// A shared lot as often as it is used.
    pub(super) allocated: Lots,
    /// What was nobody's when the book of claims was told last.
    noted: Lots,
    /// When what is free of the reserved is offered by itself, if nothing else takes it along.
    due: Option<Timestamp>,
    /// What it was ordered to make of them.
    orders: operate::Orders,
}

impl LotAccount {
    fn part(&mut self, part: Part) -> &mut Lots {
        match part {
            Part::Offered => &mut self.offered,
            Part::Allocated => &mut self.allocated,
        }
    }

    /// Whether nothing is held.
    pub(super) fn is_none(&self) -> bool {
        self.offered.is_none() && self.allocated.is_none()
    }
}

/// What the core keeps of lots beside the agents' accounts.
#[derive(Debug, Default)]
pub(super) struct LotBook {
    /// Agents whose free lots may have changed in this step.
    touched: BTreeSet<AgentId>,
    /// What is reserved for each role, without those below it, and nobody's.
    reserved: BTreeMap<Role, Quantities>,
    refusals: BTreeMap<AgentId, BTreeMap<(FrameworkId, Role), offer::Refusal>>,
    refusal_count: usize,
    /// Limits of named lots; none is empty.
    pub(super) limits: BTreeMap<Role, LotLimits>,
    /// What counts towards them, and would towards others.
    counted: NamedSums,
    /// Agents of whose lots less was offered because of limits.
    held_back: BTreeSet<AgentId>,
    /// When the first refusal of an agent ends.
    refusal_timers: BTreeMap<AgentId, Timestamp>,
    /// Operations without an answer whose agents are absent.
    adrift: answers::Adrift,
}

impl LotBook {
    pub(super) fn touch(&mut self, agent_id: &AgentId) {
        self.touched.insert(agent_id.clone());
    }

    /// The account of an agent that comes, back or for the first time.
    pub(super) fn account(&mut self, agent_id: &AgentId) -> LotAccount {
        let pending = self.adrift.remove(agent_id).unwrap_or_default();
        LotAccount {
            orders: operate::Orders::resumed(pending),
            ..LotAccount::default()
        }
    }
}

/// Whether lots of that key may be used in a role: they are reserved for nobody, or for it or a role above it.
pub(super) fn is_for(key: &LotKey, role: &Role) -> bool {
    key.role().is_none_or(|of| role.is_within(of))
}

impl Agent {
    /// What of its lots can be offered.
    pub(super) fn free_lots(&self) -> Lots {
        let left = self.info.lots.free(&self.lots.offered);
        left.free(&self.lots.allocated)
    }

    /// Whether it has the lots that are held of it.
    pub(super) fn has_lots_held(&self) -> bool {
        self.info.lots.covers(&self.lots.allocated)
    }

    /// All that it has of each [`ebb_types::ResourceKind`].
    pub(super) fn whole(&self) -> Quantities {
        let total = &self.info.total;
        total.saturating_add(&self.info.lots.quantities())
    }
}

impl Core {
    /// The lots of a task or executor that an agent brings along, so far as they go together with what is in the books:
    /// those that do not are not counted, so that an agent in confusion spoils nothing but its own.
    pub(super) fn countable(&mut self, agent_id: &AgentId, lots: Lots) -> Lots {
        let agent = self.agents.get(agent_id);
        let adds_up = agent.is_none_or(|agent| agent.lots.allocated.checked_add(&lots).is_some());
        if adds_up {
            return lots;
        }
        self.counters.lots_uncounted += 1;
        Lots::NONE
    }

    /// Counts lots as held; they add up with what is held already.
    pub(super) fn charge_lots(
        &mut self,
        part: Part,
        (framework_id, role): (&FrameworkId, &Role),
        agent_id: &AgentId,
        lots: &Lots,
    ) {
        if lots.is_none() {
            return;
        }
        if let Some(agent) = self.agents.get_mut(agent_id) {
            let account = agent.lots.part(part);
            let sum = account.checked_add(lots);
            debug_assert!(sum.is_some(), "{lots} do not add to {account}");
            *account = sum.unwrap_or_default();
        }
        let charged = Resources::regular(lots.charged());
        self.roles.charge(framework_id, role, &charged);
        let named = lots.named_amounts().into();
        self.roles.charge_named(framework_id, role, named);
        self.lots.counted.add(role, lots);
        self.touch_lots(agent_id);
    }

    /// The reverse of [`Core::charge_lots`].
    pub(super) fn credit_lots(
        &mut self,
        part: Part,
        (framework_id, role): (&FrameworkId, &Role),
        agent_id: &AgentId,
        lots: &Lots,
    ) {
        if lots.is_none() {
            return;
        }
        if let Some(agent) = self.agents.get_mut(agent_id) {
            let account = agent.lots.part(part);
            debug_assert!(account.contains(lots), "{lots} are not in {account}");
            *account = account.saturating_sub(lots);
        }
        self.disown_lots((framework_id, role), agent_id, lots);
    }

    /// The part of [`Core::credit_lots`] that does not concern the agent's account.
    pub(super) fn disown_lots(
        &mut self,
        (framework_id, role): (&FrameworkId, &Role),
        agent_id: &AgentId,
        lots: &Lots,
    ) {
        let charged = Resources::regular(lots.charged());
        let credited = self.roles.credit(framework_id, role, &charged);
        debug_assert_eq!(credited, Ok(()));
        let named = lots.named_amounts().into();
        let credited = self.roles.credit_named(framework_id, role, named);
        debug_assert!(credited, "{framework_id} in {role} does not hold {lots}");
        self.lots.counted.sub(role, lots);
        self.touch_lots(agent_id);
        self.wake_held_back_lots();
    }

    /// Frees what a task or executor held of an agent's lots.
    pub(super) fn recover_lots(
        &mut self,
        owner: (&FrameworkId, &Role),
        agent_id: &AgentId,
        lots: &Lots,
    ) {
        if lots.is_none() {
            return;
        }
        self.credit_lots(Part::Allocated, owner, agent_id, lots);
        self.enter_ledger.insert(agent_id.clone());
        self.wake.insert(agent_id.clone());
    }

    /// What is free of an agent's lots may have changed.
    pub(super) fn touch_lots(&mut self, agent_id: &AgentId) {
        self.changed = true;
        self.outside.insert(agent_id.clone());
        self.lots.touched.insert(agent_id.clone());
        // What is reserved and free counts as well: a limit is held against what is true now.
        if !self.lots.limits.is_empty() || self.roles.has_quotas() {
            self.note_reserved(agent_id);
        }
    }

    /// What of an agent is nobody's and yet nothing that the allocator could offer.
    pub(super) fn withheld_of(&self, agent: &Agent) -> Quantities {
        let mut plain = match agent.in_ledger {
            true => Quantities::ZERO,
            false => agent.free().regular,
        };
        if !agent.remains.is_none() {
            let (remain, _) = agent.remains.sum();
            plain = plain.saturating_add(&remain.regular);
        }
        match agent.info.lots.is_none() {
            true => plain,
            false => plain.saturating_add(&agent.unowned_lots().quantities()),
        }
    }

    /// Tells the book what of an agent's reservations is nobody's now.
    pub(super) fn note_reserved(&mut self, agent_id: &AgentId) {
        let Some(agent) = self.agents.get_mut(agent_id) else {
            return;
        };
        if agent.info.lots.is_none() && agent.lots.noted.is_none() {
            return;
        }
        let unowned = agent.unowned_lots();
        let noted = std::mem::replace(&mut agent.lots.noted, unowned.clone());
        self.renote(&noted, &unowned);
    }

    /// An agent is about to go, and what was noted of it with it.
    pub(super) fn forget_lots(&mut self, agent_id: &AgentId) {
        let Some(agent) = self.agents.get_mut(agent_id) else {
            return;
        };
        let noted = std::mem::take(&mut agent.lots.noted);
        self.renote(&noted, &Lots::NONE);
        self.keep_lot_refusals(agent_id, |_, _| false);
    }

    fn renote(&mut self, before: &Lots, after: &Lots) {
        if before == after {
            return;
        }
        self.lots.counted.sub_reserved(before);
        self.lots.counted.add_reserved(after);
        let (before, after) = (reserved_by_role(before), reserved_by_role(after));
        let roles: BTreeSet<&Role> = before.keys().chain(after.keys()).collect();
        for role in roles {
            let old = before.get(role).copied().unwrap_or_default();
            let new = after.get(role).copied().unwrap_or_default();
            if old == new {
                continue;
            }
            let sum = self.lots.reserved.entry(role.clone()).or_default();
            *sum = sum.saturating_sub(&old).saturating_add(&new);
            let sum = *sum;
            if sum.is_zero() {
                self.lots.reserved.remove(role);
            }
            self.roles.set_reserved(role, sum);
            self.changed = true;
        }
    }
}

/// How much is reserved for each role.
pub(crate) fn reserved_by_role(lots: &Lots) -> BTreeMap<Role, Quantities> {
    let mut sums: BTreeMap<Role, Quantities> = BTreeMap::new();
    let roles: BTreeSet<&Role> = lots.iter().filter_map(|(key, _)| key.role()).collect();
    for role in roles {
        let sum = lots.only(|key| key.role() == Some(role)).quantities();
        if !sum.is_zero() {
            sums.insert(role.clone(), sum);
        }
    }
    sums
}
