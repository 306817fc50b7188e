//! The probes: one object, one tracepoint, and one program that the agent runs when it reads.
//!
//! **Problem.** Say what each container uses and what it waits for, in all its tasks and in the cgroups that it makes
//! itself, at a price that nobody notices, without missing the tasks that live for a millisecond and those that never
//! leave the CPU.
//!
//! **Way.** The scheduler keeps exact accounts of every task: `se.sum_exec_runtime`, `sched_info`, `nvcsw`. When a task
//! leaves a CPU, the probe charges its container with what the accounts have grown by since the task was last charged,
//! and notes with the task how far it has charged ([`TASKS`], freed with the task). It measures nothing itself, so it
//! agrees with the CPU controller by construction, also where the hypervisor steals time, and needs no probe on wake-up,
//! fork or exit: a task that died is charged at its last switch. A switch that the kernel does not show to tracepoints
//! (it happens) is made up for at the task's next one.
//!
//! - *Which slot?* It is looked up when a task comes, from the task's v2 cgroup, and kept with the CPU until it goes.
//!   Containers are known by the cgroup at their own depth, so cgroups made below are charged to them.
//! - *Who pushed it out?* The task that comes is known with its slot, and so is its class.
//! - *A task that does not leave?* [`flush`] charges it up to now. It runs on the task's CPU with interrupts or
//!   preemption off, so it never meets `sched_switch` half way, and nothing is counted twice. The scheduler's account
//!   of a running task is as old as the last tick; up to [`TICK_MAX_NS`] beyond it are estimated by the clock and
//!   charged in advance. What turns out to have been too much when the task leaves is kept with the slot (`ahead_ns`),
//!   whose later time pays for it. A reading is therefore never more than a tick for each CPU away from the
//!   controller's truth, and the error does not add up.
//! - *A wait that was moved between CPUs?* The account of waits grows when a waiting task is moved, before it comes;
//!   since the state stands with the task, that is counted.
//! - *What belongs to no container* is charged from arrival to departure alone, without a note at the task: it is much,
//!   and nobody is billed for it.
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
    Charged, Class, Current, DEFAULT_SLOTS, IDLE_SLOT, Levels, MAX_LEVELS, Preemptor, Registration,
    SlotCounters, TICK_MAX_NS, UNMANAGED_SLOT, bucket,
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
static TASKS: TaskStorage<Charged> = TaskStorage::new();

const UNMANAGED: Registration = Registration {
    slot: UNMANAGED_SLOT,
    class: Class::Unmanaged as u32,
    stamp: 0,
};
const IDLE: Registration = Registration {
    slot: IDLE_SLOT,
    class: Class::Unmanaged as u32,
    stamp: 0,
};

/// When a task is charged.
#[derive(Clone, Copy)]
enum Moment {
    /// It leaves the CPU to a task of this registration.
    Departure(Registration),
    /// It goes on.
    Reading,
}

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
    recognise(current, &previous);
    charge(current, &previous, Moment::Departure(coming));
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
    recognise(current, &task);
    charge(current, &task, Moment::Reading);
    let here = place(&task);
    if here.stamp != current.stamp {
        // It has moved, or its container has just come or gone. What was charged ahead is not charged again.
        let ahead_ns = current.base.exec_ns;
        arrive(current, &task, here);
        if ahead_ns > current.base.exec_ns {
            current.base.exec_ns = ahead_ns;
        }
    }
    current.class = here.class;
    0
}

/// Makes sure that `current` is about this task. If it is not, the kernel has not shown its arrival.
#[inline(always)]
fn recognise(current: &mut Current, task: &Task) {
    if current.armed == 1 && current.pid == task.pid() {
        return;
    }
    let here = place(task);
    let missed = current.armed == 1;
    arrive(current, task, here);
    if !missed {
        return;
    }
    current.missed += 1;
    if task.arrivals() == 1 {
        // It has come to a CPU only once, so all it has run was in the container that it was born in.
        current.base = Charged {
            stamp: here.stamp,
            exec_ns: 0,
            wait_ns: 0,
            arrivals: 0,
            voluntary: 0,
        };
    }
}

/// Notes a task that comes.
#[inline(always)]
fn arrive(current: &mut Current, task: &Task, place: Registration) {
    current.pid = task.pid();
    current.slot = place.slot;
    current.class = place.class;
    current.armed = 1;
    current.stamp = place.stamp;
    current.since_ns = now_ns();
    current.exec_ns = task.exec_ns();
    current.base.stamp = place.stamp;
    current.base.exec_ns = current.exec_ns;
    current.base.wait_ns = task.wait_ns();
    current.base.arrivals = task.arrivals();
    current.base.voluntary = task.voluntary();
}

/// Charges a task with what its accounts have grown by.
#[inline(always)]
fn charge(current: &mut Current, task: &Task, moment: Moment) {
    if current.slot == IDLE_SLOT {
        return;
    }
    let Some(counters) = COUNTERS.get_ptr_mut(current.slot) else {
        return;
    };
    // SAFETY: the value of this CPU, which nothing else writes while the program runs.
    let counters = unsafe { &mut *counters };
    if current.slot != UNMANAGED_SLOT
        && let Some(charged) = TASKS.get_or_insert(task.0)
    {
        // SAFETY: the storage of a task is written only by the CPU that it is on.
        let charged = unsafe { &mut *charged };
        if charged.stamp != current.stamp {
            // The first time for this container: what was before its arrival here is not its container's.
            *charged = current.base;
        }
        grow(counters, charged, current, task, moment);
        current.base = *charged;
        return;
    }
    let mut charged = current.base;
    grow(counters, &mut charged, current, task, moment);
    current.base = charged;
}

#[inline(always)]
fn grow(
    counters: &mut SlotCounters,
    charged: &mut Charged,
    current: &Current,
    task: &Task,
    moment: Moment,
) {
    let exec_ns = match moment {
        Moment::Reading => estimate(task.exec_ns(), current),
        Moment::Departure(_) => task.exec_ns(),
    };
    if exec_ns >= charged.exec_ns {
        add_on_cpu(counters, exec_ns - charged.exec_ns);
        charged.exec_ns = exec_ns;
    } else if let Moment::Departure(_) = moment {
        counters.ahead_ns += charged.exec_ns - exec_ns;
        charged.exec_ns = exec_ns;
    }
    if kernel::has_wait() {
        let arrivals = task.arrivals().wrapping_sub(charged.arrivals);
        if arrivals > 0 {
            let wait_ns = task.wait_ns();
            add_wait(counters, wait_ns.wrapping_sub(charged.wait_ns), arrivals);
            charged.arrivals = charged.arrivals.wrapping_add(arrivals);
            charged.wait_ns = wait_ns;
        }
    }
    if let Moment::Departure(coming) = moment {
        let voluntary = task.voluntary();
        if voluntary != charged.voluntary {
            counters.voluntary += voluntary.wrapping_sub(charged.voluntary);
            charged.voluntary = voluntary;
        } else {
            counters.preempted_by[preemptor(current.slot, coming) as usize] += 1;
        }
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

/// The running time of the task on this CPU: by the scheduler's account and, for at most a tick beyond it, by the clock.
#[inline(always)]
fn estimate(exec_ns: u64, current: &Current) -> u64 {
    let by_clock_ns = current.exec_ns + now_ns().saturating_sub(current.since_ns);
    let most_ns = exec_ns + TICK_MAX_NS;
    if by_clock_ns > most_ns {
        most_ns
    } else if by_clock_ns > exec_ns {
        by_clock_ns
    } else {
        exec_ns
    }
}

/// Adds the waits of some arrivals: nearly always of one. Of several the sum is known, and stands in the histogram by
/// its mean.
#[inline(always)]
fn add_wait(counters: &mut SlotCounters, wait_ns: u64, arrivals: u64) {
    counters.wait_ns += wait_ns;
    counters.wait_count += arrivals;
    let bucket = bucket(wait_ns / arrivals);
    if let Some(count) = counters.wait_hist.get_mut(bucket) {
        *count += arrivals;
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
