//! `ebb dev`: a master and an agent in one process, for this machine alone.
//!
//! **Invariants.** "Ready" is said when the agent has registered with the master, not before. At the
//! end the agent goes first, so that the master still takes the last statuses; tasks end with it, and
//! no process, cgroup or mount is left, only the data folder.

mod log;

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use ebb_agent::Ready;
use ebb_types::{AgentStatus, Change};
use serde::Serialize;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;

pub(crate) use log::filter as log_filter;

use super::run::failed;
use crate::client::{Address, Master};
use crate::error::{CliError, EXIT_OK};
use crate::output::table::{Style, clean};
use crate::output::{Out, tell};
use crate::signals::Signals;

/// The longest that the agent may take to register.
const READY_TIMEOUT: Duration = Duration::from_secs(30);
/// The port that other commands try when no master is named.
const USUAL_PORT: u16 = ebb_master::config::DEFAULT_PORT;

const DEV_HELP: &str = "The data folder keeps the registry and what tasks wrote from one start to \
the next; remove it to begin anew. EBB_LOG sets what goes to its log, like info or ebb_agent=debug.";

/// `ebb dev`.
#[derive(Debug, Args)]
#[command(after_help = DEV_HELP)]
pub(crate) struct DevArgs {
    /// Where everything is kept; $XDG_STATE_HOME/ebb/dev or ~/.local/state/ebb/dev by default
    #[arg(long, value_name = "DIR")]
    pub(crate) data: Option<PathBuf>,
    /// Where the master listens; 127.0.0.1:5050 by default, or any free port where that is taken
    #[arg(long, value_name = "IP:PORT")]
    pub(crate) listen: Option<SocketAddr>,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// Where to look.
#[derive(Debug, Serialize)]
struct ReadyJson {
    event: &'static str,
    master: String,
    agent: String,
    master_metrics: String,
    agent_metrics: String,
    data: String,
    log: String,
    measures: String,
}

type Half = JoinHandle<Result<(), CliError>>;

/// One half of the cluster, with what ends it.
struct Running {
    stop: watch::Sender<bool>,
    task: Half,
}

impl Running {
    /// Ends it and waits for its end.
    async fn end(self) -> Result<(), CliError> {
        self.stop.send_replace(true);
        joined(self.task.await)
    }
}

fn joined(result: Result<Result<(), CliError>, tokio::task::JoinError>) -> Result<(), CliError> {
    result.unwrap_or_else(|error| {
        Err(CliError::Failed(format!(
            "a part of this process broke off ({error}); this is a fault in Ebb, please report it with the log"
        )))
    })
}

async fn stopped(mut stop: watch::Receiver<bool>) {
    // An error means that whoever could stop it has gone.
    let _ = stop.wait_for(|stop| *stop).await;
}

pub(crate) async fn perform(args: DevArgs, out: &mut Out) -> Result<u8, CliError> {
    let data = data_folder(args.data)?;
    let log = log::begin(&data)?;
    let mut signals = Signals::listen()?;
    let listen = args.listen.unwrap_or_else(usual_or_any);
    let (mut master, address) = start_master(&data, listen).await?;
    let (mut agent, ready) = start_agent(&data, address);
    let announce = async {
        let ready = ready.await.ok()?;
        let registered = registered(address).await;
        Some((ready, registered))
    };
    let mut announce = Some(Box::pin(announce));
    let interrupted = loop {
        tokio::select! {
            Some((ready, registered)) = maybe(&mut announce) => {
                announce = None;
                registered?;
                show(out, address, &ready, &data, &log)?;
            }
            ended = &mut agent.task => break Err(ended),
            ended = &mut master.task => break Err(ended),
            () = signals.next() => break Ok(()),
        }
    };
    if let Err(ended) = interrupted {
        let master_ended = master.task.is_finished();
        let result = joined(ended);
        // Whichever half has ended, the other must not stay behind.
        let rest = if master_ended {
            agent.end().await
        } else {
            master.end().await
        };
        return result.and(rest).and(Err(CliError::Failed(
            "the cluster ended by itself; see its log".to_owned(),
        )));
    }
    if !out.json {
        tell("ending the tasks, then the agent and the master");
    }
    let agent = agent.end().await;
    let master = master.end().await;
    agent.and(master)?;
    Ok(EXIT_OK)
}

/// The future, as long as there is one; then never.
async fn maybe<T>(future: &mut Option<impl Future<Output = Option<T>> + Unpin>) -> Option<T> {
    match future {
        Some(future) => match future.await {
            Some(value) => Some(value),
            // The agent has ended before it was ready: its own end tells why.
            None => std::future::pending().await,
        },
        None => std::future::pending().await,
    }
}

fn data_folder(given: Option<PathBuf>) -> Result<PathBuf, CliError> {
    let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty());
    let state = variable("XDG_STATE_HOME")
        .map(PathBuf::from)
        .or_else(|| variable("HOME").map(|home| PathBuf::from(home).join(".local/state")));
    let Some(data) = given.or_else(|| state.map(|state| state.join("ebb/dev"))) else {
        return Err(CliError::Usage(
            "neither HOME nor XDG_STATE_HOME is set; say with --data where everything is to be kept"
                .to_owned(),
        ));
    };
    let unusable = |error: std::io::Error| {
        CliError::Failed(format!(
            "cannot use the data folder {}: {error}; name another with --data",
            clean(&data.display().to_string())
        ))
    };
    std::fs::create_dir_all(&data).map_err(unusable)?;
    data.canonicalize().map_err(unusable)
}

/// The port that the other commands try by themselves, or any if it is taken.
fn usual_or_any() -> SocketAddr {
    let usual = SocketAddr::from((Ipv4Addr::LOCALHOST, USUAL_PORT));
    match TcpListener::bind(usual) {
        Ok(_) => usual,
        Err(_) => SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
    }
}

async fn start_master(data: &Path, listen: SocketAddr) -> Result<(Running, SocketAddr), CliError> {
    let config = ebb_master::Config {
        listen,
        data_dir: data.join("master"),
        hostname: listen.ip().to_string(),
        ..ebb_master::Config::default()
    };
    let (stop, stopping) = watch::channel(false);
    let (tell, told) = oneshot::channel();
    let mut task = tokio::spawn(async move {
        let ready = |address| {
            // Whoever waits for it is gone only when this process ends.
            let _ = tell.send(address);
        };
        let ended = ebb_master::run(config, ready, stopped(stopping)).await;
        ended.map_err(|error| failed(&error))
    });
    tokio::select! {
        Ok(address) = told => Ok((Running { stop, task }, address)),
        ended = &mut task => {
            joined(ended)?;
            Err(CliError::Failed("the master ended at once; see its log".to_owned()))
        }
    }
}

fn start_agent(data: &Path, master: SocketAddr) -> (Running, oneshot::Receiver<Ready>) {
    let here = master.ip();
    let config = ebb_agent::Config {
        master: master.to_string(),
        work_dir: data.join("agent"),
        listen: SocketAddr::new(here, 0),
        hostname: Some(here.to_string()),
        kill_tasks_on_shutdown: true,
        ..ebb_agent::Config::default()
    };
    let (stop, stopping) = watch::channel(false);
    let (tell, told) = oneshot::channel();
    let task = tokio::spawn(async move {
        let ended = Box::pin(ebb_agent::run(config, stopped(stopping), tell)).await;
        ended.map_err(|error| failed(&error))
    });
    (Running { stop, task }, told)
}

/// Waits until the master has an agent.
async fn registered(address: SocketAddr) -> Result<(), CliError> {
    let address: Address = address.to_string().parse().map_err(CliError::Failed)?;
    let is_in = |status| status == AgentStatus::Registered;
    let wait = async {
        let mut watch = Master::connect(&address).await?.watch().await?;
        while let Some(change) = watch.next().await? {
            match change {
                Change::Snapshot(state) if state.agents.iter().any(|a| is_in(a.status)) => break,
                Change::AgentUpdated(agent) if is_in(agent.status) => break,
                _ => {}
            }
        }
        Ok(())
    };
    match tokio::time::timeout(READY_TIMEOUT, wait).await {
        Ok(result) => result,
        Err(_) => Err(CliError::Failed(format!(
            "the agent did not register with the master within {} s; see the log",
            READY_TIMEOUT.as_secs()
        ))),
    }
}

fn show(
    out: &mut Out,
    master: SocketAddr,
    agent: &Ready,
    data: &Path,
    log: &Path,
) -> Result<(), CliError> {
    let ready = ReadyJson {
        event: "ready",
        master: master.to_string(),
        agent: agent.address.to_string(),
        master_metrics: format!("http://{master}/metrics"),
        agent_metrics: format!("http://{}/metrics", agent.address),
        data: data.display().to_string(),
        log: log.display().to_string(),
        measures: agent.measures.clone(),
    };
    if out.json {
        return Ok(out.json_line(&ready)?);
    }
    out.line(
        &out.palette
            .paint(Style::Bold, "a master and an agent on this machine"),
    )?;
    for (label, value) in [
        (
            "master",
            format!("{}, {}", ready.master, ready.master_metrics),
        ),
        ("agent", format!("{}, {}", ready.agent, ready.agent_metrics)),
        ("data", ready.data),
        ("log", ready.log),
        ("measures", ready.measures),
    ] {
        out.line(&format!("  {label:<9} {}", clean(&value)))?;
    }
    out.line("in another terminal:")?;
    if master.port() != USUAL_PORT {
        out.line(&format!("  export EBB_MASTER={master}"))?;
    }
    out.line("  ebb run -- sh -c 'echo hello; exit 3'")?;
    out.line("  ebb top")?;
    out.line("Ctrl-C ends the tasks and both")?;
    Ok(())
}
