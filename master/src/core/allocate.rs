//! Who is offered what: a pure plan over a snapshot of the roles and views of the agents.

use ebb_types::{AgentId, FrameworkId, Incarnation, Resources, Role, Timestamp};

use super::snapshot::RoleSnapshot;

/// What the plan needs to know of an agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentView {
    /// The agent.
    pub agent_id: AgentId,
    /// Its life.
    pub incarnation: Incarnation,
    /// What can be offered.
    pub free: Resources,
}

/// Resources of one agent for one framework in one role: an offer without an id yet. They are
/// already offered in the ledger when the driver receives it from the allocator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proposal {
    /// The agent.
    pub agent_id: AgentId,
    /// Its life.
    pub incarnation: Incarnation,
    /// Who is to be offered them.
    pub framework_id: FrameworkId,
    /// For which of its roles.
    pub role: Role,
    /// What.
    pub resources: Resources,
}

/// Plans offers for the agents in the given order.
pub fn plan(snapshot: &RoleSnapshot, agents: &[AgentView], now: Timestamp) -> Vec<Proposal> {
    let _ = (snapshot, agents, now);
    Vec::new()
}
