//! Facts about this machine, gathered once: what can be measured here, and where it stands.
//!
//! Nothing is decided here; [`plan`](super::plan) does that. A capability is asked for itself (is
//! there BTF, does it have the field, may this process load programs), never deduced from a kernel
//! version.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use ebb_agent_ebpf_common::name;

use super::btf::Btf;

const BTF_PATH: &str = "/sys/kernel/btf/vmlinux";
const LOCKDOWN_PATH: &str = "/sys/kernel/security/lockdown";

/// Numbers of the capabilities in `CapEff`.
const CAP_SYS_ADMIN: u32 = 21;
const CAP_PERFMON: u32 = 38;
const CAP_BPF: u32 = 39;

/// Inode of the root of the cgroup tree. A cgroup namespace shows another directory as root.
const CGROUP_ROOT_INODE: u64 = 1;

/// What a group of the kernel's fields is needed for. Without the core fields there are no BTF probes; without another
/// group its figures are missing or come from files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum FieldGroup {
    /// Time, switches, and which cgroup a task is in.
    Core,
    /// Run-queue latency.
    Wait,
    /// The part of it that is a CPU quota's doing.
    Quota,
    /// Requests to block devices.
    Block,
    /// Whose a request is by the io controller.
    BlockGroup,
    /// Whose a page is by the memory controller.
    PageOwner,
}

use FieldGroup::{Block, BlockGroup, Core, PageOwner, Quota, Wait};

/// A field: the global of the probes, its group, the record, and the paths at which it may stand, best first.
type Field = (
    &'static str,
    FieldGroup,
    &'static str,
    &'static [&'static str],
);

/// Every field that the probes read, but for `cgroup.ancestors`.
const FIELDS: &[Field] = &[
    (name::TASK_PID, Core, "task_struct", &["pid"]),
    (name::TASK_TGID, Core, "task_struct", &["tgid"]),
    (name::TASK_START, Core, "task_struct", &["start_time"]),
    (name::TASK_VOLUNTARY, Core, "task_struct", &["nvcsw"]),
    (name::TASK_FAULTS_MINOR, Core, "task_struct", &["min_flt"]),
    (name::TASK_FAULTS_MAJOR, Core, "task_struct", &["maj_flt"]),
    (
        name::TASK_EXEC,
        Core,
        "task_struct",
        &["se.sum_exec_runtime"],
    ),
    (
        name::TASK_MIGRATIONS,
        Core,
        "task_struct",
        &["se.nr_migrations"],
    ),
    (name::TASK_CSS_SET, Core, "task_struct", &["cgroups"]),
    (name::CSS_SET_CGROUP, Core, "css_set", &["dfl_cgrp"]),
    (name::CGROUP_NODE, Core, "cgroup", &["kn"]),
    (name::CGROUP_LEVEL, Core, "cgroup", &["level"]),
    (name::NODE_ID, Core, "kernfs_node", &["id"]),
    (
        name::TASK_WAIT,
        Wait,
        "task_struct",
        &["sched_info.run_delay"],
    ),
    (
        name::TASK_ARRIVALS,
        Wait,
        "task_struct",
        &["sched_info.pcount"],
    ),
    (name::TASK_ENTITY, Quota, "task_struct", &["se"]),
    (name::ENTITY_DEPTH, Quota, "sched_entity", &["depth"]),
    (name::ENTITY_PARENT, Quota, "sched_entity", &["parent"]),
    (name::ENTITY_QUEUE, Quota, "sched_entity", &["cfs_rq"]),
    (
        name::QUEUE_HELD,
        Quota,
        "cfs_rq",
        &["throttled_clock_self_time", "throttled_clock_pelt_time"],
    ),
    (name::QUEUE_LIMITED, Quota, "cfs_rq", &["runtime_enabled"]),
    (
        name::QUEUE_REMAINING,
        Quota,
        "cfs_rq",
        &["runtime_remaining"],
    ),
    (name::REQUEST_BIO, Block, "request", &["bio"]),
    (name::REQUEST_FLAGS, Block, "request", &["cmd_flags"]),
    (name::REQUEST_BYTES, Block, "request", &["__data_len"]),
    (name::REQUEST_START, Block, "request", &["start_time_ns"]),
    (name::REQUEST_QUEUE, Block, "request", &["q"]),
    (name::QUEUE_DISK, Block, "request_queue", &["disk"]),
    (name::DISK_MAJOR, Block, "gendisk", &["major"]),
    (name::DISK_MINOR, Block, "gendisk", &["first_minor"]),
    (name::BIO_GROUP, BlockGroup, "bio", &["bi_blkg"]),
    (name::GROUP_BLKCG, BlockGroup, "blkcg_gq", &["blkcg"]),
    (name::BLKCG_CGROUP, BlockGroup, "blkcg", &["css.cgroup"]),
    (name::BIO_PAGES, PageOwner, "bio", &["bi_io_vec"]),
    (name::PAGE_HEAD, PageOwner, "page", &["compound_head"]),
    (name::PAGE_MEMCG, PageOwner, "page", &["memcg_data"]),
    (name::MEMCG_CGROUP, PageOwner, "mem_cgroup", &["css.cgroup"]),
];

/// Tracepoints that the probes use.
const TRACEPOINTS: &[&str] = &[
    "sched_switch",
    "sched_process_fork",
    "sched_process_exit",
    "sched_process_free",
    "cgroup_attach_task",
    "mm_vmscan_direct_reclaim_begin",
    "mm_vmscan_direct_reclaim_end",
    "mm_vmscan_memcg_reclaim_begin",
    "mm_vmscan_memcg_reclaim_end",
    "mark_victim",
    "block_rq_issue",
    "block_rq_complete",
];

/// What the running kernel's BTF tells of the records that the probes read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KernelFields {
    /// Offsets in bytes, by the name of the probes' global.
    offsets: BTreeMap<&'static str, u64>,
    /// The first field that each incomplete group lacks.
    missing: BTreeMap<FieldGroup, String>,
    /// Tracepoints of this kernel, of those that the probes use.
    tracepoints: BTreeSet<&'static str>,
    /// Whether `mark_victim` names the task (else only its id).
    pub victim_is_task: bool,
}

impl KernelFields {
    /// Looks everything up; else names the first field of the core that is missing.
    pub fn from_btf(btf: &Btf<'_>) -> Result<Self, String> {
        let mut fields = Self {
            offsets: BTreeMap::new(),
            missing: BTreeMap::new(),
            tracepoints: TRACEPOINTS
                .iter()
                .copied()
                .filter(|name| btf.has_tracepoint(name))
                .collect(),
            victim_is_task: btf.tracepoint_takes_pointer("mark_victim", 0),
        };
        for &(global, group, of, paths) in FIELDS {
            match paths.iter().find_map(|path| btf.offset(of, path)) {
                Some(offset) => {
                    fields.offsets.insert(global, offset);
                }
                None => {
                    let why = format!("this kernel has no field {of}.{}", paths[0]);
                    fields.missing.entry(group).or_insert(why);
                }
            }
        }
        let pointers = btf.offset("cgroup", "ancestors");
        match pointers.or_else(|| btf.offset("cgroup", "ancestor_ids")) {
            Some(offset) => {
                let are_pointers = u64::from(pointers.is_some());
                fields.offsets.insert(name::CGROUP_ANCESTORS, offset);
                fields
                    .offsets
                    .insert(name::ANCESTORS_ARE_POINTERS, are_pointers);
            }
            None => {
                let why = "this kernel has no field cgroup.ancestors".to_owned();
                fields.missing.entry(Core).or_insert(why);
            }
        }
        match fields.missing.remove(&Core) {
            Some(why) => Err(why),
            None => Ok(fields),
        }
    }

    /// The offset of a field by the name of the probes' global; `None` if this kernel has it not.
    pub fn offset(&self, global: &str) -> Option<u64> {
        self.offsets.get(global).copied()
    }

    /// Every global with its offset.
    pub fn offsets(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        self.offsets.iter().map(|(&name, &offset)| (name, offset))
    }

    /// The same with another offset, as a test of what happens if the kernel does not agree.
    #[must_use]
    pub fn with_offset(mut self, global: &'static str, offset: u64) -> Self {
        self.offsets.insert(global, offset);
        self
    }

    /// Whether a group is complete, or what it lacks.
    pub fn has(&self, group: FieldGroup) -> Result<(), String> {
        match self.missing.get(&group) {
            Some(why) => Err(why.clone()),
            None => Ok(()),
        }
    }

    /// Whether this kernel has a tracepoint.
    pub fn has_tracepoint(&self, tracepoint: &str) -> bool {
        self.tracepoints.contains(tracepoint)
    }

    /// The same without a group of fields, as kernels without it have it.
    #[must_use]
    pub fn without(mut self, group: FieldGroup, why: &str) -> Self {
        for (global, _, _, _) in FIELDS.iter().filter(|field| field.1 == group) {
            self.offsets.remove(global);
        }
        self.missing.insert(group, why.to_owned());
        self
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
    /// Controllers mounted the old way, and where.
    pub v1: BTreeMap<String, PathBuf>,
    /// Whether the kernel accounts pressure (PSI).
    pub pressure: bool,
    /// Whether tracefs is mounted. The probes do not need it; it is shown to who looks for a cause.
    pub tracefs: bool,
}

impl Facts {
    /// Looks at this machine.
    pub fn gather() -> Self {
        // Anybody's mount point may hold bytes that are no text; the cgroups' do not.
        let mounts = fs::read("/proc/self/mountinfo").unwrap_or_default();
        let mounts = String::from_utf8_lossy(&mounts);
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
            .flat_map(|mount| {
                mount
                    .options
                    .split(',')
                    .map(move |option| (option, &mount.at))
            })
            .filter(|one| matches!(one.0, "cpu" | "cpuacct" | "memory" | "blkio" | "freezer"))
            .map(|(option, at)| (option.to_owned(), at.clone()))
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
        self.v1.contains_key(controller)
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
mod fuzz;

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
