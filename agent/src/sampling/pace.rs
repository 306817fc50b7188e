//! When to read: at regular intervals, and at once when an owner's demand jumps.
//!
//! **Problem.** A regular reading comes up to an interval after what it should show, and shows it beside what was before:
//! the next one then has to confirm it. That is two intervals at worst.
//!
//! **Rule.** An alert is answered by a *look* that ends what was before, and [`JUDGED`] looks [`SPAN_NS`] apart, each of
//! which shows that span alone. A reading just before stands for the first. No more than [`MAX_LOOKS_PER_S`] looks come within
//! a second; an alert for which there is no room is left to the regular readings, and counted.
//!
//! **Units.** Nanoseconds of one monotonic clock.

use std::collections::VecDeque;

/// Between two looks. Several periods of the scheduler's tick, so that it tells who used the CPUs.
pub const SPAN_NS: u64 = 20_000_000;
/// Looks that show the time after an alert: one, and one that confirms it.
const JUDGED: u32 = 2;
/// Readings nearer to each other tell little: the later one waits.
const LEAST_SPAN_NS: u64 = 10_000_000;
/// Most looks within a second.
pub const MAX_LOOKS_PER_S: usize = 30;
const SECOND_NS: u64 = 1_000_000_000;

/// Why a reading is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due {
    /// Its time has come.
    Regular,
    /// An owner's demand has jumped.
    Look,
}

/// The times of readings.
#[derive(Clone, Debug)]
pub struct Pace {
    regular_ns: u64,
    taken_ns: Option<u64>,
    looks_left: u32,
    look_ns: u64,
    looked_ns: VecDeque<u64>,
    /// Looks, ever.
    pub looks: u64,
    /// Alerts for which there was no room, ever.
    pub refused: u64,
}

impl Pace {
    /// The first reading is due now.
    pub fn new(now_ns: u64) -> Self {
        Self {
            regular_ns: now_ns,
            taken_ns: None,
            looks_left: 0,
            look_ns: 0,
            looked_ns: VecDeque::new(),
            looks: 0,
            refused: 0,
        }
    }

    /// An owner's demand has jumped.
    pub fn alerted(&mut self, now_ns: u64) {
        if self.looks_left > 0 {
            return;
        }
        while self
            .looked_ns
            .front()
            .is_some_and(|at_ns| now_ns.saturating_sub(*at_ns) >= SECOND_NS)
        {
            self.looked_ns.pop_front();
        }
        let fresh = self
            .taken_ns
            .filter(|at_ns| now_ns.saturating_sub(*at_ns) < LEAST_SPAN_NS);
        let (looks, first_ns) = match fresh {
            Some(taken_ns) => (JUDGED, taken_ns.saturating_add(SPAN_NS)),
            None => (JUDGED + 1, now_ns),
        };
        if self.looked_ns.len() + looks as usize > MAX_LOOKS_PER_S {
            self.refused += 1;
            return;
        }
        self.looks_left = looks;
        self.look_ns = first_ns;
    }

    /// The next regular reading comes no later than this.
    pub fn not_later(&mut self, at_ns: u64) {
        self.regular_ns = self.regular_ns.min(at_ns);
    }

    /// When the next reading is due.
    pub fn next_ns(&self) -> u64 {
        let regular_ns = self.regular_from_ns();
        if self.looks_left > 0 {
            regular_ns.min(self.look_ns)
        } else {
            regular_ns
        }
    }

    /// What is due now, if anything.
    pub fn due(&self, now_ns: u64) -> Option<Due> {
        if now_ns >= self.regular_from_ns() {
            Some(Due::Regular)
        } else {
            (self.looks_left > 0 && now_ns >= self.look_ns).then_some(Due::Look)
        }
    }

    /// A reading was taken between these times; the next regular one comes `interval_ns` after the one before.
    pub fn taken(&mut self, due: Due, began_ns: u64, ended_ns: u64, interval_ns: u64) {
        self.taken_ns = Some(began_ns);
        if self.looks_left > 0 {
            // A regular reading does as well.
            self.looks_left -= 1;
            self.look_ns = began_ns.saturating_add(SPAN_NS);
            self.looked_ns.push_back(began_ns);
        }
        match due {
            Due::Look => self.looks += 1,
            // One that came late does not make the following ones come in a burst.
            Due::Regular => {
                self.regular_ns = self.regular_ns.saturating_add(interval_ns).max(ended_ns);
            }
        }
    }

    /// A regular reading that is due just after a look waits for a moment.
    fn regular_from_ns(&self) -> u64 {
        let after_look = |at_ns: u64| at_ns.saturating_add(LEAST_SPAN_NS);
        let looked = self.looked_ns.back().copied().map(after_look);
        self.regular_ns.max(looked.unwrap_or(0))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const INTERVAL_NS: u64 = 100_000_000;
    const MS: u64 = 1_000_000;

    /// Reads whenever it is due, with an alert at each of these times; gives when, and why.
    fn play(alerts_ms: &[u64], until_ms: u64, interval_ns: u64) -> (Pace, Vec<(u64, Due)>) {
        let (mut pace, mut alerts) = (Pace::new(0), alerts_ms.iter().peekable());
        let mut readings = Vec::new();
        loop {
            let next_ns = pace.next_ns();
            if let Some(at_ms) = alerts.next_if(|at| **at * MS <= next_ns) {
                pace.alerted(*at_ms * MS);
                continue;
            }
            if next_ns > until_ms * MS {
                return (pace, readings);
            }
            let due = pace.due(next_ns).expect("it is due when it says");
            pace.taken(due, next_ns, next_ns, interval_ns);
            readings.push((next_ns / MS, due));
        }
    }

    #[test]
    fn without_alerts_readings_are_regular_and_nothing_else() {
        let (pace, readings) = play(&[], 1_000, INTERVAL_NS);
        let expected: Vec<_> = (0..=10).map(|n| (n * 100, Due::Regular)).collect();
        assert_eq!(readings, expected);
        assert_eq!((pace.looks, pace.refused), (0, 0));
    }

    #[test]
    fn an_alert_is_looked_at_at_once_and_judged_twice_within_two_spans() {
        let (_, readings) = play(&[150], 250, INTERVAL_NS);
        let looks = [(150, Due::Look), (170, Due::Look), (190, Due::Look)];
        assert_eq!(readings[2..5], looks);
        assert_eq!(readings[5..], [(200, Due::Regular)]);
    }

    #[test]
    fn a_reading_just_before_stands_for_the_first_look() {
        let (_, readings) = play(&[105], 199, INTERVAL_NS);
        assert_eq!(readings[2..], [(120, Due::Look), (140, Due::Look)]);
    }

    #[test]
    fn a_regular_reading_does_as_well_as_a_look() {
        let (_, readings) = play(&[190], 299, INTERVAL_NS);
        let rest = [(190, Due::Look), (200, Due::Regular), (220, Due::Look)];
        assert_eq!(readings[2..], rest);
    }

    #[test]
    fn looks_end_also_where_regular_readings_are_as_frequent() {
        let (_, readings) = play(&[55], 500, 10 * MS);
        let looks = readings.iter().filter(|(_, due)| *due == Due::Look);
        assert!(looks.count() <= 3, "{readings:?}");
    }

    proptest! {
        #[test]
        fn looks_are_bounded_and_regular_readings_are_not_held_up(
            mut alerts in prop::collection::vec(0u64..5_000, 0..400)
        ) {
            alerts.sort_unstable();
            let (pace, readings) = play(&alerts, 5_000, INTERVAL_NS);
            let at = |kind| readings.iter().filter(move |(_, due)| *due == kind).map(|(at, _)| *at);
            let looks: Vec<u64> = at(Due::Look).collect();
            prop_assert_eq!(looks.len() as u64, pace.looks);
            for (index, from) in looks.iter().enumerate() {
                let within = looks[index..].iter().filter(|one| **one < from + 1_000).count();
                prop_assert!(within <= MAX_LOOKS_PER_S + 3, "{} looks from {}", within, from);
            }
            let regular: Vec<u64> = at(Due::Regular).collect();
            for pair in regular.windows(2) {
                prop_assert!(pair[1] - pair[0] <= 110, "{:?}", pair);
            }
            for pair in readings.windows(2) {
                prop_assert!(pair[1].0 - pair[0].0 >= 10 || pair[1].1 == Due::Look, "{:?}", pair);
            }
        }
    }
}
