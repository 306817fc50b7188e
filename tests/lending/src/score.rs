//! How good a rule is: what it saves, how often it is wrong and by how much.

use std::ops::Range;

use crate::rolling::interpolated;
use crate::timeline::Timeline;

/// What is less than this is no violation.
const TOLERANCE: f64 = 1e-6;

/// Figures by name.
pub type Figures = std::collections::BTreeMap<String, f64>;

/// The bins of a machine that are scored: those in the range in which tasks are there.
pub fn scored(line: &Timeline, range: Range<usize>) -> Vec<usize> {
    range.filter(|bin| line.limits[*bin] > 0.0).collect()
}

/// One machine under one rule.
#[derive(Clone, Debug, Default)]
pub struct OneMachine {
    bins: usize,
    kept: f64,
    limits: f64,
    /// For each horizon how much was missing in the bins in which something was, relative to what came.
    severities: Vec<Vec<f64>>,
}

/// Judges what a rule kept on one machine against what came, for each horizon.
pub fn judge(line: &Timeline, bins: &[usize], keep: &[f64], came: &[Vec<f64>]) -> OneMachine {
    let mut result = OneMachine {
        bins: bins.len(),
        severities: vec![Vec::new(); came.len()],
        ..OneMachine::default()
    };
    for bin in bins.iter().copied() {
        result.kept += keep[bin];
        result.limits += line.limits[bin];
        for (came, severities) in came.iter().zip(&mut result.severities) {
            if keep[bin] < came[bin] - TOLERANCE {
                severities.push((came[bin] - keep[bin]) / came[bin]);
            }
        }
    }
    result
}

/// The figures of an era.
pub fn era(machines: &[OneMachine], horizons: &[usize]) -> Figures {
    let mut figures = Figures::new();
    let kept: f64 = machines.iter().map(|machine| machine.kept).sum();
    let limits: f64 = machines.iter().map(|machine| machine.limits).sum();
    figures.insert("savings".to_owned(), 1.0 - kept / limits);
    let counted: Vec<&OneMachine> = machines.iter().filter(|machine| machine.bins > 0).collect();
    for (at, horizon) in horizons.iter().enumerate() {
        let of_bins = |machine: &OneMachine, amount: f64| amount / machine.bins as f64;
        let mut rates: Vec<f64> = counted
            .iter()
            .map(|machine| of_bins(machine, machine.severities[at].len() as f64))
            .collect();
        let sums: Vec<f64> = counted
            .iter()
            .map(|machine| of_bins(machine, machine.severities[at].iter().sum()))
            .collect();
        let mut severities: Vec<f64> = counted
            .iter()
            .flat_map(|machine| machine.severities[at].iter().copied())
            .collect();
        rates.sort_by(f64::total_cmp);
        severities.sort_by(f64::total_cmp);
        let named = [
            (format!("viol{horizon}"), mean(&rates)),
            (format!("viol{horizon}_p90m"), interpolated(&rates, 0.9)),
            (
                format!("viol{horizon}_max"),
                rates.last().copied().unwrap_or(0.0),
            ),
            (format!("sev{horizon}"), mean(&severities)),
            (format!("sev{horizon}_p99"), interpolated(&severities, 0.99)),
            (format!("meansev{horizon}"), mean(&sums)),
        ];
        figures.extend(named);
    }
    figures
}

/// The figures of several eras, weighted with their machines.
pub fn average(eras: &[(usize, Figures)]) -> Figures {
    let mut names: Vec<&String> = eras
        .iter()
        .flat_map(|(_, figures)| figures.keys())
        .collect();
    names.sort();
    names.dedup();
    let each = names.into_iter().map(|name| {
        let known = eras
            .iter()
            .filter_map(|(machines, figures)| Some((*machines as f64, *figures.get(name)?)));
        if name.ends_with("_max") {
            return (
                name.clone(),
                known.map(|(_, figure)| figure).fold(0.0, f64::max),
            );
        }
        let (weight, sum) = known.fold((0.0, 0.0), |(weight, sum), (machines, figure)| {
            (weight + machines, sum + machines * figure)
        });
        (name.clone(), sum / weight)
    });
    each.collect()
}

/// The mean; 0 of nothing.
fn mean(values: &[f64]) -> f64 {
    match values.len() {
        0 => 0.0,
        count => values.iter().sum::<f64>() / count as f64,
    }
}
