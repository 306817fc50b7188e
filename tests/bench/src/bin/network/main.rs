//! An owner's requests over a network that revocable work fills, and how fast the owner has its bandwidth when it wants it.
//!
//! A real master and agent, and a link of 50 MB/s into a network namespace. The owner is a task that has 40 MB/s of it and
//! sends a request of 1 KiB every 2 ms. In each round its latency is measured **alone**; beside streams of a revocable task
//! that was allocated none of the network and takes all that it is left (**ebb**); and beside the same streams as a program
//! that nothing holds back (**floor**). Then the owner **steps** from nothing to all that it has, beside the revocable
//! streams. Needs root, as the agent does.
//!
//! `network [--rounds N] [--steps N]`

mod link;
mod tasks;

use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::PoisonError;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use ebb_tests_bench::{Daemon, Running, at_least, at_most, figure, monotonic_ns, quantile};

use link::{CARRIES, Link};
use tasks::{Order, Owner, Told};

/// A benchmark has no five minutes to get to know its owner.
const SETTINGS: &str = "[lending]\nwarm_up = \"3s\"\nhold = \"2s\"\ncool_down = \"100ms\"\ngrowth_permille_per_s = 1000\n";
const AGENT_HAS: &str = "50MB/s";
const OWNER_HAS: &str = "40MB/s";
const OWNER_BYTES_PER_S: u64 = 40_000_000;
/// So long latencies are taken.
const LOOK_S: f64 = 6.0;
/// So long streams have been there by then.
const SETTLE: Duration = Duration::from_secs(3);
/// So long a step lasts, and so long it is quiet before the next: limits are widened again.
const STEP_S: f64 = 3.0;
const QUIET: Duration = Duration::from_secs(15);
/// The owner has what it asks for when it had so much of it in so long.
const HAS_PERMILLE: u64 = 850;
const SPAN_NS: u64 = 100_000_000;

struct Options {
    rounds: usize,
    steps: usize,
}

impl Options {
    fn parse(words: &[String]) -> Result<Self> {
        let mut options = Self {
            rounds: 4,
            steps: 6,
        };
        for pair in words.chunks(2) {
            let [name, value] = pair else {
                bail!("{:?} takes a value", pair[0]);
            };
            match name.as_str() {
                "--rounds" => options.rounds = value.parse().context("--rounds")?,
                "--steps" => options.steps = value.parse().context("--steps")?,
                _ => bail!("{name:?} is no option"),
            }
        }
        Ok(options)
    }
}

fn main() -> Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    match &words[..] {
        [kind, control, link] if kind == "own" => tasks::own(control.parse()?, link.parse()?),
        [kind, link] if kind == "flood" => tasks::flood(link.parse()?),
        _ => measure(&Options::parse(&words)?),
    }
}

/// A cluster with its owner.
struct Stand<'a> {
    folder: &'a Path,
    own_exe: String,
    link: Link,
    owner: Owner,
    // The frameworks end first, then the agent, and its tasks with it.
    running: Running,
    agent: Daemon,
    master: Daemon,
}

impl<'a> Stand<'a> {
    fn start(folder: &'a Path) -> Result<Self> {
        let own_exe = std::env::current_exe()?.display().to_string();
        let link = Link::new()?;
        let path = |name: &str| folder.join(name).display().to_string();
        let (data, work, settings) = (path("master"), path("agent"), path("agent.toml"));
        fs::write(&settings, SETTINGS)?;
        let master = Daemon::start(
            "ebb-master",
            &["--listen", "127.0.0.1:0", "--data-dir", &data],
        )?;
        let address = master.address().to_string();
        let base = format!("ebb-network-{}", std::process::id());
        let agent = Daemon::start(
            "ebb-agent",
            &[
                &["--master", &address, "--listen", "127.0.0.1:0"][..],
                &["--work-dir", &work, "--cgroup-base", &base],
                &["--config", &settings, "--cpus", "1", "--mem", "1GiB"],
                &["--disk", "1GiB", "--disk-bandwidth", "1GiB/s"],
                &["--network-bandwidth", AGENT_HAS],
                &["--kill-tasks-on-shutdown"],
            ]
            .concat(),
        )?;
        let control = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let (told, ends) = (
            control.local_addr()?.to_string(),
            link.address().to_string(),
        );
        let running = Running::ebb(
            "the owner",
            &folder.join("owner.log"),
            Stdio::null(),
            &[
                &[
                    "run", "--master", &address, "--cpus", "1", "--mem", "128MiB",
                ][..],
                &["--network-bandwidth", OWNER_HAS, "--", &own_exe, "own"],
                &[&told, &ends],
            ]
            .concat(),
        )?;
        Ok(Self {
            folder,
            own_exe,
            link,
            owner: Owner::meet(&control)?,
            running,
            agent,
            master,
        })
    }

    /// Starts the streams on revocable offers.
    fn lend(&self) -> Result<Running> {
        let (master, ends) = (
            self.master.address().to_string(),
            self.link.address().to_string(),
        );
        Running::ebb(
            "the revocable streams",
            &self.folder.join("flood.log"),
            Stdio::null(),
            &[
                &["run", "--master", &master, "--revocable", "--cpus", "0.2"][..],
                &["--mem", "64MiB", "--", &self.own_exe, "flood", &ends],
            ]
            .concat(),
        )
    }

    /// Starts the same streams where nothing holds them back.
    fn let_loose(&self) -> Result<Running> {
        let child = Command::new(&self.own_exe)
            .args(["flood", &self.link.address().to_string()])
            .stdin(Stdio::null())
            .spawn()?;
        Ok(Running::new("the streams", child))
    }

    /// Waits until streams fill half of the network, and a while more.
    fn settle(&self) -> Result<()> {
        let until = Instant::now() + Duration::from_secs(60);
        loop {
            let before = self.link.sent()?;
            std::thread::sleep(Duration::from_secs(1));
            if self.link.sent()? - before > CARRIES / 2 {
                break;
            }
            if Instant::now() > until {
                let log = fs::read_to_string(self.folder.join("flood.log")).unwrap_or_default();
                bail!(
                    "the streams do not fill the network: {log}\n{}",
                    self.agent.log()
                );
            }
        }
        std::thread::sleep(SETTLE);
        Ok(())
    }

    /// The owner's latencies, and how much of the network was used meanwhile, in per cent.
    fn look(&mut self) -> Result<(Vec<f64>, f64)> {
        let (before, since) = (self.link.sent()?, Instant::now());
        let Told { latencies_us } = self.owner.order(&Order::Ask(LOOK_S))?;
        let bytes = self.link.sent()? - before;
        let used = bytes as f64 / since.elapsed().as_secs_f64() / CARRIES as f64;
        Ok((latencies_us, used * 100.0))
    }

    /// How long it takes until the owner has what it asks for, in milliseconds.
    fn step(&mut self) -> Result<f64> {
        let arrivals = std::sync::Arc::clone(&self.link.arrivals);
        let locked = || arrivals.lock().unwrap_or_else(PoisonError::into_inner);
        locked().clear();
        let begin_ns = monotonic_ns();
        self.owner.order(&Order::Stream(STEP_S))?;
        let came = locked().clone();
        let wanted = OWNER_BYTES_PER_S * HAS_PERMILLE / 1_000 * SPAN_NS / 1_000_000_000;
        let (mut from, mut sum) = (0, 0);
        for (at_ns, bytes) in &came {
            sum += bytes;
            while at_ns - came[from].0 > SPAN_NS {
                sum -= came[from].1;
                from += 1;
            }
            // Not before a whole span has passed: what came at once must last.
            if sum as u64 >= wanted && at_ns - begin_ns > SPAN_NS {
                return Ok((at_ns - begin_ns) as f64 / 1e6);
            }
        }
        Ok(STEP_S * 1e3)
    }

    fn stop(self) -> Result<()> {
        drop((self.owner, self.running));
        self.agent.stop()?;
        self.master.stop()
    }
}

#[derive(Default)]
struct Phase {
    latencies_us: Vec<f64>,
    used_percent: Vec<f64>,
}

impl Phase {
    fn add(&mut self, (latencies_us, used_percent): (Vec<f64>, f64)) {
        self.latencies_us.extend(latencies_us);
        self.used_percent.push(used_percent);
    }

    fn print(&mut self, case: &str) -> f64 {
        let p99 = quantile(&mut self.latencies_us, 0.99);
        let p50 = quantile(&mut self.latencies_us, 0.5);
        figure(case, "latency_p50", p50, "us");
        figure(case, "latency_p99", p99, "us");
        let used = quantile(&mut self.used_percent, 0.5);
        match case {
            "ebb" => at_least(case, "network_used", used, "%", 80.0),
            _ => figure(case, "network_used", used, "%"),
        }
        p99
    }
}

fn measure(options: &Options) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut stand = Stand::start(folder.path())?;
    let (mut alone, mut ebb, mut floor) = (Phase::default(), Phase::default(), Phase::default());
    for _ in 0..options.rounds {
        alone.add(stand.look()?);
        let streams = stand.lend()?;
        stand.settle()?;
        ebb.add(stand.look()?);
        drop(streams);
        let streams = stand.let_loose()?;
        stand.settle()?;
        floor.add(stand.look()?);
        drop(streams);
    }
    let p99_alone = alone.print("alone");
    let p99_ebb = ebb.print("ebb");
    let p99_floor = floor.print("floor");
    let ratio = |of: f64| of / p99_alone.max(1.0);
    at_most(
        "ebb over alone",
        "latency_p99",
        ratio(p99_ebb),
        "ratio",
        3.0,
    );
    figure("floor over alone", "latency_p99", ratio(p99_floor), "ratio");
    if options.steps > 0 {
        let streams = stand.lend()?;
        stand.settle()?;
        let mut steps = Vec::new();
        for _ in 0..options.steps {
            steps.push(stand.step()?);
            std::thread::sleep(QUIET);
        }
        drop(streams);
        at_most(
            "step",
            "owner_has_it_median",
            quantile(&mut steps, 0.5),
            "ms",
            1_000.0,
        );
        figure("step", "owner_has_it_max", quantile(&mut steps, 1.0), "ms");
    }
    stand.stop()
}
