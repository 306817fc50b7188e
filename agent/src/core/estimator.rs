//! How much of what is allocated will surely stay unused, and may therefore be lent.
//!
//! **Problem.** A task is allocated for its worst hour and uses a part of it. The rest can be lent,
//! as long as its owner finds it when it wants it. What matters is the *peak* over the time for
//! which something is lent, and a peak is not known from the last value: rules that take the last
//! value lend nearly everything and are wrong in nearly every hour.
//!
//! **Rule.** For each kind, and each task that is not revocable: the peak to expect is the larger of
//! an upper quantile of its use in a sliding window with a margin, and its present use with a
//! larger margin, so that a rise counts at once and a fall only when the window has forgotten it.
//! The slack is what it is allocated beyond that. Lendable is the sum of the slacks, never more than
//! the machine has beyond all peaks, less a reserve for the system and less what work outside of
//! Ebb takes: of CPU that is no more than what is left of its largest use of late, which fades within minutes,
//! without the highest seconds. A task that has not shown itself for long enough counts what it is allocated, unless
//! earlier ones of its class have shown what to expect ([`siblings`](super::siblings)). What nobody has been allocated is not lent: the master offers it as it is.
//!
//! The window is minutes long. Once a task has been there for two hours, what all of them together will need within an
//! hour ([`peaks`]) counts too, wherever it is more: of memory, which comes back only by ending its user, not less than
//! their largest sum of three days. CPU and bandwidth come back within milliseconds: beside revocable tasks that say when
//! they end, they are lent against what will be needed while these still run ([`peaks::ends`]).
//!
//! **Units.** Thousandths of a core, bytes, bytes a second; shares in thousandths; milliseconds.
//! Integers only, rounded so that less is lent.
//!
//! **Invariants.**
//! - Lendable never exceeds the sum of the slacks, nor what the machine has.
//! - Of the minutes' window it is monotone: more use at any time never means that more is lent. The hour's part only ever
//!   takes away from that; a spike that was expected and has come may take away less than before.
//! - A task without valid data has no slack; a sample without valid data lends nothing.
//! - It falls at once and grows slowly: only to what has been lendable all through
//!   [`Config::hold_ms`], by at most [`Config::growth_permille_per_s`], and not while the QoS
//!   controller holds anything back, nor until [`Config::cool_down_ms`] after.
//! - What is in use is never reported as not lent: taking it back is the QoS controller's business.
//!
//! **Price.** A task costs one insertion into a sorted array of at most a few hundred numbers for each kind and block, a
//! look at its last two hours, and 7 KiB for each kind that the agent has. In its first two hours a task counts what it is
//! allocated or what the minutes show; its daily peak is not known, and what is lent then rests on the QoS controller. What
//! is known survives a restart of the agent ([`Estimator::kept`]).
//! Bandwidth that work outside of Ebb uses is not measured, only covered by the reserve.

pub mod lasting;
pub mod peaks;

mod damper;
mod history;

use std::collections::BTreeMap;

use ebb_types::{ContainerId, Quantities, ResourceKind, Timestamp};

use self::damper::Damper;
use self::history::{Fading, History};
use self::peaks::ends::Held;
use self::peaks::kept::{Kept, Unfit};
use self::peaks::{Member, Peak, Peaks, Weights};
use super::permille::{permille_of, plus_permille};
use super::running::RunningView;
use super::usage::{ContainerUse, UsageView};

/// The kinds that can be lent: those whose use is measured. Disk space is not among them, since
/// there is no way to take it back but to end the task.
pub const LENT_KINDS: [ResourceKind; 4] = [
    ResourceKind::Cpus,
    ResourceKind::Mem,
    ResourceKind::DiskBandwidth,
    ResourceKind::NetworkBandwidth,
];

/// Settings of the estimator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// What the parts of an hour's peak count.
    pub peaks: Weights,
    /// CPU.
    pub cpus: KindConfig,
    /// Memory.
    pub mem: KindConfig,
    /// Disk bandwidth.
    pub disk_bandwidth: KindConfig,
    /// Network bandwidth.
    pub network_bandwidth: KindConfig,
    /// Fastest growth of what is lent, in thousandths of the machine a second. A tenth: the whole
    /// slack of an idle machine is lent within ten seconds, and a mistake is seen before it is large.
    pub growth_permille_per_s: u64,
    /// For how long something must have been lendable before it is lent, in milliseconds. Longer
    /// than the usual bursts of a server, so that they are not lent between.
    pub hold_ms: u64,
    /// How long nothing grows after the QoS controller held something back, in milliseconds.
    /// Serenity and Koordinator wait 15 to 20 s to see what a correction did; ours takes effect
    /// within a sample, so less will do.
    pub cool_down_ms: u64,
    /// Smallest growth worth telling the master, in thousandths of the machine.
    pub report_permille: u64,
    /// Shortest time between two growths that are told, in milliseconds.
    pub report_interval_ms: u64,
}

/// Settings for one kind of resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KindConfig {
    /// Whether it is lent at all.
    pub lend: bool,
    /// Length of one block, in milliseconds; its largest value stands for it.
    pub block_ms: u64,
    /// Blocks in the window.
    pub blocks: u64,
    /// Blocks after which a task is no longer cold.
    pub warm_blocks: u64,
    /// So many tasks of a class must have ended until a cold one counts what they have used.
    pub siblings: u64,
    /// Which quantile of the blocks counts, in thousandths.
    pub quantile_permille: u64,
    /// Added to that quantile, in thousandths of it.
    pub margin_permille: u64,
    /// Added to the present use, in thousandths of it. Katalyst's figure for CPU (a quarter) and for
    /// memory (a tenth).
    pub rise_permille: u64,
    /// Kept for the system, in thousandths of the machine.
    pub reserve_permille: u64,
    /// What is lent is a multiple of this.
    pub quantum: u64,
}

impl Default for Config {
    fn default() -> Self {
        // Bandwidth comes back quickly, but is used in bursts: the maximum.
        let bandwidth = KindConfig {
            lend: true,
            block_ms: 1_000,
            blocks: 300,
            warm_blocks: 30,
            siblings: 5,
            quantile_permille: 1_000,
            margin_permille: 250,
            rise_permille: 250,
            reserve_permille: 100,
            quantum: 1 << 20,
        };
        Self {
            peaks: Weights::default(),
            // CPU comes back within milliseconds, so five minutes of seconds will do. 99 % of 300
            // blocks leaves the three highest seconds out.
            cpus: KindConfig {
                lend: true,
                block_ms: 1_000,
                blocks: 300,
                warm_blocks: 30,
                siblings: 5,
                quantile_permille: 990,
                margin_permille: 100,
                rise_permille: 250,
                reserve_permille: 50,
                quantum: 100,
            },
            // Memory comes back only by ending its user: an hour, the very maximum, a larger margin
            // and reserve, and ten minutes until a task counts as known.
            mem: KindConfig {
                lend: true,
                block_ms: 12_000,
                blocks: 300,
                warm_blocks: 50,
                siblings: 20,
                quantile_permille: 1_000,
                margin_permille: 250,
                rise_permille: 250,
                reserve_permille: 100,
                quantum: 64 << 20,
            },
            disk_bandwidth: bandwidth,
            network_bandwidth: bandwidth,
            growth_permille_per_s: 100,
            hold_ms: 5_000,
            cool_down_ms: 10_000,
            report_permille: 20,
            report_interval_ms: 1_000,
        }
    }
}

impl Config {
    /// The settings for one of [`LENT_KINDS`]; those of bandwidth for any other.
    pub const fn kind(&self, kind: ResourceKind) -> &KindConfig {
        match kind {
            ResourceKind::Cpus => &self.cpus,
            ResourceKind::Mem => &self.mem,
            ResourceKind::NetworkBandwidth => &self.network_bandwidth,
            ResourceKind::Disk | ResourceKind::DiskBandwidth => &self.disk_bandwidth,
        }
    }
}

/// What may be lent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Estimate {
    /// What may be lent in all, in use and not.
    pub lendable: Quantities,
    /// What revocable tasks hold.
    pub in_use: Quantities,
}

impl Estimate {
    /// What new revocable tasks may take.
    pub fn offerable(&self) -> Quantities {
        self.lendable.saturating_sub(&self.in_use)
    }

    /// What the master is told: in use and offerable together.
    pub fn oversubscribed(&self) -> Quantities {
        self.in_use.saturating_add(&self.offerable())
    }
}

/// What an estimate is made from, besides history.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    /// What was measured; `None` without valid data.
    pub usage: Option<&'a UsageView>,
    /// Every task that runs.
    pub tasks: &'a [RunningView],
    /// What the agent has.
    pub total: &'a Quantities,
    /// Whether the QoS controller holds anything back now that is not named below.
    pub holding_back: bool,
    /// Whether it holds network bandwidth back.
    pub limiting_network: bool,
    /// Whether it holds memory back.
    pub reclaiming_memory: bool,
}

/// What of lending is kept over a restart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Past {
    /// Of each of [`LENT_KINDS`], in their order.
    pub kinds: Vec<Kept<ContainerId>>,
    /// How estimates have lasted ([`lasting::Survival::kept`]).
    pub lasted: Vec<u64>,
}

/// The estimator of one agent.
#[derive(Clone, Debug)]
pub struct Estimator {
    config: Config,
    tasks: BTreeMap<ContainerId, [History; LENT_KINDS.len()]>,
    together: [Peaks<ContainerId>; LENT_KINDS.len()],
    unmanaged: [History; LENT_KINDS.len()],
    /// CPU of work outside of Ebb.
    unmanaged_cpu: Fading,
    dampers: [Damper; LENT_KINDS.len()],
    no_growth_until: [Timestamp; LENT_KINDS.len()],
}

impl Estimator {
    /// An estimator that has seen nothing and lends nothing.
    pub fn new(config: Config) -> Self {
        Self {
            config,
            tasks: BTreeMap::new(),
            together: std::array::from_fn(|_| Peaks::new(config.peaks)),
            unmanaged: Default::default(),
            unmanaged_cpu: Fading::default(),
            dampers: std::array::from_fn(|_| Damper::new(config.hold_ms)),
            no_growth_until: Default::default(),
        }
    }

    /// Forgets a container; one that is not known is fine.
    pub fn forget(&mut self, container_id: &ContainerId) {
        self.tasks.remove(container_id);
    }

    /// What to keep over a restart: of each of [`LENT_KINDS`] what tasks have shown together.
    pub fn kept(&self) -> Option<Vec<Kept<ContainerId>>> {
        self.together.iter().map(Peaks::kept).collect()
    }

    /// Takes up what was kept before a restart. The minutes' windows and what is lent begin anew.
    ///
    /// # Errors
    /// [`Unfit`] if any of it is of no use; then every task is cold.
    pub fn take_up(&mut self, now: Timestamp, kinds: Vec<Kept<ContainerId>>) -> Result<(), Unfit> {
        let kinds: [Kept<ContainerId>; LENT_KINDS.len()] =
            kinds.try_into().map_err(|_| Unfit::Absurd)?;
        let mut together = self.together.clone();
        for (peaks, kept) in together.iter_mut().zip(kinds) {
            peaks.take_up(now, kept)?;
        }
        self.together = together;
        Ok(())
    }

    /// Takes a sample in and gives what may be lent from now on.
    pub fn step(&mut self, now: Timestamp, facts: Facts<'_>) -> Estimate {
        let known: std::collections::BTreeSet<_> =
            facts.tasks.iter().map(|task| &task.container_id).collect();
        self.tasks.retain(|id, _| known.contains(id));
        let in_use = facts.tasks.iter().fold(Quantities::ZERO, |sum, task| {
            sum.saturating_add(&task.allocated.revocable)
        });
        let mut lendable = Quantities::ZERO;
        for (index, kind) in LENT_KINDS.into_iter().enumerate() {
            let mut target = facts
                .usage
                .map_or(0, |usage| self.target(now, index, usage, &facts));
            let is_held = match kind {
                ResourceKind::NetworkBandwidth => facts.limiting_network,
                ResourceKind::Mem => facts.reclaiming_memory,
                _ => false,
            };
            if facts.holding_back || is_held {
                target = target.min(in_use.get(kind));
                self.no_growth_until[index] = now.plus_ms(self.config.cool_down_ms);
            }
            let may_grow = now >= self.no_growth_until[index] && facts.usage.is_some();
            let level = self.dampers[index].step(
                now,
                target,
                may_grow,
                facts.total.get(kind),
                &self.config,
                self.config.kind(kind).quantum,
            );
            lendable = lendable.with(kind, level);
        }
        Estimate { lendable, in_use }
    }

    /// What could be lent of one kind, undamped.
    fn target(
        &mut self,
        now: Timestamp,
        index: usize,
        usage: &UsageView,
        facts: &Facts<'_>,
    ) -> u64 {
        let kind = LENT_KINDS[index];
        let config = *self.config.kind(kind);
        let total = facts.total.get(kind);
        let (mut slack, mut peaks, mut alone) = (0u64, 0u64, 0u64);
        let mut members = Vec::with_capacity(facts.tasks.len());
        // Of what the agent has none of, nobody can have been allocated any.
        let tasks = if total == 0 { &[] } else { facts.tasks };
        for task in tasks {
            let allocated = task.allocated.regular.get(kind);
            let demand = if task.allocated.is_revocable() {
                // Its own part is its own; what it uses of it is not watched.
                allocated
            } else {
                let used = usage
                    .containers
                    .get(&task.container_id)
                    .and_then(|used| measured(kind, used));
                let peak = self.peak(now, index, task, used);
                alone = alone.saturating_add(peak.min(allocated));
                members.push(Member {
                    key: task.container_id.clone(),
                    limit: allocated,
                    unknown: peak,
                    used,
                });
                peak
            };
            slack = slack.saturating_add(allocated.saturating_sub(demand));
            peaks = peaks.saturating_add(demand);
        }
        let together = self.together[index].step(now, &members);
        let more = hour(now, kind, together, facts.tasks).saturating_sub(alone);
        let (slack, peaks) = (slack.saturating_sub(more), peaks.saturating_add(more));
        let Some(overhead) = self.overhead(now, index, usage, facts) else {
            return 0;
        };
        if !config.lend {
            return 0;
        }
        slack
            .min(total.saturating_sub(peaks))
            .saturating_sub(overhead)
            .min(physical_bound(kind, usage, facts, &config))
    }

    /// The peak to expect of one task: what it is allocated, or more, while it is cold or unmeasured, and not known by its
    /// siblings.
    fn peak(&mut self, now: Timestamp, index: usize, task: &RunningView, used: Option<u64>) -> u64 {
        let kind = LENT_KINDS[index];
        let config = self.config.kind(kind);
        let history = &mut self.tasks.entry(task.container_id.clone()).or_default()[index];
        let allocated = task.allocated.regular.get(kind);
        let Some(used) = used else { return allocated };
        history.push(now, used, config);
        let rising = plus_permille(used, config.rise_permille);
        match history.quantile(config) {
            Some(seen) => rising.max(plus_permille(seen, config.margin_permille)),
            None => {
                let age_ms = now.ms_since(task.started_at);
                let siblings = task.siblings.as_ref();
                let asked = (config.siblings, config.margin_permille);
                let expected = siblings.and_then(|of| of.expect(kind, allocated, age_ms, asked));
                rising.max(expected.unwrap_or(allocated))
            }
        }
    }

    /// What the system and work outside of Ebb need, beyond what the machine has and Ebb does not
    /// offer. `None` where it was not measured.
    fn overhead(
        &mut self,
        now: Timestamp,
        index: usize,
        usage: &UsageView,
        facts: &Facts<'_>,
    ) -> Option<u64> {
        let kind = LENT_KINDS[index];
        let config = self.config.kind(kind);
        let total = facts.total.get(kind);
        let reserve = permille_of(total, config.reserve_permille);
        let machine = &usage.machine;
        let (unmanaged, physical, complete) = match kind {
            ResourceKind::Cpus => (machine.slow_unmanaged_milli?, machine.capacity_milli?, true),
            ResourceKind::Mem => {
                let all = machine.mem_total_bytes?;
                let busy = all.saturating_sub(machine.mem_available_bytes?);
                let (managed, complete) = managed_memory(usage, facts);
                (busy.saturating_sub(managed), all, complete)
            }
            ResourceKind::Disk | ResourceKind::DiskBandwidth | ResourceKind::NetworkBandwidth => {
                return Some(reserve);
            }
        };
        let history = &mut self.unmanaged[index];
        if complete {
            // Else memory of a container would be remembered as the system's.
            history.push(now, unmanaged, config);
        }
        let expected = if kind == ResourceKind::Cpus {
            // What is lent gives way to it at once, so that a moment of much work is no reason to lend nothing for minutes.
            let fading = self.unmanaged_cpu.push(now, unmanaged);
            history.without_outliers(config).unwrap_or(0).min(fading)
        } else {
            history.quantile(config).unwrap_or(0)
        };
        let expected = expected.max(unmanaged);
        Some(
            expected
                .saturating_add(reserve)
                .saturating_sub(physical.saturating_sub(total)),
        )
    }
}

/// What all tasks together will need within the hour, beside revocable tasks that end in it; nothing is known of that until
/// one has shown itself. Memory is not taken back in time: of it no end is counted on.
fn hour(now: Timestamp, kind: ResourceKind, together: Peak, tasks: &[RunningView]) -> u64 {
    let held = tasks.iter().map(|task| {
        let siblings = task.siblings.as_ref();
        let expected = siblings.and_then(|of| of.end(task.started_at, now));
        Held {
            amount: task.allocated.revocable.get(kind),
            ends_at: task.ends_at.into_iter().chain(expected).min(),
        }
    });
    match (together.shown, kind) {
        (0, _) => 0,
        (_, ResourceKind::Mem) => together.keep.max(together.longest),
        _ => together.beside(now, held),
    }
}

/// What of one kind a container uses, over the slow window.
fn measured(kind: ResourceKind, used: &ContainerUse) -> Option<u64> {
    match kind {
        ResourceKind::Cpus => used.slow.cpu_milli,
        ResourceKind::Mem => used.mem_bytes,
        ResourceKind::DiskBandwidth => used.slow.disk_bytes_per_s,
        ResourceKind::NetworkBandwidth => used.slow.traffic_bytes_per_s(),
        ResourceKind::Disk => None,
    }
}

/// Memory of all tasks that could be measured, and whether that is all of them.
fn managed_memory(usage: &UsageView, facts: &Facts<'_>) -> (u64, bool) {
    let mut sum = (0u64, true);
    for task in facts.tasks {
        let used = usage.containers.get(&task.container_id);
        match used.and_then(|used| used.mem_bytes) {
            Some(mem_bytes) => sum.0 = sum.0.saturating_add(mem_bytes),
            None => sum.1 = false,
        }
    }
    sum
}

/// A bound that does not rest on allocations: memory that revocable tasks hold or could have now.
fn physical_bound(
    kind: ResourceKind,
    usage: &UsageView,
    facts: &Facts<'_>,
    config: &KindConfig,
) -> u64 {
    if kind != ResourceKind::Mem {
        return u64::MAX;
    }
    let lent = facts
        .tasks
        .iter()
        .filter(|task| task.allocated.is_revocable())
        .filter_map(|task| usage.containers.get(&task.container_id)?.mem_bytes)
        .fold(0, u64::saturating_add);
    usage
        .machine
        .mem_available_bytes
        .unwrap_or(0)
        .saturating_add(lent)
        .saturating_sub(permille_of(facts.total.get(kind), config.reserve_permille))
}

#[cfg(test)]
mod tests;
