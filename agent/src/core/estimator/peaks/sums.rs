//! The sums of what the tasks present used in each bin.

use super::task::{Task, later};
use super::{BINS, DAY, HOUR, RECENT};

/// What is larger counts as this where squares are taken: 12 × 12 of them fit.
const LARGEST: u64 = 1 << 60;

/// One sum a bin.
#[derive(Clone, Debug)]
pub(super) struct Sums {
    slots: Box<[u64; BINS]>,
    /// Bins that have been, up to as many as are kept.
    bins: usize,
}

impl Default for Sums {
    fn default() -> Self {
        Self {
            slots: Box::new([0; BINS]),
            bins: 1,
        }
    }
}

impl Sums {
    /// The sums of tasks that were kept over a restart, the oldest of which is so many bins old.
    pub(super) fn again<'a>(tasks: impl Iterator<Item = &'a Task>, bins: u64) -> Self {
        let mut sums = Self {
            bins: usize::try_from(bins).unwrap_or(BINS).clamp(1, BINS),
            ..Self::default()
        };
        tasks.for_each(|task| sums.add(task));
        sums
    }

    /// Goes on from a bin to a later one: the slots between are empty.
    pub(super) fn advance(&mut self, from: u64, to: u64) {
        for bin in later(from, to) {
            self.slots[(bin % BINS as u64) as usize] = 0;
            self.bins = (self.bins + 1).min(BINS);
        }
    }

    /// Adds to one slot.
    pub(super) fn raise(&mut self, slot: usize, amount: u64) {
        self.slots[slot] = self.slots[slot].saturating_add(amount);
    }

    /// Adds all that a task remembers.
    pub(super) fn add(&mut self, task: &Task) {
        for (slot, sum) in self.slots.iter_mut().enumerate() {
            *sum = sum.saturating_add(task.amount(slot));
        }
    }

    /// Takes all that a task remembers away.
    pub(super) fn remove(&mut self, task: &Task) {
        for (slot, sum) in self.slots.iter_mut().enumerate() {
            *sum = sum.saturating_sub(task.amount(slot));
        }
    }

    /// The largest sum of so many bins, the last of which lies `back` before `bin`.
    pub(super) fn largest(&self, bin: u64, back: usize, count: usize) -> u64 {
        let count = count.min(BINS.saturating_sub(back));
        let end = (bin % BINS as u64) as usize + BINS - back;
        let (begin, end) = (end + 1 - count, end + 1);
        let most = |sums: &[u64]| sums.iter().copied().max().unwrap_or(0);
        match (begin >= BINS, end > BINS) {
            (true, _) => most(&self.slots[begin - BINS..end - BINS]),
            (_, false) => most(&self.slots[begin..end]),
            _ => most(&self.slots[begin..]).max(most(&self.slots[..end - BINS])),
        }
    }

    /// The largest sum of the hour that begins now, so many days before, and half an hour on either side.
    pub(super) fn around(&self, bin: u64, day: usize) -> u64 {
        self.largest(bin, day * DAY - HOUR - HOUR / 2, RECENT)
    }

    /// The largest sum of all.
    pub(super) fn longest(&self) -> u64 {
        self.slots.iter().copied().max().unwrap_or(0)
    }

    /// The standard deviation of the last hour, rounded down.
    pub(super) fn sway(&self, bin: u64) -> u64 {
        let count = HOUR.min(self.bins);
        let values = || {
            (0..count).map(|back| {
                let slot = (bin % BINS as u64) as usize + BINS - back;
                u128::from(self.slots[slot % BINS].min(LARGEST))
            })
        };
        // count² × variance = count × Σx² − (Σx)²
        let (mut squares, mut whole) = (0u128, 0u128);
        for value in values() {
            squares += value * value;
            whole += value;
        }
        let count = count as u128;
        let spread = (count * squares).saturating_sub(whole * whole).isqrt() / count;
        u64::try_from(spread).unwrap_or(u64::MAX)
    }
}
