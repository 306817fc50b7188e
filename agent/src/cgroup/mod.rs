//! Container cgroups: who may use how much, who yields to whom, and how a whole container is frozen or killed.
//!
//! **Problem.** Hosts come in three shapes: cgroup v2 alone, v1 controllers alone, or v1 controllers with a v2 mount
//! beside them (hybrid). The eBPF probes name cgroup *v2* ids on all of them, so wherever v2 is mounted every
//! container has a v2 cgroup, and on hybrid hosts one in each v1 controller besides.
//!
//! **Layout.** `<base>/<agent instance>/<container id>` in every mount that is used; revocable containers stand under
//! `<base>-revocable/…` instead. That second root is what makes "lowest claim" true on the whole machine: `cpu.idle`
//! orders a group only against its *siblings*, so an idle group deep inside `<base>` would still compete at normal
//! weight with everything outside it. The executors (which must survive the killing of their container) stand in
//! `<base>/<agent instance>/+executors`; `+` cannot begin a container id.
//!
//! **Units.** `cpu_milli` thousandths of a CPU, `*_bytes` bytes, `*_bytes_per_sec` bytes a second.
//!
//! **Invariants.** Nothing outside the two roots is ever written, with one exception that v2 demands: the controllers
//! are switched on in `cgroup.subtree_control` of the mount. What is asked as a limit is held or refused, never
//! dropped: a limit without its controller is [`CgroupError::NoController`].
//!
//! **Not used here.** `cgroups-rs`: it takes a host for either v1 or v2 and cannot drive both at once, knows neither
//! `cpu.idle`, `cgroup.kill`, `cgroup.events` nor ids, and its 0.5 brings a D-Bus client with an executor of its own
//! into the agent. What remains is writing numbers into files, which [`files`] does with the path in each error. The
//! v1 `cpuset` and `devices` controllers are not joined: nothing sets them, and each one joined costs every launch.

use std::fmt;
use std::path::Path;
use std::time::Duration;

mod block;
mod container;
mod error;
mod files;
mod hybrid;
mod model;
mod mounts;
mod root;
mod v1;
mod v2;

pub use block::BlockDevice;
pub use container::Container;
pub use error::CgroupError;
pub use model::{ContainerPaths, Controller, DiskLimits, JoinPaths, Limits};
pub use mounts::{Hierarchy, Mounts};
pub use root::{CgroupRoot, EXECUTORS, Listed};

/// The least CPU quota that the kernel takes, in microseconds a period.
pub const CPU_QUOTA_MIN_US: u64 = 1_000;
/// The period of CPU quotas, in microseconds. The kernel's default: shorter ones cost timer interrupts.
pub const CPU_PERIOD_US: u64 = 100_000;
/// How long [`Container::destroy`] waits for killed processes to be gone.
pub const DESTROY_WAIT: Duration = Duration::from_secs(10);
/// The longest container id: a directory name.
pub const CONTAINER_ID_MAX_BYTES: usize = 255;

/// What can be done to one container, whichever hierarchy holds it: implemented by v1, v2 and hybrid.
pub(crate) trait Control: fmt::Debug + Send + Sync {
    /// Makes the directories.
    fn make(&self) -> Result<(), CgroupError>;
    /// Writes the limits that this hierarchy's controllers can hold, as far as they differ from those before; a fresh
    /// container has none.
    fn apply(&self, limits: &Limits, before: Option<&Limits>) -> Result<(), CgroupError>;
    /// Sets or lifts the CPU quota.
    fn set_cpu_quota(&self, cpu_milli: Option<u64>) -> Result<(), CgroupError>;
    /// Sets or lifts the amount of memory above which it is reclaimed, in bytes.
    fn set_memory_kept(&self, bytes: Option<u64>) -> Result<(), CgroupError>;
    /// Stops (or continues) every process.
    fn set_frozen(&self, frozen: bool) -> Result<(), CgroupError>;
    /// Waits until freezing or thawing is complete; false when `timeout` has passed.
    fn wait_frozen(&self, frozen: bool, timeout: Duration) -> Result<bool, CgroupError>;
    /// Sends SIGKILL to every process, those in nested cgroups too.
    fn kill_all(&self) -> Result<(), CgroupError>;
    /// The processes, those in nested cgroups too.
    fn procs(&self) -> Result<Vec<u32>, CgroupError>;
    /// Whether a live process is left.
    fn is_populated(&self) -> Result<bool, CgroupError>;
    /// Waits until no live process is left; false when `timeout` has passed.
    fn wait_empty(&self, timeout: Duration) -> Result<bool, CgroupError>;
    /// The v2 directory.
    fn v2_dir(&self) -> Option<&Path>;
    /// Where its figures are.
    fn paths(&self) -> ContainerPaths;
    /// Removes the directories, nested ones too.
    fn remove(&self) -> Result<(), CgroupError>;
}

/// Where there is no memory controller nothing can be reclaimed, and nothing need be lifted.
fn no_memory_to_keep(bytes: Option<u64>) -> Result<(), CgroupError> {
    match bytes {
        None => Ok(()),
        Some(_) => Err(CgroupError::NoController {
            controller: Controller::Memory,
            asked: "reclaiming memory",
        }),
    }
}

/// The quota in microseconds a period for so much CPU.
fn quota_us(cpu_milli: u64) -> u64 {
    (cpu_milli.saturating_mul(CPU_PERIOD_US) / 1_000).max(CPU_QUOTA_MIN_US)
}

/// The number of OOM kills in a memory cgroup and those nested in it: `oom_kill` of `memory.oom_control` (v1, counts
/// the cgroup alone) or `memory.events` (v2, counts the subtree).
pub fn oom_kills(memory_dir: &Path) -> Result<u64, CgroupError> {
    let events = memory_dir.join("memory.events");
    if events.exists() {
        return files::read_key(&events, "oom_kill").map(Option::unwrap_or_default);
    }
    let mut total = 0;
    for dir in files::subtree(memory_dir)? {
        total += files::read_key(&dir.join("memory.oom_control"), "oom_kill")?.unwrap_or_default();
    }
    Ok(total)
}

/// Checks that `name` can be a directory of ours.
pub(crate) fn check_name(name: &str) -> Result<(), CgroupError> {
    let rule = if name.is_empty() {
        "it is empty"
    } else if name.len() > CONTAINER_ID_MAX_BYTES {
        "it is longer than 255 bytes"
    } else if name == "." || name == ".." {
        "it names a folder above"
    } else if name.starts_with('+') {
        "names that begin with `+` are the agent's own"
    } else if name
        .chars()
        .any(|c| matches!(c, '/' | '\\') || c.is_control() || c.is_whitespace())
    {
        "it holds a slash, a blank or a control character"
    } else {
        return Ok(());
    };
    let name = name.chars().take(CONTAINER_ID_MAX_BYTES).collect();
    Err(CgroupError::BadName { name, rule })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quota_is_never_below_what_the_kernel_takes() {
        assert_eq!(quota_us(0), CPU_QUOTA_MIN_US);
        assert_eq!(quota_us(10), 1_000);
        assert_eq!(quota_us(250), 25_000);
        assert_eq!(quota_us(4_000), 400_000);
        assert_eq!(quota_us(u64::MAX), u64::MAX / 1_000);
    }

    #[test]
    fn names_that_leave_the_root_are_refused() {
        for bad in [
            "",
            ".",
            "..",
            "a/b",
            "a\0b",
            "a\nb",
            "+executors",
            "a b",
            "\\",
        ] {
            assert!(check_name(bad).is_err(), "{bad:?} was taken");
        }
        assert!(check_name(&"x".repeat(256)).is_err());
        for good in [
            "a",
            "a-b_c.d",
            "0f6c1c2e-7d4b-4b62-8f3e-000000000001",
            &"x".repeat(255),
        ] {
            check_name(good).expect("a good name");
        }
    }

    #[test]
    fn oom_kills_are_summed_over_nested_v1_cgroups() {
        let dir = tempfile::tempdir().expect("a folder");
        let nested = dir.path().join("a/b");
        std::fs::create_dir_all(&nested).expect("folders");
        std::fs::write(
            dir.path().join("memory.oom_control"),
            "oom_kill_disable 0\nunder_oom 0\noom_kill 1\n",
        )
        .unwrap();
        std::fs::write(dir.path().join("a/memory.oom_control"), "oom_kill 0\n").unwrap();
        std::fs::write(nested.join("memory.oom_control"), "oom_kill 2\n").unwrap();
        assert_eq!(oom_kills(dir.path()).expect("a count"), 3);
        std::fs::write(
            dir.path().join("memory.events"),
            "low 0\noom 4\noom_kill 7\n",
        )
        .unwrap();
        assert_eq!(oom_kills(dir.path()).expect("a count"), 7);
    }
}
