//! IP packets of the sockets of a container, in its own or in the machine's network.
//!
//! Attached to a cgroup above the containers; packets of others that pass there are not counted. A packet that the
//! network card or the kernel is to cut counts as the packets that it becomes, its header once.

use aya_ebpf::{
    helpers::generated::bpf_skb_ancestor_cgroup_id, macros::cgroup_skb, programs::SkBuffContext,
};
use ebb_agent_ebpf_common::{MAX_LEVELS, SlotCounters};

use crate::slot::{LEVELS, REGISTRY, add, counters};

/// Lets a packet pass.
const PASS: i32 = 1;

#[cgroup_skb]
fn net_in(ctx: SkBuffContext) -> i32 {
    count(&ctx, |counters, bytes, packets| {
        add(&mut counters.net_in_bytes, bytes);
        add(&mut counters.net_in_packets, packets);
    });
    PASS
}

#[cgroup_skb]
fn net_out(ctx: SkBuffContext) -> i32 {
    count(&ctx, |counters, bytes, packets| {
        add(&mut counters.net_out_bytes, bytes);
        add(&mut counters.net_out_packets, packets);
    });
    PASS
}

#[inline(always)]
fn count(ctx: &SkBuffContext, add: impl FnOnce(&mut SlotCounters, u64, u64)) {
    let Some(levels) = LEVELS.get(0) else {
        return;
    };
    let packet = ctx.skb.skb;
    for i in 0..MAX_LEVELS {
        let depth = levels.depth[0][i];
        if depth == 0 {
            return;
        }
        // SAFETY: the packet is the program's own; the helper answers 0 for a depth that its cgroup has not.
        let id = unsafe { bpf_skb_ancestor_cgroup_id(packet, depth as i32) };
        // SAFETY: an entry is replaced or removed only by the agent.
        let Some(found) = (unsafe { REGISTRY.get(&id) }) else {
            continue;
        };
        // SAFETY: fields of the program's own packet.
        let (bytes, segments) = unsafe { ((*packet).len, (*packet).gso_segs) };
        let packets = if segments == 0 { 1 } else { segments };
        if let Some(counters) = counters(found.slot) {
            // SAFETY: a value of the map; these fields are only added to atomically.
            add(
                unsafe { &mut *counters },
                u64::from(bytes),
                u64::from(packets),
            );
        }
        return;
    }
}
