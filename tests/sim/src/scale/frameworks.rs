//! The simulated frameworks: what they make of offers and statuses.

use ebb_master::core::ConnectionId;
use ebb_types::{
    AgentId, Call, CommandInfo, Event, Filters, Offer, Operation, Resources, TaskId, TaskInfo,
    TaskState, TaskStatus,
};

use super::Broken;
use super::peers::{Stage, TASK_UNITS, Task, units, uuid};
use super::world::{Happening, Phase, World};

/// Longest time until an offer is answered.
const ANSWER_MS: u64 = 500;
/// Longest time until a status is acknowledged.
const ACKNOWLEDGE_MS: u64 = 20;
/// Longest refusal.
const REFUSE_MS: u64 = 5_000;
/// So many of a thousand offers are declined.
const DECLINED_PER_MILLE: u64 = 100;
/// Most tasks of one accept.
const TASKS_PER_OFFER: u64 = 3;

impl World {
    /// An event reaches a framework.
    pub(super) fn framework_hears(
        &mut self,
        connection: ConnectionId,
        event: Event,
    ) -> Result<(), Broken> {
        let first = self.of_framework(0).0;
        let number = u32::try_from(connection.0 - first).unwrap_or(u32::MAX);
        match event {
            Event::Subscribed { framework_id, .. } => {
                self.frameworks[number as usize].id = Some(framework_id);
            }
            Event::Offers(offers) => offers
                .into_iter()
                .for_each(|offer| self.consider(number, offer)),
            Event::Update(status) => self.heard(number, &status)?,
            Event::Heartbeat => {}
            event => return self.fail(format!("framework {number} hears {event:?}")),
        }
        Ok(())
    }

    fn consider(&mut self, framework: u32, offer: Offer) {
        self.report.offers += 1;
        if self.phase == Phase::Resting {
            return;
        }
        self.next_offer += 1;
        self.held.insert(self.next_offer, offer);
        let after_ms = self.rng.between(1, ANSWER_MS);
        let offer = self.next_offer;
        self.at(after_ms, Happening::Answer { framework, offer });
    }

    fn heard(&mut self, number: u32, status: &TaskStatus) -> Result<(), Broken> {
        let at = self.find(&status.task_id);
        let agrees = self.tasks.get(at).is_some_and(|task| {
            let said = match status.state {
                TaskState::Running => task.stage == Stage::Runs,
                TaskState::Finished => task.stage == Stage::Over,
                _ => false,
            };
            said && task.framework == number && status.uuid == Some(uuid(at as u32, status.state))
        });
        self.expect(agrees, || format!("framework {number} hears {status:?}"))?;
        let after_ms = self.rng.between(1, ACKNOWLEDGE_MS);
        self.at(after_ms, Happening::Acknowledge(at as u32));
        Ok(())
    }

    /// A framework acknowledges what it has heard last of a task.
    pub(super) fn acknowledge(&mut self, number: u32) -> Result<(), Broken> {
        let task = &self.tasks[number as usize];
        let state = match task.stage {
            Stage::Runs => TaskState::Running,
            _ => TaskState::Finished,
        };
        let (framework, task_id) = (task.framework, task.id.clone());
        let Some(agent_id) = self.agents[task.agent as usize].id.clone() else {
            return self.fail(format!("the agent of {task_id} has no id"));
        };
        let uuid = uuid(number, state);
        self.call(
            framework,
            Call::Acknowledge {
                agent_id,
                task_id,
                uuid,
            },
        )
    }

    /// A framework answers an offer: it uses some of it, or declines.
    pub(super) fn answer(&mut self, number: u32, offer: u64) -> Result<(), Broken> {
        let Some(offer) = self.held.remove(&offer) else {
            return self.fail(format!("framework {number} answers what it does not hold"));
        };
        let wanted = match self.phase {
            Phase::Placing if !self.rng.chance(DECLINED_PER_MILLE) => self.choose(number, &offer),
            _ => Vec::new(),
        };
        let refuse_ms = if self.phase == Phase::Placing {
            self.rng.between(0, REFUSE_MS)
        } else {
            0
        };
        let (offer_ids, filters) = (vec![offer.id], Filters { refuse_ms });
        if wanted.is_empty() {
            self.report.declined += 1;
            self.call(number, Call::Decline { offer_ids, filters })?;
        } else {
            let operations = vec![Operation::Launch {
                tasks: wanted,
                malformed: Vec::new(),
            }];
            self.call(
                number,
                Call::Accept {
                    offer_ids,
                    operations,
                    filters,
                },
            )?;
        }
        if self.phase != Phase::Placing
            && !std::mem::replace(&mut self.frameworks[number as usize].suppressed, true)
        {
            self.call(number, Call::Suppress { roles: Vec::new() })?;
        }
        Ok(())
    }

    /// The tasks that a framework makes of an offer; none where it is too small.
    fn choose(&mut self, number: u32, offer: &Offer) -> Vec<TaskInfo> {
        let (mut left, mut tasks) = (offer.resources, Vec::new());
        for _ in 0..self.rng.between(1, TASKS_PER_OFFER) {
            let size = units(self.rng.between(1, TASK_UNITS));
            let regular = Resources::regular(size);
            let wanted = if left.contains(&regular) {
                regular
            } else {
                Resources::revocable(size)
            };
            let Some(rest) = left.checked_sub(&wanted) else {
                continue;
            };
            left = rest;
            if let Some(task) = self.ask(number, &offer.agent_id, wanted) {
                tasks.push(task);
            }
        }
        if self.placed == self.scale.placements {
            self.phase = Phase::Ending;
        }
        tasks
    }

    fn ask(
        &mut self,
        framework: u32,
        agent_id: &AgentId,
        resources: Resources,
    ) -> Option<TaskInfo> {
        if self.placed == self.scale.placements {
            return None;
        }
        let id = TaskId::new(format!("t{}", self.tasks.len())).ok()?;
        let agent = *self.agent_numbers.get(agent_id)?;
        self.placed += 1;
        self.frameworks[framework as usize].placed += 1;
        self.tasks.push(Task {
            id: id.clone(),
            framework,
            agent,
            resources,
            stage: Stage::Asked,
        });
        Some(TaskInfo {
            task_id: id,
            name: String::from("task"),
            agent_id: agent_id.clone(),
            lots: ebb_types::Lots::NONE,
            resources,
            command: Some(CommandInfo {
                value: String::from("run"),
                shell: true,
                ..CommandInfo::default()
            }),
            executor: None,
            kill_grace_ms: None,
            warn_signal: None,
            max_completion_ms: None,
            cpu_limit_milli: None,
            data: Vec::new(),
            labels: Vec::new(),
        })
    }
}
