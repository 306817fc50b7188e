//! What a task used, as a sliding window of blocks of which each keeps its maximum.
//!
//! Blocks are pruned by time, not by count: after a gap the old ones are gone, and the task is cold
//! again if too few are left.

use std::collections::VecDeque;

use ebb_types::Timestamp;

use super::KindConfig;

/// The window of one task and kind.
#[derive(Clone, Debug, Default)]
pub(super) struct History {
    /// The number of the block that is being filled, and its maximum.
    open: Option<(u64, u64)>,
    /// Number and maximum of each block before, oldest first.
    closed: VecDeque<(u64, u64)>,
    /// The same maxima in ascending order.
    sorted: Vec<u64>,
}

impl History {
    /// Takes a measured value in.
    pub(super) fn push(&mut self, now: Timestamp, value: u64, config: &KindConfig) {
        let block = now.as_ms() / config.block_ms.max(1);
        match self.open {
            Some((open, max)) if block > open => {
                self.closed.push_back((open, max));
                let at = self.sorted.partition_point(|other| *other < max);
                self.sorted.insert(at, max);
                self.open = Some((block, value));
            }
            Some((open, max)) => self.open = Some((open, max.max(value))),
            None => self.open = Some((block, value)),
        }
        while let Some((oldest, max)) = self.closed.front().copied() {
            if oldest.saturating_add(config.blocks) >= block {
                break;
            }
            self.closed.pop_front();
            let at = self.sorted.partition_point(|other| *other < max);
            self.sorted.remove(at);
        }
    }

    /// The quantile of the window, the block that is being filled included whole; `None` while the
    /// task is cold.
    pub(super) fn quantile(&self, config: &KindConfig) -> Option<u64> {
        let count = self.sorted.len() as u64;
        if count < config.warm_blocks.max(1) {
            return None;
        }
        let rank = (count * config.quantile_permille.min(1000)).div_ceil(1000);
        let index = usize::try_from(rank.saturating_sub(1)).ok()?;
        let seen = *self.sorted.get(index)?;
        Some(seen.max(self.open.map_or(0, |(_, max)| max)))
    }
}

impl History {
    /// Like [`Self::quantile`], but so many of the highest blocks are left out from the start as when the window is full
    /// (no more than a tenth of those there are). For what may be underestimated for a moment.
    pub(super) fn without_outliers(&self, config: &KindConfig) -> Option<u64> {
        let count = self.sorted.len() as u64;
        if count < config.warm_blocks.max(1) {
            return None;
        }
        let outliers = config.blocks * (1000 - config.quantile_permille.min(1000)) / 1000;
        let kept = count - outliers.min(count / 10);
        let index = usize::try_from(kept.saturating_sub(1)).ok()?;
        let seen = *self.sorted.get(index)?;
        Some(seen.max(self.open.map_or(0, |(_, max)| max)))
    }
}

/// The largest value of late, which fades: half of it is left after [`HALF_LIFE_MS`].
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Fading {
    /// When it was looked at last, and what was left, in fixed point.
    left: Option<(Timestamp, u64)>,
}

/// See [`Fading`].
pub(super) const HALF_LIFE_MS: u64 = 30_000;
/// [`HALF_LIFE_MS`] over the natural logarithm of 2: in so long, `1/n` of it is lost in an `n`-th of the time.
const LIFE_MS: u64 = HALF_LIFE_MS * 1_443 / 1_000;
/// Binary places of the fixed point.
const FRACTION_BITS: u32 = 16;
/// Longest time that counts at once, in milliseconds: a pause is no reason to forget.
const MAX_STEP_MS: u64 = 1_000;

impl Fading {
    /// Takes a value in and gives what is left of the largest.
    pub(super) fn push(&mut self, now: Timestamp, value: u64) -> u64 {
        let value = value.min(u64::MAX >> FRACTION_BITS) << FRACTION_BITS;
        let left = match self.left {
            Some((before, old)) => {
                let passed_ms = now.ms_since(before).min(MAX_STEP_MS);
                let lost = u128::from(old) * u128::from(passed_ms) / u128::from(LIFE_MS);
                old.saturating_sub(u64::try_from(lost).unwrap_or(u64::MAX))
            }
            None => 0,
        };
        let left = left.max(value);
        self.left = Some((now, left));
        left.div_ceil(1 << FRACTION_BITS)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn config() -> KindConfig {
        KindConfig {
            block_ms: 100,
            blocks: 20,
            warm_blocks: 5,
            siblings: 1,
            quantile_permille: 900,
            ..super::super::Config::default().cpus
        }
    }

    #[test]
    fn a_value_fades_by_half_in_its_half_life_and_not_below_what_is_new() {
        let mut fading = Fading::default();
        let at = |ms: u64| Timestamp::from_ms(1_000_000 + ms);
        assert_eq!(fading.push(at(0), 2_000), 2_000);
        let mut left = Vec::new();
        for step in 1..=HALF_LIFE_MS / 50 {
            left.push(fading.push(at(step * 100), 10));
        }
        assert!(left.is_sorted_by(|a, b| a >= b), "{left:?}");
        let half = left[HALF_LIFE_MS as usize / 100 - 1];
        assert!((980..=1_020).contains(&half), "{half}");
        let quarter = left[HALF_LIFE_MS as usize / 50 - 1];
        assert!((480..=520).contains(&quarter), "{quarter}");
        // A pause forgets no more than a second does.
        assert!(fading.push(at(100 * HALF_LIFE_MS), 10) > 400);
        for step in 0..10_000 {
            fading.push(at(100 * HALF_LIFE_MS + step * 100), 10);
        }
        assert_eq!(fading.push(at(200 * HALF_LIFE_MS), 10), 10);
        assert_eq!(fading.push(at(200 * HALF_LIFE_MS), 700), 700);
    }

    proptest! {
        #[test]
        fn few_outliers_are_left_out_from_the_start_and_no_more_than_of_a_full_window(
            values in prop::collection::vec(0u64..1000, 1..60)
        ) {
            let config = config();
            let mut history = History::default();
            for (block, value) in values.iter().enumerate() {
                history.push(Timestamp::from_ms(block as u64 * 100), *value, &config);
            }
            let (open, closed) = values.split_last().unwrap();
            let mut window: Vec<u64> = closed[closed.len().saturating_sub(20)..].to_vec();
            window.sort_unstable();
            // A tenth of 20 blocks at a quantile of 90 %.
            let left_out = 2.min(window.len() / 10);
            let expected = (window.len() >= 5)
                .then(|| window[window.len() - 1 - left_out].max(*open));
            prop_assert_eq!(history.without_outliers(&config), expected);
        }

        #[test]
        fn the_quantile_is_the_one_that_a_sorted_copy_gives(
            steps in prop::collection::vec((0u64..250, 0u64..1000), 1..200)
        ) {
            let config = config();
            let mut history = History::default();
            let mut blocks = std::collections::BTreeMap::<u64, u64>::new();
            let mut now = 0;
            for (gap, value) in steps {
                now += gap;
                history.push(Timestamp::from_ms(now), value, &config);
                let block = now / 100;
                let max = blocks.entry(block).or_default();
                *max = (*max).max(value);
                let open = *max;
                let mut closed: Vec<u64> =
                    blocks.range(block.saturating_sub(20)..block).map(|(_, max)| *max).collect();
                closed.sort_unstable();
                let expected = (closed.len() >= 5)
                    .then(|| closed[(closed.len() * 900).div_ceil(1000) - 1].max(open));
                prop_assert_eq!(history.quantile(&config), expected);
                prop_assert!(history.closed.len() <= 20 && history.sorted.len() <= 20);
            }
        }
    }
}
