//! What may be asked of the driver, and the handle to ask it with.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use ebb_types::{
    AgentToMaster, Call, Change, Event, ExplainSubject, Explanation, Incarnation, MasterToAgent,
};
use tokio::sync::{mpsc, oneshot};

use super::outbox::{Inlet, Outbox, outbox};
use crate::core::{ConnectionId, OperatorCommand, OperatorError};
use crate::metrics::Figures;
use crate::mirror::{Reads, View};

/// Most commands that wait for the driver; whoever brings more waits.
pub const MAX_INBOX: usize = 8192;

/// The driver is no more: the master ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the master is ending; connect again when it is back")]
pub struct Stopped;

/// Something for the driver to do.
#[derive(Debug)]
pub(super) enum Command {
    SchedulerConnected(ConnectionId, Outbox<Event>),
    Scheduler(ConnectionId, Call),
    /// A scheduler sent what cannot be understood.
    SchedulerBroke(ConnectionId, String),
    SchedulerGone(ConnectionId),
    AgentConnected(ConnectionId, Outbox<MasterToAgent>),
    Agent(ConnectionId, Incarnation, AgentToMaster),
    /// An agent sent what cannot be understood.
    AgentBroke(ConnectionId, String),
    AgentGone(ConnectionId),
    Operate(OperatorCommand, oneshot::Sender<Result<(), OperatorError>>),
    Figures(oneshot::Sender<Figures>),
    Explain(
        ExplainSubject,
        oneshot::Sender<Result<Explanation, OperatorError>>,
    ),
}

/// Brings commands to the driver. Waits while its inbox is full, which in turn holds up whoever
/// sends to the master.
#[derive(Clone, Debug)]
pub struct Handle {
    pub(super) inbox: mpsc::Sender<Command>,
    pub(super) reads: Reads,
    pub(super) connections: Arc<AtomicU64>,
    pub(super) outbox_limit: usize,
    pub(super) heartbeat_interval_ms: u64,
    pub(super) generation: u64,
}

impl Handle {
    /// How often a stream says at least something, in milliseconds.
    pub const fn heartbeat_interval_ms(&self) -> u64 {
        self.heartbeat_interval_ms
    }

    /// The term in which the master leads.
    pub const fn generation(&self) -> u64 {
        self.generation
    }

    fn connection(&self) -> ConnectionId {
        ConnectionId(self.connections.fetch_add(1, Ordering::Relaxed))
    }

    async fn send(&self, command: Command) -> Result<(), Stopped> {
        self.inbox.send(command).await.map_err(|_| Stopped)
    }

    async fn ask<T>(
        &self,
        command: impl FnOnce(oneshot::Sender<T>) -> Command,
    ) -> Result<T, Stopped> {
        let (sender, answer) = oneshot::channel();
        self.send(command(sender)).await?;
        answer.await.map_err(|_| Stopped)
    }

    /// Opens a scheduler's connection.
    ///
    /// # Errors
    /// [`Stopped`].
    pub async fn connect_scheduler(&self) -> Result<(ConnectionId, Inlet<Event>), Stopped> {
        let (sender, inlet) = outbox(self.outbox_limit);
        let connection = self.connection();
        self.send(Command::SchedulerConnected(connection, sender))
            .await?;
        Ok((connection, inlet))
    }

    /// Opens an agent's connection.
    ///
    /// # Errors
    /// [`Stopped`].
    pub async fn connect_agent(&self) -> Result<(ConnectionId, Inlet<MasterToAgent>), Stopped> {
        let (sender, inlet) = outbox(self.outbox_limit);
        let connection = self.connection();
        self.send(Command::AgentConnected(connection, sender))
            .await?;
        Ok((connection, inlet))
    }

    /// A scheduler calls.
    ///
    /// # Errors
    /// [`Stopped`].
    pub async fn call(&self, connection: ConnectionId, call: Call) -> Result<(), Stopped> {
        self.send(Command::Scheduler(connection, call)).await
    }

    /// A scheduler sent what cannot be understood; its stream ends with the reason.
    ///
    /// # Errors
    /// [`Stopped`].
    pub async fn scheduler_broke(
        &self,
        connection: ConnectionId,
        why: String,
    ) -> Result<(), Stopped> {
        self.send(Command::SchedulerBroke(connection, why)).await
    }

    /// A scheduler's stream has ended.
    ///
    /// # Errors
    /// [`Stopped`].
    pub async fn scheduler_gone(&self, connection: ConnectionId) -> Result<(), Stopped> {
        self.send(Command::SchedulerGone(connection)).await
    }

    /// An agent speaks.
    ///
    /// # Errors
    /// [`Stopped`].
    pub async fn agent(
        &self,
        connection: ConnectionId,
        incarnation: Incarnation,
        message: AgentToMaster,
    ) -> Result<(), Stopped> {
        self.send(Command::Agent(connection, incarnation, message))
            .await
    }

    /// An agent sent what cannot be understood; its stream ends with the reason.
    ///
    /// # Errors
    /// [`Stopped`].
    pub async fn agent_broke(&self, connection: ConnectionId, why: String) -> Result<(), Stopped> {
        self.send(Command::AgentBroke(connection, why)).await
    }

    /// An agent's stream has ended.
    ///
    /// # Errors
    /// [`Stopped`].
    pub async fn agent_gone(&self, connection: ConnectionId) -> Result<(), Stopped> {
        self.send(Command::AgentGone(connection)).await
    }

    /// Has something done for an operator.
    ///
    /// # Errors
    /// [`Stopped`]; the inner result is the core's answer.
    pub async fn operate(
        &self,
        command: OperatorCommand,
    ) -> Result<Result<(), OperatorError>, Stopped> {
        self.ask(|answer| Command::Operate(command, answer)).await
    }

    /// Where everything that the master knows is read. The driver is not asked for it.
    pub const fn reads(&self) -> &Reads {
        &self.reads
    }

    /// What is made of everything that the master knows, and every change after that.
    ///
    /// # Errors
    /// [`Stopped`].
    pub async fn watch<T: Send + 'static>(
        &self,
        make: impl FnOnce(&View) -> T + Send + 'static,
    ) -> Result<(T, Inlet<Arc<Change>>), Stopped> {
        self.reads.watch(self.outbox_limit, make).await
    }

    /// What is counted, for metrics.
    ///
    /// # Errors
    /// [`Stopped`].
    pub async fn figures(&self) -> Result<Figures, Stopped> {
        self.ask(Command::Figures).await
    }

    /// Why a framework, or the frameworks of a role, are offered something now, or nothing.
    ///
    /// # Errors
    /// [`Stopped`]; the inner result is the core's answer.
    pub async fn explain(
        &self,
        subject: ExplainSubject,
    ) -> Result<Result<Explanation, OperatorError>, Stopped> {
        self.ask(|answer| Command::Explain(subject, answer)).await
    }
}
