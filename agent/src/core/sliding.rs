//! The extreme of a value over a sliding window, in constant time a sample.
//!
//! Times are in milliseconds. The window is cut into [`SLOTS`] slots, so that it holds at most one
//! entry a slot however often it is fed; a value leaves the window at most one slot late. Time that
//! runs backwards is taken to stand still.

use std::collections::VecDeque;

use ebb_types::Timestamp;

/// Slots of a window, and so most entries that are kept.
const SLOTS: u64 = 64;

/// Which extreme is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Extreme {
    /// The smallest value.
    Min,
    /// The largest value.
    Max,
}

/// The extreme of what was pushed within the window.
#[derive(Clone, Debug)]
pub(super) struct Sliding {
    extreme: Extreme,
    window_ms: u64,
    /// Slot and value; from front to back later, and further from the extreme.
    entries: VecDeque<(u64, u64)>,
}

impl Sliding {
    /// An empty window.
    pub(super) fn new(extreme: Extreme, window_ms: u64) -> Self {
        Self {
            extreme,
            window_ms,
            entries: VecDeque::new(),
        }
    }

    /// Takes a value in and gives the extreme of the window that ends now.
    pub(super) fn push(&mut self, now: Timestamp, value: u64) -> u64 {
        let slot_ms = (self.window_ms / SLOTS).max(1);
        let newest = self.entries.back().map_or(0, |(slot, _)| *slot);
        let slot = (now.as_ms() / slot_ms).max(newest);
        let extreme = self.extreme;
        let beaten = |old: u64| match extreme {
            Extreme::Min => value <= old,
            Extreme::Max => value >= old,
        };
        while self.entries.back().is_some_and(|(_, old)| beaten(*old)) {
            self.entries.pop_back();
        }
        // An entry of the same slot that is nearer to the extreme stands for this one too.
        if self.entries.back().is_none_or(|(old, _)| *old < slot) {
            self.entries.push_back((slot, value));
        }
        let kept_slots = self.window_ms.div_ceil(slot_ms);
        while self
            .entries
            .front()
            .is_some_and(|(old, _)| slot - *old > kept_slots)
        {
            self.entries.pop_front();
        }
        self.entries.front().map_or(value, |(_, value)| *value)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_never_misses_what_is_in_the_window_and_stays_small(
            steps in prop::collection::vec((0u64..300, 0u64..1000), 1..300)
        ) {
            let mut min = Sliding::new(Extreme::Min, 6_400);
            let mut max = Sliding::new(Extreme::Max, 6_400);
            let (mut now, mut seen) = (1_000u64, Vec::new());
            for (gap, value) in steps {
                now += gap;
                seen.push((now, value));
                let within = |slack: u64| {
                    seen.iter().filter(move |(at, _)| at + 6_400 + slack >= now).map(|(_, v)| *v)
                };
                let low = min.push(Timestamp::from_ms(now), value);
                let high = max.push(Timestamp::from_ms(now), value);
                // At least the window, at most a slot or two more.
                prop_assert!(Some(low) <= within(0).min() && Some(low) >= within(200).min());
                prop_assert!(Some(high) >= within(0).max() && Some(high) <= within(200).max());
                prop_assert!(min.entries.len() <= 66 && max.entries.len() <= 66);
            }
        }
    }
}
