//! Messages between agents and master, each in an envelope that says in which life of the agent or
//! term of the master it was written.

use ebb_types::limits::{MAX_DATA_BYTES, MAX_FRAME_BYTES, MAX_GRACE_MS, MAX_NAME_BYTES};
use ebb_types::{
    AgentId, AgentToMaster, ContainerId, ExecutorId, FrameworkId, Generation, Incarnation,
    MasterToAgent, RunningExecutor, RunningTask, TaskId,
};
use proto::{agent_message as up, master_message as down};

use crate::advice::classes;
use crate::check::{
    Invalid, bounded, cut, data, duration_ms, id, optional_id, quantities, required, text, uuid,
    write_quantities,
};
use crate::proto;
use crate::task::state;

/// More tasks than any frame could hold; a bound of its own keeps the reason in the error.
const MAX_RUNNING_TASKS: usize = MAX_FRAME_BYTES / 64;

/// A message of an agent and the life in which it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentEnvelope {
    /// The life of the agent.
    pub incarnation: Incarnation,
    /// The message.
    pub message: AgentToMaster,
}

/// A message of the master and the term in which it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MasterEnvelope {
    /// The term of the master.
    pub generation: Generation,
    /// The message.
    pub message: MasterToAgent,
}

fn framework(text: &str) -> Result<FrameworkId, Invalid> {
    id("framework_id", text, |t| FrameworkId::new(t))
}

fn executor(text: &str) -> Result<ExecutorId, Invalid> {
    id("executor_id", text, |t| ExecutorId::new(t))
}

fn task(text: &str) -> Result<TaskId, Invalid> {
    id("task_id", text, |t| TaskId::new(t))
}

impl TryFrom<proto::RunningTask> for RunningTask {
    type Error = Invalid;

    fn try_from(running: proto::RunningTask) -> Result<Self, Invalid> {
        Ok(Self {
            framework_id: framework(&running.framework_id)?,
            info: required("running_task.info", running.info)?.try_into()?,
            state: state("running_task.state", running.state)?,
            container_id: optional_id("running_task.container_id", &running.container_id, |t| {
                ContainerId::new(t)
            })?,
        })
    }
}

impl From<RunningTask> for proto::RunningTask {
    fn from(running: RunningTask) -> Self {
        Self {
            framework_id: running.framework_id.to_string(),
            info: Some(running.info.into()),
            state: running.state as i32,
            container_id: running
                .container_id
                .map(|id| id.to_string())
                .unwrap_or_default(),
        }
    }
}

fn reregister(message: up::Reregister, incarnation: Incarnation) -> Result<AgentToMaster, Invalid> {
    bounded("reregister.tasks", message.tasks.len(), MAX_RUNNING_TASKS)?;
    bounded(
        "reregister.executors",
        message.executors.len(),
        MAX_RUNNING_TASKS,
    )?;
    let executors = message.executors.into_iter().map(|running| {
        Ok(RunningExecutor {
            framework_id: framework(&running.framework_id)?,
            info: required("running_executor.info", running.info)?.try_into()?,
        })
    });
    Ok(AgentToMaster::Reregister {
        info: required("reregister.info", message.info)?.try_into()?,
        incarnation,
        tasks: message
            .tasks
            .into_iter()
            .map(RunningTask::try_from)
            .collect::<Result<_, _>>()?,
        executors: executors.collect::<Result<_, Invalid>>()?,
        oversubscribed: quantities("reregister.oversubscribed", &message.oversubscribed)?,
    })
}

impl TryFrom<proto::AgentMessage> for AgentEnvelope {
    type Error = Invalid;

    fn try_from(wire: proto::AgentMessage) -> Result<Self, Invalid> {
        let incarnation = Incarnation(wire.incarnation);
        let message = match required("message", wire.message)? {
            up::Message::Register(info) => AgentToMaster::Register {
                info: info.try_into()?,
                incarnation,
            },
            up::Message::Reregister(message) => reregister(message, incarnation)?,
            up::Message::Heartbeat(_) if !wire.classes.is_empty() => {
                AgentToMaster::Classes(classes(wire.classes)?)
            }
            up::Message::Heartbeat(_) => AgentToMaster::Heartbeat,
            up::Message::Update(update) => AgentToMaster::Update {
                framework_id: framework(&update.framework_id)?,
                status: required("update.status", update.status)?.try_into()?,
                latest_state: state("update.latest_state", update.latest_state)?,
            },
            up::Message::Oversubscribed(lent) => {
                AgentToMaster::Oversubscribed(quantities("oversubscribed", &lent.oversubscribed)?)
            }
            up::Message::Usage(usage) => AgentToMaster::Usage(usage.try_into()?),
            up::Message::FrameworkMessage(message) => AgentToMaster::Message {
                framework_id: framework(&message.framework_id)?,
                executor_id: executor(&message.executor_id)?,
                data: data("message.data", message.data, MAX_DATA_BYTES)?,
            },
            up::Message::LotsApplied(applied) => AgentToMaster::LotsApplied {
                version: applied.version,
            },
            up::Message::ExecutorExited(exited) => AgentToMaster::ExecutorExited {
                framework_id: framework(&exited.framework_id)?,
                executor_id: executor(&exited.executor_id)?,
                status: exited.status,
            },
        };
        Ok(Self {
            incarnation,
            message,
        })
    }
}

impl From<AgentEnvelope> for proto::AgentMessage {
    fn from(envelope: AgentEnvelope) -> Self {
        let mut classes = Vec::new();
        let message = match envelope.message {
            AgentToMaster::Register { info, .. } => up::Message::Register(info.into()),
            AgentToMaster::Reregister {
                info,
                tasks,
                executors,
                oversubscribed,
                ..
            } => up::Message::Reregister(up::Reregister {
                info: Some(info.into()),
                tasks: tasks.into_iter().map(Into::into).collect(),
                executors: executors
                    .into_iter()
                    .map(|running| proto::RunningExecutor {
                        framework_id: running.framework_id.to_string(),
                        info: Some(running.info.into()),
                    })
                    .collect(),
                oversubscribed: write_quantities(&oversubscribed, false),
            }),
            AgentToMaster::Heartbeat => up::Message::Heartbeat(proto::Empty {}),
            AgentToMaster::Update {
                framework_id,
                status,
                latest_state,
            } => up::Message::Update(up::Update {
                framework_id: framework_id.to_string(),
                status: Some(status.into()),
                latest_state: latest_state as i32,
            }),
            AgentToMaster::Oversubscribed(lent) => {
                up::Message::Oversubscribed(up::Oversubscribed {
                    oversubscribed: write_quantities(&lent, false),
                })
            }
            AgentToMaster::Usage(usage) => up::Message::Usage(usage.into()),
            AgentToMaster::Classes(told) => {
                classes = told.into_iter().map(Into::into).collect();
                up::Message::Heartbeat(proto::Empty {})
            }
            AgentToMaster::Message {
                framework_id,
                executor_id,
                data,
            } => up::Message::FrameworkMessage(up::FrameworkMessage {
                framework_id: framework_id.to_string(),
                executor_id: executor_id.to_string(),
                data,
            }),
            AgentToMaster::LotsApplied { version } => {
                up::Message::LotsApplied(up::LotsApplied { version })
            }
            AgentToMaster::ExecutorExited {
                framework_id,
                executor_id,
                status,
            } => up::Message::ExecutorExited(up::ExecutorExited {
                framework_id: framework_id.to_string(),
                executor_id: executor_id.to_string(),
                status,
            }),
        };
        Self {
            incarnation: envelope.incarnation.0,
            classes,
            message: Some(message),
        }
    }
}

fn launch(launch: down::Launch) -> Result<MasterToAgent, Invalid> {
    Ok(MasterToAgent::Launch {
        framework_id: framework(&launch.framework_id)?,
        user: text("launch.user", launch.user, MAX_NAME_BYTES)?,
        incarnation: Incarnation(launch.incarnation),
        task: Box::new(required("launch.task", launch.task)?.try_into()?),
    })
}

impl TryFrom<proto::MasterMessage> for MasterEnvelope {
    type Error = Invalid;

    fn try_from(wire: proto::MasterMessage) -> Result<Self, Invalid> {
        let generation = Generation(wire.generation);
        let message = match required("message", wire.message)? {
            down::Message::Registered(registered) => MasterToAgent::Registered {
                agent_id: id("registered.agent_id", &registered.agent_id, |t| {
                    AgentId::new(t)
                })?,
                generation,
                heartbeat_interval_ms: registered.heartbeat_interval_ms,
                unreachable_after_ms: registered.unreachable_after_ms,
            },
            down::Message::Refused(message) => MasterToAgent::Refused {
                message: cut(message),
            },
            down::Message::Heartbeat(_) => MasterToAgent::Heartbeat,
            down::Message::Launch(message) => launch(message)?,
            down::Message::Kill(kill) => MasterToAgent::Kill {
                framework_id: framework(&kill.framework_id)?,
                task_id: task(&kill.task_id)?,
                grace_ms: kill
                    .grace_ms
                    .map(|ms| duration_ms("kill.grace_ms", ms, MAX_GRACE_MS))
                    .transpose()?,
            },
            down::Message::Acknowledge(acknowledge) => MasterToAgent::Acknowledge {
                framework_id: framework(&acknowledge.framework_id)?,
                task_id: task(&acknowledge.task_id)?,
                uuid: uuid("acknowledge.uuid", &acknowledge.uuid)?,
            },
            down::Message::ShutdownFramework(text) => MasterToAgent::ShutdownFramework {
                framework_id: framework(&text)?,
            },
            down::Message::ShutdownExecutor(shutdown) => MasterToAgent::ShutdownExecutor {
                framework_id: framework(&shutdown.framework_id)?,
                executor_id: executor(&shutdown.executor_id)?,
            },
            down::Message::Lots(order) => MasterToAgent::Lots {
                version: order.version,
                dynamic: order.dynamic.unwrap_or_default().try_into()?,
            },
            down::Message::FrameworkMessage(message) => MasterToAgent::Message {
                framework_id: framework(&message.framework_id)?,
                executor_id: executor(&message.executor_id)?,
                data: data("message.data", message.data, MAX_DATA_BYTES)?,
            },
        };
        Ok(Self {
            generation,
            message,
        })
    }
}

impl From<MasterEnvelope> for proto::MasterMessage {
    fn from(envelope: MasterEnvelope) -> Self {
        let message = match envelope.message {
            MasterToAgent::Registered {
                agent_id,
                heartbeat_interval_ms,
                unreachable_after_ms,
                ..
            } => down::Message::Registered(down::Registered {
                agent_id: agent_id.to_string(),
                heartbeat_interval_ms,
                unreachable_after_ms,
            }),
            MasterToAgent::Refused { message } => down::Message::Refused(cut(message)),
            MasterToAgent::Heartbeat => down::Message::Heartbeat(proto::Empty {}),
            MasterToAgent::Launch {
                framework_id,
                user,
                incarnation,
                task,
            } => down::Message::Launch(down::Launch {
                framework_id: framework_id.to_string(),
                user,
                incarnation: incarnation.0,
                task: Some((*task).into()),
            }),
            MasterToAgent::Kill {
                framework_id,
                task_id,
                grace_ms,
            } => down::Message::Kill(down::Kill {
                framework_id: framework_id.to_string(),
                task_id: task_id.to_string(),
                grace_ms,
            }),
            MasterToAgent::Acknowledge {
                framework_id,
                task_id,
                uuid,
            } => down::Message::Acknowledge(down::Acknowledge {
                framework_id: framework_id.to_string(),
                task_id: task_id.to_string(),
                uuid: uuid.0.to_vec(),
            }),
            MasterToAgent::ShutdownFramework { framework_id } => {
                down::Message::ShutdownFramework(framework_id.to_string())
            }
            MasterToAgent::ShutdownExecutor {
                framework_id,
                executor_id,
            } => down::Message::ShutdownExecutor(down::ShutdownExecutor {
                framework_id: framework_id.to_string(),
                executor_id: executor_id.to_string(),
            }),
            MasterToAgent::Lots { version, dynamic } => down::Message::Lots(down::LotsOrder {
                version,
                dynamic: Some(dynamic.into()),
            }),
            MasterToAgent::Message {
                framework_id,
                executor_id,
                data,
            } => down::Message::FrameworkMessage(down::FrameworkMessage {
                framework_id: framework_id.to_string(),
                executor_id: executor_id.to_string(),
                data,
            }),
        };
        Self {
            generation: envelope.generation.0,
            message: Some(message),
        }
    }
}
