//! How often what was said to stay lent did stay, on the machines of a trace.

use ebb_agent::core::estimator::lasting::{CONFIDENCE_PERMILLE, HORIZONS_MS, Survival};
use ebb_types::{Quantities, Timestamp};

use crate::timeline::Timeline;
use crate::trace::Kind;

/// A machine's capacity in the integers that the rule counts in.
const UNITS: f64 = 1e9;

/// What was said of one time, and what came of it.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Said {
    /// Bins in which something was said to stay.
    pub bins: u64,
    /// Those of them in which it stayed.
    pub held: u64,
    /// How much was said to stay, and how much was lent in the same bins.
    pub amount: f64,
    /// See [`Said::amount`].
    pub lent: f64,
}

impl Said {
    /// The share of the bins in which it stayed.
    pub fn share_held(&self) -> f64 {
        self.held as f64 / self.bins.max(1) as f64
    }

    /// The share of what was lent that was said to stay.
    pub fn share_said(&self) -> f64 {
        self.amount / self.lent.max(f64::MIN_POSITIVE)
    }

    /// Takes in what was said of others.
    pub fn add(&mut self, other: &Self) {
        self.bins += other.bins;
        self.held += other.held;
        self.amount += other.amount;
        self.lent += other.lent;
    }
}

/// The confidence that is stated, as a share.
pub fn confidence() -> f64 {
    CONFIDENCE_PERMILLE as f64 / 1_000.0
}

/// Plays what a rule lends of one machine (`keep` is what it keeps in each bin) through the agent's own code, for each of
/// [`HORIZONS_MS`]. Times shorter than a bin, and those that end after the trace, are not judged.
pub fn play(kind: Kind, line: &Timeline, keep: &[f64]) -> [Said; HORIZONS_MS.len()] {
    let scale = UNITS / kind.capacity();
    let step_ms = kind.step_s() * 1_000;
    let lent = line.limits.iter().zip(keep);
    let lent: Vec<u64> = lent
        .map(|(limits, keep)| ((limits - keep).max(0.0) * scale) as u64)
        .collect();
    let mut survival = Survival::new(CONFIDENCE_PERMILLE, step_ms);
    let mut said = [Said::default(); HORIZONS_MS.len()];
    for (bin, level) in lent.iter().enumerate() {
        let lendable = Quantities::cpus_mem(*level, 0);
        survival.step(Timestamp::from_ms(bin as u64 * step_ms), &lendable);
        for (point, said) in survival.lasting(&lendable).points.iter().zip(&mut said) {
            let ahead = (point.time_ms / step_ms) as usize;
            let amount = point.amount.cpu_milli();
            let Some(after) = lent
                .get(bin..=bin + ahead)
                .filter(|_| ahead > 0 && amount > 0)
            else {
                continue;
            };
            said.bins += 1;
            said.held += u64::from(after.iter().all(|level| *level >= amount));
            said.amount += amount as f64;
            said.lent += *level as f64;
        }
    }
    said
}
