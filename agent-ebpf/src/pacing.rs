//! TCP sockets under a limit are paced, so that what a limit drops is only what nobody could pace.
//!
//! **Problem.** Whoever is held to a limit by drops alone sends as fast as the wire until it is too far ahead, and is
//! silent then. The mean is right, and the queue that it fills meanwhile is everybody's.
//!
//! **Way.** TCP can pace itself: a socket has a greatest rate, and the kernel spreads its segments in time, whatever the
//! device. A container's sockets each get the same share of its limit, of which those that want less leave to others:
//! [`ebb_agent_ebpf_common::pacing::next_share`] says how. Two programs work together, since neither can do it alone:
//!
//! - the one that sees packets knows the container. It notes the slot with the socket, counts the sockets that send, and
//!   looks at the share some ten times a second ([`sent`]);
//! - the one that is called for a socket may set its rate, but not tell its container. It asks to be called once in
//!   every round trip and applies what holds by then ([`net_pace`]): also a limit that was changed or lifted.
//!
//! A rate that a program has set for its own socket holds as long as it is smaller. Sockets that were connected before
//! the probes came, and datagrams, meet the drops of [`crate::traffic`] only.
//!
//! **Which CPU comes first?** Two CPUs that look at a share at once compute it from the same figures, or one of them
//! counts what came between twice or not at all; the next look makes up for it.
//!
//! **Price.** Without a limit, one local-storage look-up for each round trip of a connection that leaves the machine. With
//! one, one for each packet that is sent, too.

use core::ptr;

use aya_ebpf::{
    bindings::{
        __sk_buff, BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB, BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB,
        BPF_SOCK_OPS_RTT_CB, BPF_SOCK_OPS_RTT_CB_FLAG, SO_MAX_PACING_RATE, SOL_SOCKET,
    },
    helpers::generated::{bpf_getsockopt, bpf_setsockopt, bpf_sk_fullsock},
    macros::sock_ops,
    programs::SockOpsContext,
};
use ebb_agent_ebpf_common::pacing::{Look, UNPACED, WHOLE_SHARE, look_after_ns, next_share, pace};

use crate::{
    kernel::now_ns,
    slot::add,
    storage::SOCKETS,
    traffic::{TRAFFIC, limit_of},
};

const TCP: u32 = 6;
const FAMILY_4: u32 = 2;
/// 127.0.0.0/8, as it stands in memory.
const LOOPBACK_4: [u8; 1] = [127];
const RATE_BYTES: i32 = 4;

/// Notes whose socket has sent under a limit, and looks at the share of each when it is time.
#[inline(always)]
pub fn sent(packet: *mut __sk_buff, slot: u32) {
    let Some(traffic) = TRAFFIC.get_ptr_mut(slot) else {
        return;
    };
    // SAFETY: a value of the map.
    let traffic = unsafe { &mut *traffic };
    let limit = limit_of(traffic);
    if limit == 0 {
        return;
    }
    // SAFETY: a field of the program's own packet.
    let socket = unsafe { (*packet).__bindgen_anon_2.sk };
    if socket.is_null() {
        return;
    }
    // SAFETY: not null. Packets that open a connection have no whole socket yet.
    let socket = unsafe { bpf_sk_fullsock(socket) };
    // SAFETY: a socket that the verifier vouches for.
    if socket.is_null() || unsafe { (*socket).protocol } != TCP {
        return;
    }
    let now = now_ns();
    let span_ns = now.wrapping_sub(traffic.looked_ns);
    if span_ns >= look_after_ns(limit) {
        let out_bytes = traffic.out_bytes;
        let senders = traffic.senders;
        let look = Look {
            limit,
            sent: out_bytes.wrapping_sub(traffic.looked_bytes),
            span_ns,
            ahead_ns: traffic.sent_until_ns.saturating_sub(now),
            senders: senders.max(traffic.senders_before),
        };
        traffic.looked_ns = now;
        traffic.looked_bytes = out_bytes;
        traffic.senders_before = senders;
        traffic.senders = 0;
        traffic.share = next_share(share(traffic.share), look);
    }
    let Some(kept) = SOCKETS.get_or_insert(socket) else {
        return;
    };
    // SAFETY: the socket's own value.
    let kept = unsafe { &mut *kept };
    kept.slot = slot;
    if kept.counted_ns != traffic.looked_ns {
        kept.counted_ns = traffic.looked_ns;
        add(&mut traffic.senders, 1);
    }
}

/// Before the first look, the whole.
#[inline(always)]
fn share(share: u64) -> u64 {
    if share == 0 { WHOLE_SHARE } else { share }
}

#[sock_ops]
fn net_pace(ctx: SockOpsContext) -> u32 {
    match ctx.op() {
        BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB | BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB => {
            if !stays_here(&ctx) {
                let flags = ctx.cb_flags() | BPF_SOCK_OPS_RTT_CB_FLAG;
                // One that is closing again needs none.
                let _ = ctx.set_cb_flags(flags as i32);
            }
        }
        BPF_SOCK_OPS_RTT_CB => apply(&ctx),
        _ => {}
    }
    1
}

/// Whether a connection does not leave the machine.
#[inline(always)]
fn stays_here(ctx: &SockOpsContext) -> bool {
    if ctx.family() == FAMILY_4 {
        let remote = ctx.remote_ip4();
        remote == ctx.local_ip4() || remote.to_ne_bytes()[..1] == LOOPBACK_4
    } else {
        // Word by word, as the verifier wants it.
        // SAFETY: fields of the program's own context.
        let (remote, local) = unsafe {
            (
                &raw const (*ctx.ops).remote_ip6,
                &raw const (*ctx.ops).local_ip6,
            )
        };
        (0..4).all(|i| word(remote, i) == word(local, i))
    }
}

#[inline(always)]
fn word(address: *const [u32; 4], at: usize) -> u32 {
    // SAFETY: one of the four words of a field.
    unsafe { ptr::read_volatile(address.cast::<u32>().add(at)) }
}

/// Paces a socket to what holds now.
#[inline(always)]
fn apply(ctx: &SockOpsContext) {
    // SAFETY: a field of the program's own context.
    let socket = unsafe { (*ctx.ops).__bindgen_anon_2.sk };
    if socket.is_null() {
        return;
    }
    let Some(kept) = SOCKETS.get(socket) else {
        return;
    };
    // SAFETY: the socket's own value, which only this program and the one above change.
    let kept = unsafe { &mut *kept };
    let Some(traffic) = TRAFFIC.get_ptr_mut(kept.slot) else {
        return;
    };
    // SAFETY: a value of the map.
    let traffic = unsafe { &mut *traffic };
    let Some(current) = rate_of(ctx) else {
        return;
    };
    // Its program has set it since, or nobody has yet.
    if current != kept.paced {
        kept.own = current;
    }
    let wanted = pace(limit_of(traffic), share(traffic.share)).min(kept.own);
    if wanted != current && set_rate(ctx, wanted) {
        kept.paced = wanted;
    }
}

/// The greatest rate that a socket has.
#[inline(always)]
fn rate_of(ctx: &SockOpsContext) -> Option<u32> {
    let mut rate = UNPACED;
    // SAFETY: the program's own context, and a place for the answer that is as long as is said.
    let answer = unsafe {
        bpf_getsockopt(
            ctx.ops.cast(),
            SOL_SOCKET as i32,
            SO_MAX_PACING_RATE as i32,
            ptr::from_mut(&mut rate).cast(),
            RATE_BYTES,
        )
    };
    if answer == 0 { Some(rate) } else { None }
}

#[inline(always)]
fn set_rate(ctx: &SockOpsContext, mut rate: u32) -> bool {
    // SAFETY: as above.
    let answer = unsafe {
        bpf_setsockopt(
            ctx.ops.cast(),
            SOL_SOCKET as i32,
            SO_MAX_PACING_RATE as i32,
            ptr::from_mut(&mut rate).cast(),
            RATE_BYTES,
        )
    };
    answer == 0
}
