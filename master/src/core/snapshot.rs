//! What the allocator knows of roles and frameworks: a picture that is immutable once published and
//! cheap to clone (persistent maps), kept up to date by its single owner, the master's core.

use std::collections::BTreeSet;

use ebb_types::{AgentId, FrameworkId, Quantities, Resources, Role, Timestamp};

use super::drf::Standing;

/// Weight of a role that was given none, in thousandths.
pub const DEFAULT_WEIGHT_MILLI: u32 = 1000;

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

/// The allocator's picture of roles, frameworks, their holdings and their refusals.
#[derive(Clone, Debug, Default)]
pub struct RoleSnapshot {}

#[allow(unused_variables, clippy::unused_self, clippy::needless_pass_by_value, clippy::pass_by_ref_mut, clippy::missing_const_for_fn)]
impl RoleSnapshot {
    /// A picture of nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets what an agent has and lends. A new total (not a new estimate) voids the refusals of its
    /// resources.
    pub fn set_agent(&mut self, agent_id: &AgentId, total: Quantities, oversubscribed: Quantities) {}

    /// Removes an agent and the refusals of its resources. Holdings on it are to be credited apart.
    pub fn remove_agent(&mut self, agent_id: &AgentId) {}

    /// Adds a framework or changes its terms. One that is deactivated, or comes back, loses its
    /// refusals.
    pub fn set_framework(&mut self, framework_id: &FrameworkId, terms: FrameworkTerms) {}

    /// A framework's terms.
    pub fn framework(&self, framework_id: &FrameworkId) -> Option<&FrameworkTerms> {
        None
    }

    /// Removes a framework and its refusals. What it still holds is to be credited apart.
    pub fn remove_framework(&mut self, framework_id: &FrameworkId) {}

    /// Sets a role's weight, in thousandths, at least 1.
    pub fn set_weight(&mut self, role: &Role, weight_milli: u32) {}

    /// A role's weight, in thousandths.
    pub fn weight_milli(&self, role: &Role) -> u32 {
        DEFAULT_WEIGHT_MILLI
    }

    /// Counts resources as held (offered or allocated) by a framework in a role. The framework need
    /// not be known (yet): after a fail-over its tasks may be heard of before it is.
    pub fn charge(&mut self, framework_id: &FrameworkId, role: &Role, resources: &Resources) {}

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
        Ok(())
    }

    /// What a role holds.
    pub fn role_standing(&self, role: &Role) -> Standing {
        Standing::default()
    }

    /// What a framework holds in a role.
    pub fn standing(&self, framework_id: &FrameworkId, role: &Role) -> Standing {
        Standing::default()
    }

    /// Remembers that a framework refused resources of an agent: until `expires` it is offered
    /// nothing there that is wholly within them.
    pub fn refuse(
        &mut self,
        framework_id: &FrameworkId,
        role: &Role,
        agent_id: &AgentId,
        refused: &Resources,
        expires: Timestamp,
    ) {
    }

    /// Voids a framework's refusals in one role (revive), on every agent.
    pub fn void_refusals(&mut self, framework_id: &FrameworkId, role: &Role) {}

    /// Voids the refusals of an agent's resources (it came back, perhaps another).
    pub fn void_agent_refusals(&mut self, agent_id: &AgentId) {}

    /// Drops the refusals that have expired; the agents that they spoke of, which the allocator is
    /// to be woken for.
    pub fn expire(&mut self, now: Timestamp) -> BTreeSet<AgentId> {
        BTreeSet::new()
    }

    /// When the next refusal expires: the driver's timer for [`RoleSnapshot::expire`].
    pub fn next_expiry(&self) -> Option<Timestamp> {
        None
    }

    /// Notes that the proposals of a batch have been taken in: offered and charged, or rescinded.
    pub fn note_batch(&mut self, batch: BatchId) {}

    /// Whether the proposals of a batch are accounted for.
    pub fn has_batch(&self, batch: BatchId) -> bool {
        true
    }

    /// Brings the order of need up to date after changes of totals, and clones. Call it to publish.
    #[must_use]
    pub fn publish(&mut self) -> Self {
        self.clone()
    }
}
