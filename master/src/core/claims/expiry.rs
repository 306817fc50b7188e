//! When which refusal ends: all that end at one moment stand together, so a round of declines with the same time adds
//! to one list.
//!
//! A refusal that was withdrawn stays in its list until then, or until as many are void as are not, when all lists are
//! cleaned: so the price of each is constant and the memory bounded.

use std::collections::BTreeMap;

use ebb_types::Timestamp;

/// A refusal: who refused which agent.
pub(super) type Pair = (u32, u32);

/// Void ones are not cleaned out below this number.
const MIN_VOID: usize = 1024;

#[derive(Clone, Debug, Default)]
pub(super) struct Expiries {
    /// The list that was added to last, as most often it is added to next.
    last: (Timestamp, Vec<Pair>),
    /// The others; none of them is empty.
    lists: BTreeMap<Timestamp, Vec<Pair>>,
    len: usize,
}

impl Expiries {
    /// Adds a refusal. `live` is how many there are, of which `is_live` tells.
    pub(super) fn add(
        &mut self,
        at: Timestamp,
        pair: Pair,
        live: usize,
        is_live: impl Fn(Timestamp, Pair) -> bool,
    ) {
        if self.last.0 != at {
            self.put_last_away();
            self.last = (at, self.lists.remove(&at).unwrap_or_default());
        }
        self.last.1.push(pair);
        self.len += 1;
        if self.len > 2 * live + MIN_VOID {
            self.put_last_away();
            self.lists.retain(|at, pairs| {
                pairs.sort_unstable();
                pairs.dedup();
                pairs.retain(|pair| is_live(*at, *pair));
                !pairs.is_empty()
            });
            self.len = self.lists.values().map(Vec::len).sum();
        }
    }

    fn put_last_away(&mut self) {
        let (at, pairs) = std::mem::take(&mut self.last);
        if !pairs.is_empty() {
            self.lists.insert(at, pairs);
        }
    }

    /// Takes out a list that has expired, with its time.
    pub(super) fn pop(&mut self, now: Timestamp) -> Option<(Timestamp, Vec<Pair>)> {
        if self.last.0 <= now {
            self.put_last_away();
        }
        let first = self.lists.first_entry()?;
        if *first.key() > now {
            return None;
        }
        let (at, pairs) = first.remove_entry();
        self.len -= pairs.len();
        Some((at, pairs))
    }

    /// When the next may end.
    pub(super) fn next(&self) -> Option<Timestamp> {
        let last = (!self.last.1.is_empty()).then_some(self.last.0);
        let first = self.lists.first_key_value().map(|(at, _)| *at);
        first.into_iter().chain(last).min()
    }
}
