//! A framework that runs a list of commands, so many at a time, each exactly as often as asked for.
//!
//! Without retries the effect of each command stands at most once, through restarts of the master and
//! of agents; a task out of reach is waited for. With a state file the same holds when the batch
//! itself is killed and started again.

mod config;
mod core;
mod inputs;
mod journal;
mod ledger;
mod report;
#[cfg(test)]
mod tests;

pub use config::{BatchCommand, BatchConfig, BatchError};
pub use inputs::{InputError, Template, parse_json_lines, parse_lines};
pub use report::{CommandEnd, Failure, Progress, Report};

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use tokio::sync::watch;
use tokio::time::Instant;

use self::config::{FAILOVER_MS, FAILOVER_WITH_STATE_MS};
use self::core::Batch;
use self::journal::{FileJournal, Journal, NoJournal, Record};
use crate::command::stamp;
use crate::offers::Claim;
use crate::scheduler::{Clock, Driver, DriverError, SchedulerConfig};

/// Runs the commands and reports.
///
/// `progress` is called after every change with the counts so far; it should return at once. When
/// `stop` becomes true, every task is killed and the batch ends.
///
/// # Errors
/// When the configuration is not valid, the state file cannot be used, or the master refuses the
/// framework. Commands that fail are no error: they stand in the report.
pub async fn run(
    config: BatchConfig,
    progress: impl FnMut(&Progress) + Send + 'static,
    mut stop: watch::Receiver<bool>,
) -> Result<Report, BatchError> {
    config.check()?;
    let start = Instant::now();
    let wall_ms = move || u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX);
    let scheduler = scheduler_config(&config);
    let stopped = Arc::new(AtomicBool::new(*stop.borrow()));
    let mut batch = prepare(config, Box::new(progress), Arc::clone(&stopped))?;
    while !batch.is_closed() {
        let resuming = scheduler.clone().resuming(batch.framework_id().cloned());
        let (mut ended, result) = drive(Driver::new(batch, resuming), &mut stop, &stopped).await;
        match result {
            Err(DriverError::Refused { message }) if ended.is_left_behind() => {
                tracing::warn!(%message, "the batch's earlier framework is gone with its tasks; it goes on with a new one");
                ended.give_up_framework(Clock::start().now(), &message)?;
                batch = ended;
            }
            Err(error) => return Err(error.into()),
            Ok(()) => {
                ended.close();
                return Ok(ended.report(wall_ms()));
            }
        }
    }
    Ok(batch.report(wall_ms()))
}

/// Runs the driver to its end, and hands on that the batch is to stop.
async fn drive(
    driver: Driver<Batch>,
    stop: &mut watch::Receiver<bool>,
    stopped: &AtomicBool,
) -> (Batch, Result<(), DriverError>) {
    let handle = driver.handle();
    handle.wake();
    let mut running = Box::pin(driver.run_to_end());
    let mut watching = true;
    loop {
        tokio::select! {
            ended = &mut running => return ended,
            changed = stop.changed(), if watching => {
                watching = changed.is_ok();
                if *stop.borrow() {
                    stopped.store(true, Ordering::Release);
                    handle.wake();
                }
            }
        }
    }
}

fn scheduler_config(config: &BatchConfig) -> SchedulerConfig {
    let mut scheduler = SchedulerConfig::new(config.masters.clone(), &config.name);
    scheduler.info.roles = vec![config.role.clone()];
    scheduler.info.user.clone_from(&config.user);
    scheduler.info.failover_timeout_ms = if config.state.is_some() {
        FAILOVER_WITH_STATE_MS
    } else {
        FAILOVER_MS
    };
    scheduler.timing.give_up_after_ms = config.give_up_after_ms;
    if config.demand.claim == Claim::Regular {
        scheduler
    } else {
        scheduler.revocable()
    }
}

/// Opens the state file, if there is one, and takes over what it holds.
fn prepare(
    config: BatchConfig,
    progress: Box<dyn FnMut(&Progress) + Send>,
    stop: Arc<AtomicBool>,
) -> Result<Batch, BatchError> {
    let wall = SystemTime::now().duration_since(UNIX_EPOCH);
    let tag = stamp(wall.map_or(0, |wall| u64::try_from(wall.as_millis()).unwrap_or(0)));
    let Some(path) = config.state.clone() else {
        return Ok(Batch::new(
            config,
            &tag,
            Box::new(NoJournal),
            progress,
            stop,
        ));
    };
    let bad = |problem| BatchError::Journal {
        path: path.clone(),
        line: 1,
        problem,
    };
    let (mut journal, records) = FileJournal::open(&path)?;
    let found = journal::check_header(&records, &config.commands).map_err(bad)?;
    let tag = match found {
        Some(tag) => tag,
        None => {
            journal.append(&[journal::header(&config.commands, &tag)])?;
            tag
        }
    };
    let mut batch = Batch::new(config, &tag, Box::new(journal), progress, stop);
    batch.replay(&records).map_err(bad)?;
    if !matches!(records.last(), None | Some(Record::Batch { .. })) {
        tracing::info!(path = %path.display(), records = records.len(), "the batch goes on where it was");
    }
    Ok(batch)
}
