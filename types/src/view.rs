//! What operators see: the state of the cluster as the master knows it, and its changes.

use crate::framework::FrameworkInfo;
use crate::ids::{AgentId, ContainerId, ExecutorId, FrameworkId, Role, TaskId};
use crate::link::AgentInfo;
use crate::lots::Lots;
use crate::maintenance::MaintenanceState;
use crate::quantities::Quantities;
use crate::quota::{LotQuota, Quota};
use crate::resources::Resources;
use crate::scheduler::{MasterInfo, Offer};
use crate::task::{TaskState, TaskStatus};
use crate::time::Timestamp;
use crate::usage::AgentUsage;

/// How an agent stands with the master.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AgentStatus {
    /// Connected and offered from.
    Registered,
    /// Its connection broke; it has until its deadline to come back.
    Disconnected,
    /// It stayed silent for too long; its tasks may still run.
    Unreachable,
    /// Known from the registry; not heard of since the master started.
    Recovered,
}

impl AgentStatus {
    /// Every status.
    pub const ALL: [Self; 4] = [
        Self::Registered,
        Self::Disconnected,
        Self::Unreachable,
        Self::Recovered,
    ];

    /// The name in API and metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Registered => "registered",
            Self::Disconnected => "disconnected",
            Self::Unreachable => "unreachable",
            Self::Recovered => "recovered",
        }
    }
}

/// What an operator has decided about an agent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AgentActivity {
    /// It is offered from.
    #[default]
    Active,
    /// Nothing of it is offered; its tasks run on.
    Deactivated,
    /// Nothing of it is offered, and its tasks are being killed.
    Draining,
    /// Nothing of it is offered, and nothing is left on it.
    Drained,
}

impl AgentActivity {
    /// Every activity.
    pub const ALL: [Self; 4] = [
        Self::Active,
        Self::Deactivated,
        Self::Draining,
        Self::Drained,
    ];

    /// The name in API and metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Deactivated => "deactivated",
            Self::Draining => "draining",
            Self::Drained => "drained",
        }
    }
}

/// An agent as the master knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentState {
    /// Names it.
    pub id: AgentId,
    /// What it says of itself.
    pub info: AgentInfo,
    /// How it stands.
    pub status: AgentStatus,
    /// When it first joined.
    pub registered_at: Timestamp,
    /// What is out in offers.
    pub offered: Resources,
    /// What tasks hold.
    pub allocated: Resources,
    /// The lots that are out in offers; a shared one as often as it is.
    pub offered_lots: Lots,
    /// The lots that tasks hold; a shared one as often as it is held.
    pub allocated_lots: Lots,
    /// What it lends in all, in use and not.
    pub oversubscribed: Quantities,
    /// Its last report.
    pub usage: Option<AgentUsage>,
    /// What an operator has decided about it.
    pub activity: AgentActivity,
}

/// A framework as the master knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FrameworkState {
    /// Names it.
    pub id: FrameworkId,
    /// What it says of itself.
    pub info: FrameworkInfo,
    /// Whether its scheduler is connected.
    pub connected: bool,
    /// When it first subscribed, or was first heard of.
    pub registered_at: Timestamp,
    /// When it will be removed unless its scheduler comes back.
    pub failover_deadline: Option<Timestamp>,
    /// Roles it wants no offers for.
    pub suppressed_roles: Vec<Role>,
    /// What is out in offers to it.
    pub offered: Resources,
    /// What its tasks hold.
    pub allocated: Resources,
    /// How many of its tasks are not terminal.
    pub live_tasks: u64,
}

/// A task as the master knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaskRecord {
    /// Whose it is.
    pub framework_id: FrameworkId,
    /// The task.
    pub task_id: TaskId,
    /// Display name.
    pub name: String,
    /// Where it runs or ran.
    pub agent_id: AgentId,
    /// The role whose offer it was launched on.
    pub role: Role,
    /// What it is allocated.
    pub resources: Resources,
    /// What else.
    pub lots: Lots,
    /// Its latest state.
    pub state: TaskState,
    /// The framework's own executor that runs it.
    pub executor_id: Option<ExecutorId>,
    /// Its container, once one is known.
    pub container_id: Option<ContainerId>,
    /// Its latest statuses, oldest first.
    pub statuses: Vec<TaskStatus>,
}

/// A role as the master knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RoleState {
    /// The role.
    pub role: Role,
    /// Its weight, in thousandths.
    pub weight_milli: u64,
    /// The frameworks in it.
    pub frameworks: Vec<FrameworkId>,
    /// What is out in offers to it.
    pub offered: Resources,
    /// What its tasks hold.
    pub allocated: Resources,
    /// Its quota.
    pub quota: Quota,
    /// What counts towards the quota: of what is owned, offered and allocated, by it and the roles below it.
    pub consumed: Quantities,
    /// What counts towards its limits of what is lent, the same way.
    pub consumed_revocable: Quantities,
    /// Its limits of named lots, by name.
    pub lot_quotas: Vec<LotQuota>,
}

/// Everything that the master knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterState {
    /// The master itself.
    pub master: MasterInfo,
    /// When this was true.
    pub at: Timestamp,
    /// The agents, by id.
    pub agents: Vec<AgentState>,
    /// The frameworks, by id.
    pub frameworks: Vec<FrameworkState>,
    /// Tasks that are not terminal or whose end is not acknowledged, then remembered ended ones; each by framework and
    /// id.
    pub tasks: Vec<TaskRecord>,
    /// The roles, by name.
    pub roles: Vec<RoleState>,
    /// The outstanding offers, by id.
    pub offers: Vec<Offer>,
    /// The maintenance of machines, by machine.
    pub maintenance: Vec<MaintenanceState>,
}

/// One change of what the master knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Everything; the first change of a stream, and again where the master could not tell all changes.
    Snapshot(Box<ClusterState>),
    /// A task was accepted, came back, or changed without a status.
    TaskAdded(Box<TaskRecord>),
    /// A task changed its state.
    TaskUpdated {
        /// Whose task.
        framework_id: FrameworkId,
        /// The news.
        status: Box<TaskStatus>,
    },
    /// An agent joined, came back, or changed how it stands.
    AgentUpdated(Box<AgentState>),
    /// An agent was removed.
    AgentRemoved(AgentId),
    /// A framework subscribed, came back, or changed.
    FrameworkUpdated(Box<FrameworkState>),
    /// A framework was removed.
    FrameworkRemoved(FrameworkId),
    /// The master lives.
    Heartbeat,
}
