//! The closed loop: an endless backlog of revocable tasks takes what a rule lends, and is evicted when production
//! comes back.

use std::collections::VecDeque;
use std::ops::Range;

use crate::score::Figures;
use crate::timeline::Timeline;
use crate::trace::Kind;

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
    pub fn play(&mut self, kind: Kind, line: &Timeline, range: Range<usize>, keep: &[f64]) {
        let (unit, hour, capacity) = (kind.unit(), kind.hour(), kind.capacity());
        // When each began; the youngest at the back.
        let mut running: VecDeque<usize> = VecDeque::new();
        // What they hold.
        let mut holds = 0.0f64;
        for bin in range {
            let used = line.used[bin];
            let over = (used + holds - capacity).max(0.0);
            self.bins += 1.0;
            self.capacity += capacity;
            self.used += used;
            self.over += over;
            self.revocable += holds - over;
            if over > 0.0 {
                self.contended += 1.0;
                let count = (over / unit).ceil() as usize;
                for _ in 0..count {
                    if let Some(began) = running.pop_back() {
                        holds -= unit;
                        self.evicted += 1.0;
                        self.lost += (bin - began) as f64 * unit;
                    }
                }
            }
            while running.front().is_some_and(|began| bin - began >= hour) {
                running.pop_front();
                holds -= unit;
                self.good += hour as f64 * unit;
            }
            let room = ((capacity - keep[bin] - holds) / unit).floor().max(0.0);
            holds += room * unit;
            for _ in 0..room as usize {
                running.push_back(bin);
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
