//! `ebb run`: one command as a task; its output here, its exit status as ours.
//!
//! **Invariants.** Everything that the task wrote is printed before this process exits, or a sentence
//! says what may be missing. The task does not outlive this process unless it is left on purpose
//! (a second Ctrl-C). The framework stays until the output is read, since its end empties the
//! sandbox.

mod ending;
mod output;
mod waiting;

use std::time::Duration;

use clap::Args;
use ebb_framework::offers::{Claim, Demand};
use ebb_framework::{CommandSpec, RunConfig, RunEvent, RunHandle, run_command};
use ebb_types::limits::{MAX_ARGUMENTS, MAX_COMMAND_BYTES, MAX_ENVIRONMENT, MAX_NAME_BYTES};
use ebb_types::{
    AgentId, FrameworkId, Quantities, ResourceKind, Resources, Role, TaskId, TaskState, TaskStatus,
};
use serde::Serialize;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use crate::args::{ClientArgs, grace_ms, role};
use crate::client::Master;
use crate::error::CliError;
use crate::output::Out;
use crate::output::quantity::{parse_bandwidth, parse_bytes, parse_cpus, parse_duration_ms, shown};
use crate::output::table::clean;
use crate::signals::Signals;

use ending::Ending;
use output::Output;

/// Without a fitting offer for so long, it is said once why.
const EXPLAIN_AFTER: Duration = Duration::from_secs(5);
/// Without a subscription for so long, it is given up, in milliseconds.
const GIVE_UP_AFTER_MS: u64 = 30_000;

const RUN_EXIT_CODES: &str = "Exit codes: the task's own; 128 and the signal's number when a signal \
ended it; 120 it was never started, 121 its agent is lost, 122 it was preempted, 123 it was killed, \
124 it ran into --timeout, 130 Ctrl-C; 1 ebb itself failed, 2 wrong command line.\n\
With --json every line on standard output is an object with the field \"event\": subscribed, \
waiting, launched, status, output, ended.";

/// Whose resources a task may run on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Revocable {
    /// CPU and disk bandwidth lent by others; memory and disk its own
    Cpus,
    /// Everything lent by others
    All,
}

/// What one task wants, for all commands that launch some.
#[derive(Clone, Debug, Args)]
pub(crate) struct DemandArgs {
    /// Processors
    #[arg(long, value_name = "N", default_value = "0.5", allow_negative_numbers = true, value_parser = parse_cpus)]
    pub(crate) cpus: u64,
    /// Memory
    #[arg(long, value_name = "BYTES", default_value = "64MiB", value_parser = parse_bytes)]
    pub(crate) mem: u64,
    /// Disk space
    #[arg(long, value_name = "BYTES", value_parser = parse_bytes)]
    pub(crate) disk: Option<u64>,
    /// Disk bandwidth
    #[arg(long, value_name = "BYTES/S", value_parser = parse_bandwidth)]
    pub(crate) disk_bandwidth: Option<u64>,
    /// Run on what others leave idle: it may be taken back at any time
    #[arg(long, value_enum, value_name = "WHAT", num_args = 0..=1, require_equals = true, default_missing_value = "cpus")]
    pub(crate) revocable: Option<Revocable>,
    /// The role whose share is used
    #[arg(long, default_value = "*", value_parser = role)]
    pub(crate) role: Role,
    /// The account to run as; without it, the agent's own
    #[arg(long, value_parser = name)]
    pub(crate) user: Option<String>,
    /// Set an environment variable
    #[arg(long, value_name = "KEY=VALUE", value_parser = variable)]
    pub(crate) env: Vec<(String, String)>,
    /// Kill it when it runs longer
    #[arg(long, value_name = "TIME", value_parser = parse_duration_ms)]
    pub(crate) timeout: Option<u64>,
    /// Time between the polite and the forced kill
    #[arg(long, value_name = "TIME", value_parser = grace_ms)]
    pub(crate) grace: Option<u64>,
}

impl DemandArgs {
    /// What each task wants.
    pub(crate) fn demand(&self) -> Demand {
        let amount = Quantities::cpus_mem(self.cpus, self.mem)
            .with(ResourceKind::Disk, self.disk.unwrap_or(0))
            .with(
                ResourceKind::DiskBandwidth,
                self.disk_bandwidth.unwrap_or(0),
            );
        let claim = match self.revocable {
            None => Claim::Regular,
            Some(Revocable::Cpus) => Claim::RevocableCompressible,
            Some(Revocable::All) => Claim::Revocable,
        };
        Demand { amount, claim }
    }
}

/// `ebb run`.
#[derive(Debug, Args)]
#[command(after_help = RUN_EXIT_CODES)]
pub(crate) struct RunArgs {
    #[command(flatten)]
    pub(crate) demand: DemandArgs,
    /// A hard ceiling on CPU; without it, idle CPU may be used beyond --cpus
    #[arg(long, value_name = "N", value_parser = parse_cpus)]
    pub(crate) cpu_limit: Option<u64>,
    /// Display name of the task
    #[arg(long, value_parser = name)]
    pub(crate) name: Option<String>,
    /// The program and its arguments
    #[arg(last = true, required = true, value_name = "CMD", value_parser = word)]
    pub(crate) command: Vec<String>,
    #[command(flatten)]
    pub(crate) client: ClientArgs,
}

/// Reads a name.
pub(crate) fn name(text: &str) -> Result<String, String> {
    if text.is_empty() || text.len() > MAX_NAME_BYTES || text.contains(char::is_control) {
        return Err(format!(
            "a name has 1 to {MAX_NAME_BYTES} bytes and no control characters"
        ));
    }
    Ok(text.to_owned())
}

/// Reads `KEY=VALUE`.
fn variable(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), word(value)?)),
        _ => Err(format!("{:?} sets nothing; write KEY=VALUE", shown(text))),
    }
}

/// Reads one word of a command line.
pub(crate) fn word(text: &str) -> Result<String, String> {
    if text.len() > MAX_COMMAND_BYTES {
        return Err(format!(
            "it is {} bytes long; at most {MAX_COMMAND_BYTES} are allowed: put it into a file",
            text.len()
        ));
    }
    Ok(text.to_owned())
}

fn config(args: &RunArgs) -> Result<RunConfig, CliError> {
    if args.command.len() > MAX_ARGUMENTS || args.demand.env.len() > MAX_ENVIRONMENT {
        return Err(CliError::Usage(format!(
            "a command has at most {MAX_ARGUMENTS} words and {MAX_ENVIRONMENT} variables; put the rest into a file"
        )));
    }
    let program = args.command.first().map_or("", String::as_str);
    let base = program.rsplit('/').find(|part| !part.is_empty());
    let mut command = CommandSpec::exec(args.command.iter());
    command.environment.clone_from(&args.demand.env);
    command.user.clone_from(&args.demand.user);
    let demand = args.demand.demand();
    if demand.amount.is_zero() {
        return Err(CliError::Usage(
            "a task must ask for something; give --cpus or --mem more than 0".to_owned(),
        ));
    }
    Ok(RunConfig {
        masters: vec![args.client.master.to_string()],
        name: args
            .name
            .clone()
            .unwrap_or_else(|| base.unwrap_or("run").to_owned()),
        role: args.demand.role.clone(),
        user: String::new(),
        command,
        demand,
        cpu_limit_milli: args.cpu_limit,
        max_completion_ms: args.demand.timeout,
        kill_grace_ms: args.demand.grace,
        give_up_after_ms: Some(GIVE_UP_AFTER_MS),
    })
}

/// What `--json` prints beside the output.
#[derive(Debug, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
enum EventJson {
    Subscribed {
        framework_id: String,
    },
    Waiting {
        reason: String,
    },
    Launched {
        task_id: String,
        agent_id: String,
        hostname: String,
    },
    Status {
        state: &'static str,
        reason: Option<&'static str>,
        message: String,
    },
    Ended {
        state: &'static str,
        reason: Option<&'static str>,
        message: String,
        exit_code: u8,
    },
}

/// What is known of the run so far.
struct Run {
    master: Master,
    handle: RunHandle,
    output: Output,
    framework_id: Option<FrameworkId>,
    launched: Option<(TaskId, AgentId)>,
    last_lack: Option<String>,
    interrupts: u32,
    /// Whether the task is left to itself on purpose.
    left: bool,
}

pub(crate) async fn perform(args: RunArgs, out: &mut Out) -> Result<u8, CliError> {
    let config = config(&args)?;
    let wanted = config.demand.resources();
    // Asks the master first, so that one that is down is told at once and by its name.
    let master = Master::connect(&args.client.master).await?;
    let mut signals = Signals::listen()?;
    let (handle, mut events) = run_command(config);
    let mut run = Run {
        master,
        handle,
        output: Output::new(),
        framework_id: None,
        launched: None,
        last_lack: None,
        interrupts: 0,
        left: false,
    };
    let result = run.drive(&wanted, &mut events, &mut signals, out).await;
    if !run.left {
        // Whatever went wrong here, the task must not outlive it.
        run.handle.close().await;
    }
    result
}

/// An error of the SDK with all its causes.
pub(crate) fn failed(error: &(dyn std::error::Error + 'static)) -> CliError {
    let mut sentence = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        sentence.push_str(&format!(": {inner}"));
        cause = inner.source();
    }
    CliError::Failed(clean(&sentence))
}

/// At a point in time; never without one.
async fn at(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => std::future::pending().await,
    }
}

/// Tells of an event: as JSON, or what matters of it on stderr.
fn say(out: &mut Out, event: EventJson) -> Result<(), CliError> {
    if out.json {
        return Ok(out.json_line(&event)?);
    }
    if let EventJson::Waiting { reason } = event {
        eprintln!("ebb: {}", clean(&reason));
    }
    Ok(())
}

impl Run {
    /// Follows the task to its end; gives the code to exit with.
    async fn drive(
        &mut self,
        wanted: &Resources,
        events: &mut mpsc::Receiver<RunEvent>,
        signals: &mut Signals,
        out: &mut Out,
    ) -> Result<u8, CliError> {
        let mut explain_at = Some(Instant::now() + EXPLAIN_AFTER);
        loop {
            tokio::select! {
                event = events.recv() => match event {
                    Some(RunEvent::Ended { status }) => return self.end(&status, out, signals).await,
                    Some(RunEvent::Failed(error)) => return Err(failed(&*error)),
                    Some(event) => self.event(event, out)?,
                    None => return Err(CliError::Failed(
                        "the framework ended without a word; look at the master's log".to_owned(),
                    )),
                },
                piece = self.output.next() => self.output.put(piece, out)?,
                () = at(explain_at) => {
                    explain_at = None;
                    self.explain(wanted, out).await?;
                }
                () = signals.next() => if self.interrupted().await {
                    return Ok(ending::EXIT_INTERRUPTED);
                },
            }
        }
    }

    /// Says why nothing has been launched yet, if so.
    async fn explain(&mut self, wanted: &Resources, out: &mut Out) -> Result<(), CliError> {
        // A master that does not answer now is told of by the framework's own connection.
        if self.launched.is_none()
            && let Ok(state) = self.master.state().await
        {
            let reason = waiting::reason(&state, wanted, self.last_lack.as_deref());
            say(out, EventJson::Waiting { reason })?;
        }
        Ok(())
    }

    fn event(&mut self, event: RunEvent, out: &mut Out) -> Result<(), CliError> {
        match event {
            RunEvent::Subscribed { framework_id } => {
                let id = framework_id.to_string();
                self.framework_id = Some(framework_id);
                say(out, EventJson::Subscribed { framework_id: id })
            }
            RunEvent::Waiting { reason } => {
                self.last_lack = Some(reason);
                Ok(())
            }
            RunEvent::Launched {
                task_id,
                agent_id,
                hostname,
            } => {
                let event = EventJson::Launched {
                    task_id: task_id.to_string(),
                    agent_id: agent_id.to_string(),
                    hostname,
                };
                self.launched = Some((task_id, agent_id));
                say(out, event)
            }
            RunEvent::Status(status) => self.status(status, out),
            RunEvent::Disconnected { cause } => {
                if !out.json {
                    let cause = clean(&cause);
                    eprintln!(
                        "ebb: the master is away ({cause}); the task goes on, connecting anew"
                    );
                }
                Ok(())
            }
            RunEvent::Ended { .. } | RunEvent::Failed(_) => Ok(()),
        }
    }

    fn status(&mut self, status: TaskStatus, out: &mut Out) -> Result<(), CliError> {
        match status.state {
            TaskState::Running => self.begin_output(),
            TaskState::Unreachable if !out.json => {
                eprintln!("ebb: the task's agent cannot be reached; waiting for it to come back");
            }
            _ => {}
        }
        say(
            out,
            EventJson::Status {
                state: status.state.name(),
                reason: status.reason.map(ebb_types::Reason::name),
                message: status.message,
            },
        )
    }

    /// Reads what the task writes, from now on.
    fn begin_output(&mut self) {
        if let (Some(framework_id), Some((task_id, agent_id))) =
            (&self.framework_id, &self.launched)
            && !self.output.has_begun()
        {
            self.output
                .begin(&self.master, framework_id, task_id, agent_id);
        }
    }

    /// Ctrl-C: once ends the task, twice leaves it. Gives whether to leave.
    async fn interrupted(&mut self) -> bool {
        self.interrupts += 1;
        if self.interrupts > 1 {
            match &self.launched {
                Some((task, _)) => eprintln!("ebb: left the task; `ebb kill {task}` ends it"),
                None => eprintln!("ebb: left; nothing was launched"),
            }
            self.left = true;
            return true;
        }
        eprintln!("ebb: ending the task; press Ctrl-C again to leave it");
        self.handle.kill(None).await;
        false
    }

    /// Prints the rest of the output and gives the code to exit with.
    async fn end(
        &mut self,
        status: &TaskStatus,
        out: &mut Out,
        signals: &mut Signals,
    ) -> Result<u8, CliError> {
        if status.exit.is_some() {
            self.begin_output();
        }
        self.output.task_has_ended();
        loop {
            tokio::select! {
                piece = self.output.next_or_end() => match piece {
                    Some(piece) => self.output.put(Some(piece), out)?,
                    None => break,
                },
                () = signals.next() => {
                    self.interrupts += 1;
                    if self.interrupts > 1 {
                        break;
                    }
                }
            }
        }
        for missing in self.output.finish(out).await? {
            eprintln!("ebb: some of the task's output may be missing: {missing}");
        }
        let Ending { code, sentence } = ending::of(status, self.interrupts > 0);
        if out.json {
            out.json_line(&EventJson::Ended {
                state: status.state.name(),
                reason: status.reason.map(ebb_types::Reason::name),
                message: status.message.clone(),
                exit_code: code,
            })?;
        } else if let Some(sentence) = sentence {
            eprintln!("ebb: {sentence}");
        }
        Ok(code)
    }
}
