//! What the benchmark of the probes' cost loads beside them: programs that do nothing, and another monitor.
//!
//! **Nothing.** The kernel's own accounting of a program's time is part of that time. A program that does nothing, on
//! the same tracepoint in the same run, shows how much, and is taken off every other's.
//!
//! **The monitor** works as run-queue monitors commonly do (Netflix has described theirs in "Noisy neighbor detection
//! with eBPF"): a wake-up notes the time in a hash by thread id; a switch takes the note of the task that comes, so
//! has its run-queue latency, finds the cgroups of both tasks, and, unless it has done so for this cgroup on this CPU
//! a moment ago, sends an event to user space. It is the yardstick, so nothing in it is slower than need be: one
//! object with BTF tracepoints, fields read in place without a helper, hashes allocated in advance, a task without a
//! note left at the first look-up, the limit of events tried before the second cgroup is read, and an event written
//! straight into the ring.
//!
//! Offsets of the kernel's fields come from the loader as read-only globals, as with the agent's probes. Nanoseconds.
#![no_std]
#![no_main]

use core::ptr;

use aya_ebpf::{
    bindings::{BPF_ANY, BPF_NOEXIST, task_struct},
    btf_maps::{HashMap, PerCpuHashMap, RingBuf},
    helpers::bpf_ktime_get_ns,
    macros::{btf_map, btf_tracepoint},
    programs::BtfTracePointContext,
};

/// Tasks that are awake and wait: as many as the common tools for run-queue latency allow.
const MAX_TASKS: usize = 10_240;
/// Cgroups whose events are limited.
const MAX_CGROUPS: usize = 1_024;
/// Bytes of events that user space has not read.
const RING_BYTES: usize = 256 * 1024;

/// What user space is told of a switch.
#[repr(C)]
struct RunQueueEvent {
    previous_cgroup_id: u64,
    cgroup_id: u64,
    wait_ns: u64,
    at_ns: u64,
}

#[btf_map]
static ENQUEUED: HashMap<u32, u64, MAX_TASKS> = HashMap::new();

#[btf_map]
static LAST_EVENT: PerCpuHashMap<u64, u64, MAX_CGROUPS> = PerCpuHashMap::new();

#[btf_map]
static EVENTS: RingBuf<RunQueueEvent, RING_BYTES> = RingBuf::new();

/// Declares read-only globals that the loader overrides.
macro_rules! globals {
    ($($name:ident),+ $(,)?) => {
        $(#[unsafe(no_mangle)] static $name: u64 = 0;)+
    };
}

globals!(
    TASK_PID,
    TASK_CSS_SET,
    CSS_SET_CGROUP,
    CGROUP_NODE,
    NODE_ID,
    EVENT_INTERVAL_NS,
);

#[btf_tracepoint(function = "sched_wakeup")]
fn nothing_wakeup(_ctx: BtfTracePointContext) -> i32 {
    0
}

#[btf_tracepoint(function = "sched_switch")]
fn nothing_switch(_ctx: BtfTracePointContext) -> i32 {
    0
}

#[btf_tracepoint(function = "sched_wakeup")]
fn monitor_wakeup(ctx: BtfTracePointContext) -> i32 {
    note(ctx.arg::<*mut u8>(0))
}

#[btf_tracepoint(function = "sched_wakeup_new")]
fn monitor_wakeup_new(ctx: BtfTracePointContext) -> i32 {
    note(ctx.arg::<*mut u8>(0))
}

#[btf_tracepoint(function = "sched_switch")]
fn monitor_switch(ctx: BtfTracePointContext) -> i32 {
    let previous = ctx.arg::<*mut task_struct>(1).cast::<u8>();
    let next = ctx.arg::<*mut task_struct>(2).cast::<u8>();
    let pid = load::<u32>(next, global(&TASK_PID));
    // SAFETY: the value is copied before anything is removed.
    let Some(since_ns) = (unsafe { ENQUEUED.get(pid) }).copied() else {
        return 0;
    };
    let now_ns = now_ns();
    // Nobody else removes this task's note.
    let _ = ENQUEUED.remove(pid);
    let cgroup_id = cgroup_id(next);
    let last = LAST_EVENT.get_ptr_mut(cgroup_id);
    if let Some(last_ns) = last {
        // SAFETY: the value of this CPU, on which nothing else runs while the program does.
        let last_ns = unsafe { &mut *last_ns };
        if now_ns - *last_ns < global(&EVENT_INTERVAL_NS) {
            return 0;
        }
        *last_ns = now_ns;
    } else {
        // A full table means events without a limit, which is what a monitor would rather have than none.
        let _ = LAST_EVENT.insert(cgroup_id, now_ns, u64::from(BPF_ANY));
    }
    if let Some(mut event) = EVENTS.reserve(0) {
        event.write(RunQueueEvent {
            previous_cgroup_id: self::cgroup_id(previous),
            cgroup_id,
            wait_ns: now_ns - since_ns,
            at_ns: now_ns,
        });
        event.submit(0);
    }
    0
}

/// Notes when a task woke, unless it is awake already.
#[inline(always)]
fn note(task: *mut u8) -> i32 {
    let pid = load::<u32>(task, global(&TASK_PID));
    // It fails for a task that is noted already, and when the table is full.
    let _ = ENQUEUED.insert(pid, now_ns(), u64::from(BPF_NOEXIST));
    0
}

/// The v2 cgroup that a task is in; 0 if there is none.
#[inline(always)]
fn cgroup_id(task: *mut u8) -> u64 {
    let mut record = task;
    for offset in [&TASK_CSS_SET, &CSS_SET_CGROUP, &CGROUP_NODE] {
        record = load::<*mut u8>(record, global(offset));
        if record.is_null() {
            return 0;
        }
    }
    load::<u64>(record, global(&NODE_ID))
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

#[inline(always)]
fn now_ns() -> u64 {
    // SAFETY: the helper has no preconditions.
    unsafe { bpf_ktime_get_ns() }
}

#[cfg(not(test))]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
