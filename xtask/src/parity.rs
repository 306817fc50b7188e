//! `cargo xtask parity [SUBJECT]`: holds the probes' figures against independent tools and the kernel's other counters.
//!
//! Each subject is a test program of `tests/parity` that writes its figures, with the bars that they must keep, to
//! `target/bench/parity-SUBJECT.json`. Here the tools are installed, the probes built, the programs run one after the
//! other, and the figures shown.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::shell::{self, cargo, command, read, root};
use crate::{ebpf, setup};

/// What is compared.
const SUBJECTS: [&str; 8] = [
    "cpu", "io", "latency", "quota", "oom", "net", "traffic", "restart",
];

/// The programs that the tests compare with or start, with Debian's packages.
const TOOLS: [(&str, &str); 5] = [
    ("fio", "fio"),
    ("bpftrace", "bpftrace"),
    ("stress-ng", "stress-ng"),
    ("ip", "iproute2"),
    ("unshare", "util-linux"),
];

/// What to compare.
#[derive(clap::Args)]
pub struct Options {
    /// Which subject; without one all of them
    subject: Option<String>,
}

/// Sees to it that the tools are there.
///
/// # Errors
/// When they are not and cannot be installed; the sentence has the command.
pub fn tools() -> Result<()> {
    setup::need(&TOOLS)
}

/// Compares.
///
/// # Errors
/// When there is no such subject, a tool cannot be had, or a bar does not hold; all subjects are run first.
pub fn run(options: &Options) -> Result<()> {
    let subjects: Vec<&str> = match &options.subject {
        None => SUBJECTS.to_vec(),
        Some(one) => SUBJECTS.into_iter().filter(|name| name == one).collect(),
    };
    if subjects.is_empty() {
        bail!(
            "there is no such subject; there are {}",
            SUBJECTS.join(", ")
        );
    }
    tools()?;
    setup::setup()?;
    ebpf::build_ebpf()?;
    let mut failed = Vec::new();
    for subject in subjects {
        let path = figures(subject);
        if path.exists() {
            fs::remove_file(&path).with_context(|| format!("cannot remove {}", path.display()))?;
        }
        let test = [
            "test",
            "--package",
            "ebb-tests-parity",
            "--test",
            subject,
            "--",
        ];
        let ended = shell::run(cargo(&test).arg("--test-threads=1"));
        show(subject)?;
        if ended.is_err() {
            failed.push(subject);
        }
    }
    ensure!(
        failed.is_empty(),
        "not as they should be: {}",
        failed.join(", ")
    );
    Ok(())
}

fn figures(subject: &str) -> PathBuf {
    root().join(format!("target/bench/parity-{subject}.json"))
}

/// Prints the figures, and notes in the file of which state of the repository they are.
fn show(subject: &str) -> Result<()> {
    let path = figures(subject);
    let text = fs::read_to_string(&path)
        .with_context(|| format!("{} was not written; nothing was compared", path.display()))?;
    let mut report: Value =
        serde_json::from_str(&text).with_context(|| format!("{} is no JSON", path.display()))?;
    report["commit"] = read(&mut command("git", &["describe", "--always", "--dirty"]))?.into();
    let text = serde_json::to_string_pretty(&report)?;
    fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    let rows = report["rows"].as_array().map_or(&[][..], Vec::as_slice);
    ensure!(!rows.is_empty(), "{} has no figures", path.display());
    for row in rows {
        println!("{}", line(row));
    }
    println!("{subject}: {} figures in {}", rows.len(), path.display());
    Ok(())
}

fn line(row: &Value) -> String {
    let text = |name: &str| row[name].as_str().unwrap_or_default();
    let value = row["value"].as_f64().unwrap_or(f64::NAN);
    let bars = row["bar"].as_object().into_iter().flatten();
    let bar: String = bars
        .map(|(name, bound)| format!(" ({} {bound})", name.replace('_', " ")))
        .collect();
    let verdict = match row["holds"].as_bool() {
        Some(true) => " holds",
        Some(false) => " DOES NOT HOLD",
        None => "",
    };
    let unit = text("unit");
    format!(
        "{}: {}: {value:.3} {unit}{verdict}{bar}",
        text("case"),
        text("metric")
    )
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn each_subject_is_a_test_program() {
        for subject in SUBJECTS {
            let file = root().join(format!("tests/parity/tests/{subject}.rs"));
            assert!(file.exists(), "{}", file.display());
        }
    }

    #[test]
    fn a_row_is_shown_with_its_bar() {
        let row = json!({"case": "a", "metric": "b", "value": 2.0, "unit": "%",
            "bar": {"at_most": 1.0}, "holds": false});
        assert_eq!(line(&row), "a: b: 2.000 % DOES NOT HOLD (at most 1.0)");
    }
}
