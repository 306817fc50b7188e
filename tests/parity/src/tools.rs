//! Independent tools that measure the same run: `bpftrace` and `fio`.

#![allow(clippy::unwrap_used, reason = "the helpers of tests fail as tests do")]

use std::io::{BufRead, BufReader};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::thread::{self, JoinHandle};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::Container;
use crate::measured::finish;

/// Mounts tracefs, where it is not, in mounts of its own, and becomes bpftrace with the script.
const TRACE: &str = "test -d /sys/kernel/tracing/events || mount -t tracefs none /sys/kernel/tracing; \
                     exec bpftrace -f json -e \"$0\"";
/// Room for events that wait to be printed, in pages for each CPU.
const TRACE_PAGES: &str = "512";

/// A running bpftrace.
#[derive(Debug)]
pub struct Bpftrace {
    child: Child,
    reader: JoinHandle<Vec<Value>>,
}

impl Bpftrace {
    /// Starts a script and waits until all of it is attached.
    pub fn start(script: &str) -> Self {
        let mut child = Command::new("unshare")
            .args(["-m", "sh", "-c", TRACE, script])
            .env("BPFTRACE_PERF_RB_PAGES", TRACE_PAGES)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("unshare cannot be started; cargo xtask parity installs what these tests need");
        let mut lines = BufReader::new(child.stdout.take().unwrap());
        let mut first = String::new();
        while first.trim().is_empty() {
            let read = lines.read_line(&mut first).unwrap();
            assert!(read > 0, "bpftrace ended before it was attached");
        }
        let first: Value = serde_json::from_str(&first).unwrap();
        assert_eq!(first["type"], "attached_probes", "{first}");
        let reader = thread::spawn(move || rest(lines));
        Self { child, reader }
    }

    /// Ends it and gives what it printed.
    pub fn stop(mut self) -> Vec<Value> {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        kill_process(pid.unwrap(), Signal::INT).unwrap();
        let status = self.child.wait().unwrap();
        assert!(status.success(), "bpftrace failed: {status}");
        let printed = self.reader.join().unwrap();
        let lost = printed.iter().find(|one| one["type"] == "lost_events");
        assert_eq!(lost, None, "bpftrace has not seen everything");
        printed
    }
}

fn rest(lines: BufReader<ChildStdout>) -> Vec<Value> {
    lines
        .lines()
        .map(Result::unwrap)
        .filter(|line| !line.trim().is_empty())
        .map(|line| serde_json::from_str(&line).unwrap())
        .collect()
}

/// The value of a map of numbers without keys that bpftrace printed at its end.
pub fn map_value(printed: &[Value], name: &str) -> u64 {
    let mut maps = printed.iter().filter(|one| one["type"] == "map");
    let found = maps.find_map(|one| one["data"][name].as_u64());
    found.unwrap_or_else(|| panic!("bpftrace does not tell {name}"))
}

/// A histogram by powers of two that bpftrace printed at its end, as counts by the logarithm.
pub fn histogram(printed: &[Value], name: &str) -> Vec<u64> {
    let mut hists = printed.iter().filter(|one| one["type"] == "hist");
    let found = hists.find_map(|one| one["data"][name].as_array());
    let entries = found.unwrap_or_else(|| panic!("bpftrace does not tell {name}"));
    let mut counts = vec![0; 64];
    for entry in entries {
        let least = entry["min"].as_u64().unwrap_or(0);
        let bucket = least.max(1).ilog2() as usize;
        counts[bucket] += entry["count"].as_u64().unwrap();
    }
    counts
}

/// Runs fio in a container and gives the figures of its first job.
pub fn fio(container: &Container, arguments: &[&str]) -> Value {
    job(&finish(start_fio(container, arguments)))
}

/// Starts fio in a container.
pub fn start_fio(container: &Container, arguments: &[&str]) -> Child {
    let all = [&["--output-format=json", "--thread=1"], arguments].concat();
    container.spawn("fio", &all).unwrap()
}

/// The figures of the first job.
pub fn job(printed: &str) -> Value {
    // Notes may stand before the report.
    let report = printed.find('{').map(|at| &printed[at..]);
    let report: Value = serde_json::from_str(report.unwrap_or_default()).unwrap();
    let job = report["jobs"][0].clone();
    assert_eq!(job["error"], 0, "fio failed");
    job
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn buckets_of_bpftrace_are_ours() {
        let printed = [
            json!({"type": "map", "data": {"@n": 7}}),
            json!({"type": "hist", "data": {"@h": [
                {"max": 0, "count": 1}, {"min": 1, "max": 1, "count": 2}, {"min": 1024, "max": 2047, "count": 5}
            ]}}),
        ];
        let counts = histogram(&printed, "@h");
        assert_eq!((counts[0], counts[10]), (3, 5));
        assert_eq!(map_value(&printed, "@n"), 7);
    }
}
