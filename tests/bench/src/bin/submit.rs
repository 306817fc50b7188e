//! How many tasks a second go through the master: a real one with a durable registry, simulated
//! agents that end each task as soon as they have said that it runs, and one framework, all over
//! gRPC on loopback. A task counts when its end has arrived at the framework.
//!
//! Everything runs on this machine, so the agents' and the framework's own work is part of the time.

use std::net::SocketAddr;
use std::path::Path;
use std::thread::JoinHandle;

use anyhow::{Context, Result, anyhow};
use ebb_master::{Config, MasterError};
use ebb_tests_bench::{OneByOne, SimulatedAgent, at_least, figure, quantile, spread, submit};
use ebb_types::CommandInfo;
use tokio::runtime::Runtime;
use tokio::sync::oneshot;
use tonic::transport::{Channel, Endpoint};

/// Simulated agents.
const AGENTS: usize = 100;
/// Tasks of a round.
const TASKS: usize = 20_000;
/// Rounds, each with a master of its own.
const ROUNDS: usize = 3;
/// What Mesos 1.12-dev does with simulated agents on a machine of two cores like the one this is for.
const LEAST_TASKS_PER_S: f64 = 2400.0;
/// Tasks that run one after another, beside.
const SINGLES: usize = 200;
const CASE: &str = "100 agents, 20000 tasks at once";
const CASE_OF_SINGLES: &str = "100 agents, one task after another";

struct Master {
    address: SocketAddr,
    stop: oneshot::Sender<()>,
    thread: JoinHandle<Result<(), MasterError>>,
}

impl Master {
    /// A master with threads of its own.
    fn start(folder: &Path) -> Result<Self> {
        let config = Config {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            data_dir: folder.to_owned(),
            ..Config::default()
        };
        let runtime = Runtime::new()?;
        let (stop, stopped) = oneshot::channel::<()>();
        let (ready, is_ready) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || {
            let shutdown = async {
                let _asked = stopped.await.is_ok();
            };
            let tell = move |address| {
                let _heard = ready.send(address).is_ok();
            };
            runtime.block_on(ebb_master::run(config, tell, shutdown))
        });
        let address = is_ready.recv().context("the master does not start")?;
        Ok(Self {
            address,
            stop,
            thread,
        })
    }

    fn stop(self) -> Result<()> {
        let _running = self.stop.send(()).is_ok();
        let ended = self.thread.join();
        ended.map_err(|_panic| anyhow!("the master panicked"))??;
        Ok(())
    }
}

async fn connect(address: SocketAddr) -> Result<Channel> {
    let endpoint = Endpoint::from_shared(format!("http://{address}"))?.tcp_nodelay(true);
    Ok(endpoint.connect().await?)
}

async fn join_agents(address: SocketAddr) -> Result<()> {
    let mut waiting = Vec::new();
    for number in 0..AGENTS {
        let channel = connect(address).await?;
        let (registered, is_registered) = oneshot::channel();
        waiting.push(is_registered);
        tokio::spawn(async move {
            if let Err(error) = SimulatedAgent::serve(channel, number, registered).await {
                eprintln!("a simulated agent has ended: {error:#}");
            }
        });
    }
    for is_registered in waiting {
        is_registered.await.context("an agent is not registered")?;
    }
    Ok(())
}

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
    let mut alone_ms = Vec::new();
    for _ in 0..ROUNDS {
        let folder = tempfile::tempdir()?;
        let master = Master::start(folder.path())?;
        let runtime = Runtime::new()?;
        let (report, singles_ms) = runtime.block_on(async {
            join_agents(master.address).await?;
            let channel = connect(master.address).await?;
            let report = submit(channel, TASKS, command.clone()).await?;
            anyhow::Ok((report, singles(master.address, &command).await?))
        })?;
        master.stop()?;
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
