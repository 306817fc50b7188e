//! A framework whose tasks do not end by themselves: it starts them, keeps them, and takes them with it when it leaves.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use ebb_types::{CommandInfo, Event, TaskState, TaskStatus};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tonic::transport::Channel;

use crate::connection::Connection;
use crate::load::launch;

/// Tasks that take longer to start have failed.
const TIMEOUT: Duration = Duration::from_secs(120);

/// Running tasks, and the framework that keeps them.
pub struct Crowd {
    leave: oneshot::Sender<()>,
    keeper: JoinHandle<Result<()>>,
}

impl Crowd {
    /// Starts so many tasks with this command, and returns when all of them run.
    ///
    /// # Errors
    /// When one does not run, or it takes too long.
    pub async fn start(channel: Channel, tasks: usize, command: CommandInfo) -> Result<Self> {
        let start = start(channel, tasks, command);
        let connection = tokio::time::timeout(TIMEOUT, start)
            .await
            .with_context(|| format!("{tasks} tasks do not run in {} s", TIMEOUT.as_secs()))??;
        let (leave, asked) = oneshot::channel();
        let keeper = tokio::spawn(keep(connection, asked));
        Ok(Self { leave, keeper })
    }

    /// Ends the tasks and the framework.
    ///
    /// # Errors
    /// When a task had ended before, or the master had.
    pub async fn leave(self) -> Result<()> {
        // If nobody hears it, the keeper has failed and says so.
        let _heard = self.leave.send(()).is_ok();
        self.keeper.await.map_err(|error| anyhow!(error))?
    }
}

async fn start(channel: Channel, tasks: usize, command: CommandInfo) -> Result<Connection> {
    let mut connection = Connection::open(channel).await?;
    let mut to_launch = 0..tasks;
    let mut running = BTreeSet::new();
    while running.len() < tasks {
        match connection.hear().await? {
            Event::Offers(offers) => {
                launch(&connection, offers, &command, &mut to_launch).await?;
            }
            Event::Update(status) => {
                note(&connection, &status).await?;
                if status.state == TaskState::Running {
                    running.insert(status.task_id);
                }
            }
            _ => {}
        }
    }
    Ok(connection)
}

async fn keep(mut connection: Connection, mut asked: oneshot::Receiver<()>) -> Result<()> {
    loop {
        let event = tokio::select! {
            event = connection.hear() => event?,
            _ = &mut asked => return connection.leave().await,
        };
        match event {
            Event::Offers(offers) => {
                let nothing = CommandInfo::default();
                launch(&connection, offers, &nothing, &mut (0..0)).await?;
            }
            Event::Update(status) => note(&connection, &status).await?,
            _ => {}
        }
    }
}

async fn note(connection: &Connection, status: &TaskStatus) -> Result<()> {
    ensure!(
        !status.state.is_terminal(),
        "a task ended that was to stay: {status:?}"
    );
    connection.acknowledge(status).await
}
