//! What `--json` prints: a shape of its own that stays, whatever the wire becomes.
//!
//! **Rules.** Lists are arrays of objects; one thing is one object; what goes on (`top`, `run`) is
//! one object a line. Names end in their unit (`cpu_milli`: thousandths of a core, `mem_bytes`,
//! `_ms` since 1970 for points in time). Every field is always there; what is not known or was not
//! measured is `null`, never 0; so is a limit that there is not. Fields may be added, none is renamed or removed. Errors stand on
//! stderr as `{"error": sentence, "exit_code": number}`.

pub(crate) mod advice;
pub(crate) mod explain;
pub(crate) mod lots;
pub(crate) mod quota;
mod usage;

use ebb_types::{
    AgentState, AttributeValue, Choice, ClusterState, Correction, CorrectionAction, Disturbance,
    ExitStatus, FrameworkState, Offer, Quantities, ResourceKind, Resources, RoleState, TaskRecord,
    TaskStatus,
};
use serde::Serialize;

use lots::LotJson;
use quota::{LotQuotaJson, QuotaJson};
use usage::{AgentUsageJson, LastingJson};

/// An amount of every kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct QuantitiesJson {
    cpu_milli: u64,
    mem_bytes: u64,
    disk_bytes: u64,
    disk_bandwidth_bytes_per_s: u64,
    network_bandwidth_bytes_per_s: u64,
}

impl From<&Quantities> for QuantitiesJson {
    fn from(quantities: &Quantities) -> Self {
        Self {
            cpu_milli: quantities.cpu_milli(),
            mem_bytes: quantities.mem_bytes(),
            disk_bytes: quantities.get(ResourceKind::Disk),
            disk_bandwidth_bytes_per_s: quantities.get(ResourceKind::DiskBandwidth),
            network_bandwidth_bytes_per_s: quantities.get(ResourceKind::NetworkBandwidth),
        }
    }
}

/// Resources, what is revocable apart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct ResourcesJson {
    regular: QuantitiesJson,
    revocable: QuantitiesJson,
}

impl From<&Resources> for ResourcesJson {
    fn from(resources: &Resources) -> Self {
        Self {
            regular: (&resources.regular).into(),
            revocable: (&resources.revocable).into(),
        }
    }
}

/// A name with a value: a number in thousandths is written as a decimal text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct AttributeJson {
    name: String,
    value: String,
}

/// Writes the value of an attribute.
pub(crate) fn attribute_value(value: &AttributeValue) -> String {
    match value {
        AttributeValue::Text(text) => text.clone(),
        AttributeValue::ScalarMilli(amount) => {
            let sign = if *amount < 0 { "-" } else { "" };
            format!("{sign}{}", super::quantity::milli(amount.unsigned_abs()))
        }
    }
}

fn attributes(list: &[ebb_types::Attribute]) -> Vec<AttributeJson> {
    list.iter()
        .map(|attribute| AttributeJson {
            name: attribute.name.clone(),
            value: attribute_value(&attribute.value),
        })
        .collect()
}

/// A decision of the QoS controller with its cause.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct CorrectionJson {
    at_ms: u64,
    framework_id: String,
    task_id: String,
    container_id: String,
    action: &'static str,
    throttle_to_milli: Option<u64>,
    limit_network_to_bytes_per_s: Option<u64>,
    reclaim_memory_to_bytes: Option<u64>,
    signal: &'static str,
    on_behalf_of: Option<String>,
    value: u64,
    threshold: u64,
    /// What is normal for the disturbed task; null where the bound does not rest on that.
    baseline: Option<u64>,
    duration_ms: u64,
    choice: ChoiceJson,
    grace_ms: u64,
}

/// Why a correction struck this container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct ChoiceJson {
    rule: &'static str,
    amount: u64,
    rank: u32,
    candidates: u32,
    spared: bool,
}

impl From<&Choice> for ChoiceJson {
    fn from(choice: &Choice) -> Self {
        Self {
            rule: choice.rule.name(),
            amount: choice.amount,
            rank: choice.rank,
            candidates: choice.candidates,
            spared: choice.spared,
        }
    }
}

/// A neighbour that disturbs a task.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct DisturberJson {
    framework_id: String,
    task_id: String,
    container_id: String,
    revocable: bool,
    share_permille: u64,
}

/// A task that is disturbed by its neighbours.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct DisturbanceJson {
    framework_id: String,
    task_id: String,
    container_id: String,
    resource: &'static str,
    signal: &'static str,
    value: u64,
    baseline: u64,
    threshold: u64,
    since_ms: u64,
    by: Vec<DisturberJson>,
}

impl From<&Disturbance> for DisturbanceJson {
    fn from(one: &Disturbance) -> Self {
        Self {
            framework_id: one.framework_id.to_string(),
            task_id: one.task_id.to_string(),
            container_id: one.container_id.to_string(),
            resource: one.resource.name(),
            signal: one.signal.name(),
            value: one.value,
            baseline: one.baseline,
            threshold: one.threshold,
            since_ms: one.since.as_ms(),
            by: one
                .by
                .iter()
                .map(|by| DisturberJson {
                    framework_id: by.framework_id.to_string(),
                    task_id: by.task_id.to_string(),
                    container_id: by.container_id.to_string(),
                    revocable: by.revocable,
                    share_permille: by.share_permille,
                })
                .collect(),
        }
    }
}

impl From<&Correction> for CorrectionJson {
    fn from(correction: &Correction) -> Self {
        Self {
            at_ms: correction.at.as_ms(),
            framework_id: correction.framework_id.to_string(),
            task_id: correction.task_id.to_string(),
            container_id: correction.container_id.to_string(),
            action: correction.action.name(),
            throttle_to_milli: match correction.action {
                CorrectionAction::Throttle { cpu_milli } => Some(cpu_milli),
                _ => None,
            },
            limit_network_to_bytes_per_s: match correction.action {
                CorrectionAction::LimitNetwork { bytes_per_s } => Some(bytes_per_s),
                _ => None,
            },
            reclaim_memory_to_bytes: match correction.action {
                CorrectionAction::ReclaimMemory { to_bytes } => Some(to_bytes),
                _ => None,
            },
            signal: correction.signal.name(),
            on_behalf_of: correction.on_behalf_of.as_ref().map(ToString::to_string),
            value: correction.value,
            threshold: correction.threshold,
            baseline: correction.baseline,
            duration_ms: correction.duration_ms,
            choice: (&correction.choice).into(),
            grace_ms: correction.grace_ms,
        }
    }
}

/// An agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct AgentJson {
    id: String,
    hostname: String,
    port: u16,
    version: String,
    status: &'static str,
    registered_at_ms: u64,
    attributes: Vec<AttributeJson>,
    total: QuantitiesJson,
    offered: ResourcesJson,
    allocated: ResourcesJson,
    oversubscribed: QuantitiesJson,
    usage: Option<AgentUsageJson>,
    activity: &'static str,
    domain: Option<String>,
    lots: Vec<LotJson>,
    offered_lots: Vec<LotJson>,
    allocated_lots: Vec<LotJson>,
}

impl From<&AgentState> for AgentJson {
    fn from(agent: &AgentState) -> Self {
        Self {
            id: agent.id.to_string(),
            hostname: agent.info.hostname.clone(),
            port: agent.info.port,
            version: agent.info.version.clone(),
            status: agent.status.name(),
            registered_at_ms: agent.registered_at.as_ms(),
            attributes: attributes(&agent.info.attributes),
            total: (&agent.info.total).into(),
            offered: (&agent.offered).into(),
            allocated: (&agent.allocated).into(),
            oversubscribed: (&agent.oversubscribed).into(),
            usage: agent.usage.as_ref().map(Into::into),
            activity: agent.activity.name(),
            domain: agent.info.domain.as_ref().map(ToString::to_string),
            lots: lots::all(&agent.info.lots),
            offered_lots: lots::all(&agent.offered_lots),
            allocated_lots: lots::all(&agent.allocated_lots),
        }
    }
}

/// A framework.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct FrameworkJson {
    id: String,
    name: String,
    user: String,
    roles: Vec<String>,
    suppressed_roles: Vec<String>,
    capabilities: Vec<&'static str>,
    hostname: String,
    principal: String,
    webui_url: String,
    connected: bool,
    registered_at_ms: u64,
    failover_timeout_ms: u64,
    failover_deadline_ms: Option<u64>,
    live_tasks: u64,
    offered: ResourcesJson,
    allocated: ResourcesJson,
}

impl From<&FrameworkState> for FrameworkJson {
    fn from(framework: &FrameworkState) -> Self {
        let info = &framework.info;
        Self {
            id: framework.id.to_string(),
            name: info.name.clone(),
            user: info.user.clone(),
            roles: texts(&info.roles),
            suppressed_roles: texts(&framework.suppressed_roles),
            capabilities: info.capabilities.iter().map(|c| c.name()).collect(),
            hostname: info.hostname.clone(),
            principal: info.principal.clone(),
            webui_url: info.webui_url.clone(),
            connected: framework.connected,
            registered_at_ms: framework.registered_at.as_ms(),
            failover_timeout_ms: info.failover_timeout_ms,
            failover_deadline_ms: framework.failover_deadline.map(|at| at.as_ms()),
            live_tasks: framework.live_tasks,
            offered: (&framework.offered).into(),
            allocated: (&framework.allocated).into(),
        }
    }
}

fn texts<T: ToString>(list: &[T]) -> Vec<String> {
    list.iter().map(ToString::to_string).collect()
}

/// One status of a task.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct TaskStatusJson {
    at_ms: u64,
    state: &'static str,
    reason: Option<&'static str>,
    message: String,
    exit_code: Option<i32>,
    exit_signal: Option<i32>,
    limitation: Option<ResourcesJson>,
}

impl From<&TaskStatus> for TaskStatusJson {
    fn from(status: &TaskStatus) -> Self {
        let (exit_code, exit_signal) = match status.exit {
            Some(ExitStatus::Code(code)) => (Some(code), None),
            Some(ExitStatus::Signal(signal)) => (None, Some(signal)),
            None => (None, None),
        };
        Self {
            at_ms: status.timestamp.as_ms(),
            state: status.state.name(),
            reason: status.reason.map(ebb_types::Reason::name),
            message: status.message.clone(),
            exit_code,
            exit_signal,
            limitation: status.limitation.as_ref().map(|l| (&l.resources).into()),
        }
    }
}

/// A task.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct TaskJson {
    framework_id: String,
    task_id: String,
    name: String,
    agent_id: String,
    role: String,
    state: &'static str,
    terminal: bool,
    resources: ResourcesJson,
    lots: Vec<LotJson>,
    executor_id: Option<String>,
    container_id: Option<String>,
    statuses: Vec<TaskStatusJson>,
}

impl From<&TaskRecord> for TaskJson {
    fn from(task: &TaskRecord) -> Self {
        Self {
            framework_id: task.framework_id.to_string(),
            task_id: task.task_id.to_string(),
            name: task.name.clone(),
            agent_id: task.agent_id.to_string(),
            role: task.role.to_string(),
            state: task.state.name(),
            terminal: task.state.is_terminal(),
            resources: (&task.resources).into(),
            lots: lots::all(&task.lots),
            executor_id: task.executor_id.as_ref().map(ToString::to_string),
            container_id: task.container_id.as_ref().map(ToString::to_string),
            statuses: task.statuses.iter().map(Into::into).collect(),
        }
    }
}

/// A role.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct RoleJson {
    role: String,
    weight_milli: u64,
    frameworks: Vec<String>,
    offered: ResourcesJson,
    allocated: ResourcesJson,
    quota: QuotaJson,
    consumed: QuantitiesJson,
    consumed_revocable: QuantitiesJson,
    lot_quotas: Vec<LotQuotaJson>,
}

impl From<&RoleState> for RoleJson {
    fn from(role: &RoleState) -> Self {
        Self {
            role: role.role.to_string(),
            weight_milli: role.weight_milli,
            frameworks: texts(&role.frameworks),
            offered: (&role.offered).into(),
            allocated: (&role.allocated).into(),
            quota: (&role.quota).into(),
            consumed: (&role.consumed).into(),
            consumed_revocable: (&role.consumed_revocable).into(),
            lot_quotas: role.lot_quotas.iter().map(Into::into).collect(),
        }
    }
}

/// An outstanding offer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct OfferJson {
    id: String,
    framework_id: String,
    agent_id: String,
    hostname: String,
    role: String,
    resources: ResourcesJson,
    lots: Vec<LotJson>,
    attributes: Vec<AttributeJson>,
    executor_ids: Vec<String>,
    deadline_ms: Option<u64>,
    lasting: LastingJson,
}

impl From<&Offer> for OfferJson {
    fn from(offer: &Offer) -> Self {
        Self {
            id: offer.id.to_string(),
            framework_id: offer.framework_id.to_string(),
            agent_id: offer.agent_id.to_string(),
            hostname: offer.hostname.clone(),
            role: offer.role.to_string(),
            resources: (&offer.resources).into(),
            lots: lots::all(&offer.lots),
            attributes: attributes(&offer.attributes),
            executor_ids: texts(&offer.executor_ids),
            deadline_ms: offer.deadline.map(|at| at.as_ms()),
            lasting: (&offer.lasting).into(),
        }
    }
}

/// The master.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct MasterJson {
    id: String,
    generation: u64,
    hostname: String,
    port: u16,
    version: String,
}

impl From<&ClusterState> for MasterJson {
    fn from(cluster: &ClusterState) -> Self {
        let master = &cluster.master;
        Self {
            id: master.id.clone(),
            generation: master.generation.0,
            hostname: master.hostname.clone(),
            port: master.port,
            version: master.version.clone(),
        }
    }
}

/// One thing, with what it is in `kind`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub(crate) enum ThingJson {
    /// An agent.
    Agent(Box<AgentJson>),
    /// A framework.
    Framework(FrameworkJson),
    /// A task.
    Task(TaskJson),
    /// An offer.
    Offer(OfferJson),
    /// A role.
    Role(RoleJson),
}

/// An error, on stderr.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct ErrorJson {
    /// The sentence.
    pub(crate) error: String,
    /// What the process exits with.
    pub(crate) exit_code: u8,
}
