//! Which offers of an agent are withdrawn so that something of it is free: as few as will do. Pure.
//!
//! Of several sets of the same size the one with the smallest ids is taken, so that the same is always done. Where more
//! than [`MAX_TRIED`] offers have something of what is needed, not all sets are tried: then none of those that are taken
//! could stay, but other ones might be fewer.

use ebb_types::OfferId;

use super::convert::Bag;

/// Most offers of which every set is tried.
const MAX_TRIED: usize = 12;

/// The offers to withdraw, so that what is needed is free; all that help, if that is not enough.
pub(super) fn fewest(free: Bag, needed: &Bag, offers: Vec<(OfferId, Bag)>) -> Vec<OfferId> {
    let helping: Vec<(OfferId, Bag)> = offers
        .into_iter()
        .filter(|(_, bag)| bag.helps(needed, &free))
        .collect();
    let is_enough = |taken: &[usize]| {
        let all = taken.iter().filter_map(|at| helping.get(*at));
        let all = all.fold(free.clone(), |sum, (_, bag)| sum.with(bag));
        all.contains(needed)
    };
    let taken = if helping.len() <= MAX_TRIED {
        (0..=helping.len()).find_map(|size| first_set(size, helping.len(), &is_enough))
    } else {
        Some(none_spare(helping.len(), &is_enough))
    };
    let taken = taken.unwrap_or_else(|| (0..helping.len()).collect());
    let ids = taken.into_iter().filter_map(|at| helping.get(at));
    ids.map(|(id, _)| id.clone()).collect()
}

/// The first set of so many of the numbers below `of` that is enough, in the order of dictionaries.
fn first_set(size: usize, of: usize, is_enough: &impl Fn(&[usize]) -> bool) -> Option<Vec<usize>> {
    let mut set: Vec<usize> = (0..size).collect();
    loop {
        if is_enough(&set) {
            return Some(set);
        }
        // The last that can rise does, and those behind it follow closely.
        let rising = (0..size).rev().find(|at| set[*at] < of - size + at)?;
        let next = set[rising] + 1;
        for (at, place) in set.iter_mut().enumerate().skip(rising) {
            *place = next + at - rising;
        }
    }
}

/// A set of which none can be left out.
fn none_spare(of: usize, is_enough: &impl Fn(&[usize]) -> bool) -> Vec<usize> {
    let mut set: Vec<usize> = (0..of).collect();
    for number in (0..of).rev() {
        let without: Vec<usize> = set.iter().copied().filter(|at| *at != number).collect();
        if is_enough(&without) {
            set = without;
        }
    }
    set
}

#[cfg(test)]
mod tests {
    use ebb_types::{Quantities, WrittenResources};
    use proptest::prelude::*;

    use super::*;

    fn bag((cpus, ports): (u64, u8), at: usize) -> Bag {
        // Each has ports of its own.
        let begin = at * 10;
        let ports = match ports {
            0 => String::new(),
            some => format!("ports:[{begin}-{}]", begin + usize::from(some) - 1),
        };
        Bag {
            plain: Quantities::cpus_mem(cpus, 0),
            lots: ports.parse::<WrittenResources>().unwrap().lots,
        }
    }

    fn id(number: usize) -> OfferId {
        OfferId::new(format!("o-{number:02}")).unwrap()
    }

    proptest! {
        #[test]
        fn as_few_as_will_do_are_withdrawn(
            offers in prop::collection::vec((0..4u64, 0..4u8), 0..8),
            more in prop::collection::vec((1..4u64, 0..4u8), 0..8),
            free in (0..3u64, 0..3u8),
            takes in prop::collection::vec((0..2u64, 0..2u8), 9),
        ) {
            for offers in [offers.clone(), [offers, more].concat()] {
                let bags: Vec<(OfferId, Bag)> = (offers.iter().enumerate())
                    .map(|(at, offer)| (id(at), bag(*offer, at)))
                    .collect();
                let free = bag(free, 90);
                let needed = (offers.iter().zip(&takes).enumerate()).fold(
                    Bag::default(),
                    |sum, (at, ((cpus, ports), (some, any)))| {
                        sum.with(&bag(((*cpus).min(*some), (*ports).min(*any)), at))
                    },
                );
                let withdrawn = fewest(free.clone(), &needed, bags.clone());
                let sum = |set: &[OfferId]| {
                    let meant = bags.iter().filter(|(id, _)| set.contains(id));
                    meant.fold(free.clone(), |sum, (_, bag)| sum.with(bag))
                };
                prop_assert!(sum(&withdrawn).contains(&needed));
                for left_out in 0..withdrawn.len() {
                    let mut less = withdrawn.clone();
                    less.remove(left_out);
                    prop_assert!(!sum(&less).contains(&needed));
                }
                if bags.len() > 8 {
                    continue;
                }
                // All sets, slowly: none is smaller, and none of the same size has smaller ids.
                for set in 0u32..1 << bags.len() {
                    let set: Vec<OfferId> = (0..bags.len())
                        .filter(|at| set & (1 << at) != 0)
                        .map(id)
                        .collect();
                    let better = (set.len(), &set) < (withdrawn.len(), &withdrawn);
                    prop_assert!(!better || !sum(&set).contains(&needed), "{set:?}");
                }
            }
        }
    }
}
