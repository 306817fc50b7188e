//! What `/proc` says of the machine and of a process: its CPU time, its threads, and the eBPF programs and maps that
//! it holds.
//!
//! Nanoseconds and milliseconds, as each name says. What cannot be read is an error: a benchmark that does not know
//! has measured nothing.

use std::collections::BTreeMap;
use std::fs;
use std::os::fd::RawFd;

use anyhow::{Context, Result};

/// What an eBPF program has cost since it was loaded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cost {
    /// Time in it, on all CPUs.
    pub run_time_ns: u64,
    /// Times it ran.
    pub run_count: u64,
}

impl Cost {
    /// What it has cost since an earlier reading.
    pub fn since(self, before: Self) -> Self {
        Self {
            run_time_ns: self.run_time_ns.saturating_sub(before.run_time_ns),
            run_count: self.run_count.saturating_sub(before.run_count),
        }
    }

    /// Both together.
    pub fn and(self, other: Self) -> Self {
        Self {
            run_time_ns: self.run_time_ns + other.run_time_ns,
            run_count: self.run_count + other.run_count,
        }
    }

    /// The mean of a run; nothing if there was none.
    pub fn mean_ns(self) -> Option<f64> {
        (self.run_count > 0).then(|| self.run_time_ns as f64 / self.run_count as f64)
    }
}

/// Kinds of eBPF maps that send events to user space, as the kernel numbers them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventMap {
    /// A ring buffer.
    Ring = 27,
    /// A perf event array, one buffer for each CPU.
    Perf = 4,
}

/// The time that tasks have had to wait for, as an average of the last minute.
///
/// # Errors
/// When it cannot be read.
pub fn load_average() -> Result<f64> {
    let text = fs::read_to_string("/proc/loadavg").context("cannot read /proc/loadavg")?;
    let first = text.split_whitespace().next();
    first
        .and_then(|word| word.parse().ok())
        .context("/proc/loadavg has no number")
}

/// Context switches on all CPUs since the machine started.
///
/// # Errors
/// When they cannot be read.
pub fn context_switches() -> Result<u64> {
    let text = fs::read_to_string("/proc/stat").context("cannot read /proc/stat")?;
    field(&text, "ctxt").context("/proc/stat counts no context switches")
}

/// CPU time of a process, user and system, its ended threads and none of its children, in nanoseconds.
///
/// # Errors
/// When the process has ended.
pub fn cpu_ns(pid: u32) -> Result<u64> {
    let path = format!("/proc/{pid}/stat");
    let stat = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
    let (_, ticks) = thread_time(&stat).with_context(|| format!("{path} is not understood"))?;
    Ok(ticks * 1_000_000_000 / rustix::param::clock_ticks_per_second())
}

/// CPU time of a process's first thread up to when it last left a CPU, in nanoseconds.
///
/// # Errors
/// When the process has ended.
pub fn on_cpu_ns(pid: u32) -> Result<u64> {
    let path = format!("/proc/{pid}/schedstat");
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
    let first = text.split_whitespace().next();
    first
        .and_then(|word| word.parse().ok())
        .with_context(|| format!("{path} is not understood"))
}

/// CPU time of the threads of a process, by name, in nanoseconds. Threads of one name are one entry.
///
/// # Errors
/// When the process has ended.
pub fn threads_ns(pid: u32) -> Result<BTreeMap<String, u64>> {
    let folder = format!("/proc/{pid}/task");
    let mut times = BTreeMap::new();
    for entry in fs::read_dir(&folder).with_context(|| format!("cannot read {folder}"))? {
        let path = entry?.path();
        // A thread may end while the others are read.
        let (Ok(stat), Ok(schedstat)) = (
            fs::read_to_string(path.join("stat")),
            fs::read_to_string(path.join("schedstat")),
        ) else {
            continue;
        };
        let name = thread_time(&stat).map(|(name, _)| name.to_owned());
        let on_cpu_ns = schedstat.split_whitespace().next();
        let on_cpu_ns = on_cpu_ns.and_then(|word| word.parse::<u64>().ok());
        if let (Some(name), Some(on_cpu_ns)) = (name, on_cpu_ns) {
            *times.entry(name).or_default() += on_cpu_ns;
        }
    }
    Ok(times)
}

/// What the eBPF program behind one of this process's own file descriptors has cost.
///
/// # Errors
/// When it is none, or the kernel does not tell.
pub fn program_cost(descriptor: RawFd) -> Result<Cost> {
    let path = format!("/proc/self/fdinfo/{descriptor}");
    let info = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
    let (_, cost) = program(&info).with_context(|| format!("{path} tells no cost"))?;
    Ok(cost)
}

/// The eBPF programs that a process holds, by id.
///
/// # Errors
/// When the process has ended.
pub fn programs(pid: u32) -> Result<BTreeMap<u64, Cost>> {
    let infos = descriptors(pid)?;
    Ok(infos.iter().filter_map(|info| program(info)).collect())
}

/// The ids of the eBPF maps of one kind that a process holds.
///
/// # Errors
/// When the process has ended.
pub fn event_maps(pid: u32, kind: EventMap) -> Result<Vec<u32>> {
    let infos = descriptors(pid)?;
    let mut ids: Vec<u32> = infos
        .iter()
        .filter(|info| field(info, "map_type:") == Some(kind as u64))
        .filter_map(|info| u32::try_from(field(info, "map_id:")?).ok())
        .collect();
    ids.sort_unstable();
    ids.dedup();
    Ok(ids)
}

/// Has the kernel give up a process's largest memory so far, so that it is measured anew from now on.
///
/// # Errors
/// When the process has ended.
pub fn forget_peak(pid: u32) -> Result<()> {
    let path = format!("/proc/{pid}/clear_refs");
    fs::write(&path, "5").with_context(|| format!("cannot write {path}"))
}

/// What the kernel says of each open file.
fn descriptors(pid: u32) -> Result<Vec<String>> {
    let folder = format!("/proc/{pid}/fdinfo");
    let entries = fs::read_dir(&folder).with_context(|| format!("cannot read {folder}"))?;
    // One that was closed in between is none.
    Ok(entries
        .flatten()
        .filter_map(|entry| fs::read_to_string(entry.path()).ok())
        .collect())
}

fn program(info: &str) -> Option<(u64, Cost)> {
    let cost = Cost {
        run_time_ns: field(info, "run_time_ns:")?,
        run_count: field(info, "run_cnt:")?,
    };
    Some((field(info, "prog_id:")?, cost))
}

fn field(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| {
        let mut words = line.split_whitespace();
        (words.next() == Some(name)).then(|| words.next()?.parse().ok())?
    })
}

/// Name and ticks of CPU time. The name stands in parentheses and may hold anything, those too.
fn thread_time(stat: &str) -> Option<(&str, u64)> {
    let (before, after) = stat.rsplit_once(") ")?;
    let (_, name) = before.split_once('(')?;
    let mut words = after.split_whitespace().skip(11);
    let user: u64 = words.next()?.parse().ok()?;
    let system: u64 = words.next()?.parse().ok()?;
    Some((name, user + system))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_parentheses_does_not_shift_the_times() {
        let stat = "7 (a) (b) S 1 7 7 0 -1 4194560 100 0 3 0 25 17 9 9 20 0 1 0 5 1 1";
        assert_eq!(thread_time(stat), Some(("a) (b", 42)));
        assert_eq!(thread_time("7 (a) S 1"), None);
    }

    #[test]
    fn a_program_is_told_from_a_link_to_it() {
        let info = "pos:\t0\nprog_type:\t26\nprog_id:\t9\nrun_time_ns:\t120\nrun_cnt:\t4\n";
        let cost = Cost {
            run_time_ns: 120,
            run_count: 4,
        };
        assert_eq!(program(info), Some((9, cost)));
        assert_eq!(cost.mean_ns(), Some(30.0));
        assert_eq!(program("link_type:\traw\nprog_id:\t9\n"), None);
        assert_eq!(Cost::default().mean_ns(), None);
    }

    #[test]
    fn this_process_has_used_time_and_memory() {
        let own = std::process::id();
        assert!(!threads_ns(own).unwrap().is_empty());
        assert!(cpu_ns(own).is_ok());
        assert!(event_maps(own, EventMap::Ring).unwrap().is_empty());
        assert!(context_switches().unwrap() > 0);
        assert!(load_average().unwrap() >= 0.0);
        forget_peak(own).unwrap();
    }
}
