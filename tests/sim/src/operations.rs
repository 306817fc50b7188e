//! What frameworks are told of their operations, against what became of them.
//!
//! A framework remembers what it has sent, as one with a journal does, and asks for what has no answer. Held to be true:
//! an answer never changes, nor does its uuid; a volume was made where, and only where, the framework is told so; nothing
//! is unknown that was carried out or whose answer was not acknowledged; in the end every operation has an answer, or is
//! unknown and was never carried out.

use std::collections::{BTreeMap, BTreeSet};

use ebb_types::{
    AgentId, Call, Lots, Operation, OperationId, OperationState, OperationStatus, UpdateUuid,
};

use crate::world::World;

/// Chance in a thousand that an answer is not acknowledged, so that it comes again.
const UNACKNOWLEDGED: u64 = 300;

/// An operation that a framework has sent.
#[derive(Debug, Default)]
struct Sent {
    /// The volume that it makes; no other operation makes one of that id.
    volume: Option<String>,
    answer: Option<(OperationState, UpdateUuid)>,
    acknowledged: bool,
    /// How it stood when it was asked for last, and where.
    last: Option<(OperationState, Option<AgentId>)>,
}

impl Sent {
    fn is_unknown(&self) -> bool {
        matches!(self.last, Some((OperationState::Unknown, _)))
    }
}

/// The operations of all frameworks, by the framework's number.
#[derive(Debug, Default)]
pub(crate) struct Operations {
    sent: BTreeMap<(usize, OperationId), Sent>,
    /// Volumes that were ever on a machine.
    made: BTreeSet<String>,
    /// Answers to offers so far: no operation is called like another.
    answered: u64,
    done: u64,
    /// Answers that came again.
    repeated: u64,
}

fn volumes(lots: &Lots) -> impl Iterator<Item = &String> {
    let volumes = lots.iter().filter_map(|(key, _)| key.volume());
    volumes.map(|volume| &volume.id)
}

impl Operations {
    /// Names the operations of one answer to an offer.
    pub(crate) const fn next(&mut self) -> u64 {
        self.answered += 1;
        self.answered
    }

    /// How many were done.
    pub(crate) const fn done(&self) -> u64 {
        self.done
    }

    /// How many answers came again.
    pub(crate) const fn repeated(&self) -> u64 {
        self.repeated
    }
}

impl World {
    /// A framework sends operations.
    pub(crate) fn note_operations(&mut self, number: usize, operations: &[Operation]) {
        for operation in operations {
            let Operation::Convert {
                id: Some(id), lots, ..
            } = operation
            else {
                continue;
            };
            let sent = Sent {
                // One that ends a volume names it, too.
                volume: volumes(lots).find(|id| self.is_new(id)).cloned(),
                ..Sent::default()
            };
            self.operations.sent.insert((number, id.clone()), sent);
        }
    }

    fn is_new(&self, volume: &String) -> bool {
        let of_others = self.operations.sent.values();
        let mut of_others = of_others.filter_map(|sent| sent.volume.as_ref());
        !self.operations.made.contains(volume) && !of_others.any(|other| other == volume)
    }

    /// An agent has made these of its lots, durably.
    pub(crate) fn note_made(&mut self, dynamic: &Lots) {
        for volume in volumes(dynamic) {
            if !self.operations.made.insert(volume.clone()) {
                continue;
            }
            let refused = self.operations.sent.iter().find(|(_, sent)| {
                let nothing = sent
                    .answer
                    .is_some_and(|(state, _)| state != OperationState::Finished);
                sent.volume.as_ref() == Some(volume) && (nothing || sent.is_unknown())
            });
            if let Some(refused) = refused.map(|refused| format!("{refused:?}")) {
                self.fail(format!("volume {volume} is made, but {refused}"));
            }
        }
    }

    /// A framework asks for its operations that have no answer which it has acknowledged.
    pub(crate) fn ask_operations(&mut self, number: usize) {
        let sent = self.operations.sent.iter();
        let open = sent
            .filter(|((of, _), sent)| *of == number && !sent.acknowledged && !sent.is_unknown());
        let ids: Vec<OperationId> = open.map(|((_, id), _)| id.clone()).collect();
        if !ids.is_empty() {
            self.call(number, Call::ReconcileOperations { ids });
        }
    }

    /// A framework hears of an operation.
    pub(crate) fn note_operation_answer(&mut self, number: usize, status: OperationStatus) {
        let key = (number, status.id.clone());
        let Some(sent) = self.operations.sent.get_mut(&key) else {
            self.fail(format!("framework {number} never sent {status:?}"));
            return;
        };
        sent.last = Some((status.state, status.agent_id.clone()));
        let is_made = (sent.volume.as_ref()).map(|id| self.operations.made.contains(id));
        let answer = status.uuid.map(|uuid| (status.state, uuid));
        let agrees = match status.state {
            OperationState::Finished => is_made != Some(false),
            OperationState::Error | OperationState::Dropped => is_made != Some(true),
            OperationState::Unknown => match sent.answer {
                Some(_) => sent.acknowledged,
                None => is_made != Some(true),
            },
            _ => sent.answer.is_none(),
        };
        let is_named = answer.is_some() == status.state.is_final();
        let is_same = sent.answer.is_none() || answer.is_none() || sent.answer == answer;
        if !agrees || !is_named || !is_same {
            let what = format!("of {sent:?} framework {number} is told {status:?}");
            self.fail(what);
            return;
        }
        let Some((state, uuid)) = answer else { return };
        match sent.answer.replace((state, uuid)) {
            Some(_) => self.operations.repeated += 1,
            None => self.operations.done += u64::from(state == OperationState::Finished),
        }
        if !self.faulty() || !self.rng.chance(UNACKNOWLEDGED) {
            if let Some(sent) = self.operations.sent.get_mut(&key) {
                sent.acknowledged = true;
            }
            self.call(number, Call::AcknowledgeOperation { id: key.1, uuid });
        }
    }

    /// Operations of which a framework does not know what became. `is_gone` says of an agent that it never comes back.
    pub(crate) fn open_operations(&self, is_gone: impl Fn(&AgentId) -> bool) -> Vec<String> {
        let lost = |sent: &Sent| match &sent.last {
            Some((OperationState::Unreachable, Some(agent_id))) => is_gone(agent_id),
            _ => false,
        };
        let open = self.operations.sent.iter().filter(|((number, _), sent)| {
            let is_settled = sent.answer.is_some() || sent.is_unknown() || lost(sent);
            !self.frameworks[*number].removed && !is_settled
        });
        open.map(|((number, id), sent)| {
            format!("framework {number} knows not what became of {id}: {sent:?}")
        })
        .collect()
    }
}
