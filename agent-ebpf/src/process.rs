//! Processes and threads: how many come and go, and how many live only for a moment.

use aya_ebpf::{bindings::task_struct, macros::btf_tracepoint, programs::BtfTracePointContext};
use ebb_agent_ebpf_common::{IDLE_SLOT, SHORT_LIFE_NS, UNMANAGED_SLOT};

use crate::{
    cpu,
    kernel::{self, Task, now_ns},
    memory,
    slot::{add, counters, place},
};

#[btf_tracepoint(function = "sched_process_fork")]
fn process_fork(ctx: BtfTracePointContext) -> i32 {
    let child = Task(ctx.arg::<*mut task_struct>(1));
    let here = place(&child);
    if here.slot == IDLE_SLOT {
        return 0;
    }
    if let Some(counters) = counters(here.slot) {
        // SAFETY: a value of the map; this field is only added to atomically.
        let counters = unsafe { &mut *counters };
        if child.pid() == child.tgid() {
            add(&mut counters.forks, 1);
        } else {
            add(&mut counters.threads, 1);
        }
    }
    0
}

#[btf_tracepoint(function = "sched_process_exit")]
fn process_exit(ctx: BtfTracePointContext) -> i32 {
    let task = Task(ctx.arg::<*mut task_struct>(0));
    let here = place(&task);
    if here.slot != UNMANAGED_SLOT {
        cpu::charge_ending(&task);
    }
    if kernel::flag(&kernel::VICTIMS_BY_PID) {
        memory::settle_victim(&task, here);
    }
    if task.pid() != task.tgid() {
        return 0;
    }
    if let Some(counters) = counters(here.slot) {
        // SAFETY: a value of the map; these fields are only added to atomically.
        let counters = unsafe { &mut *counters };
        add(&mut counters.exits, 1);
        if now_ns().wrapping_sub(task.start_ns()) < SHORT_LIFE_NS {
            add(&mut counters.short_lived, 1);
        }
    }
    0
}
