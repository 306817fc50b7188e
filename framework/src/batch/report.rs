//! What a batch says of itself while it runs and at its end.

use serde::{Deserialize, Serialize};

/// How one command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CommandEnd {
    /// With exit code 0.
    Finished,
    /// With another exit code, by a signal, or over a limit.
    Failed,
    /// It was preempted, and may not be run again.
    Preempted,
    /// Its fate is unknown: its agent is gone.
    Lost,
    /// It broke a rule and was never started.
    Invalid,
    /// The batch was stopped before it ended, or somebody killed it.
    Killed,
    /// The batch was stopped before it was launched.
    NotRun,
}

/// The counts of a batch at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Progress {
    /// Commands in all.
    pub commands: u64,
    /// Not launched yet, or waiting to be launched anew.
    pub waiting: u64,
    /// Launched and not ended.
    pub launched: u64,
    /// Of those, known to run now.
    pub running: u64,
    /// Of those, out of reach: their agent is.
    pub unreachable: u64,
    /// Ended with success.
    pub finished: u64,
    /// Ended for good without success, whatever the kind.
    pub failed: u64,
    /// Launches in all.
    pub launches: u64,
    /// Launches after a failure.
    pub retries: u64,
    /// Ends by preemption.
    pub preemptions: u64,
    /// Launches that certainly never started.
    pub drops: u64,
    /// Tasks that came back after their command had ended, and were killed.
    pub strangers: u64,
    /// Whether the master is connected.
    pub connected: bool,
}

/// A command that did not succeed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Failure {
    /// Its name.
    pub name: String,
    /// Its number, from 1.
    pub number: u64,
    /// How it ended.
    pub end: CommandEnd,
    /// The task of its last attempt; absent if there was none.
    pub task_id: Option<String>,
    /// Where that ran.
    pub agent_id: Option<String>,
    /// Its exit code.
    pub exit_code: Option<i32>,
    /// The signal that ended it.
    pub exit_signal: Option<i32>,
    /// The last state's name.
    pub state: Option<String>,
    /// The last reason's name.
    pub reason: Option<String>,
    /// The last message.
    pub message: String,
}

/// What came of a batch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Report {
    /// The framework's id; absent if it was never subscribed.
    pub framework_id: Option<String>,
    /// The counts at the end.
    #[serde(flatten)]
    pub counts: Progress,
    /// From the start to the end, in milliseconds.
    pub wall_ms: u64,
    /// From TASK_RUNNING to the end, summed over all tasks whose both ends are known, in milliseconds.
    pub running_ms: u64,
    /// Whether it was stopped before its end.
    pub stopped: bool,
    /// Commands that did not succeed, by number.
    pub failures: Vec<Failure>,
}

impl Report {
    /// Whether every command succeeded.
    pub const fn is_success(&self) -> bool {
        self.counts.finished == self.counts.commands
    }
}
