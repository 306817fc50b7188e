//! What a container may use, and where its cgroups are.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::BlockDevice;

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
    /// Network bandwidth in bytes a second, each way. No cgroup controller has it: the probes keep it.
    #[serde(default)]
    pub network_bytes_per_s: Option<u64>,
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
