//! Tells the agent at once when a container that owns its resources demands much more than it did.
//!
//! **Problem.** What was lent must be back when its owner wants it, and a reading every 100 ms learns of that up to 100 ms
//! late. Reading more often costs all the time what is needed for a moment.
//!
//! **Way.** The agent writes for each owner, while anybody is there to give way, how much demand (time on CPUs and waits)
//! within a window is out of the ordinary. Whenever a counter of this CPU passes a multiple of half a millisecond, what
//! it has grown by is added to the window of its slot; when that is beyond the limit, one event goes out, and no other
//! until the agent writes a limit anew. A stretch counts at most the length of the window, so that a task that does
//! not leave its CPU for long looks no different from one that does.
//!
//! **Price.** A shift and a comparison at each switch; for each half of a millisecond of CPU or waiting one look at the
//! slot's window, and at the clock where the agent listens. Nothing is sent where nothing is out of the ordinary.
//! Without BTF nothing is told: readings are regular.

use aya_ebpf::{
    bindings::BPF_F_MMAPABLE,
    btf_maps::{Array, RingBuf},
    macros::btf_map,
};
use ebb_agent_ebpf_common::{
    Alert, DEFAULT_SLOTS, SURGE_STEP_SHIFT, SURGE_WINDOW_NS, Surge, UNMANAGED_SLOT,
};

use crate::{
    kernel::now_ns,
    slot::{add, trouble},
};

/// Room for so many bytes of alerts that the agent has not read yet: there is at most one a slot and reading.
const ALERTS_BYTES: usize = 1 << 14;

#[btf_map]
static SURGES: Array<Surge, { DEFAULT_SLOTS as usize }, { BPF_F_MMAPABLE as usize }> = Array::new();

#[btf_map]
static ALERTS: RingBuf<Alert, ALERTS_BYTES> = RingBuf::new();

/// A counter of the slot has grown on this CPU.
#[inline(always)]
pub fn watch(slot: u32, before_ns: u64, after_ns: u64) {
    if before_ns >> SURGE_STEP_SHIFT == after_ns >> SURGE_STEP_SHIFT || slot == UNMANAGED_SLOT {
        return;
    }
    let grown_ns = (after_ns >> SURGE_STEP_SHIFT).wrapping_sub(before_ns >> SURGE_STEP_SHIFT)
        << SURGE_STEP_SHIFT;
    note(slot, grown_ns);
}

#[inline(always)]
fn note(slot: u32, grown_ns: u64) {
    let Some(surge) = SURGES.get_ptr_mut(slot) else {
        return;
    };
    // SAFETY: a value of the map. Several CPUs may write it at once; a window that is begun twice or not at all only
    // makes this event come a little later.
    let surge = unsafe { &mut *surge };
    let limit_ns = surge.limit_ns;
    if limit_ns == 0 {
        return;
    }
    let now_ns = now_ns();
    if now_ns.wrapping_sub(surge.since_ns) > SURGE_WINDOW_NS {
        surge.since_ns = now_ns;
        surge.demand_ns = 0;
    }
    let counted_ns = if grown_ns < SURGE_WINDOW_NS {
        grown_ns
    } else {
        SURGE_WINDOW_NS
    };
    add(&mut surge.demand_ns, counted_ns);
    if surge.demand_ns <= limit_ns {
        return;
    }
    surge.limit_ns = 0;
    if ALERTS.output(Alert { at_ns: now_ns }, 0).is_err() {
        trouble(|trouble| &mut trouble.events_lost);
    }
}
