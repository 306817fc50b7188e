//! Ebb's agent: runs tasks in containers, measures them with eBPF, lends their slack and takes it back.
//!
//! [`core`] decides and [`driver`] acts; everything else is what the driver acts with. [`run`] is the
//! whole agent, also inside another process.
//!
//! A program that runs the agent must hand its arguments to [`dispatch_executor`] before it does anything
//! else: each task has a keeper process, which is the same binary anew.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot, watch};

pub mod cgroup;
pub mod checkpoint;
pub mod config;
pub mod containers;
pub mod core;
pub mod devices;
pub mod driver;
#[cfg(test)]
mod fuzzing;
pub mod machine;
pub mod master_link;
pub mod metrics;
mod pins;
pub mod probe;
pub mod readiness;
mod report;
pub mod runtime;
pub mod sampling;
pub mod services;
mod start;

pub use config::{Config, ConfigError, Flags};
pub use report::{Line, Question, Report};

use crate::cgroup::CgroupError;
use crate::checkpoint::CheckpointError;
use crate::driver::DriverError;
use crate::machine::MachineError;
use crate::master_link::Dialler;
use crate::runtime::RuntimeError;
use crate::services::{ExecutorService, SandboxService, SocketError};

/// If this process was started to keep a task, keeps it and returns its exit code; else `None`.
///
/// To be called first of all in `main`, before any thread is started.
pub fn dispatch_executor() -> Option<ExitCode> {
    let mut arguments = std::env::args_os().skip(1);
    (arguments.next()? == runtime::EXECUTOR_ARG).then(|| runtime::executor_main(arguments))
}

/// The agent cannot start, or cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// It is not run as root.
    #[error(
        "the agent needs root to make cgroups and namespaces, to switch users and to load its probes; run it with \
         sudo, or as a system service"
    )]
    NotRoot,
    /// Its settings are wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// What its settings say of lots does not fit.
    #[error(
        "the agent's resources do not go together: {rule}; correct the setting `resources`, or destroy volumes and end reservations before what they are made of is taken away"
    )]
    Lots {
        /// What does not go together.
        rule: String,
    },
    /// Its disks and the devices behind them do not go together.
    #[error("{rule}")]
    Devices {
        /// What does not, and what to do.
        rule: String,
    },
    /// Its work folder is unusable.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// It cannot make cgroups.
    #[error("the agent cannot use cgroups")]
    Cgroup(#[from] CgroupError),
    /// It cannot find its containers.
    #[error("the agent cannot find the containers of its earlier lives")]
    Runtime(#[from] RuntimeError),
    /// It cannot find out what the machine has.
    #[error(transparent)]
    Machine(#[from] MachineError),
    /// Its port is taken.
    #[error(
        "cannot listen on {address}: {source}; end what listens there, or give another address with --listen"
    )]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system answered.
        source: std::io::Error,
    },
    /// The executors' socket cannot be made.
    #[error(transparent)]
    Socket(#[from] SocketError),
    /// A thread cannot be started.
    #[error("cannot start a thread: {0}")]
    Thread(#[source] std::io::Error),
    /// The loop has ended.
    #[error(transparent)]
    Driver(#[from] DriverError),
}

/// What an agent that has started says.
#[derive(Clone, Debug)]
pub struct Ready {
    /// Where its own API listens.
    pub address: SocketAddr,
    /// Its work folder.
    pub work_dir: PathBuf,
    /// How it measures, as a sentence.
    pub measures: String,
}

/// Runs an agent until `shutdown`. `ready` is told when it serves.
///
/// Tasks run on afterwards, unless the settings say that they end with the agent; then nothing of it is
/// left but its work folder.
///
/// # Errors
/// [`AgentError`] says what is wrong and what to do.
pub async fn run(
    config: Config,
    shutdown: impl Future<Output = ()> + Send,
    ready: oneshot::Sender<Ready>,
) -> Result<(), AgentError> {
    let listener = TcpListener::bind(config.listen)
        .await
        .map_err(|source| AgentError::Listen {
            address: config.listen,
            source,
        })?;
    let address = listener.local_addr().map_err(|source| AgentError::Listen {
        address: config.listen,
        source,
    })?;
    let prepared = {
        let config = config.clone();
        let work = move || start::prepare(&config, address);
        tokio::task::spawn_blocking(work)
            .await
            .map_err(|error| AgentError::Thread(std::io::Error::other(error)))??
    };
    let socket = services::socket_path(prepared.work_dir.path());
    let executors = services::listen_for_executors(&socket)?;
    let (events, mut inbox) = mpsc::channel(driver::MAX_EVENTS);
    let assembled = start::assemble(prepared, &socket, events.clone())?;
    let mut driver = assembled.driver;
    driver.step(core::Input::Recovered {
        containers: assembled.found,
    })?;
    let (stop, stopped) = watch::channel(false);
    let sandboxes = SandboxService::new(
        assembled.runtime.clone(),
        assembled.live,
        Arc::clone(&assembled.metrics),
    );
    let dialler = Dialler {
        master: config.master.clone(),
        incarnation: assembled.incarnation,
        events: events.clone(),
        metrics: Arc::clone(&assembled.metrics),
    };
    let tasks = [
        tokio::spawn(served(services::serve_public(
            listener,
            sandboxes,
            Arc::clone(&assembled.metrics),
            stopped.clone(),
        ))),
        tokio::spawn(served(services::serve_executors(
            executors,
            ExecutorService::new(events),
            stopped,
        ))),
        tokio::spawn(dialler.run()),
        tokio::spawn(start::collect_sandboxes(
            assembled.runtime.clone(),
            config.sandbox_keep_ms,
            Arc::clone(&assembled.metrics),
        )),
    ];
    // Whoever waited for the agent may have gone.
    let _ = ready.send(Ready {
        address,
        work_dir: assembled.work_dir.path().to_owned(),
        measures: assembled.measures,
    });
    let drain = config.kill_tasks_on_shutdown;
    let outcome = driver.run(&mut inbox, shutdown, drain).await;
    stop.send_replace(true);
    drop(inbox);
    for task in &tasks {
        task.abort();
    }
    let clean = drain && outcome.is_ok();
    if clean {
        tracing::info!("the agent ends with its tasks");
    } else {
        tracing::info!(
            "the agent ends; tasks run on, and the next agent in this work folder takes them over"
        );
    }
    let ended = tokio::task::spawn_blocking(move || {
        start::wind_up(
            driver,
            assembled.sampler_thread,
            &assembled.runtime,
            clean,
            &socket,
        );
    });
    ended
        .await
        .map_err(|error| AgentError::Thread(std::io::Error::other(error)))?;
    tracing::info!("the agent has ended");
    Ok(outcome?)
}

/// A server that has ended with an error says so; the agent runs on, since its tasks do.
async fn served(server: impl Future<Output = std::io::Result<()>>) {
    if let Err(error) = server.await {
        tracing::error!(%error, "the agent's own API is not served any more");
    }
}
