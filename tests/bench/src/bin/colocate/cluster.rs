//! A master and an agent with a production service and, at times, a revocable batch, by the programs that ship.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use ebb_agent::cgroup::{Controller, Mounts};
use ebb_tests_bench::{Daemon, Running, process};
use serde::Deserialize;

use crate::batch::Work;
use crate::service::Service;

/// A benchmark has no five minutes to get to know its service, and asks for little: what is lent is no bottleneck.
const SETTINGS: &str = "[lending]\nwarm_up = \"3s\"\nhold = \"2s\"\ncool_down = \"100ms\"\ngrowth_permille_per_s = 1000\n";
/// What each revocable task is allocated: its weight, and what must be lent for it.
const TASK_CPUS: &str = "0.02";
const TASK_MEM: &str = "128MiB";
/// Longest wait for anything that must happen.
const PATIENCE: Duration = Duration::from_secs(30);
/// Between two looks at something that is awaited.
const LOOK: Duration = Duration::from_millis(10);

/// A decision of the agent's QoS controller.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
pub struct Correction {
    /// When, in milliseconds since 1970.
    pub at_ms: u64,
    /// Of which container.
    pub container_id: String,
    /// What was done.
    pub action: String,
    /// Why.
    pub signal: String,
}

#[derive(Clone, Debug, Deserialize)]
struct Task {
    state: String,
    revocable: bool,
    used_cpu_milli: Option<u64>,
}

#[derive(Clone, Debug, Default, Deserialize)]
struct View {
    tasks: Vec<Task>,
    corrections: Vec<Correction>,
}

#[derive(Default)]
struct Seen {
    latest: View,
    corrections: BTreeSet<Correction>,
}

/// A running cluster. Dropping it ends it: frameworks, then the agent with its tasks, then the master.
pub struct Cluster {
    seen: Arc<Mutex<Seen>>,
    top: Running,
    service: Running,
    agent: Daemon,
    master: Daemon,
    folder: PathBuf,
    base: String,
    _sweeper: Sweeper,
    /// Where the service listens.
    pub port: u16,
}

fn lock(seen: &Mutex<Seen>) -> MutexGuard<'_, Seen> {
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Cluster {
    /// Starts everything but the batch; the service owns all CPUs.
    ///
    /// # Errors
    /// When something does not start; the agent needs root.
    pub fn start(folder: &Path, service: Service, cpus: usize) -> Result<Self> {
        let path = |name: &str| folder.join(name).to_string_lossy().into_owned();
        let base = format!("ebb-colocate-{}", std::process::id());
        let (data, work, settings) = (path("master"), path("agent"), path("agent.toml"));
        fs::write(&settings, SETTINGS)?;
        // Before the agent, and so dropped after it, however this ends.
        let sweeper = Sweeper(base.clone());
        let master = Daemon::start(
            "ebb-master",
            &["--listen", "127.0.0.1:0", "--data-dir", &data],
        )?;
        let address = master.address().to_string();
        let all = cpus.to_string();
        let agent = Daemon::start(
            "ebb-agent",
            &[
                &["--master", &address, "--listen", "127.0.0.1:0"][..],
                &["--work-dir", &work, "--cgroup-base", &base],
                &["--config", &settings, "--cpus", &all, "--mem", "4GiB"],
                &["--disk", "4GiB", "--disk-bandwidth", "1GiB/s"],
                &["--kill-tasks-on-shutdown"],
            ]
            .concat(),
        )?;
        let seen = Arc::new(Mutex::new(Seen::default()));
        let top = watch(folder, &address, &seen)?;
        let port = free_port()?;
        let line = service.prepare(folder, port)?;
        let arguments = ["service", "--master", &address, "-n", "1", "--cpus", &all];
        let command = ["--mem", "256MiB", "--", "sh", "-c", &line];
        let service_log = folder.join("service.log");
        let running = Running::ebb(
            "ebb service",
            &service_log,
            Stdio::null(),
            &[&arguments[..], &command].concat(),
        )?;
        let cluster = Self {
            seen,
            top,
            service: running,
            agent,
            master,
            folder: folder.to_owned(),
            _sweeper: sweeper,
            base,
            port,
        };
        let mut stream = cluster.connect()?;
        service.fill(&mut stream)?;
        Ok(cluster)
    }

    fn connect(&self) -> Result<TcpStream> {
        let until = Instant::now() + PATIENCE;
        loop {
            match TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)) {
                Ok(stream) => return Ok(stream),
                Err(_) if Instant::now() < until => std::thread::sleep(LOOK),
                Err(error) => {
                    let log = fs::read_to_string(self.folder.join("service.log"));
                    let log = log.unwrap_or_default();
                    return Err(error).with_context(|| {
                        format!("the service does not come up: {log}\n{}", self.agent.log())
                    });
                }
            }
        }
    }

    /// The root of the cgroups of tasks, and of revocable ones.
    pub fn bases(&self) -> (String, String) {
        (self.base.clone(), format!("{}-revocable", self.base))
    }

    /// CPU time of agent and master, in nanoseconds.
    ///
    /// # Errors
    /// When one has ended.
    pub fn daemons_ns(&self) -> Result<f64> {
        let agent_ns = process::cpu_ns(self.agent.pid())?;
        Ok((agent_ns + process::cpu_ns(self.master.pid())?) as f64)
    }

    /// Starts the batch on revocable offers and waits until every task has been seen running.
    ///
    /// # Errors
    /// When they do not all run.
    pub fn start_batch(&self, work: &Work) -> Result<RevocableBatch> {
        work.clear()?;
        let lines = work.lines();
        let list = self.folder.join("commands");
        fs::write(&list, lines.join("\n") + "\n")?;
        let (address, list) = (
            self.master.address().to_string(),
            list.display().to_string(),
        );
        let count = lines.len().to_string();
        let program = Running::ebb(
            "ebb batch",
            &self.folder.join("batch.log"),
            Stdio::null(),
            &[
                &["batch", "--master", &address, "--revocable", "-n", &count][..],
                &["--cpus", TASK_CPUS, "--mem", TASK_MEM, &list],
            ]
            .concat(),
        )?;
        let batch = RevocableBatch {
            program: Some(program),
            seen: Arc::clone(&self.seen),
        };
        let until = Instant::now() + PATIENCE;
        while batch.running() < lines.len() {
            if Instant::now() >= until {
                let log = fs::read_to_string(self.folder.join("batch.log")).unwrap_or_default();
                let running = batch.running();
                bail!(
                    "{running} of {count} revocable tasks run after {} s: {log}\n{}",
                    PATIENCE.as_secs(),
                    self.agent.log()
                );
            }
            std::thread::sleep(LOOK);
        }
        Ok(batch)
    }

    /// Ends everything.
    ///
    /// # Errors
    /// When a daemon does not end with success.
    pub fn stop(self) -> Result<()> {
        drop((self.top, self.service));
        self.agent.stop()?;
        self.master.stop()
    }

    /// The corrections since a point in time, in order.
    pub fn corrections_since(&self, at_ms: u64) -> Vec<Correction> {
        let seen = lock(&self.seen);
        let late = seen.corrections.iter().filter(|one| one.at_ms >= at_ms);
        late.cloned().collect()
    }

    /// Waits until the agent lends: it knows its service by then.
    ///
    /// # Errors
    /// When the service's use is not known in time.
    pub fn wait_measured(&self) -> Result<()> {
        let until = Instant::now() + PATIENCE;
        loop {
            let measured = lock(&self.seen)
                .latest
                .tasks
                .iter()
                .any(|task| task.used_cpu_milli.is_some());
            if measured {
                return Ok(());
            }
            ensure!(
                Instant::now() < until,
                "the agent does not measure its service"
            );
            std::thread::sleep(LOOK);
        }
    }
}

/// A batch on revocable offers. Dropping it ends it.
pub struct RevocableBatch {
    program: Option<Running>,
    seen: Arc<Mutex<Seen>>,
}

impl RevocableBatch {
    /// Ends it and waits until no task of it is left.
    ///
    /// # Errors
    /// When one is.
    pub fn end(mut self) -> Result<()> {
        drop(self.program.take());
        let until = Instant::now() + PATIENCE;
        while self.running() > 0 {
            ensure!(
                Instant::now() < until,
                "{} revocable tasks outlive their framework",
                self.running()
            );
            std::thread::sleep(LOOK);
        }
        Ok(())
    }

    fn running(&self) -> usize {
        let seen = lock(&self.seen);
        let tasks = seen.latest.tasks.iter();
        tasks
            .filter(|task| task.revocable && task.state == "TASK_RUNNING")
            .count()
    }
}

fn watch(folder: &Path, master: &str, seen: &Arc<Mutex<Seen>>) -> Result<Running> {
    let mut top = Running::ebb(
        "ebb top",
        &folder.join("top.log"),
        Stdio::piped(),
        &["top", "--json", "--interval", "100ms", "--master", master],
    )?;
    let stdout = top
        .child()
        .stdout
        .take()
        .context("`ebb top` has no output")?;
    let theirs = Arc::clone(seen);
    std::thread::spawn(move || {
        for line in BufReader::new(stdout).lines().map_while(Result::ok) {
            if let Ok(view) = serde_json::from_str::<View>(&line) {
                let mut seen = lock(&theirs);
                seen.corrections.extend(view.corrections.iter().cloned());
                seen.latest = view;
            }
        }
    });
    Ok(top)
}

/// Removes what an agent that had to be killed has left of its cgroups: below its own two roots only.
fn sweep(base: &str) {
    let Ok(mounts) = Mounts::detect() else { return };
    let v1 = Controller::ALL.into_iter().filter_map(|one| mounts.v1(one));
    for mount in v1.chain(mounts.v2()) {
        for root in [base.to_owned(), format!("{base}-revocable")] {
            let root = mount.join(root);
            // Only v2 has that file, and only of what still runs does it take more than a moment.
            let _ = fs::write(root.join("cgroup.kill"), "1");
            let until = Instant::now() + PATIENCE;
            while root.exists() && !remove_below(&root) && Instant::now() < until {
                std::thread::sleep(LOOK);
            }
            if root.exists() {
                eprintln!("{} is left", root.display());
            }
        }
    }
}

/// Removes a directory of cgroups, the deepest first; whether it is gone.
fn remove_below(dir: &Path) -> bool {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    for entry in entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
        remove_below(&entry.path());
    }
    fs::remove_dir(dir).is_ok()
}

/// Removes the cgroups when everything that was in them has ended.
struct Sweeper(String);

impl Drop for Sweeper {
    fn drop(&mut self) {
        sweep(&self.0);
    }
}

fn free_port() -> Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("no port is free")?;
    Ok(listener.local_addr()?.port())
}
