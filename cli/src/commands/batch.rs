//! `ebb batch`: a list of commands, or one line filled with a list of inputs, so many at a time.
//!
//! The counts go to standard error while it runs, the report to standard output at the end. Ctrl-C
//! ends every task; a second one leaves them to a later start with the same `--state`.

use std::io::{self, IsTerminal, Read, Write};
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use ebb_framework::batch::{
    BatchCommand, BatchConfig, Failure, Progress, Report, Template, parse_json_lines, parse_lines,
    run,
};
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior};

use super::demand::{DemandArgs, name, word};
use super::run::{GIVE_UP_AFTER_MS, failed};
use crate::args::ClientArgs;
use crate::client::Master;
use crate::error::{CliError, EXIT_ERROR, EXIT_INTERRUPTED, EXIT_OK};
use crate::output::quantity::{duration_ms, parse_duration_ms};
use crate::output::table::{Cell, Style, Table, clean};
use crate::output::{Out, tell};
use crate::signals::Signals;

/// The largest list of commands or inputs, in bytes.
const MAX_LIST_BYTES: u64 = 256 * 1024 * 1024;
/// How many failures are listed for people; JSON has all.
const MAX_FAILURES_SHOWN: usize = 20;
/// Time between two lines of counts on a terminal.
const TERMINAL_PERIOD: Duration = Duration::from_millis(200);
/// Time between two lines of counts elsewhere.
const LOG_PERIOD: Duration = Duration::from_secs(5);

/// `ebb batch`.
#[derive(Debug, Args)]
pub(crate) struct BatchArgs {
    /// The commands, one a line for the shell (with --template, the inputs); - is standard input
    #[arg(value_name = "FILE", default_value = "-")]
    pub(crate) list: PathBuf,
    /// One line for the shell for each input: {} is the input, {name} a field of a JSON input
    #[arg(long, value_name = "LINE", value_parser = word, conflicts_with = "json_lines")]
    pub(crate) template: Option<String>,
    /// The commands are JSON objects, one a line, with "command" or "argv", "name", "env", "user"
    #[arg(long)]
    pub(crate) json_lines: bool,
    /// How many run at a time
    #[arg(long, short = 'n', value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) at_most: u32,
    /// How often a command that failed is run again
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) retries: u32,
    /// How often a command that was preempted is run again
    #[arg(long, value_name = "N", default_value_t = 1000)]
    pub(crate) preemptions: u32,
    /// Kill a command that runs longer
    #[arg(long, value_name = "TIME", value_parser = parse_duration_ms)]
    pub(crate) timeout: Option<u64>,
    /// How long a command is expected to run: with --revocable, take only what can be expected to stay lent so long
    #[arg(long, value_name = "TIME", value_parser = parse_duration_ms)]
    pub(crate) duration: Option<u64>,
    /// Remember in this file what was done, so that a batch that was killed goes on
    #[arg(long, value_name = "FILE")]
    pub(crate) state: Option<PathBuf>,
    /// Display name of the framework
    #[arg(long, default_value = "batch", value_parser = name)]
    pub(crate) name: String,
    #[command(flatten)]
    pub(crate) demand: DemandArgs,
    #[command(flatten)]
    pub(crate) client: ClientArgs,
}

pub(crate) async fn perform(args: BatchArgs, out: &mut Out) -> Result<u8, CliError> {
    let config = config(&args)?;
    Master::connect(&args.client.master).await?;
    let mut signals = Signals::listen()?;
    let (progress, mut counts) = watch::channel(Progress::default());
    let (stop, stopping) = watch::channel(false);
    let batch = run(
        config,
        move |now| {
            progress.send_replace(*now);
        },
        stopping,
    );
    let mut batch = Box::pin(batch);
    let mut line = CountLine::new(out.json);
    let mut ticks = tokio::time::interval_at(Instant::now() + line.period(), line.period());
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let report = loop {
        tokio::select! {
            report = &mut batch => break report,
            _ = ticks.tick() => if counts.has_changed().unwrap_or(false) {
                line.show(&counts.borrow_and_update());
            },
            () = signals.next() => {
                if *stop.borrow() {
                    line.end();
                    tell(&format!("left; {}", leftovers(&args)));
                    return Ok(EXIT_INTERRUPTED);
                }
                line.end();
                tell("ending every task; press Ctrl-C again to leave them");
                stop.send_replace(true);
            }
        }
    };
    line.end();
    let report = report.map_err(|error| failed(&error))?;
    show(&report, out)?;
    Ok(match (report.is_success(), report.stopped) {
        (true, _) => EXIT_OK,
        (false, true) => EXIT_INTERRUPTED,
        (false, false) => EXIT_ERROR,
    })
}

fn leftovers(args: &BatchArgs) -> String {
    match &args.state {
        Some(path) => format!(
            "the same command goes on where it was, by the state file {}",
            path.display()
        ),
        None => {
            "its tasks end with the framework's failover timeout; see `ebb frameworks`".to_owned()
        }
    }
}

fn config(args: &BatchArgs) -> Result<BatchConfig, CliError> {
    let demand = args.demand.demand()?;
    let mut commands = commands(args)?;
    for one in &mut commands {
        // Of two variables of one name the later wins: a command's own goes last.
        let mut environment = args.demand.env.clone();
        environment.append(&mut one.command.environment);
        one.command.environment = environment;
        one.command.warn_signal = args.demand.warn_signal;
    }
    Ok(BatchConfig {
        masters: vec![args.client.master.to_string()],
        name: args.name.clone(),
        role: args.demand.role.clone(),
        user: args.demand.user.clone().unwrap_or_default(),
        commands,
        at_most: usize::try_from(args.at_most).unwrap_or(usize::MAX),
        demand,
        retries: args.retries,
        preemptions: args.preemptions,
        max_completion_ms: args.timeout,
        expected_run_ms: args.duration,
        kill_grace_ms: args.demand.grace,
        state: args.state.clone(),
        give_up_after_ms: Some(GIVE_UP_AFTER_MS),
    })
}

fn commands(args: &BatchArgs) -> Result<Vec<BatchCommand>, CliError> {
    let list = clean(&args.list.display().to_string());
    let text = read(args).map_err(|error| {
        CliError::Usage(format!(
            "cannot read the list {list}: {error}; name a file of text, or - for standard input"
        ))
    })?;
    let commands = match &args.template {
        Some(line) => Template::new(line).and_then(|template| template.fill(&text)),
        None if args.json_lines => parse_json_lines(&text),
        None => parse_lines(&text),
    };
    let commands = commands
        .map_err(|error| CliError::Usage(format!("{list}: {}", clean(&error.to_string()))))?;
    if commands.is_empty() {
        return Err(CliError::Usage(format!(
            "{list} holds nothing to run; give one command or input a line"
        )));
    }
    Ok(commands)
}

fn read(args: &BatchArgs) -> io::Result<String> {
    let source: Box<dyn Read> = if args.list.as_os_str() == "-" {
        Box::new(io::stdin().lock())
    } else {
        Box::new(std::fs::File::open(&args.list)?)
    };
    let mut text = String::new();
    let read = source.take(MAX_LIST_BYTES + 1).read_to_string(&mut text)?;
    if read as u64 > MAX_LIST_BYTES {
        return Err(io::Error::other(format!(
            "it is longer than {MAX_LIST_BYTES} bytes"
        )));
    }
    Ok(text)
}

/// The counts on standard error: one line drawn over itself on a terminal, a line now and then elsewhere.
struct CountLine {
    is_terminal: bool,
    json: bool,
    open: bool,
}

impl CountLine {
    fn new(json: bool) -> Self {
        Self {
            is_terminal: io::stderr().is_terminal() && !json,
            json,
            open: false,
        }
    }

    const fn period(&self) -> Duration {
        if self.is_terminal {
            TERMINAL_PERIOD
        } else {
            LOG_PERIOD
        }
    }

    fn show(&mut self, counts: &Progress) {
        let mut stderr = io::stderr().lock();
        // The counts are a courtesy: the batch goes on when nobody can see them.
        let _ = match (self.json, self.is_terminal) {
            (true, _) => serde_json::to_writer(&mut stderr, counts)
                .map_err(io::Error::from)
                .and_then(|()| writeln!(stderr)),
            (false, true) => write!(stderr, "\r{}\x1b[K", sentence(counts)),
            (false, false) => writeln!(stderr, "{}", sentence(counts)),
        };
        let _ = stderr.flush();
        self.open = self.is_terminal;
    }

    fn end(&mut self) {
        if std::mem::take(&mut self.open) {
            // As with the counts: nobody may be there.
            let _ = writeln!(io::stderr());
        }
    }
}

/// The counts in one line.
fn sentence(counts: &Progress) -> String {
    let mut line = format!(
        "{} of {} done, {} running, {} waiting",
        counts.finished + counts.failed,
        counts.commands,
        counts.running,
        counts.waiting
    );
    for (count, what) in [
        (counts.failed, "failed"),
        (counts.unreachable, "out of reach"),
        (counts.retries, "retries"),
        (counts.preemptions, "preemptions"),
    ] {
        if count > 0 {
            line.push_str(&format!(", {count} {what}"));
        }
    }
    if !counts.connected {
        line.push_str(" (the master is away)");
    }
    line
}

fn show(report: &Report, out: &mut Out) -> Result<(), CliError> {
    if out.json {
        return Ok(out.json(report)?);
    }
    let counts = &report.counts;
    out.line(&format!(
        "{} of {} commands finished, {} failed, in {}; {} launches, {} retries, {} preemptions",
        counts.finished,
        counts.commands,
        counts.failed,
        duration_ms(report.wall_ms),
        counts.launches,
        counts.retries,
        counts.preemptions
    ))?;
    if report.failures.is_empty() {
        return Ok(());
    }
    let mut table = Table::new(&["NUMBER", "NAME", "END", "EXIT", "TASK", "MESSAGE"]);
    for failure in report.failures.iter().take(MAX_FAILURES_SHOWN) {
        table.row(failure_row(failure));
    }
    out.line("")?;
    out.table(&table, "")?;
    let hidden = report.failures.len().saturating_sub(MAX_FAILURES_SHOWN);
    if hidden > 0 {
        out.line(&format!("… and {hidden} more; --json lists all"))?;
    }
    Ok(())
}

fn failure_row(failure: &Failure) -> Vec<Cell> {
    let exit = match (failure.exit_code, failure.exit_signal) {
        (Some(code), _) => Some(code.to_string()),
        (None, Some(signal)) => Some(format!("signal {signal}")),
        (None, None) => None,
    };
    let end = format!("{:?}", failure.end).to_lowercase();
    vec![
        Cell::right(failure.number.to_string()),
        failure.name.as_str().into(),
        Cell::new(end).styled(Style::Bad),
        Cell::figure(exit),
        failure.task_id.as_deref().unwrap_or("-").into(),
        failure.message.as_str().into(),
    ]
}
