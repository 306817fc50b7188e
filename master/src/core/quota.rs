//! Quotas of roles: what operators may set, what stands against them, and when nothing is offered because of them.
//!
//! A quota counts what a role and those below it hold, offers that are out included: of what is owned, and apart from that
//! of what is lent, which is limited but never guaranteed. Who may still be
//! offered how much is the book's to know (`claims/tree/quota.rs`). A proposal that an allocator's thread has planned with
//! an older book is held against it again when it comes in, by the core's own thread, before it becomes an offer: so no
//! limit is passed and nothing that is kept free is given away, however many threads plan at once.
//!
//! After a start of the master nothing is offered before most agents are back, where any role has a quota: what a role
//! holds is known from its agents alone. As in Mesos.

use std::collections::{BTreeMap, BTreeSet};

use ebb_types::{Limits, LotLimits, OfferId, Quota, ResourceKind, Resources, Role};

use super::drf::{Class, Sums};
use super::input::{Effect, OperatorError};
use super::limits::MAX_QUOTAS;
use super::news::News;
use super::record::RegistryWrite;
use super::state::Core;

/// Nothing is offered while more than one in so many agents that were known at the start is awaited.
const AWAITED_PART: usize = 5;

/// Why quotas do not go together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Unfit<'a> {
    role: &'a Role,
    kind: ResourceKind,
}

/// What all quotas together guarantee; not where a role has to hold more than its limit, so that its guarantee and those
/// below it are met.
fn guaranteed(quotas: &BTreeMap<Role, Quota>) -> Result<Sums, Unfit<'_>> {
    let mut below: BTreeMap<&Role, Sums> = BTreeMap::new();
    // A role comes after the one above it: so its children have been counted when it is its turn.
    for (role, quota) in quotas.iter().rev() {
        let mut met = Sums::default();
        below.retain(|child, sum| {
            let is_below = child.is_within(role);
            if is_below {
                met.add_sums(sum);
            }
            !is_below
        });
        met.raise_to(&quota.guarantee);
        let mut limits = quota.limits.iter();
        if let Some((kind, _)) = limits.find(|(kind, limit)| met.get(*kind) > u128::from(*limit)) {
            return Err(Unfit { role, kind });
        }
        below.insert(role, met);
    }
    let mut all = Sums::default();
    below.values().for_each(|sum| all.add_sums(sum));
    Ok(all)
}

impl Core {
    /// Sets quotas, all or none; one that says nothing takes a role's quota away.
    pub(super) fn set_quotas(
        &mut self,
        quotas: Vec<(Role, Quota)>,
        lot_limits: Vec<(Role, LotLimits)>,
        force: bool,
    ) -> Result<(), OperatorError> {
        let changed: BTreeMap<Role, Quota> = quotas.into_iter().collect();
        let mut all = self.quotas.clone();
        for (role, quota) in &changed {
            if quota.is_none() {
                all.remove(role);
            } else {
                all.insert(role.clone(), *quota);
            }
        }
        let mut of_lots: BTreeMap<Role, LotLimits> = lot_limits.into_iter().collect();
        of_lots.retain(|role, _| changed.contains_key(role));
        let limited = (self.lots.limits.keys()).filter(|role| !changed.contains_key(*role));
        let limited = limited.chain(of_lots.keys()).chain(all.keys());
        if limited.collect::<BTreeSet<_>>().len() > MAX_QUOTAS {
            return Err(OperatorError::TooManyQuotas { max: MAX_QUOTAS });
        }
        let guaranteed = guaranteed(&all).map_err(|unfit| OperatorError::QuotaUnfit {
            role: unfit.role.clone(),
            kind: unfit.kind,
        })?;
        if !force {
            self.check_capacity(&guaranteed)?;
            self.check_consumed(&changed)?;
            self.check_lot_limits(&of_lots)?;
        }
        let writes = changed.iter().map(|(role, quota)| RegistryWrite::PutQuota {
            role: role.clone(),
            quota: *quota,
        });
        let no_limit = LotLimits::default();
        let new_limits = |role| of_lots.get(role).unwrap_or(&no_limit).clone();
        let had_limits = |role: &&Role| self.lots.limits.contains_key(*role);
        let relimited = (changed.keys())
            .filter(|role| had_limits(role) || of_lots.contains_key(*role))
            .map(|role| (role.clone(), new_limits(role)));
        let relimited: Vec<(Role, LotLimits)> = relimited.collect();
        let of_lots = relimited.iter().cloned();
        let writes = writes
            .chain(of_lots.map(|(role, limits)| RegistryWrite::PutLotLimits { role, limits }));
        self.emit(Effect::Persist(writes.collect()));
        for (role, quota) in &changed {
            self.roles.set_quota(role, *quota);
            self.note(|| News::Quota(role.clone(), *quota));
        }
        self.quotas = all;
        self.changed = true;
        self.wake_all = true;
        self.rescind_for_quotas();
        self.set_lot_limits(relimited);
        Ok(())
    }

    /// No more may be guaranteed than the cluster has now.
    fn check_capacity(&self, guaranteed: &Sums) -> Result<(), OperatorError> {
        let total = self.roles.cluster_total(Class::Regular);
        let mut kinds = ResourceKind::ALL.into_iter();
        match kinds.find(|kind| guaranteed.get(*kind) > total.get(*kind)) {
            Some(kind) => Err(OperatorError::QuotaBeyondCluster { kind }),
            None => Ok(()),
        }
    }

    /// No role's tasks may hold more than its new limits.
    fn check_consumed(&self, changed: &BTreeMap<Role, Quota>) -> Result<(), OperatorError> {
        for (role, quota) in changed {
            let of_class = [&quota.limits, &quota.revocable_limits];
            if of_class.into_iter().all(Limits::is_none) {
                continue;
            }
            let allocated = self.allocated_within(role);
            for (class, limits) in Class::ALL.into_iter().zip(of_class) {
                let held = class.part(&allocated);
                if let Some((kind, _)) =
                    (limits.iter()).find(|(kind, limit)| held.get(*kind) > *limit)
                {
                    return Err(OperatorError::QuotaExceeded {
                        role: role.clone(),
                        kind,
                        is_revocable: class == Class::Revocable,
                    });
                }
            }
        }
        Ok(())
    }

    fn allocated_within(&self, above: &Role) -> Resources {
        let holdings = self.frameworks.values().flat_map(|one| &one.holdings);
        let within = holdings.filter(|(role, _)| role.is_within(above));
        within.fold(Resources::ZERO, |sum, (_, holding)| {
            sum.saturating_add(&holding.allocated)
        })
    }

    /// Withdraws the offers that stand against quotas: those that take a role beyond its limits, and as many as it takes
    /// for what is owed to be free. Offers within the guarantees of their own roles stay.
    fn rescind_for_quotas(&mut self) {
        let out: Vec<(OfferId, Role)> = (self.offers.iter())
            .filter(|(_, offer)| !offer.resources.is_zero())
            .map(|(id, offer)| (id.clone(), offer.role.clone()))
            .collect();
        for (id, role) in out {
            let Some(offer) = self.offers.get(&id) else {
                continue;
            };
            let held = offer.resources;
            let states = self.roles.quotas_above(&role);
            let is_above = |limit: Option<u64>, held: u64| limit.is_some_and(|limit| held > limit);
            let passes = |kind: &ResourceKind| {
                let mut limits = states.iter();
                limits.any(|state| is_above(state.quota.limits.get(*kind), state.held.get(*kind)))
            };
            let passes_lent = |kind: &ResourceKind| {
                let mut limits = states.iter();
                limits.any(|state| {
                    let limit = state.quota.revocable_limits.get(*kind);
                    is_above(limit, state.held_revocable.get(*kind))
                })
            };
            let shortage = self.roles.shortage();
            let is_missing = |kind: &ResourceKind| {
                let is_owed = |kind| {
                    let mut guarantees = states.iter();
                    guarantees.any(|state| state.quota.guarantee.get(kind) >= state.held.get(kind))
                };
                shortage.get(*kind) > 0 && !is_owed(*kind)
            };
            let mut owned = held.regular.iter().map(|(kind, _)| kind);
            let mut lent = held.revocable.iter().map(|(kind, _)| kind);
            if owned.any(|kind| passes(&kind) || is_missing(&kind))
                || lent.any(|kind| passes_lent(&kind))
            {
                self.rescind(&id);
            }
        }
    }

    /// Whether nothing is offered because too many agents are awaited for it to be known what roles hold.
    pub(super) fn is_awaiting_agents(&self) -> bool {
        (!self.quotas.is_empty() || !self.lots.limits.is_empty())
            && self.awaited * AWAITED_PART > self.recovered
    }

    /// Tells the book how much of what agents have is free and yet cannot be offered.
    pub(super) fn settle_outside(&mut self) {
        for id in std::mem::take(&mut self.outside) {
            self.note_reserved(&id);
            let Some(agent) = self.agents.get(&id) else {
                continue;
            };
            let withheld = self.withheld_of(agent);
            self.changed |= self.roles.set_withheld(&id, withheld);
            self.wake_held_back = true;
        }
    }
}
