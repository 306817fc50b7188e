//! A real master on threads of its own, and simulated agents that join it over loopback.

use std::net::SocketAddr;
use std::path::Path;
use std::thread::JoinHandle;

use anyhow::{Context, Result, anyhow};
use ebb_master::{Config, MasterError};
use tokio::runtime::Runtime;
use tokio::sync::oneshot;
use tonic::transport::{Channel, Endpoint};

use crate::agent::SimulatedAgent;

/// A running master.
pub struct Master {
    address: SocketAddr,
    stop: oneshot::Sender<()>,
    thread: JoinHandle<Result<(), MasterError>>,
}

impl Master {
    /// A master with threads of its own.
    ///
    /// # Errors
    /// When it does not start.
    pub fn start(folder: &Path) -> Result<Self> {
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

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Ends it.
    ///
    /// # Errors
    /// When it failed.
    pub fn stop(self) -> Result<()> {
        let _running = self.stop.send(()).is_ok();
        let ended = self.thread.join();
        ended.map_err(|_panic| anyhow!("the master panicked"))??;
        Ok(())
    }
}

/// A connection to a master.
///
/// # Errors
/// When there is none.
pub async fn connect(address: SocketAddr) -> Result<Channel> {
    let endpoint = Endpoint::from_shared(format!("http://{address}"))?.tcp_nodelay(true);
    Ok(endpoint.connect().await?)
}

/// Has simulated agents join, so many on each connection, and returns when all are registered.
///
/// # Errors
/// When one is not.
pub async fn join_agents(address: SocketAddr, agents: usize, per_connection: usize) -> Result<()> {
    for first in (0..agents).step_by(per_connection) {
        let channel = connect(address).await?;
        let mut waiting = Vec::with_capacity(per_connection);
        for number in first..agents.min(first + per_connection) {
            let (registered, is_registered) = oneshot::channel();
            waiting.push(is_registered);
            let channel = channel.clone();
            tokio::spawn(async move {
                if let Err(error) = SimulatedAgent::serve(channel, number, registered).await {
                    eprintln!("a simulated agent has ended: {error:#}");
                }
            });
        }
        // A connection at a time: the registry is written before an agent is told that it is in.
        for is_registered in waiting {
            is_registered.await.context("an agent is not registered")?;
        }
    }
    Ok(())
}
