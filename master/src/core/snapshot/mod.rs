//! What the allocator knows of roles and frameworks: a picture that is immutable once published and
//! cheap to clone (persistent maps), kept up to date by its single owner, the master's core.
//!
//! Invariants: what a framework holds in a role is what its offers and tasks hold, each charged once
//! and credited once by the core; a refusal lasts until it expires, is voided by its framework
//! (revive, deactivation) or its agent changes. The order of need is kept with the holdings, so that
//! planning starts with the neediest and never sorts.
//!
//! Order of use: change, [`RoleSnapshot::publish`], then wake the allocator for the agents concerned.
//! What each change asks for: an agent's resources became free, its total rose or refusals of it
//! expired: wake it; a framework became active, was unsuppressed or revived: wake all.

mod agents;
mod claimants;
mod refusals;
mod table;

use std::collections::BTreeSet;

use ebb_types::{AgentId, FrameworkId, Quantities, Resources, Role, Timestamp};
use imbl::OrdMap;

use super::drf::{Class, Share, Standing, Sums};
use agents::AgentEntry;
pub(crate) use agents::RefusalReader;
pub use claimants::DEFAULT_WEIGHT_MILLI;
pub(crate) use claimants::{Claimants, Member};
pub use refusals::MAX_REFUSALS_PER_MEMBER;
use refusals::Refusal;

/// What a framework wants of the allocator.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FrameworkTerms {
    /// The roles it is offered resources for.
    pub roles: BTreeSet<Role>,
    /// Those of them for which it wants no offers now.
    pub suppressed: BTreeSet<Role>,
    /// Whether its scheduler is connected: others are offered nothing.
    pub active: bool,
    /// Whether it may be offered revocable resources.
    pub revocable: bool,
}

impl FrameworkTerms {
    fn wants(&self, role: &Role) -> [bool; Class::ALL.len()] {
        let wanted = self.active && self.roles.contains(role) && !self.suppressed.contains(role);
        [wanted, wanted && self.revocable]
    }
}

/// More is to be taken back than is held: always a fault in Ebb.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{framework_id} in role {role} does not hold {resources}")]
pub struct NotHeld {
    /// The framework.
    pub framework_id: FrameworkId,
    /// The role.
    pub role: Role,
    /// What was to be taken back.
    pub resources: Resources,
}

/// Which proposals of the allocator's worker threads a snapshot accounts for: the core notes the
/// number of each batch that it has taken in (see [`RoleSnapshot::note_batch`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct BatchId {
    /// The worker thread.
    pub worker: u32,
    /// Its batch; counted from 1.
    pub number: u64,
}

/// What a role holds, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RoleStanding {
    /// The role.
    pub role: Role,
    /// Its weight, in thousandths.
    pub weight_milli: u32,
    /// What it holds.
    pub standing: Standing,
    /// Its dominant share of what is owned in the cluster, in thousandths, weight left out.
    pub regular_share_milli: u64,
    /// Its dominant share of what is lent in the cluster, in thousandths, weight left out.
    pub revocable_share_milli: u64,
}

/// The allocator's picture of roles, frameworks, their holdings and their refusals.
#[derive(Clone, Debug, Default)]
pub struct RoleSnapshot {
    sequence: u64,
    claimants: Claimants,
    frameworks: OrdMap<FrameworkId, FrameworkTerms>,
    agents: OrdMap<AgentId, AgentEntry>,
    /// When which refusal ends: (time, stamp) → agent.
    expiries: OrdMap<(Timestamp, u64), AgentId>,
    /// Stamp of the last refusal.
    stamp: u64,
    crowded_out: u64,
    batches: OrdMap<u32, u64>,
}

impl RoleSnapshot {
    /// A picture of nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Rises with every change.
    pub const fn sequence(&self) -> u64 {
        self.sequence
    }

    /// Sets what an agent has and lends. A new total (not a new estimate) voids the refusals of its
    /// resources: an offer that grows by more lent resources passes them anyway.
    pub fn set_agent(&mut self, agent_id: &AgentId, total: Quantities, oversubscribed: Quantities) {
        self.sequence += 1;
        if self
            .agents
            .get(agent_id)
            .is_some_and(|old| old.total != total)
        {
            self.void_agent_refusals(agent_id);
        }
        let old = self.agents.get(agent_id).cloned().unwrap_or_default();
        self.change_total(Class::Regular, &old.total, &total);
        self.change_total(Class::Revocable, &old.oversubscribed, &oversubscribed);
        let refusals = old.refusals;
        let entry = AgentEntry {
            total,
            oversubscribed,
            refusals,
        };
        self.agents.insert(agent_id.clone(), entry);
    }

    /// Removes an agent and the refusals of its resources. Holdings on it are to be credited apart.
    pub fn remove_agent(&mut self, agent_id: &AgentId) {
        self.sequence += 1;
        self.void_agent_refusals(agent_id);
        if let Some(old) = self.agents.remove(agent_id) {
            self.change_total(Class::Regular, &old.total, &Quantities::ZERO);
            self.change_total(Class::Revocable, &old.oversubscribed, &Quantities::ZERO);
        }
    }

    fn change_total(&mut self, class: Class, old: &Quantities, new: &Quantities) {
        let mut total = *self.claimants.totals(class);
        let held = total.sub(old);
        debug_assert!(held, "the cluster has less than one of its agents");
        total.add(new);
        self.claimants.set_total(class, total);
    }

    /// What the cluster has of a class.
    pub const fn cluster_total(&self, class: Class) -> &Sums {
        self.claimants.totals(class)
    }

    /// Adds a framework or changes its terms. A framework that is not active has no refusals.
    pub fn set_framework(&mut self, framework_id: &FrameworkId, terms: FrameworkTerms) {
        self.sequence += 1;
        let old = self
            .frameworks
            .get(framework_id)
            .cloned()
            .unwrap_or_default();
        for role in terms.roles.union(&old.roles) {
            let index = self.claimants.intern(framework_id, role, self.stamp);
            if !terms.active {
                self.claimants.void_refusals(index, self.stamp);
            }
            self.claimants
                .set_wants(index, terms.roles.contains(role), terms.wants(role));
        }
        self.frameworks.insert(framework_id.clone(), terms);
    }

    /// A framework's terms.
    pub fn framework(&self, framework_id: &FrameworkId) -> Option<&FrameworkTerms> {
        self.frameworks.get(framework_id)
    }

    /// Removes a framework and its refusals. What it still holds is to be credited apart.
    pub fn remove_framework(&mut self, framework_id: &FrameworkId) {
        self.set_framework(framework_id, FrameworkTerms::default());
        self.frameworks.remove(framework_id);
    }

    /// Sets a role's weight, in thousandths, at least 1.
    pub fn set_weight(&mut self, role: &Role, weight_milli: u32) {
        self.sequence += 1;
        self.claimants.set_weight(role, weight_milli);
    }

    /// A role's weight, in thousandths.
    pub fn weight_milli(&self, role: &Role) -> u32 {
        self.claimants
            .role_named(role)
            .map_or(DEFAULT_WEIGHT_MILLI, |entry| entry.weight_milli)
    }

    /// Counts resources as held (offered or allocated) by a framework in a role. The framework need
    /// not be known (yet): after a fail-over its tasks may be heard of before it is.
    pub fn charge(&mut self, framework_id: &FrameworkId, role: &Role, resources: &Resources) {
        if resources.is_zero() {
            return;
        }
        self.sequence += 1;
        let index = self.claimants.intern(framework_id, role, self.stamp);
        self.claimants.charge(index, resources);
    }

    /// Counts resources as held no more.
    ///
    /// # Errors
    /// [`NotHeld`] when it holds less; nothing is changed then.
    pub fn credit(
        &mut self,
        framework_id: &FrameworkId,
        role: &Role,
        resources: &Resources,
    ) -> Result<(), NotHeld> {
        if resources.is_zero() {
            return Ok(());
        }
        self.sequence += 1;
        let index = self.claimants.member_index(framework_id, role);
        if index.is_some_and(|index| self.claimants.credit(index, resources)) {
            return Ok(());
        }
        Err(NotHeld {
            framework_id: framework_id.clone(),
            role: role.clone(),
            resources: *resources,
        })
    }

    /// What a role holds.
    pub fn role_standing(&self, role: &Role) -> Standing {
        self.claimants
            .role_named(role)
            .map_or_else(Standing::default, |entry| entry.standing)
    }

    /// What every role that has a member or a weight holds, by name.
    pub fn role_standings(&self) -> impl Iterator<Item = RoleStanding> {
        self.claimants.roles().map(|entry| {
            let share = |class| {
                Share::dominant(entry.standing.held(class), self.cluster_total(class), 1).as_milli()
            };
            RoleStanding {
                role: entry.role.clone(),
                weight_milli: entry.weight_milli,
                standing: entry.standing,
                regular_share_milli: share(Class::Regular),
                revocable_share_milli: share(Class::Revocable),
            }
        })
    }

    /// What a framework holds in a role.
    pub fn standing(&self, framework_id: &FrameworkId, role: &Role) -> Standing {
        self.claimants
            .member_index(framework_id, role)
            .and_then(|index| self.claimants.member(index))
            .map_or_else(Standing::default, |member| member.standing)
    }

    /// Remembers that a framework refused resources of an agent: until `expires` it is offered
    /// nothing there that is wholly within them. Nothing is remembered of an agent that is not known
    /// nor of a framework that is not active.
    pub fn refuse(
        &mut self,
        framework_id: &FrameworkId,
        role: &Role,
        agent_id: &AgentId,
        refused: &Resources,
        expires: Timestamp,
    ) {
        let member = self.claimants.member_index(framework_id, role);
        let is_active = self
            .framework(framework_id)
            .is_some_and(|terms| terms.active);
        let Some(member) = member.filter(|_| is_active) else {
            return;
        };
        let Some(agent) = self.agents.get_mut(agent_id) else {
            return;
        };
        self.sequence += 1;
        self.stamp += 1;
        let refusal = Refusal {
            member,
            stamp: self.stamp,
            refused: *refused,
            expires,
        };
        let addition = agent.refusals.add(refusal, &self.claimants);
        self.crowded_out += u64::from(addition.crowded_out);
        for old in addition.left {
            self.expiries.remove(&(old.expires, old.stamp));
        }
        if addition.added {
            self.expiries
                .insert((expires, refusal.stamp), agent_id.clone());
        }
    }

    /// Voids a framework's refusals in one role (revive), on every agent.
    pub fn void_refusals(&mut self, framework_id: &FrameworkId, role: &Role) {
        if let Some(index) = self.claimants.member_index(framework_id, role) {
            self.sequence += 1;
            self.claimants.void_refusals(index, self.stamp);
        }
    }

    /// Voids the refusals of an agent's resources (it came back, perhaps another).
    pub fn void_agent_refusals(&mut self, agent_id: &AgentId) {
        let Some(agent) = self.agents.get_mut(agent_id) else {
            return;
        };
        let refusals = std::mem::take(&mut agent.refusals);
        self.sequence += 1;
        for old in refusals.iter() {
            self.expiries.remove(&(old.expires, old.stamp));
        }
    }

    /// Drops the refusals that have expired; the agents that they spoke of, which the allocator is
    /// to be woken for.
    pub fn expire(&mut self, now: Timestamp) -> BTreeSet<AgentId> {
        let mut agents = BTreeSet::new();
        while let Some(((expires, stamp), _)) = self.expiries.get_min()
            && *expires <= now
        {
            let key = (*expires, *stamp);
            self.sequence += 1;
            if let Some(agent_id) = self.expiries.remove(&key) {
                if let Some(agent) = self.agents.get_mut(&agent_id) {
                    agent.refusals.remove(key.1);
                }
                agents.insert(agent_id);
            }
        }
        agents
    }

    /// When the next refusal expires: the driver's timer for [`RoleSnapshot::expire`].
    pub fn next_expiry(&self) -> Option<Timestamp> {
        self.expiries.get_min().map(|((expires, _), _)| *expires)
    }

    /// How many refusals are remembered, void ones that were not cleared yet among them.
    pub fn refusals(&self) -> usize {
        self.expiries.len()
    }

    /// How many refusals were forgotten early because of [`MAX_REFUSALS_PER_MEMBER`].
    pub const fn crowded_out(&self) -> u64 {
        self.crowded_out
    }

    /// Notes that the proposals of a batch have been taken in: offered and charged, or rescinded.
    pub fn note_batch(&mut self, batch: BatchId) {
        self.sequence += 1;
        self.batches.insert(batch.worker, batch.number);
    }

    /// Whether the proposals of a batch are accounted for.
    pub fn has_batch(&self, batch: BatchId) -> bool {
        self.batches
            .get(&batch.worker)
            .is_some_and(|number| *number >= batch.number)
    }

    /// Brings the order of need up to date after changes of totals, and clones. Call it to publish.
    #[must_use]
    pub fn publish(&mut self) -> Self {
        self.claimants.refresh();
        self.clone()
    }

    /// What is wrong with the tables, if anything: for the checks after every step.
    pub fn fault(&self) -> Option<String> {
        let refusals: usize = self.agents.values().map(|agent| agent.refusals.len()).sum();
        if refusals != self.expiries.len() {
            let expiries = self.expiries.len();
            return Some(format!("{refusals} refusals have {expiries} expiries"));
        }
        self.claimants.fault()
    }

    pub(crate) const fn claimants(&self) -> &Claimants {
        &self.claimants
    }

    /// Reads agents' refusals.
    pub(crate) fn refusal_reader(&self) -> RefusalReader<'_> {
        RefusalReader::new(&self.agents)
    }
}
