//! How much of the time something was used how much: a histogram that can be added up and that forgets.
//!
//! **Problem.** What a class of tasks uses is seen on many machines, a part on each. Percentiles cannot be averaged;
//! histograms can be added up. They must stay small, whatever is measured, and old use must count less than new.
//!
//! **Way.** Each octave has `STEPS` buckets of equal width, as in HDR histograms; below `2 × STEPS` each number has its
//! own. A percentile is the middle of its bucket. A weight is a time, in milliseconds, and halves in
//! [`HALF_LIFE_HOURS`], as in Kubernetes' Vertical Pod Autoscaler, in steps of an hour.
//!
//! **Invariants.** A percentile is within 1/32 (3.2 %) of a value that was really used, as long as no more than
//! `MAX_BUCKETS` buckets are in use; what comes to a full histogram counts for the next bucket above, or the last.
//! Buckets stand in ascending order, each once, none without weight. As long as none is full, what is added up in any order
//! is the same.
//!
//! **Price.** A search among at most 256 buckets for a value; 16 bytes a bucket; integers only.

/// Buckets in an octave.
const STEPS: u64 = 1 << STEP_BITS;
const STEP_BITS: u32 = 4;
/// The largest value that is told from larger ones: 2^50, a pebibyte.
const MAX_VALUE: u64 = 1 << 50;
/// How many buckets there can be.
const BUCKETS: u16 = bucket_of(MAX_VALUE) + 1;
/// Most buckets of one histogram: fourteen octaves and all small values, as from nothing to 500 cores, or from 64 KiB to
/// 4 TiB.
const MAX_BUCKETS: usize = 256;
/// In so many hours a weight halves.
pub const HALF_LIFE_HOURS: u64 = 24;
/// What is left of a weight after an hour, 2^(-1/24), in parts of 2^32.
const HOUR_LEFT: u128 = 4_172_697_914;

/// Times by how much was used.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Histogram {
    /// Bucket and weight.
    weights: Vec<(u16, u64)>,
}

const fn bucket_of(value: u64) -> u16 {
    let value = if value > MAX_VALUE { MAX_VALUE } else { value };
    if value < STEPS {
        return value as u16;
    }
    let octave = value.ilog2() - STEP_BITS;
    let step = (value >> octave) - STEPS;
    ((octave as u64 + 1) * STEPS + step) as u16
}

/// The value that stands for a bucket: its middle.
fn middle_of(bucket: u16) -> u64 {
    let bucket = u64::from(bucket);
    if bucket < STEPS {
        return bucket;
    }
    let octave = bucket / STEPS - 1;
    let lowest = (STEPS + bucket % STEPS) << octave;
    lowest + ((1 << octave) - 1) / 2
}

/// What is left of a weight after so many hours.
pub(super) fn faded(weight: u64, hours: u64) -> u64 {
    let halvings = u32::try_from(hours / HALF_LIFE_HOURS).unwrap_or(u32::MAX);
    let mut left = u128::from(weight.checked_shr(halvings).unwrap_or(0));
    for _ in 0..hours % HALF_LIFE_HOURS {
        left = (left * HOUR_LEFT) >> 32;
    }
    // It has only become less.
    u64::try_from(left).unwrap_or(weight)
}

impl Histogram {
    /// Of buckets and weights as [`Histogram::buckets`] gives them; none if they cannot be that.
    pub fn from_buckets(weights: Vec<(u16, u64)>) -> Option<Self> {
        let in_order = weights.is_sorted_by(|a, b| a.0 < b.0);
        let known = weights
            .iter()
            .all(|(bucket, weight)| *bucket < BUCKETS && *weight > 0);
        (in_order && known && weights.len() <= MAX_BUCKETS).then_some(Self { weights })
    }

    /// The buckets that are in use, in ascending order, with their weights.
    pub fn buckets(&self) -> &[(u16, u64)] {
        &self.weights
    }

    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.weights.is_empty()
    }

    /// Takes in that `value` was used for `weight` milliseconds.
    pub fn add(&mut self, value: u64, weight: u64) {
        if weight > 0 {
            self.add_to(bucket_of(value), weight);
        }
    }

    fn add_to(&mut self, bucket: u16, weight: u64) {
        let at = match self.weights.binary_search_by_key(&bucket, |(b, _)| *b) {
            Ok(at) => at,
            Err(at) if self.weights.len() < MAX_BUCKETS => {
                self.weights.insert(at, (bucket, weight));
                return;
            }
            Err(at) => at.min(MAX_BUCKETS - 1),
        };
        if let Some((_, sum)) = self.weights.get_mut(at) {
            *sum = sum.saturating_add(weight);
        }
    }

    /// Takes in all of another one.
    pub fn merge(&mut self, other: &Self) {
        for (bucket, weight) in &other.weights {
            self.add_to(*bucket, *weight);
        }
    }

    /// So many hours pass.
    pub fn fade(&mut self, hours: u64) {
        for (_, weight) in &mut self.weights {
            *weight = faded(*weight, hours);
        }
        self.weights.retain(|(_, weight)| *weight > 0);
    }

    /// The weights added up, in milliseconds.
    pub fn total_ms(&self) -> u64 {
        let weights = self.weights.iter().map(|(_, weight)| *weight);
        weights.fold(0, u64::saturating_add)
    }

    /// What was not passed in so many thousandths of the time; none while nothing is known.
    pub fn percentile(&self, permille: u64) -> Option<u64> {
        let total: u128 = self.weights.iter().map(|(_, w)| u128::from(*w)).sum();
        let wanted = (total * u128::from(permille.min(1_000))).div_ceil(1_000);
        let mut sum = 0;
        let bucket = self.weights.iter().find(|(_, weight)| {
            sum += u128::from(*weight);
            sum >= wanted
        });
        bucket.map(|(bucket, _)| middle_of(*bucket))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(samples: &[(u64, u64)]) -> Histogram {
        let mut histogram = Histogram::default();
        for (value, weight) in samples {
            histogram.add(*value, *weight);
        }
        histogram
    }

    /// Values of all magnitudes, as often small as large.
    fn values() -> impl Strategy<Value = u64> {
        (0u32..50, any::<u64>()).prop_map(|(bits, value)| value % (1 << (bits + 1)))
    }

    /// Samples within fourteen octaves, so that no histogram is full.
    fn samples() -> impl Strategy<Value = Vec<(u64, u64)>> {
        prop::collection::vec((0u64..200_000, 1u64..2_000), 1..200)
    }

    proptest! {
        #[test]
        fn a_percentile_is_within_a_thirty_second_of_the_one_of_sorted_samples(
            samples in samples(), permille in 1u64..=1_000
        ) {
            let mut sorted = samples.clone();
            sorted.sort_unstable();
            let total: u64 = sorted.iter().map(|(_, weight)| weight).sum();
            let wanted = (total * permille).div_ceil(1_000);
            let mut sum = 0;
            let exact = sorted.iter().find(|(_, weight)| {
                sum += weight;
                sum >= wanted
            });
            let exact = exact.expect("there are samples").0;
            let found = of(&samples).percentile(permille).expect("there are samples");
            prop_assert!(found.abs_diff(exact) * 32 <= exact, "{found} for {exact}");
        }

        #[test]
        fn the_middle_of_each_values_bucket_is_within_a_thirty_second_of_it(value in values()) {
            let middle = middle_of(bucket_of(value));
            prop_assert!(middle.abs_diff(value) * 32 <= value, "{middle} for {value}");
            prop_assert!(bucket_of(value) <= bucket_of(value + 1));
            prop_assert_eq!(bucket_of(middle), bucket_of(value));
        }

        #[test]
        fn what_is_merged_is_what_one_that_has_seen_all_would_hold(
            a in samples(), b in samples(), c in samples()
        ) {
            let union = of(&[a.clone(), b.clone(), c.clone()].concat());
            let (mut forth, mut back) = (of(&a), of(&c));
            forth.merge(&of(&b));
            forth.merge(&of(&c));
            back.merge(&of(&b));
            back.merge(&of(&a));
            prop_assert_eq!(&forth, &union);
            prop_assert_eq!(&back, &union);
        }

        #[test]
        fn whatever_comes_it_stays_small_in_order_and_loses_no_weight(
            samples in prop::collection::vec((values(), 1u64..1_000), 0..2_000)
        ) {
            let histogram = of(&samples);
            prop_assert!(histogram.buckets().len() <= MAX_BUCKETS);
            let total: u64 = samples.iter().map(|(_, weight)| weight).sum();
            prop_assert_eq!(histogram.buckets().iter().map(|(_, w)| w).sum::<u64>(), total);
            prop_assert_eq!(Histogram::from_buckets(histogram.buckets().to_vec()), Some(histogram));
        }

        #[test]
        fn what_fades_hour_by_hour_fades_as_it_does_at_once(
            samples in samples(), hours in 0u64..100
        ) {
            let (mut at_once, mut by_hours) = (of(&samples), of(&samples));
            at_once.fade(hours);
            (0..hours).for_each(|_| by_hours.fade(1));
            let weight = |one: &Histogram| one.buckets().iter().map(|(_, w)| w).sum::<u64>();
            let (at_once, by_hours) = (weight(&at_once), weight(&by_hours));
            // Each step rounds each bucket down by less than one.
            prop_assert!(at_once.abs_diff(by_hours) <= 200 * 40, "{at_once} {by_hours}");
        }
    }

    #[test]
    fn a_weight_halves_in_a_day_and_is_gone_in_the_end() {
        let mut histogram = of(&[(500, 1 << 30)]);
        histogram.fade(12);
        let left = histogram.buckets()[0].1;
        assert!(left.abs_diff(759_250_125) < 100, "{left}");
        histogram.fade(12);
        let left = histogram.buckets()[0].1;
        assert!(left.abs_diff(1 << 29) < 100, "{left}");
        histogram.fade(31 * 24);
        assert!(histogram.is_empty());
        assert_eq!(histogram.percentile(950), None);
        let mut histogram = of(&[(500, u64::MAX)]);
        histogram.fade(u64::MAX);
        assert!(histogram.is_empty());
    }

    #[test]
    fn new_use_outweighs_old_use_of_the_same_length() {
        let mut histogram = of(&[(1_000, 3_600_000)]);
        histogram.fade(48);
        histogram.add(100, 3_600_000);
        assert_eq!(histogram.percentile(500), Some(middle_of(bucket_of(100))));
        // A fifth of the weight is old.
        assert_eq!(histogram.percentile(790), Some(middle_of(bucket_of(100))));
        assert_eq!(histogram.percentile(810), Some(middle_of(bucket_of(1_000))));
    }

    #[test]
    fn what_comes_to_a_full_one_counts_for_the_next_above_or_the_last() {
        let full: Vec<(u16, u64)> = (0..MAX_BUCKETS as u16).map(|n| (2 * n + 1, 1)).collect();
        let mut histogram = Histogram::from_buckets(full).expect("it is full and good");
        histogram.add(0, 7);
        histogram.add(MAX_VALUE, 9);
        assert_eq!(histogram.buckets().len(), MAX_BUCKETS);
        assert_eq!(histogram.buckets()[0], (1, 8));
        assert_eq!(histogram.buckets()[MAX_BUCKETS - 1], (511, 10));
    }

    #[test]
    fn buckets_that_cannot_be_are_refused() {
        for bad in [
            vec![(1, 1), (1, 1)],
            vec![(2, 1), (1, 1)],
            vec![(1, 0)],
            vec![(BUCKETS, 1)],
            (0..=MAX_BUCKETS as u16).map(|bucket| (bucket, 1)).collect(),
        ] {
            assert_eq!(Histogram::from_buckets(bad.clone()), None, "{bad:?}");
        }
    }

    #[test]
    fn sums_end_at_the_largest_number() {
        let mut histogram = of(&[(1, u64::MAX), (1, 1), (2, u64::MAX)]);
        histogram.merge(&histogram.clone());
        assert_eq!(histogram.percentile(500), Some(1));
        assert_eq!(histogram.percentile(1_000), Some(2));
    }
}
