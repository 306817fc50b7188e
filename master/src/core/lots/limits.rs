//! How much of named lots a role may hold: GPUs, other named amounts, and how many ports or items.
//!
//! Only the core's one thread hands lots out, so a limit is held against exact sums at that moment, and no planner knows
//! of it. Amounts are thousandths. What counts towards a role's limit is what is offered to it and the roles below it,
//! what their tasks and executors hold, and what is reserved for them and free; what is lent is no lot. Of what a limit
//! leaves only in part, that part is offered. An agent of which something was left because of a limit is looked at again
//! when less counts.
//!
//! Invariant: what counts is the sum of that ([`check`](super::check)); no offer that is made takes a role beyond a limit.

use std::collections::BTreeMap;

use ebb_types::{AgentId, FrameworkId, LotKey, LotLimits, LotQuota, LotValue, Lots, OfferId, Role};

use crate::core::input::OperatorError;
use crate::core::news::News;
use crate::core::state::Core;

/// Amounts of named lots, by role with all below it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct NamedSums(BTreeMap<Role, BTreeMap<String, u128>>);

/// A role and those above it.
fn line(role: &Role) -> impl Iterator<Item = Role> {
    std::iter::successors(Some(role.clone()), Role::parent)
}

/// Whether a lot has a name of its own, so that no quota of a [`ebb_types::ResourceKind`] counts it.
fn is_named(key: &LotKey) -> bool {
    key.kind().is_none()
}

impl NamedSums {
    /// Counts lots that a role holds.
    pub(crate) fn add(&mut self, role: &Role, lots: &Lots) {
        for (key, value) in lots.iter().filter(|(key, _)| is_named(key)) {
            self.add_one(role, key, value);
        }
    }

    /// The reverse of [`NamedSums::add`].
    pub(crate) fn sub(&mut self, role: &Role, lots: &Lots) {
        for (key, value) in lots.iter().filter(|(key, _)| is_named(key)) {
            self.sub_one(role, key, value);
        }
    }

    /// Counts what of these lots is reserved for roles.
    pub(crate) fn add_reserved(&mut self, lots: &Lots) {
        for (key, value) in lots.iter().filter(|(key, _)| is_named(key)) {
            if let Some(role) = key.role() {
                self.add_one(role, key, value);
            }
        }
    }

    /// The reverse of [`NamedSums::add_reserved`].
    pub(crate) fn sub_reserved(&mut self, lots: &Lots) {
        for (key, value) in lots.iter().filter(|(key, _)| is_named(key)) {
            if let Some(role) = key.role() {
                self.sub_one(role, key, value);
            }
        }
    }

    fn add_one(&mut self, role: &Role, key: &LotKey, value: &LotValue) {
        for role in line(role) {
            let sums = self.0.entry(role).or_default();
            *sums.entry(key.name.clone()).or_default() += u128::from(value.amount());
        }
    }

    fn sub_one(&mut self, role: &Role, key: &LotKey, value: &LotValue) {
        for role in line(role) {
            let Some(sums) = self.0.get_mut(&role) else {
                debug_assert!(false, "{role} holds nothing");
                continue;
            };
            let amount = u128::from(value.amount());
            let sum = sums.get(&key.name).copied().unwrap_or(0);
            debug_assert!(sum >= amount, "{role} holds {sum} of {key}, not {amount}");
            match sum.saturating_sub(amount) {
                0 => sums.remove(&key.name),
                rest => sums.insert(key.name.clone(), rest),
            };
            if sums.is_empty() {
                self.0.remove(&role);
            }
        }
    }

    /// What a role and those below it hold of a name.
    pub(crate) fn held(&self, role: &Role, name: &str) -> u128 {
        let sums = self.0.get(role);
        sums.and_then(|sums| sums.get(name)).copied().unwrap_or(0)
    }

    /// The limits of a role with what of these sums counts towards them.
    pub(crate) fn quotas(&self, role: &Role, limits: &LotLimits) -> Vec<LotQuota> {
        let quotas = limits.iter().map(|(name, limit)| LotQuota {
            role: role.clone(),
            name: name.to_owned(),
            limit,
            held: u64::try_from(self.held(role, name)).unwrap_or(u64::MAX),
        });
        quotas.collect()
    }
}

impl Core {
    /// A role's limits of named lots, and what counts towards them.
    pub(in crate::core) fn lot_quotas(&self, role: &Role) -> Vec<LotQuota> {
        let limits = self.lots.limits.get(role);
        limits.map_or_else(Vec::new, |limits| self.lots.counted.quotas(role, limits))
    }

    /// As much of these lots as limits allow a role to be offered.
    pub(super) fn within_lot_limits(&self, role: &Role, lots: Lots) -> Lots {
        if self.lots.limits.is_empty() || lots.iter().all(|(key, _)| !is_named(key)) {
            return lots;
        }
        let above = line(role).filter_map(|of| {
            let limits = self.lots.limits.get(&of)?;
            Some((of, limits))
        });
        let above: Vec<(Role, &LotLimits)> = above.collect();
        // What is left of each limit; each lot takes its part before the next one is looked at.
        let mut left: BTreeMap<(usize, String), u128> = BTreeMap::new();
        lots.cut(|key, amount| {
            // What is reserved for the role or one below it counts whoever holds it.
            let counts = above.iter().enumerate().filter_map(|(at, (of, limits))| {
                let is_counted = key.role().is_some_and(|role| role.is_within(of));
                let limit = limits.get(&key.name).filter(|_| !is_counted)?;
                Some((at, of, limit))
            });
            let mut bounds = Vec::new();
            let mut most = u128::from(amount);
            for (at, of, limit) in counts.filter(|_| is_named(key)) {
                let held = self.lots.counted.held(of, &key.name);
                let at = (at, key.name.clone());
                let left = left.entry(at.clone());
                let left = left.or_insert_with(|| u128::from(limit).saturating_sub(held));
                most = most.min(*left);
                bounds.push(at);
            }
            for at in bounds {
                left.entry(at).and_modify(|left| *left -= most);
            }
            u64::try_from(most).unwrap_or(amount)
        })
    }

    /// [`Core::lots_for`]; an agent of which a limit leaves something is noted, so that it is looked at again.
    pub(in crate::core) fn lots_to_offer(
        &mut self,
        owner: (&FrameworkId, &Role),
        agent_id: &AgentId,
    ) -> Lots {
        let lots = self.usable_lots(owner, agent_id);
        let within = self.within_lot_limits(owner.1, lots.clone());
        if within != lots {
            self.lots.held_back.insert(agent_id.clone());
        }
        within
    }

    /// Less counts towards limits than before: what was left because of them may be offered now.
    pub(super) fn wake_held_back_lots(&mut self) {
        for id in std::mem::take(&mut self.lots.held_back) {
            if self.agents.contains_key(&id) {
                self.wake.insert(id.clone());
                self.lots.touch(&id);
            }
        }
    }

    /// What is limited is to be there, and no role's tasks may hold more than its new limits.
    pub(in crate::core) fn check_lot_limits(
        &self,
        limits: &BTreeMap<Role, LotLimits>,
    ) -> Result<(), OperatorError> {
        let all = limits.iter().flat_map(|(role, limits)| {
            let limits = limits.iter();
            limits.map(move |(name, limit)| (role, name, limit))
        });
        for (role, name, limit) in all {
            let is_known = self.lots.limits.values().any(|of| of.get(name).is_some());
            let has_it = |lots: &Lots| lots.iter().any(|(key, _)| key.name == name);
            if !is_known && !self.agents.values().any(|agent| has_it(&agent.info.lots)) {
                return Err(OperatorError::NoLot {
                    role: role.clone(),
                    name: name.to_owned(),
                });
            }
            if self.lots_allocated_within(role, name) > u128::from(limit) {
                return Err(OperatorError::LotLimitExceeded {
                    role: role.clone(),
                    name: name.to_owned(),
                });
            }
        }
        Ok(())
    }

    fn lots_allocated_within(&self, above: &Role, name: &str) -> u128 {
        let mut sums = NamedSums::default();
        for framework in self.frameworks.values() {
            let tasks = framework.tasks.values().filter(|task| task.holds());
            tasks.for_each(|task| sums.add(&task.role, &task.lots));
        }
        for agent in self.agents.values() {
            let executors = agent.executors.values();
            executors.for_each(|executor| sums.add(&executor.role, &executor.lots));
        }
        sums.held(above, name)
    }

    /// Sets limits that are in order, and withdraws the offers that pass them.
    pub(in crate::core) fn set_lot_limits(&mut self, changed: Vec<(Role, LotLimits)>) {
        for (role, limits) in changed {
            self.note(|| News::LotLimits(role.clone(), limits.clone()));
            match limits.is_none() {
                true => self.lots.limits.remove(&role),
                false => self.lots.limits.insert(role, limits),
            };
        }
        self.touch_all_lots();
        let out: Vec<OfferId> = (self.offers.iter())
            .filter(|(_, offer)| !offer.lots.is_none())
            .map(|(id, _)| id.clone())
            .collect();
        for id in out {
            if self.passes_lot_limit(&id) {
                self.rescind(&id);
            }
        }
    }

    /// Whether a role is beyond a limit, and something that counts towards it is out in an offer.
    fn passes_lot_limit(&self, id: &OfferId) -> bool {
        let Some(offer) = self.offers.get(id) else {
            return false;
        };
        line(&offer.role).any(|of| {
            let Some(limits) = self.lots.limits.get(&of) else {
                return false;
            };
            let mut lots = offer.lots.iter().filter(|(key, _)| is_named(key));
            lots.any(|(key, _)| {
                let stays = key.role().is_some_and(|role| role.is_within(&of));
                let limit = limits.get(&key.name).filter(|_| !stays);
                limit
                    .is_some_and(|limit| self.lots.counted.held(&of, &key.name) > u128::from(limit))
            })
        })
    }
}
