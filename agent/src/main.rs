//! The program `ebb-agent`.

use std::io::IsTerminal;
use std::process::ExitCode;

use anyhow::Context;
use clap::Parser;
use ebb_agent::{Config, Flags, Question, Ready};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;
use tracing_subscriber::EnvFilter;

/// Ebb's agent: runs tasks in containers on this machine, measures them, lends their slack.
#[derive(Debug, Parser)]
#[command(name = "ebb-agent", version, args_conflicts_with_subcommands = true)]
struct Arguments {
    #[command(subcommand)]
    question: Option<Question>,
    #[command(flatten)]
    flags: Flags,
    /// What is logged, like info or ebb_agent=debug; the variable EBB_LOG says the same
    #[arg(long, env = "EBB_LOG", default_value = "info", value_name = "FILTER")]
    log: String,
}

fn main() -> ExitCode {
    if let Some(code) = ebb_agent::dispatch_executor() {
        return code;
    }
    match start(Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("ebb-agent: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn start(arguments: Arguments) -> anyhow::Result<()> {
    if let Some(question) = &arguments.question {
        print!("{}", question.answer()?);
        return Ok(());
    }
    let filter = EnvFilter::try_new(&arguments.log).with_context(|| {
        format!(
            "--log {:?} is no filter; write info or ebb_agent=debug",
            arguments.log
        )
    })?;
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none())
        .init();
    let config = Config::load(&arguments.flags)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("cannot start the threads")?;
    runtime.block_on(serve(config))
}

async fn serve(config: Config) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("cannot await SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot await SIGINT")?;
    let shutdown = async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    };
    let (ready, is_ready) = oneshot::channel::<Ready>();
    let announce = async {
        if let Ok(ready) = is_ready.await {
            tracing::info!(address = %ready.address, work_dir = %ready.work_dir.display(), "the agent serves");
        }
    };
    let (outcome, ()) = tokio::join!(ebb_agent::run(config, shutdown, ready), announce);
    Ok(outcome?)
}
