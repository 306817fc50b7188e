//! The sampler's thread: reads all counters ten times a second and hands them to the core.
//!
//! A quick reading every 100 ms has what is needed to notice interference in time; one a second is a
//! full one, with what is dearer to read (memory, disk, throttling); both times are settings. While no container is
//! revocable there is nobody to push back, and quick readings are five times rarer ([`RESTING_FACTOR`]). While one is, the
//! probes tell at once when an owner's demand jumps, and quick readings come between the regular ones ([`pace`]).
//!
//! Only this thread talks to the probes. It waits for the next reading, for commands and for the probes at once. If the core has no room for a reading it is dropped and counted: the next one says it all,
//! since counters only rise. What cannot be told again (last readings of containers that have ended, kills) is kept
//! and handed over with the next reading, up to [`MAX_KEPT`] of each.

mod convert;
mod pace;

use std::collections::BTreeMap;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{
    Receiver, RecvTimeoutError, Sender, SyncSender, TryRecvError, channel, sync_channel,
};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use ebb_types::{ContainerId, FigureSource};
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use tokio::sync::mpsc;

use crate::cgroup::{ContainerPaths, Controller, Limits};
use crate::core::Input;
use crate::core::usage::Sample;
use crate::driver::Event;
use crate::metrics::Metrics;
use crate::probe::{
    CgroupPaths, Choice, Detail, Facts, Losses, Options, ProbeCost, Sampler, built_in_object,
    monotonic_ns, plan,
};
use pace::{Due, Pace};

/// How the sampler is set up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setup {
    /// Time between two readings.
    pub quick: Duration,
    /// Time between two full readings.
    pub full: Duration,
    /// Where the probes are kept while no agent runs.
    pub pins: Option<PathBuf>,
}

/// How much rarer quick readings are while no container is revocable.
const RESTING_FACTOR: u32 = 5;
/// Most last readings, and most kills, that are kept while the core has no room for a reading.
const MAX_KEPT: usize = 4096;
const NS_PER_S: u64 = 1_000_000_000;
/// How long the end of a container is held up for its last reading.
const LAST_READING_LIMIT: Duration = Duration::from_millis(500);
/// Open files that the agent allows itself, where it may: some 15 for each of 4,000 containers.
const DESCRIPTORS: u64 = 65_536;

/// What the sampler says of itself.
#[derive(Clone, Debug, Default)]
pub struct SamplerView {
    /// Each figure and its source.
    pub sources: Vec<FigureSource>,
    /// What the probes have cost.
    pub costs: Vec<ProbeCost>,
    /// Slots of the probes: taken, and in all.
    pub slots: (u64, u64),
    /// What was lost or left to files.
    pub losses: Losses,
    /// CPUs of the machine, once they were counted.
    pub cpus: Option<u32>,
    /// Last readings and kills that were not kept: [`MAX_KEPT`] was reached.
    pub unkept: u64,
    /// Readings that came at once because an owner's demand had jumped.
    pub looks: u64,
    /// Jumps that were left to the regular readings, since there were so many.
    pub looks_refused: u64,
    /// Last readings that were not waited for: [`LAST_READING_LIMIT`] was reached.
    pub hurried: u64,
}

/// A limit of a container's network bandwidth, in bytes a second each way; `None` is none. The smaller of the two holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// What it is allocated.
    Own(Option<u64>),
    /// What the QoS controller leaves it.
    Cap(Option<u64>),
}

/// Both limits of one container.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct NetworkLimits {
    own: Option<u64>,
    cap: Option<u64>,
}

impl NetworkLimits {
    const fn set(&mut self, limit: Limit) {
        match limit {
            Limit::Own(bytes_per_s) => self.own = bytes_per_s,
            Limit::Cap(bytes_per_s) => self.cap = bytes_per_s,
        }
    }

    /// The one that holds.
    fn smaller(self) -> Option<u64> {
        self.own.into_iter().chain(self.cap).min()
    }
}

enum Command {
    Register {
        container_id: ContainerId,
        paths: CgroupPaths,
        revocable: bool,
        network_bytes_per_s: Option<u64>,
    },
    LimitNetwork(ContainerId, Limit),
    /// Says when it is done.
    Unregister(ContainerId, SyncSender<()>),
    Settle,
    Stop,
}

/// The sampler, seen from outside of its thread.
#[derive(Clone)]
pub struct SamplerHandle {
    commands: Sender<Command>,
    /// Wakes the thread for them.
    bell: Arc<OwnedFd>,
    view: Arc<Mutex<SamplerView>>,
    /// Containers whose last reading was not waited for any longer.
    hurried: Arc<AtomicU64>,
}

impl SamplerHandle {
    /// Measures a container from now on, and keeps those of its limits that the probes keep.
    pub fn register(&self, container_id: ContainerId, paths: &ContainerPaths, limits: &Limits) {
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
            revocable: limits.revocable,
            network_bytes_per_s: limits.network_bytes_per_s,
        });
    }

    /// Gives a container another limit of network bandwidth; one that is not known is fine.
    pub fn limit_network(&self, container_id: ContainerId, limit: Limit) {
        self.send(Command::LimitNetwork(container_id, limit));
    }

    /// Measures it no longer. Returns when its files were read a last time, so that they may go; after
    /// [`LAST_READING_LIMIT`] in any case.
    pub fn unregister(&self, container_id: ContainerId) {
        let (done, is_done) = sync_channel(1);
        self.send(Command::Unregister(container_id, done));
        if is_done.recv_timeout(LAST_READING_LIMIT) == Err(RecvTimeoutError::Timeout) {
            self.hurried.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Says that the containers of earlier lives are all registered.
    pub fn settle(&self) {
        self.send(Command::Settle);
    }

    /// Ends the sampler's thread. With no containers left the probes go too.
    pub fn stop(&self) {
        self.send(Command::Stop);
    }

    /// What the sampler last said of itself.
    pub fn view(&self) -> SamplerView {
        let view = self.view.lock().unwrap_or_else(PoisonError::into_inner);
        SamplerView {
            hurried: self.hurried.load(Ordering::Relaxed),
            ..view.clone()
        }
    }

    fn send(&self, command: Command) {
        // The thread ends only with the agent, and then nothing is measured any more.
        let _ = self.commands.send(command);
        // It fails only where it has been rung so often that the thread wakes anyway.
        let _ = rustix::io::write(&self.bell, &1u64.to_ne_bytes());
    }
}

/// Whether the probes can tell, and so limit, the traffic of containers with the network; else why not.
pub fn packets(facts: &Facts) -> Choice {
    let figures = plan(facts, built_in_object().is_some()).figures();
    let network = figures.into_iter().find(|(figure, _)| *figure == "network");
    let unknown = Choice {
        source: None,
        why: String::new(),
    };
    network.map_or(unknown, |(_, choice)| choice)
}

/// Starts the sampler. Its thread ends when it is told to.
///
/// # Errors
/// The system's answer if no thread could be started, or nothing to wake it by.
pub fn start(
    setup: &Setup,
    facts: &Facts,
    events: mpsc::Sender<Event>,
    metrics: Arc<Metrics>,
) -> std::io::Result<(SamplerHandle, String, JoinHandle<()>)> {
    allow_descriptors();
    let (commands, inbox) = channel();
    let bell = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
    let bell = Arc::new(bell);
    let options = Options {
        pins: setup.pins.clone(),
        ..Options::default()
    };
    let sampler = Sampler::with(facts, built_in_object(), &options);
    let message = sampler.message().to_owned();
    let view = Arc::new(Mutex::new(SamplerView::default()));
    let handle = SamplerHandle {
        commands,
        bell: Arc::clone(&bell),
        view: Arc::clone(&view),
        hurried: Arc::default(),
    };
    let mut worker = Worker {
        sampler,
        setup: setup.clone(),
        events,
        metrics,
        view,
        next_full: Instant::now(),
        kept: Sample::default(),
        sources: Vec::new(),
        cpus: None,
        unkept: 0,
        bell,
        limits: BTreeMap::new(),
        pace: Pace::new(monotonic_ns()),
        deaf: false,
    };
    worker.show();
    let thread = std::thread::Builder::new()
        .name("ebb-sampler".to_owned())
        .spawn(move || {
            worker.run(&inbox);
            worker.end();
        })?;
    Ok((handle, message, thread))
}

struct Worker {
    sampler: Sampler<ContainerId>,
    setup: Setup,
    events: mpsc::Sender<Event>,
    metrics: Arc<Metrics>,
    view: Arc<Mutex<SamplerView>>,
    next_full: Instant,
    /// What of readings that were dropped cannot be read again.
    kept: Sample,
    /// The sources that the core was told.
    sources: Vec<FigureSource>,
    cpus: Option<u32>,
    unkept: u64,
    bell: Arc<OwnedFd>,
    /// The network limits of registered containers.
    limits: BTreeMap<ContainerId, NetworkLimits>,
    pace: Pace,
    /// Whether the probes' alerts can no longer be waited for.
    deaf: bool,
}

/// Every container's files are kept open. Tasks inherit the limit, hence no more than is needed.
fn allow_descriptors() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let wanted = limit
        .maximum
        .map_or(DESCRIPTORS, |most| most.min(DESCRIPTORS));
    if limit.current.is_none_or(|current| current >= wanted) {
        return;
    }
    let raised = Rlimit {
        current: Some(wanted),
        maximum: limit.maximum,
    };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        tracing::warn!(%error, wanted, "the limit of open files stays as it is; with many containers some figures may be missing");
    }
}

impl Worker {
    fn run(&mut self, inbox: &Receiver<Command>) {
        loop {
            let began_ns = monotonic_ns();
            if let Some(due) = self.pace.due(began_ns) {
                self.sample(due);
                let interval_ns = self.interval_ns();
                self.pace.taken(due, began_ns, monotonic_ns(), interval_ns);
            }
            if self.wait() {
                self.sampler.take_alerts();
                self.pace.alerted(monotonic_ns());
            }
            loop {
                match inbox.try_recv() {
                    Ok(Command::Stop) | Err(TryRecvError::Disconnected) => return,
                    Ok(command) => {
                        self.obey(command);
                        // The first revocable container ends the rest.
                        self.pace.not_later(monotonic_ns() + self.interval_ns());
                    }
                    Err(TryRecvError::Empty) => break,
                }
            }
        }
    }

    /// Waits until a reading is due, a command has come, or the probes tell that an owner's demand has jumped: then the
    /// answer is true.
    fn wait(&mut self) -> bool {
        let left_ns = self.pace.next_ns().saturating_sub(monotonic_ns());
        let timeout = Timespec {
            tv_sec: i64::try_from(left_ns / NS_PER_S).unwrap_or(i64::MAX),
            tv_nsec: (left_ns % NS_PER_S) as _,
        };
        let mut fds = vec![PollFd::from_borrowed_fd(self.bell.as_fd(), PollFlags::IN)];
        if !self.deaf {
            let alerts = self.sampler.alerts_fd();
            fds.extend(alerts.map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)));
        }
        match poll(&mut fds, Some(&timeout)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => {
                // Readings stay regular.
                tracing::warn!(%error, "the sampler cannot wait for the probes' alerts");
                self.deaf = true;
            }
        }
        let heard = fds.get(1).map_or(PollFlags::empty(), PollFd::revents);
        let mut rung = [0; 8];
        // Nothing to be read is as well.
        let _ = rustix::io::read(&self.bell, &mut rung);
        self.deaf |= heard.intersects(PollFlags::ERR | PollFlags::NVAL | PollFlags::HUP);
        heard.contains(PollFlags::IN)
    }

    /// Time to the next reading.
    fn interval_ns(&self) -> u64 {
        let interval = if self.sampler.has_revocable() {
            self.setup.quick
        } else {
            (self.setup.quick * RESTING_FACTOR).min(self.setup.full)
        };
        u64::try_from(interval.as_nanos()).unwrap_or(u64::MAX)
    }

    /// Leaves the probes attached for the next agent while there are containers to count.
    fn end(self) {
        if self.sampler.is_empty() {
            self.sampler.remove();
        }
    }

    fn obey(&mut self, command: Command) {
        match command {
            Command::Register {
                container_id,
                paths,
                revocable,
                network_bytes_per_s,
            } => {
                let name = container_id.clone();
                self.limits
                    .insert(container_id.clone(), NetworkLimits::default());
                if let Err(error) = self.sampler.register(container_id, &paths, revocable) {
                    tracing::debug!(container = %name, %error, "measured by files");
                }
                self.limit_network(&name, Limit::Own(network_bytes_per_s));
            }
            Command::LimitNetwork(container_id, limit) => self.limit_network(&container_id, limit),
            Command::Unregister(container_id, done) => {
                self.limits.remove(&container_id);
                self.sampler.unregister(&container_id);
                // Whoever waited may have gone on.
                let _ = done.try_send(());
            }
            Command::Settle => self.sampler.settle(),
            Command::Stop => {}
        }
    }

    fn limit_network(&mut self, container_id: &ContainerId, limit: Limit) {
        let Some(limits) = self.limits.get_mut(container_id) else {
            return;
        };
        limits.set(limit);
        let smaller = limits.smaller();
        let holds = self.sampler.limit_network(container_id, smaller);
        if let (false, Some(bytes_per_s)) = (holds, smaller) {
            tracing::warn!(container = %container_id, bytes_per_s,
                "its network bandwidth cannot be limited: the probes have no slot for it, or do not see its packets");
        }
    }

    fn sample(&mut self, due: Due) {
        let since = Instant::now();
        let full = due == Due::Regular && since >= self.next_full;
        if full {
            self.next_full = (self.next_full + self.setup.full).max(since);
        }
        let detail = if full { Detail::Full } else { Detail::Quick };
        let sample = match due {
            Due::Regular => self.sampler.sample_and_listen(detail),
            Due::Look => self.sampler.sample(detail),
        };
        self.metrics.sampled(since.elapsed());
        self.cpus = sample.host.cpus.or(self.cpus);
        let mut sample = convert::sample(sample, full);
        sample
            .ended
            .splice(0..0, std::mem::take(&mut self.kept.ended));
        sample
            .oom_kills
            .splice(0..0, std::mem::take(&mut self.kept.oom_kills));
        let sources = convert::sources(self.sampler.plan());
        let are_new = sources != self.sources;
        sample.sources = are_new.then(|| sources.clone());
        let event = Event::from(Input::Sample(Box::new(sample)));
        match self.events.try_send(event) {
            Ok(()) => self.sources = sources,
            Err(refused) => {
                self.metrics.sample_dropped();
                self.keep(refused.into_inner());
            }
        }
        if full {
            self.show();
        }
    }

    /// Keeps what cannot be read again of a reading that was not taken.
    fn keep(&mut self, event: Event) {
        let Event::Core(input) = event else { return };
        let Input::Sample(mut sample) = *input else {
            return;
        };
        let over = |len: usize| len.saturating_sub(MAX_KEPT);
        let lost = over(sample.ended.len()) + over(sample.oom_kills.len());
        self.unkept += lost as u64;
        sample.ended.truncate(MAX_KEPT);
        sample.oom_kills.truncate(MAX_KEPT);
        self.kept = *sample;
    }

    fn show(&mut self) {
        let (taken, all) = self.sampler.slots();
        let view = SamplerView {
            sources: convert::sources(self.sampler.plan()),
            costs: self.sampler.costs(),
            slots: (taken as u64, u64::from(all)),
            losses: self.sampler.losses(),
            cpus: self.cpus,
            unkept: self.unkept,
            looks: self.pace.looks,
            looks_refused: self.pace.refused,
            hurried: 0,
        };
        *self.view.lock().unwrap_or_else(PoisonError::into_inner) = view;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_two_limits_the_smaller_holds_whichever_came_first() {
        let mut limits = NetworkLimits::default();
        assert_eq!(limits.smaller(), None);
        limits.set(Limit::Cap(Some(5)));
        assert_eq!(limits.smaller(), Some(5));
        limits.set(Limit::Own(Some(3)));
        assert_eq!(limits.smaller(), Some(3));
        limits.set(Limit::Own(Some(8)));
        assert_eq!(limits.smaller(), Some(5));
        limits.set(Limit::Cap(None));
        assert_eq!(limits.smaller(), Some(8));
        limits.set(Limit::Own(None));
        assert_eq!(limits.smaller(), None);
    }
}
