//! The simulated agents and frameworks: who they are, and how they join. What they do then is in `agents.rs` and
//! `frameworks.rs`.
//!
//! They keep accounts of their own, by which the master's are judged: what each agent was told to run, and how far each
//! task has come. A status out of order, a second launch, or an order that nobody asked for ends the run.

use ebb_master::core::{ConnectionId, Input, OperatorCommand, RequestId};
use ebb_types::{
    AgentId, AgentInfo, AgentToMaster, Call, Capability, FrameworkId, FrameworkInfo, Incarnation,
    Quantities, Resources, Role, TaskId, TaskState, UpdateUuid,
};

use super::Broken;
use super::world::World;
use crate::rng::Rng;

/// Every agent lives once.
pub(super) const LIFE: Incarnation = Incarnation(1);
/// Roles, with weights of 1, 1.5, 2 …
const ROLES: u32 = 10;
/// Everything is of so many CPUs and so much memory, or a multiple: so an agent can be used up. What nobody can use goes
/// from one of thousands of frameworks to the next, and the run would be about declines.
const UNIT: (u64, u64) = (500, 4 << 28);
/// What every agent has, in units.
pub(super) const TOTAL_UNITS: u64 = 48;
/// Largest task, in units.
pub(super) const TASK_UNITS: u64 = 16;

/// So many units.
pub(super) fn units(number: u64) -> Quantities {
    Quantities::cpus_mem(number * UNIT.0, number * UNIT.1)
}

pub(super) struct Agent {
    pub(super) id: Option<AgentId>,
    /// What it lends.
    pub(super) lends: Quantities,
    /// What it was told to run and has not said to be over.
    pub(super) used: Resources,
}

impl Agent {
    /// One in four lends something.
    pub(super) fn new(rng: &mut Rng) -> Self {
        let lends = if rng.chance(250) {
            rng.between(2, TASK_UNITS)
        } else {
            0
        };
        Self {
            id: None,
            lends: units(lends),
            used: Resources::ZERO,
        }
    }
}

pub(super) struct Framework {
    pub(super) id: Option<FrameworkId>,
    number: u32,
    pub(super) suppressed: bool,
    /// Tasks that it has asked for.
    pub(super) placed: u32,
}

impl Framework {
    pub(super) const fn new(number: u32) -> Self {
        Self {
            id: None,
            number,
            suppressed: false,
            placed: 0,
        }
    }

    fn info(&self) -> FrameworkInfo {
        // One in four takes what is lent too.
        let revocable = self.number.is_multiple_of(4);
        let capability = revocable.then_some(Capability::RevocableResources);
        FrameworkInfo {
            id: None,
            name: format!("framework-{}", self.number),
            user: String::new(),
            roles: role(self.number).into_iter().collect(),
            failover_timeout_ms: 24 * 3_600_000,
            hostname: String::new(),
            principal: String::new(),
            webui_url: String::new(),
            capabilities: capability.into_iter().collect(),
            labels: Vec::new(),
        }
    }
}

/// Everybody's roles.
pub(super) fn roles() -> impl Iterator<Item = Role> {
    (0..ROLES).filter_map(role)
}

fn role(framework: u32) -> Option<Role> {
    Role::new(format!("role-{}", framework % ROLES)).ok()
}

/// How far a task has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// Its framework has asked for it.
    Asked,
    /// Its agent was told to run it.
    Ordered,
    /// Its agent has said that it runs; its framework has not acknowledged that yet.
    Runs,
    /// That was acknowledged.
    Known,
    /// Its agent has said that it is over.
    Over,
    /// That was acknowledged.
    Settled,
}

pub(super) struct Task {
    pub(super) id: TaskId,
    pub(super) framework: u32,
    pub(super) agent: u32,
    pub(super) resources: Resources,
    pub(super) stage: Stage,
}

impl World {
    /// Agents register and frameworks subscribe; an operator sets weights.
    pub(super) fn join_all(&mut self) -> Result<(), Broken> {
        for number in 0..self.scale.agents {
            let info = AgentInfo {
                id: None,
                hostname: format!("agent-{number}"),
                port: 5051,
                lots: ebb_types::Lots::NONE,
                lots_version: 0,
                total: units(TOTAL_UNITS),
                attributes: Vec::new(),
                version: String::from(env!("CARGO_PKG_VERSION")),
                domain: None,
            };
            let incarnation = LIFE;
            self.agent_says(number, AgentToMaster::Register { info, incarnation })?;
            let lends = self.agents[number as usize].lends;
            if !lends.is_zero() {
                self.agent_says(number, AgentToMaster::Oversubscribed(lends))?;
            }
        }
        let weights = (1_000..).step_by(500);
        let weights = roles().zip(weights);
        let command = OperatorCommand::SetWeights(weights.collect());
        self.step(Input::Operator {
            request: RequestId(0),
            command,
        })?;
        for number in 0..self.scale.frameworks {
            let info = self.frameworks[number as usize].info();
            let suppressed_roles = Vec::new();
            self.call(
                number,
                Call::Subscribe {
                    info,
                    suppressed_roles,
                    terms: ebb_types::OfferTerms::new(),
                },
            )?;
        }
        Ok(())
    }

    /// Every framework wants offers again.
    pub(super) fn revive_all(&mut self) -> Result<(), Broken> {
        (0..self.scale.frameworks)
            .try_for_each(|number| self.call(number, Call::Revive { roles: Vec::new() }))
    }

    pub(super) const fn of_agent(number: u32) -> ConnectionId {
        ConnectionId(1 + number as u64)
    }

    pub(super) const fn of_framework(&self, number: u32) -> ConnectionId {
        ConnectionId(1 + self.scale.agents as u64 + number as u64)
    }

    pub(super) fn agent_says(&mut self, number: u32, message: AgentToMaster) -> Result<(), Broken> {
        self.step(Input::Agent {
            connection: Self::of_agent(number),
            incarnation: LIFE,
            message,
        })
    }

    pub(super) fn call(&mut self, number: u32, call: Call) -> Result<(), Broken> {
        let connection = self.of_framework(number);
        self.step(Input::Scheduler { connection, call })
    }

    /// A task by its id, which is a letter and its number.
    pub(super) fn find(&self, id: &TaskId) -> usize {
        let number = id.as_str().get(1..).and_then(|text| text.parse().ok());
        number.unwrap_or(usize::MAX)
    }
}

/// Names the status of a task in that state.
pub(super) fn uuid(task: u32, state: TaskState) -> UpdateUuid {
    UpdateUuid::of(
        LIFE,
        2 * u64::from(task) + u64::from(state == TaskState::Finished),
    )
}
