//! Which signals show that owners are disturbed, for how long, and how much CPU would help.

use std::collections::BTreeMap;

use ebb_types::{ChoiceRule, ContainerId, Signal, TaskId, Timestamp};

use super::super::permille::permille_of;
use super::baseline::{Baseline, enough_for_p99};
use super::facts::{Facts, Owner};
use super::{Cause, Config};

/// Share of all preemptions that must be by revocable containers before latency is their fault, in
/// thousandths.
const BLAMED_PERMILLE: u64 = 100;

/// One violated bound.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Finding {
    pub(super) signal: Signal,
    /// Who is disturbed, with its container.
    pub(super) owner: Option<(ContainerId, TaskId)>,
    pub(super) value: u64,
    pub(super) threshold: u64,
    /// What is normal for the owner, where the bound rests on that.
    pub(super) baseline: Option<u64>,
    /// CPU to take back, in thousandths of a core.
    pub(super) need_milli: u64,
    /// Whether one sample is enough.
    pub(super) severe: bool,
    /// Since when it has been violated without a break.
    pub(super) since: Timestamp,
}

impl Finding {
    /// The same as a cause of corrections.
    pub(super) fn cause(&self, now: Timestamp) -> Cause {
        Cause {
            signal: self.signal,
            on_behalf_of: self.owner.as_ref().map(|(_, task_id)| task_id.clone()),
            value: self.value,
            threshold: self.threshold,
            baseline: self.baseline,
            duration_ms: now.ms_since(self.since),
            choice: super::choice(ChoiceRule::MostCpu, 0, 0, 0),
            grace_ms: 0,
        }
    }
}

/// Everything that is violated in this sample, nothing if there is nobody to hold back.
pub(super) fn find(
    config: &Config,
    facts: &Facts<'_>,
    baselines: &BTreeMap<ContainerId, Baseline>,
) -> Vec<Finding> {
    if facts.victims.is_empty() {
        return Vec::new();
    }
    let mut findings: Vec<_> = machine_cpu(config, facts).into_iter().collect();
    if facts.revocable_fast_milli < config.quiet_cpu_milli {
        return findings;
    }
    for owner in &facts.owners {
        if owner.demand_milli < config.vote_cpu_milli && !owner.rising {
            continue;
        }
        let baseline = baselines
            .get(&owner.task.container_id)
            .copied()
            .unwrap_or_default();
        let half = facts.claims_milli().div_ceil(2);
        findings.extend(latency(config, owner, &baseline, facts.full, half));
        findings.extend(preempted(config, owner, half));
    }
    findings
}

/// What owners ask for does not fit beside what revocable containers use: not on the machine with
/// its reserve, while they ask for more than they did or get, or not into what the agent has of it.
fn machine_cpu(config: &Config, facts: &Facts<'_>) -> Option<Finding> {
    let managed = facts.owners_milli().saturating_add(facts.together_milli());
    let deadband_milli = permille_of(facts.capacity_milli, config.deadband_permille);
    let machine = (
        managed.saturating_add(facts.unmanaged_milli?),
        facts.capacity_milli.saturating_sub(facts.reserve_milli),
    );
    let agent = (managed, facts.total_milli);
    let missing_of = |(busy, level): (u64, u64)| busy.saturating_sub(level);
    if missing_of(agent) <= deadband_milli && facts.pressing_milli() <= deadband_milli {
        // Lent work fills the machine, as it should, and the kernel has it give way: nobody asks for it back.
        return None;
    }
    let (busy, threshold) = if missing_of(agent) > missing_of(machine) {
        agent
    } else {
        machine
    };
    let missing = busy.saturating_sub(threshold);
    if missing <= deadband_milli {
        return None;
    }
    let owner = facts
        .owners
        .iter()
        .filter(|owner| owner.risen_milli > 0)
        .max_by_key(|owner| owner.risen_milli)
        .map(|owner| identify(owner));
    Some(Finding {
        signal: Signal::MachineCpu,
        owner,
        value: busy,
        threshold,
        baseline: None,
        need_milli: missing,
        severe: missing >= permille_of(facts.capacity_milli, config.severe_missing_permille),
        since: Timestamp::default(),
    })
}

/// The owner waits for a CPU for much longer than it does without revocable containers.
fn latency(
    config: &Config,
    owner: &Owner<'_>,
    baseline: &Baseline,
    full: bool,
    need_milli: u64,
) -> Option<Finding> {
    let fast = &owner.used.fast;
    if owner.self_bound || fast.waits? < config.min_waits {
        return None;
    }
    let by_revocable = fast.preempted_by_revocable_per_s.unwrap_or(0);
    let by_any = by_revocable.saturating_add(fast.preempted_by_other_per_s.unwrap_or(0));
    let preempting = by_revocable > 0 && by_revocable >= permille_of(by_any, BLAMED_PERMILLE);
    // On a full machine nobody need be preempted to wait; where only others preempt, only they are to blame.
    if !preempting && (!full || by_any > 0) {
        return None;
    }
    let bound = |normal_ns: u64, floor_ns: u64| {
        permille_of(normal_ns, config.latency_permille)
            .max(floor_ns)
            .max(1)
    };
    let mean = (
        fast.wait_mean_ns.unwrap_or(0),
        bound(baseline.mean_ns(), config.wait_mean_floor_ns),
    );
    let p99 = (
        fast.wait_p99_ns
            .filter(|_| enough_for_p99(fast))
            .unwrap_or(0),
        bound(baseline.p99_ns(), config.wait_p99_floor_ns),
    );
    let ratio = |(value, bound): (u64, u64)| u128::from(value) * 1000 / u128::from(bound);
    let (value, threshold, normal) = if ratio(p99) > ratio(mean) {
        (p99.0, p99.1, baseline.p99_ns())
    } else {
        (mean.0, mean.1, baseline.mean_ns())
    };
    (value > threshold).then(|| Finding {
        signal: Signal::RunQueueLatency,
        owner: Some(identify(owner)),
        value,
        threshold,
        baseline: Some(normal),
        need_milli,
        severe: value >= permille_of(threshold, config.severe_permille),
        since: Timestamp::default(),
    })
}

/// Revocable containers take CPUs from the owner.
fn preempted(config: &Config, owner: &Owner<'_>, need_milli: u64) -> Option<Finding> {
    // A thread that its own quota stops is followed by whoever comes next, which looks the same.
    if owner.self_bound {
        return None;
    }
    let value = owner.used.fast.preempted_by_revocable_per_s?;
    let threshold = config.preempted_per_s;
    (value > threshold).then(|| Finding {
        signal: Signal::PreemptedByRevocable,
        owner: Some(identify(owner)),
        value,
        threshold,
        baseline: None,
        need_milli,
        severe: value >= permille_of(threshold, config.severe_permille),
        since: Timestamp::default(),
    })
}

fn identify(owner: &Owner<'_>) -> (ContainerId, TaskId) {
    (owner.task.container_id.clone(), owner.task.task_id.clone())
}

/// What has been violated in a row: the machine's signal as a whole, the others by owner.
#[derive(Clone, Debug, Default)]
pub(super) struct Streaks(BTreeMap<(Signal, Option<ContainerId>), Streak>);

#[derive(Clone, Copy, Debug)]
struct Streak {
    since: Timestamp,
    samples: u32,
}

impl Streaks {
    /// Forgets owners that are gone.
    pub(super) fn retain(&mut self, known: impl Fn(&ContainerId) -> bool) {
        self.0
            .retain(|(_, owner), _| owner.as_ref().is_none_or(&known));
    }

    /// Continues the streaks with this sample's findings and gives those that are confirmed.
    pub(super) fn confirm(
        &mut self,
        now: Timestamp,
        findings: Vec<Finding>,
        config: &Config,
    ) -> Vec<Finding> {
        let before = std::mem::take(&mut self.0);
        let mut confirmed = Vec::new();
        for mut finding in findings {
            let owner = match finding.signal {
                Signal::MachineCpu | Signal::MachineMemory => None,
                _ => finding.owner.as_ref().map(|(id, _)| id.clone()),
            };
            let key = (finding.signal, owner);
            let mut streak = before.get(&key).copied().unwrap_or(Streak {
                since: now,
                samples: 0,
            });
            streak.samples = streak.samples.saturating_add(1);
            finding.since = streak.since;
            if finding.severe || streak.samples >= config.confirm_samples {
                confirmed.push(finding);
            }
            self.0.insert(key, streak);
        }
        confirmed
    }
}
