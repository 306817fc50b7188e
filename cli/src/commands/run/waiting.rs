//! Why a task waits: the state of the cluster against what is wanted, as one sentence. Pure.

use ebb_types::{AgentActivity, AgentState, AgentStatus, ClusterState, Quantities, Resources};

use crate::output::quantity::{quantities, resources};

/// The first of the possible reasons that holds; `lack` is what the scheduler saw in offers.
pub(crate) fn reason(state: &ClusterState, wanted: &Resources, lack: Option<&str>) -> String {
    let asks = format!("the task asks for {}", resources(wanted));
    let registered = |agent: &&AgentState| agent.status == AgentStatus::Registered;
    let agents: Vec<&AgentState> = state.agents.iter().filter(registered).collect();
    if agents.is_empty() {
        return "waiting: no agent is connected to the master; start one with `ebb agent`"
            .to_owned();
    }
    let is_active = |agent: &&AgentState| agent.activity == AgentActivity::Active;
    let agents: Vec<&AgentState> = agents.into_iter().filter(is_active).collect();
    if agents.is_empty() {
        return "waiting: every connected agent is deactivated or drained; see `ebb agents`, and reactivate one with `ebb reactivate AGENT`"
            .to_owned();
    }
    let all = wanted.regular.saturating_add(&wanted.revocable);
    if !agents.iter().any(|agent| agent.info.total.contains(&all)) {
        let largest = largest(agents.iter().map(|agent| agent.info.total));
        return format!(
            "waiting: {asks}, and no agent has that much even when it is empty (the largest has {}); ask for less",
            quantities(&largest)
        );
    }
    let lends = |agent: &&AgentState| agent.oversubscribed.contains(&wanted.revocable);
    if !wanted.revocable.is_zero() && !agents.iter().any(lends) {
        let most = largest(agents.iter().map(|agent| agent.oversubscribed));
        return format!(
            "waiting: {asks}, and no agent lends that much now (the most is {}); it will be tried as soon as one does",
            quantities(&most)
        );
    }
    if let Some(lack) = lack {
        return format!("waiting: {asks}, and what was offered so far is too little: {lack}");
    }
    let free = agents.iter().map(|agent| {
        let taken = agent
            .allocated
            .regular
            .saturating_add(&agent.offered.regular);
        agent.info.total.saturating_sub(&taken)
    });
    format!(
        "waiting: {asks}, and nothing was offered so far (the most that one agent has free is {}); \
         it starts when something is given back",
        quantities(&largest(free))
    )
}

/// The one with the most CPU, then memory.
fn largest(list: impl Iterator<Item = Quantities>) -> Quantities {
    list.max_by_key(|one| (one.cpu_milli(), one.mem_bytes()))
        .unwrap_or(Quantities::ZERO)
}
