//! The rules that others lend by: each says, for every bin of a machine, what to keep for production.
//!
//! **Contract.** At a bin a rule sees the samples up to and with it of the tasks present, and gives an amount, which is
//! cut to the sum of their limits. A task younger than [`Kind::warm`] is cold and counts its limit. Windows are in
//! hours. The oracle alone sees the future; it is what the others are measured against.

mod conformal;
mod decayed;
mod name;
mod ratio;
mod surge;
mod tasks;

use crate::timeline::Timeline;
use crate::trace::Kind;

/// A rule.
#[derive(Clone, Debug, PartialEq)]
pub enum Rule {
    /// The limits.
    Limits,
    /// A share of the limits.
    Share(f64),
    /// What is used now.
    Last,
    /// 60 % of the limits while less than 80 % of them is used.
    Fixed,
    /// What tasks older than five minutes leave, up to 70 % of the limits.
    Serenity,
    /// 60 % of what is not used.
    Volcano,
    /// What is used, and 40 % (of memory 35 %) of the limits.
    KoordinatorBatch,
    /// Histograms that decay, of each task and of the machine; a task younger than so many samples counts its limit.
    KoordinatorMid {
        /// Hours until a task is no longer cold.
        cold_hours: f64,
    },
    /// What is used, and a margin.
    Katalyst,
    /// What was used at the same time yesterday, and a margin.
    Crane,
    /// What is used, and a margin; falls slowly.
    BorgReclamation,
    /// The sum of a quantile of each task's window, times a factor.
    TaskQuantile {
        /// Which quantile.
        share: f64,
        /// The window.
        hours: f64,
        /// What it is multiplied by.
        factor: f64,
    },
    /// Mean and so many standard deviations of used to limit.
    Sigma {
        /// How many.
        deviations: f64,
        /// The window.
        hours: f64,
    },
    /// A quantile of used to limit, times a factor.
    MachineQuantile {
        /// Which quantile.
        share: f64,
        /// The window.
        hours: f64,
        /// What it is multiplied by.
        factor: f64,
    },
    /// The machine's recent peak, and how much higher single tasks have been before.
    Surge {
        /// The weight of the largest gap, the next …
        weights: Vec<f64>,
        /// How long gaps are remembered.
        hours: f64,
    },
    /// What is used, and a quantile of how much it has grown within an hour.
    Conformal {
        /// The share of hours in which it may grow more.
        alpha: f64,
        /// The window.
        hours: f64,
    },
    /// Another rule, times a quantile of what it should have been times.
    Recalibrated {
        /// The other rule.
        base: Box<Rule>,
        /// The share of hours in which that may be too little.
        alpha: f64,
        /// The window.
        hours: f64,
    },
    /// The largest of several.
    Max(Vec<Rule>),
    /// What will be.
    Oracle {
        /// So many bins ahead.
        bins: usize,
    },
}

impl Rule {
    /// What to keep in each bin.
    pub fn keep(&self, kind: Kind, line: &Timeline) -> Vec<f64> {
        let mut keep = self.uncut(kind, line);
        for (amount, limit) in keep.iter_mut().zip(&line.limits) {
            *amount = amount.min(*limit);
        }
        keep
    }

    fn uncut(&self, kind: Kind, line: &Timeline) -> Vec<f64> {
        match self {
            Self::Limits => line.limits.clone(),
            Self::Share(share) => line.limits.iter().map(|limit| share * limit).collect(),
            Self::Last => line.used.clone(),
            Self::Fixed => each(line, |used, limits| match used < 0.8 * limits {
                true => 0.6 * limits,
                false => limits,
            }),
            Self::Serenity => tasks::serenity(kind, line),
            Self::Volcano => each(line, |used, limits| limits - 0.6 * (limits - used)),
            Self::KoordinatorBatch => {
                let share = if kind.is_memory() { 0.35 } else { 0.40 };
                each(line, |used, limits| share * limits + used)
            }
            Self::KoordinatorMid { cold_hours } => {
                decayed::koordinator_mid(kind, line, *cold_hours)
            }
            Self::Katalyst => {
                let factor = if kind.is_memory() { 1.1 } else { 1.25 };
                each(line, |used, _| factor * used)
            }
            Self::Crane => tasks::crane(kind, line),
            Self::BorgReclamation => tasks::borg_reclamation(kind, line),
            Self::TaskQuantile {
                share,
                hours,
                factor,
            } => tasks::quantiles(kind, line, *share, kind.bins(*hours), *factor),
            Self::Sigma { deviations, hours } => {
                ratio::sigma(kind, line, *deviations, kind.bins(*hours))
            }
            Self::MachineQuantile {
                share,
                hours,
                factor,
            } => ratio::quantile(kind, line, *share, kind.bins(*hours), *factor),
            Self::Surge { weights, hours } => surge::keep(kind, line, weights, kind.bins(*hours)),
            Self::Conformal { alpha, hours } => {
                conformal::keep(kind, line, *alpha, kind.bins(*hours))
            }
            Self::Recalibrated { base, alpha, hours } => {
                let base = base.keep(kind, line);
                conformal::recalibrated(kind, line, &base, *alpha, kind.bins(*hours))
            }
            Self::Max(rules) => {
                let mut all = rules.iter().map(|rule| rule.keep(kind, line));
                let mut most = all.next().unwrap_or_default();
                for other in all {
                    for (most, other) in most.iter_mut().zip(other) {
                        *most = most.max(other);
                    }
                }
                most
            }
            Self::Oracle { bins } => line.oracle(*bins),
        }
    }
}

/// A rule of what is used and the limits now.
fn each(line: &Timeline, rule: impl Fn(f64, f64) -> f64) -> Vec<f64> {
    let bins = line.used.iter().zip(&line.limits);
    bins.map(|(used, limits)| rule(*used, *limits)).collect()
}
