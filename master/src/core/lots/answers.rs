//! The answers to frameworks' operations, kept until they are acknowledged.
//!
//! An operation that has an id has a record from the step that takes it in: what became of it, and the uuid of its
//! answer, the same from the beginning. Every record, and every change of one, is durable before an agent or the
//! framework hears of it. So an answer comes again after a lost connection and after a restart of the master, with the
//! uuid that it had; an id is not used for another operation meanwhile, so that whoever repeats a call for want of an
//! answer does nothing twice.
//!
//! Invariants: a record without an answer waits in one place, with its agent's orders or among those adrift while the
//! agent is absent; one with an answer waits nowhere. What is kept of one framework is bounded by
//! [`MAX_OPERATIONS_PER_FRAMEWORK`].
//!
//! The price: two durable writes an operation and one for the acknowledgement.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use ebb_types::limits::MAX_MESSAGE_BYTES;
use ebb_types::{
    AgentId, Event, FrameworkId, OperationId, OperationState, OperationStatus, UpdateUuid,
};

use super::operate::Pending;
use crate::core::check::{Violation, ensure};
use crate::core::input::{ConnectionId, Effect};
use crate::core::limits::MAX_OPERATIONS_PER_FRAMEWORK;
use crate::core::record::{OperationRecord, RegistryWrite};
use crate::core::state::{Absence, Core};

/// Operations whose agents are absent.
pub(super) type Adrift = BTreeMap<AgentId, VecDeque<Pending>>;

impl Core {
    /// Whether an id is that of an operation without an acknowledged answer. Then the framework is told what became of
    /// that one.
    pub(in crate::core) fn is_repeated(
        &mut self,
        framework_id: &FrameworkId,
        id: Option<&OperationId>,
    ) -> bool {
        let framework = self.frameworks.get(framework_id);
        let known = id.filter(|id| framework.is_some_and(|one| one.operations.contains_key(*id)));
        let Some(id) = known else {
            return false;
        };
        self.counters.operations_repeated += 1;
        self.tell_operation(framework_id, id);
        true
    }

    /// Whether another answer of a framework can be kept.
    pub(in crate::core) fn has_room_for_answer(&self, framework_id: &FrameworkId) -> bool {
        let framework = self.frameworks.get(framework_id);
        framework.is_some_and(|one| one.operations.len() < MAX_OPERATIONS_PER_FRAMEWORK)
    }

    /// Keeps an operation from now on.
    pub(super) fn keep_operation(
        &mut self,
        framework_id: &FrameworkId,
        version: u64,
        mut status: OperationStatus,
    ) {
        cut(&mut status.message);
        status.uuid = Some(self.ids.uuid());
        let record = OperationRecord {
            framework_id: framework_id.clone(),
            version,
            status,
        };
        self.emit(Effect::Persist(vec![RegistryWrite::PutOperation(
            record.clone(),
        )]));
        if let Some(framework) = self.frameworks.get_mut(framework_id) {
            let id = record.status.id.clone();
            let before = framework.operations.insert(id, record);
            debug_assert!(before.is_none(), "{before:?} is overwritten");
        }
    }

    /// Answers an operation that nothing came of, unless its id is that of another.
    pub(in crate::core) fn answer_operation(
        &mut self,
        framework_id: &FrameworkId,
        agent_id: Option<&AgentId>,
        (id, state, message): (OperationId, OperationState, String),
    ) {
        if self.is_repeated(framework_id, Some(&id)) {
            return;
        }
        let status = OperationStatus {
            id: id.clone(),
            state,
            message,
            agent_id: agent_id.cloned(),
            uuid: None,
        };
        if self.has_room_for_answer(framework_id) {
            self.keep_operation(framework_id, 0, status);
            self.tell_operation(framework_id, &id);
        } else {
            self.counters.operation_answers_unkept += 1;
            self.tell_event(framework_id, Event::Operation(status));
        }
    }

    /// What became of an operation is known now. Nobody wants to know where its framework is no more.
    pub(super) fn decide_operation(
        &mut self,
        framework_id: &FrameworkId,
        id: &OperationId,
        (state, message): (OperationState, &str),
    ) {
        let framework = self.frameworks.get_mut(framework_id);
        let Some(record) = framework.and_then(|framework| framework.operations.get_mut(id)) else {
            return;
        };
        record.status.state = state;
        message.clone_into(&mut record.status.message);
        let write = RegistryWrite::PutOperation(record.clone());
        self.emit(Effect::Persist(vec![write]));
        self.tell_operation(framework_id, id);
    }

    /// Says what became of an operation that is kept. Where the framework is not connected, it hears when it is.
    fn tell_operation(&mut self, framework_id: &FrameworkId, id: &OperationId) {
        let framework = self.frameworks.get(framework_id);
        let record = framework.and_then(|framework| framework.operations.get(id));
        if let Some(status) = record.map(|record| self.status_of(record)) {
            self.tell_event(framework_id, Event::Operation(status));
        }
    }

    /// What can be said of an operation. What is no answer yet has no uuid.
    fn status_of(&self, record: &OperationRecord) -> OperationStatus {
        let mut status = record.status.clone();
        if status.state.is_final() {
            return status;
        }
        let absent = status.agent_id.as_ref().and_then(|id| self.absent.get(id));
        status.uuid = None;
        status.state = match absent.map(|absent| absent.absence) {
            Some(Absence::Unreachable { .. }) => OperationState::Unreachable,
            Some(Absence::Recovered { .. }) => OperationState::Recovering,
            None => OperationState::Pending,
        };
        status
    }

    /// Sends again the answers that the last scheduler may not have seen.
    pub(in crate::core) fn repeat_answers(&mut self, id: &FrameworkId, connection: ConnectionId) {
        let Some(framework) = self.frameworks.get(id) else {
            return;
        };
        let answers = framework.operations.values();
        for record in answers.filter(|record| record.status.state.is_final()) {
            self.counters.operation_answers_repeated += 1;
            self.effects.push(Effect::ToScheduler {
                connection,
                event: Event::Operation(record.status.clone()),
            });
        }
    }

    /// A framework has an answer: nothing is kept of the operation.
    pub(in crate::core) fn acknowledge_operation(
        &mut self,
        framework_id: &FrameworkId,
        id: &OperationId,
        uuid: UpdateUuid,
    ) {
        let Some(framework) = self.frameworks.get_mut(framework_id) else {
            return;
        };
        let is_answer = |record: &OperationRecord| {
            record.status.state.is_final() && record.status.uuid == Some(uuid)
        };
        if !framework.operations.get(id).is_some_and(is_answer) {
            self.counters.acknowledgements_dropped += 1;
            return;
        }
        framework.operations.remove(id);
        self.counters.operations_acknowledged += 1;
        self.emit(Effect::Persist(vec![RegistryWrite::RemoveOperation {
            framework_id: framework_id.clone(),
            id: id.clone(),
        }]));
    }

    /// Says what became of operations; of all that are kept for none.
    pub(in crate::core) fn reconcile_operations(
        &mut self,
        framework_id: &FrameworkId,
        ids: Vec<OperationId>,
    ) {
        let Some(framework) = self.frameworks.get(framework_id) else {
            return;
        };
        let ids = match ids.is_empty() {
            true => framework.operations.keys().cloned().collect(),
            false => ids,
        };
        for id in ids {
            let framework = self.frameworks.get(framework_id);
            if framework.is_some_and(|framework| framework.operations.contains_key(&id)) {
                self.tell_operation(framework_id, &id);
                continue;
            }
            let unknown = OperationStatus {
                id,
                state: OperationState::Unknown,
                message: String::from(
                    "The master was never told of it, or its answer was acknowledged",
                ),
                agent_id: None,
                uuid: None,
            };
            self.tell_event(framework_id, Event::Operation(unknown));
        }
    }

    /// An agent has become absent with operations of which it had not said that they are done.
    pub(in crate::core) fn set_adrift(&mut self, agent_id: &AgentId, orders: super::LotAccount) {
        let pending = orders.orders.into_pending();
        if !pending.is_empty() {
            self.lots.adrift.insert(agent_id.clone(), pending);
        }
        self.tell_adrift(agent_id);
    }

    /// Tells how the operations of an absent agent stand.
    pub(in crate::core) fn tell_adrift(&mut self, agent_id: &AgentId) {
        let pending = self.lots.adrift.get(agent_id).into_iter().flatten();
        let told: Vec<_> = pending.map(Pending::name).collect();
        for (framework_id, id) in told {
            self.tell_operation(&framework_id, &id);
        }
    }

    /// An absent agent is forgotten, and with it what it was ordered.
    pub(in crate::core) fn forget_adrift(&mut self, agent_id: &AgentId) {
        let pending = self.lots.adrift.remove(agent_id);
        for (framework_id, id) in pending.iter().flatten().map(Pending::name) {
            let answer = (OperationState::Dropped, "The agent is no more");
            self.decide_operation(&framework_id, &id, answer);
        }
    }

    /// Takes in what the registry has kept, after the frameworks and the agents.
    pub(in crate::core) fn restore_operations(&mut self, operations: Vec<OperationRecord>) {
        for record in operations {
            let Some(framework) = self.frameworks.get_mut(&record.framework_id) else {
                continue;
            };
            if let (false, Some(agent_id)) =
                (record.status.state.is_final(), &record.status.agent_id)
            {
                let pending = self.lots.adrift.entry(agent_id.clone()).or_default();
                pending.push_back(Pending::of(&record));
            }
            framework
                .operations
                .insert(record.status.id.clone(), record);
        }
        let is_gone = |agent_id: &&AgentId| !self.absent.contains_key(*agent_id);
        let gone: Vec<AgentId> = self.lots.adrift.keys().filter(is_gone).cloned().collect();
        for agent_id in gone {
            self.forget_adrift(&agent_id);
        }
    }

    pub(in crate::core) fn check_operations(&self) -> Result<(), Violation> {
        let mut waiting = BTreeSet::new();
        let ordered = self.agents.iter();
        let ordered = ordered.map(|(id, agent)| (id, agent.lots.orders.pending()));
        for (agent_id, pending) in ordered.chain(&self.lots.adrift) {
            for one in pending {
                let name = one.name();
                let framework = self.frameworks.get(&name.0);
                let Some(framework) = framework else { continue };
                let waits = framework.operations.get(&name.1).is_some_and(|record| {
                    let is_here = record.status.agent_id.as_ref() == Some(agent_id);
                    is_here && !record.status.state.is_final()
                });
                ensure(waits && waiting.insert(name), || {
                    format!("{one:?} of agent {agent_id} waits for no operation, or twice")
                })?;
            }
        }
        let mut open = 0;
        for (id, framework) in &self.frameworks {
            let operations = framework.operations.values();
            open += operations
                .filter(|record| !record.status.state.is_final())
                .count();
            let kept = framework.operations.len();
            ensure(kept <= MAX_OPERATIONS_PER_FRAMEWORK, || {
                format!("{kept} operations of {id} are kept")
            })?;
        }
        ensure(open == waiting.len(), || {
            format!(
                "{open} operations have no answer, but {} wait for one",
                waiting.len()
            )
        })
    }
}

/// Longer text is cut.
fn cut(message: &mut String) {
    message.truncate(message.floor_char_boundary(MAX_MESSAGE_BYTES));
}
