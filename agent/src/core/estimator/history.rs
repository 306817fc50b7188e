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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn config() -> KindConfig {
        KindConfig {
            block_ms: 100,
            blocks: 20,
            warm_blocks: 5,
            quantile_permille: 900,
            ..super::super::Config::default().cpus
        }
    }

    proptest! {
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
