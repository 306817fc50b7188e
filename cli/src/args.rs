//! The command line of `ebb`.
//!
//! Everything that can be checked without a master is checked here, so that a wrong command line
//! ends with exit code 2 before anything is done.

use clap::error::ContextValue;
use clap::{Args, Parser, Subcommand};
use clap_complete::Shell;
use ebb_types::Role;
use ebb_types::limits::MAX_GRACE_MS;

use crate::client::Address;
use crate::commands::advise::class;
use crate::commands::batch::BatchArgs;
use crate::commands::dev::DevArgs;
use crate::commands::lots::{CreateVolumeArgs, DestroyVolumeArgs, ReserveArgs, UnreserveArgs};
use crate::commands::maintenance::MaintenanceArgs;
use crate::commands::quota::QuotaArgs;
use crate::commands::run::RunArgs;
use crate::commands::service::ServiceArgs;
use crate::output::quantity::{duration_ms, parse_duration_ms, parse_weight, shown};

const EXIT_CODES: &str = "Exit codes: 0 done, 1 failed, 2 wrong command line. \
`ebb run` exits with the status of its task; see `ebb run --help`.\n\
Ids may be shortened to any unique prefix; FRAMEWORK/TASK names a task of one framework.\n\
NO_COLOR turns colour off.";

/// Ebb: a cluster that lends what lies idle and takes it back in time.
#[derive(Debug, Parser)]
#[command(name = "ebb", version, after_help = EXIT_CODES, propagate_version = false)]
pub(crate) struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run a master and an agent on this machine, until Ctrl-C
    Dev(DevArgs),
    /// Run a master
    Master(Box<ebb_master::MasterArgs>),
    /// Run an agent, or show what one can measure here
    Agent(Box<AgentArgs>),
    /// Run a command as a task: stream its output, exit with its status
    Run(Box<RunArgs>),
    /// Run a list of commands, so many at a time
    Batch(Box<BatchArgs>),
    /// Keep a number of instances of a command running
    Service(Box<ServiceArgs>),
    /// Show the cluster, or any one thing by its id
    Status(StatusArgs),
    /// List the agents
    Agents(ClientArgs),
    /// List the frameworks
    Frameworks(ClientArgs),
    /// List the tasks
    Tasks(TasksArgs),
    /// List the tasks that their neighbours disturb, and by whom
    Neighbours(ClientArgs),
    /// Say what classes of tasks ask for, what they use, and what they should ask for
    Advise(AdviseArgs),
    /// List the outstanding offers
    Offers(ClientArgs),
    /// List the roles with their weights and quotas
    Roles(ClientArgs),
    /// Watch what is allocated, used, lent and taken back
    Top(TopArgs),
    /// Print what a task wrote
    Logs(LogsArgs),
    /// End a task
    Kill(KillArgs),
    /// Set the weight of a role
    Weight(WeightArgs),
    /// Show or set what a role is guaranteed and limited to
    Quota(QuotaArgs),
    /// End a framework and all its tasks
    Teardown(TeardownArgs),
    /// Print completions for a shell
    Completions(CompletionsArgs),
    /// Say why a framework, or those of a role, get no offer now, or why an agent took something back from a task
    Explain(ExplainArgs),
    /// Offer nothing of an agent any more; its tasks run on
    Deactivate(OneAgentArgs),
    /// Offer an agent again that is deactivated or drained
    Reactivate(OneAgentArgs),
    /// Offer nothing of an agent any more and end all its tasks
    Drain(DrainArgs),
    /// Plan when machines are out of use, and take them out of it and back
    Maintenance(MaintenanceArgs),
    /// Reserve for a role what an agent has free
    Reserve(Box<ReserveArgs>),
    /// End reservations of what an agent has free
    Unreserve(Box<UnreserveArgs>),
    /// Make a volume of disk space that is reserved
    CreateVolume(Box<CreateVolumeArgs>),
    /// Destroy a volume and what was written to it
    DestroyVolume(DestroyVolumeArgs),
}

/// `ebb agent`.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct AgentArgs {
    #[command(subcommand)]
    pub(crate) question: Option<ebb_agent::Question>,
    #[command(flatten)]
    pub(crate) flags: ebb_agent::Flags,
}

/// Which master, and how the answer is to look.
#[derive(Clone, Debug, Args)]
pub(crate) struct ClientArgs {
    /// The master's address
    #[arg(
        long,
        value_name = "HOST:PORT",
        env = "EBB_MASTER",
        default_value = "127.0.0.1:5050"
    )]
    pub(crate) master: Address,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// `ebb status`.
#[derive(Debug, Args)]
pub(crate) struct StatusArgs {
    /// An agent, framework, task, offer or role; without it, the whole cluster
    pub(crate) id: Option<String>,
    #[command(flatten)]
    pub(crate) client: ClientArgs,
}

/// `ebb tasks`.
#[derive(Debug, Args)]
pub(crate) struct TasksArgs {
    /// Show ended tasks too
    #[arg(long, short)]
    pub(crate) all: bool,
    #[command(flatten)]
    pub(crate) client: ClientArgs,
}

/// `ebb advise`.
#[derive(Debug, Args)]
pub(crate) struct AdviseArgs {
    /// Only classes of this framework, by its id
    #[arg(long, value_name = "FRAMEWORK")]
    pub(crate) framework: Option<String>,
    /// Only this class: what the ids of tasks have in common, as web of web.1 and web.2
    #[arg(long, value_name = "CLASS", value_parser = class)]
    pub(crate) class: Option<String>,
    #[command(flatten)]
    pub(crate) client: ClientArgs,
}

/// `ebb top`.
#[derive(Debug, Args)]
pub(crate) struct TopArgs {
    /// Print once and exit
    #[arg(long)]
    pub(crate) once: bool,
    /// Time between two refreshes
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = interval_ms)]
    pub(crate) interval: u64,
    #[command(flatten)]
    pub(crate) client: ClientArgs,
}

/// `ebb logs`.
#[derive(Debug, Args)]
pub(crate) struct LogsArgs {
    /// The task, by its id
    pub(crate) task: String,
    /// Go on until the task has ended
    #[arg(long, short)]
    pub(crate) follow: bool,
    /// Print the standard error output instead
    #[arg(long)]
    pub(crate) stderr: bool,
    /// Begin with the last N lines
    #[arg(long, value_name = "N")]
    pub(crate) tail: Option<u32>,
    #[command(flatten)]
    pub(crate) client: ClientArgs,
}

/// `ebb kill`.
#[derive(Debug, Args)]
pub(crate) struct KillArgs {
    /// The task, by its id
    pub(crate) task: String,
    /// Time between the polite and the forced kill
    #[arg(long, value_name = "TIME", value_parser = grace_ms)]
    pub(crate) grace: Option<u64>,
    #[command(flatten)]
    pub(crate) client: ClientArgs,
}

/// `ebb weight`.
#[derive(Debug, Args)]
pub(crate) struct WeightArgs {
    /// The role
    #[arg(value_parser = role)]
    pub(crate) role: Role,
    /// Its weight: a role of weight 2 gets twice the share of one of weight 1
    #[arg(value_name = "N", value_parser = parse_weight)]
    pub(crate) weight: u64,
    #[command(flatten)]
    pub(crate) client: ClientArgs,
}

/// `ebb teardown`.
#[derive(Debug, Args)]
pub(crate) struct TeardownArgs {
    /// The framework, by its id
    pub(crate) framework: String,
    #[command(flatten)]
    pub(crate) client: ClientArgs,
}

/// `ebb explain`.
#[derive(Debug, Args)]
pub(crate) struct ExplainArgs {
    /// The framework, agent or task, by its id, or the role
    #[arg(value_name = "FRAMEWORK|ROLE|AGENT|TASK")]
    pub(crate) subject: String,
    #[command(flatten)]
    pub(crate) client: ClientArgs,
}

/// `ebb deactivate` and `ebb reactivate`.
#[derive(Debug, Args)]
pub(crate) struct OneAgentArgs {
    /// The agent, by its id
    pub(crate) agent: String,
    #[command(flatten)]
    pub(crate) client: ClientArgs,
}

/// `ebb drain`.
#[derive(Debug, Args)]
pub(crate) struct DrainArgs {
    #[command(flatten)]
    pub(crate) which: OneAgentArgs,
    /// The longest time between the polite and the forced kill; without it, each task has its own
    #[arg(long, value_name = "TIME", value_parser = grace_ms)]
    pub(crate) grace: Option<u64>,
}

/// `ebb completions`.
#[derive(Debug, Args)]
pub(crate) struct CompletionsArgs {
    /// The shell
    pub(crate) shell: Shell,
}

impl Cli {
    /// Whether the answer, and so an error too, is to be JSON.
    pub(crate) fn wants_json(&self) -> bool {
        match &self.command {
            Command::Dev(args) => args.json,
            Command::Run(args) => args.client.json,
            Command::Batch(args) => args.client.json,
            Command::Service(args) => args.client.json,
            Command::Status(args) => args.client.json,
            Command::Agents(args)
            | Command::Frameworks(args)
            | Command::Neighbours(args)
            | Command::Offers(args)
            | Command::Roles(args) => args.json,
            Command::Tasks(args) => args.client.json,
            Command::Advise(args) => args.client.json,
            Command::Top(args) => args.client.json,
            Command::Logs(args) => args.client.json,
            Command::Kill(args) => args.client.json,
            Command::Weight(args) => args.client.json,
            Command::Quota(args) => args.client.json,
            Command::Teardown(args) => args.client.json,
            Command::Agent(args) => {
                matches!(
                    args.question,
                    Some(ebb_agent::Question::Probe { json: true })
                )
            }
            Command::Master(_) | Command::Completions(_) => false,
            Command::Explain(args) => args.client.json,
            Command::Deactivate(args) | Command::Reactivate(args) => args.client.json,
            Command::Drain(args) => args.which.client.json,
            Command::Maintenance(args) => args.wants_json(),
            Command::Reserve(args) => args.client.json,
            Command::Unreserve(args) => args.client.json,
            Command::CreateVolume(args) => args.client.json,
            Command::DestroyVolume(args) => args.client.json,
        }
    }
}

/// The same error with long texts of the command line cut, so that what is wrong can still be seen.
pub(crate) fn shortened(mut error: clap::Error) -> clap::Error {
    let long: Vec<_> = error
        .context()
        .filter_map(|(kind, value)| match value {
            ContextValue::String(text) => Some((kind, shown(text))),
            _ => None,
        })
        .collect();
    for (kind, text) in long {
        error.insert(kind, ContextValue::String(text));
    }
    error
}

/// Reads a role.
pub(crate) fn role(text: &str) -> Result<Role, String> {
    Role::new(text).map_err(|error| error.to_string())
}

/// Reads a grace period.
pub(crate) fn grace_ms(text: &str) -> Result<u64, String> {
    let ms = parse_duration_ms(text).map_err(|error| error.to_string())?;
    if ms > MAX_GRACE_MS {
        return Err(format!(
            "a grace period is at most {}; give less",
            duration_ms(MAX_GRACE_MS)
        ));
    }
    Ok(ms)
}

fn interval_ms(text: &str) -> Result<u64, String> {
    /// So that watching does not become the load that is watched.
    const MIN_INTERVAL_MS: u64 = 100;
    const MAX_INTERVAL_MS: u64 = 3_600_000;
    let ms = parse_duration_ms(text).map_err(|error| error.to_string())?;
    if !(MIN_INTERVAL_MS..=MAX_INTERVAL_MS).contains(&ms) {
        return Err("the interval must be between 100ms and 1h".to_owned());
    }
    Ok(ms)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;
    use clap::error::ErrorKind;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn wrong_command_lines_are_refused_with_exit_code_2() {
        let huge = "x".repeat(65_536);
        for (line, kind) in [
            (
                vec!["ebb", "tasks", "--frobnicate"],
                ErrorKind::UnknownArgument,
            ),
            (vec!["ebb", "dance"], ErrorKind::InvalidSubcommand),
            (
                vec!["ebb", "top", "--interval", "1"],
                ErrorKind::ValueValidation,
            ),
            (
                vec!["ebb", "top", "--interval", "1ms"],
                ErrorKind::ValueValidation,
            ),
            (
                vec!["ebb", "kill", "t", "--grace", "3"],
                ErrorKind::ValueValidation,
            ),
            (
                vec!["ebb", "kill", "t", "--grace", "2d"],
                ErrorKind::ValueValidation,
            ),
            (
                vec!["ebb", "drain", "a", "--grace", "2d"],
                ErrorKind::ValueValidation,
            ),
            (
                vec!["ebb", "maintenance", "schedule", "h"],
                ErrorKind::MissingRequiredArgument,
            ),
            (
                vec!["ebb", "maintenance", "schedule", "--in", "0", "h"],
                ErrorKind::ValueValidation,
            ),
            (
                vec!["ebb", "maintenance", "start"],
                ErrorKind::MissingRequiredArgument,
            ),
            (
                vec!["ebb", "deactivate"],
                ErrorKind::MissingRequiredArgument,
            ),
            (
                vec!["ebb", "weight", "a//b", "1"],
                ErrorKind::ValueValidation,
            ),
            (vec!["ebb", "weight", "a", "0"], ErrorKind::ValueValidation),
            (
                vec!["ebb", "weight", &huge, "1"],
                ErrorKind::ValueValidation,
            ),
            (
                vec!["ebb", "tasks", "--master", "nowhere"],
                ErrorKind::ValueValidation,
            ),
            (
                vec!["ebb", "run", "--mem", "64", "--", "true"],
                ErrorKind::ValueValidation,
            ),
            (
                vec!["ebb", "run", "--mem", "64miles", "--", "true"],
                ErrorKind::ValueValidation,
            ),
            (
                vec!["ebb", "run", "--cpus", "-1", "--", "true"],
                ErrorKind::ValueValidation,
            ),
            (
                vec!["ebb", "run", "--cpus", "many", "--", "true"],
                ErrorKind::ValueValidation,
            ),
            (
                vec!["ebb", "run", "--env", "novalue", "--", "true"],
                ErrorKind::ValueValidation,
            ),
            (
                vec!["ebb", "run", "--env", "=x", "--", "true"],
                ErrorKind::ValueValidation,
            ),
            (vec!["ebb", "run"], ErrorKind::MissingRequiredArgument),
            (
                vec!["ebb", "run", "--name", &huge, "--", "true"],
                ErrorKind::ValueValidation,
            ),
        ] {
            let error = Cli::try_parse_from(&line).expect_err(line[1]);
            assert_eq!(error.kind(), kind, "{line:.60?}: {error:.300}");
            assert_eq!(error.exit_code(), 2);
        }
    }

    #[test]
    fn an_error_never_repeats_a_long_text_whole() {
        let huge = "x".repeat(65_536);
        for line in [
            vec!["ebb", "weight", &huge, "1"],
            vec!["ebb", "tasks", "--master", &huge],
            vec!["ebb", &huge],
        ] {
            let error = Cli::try_parse_from(&line).expect_err("a wrong line");
            let said = shortened(error).to_string();
            assert!(said.len() < 2_000, "{said:.200}");
            assert!(said.contains("xxx"), "{said}");
        }
    }

    #[test]
    fn what_follows_the_command_of_run_belongs_to_it() {
        let line = [
            "ebb",
            "run",
            "--cpus",
            "0.5",
            "--",
            "sh",
            "-c",
            "echo --json; exit 3",
        ];
        let Command::Run(args) = Cli::try_parse_from(line).expect("a good line").command else {
            panic!("not run");
        };
        assert_eq!(args.command, ["sh", "-c", "echo --json; exit 3"]);
        assert!(!args.client.json);
    }
}
