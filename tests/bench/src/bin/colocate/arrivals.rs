//! When requests are due: a Poisson process from a seed, so that every phase meets the same bursts.

/// The seed of every run of arrivals.
const SEED: u64 = 0x9e37_79b9_7f4a_7c15;

/// Points in time of an open-loop load, in nanoseconds.
#[derive(Debug)]
pub struct Arrivals {
    state: u64,
    mean_gap_ns: f64,
    next_ns: f64,
}

impl Arrivals {
    /// Arrivals from `now_ns` on.
    pub fn new(per_second: f64, now_ns: u64) -> Self {
        let mut arrivals = Self {
            state: SEED,
            mean_gap_ns: 1e9 / per_second.max(1e-3),
            next_ns: now_ns as f64,
        };
        arrivals.advance();
        arrivals
    }

    /// Another rate from `now_ns` on.
    pub fn set_rate(&mut self, per_second: f64, now_ns: u64) {
        *self = Self {
            state: self.state,
            ..Self::new(per_second, now_ns)
        };
    }

    /// When the next request is due.
    pub fn next_ns(&self) -> u64 {
        self.next_ns as u64
    }

    /// Goes on to the one after it.
    pub fn advance(&mut self) {
        // xorshift64*: ample for gaps.
        self.state ^= self.state >> 12;
        self.state ^= self.state << 25;
        self.state ^= self.state >> 27;
        let bits = self.state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 11;
        let uniform = (bits as f64 + 1.0) / (1u64 << 53) as f64;
        self.next_ns -= uniform.ln() * self.mean_gap_ns;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_are_exponential_with_the_mean_that_was_asked() {
        let mut arrivals = Arrivals::new(1000.0, 0);
        let (mut sum, mut squares, mut last) = (0.0, 0.0, 0);
        for _ in 0..100_000 {
            let gap = (arrivals.next_ns() - last) as f64;
            (sum, squares, last) = (sum + gap, squares + gap * gap, arrivals.next_ns());
            arrivals.advance();
        }
        let mean = sum / 1e5;
        let deviation = (squares / 1e5 - mean * mean).sqrt();
        assert!((mean / 1e6 - 1.0).abs() < 0.02, "{mean}");
        assert!((deviation / mean - 1.0).abs() < 0.03, "{deviation}");
    }

    #[test]
    fn two_runs_meet_the_same_bursts() {
        let gaps = |from| {
            let mut arrivals = Arrivals::new(10.0, from);
            let first = arrivals.next_ns() - from;
            arrivals.advance();
            (first, arrivals.next_ns() - from - first)
        };
        let (one, other) = (gaps(1_000_000), gaps(77_000_000));
        assert!(one.0.abs_diff(other.0) <= 1 && one.1.abs_diff(other.1) <= 1);
    }
}
