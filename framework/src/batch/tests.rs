//! Tests of the batch against a scripted master: whatever the order of events and faults, every
//! command comes to an end, and none is started more often than allowed.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use ebb_types::{Lasting, LastingPoint, Role};
use proptest::prelude::*;

use super::core::Batch;
use super::journal::{Journal, NoJournal, Record};
use super::*;
use crate::command::CommandSpec;
use crate::offers::{Claim, Demand};
use crate::scheduler::Input;
use crate::testing::{Faults, Manners, World};

const STEPS: u64 = 200_000;
const WELL: Manners = Manners {
    fail: 0,
    preempt: 0,
    endless: 0,
};

fn config(commands: usize, at_most: usize, retries: u32, preemptions: u32) -> BatchConfig {
    BatchConfig {
        masters: vec!["m".into()],
        name: "b".into(),
        role: Role::new("*").expect("valid"),
        user: String::new(),
        commands: (0..commands)
            .map(|index| BatchCommand {
                name: format!("c{index}"),
                command: CommandSpec::shell("true"),
            })
            .collect(),
        at_most,
        demand: Demand::cpus_mem(1000, 1 << 20),
        retries,
        preemptions,
        expected_run_ms: None,
        max_completion_ms: None,
        kill_grace_ms: None,
        state: None,
        give_up_after_ms: None,
    }
}

/// A journal in memory, which a second batch reads as if from a disk.
#[derive(Clone, Default)]
struct Shared(Arc<Mutex<Vec<Record>>>);

impl Journal for Shared {
    fn append(&mut self, records: &[Record]) -> Result<(), BatchError> {
        self.0
            .lock()
            .expect("not poisoned")
            .extend_from_slice(records);
        Ok(())
    }
}

fn batch(config: &BatchConfig, journal: Box<dyn Journal>) -> Batch {
    let stop = Arc::new(AtomicBool::new(false));
    Batch::new(config.clone(), "t", journal, Box::new(|_| {}), stop)
}

fn world(config: &BatchConfig, seed: u64) -> World<Batch> {
    let scheduler = scheduler_config(config);
    World::new(batch(config, Box::new(NoJournal)), &scheduler, seed, 3, 4)
}

/// How often each command was started.
fn starts(world: &World<Batch>) -> BTreeMap<String, u32> {
    let mut starts = BTreeMap::new();
    for task in &world.started {
        *starts.entry(task.name.clone()).or_default() += 1;
    }
    starts
}

fn check_end(world: &World<Batch>, config: &BatchConfig) -> Report {
    let report = world.engine.scheduler().report(0);
    let counts = report.counts;
    assert!(!report.stopped, "{:?}", counts);
    assert_eq!(counts.finished + counts.failed, counts.commands);
    assert_eq!((counts.waiting, counts.launched, counts.running), (0, 0, 0));
    assert_eq!(report.failures.len() as u64, counts.failed);
    let told = matches!(
        world.finished,
        Some(crate::scheduler::Finished::Asked { told: true, .. })
    );
    assert!(world.torn_down || !told, "{:?}", world.finished);
    let most = 1 + config.retries + config.preemptions;
    for (name, count) in starts(world) {
        assert!(
            count <= most,
            "{name} was started {count} times, {most} allowed"
        );
    }
    report
}

#[test]
fn every_command_runs_exactly_once_where_nothing_fails() {
    let config = config(50, 7, 0, 0);
    let mut world = world(&config, 1);
    for _ in 0..STEPS {
        if world.finished.is_some() {
            break;
        }
        world.step();
        let alive = world.tasks.values().filter(|t| !t.state.is_terminal());
        assert!(alive.count() <= 7, "more at a time than asked for");
    }
    let report = check_end(&world, &config);
    assert!(report.is_success());
    let starts = starts(&world);
    assert_eq!(starts.len(), 50);
    assert!(starts.values().all(|count| *count == 1));
}

#[test]
fn no_command_starts_where_the_agent_will_be_out_of_use_before_it_ends() {
    let mut config = config(12, 3, 0, 0);
    config.max_completion_ms = Some(60_000);
    for (in_ms, is_used) in [(59_000, false), (100 * 24 * 3_600_000, true)] {
        let mut world = world(&config, 1);
        let window = ebb_types::Unavailability {
            start: world.now.plus_ms(in_ms),
            duration_ms: None,
        };
        world.leaving = Some((0, window));
        world.until(STEPS, "the end", |world| world.finished.is_some());
        assert!(check_end(&world, &config).is_success());
        let used = world.started.iter().map(|task| task.agent_id.as_str());
        assert_eq!(used.into_iter().any(|id| id == "agent-0"), is_used);
    }
}

#[test]
fn a_command_runs_only_on_what_is_expected_to_stay_lent_until_it_ends() {
    let mut config = config(12, 3, 0, 0);
    config.demand = config.demand.claiming(Claim::Revocable);
    let lasting = Lasting {
        confidence_permille: 900,
        points: vec![LastingPoint {
            time_ms: 600_000,
            amount: config.demand.amount,
        }],
    };
    for (run_ms, others_are_used) in [(Some(600_000), false), (None, true)] {
        config.expected_run_ms = run_ms;
        let mut world = world(&config, 1);
        world.lasting = Some((1, lasting.clone()));
        world.until(STEPS, "the end", |world| world.finished.is_some());
        assert!(check_end(&world, &config).is_success());
        let on = |id| {
            world
                .started
                .iter()
                .any(|task| task.agent_id.as_str() == id)
        };
        assert!(on("agent-1") || others_are_used, "{run_ms:?}");
        assert_eq!(
            on("agent-0") || on("agent-2"),
            others_are_used,
            "{run_ms:?}"
        );
    }
    // Longer than anybody says.
    config.expected_run_ms = Some(600_001);
    let mut world = world(&config, 1);
    world.lasting = Some((1, lasting));
    (0..2_000).for_each(|_| world.step());
    assert!(world.started.is_empty());
}

#[test]
fn failures_are_retried_so_often_and_reported_with_where_and_how() {
    let always = Manners {
        fail: 100,
        preempt: 0,
        endless: 0,
    };
    let config = config(3, 2, 2, 0);
    let mut world = world(&config, 5).with(Faults::NONE, always);
    world.until(STEPS, "the end", |world| world.finished.is_some());
    let report = check_end(&world, &config);
    assert!(starts(&world).values().all(|count| *count == 3));
    assert_eq!(report.counts.retries, 6);
    let first = &report.failures[0];
    assert_eq!((first.name.as_str(), first.number), ("c0", 1));
    assert_eq!((first.end, first.exit_code), (CommandEnd::Failed, Some(3)));
    assert!(
        first
            .agent_id
            .as_deref()
            .is_some_and(|id| id.starts_with("agent-"))
    );
    assert!(
        first
            .task_id
            .as_deref()
            .is_some_and(|id| id.ends_with("-1.3")),
        "{first:?}"
    );
}

#[test]
fn preemption_counts_as_its_own_kind_and_consumes_no_retry() {
    let always = Manners {
        fail: 0,
        preempt: 100,
        endless: 0,
    };
    let config = config(4, 4, 3, 2);
    let mut world = world(&config, 9).with(Faults::NONE, always);
    world.until(STEPS, "the end", |world| world.finished.is_some());
    let report = check_end(&world, &config);
    assert_eq!((report.counts.preemptions, report.counts.retries), (12, 0));
    assert!(
        report
            .failures
            .iter()
            .all(|f| f.end == CommandEnd::Preempted)
    );
}

#[test]
fn a_stopped_batch_kills_what_runs_and_reports_the_rest_as_not_run() {
    let endless = Manners {
        endless: 100,
        ..WELL
    };
    let config = config(30, 5, 0, 0);
    let stop = Arc::new(AtomicBool::new(false));
    let batch = Batch::new(
        config.clone(),
        "t",
        Box::new(NoJournal),
        Box::new(|_| {}),
        Arc::clone(&stop),
    );
    let mut world =
        World::new(batch, &scheduler_config(&config), 3, 3, 4).with(Faults::NONE, endless);
    world.until(STEPS, "five run", |world| world.running().count() == 5);
    stop.store(true, Ordering::Release);
    world.input(Input::Wake);
    world.until(STEPS, "the end", |world| world.finished.is_some());
    let report = world.engine.scheduler().report(0);
    assert!(report.stopped && world.torn_down);
    let of = |end| report.failures.iter().filter(|f| f.end == end).count();
    assert_eq!((of(CommandEnd::Killed), of(CommandEnd::NotRun)), (5, 25));
}

#[test]
fn a_command_that_ran_before_the_batch_was_killed_is_not_run_again_when_its_task_is_gone() {
    let endless = Manners {
        endless: 100,
        ..WELL
    };
    let config = config(1, 1, 0, 0);
    let journal = Shared::default();
    let scheduler = scheduler_config(&config);
    let first = batch(&config, Box::new(journal.clone()));
    let mut world = World::new(first, &scheduler, 3, 1, 4).with(Faults::NONE, endless);
    world.until(STEPS, "it is known to run", |world| {
        world.engine.scheduler().report(0).counts.running == 1
    });
    let mut next = batch(&config, Box::new(journal.clone()));
    let records = journal.0.lock().expect("not poisoned").clone();
    next.replay(&records).expect("valid");
    let resumed = scheduler.resuming(next.framework_id().cloned());
    // The agent has lost everything that it knew.
    world.tasks.clear();
    world.restart(next, &resumed, 4);
    world.until(STEPS, "the end", |world| world.finished.is_some());
    let report = check_end(&world, &config);
    assert_eq!(world.started.len(), 1, "its effect may stand already");
    assert_eq!(report.failures[0].end, CommandEnd::Lost);
}

#[test]
fn a_journal_that_cannot_be_written_holds_launches_back() {
    struct Full(Arc<AtomicBool>);
    impl Journal for Full {
        fn append(&mut self, records: &[Record]) -> Result<(), BatchError> {
            if records.is_empty() || !self.0.load(Ordering::Acquire) {
                return Ok(());
            }
            Err(BatchError::State {
                operation: "write",
                path: "state".into(),
                remedy: "make room",
                source: std::io::ErrorKind::StorageFull.into(),
            })
        }
    }
    let full = Arc::new(AtomicBool::new(true));
    let config = config(5, 5, 0, 0);
    let batch = batch(&config, Box::new(Full(Arc::clone(&full))));
    let mut world = World::new(batch, &scheduler_config(&config), 3, 2, 4);
    for _ in 0..5_000 {
        world.step();
    }
    assert!(world.started.is_empty() && world.finished.is_none());
    full.store(false, Ordering::Release);
    world.until(STEPS, "the end", |world| world.finished.is_some());
    assert!(check_end(&world, &config).is_success());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    #[test]
    fn under_every_fault_each_command_ends_and_none_is_started_too_often(
        seed in any::<u64>(),
        commands in 1usize..25,
        at_most in 1usize..10,
        retries in 0u32..3,
        preemptions in 0u32..3,
    ) {
        let config = config(commands, at_most, retries, preemptions);
        let manners = Manners { fail: 20, preempt: 15, endless: 0 };
        let mut world = world(&config, seed).with(Faults::ALL, manners);
        world.until(STEPS, "the end", |world| world.finished.is_some());
        let report = check_end(&world, &config);
        // Every command was really started: none is counted as ended that never was.
        prop_assert_eq!(starts(&world).len(), commands);
        prop_assert!(report.failures.iter().all(|f| f.end != CommandEnd::Lost), "none is lost here");
    }

    #[test]
    fn a_batch_that_is_killed_and_started_again_goes_on_exactly_where_it_was(
        seed in any::<u64>(),
        commands in 1usize..20,
        kills in prop::collection::vec(1u64..600, 1..6),
    ) {
        let config = config(commands, 4, 0, 0);
        let journal = Shared::default();
        let scheduler = scheduler_config(&config);
        let first = batch(&config, Box::new(journal.clone()));
        let mut world = World::new(first, &scheduler, seed, 3, 4).with(Faults::ALL, WELL);
        for (index, steps) in kills.into_iter().enumerate() {
            for _ in 0..steps {
                world.step();
            }
            if world.finished.is_some() {
                break;
            }
            let mut next = batch(&config, Box::new(journal.clone()));
            let records = journal.0.lock().expect("not poisoned").clone();
            next.replay(&records).map_err(TestCaseError::fail)?;
            let resumed = scheduler.clone().resuming(next.framework_id().cloned());
            world.restart(next, &resumed, seed ^ index as u64);
        }
        world.until(STEPS, "the end", |world| world.finished.is_some());
        let report = check_end(&world, &config);
        prop_assert!(report.is_success(), "{:?}", report.failures);
        prop_assert!(starts(&world).values().all(|count| *count == 1));
    }
}
