//! Answers to operations reach the scheduler until it has taken them, and operations without an answer are asked for.

use ebb_types::{Filters, Lots, Operation, OperationId, OperationKind, OperationState};

use super::*;

fn answer(name: &str, state: OperationState, count: Option<u64>) -> Event {
    Event::Operation(OperationStatus {
        id: id(name),
        state,
        message: String::new(),
        agent_id: None,
        uuid: count.map(|count| UpdateUuid::of(Incarnation(1), count)),
    })
}

fn operate(name: &str) -> Then {
    let name: OperationId = id(name);
    Box::new(move |calls| {
        let operation = Operation::Convert {
            id: Some(name),
            kind: OperationKind::Reserve,
            lots: Lots::NONE,
        };
        calls.operate(vec![offer().id], vec![operation], Filters::default());
    })
}

/// The operations that are asked for.
fn asked(calls: &[Call]) -> Vec<String> {
    let ids = calls.iter().filter_map(|call| match call {
        Call::ReconcileOperations { ids } => Some(ids.iter().map(ToString::to_string)),
        _ => None,
    });
    ids.flatten().collect()
}

#[test]
fn an_answer_is_acknowledged_once_it_was_taken_and_comes_no_second_time() {
    let mut bench = Bench::subscribed();
    let done = answer("o", OperationState::Finished, Some(1));
    bench.engine_mut().refuse_updates = true;
    assert!(bench.event(done.clone()).is_empty());
    assert_eq!(bench.counters().failed_callbacks, 1);
    bench.engine_mut().refuse_updates = false;
    bench.then(operate("next"));
    let calls = sent(&bench.event(done.clone()));
    assert!(
        matches!(&calls[..], [Call::AcknowledgeOperation { id, .. }, Call::Accept { .. }] if id.as_str() == "o"),
        "{calls:?}"
    );
    let calls = sent(&bench.event(done));
    assert!(
        matches!(calls[..], [Call::AcknowledgeOperation { .. }]),
        "{calls:?}"
    );
    assert_eq!(bench.heard(), ["o OPERATION_FINISHED"]);
    assert_eq!(bench.counters().duplicates, 1);
    // How an operation stands is no answer.
    let pending = answer("o", OperationState::Pending, None);
    assert!(bench.event(pending).is_empty());
}

#[test]
fn an_explicit_acknowledgement_of_an_answer_is_left_to_the_framework() {
    let mut bench = Bench::new(&["m"], |config| {
        config.acknowledgement = Acknowledgement::Explicit;
    });
    bench.subscribe();
    let done = answer("o", OperationState::Finished, Some(1));
    assert!(bench.event(done.clone()).is_empty());
    let Event::Operation(status) = done.clone() else {
        unreachable!("it is an answer");
    };
    let out = bench.wake(Box::new(move |calls| calls.acknowledge_operation(&status)));
    assert!(matches!(
        sent(&out)[..],
        [Call::AcknowledgeOperation { .. }]
    ));
    assert_eq!(sent(&bench.event(done)).len(), 1, "and acknowledged again");
    assert_eq!(bench.heard()[1..], ["o OPERATION_FINISHED", "woken"]);
}

#[test]
fn operations_without_an_answer_are_asked_for_after_a_new_subscription() {
    let mut bench = Bench::subscribed();
    for name in ["answered", "lost", "slow"] {
        bench.wake(operate(name));
    }
    bench.event(answer("answered", OperationState::Finished, Some(1)));
    bench.broken();
    assert_eq!(asked(&bench.subscribe()), ["lost", "slow"]);
    bench.event(answer("lost", OperationState::Unknown, None));
    bench.event(answer("slow", OperationState::Recovering, None));
    bench.broken();
    assert_eq!(asked(&bench.subscribe()), ["slow"]);
    bench.event(answer("slow", OperationState::Dropped, Some(2)));
    bench.broken();
    assert!(asked(&bench.subscribe()).is_empty());
}

#[test]
fn an_operation_that_cannot_be_sent_is_said_to_be_dropped() {
    let mut bench = Bench::subscribed();
    bench.then(operate("o"));
    let out = bench.broken();
    assert!(sent(&out).is_empty());
    assert_eq!(
        bench.heard(),
        ["disconnected: it broke", "o OPERATION_DROPPED"]
    );
    assert_eq!(bench.counters().dropped_operations, 1);
    assert!(asked(&bench.subscribe()).is_empty());
}
