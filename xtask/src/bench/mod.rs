//! Benchmarks: each is a program that alternates subject and yardstick and prints its rows as JSON;
//! here they are built, run, put against their bars, shown and kept.

mod table;

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};

use crate::shell::{self, cargo, command, read, root, run_read};
use crate::{ebpf, setup};

/// What to measure.
#[derive(clap::Args)]
pub struct Options {
    /// Which benchmark; without one they are listed
    name: Option<String>,
    /// Print the JSON instead of the table
    #[arg(long)]
    json: bool,
    /// The directory with the traces that `lending` replays
    #[arg(long)]
    traces: Option<PathBuf>,
    /// Figures of another implementation that `lending` compares with
    #[arg(long)]
    golden: Option<PathBuf>,
    /// Rounds of `colocate` (default 4)
    #[arg(long, value_name = "N")]
    rounds: Option<u32>,
    /// Steps of the load of `colocate` (default 50)
    #[arg(long, value_name = "N")]
    steps: Option<u32>,
    /// The service of `colocate`: redis (the default) or nginx
    #[arg(long)]
    service: Option<String>,
}

struct Bench {
    name: &'static str,
    about: &'static str,
    run: Run,
    /// Programs that it starts, each with the Debian package that brings it.
    needs: &'static [(&'static str, &'static str)],
}

/// How a benchmark is built and started.
enum Run {
    /// Cargo does both, with a benchmark of the master of the same name.
    OfMaster,
    /// Cargo does both, as these arguments say.
    Cargo(&'static [&'static str]),
    /// Built together with the daemons, which it starts as it finds them beside itself.
    Program,
    /// The same, with an object of probes to measure Ebb's beside as its argument.
    BesideProbes,
    /// Built together with the daemons and the command line, and told how long to run.
    Colocate,
    /// Cargo does both; the traces are given.
    Replay,
}

const BENCHES: &[Bench] = &[
    Bench {
        name: "allocate",
        about: "an allocation round beside a round over plain arrays",
        run: Run::OfMaster,
        needs: &[],
    },
    Bench {
        name: "quota",
        about: "3,000 agents handed out to 3,000 roles by their quotas; what is looked at where nothing has changed",
        run: Run::OfMaster,
        needs: &[],
    },
    Bench {
        name: "instructions",
        about: "instructions from a decline, or a task's end, to the next offer",
        run: Run::OfMaster,
        needs: &[("valgrind", "valgrind")],
    },
    Bench {
        name: "workers",
        about: "the round with several threads beside the round with one; lost exchanges",
        run: Run::OfMaster,
        needs: &[],
    },
    Bench {
        name: "memory",
        about: "a master's memory for an agent, and for a task that runs",
        run: Run::OfMaster,
        needs: &[],
    },
    Bench {
        name: "scale",
        about: "a million tasks through the core, with 50,000 agents and 6,000 frameworks in one simulation",
        run: Run::Cargo(&[
            "run",
            "--quiet",
            "--release",
            "--package",
            "ebb-tests-sim",
            "--",
            "--scale",
        ]),
        needs: &[],
    },
    Bench {
        name: "stress",
        about: "ten million transitions of the ledger by 8 worker threads and a driver that changes everything",
        run: Run::Cargo(&[
            "test",
            "--quiet",
            "--package",
            "ebb-master",
            "--lib",
            "--config",
            "env.EBB_STRESS_TRANSITIONS='10000000'",
            "--",
            "--nocapture",
            "allocator::tests::stress",
        ]),
        needs: &[],
    },
    Bench {
        name: "readers",
        about: "allocation rounds while fifty threads read the whole state, beside rounds while none does",
        run: Run::OfMaster,
        needs: &[],
    },
    Bench {
        name: "submit",
        about: "tasks a second through the master and their latency at a pace, with simulated agents over loopback",
        run: Run::Program,
        needs: &[],
    },
    Bench {
        name: "wire",
        about: "a decline to the next offer of that agent on the wire, with 50,000 simulated agents",
        run: Run::Program,
        needs: &[],
    },
    Bench {
        name: "launch",
        about: "accept to first instruction of a real task, beside fork and exec, and runc; idle daemons",
        run: Run::Program,
        needs: &[],
    },
    Bench {
        name: "probe-cost",
        about: "the probes' time a switch, beside a run-queue monitor; what they cost the work itself",
        run: Run::BesideProbes,
        needs: &[],
    },
    Bench {
        name: "sample",
        about: "CPU time of a reading of 1000 containers, beside a reader of their cgroup files",
        run: Run::Program,
        needs: &[],
    },
    Bench {
        name: "idle",
        about: "CPU and memory of an agent with 100 containers that do nothing",
        run: Run::Program,
        needs: &[],
    },
    Bench {
        name: "estimator",
        about: "the estimator's time for a task and a sample, and that of all of lending",
        run: Run::Program,
        needs: &[],
    },
    Bench {
        name: "colocate",
        about: "a service beside revocable work: its latency, what the machine yields, and steps of the load",
        run: Run::Colocate,
        needs: &[
            ("redis-server", "redis-server"),
            ("nginx", "nginx-light"),
            ("stress-ng", "stress-ng"),
            ("chrt", "util-linux"),
        ],
    },
    Bench {
        name: "network",
        about: "an owner's requests over a network that revocable work fills, and how fast it has its bandwidth",
        run: Run::Colocate,
        needs: &[("ip", "iproute2"), ("tc", "iproute2")],
    },
    Bench {
        name: "lending",
        about: "what may be lent of real machines, and how often that is wrong, by Ebb's rule and by the others; needs --traces",
        run: Run::Replay,
        needs: &[],
    },
];

/// What builds and starts [`Run::OfMaster`], and lacks the name.
const OF_MASTER: &[&str] = &["bench", "--quiet", "--package", "ebb-master", "--bench"];

/// What builds and starts [`Run::Replay`], and lacks the traces.
const REPLAY: &[&str] = &[
    "run",
    "--quiet",
    "--release",
    "--package",
    "ebb-tests-lending",
    "--",
    "--traces",
];

/// What [`Run::Program`] needs, in one build so that the daemons are those that ship.
const BUILD: &[&str] = &[
    "build",
    "--quiet",
    "--release",
    "--bins",
    "--package",
    "ebb-tests-bench",
    "--package",
    "ebb-master",
    "--package",
    "ebb-agent",
];

/// A bound that a row must keep.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Bar {
    AtMost(f64),
    AtLeast(f64),
}

/// One figure, as a benchmark prints it: a line of JSON.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Row {
    case: String,
    metric: String,
    value: f64,
    unit: String,
    #[serde(default)]
    bar: Option<Bar>,
    #[serde(default)]
    holds: Option<bool>,
}

impl Row {
    fn judged(mut self) -> Self {
        self.holds = self.bar.map(|bar| match bar {
            Bar::AtMost(most) => self.value <= most,
            Bar::AtLeast(least) => self.value >= least,
        });
        self
    }
}

#[derive(Serialize)]
struct Report<'a> {
    name: &'a str,
    commit: String,
    host: String,
    rows: &'a [Row],
}

/// Runs one benchmark, or lists them.
///
/// # Errors
/// When there is none of that name, it does not run, prints no row, or a bar does not hold.
pub fn run(options: &Options) -> Result<()> {
    let Some(name) = &options.name else {
        for bench in BENCHES {
            println!("{:12}  {}", bench.name, bench.about);
        }
        return Ok(());
    };
    let Some(bench) = BENCHES.iter().find(|bench| bench.name == name) else {
        let names: Vec<_> = BENCHES.iter().map(|bench| bench.name).collect();
        bail!(
            "there is no benchmark named {name:?}; there are {}",
            names.join(", ")
        );
    };
    setup::setup()?;
    ebpf::build_ebpf()?;
    setup::need(bench.needs)?;
    let rows = measure(bench, options)?;
    let report = Report {
        name: bench.name,
        commit: commit()?,
        host: host()?,
        rows: &rows,
    };
    let json = serde_json::to_string_pretty(&report)?;
    let folder = root().join("target/bench");
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let path = folder.join(format!("{name}.json"));
    fs::write(&path, &json).with_context(|| format!("cannot write {}", path.display()))?;
    if options.json {
        println!("{json}");
    } else {
        table::print(&rows);
    }
    let broken = rows.iter().filter(|row| row.holds == Some(false)).count();
    ensure!(
        broken == 0,
        "{broken} bars do not hold; {} has the figures",
        path.display()
    );
    Ok(())
}

fn measure(bench: &Bench, options: &Options) -> Result<Vec<Row>> {
    let mut program = match bench.run {
        Run::OfMaster => {
            let mut cargo = cargo(OF_MASTER);
            cargo.arg(bench.name);
            cargo
        }
        Run::Cargo(arguments) => cargo(arguments),
        Run::Program => program(bench.name)?,
        Run::BesideProbes => {
            let object = ebpf::build_bench_ebpf()?;
            let mut program = program(bench.name)?;
            program.arg(object);
            program
        }
        Run::Colocate => colocate(bench.name, options)?,
        Run::Replay => replay(options)?,
    };
    let (output, result) = run_read(&mut program);
    // Golden figures that are missed are rows with a bar too, so that the others are shown beside them.
    if !(matches!(bench.run, Run::Replay) && output.contains("golden figures")) {
        result?;
    }
    let lines = output.lines().filter(|line| line.starts_with('{'));
    let rows: Vec<Row> = lines
        .map(|line| {
            serde_json::from_str::<Row>(line).with_context(|| format!("{line:?} is no row"))
        })
        .collect::<Result<_>>()?;
    ensure!(
        !rows.is_empty(),
        "benchmark {} printed no row; a run that measures nothing is a failure",
        bench.name
    );
    Ok(rows.into_iter().map(Row::judged).collect())
}

/// What replays the traces that the options name.
fn replay(options: &Options) -> Result<Command> {
    let here = std::env::current_dir().context("cannot tell the current directory")?;
    let traces = options
        .traces
        .as_ref()
        .context("there are no traces to replay; name their directory with --traces DIR")?;
    let mut replay = cargo(REPLAY);
    replay.arg(here.join(traces));
    if let Some(golden) = &options.golden {
        replay.arg("--golden").arg(here.join(golden));
    }
    Ok(replay)
}

/// What runs the service beside the batch, for as long as the options say.
fn colocate(name: &str, options: &Options) -> Result<Command> {
    shell::run(cargo(BUILD).args(["--package", "ebb-cli"]))?;
    let mut program = command(target().join("release").join(name), &[]);
    let numbers = [("--rounds", options.rounds), ("--steps", options.steps)];
    for (option, number) in numbers {
        if let Some(number) = number {
            program.args([option, &number.to_string()]);
        }
    }
    if let Some(service) = &options.service {
        program.args(["--service", service]);
    }
    Ok(program)
}

/// Builds a benchmark's own program and the daemons.
fn program(name: &str) -> Result<Command> {
    shell::run(&mut cargo(BUILD))?;
    Ok(command(target().join("release").join(name), &[]))
}

/// Where cargo puts what it builds.
fn target() -> PathBuf {
    let chosen = std::env::var_os("CARGO_TARGET_DIR");
    root().join(chosen.map_or_else(|| PathBuf::from("target"), PathBuf::from))
}

fn commit() -> Result<String> {
    let commit = read(&mut command("git", &["rev-parse", "--short=12", "HEAD"]))?;
    let dirty = !read(&mut command("git", &["status", "--porcelain"]))?.is_empty();
    Ok(if dirty {
        format!("{commit} with changes")
    } else {
        commit
    })
}

fn host() -> Result<String> {
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease")
        .context("cannot read the kernel's release")?;
    let cpus = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    Ok(format!("Linux {} with {cpus} cpus", kernel.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_holds_up_to_and_with_its_bound() {
        let row = |bar| Row {
            case: String::new(),
            metric: String::new(),
            value: 2.0,
            unit: String::new(),
            bar,
            holds: None,
        };
        assert_eq!(row(Some(Bar::AtMost(2.0))).judged().holds, Some(true));
        assert_eq!(row(Some(Bar::AtLeast(2.1))).judged().holds, Some(false));
        assert_eq!(row(None).judged().holds, None);
    }
}
