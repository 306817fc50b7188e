//! Why a command of `ebb` fails: the thing, the cause, the remedy.

use std::io;

use crate::output::quantity::BadQuantity;
use crate::resolve::ResolveError;

/// The command did what it was asked to.
pub(crate) const EXIT_OK: u8 = 0;
/// The command failed.
pub(crate) const EXIT_ERROR: u8 = 1;
/// The command line was wrong.
pub(crate) const EXIT_USAGE: u8 = 2;

/// Ctrl-C ended the command, as in a shell.
pub(crate) const EXIT_INTERRUPTED: u8 = 130;

/// Why a command fails.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CliError {
    /// Nobody answers at the master's address.
    #[error(
        "cannot reach the master at {address}: {cause}; start one with `ebb dev`, or name another with --master or EBB_MASTER"
    )]
    Unreachable {
        /// Where.
        address: String,
        /// Why.
        cause: String,
    },
    /// Nobody answers at an agent's address.
    #[error(
        "cannot reach agent {agent} at {address}: {cause}; see with `ebb agents` whether it is up, and whether its host name leads to it from here"
    )]
    AgentUnreachable {
        /// Which.
        agent: String,
        /// Where.
        address: String,
        /// Why.
        cause: String,
    },
    /// The other side said no, with a sentence of its own.
    #[error("cannot {operation}: {message}")]
    Refused {
        /// What was wanted.
        operation: &'static str,
        /// The other side's sentence.
        message: String,
    },
    /// The other side stays silent.
    #[error("{who} did not answer within {seconds} s when asked to {operation}; look at its log")]
    Silent {
        /// Who.
        who: String,
        /// For how long it was waited.
        seconds: u64,
        /// What was wanted.
        operation: &'static str,
    },
    /// The answer makes no sense.
    #[error(
        "{who} answered with what this ebb cannot read ({cause}); use one version of Ebb on both sides"
    )]
    Answer {
        /// Who.
        who: String,
        /// What is wrong with it.
        cause: String,
    },
    /// An id names nothing, or too much.
    #[error(transparent)]
    Resolve(#[from] ResolveError),
    /// A quantity on the command line.
    #[error(transparent)]
    Quantity(#[from] BadQuantity),
    /// Something else on the command line.
    #[error("{0}")]
    Usage(String),
    /// Something else that went wrong, as a sentence.
    #[error("{0}")]
    Failed(String),
    /// Standard output cannot be written.
    #[error("cannot write the output: {0}; see whether the disk is full")]
    Output(#[from] io::Error),
}

impl CliError {
    /// What the process exits with.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::Usage(_) | Self::Quantity(_) => EXIT_USAGE,
            Self::Resolve(error) => error.exit_code(),
            _ => EXIT_ERROR,
        }
    }

    /// Whether the reader of the output has simply gone, as `head` does: no error to speak of.
    pub(crate) fn is_closed_pipe(&self) -> bool {
        matches!(self, Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe)
    }
}
