//! The session of one executor with its agent: a pure state machine.
//!
//! # Invariants
//! * A status is kept until the agent has acknowledged it, and said again on every new connection.
//! * A task whose launch was seen is named on every new connection until a status of it was
//!   acknowledged, so that the agent does not take it for lost; its launch is never taken twice.

use std::collections::{BTreeSet, VecDeque};

use ebb_types::{TaskId, TaskStatus, Timestamp, UpdateUuid};

use crate::backoff::{Backoff, Jitter};

/// First bound of the wait before a new connection, in milliseconds.
pub const RECONNECT_FIRST_MS: u64 = 50;
/// Largest bound of that wait, in milliseconds: an agent that comes back waits only so long for its
/// executors.
pub const RECONNECT_CAP_MS: u64 = 2_000;
/// An executor whose agent stays away for so long ends, in milliseconds. As in Mesos.
pub const RECOVERY_TIMEOUT_MS: u64 = 900_000;
/// Time to deliver the last statuses after a shutdown, in milliseconds; the agent's grace is longer.
pub const SHUTDOWN_FLUSH_MS: u64 = 4_000;

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SessionInput {
    /// The agent took the subscription.
    Subscribed,
    /// The connection broke or could not be made.
    Broken,
    /// The agent has a status on disk.
    Acknowledged {
        /// Its task.
        task_id: TaskId,
        /// The status.
        uuid: UpdateUuid,
    },
    /// A task says how it is.
    Update(Box<TaskStatus>),
    /// The agent wants the executor to end, or the executor itself does.
    ShutDown,
    /// Nothing but the passing of time.
    Tick,
}

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SessionOutput {
    /// Connect, and subscribe with what is not acknowledged.
    Connect {
        /// Tasks whose launch was seen.
        tasks: Vec<TaskId>,
        /// Statuses that were said.
        updates: Vec<TaskStatus>,
    },
    /// Say a status on the open connection.
    Send(TaskStatus),
    /// The executor ends.
    End,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Waiting { until: Timestamp },
    Connecting,
    Subscribed,
    Ended,
}

/// The session of one executor with its agent.
#[derive(Clone, Debug)]
pub struct ExecutorSession {
    phase: Phase,
    tasks: BTreeSet<TaskId>,
    seen: BTreeSet<TaskId>,
    updates: VecDeque<TaskStatus>,
    backoff: Backoff,
    jitter: Jitter,
    away_since: Timestamp,
    shutdown_deadline: Option<Timestamp>,
}

impl ExecutorSession {
    /// A session that has not connected yet; its first connection is due at once.
    pub const fn new(now: Timestamp, seed: u64) -> Self {
        Self {
            phase: Phase::Waiting { until: now },
            tasks: BTreeSet::new(),
            seen: BTreeSet::new(),
            updates: VecDeque::new(),
            backoff: Backoff::new(RECONNECT_FIRST_MS, RECONNECT_CAP_MS),
            jitter: Jitter::new(seed),
            away_since: now,
            shutdown_deadline: None,
        }
    }

    /// When [`SessionInput::Tick`] is due.
    pub fn next_wake(&self) -> Option<Timestamp> {
        let phase = match self.phase {
            Phase::Waiting { until } => Some(until),
            Phase::Connecting => Some(self.away_since.plus_ms(RECOVERY_TIMEOUT_MS)),
            Phase::Subscribed | Phase::Ended => None,
        };
        phase.into_iter().chain(self.shutdown_deadline).min()
    }

    /// Takes a launch; says whether the task is new.
    pub fn launched(&mut self, task_id: &TaskId) -> bool {
        let new = self.seen.insert(task_id.clone());
        if new {
            self.tasks.insert(task_id.clone());
        }
        new
    }

    /// Whether it is over.
    pub const fn is_ended(&self) -> bool {
        matches!(self.phase, Phase::Ended)
    }

    /// Takes what happened and says what to do.
    pub fn step(&mut self, now: Timestamp, input: SessionInput) -> Vec<SessionOutput> {
        let mut out = Vec::new();
        if self.is_ended() {
            return out;
        }
        match input {
            SessionInput::Subscribed => {
                self.phase = Phase::Subscribed;
                self.backoff.reset();
            }
            SessionInput::Broken => self.broken(now),
            SessionInput::Acknowledged { task_id, uuid } => self.acknowledged(&task_id, uuid),
            SessionInput::Update(status) => {
                self.updates.push_back((*status).clone());
                if self.phase == Phase::Subscribed {
                    out.push(SessionOutput::Send(*status));
                }
            }
            SessionInput::ShutDown => {
                self.shutdown_deadline
                    .get_or_insert(now.plus_ms(SHUTDOWN_FLUSH_MS));
            }
            SessionInput::Tick => {}
        }
        self.due(now, &mut out);
        out
    }

    fn broken(&mut self, now: Timestamp) {
        if self.phase == Phase::Subscribed {
            self.away_since = now;
        }
        let wait_ms = self.backoff.next_wait_ms(&mut self.jitter);
        let until = now.plus_ms(wait_ms);
        self.phase = Phase::Waiting { until };
    }

    fn acknowledged(&mut self, task_id: &TaskId, uuid: UpdateUuid) {
        self.tasks.remove(task_id);
        let ended = self
            .updates
            .iter()
            .any(|update| update.uuid == Some(uuid) && update.state.is_terminal());
        self.updates.retain(|update| update.uuid != Some(uuid));
        if ended {
            self.seen.remove(task_id);
        }
    }

    fn due(&mut self, now: Timestamp, out: &mut Vec<SessionOutput>) {
        let flushed = self.updates.is_empty() && self.phase == Phase::Subscribed;
        let shut_down = self
            .shutdown_deadline
            .is_some_and(|deadline| deadline <= now || (flushed && self.tasks.is_empty()));
        let deserted =
            self.phase != Phase::Subscribed && now.ms_since(self.away_since) >= RECOVERY_TIMEOUT_MS;
        if shut_down || deserted {
            self.phase = Phase::Ended;
            out.push(SessionOutput::End);
            return;
        }
        if let Phase::Waiting { until } = self.phase
            && until <= now
        {
            self.phase = Phase::Connecting;
            out.push(SessionOutput::Connect {
                tasks: self.tasks.iter().cloned().collect(),
                updates: self.updates.iter().cloned().collect(),
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use ebb_types::{Incarnation, Source, TaskState};

    use super::*;

    const START: Timestamp = Timestamp::from_ms(1000);

    fn id(text: &str) -> TaskId {
        TaskId::new(text).expect("valid")
    }

    fn status(task: &str, state: TaskState, count: u64) -> TaskStatus {
        TaskStatus {
            uuid: Some(UpdateUuid::of(Incarnation(1), count)),
            ..TaskStatus::new(id(task), state, Source::Executor, START)
        }
    }

    fn acknowledged(status: &TaskStatus) -> SessionInput {
        SessionInput::Acknowledged {
            task_id: status.task_id.clone(),
            uuid: status.uuid.expect("set"),
        }
    }

    fn subscribed() -> ExecutorSession {
        let mut session = ExecutorSession::new(START, 1);
        let out = session.step(START, SessionInput::Tick);
        assert!(matches!(out[..], [SessionOutput::Connect { .. }]));
        assert!(session.step(START, SessionInput::Subscribed).is_empty());
        session
    }

    #[test]
    fn what_is_not_acknowledged_is_said_again_on_a_new_connection() {
        let mut session = subscribed();
        assert!(session.launched(&id("a")) && session.launched(&id("b")));
        let (first, second) = (
            status("a", TaskState::Running, 1),
            status("a", TaskState::Finished, 2),
        );
        for update in [&first, &second] {
            let out = session.step(START, SessionInput::Update(Box::new(update.clone())));
            assert_eq!(out, [SessionOutput::Send(update.clone())]);
        }
        session.step(START, acknowledged(&first));
        session.step(START, SessionInput::Broken);
        let again = START.plus_ms(RECONNECT_FIRST_MS);
        assert!(session.next_wake().is_some_and(|at| at <= again));
        let out = session.step(again, SessionInput::Tick);
        assert_eq!(
            out,
            [SessionOutput::Connect {
                tasks: vec![id("b")],
                updates: vec![second]
            }]
        );
    }

    #[test]
    fn a_launch_is_taken_once_until_its_end_is_acknowledged() {
        let mut session = subscribed();
        assert!(session.launched(&id("a")));
        assert!(!session.launched(&id("a")));
        let end = status("a", TaskState::Finished, 1);
        session.step(START, SessionInput::Update(Box::new(end.clone())));
        session.step(START, acknowledged(&end));
        assert!(
            session.launched(&id("a")),
            "another task may have the id now"
        );
    }

    #[test]
    fn a_shutdown_ends_when_all_is_said_or_its_time_is_over() {
        let mut session = subscribed();
        session.launched(&id("a"));
        assert!(session.step(START, SessionInput::ShutDown).is_empty());
        let end = status("a", TaskState::Killed, 1);
        session.step(START, SessionInput::Update(Box::new(end.clone())));
        assert_eq!(
            session.step(START, acknowledged(&end)),
            [SessionOutput::End]
        );
        let mut silent = subscribed();
        silent.launched(&id("a"));
        silent.step(START, SessionInput::ShutDown);
        let late = START.plus_ms(SHUTDOWN_FLUSH_MS);
        assert_eq!(silent.next_wake(), Some(late));
        assert_eq!(silent.step(late, SessionInput::Tick), [SessionOutput::End]);
    }

    #[test]
    fn an_executor_whose_agent_stays_away_ends() {
        let mut session = subscribed();
        session.step(START, SessionInput::Broken);
        let mut now = START;
        while !session.is_ended() {
            now = session
                .next_wake()
                .expect("something is due")
                .max(now.plus_ms(1));
            for output in session.step(now, SessionInput::Tick) {
                if matches!(output, SessionOutput::Connect { .. }) {
                    session.step(now, SessionInput::Broken);
                }
            }
        }
        let away_ms = now.ms_since(START);
        assert!(
            (RECOVERY_TIMEOUT_MS..RECOVERY_TIMEOUT_MS + 2 * RECONNECT_CAP_MS).contains(&away_ms)
        );
    }
}
