//! How long a launch takes, how many tasks a second a real agent runs, and what the daemons weigh
//! when they have nothing to do.
//!
//! A real `ebb-master` and a real `ebb-agent` run as processes of their own; every task is a container.
//! `latency` is the time from the framework's accept to the task's first own instruction: the task
//! is this very program, which writes the time when it is in `main`. `throughput` counts tasks from
//! the subscription of a framework to the last end that it hears. Yardsticks take turns with Ebb,
//! round by round. Needs root, as the agent does.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use ebb_tests_bench::{
    Cluster, ForkExec, Runc, Yardstick, at_least, at_most, figure, monotonic_ns, quantile, spread,
    submit,
};
use ebb_types::CommandInfo;

/// The argument with which this program is the task.
const TASK_ARGUMENT: &str = "--write-the-time";
/// What the agent offers.
const CPUS: &str = "4";
const MEM: &str = "2GiB";
/// Rounds of each case.
const ROUNDS: usize = 20;
/// Tasks of one round of throughput.
const TASKS: usize = 20;
/// What Mesos 1.12-dev does with a process a task, by its command executor, on a machine of two
/// cores like the one this is for.
const LEAST_TASKS_PER_S: f64 = 8.0;
/// Memory of an idle daemon, in MiB.
const MOST_IDLE_MIB: f64 = 30.0;
/// How long the idle daemons are watched, and how often.
const IDLE_READINGS: usize = 10;
const IDLE_INTERVAL: Duration = Duration::from_millis(500);

fn main() -> Result<()> {
    let now_ns = monotonic_ns();
    if std::env::args()
        .nth(1)
        .is_some_and(|argument| argument == TASK_ARGUMENT)
    {
        println!("{now_ns}");
        return Ok(());
    }
    let folder = tempfile::tempdir()?;
    let cluster = Cluster::start(folder.path(), CPUS, MEM)?;
    // Whatever fails, the daemons are ended before the folder is removed.
    idle(&cluster)?;
    let own = std::env::current_exe()?;
    let own = own.to_str().context("the program's path is no text")?;
    let subjects = [&[own, TASK_ARGUMENT][..], &["/bin/true"]];
    let runc = match Runc::prepare(&folder.path().join("runc"), &subjects) {
        Ok(runc) => Some(runc),
        Err(error) => {
            eprintln!("no rows of runc: {error:#}; `apt-get install runc` installs it");
            None
        }
    };
    let mut yardsticks: Vec<&dyn Yardstick> = vec![&ForkExec];
    yardsticks.extend(runc.as_ref().map(|runc| runc as &dyn Yardstick));
    latency(&cluster, &yardsticks, subjects[0])?;
    throughput(&cluster, &yardsticks, subjects[1])?;
    cluster.stop()
}

fn command(arguments: &[&str]) -> CommandInfo {
    CommandInfo {
        value: arguments[0].to_owned(),
        arguments: arguments
            .iter()
            .map(|&argument| argument.to_owned())
            .collect(),
        ..CommandInfo::default()
    }
}

/// A registered agent and its master with nothing to do.
fn idle(cluster: &Cluster) -> Result<()> {
    // A task can only run once the agent is registered; after it the cluster has settled.
    let mut framework = cluster.open()?;
    let first = framework.run(command(&["/bin/true"]));
    cluster.runtime().block_on(first)?;
    cluster.runtime().block_on(framework.leave())?;
    for (name, daemon) in [
        ("ebb-master", cluster.master()),
        ("ebb-agent", cluster.agent()),
    ] {
        let mut resident_mib = Vec::new();
        let mut peak_mib = 0.0;
        for _ in 0..IDLE_READINGS {
            std::thread::sleep(IDLE_INTERVAL);
            let (now, peak) = daemon.resident_bytes()?;
            resident_mib.push(mib(now));
            peak_mib = mib(peak);
        }
        let most = quantile(&mut resident_mib, 1.0);
        at_most(
            &format!("idle {name}"),
            "resident_max",
            most,
            "MiB",
            MOST_IDLE_MIB,
        );
        figure(
            &format!("idle {name}"),
            "resident_peak_since_start",
            peak_mib,
            "MiB",
        );
    }
    Ok(())
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

fn ms(ns: u64) -> f64 {
    ns as f64 / 1e6
}

/// Accept to first instruction, one task at a time.
fn latency(cluster: &Cluster, yardsticks: &[&dyn Yardstick], subject: &[&str]) -> Result<()> {
    let mut framework = cluster.open()?;
    let (mut first_ms, mut running_ms) = (Vec::new(), Vec::new());
    let mut others_ms = vec![Vec::new(); yardsticks.len()];
    for _ in 0..ROUNDS {
        let start = cluster
            .runtime()
            .block_on(framework.run(command(subject)))?;
        let output = cluster.output(framework.framework_id(), &start.task_id)?;
        let wrong = || format!("the task wrote {output:?} and no time");
        let first_ns: u64 = output.trim().parse().with_context(wrong)?;
        ensure!(
            first_ns > start.accepted_ns,
            "the task ran before its offer was accepted"
        );
        first_ms.push(ms(first_ns - start.accepted_ns));
        running_ms.push(ms(start.running_ns - start.accepted_ns));
        for (yardstick, times) in yardsticks.iter().zip(&mut others_ms) {
            times.push(ms(yardstick.first_instruction_ns(subject)?));
        }
    }
    cluster.runtime().block_on(framework.leave())?;
    spread(
        "latency ebb",
        "accept_to_first_instruction",
        &mut first_ms,
        "ms",
    );
    spread("latency ebb", "accept_to_running", &mut running_ms, "ms");
    for (yardstick, times) in yardsticks.iter().zip(&mut others_ms) {
        let case = format!("latency {}", yardstick.name());
        spread(&case, "start_to_first_instruction", times, "ms");
    }
    Ok(())
}

/// Tasks a second, many at a time.
fn throughput(cluster: &Cluster, yardsticks: &[&dyn Yardstick], subject: &[&str]) -> Result<()> {
    let mut rates = Vec::new();
    let mut others = vec![Vec::new(); yardsticks.len()];
    for _ in 0..ROUNDS {
        let run = submit(cluster.channel()?, TASKS, command(subject));
        rates.push(cluster.runtime().block_on(run)?.tasks_per_s);
        for (yardstick, rates) in yardsticks.iter().zip(&mut others) {
            rates.push(yardstick.per_second(TASKS, subject)?);
        }
    }
    let case = "throughput ebb";
    at_least(
        case,
        "tasks_per_s_min",
        quantile(&mut rates, 0.0),
        "tasks/s",
        LEAST_TASKS_PER_S,
    );
    at_least(
        case,
        "tasks_per_s_median",
        quantile(&mut rates, 0.5),
        "tasks/s",
        LEAST_TASKS_PER_S,
    );
    for (yardstick, rates) in yardsticks.iter().zip(&mut others) {
        spread(
            &format!("throughput {}", yardstick.name()),
            "tasks_per_s",
            rates,
            "tasks/s",
        );
    }
    Ok(())
}
