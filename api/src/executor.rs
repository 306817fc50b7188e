//! What frameworks' own executors say and hear.

use ebb_types::limits::{MAX_DATA_BYTES, MAX_GRACE_MS};
use ebb_types::{
    AgentId, ContainerId, ExecutorCall, ExecutorEvent, ExecutorId, FrameworkId, TaskId, TaskInfo,
    TaskStatus,
};
use proto::{executor_call as up, executor_event as down};

use crate::check::{Invalid, bounded, cut, data, duration_ms, id, required, uuid};
use crate::proto;

/// Most tasks or statuses that an executor may name when it subscribes.
const MAX_UNACKNOWLEDGED: usize = 100_000;

impl TryFrom<proto::ExecutorCall> for ExecutorCall {
    type Error = Invalid;

    fn try_from(wire: proto::ExecutorCall) -> Result<Self, Invalid> {
        match required("call", wire.call)? {
            up::Call::Subscribe(subscribe) => subscribe.try_into(),
            up::Call::Update(status) => Ok(Self::Update(status.try_into()?)),
            up::Call::Message(bytes) => Ok(Self::Message(data("message", bytes, MAX_DATA_BYTES)?)),
        }
    }
}

impl TryFrom<up::Subscribe> for ExecutorCall {
    type Error = Invalid;

    fn try_from(wire: up::Subscribe) -> Result<Self, Invalid> {
        let tasks = wire.unacknowledged_tasks;
        let updates = wire.unacknowledged_updates;
        bounded(
            "subscribe.unacknowledged_tasks",
            tasks.len(),
            MAX_UNACKNOWLEDGED,
        )?;
        bounded(
            "subscribe.unacknowledged_updates",
            updates.len(),
            MAX_UNACKNOWLEDGED,
        )?;
        Ok(Self::Subscribe {
            framework_id: id("subscribe.framework_id", &wire.framework_id, |t| {
                FrameworkId::new(t)
            })?,
            executor_id: id("subscribe.executor_id", &wire.executor_id, |t| {
                ExecutorId::new(t)
            })?,
            unacknowledged_tasks: tasks
                .iter()
                .map(|task| id("subscribe.unacknowledged_tasks", task, |t| TaskId::new(t)))
                .collect::<Result<_, _>>()?,
            unacknowledged_updates: updates
                .into_iter()
                .map(TaskStatus::try_from)
                .collect::<Result<_, _>>()?,
        })
    }
}

impl From<ExecutorCall> for proto::ExecutorCall {
    fn from(call: ExecutorCall) -> Self {
        let call = match call {
            ExecutorCall::Subscribe {
                framework_id,
                executor_id,
                unacknowledged_tasks,
                unacknowledged_updates,
            } => up::Call::Subscribe(up::Subscribe {
                framework_id: framework_id.to_string(),
                executor_id: executor_id.to_string(),
                unacknowledged_tasks: unacknowledged_tasks
                    .into_iter()
                    .map(|id| id.to_string())
                    .collect(),
                unacknowledged_updates: unacknowledged_updates
                    .into_iter()
                    .map(Into::into)
                    .collect(),
            }),
            ExecutorCall::Update(status) => up::Call::Update(status.into()),
            ExecutorCall::Message(bytes) => up::Call::Message(bytes),
        };
        Self { call: Some(call) }
    }
}

impl TryFrom<proto::ExecutorEvent> for ExecutorEvent {
    type Error = Invalid;

    fn try_from(wire: proto::ExecutorEvent) -> Result<Self, Invalid> {
        Ok(match required("event", wire.event)? {
            down::Event::Subscribed(subscribed) => Self::Subscribed {
                executor: required("subscribed.executor_info", subscribed.executor_info)?
                    .try_into()?,
                agent_id: id("subscribed.agent_id", &subscribed.agent_id, |t| {
                    AgentId::new(t)
                })?,
                container_id: id("subscribed.container_id", &subscribed.container_id, |t| {
                    ContainerId::new(t)
                })?,
            },
            down::Event::Launch(task) => Self::Launch(Box::new(TaskInfo::try_from(task)?)),
            down::Event::Kill(kill) => Self::Kill {
                task_id: id("kill.task_id", &kill.task_id, |t| TaskId::new(t))?,
                grace_ms: duration_ms(
                    "kill.grace_ms",
                    kill.grace_ms.unwrap_or_default(),
                    MAX_GRACE_MS,
                )?,
            },
            down::Event::Acknowledged(acknowledged) => Self::Acknowledged {
                task_id: id("acknowledged.task_id", &acknowledged.task_id, |t| {
                    TaskId::new(t)
                })?,
                uuid: uuid("acknowledged.uuid", &acknowledged.uuid)?,
            },
            down::Event::Message(bytes) => Self::Message(data("message", bytes, MAX_DATA_BYTES)?),
            down::Event::Shutdown(_) => Self::Shutdown,
            down::Event::Error(message) => Self::Error(cut(message)),
        })
    }
}

impl From<ExecutorEvent> for proto::ExecutorEvent {
    fn from(event: ExecutorEvent) -> Self {
        let event = match event {
            ExecutorEvent::Subscribed {
                executor,
                agent_id,
                container_id,
            } => down::Event::Subscribed(down::Subscribed {
                executor_info: Some(executor.into()),
                agent_id: agent_id.to_string(),
                container_id: container_id.to_string(),
            }),
            ExecutorEvent::Launch(task) => down::Event::Launch((*task).into()),
            ExecutorEvent::Kill { task_id, grace_ms } => down::Event::Kill(down::Kill {
                task_id: task_id.to_string(),
                grace_ms: Some(grace_ms),
            }),
            ExecutorEvent::Acknowledged { task_id, uuid } => {
                down::Event::Acknowledged(down::Acknowledged {
                    task_id: task_id.to_string(),
                    uuid: uuid.0.to_vec(),
                })
            }
            ExecutorEvent::Message(bytes) => down::Event::Message(bytes),
            ExecutorEvent::Shutdown => down::Event::Shutdown(proto::Empty {}),
            ExecutorEvent::Error(message) => down::Event::Error(cut(message)),
        };
        Self { event: Some(event) }
    }
}

#[cfg(test)]
mod tests {
    use ebb_types::{Source, TaskState, Timestamp, UpdateUuid};

    use super::*;

    #[test]
    fn calls_and_events_come_back_as_they_went() {
        let task_id = TaskId::new("t").unwrap();
        let mut status = TaskStatus::new(
            task_id.clone(),
            TaskState::Running,
            Source::Executor,
            Timestamp::from_ms(5),
        );
        status.uuid = Some(UpdateUuid([7; 16]));
        let calls = [
            ExecutorCall::Subscribe {
                framework_id: FrameworkId::new("f").unwrap(),
                executor_id: ExecutorId::new("e").unwrap(),
                unacknowledged_tasks: vec![task_id.clone()],
                unacknowledged_updates: vec![status.clone()],
            },
            ExecutorCall::Update(status),
            ExecutorCall::Message(vec![1, 2]),
        ];
        for call in calls {
            let wire = proto::ExecutorCall::from(call.clone());
            assert_eq!(ExecutorCall::try_from(wire), Ok(call));
        }
        let events = [
            ExecutorEvent::Kill {
                task_id: task_id.clone(),
                grace_ms: 9,
            },
            ExecutorEvent::Acknowledged {
                task_id,
                uuid: UpdateUuid([8; 16]),
            },
            ExecutorEvent::Message(vec![3]),
            ExecutorEvent::Shutdown,
            ExecutorEvent::Error("why".to_owned()),
        ];
        for event in events {
            let wire = proto::ExecutorEvent::from(event.clone());
            assert_eq!(ExecutorEvent::try_from(wire), Ok(event));
        }
        assert!(ExecutorCall::try_from(proto::ExecutorCall { call: None }).is_err());
    }
}
