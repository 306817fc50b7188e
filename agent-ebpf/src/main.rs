//! The probes: one object, one tracepoint, and one program that the agent runs when it reads.
//!
//! **Problem.** Say what each container uses and what it waits for, in all its tasks and in the cgroups that it makes
//! itself, at a price that nobody notices, without missing the tasks that live for a millisecond and those that never
//! leave the CPU.
//!
//! **Way.** The scheduler keeps exact accounts of every task: `se.sum_exec_runtime`, `sched_info`, `nvcsw`. At
//! `sched_switch` the probe takes the difference of these accounts over the stay that just ended and adds it to the
//! container's slot. It measures nothing itself, so it agrees with the CPU controller by construction, also where the
//! hypervisor steals time, and needs no probe on wake-up, fork or exit: a task that died is charged at its last switch.
//!
//! - *Which slot?* It is looked up when a task comes, from the task's v2 cgroup, and kept with the CPU until it goes.
//!   Containers are known by the cgroup at their own depth, so cgroups made below are charged to them.
//! - *Who pushed it out?* The task that comes is known with its slot, and so is its class.
//! - *A task that does not leave?* [`flush`] charges it up to now. It runs on the task's CPU with interrupts or
//!   preemption off, so it never meets `sched_switch` half way, and nothing is counted twice. The scheduler's account
//!   of a running task is as old as the last tick; up to [`TICK_MAX_NS`] are estimated by the clock, and what was
//!   estimated too much is paid off by the next slices (`ahead_ns`). A reading is therefore never more than a tick for
//!   each CPU away from the controller's truth, and the error does not add up.
//! - *A wait that was moved between CPUs?* The account of waits grows when a waiting task is moved, before it comes;
//!   so the last charged state stands with the task ([`TASK_WAITS`]), not with the CPU.
//!
//! Rust's bpf target has no field relocations: the offsets of the kernel's fields come from the running kernel's BTF
//! as read-only globals, and the verifier checks each access against the same BTF.
//!
//! **Price.** One hash lookup, one local-storage lookup and a dozen loads a switch; see the agent's probe metrics.
#![no_std]
#![no_main]

mod kernel;
mod storage;

use aya_ebpf::{
    bindings::task_struct,
    btf_maps::{Array, HashMap, PerCpuArray},
    helpers::{bpf_get_current_task_btf, bpf_ktime_get_ns},
    macros::{btf_map, btf_tracepoint, raw_tracepoint},
    programs::{BtfTracePointContext, RawTracePointContext},
};
use ebb_agent_ebpf_common::{
    Class, Current, DEFAULT_SLOTS, IDLE_SLOT, Levels, MAX_LEVELS, Preemptor, Registration,
    SlotCounters, TICK_MAX_NS, TaskWait, UNMANAGED_SLOT, bucket,
};

use crate::{
    kernel::{Cgroup, Task},
    storage::TaskStorage,
};

#[btf_map]
static COUNTERS: PerCpuArray<SlotCounters, { DEFAULT_SLOTS as usize }> = PerCpuArray::new();

#[btf_map]
static CURRENT: PerCpuArray<Current, 1> = PerCpuArray::new();

#[btf_map]
static REGISTRY: HashMap<u64, Registration, { DEFAULT_SLOTS as usize }> = HashMap::new();

#[btf_map]
static LEVELS: Array<Levels, 1> = Array::new();

#[btf_map]
static TASK_WAITS: TaskStorage<TaskWait> = TaskStorage::new();

const UNMANAGED: Registration = Registration {
    slot: UNMANAGED_SLOT,
    class: Class::Unmanaged as u32,
};
const IDLE: Registration = Registration {
    slot: IDLE_SLOT,
    class: Class::Unmanaged as u32,
};

/// Charges the task that goes and notes the one that comes.
#[btf_tracepoint(function = "sched_switch")]
fn sched_switch(ctx: BtfTracePointContext) -> i32 {
    let previous = Task(ctx.arg::<*mut task_struct>(1));
    let next = Task(ctx.arg::<*mut task_struct>(2));
    let Some(current) = CURRENT.get_ptr_mut(0) else {
        return 0;
    };
    // SAFETY: the value of this CPU, which nothing else writes while interrupts are off.
    let current = unsafe { &mut *current };
    let coming = place(&next);
    if current.armed == 1 && current.slot != IDLE_SLOT && current.pid == previous.pid() {
        depart(current, &previous, coming);
    }
    arrive(current, &next, coming);
    0
}

/// Charges the task on this CPU up to now, and looks up anew where it belongs.
#[raw_tracepoint(tracepoint = "ebb_flush")]
fn flush(_ctx: RawTracePointContext) -> i32 {
    // SAFETY: the helper has no preconditions.
    let task = Task(unsafe { bpf_get_current_task_btf() });
    let Some(current) = CURRENT.get_ptr_mut(0) else {
        return 0;
    };
    // SAFETY: the value of this CPU; the kernel runs this program with preemption or interrupts off, so that no switch
    // comes between.
    let current = unsafe { &mut *current };
    let here = place(&task);
    if current.armed != 1 || current.pid != task.pid() {
        arrive(current, &task, here);
        return 0;
    }
    if current.slot == IDLE_SLOT {
        return 0;
    }
    if let Some(counters) = COUNTERS.get_ptr_mut(current.slot) {
        // SAFETY: the value of this CPU, as above.
        let counters = unsafe { &mut *counters };
        charge_running(counters, current, &task);
        charge_wait(counters, current, &task);
    }
    if here.slot != current.slot {
        // The rest of this stay goes to the new slot; what has been charged is not charged again.
        current.exec_base_ns = current.exec_base_ns.wrapping_add(current.charged_ns);
        current.since_ns = now_ns();
        current.charged_ns = 0;
        current.slot = here.slot;
    }
    current.class = here.class;
    0
}

/// The end of a stay.
#[inline(always)]
fn depart(current: &mut Current, task: &Task, coming: Registration) {
    let Some(counters) = COUNTERS.get_ptr_mut(current.slot) else {
        return;
    };
    // SAFETY: the value of this CPU, which nothing else writes while interrupts are off.
    let counters = unsafe { &mut *counters };
    let stay_ns = task.exec_ns().saturating_sub(current.exec_base_ns);
    if stay_ns >= current.charged_ns {
        add_on_cpu(counters, stay_ns - current.charged_ns);
    } else {
        counters.ahead_ns += current.charged_ns - stay_ns;
    }
    charge_wait(counters, current, task);
    if task.voluntary() != current.voluntary_base {
        counters.voluntary += 1;
    } else {
        counters.preempted_by[preemptor(current.slot, coming) as usize] += 1;
    }
}

#[inline(always)]
fn preemptor(slot: u32, coming: Registration) -> Preemptor {
    if coming.slot == IDLE_SLOT {
        Preemptor::Idle
    } else if coming.slot == slot {
        Preemptor::Same
    } else if coming.class == Class::Revocable as u32 {
        Preemptor::Revocable
    } else if coming.class == Class::Owned as u32 {
        Preemptor::Owned
    } else {
        Preemptor::Unmanaged
    }
}

/// The beginning of a stay.
#[inline(always)]
fn arrive(current: &mut Current, task: &Task, place: Registration) {
    current.pid = task.pid();
    current.slot = place.slot;
    current.class = place.class;
    current.armed = 1;
    current.since_ns = now_ns();
    current.charged_ns = 0;
    current.exec_base_ns = task.exec_ns();
    current.wait_base_ns = task.wait_ns();
    current.arrivals_base = task.arrivals();
    current.voluntary_base = task.voluntary();
}

/// Adds what the task on this CPU has run since it was last charged: by the scheduler's account and, for at most a
/// tick beyond it, by the clock.
#[inline(always)]
fn charge_running(counters: &mut SlotCounters, current: &mut Current, task: &Task) {
    let exact_ns = task.exec_ns().saturating_sub(current.exec_base_ns);
    let elapsed_ns = now_ns().saturating_sub(current.since_ns);
    let mut stay_ns = exact_ns + TICK_MAX_NS;
    if stay_ns > elapsed_ns {
        stay_ns = elapsed_ns;
    }
    if stay_ns < exact_ns {
        stay_ns = exact_ns;
    }
    if stay_ns > current.charged_ns {
        add_on_cpu(counters, stay_ns - current.charged_ns);
        current.charged_ns = stay_ns;
    }
}

#[inline(always)]
fn add_on_cpu(counters: &mut SlotCounters, ns: u64) {
    if ns >= counters.ahead_ns {
        counters.on_cpu_ns += ns - counters.ahead_ns;
        counters.ahead_ns = 0;
    } else {
        counters.ahead_ns -= ns;
    }
}

/// Adds the wait that ended with the task's arrival on this CPU, once.
///
/// `sched_info` counts the arrival just after the switch. If exactly one arrival passed since the task was last
/// charged, the wait is the difference to that state, which has in it also what it waited on other CPUs; else (it was
/// never charged, or came from another container) the difference to what stood when it came here.
#[inline(always)]
fn charge_wait(counters: &mut SlotCounters, current: &mut Current, task: &Task) {
    if !kernel::has_wait() {
        return;
    }
    let wait_ns = task.wait_ns();
    let arrivals = task.arrivals();
    let here = arrivals.wrapping_sub(current.arrivals_base);
    if here == 0 {
        return;
    }
    let mut waited_ns = wait_ns.wrapping_sub(current.wait_base_ns);
    if current.slot != UNMANAGED_SLOT
        && let Some(last) = TASK_WAITS.get_or_insert(task.0)
    {
        // SAFETY: the storage of a task is written only by the CPU that it is on.
        let last = unsafe { &mut *last };
        if last.arrivals != 0 && arrivals.wrapping_sub(last.arrivals) == 1 {
            waited_ns = wait_ns.wrapping_sub(last.wait_ns);
        }
        last.wait_ns = wait_ns;
        last.arrivals = arrivals;
    }
    current.wait_base_ns = wait_ns;
    current.arrivals_base = arrivals;
    counters.wait_ns += waited_ns;
    counters.wait_count += 1;
    let bucket = bucket(waited_ns);
    if let Some(count) = counters.wait_hist.get_mut(bucket) {
        *count += 1;
    }
}

/// Where a task is charged: the deepest registered cgroup above it.
#[inline(always)]
fn place(task: &Task) -> Registration {
    if task.pid() == 0 {
        return IDLE;
    }
    let (Some(cgroup), Some(levels)) = (Cgroup::of(task), LEVELS.get(0)) else {
        return UNMANAGED;
    };
    let level = cgroup.level();
    for i in 0..MAX_LEVELS {
        let depth = levels.depth[i];
        if depth == 0 {
            break;
        }
        if depth > level {
            continue;
        }
        let id = if depth == level {
            cgroup.id()
        } else {
            cgroup.ancestor_id(depth)
        };
        // SAFETY: an entry is replaced or removed only by the agent; at worst one stay is charged to its old slot.
        if let Some(found) = unsafe { REGISTRY.get(&id) } {
            return *found;
        }
    }
    UNMANAGED
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
