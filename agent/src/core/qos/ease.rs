//! Giving back, in steps, and memory, which only ending someone gives back.

use ebb_types::{CorrectionAction, Quantities, Signal, Timestamp};

use super::super::estimator::permille_of;
use super::super::lending::TaskView;
use super::super::usage::UsageView;
use super::facts::{Facts, latest};
use super::{CAP_STEP_MILLI, Cause, Config, Controller, Corrections, Grip, Hold, correction, plan};

/// A step gives back this part of what is free.
const EASE_DIVISOR: u64 = 2;
/// Or this much, if that is free: else the last bit would take for ever. In thousandths of a core.
const EASE_MIN_MILLI: u64 = 200;

/// What could be given back without touching the water level.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Room {
    /// CPU that is in use or promised, in thousandths of a core.
    busy_milli: u64,
    /// The water level less the margin, in thousandths of a core.
    level_milli: u64,
}

impl Room {
    /// What is free beside the most that owners asked for of late; nothing where it is not known.
    pub(super) fn of(facts: &Facts<'_>, owners_peak_milli: u64, config: &Config) -> Self {
        let margin = permille_of(facts.capacity_milli, config.ease_margin_permille);
        let managed_milli = owners_peak_milli
            .saturating_add(facts.unknown_milli)
            .saturating_add(facts.committed_milli());
        let machine = Self {
            busy_milli: managed_milli.saturating_add(facts.unmanaged_milli.unwrap_or(u64::MAX)),
            level_milli: facts
                .capacity_milli
                .saturating_sub(facts.reserve_milli)
                .saturating_sub(margin),
        };
        let agent = Self {
            busy_milli: managed_milli,
            level_milli: facts.total_milli.saturating_sub(margin),
        };
        if agent.free_milli() < machine.free_milli() {
            agent
        } else {
            machine
        }
    }

    /// CPU that is free, in thousandths of a core.
    pub(super) fn free_milli(&self) -> u64 {
        self.level_milli.saturating_sub(self.busy_milli)
    }
}

impl Controller {
    /// Gives one step back, if it has been calm for long enough.
    pub(super) fn ease(
        &mut self,
        now: Timestamp,
        room: Room,
        tasks: &[TaskView],
        corrections: &mut Corrections,
    ) {
        let calm_since = latest([self.pressed_at, self.tightened_at]);
        let calm_ms = calm_since.map_or(0, |since| now.ms_since(since));
        let wait_ms = self.config.calm_ms.saturating_mul(1 << self.relapses);
        let stepped_lately = self
            .eased_at
            .is_some_and(|at| now.ms_since(at) < self.config.ease_step_ms);
        if calm_ms < wait_ms || stepped_lately {
            return;
        }
        let cause = Cause {
            signal: Signal::MachineCpu,
            on_behalf_of: None,
            value: room.busy_milli,
            threshold: room.level_milli,
            duration_ms: calm_ms,
        };
        let free_milli = room.free_milli();
        let mut budget = (free_milli / EASE_DIVISOR).max(free_milli.min(EASE_MIN_MILLI));
        for task in self.by_need(tasks) {
            if corrections.contains_key(&task.container_id) {
                continue;
            }
            let Some(hold) = self.holds.get_mut(&task.container_id) else {
                continue;
            };
            let Some((grip, spent)) = loosened(hold, budget, self.config.min_cap_milli) else {
                continue;
            };
            budget -= spent;
            let action = match grip {
                Some(cap_milli) => {
                    hold.grip = Grip::Capped(cap_milli);
                    CorrectionAction::Throttle {
                        cpu_milli: cap_milli,
                    }
                }
                None => CorrectionAction::Release,
            };
            if grip.is_none() {
                self.holds.remove(&task.container_id);
            }
            self.eased_at = Some(now);
            corrections.insert(
                task.container_id.clone(),
                correction(now, task, action, &cause),
            );
        }
    }

    /// Held tasks: the frozen first, longest frozen first, then those with the smallest caps.
    fn by_need<'a>(&self, tasks: &'a [TaskView]) -> Vec<&'a TaskView> {
        let mut held: Vec<_> = tasks
            .iter()
            .filter_map(|task| {
                let key = match self.holds.get(&task.container_id)?.grip {
                    Grip::Frozen(since) => (0, since.as_ms()),
                    Grip::Capped(cap_milli) => (1, cap_milli),
                    Grip::Evicting(_) => return None,
                };
                Some((key, task))
            })
            .collect();
        held.sort_by_key(|(key, _)| *key);
        held.into_iter().map(|(_, task)| task).collect()
    }

    /// Ends the largest revocable containers when the machine runs out of memory, and again those
    /// that should have ended and have not.
    pub(super) fn relieve_memory(
        &mut self,
        now: Timestamp,
        usage: &UsageView,
        tasks: &[TaskView],
        total: &Quantities,
        corrections: &mut Corrections,
    ) {
        self.repeat_evictions(now, tasks, corrections);
        let Some(available) = usage.machine.mem_available_bytes else {
            return;
        };
        let all = usage.machine.mem_total_bytes.unwrap_or(total.mem_bytes());
        let low = permille_of(all, self.config.mem_low_permille);
        if available >= low {
            self.mem_low_since = None;
            return;
        }
        let since = *self.mem_low_since.get_or_insert((now, 0));
        self.mem_low_since = Some((since.0, since.1.saturating_add(1)));
        if since.1.saturating_add(1) < self.config.confirm_samples {
            return;
        }
        let mut coming = 0u64;
        let mut sizes = Vec::new();
        for task in tasks.iter().filter(|task| task.allocated.is_revocable()) {
            let used = usage.containers.get(&task.container_id);
            let held = used.and_then(|used| used.mem_bytes).unwrap_or(0);
            match self.holds.get(&task.container_id).map(|hold| hold.grip) {
                Some(Grip::Evicting(told_at))
                    if now.ms_since(told_at) < self.config.evict_interval_ms =>
                {
                    coming = coming.saturating_add(held);
                }
                Some(Grip::Evicting(_)) => {}
                _ if held >= self.config.mem_victim_min_bytes => sizes.push((held, task)),
                _ => {}
            }
        }
        let wanted = low.saturating_add(permille_of(all, self.config.mem_restore_permille));
        let missing = wanted.saturating_sub(available).saturating_sub(coming);
        let ranked: Vec<_> = sizes
            .iter()
            .map(|(held, task)| (*held, task.started_at))
            .collect();
        let cause = Cause {
            signal: Signal::MachineMemory,
            on_behalf_of: None,
            value: available,
            threshold: low,
            duration_ms: now.ms_since(since.0),
        };
        for chosen in plan::cover(missing, &ranked) {
            self.evict(now, sizes[chosen].1, cause.clone(), corrections);
        }
    }

    /// A container that was told to end a while ago and still runs is told again.
    fn repeat_evictions(
        &mut self,
        now: Timestamp,
        tasks: &[TaskView],
        corrections: &mut Corrections,
    ) {
        for task in tasks {
            let Some(hold) = self.holds.get(&task.container_id) else {
                continue;
            };
            if let Grip::Evicting(told_at) = hold.grip
                && now.ms_since(told_at) >= self.config.evict_repeat_ms
            {
                let cause = hold.cause.clone();
                self.evict(now, task, cause, corrections);
            }
        }
    }

    /// Has one container ended.
    pub(super) fn evict(
        &mut self,
        now: Timestamp,
        task: &TaskView,
        cause: Cause,
        corrections: &mut Corrections,
    ) {
        corrections.insert(
            task.container_id.clone(),
            correction(now, task, CorrectionAction::Evict, &cause),
        );
        let hold = Hold {
            grip: Grip::Evicting(now),
            want_milli: 0,
            cause,
        };
        self.holds.insert(task.container_id.clone(), hold);
    }
}

/// How far a hold can be loosened within the budget: the new cap, or none at all, and what that
/// costs. `None` where the budget is too small to be worth a change.
fn loosened(hold: &Hold, budget: u64, min_cap_milli: u64) -> Option<(Option<u64>, u64)> {
    match hold.grip {
        Grip::Frozen(_) if budget >= min_cap_milli => Some((Some(min_cap_milli), min_cap_milli)),
        Grip::Capped(cap_milli) => {
            let lacking = hold.want_milli.saturating_sub(cap_milli);
            if lacking <= budget {
                return Some((None, lacking));
            }
            let step = budget / CAP_STEP_MILLI * CAP_STEP_MILLI;
            (step >= min_cap_milli).then_some((Some(cap_milli.saturating_add(step)), step))
        }
        Grip::Frozen(_) | Grip::Evicting(_) => None,
    }
}
