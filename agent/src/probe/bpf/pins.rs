//! Maps, programs and links kept on the bpf file system, so that an agent that comes back goes on counting without a
//! gap.
//!
//! Everything stands in a folder named after the agent and, below it, after the probes themselves (the object and all
//! that it was loaded with): other probes never take over what these have counted. A folder of other probes, or one in
//! which something is missing, is removed, which detaches what is in it.

use std::collections::BTreeMap;
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use ebb_agent_ebpf_common::name;
use rustix::mount::{MountFlags, mount};

use super::object::Loaded;
use super::sys;

/// Where the bpf file system is mounted by convention.
pub const BPF_MOUNT: &str = "/sys/fs/bpf";
/// What `statfs` says of it.
const BPF_MAGIC: u64 = 0xcafe_4a11;

/// Makes sure that there is a bpf file system at [`BPF_MOUNT`].
///
/// # Errors
/// The system's, if it is not mounted and cannot be.
pub fn mount_bpf() -> io::Result<()> {
    let is_bpf = |path: &Path| -> io::Result<bool> {
        Ok(rustix::fs::statfs(path)?.f_type as u64 == BPF_MAGIC)
    };
    let at = Path::new(BPF_MOUNT);
    if is_bpf(at)? {
        return Ok(());
    }
    mount(
        "bpf",
        at,
        "bpf",
        MountFlags::empty(),
        None::<&std::ffi::CStr>,
    )?;
    Ok(())
}

/// The folder of one agent's probes.
#[derive(Debug)]
pub struct Pins {
    folder: PathBuf,
}

impl Pins {
    /// Where probes stand that were loaded from this object with these values.
    pub fn new(
        of_agent: &Path,
        object: &[u8],
        globals: &[(&'static str, u64)],
        slots: u32,
    ) -> Self {
        let mut hasher = DefaultHasher::new();
        object.hash(&mut hasher);
        globals.hash(&mut hasher);
        slots.hash(&mut hasher);
        let folder = of_agent.join(format!("{:016x}", hasher.finish()));
        Self { folder }
    }

    fn path(&self, kind: &str, name: &str) -> PathBuf {
        self.folder.join(format!("{kind}_{name}"))
    }

    /// Opens what was kept, if it is all there. What other probes have left is removed.
    pub fn open(&self) -> Option<(Loaded, BTreeMap<String, OwnedFd>)> {
        if let Some(parent) = self.folder.parent() {
            for other in fs::read_dir(parent).into_iter().flatten().flatten() {
                if other.path() != self.folder {
                    remove(&other.path());
                }
            }
        }
        let found = self.read();
        if found.is_none() {
            remove(&self.folder);
        }
        found
    }

    fn read(&self) -> Option<(Loaded, BTreeMap<String, OwnedFd>)> {
        let mut maps = BTreeMap::new();
        for map in name::MAPS {
            maps.insert(map, sys::pinned(&self.path("map", map)).ok()?);
        }
        let mut programs = BTreeMap::new();
        for program in name::PROGRAMS {
            if let Ok(fd) = sys::pinned(&self.path("program", program)) {
                programs.insert(program, fd);
            }
        }
        let mut links = BTreeMap::new();
        for entry in fs::read_dir(&self.folder).ok()?.flatten() {
            let name = entry.file_name().into_string().ok()?;
            if let Some(link) = name.strip_prefix("link_") {
                links.insert(link.to_owned(), sys::pinned(&entry.path()).ok()?);
            }
        }
        // The last that is pinned.
        let switch = [name::SCHED_SWITCH, name::SCHED_SWITCH_PLAIN];
        let complete = switch.iter().any(|name| links.contains_key(*name));
        complete.then_some((Loaded { maps, programs }, links))
    }

    /// Keeps maps and programs. Links follow one by one.
    pub fn keep(&self, loaded: &Loaded) -> io::Result<()> {
        fs::create_dir_all(&self.folder)?;
        for (name, map) in &loaded.maps {
            sys::pin(map.as_fd(), &self.path("map", name))?;
        }
        for (name, program) in &loaded.programs {
            sys::pin(program.as_fd(), &self.path("program", name))?;
        }
        Ok(())
    }

    /// Keeps a link, instead of one of the same name.
    pub fn keep_link(&self, name: &str, link: &OwnedFd) -> io::Result<()> {
        let path = self.path("link", name);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        sys::pin(link.as_fd(), &path)
    }

    /// Forgets a link.
    pub fn drop_link(&self, name: &str) {
        // It is gone, or goes with its folder.
        let _ = fs::remove_file(self.path("link", name));
    }

    /// Forgets everything of this agent's.
    pub fn remove(&self) {
        remove(&self.folder);
        if let Some(parent) = self.folder.parent() {
            // It stays if it is not empty.
            let _ = fs::remove_dir(parent);
        }
    }
}

/// Removes a folder of pins. What cannot be removed is found again at the next start.
fn remove(folder: &Path) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let _ = fs::remove_file(entry.path());
    }
    let _ = fs::remove_dir(folder);
}
