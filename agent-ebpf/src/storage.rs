//! A value that the kernel keeps with each task and frees with it.
//!
//! There is no limit to name: an entry exists only for tasks that were charged to a container, and goes with the task.

use core::ptr;

use aya_ebpf::{
    bindings::{
        BPF_F_NO_PREALLOC, BPF_LOCAL_STORAGE_GET_F_CREATE, bpf_map_type::BPF_MAP_TYPE_TASK_STORAGE,
        task_struct,
    },
    helpers::generated::bpf_task_storage_get,
    macros::btf_map,
};
use ebb_agent_ebpf_common::TaskRecord;

/// What is kept with each task of a container.
#[btf_map]
pub static TASKS: TaskStorage<TaskRecord> = TaskStorage::new();

/// Definition of a task-storage map, in the layout that loaders read from BTF.
#[repr(C)]
pub struct TaskStorage<T> {
    r#type: *const [i32; BPF_MAP_TYPE_TASK_STORAGE as usize],
    key: *const i32,
    value: *const T,
    max_entries: *const [i32; 0],
    map_flags: *const [i32; BPF_F_NO_PREALLOC as usize],
}

// SAFETY: the fields only describe the map; they are never read through.
unsafe impl<T> Sync for TaskStorage<T> {}

impl<T> TaskStorage<T> {
    pub const fn new() -> Self {
        Self {
            r#type: ptr::null(),
            key: ptr::null(),
            value: ptr::null(),
            max_entries: ptr::null(),
            map_flags: ptr::null(),
        }
    }

    /// The value of a task, zeroes at first; `None` if the kernel has no memory for it or is just changing it.
    #[inline(always)]
    pub fn get_or_insert(&self, task: *mut task_struct) -> Option<*mut T> {
        self.look_up(task, u64::from(BPF_LOCAL_STORAGE_GET_F_CREATE))
    }

    /// The value of a task, if it has one.
    #[inline(always)]
    pub fn get(&self, task: *mut task_struct) -> Option<*mut T> {
        self.look_up(task, 0)
    }

    #[inline(always)]
    fn look_up(&self, task: *mut task_struct, flags: u64) -> Option<*mut T> {
        // SAFETY: the map is of this type and `task` is a pointer that the verifier vouches for.
        let value = unsafe {
            bpf_task_storage_get(
                ptr::from_ref(self).cast_mut().cast(),
                task,
                ptr::null_mut(),
                flags,
            )
        };
        if value.is_null() {
            None
        } else {
            Some(value.cast())
        }
    }
}
