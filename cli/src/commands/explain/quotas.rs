//! What quotas have to do with it: whose limit leaves too little, who is owed some of a guarantee.

use ebb_types::{
    ExplainedClaim, Explanation, Limits, LotQuota, Quantities, QuotaState, ResourceKind, Role,
};

use super::count;
use crate::commands::quota::lot;
use crate::output::quantity::{amount, amounts};

/// Of the limits that leave too little: of one role alone if there is such a one, else of several together.
pub(super) fn at_limit(explanation: &Explanation, claim: &ExplainedClaim) -> String {
    let of_owned = short_of(explanation, claim, |state| {
        (state.quota.limits, state.held, "")
    });
    let roles = match of_owned.is_empty() {
        false => of_owned,
        true => short_of(explanation, claim, |state| {
            let quota = &state.quota;
            (
                quota.revocable_limits,
                state.held_revocable,
                " of what is lent",
            )
        }),
    };
    format!(
        "enough is free of {}, but {}",
        count(claim.free.over_quota, "agent"),
        roles.join(", and ")
    )
}

/// The roles whose limits leave too little, each with what it holds: of owned or of lent resources, as the view says.
fn short_of(
    explanation: &Explanation,
    claim: &ExplainedClaim,
    view: impl Fn(&QuotaState) -> (Limits, Quantities, &'static str),
) -> Vec<String> {
    let short = |state: &QuotaState| -> Vec<ResourceKind> {
        let (limits, held, _) = view(state);
        let left = limits.left(&held);
        let kinds = [ResourceKind::Cpus, ResourceKind::Mem].into_iter();
        kinds
            .filter(|kind| left.get(*kind) < explanation.minimum.get(*kind))
            .collect()
    };
    let all = || claim.quotas.iter().map(|state| (state, short(state)));
    let alone = all().find(|(_, kinds)| kinds.len() == 2);
    let meant = alone.map_or_else(|| all().collect(), |one| vec![one]);
    let meant = meant.iter().filter(|(_, kinds)| !kinds.is_empty());
    meant
        .map(|(state, kinds)| {
            let (limits, held, what) = view(state);
            let held = kinds.iter().map(|kind| {
                let limit = limits.get(*kind).unwrap_or(u64::MAX);
                let held = amount(*kind, held.get(*kind));
                format!("{held} of at most {}", amount(*kind, limit))
            });
            let held: Vec<String> = held.collect();
            format!("role {} holds {}{what}", state.role, held.join(" and "))
        })
        .collect()
}

/// The role that comes before the others with what is owned, and whether the claim is of it.
pub(super) fn paid_first<'a>(
    explanation: &'a Explanation,
    claim: &ExplainedClaim,
) -> Option<(&'a Role, bool)> {
    let role = explanation.paid_first.as_ref()?;
    Some((role, claim.role.is_within(role)))
}

/// What is free is kept for others.
pub(super) fn owed_to_others(explanation: &Explanation, claim: &ExplainedClaim) -> String {
    let first = match paid_first(explanation, claim) {
        Some((role, false)) => format!("; role {role} comes first"),
        _ => String::new(),
    };
    format!(
        "what is free of {} is kept for roles that are owed some of their guarantees{first}",
        count(claim.free.over_quota, "agent")
    )
}

/// What each quota of its role and of those above it says, and what all of them together leave.
pub(super) fn quotas(claim: &ExplainedClaim) -> Vec<String> {
    let mut lines: Vec<String> = claim.quotas.iter().map(quota).collect();
    lines.extend(claim.lot_quotas.iter().map(lot_quota));
    if !claim.most.is_none() {
        lines.push(format!(
            "it may be offered {} more",
            amounts(claim.most.iter())
        ));
    }
    lines
}

fn lot_quota(quota: &LotQuota) -> String {
    let LotQuota { role, name, .. } = quota;
    let (held, limit) = (lot(name, quota.held), lot(name, quota.limit));
    let at_limit = if quota.held >= quota.limit {
        format!(": it is at its limit of {name}")
    } else {
        String::new()
    };
    format!("role {role} holds {held} (at most {limit}){at_limit}")
}

fn quota(state: &QuotaState) -> String {
    let terms = ResourceKind::ALL.into_iter().filter_map(|kind| {
        let guarantee = state.quota.guarantee.get(kind);
        let limit = state.quota.limits.get(kind);
        let limit = limit.map(|limit| format!("at most {}", amount(kind, limit)));
        let guarantee = (guarantee > 0).then(|| format!("{} guaranteed", amount(kind, guarantee)));
        let terms: Vec<String> = limit.into_iter().chain(guarantee).collect();
        let held = amount(kind, state.held.get(kind));
        (!terms.is_empty()).then(|| format!("{held} ({})", terms.join(", ")))
    });
    let lent = state.quota.revocable_limits.iter().map(|(kind, limit)| {
        let held = amount(kind, state.held_revocable.get(kind));
        format!("{held} lent (at most {})", amount(kind, limit))
    });
    let terms: Vec<String> = terms.chain(lent).collect();
    format!("role {} holds {}", state.role, terms.join(", "))
}
