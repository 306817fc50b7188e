//! The one loop: takes what happened, asks the core, carries out what it answers.
//!
//! The loop never waits for disk, kernel or network. What the core wants kept goes to the journal's
//! thread; effects that must come after it wait in order until that is durable. Taking CPU back
//! (throttle, freeze, thaw) rests on no record and does not wait. Everything else is handed to threads
//! and tasks, whose bounded queues end the agent with a sentence rather than block or grow.

use std::collections::{BTreeMap, VecDeque};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use ebb_types::Timestamp;
use tokio::sync::{mpsc, watch};

use crate::checkpoint::past::{KEEP_EVERY, Keeper};
use crate::checkpoint::writer::{self, Progress, Writer};
use crate::containers::{self, Containers, Order};
use crate::core::account::{OomCause, OomKilled, OomVictim};
use crate::core::{Core, Effect, Input, Observation, Session};
use crate::master_link::Link;
use crate::metrics::Metrics;
use crate::runtime::retire;
use crate::sampling::SamplerHandle;
use crate::services::executor::ExecutorLink;
use crate::services::sandbox::{LiveTask, LiveTasks};

/// Most events that wait for the loop.
pub const MAX_EVENTS: usize = 65_536;
/// Most events that are taken before the loop looks at everything else again.
const EVENTS_AT_ONCE: usize = 256;
/// How often metrics are read anew.
const REFRESH: Duration = Duration::from_secs(1);
/// Longest time that tasks may take to end when the agent is shut down for good.
const DRAIN_LIMIT: Duration = Duration::from_secs(20);

/// What the loop hears.
#[derive(Debug)]
pub enum Event {
    /// Something for the core.
    Core(Box<Input>),
    /// A connection to the master stands.
    LinkUp(Link),
    /// A framework's own executor has dialled in.
    ExecutorUp(Session, ExecutorLink),
}

impl From<Input> for Event {
    fn from(input: Input) -> Self {
        Self::Core(Box::new(input))
    }
}

/// The loop cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum DriverError {
    /// The master will not have the agent.
    #[error("the master refused this agent: {message}")]
    Refused {
        /// What it said.
        message: String,
    },
    /// The journal cannot be written any more.
    #[error(
        "the journal cannot be written any more: {message}; tasks run on, start the agent anew"
    )]
    Journal {
        /// Why.
        message: String,
    },
    /// The journal's thread has not kept up.
    #[error(transparent)]
    JournalOverrun(#[from] writer::Overrun),
    /// A container thread has not kept up.
    #[error(transparent)]
    ContainersOverrun(#[from] containers::Overrun),
}

/// Wall-clock time that never runs backwards: anchored once, then carried on by the steady clock.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    anchor_ms: u64,
    since: Instant,
}

impl Clock {
    /// Anchors at the present.
    pub fn start() -> Self {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH);
        Self {
            anchor_ms: since_epoch.map_or(0, |since| since.as_millis() as u64),
            since: Instant::now(),
        }
    }

    /// The present.
    pub fn now(&self) -> Timestamp {
        let passed = self.since.elapsed().as_millis() as u64;
        Timestamp::from_ms(self.anchor_ms + passed)
    }

    /// When the steady clock shows a point in time.
    fn instant(&self, at: Timestamp) -> Instant {
        let ms = at.as_ms().saturating_sub(self.anchor_ms);
        // A day is as good as never: the loop looks again then.
        self.since
            + Duration::from_millis(ms.min(self.since.elapsed().as_millis() as u64 + 86_400_000))
    }
}

/// Everything that the loop owns.
pub struct Driver {
    core: Core,
    clock: Clock,
    writer: Writer,
    keeper: Keeper,
    kept_at: Instant,
    progress: watch::Receiver<Progress>,
    durable: u64,
    /// Effects that wait until the record of that number is durable, in order.
    waiting: VecDeque<(u64, Effect)>,
    rewriting: bool,
    containers: Containers,
    link: Option<Link>,
    executors: BTreeMap<Session, ExecutorLink>,
    live: Arc<LiveTasks>,
    sampler: SamplerHandle,
    metrics: Arc<Metrics>,
}

/// What the loop works with.
pub struct Parts {
    /// Decides.
    pub core: Core,
    /// The time.
    pub clock: Clock,
    /// Keeps records.
    pub writer: Writer,
    /// Keeps what was learnt of tasks.
    pub keeper: Keeper,
    /// Carries out what is ordered of containers.
    pub containers: Containers,
    /// Which tasks have not ended, for readers of sandboxes.
    pub live: Arc<LiveTasks>,
    /// Measures.
    pub sampler: SamplerHandle,
    /// Counts.
    pub metrics: Arc<Metrics>,
}

impl Driver {
    /// A loop that has not begun.
    pub fn new(parts: Parts) -> Self {
        for task in parts.core.tasks().filter(|task| task.live) {
            let live = LiveTask {
                container_id: task.container_id,
                executor_id: task.executor_id,
            };
            parts.live.begin(task.key, live);
        }
        Self {
            progress: parts.writer.progress(),
            core: parts.core,
            clock: parts.clock,
            writer: parts.writer,
            keeper: parts.keeper,
            kept_at: Instant::now(),
            durable: 0,
            waiting: VecDeque::new(),
            rewriting: false,
            containers: parts.containers,
            link: None,
            executors: BTreeMap::new(),
            live: parts.live,
            sampler: parts.sampler,
            metrics: parts.metrics,
        }
    }

    /// Gives the core an input and carries out what it answers.
    ///
    /// # Errors
    /// [`DriverError`] if the agent cannot go on.
    pub fn step(&mut self, input: Input) -> Result<(), DriverError> {
        let effects = self.core.step(self.clock.now(), input);
        for effect in effects {
            self.queue(effect)?;
        }
        if self.rewriting && !self.progress.borrow().wants_rewriting {
            self.rewriting = false;
        } else if !self.rewriting && self.progress.borrow().wants_rewriting {
            self.rewriting = true;
            self.writer.rewrite(self.core.snapshot())?;
        }
        Ok(())
    }

    /// Runs until `shutdown`. With `drain`, tasks are ended then; else they run on.
    ///
    /// # Errors
    /// [`DriverError`] if the agent cannot go on.
    pub async fn run(
        &mut self,
        events: &mut mpsc::Receiver<Event>,
        shutdown: impl Future<Output = ()>,
        drain: bool,
    ) -> Result<(), DriverError> {
        let mut shutdown = std::pin::pin!(shutdown);
        let mut progress = self.progress.clone();
        let mut refresh = tokio::time::interval(REFRESH);
        refresh.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut batch = Vec::with_capacity(EVENTS_AT_ONCE);
        let mut drain_until: Option<Instant> = None;
        loop {
            if let Some(until) = drain_until
                && ((self.core.is_idle() && self.waiting.is_empty()) || Instant::now() >= until)
            {
                return Ok(());
            }
            let deadline = self.core.next_deadline().map_or_else(
                || self.clock.instant(Timestamp::from_ms(u64::MAX)),
                |at| self.clock.instant(at),
            );
            let deadline = drain_until.map_or(deadline, |until| until.min(deadline));
            tokio::select! {
                biased;
                changed = progress.changed() => self.durable_changed(changed.is_err())?,
                count = events.recv_many(&mut batch, EVENTS_AT_ONCE) => {
                    debug_assert!(count > 0, "the loop holds a sender itself");
                    for event in batch.drain(..) {
                        self.take(event)?;
                    }
                }
                () = tokio::time::sleep_until(deadline.into()) => self.step(Input::Tick)?,
                _ = refresh.tick() => {
                    self.metrics.refresh(&self.core, &self.sampler.view());
                    self.metrics.upkeep();
                    self.keep_past();
                }
                () = &mut shutdown, if drain_until.is_none() => {
                    if !drain {
                        return Ok(());
                    }
                    drain_until = Some(Instant::now() + DRAIN_LIMIT);
                    self.step(Input::ShutDown)?;
                }
            }
        }
    }

    /// Ends the threads, after they have done what was ordered. Blocks.
    pub fn finish(self) {
        drop((self.link, self.executors));
        self.containers.finish();
        self.sampler.stop();
        self.keeper.finish(self.core.past());
        self.writer.finish();
    }

    /// Hands what was learnt of tasks to the thread that writes it, when it is time.
    fn keep_past(&mut self) {
        if self.kept_at.elapsed() < KEEP_EVERY {
            return;
        }
        self.kept_at = Instant::now();
        if let Some(past) = self.core.past() {
            self.keeper.keep(past);
        }
    }

    fn take(&mut self, event: Event) -> Result<(), DriverError> {
        match event {
            Event::LinkUp(link) => {
                let conn = link.conn;
                self.link = Some(link);
                self.step(Input::LinkUp { conn })
            }
            Event::ExecutorUp(session, link) => {
                self.executors.insert(session, link);
                Ok(())
            }
            Event::Core(input) => {
                match &*input {
                    Input::LinkDown { conn }
                        if self.link.as_ref().is_some_and(|link| link.conn == *conn) =>
                    {
                        self.link = None;
                    }
                    Input::ExecutorGone { session } => {
                        self.executors.remove(session);
                    }
                    _ => {}
                }
                self.step(*input)
            }
        }
    }

    fn durable_changed(&mut self, gone: bool) -> Result<(), DriverError> {
        let progress = self.progress.borrow().clone();
        if let Some(message) = progress.failed {
            return Err(DriverError::Journal { message });
        }
        if gone {
            let message = "its thread has ended".to_owned();
            return Err(DriverError::Journal { message });
        }
        self.durable = progress.durable;
        while let Some((_, effect)) = self
            .waiting
            .pop_front_if(|(number, _)| *number <= self.durable)
        {
            self.perform(effect)?;
        }
        Ok(())
    }

    /// Carries an effect out, or has it wait for what must be durable before.
    fn queue(&mut self, effect: Effect) -> Result<(), DriverError> {
        match effect {
            Effect::Persist(records) => {
                let number = self.writer.append(records)?;
                // Whatever follows waits behind this mark.
                self.waiting.push_back((number, Effect::Note(Vec::new())));
                Ok(())
            }
            Effect::Note(records) => {
                self.writer.append(records)?;
                Ok(())
            }
            Effect::Throttle { .. }
            | Effect::LimitNetwork { .. }
            | Effect::ReclaimMemory { .. }
            | Effect::Freeze { .. }
            | Effect::Thaw { .. } => self.perform(effect),
            effect => match self.waiting.back() {
                Some((number, _)) => {
                    let number = *number;
                    self.waiting.push_back((number, effect));
                    Ok(())
                }
                None => self.perform(effect),
            },
        }
    }

    fn perform(&mut self, effect: Effect) -> Result<(), DriverError> {
        let order = match effect {
            // Records were handed over before; marks do nothing.
            Effect::Persist(_) | Effect::Note(_) => return Ok(()),
            Effect::ToMaster { conn, message } => {
                if let Some(link) = self.link.as_ref().filter(|link| link.conn == conn)
                    && !link.send(*message)
                {
                    tracing::warn!("the master does not read; the connection is given up");
                    self.link = None;
                }
                return Ok(());
            }
            Effect::Reconnect { conn, reason } => {
                if self.link.as_ref().is_some_and(|link| link.conn == conn) {
                    tracing::warn!(reason, "the connection to the master is given up");
                    self.link = None;
                }
                return Ok(());
            }
            Effect::Stop { message } => return Err(DriverError::Refused { message }),
            Effect::CancelLaunch { container_id } => {
                self.containers.cancel(container_id);
                return Ok(());
            }
            Effect::ToExecutor { session, event } => {
                if let Some(link) = self.executors.get(&session)
                    && !link.send(*event)
                {
                    tracing::warn!("an executor does not read; its session is ended");
                    self.executors.remove(&session);
                }
                return Ok(());
            }
            Effect::DropExecutor { session } => {
                self.executors.remove(&session);
                return Ok(());
            }
            Effect::RemoveVolume { folder } => {
                self.remove_volume(Path::new(&folder));
                return Ok(());
            }
            Effect::Observe(observation) => {
                self.observe(observation);
                return Ok(());
            }
            Effect::Launch(order) => Order::Launch(order),
            Effect::Terminate { container_id } => Order::Terminate(container_id),
            Effect::Warn {
                container_id,
                signal,
                ends_at,
                cause,
            } => Order::Warn(container_id, signal, ends_at, cause),
            Effect::KillContainer { container_id } => Order::Kill(container_id),
            Effect::Throttle {
                container_id,
                cpu_milli,
            } => Order::Throttle(container_id, cpu_milli),
            Effect::LimitNetwork {
                container_id,
                bytes_per_s,
            } => Order::LimitNetwork(container_id, bytes_per_s),
            Effect::ReclaimMemory {
                container_id,
                to_bytes,
            } => Order::ReclaimMemory(container_id, to_bytes),
            Effect::Freeze { container_id } => Order::Freeze(container_id, true),
            Effect::Thaw { container_id } => Order::Freeze(container_id, false),
            Effect::Resize {
                container_id,
                resources,
            } => Order::Resize(container_id, resources),
            Effect::Destroy { container_id } => Order::Destroy(container_id),
        };
        Ok(self.containers.order(order)?)
    }

    /// The folder is out of use at once; removing what is in it may take long and is left to a thread.
    fn remove_volume(&self, folder: &Path) {
        let failed = |error: std::io::Error| {
            self.metrics.container_fault("remove_volume");
            tracing::warn!(folder = %folder.display(), %error, "a volume's data cannot be removed");
        };
        match retire(folder) {
            Ok(None) => {}
            Ok(Some(away)) => {
                let metrics = Arc::clone(&self.metrics);
                tokio::task::spawn_blocking(move || {
                    if let Err(error) = std::fs::remove_dir_all(&away) {
                        metrics.container_fault("remove_volume");
                        tracing::warn!(folder = %away.display(), %error, "a volume's data cannot be removed");
                    }
                });
            }
            Err(error) => failed(error),
        }
    }

    fn observe(&self, observation: Observation) {
        match observation {
            Observation::LaunchTook { ms } => self.metrics.launched(Duration::from_millis(ms)),
            Observation::TaskState {
                key,
                state,
                message,
                container_id,
                executor_id,
            } => {
                tracing::debug!(framework = %key.0, task = %key.1, state = state.name(), message);
                if state.is_terminal() {
                    self.live.end(&key);
                } else {
                    let task = LiveTask {
                        container_id,
                        executor_id,
                    };
                    self.live.begin(key, task);
                }
            }
            Observation::Corrected(correction) => {
                self.metrics.corrected(&correction);
                tracing::info!(
                    action = correction.action.name(),
                    container = %correction.container_id,
                    task = %correction.task_id,
                    signal = correction.signal.name(),
                    on_behalf_of = correction.on_behalf_of.as_ref().map_or("the machine", |id| id.as_str()),
                    value = correction.value,
                    threshold = correction.threshold,
                    baseline = correction.baseline,
                    duration_ms = correction.duration_ms,
                    chosen_by = correction.choice.rule.name(),
                    amount = correction.choice.amount,
                    rank = correction.choice.rank,
                    candidates = correction.choice.candidates,
                    spared = correction.choice.spared,
                    grace_ms = correction.grace_ms,
                    "a revocable container was corrected"
                );
            }
            Observation::Registered {
                agent_id,
                generation,
            } => {
                tracing::info!(agent = %agent_id, generation = generation.0, "registered with the master");
            }
            Observation::Lent(lent) => tracing::debug!(%lent, "lent in all"),
            Observation::OomKilled(killed) => log_kill(&killed),
        }
    }
}

/// A kill for want of memory: of whom, and why.
fn log_kill(killed: &OomKilled) {
    let limit_bytes = match killed.cause {
        OomCause::OwnLimit { limit_bytes } => Some(limit_bytes),
        OomCause::Machine | OomCause::Unknown => None,
    };
    let (pid, asked_by, cause) = (killed.pid, killed.asked_by, killed.cause.name());
    match &killed.victim {
        OomVictim::Container(container_id, holder) => tracing::warn!(
            framework = %holder.framework_id,
            task = %holder.name,
            container = %container_id,
            pid,
            asked_by,
            cause,
            limit_bytes,
            "a process of a task was killed for want of memory"
        ),
        OomVictim::Outside => tracing::warn!(
            pid,
            asked_by,
            "a process outside of every task was killed for want of memory"
        ),
    }
}
