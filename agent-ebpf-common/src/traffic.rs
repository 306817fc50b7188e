//! What a container sends and receives by network devices, and how much it may.

/// The traffic of one slot with the network devices but loopback: one a slot, for all CPUs together, since a limit is
/// one for all of them. The second cache line is touched only by what is sent under a limit.
///
/// The agent writes the limit, and the rest only while no container has the slot; the probes write what follows, with
/// atomic additions but for the stores that their comments explain.
#[repr(C, align(64))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Traffic {
    /// Bytes a second that may be received, and as many that may be sent; 0 if there is no limit.
    pub limit_bytes_per_s: u64,
    /// Bytes of IP packets received. What was dropped is not among them.
    pub in_bytes: u64,
    /// Bytes of IP packets sent. What was dropped is not among them.
    pub out_bytes: u64,
    /// IP packets of either direction that were dropped for the sake of the limit. One that a sender tries again counts
    /// each time.
    pub dropped_packets: u64,
    /// When all that was received would have come if it came at the limit, by the kernel's monotonic clock.
    pub received_until_ns: u64,
    /// The same of what was sent.
    pub sent_until_ns: u64,
    /// Nothing: fills the cache line.
    pub spare: [u64; 2],
    /// What part of the limit each TCP socket may send, of [`crate::pacing::WHOLE_SHARE`]; 0 before the first look.
    pub share: u64,
    /// When that was last looked at, by the kernel's monotonic clock.
    pub looked_ns: u64,
    /// [`Self::out_bytes`] then.
    pub looked_bytes: u64,
    /// TCP sockets that have sent since.
    pub senders: u64,
    /// Those that had sent between that look and the one before.
    pub senders_before: u64,
    /// Nothing: fills the cache line.
    pub spare_of_shares: [u64; 3],
}

impl Traffic {
    /// No limit, and nothing that came or went.
    pub const ZERO: Self = Self {
        limit_bytes_per_s: 0,
        in_bytes: 0,
        out_bytes: 0,
        dropped_packets: 0,
        received_until_ns: 0,
        sent_until_ns: 0,
        spare: [0; 2],
        share: 0,
        looked_ns: 0,
        looked_bytes: 0,
        senders: 0,
        senders_before: 0,
        spare_of_shares: [0; 3],
    };
}

/// What may be made up for of a time in which less came or went than the limit allows, at once.
pub const TRAFFIC_BURST_NS: u64 = 50_000_000;

/// How far traffic may be ahead of its limit before packets are dropped. TCP stands still for 200 ms after a loss that
/// nothing else tells it of; it must have been allowed that much before, or it stays below its limit.
pub const TRAFFIC_AHEAD_NS: u64 = 250_000_000;

/// A packet of at most so many bytes may be as far ahead once more: it opens a connection or confirms what has come, and
/// with it all waits.
pub const TRAFFIC_SMALL_BYTES: u64 = 128;

/// The most that one packet puts traffic ahead. Were a limit of next to nothing raised, what had passed under it would
/// else hold for hours. A limit below 16 kB/s does not hold for packets of 64 kB.
pub const TRAFFIC_PACKET_NS: u64 = 4_000_000_000;

const _: () = assert!(size_of::<Traffic>() == 128);
const _: () = assert!(align_of::<Traffic>() == 64);
