//! What operators see.

use ebb_types::limits::MAX_LOT_TEXT_BYTES;
use ebb_types::{
    AgentActivity, AgentId, AgentState, AgentStatus, Change, ClusterState, ContainerId, ExecutorId,
    FrameworkId, FrameworkState, LotLimits, LotQuota, Lots, Offer, OperationKind, Quota,
    ResourceKind, Role, RoleState, TaskId, TaskRecord, TaskStatus, Timestamp,
};
use proto::change::Change as Wire;

use crate::check::{
    Invalid, id, limits, optional_id, quantities, required, resources, text, write_limits,
    write_quantities, write_resources,
};
use crate::common::{roles, write_roles};
use crate::lots::{lots, with_lots, write_lots, write_with_lots};
use crate::proto;
use crate::task::state;

const STATUSES: [(AgentStatus, proto::AgentStatus); 4] = [
    (AgentStatus::Registered, proto::AgentStatus::Registered),
    (AgentStatus::Disconnected, proto::AgentStatus::Disconnected),
    (AgentStatus::Unreachable, proto::AgentStatus::Unreachable),
    (AgentStatus::Recovered, proto::AgentStatus::Recovered),
];

const ACTIVITIES: [(AgentActivity, proto::AgentActivity); 4] = [
    (AgentActivity::Active, proto::AgentActivity::Active),
    (
        AgentActivity::Deactivated,
        proto::AgentActivity::Deactivated,
    ),
    (AgentActivity::Draining, proto::AgentActivity::Draining),
    (AgentActivity::Drained, proto::AgentActivity::Drained),
];

impl TryFrom<proto::AgentState> for AgentState {
    type Error = Invalid;

    fn try_from(agent: proto::AgentState) -> Result<Self, Invalid> {
        let status = STATUSES
            .into_iter()
            .find(|(_, wire)| *wire as i32 == agent.status);
        let Some((status, _)) = status else {
            return Err(Invalid::new(
                "agent.status",
                format!("is {}, which is no status", agent.status),
            ));
        };
        let activity = ACTIVITIES
            .into_iter()
            .find(|(_, wire)| *wire as i32 == agent.activity);
        let Some((activity, _)) = activity else {
            return Err(Invalid::new(
                "agent.activity",
                format!("is {}, which is no activity", agent.activity),
            ));
        };
        let (offered, offered_lots) = with_lots("agent.offered", agent.offered)?;
        let (allocated, allocated_lots) = with_lots("agent.allocated", agent.allocated)?;
        Ok(Self {
            id: id("agent.id", &agent.id, |t| AgentId::new(t))?,
            info: required("agent.info", agent.info)?.try_into()?,
            status,
            registered_at: Timestamp::from_ms(agent.registered_at_ms),
            offered,
            allocated,
            offered_lots,
            allocated_lots,
            oversubscribed: quantities("agent.oversubscribed", &agent.oversubscribed)?,
            usage: agent.usage.map(TryInto::try_into).transpose()?,
            activity,
        })
    }
}

impl From<AgentState> for proto::AgentState {
    fn from(agent: AgentState) -> Self {
        let status = STATUSES
            .into_iter()
            .find(|(status, _)| *status == agent.status);
        let activity = ACTIVITIES
            .into_iter()
            .find(|(activity, _)| *activity == agent.activity);
        Self {
            id: agent.id.to_string(),
            info: Some(agent.info.into()),
            status: status.map_or(0, |(_, wire)| wire as i32),
            registered_at_ms: agent.registered_at.as_ms(),
            offered: write_with_lots(&agent.offered, &agent.offered_lots),
            allocated: write_with_lots(&agent.allocated, &agent.allocated_lots),
            oversubscribed: write_quantities(&agent.oversubscribed, false),
            usage: agent.usage.map(Into::into),
            activity: activity.map_or(0, |(_, wire)| wire as i32),
        }
    }
}

impl TryFrom<proto::FrameworkState> for FrameworkState {
    type Error = Invalid;

    fn try_from(framework: proto::FrameworkState) -> Result<Self, Invalid> {
        Ok(Self {
            id: id("framework.id", &framework.id, |t| FrameworkId::new(t))?,
            info: required("framework.info", framework.info)?.try_into()?,
            connected: framework.connected,
            registered_at: Timestamp::from_ms(framework.registered_at_ms),
            failover_deadline: framework.failover_deadline_ms.map(Timestamp::from_ms),
            suppressed_roles: roles("framework.suppressed_roles", &framework.suppressed_roles)?,
            offered: resources("framework.offered", &framework.offered)?,
            allocated: resources("framework.allocated", &framework.allocated)?,
            live_tasks: framework.live_tasks,
        })
    }
}

impl From<FrameworkState> for proto::FrameworkState {
    fn from(framework: FrameworkState) -> Self {
        Self {
            id: framework.id.to_string(),
            info: Some(framework.info.into()),
            connected: framework.connected,
            registered_at_ms: framework.registered_at.as_ms(),
            failover_deadline_ms: framework.failover_deadline.map(Timestamp::as_ms),
            suppressed_roles: write_roles(&framework.suppressed_roles),
            offered: write_resources(&framework.offered),
            allocated: write_resources(&framework.allocated),
            live_tasks: framework.live_tasks,
        }
    }
}

impl TryFrom<proto::TaskRecord> for TaskRecord {
    type Error = Invalid;

    fn try_from(task: proto::TaskRecord) -> Result<Self, Invalid> {
        let (resources, lots) = with_lots("task.resources", task.resources)?;
        Ok(Self {
            framework_id: id("task.framework_id", &task.framework_id, |t| {
                FrameworkId::new(t)
            })?,
            task_id: id("task.task_id", &task.task_id, |t| TaskId::new(t))?,
            name: task.name,
            agent_id: id("task.agent_id", &task.agent_id, |t| AgentId::new(t))?,
            role: id("task.role", &task.role, |t| Role::new(t))?,
            resources,
            lots,
            state: state("task.state", task.state)?,
            executor_id: optional_id("task.executor_id", &task.executor_id, |t| {
                ExecutorId::new(t)
            })?,
            container_id: optional_id("task.container_id", &task.container_id, |t| {
                ContainerId::new(t)
            })?,
            statuses: task
                .statuses
                .into_iter()
                .map(TaskStatus::try_from)
                .collect::<Result<_, _>>()?,
        })
    }
}

impl From<TaskRecord> for proto::TaskRecord {
    fn from(task: TaskRecord) -> Self {
        Self {
            framework_id: task.framework_id.to_string(),
            task_id: task.task_id.to_string(),
            name: task.name,
            agent_id: task.agent_id.to_string(),
            role: task.role.to_string(),
            resources: write_with_lots(&task.resources, &task.lots),
            state: task.state as i32,
            executor_id: task
                .executor_id
                .map(|id| id.to_string())
                .unwrap_or_default(),
            container_id: task
                .container_id
                .map(|id| id.to_string())
                .unwrap_or_default(),
            statuses: task.statuses.into_iter().map(Into::into).collect(),
        }
    }
}

impl TryFrom<proto::RoleState> for RoleState {
    type Error = Invalid;

    fn try_from(role: proto::RoleState) -> Result<Self, Invalid> {
        Ok(Self {
            role: id("role.role", &role.role, |t| Role::new(t))?,
            weight_milli: role.weight_milli,
            frameworks: role
                .frameworks
                .iter()
                .map(|text| id("role.frameworks", text, |t| FrameworkId::new(t)))
                .collect::<Result<_, _>>()?,
            offered: resources("role.offered", &role.offered)?,
            allocated: resources("role.allocated", &role.allocated)?,
            quota: role.quota.unwrap_or_default().try_into()?,
            consumed: quantities("role.consumed", &role.consumed)?,
            consumed_revocable: quantities("role.consumed_revocable", &role.consumed_revocable)?,
            lot_quotas: all(role.lot_quotas)?,
        })
    }
}

impl From<RoleState> for proto::RoleState {
    fn from(role: RoleState) -> Self {
        Self {
            role: role.role.to_string(),
            weight_milli: role.weight_milli,
            frameworks: role.frameworks.iter().map(ToString::to_string).collect(),
            offered: write_resources(&role.offered),
            allocated: write_resources(&role.allocated),
            quota: (!role.quota.is_none()).then(|| role.quota.into()),
            consumed: write_quantities(&role.consumed, false),
            consumed_revocable: write_quantities(&role.consumed_revocable, false),
            lot_quotas: write_all(role.lot_quotas),
        }
    }
}

impl TryFrom<proto::Quota> for Quota {
    type Error = Invalid;

    fn try_from(quota: proto::Quota) -> Result<Self, Invalid> {
        let is_lot = |name: &str| ResourceKind::from_name(name).is_err();
        let mut guaranteed = quota.guarantee.iter();
        if let Some(lot) = guaranteed.find(|entry| is_lot(&entry.name)) {
            return Err(Invalid::new(
                "quota.guarantee",
                format!(
                    "{:?} cannot be guaranteed, only {} can; limit it (quota.lot_limits), or reserve it for the role",
                    lot.name,
                    ResourceKind::listed()
                ),
            ));
        }
        Ok(Self {
            guarantee: quantities("quota.guarantee", &quota.guarantee)?,
            limits: limits("quota.limits", &quota.limits)?,
            revocable_limits: limits("quota.revocable_limits", &quota.revocable_limits)?,
        })
    }
}

impl From<Quota> for proto::Quota {
    fn from(quota: Quota) -> Self {
        Self {
            guarantee: write_quantities(&quota.guarantee, false),
            limits: write_limits(&quota.limits),
            lot_limits: None,
            revocable_limits: write_limits(&quota.revocable_limits),
        }
    }
}

impl TryFrom<proto::LotLimits> for LotLimits {
    type Error = Invalid;

    fn try_from(wire: proto::LotLimits) -> Result<Self, Invalid> {
        let limits = wire.limits.into_iter();
        Self::new(limits.map(|limit| (limit.name, limit.amount)))
            .map_err(|error| Invalid::new("quota.lot_limits", error.to_string()))
    }
}

impl From<LotLimits> for proto::LotLimits {
    fn from(limits: LotLimits) -> Self {
        let limits = limits
            .iter()
            .map(|(name, amount)| proto::lot_limits::Limit {
                name: name.to_owned(),
                amount,
            });
        Self {
            limits: limits.collect(),
        }
    }
}

impl TryFrom<proto::LotQuota> for LotQuota {
    type Error = Invalid;

    fn try_from(wire: proto::LotQuota) -> Result<Self, Invalid> {
        Ok(Self {
            role: id("lot_quota.role", &wire.role, |t| Role::new(t))?,
            name: text("lot_quota.name", wire.name, MAX_LOT_TEXT_BYTES)?,
            limit: wire.limit,
            held: wire.held,
        })
    }
}

impl From<LotQuota> for proto::LotQuota {
    fn from(quota: LotQuota) -> Self {
        Self {
            role: quota.role.to_string(),
            name: quota.name,
            limit: quota.limit,
            held: quota.held,
        }
    }
}

fn all<W, T: TryFrom<W, Error = Invalid>>(list: Vec<W>) -> Result<Vec<T>, Invalid> {
    list.into_iter().map(T::try_from).collect()
}

fn write_all<T, W: From<T>>(list: Vec<T>) -> Vec<W> {
    list.into_iter().map(W::from).collect()
}

impl TryFrom<proto::ClusterState> for ClusterState {
    type Error = Invalid;

    fn try_from(cluster: proto::ClusterState) -> Result<Self, Invalid> {
        Ok(Self {
            master: required("cluster.master", cluster.master)?.try_into()?,
            at: Timestamp::from_ms(cluster.at_ms),
            agents: all(cluster.agents)?,
            frameworks: all(cluster.frameworks)?,
            tasks: all(cluster.tasks)?,
            roles: all(cluster.roles)?,
            offers: all::<_, Offer>(cluster.offers)?,
            maintenance: all(cluster.maintenance)?,
        })
    }
}

impl From<ClusterState> for proto::ClusterState {
    fn from(cluster: ClusterState) -> Self {
        Self {
            master: Some(cluster.master.into()),
            at_ms: cluster.at.as_ms(),
            agents: write_all(cluster.agents),
            frameworks: write_all(cluster.frameworks),
            tasks: write_all(cluster.tasks),
            roles: write_all(cluster.roles),
            offers: write_all(cluster.offers),
            maintenance: write_all(cluster.maintenance),
        }
    }
}

impl TryFrom<proto::Change> for Change {
    type Error = Invalid;

    fn try_from(change: proto::Change) -> Result<Self, Invalid> {
        Ok(match required("change", change.change)? {
            Wire::Snapshot(cluster) => Self::Snapshot(Box::new(cluster.try_into()?)),
            Wire::TaskAdded(task) => Self::TaskAdded(Box::new(task.try_into()?)),
            Wire::TaskUpdated(update) => Self::TaskUpdated {
                framework_id: id("task_updated.framework_id", &update.framework_id, |t| {
                    FrameworkId::new(t)
                })?,
                status: Box::new(required("task_updated.status", update.status)?.try_into()?),
            },
            Wire::AgentUpdated(agent) => Self::AgentUpdated(Box::new(agent.try_into()?)),
            Wire::AgentRemoved(text) => {
                Self::AgentRemoved(id("agent_removed", &text, |t| AgentId::new(t))?)
            }
            Wire::FrameworkUpdated(framework) => {
                Self::FrameworkUpdated(Box::new(framework.try_into()?))
            }
            Wire::FrameworkRemoved(text) => {
                Self::FrameworkRemoved(id("framework_removed", &text, |t| FrameworkId::new(t))?)
            }
            Wire::Heartbeat(_) => Self::Heartbeat,
        })
    }
}

impl From<Change> for proto::Change {
    fn from(change: Change) -> Self {
        let change = match change {
            Change::Snapshot(cluster) => Wire::Snapshot((*cluster).into()),
            Change::TaskAdded(task) => Wire::TaskAdded((*task).into()),
            Change::TaskUpdated {
                framework_id,
                status,
            } => Wire::TaskUpdated(proto::change::TaskUpdated {
                framework_id: framework_id.to_string(),
                status: Some((*status).into()),
            }),
            Change::AgentUpdated(agent) => Wire::AgentUpdated((*agent).into()),
            Change::AgentRemoved(id) => Wire::AgentRemoved(id.to_string()),
            Change::FrameworkUpdated(framework) => Wire::FrameworkUpdated((*framework).into()),
            Change::FrameworkRemoved(id) => Wire::FrameworkRemoved(id.to_string()),
            Change::Heartbeat => Wire::Heartbeat(proto::Empty {}),
        };
        Self {
            change: Some(change),
        }
    }
}

/// What an operator wants to have made of an agent's lots.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConvertLots {
    /// The agent.
    pub agent_id: AgentId,
    /// What is done.
    pub kind: OperationKind,
    /// With what.
    pub lots: Lots,
}

const KINDS: [(OperationKind, proto::convert_lots_request::Kind); 4] = {
    use proto::convert_lots_request::Kind;
    [
        (OperationKind::Reserve, Kind::Reserve),
        (OperationKind::Unreserve, Kind::Unreserve),
        (OperationKind::Create, Kind::Create),
        (OperationKind::Destroy, Kind::Destroy),
    ]
};

impl TryFrom<proto::ConvertLotsRequest> for ConvertLots {
    type Error = Invalid;

    fn try_from(wire: proto::ConvertLotsRequest) -> Result<Self, Invalid> {
        let kind = KINDS
            .into_iter()
            .find(|(_, kind)| *kind as i32 == wire.kind);
        let Some((kind, _)) = kind else {
            return Err(Invalid::new(
                "kind",
                format!("is {}, which is none", wire.kind),
            ));
        };
        Ok(Self {
            agent_id: id("agent_id", &wire.agent_id, |t| AgentId::new(t))?,
            kind,
            lots: lots("lots", wire.lots)?,
        })
    }
}

impl From<ConvertLots> for proto::ConvertLotsRequest {
    fn from(value: ConvertLots) -> Self {
        let kind = KINDS.into_iter().find(|(kind, _)| *kind == value.kind);
        Self {
            agent_id: value.agent_id.to_string(),
            kind: kind.map_or(0, |(_, kind)| kind as i32),
            lots: write_lots(&value.lots),
        }
    }
}
