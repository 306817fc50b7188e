//! The way of news from the driver to the mirror: bounded, lock-free, and never waited for.
//!
//! Where the mirror is so far behind that its queue is full, the driver hands over nothing more before
//! the mirror has read all of it, and then everything that there is, once; what was left out meanwhile
//! costs nobody anything. It begins in the same way. Order, which makes a reading show what was pushed
//! before it was asked for: the driver marks the loss before it acts on the step whose news are lost; the
//! mirror looks at that mark, then empties the queue, then answers.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering, fence};
use std::thread::JoinHandle;

use ebb_types::Timestamp;
use tokio::sync::Notify;

use crate::chain::Chain;
use crate::core::News;

/// Most news that wait for the mirror.
pub const MAX_NEWS_BEHIND: usize = 1 << 18;
/// Most messages in which they wait.
pub const MAX_MESSAGES_BEHIND: usize = 1 << 14;
/// So many news or messages are worth waking the mirror for where nobody reads.
const WAKE_AT_NEWS: usize = 4096;
const WAKE_AT_MESSAGES: usize = 1024;

#[derive(Clone, Debug)]
pub(super) enum What {
    News(Vec<News>),
    Everything(Vec<News>),
}

#[derive(Clone, Debug)]
pub(super) struct Message {
    pub(super) at: Timestamp,
    pub(super) what: What,
}

/// What the mirror has done since the start; all but the depth only rise.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MirrorFigures {
    /// News that wait for it.
    pub depth: u64,
    /// Times that it was so far behind that it was given everything.
    pub copies: u64,
    /// Readings that it has answered.
    pub reads: u64,
    /// Watching operators cut off because they did not keep up.
    pub slow_readers_cut: u64,
}

/// What both ends share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) queue: Chain<Message>,
    max_messages: usize,
    /// News in the queue.
    pub(super) waiting: AtomicUsize,
    max_waiting: usize,
    /// The time of the driver's last step.
    pub(super) at_ms: AtomicU64,
    /// Whether news were left out that the mirror has not been made up for.
    pub(super) is_behind: AtomicBool,
    /// Whether the mirror wants to be woken for whatever comes.
    pub(super) is_eager: AtomicBool,
    pub(super) is_closed: AtomicBool,
    pub(super) wake: Notify,
    /// The mirror has read all that it had and is behind.
    pub(super) wants_everything: Notify,
    pub(super) copies: AtomicU64,
    pub(super) reads: AtomicU64,
    pub(super) slow_readers_cut: AtomicU64,
}

impl Shared {
    pub(super) fn new(max_waiting: usize) -> Self {
        Self {
            queue: Chain::new(),
            max_messages: MAX_MESSAGES_BEHIND.min(max_waiting),
            waiting: AtomicUsize::new(0),
            max_waiting,
            at_ms: AtomicU64::new(0),
            is_behind: AtomicBool::new(true),
            is_eager: AtomicBool::new(false),
            is_closed: AtomicBool::new(false),
            wake: Notify::new(),
            wants_everything: Notify::new(),
            copies: AtomicU64::new(0),
            reads: AtomicU64::new(0),
            slow_readers_cut: AtomicU64::new(0),
        }
    }
}

/// The driver's end. Dropped, it ends the mirror.
#[derive(Debug)]
pub struct Feed {
    pub(super) shared: Arc<Shared>,
    pub(super) thread: Option<JoinHandle<()>>,
}

impl Feed {
    /// Hands over what has changed up to `now`, without waiting. `everything` is asked for where the mirror
    /// begins or has missed some; it must have seen `news`.
    pub fn push(
        &mut self,
        now: Timestamp,
        news: Vec<News>,
        everything: impl FnOnce() -> Vec<News>,
    ) {
        let shared = &self.shared;
        shared.at_ms.store(now.as_ms(), Ordering::Release);
        if shared.is_behind.load(Ordering::Relaxed) {
            if shared.queue.len() == 0 {
                let what = What::Everything(everything());
                let message = Message { at: now, what };
                let pushed = shared.queue.push(message, shared.max_messages);
                debug_assert!(pushed.is_ok(), "somebody else fills the queue");
                shared.is_behind.store(false, Ordering::Release);
                shared.wake.notify_one();
            }
            return;
        }
        if news.is_empty() {
            return;
        }
        let count = news.len();
        let waiting = shared.waiting.fetch_add(count, Ordering::Relaxed) + count;
        let what = What::News(news);
        let message = Message { at: now, what };
        let messages = if waiting <= shared.max_waiting {
            shared.queue.push(message, shared.max_messages).ok()
        } else {
            None
        };
        let Some(messages) = messages else {
            shared.waiting.fetch_sub(count, Ordering::Relaxed);
            shared.copies.fetch_add(1, Ordering::Relaxed);
            shared.is_behind.store(true, Ordering::Release);
            shared.wake.notify_one();
            return;
        };
        // Either this sees that the mirror is eager, or the mirror, which looks once more after it has
        // become so, sees the message.
        fence(Ordering::SeqCst);
        if shared.is_eager.load(Ordering::Relaxed)
            || waiting >= WAKE_AT_NEWS
            || messages >= WAKE_AT_MESSAGES
        {
            shared.wake.notify_one();
        }
    }

    /// Resolves when the mirror waits for everything: [`Feed::push`] then, even if there are no news.
    pub async fn wanted(&self) {
        self.shared.wants_everything.notified().await;
    }

    /// What the mirror has done.
    pub fn figures(&self) -> MirrorFigures {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        MirrorFigures {
            depth: self.shared.waiting.load(Ordering::Relaxed) as u64,
            copies: read(&self.shared.copies),
            reads: read(&self.shared.reads),
            slow_readers_cut: read(&self.shared.slow_readers_cut),
        }
    }
}

impl Drop for Feed {
    fn drop(&mut self) {
        self.shared.is_closed.store(true, Ordering::Release);
        self.shared.wake.notify_one();
        if let Some(thread) = self.thread.take() {
            // A mirror that panicked has said so on standard error; there is nothing to add.
            let _panicked = thread.join().is_err();
        }
    }
}
