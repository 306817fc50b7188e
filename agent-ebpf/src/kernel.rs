//! The kernel's own records, as far as the probes read them.
//!
//! Each field is found at an offset that the agent took from the running kernel's BTF and handed over as a read-only
//! global; the verifier knows it as a constant and checks the access against the same BTF. A pointer that is null, or
//! that the kernel does not vouch for, reads as "nothing": `None` or 0.

use core::ptr;

use aya_ebpf::{bindings::task_struct, helpers::generated::bpf_probe_read_kernel};

/// Declares read-only globals that the loader overrides. Plain integers, since the kernel refuses type information
/// with the names of Rust's generic unions, as `aya_ebpf::Global` has one.
macro_rules! globals {
    ($($name:ident),+ $(,)?) => {
        $(#[unsafe(no_mangle)] static $name: u64 = 0;)+
    };
}

globals!(
    TASK_PID,
    TASK_VOLUNTARY,
    TASK_EXEC,
    TASK_WAIT,
    TASK_ARRIVALS,
    TASK_CSS_SET,
    CSS_SET_CGROUP,
    CGROUP_NODE,
    CGROUP_LEVEL,
    CGROUP_ANCESTORS,
    ANCESTORS_ARE_POINTERS,
    NODE_ID,
    HAS_WAIT,
);

/// Whether the kernel keeps an account of waits.
#[inline(always)]
pub fn has_wait() -> bool {
    global(&HAS_WAIT) == 1
}

/// A task that the kernel vouches for.
pub struct Task(pub *mut task_struct);

impl Task {
    #[inline(always)]
    pub fn pid(&self) -> u32 {
        load::<u32>(self.0.cast(), global(&TASK_PID))
    }

    #[inline(always)]
    pub fn exec_ns(&self) -> u64 {
        load::<u64>(self.0.cast(), global(&TASK_EXEC))
    }

    #[inline(always)]
    pub fn voluntary(&self) -> u64 {
        load::<u64>(self.0.cast(), global(&TASK_VOLUNTARY))
    }

    #[inline(always)]
    pub fn wait_ns(&self) -> u64 {
        if has_wait() {
            load::<u64>(self.0.cast(), global(&TASK_WAIT))
        } else {
            0
        }
    }

    #[inline(always)]
    pub fn arrivals(&self) -> u64 {
        if has_wait() {
            load::<u64>(self.0.cast(), global(&TASK_ARRIVALS))
        } else {
            0
        }
    }
}

/// A cgroup of the v2 tree.
pub struct Cgroup(*mut u8);

impl Cgroup {
    /// The cgroup that a task is in.
    #[inline(always)]
    pub fn of(task: &Task) -> Option<Self> {
        let css_set = load::<*mut u8>(task.0.cast(), global(&TASK_CSS_SET));
        if css_set.is_null() {
            return None;
        }
        let cgroup = load::<*mut u8>(css_set, global(&CSS_SET_CGROUP));
        if cgroup.is_null() {
            None
        } else {
            Some(Self(cgroup))
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

    /// The id of the cgroup above it at this depth, which must not be greater than its own.
    #[inline(always)]
    pub fn ancestor_id(&self, depth: u32) -> u64 {
        let entry = probe(self.0 as u64 + global(&CGROUP_ANCESTORS) + 8 * u64::from(depth));
        if global(&ANCESTORS_ARE_POINTERS) == 0 || entry == 0 {
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
fn global(name: &'static u64) -> u64 {
    // SAFETY: a valid reference. Volatile, so that the compiler does not take the 0 above for the value.
    unsafe { ptr::read_volatile(name) }
}

/// Reads a field in place.
#[inline(always)]
fn load<T>(record: *mut u8, offset: u64) -> T {
    // SAFETY: the verifier refuses the program unless a field of this size stands at this offset of the record, and a
    // read through a stale pointer yields 0.
    unsafe { ptr::read_volatile(record.byte_add(offset as usize).cast::<T>()) }
}

/// Reads 8 bytes at an address that the verifier cannot judge; 0 if there is nothing to read.
#[inline(always)]
fn probe(address: u64) -> u64 {
    let mut value = 0u64;
    // SAFETY: the helper checks the address and writes 8 bytes to `value`, or zeroes.
    unsafe { bpf_probe_read_kernel(ptr::from_mut(&mut value).cast(), 8, address as *const _) };
    value
}
