//! Blobs that no kernel has: nothing panics, nothing is read outside, everything ends soon.
//!
//! All access to a blob goes through slices that are asked, never indexed: a read outside would be a panic, which is
//! what is looked for here.

use std::sync::OnceLock;

use proptest::prelude::*;

use super::super::support::KernelFields;
use super::tests::{Blob, example};
use super::*;
use crate::fuzzing::timed;

/// The running kernel's blob; a small one where it has none.
fn real() -> &'static [u8] {
    static REAL: OnceLock<Vec<u8>> = OnceLock::new();
    REAL.get_or_init(|| std::fs::read("/sys/kernel/btf/vmlinux").unwrap_or_else(|_| example()))
}

/// Everything that is ever asked of a blob.
fn ask(blob: &[u8]) -> bool {
    let (_, soon) = timed(|| {
        let Ok(btf) = Btf::parse(blob) else { return };
        // Which of the two it says does not matter here.
        let _ = KernelFields::from_btf(&btf);
        for (of, path) in [
            ("outer", "in.second"),
            ("outer", "deep.second"),
            ("outer", "absent"),
        ] {
            let _ = btf.offset(of, path);
        }
        let _ = btf.tracepoint_takes_pointer("sched_switch", usize::MAX / PARAMETER_BYTES - 2);
    });
    soon
}

/// Overwrites words of a blob: `places` in thousandths of its length, or in its header.
fn overwritten(blob: &[u8], changes: &[(bool, u32, u32)]) -> Vec<u8> {
    let mut blob = blob.to_vec();
    for (in_header, place, word) in changes {
        let room = if *in_header { HEADER_BYTES } else { blob.len() };
        let at = *place as usize % room.max(1);
        for (byte, new) in blob.iter_mut().skip(at).zip(word.to_ne_bytes()) {
            *byte = new;
        }
    }
    blob
}

fn changes() -> impl Strategy<Value = Vec<(bool, u32, u32)>> {
    let word = prop_oneof![any::<u32>(), 0..64u32, Just(u32::MAX), Just(0x0400_ffff)];
    prop::collection::vec((prop::bool::weighted(0.3), any::<u32>(), word), 1..24)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn a_small_blob_spoilt_anywhere(changes in changes(), cut in 0..400usize) {
        let mut blob = overwritten(&example(), &changes);
        blob.truncate(blob.len().saturating_sub(cut / 20));
        prop_assert!(ask(&blob));
    }

    #[test]
    fn bytes_of_any_kind(tail in prop::collection::vec(any::<u8>(), 0..512), begins in any::<bool>()) {
        let mut blob = if begins { example()[..HEADER_BYTES].to_vec() } else { Vec::new() };
        blob.extend(tail);
        prop_assert!(ask(&blob));
    }
}

proptest! {
    // Each copies and reads some megabytes.
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn the_running_kernels_blob_spoilt_anywhere(changes in changes(), keep in 1..=1000usize) {
        let mut blob = overwritten(real(), &changes);
        if keep < 500 {
            blob.truncate(blob.len() / 1000 * keep);
        }
        prop_assert!(ask(&blob));
    }
}

#[test]
fn the_blob_that_was_not_spoilt_is_understood() {
    // Else the properties above might hold because nothing is ever read.
    let btf = Btf::parse(real()).unwrap();
    let known = btf
        .offset("task_struct", "pid")
        .or_else(|| btf.offset("outer", "in.second"));
    assert!(known.is_some());
}

#[test]
fn types_that_hold_themselves_end() {
    let mut blob = Blob::new();
    let within: Vec<_> = (0..200).map(|_| ("", 1, 0)).collect();
    blob.composite(KIND_STRUCT, "task_struct", &within);
    let blob = blob.build();
    let (found, soon) = timed(|| Btf::parse(&blob).unwrap().offset("task_struct", "pid"));
    assert!(
        soon,
        "200 ways at each of {MAX_NESTING} levels are not all gone"
    );
    assert_eq!(found, None);
}
