//! The simulated agents: what they make of the master's orders.

use ebb_master::core::{ConnectionId, Input};
use ebb_types::{
    AgentToMaster, MasterToAgent, Source, TaskId, TaskInfo, TaskState, TaskStatus, Timestamp,
    UpdateUuid,
};

use super::Broken;
use super::peers::{LIFE, Stage, TOTAL_UNITS, Task, units, uuid};
use super::world::{Happening, World};

/// Longest time until a task runs.
const START_MS: u64 = 300;
/// A task's shortest and longest time.
const RUN_MS: (u64, u64) = (500, 10_000);

impl World {
    /// An order reaches an agent.
    pub(super) fn agent_hears(
        &mut self,
        connection: ConnectionId,
        message: MasterToAgent,
    ) -> Result<(), Broken> {
        let number = u32::try_from(connection.0 - 1).unwrap_or(u32::MAX);
        match message {
            MasterToAgent::Registered { agent_id, .. } => {
                self.agent_numbers.insert(agent_id.clone(), number);
                self.agents[number as usize].id = Some(agent_id);
            }
            MasterToAgent::Launch { task, .. } => self.launched(number, &task)?,
            MasterToAgent::Acknowledge { task_id, uuid, .. } => {
                self.acknowledged(number, &task_id, uuid)?;
            }
            MasterToAgent::Heartbeat => self.reply(Input::Agent {
                connection,
                incarnation: LIFE,
                message: AgentToMaster::Heartbeat,
            }),
            message => return self.fail(format!("an agent is told {message:?}")),
        }
        Ok(())
    }

    fn launched(&mut self, number: u32, info: &TaskInfo) -> Result<(), Broken> {
        let at = self.find(&info.task_id);
        let asked = self.tasks.get(at).is_some_and(|task| {
            task.stage == Stage::Asked && task.agent == number && task.resources == info.resources
        });
        self.expect(asked, || {
            format!("{} is launched on agent {number}", info.task_id)
        })?;
        let task = &mut self.tasks[at];
        task.stage = Stage::Ordered;
        let (framework, resources) = (task.framework, task.resources);
        let agent = &mut self.agents[number as usize];
        agent.used = agent.used.saturating_add(&resources);
        let (used, lends) = (agent.used, agent.lends);
        let fits = units(TOTAL_UNITS).contains(&used.regular) && lends.contains(&used.revocable);
        self.expect(fits, || format!("agent {number} is to run {used}"))?;
        let [regular, revocable] = [resources.regular, resources.revocable];
        self.digest(&[
            self.now_ms,
            u64::from(framework),
            u64::from(number),
            at as u64,
            regular.cpu_milli(),
            regular.mem_bytes(),
            revocable.cpu_milli(),
            revocable.mem_bytes(),
        ]);
        self.report.placements += 1;
        self.running += 1;
        self.report.most_at_once = self.report.most_at_once.max(self.running);
        let after_ms = self.rng.between(1, START_MS);
        self.at(after_ms, Happening::Runs(at as u32));
        Ok(())
    }

    /// A task begins to run.
    pub(super) fn runs(&mut self, task: u32) -> Result<(), Broken> {
        self.update(task, Stage::Ordered, Stage::Runs, TaskState::Running)
    }

    /// A task ends; its framework knows that it runs.
    pub(super) fn ends(&mut self, task: u32) -> Result<(), Broken> {
        let Task {
            agent, resources, ..
        } = self.tasks[task as usize];
        let used = &mut self.agents[agent as usize].used;
        *used = used.saturating_sub(&resources);
        self.running -= 1;
        self.update(task, Stage::Known, Stage::Over, TaskState::Finished)
    }

    fn update(
        &mut self,
        number: u32,
        from: Stage,
        to: Stage,
        state: TaskState,
    ) -> Result<(), Broken> {
        let task = &mut self.tasks[number as usize];
        let was = std::mem::replace(&mut task.stage, to);
        let (id, framework, agent) = (task.id.clone(), task.framework, task.agent);
        self.expect(was == from, || format!("{id} is {was:?}, not {from:?}"))?;
        let now = Timestamp::from_ms(self.now_ms);
        let mut status = TaskStatus::new(id, state, Source::Executor, now);
        status.uuid = Some(uuid(number, state));
        let Some(framework_id) = self.frameworks[framework as usize].id.clone() else {
            return self.fail(format!("framework {framework} has no id"));
        };
        self.agent_says(
            agent,
            AgentToMaster::Update {
                framework_id,
                status,
                latest_state: state,
            },
        )
    }

    /// An acknowledgement reaches an agent.
    fn acknowledged(
        &mut self,
        number: u32,
        id: &TaskId,
        acknowledged: UpdateUuid,
    ) -> Result<(), Broken> {
        let at = self.find(id);
        let stage = self.tasks.get(at).map(|task| (task.agent, task.stage));
        let (next, state) = match stage {
            Some((agent, Stage::Runs)) if agent == number => (Stage::Known, TaskState::Running),
            Some((agent, Stage::Over)) if agent == number => (Stage::Settled, TaskState::Finished),
            _ => return self.fail(format!("agent {number} is acknowledged {id}: {stage:?}")),
        };
        self.expect(acknowledged == uuid(at as u32, state), || {
            format!("agent {number} is acknowledged another status of {id}")
        })?;
        self.tasks[at].stage = next;
        if next == Stage::Settled {
            self.settled += 1;
        } else {
            let run_ms = self.rng.between(RUN_MS.0, RUN_MS.1);
            self.at(run_ms, Happening::Ends(at as u32));
        }
        Ok(())
    }
}
