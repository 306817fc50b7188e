//! A framework that runs a list of commands, so many at a time, each exactly as often as asked for.

mod config;
mod inputs;
mod report;

pub use config::{BatchCommand, BatchConfig, BatchError};
pub use inputs::{InputError, Template, parse_json_lines, parse_lines};
pub use report::{CommandEnd, Failure, Progress, Report};

/// Runs the commands and reports.
///
/// `progress` is called after every change with the counts so far; it should return at once.
///
/// # Errors
/// When the configuration is not valid, the state file cannot be used, or the master refuses the
/// framework. Commands that fail are no error: they stand in the report.
pub async fn run(
    _config: BatchConfig,
    _progress: impl FnMut(&Progress) + Send + 'static,
    _stop: tokio::sync::watch::Receiver<bool>,
) -> Result<Report, BatchError> {
    unimplemented!()
}
