//! `ebb deactivate`, `ebb reactivate` and `ebb drain`: what an operator decides about one agent.

use ebb_types::{AgentActivity, AgentState};
use serde::Serialize;

use crate::args::{DrainArgs, OneAgentArgs};
use crate::client::Master;
use crate::error::{CliError, EXIT_OK};
use crate::find;
use crate::output::Out;

#[derive(Serialize)]
struct Done<'a> {
    agent_id: &'a str,
    activity: &'static str,
    live_tasks: usize,
}

/// The agent that is meant, and how many tasks on it have not ended.
async fn agent_of(
    master: &mut Master,
    args: &OneAgentArgs,
) -> Result<(AgentState, usize), CliError> {
    let state = master.state().await?;
    let agent = find::agent(&state, &args.agent)?.clone();
    let tasks = state.tasks.iter();
    let live = tasks
        .filter(|task| task.agent_id == agent.id && !task.state.is_terminal())
        .count();
    Ok((agent, live))
}

fn say(
    out: &mut Out,
    (agent, live_tasks): (&AgentState, usize),
    activity: AgentActivity,
    line: &str,
) -> Result<u8, CliError> {
    if out.json {
        out.json(&Done {
            agent_id: agent.id.as_str(),
            activity: activity.name(),
            live_tasks,
        })?;
    } else {
        out.line(&format!("agent {} {line}", agent.id))?;
    }
    Ok(EXIT_OK)
}

pub(crate) async fn deactivate(args: &OneAgentArgs, out: &mut Out) -> Result<u8, CliError> {
    let mut master = Master::connect(&args.client.master).await?;
    let (agent, live) = agent_of(&mut master, args).await?;
    master.deactivate(&agent.id).await?;
    // One that drains or is drained stays so: it is deactivated already.
    let (activity, line) = match agent.activity {
        AgentActivity::Active | AgentActivity::Deactivated => (
            AgentActivity::Deactivated,
            format!("is deactivated; its {live} live tasks run on"),
        ),
        other => (other, format!("is {} already", other.name())),
    };
    say(out, (&agent, live), activity, &line)
}

pub(crate) async fn reactivate(args: &OneAgentArgs, out: &mut Out) -> Result<u8, CliError> {
    let mut master = Master::connect(&args.client.master).await?;
    let (agent, live) = agent_of(&mut master, args).await?;
    master.reactivate(&agent.id).await?;
    let line = "is active; it is offered again";
    say(out, (&agent, live), AgentActivity::Active, line)
}

pub(crate) async fn drain(args: &DrainArgs, out: &mut Out) -> Result<u8, CliError> {
    let mut master = Master::connect(&args.which.client.master).await?;
    let (agent, live) = agent_of(&mut master, &args.which).await?;
    master.drain(&agent.id, args.grace).await?;
    let line = format!(
        "is draining; {live} live tasks are being ended. `ebb agents` shows it as drained when nothing is left"
    );
    say(out, (&agent, live), AgentActivity::Draining, &line)
}
