//! What the probes tell by itself, and what they could not do.

/// A task was killed for want of memory. Sent through the ring buffer.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OomKill {
    /// [`crate::Registration::stamp`] of the victim's container; 0 if it is in none.
    pub stamp: u64,
    /// The kernel's monotonic clock.
    pub at_ns: u64,
    /// Process id of the victim.
    pub pid: u32,
    /// The process that asked for the memory that there was not.
    pub asked_by: u32,
}

/// What the probes could not do. Written by all of them, with atomic additions.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// Events for which the ring buffer had no room.
    pub events_lost: u64,
    /// Requests to block devices that found no room in a map.
    pub io_untracked: u64,
}

const _: () = assert!(size_of::<OomKill>() == 24);
const _: () = assert!(size_of::<Trouble>() == 16);
