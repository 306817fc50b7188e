//! Disks that are devices: how containers are told of them. Which device a disk is on this machine, the core does not know.

use std::collections::BTreeSet;

use ebb_types::{DiskSource, LotKey, Lots};

/// Where containers find the devices of their disks, by name.
const FOLDER: &str = "/dev/ebb";
/// The variable that names them: `NAME=PATH`, separated by commas.
pub const DISKS_VARIABLE: &str = "EBB_DISKS";

/// The name of the device that a lot is.
pub fn disk_name(key: &LotKey) -> Option<&str> {
    match key.source() {
        Some(DiskSource::Block { id, .. } | DiskSource::Raw { id, .. }) => Some(id),
        _ => None,
    }
}

/// The names of the devices that whoever has some lots may use. What was made a volume of is no device.
fn names(lots: &Lots) -> BTreeSet<String> {
    let plain = lots.iter().filter(|(key, _)| key.volume().is_none());
    plain
        .filter_map(|(key, _)| disk_name(key))
        .map(str::to_owned)
        .collect()
}

/// What [`DISKS_VARIABLE`] says of some devices.
fn told(names: &BTreeSet<String>) -> String {
    let each: Vec<String> = names
        .iter()
        .map(|name| format!("{name}={FOLDER}/{name}"))
        .collect();
    each.join(",")
}

/// Names a container's devices to it, where it has any.
pub(super) fn name_devices(
    lots: &Lots,
    environment: &mut Vec<(String, String)>,
) -> BTreeSet<String> {
    let names = names(lots);
    if !names.is_empty() {
        environment.push((DISKS_VARIABLE.to_owned(), told(&names)));
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_container_is_told_the_devices_among_its_lots() {
        let some = lots("disk[block:b]:1GiB;disk[raw:a:ssd]:1GiB;disk[mount:/m]:1GiB;ports:[1-2]");
        let names = names(&some);
        assert_eq!(told(&names), "a=/dev/ebb/a,b=/dev/ebb/b");
        assert!(super::names(&lots("ports:[1-2]")).is_empty());
    }

    fn lots(text: &str) -> Lots {
        let written: ebb_types::WrittenResources = text.parse().expect("resources");
        written.lots
    }
}
