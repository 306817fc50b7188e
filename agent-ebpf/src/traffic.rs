//! Traffic with network devices: counted apart from what stays on the machine, and kept at a limit.
//!
//! **Problem.** What a container sends and receives by the machine's network devices is lent and limited; what its tasks
//! say to each other on loopback is not, however much it is.
//!
//! **Way.** A limit is virtual time: each direction has a moment until which what has passed would have kept the device
//! busy at the limit. Each packet moves it on by its bytes divided by the limit. When it is further ahead of the clock
//! than [`TRAFFIC_AHEAD_NS`], packets are dropped until the clock comes nearer; when it is behind, no more than
//! [`TRAFFIC_BURST_NS`] of it is made up for. So over any time `t` there pass at most the bytes of `t` and of these two
//! spans, and one packet for each CPU. Small packets, without which others wait, may go as far ahead once more. The
//! directions have one limit, but each its own moment.
//!
//! **Which CPU comes first?** There is no compare-and-exchange here, and none is needed. A packet's time is added in one
//! atomic instruction, so none is forgotten. CPUs that look at once all see the moment before any has added, and all
//! let a packet pass: one too many for each, whose time is added nonetheless and waited off by those that follow. Only
//! a moment that is behind the clock by more than the burst is stored, not added to: what other CPUs have added
//! between this one's look and its store is forgotten then. That is at most the burst and the span ahead, however long
//! this CPU was held up in between, since they could not get further, and only after a rest longer than the burst. An
//! addition there would forget nothing, but two of them would put the moment ahead by the whole length of the rest.
//!
//! **Why is nothing delayed here?** TCP is paced ([`crate::pacing`]) and seldom comes this far. For the rest, a device that is
//! asked to wait (`fq` with a packet's departure time) would smooth what is dropped. But `cgroup_skb` programs can write the time and not say of which clock it is: a datagram's would be
//! taken for the time of day where the packet crosses into another network namespace, and most devices have no `fq`.
//!
//! **Price.** One look at an array and one atomic addition for each packet of a device; with a limit, the clock, a
//! division and another addition. The cache line is shared by all CPUs that have packets of one container.

use core::ptr;

use aya_ebpf::{bindings::BPF_F_MMAPABLE, btf_maps::Array, macros::btf_map};
use ebb_agent_ebpf_common::{
    DEFAULT_SLOTS, TRAFFIC_AHEAD_NS, TRAFFIC_BURST_NS, TRAFFIC_PACKET_NS, TRAFFIC_SMALL_BYTES,
    Traffic,
};

use crate::{kernel::now_ns, slot::add};

const NS_PER_S: u64 = 1_000_000_000;

#[btf_map]
pub static TRAFFIC: Array<Traffic, { DEFAULT_SLOTS as usize }, { BPF_F_MMAPABLE as usize }> =
    Array::new();

/// Where a packet goes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Way {
    In,
    Out,
}

/// Counts a packet of a device; or says that it is to be dropped, and counts that.
#[inline(always)]
pub fn passes(slot: u32, way: Way, bytes: u64, packets: u64) -> bool {
    let Some(traffic) = TRAFFIC.get_ptr_mut(slot) else {
        return true;
    };
    // SAFETY: a value of the map.
    let traffic = unsafe { &mut *traffic };
    let limit = limit_of(traffic);
    if limit != 0 {
        let until = match way {
            Way::In => &mut traffic.received_until_ns,
            Way::Out => &mut traffic.sent_until_ns,
        };
        if !has_time(until, bytes, limit) {
            add(&mut traffic.dropped_packets, packets);
            return false;
        }
    }
    match way {
        Way::In => add(&mut traffic.in_bytes, bytes),
        Way::Out => add(&mut traffic.out_bytes, bytes),
    }
    true
}

/// The limit: read once, since the agent may change it between a comparison and a division.
#[inline(always)]
pub fn limit_of(traffic: &Traffic) -> u64 {
    // SAFETY: a valid reference.
    unsafe { ptr::read_volatile(&traffic.limit_bytes_per_s) }
}

/// Takes the time that these bytes need at the limit, if there is some left.
#[inline(always)]
fn has_time(until: &mut u64, bytes: u64, limit: u64) -> bool {
    let now = now_ns();
    // SAFETY: a valid reference. Other CPUs add to it meanwhile.
    let until_ns = unsafe { ptr::read_volatile(until) };
    let least = now.wrapping_sub(TRAFFIC_BURST_NS);
    let small = bytes <= TRAFFIC_SMALL_BYTES;
    let ahead = if small {
        2 * TRAFFIC_AHEAD_NS
    } else {
        TRAFFIC_AHEAD_NS
    };
    if until_ns > now + ahead {
        return false;
    }
    if until_ns < least {
        // SAFETY: as above.
        unsafe { ptr::write_volatile(until, least) };
    }
    // The bytes of a packet fit into 32 bits, and its time thus into 64.
    let takes = bytes * NS_PER_S / limit;
    add(
        until,
        if takes < TRAFFIC_PACKET_NS {
            takes
        } else {
            TRAFFIC_PACKET_NS
        },
    );
    true
}
