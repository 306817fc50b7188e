//! One order of need as it changes during a round.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::fmt;
use std::iter::Peekable;

use ebb_types::Quantities;
use imbl::OrdSet;
use imbl::shared_ptr::DefaultSharedPtr;

use crate::core::drf::{Place, Sums};

/// An order of need that reads the snapshot's order no further than it is asked for.
///
/// Invariants: everyone is in one of `upcoming` (not looked at yet), `waiting` and `seen` (looked at
/// since the last rewind). Places there may be those of earlier, but places only move back: so who
/// comes first with the place that it has now is the neediest.
pub(super) struct Queue<'a, N: Ord> {
    upcoming: Peekable<imbl::ordset::Iter<'a, Place<N>, DefaultSharedPtr>>,
    waiting: BinaryHeap<Reverse<Place<&'a N>>>,
    seen: Vec<Place<&'a N>>,
    /// Those who were charged: their place now and what they hold.
    charged: BTreeMap<u32, (Place<&'a N>, Sums)>,
}

impl<'a, N: Ord> Queue<'a, N> {
    pub(super) fn new(order: &'a OrdSet<Place<N>>) -> Self {
        Self {
            upcoming: order.iter().peekable(),
            waiting: BinaryHeap::new(),
            seen: Vec::new(),
            charged: BTreeMap::new(),
        }
    }

    /// Starts again with the neediest.
    pub(super) fn rewind(&mut self) {
        while let Some(place) = self.seen.pop() {
            let now = self
                .charged
                .get(&place.index())
                .map_or(place, |(now, _)| *now);
            self.waiting.push(Reverse(now));
        }
    }

    /// The next in the order of need.
    pub(super) fn next(&mut self) -> Option<u32> {
        loop {
            let first = self.pop()?;
            match self.charged.get(&first.index()) {
                Some((now, _)) if now.allocations() != first.allocations() => {
                    self.waiting.push(Reverse(*now));
                }
                _ => {
                    self.seen.push(first);
                    return Some(first.index());
                }
            }
        }
    }

    fn pop(&mut self) -> Option<Place<&'a N>> {
        let upcoming = self.upcoming.peek().map(|place| place.by_ref());
        let waiting = self.waiting.peek().map(|place| place.0);
        match (upcoming, waiting) {
            (Some(upcoming), Some(waiting)) if waiting < upcoming => {
                self.waiting.pop().map(|place| place.0)
            }
            (None, _) => self.waiting.pop().map(|place| place.0),
            (upcoming, _) => {
                self.upcoming.next();
                upcoming
            }
        }
    }

    /// Adds to what a claimant holds, whose place in the snapshot is `place`.
    pub(super) fn charge(
        &mut self,
        place: &'a Place<N>,
        held: &Sums,
        part: &Quantities,
        cluster: &Sums,
        weight_milli: u32,
    ) {
        let index = place.index();
        let (now, held) = self
            .charged
            .entry(index)
            .or_insert_with(|| (place.by_ref(), *held));
        held.add(part);
        let allocations = now.allocations().saturating_add(1);
        *now = Place::new(held, allocations, cluster, weight_milli, *now.name(), index);
    }
}

impl<N: Ord + fmt::Debug> fmt::Debug for Queue<'_, N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Queue")
            .field("seen", &self.seen)
            .field("charged", &self.charged)
            .finish_non_exhaustive()
    }
}
