//! Quotas as JSON. A kind without a limit is `null`: a limit of 0 is another thing.

use ebb_types::{Limits, LotQuota, Quota, QuotaState, ResourceKind};
use serde::Serialize;

use super::QuantitiesJson;

/// The most of each kind that may be held.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct LimitsJson {
    cpu_milli: Option<u64>,
    mem_bytes: Option<u64>,
    disk_bytes: Option<u64>,
    disk_bandwidth_bytes_per_s: Option<u64>,
    network_bandwidth_bytes_per_s: Option<u64>,
}

impl From<&Limits> for LimitsJson {
    fn from(limits: &Limits) -> Self {
        Self {
            cpu_milli: limits.get(ResourceKind::Cpus),
            mem_bytes: limits.get(ResourceKind::Mem),
            disk_bytes: limits.get(ResourceKind::Disk),
            disk_bandwidth_bytes_per_s: limits.get(ResourceKind::DiskBandwidth),
            network_bandwidth_bytes_per_s: limits.get(ResourceKind::NetworkBandwidth),
        }
    }
}

/// What a role is guaranteed and limited to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct QuotaJson {
    guarantee: QuantitiesJson,
    limits: LimitsJson,
    revocable_limits: LimitsJson,
}

impl From<&Quota> for QuotaJson {
    fn from(quota: &Quota) -> Self {
        Self {
            guarantee: (&quota.guarantee).into(),
            limits: (&quota.limits).into(),
            revocable_limits: (&quota.revocable_limits).into(),
        }
    }
}

/// The most of a named lot, in thousandths.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct LotLimitJson {
    name: String,
    limit: u64,
}

impl From<(&str, u64)> for LotLimitJson {
    fn from((name, limit): (&str, u64)) -> Self {
        Self {
            name: name.to_owned(),
            limit,
        }
    }
}

/// A role's limit of a named lot and what counts towards it, in thousandths.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct LotQuotaJson {
    role: String,
    name: String,
    limit: u64,
    held: u64,
}

impl From<&LotQuota> for LotQuotaJson {
    fn from(quota: &LotQuota) -> Self {
        Self {
            role: quota.role.to_string(),
            name: quota.name.clone(),
            limit: quota.limit,
            held: quota.held,
        }
    }
}

/// A role's quota and what counts towards it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct QuotaStateJson {
    role: String,
    quota: QuotaJson,
    held: QuantitiesJson,
    held_revocable: QuantitiesJson,
}

impl From<&QuotaState> for QuotaStateJson {
    fn from(state: &QuotaState) -> Self {
        Self {
            role: state.role.to_string(),
            quota: (&state.quota).into(),
            held: (&state.held).into(),
            held_revocable: (&state.held_revocable).into(),
        }
    }
}
