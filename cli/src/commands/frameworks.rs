//! `ebb frameworks`: who schedules, with how many tasks.

use ebb_types::{ClusterState, FrameworkState, Timestamp};

use super::text;
use crate::args::ClientArgs;
use crate::client::Master;
use crate::error::{CliError, EXIT_OK};
use crate::find::cluster_of;
use crate::output::Out;
use crate::output::json::FrameworkJson;
use crate::output::quantity::duration_ms;
use crate::output::table::{Cell, Style, Table};

pub(crate) async fn perform(args: &ClientArgs, out: &mut Out) -> Result<u8, CliError> {
    let state = Master::connect(&args.master).await?.state().await?;
    if out.json {
        let frameworks: Vec<FrameworkJson> = state.frameworks.iter().map(Into::into).collect();
        out.json(&frameworks)?;
    } else {
        let empty =
            "no framework is subscribed; start one with `ebb run`, `ebb batch` or `ebb service`";
        out.table(&table(&state), empty)?;
    }
    Ok(EXIT_OK)
}

fn table(state: &ClusterState) -> Table {
    let cluster = cluster_of(state);
    let mut table = Table::new(&[
        "ID",
        "NAME",
        "ROLES",
        "TASKS",
        "CPUS",
        "MEM",
        "SCHEDULER",
        "AGE",
    ]);
    for framework in &state.frameworks {
        table.row(vec![
            cluster.short(framework.id.as_str()).into(),
            framework.info.name.as_str().into(),
            text::list(&framework.info.roles).into(),
            Cell::right(framework.live_tasks.to_string()),
            text::cpus(&framework.allocated),
            text::mem(&framework.allocated),
            scheduler(framework, state.at),
            text::age(state.at, framework.registered_at),
        ]);
    }
    table
}

/// Whether the scheduler is there, and else how long the master waits for it.
pub(crate) fn scheduler(framework: &FrameworkState, now: Timestamp) -> Cell {
    match (framework.connected, framework.failover_deadline) {
        (true, _) => Cell::new("connected").styled(Style::Good),
        (false, Some(deadline)) => {
            let left = duration_ms(deadline.ms_since(now));
            Cell::new(format!("away, {left} left")).styled(Style::Warn)
        }
        (false, None) => Cell::new("away").styled(Style::Warn),
    }
}
