//! What a sample says about owners and about those who run on lent resources.

use ebb_types::{Quantities, ResourceKind, Timestamp};

use super::super::permille::permille_of;
use super::super::running::RunningView;
use super::super::usage::{ContainerUse, UsageView};
use super::Grip;

/// Use of its ceiling from which a task may be held back by it, as long as neither its waits nor the
/// next full sample have told, in thousandths. Half, because bursts reach a ceiling at a low average.
const SELF_BOUND_PERMILLE: u128 = 500;
/// A task whose last sample is this much above its last second is rising, in thousandths.
const RISING_PERMILLE: u64 = 2_000;
/// CPU below which nothing is rising, in thousandths of a core.
const RISING_MIN_MILLI: u64 = 100;

/// A task that is not revocable, with valid data.
#[derive(Clone, Copy, Debug)]
pub(super) struct Owner<'a> {
    pub(super) task: &'a RunningView,
    pub(super) used: &'a ContainerUse,
    /// CPU that it uses, and on a full machine is kept waiting for, in thousandths of a core.
    pub(super) demand_milli: u64,
    /// By how much its use rose within the last second, in thousandths of a core.
    pub(super) risen_milli: u64,
    /// What of its demand it is kept waiting for, in thousandths of a core.
    pub(super) waiting_milli: u64,
    /// Whether its own quota holds it back.
    pub(super) self_bound: bool,
    /// Whether its load is just rising.
    pub(super) rising: bool,
}

/// A revocable task that is not already told to end.
#[derive(Clone, Copy, Debug)]
pub(super) struct Victim {
    /// Which of the tasks.
    pub(super) index: usize,
    /// CPU that it uses, and so what holding it back would give, in thousandths of a core.
    pub(super) claim_milli: u64,
    /// The same by the last sample alone.
    pub(super) latest_milli: u64,
    /// The same by the last second alone.
    pub(super) recent_milli: u64,
    /// CPU that it may use as it is held now, in thousandths of a core.
    pub(super) committed_milli: u64,
    /// CPU that it would use if it were let go, as far as is known, in thousandths of a core.
    pub(super) want_milli: u64,
}

/// Everything that decisions on CPU rest on.
#[derive(Clone, Debug)]
pub(super) struct Facts<'a> {
    /// CPUs of the machine.
    pub(super) capacity_milli: u64,
    /// CPU that is kept for the system.
    pub(super) reserve_milli: u64,
    /// Whether nothing but the reserve is free.
    pub(super) full: bool,
    /// CPUs that the agent has.
    pub(super) total_milli: u64,
    /// CPU of work outside of Ebb; `None` where it was not measured.
    pub(super) unmanaged_milli: Option<u64>,
    /// What revocable containers used in the last sample.
    pub(super) revocable_fast_milli: u64,
    /// Owners with valid data.
    pub(super) owners: Vec<Owner<'a>>,
    /// Revocable tasks.
    pub(super) victims: Vec<Victim>,
    /// What owners without valid data are allocated.
    pub(super) unknown_milli: u64,
}

impl<'a> Facts<'a> {
    /// Gathers them.
    pub(super) fn gather<'b>(
        usage: &'a UsageView,
        tasks: &'a [RunningView],
        total: &Quantities,
        cpu_reserve_permille: u64,
        grip: impl Fn(&ebb_types::ContainerId) -> Option<Grip> + 'b,
    ) -> Self {
        let capacity_milli = usage.machine.capacity_milli.unwrap_or(total.cpu_milli());
        let mut facts = Self {
            capacity_milli,
            total_milli: total.cpu_milli(),
            reserve_milli: permille_of(capacity_milli, cpu_reserve_permille),
            full: false,
            unmanaged_milli: usage.machine.slow_unmanaged_milli,
            revocable_fast_milli: 0,
            owners: Vec::new(),
            victims: Vec::new(),
            unknown_milli: 0,
        };
        for (index, task) in tasks.iter().enumerate() {
            let used = usage.containers.get(&task.container_id);
            let fast = used.and_then(|used| used.fast.cpu_milli);
            let slow = used.and_then(|used| used.slow.cpu_milli);
            if task.allocated.is_revocable() {
                facts.revocable_fast_milli =
                    facts.revocable_fast_milli.saturating_add(fast.unwrap_or(0));
                let held = grip(&task.container_id);
                facts.victims.extend(victim(index, task, fast, slow, held));
            } else if let (Some(used), Some(fast)) = (used, fast) {
                facts.owners.push(owner(task, used, fast, slow));
            } else {
                let allocated = task.allocated.regular.get(ResourceKind::Cpus);
                facts.unknown_milli = facts.unknown_milli.saturating_add(allocated);
            }
        }
        let using = facts.owners.iter().map(|owner| owner.demand_milli);
        let busy_milli = using
            .fold(facts.revocable_fast_milli, u64::saturating_add)
            .saturating_add(facts.unmanaged_milli.unwrap_or(0));
        facts.full = busy_milli.saturating_add(facts.reserve_milli) >= facts.capacity_milli;
        if facts.full {
            facts.owners.iter_mut().for_each(count_waiting);
        }
        facts
    }

    /// CPU that all owners ask for.
    pub(super) fn owners_milli(&self) -> u64 {
        let demands = self.owners.iter().map(|owner| owner.demand_milli);
        demands.fold(0, u64::saturating_add)
    }

    /// CPU that revocable tasks use.
    pub(super) fn claims_milli(&self) -> u64 {
        let claims = self.victims.iter().map(|victim| victim.claim_milli);
        claims.fold(0, u64::saturating_add)
    }

    /// CPU that they use together. Less than the sum of what each may claim, since they take turns.
    pub(super) fn together_milli(&self) -> u64 {
        let sum = |of: fn(&Victim) -> u64| {
            let each = self.victims.iter().map(of);
            each.fold(0, u64::saturating_add)
        };
        sum(|victim| victim.latest_milli).max(sum(|victim| victim.recent_milli))
    }

    /// By how much owners ask for more than they did, or than they get.
    pub(super) fn pressing_milli(&self) -> u64 {
        let each = self
            .owners
            .iter()
            .map(|owner| owner.risen_milli.saturating_add(owner.waiting_milli));
        each.fold(0, u64::saturating_add)
    }

    /// CPU that revocable tasks may use as they are held now.
    pub(super) fn committed_milli(&self) -> u64 {
        let committed = self.victims.iter().map(|victim| victim.committed_milli);
        committed.fold(0, u64::saturating_add)
    }
}

fn owner<'a>(
    task: &'a RunningView,
    used: &'a ContainerUse,
    fast_milli: u64,
    slow_milli: Option<u64>,
) -> Owner<'a> {
    let recent = slow_milli.unwrap_or(fast_milli);
    let throttled = used.fast.throttled_permille;
    let own = used.fast.waiting_own_milli;
    // Where waits for its own quota are measured they are told apart in each sample. After such a
    // wait its threads all become runnable at once and wait for each other.
    let waited = own.max(used.slow.waiting_own_milli) > Some(0);
    let maybe_bound = task.cpu_limit_milli.is_some_and(|limit| {
        let most = u128::from(fast_milli.max(recent));
        let not_told = throttled.is_none() && own.is_none();
        not_told && most * 1000 >= u128::from(limit) * SELF_BOUND_PERMILLE
    });
    let self_bound = waited || maybe_bound || throttled.max(used.slow.throttled_permille) > Some(0);
    Owner {
        task,
        used,
        demand_milli: fast_milli,
        risen_milli: fast_milli.saturating_sub(recent),
        waiting_milli: 0,
        self_bound,
        rising: fast_milli >= RISING_MIN_MILLI
            && u128::from(fast_milli) * 1000 >= u128::from(recent) * u128::from(RISING_PERMILLE),
    }
}

/// On a full machine, threads that wait although their task is below what it is allocated would run
/// if they could. With room on the machine they wait for something else.
fn count_waiting(owner: &mut Owner<'_>) {
    let allocated = owner.task.allocated.regular.get(ResourceKind::Cpus);
    let missing = allocated.saturating_sub(owner.demand_milli);
    if !owner.self_bound {
        owner.waiting_milli = owner.used.fast.waiting_milli.unwrap_or(0).min(missing);
        owner.demand_milli = owner.demand_milli.saturating_add(owner.waiting_milli);
    }
}

fn victim(
    index: usize,
    task: &RunningView,
    fast_milli: Option<u64>,
    slow_milli: Option<u64>,
    held: Option<Grip>,
) -> Option<Victim> {
    let allocated = task.allocated.total(ResourceKind::Cpus);
    // Its use over a second, because a quota makes shorter spans jump; what was not measured may be
    // everything that it holds.
    let use_milli = slow_milli.or(fast_milli).unwrap_or(allocated);
    let (most_milli, committed_milli) = match held {
        None => (u64::MAX, use_milli),
        Some(Grip::Capped(cap_milli)) => (cap_milli, cap_milli),
        Some(Grip::Frozen(_)) => (0, 0),
        Some(Grip::Evicting { .. }) => return None,
    };
    let recent_milli = use_milli.min(most_milli);
    let latest_milli = fast_milli.unwrap_or(use_milli).min(most_milli);
    Some(Victim {
        index,
        // Who has just begun to take must not look smaller than who takes a little all the time.
        claim_milli: recent_milli.max(latest_milli),
        latest_milli,
        recent_milli,
        committed_milli,
        want_milli: use_milli.max(allocated),
    })
}

/// The latest of points in time that may not have been.
pub(super) fn latest(times: impl IntoIterator<Item = Option<Timestamp>>) -> Option<Timestamp> {
    times.into_iter().flatten().max()
}
