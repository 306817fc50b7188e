//! What chains hang on: arc-swap's cell, and a cell of loom's model.

use std::sync::Arc;

use arc_swap::ArcSwapOption;

use super::Link;

/// What a chain hangs on: the atomic steps that it is made of.
pub(crate) trait Hook<T> {
    /// With nothing on it.
    fn empty() -> Self;

    /// How many messages hang on it.
    fn waiting(&self) -> usize;

    /// The last link.
    fn load_full(&self) -> Option<Arc<Link<T>>>;

    /// Puts `next` in the place of the last link if that is `before`; whether it was.
    fn compare_and_swap(&self, before: &Option<Arc<Link<T>>>, next: Arc<Link<T>>) -> bool;

    /// Puts `next` in the place of the last link; what that was.
    fn swap(&self, next: Option<Arc<Link<T>>>) -> Option<Arc<Link<T>>>;
}

impl<T> Hook<T> for ArcSwapOption<Link<T>> {
    fn empty() -> Self {
        ArcSwapOption::empty()
    }

    fn waiting(&self) -> usize {
        self.load().as_ref().map_or(0, |last| last.waiting)
    }

    fn load_full(&self) -> Option<Arc<Link<T>>> {
        ArcSwapOption::load_full(self)
    }

    fn compare_and_swap(&self, before: &Option<Arc<Link<T>>>, next: Arc<Link<T>>) -> bool {
        let found = ArcSwapOption::compare_and_swap(self, before, Some(next));
        found.as_ref().map(Arc::as_ptr) == before.as_ref().map(Arc::as_ptr)
    }

    fn swap(&self, next: Option<Arc<Link<T>>>) -> Option<Arc<Link<T>>> {
        ArcSwapOption::swap(self, next)
    }
}

/// The chain on loom's model of the memory, for the model checker alone.
///
/// It differs from the product's in one thing: links are kept to the end of the model instead of being freed when nobody
/// looks at them any more, because loom cannot run arc-swap. What is checked is that no message is lost, taken twice or
/// out of order, or seen before what was written ahead of it; that none is freed too early rests on arc-swap.
#[cfg(feature = "loom")]
pub mod model {
    use std::sync::atomic::AtomicUsize as Count;
    use std::sync::{Arc, Mutex, PoisonError};

    use loom::sync::atomic::{AtomicUsize, Ordering};

    use super::super::{Chain, Link, PhantomData};
    use super::Hook;

    /// How the place of the last link is exchanged.
    pub trait Exchange {
        /// Puts `next` in the place of `current`; false where another was there.
        fn exchange(cell: &AtomicUsize, current: usize, next: usize) -> bool;

        /// Puts `next` in its place, whatever it is; what it was.
        fn swap(cell: &AtomicUsize, next: usize) -> usize {
            cell.swap(next, Ordering::AcqRel)
        }
    }

    /// As the product does.
    #[derive(Debug)]
    pub struct Sound;

    impl Exchange for Sound {
        fn exchange(cell: &AtomicUsize, current: usize, next: usize) -> bool {
            let (done, failed) = (Ordering::AcqRel, Ordering::Acquire);
            cell.compare_exchange(current, next, done, failed).is_ok()
        }
    }

    /// A planted fault: a store without a look at what is there meanwhile.
    #[derive(Debug)]
    pub struct LoadThenStore;

    impl Exchange for LoadThenStore {
        fn exchange(cell: &AtomicUsize, current: usize, next: usize) -> bool {
            let unchanged = cell.load(Ordering::Acquire) == current;
            if unchanged {
                cell.store(next, Ordering::Release);
            }
            unchanged
        }
    }

    /// A planted fault: an exchange that publishes nothing.
    #[derive(Debug)]
    pub struct Unordered;

    impl Exchange for Unordered {
        fn exchange(cell: &AtomicUsize, current: usize, next: usize) -> bool {
            let order = Ordering::Relaxed;
            cell.compare_exchange(current, next, order, order).is_ok()
        }
    }

    /// The place of the last link: its number from 1 on, or 0.
    struct Modelled<T, E> {
        last: AtomicUsize,
        /// All links that ever were. A mutex of the standard library, which loom does not see: it orders nothing in the
        /// model.
        links: Mutex<Vec<Arc<Link<T>>>>,
        /// Exchanges that were tried.
        tries: Count,
        exchange: PhantomData<E>,
    }

    impl<T, E> Modelled<T, E> {
        fn put(&self, link: Option<Arc<Link<T>>>) -> usize {
            let Some(link) = link else { return 0 };
            let mut links = self.links.lock().unwrap_or_else(PoisonError::into_inner);
            links.push(link);
            links.len()
        }

        fn get(&self, number: usize) -> Option<Arc<Link<T>>> {
            let links = self.links.lock().unwrap_or_else(PoisonError::into_inner);
            links.get(number.checked_sub(1)?).cloned()
        }

        fn number(&self, link: &Option<Arc<Link<T>>>) -> usize {
            let Some(link) = link else { return 0 };
            let links = self.links.lock().unwrap_or_else(PoisonError::into_inner);
            let at = links.iter().position(|other| Arc::ptr_eq(other, link));
            at.map_or(0, |at| at + 1)
        }
    }

    impl<T, E: Exchange> Hook<T> for Modelled<T, E> {
        fn empty() -> Self {
            Self {
                last: AtomicUsize::new(0),
                links: Mutex::default(),
                tries: Count::new(0),
                exchange: PhantomData,
            }
        }

        fn waiting(&self) -> usize {
            let last = self.load_full();
            last.map_or(0, |last| last.waiting)
        }

        fn load_full(&self) -> Option<Arc<Link<T>>> {
            self.get(self.last.load(Ordering::Acquire))
        }

        fn compare_and_swap(&self, before: &Option<Arc<Link<T>>>, next: Arc<Link<T>>) -> bool {
            self.tries.fetch_add(1, Ordering::Relaxed);
            let (current, next) = (self.number(before), self.put(Some(next)));
            E::exchange(&self.last, current, next)
        }

        fn swap(&self, next: Option<Arc<Link<T>>>) -> Option<Arc<Link<T>>> {
            let next = self.put(next);
            self.get(E::swap(&self.last, next))
        }
    }

    /// A chain of the model.
    pub struct ModelledChain<T: Clone, E: Exchange>(Chain<T, Modelled<T, E>>);

    impl<T: Clone, E: Exchange> ModelledChain<T, E> {
        /// An empty one.
        #[expect(clippy::new_without_default, reason = "made by models alone")]
        pub fn new() -> Self {
            Self(Chain::empty())
        }

        /// Hangs a message in; how many wait then, or the message where as many as `most` do, and how many exchanges that
        /// took.
        pub fn push(&self, message: T, most: usize) -> (Result<usize, T>, usize) {
            let before = self.tries();
            let pushed = self.0.push(message, most);
            (pushed, self.tries() - before)
        }

        /// Leaves a message in the place of all that wait.
        pub fn replace(&self, message: T) {
            self.0.replace(message);
        }

        /// Takes all that wait.
        pub fn take(&self) -> Vec<T> {
            self.0.take()
        }

        /// Exchanges that were tried, by the one thread that hangs messages in.
        fn tries(&self) -> usize {
            self.0.0.tries.load(Ordering::Relaxed)
        }
    }
}
