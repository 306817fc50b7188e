//! One command on the first offer that holds it, for `ebb run` and for everybody who wants no more.

use ebb_types::{AgentId, CommandInfo, ExitStatus, FrameworkId, Role, TaskId, TaskInfo, TaskStatus};
use tokio::sync::mpsc;

use crate::offers::Demand;
use crate::scheduler::DriverError;

/// Most events that wait for a slow reader; a reader that is slower stops the framework's callbacks.
pub const MAX_RUN_EVENTS: usize = 256;

/// What to run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CommandSpec {
    /// A line for `/bin/sh -c`, or the program and its arguments.
    pub program: Program,
    /// Environment.
    pub environment: Vec<(String, String)>,
    /// The account to run as; unset means the framework's.
    pub user: Option<String>,
}

/// How a program is named.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Program {
    /// A line for `/bin/sh -c`.
    Shell(String),
    /// The program, and the whole argument vector with the program as its first element.
    Exec(Vec<String>),
}

impl Default for Program {
    fn default() -> Self {
        Self::Shell(String::new())
    }
}

impl CommandSpec {
    /// A line for the shell.
    pub fn shell(line: impl Into<String>) -> Self {
        Self {
            program: Program::Shell(line.into()),
            ..Self::default()
        }
    }

    /// A program and its arguments, the program first.
    pub fn exec(words: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self {
            program: Program::Exec(words.into_iter().map(Into::into).collect()),
            ..Self::default()
        }
    }

    /// As a task's description has it.
    pub fn to_command(&self) -> CommandInfo {
        let (value, shell, arguments) = match &self.program {
            Program::Shell(line) => (line.clone(), true, Vec::new()),
            Program::Exec(words) => (
                words.first().cloned().unwrap_or_default(),
                false,
                words.clone(),
            ),
        };
        CommandInfo {
            value,
            shell,
            arguments,
            environment: self.environment.clone(),
            user: self.user.clone(),
        }
    }

    /// A task that runs it.
    pub fn to_task(&self, task_id: TaskId, agent_id: AgentId, demand: &Demand) -> TaskInfo {
        TaskInfo {
            name: task_id.to_string(),
            task_id,
            agent_id,
            resources: demand.resources(),
            command: Some(self.to_command()),
            executor: None,
            kill_grace_ms: None,
            max_completion_ms: None,
            cpu_limit_milli: None,
            data: Vec::new(),
            labels: Vec::new(),
        }
    }
}

/// How to run one command.
#[derive(Clone, Debug)]
pub struct RunConfig {
    /// Addresses of masters, `host:port`.
    pub masters: Vec<String>,
    /// Display name of the framework and its task.
    pub name: String,
    /// The role whose offers it uses.
    pub role: Role,
    /// The account to run as unless the command says otherwise; empty means the agent's.
    pub user: String,
    /// The command.
    pub command: CommandSpec,
    /// What it wants.
    pub demand: Demand,
    /// A hard ceiling on CPU, in thousandths of a core.
    pub cpu_limit_milli: Option<u64>,
    /// The task is killed after so long, in milliseconds.
    pub max_completion_ms: Option<u64>,
    /// Time between the polite and the forced kill, in milliseconds.
    pub kill_grace_ms: Option<u64>,
    /// Without a subscription after so long it is given up, in milliseconds; unset means never.
    pub give_up_after_ms: Option<u64>,
}

/// What happens to the command.
#[derive(Clone, Debug)]
pub enum RunEvent {
    /// The framework is in.
    Subscribed {
        /// Its id.
        framework_id: FrameworkId,
    },
    /// Offers came, but none holds the command; said once for each different lack.
    Waiting {
        /// What lacks in the best of them, as a sentence.
        reason: String,
    },
    /// An offer was accepted.
    Launched {
        /// Names the task.
        task_id: TaskId,
        /// Where it runs.
        agent_id: AgentId,
        /// The agent's host name.
        hostname: String,
    },
    /// A state of the task.
    Status(TaskStatus),
    /// The connection to the master broke; it is being made anew.
    Disconnected {
        /// Why.
        cause: String,
    },
    /// The task has ended. The framework stays until [`RunHandle::close`], so that its sandbox can be read.
    Ended {
        /// Its last status.
        status: TaskStatus,
    },
    /// The framework is over before the task was; the last event.
    Failed(std::sync::Arc<DriverError>),
}

impl RunEvent {
    /// The exit code that a shell would give for the end of a task: the code itself, 128 and the
    /// signal's number, or 1 where it ended without either.
    pub fn exit_code(status: &TaskStatus) -> u8 {
        match status.exit {
            Some(ExitStatus::Code(code)) => u8::try_from(code & 0xff).unwrap_or(1),
            Some(ExitStatus::Signal(signal)) => u8::try_from(128 + (signal & 0x7f)).unwrap_or(255),
            None => u8::from(status.state != ebb_types::TaskState::Finished),
        }
    }
}

/// Ends the command or the framework.
#[derive(Clone, Debug)]
pub struct RunHandle {
    _private: (),
}

impl RunHandle {
    /// Kills the task, or gives up waiting for an offer. The end is still reported.
    pub async fn kill(&self, _grace_ms: Option<u64>) {
        unimplemented!()
    }

    /// Ends the framework, and with it the task if it still lives, and waits until the master was told.
    pub async fn close(self) {
        unimplemented!()
    }
}

/// Starts one command. Must be called within a tokio runtime; the events end after
/// [`RunEvent::Ended`] and [`RunHandle::close`], or after [`RunEvent::Failed`].
pub fn run_command(_config: RunConfig) -> (RunHandle, mpsc::Receiver<RunEvent>) {
    unimplemented!()
}
