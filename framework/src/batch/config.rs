//! What a batch is told.

use std::path::PathBuf;

use ebb_types::Role;

use crate::command::CommandSpec;
use crate::offers::Demand;
use crate::scheduler::DriverError;

/// Most commands of one batch.
pub const MAX_COMMANDS: usize = 1_000_000;
/// How often a command is launched anew after a launch that certainly never started, before it
/// counts as failed.
pub const MAX_DROPS: u32 = 1_000;
/// Failover timeout of a batch without a state file, in milliseconds: five minutes.
pub const FAILOVER_MS: u64 = 300_000;
/// Failover timeout of a batch with a state file, in milliseconds: a day to start it anew.
pub const FAILOVER_WITH_STATE_MS: u64 = 24 * 3600 * 1000;

/// First bound of the wait before a command that failed or never started goes again, in milliseconds.
pub const AGAIN_FIRST_MS: u64 = 100;
/// Largest bound of that wait, in milliseconds.
pub const AGAIN_CAP_MS: u64 = 10_000;
/// A task that the master does not know, on an agent that it does not know, is given up for lost after
/// so long, in milliseconds.
pub const UNKNOWN_PATIENCE_MS: u64 = 600_000;
/// How long a batch that was told to stop waits for its tasks to end, beyond their grace, in
/// milliseconds.
pub const STOP_PATIENCE_MS: u64 = 10_000;
/// Most bytes of commands in one accept; more wait for the next offer.
pub const MAX_ACCEPT_BYTES: usize = 8 * 1024 * 1024;

/// One command of a batch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BatchCommand {
    /// For people; empty means its number.
    pub name: String,
    /// What to run.
    pub command: CommandSpec,
}

/// How to run a batch.
#[derive(Clone, Debug)]
pub struct BatchConfig {
    /// Addresses of masters, `host:port`.
    pub masters: Vec<String>,
    /// Display name of the framework; starts every task id.
    pub name: String,
    /// The role whose offers it uses.
    pub role: Role,
    /// The account to run as unless a command says otherwise; empty means the agent's.
    pub user: String,
    /// The commands.
    pub commands: Vec<BatchCommand>,
    /// How many run at a time, at most; at least 1.
    pub at_most: usize,
    /// What each of them wants.
    pub demand: Demand,
    /// How often a command that failed is run again. With 0 the effect of each command stands at
    /// most once.
    pub retries: u32,
    /// How often a command that was preempted is run again.
    pub preemptions: u32,
    /// A command is killed after so long, in milliseconds.
    pub max_completion_ms: Option<u64>,
    /// How long a command is expected to run, in milliseconds: of revocable resources only those are used that can be
    /// expected to stay so long ([`crate::offers::lasting`]). Unset means any.
    pub expected_run_ms: Option<u64>,
    /// Time between the polite and the forced kill, in milliseconds.
    pub kill_grace_ms: Option<u64>,
    /// A file that remembers what was launched and how it ended, so that a batch that was itself
    /// killed goes on where it was.
    pub state: Option<PathBuf>,
    /// Without a subscription after so long it is given up, in milliseconds; unset means never.
    pub give_up_after_ms: Option<u64>,
}

impl BatchConfig {
    /// Checks the settings.
    ///
    /// # Errors
    /// [`BatchError::Config`] names the setting and the rule.
    pub fn check(&self) -> Result<(), BatchError> {
        let bad = |field, rule: String| Err(BatchError::Config { field, rule });
        if self.at_most == 0 {
            return bad(
                "at_most",
                "is 0; at least one command must run at a time".into(),
            );
        }
        let count = self.commands.len();
        if count > MAX_COMMANDS {
            return bad(
                "commands",
                format!("are {count}; at most {MAX_COMMANDS} are allowed"),
            );
        }
        if self.demand.amount.is_zero() {
            return bad("demand", "is nothing; ask for some cpus or mem".into());
        }
        if !self.demand.amount.is_within_bounds() {
            return bad(
                "demand",
                format!("is {}, beyond all bounds", self.demand.amount),
            );
        }
        Ok(())
    }
}

/// Why a batch could not be run to its end.
#[derive(Debug, thiserror::Error)]
pub enum BatchError {
    /// A setting is not valid.
    #[error("the batch's {field} {rule}")]
    Config {
        /// The setting.
        field: &'static str,
        /// The rule that it breaks.
        rule: String,
    },
    /// The state file cannot be used.
    #[error("cannot {operation} the state file {}; {remedy}", path.display())]
    State {
        /// What was tried.
        operation: &'static str,
        /// The file.
        path: PathBuf,
        /// What to do.
        remedy: &'static str,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// The state file belongs to another batch or is damaged.
    #[error("the state file {}, line {line}: {problem}", path.display())]
    Journal {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is wrong and what to do.
        problem: String,
    },
    /// An id in a record is not valid.
    #[error("an id is not valid")]
    Id(#[from] ebb_types::InvalidId),
    /// The framework could not be kept up.
    #[error("the batch framework ended")]
    Driver(#[from] DriverError),
}
