//! Every declared metric is there live, and every one that a dashboard or rule shows is declared.
#![allow(clippy::unwrap_used, reason = "the helpers of tests fail as tests do")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use ebb_tests_e2e::{Cluster, wire};

/// Endings that the exporter gives to the series of a histogram.
const OF_HISTOGRAMS: [&str; 3] = ["_bucket", "_sum", "_count"];

/// The names of series in a text of Prometheus, and those in its help.
fn shown(text: &str) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for line in text.lines() {
        let name = match line.strip_prefix("# HELP ") {
            Some(help) => help.split(' ').next(),
            None if line.starts_with('#') => None,
            None => line.split(['{', ' ']).next(),
        };
        names.extend(name.filter(|name| !name.is_empty()).map(ToOwned::to_owned));
    }
    names
}

/// Whether a declared metric has at least one series.
fn has_series(text: &str, name: &str) -> bool {
    let plain = wire::metric(text, name, &[]).is_some();
    plain
        || OF_HISTOGRAMS
            .iter()
            .any(|end| wire::metric(text, &format!("{name}{end}"), &[]).is_some())
}

fn dashboards() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../dashboards")
}

/// Every name of a metric of Ebb in the files of a folder, with the file that has it.
fn names_in(folder: &Path, found: &mut Vec<(String, PathBuf)>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            names_in(&path, found);
            continue;
        }
        let text = fs::read_to_string(&path).unwrap();
        let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
        for word in text.split(|c: char| !is_part(c)) {
            let ours = ["ebb_master_", "ebb_agent_"]
                .iter()
                .any(|start| word.starts_with(start));
            // A name with a colon is made by a recording rule.
            if ours && !word.contains(':') {
                found.push((word.to_owned(), path.clone()));
            }
        }
    }
}

#[test]
fn every_declared_metric_and_every_one_of_a_dashboard_is_there_live() {
    let cluster = Cluster::start();
    let run = cluster.ebb(&["run", "--", "sh", "-c", "sleep 1"]);
    assert_eq!(run.code(), 0, "{run:?}");
    // A role with a quota of each kind, so that there is something to show of quotas.
    let limit = "cpus=100,mem=1TiB,disk=1TiB,disk-bandwidth=1GiB/s,network-bandwidth=1Gbit";
    let quota = cluster.ebb(&["quota", "limited", "--limit", limit]);
    assert_eq!(quota.code(), 0, "{quota:?}");
    // A framework whose task waits for a CPU and for a disk, so that there is a latency of each to show.
    let busy = "while :; do dd if=/dev/zero of=file bs=64k count=8 conv=fsync 2>/dev/null; done";
    let service = cluster.spawn(&["service", "--json", "--", "sh", "-c", busy]);
    service.json_line(0, "its instance", |status| {
        (status["running"] == 1).then_some(())
    });
    cluster.wait_until("what the instance waits for", |_| {
        let agent = cluster.agent_metrics();
        let waits = ["run_queue_p99_ns", "io_queue_p99_ns", "io_device_p99_ns"];
        let shown = |wait: &str| has_series(&agent, &format!("ebb_agent_framework_{wait}"));
        waits.into_iter().all(shown).then_some(())
    });
    let (master, agent) = (cluster.master_metrics(), cluster.agent_metrics());

    let absent: Vec<&str> = ebb_master::metrics::TABLE
        .iter()
        .map(|metric| metric.name)
        .filter(|name| !has_series(&master, name))
        .collect();
    assert!(
        absent.is_empty(),
        "declared by the master and not shown: {absent:#?}"
    );
    let absent: Vec<&str> = ebb_agent::metrics::TABLE
        .iter()
        .map(|metric| metric.name)
        .filter(|name| !has_series(&agent, name))
        .collect();
    assert!(
        absent.is_empty(),
        "declared by the agent and not shown: {absent:#?}"
    );

    let live: BTreeSet<String> = shown(&master).union(&shown(&agent)).cloned().collect();
    let mut used = Vec::new();
    names_in(&dashboards(), &mut used);
    assert!(!used.is_empty(), "the dashboards show no metric at all");
    let unknown: Vec<_> = used
        .iter()
        .filter(|(name, _)| !live.contains(name))
        .collect();
    assert!(
        unknown.is_empty(),
        "used in a dashboard and not shown: {unknown:#?}"
    );
    drop(service);
    cluster.finish();
}
