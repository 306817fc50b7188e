//! `cargo xtask bench lending --traces DIR`: what may be lent of real machines, by Ebb's rule and by the others.
//!
//! Prints its rows as JSON; says on the standard error which traces are there and which are not. With a golden file
//! every rule in it is run and compared, and the exit code is 1 where a figure is further away than [`MOST`].

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Result, ensure};
use clap::Parser;
use ebb_agent::core::estimator::peaks::Peaks;
use ebb_tests_lending::golden::{self, Golden, GoldenSet};
use ebb_tests_lending::rows;
use ebb_tests_lending::run::{self, Outcome};
use ebb_tests_lending::set::Set;
use ebb_tests_lending::trace::{self, Kind};

/// Largest deviation from a golden figure.
const MOST: f64 = 1e-4;

/// Replays traces through the estimator.
#[derive(Parser)]
struct Options {
    /// Where the traces are
    #[arg(long)]
    traces: PathBuf,
    /// Figures of another implementation to compare with
    #[arg(long)]
    golden: Option<PathBuf>,
    /// Sets to run, by their short names: r1 r0 m1 m0 pl su ga. Without any all that are there
    #[arg(long, value_delimiter = ',')]
    sets: Vec<String>,
}

fn main() -> Result<ExitCode> {
    let options = Options::parse();
    let golden = options.golden.as_deref().map(golden::read).transpose()?;
    let found = trace::find(&options.traces)?;
    for kind in Kind::ALL {
        if !found.iter().any(|found| found.kind == kind) {
            let (begin, within) = kind.pattern();
            eprintln!("there is no trace {begin}*{within}*.csv.gz: its sets are left out");
        }
    }
    ensure!(
        !found.is_empty(),
        "there is no trace in {}; give the directory with --traces",
        options.traces.display()
    );
    let mut outcomes = Vec::new();
    let mut hold = true;
    for found in &found {
        let eras = trace::read(found)?;
        for regime in found.kind.regimes() {
            let set = Set::new(found.kind, *regime, &eras);
            let chosen =
                options.sets.is_empty() || options.sets.iter().any(|name| name == set.name());
            if !chosen {
                continue;
            }
            eprintln!("{}: {} {regime:?}", set.name(), found.path.display());
            let of_set = golden
                .as_ref()
                .and_then(|golden| of_set(golden, set.name()));
            let outcome = run::run(&set, &run::names_for(&set, of_set))?;
            rows::print(&rows::of_set(&outcome, of_set.is_some()));
            if let Some(of_set) = of_set {
                hold &= compare(&outcome, of_set);
            }
            outcomes.push(outcome);
        }
    }
    ensure!(
        !outcomes.is_empty(),
        "none of the sets {:?} is there",
        options.sets
    );
    let bytes = Peaks::<usize>::bytes_a_task();
    rows::print(&rows::of_all(&outcomes, bytes, golden.is_some()));
    Ok(if hold {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// The set of a golden file whose name begins so.
fn of_set<'a>(golden: &'a Golden, name: &str) -> Option<&'a GoldenSet> {
    golden
        .iter()
        .find(|(key, _)| key.split('_').next() == Some(name))
        .map(|(_, set)| set)
}

/// Prints how far each rule is from its golden figures where that is too far, and the largest deviation of all.
fn compare(outcome: &Outcome, golden: &GoldenSet) -> bool {
    let mut largest = 0.0f64;
    let facts = golden.eras.iter().filter_map(|(name, golden)| {
        let own = outcome.facts.iter().find(|(own, _)| own == name)?;
        Some((name, golden, &own.1))
    });
    let results = golden
        .results
        .iter()
        .filter_map(|(name, golden)| Some((name, golden, outcome.results.get(name)?)));
    for (name, golden, own) in facts.chain(results) {
        for (figure, deviation) in golden::deviations(golden, own) {
            largest = largest.max(deviation);
            if deviation > MOST {
                let own = own.get(&figure).copied().unwrap_or(f64::NAN);
                let golden = golden.get(&figure).copied().unwrap_or(f64::NAN);
                eprintln!(
                    "{}, {name}: {figure} is {own:.6}, golden {golden:.6}",
                    outcome.set
                );
            }
        }
    }
    let rows = rows::of_golden(outcome.set, golden.results.len(), largest, MOST);
    rows::print(&rows);
    rows::hold(&rows)
}
