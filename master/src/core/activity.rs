//! What operators decide about agents: to deactivate, drain and reactivate them.
//!
//! An agent that is not active is not in the ledger: so nothing of it is free to whoever plans, and no
//! offer of it is out. It enters the ledger again as a new registration, which voids what was planned
//! on the one before. Draining goes on until nothing of the agent is left in the books: no live task,
//! no end that its framework has not acknowledged, and no container of a framework that is gone. It outlasts restarts of the master and of the
//! agent: whenever a draining agent registers anew, its tasks are killed again, which is harmless,
//! because a repeated kill only ever brings force forward. An agent that is out of reach goes on
//! draining when it is back; only then is it known what is left on it.
//!
//! As in Mesos: draining cannot be called off; the master gives it as the reason of ends that it has
//! brought about; an executor of a framework's own that has no task left is the framework's to end.
//! Unlike in Mesos, the longest grace never makes a kill slower than without it.

use ebb_types::limits::DEFAULT_GRACE_MS;
use ebb_types::{AgentId, Reason, TaskKey, TaskState, TaskStatus};

use super::input::{Effect, OperatorError};
use super::record::{Activity, AgentRecord, RegistryWrite};
use super::state::{Absence, AbsentAgent, Core};

impl Core {
    pub(super) fn deactivate(&mut self, id: &AgentId) -> Result<(), OperatorError> {
        // A draining or drained agent is offered to nobody already.
        if self.activity(id)? == Activity::Active {
            self.set_activity(id, Activity::Deactivated);
            self.leave_ledger(id);
            self.agent_changed(id);
        }
        Ok(())
    }

    pub(super) fn reactivate(&mut self, id: &AgentId) -> Result<(), OperatorError> {
        match self.activity(id)? {
            Activity::Active => return Err(OperatorError::AlreadyActive(id.clone())),
            Activity::Draining { .. } => return Err(OperatorError::StillDraining(id.clone())),
            Activity::Deactivated | Activity::Drained => {}
        }
        if let Some(machine) = self.down_machine(id) {
            return Err(OperatorError::MachineDown(machine));
        }
        self.set_activity(id, Activity::Active);
        let registration = self.ids.registration();
        if let Some(agent) = self.agents.get_mut(id) {
            agent.registration = registration;
            self.roles.void_agent_refusals(id);
            self.changed = true;
            self.enter_ledger.insert(id.clone());
        }
        self.agent_changed(id);
        Ok(())
    }

    pub(super) fn drain(
        &mut self,
        id: &AgentId,
        max_grace_ms: Option<u64>,
    ) -> Result<(), OperatorError> {
        self.activity(id)?;
        self.set_activity(id, Activity::Draining { max_grace_ms });
        self.leave_ledger(id);
        self.go_on_draining(id);
        self.agent_changed(id);
        Ok(())
    }

    fn activity(&self, id: &AgentId) -> Result<Activity, OperatorError> {
        let registered = self.agents.get(id).map(|agent| agent.activity);
        registered
            .or_else(|| self.absent.get(id).map(|absent| absent.activity))
            .ok_or_else(|| OperatorError::NoAgent(id.clone()))
    }

    /// Durable before anything that follows from it.
    pub(super) fn set_activity(&mut self, id: &AgentId, activity: Activity) {
        if let Some(agent) = self.agents.get_mut(id) {
            agent.activity = activity;
            self.persist_agent(id);
        } else if let Some(absent) = self.absent.get_mut(id) {
            absent.activity = activity;
            let record = absent.record();
            self.emit(Effect::Persist(vec![RegistryWrite::PutAgent(record)]));
        }
    }

    /// Kills every task of a connected agent that is draining. One that was drained has none, unless
    /// the books were lost: that is killed too.
    pub(super) fn go_on_draining(&mut self, id: &AgentId) {
        let Some(agent) = self.agents.get(id) else {
            return;
        };
        let max_grace_ms = match agent.activity {
            Activity::Draining { max_grace_ms } => max_grace_ms,
            Activity::Drained => None,
            Activity::Active | Activity::Deactivated => return,
        };
        if agent.connection.is_none() {
            return;
        }
        let kills: Vec<(TaskKey, Option<u64>)> = agent
            .tasks
            .iter()
            .filter_map(|key| {
                let task = self.frameworks.get(&key.0)?.tasks.get(&key.1)?;
                let own_ms = task.kill_grace_ms.unwrap_or(DEFAULT_GRACE_MS);
                let grace_ms = max_grace_ms.filter(|max_ms| *max_ms < own_ms);
                (!task.state.is_terminal()).then(|| (key.clone(), grace_ms))
            })
            .collect();
        for ((framework_id, task_id), grace_ms) in kills {
            self.order_kill(id, &framework_id, &task_id, grace_ms);
        }
        self.emptied.insert(id.clone());
    }

    /// Agents whose last task has left the books in this step are drained.
    pub(super) fn finish_drains(&mut self) {
        for id in std::mem::take(&mut self.emptied) {
            let drained = self.agents.get(&id).is_some_and(|agent| {
                matches!(agent.activity, Activity::Draining { .. })
                    && agent.connection.is_some()
                    && agent.tasks.is_empty()
                    && agent.remains.is_none()
            });
            if drained {
                self.set_activity(&id, Activity::Drained);
                self.agent_changed(&id);
            }
        }
    }

    /// Says of a kill on a draining agent why it came, unless the agent knows a better reason.
    pub(super) fn give_drain_as_reason(&self, id: &AgentId, status: &mut TaskStatus) {
        let draining = self.agents.get(id).is_some_and(|agent| {
            matches!(
                agent.activity,
                Activity::Draining { .. } | Activity::Drained
            )
        });
        let plain = matches!(status.reason, None | Some(Reason::TaskKilledDuringLaunch));
        let killed = matches!(status.state, TaskState::Killing | TaskState::Killed);
        if draining && plain && killed {
            status.reason = Some(Reason::AgentDraining);
        }
    }
}

impl AbsentAgent {
    pub(super) fn record(&self) -> AgentRecord {
        AgentRecord {
            info: (*self.info).clone(),
            registered_at: self.registered_at,
            unreachable_since: match self.absence {
                Absence::Recovered { .. } => None,
                Absence::Unreachable { since } => Some(since),
            },
            activity: self.activity,
        }
    }
}
