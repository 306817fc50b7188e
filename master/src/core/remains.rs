//! What containers hold that nobody owns any more, until their agent says that they have ended.
//!
//! A framework that is removed holds nothing from that moment on, and its roles' shares and quotas count it no longer.
//! Its containers end some time later. Until then what they hold stays allocated on their agent, and the book of claims
//! is told that it cannot be offered: an agent starts nothing on ports or GPUs that another container has, and memory is
//! not free because the books say so. (Mesos offers it at once.) The same holds of a task that an agent brings along
//! though it ended in the books or runs elsewhere.
//!
//! An agent says the end of a container once, and what it does not name when it registers anew has ended.
//!
//! Invariant: what remains on an agent is a part of what is allocated of it, and of nobody's holdings.

use std::collections::BTreeMap;

use ebb_types::{AgentId, ExecutorId, FrameworkId, Lots, Resources, Role, TaskId};

use super::claims::Seat;
use super::news::News;
use super::state::{Agent, Core, Part};
use crate::ledger::Transition;

/// Something that runs in a container.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Runner {
    Task(TaskId),
    Executor(ExecutorId),
}

/// What remains on an agent. What holds nothing is not among it, so the agent's size is its bound.
#[derive(Debug, Default)]
pub(super) struct Remains {
    of: BTreeMap<(FrameworkId, Runner), (Resources, Lots)>,
    /// All of it.
    sum: (Resources, Lots),
}

impl Remains {
    pub(super) fn is_none(&self) -> bool {
        self.of.is_empty()
    }

    /// All of it.
    pub(super) const fn sum(&self) -> &(Resources, Lots) {
        &self.sum
    }

    fn put(&mut self, key: (FrameworkId, Runner), held: (Resources, Lots)) {
        self.sum = both(&self.sum, &held);
        let twice = self.of.insert(key, held);
        debug_assert!(twice.is_none(), "{twice:?} remains twice");
    }

    fn take(&mut self, key: &(FrameworkId, Runner)) -> Option<(Resources, Lots)> {
        let held = self.of.remove(key)?;
        self.sum.0 = self.sum.0.saturating_sub(&held.0);
        self.sum.1 = self.sum.1.saturating_sub(&held.1);
        Some(held)
    }

    /// Whether the sum is that of the parts.
    pub(super) fn adds_up(&self) -> bool {
        let parts = self.of.values();
        self.sum == parts.fold((Resources::ZERO, Lots::NONE), |sum, held| both(&sum, held))
    }
}

fn both(a: &(Resources, Lots), b: &(Resources, Lots)) -> (Resources, Lots) {
    let lots = a.1.checked_add(&b.1);
    debug_assert!(lots.is_some(), "{} and {} go together", a.1, b.1);
    (a.0.saturating_add(&b.0), lots.unwrap_or_default())
}

impl Agent {
    /// What of its lots nobody owns: what is free of them, and what remains.
    pub(super) fn unowned_lots(&self) -> Lots {
        if self.remains.is_none() {
            return self.free_lots();
        }
        let (_, remain) = self.remains.sum();
        let owned = self.lots.allocated.saturating_sub(remain);
        self.info.lots.free(&self.lots.offered).free(&owned)
    }
}

impl Core {
    /// A framework no longer owns what its task or executor holds, and that has yet to end.
    pub(super) fn leave_behind(
        &mut self,
        agent_id: &AgentId,
        (id, role): (&FrameworkId, &Role),
        runner: Runner,
        seat: Option<Seat>,
        (resources, lots): (Resources, Lots),
    ) {
        if !resources.is_zero() {
            self.disown_part(Part::Allocated, (id, role), seat, agent_id, &resources);
        }
        if !lots.is_none() {
            self.disown_lots((id, role), agent_id, &lots);
        }
        self.remember_remains(agent_id, (id.clone(), runner), (resources, lots));
    }

    /// An agent has something that nobody owns.
    pub(super) fn take_remains(
        &mut self,
        agent_id: &AgentId,
        key: (FrameworkId, Runner),
        (resources, lots): (Resources, Lots),
    ) {
        let lots = self.countable(agent_id, lots);
        let Some(agent) = self.agents.get_mut(agent_id) else {
            return;
        };
        agent.holding.add(Part::Allocated, &resources);
        let sum = agent.lots.allocated.checked_add(&lots);
        agent.lots.allocated = sum.unwrap_or_default();
        self.remember_remains(agent_id, key, (resources, lots));
    }

    fn remember_remains(
        &mut self,
        agent_id: &AgentId,
        key: (FrameworkId, Runner),
        held: (Resources, Lots),
    ) {
        let Some(agent) = self.agents.get_mut(agent_id) else {
            return;
        };
        if held.0.is_zero() && held.1.is_none() {
            return;
        }
        agent.remains.put(key, held);
        self.changed = true;
        self.touch_lots(agent_id);
        self.note_remains(agent_id);
    }

    /// Something has ended: what remained of it is free.
    pub(super) fn end_remains(
        &mut self,
        agent_id: &AgentId,
        framework_id: &FrameworkId,
        runner: Runner,
    ) {
        let Some(agent) = self.agents.get_mut(agent_id) else {
            return;
        };
        if agent.remains.is_none() {
            return;
        }
        let key = (framework_id.clone(), runner);
        if let Some(held) = agent.remains.take(&key) {
            self.free_remains(agent_id, held);
        }
    }

    /// Nothing remains on an agent, or it is about to say what does.
    pub(super) fn end_all_remains(&mut self, agent_id: &AgentId) {
        let Some(agent) = self.agents.get_mut(agent_id) else {
            return;
        };
        if agent.remains.is_none() {
            return;
        }
        let held = std::mem::take(&mut agent.remains).sum;
        self.free_remains(agent_id, held);
    }

    fn free_remains(&mut self, agent_id: &AgentId, (resources, lots): (Resources, Lots)) {
        let Some(agent) = self.agents.get_mut(agent_id) else {
            return;
        };
        agent.holding.sub(Part::Allocated, &resources);
        let account = &mut agent.lots.allocated;
        debug_assert!(account.contains(&lots), "{lots} are not in {account}");
        *account = account.saturating_sub(&lots);
        if !resources.is_zero() {
            self.transit(agent_id, Transition::Recover(resources));
        }
        self.wake.insert(agent_id.clone());
        self.enter_ledger.insert(agent_id.clone());
        self.emptied.insert(agent_id.clone());
        self.wake_held_back = true;
        self.touch_lots(agent_id);
        self.note_remains(agent_id);
    }

    fn note_remains(&mut self, agent_id: &AgentId) {
        if let Some(agent) = self.agents.get(agent_id).filter(|_| self.observed) {
            let (resources, lots) = agent.remains.sum().clone();
            self.news
                .push(News::Remains(agent_id.clone(), resources, lots));
        }
    }
}
