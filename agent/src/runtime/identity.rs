//! Telling a process from a later one with the same number: number, start time and boot together are unique.

use std::fs;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::process::{Pid, PidfdFlags, pidfd_open};

use super::error::RuntimeError;
use super::spec::ProcessIdentity;

/// The boot of this machine.
fn boot_id() -> Result<String, RuntimeError> {
    let path = Path::new("/proc/sys/kernel/random/boot_id");
    fs::read_to_string(path)
        .map(|id| id.trim().to_owned())
        .map_err(RuntimeError::file("read", path))
}

/// The start time in a `/proc/<pid>/stat` line: the 22nd field, counted after the name, which may hold anything.
fn start_ticks(stat: &str) -> Option<u64> {
    stat.rsplit_once(')')?
        .1
        .split_ascii_whitespace()
        .nth(19)?
        .parse()
        .ok()
}

fn start_ticks_of(pid: u32) -> Option<u64> {
    // The name in it may hold bytes that are no text.
    let stat = fs::read(format!("/proc/{pid}/stat")).ok()?;
    start_ticks(&String::from_utf8_lossy(&stat))
}

/// This process.
pub(super) fn own() -> Result<ProcessIdentity, RuntimeError> {
    let pid = std::process::id();
    let path = format!("/proc/{pid}/stat");
    let missing =
        || RuntimeError::file("read", Path::new(&path))(std::io::ErrorKind::InvalidData.into());
    Ok(ProcessIdentity {
        pid,
        start_ticks: start_ticks_of(pid).ok_or_else(missing)?,
        boot_id: boot_id()?,
    })
}

/// A pidfd of exactly that process, if it lives.
///
/// The pidfd is opened before the start time is read: from then on it means one process, and if the start time that
/// is read afterwards is the recorded one, that process is the recorded one.
pub(super) fn open(identity: &ProcessIdentity) -> Result<Option<OwnedFd>, RuntimeError> {
    if boot_id()? != identity.boot_id {
        return Ok(None);
    }
    let Some(pid) = i32::try_from(identity.pid).ok().and_then(Pid::from_raw) else {
        return Ok(None);
    };
    match pidfd_open(pid, PidfdFlags::empty()) {
        Ok(pidfd) => {
            Ok((start_ticks_of(identity.pid) == Some(identity.start_ticks)).then_some(pidfd))
        }
        // EINVAL: the number now belongs to a thread.
        Err(rustix::io::Errno::SRCH | rustix::io::Errno::INVAL) => Ok(None),
        Err(e) => Err(RuntimeError::file(
            "watch",
            Path::new(&format!("/proc/{}", identity.pid)),
        )(e.into())),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::fuzzing::{Numbers, any_bytes, timed};

    const STAT: &str = "4711 (a (b) c) S 1 2 3 0 -1 4 5 6 7 8 9 10 11 12 20 0 1 0 987654 0 0 18446744073709551615\n";

    proptest! {
        #[test]
        fn a_start_time_stands_in_the_text_or_is_none(text in any_bytes(STAT)) {
            let text = String::from_utf8_lossy(&text);
            let (ticks, soon) = timed(|| start_ticks(&text));
            prop_assert!(soon);
            prop_assert!(Numbers::of(text.replace(')', ") ").as_bytes()).hold(ticks, 1));
        }
    }

    #[test]
    fn the_start_time_is_found_behind_any_name() {
        let tail = "S 1 2 3 0 -1 4 5 6 7 8 9 10 11 12 20 0 1 0 4711 0 0";
        assert_eq!(start_ticks(&format!("7 (sh) {tail}")), Some(4711));
        assert_eq!(start_ticks(&format!("7 (a) b (c) {tail}")), Some(4711));
        assert_eq!(start_ticks("7 sh"), None);
    }

    #[test]
    fn only_the_same_process_of_the_same_boot_is_opened() {
        let own = own().expect("this process");
        assert!(open(&own).expect("an answer").is_some());
        let later = ProcessIdentity {
            start_ticks: own.start_ticks + 1,
            ..own.clone()
        };
        assert!(open(&later).expect("an answer").is_none());
        let rebooted = ProcessIdentity {
            boot_id: "another".into(),
            ..own.clone()
        };
        assert!(open(&rebooted).expect("an answer").is_none());
        for pid in [0, u32::MAX, 4_194_305] {
            let none = ProcessIdentity { pid, ..own.clone() };
            assert!(open(&none).expect("an answer").is_none());
        }
    }
}
