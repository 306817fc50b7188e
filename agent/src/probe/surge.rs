//! From which demand on an owner's rise is told at once.
//!
//! **Problem.** A limit that is too low tells of what is ordinary, one that is too high of nothing. What is ordinary
//! differs by container and changes.
//!
//! **Rule.** Ordinary is what a container has demanded of late (CPU and waits, from reading to reading): a rise counts at
//! once, a fall by an eighth a reading. Told is twice that and an allowance, which doubles each time that something was told
//! and halves again in [`FORGIVEN_NS`] without: a container whose ordinary life is bursts is soon left alone, and one
//! that was quiet is watched closely.
//!
//! **Units.** Nanoseconds; thousandths of a core.

use ebb_agent_ebpf_common::SURGE_WINDOW_NS;

/// The allowance of a container that has been quiet, in thousandths of a core. What the QoS controller takes for a rise.
const LEAST_ALLOWANCE_MILLI: u64 = 100;
/// How often it is doubled at most: 3.2 cores beyond twice the ordinary.
const MOST_DOUBLINGS: u32 = 5;
/// After so long without anything told an allowance is halved.
const FORGIVEN_NS: u64 = 2_000_000_000;
/// Readings that are nearer to each other tell no rate.
const LEAST_SPAN_NS: u64 = 10_000_000;
/// Part of what is ordinary that one reading forgets: 1/2^3.
const FORGET_SHIFT: u32 = 3;

/// What is ordinary for one container.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ordinary {
    /// When it was read last, and what it had demanded by then.
    read: Option<(u64, u64)>,
    /// What it demands, in thousandths of a core; `None` before the second reading.
    demand_milli: Option<u64>,
    doublings: u32,
    /// When something was told, or an allowance was halved, last.
    changed_ns: u64,
}

impl Ordinary {
    /// Takes a reading in: what was demanded in all, and whether something was told since the one before. Gives the demand
    /// within [`SURGE_WINDOW_NS`] to tell from now on; `None` while nothing is known.
    pub fn step(&mut self, now_ns: u64, demanded_ns: u64, told: bool) -> Option<u64> {
        self.learn(now_ns, demanded_ns);
        if told {
            self.doublings = (self.doublings + 1).min(MOST_DOUBLINGS);
            self.changed_ns = now_ns;
        } else if now_ns.saturating_sub(self.changed_ns) >= FORGIVEN_NS {
            self.doublings = self.doublings.saturating_sub(1);
            self.changed_ns = now_ns;
        }
        let allowance = LEAST_ALLOWANCE_MILLI << self.doublings;
        let limit_milli = self
            .demand_milli?
            .saturating_mul(2)
            .saturating_add(allowance);
        Some(limit_milli.saturating_mul(SURGE_WINDOW_NS) / 1_000)
    }

    fn learn(&mut self, now_ns: u64, demanded_ns: u64) {
        let Some((read_ns, before_ns)) = self.read else {
            self.read = Some((now_ns, demanded_ns));
            return;
        };
        let span_ns = now_ns.saturating_sub(read_ns);
        if span_ns < LEAST_SPAN_NS {
            return;
        }
        self.read = Some((now_ns, demanded_ns));
        let Some(grown_ns) = demanded_ns.checked_sub(before_ns) else {
            // It was counted anew.
            return;
        };
        let rate_milli = grown_ns.saturating_mul(1_000) / span_ns;
        self.demand_milli = Some(match self.demand_milli {
            Some(old) if rate_milli < old => old - ((old - rate_milli) >> FORGET_SHIFT),
            _ => rate_milli,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const READING_NS: u64 = 100_000_000;

    /// Feeds so many readings of a steady demand; gives the last limit as a rate.
    fn steady(ordinary: &mut Ordinary, from: &mut (u64, u64), milli: u64, readings: u64) -> u64 {
        let mut limit = None;
        for _ in 0..readings {
            *from = (from.0 + READING_NS, from.1 + READING_NS * milli / 1_000);
            limit = ordinary.step(from.0, from.1, false);
        }
        limit.expect("known after two readings") * 1_000 / SURGE_WINDOW_NS
    }

    #[test]
    fn nothing_is_told_of_a_container_that_is_not_known() {
        assert_eq!(Ordinary::default().step(5, 7, false), None);
    }

    #[test]
    fn told_is_twice_the_ordinary_and_an_allowance() {
        let (mut ordinary, mut at) = (Ordinary::default(), (1, 0));
        assert_eq!(steady(&mut ordinary, &mut at, 0, 2), 100);
        assert_eq!(steady(&mut ordinary, &mut at, 400, 1), 900);
        assert_eq!(steady(&mut ordinary, &mut at, 400, 9), 900);
        let after_a_fall = steady(&mut ordinary, &mut at, 0, 1);
        assert!((700..900).contains(&after_a_fall), "{after_a_fall}");
        assert!(steady(&mut ordinary, &mut at, 0, 60) < 120);
    }

    #[test]
    fn a_container_of_bursts_is_left_alone_and_later_watched_again() {
        let (mut ordinary, mut now_ns) = (Ordinary::default(), 1);
        let mut limits = Vec::new();
        for _ in 0..20 {
            now_ns += READING_NS;
            limits.extend(ordinary.step(now_ns, 0, true));
        }
        assert!(limits.is_sorted(), "{limits:?}");
        let most = (LEAST_ALLOWANCE_MILLI << MOST_DOUBLINGS) * SURGE_WINDOW_NS / 1_000;
        assert_eq!(limits.last(), Some(&most));
        for _ in 0..u64::from(MOST_DOUBLINGS) * FORGIVEN_NS / READING_NS {
            now_ns += READING_NS;
            limits.extend(ordinary.step(now_ns, 0, false));
        }
        assert_eq!(
            limits.last().map(|limit| limit * 1_000 / SURGE_WINDOW_NS),
            Some(100)
        );
    }

    #[test]
    fn readings_too_near_to_each_other_and_counters_that_step_back_teach_nothing() {
        let (mut ordinary, mut at) = (Ordinary::default(), (1, 0));
        let before = steady(&mut ordinary, &mut at, 200, 5);
        let limit = |answer: Option<u64>| answer.map(|limit| limit * 1_000 / SURGE_WINDOW_NS);
        // 5 ms of two cores, half of a window later.
        assert_eq!(
            limit(ordinary.step(at.0 + 5_000_000, at.1 + 10_000_000, false)),
            Some(before)
        );
        assert_eq!(
            limit(ordinary.step(at.0 + READING_NS, 0, false)),
            Some(before)
        );
    }
}
