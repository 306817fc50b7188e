//! Roles: their weights, and how they look to the operator.

use std::collections::{BTreeMap, BTreeSet};

use ebb_types::{FrameworkId, OfferId, Role, RoleState};

use super::claims::DEFAULT_WEIGHT_MILLI;
use super::input::{Effect, OperatorError};
use super::limits::{MAX_WEIGHT_MILLI, MAX_WEIGHTS};
use super::news::News;
use super::record::RegistryWrite;
use super::state::{Core, Holding};

impl Core {
    /// Sets weights, all or none.
    pub(super) fn set_weights(&mut self, weights: Vec<(Role, u64)>) -> Result<(), OperatorError> {
        let mut checked = BTreeMap::new();
        for (role, weight_milli) in weights {
            let valid = u32::try_from(weight_milli)
                .ok()
                .filter(|weight| (1..=MAX_WEIGHT_MILLI).contains(weight));
            let Some(weight) = valid else {
                return Err(OperatorError::Weight {
                    role,
                    weight_milli,
                    max: MAX_WEIGHT_MILLI,
                });
            };
            checked.insert(role, weight);
        }
        let added = checked
            .keys()
            .filter(|role| !self.weights.contains_key(*role))
            .count();
        if self.weights.len() + added > MAX_WEIGHTS {
            return Err(OperatorError::TooManyWeights { max: MAX_WEIGHTS });
        }
        let writes = checked
            .iter()
            .map(|(role, weight)| RegistryWrite::PutWeight {
                role: role.clone(),
                weight_milli: u64::from(*weight),
            })
            .collect();
        self.emit(Effect::Persist(writes));
        let old = |role: &Role| {
            self.weights
                .get(role)
                .copied()
                .unwrap_or(DEFAULT_WEIGHT_MILLI)
        };
        let changed: BTreeSet<Role> = (checked.iter())
            .filter(|(role, weight)| old(role) != **weight)
            .map(|(role, _)| role.clone())
            .collect();
        for (role, weight) in checked {
            self.roles.set_weight(&role, weight);
            self.note(|| News::Weight(role.clone(), weight));
            self.weights.insert(role, weight);
        }
        self.changed = true;
        self.wake_all = true;
        self.rescind_for_weights(&changed);
        Ok(())
    }

    /// Withdraws the offers that were made by other weights, so that the new ones hold at once: those of the roles that
    /// compete with one whose weight has changed, and of the roles below them. As in Mesos, which withdraws all.
    fn rescind_for_weights(&mut self, changed: &BTreeSet<Role>) {
        let has_members = |of: &&Role| {
            let mut roles = self.frameworks.values().flat_map(|one| &one.info.roles);
            roles.any(|role| role.is_within(of))
        };
        // Within these, or everywhere.
        let within: Vec<Option<Role>> =
            (changed.iter().filter(has_members).map(Role::parent)).collect();
        let competes = |role: &Role| {
            let mut within = within.iter();
            within.any(|above| above.as_ref().is_none_or(|above| role.is_within(above)))
        };
        let out: Vec<OfferId> = (self.offers.iter())
            .filter(|(_, offer)| competes(&offer.role))
            .map(|(id, _)| id.clone())
            .collect();
        out.iter().for_each(|id| self.rescind(id));
    }

    /// Every role that somebody is in, or that has a weight or a quota.
    pub(super) fn role_states(&self) -> Vec<RoleState> {
        let mut members: BTreeMap<Role, (BTreeSet<FrameworkId>, Holding)> = self
            .weights
            .keys()
            .chain(self.quotas.keys())
            .chain(self.lots.limits.keys())
            .map(|role| (role.clone(), Default::default()))
            .collect();
        for (id, framework) in &self.frameworks {
            for role in framework.info.roles.iter().chain(framework.holdings.keys()) {
                members
                    .entry(role.clone())
                    .or_default()
                    .0
                    .insert(id.clone());
            }
            for (role, holding) in &framework.holdings {
                let sum = &mut members.entry(role.clone()).or_default().1;
                sum.offered = sum.offered.saturating_add(&holding.offered);
                sum.allocated = sum.allocated.saturating_add(&holding.allocated);
            }
        }
        members
            .into_iter()
            .map(|(role, (frameworks, holding))| RoleState {
                weight_milli: u64::from(*self.weights.get(&role).unwrap_or(&DEFAULT_WEIGHT_MILLI)),
                quota: self.quotas.get(&role).copied().unwrap_or_default(),
                consumed: self.roles.held_below(&role),
                consumed_revocable: self.roles.held_revocable_below(&role),
                lot_quotas: self.lot_quotas(&role),
                role,
                frameworks: frameworks.into_iter().collect(),
                offered: holding.offered,
                allocated: holding.allocated,
            })
            .collect()
    }
}
