//! `ebb weight`: sets how much of the cluster a role may hold beside the others.

use serde::Serialize;

use crate::args::WeightArgs;
use crate::client::Master;
use crate::error::{CliError, EXIT_OK};
use crate::output::Out;
use crate::output::quantity::milli;

#[derive(Serialize)]
struct Done<'a> {
    role: &'a str,
    weight_milli: u64,
}

pub(crate) async fn perform(args: &WeightArgs, out: &mut Out) -> Result<u8, CliError> {
    let mut master = Master::connect(&args.client.master).await?;
    master.set_weight(&args.role, args.weight).await?;
    if out.json {
        out.json(&Done {
            role: args.role.as_str(),
            weight_milli: args.weight,
        })?;
    } else {
        out.line(&format!(
            "role {} has weight {}",
            args.role,
            milli(args.weight)
        ))?;
    }
    Ok(EXIT_OK)
}
