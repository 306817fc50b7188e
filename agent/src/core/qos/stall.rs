//! Memory and disks that owners stand still for: the containers on lent resources that press most give way.
//!
//! A frozen container asks for neither memory nor disk, and what it holds can be swapped out. Struck are the fewest that
//! have half of what all revocable containers have of the resource; if that was not enough, half of the rest a moment
//! later. For memory they are first left less of what they have cached ([`super::reclaim`]). Those that are frozen are
//! let go, and ended, by the same rules as those that were frozen for CPU.

use ebb_types::{ChoiceRule, Contended, CorrectionAction, Disturbance, Timestamp};

use super::super::permille::permille_of;
use super::super::running::RunningView;
use super::super::usage::UsageView;
use super::{Cause, Controller, Corrections, Grip, Hold, choice, correction, plan};

impl Controller {
    /// Answers stalls that revocable containers make. Says whether anything was done.
    pub(super) fn relieve_stalls(
        &mut self,
        now: Timestamp,
        usage: &UsageView,
        tasks: &[RunningView],
        corrections: &mut Corrections,
    ) -> bool {
        let worst = self
            .disturbances
            .iter()
            .filter(|one| one.resource != Contended::Cpu && one.by.iter().any(|by| by.revocable))
            .max_by_key(|one| u128::from(one.value) * 1000 / u128::from(one.threshold.max(1)))
            .cloned();
        let Some(worst) = worst else { return false };
        self.pressed_at = Some(now);
        if worst.resource == Contended::Memory {
            self.reclaimed.note_pressure(now);
        }
        let lately = |at: Timestamp| now.ms_since(at) < self.config.stall_settle_ms;
        if self.stalls_answered_at.is_some_and(lately) {
            return false;
        }
        let candidates: Vec<(u64, &RunningView)> = tasks
            .iter()
            .filter(|task| task.allocated.is_revocable())
            .filter(|task| !corrections.contains_key(&task.container_id))
            .filter(|task| {
                let hold = self.holds.get(&task.container_id);
                !hold.is_some_and(|hold| {
                    matches!(hold.grip, Grip::Frozen(_) | Grip::Evicting { .. })
                })
            })
            .filter_map(|task| {
                let used = usage.containers.get(&task.container_id)?;
                let amount = match worst.resource {
                    Contended::Memory => used.mem_bytes,
                    Contended::Disk | Contended::Cpu => used.slow.disk_bytes_per_s,
                };
                amount.filter(|amount| *amount > 0).map(|a| (a, task))
            })
            .collect();
        let sizes: Vec<_> = candidates
            .iter()
            .map(|(amount, task)| (*amount, task.started_at))
            .collect();
        let all = sizes
            .iter()
            .fold(0u64, |sum, (amount, _)| sum.saturating_add(*amount));
        let chosen = plan::cover(all.div_ceil(2), &sizes);
        let rule = match worst.resource {
            Contended::Memory => ChoiceRule::MostMemory,
            Contended::Disk | Contended::Cpu => ChoiceRule::MostDisk,
        };
        let mildly = worst.resource == Contended::Memory
            && worst.value < permille_of(worst.threshold, self.config.severe_permille);
        for (place, index) in chosen.iter().enumerate() {
            let Some((amount, task)) = candidates.get(*index) else {
                continue;
            };
            let cause = Cause {
                choice: choice(rule, *amount, place, sizes.len()),
                ..Cause::of(&worst, now)
            };
            if !mildly || !self.reclaim_memory(now, usage, task, &cause, corrections) {
                self.freeze(now, task, cause, corrections);
            }
        }
        if chosen.is_empty() {
            return false;
        }
        self.stalls_answered_at = Some(now);
        self.note_tightening(now);
        true
    }

    /// Freezes one container.
    pub(super) fn freeze(
        &mut self,
        now: Timestamp,
        task: &RunningView,
        cause: Cause,
        corrections: &mut Corrections,
    ) {
        let action = CorrectionAction::Freeze;
        corrections.insert(
            task.container_id.clone(),
            correction(now, task, action, &cause),
        );
        let allocated = task.allocated.total(ebb_types::ResourceKind::Cpus);
        let before = self.holds.get(&task.container_id);
        let hold = Hold {
            grip: Grip::Frozen(now),
            want_milli: before.map_or(allocated, |hold| hold.want_milli),
            cause,
        };
        self.holds.insert(task.container_id.clone(), hold);
    }
}

impl Cause {
    fn of(one: &Disturbance, now: Timestamp) -> Self {
        Self {
            signal: one.signal,
            on_behalf_of: Some(one.task_id.clone()),
            value: one.value,
            threshold: one.threshold,
            baseline: Some(one.baseline),
            duration_ms: now.ms_since(one.since),
            choice: choice(ChoiceRule::MostDisk, 0, 0, 0),
            grace_ms: 0,
        }
    }
}
