//! `ebb roles`: the roles, their weights, and what each holds.

use ebb_types::{ClusterState, RoleState};

use super::text;
use crate::args::ClientArgs;
use crate::client::Master;
use crate::error::{CliError, EXIT_OK};
use crate::output::Out;
use crate::output::json::RoleJson;
use crate::output::quantity::milli;
use crate::output::table::{Cell, Table};

pub(crate) async fn perform(args: &ClientArgs, out: &mut Out) -> Result<u8, CliError> {
    let state = Master::connect(&args.master).await?.state().await?;
    if out.json {
        let roles: Vec<RoleJson> = state.roles.iter().map(Into::into).collect();
        out.json(&roles)?;
    } else {
        out.table(&table(&state), "no role is in use and none has a weight")?;
    }
    Ok(EXIT_OK)
}

fn table(state: &ClusterState) -> Table {
    let mut table = Table::new(&[
        "ROLE",
        "WEIGHT",
        "FRAMEWORKS",
        "CPUS",
        "MEM",
        "OFFERED CPUS",
    ]);
    for role in &state.roles {
        let RoleState {
            offered, allocated, ..
        } = role;
        table.row(vec![
            role.role.as_str().into(),
            Cell::right(milli(role.weight_milli)),
            Cell::right(role.frameworks.len().to_string()),
            text::cpus(allocated),
            text::mem(allocated),
            text::cpus(offered),
        ]);
    }
    table
}
