//! The commands, one file each. Each gives the code to exit with.

pub(crate) mod activity;
pub(crate) mod advise;
pub(crate) mod agents;
pub(crate) mod batch;
pub(crate) mod completions;
mod daemon;
mod demand;
pub(crate) mod details;
pub(crate) mod dev;
pub(crate) mod explain;
pub(crate) mod frameworks;
pub(crate) mod kill;
pub(crate) mod logs;
pub(crate) mod lots;
pub(crate) mod maintenance;
pub(crate) mod neighbours;
pub(crate) mod offers;
pub(crate) mod quota;
pub(crate) mod roles;
pub(crate) mod run;
pub(crate) mod service;
pub(crate) mod status;
pub(crate) mod tasks;
pub(crate) mod teardown;
pub(crate) mod text;
pub(crate) mod top;
pub(crate) mod weight;

use crate::args::{Cli, Command};
use crate::error::CliError;
use crate::output::Out;

/// Does what the command line asks for; gives the code to exit with.
///
/// # Errors
/// [`CliError`] says what went wrong and what to do.
pub(crate) async fn perform(cli: Cli, out: &mut Out) -> Result<u8, CliError> {
    match cli.command {
        Command::Dev(args) => Box::pin(dev::perform(args, out)).await,
        Command::Master(args) => Box::pin(daemon::master(&args)).await,
        Command::Agent(args) => Box::pin(daemon::agent(*args, out)).await,
        Command::Run(args) => Box::pin(run::perform(*args, out)).await,
        Command::Batch(args) => Box::pin(batch::perform(*args, out)).await,
        Command::Service(args) => Box::pin(service::perform(*args, out)).await,
        Command::Status(args) => status::perform(&args, out).await,
        Command::Agents(args) => agents::perform(&args, out).await,
        Command::Frameworks(args) => frameworks::perform(&args, out).await,
        Command::Tasks(args) => tasks::perform(&args, out).await,
        Command::Neighbours(args) => neighbours::perform(&args, out).await,
        Command::Advise(args) => advise::perform(&args, out).await,
        Command::Offers(args) => offers::perform(&args, out).await,
        Command::Roles(args) => roles::perform(&args, out).await,
        Command::Top(args) => top::perform(&args, out).await,
        Command::Logs(args) => logs::perform(&args, out).await,
        Command::Kill(args) => kill::perform(&args, out).await,
        Command::Weight(args) => weight::perform(&args, out).await,
        Command::Quota(args) => quota::perform(&args, out).await,
        Command::Teardown(args) => teardown::perform(&args, out).await,
        Command::Completions(args) => completions::perform(&args, out),
        Command::Explain(args) => explain::perform(&args, out).await,
        Command::Deactivate(args) => activity::deactivate(&args, out).await,
        Command::Reactivate(args) => activity::reactivate(&args, out).await,
        Command::Drain(args) => activity::drain(&args, out).await,
        Command::Maintenance(args) => maintenance::perform(&args, out).await,
        Command::Reserve(args) => lots::reserve(&args, out).await,
        Command::Unreserve(args) => lots::unreserve(&args, out).await,
        Command::CreateVolume(args) => lots::create(&args, out).await,
        Command::DestroyVolume(args) => lots::destroy(&args, out).await,
    }
}
