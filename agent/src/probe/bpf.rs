//! The probes in the kernel: loaded, attached, told of containers, read. The only file that names
//! aya.
//!
//! **Slots.** A container gets a slot of the per-CPU counters when it is registered, zeroed before
//! the probes can reach it. A slot is handed out again only when no CPU charges to it any more:
//! that is so once its registration is gone and [`Probes::flush`] has passed every CPU, because the
//! probes look up a task's slot anew there and keep it nowhere else.
//!
//! **Reading.** `read` first runs the `flush` program on every busy CPU, which charges the tasks
//! that are running; then it sums the slots over the CPUs. The counters only rise. A reading is at
//! most one scheduler tick for each CPU away from the CPU controller's figure.
//!
//! **Price.** Three system calls and one for each busy CPU and each container, at every reading.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use super::error::ProbeError;
use super::support::KernelFields;
use aya::maps::{Array, HashMap, Map, MapData, PerCpuArray, PerCpuValues};
use aya::programs::{BtfTracePoint, ProgramError, RawTracePoint, RawTracePointRunOptions, TestRun};
use aya::sys::{Stats, enable_stats};
use aya::util::{nr_cpus, online_cpus};
use aya::{Btf, Ebpf, EbpfLoader, Pod};
use ebb_agent_ebpf_common::{
    Class, Current, IDLE_SLOT, Levels, MAX_LEVELS, Registration, SlotCounters, UNMANAGED_SLOT, name,
};

/// So many of the verifier's last lines go into a message.
const VERIFIER_LINES: usize = 4;

/// The probes, if they were built before this program.
pub fn built_in_object() -> Option<&'static [u8]> {
    #[cfg(ebb_probes)]
    return Some(aya::include_bytes_aligned!(env!("EBB_PROBES_BUILT")));
    #[cfg(not(ebb_probes))]
    return None;
}

/// The records in the form in which aya copies them.
#[repr(transparent)]
#[derive(Clone, Copy)]
struct Plain<T>(T);

// SAFETY: `repr(C)` without padding (asserted beside their definition), of integers alone, so that any
// bytes are a value.
unsafe impl Pod for Plain<SlotCounters> {}
// SAFETY: as above.
unsafe impl Pod for Plain<Current> {}
// SAFETY: as above.
unsafe impl Pod for Plain<Registration> {}
// SAFETY: as above.
unsafe impl Pod for Plain<Levels> {}

/// What a program of the probes has cost since it was loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProbeCost {
    /// Name of the program.
    pub program: &'static str,
    /// Time in it, on all CPUs.
    pub run_time_ns: u64,
    /// Times it ran.
    pub run_count: u64,
}

struct Slot {
    index: u32,
    depth: u32,
    stamp: u64,
}

/// The attached probes; dropping them detaches.
pub struct Probes {
    counters: PerCpuArray<MapData, Plain<SlotCounters>>,
    current: PerCpuArray<MapData, Plain<Current>>,
    registry: HashMap<MapData, u64, Plain<Registration>>,
    levels: Array<MapData, Plain<Levels>>,
    registered: BTreeMap<u64, Slot>,
    free: BTreeSet<u32>,
    retired: BTreeSet<u32>,
    slots: u32,
    cpus: usize,
    flush_failures: u64,
    last_stamp: u64,
    ebpf: Ebpf,
    _stats: Option<OwnedFd>,
}

impl Probes {
    /// Loads and attaches the probes with room for `slots` containers, one of them for all that
    /// belongs to none.
    pub fn load(object: &[u8], fields: &KernelFields, slots: u32) -> Result<Self, ProbeError> {
        let loaded = Self::load_with(object, fields, slots);
        give_memory_back();
        loaded
    }

    fn load_with(object: &[u8], fields: &KernelFields, slots: u32) -> Result<Self, ProbeError> {
        let btf = Btf::from_sys_fs().map_err(|error| load_error(&error))?;
        let mut ebpf = load_object(object, fields, slots, &btf)?;
        let counters = take::<PerCpuArray<_, _>>(&mut ebpf, name::COUNTERS)?;
        let current = take::<PerCpuArray<_, _>>(&mut ebpf, name::CURRENT)?;
        let registry = take::<HashMap<_, _, _>>(&mut ebpf, name::REGISTRY)?;
        let levels = take::<Array<_, _>>(&mut ebpf, name::LEVELS)?;
        let cpus = nr_cpus().map_err(|(path, error)| ProbeError::Load {
            cause: format!("{path}: {error}"),
        })?;
        let flush: &mut RawTracePoint = program(&mut ebpf, name::FLUSH)?;
        flush.load().map_err(|error| refused(name::FLUSH, &error))?;
        let switch: &mut BtfTracePoint = program(&mut ebpf, name::SCHED_SWITCH)?;
        switch
            .load(name::SCHED_SWITCH, &btf)
            .and_then(|()| switch.attach().map(drop))
            .map_err(|error| refused(name::SCHED_SWITCH, &error))?;
        // Without it (before 5.8) only the cost is not known.
        let stats = enable_stats(Stats::RunTime).ok();
        let mut probes = Self {
            counters,
            current,
            registry,
            levels,
            registered: BTreeMap::new(),
            free: (UNMANAGED_SLOT + 1..slots).collect(),
            retired: BTreeSet::new(),
            slots,
            cpus,
            flush_failures: 0,
            last_stamp: 0,
            ebpf,
            _stats: stats,
        };
        // Notes the task on each CPU, so that none is missed until its next switch.
        probes.flush(Which::All)?;
        Ok(probes)
    }

    /// Charges a cgroup at this depth of the v2 tree (the root has 0), and all below it, to a slot
    /// of its own from now on.
    pub fn register(&mut self, cgroup_id: u64, depth: u32, class: Class) -> Result<(), ProbeError> {
        if self.registered.contains_key(&cgroup_id) {
            return Err(ProbeError::Twice { cgroup_id });
        }
        let mut depths = self.depths();
        depths.insert(depth);
        if depths.len() > MAX_LEVELS || depth == 0 {
            return Err(ProbeError::Depths);
        }
        self.reclaim()?;
        let index = *self
            .free
            .first()
            .ok_or(ProbeError::Full { slots: self.slots })?;
        let zeroes = PerCpuValues::try_from(vec![Plain(SlotCounters::ZERO); self.cpus])
            .map_err(|error| access(name::COUNTERS, "cleared", &error))?;
        self.counters
            .set(index, zeroes, 0)
            .map_err(|error| access(name::COUNTERS, "cleared", &error))?;
        self.last_stamp += 1;
        let stamp = self.last_stamp;
        self.publish(cgroup_id, index, class, stamp)?;
        self.free.remove(&index);
        let slot = Slot {
            index,
            depth,
            stamp,
        };
        self.registered.insert(cgroup_id, slot);
        self.write_levels()?;
        // Tasks that already run in it are charged to it from now on.
        self.flush(Which::Busy)
    }

    /// Changes what a container is to its neighbours.
    pub fn set_class(&mut self, cgroup_id: u64, class: Class) -> Result<(), ProbeError> {
        let slot = self
            .registered
            .get(&cgroup_id)
            .ok_or(ProbeError::Unknown { cgroup_id })?;
        let (index, stamp) = (slot.index, slot.stamp);
        self.publish(cgroup_id, index, class, stamp)?;
        self.flush(Which::Busy)
    }

    /// Forgets a container. What its cgroup uses from now on belongs to none.
    pub fn unregister(&mut self, cgroup_id: u64) -> Result<(), ProbeError> {
        let slot = self
            .registered
            .remove(&cgroup_id)
            .ok_or(ProbeError::Unknown { cgroup_id })?;
        self.retired.insert(slot.index);
        self.registry
            .remove(&cgroup_id)
            .map_err(|error| access(name::REGISTRY, "changed", &error))?;
        self.write_levels()?;
        self.flush(Which::All)?;
        self.reclaim()
    }

    /// The counters of these containers, `None` for those that are not registered, and of all that
    /// belongs to none. Absolute since registration.
    pub fn read(
        &mut self,
        cgroup_ids: &[u64],
    ) -> Result<(Vec<Option<SlotCounters>>, SlotCounters), ProbeError> {
        self.flush(Which::Busy)?;
        let mut containers = Vec::with_capacity(cgroup_ids.len());
        for id in cgroup_ids {
            let slot = self.registered.get(id);
            containers.push(slot.map(|slot| self.sum(slot.index)).transpose()?);
        }
        Ok((containers, self.sum(UNMANAGED_SLOT)?))
    }

    /// What the probes have cost; empty if the kernel does not tell.
    pub fn costs(&self) -> Vec<ProbeCost> {
        let cost = |program: &'static str| {
            let fd = self.ebpf.program(program)?.fd().ok()?.as_fd().as_raw_fd();
            let text = fs::read_to_string(format!("/proc/self/fdinfo/{fd}")).ok()?;
            let field = |name: &str| {
                let line = text.lines().find_map(|line| line.strip_prefix(name))?;
                line.trim().parse::<u64>().ok()
            };
            Some(ProbeCost {
                program,
                run_time_ns: field("run_time_ns:")?,
                run_count: field("run_cnt:")?,
            })
        };
        [name::SCHED_SWITCH, name::FLUSH]
            .into_iter()
            .filter_map(cost)
            .collect()
    }

    /// Containers that have a slot.
    pub fn registered(&self) -> usize {
        self.registered.len()
    }

    /// How often the task on a CPU could not be charged at a reading, and was at its next switch.
    pub fn flush_failures(&self) -> u64 {
        self.flush_failures
    }

    /// Switches that the kernel did not show to the probes; made up for at the tasks' next ones.
    pub fn missed_switches(&self) -> u64 {
        let currents = self.currents().ok();
        currents.map_or(0, |currents| {
            currents.iter().map(|Plain(one)| one.missed).sum()
        })
    }

    /// Slots for containers.
    pub fn capacity(&self) -> u32 {
        self.slots - 1
    }

    fn sum(&self, slot: u32) -> Result<SlotCounters, ProbeError> {
        let values = self
            .counters
            .get(&slot, 0)
            .map_err(|error| access(name::COUNTERS, "read", &error))?;
        let mut sum = SlotCounters::ZERO;
        for Plain(one) in values.iter() {
            sum.on_cpu_ns += one.on_cpu_ns;
            sum.ahead_ns += one.ahead_ns;
            sum.wait_ns += one.wait_ns;
            sum.wait_count += one.wait_count;
            sum.voluntary += one.voluntary;
            for (sum, one) in sum.preempted_by.iter_mut().zip(one.preempted_by) {
                *sum += one;
            }
            for (sum, one) in sum.wait_hist.iter_mut().zip(one.wait_hist) {
                *sum += one;
            }
        }
        Ok(sum)
    }

    fn publish(
        &mut self,
        cgroup_id: u64,
        slot: u32,
        class: Class,
        stamp: u64,
    ) -> Result<(), ProbeError> {
        let registration = Registration {
            slot,
            class: class as u32,
            stamp,
        };
        self.registry
            .insert(cgroup_id, Plain(registration), 0)
            .map_err(|error| access(name::REGISTRY, "changed", &error))
    }

    fn depths(&self) -> BTreeSet<u32> {
        self.registered.values().map(|slot| slot.depth).collect()
    }

    fn write_levels(&mut self) -> Result<(), ProbeError> {
        let mut levels = Levels {
            depth: [0; MAX_LEVELS],
        };
        for (place, depth) in levels.depth.iter_mut().zip(self.depths().into_iter().rev()) {
            *place = depth;
        }
        self.levels
            .set(0, Plain(levels), 0)
            .map_err(|error| access(name::LEVELS, "changed", &error))
    }

    /// Makes the slots of gone containers free that no CPU charges to any more.
    fn reclaim(&mut self) -> Result<(), ProbeError> {
        if self.retired.is_empty() {
            return Ok(());
        }
        let used: BTreeSet<u32> = self.currents()?.iter().map(|Plain(one)| one.slot).collect();
        let (stuck, free) = self.retired.iter().partition(|slot| used.contains(slot));
        self.retired = stuck;
        self.free.extend::<BTreeSet<u32>>(free);
        Ok(())
    }

    fn currents(&self) -> Result<PerCpuValues<Plain<Current>>, ProbeError> {
        self.current
            .get(&0, 0)
            .map_err(|error| access(name::CURRENT, "read", &error))
    }

    /// Charges the running tasks up to now.
    fn flush(&mut self, which: Which) -> Result<(), ProbeError> {
        let online = online_cpus().map_err(|(path, error)| ProbeError::Access {
            what: name::FLUSH,
            operation: "run on every CPU",
            cause: format!("{path}: {error}"),
        })?;
        let currents = self.currents()?;
        let program = self.ebpf.program(name::FLUSH);
        let program: &RawTracePoint = program
            .and_then(|program| program.try_into().ok())
            .ok_or(ProbeError::Missing { what: name::FLUSH })?;
        for cpu in online {
            let idle = currents
                .get(cpu as usize)
                .is_some_and(|Plain(one)| one.armed == 1 && one.slot == IDLE_SLOT);
            if idle && which == Which::Busy {
                continue;
            }
            let options = RawTracePointRunOptions {
                cpu: Some(cpu),
                ..RawTracePointRunOptions::new()
            };
            // It can fail for a CPU that has just gone offline: then its last stay is charged at the switch.
            if program.test_run(options).is_err() {
                self.flush_failures += 1;
            }
        }
        Ok(())
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Which {
    /// CPUs that are not idle.
    Busy,
    All,
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

fn load_object(
    object: &[u8],
    fields: &KernelFields,
    slots: u32,
    btf: &Btf,
) -> Result<Ebpf, ProbeError> {
    let (wait, arrivals) = fields.task_wait.unwrap_or_default();
    let globals = [
        (name::TASK_PID, fields.task_pid),
        (name::TASK_VOLUNTARY, fields.task_voluntary),
        (name::TASK_EXEC, fields.task_exec),
        (name::TASK_WAIT, wait),
        (name::TASK_ARRIVALS, arrivals),
        (name::HAS_WAIT, u64::from(fields.task_wait.is_some())),
        (name::TASK_CSS_SET, fields.task_css_set),
        (name::CSS_SET_CGROUP, fields.css_set_cgroup),
        (name::CGROUP_NODE, fields.cgroup_node),
        (name::CGROUP_LEVEL, fields.cgroup_level),
        (name::CGROUP_ANCESTORS, fields.cgroup_ancestors),
        (
            name::ANCESTORS_ARE_POINTERS,
            u64::from(fields.ancestors_are_pointers),
        ),
        (name::NODE_ID, fields.node_id),
    ];
    let mut loader = EbpfLoader::new();
    loader.btf(Some(btf)).allow_unsupported_maps();
    loader
        .map_max_entries(name::COUNTERS, slots)
        .map_max_entries(name::REGISTRY, slots);
    for (name, value) in &globals {
        loader.override_global(name, value, true);
    }
    loader.load(object).map_err(|error| load_error(&error))
}

fn take<M>(ebpf: &mut Ebpf, what: &'static str) -> Result<M, ProbeError>
where
    M: TryFrom<Map, Error = aya::maps::MapError>,
{
    let map = ebpf.take_map(what).ok_or(ProbeError::Missing { what })?;
    M::try_from(map).map_err(|error| access(what, "used", &error))
}

fn program<'a, P>(ebpf: &'a mut Ebpf, what: &'static str) -> Result<&'a mut P, ProbeError>
where
    &'a mut P: TryFrom<&'a mut aya::programs::Program>,
{
    let program = ebpf.program_mut(what).ok_or(ProbeError::Missing { what })?;
    program.try_into().map_err(|_| ProbeError::Missing { what })
}

fn load_error(error: &dyn std::error::Error) -> ProbeError {
    ProbeError::Load {
        cause: chain(error),
    }
}

fn access(
    what: &'static str,
    operation: &'static str,
    error: &dyn std::error::Error,
) -> ProbeError {
    ProbeError::Access {
        what,
        operation,
        cause: chain(error),
    }
}

fn refused(program: &'static str, error: &ProgramError) -> ProbeError {
    let ProgramError::LoadError {
        io_error,
        verifier_log,
    } = error
    else {
        return ProbeError::Refused {
            program,
            cause: chain(error),
            verifier: "none".to_owned(),
        };
    };
    ProbeError::Refused {
        program,
        cause: io_error.to_string(),
        verifier: last_lines(&verifier_log.to_string()),
    }
}

/// The end of the verifier's log in one line; its closing statistics say nothing of the cause.
fn last_lines(log: &str) -> String {
    let lines: Vec<&str> = log
        .lines()
        .map(str::trim)
        .filter(|line| {
            !line.is_empty()
                && !line.starts_with("processed ")
                && !line.contains("stack depth")
                && !line.starts_with("verification time")
        })
        .collect();
    lines[lines.len().saturating_sub(VERIFIER_LINES)..].join(" | ")
}

/// An error and its causes in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_verifiers_last_words_are_the_cause_and_not_its_statistics() {
        let log = "0: (79) r6 = *(u64 *)(r1 +0)\n1: x\n2: y\n3: z\nR2 invalid mem access 'scalar'\n\
                   processed 5 insns (limit 1000000) max_states_per_insn 0\nverification time 9 usec\nstack depth 0\n\n";
        assert_eq!(
            last_lines(log),
            "1: x | 2: y | 3: z | R2 invalid mem access 'scalar'"
        );
        assert_eq!(last_lines(""), "");
    }

    #[test]
    fn an_object_of_nonsense_is_refused_in_a_sentence() {
        let fields = KernelFields {
            task_pid: 0,
            task_voluntary: 0,
            task_exec: 0,
            task_wait: None,
            task_css_set: 0,
            css_set_cgroup: 0,
            cgroup_node: 0,
            cgroup_level: 0,
            cgroup_ancestors: 0,
            ancestors_are_pointers: true,
            node_id: 0,
        };
        let Err(error) = Probes::load(b"not an object", &fields, 2) else {
            panic!("nonsense was loaded");
        };
        assert!(matches!(error, ProbeError::Load { .. }), "{error}");
        assert!(error.to_string().contains("build-ebpf"), "{error}");
    }
}
