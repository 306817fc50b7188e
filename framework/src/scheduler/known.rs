//! What a session remembers of tasks: those that are not known to have ended, when each is asked for,
//! and which statuses the scheduler has taken; and of operations those that have no answer.
//!
//! # Invariant
//! A task stands in `due` at exactly the time that its `ask_at` names.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use ebb_types::limits::MAX_RECONCILE_TASKS;
use ebb_types::{
    AgentId, OperationId, OperationState, ReconcileTask, TaskId, Timestamp, UpdateUuid,
};

use super::config::RECONCILE_CAP_MS;

/// Most tasks that a session follows; more are launched, but not asked for by name.
pub const MAX_KNOWN_TASKS: usize = 100_000;
/// Most acknowledged statuses of tasks, and as many of operations, that a session remembers for its filter of duplicates.
pub const MAX_TAKEN_UPDATES: usize = 16_384;
/// Most operations without an answer that a session follows; more are sent, but not asked for. A master keeps no more
/// of one framework.
pub const MAX_KNOWN_OPERATIONS: usize = 1_000;

/// A task that is not known to have ended.
#[derive(Clone, Debug, Default)]
pub(super) struct Known {
    pub(super) agent_id: Option<AgentId>,
    /// When it is asked for by name unless something is heard of it.
    pub(super) ask_at: Option<Timestamp>,
    ask_wait_ms: u64,
    /// It is to be killed, with that grace.
    pub(super) kill: Option<Option<u64>>,
    pub(super) ended: bool,
    /// Whether a status of its own was heard.
    pub(super) heard: bool,
    /// Since when answers say that it has ended, without saying how.
    pub(super) held_since: Option<Timestamp>,
}

/// The tasks that are not known to have ended.
#[derive(Clone, Debug, Default)]
pub(super) struct KnownTasks {
    tasks: BTreeMap<TaskId, Known>,
    due: BTreeSet<(Timestamp, TaskId)>,
}

impl KnownTasks {
    pub(super) fn ids(&self) -> impl Iterator<Item = &TaskId> {
        self.tasks.keys()
    }

    pub(super) fn get(&self, task_id: &TaskId) -> Option<&Known> {
        self.tasks.get(task_id)
    }

    pub(super) fn get_mut(&mut self, task_id: &TaskId) -> Option<&mut Known> {
        self.tasks.get_mut(task_id)
    }

    /// Follows a task; false where there are too many.
    pub(super) fn know(&mut self, task_id: TaskId, agent_id: Option<AgentId>) -> bool {
        let room = self.tasks.len() < MAX_KNOWN_TASKS || self.tasks.contains_key(&task_id);
        if room {
            self.tasks.entry(task_id).or_insert(Known {
                agent_id,
                ..Known::default()
            });
        }
        room
    }

    pub(super) fn forget(&mut self, task_id: &TaskId) {
        self.unplan(task_id);
        self.tasks.remove(task_id);
    }

    /// Asks for a task after a wait, unless something is heard of it.
    pub(super) fn plan_question(&mut self, task_id: &TaskId, now: Timestamp, wait_ms: u64) {
        self.unplan(task_id);
        if let Some(known) = self.tasks.get_mut(task_id) {
            let at = now.plus_ms(wait_ms);
            known.ask_at = Some(at);
            known.ask_wait_ms = wait_ms;
            self.due.insert((at, task_id.clone()));
        }
    }

    pub(super) fn unplan(&mut self, task_id: &TaskId) {
        if let Some(known) = self.tasks.get_mut(task_id)
            && let Some(at) = known.ask_at.take()
        {
            self.due.remove(&(at, task_id.clone()));
        }
    }

    /// When the first task is to be asked for.
    pub(super) fn first_due(&self) -> Option<Timestamp> {
        self.due.first().map(|(at, _)| *at)
    }

    /// The tasks that are to be asked for now, each planned anew after twice its wait.
    pub(super) fn take_due(&mut self, now: Timestamp) -> Vec<ReconcileTask> {
        let due: Vec<TaskId> = self
            .due
            .iter()
            .take_while(|(at, _)| *at <= now)
            .take(MAX_RECONCILE_TASKS)
            .map(|(_, task_id)| task_id.clone())
            .collect();
        due.into_iter()
            .filter_map(|task_id| {
                let known = self.tasks.get(&task_id)?;
                let wait_ms = known
                    .ask_wait_ms
                    .saturating_mul(2)
                    .clamp(1, RECONCILE_CAP_MS);
                let agent_id = known.agent_id.clone();
                self.plan_question(&task_id, now, wait_ms);
                Some(ReconcileTask { task_id, agent_id })
            })
            .collect()
    }
}

/// Operations of which it is not known what became.
#[derive(Clone, Debug, Default)]
pub(super) struct KnownOperations(BTreeSet<OperationId>);

impl KnownOperations {
    /// Follows an operation; false where there are too many.
    pub(super) fn know(&mut self, id: &OperationId) -> bool {
        let room = self.0.len() < MAX_KNOWN_OPERATIONS || self.0.contains(id);
        if room {
            self.0.insert(id.clone());
        }
        room
    }

    /// An answer was taken; nobody answers an operation that the master does not know.
    pub(super) fn hear(&mut self, id: &OperationId, state: OperationState) {
        if state.is_final() || state == OperationState::Unknown {
            self.0.remove(id);
        }
    }

    pub(super) fn forget(&mut self, id: &OperationId) {
        self.0.remove(id);
    }

    pub(super) fn ids(&self) -> Vec<OperationId> {
        self.0.iter().cloned().collect()
    }
}

/// The statuses that the scheduler has taken, the oldest forgotten first.
#[derive(Clone, Debug)]
pub(super) struct Taken<Id> {
    taken: BTreeSet<(Id, UpdateUuid)>,
    order: VecDeque<(Id, UpdateUuid)>,
}

impl<Id> Default for Taken<Id> {
    fn default() -> Self {
        Self {
            taken: BTreeSet::new(),
            order: VecDeque::new(),
        }
    }
}

impl<Id: Ord + Clone> Taken<Id> {
    pub(super) fn contains(&self, key: &(Id, UpdateUuid)) -> bool {
        self.taken.contains(key)
    }

    pub(super) fn insert(&mut self, key: (Id, UpdateUuid)) {
        if self.taken.insert(key.clone()) {
            self.order.push_back(key);
        }
        if self.order.len() > MAX_TAKEN_UPDATES
            && let Some(oldest) = self.order.pop_front()
        {
            self.taken.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use ebb_types::Incarnation;

    use super::*;

    fn id(number: usize) -> TaskId {
        TaskId::new(format!("t{number}")).expect("valid")
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut taken = Taken::default();
        let key = |number: usize| (id(0), UpdateUuid::of(Incarnation(1), number as u64));
        for number in 0..=MAX_TAKEN_UPDATES {
            taken.insert(key(number));
            taken.insert(key(number));
        }
        assert_eq!(
            (taken.taken.len(), taken.order.len()),
            (MAX_TAKEN_UPDATES, MAX_TAKEN_UPDATES)
        );
        assert!(!taken.contains(&key(0)) && taken.contains(&key(MAX_TAKEN_UPDATES)));

        let mut tasks = KnownTasks::default();
        assert!((0..MAX_KNOWN_TASKS).all(|number| tasks.know(id(number), None)));
        assert!(!tasks.know(id(MAX_KNOWN_TASKS), None), "one too many");
        assert!(tasks.know(id(0), None), "it is followed already");
        tasks.forget(&id(0));
        assert!(tasks.know(id(MAX_KNOWN_TASKS), None));

        let operation = |number: usize| OperationId::new(format!("o{number}")).expect("valid");
        let mut operations = KnownOperations::default();
        assert!((0..MAX_KNOWN_OPERATIONS).all(|number| operations.know(&operation(number))));
        assert!(!operations.know(&operation(MAX_KNOWN_OPERATIONS)));
        operations.hear(&operation(0), OperationState::Pending);
        assert!(!operations.know(&operation(MAX_KNOWN_OPERATIONS)));
        operations.hear(&operation(0), OperationState::Finished);
        assert!(operations.know(&operation(MAX_KNOWN_OPERATIONS)));
    }

    #[test]
    fn a_task_is_due_once_however_often_it_is_planned() {
        let mut tasks = KnownTasks::default();
        tasks.know(id(1), None);
        let now = Timestamp::from_ms(10);
        for wait_ms in [50, 20, 30] {
            tasks.plan_question(&id(1), now, wait_ms);
        }
        assert_eq!(tasks.first_due(), Some(now.plus_ms(30)));
        assert!(tasks.take_due(now.plus_ms(29)).is_empty());
        assert_eq!(tasks.take_due(now.plus_ms(30)).len(), 1);
        assert_eq!(tasks.first_due(), Some(now.plus_ms(30 + 60)));
        tasks.unplan(&id(1));
        assert_eq!(tasks.first_due(), None);
    }
}
