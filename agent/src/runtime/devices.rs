//! A container's own `/dev`, on machines whose disks are given to tasks as devices.
//!
//! In it are the devices that everybody may use, and those block devices that the container has; no other. Root, too, is
//! kept to that, by three walls: its cgroup has a filter that lets it open and make these devices alone; it loses the
//! rights to make device nodes, to mount and unmount, and those with which it could take them from elsewhere or undo the
//! filter; and `/sys` and the kernel's settings in `/proc` are read-only for it, so that it cannot leave its cgroup or have the
//! kernel start a program outside.
//!
//! The agent decides what is in a container's `/dev` ([`View::of`]), once, for node and filter alike; the container's
//! first process makes it ([`enter`]), and the command's process gives up the rights.
//!
//! The price: root of such a container may not do those things for other ends either, a device that is plugged in
//! later is not seen by containers that run, and each launch reads `/dev` (on a busy machine that is lost in the noise). What it does not do: a task
//! that runs as root can still write the machine's files, until containers have images.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, FileType, Mode, major, makedev, minor, mknodat};
use rustix::mount::{MountFlags, mount, mount_bind, mount_remount};
use rustix::thread::{
    CapabilitySet, capabilities, remove_capability_from_bounding_set, set_capabilities,
};
use serde::{Deserialize, Serialize};

use super::error::RuntimeError;
use super::spec::User;
use crate::cgroup::Container;
use crate::probe::{DeviceRule, confine_devices};

/// Where devices are.
const DEV: &str = "/dev";
/// The folder of a container's own, below it.
const OWN: &str = "ebb";
/// What a device allows that everybody may use.
const FOR_EVERYBODY: u32 = 0o006;
/// Folders that are file systems of their own.
const MOUNTED: [&str; 5] = ["pts", "shm", "mqueue", "hugepages", OWN];
/// Terminals, whose numbers nobody knows beforehand, by their major numbers.
const TERMINALS: std::ops::RangeInclusive<u32> = 136..=143;
/// The maker of terminals, by its numbers: it may stand in `pts` alone.
const TERMINAL_MAKER: (u32, u32) = (5, 2);
/// Links that programs expect, also on machines where nobody has made them.
const EXPECTED: [(&str, &str); 5] = [
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("ptmx", "pts/ptmx"),
];
/// Most devices and links that everybody may use.
const MAX_NODES: usize = 4_096;
/// Most folders within each other.
const MAX_DEPTH: usize = 8;
/// Where the kernel is set, and where root could leave its cgroup: read-only in such containers.
const PROTECTED: [&str; 3] = ["/proc/sys", "/proc/sysrq-trigger", "/sys"];
/// Rights that would undo the above: to mount and make nodes, to read handles and ports, to enter the container's first
/// process, to look into the kernel, and to change it.
const GIVEN_UP: [CapabilitySet; 9] = [
    CapabilitySet::SYS_ADMIN,
    CapabilitySet::MKNOD,
    CapabilitySet::SYS_RAWIO,
    CapabilitySet::DAC_READ_SEARCH,
    CapabilitySet::SYS_PTRACE,
    CapabilitySet::SYS_MODULE,
    CapabilitySet::SYS_BOOT,
    CapabilitySet::BPF,
    CapabilitySet::PERFMON,
];

/// A device that a container is to have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceSpec {
    /// What it is called there.
    pub name: String,
    /// Where it is on the machine.
    pub path: PathBuf,
}

/// What stands in a container's `/dev`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct View {
    /// What everybody may use: folders stand before what is in them.
    nodes: Vec<(PathBuf, Node)>,
    /// The container's own devices, by name, with their numbers.
    own: Vec<(String, u64)>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
enum Node {
    Folder,
    Link(PathBuf),
    Character { device: u64, mode: u32 },
}

impl View {
    /// The `/dev` of a container with these devices.
    ///
    /// # Errors
    /// A device that is not there, or is no block device, and the system's answer.
    pub(super) fn of(devices: &[DeviceSpec]) -> Result<Self, RuntimeError> {
        let mut nodes = Vec::new();
        collect(Path::new(""), MAX_DEPTH, &mut nodes)
            .map_err(RuntimeError::file("read", Path::new(DEV)))?;
        let mut own = Vec::new();
        for DeviceSpec { name, path } in devices {
            let bad = |rule: String| RuntimeError::Device {
                disk: name.clone(),
                path: path.clone(),
                rule,
            };
            let found = fs::metadata(path).map_err(|error| bad(error.to_string()))?;
            if !found.file_type().is_block_device() {
                return Err(bad("it is no block device any more".to_owned()));
            }
            own.push((name.clone(), found.rdev()));
        }
        Ok(Self { nodes, own })
    }

    /// The container's own devices: the names of their disks, and their numbers.
    pub fn own(&self) -> impl Iterator<Item = (&str, u64)> {
        self.own
            .iter()
            .map(|(name, number)| (name.as_str(), *number))
    }

    /// The same as a filter has it.
    fn rules(&self) -> Vec<DeviceRule> {
        let rule = |is_block, device| DeviceRule {
            is_block,
            major: major(device),
            minor: Some(minor(device)),
        };
        let terminals = TERMINALS.map(|major| DeviceRule {
            is_block: false,
            major,
            minor: None,
        });
        let maker = makedev(TERMINAL_MAKER.0, TERMINAL_MAKER.1);
        let nodes = self.nodes.iter().filter_map(|(_, node)| match node {
            Node::Character { device, .. } => Some(rule(false, *device)),
            Node::Folder | Node::Link(_) => None,
        });
        let own = self.own.iter().map(|(_, device)| rule(true, *device));
        let mut all: Vec<_> = own
            .chain(nodes)
            .chain(terminals)
            .chain([rule(false, maker)])
            .collect();
        all.sort_unstable();
        all.dedup();
        all
    }

    /// Keeps a container to these devices; what it has opened before, it keeps.
    pub(super) fn confine(&self, container: &Container) -> Result<(), RuntimeError> {
        let failed = |source| RuntimeError::DeviceFilter {
            container_id: container.id().to_owned(),
            source,
        };
        let Some(cgroup) = container.paths().v2 else {
            return Err(failed(io::Error::other("cgroup v2 is not mounted")));
        };
        confine_devices(&cgroup, &self.rules()).map_err(failed)
    }
}

/// What of the machine's `/dev` everybody may use.
fn collect(folder: &Path, depth: usize, nodes: &mut Vec<(PathBuf, Node)>) -> io::Result<()> {
    for entry in fs::read_dir(Path::new(DEV).join(folder))? {
        let entry = entry?;
        let path = folder.join(entry.file_name());
        // One that is unplugged meanwhile is not there.
        let Ok(found) = entry.metadata() else {
            continue;
        };
        let kind = found.file_type();
        let is_mounted = MOUNTED.iter().any(|name| path == Path::new(name));
        if kind.is_dir() && !is_mounted && depth > 0 {
            nodes.push((path.clone(), Node::Folder));
            collect(&path, depth - 1, nodes)?;
        } else if kind.is_symlink() {
            nodes.push((path, Node::Link(fs::read_link(entry.path())?)));
        } else if kind.is_char_device() && found.mode() & FOR_EVERYBODY == FOR_EVERYBODY {
            let (device, mode) = (found.rdev(), found.mode() & 0o7777);
            nodes.push((path, Node::Character { device, mode }));
        }
        if nodes.len() > MAX_NODES {
            return Err(io::Error::other(format!(
                "more than {MAX_NODES} devices, links and folders are for everybody"
            )));
        }
    }
    Ok(())
}

/// Gives the container that this process is the first of a `/dev` of its own, and takes from it what leads around that.
pub(super) fn enter(view: &View, user: Option<&User>) -> Result<(), String> {
    let own = |what: &str, type_: &str, flags, data: &std::ffi::CStr| {
        mount(type_, what, type_, flags, data)
            .map_err(|error| format!("cannot mount {what}: {error}"))
    };
    let closed = MountFlags::NOSUID | MountFlags::NOEXEC;
    own(DEV, "tmpfs", closed, c"mode=0755")?;
    fill(view, user).map_err(|error| format!("cannot fill {DEV}: {error}"))?;
    own(
        "/dev/pts",
        "devpts",
        closed,
        c"newinstance,ptmxmode=0666,mode=0620",
    )?;
    own(
        "/dev/shm",
        "tmpfs",
        MountFlags::NOSUID | MountFlags::NODEV,
        c"mode=1777",
    )?;
    protect()
}

fn fill(view: &View, user: Option<&User>) -> io::Result<()> {
    let dev = Path::new(DEV);
    for folder in ["pts", "shm", OWN] {
        DirBuilder::new().mode(0o755).create(dev.join(folder))?;
    }
    for (path, node) in &view.nodes {
        let path = dev.join(path);
        match node {
            Node::Folder => DirBuilder::new().mode(0o755).create(&path)?,
            Node::Link(target) => symlink(target, &path)?,
            Node::Character { device, mode } => {
                make(&path, FileType::CharacterDevice, *device, *mode)?;
            }
        }
    }
    for (name, target) in EXPECTED {
        match symlink(target, dev.join(name)) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
    }
    for (name, device) in &view.own {
        let path = dev.join(OWN).join(name);
        make(&path, FileType::BlockDevice, *device, 0o600)?;
        if let Some(user) = user {
            chown(&path, Some(user.uid), Some(user.gid))?;
        }
    }
    Ok(())
}

fn make(path: &Path, kind: FileType, device: u64, mode: u32) -> io::Result<()> {
    let device = makedev(major(device), minor(device));
    mknodat(CWD, path, kind, Mode::from_raw_mode(mode), device)?;
    // What the process's mask has taken.
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
}

/// Makes the kernel's settings read-only, with all file systems that stand among them.
fn protect() -> Result<(), String> {
    for path in PROTECTED {
        if Path::new(path).exists() && !path.starts_with("/sys") {
            mount_bind(path, path).map_err(|error| format!("cannot protect {path}: {error}"))?;
        }
    }
    let mounts = fs::read_to_string("/proc/self/mountinfo")
        .map_err(|error| format!("cannot read the mounts: {error}"))?;
    for place in mounts.lines().filter_map(mount_point) {
        if PROTECTED
            .iter()
            .any(|path| Path::new(place).starts_with(path))
        {
            let flags = MountFlags::BIND
                | MountFlags::RDONLY
                | MountFlags::NOSUID
                | MountFlags::NODEV
                | MountFlags::NOEXEC;
            mount_remount(place, flags, "")
                .map_err(|error| format!("cannot protect {place}: {error}"))?;
        }
    }
    Ok(())
}

/// The fifth field of a line of `mountinfo`.
fn mount_point(line: &str) -> Option<&str> {
    line.split(' ').nth(4)
}

/// Gives up, for this process and all that it executes, what would undo [`enter`].
pub(super) fn give_up_rights() -> Result<(), String> {
    let failed = |error: rustix::io::Errno| format!("cannot give up rights: {error}");
    for right in GIVEN_UP {
        remove_capability_from_bounding_set(right).map_err(failed)?;
    }
    // What is inherited would pass by that.
    let mut sets = capabilities(None).map_err(failed)?;
    sets.inheritable = CapabilitySet::empty();
    set_capabilities(None, sets).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_allows_what_stands_in_the_view_and_terminals() {
        let null = makedev(1, 3);
        let view = View {
            nodes: vec![
                ("net".into(), Node::Folder),
                ("fd".into(), Node::Link("/proc/self/fd".into())),
                (
                    "null".into(),
                    Node::Character {
                        device: null,
                        mode: 0o666,
                    },
                ),
            ],
            own: vec![("fast".to_owned(), makedev(7, 1))],
        };
        let rules = view.rules();
        let blocks: Vec<_> = rules.iter().filter(|rule| rule.is_block).collect();
        assert_eq!(blocks.len(), 1);
        assert_eq!((blocks[0].major, blocks[0].minor), (7, Some(1)));
        let has = |major, minor| {
            rules
                .iter()
                .any(|rule| !rule.is_block && (rule.major, rule.minor) == (major, minor))
        };
        assert!(has(1, Some(3)) && has(136, None) && has(143, None) && has(5, Some(2)));
        assert_eq!(rules.len(), 1 + 1 + 8 + 1);
    }

    #[test]
    fn a_view_has_what_everybody_may_use_and_folders_before_what_is_in_them() {
        let view = View::of(&[]).expect("a view");
        let mut seen = std::collections::BTreeSet::from([PathBuf::new()]);
        for (path, _) in &view.nodes {
            assert!(seen.contains(path.parent().expect("below")), "{path:?}");
            seen.insert(path.clone());
        }
        assert!(seen.contains(Path::new("null")) && !seen.contains(Path::new("shm")));
    }

    #[test]
    fn a_disk_whose_device_is_none_is_named() {
        for path in ["/no/such/device", "/dev/null"] {
            let spec = DeviceSpec {
                name: "fast".to_owned(),
                path: path.into(),
            };
            let error = View::of(&[spec]).expect_err("taken").to_string();
            assert!(error.contains(path) && error.contains("fast"), "{error}");
        }
    }
}
