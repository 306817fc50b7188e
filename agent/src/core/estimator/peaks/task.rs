//! What is remembered of one task: the largest value of each bin, as a share of its limit.

use super::kept::KeptTask;
use super::sums::Sums;
use super::{BINS, RECENT};

/// The whole limit, as a share.
const WHOLE: u64 = 65_535;
/// A remembered peak loses one part of so many a bin: it halves in 72 hours.
const FADES: u64 = 1_247;

/// One task.
#[derive(Clone, Debug)]
pub(super) struct Task {
    /// The sample that it was last in.
    pub(super) sample: u64,
    limit: u64,
    /// Its first bin.
    born: u64,
    /// The bin of its last value.
    last: Option<u64>,
    seen_bins: u64,
    remembered: u64,
    /// What bins count of which nothing can be known, as the agent was away.
    unseen: u16,
    shares: Box<[u16; BINS]>,
}

impl Task {
    /// A task of which nothing has been seen.
    pub(super) fn new(bin: u64, limit: u64) -> Self {
        Self {
            sample: 0,
            limit,
            born: bin,
            last: None,
            seen_bins: 0,
            remembered: 0,
            unseen: 0,
            shares: Box::new([0; BINS]),
        }
    }

    /// A task as it was kept over a restart; `None` if that is not whole.
    pub(super) fn again<K>(kept: &KeptTask<K>) -> Option<Self> {
        let shares: Box<[u16; BINS]> = kept.shares.clone().into_boxed_slice().try_into().ok()?;
        Some(Self {
            sample: 0,
            limit: kept.limit,
            born: kept.born,
            last: Some(kept.last),
            seen_bins: kept.seen_bins,
            remembered: kept.remembered,
            unseen: shares.iter().copied().max().unwrap_or(0),
            shares,
        })
    }

    /// What is kept of it over a restart; nothing of a task that was never measured.
    pub(super) fn kept<K>(&self, key: K) -> Option<KeptTask<K>> {
        Some(KeptTask {
            key,
            limit: self.limit,
            born: self.born,
            last: self.last?,
            seen_bins: self.seen_bins,
            remembered: self.remembered,
            shares: self.shares.to_vec(),
        })
    }

    pub(super) fn limit(&self) -> u64 {
        self.limit
    }

    /// Bins in which it was measured.
    pub(super) fn seen_bins(&self) -> u64 {
        self.seen_bins
    }

    /// Its first bin.
    pub(super) fn born(&self) -> u64 {
        self.born
    }

    /// Its largest value ever, fading.
    pub(super) fn remembered(&self) -> u64 {
        self.remembered
    }

    /// What a slot stands for.
    pub(super) fn amount(&self, slot: usize) -> u64 {
        amount(self.shares[slot], self.limit)
    }

    /// Its largest value within two hours.
    pub(super) fn recent(&self, bin: u64) -> u64 {
        let end = (bin % BINS as u64) as usize + 1;
        let most = |shares: &[u16]| shares.iter().copied().max().unwrap_or(0);
        let share = match end.checked_sub(RECENT) {
            Some(begin) => most(&self.shares[begin..end]),
            None => most(&self.shares[..end]).max(most(&self.shares[BINS + end - RECENT..])),
        };
        amount(share, self.limit)
    }

    /// Goes on from a bin to a later one: the slots between are empty.
    pub(super) fn advance(&mut self, from: u64, to: u64) {
        for bin in later(from, to) {
            self.shares[(bin % BINS as u64) as usize] = 0;
            self.remembered -= self.remembered.div_ceil(FADES);
        }
    }

    /// Takes a value in, and puts it into the sums. Bins since the last value are taken to have been as high as the
    /// higher of the two; bins in which the agent was away as high as any that is known.
    pub(super) fn push(&mut self, bin: u64, used: u64, sums: &mut Sums) {
        let share = share(used, self.limit);
        let before = self.last.unwrap_or(bin);
        let slot_before = (before % BINS as u64) as usize;
        let unseen = std::mem::take(&mut self.unseen);
        let fill = share.max(self.shares[slot_before]).max(unseen);
        self.remembered = self.remembered.max(amount(unseen, self.limit));
        for missed in later(before, bin).filter(|missed| *missed < bin) {
            self.raise(missed, fill, sums);
        }
        self.raise(bin, share, sums);
        if self.last != Some(bin) {
            self.last = Some(bin);
            self.seen_bins += 1;
        }
        self.remembered = self.remembered.max(used);
    }

    fn raise(&mut self, bin: u64, share: u16, sums: &mut Sums) {
        let slot = (bin % BINS as u64) as usize;
        let before = self.shares[slot];
        if share > before {
            self.shares[slot] = share;
            sums.raise(slot, amount(share, self.limit) - amount(before, self.limit));
        }
    }

    /// Gives it another limit; what it used stays what it was, up to the new limit.
    pub(super) fn resize(&mut self, limit: u64) {
        for slot in self.shares.iter_mut() {
            *slot = share(amount(*slot, self.limit).min(limit), limit);
        }
        self.remembered = self.remembered.min(limit);
        self.limit = limit;
    }
}

/// The bins after one up to and with another; of very many only the last that are kept.
pub(super) fn later(from: u64, to: u64) -> std::ops::RangeInclusive<u64> {
    (from + 1).max((to + 1).saturating_sub(BINS as u64))..=to
}

/// The share that an amount is of a limit, rounded up.
fn share(amount: u64, limit: u64) -> u16 {
    if limit == 0 {
        return 0;
    }
    let share = (u128::from(amount) * u128::from(WHOLE)).div_ceil(u128::from(limit));
    u16::try_from(share).unwrap_or(u16::MAX)
}

/// The amount that a share stands for.
fn amount(share: u16, limit: u64) -> u64 {
    let whole = u128::from(share) * u128::from(limit) / u128::from(WHOLE);
    u64::try_from(whole).unwrap_or(u64::MAX)
}
