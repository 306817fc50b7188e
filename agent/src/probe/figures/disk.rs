//! The counters of one container's traffic with block devices.

use ebb_agent_ebpf_common::{IO_BUCKETS, IoCounters};

use super::Figure;

/// Bits of the minor number in the kernel's `dev_t`.
const MINOR_BITS: u32 = 20;

/// A whole disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Device {
    /// Major number.
    pub major: u32,
    /// Minor number.
    pub minor: u32,
}

impl Device {
    /// From the kernel's `dev_t`.
    pub const fn from_kernel(device: u32) -> Self {
        Self {
            major: device >> MINOR_BITS,
            minor: device & ((1 << MINOR_BITS) - 1),
        }
    }
}

/// Traffic of a container with one block device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceCounters {
    /// The device.
    pub device: Device,
    /// Read.
    pub read_bytes: u64,
    /// Written. Of buffered writes, what writeback has issued on the container's behalf.
    pub write_bytes: u64,
    /// Read operations.
    pub read_count: Option<u64>,
    /// Write operations.
    pub write_count: Option<u64>,
    /// How long they took; from the probes only.
    pub latency: Option<DeviceLatency>,
}

/// How long requests to a block device took, and how many failed. From the probes only.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DeviceLatency {
    /// Requests that failed.
    pub errors: u64,
    /// Time that requests waited in the kernel before the device got them.
    pub queue_ns: u64,
    /// Time that the device took.
    pub device_ns: u64,
    /// Requests by time in the kernel's queue: `2^i <= us < 2^(i+1)`, a microsecond being 1,024 ns; bucket 0 also
    /// counts what was shorter, the last one is open.
    pub queue_hist: [u64; IO_BUCKETS],
    /// Requests by the device's time, in the same buckets.
    pub device_hist: [u64; IO_BUCKETS],
}

/// Traffic over all devices.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DiskTotals {
    /// Read.
    pub read_bytes: u64,
    /// Written.
    pub write_bytes: u64,
    /// Read operations, if they are known of every device.
    pub read_count: Option<u64>,
    /// Write operations, if they are known of every device.
    pub write_count: Option<u64>,
    /// Latency, if it is known of every device.
    pub latency: Option<DeviceLatency>,
}

/// Traffic over all these devices; that with no device is known, and nothing.
pub fn disk_totals(devices: &[DeviceCounters]) -> DiskTotals {
    let mut totals = DiskTotals {
        read_count: Some(0),
        write_count: Some(0),
        latency: Some(DeviceLatency::default()),
        ..DiskTotals::default()
    };
    let both = |sum: Option<u64>, one: Option<u64>| sum.zip(one).map(|(a, b)| a.saturating_add(b));
    for one in devices {
        totals.read_bytes = totals.read_bytes.saturating_add(one.read_bytes);
        totals.write_bytes = totals.write_bytes.saturating_add(one.write_bytes);
        totals.read_count = both(totals.read_count, one.read_count);
        totals.write_count = both(totals.write_count, one.write_count);
        totals.latency = totals
            .latency
            .zip(one.latency)
            .map(|(sum, one)| sum.with(&one));
    }
    totals
}

impl DeviceLatency {
    fn with(mut self, other: &Self) -> Self {
        self.errors = self.errors.saturating_add(other.errors);
        self.queue_ns = self.queue_ns.saturating_add(other.queue_ns);
        self.device_ns = self.device_ns.saturating_add(other.device_ns);
        for (sum, one) in self.queue_hist.iter_mut().zip(other.queue_hist) {
            *sum = sum.saturating_add(one);
        }
        for (sum, one) in self.device_hist.iter_mut().zip(other.device_hist) {
            *sum = sum.saturating_add(one);
        }
        self
    }
}

/// What the probes tell of one container's disks: the kernel's `dev_t` of each, and its counters.
pub(in crate::probe) fn disk_from_probes(
    devices: &[(u32, IoCounters)],
) -> Figure<Vec<DeviceCounters>> {
    let mut disks: Vec<_> = devices
        .iter()
        .map(|(device, counters)| DeviceCounters {
            device: Device::from_kernel(*device),
            read_bytes: counters.read_bytes,
            write_bytes: counters.write_bytes,
            read_count: Some(counters.read_count),
            write_count: Some(counters.write_count),
            latency: Some(DeviceLatency {
                errors: counters.errors,
                queue_ns: counters.queue_ns,
                device_ns: counters.device_ns,
                queue_hist: counters.queue_hist,
                device_hist: counters.device_hist,
            }),
        })
        .collect();
    disks.sort_by_key(|one| one.device);
    Figure::ebpf(disks)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn io(read_bytes: u64) -> IoCounters {
        IoCounters {
            read_bytes,
            write_bytes: 2,
            read_count: 1,
            write_count: 1,
            errors: 1,
            queue_ns: 5,
            device_ns: 6,
            queue_hist: [1; IO_BUCKETS],
            device_hist: [2; IO_BUCKETS],
        }
    }

    #[test]
    fn devices_are_kept_apart_in_order_and_their_totals_are_sums() {
        let disks = disk_from_probes(&[(8 << 20 | 16, io(4)), (8 << 20, io(3))]).value;
        let device = |minor| Device { major: 8, minor };
        assert_eq!((disks[0].device, disks[0].read_bytes), (device(0), 3));
        assert_eq!((disks[1].device, disks[1].read_bytes), (device(16), 4));
        let totals = disk_totals(&disks);
        assert_eq!((totals.read_bytes, totals.write_bytes), (7, 4));
        assert_eq!(totals.read_count, Some(2));
        let latency = totals.latency.unwrap();
        assert_eq!((latency.errors, latency.queue_ns), (2, 10));
        assert_eq!(latency.device_hist, [4; IO_BUCKETS]);
    }

    #[test]
    fn totals_lack_what_one_device_lacks() {
        let mut disks = disk_from_probes(&[(1, io(4)), (2, io(3))]).value;
        disks[1].read_count = None;
        disks[0].latency = None;
        let totals = disk_totals(&disks);
        assert_eq!((totals.read_count, totals.write_count), (None, Some(2)));
        assert_eq!(totals.latency, None);
        assert_eq!(disk_totals(&[]).read_count, Some(0));
    }
}
