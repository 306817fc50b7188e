//! How many tasks of one framework may be ended in a window of time.
//!
//! A framework that loses many tasks at once makes no progress, however gently each was lent to. Beyond the budget its
//! tasks are held back and not ended, unless the machine is in danger: a machine without memory helps nobody. An end
//! that had to be is counted all the same.

use std::collections::{BTreeMap, VecDeque};

use ebb_types::{FrameworkId, Timestamp};

/// Most ends that are remembered of one framework: more than any budget.
pub const MAX_BUDGET: u32 = 1_000;

/// The ends of late, by framework.
#[derive(Clone, Debug, Default)]
pub(super) struct Budget(BTreeMap<FrameworkId, VecDeque<Timestamp>>);

impl Budget {
    /// Forgets what is older than the window.
    pub(super) fn pass(&mut self, now: Timestamp, window_ms: u64) {
        self.0.retain(|_, ends| {
            while ends
                .front()
                .is_some_and(|at| now.ms_since(*at) >= window_ms)
            {
                ends.pop_front();
            }
            !ends.is_empty()
        });
    }

    /// How many more tasks of a framework may be ended.
    pub(super) fn left(&self, framework_id: &FrameworkId, most: u32) -> u32 {
        let spent = self.0.get(framework_id).map_or(0, VecDeque::len);
        most.saturating_sub(u32::try_from(spent).unwrap_or(u32::MAX))
    }

    /// A task of it is ended.
    pub(super) fn spend(&mut self, framework_id: &FrameworkId, now: Timestamp) {
        let ends = self.0.entry(framework_id.clone()).or_default();
        if ends.len() >= MAX_BUDGET as usize {
            ends.pop_front();
        }
        ends.push_back(now);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn no_window_holds_more_ends_than_the_budget(
            waits_ms in prop::collection::vec(0u64..400, 1..200), most in 0u32..6
        ) {
            let framework = FrameworkId::new("f").unwrap();
            let (mut budget, mut now_ms, mut ended) = (Budget::default(), 1_000, Vec::new());
            for wait_ms in waits_ms {
                now_ms += wait_ms;
                let now = Timestamp::from_ms(now_ms);
                budget.pass(now, 1_000);
                if budget.left(&framework, most) > 0 {
                    budget.spend(&framework, now);
                    ended.push(now_ms);
                }
                let within = ended.iter().filter(|at| now_ms - **at < 1_000).count();
                prop_assert!(within <= most as usize, "{within} of {most}");
                // And it is not stingier than it need be.
                prop_assert!(most == 0 || within > 0 || budget.left(&framework, most) > 0);
            }
            prop_assert!(most == 0 || !ended.is_empty());
        }
    }
}
