//! Values that the kernel keeps with each task or socket and frees with it.
//!
//! There is no limit to name: an entry exists only for tasks that were charged to a container and for sockets that have
//! sent under a limit, and goes with them.

use core::{ffi::c_void, ptr};

use aya_ebpf::{
    bindings::{
        BPF_F_NO_PREALLOC, BPF_LOCAL_STORAGE_GET_F_CREATE, bpf_map_type, bpf_sock, task_struct,
    },
    helpers::generated::{bpf_sk_storage_get, bpf_task_storage_get},
    macros::btf_map,
};
use ebb_agent_ebpf_common::{TaskRecord, pacing::SocketPace};

const OF_TASKS: usize = bpf_map_type::BPF_MAP_TYPE_TASK_STORAGE as usize;
const OF_SOCKETS: usize = bpf_map_type::BPF_MAP_TYPE_SK_STORAGE as usize;

/// What is kept with each task of a container.
#[btf_map]
pub static TASKS: Storage<TaskRecord, OF_TASKS> = Storage::new();

/// What is kept with each TCP socket that has sent under a limit.
#[btf_map]
pub static SOCKETS: Storage<SocketPace, OF_SOCKETS> = Storage::new();

/// Definition of a local-storage map, in the layout that loaders read from BTF.
#[repr(C)]
pub struct Storage<T, const KIND: usize> {
    r#type: *const [i32; KIND],
    key: *const i32,
    value: *const T,
    max_entries: *const [i32; 0],
    map_flags: *const [i32; BPF_F_NO_PREALLOC as usize],
}

// SAFETY: the fields only describe the map; they are never read through.
unsafe impl<T, const KIND: usize> Sync for Storage<T, KIND> {}

impl<T, const KIND: usize> Storage<T, KIND> {
    pub const fn new() -> Self {
        Self {
            r#type: ptr::null(),
            key: ptr::null(),
            value: ptr::null(),
            max_entries: ptr::null(),
            map_flags: ptr::null(),
        }
    }

    #[inline(always)]
    fn map(&self) -> *mut c_void {
        ptr::from_ref(self).cast_mut().cast()
    }
}

/// The value of an owner: zeroes at first when it is to be created, unless the kernel has no memory for it or is just
/// changing it; else only if there is one.
impl<T> Storage<T, OF_TASKS> {
    #[inline(always)]
    pub fn get_or_insert(&self, task: *mut task_struct) -> Option<*mut T> {
        self.look_up(task, BPF_LOCAL_STORAGE_GET_F_CREATE)
    }

    #[inline(always)]
    pub fn get(&self, task: *mut task_struct) -> Option<*mut T> {
        self.look_up(task, 0)
    }

    #[inline(always)]
    fn look_up(&self, task: *mut task_struct, flags: u32) -> Option<*mut T> {
        // SAFETY: the map is of this type and `task` is a pointer that the verifier vouches for.
        some(unsafe { bpf_task_storage_get(self.map(), task, ptr::null_mut(), u64::from(flags)) })
    }
}

/// The same of sockets.
impl<T> Storage<T, OF_SOCKETS> {
    #[inline(always)]
    pub fn get_or_insert(&self, socket: *mut bpf_sock) -> Option<*mut T> {
        self.look_up(socket, BPF_LOCAL_STORAGE_GET_F_CREATE)
    }

    #[inline(always)]
    pub fn get(&self, socket: *mut bpf_sock) -> Option<*mut T> {
        self.look_up(socket, 0)
    }

    #[inline(always)]
    fn look_up(&self, socket: *mut bpf_sock, flags: u32) -> Option<*mut T> {
        let (map, socket, flags) = (self.map(), socket.cast(), u64::from(flags));
        // SAFETY: the map is of this type and `socket` is a pointer that the verifier vouches for.
        some(unsafe { bpf_sk_storage_get(map, socket, ptr::null_mut(), flags) })
    }
}

#[inline(always)]
fn some<T>(value: *mut c_void) -> Option<*mut T> {
    if value.is_null() {
        None
    } else {
        Some(value.cast())
    }
}
