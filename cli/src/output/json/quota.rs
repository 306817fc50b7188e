//! Quotas as JSON. A kind without a limit is `null`: a limit of 0 is another thing.

use ebb_types::{Limits, Quota, QuotaState, ResourceKind};
use serde::Serialize;

use super::QuantitiesJson;

/// The most of each kind that may be held.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct LimitsJson {
    cpu_milli: Option<u64>,
    mem_bytes: Option<u64>,
    disk_bytes: Option<u64>,
    disk_bandwidth_bytes_per_s: Option<u64>,
}

impl From<&Limits> for LimitsJson {
    fn from(limits: &Limits) -> Self {
        Self {
            cpu_milli: limits.get(ResourceKind::Cpus),
            mem_bytes: limits.get(ResourceKind::Mem),
            disk_bytes: limits.get(ResourceKind::Disk),
            disk_bandwidth_bytes_per_s: limits.get(ResourceKind::DiskBandwidth),
        }
    }
}

/// What a role is guaranteed and limited to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct QuotaJson {
    guarantee: QuantitiesJson,
    limits: LimitsJson,
}

impl From<&Quota> for QuotaJson {
    fn from(quota: &Quota) -> Self {
        Self {
            guarantee: (&quota.guarantee).into(),
            limits: (&quota.limits).into(),
        }
    }
}

/// A role's quota and what counts towards it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct QuotaStateJson {
    role: String,
    quota: QuotaJson,
    held: QuantitiesJson,
}

impl From<&QuotaState> for QuotaStateJson {
    fn from(state: &QuotaState) -> Self {
        Self {
            role: state.role.to_string(),
            quota: (&state.quota).into(),
            held: (&state.held).into(),
        }
    }
}
