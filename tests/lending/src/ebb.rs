//! The agent's own rule, driven by a trace: the code that production runs, not a copy.

use std::time::{Duration, Instant};

use ebb_agent::core::estimator::peaks::{Member, Peaks, Weights};
use ebb_types::Timestamp;

use crate::timeline::Timeline;
use crate::trace::Kind;

/// A machine's capacity in the integers that the rule counts in.
const UNITS: f64 = 1e9;

/// What replaying cost.
#[derive(Clone, Copy, Debug, Default)]
pub struct Cost {
    /// Time in the rule.
    pub spent: Duration,
    /// Tasks times samples.
    pub samples: u64,
}

/// What the rule keeps in each bin of a machine. A task counts its limit until it has shown itself.
pub fn keep(kind: Kind, line: &Timeline, weights: Weights, cost: &mut Cost) -> Vec<f64> {
    let scale = UNITS / kind.capacity();
    let tasks = &line.machine.tasks;
    let limits: Vec<u64> = tasks
        .iter()
        .map(|task| (task.limit * scale).round() as u64)
        .collect();
    let mut peaks: Peaks<usize> = Peaks::new(weights);
    let mut keep = vec![0.0; line.machine.bins];
    let mut members = Vec::new();
    let begin = Instant::now();
    for span in &line.present {
        for (bin, keep) in (span.from..).zip(&mut keep[span.from..span.to]) {
            members.clear();
            members.extend(span.members.iter().map(|at| {
                let used = tasks[*at].used[bin - tasks[*at].start];
                Member {
                    key: *at,
                    limit: limits[*at],
                    unknown: limits[*at],
                    used: Some((used * scale).round() as u64),
                }
            }));
            let now = Timestamp::from_ms(bin as u64 * kind.step_s() * 1_000);
            let peak = peaks.step(now, &members);
            let all: u64 = span.members.iter().map(|at| limits[*at]).sum();
            *keep = match peak.keep >= all {
                true => line.limits[bin],
                false => peak.keep as f64 / scale,
            };
            cost.samples += members.len() as u64;
        }
    }
    cost.spent += begin.elapsed();
    keep
}
