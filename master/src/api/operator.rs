//! The operator service: what people and tools ask and have done.

use std::sync::Arc;
use std::time::Duration;

use ebb_api::proto;
use ebb_types::limits::MAX_GRACE_MS;
use ebb_types::{
    AdviceFilter, AgentId, Change, ExplainSubject, FrameworkId, LotLimits, Quota, Role, TaskId,
};
use futures_util::StreamExt;
use futures_util::future::ready;
use futures_util::stream::{once, unfold};
use tonic::{Request, Response, Status};

use super::stream::Answer;
use super::{cut_status, stopped};
use crate::core::{OperatorCommand, OperatorError};
use crate::driver::{Handle, Inlet};
use crate::mirror::{Parts, View};

/// Largest answer, in bytes: a whole cluster may be large.
pub(super) const MAX_STATE_BYTES: usize = 256 << 20;
/// Most quotas of one call.
const MAX_QUOTAS_PER_CALL: usize = 10_000;
/// Most weights of one call.
const MAX_WEIGHTS_PER_CALL: usize = 10_000;

pub(super) struct Service(pub(super) Handle);

impl Service {
    async fn operate(&self, command: OperatorCommand) -> Result<Response<proto::Empty>, Status> {
        let outcome = self.0.operate(command).await.map_err(stopped)?;
        outcome.map_err(refused)?;
        Ok(Response::new(proto::Empty {}))
    }
}

fn refused(error: OperatorError) -> Status {
    let message = error.to_string();
    match error {
        OperatorError::NoFramework(_)
        | OperatorError::NoTask { .. }
        | OperatorError::NoWindow(_)
        | OperatorError::NoAgent(_) => Status::not_found(message),
        OperatorError::Weight { .. } | OperatorError::QuotaUnfit { .. } => {
            Status::invalid_argument(message)
        }
        OperatorError::TooManyWeights { .. }
        | OperatorError::TooManyQuotas { .. }
        | OperatorError::TooManyWindows { .. } => Status::resource_exhausted(message),
        OperatorError::AlreadyActive(_)
        | OperatorError::StillDraining(_)
        | OperatorError::WindowOver(_)
        | OperatorError::MachineDown(_)
        | OperatorError::NotStarted(_)
        | OperatorError::Lots { .. }
        | OperatorError::QuotaBeyondCluster { .. }
        | OperatorError::QuotaExceeded { .. }
        | OperatorError::NoLot { .. }
        | OperatorError::LotLimitExceeded { .. } => Status::failed_precondition(message),
    }
}

fn invalid(error: impl std::fmt::Display) -> Status {
    Status::invalid_argument(error.to_string())
}

fn check_grace(grace_ms: Option<u64>) -> Result<(), Status> {
    if grace_ms.is_some_and(|grace| grace > MAX_GRACE_MS) {
        return Err(invalid(format!(
            "the grace is above one day; at most {MAX_GRACE_MS} ms are allowed"
        )));
    }
    Ok(())
}

#[tonic::async_trait]
impl proto::operator_server::Operator for Service {
    type WatchStream = Answer<proto::Change>;

    async fn get_state(
        &self,
        request: Request<proto::StateRequest>,
    ) -> Result<Response<proto::ClusterState>, Status> {
        let parts = wanted(&request.into_inner());
        let made = self.0.reads().make(move |view| view.state(parts).into());
        Ok(Response::new(made.await.map_err(stopped)?))
    }

    async fn watch(
        &self,
        _request: Request<proto::WatchRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let snapshot = |view: &View| Change::Snapshot(Box::new(view.state(Parts::ALL))).into();
        let (first, inlet) = self.0.watch(snapshot).await.map_err(stopped)?;
        let idle = Duration::from_millis(self.0.heartbeat_interval_ms().max(1));
        let first = once(ready(Ok(first)));
        Ok(Response::new(Box::pin(first.chain(changes(inlet, idle)))))
    }

    async fn set_weights(
        &self,
        request: Request<proto::SetWeightsRequest>,
    ) -> Result<Response<proto::Empty>, Status> {
        let wire = request.into_inner().weights;
        if wire.len() > MAX_WEIGHTS_PER_CALL {
            return Err(invalid(format!(
                "{} weights are given; at most {MAX_WEIGHTS_PER_CALL} may be at once",
                wire.len()
            )));
        }
        let mut weights = Vec::with_capacity(wire.len());
        for weight in wire {
            let role = Role::new(&weight.role).map_err(invalid)?;
            weights.push((role, weight.weight_milli));
        }
        self.operate(OperatorCommand::SetWeights(weights)).await
    }

    async fn set_quotas(
        &self,
        request: Request<proto::SetQuotasRequest>,
    ) -> Result<Response<proto::Empty>, Status> {
        let wire = request.into_inner();
        if wire.quotas.len() > MAX_QUOTAS_PER_CALL {
            return Err(invalid(format!(
                "{} quotas are given; at most {MAX_QUOTAS_PER_CALL} may be at once",
                wire.quotas.len()
            )));
        }
        let mut quotas = Vec::with_capacity(wire.quotas.len());
        let mut lot_limits = Vec::new();
        for quota in wire.quotas {
            let role = Role::new(&quota.role).map_err(invalid)?;
            let mut quota = quota.quota.unwrap_or_default();
            if let Some(limits) = quota.lot_limits.take() {
                let limits = LotLimits::try_from(limits).map_err(invalid)?;
                lot_limits.push((role.clone(), limits));
            }
            quotas.push((role, Quota::try_from(quota).map_err(invalid)?));
        }
        let force = wire.force;
        self.operate(OperatorCommand::SetQuotas {
            quotas,
            lot_limits,
            force,
        })
        .await
    }

    async fn teardown(
        &self,
        request: Request<proto::TeardownRequest>,
    ) -> Result<Response<proto::Empty>, Status> {
        let id = FrameworkId::new(request.into_inner().framework_id).map_err(invalid)?;
        self.operate(OperatorCommand::Teardown(id)).await
    }

    async fn kill_task(
        &self,
        request: Request<proto::KillTaskRequest>,
    ) -> Result<Response<proto::Empty>, Status> {
        let wire = request.into_inner();
        check_grace(wire.grace_ms)?;
        self.operate(OperatorCommand::KillTask {
            framework_id: FrameworkId::new(&wire.framework_id).map_err(invalid)?,
            task_id: TaskId::new(&wire.task_id).map_err(invalid)?,
            grace_ms: wire.grace_ms,
        })
        .await
    }

    async fn explain(
        &self,
        request: Request<proto::ExplainRequest>,
    ) -> Result<Response<proto::Explanation>, Status> {
        let subject = ExplainSubject::try_from(request.into_inner()).map_err(invalid)?;
        let outcome = self.0.explain(subject).await.map_err(stopped)?;
        Ok(Response::new(outcome.map_err(refused)?.into()))
    }

    async fn advise(
        &self,
        request: Request<proto::AdviseRequest>,
    ) -> Result<Response<proto::Advice>, Status> {
        let filter = AdviceFilter::try_from(request.into_inner()).map_err(invalid)?;
        let made = self.0.reads().make(move |view| view.advice(&filter).into());
        Ok(Response::new(made.await.map_err(stopped)?))
    }

    async fn deactivate_agent(
        &self,
        request: Request<proto::DeactivateAgentRequest>,
    ) -> Result<Response<proto::Empty>, Status> {
        let id = AgentId::new(request.into_inner().agent_id).map_err(invalid)?;
        self.operate(OperatorCommand::Deactivate(id)).await
    }

    async fn reactivate_agent(
        &self,
        request: Request<proto::ReactivateAgentRequest>,
    ) -> Result<Response<proto::Empty>, Status> {
        let id = AgentId::new(request.into_inner().agent_id).map_err(invalid)?;
        self.operate(OperatorCommand::Reactivate(id)).await
    }

    async fn schedule_maintenance(
        &self,
        request: Request<proto::ScheduleMaintenanceRequest>,
    ) -> Result<Response<proto::Empty>, Status> {
        let windows = ebb_api::windows(request.into_inner()).map_err(invalid)?;
        self.operate(OperatorCommand::ScheduleMaintenance(windows))
            .await
    }

    async fn cancel_maintenance(
        &self,
        request: Request<proto::MachinesRequest>,
    ) -> Result<Response<proto::Empty>, Status> {
        let machines = ebb_api::machines(request.into_inner()).map_err(invalid)?;
        self.operate(OperatorCommand::CancelMaintenance(machines))
            .await
    }

    async fn start_maintenance(
        &self,
        request: Request<proto::MachinesRequest>,
    ) -> Result<Response<proto::Empty>, Status> {
        let machines = ebb_api::machines(request.into_inner()).map_err(invalid)?;
        self.operate(OperatorCommand::StartMaintenance(machines))
            .await
    }

    async fn stop_maintenance(
        &self,
        request: Request<proto::MachinesRequest>,
    ) -> Result<Response<proto::Empty>, Status> {
        let machines = ebb_api::machines(request.into_inner()).map_err(invalid)?;
        self.operate(OperatorCommand::StopMaintenance(machines))
            .await
    }

    async fn drain_agent(
        &self,
        request: Request<proto::DrainAgentRequest>,
    ) -> Result<Response<proto::Empty>, Status> {
        let wire = request.into_inner();
        check_grace(wire.max_grace_ms)?;
        self.operate(OperatorCommand::Drain {
            agent_id: AgentId::new(&wire.agent_id).map_err(invalid)?,
            max_grace_ms: wire.max_grace_ms,
        })
        .await
    }

    async fn convert_lots(
        &self,
        request: Request<proto::ConvertLotsRequest>,
    ) -> Result<Response<proto::Empty>, Status> {
        let wanted = ebb_api::ConvertLots::try_from(request.into_inner()).map_err(invalid)?;
        self.operate(OperatorCommand::ConvertLots {
            agent_id: wanted.agent_id,
            kind: wanted.kind,
            lots: wanted.lots,
        })
        .await
    }
}

/// What was asked for; everything where nothing was.
fn wanted(request: &proto::StateRequest) -> Parts {
    let parts = Parts {
        agents: request.agents,
        frameworks: request.frameworks,
        tasks: request.tasks,
        roles: request.roles,
        offers: request.offers,
        maintenance: request.maintenance,
    };
    if parts == Parts::default() {
        return Parts::ALL;
    }
    parts
}

/// Changes as they come, and a heartbeat whenever none has come for a while.
fn changes(inlet: Inlet<Arc<Change>>, idle: Duration) -> Answer<proto::Change> {
    Box::pin(unfold(Some(inlet), move |inlet| async move {
        let mut inlet = inlet?;
        match tokio::time::timeout(idle, inlet.next()).await {
            Ok(Some(change)) => {
                let change = Arc::unwrap_or_clone(change);
                Some((Ok(change.into()), Some(inlet)))
            }
            Ok(None) => Some((Err(cut_status(inlet.cut()?)), None)),
            Err(_elapsed) => Some((Ok(Change::Heartbeat.into()), Some(inlet))),
        }
    }))
}
