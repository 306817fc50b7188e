//! Runs every rule on every set, on two threads, and Ebb's own: beside revocable tasks that say when they end, beside such
//! that do not but show it, beside such of which nothing is known, and what of it is kept against the next five minutes,
//! as though that were all.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::Result;
use ebb_agent::core::estimator::lasting::HORIZONS_MS;

use crate::ebb::{self, Cost};
use crate::lasting::{self, Said};
use crate::names;
use crate::rules::Rule;
use crate::score::Figures;
use crate::set::Set;
use crate::timeline::Timeline;

/// Threads that take rules in turn.
const THREADS: usize = 2;
/// Ebb's rule. In the closed loop it knows when the tasks of the backlog end, as an agent does of tasks that say how long
/// they may run; nothing else of its figures depends on that.
pub const EBB: &str = "ebb";
/// The same where no task says when it ends, but enough of its class have ended on the machine.
pub const EBB_LEARNT: &str = "ebb, ends learnt";
/// The same where no end is known.
pub const EBB_ENDLESS: &str = "ebb, ends unknown";
/// What Ebb's rule keeps against the next five minutes, as though that were all that it keeps.
pub const EBB_SOON: &str = "ebb, five minutes";
/// Ebb's.
const OWN: [&str; 4] = [EBB, EBB_LEARNT, EBB_ENDLESS, EBB_SOON];

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
    /// What Ebb said to stay lent, for each time.
    pub lasting: [Said; HORIZONS_MS.len()],
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
    rules.extend(OWN.map(|name| (name.to_owned(), None)));
    let results = Mutex::new(BTreeMap::new());
    let cost = Mutex::new(Cost::default());
    let lasting = Mutex::new([Said::default(); HORIZONS_MS.len()]);
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                while let Some((name, rule)) = rules.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let figures = match rule {
                        Some(rule) => set.run(rule),
                        None => own(set, name, &cost, &lasting),
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
        lasting: lasting.into_inner().unwrap_or_default(),
    })
}

fn own(
    set: &Set,
    name: &str,
    cost: &Mutex<Cost>,
    lasting: &Mutex<[Said; HORIZONS_MS.len()]>,
) -> Figures {
    let said = |line: &Timeline| {
        let mut spent = Cost::default();
        let said = ebb::keep(set.kind, line, &mut spent);
        if let Ok(mut cost) = cost.lock() {
            cost.spent += spent.spent;
            cost.samples += spent.samples;
        }
        if name == EBB
            && let Ok(mut lasting) = lasting.lock()
        {
            let of_line = lasting::play(set.kind, line, &said.keep);
            let each = lasting.iter_mut().zip(&of_line);
            each.for_each(|(all, said)| all.add(said));
        }
        said
    };
    match name {
        EBB_LEARNT => set.run_with(|line| ebb::Learning(said(line))),
        EBB_ENDLESS => set.run_with(|line| said(line).keep),
        EBB_SOON => set.run_with(|line| said(line).soon),
        _ => set.run_with(said),
    }
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
