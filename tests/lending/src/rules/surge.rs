//! The machine's peak of late, and how much higher single tasks have been before.

use crate::rolling::rolling_max;
use crate::timeline::Timeline;
use crate::trace::Kind;

/// Limits of cold tasks, the peak of `recent` bins, and the weighted largest gaps.
pub(super) fn keep(kind: Kind, line: &Timeline, weights: &[f64], window: usize) -> Vec<f64> {
    let recent = kind.bins(2.0);
    let mut keep = line.cold_limits(kind.warm());
    let spans = line.spans(kind.warm());
    let mut warm = vec![0.0; line.machine.bins];
    for span in &spans {
        let used = line.used_by(&span.members, span.from, span.to);
        warm[span.from..span.to].copy_from_slice(&used);
    }
    for (keep, peak) in keep.iter_mut().zip(rolling_max(&warm, recent)) {
        *keep += peak;
    }
    let gaps: Vec<Vec<f64>> = line
        .machine
        .tasks
        .iter()
        .map(|task| {
            let long = rolling_max(&task.used, window);
            let short = rolling_max(&task.used, recent);
            long.iter()
                .zip(short)
                .map(|(long, short)| long - short)
                .collect()
        })
        .collect();
    let mut largest = vec![0.0; weights.len()];
    for span in &spans {
        for bin in span.from..span.to {
            largest.fill(0.0);
            for member in &span.members {
                let start = line.machine.tasks[*member].start;
                insert(&mut largest, gaps[*member][bin - start]);
            }
            let weighted = weights.iter().zip(&largest);
            keep[bin] += weighted.map(|(weight, gap)| weight * gap).sum::<f64>();
        }
    }
    keep
}

/// Puts a value in its place among the largest, which are in descending order.
fn insert(largest: &mut [f64], mut value: f64) {
    for slot in largest {
        if value > *slot {
            std::mem::swap(slot, &mut value);
        }
    }
}
