//! Time on the CPUs against the CPU controller: steady work, a task that never leaves its CPU, and processes that live
//! for a moment; and the count of processes against what the load has made.
//!
//! Each reading of the probes stands between two of the controller, see [`Bracket`].

#![allow(clippy::unwrap_used, reason = "the helpers of tests fail as tests do")]

use std::thread;
use std::time::{Duration, Instant};

use ebb_agent::probe::{ContainerFiles, Detail, Facts};
use ebb_tests_parity::Container;
use ebb_tests_parity::measured::{
    Bracket, alone, cpu_bracket, finish, nothing_lost, of, probes, told,
};
use ebb_tests_parity::rows::Rows;

const LOAD: &str = env!("CARGO_BIN_EXE_ebb-parity-load");
const STEADY_MS: &str = "10000";
const STEADY_MAX_PERCENT: f64 = 0.1;
const ENTRIES: u32 = 50;
/// A hierarchy is entered after the other, and the account of what runs is brought up to date at ticks.
const ENTRIES_MAX_PERCENT: f64 = 25.0;
const MOMENTS_MAX_PERCENT: f64 = 0.5;
/// The agent's fast path.
const PERIOD: Duration = Duration::from_millis(100);
/// Readings of a task that has not left its CPU since the reading before.
const UNMOVED_LEAST: u32 = 50;
/// The work is asked for so long, and readings are given up.
const UNMOVED_DEADLINE: Duration = Duration::from_secs(60);
const MOMENTS: u64 = 10_000;
/// CPU time of one of them; none of them can live for less.
const MOMENT_US: &str = "5000";
const SHORT: u64 = 2_000;

#[test]
fn steady_work_is_counted_to_a_thousandth() {
    let _alone = alone();
    let facts = Facts::gather();
    let container = Container::new(&facts, "steady").unwrap();
    let mut sampler = probes(&facts);
    sampler.register("steady", &container.paths, false).unwrap();
    let mut yardstick = ContainerFiles::open(&container.paths);
    let start = cpu_bracket(&mut sampler, &mut yardstick, "steady");
    let loads = [0, 1].map(|_| container.spawn(LOAD, &["spin", STEADY_MS]).unwrap());
    for load in loads {
        finish(load);
    }
    let end = cpu_bracket(&mut sampler, &mut yardstick, "steady");
    let mut rows = Rows::new("cpu", "two tasks that compute for 10 s");
    let used_ns = end.after - start.before;
    rows.at_least("CPU time compared", used_ns as f64 / 1e9, "s", 2.0);
    let error = end.error_percent(&start);
    rows.at_most("error", error, "%", STEADY_MAX_PERCENT);
    nothing_lost(&sampler);
    rows.finish();
}

#[test]
fn a_task_that_never_leaves_its_cpu_is_right_at_every_moment() {
    let _alone = alone();
    let facts = Facts::gather();
    let container = Container::new(&facts, "unmoved").unwrap();
    // Else others on this machine would push it out, and it would be charged at its switches.
    container.favour().unwrap();
    let mut sampler = probes(&facts);
    sampler
        .register("unmoved", &container.paths, false)
        .unwrap();
    let mut yardstick = ContainerFiles::open(&container.paths);
    let start = cpu_bracket(&mut sampler, &mut yardstick, "unmoved");
    let ms = UNMOVED_DEADLINE.as_millis().to_string();
    let mut load = container.spawn(LOAD, &["spin", &ms, "0"]).unwrap();
    let deadline = Instant::now() + UNMOVED_DEADLINE;
    let (mut readings, mut unmoved, mut worst_ns) = (0u32, 0u32, 0);
    let mut last = start;
    let mut last_departures = departures(&mut sampler);
    while unmoved < UNMOVED_LEAST && Instant::now() < deadline {
        thread::sleep(PERIOD);
        let now = cpu_bracket(&mut sampler, &mut yardstick, "unmoved");
        assert!(now.probes >= last.probes, "the counter fell");
        let departures = departures(&mut sampler);
        readings += 1;
        if departures == last_departures {
            unmoved += 1;
            assert!(now.probes > last.probes, "it ran and was not charged");
        }
        worst_ns = worst_ns.max(now.outside(&start).0);
        (last, last_departures) = (now, departures);
    }
    load.kill().unwrap();
    load.wait().unwrap();
    let mut rows = Rows::new("cpu", "a task that never leaves its CPU");
    rows.figure("readings", f64::from(readings), "");
    rows.at_least(
        "readings of which it stayed on its CPU since the one before",
        f64::from(unmoved),
        "",
        f64::from(UNMOVED_LEAST),
    );
    let used_ns = last.after - start.before;
    rows.at_least("CPU time compared", used_ns as f64 / 1e9, "s", 2.0);
    let period_ms = PERIOD.as_secs_f64() * 1e3;
    rows.at_most("greatest error", worst_ns as f64 / 1e6, "ms", period_ms);
    nothing_lost(&sampler);
    rows.finish();
}

#[test]
fn what_enters_a_container_while_it_runs_is_charged_from_then_on() {
    let _alone = alone();
    let facts = Facts::gather();
    let container = Container::new(&facts, "entered").unwrap();
    let mut sampler = probes(&facts);
    sampler
        .register("entered", &container.paths, false)
        .unwrap();
    let mut yardstick = ContainerFiles::open(&container.paths);
    let start = cpu_bracket(&mut sampler, &mut yardstick, "entered");
    // A shell that enters and then becomes the program: nearly all that each uses is before it first leaves its CPU.
    for _ in 0..ENTRIES {
        finish(container.spawn(LOAD, &["nap", "0"]).unwrap());
    }
    let end = cpu_bracket(&mut sampler, &mut yardstick, "entered");
    let mut rows = Rows::new("cpu", "processes that enter while they run");
    let used_ns = end.after - start.before;
    rows.at_least("CPU time compared", used_ns as f64 / 1e6, "ms", 5.0);
    let error = end.error_percent(&start);
    rows.at_most("error of CPU time", error, "%", ENTRIES_MAX_PERCENT);
    nothing_lost(&sampler);
    rows.finish();
}

fn departures(sampler: &mut ebb_agent::probe::Sampler<&'static str>) -> u64 {
    let sample = sampler.sample(Detail::Quick);
    let switches = of(&sample, "unmoved").switches.unwrap();
    switches.voluntary + switches.involuntary()
}

/// Runs processes and gives the brackets before and after, the counts of processes and what the load printed.
fn moments(rows: &mut Rows, arguments: &[&str], naps: u64) -> (u64, u64) {
    let facts = Facts::gather();
    let container = Container::new(&facts, "moments").unwrap();
    let mut sampler = probes(&facts);
    sampler
        .register("moments", &container.paths, false)
        .unwrap();
    let mut yardstick = ContainerFiles::open(&container.paths);
    let start = cpu_bracket(&mut sampler, &mut yardstick, "moments");
    for _ in 0..naps {
        finish(container.spawn(LOAD, &["nap", "6"]).unwrap());
    }
    let printed = finish(container.spawn(LOAD, arguments).unwrap());
    let end: Bracket = cpu_bracket(&mut sampler, &mut yardstick, "moments");
    let made = told(&printed, "made");
    let processes = of(&sampler.sample(Detail::Quick), "moments")
        .processes
        .unwrap();
    // The load itself, and each nap, comes in from outside and ends here.
    rows.exactly("forks", processes.forks, made);
    rows.exactly("exits", processes.exits, made + 1 + naps);
    let used_ns = end.after - start.before;
    rows.figure("CPU time compared", used_ns as f64 / 1e9, "s");
    let error = end.error_percent(&start);
    rows.at_most("error of CPU time", error, "%", MOMENTS_MAX_PERCENT);
    nothing_lost(&sampler);
    (processes.short_lived, told(&printed, "surely_short"))
}

#[test]
fn ten_thousand_processes_of_five_milliseconds_are_counted_in_full() {
    let _alone = alone();
    let mut rows = Rows::new("cpu", "10,000 processes of 5 ms");
    let count = MOMENTS.to_string();
    let (short_lived, surely) = moments(&mut rows, &["processes", &count, MOMENT_US, "4"], 0);
    assert_eq!(surely, 0, "they use 5 ms, and so live for at least that");
    rows.exactly("short-lived", short_lived, 0);
    rows.finish();
}

#[test]
fn processes_that_live_for_less_than_five_milliseconds_are_counted_in_full() {
    let _alone = alone();
    let mut rows = Rows::new("cpu", "processes that end at once");
    let count = SHORT.to_string();
    let (short_lived, surely) = moments(&mut rows, &["processes", &count, "0", "1"], 10);
    // Where the machine is busy, some live longer, because they wait for a CPU: how long each lived is known from
    // without only in one direction.
    rows.figure("surely shorter than 5 ms", surely as f64, "");
    rows.at_least("short-lived", short_lived as f64, "", surely as f64);
    rows.at_most("short-lived", short_lived as f64, "", SHORT as f64);
    rows.at_least("compared", surely as f64, "", SHORT as f64 / 4.0);
    rows.finish();
}
