//! Starting and ending an agent: what is done once.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

use ebb_types::{ContainerId, DiskSource, Incarnation, Lots, Timestamp};
use tokio::sync::mpsc;

use crate::AgentError;
use crate::cgroup::{BlockDevice, CgroupRoot, Mounts};
use crate::checkpoint::WorkDir;
use crate::checkpoint::journal::Opened;
use crate::checkpoint::past::{self, Keeper};
use crate::checkpoint::writer::Writer;
use crate::config::Config;
use crate::containers::{self, Containers, Recovered, Tools};
use crate::core::{Core, CoreConfig, Found, Place, VOLUMES, folders, with_dynamic};
use crate::devices::{self, Devices};
use crate::driver::{Clock, Driver, Event, Parts};
use crate::machine;
use crate::metrics::Metrics;
use crate::pins;
use crate::probe::Facts;
use crate::runtime::{Runtime, leftovers};
use crate::sampling;
use crate::services::sandbox::LiveTasks;

/// How often sandboxes are looked at whose time is over.
const COLLECT_INTERVAL: Duration = Duration::from_secs(3600);

/// What was found on disk and of the machine.
pub(crate) struct Prepared {
    pub(crate) work_dir: WorkDir,
    opened: Opened,
    runtime: Runtime,
    device: Option<BlockDevice>,
    devices: Devices,
    recovered: Recovered,
    core_config: CoreConfig,
    facts: Facts,
    sampling: sampling::Setup,
}

/// An agent that is about to run.
pub(crate) struct Assembled {
    pub(crate) driver: Driver,
    pub(crate) found: BTreeMap<ContainerId, Found>,
    pub(crate) runtime: Runtime,
    pub(crate) live: Arc<LiveTasks>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) measures: String,
    pub(crate) sampler_thread: JoinHandle<()>,
    pub(crate) incarnation: Incarnation,
    pub(crate) work_dir: WorkDir,
}

/// Looks at disk and machine. Blocks.
pub(crate) fn prepare(config: &Config, address: SocketAddr) -> Result<Prepared, AgentError> {
    if !rustix::process::geteuid().is_root() {
        return Err(AgentError::NotRoot);
    }
    raise_descriptor_limit();
    let work_dir = WorkDir::open(&config.work_dir)?;
    let opened = work_dir.journal()?;
    if opened.torn_bytes > 0 {
        tracing::warn!(
            bytes = opened.torn_bytes,
            "the journal's last write was not complete; it was cut off"
        );
    }
    let identity = work_dir.identity().clone();
    let mounts = Mounts::detect()?;
    devices::check(&config.lots, &config.devices, work_dir.path(), mounts.v2())
        .map_err(|rule| AgentError::Devices { rule })?;
    for (disk, device) in &config.devices {
        tracing::info!(disk, device = %device.display(), "given to tasks as a device");
    }
    let facts = Facts::gather();
    let packets = sampling::packets(&facts);
    let found = machine::find(&config.resources, work_dir.path(), &mounts, &packets)?;
    for (kind, source) in &found.sources {
        let amount = found.total.get(*kind);
        tracing::info!(resource = kind.name(), amount, source, "offered");
    }
    let cgroup2 = mounts.v2().map(Path::to_owned);
    let cgroups = CgroupRoot::prepare(mounts, &config.cgroup_base, &identity.instance)?;
    let mut runtime = Runtime::new(work_dir.path(), &identity.instance, cgroups)?;
    if let Some(exe) = &config.executor_exe {
        runtime = runtime.with_executor_exe(exe);
    }
    let recovered = containers::recover(&runtime, &config.devices)?;
    if recovered.orphans_removed > 0 {
        tracing::warn!(
            count = recovered.orphans_removed,
            "containers of no known run were removed"
        );
    }
    let pins = || pins::folder(&config.cgroup_base, &identity.instance, cgroup2.as_deref());
    let sampling = sampling::Setup {
        quick: Duration::from_millis(config.measure.quick_ms),
        full: Duration::from_millis(config.measure.full_ms),
        pins: config.measure.pin.then(pins).flatten(),
    };
    let lots = with_dynamic(&config.lots, &found.total, &opened.restored.lots)
        .map_err(|rule| AgentError::Lots { rule })?;
    remove_leftovers(work_dir.path(), &identity.instance, &lots);
    let core_config = CoreConfig {
        hostname: machine::hostname(config.hostname.as_deref(), address),
        port: address.port(),
        total: found.total,
        lots: config.lots.clone(),
        work_dir: work_dir.path().display().to_string(),
        attributes: config.attributes.clone(),
        domain: config.domain.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        container_prefix: identity.instance,
        lending: config.lending,
    };
    Ok(Prepared {
        device: BlockDevice::behind(work_dir.path()).ok(),
        devices: config.devices.clone(),
        work_dir,
        opened,
        runtime,
        recovered,
        core_config,
        facts,
        sampling,
    })
}

/// Removes what is left of volumes that are no more.
fn remove_leftovers(work_dir: &Path, instance: &str, lots: &Lots) {
    let work_dir = work_dir.display().to_string();
    let roots = lots.iter().filter_map(|(key, _)| match key.source() {
        Some(DiskSource::Path { root } | DiskSource::Mount { root }) => Some(root.as_str()),
        _ => None,
    });
    let place = Place {
        work_dir: &work_dir,
        instance,
    };
    let kept = folders(place, lots);
    let roots = roots.chain([work_dir.as_str()]);
    let found = leftovers(
        roots.map(|root| Path::new(root).join(VOLUMES).join(instance)),
        &kept,
    );
    let removed = found.and_then(|left| {
        left.iter().try_for_each(|path| {
            tracing::info!(folder = %path.display(), "the data of a volume that is no more are removed");
            std::fs::remove_dir_all(path)
        })
    });
    if let Err(error) = removed {
        tracing::warn!(%error, "what is left of old volumes cannot be removed");
    }
}

/// As many descriptors as the system allows: each task needs a few.
fn raise_descriptor_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        tracing::warn!(%error, "the limit of open files cannot be raised; fewer tasks can run");
    }
}

/// Puts the agent together and starts its threads.
pub(crate) fn assemble(
    prepared: Prepared,
    socket: &Path,
    events: mpsc::Sender<Event>,
) -> Result<Assembled, AgentError> {
    let incarnation = prepared.work_dir.identity().incarnation;
    let metrics = Arc::new(Metrics::new());
    let (sampler, measures, sampler_thread) = sampling::start(
        &prepared.sampling,
        &prepared.facts,
        events.clone(),
        Arc::clone(&metrics),
    )
    .map_err(AgentError::Thread)?;
    tracing::info!("{measures}");
    let containers = Containers::start(Tools {
        runtime: prepared.runtime.clone(),
        device: prepared.device,
        devices: prepared.devices,
        executor_socket: socket.to_owned(),
        sampler: sampler.clone(),
        events,
        metrics: Arc::clone(&metrics),
    })
    .map_err(AgentError::Thread)?;
    let found = prepared.recovered.found.clone();
    containers.adopt(prepared.recovered);
    sampler.settle();
    let writer =
        Writer::start(prepared.opened.journal, Arc::clone(&metrics)).map_err(AgentError::Thread)?;
    let keeper = Keeper::start(prepared.work_dir.past_path(), Arc::clone(&metrics))
        .map_err(AgentError::Thread)?;
    let mut core = Core::new(prepared.core_config, prepared.opened.restored, incarnation);
    let clock = Clock::start();
    take_up_past(
        &mut core,
        clock.now(),
        &prepared.work_dir.past_path(),
        &metrics,
    );
    let live = Arc::new(LiveTasks::default());
    let driver = Driver::new(Parts {
        core,
        clock,
        writer,
        keeper,
        containers,
        live: Arc::clone(&live),
        sampler,
        metrics: Arc::clone(&metrics),
    });
    Ok(Assembled {
        driver,
        found,
        runtime: prepared.runtime,
        live,
        metrics,
        measures,
        sampler_thread,
        incarnation,
        work_dir: prepared.work_dir,
    })
}

/// What was learnt of tasks before a restart. What is of no use is thrown away, and a file that cannot be read with it; one
/// of which a part was taken up stands until it is replaced.
fn take_up_past(core: &mut Core, now: Timestamp, path: &Path, metrics: &Metrics) {
    let unfit = match past::read(path) {
        Ok(None) => return,
        Ok(Some(past)) => {
            if let Err(unfit) = core.take_up_past(now, past) {
                metrics.past_fault("past_unfit");
                let path = path.display();
                tracing::warn!(%path, "what lending had learnt before the restart is thrown away: {unfit}");
            }
            return;
        }
        Err(unfit) => unfit,
    };
    metrics.past_fault("past_unfit");
    tracing::warn!("what was learnt of tasks before the restart is thrown away: {unfit}");
    if let Err(error) = std::fs::remove_file(path) {
        tracing::warn!(%error, path = %path.display(), "it cannot be removed");
    }
}

/// Removes sandboxes whose time is over, now and once an hour.
pub(crate) async fn collect_sandboxes(runtime: Runtime, keep_ms: u64, metrics: Arc<Metrics>) {
    let mut interval = tokio::time::interval(COLLECT_INTERVAL);
    loop {
        interval.tick().await;
        let runtime = runtime.clone();
        let collect = move || runtime.collect(SystemTime::now(), Duration::from_millis(keep_ms));
        match tokio::task::spawn_blocking(collect).await {
            Ok(Ok(collected)) => {
                metrics.collected(collected.removed);
                for (path, cause) in collected.failed {
                    tracing::warn!(path = %path.display(), cause, "a sandbox cannot be removed");
                }
            }
            Ok(Err(error)) => {
                tracing::warn!(error = %containers::chain(&error), "sandboxes cannot be looked at");
            }
            Err(error) => tracing::warn!(%error, "looking at sandboxes has failed"),
        }
    }
}

/// Ends the threads. After a clean end nothing of the agent is left but its work folder. Blocks.
pub(crate) fn wind_up(
    driver: Driver,
    sampler: JoinHandle<()>,
    runtime: &Runtime,
    clean: bool,
    socket: &Path,
) {
    driver.finish();
    // A thread that has panicked has said so.
    let _ = sampler.join();
    if let Err(error) = std::fs::remove_file(socket) {
        tracing::warn!(%error, "the executors' socket cannot be removed");
    }
    if !clean {
        return;
    }
    match runtime.cgroups().remove() {
        Ok(true) => {}
        Ok(false) => tracing::warn!("cgroups are left, since containers are"),
        Err(error) => {
            tracing::warn!(error = %containers::chain(&error), "the agent's cgroups cannot be removed");
        }
    }
}
