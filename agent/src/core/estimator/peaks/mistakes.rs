//! By how much the rule has been wrong of late.
//!
//! Each bin what was expected an hour before is held against what the tasks of then have used since. Tasks that came later
//! do not count, and of one that has ended nothing is known any more.

use std::collections::BTreeMap;

use super::task::{Task, later};
use super::{BINS, DAY, HOUR};

/// Mistakes that are kept: those of twelve hours.
pub(super) const KEPT: usize = DAY / 2;

/// What was expected, and by how much too little.
#[derive(Clone, Debug)]
pub(super) struct Mistakes {
    /// What was expected last in each of the last bins.
    expected: [Option<u64>; HOUR + 1],
    missing: [u64; KEPT],
}

impl Default for Mistakes {
    fn default() -> Self {
        Self {
            expected: [None; HOUR + 1],
            missing: [0; KEPT],
        }
    }
}

impl Mistakes {
    /// As they were kept over a restart; what was expected then is not known any more.
    pub(super) fn again(missing: [u64; KEPT]) -> Self {
        Self {
            missing,
            ..Self::default()
        }
    }

    /// What is kept of them over a restart.
    pub(super) const fn kept(&self) -> &[u64; KEPT] {
        &self.missing
    }

    /// Remembers what is expected now.
    pub(super) fn predict(&mut self, bin: u64, amount: u64) {
        self.expected[(bin % (HOUR + 1) as u64) as usize] = Some(amount);
    }

    /// The largest of all.
    pub(super) fn largest(&self) -> u64 {
        self.missing.iter().copied().max().unwrap_or(0)
    }

    /// The bins up to and with `last` are over, those up to `to` were passed over; what was expected an hour before each.
    pub(super) fn learn<K>(&mut self, last: u64, to: u64, tasks: &BTreeMap<K, Task>) {
        let begin = last.saturating_sub(HOUR as u64);
        if let Some(expected) = self.expected[(begin % (HOUR + 1) as u64) as usize]
            && last >= HOUR as u64
        {
            self.missing[(last % KEPT as u64) as usize] =
                came(begin, tasks).saturating_sub(expected);
        }
        for bin in later(last, to) {
            self.expected[(bin % (HOUR + 1) as u64) as usize] = None;
            self.missing[(bin % KEPT as u64) as usize] = 0;
        }
    }
}

/// The most that the tasks that were there in a bin have used in one of the hour's bins after it.
fn came<K>(begin: u64, tasks: &BTreeMap<K, Task>) -> u64 {
    let mut sums = [0u64; HOUR];
    for task in tasks.values().filter(|task| task.born() <= begin) {
        for (after, sum) in sums.iter_mut().enumerate() {
            let slot = ((begin + 1 + after as u64) % BINS as u64) as usize;
            *sum = sum.saturating_add(task.amount(slot));
        }
    }
    sums.into_iter().max().unwrap_or(0)
}
