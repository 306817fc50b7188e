//! What is normal for a task: its own latency while nobody whom Ebb could hold back runs.
//!
//! Averages are exponential with a weight of 1/16 a sample (1.6 s), in fixed point. While revocable
//! containers run, a value below the average still pulls it down, but none pulls it up: interference
//! must not become normal. If a task's own load raises its latency, revocable containers are
//! blamed wrongly at first, held back, and by that quiet: then the new latency is learnt, and they
//! are let go.

use super::super::usage::Rates;

/// Weight of one sample: 1/2^4.
const WEIGHT_SHIFT: u32 = 4;
/// Binary places of the fixed point.
const FRACTION_BITS: u32 = 8;

/// Waits in a sample below which the 99th percentile is merely the longest of them.
const P99_MIN_WAITS: u64 = 50;

/// Whether there were enough waits for a 99th percentile to mean something.
pub(super) fn enough_for_p99(rates: &Rates) -> bool {
    rates.waits.is_some_and(|waits| waits >= P99_MIN_WAITS)
}

/// What is normal for one task.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Baseline {
    mean: Average,
    p99: Average,
}

/// An exponential average in fixed point.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Average(Option<u64>);

impl Average {
    fn learn(&mut self, value: u64, quiet: bool) {
        let value = value.min(u64::MAX >> (FRACTION_BITS + 1)) << FRACTION_BITS;
        self.0 = match self.0 {
            Some(old) if value <= old => Some(old - ((old - value) >> WEIGHT_SHIFT)),
            Some(old) if quiet => Some(old + ((value - old) >> WEIGHT_SHIFT)),
            None if quiet => Some(value),
            unchanged => unchanged,
        };
    }

    fn get(self) -> u64 {
        self.0.unwrap_or(0) >> FRACTION_BITS
    }
}

impl Baseline {
    /// Takes a sample in. `quiet`: no revocable container uses CPU to speak of.
    pub(super) fn learn(&mut self, fast: &Rates, quiet: bool, min_waits: u64) {
        if fast.waits.is_none_or(|waits| waits < min_waits) {
            return;
        }
        if let Some(mean_ns) = fast.wait_mean_ns {
            self.mean.learn(mean_ns, quiet);
        }
        if let Some(p99_ns) = fast.wait_p99_ns.filter(|_| enough_for_p99(fast)) {
            self.p99.learn(p99_ns, quiet);
        }
    }

    /// The normal mean, in nanoseconds; 0 while none is known.
    pub(super) fn mean_ns(&self) -> u64 {
        self.mean.get()
    }

    /// The normal 99th percentile, in nanoseconds; 0 while none is known.
    pub(super) fn p99_ns(&self) -> u64 {
        self.p99.get()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rates(mean_ns: u64) -> Rates {
        Rates {
            waits: Some(100),
            wait_mean_ns: Some(mean_ns),
            wait_p99_ns: Some(mean_ns * 4),
            ..Rates::default()
        }
    }

    #[test]
    fn interference_never_becomes_normal_but_quiet_load_does() {
        let mut baseline = Baseline::default();
        for _ in 0..100 {
            baseline.learn(&rates(50_000), true, 10);
        }
        assert_eq!(baseline.mean_ns(), 50_000);
        for _ in 0..100_000 {
            baseline.learn(&rates(5_000_000), false, 10);
        }
        assert_eq!(baseline.mean_ns(), 50_000);
        for _ in 0..200 {
            baseline.learn(&rates(5_000_000), true, 10);
        }
        assert!(baseline.mean_ns() > 4_900_000, "{}", baseline.mean_ns());
        for _ in 0..200 {
            baseline.learn(&rates(50_000), false, 10);
        }
        assert!(baseline.mean_ns() < 55_000, "{}", baseline.mean_ns());
    }

    #[test]
    fn what_is_first_seen_under_interference_is_not_believed() {
        let mut baseline = Baseline::default();
        baseline.learn(&rates(5_000_000), false, 10);
        assert_eq!((baseline.mean_ns(), baseline.p99_ns()), (0, 0));
    }
}
