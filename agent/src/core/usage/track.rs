//! One counter's last second: the valid readings in it, and what lies between them.
//!
//! A reading that is missing is no point here: the next difference spans more than one sample, and
//! the newest sample has no rate. A reset or a gap throws all points away. So within the points the
//! counter only rises, and any two of them make a difference that is right.

use std::collections::VecDeque;

/// Most readings that are kept: the slow window at a sampling period of 16 ms and more.
const MAX_POINTS: usize = 64;

/// Something that counts upwards.
pub(super) trait Count: Copy {
    /// What was counted since `earlier`; `None` where that counted more.
    fn since(&self, earlier: &Self) -> Option<Self>;
}

impl Count for u64 {
    fn since(&self, earlier: &Self) -> Option<Self> {
        self.checked_sub(*earlier)
    }
}

impl<const N: usize> Count for [u64; N] {
    fn since(&self, earlier: &Self) -> Option<Self> {
        let mut result = [0; N];
        for (slot, (now, then)) in result.iter_mut().zip(self.iter().zip(earlier)) {
            *slot = now.checked_sub(*then)?;
        }
        Some(result)
    }
}

/// What was counted over a span of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Delta<C> {
    /// What was counted.
    pub(super) amount: C,
    /// The span, in nanoseconds; never 0.
    pub(super) span_ns: u64,
}

impl<const N: usize> Delta<[u64; N]> {
    /// One of several that are counted together.
    pub(super) fn part(&self, index: usize) -> Delta<u64> {
        Delta {
            amount: self.amount.get(index).copied().unwrap_or_default(),
            span_ns: self.span_ns,
        }
    }
}

impl Delta<u64> {
    /// The amount per `unit_ns`, times `factor`, rounded to the nearest.
    pub(super) fn per(&self, unit_ns: u64, factor: u64) -> u64 {
        let product = u128::from(self.amount) * u128::from(unit_ns) * u128::from(factor);
        let span = u128::from(self.span_ns);
        u64::try_from((product + span / 2) / span).unwrap_or(u64::MAX)
    }

    /// Time counted per time passed, in thousandths.
    pub(super) fn permille(&self) -> u64 {
        self.per(1, 1000)
    }

    /// Amount a second.
    pub(super) fn per_second(&self) -> u64 {
        self.per(1_000_000_000, 1)
    }
}

/// The last second of one counter.
#[derive(Clone, Debug)]
pub(super) struct Track<C> {
    /// When, and what was read; oldest first.
    points: VecDeque<(u64, C)>,
}

impl<C> Default for Track<C> {
    fn default() -> Self {
        Self {
            points: VecDeque::new(),
        }
    }
}

impl<C: Count> Track<C> {
    /// Takes a reading in; `taken_ns` is later than that of every reading before. Says whether the
    /// counter stepped back.
    pub(super) fn push(&mut self, taken_ns: u64, reading: Option<C>, limits: Limits) -> bool {
        let Some(value) = reading else { return false };
        let mut reset = false;
        if let Some((last_ns, earlier)) = self.points.back() {
            reset = value.since(earlier).is_none();
            if reset || taken_ns.saturating_sub(*last_ns) > limits.max_gap_ns {
                self.points.clear();
            }
        }
        self.points.push_back((taken_ns, value));
        // Keep the reading with which the slow window begins, and everything later.
        let begin_ns = taken_ns.saturating_sub(limits.window_ns);
        while self.points.len() > 2
            && (self.points.len() > MAX_POINTS || self.points[1].0 <= begin_ns)
        {
            self.points.pop_front();
        }
        reset
    }

    /// When the newest reading was taken, if that is not too long before `taken_ns`.
    pub(super) fn last_ns(&self, taken_ns: u64, limits: Limits) -> Option<u64> {
        let (at_ns, _) = self.points.back()?;
        (taken_ns.saturating_sub(*at_ns) <= limits.max_gap_ns).then_some(*at_ns)
    }

    /// Forgets everything: the next reading is a baseline.
    pub(super) fn clear(&mut self) {
        self.points.clear();
    }

    /// What the sample taken at `taken_ns` added; `None` where it has no valid reading.
    pub(super) fn fast(&self, taken_ns: u64) -> Option<Delta<C>> {
        let before = self.points.len().checked_sub(2)?;
        self.between(before, taken_ns)
    }

    /// What was added within at least `span_ns` up to the sample taken at `taken_ns`, by the fewest readings that reach back
    /// so far; `None` where none do, or where the sample has no valid reading.
    pub(super) fn over(&self, taken_ns: u64, span_ns: u64) -> Option<Delta<C>> {
        let begin_ns = taken_ns.saturating_sub(span_ns);
        let from = self
            .points
            .iter()
            .rposition(|(at_ns, _)| *at_ns <= begin_ns)?;
        self.between(from, taken_ns)
    }

    /// What the slow window up to `taken_ns` added; `None` where the sample has no valid reading, or
    /// where the readings reach back over less than half of the window.
    pub(super) fn slow(&self, taken_ns: u64, limits: Limits) -> Option<Delta<C>> {
        self.between(0, taken_ns)
            .filter(|delta| delta.span_ns >= limits.window_ns / 2)
    }

    /// From one of the points to the newest, if that is of `taken_ns`.
    fn between(&self, from: usize, taken_ns: u64) -> Option<Delta<C>> {
        let (from_ns, earlier) = self.points.get(from)?;
        let (to_ns, value) = self.points.back()?;
        let span_ns = to_ns.saturating_sub(*from_ns);
        if *to_ns != taken_ns || span_ns == 0 {
            return None;
        }
        value.since(earlier).map(|amount| Delta { amount, span_ns })
    }
}

/// The bounds of [`super::Config`], in nanoseconds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Longest time between two readings that still make a step.
    pub(super) max_gap_ns: u64,
    /// Length of the slow window.
    pub(super) window_ns: u64,
}

/// Upper bound of a quantile of a histogram by powers of two; `None` where nothing was counted.
pub(super) fn quantile(histogram: &[u64], permille: u64) -> Option<u64> {
    let total = histogram.iter().fold(0u64, |sum, n| sum.saturating_add(*n));
    if total == 0 {
        return None;
    }
    let rank = u128::from(total) * u128::from(permille);
    let mut seen = 0u128;
    for (bucket, count) in histogram.iter().enumerate() {
        seen += u128::from(*count) * 1000;
        if *count > 0 && seen >= rank {
            return Some(1u64 << (bucket + 1));
        }
    }
    Some(1u64 << histogram.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits {
        max_gap_ns: 1_000,
        window_ns: 1_000,
    };

    #[test]
    fn a_missing_reading_widens_the_next_step_and_loses_nothing() {
        let mut track = Track::default();
        track.push(100, Some(10u64), LIMITS);
        track.push(200, None, LIMITS);
        assert_eq!(track.fast(200), None);
        track.push(300, Some(40), LIMITS);
        let delta = track.fast(300).unwrap();
        assert_eq!((delta.amount, delta.span_ns), (30, 200));
    }

    #[test]
    fn the_slow_window_holds_a_second_and_half_of_one_is_enough() {
        let mut track = Track::default();
        for i in 0..=40u64 {
            track.push(1 + i * 100, Some(i * 7), LIMITS);
            let slow = track.slow(1 + i * 100, LIMITS);
            assert_eq!(slow.is_some(), i >= 5, "at {i}");
            if i > 12 {
                let slow = slow.unwrap();
                assert_eq!((slow.amount, slow.span_ns), (70, 1_000));
            }
        }
    }

    #[test]
    fn a_span_is_reached_by_the_fewest_readings() {
        let mut track = Track::default();
        for (at, value) in [(100, 1u64), (180, 2), (200, 4), (220, 8)] {
            track.push(at, Some(value), LIMITS);
        }
        let over = |span_ns| {
            track
                .over(220, span_ns)
                .map(|delta| (delta.amount, delta.span_ns))
        };
        assert_eq!(over(10), Some((4, 20)));
        assert_eq!(over(20), Some((4, 20)));
        assert_eq!(over(21), Some((6, 40)));
        assert_eq!(over(100), Some((7, 120)));
        assert_eq!(over(121), None, "not that far back");
        assert!(track.over(230, 10).is_none(), "of another sample");
    }

    #[test]
    fn quantiles_are_upper_bounds_of_the_bucket_that_holds_them() {
        let mut histogram = [0; super::super::RUN_QUEUE_BUCKETS];
        assert_eq!(quantile(&histogram, 990), None);
        histogram[10] = 98;
        histogram[20] = 2;
        assert_eq!(quantile(&histogram, 500), Some(1 << 11));
        assert_eq!(quantile(&histogram, 980), Some(1 << 11));
        assert_eq!(quantile(&histogram, 990), Some(1 << 21));
        histogram[35] = 1_000_000;
        assert_eq!(quantile(&histogram, 990), Some(1 << 36));
    }
}
