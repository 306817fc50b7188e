//! Network bandwidth that was lent, taken back by limits.
//!
//! **Problem.** The kernel lets CPU of revocable containers give way by itself; packets of all containers stand in one
//! queue, and a network that is full hides what owners would send. So owners must find room before they ask for it.
//!
//! **Rule.** In each direction, what owners and revocable containers use stays below what the agent has less a reserve: a
//! rise of an owner shows in the reserve. Above it the largest revocable users are limited to what covers the rest; if all
//! is full, to no more than half of what they used, in each sample, since nobody knows then how much owners want. A
//! container that has a limit is counted by no more than that: for a moment more can pass. When it has been calm, limits
//! are widened in steps, the tightest first.
//!
//! **Units.** Bytes a second, milliseconds. The reserve covers what networks add to IP packets, too.
//!
//! **Invariants.** A limit never lies above what its container may want; it goes when it would. A container of which no
//! traffic is measured is not limited, but counts what it is allocated.

use std::collections::BTreeMap;

use ebb_types::{
    Choice, ChoiceRule, ContainerId, CorrectionAction, Quantities, ResourceKind, Signal, Timestamp,
};

use super::super::permille::permille_of;
use super::super::running::RunningView;
use super::super::sliding::{Extreme, Sliding};
use super::super::usage::UsageView;
use super::{Cause, Config, Corrections, MAX_RELAPSES, choice, correction, plan};

/// Bandwidth in each direction: received, sent.
type Ways = [u64; 2];

/// How long more must be used than the level, and a limit have held before the next, in milliseconds: rates of traffic
/// span as much.
const SPAN_MS: u64 = 90;

/// A step gives back this part of what is free.
const EASE_DIVISOR: u64 = 2;

/// Who is limited, and how the network stood of late.
#[derive(Clone, Debug)]
pub(super) struct Network {
    reserve_permille: u64,
    limits: BTreeMap<ContainerId, u64>,
    /// Since when more is used than the level, and in how many samples.
    over: Option<(Timestamp, u32)>,
    /// The most that owners used of late.
    owners_peak: Sliding,
    pressed_at: Option<Timestamp>,
    tightened_at: Option<Timestamp>,
    eased_at: Option<Timestamp>,
    relapses: u32,
}

/// A revocable container of which traffic is measured.
struct User<'a> {
    task: &'a RunningView,
    used: Ways,
    /// What it may want.
    want: u64,
}

/// How the network stands.
struct Standing<'a> {
    total: u64,
    /// What may be used of it.
    level: u64,
    /// What owners use, and what those of which it is not known are allocated.
    owners: Ways,
    users: Vec<User<'a>>,
}

impl Standing<'_> {
    fn used(&self, way: usize) -> u64 {
        let each = self.users.iter().map(|user| user.used[way]);
        each.fold(0, u64::saturating_add)
    }

    /// What is used of the fuller direction, and which that is.
    fn fuller(&self) -> (u64, usize) {
        let busy = |way: usize| (self.owners[way].saturating_add(self.used(way)), way);
        busy(0).max(busy(1))
    }
}

impl Network {
    pub(super) fn new(reserve_permille: u64, config: &Config) -> Self {
        Self {
            reserve_permille,
            limits: BTreeMap::new(),
            over: None,
            owners_peak: Sliding::new(Extreme::Max, config.calm_ms),
            pressed_at: None,
            tightened_at: None,
            eased_at: None,
            relapses: 0,
        }
    }

    /// The limit of a container, if it has one.
    pub(super) fn limit(&self, container_id: &ContainerId) -> Option<u64> {
        self.limits.get(container_id).copied()
    }

    /// Whether any container is limited.
    pub(super) fn is_holding(&self) -> bool {
        !self.limits.is_empty()
    }

    pub(super) fn forget(&mut self, container_id: &ContainerId) {
        self.limits.remove(container_id);
    }

    pub(super) fn retain(&mut self, keep: impl Fn(&ContainerId) -> bool) {
        self.limits.retain(|id, _| keep(id));
    }

    /// Judges one sample with valid data. A container that was corrected in it already waits for the next.
    pub(super) fn step(
        &mut self,
        now: Timestamp,
        config: &Config,
        usage: &UsageView,
        tasks: &[RunningView],
        total: &Quantities,
        corrections: &mut Corrections,
    ) {
        let total = total.get(ResourceKind::NetworkBandwidth);
        if total == 0 {
            return;
        }
        let standing = self.standing(usage, tasks, total);
        let owners = standing.owners[0].max(standing.owners[1]);
        let owners_peak = self.owners_peak.push(now, owners);
        let (busy, way) = standing.fuller();
        let tolerated = permille_of(total, config.deadband_permille);
        if busy <= standing.level.saturating_add(tolerated) {
            self.over = None;
            self.ease(now, config, &standing, owners_peak, corrections);
            return;
        }
        self.pressed_at = Some(now);
        let (since, samples) = self.over.unwrap_or((now, 0));
        self.over = Some((since, samples.saturating_add(1)));
        let is_full = busy >= total;
        let lasts =
            samples.saturating_add(1) >= config.confirm_samples && now.ms_since(since) >= SPAN_MS;
        let settled = |at: Timestamp| now.ms_since(at) >= SPAN_MS;
        if (is_full || lasts) && self.tightened_at.is_none_or(settled) {
            let missing = busy - standing.level;
            let half = standing.used(way).div_ceil(2);
            let need = missing.max(if is_full { half } else { 0 });
            let cause = cause(busy, standing.level, now.ms_since(since));
            self.tighten(now, config, &standing, (way, need), &cause, corrections);
        }
    }

    fn standing<'a>(
        &self,
        usage: &UsageView,
        tasks: &'a [RunningView],
        total: u64,
    ) -> Standing<'a> {
        let mut standing = Standing {
            total,
            level: total - permille_of(total, self.reserve_permille).min(total),
            owners: [0; 2],
            users: Vec::new(),
        };
        for task in tasks {
            let allocated = task.allocated.total(ResourceKind::NetworkBandwidth);
            // Who was allocated none has no limit of its own.
            let want = if allocated == 0 { total } else { allocated };
            let most = self.limit(&task.container_id).unwrap_or(want).min(want);
            let used = usage.containers.get(&task.container_id);
            let measured = used.and_then(|used| {
                let ways = [
                    used.fast.traffic_in_bytes_per_s?,
                    used.fast.traffic_out_bytes_per_s?,
                ];
                Some(ways.map(|bytes_per_s| bytes_per_s.min(most)))
            });
            match measured {
                Some(used) if task.allocated.is_revocable() => {
                    standing.users.push(User { task, used, want });
                }
                _ => {
                    let ways = measured.unwrap_or([allocated; 2]);
                    for (owners, used) in standing.owners.iter_mut().zip(ways) {
                        *owners = owners.saturating_add(used);
                    }
                }
            }
        }
        standing
    }

    /// Limits the largest users of one direction until what is needed is covered.
    fn tighten(
        &mut self,
        now: Timestamp,
        config: &Config,
        standing: &Standing<'_>,
        (way, need): (usize, u64),
        cause: &Cause,
        corrections: &mut Corrections,
    ) {
        let least = permille_of(standing.total, config.min_network_permille).max(1);
        let sizes = standing.users.iter();
        let order = plan::ranked(sizes.map(|user| (user.used[way], user.task.started_at)));
        let mut left = need;
        let mut done = false;
        let of = order.len();
        for (place, (index, used)) in order.into_iter().enumerate() {
            let taken = used.saturating_sub(least).min(left);
            let task = standing.users[index].task;
            if taken == 0 || corrections.contains_key(&task.container_id) {
                continue;
            }
            left -= taken;
            let bytes_per_s = used - taken;
            let choice = choice(ChoiceRule::MostNetwork, used, place, of);
            self.set(now, task, Some(bytes_per_s), cause, choice, corrections);
            done = true;
        }
        if !done {
            return;
        }
        self.tightened_at = Some(now);
        if let Some(eased_at) = self.eased_at.take() {
            let soon = now.ms_since(eased_at) < config.calm_ms.saturating_mul(4);
            self.relapses = if soon {
                (self.relapses + 1).min(MAX_RELAPSES)
            } else {
                0
            };
        }
    }

    /// Gives one step back, if it has been calm for long enough.
    fn ease(
        &mut self,
        now: Timestamp,
        config: &Config,
        standing: &Standing<'_>,
        owners_peak: u64,
        corrections: &mut Corrections,
    ) {
        let wait_ms = config.calm_ms.saturating_mul(1 << self.relapses);
        let calm_ms = self.pressed_at.map_or(0, |since| now.ms_since(since));
        let lately = |at: Timestamp| now.ms_since(at) < config.ease_step_ms;
        if self.limits.is_empty() || calm_ms < wait_ms || self.eased_at.is_some_and(lately) {
            return;
        }
        let promised = standing.users.iter().map(|user| {
            let limit = self.limit(&user.task.container_id);
            limit.unwrap_or(user.used[0].max(user.used[1]))
        });
        let busy = promised.fold(owners_peak, u64::saturating_add);
        let margin = permille_of(standing.total, config.ease_margin_permille);
        let level = standing.level.saturating_sub(margin);
        let free = level.saturating_sub(busy);
        let mut budget = (free / EASE_DIVISOR).max(free.min(margin));
        let cause = cause(busy, level, calm_ms);
        let mut held: Vec<(u64, &User<'_>)> = standing
            .users
            .iter()
            .filter_map(|user| Some((self.limit(&user.task.container_id)?, user)))
            .collect();
        held.sort_by_key(|(limit, _)| *limit);
        let of = held.len();
        for (place, (limit, user)) in held.into_iter().enumerate() {
            if budget == 0 || corrections.contains_key(&user.task.container_id) {
                continue;
            }
            let lacking = user.want.saturating_sub(limit);
            let given = lacking.min(budget);
            budget -= given;
            let wider = (given < lacking).then_some(limit.saturating_add(given));
            let choice = choice(ChoiceRule::HeldHardest, limit, place, of);
            self.set(now, user.task, wider, &cause, choice, corrections);
            self.eased_at = Some(now);
        }
    }

    /// Sets or lifts the limit of one container.
    fn set(
        &mut self,
        now: Timestamp,
        task: &RunningView,
        limit: Option<u64>,
        cause: &Cause,
        choice: Choice,
        corrections: &mut Corrections,
    ) {
        let id = task.container_id.clone();
        let action = match limit {
            Some(bytes_per_s) => {
                self.limits.insert(id.clone(), bytes_per_s);
                CorrectionAction::LimitNetwork { bytes_per_s }
            }
            None => {
                self.limits.remove(&id);
                CorrectionAction::ReleaseNetwork
            }
        };
        let cause = Cause {
            choice,
            ..cause.clone()
        };
        corrections.insert(id, correction(now, task, action, &cause));
    }
}

fn cause(busy: u64, level: u64, duration_ms: u64) -> Cause {
    Cause {
        signal: Signal::MachineNetwork,
        on_behalf_of: None,
        value: busy,
        threshold: level,
        baseline: None,
        duration_ms,
        choice: choice(ChoiceRule::MostNetwork, 0, 0, 0),
        grace_ms: 0,
    }
}
