//! What survives a restart of the master: the records of the registry, and the writes to them.
//!
//! The core decides what must be durable and says so as [`RegistryWrite`]s inside
//! [`Effect::Persist`](super::Effect::Persist); `store/` keeps them. Tasks are not recorded: their
//! agents bring them along when they register anew.

use ebb_types::{
    AgentActivity, AgentId, AgentInfo, FrameworkId, FrameworkInfo, Generation, LotLimits, Machine,
    OperationId, OperationStatus, Quota, Role, Timestamp, Window,
};

/// A framework as the registry knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FrameworkRecord {
    /// What it says of itself; its id is set.
    pub info: FrameworkInfo,
    /// When it first subscribed.
    pub registered_at: Timestamp,
    /// When it is removed unless its scheduler comes back; unset while that is connected.
    pub failover_deadline: Option<Timestamp>,
}

/// An operation of a framework whose answer is not acknowledged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OperationRecord {
    /// Whose it is.
    pub framework_id: FrameworkId,
    /// Of the order to its agent that carries it out; 0 where nothing was ordered.
    pub version: u64,
    /// What became of it, with the uuid of the answer, which it has while it is pending, too.
    pub status: OperationStatus,
}

/// What an operator has decided about an agent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Activity {
    /// It is offered from.
    #[default]
    Active,
    /// Nothing of it is offered.
    Deactivated,
    /// Nothing of it is offered, and its tasks are being killed.
    Draining {
        /// The longest that a task may take to end politely, in milliseconds; unset leaves each its
        /// own grace.
        max_grace_ms: Option<u64>,
    },
    /// Nothing of it is offered, and nothing was left on it.
    Drained,
}

impl Activity {
    /// As operators see it.
    pub const fn view(self) -> AgentActivity {
        match self {
            Self::Active => AgentActivity::Active,
            Self::Deactivated => AgentActivity::Deactivated,
            Self::Draining { .. } => AgentActivity::Draining,
            Self::Drained => AgentActivity::Drained,
        }
    }
}

/// An agent as the registry knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentRecord {
    /// What it says of itself; its id is set.
    pub info: AgentInfo,
    /// When it first joined.
    pub registered_at: Timestamp,
    /// Since when it has been out of reach; unset while it is in.
    pub unreachable_since: Option<Timestamp>,
    /// What an operator has decided about it.
    pub activity: Activity,
}

/// One change of the registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RegistryWrite {
    /// Adds or replaces a framework.
    PutFramework(FrameworkRecord),
    /// Moves a framework to the completed ones: its id is never taken again.
    CompleteFramework {
        /// The framework.
        id: FrameworkId,
        /// When it was removed.
        at: Timestamp,
    },
    /// Forgets that a framework ever was; the completed ones are bounded.
    ForgetFramework(FrameworkId),
    /// Adds or replaces an agent.
    PutAgent(AgentRecord),
    /// Forgets an agent.
    RemoveAgent(AgentId),
    /// Sets the weight of a role, in thousandths.
    PutWeight {
        /// The role.
        role: Role,
        /// Its weight, in thousandths.
        weight_milli: u64,
    },
    /// Sets the quota of a role; one that says nothing is forgotten.
    PutQuota {
        /// The role.
        role: Role,
        /// Its quota.
        quota: Quota,
    },
    /// Sets the limits of named lots of a role; none are forgotten.
    PutLotLimits {
        /// The role.
        role: Role,
        /// Its limits.
        limits: LotLimits,
    },
    /// Sets the maintenance window of a machine.
    PutWindow(Window),
    /// Forgets the maintenance window of a machine.
    RemoveWindow(Machine),
    /// Adds or replaces an operation.
    PutOperation(OperationRecord),
    /// Forgets an operation. Those of a framework are forgotten when it is completed.
    RemoveOperation {
        /// Whose it was.
        framework_id: FrameworkId,
        /// The operation.
        id: OperationId,
    },
}

/// What the registry holds when the master starts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Restored {
    /// Names the cluster; made once, when the registry is. Part of every id that the master makes.
    pub cluster: String,
    /// The term that begins; never used before.
    pub generation: Generation,
    /// The frameworks.
    pub frameworks: Vec<FrameworkRecord>,
    /// Completed frameworks, oldest first.
    pub completed: Vec<FrameworkId>,
    /// The agents.
    pub agents: Vec<AgentRecord>,
    /// Weights of roles, in thousandths.
    pub weights: Vec<(Role, u64)>,
    /// Quotas of roles.
    pub quotas: Vec<(Role, Quota)>,
    /// Limits of named lots of roles.
    pub lot_limits: Vec<(Role, LotLimits)>,
    /// Maintenance windows of machines.
    pub windows: Vec<Window>,
    /// Operations whose answers are not acknowledged.
    pub operations: Vec<OperationRecord>,
}

impl Restored {
    /// What the registry holds after one more write.
    pub fn apply(&mut self, write: RegistryWrite) {
        match write {
            RegistryWrite::PutFramework(record) => {
                self.frameworks
                    .retain(|other| other.info.id != record.info.id);
                self.frameworks.push(record);
            }
            RegistryWrite::CompleteFramework { id, .. } => {
                self.frameworks
                    .retain(|other| other.info.id.as_ref() != Some(&id));
                self.operations.retain(|other| other.framework_id != id);
                self.completed.push(id);
            }
            RegistryWrite::ForgetFramework(id) => {
                self.frameworks
                    .retain(|other| other.info.id.as_ref() != Some(&id));
                self.completed.retain(|other| *other != id);
            }
            RegistryWrite::PutAgent(record) => {
                self.agents.retain(|other| other.info.id != record.info.id);
                self.agents.push(record);
            }
            RegistryWrite::RemoveAgent(id) => {
                self.agents
                    .retain(|other| other.info.id.as_ref() != Some(&id));
            }
            RegistryWrite::PutWeight { role, weight_milli } => {
                self.weights.retain(|(other, _)| *other != role);
                self.weights.push((role, weight_milli));
            }
            RegistryWrite::PutQuota { role, quota } => {
                self.quotas.retain(|(other, _)| *other != role);
                if !quota.is_none() {
                    self.quotas.push((role, quota));
                }
            }
            RegistryWrite::PutLotLimits { role, limits } => {
                self.lot_limits.retain(|(other, _)| *other != role);
                if !limits.is_none() {
                    self.lot_limits.push((role, limits));
                }
            }
            RegistryWrite::PutWindow(window) => {
                self.windows.retain(|other| other.machine != window.machine);
                self.windows.push(window);
            }
            RegistryWrite::RemoveWindow(machine) => {
                self.windows.retain(|other| other.machine != machine);
            }
            RegistryWrite::PutOperation(record) => {
                self.forget_operation(&record.framework_id, &record.status.id);
                self.operations.push(record);
            }
            RegistryWrite::RemoveOperation { framework_id, id } => {
                self.forget_operation(&framework_id, &id);
            }
        }
    }

    fn forget_operation(&mut self, framework_id: &FrameworkId, id: &OperationId) {
        let is_it =
            |other: &OperationRecord| other.framework_id == *framework_id && other.status.id == *id;
        self.operations.retain(|other| !is_it(other));
    }
}
