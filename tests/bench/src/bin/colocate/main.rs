//! A production service beside revocable batch work: what the service notices, what the machine yields, and how fast
//! a rise of the load is answered.
//!
//! A real master and agent; the service is an ordinary task that owns all CPUs of the agent and needs a quarter of
//! one. In each round it is measured **alone**; beside the batch on revocable offers (**ebb**); beside the same batch
//! as bare SCHED_IDLE processes, which is the kernel's own **floor**; and beside it in ordinary cgroups of the same
//! weight (**equal**). Then its load **steps** from a tenth of a core to nine tenths, each time on a machine that is
//! full of revocable tasks which nothing holds back yet. Needs root, as the agent does.
//!
//! Each phase has a cluster of its own: an agent keeps room for a while for what it saw outside of Ebb, and that is
//! what the other phases' batches are. What others use and what the hypervisor steals is told beside the latencies.
//!
//! `colocate [--service redis|nginx] [--rounds N] [--steps N] [--seconds S] [--no-bars]`

mod arrivals;
mod batch;
mod cluster;
mod generator;
mod load;
mod machine;
mod phases;
mod report;
mod service;
mod steps;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use batch::Work;
use cluster::Cluster;
use load::{GENERATE, Load};
use phases::{Phase, Stage, Steps};
use service::Service;

struct Options {
    service: Service,
    rounds: usize,
    steps: usize,
    seconds: f64,
    bars: bool,
}

impl Options {
    fn parse(mut words: impl Iterator<Item = String>) -> Result<Self> {
        let mut options = Self {
            service: Service::Redis,
            rounds: 4,
            steps: 50,
            seconds: 6.0,
            bars: true,
        };
        while let Some(word) = words.next() {
            let mut value = || {
                words
                    .next()
                    .with_context(|| format!("{word} takes a value"))
            };
            match word.as_str() {
                "--service" => options.service = Service::of_name(&value()?)?,
                "--rounds" => options.rounds = value()?.parse().context("--rounds")?,
                "--steps" => options.steps = value()?.parse().context("--steps")?,
                "--seconds" => options.seconds = value()?.parse().context("--seconds")?,
                "--no-bars" => options.bars = false,
                // Cargo's own.
                "--bench" => {}
                _ => bail!("{word:?} is no option"),
            }
        }
        Ok(options)
    }
}

fn main() -> Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    if let [first, service, port] = &words[..]
        && first == GENERATE
    {
        return generator::run(Service::of_name(service)?, port.parse()?);
    }
    let options = Options::parse(words.into_iter())?;
    let interrupted = listen()?;
    let folder = tempfile::tempdir()?;
    // Tasks find the service's files and leave their counts there, whoever they run as.
    let outcome = measure(&options, folder.path(), &interrupted);
    if interrupted.load(Ordering::Relaxed) {
        bail!("interrupted");
    }
    outcome
}

/// Everything is ended in order when the user has had enough.
fn listen() -> Result<Arc<AtomicBool>> {
    let flag = Arc::new(AtomicBool::new(false));
    let theirs = Arc::clone(&flag);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    std::thread::spawn(move || {
        runtime.block_on(async {
            use tokio::signal::unix::{SignalKind, signal};
            let (Ok(mut int), Ok(mut term)) = (
                signal(SignalKind::interrupt()),
                signal(SignalKind::terminate()),
            ) else {
                return;
            };
            loop {
                tokio::select! {
                    _ = int.recv() => {}
                    _ = term.recv() => {}
                }
                theirs.store(true, Ordering::Relaxed);
            }
        });
    });
    Ok(flag)
}

fn measure(options: &Options, folder: &Path, interrupted: &Arc<AtomicBool>) -> Result<()> {
    let work = Work::prepare(&folder.join("work"))?;
    let run = Run {
        service: options.service,
        folder,
        work: &work,
        cpus: std::thread::available_parallelism()?.get(),
        interrupted,
    };
    let per_core = run.with_cluster("trial", |stage| stage.per_core())?;
    let name = options.service.name();
    eprintln!("one core serves {per_core:.0} requests of {name} a second");
    let time = Duration::from_secs_f64(options.seconds);
    let mut seen = BTreeMap::new();
    for round in 0..options.rounds {
        // Each phase comes first, second … equally often.
        for turn in 0..Phase::ALL.len() {
            let phase = Phase::ALL[(round + turn) % Phase::ALL.len()];
            eprintln!(
                "round {} of {}: {}",
                round + 1,
                options.rounds,
                phase.name()
            );
            run.with_cluster(&format!("{}-{round}", phase.name()), |stage| {
                stage.phase(phase, per_core * phases::BASE, time, &mut seen)
            })?;
        }
    }
    let mut steps = Steps::default();
    run.with_cluster("steps", |stage| {
        for number in 0..options.steps {
            eprintln!("step {} of {}", number + 1, options.steps);
            stage.step(per_core, &mut steps)?;
        }
        Ok(())
    })?;
    report::print(&seen, &mut steps, options.bars);
    Ok(())
}

/// What every cluster of a run has in common.
struct Run<'a> {
    service: Service,
    folder: &'a Path,
    work: &'a Work,
    cpus: usize,
    interrupted: &'a Arc<AtomicBool>,
}

impl Run<'_> {
    /// Does something with a cluster of its own: the agent keeps room for what ran outside of Ebb of late,
    /// and the other phases' batches are that to it.
    fn with_cluster<T>(
        &self,
        name: &str,
        act: impl FnOnce(&mut Stage<'_>) -> Result<T>,
    ) -> Result<T> {
        let folder = self.folder.join(name);
        std::fs::create_dir(&folder)?;
        machine::wait_idle(self.interrupted)?;
        let cluster = Cluster::start(&folder, self.service, self.cpus)?;
        cluster.wait_measured()?;
        let mut stage = Stage {
            load: Load::start(self.service, cluster.port)?,
            cluster: &cluster,
            work: self.work,
            cpus: self.cpus,
            interrupted: Arc::clone(self.interrupted),
        };
        let outcome = act(&mut stage)?;
        drop(stage);
        cluster.stop()?;
        Ok(outcome)
    }
}
