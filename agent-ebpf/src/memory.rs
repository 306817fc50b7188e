//! Want of memory: time that tasks spend freeing it before they get some, and those that are killed for it.

use aya_ebpf::{
    bindings::{BPF_F_NO_PREALLOC, task_struct},
    btf_maps::{HashMap, RingBuf},
    helpers::{bpf_get_current_task_btf, generated::bpf_get_current_pid_tgid},
    macros::{btf_map, btf_tracepoint},
    programs::BtfTracePointContext,
};
use ebb_agent_ebpf_common::{OomKill, Registration, SlotCounters, UNMANAGED_SLOT};

use crate::{
    kernel::{Task, now_ns},
    slot::{UNMANAGED, add, counters, place, trouble},
    storage::TASKS,
};

/// Room for so many bytes of events that the agent has not read yet.
const EVENTS_BYTES: usize = 1 << 16;
/// Tasks that were marked as victims and have not ended yet.
const VICTIMS_MAX: usize = 1024;

#[btf_map]
static EVENTS: RingBuf<OomKill, EVENTS_BYTES> = RingBuf::new();

/// By thread id: who asked for the memory.
#[btf_map]
static VICTIMS: HashMap<u32, u32, VICTIMS_MAX, { BPF_F_NO_PREALLOC as usize }> = HashMap::new();

#[btf_tracepoint(function = "mm_vmscan_direct_reclaim_begin")]
fn reclaim_direct_begin(_ctx: BtfTracePointContext) -> i32 {
    begin();
    0
}

#[btf_tracepoint(function = "mm_vmscan_direct_reclaim_end")]
fn reclaim_direct_end(_ctx: BtfTracePointContext) -> i32 {
    end(|counters, ns| {
        add(&mut counters.reclaim_direct, 1);
        add(&mut counters.reclaim_direct_ns, ns);
    });
    0
}

#[btf_tracepoint(function = "mm_vmscan_memcg_reclaim_begin")]
fn reclaim_limit_begin(_ctx: BtfTracePointContext) -> i32 {
    begin();
    0
}

#[btf_tracepoint(function = "mm_vmscan_memcg_reclaim_end")]
fn reclaim_limit_end(_ctx: BtfTracePointContext) -> i32 {
    end(|counters, ns| {
        add(&mut counters.reclaim_limit, 1);
        add(&mut counters.reclaim_limit_ns, ns);
    });
    0
}

#[inline(always)]
fn begin() {
    // SAFETY: the helper has no preconditions.
    let task = Task(unsafe { bpf_get_current_task_btf() });
    if place(&task).slot == UNMANAGED_SLOT {
        return;
    }
    if let Some(record) = TASKS.get_or_insert(task.0) {
        // SAFETY: this part of the storage of a task is written only by itself.
        unsafe { (*record).reclaim_since_ns = now_ns() };
    }
}

#[inline(always)]
fn end(count: impl FnOnce(&mut SlotCounters, u64)) {
    // SAFETY: the helper has no preconditions.
    let task = Task(unsafe { bpf_get_current_task_btf() });
    let Some(record) = TASKS.get(task.0) else {
        return;
    };
    // SAFETY: this part of the storage of a task is written only by itself.
    let since_ns = unsafe { &mut (*record).reclaim_since_ns };
    if *since_ns == 0 {
        return;
    }
    let took_ns = now_ns() - *since_ns;
    *since_ns = 0;
    if let Some(counters) = counters(place(&task).slot) {
        // SAFETY: a value of the map; these fields are only added to atomically.
        count(unsafe { &mut *counters }, took_ns);
    }
}

/// A task is to be killed for want of memory, and the kernel names it.
#[btf_tracepoint(function = "mark_victim")]
fn oom_victim(ctx: BtfTracePointContext) -> i32 {
    let victim = Task(ctx.arg::<*mut task_struct>(0));
    killed(place(&victim), victim.tgid(), asker());
    0
}

/// The same where the kernel names only its thread id: it is looked at when it ends, which it does at once.
#[btf_tracepoint(function = "mark_victim")]
fn oom_victim_pid(ctx: BtfTracePointContext) -> i32 {
    let pid = ctx.arg::<u64>(0) as u32;
    if VICTIMS.insert(pid, asker(), 0).is_err() {
        killed(UNMANAGED, pid, asker());
    }
    0
}

/// Tells of a task that ends whether it was marked.
#[inline(always)]
pub fn settle_victim(task: &Task, here: Registration) {
    let pid = task.pid();
    // SAFETY: entries are written before the task ends and removed only here.
    let Some(asker) = (unsafe { VICTIMS.get(&pid) }).copied() else {
        return;
    };
    // It can only fail if it is gone already.
    let _ = VICTIMS.remove(&pid);
    killed(here, task.tgid(), asker);
}

#[inline(always)]
fn killed(victim: Registration, pid: u32, asked_by: u32) {
    if let Some(counters) = counters(victim.slot) {
        // SAFETY: a value of the map; this field is only added to atomically.
        add(unsafe { &mut (*counters).oom_kills }, 1);
    }
    let event = OomKill {
        stamp: victim.stamp,
        at_ns: now_ns(),
        pid,
        asked_by,
    };
    if EVENTS.output(event, 0).is_err() {
        trouble(|trouble| &mut trouble.events_lost);
    }
}

#[inline(always)]
fn asker() -> u32 {
    // SAFETY: the helper has no preconditions.
    (unsafe { bpf_get_current_pid_tgid() } >> 32) as u32
}
