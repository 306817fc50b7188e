//! `ebb offers`: what is promised to whom, and until when.

use ebb_types::ClusterState;

use crate::args::ClientArgs;
use crate::client::Master;
use crate::error::{CliError, EXIT_OK};
use crate::find::cluster_of;
use crate::output::Out;
use crate::output::json::OfferJson;
use crate::output::quantity::{duration_ms, with_lots};
use crate::output::table::{Cell, Table};

pub(crate) async fn perform(args: &ClientArgs, out: &mut Out) -> Result<u8, CliError> {
    let state = Master::connect(&args.master).await?.state().await?;
    if out.json {
        let offers: Vec<OfferJson> = state.offers.iter().map(Into::into).collect();
        out.json(&offers)?;
    } else {
        out.table(&table(&state), "no offer is outstanding")?;
    }
    Ok(EXIT_OK)
}

fn table(state: &ClusterState) -> Table {
    let cluster = cluster_of(state);
    let mut table = Table::new(&[
        "ID",
        "FRAMEWORK",
        "AGENT",
        "HOST",
        "ROLE",
        "LAPSES IN",
        "RESOURCES",
    ]);
    for offer in &state.offers {
        let left = offer.deadline.map(|at| duration_ms(at.ms_since(state.at)));
        table.row(vec![
            cluster.short(offer.id.as_str()).into(),
            cluster.short(offer.framework_id.as_str()).into(),
            cluster.short(offer.agent_id.as_str()).into(),
            offer.hostname.as_str().into(),
            offer.role.as_str().into(),
            Cell::figure(left),
            with_lots(&offer.resources, &offer.lots).into(),
        ]);
    }
    table
}
