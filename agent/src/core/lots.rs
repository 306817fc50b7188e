//! The agent's lots: what its settings give it, what frameworks and operators have made of that, and who holds what.
//!
//! The master decides what is reserved and which volumes there are, and orders the whole of it with a version. The
//! agent keeps that on disk and says it when it registers: after a restart of either its word is what counts.
//!
//! Invariants: live tasks and executors hold nothing twice and nothing that is not there (what was restored may be
//! more); a GPU is given to one container at a time; a volume's folder is removed when its volume is, and never else.

use std::collections::BTreeSet;

use ebb_types::{
    DiskSource, GPUS, LotKey, LotValue, Lots, Quantities, ResourceKind, Volume, VolumeMode,
};

use super::disks::disk_name;
use super::state::{Core, Outbox, Phase};
use super::{Effect, Record, VolumeMount};

/// The variable that names the GPUs of a container.
pub const GPUS_VARIABLE: &str = "NVIDIA_VISIBLE_DEVICES";
/// The variable that names the ports of a container, where it has any: like `31000-31001,31005`.
pub const PORTS_VARIABLE: &str = "EBB_PORTS";
/// What ports are called among the lots.
const PORTS: &str = "ports";
/// The folder at the root of a disk that volumes stand below.
pub const VOLUMES: &str = "ebb-volumes";
/// What it says where a container has none.
const NO_GPU: &str = "void";

/// What a core knows of lots.
#[derive(Clone, Debug, Default)]
pub(super) struct LotState {
    /// All of them as they are now.
    pub(super) total: Lots,
    /// Those that were made by orders.
    pub(super) dynamic: Lots,
    /// Of the last order.
    pub(super) version: u64,
    /// What live tasks and executors hold; a shared lot as often.
    pub(super) held: Lots,
}

/// What an agent of these settings has, once this was made of it.
///
/// # Errors
/// A sentence that says what does not go together.
pub fn with_dynamic(settings: &Lots, total: &Quantities, dynamic: &Lots) -> Result<Lots, String> {
    let mut left = settings.clone();
    let mut volumes = BTreeSet::new();
    for (key, value) in dynamic.iter() {
        if let Some(volume) = key.volume()
            && !volumes.insert((key.role(), key.source(), &volume.id))
        {
            return Err(format!("there are two volumes {} of one role", volume.id));
        }
        let base = key.base();
        if base.is_plain() {
            continue;
        }
        let taken = Lots::new([(base, value.clone())]).map_err(|error| error.to_string())?;
        left = left
            .checked_sub(&taken)
            .ok_or_else(|| format!("{key} is made of {taken}, which the settings do not give"))?;
    }
    let all = left
        .checked_add(dynamic)
        .ok_or_else(|| format!("{dynamic} do not go together with {left}"))?;
    let mut disks = BTreeSet::new();
    for disk in all.iter().filter_map(|(key, _)| disk_name(key)) {
        if !disks.insert(disk) {
            return Err(format!(
                "the disk {disk} is a device and given away as a whole, but there are two parts of it"
            ));
        }
    }
    let reserved = all.out_of_plain();
    if !total.contains(&reserved) {
        return Err(format!(
            "{reserved} are reserved, but the agent has {total} in all"
        ));
    }
    Ok(all)
}

/// Where the data of volumes are.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    /// For volumes of the disk of the work folder.
    pub work_dir: &'a str,
    /// Names the agent among all that may have volumes on a disk.
    pub instance: &'a str,
}

/// The folder of a volume: below the root of its disk, or below the work folder.
fn folder(place: Place<'_>, key: &LotKey, volume: &Volume) -> String {
    let Place { work_dir, instance } = place;
    let root = match key.source() {
        Some(DiskSource::Path { root } | DiskSource::Mount { root }) => root.as_str(),
        Some(DiskSource::Block { .. } | DiskSource::Raw { .. }) | None => work_dir,
    };
    // A role holds no white space, and slashes only between its parts.
    let role = key
        .role()
        .map_or("", |role| role.as_str())
        .replace('/', " ");
    format!("{root}/{VOLUMES}/{instance}/{role}/{}", volume.id)
}

/// The folders of all volumes among some lots.
pub fn folders(place: Place<'_>, lots: &Lots) -> BTreeSet<String> {
    let volumes = lots
        .iter()
        .filter_map(|(key, _)| Some((key, key.volume()?)));
    volumes
        .map(|(key, volume)| folder(place, key, volume))
        .collect()
}

impl Core {
    /// What it has of the four kinds that is no lot.
    pub(super) fn plain(&self) -> Quantities {
        let reserved = self.lots.total.out_of_plain();
        self.config.total.saturating_sub(&reserved)
    }

    /// Its lots as they are now.
    pub const fn lots(&self) -> &Lots {
        &self.lots.total
    }

    /// Those of them that live tasks and executors hold; a shared one as often.
    pub const fn lots_held(&self) -> &Lots {
        &self.lots.held
    }

    fn place(&self) -> Place<'_> {
        Place {
            work_dir: &self.config.work_dir,
            instance: &self.config.container_prefix,
        }
    }

    pub(super) fn hold_lots(&mut self, lots: &Lots) {
        if !lots.is_none() {
            let sum = self.lots.held.checked_add(lots);
            // What was restored may not add up; then the first holder counts.
            self.lots.held = sum.unwrap_or_else(|| self.lots.held.clone());
        }
    }

    pub(super) fn release_lots(&mut self, lots: &Lots) {
        if !lots.is_none() {
            self.lots.held = self.lots.held.saturating_sub(lots);
        }
    }

    /// Which of some lots are not there; nothing if all are.
    pub(super) fn lacks_lots(&self, needed: &Lots) -> Option<String> {
        if needed.is_none() {
            return None;
        }
        let free = self.lots.total.free(&self.lots.held);
        (!free.covers(needed) || self.lots.held.checked_add(needed).is_none()).then(|| {
            format!("The task asks for {needed}, but of the agent's lots only {free} are free")
        })
    }

    /// An order says what is made of the agent's lots. One that was carried out already is confirmed again.
    pub(super) fn take_lots(&mut self, version: u64, dynamic: Lots, out: &mut Outbox) {
        if version > self.lots.version {
            let made = with_dynamic(&self.config.lots, &self.config.total, &dynamic);
            let total = match made {
                Ok(total) if total.covers(&self.lots.held) => total,
                // The master believes something else of this agent: it learns better from a registration.
                Ok(_) | Err(_) => {
                    self.counters.lots_refused += 1;
                    self.reconnect("the master's order about lots does not fit this agent", out);
                    return;
                }
            };
            let before = folders(self.place(), &self.lots.dynamic);
            let after = folders(self.place(), &dynamic);
            out.persist(Record::Lots {
                version,
                dynamic: dynamic.clone(),
            });
            for folder in before.difference(&after) {
                out.effect(Effect::RemoveVolume {
                    folder: folder.clone(),
                });
            }
            self.lots.total = total;
            self.lots.dynamic = dynamic;
            self.lots.version = version;
        }
        if let Some(conn) = self.registered_conn() {
            let version = self.lots.version;
            out.tell(conn, ebb_types::AgentToMaster::LotsApplied { version });
        }
    }

    /// How the volumes among some lots are to be mounted.
    pub(super) fn mounts(&self, lots: &Lots) -> Vec<VolumeMount> {
        let volumes = lots
            .iter()
            .filter_map(|(key, _)| Some((key, key.volume()?)));
        let mounts = volumes.map(|(key, volume)| VolumeMount {
            folder: folder(self.place(), key, volume),
            container_path: volume.container_path.clone(),
            read_only: volume.mode == VolumeMode::ReadOnly,
            shared: key.shared,
        });
        mounts.collect()
    }

    /// The first GPUs that no container has, as many as some lots hold.
    pub(super) fn choose_gpus(&self, lots: &Lots) -> Vec<u32> {
        let wanted = usize::try_from(lots.scalar(GPUS) / 1000).unwrap_or(usize::MAX);
        if wanted == 0 {
            return Vec::new();
        }
        let tasks = self.tasks.values().filter(|task| task.is_live());
        let executors = self.executors.values();
        let taken: BTreeSet<u32> = tasks
            .flat_map(|task| &task.gpus)
            .chain(executors.flat_map(|executor| &executor.gpus))
            .copied()
            .collect();
        let all = u32::try_from(self.lots.total.scalar(GPUS) / 1000).unwrap_or(u32::MAX);
        let free = (0..all).filter(|device| !taken.contains(device));
        free.take(wanted).collect()
    }

    /// Names a container's GPUs to it, on agents that have any.
    pub(super) fn name_gpus(&self, gpus: &[u32], environment: &mut Vec<(String, String)>) {
        if self.lots.total.scalar(GPUS) == 0 {
            return;
        }
        let numbers: Vec<String> = gpus.iter().map(ToString::to_string).collect();
        let text = match numbers.is_empty() {
            true => NO_GPU.to_owned(),
            false => numbers.join(","),
        };
        environment.push((GPUS_VARIABLE.to_owned(), text));
    }

    /// Names a container's ports to it: its framework has chosen them, but not every framework writes commands.
    pub(super) fn name_ports(lots: &Lots, environment: &mut Vec<(String, String)>) {
        let ports = lots.iter().filter(|(key, _)| key.name == PORTS);
        let ranges = ports.flat_map(|(_, value)| match value {
            LotValue::Ranges(ranges) => ranges.iter().collect::<Vec<_>>(),
            LotValue::Scalar(_) | LotValue::Set(_) => Vec::new(),
        });
        let texts: Vec<String> = ranges
            .map(|(first, last)| match first == last {
                true => first.to_string(),
                false => format!("{first}-{last}"),
            })
            .collect();
        if !texts.is_empty() {
            environment.push((PORTS_VARIABLE.to_owned(), texts.join(",")));
        }
    }

    /// Says which invariant of the lots is broken.
    pub(super) fn check_lots(&self) -> Result<(), String> {
        let tasks = self.tasks.values().filter(|task| task.is_live());
        let executors = self.executors.values().map(|one| &one.info.lots);
        let mut parts = tasks.map(|task| &task.info.lots).chain(executors);
        let held = parts.try_fold(Lots::NONE, |sum, lots| sum.checked_add(lots));
        if let Some(held) = held
            && held != self.lots.held
        {
            return Err(format!(
                "tasks hold {held}, but {} is counted",
                self.lots.held
            ));
        }
        let tasks = self
            .tasks
            .values()
            .filter(|task| task.phase != Phase::Ended);
        let executors = self.executors.values().flat_map(|executor| &executor.gpus);
        let mut gpus = tasks.flat_map(|task| &task.gpus).chain(executors);
        let mut seen = BTreeSet::new();
        if let Some(gpu) = gpus.find(|gpu| !seen.insert(**gpu)) {
            return Err(format!("GPU {gpu} is given to two containers"));
        }
        let reserved = self.lots.total.out_of_plain();
        for kind in ResourceKind::ALL {
            if reserved.get(kind) > self.config.total.get(kind) {
                return Err(format!("more {} is reserved than there is", kind.name()));
            }
        }
        Ok(())
    }
}
