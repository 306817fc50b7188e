//! `ebb master` and `ebb agent`: the daemons, with the flags of `ebb-master` and `ebb-agent`.

use std::io::{self, IsTerminal};

use super::dev::log_filter;
use super::run::{failed, sentence};
use crate::args::AgentArgs;
use crate::error::{CliError, EXIT_OK};
use crate::output::Out;
use crate::signals::Signals;

fn log_to_stderr() -> Result<(), CliError> {
    tracing_subscriber::fmt()
        .with_env_filter(log_filter()?)
        .with_ansi(io::stderr().is_terminal())
        .with_writer(io::stderr)
        .init();
    Ok(())
}

/// Settings that cannot be used are a wrong command line, be it by way of the file that it names.
fn wrong(error: &(dyn std::error::Error + 'static)) -> CliError {
    CliError::Usage(sentence(error))
}

/// Runs a master until it is told to end.
pub(crate) async fn master(args: &ebb_master::MasterArgs) -> Result<u8, CliError> {
    let config = ebb_master::Config::load(args).map_err(|error| wrong(&error))?;
    log_to_stderr()?;
    let mut signals = Signals::listen()?;
    let shutdown = async move { signals.next().await };
    let ended = ebb_master::run(config, |_| {}, shutdown).await;
    ended.map_err(|error| failed(&error))?;
    Ok(EXIT_OK)
}

/// Runs an agent until it is told to end, or answers what can be asked without one. Without --master, `EBB_MASTER` names the master.
pub(crate) async fn agent(args: AgentArgs, out: &mut Out) -> Result<u8, CliError> {
    let AgentArgs {
        question,
        mut flags,
    } = args;
    if let Some(question) = question {
        let answer = tokio::task::spawn_blocking(move || question.answer()).await;
        let answer = answer.map_err(|error| failed(&error))?;
        out.raw(answer.map_err(|error| failed(&error))?.as_bytes())?;
        return Ok(EXIT_OK);
    }
    let named = std::env::var("EBB_MASTER")
        .ok()
        .filter(|value| !value.is_empty());
    if flags.config.is_none() {
        flags.master = flags.master.or(named);
    }
    let config = ebb_agent::Config::load(&flags).map_err(|error| wrong(&error))?;
    log_to_stderr()?;
    let mut signals = Signals::listen()?;
    let shutdown = async move { signals.next().await };
    let (ready, is_ready) = tokio::sync::oneshot::channel::<ebb_agent::Ready>();
    let announce = async {
        if let Ok(ready) = is_ready.await {
            tracing::info!(address = %ready.address, work_dir = %ready.work_dir.display(), "the agent serves");
        }
    };
    let (ended, ()) = tokio::join!(ebb_agent::run(config, shutdown, ready), announce);
    ended.map_err(|error| failed(&error))?;
    Ok(EXIT_OK)
}
