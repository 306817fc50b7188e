//! The statuses of one task on their way to the framework: in order, one at a time, each repeated
//! until it is acknowledged.
//!
//! Only the oldest is ever under way. It is repeated after 10 s, then after twice the time up to 10
//! minutes, and at once when the agent has registered anew; an acknowledgement that names it releases
//! the next.

use std::collections::VecDeque;

use ebb_types::{
    AgentToMaster, Reason, Source, TaskKey, TaskState, TaskStatus, Timestamp, UpdateUuid,
};

use super::state::{Core, Outbox};
use super::timers::Timer;
use super::{
    Effect, MAX_UPDATES_PER_TASK, Observation, Record, UPDATE_RETRY_MAX_MS, UPDATE_RETRY_MIN_MS,
};

/// What an acknowledgement did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Acknowledged {
    /// It named the oldest status, which is gone now.
    Oldest,
    /// It named something else and changed nothing.
    Other,
}

/// The stream of one task.
#[derive(Clone, Debug)]
pub(super) struct Updates {
    queue: VecDeque<TaskStatus>,
    /// Wait before the oldest is sent again.
    backoff_ms: u64,
    /// Whether the oldest has been sent over the present connection.
    sent: bool,
}

impl Default for Updates {
    fn default() -> Self {
        Self::restored(Vec::new())
    }
}

impl Updates {
    /// The stream as it was on disk.
    pub(super) fn restored(statuses: Vec<TaskStatus>) -> Self {
        Self {
            queue: statuses.into(),
            backoff_ms: UPDATE_RETRY_MIN_MS,
            sent: false,
        }
    }

    /// Adds a status at the end.
    pub(super) fn push(&mut self, status: TaskStatus) {
        self.queue.push_back(status);
    }

    /// Whether another status of the executor's has room; one place is kept for the terminal one.
    pub(super) fn has_room(&self) -> bool {
        self.queue.len() + 1 < MAX_UPDATES_PER_TASK
    }

    /// The one that is under way or next.
    pub(super) fn oldest(&self) -> Option<&TaskStatus> {
        self.queue.front()
    }

    /// All, oldest first.
    pub(super) fn iter(&self) -> impl Iterator<Item = &TaskStatus> {
        self.queue.iter()
    }

    /// How many.
    pub(super) fn len(&self) -> usize {
        self.queue.len()
    }

    /// Whether the oldest has to be sent now.
    pub(super) fn wants_sending(&self) -> bool {
        !self.sent && !self.queue.is_empty()
    }

    /// The oldest was sent; says after how many milliseconds it is to be repeated.
    pub(super) fn was_sent(&mut self) -> u64 {
        let wait_ms = self.backoff_ms;
        self.backoff_ms = (wait_ms * 2).min(UPDATE_RETRY_MAX_MS);
        self.sent = true;
        wait_ms
    }

    /// Nothing of what was sent can be relied upon.
    pub(super) fn restart(&mut self) {
        self.sent = false;
        self.backoff_ms = UPDATE_RETRY_MIN_MS;
    }

    /// The oldest has to be sent again.
    pub(super) fn repeat(&mut self) {
        self.sent = false;
    }

    /// Takes an acknowledgement.
    pub(super) fn acknowledge(&mut self, uuid: UpdateUuid) -> Acknowledged {
        if self
            .queue
            .front()
            .is_none_or(|status| status.uuid != Some(uuid))
        {
            return Acknowledged::Other;
        }
        self.queue.pop_front();
        self.restart();
        Acknowledged::Oldest
    }
}

/// What a new status says beyond the state.
#[derive(Clone, Debug, Default)]
pub(super) struct Says {
    pub(super) reason: Option<Reason>,
    pub(super) message: String,
    pub(super) exit: Option<ebb_types::ExitStatus>,
    pub(super) limitation: Option<ebb_types::Limitation>,
}

impl Says {
    pub(super) fn because(reason: Reason, message: impl Into<String>) -> Self {
        Self {
            reason: Some(reason),
            message: message.into(),
            ..Self::default()
        }
    }
}

impl Core {
    /// Makes a status of a task known: recorded first, then sent when its turn comes.
    pub(super) fn report(
        &mut self,
        key: &TaskKey,
        state: TaskState,
        says: Says,
        now: Timestamp,
        out: &mut Outbox,
    ) {
        let uuid = self.next_uuid();
        let agent_id = self.agent_id.clone();
        let Some(task) = self.tasks.get(key) else {
            return;
        };
        let executor_id = task.info.executor.as_ref().map(|e| e.executor_id.clone());
        let mut status = TaskStatus::new(key.1.clone(), state, Source::Agent, now);
        status.reason = says.reason;
        status.message = says.message;
        status.exit = says.exit;
        status.limitation = says.limitation;
        status.agent_id = agent_id;
        status.executor_id = executor_id;
        status.container_id = Some(task.container_id.clone());
        status.uuid = Some(uuid);
        self.queue_status(key, status, now, out);
    }

    /// Queues a status whose uuid is set, and sends it if it is the oldest.
    pub(super) fn queue_status(
        &mut self,
        key: &TaskKey,
        status: TaskStatus,
        now: Timestamp,
        out: &mut Outbox,
    ) {
        let Some(task) = self.tasks.get_mut(key) else {
            return;
        };
        debug_assert!(!task.state.is_terminal(), "a status after the terminal one");
        task.state = status.state;
        if status.state == TaskState::Running && task.started_at.is_none() {
            task.started_at = Some(status.timestamp);
        }
        out.effect(Effect::Observe(Observation::TaskState {
            key: key.clone(),
            state: status.state,
            message: status.message.clone(),
            container_id: task.container_id.clone(),
            executor_id: status.executor_id.clone(),
        }));
        out.persist(Record::Update {
            framework_id: key.0.clone(),
            status: status.clone(),
        });
        task.updates.push(status);
        self.pending_updates += 1;
        self.send_oldest(key, now, out);
    }

    /// Sends the oldest status of a task if it has not been and the master listens.
    pub(super) fn send_oldest(&mut self, key: &TaskKey, now: Timestamp, out: &mut Outbox) {
        let Some(conn) = self.registered_conn() else {
            return;
        };
        let Some(task) = self.tasks.get_mut(key) else {
            return;
        };
        if !task.updates.wants_sending() {
            return;
        }
        let Some(status) = task.updates.oldest().cloned() else {
            return;
        };
        let latest_state = task.state;
        let wait_ms = task.updates.was_sent();
        self.timers
            .set(Timer::Retry(key.clone()), now.plus_ms(wait_ms));
        self.counters.updates_sent += 1;
        out.tell(
            conn,
            AgentToMaster::Update {
                framework_id: key.0.clone(),
                status,
                latest_state,
            },
        );
    }

    /// The wait for an acknowledgement is over.
    pub(super) fn retry_update(&mut self, key: &TaskKey, now: Timestamp, out: &mut Outbox) {
        if let Some(task) = self.tasks.get_mut(key) {
            task.updates.repeat();
            if self.registered_conn().is_some() {
                self.counters.updates_retried += 1;
            }
            self.send_oldest(key, now, out);
        }
    }

    /// After a registration: every task's oldest status goes out at once.
    pub(super) fn resend_all(&mut self, now: Timestamp, out: &mut Outbox) {
        let keys: Vec<TaskKey> = self
            .tasks
            .iter_mut()
            .filter(|(_, task)| task.updates.len() > 0)
            .map(|(key, task)| {
                task.updates.restart();
                key.clone()
            })
            .collect();
        for key in keys {
            self.send_oldest(&key, now, out);
        }
    }

    /// The framework has a status.
    pub(super) fn acknowledge(
        &mut self,
        key: &TaskKey,
        uuid: UpdateUuid,
        now: Timestamp,
        out: &mut Outbox,
    ) {
        let Some(task) = self.tasks.get_mut(key) else {
            self.counters.acknowledgements_ignored += 1;
            return;
        };
        if task.updates.acknowledge(uuid) == Acknowledged::Other {
            self.counters.acknowledgements_ignored += 1;
            return;
        }
        self.pending_updates -= 1;
        self.timers.clear(&Timer::Retry(key.clone()));
        out.note(Record::Acknowledged {
            framework_id: key.0.clone(),
            task_id: key.1.clone(),
            uuid,
        });
        if task.updates.len() > 0 {
            self.send_oldest(key, now, out);
        } else if task.state.is_terminal() {
            self.drop_task(key);
        }
    }
}
