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
use ebb_framework::{RunConfig, RunEvent, RunHandle, run_command};
use ebb_types::{AgentId, FrameworkId, Resources, TaskId, TaskState, TaskStatus};
use serde::Serialize;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use super::demand::{DemandArgs, base_name, command, name, word};
use crate::args::ClientArgs;
use crate::client::Master;
use crate::error::{CliError, EXIT_INTERRUPTED};
use crate::output::quantity::{parse_cpus, parse_duration_ms};
use crate::output::table::clean;
use crate::output::{Out, tell};
use crate::signals::Signals;

use ending::Ending;
use output::Output;

/// Without a fitting offer for so long, it is said once why.
const EXPLAIN_AFTER: Duration = Duration::from_secs(5);
/// Without a subscription for so long, it is given up, in milliseconds.
pub(crate) const GIVE_UP_AFTER_MS: u64 = 30_000;

const RUN_EXIT_CODES: &str = "Exit codes: the task's own; 128 and the signal's number when a signal \
ended it; 120 it was never started, 121 its agent is lost, 122 it was preempted or its agent is \
drained, 123 it was killed, 124 it ran into --timeout, 130 Ctrl-C; 1 ebb itself failed, 2 wrong command line.\n\
With --json every line on standard output is an object with the field \"event\": subscribed, \
waiting, launched, status, output, disconnected, ended.";

/// `ebb run`.
#[derive(Debug, Args)]
#[command(after_help = RUN_EXIT_CODES)]
pub(crate) struct RunArgs {
    #[command(flatten)]
    pub(crate) demand: DemandArgs,
    /// A hard ceiling on CPU; without it, idle CPU may be used beyond --cpus
    #[arg(long, value_name = "N", value_parser = parse_cpus)]
    pub(crate) cpu_limit: Option<u64>,
    /// Kill it when it runs longer
    #[arg(long, value_name = "TIME", value_parser = parse_duration_ms)]
    pub(crate) timeout: Option<u64>,
    /// Display name of the task
    #[arg(long, value_parser = name)]
    pub(crate) name: Option<String>,
    /// The program and its arguments
    #[arg(last = true, required = true, value_name = "CMD", value_parser = word)]
    pub(crate) command: Vec<String>,
    #[command(flatten)]
    pub(crate) client: ClientArgs,
}

fn config(args: &RunArgs) -> Result<RunConfig, CliError> {
    Ok(RunConfig {
        masters: vec![args.client.master.to_string()],
        name: args
            .name
            .clone()
            .unwrap_or_else(|| base_name(&args.command)),
        role: args.demand.role.clone(),
        user: String::new(),
        command: command(&args.command, &args.demand)?,
        demand: args.demand.demand()?,
        cpu_limit_milli: args.cpu_limit,
        max_completion_ms: args.timeout,
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
    Disconnected {
        cause: String,
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
    master_is_away: bool,
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
        master_is_away: false,
        left: false,
    };
    let result = run.drive(&wanted, &mut events, &mut signals, out).await;
    if !run.left {
        // Whatever went wrong here, the task must not outlive it.
        run.handle.close().await;
    }
    result
}

/// An error of another part of Ebb with all its causes.
pub(crate) fn failed(error: &(dyn std::error::Error + 'static)) -> CliError {
    CliError::Failed(sentence(error))
}

/// An error with all its causes, each told once.
pub(crate) fn sentence(error: &(dyn std::error::Error + 'static)) -> String {
    let mut sentence = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let inner_text = inner.to_string();
        // Some errors show their cause themselves.
        if !sentence.contains(&inner_text) {
            sentence.push_str(&format!(": {inner_text}"));
        }
        cause = inner.source();
    }
    clean(&sentence)
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
        tell(&clean(&reason));
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
                    return Ok(EXIT_INTERRUPTED);
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
                if std::mem::take(&mut self.master_is_away) && !out.json {
                    tell("the master is back");
                }
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
                // Every attempt that fails tells so; the first says it all.
                if std::mem::replace(&mut self.master_is_away, true) {
                    return Ok(());
                }
                if !out.json {
                    let goes_on = self.launched.as_ref().map_or("", |_| "; the task goes on");
                    let cause = clean(&cause);
                    tell(&format!(
                        "the master is away ({cause}); connecting anew{goes_on}"
                    ));
                    return Ok(());
                }
                say(out, EventJson::Disconnected { cause })
            }
            RunEvent::Ended { .. } | RunEvent::Failed(_) => Ok(()),
        }
    }

    fn status(&mut self, status: TaskStatus, out: &mut Out) -> Result<(), CliError> {
        match status.state {
            TaskState::Running => self.begin_output(),
            TaskState::Unreachable if !out.json => {
                tell("the task's agent cannot be reached; waiting for it to come back");
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
                Some((task, _)) => tell(&format!(
                    "left the task; it ends with its framework's failover timeout, or now by `ebb kill {task}`"
                )),
                None => tell("left; nothing was launched"),
            }
            self.left = true;
            return true;
        }
        tell("ending the task; press Ctrl-C again to leave it");
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
            tell(&format!(
                "some of the task's output may be missing: {missing}"
            ));
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
            tell(&sentence);
        }
        Ok(code)
    }
}
