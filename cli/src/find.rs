//! The things of a cluster that a text on the command line may name.

use ebb_types::{
    AgentState, ClusterState, ExplainSubject, FrameworkState, Offer, RoleState, TaskRecord,
};

use crate::resolve::{Candidate, Cluster, ResolveError, resolve};

/// Any one thing of a cluster.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Thing<'a> {
    /// An agent.
    Agent(&'a AgentState),
    /// A framework.
    Framework(&'a FrameworkState),
    /// A task.
    Task(&'a TaskRecord),
    /// An offer.
    Offer(&'a Offer),
    /// A role.
    Role(&'a RoleState),
}

/// The part of ids that this cluster's things share.
pub(crate) fn cluster_of(state: &ClusterState) -> Cluster {
    Cluster::of_master(&state.master.id)
}

fn plain<T>(noun: &'static str, id: &impl ToString, thing: T) -> Candidate<T> {
    Candidate {
        noun,
        owner: None,
        id: id.to_string(),
        thing,
    }
}

fn of_task<'a, T>(task: &'a TaskRecord, thing: impl Fn(&'a TaskRecord) -> T) -> Candidate<T> {
    Candidate {
        noun: "task",
        owner: Some(task.framework_id.to_string()),
        id: task.task_id.to_string(),
        thing: thing(task),
    }
}

/// The thing of any kind that a text names.
pub(crate) fn thing<'a>(state: &'a ClusterState, text: &str) -> Result<Thing<'a>, ResolveError> {
    let agents = state
        .agents
        .iter()
        .map(|a| plain("agent", &a.id, Thing::Agent(a)));
    let frameworks = state.frameworks.iter();
    let frameworks = frameworks.map(|f| plain("framework", &f.id, Thing::Framework(f)));
    let tasks = state.tasks.iter().map(|t| of_task(t, Thing::Task));
    let offers = state
        .offers
        .iter()
        .map(|o| plain("offer", &o.id, Thing::Offer(o)));
    let roles = state
        .roles
        .iter()
        .map(|r| plain("role", &r.role, Thing::Role(r)));
    let all: Vec<_> = agents
        .chain(frameworks)
        .chain(tasks)
        .chain(offers)
        .chain(roles)
        .collect();
    let noun = "agent, framework, task, offer or role";
    resolve(noun, "ebb status", text, &cluster_of(state), &all).copied()
}

/// The agent that a text names.
pub(crate) fn agent<'a>(
    state: &'a ClusterState,
    text: &str,
) -> Result<&'a AgentState, ResolveError> {
    let agents = state.agents.iter();
    let all: Vec<_> = agents.map(|a| plain("agent", &a.id, a)).collect();
    resolve("agent", "ebb agents", text, &cluster_of(state), &all).copied()
}

/// The framework that a text names.
pub(crate) fn framework<'a>(
    state: &'a ClusterState,
    text: &str,
) -> Result<&'a FrameworkState, ResolveError> {
    let all: Vec<_> = state
        .frameworks
        .iter()
        .map(|f| plain("framework", &f.id, f))
        .collect();
    resolve(
        "framework",
        "ebb frameworks",
        text,
        &cluster_of(state),
        &all,
    )
    .copied()
}

/// The task that a text names; live ones go before ended ones.
pub(crate) fn task<'a>(
    state: &'a ClusterState,
    text: &str,
) -> Result<&'a TaskRecord, ResolveError> {
    let of = |live: bool| -> Vec<Candidate<&'a TaskRecord>> {
        let tasks = state.tasks.iter().filter(|t| t.state.is_terminal() != live);
        tasks.map(|t| of_task(t, |t| t)).collect()
    };
    let cluster = cluster_of(state);
    match resolve("task", "ebb tasks --all", text, &cluster, &of(true)) {
        Err(ResolveError::NoMatch { .. }) => {
            resolve("task", "ebb tasks --all", text, &cluster, &of(false)).copied()
        }
        found => found.copied(),
    }
}

/// The framework or role that a text names.
pub(crate) fn framework_or_role(
    state: &ClusterState,
    text: &str,
) -> Result<ExplainSubject, ResolveError> {
    let frameworks = state.frameworks.iter().map(|f| {
        let subject = ExplainSubject::Framework(f.id.clone());
        plain("framework", &f.id, subject)
    });
    let roles = state.roles.iter().map(|r| {
        let subject = ExplainSubject::Role(r.role.clone());
        plain("role", &r.role, subject)
    });
    let all: Vec<_> = frameworks.chain(roles).collect();
    let list = "ebb frameworks` and `ebb roles";
    resolve("framework or role", list, text, &cluster_of(state), &all).cloned()
}
