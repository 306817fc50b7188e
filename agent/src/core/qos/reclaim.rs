//! Memory that lent containers hold, taken back a part at a time.
//!
//! Where owners stand still for memory, much of what containers on lent resources hold is often only cached, and the
//! kernel gives more of that to whoever asks. So those that hold most are first left [`Config::keep_cached_permille`] of
//! what they have cached: they go on, and use that again instead of taking more. Whoever has hardly anything cached, was
//! left less already, or makes owners stand still severely is frozen ([`super::stall`]). When it has been calm for long
//! enough and as much is free as it held before, one after the other has its memory again.

use std::collections::BTreeMap;

use ebb_types::{ChoiceRule, ContainerId, CorrectionAction, Signal, Timestamp};

use super::super::permille::permille_of;
use super::super::running::RunningView;
use super::super::usage::UsageView;
use super::facts::latest;
use super::{Cause, Config, Controller, Corrections, Grip, choice, correction};

/// Not worth it below that, in bytes.
const CACHED_MIN_BYTES: u64 = 16 << 20;

/// What a container is left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Kept {
    /// In bytes.
    to_bytes: u64,
    /// What it held before, in bytes.
    held_bytes: u64,
}

/// Who is left less memory than it is allocated.
#[derive(Clone, Debug, Default)]
pub(super) struct Reclaimed {
    kept: BTreeMap<ContainerId, Kept>,
    /// When somebody stood still for memory last, or the machine was short of it.
    pressed_at: Option<Timestamp>,
}

impl Reclaimed {
    /// Down to how much the memory of a container is reclaimed, in bytes.
    pub(super) fn to_bytes(&self, container_id: &ContainerId) -> Option<u64> {
        self.kept.get(container_id).map(|kept| kept.to_bytes)
    }

    /// Whether anybody is left less than it is allocated.
    pub(super) fn is_holding(&self) -> bool {
        !self.kept.is_empty()
    }

    pub(super) fn note_pressure(&mut self, now: Timestamp) {
        self.pressed_at = Some(now);
    }

    pub(super) fn forget(&mut self, container_id: &ContainerId) {
        self.kept.remove(container_id);
    }

    pub(super) fn retain(&mut self, keep: impl Fn(&ContainerId) -> bool) {
        self.kept.retain(|id, _| keep(id));
    }
}

impl Controller {
    /// Leaves a container less memory, if that gives any. Says whether it does.
    pub(super) fn reclaim_memory(
        &mut self,
        now: Timestamp,
        usage: &UsageView,
        task: &RunningView,
        cause: &Cause,
        corrections: &mut Corrections,
    ) -> bool {
        let used = usage.containers.get(&task.container_id);
        let held = used.and_then(|used| Some((used.mem_bytes?, used.memory.file_bytes?)));
        let id = &task.container_id;
        let Some((held_bytes, cached_bytes)) = held else {
            return false;
        };
        if self.reclaimed.kept.contains_key(id) || cached_bytes < CACHED_MIN_BYTES {
            return false;
        }
        let taken = cached_bytes - permille_of(cached_bytes, self.config.keep_cached_permille);
        let to_bytes = held_bytes.saturating_sub(taken);
        let kept = Kept {
            to_bytes,
            held_bytes,
        };
        self.reclaimed.kept.insert(id.clone(), kept);
        let action = CorrectionAction::ReclaimMemory { to_bytes };
        corrections.insert(id.clone(), correction(now, task, action, cause));
        true
    }

    /// Gives one container its memory again, if nobody has wanted for memory for long enough and there is as much.
    pub(super) fn release_memory(
        &mut self,
        now: Timestamp,
        usage: &UsageView,
        tasks: &[RunningView],
        corrections: &mut Corrections,
    ) {
        let calm_since = latest([self.reclaimed.pressed_at, self.tightened_at]);
        let calm_ms = calm_since.map_or(0, |since| now.ms_since(since));
        let wait_ms = self.config.calm_ms.saturating_mul(1 << self.relapses);
        let eased_ms = self.eased_at.map_or(u64::MAX, |at| now.ms_since(at));
        let (Some(available), Some(all)) = (
            usage.machine.mem_available_bytes,
            usage.machine.mem_total_bytes,
        ) else {
            return;
        };
        if !self.reclaimed.is_holding() || calm_ms < wait_ms || eased_ms < self.config.ease_step_ms
        {
            return;
        }
        let left = free_above(available, all, &self.config);
        let held: Vec<_> = tasks
            .iter()
            .filter_map(|task| Some((*self.reclaimed.kept.get(&task.container_id)?, task)))
            .collect();
        let chosen = held.iter().enumerate().find(|(_, (kept, task))| {
            let holds = usage.containers.get(&task.container_id);
            let holds = holds.and_then(|used| used.mem_bytes).unwrap_or(0);
            let hold = self.holds.get(&task.container_id);
            let is_stopped = hold.is_some_and(|hold| !matches!(hold.grip, Grip::Capped(_)));
            let takes = kept.held_bytes.saturating_sub(holds);
            !is_stopped && takes <= left && !corrections.contains_key(&task.container_id)
        });
        let Some((place, (kept, task))) = chosen else {
            return;
        };
        let cause = Cause {
            signal: Signal::MachineMemory,
            on_behalf_of: None,
            value: available,
            threshold: available - left,
            baseline: None,
            duration_ms: calm_ms,
            choice: choice(ChoiceRule::HeldHardest, kept.to_bytes, place, held.len()),
            grace_ms: 0,
        };
        let action = CorrectionAction::ReleaseMemory;
        corrections.insert(
            task.container_id.clone(),
            correction(now, task, action, &cause),
        );
        self.eased_at = Some(now);
        self.reclaimed.forget(&task.container_id);
    }
}

/// What may be taken without coming near to what must be left.
fn free_above(available: u64, all: u64, config: &Config) -> u64 {
    let must_be_left = permille_of(all, config.mem_low_permille + config.mem_restore_permille);
    available.saturating_sub(must_be_left)
}
