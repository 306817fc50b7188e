//! How many tasks a second go through the master: a real one with a durable registry, simulated
//! agents that end each task as soon as they have said that it runs, and one framework, all over
//! gRPC on loopback. A task counts when its end has arrived at the framework.
//!
//! Everything runs on this machine, so the agents' and the framework's own work is part of the time.

use std::net::SocketAddr;

use anyhow::Result;
use ebb_tests_bench::{
    Master, OneByOne, at_least, at_most, connect, figure, join_agents, quantile, spread, submit,
    submit_paced,
};
use ebb_types::CommandInfo;
use tokio::runtime::Runtime;

/// Simulated agents, each on a connection of its own.
const AGENTS: usize = 1000;
/// Tasks of a round.
const TASKS: usize = 20_000;
/// Rounds, each with a master of its own.
const ROUNDS: usize = 3;
/// Ten times what Mesos 1.12-dev does (2,400) with simulated agents on a machine of two cores like the one this is for.
const LEAST_TASKS_PER_S: f64 = 25_000.0;
/// Half of that, at which tasks become due one after another, however the ones before them fare.
const PACE_PER_S: f64 = LEAST_TASKS_PER_S / 2.0;
/// Mesos: 4.5 s.
const MAX_PACED_P99_MS: f64 = 50.0;
/// Tasks that run one after another, beside.
const SINGLES: usize = 200;
const CASE: &str = "1000 agents, 20000 tasks at once";
const CASE_OF_PACE: &str = "1000 agents, 20000 tasks at half the least rate";
const CASE_OF_SINGLES: &str = "1000 agents, one task after another";

/// Accept to running of tasks that have the master to themselves, in milliseconds.
async fn singles(address: SocketAddr, command: &CommandInfo) -> Result<Vec<f64>> {
    let mut framework = OneByOne::open(connect(address).await?).await?;
    let mut running_ms = Vec::with_capacity(SINGLES);
    for _ in 0..SINGLES {
        let start = framework.run(command.clone()).await?;
        running_ms.push((start.running_ns - start.accepted_ns) as f64 / 1e6);
    }
    framework.leave().await?;
    Ok(running_ms)
}

fn main() -> Result<()> {
    let command = CommandInfo {
        value: String::from("true"),
        ..CommandInfo::default()
    };
    let (mut rates, mut p50s, mut p99s) = (Vec::new(), Vec::new(), Vec::new());
    let (mut paced_p50s, mut paced_p99s) = (Vec::new(), Vec::new());
    let mut alone_ms = Vec::new();
    for _ in 0..ROUNDS {
        let folder = tempfile::tempdir()?;
        let master = Master::start(folder.path())?;
        let runtime = Runtime::new()?;
        let address = master.address();
        let (report, paced, singles_ms) = runtime.block_on(async {
            join_agents(address, AGENTS, 1).await?;
            let report = submit(connect(address).await?, TASKS, command.clone()).await?;
            let channel = connect(address).await?;
            let paced = submit_paced(channel, TASKS, PACE_PER_S, command.clone()).await?;
            anyhow::Ok((report, paced, singles(address, &command).await?))
        })?;
        master.stop()?;
        paced_p50s.push(paced.running_p50_ms);
        paced_p99s.push(paced.running_p99_ms);
        rates.push(report.tasks_per_s);
        p50s.push(report.running_p50_ms);
        p99s.push(report.running_p99_ms);
        alone_ms.extend(singles_ms);
    }
    for (metric, share) in [("tasks_per_s_min", 0.0), ("tasks_per_s_median", 0.5)] {
        let rate = quantile(&mut rates, share);
        at_least(CASE, metric, rate, "tasks/s", LEAST_TASKS_PER_S);
    }
    spread(CASE, "accept_to_running_p50", &mut p50s, "ms");
    spread(CASE, "accept_to_running_p99", &mut p99s, "ms");
    spread(CASE_OF_PACE, "due_to_running_p50", &mut paced_p50s, "ms");
    let p99_ms = quantile(&mut paced_p99s, 0.5);
    let metric = "due_to_running_p99_median";
    at_most(CASE_OF_PACE, metric, p99_ms, "ms", MAX_PACED_P99_MS);
    for (metric, share) in [("min", 0.0), ("p50", 0.5), ("p99", 0.99)] {
        let time_ms = quantile(&mut alone_ms, share);
        figure(
            CASE_OF_SINGLES,
            &format!("accept_to_running_{metric}"),
            time_ms,
            "ms",
        );
    }
    Ok(())
}
