//! What is written is read, and nothing else.

use proptest::prelude::*;

use ebb_types::{ClassKey, ClassUse, FrameworkId, Timestamp};

use super::*;

fn empty() -> Past {
    Past {
        lending: estimator::Past {
            kinds: Vec::new(),
            lasted: Vec::new(),
        },
        classes: Vec::new(),
    }
}

/// A class of which all numbers differ.
fn class() -> impl Strategy<Value = ClassUse> {
    let uses = prop::collection::vec((any::<u64>(), 1..u64::MAX / 64), 0..20);
    let limit = prop::option::of(any::<u64>());
    ("[a-z]{1,8}", any::<u64>(), limit, uses).prop_map(|(name, number, limit, uses)| {
        let key = ClassKey {
            framework_id: FrameworkId::new(&name).expect("a good id"),
            class: name,
        };
        let mut seen = ClassUse::new(key, Timestamp::from_ms(number));
        let n = number / 2;
        (seen.tasks, seen.seen_ms, seen.cpu_seen_ms) = (n, n + 1, n + 2);
        (seen.throttled_ms, seen.idle_ms) = (n + 3, n + 4);
        (seen.asked_cpu_milli, seen.asked_mem_bytes) = (n + 5, n + 6);
        seen.cpu_limit_milli = limit;
        for (day, more) in seen.days.iter_mut().zip(10..) {
            (day.cpu_milli, day.mem_bytes) = (n + more, n + 2 * more);
            (day.ooms, day.oom_limit_bytes) = (n + 3 * more, n + 4 * more);
            (day.finished, day.life_ms) = (n + 5 * more, n + 6 * more);
        }
        for (value, weight) in uses {
            seen.cpu.add(value, weight);
            seen.mem.add(value / 3, weight);
        }
        seen
    })
}

fn past() -> impl Strategy<Value = Past> {
    let task = (
        "[a-z]{1,8}",
        prop::array::uniform5(any::<u64>()),
        any::<u16>(),
    )
        .prop_map(
            |(id, [limit, born, last, seen_bins, remembered], share)| KeptTask {
                key: ContainerId::new(&id).expect("a good id"),
                limit,
                born,
                last,
                seen_bins,
                remembered,
                shares: vec![share; BINS],
            },
        );
    let kind = (any::<u64>(), prop::collection::vec(task, 0..3)).prop_map(|(bin, tasks)| Kept {
        bin,
        keep: bin / 2,
        mistakes: vec![bin; MISTAKES],
        tasks,
    });
    let lasted = prop::collection::vec(any::<u64>(), 0..=KEPT_COUNTS);
    let lending = (prop::collection::vec(kind, 0..4), lasted)
        .prop_map(|(kinds, lasted)| estimator::Past { kinds, lasted });
    (lending, prop::collection::vec(class(), 0..3))
        .prop_map(|(lending, classes)| Past { lending, classes })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn what_is_written_is_read(past in past()) {
        prop_assert_eq!(decode(&encode(&past)), Ok(past));
    }

    #[test]
    fn what_is_damaged_or_cut_off_is_refused(past in past(), at in any::<prop::sample::Index>(), bit in 0u8..8) {
        let mut bytes = encode(&past);
        let at = at.index(bytes.len());
        prop_assert!(decode(&bytes[..at]).is_err());
        bytes[at] ^= 1 << bit;
        prop_assert!(decode(&bytes).is_err());
    }
}

/// A file with one class, as its bytes, with a payload that was written by somebody else.
fn forged(change: impl FnOnce(&mut Vec<u8>)) -> Result<Past, &'static str> {
    let key = ClassKey {
        framework_id: FrameworkId::new("f").expect("a good id"),
        class: "web".to_owned(),
    };
    let mut seen = ClassUse::new(key, Timestamp::from_ms(1));
    seen.mem.add(5, 7);
    let classes = vec![seen];
    let mut bytes = encode(&Past { classes, ..empty() });
    change(&mut bytes);
    let sum = crc32(&bytes[HEADER_BYTES..]);
    bytes[HEADER_BYTES - 4..HEADER_BYTES].copy_from_slice(&sum.to_le_bytes());
    decode(&bytes)
}

#[test]
fn classes_that_cannot_be_are_refused() {
    assert!(forged(|_| {}).is_ok());
    let count = HEADER_BYTES + 16;
    let refused = forged(|bytes| bytes[count + 2] = 1);
    assert_eq!(refused, Err("names more than there can be"));
    let class = count + 8 + 8 + 1;
    let refused = forged(|bytes| {
        bytes[class] = 0;
        bytes.drain(class + 8..class + 11);
    });
    assert_eq!(refused, Err("has a class that cannot be"));
    let refused = forged(|bytes| {
        // The weight of the only bucket.
        let end = bytes.len();
        bytes[end - 8..].fill(0);
    });
    assert_eq!(refused, Err("has a histogram that cannot be"));
}

#[test]
fn a_newer_version_is_refused_as_such() {
    let mut bytes = encode(&empty());
    bytes[MAGIC.len()] = VERSION + 1;
    assert_eq!(decode(&bytes), Err("was written by another version"));
}

#[test]
fn a_file_is_replaced_whole_and_a_missing_one_is_no_fault() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("lending");
    assert!(matches!(read(&path), Ok(None)));
    let keeper = Keeper::start(path.clone(), Arc::new(Metrics::new())).expect("a thread");
    keeper.keep(empty());
    let last = Past {
        lending: estimator::Past {
            kinds: vec![Kept {
                bin: 7,
                keep: 9,
                mistakes: vec![1; MISTAKES],
                tasks: Vec::new(),
            }],
            lasted: vec![3; KEPT_COUNTS],
        },
        ..empty()
    };
    keeper.finish(Some(last.clone()));
    assert_eq!(read(&path).expect("a good file"), Some(last));
}
