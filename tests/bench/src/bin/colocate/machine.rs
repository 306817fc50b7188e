//! What the machine and each part of it has used: CPU time from `/proc/stat` and from the cgroups.
//!
//! Nanoseconds since some point in time; only differences mean anything.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use ebb_agent::cgroup::{Controller, Mounts};

/// Longest wait for a machine with little to do.
const IDLE_PATIENCE: Duration = Duration::from_secs(20);
/// Over how long that is judged.
const IDLE_SPAN: Duration = Duration::from_millis(500);
/// Busy share below which it is so.
const IDLE_SHARE: f64 = 0.15;

/// CPU time of the whole machine.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Machine {
    /// On all CPUs, idle or not.
    pub all_ns: f64,
    /// Neither busy nor stolen.
    pub idle_ns: f64,
    /// What the hypervisor gave to others.
    pub stolen_ns: f64,
}

impl Machine {
    /// Reads it.
    pub fn read() -> Result<Self> {
        let text = fs::read_to_string("/proc/stat").context("cannot read /proc/stat")?;
        let tick_ns = 1e9 / rustix::param::clock_ticks_per_second() as f64;
        Self::parse(&text, tick_ns).context("/proc/stat is not understood")
    }

    fn parse(text: &str, tick_ns: f64) -> Option<Self> {
        let line = text.lines().next()?.strip_prefix("cpu ")?;
        let ticks: Vec<f64> = line
            .split_whitespace()
            .map_while(|word| word.parse().ok())
            .collect();
        // user nice system idle iowait irq softirq steal; what guests used is in user already.
        let all: f64 = ticks.get(..8)?.iter().sum();
        Some(Self {
            all_ns: all * tick_ns,
            idle_ns: (ticks[3] + ticks[4]) * tick_ns,
            stolen_ns: ticks[7] * tick_ns,
        })
    }

    /// Since an earlier reading.
    pub fn since(self, before: Self) -> Self {
        Self {
            all_ns: self.all_ns - before.all_ns,
            idle_ns: self.idle_ns - before.idle_ns,
            stolen_ns: self.stolen_ns - before.stolen_ns,
        }
    }

    /// What was busy.
    pub fn busy_ns(self) -> f64 {
        self.all_ns - self.idle_ns - self.stolen_ns
    }
}

/// Waits until the machine has little to do, which the last units of a batch keep from it; not longer than
/// [`IDLE_PATIENCE`]: then what others use stands in the report.
///
/// # Errors
/// When the user has had enough.
pub fn wait_idle(interrupted: &AtomicBool) -> Result<()> {
    let until = Instant::now() + IDLE_PATIENCE;
    while Instant::now() < until {
        ensure!(!interrupted.load(Ordering::Relaxed), "interrupted");
        let before = Machine::read()?;
        std::thread::sleep(IDLE_SPAN);
        let passed = Machine::read()?.since(before);
        if passed.busy_ns() < passed.all_ns * IDLE_SHARE {
            break;
        }
    }
    Ok(())
}

/// Where the CPU time of one root of cgroups is counted.
#[derive(Clone, Debug)]
pub struct Meter(PathBuf);

impl Meter {
    /// Of the cgroup of that name below the mounts' roots.
    pub fn of(name: &str) -> Result<Self> {
        let mounts = Mounts::detect()?;
        let v1 = mounts.v1(Controller::Cpuacct);
        let v1 = v1.map(|mount| mount.join(name).join("cpuacct.usage"));
        let v2 = || mounts.v2().map(|mount| mount.join(name).join("cpu.stat"));
        let path = v1.or_else(v2);
        Ok(Self(path.context("no cgroup hierarchy counts CPU time")?))
    }

    /// CPU time so far; 0 of a cgroup that does not exist.
    pub fn read_ns(&self) -> f64 {
        fs::read_to_string(&self.0).map_or(0.0, |text| usage_ns(&self.0, &text))
    }
}

fn usage_ns(path: &Path, text: &str) -> f64 {
    if path.ends_with("cpuacct.usage") {
        return text.trim().parse().unwrap_or(0.0);
    }
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("usage_usec "));
    line.and_then(|word| word.parse::<f64>().ok())
        .map_or(0.0, |us| us * 1000.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guests_are_not_counted_twice_and_stolen_time_is_not_busy() {
        let text = "cpu  10 20 30 40 5 1 2 3 9 9\ncpu0 1 1 1 1 1 1 1 1 1 1\n";
        let machine = Machine::parse(text, 1.0).expect("a machine");
        assert_eq!(machine.all_ns, 111.0);
        assert_eq!(machine.busy_ns(), 63.0);
        assert!(Machine::parse("cpu  1 2", 1.0).is_none());
    }

    #[test]
    fn both_hierarchies_are_read() {
        assert_eq!(usage_ns(Path::new("/x/cpuacct.usage"), "77\n"), 77.0);
        let text = "usage_usec 5\nuser_usec 3\n";
        assert_eq!(usage_ns(Path::new("/x/cpu.stat"), text), 5000.0);
    }
}
