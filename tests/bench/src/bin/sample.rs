//! What a reading of 1,000 containers costs, beside a reader that opens, reads and closes their cgroup files.
//!
//! CPU time of the reading thread, user and system, a container. Each round is one reading of each kind, in turning
//! order, in two states: all containers idle, and a task in each of 50 that works a little and sleeps. The readers
//! beside make nothing of what they read: theirs is only a part of a real one's work.
//!
//! Two readers: one of every file that holds a figure of the agent's full reading, and one of those alone that hold
//! the CPU's, which the quick reading has (and more). The quick reading must be well below both.

use std::fs::File;
use std::io::Read;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use ebb_agent::probe::{CgroupPaths, Detail, Facts, Sampler, built_in_object};
use ebb_tests_bench::play::{self, Part, Player};
use ebb_tests_bench::process::load_average;
use ebb_tests_bench::{Containers, at_most, figure, order, quantile, spread};
use rustix::time::{ClockId, clock_gettime};

const CONTAINERS: usize = 1000;
const BUSY: usize = 50;
/// Rounds that count, after some that make everything warm.
const ROUNDS: usize = 40;
const WARM: usize = 4;
/// CPU time of a quick reading, for each container.
const MOST_US: f64 = 3.0;
/// The share of a reader's time.
const MOST_QUICK_SHARE: f64 = 0.15;
const MOST_FULL_SHARE: f64 = 0.5;
/// A cgroup file is read in pieces of this, as common tools do.
const PIECE_BYTES: usize = 4096;

/// What takes turns.
#[derive(Clone, Copy)]
enum Reading {
    Quick,
    Full,
    AllFiles,
    CpuFiles,
}

const READINGS: [(Reading, &str); 4] = [
    (Reading::Quick, "quick"),
    (Reading::Full, "full"),
    (Reading::AllFiles, "open-read-close of all files"),
    (Reading::CpuFiles, "open-read-close of CPU files"),
];

fn main() -> Result<std::process::ExitCode> {
    if let Some(code) = play::dispatch() {
        return Ok(code);
    }
    figure("machine", "load_average_before", load_average()?, "tasks");
    let containers = Containers::make(CONTAINERS)?;
    let paths = containers.paths();
    let mut sampler = Sampler::new(&Facts::gather(), built_in_object());
    ensure!(sampler.has_probes(), "{}", sampler.message());
    for (number, paths) in paths.iter().enumerate() {
        sampler.register(number, paths, false)?;
    }
    let files = Files::of(&paths)?;
    measure("idle", &mut sampler, &files)?;
    let players = (0..BUSY)
        .map(|number| Player::start(Part::Nap, &containers.doors(number)))
        .collect::<Result<Vec<_>>>()?;
    measure("50 busy", &mut sampler, &files)?;
    drop(players);
    figure("machine", "load_average_after", load_average()?, "tasks");
    Ok(std::process::ExitCode::SUCCESS)
}

/// The files of all containers.
struct Files {
    all: Vec<PathBuf>,
    cpu: Vec<PathBuf>,
}

impl Files {
    /// Those that exist here and hold what the agent tells of a container.
    fn of(containers: &[CgroupPaths]) -> Result<Self> {
        let (mut all, mut cpu) = (Vec::new(), Vec::new());
        for paths in containers {
            cpu.extend(existing(&cpu_files(paths)));
            all.extend(existing(&other_files(paths)));
        }
        ensure!(
            cpu.len() >= containers.len() && !all.is_empty(),
            "the containers have no cgroup files to read beside"
        );
        all.splice(0..0, cpu.iter().cloned());
        Ok(Self { all, cpu })
    }
}

type Candidate<'a> = (&'a Option<PathBuf>, &'static str);

/// Running time and throttling, from where they stand: v1, else v2.
fn cpu_files(paths: &CgroupPaths) -> Vec<Candidate<'_>> {
    match (&paths.cpuacct, &paths.cpu) {
        (None, None) => vec![(&paths.v2, "cpu.stat")],
        (time, quota) => vec![(time, "cpuacct.usage"), (quota, "cpu.stat")],
    }
}

fn other_files(paths: &CgroupPaths) -> Vec<Candidate<'_>> {
    let mut files = Vec::new();
    match &paths.memory {
        Some(_) => {
            files.extend(["memory.usage_in_bytes", "memory.stat"].map(|name| (&paths.memory, name)))
        }
        None => files.extend(["memory.current", "memory.stat"].map(|name| (&paths.v2, name))),
    }
    match &paths.blkio {
        Some(_) => files.extend(
            [
                "blkio.throttle.io_service_bytes_recursive",
                "blkio.throttle.io_serviced_recursive",
            ]
            .map(|name| (&paths.blkio, name)),
        ),
        None => files.push((&paths.v2, "io.stat")),
    }
    files
}

fn existing(candidates: &[Candidate<'_>]) -> Vec<PathBuf> {
    let paths = candidates
        .iter()
        .filter_map(|(folder, name)| Some(folder.as_ref()?.join(name)));
    paths.filter(|path| path.is_file()).collect()
}

fn measure(state: &str, sampler: &mut Sampler<usize>, files: &Files) -> Result<()> {
    let mut times_us: [Vec<f64>; READINGS.len()] = Default::default();
    for round in 0..WARM + ROUNDS {
        for at in order(round, READINGS.len()) {
            let from_ns = thread_cpu_ns();
            read(READINGS[at].0, sampler, files)?;
            let took_ns = thread_cpu_ns() - from_ns;
            if round >= WARM {
                times_us[at].push(took_ns as f64 / 1e3 / CONTAINERS as f64);
            }
        }
    }
    report(state, &mut times_us);
    Ok(())
}

fn read(reading: Reading, sampler: &mut Sampler<usize>, files: &Files) -> Result<()> {
    match reading {
        Reading::Quick => sample(sampler, Detail::Quick),
        Reading::Full => sample(sampler, Detail::Full),
        Reading::AllFiles => read_files(&files.all),
        Reading::CpuFiles => read_files(&files.cpu),
    }
}

/// Every container must be there, by the probes: a reading of nothing is no cheap one.
fn sample(sampler: &mut Sampler<usize>, detail: Detail) -> Result<()> {
    let sample = sampler.sample(detail);
    let by_probes = sample
        .containers
        .iter()
        .filter(|(_, counters)| counters.switches.is_some())
        .count();
    ensure!(
        by_probes == CONTAINERS,
        "the probes told of {by_probes} containers only"
    );
    Ok(())
}

fn read_files(paths: &[PathBuf]) -> Result<()> {
    let mut buffer = [0; PIECE_BYTES];
    for path in paths {
        let mut file =
            File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
        while file.read(&mut buffer)? > 0 {}
    }
    Ok(())
}

fn report(state: &str, times_us: &mut [Vec<f64>; READINGS.len()]) {
    let mut medians_us = [0.0; READINGS.len()];
    for (at, (_, name)) in READINGS.iter().enumerate() {
        let case = format!("1000 containers, {state}, {name}");
        medians_us[at] = quantile(&mut times_us[at], 0.5);
        spread(&case, "cpu_a_container", &mut times_us[at], "us");
    }
    let [quick_us, full_us, all_us, cpu_us] = medians_us;
    let case = format!("1000 containers, {state}");
    at_most(&case, "quick", quick_us, "us a container", MOST_US);
    for (metric, reader_us) in [
        ("quick_of_all_files", all_us),
        ("quick_of_cpu_files", cpu_us),
    ] {
        at_most(&case, metric, quick_us / reader_us, "x", MOST_QUICK_SHARE);
    }
    let share = full_us / all_us;
    at_most(&case, "full_of_all_files", share, "x", MOST_FULL_SHARE);
}

/// CPU time of this thread.
fn thread_cpu_ns() -> u64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    // It counts from the thread's start: it is neither negative nor too large.
    (time.tv_sec as u64) * 1_000_000_000 + time.tv_nsec as u64
}
