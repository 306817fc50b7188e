//! Figures of a test with their bars: rows of `target/bench/parity-SUBJECT.json`.
//!
//! A subject is one test program; each of its tests is a case, or has several. The file is written anew by each run of
//! the program, with what there is by then, also when a test fails.

#![allow(clippy::unwrap_used, reason = "the helpers of tests fail as tests do")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use serde_json::{Value, json};

/// The rows of this process by subject and case.
static KEPT: Mutex<BTreeMap<(&'static str, String), Vec<Value>>> = Mutex::new(BTreeMap::new());

/// The rows of one case.
#[derive(Debug)]
pub struct Rows {
    subject: &'static str,
    case: String,
    rows: Vec<Value>,
    broken: Vec<String>,
}

impl Rows {
    /// A case without rows.
    pub fn new(subject: &'static str, case: &str) -> Self {
        Self {
            subject,
            case: case.to_owned(),
            rows: Vec::new(),
            broken: Vec::new(),
        }
    }

    /// A figure without a bar.
    pub fn figure(&mut self, metric: &str, value: f64, unit: &str) {
        self.row(metric, value, unit, None);
    }

    /// A figure that must not be larger.
    pub fn at_most(&mut self, metric: &str, value: f64, unit: &str, most: f64) {
        self.row(metric, value, unit, Some(("at_most", most, value <= most)));
    }

    /// A figure that must not be smaller.
    pub fn at_least(&mut self, metric: &str, value: f64, unit: &str, least: f64) {
        let bar = Some(("at_least", least, value >= least));
        self.row(metric, value, unit, bar);
    }

    /// A count that must be this one.
    pub fn exactly(&mut self, metric: &str, value: u64, expected: u64) {
        self.at_least(metric, value as f64, "", expected as f64);
        if value > expected {
            self.at_most(metric, value as f64, "", expected as f64);
        }
    }

    fn row(&mut self, metric: &str, value: f64, unit: &str, bar: Option<(&str, f64, bool)>) {
        let mut row = json!({"case": self.case, "metric": metric, "value": value, "unit": unit});
        let mut told = format!("{}: {metric} {value} {unit}", self.case);
        if let Some((name, bound, holds)) = bar {
            row["bar"] = json!({ name: bound });
            row["holds"] = json!(holds);
            told.push_str(&format!(" ({name} {bound})"));
            if !holds {
                self.broken.push(told.clone());
            }
        }
        println!("{told}");
        self.rows.push(row);
    }

    /// Asserts that every bar holds, and that there is one.
    pub fn finish(self) {
        let barred = self.rows.iter().filter(|row| row.get("bar").is_some());
        assert!(barred.count() > 0, "{}: nothing was compared", self.case);
        let broken = self.broken.join("; ");
        drop(self);
        assert!(broken.is_empty(), "bars do not hold: {broken}");
    }
}

impl Drop for Rows {
    fn drop(&mut self) {
        let mut kept = KEPT.lock().unwrap_or_else(PoisonError::into_inner);
        let rows = std::mem::take(&mut self.rows);
        kept.insert((self.subject, std::mem::take(&mut self.case)), rows);
        let of_subject = kept.iter().filter(|(key, _)| key.0 == self.subject);
        let rows: Vec<&Value> = of_subject.flat_map(|(_, rows)| rows).collect();
        let name = format!("parity-{}", self.subject);
        let report = json!({"name": name, "host": host(), "rows": rows});
        let folder = folder();
        let path = folder.join(format!("{name}.json"));
        let written = serde_json::to_string_pretty(&report)
            .map_err(std::io::Error::other)
            .and_then(|text| fs::create_dir_all(&folder).and_then(|()| fs::write(&path, text)));
        if let Err(error) = written {
            eprintln!("{} cannot be written: {error}", path.display());
        }
    }
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/bench")
}

fn host() -> String {
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let cpus = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    format!("Linux {} with {cpus} cpus", kernel.trim())
}
