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

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

mod block;
mod files;
mod hybrid;
mod mounts;
mod root;
mod v1;
mod v2;

pub use block::BlockDevice;
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

/// What went wrong with a cgroup.
#[derive(Debug, thiserror::Error)]
pub enum CgroupError {
    /// No cgroup file system is mounted.
    #[error(
        "no cgroup hierarchy is mounted: mount cgroup2 at /sys/fs/cgroup, or start the agent where it is visible"
    )]
    NotMounted,
    /// A cgroup file or directory could not be used.
    #[error("cannot {operation} {}", path.display())]
    File {
        /// What was tried.
        operation: &'static str,
        /// On which file.
        path: PathBuf,
        /// What the kernel answered.
        #[source]
        source: io::Error,
    },
    /// A limit was asked that no mounted controller can hold.
    #[error(
        "{asked} was asked but the {controller} controller is not available: enable it in the kernel, or ask no such limit"
    )]
    NoController {
        /// The controller.
        controller: Controller,
        /// What was asked of it.
        asked: &'static str,
    },
    /// A name that cannot be a cgroup directory of ours.
    #[error("{name:?} cannot name a cgroup: {rule}")]
    BadName {
        /// The name.
        name: String,
        /// The rule that it breaks.
        rule: &'static str,
    },
    /// The container exists already.
    #[error("container {id} has a cgroup already: container ids are used once")]
    Exists {
        /// The container.
        id: String,
    },
    /// Processes outlived their killing.
    #[error("container {id} still has processes {waited_ms} ms after they were killed: see {}", path.display())]
    NotEmptied {
        /// The container.
        id: String,
        /// How long was waited.
        waited_ms: u64,
        /// Where the processes are listed.
        path: PathBuf,
    },
    /// A file's content was not understood.
    #[error("{} holds {content:?}, which is not {expected}", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// What stood in it.
        content: String,
        /// What was expected.
        expected: &'static str,
    },
    /// No block device stands behind a path, so its bandwidth cannot be limited.
    #[error("no block device stands behind {}: a disk limit needs a work folder on a disk", path.display())]
    NoBlockDevice {
        /// The path.
        path: PathBuf,
    },
}

/// A controller that containers use. `Io` is `blkio` in v1, `Cpuacct` exists in v1 only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Controller {
    /// CPU shares and quotas.
    Cpu,
    /// CPU time (v1; part of every v2 cgroup).
    Cpuacct,
    /// Memory.
    Memory,
    /// Block I/O.
    Io,
    /// Freezing (v1; part of every v2 cgroup).
    Freezer,
    /// Number of processes.
    Pids,
}

impl Controller {
    /// Every controller that containers use.
    pub const ALL: [Controller; 6] = [
        Self::Cpu,
        Self::Cpuacct,
        Self::Memory,
        Self::Io,
        Self::Freezer,
        Self::Pids,
    ];

    /// Its name in v1 mount options.
    pub fn v1_name(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Cpuacct => "cpuacct",
            Self::Memory => "memory",
            Self::Io => "blkio",
            Self::Freezer => "freezer",
            Self::Pids => "pids",
        }
    }

    /// Its name in `cgroup.controllers`, if v2 has it as a controller.
    pub fn v2_name(self) -> Option<&'static str> {
        match self {
            Self::Cpu => Some("cpu"),
            Self::Memory => Some("memory"),
            Self::Io => Some("io"),
            Self::Pids => Some("pids"),
            Self::Cpuacct | Self::Freezer => None,
        }
    }
}

impl fmt::Display for Controller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Io => "io",
            other => other.v1_name(),
        })
    }
}

/// What a container may use.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// The allocation: its share of the CPU when there is not enough for all (weight, not a limit).
    pub cpu_milli: u64,
    /// The hard limit of CPU, if one is asked.
    pub cpu_limit_milli: Option<u64>,
    /// The hard limit of memory; swap counts towards it.
    pub mem_bytes: Option<u64>,
    /// The most processes and threads.
    pub pids: Option<u64>,
    /// Disk bandwidth.
    pub disk: Option<DiskLimits>,
    /// Whether the container yields to every other on the machine.
    pub revocable: bool,
}

/// Disk bandwidth of one device. Writes through the page cache are charged only where v2 holds the `io` controller
/// with `memory`; v1 limits direct and synchronous I/O.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskLimits {
    /// The device.
    pub device: BlockDevice,
    /// The most that is read.
    pub read_bytes_per_sec: Option<u64>,
    /// The most that is written.
    pub write_bytes_per_sec: Option<u64>,
}

/// Where a container's figures are read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ContainerPaths {
    /// The directory in each v1 controller.
    pub v1: BTreeMap<Controller, PathBuf>,
    /// The v2 directory, where v2 is mounted.
    pub v2: Option<PathBuf>,
    /// The controllers that are on in [`ContainerPaths::v2`].
    pub v2_controllers: BTreeSet<Controller>,
}

/// How a process enters a container: paths that the launched process uses itself.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinPaths {
    /// The v2 directory: entered at birth (`CLONE_INTO_CGROUP`).
    pub v2_dir: Option<PathBuf>,
    /// The v1 `cgroup.procs` files: entered by writing `0`.
    pub v1_procs: Vec<PathBuf>,
    /// The directory whose subtree counts the container's OOM kills, if memory is controlled.
    pub memory_dir: Option<PathBuf>,
}

/// What can be done to one container, whichever hierarchy holds it: implemented by v1, v2 and hybrid.
pub(crate) trait Control: fmt::Debug + Send + Sync {
    /// Makes the directories.
    fn make(&self) -> Result<(), CgroupError>;
    /// Writes the limits that this hierarchy's controllers can hold.
    fn apply(&self, limits: &Limits) -> Result<(), CgroupError>;
    /// Sets or lifts the CPU quota.
    fn set_cpu_quota(&self, cpu_milli: Option<u64>) -> Result<(), CgroupError>;
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

/// One container's cgroups.
#[derive(Debug)]
pub struct Container {
    id: String,
    limits: Limits,
    control: Box<dyn Control>,
}

impl Container {
    /// The container's id.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The limits that it was made with.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// The cgroup v2 id: what `bpf_get_current_cgroup_id()` answers inside. `None` where v2 is not mounted.
    pub fn cgroup_id(&self) -> Result<Option<u64>, CgroupError> {
        self.control.v2_dir().map(files::inode).transpose()
    }

    /// Holds the container to `cpu_milli`, or with `None` returns it to the limit that it was made with.
    pub fn throttle(&self, cpu_milli: Option<u64>) -> Result<(), CgroupError> {
        let quota_milli = match (cpu_milli, self.limits.cpu_limit_milli) {
            (Some(asked), Some(limit)) => Some(asked.min(limit)),
            (asked, limit) => asked.or(limit),
        };
        self.control.set_cpu_quota(quota_milli)
    }

    /// Stops every process where it stands. Returns at once; [`Container::wait_frozen`] waits.
    pub fn freeze(&self) -> Result<(), CgroupError> {
        self.control.set_frozen(true)
    }

    /// Continues every process.
    pub fn thaw(&self) -> Result<(), CgroupError> {
        self.control.set_frozen(false)
    }

    /// Waits until freezing (or thawing) is complete; false when `timeout` has passed.
    pub fn wait_frozen(&self, frozen: bool, timeout: Duration) -> Result<bool, CgroupError> {
        self.control.wait_frozen(frozen, timeout)
    }

    /// Sends SIGKILL to every process, those in nested cgroups and frozen ones too.
    pub fn kill_all(&self) -> Result<(), CgroupError> {
        self.control.kill_all()
    }

    /// The processes of the container, those in nested cgroups too.
    pub fn procs(&self) -> Result<Vec<u32>, CgroupError> {
        self.control.procs()
    }

    /// Whether a live process is left.
    pub fn is_populated(&self) -> Result<bool, CgroupError> {
        self.control.is_populated()
    }

    /// Waits until no live process is left; false when `timeout` has passed.
    pub fn wait_empty(&self, timeout: Duration) -> Result<bool, CgroupError> {
        self.control.wait_empty(timeout)
    }

    /// Where the sampler finds each controller's figures.
    pub fn paths(&self) -> ContainerPaths {
        self.control.paths()
    }

    /// How a process enters.
    pub fn join_paths(&self) -> JoinPaths {
        let paths = self.control.paths();
        let memory_dir = paths.v1.get(&Controller::Memory).or({
            if paths.v2_controllers.contains(&Controller::Memory) {
                paths.v2.as_ref()
            } else {
                None
            }
        });
        let mut v1_procs: Vec<PathBuf> = paths
            .v1
            .values()
            .map(|dir| dir.join("cgroup.procs"))
            .collect();
        v1_procs.sort();
        v1_procs.dedup();
        JoinPaths {
            memory_dir: memory_dir.cloned(),
            v2_dir: paths.v2,
            v1_procs,
        }
    }

    /// Kills what is left, waits for it to be gone and removes the cgroups. Removing what is gone succeeds.
    pub fn destroy(&self) -> Result<(), CgroupError> {
        self.control.kill_all()?;
        if !self.control.wait_empty(DESTROY_WAIT)? {
            let paths = self.paths();
            let path = paths
                .v2
                .or_else(|| paths.v1.into_values().next())
                .unwrap_or_default();
            let waited_ms = DESTROY_WAIT.as_millis() as u64;
            return Err(CgroupError::NotEmptied {
                id: self.id.clone(),
                waited_ms,
                path,
            });
        }
        self.control.remove()
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
