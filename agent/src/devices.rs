//! Disks that are devices: BLOCK and RAW lots, and the block devices behind them.
//!
//! A lot says a name, and the settings say which device that is on this machine. Every such disk has a device, every
//! device is one disk's, none is a part of another, and the machine itself uses none: so whoever holds the lot, which is
//! given away as a whole, holds the device alone. Whoever holds it next finds what was left on it.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use ebb_types::Lots;
use rustix::fs::{major, minor};

use crate::core::disk_name;
use crate::probe::check_device_filter;

/// Longest name, in bytes.
pub const MAX_NAME_BYTES: usize = 64;

/// Where the kernel says what block devices are, by their numbers.
const BLOCK_DEVICES: &str = "/sys/dev/block";

/// The devices of an agent, by the names of its disks.
pub type Devices = BTreeMap<String, PathBuf>;

/// Whether a device may be called so: it is a file's name in containers, and a part of a list.
pub fn is_name(text: &str) -> bool {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    (1..=MAX_NAME_BYTES).contains(&text.len())
        && text.chars().all(is_plain)
        && !matches!(text, "." | "..")
}

/// Looks whether disks and devices go together, and can be given to containers.
///
/// # Errors
/// A sentence that says what does not, and what to do.
pub fn check(
    lots: &Lots,
    devices: &Devices,
    work_dir: &Path,
    cgroup2: Option<&Path>,
) -> Result<(), String> {
    let disks = disks(lots)?;
    if let Some(disk) = disks.iter().find(|disk| !devices.contains_key(**disk)) {
        return Err(format!(
            "the disk {disk:?} has no device; say which it is under [devices] in the configuration, like {disk} = \"/dev/sdb\", or with --device {disk}=/dev/sdb"
        ));
    }
    if devices.is_empty() {
        return Ok(());
    }
    if work_dir.starts_with("/dev") {
        return Err(format!(
            "the work folder {} is below /dev, of which containers have their own on an agent with devices; choose another with --work-dir",
            work_dir.display()
        ));
    }
    let mounts = std::fs::read("/proc/self/mountinfo")
        .map_err(|error| format!("cannot read which devices are mounted: {error}"))?;
    let mounts = String::from_utf8_lossy(&mounts);
    let mounted = mounted(&mounts);
    let mut known = BTreeMap::new();
    for (name, path) in devices {
        if !disks.contains(name.as_str()) {
            return Err(format!(
                "the device {name:?} is no disk's; offer it with resources = \"disk[block:{name}]:SIZE\", or take it out of [devices]"
            ));
        }
        let extent = look_at(name, path)?;
        let mut parts = mounted.iter().map(|(number, at)| (extent_of(*number), at));
        if let Some((_, at)) = parts.find(|(part, _)| part.overlaps(extent)) {
            return Err(format!(
                "the device {name} = {} is mounted at {at}, or a part of it is; unmount that, or name another device",
                path.display()
            ));
        }
        let mut others = known.iter();
        if let Some((other, _)) = others.find(|(_, other)| extent.overlaps(**other)) {
            return Err(format!(
                "the devices {other:?} and {name:?} are one and the same, or one is a part of the other; give each disk a device of its own"
            ));
        }
        known.insert(name, extent);
    }
    check_filter(cgroup2)
}

/// The names of the disks that are devices, each once.
fn disks(lots: &Lots) -> Result<BTreeSet<&str>, String> {
    let mut disks = BTreeSet::new();
    for (key, _) in lots.iter() {
        let Some(name) = disk_name(key) else { continue };
        if name.is_empty() {
            return Err(format!(
                "{key} has no name, so there is no device for it; give it one, like disk[raw:NAME:PROFILE]"
            ));
        }
        if !disks.insert(name) {
            return Err(format!(
                "there are two disks {name:?} among the resources, and whoever held one would have the other's device; give each a name of its own"
            ));
        }
    }
    Ok(disks)
}

/// Looks whether the kernel will keep containers to their devices.
fn check_filter(cgroup2: Option<&Path>) -> Result<(), String> {
    let answer = match cgroup2 {
        None => Err("cgroup v2 is not mounted".to_owned()),
        Some(_) => check_device_filter().map_err(|error| error.to_string()),
    };
    answer.map_err(|why| {
        format!(
            "the kernel does not keep containers to their devices ({why}), so there are none to give away; mount cgroup2 and allow eBPF, or take [devices] and their disks out of the configuration"
        )
    })
}

/// What a device is made of: the whole disk, and which partition of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Extent {
    disk: (u32, u32),
    partition: Option<(u32, u32)>,
}

impl Extent {
    fn overlaps(self, other: Self) -> bool {
        let apart = self.partition.is_some()
            && other.partition.is_some()
            && self.partition != other.partition;
        self.disk == other.disk && !apart
    }
}

/// The extent of the device with this number. One that the kernel says nothing of is whole.
fn extent_of(number: (u32, u32)) -> Extent {
    let place = Path::new(BLOCK_DEVICES).join(format!("{}:{}", number.0, number.1));
    let whole = Extent {
        disk: number,
        partition: None,
    };
    if !place.join("partition").exists() {
        return whole;
    }
    // A partition's folder stands in its disk's, which a link leads to.
    let above = std::fs::canonicalize(&place).ok();
    let disk = above.and_then(|place| std::fs::read_to_string(place.parent()?.join("dev")).ok());
    match disk.as_deref().and_then(number_of) {
        Some(disk) => Extent {
            disk,
            partition: Some(number),
        },
        None => whole,
    }
}

/// `MAJOR:MINOR`.
fn number_of(text: &str) -> Option<(u32, u32)> {
    let (major, minor) = text.trim().split_once(':')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

/// The numbers of what is mounted, and where, by the text of a `mountinfo` file.
fn mounted(mountinfo: &str) -> Vec<((u32, u32), &str)> {
    let lines = mountinfo.lines().map(|line| line.split(' '));
    lines
        .filter_map(|mut fields| Some((number_of(fields.nth(2)?)?, fields.nth(1)?)))
        .collect()
}

/// The number of the device at a path, if there is one.
pub(crate) fn number_at(path: &Path) -> Option<u64> {
    let found = std::fs::metadata(path).ok()?;
    found.file_type().is_block_device().then(|| found.rdev())
}

fn look_at(name: &str, path: &Path) -> Result<Extent, String> {
    let shown = path.display();
    let found = std::fs::metadata(path).map_err(|error| {
        format!(
            "the device {name} = {shown} cannot be looked at ({error}); name one that lsblk shows"
        )
    })?;
    if !found.file_type().is_block_device() {
        return Err(format!(
            "the device {name} = {shown} is no block device; name one that lsblk shows"
        ));
    }
    let number = found.rdev();
    Ok(extent_of((major(number), minor(number))))
}

#[cfg(test)]
mod tests {
    use ebb_types::WrittenResources;

    use super::*;

    fn lots(text: &str) -> Lots {
        let written: WrittenResources = text.parse().expect("resources");
        written.lots
    }

    fn devices(pairs: &[(&str, &str)]) -> Devices {
        let pairs = pairs.iter();
        pairs
            .map(|(name, path)| ((*name).to_owned(), PathBuf::from(path)))
            .collect()
    }

    fn look(lots: &Lots, devices: &Devices) -> Result<(), String> {
        check(lots, devices, Path::new("/var/lib/ebb"), None)
    }

    #[test]
    fn a_work_folder_that_containers_would_not_see_is_refused() {
        let (lots, devices) = (lots("disk[block:d]:1GiB"), devices(&[("d", "/dev/x")]));
        let refused = check(&lots, &devices, Path::new("/dev/shm/ebb"), None);
        assert!(refused.is_err_and(|rule| rule.contains("--work-dir")));
    }

    #[test]
    fn a_disk_overlaps_with_its_partitions_and_they_not_with_each_other() {
        let extent = |partition| Extent {
            disk: (8, 0),
            partition,
        };
        let (whole, one, two) = (extent(None), extent(Some((8, 1))), extent(Some((259, 7))));
        for (a, b, overlap) in [
            (whole, whole, true),
            (whole, one, true),
            (one, whole, true),
            (one, one, true),
            (one, two, false),
        ] {
            assert_eq!(a.overlaps(b), overlap, "{a:?} {b:?}");
        }
        let other = Extent {
            disk: (8, 16),
            partition: None,
        };
        assert!(!whole.overlaps(other) && !one.overlaps(other));
    }

    #[test]
    fn what_is_mounted_is_known_by_its_number() {
        let text = "25 1 254:0 / / rw,relatime - ext4 /dev/root rw\n\
                    31 25 0:26 /a /b\\040c rw - tmpfs tmpfs rw\nbroken\n";
        assert_eq!(mounted(text), [((254, 0), "/"), ((0, 26), "/b\\040c")]);
    }

    #[test]
    fn names_are_those_of_files() {
        for good in ["a", "nvme-0.1_x", "..."] {
            assert!(is_name(good), "{good}");
        }
        let long = "x".repeat(MAX_NAME_BYTES + 1);
        for bad in ["", ".", "..", "a/b", "a=b", "a,b", "a b", "ä", &long] {
            assert!(!is_name(bad), "{bad}");
        }
    }

    #[test]
    fn disks_and_devices_that_do_not_go_together_are_refused_with_a_sentence() {
        let disk = "disk[block:d]:1GiB";
        for (text, pairs, words) in [
            (disk, devices(&[]), ["has no device", "--device d="]),
            (
                "ports:[1-2]",
                devices(&[("d", "/dev/x")]),
                ["is no disk's", "resources ="],
            ),
            (
                disk,
                devices(&[("d", "/dev/null")]),
                ["no block device", "lsblk"],
            ),
            (
                disk,
                devices(&[("d", "/etc/passwd")]),
                ["no block device", "lsblk"],
            ),
            (
                disk,
                devices(&[("d", "/no/such")]),
                ["No such file", "lsblk"],
            ),
            (
                "disk[block:d]:1GiB;disk[raw:d]:1GiB",
                devices(&[("d", "/dev/x")]),
                ["two disks \"d\"", "a name of its own"],
            ),
            (
                "disk[raw::ssd]:1GiB",
                devices(&[]),
                ["has no name", "disk[raw:NAME:PROFILE]"],
            ),
        ] {
            let refused = look(&lots(text), &pairs).expect_err("taken");
            assert!(words.iter().all(|word| refused.contains(word)), "{refused}");
        }
        assert_eq!(look(&Lots::NONE, &Devices::new()), Ok(()));
    }
}
