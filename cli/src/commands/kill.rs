//! `ebb kill`: ends one task, whoever's it is.

use serde::Serialize;

use crate::args::KillArgs;
use crate::client::Master;
use crate::error::{CliError, EXIT_OK};
use crate::find;
use crate::output::Out;
use crate::output::table::clean;

#[derive(Serialize)]
struct Done<'a> {
    framework_id: &'a str,
    task_id: &'a str,
    agent_id: &'a str,
}

pub(crate) async fn perform(args: &KillArgs, out: &mut Out) -> Result<u8, CliError> {
    let mut master = Master::connect(&args.client.master).await?;
    let state = master.state().await?;
    let task = find::task(&state, &args.task)?;
    if task.state.is_terminal() {
        return Err(CliError::Failed(format!(
            "task {} has ended already ({}); live ones are listed by `ebb tasks`",
            clean(task.task_id.as_str()),
            task.state.name()
        )));
    }
    master
        .kill(&task.framework_id, &task.task_id, args.grace)
        .await?;
    if out.json {
        out.json(&Done {
            framework_id: task.framework_id.as_str(),
            task_id: task.task_id.as_str(),
            agent_id: task.agent_id.as_str(),
        })?;
    } else {
        let id = clean(task.task_id.as_str());
        out.line(&format!(
            "task {id} of framework {} is being ended",
            task.framework_id
        ))?;
    }
    Ok(EXIT_OK)
}
