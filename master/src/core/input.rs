//! What goes into the core and what comes out of it.

use ebb_types::{
    AgentId, AgentToMaster, Call, Event, FrameworkId, Incarnation, LotLimits, Lots, Machine,
    MasterToAgent, OperationKind, Quota, ResourceKind, Role, TaskId, Unavailability,
};

use super::claims::BatchId;
use super::record::RegistryWrite;
use crate::allocator::Proposal;
use crate::ledger::{AgentLedger, Transition};

/// Names one connection of a scheduler or agent; never used twice by one master process. One that was
/// opened later is larger: what an older connection still brings is stale.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId(pub u64);

/// Names one request of an operator; its answer comes as [`Effect::Answer`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub u64);

/// Everything that can happen to the master.
#[derive(Clone, Debug, PartialEq)]
pub enum Input {
    /// A scheduler calls. The first call of a connection subscribes.
    Scheduler {
        /// Its connection.
        connection: ConnectionId,
        /// What it wants.
        call: Call,
    },
    /// A scheduler's connection has ended.
    SchedulerGone {
        /// The connection.
        connection: ConnectionId,
    },
    /// An agent speaks. The first message of a connection registers it.
    Agent {
        /// Its connection.
        connection: ConnectionId,
        /// The life of the agent that speaks, from the message's envelope.
        incarnation: Incarnation,
        /// What it says.
        message: AgentToMaster,
    },
    /// An agent's connection has ended.
    AgentGone {
        /// The connection.
        connection: ConnectionId,
    },
    /// The allocator has offered resources in the ledger.
    Proposals {
        /// Its batch, to be noted in the next publication; none from a pass on the driver's
        /// own thread.
        batch: Option<BatchId>,
        /// What it has offered.
        proposals: Vec<Proposal>,
    },
    /// An operator wants something done.
    Operator {
        /// Names the request.
        request: RequestId,
        /// What is to be done.
        command: OperatorCommand,
    },
    /// Time has passed: [`Core::next_deadline`](super::Core::next_deadline) is due.
    Tick,
}

/// What an operator may have done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OperatorCommand {
    /// Set weights of roles, in thousandths.
    SetWeights(Vec<(Role, u64)>),
    /// Set quotas of roles.
    SetQuotas {
        /// The roles with their quotas; one that says nothing takes the quota away.
        quotas: Vec<(Role, Quota)>,
        /// The limits of named lots of those roles; a role that is not among these has none.
        lot_limits: Vec<(Role, LotLimits)>,
        /// Even if roles hold more than their limits, or more is guaranteed than the cluster has.
        force: bool,
    },
    /// End a framework and all its tasks.
    Teardown(FrameworkId),
    /// End a task.
    KillTask {
        /// Whose task.
        framework_id: FrameworkId,
        /// The task.
        task_id: TaskId,
        /// Overrides the task's own grace, in milliseconds.
        grace_ms: Option<u64>,
    },
    /// Offer nothing of an agent any more; its tasks run on.
    Deactivate(AgentId),
    /// Offer an agent again.
    Reactivate(AgentId),
    /// Make something else of what is free of an agent.
    ConvertLots {
        /// The agent.
        agent_id: AgentId,
        /// What is done.
        kind: OperationKind,
        /// With what.
        lots: Lots,
    },
    /// Offer nothing of an agent any more and kill all its tasks.
    Drain {
        /// The agent.
        agent_id: AgentId,
        /// The longest that a task may take to end politely, in milliseconds.
        max_grace_ms: Option<u64>,
    },
    /// Schedule when machines will be out of use; what was scheduled for them is replaced.
    ScheduleMaintenance(Vec<(Machine, Unavailability)>),
    /// Call off what was not started.
    CancelMaintenance(Vec<Machine>),
    /// Drain the agents of machines.
    StartMaintenance(Vec<Machine>),
    /// Reactivate them, and forget the windows.
    StopMaintenance(Vec<Machine>),
}

/// Why an operator's command was not carried out.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OperatorError {
    /// There is no such framework.
    #[error("there is no framework {0}; list those that there are with `ebb frameworks`")]
    NoFramework(FrameworkId),
    /// There is no such live task.
    #[error("framework {framework_id} has no live task {task_id}; list its tasks with `ebb tasks`")]
    NoTask {
        /// The framework.
        framework_id: FrameworkId,
        /// The task.
        task_id: TaskId,
    },
    /// The weight is out of range.
    #[error("the weight of role {role} is to be {weight_milli} thousandths; choose 1 to {max}")]
    Weight {
        /// The role.
        role: Role,
        /// The weight, in thousandths.
        weight_milli: u64,
        /// The largest weight, in thousandths.
        max: u32,
    },
    /// The master remembers as many weights as it may.
    #[error("weights of {max} roles are set already; no more are kept")]
    TooManyWeights {
        /// How many.
        max: usize,
    },
    /// The master remembers as many quotas as it may.
    #[error("{max} roles have quotas already; no more are kept")]
    TooManyQuotas {
        /// How many.
        max: usize,
    },
    /// A limit is below what is guaranteed.
    #[error(
        "the limit of {} of role {role} is below what is guaranteed to it, or to the roles below it together; raise the limit or guarantee less",
        kind.name()
    )]
    QuotaUnfit {
        /// The role with the limit.
        role: Role,
        /// The first kind of which that is so.
        kind: ResourceKind,
    },
    /// More is to be guaranteed than there is.
    #[error(
        "all quotas together guarantee more {} than the agents that are registered have; guarantee less, add agents, or say that it is meant (ebb quota --force)",
        kind.name()
    )]
    QuotaBeyondCluster {
        /// The first kind of which that is so.
        kind: ResourceKind,
    },
    /// The tasks of a role hold more than its limit is to be.
    #[error(
        "the tasks of role {role} hold more {}{} than its limit is to be; end some of them first, or say that it is meant (ebb quota --force): they run on, and the role is offered no more",
        if *is_revocable { "revocable " } else { "" },
        kind.name()
    )]
    QuotaExceeded {
        /// The role.
        role: Role,
        /// The first kind of which that is so.
        kind: ResourceKind,
        /// Whether it is the limit of what is lent.
        is_revocable: bool,
    },
    /// There is nothing of that name to be limited.
    #[error(
        "no agent that is registered has any {name:?}, of which role {role} is to have a limit; known kinds are {}. Correct the name, or say that it is meant (ebb quota --force)",
        ResourceKind::listed()
    )]
    NoLot {
        /// The role.
        role: Role,
        /// The name.
        name: String,
    },
    /// The tasks of a role hold more of a lot than its limit is to be.
    #[error(
        "the tasks of role {role} hold more {name} than its limit is to be; end some of them first, or say that it is meant (ebb quota --force): they run on, and the role is offered no more"
    )]
    LotLimitExceeded {
        /// The role.
        role: Role,
        /// The first name of which that is so.
        name: String,
    },
    /// The master remembers as many windows as it may.
    #[error("{max} machines have a maintenance window already; cancel some first")]
    TooManyWindows {
        /// How many.
        max: usize,
    },
    /// The window is over already.
    #[error(
        "the maintenance of {0} would be over already; give a later start or a longer duration"
    )]
    WindowOver(Machine),
    /// No maintenance is scheduled.
    #[error(
        "no maintenance of {0} is scheduled; see `ebb maintenance status`, or schedule it with `ebb maintenance schedule`"
    )]
    NoWindow(Machine),
    /// The maintenance was started.
    #[error("the maintenance of {0} was started; end it with `ebb maintenance stop`")]
    MachineDown(Machine),
    /// The maintenance was not started.
    #[error(
        "the maintenance of {0} was not started; start it with `ebb maintenance start`, or call it off with `ebb maintenance cancel`"
    )]
    NotStarted(Machine),
    /// There is no such agent.
    #[error("there is no agent {0}; list those that there are with `ebb agents`")]
    NoAgent(AgentId),
    /// The agent is offered from already.
    #[error(
        "agent {0} is active already; only one that is deactivated or drained can be reactivated"
    )]
    AlreadyActive(AgentId),
    /// The agent's lots do not allow it.
    #[error("agent {agent_id}: {rule}")]
    Lots {
        /// The agent.
        agent_id: AgentId,
        /// What stands in the way.
        rule: String,
    },
    /// The agent still has tasks that are being killed.
    #[error(
        "agent {0} is draining, which cannot be called off; reactivate it when `ebb agents` shows it as drained"
    )]
    StillDraining(AgentId),
}

/// What is to be done. To be performed in order; [`Effect::Persist`] must be durable before any
/// effect after it is performed (performing it earlier than effects before it does no harm).
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// These changes of the registry, together or not at all.
    Persist(Vec<RegistryWrite>),
    /// Tell a scheduler.
    ToScheduler {
        /// Its connection.
        connection: ConnectionId,
        /// What.
        event: Event,
    },
    /// End a scheduler's connection after what was sent to it; the core has forgotten it.
    CloseScheduler {
        /// The connection.
        connection: ConnectionId,
        /// Why.
        reason: String,
    },
    /// Tell an agent; the envelope carries [`Core::generation`](super::Core::generation).
    ToAgent {
        /// Its connection.
        connection: ConnectionId,
        /// What.
        message: MasterToAgent,
    },
    /// End an agent's connection after what was sent to it; the core has forgotten it.
    CloseAgent {
        /// The connection.
        connection: ConnectionId,
        /// Why.
        reason: String,
    },
    /// Add an agent to the ledger, or replace it.
    InsertSlot {
        /// The agent.
        agent_id: AgentId,
        /// Its number in the book of claims.
        number: u32,
        /// Its first ledger.
        ledger: AgentLedger,
    },
    /// Take an agent out of the ledger.
    RemoveSlot {
        /// The agent.
        agent_id: AgentId,
    },
    /// Apply a transition to an agent's ledger. It is never refused but for contention.
    Ledger {
        /// The agent.
        agent_id: AgentId,
        /// The registration that it speaks of.
        incarnation: Incarnation,
        /// The transition.
        transition: Transition,
    },
    /// Hand [`Core::publish`](super::Core::publish) to the allocator: it has changed.
    Publish,
    /// Have the allocator look at these agents.
    Wake(Vec<AgentId>),
    /// Have the allocator look at all agents.
    WakeAll,
    /// Have the allocator look at the agents again of which it has left something because of a quota.
    WakeHeldBack,
    /// Answer an operator.
    Answer {
        /// The request.
        request: RequestId,
        /// Whether it was carried out.
        outcome: Result<(), OperatorError>,
    },
}
