//! The vocabulary of Ebb: ids, quantities, resources and their algebra, the calls and events of the
//! scheduler API, the messages between master and agent, and what an agent measures.
//!
//! Everything here is plain data with checked arithmetic: no serialisation, no clocks, no I/O. The
//! wire formats live in `ebb-api`, which converts to and from these types and is the only place
//! where input from outside is turned into them.
//!
//! # Units
//! CPU is counted in thousandths of a core (`cpu_milli`), memory and disk in bytes, bandwidth in
//! bytes a second, durations in milliseconds (`_ms`) or nanoseconds (`_ns`). Never floats: a
//! simulation and production must agree to the bit.

mod advice;
mod executor;
mod explain;
mod framework;
mod ids;
mod lasting;
pub mod limits;
mod link;
mod lots;
mod maintenance;
mod quantities;
mod quota;
mod resources;
mod scheduler;
mod task;
mod terms;
mod time;
pub mod units;
mod usage;
mod view;

pub use advice::{
    ADVICE_DAYS, Advice, AdviceFilter, BUMP_PERCENT, ClassAdvice, ClassKey, ClassUse,
    DEAD_BAND_PERCENT, DayPeaks, ENOUGH_MS, Fit, HALF_LIFE_HOURS, Histogram, KindAdvice,
    MARGIN_PERCENT, THROTTLED_PERMILLE, advise, executor_class, task_class,
};
pub use executor::{ExecutorCall, ExecutorEvent};
pub use explain::{
    AgentCounts, Away, Claimant, Contender, ExplainSubject, ExplainedClaim, Explanation,
    FailedConstraint, FreeCounts, InLine, OffersOut, OpenAgent, Place, QuotaState, Verdict,
};
pub use framework::{Capability, FrameworkInfo};
pub use ids::{
    AgentId, ContainerId, ExecutorId, FrameworkId, Generation, Incarnation, InvalidId, OfferId,
    OperationId, Role, TaskId, UpdateUuid,
};
pub use lasting::{Lasting, LastingPoint};
pub use link::{
    AgentInfo, AgentToMaster, Attribute, AttributeValue, FaultDomain, InvalidDomain, MasterToAgent,
    RunningExecutor, RunningTask,
};
pub use lots::{
    Disk, DiskSource, GPUS, InvalidLot, LotKey, LotValue, Lots, Ranges, Reservation,
    ReservationKind, Volume, VolumeMode, WrittenResources,
};
pub use maintenance::{
    AgentAnswer, InverseAnswer, InverseOffer, Machine, MaintenanceMode, MaintenanceState,
    Unavailability, Window,
};
pub use quantities::{Quantities, ResourceKind, UnknownResource};
pub use quota::{Limits, LotLimits, LotQuota, Quota};
pub use resources::Resources;
pub use scheduler::{
    Call, Event, Filters, MalformedTask, MasterInfo, Offer, Operation, OperationKind,
    OperationState, OperationStatus, ReconcileTask,
};
pub use task::{
    CommandInfo, ExecutorInfo, ExitStatus, Limitation, Reason, Source, TaskInfo, TaskKey,
    TaskState, TaskStatus,
};
pub use terms::{Constraint, InvalidPattern, OfferTerms, Pattern, Predicate, RoleTerms, Selector};
pub use time::Timestamp;
pub use usage::{
    AgentUsage, Choice, ChoiceRule, Contended, Correction, CorrectionAction, Disturbance,
    Disturber, FigureSource, MeasureSource, Promise, Promises, Signal, TaskSources, TaskUsage,
    TaskUsageFigures,
};
pub use view::{
    AgentActivity, AgentState, AgentStatus, Change, ClusterState, FrameworkState, RoleState,
    TaskRecord,
};
