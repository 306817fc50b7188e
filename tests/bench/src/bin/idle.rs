//! What an agent takes for itself while the tasks on its machine do nothing.
//!
//! A real `ebb-master` and a real `ebb-agent`, and a framework that keeps 100 tasks on it that sleep. The agent reads
//! its figures ten times a second all the same: that is what is measured, in its process and, by the kernel's own
//! account, in its probes. That account is kept all the time here, although the agent asks for it only in a tenth of the
//! time, so that nothing has to be scaled up. Executors and tasks are processes of their own and are not counted. Needs
//! root.

use std::collections::BTreeMap;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use ebb_tests_bench::process::{Cost, cpu_ns, forget_peak, load_average, programs, threads_ns};
use ebb_tests_bench::{Cluster, Crowd, at_most, figure, keep_statistics, quantile};
use ebb_types::CommandInfo;

/// What the agent offers: enough for all tasks.
const CPUS: &str = "16";
const MEM: &str = "8GiB";
const TASKS: usize = 100;
const CASE: &str = "agent, 100 idle containers";
/// From the last start of a task until the agent counts as idle.
const SETTLE: Duration = Duration::from_secs(10);
/// How long it is watched, and how often its memory is read.
const WATCH: Duration = Duration::from_secs(60);
const INTERVAL: Duration = Duration::from_secs(1);
/// Of one core.
const MOST_CPU_PERCENT: f64 = 0.5;
const MOST_RESIDENT_MIB: f64 = 30.0;
/// A share of a core that is worth a row of its own.
const SHOWN_PERCENT: f64 = 0.01;

/// What the agent has used so far.
struct Used {
    at: Instant,
    cpu_ns: u64,
    threads_ns: BTreeMap<String, u64>,
    programs: BTreeMap<u64, Cost>,
}

impl Used {
    fn read(pid: u32) -> Result<Self> {
        let programs = programs(pid)?;
        ensure!(
            !programs.is_empty(),
            "the agent holds no probe: it was built without them, or the kernel refuses them"
        );
        Ok(Self {
            at: Instant::now(),
            cpu_ns: cpu_ns(pid)?,
            threads_ns: threads_ns(pid)?,
            programs,
        })
    }
}

fn main() -> Result<()> {
    figure("machine", "load_average_before", load_average()?, "tasks");
    let folder = tempfile::tempdir()?;
    let cluster = Cluster::start(folder.path(), CPUS, MEM)?;
    let command = CommandInfo {
        value: "sleep".to_owned(),
        arguments: vec!["sleep".to_owned(), "infinity".to_owned()],
        ..CommandInfo::default()
    };
    let start = Crowd::start(cluster.channel()?, TASKS, command);
    let crowd = cluster.runtime().block_on(start)?;
    sleep(SETTLE);
    watch(cluster.agent().pid(), || cluster.agent().resident_bytes())?;
    figure("machine", "load_average_after", load_average()?, "tasks");
    cluster.runtime().block_on(crowd.leave())?;
    cluster.stop()
}

fn watch(pid: u32, resident_bytes: impl Fn() -> Result<(u64, u64)>) -> Result<()> {
    forget_peak(pid)?;
    let _statistics = keep_statistics()?;
    let before = Used::read(pid)?;
    let mut resident_mib = Vec::new();
    let mut peak_mib = 0.0;
    while before.at.elapsed() < WATCH {
        sleep(INTERVAL);
        let (now, peak) = resident_bytes()?;
        resident_mib.push(mib(now));
        peak_mib = mib(peak);
    }
    let after = Used::read(pid)?;
    let wall_ns = (after.at - before.at).as_nanos() as f64;
    let percent = |ns: u64| 100.0 * ns as f64 / wall_ns;
    let process = percent(after.cpu_ns - before.cpu_ns);
    let probes_ns = probes_ns(&before, &after)?;
    let probes = percent(probes_ns);
    at_most(
        CASE,
        "cpu",
        process + probes,
        "% of a core",
        MOST_CPU_PERCENT,
    );
    figure(CASE, "cpu_process", process, "% of a core");
    figure(CASE, "cpu_probes", probes, "% of a core");
    for (name, ns) in &after.threads_ns {
        let share = percent(ns.saturating_sub(before.threads_ns.get(name).copied().unwrap_or(0)));
        if share >= SHOWN_PERCENT {
            figure(CASE, &format!("cpu_thread {name}"), share, "% of a core");
        }
    }
    let most = quantile(&mut resident_mib, 1.0);
    at_most(CASE, "resident_max", most, "MiB", MOST_RESIDENT_MIB);
    at_most(CASE, "resident_peak", peak_mib, "MiB", MOST_RESIDENT_MIB);
    Ok(())
}

/// Time in the agent's probes. They must have run: otherwise nobody has counted.
fn probes_ns(before: &Used, after: &Used) -> Result<u64> {
    let mut sum = Cost::default();
    for (id, cost) in &after.programs {
        sum = sum.and(cost.since(before.programs.get(id).copied().unwrap_or_default()));
    }
    sum.mean_ns()
        .context("the kernel counted no run of the agent's probes")?;
    Ok(sum.run_time_ns)
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}
