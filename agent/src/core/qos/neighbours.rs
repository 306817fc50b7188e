//! Who disturbs whom, by which resource, since when: also among tasks that nothing is taken from.
//!
//! **Problem.** A task that is slower than it was may be so by itself, by its neighbours, by work outside of Ebb or by a
//! device. Only the second is worth a name, and a wrong name is worse than none.
//!
//! **Way.** Each task that is not revocable is held against its own baseline, which falls at once, rises slowly, and
//! hardly at all while the task is disturbed (in a quarter of an hour by 9/10: whatever lasts longer is normal).
//! What a task does to itself is left out first: its own quota, its own memory limit, its own traffic, and CPU once it
//! has all that it is allocated. Then the others are ranked by what they use of the resource, of CPU and memory by what
//! they use beyond what they own, if anybody does; named is who has a fifth of it and more.
//!
//! **Units.** Those of the signals: nanoseconds, thousandths of the time passed.
//!
//! **Invariants.** No task is among those that disturb it. Without valid data nobody is disturbed. One disturbance a task
//! and resource; at most [`MAX_DISTURBANCES`], the longest first.
//!
//! **Price.** O(tasks) a sample, and O(tasks) more for each that is disturbed.

use std::collections::BTreeMap;

use ebb_types::limits::{MAX_DISTURBANCES, MAX_DISTURBERS};
use ebb_types::{ContainerId, Contended, Disturbance, Disturber, ResourceKind, Signal, Timestamp};

use super::super::permille::permille_of;
use super::super::running::RunningView;
use super::super::usage::{ContainerUse, UsageView};
use super::Config;
use super::baseline::enough_for_p99;
use super::facts::{Facts, Owner};

/// Part of what all others use from which a neighbour is named, in thousandths.
const NAMED_PERMILLE: u64 = 200;
/// Part of all preemptions by one class of containers from which the class is looked at, in thousandths.
const CLASS_PERMILLE: u64 = 100;
/// Use of what it is allocated from which a task has what it is owed, in thousandths.
const SERVED_PERMILLE: u64 = 950;
/// Use of its own memory limit from which stalls are its own, in thousandths.
const OWN_LIMIT_PERMILLE: u64 = 950;
/// Memory that may be left of the machine while others can be blamed for stalls, in thousandths.
const SCARCE_PERMILLE: u64 = 200;
/// Part of all traffic with block devices from which a task disturbs itself, in thousandths.
const OWN_TRAFFIC_PERMILLE: u64 = 500;
/// CPU below which a neighbour disturbs nobody, in thousandths of a core.
const LEAST_CPU_MILLI: u64 = 50;
/// Memory below which a neighbour disturbs nobody, in bytes.
const LEAST_MEM_BYTES: u64 = 16 << 20;
/// Traffic below which a neighbour disturbs nobody, in bytes a second.
const LEAST_DISK_BYTES_PER_S: u64 = 1 << 20;
/// Binary places of baselines.
const FRACTION_BITS: u32 = 12;

/// What is normal: an average in fixed point that falls at once and rises slowly.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Normal(Option<u64>);

impl Normal {
    fn learn(&mut self, value: u64, disturbed: bool) {
        let value = value.min(u64::MAX >> (FRACTION_BITS + 1)) << FRACTION_BITS;
        self.0 = match self.0 {
            Some(old) if value <= old => Some(old - ((old - value) >> 4)),
            Some(old) => Some(old + ((value - old) >> if disturbed { 12 } else { 6 })),
            None if disturbed => None,
            None => Some(value),
        };
    }

    fn get(self) -> u64 {
        self.0.unwrap_or(0) >> FRACTION_BITS
    }
}

/// One signal of one task.
#[derive(Clone, Copy, Debug, Default)]
struct Track {
    normal: Normal,
    /// Since when it has been violated, and in how many samples.
    streak: Option<(Timestamp, u32)>,
}

/// A value beyond its bound.
#[derive(Clone, Copy, Debug)]
struct Excess {
    signal: Signal,
    value: u64,
    baseline: u64,
    threshold: u64,
}

/// Everyone whose neighbours are watched.
#[derive(Clone, Debug, Default)]
pub(super) struct Neighbours(BTreeMap<(ContainerId, Contended), Track>);

impl Neighbours {
    /// Forgets containers that are gone.
    pub(super) fn retain(&mut self, known: impl Fn(&ContainerId) -> bool) {
        self.0.retain(|(id, _), _| known(id));
    }

    /// Takes a sample in; gives everyone who is disturbed.
    pub(super) fn step(
        &mut self,
        now: Timestamp,
        config: &Config,
        facts: &Facts<'_>,
        usage: &UsageView,
        tasks: &[RunningView],
    ) -> Vec<Disturbance> {
        let mut found = Vec::new();
        for owner in &facts.owners {
            for resource in Contended::ALL {
                let key = (owner.task.container_id.clone(), resource);
                let track = self.0.entry(key).or_default();
                let excess = match resource {
                    Contended::Cpu => cpu(config, facts, owner, track),
                    Contended::Memory => memory(config, usage, owner, track),
                    Contended::Disk => disk(config, usage, owner, track),
                };
                let Some(excess) = excess else {
                    track.streak = None;
                    continue;
                };
                let (since, samples) = track.streak.unwrap_or((now, 0));
                track.streak = Some((since, samples.saturating_add(1)));
                let enough = match resource {
                    Contended::Cpu => samples.saturating_add(1) >= config.confirm_samples,
                    Contended::Memory | Contended::Disk => {
                        now.ms_since(since) >= config.confirm_stall_ms
                    }
                };
                if enough {
                    let by = blamed(resource, facts, owner, usage, tasks);
                    found.push(disturbance(owner, resource, excess, since, by));
                }
            }
        }
        found.sort_by_key(|one| one.since);
        found.truncate(MAX_DISTURBANCES);
        found
    }
}

fn disturbance(
    owner: &Owner<'_>,
    resource: Contended,
    excess: Excess,
    since: Timestamp,
    by: Vec<Disturber>,
) -> Disturbance {
    Disturbance {
        framework_id: owner.task.framework_id.clone(),
        task_id: owner.task.task_id.clone(),
        container_id: owner.task.container_id.clone(),
        resource,
        signal: excess.signal,
        value: excess.value,
        baseline: excess.baseline,
        threshold: excess.threshold,
        since,
        by,
    }
}

/// Judges a value against what is normal, and learns from it. `excused`: whatever it is, others are not to blame.
fn judge(
    track: &mut Track,
    signal: Signal,
    value: u64,
    (permille, floor): (u64, u64),
    excused: bool,
) -> Option<Excess> {
    let baseline = track.normal.get();
    let threshold = permille_of(baseline, permille).max(floor);
    let disturbed = value > threshold && !excused;
    // What is excused teaches nothing: a task under its own quota waits long, and is not slow by nature.
    if !excused {
        track.normal.learn(value, disturbed);
    }
    disturbed.then_some(Excess {
        signal,
        value,
        baseline,
        threshold,
    })
}

/// Waits for a CPU, although its own quota does not hold it back and it has less than it is allocated.
fn cpu(config: &Config, facts: &Facts<'_>, owner: &Owner<'_>, track: &mut Track) -> Option<Excess> {
    let fast = &owner.used.fast;
    let value = fast.wait_mean_ns?;
    if fast.waits? < config.min_waits || owner.self_bound {
        return None;
    }
    let used = owner.used.fast.cpu_milli?;
    let allocated = owner.task.allocated.regular.get(ResourceKind::Cpus);
    let served = allocated > 0 && used >= permille_of(allocated, SERVED_PERMILLE);
    let small = owner.demand_milli < config.vote_cpu_milli && !owner.rising;
    let preempted = fast.preempted_by_revocable_per_s.unwrap_or(0) > 0
        || fast.preempted_by_other_per_s.unwrap_or(0) > 0;
    let excused = small || served || !(preempted || facts.full);
    let floor = config.wait_mean_floor_ns;
    let by_mean = judge(
        track,
        Signal::RunQueueLatency,
        value,
        (config.latency_permille, floor),
        excused,
    );
    let p99 = fast.wait_p99_ns.filter(|_| enough_for_p99(fast));
    let by_p99 = p99
        .filter(|p99| !excused && *p99 > config.wait_p99_floor_ns.saturating_mul(4))
        .map(|value| Excess {
            signal: Signal::RunQueueLatency,
            value,
            baseline: track.normal.get(),
            threshold: config.wait_p99_floor_ns.saturating_mul(4),
        });
    by_mean.or(by_p99)
}

/// Stands still for want of memory, although its own limit leaves it room and the machine's memory is scarce.
fn memory(
    config: &Config,
    usage: &UsageView,
    owner: &Owner<'_>,
    track: &mut Track,
) -> Option<Excess> {
    let used = owner.used;
    let value = used
        .fast
        .reclaim_permille
        .max(used.slow.mem_pressure_permille)?;
    let memory = &used.memory;
    let held = match (memory.anon_bytes, memory.file_bytes) {
        (Some(anon), Some(file)) => Some(anon.saturating_add(file)),
        _ => used.mem_bytes,
    }?;
    let own_limit = memory
        .limit_bytes
        .is_some_and(|limit| held >= permille_of(limit, OWN_LIMIT_PERMILLE));
    let machine = &usage.machine;
    let (available, all) = (machine.mem_available_bytes?, machine.mem_total_bytes?);
    let scarce = available < permille_of(all, SCARCE_PERMILLE);
    let bounds = (config.latency_permille, config.stall_floor_permille);
    judge(
        track,
        Signal::MemoryStall,
        value,
        bounds,
        own_limit || !scarce,
    )
}

/// Its disk requests take long, although most of the traffic is not its own and it has not all that it is allocated.
fn disk(
    config: &Config,
    usage: &UsageView,
    owner: &Owner<'_>,
    track: &mut Track,
) -> Option<Excess> {
    let slow = &owner.used.slow;
    let value = slow.io.mean_ns?;
    let own = slow.disk_bytes_per_s?;
    let all = usage
        .containers
        .values()
        .filter_map(|used| used.slow.disk_bytes_per_s)
        .fold(0, u64::saturating_add);
    let allocated = owner
        .task
        .allocated
        .regular
        .get(ResourceKind::DiskBandwidth);
    let served = allocated > 0 && own >= permille_of(allocated, SERVED_PERMILLE);
    let excused = served || own >= permille_of(all, OWN_TRAFFIC_PERMILLE);
    let bounds = (config.latency_permille, config.disk_floor_ns);
    judge(track, Signal::DiskLatency, value, bounds, excused)
}

/// What a neighbour uses of the resource, and of that beyond what it owns.
fn pressing(resource: Contended, task: &RunningView, used: &ContainerUse) -> (u64, u64) {
    let (amount, kind, least) = match resource {
        Contended::Cpu => {
            let recent = used.slow.cpu_milli.max(used.fast.cpu_milli);
            (recent, ResourceKind::Cpus, LEAST_CPU_MILLI)
        }
        Contended::Memory => (used.mem_bytes, ResourceKind::Mem, LEAST_MEM_BYTES),
        Contended::Disk => (
            used.slow.disk_bytes_per_s,
            ResourceKind::DiskBandwidth,
            LEAST_DISK_BYTES_PER_S,
        ),
    };
    let amount = amount.filter(|amount| *amount >= least).unwrap_or(0);
    let beyond = amount.saturating_sub(task.allocated.regular.get(kind));
    (amount, if beyond >= least { beyond } else { 0 })
}

/// Which class of containers takes CPUs from the owner: `Some(true)` only revocable ones, `Some(false)` only others.
fn class(resource: Contended, owner: &Owner<'_>) -> Option<bool> {
    let fast = &owner.used.fast;
    let by_revocable = fast.preempted_by_revocable_per_s?;
    let by_other = fast.preempted_by_other_per_s?;
    let all = by_revocable.saturating_add(by_other);
    if resource != Contended::Cpu || all == 0 {
        return None;
    }
    let part = permille_of(all, CLASS_PERMILLE);
    match (by_revocable > part, by_other > part) {
        (true, false) => Some(true),
        (false, true) => Some(false),
        _ => None,
    }
}

/// The neighbours with a fifth and more of what presses, the worst first.
fn blamed(
    resource: Contended,
    facts: &Facts<'_>,
    owner: &Owner<'_>,
    usage: &UsageView,
    tasks: &[RunningView],
) -> Vec<Disturber> {
    let class = class(resource, owner);
    let mut pressing_of: Vec<(&RunningView, u64, u64)> = tasks
        .iter()
        .filter(|task| task.container_id != owner.task.container_id)
        .filter(|task| class.is_none_or(|revocable| task.allocated.is_revocable() == revocable))
        .filter_map(|task| {
            let used = usage.containers.get(&task.container_id)?;
            let (amount, beyond) = pressing(resource, task, used);
            Some((task, amount, beyond))
        })
        .collect();
    // Traffic has no owner worth the name: most tasks are allocated none.
    let by_excess =
        resource != Contended::Disk && pressing_of.iter().any(|(_, _, beyond)| *beyond > 0);
    if by_excess {
        pressing_of
            .iter_mut()
            .for_each(|(_, amount, beyond)| *amount = *beyond);
    }
    let outside = match (resource, class) {
        (Contended::Cpu, None | Some(false)) => facts.unmanaged_milli.unwrap_or(0),
        _ => 0,
    };
    let all = pressing_of
        .iter()
        .fold(outside, |sum, (_, amount, _)| sum.saturating_add(*amount));
    pressing_of.sort_by_key(|(_, amount, _)| std::cmp::Reverse(*amount));
    pressing_of
        .into_iter()
        .filter(|(_, amount, _)| *amount > 0 && *amount >= permille_of(all, NAMED_PERMILLE))
        .take(MAX_DISTURBERS)
        .map(|(task, amount, _)| Disturber {
            framework_id: task.framework_id.clone(),
            task_id: task.task_id.clone(),
            container_id: task.container_id.clone(),
            revocable: task.allocated.is_revocable(),
            share_permille: share(amount, all),
        })
        .collect()
}

fn share(amount: u64, all: u64) -> u64 {
    let share = (u128::from(amount) * 1000).checked_div(u128::from(all));
    share.map_or(0, |share| u64::try_from(share).unwrap_or(1000))
}
