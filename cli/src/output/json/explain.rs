//! An explanation as JSON: the facts, and in `verdict` what decides.

use ebb_types::{
    Claimant, Contender, ExplainSubject, ExplainedClaim, Explanation, FailedConstraint, FreeCounts,
    InLine, OpenAgent, Place,
};
use serde::Serialize;

use super::quota::{LimitsJson, LotQuotaJson, QuotaStateJson};
use super::{QuantitiesJson, ResourcesJson};

/// Why frameworks are offered something, or nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct ExplanationJson {
    at_ms: u64,
    framework_id: Option<String>,
    role: Option<String>,
    agents_usable: u64,
    agents_overfull: u64,
    agents_inactive: u64,
    agents_in_maintenance: u64,
    agents_waiting: u64,
    agents_disconnected: u64,
    agents_absent: u64,
    minimum: QuantitiesJson,
    offers_full: bool,
    region: Option<String>,
    paid_first: Option<String>,
    claims: Vec<ClaimJson>,
    left_out: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct ClaimJson {
    framework_id: String,
    framework_name: String,
    role: String,
    verdict: &'static str,
    away_since_ms: Option<u64>,
    away_until_ms: Option<u64>,
    subscribed: bool,
    suppressed: bool,
    takes_revocable: bool,
    any_region: bool,
    takes_gpus: bool,
    minimum: Option<Vec<QuantitiesJson>>,
    failed: Vec<FailedJson>,
    offers: u64,
    offered: ResourcesJson,
    first_offer_deadline_ms: Option<u64>,
    quotas: Vec<QuotaStateJson>,
    lot_quotas: Vec<LotQuotaJson>,
    most: LimitsJson,
    free: FreeJson,
    regular: InLineJson,
    revocable: InLineJson,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct FailedJson {
    constraint: String,
    agents: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct FreeJson {
    open: u64,
    refused: u64,
    first_refusal_end_ms: Option<u64>,
    over_quota: u64,
    over_limit: u64,
    only_revocable: u64,
    unsuited: u64,
    other_region: u64,
    with_gpus: u64,
    below_minimum: u64,
    small: u64,
    in_offers: u64,
    short_of_cpu: u64,
    short_of_mem: u64,
    examples: Vec<OpenJson>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct OpenJson {
    agent_id: String,
    resources: ResourcesJson,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct InLineJson {
    places: Vec<PlaceJson>,
    next: Option<OpenJson>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct PlaceJson {
    own: ContenderJson,
    place: u64,
    of: u64,
    first: ContenderJson,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct ContenderJson {
    kind: &'static str,
    name: String,
    share_milli: u64,
    weight_milli: u64,
}

impl From<&Explanation> for ExplanationJson {
    fn from(explanation: &Explanation) -> Self {
        let (framework_id, role) = match &explanation.subject {
            ExplainSubject::Framework(id) => (Some(id.to_string()), None),
            ExplainSubject::Role(role) => (None, Some(role.to_string())),
        };
        let claims = explanation.claims.iter();
        Self {
            at_ms: explanation.at.as_ms(),
            framework_id,
            role,
            agents_usable: explanation.agents.usable,
            agents_overfull: explanation.agents.overfull,
            agents_inactive: explanation.agents.inactive,
            agents_in_maintenance: explanation.agents.in_maintenance,
            agents_waiting: explanation.agents.waiting,
            agents_disconnected: explanation.agents.disconnected,
            agents_absent: explanation.agents.absent,
            minimum: (&explanation.minimum).into(),
            offers_full: explanation.offers_full,
            region: explanation.region.clone(),
            paid_first: explanation.paid_first.as_ref().map(ToString::to_string),
            claims: claims.map(|claim| of_claim(explanation, claim)).collect(),
            left_out: explanation.left_out,
        }
    }
}

fn of_claim(explanation: &Explanation, claim: &ExplainedClaim) -> ClaimJson {
    ClaimJson {
        framework_id: claim.framework_id.to_string(),
        framework_name: claim.framework_name.clone(),
        role: claim.role.to_string(),
        verdict: explanation.verdict(claim).name(),
        away_since_ms: claim.away.map(|away| away.since.as_ms()),
        away_until_ms: claim.away.and_then(|away| away.until).map(|at| at.as_ms()),
        subscribed: claim.subscribed,
        suppressed: claim.suppressed,
        takes_revocable: claim.takes_revocable,
        any_region: claim.any_region,
        takes_gpus: claim.takes_gpus,
        minimum: (claim.minimum.as_ref()).map(|least| least.iter().map(Into::into).collect()),
        failed: claim.failed.iter().map(Into::into).collect(),
        offers: claim.offers.count,
        offered: (&claim.offers.resources).into(),
        first_offer_deadline_ms: claim.offers.first_deadline.map(|at| at.as_ms()),
        quotas: claim.quotas.iter().map(Into::into).collect(),
        lot_quotas: claim.lot_quotas.iter().map(Into::into).collect(),
        most: (&claim.most).into(),
        free: (&claim.free).into(),
        regular: (&claim.regular).into(),
        revocable: (&claim.revocable).into(),
    }
}

impl From<&FreeCounts> for FreeJson {
    fn from(free: &FreeCounts) -> Self {
        Self {
            open: free.open,
            refused: free.refused,
            first_refusal_end_ms: free.first_refusal_end.map(|at| at.as_ms()),
            over_quota: free.over_quota,
            over_limit: free.over_limit,
            only_revocable: free.only_revocable,
            unsuited: free.unsuited,
            other_region: free.other_region,
            with_gpus: free.with_gpus,
            below_minimum: free.below_minimum,
            small: free.small,
            in_offers: free.in_offers,
            short_of_cpu: free.short_of_cpu,
            short_of_mem: free.short_of_mem,
            examples: free.examples.iter().map(Into::into).collect(),
        }
    }
}

impl From<&FailedConstraint> for FailedJson {
    fn from(failed: &FailedConstraint) -> Self {
        Self {
            constraint: failed.constraint.clone(),
            agents: failed.agents,
        }
    }
}

impl From<&OpenAgent> for OpenJson {
    fn from(open: &OpenAgent) -> Self {
        Self {
            agent_id: open.agent_id.to_string(),
            resources: (&open.resources).into(),
        }
    }
}

impl From<&InLine> for InLineJson {
    fn from(line: &InLine) -> Self {
        let place = |place: &Place| PlaceJson {
            own: (&place.own).into(),
            place: place.place,
            of: place.of,
            first: (&place.first).into(),
        };
        Self {
            places: line.places.iter().map(place).collect(),
            next: line.next.as_ref().map(Into::into),
        }
    }
}

impl From<&Contender> for ContenderJson {
    fn from(contender: &Contender) -> Self {
        let (kind, name) = match &contender.claimant {
            Claimant::Role(role) => ("role", role.to_string()),
            Claimant::Own(role) => ("frameworks_of_role", role.to_string()),
            Claimant::Framework(id) => ("framework", id.to_string()),
        };
        Self {
            kind,
            name,
            share_milli: contender.share_milli,
            weight_milli: contender.weight_milli,
        }
    }
}
