//! A few hours of a few agents, of what `--day` runs for a day of hundreds.

use ebb_tests_sim::day::{Day, Loads, MAX_LOST_PPM, Planted, Report, excerpts, run};

fn play(day: Day) -> Report {
    let loads = Loads::read(&excerpts()).expect("the excerpts are there");
    run(day, &loads).unwrap_or_else(|broken| panic!("{broken}"))
}

const HOURS: Day = Day {
    agents: 6,
    minutes: 240,
    seed: 2,
    planted: None,
};

#[test]
fn owners_are_satisfied_within_the_reaction_time_while_machines_are_filled_with_lent_work() {
    let report = play(HOURS);
    // Lent work more than doubles what is used, and it was in the way.
    assert!(
        report.busy_permille > 2 * report.owned_permille,
        "{report:?}"
    );
    assert!(report.jumps > 100 && report.throttles > 0, "{report:?}");
    assert_eq!(report.late, 0, "{report:?}");
    assert!(report.lost_ppm <= MAX_LOST_PPM, "{report:?}");
    assert!(report.lent_finished > 50, "{report:?}");
    assert!(report.checks > HOURS.minutes, "{report:?}");
}

#[test]
fn without_the_agent_owners_would_wait() {
    let planted = Some(Planted::CapsIgnored);
    let report = play(Day { planted, ..HOURS });
    assert!(report.late > 0, "{report:?}");
}

#[test]
fn the_seed_alone_decides() {
    let short = Day {
        agents: 3,
        minutes: 45,
        ..HOURS
    };
    assert_eq!(play(short), play(short));
    assert_ne!(play(short).digest, play(Day { seed: 3, ..short }).digest);
}
