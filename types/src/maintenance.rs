//! Maintenance: when machines will be out of use, and asking frameworks to be gone by then. As in Mesos.
//!
//! An operator schedules a *window* for a machine. While it is to come, offers of its agents carry their
//! *unavailability*, and an *inverse offer* asks each framework that has tasks there for the agent back. What a framework
//! answers binds nobody: the operator sees it, and takes the machine out of use when the time has come.

use crate::ids::{AgentId, FrameworkId, InvalidId, OfferId};
use crate::limits::MAX_ID_BYTES;
use crate::time::Timestamp;

/// When an agent will be out of use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Unavailability {
    /// From then on.
    pub start: Timestamp,
    /// For so long, in milliseconds; unset means for ever.
    pub duration_ms: Option<u64>,
}

impl Unavailability {
    /// When it is over, if ever.
    pub fn end(&self) -> Option<Timestamp> {
        self.duration_ms.map(|ms| self.start.plus_ms(ms))
    }
}

/// A machine as an operator names it: by the agent on it, or by its host name, which agents that join later have too.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Machine {
    /// The agent of that id.
    Agent(AgentId),
    /// All agents of that host name.
    Host(String),
}

impl Machine {
    /// A machine by its host name.
    ///
    /// # Errors
    /// [`InvalidId`] says which rule the name breaks.
    pub fn host(name: &str) -> Result<Self, InvalidId> {
        let kind = "host name";
        match name.len() {
            0 => Err(InvalidId::Empty { kind }),
            len if len > MAX_ID_BYTES => Err(InvalidId::TooLong { kind, len }),
            _ if name
                .contains(|c: char| c.is_control() || c.is_whitespace() || "/\\".contains(c)) =>
            {
                let text = name.chars().take(255).collect();
                Err(InvalidId::Forbidden { kind, text })
            }
            _ => Ok(Self::Host(name.to_owned())),
        }
    }
}

impl std::fmt::Display for Machine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Agent(id) => write!(f, "agent {id}"),
            Self::Host(name) => write!(f, "host {name}"),
        }
    }
}

/// How far the maintenance of a machine is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum MaintenanceMode {
    /// It is to come: the machine is in use.
    Scheduled,
    /// An operator has started it: the machine is taken out of use.
    Down,
}

impl MaintenanceMode {
    /// Every mode.
    pub const ALL: [Self; 2] = [Self::Scheduled, Self::Down];

    /// The name in the API.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Scheduled => "scheduled",
            Self::Down => "down",
        }
    }
}

/// A machine's maintenance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Window {
    /// The machine.
    pub machine: Machine,
    /// When it is out of use.
    pub unavailability: Unavailability,
    /// How far it is.
    pub mode: MaintenanceMode,
}

/// What a framework has answered to an inverse offer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum InverseAnswer {
    /// Nothing yet.
    Open,
    /// It will be gone.
    Accepted,
    /// It will not.
    Declined,
}

impl InverseAnswer {
    /// Every answer.
    pub const ALL: [Self; 3] = [Self::Open, Self::Accepted, Self::Declined];

    /// The name in the API.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Accepted => "accepted",
            Self::Declined => "declined",
        }
    }
}

/// A framework's answer about an agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentAnswer {
    /// The agent.
    pub agent_id: AgentId,
    /// The framework that has tasks there, or had when it was asked.
    pub framework_id: FrameworkId,
    /// What it has answered last.
    pub answer: InverseAnswer,
    /// When it has answered, or was asked first.
    pub at: Timestamp,
}

/// A machine's maintenance as operators see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MaintenanceState {
    /// The window.
    pub window: Window,
    /// The agents that it concerns, of those that the master knows.
    pub agents: Vec<AgentId>,
    /// What frameworks have answered, by agent and framework.
    pub answers: Vec<AgentAnswer>,
}

/// A request to be gone from an agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InverseOffer {
    /// Names it; never used twice, nor for an offer.
    pub id: OfferId,
    /// Who is asked.
    pub framework_id: FrameworkId,
    /// The agent.
    pub agent_id: AgentId,
    /// Its host name.
    pub hostname: String,
    /// When it will be out of use.
    pub unavailability: Unavailability,
}
