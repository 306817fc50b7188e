//! The atomic steps of the lock-free path, named where they are made, so that a test can stop a thread before each.
//!
//! In the product [`step`] is nothing. In a test it calls the watcher of its thread, which may count, wait, or never come
//! back; the allocator's threads have the watcher of the thread that started them.

/// An atomic step is about to be made (or has just been made, as its name says).
#[cfg(not(test))]
#[inline(always)]
pub(crate) const fn step(_name: &'static str) {}

#[cfg(test)]
pub(crate) use watch::step;

#[cfg(test)]
pub(crate) mod watch {
    use std::cell::RefCell;
    use std::sync::Arc;

    /// Is told which worker makes which step; none is any other thread.
    pub(crate) type Watcher = Arc<dyn Fn(Option<u32>, &'static str) + Send + Sync>;

    thread_local! {
        static WATCHER: RefCell<(Option<u32>, Option<Watcher>)> = const { RefCell::new((None, None)) };
    }

    pub(crate) fn step(name: &'static str) {
        WATCHER.with_borrow(|(worker, watcher)| {
            if let Some(watcher) = watcher {
                watcher(*worker, name);
            }
        });
    }

    /// Has the steps of this thread watched.
    pub(crate) fn set(worker: Option<u32>, watcher: Option<Watcher>) {
        WATCHER.set((worker, watcher));
    }

    /// Who watches this thread.
    pub(crate) fn of_this_thread() -> Option<Watcher> {
        WATCHER.with_borrow(|(_, watcher)| watcher.clone())
    }
}
