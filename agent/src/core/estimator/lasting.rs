//! For how long what is lent can be expected to stay lent.
//!
//! **Problem.** Who places ten seconds of work and who places ten hours of it ask different things of what is lent, and an
//! amount alone answers neither. So the agent watches how its own estimates last, and says for a few times how much of the
//! present one will stay, in so many cases of a thousand.
//!
//! **Rule.** Eight times in each of [`HORIZONS_MS`] a trial begins: what is lendable now. It ends when the time is over, and
//! counts in one of seventeen classes: how many sixteenths of it were lendable all through. What stays of the present
//! amount is the largest such part that so many of all trials kept that half as many failed as the stated confidence
//! allows. As many trials as fit in one horizon count as failed from the outset, so nothing is said of a time until nine
//! times as long has been seen.
//! Trials begin by the clock and not where others end, so that bad times are not seen more often than good ones.
//!
//! **Units.** Those of the amounts; milliseconds; thousandths. Integers, rounded so that less stays.
//!
//! **Invariants.** What stays is never more than what is lendable now, and for a longer time never more than for a shorter
//! one. Times without data count as if nothing had been lendable in them: missing data only ever shortens. What was lent
//! while nothing was lendable is no trial.
//!
//! **Restarts.** What has ended is kept over a restart of the agent; what is open has failed, since what is lent begins
//! anew. So an agent that ends once a week does not speak of ten hours before its third week, and then does.
//!
//! **Price.** 1.1 KiB a kind, and some eighty comparisons a sample. Ten hours are spoken of after four days. Trials of one horizon overlap, so that they say less than their number; this is why the
//! failures from the outset are eight and not one. It says what was so far: a new kind of tenant is learned as it lives.

use std::collections::VecDeque;

use ebb_types::{Lasting, LastingPoint, Quantities, Timestamp};

use super::LENT_KINDS;
use super::peaks::kept::Unfit;

/// The times that are spoken of, in milliseconds: a minute, ten minutes, an hour, ten hours.
pub const HORIZONS_MS: [u64; 4] = [60_000, 600_000, 3_600_000, 36_000_000];
/// In how many of a thousand cases what is said to stay does. Four of five: enough to plan by, and few enough that an hour
/// is known within a day.
pub const CONFIDENCE_PERMILLE: u64 = 800;
/// Of the trials that might fail at the confidence that is stated, one in so many may: tomorrow is not quite like yesterday.
/// On traces of machines what lasted an hour in nine of ten earlier cases did so in 85 % of the later ones.
const RESERVE: u64 = 2;
/// Trials that begin within one horizon, and that count as failed from the outset.
const TRIALS_A_HORIZON: u64 = 8;
/// Most trials of a horizon that are open at a time.
const MAX_OPEN: usize = TRIALS_A_HORIZON as usize + 1;
/// Parts of an amount that are told apart.
const PARTS: usize = 16;
/// When so many trials have ended, each class is halved: of old ones less and less remains.
const MAX_ENDED: u64 = 2_048;
/// Counts that are kept over a restart: of each kind, of each horizon, of each class.
pub const KEPT_COUNTS: usize = LENT_KINDS.len() * HORIZONS_MS.len() * (PARTS + 1);

/// An estimate that is watched.
#[derive(Clone, Copy, Debug)]
struct Trial {
    began: Timestamp,
    amount: u64,
    least: u64,
}

/// How estimates of one kind last for one time.
#[derive(Clone, Debug, Default)]
struct Horizon {
    open: VecDeque<Trial>,
    /// Trials by how many parts of the amount were there all through.
    ended: [u64; PARTS + 1],
    /// Which eighth of the horizon, counted from the epoch, a trial began in last.
    last_began: Option<u64>,
}

impl Horizon {
    fn step(&mut self, now: Timestamp, time_ms: u64, amount: u64, seen: bool) {
        for trial in &mut self.open {
            trial.least = if seen { trial.least.min(amount) } else { 0 };
        }
        while let Some(trial) = self.open.front().copied() {
            if now.ms_since(trial.began) < time_ms {
                break;
            }
            self.open.pop_front();
            self.end(trial);
        }
        let eighth = now.as_ms() / (time_ms / TRIALS_A_HORIZON);
        if self.last_began != Some(eighth) && amount > 0 && self.open.len() < MAX_OPEN {
            self.last_began = Some(eighth);
            self.open.push_back(Trial {
                began: now,
                amount,
                least: amount,
            });
        }
    }

    fn end(&mut self, trial: Trial) {
        let parts = u128::from(trial.least) * PARTS as u128 / u128::from(trial.amount.max(1));
        let class = usize::try_from(parts).unwrap_or(PARTS).min(PARTS);
        self.ended[class] += 1;
        if self.ended.iter().sum::<u64>() >= MAX_ENDED {
            for (class, count) in self.ended.iter_mut().enumerate() {
                // Failures are rounded up.
                *count = if class < PARTS {
                    count.div_ceil(2)
                } else {
                    *count / 2
                };
            }
        }
    }

    /// The classes as they would be if the agent ended now.
    fn kept(&self) -> [u64; PARTS + 1] {
        let mut kept = self.clone();
        while let Some(trial) = kept.open.pop_front() {
            kept.end(Trial { least: 0, ..trial });
        }
        kept.ended
    }

    /// How many parts stay.
    fn parts(&self, confidence_permille: u64) -> u64 {
        let all = self.ended.iter().sum::<u64>() + TRIALS_A_HORIZON;
        let may_fail = all * 1000u64.saturating_sub(confidence_permille) / (1000 * RESERVE);
        let mut failed = TRIALS_A_HORIZON;
        let mut parts = 0;
        for count in &self.ended[..PARTS] {
            failed += count;
            if failed > may_fail {
                break;
            }
            parts += 1;
        }
        parts
    }
}

/// How one agent's estimates last.
#[derive(Clone, Debug)]
pub struct Survival {
    confidence_permille: u64,
    max_gap_ms: u64,
    kinds: [[Horizon; HORIZONS_MS.len()]; LENT_KINDS.len()],
    last: Option<Timestamp>,
}

impl Survival {
    /// Nothing was seen yet. Steps that are further apart than `max_gap_ms` are a time without data.
    pub fn new(confidence_permille: u64, max_gap_ms: u64) -> Self {
        Self {
            confidence_permille,
            max_gap_ms,
            kinds: Default::default(),
            last: None,
        }
    }

    /// So much is lendable now, in use and not.
    pub fn step(&mut self, now: Timestamp, lendable: &Quantities) {
        let before = self.last.replace(now);
        if before.is_some_and(|before| now < before) {
            // The clock went backward: nobody knows how long what is open has been.
            for horizon in self.kinds.iter_mut().flatten() {
                horizon.open.clear();
                horizon.last_began = None;
            }
        }
        let seen = before.is_none_or(|before| now.ms_since(before) <= self.max_gap_ms);
        for (kind, horizons) in LENT_KINDS.into_iter().zip(&mut self.kinds) {
            for (time_ms, horizon) in HORIZONS_MS.into_iter().zip(horizons) {
                horizon.step(now, time_ms, lendable.get(kind), seen);
            }
        }
    }

    /// What to keep over a restart: [`KEPT_COUNTS`] numbers.
    pub fn kept(&self) -> Vec<u64> {
        let horizons = self.kinds.iter().flatten();
        horizons.flat_map(Horizon::kept).collect()
    }

    /// Takes up what was kept before a restart, in the place of what is known.
    ///
    /// # Errors
    /// [`Unfit::Absurd`] if it cannot have been kept; then nothing has changed.
    pub fn take_up(&mut self, kept: &[u64]) -> Result<(), Unfit> {
        let (counts, []) = kept.as_chunks::<{ PARTS + 1 }>() else {
            return Err(Unfit::Absurd);
        };
        let can_be = |ended: &[u64; PARTS + 1]| {
            let sum = ended
                .iter()
                .try_fold(0u64, |sum, count| sum.checked_add(*count));
            sum.is_some_and(|sum| sum < MAX_ENDED)
        };
        if kept.len() != KEPT_COUNTS || !counts.iter().all(can_be) {
            return Err(Unfit::Absurd);
        }
        let horizons = self.kinds.iter_mut().flatten();
        for (horizon, ended) in horizons.zip(counts) {
            *horizon = Horizon {
                ended: *ended,
                ..Horizon::default()
            };
        }
        Ok(())
    }

    /// What stays of what is lendable now.
    pub fn lasting(&self, lendable: &Quantities) -> Lasting {
        let mut left = *lendable;
        let points = HORIZONS_MS.into_iter().enumerate().map(|(at, time_ms)| {
            let mut amount = Quantities::ZERO;
            for (kind, horizons) in LENT_KINDS.into_iter().zip(&self.kinds) {
                let parts = horizons[at].parts(self.confidence_permille);
                let whole = u128::from(lendable.get(kind));
                let stays = u64::try_from(whole * u128::from(parts) / PARTS as u128);
                amount = amount.with(kind, stays.unwrap_or(0).min(left.get(kind)));
            }
            left = amount;
            LastingPoint { time_ms, amount }
        });
        Lasting {
            confidence_permille: self.confidence_permille,
            points: points.collect(),
        }
    }
}

#[cfg(test)]
mod tests;
