//! Rules that look at each task by itself.

use crate::rolling::{Sorted, rolling_max};
use crate::timeline::Timeline;
use crate::trace::{Kind, Task};

/// Adds up what a series says of each task, from its first sample on.
fn sum(line: &Timeline, series: impl Fn(&Task) -> Vec<f64>) -> Vec<f64> {
    let mut keep = vec![0.0; line.machine.bins];
    for task in &line.machine.tasks {
        for (slot, value) in keep[task.start..].iter_mut().zip(series(task)) {
            *slot += value;
        }
    }
    keep
}

/// The quantile of the last `window` samples of each task that is not cold, times a factor.
pub(super) fn quantiles(
    kind: Kind,
    line: &Timeline,
    share: f64,
    window: usize,
    factor: f64,
) -> Vec<f64> {
    sum(line, |task| {
        let mut series = match share >= 1.0 {
            true => rolling_max(&task.used, window),
            false => {
                let mut sorted = Sorted::default();
                let each = task.used.iter().map(|used| {
                    sorted.push(*used, window);
                    sorted.quantile(share)
                });
                each.collect()
            }
        };
        for (age, value) in series.iter_mut().enumerate() {
            *value = match age + 1 < kind.warm() {
                true => task.limit,
                false => (factor * *value).min(task.limit),
            };
        }
        series
    })
}

/// What is used and a quarter more; falls back to that with a half-life of an hour.
pub(super) fn borg_reclamation(kind: Kind, line: &Timeline) -> Vec<f64> {
    let first = (300 / kind.step_s()) as usize;
    let keeps = 0.5f64.powf(kind.step_s() as f64 / 3600.0);
    sum(line, |task| {
        let mut reserved = task.limit;
        let each = task.used.iter().enumerate().map(|(age, used)| {
            let wanted = 1.25 * used;
            reserved = match age {
                0 => wanted,
                _ => wanted.max(wanted + (reserved - wanted) * keeps),
            };
            match age < first {
                true => task.limit,
                false => reserved.min(task.limit),
            }
        });
        each.collect()
    })
}

/// What tasks older than five minutes leave, up to 70 % of the limits; nothing at 95 %.
pub(super) fn serenity(kind: Kind, line: &Timeline) -> Vec<f64> {
    let old = (300 / kind.step_s()) as usize;
    let slack = sum(line, |task| {
        let each = task.used.iter().enumerate();
        each.map(|(age, used)| match age + 1 > old {
            true => task.limit - used,
            false => 0.0,
        })
        .collect()
    });
    let mut keep = line.limits.clone();
    for (bin, keep) in keep.iter_mut().enumerate() {
        let (used, limits) = (line.used[bin], line.limits[bin]);
        if used < 0.95 * limits {
            *keep = limits - slack[bin].min(0.7 * limits - used).max(0.0);
        }
    }
    keep
}

/// What is used, or a fifth more than the same tasks used in the next hour a day ago.
pub(super) fn crane(kind: Kind, line: &Timeline) -> Vec<f64> {
    let (day, hour) = (kind.bins(24.0), kind.hour());
    let mut keep = line.cold_limits(day);
    for span in line.spans(day) {
        let begin = (span.from + 1).saturating_sub(day);
        let end = span.to + hour;
        let before = line.used_by(&span.members, begin, end.saturating_sub(day).max(begin));
        let now = line.used_by(&span.members, span.from, span.to);
        for bin in span.from..span.to {
            let hour_before = bin + 1 - day..bin + 1 + hour - day;
            let most = before[hour_before.start - begin..hour_before.end - begin]
                .iter()
                .copied()
                .fold(0.0, f64::max);
            keep[bin] += now[bin - span.from].max(1.2 * most);
        }
    }
    keep
}
