//! The probes in the kernel: attached, told of containers, read.
//!
//! **Reading.** `read` first runs the `flush` program on every busy CPU, which charges the tasks that are running; then
//! it sums the slots over the CPUs, out of memory that the kernel shares. The counters only rise. A reading is at most
//! one scheduler tick for each CPU away from the CPU controller's figure, or where a CPU has no tick, at most what has
//! passed since the reading before.
//!
//! **Slots.** A container is charged to a slot of the counters of its own from its registration on; see [`slots`].
//!
//! **Pins.** With a folder on the bpf file system everything stays attached when the agent ends, and the next one goes
//! on where this one stopped; see [`pins`].
//!
//! **Price.** A system call for each busy CPU at every reading, and for each container and CPU the reading of eight
//! cache lines, and of one more for each container. The kernel keeps account of the programs' own run time for one full reading in ten, since that
//! costs as much as the programs; the figures are scaled up.

mod costs;
mod devices;
mod mapped;
mod object;
mod packets;
mod pins;
mod slots;
mod sys;

use std::collections::BTreeMap;
use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use ebb_agent_ebpf_common::{
    Current, IDLE_SLOT, IoCounters, IoKey, OomKill, SlotCounters, Surge, Traffic, Trouble,
    UNMANAGED_SLOT, name,
};

use self::costs::Costs;
pub use self::costs::ProbeCost;
pub use self::devices::{DeviceRule, check_device_filter, confine_devices};
use self::mapped::Mapped;
pub use self::object::built_in_object;
use self::object::{Alerts, Events, Loaded};
use self::pins::Pins;
pub use self::pins::{BPF_MOUNT, mount_bpf};
use self::slots::Slots;
pub use self::slots::{Last, Place};
use super::error::{ProbeError, access};
use super::plan::{Attach, Hook, Part, Plan};
use super::support::FieldGroup;

/// In so long a time this very program switches.
const SWITCHING_NS: u64 = 100_000_000;
/// Place of the limit among the counters of a [`Surge`].
const SURGE_LIMIT: usize = std::mem::offset_of!(Surge, limit_ns) / size_of::<u64>();
/// Place of the limit among the counters of a [`Traffic`].
const TRAFFIC_LIMIT: usize = std::mem::offset_of!(Traffic, limit_bytes_per_s) / size_of::<u64>();
/// Events that are read at once; more are read the next time.
const MAX_EVENTS: usize = 1024;

/// The attached probes. Without pins, dropping them detaches.
pub struct Probes {
    maps: BTreeMap<&'static str, OwnedFd>,
    programs: BTreeMap<&'static str, OwnedFd>,
    links: BTreeMap<String, OwnedFd>,
    counters: Mapped<SlotCounters>,
    current: Mapped<Current>,
    trouble: Mapped<Trouble>,
    events: Events,
    surges: Mapped<Surge>,
    alerts: Alerts,
    traffic: Mapped<Traffic>,
    pins: Option<Pins>,
    slots: Slots,
    cpus: usize,
    /// CPUs that were online when that was last looked at.
    online: Vec<u32>,
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
        let alerts = map(name::ALERTS)?.try_clone();
        let alerts = alerts.map_err(|error| access(name::ALERTS, "read", &error))?;
        Ok(Self {
            surges: mapped(map(name::SURGES)?, name::SURGES, slots as usize)?,
            alerts: Alerts::new(alerts)?,
            traffic: mapped(map(name::TRAFFIC)?, name::TRAFFIC, slots as usize)?,
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
            slots: Slots::new(slots),
            cpus,
            online: object::online_cpus()?,
            flush_failures: 0,
            last_switches: None,
            detached: 0,
        })
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
            Hook::Run | Hook::PacketsIn | Hook::PacketsOut | Hook::Sockets => return Ok(()),
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

    /// The counters of these containers, `None` for those that are not registered, and of all that
    /// belongs to none. Absolute since registration.
    pub fn read(
        &mut self,
        cgroup_ids: &[u64],
    ) -> Result<(Vec<Option<SlotCounters>>, SlotCounters), ProbeError> {
        self.flush(Which::Busy)?;
        let containers = cgroup_ids
            .iter()
            .map(|&id| self.slots.of(id).map(|slot| self.sum(slot)))
            .collect();
        Ok((containers, self.sum(UNMANAGED_SLOT)))
    }

    /// The traffic of each registered container with each block device.
    pub fn disks(&self) -> Result<BTreeMap<u64, Vec<(u32, IoCounters)>>, ProbeError> {
        let by_stamp = self.slots.by_stamp();
        let mut disks: BTreeMap<u64, Vec<_>> = BTreeMap::new();
        for (key, counters) in self.io()? {
            if let Some(&id) = by_stamp.get(&key.stamp) {
                let device = u32::try_from(key.device).unwrap_or(0);
                disks.entry(id).or_default().push((device, counters));
            }
        }
        Ok(disks)
    }

    fn io(&self) -> Result<Vec<(IoKey, IoCounters)>, ProbeError> {
        sys::all(self.map(name::IO)?).map_err(|error| access(name::IO, "read", &error))
    }

    /// The traffic of a container with network devices, absolute since registration; `None` if it is not registered or
    /// its packets are not seen.
    pub fn traffic(&self, cgroup_id: u64) -> Option<Traffic> {
        let slot = self.slots.seen(cgroup_id)?;
        self.traffic.get(slot as usize)
    }

    /// Lets a container receive so many bytes a second by network devices and send as many, from now on and while no
    /// agent runs; 0 lets it do what it can. Answers whether that has an effect: not for a container that is not
    /// registered or whose packets are not seen.
    pub fn limit_network(&mut self, cgroup_id: u64, bytes_per_s: u64) -> bool {
        let Some(slot) = self.slots.seen(cgroup_id) else {
            return false;
        };
        self.traffic
            .set_counter(slot as usize, TRAFFIC_LIMIT, bytes_per_s);
        true
    }

    /// Kills for want of memory since the last call, with the victims' cgroups.
    pub fn kills(&mut self) -> Vec<(Option<u64>, OomKill)> {
        let mut kills = Vec::new();
        while kills.len() < MAX_EVENTS
            && let Some(kill) = self.events.next()
        {
            kills.push((self.slots.with_stamp(kill.stamp), kill));
        }
        kills
    }

    /// Readable while an owner's demand has been told and [`Self::take_alerts`] was not called since.
    pub fn alerts_fd(&self) -> BorrowedFd<'_> {
        self.alerts.fd()
    }

    /// How often an owner's demand was told since the last call.
    pub fn take_alerts(&mut self) -> u64 {
        self.alerts.take()
    }

    /// Has a demand of this container within [`ebb_agent_ebpf_common::SURGE_WINDOW_NS`] beyond `limit_ns` told, once; 0 has
    /// none told.
    pub fn tell_beyond(&mut self, cgroup_id: u64, limit_ns: u64) {
        if let Some(slot) = self.slots.of(cgroup_id) {
            self.surges
                .set_counter(slot as usize, SURGE_LIMIT, limit_ns);
        }
    }

    /// Whether the last limit of this container was passed, which was told then; false without a limit.
    pub fn has_told(&self, cgroup_id: u64) -> bool {
        let slot = self.slots.of(cgroup_id);
        slot.and_then(|slot| self.surges.get(slot as usize))
            .is_some_and(|surge| surge.limit_ns == 0 && surge.demand_ns > 0)
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
        self.slots.registered()
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
        self.slots.capacity()
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
