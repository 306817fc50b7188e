//! The rules against second implementations that are too simple to be wrong, on excerpts of real traces.

use std::path::Path;

use ebb_agent::core::estimator::lasting::HORIZONS_MS;
use ebb_agent::core::siblings::ENOUGH_LIVES;

use crate::backlog::{Keeps, Played, Work};
use crate::ebb::{self, Cost};
use crate::lasting::{self, Said};
use crate::place::Machine;
use crate::rolling::interpolated;
use crate::rules::Rule;
use crate::run::{EBB, run};
use crate::set::Set;
use crate::timeline::Timeline;
use crate::trace::{self, Kind, Regime, Task};

fn excerpt(kind: Kind, regime: Regime) -> Set {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("data");
    let found = trace::find(&data).unwrap();
    let found = found.iter().find(|found| found.kind == kind).unwrap();
    Set::new(kind, regime, &trace::read(found).unwrap())
}

/// Every timeline of the excerpts, with its kind.
fn timelines() -> Vec<(Kind, Timeline)> {
    let sets = [
        excerpt(Kind::BitbrainsCpu, Regime::RightSized),
        excerpt(Kind::PlanetLab, Regime::Provisioned),
        excerpt(Kind::Surf, Regime::Provisioned),
    ];
    let each = sets.into_iter().flat_map(|set| {
        let lines = set.eras.into_iter().flat_map(|era| era.lines);
        lines.map(move |line| (set.kind, line.timeline))
    });
    each.collect()
}

/// What a rule's page says, task by task and bin by bin.
struct Plain<'a> {
    kind: Kind,
    tasks: &'a [Task],
    bin: usize,
}

impl Plain<'_> {
    fn present(&self, age: usize) -> Vec<&Task> {
        let tasks = self.tasks.iter();
        tasks
            .filter(|task| task.start <= self.bin && self.bin < task.end())
            .filter(|task| self.bin + 1 - task.start >= age)
            .collect()
    }

    fn cold(&self, age: usize) -> f64 {
        let limits = |tasks: Vec<&Task>| tasks.iter().map(|task| task.limit).sum::<f64>();
        limits(self.present(1)) - limits(self.present(age))
    }

    /// The last samples of a task, ascending.
    fn last(&self, task: &Task, window: usize) -> Vec<f64> {
        let end = self.bin + 1 - task.start;
        let mut values = task.used[end.saturating_sub(window)..end].to_vec();
        values.sort_by(f64::total_cmp);
        values
    }

    fn sum(tasks: &[&Task], bin: usize) -> f64 {
        tasks.iter().map(|task| task.used_at(bin)).sum()
    }

    fn oracle(&self, horizon: usize) -> f64 {
        let tasks = self.present(1);
        let ahead = self.bin + 1..=self.bin + horizon;
        ahead.map(|bin| Self::sum(&tasks, bin)).fold(0.0, f64::max)
    }

    fn task_quantile(&self, share: f64, hours: f64) -> f64 {
        let warm = self.present(self.kind.warm());
        let each = warm.iter().map(|task| {
            let values = self.last(task, self.kind.bins(hours));
            interpolated(&values, share).min(task.limit)
        });
        self.cold(self.kind.warm()) + each.sum::<f64>()
    }

    fn machine_ratios(&self, hours: f64) -> (Vec<f64>, f64) {
        let warm = self.present(self.kind.warm());
        let begin = (self.bin + 1).saturating_sub(self.kind.bins(hours));
        let mut ratios: Vec<f64> = (begin..=self.bin)
            .filter_map(|bin| {
                let there = warm.iter().filter(|task| task.start <= bin);
                let limit: f64 = there.map(|task| task.limit).sum();
                (limit > 0.0).then(|| Self::sum(&warm, bin) / limit)
            })
            .collect();
        ratios.sort_by(f64::total_cmp);
        (ratios, warm.iter().map(|task| task.limit).sum())
    }

    fn machine_quantile(&self, share: f64, hours: f64) -> f64 {
        let (ratios, limit) = self.machine_ratios(hours);
        self.cold(self.kind.warm()) + interpolated(&ratios, share) * limit
    }

    fn sigma(&self, deviations: f64, hours: f64) -> f64 {
        let (ratios, limit) = self.machine_ratios(hours);
        let count = ratios.len() as f64;
        let mean = ratios.iter().sum::<f64>() / count.max(1.0);
        let squares: f64 = ratios.iter().map(|ratio| (ratio - mean).powi(2)).sum();
        let deviation = (squares / (count - 1.0).max(1.0)).sqrt();
        self.cold(self.kind.warm()) + (mean + deviations * deviation).min(1.0) * limit
    }

    fn surge(&self, weights: &[f64], hours: f64) -> f64 {
        let (window, recent) = (self.kind.bins(hours), self.kind.bins(2.0));
        let peak = ((self.bin + 1).saturating_sub(recent)..=self.bin).map(|bin| {
            let then = Plain { bin, ..*self };
            Self::sum(&then.present(self.kind.warm()), bin)
        });
        let peak = peak.fold(0.0, f64::max);
        let most = |values: Vec<f64>| values.last().copied().unwrap_or(0.0);
        let mut gaps: Vec<f64> = self
            .present(self.kind.warm())
            .iter()
            .map(|task| most(self.last(task, window)) - most(self.last(task, recent)))
            .collect();
        gaps.sort_by(|one, other| other.total_cmp(one));
        let gaps = weights.iter().zip(gaps).map(|(weight, gap)| weight * gap);
        self.cold(self.kind.warm()) + peak + gaps.sum::<f64>()
    }

    fn conformal(&self, alpha: f64, hours: f64) -> f64 {
        let (window, hour) = (self.kind.bins(hours), self.kind.hour());
        let age = self.kind.warm() + hour;
        let there = self.present(age);
        let limits: f64 = there.iter().map(|task| task.limit).sum();
        let whole = there.iter().map(|task| task.start).max().unwrap_or(0);
        let end = (self.bin + 1).saturating_sub(hour);
        let begin = whole.max(end.saturating_sub(window));
        let mut growth: Vec<f64> = (begin..end.max(begin))
            .map(|bin| {
                let after = (bin + 1..=bin + hour).map(|bin| Self::sum(&there, bin));
                after.fold(0.0, f64::max) - Self::sum(&there, bin)
            })
            .collect();
        growth.sort_by(f64::total_cmp);
        let Some(last) = growth.len().checked_sub(1) else {
            return self.cold(age) + limits;
        };
        let at = ((1.0 - alpha) * last as f64 - 1e-9).ceil() as usize;
        self.cold(age) + Self::sum(&there, self.bin) + growth[at]
    }
}

#[test]
fn rules_are_what_their_pages_say() {
    let mut compared = 0;
    for (kind, line) in timelines() {
        let kept = |name: &str| Rule::named(name).unwrap().keep(kind, &line);
        let fast = [
            kept("ORACLE H=12"),
            kept("RC-like p100 W=10h"),
            kept("RC-like p99 W=2h"),
            kept("machine p99 W=24h"),
            kept("machine p100 W=24h"),
            kept("N-sigma N=5 W=2h"),
            kept("k-surge 1+0.5+0.25 W=24h"),
            kept("conformal alpha=0.02 W=72h"),
        ];
        for bin in (0..line.machine.bins).step_by(97) {
            let plain = Plain {
                kind,
                tasks: &line.machine.tasks,
                bin,
            };
            let slow = [
                plain.oracle(12),
                plain.task_quantile(1.0, 10.0),
                plain.task_quantile(0.99, 2.0),
                plain.machine_quantile(0.99, 24.0),
                plain.machine_quantile(1.0, 24.0),
                plain.sigma(5.0, 2.0),
                plain.surge(&[1.0, 0.5, 0.25], 24.0),
                plain.conformal(0.02, 72.0),
            ];
            for (at, (fast, slow)) in fast.iter().zip(slow).enumerate() {
                let slow = slow.min(line.limits[bin]);
                assert!(
                    (fast[bin] - slow).abs() <= 1e-9 * (1.0 + slow),
                    "{kind:?}, rule {at}, bin {bin}: {} and {slow}",
                    fast[bin]
                );
                compared += usize::from(line.limits[bin] > 0.0);
            }
        }
    }
    assert!(compared > 3_000, "only {compared} amounts were compared");
}

#[test]
fn ebb_s_rule_keeps_between_what_is_used_and_the_limits() {
    let mut freed = 0.0;
    for (kind, line) in timelines() {
        let mut cost = Cost::default();
        let keep = ebb::keep(kind, &line, &mut cost);
        let learning = ebb::Learning(keep.clone());
        for (bin, whole) in keep.keep.iter().enumerate() {
            let slack = 1e-6 * kind.capacity();
            assert!(keep.soon[bin] >= line.used[bin] - slack && *whole <= line.limits[bin] + slack);
            // Four tasks, one in each of the last four quarters of an hour: between the two.
            let quarter = kind.hour() / 4;
            let beside = |rule: &dyn Keeps, finished_before| {
                let began = (0..4)
                    .rev()
                    .filter_map(|back| bin.checked_sub(back * quarter));
                let works = began.map(|began| Work {
                    began,
                    finished_before,
                });
                rule.beside(bin, &works.collect())
            };
            assert_eq!(beside(&learning, ENOUGH_LIVES - 1), *whole);
            let learnt = beside(&learning, ENOUGH_LIVES);
            let beside = beside(&keep, 0);
            assert_eq!(learnt, beside, "what is learnt is what would be said");
            assert!(keep.soon[bin] <= beside + slack && beside <= *whole + slack);
            freed += (whole - beside) / kind.capacity();
        }
        assert!(cost.samples > 0);
    }
    assert!(freed > 1.0, "no end was counted on");
}

#[test]
fn ebb_s_rule_saves_on_the_excerpts_and_is_seldom_wrong() {
    for (kind, regime, least) in [
        (Kind::BitbrainsCpu, Regime::RightSized, 0.4),
        (Kind::PlanetLab, Regime::Provisioned, 0.6),
        (Kind::Surf, Regime::Provisioned, 0.02),
    ] {
        let set = excerpt(kind, regime);
        let oracle = crate::names::oracle(kind);
        let outcome = run(&set, std::slice::from_ref(&oracle)).unwrap();
        let savings = outcome.figure(EBB, "savings").unwrap();
        let wrong = outcome.violations(EBB).unwrap();
        assert!(
            savings > least && wrong < 0.06,
            "{kind:?}: {savings} {wrong}"
        );
        assert_eq!(outcome.violations(&oracle), Some(0.0));
        assert!(outcome.efficiency(EBB).unwrap() < 1.0);
    }
}

/// One machine of 100,000 on which one task uses what is given.
fn alone(used: Vec<f64>) -> Timeline {
    let bins = used.len();
    Timeline::new(Machine {
        capacity: 100_000.0,
        tasks: vec![Task {
            key: "a".to_owned(),
            start: 0,
            limit: 100_000.0,
            used,
        }],
        bins,
    })
}

#[test]
fn a_backlog_takes_what_is_lent_and_its_youngest_go_first() {
    // 40 units of 2,500: 80 % are kept for two bins, so 8 start; then 60 % are used, and 90 %.
    let line = alone(vec![10_000.0, 10_000.0, 60_000.0, 90_000.0]);
    let mut played = Played::default();
    let keep = vec![80_000.0, 70_000.0, 70_000.0, 95_000.0];
    played.play(Kind::BitbrainsCpu, &line, 0..4, &keep);
    // 8 start, then 4; in the last bin 12 hold 30,000 and 20,000 is too much: 8 go.
    let figures = played.figures();
    assert_eq!(figures["c_contended"], 0.25);
    assert_eq!(figures["c_evict_rate"], 8.0 / 12.0);
    assert_eq!(figures["c_exposure"], 20_000.0 / 170_000.0);
    assert_eq!(
        figures["c_rev_util"],
        (20_000.0 + 30_000.0 + 10_000.0) / 400_000.0
    );
    assert_eq!(
        figures["c_lost"],
        (4.0 * 2.0 + 4.0 * 3.0) * 2_500.0 / 400_000.0
    );
}

#[test]
fn figures_are_shares_of_the_machine_bins_that_are_scored() {
    let line = alone(vec![10.0, 20.0, 30.0, 40.0]);
    let came = [line.oracle(1)];
    assert_eq!(came[0], [20.0, 30.0, 40.0, 0.0]);
    let keep = [20.0, 20.0, 20.0, 20.0];
    let judged = crate::score::judge(&line, &[0, 1, 2, 3], &keep, &came);
    let figures = crate::score::era(&[judged], &[1]);
    assert_eq!(figures["savings"], 1.0 - 80.0 / 400_000.0);
    assert_eq!(figures["viol1"], 0.5);
    assert!((figures["sev1"] - (1.0 / 3.0 + 0.5) / 2.0).abs() < 1e-12);
    assert_eq!(figures["viol1_max"], 0.5);
}

#[test]
fn what_is_said_to_stay_lent_stays_as_often_as_is_said() {
    let mut all = [Said::default(); HORIZONS_MS.len()];
    for (kind, line) in timelines() {
        let rule = ebb::keep(kind, &line, &mut Cost::default());
        let said = lasting::play(kind, &line, &rule.keep);
        all.iter_mut()
            .zip(&said)
            .for_each(|(all, said)| all.add(said));
    }
    for (time_ms, said) in HORIZONS_MS.into_iter().zip(&all) {
        println!(
            "{time_ms} ms: {said:?}, held {}, of lent {}",
            said.share_held(),
            said.share_said()
        );
    }
    // A minute shows only in SURF's half minutes; for ten hours the excerpts are too short.
    for (said, least) in all.iter().zip([1_000, 10_000, 10_000]) {
        assert!(said.bins >= least, "{said:?}");
        assert!(said.share_held() >= lasting::confidence(), "{said:?}");
        assert!(said.share_said() > 0.5, "{said:?}");
    }
}
