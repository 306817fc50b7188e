//! Ranges of whole numbers, such as ports.
//!
//! Invariants: the ranges are in order, overlap nowhere, and two that touch are one.

use std::fmt;

use crate::limits::MAX_RANGES;

/// A set of whole numbers, written as ranges that include both of their ends.
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ranges(Vec<(u64, u64)>);

impl Ranges {
    /// The numbers of all given ranges, which may overlap; nothing where one ends before it begins or where they make
    /// more than [`MAX_RANGES`].
    pub fn new(ranges: impl IntoIterator<Item = (u64, u64)>) -> Option<Self> {
        let mut ranges: Vec<(u64, u64)> = ranges.into_iter().collect();
        if ranges.iter().any(|(begin, end)| begin > end) {
            return None;
        }
        ranges.sort_unstable();
        let mut merged: Vec<(u64, u64)> = Vec::with_capacity(ranges.len());
        for (begin, end) in ranges {
            match merged.last_mut() {
                Some(last) if begin <= last.1.saturating_add(1) => last.1 = last.1.max(end),
                _ => merged.push((begin, end)),
            }
        }
        (merged.len() <= MAX_RANGES).then_some(Self(merged))
    }

    /// The ranges in order.
    pub fn iter(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        self.0.iter().copied()
    }

    /// How many ranges they are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is no number.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many numbers they hold.
    pub fn count(&self) -> u64 {
        let lengths = self
            .iter()
            .map(|(begin, end)| (end - begin).saturating_add(1));
        lengths.fold(0, u64::saturating_add)
    }

    /// The first so many ranges.
    #[must_use]
    pub fn first(&self, most: usize) -> Self {
        Self(self.0.iter().take(most).copied().collect())
    }

    /// The first so many numbers.
    #[must_use]
    pub fn first_numbers(&self, most: u64) -> Self {
        let mut left = most;
        let mut first = Vec::new();
        for (begin, end) in self.iter() {
            if left == 0 {
                break;
            }
            let end = end.min(begin.saturating_add(left - 1));
            left -= (end - begin).saturating_add(1).min(left);
            first.push((begin, end));
        }
        Self(first)
    }

    /// Whether every number of `other` is in them.
    pub fn contains(&self, other: &Self) -> bool {
        other.iter().all(|(begin, end)| {
            let after = self.0.partition_point(|(first, _)| *first <= begin);
            after > 0 && self.0[after - 1].1 >= end
        })
    }

    /// Whether no number is in both.
    pub fn is_disjoint(&self, other: &Self) -> bool {
        let (mut a, mut b) = (self.iter().peekable(), other.iter().peekable());
        while let (Some(x), Some(y)) = (a.peek(), b.peek()) {
            if x.1 < y.0 {
                a.next();
            } else if y.1 < x.0 {
                b.next();
            } else {
                return false;
            }
        }
        true
    }

    /// The numbers of both; nothing where one is in both, or where they make too many ranges.
    pub fn checked_add(&self, other: &Self) -> Option<Self> {
        if !self.is_disjoint(other) {
            return None;
        }
        Self::new(self.iter().chain(other.iter()))
    }

    /// The numbers that are not in `other`.
    #[must_use]
    pub fn without(&self, other: &Self) -> Self {
        let mut left = Vec::with_capacity(self.0.len());
        for (begin, end) in self.iter() {
            let mut from = Some(begin);
            let start = other.0.partition_point(|(_, last)| *last < begin);
            for (first, last) in other.0[start..].iter().copied() {
                let Some(at) = from.filter(|_| first <= end) else {
                    break;
                };
                if first > at {
                    left.push((at, first - 1));
                }
                from = last.checked_add(1).filter(|next| *next <= end);
            }
            left.extend(from.map(|at| (at, end)));
        }
        Self(left)
    }
}

impl fmt::Display for Ranges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[")?;
        for (index, (begin, end)) in self.iter().enumerate() {
            let comma = if index > 0 { "," } else { "" };
            write!(f, "{comma}{begin}-{end}")?;
        }
        f.write_str("]")
    }
}

impl fmt::Debug for Ranges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn numbers() -> impl Strategy<Value = BTreeSet<u64>> {
        let edge = prop_oneof![0..24u64, (u64::MAX - 8)..=u64::MAX];
        prop::collection::btree_set(edge, 0..16)
    }

    fn ranges(numbers: &BTreeSet<u64>) -> Ranges {
        Ranges::new(numbers.iter().map(|number| (*number, *number))).expect("few")
    }

    fn set(ranges: &Ranges) -> BTreeSet<u64> {
        ranges.iter().flat_map(|(begin, end)| begin..=end).collect()
    }

    proptest! {
        #[test]
        fn ranges_are_sets_of_numbers(a in numbers(), b in numbers()) {
            let (x, y) = (ranges(&a), ranges(&b));
            prop_assert_eq!(set(&x), a.clone());
            prop_assert_eq!(x.count(), a.len() as u64);
            prop_assert_eq!(x.contains(&y), a.is_superset(&b));
            prop_assert_eq!(x.is_disjoint(&y), a.is_disjoint(&b));
            let without = x.without(&y);
            prop_assert_eq!(&without, &ranges(&(&a - &b)));
            match x.checked_add(&y) {
                Some(sum) => {
                    prop_assert!(a.is_disjoint(&b));
                    prop_assert_eq!(sum, ranges(&(&a | &b)));
                }
                None => prop_assert!(!a.is_disjoint(&b)),
            }
        }
    }

    #[test]
    fn wrong_or_too_many_ranges_are_none() {
        assert_eq!(Ranges::new([(2, 1)]), None);
        let many = |count: u64| Ranges::new((0..count).map(|at| (2 * at, 2 * at)));
        assert!(many(MAX_RANGES as u64).is_some());
        assert_eq!(many(MAX_RANGES as u64 + 1), None);
        let all = Ranges::new([(0, u64::MAX)]).expect("one");
        assert_eq!(all.count(), u64::MAX);
        assert!(all.without(&all).is_empty());
    }
}
