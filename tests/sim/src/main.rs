//! Shows one run of the simulation, step by step: `ebb-tests-sim SEED`; or runs many and names the first that breaks
//! a rule: `ebb-tests-sim --seeds FROM..TO`; or runs it at scale and says how long that took:
//! `ebb-tests-sim --scale [AGENTSxFRAMEWORKS] [--placements N] [--seed N]`; or a day of a cluster that lends:
//! `ebb-tests-sim --day [AGENTS] [--minutes N] [--seed N] [--traces DIRECTORY]`.

use std::ops::Range;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use ebb_tests_sim::Failure;
use ebb_tests_sim::day::{self, Day, Loads};
use ebb_tests_sim::scale::{self, Report, Scale, Times};

/// As in `ebb-master`.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const USAGE: &str = "give the seed of the run as a number, for example `cargo run -p ebb-tests-sim -- 7`, or many, for \
    example `cargo run --release -p ebb-tests-sim -- --seeds 1000..100000`, or a shape, for \
    example `cargo run --release -p ebb-tests-sim -- --scale 50000x6000 --placements 1000000 --seed 1`, or a day, for \
    example `cargo run --release -p ebb-tests-sim -- --day 200 --minutes 1440 --seed 1`";

/// Most CPU time of a run of the usual shape, in seconds.
const MAX_CPU_S: f64 = 600.0;
/// In which the kernel counts CPU time, for every process alike.
const TICKS_PER_S: f64 = 100.0;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["--seeds", range] => read_range(range).map_or_else(usage, over_seeds),
        ["--scale", ref rest @ ..] => match read_scale(rest) {
            Some(scale) => at_scale(scale),
            None => usage(),
        },
        ["--day", ref rest @ ..] => match read_day(rest) {
            Some((day, traces)) => over_a_day(day, traces),
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
    tell(ebb_tests_sim::run(seed, None, true))
}

fn read_range(word: &str) -> Option<Range<u64>> {
    let (from, to) = word.split_once("..")?;
    let range = from.parse().ok()?..to.parse().ok()?;
    (!range.is_empty()).then_some(range)
}

fn over_seeds(seeds: Range<u64>) -> ExitCode {
    tell(ebb_tests_sim::sweep(seeds, None))
}

fn tell(outcome: Result<ebb_tests_sim::Report, Failure>) -> ExitCode {
    match outcome {
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

fn read_day(words: &[&str]) -> Option<(Day, PathBuf)> {
    let mut day = Day {
        agents: 200,
        minutes: 24 * 60,
        seed: 1,
        planted: None,
    };
    let mut traces = day::excerpts();
    let mut words = words.iter().peekable();
    if let Some(agents) = words.next_if(|word| !word.starts_with('-')) {
        day.agents = agents.parse().ok().filter(|agents| *agents > 0)?;
    }
    while let Some(word) = words.next() {
        let value = words.next()?;
        match *word {
            "--minutes" => day.minutes = value.parse().ok()?,
            "--seed" => day.seed = value.parse().ok()?,
            "--traces" => traces = PathBuf::from(value),
            _ => return None,
        }
    }
    Some((day, traces))
}

fn over_a_day(day: Day, traces: PathBuf) -> ExitCode {
    let start = Instant::now();
    let loads = Loads::read(&traces).map_err(|error| format!("{error:#}"));
    match loads.and_then(|loads| day::run(day, &loads)) {
        Ok(report) => {
            println!("{report:#?}");
            println!("digest {:016x}", report.digest);
            print_day(&day, &report, start.elapsed().as_secs_f64());
            ExitCode::SUCCESS
        }
        Err(what) => {
            eprintln!("{what}");
            ExitCode::FAILURE
        }
    }
}

/// A row a line, as `cargo xtask bench` reads it.
fn print_day(day: &Day, report: &day::Report, run_s: f64) {
    let case = format!("{} agents, {} minutes", day.agents, day.minutes);
    let none = None;
    let rows = [
        ("time", run_s, "s", none),
        (
            "busy_with_owners",
            report.owned_permille as f64 / 10.0,
            "%",
            none,
        ),
        ("busy", report.busy_permille as f64 / 10.0, "%", none),
        ("jumps", report.jumps as f64, "jumps", none),
        ("shortages", report.shortages as f64, "shortages", none),
        ("late_shortages", report.late as f64, "shortages", Some(0)),
        (
            "longest_shortage",
            report.longest_ms as f64,
            "ms",
            Some(day::REACTION_MS),
        ),
        ("short", report.short_ppm as f64, "ppm", none),
        ("evictions", report.evictions as f64, "tasks", none),
        (
            "lost_to_evictions",
            report.lost_ppm as f64,
            "ppm",
            Some(day::MAX_LOST_PPM),
        ),
    ];
    for (metric, value, unit, at_most) in rows {
        let bar = at_most.map_or_else(String::new, |at_most| {
            format!(r#","bar":{{"at_most":{at_most}.0}}"#)
        });
        println!(
            r#"{{"case":"{case}","metric":"{metric}","value":{value:.3},"unit":"{unit}"{bar}}}"#
        );
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
