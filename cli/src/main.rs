//! `ebb`: the command line of Ebb.

mod args;
mod client;
mod commands;
mod error;
mod find;
mod output;
mod resolve;
mod sandbox;
mod signals;
mod top;

use std::io::Write;
use std::process::ExitCode;

use clap::Parser;

use args::Cli;
use error::{CliError, EXIT_OK};
use output::json::ErrorJson;
use output::{Out, tell};

fn main() -> ExitCode {
    // Each task is kept by this same program: before any thread is started.
    if let Some(code) = ebb_agent::dispatch_executor() {
        return code;
    }
    let cli = Cli::try_parse().unwrap_or_else(|error| args::shortened(error).exit());
    let json = cli.wants_json();
    match start(cli) {
        Ok(code) => ExitCode::from(code),
        Err(error) if error.is_closed_pipe() => ExitCode::from(EXIT_OK),
        Err(error) => {
            report(&error, json);
            ExitCode::from(error.exit_code())
        }
    }
}

fn start(cli: Cli) -> Result<u8, CliError> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| {
            CliError::Failed(format!(
                "cannot start threads: {error}; see whether this user may have more processes"
            ))
        })?;
    let mut out = Out::new(cli.wants_json());
    runtime.block_on(commands::perform(cli, &mut out))
}

fn report(error: &CliError, json: bool) {
    let report = ErrorJson {
        error: error.to_string(),
        exit_code: error.exit_code(),
    };
    match serde_json::to_string(&report) {
        // When nobody reads the reason, the exit code still tells.
        Ok(line) if json => drop(writeln!(std::io::stderr(), "{line}")),
        _ => tell(&report.error),
    }
}
