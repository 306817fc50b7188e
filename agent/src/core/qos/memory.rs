//! A machine that runs out of memory: only ending someone gives it back.
//!
//! Ended are the fewest that make enough free, the largest first; those whose framework has lost enough of late are
//! frozen instead, so that they take no more. In danger (half as much left) nobody is spared, one sample is enough, and
//! whoever was told to end has no grace any more.

use ebb_types::{ChoiceRule, Quantities, Signal, Timestamp};

use super::super::permille::permille_of;
use super::super::running::RunningView;
use super::super::usage::UsageView;
use super::{
    Cause, Choice, Controller, CorrectionAction, Corrections, Grip, Hold, choice, correction, plan,
};

/// Those of whom memory can be had.
struct Sizes<'a> {
    /// What is on its way from those that were told to end, in bytes.
    coming_bytes: u64,
    /// What each of the others holds, in bytes.
    held: Vec<(u64, &'a RunningView)>,
}

impl Controller {
    /// Ends the largest revocable containers when the machine runs out of memory, and again those
    /// that should have ended and have not.
    pub(super) fn relieve_memory(
        &mut self,
        now: Timestamp,
        usage: &UsageView,
        tasks: &[RunningView],
        total: &Quantities,
        corrections: &mut Corrections,
    ) {
        self.repeat_evictions(now, tasks, corrections);
        let Some(available) = usage.machine.mem_available_bytes else {
            return;
        };
        let all = usage.machine.mem_total_bytes.unwrap_or(total.mem_bytes());
        let low = permille_of(all, self.config.mem_low_permille);
        let danger = available < permille_of(all, self.config.mem_danger_permille);
        if available >= low {
            self.mem_low_since = None;
            return;
        }
        let since = *self.mem_low_since.get_or_insert((now, 0));
        self.mem_low_since = Some((since.0, since.1.saturating_add(1)));
        if since.1.saturating_add(1) < self.config.confirm_samples && !danger {
            return;
        }
        self.pressed_at = Some(now);
        self.reclaimed.note_pressure(now);
        let cause = Cause {
            signal: Signal::MachineMemory,
            on_behalf_of: None,
            value: available,
            threshold: low,
            baseline: None,
            duration_ms: now.ms_since(since.0),
            choice: choice(ChoiceRule::MostMemory, 0, 0, 0),
            grace_ms: if danger {
                0
            } else {
                self.config.evict_grace_mem_ms
            },
        };
        if danger {
            self.end_grace(now, tasks, &cause, corrections);
        }
        let sizes = self.sizes(now, usage, tasks);
        let wanted = low.saturating_add(permille_of(all, self.config.mem_restore_permille));
        let missing = wanted
            .saturating_sub(available)
            .saturating_sub(sizes.coming_bytes);
        self.end_for_memory(now, missing, &sizes.held, danger, &cause, corrections);
    }

    fn sizes<'a>(&self, now: Timestamp, usage: &UsageView, tasks: &'a [RunningView]) -> Sizes<'a> {
        let mut sizes = Sizes {
            coming_bytes: 0,
            held: Vec::new(),
        };
        for task in tasks.iter().filter(|task| task.allocated.is_revocable()) {
            let used = usage.containers.get(&task.container_id);
            let held = used.and_then(|used| used.mem_bytes).unwrap_or(0);
            match self.holds.get(&task.container_id).map(|hold| hold.grip) {
                Some(Grip::Evicting { at, grace_ms })
                    if now.ms_since(at) < grace_ms.max(self.config.evict_interval_ms) =>
                {
                    sizes.coming_bytes = sizes.coming_bytes.saturating_add(held);
                }
                Some(Grip::Evicting { .. }) => {}
                _ if held >= self.config.mem_victim_min_bytes => sizes.held.push((held, task)),
                _ => {}
            }
        }
        sizes
    }

    /// Ends the fewest that cover what is missing, as far as budgets go; those that are spared are frozen.
    fn end_for_memory(
        &mut self,
        now: Timestamp,
        missing_bytes: u64,
        held: &[(u64, &RunningView)],
        danger: bool,
        cause: &Cause,
        corrections: &mut Corrections,
    ) {
        let mut left_of = std::collections::BTreeMap::new();
        let mut may_end = Vec::new();
        let mut spared = Vec::new();
        let ranked: Vec<_> = held
            .iter()
            .map(|(bytes, task)| (*bytes, task.started_at))
            .collect();
        let order = plan::cover(u64::MAX, &ranked);
        for (place, index) in order.into_iter().enumerate() {
            let (bytes, task) = held[index];
            let most = self.config.budget_evictions;
            let left = left_of
                .entry(&task.framework_id)
                .or_insert_with(|| self.budget.left(&task.framework_id, most));
            let chosen = choice(ChoiceRule::MostMemory, bytes, place, held.len());
            if *left > 0 || danger {
                *left = left.saturating_sub(1);
                may_end.push((bytes, task, chosen));
            } else {
                spared.push((task, chosen));
            }
        }
        let mut left_bytes = missing_bytes;
        for (bytes, task, chosen) in may_end {
            if left_bytes == 0 {
                return;
            }
            left_bytes = left_bytes.saturating_sub(bytes);
            let cause = Cause {
                choice: chosen,
                ..cause.clone()
            };
            self.evict(now, task, cause, corrections);
        }
        if left_bytes > 0 {
            self.freeze_spared(now, spared, cause, corrections);
        }
    }

    fn freeze_spared(
        &mut self,
        now: Timestamp,
        spared: Vec<(&RunningView, Choice)>,
        cause: &Cause,
        corrections: &mut Corrections,
    ) {
        for (task, chosen) in spared {
            let hold = self.holds.get(&task.container_id);
            if hold.is_some_and(|hold| matches!(hold.grip, Grip::Frozen(_))) {
                continue;
            }
            let choice = Choice {
                spared: true,
                ..chosen
            };
            let cause = Cause {
                choice,
                grace_ms: 0,
                ..cause.clone()
            };
            self.freeze(now, task, cause, corrections);
        }
    }

    /// In danger nobody who was told to end may take his time.
    fn end_grace(
        &mut self,
        now: Timestamp,
        tasks: &[RunningView],
        cause: &Cause,
        corrections: &mut Corrections,
    ) {
        for task in tasks {
            let hold = self.holds.get(&task.container_id);
            if let Some(Grip::Evicting { at, grace_ms }) = hold.map(|hold| hold.grip)
                && now.ms_since(at) < grace_ms
            {
                let waited_ms = now.ms_since(at);
                let cause = Cause {
                    choice: choice(ChoiceRule::NotEnded, waited_ms, 0, 1),
                    ..cause.clone()
                };
                self.tell_end(now, task, cause, corrections);
            }
        }
    }

    /// A container that was told to end a while ago and still runs is told again.
    fn repeat_evictions(
        &mut self,
        now: Timestamp,
        tasks: &[RunningView],
        corrections: &mut Corrections,
    ) {
        for task in tasks {
            let Some(hold) = self.holds.get(&task.container_id) else {
                continue;
            };
            if let Grip::Evicting { at, .. } = hold.grip
                && now.ms_since(at) >= self.config.evict_repeat_ms
            {
                let cause = Cause {
                    choice: choice(ChoiceRule::NotEnded, now.ms_since(at), 0, 1),
                    grace_ms: 0,
                    ..hold.cause.clone()
                };
                self.tell_end(now, task, cause, corrections);
            }
        }
    }

    /// Has one container ended.
    pub(super) fn evict(
        &mut self,
        now: Timestamp,
        task: &RunningView,
        cause: Cause,
        corrections: &mut Corrections,
    ) {
        self.budget.spend(&task.framework_id, now);
        self.tell_end(now, task, cause, corrections);
    }

    fn tell_end(
        &mut self,
        now: Timestamp,
        task: &RunningView,
        cause: Cause,
        corrections: &mut Corrections,
    ) {
        corrections.insert(
            task.container_id.clone(),
            correction(now, task, CorrectionAction::Evict, &cause),
        );
        let hold = Hold {
            grip: Grip::Evicting {
                at: now,
                grace_ms: cause.grace_ms,
            },
            want_milli: 0,
            cause,
        };
        self.holds.insert(task.container_id.clone(), hold);
    }
}
