//! What a framework's own terms keep from it: constraints, its region, agents with GPUs, the least that it takes.

use ebb_types::{ExplainedClaim, Explanation, Quantities};

use super::count;
use crate::output::quantity::quantities;

pub(super) fn below_minimum(claim: &ExplainedClaim) -> String {
    let of = count(claim.free.below_minimum, "agent");
    match claim.minimum.as_deref() {
        Some(least) => format!(
            "of {of} less is free than the least that it takes: {}",
            any_of(least)
        ),
        None => format!("of {of} less is free than the least that it takes"),
    }
}

pub(super) fn unsuited(claim: &ExplainedClaim) -> String {
    let of = count(claim.free.unsuited, "agent");
    match claim.failed.iter().max_by_key(|failed| failed.agents) {
        Some(failed) => format!(
            "its constraints keep it from {of}: of {} it does not hold that {}",
            failed.agents, failed.constraint
        ),
        None => format!("its constraints keep it from {of}"),
    }
}

pub(super) fn other_region(explanation: &Explanation, claim: &ExplainedClaim) -> String {
    let of = count(claim.free.other_region, "agent");
    let than = match &explanation.region {
        Some(region) => format!(" than {region}, the master's"),
        None => String::new(),
    };
    format!("what is free of {of} is in another region{than}, and it does not declare REGION_AWARE")
}

pub(super) fn with_gpus(claim: &ExplainedClaim) -> String {
    let of = count(claim.free.with_gpus, "agent");
    format!(
        "what is free is of {of} with GPUs, which are kept for those who can use them, and it does not declare GPU_RESOURCES"
    )
}

/// What it has stated, where it decides about an agent.
pub(super) fn lines(explanation: &Explanation, claim: &ExplainedClaim) -> Vec<String> {
    let mut lines = Vec::new();
    for failed in &claim.failed {
        let of = count(failed.agents, "agent");
        lines.push(format!(
            "of {of} it does not hold that {}",
            failed.constraint
        ));
    }
    if let (Some(region), true) = (&explanation.region, claim.free.other_region > 0) {
        lines.push(format!(
            "only agents of region {region}, the master's: it does not declare REGION_AWARE"
        ));
    }
    if claim.free.with_gpus > 0 {
        lines.push(String::from(
            "only agents without GPUs: it does not declare GPU_RESOURCES",
        ));
    }
    match claim.minimum.as_deref() {
        Some([]) => lines.push(String::from("takes offers of any size")),
        Some(least) => lines.push(format!("takes offers of at least {}", any_of(least))),
        None => {}
    }
    lines
}

fn any_of(least: &[Quantities]) -> String {
    let each = least
        .iter()
        .map(|least| quantities(least).replace(", ", " and "));
    each.collect::<Vec<_>>().join(", or ")
}
