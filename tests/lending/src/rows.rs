//! One figure a line, as `cargo xtask bench` reads it.

use ebb_agent::core::estimator::lasting::HORIZONS_MS;
use serde::Serialize;

use crate::lasting::confidence;
use crate::run::{EBB, EBB_ENDLESS, EBB_LEARNT, Outcome};

/// A bound that a figure must keep.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Bar {
    /// The value or less.
    AtMost(f64),
    /// The value or more.
    AtLeast(f64),
}

/// One figure.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    case: String,
    metric: String,
    value: f64,
    unit: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    bar: Option<Bar>,
}

/// Ebb's rule is wrong in at most so many percent of the hours; of traces without golden figures, for which nothing was
/// chosen, a quarter more.
const MOST_WRONG: f64 = 1.0;
const MOST_WRONG_UNSEEN: f64 = 1.25;
/// The sets over which efficiency is averaged.
const AVERAGED: [&str; 4] = ["r1", "r0", "pl", "ga"];
/// What is measured of every rule.
const FIGURES: [&str; 4] = ["savings", "c_rev_util", "c_contended", "c_evict_rate"];
/// Time a task and sample.
const MOST_NS: f64 = 2_000.0;

fn row(case: &str, metric: &str, value: f64, unit: &'static str, bar: Option<Bar>) -> Row {
    Row {
        case: case.to_owned(),
        metric: metric.to_owned(),
        value,
        unit,
        bar,
    }
}

/// The rows of one set; `known` are those that there are golden figures for.
pub fn of_set(outcome: &Outcome, known: bool) -> Vec<Row> {
    let most_wrong = if known { MOST_WRONG } else { MOST_WRONG_UNSEEN };
    let mut rows = Vec::new();
    let set = outcome.set;
    for rule in outcome.results.keys() {
        let case = format!("{set}, {rule}");
        for figure in FIGURES {
            let Some(value) = outcome.figure(rule, figure) else {
                continue;
            };
            let bar = bar(set, rule, figure).filter(|_| known);
            rows.push(row(&case, figure, 100.0 * value, "%", bar));
        }
        let hour = outcome.hour;
        let wrong = [
            ("violations_next_bin", "viol1".to_owned()),
            ("violations_1h", format!("viol{hour}")),
            ("violations_1h_p90_machine", format!("viol{hour}_p90m")),
            ("severity_1h", format!("sev{hour}")),
        ];
        for (metric, figure) in wrong {
            if let Some(value) = outcome.figure(rule, &figure) {
                let judged = rule == EBB && metric == "violations_1h";
                let bar = judged.then_some(Bar::AtMost(most_wrong));
                rows.push(row(&case, metric, 100.0 * value, "%", bar));
            }
        }
        if let Some(value) = outcome.efficiency(rule) {
            rows.push(row(&case, "of_oracle", 100.0 * value, "%", None));
        }
    }
    rows.extend(of_lasting(outcome));
    rows
}

/// How much of what is lent is said to stay for how long, and how often it did.
fn of_lasting(outcome: &Outcome) -> Vec<Row> {
    let mut rows = Vec::new();
    for (time_ms, said) in HORIZONS_MS.into_iter().zip(&outcome.lasting) {
        if said.bins == 0 {
            continue;
        }
        let case = format!("{}, {EBB}, lasts {} s", outcome.set, time_ms / 1_000);
        let held = 100.0 * said.share_held();
        let least = Bar::AtLeast(100.0 * confidence());
        rows.push(row(&case, "held", held, "%", Some(least)));
        let stays = 100.0 * said.share_said();
        rows.push(row(&case, "said_to_stay", stays, "%", None));
        rows.push(row(&case, "bins", said.bins as f64, "bins", None));
    }
    rows
}

/// What Ebb's rule must reach, in percent: more than any other that is known.
fn bar(set: &str, rule: &str, figure: &str) -> Option<Bar> {
    match (set, rule, figure) {
        ("r1", EBB, "savings") => Some(Bar::AtLeast(64.0)),
        ("su", EBB, "savings") => Some(Bar::AtLeast(16.0)),
        ("r1", EBB | EBB_LEARNT | EBB_ENDLESS, "c_contended") => Some(Bar::AtMost(0.1)),
        ("r1", EBB | EBB_LEARNT, "c_rev_util") => Some(Bar::AtLeast(67.0)),
        ("r1", EBB | EBB_LEARNT, "c_evict_rate") => Some(Bar::AtMost(0.2)),
        _ => None,
    }
}

/// The rows of all sets together.
pub fn of_all(outcomes: &[Outcome], bytes_a_task: usize, known: bool) -> Vec<Row> {
    let mut rows = Vec::new();
    let averaged = outcomes
        .iter()
        .filter(|outcome| AVERAGED.contains(&outcome.set));
    let averaged: Vec<&Outcome> = averaged.collect();
    let rules = outcomes.iter().flat_map(|outcome| outcome.results.keys());
    let rules: std::collections::BTreeSet<&String> = rules.collect();
    for rule in rules {
        let case = format!("all, {rule}");
        let of_oracle: Option<Vec<f64>> = averaged
            .iter()
            .map(|outcome| outcome.efficiency(rule))
            .collect();
        let complete = averaged.len() == AVERAGED.len();
        if let Some(of_oracle) = of_oracle.filter(|_| complete) {
            let mean = of_oracle.iter().sum::<f64>() / of_oracle.len() as f64;
            let bar = (known && rule == EBB).then_some(Bar::AtLeast(89.0));
            rows.push(row(&case, "of_oracle", 100.0 * mean, "%", bar));
        }
        let worst = outcomes
            .iter()
            .filter_map(|outcome| outcome.violations(rule));
        let worst = worst.fold(0.0, f64::max);
        rows.push(row(&case, "worst_violations_1h", 100.0 * worst, "%", None));
    }
    let spent: f64 = outcomes
        .iter()
        .map(|outcome| outcome.cost.spent.as_nanos() as f64)
        .sum();
    let samples: u64 = outcomes.iter().map(|outcome| outcome.cost.samples).sum();
    if samples > 0 {
        let each = spent / samples as f64;
        rows.push(row(
            "all, ebb",
            "time_a_task_and_sample",
            each,
            "ns",
            Some(Bar::AtMost(MOST_NS)),
        ));
    }
    rows.push(row(
        "all, ebb",
        "memory_a_task_and_kind",
        bytes_a_task as f64,
        "bytes",
        None,
    ));
    rows
}

/// How far the figures are from those of a golden file.
pub fn of_golden(set: &str, rules: usize, largest: f64, most: f64) -> Vec<Row> {
    let case = format!("{set}, golden figures");
    vec![
        row(&case, "rules", rules as f64, "rules", None),
        row(
            &case,
            "largest_deviation",
            largest,
            "",
            Some(Bar::AtMost(most)),
        ),
    ]
}

/// Prints rows.
pub fn print(rows: &[Row]) {
    for row in rows {
        match serde_json::to_string(row) {
            Ok(line) => println!("{line}"),
            Err(error) => eprintln!("a row cannot be written: {error}"),
        }
    }
}

/// Whether every bar of a list holds.
pub fn hold(rows: &[Row]) -> bool {
    rows.iter().all(|row| match row.bar {
        Some(Bar::AtMost(most)) => row.value <= most,
        Some(Bar::AtLeast(least)) => row.value >= least,
        None => true,
    })
}
