//! Run-queue latency and page faults against bpftrace, on the same run.
//!
//! bpftrace takes a task's wait from the moment at which it becomes runnable (`sched_wakeup`, `sched_wakeup_new`, or
//! `sched_switch` while it is still runnable) to the one at which it comes to a CPU, as its `runqlat` does, of all tasks
//! of the load by their name. The probes read the scheduler's own account of the same. So percentiles must stand in the
//! same bucket or the next; both count nanoseconds in powers of two.
//!
//! The loads have more work than CPUs, so that waits are real. A task that wakes on an idle CPU waits for some
//! microseconds until that has come out of its sleep; of those the scheduler's account knows nothing, since it reads its
//! clock only once for both moments, and the probes say 0.

#![allow(clippy::unwrap_used, reason = "the helpers of tests fail as tests do")]

use ebb_agent::probe::{ContainerCounters, ContainerFiles, Detail, Facts, Faults};
use ebb_tests_parity::Container;
use ebb_tests_parity::measured::{
    alone, differ_percent, finish, nothing_lost, of, percentile_bucket, probes, told,
};
use ebb_tests_parity::rows::Rows;
use ebb_tests_parity::tools::{Bpftrace, histogram, map_value};
use serde_json::Value;

const LOAD: &str = env!("CARGO_BIN_EXE_ebb-parity-load");
/// The kernel cuts names of tasks to 15 characters.
const COMM: &str = "ebb-parity-load";
const PERCENTILES: [(&str, u64); 3] = [("p50", 500), ("p95", 950), ("p99", 990)];
/// Tasks that compute all the time, to so few CPUs that each waits for others.
const SPINNERS: usize = 6;
/// How far the count of waits may be from bpftrace's, for wake-ups of tasks that had not left their CPU yet.
const COUNT_MAX_PERCENT: f64 = 1.0;
/// The same for each program: it waits under the shell's name before it becomes the load.
const COUNT_EACH: f64 = 10.0;
const FAULTS_MAX_PERCENT: f64 = 1.0;

/// Traces waits of the load. A task that is runnable when it leaves has state 0, or the bit that says that it was
/// pushed out.
fn waits() -> String {
    let woken = format!(
        "tracepoint:sched:sched_wakeup, tracepoint:sched:sched_wakeup_new /args->comm == \"{COMM}\"/ \
         {{ @since[args->pid] = nsecs; }}"
    );
    format!(
        "{woken} tracepoint:sched:sched_switch {{ \
           if ((args->prev_state & 0xff) == 0 && args->prev_comm == \"{COMM}\") {{ @since[args->prev_pid] = nsecs; }} \
           if (@since[args->next_pid]) {{ @wait = hist(nsecs - @since[args->next_pid]); delete(@since[args->next_pid]); }} \
         }} END {{ clear(@since); }}"
    )
}

/// What one run gave.
struct Traced {
    ours: ContainerCounters,
    by_controller: Faults,
    by_bpftrace: Vec<Value>,
    printed: String,
}

/// Runs loads in a container while a script traces them.
fn traced(script: &str, loads: &[&[&str]]) -> Traced {
    let facts = Facts::gather();
    let container = Container::new(&facts, "traced").unwrap();
    let mut sampler = probes(&facts);
    sampler.register("traced", &container.paths, false).unwrap();
    let trace = Bpftrace::start(script);
    let running: Vec<_> = loads
        .iter()
        .map(|arguments| container.spawn(LOAD, arguments).unwrap())
        .collect();
    let printed: Vec<String> = running.into_iter().map(finish).collect();
    let by_bpftrace = trace.stop();
    let ours = of(&sampler.sample(Detail::Full), "traced").clone();
    nothing_lost(&sampler);
    Traced {
        ours,
        by_controller: ContainerFiles::open(&container.paths).faults().unwrap(),
        by_bpftrace,
        printed: printed.join(" "),
    }
}

fn compare_waits(case: &str, loads: &[&[&str]], least: f64) {
    let _alone = alone();
    let run = traced(&waits(), loads);
    let ours = run.ours.run_queue.expect("the probes tell no waits");
    let theirs = histogram(&run.by_bpftrace, "@wait");
    let seen: u64 = theirs.iter().sum();
    let mut rows = Rows::new("latency", case);
    rows.at_least("waits by bpftrace", seen as f64, "", least);
    let apart = ours.wait_count.abs_diff(seen) as f64;
    let allowed = COUNT_EACH * loads.len() as f64 + seen as f64 * COUNT_MAX_PERCENT / 100.0;
    rows.at_most("waits: difference", apart, "", allowed);
    for (name, thousandths) in PERCENTILES {
        let (one, other) = (
            percentile_bucket(&ours.wait_hist, thousandths),
            percentile_bucket(&theirs, thousandths),
        );
        rows.figure(&format!("{name}: bucket"), one as f64, "log2 of ns");
        rows.figure(
            &format!("{name}: bucket by bpftrace"),
            other as f64,
            "log2 of ns",
        );
        let apart = one.abs_diff(other) as f64;
        rows.at_most(&format!("{name}: buckets apart"), apart, "", 1.0);
    }
    rows.finish();
}

#[test]
fn waits_of_tasks_that_sleep_and_wake() {
    let loads = [&["wake", "4000", "0"][..]; 2];
    compare_waits("a hundred tasks that sleep and wake", &loads, 5_000.0);
}

#[test]
fn waits_of_tasks_that_compute() {
    let loads = [&["spin", "4000"][..]; SPINNERS];
    compare_waits("six tasks that compute", &loads, 300.0);
}

#[test]
fn page_faults() {
    let _alone = alone();
    let script = format!("software:page-faults:1 /comm == \"{COMM}\"/ {{ @faults = count(); }}");
    let run = traced(&script, &[&["pages", "16384", "10"]]);
    let faults = run.ours.faults.expect("the probes tell no faults");
    assert_eq!(faults.source.name(), "ebpf");
    let ours = faults.value.minor + faults.value.major;
    let theirs = map_value(&run.by_bpftrace, "@faults");
    let by_controller = run.by_controller.minor + run.by_controller.major;
    let mut rows = Rows::new("latency", "page faults");
    let touched = told(&run.printed, "touched");
    rows.figure("pages touched", touched as f64, "");
    rows.at_least("faults", ours as f64, "", touched as f64);
    let error = differ_percent(ours, theirs);
    rows.at_most("difference to bpftrace", error, "%", FAULTS_MAX_PERCENT);
    let error = differ_percent(ours, by_controller);
    rows.at_most("difference to memory.stat", error, "%", FAULTS_MAX_PERCENT);
    rows.finish();
}
