//! `ebb explain`: why a framework, or the frameworks of a role, get no offer now. The master answers with facts; the
//! sentences are made here.

mod quotas;
mod terms;

use ebb_types::{
    Claimant, ClusterState, Contender, ExplainSubject, ExplainedClaim, Explanation, Place,
    Timestamp, Verdict,
};

use super::details::qos;
use crate::args::ExplainArgs;
use crate::client::Master;
use crate::error::{CliError, EXIT_OK};
use crate::find;
use crate::output::Out;
use crate::output::json::explain::ExplanationJson;
use crate::output::quantity::{bytes, duration_ms, milli, quantities, resources};
use crate::output::table::clean;
use crate::resolve::ResolveError;
use quotas::{at_limit, owed_to_others, paid_first, quotas};
use terms::{below_minimum, other_region, unsuited, with_gpus};

pub(crate) async fn perform(args: &ExplainArgs, out: &mut Out) -> Result<u8, CliError> {
    let mut master = Master::connect(&args.client.master).await?;
    let state = master.frameworks_and_roles().await?;
    let subject = match find::framework_or_role(&state, &args.subject) {
        Ok(subject) => subject,
        Err(unknown @ ResolveError::NoMatch { .. }) => {
            let state = master.state().await?;
            return taken_back(&state, &args.subject, unknown, out);
        }
        Err(other) => return Err(other.into()),
    };
    let explanation = master.explain(subject).await?;
    if out.json {
        out.json(&ExplanationJson::from(&explanation))?;
    } else {
        for line in text(&explanation) {
            out.line(&clean(&line))?;
        }
    }
    Ok(EXIT_OK)
}

/// What was taken back from or for an agent or a task, and why.
fn taken_back(
    state: &ClusterState,
    subject: &str,
    unknown: ResolveError,
    out: &mut Out,
) -> Result<u8, CliError> {
    let (usage, task) = match (find::agent(state, subject), find::task(state, subject)) {
        (Ok(agent), _) => (agent.usage.as_ref(), None),
        (Err(_), Ok(task)) => {
            let agent = state.agents.iter().find(|agent| agent.id == task.agent_id);
            let usage = agent.and_then(|agent| agent.usage.as_ref());
            (usage, Some(&task.task_id))
        }
        (Err(_), Err(ambiguous @ ResolveError::Ambiguous { .. })) => return Err(ambiguous.into()),
        (Err(_), Err(_)) => return Err(unknown.into()),
    };
    let lines = match (usage, task) {
        (None, _) => vec!["its agent has reported nothing yet".to_owned()],
        (Some(usage), None) => qos::decisions(state.at, usage),
        (Some(usage), Some(task)) => qos::about(state.at, usage, task),
    };
    if out.json {
        out.json(&lines)?;
    } else if lines.is_empty() {
        out.line("nothing was taken back of late, and nobody is disturbed")?;
    } else {
        for line in lines {
            out.line(&clean(&line))?;
        }
    }
    Ok(EXIT_OK)
}

fn text(explanation: &Explanation) -> Vec<String> {
    let mut lines = Vec::new();
    for claim in &explanation.claims {
        lines.extend(of_claim(explanation, claim));
    }
    if let (ExplainSubject::Role(role), []) = (&explanation.subject, &explanation.claims[..]) {
        lines.push(format!("no framework is in role {role}"));
    }
    if explanation.left_out > 0 {
        let left_out = explanation.left_out;
        lines.push(format!(
            "and {left_out} more frameworks; ask for one by its id"
        ));
    }
    lines
}

fn of_claim(explanation: &Explanation, claim: &ExplainedClaim) -> Vec<String> {
    let name = match claim.framework_name.as_str() {
        "" => String::new(),
        name => format!(" ({name})"),
    };
    let (id, role) = (&claim.framework_id, &claim.role);
    let mut lines = vec![
        format!(
            "framework {id}{name} in role {role}: {}",
            verdict(explanation, claim)
        ),
        format!("  offers   {}", offers(explanation.at, claim)),
        format!("  agents   {}", agents(explanation)),
    ];
    if explanation.agents.usable > 0 {
        lines.extend(
            free(explanation, claim)
                .into_iter()
                .map(|line| format!("  free     {line}")),
        );
    }
    lines.extend(
        terms::lines(explanation, claim)
            .into_iter()
            .map(|line| format!("  terms    {line}")),
    );
    lines.extend(
        quotas(claim)
            .into_iter()
            .map(|line| format!("  quota    {line}")),
    );
    for (what, line) in [("owned", &claim.regular), ("lent", &claim.revocable)] {
        lines.extend(
            line.places
                .iter()
                .map(|at| format!("  {what:<7}  {}", place(at))),
        );
    }
    lines
}

fn left(now: Timestamp, then: Timestamp) -> String {
    duration_ms(then.ms_since(now))
}

/// One or several: `1 agent`, `2 agents`.
fn count(number: u64, noun: &str) -> String {
    match number {
        1 => format!("1 {noun}"),
        number => format!("{number} {noun}s"),
    }
}

fn verdict(explanation: &Explanation, claim: &ExplainedClaim) -> String {
    let (now, free) = (explanation.at, &claim.free);
    match explanation.verdict(claim) {
        Verdict::Away => away(now, claim),
        Verdict::NotInRole => {
            "it is not in the role any more and only holds resources there".to_owned()
        }
        Verdict::Suppressed => {
            "it has suppressed offers in the role and gets none until it revives".to_owned()
        }
        Verdict::OffersFull => {
            "as many offers are out as there may be, so nobody is made one".to_owned()
        }
        Verdict::NoAgent => "there is no agent to be offered anything of".to_owned(),
        Verdict::Refused => {
            let end = free.first_refusal_end.map_or_else(String::new, |end| {
                format!("; the first refusal ends in {}", left(now, end))
            });
            format!(
                "it has refused what is free of {}{end}",
                count(free.refused, "agent")
            )
        }
        Verdict::AtLimit => at_limit(explanation, claim),
        Verdict::OwedToOthers => owed_to_others(explanation, claim),
        Verdict::OnlyRevocable => format!(
            "what is free of {} is only revocable, which it does not take",
            count(free.only_revocable, "agent")
        ),
        Verdict::BelowMinimum => below_minimum(claim),
        Verdict::Unsuited => unsuited(claim),
        Verdict::OtherRegion => other_region(explanation, claim),
        Verdict::WithGpus => with_gpus(claim),
        Verdict::TooLittle => {
            let back = match free.in_offers {
                0 => String::new(),
                some => format!("; enough of {} is out in offers", count(some, "agent")),
            };
            format!("too little is free of {}{back}", count(free.small, "agent"))
        }
        Verdict::Behind => behind(explanation, claim),
        Verdict::Next => next(explanation, claim),
    }
}

fn away(now: Timestamp, claim: &ExplainedClaim) -> String {
    let Some(away) = claim.away else {
        return String::new();
    };
    let since = duration_ms(now.ms_since(away.since));
    let until = match away.until {
        Some(until) => format!("it is removed in {} unless it comes back", left(now, until)),
        None => "the master knows of it by an agent only".to_owned(),
    };
    format!("its scheduler has been away for {since}; {until}")
}

/// Whether the claim is in line for what is owned and something of that is free for it.
fn waits_for_owned(claim: &ExplainedClaim) -> bool {
    let mut open = claim.free.examples.iter();
    let is_owned = open.any(|open| !open.resources.regular.is_zero());
    is_owned && !claim.regular.places.is_empty()
}

fn behind(explanation: &Explanation, claim: &ExplainedClaim) -> String {
    let of = count(claim.free.open, "agent");
    let paid = paid_first(explanation, claim).filter(|_| waits_for_owned(claim));
    // Who competes with others of the role that is paid first does so below it.
    let from = match paid {
        Some((role, false)) => {
            return format!(
                "something is free for it of {of}, but role {role} comes first with what is owned, because it is owed some of its guarantee"
            );
        }
        Some((role, true)) => {
            let mut places = claim.regular.places.iter();
            let is_it = |place: &Place| place.own.claimant == Claimant::Role(role.clone());
            places.position(is_it).map_or(0, |at| at + 1)
        }
        None => 0,
    };
    let needier = |places: &[Place]| places.iter().find(|place| place.place > 1).cloned();
    let owned = claim.regular.places.get(from..).unwrap_or_default();
    match needier(owned).or_else(|| needier(&claim.revocable.places)) {
        Some(place) => format!(
            "something is free for it of {of}, but {} is needier than {} and comes first",
            claimant(&place.first),
            claimant(&place.own)
        ),
        None => format!("something is free for it of {of}"),
    }
}

fn next(explanation: &Explanation, claim: &ExplainedClaim) -> String {
    let parts = [&claim.revocable, &claim.regular].into_iter();
    let next: Vec<String> = parts
        .filter_map(|line| line.next.as_ref())
        .map(|open| format!("{} of agent {}", resources(&open.resources), open.agent_id))
        .collect();
    let why = match paid_first(explanation, claim) {
        Some((role, true)) if claim.regular.next.is_some() => {
            format!(", because role {role} is owed some of its guarantee")
        }
        _ => String::new(),
    };
    format!("it is next for {}{why}", next.join(" and for "))
}

fn offers(now: Timestamp, claim: &ExplainedClaim) -> String {
    let offers = &claim.offers;
    if offers.count == 0 {
        return "none is out to it".to_owned();
    }
    let lapses = match offers.first_deadline {
        Some(at) => format!("the first lapses in {}", left(now, at)),
        None => "none lapses".to_owned(),
    };
    let out = count(offers.count, "offer");
    format!(
        "{out} out to it: {}; {lapses}",
        resources(&offers.resources)
    )
}

fn agents(explanation: &Explanation) -> String {
    let agents = &explanation.agents;
    let mut parts = vec![format!("{} to be offered of", agents.usable)];
    let inactive = match agents.in_maintenance {
        0 => String::from("deactivated or drained"),
        some => format!("deactivated or drained ({some} of them for maintenance)"),
    };
    for (number, what) in [
        (agents.overfull, "whose tasks hold more than they have"),
        (agents.inactive, inactive.as_str()),
        (agents.waiting, "held back until most agents are back"),
        (agents.disconnected, "disconnected"),
        (agents.absent, "unreachable or awaited"),
    ] {
        if number > 0 {
            parts.push(format!("{number} {what}"));
        }
    }
    parts.join(", ")
}

fn free(explanation: &Explanation, claim: &ExplainedClaim) -> Vec<String> {
    let free = &claim.free;
    let all = explanation.agents.usable;
    let minimum = &explanation.minimum;
    let mut lines = Vec::new();
    let mut say = |number: u64, what: &str| {
        if number > 0 {
            lines.push(format!("of {number} of {} {what}", count(all, "agent")));
        }
    };
    say(free.open, "something for it");
    say(free.refused, "as much as it has refused");
    say(
        free.over_quota,
        "enough, of which quotas leave it too little",
    );
    say(
        free.only_revocable,
        "only revocable resources, which it does not take",
    );
    say(free.unsuited, "nothing for it, by its constraints");
    say(
        free.other_region,
        "nothing for it, as they are in another region",
    );
    say(
        free.with_gpus,
        "nothing for it, as they have GPUs, which it does not declare to use",
    );
    say(free.below_minimum, "less than it states as its minimum");
    say(
        free.small,
        &format!("less than {}", quantities(minimum).replace(", ", " and ")),
    );
    say(
        free.in_offers,
        "too little because of what is out in offers",
    );
    // Whatever is too small is short of both.
    if free.short_of_cpu > free.small {
        let least = milli(minimum.cpu_milli());
        say(
            free.short_of_cpu,
            &format!("less than {least} cpus that it may take"),
        );
    }
    if free.short_of_mem > free.small {
        let least = bytes(minimum.mem_bytes());
        say(
            free.short_of_mem,
            &format!("less than {least} of memory that it may take"),
        );
    }
    for open in &free.examples {
        lines.push(format!(
            "{} of agent {}",
            resources(&open.resources),
            open.agent_id
        ));
    }
    lines
}

fn claimant(contender: &Contender) -> String {
    match &contender.claimant {
        Claimant::Role(role) => format!("role {role}"),
        Claimant::Own(role) => format!("what is in role {role} itself"),
        Claimant::Framework(id) => format!("framework {id}"),
    }
}

fn holds(contender: &Contender) -> String {
    let (share, weight) = (
        milli(contender.share_milli * 100),
        milli(contender.weight_milli),
    );
    format!("holds {share} % at weight {weight}")
}

fn place(place: &Place) -> String {
    let own = format!("{} {}", claimant(&place.own), holds(&place.own));
    match (place.place, place.of) {
        (_, 1) => format!("{own}; nobody competes with it"),
        (1, of) => format!("{own}: the neediest of {of}"),
        (at, of) => format!(
            "{own}: place {at} of {of}; first is {}, which {}",
            claimant(&place.first),
            holds(&place.first)
        ),
    }
}
