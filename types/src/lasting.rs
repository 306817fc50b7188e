//! How long what an agent lends can be expected to stay lent.

use crate::Quantities;

/// How much of what is lent can be expected to stay lent for how long, and how sure that is. Learned by the agent from how
/// long what it lent earlier has stayed; nothing is said of a time that it has not seen often enough.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lasting {
    /// In so many of a thousand cases it stays at least so long.
    pub confidence_permille: u64,
    /// From the shortest time to the longest, at most [`crate::limits::MAX_LASTING_POINTS`]; the amounts never rise. Empty
    /// where nothing is known.
    pub points: Vec<LastingPoint>,
}

/// What stays lent for one time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LastingPoint {
    /// The time from now on, in milliseconds.
    pub time_ms: u64,
    /// How much of it stays.
    pub amount: Quantities,
}

impl Lasting {
    /// Nothing is known.
    pub const UNKNOWN: Self = Self {
        confidence_permille: 0,
        points: Vec::new(),
    };

    /// What stays lent for at least so long, in milliseconds; nothing where that is not known.
    pub fn amount_for(&self, time_ms: u64) -> Quantities {
        let point = self.points.iter().find(|point| point.time_ms >= time_ms);
        point.map_or(Quantities::ZERO, |point| point.amount)
    }

    /// What of `offered` stays, where others hold `others` of what is lent already: nobody says whose part is taken back
    /// first, so theirs is taken to last longest. Never more than is `lent` now.
    #[must_use]
    pub fn of_offer(&self, lent: &Quantities, others: &Quantities, offered: &Quantities) -> Self {
        let left = |amount: &Quantities| amount.min(lent).saturating_sub(others).min(offered);
        let points = self.points.iter().map(|point| LastingPoint {
            amount: left(&point.amount),
            ..*point
        });
        Self {
            confidence_permille: self.confidence_permille,
            points: points.collect(),
        }
    }

    /// Whether times rise and amounts do not.
    pub fn is_ordered(&self) -> bool {
        self.points.windows(2).all(|pair| {
            pair[0].time_ms < pair[1].time_ms && pair[0].amount.contains(&pair[1].amount)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cpus(milli: u64) -> Quantities {
        Quantities::cpus_mem(milli, 0)
    }

    fn lasting() -> Lasting {
        let points = [(60, 4_000), (600, 3_000), (3_600, 500)];
        let points = points.map(|(seconds, milli)| LastingPoint {
            time_ms: seconds * 1_000,
            amount: cpus(milli),
        });
        Lasting {
            confidence_permille: 900,
            points: points.to_vec(),
        }
    }

    #[test]
    fn a_time_between_two_points_has_what_the_longer_one_has_and_one_beyond_all_nothing() {
        let lasting = lasting();
        assert!(lasting.is_ordered());
        for (time_ms, milli) in [
            (1, 4_000),
            (60_000, 4_000),
            (60_001, 3_000),
            (3_600_000, 500),
            (3_600_001, 0),
        ] {
            assert_eq!(lasting.amount_for(time_ms), cpus(milli), "{time_ms} ms");
        }
        assert!(Lasting::UNKNOWN.amount_for(0).is_zero());
    }

    #[test]
    fn what_others_hold_is_taken_to_last_longest_and_what_is_no_longer_lent_does_not_last() {
        let offered = cpus(1_500);
        let of = |lent, others| {
            let of_offer = lasting().of_offer(&cpus(lent), &cpus(others), &offered);
            assert!(of_offer.is_ordered());
            [60_000, 600_000, 3_600_000].map(|time_ms| of_offer.amount_for(time_ms).cpu_milli())
        };
        assert_eq!(of(4_000, 0), [1_500, 1_500, 500]);
        assert_eq!(of(4_000, 2_500), [1_500, 500, 0]);
        assert_eq!(of(2_800, 2_500), [300, 300, 0]);
    }
}
