//! What agents have seen of classes of tasks: kept as told, added up when somebody reads.
//!
//! **Problem.** What a class needs shows on all machines together, and percentiles cannot be added up as they come: an
//! agent tells all that it has seen, again and again, and each time in place of what it had told before.
//!
//! **Way.** Per agent a list by class of what it told last; the core and its copies follow the same steps and share the
//! entries. What an agent told stays while it is known, also while it is away. When it is forgotten, or room is needed, it
//! is added to what is kept of agents that are gone. If one of those should come back its past counts twice, fading.
//!
//! **Price.** Nothing for agents that tell nothing. Else about 1.5 KiB a class and agent, 11 KiB at most, in at most
//! [`MAX_CLASSES_KEPT`] entries in all; what passes the bounds is dropped and counted.
//! Adding all of them up takes a reader a quarter of a second.

use std::collections::BTreeMap;
use std::sync::Arc;

use ebb_types::limits::{MAX_ADVISED_CLASSES, MAX_CLASSES_PER_AGENT};
use ebb_types::{AdviceFilter, AgentId, ClassKey, ClassUse, Timestamp};

use super::limits::MAX_CLASSES_KEPT;
use super::news::News;
use super::state::Core;

/// What one agent has told.
#[derive(Clone, Debug)]
struct Told {
    /// Last.
    at: Timestamp,
    /// By class, each once.
    classes: Vec<Arc<ClassUse>>,
}

/// What all agents have told.
#[derive(Clone, Debug, Default)]
pub struct ClassBook {
    agents: BTreeMap<AgentId, Arc<Told>>,
    /// What those had told that are gone.
    gone: Arc<BTreeMap<ClassKey, Arc<ClassUse>>>,
    /// Entries of all agents.
    held: usize,
}

impl ClassBook {
    /// An agent tells, in place of what it had told of the same classes. Gives how many entries were lost.
    pub(crate) fn take(
        &mut self,
        agent_id: &AgentId,
        at: Timestamp,
        classes: Vec<Arc<ClassUse>>,
    ) -> u64 {
        let mut lost = 0;
        for seen in classes {
            lost += self.put(agent_id, at, seen);
        }
        lost
    }

    fn put(&mut self, agent_id: &AgentId, at: Timestamp, seen: Arc<ClassUse>) -> u64 {
        let place = |told: &Told| told.classes.binary_search_by(|one| one.key.cmp(&seen.key));
        let told = self.agents.get_mut(agent_id);
        if let Some(told) = told {
            let told = Arc::make_mut(told);
            told.at = at;
            if let Ok(place) = place(told) {
                told.classes[place] = seen;
                return 0;
            }
            if told.classes.len() >= MAX_CLASSES_PER_AGENT {
                told.drop_longest_idle();
                told.insert(seen);
                return 1;
            }
        }
        let lost = self.make_room(agent_id);
        if self.held >= MAX_CLASSES_KEPT {
            return lost + 1;
        }
        self.held += 1;
        let told = self.agents.entry(agent_id.clone()).or_insert_with(|| {
            Arc::new(Told {
                at,
                classes: Vec::new(),
            })
        });
        Arc::make_mut(told).insert(seen);
        lost
    }

    /// Where there is none left, of the other agents the one that was silent for longest counts as gone.
    fn make_room(&mut self, except: &AgentId) -> u64 {
        if self.held < MAX_CLASSES_KEPT {
            return 0;
        }
        let others = self.agents.iter().filter(|(id, _)| *id != except);
        let silent = others.min_by_key(|(_, told)| told.at);
        let silent = silent.map(|(id, _)| id.clone());
        silent.map_or(0, |id| self.forget(&id))
    }

    /// An agent is gone for good. Gives how many entries were lost.
    pub(crate) fn forget(&mut self, agent_id: &AgentId) -> u64 {
        let Some(told) = self.agents.remove(agent_id) else {
            return 0;
        };
        self.held -= told.classes.len();
        let gone = Arc::make_mut(&mut self.gone);
        let mut lost = 0;
        for seen in &told.classes {
            let mut seen = ClassUse::clone(seen);
            seen.running = 0;
            match gone.get_mut(&seen.key) {
                Some(sum) => Arc::make_mut(sum).merge(seen),
                None => {
                    lost += u64::from(make_room_among(gone, seen.at));
                    gone.insert(seen.key.clone(), Arc::new(seen));
                }
            }
        }
        lost
    }

    /// Entries of agents and of those that are gone.
    pub(crate) fn len(&self) -> usize {
        self.held + self.gone.len()
    }

    /// What was seen of each class that is meant, by all agents together, as of then. Tasks run where `is_there` says so
    /// of the agent. Classes of which nothing counts any more are left out.
    pub(crate) fn sums(
        &self,
        at: Timestamp,
        filter: &AdviceFilter,
        is_there: impl Fn(&AgentId) -> bool,
    ) -> Vec<ClassUse> {
        let mut sums: BTreeMap<&ClassKey, ClassUse> = BTreeMap::new();
        let mut add = |seen: ClassUse, key| match sums.get_mut(key) {
            Some(sum) => sum.merge(seen),
            None => {
                sums.insert(key, seen);
            }
        };
        for (id, told) in &self.agents {
            let is_there = is_there(id);
            for seen in told.classes.iter().filter(|seen| filter.admits(&seen.key)) {
                let mut one = ClassUse::clone(seen);
                one.running *= u64::from(is_there);
                add(one, &seen.key);
            }
        }
        for (key, seen) in self.gone.iter().filter(|(key, _)| filter.admits(key)) {
            add(ClassUse::clone(seen), key);
        }
        let sums = sums.into_values().map(|mut sum| {
            sum.advance(at);
            sum
        });
        sums.filter(|sum| !sum.is_spent()).collect()
    }
}

impl Told {
    fn insert(&mut self, seen: Arc<ClassUse>) {
        let place = self.classes.partition_point(|one| one.key < seen.key);
        self.classes.insert(place, seen);
    }

    /// It has dropped one itself, or it could not tell of so many.
    fn drop_longest_idle(&mut self) {
        let classes = self.classes.iter().enumerate();
        let longest = classes.min_by_key(|(_, seen)| last_used_ms(seen));
        if let Some((place, _)) = longest {
            self.classes.remove(place);
        }
    }
}

fn last_used_ms(seen: &ClassUse) -> (bool, u64) {
    (
        seen.running > 0,
        seen.at.as_ms().saturating_sub(seen.idle_ms),
    )
}

/// Makes room for one more: without those of which nothing counts any more, else without the one that was idle for longest.
/// Whether anything was lost.
fn make_room_among(gone: &mut BTreeMap<ClassKey, Arc<ClassUse>>, now: Timestamp) -> bool {
    if gone.len() < MAX_ADVISED_CLASSES {
        return false;
    }
    gone.retain(|_, seen| {
        Arc::make_mut(seen).advance(now);
        !seen.is_spent()
    });
    if gone.len() < MAX_ADVISED_CLASSES {
        return false;
    }
    let longest = gone.values().min_by_key(|seen| last_used_ms(seen));
    let longest = longest.map(|seen| seen.key.clone());
    longest.is_some_and(|key| gone.remove(&key).is_some())
}

impl Core {
    /// An agent tells what it has seen of classes, up to now.
    pub(super) fn on_classes(&mut self, agent_id: &AgentId, classes: Vec<ClassUse>) {
        let now = self.now;
        let by_clock = classes.into_iter().map(|seen| Arc::new(seen.by_clock(now)));
        let classes: Vec<_> = by_clock.collect();
        self.note(|| News::Classes(agent_id.clone(), now, classes.clone()));
        self.counters.classes_dropped += self.classes.take(agent_id, now, classes);
    }
}

#[cfg(test)]
mod tests;
