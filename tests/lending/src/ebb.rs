//! The agent's own rule, driven by a trace: the code that production runs, not a copy.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use ebb_agent::core::estimator::peaks::ends::Held;
use ebb_agent::core::estimator::peaks::{Member, Peak, Peaks, Weights};
use ebb_agent::core::siblings::Siblings;
use ebb_types::Timestamp;

use crate::backlog::{Keeps, Work};
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

/// What the rule says of a machine in each bin.
#[derive(Clone, Debug)]
pub struct Said {
    kind: Kind,
    /// What is kept for the hour.
    pub keep: Vec<f64>,
    /// What is kept against the next five minutes.
    pub soon: Vec<f64>,
    peaks: Vec<Peak>,
}

impl Said {
    fn at(&self, bin: usize) -> Timestamp {
        Timestamp::from_ms(bin as u64 * self.kind.step_s() * 1_000)
    }

    /// What is kept beside tasks that end then. Of memory no end counts.
    fn beside_ends(&self, bin: usize, ends: impl Iterator<Item = Option<Timestamp>>) -> f64 {
        let kind = self.kind;
        let peak = &self.peaks[bin];
        if kind.is_memory() || peak.keep == 0 {
            return self.keep[bin];
        }
        let scale = UNITS / kind.capacity();
        let amount = (kind.unit() * scale).round() as u64;
        let keep = peak.beside(self.at(bin), ends.map(|ends_at| Held { amount, ends_at }));
        match keep >= peak.keep {
            true => self.keep[bin],
            false => keep as f64 / scale,
        }
    }
}

/// Beside tasks that say when they end.
impl Keeps for Said {
    fn keep(&self) -> &[f64] {
        &self.keep
    }

    fn beside(&self, bin: usize, running: &VecDeque<Work>) -> f64 {
        let hour = self.kind.hour();
        let ends = running.iter().map(|work| Some(self.at(work.began + hour)));
        self.beside_ends(bin, ends)
    }
}

/// Beside tasks that do not, and are all of one class, of which a machine knows what it has seen itself.
pub struct Learning(pub Said);

impl Keeps for Learning {
    fn keep(&self) -> &[f64] {
        &self.0.keep
    }

    fn beside(&self, bin: usize, running: &VecDeque<Work>) -> f64 {
        let Self(said) = self;
        let now = said.at(bin);
        let ends = running.iter().map(|work| {
            let class = Siblings {
                finished: work.finished_before,
                longest_ms: said.at(said.kind.hour()).as_ms(),
                ..Siblings::default()
            };
            class.end(said.at(work.began), now)
        });
        said.beside_ends(bin, ends)
    }
}

/// What the rule keeps in each bin of a machine. A task counts its limit until it has shown itself.
pub fn keep(kind: Kind, line: &Timeline, cost: &mut Cost) -> Said {
    let scale = UNITS / kind.capacity();
    let tasks = &line.machine.tasks;
    let limits: Vec<u64> = tasks
        .iter()
        .map(|task| (task.limit * scale).round() as u64)
        .collect();
    let mut rule: Peaks<usize> = Peaks::new(Weights::default());
    let bins = line.machine.bins;
    let mut said = Said {
        kind,
        keep: vec![0.0; bins],
        soon: vec![0.0; bins],
        peaks: vec![Peak::default(); bins],
    };
    let mut members = Vec::new();
    let begin = Instant::now();
    for span in &line.present {
        let all: u64 = span.members.iter().map(|at| limits[*at]).sum();
        for bin in span.from..span.to {
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
            let peak = rule.step(now, &members);
            let amount = |keep: u64| match keep >= all {
                true => line.limits[bin],
                false => keep as f64 / scale,
            };
            said.keep[bin] = amount(peak.keep);
            said.soon[bin] = amount(peak.soon);
            said.peaks[bin] = peak;
            cost.samples += members.len() as u64;
        }
    }
    cost.spent += begin.elapsed();
    said
}
