//! How tables write the things that several of them show.

use ebb_types::{
    AgentActivity, AgentStatus, FaultDomain, ResourceKind, Resources, TaskState, Timestamp,
};

use crate::output::quantity::{bytes, duration_ms, milli};
use crate::output::table::{Cell, Style};

/// An agent's status with its colour.
pub(crate) fn agent_status(status: AgentStatus) -> Cell {
    Cell::new(status.name()).styled(match status {
        AgentStatus::Registered => Style::Good,
        AgentStatus::Disconnected | AgentStatus::Recovered => Style::Warn,
        AgentStatus::Unreachable => Style::Bad,
    })
}

/// What an operator has decided about an agent, with its colour.
pub(crate) fn agent_activity(activity: AgentActivity) -> Cell {
    Cell::new(activity.name()).styled(match activity {
        AgentActivity::Active => Style::Plain,
        AgentActivity::Deactivated | AgentActivity::Draining => Style::Warn,
        AgentActivity::Drained => Style::Dim,
    })
}

/// Where an agent stands, if that is known.
pub(crate) fn domain(domain: Option<&FaultDomain>) -> Cell {
    domain.map_or_else(
        || Cell::new("-").styled(Style::Dim),
        |domain| domain.to_string().into(),
    )
}

/// The colour of a task's state.
pub(crate) const fn state_style(state: TaskState) -> Style {
    match state {
        TaskState::Running => Style::Good,
        TaskState::Staging | TaskState::Starting | TaskState::Killing => Style::Warn,
        TaskState::Finished => Style::Dim,
        TaskState::Killed => Style::Plain,
        _ => Style::Bad,
    }
}

/// A task's state without the prefix that all of them share.
pub(crate) fn state(state: TaskState) -> Cell {
    let name = state.name();
    let short = name.strip_prefix("TASK_").unwrap_or(name);
    Cell::new(short.to_lowercase()).styled(state_style(state))
}

/// CPU of both parts.
pub(crate) fn cpus(resources: &Resources) -> Cell {
    Cell::right(milli(resources.total(ResourceKind::Cpus)))
}

/// Memory of both parts.
pub(crate) fn mem(resources: &Resources) -> Cell {
    Cell::right(bytes(resources.total(ResourceKind::Mem)))
}

/// How long ago something was.
pub(crate) fn age(now: Timestamp, then: Timestamp) -> Cell {
    Cell::right(duration_ms(now.ms_since(then)))
}

/// A list of names.
pub(crate) fn list<T: ToString>(names: &[T]) -> String {
    let names: Vec<String> = names.iter().map(ToString::to_string).collect();
    names.join(",")
}
