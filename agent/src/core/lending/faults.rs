//! Whatever happens to the measurements, what is lent does not rise, and falls to its cold value within two periods.
//!
//! Cold is what the agent lends of tasks of which it knows nothing: nothing of theirs.

use ebb_types::{MeasureSource, Timestamp};

use super::super::usage::Sample;
use super::world::World;
use super::{Config, Lending};

/// Periods within which what is lent must be at its cold value.
const PERIODS: u64 = 2;
/// The sampling period, in milliseconds.
const PERIOD_MS: u64 = 100;
/// Duplicates that are forgiven before a sampler counts as stuck, in periods.
const FORGIVEN: u64 = 2;

/// A service that owns the machine, uses a fifth of it and has lent most of the rest, of which half is in use.
fn lending() -> World {
    let mut world = World::new();
    world.own("service", 2_000, 400);
    world.seconds(60);
    world.lend("batch", 500, 500);
    world.seconds(5);
    assert!(world.step().offerable.cpu_milli() > 0, "{:?}", world.told);
    world
}

/// Feeds what `fault` makes of each sample, for a minute, and holds what is offered against the rule.
fn hold(mut world: World, forgiven: u64, mut fault: impl FnMut(&mut World, u64, &mut Sample)) {
    let mut before = world.lending.lent().cpu_milli();
    for period in 1..=600 {
        world.run_for(PERIOD_MS);
        let mut sample = world.sample();
        fault(&mut world, period, &mut sample);
        let outcome = world.feed(&sample);
        let lent = outcome.usage.lent.cpu_milli();
        assert!(lent <= before, "{before} rose to {lent} in period {period}");
        if period >= PERIODS + forgiven {
            let offered = outcome.offerable;
            assert!(offered.is_zero(), "{offered} in period {period}");
        }
        before = lent;
    }
}

#[test]
fn probes_that_are_gone_lend_nothing() {
    hold(lending(), 0, |_, _, sample| {
        sample.host.unmanaged_cpu_ns = None;
        for counters in sample.containers.values_mut() {
            *counters = super::super::usage::ContainerSample::absent(MeasureSource::Ebpf);
        }
    });
}

#[test]
fn files_that_take_over_from_the_probes_begin_anew() {
    let mut world = lending();
    let mut offered = Vec::new();
    for _ in 0..10 {
        world.run_for(PERIOD_MS);
        let mut sample = world.sample();
        sample.host.unmanaged_cpu_ns = None;
        for counters in sample.containers.values_mut() {
            counters.cpu_source = MeasureSource::Files;
            // Another account of the same, which has counted more.
            counters.cpu_ns = counters.cpu_ns.map(|ns| ns + 7_000_000_000);
        }
        offered.push(world.feed(&sample).offerable.cpu_milli());
    }
    assert_eq!(offered, [0; 10], "nothing is known of the files yet");
}

#[test]
fn a_clock_that_stands_still_lends_nothing_once_that_is_sure() {
    let mut world = lending();
    world.clock_runs = false;
    hold(world, FORGIVEN, |_, _, _| {});
}

#[test]
fn a_clock_that_jumps_lends_nothing() {
    hold(lending(), 0, |world, period, sample| {
        if period % 2 == 0 {
            world.turn_clock_back(3 * PERIOD_MS);
        } else {
            sample.taken_ns += 5_000_000_000;
        }
    });
}

#[test]
fn figures_that_are_no_numbers_lend_nothing() {
    // Counters are integers and know no NaN; what a division by nothing would make of them are these.
    for absurd in [u64::MAX, u64::MAX / 2, 1 << 63] {
        hold(lending(), 0, |_, period, sample| {
            for counters in sample.containers.values_mut() {
                counters.cpu_ns = Some(absurd - period % 3);
            }
        });
    }
}

#[test]
fn a_container_for_which_a_map_had_no_room_and_no_file_speaks_has_no_slack() {
    let mut world = lending();
    let before = world.lending.lent().cpu_milli();
    world.own("late", 500, 0);
    world.sim("late").readable = false;
    for _ in 0..600 {
        let lent = world.step().usage.lent.cpu_milli();
        assert!(lent <= before, "{before} rose to {lent}");
    }
}

#[test]
fn an_agent_that_was_started_anew_lends_no_more_than_is_in_use() {
    let mut world = lending();
    let in_use = world.in_use_milli();
    world.lending = Lending::new(Config::default(), world.total);
    for period in 1..=PERIODS {
        let lent = world.step().usage.lent.cpu_milli();
        assert_eq!(lent, in_use, "in period {period}");
    }
    let views = world.views();
    let outcome = world
        .lending
        .on_tick(Timestamp::from_ms(world.now_ms + 5_000), &views);
    assert!(outcome.offerable.is_zero());
}
