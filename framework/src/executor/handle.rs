//! Through which tasks say how they are, from any thread.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use ebb_types::{ExecutorId, Incarnation, Source, TaskId, TaskState, TaskStatus, UpdateUuid};
use tokio::sync::Notify;

use crate::scheduler::Clock;

/// Most statuses and messages that wait to be sent.
pub const MAX_WAITING_WORDS: usize = 65_536;

/// Too many statuses and messages wait for the agent already.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{MAX_WAITING_WORDS} statuses and messages wait for the agent already; wait until it takes them"
)]
pub struct TooMany;

/// Something to be told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Word {
    /// The state of a task.
    Update(Box<TaskStatus>),
    /// Bytes for the framework's scheduler.
    Message(Vec<u8>),
    /// The executor is done and wants to end.
    Done,
}

#[derive(Debug)]
struct Shared {
    words: Mutex<VecDeque<Word>>,
    news: Notify,
    count: AtomicU64,
    life: u64,
    executor_id: ExecutorId,
    clock: Clock,
}

/// Through which tasks say how they are, from any thread.
#[derive(Clone, Debug)]
pub struct ExecutorHandle {
    shared: Arc<Shared>,
}

impl ExecutorHandle {
    pub(super) fn new(executor_id: ExecutorId, life: u64, clock: Clock) -> Self {
        Self {
            shared: Arc::new(Shared {
                words: Mutex::default(),
                news: Notify::new(),
                count: AtomicU64::new(0),
                life,
                executor_id,
                clock,
            }),
        }
    }

    /// Says the state of a task.
    ///
    /// # Errors
    /// When too much waits already.
    pub fn update(
        &self,
        task_id: &TaskId,
        state: TaskState,
        message: impl Into<String>,
    ) -> Result<(), TooMany> {
        let now = self.shared.clock.now();
        self.send(TaskStatus {
            message: message.into(),
            ..TaskStatus::new(task_id.clone(), state, Source::Executor, now)
        })
    }

    /// Says the state of a task with everything that goes with it; its uuid, source and executor are
    /// set here.
    ///
    /// # Errors
    /// When too much waits already.
    pub fn send(&self, mut status: TaskStatus) -> Result<(), TooMany> {
        let count = self.shared.count.fetch_add(1, Ordering::Relaxed);
        status.uuid = Some(UpdateUuid::of(Incarnation(self.shared.life), count));
        status.source = Source::Executor;
        status.executor_id = Some(self.shared.executor_id.clone());
        self.say(Word::Update(Box::new(status)))
    }

    /// Sends bytes to the framework's scheduler; may be lost.
    ///
    /// # Errors
    /// When too much waits already.
    pub fn message(&self, data: Vec<u8>) -> Result<(), TooMany> {
        self.say(Word::Message(data))
    }

    /// Ends the executor once everything said so far is with the agent.
    ///
    /// # Errors
    /// When too much waits already.
    pub fn finish(&self) -> Result<(), TooMany> {
        self.say(Word::Done)
    }

    fn say(&self, word: Word) -> Result<(), TooMany> {
        let mut words = self.words();
        if words.len() >= MAX_WAITING_WORDS {
            return Err(TooMany);
        }
        words.push_back(word);
        drop(words);
        self.shared.news.notify_one();
        Ok(())
    }

    fn words(&self) -> std::sync::MutexGuard<'_, VecDeque<Word>> {
        self.shared
            .words
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// The next word; may be dropped and called again at any time.
    pub(super) async fn next(&self) -> Word {
        loop {
            if let Some(word) = self.words().pop_front() {
                return word;
            }
            self.shared.news.notified().await;
        }
    }
}
