//! Lots against an obvious model, the rules that they must keep, and how people write them.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::text::WrittenResources;
use super::*;
use crate::ids::Role;
use crate::quantities::ResourceKind;

/// One unit of a lot: the obvious model is how often each stands in a bag.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Unit {
    One,
    Number(u64),
    Item(String),
}

type Model = BTreeMap<(LotKey, Unit), u64>;

fn model(lots: &Lots) -> Model {
    let mut model = Model::new();
    for (key, value) in lots.iter() {
        let units: Vec<(Unit, u64)> = match value {
            LotValue::Scalar(amount) => vec![(Unit::One, *amount)],
            LotValue::Ranges(ranges) => ranges
                .iter()
                .flat_map(|(begin, end)| begin..=end)
                .map(|number| (Unit::Number(number), 1))
                .collect(),
            LotValue::Set(items) => {
                let items = items.iter().cloned();
                items.map(|item| (Unit::Item(item), 1)).collect()
            }
        };
        model.extend(
            units
                .into_iter()
                .map(|(unit, count)| ((key.clone(), unit), count)),
        );
    }
    model
}

fn reserved(role: &str) -> Reservation {
    Reservation {
        role: Role::new(role).expect("a role"),
        kind: ReservationKind::Dynamic,
        principal: String::from("p"),
        labels: Vec::new(),
    }
}

fn volume(id: &str) -> LotKey {
    LotKey {
        reservations: vec![reserved("eng")],
        disk: Some(Box::new(Disk {
            source: None,
            volume: Some(Volume {
                id: id.to_owned(),
                principal: String::new(),
                container_path: String::from("data"),
                mode: VolumeMode::ReadWrite,
            }),
        })),
        ..LotKey::named("disk")
    }
}

fn lot() -> impl Strategy<Value = (LotKey, LotValue)> {
    let amount = || (1..5u64).prop_map(LotValue::Scalar);
    let stack = prop_oneof![
        Just(vec![]),
        Just(vec![reserved("eng")]),
        Just(vec![reserved("eng"), reserved("eng/ci")]),
    ];
    let with = |name: &'static str| {
        move |(reservations, value)| {
            let key = LotKey {
                reservations,
                ..LotKey::named(name)
            };
            (key, value)
        }
    };
    let numbers = prop::collection::btree_set(0..12u64, 1..6);
    let ranges = numbers.prop_map(|set| {
        let ranges = Ranges::new(set.into_iter().map(|number| (number, number)));
        LotValue::Ranges(ranges.expect("few"))
    });
    let items = prop::collection::btree_set("[a-d]", 1..4).prop_map(LotValue::Set);
    prop_oneof![
        (Just(vec![reserved("eng")]), amount()).prop_map(with("cpus")),
        (stack.clone(), amount()).prop_map(with("bugs")),
        (stack.clone(), ranges).prop_map(with("ports")),
        (stack, items).prop_map(with("zones")),
    ]
}

fn lots() -> impl Strategy<Value = Lots> {
    prop::collection::vec(lot(), 0..5).prop_map(|list| {
        let mut all = Lots::NONE;
        for one in list {
            let one = Lots::new([one]).expect("good");
            all = all.checked_add(&one).unwrap_or(all);
        }
        all
    })
}

proptest! {
    #[test]
    fn bags_are_multisets_of_units(a in lots(), b in lots()) {
        let (x, y) = (model(&a), model(&b));
        let contains = y.iter().all(|(unit, count)| x.get(unit).is_some_and(|mine| mine >= count));
        prop_assert_eq!(a.contains(&b), contains);
        let mut difference = x.clone();
        for (unit, count) in &y {
            if let Some(mine) = difference.get_mut(unit) {
                *mine = mine.saturating_sub(*count);
            }
        }
        difference.retain(|_, count| *count > 0);
        prop_assert_eq!(model(&a.saturating_sub(&b)), difference.clone());
        prop_assert_eq!(a.checked_sub(&b).map(|left| model(&left)), contains.then_some(difference));
        let twice = y.iter().any(|((_, unit), _)| *unit != Unit::One)
            && y.keys().any(|unit| unit.1 != Unit::One && x.contains_key(unit));
        let mut sum = x;
        for (unit, count) in y {
            *sum.entry(unit).or_default() += count;
        }
        prop_assert_eq!(a.checked_add(&b).map(|sum| model(&sum)), (!twice).then_some(sum));
        prop_assert_eq!(a.is_none(), model(&a).is_empty());
    }

    #[test]
    fn what_is_written_is_read_again(a in lots()) {
        let written: WrittenResources = match a.is_none() {
            true => WrittenResources::default(),
            false => a.to_string().parse().expect("readable"),
        };
        prop_assert_eq!(written.lots.to_string(), a.to_string());
    }
}

#[test]
fn a_shared_lot_is_free_as_long_as_it_exists() {
    let key = LotKey {
        shared: true,
        ..volume("v")
    };
    let total = Lots::new([(key.clone(), LotValue::Scalar(8))]).expect("good");
    let two = total.checked_add(&total).expect("two users");
    assert_eq!(two.get(&key), Some(&LotValue::Scalar(16)));
    assert_eq!(total.free(&two), total);
    assert_eq!(two.checked_sub(&total), Some(total.clone()));
    assert!(total.charged().is_zero() && !total.quantities().is_zero());
    let own = Lots::new([(volume("w"), LotValue::Scalar(8))]).expect("good");
    assert!(own.free(&own).is_none());
}

#[test]
fn a_task_may_see_a_volume_elsewhere_than_its_maker() {
    let mut mine = volume("v");
    if let Some(volume) = mine.disk.as_mut().and_then(|disk| disk.volume.as_mut()) {
        volume.container_path = String::from("elsewhere");
        volume.mode = VolumeMode::ReadOnly;
    }
    let total = Lots::new([(volume("v"), LotValue::Scalar(8))]).expect("good");
    let used = Lots::new([(mine, LotValue::Scalar(8))]).expect("good");
    assert!(total.contains(&used) && total.free(&used).is_none());
    let shown: Vec<_> = used.iter().map(|(key, _)| key.to_string()).collect();
    assert_eq!(shown, ["disk(eng)[v:elsewhere:ro]"]);
}

#[test]
fn lots_that_break_a_rule_are_refused_with_it() {
    let bad = |key: LotKey, value: LotValue, word: &str| {
        let error = Lots::new([(key, value)]).expect_err(word).to_string();
        assert!(error.contains(word), "{error} says nothing of {word}");
    };
    let one = || LotValue::Scalar(1000);
    bad(LotKey::named("cpus"), one(), "no lot");
    bad(LotKey::named("a b"), one(), "white space");
    bad(LotKey::named(""), one(), "1 to");
    bad(LotKey::named("gpus"), LotValue::Scalar(1500), "whole");
    bad(LotKey::named("x"), LotValue::Scalar(u64::MAX), "counted");
    let on = |stack: &[&str]| LotKey {
        reservations: stack.iter().map(|role| reserved(role)).collect(),
        ..LotKey::named("cpus")
    };
    bad(on(&["*"]), one(), "role *");
    bad(on(&["eng", "ops"]), one(), "below");
    bad(on(&["eng", "eng"]), one(), "below");
    let ports = LotValue::Ranges(Ranges::new([(1, 2)]).expect("one"));
    bad(on(&["eng"]), ports, "amount");
    let unreserved = LotKey {
        reservations: Vec::new(),
        ..volume("v")
    };
    bad(unreserved, one(), "reserve");
    let path = |path: &str| {
        let mut key = volume("v");
        if let Some(volume) = key.disk.as_mut().and_then(|disk| disk.volume.as_mut()) {
            path.clone_into(&mut volume.container_path);
        }
        key
    };
    for bad_path in ["", "/etc", "../x", "a/../b", "a//b", "./a", "a\0"] {
        bad(path(bad_path), one(), "container path");
    }
    let shared = LotKey {
        shared: true,
        ..on(&["eng"])
    };
    bad(shared, one(), "shared");
}

#[test]
fn texts_of_people_are_read() {
    let text = "cpus:2.5; mem:1.5GiB ;ports:[31000-32000, 8080];gpus:2;zones:{a, b};bugs:0.25;\
                cpus(eng):1;mem(eng,eng/ci):1048576;disk[mount:/mnt/a]:10GiB;disk(db)[path:/d]:1TiB";
    let read: WrittenResources = text.parse().expect("good");
    assert_eq!(read.plain, Quantities::cpus_mem(2500, 3 << 29));
    assert_eq!(
        read.lots.to_string(),
        "bugs:0.250;cpus(eng):1.000;disk[mount:/mnt/a]:10737418240;disk(db)[path:/d]:1099511627776;\
         gpus:2;mem(eng,eng/ci):1048576;ports:[8080-8080,31000-32000];zones:{a,b}"
    );
    for bad in [
        "ports",
        "ports:",
        "ports:[2-1]",
        "ports:[a-b]",
        "gpus:1.5",
        "x:-1",
        "x:1.2345",
        "cpus(:1",
        "cpus(*):1",
        "disk[tape:/x]:1GiB",
        "disk[path:x]:1GiB",
        "mem:1gib",
    ] {
        assert!(bad.parse::<WrittenResources>().is_err(), "{bad} was taken");
    }
    assert_eq!("".parse(), Ok(WrittenResources::default()));
}

#[test]
fn bandwidth_is_read_in_bytes_and_in_bits() {
    let text = "disk_bandwidth:100MB/s;network_bandwidth:1Gbit;network_bandwidth(eng):100Mbit/s;\
                disk_bandwidth(eng):1048576";
    let read: WrittenResources = text.parse().expect("good");
    assert_eq!(
        read.plain,
        Quantities::ZERO
            .with(ResourceKind::DiskBandwidth, 100_000_000)
            .with(ResourceKind::NetworkBandwidth, 125_000_000)
    );
    assert_eq!(
        read.lots.to_string(),
        "disk_bandwidth(eng):1048576;network_bandwidth(eng):12500000"
    );
    assert_eq!(
        read.lots.to_string().parse(),
        Ok(WrittenResources {
            plain: Quantities::ZERO,
            lots: read.lots
        })
    );
    for (bad, says) in [
        ("network_bandwidth(eng):100bit", "multiple of 8 bits"),
        ("network_bandwidth(eng):1gbit", "no unit of bandwidth"),
        ("mem(eng):1Gbit", "write name:value"),
    ] {
        let error = bad.parse::<WrittenResources>().expect_err(bad).to_string();
        assert!(error.contains(bad) && error.contains(says), "{error}");
    }
}

#[test]
fn lots_cost_a_pointer_where_there_are_none() {
    assert_eq!(size_of::<Lots>(), size_of::<usize>());
}

#[test]
fn a_bag_is_cut_lot_by_lot_and_what_is_whole_stays_so() {
    let all = "gpus:3;gpus(eng):2;licences:2.5;ports:[1-3,8-9];zones:{a,b,c}";
    let all = all.parse::<WrittenResources>().unwrap().lots;
    let cut = |most: u64| all.cut(|_, amount| amount.min(most)).to_string();
    assert_eq!(cut(u64::MAX), all.to_string());
    let expected = "gpus:2;gpus(eng):2;licences:2.500;ports:[1-2];zones:{a,b}";
    assert_eq!(cut(2_999), expected);
    assert_eq!(
        cut(4_000),
        "gpus:3;gpus(eng):2;licences:2.500;ports:[1-3,8-8];zones:{a,b,c}"
    );
    assert_eq!(cut(999), "licences:0.999");
    assert_eq!(cut(0), "nothing");
}
