//! Reads all figures of all registered containers, each from the best source there is.
//!
//! The probes are read at once for all containers, files for each; a container that the probes do
//! not measure, or a reading of them that fails, gives way to files and is counted.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use ebb_agent_ebpf_common::{Class, DEFAULT_SLOTS};

use super::bpf::{ProbeCost, Probes};
use super::error::ProbeError;
use super::figures::{Available, ContainerCounters, Detail, Losses, Sample};
use super::files::{CgroupPaths, ContainerFiles, HostFiles};
use super::plan::{self, Plan};
use super::support::Facts;

struct Registered {
    /// Set while the probes have a slot for it.
    cgroup_id: Option<u64>,
    files: ContainerFiles,
}

/// Reads all figures of all registered containers, each from the best source there is.
pub struct Sampler<K> {
    plan: Plan,
    cgroup2: Option<PathBuf>,
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
        let available = Available {
            wait: self.plan.run_queue.source.is_some(),
            ..Available::default()
        };
        let mut slots = slots.into_iter();
        let mut containers = Vec::with_capacity(self.containers.len());
        for (key, registered) in &mut self.containers {
            let slot = registered.cgroup_id.and_then(|_| slots.next().flatten());
            let mut counters = slot
                .map(|slot| ContainerCounters::from_slot(&slot, &available))
                .unwrap_or_default();
            registered.files.fill(&mut counters, detail);
            containers.push((key.clone(), counters));
        }
        Sample {
            taken_ns,
            host: self.host.read(),
            containers,
            ended: Vec::new(),
            oom_kills: Vec::new(),
            unmanaged: unmanaged.map(|slot| ContainerCounters::from_slot(&slot, &available)),
        }
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
    use ebb_types::MeasureSource;

    use super::super::figures::Figure;
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
}
