//! A chain into which one thread hangs messages and from which another takes all at once, the newest first in memory, the
//! oldest first as they are taken.
//!
//! Each is one exchange, so neither thread ever waits for the other, wherever it is paused. (In a ring buffer, such as
//! that of crossbeam-queue, a push and a pop are two steps each, and whoever comes to the place of a thread that is paused
//! between them waits for it.)
//!
//! The atomic steps stand behind [`Hook`], so that the same code runs on arc-swap in the product and on loom's model of the
//! memory in the tests (feature `loom`).

mod hook;

use std::marker::PhantomData;
use std::sync::Arc;

use arc_swap::ArcSwapOption;

use self::hook::Hook;
use crate::steps::step;

#[cfg(feature = "loom")]
pub use hook::model;

#[derive(Clone, Debug)]
pub(crate) struct Link<T> {
    message: T,
    /// How many wait, this one counted.
    waiting: usize,
    before: Option<Arc<Link<T>>>,
}

/// Messages from one thread to another.
#[derive(Debug)]
pub(crate) struct Chain<T: Clone, H: Hook<T> = ArcSwapOption<Link<T>>>(H, PhantomData<T>);

impl<T: Clone> Chain<T> {
    pub(crate) fn new() -> Self {
        Self::empty()
    }
}

impl<T: Clone, H: Hook<T>> Chain<T, H> {
    fn empty() -> Self {
        Self(H::empty(), PhantomData)
    }

    /// How many messages wait.
    pub(crate) fn len(&self) -> usize {
        self.0.waiting()
    }

    /// Hangs a message in, for the one thread that does; back where as many as `most` wait. Says how many wait now.
    pub(crate) fn push(&self, message: T, most: usize) -> Result<usize, T> {
        let mut link = Link {
            message,
            waiting: 0,
            before: None,
        };
        // Nobody else hangs anything in. So the first exchange fails only if all was taken, and the second cannot.
        loop {
            step("look before publishing");
            link.before = self.0.load_full();
            link.waiting = 1 + link.before.as_ref().map_or(0, |last| last.waiting);
            if link.waiting > most {
                return Err(link.message);
            }
            let (waiting, before) = (link.waiting, link.before.clone());
            let hung = Arc::new(link);
            step("publish");
            if self.0.compare_and_swap(&before, Arc::clone(&hung)) {
                return Ok(waiting);
            }
            link = Arc::unwrap_or_clone(hung);
        }
    }

    /// Leaves this message in the place of all that wait.
    pub(crate) fn replace(&self, message: T) {
        let link = Link {
            message,
            waiting: 1,
            before: None,
        };
        step("publish a copy");
        unlink(self.0.swap(Some(Arc::new(link))));
    }

    /// Takes all that wait, the oldest first.
    pub(crate) fn take(&self) -> Vec<T> {
        step("look into the inbox");
        if self.len() == 0 {
            return Vec::new();
        }
        step("read");
        let last = self.0.swap(None);
        step("have read");
        unlink(last)
    }
}

/// Takes a chain apart, one by one: dropped as it is, it would take as much of the stack as it is long.
fn unlink<T: Clone>(last: Option<Arc<Link<T>>>) -> Vec<T> {
    let mut next = last;
    let mut messages = Vec::new();
    while let Some(link) = next {
        // Its own, unless the other thread is just looking at it.
        let Link {
            message, before, ..
        } = Arc::unwrap_or_clone(link);
        next = before;
        messages.push(message);
    }
    messages.reverse();
    messages
}

impl<T: Clone, H: Hook<T>> Drop for Chain<T, H> {
    fn drop(&mut self) {
        unlink(self.0.swap(None));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_taken_once_in_their_order_and_no_more_than_may_wait() {
        let chain = Chain::new();
        assert_eq!((chain.push(1, 2), chain.push(2, 2)), (Ok(1), Ok(2)));
        assert_eq!(chain.push(3, 2), Err(3));
        assert_eq!((chain.len(), chain.take()), (2, vec![1, 2]));
        assert_eq!((chain.len(), chain.take()), (0, vec![]));
        assert_eq!(chain.push(4, 2), Ok(1));
        chain.replace(5);
        assert_eq!(chain.take(), [5]);
    }

    #[test]
    fn a_long_chain_is_dropped_without_a_deep_stack() {
        let chain = Chain::new();
        for number in 0..1_000_000 {
            assert_eq!(chain.push(number, usize::MAX), Ok(number + 1));
        }
    }

    #[test]
    fn nothing_is_lost_between_two_threads() {
        let chain = Arc::new(Chain::new());
        let reader = Arc::clone(&chain);
        let reading = std::thread::spawn(move || {
            let mut read = Vec::new();
            while read.len() < 100_000 {
                read.extend(reader.take());
            }
            read
        });
        for number in 0..100_000 {
            let mut message = number;
            while let Err(back) = chain.push(message, 64) {
                message = back;
                std::thread::yield_now();
            }
        }
        assert!(reading.join().unwrap().into_iter().eq(0..100_000));
    }
}
