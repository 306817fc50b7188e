//! The agent's measurements: what each container uses and waits for, and what the machine has.
//!
//! **Problem.** Every later decision (what to lend, when to take it back) rests on these figures, on
//! machines of which some have eBPF and all controllers, and some little of either.
//!
//! **Way.** [`Facts`] says what is so here, [`plan`](plan::plan) decides once from where each figure
//! comes, [`Sampler`] reads. Where the kernel refuses the probes, or has no slot left for a
//! container, the same figure comes from cgroup files, and says so.
//!
//! **Invariants.** Figures are absolute counters in nanoseconds, bytes and counts, or momentary
//! sizes; taking differences is the reader's task. A figure that was not measured is `None`, never
//! 0. A figure whose source has changed since the last sample starts anew. Nothing here blocks but
//! for the system calls, keeps a clock of its own, or remembers a sample.
//!
//! **Price.** A quick sample of 100 containers costs about 100 system calls; a full one ten times as
//! many, of which those of `memory.stat` are the dearest.

mod bpf;
mod btf;
mod files;
mod plan;
mod support;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use ebb_agent_ebpf_common::{DEFAULT_SLOTS, Preemptor, SlotCounters};
use ebb_types::MeasureSource;

pub use self::bpf::{ProbeCost, ProbeError, Probes, built_in_object};
pub use self::files::{CgroupPaths, ContainerFiles, HostFiles};
pub use self::plan::{Choice, Plan, plan};
pub use self::support::{Facts, KernelFields};
pub use ebb_agent_ebpf_common::{Class, HIST_BUCKETS};

/// A figure and where it was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Figure<T> {
    /// The figure.
    pub value: T,
    /// Its source.
    pub source: MeasureSource,
}

/// Time between becoming runnable and running, of all tasks of a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RunQueue {
    /// The sum.
    pub wait_ns: u64,
    /// How many waits.
    pub wait_count: u64,
    /// How many of `2^i <= ns < 2^(i+1)`; the last bucket is open.
    pub wait_hist: [u64; HIST_BUCKETS],
}

/// Context switches away from a container's tasks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Switches {
    /// The task blocked, slept or exited.
    pub voluntary: u64,
    /// It was still runnable, and another task of its container came.
    pub preempted_by_same: u64,
    /// A task of a revocable container came.
    pub preempted_by_revocable: u64,
    /// A task of a container that is not revocable came.
    pub preempted_by_owned: u64,
    /// A task of no container came.
    pub preempted_by_unmanaged: u64,
    /// None came: its CPU quota was used up.
    pub preempted_by_idle: u64,
}

impl Switches {
    /// Departures of tasks that were still runnable.
    pub fn involuntary(&self) -> u64 {
        self.preempted_by_same
            + self.preempted_by_revocable
            + self.preempted_by_owned
            + self.preempted_by_unmanaged
            + self.preempted_by_idle
    }
}

/// Time that a container's own CPU quota held it back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Throttling {
    /// Enforcement periods in which it ran.
    pub periods: u64,
    /// Those in which the quota was used up.
    pub throttled_periods: u64,
    /// Time held back, summed over its run queues.
    pub throttled_ns: u64,
}

/// Memory of a container.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// All that is charged to it, page cache included.
    pub usage_bytes: u64,
    /// Page cache that can be reclaimed without harm.
    pub inactive_file_bytes: Option<u64>,
    /// Anonymous memory.
    pub anon_bytes: Option<u64>,
    /// Its limit, if it has one.
    pub limit_bytes: Option<u64>,
    /// Page faults that had to read from disk.
    pub major_faults: Option<u64>,
    /// Processes killed for want of memory.
    pub oom_kills: Option<u64>,
}

impl Memory {
    /// What cannot be taken from it without harm: all but the inactive page cache.
    pub fn working_set_bytes(&self) -> u64 {
        self.usage_bytes
            .saturating_sub(self.inactive_file_bytes.unwrap_or(0))
    }
}

/// Traffic of a container with block devices, over all devices.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Disk {
    /// Read.
    pub read_bytes: u64,
    /// Written. Of buffered writes, what writeback has issued on the container's behalf.
    pub write_bytes: u64,
    /// Read operations.
    pub read_count: Option<u64>,
    /// Write operations.
    pub write_count: Option<u64>,
}

/// Time that tasks of a container stood still (PSI).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pressure {
    /// At least one waited for a CPU.
    pub cpu_some_ns: u64,
    /// At least one waited for memory.
    pub memory_some_ns: u64,
    /// All that were not idle waited for memory.
    pub memory_full_ns: u64,
    /// At least one waited for a disk.
    pub io_some_ns: u64,
    /// All that were not idle waited for a disk.
    pub io_full_ns: u64,
}

/// What a container has used since it was registered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ContainerCounters {
    /// Time on the CPUs.
    pub on_cpu_ns: Option<Figure<u64>>,
    /// Run-queue latency; from the probes only.
    pub run_queue: Option<RunQueue>,
    /// Context switches; from the probes only.
    pub switches: Option<Switches>,
    /// Throttling by its own quota; in full samples.
    pub throttling: Option<Throttling>,
    /// Memory; in full samples.
    pub memory: Option<Memory>,
    /// Disk; in full samples.
    pub disk: Option<Disk>,
    /// Pressure; in full samples.
    pub pressure: Option<Pressure>,
}

/// What the machine has and has used since it was booted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HostCounters {
    /// CPUs.
    pub cpus: Option<u32>,
    /// Time in which CPUs worked, summed over them.
    pub busy_ns: Option<u64>,
    /// Time in which they did not.
    pub idle_ns: Option<u64>,
    /// Time in which the hypervisor withheld them.
    pub steal_ns: Option<u64>,
    /// Memory in all.
    pub mem_total_bytes: Option<u64>,
    /// Memory that can be had without swapping.
    pub mem_available_bytes: Option<u64>,
    /// Memory that nothing uses, not even as cache.
    pub mem_free_bytes: Option<u64>,
}

/// One reading of everything.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sample<K> {
    /// When, by the kernel's monotonic clock.
    pub taken_ns: u64,
    /// The machine.
    pub host: HostCounters,
    /// Each registered container, in the order of the keys.
    pub containers: Vec<(K, ContainerCounters)>,
    /// All that belongs to no container; from the probes only.
    pub unmanaged: Option<ContainerCounters>,
}

/// How much to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Detail {
    /// CPU figures and the machine: what is needed to notice interference in time.
    Quick,
    /// Everything.
    Full,
}

/// What was lost or done another way, since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Losses {
    /// Containers that got no slot of the probes and are measured by files.
    pub without_slot: u64,
    /// Readings of the probes that failed and gave way to files.
    pub failed_reads: u64,
    /// Containers that the probes could not be made to forget at once.
    pub failed_unregisters: u64,
    /// Tasks that could not be charged at a reading, and were at their next switch.
    pub late_charges: u64,
    /// Context switches that the kernel did not show to the probes. What ran is charged at its
    /// next switch or reading; only the moments of a task that ends unseen are lost.
    pub missed_switches: u64,
}

struct Registered {
    /// Set while the probes have a slot for it.
    cgroup_id: Option<u64>,
    files: ContainerFiles,
}

/// Reads all figures of all registered containers, each from the best source there is.
pub struct Sampler<K> {
    plan: Plan,
    cgroup2: Option<std::path::PathBuf>,
    probes: Option<Probes>,
    message: String,
    containers: BTreeMap<K, Registered>,
    host: HostFiles,
    losses: Losses,
}

impl<K: Clone + Ord> Sampler<K> {
    /// Loads the probes if the facts allow it; else, or if the kernel refuses them, measures by
    /// files. `object` is [`built_in_object`] but for tests.
    pub fn new(facts: &Facts, object: Option<&[u8]>) -> Self {
        Self::with_slots(facts, object, DEFAULT_SLOTS)
    }

    /// The same with room for another number of containers.
    pub fn with_slots(facts: &Facts, object: Option<&[u8]>, slots: u32) -> Self {
        let mut plan = plan::plan(facts, object.is_some());
        let mut message = format!("containers are measured by files: {}", plan.on_cpu.why);
        let mut probes = None;
        if let (Some(fields), Some(object)) = (&plan.attach, object) {
            match Probes::load(object, fields, slots.max(2)) {
                Ok(loaded) => {
                    probes = Some(loaded);
                    message = "containers are measured by eBPF".to_owned();
                }
                Err(error) => {
                    let why = error.to_string();
                    message = format!("containers are measured by files: {why}");
                    plan = Plan::without_probes(facts, &why);
                }
            }
        }
        Self {
            plan,
            cgroup2: facts.cgroup2.clone(),
            probes,
            message,
            containers: BTreeMap::new(),
            host: HostFiles::open(),
            losses: Losses::default(),
        }
    }

    /// From where each figure comes, and why.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// One sentence for the log: how containers are measured, and if not by the probes, why.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// Whether the probes are attached.
    pub fn has_probes(&self) -> bool {
        self.probes.is_some()
    }

    /// What was lost or done another way.
    pub fn losses(&self) -> Losses {
        let probes = self.probes.as_ref();
        Losses {
            late_charges: probes.map_or(0, Probes::flush_failures),
            missed_switches: probes.map_or(0, Probes::missed_switches),
            ..self.losses
        }
    }

    /// What the probes have cost; empty without probes.
    pub fn costs(&self) -> Vec<ProbeCost> {
        self.probes.as_ref().map(Probes::costs).unwrap_or_default()
    }

    /// Slots of the probes: taken and in all.
    pub fn slots(&self) -> (usize, u32) {
        self.probes
            .as_ref()
            .map_or((0, 0), |probes| (probes.registered(), probes.capacity()))
    }

    /// Measures a container from now on, whose cgroups exist. A key that is registered already is
    /// registered anew. The error says why the probes do not measure it; files then do.
    pub fn register(
        &mut self,
        key: K,
        paths: &CgroupPaths,
        revocable: bool,
    ) -> Result<(), ProbeError> {
        self.unregister(&key);
        let class = if revocable {
            Class::Revocable
        } else {
            Class::Owned
        };
        let mut registered = Registered {
            cgroup_id: None,
            files: ContainerFiles::open(paths),
        };
        let mut outcome = Ok(());
        if let (Some(probes), Some(mount)) = (&mut self.probes, &self.cgroup2) {
            outcome = cgroup_place(mount, paths.v2.as_deref())
                .and_then(|(id, depth)| probes.register(id, depth, class).map(|()| id))
                .map(|id| registered.cgroup_id = Some(id));
            if outcome.is_err() {
                self.losses.without_slot += 1;
            }
        }
        self.containers.insert(key, registered);
        outcome
    }

    /// Stops measuring a container. Does nothing for an unknown one.
    pub fn unregister(&mut self, key: &K) {
        let Some(registered) = self.containers.remove(key) else {
            return;
        };
        if let (Some(probes), Some(id)) = (&mut self.probes, registered.cgroup_id)
            && probes.unregister(id).is_err()
        {
            self.losses.failed_unregisters += 1;
        }
    }

    /// Reads.
    pub fn sample(&mut self, detail: Detail) -> Sample<K> {
        let taken_ns = monotonic_ns();
        let ids: Vec<u64> = self
            .containers
            .values()
            .filter_map(|one| one.cgroup_id)
            .collect();
        let read = self.probes.as_mut().map(|probes| probes.read(&ids));
        let (slots, unmanaged) = match read {
            Some(Ok((slots, unmanaged))) => (slots, Some(unmanaged)),
            Some(Err(_)) => {
                self.losses.failed_reads += 1;
                (Vec::new(), None)
            }
            None => (Vec::new(), None),
        };
        let has_wait = self.plan.run_queue.source.is_some();
        let mut slots = slots.into_iter();
        let mut containers = Vec::with_capacity(self.containers.len());
        for (key, registered) in &mut self.containers {
            let slot = registered.cgroup_id.and_then(|_| slots.next().flatten());
            let mut counters = slot
                .map(|slot| from_slot(&slot, has_wait))
                .unwrap_or_default();
            let files = &mut registered.files;
            if counters.on_cpu_ns.is_none() {
                let source = MeasureSource::Files;
                counters.on_cpu_ns = files.on_cpu_ns().map(|value| Figure { value, source });
            }
            if detail == Detail::Full {
                counters.throttling = files.throttling();
                counters.memory = files.memory();
                counters.disk = files.disk();
                counters.pressure = files.pressure();
            }
            containers.push((key.clone(), counters));
        }
        Sample {
            taken_ns,
            host: self.host.read(),
            containers,
            unmanaged: unmanaged.map(|slot| from_slot(&slot, has_wait)),
        }
    }
}

fn from_slot(slot: &SlotCounters, has_wait: bool) -> ContainerCounters {
    let preempted = |by: Preemptor| slot.preempted_by[by as usize];
    ContainerCounters {
        on_cpu_ns: Some(Figure {
            value: slot.on_cpu_ns,
            source: MeasureSource::Ebpf,
        }),
        run_queue: has_wait.then_some(RunQueue {
            wait_ns: slot.wait_ns,
            wait_count: slot.wait_count,
            wait_hist: slot.wait_hist,
        }),
        switches: Some(Switches {
            voluntary: slot.voluntary,
            preempted_by_same: preempted(Preemptor::Same),
            preempted_by_revocable: preempted(Preemptor::Revocable),
            preempted_by_owned: preempted(Preemptor::Owned),
            preempted_by_unmanaged: preempted(Preemptor::Unmanaged),
            preempted_by_idle: preempted(Preemptor::Idle),
        }),
        ..ContainerCounters::default()
    }
}

/// The v2 id of a cgroup (its folder's inode) and its depth below the root.
fn cgroup_place(mount: &Path, folder: Option<&Path>) -> Result<(u64, u32), ProbeError> {
    let unplaced = |cause: String| ProbeError::Unplaced { cause };
    let folder = folder.ok_or_else(|| unplaced("it has no cgroup in the v2 tree".to_owned()))?;
    let below = folder.strip_prefix(mount).map_err(|_| {
        unplaced(format!(
            "{} is not below {}",
            folder.display(),
            mount.display()
        ))
    })?;
    let meta =
        fs::metadata(folder).map_err(|error| unplaced(format!("{}: {error}", folder.display())))?;
    let depth = u32::try_from(below.components().count()).unwrap_or(u32::MAX);
    Ok((meta.ino(), depth))
}

fn monotonic_ns() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    let nanoseconds = u64::try_from(now.tv_nsec).unwrap_or(0);
    seconds * 1_000_000_000 + nanoseconds
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_the_inode_and_the_depth() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("a/b");
        fs::create_dir_all(&folder).unwrap();
        let (id, depth) = cgroup_place(root.path(), Some(&folder)).unwrap();
        assert_eq!(id, fs::metadata(&folder).unwrap().ino());
        assert_eq!(depth, 2);
        for bad in [
            None,
            Some(Path::new("/")),
            Some(root.path().join("absent").as_path()),
        ] {
            let error = cgroup_place(root.path(), bad).unwrap_err();
            assert!(matches!(error, ProbeError::Unplaced { .. }), "{error}");
        }
    }

    #[test]
    fn without_probes_containers_are_measured_by_files_and_the_message_says_why() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("cpu.stat"), "usage_usec 5\n").unwrap();
        let mut sampler: Sampler<u32> = Sampler::new(&Facts::gather(), None);
        assert!(!sampler.has_probes());
        assert!(
            sampler.message().contains("built without the probes"),
            "{}",
            sampler.message()
        );
        let paths = CgroupPaths {
            v2: Some(folder.path().to_owned()),
            ..CgroupPaths::default()
        };
        sampler.register(7, &paths, true).unwrap();
        let first = sampler.sample(Detail::Quick);
        let expected = Figure {
            value: 5000,
            source: MeasureSource::Files,
        };
        assert_eq!(first.containers.len(), 1);
        assert_eq!(first.containers[0].1.on_cpu_ns, Some(expected));
        assert_eq!(first.containers[0].1.run_queue, None);
        assert_eq!(first.unmanaged, None);
        let second = sampler.sample(Detail::Full);
        assert!(second.taken_ns > first.taken_ns);
        sampler.unregister(&7);
        assert!(sampler.sample(Detail::Full).containers.is_empty());
    }

    #[test]
    fn a_slot_keeps_preemptors_apart() {
        let mut slot = SlotCounters::ZERO;
        slot.on_cpu_ns = 9;
        slot.preempted_by = [1, 2, 4, 8, 16];
        let counters = from_slot(&slot, false);
        let switches = counters.switches.unwrap();
        assert_eq!(switches.preempted_by_same, 1);
        assert_eq!(switches.preempted_by_revocable, 2);
        assert_eq!(switches.preempted_by_owned, 4);
        assert_eq!(switches.preempted_by_unmanaged, 8);
        assert_eq!(switches.preempted_by_idle, 16);
        assert_eq!(switches.involuntary(), 31);
        assert_eq!(
            counters.run_queue, None,
            "what the kernel does not keep is absent"
        );
    }
}
