//! Shows one run of the simulation, step by step: `ebb-tests-sim SEED`; or runs it at scale and says how long that took:
//! `ebb-tests-sim --scale [AGENTSxFRAMEWORKS] [--placements N] [--seed N]`.

use std::process::ExitCode;

use ebb_tests_sim::scale::{self, Report, Scale, Times};

/// As in `ebb-master`.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const USAGE: &str = "give the seed of the run as a number, for example `cargo run -p ebb-tests-sim -- 7`, or a shape, for \
    example `cargo run --release -p ebb-tests-sim -- --scale 50000x6000 --placements 1000000 --seed 1`";

/// Most CPU time of a run of the usual shape, in seconds.
const MAX_CPU_S: f64 = 600.0;
/// In which the kernel counts CPU time, for every process alike.
const TICKS_PER_S: f64 = 100.0;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["--scale", ref rest @ ..] => match read_scale(rest) {
            Some(scale) => at_scale(scale),
            None => usage(),
        },
        [seed] => seed.parse().map_or_else(|_| usage(), show),
        _ => usage(),
    }
}

fn usage() -> ExitCode {
    eprintln!("{USAGE}");
    ExitCode::from(2)
}

fn show(seed: u64) -> ExitCode {
    match ebb_tests_sim::run(seed, None, true) {
        Ok(report) => {
            println!("{report:?}");
            ExitCode::SUCCESS
        }
        Err(failure) => {
            eprintln!("{failure}");
            ExitCode::FAILURE
        }
    }
}

fn read_scale(words: &[&str]) -> Option<Scale> {
    let mut scale = Scale::default();
    let mut words = words.iter().peekable();
    if let Some(shape) = words.next_if(|word| !word.starts_with('-')) {
        let (agents, frameworks) = shape.split_once('x')?;
        (scale.agents, scale.frameworks) = (agents.parse().ok()?, frameworks.parse().ok()?);
    }
    while let Some(word) = words.next() {
        let value = words.next()?;
        match *word {
            "--placements" => scale.placements = value.parse().ok()?,
            "--seed" => scale.seed = value.parse().ok()?,
            _ => return None,
        }
    }
    Some(scale)
}

fn at_scale(scale: Scale) -> ExitCode {
    match scale::run(scale) {
        Ok((report, times)) => {
            println!("{report:?}");
            println!("digest {:016x}", report.digest);
            print_rows(&scale, &report, &times);
            ExitCode::SUCCESS
        }
        Err(broken) => {
            eprintln!("{broken}");
            ExitCode::FAILURE
        }
    }
}

/// A row a line, as `cargo xtask bench` reads it.
fn print_rows(scale: &Scale, report: &Report, times: &Times) {
    let (agents, frameworks) = (scale.agents, scale.frameworks);
    let case = format!("{agents}x{frameworks}, {} placements", scale.placements);
    let run_s = times.run.as_secs_f64();
    let rows = [
        ("time", Some(run_s), "s"),
        ("check_time", Some(times.checks.as_secs_f64()), "s"),
        ("cpu_time", cpu_s(), "s"),
        (
            "placements",
            Some(f64::from(report.placements) / run_s),
            "1/s",
        ),
        ("steps", Some(report.steps as f64 / run_s), "1/s"),
        (
            "simulated_time",
            Some(report.simulated_ms as f64 / 1000.0),
            "s",
        ),
        (
            "tasks_at_once",
            Some(f64::from(report.most_at_once)),
            "tasks",
        ),
        (
            "fewest_of_a_framework",
            Some(f64::from(report.fewest)),
            "tasks",
        ),
        ("most_of_a_framework", Some(f64::from(report.most)), "tasks"),
        ("peak_memory", peak_mem_mib(), "MiB"),
    ];
    let seed = scale.seed;
    let is_usual = *scale
        == Scale {
            seed,
            ..Scale::default()
        };
    for (metric, value, unit) in rows {
        let Some(value) = value else { continue };
        let bar = if is_usual && metric == "cpu_time" {
            format!(r#","bar":{{"at_most":{MAX_CPU_S:?}}}"#)
        } else {
            String::new()
        };
        println!(
            r#"{{"case":"{case}","metric":"{metric}","value":{value:.3},"unit":"{unit}"{bar}}}"#
        );
    }
}

/// The most memory that this process has held, in MiB.
fn peak_mem_mib() -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    let kib: f64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kib / 1024.0)
}

/// The CPU time of this process, checks included, in seconds: what is comparable when others use the machine too.
fn cpu_s() -> Option<f64> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    // What follows its name, which is in brackets, begins with the third field.
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_whitespace().skip(11);
    let (user, system): (f64, f64) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
    Some((user + system) / TICKS_PER_S)
}
