//! Facts about this machine, gathered once: what can be measured here, and where it stands.
//!
//! Nothing is decided here; [`plan`](super::plan) does that. A capability is asked for itself (is
//! there BTF, does it have the field, may this process load programs), never deduced from a kernel
//! version.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::btf::Btf;

const BTF_PATH: &str = "/sys/kernel/btf/vmlinux";
const LOCKDOWN_PATH: &str = "/sys/kernel/security/lockdown";

/// Numbers of the capabilities in `CapEff`.
const CAP_SYS_ADMIN: u32 = 21;
const CAP_PERFMON: u32 = 38;
const CAP_BPF: u32 = 39;

/// Inode of the root of the cgroup tree. A cgroup namespace shows another directory as root.
const CGROUP_ROOT_INODE: u64 = 1;

/// Offsets in bytes of the fields that the probes read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KernelFields {
    /// `task_struct.pid`.
    pub task_pid: u64,
    /// `task_struct.nvcsw`.
    pub task_voluntary: u64,
    /// `task_struct.se.sum_exec_runtime`.
    pub task_exec: u64,
    /// `task_struct.sched_info.run_delay` and `.pcount`; absent if the kernel keeps no such account.
    pub task_wait: Option<(u64, u64)>,
    /// `task_struct.cgroups`.
    pub task_css_set: u64,
    /// `css_set.dfl_cgrp`.
    pub css_set_cgroup: u64,
    /// `cgroup.kn`.
    pub cgroup_node: u64,
    /// `cgroup.level`.
    pub cgroup_level: u64,
    /// `cgroup.ancestors`, or `cgroup.ancestor_ids` on kernels before 6.1.
    pub cgroup_ancestors: u64,
    /// Whether the ancestors are pointers (else ids).
    pub ancestors_are_pointers: bool,
    /// `kernfs_node.id`.
    pub node_id: u64,
}

impl KernelFields {
    /// Looks the fields up; else names the first one that is missing.
    pub fn from_btf(btf: &Btf<'_>) -> Result<Self, String> {
        let need = |of: &str, path: &str| {
            btf.offset(of, path)
                .ok_or_else(|| format!("this kernel has no field {of}.{path}"))
        };
        let wait = btf.offset("task_struct", "sched_info.run_delay");
        let arrivals = btf.offset("task_struct", "sched_info.pcount");
        let pointers = btf.offset("cgroup", "ancestors");
        let (cgroup_ancestors, ancestors_are_pointers) = match pointers {
            Some(offset) => (offset, true),
            None => (need("cgroup", "ancestor_ids")?, false),
        };
        Ok(Self {
            task_pid: need("task_struct", "pid")?,
            task_voluntary: need("task_struct", "nvcsw")?,
            task_exec: need("task_struct", "se.sum_exec_runtime")?,
            task_wait: wait.zip(arrivals),
            task_css_set: need("task_struct", "cgroups")?,
            css_set_cgroup: need("css_set", "dfl_cgrp")?,
            cgroup_node: need("cgroup", "kn")?,
            cgroup_level: need("cgroup", "level")?,
            cgroup_ancestors,
            ancestors_are_pointers,
            node_id: need("kernfs_node", "id")?,
        })
    }
}

/// What is so on this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// The fields the probes need, or why they are not known.
    pub fields: Result<KernelFields, String>,
    /// Whether this process may load and attach programs, or why not.
    pub may_load: Result<(), String>,
    /// Where the v2 tree is mounted.
    pub cgroup2: Option<PathBuf>,
    /// Whether the mount shows the whole v2 tree, and not that of a cgroup namespace.
    pub cgroup2_is_root: bool,
    /// Whether the v2 tree has the memory controller.
    pub memory_v2: bool,
    /// Whether the v2 tree has the io controller.
    pub io_v2: bool,
    /// Controllers mounted the old way.
    pub v1: Vec<String>,
    /// Whether the kernel accounts pressure (PSI).
    pub pressure: bool,
    /// Whether tracefs is mounted. The probes do not need it; it is shown to who looks for a cause.
    pub tracefs: bool,
}

impl Facts {
    /// Looks at this machine.
    pub fn gather() -> Self {
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let mounts = parse_mounts(&mounts);
        let cgroup2 = mounts
            .iter()
            .find(|mount| mount.kind == "cgroup2")
            .map(|mount| mount.at.clone());
        let root_inode = cgroup2
            .as_ref()
            .and_then(|path| fs::metadata(path).ok())
            .map(|meta| meta.ino());
        let controllers = cgroup2
            .as_ref()
            .and_then(|path| fs::read_to_string(path.join("cgroup.controllers")).ok())
            .unwrap_or_default();
        let has = |name: &str| controllers.split_whitespace().any(|word| word == name);
        let v1 = mounts
            .iter()
            .filter(|mount| mount.kind == "cgroup")
            .flat_map(|mount| mount.options.split(','))
            .filter(|option| matches!(*option, "cpu" | "cpuacct" | "memory" | "blkio" | "freezer"))
            .map(str::to_owned)
            .collect();
        Self {
            fields: read_fields(Path::new(BTF_PATH)),
            may_load: may_load(
                &fs::read_to_string("/proc/self/status").unwrap_or_default(),
                &fs::read_to_string(LOCKDOWN_PATH).unwrap_or_default(),
            ),
            cgroup2_is_root: root_inode == Some(CGROUP_ROOT_INODE),
            memory_v2: has("memory"),
            io_v2: has("io"),
            cgroup2,
            v1,
            pressure: fs::read_to_string("/proc/pressure/cpu").is_ok(),
            tracefs: mounts.iter().any(|mount| mount.kind == "tracefs"),
        }
    }

    /// Whether a controller is mounted the old way.
    pub fn has_v1(&self, controller: &str) -> bool {
        self.v1.iter().any(|name| name == controller)
    }
}

fn read_fields(path: &Path) -> Result<KernelFields, String> {
    let blob = fs::read(path).map_err(|error| {
        format!(
            "{} cannot be read ({error}); the kernel needs CONFIG_DEBUG_INFO_BTF",
            path.display()
        )
    })?;
    let btf = Btf::parse(&blob).map_err(|error| error.to_string())?;
    KernelFields::from_btf(&btf)
}

struct Mount {
    at: PathBuf,
    kind: String,
    options: String,
}

/// Reads `mountinfo`: `id parent dev root AT options [tags] - KIND source SUPER-OPTIONS`.
fn parse_mounts(text: &str) -> Vec<Mount> {
    let mount = |line: &str| {
        let (left, right) = line.split_once(" - ")?;
        let mut right = right.split(' ');
        let kind = right.next()?.to_owned();
        let options = right.nth(1).unwrap_or_default().to_owned();
        let at = unescape(left.split(' ').nth(4)?);
        Some(Mount {
            at: PathBuf::from(at),
            kind,
            options,
        })
    };
    text.lines().filter_map(mount).collect()
}

/// Undoes the octal escapes of `mountinfo` (`\040` is a space).
fn unescape(path: &str) -> String {
    let mut parts = path.split('\\');
    let mut plain = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let code = part
            .get(..3)
            .and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match code {
            Some(byte) if byte.is_ascii() => {
                plain.push(char::from(byte));
                plain.push_str(&part[3..]);
            }
            _ => {
                plain.push('\\');
                plain.push_str(part);
            }
        }
    }
    plain
}

/// Whether the effective capabilities suffice and lockdown does not forbid it.
fn may_load(status: &str, lockdown: &str) -> Result<(), String> {
    let effective = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok())
        .unwrap_or(0);
    let holds = |capability: u32| effective >> capability & 1 == 1;
    let may = holds(CAP_SYS_ADMIN) || (holds(CAP_BPF) && holds(CAP_PERFMON));
    if !may {
        return Err("the agent lacks CAP_BPF and CAP_PERFMON; run it as root".to_owned());
    }
    if lockdown.contains("[confidentiality]") {
        return Err(
            "the kernel is locked down to confidentiality, which forbids reading it".to_owned(),
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_are_read_with_their_escapes() {
        let text = "31 23 0:26 / /sys/fs/cgroup\\040x rw shared:4 - cgroup2 cgroup2 rw,nsdelegate\n\
                    32 23 0:27 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu,cpuacct\nnonsense\n";
        let mounts = parse_mounts(text);
        assert_eq!(mounts.len(), 2);
        assert_eq!(mounts[0].at, Path::new("/sys/fs/cgroup x"));
        assert_eq!(mounts[0].kind, "cgroup2");
        assert_eq!(mounts[1].options, "rw,cpu,cpuacct");
        assert_eq!(unescape("a\\b\\1\\é999"), "a\\b\\1\\é999");
    }

    #[test]
    fn loading_needs_the_capabilities_and_no_lockdown() {
        let root = "Name:\tx\nCapEff:\t000001ffffffffff\n";
        let bpf = format!("CapEff:\t{:016x}\n", 1u64 << CAP_BPF | 1 << CAP_PERFMON);
        assert!(may_load(root, "").is_ok());
        assert!(may_load(&bpf, "[none] integrity confidentiality").is_ok());
        assert!(may_load("CapEff:\t0000000000000000\n", "").is_err());
        assert!(may_load(&format!("CapEff:\t{:016x}\n", 1u64 << CAP_BPF), "").is_err());
        assert!(may_load("", "").is_err());
        assert!(may_load(root, "none integrity [confidentiality]").is_err());
    }
}
