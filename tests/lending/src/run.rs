//! Runs every rule on every set, on two threads, and Ebb's own in its two settings.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::Result;
use ebb_agent::core::estimator::peaks::Weights;

use crate::ebb::{self, Cost};
use crate::names;
use crate::rules::Rule;
use crate::score::Figures;
use crate::set::Set;

/// Threads that take rules in turn.
const THREADS: usize = 2;
/// Ebb's rule as it is set.
pub const EBB: &str = "ebb";
/// Ebb's rule for an agent that takes back within seconds.
pub const EBB_BOLD: &str = "ebb, bold";

/// The figures of one set.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The set's short name.
    pub set: &'static str,
    /// Which figure is the violations at an hour.
    pub hour: usize,
    /// What its eras consist of.
    pub facts: Vec<(String, Figures)>,
    /// The figures of each rule.
    pub results: BTreeMap<String, Figures>,
    /// What Ebb's rule cost.
    pub cost: Cost,
}

impl Outcome {
    /// A figure of a rule; `None` where it was not run.
    pub fn figure(&self, rule: &str, figure: &str) -> Option<f64> {
        self.results.get(rule)?.get(figure).copied()
    }

    /// How many of a rule's hours were wrong.
    pub fn violations(&self, rule: &str) -> Option<f64> {
        self.figure(rule, &format!("viol{}", self.hour))
    }

    /// What a rule saves of what an hour's foresight would.
    pub fn efficiency(&self, rule: &str) -> Option<f64> {
        let oracle = self.figure(&format!("ORACLE H={}", self.hour), "savings")?;
        Some(self.figure(rule, "savings")? / oracle)
    }
}

/// Runs the named rules and Ebb's own on a set.
///
/// # Errors
/// When a name is that of no rule.
pub fn run(set: &Set, names: &[String]) -> Result<Outcome> {
    let mut rules = names
        .iter()
        .map(|name| Ok((name.clone(), Some(Rule::named(name)?))))
        .collect::<Result<Vec<_>>>()?;
    rules.push((EBB.to_owned(), None));
    rules.push((EBB_BOLD.to_owned(), None));
    let results = Mutex::new(BTreeMap::new());
    let cost = Mutex::new(Cost::default());
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                while let Some((name, rule)) = rules.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let figures = match rule {
                        Some(rule) => set.run(rule),
                        None => own(set, name, &cost),
                    };
                    if let Ok(mut results) = results.lock() {
                        results.insert(name.clone(), figures);
                    }
                }
            });
        }
    });
    Ok(Outcome {
        set: set.name(),
        hour: set.kind.hour(),
        facts: set.facts(),
        results: results.into_inner().unwrap_or_default(),
        cost: cost.into_inner().unwrap_or_default(),
    })
}

fn own(set: &Set, name: &str, cost: &Mutex<Cost>) -> Figures {
    let weights = match name {
        EBB_BOLD => Weights::bold(),
        _ => Weights::default(),
    };
    set.run_with(|line| {
        let mut spent = Cost::default();
        let keep = ebb::keep(set.kind, line, weights, &mut spent);
        if let Ok(mut cost) = cost.lock() {
            cost.spent += spent.spent;
            cost.samples += spent.samples;
        }
        keep
    })
}

/// The names to run on a set: those of a golden file, else the usual ones; the oracle's always.
pub fn names_for(set: &Set, golden: Option<&crate::golden::GoldenSet>) -> Vec<String> {
    let mut all = match golden {
        Some(golden) => golden.results.keys().cloned().collect(),
        None => names::all(set.kind),
    };
    let oracle = names::oracle(set.kind);
    if !all.contains(&oracle) {
        all.push(oracle);
    }
    all
}
