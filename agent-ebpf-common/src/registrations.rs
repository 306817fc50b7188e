//! Which cgroup is charged to which slot, and where containers stand in the trees of cgroups.

/// Depths of the cgroup tree at which containers may stand at the same time.
pub const MAX_LEVELS: usize = 4;

/// What a container is to its neighbours.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// No container at all.
    Unmanaged = 0,
    /// Runs on resources of its own.
    Owned = 1,
    /// Runs on lent resources.
    Revocable = 2,
}

/// Which slot a cgroup is charged to. Written by the agent when a container comes, keyed by the cgroup's v2 id.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Registration {
    /// Index into the counters.
    pub slot: u32,
    /// [`Class`] of the container.
    pub class: u16,
    /// Depth of the container's cgroup in the tree of the cpu controller; 0 if not known.
    pub cpu_depth: u16,
    /// Another number for each registration, never 0: a slot is used again, a stamp is not.
    pub stamp: u64,
}

/// A cgroup in a tree other than the v2 one.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OwnerKey {
    /// Its id.
    pub id: u64,
    /// [`Tree`].
    pub tree: u64,
}

/// A tree of cgroups.
#[repr(u64)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tree {
    /// The one tree of v2.
    V2 = 0,
    /// The v1 tree of the memory controller.
    Memory = 1,
    /// The v1 tree of the blkio controller.
    Io = 2,
}

/// The number of values of [`Tree`].
pub const TREES: usize = 3;

/// Depths of the cgroup trees at which containers stand. Written by the agent.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Levels {
    /// Grows with every change of a registration, so that what was remembered before is known to be old.
    pub epoch: u64,
    /// The depths by [`Tree`], deepest first, 0 after the last; the root has depth 0.
    pub depth: [[u32; MAX_LEVELS]; TREES],
}

/// Cgroups that a CPU remembers, with their slots.
pub const PLACES: u32 = 64;

/// Where a cgroup was found to belong. Written by the probe on one CPU alone.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The cgroup's v2 id.
    pub id: u64,
    /// [`Levels::epoch`] when it was found.
    pub epoch: u64,
    /// What was found.
    pub registration: Registration,
}

const _: () = assert!(size_of::<Registration>() == 16);
const _: () = assert!(size_of::<OwnerKey>() == 16);
const _: () = assert!(size_of::<Levels>() == 8 + 4 * MAX_LEVELS * TREES);
const _: () = assert!(PLACES.is_power_of_two());
const _: () = assert!(size_of::<Place>() == 32);
