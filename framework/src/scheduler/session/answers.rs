//! What a session does with operations: those that were sent and have no answer yet are asked for after every new
//! subscription; an answer with a uuid is acknowledged once the scheduler has taken it, and again whenever it is repeated.

use ebb_types::{Call, Event, Operation, OperationId, OperationState, OperationStatus};

use super::{Delivery, NO_MASTER, Output, Session};

/// The id of an operation, where it has one.
const fn named(operation: &Operation) -> Option<&OperationId> {
    match operation {
        Operation::Convert { id, .. } | Operation::Malformed { id, .. } => id.as_ref(),
        Operation::Launch { .. } => None,
    }
}

impl Session {
    /// An operation is on its way.
    pub(super) fn sent(&mut self, operation: &Operation) {
        if named(operation).is_some_and(|id| !self.operations.know(id)) {
            self.counters.untracked_operations += 1;
        }
    }

    pub(super) fn answer(&mut self, status: OperationStatus, out: &mut Vec<Output>) -> Delivery {
        let key = status.uuid.map(|uuid| (status.id.clone(), uuid));
        if key.is_some_and(|key| self.taken_answers.contains(&key)) {
            self.counters.duplicates += 1;
            self.acknowledge_answer(&status, out);
            return Delivery::Nothing;
        }
        Delivery::Event(Event::Operation(status))
    }

    /// The scheduler has taken an answer to an operation: acknowledges it.
    pub(in crate::scheduler) fn taken_answer(
        &mut self,
        status: &OperationStatus,
        out: &mut Vec<Output>,
    ) {
        self.operations.hear(&status.id, status.state);
        if let Some(uuid) = status.uuid {
            self.taken_answers.insert((status.id.clone(), uuid));
            self.acknowledge_answer(status, out);
        }
    }

    fn acknowledge_answer(&self, status: &OperationStatus, out: &mut Vec<Output>) {
        if let (Some(uuid), true) = (status.uuid, self.is_subscribed()) {
            let id = status.id.clone();
            out.push(Output::Send(Call::AcknowledgeOperation { id, uuid }));
        }
    }

    /// What is to be said of operations that could not be sent.
    pub(super) fn drop_operations(&mut self, operations: &[Operation]) -> Vec<Event> {
        let dropped: Vec<Event> = operations
            .iter()
            .filter_map(named)
            .map(|id| {
                Event::Operation(OperationStatus {
                    id: id.clone(),
                    state: OperationState::Dropped,
                    message: NO_MASTER.to_owned(),
                    agent_id: None,
                    uuid: None,
                })
            })
            .collect();
        self.counters.dropped_operations += dropped.len() as u64;
        dropped
    }
}
