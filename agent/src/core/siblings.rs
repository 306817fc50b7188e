//! What to expect of a task that has not shown itself, by what others of its class have used before it.
//!
//! **Problem.** A task counts what it is allocated until it has been watched for a while. Where tasks are short that is for
//! all of their lives, and nothing of what they leave idle is ever lent.
//!
//! **Rule.** If enough tasks of its class have come and gone, a new one counts the most that any of the class has used, with
//! the margin of a task's own peaks, as long as it asks for no more than they did and is not older than twice what they
//! became in the mean: beyond that it is another thing than they were. What it uses itself counts at once, as ever.
//!
//! Of a task that nobody said the end of, the end is expected as well: once [`ENOUGH_LIVES`] of its class have finished, a
//! new one is taken to have ended when it is as old as the oldest of them became. Who is older than that has shown that he
//! is not like them, and no end of his is known any more; so nobody is taken for ended who is not.
//!
//! **Budget.** If lives are alike, the next one goes beyond the most of `n` earlier ones in one of `n + 1` cases, and
//! beyond that and the margin less often. CPU is taken back within milliseconds, so [`KindConfig::siblings`](super::estimator::KindConfig::siblings) is small for
//! it; memory comes back only by ending its user, and no end is counted on for it. By the same reckoning one in
//! [`ENOUGH_LIVES`] and one outlives what was expected; CPU is back from it within milliseconds then, too.

use ebb_types::{Quantities, ResourceKind, Timestamp};

use super::permille::plus_permille;

/// How much older than its class in the mean a task may be.
const OLDEST_OF_MEAN: u64 = 2;

/// So many of a class must have finished before an end is expected of the next.
pub const ENOUGH_LIVES: u64 = 20;

/// What was known of a task's class when it began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Siblings {
    /// Tasks of the class that have ended.
    pub ended: u64,
    /// How long one of them was there in the mean, in milliseconds.
    pub life_ms: u64,
    /// What the last one asked for.
    pub asked: Quantities,
    /// The most that one has used; nothing of what is not known.
    pub most: Quantities,
    /// Tasks of the class that ended by themselves and well.
    pub finished: u64,
    /// The longest that one of them had run, in milliseconds.
    pub longest_ms: u64,
}

impl Siblings {
    /// When a task that began then can be expected to have ended, at the latest; none where they say nothing of it, or not
    /// any more.
    pub fn end(&self, began: Timestamp, now: Timestamp) -> Option<Timestamp> {
        let end = began.plus_ms(self.longest_ms);
        (self.finished >= ENOUGH_LIVES && end > now).then_some(end)
    }

    /// What to expect of a task of this age that is allocated so much, with so many thousandths of margin, if at least so
    /// many have ended; none where they say nothing of it.
    pub(super) fn expect(
        &self,
        kind: ResourceKind,
        allocated: u64,
        age_ms: u64,
        (least, margin_permille): (u64, u64),
    ) -> Option<u64> {
        let is_known = self.ended >= least.max(1) && self.most.get(kind) > 0;
        let is_alike = allocated <= self.asked.get(kind)
            && age_ms <= self.life_ms.saturating_mul(OLDEST_OF_MEAN);
        let expected = plus_permille(self.most.get(kind), margin_permille);
        (is_known && is_alike).then_some(expected.min(allocated))
    }
}
