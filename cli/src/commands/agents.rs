//! `ebb agents`: the agents, what they have, what is allocated and lent.

use ebb_types::ClusterState;

use super::text;
use crate::args::ClientArgs;
use crate::client::Master;
use crate::error::{CliError, EXIT_OK};
use crate::find::cluster_of;
use crate::output::Out;
use crate::output::json::AgentJson;
use crate::output::quantity::{bytes, milli};
use crate::output::table::{Cell, Style, Table};

pub(crate) async fn perform(args: &ClientArgs, out: &mut Out) -> Result<u8, CliError> {
    let state = Master::connect(&args.master).await?.state().await?;
    if out.json {
        let agents: Vec<AgentJson> = state.agents.iter().map(Into::into).collect();
        out.json(&agents)?;
    } else {
        let empty = "no agent has joined; start one with `ebb agent`";
        out.table(&table(&state), empty)?;
    }
    Ok(EXIT_OK)
}

fn table(state: &ClusterState) -> Table {
    let cluster = cluster_of(state);
    let mut table = Table::new(&[
        "ID",
        "HOST",
        "STATUS",
        "ACTIVITY",
        "DOMAIN",
        "CPUS",
        "ALLOC",
        "MEM",
        "ALLOC",
        "LENT CPUS",
        "TASKS",
    ]);
    for agent in &state.agents {
        let total = agent
            .info
            .total
            .saturating_add(&agent.info.lots.quantities());
        let allocated = (agent.allocated.regular).saturating_add(&agent.allocated_lots.charged());
        let tasks = state.tasks.iter();
        let tasks = tasks.filter(|t| t.agent_id == agent.id && !t.state.is_terminal());
        table.row(vec![
            cluster.short(agent.id.as_str()).into(),
            format!("{}:{}", agent.info.hostname, agent.info.port).into(),
            text::agent_status(agent.status),
            text::agent_activity(agent.activity),
            text::domain(agent.info.domain.as_ref()),
            Cell::right(milli(total.cpu_milli())),
            Cell::right(milli(allocated.cpu_milli())),
            Cell::right(bytes(total.mem_bytes())),
            Cell::right(bytes(allocated.mem_bytes())),
            Cell::right(milli(agent.oversubscribed.cpu_milli())).styled(Style::Lent),
            Cell::right(tasks.count().to_string()),
        ]);
    }
    table
}
