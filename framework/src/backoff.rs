//! Exponential back-off with jitter, without a clock and without chance of its own.
//!
//! The `n`-th wait lies between 0 and `first_ms · 2ⁿ`, at most `cap_ms`: the full jitter spreads
//! frameworks that lost their master at one moment evenly over the wait.

/// The small generator that spreads waits; seeded, so that a simulation can be replayed.
#[derive(Clone, Debug)]
pub struct Jitter(u64);

impl Jitter {
    /// A generator; equal seeds give equal numbers.
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// A number up to and including `most`.
    pub fn up_to(&mut self, most: u64) -> u64 {
        // SplitMix64: every seed is a good one.
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^= z >> 31;
        most.checked_add(1).map_or(z, |count| z % count)
    }
}

/// How long to wait before the next try.
#[derive(Clone, Debug)]
pub struct Backoff {
    first_ms: u64,
    cap_ms: u64,
    tries: u32,
}

impl Backoff {
    /// A back-off whose first bound is `first_ms` and whose largest is `cap_ms`.
    pub const fn new(first_ms: u64, cap_ms: u64) -> Self {
        Self {
            first_ms,
            cap_ms,
            tries: 0,
        }
    }

    /// The bound of the next wait; each call doubles it.
    pub fn next_bound_ms(&mut self) -> u64 {
        let bound = self
            .first_ms
            .saturating_mul(1u64.checked_shl(self.tries).unwrap_or(u64::MAX))
            .min(self.cap_ms);
        self.tries = self.tries.saturating_add(1);
        bound
    }

    /// The next wait, spread evenly below its bound.
    pub fn next_wait_ms(&mut self, jitter: &mut Jitter) -> u64 {
        jitter.up_to(self.next_bound_ms())
    }

    /// Starts over: the last try worked.
    pub const fn reset(&mut self) {
        self.tries = 0;
    }

    /// How many waits were asked for since the start or the last reset.
    pub const fn tries(&self) -> u32 {
        self.tries
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_double_up_to_the_cap_and_start_over() {
        let mut backoff = Backoff::new(100, 10_000);
        let bounds: Vec<_> = (0..9).map(|_| backoff.next_bound_ms()).collect();
        assert_eq!(
            bounds,
            [100, 200, 400, 800, 1600, 3200, 6400, 10_000, 10_000]
        );
        for _ in 0..200 {
            assert_eq!(backoff.next_bound_ms(), 10_000, "no wrap after many tries");
        }
        backoff.reset();
        assert_eq!(backoff.next_bound_ms(), 100);
    }

    #[test]
    fn waits_stay_below_their_bound_and_spread() {
        let mut jitter = Jitter::new(7);
        let waits: Vec<_> = (0..1000)
            .map(|_| Backoff::new(100, 10_000).next_wait_ms(&mut jitter))
            .collect();
        assert!(waits.iter().all(|wait| *wait <= 100));
        assert!(waits.iter().any(|wait| *wait < 10) && waits.iter().any(|wait| *wait > 90));
        let again = Jitter::new(7).up_to(100);
        assert_eq!(again, waits[0], "a seed can be replayed");
    }
}
