//! The probes' figures against the controllers', on the running kernel.
//!
//! Needs root and an agent that was built with the probes (`cargo xtask build-ebpf` first). Where they are missing or
//! refused, the tests fail: a run that has compared nothing proves nothing.
//!
//! **How it is compared.** Both sides rise while they are read, so each reading of the probes stands between two of
//! the controller, and the probes' growth is held against the interval in which the controller's must lie. What is left
//! over is the error, and may be 1 %. The controller is as old as the last tick of each CPU (4 ms at 250 Hz); at two
//! seconds and more of CPU time that is within the 1 %.

#![allow(clippy::unwrap_used, reason = "the helpers of tests fail as tests do")]

use std::process::Child;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use ebb_agent::probe::{
    CgroupPaths, ContainerCounters, ContainerFiles, Detail, Facts, HostFiles, Losses, ProbeError,
    Sampler, built_in_object,
};
use ebb_tests_parity::{Container, slowdown};

const LOAD: &str = env!("CARGO_BIN_EXE_ebb-parity-load");
const ERROR_MAX_PERCENT: f64 = 1.0;
/// The same while the load runs, where an emulated processor's ticks come as late as the host lets them.
const ERROR_MAX_PERCENT_LATE_TICKS: f64 = 5.0;
/// Arrivals of tasks on a CPU for each one at which the kernel may have had no account for it.
const ARRIVALS_PER_MISS_MIN: u64 = 1000;
/// A comparison of less than this would be one of ticks.
const COMPARED_MIN_NS: u64 = 300_000_000;

/// One test at a time: they measure the machine, and two loads at once would only slow each other down.
fn alone() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    ONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The greatest error while the load runs, when the controller lags behind by ticks.
fn error_max_percent_running() -> f64 {
    if slowdown() > 1.0 {
        ERROR_MAX_PERCENT_LATE_TICKS
    } else {
        ERROR_MAX_PERCENT
    }
}

fn sampler(facts: &Facts, slots: u32) -> Sampler<&'static str> {
    let sampler = Sampler::with_slots(facts, built_in_object(), slots);
    assert!(sampler.has_probes(), "{}", sampler.message());
    sampler
}

/// The controller's figure before and after a reading of the probes in between.
#[derive(Clone, Copy, Debug)]
struct Bracket {
    before_ns: u64,
    probes_ns: u64,
    after_ns: u64,
}

fn bracket(sampler: &mut Sampler<&'static str>, yardstick: &mut ContainerFiles) -> Bracket {
    let before_ns = yardstick.on_cpu_ns().expect("the controller tells no time");
    let counters = only(sampler);
    let after_ns = yardstick.on_cpu_ns().expect("the controller tells no time");
    let figure = counters.on_cpu_ns.expect("the probes tell no time");
    assert_eq!(figure.source.name(), "ebpf");
    Bracket {
        before_ns,
        probes_ns: figure.value,
        after_ns,
    }
}

fn only(sampler: &mut Sampler<&'static str>) -> ContainerCounters {
    let sample = sampler.sample(Detail::Quick);
    assert_eq!(sample.containers.len(), 1);
    sample.containers[0].1.clone()
}

/// How far the probes' growth is outside of what the controller's can have been, in percent of it.
fn error_percent(name: &str, from: Bracket, to: Bracket) -> f64 {
    let grown = to
        .probes_ns
        .checked_sub(from.probes_ns)
        .expect("a counter fell");
    let least = to.before_ns.saturating_sub(from.after_ns);
    let most = to.after_ns - from.before_ns;
    let outside = least.saturating_sub(grown).max(grown.saturating_sub(most));
    let percent = 100.0 * outside as f64 / most as f64;
    println!("{name}: probes {grown} ns, controller {least} to {most} ns, error {percent:.3} %");
    assert!(
        most >= COMPARED_MIN_NS,
        "{name}: only {most} ns were compared"
    );
    percent
}

fn finish(mut load: Child) -> String {
    let mut printed = String::new();
    if let Some(mut output) = load.stdout.take() {
        std::io::Read::read_to_string(&mut output, &mut printed).unwrap();
    }
    let status = load.wait().unwrap();
    assert!(status.success(), "the load failed: {status}");
    printed
}

/// Measures a load at its start, twice while it runs, and after its end. Returns the last counters and what it printed.
fn compare(name: &'static str, arguments: &[&str], below: &str) -> (ContainerCounters, String) {
    let _alone = alone();
    let facts = Facts::gather();
    let container = Container::new(&facts, name).unwrap();
    let mut sampler = sampler(&facts, 64);
    sampler.register(name, &container.paths, false).unwrap();
    let mut yardstick = ContainerFiles::open(&container.paths);
    let start = bracket(&mut sampler, &mut yardstick);
    let load = container.spawn_below(below, LOAD, arguments).unwrap();
    thread::sleep(Duration::from_millis(1000));
    let early = bracket(&mut sampler, &mut yardstick);
    let mut last = early;
    // Readings as often as the agent takes them: what they add for running tasks must not add up to an error.
    for _ in 0..40 {
        thread::sleep(Duration::from_millis(100));
        let now = bracket(&mut sampler, &mut yardstick);
        assert!(now.probes_ns >= last.probes_ns, "{name}: the counter fell");
        last = now;
    }
    let printed = finish(load);
    let end = bracket(&mut sampler, &mut yardstick);
    for (what, from, to, most_percent) in [
        ("while it runs", early, last, error_max_percent_running()),
        ("from its start to its end", start, end, ERROR_MAX_PERCENT),
    ] {
        let percent = error_percent(&format!("{name} {what}"), from, to);
        assert!(percent <= most_percent, "{name} {what}: {percent:.3} %");
    }
    let counters = only(&mut sampler);
    let run_queue = counters.run_queue.unwrap();
    assert_eq!(
        run_queue.wait_hist.iter().sum::<u64>(),
        run_queue.wait_count
    );
    for cost in sampler.costs() {
        println!(
            "{name}: {cost:?}, {} ns a run",
            cost.run_time_ns / cost.run_count.max(1)
        );
    }
    let losses = sampler.losses();
    println!("{name}: {losses:?}");
    // The kernel decides what it shows, and whether it gives a task's account at once: without one a task is charged
    // from its arrival on the CPU, as above. Everything else would be a fault of ours.
    let expected = Losses {
        missed_switches: losses.missed_switches,
        storage_misses: losses.storage_misses,
        ..Losses::default()
    };
    assert_eq!(losses, expected);
    assert!(
        losses.storage_misses * ARRIVALS_PER_MISS_MIN <= run_queue.wait_count,
        "{name}: {} misses in {} arrivals",
        losses.storage_misses,
        run_queue.wait_count
    );
    (counters, printed)
}

#[test]
fn one_task_that_never_leaves_the_cpu() {
    compare("spin", &["spin", "6000"], "");
}

#[test]
fn fifty_tasks_that_sleep_and_wake() {
    let (counters, _) = compare("wake", &["wake", "6000"], "");
    let switches = counters.switches.unwrap();
    let least = (5_000.0 / slowdown()) as u64;
    assert!(switches.voluntary > least, "{switches:?}");
    assert!(counters.run_queue.unwrap().wait_count > least);
}

#[test]
fn a_thousand_processes_a_second_forked_in_one_task() {
    let (counters, printed) = compare("fork", &["fork", "6000"], "");
    let forked: u64 = printed.trim().parse().unwrap();
    let on_cpu_ns = counters.on_cpu_ns.unwrap().value;
    let per_second = forked as f64 * 1e9 / on_cpu_ns as f64;
    println!("fork: {forked} processes, {per_second:.0} for each second of CPU time");
    assert!(
        per_second * slowdown() >= 1000.0,
        "only {per_second:.0} processes a second of CPU time"
    );
    assert!(
        counters.run_queue.unwrap().wait_count >= forked,
        "each process came to a CPU"
    );
}

#[test]
fn a_task_in_cgroups_of_its_own_making() {
    compare("nested", &["spin", "6000"], "its/own");
}

/// What two spinners are asked to spin.
const SPIN_NS: u64 = 3_000_000_000;

#[test]
fn two_spinners_on_one_cpu_wait_for_each_other_and_know_who_pushed_them_out() {
    let _alone = alone();
    let facts = Facts::gather();
    let owned = Container::new(&facts, "owned").unwrap();
    let revocable = Container::new(&facts, "revocable").unwrap();
    let mut sampler = sampler(&facts, 64);
    sampler.register("owned", &owned.paths, false).unwrap();
    sampler
        .register("revocable", &revocable.paths, true)
        .unwrap();
    let from = Instant::now();
    let loads = [&owned, &revocable].map(|one| one.spawn(LOAD, &["spin", "3000", "0"]).unwrap());
    for load in loads {
        finish(load);
    }
    let wall_ns = u64::try_from(from.elapsed().as_nanos()).unwrap();
    let sample = sampler.sample(Detail::Quick);
    assert_eq!(sample.containers.len(), 2);
    for (name, counters) in &sample.containers {
        let on_cpu_ns = counters.on_cpu_ns.unwrap().value;
        let run_queue = counters.run_queue.unwrap();
        let switches = counters.switches.unwrap();
        println!("{name}: on CPU {on_cpu_ns} ns of {wall_ns}, {run_queue:?}, {switches:?}");
        // It always ran or waited, so that the two make up its time, of which only the start and the end are not in
        // the spinning; others on this CPU only lengthen the wait.
        let accounted = on_cpu_ns + run_queue.wait_ns;
        assert!(
            accounted > SPIN_NS * 19 / 20 && accounted < wall_ns * 21 / 20,
            "{name}: {accounted} of {wall_ns} ns"
        );
        assert!(run_queue.wait_ns > SPIN_NS * 2 / 5, "{name} hardly waited");
        assert_eq!(
            run_queue.wait_hist.iter().sum::<u64>(),
            run_queue.wait_count
        );
        let longest = 1u64
            << run_queue
                .wait_hist
                .iter()
                .rposition(|&count| count > 0)
                .unwrap();
        assert!(
            longest >= 1_000_000,
            "{name}: waits of a slice stand in the upper buckets"
        );
        assert!(switches.involuntary() > 10, "{name}: {switches:?}");
        let (of_other, of_own_class) = if *name == "owned" {
            (switches.preempted_by_revocable, switches.preempted_by_owned)
        } else {
            (switches.preempted_by_owned, switches.preempted_by_revocable)
        };
        assert!(of_other > 0, "{name}: {switches:?}");
        assert_eq!(of_own_class, 0, "{name}: {switches:?}");
    }
}

#[test]
fn a_slot_starts_at_zero_for_its_next_container_and_a_full_table_gives_way_to_files() {
    let _alone = alone();
    let facts = Facts::gather();
    let first = Container::new(&facts, "first").unwrap();
    let second = Container::new(&facts, "second").unwrap();
    let mut sampler = sampler(&facts, 2);
    sampler.register("first", &first.paths, false).unwrap();
    let error = sampler
        .register("second", &second.paths, false)
        .unwrap_err();
    assert!(matches!(error, ProbeError::Full { slots: 2 }), "{error}");
    let loads = [&first, &second].map(|one| one.spawn(LOAD, &["spin", "1000"]).unwrap());
    for load in loads {
        finish(load);
    }
    let sample = sampler.sample(Detail::Quick);
    let sources: Vec<_> = sample
        .containers
        .iter()
        .map(|(name, counters)| (*name, counters.on_cpu_ns.unwrap().source.name()))
        .collect();
    assert_eq!(sources, [("first", "ebpf"), ("second", "files")]);
    assert!(
        sample
            .containers
            .iter()
            .all(|(_, one)| one.on_cpu_ns.unwrap().value > 20_000_000)
    );
    assert_eq!(sampler.losses().without_slot, 1);

    sampler.unregister(&"first");
    sampler.register("second", &second.paths, false).unwrap();
    let figure = only(&mut sampler).on_cpu_ns.unwrap();
    assert_eq!(
        (figure.source.name(), figure.value),
        ("ebpf", 0),
        "nothing runs in it"
    );
    assert_eq!(sampler.slots(), (1, 1));
}

#[test]
fn a_running_task_is_taken_over_at_registration_and_let_go_at_its_end() {
    let _alone = alone();
    let facts = Facts::gather();
    let container = Container::new(&facts, "adopted").unwrap();
    let mut load = container.spawn(LOAD, &["spin", "60000"]).unwrap();
    let mut yardstick = ContainerFiles::open(&container.paths);
    let mut until_used = |ns: u64| {
        let deadline = Instant::now() + Duration::from_secs(50);
        while yardstick.on_cpu_ns().unwrap() < ns {
            assert!(Instant::now() < deadline, "the load gets no CPU");
            thread::sleep(Duration::from_millis(20));
        }
    };
    until_used(200_000_000);
    let mut sampler = sampler(&facts, 64);
    sampler
        .register("adopted", &container.paths, false)
        .unwrap();
    let mut yardstick = ContainerFiles::open(&container.paths);
    let from = bracket(&mut sampler, &mut yardstick);
    until_used(from.after_ns + 2 * COMPARED_MIN_NS);
    let to = bracket(&mut sampler, &mut yardstick);
    let percent = error_percent("adopted", from, to);
    assert!(percent <= error_max_percent_running(), "{percent:.3} %");
    // Its slot goes to another while it still runs: not a nanosecond of it may be charged there.
    sampler.unregister(&"adopted");
    let next = Container::new(&facts, "next").unwrap();
    sampler.register("next", &next.paths, false).unwrap();
    until_used(to.after_ns + COMPARED_MIN_NS);
    assert_eq!(only(&mut sampler).on_cpu_ns.unwrap().value, 0);
    load.kill().unwrap();
    load.wait().unwrap();
}

#[test]
fn a_container_outside_of_the_v2_tree_is_measured_by_files() {
    let _alone = alone();
    let facts = Facts::gather();
    let mut sampler = sampler(&facts, 8);
    let paths = CgroupPaths::default();
    let error = sampler.register("nowhere", &paths, false).unwrap_err();
    assert!(matches!(error, ProbeError::Unplaced { .. }), "{error}");
    assert_eq!(only(&mut sampler).on_cpu_ns, None);
}

#[test]
fn probes_that_the_kernel_refuses_give_way_to_the_clock_and_the_message_quotes_the_verifier() {
    let _alone = alone();
    let mut facts = Facts::gather();
    let fields = facts.fields.clone().unwrap();
    let wrong = fields.offset("CSS_SET_CGROUP").unwrap() + 1;
    facts.fields = Ok(fields.with_offset("CSS_SET_CGROUP", wrong));
    let sampler: Sampler<&'static str> = Sampler::new(&facts, built_in_object());
    let message = sampler.message();
    println!("{message}");
    assert!(message.contains("by the clock"), "{message}");
    assert!(
        message.contains("css_set"),
        "the verifier names the record: {message}"
    );
    assert!(!message.contains('\n'), "one line: {message}");
    measured_by_the_clock(sampler, &facts);
}

#[test]
fn without_the_kernels_type_information_the_clock_tells_the_time() {
    let _alone = alone();
    let mut facts = Facts::gather();
    facts.fields = Err("there is no BTF".to_owned());
    let sampler: Sampler<&'static str> = Sampler::new(&facts, built_in_object());
    assert!(
        sampler.message().contains("there is no BTF"),
        "{}",
        sampler.message()
    );
    measured_by_the_clock(sampler, &facts);
}

/// By the clock, time that the hypervisor steals counts as used.
fn measured_by_the_clock(mut sampler: Sampler<&'static str>, facts: &Facts) {
    assert!(sampler.has_probes(), "{}", sampler.message());
    let container = Container::new(facts, "plain").unwrap();
    sampler.register("plain", &container.paths, false).unwrap();
    let mut yardstick = ContainerFiles::open(&container.paths);
    let from = bracket(&mut sampler, &mut yardstick);
    let stolen_from = HostFiles::open().read(Detail::Quick).steal_ns.unwrap();
    finish(container.spawn(LOAD, &["spin", "1500"]).unwrap());
    let to = bracket(&mut sampler, &mut yardstick);
    let stolen = HostFiles::open().read(Detail::Quick).steal_ns.unwrap() - stolen_from;
    let allowed =
        error_max_percent_running() + 100.0 * stolen as f64 / (to.after_ns - from.before_ns) as f64;
    let percent = error_percent("by the clock", from, to);
    assert!(percent <= allowed, "{percent:.3} % of {allowed:.3} %");
    let counters = only(&mut sampler);
    assert_eq!(counters.run_queue, None);
    assert!(counters.switches.unwrap().voluntary > 0);
}
