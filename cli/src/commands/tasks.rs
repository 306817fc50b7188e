//! `ebb tasks`: the tasks, live ones first.

use ebb_types::{ClusterState, Resources, TaskRecord, TaskUsage};

use super::text;
use crate::args::TasksArgs;
use crate::client::Master;
use crate::error::{CliError, EXIT_OK};
use crate::find::cluster_of;
use crate::output::Out;
use crate::output::json::TaskJson;
use crate::output::quantity::{bytes, milli};
use crate::output::table::{Cell, Style, Table};

pub(crate) async fn perform(args: &TasksArgs, out: &mut Out) -> Result<u8, CliError> {
    let state = Master::connect(&args.client.master).await?.state().await?;
    let tasks: Vec<&TaskRecord> = state
        .tasks
        .iter()
        .filter(|task| args.all || !task.state.is_terminal())
        .collect();
    if out.json {
        let tasks: Vec<TaskJson> = tasks.into_iter().map(Into::into).collect();
        out.json(&tasks)?;
    } else {
        let empty = if args.all {
            "no task is known"
        } else {
            "no task is live; ended ones are shown with --all"
        };
        out.table(&table(&state, &tasks), empty)?;
    }
    Ok(EXIT_OK)
}

/// What a task uses, as its agent last said.
pub(crate) fn usage_of<'a>(state: &'a ClusterState, task: &TaskRecord) -> Option<&'a TaskUsage> {
    let agent = state
        .agents
        .iter()
        .find(|agent| agent.id == task.agent_id)?;
    let usage = agent.usage.as_ref()?;
    usage
        .tasks
        .iter()
        .find(|usage| usage.task_id == task.task_id && usage.framework_id == task.framework_id)
}

fn table(state: &ClusterState, tasks: &[&TaskRecord]) -> Table {
    let cluster = cluster_of(state);
    let mut table = Table::new(&[
        "ID",
        "NAME",
        "STATE",
        "FRAMEWORK",
        "AGENT",
        "ROLE",
        "CPUS",
        "USED",
        "MEM",
        "USED",
        "KIND",
    ]);
    for task in tasks {
        let used = if task.state.is_terminal() {
            None
        } else {
            usage_of(state, task).map(|usage| usage.used)
        };
        table.row(vec![
            task.task_id.as_str().into(),
            task.name.as_str().into(),
            text::state(task.state),
            cluster.short(task.framework_id.as_str()).into(),
            cluster.short(task.agent_id.as_str()).into(),
            task.role.as_str().into(),
            text::cpus(&usable(task)),
            Cell::figure(used.and_then(|used| used.cpu_milli).map(milli)),
            text::mem(&usable(task)),
            Cell::figure(used.and_then(|used| used.mem_bytes).map(bytes)),
            kind(task),
        ]);
    }
    table
}

/// What it may use of each kind, reserved or not.
fn usable(task: &TaskRecord) -> Resources {
    let reserved = Resources::regular(task.lots.quantities());
    task.resources.saturating_add(&reserved)
}

/// Whether what it holds may be taken back.
pub(crate) fn kind(task: &TaskRecord) -> Cell {
    if task.resources.is_revocable() {
        Cell::new("revocable").styled(Style::Lent)
    } else {
        Cell::new("regular")
    }
}
