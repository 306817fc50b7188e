//! Traffic with block devices: by container and device, and the requests on their way.

use crate::counters::bucket;

/// Buckets of the latency histograms of block devices: bucket `i` counts `2^i <= us < 2^(i+1)` in units of 1,024 ns,
/// bucket 0 also everything shorter, the last one everything from 8.6 s on.
pub const IO_BUCKETS: usize = 24;

/// Whose traffic with which block device.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct IoKey {
    /// [`crate::Registration::stamp`] of the container; 0 for all that belongs to none. Not its slot, which may have passed
    /// to another container by the time that a request ends.
    pub stamp: u64,
    /// The whole disk: major number times 2^20 plus minor number, as the kernel's `dev_t`.
    pub device: u64,
}

/// Traffic with one block device. Made by the probes at the first request, removed by the agent with the container;
/// the probes add atomically, since requests end on any CPU.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IoCounters {
    /// Bytes that the device was to read.
    pub read_bytes: u64,
    /// Bytes that it was to write.
    pub write_bytes: u64,
    /// Requests that read.
    pub read_count: u64,
    /// Requests that wrote.
    pub write_count: u64,
    /// Requests that failed.
    pub errors: u64,
    /// Time that requests waited in the kernel before the device got them.
    pub queue_ns: u64,
    /// Time that the device took.
    pub device_ns: u64,
    /// Requests by the logarithm of their time in the kernel's queue; see [`io_bucket`].
    pub queue_hist: [u64; IO_BUCKETS],
    /// Requests by the logarithm of the device's time; see [`io_bucket`].
    pub device_hist: [u64; IO_BUCKETS],
}

/// A request that a block device has. Keyed by the request's address.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Issued {
    /// When the device got it, by the monotonic clock.
    pub at_ns: u64,
    /// When the kernel began it; 0 if the kernel keeps no accounts of the device.
    pub began_ns: u64,
    /// Whose it is, and with which device.
    pub key: IoKey,
}

/// The bucket of a latency of a block device.
#[inline(always)]
pub const fn io_bucket(ns: u64) -> usize {
    let log = bucket(ns >> 10);
    if log < IO_BUCKETS {
        log
    } else {
        IO_BUCKETS - 1
    }
}

const _: () = assert!(size_of::<IoKey>() == 16);
const _: () = assert!(size_of::<IoCounters>() == 8 * (7 + 2 * IO_BUCKETS));
const _: () = assert!(size_of::<Issued>() == 32);
