//! Traffic with block devices, from `blkio` or `io.stat`.
//!
//! Of both the kernel charges a buffered write to the cgroup whose page it was, but of v1 only where the file system
//! and the memory controller play together in v2: there, writeback belongs to the root.

use std::collections::BTreeMap;

use super::super::figures::{Device, DeviceCounters};
use super::CgroupPaths;
use super::kept::{Kept, read};

#[derive(Debug)]
pub(super) enum DiskFiles {
    V1 {
        bytes: Kept,
        operations: Option<Kept>,
    },
    V2 {
        stat: Kept,
    },
    None,
}

impl DiskFiles {
    pub(super) fn open(paths: &CgroupPaths) -> Self {
        let blkio = paths.blkio.as_deref();
        let recursive = |name: &str| {
            Kept::open(blkio, &format!("blkio.throttle.{name}_recursive"))
                .or_else(|| Kept::open(blkio, &format!("blkio.throttle.{name}")))
        };
        if let Some(bytes) = recursive("io_service_bytes") {
            Self::V1 {
                bytes,
                operations: recursive("io_serviced"),
            }
        } else if let Some(stat) = Kept::open(paths.v2.as_deref(), "io.stat") {
            Self::V2 { stat }
        } else {
            Self::None
        }
    }

    pub(super) fn read(&self) -> Option<Vec<DeviceCounters>> {
        match self {
            Self::V1 { bytes, operations } => {
                let bytes = bytes.read(|text| Some(blkio(text)))?;
                let counts = read(operations.as_ref(), |text| Some(blkio(text)));
                Some(join(bytes, counts.as_ref()))
            }
            Self::V2 { stat } => stat.read(|text| Some(io_stat(text))),
            Self::None => None,
        }
    }
}

/// Read and written.
pub(super) type ReadWrite = BTreeMap<Device, (u64, u64)>;

/// Read and written of each device, from `8:0 Read 4096` lines.
pub(super) fn blkio(text: &str) -> ReadWrite {
    let mut devices = ReadWrite::new();
    for line in text.lines() {
        let mut words = line.split_ascii_whitespace();
        let (Some(device), Some(kind), Some(value)) = (words.next(), words.next(), words.next())
        else {
            continue;
        };
        let (Some(device), Ok(value)) = (device_of(device), value.parse::<u64>()) else {
            continue;
        };
        match kind {
            "Read" => devices.entry(device).or_default().0 = value,
            "Write" => devices.entry(device).or_default().1 = value,
            _ => {}
        }
    }
    devices
}

/// A device without operations has none known, not none.
pub(super) fn join(bytes: ReadWrite, counts: Option<&ReadWrite>) -> Vec<DeviceCounters> {
    let one = |(device, (read_bytes, write_bytes))| {
        let counts = counts.and_then(|counts| counts.get(&device));
        DeviceCounters {
            device,
            read_bytes,
            write_bytes,
            read_count: counts.map(|counts| counts.0),
            write_count: counts.map(|counts| counts.1),
            latency: None,
        }
    };
    bytes.into_iter().map(one).collect()
}

/// Each device of `8:0 rbytes=1 wbytes=2 rios=3 wios=4` lines.
pub(super) fn io_stat(text: &str) -> Vec<DeviceCounters> {
    let mut devices: Vec<_> = text.lines().filter_map(io_stat_line).collect();
    devices.sort_by_key(|one| one.device);
    devices.dedup_by_key(|one| one.device);
    devices
}

fn io_stat_line(line: &str) -> Option<DeviceCounters> {
    let mut words = line.split_ascii_whitespace();
    let device = device_of(words.next()?)?;
    let (mut read_bytes, mut write_bytes) = (None, None);
    let (mut read_count, mut write_count) = (None, None);
    for (name, value) in words.filter_map(|word| word.split_once('=')) {
        let place = match name {
            "rbytes" => &mut read_bytes,
            "wbytes" => &mut write_bytes,
            "rios" => &mut read_count,
            "wios" => &mut write_count,
            _ => continue,
        };
        *place = value.parse().ok();
    }
    Some(DeviceCounters {
        device,
        read_bytes: read_bytes?,
        write_bytes: write_bytes?,
        read_count,
        write_count,
        latency: None,
    })
}

fn device_of(text: &str) -> Option<Device> {
    let (major, minor) = text.split_once(':')?;
    Some(Device {
        major: major.parse().ok()?,
        minor: minor.parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::super::super::figures::disk_totals;
    use super::super::testing::{folder, v1, v2};
    use super::*;

    #[test]
    fn v2_devices_are_read_apart() {
        let folder = folder(&[(
            "io.stat",
            "8:16 rbytes=1 wbytes=2 rios=3 wios=4\n8:0 rbytes=10 wbytes=20 rios=1 wios=2 dbytes=9 dios=9\n7:0 \n",
        )]);
        let disks = DiskFiles::open(&v2(&folder)).read().unwrap();
        let places: Vec<_> = disks.iter().map(|one| one.device.minor).collect();
        assert_eq!(places, [0, 16]);
        let totals = disk_totals(&disks);
        assert_eq!((totals.read_bytes, totals.write_bytes), (11, 22));
        assert_eq!((totals.read_count, totals.write_count), (Some(4), Some(6)));
        assert_eq!(totals.latency, None);
    }

    #[test]
    fn v1_devices_are_read_with_what_stands_below_and_operations_where_they_are_told() {
        let files = [
            (
                "blkio.throttle.io_service_bytes_recursive",
                "8:0 Read 5\n8:0 Write 6\n8:0 Sync 11\n8:0 Total 11\nTotal 11\n",
            ),
            ("blkio.throttle.io_service_bytes", "8:0 Read 1\n"),
        ];
        let without = folder(&files);
        let disks = DiskFiles::open(&v1(&without)).read().unwrap();
        assert_eq!((disks[0].read_bytes, disks[0].write_bytes), (5, 6));
        assert_eq!(disks[0].read_count, None);
        let operations = (
            "blkio.throttle.io_serviced_recursive",
            "8:0 Read 2\n8:0 Write 3\n",
        );
        let with = folder(&[files[0], operations]);
        let disks = DiskFiles::open(&v1(&with)).read().unwrap();
        assert_eq!(disks[0].write_count, Some(3));
    }

    #[test]
    fn no_traffic_is_none_at_no_device_and_no_file_is_absent() {
        let empty = folder(&[("io.stat", "")]);
        assert_eq!(DiskFiles::open(&v2(&empty)).read(), Some(Vec::new()));
        assert_eq!(DiskFiles::open(&CgroupPaths::default()).read(), None);
    }
}
