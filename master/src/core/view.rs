//! The core as operators and metrics see it. Made when it is asked for: nothing is kept for it.

use ebb_types::{
    AgentId, AgentState, AgentStatus, ClusterState, FrameworkId, FrameworkState, Quantities,
    Resources, TaskRecord, TaskState,
};

use super::state::{Absence, Agent, Core, Framework, Holding};

/// Figures that go up and down, read anew each time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Gauges {
    /// Agents by status, in the order of [`AgentStatus::ALL`].
    pub agents: [u64; AgentStatus::ALL.len()],
    /// Frameworks whose scheduler is connected.
    pub frameworks_connected: u64,
    /// Frameworks that wait for their scheduler.
    pub frameworks_disconnected: u64,
    /// Tasks in the books by state's number.
    pub tasks: [u64; TaskState::ALL.len()],
    /// Offers that are out.
    pub offers: u64,
    /// What registered agents have.
    pub total: Quantities,
    /// What registered agents lend.
    pub lent: Quantities,
    /// What is out in offers.
    pub offered: Resources,
    /// What tasks and executors hold.
    pub allocated: Resources,
}

impl Core {
    /// The figures now. Reads every agent and task.
    pub fn gauges(&self) -> Gauges {
        let mut gauges = Gauges {
            offers: self.offers.len() as u64,
            ..Gauges::default()
        };
        for agent in self.agents.values() {
            gauges.agents[position(status_of(agent))] += 1;
            gauges.total = gauges.total.saturating_add(&agent.info.total);
            gauges.lent = gauges.lent.saturating_add(&agent.oversubscribed);
            gauges.offered = gauges.offered.saturating_add(&agent.holding.offered);
            gauges.allocated = gauges.allocated.saturating_add(&agent.holding.allocated);
        }
        for absent in self.absent.values() {
            gauges.agents[position(absent.absence.status())] += 1;
        }
        for framework in self.frameworks.values() {
            match framework.connection {
                Some(_) => gauges.frameworks_connected += 1,
                None => gauges.frameworks_disconnected += 1,
            }
            let tasks = framework.tasks.values();
            for task in tasks.chain(framework.unreachable.iter().map(|(_, task)| task)) {
                gauges.tasks[task.state as usize] += 1;
            }
        }
        gauges
    }

    /// Everything that the master knows.
    pub fn cluster_state(&self) -> ClusterState {
        let agents = self.agents.keys().chain(self.absent.keys());
        ClusterState {
            master: self.master_info(),
            at: self.now,
            agents: agents.filter_map(|id| self.agent_state(id)).collect(),
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
        }
    }

    /// Tasks in the books, then ended ones.
    fn task_records(&self) -> Vec<TaskRecord> {
        let mut records = Vec::new();
        for (id, framework) in &self.frameworks {
            let tasks = framework.tasks.iter().chain(framework.unreachable.iter());
            records.extend(tasks.map(|(task_id, task)| task.record(id, task_id)));
        }
        for (id, framework) in &self.frameworks {
            let ended = framework.completed.iter();
            records.extend(ended.map(|(task_id, task)| task.record(id, task_id)));
        }
        for framework in &self.completed {
            let ended = framework.tasks.iter();
            records.extend(ended.map(|(task_id, task)| task.record(&framework.id, task_id)));
        }
        records
    }

    pub(super) fn framework_state(&self, id: &FrameworkId) -> Option<FrameworkState> {
        Some(self.frameworks.get(id)?.view(id))
    }

    pub(super) fn agent_state(&self, id: &AgentId) -> Option<AgentState> {
        if let Some(agent) = self.agents.get(id) {
            return Some(AgentState {
                id: id.clone(),
                info: agent.info.clone(),
                status: status_of(agent),
                registered_at: agent.registered_at,
                offered: agent.holding.offered,
                allocated: agent.holding.allocated,
                oversubscribed: agent.oversubscribed,
                usage: agent.usage.clone(),
                activity: agent.activity.view(),
            });
        }
        let absent = self.absent.get(id)?;
        Some(AgentState {
            id: id.clone(),
            info: absent.info.clone(),
            status: absent.absence.status(),
            registered_at: absent.registered_at,
            offered: Resources::ZERO,
            allocated: Resources::ZERO,
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
    const fn status(self) -> AgentStatus {
        match self {
            Self::Recovered { .. } => AgentStatus::Recovered,
            Self::Unreachable { .. } => AgentStatus::Unreachable,
        }
    }
}

const fn status_of(agent: &Agent) -> AgentStatus {
    match agent.connection {
        Some(_) => AgentStatus::Registered,
        None => AgentStatus::Disconnected,
    }
}

fn position(status: AgentStatus) -> usize {
    AgentStatus::ALL
        .into_iter()
        .position(|other| other == status)
        .unwrap_or_default()
}
