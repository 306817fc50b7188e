//! The scheduler API: what a framework may ask of the master, and what it hears.
//!
//! The semantics are those of the Mesos v1 scheduler API.

use crate::framework::FrameworkInfo;
use crate::ids::{
    AgentId, ExecutorId, FrameworkId, Generation, OfferId, OperationId, Role, TaskId, UpdateUuid,
};
use crate::lasting::Lasting;
use crate::limits::DEFAULT_REFUSE_MS;
use crate::link::{Attribute, FaultDomain};
use crate::lots::Lots;
use crate::maintenance::{InverseOffer, Unavailability};
use crate::resources::Resources;
use crate::task::{TaskInfo, TaskStatus};
use crate::terms::OfferTerms;
use crate::time::Timestamp;

/// Resources of one agent promised to one framework in one role until a deadline.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offer {
    /// Names the offer.
    pub id: OfferId,
    /// Whom it is made to.
    pub framework_id: FrameworkId,
    /// Whose resources these are.
    pub agent_id: AgentId,
    /// The agent's host name.
    pub hostname: String,
    /// The role that it is made to.
    pub role: Role,
    /// What is promised.
    pub resources: Resources,
    /// What else.
    pub lots: Lots,
    /// The agent's attributes.
    pub attributes: Vec<Attribute>,
    /// The framework's own executors that run on the agent.
    pub executor_ids: Vec<ExecutorId>,
    /// When the offer lapses by itself.
    pub deadline: Option<Timestamp>,
    /// Where the agent stands.
    pub domain: Option<FaultDomain>,
    /// When it will be out of use, if that is scheduled.
    pub unavailability: Option<Unavailability>,
    /// How much of its revocable part can be expected to stay for how long; nothing is known where nothing of it is
    /// revocable, or the agent does not say.
    pub lasting: Lasting,
}

/// What a refusal asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Filters {
    /// For how long resources that are a subset of the refused ones are not offered again, in
    /// milliseconds; of a decline at least [`MIN_DECLINE_MS`](crate::limits::MIN_DECLINE_MS).
    pub refuse_ms: u64,
}

impl Default for Filters {
    fn default() -> Self {
        Self {
            refuse_ms: DEFAULT_REFUSE_MS,
        }
    }
}

/// What to do with the resources of accepted offers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Launch tasks, each on its own account.
    Launch {
        /// The tasks.
        tasks: Vec<TaskInfo>,
        /// Tasks whose description could not even be read, which get TASK_ERROR.
        malformed: Vec<MalformedTask>,
    },
    /// Make something else of lots.
    Convert {
        /// Names the operation among those of the framework that have no acknowledged answer; without it there is none.
        id: Option<OperationId>,
        /// What is done.
        kind: OperationKind,
        /// Of a reservation and a volume what it is to be; of their ends what there is.
        lots: Lots,
    },
    /// An operation that was described so wrongly that it has no lots.
    Malformed {
        /// Names the operation for the answer.
        id: Option<OperationId>,
        /// The rule that it broke, as a sentence.
        rule: String,
    },
}

impl Operation {
    /// The tasks that it launches.
    pub fn tasks(&self) -> &[TaskInfo] {
        match self {
            Self::Launch { tasks, .. } => tasks,
            Self::Convert { .. } | Self::Malformed { .. } => &[],
        }
    }
}

/// What is made of lots.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OperationKind {
    /// Reserved for a role: the last reservation of each lot is put on.
    Reserve,
    /// The last reservation of each lot is taken off.
    Unreserve,
    /// Volumes on reserved disk space.
    Create,
    /// Disk space again, without what was written to it.
    Destroy,
}

impl OperationKind {
    /// Every kind.
    pub const ALL: [Self; 4] = [Self::Reserve, Self::Unreserve, Self::Create, Self::Destroy];

    /// The name as in Mesos.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Reserve => "RESERVE",
            Self::Unreserve => "UNRESERVE",
            Self::Create => "CREATE",
            Self::Destroy => "DESTROY",
        }
    }
}

/// What became of an operation; the numbers are those of Mesos.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i32)]
pub enum OperationState {
    /// Its agent has yet to say that it is done.
    Pending = 1,
    /// Done, and kept by the agent.
    Finished = 2,
    /// It broke a rule, and nothing was done.
    Error = 4,
    /// Nothing was done; it may be tried again.
    Dropped = 5,
    /// Its agent cannot be reached, and will say when it is back.
    Unreachable = 6,
    /// Its agent has not come back since the master started.
    Recovering = 8,
    /// The master knows of no such operation: it was never told of it, or its answer was acknowledged.
    Unknown = 9,
}

impl OperationState {
    /// Every state.
    pub const ALL: [Self; 7] = [
        Self::Pending,
        Self::Finished,
        Self::Error,
        Self::Dropped,
        Self::Unreachable,
        Self::Recovering,
        Self::Unknown,
    ];

    /// The name as in Mesos.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pending => "OPERATION_PENDING",
            Self::Finished => "OPERATION_FINISHED",
            Self::Error => "OPERATION_ERROR",
            Self::Dropped => "OPERATION_DROPPED",
            Self::Unreachable => "OPERATION_UNREACHABLE",
            Self::Recovering => "OPERATION_RECOVERING",
            Self::Unknown => "OPERATION_UNKNOWN",
        }
    }

    /// Whether it is what became of the operation, and never changes.
    pub const fn is_final(self) -> bool {
        matches!(self, Self::Finished | Self::Error | Self::Dropped)
    }
}

/// The answer to an operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OperationStatus {
    /// The operation.
    pub id: OperationId,
    /// What became of it.
    pub state: OperationState,
    /// Why, for people.
    pub message: String,
    /// Where.
    pub agent_id: Option<AgentId>,
    /// Names the answer, the same as often as it is repeated. With one it comes again until it is acknowledged.
    pub uuid: Option<UpdateUuid>,
}

/// A task that was described so wrongly that it has no [`TaskInfo`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MalformedTask {
    /// The task; one without a valid id cannot be answered and fails the whole call instead.
    pub task_id: TaskId,
    /// The rule that it broke, as a sentence.
    pub rule: String,
}

/// One task that a framework wants to know the state of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReconcileTask {
    /// The task.
    pub task_id: TaskId,
    /// Where the framework believes it to be.
    pub agent_id: Option<AgentId>,
}

/// What a framework asks of the master.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Call {
    /// Be offered resources; the first call on a stream.
    Subscribe {
        /// Who subscribes.
        info: FrameworkInfo,
        /// Roles that are suppressed from the start.
        suppressed_roles: Vec<Role>,
        /// What it says of its offers.
        terms: OfferTerms,
    },
    /// End the framework and all its tasks.
    Teardown,
    /// Use offers; what is left of them is declined with the filters.
    Accept {
        /// The offers, all of one agent and one role.
        offer_ids: Vec<OfferId>,
        /// What to do, in order.
        operations: Vec<Operation>,
        /// For what is left over.
        filters: Filters,
    },
    /// Refuse offers.
    Decline {
        /// The offers; unknown ones are ignored.
        offer_ids: Vec<OfferId>,
        /// For how long.
        filters: Filters,
    },
    /// Promise to be gone from agents when they are out of use.
    AcceptInverseOffers {
        /// The inverse offers; unknown ones are ignored.
        offer_ids: Vec<OfferId>,
        /// For how long it is not asked again.
        filters: Filters,
    },
    /// Say that one will not be gone.
    DeclineInverseOffers {
        /// The inverse offers; unknown ones are ignored.
        offer_ids: Vec<OfferId>,
        /// For how long it is not asked again.
        filters: Filters,
    },
    /// Un-suppress roles and forget their filters; no roles means all.
    Revive {
        /// The roles.
        roles: Vec<Role>,
    },
    /// Stop offers for roles; no roles means all.
    Suppress {
        /// The roles.
        roles: Vec<Role>,
    },
    /// End a task.
    Kill {
        /// The task.
        task_id: TaskId,
        /// Where the framework believes it to be.
        agent_id: Option<AgentId>,
        /// Overrides the task's own grace, in milliseconds.
        grace_ms: Option<u64>,
    },
    /// Confirm a status update that carried a uuid.
    Acknowledge {
        /// The agent named in the update.
        agent_id: AgentId,
        /// The task.
        task_id: TaskId,
        /// The uuid of the update.
        uuid: UpdateUuid,
    },
    /// Ask for the state of tasks; none means of all.
    Reconcile {
        /// The tasks.
        tasks: Vec<ReconcileTask>,
    },
    /// Confirm the answer to an operation; it is forgotten.
    AcknowledgeOperation {
        /// The operation.
        id: OperationId,
        /// The uuid of the answer.
        uuid: UpdateUuid,
    },
    /// Ask what became of operations; none means of all whose answers are not acknowledged.
    ReconcileOperations {
        /// The operations.
        ids: Vec<OperationId>,
    },
    /// Send bytes to the framework's own executor; may be lost.
    Message {
        /// Where the executor runs.
        agent_id: AgentId,
        /// The executor.
        executor_id: ExecutorId,
        /// The bytes.
        data: Vec<u8>,
    },
    /// End one of the framework's own executors with all its tasks.
    Shutdown {
        /// The executor.
        executor_id: ExecutorId,
        /// Where it runs.
        agent_id: AgentId,
    },
    /// Change what was said at subscription.
    UpdateFramework {
        /// The new description; its id, principal and user may not differ.
        info: FrameworkInfo,
        /// The roles that are suppressed from now on.
        suppressed_roles: Vec<Role>,
        /// What it says of its offers from now on; what it said before is void.
        terms: OfferTerms,
    },
}

/// The master that answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MasterInfo {
    /// Names the master process.
    pub id: String,
    /// The term in which it leads.
    pub generation: Generation,
    /// Its host name.
    pub hostname: String,
    /// The port of its API.
    pub port: u16,
    /// Ebb's version.
    pub version: String,
    /// Where it stands, if that is known. Agents in other regions are remote.
    pub domain: Option<FaultDomain>,
}

/// What a framework hears from the master.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The subscription stands; the first event of a stream.
    Subscribed {
        /// The framework's id from now on.
        framework_id: FrameworkId,
        /// How often a heartbeat comes at least, in milliseconds.
        heartbeat_interval_ms: u64,
        /// Who answers.
        master: MasterInfo,
    },
    /// Resources on offer.
    Offers(Vec<Offer>),
    /// An offer is no longer valid.
    Rescind(OfferId),
    /// Agents on which the framework has tasks will be out of use: it is asked to be gone by then.
    InverseOffers(Vec<InverseOffer>),
    /// An inverse offer is no longer valid.
    RescindInverseOffer(OfferId),
    /// The state of a task; to be acknowledged if it carries a uuid.
    Update(TaskStatus),
    /// What became of an operation that has an id; to be acknowledged if it carries a uuid.
    Operation(OperationStatus),
    /// Bytes from the framework's own executor.
    Message {
        /// Where the executor runs.
        agent_id: AgentId,
        /// The executor.
        executor_id: ExecutorId,
        /// The bytes.
        data: Vec<u8>,
    },
    /// An agent is lost, or one of the framework's own executors has ended.
    Failure {
        /// The agent.
        agent_id: Option<AgentId>,
        /// The executor; unset when the whole agent is lost.
        executor_id: Option<ExecutorId>,
        /// How the executor's process ended, where that is known.
        status: Option<i32>,
    },
    /// Something that cannot be mended; the stream ends after it.
    Error(String),
    /// The master lives.
    Heartbeat,
}
