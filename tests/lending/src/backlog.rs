//! The closed loop: an endless backlog of revocable tasks takes what a rule lends, and is evicted when production
//! comes back.

use std::collections::VecDeque;
use std::ops::Range;

use crate::score::Figures;
use crate::timeline::Timeline;
use crate::trace::Kind;

/// What says what to keep on a machine.
pub trait Keeps {
    /// What is kept in each bin.
    fn keep(&self) -> &[f64];

    /// What is kept in a bin beside revocable tasks that run, the oldest first, and end after an hour.
    fn beside(&self, bin: usize, _running: &VecDeque<Work>) -> f64 {
        self.keep()[bin]
    }
}

/// A revocable task.
#[derive(Clone, Copy, Debug)]
pub struct Work {
    /// The bin in which it began.
    pub began: usize,
    /// How many had run to their end on its machine by then.
    pub finished_before: u64,
}

impl Keeps for Vec<f64> {
    fn keep(&self) -> &[f64] {
        self
    }
}

/// What happened on some machines.
#[derive(Clone, Debug, Default)]
pub struct Played {
    bins: f64,
    capacity: f64,
    used: f64,
    revocable: f64,
    good: f64,
    over: f64,
    contended: f64,
    started: f64,
    evicted: f64,
    lost: f64,
}

/// Whether a machine is full enough to be played.
pub fn is_played(kind: Kind, line: &Timeline, range: Range<usize>) -> bool {
    let capacity = kind.capacity();
    let limits = line.limits.get(range).unwrap_or_default();
    let mean = limits.iter().sum::<f64>() / limits.len().max(1) as f64;
    mean >= 0.8 * capacity && line.machine.capacity <= capacity
}

impl Played {
    /// Plays the bins of one machine.
    pub fn play(&mut self, kind: Kind, line: &Timeline, range: Range<usize>, keep: &impl Keeps) {
        let (unit, hour, capacity) = (kind.unit(), kind.hour(), kind.capacity());
        // The youngest at the back.
        let mut running: VecDeque<Work> = VecDeque::new();
        let mut finished = 0;
        for bin in range {
            let used = line.used[bin];
            // Counted anew each time: a sum that is added to and taken from drifts away from whole units.
            let holds = running.len() as f64 * unit;
            let over = (used + holds - capacity).max(0.0);
            self.bins += 1.0;
            self.capacity += capacity;
            self.used += used;
            self.over += over;
            self.revocable += holds - over;
            if over > 0.0 {
                self.contended += 1.0;
                let count = (over / unit - 1e-9).ceil() as usize;
                for _ in 0..count {
                    if let Some(work) = running.pop_back() {
                        self.evicted += 1.0;
                        self.lost += (bin - work.began) as f64 * unit;
                    }
                }
            }
            let is_over = |work: &Work| bin - work.began >= hour;
            while running.front().is_some_and(is_over) {
                running.pop_front();
                finished += 1;
                self.good += hour as f64 * unit;
            }
            let holds = running.len() as f64 * unit;
            for _ in 0..whole_units(capacity - keep.beside(bin, &running) - holds, unit) {
                running.push_back(Work {
                    began: bin,
                    finished_before: finished,
                });
                self.started += 1.0;
            }
        }
    }

    /// The figures.
    pub fn figures(&self) -> Figures {
        let of = |amount: f64, whole: f64| if whole > 0.0 { amount / whole } else { 0.0 };
        let production = of(self.used, self.capacity);
        let revocable = of(self.revocable, self.capacity);
        Figures::from([
            ("c_prod_util".to_owned(), production),
            ("c_rev_util".to_owned(), revocable),
            ("c_total_util".to_owned(), production + revocable),
            ("c_goodput".to_owned(), of(self.good, self.capacity)),
            ("c_contended".to_owned(), of(self.contended, self.bins)),
            ("c_exposure".to_owned(), of(self.over, self.used)),
            ("c_evict_rate".to_owned(), of(self.evicted, self.started)),
            ("c_lost".to_owned(), of(self.lost, self.capacity)),
        ])
    }
}

/// How often a unit goes into an amount, of the very numbers given: a unit that is a hair more than it is written as
/// goes into a round amount once less often.
fn whole_units(amount: f64, unit: f64) -> usize {
    let amount = amount.max(0.0);
    ((amount - amount % unit) / unit).round() as usize
}

#[cfg(test)]
mod tests {
    use super::whole_units;

    #[test]
    fn a_unit_that_is_a_hair_more_than_written_goes_once_less_into_a_round_amount() {
        assert_eq!(whole_units(1.0, 0.05), 19);
        assert_eq!(whole_units(7_500.0, 2_500.0), 3);
        assert_eq!(whole_units(7_499.0, 2_500.0), 2);
        assert_eq!(whole_units(-1.0, 2_500.0), 0);
    }
}
