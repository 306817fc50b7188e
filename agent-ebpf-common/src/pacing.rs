//! How a limit of what is sent is divided among the TCP sockets of a container.

/// The whole limit, as a share.
pub const WHOLE_SHARE: u64 = 1 << 20;

/// A share is looked at anew when the limit allows so many bytes: segments leave in pieces of up to 64 kB, and of fewer
/// of them no rate can be told.
const LOOK_BYTES: u64 = 1 << 20;
/// But not more often than this, and not less often than the other.
const LOOK_LEAST_NS: u64 = 64_000_000;
const LOOK_MOST_NS: u64 = 1_000_000_000;
/// Looks that span more are of times without traffic.
const MAX_SPAN_MS: u64 = 100_000;
/// Beyond it products would not fit; no socket can be paced to more than a third of it.
const MAX_LIMIT: u64 = 1 << 34;
/// Who is so far ahead of the limit is to send half of it.
const HALVES_AT_MS: u64 = 250;
/// The least that a socket is paced to.
const LEAST_PACE: u64 = 1_024;

/// The most bytes a second that the kernel can be told to pace a socket to, and what it takes for "no limit".
pub const UNPACED: u32 = u32::MAX;

/// What the probes keep with each TCP socket that has sent under a limit.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SocketPace {
    /// The look in which it was last counted as a sender.
    pub counted_ns: u64,
    /// The slot of its container.
    pub slot: u32,
    /// Bytes a second that it was last paced to by the probes; 0 if it never was.
    pub paced: u32,
    /// What its own program has paced it to.
    pub own: u32,
    /// Nothing.
    pub spare: u32,
}

/// What was seen since the last look at a share.
#[derive(Clone, Copy, Debug)]
pub struct Look {
    /// The limit, in bytes a second.
    pub limit: u64,
    /// Bytes that were sent, and in how long.
    pub sent: u64,
    /// Nanoseconds since the last look.
    pub span_ns: u64,
    /// How far what was sent is ahead of the limit, in nanoseconds.
    pub ahead_ns: u64,
    /// Sockets that have sent.
    pub senders: u64,
}

/// How long to wait for the next look.
#[inline(always)]
pub const fn look_after_ns(limit: u64) -> u64 {
    if limit == 0 {
        return LOOK_MOST_NS;
    }
    let ns = LOOK_BYTES * 1_000_000_000 / limit;
    if ns < LOOK_LEAST_NS {
        LOOK_LEAST_NS
    } else if ns > LOOK_MOST_NS {
        LOOK_MOST_NS
    } else {
        ns
    }
}

/// The share of the limit that each socket may send, from the one that it had: so that together they send the limit,
/// whatever part of them is held back by something else. Half of the way at once, since it takes a round trip until a
/// socket obeys; at most to twice as much; and not to less than half of what each had if all wanted the same.
#[inline(always)]
pub const fn next_share(share: u64, look: Look) -> u64 {
    let limit = if look.limit < MAX_LIMIT {
        look.limit
    } else {
        MAX_LIMIT
    };
    let span_ms = look.span_ns / 1_000_000;
    let span_ms = if span_ms < MAX_SPAN_MS {
        span_ms
    } else {
        MAX_SPAN_MS
    };
    let ahead_ms = look.ahead_ns / 1_000_000;
    let ahead_ms = if ahead_ms < HALVES_AT_MS {
        ahead_ms
    } else {
        HALVES_AT_MS
    };
    let allowed = limit / 1_000 * span_ms;
    let goal = allowed - allowed * ahead_ms / (2 * HALVES_AT_MS);
    let sent = if look.sent == 0 { 1 } else { look.sent };
    let most = 3 * share;
    let wanted = share * goal / sent;
    let next = (share + if wanted < most { wanted } else { most }) / 2;
    let senders = if look.senders == 0 { 1 } else { look.senders };
    let least = WHOLE_SHARE / 2 / senders;
    if next > WHOLE_SHARE {
        WHOLE_SHARE
    } else if next < least {
        least
    } else {
        next
    }
}

/// What a socket is paced to, in bytes a second.
#[inline(always)]
pub const fn pace(limit: u64, share: u64) -> u32 {
    if limit == 0 {
        return UNPACED;
    }
    let limit = if limit < MAX_LIMIT { limit } else { MAX_LIMIT };
    let pace = limit * share / WHOLE_SHARE;
    if pace < LEAST_PACE {
        LEAST_PACE as u32
    } else if pace >= UNPACED as u64 {
        UNPACED
    } else {
        pace as u32
    }
}

const _: () = assert!(size_of::<SocketPace>() == 24);

#[cfg(test)]
mod tests {
    use std::vec;
    use std::vec::Vec;

    use super::*;

    const STEP_NS: u64 = 1_000_000;
    const PIECE: u64 = 65_536;
    const AHEAD_NS: u64 = 250_000_000;

    /// One that sends in pieces, and obeys a pace a round trip later.
    struct Sender {
        /// What something else lets it send, in bytes a second.
        can: u64,
        round_trip: usize,
        credit: u64,
    }

    /// What is sent over the second half of so many steps of a millisecond, as a part of the limit, and how far it was
    /// ahead at most in that time.
    fn run(limit: u64, senders: &mut [Sender], steps: usize, drops: bool) -> (f64, u64) {
        let mut shares = vec![WHOLE_SHARE];
        let (mut share, mut looked_ns, mut sent_then) = (WHOLE_SHARE, 0, 0);
        let (mut until_ns, mut sent) = (0, 0);
        let (mut active, mut before) = (vec![false; senders.len()], 0);
        let (mut sent_at_half, mut most_ahead) = (0, 0);
        for step in 1..=steps {
            let now_ns = step as u64 * STEP_NS;
            if step == steps / 2 {
                sent_at_half = sent;
            }
            for (sender, active) in senders.iter_mut().zip(&mut active) {
                let share = shares[shares.len().saturating_sub(1 + sender.round_trip)];
                let rate = sender.can.min(u64::from(pace(limit, share)));
                let gains = rate * STEP_NS / 1_000_000_000;
                sender.credit = (sender.credit + gains).min(2 * PIECE.max(gains));
                let piece = PIECE.min((rate / 50).max(3_000));
                while sender.credit >= piece {
                    sender.credit -= piece;
                    if drops && until_ns > now_ns + AHEAD_NS {
                        continue;
                    }
                    // Headers count too.
                    let bytes = piece * 26 / 25;
                    sent += bytes;
                    until_ns = until_ns.max(now_ns.saturating_sub(50_000_000))
                        + bytes * 1_000_000_000 / limit;
                    *active = true;
                }
            }
            let span_ns = now_ns - looked_ns;
            if span_ns >= look_after_ns(limit) {
                let count = active.iter().filter(|one| **one).count() as u64;
                share = next_share(
                    share,
                    Look {
                        limit,
                        sent: sent - sent_then,
                        span_ns,
                        ahead_ns: until_ns.saturating_sub(now_ns),
                        senders: count.max(before),
                    },
                );
                (looked_ns, sent_then, before) = (now_ns, sent, count);
                active.fill(false);
            }
            shares.push(share);
            if step > steps / 2 {
                most_ahead = most_ahead.max(until_ns.saturating_sub(now_ns));
            }
        }
        let allowed = limit * (steps - steps / 2) as u64 / 1_000;
        ((sent - sent_at_half) as f64 / allowed as f64, most_ahead)
    }

    fn next(seed: &mut u64) -> u64 {
        *seed ^= *seed << 13;
        *seed ^= *seed >> 7;
        *seed ^= *seed << 17;
        seed.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33
    }

    #[test]
    fn whoever_sends_they_send_the_limit_together_and_are_not_far_ahead_of_it() {
        for seed in 1..=400 {
            let mut random = 0x9e37_79b9_7f4a_7c15 ^ (seed << 20);
            let limit = 1_000_000 << (next(&mut random) % 10);
            let count = 1 + next(&mut random) % 24;
            let mut senders: Vec<Sender> = (0..count)
                .map(|_| Sender {
                    // Nearly nothing, or all.
                    can: [limit / 500, limit / 20, 4 * limit][next(&mut random) as usize % 3],
                    round_trip: [1, 5, 20, 80][next(&mut random) as usize % 4],
                    credit: 0,
                })
                .collect();
            let wanted: u64 = senders.iter().map(|one| one.can).sum();
            let (part, ahead_ns) = run(limit, &mut senders, 20_000, true);
            let could = (wanted as f64 / limit as f64).min(1.0);
            let what = || std::format!("seed {seed}: limit {limit}, {count} senders");
            assert!(part < 1.07, "{part} of the limit, {}", what());
            assert!(part > could * 0.9, "{part} of {could}, {}", what());
            // Of less, a look of a second holds few pieces.
            if limit >= 4_000_000 {
                let ahead_ms = ahead_ns / 1_000_000;
                assert!(ahead_ms < 100, "{ahead_ms} ms ahead, {}", what());
            }
        }
    }

    #[test]
    fn a_limit_of_anything_gives_a_pace_without_overflow() {
        for limit in [0, 1, 1_000, 1 << 34, u64::MAX / LOOK_BYTES, u64::MAX] {
            for share in [0, 1, WHOLE_SHARE] {
                for (sent, span_ns) in [(0, 0), (1, u64::MAX), (u64::MAX, 1), (1 << 40, 1 << 40)] {
                    let look = Look {
                        limit,
                        sent,
                        span_ns,
                        ahead_ns: u64::MAX,
                        senders: u64::MAX,
                    };
                    let share = next_share(share, look);
                    assert!(share <= WHOLE_SHARE);
                    assert!(pace(limit, share) >= LEAST_PACE as u32);
                }
            }
            assert!((LOOK_LEAST_NS..=LOOK_MOST_NS).contains(&look_after_ns(limit)));
        }
        assert_eq!(pace(0, 1), UNPACED);
    }
}
