//! The operator client: what `ebb` asks of a master.
//!
//! The problem: every failure must end as a sentence that says what to do, and none may hang. The
//! invariants: connecting and every single answer have a deadline; answers are checked and turned
//! into the vocabulary here, so that nothing behind this module sees a wire type.

use std::error::Error;
use std::io;
use std::str::FromStr;
use std::time::Duration;

use ebb_api::proto::operator_client::OperatorClient;
use ebb_api::proto::{
    self, ConvertLotsRequest, DeactivateAgentRequest, DrainAgentRequest, KillTaskRequest,
    MachinesRequest, ReactivateAgentRequest, ScheduleMaintenanceRequest, SetQuotasRequest,
    SetWeightsRequest, StateRequest, TeardownRequest, WatchRequest,
    schedule_maintenance_request::Window, set_quotas_request::RoleQuota,
    set_weights_request::Weight,
};
use ebb_types::limits::MAX_NAME_BYTES;
use ebb_types::{
    Advice, AdviceFilter, AgentId, AgentInfo, Change, ClusterState, ExplainSubject, Explanation,
    FrameworkId, LotLimits, Machine, OperationKind, Quota, Role, RoleState, TaskId, Unavailability,
};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status, Streaming};

use crate::error::CliError;
use crate::output::quantity::shown;
use crate::output::table::clean;

/// The longest that connecting may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// The longest that one answer may take.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(15);
/// The largest state of a cluster that is read, in bytes: some 100,000 tasks with their statuses.
const MAX_STATE_BYTES: usize = 256 * 1024 * 1024;

/// Where a master listens: `HOST:PORT`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Address(String);

impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        const EXAMPLE: &str = "write it like 127.0.0.1:5050";
        let fault = |what: &str| format!("{:?} {what}; {EXAMPLE}", shown(text));
        let bare = text.strip_prefix("http://").unwrap_or(text);
        let bare = bare.strip_suffix('/').unwrap_or(bare);
        if bare.len() > MAX_NAME_BYTES {
            return Err(fault("is too long for an address"));
        }
        if bare.starts_with("https://") {
            return Err(fault("asks for TLS, which the native API does not speak"));
        }
        let Some((host, port)) = bare.rsplit_once(':') else {
            return Err(fault("names no port"));
        };
        let host_is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
        let v6 = host.strip_prefix('[').and_then(|h| h.strip_suffix(']'));
        let host_is_valid = match v6 {
            Some(v6) => v6.parse::<std::net::Ipv6Addr>().is_ok(),
            None => !host.is_empty() && host.chars().all(host_is_plain),
        };
        if !host_is_valid {
            return Err(fault("names no host"));
        }
        match port.parse::<u16>() {
            Ok(port) if port > 0 => Ok(Self(bare.to_owned())),
            _ => Err(fault("names no port between 1 and 65535")),
        }
    }
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// Opens a channel; the error is the cause alone.
pub(crate) async fn open(address: &str) -> Result<Channel, String> {
    let endpoint = Endpoint::from_shared(format!("http://{address}"))
        .map_err(|_| "this is no address that can be dialled".to_owned())?
        .connect_timeout(CONNECT_TIMEOUT)
        .tcp_nodelay(true);
    // The name may also resolve slowly, which connect_timeout does not bound.
    match tokio::time::timeout(2 * CONNECT_TIMEOUT, endpoint.connect()).await {
        Ok(Ok(channel)) => Ok(channel),
        Ok(Err(error)) => Err(root_cause(&error)),
        Err(_) => Err(format!("no answer within {} s", CONNECT_TIMEOUT.as_secs())),
    }
}

/// The innermost cause of an error, in plain words.
fn root_cause(error: &(dyn Error + 'static)) -> String {
    let mut cause = error;
    let mut kind = None;
    loop {
        if let Some(io) = cause.downcast_ref::<io::Error>() {
            kind = Some(io.kind());
        }
        match cause.source() {
            Some(source) => cause = source,
            None => break,
        }
    }
    match kind {
        Some(io::ErrorKind::ConnectionRefused) => "connection refused".to_owned(),
        Some(io::ErrorKind::TimedOut) => {
            format!("no answer within {} s", CONNECT_TIMEOUT.as_secs())
        }
        Some(io::ErrorKind::ConnectionReset) => "the connection was reset".to_owned(),
        _ => clean(&cause.to_string()),
    }
}

/// A connected master.
#[derive(Clone, Debug)]
pub(crate) struct Master {
    address: Address,
    client: OperatorClient<Channel>,
}

impl Master {
    /// Connects.
    ///
    /// # Errors
    /// [`CliError::Unreachable`] names the address and the cause.
    pub(crate) async fn connect(address: &Address) -> Result<Self, CliError> {
        match open(&address.0).await {
            Ok(channel) => Ok(Self {
                address: address.clone(),
                client: OperatorClient::new(channel).max_decoding_message_size(MAX_STATE_BYTES),
            }),
            Err(cause) => Err(CliError::Unreachable {
                address: address.to_string(),
                cause,
            }),
        }
    }

    /// Everything that the master knows.
    pub(crate) async fn state(&mut self) -> Result<ClusterState, CliError> {
        self.parts(StateRequest::default()).await
    }

    /// Where an agent is.
    ///
    /// # Errors
    /// Also when the master does not know it.
    pub(crate) async fn agent(&mut self, id: &AgentId) -> Result<AgentInfo, CliError> {
        let request = StateRequest {
            agents: true,
            ..StateRequest::default()
        };
        let agents = self.parts(request).await?.agents.into_iter();
        match agents
            .map(|agent| (agent.id, agent.info))
            .find(|(of, _)| of == id)
        {
            Some((_, info)) => Ok(info),
            None => Err(CliError::Failed(format!(
                "the master does not know agent {id}; see `ebb agents`"
            ))),
        }
    }

    async fn parts(&mut self, request: StateRequest) -> Result<ClusterState, CliError> {
        let answer = self.client.get_state(request);
        let state = answered(&self.address, "show its state", answer).await?;
        ClusterState::try_from(state).map_err(|error| self.bad_answer(error.to_string()))
    }

    /// Everything, then every change.
    pub(crate) async fn watch(&mut self) -> Result<Watch, CliError> {
        let answer = self.client.watch(WatchRequest {});
        let stream = answered(&self.address, "show its changes", answer).await?;
        Ok(Watch {
            address: self.address.clone(),
            stream,
        })
    }

    /// Sets the weight of a role, in thousandths.
    pub(crate) async fn set_weight(
        &mut self,
        role: &Role,
        weight_milli: u64,
    ) -> Result<(), CliError> {
        let weight = Weight {
            role: role.to_string(),
            weight_milli,
        };
        let answer = self.client.set_weights(SetWeightsRequest {
            weights: vec![weight],
        });
        answered(&self.address, "set the weight", answer).await?;
        Ok(())
    }

    /// Sets the quota of a role; one that guarantees and limits nothing takes it away.
    pub(crate) async fn set_quota(
        &mut self,
        role: &Role,
        quota: Quota,
        lot_limits: LotLimits,
        force: bool,
    ) -> Result<(), CliError> {
        let quota = RoleQuota {
            role: role.to_string(),
            quota: Some(proto::Quota {
                lot_limits: (!lot_limits.is_none()).then(|| lot_limits.into()),
                ..quota.into()
            }),
        };
        let answer = self.client.set_quotas(SetQuotasRequest {
            quotas: vec![quota],
            force,
        });
        answered(&self.address, "set the quota", answer).await?;
        Ok(())
    }

    /// A role, if somebody is in it or it has a weight or a quota.
    pub(crate) async fn role(&mut self, role: &Role) -> Result<Option<RoleState>, CliError> {
        let request = StateRequest {
            roles: true,
            ..StateRequest::default()
        };
        let roles = self.parts(request).await?.roles.into_iter();
        Ok(roles.into_iter().find(|state| state.role == *role))
    }

    /// Ends a framework and all its tasks.
    pub(crate) async fn teardown(&mut self, framework_id: &FrameworkId) -> Result<(), CliError> {
        let answer = self.client.teardown(TeardownRequest {
            framework_id: framework_id.to_string(),
        });
        answered(&self.address, "tear the framework down", answer).await?;
        Ok(())
    }

    /// Ends a task.
    pub(crate) async fn kill(
        &mut self,
        framework_id: &FrameworkId,
        task_id: &TaskId,
        grace_ms: Option<u64>,
    ) -> Result<(), CliError> {
        let answer = self.client.kill_task(KillTaskRequest {
            framework_id: framework_id.to_string(),
            task_id: task_id.to_string(),
            grace_ms,
        });
        answered(&self.address, "kill the task", answer).await?;
        Ok(())
    }

    /// The frameworks and the roles alone.
    pub(crate) async fn frameworks_and_roles(&mut self) -> Result<ClusterState, CliError> {
        self.parts(StateRequest {
            frameworks: true,
            roles: true,
            ..StateRequest::default()
        })
        .await
    }

    /// Why a framework, or the frameworks of a role, are offered something now, or nothing.
    pub(crate) async fn explain(
        &mut self,
        subject: ExplainSubject,
    ) -> Result<Explanation, CliError> {
        let answer = self
            .client
            .explain(ebb_api::proto::ExplainRequest::from(subject));
        let explanation = answered(&self.address, "explain its offers", answer).await?;
        Explanation::try_from(explanation).map_err(|error| self.bad_answer(error.to_string()))
    }

    /// What classes of tasks should ask for.
    pub(crate) async fn advise(&mut self, filter: AdviceFilter) -> Result<Advice, CliError> {
        let answer = self
            .client
            .advise(ebb_api::proto::AdviseRequest::from(filter));
        let advice = answered(&self.address, "advise on tasks", answer).await?;
        Advice::try_from(advice).map_err(|error| self.bad_answer(error.to_string()))
    }

    /// Has nothing of an agent offered any more.
    pub(crate) async fn deactivate(&mut self, agent_id: &AgentId) -> Result<(), CliError> {
        let answer = self.client.deactivate_agent(DeactivateAgentRequest {
            agent_id: agent_id.to_string(),
        });
        answered(&self.address, "deactivate the agent", answer).await?;
        Ok(())
    }

    /// Has an agent offered again.
    pub(crate) async fn reactivate(&mut self, agent_id: &AgentId) -> Result<(), CliError> {
        let answer = self.client.reactivate_agent(ReactivateAgentRequest {
            agent_id: agent_id.to_string(),
        });
        answered(&self.address, "reactivate the agent", answer).await?;
        Ok(())
    }

    /// Has nothing of an agent offered any more and all its tasks ended.
    pub(crate) async fn drain(
        &mut self,
        agent_id: &AgentId,
        max_grace_ms: Option<u64>,
    ) -> Result<(), CliError> {
        let answer = self.client.drain_agent(DrainAgentRequest {
            agent_id: agent_id.to_string(),
            max_grace_ms,
        });
        answered(&self.address, "drain the agent", answer).await?;
        Ok(())
    }

    /// Schedules when machines are out of use.
    pub(crate) async fn schedule_maintenance(
        &mut self,
        machines: &[Machine],
        window: Unavailability,
    ) -> Result<(), CliError> {
        let window = |machine: &Machine| Window {
            machine: Some(machine.clone().into()),
            unavailability: Some(window.into()),
        };
        let windows = machines.iter().map(window).collect();
        let request = ScheduleMaintenanceRequest { windows };
        let answer = self.client.schedule_maintenance(request);
        answered(&self.address, "schedule the maintenance", answer).await?;
        Ok(())
    }

    /// Calls off what was scheduled.
    pub(crate) async fn cancel_maintenance(
        &mut self,
        machines: &[Machine],
    ) -> Result<(), CliError> {
        let answer = self.client.cancel_maintenance(named(machines));
        answered(&self.address, "call the maintenance off", answer).await?;
        Ok(())
    }

    /// Takes machines out of use.
    pub(crate) async fn start_maintenance(&mut self, machines: &[Machine]) -> Result<(), CliError> {
        let answer = self.client.start_maintenance(named(machines));
        answered(&self.address, "start the maintenance", answer).await?;
        Ok(())
    }

    /// Brings machines back into use.
    pub(crate) async fn stop_maintenance(&mut self, machines: &[Machine]) -> Result<(), CliError> {
        let answer = self.client.stop_maintenance(named(machines));
        answered(&self.address, "stop the maintenance", answer).await?;
        Ok(())
    }

    /// Has something else made of what an agent has free.
    pub(crate) async fn convert_lots(
        &mut self,
        wanted: ebb_api::ConvertLots,
    ) -> Result<(), CliError> {
        let operation = match wanted.kind {
            OperationKind::Reserve => "reserve",
            OperationKind::Unreserve => "end the reservation",
            OperationKind::Create => "make the volume",
            OperationKind::Destroy => "destroy the volume",
        };
        let answer = self.client.convert_lots(ConvertLotsRequest::from(wanted));
        answered(&self.address, operation, answer).await?;
        Ok(())
    }

    fn bad_answer(&self, cause: String) -> CliError {
        CliError::Answer {
            who: format!("the master at {}", self.address),
            cause: clean(&cause),
        }
    }
}

fn named(machines: &[Machine]) -> MachinesRequest {
    let machines = machines.iter().cloned().map(Into::into).collect();
    MachinesRequest { machines }
}

async fn answered<T>(
    address: &Address,
    operation: &'static str,
    answer: impl Future<Output = Result<tonic::Response<T>, Status>>,
) -> Result<T, CliError> {
    match tokio::time::timeout(ANSWER_TIMEOUT, answer).await {
        Ok(Ok(response)) => Ok(response.into_inner()),
        Ok(Err(status)) => Err(refusal(address, operation, &status)),
        Err(_) => Err(CliError::Silent {
            who: format!("the master at {address}"),
            seconds: ANSWER_TIMEOUT.as_secs(),
            operation,
        }),
    }
}

/// What a status of the master means to a person.
fn refusal(address: &Address, operation: &'static str, status: &Status) -> CliError {
    // Only what the transport itself says has a source: no answer of the master came through.
    if let Some(source) = status.source() {
        return CliError::Unreachable {
            address: address.to_string(),
            cause: root_cause(source),
        };
    }
    match status.code() {
        Code::Unavailable => CliError::Unreachable {
            address: address.to_string(),
            cause: clean(status.message()),
        },
        Code::Unimplemented => CliError::Answer {
            who: format!("the server at {address}"),
            cause: format!("it cannot {operation}; perhaps it is no master"),
        },
        _ => CliError::Refused {
            operation,
            message: clean(status.message()),
        },
    }
}

/// A stream of changes.
#[derive(Debug)]
pub(crate) struct Watch {
    address: Address,
    stream: Streaming<ebb_api::proto::Change>,
}

impl Watch {
    /// The next change; none when the master has ended the stream.
    pub(crate) async fn next(&mut self) -> Result<Option<Change>, CliError> {
        let Some(change) = self
            .stream
            .message()
            .await
            .map_err(|status| refusal(&self.address, "show its changes", &status))?
        else {
            return Ok(None);
        };
        match Change::try_from(change) {
            Ok(change) => Ok(Some(change)),
            Err(error) => Err(CliError::Answer {
                who: format!("the master at {}", self.address),
                cause: clean(&error.to_string()),
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_and_bad_ones_refused_with_an_example() {
        for good in [
            "127.0.0.1:5050",
            "http://localhost:5050/",
            "[::1]:5050",
            "a-b.example:1",
        ] {
            assert!(good.parse::<Address>().is_ok(), "{good}");
        }
        let huge = format!("{}:5050", "x".repeat(65_536));
        for bad in [
            "",
            "localhost",
            ":5050",
            "localhost:",
            "localhost:0",
            "localhost:65536",
            "localhost:http",
            "a/b:5050",
            "a b:5050",
            "a\0b:5050",
            "[::g]:5050",
            "https://localhost:5050",
            &huge,
        ] {
            let sentence = bad.parse::<Address>().unwrap_err();
            assert!(sentence.contains("127.0.0.1:5050"), "{sentence}");
            assert!(sentence.len() < 300);
        }
    }
}
