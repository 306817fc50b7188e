//! Histograms that forget: of each task and of the machine, with buckets that widen by a twentieth.

use crate::timeline::Timeline;
use crate::trace::Kind;

/// Buckets of a histogram; the last takes everything beyond.
const BUCKETS: usize = 200;

struct Histogram {
    weights: Vec<f64>,
    total: f64,
}

impl Histogram {
    fn new() -> Self {
        Self {
            weights: vec![0.0; BUCKETS],
            total: 0.0,
        }
    }

    fn add(&mut self, value: f64, first: f64, weight: f64) {
        let at = (1.0 + 0.05 * value / first).ln() / 1.05f64.ln();
        let at = ((at + 1e-9) as usize).min(BUCKETS - 1);
        self.weights[at] += weight;
        self.total += weight;
    }

    fn scale(&mut self, factor: f64) {
        for weight in &mut self.weights {
            *weight *= factor;
        }
        self.total *= factor;
    }

    /// The upper bound of the bucket in which the quantile lies.
    fn quantile(&self, share: f64, first: f64) -> f64 {
        let wanted = share * self.total;
        let mut seen = 0.0;
        let at = self.weights.iter().position(|weight| {
            seen += weight;
            seen >= wanted
        });
        let upper = at.unwrap_or(BUCKETS - 1) as f64 + 1.0;
        first * (1.05f64.powf(upper) - 1.0) / 0.05
    }
}

/// Quantiles of the histograms of one series, after each value.
fn peaks(kind: Kind, values: impl Iterator<Item = f64>) -> Vec<f64> {
    let (share, half_life_hours) = match kind.is_memory() {
        true => (0.98, 24.0),
        false => (0.95, 12.0),
    };
    let first = 0.025 * kind.unit();
    let grows = 2f64.powf(kind.step_s() as f64 / 3600.0 / half_life_hours);
    let mut weight = 1.0;
    let mut histogram = Histogram::new();
    let each = values.map(|value| {
        weight *= grows;
        if weight > 1e100 {
            histogram.scale(1e-100);
            weight *= 1e-100;
        }
        histogram.add(value, first, weight);
        1.1 * histogram.quantile(share, first)
    });
    each.collect()
}

/// What neither the tasks' peaks nor the machine's leave is kept.
pub(super) fn koordinator_mid(kind: Kind, line: &Timeline, cold_hours: f64) -> Vec<f64> {
    let cold = kind.bins(cold_hours);
    let mut slack = vec![0.0; line.machine.bins];
    for task in &line.machine.tasks {
        let peaks = peaks(kind, task.used.iter().copied());
        for (age, peak) in peaks.iter().enumerate().skip(cold.saturating_sub(1)) {
            slack[task.start + age] += (task.limit - peak).max(0.0);
        }
    }
    let machine = peaks(kind, line.used.iter().copied());
    let bins = slack.iter().zip(machine).zip(&line.limits);
    let keep = bins.map(|((slack, peak), limits)| limits - slack.min(limits - peak).max(0.0));
    keep.zip(&line.used)
        .map(|(keep, used)| keep.max(*used))
        .collect()
}
