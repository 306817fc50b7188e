//! What can go wrong with the probes. None of it keeps the agent from measuring: files take over.

use ebb_agent_ebpf_common::MAX_LEVELS;
use thiserror::Error;

/// What went wrong with the probes.
#[derive(Debug, Error)]
pub enum ProbeError {
    /// The kernel does not take the program.
    #[error(
        "the kernel refuses the probe {program} ({cause}); the verifier's last words: {verifier}"
    )]
    Refused {
        /// Which program.
        program: &'static str,
        /// The error of the system call.
        cause: String,
        /// The end of the verifier's log.
        verifier: String,
    },
    /// The object cannot be loaded.
    #[error("the probes cannot be loaded: {cause}; rebuild them with `cargo xtask build-ebpf`")]
    Load {
        /// All causes in a row.
        cause: String,
    },
    /// The object lacks a part, so it was built from other sources than this program.
    #[error("the probes lack {what}; rebuild them with `cargo xtask build-ebpf`")]
    Missing {
        /// Name of the part.
        what: &'static str,
    },
    /// All slots are taken.
    #[error("all {slots} slots of the probes are taken; this container is measured by files")]
    Full {
        /// How many there are.
        slots: u32,
    },
    /// Containers stand at too many depths.
    #[error(
        "containers already stand at {MAX_LEVELS} depths of the cgroup tree; this one is measured by files"
    )]
    Depths,
    /// This cgroup has a slot already.
    #[error("the cgroup {cgroup_id} is registered with the probes already")]
    Twice {
        /// Its v2 id.
        cgroup_id: u64,
    },
    /// This cgroup has no slot.
    #[error("the cgroup {cgroup_id} is not registered with the probes")]
    Unknown {
        /// Its v2 id.
        cgroup_id: u64,
    },
    /// Where its cgroup stands is not known.
    #[error("the container cannot be measured by the probes: {cause}")]
    Unplaced {
        /// What is the matter with its path.
        cause: String,
    },
    /// A system call on a map or a program failed.
    #[error("the probes' {what} cannot be {operation}: {cause}")]
    Access {
        /// Which map or program.
        what: &'static str,
        /// What was tried.
        operation: &'static str,
        /// All causes in a row.
        cause: String,
    },
}

/// A failed call on a map or a program.
pub(super) fn access(
    what: &'static str,
    operation: &'static str,
    error: &dyn std::error::Error,
) -> ProbeError {
    ProbeError::Access {
        what,
        operation,
        cause: chain(error),
    }
}

/// An error and its causes in one line.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        cause = error.source();
    }
    text
}
