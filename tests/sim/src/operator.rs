//! An operator who deactivates, drains and reactivates agents at random, and whether what was decided
//! and answered holds from then on, whatever is restarted meanwhile.

use std::collections::BTreeSet;

use ebb_master::core::{Input, OperatorCommand, RequestId};
use ebb_types::{AgentActivity, AgentId, AgentStatus, ClusterState};

use crate::world::World;

/// The longest grace of a drain, in milliseconds.
const MAX_GRACE_MS: u64 = 2_000;

/// What the operator knows.
#[derive(Debug, Default)]
pub struct Operator {
    /// What was asked last, until it is answered.
    asked: Option<OperatorCommand>,
    /// The agents of which nothing may be offered, because the master has said so. Where a master
    /// crashed before its answer, nothing is known.
    withheld: BTreeSet<AgentId>,
    drains: u64,
}

impl Operator {
    /// Drains that were seen to be over.
    pub const fn drains(&self) -> u64 {
        self.drains
    }
}

impl World {
    fn cluster(&self) -> Option<ClusterState> {
        self.master
            .as_ref()
            .map(|master| master.core.cluster_state())
    }

    /// The operator decides something about an agent.
    pub fn decide(&mut self) {
        let agents = self.cluster().map(|state| state.agents).unwrap_or_default();
        if agents.is_empty() {
            return;
        }
        let agent = &agents[self.rng.index(agents.len())];
        let agent_id = agent.id.clone();
        match self.rng.between(0, 11) {
            0 | 1 => self.ask(OperatorCommand::Deactivate(agent_id)),
            2..=4 => {
                let max_grace_ms = self.rng.chance(500).then_some(MAX_GRACE_MS);
                self.ask(OperatorCommand::Drain {
                    agent_id,
                    max_grace_ms,
                });
            }
            _ => self.reactivate(agent_id, agent.activity),
        }
    }

    /// After all faults every agent is to be offered again.
    pub fn reactivate_all(&mut self) {
        let agents = self.cluster().map(|state| state.agents).unwrap_or_default();
        for agent in agents {
            if matches!(
                agent.activity,
                AgentActivity::Deactivated | AgentActivity::Drained
            ) {
                self.reactivate(agent.id, agent.activity);
            }
        }
    }

    fn reactivate(&mut self, agent_id: AgentId, activity: AgentActivity) {
        if activity == AgentActivity::Drained {
            self.operator.drains += 1;
        }
        self.operator.withheld.remove(&agent_id);
        self.ask(OperatorCommand::Reactivate(agent_id));
    }

    fn ask(&mut self, command: OperatorCommand) {
        self.log(|| format!("the operator asks: {command:?}"));
        self.operator.asked = Some(command.clone());
        self.master_step(Input::Operator {
            request: RequestId(0),
            command,
        });
        self.operator.asked = None;
    }

    /// The master answers the operator.
    pub fn note_answer(&mut self, done: bool) {
        match self.operator.asked.take() {
            Some(
                OperatorCommand::Deactivate(agent_id) | OperatorCommand::Drain { agent_id, .. },
            ) if done => {
                self.operator.withheld.insert(agent_id);
            }
            _ => {}
        }
    }

    /// What was decided must hold.
    pub fn check_activities(&mut self) {
        let Some(state) = self.cluster() else { return };
        let mut wrong = Vec::new();
        for agent in &state.agents {
            let (id, activity) = (&agent.id, agent.activity);
            let name = activity.name();
            if activity == AgentActivity::Active {
                if self.operator.withheld.contains(id) {
                    wrong.push(format!("agent {id} is active and should not be"));
                }
                continue;
            }
            if state.offers.iter().any(|offer| offer.agent_id == *id) {
                wrong.push(format!("agent {id} is {name} and offered"));
            }
            let lives =
                |task: &&ebb_types::TaskRecord| task.agent_id == *id && !task.state.is_terminal();
            if activity == AgentActivity::Drained
                && agent.status == AgentStatus::Registered
                && let Some(task) = state.tasks.iter().find(lives)
            {
                wrong.push(format!(
                    "agent {id} is {name} and has task {}",
                    task.task_id
                ));
            }
        }
        if let Some(first) = wrong.into_iter().next() {
            self.fail(first);
        }
    }
}
