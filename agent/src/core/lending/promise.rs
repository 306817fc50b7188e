//! Whether owners had what was kept for them.
//!
//! **Problem.** What is lent rests on a forecast, and a forecast that nobody checks is a hope. So the agent measures itself:
//! while it lends some of a resource, it watches how often those that own it use more of it than was left to them on
//! paper, that is what they are allocated less what is lent. Whether anybody suffered is another question, which the QoS
//! controller answers: lent resources come back.
//!
//! **Units.** Milliseconds, millionths of the time. Use is the mean of the last second, as is Borg's and EuroSys'21's in
//! the small; of each owner at most what it is allocated, since nobody was promised more.
//!
//! **Invariants.** Broken time never exceeds watched time. Time in which an owner was not measured, or nothing was lent,
//! is not watched.

use ebb_types::{Promises, Quantities, ResourceKind};

use super::super::running::RunningView;
use crate::core::usage::UsageView;

/// What is promised to owners.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// How much of the time they may use more than was kept for them, in millionths. A thousandth: the bar that
    /// estimators of other systems are measured by.
    pub budget_ppm: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self { budget_ppm: 1_000 }
    }
}

/// Keeps account of promises.
#[derive(Clone, Copy, Debug)]
pub(super) struct Keeper(Promises);

impl Keeper {
    pub(super) fn new(config: Config) -> Self {
        Self(Promises {
            budget_ppm: config.budget_ppm,
            ..Promises::default()
        })
    }

    pub(super) const fn promises(&self) -> Promises {
        self.0
    }

    /// For so long `lent` was lent, and this is what was used at the end of it.
    pub(super) fn watch(
        &mut self,
        passed_ms: u64,
        usage: &UsageView,
        tasks: &[RunningView],
        lent: &Quantities,
    ) {
        let cpu = Self::kept(ResourceKind::Cpus, usage, tasks, lent);
        let mem = Self::kept(ResourceKind::Mem, usage, tasks, lent);
        for (promise, kept) in [(&mut self.0.cpu, cpu), (&mut self.0.mem, mem)] {
            if let Some(kept) = kept {
                promise.watched_ms = promise.watched_ms.saturating_add(passed_ms);
                let broken_ms = if kept { 0 } else { passed_ms };
                promise.broken_ms = promise.broken_ms.saturating_add(broken_ms);
            }
        }
    }

    /// Whether owners used no more than was kept for them; `None` where nothing was lent or somebody not measured.
    fn kept(
        kind: ResourceKind,
        usage: &UsageView,
        tasks: &[RunningView],
        lent: &Quantities,
    ) -> Option<bool> {
        if lent.get(kind) == 0 {
            return None;
        }
        let (mut owned, mut used) = (0u64, 0u64);
        for task in tasks.iter().filter(|task| !task.allocated.is_revocable()) {
            let of = usage.containers.get(&task.container_id)?;
            let uses = match kind {
                ResourceKind::Mem => of.mem_bytes,
                _ => of.slow.cpu_milli,
            }?;
            let allocated = task.allocated.regular.get(kind);
            owned = owned.saturating_add(allocated);
            used = used.saturating_add(uses.min(allocated));
        }
        Some(used <= owned.saturating_sub(lent.get(kind)))
    }
}
