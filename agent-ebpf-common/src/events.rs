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

/// When the demand of a container that owns its resources is told at once: one a slot, for all CPUs together.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Surge {
    /// Demand within [`SURGE_WINDOW_NS`] that is told; 0 if none is. Written by the agent; the probe makes it 0 when it
    /// has told, so that nothing is told twice.
    pub limit_ns: u64,
    /// When the window began. Written by the probe, as what follows: by several CPUs at once, of which one may lose.
    pub since_ns: u64,
    /// CPU time and waits in the window.
    pub demand_ns: u64,
}

impl Surge {
    /// Nothing is told.
    pub const ZERO: Self = Self {
        limit_ns: 0,
        since_ns: 0,
        demand_ns: 0,
    };
}

/// The time in which demand is added up.
pub const SURGE_WINDOW_NS: u64 = 10_000_000;

/// Binary logarithm of how much a counter of one CPU grows between two looks at what has been added up, in
/// nanoseconds: half a millisecond.
pub const SURGE_STEP_SHIFT: u32 = 19;

/// A demand was told. Sent through a ring buffer of its own, on which the agent waits.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Alert {
    /// The kernel's monotonic clock.
    pub at_ns: u64,
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
const _: () = assert!(size_of::<Surge>() == 24);
const _: () = assert!(size_of::<Alert>() == 8);
const _: () = assert!(size_of::<Trouble>() == 16);
