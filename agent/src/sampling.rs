//! The sampler's thread: reads all counters ten times a second and hands them to the core.
//!
//! A quick reading every 100 ms has what is needed to notice interference in time; every tenth is a
//! full one, with what is dearer to read (memory, disk, throttling). Only this thread talks to the
//! probes. If the core has no room for a reading it is dropped and counted: the next one says it all,
//! since counters only rise.

use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use ebb_types::{ContainerId, MeasureSource};
use tokio::sync::mpsc;

use crate::cgroup::{ContainerPaths, Controller};
use crate::core::{Input, usage};
use crate::driver::Event;
use crate::metrics::Metrics;
use crate::probe::{
    CgroupPaths, ContainerCounters, Detail, Facts, Losses, ProbeCost, Sample, Sampler,
    built_in_object, disk_totals,
};

/// Time between two readings.
pub const SAMPLE_INTERVAL: Duration = Duration::from_millis(100);
/// Every so many readings one is full.
const FULL_EVERY: u64 = 10;

/// What the sampler says of itself.
#[derive(Clone, Debug, Default)]
pub struct SamplerView {
    /// Each figure and its source.
    pub sources: Vec<(&'static str, Option<MeasureSource>)>,
    /// What the probes have cost.
    pub costs: Vec<ProbeCost>,
    /// Slots of the probes: taken, and in all.
    pub slots: (u64, u64),
    /// What was lost or left to files.
    pub losses: Losses,
}

enum Command {
    Register {
        container_id: ContainerId,
        paths: CgroupPaths,
        revocable: bool,
    },
    Unregister(ContainerId),
    Stop,
}

/// The sampler, seen from outside of its thread.
#[derive(Clone)]
pub struct SamplerHandle {
    commands: Sender<Command>,
    view: Arc<Mutex<SamplerView>>,
}

impl SamplerHandle {
    /// Measures a container from now on.
    pub fn register(&self, container_id: ContainerId, paths: &ContainerPaths, revocable: bool) {
        let v1 = |controller| paths.v1.get(&controller).cloned();
        let paths = CgroupPaths {
            v2: paths.v2.clone(),
            cpu: v1(Controller::Cpu),
            cpuacct: v1(Controller::Cpuacct),
            memory: v1(Controller::Memory),
            blkio: v1(Controller::Io),
        };
        self.send(Command::Register {
            container_id,
            paths,
            revocable,
        });
    }

    /// Measures it no longer.
    pub fn unregister(&self, container_id: ContainerId) {
        self.send(Command::Unregister(container_id));
    }

    /// Ends the sampler's thread.
    pub fn stop(&self) {
        self.send(Command::Stop);
    }

    /// What the sampler last said of itself.
    pub fn view(&self) -> SamplerView {
        let view = self.view.lock().unwrap_or_else(PoisonError::into_inner);
        view.clone()
    }

    fn send(&self, command: Command) {
        // The thread ends only with the agent, and then nothing is measured any more.
        let _ = self.commands.send(command);
    }
}

/// Starts the sampler. Its thread ends when it is told to.
///
/// # Errors
/// The system's answer if no thread could be started.
pub fn start(
    events: mpsc::Sender<Event>,
    metrics: Arc<Metrics>,
) -> std::io::Result<(SamplerHandle, String, JoinHandle<()>)> {
    let (commands, inbox) = channel();
    let sampler = Sampler::new(&Facts::gather(), built_in_object());
    let message = sampler.message().to_owned();
    let view = Arc::new(Mutex::new(SamplerView::default()));
    let handle = SamplerHandle {
        commands,
        view: Arc::clone(&view),
    };
    let mut worker = Worker {
        sampler,
        events,
        metrics,
        view,
        count: 0,
    };
    worker.show();
    let thread = std::thread::Builder::new()
        .name("ebb-sampler".to_owned())
        .spawn(move || worker.run(&inbox))?;
    Ok((handle, message, thread))
}

struct Worker {
    sampler: Sampler<ContainerId>,
    events: mpsc::Sender<Event>,
    metrics: Arc<Metrics>,
    view: Arc<Mutex<SamplerView>>,
    count: u64,
}

impl Worker {
    fn run(&mut self, inbox: &Receiver<Command>) {
        let mut next = Instant::now();
        loop {
            let now = Instant::now();
            if now >= next {
                self.sample();
                // A reading that came late does not make the following ones come in a burst.
                next = (next + SAMPLE_INTERVAL).max(Instant::now());
            }
            match inbox.recv_timeout(next.saturating_duration_since(Instant::now())) {
                Ok(Command::Stop) | Err(RecvTimeoutError::Disconnected) => return,
                Ok(command) => self.obey(command),
                Err(RecvTimeoutError::Timeout) => {}
            }
        }
    }

    fn obey(&mut self, command: Command) {
        match command {
            Command::Register {
                container_id,
                paths,
                revocable,
            } => {
                let name = container_id.clone();
                if let Err(error) = self.sampler.register(container_id, &paths, revocable) {
                    tracing::debug!(container = %name, %error, "measured by files");
                }
            }
            Command::Unregister(container_id) => self.sampler.unregister(&container_id),
            Command::Stop => {}
        }
    }

    fn sample(&mut self) {
        let full = self.count.is_multiple_of(FULL_EVERY);
        self.count += 1;
        let since = Instant::now();
        let sample = self
            .sampler
            .sample(if full { Detail::Full } else { Detail::Quick });
        self.metrics.sampled(since.elapsed());
        let input = Input::Sample(Box::new(convert(sample, full)));
        if self.events.try_send(Event::from(input)).is_err() {
            self.metrics.sample_dropped();
        }
        if full {
            self.show();
        }
    }

    fn show(&self) {
        let (taken, all) = self.sampler.slots();
        let view = SamplerView {
            sources: self
                .sampler
                .plan()
                .figures()
                .iter()
                .map(|(figure, choice)| (*figure, choice.source))
                .collect(),
            costs: self.sampler.costs(),
            slots: (taken as u64, u64::from(all)),
            losses: self.sampler.losses(),
        };
        *self.view.lock().unwrap_or_else(PoisonError::into_inner) = view;
    }
}

/// The probes' words for the core's.
fn convert(sample: Sample<ContainerId>, full: bool) -> usage::Sample {
    let containers = sample
        .containers
        .into_iter()
        .map(|(id, counters)| (id, container(&counters)))
        .collect();
    usage::Sample {
        taken_ns: sample.taken_ns,
        full,
        host: usage::HostCounters {
            cpu_busy_ns: sample.host.busy_ns,
            cpus: sample.host.cpus,
            mem_available_bytes: sample.host.mem_available_bytes,
            mem_total_bytes: sample.host.mem_total_bytes,
            unmanaged_cpu_ns: sample
                .unmanaged
                .and_then(|counters| counters.on_cpu_ns)
                .map(|figure| figure.value),
        },
        containers,
    }
}

fn container(counters: &ContainerCounters) -> usage::ContainerSample {
    let run_queue = counters.run_queue.as_ref();
    let switches = counters.switches.as_ref();
    let cpu_source = counters
        .on_cpu_ns
        .map_or(MeasureSource::Files, |figure| figure.source);
    let mut sample = usage::ContainerSample::absent(cpu_source);
    sample.cpu_ns = counters.on_cpu_ns.map(|figure| figure.value);
    sample.run_queue_wait_ns = run_queue.map(|queue| queue.wait_ns);
    sample.run_queue_count = run_queue.map(|queue| queue.wait_count);
    sample.run_queue_histogram = run_queue.map(|queue| queue.wait_hist);
    sample.preempted_by_revocable = switches.map(|switches| switches.preempted_by_revocable);
    sample.preempted_by_other =
        switches.map(|switches| switches.preempted_by_owned + switches.preempted_by_unmanaged);
    sample.throttled_ns = counters
        .throttling
        .map(|throttling| throttling.throttled_ns);
    sample.mem_bytes = counters.memory.map(|memory| memory.working_set_bytes());
    sample.disk_bytes = counters
        .disk
        .as_ref()
        .map(|disk| disk_totals(&disk.value))
        .map(|totals| totals.read_bytes.saturating_add(totals.write_bytes));
    sample
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_measured_stays_absent() {
        let sample = container(&ContainerCounters::default());
        assert_eq!(sample, usage::ContainerSample::absent(MeasureSource::Files));
    }
}
