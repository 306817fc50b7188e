//! Giving back, in steps.

use ebb_types::{ChoiceRule, CorrectionAction, Signal, Timestamp};

use super::super::permille::permille_of;
use super::super::running::RunningView;
use super::facts::{Facts, latest};
use super::{
    CAP_STEP_MILLI, Cause, Config, Controller, Corrections, Grip, Hold, choice, correction,
};

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
        tasks: &[RunningView],
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
            baseline: None,
            duration_ms: calm_ms,
            choice: choice(ChoiceRule::HeldHardest, 0, 0, 0),
            grace_ms: 0,
        };
        let free_milli = room.free_milli();
        let mut budget = (free_milli / EASE_DIVISOR).max(free_milli.min(EASE_MIN_MILLI));
        let held = self.by_need(tasks);
        let of = held.len();
        for (place, task) in held.into_iter().enumerate() {
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
            let left_milli = match hold.grip {
                Grip::Capped(cap_milli) => cap_milli,
                Grip::Frozen(_) | Grip::Evicting { .. } => 0,
            };
            let cause = Cause {
                choice: choice(ChoiceRule::HeldHardest, left_milli, place, of),
                ..cause.clone()
            };
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
    fn by_need<'a>(&self, tasks: &'a [RunningView]) -> Vec<&'a RunningView> {
        let mut held: Vec<_> = tasks
            .iter()
            .filter_map(|task| {
                let key = match self.holds.get(&task.container_id)?.grip {
                    Grip::Frozen(since) => (0, since.as_ms()),
                    Grip::Capped(cap_milli) => (1, cap_milli),
                    Grip::Evicting { .. } => return None,
                };
                Some((key, task))
            })
            .collect();
        held.sort_by_key(|(key, _)| *key);
        held.into_iter().map(|(_, task)| task).collect()
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
        Grip::Frozen(_) | Grip::Evicting { .. } => None,
    }
}
