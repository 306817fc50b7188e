//! What the QoS controller did and saw, in sentences.

use ebb_types::{
    AgentUsage, ChoiceRule, Correction, Disturbance, Disturber, Lasting, Promise, Promises, Signal,
    TaskId, Timestamp,
};

use super::{Line, ago, correction, in_unit, usage::percent};
use crate::output::quantity::{bytes, duration_ms, milli, quantities};

/// Why a correction struck this container.
pub(crate) fn choice(of: &Correction) -> String {
    let choice = &of.choice;
    let amount = match choice.rule {
        ChoiceRule::MostCpu => format!("by use, {} cpus", milli(choice.amount)),
        ChoiceRule::MostMemory => format!("by memory, {}", bytes(choice.amount)),
        ChoiceRule::MostDisk => format!("by traffic, {}/s", bytes(choice.amount)),
        ChoiceRule::MostNetwork => format!("by traffic, {}/s", bytes(choice.amount)),
        ChoiceRule::HeldHardest => {
            let left = match of.signal {
                Signal::MachineNetwork => format!("{}/s", bytes(choice.amount)),
                _ => format!("{} cpus", milli(choice.amount)),
            };
            format!("of those held back, left {left}")
        }
        ChoiceRule::NotEnded => {
            return format!("told to end {} ago", duration_ms(choice.amount));
        }
    };
    let mut text = format!("number {} of {} {amount}", choice.rank, choice.candidates);
    if choice.spared {
        text.push_str("; not ended, for enough of its framework were");
    }
    if of.grace_ms > 0 {
        text.push_str(&format!("; warned {} before", duration_ms(of.grace_ms)));
    }
    text
}

/// The last decisions of an agent, the latest first.
pub(super) fn recent(now: Timestamp, usage: &AgentUsage) -> Vec<Line> {
    let latest_first = usage.recent.iter().rev();
    latest_first
        .map(|c| ("correction", decision(now, c)))
        .collect()
}

fn decision(now: Timestamp, of: &Correction) -> String {
    format!("{}: {}", ago(now, of.at), correction(of))
}

/// Everything that was decided about a task, or for its sake, the latest first.
pub(crate) fn about(now: Timestamp, usage: &AgentUsage, task: &TaskId) -> Vec<String> {
    let mut lines: Vec<String> = usage
        .disturbances
        .iter()
        .filter(|one| one.task_id == *task || one.by.iter().any(|by| by.task_id == *task))
        .map(|one| disturbance(now, one))
        .collect();
    let decisions = usage.recent.iter().rev().filter(|one| {
        one.task_id == *task || one.on_behalf_of.as_ref().is_some_and(|of| of == task)
    });
    lines.extend(decisions.map(|one| decision(now, one)));
    lines
}

/// The last decisions of an agent as sentences, the latest first.
pub(crate) fn decisions(now: Timestamp, usage: &AgentUsage) -> Vec<String> {
    let disturbances = usage.disturbances.iter().map(|one| disturbance(now, one));
    let recent = recent(now, usage).into_iter().map(|(_, line)| line);
    disturbances.chain(recent).collect()
}

/// Who disturbs a task.
pub(crate) fn disturbers(by: &[Disturber]) -> String {
    if by.is_empty() {
        return "nobody of this agent".to_owned();
    }
    let names: Vec<String> = by
        .iter()
        .map(|by| {
            let class = if by.revocable { " revocable" } else { "" };
            format!("{} ({}{class})", by.task_id, percent(by.share_permille))
        })
        .collect();
    names.join(", ")
}

/// What shows that a task is disturbed.
pub(crate) fn evidence(one: &Disturbance) -> String {
    format!(
        "{} {} past {}, normally {}",
        one.signal.name(),
        in_unit(one.signal, one.value),
        in_unit(one.signal, one.threshold),
        in_unit(one.signal, one.baseline)
    )
}

/// A disturbance in one line.
pub(super) fn disturbance(now: Timestamp, one: &Disturbance) -> String {
    format!(
        "task {} by {} on {} for {}: {}",
        one.task_id,
        disturbers(&one.by),
        one.resource.name(),
        duration_ms(now.ms_since(one.since)),
        evidence(one)
    )
}

/// How well what is lent was kept for its owners.
pub(super) fn promises(promises: &Promises) -> Vec<Line> {
    let kept = |name: &str, promise: &Promise| {
        let part = promise.broken_ppm().map(|ppm| {
            format!(
                "{name} beyond what was kept in {} of {}",
                ppm_percent(ppm),
                duration_ms(promise.watched_ms)
            )
        });
        part.unwrap_or_else(|| format!("no {name} lent yet"))
    };
    let text = format!(
        "{}; {}; budget {}",
        kept("cpus", &promises.cpu),
        kept("mem", &promises.mem),
        ppm_percent(promises.budget_ppm)
    );
    vec![("owners' demand", text)]
}

/// How much of what is lent stays for how long.
pub(super) fn lasting(lasting: &Lasting) -> Option<Line> {
    let points = lasting
        .points
        .iter()
        .filter(|point| !point.amount.is_zero());
    let points = points.map(|point| {
        let amount = quantities(&point.amount);
        format!("{amount} for {}", duration_ms(point.time_ms))
    });
    let points: Vec<String> = points.collect();
    let confidence = ppm_percent(lasting.confidence_permille * 1_000);
    (!points.is_empty()).then(|| {
        let text = format!("{}; in {confidence} of cases", points.join("; "));
        ("stays lent", text)
    })
}

/// Millionths as a percentage, with as many places as there are.
fn ppm_percent(ppm: u64) -> String {
    let (whole, part) = (ppm / 10_000, ppm % 10_000);
    if part == 0 {
        return format!("{whole} %");
    }
    let part = format!("{part:04}");
    format!("{whole}.{} %", part.trim_end_matches('0'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn millionths_are_shown_as_percentages() {
        let shown: Vec<String> = [0, 1, 1_000, 10_000, 123_400, 1_000_000]
            .into_iter()
            .map(ppm_percent)
            .collect();
        let expected = ["0 %", "0.0001 %", "0.1 %", "1 %", "12.34 %", "100 %"];
        assert_eq!(shown, expected);
    }
}
