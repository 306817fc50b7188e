//! Falls at once, grows slowly, and does not report every jitter.

use ebb_types::Timestamp;

use super::super::permille::permille_of;
use super::super::sliding::{Extreme, Sliding};
use super::Config;

/// Longest time that one step may grow for, in milliseconds: a pause is no reason for a jump.
const MAX_GROWTH_STEP_MS: u64 = 1_000;

/// The damped level of one kind.
#[derive(Clone, Debug)]
pub(super) struct Damper {
    /// The smallest target of late.
    lowest: Sliding,
    level: u64,
    reported: u64,
    stepped_at: Option<Timestamp>,
    grew_at: Option<Timestamp>,
}

impl Damper {
    /// A damper that lets nothing through yet.
    pub(super) fn new(hold_ms: u64) -> Self {
        Self {
            lowest: Sliding::new(Extreme::Min, hold_ms),
            level: 0,
            reported: 0,
            stepped_at: None,
            grew_at: None,
        }
    }

    /// Takes a target in and gives what to report: never more than the target.
    pub(super) fn step(
        &mut self,
        now: Timestamp,
        target: u64,
        may_grow: bool,
        total: u64,
        config: &Config,
        quantum: u64,
    ) -> u64 {
        let held = self.lowest.push(now, target);
        let passed_ms = self
            .stepped_at
            .replace(now)
            .map_or(0, |before| now.ms_since(before).min(MAX_GROWTH_STEP_MS));
        if target < self.level {
            self.level = target;
        } else if may_grow && held > self.level {
            let per_s = permille_of(total, config.growth_permille_per_s);
            let step = u128::from(per_s) * u128::from(passed_ms) / 1000;
            let grown = self
                .level
                .saturating_add(u64::try_from(step).unwrap_or(u64::MAX));
            self.level = grown.min(held);
        }
        let quantum = quantum.max(1);
        let rounded = self.level / quantum * quantum;
        if rounded < self.reported {
            self.reported = rounded;
        } else if self.may_report_growth(now, rounded, total, config) {
            self.reported = rounded;
            self.grew_at = Some(now);
        }
        self.reported
    }

    fn may_report_growth(&self, now: Timestamp, rounded: u64, total: u64, config: &Config) -> bool {
        let worth = permille_of(total, config.report_permille).max(1);
        let interval_over = self
            .grew_at
            .is_none_or(|at| now.ms_since(at) >= config.report_interval_ms);
        interval_over && rounded.saturating_sub(self.reported) >= worth
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(targets: impl IntoIterator<Item = u64>) -> Vec<u64> {
        let config = Config::default();
        let mut damper = Damper::new(config.hold_ms);
        targets
            .into_iter()
            .enumerate()
            .map(|(i, target)| {
                let now = Timestamp::from_ms(i as u64 * 100);
                damper.step(now, target, true, 4_000, &config, 100)
            })
            .collect()
    }

    #[test]
    fn it_grows_by_a_tenth_of_the_machine_a_second_and_falls_in_one_step() {
        let levels = run((0..300).map(|i| if i < 200 { 3_000 } else { 700 }));
        for pair in levels.windows(11).filter(|pair| pair[10] > pair[0]) {
            assert!(pair[10] - pair[0] <= 400, "{pair:?}");
        }
        assert_eq!(levels[199], 3_000);
        assert_eq!(levels[200], 700);
        assert_eq!(levels[299], 700);
    }

    #[test]
    fn jitter_is_answered_by_its_lower_edge_and_not_by_a_stream_of_changes() {
        let levels = run((0..1_000).map(|i| if i % 7 == 0 { 1_000 } else { 1_500 }));
        let changes = levels.windows(2).filter(|pair| pair[0] != pair[1]).count();
        assert_eq!(levels[999], 1_000);
        assert!(changes <= 4, "{changes} changes");
    }
}
