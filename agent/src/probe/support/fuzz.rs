//! Mounts and capabilities as no kernel tells them: nothing panics, and nothing is made up.

use proptest::prelude::*;

use super::*;
use crate::fuzzing::{any_bytes, timed};

const MOUNTINFO: &str = "22 27 0:21 / /proc rw,relatime - proc proc rw\n31 24 0:28 / /sys/fs/cgroup/memory rw shared:9 - cgroup cgroup rw,memory\n32 24 0:29 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw,nsdelegate\n40 24 8:1 / /mnt/with\\040space\\134 rw - ext4 /dev/sda1 rw\n";
const STATUS: &str = "Name:\tebb-agent\nCapInh:\t0000000000000000\nCapEff:\t000001ffffffffff\nCapBnd:\t000001ffffffffff\n";

/// Puts the escapes in again.
fn escape(path: &str) -> String {
    let escaped = path.chars().map(|c| match c {
        ' ' => "\\040".to_owned(),
        '\t' => "\\011".to_owned(),
        '\n' => "\\012".to_owned(),
        '\\' => "\\134".to_owned(),
        c => c.to_string(),
    });
    escaped.collect()
}

proptest! {
    #[test]
    fn mounts_of_nonsense(text in any_bytes(MOUNTINFO)) {
        let text = String::from_utf8_lossy(&text);
        let (mounts, soon) = timed(|| parse_mounts(&text));
        prop_assert!(soon);
        prop_assert!(mounts.len() <= text.lines().count());
        for mount in &mounts {
            prop_assert!(text.contains(&mount.kind) && text.contains(&mount.options));
            let at = mount.at.to_str().unwrap();
            prop_assert!(at.len() <= text.len());
        }
    }

    #[test]
    fn what_was_escaped_comes_back(path in "[ -~\t\n\u{e0}-\u{ff}]{0,40}") {
        prop_assert_eq!(unescape(&escape(&path)), path);
    }

    #[test]
    fn capabilities_of_nonsense(status in any_bytes(STATUS), lockdown in any::<String>()) {
        let status = String::from_utf8_lossy(&status);
        let (may, soon) = timed(|| may_load(&status, &lockdown));
        prop_assert!(soon);
        // What cannot be read allows nothing.
        prop_assert!(may.is_err() || status.contains("CapEff:"));
    }
}

#[test]
fn texts_that_were_not_spoilt_are_understood() {
    let mounts = parse_mounts(MOUNTINFO);
    assert_eq!(mounts.len(), 4);
    assert_eq!(mounts[3].at, PathBuf::from("/mnt/with space\\"));
    assert_eq!(may_load(STATUS, "[none] integrity"), Ok(()));
}
