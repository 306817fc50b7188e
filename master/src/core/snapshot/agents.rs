//! Agents as the snapshot knows them, and the quick way to their refusals in a round.

use std::cmp::Ordering;
use std::fmt;
use std::iter::Peekable;

use ebb_types::{AgentId, Quantities};
use imbl::OrdMap;
use imbl::shared_ptr::DefaultSharedPtr;

use super::refusals::Refusals;

/// What an agent has and lends, and who refused it.
#[derive(Clone, Debug, Default)]
pub(super) struct AgentEntry {
    pub(super) total: Quantities,
    pub(super) oversubscribed: Quantities,
    pub(super) refusals: Refusals,
}

/// How far a [`RefusalReader`] steps before it looks up instead.
const STEPS_BEFORE_LOOKUP: usize = 4;

/// Finds the refusals of agents' resources: by stepping along where they are asked for in order and
/// close together, as in a round over all agents, else by look-up.
pub(crate) struct RefusalReader<'a> {
    agents: &'a OrdMap<AgentId, AgentEntry>,
    upcoming: Peekable<AgentIter<'a>>,
}

type AgentIter<'a> = imbl::ordmap::Iter<'a, AgentId, AgentEntry, DefaultSharedPtr>;

impl<'a> RefusalReader<'a> {
    pub(super) fn new(agents: &'a OrdMap<AgentId, AgentEntry>) -> Self {
        Self {
            agents,
            upcoming: agents.iter().peekable(),
        }
    }

    /// The refusals of an agent's resources; none where there are none.
    pub(crate) fn of(&mut self, agent_id: &AgentId) -> Option<&'a Refusals> {
        self.entry(agent_id)
            .map(|entry| &entry.refusals)
            .filter(|refusals| !refusals.is_empty())
    }

    fn entry(&mut self, agent_id: &AgentId) -> Option<&'a AgentEntry> {
        for _ in 0..STEPS_BEFORE_LOOKUP {
            let Some((head, entry)) = self.upcoming.peek() else {
                break;
            };
            match (*head).cmp(agent_id) {
                Ordering::Less => self.upcoming.next(),
                Ordering::Equal => return Some(entry),
                Ordering::Greater => break,
            };
        }
        self.agents.get(agent_id)
    }
}

impl fmt::Debug for RefusalReader<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RefusalReader").finish_non_exhaustive()
    }
}
