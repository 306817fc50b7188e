//! The demo: what Ebb is for, on one machine, in about a minute after the build.
//!
//! A master and two agents; on each agent a production service under load, which owns the agent's
//! whole CPU and uses little of it; a batch that runs on nothing but what they leave idle. Then the
//! load of one service rises, and what was lent is pushed back. The exit status is 0 only if all of
//! it was seen to happen, and nothing is left behind, after Ctrl-C neither.

mod children;
mod inputs;
mod leftovers;
mod load;
mod service;
mod summary;
mod view;

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail, ensure};

use crate::shell::{cargo, root, run as run_command};
use crate::{ebpf, setup};
use children::{Children, free_port};
use load::Load;
use service::Protocol;
use summary::Seen;
use view::Watcher;

/// Files that the batch compresses.
const INPUTS: usize = 72;
/// Longest wait for anything that must happen.
const PATIENCE: Duration = Duration::from_secs(120);
/// How long the services are watched alone, with the batch, and under load.
const PHASE: Duration = Duration::from_secs(12);
/// Between two looks at something that is awaited.
const LOOK: Duration = Duration::from_millis(100);

/// How to run the demo.
#[derive(clap::Args)]
pub struct Options {
    /// Leave the cluster up at the end and print where to look
    #[arg(long)]
    keep: bool,
}

struct Demo {
    folder: PathBuf,
    base: String,
    master: String,
    children: Children,
    interrupted: Arc<AtomicBool>,
}

/// Runs the demo.
///
/// # Errors
/// When something did not happen that should have, or something is left behind.
pub fn run(options: &Options) -> Result<()> {
    ensure!(
        is_root()?,
        "the demo makes cgroups and loads eBPF programs; run it as root, e.g. with sudo"
    );
    setup::setup()?;
    ebpf::build_ebpf()?;
    run_command(&mut cargo(&["build", "--release", "--bin", "ebb"]))?;
    let number = std::process::id();
    let folder = std::env::temp_dir().join(format!("ebb-demo-{number}"));
    fs::create_dir(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let interrupted = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&interrupted);
    ctrlc::set_handler(move || flag.store(true, Ordering::Relaxed))
        .context("cannot listen to Ctrl-C")?;
    let mut demo = Demo {
        base: format!("ebb-demo-{number}"),
        master: format!("127.0.0.1:{}", free_port()?),
        children: Children::new(&folder),
        folder,
        interrupted,
    };
    let outcome = demo.play();
    if options.keep && outcome.is_ok() {
        println!(
            "\nThe cluster stays up: try `{} top --master {}`",
            ebb().display(),
            demo.master
        );
        println!(
            "Its files and logs are in {}; end it with `kill {}`",
            demo.folder.display(),
            demo.children.pids()
        );
        return Ok(());
    }
    let ended = demo.children.end();
    let clean = ended.and_then(|()| leftovers::check(&demo.base, &demo.folder));
    match (&outcome, &clean) {
        (Ok(()), Ok(())) => {
            fs::remove_dir_all(&demo.folder)
                .with_context(|| format!("cannot remove {}", demo.folder.display()))?;
            println!("Nothing is left behind: no cgroup, no mount, no process, no file.");
        }
        // After Ctrl-C nobody will look at the logs.
        (Err(_), Ok(())) if demo.interrupted.load(Ordering::Relaxed) => {
            fs::remove_dir_all(&demo.folder)
                .with_context(|| format!("cannot remove {}", demo.folder.display()))?;
        }
        _ => eprintln!("The logs are kept in {}.", demo.folder.display()),
    }
    outcome.and(clean)
}

fn is_root() -> Result<bool> {
    let status =
        fs::read_to_string("/proc/self/status").context("cannot read /proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("Uid:"));
    Ok(line.and_then(|line| line.split_whitespace().nth(1)) == Some("0"))
}

fn ebb() -> PathBuf {
    let target =
        std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from);
    target.join("release/ebb")
}

/// Milliseconds since 1970, as corrections are dated.
fn now_ms() -> u64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

impl Demo {
    fn play(&mut self) -> Result<()> {
        let cpus = std::thread::available_parallelism()?.get();
        let half = format!(
            "{}.{}",
            cpus / 2,
            if cpus.is_multiple_of(2) { "0" } else { "5" }
        );
        println!("\n== A master and two agents, each with {half} CPUs of this machine");
        self.start_cluster(&half)?;
        let mut watcher = Watcher::start(&ebb(), &self.master)?;
        self.wait_for("both agents", || {
            watcher.latest().is_some_and(|view| view.agents.len() == 2)
        })?;

        let protocol = Protocol::detect();
        println!(
            "== A production service on each ({}), which owns all of it and needs little",
            protocol.name()
        );
        let ports = [
            self.start_service(protocol, &half)?,
            self.start_service(protocol, &half)?,
        ];
        let (low, high) = protocol.rates();
        let loads = ports.map(|port| Load::start(port, protocol, low));
        self.wait_for("both services", || {
            watcher
                .latest()
                .is_some_and(|view| view.measured_tasks() >= 2)
        })?;
        self.watch_for(PHASE, &watcher)?;
        let mut seen = Seen::on(cpus);
        seen.alone(&watcher, loads[0].take_latencies_us());

        let inputs = inputs::find(INPUTS)?;
        println!(
            "== A batch that runs on nothing but what they leave idle: {} files, {} MB, to compress and checksum",
            inputs.len(),
            inputs::total_bytes(&inputs)? / 1_000_000
        );
        self.wait_for("something to be lent", || {
            watcher.latest().is_some_and(|view| view.lent_milli() > 0)
        })?;
        let output = self.start_batch(&inputs)?;
        watcher.reset();
        loads[0].take_latencies_us();
        self.wait_for("revocable tasks", || watcher.seen_revocable() > 0)?;
        self.watch_for(PHASE, &watcher)?;
        seen.with_batch(&watcher, loads[0].take_latencies_us());

        println!("== The load of the first service rises from {low} to {high} requests a second");
        watcher.reset();
        let rise_ms = now_ms();
        loads[0].set_rate(high);
        self.watch_for(PHASE, &watcher)?;
        seen.risen(&watcher, rise_ms, loads[0].take_latencies_us());
        loads[0].set_rate(low);

        println!("== The load falls again; the batch runs to its end");
        self.wait_for_batch(&watcher)?;
        let report = self.children.output("batch")?;
        seen.batch_ended(&report)?;
        inputs::verify(&inputs, &output)?;
        println!("== All {} results unpack to their inputs", inputs.len());
        for load in loads {
            load.stop()?;
        }
        seen.conclude()
    }

    fn start_cluster(&mut self, cpus: &str) -> Result<()> {
        let data = self.folder.join("master");
        let data = data.display().to_string();
        let master = self.master.clone();
        self.children.start(
            ebb(),
            "master",
            &["master", "--listen", &master, "--data-dir", &data],
        )?;
        let settings = self.folder.join("agent.toml");
        // A demo has no five minutes to get to know its services.
        fs::write(
            &settings,
            "[lending]\nwarm_up = \"5s\"\nhold = \"2s\"\ncool_down = \"3s\"\n",
        )?;
        let settings = settings.display().to_string();
        for name in ["agent-a", "agent-b"] {
            let work = self.folder.join(name).display().to_string();
            let listen = format!("127.0.0.1:{}", free_port()?);
            let arguments = [
                "agent",
                "--master",
                &master,
                "--config",
                &settings,
                "--work-dir",
                &work,
                "--listen",
                &listen,
                "--hostname",
                "127.0.0.1",
                "--cpus",
                cpus,
                "--mem",
                "2GiB",
                "--disk",
                "8GiB",
                "--disk-bandwidth",
                "100MiB/s",
                "--cgroup-base",
                &self.base.clone(),
                "--kill-tasks-on-shutdown",
            ];
            self.children.start(ebb(), name, &arguments)?;
        }
        Ok(())
    }

    fn start_service(&mut self, protocol: Protocol, cpus: &str) -> Result<u16> {
        let port = free_port()?;
        let pages = self.folder.join("pages");
        fs::create_dir_all(&pages)?;
        if protocol == Protocol::Http {
            protocol.fill(port, &pages)?;
        }
        let line = protocol.command_line(port, &pages);
        let name = format!("service-{port}");
        let arguments = [
            "service",
            "--master",
            &self.master.clone(),
            "--name",
            &name,
            "-n",
            "1",
            "--cpus",
            cpus,
            "--mem",
            "256MiB",
            "--",
            "sh",
            "-c",
            &line,
        ];
        self.children.start(ebb(), &name, &arguments)?;
        self.wait_for("a service to answer", || load::connect(port).is_ok())?;
        if protocol == Protocol::Redis {
            protocol.fill(port, &pages)?;
        }
        Ok(port)
    }

    fn start_batch(&mut self, inputs: &[PathBuf]) -> Result<PathBuf> {
        let output = self.folder.join("output");
        fs::create_dir(&output)?;
        let commands: Vec<String> = inputs
            .iter()
            .enumerate()
            .map(|(number, input)| inputs::command_line(number, input, &output))
            .collect();
        let list = self.folder.join("commands");
        fs::write(&list, commands.join("\n") + "\n")?;
        let list = list.display().to_string();
        let arguments = [
            "batch",
            "--master",
            &self.master.clone(),
            "--json",
            "--revocable",
            "--cpus",
            "0.2",
            "--mem",
            "32MiB",
            "-n",
            "12",
            &list,
        ];
        self.children.start(ebb(), "batch", &arguments)?;
        Ok(output)
    }

    fn wait_for_batch(&mut self, watcher: &Watcher) -> Result<()> {
        let start = Instant::now();
        while !self.children.has_ended("batch")? {
            ensure!(
                start.elapsed() < PATIENCE,
                "the batch has not ended after {} s",
                PATIENCE.as_secs()
            );
            self.watch_for(Duration::from_secs(1), watcher)?;
        }
        Ok(())
    }

    /// Lets time pass while the live view is shown.
    fn watch_for(&mut self, time: Duration, watcher: &Watcher) -> Result<()> {
        let end = Instant::now() + time;
        while Instant::now() < end {
            self.look()?;
            watcher.show();
        }
        Ok(())
    }

    fn wait_for(&mut self, what: &str, happened: impl Fn() -> bool) -> Result<()> {
        let start = Instant::now();
        while !happened() {
            ensure!(
                start.elapsed() < PATIENCE,
                "waited {} s for {what} in vain",
                PATIENCE.as_secs()
            );
            self.look()?;
        }
        Ok(())
    }

    fn look(&mut self) -> Result<()> {
        if self.interrupted.load(Ordering::Relaxed) {
            bail!("interrupted");
        }
        self.children.check()?;
        std::thread::sleep(LOOK);
        Ok(())
    }
}
