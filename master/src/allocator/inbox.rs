//! What the driver has published and a worker has not read yet: a chain, the newest first, that the worker takes as a
//! whole.
//!
//! Both hang it in and take it out with one exchange, so neither ever waits for the other, wherever it is paused. A worker
//! that falls behind by [`MAX_PUBLICATIONS_BEHIND`] finds a copy of the whole book instead: so a paused thread stops nobody
//! and takes no memory without bound.

use std::sync::Arc;

use arc_swap::ArcSwapOption;

use crate::core::allocate::Planner;
use crate::core::claims::{Claims, Entry};
use crate::steps::step;

/// Publications that wait for one worker at the most.
pub const MAX_PUBLICATIONS_BEHIND: usize = 1024;

#[derive(Clone)]
enum News {
    Entries(Arc<Vec<Entry>>),
    Copy(Box<Claims>),
}

#[derive(Clone)]
struct Message {
    number: u64,
    news: News,
    /// How many wait, this one counted.
    waiting: usize,
    before: Option<Arc<Message>>,
}

pub(super) struct Inbox(ArcSwapOption<Message>);

impl Inbox {
    pub(super) fn new() -> Self {
        Self(ArcSwapOption::empty())
    }

    /// Adds what was published as the `number`th. For the driver alone. Says whether a copy of the book was needed.
    pub(super) fn push(
        &self,
        number: u64,
        entries: &Arc<Vec<Entry>>,
        copy: impl FnOnce() -> Claims,
    ) -> bool {
        // Nobody else adds. So the first exchange fails only if the reader has taken all, and the second cannot.
        loop {
            step("look before publishing");
            let before = self.0.load_full();
            let waiting = before.as_ref().map_or(0, |last| last.waiting);
            if waiting >= MAX_PUBLICATIONS_BEHIND {
                break;
            }
            let message = Arc::new(Message {
                number,
                news: News::Entries(Arc::clone(entries)),
                waiting: waiting + 1,
                before: before.clone(),
            });
            step("publish");
            let found = self.0.compare_and_swap(&before, Some(message));
            if found.as_ref().map(Arc::as_ptr) == before.as_ref().map(Arc::as_ptr) {
                return false;
            }
        }
        let message = Arc::new(Message {
            number,
            news: News::Copy(Box::new(copy())),
            waiting: 1,
            before: None,
        });
        step("publish a copy");
        self.0.store(Some(message));
        true
    }

    /// Has a planner follow all that has come.
    pub(super) fn read(&self, reader: &mut Reader) {
        step("look into the inbox");
        if self.0.load().is_none() {
            return;
        }
        step("read");
        let mut next = self.0.swap(None);
        step("have read");
        let mut messages = Vec::new();
        while let Some(message) = next {
            // Its own, unless the driver is just looking at it.
            let mut message = Arc::unwrap_or_clone(message);
            next = message.before.take();
            messages.push(message);
        }
        for message in messages.into_iter().rev() {
            match message.news {
                News::Copy(claims) => {
                    step("start anew");
                    reader.planner.start_anew(*claims);
                }
                News::Entries(entries) => {
                    debug_assert_eq!(message.number, reader.read + 1, "a publication is lost");
                    step("follow");
                    reader.planner.follow(&entries);
                }
            }
            reader.read = message.number;
        }
    }
}

/// Who reads an inbox.
pub(super) struct Reader {
    pub(super) planner: Planner,
    /// The number of the last publication that it has followed.
    pub(super) read: u64,
}
