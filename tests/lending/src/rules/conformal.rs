//! Quantiles of what has come within an hour after each bin before.

use crate::rolling::Sorted;
use crate::rolling::rolling_max;
use crate::timeline::Timeline;
use crate::trace::Kind;

/// For each value the most of the `horizon` values after it; as many results as are known.
fn most_after(values: &[f64], horizon: usize) -> Vec<f64> {
    let most = rolling_max(values, horizon);
    most.get(horizon..).unwrap_or_default().to_vec()
}

/// What the tasks that are warm now use, and a quantile of how much that has grown within the horizon.
pub(super) fn keep(kind: Kind, line: &Timeline, alpha: f64, window: usize) -> Vec<f64> {
    let horizon = kind.hour();
    let age = kind.warm() + horizon;
    let mut keep = line.cold_limits(age);
    let tasks = &line.machine.tasks;
    for span in line.spans(age) {
        let starts = span.members.iter().map(|member| tasks[*member].start);
        let whole = starts.max().unwrap_or(0);
        let from = whole.max((span.from + 1).saturating_sub(window + horizon));
        let used = line.used_by(&span.members, from, span.to);
        let most = most_after(&used, horizon);
        let limits: f64 = span.members.iter().map(|member| tasks[*member].limit).sum();
        let mut growth = Sorted::default();
        for (at, now) in used.iter().enumerate() {
            if let Some(known) = at.checked_sub(horizon) {
                growth.push(most[known] - used[known], window);
            }
            if let Some(bin) = (from + at).checked_sub(span.from) {
                keep[span.from + bin] += match growth.is_empty() {
                    true => limits,
                    false => now + growth.quantile_higher(1.0 - alpha),
                };
            }
        }
    }
    keep
}

/// A rule times a quantile of what would have been right, relative to it; as long as less than a day of that is known
/// not less than the rule itself, and never less than what is used.
pub(super) fn recalibrated(
    kind: Kind,
    line: &Timeline,
    base: &[f64],
    alpha: f64,
    window: usize,
) -> Vec<f64> {
    let (horizon, enough) = (kind.hour(), kind.bins(24.0));
    let came = line.oracle(horizon);
    let mut factors = Sorted::default();
    let mut keep = Vec::with_capacity(base.len());
    for (bin, amount) in base.iter().enumerate() {
        if let Some(known) = bin.checked_sub(horizon)
            && base[known] > 0.0
        {
            factors.push(came[known] / base[known], window);
        }
        let factor = factors.quantile_higher(1.0 - alpha);
        let kept = match factors.len() < enough {
            true => amount * factor.max(1.0),
            false => amount * factor,
        };
        keep.push(kept.max(line.used[bin]));
    }
    keep
}
