//! A thousand runs with every fault on, and the proof that the checks can fail.

use ebb_tests_sim::{Planted, Report, run, sweep};

/// Runs of the healthy cluster.
const SEEDS: u64 = 1_000;
/// Within so many runs each planted fault must show.
const SEEDS_FOR_PLANTED: u64 = 200;

#[test]
fn a_thousand_runs_with_all_faults_break_no_rule() {
    let Report {
        steps,
        tasks,
        runs,
        master_lives: lives,
        drains,
        limited,
        maintained,
        chosen,
        operations,
        repeated,
    } = sweep(0..SEEDS, None).unwrap_or_else(|failure| panic!("{failure}"));
    println!(
        "{SEEDS} seeds: {steps} steps, {tasks} tasks, {runs} of them ran, {lives} starts of the master, {drains} agents drained, {limited} offers under quotas, {maintained} maintenances, {chosen} offers to those who choose, {operations} operations on lots, {repeated} answers repeated"
    );
    assert!(
        runs as u64 > SEEDS * 10,
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
        let found = sweep(0..SEEDS_FOR_PLANTED, Some(planted)).err();
        let seed = found
            .map(|failure| failure.seed)
            .unwrap_or_else(|| panic!("{planted:?} is not found within {SEEDS_FOR_PLANTED} seeds"));
        println!("{planted:?} is found by seed {seed}");
    }
}

#[test]
fn a_seed_gives_the_same_run_every_time() {
    for seed in 0..5 {
        assert_eq!(run(seed, None, false), run(seed, None, false));
    }
}
