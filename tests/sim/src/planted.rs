//! Faults planted on purpose between the cores and the world, to see that the checks find them. Each
//! is what a mistaken core or driver would do.

/// One planted fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Planted {
    /// The master goes on before its registry is durable, and a crash loses the write.
    MasterForgetsPersist,
    /// The agent goes on before its journal is durable, and a crash loses the write.
    AgentForgetsPersist,
    /// An ended task's resources are not given back.
    MasterLeaksResources,
    /// An ended task's resources are given back twice.
    MasterRecoversTwice,
    /// The allocator proposes what it has not offered in the ledger.
    AllocatorSkipsCommit,
    /// The master uses its last generation again after a restart.
    GenerationReused,
    /// The agent uses its last incarnation again after a restart.
    IncarnationReused,
    /// The agent takes a status for acknowledged as soon as it is sent.
    AgentAcknowledgesItself,
    /// The master acknowledges a status before the framework has.
    MasterAcknowledgesEarly,
    /// A restarted agent says that nothing was found of its containers.
    AgentAdoptsNothing,
    /// The agent does not carry out forced kills.
    KillIsLost,
    /// An agent that registers anew leaves out one of its tasks.
    ReregistrationLeavesOut,
    /// The agent reports success whatever the exit status.
    ExitStatusLost,
    /// The containers of an agent are launched twice.
    LaunchedTwice,
    /// A withdrawn offer is not given back in the ledger.
    RescindLeaks,
    /// The core is never told that time has passed.
    NoTicks,
    /// The registry does not keep what operators have decided about agents.
    ActivityForgotten,
    /// The registry does not keep quotas.
    QuotaForgotten,
    /// The registry keeps quotas without what they limit of what is lent.
    RevocableLimitForgotten,
    /// The registry does not keep maintenance windows.
    WindowForgotten,
    /// The registry does not keep operations.
    OperationForgotten,
    /// An agent does not say its attributes.
    AttributesLost,
    /// An agent does not say where it stands.
    DomainLost,
    /// The constraints of frameworks are lost on their way.
    ConstraintsLost,
    /// What frameworks take at least is lost on its way.
    MinimumLost,
    /// An operator's maintenance is said to be started, and its machines are offered on.
    MaintenanceNotStarted,
    /// Ports that a task uses are offered again.
    PortTwice,
    /// An agent is ordered to end a volume that a task uses.
    VolumeDestroyedInUse,
    /// A restarted agent has forgotten what was reserved of it.
    ReservationForgotten,
    /// The registry does not keep limits of lots.
    LotLimitForgotten,
    /// The core is told a larger limit of lots than the operator has set.
    LotLimitPassed,
}

impl Planted {
    /// Every planted fault.
    pub const ALL: [Self; 31] = [
        Self::MasterForgetsPersist,
        Self::AgentForgetsPersist,
        Self::MasterLeaksResources,
        Self::MasterRecoversTwice,
        Self::AllocatorSkipsCommit,
        Self::GenerationReused,
        Self::IncarnationReused,
        Self::AgentAcknowledgesItself,
        Self::MasterAcknowledgesEarly,
        Self::AgentAdoptsNothing,
        Self::KillIsLost,
        Self::ReregistrationLeavesOut,
        Self::ExitStatusLost,
        Self::LaunchedTwice,
        Self::RescindLeaks,
        Self::NoTicks,
        Self::ActivityForgotten,
        Self::QuotaForgotten,
        Self::RevocableLimitForgotten,
        Self::WindowForgotten,
        Self::OperationForgotten,
        Self::AttributesLost,
        Self::DomainLost,
        Self::ConstraintsLost,
        Self::MinimumLost,
        Self::MaintenanceNotStarted,
        Self::PortTwice,
        Self::VolumeDestroyedInUse,
        Self::ReservationForgotten,
        Self::LotLimitForgotten,
        Self::LotLimitPassed,
    ];
}
