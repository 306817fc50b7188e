//! What the rule makes of what it kept over a restart of the agent.

use proptest::prelude::*;

use super::kept::{Kept, MAX_AWAY_BINS, MAX_KEPT_TASKS, Unfit};
use super::*;

const LIMIT: u64 = 65_535;

fn at(bin: u64) -> Timestamp {
    Timestamp::from_ms(bin * BIN_MS)
}

fn member(key: u32, used: Option<u64>) -> Member<u32> {
    Member {
        key,
        limit: LIMIT,
        unknown: LIMIT,
        used,
    }
}

fn again(now: Timestamp, kept: Kept<u32>) -> Result<Peaks<u32>, Unfit> {
    let mut peaks = Peaks::new(Weights::default());
    peaks.take_up(now, kept).map(|()| peaks)
}

/// Two tasks, seen for so many bins from bin 1,000 on; the first has had a spike.
fn seen(bins: u64) -> (Peaks<u32>, u64) {
    let mut peaks = Peaks::new(Weights::default());
    let mut keep = 0;
    for bin in 0..bins {
        let spike = if bin == 5 { 30_000 } else { 1_000 };
        let members = [member(1, Some(spike)), member(2, Some(500))];
        keep = peaks.step(at(1_000 + bin), &members).keep;
    }
    (peaks, keep)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn a_restart_never_frees_anything(
        uses in prop::collection::vec(prop::collection::vec(0u64..60_000, 3), 25..200),
        after in prop::collection::vec(prop::collection::vec(prop::option::of(0u64..60_000), 3), 1..20),
        away in 0..=MAX_AWAY_BINS
    ) {
        let mut peaks = Peaks::new(Weights::default());
        let mut keep = 0;
        for (bin, uses) in uses.iter().enumerate() {
            let members: Vec<_> =
                uses.iter().zip(0..).map(|(used, key)| member(key, Some(*used))).collect();
            keep = peaks.step(at(bin as u64), &members).keep;
        }
        let begin = uses.len() as u64 - 1 + away;
        let kept = peaks.kept().unwrap();
        let mut restarted = again(at(begin), kept).unwrap();
        for (bin, uses) in (begin..).zip(after) {
            let members: Vec<_> = uses.iter().zip(0..).map(|(used, key)| member(key, *used)).collect();
            let peak = restarted.step(at(bin), &members);
            prop_assert!(peak.keep >= keep, "{} before, {:?} now", keep, peak);
            prop_assert_eq!(peak.soon, peak.keep);
            prop_assert!(peak.keep <= 3 * LIMIT);
        }
    }

    #[test]
    fn numbers_that_cannot_be_are_refused_or_do_no_harm(
        which in 0usize..8, value in any::<u64>(), used in 0u64..LIMIT
    ) {
        let (peaks, _) = seen(50);
        let mut kept = peaks.kept().unwrap();
        let task = &mut kept.tasks[0];
        match which {
            0 => task.limit = value,
            1 => task.born = value,
            2 => task.last = value,
            3 => task.seen_bins = value,
            4 => task.remembered = value,
            5 => task.shares.truncate((value % BINS as u64) as usize),
            6 => kept.mistakes.truncate(100),
            _ => kept.keep = value,
        }
        if let Ok(mut peaks) = again(at(1_050), kept) {
            let peak = peaks.step(at(1_050), &[member(1, Some(used)), member(2, None)]);
            prop_assert!(peak.keep >= used + LIMIT && peak.keep <= 2 * LIMIT, "{:?}", peak);
        }
    }
}

#[test]
fn a_task_that_was_known_is_known_after_a_restart() {
    let (peaks, before) = seen(50);
    let mut restarted = again(at(1_050), peaks.kept().unwrap()).unwrap();
    let peak = restarted.step(at(1_050), &[member(1, Some(1_000)), member(2, Some(500))]);
    assert_eq!(peak.shown, 2);
    assert!(peak.keep >= before && peak.keep < LIMIT, "{peak:?}");
}

#[test]
fn bins_in_which_the_agent_was_away_count_as_high_as_any() {
    let (peaks, _) = seen(100);
    let mut restarted = again(at(1_105), peaks.kept().unwrap()).unwrap();
    let members = [member(1, Some(1_000)), member(2, Some(500))];
    for bin in 1_105..1_120 {
        let peak = restarted.step(at(bin), &members);
        assert!(peak.keep >= 27_000, "bin {bin}: {peak:?}");
    }
    // Two hours later that is no longer recent.
    let late = (1_120..1_400)
        .map(|bin| restarted.step(at(bin), &members).keep)
        .last();
    assert!(late.is_some_and(|keep| keep < 40_000), "{late:?}");
}

#[test]
fn what_is_from_the_future_or_too_old_is_refused_and_tasks_are_cold() {
    let (peaks, _) = seen(50);
    let kept = || peaks.kept().unwrap();
    assert_eq!(again(at(1_048), kept()).unwrap_err(), Unfit::Future);
    assert!(again(at(1_049 + MAX_AWAY_BINS), kept()).is_ok());
    let mut cold = Peaks::new(Weights::default());
    let late = at(1_050 + MAX_AWAY_BINS);
    assert_eq!(cold.take_up(late, kept()), Err(Unfit::Old));
    assert_eq!(cold.step(late, &[member(1, Some(1))]).keep, LIMIT);
}

#[test]
fn a_task_that_is_gone_takes_its_past_along_and_a_new_one_is_cold() {
    let (peaks, _) = seen(50);
    let mut restarted = again(at(1_050), peaks.kept().unwrap()).unwrap();
    let peak = restarted.step(at(1_050), &[member(2, Some(500)), member(3, Some(1))]);
    assert_eq!(peak.shown, 1);
    assert!(peak.keep >= LIMIT && peak.longest < 2_000, "{peak:?}");
}

#[test]
fn no_more_than_the_limit_of_tasks_is_kept() {
    let mut peaks = Peaks::new(Weights::default());
    let all = MAX_KEPT_TASKS as u32 + 10;
    let members: Vec<_> = (0..all).map(|key| member(key, Some(1))).collect();
    peaks.step(at(0), &members);
    let kept = peaks.kept().unwrap();
    assert_eq!(kept.tasks.len(), MAX_KEPT_TASKS);
    let mut restarted = again(at(1), kept).unwrap();
    assert!(restarted.step(at(1), &members).keep >= 10 * LIMIT);
}
