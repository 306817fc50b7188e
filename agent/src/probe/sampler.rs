//! Reads all figures of all registered containers, each from the best source there is.
//!
//! The probes are read at once for all containers, files for each; a container that the probes do
//! not measure, or a reading of them that fails, gives way to files and is counted.

use std::collections::BTreeMap;
use std::fs;
use std::os::fd::BorrowedFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use ebb_agent_ebpf_common::{Class, DEFAULT_SLOTS, IoCounters, SlotCounters, Traffic, Tree};

use super::bpf::{Last, Place, ProbeCost, Probes};
use super::error::ProbeError;
use super::figures::{ContainerCounters, Detail, Losses, OomEvent, Sample, disk_from_probes};
use super::files::{CgroupPaths, ContainerFiles, HostFiles};
use super::plan::{self, Attach, Part, Plan};
use super::support::Facts;
use super::surge::Ordinary;

/// Most last readings and kills that wait for the next sample; what is more is counted as lost.
const MAX_WAITING: usize = 4096;

/// How a sampler is set up.
#[derive(Clone, Debug)]
pub struct Options {
    /// Room for so many containers, one of them for all that belongs to none.
    pub slots: u32,
    /// A folder on the bpf file system: the probes stay attached when this process ends, and the next one that names
    /// it goes on where this one stopped.
    pub pins: Option<PathBuf>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            slots: DEFAULT_SLOTS,
            pins: None,
        }
    }
}

struct Registered {
    /// Set while the probes have a slot for it.
    cgroup_id: Option<u64>,
    revocable: bool,
    files: ContainerFiles,
    ordinary: Ordinary,
    /// Whether the probes tell of its demand, unless they have.
    listened_to: bool,
}

impl Registered {
    /// Learns what is ordinary, and has the probes tell what is not, if it is to be `heard`.
    fn listen(&mut self, taken_ns: u64, slot: &SlotCounters, heard: bool, probes: &mut Probes) {
        let Some(id) = self.cgroup_id.filter(|_| !self.revocable) else {
            return;
        };
        let waits_ns = slot.wait_ns.saturating_sub(slot.wait_own_ns);
        let demanded_ns = slot.on_cpu_ns.saturating_add(waits_ns);
        let told = self.listened_to && probes.has_told(id);
        let limit_ns = self.ordinary.step(taken_ns, demanded_ns, told);
        let limit_ns = limit_ns.filter(|_| heard).unwrap_or(0);
        if limit_ns > 0 || self.listened_to {
            probes.tell_beyond(id, limit_ns);
        }
        self.listened_to = limit_ns > 0;
    }
}

/// Reads all figures of all registered containers, each from the best source there is.
pub struct Sampler<K> {
    plan: Plan,
    mounts: Mounts,
    probes: Option<Probes>,
    message: String,
    containers: BTreeMap<K, Registered>,
    host: HostFiles,
    losses: Losses,
    ended: Vec<(K, ContainerCounters)>,
    kills: Vec<OomEvent<K>>,
}

/// Where the trees are mounted in which containers are known to the probes.
struct Mounts {
    v2: Option<PathBuf>,
    cpu: Option<PathBuf>,
    memory: Option<PathBuf>,
    io: Option<PathBuf>,
}

impl<K: Clone + Ord> Sampler<K> {
    /// Loads the probes if the facts allow it; else, or if the kernel refuses them, measures by
    /// files. `object` is [`built_in_object`](super::built_in_object) but for tests.
    pub fn new(facts: &Facts, object: Option<&[u8]>) -> Self {
        Self::with(facts, object, &Options::default())
    }

    /// The same with room for another number of containers.
    pub fn with_slots(facts: &Facts, object: Option<&[u8]>, slots: u32) -> Self {
        let options = Options {
            slots,
            ..Options::default()
        };
        Self::with(facts, object, &options)
    }

    /// The same, set up otherwise.
    pub fn with(facts: &Facts, object: Option<&[u8]>, options: &Options) -> Self {
        let (plan, probes, message) = open(facts, object, options);
        let mount = |controller: &str| facts.v1.get(controller).cloned();
        Self {
            plan,
            mounts: Mounts {
                v2: facts.cgroup2.clone(),
                cpu: mount("cpu"),
                memory: mount("memory"),
                io: mount("blkio"),
            },
            probes,
            message,
            containers: BTreeMap::new(),
            host: HostFiles::open(),
            losses: Losses::default(),
            ended: Vec::new(),
            kills: Vec::new(),
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

    /// Whether a revocable container is registered.
    pub fn has_revocable(&self) -> bool {
        self.containers.values().any(|one| one.revocable)
    }

    /// Whether no container is registered.
    pub fn is_empty(&self) -> bool {
        self.containers.is_empty()
    }

    /// Whether the probes stay attached when this process ends.
    pub fn is_pinned(&self) -> bool {
        self.probes.as_ref().is_some_and(Probes::is_pinned)
    }

    /// What was lost or done another way.
    pub fn losses(&self) -> Losses {
        let Some(probes) = &self.probes else {
            return self.losses;
        };
        let trouble = probes.trouble();
        let (missed_switches, storage_misses) = probes.missed();
        Losses {
            late_charges: probes.flush_failures(),
            missed_switches,
            storage_misses,
            io_untracked: trouble.io_untracked,
            events_lost: self.losses.events_lost + trouble.events_lost,
            probes_detached: probes.detached(),
            ..self.losses
        }
    }

    /// What the probes have cost; empty without probes.
    pub fn costs(&mut self) -> Vec<ProbeCost> {
        self.probes.as_mut().map(Probes::costs).unwrap_or_default()
    }

    /// Makes the kernel keep account of the probes' cost all the time, or (as at first) for a tenth of it.
    pub fn account_costs_always(&mut self, always: bool) {
        if let Some(probes) = &mut self.probes {
            probes.account_always(always);
        }
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
            revocable,
            files: ContainerFiles::open(paths),
            ordinary: Ordinary::default(),
            listened_to: false,
        };
        let mut outcome = Ok(());
        if let Some(probes) = &mut self.probes {
            outcome = self
                .mounts
                .place(paths)
                .and_then(|place| {
                    let id = place.cgroup_id;
                    probes.register(place, class).map(|()| id)
                })
                .map(|id| registered.cgroup_id = Some(id));
            if outcome.is_err() {
                self.losses.without_slot += 1;
            }
        }
        self.containers.insert(key, registered);
        outcome
    }

    /// Says that all containers are registered that were there before this process: what an earlier one has left of
    /// others is forgotten.
    pub fn settle(&mut self) {
        if let Some(probes) = &mut self.probes
            && probes.settle().is_err()
        {
            self.losses.failed_unregisters += 1;
        }
    }

    /// Stops measuring a container; its last reading stands in the next sample. Does nothing for an unknown one.
    pub fn unregister(&mut self, key: &K) {
        // Kills of its tasks are told under its name while it still has one.
        self.take_kills();
        let Some(mut registered) = self.containers.remove(key) else {
            return;
        };
        let mut counters = ContainerCounters::default();
        if let (Some(probes), Some(id)) = (&mut self.probes, registered.cgroup_id) {
            match probes.unregister(id) {
                Ok(Last {
                    slot,
                    disks,
                    traffic,
                }) => {
                    counters = from_probes(&self.plan, &slot, Some(&disks), traffic);
                }
                Err(_) => self.losses.failed_unregisters += 1,
            }
        }
        registered.files.fill(&mut counters, Detail::Full);
        if self.ended.len() < MAX_WAITING {
            self.ended.push((key.clone(), counters));
        } else {
            self.losses.events_lost += 1;
        }
    }

    /// Lets a container receive so many bytes a second by network devices other than loopback and send as many, from now
    /// on and while no agent runs, until it is told otherwise or the container is unregistered; `None` lets it do what it
    /// can. What is beyond is dropped.
    /// Answers whether that has an effect: not for an unknown container, nor where the probes do not see its packets.
    pub fn limit_network(&mut self, key: &K, bytes_per_s: Option<u64>) -> bool {
        let registered = self.containers.get(key);
        let (Some(id), Some(probes)) = (registered.and_then(|one| one.cgroup_id), &mut self.probes)
        else {
            return false;
        };
        // To the probes 0 is no limit.
        probes.limit_network(id, bytes_per_s.map_or(0, |bytes| bytes.max(1)))
    }

    /// Readable while an owner's demand has jumped; see [`Self::sample_and_listen`]. `None` without probes.
    pub fn alerts_fd(&self) -> Option<BorrowedFd<'_>> {
        self.probes.as_ref().map(Probes::alerts_fd)
    }

    /// How often an owner's demand has jumped since the last call.
    pub fn take_alerts(&mut self) -> u64 {
        self.probes.as_mut().map_or(0, Probes::take_alerts)
    }

    /// Reads.
    pub fn sample(&mut self, detail: Detail) -> Sample<K> {
        self.read(detail, false)
    }

    /// Reads, and has the probes tell from now on when an owner's demand jumps beyond what is ordinary for it: once for
    /// each owner until the next call, and only while there is a revocable container to give way.
    pub fn sample_and_listen(&mut self, detail: Detail) -> Sample<K> {
        self.read(detail, true)
    }

    fn read(&mut self, detail: Detail, listen: bool) -> Sample<K> {
        let taken_ns = super::monotonic_ns();
        if detail == Detail::Full {
            self.check();
        }
        self.take_kills();
        let read = self.read_probes(detail);
        let mut slots = read.slots.into_iter();
        let mut containers = Vec::with_capacity(self.containers.len());
        let to_hear = listen.then(|| self.has_revocable());
        for (key, registered) in &mut self.containers {
            let id = registered.cgroup_id;
            let slot = id.and_then(|_| slots.next().flatten());
            let disks = match (&read.disks, id) {
                (Some(disks), Some(id)) => Some(disks.get(&id).map_or(&[][..], Vec::as_slice)),
                _ => None,
            };
            if let (Some(heard), Some(slot), Some(probes)) = (to_hear, &slot, &mut self.probes) {
                registered.listen(taken_ns, slot, heard, probes);
            }
            let mut counters = slot
                .map(|slot| {
                    let probes = self.probes.as_ref();
                    let traffic = probes.and_then(|probes| probes.traffic(id?));
                    from_probes(&self.plan, &slot, disks, traffic)
                })
                .unwrap_or_default();
            registered.files.fill(&mut counters, detail);
            containers.push((key.clone(), counters));
        }
        let unmanaged = read.unmanaged;
        Sample {
            taken_ns,
            host: self.host.read(detail),
            containers,
            ended: std::mem::take(&mut self.ended),
            oom_kills: std::mem::take(&mut self.kills),
            unmanaged: unmanaged.map(|slot| from_probes(&self.plan, &slot, None, None)),
        }
    }

    fn check(&mut self) {
        if let Some(probes) = &mut self.probes
            && probes.check().is_err()
        {
            self.losses.failed_reads += 1;
        }
    }

    fn read_probes(&mut self, detail: Detail) -> Read {
        let Some(probes) = &mut self.probes else {
            return Read::default();
        };
        let ids: Vec<u64> = self
            .containers
            .values()
            .filter_map(|one| one.cgroup_id)
            .collect();
        let mut read = Read::default();
        match probes.read(&ids) {
            Ok((slots, unmanaged)) => {
                read.slots = slots;
                read.unmanaged = Some(unmanaged);
            }
            Err(_) => self.losses.failed_reads += 1,
        }
        if detail == Detail::Full && self.plan.off(Part::Disk).is_none() {
            match probes.disks() {
                Ok(disks) => read.disks = Some(disks),
                Err(_) => self.losses.failed_reads += 1,
            }
        }
        read
    }

    fn take_kills(&mut self) {
        let Some(probes) = &mut self.probes else {
            return;
        };
        for (id, kill) in probes.kills() {
            if self.kills.len() == MAX_WAITING {
                self.losses.events_lost += 1;
                continue;
            }
            let mut containers = self.containers.iter();
            let victim = containers.find(|(_, one)| id.is_some() && one.cgroup_id == id);
            self.kills.push(OomEvent {
                container: victim.map(|(key, _)| key.clone()),
                pid: kill.pid,
                asked_by: kill.asked_by,
                at_ns: kill.at_ns,
            });
        }
    }

    /// Detaches the probes for good, also where they were to stay. For an agent that leaves nothing behind.
    pub fn remove(mut self) {
        if let Some(probes) = self.probes.take() {
            probes.remove();
        }
    }
}

/// What one reading of the probes gave.
#[derive(Default)]
struct Read {
    slots: Vec<Option<SlotCounters>>,
    unmanaged: Option<SlotCounters>,
    disks: Option<BTreeMap<u64, Vec<(u32, IoCounters)>>>,
}

/// Opens the probes as the plan wants them, with BTF, without, or not at all.
fn open(facts: &Facts, object: Option<&[u8]>, options: &Options) -> (Plan, Option<Probes>, String) {
    let mut plan = plan::plan(facts, object.is_some());
    let slots = options.slots.max(2);
    let pins = options.pins.as_deref();
    let mut refusal = String::new();
    if let (Attach::Btf(_), Some(object)) = (&plan.attach, object) {
        match Probes::open(object, &mut plan, slots, pins) {
            Ok(probes) => {
                let message = "containers are measured by eBPF".to_owned();
                return (plan, Some(probes), message);
            }
            Err(error) => {
                refusal = error.to_string();
                plan = Plan::plain(facts, &refusal);
            }
        }
    }
    if let (Attach::Plain, Some(object)) = (&plan.attach, object) {
        if refusal.is_empty() {
            refusal = plan.off(Part::Disk).unwrap_or_default().to_owned();
        }
        match Probes::open(object, &mut plan, slots, pins) {
            Ok(probes) => {
                let message = format!(
                    "containers are measured by eBPF without the kernel's type information, by the clock: {refusal}"
                );
                return (plan, Some(probes), message);
            }
            Err(error) => plan = Plan::without_probes(facts, &format!("{refusal}; {error}")),
        }
    }
    let why = plan.off(Part::Cpu).unwrap_or_default();
    let message = format!("containers are measured by files: {why}");
    (plan, None, message)
}

fn from_probes(
    plan: &Plan,
    slot: &SlotCounters,
    disks: Option<&[(u32, IoCounters)]>,
    traffic: Option<Traffic>,
) -> ContainerCounters {
    let mut counters = ContainerCounters::from_slot(slot, &plan.available());
    counters.disk = disks.map(disk_from_probes);
    counters.traffic = traffic.map(Into::into);
    counters
}

impl Mounts {
    /// Where a container stands in every tree.
    fn place(&self, paths: &CgroupPaths) -> Result<Place, ProbeError> {
        let (cgroup_id, depth) = cgroup_place(self.v2.as_deref(), paths.v2.as_deref())?;
        let parent = paths.v2.as_deref().and_then(Path::parent);
        let below = |mount: &Option<PathBuf>, folder: &Option<PathBuf>| {
            cgroup_place(mount.as_deref(), folder.as_deref()).ok()
        };
        let cpu = below(&self.cpu, &paths.cpu);
        let mut v1 = Vec::new();
        for (tree, mount, folder) in [
            (Tree::Memory, &self.memory, &paths.memory),
            (Tree::Io, &self.io, &paths.blkio),
        ] {
            if let Some((id, depth)) = below(mount, folder) {
                v1.push((tree, id, depth));
            }
        }
        // A tree of v1 hides the controller from v2; else the container's cgroup there has it.
        let cpu_depth = match (&self.cpu, cpu) {
            (Some(_), cpu) => cpu.map_or(0, |place| place.1),
            (None, _) => depth,
        };
        Ok(Place {
            cgroup_id,
            depth,
            parent: parent.unwrap_or(Path::new("/")).to_owned(),
            cpu_depth,
            v1,
        })
    }
}

/// The id of a cgroup (its folder's inode) and its depth below the root of its tree.
fn cgroup_place(mount: Option<&Path>, folder: Option<&Path>) -> Result<(u64, u32), ProbeError> {
    let unplaced = |cause: String| ProbeError::Unplaced { cause };
    let (Some(mount), Some(folder)) = (mount, folder) else {
        return Err(unplaced("it has no cgroup in the v2 tree".to_owned()));
    };
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

#[cfg(test)]
mod tests {
    use ebb_types::MeasureSource;

    use super::super::figures::Figure;
    use super::*;

    #[test]
    fn a_place_is_the_inode_and_the_depth() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("a/b");
        fs::create_dir_all(&folder).unwrap();
        let (id, depth) = cgroup_place(Some(root.path()), Some(&folder)).unwrap();
        assert_eq!(id, fs::metadata(&folder).unwrap().ino());
        assert_eq!(depth, 2);
        for bad in [
            None,
            Some(Path::new("/")),
            Some(root.path().join("absent").as_path()),
        ] {
            let error = cgroup_place(Some(root.path()), bad).unwrap_err();
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
        assert_eq!(second.containers[0].1.traffic, None);
        assert!(!sampler.limit_network(&7, Some(1)), "no probes, no limits");
        sampler.unregister(&7);
        assert!(sampler.sample(Detail::Full).containers.is_empty());
    }
}
