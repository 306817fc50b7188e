//! What the driver has published and a worker has not read yet.
//!
//! A worker that falls behind by [`MAX_PUBLICATIONS_BEHIND`] finds a copy of the whole book instead: so a paused thread
//! stops nobody and takes no memory without bound. Lock-free: whoever finds an inbox full empties it, also under the
//! eyes of its reader, who knows by the numbers that it has missed something and waits for the copy.

use std::sync::Arc;

use crossbeam_queue::ArrayQueue;

use crate::core::allocate::Planner;
use crate::core::claims::{Claims, Entry};

/// Publications that wait for one worker at the most.
pub const MAX_PUBLICATIONS_BEHIND: usize = 1024;

enum News {
    Entries(Arc<Vec<Entry>>),
    Copy(Box<Claims>),
}

struct Message {
    number: u64,
    news: News,
}

pub(super) struct Inbox(ArrayQueue<Message>);

impl Inbox {
    pub(super) fn new() -> Self {
        Self(ArrayQueue::new(MAX_PUBLICATIONS_BEHIND))
    }

    /// Adds what was published as the `number`th. For the driver alone. Says whether a copy of the book was needed.
    pub(super) fn push(
        &self,
        number: u64,
        entries: &Arc<Vec<Entry>>,
        copy: impl FnOnce() -> Claims,
    ) -> bool {
        let news = News::Entries(Arc::clone(entries));
        if self.0.push(Message { number, news }).is_ok() {
            return false;
        }
        while self.0.pop().is_some() {}
        let news = News::Copy(Box::new(copy()));
        let pushed = self.0.push(Message { number, news });
        debug_assert!(pushed.is_ok(), "somebody else fills an inbox");
        true
    }

    /// Has a planner follow all that has come.
    pub(super) fn read(&self, reader: &mut Reader) {
        while let Some(message) = self.0.pop() {
            match message.news {
                News::Copy(claims) => reader.planner.start_anew(*claims),
                News::Entries(entries) if message.number == reader.read + 1 => {
                    reader.planner.follow(&entries);
                }
                // Those before were taken out: the copy that stands for them is on its way.
                News::Entries(_) => {
                    reader.is_behind = true;
                    continue;
                }
            }
            reader.read = message.number;
            reader.is_behind = false;
        }
    }
}

/// Who reads an inbox.
pub(super) struct Reader {
    pub(super) planner: Planner,
    /// The number of the last publication that it has followed.
    pub(super) read: u64,
    /// Whether it has missed some.
    pub(super) is_behind: bool,
}
