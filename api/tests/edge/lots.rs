//! Lots, and the operations on them.

use ebb_api::Stored;
use ebb_api::proto;
use ebb_types::limits::{MAX_LOTS, MAX_RANGES};
use ebb_types::{Lots, ResourceKind, VolumeMode};
use prost::Message as _;

use super::refusal;

fn named(name: &str, amount: i64) -> proto::Resource {
    proto::Resource {
        name: name.to_owned(),
        amount,
        ..proto::Resource::default()
    }
}

fn read(lots: Vec<proto::Resource>) -> Result<Lots, String> {
    Lots::try_from(proto::Lots { lots }).map_err(|error| error.to_string())
}

fn reservation(role: &str) -> proto::Reservation {
    proto::Reservation {
        role: role.to_owned(),
        dynamic: true,
        principal: String::from("p"),
        labels: vec![proto::Label {
            key: String::from("a"),
            value: String::from("b"),
        }],
    }
}

fn volume() -> proto::Resource {
    proto::Resource {
        reservations: vec![reservation("eng"), reservation("eng/ci")],
        disk: Some(proto::Disk {
            source: Some(proto::disk::Source::Mount(String::from("/mnt"))),
            volume: Some(proto::Volume {
                id: String::from("v"),
                principal: String::from("p"),
                container_path: String::from("data"),
                read_only: true,
            }),
        }),
        shared: true,
        ..named("disk", 8)
    }
}

fn ports(ranges: &[(u64, u64)]) -> proto::Resource {
    let ranges = ranges.iter().map(|(begin, end)| proto::Range {
        begin: *begin,
        end: *end,
    });
    proto::Resource {
        ranges: ranges.collect(),
        ..named("ports", 0)
    }
}

#[test]
fn lots_cross_the_wire_and_come_back_alike() {
    let mut zones = named("zones", 0);
    zones.set = vec![String::from("a"), String::from("b")];
    let all = vec![
        volume(),
        ports(&[(1, 2), (9, 9)]),
        zones,
        named("gpus", 2000),
    ];
    let lots = read(all).expect("good");
    assert_eq!(lots.count(), 4);
    let again = Lots::from_bytes(&lots.to_bytes()).expect("good");
    assert_eq!(again, lots);
    assert_eq!(again.to_string(), lots.to_string());
    // Path and mode do not count in a comparison, and come along all the same.
    let kept = again.iter().find_map(|(key, _)| key.volume().cloned());
    let kept = kept.expect("a volume");
    assert_eq!(
        (kept.container_path.as_str(), kept.mode),
        ("data", VolumeMode::ReadOnly)
    );
    let (key, _) = again.iter().find(|(key, _)| key.shared).expect("shared");
    assert_eq!(
        key.reservations[1].labels,
        [(String::from("a"), String::from("b"))]
    );
}

#[test]
fn lots_that_break_a_rule_are_refused() {
    let with = |change: fn(&mut proto::Resource)| {
        let mut lot = volume();
        change(&mut lot);
        lot
    };
    let bad = [
        (named("cpus", 1), "which is no lot"),
        (named("gpus", 1500), "whole"),
        (named("x", -1), "amount"),
        (ports(&[(2, 1)]), "ends before it begins"),
        (with(|lot| lot.revocable = true), "revocable"),
        (with(|lot| lot.name = String::from("mem")), "only disk"),
        (with(|lot| lot.reservations.clear()), "reserve"),
        (
            with(|lot| lot.reservations[1].role = String::from("ops")),
            "below",
        ),
        (
            with(|lot| lot.reservations[0].role = String::from("*")),
            "role *",
        ),
        (with(|lot| lot.set = vec![String::from("x")]), "one of"),
        (
            with(|lot| lot.reservations = vec![lot.reservations[0].clone(); 9]),
            "at most",
        ),
    ];
    for (lot, word) in bad {
        let error = read(vec![lot]).expect_err(word);
        assert!(error.contains(word), "{error} says nothing of {word}");
    }
    let many = (0..=MAX_LOTS as i64 + 10).map(|at| named(&format!("x{at}"), 1));
    assert!(read(many.collect()).is_err());
    let long: Vec<_> = (0..=MAX_RANGES as u64).map(|at| (2 * at, 2 * at)).collect();
    assert!(read(vec![ports(&long)]).is_err());
    assert!(read(vec![ports(&[(1, 4)]), ports(&[(4, 5)])]).is_err());
}

#[test]
fn plain_amounts_stay_plain_where_no_lots_belong() {
    let quota = proto::Quota {
        guarantee: vec![volume()],
        limits: Vec::new(),
        lot_limits: None,
        ..proto::Quota::default()
    };
    assert!(ebb_types::Quota::try_from(quota).is_err());
    let guaranteed = |name: &str| {
        ebb_types::Quota::try_from(proto::Quota {
            guarantee: vec![named(name, 7)],
            ..proto::Quota::default()
        })
    };
    for kind in ResourceKind::ALL {
        let quota = guaranteed(kind.name()).expect("a quota");
        assert_eq!(quota.guarantee.get(kind), 7);
    }
    let error = refusal(guaranteed("gpus"));
    let kinds = "only cpus, mem, disk, disk_bandwidth and network_bandwidth can";
    assert!(error.contains(kinds), "{error}");
    let bytes = proto::Lots {
        lots: vec![volume()],
    }
    .encode_to_vec();
    for end in 0..bytes.len() {
        // Whatever a peer sends, it is read or refused.
        let _ = Lots::from_bytes(&bytes[..end]);
    }
}

#[test]
fn what_becomes_of_an_operation_crosses_the_wire_and_the_registry() {
    use ebb_types::{Call, Event, OperationId, OperationState, OperationStatus, UpdateUuid};
    let id = OperationId::new("o").unwrap();
    let uuid = UpdateUuid([5; 16]);
    for state in OperationState::ALL {
        let status = OperationStatus {
            id: id.clone(),
            state,
            message: "why".to_owned(),
            agent_id: ebb_types::AgentId::new("a").ok(),
            uuid: state.is_final().then_some(uuid),
        };
        assert_eq!(
            OperationStatus::from_bytes(&status.to_bytes()),
            Ok(status.clone())
        );
        let event = Event::Operation(status);
        let wire = proto::SchedulerEvent::from(event.clone());
        assert_eq!(Event::try_from(wire), Ok(event));
    }
    for call in [
        Call::AcknowledgeOperation {
            id: id.clone(),
            uuid,
        },
        Call::ReconcileOperations { ids: vec![id] },
        Call::ReconcileOperations { ids: Vec::new() },
    ] {
        let wire = proto::SchedulerCall::from(call.clone());
        assert_eq!(Call::try_from(wire), Ok(call));
    }
    let short = proto::scheduler_call::AcknowledgeOperation {
        id: "o".to_owned(),
        uuid: vec![1; 15],
    };
    let many = proto::scheduler_call::ReconcileOperations {
        ids: vec!["o".to_owned(); ebb_types::limits::MAX_RECONCILE_OPERATIONS + 1],
    };
    use proto::scheduler_call::Call as Wire;
    for (call, word) in [
        (Wire::AcknowledgeOperation(short), "exactly 16"),
        (Wire::ReconcileOperations(many), "reconcile_operations.ids"),
    ] {
        let wire = proto::SchedulerCall { call: Some(call) };
        let said = refusal(Call::try_from(wire));
        assert!(said.contains(word), "{said}");
    }
}

#[test]
fn an_operation_that_breaks_a_rule_fails_alone() {
    use ebb_types::{Call, Operation};
    let convert = |lots| proto::Operation {
        id: String::from("o"),
        operation: Some(proto::operation::Operation::Create(
            proto::operation::Convert { lots },
        )),
    };
    let accept = proto::scheduler_call::Accept {
        offer_ids: vec![String::from("x")],
        operations: vec![convert(vec![volume()]), convert(vec![named("gpus", 1)])],
        filters: None,
    };
    let call = proto::SchedulerCall {
        call: Some(proto::scheduler_call::Call::Accept(accept)),
    };
    let read = Call::try_from(call).expect("readable");
    let Call::Accept { operations, .. } = &read else {
        panic!("{read:?}");
    };
    assert!(
        matches!(&operations[0], Operation::Convert { id: Some(id), .. } if id.as_str() == "o")
    );
    assert!(
        matches!(&operations[1], Operation::Malformed { id: Some(_), rule } if rule.contains("whole"))
    );
    let one = match read {
        Call::Accept {
            offer_ids,
            operations,
            filters,
        } => Call::Accept {
            offer_ids,
            operations: operations[..1].to_vec(),
            filters,
        },
        other => other,
    };
    let again = Call::try_from(proto::SchedulerCall::from(one.clone())).expect("readable");
    assert_eq!(again, one);
}
