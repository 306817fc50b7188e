//! `ebb service`: keeps a number of instances of one command running.
//!
//! It runs until Ctrl-C, which ends every instance, or, with `--keep`, leaves them to the next start
//! with the same `--state`. A start with another command or number changes what runs, instance by
//! instance. With `--json`, every change is one line of JSON, the report the last.

use std::path::PathBuf;

use clap::Args;
use ebb_framework::service::{ServiceConfig, ServiceSpec, ServiceStatus, start};

use super::demand::{DemandArgs, base_name, command, name, word};
use super::run::{GIVE_UP_AFTER_MS, failed};
use crate::args::ClientArgs;
use crate::client::Master;
use crate::error::{CliError, EXIT_INTERRUPTED, EXIT_OK};
use crate::output::quantity::parse_cpus;
use crate::output::table::clean;
use crate::output::{Out, tell};
use crate::signals::Signals;

/// `ebb service`.
#[derive(Debug, Args)]
pub(crate) struct ServiceArgs {
    /// How many instances
    #[arg(long, short = 'n', value_name = "N", default_value_t = 1)]
    pub(crate) instances: u32,
    /// Remember in this file what runs, so that the next start takes it over
    #[arg(long, value_name = "FILE")]
    pub(crate) state: Option<PathBuf>,
    /// Leave the instances running at the end
    #[arg(long, requires = "state")]
    pub(crate) keep: bool,
    /// A hard ceiling on the CPU of each; without it, idle CPU may be used beyond --cpus
    #[arg(long, value_name = "N", value_parser = parse_cpus)]
    pub(crate) cpu_limit: Option<u64>,
    /// Display name of the framework
    #[arg(long, value_parser = name)]
    pub(crate) name: Option<String>,
    #[command(flatten)]
    pub(crate) demand: DemandArgs,
    /// The program and its arguments
    #[arg(last = true, required = true, value_name = "CMD", value_parser = word)]
    pub(crate) command: Vec<String>,
    #[command(flatten)]
    pub(crate) client: ClientArgs,
}

pub(crate) async fn perform(args: ServiceArgs, out: &mut Out) -> Result<u8, CliError> {
    let spec = ServiceSpec {
        command: command(&args.command, &args.demand)?,
        demand: args.demand.demand()?,
        cpu_limit_milli: args.cpu_limit,
        instances: args.instances,
        kill_grace_ms: args.demand.grace,
    };
    let config = ServiceConfig {
        masters: vec![args.client.master.to_string()],
        name: args
            .name
            .clone()
            .unwrap_or_else(|| base_name(&args.command)),
        role: args.demand.role.clone(),
        user: String::new(),
        state: args.state.clone(),
        give_up_after_ms: Some(GIVE_UP_AFTER_MS),
    };
    Master::connect(&args.client.master).await?;
    let mut signals = Signals::listen()?;
    let (handle, service) = start(config, spec).map_err(|error| failed(&error))?;
    let mut service = Box::pin(service);
    let mut status = handle.status();
    let mut shown = String::new();
    let mut ending = false;
    let mut watching = true;
    let report = loop {
        tokio::select! {
            report = &mut service => break report.map_err(|error| failed(&error))?,
            changed = status.changed(), if watching => {
                watching = changed.is_ok();
                let now = status.borrow_and_update().clone();
                show(&now, &mut shown, out)?;
            }
            () = signals.next() => {
                if ending {
                    tell("left; see `ebb frameworks` and end it with `ebb teardown`");
                    return Ok(EXIT_INTERRUPTED);
                }
                ending = true;
                if args.keep {
                    handle.detach();
                } else {
                    tell("ending every instance; press Ctrl-C again to leave them");
                    handle.stop();
                }
            }
        }
    };
    if out.json {
        out.json_line(&report)?;
    } else {
        let left = if report.detached {
            "; its instances run on"
        } else {
            ""
        };
        out.line(&format!(
            "the service ended after {} launches and {} restarts{left}",
            report.launches, report.restarts
        ))?;
    }
    Ok(EXIT_OK)
}

/// Prints a change; for people, only one that they would see.
fn show(now: &ServiceStatus, shown: &mut String, out: &mut Out) -> Result<(), CliError> {
    if out.json {
        return Ok(out.json_line(now)?);
    }
    let line = sentence(now);
    if line != *shown {
        out.line(&line)?;
        *shown = line;
    }
    Ok(())
}

/// The service in one line.
fn sentence(status: &ServiceStatus) -> String {
    let mut line = format!("{} of {} running", status.running, status.wanted);
    if status.outdated > 0 {
        line.push_str(&format!(", {} of earlier versions", status.outdated));
    }
    if status.restarts > 0 {
        line.push_str(&format!(", {} restarts", status.restarts));
    }
    if !status.connected {
        line.push_str(" (the master is away)");
    }
    if !status.waiting_for.is_empty() {
        line.push_str(&format!("; {}", clean(&status.waiting_for)));
    }
    line
}
