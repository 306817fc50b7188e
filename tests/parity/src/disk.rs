//! A folder on a real disk, for tests of traffic with disks.

#![allow(clippy::unwrap_used, reason = "the helpers of tests fail as tests do")]

use std::fs;
use std::path::{Path, PathBuf};

use ebb_agent::probe::Device;
use rustix::fs::{major, minor};

/// Names another place to look for a disk first.
const CHOSEN: &str = "EBB_PARITY_DISK";
/// Block devices that pass requests on to others.
const NOT_DISKS: [&str; 4] = ["dm-", "loop", "ram", "zram"];

/// A folder of a test's own, removed with it.
#[derive(Debug)]
pub struct DiskFolder {
    /// Where it is.
    pub path: PathBuf,
    /// The whole disk under it.
    pub device: Device,
}

impl DiskFolder {
    /// Makes one in the first of the places that is on a disk.
    ///
    /// # Panics
    /// If none is: a test of disks on a machine without one proves nothing.
    pub fn new() -> Self {
        let chosen = std::env::var_os(CHOSEN).map(PathBuf::from);
        let target = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target");
        let places = chosen.into_iter().chain([target, "/var/tmp".into()]);
        for place in places {
            drop(fs::create_dir_all(&place));
            if let Some(device) = disk_under(&place) {
                let path = place.join(format!("parity-disk-{}", std::process::id()));
                fs::create_dir_all(&path).unwrap();
                return Self { path, device };
            }
        }
        panic!("neither target/ nor /var/tmp is on a disk; name a folder that is: {CHOSEN}=FOLDER");
    }
}

impl Default for DiskFolder {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for DiskFolder {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.path) {
            eprintln!("{} cannot be removed: {error}", self.path.display());
        }
    }
}

fn disk_under(folder: &Path) -> Option<Device> {
    let number = rustix::fs::stat(folder).ok()?.st_dev;
    let entry = format!("/sys/dev/block/{}:{}", major(number), minor(number));
    let mut entry = fs::canonicalize(entry).ok()?;
    if entry.join("partition").exists() {
        entry.pop();
    }
    let name = entry.file_name()?.to_str()?;
    if NOT_DISKS.iter().any(|prefix| name.starts_with(prefix)) {
        return None;
    }
    let numbers = fs::read_to_string(entry.join("dev")).ok()?;
    let (major, minor) = numbers.trim().split_once(':')?;
    Some(Device {
        major: major.parse().ok()?,
        minor: minor.parse().ok()?,
    })
}
