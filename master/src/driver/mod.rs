//! The driver: one loop that owns the core. It selects an input, steps the core, and performs the
//! effects; it decides nothing.
//!
//! Inputs are taken in batches. All writes of a batch are made durable together before any of its
//! effects is performed: what must wait for durability does, and nothing needs a continuation. Then
//! connections and the ledger are served in order, and last the allocator is handed the changed
//! picture and woken, once.
//!
//! Nothing blocks the loop but the registry's commit, which only registrations and changes of
//! frameworks, agents and weights need. Whoever reads the state or watches it is answered by the
//! [mirror](crate::mirror), to which the loop hands what has changed before it tells anybody.
//!
//! Not lock-free: tokio's channels, the registry, the tracing subscriber.

mod clock;
mod command;
mod outbox;
mod perform;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use ebb_types::{Event, MasterToAgent, Timestamp};
use tokio::sync::{mpsc, oneshot};

use crate::allocator::{Allocator, Batch, StartError};
use crate::core::{ConnectionId, Core, CoreConfig, Effect, Input, OperatorError, RequestId};
use crate::ledger::Ledger;
use crate::metrics::{DriverFigures, Figures};
use crate::mirror::{self, Feed};
use crate::store::{Registry, RegistryError, Writer};

pub use clock::Clock;
use command::Command;
pub use command::{Handle, MAX_INBOX, Stopped};
pub(crate) use outbox::Outbox;
pub use outbox::{Cut, Inlet};
pub(crate) use outbox::{Unsent, outbox};

/// Most inputs of one batch.
const MAX_BATCH: usize = 512;
/// Most connections of schedulers and agents each.
const MAX_CONNECTIONS: usize = 100_000;

/// What the driver is told once.
#[derive(Clone, Debug)]
pub struct DriverConfig {
    /// What the core is told.
    pub core: CoreConfig,
    /// Threads of the allocator.
    pub allocator_threads: u32,
    /// Most messages that wait to be read by one connection.
    pub outbox_limit: usize,
}

/// Why the driver cannot start or had to end.
#[derive(Debug, thiserror::Error)]
pub enum DriverError {
    /// The registry.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// The allocator.
    #[error(transparent)]
    Allocator(#[from] StartError),
    /// The mirror.
    #[error(transparent)]
    Mirror(#[from] mirror::StartError),
}

/// Owns the core and everything that its effects touch.
pub struct Driver {
    core: Core,
    clock: Clock,
    ledger: Arc<Ledger>,
    allocator: Allocator,
    registry: Writer,
    inbox: mpsc::Receiver<Command>,
    proposals: mpsc::Receiver<Batch>,
    schedulers: HashMap<ConnectionId, Outbox<Event>>,
    agents: HashMap<ConnectionId, Outbox<MasterToAgent>>,
    feed: Feed,
    answers: HashMap<RequestId, oneshot::Sender<Result<(), OperatorError>>>,
    next_request: u64,
    figures: DriverFigures,
}

impl Driver {
    /// Reads the registry, begins a new term and starts the allocator's threads.
    ///
    /// # Errors
    /// [`DriverError`].
    pub fn start(
        config: DriverConfig,
        mut registry: Box<dyn Registry>,
    ) -> Result<(Self, Handle), DriverError> {
        let clock = Clock::new();
        let restored = registry.load()?;
        tracing::info!(
            generation = restored.generation.0,
            frameworks = restored.frameworks.len(),
            agents = restored.agents.len(),
            "the registry is read"
        );
        let registry = Writer::start(registry)?;
        let ledger = Arc::new(Ledger::new());
        let heartbeat_interval_ms = config.core.heartbeat_interval_ms;
        let mut core = Core::new(clock.now(), config.core, restored);
        core.observe(true);
        let (feed, reads) = mirror::start(core.master_info())?;
        // One batch a worker is all that can be under way.
        let (sink, proposals) = mpsc::channel(config.allocator_threads.max(1) as usize);
        let allocator = Allocator::start(
            config.allocator_threads,
            Arc::clone(&ledger),
            core.claims(),
            move |batch| {
                sink.try_send(batch).map_err(|error| match error {
                    mpsc::error::TrySendError::Full(batch)
                    | mpsc::error::TrySendError::Closed(batch) => batch,
                })
            },
        )?;
        let (sender, inbox) = mpsc::channel(MAX_INBOX);
        let handle = Handle {
            inbox: sender,
            reads,
            connections: Arc::new(AtomicU64::new(1)),
            outbox_limit: config.outbox_limit,
            heartbeat_interval_ms,
            generation: core.generation().0,
        };
        let driver = Self {
            core,
            clock,
            ledger,
            allocator,
            registry,
            inbox,
            proposals,
            schedulers: HashMap::new(),
            agents: HashMap::new(),
            feed,
            answers: HashMap::new(),
            next_request: 0,
            figures: DriverFigures::default(),
        };
        Ok((driver, handle))
    }

    /// Runs until told to stop, or until the registry fails.
    ///
    /// # Errors
    /// [`DriverError::Registry`].
    pub async fn run(mut self, stop: impl Future<Output = ()>) -> Result<(), DriverError> {
        tokio::pin!(stop);
        let mut commands = Vec::with_capacity(MAX_BATCH);
        loop {
            let mut batch = None;
            let due = self.core.next_deadline();
            tokio::select! {
                () = &mut stop => break,
                count = self.inbox.recv_many(&mut commands, MAX_BATCH) => {
                    if count == 0 {
                        break;
                    }
                }
                proposed = self.proposals.recv() => batch = proposed,
                () = sleep_until(&self.clock, due) => {}
                () = self.feed.wanted() => {}
            }
            let now = self.clock.now();
            let mut effects = Vec::new();
            for command in commands.drain(..) {
                self.take(now, command, &mut effects);
            }
            while let Some(Batch { id, proposals }) = batch {
                let input = Input::Proposals {
                    batch: Some(id),
                    proposals,
                };
                effects.extend(self.core.step(now, input));
                batch = self.proposals.try_recv().ok();
            }
            if self.core.next_deadline().is_some_and(|due| due <= now) {
                effects.extend(self.core.step(now, Input::Tick));
            }
            self.figures.batches += 1;
            self.perform(now, effects).await?;
        }
        tracing::info!("the driver ends");
        Ok(())
    }

    /// Turns a command into a step of the core, or answers it.
    fn take(&mut self, now: Timestamp, command: Command, effects: &mut Vec<Effect>) {
        let input = match command {
            Command::SchedulerConnected(connection, outbox) => {
                self.admit_scheduler(connection, outbox);
                return;
            }
            Command::AgentConnected(connection, outbox) => {
                self.admit_agent(connection, outbox);
                return;
            }
            // What a connection that was ended still sends concerns nobody.
            Command::Scheduler(connection, _) if !self.schedulers.contains_key(&connection) => {
                return;
            }
            Command::Agent(connection, ..) if !self.agents.contains_key(&connection) => return,
            Command::Scheduler(connection, call) => Input::Scheduler { connection, call },
            Command::Agent(connection, incarnation, message) => Input::Agent {
                connection,
                incarnation,
                message,
            },
            Command::SchedulerBroke(connection, why) => {
                effects.push(Effect::ToScheduler {
                    connection,
                    event: Event::Error(why.clone()),
                });
                effects.push(Effect::CloseScheduler {
                    connection,
                    reason: why,
                });
                Input::SchedulerGone { connection }
            }
            Command::AgentBroke(connection, why) => {
                effects.push(Effect::CloseAgent {
                    connection,
                    reason: why,
                });
                Input::AgentGone { connection }
            }
            Command::SchedulerGone(connection) => {
                self.schedulers.remove(&connection);
                Input::SchedulerGone { connection }
            }
            Command::AgentGone(connection) => {
                self.agents.remove(&connection);
                Input::AgentGone { connection }
            }
            Command::Operate(command, answer) => {
                let request = RequestId(self.next_request);
                self.next_request += 1;
                self.answers.insert(request, answer);
                Input::Operator { request, command }
            }
            Command::Figures(answer) => {
                // Whoever asked may have gone.
                let _unheard = answer.send(self.figures()).is_err();
                return;
            }
            Command::Explain(subject, answer) => {
                let _unheard = answer.send(self.core.explain(now, subject)).is_err();
                return;
            }
        };
        effects.extend(self.core.step(now, input));
    }

    fn admit_scheduler(&mut self, connection: ConnectionId, outbox: Outbox<Event>) {
        if self.schedulers.len() < MAX_CONNECTIONS {
            self.schedulers.insert(connection, outbox);
        } else {
            outbox.end(too_many());
        }
    }

    fn admit_agent(&mut self, connection: ConnectionId, outbox: Outbox<MasterToAgent>) {
        if self.agents.len() < MAX_CONNECTIONS {
            self.agents.insert(connection, outbox);
        } else {
            outbox.end(too_many());
        }
    }

    fn figures(&mut self) -> Figures {
        self.figures.inbox_depth = self.inbox.len() as u64;
        self.figures.scheduler_connections = self.schedulers.len() as u64;
        self.figures.agent_connections = self.agents.len() as u64;
        Figures {
            counters: self.core.counters().clone(),
            ledger: self.ledger.stats().figures(),
            allocator: self.allocator.figures(),
            driver: self.figures.take(),
            mirror: self.feed.figures(),
        }
    }
}

async fn sleep_until(clock: &Clock, due: Option<Timestamp>) {
    match due {
        Some(at) => tokio::time::sleep_until(clock.instant(at).into()).await,
        None => std::future::pending().await,
    }
}

fn too_many() -> Cut {
    Cut::Closed(format!(
        "the master has {MAX_CONNECTIONS} connections and takes no more; close some"
    ))
}
