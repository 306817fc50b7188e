//! What each framework has used in all, and who was killed for want of memory and why.
//!
//! **Problem.** Rates forget: a container that ends between two samples leaves no trace in them. What a framework has
//! used in all must hold every nanosecond and byte of every container, also of those that lived for a moment.
//!
//! **Way.** Each container is held here from its launch until its last reading has come ([`Sample::ended`]). Its
//! counters count from its launch, so its first reading counts in full; that of a container that was found running after
//! a restart is a baseline, since what came before was counted in the life before.
//!
//! **Invariants.** Totals only rise. A figure that was never measured is `None`. A counter that steps back counts anew
//! from zero; one whose source changes goes on where it was.
//!
//! **Price.** Seven subtractions a container and sample; at most [`MAX_ACCOUNTED`] containers, [`MAX_FRAMEWORKS`]
//! frameworks of their own (the rest are one), [`MAX_PENDING_KILLS`] kills without their cause.

mod oom;
mod rise;

use std::collections::BTreeMap;

use ebb_types::{ContainerId, FrameworkId, TaskKey, executor_class, task_class};

pub use self::oom::{OomCause, OomKilled, OomVictim};
use self::oom::{Pending, Watch};
pub use self::rise::FrameworkTotals;
use self::rise::Last;
use super::ExecutorKey;
use super::usage::{ContainerSample, Sample};

/// Most containers that are held at a time.
pub const MAX_ACCOUNTED: usize = super::usage::MAX_CONTAINERS;

/// Most frameworks that are accounted for by themselves. Never forgotten, since totals only rise.
pub const MAX_FRAMEWORKS: usize = 200;

/// Most kills whose cause is waited for.
pub const MAX_PENDING_KILLS: usize = 256;

/// So many samples after a container has ended its last reading is waited for no longer.
const LAST_READING_SAMPLES: u32 = 600;

/// Whose container it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// The framework.
    pub framework_id: FrameworkId,
    /// The task or the executor in it, by its id.
    pub name: String,
    /// What it has in common with others of its kind.
    pub class: String,
}

impl Holder {
    /// Of a task's own container.
    pub fn of_task((framework_id, task_id): &TaskKey, name: &str) -> Self {
        Self {
            framework_id: framework_id.clone(),
            name: task_id.to_string(),
            class: task_class(task_id.as_str(), name),
        }
    }

    /// Of the container of a framework's own executor.
    pub fn of_executor((framework_id, executor_id): &ExecutorKey) -> Self {
        Self {
            framework_id: framework_id.clone(),
            name: executor_id.to_string(),
            class: executor_class(executor_id.as_str()),
        }
    }
}

/// Where a container's counters begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Since {
    /// At its launch.
    Launch,
    /// In an earlier life of the agent.
    Before,
}

#[derive(Clone, Debug)]
struct Held {
    holder: Holder,
    last: Last,
    watch: Watch,
    /// Samples since it ended.
    ended_for: Option<u32>,
}

/// What went wrong; these only rise.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AccountCounters {
    /// Containers beyond [`MAX_ACCOUNTED`], of which nothing is accounted for.
    pub unaccounted: u64,
    /// Containers whose last reading never came.
    pub unfinished: u64,
    /// Processes outside of containers that were killed for want of memory.
    pub killed_outside: u64,
}

/// What each framework has used in all.
#[derive(Clone, Debug, Default)]
pub struct Account {
    containers: BTreeMap<ContainerId, Held>,
    frameworks: BTreeMap<FrameworkId, FrameworkTotals>,
    others: FrameworkTotals,
    pending: Vec<Pending>,
    counters: AccountCounters,
}

impl Account {
    /// A container is there, or is about to be.
    pub fn begin(&mut self, container_id: &ContainerId, holder: Holder, since: Since) {
        if self.containers.len() >= MAX_ACCOUNTED && !self.containers.contains_key(container_id) {
            self.counters.unaccounted += 1;
            return;
        }
        let held = Held {
            holder,
            last: Last::new(since),
            watch: Watch::new(since),
            ended_for: None,
        };
        self.containers.insert(container_id.clone(), held);
    }

    /// It has ended; its last reading is on its way.
    pub fn end(&mut self, container_id: &ContainerId) {
        if let Some(held) = self.containers.get_mut(container_id) {
            held.ended_for.get_or_insert(0);
        }
    }

    /// Takes a sample in. Gives the kills whose cause is now known.
    pub fn on_sample(&mut self, sample: &Sample) -> Vec<OomKilled> {
        let mut told = Vec::new();
        for kill in &sample.oom_kills {
            self.killed(kill, &mut told);
        }
        for (container_id, reading) in &sample.ended {
            self.read(container_id, reading, true, &mut told);
            let is_over = |held: &Held| held.ended_for.is_some();
            if self.containers.get(container_id).is_some_and(is_over) {
                self.containers.remove(container_id);
            } else if let Some(held) = self.containers.get_mut(container_id) {
                // It is measured anew, from the beginning.
                held.last = Last::new(Since::Launch);
                held.watch = Watch::new(Since::Launch);
            }
        }
        for (container_id, reading) in &sample.containers {
            self.read(container_id, reading, sample.full, &mut told);
        }
        self.forget_unfinished(&mut told);
        told
    }

    fn read(
        &mut self,
        container_id: &ContainerId,
        reading: &ContainerSample,
        full: bool,
        told: &mut Vec<OomKilled>,
    ) {
        let Some(held) = self.containers.get_mut(container_id) else {
            return;
        };
        let risen = held.last.rise(reading, full);
        let framework_id = &held.holder.framework_id;
        let is_known = self.frameworks.contains_key(framework_id);
        let totals = if is_known || self.frameworks.len() < MAX_FRAMEWORKS {
            self.frameworks.entry(framework_id.clone()).or_default()
        } else {
            &mut self.others
        };
        totals.add(&risen);
        if !full {
            return;
        }
        let cause = held.watch.cause(reading.memory.as_ref());
        let unseen = held.watch.unseen(reading);
        for pending in oom::take(&mut self.pending, container_id) {
            told.push(pending.told(cause));
        }
        let victim = OomVictim::Container(container_id.clone(), held.holder.clone());
        told.extend((0..unseen).map(|_| OomKilled {
            victim: victim.clone(),
            pid: None,
            asked_by: None,
            cause,
        }));
    }

    fn killed(&mut self, kill: &super::usage::OomKill, told: &mut Vec<OomKilled>) {
        let held = kill
            .container_id
            .as_ref()
            .and_then(|id| Some((id, self.containers.get_mut(id)?)));
        let Some((container_id, held)) = held else {
            self.counters.killed_outside += u64::from(kill.container_id.is_none());
            told.push(OomKilled {
                victim: OomVictim::Outside,
                pid: Some(kill.pid),
                asked_by: Some(kill.asked_by),
                cause: OomCause::Machine,
            });
            return;
        };
        held.watch.seen += 1;
        let pending = Pending {
            container_id: container_id.clone(),
            holder: held.holder.clone(),
            pid: kill.pid,
            asked_by: kill.asked_by,
        };
        if self.pending.len() >= MAX_PENDING_KILLS {
            told.push(pending.told(OomCause::Unknown));
        } else {
            self.pending.push(pending);
        }
    }

    fn forget_unfinished(&mut self, told: &mut Vec<OomKilled>) {
        let mut gone = Vec::new();
        for (container_id, held) in &mut self.containers {
            let Some(ended_for) = &mut held.ended_for else {
                continue;
            };
            *ended_for += 1;
            if *ended_for > LAST_READING_SAMPLES {
                gone.push(container_id.clone());
            }
        }
        for container_id in gone {
            self.counters.unfinished += 1;
            self.containers.remove(&container_id);
            let pending = oom::take(&mut self.pending, &container_id);
            told.extend(pending.into_iter().map(|one| one.told(OomCause::Unknown)));
        }
    }

    /// What each framework has used; `None` stands for all beyond [`MAX_FRAMEWORKS`].
    pub fn totals(&self) -> impl Iterator<Item = (Option<&FrameworkId>, &FrameworkTotals)> {
        let named = self
            .frameworks
            .iter()
            .map(|(id, totals)| (Some(id), totals));
        let others = (self.others != FrameworkTotals::default()).then_some((None, &self.others));
        named.chain(others)
    }

    /// What went wrong.
    pub const fn counters(&self) -> AccountCounters {
        self.counters
    }
}

#[cfg(test)]
mod tests;
