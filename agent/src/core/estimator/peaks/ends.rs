//! What to keep beside revocable work of which it is known when it ends.
//!
//! **Problem.** What starts now and runs for an hour needs room for an hour. But what runs already and ends in five minutes
//! is in nobody's way after that: to hold the hour's peak against all that runs, as if it never ended, leaves room unused
//! that comes free long before the peak does.
//!
//! **Rule.** Production is expected to need what is kept against the next bin at once ([`Peak::soon`]), what is kept against
//! the hour from [`CLIMB`] bins on ([`Peak::keep`]), and between them in equal steps. Nothing may start that would not find
//! room at each of these times beside what still runs then. Told as one amount to keep beside all that runs now: the
//! largest, over these times, of what production needs then and what still runs then, less what runs now.
//!
//! This is for what can be taken back within milliseconds: CPU and bandwidth. Memory is lent against the hour alone.
//!
//! The step and [`CLIMB`] were chosen on three months of virtual machines' CPU with little unused. Chosen on two of the
//! months, so that the backlog of a replay is in production's way in less than 0.08 % of the bins, it was in the third in
//! 0.06 to 0.10 %; on the same machines with wide limits, on which nothing was chosen, in 0.07 %.
//!
//! **Units.** Those of [`Peak`]; milliseconds.
//!
//! **Invariants.**
//! - Never less than [`Peak::soon`] nor more than [`Peak::keep`]; where nothing runs, or nothing ends, the latter.
//! - A later end never frees anything; work of which no end is known never ends.

use ebb_types::Timestamp;

use super::{BIN_MS, Peak};

/// In the bin that comes so many after this one, production is expected to need what is kept against the hour.
pub const CLIMB: usize = 4;

/// Revocable work that runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    /// What it holds.
    pub amount: u64,
    /// When it will have ended, at the latest; `None` where that is not known.
    pub ends_at: Option<Timestamp>,
}

impl Held {
    /// The number of the bins ahead in which it still runs, of those that are looked at.
    fn bins(&self, now: Timestamp) -> usize {
        let Some(ends_at) = self.ends_at else {
            return CLIMB;
        };
        let left = ends_at.as_ms().saturating_sub(now.as_ms()) / BIN_MS;
        usize::try_from(left).unwrap_or(CLIMB).min(CLIMB)
    }
}

impl Peak {
    /// What to keep for the tasks, so that what starts now has room beside what runs.
    pub fn beside(&self, now: Timestamp, held: impl IntoIterator<Item = Held>) -> u64 {
        // By how many of the bins ahead it outlasts.
        let mut ends = [0u64; CLIMB + 1];
        for held in held {
            let amount = &mut ends[held.bins(now)];
            *amount = amount.saturating_add(held.amount);
        }
        let soon = self.soon.min(self.keep);
        let mut freed = 0u64;
        let mut keep = soon;
        for ahead in 1..=CLIMB {
            freed = freed.saturating_add(ends[ahead - 1]);
            keep = keep.max(self.needed(soon, ahead).saturating_sub(freed));
        }
        keep
    }

    /// What production is expected to need so many bins ahead.
    fn needed(&self, soon: u64, ahead: usize) -> u64 {
        let climb = u128::from(self.keep - soon) * (ahead as u128 - 1);
        let climbed = climb.div_ceil(CLIMB as u128 - 1);
        soon.saturating_add(u64::try_from(climbed).unwrap_or(u64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOW: Timestamp = Timestamp::from_ms(1_000 * BIN_MS);

    fn held(amount: u64, bins: Option<u64>) -> Held {
        Held {
            amount,
            ends_at: bins.map(|bins| NOW.plus_ms(bins * BIN_MS)),
        }
    }

    fn peak(soon: u64, keep: u64) -> Peak {
        Peak {
            soon,
            keep,
            ..Peak::default()
        }
    }

    #[test]
    fn what_ends_before_the_peak_is_not_in_its_way() {
        let peak = peak(400, 700);
        assert_eq!(peak.beside(NOW, []), 700);
        assert_eq!(peak.beside(NOW, [held(200, None)]), 700);
        // Ends within the bin: 400, 500, 600 and 700 are needed beside 200 less.
        assert_eq!(peak.beside(NOW, [held(200, Some(0))]), 500);
        assert_eq!(peak.beside(NOW, [held(900, Some(0))]), 400);
        // Is there in the first bin and in the second: from the third on 600 and 700 beside 200 less.
        assert_eq!(peak.beside(NOW, [held(200, Some(2))]), 500);
        assert_eq!(peak.beside(NOW, [held(200, Some(3))]), 600);
        assert_eq!(peak.beside(NOW, [held(200, Some(4))]), 700);
        // An end that has passed is one now.
        let late = Held {
            amount: 200,
            ends_at: Some(Timestamp::from_ms(5)),
        };
        assert_eq!(peak.beside(NOW, [late]), 500);
    }

    proptest! {
        #[test]
        fn at_each_time_there_is_room_for_what_is_needed_and_what_still_runs(
            soon in 0u64..1_000, more in 0u64..1_000, free in 0u64..1_000,
            works in prop::collection::vec((0u64..300, prop::option::of(0u64..14)), 0..8)
        ) {
            let peak = peak(soon, soon + more);
            let works: Vec<Held> = works.into_iter().map(|(amount, bins)| held(amount, bins)).collect();
            let keep = peak.beside(NOW, works.iter().copied());
            prop_assert!(soon <= keep && keep <= peak.keep);
            let runs = |at: Timestamp| -> u64 {
                let still = works.iter().filter(|held| held.ends_at.is_none_or(|ends| ends >= at));
                still.map(|held| held.amount).sum()
            };
            let all: u64 = runs(NOW);
            // A machine that is just full with what starts now, which never ends.
            let total = keep + all + free;
            for ahead in 1..=2 * CLIMB as u64 {
                let needs = soon + (more * (ahead - 1)).div_ceil(CLIMB as u64 - 1).min(more);
                let at = NOW.plus_ms(ahead * BIN_MS);
                prop_assert!(needs + runs(at) + free <= total, "{} bins ahead", ahead);
            }
        }

        #[test]
        fn a_later_end_never_frees_anything(
            soon in 0u64..1_000, more in 0u64..1_000, which in 0usize..8, later in 1u64..20,
            works in prop::collection::vec((0u64..300, prop::option::of(0u64..14)), 1..8)
        ) {
            let peak = peak(soon, soon + more);
            let mut works: Vec<Held> = works.into_iter().map(|(amount, bins)| held(amount, bins)).collect();
            let keep = peak.beside(NOW, works.iter().copied());
            let count = works.len();
            let work = &mut works[which % count];
            work.ends_at = work.ends_at.filter(|_| later < 15).map(|at| at.plus_ms(later * BIN_MS));
            prop_assert!(peak.beside(NOW, works.iter().copied()) >= keep);
        }
    }
}
