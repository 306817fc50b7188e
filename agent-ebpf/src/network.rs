//! IP packets of the sockets of a container, in its own or in the machine's network.
//!
//! Attached to a cgroup above the containers; packets of others that pass there are not counted. A packet that the
//! network card or the kernel is to cut counts as the packets that it becomes, its header once. What a limit drops
//! ([`crate::traffic`]) counts nowhere but there: it was not received, and a sender that holds it back tries again.

use aya_ebpf::{
    helpers::generated::bpf_skb_ancestor_cgroup_id, macros::cgroup_skb, programs::SkBuffContext,
};
use ebb_agent_ebpf_common::MAX_LEVELS;

use crate::{
    pacing,
    slot::{LEVELS, REGISTRY, add, counters},
    traffic::{Way, passes},
};

/// Drops a packet; TCP, which has not sent it then, tries again when something else of the connection is confirmed.
const DROP: i32 = 0;
/// Lets a packet pass.
const PASS: i32 = 1;
/// Drops a packet that goes out as a full device does, of which a sender of datagrams hears nothing. After [`DROP`] it
/// would be told that it may not send, and take that for good.
const DROP_AS_FULL: i32 = 2;

/// Number of the loopback device, in every network namespace.
const LOOPBACK: u32 = 1;
const VERSION_6: u8 = 6;
/// Where a packet names what it carries, by its version.
const PROTOCOL_AT_4: usize = 9;
const PROTOCOL_AT_6: usize = 6;
const TCP: u8 = 6;

#[cgroup_skb(ingress)]
fn net_in(ctx: SkBuffContext) -> i32 {
    if takes(&ctx, Way::In) { PASS } else { DROP }
}

#[cgroup_skb(egress)]
fn net_out(ctx: SkBuffContext) -> i32 {
    if takes(&ctx, Way::Out) {
        PASS
    } else if is_tcp(&ctx) {
        DROP
    } else {
        DROP_AS_FULL
    }
}

/// Counts a packet, unless it is to be dropped.
#[inline(always)]
fn takes(ctx: &SkBuffContext, way: Way) -> bool {
    let Some(slot) = slot(ctx) else {
        return true;
    };
    let packet = ctx.skb.skb;
    // SAFETY: fields of the program's own packet.
    let (bytes, segments, device) =
        unsafe { ((*packet).len, (*packet).gso_segs, (*packet).ifindex) };
    let bytes = u64::from(bytes);
    let packets = u64::from(if segments == 0 { 1 } else { segments });
    if device != LOOPBACK {
        if !passes(slot, way, bytes, packets) {
            return false;
        }
        if way == Way::Out {
            pacing::sent(packet, slot);
        }
    }
    if let Some(counters) = counters(slot) {
        // SAFETY: a value of the map; these fields are only added to atomically.
        let counters = unsafe { &mut *counters };
        match way {
            Way::In => {
                add(&mut counters.net_in_bytes, bytes);
                add(&mut counters.net_in_packets, packets);
            }
            Way::Out => {
                add(&mut counters.net_out_bytes, bytes);
                add(&mut counters.net_out_packets, packets);
            }
        }
    }
    true
}

/// The slot of the container that a packet's socket is in.
#[inline(always)]
fn slot(ctx: &SkBuffContext) -> Option<u32> {
    let levels = LEVELS.get(0)?;
    for i in 0..MAX_LEVELS {
        let depth = levels.depth[0][i];
        if depth == 0 {
            return None;
        }
        // SAFETY: the packet is the program's own; the helper answers 0 for a depth that its cgroup has not.
        let id = unsafe { bpf_skb_ancestor_cgroup_id(ctx.skb.skb, depth as i32) };
        // SAFETY: an entry is replaced or removed only by the agent.
        if let Some(found) = unsafe { REGISTRY.get(&id) } {
            return Some(found.slot);
        }
    }
    None
}

/// Whether a packet is one of TCP's, without headers between that nobody sends it with.
#[inline(always)]
fn is_tcp(ctx: &SkBuffContext) -> bool {
    let version = ctx.load::<u8>(0).unwrap_or(0) >> 4;
    let at = if version == VERSION_6 {
        PROTOCOL_AT_6
    } else {
        PROTOCOL_AT_4
    };
    ctx.load::<u8>(at).unwrap_or(0) == TCP
}
