//! Dashboards and alerts only name metrics that a daemon shows.
//!
//! The tables are read as text: every name in `dashboards/` must stand, quoted, in the table of the
//! master or of the agent. A histogram is asked for by its `_bucket`, `_sum` or `_count`.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};

use super::Finding;

/// Where metrics are declared.
const TABLES: [&str; 2] = ["master/src/metrics.rs", "agent/src/metrics.rs"];
/// What asks for them. The tests of the alerts bring series of their own, so they count too.
const READERS: [&str; 3] = [
    "dashboards/ebb.json",
    "dashboards/rules.yml",
    "dashboards/tests.yml",
];
const PREFIXES: [&str; 2] = ["ebb_master_", "ebb_agent_"];
const SERIES_OF_HISTOGRAMS: [&str; 3] = ["_bucket", "_sum", "_count"];

/// Names that are asked for and shown by nobody.
///
/// # Errors
/// When a file cannot be read, or no names are found where there must be some.
pub fn check(root: &Path) -> Result<Vec<Finding>> {
    let mut declared = BTreeSet::new();
    for path in TABLES {
        let names = declared_in(&read(root, path)?);
        ensure!(!names.is_empty(), "{path} declares no metric");
        declared.extend(names);
    }
    let mut findings = Vec::new();
    for path in READERS {
        let names = named_in(&read(root, path)?);
        ensure!(!names.is_empty(), "{path} names no metric");
        let unknown = names.iter().filter(|name| !is_shown(name, &declared));
        findings.extend(unknown.map(|name| {
            format!(
                "{path}: nobody shows {name}; name a metric of {} or {}",
                TABLES[0], TABLES[1]
            )
        }));
    }
    Ok(findings)
}

fn read(root: &Path, path: &str) -> Result<String> {
    fs::read_to_string(root.join(path)).with_context(|| format!("cannot read {path}"))
}

/// Whole names in quotes, outside of the tests.
fn declared_in(source: &str) -> BTreeSet<String> {
    let table = source.split("#[cfg(test)]").next().unwrap_or("");
    let quoted = table.split('"');
    quoted
        .filter(|text| words(text).eq([*text]))
        .map(str::to_owned)
        .collect()
}

fn named_in(text: &str) -> BTreeSet<String> {
    words(text).map(str::to_owned).collect()
}

/// Every word that begins like a metric's name.
fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_')
        .filter(|word| PREFIXES.iter().any(|prefix| word.starts_with(prefix)))
}

fn is_shown(name: &str, declared: &BTreeSet<String>) -> bool {
    let of_histogram = SERIES_OF_HISTOGRAMS
        .iter()
        .filter_map(|suffix| name.strip_suffix(suffix));
    declared.contains(name)
        || of_histogram
            .into_iter()
            .any(|whole| declared.contains(whole))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_in_dashboards_and_alerts_is_declared() {
        let findings = check(&crate::shell::root()).unwrap();
        assert!(findings.is_empty(), "{findings:#?}");
    }

    #[test]
    fn a_name_that_nobody_shows_is_found() {
        let table = "A = \"ebb_agent_a_total\", Counter, \"Says ebb_agent_b.\";\n\
                     B = \"ebb_agent_wait_seconds\";\n#[cfg(test)]\n\"ebb_agent_c\"";
        let declared = declared_in(table);
        assert_eq!(declared.len(), 2, "{declared:?}");
        let asked =
            "rate(ebb_agent_a_total[5m]) + ebb_agent_wait_seconds_bucket{le=\"1\"} + ebb_agent_c";
        let unknown: Vec<_> = named_in(asked)
            .into_iter()
            .filter(|name| !is_shown(name, &declared))
            .collect();
        assert_eq!(unknown, ["ebb_agent_c"]);
    }
}
