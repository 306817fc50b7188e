//! Deadlines of the core, in the order in which they fall due.
//!
//! A deadline that is no longer meant is either removed by its owner or, where that would cost a
//! write for every message (an agent that is heard of), found to be void when it falls due and set
//! anew. Units: milliseconds.

use std::collections::BTreeSet;

use ebb_types::{AgentId, FrameworkId, Machine, OfferId, Timestamp};

/// What falls due.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Deadline {
    /// Both sides of every connection are to hear something.
    Heartbeat,
    /// An offer lapses.
    Offer(OfferId),
    /// A framework's scheduler did not come back.
    Failover(FrameworkId),
    /// An agent may have been silent for too long.
    Silence(AgentId),
    /// An agent's lots may have to be offered.
    Lots(AgentId),
    /// A refusal of an agent's lots ends.
    LotRefusals(AgentId),
    /// An agent from the registry did not come back.
    Recovery(AgentId),
    /// A maintenance window is over.
    WindowEnd(Machine),
    /// A framework may be asked again about an agent.
    Inverse(AgentId),
}

/// The deadlines.
#[derive(Debug, Default)]
pub(super) struct Timers {
    due: BTreeSet<(Timestamp, Deadline)>,
}

impl Timers {
    pub(super) fn set(&mut self, at: Timestamp, deadline: Deadline) {
        self.due.insert((at, deadline));
    }

    pub(super) fn clear(&mut self, at: Timestamp, deadline: Deadline) {
        self.due.remove(&(at, deadline));
    }

    pub(super) fn next(&self) -> Option<Timestamp> {
        self.due.first().map(|(at, _)| *at)
    }

    /// Takes the first deadline that is due.
    pub(super) fn pop(&mut self, now: Timestamp) -> Option<Deadline> {
        if self.next()? > now {
            return None;
        }
        self.due.pop_first().map(|(_, deadline)| deadline)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deadlines_fall_due_in_order_and_cleared_ones_never() {
        let at = Timestamp::from_ms;
        let agent = |name: &str| Deadline::Silence(AgentId::new(name).unwrap());
        let mut timers = Timers::default();
        timers.set(at(30), agent("c"));
        timers.set(at(10), agent("a"));
        timers.set(at(20), agent("b"));
        timers.clear(at(20), agent("b"));
        assert_eq!(timers.next(), Some(at(10)));
        assert_eq!(timers.pop(at(9)), None);
        assert_eq!(timers.pop(at(30)), Some(agent("a")));
        assert_eq!(timers.pop(at(30)), Some(agent("c")));
        assert_eq!(timers.pop(at(99)), None);
    }
}
