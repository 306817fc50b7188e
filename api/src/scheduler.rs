//! Calls and events of the scheduler API.

use ebb_types::limits::{
    DEFAULT_REFUSE_MS, MAX_DATA_BYTES, MAX_GRACE_MS, MAX_NAME_BYTES, MAX_OFFERS_PER_CALL,
    MAX_RECONCILE_OPERATIONS, MAX_RECONCILE_TASKS, MAX_REFUSE_MS, MAX_TASKS_PER_CALL,
};
use ebb_types::{
    AgentId, Call, Event, ExecutorId, Filters, FrameworkId, FrameworkInfo, MalformedTask, Offer,
    OfferId, OfferTerms, Operation, OperationId, OperationKind, OperationState, OperationStatus,
    ReconcileTask, Role, TaskId, TaskInfo,
};
use proto::scheduler_call as call;
use proto::scheduler_event as event;

use crate::check::{
    Invalid, bounded, cut, data, duration_ms, id, optional_id, required, text, uuid,
};
use crate::common::{roles, write_roles};
use crate::lots::{lots, write_lots};
use crate::proto;
use crate::terms::{offer_terms, write_offer_terms};

fn offer_ids(list: &[String]) -> Result<Vec<OfferId>, Invalid> {
    bounded("offer_ids", list.len(), MAX_OFFERS_PER_CALL)?;
    list.iter()
        .map(|text| id("offer_ids", text, |t| OfferId::new(t)))
        .collect()
}

fn filters(filters: Option<proto::Filters>) -> Filters {
    let refuse_ms = filters
        .and_then(|filters| filters.refuse_ms)
        .unwrap_or(DEFAULT_REFUSE_MS);
    Filters {
        refuse_ms: refuse_ms.min(MAX_REFUSE_MS),
    }
}

fn write_filters(filters: Filters) -> Option<proto::Filters> {
    Some(proto::Filters {
        refuse_ms: Some(filters.refuse_ms),
    })
}

/// Reads an operation. A task that breaks a rule is put aside with the rule, so that it fails alone;
/// without a valid id it could not be answered, and fails the whole call.
fn operation(operation: proto::Operation) -> Result<Operation, Invalid> {
    use proto::operation::Operation as Wire;
    let id = optional_id("operation.id", &operation.id, |t| OperationId::new(t))?;
    match required("operation", operation.operation)? {
        Wire::Launch(launch) => self::launch(launch),
        Wire::Reserve(wire) => Ok(convert(id, OperationKind::Reserve, wire)),
        Wire::Unreserve(wire) => Ok(convert(id, OperationKind::Unreserve, wire)),
        Wire::Create(wire) => Ok(convert(id, OperationKind::Create, wire)),
        Wire::Destroy(wire) => Ok(convert(id, OperationKind::Destroy, wire)),
    }
}

/// One that breaks a rule is put aside with the rule.
fn convert(
    id: Option<OperationId>,
    kind: OperationKind,
    wire: proto::operation::Convert,
) -> Operation {
    match lots("operation.lots", wire.lots) {
        Ok(lots) => Operation::Convert { id, kind, lots },
        Err(error) => Operation::Malformed {
            id,
            rule: error.to_string(),
        },
    }
}

fn launch(launch: proto::operation::Launch) -> Result<Operation, Invalid> {
    bounded("launch.tasks", launch.tasks.len(), MAX_TASKS_PER_CALL)?;
    let (mut tasks, mut malformed) = (Vec::with_capacity(launch.tasks.len()), Vec::new());
    for task in launch.tasks {
        let task_id = id("task.task_id", &task.task_id, |t| TaskId::new(t))?;
        match TaskInfo::try_from(task) {
            Ok(task) => tasks.push(task),
            Err(error) => malformed.push(MalformedTask {
                task_id,
                rule: error.to_string(),
            }),
        }
    }
    Ok(Operation::Launch { tasks, malformed })
}

impl TryFrom<call::Subscribe> for Call {
    type Error = Invalid;

    fn try_from(call: call::Subscribe) -> Result<Self, Invalid> {
        Ok(Self::Subscribe {
            info: required("subscribe.framework_info", call.framework_info)?.try_into()?,
            suppressed_roles: roles("subscribe.suppressed_roles", &call.suppressed_roles)?,
            terms: offer_terms(call.terms)?,
        })
    }
}

fn accept(accept: call::Accept) -> Result<Call, Invalid> {
    bounded(
        "accept.operations",
        accept.operations.len(),
        MAX_TASKS_PER_CALL,
    )?;
    Ok(Call::Accept {
        offer_ids: offer_ids(&accept.offer_ids)?,
        operations: accept
            .operations
            .into_iter()
            .map(operation)
            .collect::<Result<_, _>>()?,
        filters: filters(accept.filters),
    })
}

fn reconcile(reconcile: &call::Reconcile) -> Result<Call, Invalid> {
    bounded(
        "reconcile.tasks",
        reconcile.tasks.len(),
        MAX_RECONCILE_TASKS,
    )?;
    let tasks = reconcile.tasks.iter().map(|task| {
        Ok(ReconcileTask {
            task_id: id("reconcile.task_id", &task.task_id, |t| TaskId::new(t))?,
            agent_id: optional_id("reconcile.agent_id", &task.agent_id, |t| AgentId::new(t))?,
        })
    });
    Ok(Call::Reconcile {
        tasks: tasks.collect::<Result<_, _>>()?,
    })
}

fn reconcile_operations(reconcile: &call::ReconcileOperations) -> Result<Call, Invalid> {
    let name = "reconcile_operations.ids";
    bounded(name, reconcile.ids.len(), MAX_RECONCILE_OPERATIONS)?;
    let ids = reconcile
        .ids
        .iter()
        .map(|text| id(name, text, |t| OperationId::new(t)));
    Ok(Call::ReconcileOperations {
        ids: ids.collect::<Result<_, _>>()?,
    })
}

impl TryFrom<proto::SchedulerCall> for Call {
    type Error = Invalid;

    fn try_from(wire: proto::SchedulerCall) -> Result<Self, Invalid> {
        Ok(match required("call", wire.call)? {
            call::Call::Subscribe(call) => call.try_into()?,
            call::Call::Teardown(_) => Self::Teardown,
            call::Call::Accept(call) => accept(call)?,
            call::Call::Decline(call) => Self::Decline {
                offer_ids: offer_ids(&call.offer_ids)?,
                filters: filters(call.filters),
            },
            call::Call::AcceptInverseOffers(call) => Self::AcceptInverseOffers {
                offer_ids: offer_ids(&call.offer_ids)?,
                filters: filters(call.filters),
            },
            call::Call::DeclineInverseOffers(call) => Self::DeclineInverseOffers {
                offer_ids: offer_ids(&call.offer_ids)?,
                filters: filters(call.filters),
            },
            call::Call::Revive(call) => Self::Revive {
                roles: roles("revive.roles", &call.roles)?,
            },
            call::Call::Suppress(call) => Self::Suppress {
                roles: roles("suppress.roles", &call.roles)?,
            },
            call::Call::Kill(call) => Self::Kill {
                task_id: id("kill.task_id", &call.task_id, |t| TaskId::new(t))?,
                agent_id: optional_id("kill.agent_id", &call.agent_id, |t| AgentId::new(t))?,
                grace_ms: call
                    .grace_ms
                    .map(|ms| duration_ms("kill.grace_ms", ms, MAX_GRACE_MS))
                    .transpose()?,
            },
            call::Call::Acknowledge(call) => Self::Acknowledge {
                agent_id: id("acknowledge.agent_id", &call.agent_id, |t| AgentId::new(t))?,
                task_id: id("acknowledge.task_id", &call.task_id, |t| TaskId::new(t))?,
                uuid: uuid("acknowledge.uuid", &call.uuid)?,
            },
            call::Call::Reconcile(call) => reconcile(&call)?,
            call::Call::AcknowledgeOperation(call) => Self::AcknowledgeOperation {
                id: id("acknowledge_operation.id", &call.id, |t| {
                    OperationId::new(t)
                })?,
                uuid: uuid("acknowledge_operation.uuid", &call.uuid)?,
            },
            call::Call::ReconcileOperations(call) => reconcile_operations(&call)?,
            call::Call::Message(call) => Self::Message {
                agent_id: id("message.agent_id", &call.agent_id, |t| AgentId::new(t))?,
                executor_id: id("message.executor_id", &call.executor_id, |t| {
                    ExecutorId::new(t)
                })?,
                data: data("message.data", call.data, MAX_DATA_BYTES)?,
            },
            call::Call::Shutdown(call) => Self::Shutdown {
                executor_id: id("shutdown.executor_id", &call.executor_id, |t| {
                    ExecutorId::new(t)
                })?,
                agent_id: id("shutdown.agent_id", &call.agent_id, |t| AgentId::new(t))?,
            },
            call::Call::UpdateFramework(call) => Self::UpdateFramework {
                info: required("update_framework.framework_info", call.framework_info)?
                    .try_into()?,
                suppressed_roles: roles(
                    "update_framework.suppressed_roles",
                    &call.suppressed_roles,
                )?,
                terms: offer_terms(call.terms)?,
            },
        })
    }
}

fn write_operation(operation: Operation) -> proto::Operation {
    use proto::operation::Operation as Wire;
    let (id, operation) = match operation {
        Operation::Launch { tasks, .. } => {
            let tasks = tasks.into_iter().map(Into::into).collect();
            (None, Wire::Launch(proto::operation::Launch { tasks }))
        }
        Operation::Convert { id, kind, lots } => {
            let wire = proto::operation::Convert {
                lots: write_lots(&lots),
            };
            let operation = match kind {
                OperationKind::Reserve => Wire::Reserve(wire),
                OperationKind::Unreserve => Wire::Unreserve(wire),
                OperationKind::Create => Wire::Create(wire),
                OperationKind::Destroy => Wire::Destroy(wire),
            };
            (id, operation)
        }
        // Never made but by reading: as nothing that can be carried out.
        Operation::Malformed { id, .. } => {
            (id, Wire::Reserve(proto::operation::Convert::default()))
        }
    };
    proto::Operation {
        id: id.map(|id| id.to_string()).unwrap_or_default(),
        operation: Some(operation),
    }
}

fn write_ids<T: ToString>(ids: &[T]) -> Vec<String> {
    ids.iter().map(ToString::to_string).collect()
}

impl From<Call> for proto::SchedulerCall {
    fn from(value: Call) -> Self {
        let subscribe =
            |info: FrameworkInfo, suppressed: &[Role], terms: OfferTerms| call::Subscribe {
                framework_info: Some(info.into()),
                suppressed_roles: write_roles(suppressed),
                terms: write_offer_terms(terms),
            };
        let call = match value {
            Call::Subscribe {
                info,
                suppressed_roles,
                terms,
            } => call::Call::Subscribe(subscribe(info, &suppressed_roles, terms)),
            Call::UpdateFramework {
                info,
                suppressed_roles,
                terms,
            } => call::Call::UpdateFramework(subscribe(info, &suppressed_roles, terms)),
            Call::Teardown => call::Call::Teardown(proto::Empty {}),
            Call::Accept {
                offer_ids,
                operations,
                filters,
            } => call::Call::Accept(call::Accept {
                offer_ids: write_ids(&offer_ids),
                operations: operations.into_iter().map(write_operation).collect(),
                filters: write_filters(filters),
            }),
            Call::Decline { offer_ids, filters } => call::Call::Decline(call::Decline {
                offer_ids: write_ids(&offer_ids),
                filters: write_filters(filters),
            }),
            Call::AcceptInverseOffers { offer_ids, filters } => {
                call::Call::AcceptInverseOffers(call::Decline {
                    offer_ids: write_ids(&offer_ids),
                    filters: write_filters(filters),
                })
            }
            Call::DeclineInverseOffers { offer_ids, filters } => {
                call::Call::DeclineInverseOffers(call::Decline {
                    offer_ids: write_ids(&offer_ids),
                    filters: write_filters(filters),
                })
            }
            Call::Revive { roles } => call::Call::Revive(call::Roles {
                roles: write_roles(&roles),
            }),
            Call::Suppress { roles } => call::Call::Suppress(call::Roles {
                roles: write_roles(&roles),
            }),
            Call::Kill {
                task_id,
                agent_id,
                grace_ms,
            } => call::Call::Kill(call::Kill {
                task_id: task_id.to_string(),
                agent_id: agent_id.map(|id| id.to_string()).unwrap_or_default(),
                grace_ms,
            }),
            Call::Acknowledge {
                agent_id,
                task_id,
                uuid,
            } => call::Call::Acknowledge(call::Acknowledge {
                agent_id: agent_id.to_string(),
                task_id: task_id.to_string(),
                uuid: uuid.0.to_vec(),
            }),
            Call::Reconcile { tasks } => call::Call::Reconcile(call::Reconcile {
                tasks: tasks
                    .into_iter()
                    .map(|task| call::reconcile::Task {
                        task_id: task.task_id.to_string(),
                        agent_id: task.agent_id.map(|id| id.to_string()).unwrap_or_default(),
                    })
                    .collect(),
            }),
            Call::AcknowledgeOperation { id, uuid } => {
                call::Call::AcknowledgeOperation(call::AcknowledgeOperation {
                    id: id.to_string(),
                    uuid: uuid.0.to_vec(),
                })
            }
            Call::ReconcileOperations { ids } => {
                call::Call::ReconcileOperations(call::ReconcileOperations {
                    ids: write_ids(&ids),
                })
            }
            Call::Message {
                agent_id,
                executor_id,
                data,
            } => call::Call::Message(call::Message {
                agent_id: agent_id.to_string(),
                executor_id: executor_id.to_string(),
                data,
            }),
            Call::Shutdown {
                executor_id,
                agent_id,
            } => call::Call::Shutdown(call::Shutdown {
                executor_id: executor_id.to_string(),
                agent_id: agent_id.to_string(),
            }),
        };
        Self { call: Some(call) }
    }
}

impl TryFrom<proto::SchedulerEvent> for Event {
    type Error = Invalid;

    fn try_from(wire: proto::SchedulerEvent) -> Result<Self, Invalid> {
        Ok(match required("event", wire.event)? {
            event::Event::Subscribed(event) => Self::Subscribed {
                framework_id: id("subscribed.framework_id", &event.framework_id, |t| {
                    FrameworkId::new(t)
                })?,
                heartbeat_interval_ms: event.heartbeat_interval_ms,
                master: required("subscribed.master", event.master)?.try_into()?,
            },
            event::Event::Offers(event) => Self::Offers(
                event
                    .offers
                    .into_iter()
                    .map(Offer::try_from)
                    .collect::<Result<_, _>>()?,
            ),
            event::Event::Rescind(offer) => {
                Self::Rescind(id("rescind", &offer, |t| OfferId::new(t))?)
            }
            event::Event::InverseOffers(event) => {
                bounded(
                    "inverse_offers",
                    event.inverse_offers.len(),
                    MAX_OFFERS_PER_CALL,
                )?;
                let offers = event.inverse_offers.into_iter();
                Self::InverseOffers(offers.map(TryInto::try_into).collect::<Result<_, _>>()?)
            }
            event::Event::RescindInverseOffer(offer) => {
                Self::RescindInverseOffer(id("rescind_inverse_offer", &offer, |t| OfferId::new(t))?)
            }
            event::Event::Update(status) => Self::Update(status.try_into()?),
            event::Event::Message(event) => Self::Message {
                agent_id: id("message.agent_id", &event.agent_id, |t| AgentId::new(t))?,
                executor_id: id("message.executor_id", &event.executor_id, |t| {
                    ExecutorId::new(t)
                })?,
                data: data("message.data", event.data, MAX_DATA_BYTES)?,
            },
            event::Event::Failure(event) => Self::Failure {
                agent_id: optional_id("failure.agent_id", &event.agent_id, |t| AgentId::new(t))?,
                executor_id: optional_id("failure.executor_id", &event.executor_id, |t| {
                    ExecutorId::new(t)
                })?,
                status: event.status,
            },
            event::Event::Error(message) => {
                Self::Error(text("error", cut(message), MAX_NAME_BYTES * 4)?)
            }
            event::Event::Operation(status) => Self::Operation(status.try_into()?),
            event::Event::Heartbeat(_) => Self::Heartbeat,
        })
    }
}

impl From<Event> for proto::SchedulerEvent {
    fn from(value: Event) -> Self {
        let event = match value {
            Event::Subscribed {
                framework_id,
                heartbeat_interval_ms,
                master,
            } => event::Event::Subscribed(event::Subscribed {
                framework_id: framework_id.to_string(),
                heartbeat_interval_ms,
                master: Some(master.into()),
            }),
            Event::Offers(offers) => event::Event::Offers(event::Offers {
                offers: offers.into_iter().map(Into::into).collect(),
            }),
            Event::Rescind(offer) => event::Event::Rescind(offer.to_string()),
            Event::InverseOffers(offers) => event::Event::InverseOffers(event::InverseOffers {
                inverse_offers: offers.into_iter().map(Into::into).collect(),
            }),
            Event::RescindInverseOffer(offer) => {
                event::Event::RescindInverseOffer(offer.to_string())
            }
            Event::Update(status) => event::Event::Update(status.into()),
            Event::Message {
                agent_id,
                executor_id,
                data,
            } => event::Event::Message(event::Message {
                agent_id: agent_id.to_string(),
                executor_id: executor_id.to_string(),
                data,
            }),
            Event::Failure {
                agent_id,
                executor_id,
                status,
            } => event::Event::Failure(event::Failure {
                agent_id: agent_id.map(|id| id.to_string()).unwrap_or_default(),
                executor_id: executor_id.map(|id| id.to_string()).unwrap_or_default(),
                status,
            }),
            Event::Error(message) => event::Event::Error(cut(message)),
            Event::Operation(status) => event::Event::Operation(status.into()),
            Event::Heartbeat => event::Event::Heartbeat(proto::Empty {}),
        };
        Self { event: Some(event) }
    }
}

impl From<OperationStatus> for proto::OperationStatus {
    fn from(status: OperationStatus) -> Self {
        Self {
            id: status.id.to_string(),
            state: status.state as i32,
            message: cut(status.message),
            agent_id: status.agent_id.map(|id| id.to_string()).unwrap_or_default(),
            uuid: status.uuid.map(|uuid| uuid.0.to_vec()).unwrap_or_default(),
        }
    }
}

impl TryFrom<proto::OperationStatus> for OperationStatus {
    type Error = Invalid;

    fn try_from(status: proto::OperationStatus) -> Result<Self, Invalid> {
        let state = OperationState::ALL
            .into_iter()
            .find(|state| *state as i32 == status.state);
        Ok(Self {
            id: id("operation.id", &status.id, |t| OperationId::new(t))?,
            state: state.ok_or_else(|| {
                Invalid::new(
                    "operation.state",
                    format!("is {}, which is none", status.state),
                )
            })?,
            message: cut(status.message),
            agent_id: optional_id("operation.agent_id", &status.agent_id, |t| AgentId::new(t))?,
            uuid: match status.uuid.is_empty() {
                true => None,
                false => Some(uuid("operation.uuid", &status.uuid)?),
            },
        })
    }
}
