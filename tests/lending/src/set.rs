//! A trace ready to be run: placed, added up, with what came after every bin.

use crate::backlog::{self, Keeps, Played};
use crate::place::place;
use crate::rules::Rule;
use crate::score::{self, Figures};
use crate::timeline::Timeline;
use crate::trace::{Era, Kind, Regime};

/// One machine, ready.
#[derive(Clone, Debug)]
pub struct Line {
    /// Its sums.
    pub timeline: Timeline,
    /// The bins that are scored.
    pub bins: Vec<usize>,
    /// What came within each horizon.
    pub came: Vec<Vec<f64>>,
    /// Whether it takes part in the closed loop.
    pub played: bool,
}

/// The machines of an era.
#[derive(Clone, Debug)]
pub struct PlacedEra {
    /// Which month or day.
    pub name: String,
    /// How many tasks there are.
    pub tasks: usize,
    /// How many bins.
    pub bins: usize,
    /// Its machines.
    pub lines: Vec<Line>,
}

/// A trace in one regime.
#[derive(Clone, Debug)]
pub struct Set {
    /// Of which kind.
    pub kind: Kind,
    /// With which limits.
    pub regime: Regime,
    /// Its eras.
    pub eras: Vec<PlacedEra>,
}

impl Set {
    /// Places the tasks and looks ahead.
    pub fn new(kind: Kind, regime: Regime, eras: &[Era]) -> Self {
        let horizons = kind.horizons();
        let eras = eras.iter().map(|era| {
            let mut tasks = era.tasks.clone();
            for task in &mut tasks {
                regime.apply(task);
            }
            let count = tasks.len();
            let range = kind.scored(era.bins);
            let machines = place(tasks, kind.capacity(), era.bins);
            let lines = machines.into_iter().map(|machine| {
                let timeline = Timeline::new(machine);
                let bins = score::scored(&timeline, range.clone());
                Line {
                    came: horizons.iter().map(|bins| timeline.oracle(*bins)).collect(),
                    played: backlog::is_played(kind, &timeline, range.clone()),
                    bins,
                    timeline,
                }
            });
            PlacedEra {
                name: era.name.clone(),
                tasks: count,
                bins: era.bins,
                lines: lines.collect(),
            }
        });
        Self {
            kind,
            regime,
            eras: eras.collect(),
        }
    }

    /// A short name: that of the golden figures.
    pub const fn name(&self) -> &'static str {
        match (self.kind, self.regime) {
            (Kind::BitbrainsCpu, Regime::RightSized) => "r1",
            (Kind::BitbrainsCpu, Regime::Provisioned) => "r0",
            (Kind::BitbrainsMem, Regime::RightSized) => "m1",
            (Kind::BitbrainsMem, Regime::Provisioned) => "m0",
            (Kind::PlanetLab, _) => "pl",
            (Kind::GenAi, _) => "ga",
            (Kind::Surf, _) => "su",
        }
    }

    /// The figures of a rule, all eras together.
    pub fn run(&self, rule: &Rule) -> Figures {
        self.run_with(|line| rule.keep(self.kind, line))
    }

    /// The figures of anything that says what to keep on a machine.
    pub fn run_with<K: Keeps>(&self, keep: impl Fn(&Timeline) -> K) -> Figures {
        let eras: Vec<(usize, Figures)> = self
            .eras
            .iter()
            .map(|era| (era.lines.len(), self.run_era(era, &keep)))
            .collect();
        score::average(&eras)
    }

    /// The figures of one era.
    pub fn run_era<K: Keeps>(&self, era: &PlacedEra, keep: &impl Fn(&Timeline) -> K) -> Figures {
        let mut played = Played::default();
        let machines: Vec<_> = era
            .lines
            .iter()
            .map(|line| {
                let keep = keep(&line.timeline);
                if line.played {
                    played.play(self.kind, &line.timeline, self.kind.scored(era.bins), &keep);
                }
                score::judge(&line.timeline, &line.bins, keep.keep(), &line.came)
            })
            .collect();
        let mut figures = score::era(&machines, &self.kind.horizons());
        figures.extend(played.figures());
        figures
    }

    /// What the set consists of, era by era.
    pub fn facts(&self) -> Vec<(String, Figures)> {
        let each = self.eras.iter().map(|era| {
            let (mut bins, mut used, mut limits) = (0, 0.0, 0.0);
            for line in &era.lines {
                bins += line.bins.len();
                for bin in &line.bins {
                    used += line.timeline.used[*bin];
                    limits += line.timeline.limits[*bin];
                }
            }
            let figures = Figures::from([
                ("machines".to_owned(), era.lines.len() as f64),
                ("tasks".to_owned(), era.tasks as f64),
                ("bins".to_owned(), bins as f64),
                ("util".to_owned(), used / limits),
            ]);
            (era.name.clone(), figures)
        });
        each.collect()
    }
}
