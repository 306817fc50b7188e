//! Time on the CPU, waits, switches and faults, charged when a task leaves a CPU.

use core::arch::asm;

use aya_ebpf::{
    bindings::task_struct,
    btf_maps::Array,
    helpers::bpf_get_current_task_btf,
    macros::{btf_map, btf_tracepoint, raw_tracepoint},
    programs::{BtfTracePointContext, RawTracePointContext},
};
use ebb_agent_ebpf_common::{
    Charged, Class, Current, DEFAULT_SLOTS, HIST_BUCKETS, IDLE_SLOT, Preemptor, QuotaWatch,
    Registration, SlotCounters, UNMANAGED_SLOT, bucket,
};

use crate::{
    kernel::{self, Task, now_ns},
    slot::{self, counters, index, place},
    storage::TASKS,
    surge,
};

/// No account of running time: that of a task that was just born is 0.
const NEVER_SEEN: u64 = u64::MAX;
/// A hold by a quota that ended longer ago is forgotten.
const HOLD_REMEMBERED_NS: u64 = 10_000_000_000;

#[btf_map]
static QUOTA_WATCH: Array<QuotaWatch, { DEFAULT_SLOTS as usize }> = Array::new();

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
    let Some(current) = slot::current() else {
        return 0;
    };
    // SAFETY: the value of this CPU, which nothing else writes while interrupts are off.
    let current = unsafe { &mut *current };
    let coming = place(&next);
    current.switches += 1;
    recognise(current, &previous);
    charge(current, &previous, Moment::Departure(coming));
    arrive(current, &next, coming);
    0
}

/// A reading.
#[raw_tracepoint(tracepoint = "ebb_flush")]
fn flush(_ctx: RawTracePointContext) -> i32 {
    // SAFETY: the helper has no preconditions.
    look(&Task(unsafe { bpf_get_current_task_btf() }));
    0
}

/// Charges the task on this CPU up to now, and looks up anew where it belongs. To be called with preemption or
/// interrupts off.
#[inline(always)]
pub fn look(task: &Task) {
    let Some(current) = slot::current() else {
        return;
    };
    // SAFETY: the value of this CPU; no switch comes between.
    let current = unsafe { &mut *current };
    if current.charging == 1 {
        return;
    }
    recognise(current, task);
    charge(current, task, Moment::Reading);
    let here = place(task);
    if here.stamp != current.stamp {
        // It has moved, or its container has just come or gone. What was charged ahead is not charged again.
        let ahead_ns = current.base.exec_ns;
        arrive(current, task, here);
        if ahead_ns > current.base.exec_ns {
            current.base.exec_ns = ahead_ns;
        }
    }
    current.class = u32::from(here.class);
}

/// Charges a task that is about to end with what it has used so far, since the kernel may not show its last switch.
/// Runs with preemption off, but not interrupts: a reading may come between.
#[inline(always)]
pub fn charge_ending(task: &Task) {
    let Some(current) = slot::current() else {
        return;
    };
    // SAFETY: the value of this CPU; no switch comes between, and a reading leaves it alone.
    let current = unsafe { &mut *current };
    let before = hold_readings(current);
    recognise(current, task);
    charge(current, task, Moment::Reading);
    release_readings(current, before);
}

/// Has readings that come between leave this CPU alone. May be called within itself.
#[inline(always)]
pub fn hold_readings(current: &mut Current) -> u32 {
    let before = current.charging;
    current.charging = 1;
    in_order();
    before
}

/// Lets readings go on as they did before the hold.
#[inline(always)]
pub fn release_readings(current: &mut Current, before: u32) {
    in_order();
    current.charging = before;
}

/// Keeps the compiler from moving reads and writes across it; a CPU sees its own in order.
#[inline(always)]
fn in_order() {
    // SAFETY: it holds no instruction.
    unsafe { asm!("", options(nostack)) };
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
            ..Charged::ZERO
        };
    }
}

/// Notes a task that comes.
#[inline(always)]
fn arrive(current: &mut Current, task: &Task, place: Registration) {
    current.pid = task.pid();
    current.slot = place.slot;
    current.class = u32::from(place.class);
    current.armed = 1;
    current.stamp = place.stamp;
    current.seen_exec_ns = NEVER_SEEN;
    current.arrived_ns = 0;
    if place.slot == IDLE_SLOT {
        return;
    }
    current.base.stamp = place.stamp;
    current.base.exec_ns = task.exec_ns();
    current.base.wait_ns = task.wait_ns();
    current.base.arrivals = task.arrivals();
    current.base.voluntary = task.voluntary();
    current.base.migrations = task.migrations();
    current.base.faults_minor = task.faults_minor();
    current.base.faults_major = task.faults_major();
    if place.slot != UNMANAGED_SLOT {
        watch_quota(current, task, place);
    }
}

/// Notes whether the container's own quota has held back its tasks on this CPU since one of them last came.
#[inline(always)]
fn watch_quota(current: &mut Current, task: &Task, place: Registration) {
    let Some(queue) = task.group_queue(u32::from(place.cpu_depth)) else {
        return;
    };
    let Some(watch) = QUOTA_WATCH.get_ptr_mut(index(place.slot)) else {
        return;
    };
    // SAFETY: the value of this CPU, which nothing else writes while interrupts are off.
    let watch = unsafe { &mut *watch };
    let account_ns = queue.held_ns();
    if watch.queue != queue.address() || watch.stamp != place.stamp {
        watch.queue = queue.address();
        watch.stamp = place.stamp;
        watch.account_ns = account_ns;
        watch.held_ns = 0;
        return;
    }
    let grown_ns = account_ns.wrapping_sub(watch.account_ns);
    if grown_ns == 0 && watch.held_ns == 0 {
        return;
    }
    let now_ns = now_ns();
    if grown_ns != 0 {
        watch.account_ns = account_ns;
        watch.held_ns = grown_ns;
        watch.held_until_ns = now_ns;
    } else if now_ns - watch.held_until_ns > HOLD_REMEMBERED_NS {
        watch.held_ns = 0;
        return;
    }
    current.arrived_ns = now_ns;
    current.held_until_ns = watch.held_until_ns;
    current.held_ns = watch.held_ns;
}

/// The part of the wait before the last arrival in which the container's own quota held the task back. A hold is taken
/// to have ended when the first task after it came to this CPU.
#[inline(always)]
fn own_part(current: &Current, wait_ns: u64) -> u64 {
    if current.arrived_ns == 0 {
        return 0;
    }
    let since_ns = current.arrived_ns - current.held_until_ns;
    if wait_ns <= since_ns {
        return 0;
    }
    let held_ns = wait_ns - since_ns;
    if held_ns < current.held_ns {
        held_ns
    } else {
        current.held_ns
    }
}

/// Charges a task with what its accounts have grown by.
#[inline(always)]
fn charge(current: &mut Current, task: &Task, moment: Moment) {
    if current.slot == IDLE_SLOT {
        return;
    }
    let Some(counters) = counters(current.slot) else {
        return;
    };
    // SAFETY: the value of this CPU; what this program writes of it nothing else writes while it runs.
    let counters = unsafe { &mut *counters };
    let base = &raw mut current.base;
    if current.slot != UNMANAGED_SLOT {
        if let Some(record) = TASKS.get_or_insert(task.0) {
            // SAFETY: this part of the storage of a task is written only by the CPU that it is on.
            let charged = unsafe { &mut (*record).charged };
            if charged.stamp != current.stamp {
                // The first time for this container: what was before its arrival here is not its container's.
                *charged = current.base;
            }
            grow(counters, charged, current, task, moment);
            current.base.exec_ns = charged.exec_ns;
            return;
        }
        current.storage_misses += 1;
    }
    // SAFETY: a part of `current` that `grow` does not use otherwise; a copy of it and back would take longer than all
    // the rest.
    grow(counters, unsafe { &mut *base }, current, task, moment);
}

#[inline(always)]
fn grow(
    counters: &mut SlotCounters,
    charged: &mut Charged,
    current: &mut Current,
    task: &Task,
    moment: Moment,
) {
    let account_ns = task.exec_ns();
    let exec_ns = match moment {
        Moment::Reading => estimate(account_ns, current),
        Moment::Departure(_) => account_ns,
    };
    if exec_ns >= charged.exec_ns {
        let before_ns = counters.on_cpu_ns;
        add_on_cpu(counters, exec_ns - charged.exec_ns);
        surge::watch(current.slot, before_ns, counters.on_cpu_ns);
        charged.exec_ns = exec_ns;
    } else if let Moment::Departure(_) = moment {
        counters.ahead_ns += charged.exec_ns - exec_ns;
        charged.exec_ns = exec_ns;
    }
    if kernel::flag(&kernel::HAS_WAIT) {
        let arrivals = task.arrivals().wrapping_sub(charged.arrivals);
        if arrivals > 0 {
            let wait_ns = task.wait_ns();
            let grown_ns = wait_ns.wrapping_sub(charged.wait_ns);
            let own_ns = own_part(current, grown_ns);
            let before_ns = counters.wait_ns;
            add_wait(counters, grown_ns, own_ns, arrivals);
            surge::watch(current.slot, before_ns, counters.wait_ns - own_ns);
            charged.arrivals = charged.arrivals.wrapping_add(arrivals);
            charged.wait_ns = wait_ns;
        }
    }
    let migrations = task.migrations();
    if migrations != charged.migrations {
        counters.migrations += migrations.wrapping_sub(charged.migrations);
        charged.migrations = migrations;
    }
    let faults = task.faults_minor();
    if faults != charged.faults_minor {
        counters.faults_minor += faults.wrapping_sub(charged.faults_minor);
        charged.faults_minor = faults;
    }
    let faults = task.faults_major();
    if faults != charged.faults_major {
        counters.faults_major += faults.wrapping_sub(charged.faults_major);
        charged.faults_major = faults;
    }
    if let Moment::Departure(coming) = moment {
        let voluntary = task.voluntary();
        if voluntary != charged.voluntary {
            counters.voluntary += voluntary.wrapping_sub(charged.voluntary);
            charged.voluntary = voluntary;
        } else {
            let by = preemptor(current, task, coming);
            counters.preempted_by[by as usize] += 1;
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

/// The running time of the task on this CPU: the scheduler's account, which every tick brings up to date. Where the
/// account has not moved since the reading before, there is no tick, and the clock tells what has passed since.
#[inline(always)]
fn estimate(account_ns: u64, current: &mut Current) -> u64 {
    let now_ns = now_ns();
    if current.seen_exec_ns != account_ns {
        current.seen_exec_ns = account_ns;
        current.seen_ns = now_ns;
    }
    account_ns + (now_ns - current.seen_ns)
}

/// Adds the waits of some arrivals: nearly always of one. Of several the sum is known, and stands in the histogram by
/// its mean.
#[inline(always)]
fn add_wait(counters: &mut SlotCounters, wait_ns: u64, own_ns: u64, arrivals: u64) {
    counters.wait_ns += wait_ns;
    counters.wait_count += arrivals;
    let mut others_ns = wait_ns;
    if own_ns != 0 {
        counters.wait_own_ns += own_ns;
        others_ns -= own_ns;
    }
    let bucket = if arrivals == 1 {
        bucket(others_ns)
    } else {
        bucket(others_ns / arrivals)
    };
    if bucket < HIST_BUCKETS
        && let Some(count) = counters.wait_hist.get_mut(bucket)
    {
        *count += arrivals;
    }
}

#[inline(always)]
fn preemptor(current: &Current, task: &Task, coming: Registration) -> Preemptor {
    if coming.slot == IDLE_SLOT {
        return Preemptor::Quota;
    }
    if coming.slot == current.slot {
        return Preemptor::Same;
    }
    if current.slot != UNMANAGED_SLOT && quota_is_used_up(task) {
        return Preemptor::Quota;
    }
    if coming.class == Class::Revocable as u16 {
        Preemptor::Revocable
    } else if coming.class == Class::Owned as u16 {
        Preemptor::Owned
    } else {
        Preemptor::Unmanaged
    }
}

/// Whether the container of a task has used up its quota on this CPU.
#[inline(always)]
fn quota_is_used_up(task: &Task) -> bool {
    let registration = place(task);
    match task.group_queue(u32::from(registration.cpu_depth)) {
        Some(queue) => queue.is_exhausted(),
        None => false,
    }
}
