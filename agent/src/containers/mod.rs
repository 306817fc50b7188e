//! The hands of the agent: carries out what the core orders of containers, on threads of its own, so
//! that the loop never waits for the kernel.
//!
//! Two lanes. *Launch* threads start and remove containers; all orders for one container go to the same
//! thread, so they keep their order. One *control* thread throttles, freezes, signals and kills: it
//! is never behind a launch, because taking resources back is a matter of milliseconds.
//!
//! The end of a container is awaited by its pidfd on the event loop; there is no thread a task and
//! nothing is polled.

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use ebb_types::{ContainerId, ExitStatus, ResourceKind, Resources, Timestamp};
use tokio::runtime::Handle as Tokio;
use tokio::sync::mpsc;

use crate::cgroup::{BlockDevice, Container, DiskLimits, Limits};
use crate::core::{DISKS_VARIABLE, Exit, GPUS_VARIABLE, Input, LaunchOrder, VolumeMount};
use crate::devices::Devices;
use crate::driver::Event;
use crate::metrics::Metrics;
use crate::readiness;
use crate::runtime::{
    CommandSpec, DeviceSpec, Executor, ExitRecord, LaunchRequest, Outcome, RunDir, RunKey, Runtime,
    StartSignal, VolumeSpec,
};
use crate::sampling::{Limit, SamplerHandle};

mod recover;

pub use recover::{Recovered, recover};

/// Most orders that wait for one thread. Far more than all tasks of an agent can ask for at once.
const MAX_QUEUE: usize = 4 * crate::core::MAX_TASKS;
/// Most launch threads. There are two a CPU, since each waits about half of its time for a new process.
const MAX_LAUNCH_THREADS: usize = 8;

/// What the hands are asked to do.
#[derive(Debug)]
pub enum Order {
    /// Start a container.
    Launch(Box<LaunchOrder>),
    /// Remove what is left of it.
    Destroy(ContainerId),
    /// Ask its processes to end.
    Terminate(ContainerId),
    /// Warn it of its eviction: with its signal, if it chose one; when it ends; why.
    Warn(ContainerId, bool, Timestamp, String),
    /// End its processes.
    Kill(ContainerId),
    /// Cap its CPU, or lift the cap.
    Throttle(ContainerId, Option<u64>),
    /// Limit its network bandwidth below what it is allocated, or lift that.
    LimitNetwork(ContainerId, Option<u64>),
    /// Have its memory reclaimed down to so many bytes, or let it have that again.
    ReclaimMemory(ContainerId, Option<u64>),
    /// Stop it where it is, or let it go on.
    Freeze(ContainerId, bool),
    /// Set what it may use.
    Resize(ContainerId, Resources),
}

impl Order {
    const fn name(&self) -> &'static str {
        match self {
            Self::Launch(_) => "launch",
            Self::Destroy(_) => "destroy",
            Self::Terminate(_) => "terminate",
            Self::Warn(..) => "warn",
            Self::Kill(_) => "kill",
            Self::Throttle(..) => "throttle",
            Self::LimitNetwork(..) => "limit_network",
            Self::ReclaimMemory(..) => "reclaim_memory",
            Self::Freeze(_, true) => "freeze",
            Self::Freeze(_, false) => "thaw",
            Self::Resize(..) => "resize",
        }
    }

    fn container_id(&self) -> &ContainerId {
        match self {
            Self::Launch(order) => &order.container_id,
            Self::Destroy(id)
            | Self::Terminate(id)
            | Self::Kill(id)
            | Self::Warn(id, ..)
            | Self::Throttle(id, _)
            | Self::LimitNetwork(id, _)
            | Self::ReclaimMemory(id, _)
            | Self::Freeze(id, _)
            | Self::Resize(id, _) => id,
        }
    }
}

/// A container that exists.
#[derive(Debug)]
struct Known {
    /// `None` once it has ended.
    executor: Option<Arc<Executor>>,
    container: Container,
    run: RunDir,
}

/// What all threads share.
struct Shared {
    runtime: Runtime,
    device: Option<BlockDevice>,
    devices: Devices,
    executor_socket: PathBuf,
    sampler: SamplerHandle,
    events: mpsc::Sender<Event>,
    metrics: Arc<Metrics>,
    tokio: Tokio,
    known: Mutex<BTreeMap<ContainerId, Arc<Known>>>,
    cancelled: Mutex<BTreeSet<ContainerId>>,
}

/// What the hands work with.
pub struct Tools {
    /// Starts and finds containers.
    pub runtime: Runtime,
    /// The disk behind the sandboxes, if there is one that can be limited.
    pub device: Option<BlockDevice>,
    /// The devices that are given to containers, by the names of their disks.
    pub devices: Devices,
    /// Where frameworks' own executors find the agent.
    pub executor_socket: PathBuf,
    /// Measures containers.
    pub sampler: SamplerHandle,
    /// Where the core hears what happened.
    pub events: mpsc::Sender<Event>,
    /// Counts.
    pub metrics: Arc<Metrics>,
}

/// More orders wait than there is room for: the agent cannot go on.
#[derive(Debug, thiserror::Error)]
#[error(
    "more than {MAX_QUEUE} orders wait for one thread: the machine does not keep up; start the agent anew"
)]
pub struct Overrun;

/// The threads, seen from the loop.
pub struct Containers {
    shared: Arc<Shared>,
    launches: Vec<mpsc::Sender<Order>>,
    control: mpsc::Sender<Order>,
    threads: Vec<std::thread::JoinHandle<()>>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Every update is a single insertion or removal, so a panic elsewhere leaves nothing half done.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Containers {
    /// Starts the threads.
    ///
    /// # Errors
    /// The system's answer if a thread could not be started.
    pub fn start(tools: Tools) -> std::io::Result<Self> {
        let shared = Arc::new(Shared {
            runtime: tools.runtime,
            device: tools.device,
            devices: tools.devices,
            executor_socket: tools.executor_socket,
            sampler: tools.sampler,
            events: tools.events,
            metrics: tools.metrics,
            tokio: Tokio::current(),
            known: Mutex::default(),
            cancelled: Mutex::default(),
        });
        let cpus = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let count = (2 * cpus).clamp(4, MAX_LAUNCH_THREADS);
        let mut threads = Vec::new();
        let mut lane = |name: String| {
            let (orders, inbox) = mpsc::channel(MAX_QUEUE);
            let shared = Arc::clone(&shared);
            let thread = std::thread::Builder::new()
                .name(name)
                .spawn(move || shared.work(inbox))?;
            threads.push(thread);
            std::io::Result::Ok(orders)
        };
        let control = lane("ebb-control".to_owned())?;
        let launches = (0..count)
            .map(|index| lane(format!("ebb-launch-{index}")))
            .collect::<Result<_, _>>()?;
        Ok(Self {
            shared,
            launches,
            control,
            threads,
        })
    }

    /// Hands an order to its thread.
    ///
    /// # Errors
    /// [`Overrun`] if the thread has not kept up.
    pub fn order(&self, order: Order) -> Result<(), Overrun> {
        let lane = match &order {
            // The kernel may take long for these; whoever is to be held back at once does not wait for it.
            Order::Launch(_) | Order::Destroy(_) | Order::ReclaimMemory(..) => {
                self.lane_of(order.container_id())
            }
            _ => &self.control,
        };
        lane.try_send(order).map_err(|_| Overrun)
    }

    /// A launch that no thread has begun is not begun any more.
    pub fn cancel(&self, container_id: ContainerId) {
        locked(&self.shared.cancelled).insert(container_id);
    }

    fn lane_of(&self, container_id: &ContainerId) -> &mpsc::Sender<Order> {
        let sum = container_id.as_str().bytes().fold(0_usize, |sum, byte| {
            sum.wrapping_mul(31).wrapping_add(byte.into())
        });
        &self.launches[sum % self.launches.len()]
    }

    /// Takes over the containers of earlier lives.
    pub fn adopt(&self, recovered: Recovered) {
        for (container_id, found) in recovered.runs {
            let executor = found.executor.map(Arc::new);
            if let Some(executor) = &executor {
                let paths = found.container.paths();
                let limits = found.container.limits();
                self.shared
                    .sampler
                    .register(container_id.clone(), &paths, &limits);
                self.shared
                    .watch(container_id.clone(), Arc::clone(executor), None);
            }
            let known = Known {
                executor,
                container: found.container,
                run: found.run,
            };
            locked(&self.shared.known).insert(container_id, Arc::new(known));
        }
    }

    /// Ends the threads when they have done what they were ordered.
    pub fn finish(self) {
        drop((self.launches, self.control));
        for thread in self.threads {
            // A thread that has panicked has said so.
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn work(self: Arc<Self>, mut inbox: mpsc::Receiver<Order>) {
        while let Some(order) = inbox.blocking_recv() {
            let name = order.name();
            let container_id = order.container_id().clone();
            let since = Instant::now();
            let outcome = self.obey(order);
            self.metrics.container_operation(name, since.elapsed());
            if let Err(error) = outcome {
                self.metrics.container_fault(name);
                tracing::warn!(container = %container_id, operation = name, error = %chain(&*error),
                    "an operation on a container failed");
            }
        }
    }

    fn known(&self, container_id: &ContainerId) -> Option<Arc<Known>> {
        locked(&self.known).get(container_id).map(Arc::clone)
    }

    /// Orders for containers that are gone do nothing: their end is on its way to the core.
    fn obey(self: &Arc<Self>, order: Order) -> Result<(), Box<dyn Error + Send + Sync>> {
        if let Order::Launch(order) = order {
            self.launch(&order);
            return Ok(());
        }
        let Some(known) = self.known(order.container_id()) else {
            return Ok(());
        };
        match order {
            Order::Launch(_) => {}
            Order::Destroy(container_id) => {
                self.sampler.unregister(container_id.clone());
                locked(&self.known).remove(&container_id);
                locked(&self.cancelled).remove(&container_id);
                known.container.destroy()?;
                known.run.retire()?;
            }
            Order::Terminate(_) => {
                if let Some(executor) = &known.executor {
                    executor.terminate()?;
                }
            }
            Order::Warn(_, signal, ends_at, cause) => {
                // The signal goes out also where the file cannot be written.
                let written = known.run.write_warning(ends_at.as_ms(), &cause);
                if let (true, Some(executor)) = (signal, &known.executor) {
                    executor.warn()?;
                }
                written?;
            }
            Order::Kill(_) => match &known.executor {
                Some(executor) => executor.kill(&known.container)?,
                None => known.container.kill_all()?,
            },
            Order::Throttle(_, cap) => known.container.throttle(cap)?,
            Order::LimitNetwork(container_id, cap) => {
                self.sampler.limit_network(container_id, Limit::Cap(cap));
            }
            Order::ReclaimMemory(_, to_bytes) => known.container.reclaim_memory(to_bytes)?,
            Order::Freeze(_, true) => known.container.freeze()?,
            Order::Freeze(_, false) => known.container.thaw()?,
            Order::Resize(container_id, resources) => {
                let limit = known.container.limits().cpu_limit_milli;
                let limits = self.limits(&resources, limit);
                let own = Limit::Own(limits.network_bytes_per_s);
                self.sampler.limit_network(container_id, own);
                known.container.resize(&limits)?;
            }
        }
        Ok(())
    }

    /// What a container may use: memory and bandwidth are limits, CPU is a claim.
    fn limits(&self, resources: &Resources, cpu_limit_milli: Option<u64>) -> Limits {
        let amount = |kind| Some(resources.total(kind)).filter(|amount| *amount > 0);
        let bandwidth = amount(ResourceKind::DiskBandwidth);
        Limits {
            cpu_milli: resources.total(ResourceKind::Cpus),
            cpu_limit_milli,
            mem_bytes: amount(ResourceKind::Mem),
            pids: None,
            disk: self
                .device
                .zip(bandwidth)
                .map(|(device, bytes_per_s)| DiskLimits {
                    device,
                    read_bytes_per_sec: Some(bytes_per_s),
                    write_bytes_per_sec: Some(bytes_per_s),
                }),
            network_bytes_per_s: amount(ResourceKind::NetworkBandwidth),
            revocable: resources.is_revocable(),
        }
    }

    fn tell(&self, input: Input) {
        // The loop outlives its threads; if it is gone, nobody wants to know.
        let _ = self.events.blocking_send(Event::from(input));
    }

    fn launch(self: &Arc<Self>, order: &LaunchOrder) {
        let container_id = order.container_id.clone();
        let failed = |cancelled, message| Input::StartFailed {
            container_id: container_id.clone(),
            cancelled,
            message,
        };
        if locked(&self.cancelled).remove(&container_id) {
            self.tell(failed(true, String::new()));
            return;
        }
        let request = self.request(order);
        let measured = |container: &Container| {
            self.sampler
                .register(container_id.clone(), &container.paths(), &request.limits);
        };
        match self.runtime.launch_measured(&request, measured) {
            Err(error) => {
                self.sampler.unregister(container_id.clone());
                self.metrics.container_fault("launch");
                self.tell(failed(false, chain(&error)));
            }
            Ok(launched) => {
                let executor = Arc::new(launched.executor);
                let known = Known {
                    executor: Some(Arc::clone(&executor)),
                    run: executor.run().clone(),
                    container: launched.container,
                };
                locked(&self.known).insert(container_id.clone(), Arc::new(known));
                self.watch(container_id, executor, Some(launched.start));
            }
        }
    }

    fn request(&self, order: &LaunchOrder) -> LaunchRequest {
        let key = run_key(order);
        let mut environment: BTreeMap<String, String> = BTreeMap::new();
        environment.extend(order.environment.iter().cloned());
        if let Ok(run) = self.runtime.run_dir(&key) {
            let sandbox = run.sandbox().display().to_string();
            environment.insert("EBB_SANDBOX".to_owned(), sandbox);
        }
        if order.executor_id.is_some() {
            let socket = self.executor_socket.display().to_string();
            environment.insert("EBB_AGENT_SOCKET".to_owned(), socket);
        }
        environment.extend(order.command.environment.iter().cloned());
        // Which GPUs and devices it has is not the task's to say.
        let is_kept = |name: &str| name == GPUS_VARIABLE || name == DISKS_VARIABLE;
        let kept = order.environment.iter();
        environment.extend(kept.filter(|(name, _)| is_kept(name)).cloned());
        LaunchRequest {
            framework_id: key.framework_id,
            task_id: key.task_id,
            container_id: key.container_id,
            command: CommandSpec {
                shell: order.command.shell,
                value: order.command.value.clone(),
                arguments: order.command.arguments.clone(),
                environment,
            },
            user: Some(order.user.clone()).filter(|user| !user.is_empty()),
            hostname: None,
            limits: self.limits(&order.resources, order.cpu_limit_milli),
            warn_signal: order.warn_signal,
            volumes: order.volumes.iter().map(volume).collect(),
            devices: (!self.devices.is_empty()).then(|| self.devices_of(order)),
        }
    }

    /// The devices that a container has.
    fn devices_of(&self, order: &LaunchOrder) -> Vec<DeviceSpec> {
        let devices = self.devices.iter();
        let taken = devices.filter(|(name, _)| order.devices.contains(*name));
        taken
            .map(|(name, path)| DeviceSpec {
                name: name.clone(),
                path: path.clone(),
            })
            .collect()
    }

    /// Waits for a container's start, if that is still to come, and for its end.
    fn watch(
        self: &Arc<Self>,
        container_id: ContainerId,
        executor: Arc<Executor>,
        start: Option<StartSignal>,
    ) {
        let shared = Arc::clone(self);
        self.tokio.spawn(async move {
            let started = match start {
                Some(start) => shared.await_start(&container_id, start).await,
                None => true,
            };
            let (exit, never_ran) = match shared.await_exit(executor).await {
                Ok(record) => (exit_of(&record), never_ran(&record.outcome)),
                Err(reason) => {
                    shared.metrics.container_fault("reap");
                    tracing::warn!(container = %container_id, reason, "how it ended is not known");
                    (Exit::default(), None)
                }
            };
            let input = match never_ran {
                Some((cancelled, message)) if !started => Input::StartFailed {
                    container_id,
                    cancelled,
                    message,
                },
                _ => Input::Exited { container_id, exit },
            };
            let _ = shared.events.send(Event::from(input)).await;
        });
    }

    async fn await_start(&self, container_id: &ContainerId, start: StartSignal) -> bool {
        if let Err(error) = readable(&start).await {
            tracing::warn!(container = %container_id, %error, "the start cannot be awaited");
        }
        // It is readable: reading it does not block.
        let started = start.read().is_some();
        if started {
            let container_id = container_id.clone();
            let input = Input::Started { container_id };
            let _ = self.events.send(Event::from(input)).await;
        }
        started
    }

    async fn await_exit(&self, executor: Arc<Executor>) -> Result<ExitRecord, String> {
        readable(&*executor)
            .await
            .map_err(|error| format!("its end cannot be awaited: {error}"))?;
        let read = tokio::task::spawn_blocking(move || executor.try_exit()).await;
        match read {
            Ok(Ok(Some(record))) => Ok(record),
            Ok(Ok(None)) => Err("its executor has ended and says that it has not".to_owned()),
            Ok(Err(error)) => Err(chain(&error)),
            Err(error) => Err(error.to_string()),
        }
    }
}

/// The core's words for the end of a run.
fn exit_of(record: &ExitRecord) -> Exit {
    let (status, launch_error) = match &record.outcome {
        Outcome::Exited { code } => (Some(ExitStatus::Code(*code)), None),
        Outcome::Signaled { signal } => (Some(ExitStatus::Signal(*signal)), None),
        Outcome::LaunchFailed { error } => (None, Some(error.clone())),
        Outcome::NeverStarted { .. } | Outcome::Lost { .. } => (None, None),
    };
    Exit {
        status,
        oom: record.oom_killed(),
        launch_error,
    }
}

/// Whether a run ended before its program ran: whether because it was taken back, and why.
fn never_ran(outcome: &Outcome) -> Option<(bool, String)> {
    match outcome {
        Outcome::NeverStarted { .. } => Some((true, String::new())),
        Outcome::LaunchFailed { error } => Some((false, error.clone())),
        Outcome::Exited { .. } | Outcome::Signaled { .. } | Outcome::Lost { .. } => None,
    }
}

/// The folder of what is launched: frameworks' own executors stand among the tasks, under their id.
fn run_key(order: &LaunchOrder) -> RunKey {
    let task = order.task_id.as_ref().map(ToString::to_string);
    let executor = order.executor_id.as_ref().map(ToString::to_string);
    RunKey {
        framework_id: order.framework_id.to_string(),
        task_id: task.or(executor).unwrap_or_default(),
        container_id: order.container_id.to_string(),
    }
}

fn volume(mount: &VolumeMount) -> VolumeSpec {
    VolumeSpec {
        source: PathBuf::from(&mount.folder),
        target: PathBuf::from(&mount.container_path),
        read_only: mount.read_only,
        shared: mount.shared,
    }
}

/// Waits until a descriptor is readable.
async fn readable(of: &impl AsFd) -> std::io::Result<()> {
    let own: OwnedFd = of.as_fd().try_clone_to_owned()?;
    readiness::readable(own)?.readable().await.map(drop)
}

/// An error with all its causes, as one sentence.
pub fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        let part = next.to_string();
        if !text.contains(&part) {
            text.push_str(": ");
            text.push_str(&part);
        }
        cause = next.source();
    }
    text
}
