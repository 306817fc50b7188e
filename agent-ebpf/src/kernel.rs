//! The kernel's own records, as far as the probes read them.
//!
//! Each field is found at an offset that the agent took from the running kernel's BTF and handed over as a read-only
//! global; the verifier knows it as a constant and checks the access against the same BTF. A pointer that is null, or
//! that the kernel does not vouch for, reads as "nothing": `None` or 0.

use core::ptr;

use aya_ebpf::{
    bindings::task_struct,
    helpers::generated::{bpf_get_smp_processor_id, bpf_ktime_get_ns, bpf_probe_read_kernel},
};

/// The group of a task's scheduling entity stands at most so far above the task.
const MAX_CLIMB: u32 = 4;

/// Declares read-only globals that the loader overrides. Plain integers, since the kernel refuses type information
/// with the names of Rust's generic unions, as `aya_ebpf::Global` has one.
macro_rules! globals {
    ($($name:ident),+ $(,)?) => {
        $(#[unsafe(no_mangle)] pub static $name: u64 = 0;)+
    };
}

globals!(
    CPUS,
    TASK_PID,
    TASK_TGID,
    TASK_START,
    TASK_VOLUNTARY,
    TASK_FAULTS_MINOR,
    TASK_FAULTS_MAJOR,
    TASK_EXEC,
    TASK_MIGRATIONS,
    TASK_WAIT,
    TASK_ARRIVALS,
    HAS_WAIT,
    TASK_ENTITY,
    ENTITY_DEPTH,
    ENTITY_PARENT,
    ENTITY_QUEUE,
    QUEUE_HELD,
    QUEUE_LIMITED,
    QUEUE_REMAINING,
    HAS_QUOTA,
    TASK_CSS_SET,
    CSS_SET_CGROUP,
    CGROUP_NODE,
    CGROUP_LEVEL,
    CGROUP_ANCESTORS,
    ANCESTORS_ARE_POINTERS,
    NODE_ID,
    REQUEST_BIO,
    REQUEST_FLAGS,
    REQUEST_BYTES,
    REQUEST_START,
    REQUEST_QUEUE,
    QUEUE_DISK,
    DISK_MAJOR,
    DISK_MINOR,
    BIO_GROUP,
    BIO_PAGES,
    GROUP_BLKCG,
    BLKCG_CGROUP,
    PAGE_HEAD,
    PAGE_MEMCG,
    MEMCG_CGROUP,
    HAS_MEMCG,
    HAS_BLKCG,
    MEMORY_TREE,
    IO_TREE,
    VICTIMS_BY_PID,
);

/// A task that the kernel vouches for.
pub struct Task(pub *mut task_struct);

/// Declares accessors of a task's fields.
macro_rules! fields {
    ($($name:ident: $type:ty = $offset:ident;)+) => {
        $(#[inline(always)]
        pub fn $name(&self) -> $type {
            load::<$type>(self.0.cast(), global(&$offset))
        })+
    };
}

impl Task {
    fields! {
        pid: u32 = TASK_PID;
        tgid: u32 = TASK_TGID;
        start_ns: u64 = TASK_START;
        exec_ns: u64 = TASK_EXEC;
        voluntary: u64 = TASK_VOLUNTARY;
        faults_minor: u64 = TASK_FAULTS_MINOR;
        faults_major: u64 = TASK_FAULTS_MAJOR;
        migrations: u64 = TASK_MIGRATIONS;
    }

    #[inline(always)]
    pub fn wait_ns(&self) -> u64 {
        if flag(&HAS_WAIT) {
            load::<u64>(self.0.cast(), global(&TASK_WAIT))
        } else {
            0
        }
    }

    #[inline(always)]
    pub fn arrivals(&self) -> u64 {
        if flag(&HAS_WAIT) {
            load::<u64>(self.0.cast(), global(&TASK_ARRIVALS))
        } else {
            0
        }
    }

    /// The run queue of the group at this depth of the cpu controller's tree, on the task's CPU.
    #[inline(always)]
    pub fn group_queue(&self, depth: u32) -> Option<GroupQueue> {
        if !flag(&HAS_QUOTA) || depth == 0 {
            return None;
        }
        // SAFETY: the verifier knows the entity as a part of the task.
        let mut entity = unsafe { self.0.cast::<u8>().byte_add(global(&TASK_ENTITY) as usize) };
        for _ in 0..MAX_CLIMB {
            if load::<u32>(entity, global(&ENTITY_DEPTH)) <= depth {
                break;
            }
            entity = load::<*mut u8>(entity, global(&ENTITY_PARENT));
            if entity.is_null() {
                return None;
            }
        }
        let queue = load::<*mut u8>(entity, global(&ENTITY_QUEUE));
        if queue.is_null() {
            None
        } else {
            Some(GroupQueue(queue))
        }
    }
}

/// The run queue of a group of tasks on one CPU.
pub struct GroupQueue(*mut u8);

impl GroupQueue {
    /// Its address, by which it is known.
    #[inline(always)]
    pub fn address(&self) -> u64 {
        self.0 as u64
    }

    /// Time for which quotas have held it back.
    #[inline(always)]
    pub fn held_ns(&self) -> u64 {
        load::<u64>(self.0, global(&QUEUE_HELD))
    }

    /// Whether it has a quota and has used it up.
    #[inline(always)]
    pub fn is_exhausted(&self) -> bool {
        load::<u32>(self.0, global(&QUEUE_LIMITED)) != 0
            && load::<i64>(self.0, global(&QUEUE_REMAINING)) <= 0
    }
}

/// The cgroup of the v2 tree that a task is in.
pub struct Cgroup(*mut u8);

impl Cgroup {
    /// The cgroup that a task is in.
    #[inline(always)]
    pub fn of(task: &Task) -> Option<Self> {
        let css_set = load::<*mut u8>(task.0.cast(), global(&TASK_CSS_SET));
        if css_set.is_null() {
            return None;
        }
        Self::from_pointer(load::<*mut u8>(css_set, global(&CSS_SET_CGROUP)))
    }

    /// From a pointer that the verifier knows.
    #[inline(always)]
    pub fn from_pointer(pointer: *mut u8) -> Option<Self> {
        if pointer.is_null() {
            None
        } else {
            Some(Self(pointer))
        }
    }

    /// Its depth; the root's is 0.
    #[inline(always)]
    pub fn level(&self) -> u32 {
        load::<u32>(self.0, global(&CGROUP_LEVEL))
    }

    #[inline(always)]
    pub fn id(&self) -> u64 {
        let node = load::<*mut u8>(self.0, global(&CGROUP_NODE));
        if node.is_null() {
            0
        } else {
            load::<u64>(node, global(&NODE_ID))
        }
    }

    /// The same cgroup, read without the verifier's knowledge of it.
    #[inline(always)]
    pub fn raw(&self) -> RawCgroup {
        RawCgroup(self.0 as u64)
    }
}

/// A cgroup of any tree, by its address.
#[derive(Clone, Copy)]
pub struct RawCgroup(pub u64);

impl RawCgroup {
    /// Its depth; the root's is 0.
    #[inline(always)]
    pub fn level(self) -> u32 {
        probe(self.0 + global(&CGROUP_LEVEL)) as u32
    }

    /// The id of the cgroup above it at this depth, which must not be greater than its own; at its own depth its id.
    #[inline(always)]
    pub fn ancestor_id(self, depth: u32) -> u64 {
        let entry = probe(self.0 + global(&CGROUP_ANCESTORS) + 8 * u64::from(depth));
        if !flag(&ANCESTORS_ARE_POINTERS) || entry == 0 {
            return entry;
        }
        let node = probe(entry + global(&CGROUP_NODE));
        if node == 0 {
            0
        } else {
            probe(node + global(&NODE_ID))
        }
    }
}

/// The value that the loader has given.
#[inline(always)]
pub fn global(name: &'static u64) -> u64 {
    // SAFETY: a valid reference. Volatile, so that the compiler does not take the 0 above for the value.
    unsafe { ptr::read_volatile(name) }
}

/// Whether the loader has set this one to 1.
#[inline(always)]
pub fn flag(name: &'static u64) -> bool {
    global(name) == 1
}

/// Reads a field in place.
#[inline(always)]
pub fn load<T>(record: *mut u8, offset: u64) -> T {
    // SAFETY: the verifier refuses the program unless a field of this size stands at this offset of the record, and a
    // read through a stale pointer yields 0.
    unsafe { ptr::read_volatile(record.byte_add(offset as usize).cast::<T>()) }
}

/// Reads 8 bytes at an address that the verifier cannot judge; 0 if there is nothing to read.
#[inline(always)]
pub fn probe(address: u64) -> u64 {
    let mut value = 0u64;
    // SAFETY: the helper checks the address and writes 8 bytes to `value`, or zeroes.
    unsafe { bpf_probe_read_kernel(ptr::from_mut(&mut value).cast(), 8, address as *const _) };
    value
}

/// The kernel's monotonic clock.
#[inline(always)]
pub fn now_ns() -> u64 {
    // SAFETY: the helper has no preconditions.
    unsafe { bpf_ktime_get_ns() }
}

/// The CPU that this runs on.
#[inline(always)]
pub fn cpu() -> u32 {
    // SAFETY: the helper has no preconditions.
    unsafe { bpf_get_smp_processor_id() as u32 }
}
