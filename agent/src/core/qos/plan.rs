//! Whom to take from: the smallest set that covers what is missing.
//!
//! Largest first, then youngest, then in the order given. Taking the largest first needs the fewest
//! victims, because the sum of the k largest is the largest sum of k; the tests compare with
//! an exhaustive search.

use std::cmp::Reverse;

use ebb_types::Timestamp;

/// Someone to take CPU from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Candidate {
    /// CPU that it uses, in thousandths of a core.
    pub(super) claim_milli: u64,
    /// When it started.
    pub(super) started_at: Timestamp,
}

/// How far to go with one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Level {
    /// Leave it this much CPU, in thousandths of a core.
    Cap(u64),
    /// Leave it nothing.
    Freeze,
}

/// Largest first, then youngest.
pub(super) fn ranked(sizes: impl IntoIterator<Item = (u64, Timestamp)>) -> Vec<(usize, u64)> {
    let mut order: Vec<_> = sizes
        .into_iter()
        .enumerate()
        .filter(|(_, (size, _))| *size > 0)
        .collect();
    order.sort_by_key(|(index, (size, started_at))| (Reverse(*size), Reverse(*started_at), *index));
    order
        .into_iter()
        .map(|(index, (size, _))| (index, size))
        .collect()
}

/// Takes `need_milli` of CPU: by caps that leave each at least `min_cap_milli` if that covers it,
/// else by freezing as few as will do. Where nothing covers it, everyone is frozen.
pub(super) fn take(
    need_milli: u64,
    candidates: &[Candidate],
    min_cap_milli: u64,
) -> Vec<(usize, Level)> {
    let order = ranked(
        candidates
            .iter()
            .map(|candidate| (candidate.claim_milli, candidate.started_at)),
    );
    if need_milli == 0 {
        return Vec::new();
    }
    let by_cap = |claim: u64| claim.saturating_sub(min_cap_milli);
    let mut covered: u64 = order
        .iter()
        .fold(0, |sum, (_, claim)| sum.saturating_add(by_cap(*claim)));
    let mut frozen = 0;
    while covered < need_milli && frozen < order.len() {
        let claim = order[frozen].1;
        covered = covered.saturating_add(claim - by_cap(claim));
        frozen += 1;
    }
    let mut left = need_milli;
    let mut plan = Vec::new();
    for (rank, (index, claim)) in order.into_iter().enumerate() {
        if rank < frozen {
            plan.push((index, Level::Freeze));
            left = left.saturating_sub(claim);
        } else if left > 0 && by_cap(claim) > 0 {
            let taken = by_cap(claim).min(left);
            left -= taken;
            let cap_milli = (claim - taken) / super::CAP_STEP_MILLI * super::CAP_STEP_MILLI;
            plan.push((index, Level::Cap(cap_milli.max(min_cap_milli))));
        }
    }
    plan
}

/// The fewest whose sizes sum up to `need`; everyone if nothing covers it.
pub(super) fn cover(need: u64, sizes: &[(u64, Timestamp)]) -> Vec<usize> {
    let mut left = need;
    let mut chosen = Vec::new();
    for (index, size) in ranked(sizes.iter().copied()) {
        if left == 0 {
            break;
        }
        left = left.saturating_sub(size);
        chosen.push(index);
    }
    chosen
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MIN_CAP: u64 = 50;

    /// Fewest frozen, then fewest capped, over every way to leave, cap or freeze each.
    fn exhaustive(need: u64, claims: &[u64]) -> Option<(u32, u32)> {
        let mut best = None;
        for code in 0..3u32.pow(claims.len() as u32) {
            let (mut rest, mut taken, mut frozen, mut capped) = (code, 0, 0, 0);
            for claim in claims {
                match rest % 3 {
                    1 => (taken, capped) = (taken + claim.saturating_sub(MIN_CAP), capped + 1),
                    2 => (taken, frozen) = (taken + claim, frozen + 1),
                    _ => {}
                }
                rest /= 3;
            }
            if taken >= need && best.is_none_or(|best| (frozen, capped) < best) {
                best = Some((frozen, capped));
            }
        }
        best
    }

    fn count(plan: &[(usize, Level)]) -> (u32, u32) {
        let frozen = plan
            .iter()
            .filter(|(_, level)| *level == Level::Freeze)
            .count();
        (frozen as u32, (plan.len() - frozen) as u32)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(400))]

        #[test]
        fn no_plan_is_smaller_than_the_one_chosen(
            claims in prop::collection::vec(0u64..400, 0..7), need in 1u64..2000
        ) {
            let candidates: Vec<_> = claims
                .iter()
                .map(|claim| Candidate { claim_milli: *claim, started_at: Timestamp::default() })
                .collect();
            let plan = take(need, &candidates, MIN_CAP);
            let taken: u64 = plan
                .iter()
                .map(|(index, level)| match level {
                    Level::Cap(cap) => claims[*index] - (*cap).min(claims[*index]),
                    Level::Freeze => claims[*index],
                })
                .sum();
            match exhaustive(need, &claims) {
                Some(fewest) => {
                    prop_assert!(taken >= need, "{taken} of {need} by {plan:?}");
                    prop_assert_eq!(count(&plan), fewest);
                }
                None => {
                    prop_assert_eq!(taken, claims.iter().sum::<u64>());
                }
            }
        }

        #[test]
        fn no_smaller_set_covers(
            sizes in prop::collection::vec(0u64..100, 0..9), need in 0u64..500
        ) {
            let given: Vec<_> = sizes.iter().map(|s| (*s, Timestamp::default())).collect();
            let chosen = cover(need, &given);
            let fewest = (0..1u32 << sizes.len())
                .filter(|set| {
                    let sum: u64 = (0..sizes.len()).filter(|i| set >> i & 1 == 1).map(|i| sizes[i]).sum();
                    sum >= need
                })
                .map(u32::count_ones)
                .min();
            let all = sizes.iter().filter(|size| **size > 0).count();
            prop_assert_eq!(chosen.len(), fewest.map_or(all, |n| n as usize));
        }
    }

    #[test]
    fn of_equals_the_youngest_goes_first() {
        let at = |ms| (100, Timestamp::from_ms(ms));
        assert_eq!(cover(150, &[at(1), at(9), at(5)]), [1, 2]);
    }
}
