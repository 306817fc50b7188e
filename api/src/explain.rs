//! Why a framework is offered something or nothing, on the wire.

use ebb_types::limits::{
    MAX_CONSTRAINTS, MAX_EXPLAINED_AGENTS, MAX_EXPLAINED_CLAIMS, MAX_LOT_LIMITS, MAX_MESSAGE_BYTES,
    MAX_NAME_BYTES, MAX_PLACES,
};
use ebb_types::{
    AgentCounts, AgentId, Away, Claimant, Contender, ExplainSubject, ExplainedClaim, Explanation,
    FailedConstraint, FrameworkId, FreeCounts, InLine, OffersOut, OpenAgent, Place, QuotaState,
    Role, Timestamp,
};
use proto::contender::Claimant as WireClaimant;
use proto::explain_request::Subject;

use crate::check::{
    Invalid, bounded, id, limits, quantities, required, resources, text, write_limits,
    write_quantities, write_resources,
};
use crate::proto;
use crate::terms::{minimum, write_minimum};

impl TryFrom<proto::ExplainRequest> for ExplainSubject {
    type Error = Invalid;

    fn try_from(request: proto::ExplainRequest) -> Result<Self, Invalid> {
        Ok(match required("subject", request.subject)? {
            Subject::FrameworkId(text) => {
                Self::Framework(id("subject.framework_id", &text, |t| FrameworkId::new(t))?)
            }
            Subject::Role(text) => Self::Role(id("subject.role", &text, |t| Role::new(t))?),
        })
    }
}

impl From<ExplainSubject> for proto::ExplainRequest {
    fn from(subject: ExplainSubject) -> Self {
        Self {
            subject: Some(match subject {
                ExplainSubject::Framework(id) => Subject::FrameworkId(id.to_string()),
                ExplainSubject::Role(role) => Subject::Role(role.to_string()),
            }),
        }
    }
}

fn all<W, T: TryFrom<W, Error = Invalid>>(
    field: &'static str,
    list: Vec<W>,
    max: usize,
) -> Result<Vec<T>, Invalid> {
    bounded(field, list.len(), max)?;
    list.into_iter().map(T::try_from).collect()
}

fn write_all<T, W: From<T>>(list: Vec<T>) -> Vec<W> {
    list.into_iter().map(W::from).collect()
}

impl TryFrom<proto::Explanation> for Explanation {
    type Error = Invalid;

    fn try_from(wire: proto::Explanation) -> Result<Self, Invalid> {
        Ok(Self {
            at: Timestamp::from_ms(wire.at_ms),
            subject: required("explanation.subject", wire.subject)?.try_into()?,
            agents: AgentCounts {
                usable: wire.agents_usable,
                overfull: wire.agents_overfull,
                inactive: wire.agents_inactive,
                in_maintenance: wire.agents_in_maintenance,
                waiting: wire.agents_waiting,
                disconnected: wire.agents_disconnected,
                absent: wire.agents_absent,
            },
            minimum: quantities("explanation.minimum", &wire.minimum)?,
            offers_full: wire.offers_full,
            region: wire
                .region
                .map(|region| text("explanation.region", region, MAX_NAME_BYTES))
                .transpose()?,
            paid_first: wire
                .paid_first
                .map(|role| id("explanation.paid_first", &role, |t| Role::new(t)))
                .transpose()?,
            claims: all("explanation.claims", wire.claims, MAX_EXPLAINED_CLAIMS)?,
            left_out: wire.left_out,
        })
    }
}

impl From<Explanation> for proto::Explanation {
    fn from(explanation: Explanation) -> Self {
        Self {
            at_ms: explanation.at.as_ms(),
            subject: Some(explanation.subject.into()),
            agents_usable: explanation.agents.usable,
            agents_overfull: explanation.agents.overfull,
            agents_inactive: explanation.agents.inactive,
            agents_in_maintenance: explanation.agents.in_maintenance,
            agents_waiting: explanation.agents.waiting,
            agents_disconnected: explanation.agents.disconnected,
            agents_absent: explanation.agents.absent,
            minimum: write_quantities(&explanation.minimum, false),
            offers_full: explanation.offers_full,
            region: explanation.region,
            paid_first: explanation.paid_first.map(|role| role.to_string()),
            claims: write_all(explanation.claims),
            left_out: explanation.left_out,
        }
    }
}

impl TryFrom<proto::ExplainedClaim> for ExplainedClaim {
    type Error = Invalid;

    fn try_from(wire: proto::ExplainedClaim) -> Result<Self, Invalid> {
        Ok(Self {
            framework_id: id("claim.framework_id", &wire.framework_id, |t| {
                FrameworkId::new(t)
            })?,
            framework_name: text("claim.framework_name", wire.framework_name, MAX_NAME_BYTES)?,
            role: id("claim.role", &wire.role, |t| Role::new(t))?,
            away: wire.away.map(|away| Away {
                since: Timestamp::from_ms(away.since_ms),
                until: away.until_ms.map(Timestamp::from_ms),
            }),
            subscribed: wire.subscribed,
            suppressed: wire.suppressed,
            takes_revocable: wire.takes_revocable,
            any_region: wire.any_region,
            takes_gpus: wire.takes_gpus,
            minimum: wire
                .minimum
                .map(|least| minimum(least).map(|least| least.to_vec()))
                .transpose()?,
            failed: all("claim.failed", wire.failed, MAX_CONSTRAINTS)?,
            offers: OffersOut {
                count: wire.offers,
                resources: resources("claim.offered", &wire.offered)?,
                first_deadline: wire.first_offer_deadline_ms.map(Timestamp::from_ms),
            },
            quotas: all("claim.quotas", wire.quotas, MAX_PLACES)?,
            lot_quotas: all(
                "claim.lot_quotas",
                wire.lot_quotas,
                MAX_PLACES * MAX_LOT_LIMITS,
            )?,
            most: limits("claim.most", &wire.most)?,
            free: required("claim.free", wire.free)?.try_into()?,
            regular: required("claim.regular", wire.regular)?.try_into()?,
            revocable: required("claim.revocable", wire.revocable)?.try_into()?,
        })
    }
}

impl From<ExplainedClaim> for proto::ExplainedClaim {
    fn from(claim: ExplainedClaim) -> Self {
        Self {
            framework_id: claim.framework_id.to_string(),
            framework_name: claim.framework_name,
            role: claim.role.to_string(),
            away: claim.away.map(|away| proto::explained_claim::Away {
                since_ms: away.since.as_ms(),
                until_ms: away.until.map(Timestamp::as_ms),
            }),
            subscribed: claim.subscribed,
            suppressed: claim.suppressed,
            takes_revocable: claim.takes_revocable,
            any_region: claim.any_region,
            takes_gpus: claim.takes_gpus,
            minimum: claim.minimum.as_deref().map(write_minimum),
            failed: write_all(claim.failed),
            offers: claim.offers.count,
            offered: write_resources(&claim.offers.resources),
            first_offer_deadline_ms: claim.offers.first_deadline.map(Timestamp::as_ms),
            quotas: write_all(claim.quotas),
            lot_quotas: write_all(claim.lot_quotas),
            most: write_limits(&claim.most),
            free: Some(claim.free.into()),
            regular: Some(claim.regular.into()),
            revocable: Some(claim.revocable.into()),
        }
    }
}

impl TryFrom<proto::FailedConstraint> for FailedConstraint {
    type Error = Invalid;

    fn try_from(wire: proto::FailedConstraint) -> Result<Self, Invalid> {
        Ok(Self {
            constraint: text("failed.constraint", wire.constraint, MAX_MESSAGE_BYTES * 2)?,
            agents: wire.agents,
        })
    }
}

impl From<FailedConstraint> for proto::FailedConstraint {
    fn from(failed: FailedConstraint) -> Self {
        Self {
            constraint: failed.constraint,
            agents: failed.agents,
        }
    }
}

impl TryFrom<proto::QuotaState> for QuotaState {
    type Error = Invalid;

    fn try_from(wire: proto::QuotaState) -> Result<Self, Invalid> {
        Ok(Self {
            role: id("quota.role", &wire.role, |t| Role::new(t))?,
            quota: required("quota.quota", wire.quota)?.try_into()?,
            held: quantities("quota.held", &wire.held)?,
            held_revocable: quantities("quota.held_revocable", &wire.held_revocable)?,
        })
    }
}

impl From<QuotaState> for proto::QuotaState {
    fn from(state: QuotaState) -> Self {
        Self {
            role: state.role.to_string(),
            quota: Some(state.quota.into()),
            held: write_quantities(&state.held, false),
            held_revocable: write_quantities(&state.held_revocable, false),
        }
    }
}

impl TryFrom<proto::FreeCounts> for FreeCounts {
    type Error = Invalid;

    fn try_from(wire: proto::FreeCounts) -> Result<Self, Invalid> {
        Ok(Self {
            open: wire.open,
            refused: wire.refused,
            first_refusal_end: wire.first_refusal_end_ms.map(Timestamp::from_ms),
            over_quota: wire.over_quota,
            over_limit: wire.over_limit,
            only_revocable: wire.only_revocable,
            unsuited: wire.unsuited,
            other_region: wire.other_region,
            with_gpus: wire.with_gpus,
            below_minimum: wire.below_minimum,
            small: wire.small,
            in_offers: wire.in_offers,
            short_of_cpu: wire.short_of_cpu,
            short_of_mem: wire.short_of_mem,
            examples: all("free.examples", wire.examples, MAX_EXPLAINED_AGENTS)?,
        })
    }
}

impl From<FreeCounts> for proto::FreeCounts {
    fn from(free: FreeCounts) -> Self {
        Self {
            open: free.open,
            refused: free.refused,
            first_refusal_end_ms: free.first_refusal_end.map(Timestamp::as_ms),
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
            examples: write_all(free.examples),
        }
    }
}

impl TryFrom<proto::OpenAgent> for OpenAgent {
    type Error = Invalid;

    fn try_from(wire: proto::OpenAgent) -> Result<Self, Invalid> {
        Ok(Self {
            agent_id: id("open.agent_id", &wire.agent_id, |t| AgentId::new(t))?,
            resources: resources("open.resources", &wire.resources)?,
        })
    }
}

impl From<OpenAgent> for proto::OpenAgent {
    fn from(open: OpenAgent) -> Self {
        Self {
            agent_id: open.agent_id.to_string(),
            resources: write_resources(&open.resources),
        }
    }
}

impl TryFrom<proto::InLine> for InLine {
    type Error = Invalid;

    fn try_from(wire: proto::InLine) -> Result<Self, Invalid> {
        Ok(Self {
            places: all("in_line.places", wire.places, MAX_PLACES)?,
            next: wire.next.map(TryInto::try_into).transpose()?,
        })
    }
}

impl From<InLine> for proto::InLine {
    fn from(line: InLine) -> Self {
        Self {
            places: write_all(line.places),
            next: line.next.map(Into::into),
        }
    }
}

impl TryFrom<proto::Place> for Place {
    type Error = Invalid;

    fn try_from(wire: proto::Place) -> Result<Self, Invalid> {
        Ok(Self {
            own: required("place.own", wire.own)?.try_into()?,
            place: wire.place,
            of: wire.of,
            first: required("place.first", wire.first)?.try_into()?,
        })
    }
}

impl From<Place> for proto::Place {
    fn from(place: Place) -> Self {
        Self {
            own: Some(place.own.into()),
            place: place.place,
            of: place.of,
            first: Some(place.first.into()),
        }
    }
}

impl TryFrom<proto::Contender> for Contender {
    type Error = Invalid;

    fn try_from(wire: proto::Contender) -> Result<Self, Invalid> {
        let role = |text: &str| id("contender.role", text, |t| Role::new(t));
        Ok(Self {
            claimant: match required("contender.claimant", wire.claimant)? {
                WireClaimant::Role(text) => Claimant::Role(role(&text)?),
                WireClaimant::OwnOf(text) => Claimant::Own(role(&text)?),
                WireClaimant::FrameworkId(text) => {
                    Claimant::Framework(id("contender.framework_id", &text, |t| {
                        FrameworkId::new(t)
                    })?)
                }
            },
            share_milli: wire.share_milli,
            weight_milli: wire.weight_milli,
        })
    }
}

impl From<Contender> for proto::Contender {
    fn from(contender: Contender) -> Self {
        Self {
            claimant: Some(match contender.claimant {
                Claimant::Role(role) => WireClaimant::Role(role.to_string()),
                Claimant::Own(role) => WireClaimant::OwnOf(role.to_string()),
                Claimant::Framework(id) => WireClaimant::FrameworkId(id.to_string()),
            }),
            share_milli: contender.share_milli,
            weight_milli: contender.weight_milli,
        }
    }
}
