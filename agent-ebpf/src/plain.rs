//! Time on the CPU where the kernel has no BTF: by the clock, from switch to switch, with helpers alone.
//!
//! The task that comes cannot be looked at, so its cgroup is known only when it leaves: who has pushed out whom is told
//! then. Time that the hypervisor steals is charged to the task from which it was stolen, and there is no run-queue
//! latency.

use aya_ebpf::{
    helpers::generated::{bpf_get_current_ancestor_cgroup_id, bpf_get_current_pid_tgid},
    macros::raw_tracepoint,
    programs::RawTracePointContext,
};
use ebb_agent_ebpf_common::{Class, Current, IDLE_SLOT, MAX_LEVELS, Preemptor, Registration};

use crate::{
    kernel::now_ns,
    slot::{self, IDLE, LEVELS, REGISTRY, UNMANAGED, counters},
};

/// Charges the task that goes.
#[raw_tracepoint(tracepoint = "sched_switch")]
fn sched_switch_plain(ctx: RawTracePointContext) -> i32 {
    let state = ctx.arg::<u64>(3) as u32;
    let Some(current) = slot::current() else {
        return 0;
    };
    // SAFETY: the value of this CPU, which nothing else writes while interrupts are off.
    let current = unsafe { &mut *current };
    current.switches += 1;
    let went = charge(current);
    settle(current, went);
    if went.slot == IDLE_SLOT {
        return 0;
    }
    if state == 0 {
        current.pushed_out = went.slot;
    } else if let Some(counters) = counters(went.slot) {
        // SAFETY: the value of this CPU.
        unsafe { (*counters).voluntary += 1 };
    }
    0
}

/// Charges the task on this CPU up to now.
#[raw_tracepoint(tracepoint = "ebb_flush")]
fn flush_plain(_ctx: RawTracePointContext) -> i32 {
    let Some(current) = slot::current() else {
        return 0;
    };
    // SAFETY: the value of this CPU; the kernel runs this program with preemption or interrupts off, so that no switch
    // comes between.
    charge(unsafe { &mut *current });
    0
}

/// Charges the task on this CPU with the time since it came or was charged, and says where it belongs.
#[inline(always)]
fn charge(current: &mut Current) -> Registration {
    let here = place();
    let now_ns = now_ns();
    if current.armed == 1
        && here.slot != IDLE_SLOT
        && let Some(counters) = counters(here.slot)
    {
        // SAFETY: the value of this CPU.
        unsafe { (*counters).on_cpu_ns += now_ns - current.seen_ns };
    }
    if current.armed == 0 {
        current.pushed_out = IDLE_SLOT;
    }
    current.armed = 1;
    current.slot = here.slot;
    current.seen_ns = now_ns;
    here
}

/// Tells who has pushed out the task that ran before the one that goes now.
#[inline(always)]
fn settle(current: &mut Current, came: Registration) {
    let slot = current.pushed_out;
    current.pushed_out = IDLE_SLOT;
    if slot == IDLE_SLOT {
        return;
    }
    let by = if came.slot == IDLE_SLOT {
        Preemptor::Quota
    } else if came.slot == slot {
        Preemptor::Same
    } else if came.class == Class::Revocable as u16 {
        Preemptor::Revocable
    } else if came.class == Class::Owned as u16 {
        Preemptor::Owned
    } else {
        Preemptor::Unmanaged
    };
    if let Some(counters) = counters(slot) {
        // SAFETY: the value of this CPU.
        unsafe { (*counters).preempted_by[by as usize] += 1 };
    }
}

/// Where the current task is charged.
#[inline(always)]
fn place() -> Registration {
    // SAFETY: the helper has no preconditions.
    if unsafe { bpf_get_current_pid_tgid() } as u32 == 0 {
        return IDLE;
    }
    let Some(levels) = LEVELS.get(0) else {
        return UNMANAGED;
    };
    for i in 0..MAX_LEVELS {
        let depth = levels.depth[0][i];
        if depth == 0 {
            break;
        }
        // SAFETY: the helper has no preconditions; it answers 0 for a depth that the task has not.
        let id = unsafe { bpf_get_current_ancestor_cgroup_id(depth as i32) };
        // SAFETY: an entry is replaced or removed only by the agent.
        if let Some(found) = unsafe { REGISTRY.get(&id) } {
            return *found;
        }
    }
    UNMANAGED
}
