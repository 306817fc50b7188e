//! A thousand runs with every fault on, and the proof that the checks can fail.

use std::sync::atomic::{AtomicU64, Ordering};

use ebb_tests_sim::{Planted, run};

/// Runs of the healthy cluster.
const SEEDS: u64 = 1_000;
/// Within so many runs each planted fault must show.
const SEEDS_FOR_PLANTED: u64 = 200;

fn in_parallel(seeds: u64, each: impl Fn(u64) -> bool + Sync) {
    let next = AtomicU64::new(0);
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some(seed) =
                    Some(next.fetch_add(1, Ordering::Relaxed)).filter(|seed| *seed < seeds)
                {
                    if !each(seed) {
                        next.store(seeds, Ordering::Relaxed);
                    }
                }
            });
        }
    });
}

#[test]
fn a_thousand_runs_with_all_faults_break_no_rule() {
    let (tasks, runs, lives) = (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
    let (drains, limited) = (AtomicU64::new(0), AtomicU64::new(0));
    let (maintained, chosen) = (AtomicU64::new(0), AtomicU64::new(0));
    let (operations, repeated) = (AtomicU64::new(0), AtomicU64::new(0));
    let failures = std::sync::Mutex::new(Vec::new());
    in_parallel(SEEDS, |seed| match run(seed, None, false) {
        Ok(report) => {
            tasks.fetch_add(report.tasks as u64, Ordering::Relaxed);
            runs.fetch_add(report.runs as u64, Ordering::Relaxed);
            lives.fetch_add(report.master_lives, Ordering::Relaxed);
            drains.fetch_add(report.drains, Ordering::Relaxed);
            limited.fetch_add(report.limited, Ordering::Relaxed);
            maintained.fetch_add(report.maintained, Ordering::Relaxed);
            chosen.fetch_add(report.chosen, Ordering::Relaxed);
            operations.fetch_add(report.operations, Ordering::Relaxed);
            repeated.fetch_add(report.repeated, Ordering::Relaxed);
            true
        }
        Err(failure) => {
            failures
                .lock()
                .expect("not poisoned")
                .push(failure.to_string());
            false
        }
    });
    let failures = failures.into_inner().expect("not poisoned");
    assert!(failures.is_empty(), "{failures:#?}");
    let (tasks, runs, lives) = (tasks.into_inner(), runs.into_inner(), lives.into_inner());
    let (drains, limited) = (drains.into_inner(), limited.into_inner());
    let (maintained, chosen) = (maintained.into_inner(), chosen.into_inner());
    let (operations, repeated) = (operations.into_inner(), repeated.into_inner());
    println!(
        "{SEEDS} seeds: {tasks} tasks, {runs} of them ran, {lives} starts of the master, {drains} agents drained, {limited} offers under quotas, {maintained} maintenances, {chosen} offers to those who choose, {operations} operations on lots, {repeated} answers repeated"
    );
    assert!(
        runs > SEEDS * 10,
        "only {runs} tasks ran: the simulation checks too little"
    );
    assert!(
        lives > SEEDS * 2,
        "only {lives} starts of the master: too little goes wrong"
    );
    assert!(
        operations > SEEDS && repeated > SEEDS,
        "only {operations} operations on lots, {repeated} answers repeated: too little is reserved"
    );
    assert!(
        drains > SEEDS / 2 && limited > SEEDS / 2,
        "only {drains} agents were drained, {limited} offers under quotas: too little is decided"
    );
    assert!(
        maintained > SEEDS / 10 && chosen > SEEDS / 2,
        "only {maintained} maintenances, {chosen} offers to those who choose: too little is asked for"
    );
}

#[test]
fn every_planted_fault_is_found() {
    for planted in Planted::ALL {
        let found = AtomicU64::new(u64::MAX);
        in_parallel(SEEDS_FOR_PLANTED, |seed| {
            let failed = run(seed, Some(planted), false).is_err();
            if failed {
                found.fetch_min(seed, Ordering::Relaxed);
            }
            !failed
        });
        let seed = found.into_inner();
        assert!(
            seed < SEEDS_FOR_PLANTED,
            "{planted:?} is not found within {SEEDS_FOR_PLANTED} seeds"
        );
        println!("{planted:?} is found by seed {seed}");
    }
}

#[test]
fn a_seed_gives_the_same_run_every_time() {
    for seed in 0..5 {
        assert_eq!(run(seed, None, false), run(seed, None, false));
    }
}
