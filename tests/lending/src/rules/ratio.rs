//! Rules about what the tasks that are warm now used together, relative to the sum of their limits.

use crate::rolling::{Extremes, Sorted};
use crate::timeline::{Span, Timeline};
use crate::trace::Kind;

/// Used to limit of a span's tasks in the bins before it and in it; `None` where none of them was there.
fn ratios(line: &Timeline, span: &Span, from: usize) -> Vec<Option<f64>> {
    let used = line.used_by(&span.members, from, span.to);
    let mut limits = vec![0.0; used.len()];
    for member in &span.members {
        let task = &line.machine.tasks[*member];
        for limit in &mut limits[task.start.max(from) - from..] {
            *limit += task.limit;
        }
    }
    let bins = used.iter().zip(limits);
    bins.map(|(used, limit)| (limit > 0.0).then_some(used / limit))
        .collect()
}

fn limit_of(line: &Timeline, span: &Span) -> f64 {
    let members = span.members.iter();
    members
        .map(|member| line.machine.tasks[*member].limit)
        .sum()
}

/// The quantile of the window, times a factor that cold tasks have part in.
pub(super) fn quantile(
    kind: Kind,
    line: &Timeline,
    share: f64,
    window: usize,
    factor: f64,
) -> Vec<f64> {
    let mut keep = line.cold_limits(kind.warm());
    for span in line.spans(kind.warm()) {
        let from = (span.from + 1).saturating_sub(window);
        let limit = limit_of(line, &span);
        let (mut most, mut sorted) = (Extremes::largest(), Sorted::default());
        for (bin, ratio) in (from..).zip(ratios(line, &span, from)) {
            let Some(ratio) = ratio else { continue };
            match share >= 1.0 {
                true => most.push(bin, ratio, window),
                false => sorted.push(ratio, window),
            }
            if bin >= span.from {
                let level = most.extreme().unwrap_or_else(|| sorted.quantile(share));
                keep[bin] += level * limit;
            }
        }
    }
    for keep in &mut keep {
        *keep *= factor;
    }
    keep
}

/// The mean of the window and so many standard deviations; at most the limits.
pub(super) fn sigma(kind: Kind, line: &Timeline, deviations: f64, window: usize) -> Vec<f64> {
    let mut keep = line.cold_limits(kind.warm());
    for span in line.spans(kind.warm()) {
        let from = (span.from + 1).saturating_sub(window);
        let limit = limit_of(line, &span);
        let ratios = ratios(line, &span, from);
        for bin in span.from..span.to {
            let begin = (bin + 1).saturating_sub(window).max(from);
            let within = || ratios[begin - from..=bin - from].iter().flatten();
            let count = within().count() as f64;
            let mean = within().sum::<f64>() / count;
            let squares: f64 = within().map(|ratio| (ratio - mean).powi(2)).sum();
            let deviation = match count > 1.0 {
                true => (squares / (count - 1.0)).sqrt(),
                false => 0.0,
            };
            keep[bin] += (mean + deviations * deviation).min(1.0) * limit;
        }
    }
    keep
}
