//! Connects an executor with its agent over the agent's Unix socket.

use std::future::Future;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::time::Duration;

use ebb_api::proto;
use ebb_api::proto::executor_client::ExecutorClient;
use ebb_types::limits::MAX_FRAME_BYTES;
use ebb_types::{
    ExecutorCall, ExecutorEvent, ExecutorId, FrameworkId, InvalidId, TaskId, TaskStatus,
};
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use tonic::transport::Endpoint;

use super::handle::Word;
use super::session::{ExecutorSession, SessionInput, SessionOutput};
use super::{
    ENV_EXECUTOR_ID, ENV_FRAMEWORK_ID, ENV_SOCKET, Executor, ExecutorHandle, ExecutorSubscribed,
};
use crate::scheduler::{Clock, chain, seed};

/// Calls that the transport holds; more wait in the session.
const IN_TRANSPORT: usize = 256;
/// How long an agent may take to answer a subscription.
const SUBSCRIBE_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest sleep of the loop.
const MAX_SLEEP_MS: u64 = 3_600_000;

/// Why an executor could not go on.
#[derive(Debug, thiserror::Error)]
pub enum ExecutorError {
    /// The environment does not name something.
    #[error("{variable} is not set; executors are started by an agent, which sets it")]
    Environment {
        /// The variable.
        variable: &'static str,
    },
    /// An id in the environment is not valid.
    #[error("{variable} holds no valid id")]
    Id {
        /// The variable.
        variable: &'static str,
        /// What is wrong with it.
        #[source]
        source: InvalidId,
    },
    /// The agent will not have the executor.
    #[error("the agent refused the executor: {message}")]
    Refused {
        /// What it said.
        message: String,
    },
}

/// Where the agent is and who subscribes.
#[derive(Clone, Debug)]
pub struct ExecutorConfig {
    /// The agent's socket.
    pub socket: PathBuf,
    /// The framework.
    pub framework_id: FrameworkId,
    /// The executor.
    pub executor_id: ExecutorId,
}

impl ExecutorConfig {
    /// Reads what the agent has put into the environment.
    ///
    /// # Errors
    /// When a variable is missing or holds no valid id.
    pub fn from_environment() -> Result<Self, ExecutorError> {
        let text =
            |variable| std::env::var(variable).map_err(|_| ExecutorError::Environment { variable });
        let bad = |variable| move |source| ExecutorError::Id { variable, source };
        Ok(Self {
            socket: PathBuf::from(text(ENV_SOCKET)?),
            framework_id: FrameworkId::new(text(ENV_FRAMEWORK_ID)?)
                .map_err(bad(ENV_FRAMEWORK_ID))?,
            executor_id: ExecutorId::new(text(ENV_EXECUTOR_ID)?).map_err(bad(ENV_EXECUTOR_ID))?,
        })
    }
}

/// Runs an executor until the agent ends it, and gives it back.
///
/// # Errors
/// When the agent refuses the executor for good.
pub async fn run_executor<E: Executor>(
    executor: E,
    config: ExecutorConfig,
) -> Result<E, ExecutorError> {
    let clock = Clock::start();
    let life = clock.now().as_ms() << 20 | (seed() & 0xf_ffff);
    let mut running = Running {
        executor,
        session: ExecutorSession::new(clock.now(), life),
        handle: ExecutorHandle::new(config.executor_id.clone(), life, clock),
        config,
        clock,
        link: None,
        subscriptions: 0,
        ended: false,
        refused: None,
    };
    running.run().await;
    match running.refused {
        Some(message) => Err(ExecutorError::Refused { message }),
        None => Ok(running.executor),
    }
}

type Opening =
    Pin<Box<dyn Future<Output = Result<Streaming<proto::ExecutorEvent>, String>> + Send>>;

enum Incoming {
    Opening(Opening),
    Open(Box<Streaming<proto::ExecutorEvent>>),
}

struct Link {
    outgoing: mpsc::Sender<proto::ExecutorCall>,
    incoming: Incoming,
}

struct Running<E> {
    executor: E,
    session: ExecutorSession,
    handle: ExecutorHandle,
    config: ExecutorConfig,
    clock: Clock,
    link: Option<Link>,
    subscriptions: u64,
    ended: bool,
    refused: Option<String>,
}

impl<E: Executor> Running<E> {
    async fn run(&mut self) {
        self.step(SessionInput::Tick).await;
        while !self.ended {
            let now = self.clock.now();
            let sleep_ms = self
                .session
                .next_wake()
                .map_or(MAX_SLEEP_MS, |at| at.ms_since(now).min(MAX_SLEEP_MS));
            tokio::select! {
                word = self.handle.next() => self.say(word).await,
                heard = next(&mut self.link) => match heard {
                    Ok(event) => self.hear(event).await,
                    Err(cause) => self.lose(&cause).await,
                },
                () = tokio::time::sleep(Duration::from_millis(sleep_ms)) => {
                    self.step(SessionInput::Tick).await;
                }
            }
        }
    }

    async fn say(&mut self, word: Word) {
        match word {
            Word::Update(status) => self.step(SessionInput::Update(status)).await,
            Word::Message(data) => self.send(ExecutorCall::Message(data)).await,
            Word::Done => self.step(SessionInput::ShutDown).await,
        }
    }

    async fn lose(&mut self, cause: &str) {
        tracing::info!(cause, "the agent is gone; it is tried again");
        self.link = None;
        self.executor.disconnected();
        self.step(SessionInput::Broken).await;
    }

    async fn step(&mut self, input: SessionInput) {
        for output in self.session.step(self.clock.now(), input) {
            match output {
                SessionOutput::Connect { tasks, updates } => self.connect(tasks, updates),
                SessionOutput::Send(status) => self.send(ExecutorCall::Update(status)).await,
                SessionOutput::End => self.ended = true,
            }
        }
    }

    fn connect(&mut self, tasks: Vec<TaskId>, updates: Vec<TaskStatus>) {
        let (outgoing, calls) = mpsc::channel(IN_TRANSPORT);
        let subscribe = ExecutorCall::Subscribe {
            framework_id: self.config.framework_id.clone(),
            executor_id: self.config.executor_id.clone(),
            unacknowledged_tasks: tasks,
            unacknowledged_updates: updates,
        };
        let first = outgoing.try_send(subscribe.into());
        debug_assert!(first.is_ok(), "a new channel has room");
        let opening = Box::pin(open(self.config.socket.clone(), calls));
        self.link = Some(Link {
            outgoing,
            incoming: Incoming::Opening(opening),
        });
    }

    /// Sends a call. One that cannot be sent is a status that the session keeps, or a message, which
    /// may be lost.
    async fn send(&mut self, call: ExecutorCall) {
        let Some(link) = &self.link else {
            return;
        };
        if link.outgoing.send(call.into()).await.is_err() {
            tracing::debug!("the agent's stream is closed; what was to be said is said again");
        }
    }

    async fn hear(&mut self, event: proto::ExecutorEvent) {
        match ExecutorEvent::try_from(event) {
            Ok(event) => self.obey(event).await,
            Err(error) => {
                self.lose(&format!("it sent what cannot be read: {error}"))
                    .await
            }
        }
    }

    async fn obey(&mut self, event: ExecutorEvent) {
        match event {
            ExecutorEvent::Subscribed {
                executor,
                agent_id,
                container_id,
            } => {
                let again = self.subscriptions > 0;
                self.subscriptions += 1;
                self.step(SessionInput::Subscribed).await;
                let subscribed = ExecutorSubscribed {
                    agent_id,
                    container_id,
                    data: executor.data,
                    again,
                };
                self.executor.subscribed(&self.handle, &subscribed);
            }
            ExecutorEvent::Launch(task) => {
                if self.session.launched(&task.task_id) {
                    self.executor.launch(&self.handle, *task);
                }
            }
            ExecutorEvent::Kill { task_id, grace_ms } => {
                self.executor.kill(&self.handle, &task_id, grace_ms);
            }
            ExecutorEvent::Acknowledged { task_id, uuid } => {
                self.step(SessionInput::Acknowledged { task_id, uuid })
                    .await;
            }
            ExecutorEvent::Message(data) => self.executor.message(&self.handle, &data),
            ExecutorEvent::Shutdown => {
                self.executor.shutdown(&self.handle);
                self.step(SessionInput::ShutDown).await;
            }
            ExecutorEvent::Error(message) => {
                self.refused = Some(message);
                self.ended = true;
            }
        }
    }
}

/// The next event of the agent; may be dropped and called again at any time.
async fn next(link: &mut Option<Link>) -> Result<proto::ExecutorEvent, String> {
    let Some(link) = link else {
        return std::future::pending().await;
    };
    loop {
        match &mut link.incoming {
            Incoming::Opening(opening) => {
                let open = opening.as_mut().await?;
                link.incoming = Incoming::Open(Box::new(open));
            }
            Incoming::Open(incoming) => {
                return match incoming.message().await {
                    Ok(Some(event)) => Ok(event),
                    Ok(None) => Err("it ended the stream".to_owned()),
                    Err(status) => Err(status.message().to_owned()),
                };
            }
        }
    }
}

async fn open(
    socket: PathBuf,
    calls: mpsc::Receiver<proto::ExecutorCall>,
) -> Result<Streaming<proto::ExecutorEvent>, String> {
    let opening = async {
        // The address is not used: the connector knows the socket.
        let channel = Endpoint::from_static("http://agent")
            .connect_with_connector(tower::service_fn(move |_| dial(socket.clone())))
            .await
            .map_err(|error| chain(&error))?;
        let mut client = ExecutorClient::new(channel)
            .max_decoding_message_size(MAX_FRAME_BYTES)
            .max_encoding_message_size(MAX_FRAME_BYTES);
        let response = client.subscribe(ReceiverStream::new(calls)).await;
        response
            .map(tonic::Response::into_inner)
            .map_err(|status| status.message().to_owned())
    };
    tokio::time::timeout(SUBSCRIBE_TIMEOUT, opening)
        .await
        .unwrap_or_else(|_| Err("it did not answer in time".to_owned()))
}

async fn dial(socket: PathBuf) -> std::io::Result<TokioIo<UnixStream>> {
    let path: &Path = &socket;
    UnixStream::connect(path).await.map(TokioIo::new)
}
