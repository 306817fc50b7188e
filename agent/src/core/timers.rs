//! When the core has to act without anything else happening.
//!
//! Each timer stands at most once; setting it again moves it. The order of firing is that of time,
//! then of the timers themselves, so that it is the same in every run.

use std::collections::{BTreeMap, BTreeSet};

use ebb_types::{TaskKey, Timestamp};

use super::ExecutorKey;

/// What is to be done at a time.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Timer {
    /// The registration was not answered.
    Registration,
    /// The master has to hear something.
    Heartbeat,
    /// The master may have been silent for too long.
    Silence,
    /// There may be no fresh samples.
    Stale,
    /// A status has to be sent again.
    Retry(TaskKey),
    /// A task has to be ended by force.
    Forced(TaskKey),
    /// A task has run for as long as it may.
    Completion(TaskKey),
    /// An executor has not subscribed in time.
    Subscription(ExecutorKey),
    /// An executor has to be ended by force.
    ExecutorForced(ExecutorKey),
}

/// All timers that are set.
#[derive(Clone, Debug, Default)]
pub(super) struct Timers {
    queue: BTreeSet<(Timestamp, Timer)>,
    set: BTreeMap<Timer, Timestamp>,
}

impl Timers {
    /// Sets or moves a timer.
    pub(super) fn set(&mut self, timer: Timer, at: Timestamp) {
        if let Some(before) = self.set.insert(timer.clone(), at) {
            self.queue.remove(&(before, timer.clone()));
        }
        self.queue.insert((at, timer));
    }

    /// Takes a timer back.
    pub(super) fn clear(&mut self, timer: &Timer) {
        if let Some(at) = self.set.remove(timer) {
            self.queue.remove(&(at, timer.clone()));
        }
    }

    /// When the next timer fires.
    pub(super) fn next(&self) -> Option<Timestamp> {
        self.queue.first().map(|(at, _)| *at)
    }

    /// Takes the first timer that is due.
    pub(super) fn pop_due(&mut self, now: Timestamp) -> Option<Timer> {
        if self.next()? > now {
            return None;
        }
        let (_, timer) = self.queue.pop_first()?;
        self.set.remove(&timer);
        Some(timer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timer_that_is_moved_fires_once_at_its_new_time() {
        let mut timers = Timers::default();
        timers.set(Timer::Heartbeat, Timestamp::from_ms(10));
        timers.set(Timer::Heartbeat, Timestamp::from_ms(20));
        timers.set(Timer::Silence, Timestamp::from_ms(15));
        assert_eq!(timers.pop_due(Timestamp::from_ms(12)), None);
        assert_eq!(timers.pop_due(Timestamp::from_ms(30)), Some(Timer::Silence));
        assert_eq!(
            timers.pop_due(Timestamp::from_ms(30)),
            Some(Timer::Heartbeat)
        );
        assert_eq!(timers.pop_due(Timestamp::from_ms(30)), None);
        timers.set(Timer::Heartbeat, Timestamp::from_ms(40));
        timers.clear(&Timer::Heartbeat);
        assert_eq!(timers.next(), None);
    }
}
