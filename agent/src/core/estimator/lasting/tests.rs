//! What is said to last, against what did.

use ebb_types::ResourceKind;
use proptest::prelude::*;

use super::*;

const STEP_MS: u64 = 5_000;

fn survival() -> Survival {
    Survival::new(CONFIDENCE_PERMILLE, 2 * STEP_MS)
}

fn cpus(milli: u64) -> Quantities {
    Quantities::cpus_mem(milli, 0)
}

/// Steps through amounts of CPU from a time on; what stays of the last one.
fn run(survival: &mut Survival, begin_ms: u64, amounts: impl IntoIterator<Item = u64>) -> Lasting {
    let mut last = Quantities::ZERO;
    for (at, milli) in (0..).zip(amounts) {
        last = cpus(milli);
        survival.step(Timestamp::from_ms(begin_ms + at * STEP_MS), &last);
    }
    survival.lasting(&last)
}

fn steps(ms: u64) -> usize {
    usize::try_from(ms / STEP_MS).unwrap()
}

fn stays(lasting: &Lasting) -> Vec<u64> {
    lasting
        .points
        .iter()
        .map(|point| point.amount.cpu_milli())
        .collect()
}

#[test]
fn nothing_is_said_of_a_time_until_nine_times_as_long_has_been_seen() {
    for (at, time_ms) in HORIZONS_MS.into_iter().take(3).enumerate() {
        let mut survival = survival();
        let early = run(&mut survival, 0, vec![4_000; steps(time_ms * 9)]);
        assert_eq!(stays(&early)[at], 0, "{time_ms} ms");
        let late = run(&mut survival, time_ms * 9, vec![4_000; steps(time_ms * 2)]);
        assert_eq!(stays(&late)[at], 4_000, "{time_ms} ms");
    }
}

#[test]
fn what_dips_every_half_hour_lasts_minutes_in_whole_and_an_hour_in_part() {
    let dips = (0..steps(30 * 3_600_000)).map(|at| if at % 360 == 0 { 1_000 } else { 4_000 });
    let lasting = run(&mut survival(), 0, dips);
    assert_eq!(stays(&lasting), [4_000, 1_000, 1_000, 0]);
}

#[test]
fn a_gap_and_a_clock_that_goes_back_never_lengthen() {
    let hours = |hours: u64| vec![4_000; steps(hours * 3_600_000)];
    let mut gaps = survival();
    for hour in 0..30 {
        // The second half of every hour is not seen.
        run(&mut gaps, hour * 3_600_000, vec![4_000; steps(1_800_000)]);
    }
    assert_eq!(stays(&gaps.lasting(&cpus(4_000)))[2], 0);
    let mut back = survival();
    run(&mut back, 100 * 3_600_000, hours(5));
    let lasting = run(&mut back, 0, hours(5));
    assert_eq!(stays(&lasting)[2], 0, "four whole hours each are no nine");
    assert_eq!(stays(&lasting)[1], 4_000);
}

#[test]
fn blindness_counts_as_nothing_and_other_kinds_are_apart() {
    let mut survival = survival();
    for at in 0..steps(3 * 3_600_000) as u64 {
        let milli = if at % 7 == 0 { 0 } else { 4_000 };
        let lendable = cpus(milli).with(ResourceKind::Mem, 1 << 30);
        survival.step(Timestamp::from_ms(at * STEP_MS), &lendable);
    }
    let lasting = survival.lasting(&cpus(4_000).with(ResourceKind::Mem, 1 << 30));
    assert_eq!(stays(&lasting), [0, 0, 0, 0]);
    let mem = lasting.points.iter().map(|point| point.amount.mem_bytes());
    assert_eq!(mem.collect::<Vec<_>>(), [1 << 30, 1 << 30, 0, 0]);
}

#[test]
fn old_trials_fade() {
    let mut survival = survival();
    run(
        &mut survival,
        0,
        (0..steps(36_000_000)).map(|at| 1_000 + (at as u64 % 2) * 3_000),
    );
    let lasting = run(
        &mut survival,
        36_000_000,
        vec![4_000; steps(2 * 36_000_000)],
    );
    assert_eq!(stays(&lasting)[0], 4_000);
    let ended: u64 = survival.kinds[0][0].ended.iter().sum();
    assert!(ended < MAX_ENDED);
}

#[test]
fn what_was_learnt_outlives_the_agent_and_each_restart_counts_as_a_failure() {
    let mut survival = survival();
    let four = || vec![4_000; steps(2 * 36_000_000)];
    let before = run(&mut survival, 0, four());
    assert_eq!(stays(&before), [4_000, 4_000, 4_000, 0]);
    let again = |kept: &[u64]| {
        let mut again = Survival::new(CONFIDENCE_PERMILLE, 2 * STEP_MS);
        again.take_up(kept).map(|()| again)
    };
    let open: usize = survival.kinds[0].iter().map(|one| one.open.len()).sum();
    let failed =
        |survival: &Survival| -> u64 { survival.kinds[0].iter().map(|one| one.ended[0]).sum() };
    let mut once = again(&survival.kept()).unwrap();
    assert_eq!(failed(&once), failed(&survival) + open as u64);
    assert_eq!(once.kept(), survival.kept());
    let after = run(&mut once, 2 * 36_000_000, vec![4_000; 1]);
    assert_eq!(stays(&after)[..2], [4_000, 4_000]);

    let kept = survival.kept();
    let mut many = kept.clone();
    many[KEPT_COUNTS - 1] = u64::MAX;
    for bad in [&kept[1..], &[], &many, &vec![MAX_ENDED; KEPT_COUNTS]] {
        assert_eq!(again(bad).err(), Some(Unfit::Absurd));
    }
}

/// What may have been said wrongly at first, after a long time that was good by chance: of ten minutes that are looked at
/// twelve times each, four.
const LUCKY: u64 = 48;

/// A level that stays for a while of random length and then is another.
fn levels() -> impl Strategy<Value = Vec<u64>> {
    prop::collection::vec((1usize..2_000, 0u64..40), 10..60).prop_map(|runs| {
        let each = runs.into_iter();
        each.flat_map(|(steps, level)| std::iter::repeat_n(level * 100, steps))
            .collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn what_stays_is_ordered_and_no_more_than_there_is(levels in levels()) {
        let mut survival = survival();
        for (at, milli) in (0..).zip(&levels) {
            survival.step(Timestamp::from_ms(at * STEP_MS), &cpus(*milli));
            let lasting = survival.lasting(&cpus(*milli));
            prop_assert!(lasting.is_ordered());
            prop_assert!(lasting.points.iter().all(|point| point.amount.cpu_milli() <= *milli));
        }
    }

    #[test]
    fn a_restart_never_lengthens(levels in levels()) {
        let mut survival = survival();
        for (at, milli) in (0..).zip(&levels) {
            survival.step(Timestamp::from_ms(at * STEP_MS), &cpus(*milli));
            if at % 97 > 0 {
                continue;
            }
            let mut again = Survival::new(CONFIDENCE_PERMILLE, 2 * STEP_MS);
            prop_assert_eq!(again.take_up(&survival.kept()), Ok(()));
            let whole = cpus(*milli);
            for (again, before) in stays(&again.lasting(&whole)).into_iter().zip(stays(&survival.lasting(&whole))) {
                prop_assert!(again <= before, "{} after, {} before", again, before);
            }
        }
    }

    #[test]
    fn fewer_samples_never_lengthen(mut levels in levels(), from in 0usize..3_000, missing in 2usize..200) {
        // So few that nothing fades.
        levels.truncate(3_000);
        let (mut whole, mut gap) = (survival(), survival());
        let last = cpus(*levels.last().unwrap());
        for (at, milli) in levels.iter().enumerate() {
            let now = Timestamp::from_ms(at as u64 * STEP_MS);
            whole.step(now, &cpus(*milli));
            let blind = (from..from + missing).contains(&at);
            gap.step(now, &if blind { Quantities::ZERO } else { cpus(*milli) });
        }
        // Only the trial that begins late in the eighth in which the gap ends may keep what an earlier one did not.
        for (whole, gap) in whole.kinds[0].iter().zip(&gap.kinds[0]) {
            prop_assert!(gap.ended[PARTS] <= whole.ended[PARTS] + 1);
        }
        prop_assert!(gap.lasting(&last).is_ordered());
    }

    #[test]
    fn what_is_said_held_as_often_as_is_said_of_what_is_alike_at_all_times(
        // Every so many steps a dip, at random.
        every in 40u64..400, depth in 0u64..4_000, seed in any::<u64>()
    ) {
        let mut state = seed;
        let mut draw = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            state >> 33
        };
        let levels: Vec<u64> = (0..40_000).map(|_| if draw() % every == 0 { depth } else { 4_000 }).collect();
        let mut survival = survival();
        let (mut said, mut held) = ([0u64; 2], [0u64; 2]);
        for (at, milli) in levels.iter().enumerate() {
            survival.step(Timestamp::from_ms(at as u64 * STEP_MS), &cpus(*milli));
            if at % 10 != 0 {
                continue;
            }
            for (nth, point) in survival.lasting(&cpus(*milli)).points.iter().take(2).enumerate() {
                let end = at + steps(point.time_ms);
                let (true, Some(ahead)) = (point.amount.cpu_milli() > 0, levels.get(at..end)) else { continue };
                said[nth] += 1;
                held[nth] += u64::from(ahead.iter().all(|level| *level >= point.amount.cpu_milli()));
            }
        }
        for (said, held) in said.into_iter().zip(held) {
            let failed = said - held;
            let may_fail = said * (1_000 - CONFIDENCE_PERMILLE - 50) / 1_000 + LUCKY;
            prop_assert!(failed <= may_fail, "{} of {}", held, said);
        }
    }
}
