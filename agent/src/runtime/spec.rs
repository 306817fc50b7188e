//! The records of a run: what the executor is told, and what it leaves for the agent to find.
//!
//! All are JSON files in the run folder. The binary that reads them may be a later version of the one that wrote
//! them: unknown fields are ignored, new ones need a default.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::devices::View;
use super::volumes::VolumeSpec;
use crate::cgroup::{JoinPaths, Limits};

/// `PATH` of a task that sets none.
pub const PATH_DEFAULT: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// The longest spec that an executor reads.
pub(super) const SPEC_MAX_BYTES: u64 = 8 << 20;
/// The longest record that an agent reads.
pub(super) const RECORD_MAX_BYTES: u64 = 64 << 10;

/// What a task runs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommandSpec {
    /// True: `/bin/sh -c value`. False: `value` is the program, looked up in the task's `PATH`.
    pub shell: bool,
    /// The shell command, or the program.
    pub value: String,
    /// The whole argument vector of the program, its name first; unused with `shell`.
    pub arguments: Vec<String>,
    /// The whole environment; only `PATH` is added where it is missing.
    pub environment: BTreeMap<String, String>,
}

/// Whose rights a task has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct User {
    /// The name that was asked for.
    pub name: String,
    /// The user id.
    pub uid: u32,
    /// The group id.
    pub gid: u32,
    /// The supplementary groups.
    pub groups: Vec<u32>,
}

/// Everything that an executor must know: `spec.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecutorSpec {
    /// The agent.
    pub agent_id: String,
    /// The framework.
    pub framework_id: String,
    /// The task.
    pub task_id: String,
    /// The container.
    pub container_id: String,
    /// What to run.
    pub command: CommandSpec,
    /// As whom; the agent's user if none.
    pub user: Option<User>,
    /// The host name inside; the machine's if none.
    pub hostname: Option<String>,
    /// `oom_score_adj` of the task.
    pub oom_score_adj: i32,
    /// The container's limits, for the agent that adopts it.
    pub limits: Limits,
    /// The container's cgroups.
    pub join: JoinPaths,
    /// The v2 cgroup of the executors.
    pub executors_dir: Option<PathBuf>,
    /// The volumes that are seen inside.
    #[serde(default)]
    pub volumes: Vec<VolumeSpec>,
    /// What stands in its own `/dev`, if it has one.
    #[serde(default)]
    pub devices: Option<View>,
    /// The signal, by its number, that warns the task before it is evicted.
    #[serde(default)]
    pub warn_signal: Option<u32>,
}

/// One process, told from every other that had or will have its number.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessIdentity {
    /// The number.
    pub pid: u32,
    /// When it began, in clock ticks since boot.
    pub start_ticks: u64,
    /// The boot that it belongs to.
    pub boot_id: String,
}

/// Who decides what becomes of a run: `executor.json`. Written once, by whoever comes first; an executor that finds
/// it taken launches nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Claim {
    /// The executor: the task starts.
    Executor(ProcessIdentity),
    /// The agent: the task never starts.
    Agent {
        /// Why.
        reason: String,
    },
}

/// The task runs: `started.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StartedRecord {
    /// The executor.
    pub executor: ProcessIdentity,
    /// The container's pid 1, as the machine numbers it.
    pub init_pid: u32,
    /// When the command's program had been executed, in milliseconds since 1970.
    pub started_at_ms: u64,
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The command ended by itself.
    Exited {
        /// Its exit status.
        code: i32,
    },
    /// A signal ended the command.
    Signaled {
        /// Its number.
        signal: i32,
    },
    /// The command could not be executed.
    LaunchFailed {
        /// Why, and what to do.
        error: String,
    },
    /// It was taken back before the command was executed.
    NeverStarted {
        /// Why.
        reason: String,
    },
    /// The executor is gone and left no record: how the command ended is not known.
    Lost {
        /// What is known.
        reason: String,
    },
}

/// The end of a run: `exit.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExitRecord {
    /// The container.
    pub container_id: String,
    /// How it ended.
    pub outcome: Outcome,
    /// When the command's program had been executed, if it was.
    pub started_at_ms: Option<u64>,
    /// When it ended, in milliseconds since 1970.
    pub finished_at_ms: u64,
    /// Processes of the container that the kernel killed for want of memory; `None` where memory is not controlled.
    pub oom_kills: Option<u64>,
    /// Used by all processes of the container together.
    pub usage: Option<UsageRecord>,
}

impl ExitRecord {
    /// Whether the command failed and the kernel had killed for want of memory in its container.
    pub fn oom_killed(&self) -> bool {
        self.oom_kills.is_some_and(|kills| kills > 0) && self.outcome != Outcome::Exited { code: 0 }
    }
}

/// What a run used, from `getrusage`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct UsageRecord {
    /// CPU time in user mode.
    pub user_us: u64,
    /// CPU time in the kernel.
    pub system_us: u64,
    /// The largest resident size of one process.
    pub max_rss_bytes: u64,
}
