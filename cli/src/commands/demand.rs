//! What one task wants: the flags that all commands that launch some have in common.

use clap::Args;
use ebb_framework::CommandSpec;
use ebb_framework::offers::{Claim, Demand};
use ebb_types::limits::{MAX_ARGUMENTS, MAX_COMMAND_BYTES, MAX_ENVIRONMENT, MAX_NAME_BYTES};
use ebb_types::{Quantities, ResourceKind, Role};

use crate::args::{grace_ms, role};
use crate::error::CliError;
use crate::output::quantity::{parse_bandwidth, parse_bytes, parse_cpus, shown};

/// Whose resources a task may run on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Revocable {
    /// CPU and bandwidth lent by others; memory and disk its own
    Cpus,
    /// Everything lent by others
    All,
}

/// What one task wants, for all commands that launch some.
#[derive(Clone, Debug, Args)]
pub(crate) struct DemandArgs {
    /// Processors
    #[arg(long, value_name = "N", default_value = "0.5", allow_negative_numbers = true, value_parser = parse_cpus)]
    pub(crate) cpus: u64,
    /// Memory
    #[arg(long, value_name = "BYTES", default_value = "64MiB", value_parser = parse_bytes)]
    pub(crate) mem: u64,
    /// Disk space
    #[arg(long, value_name = "BYTES", value_parser = parse_bytes)]
    pub(crate) disk: Option<u64>,
    /// Disk bandwidth, like 10MiB/s
    #[arg(long, value_name = "RATE", value_parser = parse_bandwidth)]
    pub(crate) disk_bandwidth: Option<u64>,
    /// Network bandwidth, like 100Mbit or 10MiB/s: so much may it send, and as much receive; loopback is not counted
    #[arg(long, value_name = "RATE", value_parser = parse_bandwidth)]
    pub(crate) network_bandwidth: Option<u64>,
    /// Run on what others leave idle: it may be taken back at any time
    #[arg(long, value_enum, value_name = "WHAT", num_args = 0..=1, require_equals = true, default_missing_value = "cpus")]
    pub(crate) revocable: Option<Revocable>,
    /// The role whose share is used
    #[arg(long, default_value = "*", value_parser = role)]
    pub(crate) role: Role,
    /// The account to run as; without it, the agent's own
    #[arg(long, value_parser = name)]
    pub(crate) user: Option<String>,
    /// Set an environment variable
    #[arg(long, value_name = "KEY=VALUE", value_parser = variable)]
    pub(crate) env: Vec<(String, String)>,
    /// Time between the polite and the forced kill
    #[arg(long, value_name = "TIME", value_parser = grace_ms)]
    pub(crate) grace: Option<u64>,
    /// The signal that warns it before what it runs on is taken back, like USR1; SIGTERM by default
    #[arg(long, value_name = "SIGNAL", value_parser = warn_signal)]
    pub(crate) warn_signal: Option<u32>,
}

impl DemandArgs {
    /// What each task wants.
    ///
    /// # Errors
    /// When it wants nothing.
    pub(crate) fn demand(&self) -> Result<Demand, CliError> {
        let amount = Quantities::cpus_mem(self.cpus, self.mem)
            .with(ResourceKind::Disk, self.disk.unwrap_or(0))
            .with(
                ResourceKind::DiskBandwidth,
                self.disk_bandwidth.unwrap_or(0),
            )
            .with(
                ResourceKind::NetworkBandwidth,
                self.network_bandwidth.unwrap_or(0),
            );
        let claim = match self.revocable {
            None => Claim::Regular,
            Some(Revocable::Cpus) => Claim::RevocableCompressible,
            Some(Revocable::All) => Claim::Revocable,
        };
        if amount.is_zero() {
            return Err(CliError::Usage(
                "a task must ask for something; give --cpus or --mem more than 0".to_owned(),
            ));
        }
        Ok(Demand { amount, claim })
    }
}

/// Reads a name.
pub(crate) fn name(text: &str) -> Result<String, String> {
    if text.is_empty() || text.len() > MAX_NAME_BYTES || text.contains(char::is_control) {
        return Err(format!(
            "a name has 1 to {MAX_NAME_BYTES} bytes and no control characters"
        ));
    }
    Ok(text.to_owned())
}

/// Signals that a program may wait for, with their numbers on Linux.
const WARN_SIGNALS: [(&str, u32); 9] = [
    ("HUP", 1),
    ("INT", 2),
    ("QUIT", 3),
    ("USR1", 10),
    ("USR2", 12),
    ("ALRM", 14),
    ("TERM", 15),
    ("CONT", 18),
    ("WINCH", 28),
];

/// Reads the name of a signal, with or without SIG.
fn warn_signal(text: &str) -> Result<u32, String> {
    let name = text.to_ascii_uppercase();
    let name = name.strip_prefix("SIG").unwrap_or(&name);
    let found = WARN_SIGNALS.iter().find(|(known, _)| *known == name);
    found.map(|(_, number)| *number).ok_or_else(|| {
        let names: Vec<&str> = WARN_SIGNALS.iter().map(|(name, _)| *name).collect();
        format!("{:?} is none of {}", shown(text), names.join(", "))
    })
}

/// Reads `KEY=VALUE`.
fn variable(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), word(value)?)),
        _ => Err(format!("{:?} sets nothing; write KEY=VALUE", shown(text))),
    }
}

/// Reads one word of a command line.
pub(crate) fn word(text: &str) -> Result<String, String> {
    if text.len() > MAX_COMMAND_BYTES {
        return Err(format!(
            "it is {} bytes long; at most {MAX_COMMAND_BYTES} are allowed: put it into a file",
            text.len()
        ));
    }
    Ok(text.to_owned())
}

/// A command with the environment and user of the flags.
///
/// # Errors
/// When there are more words or variables than a command may have.
pub(crate) fn command(words: &[String], args: &DemandArgs) -> Result<CommandSpec, CliError> {
    if words.len() > MAX_ARGUMENTS || args.env.len() > MAX_ENVIRONMENT {
        return Err(CliError::Usage(format!(
            "a command has at most {MAX_ARGUMENTS} words and {MAX_ENVIRONMENT} variables; put the rest into a file"
        )));
    }
    let mut command = CommandSpec::exec(words);
    command.environment.clone_from(&args.env);
    command.user.clone_from(&args.user);
    command.warn_signal = args.warn_signal;
    Ok(command)
}

/// The name of a program without its folder, for display.
pub(crate) fn base_name(words: &[String]) -> String {
    let program = words.first().map_or("", String::as_str);
    let base = program.rsplit('/').find(|part| !part.is_empty());
    let base = base.unwrap_or("run");
    base[..base.floor_char_boundary(MAX_NAME_BYTES)].to_owned()
}
