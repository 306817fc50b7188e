//! Who is struck, how hard, and how it is explained: budgets, graces, stalls, promises.

use ebb_types::{ChoiceRule, CorrectionAction, FrameworkId, Signal};
use proptest::prelude::*;

use super::Config;
use super::world::{GIB, World};

fn settled(config: Config) -> World {
    let mut world = World::with(config, ebb_types::Quantities::cpus_mem(2_000, 8 * GIB));
    world.own("service", 2_000, 400);
    world.seconds(10);
    world
}

/// Lends to so many tasks of one framework, each larger than the next.
fn lend_all(world: &mut World, framework: &str, count: u64) {
    for i in 0..count {
        let name = format!("{framework}-{i}");
        world.lend(&name, 100, 50);
        world.sim(&name).mem_bytes = (400 - i) << 20;
        world.sim(&name).view.framework_id = FrameworkId::new(framework).unwrap();
    }
    world.seconds(3);
}

#[test]
fn every_correction_says_why_and_why_this_one() {
    let mut world = settled(Config::default());
    for (name, milli) in [("large", 700), ("middle", 300), ("small", 100)] {
        world.lend(name, milli, milli);
    }
    world.seconds(5);
    world.sim("service").wants_milli = 1_300;
    world.step();
    world.step();
    let first = &world.corrections[0];
    assert_eq!(first.task_id.as_str(), "large");
    let choice = first.choice;
    assert_eq!(
        (choice.rule, choice.rank, choice.candidates),
        (ChoiceRule::MostCpu, 1, 3)
    );
    assert_eq!((choice.amount, choice.spared), (700, false));
    assert_eq!((first.baseline, first.grace_ms), (None, 0));
    world.sim("service").wants_milli = 400;
    world.seconds(20);
    let eased = world.corrections.last().unwrap();
    assert_eq!(eased.choice.rule, ChoiceRule::HeldHardest);
    let service = world.sim("service");
    (service.wait_ns, service.preempted_by_revocable_per_s) = (1_500_000, 30);
    world.seconds(1);
    let blamed = world.corrections.last().unwrap();
    assert_eq!(blamed.signal, Signal::RunQueueLatency);
    assert_eq!(blamed.baseline, Some(20_000), "what is normal");
}

#[test]
fn beyond_its_budget_a_framework_s_tasks_are_frozen_and_in_danger_ended_all_the_same() {
    let mut config = Config::default();
    config.qos.budget_evictions = 2;
    let mut world = settled(config);
    lend_all(&mut world, "batch", 5);
    // A little less than enough, again and again.
    for _ in 0..6 {
        world.mem_available_bytes = 390 << 20;
        world.seconds(6);
    }
    let count = |world: &World, wanted: CorrectionAction| {
        world
            .corrections
            .iter()
            .filter(|c| c.action == wanted)
            .count()
    };
    assert_eq!(
        count(&world, CorrectionAction::Evict),
        2,
        "{:?}",
        world.actions()
    );
    let spared: Vec<_> = world
        .corrections
        .iter()
        .filter(|c| c.choice.spared)
        .collect();
    assert_eq!(spared.len(), 3, "{:?}", world.actions());
    assert!(spared.iter().all(|c| c.action == CorrectionAction::Freeze));
    assert_eq!(world.lending.counters().spared, 3);
    world.mem_available_bytes = 100 << 20;
    world.step();
    let last = world.corrections.last().unwrap();
    assert_eq!(last.action, CorrectionAction::Evict);
    assert_eq!(last.grace_ms, 0, "in danger nobody has time");
}

#[test]
fn the_budget_is_each_framework_s_own_and_comes_back_with_time() {
    let mut config = Config::default();
    config.qos.budget_evictions = 1;
    config.qos.budget_window_ms = 30_000;
    let mut world = settled(config);
    lend_all(&mut world, "a", 2);
    lend_all(&mut world, "b", 2);
    for _ in 0..3 {
        world.mem_available_bytes = 390 << 20;
        world.seconds(6);
    }
    let ended = |world: &World| -> Vec<String> {
        let evicted = world
            .corrections
            .iter()
            .filter(|c| c.action == CorrectionAction::Evict);
        evicted.map(|c| c.task_id.to_string()).collect()
    };
    assert_eq!(ended(&world), ["b-0", "a-0"], "{:?}", world.actions());
    world.mem_available_bytes = 7 * GIB;
    world.seconds(30);
    world.mem_available_bytes = 390 << 20;
    world.seconds(1);
    assert_eq!(ended(&world).len(), 3, "{:?}", world.actions());
}

#[test]
fn who_is_ended_for_cpu_has_been_frozen_and_is_given_time() {
    let mut world = settled(Config::default());
    world.lend("batch", 1_000, 1_000);
    world.seconds(10);
    world.sim("service").wants_milli = 2_000;
    world.seconds(34);
    let evicted = world.corrections.last().unwrap();
    assert_eq!(evicted.action, CorrectionAction::Evict);
    assert_eq!(evicted.grace_ms, Config::default().qos.evict_grace_ms);
}

#[test]
fn a_disk_that_a_revocable_task_fills_is_given_back_by_freezing_the_fewest() {
    let mut world = settled(Config::default());
    for (name, mib) in [("copy", 200), ("log", 4), ("idle", 0)] {
        world.lend(name, 100, 50);
        world.sim(name).disk_bytes_per_s = mib << 20;
    }
    world.sim("service").disk_bytes_per_s = 1 << 20;
    world.seconds(6);
    assert!(world.corrections.is_empty(), "{:?}", world.actions());
    world.sim("service").io_ns = 80_000_000;
    for _ in 0..40 {
        if world.step().usage.corrections.is_empty() {
            continue;
        }
        // The disk is free again.
        world.sim("service").io_ns = 1_000_000;
        world.sim("copy").disk_bytes_per_s = 0;
    }
    let first = &world.corrections[0];
    assert_eq!(
        (first.task_id.as_str(), first.action),
        ("copy", CorrectionAction::Freeze)
    );
    assert_eq!(first.signal, Signal::DiskLatency);
    assert_eq!(
        (first.choice.rule, first.choice.rank),
        (ChoiceRule::MostDisk, 1)
    );
    assert_eq!(
        first.on_behalf_of.as_ref().map(|id| id.as_str()),
        Some("service")
    );
    world.seconds(60);
    assert!(
        world
            .corrections
            .iter()
            .all(|c| c.task_id.as_str() == "copy")
    );
    let last = world.corrections.last().unwrap();
    assert_eq!(
        last.action,
        CorrectionAction::Release,
        "{:?}",
        world.actions()
    );
}

#[test]
fn stalls_for_memory_freeze_whoever_holds_it_on_loan() {
    let mut world = settled(Config::default());
    for (name, mib) in [("cache", 3_000), ("small", 50)] {
        world.lend(name, 100, 50);
        world.sim(name).mem_bytes = mib << 20;
    }
    world.seconds(6);
    world.mem_available_bytes = 1_000 << 20;
    world.sim("service").reclaim_permille = 400;
    world.seconds(3);
    let first = &world.corrections[0];
    assert_eq!(
        (first.task_id.as_str(), first.action),
        ("cache", CorrectionAction::Freeze)
    );
    assert_eq!(first.signal, Signal::MemoryStall);
    assert!(first.value > first.threshold);
}

/// An owner beside `cache`, which holds 3,000 MiB, most of it only cached, and `small`.
fn with_cache() -> World {
    let mut world = settled(Config::default());
    for (name, mib) in [("cache", 3_000), ("small", 50)] {
        world.lend(name, 100, 50);
        world.sim(name).mem_bytes = mib << 20;
    }
    world.sim("cache").cached_bytes = 2_000 << 20;
    world.seconds(6);
    world.mem_available_bytes = 1_000 << 20;
    world.sim("service").reclaim_permille = 200;
    world
}

#[test]
fn stalls_for_memory_first_take_what_is_only_cached_and_give_it_back_when_there_is_room() {
    let mut world = with_cache();
    while world.corrections.is_empty() {
        world.step();
    }
    let first = world.corrections[0].clone();
    let to_bytes = 2_000 << 20;
    assert_eq!(
        (first.task_id.as_str(), first.action),
        ("cache", CorrectionAction::ReclaimMemory { to_bytes })
    );
    assert_eq!(first.signal, Signal::MemoryStall);
    assert_eq!(first.choice.rule, ChoiceRule::MostMemory);
    assert_eq!(
        first.on_behalf_of.as_ref().map(|id| id.as_str()),
        Some("service")
    );
    world.sim("service").reclaim_permille = 0;
    // The owner has taken what was freed.
    world.seconds(60);
    let usage = world.step().usage;
    let cache = usage.tasks.iter().find(|t| t.task_id.as_str() == "cache");
    assert_eq!(cache.unwrap().memory_reclaimed_to_bytes, Some(to_bytes));
    assert_eq!(world.corrections.len(), 1, "{:?}", world.actions());
    world.mem_available_bytes = 3_000 << 20;
    world.seconds(2);
    let steps: Vec<_> = world
        .actions()
        .into_iter()
        .map(|(_, what, _)| what)
        .collect();
    assert_eq!(steps, ["reclaim_memory", "release_memory"]);
    let usage = world.step().usage;
    let cache = usage.tasks.iter().find(|t| t.task_id.as_str() == "cache");
    assert_eq!(cache.unwrap().memory_reclaimed_to_bytes, None);
}

#[test]
fn who_still_makes_owners_stall_without_its_cache_is_frozen() {
    let mut world = with_cache();
    world.seconds(8);
    world.sim("service").reclaim_permille = 0;
    world.mem_available_bytes = 3_000 << 20;
    world.seconds(60);
    let of_cache = |(_, what, whom): (u64, &'static str, String)| (whom == "cache").then_some(what);
    let steps: Vec<_> = world.actions().into_iter().filter_map(of_cache).collect();
    assert_eq!(steps[..2], ["reclaim_memory", "freeze"], "{steps:?}");
    assert!(steps.contains(&"release"), "{steps:?}");
    assert!(steps.contains(&"release_memory"), "{steps:?}");
}

#[test]
fn an_owner_that_stands_still_most_of_the_time_waits_for_no_second_answer() {
    let mut world = with_cache();
    world.sim("service").reclaim_permille = 700;
    world.seconds(3);
    let first = &world.corrections[0];
    assert_eq!(
        (first.task_id.as_str(), first.action),
        ("cache", CorrectionAction::Freeze)
    );
}

#[test]
fn a_promise_counts_time_in_which_owners_use_more_than_was_kept_and_no_other() {
    let mut world = settled(Config::default());
    let before = world.step().usage.promises;
    assert_eq!(before.cpu.watched_ms, 0, "nothing is lent yet");
    world.seconds(60);
    let kept = world.step().usage;
    assert!(kept.lent.cpu_milli() > 1_000);
    assert!(kept.promises.cpu.watched_ms > 10_000);
    assert_eq!(kept.promises.cpu.broken_ms, 0);
    world.lend("batch", 1_400, 0);
    world.sim("service").wants_milli = 1_500;
    world.seconds(10);
    let broken = world.step().usage.promises.cpu;
    assert!((8_000..=10_100).contains(&broken.broken_ms), "{broken:?}");
    assert_eq!(
        broken.broken_ppm().unwrap(),
        broken.broken_ms * 1_000_000 / broken.watched_ms
    );
    world.sim("service").readable = false;
    world.seconds(3);
    let blind = world.step().usage.promises.cpu;
    world.seconds(5);
    let later = world.step().usage.promises.cpu;
    assert_eq!(blind, later, "an owner that is not measured is not watched");
}

/// The fewest containers whose memory covers what is missing, by trying all sets.
fn fewest(missing: u64, sizes: &[u64]) -> Option<u32> {
    (0..1u32 << sizes.len())
        .filter(|set| {
            let sum: u64 = (0..sizes.len())
                .filter(|i| set >> i & 1 == 1)
                .map(|i| sizes[i])
                .sum();
            sum >= missing
        })
        .map(u32::count_ones)
        .min()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn never_more_are_ended_than_the_fewest_that_suffice(
        sizes_mib in prop::collection::vec(20u64..900, 1..8), available_mib in 210u64..400
    ) {
        let mut config = Config::default();
        config.qos.budget_evictions = 100;
        let mut world = settled(config);
        for (i, mib) in sizes_mib.iter().enumerate() {
            let name = format!("b{i}");
            world.lend(&name, 50, 20);
            world.sim(&name).mem_bytes = mib << 20;
        }
        world.seconds(3);
        world.mem_available_bytes = available_mib << 20;
        world.step();
        world.step();
        let ended = world.corrections.iter().filter(|c| c.action == CorrectionAction::Evict);
        let ended = ended.count();
        // A twentieth is to be left, and a fiftieth more.
        let wanted = 8 * GIB * 50 / 1000 + 8 * GIB * 20 / 1000;
        let missing = wanted - (available_mib << 20);
        let bytes: Vec<u64> = sizes_mib.iter().map(|mib| mib << 20).collect();
        let expected = fewest(missing, &bytes).map_or(sizes_mib.len(), |n| n as usize);
        let low = available_mib << 20 < 8 * GIB * 50 / 1000;
        prop_assert_eq!(ended, if low { expected } else { 0 });
    }
}
