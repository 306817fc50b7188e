//! `ebb maintenance`: when machines are out of use, what the frameworks on them say to that, and taking them out of use
//! and back.

use clap::{Args, Subcommand};
use ebb_types::limits::MAX_MAINTENANCE_MS;
use ebb_types::{
    AgentActivity, AgentId, AgentStatus, ClusterState, InverseAnswer, Machine, MaintenanceMode,
    MaintenanceState, Timestamp, Unavailability,
};
use serde::Serialize;

use crate::args::ClientArgs;
use crate::client::Master;
use crate::error::{CliError, EXIT_OK};
use crate::find::{self, cluster_of};
use crate::output::Out;
use crate::output::quantity::{duration_ms, parse_duration_ms};
use crate::output::table::{Style, Table};
use crate::resolve::Cluster;

/// `ebb maintenance`.
#[derive(Debug, Args)]
pub(crate) struct MaintenanceArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Plan when machines are out of use; frameworks are asked to be gone by then
    Schedule(ScheduleArgs),
    /// Show what is planned, and what frameworks have answered
    Status(ClientArgs),
    /// Take machines out of use: end the tasks on them, and offer nothing of them
    Start(MachinesArgs),
    /// Bring machines back into use
    Stop(MachinesArgs),
    /// Call off what was not started
    Cancel(MachinesArgs),
}

#[derive(Debug, Args)]
struct ScheduleArgs {
    /// How long from now until they are out of use, like 2h
    #[arg(long = "in", value_name = "TIME", value_parser = window_ms)]
    begins_in: u64,
    /// How long they are out of use, like 30m; for ever without it
    #[arg(long = "for", value_name = "TIME", value_parser = window_ms)]
    lasts: Option<u64>,
    #[command(flatten)]
    which: MachinesArgs,
}

#[derive(Debug, Args)]
struct MachinesArgs {
    /// Agents by their ids, or hosts by their names; host:NAME is a host that no agent is on yet
    #[arg(required = true, value_name = "AGENT|HOST")]
    machines: Vec<String>,
    #[command(flatten)]
    client: ClientArgs,
}

impl MaintenanceArgs {
    /// Whether the answer is to be JSON.
    pub(crate) const fn wants_json(&self) -> bool {
        match &self.what {
            What::Schedule(args) => args.which.client.json,
            What::Status(args) => args.json,
            What::Start(args) | What::Stop(args) | What::Cancel(args) => args.client.json,
        }
    }
}

fn window_ms(text: &str) -> Result<u64, String> {
    let ms = parse_duration_ms(text).map_err(|error| error.to_string())?;
    if ms == 0 || ms > MAX_MAINTENANCE_MS {
        return Err("give more than 0 and at most ten years, like 2h".to_owned());
    }
    Ok(ms)
}

#[derive(Serialize)]
struct WindowJson {
    agent_id: Option<String>,
    hostname: Option<String>,
    mode: &'static str,
    start_ms: u64,
    duration_ms: Option<u64>,
    agents: Vec<String>,
    answers: Vec<AnswerJson>,
}

#[derive(Serialize)]
struct AnswerJson {
    agent_id: String,
    framework_id: String,
    answer: &'static str,
    at_ms: u64,
}

#[derive(Serialize)]
struct Done {
    machines: Vec<String>,
    done: &'static str,
}

pub(crate) async fn perform(args: &MaintenanceArgs, out: &mut Out) -> Result<u8, CliError> {
    match &args.what {
        What::Schedule(args) => schedule(args, out).await,
        What::Status(args) => status(args, out).await,
        What::Start(args) => {
            let (mut master, machines) = meant(args).await?;
            master.start_maintenance(&machines).await?;
            let line = "is taken out of use; `ebb agents` shows its agents as drained when nothing is left on them";
            say(out, &machines, "started", line)
        }
        What::Stop(args) => {
            let (mut master, machines) = meant(args).await?;
            master.stop_maintenance(&machines).await?;
            say(out, &machines, "stopped", "is back in use")
        }
        What::Cancel(args) => {
            let (mut master, machines) = meant(args).await?;
            master.cancel_maintenance(&machines).await?;
            say(out, &machines, "cancelled", "stays in use")
        }
    }
}

/// The machines that are meant.
async fn meant(args: &MachinesArgs) -> Result<(Master, Vec<Machine>), CliError> {
    let mut master = Master::connect(&args.client.master).await?;
    let state = master.state().await?;
    let machines = args.machines.iter().map(|text| machine(&state, text));
    let machines = machines.collect::<Result<_, _>>()?;
    Ok((master, machines))
}

fn machine(state: &ClusterState, text: &str) -> Result<Machine, CliError> {
    let wrong = |error: ebb_types::InvalidId| CliError::Failed(error.to_string());
    if let Some(name) = text.strip_prefix("host:") {
        return Machine::host(name).map_err(wrong);
    }
    let mut agents = state.agents.iter();
    if agents.any(|agent| agent.info.hostname == text) {
        return Machine::host(text).map_err(wrong);
    }
    // One whose agents are gone by now.
    let mut windows = state.maintenance.iter().map(|one| &one.window.machine);
    let known = windows.find(|machine| match machine {
        Machine::Agent(id) => id.as_str() == text,
        Machine::Host(name) => name == text,
    });
    if let Some(known) = known {
        return Ok(known.clone());
    }
    Ok(Machine::Agent(find::agent(state, text)?.id.clone()))
}

fn say(
    out: &mut Out,
    machines: &[Machine],
    done: &'static str,
    line: &str,
) -> Result<u8, CliError> {
    if out.json {
        let machines = machines.iter().map(ToString::to_string).collect();
        out.json(&Done { machines, done })?;
    } else {
        for machine in machines {
            out.line(&format!("{machine} {line}"))?;
        }
    }
    Ok(EXIT_OK)
}

async fn schedule(args: &ScheduleArgs, out: &mut Out) -> Result<u8, CliError> {
    let mut master = Master::connect(&args.which.client.master).await?;
    let state = master.state().await?;
    let machines = args.which.machines.iter();
    let machines: Vec<Machine> = machines
        .map(|text| machine(&state, text))
        .collect::<Result<_, _>>()?;
    // By the master's clock, which the window will be held against.
    let window = Unavailability {
        start: state.at.plus_ms(args.begins_in),
        duration_ms: args.lasts,
    };
    master.schedule_maintenance(&machines, window).await?;
    let lasts = match args.lasts {
        Some(ms) => format!("for {}", duration_ms(ms)),
        None => String::from("for ever"),
    };
    let begins = duration_ms(args.begins_in);
    let line = format!(
        "will be out of use in {begins} {lasts}; `ebb maintenance status` shows what its frameworks answer, `ebb maintenance start` takes it out of use"
    );
    say(out, &machines, "scheduled", &line)
}

async fn status(args: &ClientArgs, out: &mut Out) -> Result<u8, CliError> {
    let state = Master::connect(&args.master).await?.state().await?;
    if out.json {
        let windows: Vec<WindowJson> = state.maintenance.iter().map(json).collect();
        out.json(&windows)?;
    } else {
        let empty = "no maintenance is planned; plan one with `ebb maintenance schedule`";
        out.table(&table(&state), empty)?;
    }
    Ok(EXIT_OK)
}

fn json(state: &MaintenanceState) -> WindowJson {
    let window = &state.window;
    let (agent_id, hostname) = match &window.machine {
        Machine::Agent(id) => (Some(id.to_string()), None),
        Machine::Host(name) => (None, Some(name.clone())),
    };
    let answers = state.answers.iter().map(|one| AnswerJson {
        agent_id: one.agent_id.to_string(),
        framework_id: one.framework_id.to_string(),
        answer: one.answer.name(),
        at_ms: one.at.as_ms(),
    });
    WindowJson {
        agent_id,
        hostname,
        mode: window.mode.name(),
        start_ms: window.unavailability.start.as_ms(),
        duration_ms: window.unavailability.duration_ms,
        agents: state.agents.iter().map(ToString::to_string).collect(),
        answers: answers.collect(),
    }
}

fn table(state: &ClusterState) -> Table {
    let cluster = cluster_of(state);
    let mut table = Table::new(&["MACHINE", "MODE", "BEGINS", "LASTS", "AGENTS", "ANSWERS"]);
    for one in &state.maintenance {
        let window = &one.window.unavailability;
        let machine = match &one.window.machine {
            Machine::Agent(id) => cluster.short(id.as_str()),
            Machine::Host(name) => name,
        };
        let mode = one.window.mode;
        table.row(vec![
            machine.into(),
            crate::output::table::Cell::new(mode.name()).styled(match mode {
                MaintenanceMode::Scheduled => Style::Plain,
                MaintenanceMode::Down => Style::Warn,
            }),
            begins(state.at, window.start).into(),
            window
                .duration_ms
                .map_or_else(|| String::from("for ever"), duration_ms)
                .into(),
            agents(state, &cluster, &one.agents).into(),
            answers(&cluster, one).into(),
        ]);
    }
    table
}

fn begins(now: Timestamp, start: Timestamp) -> String {
    if start > now {
        format!("in {}", duration_ms(start.ms_since(now)))
    } else {
        format!("{} ago", duration_ms(now.ms_since(start)))
    }
}

fn agents(state: &ClusterState, cluster: &Cluster, ids: &[AgentId]) -> String {
    let known = state.agents.iter().filter(|agent| ids.contains(&agent.id));
    let each = known.map(|agent| {
        let how = match (agent.status, agent.activity) {
            (AgentStatus::Registered, AgentActivity::Active) => String::new(),
            (AgentStatus::Registered, activity) => format!(" ({})", activity.name()),
            (status, _) => format!(" ({})", status.name()),
        };
        format!("{}{how}", cluster.short(agent.id.as_str()))
    });
    listed(each)
}

fn answers(cluster: &Cluster, state: &MaintenanceState) -> String {
    let each = state.answers.iter().map(|one| {
        let word = match one.answer {
            InverseAnswer::Open => "has not answered",
            InverseAnswer::Accepted => "will be gone",
            InverseAnswer::Declined => "will not be gone",
        };
        let framework = cluster.short(one.framework_id.as_str());
        match state.agents.len() {
            1 => format!("{framework} {word}"),
            _ => format!(
                "{framework} {word} from {}",
                cluster.short(one.agent_id.as_str())
            ),
        }
    });
    listed(each)
}

fn listed(each: impl Iterator<Item = String>) -> String {
    let all: Vec<String> = each.collect();
    if all.is_empty() {
        return String::from("-");
    }
    all.join(", ")
}
