//! Processes and threads: how many come and go, how many live only for a moment, and what they used unseen.

use aya_ebpf::{
    bindings::task_struct, helpers::bpf_get_current_task_btf, macros::btf_tracepoint,
    programs::BtfTracePointContext,
};
use ebb_agent_ebpf_common::{IDLE_SLOT, SHORT_LIFE_NS, UNMANAGED_SLOT};

use crate::{
    cpu,
    kernel::{self, Task, now_ns},
    memory,
    slot::{self, add, counters, place},
    storage::TASKS,
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

/// A task that enters a container while it runs, as one does that is about to execute a program there, is charged to
/// it from now on, and not only from when it is next looked at.
#[btf_tracepoint(function = "cgroup_attach_task")]
fn process_move(ctx: BtfTracePointContext) -> i32 {
    let moved = Task(ctx.arg::<*mut task_struct>(2));
    // SAFETY: the helper has no preconditions.
    let running = Task(unsafe { bpf_get_current_task_btf() });
    if moved.pid() == running.pid() {
        cpu::look(&running);
    }
    0
}

/// Charges an ended task with what its account has grown by since it was last charged: nothing, unless the kernel did
/// not show its last departure. Runs some time after that, on any CPU.
#[btf_tracepoint(function = "sched_process_free")]
fn process_free(ctx: BtfTracePointContext) -> i32 {
    let task = Task(ctx.arg::<*mut task_struct>(0));
    let Some(current) = slot::current() else {
        return 0;
    };
    // SAFETY: the value of this CPU; no switch comes between.
    let current = unsafe { &mut *current };
    // While storage is looked up the kernel makes none, and a reading that came between would need some.
    let before = cpu::hold_readings(current);
    charge_unseen(&task);
    cpu::release_readings(current, before);
    0
}

#[inline(always)]
fn charge_unseen(task: &Task) {
    let Some(record) = TASKS.get(task.0) else {
        return;
    };
    // SAFETY: the storage of a task that runs no more, which nothing else reads or writes.
    let charged = unsafe { &(*record).charged };
    let exec_ns = task.exec_ns();
    if exec_ns <= charged.exec_ns {
        return;
    }
    let here = place(task);
    if here.stamp != charged.stamp {
        // Its container is gone.
        return;
    }
    if let Some(counters) = counters(here.slot) {
        // SAFETY: a value of the map; this field is only added to atomically.
        add(
            unsafe { &mut (*counters).ended_ns },
            exec_ns - charged.exec_ns,
        );
    }
}
