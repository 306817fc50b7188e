//! When lent resources are taken back, from whom, and when they are given again.
//!
//! **Problem.** What was lent must be back before its owner notices. Revocable containers run at the
//! lowest claim that the kernel has, so most interference never arises; what is left is found here,
//! in each sample, and answered with the mildest thing that covers it.
//!
//! **Signals.** For each task that is not revocable, against its own baseline (learnt while
//! revocable containers are quiet): the time from runnable to running, and how often revocable
//! containers took a CPU from it. For the machine: the CPU that owners ask for with a reserve
//! against what revocable containers leave (of the machine, while owners ask for more than they did or than they get;
//! and of what this agent has of it), and memory that could be had. A machine that lent work merely fills is no signal:
//! the kernel has that work give way. A task that its own quota
//! holds back is not blamed on others, a task below [`Config::vote_cpu_milli`] has no say on CPU
//! unless its load is just rising, and a task that is starved counts what it waits for as demand.
//! Latency is blamed on revocable containers only while they use CPU, and only if they preempted
//! the task, or nobody did and the machine is full.
//!
//! For memory and disks: tasks that stand still for them, as [`neighbours`] finds it, and who makes them.
//!
//! **Answer.** Cap the CPU of the smallest set of revocable containers that covers what is missing,
//! largest user first, then youngest; where caps do not cover it, freeze as few as will do; end
//! what has been frozen for [`Config::evict_after_ms`] with no end in sight. Whoever makes owners stand still for a disk
//! is frozen; for memory, once [taking back what it has cached](reclaim) was not enough. A machine that runs out of memory gets none back by freezing: there, end the largest. Who is to
//! end is warned and has [`Config::evict_grace_ms`], without memory less, and in danger none. Of one framework no more
//! than a [`budget`] are ended; beyond it they stay frozen, unless the machine is in danger. When calm, give back in
//! steps. Bandwidth of the network is a matter of its own ([`network`]). Every correction says what was measured, what is normal, and why it struck this container.
//!
//! **Units.** Thousandths of a core, nanoseconds, bytes, events a second; shares in thousandths.
//!
//! **Invariants.**
//! - Only revocable containers are corrected, each at most once a sample, by container id.
//! - A sample without valid data changes nothing. An owner without valid data has no vote, and
//!   nothing is given back out of what it is allocated.
//! - Between a tightening and the next easing lies at least [`Config::calm_ms`] without pressure,
//!   doubled (up to [`MAX_RELAPSES`] times) for each time that easing was soon regretted. So an
//!   oscillating load cannot make it flap.
//! - The CPU reserve is the estimator's: one water level for both.
//!
//! **Price.** O(tasks log tasks) a sample; one small record for each task. Latency is judged in
//! powers of two, as its histogram counts.

mod baseline;
mod budget;
mod ease;
mod facts;
mod memory;
mod neighbours;
mod network;
mod plan;
mod pressure;
mod reclaim;
mod stall;

use std::collections::BTreeMap;

use ebb_types::{
    Choice, ChoiceRule, ContainerId, Correction, CorrectionAction, Disturbance, Quantities, Signal,
    TaskId, Timestamp,
};

use self::baseline::Baseline;
use self::budget::Budget;
pub use self::budget::MAX_BUDGET;
use self::facts::Facts;
use self::neighbours::Neighbours;
use self::network::Network;
use self::plan::Level;
use self::pressure::{Finding, Streaks};
use self::reclaim::Reclaimed;
use super::running::RunningView;
use super::sliding::{Extreme, Sliding};
use super::usage::UsageView;

/// How often the time until easing is doubled at most.
pub const MAX_RELAPSES: u32 = 3;

/// Caps are multiples of this, in thousandths of a core.
const CAP_STEP_MILLI: u64 = 10;

/// Settings of the QoS controller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// Samples in a row that must show a violation. Two: one may be noise. After a jump of an owner's demand they are
    /// 20 ms apart, else 100 ms.
    pub confirm_samples: u32,
    /// How far beyond its threshold a value is severe and needs no second sample, in thousandths.
    pub severe_permille: u64,
    /// How much CPU must be missing for the same, in thousandths of the machine.
    pub severe_missing_permille: u64,
    /// CPU below which a task has no say on CPU. Serenity's figure: below it, ratios are noise.
    pub vote_cpu_milli: u64,
    /// How far latency may rise above the task's own baseline, in thousandths of it.
    pub latency_permille: u64,
    /// Mean wait that is never a violation, in nanoseconds.
    pub wait_mean_floor_ns: u64,
    /// 99th percentile of waits that is never a violation, in nanoseconds. Two buckets above what
    /// Netflix reports as spikes of an idle host (400 us).
    pub wait_p99_floor_ns: u64,
    /// Waits in a sample below which there is nothing to judge.
    pub min_waits: u64,
    /// Preemptions by revocable containers that are a violation, a second.
    pub preempted_per_s: u64,
    /// CPU of all revocable containers below which they disturb nobody, in thousandths of a core.
    pub quiet_cpu_milli: u64,
    /// What the machine rule tolerates above the water level, in thousandths of the machine.
    pub deadband_permille: u64,
    /// What must be free below the water level before more is given back, in thousandths of the
    /// machine.
    pub ease_margin_permille: u64,
    /// Smallest cap; below it a container is frozen, in thousandths of a core.
    pub min_cap_milli: u64,
    /// How long after a tightening latency is judged again, in milliseconds.
    pub settle_ms: u64,
    /// Time without pressure before anything is given back, in milliseconds.
    pub calm_ms: u64,
    /// Time between two steps of giving back, in milliseconds.
    pub ease_step_ms: u64,
    /// How long a container stays frozen before it is ended, in milliseconds.
    pub evict_after_ms: u64,
    /// Time between two evictions for CPU, and until memory of ended containers is counted on no
    /// longer, in milliseconds.
    pub evict_interval_ms: u64,
    /// After this long a container that should have ended is told so again, in milliseconds.
    pub evict_repeat_ms: u64,
    /// Memory that the machine must have left, in thousandths of it. Half of the estimator's
    /// reserve: it stops lending long before anything is ended.
    pub mem_low_permille: u64,
    /// How much more than that evictions make free, in thousandths of the machine.
    pub mem_restore_permille: u64,
    /// Containers that hold less are not worth ending for memory, in bytes.
    pub mem_victim_min_bytes: u64,
    /// Memory that is left when the machine is in danger: no second sample, no grace, no budget. In thousandths.
    pub mem_danger_permille: u64,
    /// Time that a warned container has until it is ended by force, in milliseconds. It was frozen or capped before, so
    /// its owner does not wait for it.
    pub evict_grace_ms: u64,
    /// The same where memory is short: it may be gone by then.
    pub evict_grace_mem_ms: u64,
    /// Most tasks of one framework that are ended in a window.
    pub budget_evictions: u32,
    /// The window, in milliseconds.
    pub budget_window_ms: u64,
    /// How long stalls of memory and disks must last, in milliseconds: from one full sample to the next, since who holds how
    /// much stands in full ones only. With less the neighbours of a second ago are blamed.
    pub confirm_stall_ms: u64,
    /// Standing still for memory that is never a violation, in thousandths of the time passed.
    pub stall_floor_permille: u64,
    /// Mean time of disk requests that is never a violation, in nanoseconds. A disk that turns takes 10 ms.
    pub disk_floor_ns: u64,
    /// How long after an answer to stalls they are judged again, in milliseconds: figures of full samples tell what was
    /// up to two seconds ago.
    pub stall_settle_ms: u64,
    /// What a container that owners stand still for is left of what it has cached, in thousandths.
    pub keep_cached_permille: u64,
    /// Smallest limit of the network, in thousandths of what the agent has of it: connections live on.
    pub min_network_permille: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            confirm_samples: 2,
            severe_permille: 4_000,
            severe_missing_permille: 200,
            vote_cpu_milli: 250,
            latency_permille: 3_000,
            wait_mean_floor_ns: 300_000,
            wait_p99_floor_ns: 1 << 21,
            min_waits: 10,
            preempted_per_s: 50,
            quiet_cpu_milli: 50,
            deadband_permille: 20,
            ease_margin_permille: 50,
            min_cap_milli: 50,
            settle_ms: 200,
            calm_ms: 5_000,
            ease_step_ms: 1_000,
            evict_after_ms: 30_000,
            evict_interval_ms: 5_000,
            evict_repeat_ms: 30_000,
            mem_low_permille: 50,
            mem_restore_permille: 20,
            mem_victim_min_bytes: 16 << 20,
            mem_danger_permille: 25,
            evict_grace_ms: 5_000,
            evict_grace_mem_ms: 1_000,
            budget_evictions: 4,
            budget_window_ms: 600_000,
            confirm_stall_ms: 1_000,
            stall_floor_permille: 100,
            disk_floor_ns: 20_000_000,
            stall_settle_ms: 3_000,
            keep_cached_permille: 500,
            min_network_permille: 10,
        }
    }
}

/// How a container is held back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Grip {
    /// By a cap, in thousandths of a core.
    Capped(u64),
    /// Frozen since then.
    Frozen(Timestamp),
    /// Told to end.
    Evicting {
        /// Said last then.
        at: Timestamp,
        /// And had so long for it.
        grace_ms: u64,
    },
}

/// Why and how a container is held back.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Hold {
    grip: Grip,
    /// What it may be wanting: above a cap of this much the cap is lifted.
    want_milli: u64,
    /// What asked for it.
    cause: Cause,
}

/// What asked for a correction.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Cause {
    signal: Signal,
    on_behalf_of: Option<TaskId>,
    value: u64,
    threshold: u64,
    baseline: Option<u64>,
    duration_ms: u64,
    choice: Choice,
    grace_ms: u64,
}

/// Why the one at `place` (the first is 0) was chosen among so many.
fn choice(rule: ChoiceRule, amount: u64, place: usize, candidates: usize) -> Choice {
    let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    Choice {
        rule,
        amount,
        rank: count(place).saturating_add(1),
        candidates: count(candidates),
        spared: false,
    }
}

/// How one container is held back, for showing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HoldView {
    /// Its cap, in thousandths of a core.
    pub throttled_to_milli: Option<u64>,
    /// Whether it is frozen.
    pub frozen: bool,
    /// The limit of its network bandwidth, in bytes a second each way.
    pub network_limited_to_bytes_per_s: Option<u64>,
    /// Down to how much its memory is reclaimed, in bytes.
    pub memory_reclaimed_to_bytes: Option<u64>,
}

/// The QoS controller of one agent.
#[derive(Clone, Debug)]
pub struct Controller {
    config: Config,
    cpu_reserve_permille: u64,
    baselines: BTreeMap<ContainerId, Baseline>,
    holds: BTreeMap<ContainerId, Hold>,
    streaks: Streaks,
    neighbours: Neighbours,
    network: Network,
    reclaimed: Reclaimed,
    disturbances: Vec<Disturbance>,
    budget: Budget,
    stalls_answered_at: Option<Timestamp>,
    /// Since when memory has been low, and in how many samples.
    mem_low_since: Option<(Timestamp, u32)>,
    /// The most that owners asked for of late.
    owners_peak: Sliding,
    pressed_at: Option<Timestamp>,
    tightened_at: Option<Timestamp>,
    eased_at: Option<Timestamp>,
    evicted_at: Option<Timestamp>,
    relapses: u32,
}

/// The corrections of one sample.
type Corrections = BTreeMap<ContainerId, Correction>;

impl Controller {
    /// A controller that holds nothing back, and keeps so much of the machine free, in thousandths.
    pub fn new(config: Config, cpu_reserve_permille: u64, network_reserve_permille: u64) -> Self {
        Self {
            config,
            cpu_reserve_permille,
            network: Network::new(network_reserve_permille, &config),
            baselines: BTreeMap::new(),
            holds: BTreeMap::new(),
            streaks: Streaks::default(),
            neighbours: Neighbours::default(),
            reclaimed: Reclaimed::default(),
            disturbances: Vec::new(),
            budget: Budget::default(),
            stalls_answered_at: None,
            mem_low_since: None,
            owners_peak: Sliding::new(Extreme::Max, config.calm_ms),
            pressed_at: None,
            tightened_at: None,
            eased_at: None,
            evicted_at: None,
            relapses: 0,
        }
    }

    /// Forgets a container; one that is not known is fine.
    pub fn forget(&mut self, container_id: &ContainerId) {
        self.baselines.remove(container_id);
        self.holds.remove(container_id);
        self.network.forget(container_id);
        self.reclaimed.forget(container_id);
    }

    /// How a container is held back.
    pub fn hold(&self, container_id: &ContainerId) -> HoldView {
        let grip = self.holds.get(container_id).map(|hold| hold.grip);
        HoldView {
            throttled_to_milli: match grip {
                Some(Grip::Capped(cap_milli)) => Some(cap_milli),
                _ => None,
            },
            frozen: matches!(grip, Some(Grip::Frozen(_))),
            network_limited_to_bytes_per_s: self.network.limit(container_id),
            memory_reclaimed_to_bytes: self.reclaimed.to_bytes(container_id),
        }
    }

    /// CPU of what was lent that is held back now, in thousandths of a core.
    pub fn taken_back_milli(&self, tasks: &[RunningView]) -> u64 {
        tasks
            .iter()
            .map(|task| {
                let due = task.allocated.total(ebb_types::ResourceKind::Cpus);
                match self.holds.get(&task.container_id).map(|hold| hold.grip) {
                    Some(Grip::Capped(cap_milli)) => due.saturating_sub(cap_milli),
                    Some(Grip::Frozen(_) | Grip::Evicting { .. }) => due,
                    None => 0,
                }
            })
            .fold(0, u64::saturating_add)
    }

    /// Whether the network bandwidth of any container is held back.
    pub fn limits_network(&self) -> bool {
        self.network.is_holding()
    }

    /// Whether the memory of any container is held back.
    pub fn reclaims_memory(&self) -> bool {
        self.reclaimed.is_holding()
    }

    /// Who was disturbed by whom in the last sample with valid data.
    pub fn disturbances(&self) -> &[Disturbance] {
        &self.disturbances
    }

    /// Without valid data nobody is known to be disturbed.
    pub fn go_blind(&mut self) {
        self.disturbances.clear();
    }

    /// Judges one sample with valid data.
    pub fn step(
        &mut self,
        now: Timestamp,
        usage: &UsageView,
        tasks: &[RunningView],
        total: &Quantities,
    ) -> Vec<Correction> {
        self.drop_ended(tasks);
        self.budget.pass(now, self.config.budget_window_ms);
        let mut corrections = Corrections::new();
        self.relieve_memory(now, usage, tasks, total, &mut corrections);
        let grip_of = |id: &ContainerId| self.holds.get(id).map(|hold| hold.grip);
        let facts = Facts::gather(usage, tasks, total, self.cpu_reserve_permille, grip_of);
        let findings = pressure::find(&self.config, &facts, &self.baselines);
        self.learn(&facts);
        self.disturbances = self
            .neighbours
            .step(now, &self.config, &facts, usage, tasks);
        let confirmed = self.streaks.confirm(now, findings, &self.config);
        if !confirmed.is_empty() {
            self.pressed_at = Some(now);
        }
        let owners_peak_milli = self.owners_peak.push(now, facts.owners_milli());
        let tightened = self.tighten(now, &facts, &confirmed, tasks, &mut corrections);
        let frozen = self.relieve_stalls(now, usage, tasks, &mut corrections);
        if !tightened && !frozen {
            let room = ease::Room::of(&facts, owners_peak_milli, &self.config);
            if facts.unmanaged_milli.is_some() {
                self.evict_starved(now, room, tasks, &mut corrections);
                self.ease(now, room, tasks, &mut corrections);
            }
            self.release_memory(now, usage, tasks, &mut corrections);
        }
        self.network
            .step(now, &self.config, usage, tasks, total, &mut corrections);
        corrections.into_values().collect()
    }

    fn drop_ended(&mut self, tasks: &[RunningView]) {
        let known: std::collections::BTreeSet<_> =
            tasks.iter().map(|task| &task.container_id).collect();
        self.baselines.retain(|id, _| known.contains(id));
        self.holds.retain(|id, _| known.contains(id));
        self.streaks.retain(|id| known.contains(id));
        self.neighbours.retain(|id| known.contains(id));
        self.network.retain(|id| known.contains(id));
        self.reclaimed.retain(|id| known.contains(id));
    }

    /// Updates what is normal for each owner.
    fn learn(&mut self, facts: &Facts<'_>) {
        let quiet = facts.revocable_fast_milli < self.config.quiet_cpu_milli;
        for owner in &facts.owners {
            self.baselines
                .entry(owner.task.container_id.clone())
                .or_default()
                .learn(&owner.used.fast, quiet, self.config.min_waits);
        }
    }

    /// Takes CPU back for the most demanding finding. Says whether anything was done.
    fn tighten(
        &mut self,
        now: Timestamp,
        facts: &Facts<'_>,
        confirmed: &[Finding],
        tasks: &[RunningView],
        corrections: &mut Corrections,
    ) -> bool {
        let settled = self
            .tightened_at
            .is_none_or(|at| now.ms_since(at) >= self.config.settle_ms);
        let worst = confirmed
            .iter()
            .filter(|finding| settled || finding.signal == Signal::MachineCpu)
            .max_by_key(|finding| finding.need_milli);
        let Some(finding) = worst else { return false };
        let candidates: Vec<_> = facts
            .victims
            .iter()
            .map(|victim| plan::Candidate {
                claim_milli: victim.claim_milli,
                started_at: tasks[victim.index].started_at,
            })
            .collect();
        let plan = plan::take(finding.need_milli, &candidates, self.config.min_cap_milli);
        let mut done = false;
        let of = candidates.iter().filter(|one| one.claim_milli > 0).count();
        for (place, (chosen, level)) in plan.into_iter().enumerate() {
            let victim = &facts.victims[chosen];
            let task = &tasks[victim.index];
            if corrections.contains_key(&task.container_id) {
                continue;
            }
            let (grip, action) = match level {
                Level::Cap(cap_milli) => (
                    Grip::Capped(cap_milli),
                    CorrectionAction::Throttle {
                        cpu_milli: cap_milli,
                    },
                ),
                Level::Freeze => (Grip::Frozen(now), CorrectionAction::Freeze),
            };
            let cause = Cause {
                choice: choice(ChoiceRule::MostCpu, victim.claim_milli, place, of),
                ..finding.cause(now)
            };
            let want_milli = self
                .holds
                .get(&task.container_id)
                .map_or(victim.want_milli, |hold| hold.want_milli);
            corrections.insert(
                task.container_id.clone(),
                correction(now, task, action, &cause),
            );
            self.holds.insert(
                task.container_id.clone(),
                Hold {
                    grip,
                    want_milli,
                    cause,
                },
            );
            done = true;
        }
        if done {
            self.note_tightening(now);
        }
        done
    }

    /// Easing that is soon regretted makes the next one wait longer.
    fn note_tightening(&mut self, now: Timestamp) {
        if let Some(eased_at) = self.eased_at.take() {
            let soon = now.ms_since(eased_at) < self.config.calm_ms.saturating_mul(4);
            self.relapses = if soon {
                (self.relapses + 1).min(MAX_RELAPSES)
            } else {
                0
            };
        }
        self.tightened_at = Some(now);
    }

    /// Ends what has been frozen for too long with no end in sight, one at a time.
    fn evict_starved(
        &mut self,
        now: Timestamp,
        room: ease::Room,
        tasks: &[RunningView],
        corrections: &mut Corrections,
    ) {
        let recently = self
            .evicted_at
            .is_some_and(|at| now.ms_since(at) < self.config.evict_interval_ms);
        let pressed = self
            .pressed_at
            .is_some_and(|at| now.ms_since(at) < self.config.calm_ms);
        if recently || !(pressed || room.free_milli() < self.config.min_cap_milli) {
            return;
        }
        let mut starved: Vec<_> = tasks
            .iter()
            .filter(|task| !corrections.contains_key(&task.container_id))
            .filter_map(|task| {
                let hold = self.holds.get(&task.container_id)?;
                let Grip::Frozen(since) = hold.grip else {
                    return None;
                };
                let frozen_ms = now.ms_since(since);
                (frozen_ms >= self.config.evict_after_ms).then_some((
                    hold.want_milli,
                    task.started_at,
                    frozen_ms,
                    task,
                ))
            })
            .collect();
        starved.sort_by_key(|(want_milli, started_at, _, _)| {
            std::cmp::Reverse((*want_milli, *started_at))
        });
        let most = self.config.budget_evictions;
        let allowed = |task: &RunningView| self.budget.left(&task.framework_id, most) > 0;
        let place = starved.iter().position(|(_, _, _, task)| allowed(task));
        let Some((place, (want_milli, _, frozen_ms, task))) =
            place.and_then(|place| Some((place, *starved.get(place)?)))
        else {
            return;
        };
        if let Some(hold) = self.holds.get(&task.container_id) {
            let cause = Cause {
                duration_ms: frozen_ms,
                choice: choice(ChoiceRule::MostCpu, want_milli, place, starved.len()),
                grace_ms: self.config.evict_grace_ms,
                ..hold.cause.clone()
            };
            self.evicted_at = Some(now);
            self.evict(now, task, cause, corrections);
        }
    }
}

/// The record of one decision.
fn correction(
    now: Timestamp,
    task: &RunningView,
    action: CorrectionAction,
    cause: &Cause,
) -> Correction {
    Correction {
        at: now,
        container_id: task.container_id.clone(),
        task_id: task.task_id.clone(),
        framework_id: task.framework_id.clone(),
        action,
        signal: cause.signal,
        on_behalf_of: cause.on_behalf_of.clone(),
        value: cause.value,
        threshold: cause.threshold,
        baseline: cause.baseline,
        duration_ms: cause.duration_ms,
        choice: cause.choice,
        grace_ms: cause.grace_ms,
    }
}
