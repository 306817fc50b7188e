//! What really happened to every task, and whether what is said of it agrees.

use std::collections::BTreeMap;

use ebb_types::{
    ContainerId, ExitStatus, Quantities, Reason, Source, TaskKey, TaskState, TaskStatus,
};

use crate::framework::Wanted;
use crate::world::World;

/// What the machines did with a task.
#[derive(Clone, Debug, Default)]
pub struct Truth {
    tasks: BTreeMap<TaskKey, Deed>,
}

#[derive(Clone, Debug, Default)]
struct Deed {
    started: Vec<ContainerId>,
    /// How it ended; `None` within when its machine took the end with it.
    ended: Option<Option<ExitStatus>>,
    /// A framework has been told that it never started.
    dropped: bool,
}

impl Truth {
    /// How many tasks have run.
    pub fn runs(&self) -> usize {
        self.tasks
            .values()
            .filter(|deed| !deed.started.is_empty())
            .count()
    }
}

impl World {
    /// A task's container begins to run.
    pub fn truth_started(&mut self, task: &Option<TaskKey>, container_id: &ContainerId) {
        let Some(key) = task else { return };
        let deed = self.truth.tasks.entry(key.clone()).or_default();
        deed.started.push(container_id.clone());
        let (times, dropped) = (deed.started.len(), deed.dropped);
        if times > 1 {
            self.fail(format!("task {} runs {times} times", key.1));
        }
        if dropped {
            self.fail(format!(
                "task {} runs after its framework was told that it never will",
                key.1
            ));
        }
    }

    /// A task's container ends.
    pub fn truth_ended(&mut self, task: &Option<TaskKey>, status: Option<ExitStatus>) {
        if let Some(key) = task {
            self.truth.tasks.entry(key.clone()).or_default().ended = Some(status);
        }
    }

    /// What a framework is told must agree with what happened, and an end must stay the same.
    pub fn check_status(&mut self, number: usize, status: &TaskStatus) {
        let Some(framework_id) = self.frameworks[number].id.clone() else {
            return;
        };
        let key = (framework_id, status.task_id.clone());
        let Some(task) = self.frameworks[number].tasks.get_mut(&status.task_id) else {
            self.fail(format!(
                "framework {number} hears of task {}, which it never asked for",
                status.task_id
            ));
            return;
        };
        // What the agent has said stands; what the master says on its own is its belief.
        let of_agent = status.source != Source::Master && status.uuid.is_some();
        if of_agent && status.state.is_terminal() {
            let earlier = *task.end.get_or_insert(status.state);
            if earlier != status.state {
                let said = status.state.name();
                self.fail(format!(
                    "task {} ended as {} and then as {said}",
                    key.1,
                    earlier.name()
                ));
            }
        }
        let heard = self.frameworks[number].tasks[&status.task_id].end;
        self.check_against_truth(&key, status, heard);
    }

    fn check_against_truth(
        &mut self,
        key: &TaskKey,
        status: &TaskStatus,
        heard: Option<TaskState>,
    ) {
        let deed = self.truth.tasks.entry(key.clone()).or_default();
        let started = !deed.started.is_empty();
        let ended = deed.ended;
        if matches!(status.state, TaskState::Dropped | TaskState::Error) {
            deed.dropped = true;
            if started {
                self.fail(format!(
                    "task {} is said to be {} but has run: {status:?}",
                    key.1,
                    status.state.name()
                ));
            }
            return;
        }
        let of_agent = status.uuid.is_some();
        let agrees = match (status.state, ended) {
            (TaskState::Finished, end) => end == Some(Some(ExitStatus::Code(0))),
            (TaskState::Failed, Some(Some(end))) => {
                !end.is_success() || status.reason == Some(Reason::MaxCompletionTimeReached)
            }
            (TaskState::Failed | TaskState::Killed | TaskState::Gone, None) if of_agent => !started,
            (TaskState::Running, _) if of_agent => started,
            // An agent that ever joined is remembered, so its running task cannot be unheard of.
            (TaskState::Unknown, None) if status.agent_id.is_some() => !started,
            // Its end stood on its agent's disk until the framework had it.
            (TaskState::Gone, Some(Some(_))) => heard.is_some(),
            _ => true,
        };
        if !agrees {
            self.fail(format!(
                "task {} is said to be {status:?} but started: {started}, ended: {ended:?}",
                key.1
            ));
        }
    }

    /// Whether anything is free that somebody could be offered.
    pub fn is_unoffered(&self) -> bool {
        let free = |(_, ledger): (_, ebb_master::ledger::AgentLedger)| {
            ledger.free().regular != Quantities::ZERO
        };
        self.frameworks.iter().any(|framework| !framework.removed)
            && self.ledger_at_rest().into_iter().any(free)
    }

    /// Where master and agents have different books of lots.
    fn lots_disagree(&self) -> Vec<String> {
        let state = self
            .master
            .as_ref()
            .map(|master| master.core.cluster_state());
        let agents = state.map(|state| state.agents).unwrap_or_default();
        let mut wrong = Vec::new();
        for machine in &self.machines {
            let Some((id, lots)) = machine.lots() else {
                continue;
            };
            let known = agents.iter().find(|agent| agent.id == id);
            let known = known.map(|agent| agent.info.lots.clone());
            if known.as_ref() != Some(&lots) {
                wrong.push(format!("{id} has {lots}, and the master knows {known:?}"));
            }
        }
        wrong
    }

    /// What must hold when everything has healed and had time to settle.
    pub fn check_at_rest(&mut self) {
        let mut wrong = Vec::new();
        for (number, machine) in self.machines.iter().enumerate() {
            if !machine.is_registered() {
                wrong.push(format!("agent {number} is not registered"));
            }
            wrong.extend(
                machine
                    .leftovers()
                    .into_iter()
                    .map(|left| format!("left on machine {number}: {left}")),
            );
        }
        let ledgers = self.ledger_at_rest();
        for (number, framework) in self
            .frameworks
            .iter()
            .enumerate()
            .filter(|(_, f)| !f.removed)
        {
            // An agent that died before it knew its own id never comes back under it.
            let is_gone = |task: &Wanted| {
                task.last == Some(TaskState::Unreachable)
                    && ledgers.iter().all(|(id, _)| *id != task.agent_id)
            };
            let open = framework
                .tasks
                .iter()
                .filter(|(_, task)| !task.settled && !is_gone(task));
            wrong.extend(
                open.map(|(id, task)| format!("framework {number} knows no end of {id}: {task:?}")),
            );
        }
        let is_gone = |agent_id: &_| ledgers.iter().all(|(id, _)| id != agent_id);
        wrong.extend(self.open_operations(is_gone));
        if ledgers.len() != self.machines.len() {
            wrong.push(format!(
                "{} of {} agents are in the ledger",
                ledgers.len(),
                self.machines.len()
            ));
        }
        wrong.extend(self.lots_disagree());
        let anybody = self.frameworks.iter().any(|framework| !framework.removed);
        for (id, ledger) in ledgers {
            if !ledger.allocated.is_zero() {
                wrong.push(format!("{id} still has {} allocated", ledger.allocated));
            }
            if anybody && ledger.free().regular != Quantities::ZERO {
                wrong.push(format!(
                    "{id} has {} that nobody is offered",
                    ledger.free().regular
                ));
            }
        }
        if let Some(first) = wrong.first() {
            self.fail(format!("{first} (and {} more)", wrong.len() - 1));
        }
    }
}
