//! `ebb neighbours`: who disturbs whom, by which resource, since when.

use ebb_types::{AgentState, ClusterState, Disturbance};
use serde::Serialize;

use super::details::qos::{disturbers, evidence};
use crate::args::ClientArgs;
use crate::client::Master;
use crate::error::{CliError, EXIT_OK};
use crate::find::cluster_of;
use crate::output::Out;
use crate::output::json::DisturbanceJson;
use crate::output::quantity::duration_ms;
use crate::output::table::Table;

/// A disturbance with its agent.
#[derive(Serialize)]
struct NeighbourJson {
    agent_id: String,
    #[serde(flatten)]
    disturbance: DisturbanceJson,
}

pub(crate) async fn perform(args: &ClientArgs, out: &mut Out) -> Result<u8, CliError> {
    let state = Master::connect(&args.master).await?.state().await?;
    if out.json {
        let all: Vec<NeighbourJson> = all(&state)
            .into_iter()
            .map(|(agent, one)| NeighbourJson {
                agent_id: agent.id.to_string(),
                disturbance: one.into(),
            })
            .collect();
        out.json(&all)?;
    } else {
        out.table(&table(&state), "nobody is disturbed by neighbours")?;
    }
    Ok(EXIT_OK)
}

/// Every disturbance, the longest first.
fn all(state: &ClusterState) -> Vec<(&AgentState, &Disturbance)> {
    let mut all: Vec<_> = state
        .agents
        .iter()
        .filter_map(|agent| Some((agent, agent.usage.as_ref()?)))
        .flat_map(|(agent, usage)| usage.disturbances.iter().map(move |one| (agent, one)))
        .collect();
    all.sort_by_key(|(_, one)| one.since);
    all
}

fn table(state: &ClusterState) -> Table {
    let cluster = cluster_of(state);
    let mut table = Table::new(&["AGENT", "TASK", "RESOURCE", "FOR", "BY", "BECAUSE"]);
    for (agent, one) in all(state) {
        table.row(vec![
            cluster.short(agent.id.as_str()).into(),
            one.task_id.as_str().into(),
            one.resource.name().into(),
            duration_ms(state.at.ms_since(one.since)).into(),
            disturbers(&one.by).into(),
            evidence(one).into(),
        ]);
    }
    table
}
