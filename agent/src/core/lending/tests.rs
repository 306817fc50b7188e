//! Scenarios on a small machine.

use ebb_types::{CorrectionAction, Quantities, Signal};

use super::super::usage::SampleVerdict;
use super::Config;
use super::world::{GIB, Sim, World, container};

/// A service that owns the machine and uses a fifth of it, for long enough to be known.
fn settled() -> World {
    let mut world = World::new();
    world.own("service", 2_000, 400);
    world.seconds(60);
    world
}

/// The same with a batch task on half of a CPU lent.
fn busy() -> World {
    let mut world = settled();
    world.lend("batch", 1_000, 1_000);
    world.seconds(10);
    assert!(world.corrections.is_empty(), "{:?}", world.actions());
    world
}

#[test]
fn slack_is_lent_once_a_task_has_shown_itself_and_not_before() {
    let mut world = World::new();
    world.own("service", 2_000, 400);
    for _ in 0..290 {
        assert!(world.step().usage.lent.is_zero());
    }
    let lent = world.seconds(31).usage.lent.cpu_milli();
    // 2,000 less 400 with a quarter more, less a reserve of 100.
    assert_eq!(lent, 1_400);
}

#[test]
fn what_nobody_is_allocated_is_not_lent() {
    let mut world = World::new();
    assert!(world.seconds(60).usage.lent.is_zero());
    world.own("service", 500, 0);
    assert_eq!(world.seconds(60).usage.lent.cpu_milli(), 400);
}

#[test]
fn growth_is_told_in_few_steps_and_never_faster_than_a_tenth_of_the_machine_a_second() {
    let world = settled();
    assert!(world.told.len() <= 8, "{:?}", world.told);
    for pair in world.told.windows(2) {
        let (grown, passed_ms) = (
            pair[1].1.cpu_milli() - pair[0].1.cpu_milli(),
            pair[1].0 - pair[0].0,
        );
        assert!(grown <= passed_ms * 200 / 1000 + 200, "{pair:?}");
    }
}

#[test]
fn a_rise_is_pushed_back_within_two_samples_and_shrinks_what_is_offered() {
    let mut world = busy();
    world.sim("service").wants_milli = 1_900;
    let first = world.step();
    let second = world.step();
    let corrections = [first.usage.corrections, second.usage.corrections].concat();
    assert!(!corrections.is_empty(), "nothing after 200 ms");
    let correction = &corrections[0];
    assert_eq!(correction.container_id, container("batch"));
    assert_eq!(correction.signal, Signal::MachineCpu);
    assert_eq!(
        correction.on_behalf_of.as_ref().map(|id| id.as_str()),
        Some("service")
    );
    assert!(correction.value > correction.threshold);
    assert!(second.offerable.is_zero());
    world.seconds(1);
    assert!(
        world.sim("batch").used_milli() <= 50,
        "{:?}",
        world.actions()
    );
    assert_eq!(world.sim("service").used_milli(), 1_900);
}

#[test]
fn a_small_rise_is_answered_by_a_cap_that_leaves_the_rest() {
    let mut world = busy();
    world.sim("service").wants_milli = 1_100;
    world.seconds(2);
    let used = world.sim("batch").used_milli();
    assert!((600..=800).contains(&used), "{used}: {:?}", world.actions());
    assert!(
        world
            .corrections
            .iter()
            .all(|c| matches!(c.action, CorrectionAction::Throttle { .. }))
    );
}

#[test]
fn a_machine_that_lent_work_merely_fills_is_left_alone() {
    let mut world = settled();
    for number in 0..5 {
        world.lend(&format!("batch-{number}"), 20, 1_000);
    }
    world.seconds(20);
    let used: u64 = world.sims.values().map(Sim::used_milli).sum();
    assert_eq!(used, 2_000, "the machine is full");
    assert!(world.corrections.is_empty(), "{:?}", world.actions());
    // They take turns: each claims more than it has had on average.
    for turn in 0..100 {
        for number in 0..5 {
            let wants = if (turn + number) % 2 == 0 { 1_000 } else { 100 };
            world.sim(&format!("batch-{number}")).wants_milli = wants;
        }
        world.step();
    }
    assert!(world.corrections.is_empty(), "{:?}", world.actions());
}

#[test]
fn an_owner_that_rises_on_a_full_machine_is_answered_within_two_looks() {
    for wanted in [700, 1_000, 1_300] {
        let mut world = settled();
        world.lend("batch", 100, 2_000);
        world.seconds(5);
        assert!(world.corrections.is_empty(), "{:?}", world.actions());
        world.run_for(60);
        world.sim("service").wants_milli = wanted;
        // The probes tell after a moment; a look ends what was before, two more show what is.
        let mut looks = 0;
        for ms in [10, 20, 20] {
            world.run_for(ms);
            let look = world.quick_sample();
            world.feed(&look);
            looks += u64::from(world.corrections.is_empty());
        }
        assert!(looks < 3, "{wanted}: {:?}", world.actions());
        assert_eq!(world.actions()[0].1, "throttle", "{:?}", world.actions());
    }
}

#[test]
fn an_owner_that_is_kept_waiting_on_a_full_machine_is_served_though_it_has_not_risen() {
    let mut world = settled();
    world.lend("batch", 100, 2_000);
    world.seconds(5);
    // 0.3 ms for each of 1,000 wake-ups: 0.3 cores that it would use.
    world.sim("service").wait_ns = 300_000;
    world.seconds(2);
    assert_eq!(world.actions()[0].1, "throttle", "{:?}", world.actions());
}

#[test]
fn a_busy_second_outside_of_ebb_delays_lending_by_seconds_and_not_by_minutes() {
    let mut world = World::new();
    world.own("service", 2_000, 400);
    world.seconds(40);
    world.unmanaged_milli = 1_600;
    world.seconds(1);
    assert!(world.lending.lent().is_zero(), "{}", world.lending.lent());
    world.unmanaged_milli = 0;
    world.seconds(25);
    assert_eq!(world.lending.lent().cpu_milli(), 1_400, "{:?}", world.told);
}

#[test]
fn work_outside_of_ebb_that_lasted_is_remembered_for_a_while_and_fades() {
    let mut world = World::new();
    world.own("service", 2_000, 400);
    world.seconds(40);
    world.unmanaged_milli = 1_600;
    world.seconds(20);
    world.unmanaged_milli = 0;
    world.seconds(15);
    assert!(world.lending.lent().cpu_milli() < 400, "{:?}", world.told);
    world.seconds(60);
    let lent = world.lending.lent().cpu_milli();
    assert!((900..1_400).contains(&lent), "{:?}", world.told);
    // What goes on is expected to go on.
    world.unmanaged_milli = 600;
    world.seconds(60);
    assert_eq!(world.lending.lent().cpu_milli(), 800, "{:?}", world.told);
}

#[test]
fn when_it_is_calm_everything_is_given_back_in_steps_and_lent_again_after_the_cool_down() {
    let mut world = busy();
    world.sim("service").wants_milli = 1_900;
    world.seconds(3);
    world.sim("service").wants_milli = 400;
    let tightened_at = world.corrections.last().map(|c| c.at.as_ms()).unwrap();
    let fell_ms = world.now_ms;
    world.seconds(20);
    assert_eq!(
        world.sim("batch").used_milli(),
        1_000,
        "{:?}",
        world.actions()
    );
    let eased: Vec<_> = world
        .corrections
        .iter()
        .filter(|c| c.at.as_ms() > tightened_at)
        .collect();
    assert!(eased.len() >= 3, "in steps: {eased:?}");
    assert!(eased[0].at.as_ms() >= fell_ms + 4_500, "{eased:?}");
    for pair in eased.windows(2) {
        assert!(pair[1].at.ms_since(pair[0].at) >= 1_000, "{eased:?}");
    }
    let last = eased.last().unwrap();
    assert_eq!(last.action, CorrectionAction::Release);
    for (at, lent) in world.told.iter().filter(|(at, _)| *at > fell_ms) {
        assert!(
            lent.cpu_milli() <= 1_000 || *at >= last.at.as_ms() + 10_000,
            "{at}: {lent}"
        );
    }
    world.seconds(320);
    assert!(
        world.told.last().unwrap().1.cpu_milli() >= 1_400,
        "{:?}",
        world.told
    );
}

#[test]
fn an_oscillating_load_makes_no_more_than_one_pair_of_answers_a_window() {
    for period_s in [1, 2, 5, 8, 12] {
        let mut world = busy();
        for half in 0..240 / period_s {
            world.sim("service").wants_milli = if half % 2 == 0 { 1_800 } else { 400 };
            world.seconds(period_s);
        }
        let mut tightenings = Vec::new();
        let mut eased = true;
        let mut cap = u64::MAX;
        for correction in &world.corrections {
            let next = match correction.action {
                CorrectionAction::Throttle { cpu_milli } => cpu_milli,
                CorrectionAction::Freeze | CorrectionAction::Evict => 0,
                CorrectionAction::Release => u64::MAX,
                CorrectionAction::LimitNetwork { .. }
                | CorrectionAction::ReleaseNetwork
                | CorrectionAction::ReclaimMemory { .. }
                | CorrectionAction::ReleaseMemory => cap,
            };
            if next < cap && eased {
                tightenings.push(correction.at.as_ms());
                eased = false;
            } else if next > cap {
                eased = true;
            }
            cap = next;
        }
        for pair in tightenings.windows(2) {
            assert!(
                pair[1] - pair[0] >= 5_000,
                "period {period_s}: {tightenings:?}"
            );
        }
        assert!(
            tightenings.len() <= 12,
            "period {period_s}: {tightenings:?}"
        );
    }
}

#[test]
fn what_stays_frozen_is_ended_so_that_it_can_run_elsewhere() {
    let mut world = busy();
    world.sim("service").wants_milli = 2_000;
    let rose_ms = world.now_ms;
    world.seconds(29);
    assert!(world.sims.contains_key("batch"), "{:?}", world.actions());
    world.seconds(4);
    let (at, action, task) = world.actions().pop().unwrap();
    assert_eq!((action, task.as_str()), ("evict", "batch"));
    assert!(at - rose_ms >= 30_000);
    let evicted = world.corrections.last().unwrap();
    assert!(evicted.duration_ms >= 30_000);
}

#[test]
fn a_gap_lends_no_more_than_is_in_use_and_starts_slowly_again() {
    let mut world = busy();
    assert!(world.step().offerable.cpu_milli() > 0);
    world.run_for(1_500);
    let outcome = world.step();
    assert_eq!(outcome.verdict, SampleVerdict::Gap);
    assert!(outcome.offerable.is_zero());
    assert_eq!(outcome.usage.lent.cpu_milli(), 1_000);
    for _ in 0..50 {
        assert!(world.step().offerable.is_zero());
    }
    assert!(world.seconds(30).offerable.cpu_milli() > 0);
    assert!(world.corrections.is_empty());
    assert_eq!(world.lending.counters().usage.gaps, 1);
}

#[test]
fn without_samples_the_driver_s_tick_takes_the_offer_back() {
    let mut world = settled();
    world.run_for(900);
    assert!(world.tick().offerable.cpu_milli() > 0);
    world.run_for(200);
    let outcome = world.tick();
    assert_eq!(outcome.oversubscribed, Some(Quantities::ZERO));
    assert_eq!(world.lending.counters().blind, 2); // the baseline and this
}

#[test]
fn a_clock_that_stands_still_is_forgiven_twice_and_then_nothing_is_lent() {
    let mut world = settled();
    world.clock_runs = false;
    for _ in 0..2 {
        let outcome = world.step();
        assert_eq!(outcome.verdict, SampleVerdict::Duplicate);
        assert!(outcome.offerable.cpu_milli() > 0);
    }
    assert_eq!(world.step().oversubscribed, Some(Quantities::ZERO));
}

#[test]
fn counters_that_start_again_are_a_new_baseline_and_no_use_of_ten_to_the_nineteen() {
    let mut world = settled();
    world.sim("service").counters.cpu_ns = Some(0);
    let outcome = world.step();
    assert_eq!(outcome.usage.tasks[0].used.cpu_milli, None);
    assert!(outcome.offerable.is_zero());
    assert_eq!(world.step().usage.tasks[0].used.cpu_milli, Some(400));
    assert_eq!(world.lending.counters().usage.resets, 1);
}

#[test]
fn cpu_time_that_cannot_be_is_not_believed() {
    let mut world = settled();
    world.sim("service").counters.cpu_ns = Some(u64::MAX / 2);
    let outcome = world.step();
    assert_eq!(outcome.usage.tasks[0].used.cpu_milli, None);
    assert_eq!(world.lending.counters().usage.implausible, 1);
}

#[test]
fn the_slack_of_a_task_that_cannot_be_read_is_not_lent_and_that_of_others_is() {
    let mut world = World::new();
    world.own("read", 1_000, 100);
    world.own("unread", 1_000, 100);
    world.seconds(60);
    let both = world.step().usage.lent.cpu_milli();
    world.sim("unread").readable = false;
    let one = world.step();
    assert_eq!(one.usage.tasks[1].used.cpu_milli, None);
    let one = one.usage.lent.cpu_milli();
    assert!(one > 0 && one <= both - 800, "{one} of {both}");
}

#[test]
fn a_newcomer_counts_what_it_is_allocated() {
    let mut world = World::new();
    world.own("known", 1_000, 100);
    world.seconds(60);
    let before = world.step().usage.lent.cpu_milli();
    world.own("new", 1_000, 0);
    let after = world.seconds(5).usage.lent.cpu_milli();
    assert_eq!(
        after, before,
        "its slack is not lent, and the machine still has room"
    );
    assert!(world.seconds(60).usage.lent.cpu_milli() > before + 800);
}

#[test]
fn work_outside_of_ebb_lowers_what_is_lent() {
    let mut world = settled();
    let before = world.step().usage.lent.cpu_milli();
    world.unmanaged_milli = 800;
    let after = world.seconds(2).usage.lent.cpu_milli();
    assert!(after <= before - 800, "{after} of {before}");
}

#[test]
fn tasks_that_start_and_end_are_not_taken_for_work_outside_of_ebb() {
    for probes in [true, false] {
        let mut world = settled();
        world.probes = probes;
        let before = world.step().usage.lent.cpu_milli();
        for i in 0..20 {
            let name = format!("batch-{i}");
            world.lend(&name, 500, 500);
            world.seconds(5);
            world.end(&name);
        }
        let after = world.seconds(10).usage.lent.cpu_milli();
        let tolerated = if probes { 0 } else { 100 };
        assert!(
            after + tolerated >= before,
            "{after} of {before}, probes: {probes}"
        );
    }
}

#[test]
fn an_agent_with_a_part_of_the_machine_keeps_to_it_and_ignores_work_in_the_rest() {
    let mut world = World::with(Config::default(), Quantities::cpus_mem(1_000, 4 * GIB));
    world.unmanaged_milli = 700; // another agent's tasks
    world.own("service", 1_000, 200);
    assert_eq!(world.seconds(60).usage.lent.cpu_milli(), 700);
    world.unmanaged_milli = 0;
    world.lend("batch", 700, 700);
    world.seconds(5);
    assert!(world.corrections.is_empty());
    world.sim("service").wants_milli = 900;
    world.seconds(1);
    assert!(
        world.sim("batch").used_milli() <= 140,
        "{:?}",
        world.actions()
    );
}

#[test]
fn latency_against_the_task_s_own_baseline_is_blamed_on_revocable_work_that_preempts_it() {
    let mut world = busy();
    let service = world.sim("service");
    (service.wait_ns, service.preempted_by_revocable_per_s) = (1_000_000, 30);
    assert!(world.step().offerable.cpu_milli() > 0);
    let outcome = world.step();
    let correction = world
        .corrections
        .first()
        .expect("a correction after 200 ms");
    assert!(
        outcome.offerable.is_zero(),
        "offered while something is held back"
    );
    assert_eq!(correction.signal, Signal::RunQueueLatency);
    assert_eq!(
        correction.on_behalf_of.as_ref().map(|id| id.as_str()),
        Some("service")
    );
    // Its normal mean is 20 us, so the floor is the bound.
    assert_eq!(
        (correction.value, correction.threshold),
        (1_000_000, 300_000)
    );
    let service = world.sim("service");
    (service.wait_ns, service.preempted_by_revocable_per_s) = (20_000, 0);
    world.seconds(30);
    assert_eq!(
        world.sim("batch").used_milli(),
        1_000,
        "{:?}",
        world.actions()
    );
}

#[test]
fn after_something_was_held_back_nothing_more_is_offered_for_the_cool_down() {
    let mut world = busy();
    let service = world.sim("service");
    (service.wait_ns, service.preempted_by_revocable_per_s) = (2_000_000, 30);
    world.seconds(1);
    let service = world.sim("service");
    (service.wait_ns, service.preempted_by_revocable_per_s) = (20_000, 0);
    let mut offered_at = None;
    for _ in 0..400 {
        if world.step().offerable.cpu_milli() > 0 {
            offered_at.get_or_insert(world.now_ms);
        }
    }
    let released = world.corrections.last().unwrap();
    assert_eq!(released.action, CorrectionAction::Release);
    let waited_ms = offered_at.expect("offered again") - released.at.as_ms();
    assert!((9_000..=13_000).contains(&waited_ms), "{waited_ms}");
}

#[test]
fn what_an_unreadable_owner_is_allocated_is_not_given_back_to_others() {
    let mut world = busy();
    world.sim("service").wants_milli = 1_900;
    world.seconds(2);
    world.sim("service").wants_milli = 200;
    world.own("unread", 1_500, 0);
    world.sim("unread").readable = false;
    world.seconds(25);
    assert!(
        world.sim("batch").used_milli() <= 100,
        "{:?}",
        world.actions()
    );
    world.sim("unread").readable = true;
    world.seconds(25);
    assert_eq!(
        world.sim("batch").used_milli(),
        1_000,
        "{:?}",
        world.actions()
    );
}

#[test]
fn a_clock_that_steps_back_is_a_new_baseline() {
    let mut world = settled();
    world.turn_clock_back(10_000);
    let outcome = world.step();
    assert_eq!(outcome.verdict, SampleVerdict::Backward);
    assert!(outcome.offerable.is_zero());
    for _ in 0..20 {
        let used = world.step().usage.tasks[0].used.cpu_milli;
        assert_eq!(used, Some(400));
    }
    let counters = world.lending.counters().usage;
    assert_eq!(
        (counters.backward, counters.implausible, counters.resets),
        (1, 0, 0)
    );
}

#[test]
fn figures_of_full_samples_stand_until_the_next_one_and_not_for_ever() {
    let mut world = settled();
    world.sim("service").disk_bytes_per_s = 5 << 20;
    world.seconds(3);
    for _ in 0..30 {
        let used = world.step().usage.tasks[0].used;
        assert_eq!(used.mem_bytes, Some(100 << 20));
        assert_eq!(used.disk_bytes_per_s, Some(5 << 20));
    }
    world.full_samples = false;
    let used = world.seconds(5).usage.tasks[0].used;
    assert_eq!((used.mem_bytes, used.disk_bytes_per_s), (None, None));
    assert_eq!(used.cpu_milli, Some(400));
}

#[test]
fn memory_on_its_way_back_is_counted_on_for_a_while_and_evictions_are_repeated() {
    let mut world = settled();
    world.obeys_evictions = false;
    for (name, mib) in [("a", 600), ("b", 900), ("c", 500)] {
        world.lend(name, 100, 50);
        world.sim(name).mem_bytes = mib << 20;
    }
    world.seconds(3);
    world.mem_available_bytes = 100 << 20;
    world.seconds(4);
    let whom = |world: &World| -> Vec<String> {
        world.actions().into_iter().map(|(_, _, who)| who).collect()
    };
    assert_eq!(whom(&world), ["b"]);
    world.seconds(3);
    assert_eq!(whom(&world), ["b", "a"], "b did not end, so a must");
    world.mem_available_bytes = 7 * GIB;
    world.seconds(27);
    assert_eq!(whom(&world), ["b", "a", "b"]);
    assert_eq!(world.lending.counters().evictions, 3);
}

#[test]
fn latency_that_stays_when_revocable_work_is_held_back_is_learnt_as_the_task_s_own() {
    let mut world = busy();
    let service = world.sim("service");
    (service.wait_ns, service.preempted_by_revocable_per_s) = (1_500_000, 20);
    world.seconds(120);
    assert_eq!(
        world.sim("batch").used_milli(),
        1_000,
        "{:?}",
        world.actions()
    );
    let at = world.corrections.last().unwrap().at.as_ms();
    assert!(
        at + 60_000 < world.now_ms,
        "still correcting: {:?}",
        world.actions()
    );
}

#[test]
fn a_task_that_its_own_quota_holds_back_blames_nobody() {
    let mut world = busy();
    let service = world.sim("service");
    service.view.cpu_limit_milli = Some(500);
    service.throttled_permille = 300;
    (service.wait_ns, service.preempted_by_revocable_per_s) = (20_000_000, 400);
    world.seconds(60);
    assert!(world.corrections.is_empty(), "{:?}", world.actions());
}

#[test]
fn latency_without_preemption_on_a_machine_with_room_blames_nobody() {
    let mut world = busy();
    world.sim("service").wait_ns = 5_000_000;
    world.seconds(30);
    assert!(world.corrections.is_empty(), "{:?}", world.actions());
}

#[test]
fn a_task_below_a_quarter_of_a_cpu_has_no_say_on_latency() {
    let mut world = World::new();
    world.own("small", 2_000, 100);
    world.lend("batch", 1_000, 1_000);
    world.seconds(10);
    let small = world.sim("small");
    (small.wait_ns, small.preempted_by_revocable_per_s) = (120_000, 100);
    world.seconds(10);
    assert!(world.corrections.is_empty(), "{:?}", world.actions());
}

#[test]
fn memory_that_runs_out_is_made_free_by_ending_the_largest_and_no_more_than_needed() {
    let mut world = settled();
    for (name, mib) in [("a", 100), ("b", 900), ("c", 300), ("d", 200)] {
        world.lend(name, 100, 50);
        world.sim(name).mem_bytes = mib << 20;
    }
    world.seconds(3);
    world.mem_available_bytes = 100 << 20;
    world.seconds(10);
    let actions: Vec<_> = world
        .actions()
        .into_iter()
        .map(|(_, what, who)| (what, who))
        .collect();
    assert_eq!(actions, [("evict", "b".to_owned())]);
    let correction = &world.corrections[0];
    assert_eq!(correction.signal, Signal::MachineMemory);
    assert!(correction.value < correction.threshold);
}

#[test]
fn the_largest_users_are_held_back_and_the_others_left_alone() {
    let mut world = World::new();
    world.own("service", 2_000, 200);
    world.seconds(60);
    for (name, milli) in [("large", 700), ("middle", 300), ("small", 100)] {
        world.lend(name, milli, milli);
    }
    world.seconds(5);
    world.sim("service").wants_milli = 1_300;
    world.seconds(2);
    let corrected: std::collections::BTreeSet<_> =
        world.actions().into_iter().map(|(_, _, who)| who).collect();
    assert_eq!(corrected.into_iter().collect::<Vec<_>>(), ["large"]);
}

#[test]
fn orders_about_unknown_containers_are_harmless() {
    let mut world = busy();
    for name in ["never", "batch-of-yesterday"] {
        world.lending.on_container_ended(&container(name));
    }
    world.seconds(1);
    world.end("batch");
    world.lend("batch", 1_000, 1_000);
    world.sim("service").wants_milli = 1_900;
    world.seconds(2);
    assert!(world.sim("batch").used_milli() <= 50);
}

#[test]
fn an_hour_of_coming_and_going_keeps_the_promises() {
    // The promises are asserted after every sample by the world itself.
    let mut world = World::new();
    world.own("base", 800, 200);
    for i in 0..3_600u64 {
        let roll = i.wrapping_mul(6_364_136_223_846_793_005).rotate_left(31) >> 33;
        match i % 37 {
            0 => world.own(&format!("own-{}", i / 37 % 3), 300, roll % 300),
            7 => world.end(&format!("own-{}", i / 37 % 3)),
            11 => world.lend(&format!("lent-{}", i / 37 % 4), 200, 200),
            23 => world.end(&format!("lent-{}", i / 37 % 4)),
            31 => world.sim("base").wants_milli = roll % 800,
            _ => {}
        }
        world.seconds(1);
    }
    assert!(world.told.iter().any(|(_, lent)| lent.cpu_milli() > 0));
    assert!(world.lending.counters().usage.samples == 36_000);
}
