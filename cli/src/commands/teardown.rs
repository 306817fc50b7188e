//! `ebb teardown`: ends a framework and all its tasks.

use serde::Serialize;

use crate::args::TeardownArgs;
use crate::client::Master;
use crate::error::{CliError, EXIT_OK};
use crate::find;
use crate::output::Out;

#[derive(Serialize)]
struct Done<'a> {
    framework_id: &'a str,
    live_tasks: u64,
}

pub(crate) async fn perform(args: &TeardownArgs, out: &mut Out) -> Result<u8, CliError> {
    let mut master = Master::connect(&args.client.master).await?;
    let state = master.state().await?;
    let framework = find::framework(&state, &args.framework)?;
    master.teardown(&framework.id).await?;
    if out.json {
        out.json(&Done {
            framework_id: framework.id.as_str(),
            live_tasks: framework.live_tasks,
        })?;
    } else {
        out.line(&format!(
            "framework {} is torn down; {} live tasks are being ended",
            framework.id, framework.live_tasks
        ))?;
    }
    Ok(EXIT_OK)
}
