//! Commands, executors, tasks and their statuses.

use ebb_types::limits::{
    MAX_ARGUMENTS, MAX_COMMAND_BYTES, MAX_DATA_BYTES, MAX_ENVIRONMENT, MAX_GRACE_MS, MAX_ID_BYTES,
    MAX_LABELS, MAX_NAME_BYTES, MAX_QUANTITY, MAX_SIGNAL,
};
use ebb_types::{
    AgentId, CommandInfo, ContainerId, ExecutorId, ExecutorInfo, ExitStatus, Limitation, Reason,
    Source, TaskId, TaskInfo, TaskState, TaskStatus, Timestamp,
};

use crate::check::{
    Invalid, bounded, cut, data, duration_ms, id, optional_id, required, resources, text, uuid,
    write_resources,
};
use crate::common::{labels, write_labels};
use crate::lots::{with_lots, write_with_lots};
use crate::proto;

impl TryFrom<proto::CommandInfo> for CommandInfo {
    type Error = Invalid;

    fn try_from(command: proto::CommandInfo) -> Result<Self, Invalid> {
        bounded("command.arguments", command.arguments.len(), MAX_ARGUMENTS)?;
        let environment = labels(
            "command.environment",
            command.environment,
            MAX_ENVIRONMENT,
            MAX_COMMAND_BYTES,
        )?;
        if environment
            .iter()
            .any(|(name, _)| name.is_empty() || name.contains('='))
        {
            return Err(Invalid::new(
                "command.environment",
                "has a name that is empty or holds '='; rename it",
            ));
        }
        Ok(Self {
            value: text("command.value", command.value, MAX_COMMAND_BYTES)?,
            shell: command.shell,
            arguments: command
                .arguments
                .into_iter()
                .map(|argument| text("command.arguments", argument, MAX_COMMAND_BYTES))
                .collect::<Result<_, _>>()?,
            environment,
            user: command
                .user
                .map(|user| text("command.user", user, MAX_ID_BYTES))
                .transpose()?,
        })
    }
}

impl From<CommandInfo> for proto::CommandInfo {
    fn from(command: CommandInfo) -> Self {
        Self {
            value: command.value,
            shell: command.shell,
            arguments: command.arguments,
            environment: write_labels(command.environment),
            user: command.user,
        }
    }
}

impl TryFrom<proto::ExecutorInfo> for ExecutorInfo {
    type Error = Invalid;

    fn try_from(executor: proto::ExecutorInfo) -> Result<Self, Invalid> {
        let (resources, lots) = with_lots("executor.resources", executor.resources)?;
        Ok(Self {
            executor_id: id("executor.executor_id", &executor.executor_id, |t| {
                ExecutorId::new(t)
            })?,
            name: text("executor.name", executor.name, MAX_NAME_BYTES)?,
            command: required("executor.command", executor.command)?.try_into()?,
            resources,
            lots,
            data: data("executor.data", executor.data, MAX_DATA_BYTES)?,
        })
    }
}

impl From<ExecutorInfo> for proto::ExecutorInfo {
    fn from(executor: ExecutorInfo) -> Self {
        Self {
            executor_id: executor.executor_id.to_string(),
            name: executor.name,
            command: Some(executor.command.into()),
            resources: write_with_lots(&executor.resources, &executor.lots),
            data: executor.data,
        }
    }
}

/// Signals that no program can catch.
const UNCATCHABLE: [u32; 2] = [9, 19];

fn warn_signal(number: Option<u32>) -> Result<Option<u32>, Invalid> {
    match number {
        Some(number) if !(1..=MAX_SIGNAL).contains(&number) || UNCATCHABLE.contains(&number) => {
            Err(Invalid::new(
                "task.warn_signal",
                format!(
                    "is {number}; give the number of a signal from 1 to {MAX_SIGNAL} that can be caught"
                ),
            ))
        }
        other => Ok(other),
    }
}

impl TryFrom<proto::TaskInfo> for TaskInfo {
    type Error = Invalid;

    fn try_from(task: proto::TaskInfo) -> Result<Self, Invalid> {
        let cpu_limit_milli = task.cpu_limit_milli.filter(|limit| *limit <= MAX_QUANTITY);
        if cpu_limit_milli != task.cpu_limit_milli {
            return Err(Invalid::new(
                "task.cpu_limit_milli",
                format!("must be at most {MAX_QUANTITY}"),
            ));
        }
        let (resources, lots) = with_lots("task.resources", task.resources)?;
        Ok(Self {
            task_id: id("task.task_id", &task.task_id, |t| TaskId::new(t))?,
            name: text("task.name", task.name, MAX_NAME_BYTES)?,
            agent_id: id("task.agent_id", &task.agent_id, |t| AgentId::new(t))?,
            resources,
            lots,
            command: task.command.map(CommandInfo::try_from).transpose()?,
            executor: task.executor.map(ExecutorInfo::try_from).transpose()?,
            kill_grace_ms: task
                .kill_grace_ms
                .map(|ms| duration_ms("task.kill_grace_ms", ms, MAX_GRACE_MS))
                .transpose()?,
            warn_signal: warn_signal(task.warn_signal)?,
            max_completion_ms: task.max_completion_ms,
            cpu_limit_milli,
            data: data("task.data", task.data, MAX_DATA_BYTES)?,
            labels: labels("task.labels", task.labels, MAX_LABELS, MAX_NAME_BYTES)?,
        })
    }
}

impl From<TaskInfo> for proto::TaskInfo {
    fn from(task: TaskInfo) -> Self {
        Self {
            task_id: task.task_id.to_string(),
            name: task.name,
            agent_id: task.agent_id.to_string(),
            resources: write_with_lots(&task.resources, &task.lots),
            command: task.command.map(Into::into),
            executor: task.executor.map(Into::into),
            kill_grace_ms: task.kill_grace_ms,
            warn_signal: task.warn_signal,
            max_completion_ms: task.max_completion_ms,
            cpu_limit_milli: task.cpu_limit_milli,
            data: task.data,
            labels: write_labels(task.labels),
        }
    }
}

pub(crate) fn state(field: &'static str, number: i32) -> Result<TaskState, Invalid> {
    TaskState::from_number(number)
        .ok_or_else(|| Invalid::new(field, format!("is {number}, which is no task state")))
}

fn source(number: i32) -> Result<Source, Invalid> {
    [Source::Master, Source::Agent, Source::Executor]
        .into_iter()
        .find(|source| *source as i32 == number)
        .ok_or_else(|| {
            Invalid::new(
                "status.source",
                format!("is {number}; it must be 0, 1 or 2"),
            )
        })
}

impl TryFrom<proto::TaskStatus> for TaskStatus {
    type Error = Invalid;

    fn try_from(status: proto::TaskStatus) -> Result<Self, Invalid> {
        let limitation = resources("status.limitation", &status.limitation)?;
        let uuid_given = !status.uuid.is_empty();
        Ok(Self {
            task_id: id("status.task_id", &status.task_id, |t| TaskId::new(t))?,
            state: state("status.state", status.state)?,
            source: source(status.source)?,
            reason: status.reason.and_then(Reason::from_number),
            message: cut(status.message),
            agent_id: optional_id("status.agent_id", &status.agent_id, |t| AgentId::new(t))?,
            executor_id: optional_id("status.executor_id", &status.executor_id, |t| {
                ExecutorId::new(t)
            })?,
            container_id: optional_id("status.container_id", &status.container_id, |t| {
                ContainerId::new(t)
            })?,
            timestamp: Timestamp::from_ms(status.timestamp_ms),
            uuid: uuid_given
                .then(|| uuid("status.uuid", &status.uuid))
                .transpose()?,
            exit: status.exit.map(|exit| match exit {
                proto::task_status::Exit::ExitCode(code) => ExitStatus::Code(code),
                proto::task_status::Exit::ExitSignal(signal) => ExitStatus::Signal(signal),
            }),
            limitation: (!limitation.is_zero()).then_some(Limitation {
                resources: limitation,
            }),
            data: data("status.data", status.data, MAX_DATA_BYTES)?,
        })
    }
}

impl From<TaskStatus> for proto::TaskStatus {
    fn from(status: TaskStatus) -> Self {
        Self {
            task_id: status.task_id.to_string(),
            state: status.state as i32,
            source: status.source as i32,
            reason: status.reason.map(|reason| reason as i32),
            message: cut(status.message),
            agent_id: status.agent_id.map(|id| id.to_string()).unwrap_or_default(),
            executor_id: status
                .executor_id
                .map(|id| id.to_string())
                .unwrap_or_default(),
            container_id: status
                .container_id
                .map(|id| id.to_string())
                .unwrap_or_default(),
            timestamp_ms: status.timestamp.as_ms(),
            uuid: status.uuid.map(|uuid| uuid.0.to_vec()).unwrap_or_default(),
            exit: status.exit.map(|exit| match exit {
                ExitStatus::Code(code) => proto::task_status::Exit::ExitCode(code),
                ExitStatus::Signal(signal) => proto::task_status::Exit::ExitSignal(signal),
            }),
            limitation: status
                .limitation
                .map(|l| write_resources(&l.resources))
                .unwrap_or_default(),
            data: status.data,
        }
    }
}
