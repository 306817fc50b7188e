//! The whole core as operators see it, made anew from the books. Reading everything takes time, so whoever
//! drives the core has a copy of the books read instead, which follows [`Core::news`](super::Core::news);
//! what that shows is held against this.

use std::collections::BTreeSet;

use ebb_types::{
    AgentId, AgentState, AgentStatus, ClusterState, FrameworkId, FrameworkState, Lots, Quantities,
    Resources, TaskRecord,
};

use super::state::{Absence, Agent, Core, Framework, Holding};

impl Core {
    /// Everything that the master knows. Reads everything.
    pub fn cluster_state(&self) -> ClusterState {
        let agents: BTreeSet<_> = self.agents.keys().chain(self.absent.keys()).collect();
        ClusterState {
            master: self.master_info(),
            at: self.now,
            agents: agents
                .into_iter()
                .filter_map(|id| self.agent_state(id))
                .collect(),
            frameworks: self
                .frameworks
                .iter()
                .map(|(id, framework)| framework.view(id))
                .collect(),
            tasks: self.task_records(),
            roles: self.role_states(),
            offers: self
                .offers
                .iter()
                .filter_map(|(id, record)| self.offer_view(id, record))
                .collect(),
            maintenance: self.maintenance_states(),
        }
    }

    /// Tasks in the books, then ended ones; each by framework and id.
    fn task_records(&self) -> Vec<TaskRecord> {
        let mut records = Vec::new();
        let mut ended = Vec::new();
        for (id, framework) in &self.frameworks {
            let tasks = framework.tasks.iter().chain(framework.unreachable.iter());
            records.extend(tasks.map(|(task_id, task)| task.record(id, task_id)));
            let tasks = framework.completed.iter();
            ended.extend(tasks.map(|(task_id, task)| task.record(id, task_id)));
        }
        for framework in &self.completed {
            let tasks = framework.tasks.iter();
            ended.extend(tasks.map(|(task_id, task)| task.record(&framework.id, task_id)));
        }
        let by_key = |a: &TaskRecord, b: &TaskRecord| {
            (&a.framework_id, &a.task_id).cmp(&(&b.framework_id, &b.task_id))
        };
        records.sort_by(by_key);
        ended.sort_by(by_key);
        records.append(&mut ended);
        records
    }

    pub(super) fn agent_state(&self, id: &AgentId) -> Option<AgentState> {
        if let Some(agent) = self.agents.get(id) {
            return Some(AgentState {
                id: id.clone(),
                info: (*agent.info).clone(),
                status: agent.status(),
                registered_at: agent.registered_at,
                offered: agent.holding.offered,
                allocated: agent.holding.allocated,
                offered_lots: agent.lots.offered.clone(),
                allocated_lots: agent.lots.allocated.clone(),
                oversubscribed: agent.oversubscribed,
                usage: agent.usage.as_deref().cloned(),
                activity: agent.activity.view(),
            });
        }
        let absent = self.absent.get(id)?;
        Some(AgentState {
            id: id.clone(),
            info: (*absent.info).clone(),
            status: absent.absence.status(),
            registered_at: absent.registered_at,
            offered: Resources::ZERO,
            allocated: Resources::ZERO,
            offered_lots: Lots::NONE,
            allocated_lots: Lots::NONE,
            oversubscribed: Quantities::ZERO,
            usage: None,
            activity: absent.activity.view(),
        })
    }
}

impl Framework {
    fn view(&self, id: &FrameworkId) -> FrameworkState {
        let sum = self
            .holdings
            .values()
            .fold(Holding::default(), |sum, part| Holding {
                offered: sum.offered.saturating_add(&part.offered),
                allocated: sum.allocated.saturating_add(&part.allocated),
            });
        let live = self.tasks.values().filter(|task| !task.state.is_terminal());
        FrameworkState {
            id: id.clone(),
            info: self.info.clone(),
            connected: self.connection.is_some(),
            registered_at: self.registered_at,
            failover_deadline: self.failover_deadline,
            suppressed_roles: self.suppressed.iter().cloned().collect(),
            offered: sum.offered,
            allocated: sum.allocated,
            live_tasks: live.count() as u64,
        }
    }
}

impl Absence {
    pub(super) const fn status(self) -> AgentStatus {
        match self {
            Self::Recovered { .. } => AgentStatus::Recovered,
            Self::Unreachable { .. } => AgentStatus::Unreachable,
        }
    }
}

impl Agent {
    pub(super) const fn status(&self) -> AgentStatus {
        match self.connection {
            Some(_) => AgentStatus::Registered,
            None => AgentStatus::Disconnected,
        }
    }
}
