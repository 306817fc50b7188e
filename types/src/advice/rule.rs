//! From what a class uses to what it should ask for.
//!
//! **Rule.** CPU: what 95 % of the time was enough, and [`MARGIN_PERCENT`] more; a task that has too little of it is slow.
//! Memory: the most of the last [`ADVICE_DAYS`](super::ADVICE_DAYS) days, and [`MARGIN_PERCENT`] more; a task that has too
//! little of it is killed. Where one was killed for it, at least the limit that it had, and [`BUMP_PERCENT`] more. These are
//! the rules and figures of Kubernetes' Vertical Pod Autoscaler.
//!
//! **Ceilings.** What was used under a ceiling is a lower bound of what is needed. Where tasks were held back by their own
//! ceiling of CPU for more than [`THROTTLED_PERMILLE`] of the time, the 95th percentile is such a bound. Then they are to
//! ask for the ceiling and [`BUMP_PERCENT`] more, if it is not above what they ask for; a ceiling above that is to be
//! raised by itself, and nothing less than what is asked for is advised.
//!
//! **Caution.** There is no advice before [`ENOUGH_MS`] were measured, but that a kill for want of memory is heeded at
//! once. Within [`DEAD_BAND_PERCENT`] of what is asked for nothing is to be changed. The minima never make a class ask for
//! more than it does.

use super::{ClassAdvice, ClassUse, Fit, Histogram, KindAdvice};

/// What is added to what was used.
pub const MARGIN_PERCENT: u64 = 15;
/// What is added to a limit that was too low.
pub const BUMP_PERCENT: u64 = 20;
/// What is asked for is right if it is no farther from the advice, as a part of what is asked for.
pub const DEAD_BAND_PERCENT: u64 = 10;
/// For so long tasks of a class must have been measured, added up, in milliseconds: an hour.
pub const ENOUGH_MS: u64 = 3_600_000;
/// Tasks that their own ceiling of CPU holds back for more than this part of the time need more than they used.
pub const THROTTLED_PERMILLE: u64 = 50;
/// Least CPU that is advised, in thousandths of a core.
const LEAST_CPU_MILLI: u64 = 25;
/// Least memory that is advised, in bytes.
const LEAST_MEM_BYTES: u64 = 32 << 20;
/// Advice on CPU is a multiple of this, in thousandths of a core.
const CPU_STEP_MILLI: u64 = 5;
/// Advice on memory is a multiple of this, in bytes.
const MEM_STEP_BYTES: u64 = 1 << 20;

/// What a class should ask for, by what was seen of it until [`ClassUse::at`].
pub fn advise(seen: &ClassUse) -> ClassAdvice {
    let peaks = seen.peaks();
    let cpu = unjudged(seen.asked_cpu_milli, &seen.cpu, peaks.cpu_milli);
    let mem = unjudged(seen.asked_mem_bytes, &seen.mem, peaks.mem_bytes);
    let throttled_permille = seen.throttled_permille();
    let is_known = seen.cpu_seen_ms >= ENOUGH_MS;
    let cpu_need = cpu.p95.filter(|_| is_known).map(|p95| {
        let need = more_by(p95, MARGIN_PERCENT);
        need.max(ceiling_need(seen, throttled_permille))
    });
    let of_peak = mem.peak.filter(|_| seen.seen_ms >= ENOUGH_MS);
    let of_peak = of_peak.map(|peak| more_by(peak, MARGIN_PERCENT));
    let of_kill = (peaks.ooms > 0).then(|| more_by(peaks.oom_limit_bytes, BUMP_PERCENT));
    let mem_need = match (of_peak, of_kill) {
        // Too little was seen, but that what is asked for is too little was.
        (None, Some(of_kill)) => Some(of_kill.max(mem.asked)),
        _ => of_peak.max(of_kill),
    };
    ClassAdvice {
        key: seen.key.clone(),
        tasks: seen.tasks,
        running: seen.running,
        seen_ms: seen.seen_ms,
        cpu: judged(cpu, cpu_need, LEAST_CPU_MILLI, CPU_STEP_MILLI),
        mem: judged(mem, mem_need, LEAST_MEM_BYTES, MEM_STEP_BYTES),
        throttled_permille,
        ooms: peaks.ooms,
        oom_limit_bytes: (peaks.ooms > 0).then_some(peaks.oom_limit_bytes),
        finished: peaks.finished,
        life_ms: (peaks.finished > 0).then_some(peaks.life_ms),
    }
}

/// What was seen of a kind. Percentiles are rounded up to what a bucket stands for, but not beyond the most that was used.
fn unjudged(asked: u64, used: &Histogram, most: u64) -> KindAdvice {
    let peak = (most > 0).then_some(most);
    let percentile = |permille| {
        let rounded = used.percentile(permille)?;
        Some(peak.map_or(rounded, |peak| rounded.min(peak)))
    };
    KindAdvice {
        asked,
        p50: percentile(500),
        p95: percentile(950),
        peak,
        advice: None,
        fit: Fit::NotEnoughSeen,
    }
}

/// The least that is needed by what ceilings have held back.
fn ceiling_need(seen: &ClassUse, throttled_permille: u64) -> u64 {
    match seen.cpu_limit_milli {
        _ if throttled_permille <= THROTTLED_PERMILLE => 0,
        Some(limit) if limit <= seen.asked_cpu_milli => more_by(limit, BUMP_PERCENT),
        _ => seen.asked_cpu_milli,
    }
}

fn judged(kind: KindAdvice, need: Option<u64>, least: u64, step: u64) -> KindAdvice {
    let Some(need) = need else {
        return kind;
    };
    let asked = kind.asked;
    let least = least.min(asked);
    let advice = need.checked_next_multiple_of(step).unwrap_or(need);
    let advice = advice.max(least);
    let band = u128::from(asked) * u128::from(DEAD_BAND_PERCENT);
    let fit = match u128::from(advice.abs_diff(asked)) * 100 <= band {
        true => Fit::Right,
        false if advice > asked => Fit::UnderAsked,
        false => Fit::OverAsked,
    };
    KindAdvice {
        advice: Some(advice),
        fit,
        ..kind
    }
}

fn more_by(amount: u64, percent: u64) -> u64 {
    let more = u128::from(amount) * u128::from(100 + percent);
    u64::try_from(more.div_ceil(100)).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::advice::{ADVICE_DAYS, ClassKey};
    use crate::ids::FrameworkId;
    use crate::time::Timestamp;

    const MIB: u64 = 1 << 20;

    fn seen(asked_cpu_milli: u64, asked_mem_bytes: u64) -> ClassUse {
        let key = ClassKey {
            framework_id: FrameworkId::new("f").expect("valid"),
            class: String::from("web"),
        };
        ClassUse {
            asked_cpu_milli,
            asked_mem_bytes,
            ..ClassUse::new(key, Timestamp::from_ms(0))
        }
    }

    /// A class that has used this for so long.
    fn used(mut seen: ClassUse, cpu_milli: u64, mem_bytes: u64, ms: u64) -> ClassUse {
        seen.cpu.add(cpu_milli, ms);
        seen.mem.add(mem_bytes, ms);
        seen.days[0].cpu_milli = seen.days[0].cpu_milli.max(cpu_milli);
        seen.days[0].mem_bytes = seen.days[0].mem_bytes.max(mem_bytes);
        seen.seen_ms += ms;
        seen.cpu_seen_ms += ms;
        seen
    }

    #[test]
    fn a_class_that_asks_for_ten_times_its_use_is_told_so() {
        let advice = advise(&used(seen(1_000, 1_000 * MIB), 100, 100 * MIB, ENOUGH_MS));
        assert_eq!(
            (advice.cpu.advice, advice.cpu.fit),
            (Some(115), Fit::OverAsked)
        );
        assert_eq!(
            (advice.mem.advice, advice.mem.fit),
            (Some(115 * MIB), Fit::OverAsked)
        );
        assert_eq!(advice.cpu.peak, Some(100));
    }

    #[test]
    fn rare_peaks_count_for_memory_and_not_for_cpu() {
        let calm = used(seen(400, 400 * MIB), 100, 100 * MIB, 24 * ENOUGH_MS);
        let advice = advise(&used(calm, 900, 900 * MIB, ENOUGH_MS));
        assert_eq!(
            (advice.cpu.advice, advice.cpu.fit),
            (Some(120), Fit::OverAsked)
        );
        assert_eq!(
            (advice.mem.advice, advice.mem.fit),
            (Some(1_035 * MIB), Fit::UnderAsked)
        );
    }

    #[test]
    fn a_kill_for_want_of_memory_is_heeded_before_enough_was_seen() {
        let mut seen = used(seen(100, 64 * MIB), 100, 10 * MIB, 5_000);
        (seen.days[3].ooms, seen.days[3].oom_limit_bytes) = (1, 64 * MIB);
        let advice = advise(&seen);
        assert_eq!(
            (advice.mem.advice, advice.mem.fit),
            (Some(77 * MIB), Fit::UnderAsked)
        );
        assert_eq!(
            (advice.cpu.advice, advice.cpu.fit),
            (None, Fit::NotEnoughSeen)
        );
        assert_eq!(advice.oom_limit_bytes, Some(64 * MIB));
        // Since then more is asked for: nothing says that it is too much.
        seen.asked_mem_bytes = 256 * MIB;
        assert_eq!(advise(&seen).mem.fit, Fit::Right);
    }

    #[test]
    fn what_is_used_under_a_ceiling_is_a_lower_bound_of_what_is_needed() {
        let mut one = used(seen(1_000, MIB), 600, MIB, ENOUGH_MS);
        one.cpu_limit_milli = Some(1_000);
        one.throttled_ms = ENOUGH_MS / 25;
        assert_eq!(advise(&one).cpu.fit, Fit::OverAsked);
        one.throttled_ms = ENOUGH_MS / 10;
        let advice = advise(&one);
        assert_eq!(advice.throttled_permille, 100);
        assert_eq!(
            (advice.cpu.advice, advice.cpu.fit),
            (Some(1_200), Fit::UnderAsked)
        );
        // A ceiling above what is asked for: more of that would not help, less would not either.
        one.cpu_limit_milli = Some(2_000);
        assert_eq!(
            (advise(&one).cpu.advice, advise(&one).cpu.fit),
            (Some(1_000), Fit::Right)
        );
        // A ceiling far below: what is above it and some is never used.
        one.cpu_limit_milli = Some(500);
        assert_eq!(
            (advise(&one).cpu.advice, advise(&one).cpu.fit),
            (Some(680), Fit::OverAsked)
        );
    }

    #[test]
    fn a_minimum_makes_nobody_ask_for_more() {
        let advice = advise(&used(seen(10, 8 * MIB), 1, MIB, ENOUGH_MS));
        assert_eq!((advice.cpu.advice, advice.cpu.fit), (Some(10), Fit::Right));
        assert_eq!(
            (advice.mem.advice, advice.mem.fit),
            (Some(8 * MIB), Fit::Right)
        );
        let advice = advise(&used(seen(1_000, 800 * MIB), 1, MIB, ENOUGH_MS));
        assert_eq!(advice.cpu.advice, Some(25));
        assert_eq!(advice.mem.advice, Some(32 * MIB));
    }

    fn any_use() -> impl Strategy<Value = ClassUse> {
        let asked = (0u64..100_000, 0u64..1 << 40);
        let use_of_it =
            prop::collection::vec((0u64..100_000, 0u64..1 << 40, 1u64..ENOUGH_MS), 0..20);
        let kills = (0usize..ADVICE_DAYS, 0u64..3, 0u64..1 << 40);
        let ceiling = (prop::option::of(1u64..100_000), 0u64..ENOUGH_MS);
        (asked, use_of_it, kills, ceiling).prop_map(|(asked, use_of_it, kills, ceiling)| {
            let mut one = seen(asked.0, asked.1);
            for (cpu_milli, mem_bytes, ms) in use_of_it {
                one = used(one, cpu_milli, mem_bytes, ms);
            }
            one.days[kills.0].ooms = kills.1;
            one.days[kills.0].oom_limit_bytes = kills.2.min(kills.1 * kills.2);
            (one.cpu_limit_milli, one.throttled_ms) = ceiling;
            one
        })
    }

    proptest! {
        #[test]
        fn what_is_advised_is_enough_for_what_was_seen(one in any_use()) {
            let advice = advise(&one);
            if let Some(cpu) = advice.cpu.advice {
                prop_assert!(one.cpu_seen_ms >= ENOUGH_MS);
                prop_assert!(cpu * 100 >= advice.cpu.p95.expect("it was seen") * 115);
            }
            if let Some(mem) = advice.mem.advice {
                prop_assert!(one.seen_ms >= ENOUGH_MS || advice.ooms > 0);
                let kill = advice.oom_limit_bytes.unwrap_or(0);
                prop_assert!(mem * 100 >= kill * 120);
                prop_assert!(one.seen_ms < ENOUGH_MS || mem * 100 >= advice.mem.peak.unwrap_or(0) * 115);
            }
        }

        #[test]
        fn the_fit_says_how_advice_and_what_is_asked_for_differ(one in any_use()) {
            let advice = advise(&one);
            for kind in [advice.cpu, advice.mem] {
                prop_assert!(kind.p50 <= kind.p95);
                prop_assert!(kind.peak.is_none_or(|peak| kind.p95 <= Some(peak)));
                let change = |advice: u64| {
                    let band = u128::from(kind.asked) * u128::from(DEAD_BAND_PERCENT) / 100;
                    (u128::from(advice.abs_diff(kind.asked)) > band, advice > kind.asked)
                };
                match kind.fit {
                    Fit::NotEnoughSeen => prop_assert_eq!(kind.advice, None),
                    Fit::Right => prop_assert!(!kind.advice.is_none_or(|it| change(it).0)),
                    Fit::OverAsked => prop_assert_eq!(kind.advice.map(change), Some((true, false))),
                    Fit::UnderAsked => prop_assert_eq!(kind.advice.map(change), Some((true, true))),
                }
                let spared = kind.spared(3);
                prop_assert_eq!(spared > 0, kind.fit == Fit::OverAsked);
                prop_assert_eq!(spared < 0, kind.fit == Fit::UnderAsked);
            }
        }

        #[test]
        fn who_follows_the_advice_has_it_right(mut one in any_use()) {
            one.cpu_limit_milli = None;
            let advice = advise(&one);
            one.asked_cpu_milli = advice.cpu.advice.unwrap_or(one.asked_cpu_milli);
            one.asked_mem_bytes = advice.mem.advice.unwrap_or(one.asked_mem_bytes);
            prop_assert!(matches!(advise(&one).fit(), Fit::Right | Fit::NotEnoughSeen));
        }

        #[test]
        fn who_uses_more_is_never_advised_less(one in any_use(), more in 0u64..1 << 40) {
            let before = advise(&one);
            let mut busier = one.clone();
            busier.days[1].mem_bytes = more;
            let weight = busier.cpu.total_ms() / 10 + 1;
            let most = before.cpu.peak.unwrap_or(0);
            busier.cpu.add(most.saturating_add(more % 1_000), weight);
            prop_assert!(advise(&busier).mem.advice >= before.mem.advice);
            // The share of the time that was held back has become less by this.
            busier.throttled_ms = 0;
            let calm = ClassUse { throttled_ms: 0, ..one };
            prop_assert!(advise(&busier).cpu.advice >= advise(&calm).cpu.advice);
        }
    }
}
