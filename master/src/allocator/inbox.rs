//! What the driver has published and a worker has not read yet: a chain that the worker takes as a whole.
//!
//! A worker that falls behind by [`MAX_PUBLICATIONS_BEHIND`] finds a copy of the whole book instead: so a paused thread
//! stops nobody and takes no memory without bound.

use std::sync::Arc;

use crate::chain::Chain;
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
}

pub(super) struct Inbox(Chain<Message>);

impl Inbox {
    pub(super) fn new() -> Self {
        Self(Chain::new())
    }

    /// Adds what was published as the `number`th. For the driver alone. Says whether a copy of the book was needed.
    pub(super) fn push(
        &self,
        number: u64,
        entries: &Arc<Vec<Entry>>,
        copy: impl FnOnce() -> Claims,
    ) -> bool {
        let news = News::Entries(Arc::clone(entries));
        let message = Message { number, news };
        if self.0.push(message, MAX_PUBLICATIONS_BEHIND).is_ok() {
            return false;
        }
        let news = News::Copy(Box::new(copy()));
        self.0.replace(Message { number, news });
        true
    }

    /// Has a planner follow all that has come.
    pub(super) fn read(&self, reader: &mut Reader) {
        for message in self.0.take() {
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
