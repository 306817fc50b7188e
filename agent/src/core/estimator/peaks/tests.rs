//! Properties of the rule, against a reference that keeps everything and looks at all of it.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

fn at(bin: u64) -> Timestamp {
    Timestamp::from_ms(bin * BIN_MS)
}

fn member(key: u32, limit: u64, used: Option<u64>) -> Member<u32> {
    Member {
        key,
        limit,
        unknown: limit,
        used,
    }
}

/// Every value of every task, by bin.
#[derive(Default)]
struct Everything {
    values: BTreeMap<u32, BTreeMap<u64, u64>>,
    limits: BTreeMap<u32, u64>,
    expected: BTreeMap<u64, u64>,
    remembered: BTreeMap<u32, u64>,
}

impl Everything {
    fn sum(&self, bin: u64) -> u64 {
        let values = self.values.values();
        values.filter_map(|values| values.get(&bin)).sum()
    }

    fn largest(&self, from: i64, to: i64) -> u64 {
        let bins = from.max(0)..=to;
        bins.map(|bin| self.sum(bin as u64)).max().unwrap_or(0)
    }

    /// The rule as its page says it; one sample a bin, limits of 65,535 so that shares are exact.
    fn step(&mut self, bin: u64, members: &[Member<u32>], weights: &Weights) -> (u64, u64) {
        self.values
            .retain(|key, _| members.iter().any(|member| member.key == *key));
        for member in members {
            let used = member.used.unwrap();
            self.values.entry(member.key).or_default().insert(bin, used);
            self.limits.insert(member.key, member.limit);
            let kept = self.remembered.entry(member.key).or_default();
            *kept = (*kept - kept.div_ceil(1_247)).max(used);
        }
        let now: u64 = members.iter().map(|member| member.used.unwrap()).sum();
        let (end, limits) = (bin as i64, members.iter().map(|member| member.limit).sum());
        let recent = self.largest(end - 23, end);
        let of = |key: &u32| {
            let values = self.values[key].range(bin.saturating_sub(23)..=bin);
            values.map(|(_, used)| *used).max().unwrap()
        };
        let rooms: Vec<u64> = self
            .values
            .keys()
            .map(|key| self.limits[key] - of(key))
            .collect();
        let mut gaps: Vec<u64> = self
            .values
            .keys()
            .map(|key| self.remembered[key] - of(key).min(self.remembered[key]))
            .collect();
        gaps.sort_unstable();
        gaps.pop();
        let unknown: u64 = self
            .values
            .iter()
            .filter(|(_, values)| values.len() < 24)
            .map(|(key, _)| self.limits[key] - of(key))
            .sum();
        let same_time = (1..=3i64)
            .map(|day| self.largest(end - 288 * day + 18 - 23, end - 288 * day + 18))
            .max()
            .unwrap();
        let last: Vec<u128> = (0..12.min(bin + 1))
            .map(|back| self.sum(bin - back).into())
            .collect();
        let count = last.len() as u128;
        let (sum, squares): (u128, u128) = (last.iter().sum(), last.iter().map(|x| x * x).sum());
        let sway = ((count * squares - sum * sum).isqrt() / count) as u64;
        let part = |amount: u64, weight: u64| (amount * weight).div_ceil(1_000);
        let beyond = |amount: u64| amount.saturating_sub(recent);
        let weighed = |weights: &Weights| {
            part(now, weights.now)
                + part(recent, weights.recent)
                + part(beyond(self.largest(end - 143, end)), weights.half_day)
                + part(beyond(same_time), weights.time_of_day)
                + part(gaps.iter().sum(), weights.gaps)
                + part(sway, weights.sway)
                + part(rooms.iter().copied().max().unwrap_or(0), weights.room)
                + unknown
        };
        let base = weighed(weights).min(limits);
        let soon = weighed(&Weights::soon()).max(now);
        self.expected.insert(bin, base);
        let keep = (base + part(self.wrong(bin), weights.mistakes))
            .max(now)
            .min(limits);
        (keep, soon.min(keep))
    }

    /// The largest mistake that has shown within twelve hours. Only for tasks that do not change.
    fn wrong(&self, bin: u64) -> u64 {
        let over = bin.saturating_sub(143).max(12)..bin;
        over.map(|last| {
            let came = (last - 11..=last).map(|bin| self.sum(bin)).max().unwrap();
            came.saturating_sub(self.expected[&(last - 12)])
        })
        .max()
        .unwrap_or(0)
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]
    #[test]
    fn it_is_what_its_page_says(
        seed in any::<u64>(), levels in prop::collection::vec(0u64..40_000, 1..5)
    ) {
        let weights = Weights::default();
        let (mut peaks, mut all) = (Peaks::new(weights), Everything::default());
        let (mut chance, mut sooner) = (seed | 1, 0);
        for bin in 0..1_300u64 {
            let members: Vec<_> = levels
                .iter()
                .enumerate()
                .map(|(key, level)| {
                    chance = chance.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    let spike = if (chance >> 33).is_multiple_of(150) { 25_000 } else { 0 };
                    let noise = (chance >> 40) % 500;
                    member(key as u32, 65_535, Some(level + spike + noise))
                })
                .collect();
            let expected = all.step(bin, &members, &weights);
            let peak = peaks.step(at(bin), &members);
            prop_assert_eq!((peak.keep, peak.soon), expected, "bin {}", bin);
            sooner += peak.keep - peak.soon;
        }
        prop_assert!(sooner > 0);
    }

    #[test]
    fn it_keeps_between_what_is_used_and_the_limits_and_does_not_mind_the_order(
        steps in prop::collection::vec(
            (0u64..40, prop::collection::btree_map(0u32..6, (1u64..1 << 50, prop::option::of(0u64..1 << 51)), 0..6)),
            1..80
        )
    ) {
        let (mut one, mut other) = (Peaks::new(Weights::default()), Peaks::new(Weights::default()));
        let mut bin = 0;
        for (gap, tasks) in steps {
            bin += gap;
            let mut members: Vec<_> =
                tasks.iter().map(|(key, (limit, used))| member(*key, *limit, *used)).collect();
            let peak = one.step(at(bin), &members);
            members.reverse();
            prop_assert_eq!(other.step(at(bin), &members), peak);
            let limits: u64 = members.iter().map(|member| member.limit).sum();
            let used: u64 = members
                .iter()
                .map(|member| member.used.map_or(member.limit, |used| used.min(member.limit)))
                .sum();
            prop_assert!(used <= peak.soon && peak.soon <= peak.keep, "{} {:?}", used, peak);
            prop_assert!(peak.keep <= limits, "{:?} {}", peak, limits);
        }
    }

    #[test]
    fn missing_data_never_frees_anything(
        used in prop::collection::vec(0u64..1_000, 1..6),
        gone in prop::collection::vec((0u64..3, prop::collection::vec(any::<bool>(), 6)), 1..40)
    ) {
        let mut peaks = Peaks::new(Weights::default());
        let all = |keep: &dyn Fn(usize) -> bool| -> Vec<_> {
            let each = used.iter().enumerate();
            each.map(|(key, used)| member(key as u32, 1_000, keep(key).then_some(*used))).collect()
        };
        let mut before = 0;
        for bin in 0..40 {
            before = peaks.step(at(bin), &all(&|_| true)).keep;
        }
        let mut bin = 40;
        for (gap, gone) in gone {
            bin += gap;
            let some = all(&|key| !gone[key]);
            let peak = peaks.step(at(bin), &some);
            if some.iter().any(|member| member.used.is_none()) {
                prop_assert!(peak.keep >= before, "{} before, {:?} now", before, peak);
                prop_assert_eq!(peak.soon, peak.keep);
            } else {
                before = peak.keep;
            }
        }
    }
}

#[test]
fn a_task_counts_its_limit_until_it_has_shown_itself() {
    let mut peaks = Peaks::new(Weights::default());
    for bin in 0..40 {
        let peak = peaks.step(at(bin), &[member(1, 65_535, Some(100))]);
        assert_eq!(peak.keep == 65_535, bin < 23, "bin {bin}");
        assert_eq!(peak.shown, usize::from(bin >= 23));
    }
}

#[test]
fn yesterday_s_spike_is_expected_at_its_time_of_day_and_not_between() {
    let mut peaks = Peaks::new(Weights::default());
    let keeps: Vec<u64> = (0..3 * DAY as u64)
        .map(|bin| {
            let busy = bin % DAY as u64 == 200;
            let used = if busy { 30_000 } else { 1_000 };
            let members = [1, 2].map(|key| member(key, 65_535, Some(used)));
            peaks.step(at(bin), &members).keep
        })
        .collect();
    let (due, idle) = (keeps[DAY + 195], keeps[DAY + 100]);
    assert!(due > idle + 20_000, "{due} when due, {idle} between");
}

#[test]
fn time_that_runs_backwards_stands_still_and_a_pause_is_filled_with_the_higher_side() {
    let mut peaks = Peaks::new(Weights::default());
    for bin in 0..50 {
        peaks.step(at(bin), &[member(1, 65_535, Some(5_000))]);
    }
    let before = peaks.step(at(50), &[member(1, 65_535, Some(1_000))]).keep;
    let back = peaks.step(at(3), &[member(1, 65_535, Some(1_000))]).keep;
    assert_eq!(back, before);
    let after = peaks.step(at(70), &[member(1, 65_535, Some(1_000))]);
    assert!(after.keep >= 1_000 && after.longest == 5_000, "{after:?}");
    let late = peaks.step(at(76), &[member(1, 65_535, Some(9_000))]);
    let quiet = peaks.step(at(77), &[member(1, 65_535, Some(1_000))]);
    assert!(
        late.keep >= 9_000 && quiet.keep > 8_000,
        "{late:?} {quiet:?}"
    );
}

#[test]
fn a_task_that_ends_takes_its_past_along() {
    let mut peaks = Peaks::new(Weights::default());
    for bin in 0..100 {
        peaks.step(
            at(bin),
            &[
                member(1, 65_535, Some(60_000)),
                member(2, 65_535, Some(1_000)),
            ],
        );
    }
    let peak = peaks.step(at(100), &[member(2, 65_535, Some(1_000))]);
    assert_eq!(peak.longest, 1_000);
    assert!(peak.keep < 65_535 / 5, "{peak:?}");
}
