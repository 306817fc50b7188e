//! What a service is told and what it says of itself.

use std::path::PathBuf;

use ebb_types::{ResourceKind, Role};
use serde::Serialize;

use crate::command::{CommandSpec, Program};
use crate::digest::Digest;
use crate::offers::{Claim, Demand};
use crate::scheduler::DriverError;

/// The kinds whose amounts are part of every version; those that came later are so where there is an amount.
const FIRST_KINDS: [ResourceKind; 4] = [
    ResourceKind::Cpus,
    ResourceKind::Mem,
    ResourceKind::Disk,
    ResourceKind::DiskBandwidth,
];
/// Most instances of one service.
pub const MAX_INSTANCES: u32 = 10_000;
/// First wait before an instance that ended is started anew, in milliseconds.
pub const RESTART_FIRST_MS: u64 = 1_000;
/// Longest wait before an instance that ended is started anew, in milliseconds.
pub const RESTART_CAP_MS: u64 = 60_000;
/// An instance that ran so long was stable: its back-off starts over. In milliseconds.
pub const STABLE_AFTER_MS: u64 = 10_000;
/// How many instances a rolling change may start beyond the wanted number.
pub const MAX_SURGE: u32 = 1;
/// When no offer holds the surging instance for so long, a rolling change stops one old instance
/// first. In milliseconds.
pub const SURGE_PATIENCE_MS: u64 = 10_000;
/// When nothing holds an instance for so long that is to leave an agent which will be out of use, the service says that
/// it will not be gone; it goes on trying. In milliseconds.
pub const MOVE_PATIENCE_MS: u64 = 10_000;
/// How long the instances of a service live on without it, in milliseconds: a week.
pub const FAILOVER_MS: u64 = 7 * 24 * 3600 * 1000;

/// How long the instances live on without the service where there is no state file, in milliseconds.
pub const FAILOVER_WITHOUT_STATE_MS: u64 = 60_000;
/// How long a service that was told to stop waits for its instances to end, beyond their grace, in
/// milliseconds.
pub const STOP_PATIENCE_MS: u64 = 10_000;

/// What is to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceSpec {
    /// What each instance runs. `EBB_INSTANCE` is set to its slot, from 0.
    pub command: CommandSpec,
    /// What each instance wants.
    pub demand: Demand,
    /// A hard ceiling on the CPU of each, in thousandths of a core.
    pub cpu_limit_milli: Option<u64>,
    /// How many.
    pub instances: u32,
    /// Time between the polite and the forced kill, in milliseconds.
    pub kill_grace_ms: Option<u64>,
}

impl ServiceSpec {
    /// Tells specifications apart whose instances cannot stand in for each other: eight digits. It stays over upgrades, since
    /// a service whose version changes replaces all its instances.
    pub fn version(&self) -> String {
        let mut digest = Digest::default();
        match &self.command.program {
            Program::Shell(line) => {
                digest.text("shell").text(line);
            }
            Program::Exec(words) => {
                digest.text("exec").number(words.len() as u64);
                for word in words {
                    digest.text(word);
                }
            }
        }
        digest.number(self.command.environment.len() as u64);
        for (name, value) in &self.command.environment {
            digest.text(name).text(value);
        }
        digest.text(self.command.user.as_deref().unwrap_or(""));
        let resources = self.demand.resources();
        for kind in FIRST_KINDS {
            digest.number(resources.regular.get(kind));
            digest.number(resources.revocable.get(kind));
        }
        digest.number(
            self.cpu_limit_milli
                .map_or(0, |limit| limit.saturating_add(1)),
        );
        for kind in ResourceKind::ALL {
            let (owned, lent) = (resources.regular.get(kind), resources.revocable.get(kind));
            if !FIRST_KINDS.contains(&kind) && (owned, lent) != (0, 0) {
                digest.text(kind.name()).number(owned).number(lent);
            }
        }
        digest.hex()[..8].to_owned()
    }

    /// Checks the specification.
    ///
    /// # Errors
    /// [`ServiceError::Spec`] names the setting and the rule.
    pub fn check(&self) -> Result<(), ServiceError> {
        let bad = |field, rule: String| Err(ServiceError::Spec { field, rule });
        if self.instances > MAX_INSTANCES {
            let count = self.instances;
            return bad(
                "instances",
                format!("are {count}; at most {MAX_INSTANCES} are allowed"),
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
        if self.demand.claim != Claim::Regular {
            let rule = "is revocable; what serves others needs resources of its own".into();
            return bad("demand", rule);
        }
        let empty = match &self.command.program {
            Program::Shell(line) => line.is_empty(),
            Program::Exec(words) => words.first().is_none_or(String::is_empty),
        };
        if empty {
            return bad("command", "is empty; name a program".into());
        }
        Ok(())
    }
}

/// How the service's framework connects.
#[derive(Clone, Debug)]
pub struct ServiceConfig {
    /// Addresses of masters, `host:port`.
    pub masters: Vec<String>,
    /// Display name of the framework; starts every task id.
    pub name: String,
    /// The role whose offers it uses.
    pub role: Role,
    /// The account to run as unless the command says otherwise; empty means the agent's.
    pub user: String,
    /// A file that remembers the framework and its instances, so that a service that is started
    /// again takes them over. Without one the instances end with this process, after a grace.
    pub state: Option<PathBuf>,
    /// Without a subscription after so long it is given up, in milliseconds; unset means never.
    pub give_up_after_ms: Option<u64>,
}

/// One instance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct InstanceStatus {
    /// Its task.
    pub task_id: String,
    /// Its slot, from 0.
    pub slot: u32,
    /// Where it runs.
    pub agent_id: String,
    /// The agent's host name, where known.
    pub hostname: String,
    /// Its state's name.
    pub state: &'static str,
    /// Whether it is of the version that is wanted now.
    pub current: bool,
    /// Whether it is being ended.
    pub ending: bool,
}

/// The service at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ServiceStatus {
    /// The framework's id, once it has one.
    pub framework_id: Option<String>,
    /// Whether the master is connected.
    pub connected: bool,
    /// How many are wanted.
    pub wanted: u32,
    /// Of the wanted version and running.
    pub running: u32,
    /// Of earlier versions and not ended.
    pub outdated: u32,
    /// Starts of instances after the first of each slot.
    pub restarts: u64,
    /// Why something that is wanted does not run, as a sentence; empty when all is well.
    pub waiting_for: String,
    /// Every instance that has not ended.
    pub instances: Vec<InstanceStatus>,
}

/// What came of a service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ServiceReport {
    /// The framework's id; absent if it was never subscribed.
    pub framework_id: Option<String>,
    /// Launches in all.
    pub launches: u64,
    /// Starts of instances after the first of each slot.
    pub restarts: u64,
    /// Whether its instances were left running.
    pub detached: bool,
}

/// Why a service could not be run.
#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    /// A setting is not valid.
    #[error("the service's {field} {rule}")]
    Spec {
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
    /// The state file holds an id that is not valid.
    #[error("the state file {} holds an id that is not valid; remove it to start over", path.display())]
    SavedId {
        /// The file.
        path: PathBuf,
        /// What is wrong with the id.
        #[source]
        source: ebb_types::InvalidId,
    },
    /// The framework could not be kept up.
    #[error("the service's framework ended")]
    Driver(#[from] DriverError),
}
