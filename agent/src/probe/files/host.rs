//! The machine's own files: `/proc/stat`, `/proc/meminfo`, `/proc/pressure`.

use std::path::Path;

use super::super::figures::{Detail, HostCounters};
use super::kept::{Kept, field, read};
use super::pressure::PressureFiles;

/// `/proc/stat` counts in hundredths of a second on every architecture (`USER_HZ`).
pub(super) const NS_PER_TICK: u64 = 10_000_000;

const BYTES_PER_KIB: u64 = 1024;

/// The machine's own files.
#[derive(Debug)]
pub struct HostFiles {
    stat: Option<Kept>,
    meminfo: Option<Kept>,
    pressure: PressureFiles,
}

impl HostFiles {
    /// Opens them.
    pub fn open() -> Self {
        let proc = Path::new("/proc");
        Self {
            stat: Kept::open(Some(proc), "stat"),
            meminfo: Kept::open(Some(proc), "meminfo"),
            pressure: PressureFiles::of_machine(proc),
        }
    }

    /// The machine's counters; its pressure in full readings.
    pub fn read(&mut self, detail: Detail) -> HostCounters {
        let mut host = HostCounters::default();
        if let Some(times) = read(self.stat.as_ref(), proc_stat) {
            host.busy_ns = Some(times.busy_ns);
            host.idle_ns = Some(times.idle_ns);
            host.steal_ns = Some(times.steal_ns);
            host.cpus = Some(times.cpus);
        }
        read(self.meminfo.as_ref(), |text| {
            meminfo(&mut host, text);
            Some(())
        });
        if detail == Detail::Full {
            host.pressure = self.pressure.read();
        }
        host
    }
}

pub(super) fn meminfo(host: &mut HostCounters, text: &str) {
    let bytes = |name| field(text, name).and_then(|kib| kib.checked_mul(BYTES_PER_KIB));
    host.mem_total_bytes = bytes("MemTotal:");
    host.mem_available_bytes = bytes("MemAvailable:");
    host.mem_free_bytes = bytes("MemFree:");
}

/// What `/proc/stat` tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Times {
    pub(super) busy_ns: u64,
    pub(super) idle_ns: u64,
    pub(super) steal_ns: u64,
    pub(super) cpus: u32,
}

/// Busy, idle and stolen time and the number of CPUs.
pub(super) fn proc_stat(text: &str) -> Option<Times> {
    let line = text.lines().find_map(|line| line.strip_prefix("cpu "))?;
    let ticks: Vec<u64> = line
        .split_ascii_whitespace()
        .map_while(|word| word.parse().ok())
        .collect();
    let [user, nice, system, idle, iowait, irq, softirq, steal, ..] = ticks[..] else {
        return None;
    };
    let cpus = text
        .lines()
        .filter(|line| {
            line.strip_prefix("cpu")
                .is_some_and(|rest| rest.starts_with(|digit: char| digit.is_ascii_digit()))
        })
        .count();
    let ns = |parts: &[u64]| {
        let sum = parts
            .iter()
            .try_fold(0u64, |sum, part| sum.checked_add(*part))?;
        sum.checked_mul(NS_PER_TICK)
    };
    Some(Times {
        busy_ns: ns(&[user, nice, system, irq, softirq])?,
        idle_ns: ns(&[idle, iowait])?,
        steal_ns: ns(&[steal])?,
        cpus: u32::try_from(cpus).ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn iowait_is_idle_and_steal_apart() {
        let text = "cpu  1 2 3 4 5 6 7 8 0 0\ncpu0 1 2 3 4 5 6 7 8 0 0\ncpu1 0 0 0 0 0 0 0 0 0 0\ncpufreq 3\nintr 5\n";
        let expected = Times {
            busy_ns: 19 * NS_PER_TICK,
            idle_ns: 9 * NS_PER_TICK,
            steal_ns: 8 * NS_PER_TICK,
            cpus: 2,
        };
        assert_eq!(proc_stat(text), Some(expected));
        assert_eq!(proc_stat("cpu 1 2\n"), None);
        let overflow = format!("cpu  {0} {0} 0 0 0 0 0 0\n", u64::MAX);
        assert_eq!(proc_stat(&overflow), None);
    }

    #[test]
    fn this_machine_is_read_and_its_pressure_only_in_full() {
        let mut files = HostFiles::open();
        let quick = files.read(Detail::Quick);
        assert!(quick.cpus.unwrap() >= 1);
        assert!(quick.mem_available_bytes.unwrap() <= quick.mem_total_bytes.unwrap());
        assert_eq!(quick.pressure, None);
        let has_pressure = Path::new("/proc/pressure/io").exists();
        assert_eq!(files.read(Detail::Full).pressure.is_some(), has_pressure);
    }
}
