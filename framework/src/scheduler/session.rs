//! The session of one framework with its masters: a pure state machine.
//!
//! It knows when to connect, when a silent connection is a lost one, what to say first on a new one,
//! which statuses were taken already, and which tasks to ask for. The engine hands it events and the
//! scheduler's calls; it answers with what to send.
//!
//! # Invariants
//! * Events of an earlier connection are refused: every connection has a number.
//! * A status with a uuid, of a task or an operation, reaches the scheduler until it was acknowledged, and never after.
//! * After every subscription that is not the framework's first, all tasks are asked for at once,
//!   and those that nothing is heard of again and again, with growing waits; and so are, once, all operations that have
//!   no answer.
//! * A teardown is repeated on a new connection until the master has confirmed it, or its time is over.
//! * Tasks and operations of an accept that could not be sent never started, and are said to be dropped.

mod answers;

use std::collections::BTreeSet;

use ebb_types::{
    AgentId, Call, Event, FrameworkId, FrameworkInfo, OfferTerms, Operation, OperationId, Reason,
    ReconcileTask, Role, Source, TaskId, TaskState, TaskStatus, Timestamp,
};

use super::config::{
    Acknowledgement, HEARTBEATS_MISSED, RECONCILE_CAP_MS, STABLE_AFTER_MS, SchedulerConfig,
    TEARDOWN_TIMEOUT_MS, Timing,
};
use super::known::{Known, KnownOperations, KnownTasks, Taken};
use super::{Ending, Subscribed};
use crate::backoff::{Backoff, Jitter};
use crate::fate::is_heard;

/// An answer to a question that says that a task failed, was killed or is gone lacks how and why; where
/// the agent's own status exists, it follows and says it. The answer counts when it is still the only
/// word after so long on one connection, in milliseconds.
pub const HOLD_ANSWERS_MS: u64 = 30_000;
/// Why what was accepted meanwhile is dropped.
const NO_MASTER: &str = "no master is connected, so the offer is void";
/// Heartbeat interval where a master names none, in milliseconds.
const DEFAULT_HEARTBEAT_MS: u64 = 15_000;

/// What a session counted since its start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Connections begun.
    pub connects: u64,
    /// Subscriptions taken.
    pub subscriptions: u64,
    /// Connections given up because nothing came.
    pub silences: u64,
    /// Statuses that were taken already and only acknowledged again.
    pub duplicates: u64,
    /// Events of an earlier connection, or before the subscription.
    pub stale_events: u64,
    /// Calls that could not be sent because there was no subscription.
    pub dropped_calls: u64,
    /// Tasks whose accept could not be sent.
    pub dropped_tasks: u64,
    /// Operations with an id whose accept could not be sent.
    pub dropped_operations: u64,
    /// Tasks that were asked for by name.
    pub asked_for: u64,
    /// Callbacks that returned an error.
    pub failed_callbacks: u64,
    /// Tasks beyond [`MAX_KNOWN_TASKS`].
    pub untracked_tasks: u64,
    /// Operations beyond [`MAX_KNOWN_OPERATIONS`](super::known::MAX_KNOWN_OPERATIONS).
    pub untracked_operations: u64,
}

/// What the session wants done.
#[expect(
    clippy::large_enum_variant,
    reason = "handed over once and never kept; a box would only cost an allocation"
)]
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Open a connection, give up any other, and send the call first on it.
    Connect {
        /// The number of the connection.
        attempt: u64,
        /// Which of the masters.
        master: usize,
        /// The subscription.
        subscribe: Box<Call>,
    },
    /// Close the connection.
    Disconnect,
    /// Send a call on the open connection.
    Send(Call),
    /// The framework is over.
    Finished(Finished),
}

/// How the session ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finished {
    /// As the scheduler asked.
    Asked {
        /// How.
        ending: Ending,
        /// Whether the master is known to have heard it.
        told: bool,
    },
    /// A master will not have the framework.
    Refused {
        /// What it said.
        message: String,
    },
    /// No master took the first subscription in time.
    GaveUp {
        /// How long was waited, in milliseconds.
        waited_ms: u64,
        /// What the last attempt met.
        cause: String,
    },
}

/// What came of an event, for the engine to call the scheduler with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Delivery {
    /// Nothing to say.
    Nothing,
    /// The subscription stands.
    Subscribed(Subscribed),
    /// An event for the scheduler.
    Event(Event),
    /// The master will not have the framework.
    Error(String),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Waiting { until: Timestamp },
    Connecting { since: Timestamp },
    Subscribed { since: Timestamp, silence_ms: u64 },
    Ended,
}

/// The session of one framework with its masters.
#[derive(Clone, Debug)]
pub struct Session {
    info: FrameworkInfo,
    suppressed: BTreeSet<Role>,
    terms: OfferTerms,
    /// What the subscription that is on its way says is suppressed.
    said_suppressed: BTreeSet<Role>,
    acknowledgement: Acknowledgement,
    timing: Timing,
    masters: usize,
    next_master: usize,
    jitter: Jitter,
    backoff: Backoff,
    attempt: u64,
    phase: Phase,
    started_at: Timestamp,
    last_event_at: Timestamp,
    last_cause: String,
    tasks: KnownTasks,
    taken: Taken<TaskId>,
    operations: KnownOperations,
    taken_answers: Taken<OperationId>,
    ending: Option<(Ending, Timestamp)>,
    counters: Counters,
}

impl Session {
    /// A session that has not connected yet; its first connection is due at once.
    pub fn new(config: &SchedulerConfig, now: Timestamp, seed: u64) -> Self {
        Self {
            info: config.info.clone(),
            suppressed: config.suppressed_roles.iter().cloned().collect(),
            terms: config.terms.clone(),
            said_suppressed: BTreeSet::new(),
            acknowledgement: config.acknowledgement,
            timing: config.timing,
            masters: config.masters.len().max(1),
            next_master: 0,
            jitter: Jitter::new(seed),
            backoff: Backoff::new(
                config.timing.reconnect_first_ms,
                config.timing.reconnect_cap_ms,
            ),
            attempt: 0,
            phase: Phase::Waiting { until: now },
            started_at: now,
            last_event_at: now,
            last_cause: "nothing answered yet".to_owned(),
            tasks: KnownTasks::default(),
            taken: Taken::default(),
            operations: KnownOperations::default(),
            taken_answers: Taken::default(),
            ending: None,
            counters: Counters::default(),
        }
    }

    /// What was counted since the start.
    pub const fn counters(&self) -> &Counters {
        &self.counters
    }

    pub(super) const fn counters_mut(&mut self) -> &mut Counters {
        &mut self.counters
    }

    /// The framework's id, once it has one.
    pub const fn framework_id(&self) -> Option<&FrameworkId> {
        self.info.id.as_ref()
    }

    /// Whether a subscription stands.
    pub const fn is_subscribed(&self) -> bool {
        matches!(self.phase, Phase::Subscribed { .. })
    }

    /// Whether it is over.
    pub const fn is_ended(&self) -> bool {
        matches!(self.phase, Phase::Ended)
    }

    /// Tasks that are not known to have ended.
    pub fn known_tasks(&self) -> impl Iterator<Item = &TaskId> {
        self.tasks.ids()
    }

    pub(super) const fn acknowledgement(&self) -> Acknowledgement {
        self.acknowledgement
    }

    /// When [`Session::tick`] has something to do.
    pub fn next_wake(&self) -> Option<Timestamp> {
        let phase = match self.phase {
            Phase::Waiting { until } => Some(until),
            Phase::Connecting { since } => Some(since.plus_ms(self.timing.subscribe_timeout_ms)),
            Phase::Subscribed { silence_ms, .. } => Some(self.last_event_at.plus_ms(silence_ms)),
            Phase::Ended => return None,
        };
        let ask = self.tasks.first_due().filter(|_| self.is_subscribed());
        let ending = self.ending.map(|(_, deadline)| deadline);
        [phase, ask, ending, self.gives_up_at()]
            .into_iter()
            .flatten()
            .min()
    }

    fn gives_up_at(&self) -> Option<Timestamp> {
        self.timing
            .give_up_after_ms
            .filter(|_| self.counters.subscriptions == 0)
            .map(|ms| self.started_at.plus_ms(ms))
    }

    /// Does what the time asks for. Gives the cause when a connection was lost by it.
    pub(super) fn tick(&mut self, now: Timestamp, out: &mut Vec<Output>) -> Option<String> {
        if self.is_ended() {
            return None;
        }
        if let Some((ending, _)) = self.ending.filter(|(_, deadline)| *deadline <= now) {
            let told = false;
            self.finish(Finished::Asked { ending, told }, out);
            return None;
        }
        if self.gives_up_at().is_some_and(|at| at <= now) {
            let waited_ms = now.ms_since(self.started_at);
            let cause = self.last_cause.clone();
            self.finish(Finished::GaveUp { waited_ms, cause }, out);
            return None;
        }
        match self.phase {
            Phase::Waiting { until } if until <= now => {
                self.connect(now, out);
                None
            }
            Phase::Connecting { since }
                if since.plus_ms(self.timing.subscribe_timeout_ms) <= now =>
            {
                self.counters.silences += 1;
                let ms = self.timing.subscribe_timeout_ms;
                Some(self.lose(now, format!("no subscription within {ms} ms"), out))
            }
            Phase::Subscribed { silence_ms, .. }
                if self.last_event_at.plus_ms(silence_ms) <= now =>
            {
                self.counters.silences += 1;
                let cause = format!("nothing was heard from the master for {silence_ms} ms");
                Some(self.lose(now, cause, out))
            }
            Phase::Subscribed { .. } => {
                self.ask(now, out);
                None
            }
            _ => None,
        }
    }

    fn connect(&mut self, now: Timestamp, out: &mut Vec<Output>) {
        self.attempt += 1;
        self.counters.connects += 1;
        self.phase = Phase::Connecting { since: now };
        self.said_suppressed.clone_from(&self.suppressed);
        let master = self.next_master;
        self.next_master = (master + 1) % self.masters;
        out.push(Output::Connect {
            attempt: self.attempt,
            master,
            subscribe: Box::new(Call::Subscribe {
                info: self.info.clone(),
                suppressed_roles: self.suppressed.iter().cloned().collect(),
                terms: self.terms.clone(),
            }),
        });
    }

    /// Closes the connection and plans the next one.
    fn lose(&mut self, now: Timestamp, cause: String, out: &mut Vec<Output>) -> String {
        if let Phase::Subscribed { since, .. } = self.phase {
            if now.ms_since(since) >= STABLE_AFTER_MS {
                self.backoff.reset();
            }
            // The same master first: it was the leading one.
            self.next_master = (self.next_master + self.masters - 1) % self.masters;
        }
        let wait_ms = self.backoff.next_wait_ms(&mut self.jitter);
        self.phase = Phase::Waiting {
            until: now.plus_ms(wait_ms),
        };
        self.last_cause.clone_from(&cause);
        out.push(Output::Disconnect);
        cause
    }

    fn finish(&mut self, how: Finished, out: &mut Vec<Output>) {
        self.phase = Phase::Ended;
        out.push(Output::Finished(how));
    }

    /// A connection broke. Gives the cause when it was the present one.
    pub(super) fn broken(
        &mut self,
        now: Timestamp,
        attempt: u64,
        cause: String,
        fatal: bool,
        out: &mut Vec<Output>,
    ) -> Option<String> {
        let present = matches!(
            self.phase,
            Phase::Connecting { .. } | Phase::Subscribed { .. }
        );
        if attempt != self.attempt || !present {
            self.counters.stale_events += 1;
            return None;
        }
        if fatal {
            let how = match self.ending {
                Some((ending, _)) => Finished::Asked {
                    ending,
                    told: false,
                },
                None => Finished::Refused { message: cause },
            };
            self.finish(how, out);
            return None;
        }
        Some(self.lose(now, cause, out))
    }

    /// Takes an event and says what the scheduler is to be told.
    pub(super) fn event(
        &mut self,
        now: Timestamp,
        attempt: u64,
        event: Event,
        out: &mut Vec<Output>,
    ) -> Delivery {
        if attempt != self.attempt || self.is_ended() {
            self.counters.stale_events += 1;
            return Delivery::Nothing;
        }
        self.last_event_at = now;
        match (self.phase, event) {
            (Phase::Connecting { .. } | Phase::Subscribed { .. }, Event::Error(message)) => {
                self.refused(message, out)
            }
            (
                Phase::Connecting { .. },
                Event::Subscribed {
                    framework_id,
                    heartbeat_interval_ms,
                    master,
                },
            ) => {
                let again = self.counters.subscriptions > 0;
                let id = framework_id.clone();
                self.subscribed(now, id, heartbeat_interval_ms, out);
                Delivery::Subscribed(Subscribed {
                    framework_id,
                    master,
                    again,
                })
            }
            (Phase::Subscribed { .. }, Event::Heartbeat) => Delivery::Nothing,
            (Phase::Subscribed { .. }, Event::Update(status)) => self.update(now, status, out),
            (Phase::Subscribed { .. }, Event::Operation(status)) => self.answer(status, out),
            (Phase::Subscribed { .. }, event) => Delivery::Event(event),
            _ => {
                self.counters.stale_events += 1;
                Delivery::Nothing
            }
        }
    }

    fn refused(&mut self, message: String, out: &mut Vec<Output>) -> Delivery {
        if let Some((ending, _)) = self.ending {
            // It is gone, which is what was asked for.
            self.finish(Finished::Asked { ending, told: true }, out);
            return Delivery::Nothing;
        }
        let said = message.clone();
        self.finish(Finished::Refused { message }, out);
        Delivery::Error(said)
    }

    fn subscribed(
        &mut self,
        now: Timestamp,
        framework_id: FrameworkId,
        heartbeat_ms: u64,
        out: &mut Vec<Output>,
    ) {
        let fresh = self.info.id.is_none();
        self.info.id = Some(framework_id);
        self.counters.subscriptions += 1;
        let heartbeat_ms = if heartbeat_ms == 0 {
            DEFAULT_HEARTBEAT_MS
        } else {
            heartbeat_ms
        };
        self.phase = Phase::Subscribed {
            since: now,
            silence_ms: heartbeat_ms.saturating_mul(HEARTBEATS_MISSED),
        };
        if let Some((ending, _)) = self.ending {
            self.leave(ending, out);
            return;
        }
        self.correct_suppression(out);
        if !fresh {
            self.ask_for_all(now, out);
        }
    }

    /// Sends what was suppressed and revived since the subscription was written.
    fn correct_suppression(&self, out: &mut Vec<Output>) {
        let revived: Vec<Role> = self
            .said_suppressed
            .difference(&self.suppressed)
            .cloned()
            .collect();
        if !revived.is_empty() {
            out.push(Output::Send(Call::Revive { roles: revived }));
        }
        let added: Vec<Role> = self
            .suppressed
            .difference(&self.said_suppressed)
            .cloned()
            .collect();
        if !added.is_empty() {
            out.push(Output::Send(Call::Suppress { roles: added }));
        }
    }

    fn ask_for_all(&mut self, now: Timestamp, out: &mut Vec<Output>) {
        let ids = self.operations.ids();
        if !ids.is_empty() {
            out.push(Output::Send(Call::ReconcileOperations { ids }));
        }
        out.push(Output::Send(Call::Reconcile { tasks: Vec::new() }));
        let ids: Vec<TaskId> = self.tasks.ids().cloned().collect();
        for task_id in ids {
            self.tasks
                .plan_question(&task_id, now, self.timing.reconcile_first_ms);
            let Some(known) = self.tasks.get_mut(&task_id) else {
                continue;
            };
            // The agent's own statuses take their way anew as well.
            known.held_since = None;
            if let Known {
                agent_id,
                kill: Some(grace_ms),
                ..
            } = known
            {
                out.push(Output::Send(Call::Kill {
                    task_id: task_id.clone(),
                    agent_id: agent_id.clone(),
                    grace_ms: *grace_ms,
                }));
            }
        }
    }

    fn update(&mut self, now: Timestamp, status: TaskStatus, out: &mut Vec<Output>) -> Delivery {
        let key = status.uuid.map(|uuid| (status.task_id.clone(), uuid));
        if key.is_some_and(|key| self.taken.contains(&key)) {
            self.counters.duplicates += 1;
            self.send_acknowledgement(&status, out);
            return Delivery::Nothing;
        }
        if self.is_held(now, &status) {
            return Delivery::Nothing;
        }
        self.hear(now, &status);
        Delivery::Event(Event::Update(status))
    }

    /// Whether an answer is held back because the agent's own status says more; then it is asked again.
    fn is_held(&mut self, now: Timestamp, status: &TaskStatus) -> bool {
        let says_too_little = status.uuid.is_none()
            && status.exit.is_none()
            && matches!(
                status.reason,
                Some(Reason::Reconciliation | Reason::AgentReregistered)
            );
        let Some(known) = self.tasks.get_mut(&status.task_id) else {
            return false;
        };
        let may_say_more = match status.state {
            TaskState::Failed | TaskState::Killed => true,
            TaskState::Gone | TaskState::Lost => known.heard,
            _ => false,
        };
        if !says_too_little || !may_say_more {
            return false;
        }
        let since = *known.held_since.get_or_insert(now);
        if now.ms_since(since) >= HOLD_ANSWERS_MS {
            return false;
        }
        if known.ask_at.is_none() {
            let wait_ms = self.timing.reconcile_first_ms;
            self.tasks.plan_question(&status.task_id, now, wait_ms);
        }
        true
    }

    /// Notes what a status says of where its task stands.
    fn hear(&mut self, now: Timestamp, status: &TaskStatus) {
        if self.tasks.get(&status.task_id).is_none() {
            if status.state.is_terminal() {
                return;
            }
            self.know_task(status.task_id.clone(), status.agent_id.clone());
        }
        let elsewhere = matches!(status.state, TaskState::Unreachable | TaskState::Unknown);
        if elsewhere {
            self.tasks
                .plan_question(&status.task_id, now, RECONCILE_CAP_MS);
        } else {
            self.tasks.unplan(&status.task_id);
        }
        if let Some(known) = self.tasks.get_mut(&status.task_id) {
            known.ended = status.state.is_terminal();
            known.heard |= is_heard(status.state);
            known.held_since = None;
            if status.agent_id.is_some() {
                known.agent_id.clone_from(&status.agent_id);
            }
        }
    }

    /// The scheduler has taken a status: acknowledges it, and forgets a task that has ended.
    pub(super) fn taken(&mut self, status: &TaskStatus, out: &mut Vec<Output>) {
        if let Some(uuid) = status.uuid {
            self.taken.insert((status.task_id.clone(), uuid));
            self.send_acknowledgement(status, out);
        }
        if status.state.is_terminal() {
            self.tasks.forget(&status.task_id);
        }
    }

    /// The scheduler has not taken a status. One that will not come again by itself is asked for.
    pub(super) fn not_taken(&mut self, now: Timestamp, status: &TaskStatus) {
        if status.uuid.is_none() {
            self.know_task(status.task_id.clone(), status.agent_id.clone());
            self.tasks
                .plan_question(&status.task_id, now, self.timing.reconcile_first_ms);
        }
    }

    fn send_acknowledgement(&self, status: &TaskStatus, out: &mut Vec<Output>) {
        if let (Some(agent_id), Some(uuid), true) =
            (&status.agent_id, status.uuid, self.is_subscribed())
        {
            out.push(Output::Send(Call::Acknowledge {
                agent_id: agent_id.clone(),
                task_id: status.task_id.clone(),
                uuid,
            }));
        }
    }

    fn know_task(&mut self, task_id: TaskId, agent_id: Option<AgentId>) {
        if !self.tasks.know(task_id, agent_id) {
            self.counters.untracked_tasks += 1;
        }
    }

    /// Follows a task of an earlier process, and asks for it.
    pub(super) fn watch(&mut self, now: Timestamp, task: ReconcileTask) {
        let task_id = task.task_id.clone();
        self.know_task(task.task_id, task.agent_id);
        self.tasks
            .plan_question(&task_id, now, self.timing.reconcile_first_ms);
    }

    /// Asks for the tasks that are due, and plans to ask again.
    fn ask(&mut self, now: Timestamp, out: &mut Vec<Output>) {
        let tasks = self.tasks.take_due(now);
        if !tasks.is_empty() {
            self.counters.asked_for += tasks.len() as u64;
            out.push(Output::Send(Call::Reconcile { tasks }));
        }
    }

    /// Takes a call of the scheduler. Gives what is to be said of tasks and operations that were not sent.
    pub(super) fn call(&mut self, now: Timestamp, call: Call, out: &mut Vec<Output>) -> Vec<Event> {
        let subscribed = self.is_subscribed();
        match &call {
            Call::Accept { operations, .. } if !subscribed => {
                let mut dropped = self.drop_tasks(now, operations);
                dropped.extend(self.drop_operations(operations));
                return dropped;
            }
            Call::Accept { operations, .. } => self.launched(now, operations),
            Call::Kill {
                task_id, grace_ms, ..
            } => {
                if let Some(known) = self.tasks.get_mut(task_id) {
                    known.kill = Some(*grace_ms);
                }
            }
            Call::Suppress { roles } => {
                let roles = self.or_all(roles);
                self.suppressed.extend(roles);
            }
            Call::Revive { roles } => {
                let roles = self.or_all(roles);
                self.suppressed.retain(|role| !roles.contains(role));
            }
            Call::UpdateFramework {
                info,
                suppressed_roles,
                terms,
            } => {
                let id = self.info.id.take();
                self.info = FrameworkInfo { id, ..info.clone() };
                self.suppressed = suppressed_roles.iter().cloned().collect();
                self.terms.clone_from(terms);
            }
            Call::Acknowledge { task_id, uuid, .. } => {
                self.taken.insert((task_id.clone(), *uuid));
                if self.tasks.get(task_id).is_some_and(|known| known.ended) {
                    self.tasks.forget(task_id);
                }
            }
            Call::AcknowledgeOperation { id, uuid } => {
                self.taken_answers.insert((id.clone(), *uuid));
                self.operations.forget(id);
            }
            _ => {}
        }
        if subscribed {
            out.push(Output::Send(call));
        } else {
            self.counters.dropped_calls += 1;
        }
        Vec::new()
    }

    fn or_all(&self, roles: &[Role]) -> Vec<Role> {
        if roles.is_empty() {
            self.info.roles.clone()
        } else {
            roles.to_vec()
        }
    }

    fn launched(&mut self, now: Timestamp, operations: &[Operation]) {
        for operation in operations {
            for task in operation.tasks() {
                self.know_task(task.task_id.clone(), Some(task.agent_id.clone()));
                self.tasks
                    .plan_question(&task.task_id, now, self.timing.launch_silence_ms);
            }
            self.sent(operation);
        }
    }

    fn drop_tasks(&mut self, now: Timestamp, operations: &[Operation]) -> Vec<Event> {
        let tasks = operations.iter().flat_map(|operation| operation.tasks());
        let dropped: Vec<Event> = tasks
            .map(|task| TaskStatus {
                reason: Some(Reason::InvalidOffers),
                message: NO_MASTER.to_owned(),
                agent_id: Some(task.agent_id.clone()),
                ..TaskStatus::new(
                    task.task_id.clone(),
                    TaskState::Dropped,
                    Source::Master,
                    now,
                )
            })
            .map(Event::Update)
            .collect();
        self.counters.dropped_calls += 1;
        self.counters.dropped_tasks += dropped.len() as u64;
        dropped
    }

    /// Ends the framework as asked, at the latest after [`TEARDOWN_TIMEOUT_MS`].
    pub(super) fn end(&mut self, now: Timestamp, ending: Ending, out: &mut Vec<Output>) {
        if self.is_ended() || self.ending.is_some() {
            return;
        }
        self.ending = Some((ending, now.plus_ms(TEARDOWN_TIMEOUT_MS)));
        let nobody_knows_it = self.info.id.is_none() && ending == Ending::Teardown;
        if self.is_subscribed() {
            self.leave(ending, out);
        } else if nobody_knows_it || ending == Ending::Detach {
            self.finish(
                Finished::Asked {
                    ending,
                    told: nobody_knows_it,
                },
                out,
            );
        }
    }

    fn leave(&mut self, ending: Ending, out: &mut Vec<Output>) {
        match ending {
            Ending::Teardown => out.push(Output::Send(Call::Teardown)),
            Ending::Detach => self.finish(Finished::Asked { ending, told: true }, out),
        }
    }
}
