//! What a framework says of itself when it subscribes.

use crate::ids::{FrameworkId, Role};

/// What a framework understands beyond the minimum; the names are those of Mesos.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Capability {
    /// May be offered revocable resources.
    RevocableResources,
    /// Wants to hear of TASK_KILLING.
    TaskKillingState,
    /// Understands TASK_UNREACHABLE, TASK_DROPPED, TASK_GONE, TASK_GONE_BY_OPERATOR and
    /// TASK_UNKNOWN; others are told TASK_LOST instead.
    PartitionAware,
    /// May be offered resources of agents in other regions than the master's.
    RegionAware,
    /// May be offered agents with GPUs.
    GpuResources,
    /// May be offered shared volumes.
    SharedResources,
}

impl Capability {
    /// Every capability.
    pub const ALL: [Self; 6] = [
        Self::RevocableResources,
        Self::TaskKillingState,
        Self::PartitionAware,
        Self::RegionAware,
        Self::GpuResources,
        Self::SharedResources,
    ];

    /// The name as in Mesos.
    pub const fn name(self) -> &'static str {
        match self {
            Self::RevocableResources => "REVOCABLE_RESOURCES",
            Self::TaskKillingState => "TASK_KILLING_STATE",
            Self::PartitionAware => "PARTITION_AWARE",
            Self::RegionAware => "REGION_AWARE",
            Self::GpuResources => "GPU_RESOURCES",
            Self::SharedResources => "SHARED_RESOURCES",
        }
    }
}

/// A framework's description of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FrameworkInfo {
    /// Unset on the first subscription; the master's answer names it from then on.
    pub id: Option<FrameworkId>,
    /// Display name.
    pub name: String,
    /// The account that its tasks run as unless they say otherwise; empty means the agent's own.
    pub user: String,
    /// The roles it is offered resources for; at least one.
    pub roles: Vec<Role>,
    /// How long its tasks live on after its scheduler has gone, in milliseconds; 0 ends them at once.
    pub failover_timeout_ms: u64,
    /// Where its scheduler runs; shown to people only.
    pub hostname: String,
    /// Who it acts as; may not change later.
    pub principal: String,
    /// Its own page; shown to people only.
    pub webui_url: String,
    /// What it understands; sorted, without duplicates.
    pub capabilities: Vec<Capability>,
    /// Free tags.
    pub labels: Vec<(String, String)>,
}

impl FrameworkInfo {
    /// Whether it has a capability.
    pub fn has(&self, capability: Capability) -> bool {
        self.capabilities.contains(&capability)
    }
}
