//! The probes in the kernel: attached, told of containers, read.
//!
//! **Slots.** A container gets a slot of the counters when it is registered, zeroed before the probes can reach it. A
//! slot is handed out again only when no CPU charges to it any more: that is so once its registration is gone and
//! [`Probes::flush`] has passed every CPU, because the probes look up a task's slot anew there and keep it nowhere else.
//! Requests to block devices, which may end much later, are kept by the registration's stamp, which is never used
//! again.
//!
//! **Reading.** `read` first runs the `flush` program on every busy CPU, which charges the tasks that are running; then
//! it sums the slots over the CPUs, out of memory that the kernel shares. The counters only rise. A reading is at most
//! one scheduler tick for each CPU away from the CPU controller's figure, or where a CPU has no tick, at most what has
//! passed since the reading before.
//!
//! **Pins.** With a folder on the bpf file system everything stays attached when the agent ends, and the next one goes
//! on where this one stopped; see [`pins`].
//!
//! **Price.** A system call for each busy CPU at every reading, and for each container and CPU the reading of eight
//! cache lines. The kernel keeps account of the programs' own run time for one full reading in ten, since that
//! costs as much as the programs; the figures are scaled up.

mod costs;
mod mapped;
mod object;
mod pins;
mod sys;

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::CString;
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use ebb_agent_ebpf_common::{
    Class, Current, IDLE_SLOT, IoCounters, IoKey, Levels, MAX_LEVELS, OomKill, OwnerKey,
    Registration, SlotCounters, TREES, Tree, Trouble, UNMANAGED_SLOT, name,
};

use self::costs::Costs;
pub use self::costs::ProbeCost;
use self::mapped::Mapped;
pub use self::object::built_in_object;
use self::object::{Events, Loaded};
use self::pins::Pins;
pub use self::pins::{BPF_MOUNT, mount_bpf};
use super::error::{ProbeError, access};
use super::plan::{Attach, Hook, Part, Plan};
use super::support::FieldGroup;

/// Cgroups above containers whose packets are counted. Containers of one agent stand below two.
const MAX_PACKET_CGROUPS: usize = 16;
/// In so long a time this very program switches.
const SWITCHING_NS: u64 = 100_000_000;
/// Events that are read at once; more are read the next time.
const MAX_EVENTS: usize = 1024;

/// Where a container's cgroup stands in the trees.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Its id in the v2 tree.
    pub cgroup_id: u64,
    /// Its depth there; the root has 0.
    pub depth: u32,
    /// The cgroup above it in the v2 tree.
    pub parent: PathBuf,
    /// Its depth in the tree of the cpu controller; 0 if it is not there.
    pub cpu_depth: u32,
    /// Its id and depth in the v1 trees of the memory and the blkio controller.
    pub v1: Vec<(Tree, u64, u32)>,
}

struct Slot {
    index: u32,
    class: Class,
    place: Place,
    stamp: u64,
}

/// The last counters of a container.
#[derive(Clone, Debug, PartialEq)]
pub struct Last {
    /// Its slot's.
    pub slot: SlotCounters,
    /// Its traffic with each device.
    pub disks: Vec<(u32, IoCounters)>,
}

/// The attached probes. Without pins, dropping them detaches.
pub struct Probes {
    maps: BTreeMap<&'static str, OwnedFd>,
    programs: BTreeMap<&'static str, OwnedFd>,
    links: BTreeMap<String, OwnedFd>,
    counters: Mapped<SlotCounters>,
    current: Mapped<Current>,
    trouble: Mapped<Trouble>,
    events: Events,
    pins: Option<Pins>,
    registered: BTreeMap<u64, Slot>,
    /// Registrations that an earlier agent has left and none of this one's containers has taken over yet.
    inherited: BTreeMap<u64, Registration>,
    free: BTreeSet<u32>,
    retired: BTreeSet<u32>,
    slots: u32,
    cpus: usize,
    /// CPUs that were online when that was last looked at.
    online: Vec<u32>,
    levels: Levels,
    last_stamp: u64,
    flush_failures: u64,
    /// Switches and the clock when it was last looked whether the probe still runs.
    last_switches: Option<(u64, u64)>,
    detached: u64,
    packets: bool,
    costs: Costs,
}

impl Probes {
    /// Loads and attaches what the plan wants, with room for `slots` containers, one of them for all that belongs to
    /// none; or takes over what stands in the folder of pins. A part that the kernel refuses is taken from the plan.
    pub fn open(
        object: &[u8],
        plan: &mut Plan,
        slots: u32,
        pins: Option<&Path>,
    ) -> Result<Self, ProbeError> {
        let opened = Self::open_with(object, plan, slots, pins);
        give_memory_back();
        opened
    }

    fn open_with(
        object: &[u8],
        plan: &mut Plan,
        slots: u32,
        pins: Option<&Path>,
    ) -> Result<Self, ProbeError> {
        let cpus = object::possible_cpus()?;
        let globals = globals(plan, cpus as u64);
        let pins = pins.map(|folder| Pins::new(folder, object, &globals, slots));
        let kept = pins.as_ref().and_then(Pins::open);
        let taken_over = kept.is_some();
        let (loaded, links) = match kept {
            Some((loaded, links)) => {
                drop_parts_that_are_not_there(plan, &loaded);
                (loaded, links)
            }
            None => {
                let cpus = u32::try_from(cpus).unwrap_or(u32::MAX);
                let loaded = object::load(object, plan, &globals, slots, cpus)?;
                if let Some(pins) = &pins {
                    pins.keep(&loaded)
                        .map_err(|error| access("maps", "pinned", &error))?;
                }
                (loaded, BTreeMap::new())
            }
        };
        let mut probes = Self::new(loaded, links, pins, slots, cpus, plan)?;
        if taken_over {
            probes.inherit()?;
        } else {
            probes.attach_all(plan)?;
        }
        // Notes the task on each CPU, so that none is missed until its next switch.
        probes.flush(Which::All)?;
        probes.find_free();
        Ok(probes)
    }

    fn new(
        loaded: Loaded,
        links: BTreeMap<String, OwnedFd>,
        pins: Option<Pins>,
        slots: u32,
        cpus: usize,
        plan: &Plan,
    ) -> Result<Self, ProbeError> {
        let Loaded { maps, programs } = loaded;
        let map = |what| maps.get(what).ok_or(ProbeError::Missing { what });
        let events = map(name::EVENTS)?.try_clone();
        let events = events.map_err(|error| access(name::EVENTS, "read", &error))?;
        Ok(Self {
            counters: mapped(map(name::COUNTERS)?, name::COUNTERS, slots as usize * cpus)?,
            current: mapped(map(name::CURRENT)?, name::CURRENT, cpus)?,
            trouble: mapped(map(name::TROUBLE)?, name::TROUBLE, 1)?,
            events: Events::new(events)?,
            costs: Costs::new(&programs),
            packets: plan.off(Part::Network).is_none(),
            maps,
            programs,
            links,
            pins,
            registered: BTreeMap::new(),
            inherited: BTreeMap::new(),
            free: BTreeSet::new(),
            retired: BTreeSet::new(),
            slots,
            cpus,
            online: object::online_cpus()?,
            levels: Levels {
                epoch: 1,
                depth: [[0; MAX_LEVELS]; TREES],
            },
            last_stamp: 0,
            flush_failures: 0,
            last_switches: None,
            detached: 0,
        })
    }

    /// Takes over what an earlier agent has left.
    fn inherit(&mut self) -> Result<(), ProbeError> {
        let levels = sys::look_up(self.map(name::LEVELS)?, &0u32)
            .map_err(|error| access(name::LEVELS, "read", &error))?;
        if let Some(levels) = levels {
            self.levels = levels;
        }
        let registry = sys::all(self.map(name::REGISTRY)?)
            .map_err(|error| access(name::REGISTRY, "read", &error))?;
        self.inherited = registry.into_iter().collect();
        Ok(())
    }

    fn find_free(&mut self) {
        let mut taken: BTreeSet<u32> = self.inherited.values().map(|one| one.slot).collect();
        taken.extend(self.current.iter().map(|one| one.slot));
        self.free = (UNMANAGED_SLOT + 1..self.slots)
            .filter(|slot| !taken.contains(slot))
            .collect();
        let inherited: BTreeSet<u32> = self.inherited.values().map(|one| one.slot).collect();
        self.retired = taken
            .difference(&inherited)
            .copied()
            .filter(|&slot| slot != IDLE_SLOT && slot != UNMANAGED_SLOT)
            .collect();
    }

    /// Attaches all programs but those of packets, the switch last: with it the pins are complete.
    fn attach_all(&mut self, plan: &mut Plan) -> Result<(), ProbeError> {
        let mut parts: Vec<_> = plan
            .parts
            .iter()
            .filter(|part| part.off.is_none())
            .map(|part| (part.part, part.programs))
            .collect();
        parts.reverse();
        for (part, programs) in parts {
            for program in programs {
                let answer = self.attach(program.name, program.hook);
                match answer {
                    Ok(()) => {}
                    Err(error) if part == Part::Cpu => return Err(error),
                    Err(error) => {
                        plan.refuse(part, &error.to_string());
                        break;
                    }
                }
            }
        }
        Ok(())
    }

    fn attach(&mut self, program: &'static str, hook: Hook) -> Result<(), ProbeError> {
        let tracepoint = match hook {
            Hook::Tracepoint(_) => None,
            Hook::Raw(tracepoint) => CString::new(tracepoint).ok(),
            Hook::Run | Hook::PacketsIn | Hook::PacketsOut => return Ok(()),
        };
        let link = sys::attach(self.program(program)?, tracepoint.as_deref())
            .map_err(|error| access(program, "attached", &error))?;
        self.keep_link(program.to_owned(), link)
    }

    fn keep_link(&mut self, name: String, link: OwnedFd) -> Result<(), ProbeError> {
        if let Some(pins) = &self.pins {
            pins.keep_link(&name, &link)
                .map_err(|error| access("link", "pinned", &error))?;
        }
        self.links.insert(name, link);
        Ok(())
    }

    /// Charges a container's cgroup, and all below it, to a slot of its own from now on; or goes on with the slot that
    /// an earlier agent has given it.
    pub fn register(&mut self, place: Place, class: Class) -> Result<(), ProbeError> {
        let id = place.cgroup_id;
        if self.registered.contains_key(&id) {
            return Err(ProbeError::Twice { cgroup_id: id });
        }
        self.room_for_depths(&place)?;
        let (index, stamp) = match self.inherited.remove(&id) {
            Some(kept) => (kept.slot, kept.stamp),
            None => (self.fresh_slot()?, self.next_stamp()),
        };
        self.watch_packets(&place);
        let slot = Slot {
            index,
            class,
            place,
            stamp,
        };
        self.publish(&slot)?;
        self.free.remove(&index);
        self.registered.insert(id, slot);
        self.write_levels()?;
        // Tasks that already run in it are charged to it from now on.
        self.flush(Which::Busy)
    }

    /// A slot that is zero.
    fn fresh_slot(&mut self) -> Result<u32, ProbeError> {
        self.reclaim();
        let index = *self
            .free
            .first()
            .ok_or(ProbeError::Full { slots: self.slots })?;
        for cpu in 0..self.cpus {
            self.counters
                .set(index as usize * self.cpus + cpu, SlotCounters::ZERO);
        }
        Ok(index)
    }

    /// Later than all before, also of an earlier agent.
    fn next_stamp(&mut self) -> u64 {
        self.last_stamp = super::monotonic_ns().max(self.last_stamp + 1);
        self.last_stamp
    }

    fn publish(&self, slot: &Slot) -> Result<(), ProbeError> {
        let registration = Registration {
            slot: slot.index,
            class: slot.class as u16,
            cpu_depth: u16::try_from(slot.place.cpu_depth).unwrap_or(0),
            stamp: slot.stamp,
        };
        sys::update(
            self.map(name::REGISTRY)?,
            &slot.place.cgroup_id,
            &registration,
        )
        .map_err(|error| access(name::REGISTRY, "changed", &error))?;
        for &(tree, id, _) in &slot.place.v1 {
            let key = OwnerKey {
                id,
                tree: tree as u64,
            };
            sys::update(self.map(name::OWNERS)?, &key, &registration)
                .map_err(|error| access(name::OWNERS, "changed", &error))?;
        }
        Ok(())
    }

    /// Reads a container a last time and forgets it. What its cgroup uses from now on belongs to none.
    pub fn unregister(&mut self, cgroup_id: u64) -> Result<Last, ProbeError> {
        self.flush(Which::Busy)?;
        let last = Last {
            slot: self.sum(self.slot(cgroup_id)?.index),
            disks: self.disks()?.remove(&cgroup_id).unwrap_or_default(),
        };
        let slot = self
            .registered
            .remove(&cgroup_id)
            .ok_or(ProbeError::Unknown { cgroup_id })?;
        self.retired.insert(slot.index);
        self.forget(cgroup_id, &slot.place.v1)?;
        self.forget_disks(slot.stamp)?;
        self.write_levels()?;
        self.flush(Which::All)?;
        self.reclaim();
        Ok(last)
    }

    fn forget(&self, cgroup_id: u64, v1: &[(Tree, u64, u32)]) -> Result<(), ProbeError> {
        sys::delete(self.map(name::REGISTRY)?, &cgroup_id)
            .map_err(|error| access(name::REGISTRY, "changed", &error))?;
        for &(tree, id, _) in v1 {
            let key = OwnerKey {
                id,
                tree: tree as u64,
            };
            sys::delete(self.map(name::OWNERS)?, &key)
                .map_err(|error| access(name::OWNERS, "changed", &error))?;
        }
        Ok(())
    }

    fn forget_disks(&self, stamp: u64) -> Result<(), ProbeError> {
        for (key, _) in self.traffic()? {
            if key.stamp == stamp {
                sys::delete(self.map(name::IO)?, &key)
                    .map_err(|error| access(name::IO, "changed", &error))?;
            }
        }
        Ok(())
    }

    /// Forgets what an earlier agent has left and no container of this one has taken over.
    pub fn settle(&mut self) -> Result<(), ProbeError> {
        let inherited = std::mem::take(&mut self.inherited);
        if inherited.is_empty() {
            return Ok(());
        }
        let stamps: BTreeSet<u64> = inherited.values().map(|one| one.stamp).collect();
        let owners: Vec<(OwnerKey, Registration)> = sys::all(self.map(name::OWNERS)?)
            .map_err(|error| access(name::OWNERS, "read", &error))?;
        for (key, _) in owners.iter().filter(|one| stamps.contains(&one.1.stamp)) {
            sys::delete(self.map(name::OWNERS)?, key)
                .map_err(|error| access(name::OWNERS, "changed", &error))?;
        }
        for (cgroup_id, registration) in inherited {
            self.forget(cgroup_id, &[])?;
            self.forget_disks(registration.stamp)?;
            self.retired.insert(registration.slot);
        }
        self.write_levels()?;
        self.flush(Which::All)?;
        self.reclaim();
        Ok(())
    }

    /// The counters of these containers, `None` for those that are not registered, and of all that
    /// belongs to none. Absolute since registration.
    pub fn read(
        &mut self,
        cgroup_ids: &[u64],
    ) -> Result<(Vec<Option<SlotCounters>>, SlotCounters), ProbeError> {
        self.flush(Which::Busy)?;
        let containers = cgroup_ids
            .iter()
            .map(|id| self.registered.get(id).map(|slot| self.sum(slot.index)))
            .collect();
        Ok((containers, self.sum(UNMANAGED_SLOT)))
    }

    /// The traffic of each registered container with each block device.
    pub fn disks(&self) -> Result<BTreeMap<u64, Vec<(u32, IoCounters)>>, ProbeError> {
        let by_stamp: BTreeMap<u64, u64> = self
            .registered
            .iter()
            .map(|(&id, slot)| (slot.stamp, id))
            .collect();
        let mut disks: BTreeMap<u64, Vec<_>> = BTreeMap::new();
        for (key, counters) in self.traffic()? {
            if let Some(&id) = by_stamp.get(&key.stamp) {
                let device = u32::try_from(key.device).unwrap_or(0);
                disks.entry(id).or_default().push((device, counters));
            }
        }
        Ok(disks)
    }

    fn traffic(&self) -> Result<Vec<(IoKey, IoCounters)>, ProbeError> {
        sys::all(self.map(name::IO)?).map_err(|error| access(name::IO, "read", &error))
    }

    /// Kills for want of memory since the last call, with the victims' cgroups.
    pub fn kills(&mut self) -> Vec<(Option<u64>, OomKill)> {
        let mut kills = Vec::new();
        while kills.len() < MAX_EVENTS
            && let Some(kill) = self.events.next()
        {
            let mut slots = self.registered.iter();
            let found = slots.find(|(_, slot)| slot.stamp == kill.stamp);
            kills.push((found.map(|(&id, _)| id), kill));
        }
        kills
    }

    /// Makes sure that the switches are still seen, and attaches the probe anew if they are not: this very program has
    /// switched since it was last asked. Keeps account of the programs' cost, and looks which CPUs are online. To be
    /// called once a second.
    pub fn check(&mut self) -> Result<(), ProbeError> {
        let switches = self.current.iter().map(|one| one.switches).sum();
        let now_ns = super::monotonic_ns();
        let silent = self.last_switches.is_some_and(|(before, at_ns)| {
            before == switches && now_ns.saturating_sub(at_ns) > SWITCHING_NS
        });
        self.last_switches = Some((switches, now_ns));
        self.costs.account(&self.programs);
        self.online = object::online_cpus()?;
        if !silent {
            return Ok(());
        }
        self.detached += 1;
        let (program, hook) = if self.programs.contains_key(name::SCHED_SWITCH) {
            (name::SCHED_SWITCH, Hook::Tracepoint("sched_switch"))
        } else {
            (name::SCHED_SWITCH_PLAIN, Hook::Raw("sched_switch"))
        };
        self.links.remove(program);
        self.attach(program, hook)
    }

    /// What the programs have cost; nothing if the kernel does not tell.
    pub fn costs(&mut self) -> Vec<ProbeCost> {
        self.costs.read(&self.programs)
    }

    /// Makes the kernel keep account of the programs' cost all the time, or for a tenth of it.
    pub fn account_always(&mut self, always: bool) {
        self.costs.account_always(always, &self.programs);
    }

    /// Containers that have a slot.
    pub fn registered(&self) -> usize {
        self.registered.len()
    }

    /// How often the task on a CPU could not be charged at a reading, and was at its next switch.
    pub fn flush_failures(&self) -> u64 {
        self.flush_failures
    }

    /// Probes that were found detached.
    pub fn detached(&self) -> u64 {
        self.detached
    }

    /// Switches that the kernel did not show to the probes, and tasks that it had no memory for to note with them what
    /// was charged.
    pub fn missed(&self) -> (u64, u64) {
        self.current.iter().fold((0, 0), |sum, one| {
            (sum.0 + one.missed, sum.1 + one.storage_misses)
        })
    }

    /// What the probes could not do.
    pub fn trouble(&self) -> Trouble {
        self.trouble.get(0).unwrap_or(Trouble {
            events_lost: 0,
            io_untracked: 0,
        })
    }

    /// Slots for containers.
    pub fn capacity(&self) -> u32 {
        self.slots - 1
    }

    /// Whether everything stays attached when this agent ends.
    pub fn is_pinned(&self) -> bool {
        self.pins.is_some()
    }

    /// Detaches everything for good.
    pub fn remove(self) {
        if let Some(pins) = &self.pins {
            pins.remove();
        }
    }

    fn slot(&self, cgroup_id: u64) -> Result<&Slot, ProbeError> {
        let slot = self.registered.get(&cgroup_id);
        slot.ok_or(ProbeError::Unknown { cgroup_id })
    }

    fn map(&self, what: &'static str) -> Result<std::os::fd::BorrowedFd<'_>, ProbeError> {
        let map = self.maps.get(what).ok_or(ProbeError::Missing { what })?;
        Ok(map.as_fd())
    }

    fn program(&self, what: &'static str) -> Result<std::os::fd::BorrowedFd<'_>, ProbeError> {
        let program = self.programs.get(what);
        Ok(program.ok_or(ProbeError::Missing { what })?.as_fd())
    }

    fn sum(&self, slot: u32) -> SlotCounters {
        let first = slot as usize * self.cpus;
        let mut sum = SlotCounters::ZERO;
        for one in (first..first + self.cpus).filter_map(|at| self.counters.get(at)) {
            sum.add(&one);
        }
        sum
    }

    fn room_for_depths(&self, place: &Place) -> Result<(), ProbeError> {
        let mut depths: BTreeSet<u32> = self.depths(Tree::V2);
        depths.insert(place.depth);
        if depths.len() > MAX_LEVELS || place.depth == 0 {
            return Err(ProbeError::Depths);
        }
        Ok(())
    }

    fn depths(&self, tree: Tree) -> BTreeSet<u32> {
        let registered = self.registered.values();
        if tree == Tree::V2 {
            return registered.map(|slot| slot.place.depth).collect();
        }
        registered
            .flat_map(|slot| slot.place.v1.iter())
            .filter(|one| one.0 == tree)
            .map(|one| one.2)
            .collect()
    }

    /// Tells the probes at which depths containers stand, and that what they remember of cgroups is old. What an
    /// earlier agent has left counts until it is settled.
    fn write_levels(&mut self) -> Result<(), ProbeError> {
        let before = self.levels;
        self.levels.epoch += 1;
        for tree in [Tree::V2, Tree::Memory, Tree::Io] {
            let mut depths = self.depths(tree);
            if !self.inherited.is_empty() {
                depths.extend(before.depth[tree as usize].iter().filter(|&&one| one > 0));
            }
            let mut places = [0; MAX_LEVELS];
            for (place, depth) in places.iter_mut().zip(depths.into_iter().rev()) {
                *place = depth;
            }
            self.levels.depth[tree as usize] = places;
        }
        sys::update(self.map(name::LEVELS)?, &0u32, &self.levels)
            .map_err(|error| access(name::LEVELS, "changed", &error))
    }

    /// Counts the packets of all cgroups beside this one too, unless they are counted already.
    fn watch_packets(&mut self, place: &Place) {
        if !self.packets {
            return;
        }
        let Ok(folder) = File::open(&place.parent) else {
            return;
        };
        let Ok(id) = folder.metadata().map(|meta| meta.ino()) else {
            return;
        };
        let names = [name::NET_IN, name::NET_OUT].map(|program| format!("{program}_{id}"));
        if names.iter().all(|name| self.links.contains_key(name)) {
            return;
        }
        let others = self.links.keys().filter(|name| name.starts_with("net_"));
        if others.count() >= 2 * MAX_PACKET_CGROUPS {
            self.drop_idle_packets();
        }
        let directions = [
            (name::NET_IN, sys::CGROUP_INGRESS),
            (name::NET_OUT, sys::CGROUP_EGRESS),
        ];
        for ((program, direction), name) in directions.into_iter().zip(names) {
            let attached = self
                .program(program)
                .and_then(|program| {
                    sys::attach_packets(program, folder.as_fd(), direction)
                        .map_err(|error| access("packet counter", "attached", &error))
                })
                .and_then(|link| self.keep_link(name, link));
            // Its packets are not counted then, and the figure stands at what it was.
            if attached.is_err() {
                self.detached += 1;
            }
        }
    }

    /// Detaches from cgroups that no container stands below.
    fn drop_idle_packets(&mut self) {
        let parents: BTreeSet<String> = self
            .registered
            .values()
            .filter_map(|slot| std::fs::metadata(&slot.place.parent).ok())
            .map(|meta| meta.ino().to_string())
            .collect();
        let idle: Vec<String> = self
            .links
            .keys()
            .filter(|name| name.starts_with("net_"))
            .filter(|name| !parents.iter().any(|id| name.ends_with(&format!("_{id}"))))
            .cloned()
            .collect();
        for name in idle {
            self.links.remove(&name);
            if let Some(pins) = &self.pins {
                pins.drop_link(&name);
            }
        }
    }

    /// Makes the slots of gone containers free that no CPU charges to any more.
    fn reclaim(&mut self) {
        if self.retired.is_empty() {
            return;
        }
        let used: BTreeSet<u32> = self.current.iter().map(|one| one.slot).collect();
        let (stuck, free) = self.retired.iter().partition(|slot| used.contains(slot));
        self.retired = stuck;
        self.free.extend::<BTreeSet<u32>>(free);
    }

    /// Charges the running tasks up to now.
    fn flush(&mut self, which: Which) -> Result<(), ProbeError> {
        let flush = [name::FLUSH, name::FLUSH_PLAIN]
            .into_iter()
            .find_map(|name| self.programs.get(name))
            .ok_or(ProbeError::Missing { what: name::FLUSH })?;
        // A kernel that hides switches hides those away from the idle task above all: there, a CPU that looks idle may
        // have been busy for long.
        let hides = self.missed().0 > 0;
        for &cpu in &self.online {
            let looks_idle = self
                .current
                .get(cpu as usize)
                .is_some_and(|one| one.armed == 1 && one.slot == IDLE_SLOT);
            if looks_idle && which == Which::Busy && !hides {
                continue;
            }
            // It can fail for a CPU that has just gone offline: then its last stay is charged at the switch.
            if sys::run_on(flush.as_fd(), cpu).is_err() {
                self.flush_failures += 1;
            }
        }
        Ok(())
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Which {
    /// CPUs that are not known to be idle.
    Busy,
    All,
}

fn mapped<T: sys::Record>(
    map: &OwnedFd,
    what: &'static str,
    len: usize,
) -> Result<Mapped<T>, ProbeError> {
    Mapped::new(map.as_fd(), len).map_err(|error| access(what, "mapped", &error))
}

/// The values that the probes are loaded with.
fn globals(plan: &Plan, cpus: u64) -> Vec<(&'static str, u64)> {
    let mut globals = vec![
        (name::CPUS, cpus),
        (name::MEMORY_TREE, plan.memory_tree() as u64),
        (name::IO_TREE, plan.io_tree() as u64),
    ];
    if let Attach::Btf(fields) = &plan.attach {
        globals.extend(fields.offsets());
        let has = |group| u64::from(fields.has(group).is_ok());
        globals.extend([
            (name::HAS_WAIT, has(FieldGroup::Wait)),
            (name::HAS_QUOTA, has(FieldGroup::Quota)),
            (name::HAS_MEMCG, has(FieldGroup::PageOwner)),
            (name::HAS_BLKCG, has(FieldGroup::BlockGroup)),
            (name::VICTIMS_BY_PID, u64::from(!fields.victim_is_task)),
        ]);
    }
    globals
}

/// What the earlier agent could not load is not there for this one either.
fn drop_parts_that_are_not_there(plan: &mut Plan, loaded: &Loaded) {
    let absent: Vec<Part> = plan
        .parts
        .iter()
        .filter(|part| {
            let mut programs = part.programs.iter();
            !programs.all(|program| loaded.programs.contains_key(program.name))
        })
        .map(|part| part.part)
        .collect();
    for part in absent {
        plan.refuse(part, "the kernel refused it when the probes were loaded");
    }
}

/// Reading the kernel's type information takes some 30 MB for a moment, in pieces so small that the
/// allocator would keep most of them for the rest of the agent's life.
fn give_memory_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: takes a number and touches only memory that is free.
    unsafe {
        libc::malloc_trim(0);
    }
}
