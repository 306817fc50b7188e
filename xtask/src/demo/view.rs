//! What `ebb top --json` says, kept and shown.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, IsTerminal};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde::Deserialize;

/// How often the live view is printed where it cannot be drawn over.
const PRINT_EVERY: Duration = Duration::from_secs(4);

/// CPU of one agent, in thousandths of a core.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Cpu {
    total: u64,
    allocated: u64,
    used: Option<u64>,
    lent: u64,
    lent_used: Option<u64>,
    machine_used: Option<u64>,
}

#[derive(Clone, Debug, Deserialize)]
pub struct Agent {
    id: String,
    cpu_milli: Cpu,
    taken_back_cpu_milli: Option<u64>,
}

#[derive(Clone, Debug, Deserialize)]
struct Task {
    task_id: String,
    framework: String,
    agent_id: String,
    state: String,
    revocable: bool,
    allocated_cpu_milli: u64,
    used_cpu_milli: Option<u64>,
    cpu_source: Option<String>,
    throttled_to_milli: Option<u64>,
    frozen: bool,
}

/// A decision of the QoS controller.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
pub struct Correction {
    pub at_ms: u64,
    pub container_id: String,
    pub action: String,
    pub signal: String,
    pub value: u64,
    pub threshold: u64,
}

/// One picture.
#[derive(Clone, Debug, Deserialize)]
pub struct View {
    pub agents: Vec<Agent>,
    tasks: Vec<Task>,
    corrections: Vec<Correction>,
}

impl View {
    /// Tasks whose use is known.
    pub fn measured_tasks(&self) -> usize {
        self.tasks
            .iter()
            .filter(|task| task.used_cpu_milli.is_some())
            .count()
    }

    /// CPU that is lent in all, in thousandths of a core.
    pub fn lent_milli(&self) -> u64 {
        self.agents.iter().map(|agent| agent.cpu_milli.lent).sum()
    }

    fn machine_milli(&self) -> u64 {
        self.agents
            .iter()
            .filter_map(|agent| agent.cpu_milli.machine_used)
            .max()
            .unwrap_or(0)
    }
}

/// What was seen since the last reset.
#[derive(Clone, Debug, Default)]
pub struct Digest {
    pub pictures: u64,
    pub machine_milli_sum: u64,
    pub lent_peak_milli: u64,
    pub revocable: BTreeSet<String>,
    pub by_ebpf: usize,
    pub by_files: usize,
    pub corrections: BTreeSet<Correction>,
}

impl Digest {
    fn add(&mut self, view: &View) {
        self.pictures += 1;
        self.machine_milli_sum += view.machine_milli();
        self.lent_peak_milli = self.lent_peak_milli.max(view.lent_milli());
        for task in view
            .tasks
            .iter()
            .filter(|task| task.state == "TASK_RUNNING")
        {
            if task.revocable {
                self.revocable.insert(task.task_id.clone());
            }
            match task.cpu_source.as_deref() {
                Some("ebpf") => self.by_ebpf += 1,
                Some(_) => self.by_files += 1,
                None => {}
            }
        }
        self.corrections.extend(view.corrections.iter().cloned());
    }
}

#[derive(Default)]
struct Shared {
    latest: Option<View>,
    digest: Digest,
    shown: Option<Instant>,
}

/// Follows the cluster.
pub struct Watcher {
    child: Child,
    shared: Arc<Mutex<Shared>>,
}

fn lock(shared: &Mutex<Shared>) -> MutexGuard<'_, Shared> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Watcher {
    /// Starts to follow; keeps trying while the master comes up.
    ///
    /// # Errors
    /// When `ebb` cannot be started.
    pub fn start(ebb: &Path, master: &str) -> Result<Self> {
        let script = "until \"$0\" top --once --master \"$1\" >/dev/null 2>&1; do sleep 0.1; done; \
                      exec \"$0\" top --json --interval 200ms --master \"$1\"";
        let mut child = Command::new("sh")
            .args(["-c", script, &ebb.display().to_string(), master])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .context("cannot start `ebb top`")?;
        let shared = Arc::new(Mutex::new(Shared::default()));
        let stdout = child.stdout.take().context("`ebb top` has no output")?;
        let theirs = Arc::clone(&shared);
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if let Ok(view) = serde_json::from_str::<View>(&line) {
                    let mut shared = lock(&theirs);
                    shared.digest.add(&view);
                    shared.latest = Some(view);
                }
            }
        });
        Ok(Self { child, shared })
    }

    /// The last picture.
    pub fn latest(&self) -> Option<View> {
        lock(&self.shared).latest.clone()
    }

    /// What was seen since the last reset.
    pub fn digest(&self) -> Digest {
        lock(&self.shared).digest.clone()
    }

    /// Revocable tasks that were seen running since the last reset.
    pub fn seen_revocable(&self) -> usize {
        lock(&self.shared).digest.revocable.len()
    }

    /// Begins anew to collect what is seen.
    pub fn reset(&mut self) {
        lock(&self.shared).digest = Digest::default();
    }

    /// Shows the last picture, not too often.
    pub fn show(&self) {
        let mut shared = lock(&self.shared);
        if shared.shown.is_some_and(|at| at.elapsed() < PRINT_EVERY) {
            return;
        }
        let Some(view) = &shared.latest else { return };
        print_view(view);
        shared.shown = Some(Instant::now());
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        // It only reads; an error means that it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn cpus(milli: Option<u64>) -> String {
    milli.map_or_else(
        || "   -".to_owned(),
        |milli| format!("{:4.2}", milli as f64 / 1000.0),
    )
}

fn print_view(view: &View) {
    let (bold, plain) = if std::io::stdout().is_terminal() {
        ("\x1b[1m", "\x1b[0m")
    } else {
        ("", "")
    };
    println!(
        "{bold}   agent      cpus  allocated  used  lent  lent in use  taken back   machine{plain}"
    );
    for agent in &view.agents {
        let cpu = &agent.cpu_milli;
        println!(
            "   {:<10} {:>4}  {:>9}  {:>4}  {:>4}  {:>11}  {:>10}  {:>8}",
            agent
                .id
                .chars()
                .rev()
                .take(10)
                .collect::<Vec<_>>()
                .into_iter()
                .rev()
                .collect::<String>(),
            cpus(Some(cpu.total)),
            cpus(Some(cpu.allocated)),
            cpus(cpu.used),
            cpus(Some(cpu.lent)),
            cpus(cpu.lent_used),
            cpus(agent.taken_back_cpu_milli),
            cpus(cpu.machine_used),
        );
    }
    let (revocable, owned): (Vec<&Task>, Vec<&Task>) = view
        .tasks
        .iter()
        .filter(|task| task.state == "TASK_RUNNING")
        .partition(|task| task.revocable);
    for task in owned {
        println!(
            "     {:<16} on {:<10} allocated {}, uses {} (by {})",
            task.framework,
            task.agent_id
                .chars()
                .rev()
                .take(10)
                .collect::<Vec<_>>()
                .into_iter()
                .rev()
                .collect::<String>(),
            cpus(Some(task.allocated_cpu_milli)),
            cpus(task.used_cpu_milli),
            task.cpu_source.as_deref().unwrap_or("nothing yet"),
        );
    }
    if !revocable.is_empty() {
        let used: u64 = revocable
            .iter()
            .filter_map(|task| task.used_cpu_milli)
            .sum();
        let throttled = revocable
            .iter()
            .filter(|task| task.throttled_to_milli.is_some())
            .count();
        let frozen = revocable.iter().filter(|task| task.frozen).count();
        println!(
            "     {} revocable tasks use {}, {throttled} of them throttled, {frozen} frozen",
            revocable.len(),
            cpus(Some(used))
        );
    }
}
