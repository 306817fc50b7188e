//! What is counted for a class, what is not, and who leaves when there are too many.

use ebb_types::{
    Fit, FrameworkId, Quantities, Resources, TaskId, TaskSources, TaskUsageFigures, advise,
};
use proptest::prelude::*;

use super::*;

const MIB: u64 = 1 << 20;

fn id(name: &str) -> ContainerId {
    ContainerId::new(name).expect("valid")
}

fn at(ms: u64) -> Timestamp {
    Timestamp::from_ms(ms)
}

fn holder(class: &str) -> Holder {
    Holder {
        framework_id: FrameworkId::new("f").expect("valid"),
        name: class.to_owned(),
        class: class.to_owned(),
    }
}

fn view(name: &str) -> RunningView {
    RunningView {
        container_id: id(name),
        framework_id: FrameworkId::new("f").expect("valid"),
        task_id: TaskId::new(name).expect("valid"),
        allocated: Resources::regular(Quantities::cpus_mem(1_000, 512 * MIB)),
        cpu_limit_milli: None,
        started_at: at(0),
        ends_at: None,
        siblings: None,
    }
}

fn usage(view: &RunningView, cpu_milli: Option<u64>, mem_bytes: Option<u64>) -> TaskUsage {
    TaskUsage {
        framework_id: view.framework_id.clone(),
        task_id: view.task_id.clone(),
        container_id: view.container_id.clone(),
        allocated: view.allocated,
        used: TaskUsageFigures {
            cpu_milli,
            mem_bytes,
            ..TaskUsageFigures::default()
        },
        sources: TaskSources::all(ebb_types::MeasureSource::Files),
        throttled_to_milli: None,
        frozen: false,
        network_limited_to_bytes_per_s: None,
        memory_reclaimed_to_bytes: None,
    }
}

/// A class `web` with one task, read every 100 ms from then on.
struct World {
    classes: Classes,
    now_ms: u64,
    view: RunningView,
}

impl World {
    fn new() -> Self {
        let mut classes = Classes::default();
        let view = view("web.1");
        classes.begin(at(0), &id("web.1"), &holder("web"), Since::Launch);
        Self {
            classes,
            now_ms: 0,
            view,
        }
    }

    fn read(&mut self, ms: u64, used: &TaskUsage) {
        for _ in 0..ms / 100 {
            self.classes
                .fold(at(self.now_ms), std::iter::once((&self.view, used)));
            self.now_ms += 100;
        }
    }

    fn seen(&self) -> ClassUse {
        self.classes.kept().pop().expect("the class")
    }
}

#[test]
fn a_task_read_ten_times_a_second_is_counted_once_a_second_with_its_time() {
    let mut world = World::new();
    let used = usage(&world.view, Some(100), Some(50 * MIB));
    world.read(7_300_000, &used);
    let seen = world.seen();
    assert_eq!((seen.seen_ms, seen.cpu_seen_ms), (7_299_000, 7_299_000));
    assert!(seen.cpu.buckets().len() == 1 && seen.mem.buckets().len() == 1);
    assert_eq!((seen.tasks, seen.running, seen.idle_ms), (1, 1, 0));
    assert_eq!(
        (seen.asked_cpu_milli, seen.asked_mem_bytes),
        (1_000, 512 * MIB)
    );
    let advice = advise(&seen);
    assert_eq!(
        (advice.cpu.fit, advice.mem.fit),
        (Fit::OverAsked, Fit::OverAsked)
    );
    assert_eq!(advice.mem.peak, Some(50 * MIB));
    assert_eq!(advice.throttled_permille, 0);
}

#[test]
fn what_was_not_measured_counts_for_nothing_and_a_gap_for_two_seconds_at_most() {
    let mut world = World::new();
    let nothing = usage(&world.view, None, None);
    world.read(10_000, &nothing);
    assert_eq!(world.seen().seen_ms, 0);
    let due = world.classes.due(at(world.now_ms));
    assert!(due.is_empty(), "there is nothing to tell");
    let used = usage(&world.view, None, Some(MIB));
    world.now_ms += 60_000;
    world.read(100, &used);
    let seen = world.seen();
    assert_eq!((seen.seen_ms, seen.cpu_seen_ms), (MAX_FOLD_MS, 0));
}

#[test]
fn of_who_is_lent_cpu_only_the_memory_counts() {
    let mut world = World::new();
    world.view.allocated = Resources {
        regular: Quantities::cpus_mem(0, 512 * MIB),
        revocable: Quantities::cpus_mem(1_000, 0),
    };
    let used = usage(&world.view, Some(900), Some(50 * MIB));
    world.read(10_000, &used);
    let seen = world.seen();
    assert!(seen.cpu.is_empty() && seen.cpu_seen_ms == 0);
    assert_eq!(seen.peaks().cpu_milli, 0);
    assert_eq!(
        (seen.peaks().mem_bytes, seen.asked_cpu_milli),
        (50 * MIB, 1_000)
    );
}

#[test]
fn a_second_in_which_its_own_ceiling_held_it_back_is_noted_as_such() {
    let mut world = World::new();
    let mut used = usage(&world.view, Some(500), None);
    used.used.throttled_permille = Some(300);
    world.read(10_100, &used);
    assert_eq!(world.seen().throttled_ms, 0, "it has no ceiling");
    world.view.cpu_limit_milli = Some(500);
    world.read(5_000, &used);
    used.used.throttled_permille = Some(20);
    world.read(5_000, &used);
    assert_eq!(world.seen().throttled_ms, 5_000);
    assert_eq!(world.seen().cpu_limit_milli, Some(500));
}

#[test]
fn a_kill_at_its_own_limit_counts_and_one_of_the_machine_does_not() {
    let mut world = World::new();
    let killed = |cause| OomKilled {
        victim: OomVictim::Container(id("web.1"), holder("web")),
        pid: Some(1),
        asked_by: None,
        cause,
    };
    let limit_bytes = 512 * MIB;
    world.classes.on_kill(at(5), &killed(OomCause::Machine));
    world.classes.on_kill(at(5), &killed(OomCause::Unknown));
    assert_eq!(world.seen().peaks().ooms, 0);
    // Its last reading, with the cause, comes when it has ended.
    world
        .classes
        .end(at(world.now_ms), &id("web.1"), End::Other);
    assert_eq!(world.classes.due(at(5)).len(), 1);
    world
        .classes
        .on_kill(at(5), &killed(OomCause::OwnLimit { limit_bytes }));
    let due = world.classes.due(at(6));
    assert_eq!(due[0].peaks().ooms, 1, "it is told at once");
    let peaks = world.seen().peaks();
    assert_eq!((peaks.ooms, peaks.oom_limit_bytes), (1, limit_bytes));
}

#[test]
fn the_master_is_told_of_each_class_once_a_minute_and_of_all_of_them_in_turn() {
    let mut classes = Classes::default();
    let names: Vec<String> = (0..40).map(|n| format!("c{n}")).collect();
    for name in &names {
        classes.begin(at(0), &id(name), &holder(name), Since::Launch);
    }
    assert!(classes.due(at(0)).is_empty(), "nothing was measured");
    classes.tell_all();
    let mut told = Vec::new();
    for second in 0..10 {
        let due = classes.due(at(second * 1_000));
        assert!(due.len() <= MAX_CLASSES_PER_REPORT);
        told.extend(due.into_iter().map(|seen| seen.key.class));
    }
    told.sort();
    let mut all = names.clone();
    all.sort();
    assert_eq!(told, all);
    assert!(classes.due(at(100_000)).is_empty(), "nothing has changed");
    classes.end(at(100_000), &id("c7"), End::Other);
    let due = classes.due(at(100_000));
    assert_eq!((due.len(), due[0].running), (1, 0));
    classes.begin(at(100_001), &id("c7"), &holder("c7"), Since::Launch);
    assert!(
        classes.due(at(159_999)).is_empty(),
        "it was told a moment ago"
    );
    assert_eq!(classes.due(at(160_000)).len(), 1);
    classes.tell_all();
    assert_eq!(classes.due(at(160_001)).len(), MAX_CLASSES_PER_REPORT);
}

#[test]
fn who_was_idle_for_longest_makes_room_and_who_runs_never_does() {
    let mut classes = Classes::default();
    let name = |n: usize| format!("c{n}");
    for n in 0..MAX_CLASSES_PER_AGENT {
        let ms = 10 + n as u64;
        classes.begin(at(ms), &id(&name(n)), &holder(&name(n)), Since::Launch);
    }
    classes.begin(at(5_000), &id("new"), &holder("new"), Since::Launch);
    assert_eq!(classes.counters().unfollowed, 1);
    classes.end(at(5_000), &id("new"), End::Other);
    classes.end(at(5_000), &id("c7"), End::Other);
    classes.end(at(5_000), &id("c3"), End::Other);
    classes.begin(at(6_000), &id("new"), &holder("new"), Since::Launch);
    assert_eq!(
        (classes.counters().dropped, classes.len()),
        (1, MAX_CLASSES_PER_AGENT)
    );
    let kept = classes.kept();
    let is_kept = |class: &str| kept.iter().any(|seen| seen.key.class == class);
    assert!(!is_kept("c3") && is_kept("c7") && is_kept("new"));
}

#[test]
fn what_was_kept_over_a_restart_has_aged_and_goes_on() {
    let mut world = World::new();
    let used = usage(&world.view, Some(100), Some(50 * MIB));
    world.read(10_000_000, &used);
    let before = world.seen();
    let mut again = Classes::default();
    let day_ms = 24 * HOUR_MS;
    let now = at(world.now_ms + day_ms);
    again.take_up(now, world.classes.kept());
    again.begin(now, &id("web.1"), &holder("web"), Since::Before);
    let after = again.kept().pop().expect("the class");
    assert_eq!(
        (after.tasks, after.running, after.seen_ms),
        (1, 1, before.seen_ms)
    );
    assert_eq!(after.peaks(), before.peaks());
    assert!(after.cpu.total_ms() * 2 <= before.cpu.total_ms());
    assert_eq!(again.due(now).len(), 1);
    // A clock that has gone backward makes nothing older.
    let mut back = Classes::default();
    back.take_up(at(1), world.classes.kept());
    assert_eq!(back.kept()[0].cpu, before.cpu);
    assert_eq!(back.kept()[0].at, at(1));
}

#[test]
fn who_finished_shows_how_long_the_next_one_will_run_and_who_was_ended_does_not() {
    let mut world = World::new();
    let used = usage(&world.view, Some(100), Some(MIB));
    let mut run = |name: &str, since, ms: u64, end| {
        let now = at(world.now_ms);
        world.classes.begin(now, &id(name), &holder("web"), since);
        let siblings = world.classes.siblings(&id(name));
        world.read(ms, &used);
        world.classes.end(at(world.now_ms), &id(name), end);
        siblings.map(|of| (of.finished, of.longest_ms))
    };
    assert_eq!(run("a", Since::Launch, 90_000, End::Other), None);
    assert_eq!(run("b", Since::Launch, 30_000, End::Finished), Some((0, 0)));
    assert_eq!(
        run("c", Since::Launch, 60_000, End::Finished),
        Some((1, 30_000))
    );
    let found = run("d", Since::Before, 80_000, End::Finished);
    assert_eq!(found, Some((2, 60_000)), "as any other it is told");
    let last = run("e", Since::Launch, 1_000, End::Finished);
    assert_eq!(last, Some((2, 60_000)), "it was there before it was seen");
    let mut again = Classes::default();
    let days_ms = 7 * 24 * HOUR_MS;
    again.take_up(at(world.now_ms + days_ms), world.classes.kept());
    assert_eq!(again.kept()[0].peaks().life_ms, 60_000);
    again.take_up(
        at(world.now_ms + days_ms + 24 * HOUR_MS),
        world.classes.kept(),
    );
    let peaks = again.kept()[0].peaks();
    assert_eq!(
        (peaks.finished, peaks.life_ms),
        (0, 0),
        "nothing counts for ever"
    );
}

#[test]
fn what_says_nothing_any_more_is_forgotten_and_who_runs_is_not() {
    let mut world = World::new();
    world
        .classes
        .begin(at(0), &id("old"), &holder("old"), Since::Launch);
    world.classes.end(at(world.now_ms), &id("old"), End::Other);
    assert_eq!(world.classes.len(), 2);
    let used = usage(&world.view, None, None);
    world.read(HOUR_MS + 1_000, &used);
    assert_eq!(world.classes.len(), 1);
    assert_eq!(world.seen().key.class, "web");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn whatever_comes_running_tasks_are_counted_right_and_peaks_are_not_missed(
        steps in prop::collection::vec((0usize..6, 0u8..4, 0u64..3_000, 0u64..4_000), 1..200)
    ) {
        let mut classes = Classes::default();
        let mut now_ms = 0;
        let mut running = std::collections::BTreeSet::new();
        let mut peak = 0;
        for (which, what, pass_ms, cpu_milli) in steps {
            now_ms += pass_ms;
            let name = format!("t{which}");
            let class = format!("c{}", which % 2);
            match what {
                0 => {
                    classes.begin(at(now_ms), &id(&name), &holder(&class), Since::Launch);
                    running.insert(name);
                }
                1 => {
                    classes.end(at(now_ms), &id(&name), End::Finished);
                    running.remove(&name);
                }
                _ => {
                    let before = classes.folded_at;
                    let views: Vec<_> = running.iter().map(|name| view(name)).collect();
                    let used: Vec<_> =
                        views.iter().map(|view| usage(view, Some(cpu_milli), Some(1))).collect();
                    classes.fold(at(now_ms), views.iter().zip(&used));
                    if before.is_some() && classes.folded_at != before && !running.is_empty() {
                        peak = peak.max(cpu_milli);
                    }
                }
            }
            let kept = classes.kept();
            let count: u64 = kept.iter().map(|seen| seen.running).sum();
            prop_assert_eq!(count, running.len() as u64);
            let seen = kept.iter().map(|seen| seen.peaks().cpu_milli).max();
            prop_assert_eq!(seen.unwrap_or(0), peak);
            for seen in &kept {
                prop_assert!(seen.cpu.total_ms() <= seen.seen_ms && seen.seen_ms <= now_ms * 6);
            }
        }
    }
}
