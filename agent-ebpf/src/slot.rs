//! Slots: where containers are known, and where their counters stand.

use core::{arch::asm, ptr};

use aya_ebpf::{
    bindings::{BPF_F_MMAPABLE, BPF_F_NO_PREALLOC},
    btf_maps::{Array, HashMap},
};
use ebb_agent_ebpf_common::{
    Class, Current, DEFAULT_SLOTS, IDLE_SLOT, Levels, MAX_LEVELS, OwnerKey, PLACES, Place,
    Registration, SlotCounters, Tree, Trouble, UNMANAGED_SLOT,
};

use aya_ebpf::macros::btf_map;

use crate::kernel::{self, Cgroup, RawCgroup, Task};

const MAPPED: usize = BPF_F_MMAPABLE as usize;

/// Sizes that depend on the machine are set by the loader.
#[btf_map]
pub static COUNTERS: Array<SlotCounters, { DEFAULT_SLOTS as usize }, MAPPED> = Array::new();

#[btf_map]
pub static CURRENT: Array<Current, 1, MAPPED> = Array::new();

#[btf_map]
static PLACE_CACHE: Array<Place, { PLACES as usize }> = Array::new();

#[btf_map]
pub static REGISTRY: HashMap<u64, Registration, { DEFAULT_SLOTS as usize }> = HashMap::new();

#[btf_map]
static OWNERS: HashMap<
    OwnerKey,
    Registration,
    { DEFAULT_SLOTS as usize },
    { BPF_F_NO_PREALLOC as usize },
> = HashMap::new();

#[btf_map]
pub static LEVELS: Array<Levels, 1> = Array::new();

#[btf_map]
pub static TROUBLE: Array<Trouble, 1, MAPPED> = Array::new();

pub const UNMANAGED: Registration = Registration {
    slot: UNMANAGED_SLOT,
    class: Class::Unmanaged as u16,
    cpu_depth: 0,
    stamp: 0,
};
pub const IDLE: Registration = Registration {
    slot: IDLE_SLOT,
    class: Class::Unmanaged as u16,
    cpu_depth: 0,
    stamp: 0,
};

/// Where something stands that each slot has on each CPU: here on this one.
#[inline(always)]
pub fn index(slot: u32) -> u32 {
    slot * (kernel::global(&kernel::CPUS) as u32) + kernel::cpu()
}

/// The counters of a slot on this CPU.
#[inline(always)]
pub fn counters(slot: u32) -> Option<*mut SlotCounters> {
    COUNTERS.get_ptr_mut(index(slot))
}

/// What is known of the task on this CPU.
#[inline(always)]
pub fn current() -> Option<*mut Current> {
    CURRENT.get_ptr_mut(kernel::cpu())
}

/// Adds to a counter that a program which interrupts this one may add to as well.
#[inline(always)]
pub fn add(counter: &mut u64, value: u64) {
    // Written out, since the bpf target of Rust has no atomic operations.
    // SAFETY: an aligned counter in a map; the instruction changes nothing else.
    unsafe {
        asm!(
            "lock *(u64 *)({counter} + 0) += {value}",
            counter = in(reg) ptr::from_mut(counter),
            value = in(reg) value,
            options(nostack),
        );
    }
}

/// Counts something that could not be done.
#[inline(always)]
pub fn trouble(which: impl FnOnce(&mut Trouble) -> &mut u64) {
    if let Some(trouble) = TROUBLE.get_ptr_mut(0) {
        // SAFETY: a value of the map; its fields are only added to atomically.
        add(which(unsafe { &mut *trouble }), 1);
    }
}

/// Where a task is charged: the deepest registered cgroup above it.
#[inline(always)]
pub fn place(task: &Task) -> Registration {
    if task.pid() == 0 {
        return IDLE;
    }
    let (Some(cgroup), Some(levels)) = (Cgroup::of(task), LEVELS.get(0)) else {
        return UNMANAGED;
    };
    let id = cgroup.id();
    // Read before the registry, so that what is remembered is never newer than it says.
    let epoch = levels.epoch;
    let cached = PLACE_CACHE.get_ptr_mut(kernel::cpu() * PLACES + (id as u32 & (PLACES - 1)));
    let Some(cached) = cached else {
        return UNMANAGED;
    };
    // SAFETY: the value of this CPU. Another program may come between, and then writes what is as true as this.
    let cached = unsafe { &mut *cached };
    if cached.id == id && cached.epoch == epoch {
        return cached.registration;
    }
    let registration = find(cgroup.raw(), levels, Tree::V2 as u64);
    cached.id = id;
    cached.epoch = epoch;
    cached.registration = registration;
    registration
}

/// The same for a cgroup of any tree.
#[inline(always)]
pub fn place_of(cgroup: &Cgroup, tree: u64) -> Registration {
    let Some(levels) = LEVELS.get(0) else {
        return UNMANAGED;
    };
    // Nearly always it is the container's own cgroup.
    let level = cgroup.level();
    if level == depths(levels, tree)[0]
        && let Some(found) = registered(cgroup.id(), tree)
    {
        return found;
    }
    find(cgroup.raw(), levels, tree)
}

/// The same for a cgroup that the verifier knows nothing of.
#[inline(always)]
pub fn place_of_raw(cgroup: RawCgroup, tree: u64) -> Registration {
    match LEVELS.get(0) {
        Some(levels) => find(cgroup, levels, tree),
        None => UNMANAGED,
    }
}

#[inline(always)]
fn depths(levels: &Levels, tree: u64) -> &[u32; MAX_LEVELS] {
    match tree {
        1 => &levels.depth[1],
        2 => &levels.depth[2],
        _ => &levels.depth[0],
    }
}

#[inline(always)]
fn find(cgroup: RawCgroup, levels: &Levels, tree: u64) -> Registration {
    let depths = depths(levels, tree);
    let level = cgroup.level();
    for i in 0..MAX_LEVELS {
        let depth = depths[i];
        if depth == 0 {
            break;
        }
        if depth > level {
            continue;
        }
        if let Some(found) = registered(cgroup.ancestor_id(depth), tree) {
            return found;
        }
    }
    UNMANAGED
}

#[inline(always)]
fn registered(id: u64, tree: u64) -> Option<Registration> {
    if tree == Tree::V2 as u64 {
        // SAFETY: an entry is replaced or removed only by the agent; at worst one stay is charged to its old slot.
        return unsafe { REGISTRY.get(&id) }.copied();
    }
    let key = OwnerKey { id, tree };
    // SAFETY: as above.
    unsafe { OWNERS.get(&key) }.copied()
}
