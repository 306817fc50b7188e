//! A played cluster: a server that answers as a master and as an agent would, so that the real
//! program can be run against known answers.

use std::pin::Pin;
use std::process::{Output, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ebb_api::proto::{
    self, ReadChunk, ReadRequest, SchedulerCall, SchedulerEvent,
    operator_server::{Operator, OperatorServer},
    sandbox_server::{Sandbox, SandboxServer},
    scheduler_call::Call,
    scheduler_event::{self, Event},
    scheduler_server::{Scheduler, SchedulerServer},
};
use ebb_types::{
    AgentActivity, AgentAnswer, AgentId, AgentInfo, AgentState, AgentStatus, AgentUsage, Choice,
    ChoiceRule, ClusterState, Contended, Correction, CorrectionAction, Disturbance, Disturber,
    ExplainSubject, FigureSource, FrameworkId, FrameworkInfo, FrameworkState, Generation,
    InverseAnswer, Limits, LotQuota, Machine, MaintenanceMode, MaintenanceState, MasterInfo,
    MeasureSource, Offer, OfferId, Promise, Promises, Quantities, Quota, Reason, ResourceKind,
    Resources, Role, RoleState, Signal, Source, TaskId, TaskRecord, TaskSources, TaskState,
    TaskStatus, TaskUsage, TaskUsageFigures, Timestamp, Unavailability, Window,
};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tokio_stream::{Stream, StreamExt};
use tonic::{Request, Response, Status, Streaming};

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// What was asked of the played master, as words.
type Asked = Arc<Mutex<Vec<String>>>;

/// How the played task ends.
#[derive(Clone, Copy, Debug)]
pub enum End {
    /// It exits with this code.
    Exits(i32),
    /// It is preempted.
    Preempted,
    /// It never ends by itself; a kill ends it.
    WhenKilled,
    /// There is no offer.
    NoOffer,
}

/// The played cluster.
#[derive(Clone)]
pub struct Played {
    port: u16,
    asked: Asked,
    end: End,
}

impl Played {
    /// Starts to play.
    pub async fn start(end: End) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let played = Self {
            port: listener.local_addr().expect("bound").port(),
            asked: Asked::default(),
            end,
        };
        let server = tonic::transport::Server::builder()
            .add_service(OperatorServer::new(played.clone()))
            .add_service(SandboxServer::new(played.clone()))
            .add_service(SchedulerServer::new(played.clone()));
        tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
        played
    }

    /// What was asked so far.
    pub fn asked(&self) -> Vec<String> {
        self.asked.lock().expect("not poisoned").clone()
    }

    fn note(&self, words: String) {
        self.asked.lock().expect("not poisoned").push(words);
    }

    /// A command of `ebb` that talks to this cluster.
    pub fn command(&self, args: &[&str]) -> tokio::process::Command {
        let mut command = ebb(args);
        command.env("EBB_MASTER", format!("127.0.0.1:{}", self.port));
        command
    }

    /// Runs `ebb` to its end.
    pub async fn ebb(&self, args: &[&str]) -> Ended {
        end_of(self.command(args)).await
    }

    fn state(&self) -> ClusterState {
        state(self.port)
    }

    fn note_machines(
        &self,
        what: &str,
        request: Request<proto::MachinesRequest>,
    ) -> Result<Response<proto::Empty>, Status> {
        for machine in ebb_api::machines(request.into_inner()).expect("valid") {
            self.note(format!("{what} {machine}"));
        }
        Ok(Response::new(proto::Empty {}))
    }
}

/// The program under test, with nothing of the tester's own environment that would change it.
pub fn ebb(args: &[&str]) -> tokio::process::Command {
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_ebb"));
    command
        .args(args)
        .env_remove("EBB_MASTER")
        .env_remove("NO_COLOR")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    command
}

/// How a run of `ebb` ended.
#[derive(Debug)]
pub struct Ended {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl From<Output> for Ended {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

/// Runs a command to its end.
pub async fn end_of(mut command: tokio::process::Command) -> Ended {
    let ended = tokio::time::timeout(Duration::from_secs(60), command.output()).await;
    ended.expect("ends in time").expect("can be started").into()
}

fn own() -> Resources {
    Resources::regular(Quantities::cpus_mem(1_500, 64 << 20))
}

fn task(framework: &FrameworkId, name: &str, state: TaskState) -> TaskRecord {
    let task_id = TaskId::new(name).expect("valid");
    let at = Timestamp::from_ms(1_700_000_001_000);
    TaskRecord {
        framework_id: framework.clone(),
        task_id: task_id.clone(),
        name: "shop".into(),
        agent_id: AgentId::new("cafe-1-S0").expect("valid"),
        role: Role::new("*").expect("valid"),
        lots: ebb_types::Lots::NONE,
        resources: own(),
        state,
        executor_id: None,
        container_id: None,
        statuses: vec![TaskStatus {
            message: "a \x1b[31mred\x1b[0m message".into(),
            ..TaskStatus::new(task_id, state, Source::Executor, at)
        }],
    }
}

fn framework(id: &FrameworkId, name: &str) -> FrameworkState {
    FrameworkState {
        id: id.clone(),
        info: FrameworkInfo {
            id: Some(id.clone()),
            name: name.into(),
            user: "nobody".into(),
            roles: vec![Role::new("eng/web").expect("valid")],
            failover_timeout_ms: 60_000,
            hostname: "host".into(),
            principal: String::new(),
            webui_url: String::new(),
            capabilities: Vec::new(),
            labels: Vec::new(),
        },
        connected: true,
        registered_at: Timestamp::from_ms(1_700_000_000_000),
        failover_deadline: None,
        suppressed_roles: Vec::new(),
        offered: Resources::ZERO,
        allocated: own(),
        live_tasks: 2,
    }
}

fn lots() -> ebb_types::Lots {
    let text = "cpus(eng):2;disk(eng):10GiB;ports:[31000-31009]";
    let written: ebb_types::WrittenResources = text.parse().expect("good");
    written.lots
}

fn agent(port: u16) -> AgentState {
    let id = AgentId::new("cafe-1-S0").expect("valid");
    let total = Quantities::cpus_mem(4_000, 8 << 30);
    AgentState {
        id: id.clone(),
        info: AgentInfo {
            id: Some(id),
            hostname: "127.0.0.1".into(),
            port,
            lots: lots(),
            lots_version: 0,
            total,
            attributes: Vec::new(),
            version: "0.1.0".into(),
            domain: None,
        },
        status: AgentStatus::Registered,
        registered_at: Timestamp::from_ms(1_700_000_000_000),
        offered: Resources::ZERO,
        offered_lots: ebb_types::Lots::NONE,
        allocated_lots: ebb_types::Lots::NONE,
        allocated: own(),
        oversubscribed: Quantities::cpus_mem(1_000, 0),
        usage: Some(AgentUsage {
            at: Timestamp::from_ms(1_700_000_001_500),
            machine_cpu_milli: Some(500),
            machine_mem_bytes: None,
            cpu_pressure_permille: Some(15),
            mem_pressure_permille: None,
            io_pressure_permille: None,
            sources: vec![FigureSource {
                figure: "network".into(),
                source: None,
                why: "no probes".into(),
            }],
            lent: Quantities::cpus_mem(1_000, 0),
            taken_back_cpu_milli: 0,
            tasks: vec![TaskUsage {
                framework_id: FrameworkId::new("cafe-1-0000").expect("valid"),
                task_id: TaskId::new("web.1").expect("valid"),
                container_id: ebb_types::ContainerId::new("c1").expect("valid"),
                allocated: own(),
                used: TaskUsageFigures {
                    cpu_milli: Some(250),
                    ..TaskUsageFigures::default()
                },
                sources: TaskSources::all(MeasureSource::Ebpf),
                throttled_to_milli: None,
                frozen: false,
                network_limited_to_bytes_per_s: None,
                memory_reclaimed_to_bytes: None,
            }],
            corrections: Vec::new(),
            recent: vec![froze()],
            disturbances: vec![disturbed()],
            promises: Promises {
                cpu: Promise {
                    watched_ms: 100_000,
                    broken_ms: 250,
                },
                mem: Promise::default(),
                budget_ppm: 1_000,
            },
            lasting: ebb_types::Lasting {
                confidence_permille: 900,
                points: vec![
                    ebb_types::LastingPoint {
                        time_ms: 600_000,
                        amount: Quantities::cpus_mem(1_000, 0),
                    },
                    ebb_types::LastingPoint {
                        time_ms: 3_600_000,
                        amount: Quantities::cpus_mem(250, 0),
                    },
                ],
            },
        }),
        activity: AgentActivity::Active,
    }
}

/// What the agent did for its task.
fn froze() -> Correction {
    Correction {
        at: Timestamp::from_ms(1_700_000_001_000),
        container_id: ebb_types::ContainerId::new("c2").expect("valid"),
        task_id: TaskId::new("copy.1").expect("valid"),
        framework_id: FrameworkId::new("cafe-1-0001").expect("valid"),
        action: CorrectionAction::Freeze,
        signal: Signal::DiskLatency,
        on_behalf_of: TaskId::new("web.1").ok(),
        value: 80_000_000,
        threshold: 20_000_000,
        baseline: Some(2_000_000),
        duration_ms: 500,
        choice: Choice {
            rule: ChoiceRule::MostDisk,
            amount: 200 << 20,
            rank: 1,
            candidates: 3,
            spared: false,
        },
        grace_ms: 0,
    }
}

/// Who disturbs its task.
fn disturbed() -> Disturbance {
    Disturbance {
        framework_id: FrameworkId::new("cafe-1-0000").expect("valid"),
        task_id: TaskId::new("web.1").expect("valid"),
        container_id: ebb_types::ContainerId::new("c1").expect("valid"),
        resource: Contended::Disk,
        signal: Signal::DiskLatency,
        value: 80_000_000,
        baseline: 2_000_000,
        threshold: 20_000_000,
        since: Timestamp::from_ms(1_700_000_000_500),
        by: vec![Disturber {
            framework_id: FrameworkId::new("cafe-1-0001").expect("valid"),
            task_id: TaskId::new("copy.1").expect("valid"),
            container_id: ebb_types::ContainerId::new("c2").expect("valid"),
            revocable: true,
            share_permille: 900,
        }],
    }
}

fn state(port: u16) -> ClusterState {
    let (one, two) = ("cafe-1-0000", "cafe-1-0001");
    let (one, two) = (
        FrameworkId::new(one).expect("valid"),
        FrameworkId::new(two).expect("valid"),
    );
    ClusterState {
        master: MasterInfo {
            id: "cafe-1".into(),
            generation: Generation(1),
            hostname: "127.0.0.1".into(),
            port,
            version: "0.1.0".into(),
            domain: None,
        },
        at: Timestamp::from_ms(1_700_000_002_000),
        agents: vec![agent(port)],
        frameworks: vec![framework(&one, "web"), framework(&two, "more web")],
        tasks: vec![
            task(&one, "web.1", TaskState::Running),
            task(&one, "web.2", TaskState::Staging),
            task(&two, "web.1", TaskState::Running),
            task(&two, "done", TaskState::Finished),
        ],
        roles: vec![RoleState {
            role: Role::new("eng/web").expect("valid"),
            weight_milli: 2_500,
            frameworks: vec![one.clone()],
            offered: Resources::ZERO,
            allocated: own(),
            quota: Quota {
                guarantee: Quantities::cpus_mem(2_000, 128 << 20),
                limits: Limits::NONE
                    .with(ResourceKind::Cpus, Some(4_000))
                    .with(ResourceKind::Disk, Some(0)),
                ..Quota::default()
            },
            consumed: Quantities::cpus_mem(3_500, 64 << 20),
            consumed_revocable: Quantities::cpus_mem(2_500, 0),
            lot_quotas: vec![LotQuota {
                role: Role::new("eng/web").expect("valid"),
                name: "gpus".into(),
                limit: 4_000,
                held: 3_000,
            }],
        }],
        offers: vec![offer(&two)],
        maintenance: vec![
            maintenance(
                Machine::host("rack7").expect("valid"),
                &one,
                Some(1_800_000),
            ),
            maintenance(Machine::Agent(agent(port).id), &two, None),
        ],
    }
}

fn maintenance(
    machine: Machine,
    framework: &FrameworkId,
    duration_ms: Option<u64>,
) -> MaintenanceState {
    let agent_id = agent(0).id;
    let is_down = duration_ms.is_none();
    let start = if is_down {
        1_700_000_001_000
    } else {
        1_700_000_062_000
    };
    MaintenanceState {
        window: Window {
            machine,
            unavailability: Unavailability {
                start: Timestamp::from_ms(start),
                duration_ms,
            },
            mode: match is_down {
                true => MaintenanceMode::Down,
                false => MaintenanceMode::Scheduled,
            },
        },
        agents: vec![agent_id.clone()],
        answers: vec![AgentAnswer {
            agent_id,
            framework_id: framework.clone(),
            answer: match is_down {
                true => InverseAnswer::Accepted,
                false => InverseAnswer::Declined,
            },
            at: Timestamp::from_ms(1_700_000_000_000),
        }],
    }
}

fn offer(framework: &FrameworkId) -> Offer {
    Offer {
        id: OfferId::new("cafe-1-O7").expect("valid"),
        framework_id: framework.clone(),
        agent_id: AgentId::new("cafe-1-S0").expect("valid"),
        hostname: "127.0.0.1".into(),
        role: Role::new("*").expect("valid"),
        lots: ebb_types::Lots::NONE,
        resources: Resources::regular(
            Quantities::cpus_mem(2_000, 1 << 30)
                .with(ResourceKind::DiskBandwidth, 100 << 20)
                .with(ResourceKind::NetworkBandwidth, 125_000_000),
        ),
        attributes: Vec::new(),
        executor_ids: Vec::new(),
        deadline: None,
        domain: None,
        unavailability: None,
        lasting: ebb_types::Lasting::UNKNOWN,
    }
}

#[tonic::async_trait]
impl Operator for Played {
    async fn get_state(
        &self,
        _: Request<proto::StateRequest>,
    ) -> Result<Response<proto::ClusterState>, Status> {
        Ok(Response::new(self.state().into()))
    }

    type WatchStream = Answers<proto::Change>;

    async fn watch(
        &self,
        _: Request<proto::WatchRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let snapshot = ebb_types::Change::Snapshot(Box::new(self.state()));
        let changes = tokio_stream::once(Ok(snapshot.into())).chain(tokio_stream::pending());
        Ok(Response::new(Box::pin(changes)))
    }

    async fn advise(
        &self,
        request: Request<proto::AdviseRequest>,
    ) -> Result<Response<proto::Advice>, Status> {
        let filter = ebb_types::AdviceFilter::try_from(request.into_inner()).expect("valid");
        let framework = filter.framework_id.as_ref().map_or("", FrameworkId::as_str);
        let class = filter.class.as_deref().unwrap_or("");
        self.note(format!("advise {framework} {class}"));
        let mut advice = super::advise::advice();
        advice.classes.retain(|class| filter.admits(&class.key));
        Ok(Response::new(advice.into()))
    }

    async fn set_weights(
        &self,
        request: Request<proto::SetWeightsRequest>,
    ) -> Result<Response<proto::Empty>, Status> {
        for weight in request.into_inner().weights {
            self.note(format!("weight {} {}", weight.role, weight.weight_milli));
        }
        Ok(Response::new(proto::Empty {}))
    }

    async fn set_quotas(
        &self,
        request: Request<proto::SetQuotasRequest>,
    ) -> Result<Response<proto::Empty>, Status> {
        let request = request.into_inner();
        for one in request.quotas {
            let quota = Quota::try_from(one.quota.unwrap_or_default()).expect("well-formed");
            if one.role == "full" && !request.force {
                return Err(Status::failed_precondition(
                    "role full holds 4 cpus, which is more than the limit; raise it or use --force",
                ));
            }
            let role = one.role;
            let Quota {
                guarantee,
                limits,
                revocable_limits,
            } = quota;
            let forced = if request.force { " forced" } else { "" };
            let lent = match revocable_limits.is_none() {
                true => String::new(),
                false => format!(", lent up to {revocable_limits}"),
            };
            self.note(format!(
                "quota {role} {guarantee} up to {limits}{lent}{forced}"
            ));
        }
        Ok(Response::new(proto::Empty {}))
    }

    async fn teardown(
        &self,
        request: Request<proto::TeardownRequest>,
    ) -> Result<Response<proto::Empty>, Status> {
        self.note(format!("teardown {}", request.into_inner().framework_id));
        Ok(Response::new(proto::Empty {}))
    }

    async fn kill_task(
        &self,
        request: Request<proto::KillTaskRequest>,
    ) -> Result<Response<proto::Empty>, Status> {
        let request = request.into_inner();
        if request.task_id == "web.2" {
            return Err(Status::failed_precondition(
                "framework cafe-1-0000 has no live task web.2; list its tasks with `ebb tasks`",
            ));
        }
        let proto::KillTaskRequest {
            framework_id,
            task_id,
            grace_ms,
        } = request;
        self.note(format!("kill {framework_id} {task_id} {grace_ms:?}"));
        Ok(Response::new(proto::Empty {}))
    }

    async fn explain(
        &self,
        request: Request<proto::ExplainRequest>,
    ) -> Result<Response<proto::Explanation>, Status> {
        let subject = ExplainSubject::try_from(request.into_inner()).expect("well-formed");
        self.note(format!("explain {subject:?}"));
        Ok(Response::new(crate::explain::explanation(subject).into()))
    }

    async fn deactivate_agent(
        &self,
        request: Request<proto::DeactivateAgentRequest>,
    ) -> Result<Response<proto::Empty>, Status> {
        self.note(format!("deactivate {}", request.into_inner().agent_id));
        Ok(Response::new(proto::Empty {}))
    }

    async fn reactivate_agent(
        &self,
        request: Request<proto::ReactivateAgentRequest>,
    ) -> Result<Response<proto::Empty>, Status> {
        let id = request.into_inner().agent_id;
        Err(Status::failed_precondition(format!(
            "agent {id} is draining, which cannot be called off"
        )))
    }

    async fn schedule_maintenance(
        &self,
        request: Request<proto::ScheduleMaintenanceRequest>,
    ) -> Result<Response<proto::Empty>, Status> {
        let windows = ebb_api::windows(request.into_inner()).expect("valid");
        for (machine, window) in windows {
            let begins = window.start.ms_since(self.state().at);
            self.note(format!(
                "schedule {machine} {begins} {:?}",
                window.duration_ms
            ));
        }
        Ok(Response::new(proto::Empty {}))
    }

    async fn cancel_maintenance(
        &self,
        request: Request<proto::MachinesRequest>,
    ) -> Result<Response<proto::Empty>, Status> {
        self.note_machines("cancel", request)
    }

    async fn start_maintenance(
        &self,
        request: Request<proto::MachinesRequest>,
    ) -> Result<Response<proto::Empty>, Status> {
        self.note_machines("start", request)
    }

    async fn stop_maintenance(
        &self,
        request: Request<proto::MachinesRequest>,
    ) -> Result<Response<proto::Empty>, Status> {
        self.note_machines("stop", request)
    }

    async fn convert_lots(
        &self,
        request: Request<proto::ConvertLotsRequest>,
    ) -> Result<Response<proto::Empty>, Status> {
        let wanted = ebb_api::ConvertLots::try_from(request.into_inner())
            .map_err(|error| Status::invalid_argument(error.to_string()))?;
        let ebb_api::ConvertLots {
            agent_id,
            kind,
            lots,
        } = wanted;
        self.note(format!("{} {agent_id} {lots}", kind.name()));
        Ok(Response::new(proto::Empty {}))
    }

    async fn drain_agent(
        &self,
        request: Request<proto::DrainAgentRequest>,
    ) -> Result<Response<proto::Empty>, Status> {
        let request = request.into_inner();
        self.note(format!(
            "drain {} {:?}",
            request.agent_id, request.max_grace_ms
        ));
        Ok(Response::new(proto::Empty {}))
    }
}

#[tonic::async_trait]
impl Sandbox for Played {
    type ReadStream = Answers<ReadChunk>;

    async fn read(
        &self,
        request: Request<ReadRequest>,
    ) -> Result<Response<Self::ReadStream>, Status> {
        let request = request.into_inner();
        let text = match request.path.as_str() {
            "stdout" => "hello\nwörld\n",
            "stderr" => "oh\n",
            path => return Err(Status::not_found(format!("there is no file {path}"))),
        };
        let from = usize::try_from(request.offset)
            .expect("small")
            .min(text.len());
        // Pieces of three bytes: one ends within the ö.
        let chunks: Vec<_> = text.as_bytes()[from..]
            .chunks(3)
            .enumerate()
            .map(|(n, data)| {
                Ok(ReadChunk {
                    offset: (from + 3 * n) as u64,
                    data: data.to_vec(),
                })
            })
            .collect();
        Ok(Response::new(Box::pin(tokio_stream::iter(chunks))))
    }
}

#[tonic::async_trait]
impl Scheduler for Played {
    type SubscribeStream = Answers<SchedulerEvent>;

    async fn subscribe(
        &self,
        request: Request<Streaming<SchedulerCall>>,
    ) -> Result<Response<Self::SubscribeStream>, Status> {
        let (events, stream) = mpsc::channel(64);
        tokio::spawn(self.clone().play(request.into_inner(), events));
        Ok(Response::new(Box::pin(ReceiverStream::new(stream))))
    }
}

type Events = mpsc::Sender<Result<SchedulerEvent, Status>>;

impl Played {
    async fn play(self, mut calls: Streaming<SchedulerCall>, events: Events) {
        let mut task: Option<String> = None;
        let mut statuses = 0;
        while let Ok(Some(call)) = calls.message().await {
            match call.call {
                Some(Call::Subscribe(_)) => self.subscribed(&events).await,
                Some(Call::Accept(accept)) => {
                    let launch = accept
                        .operations
                        .into_iter()
                        .next()
                        .and_then(|o| o.operation);
                    let Some(proto::operation::Operation::Launch(launch)) = launch else {
                        continue;
                    };
                    let launched = launch.tasks.first().expect("a task");
                    let id = launched.task_id.clone();
                    let amounts = launched.resources.iter();
                    let amounts = amounts.map(|one| format!("{}:{}", one.name, one.amount));
                    let amounts = amounts.collect::<Vec<_>>().join(";");
                    self.note(format!("launch {:?} on {amounts}", launched.command));
                    statuses += 1;
                    tell(&events, status(&id, TaskState::Running, statuses)).await;
                    statuses += 1;
                    if let Some(end) = self.last_status(&id, statuses) {
                        tell(&events, end).await;
                    }
                    task = Some(id);
                }
                Some(Call::Kill(_)) => {
                    self.note("kill".into());
                    if let Some(id) = &task {
                        statuses += 1;
                        let mut end = status(id, TaskState::Killed, statuses);
                        end.exit = Some(ebb_types::ExitStatus::Signal(15));
                        tell(&events, end).await;
                    }
                }
                Some(Call::Teardown(_)) => {
                    self.note("framework ended".into());
                    send(&events, Event::Error("Framework was torn down".into())).await;
                    return;
                }
                _ => {}
            }
        }
    }

    async fn subscribed(&self, events: &Events) {
        let id = FrameworkId::new("cafe-1-0009").expect("valid");
        let subscribed = scheduler_event::Event::Subscribed(proto::scheduler_event::Subscribed {
            framework_id: id.to_string(),
            heartbeat_interval_ms: 15_000,
            master: Some(self.state().master.into()),
        });
        send(events, subscribed).await;
        if !matches!(self.end, End::NoOffer) {
            let offers = vec![offer(&id).into()];
            send(
                events,
                Event::Offers(proto::scheduler_event::Offers { offers }),
            )
            .await;
        }
    }

    fn last_status(&self, id: &str, count: u64) -> Option<TaskStatus> {
        match self.end {
            End::Exits(code) => {
                let is_success = code == 0;
                let state = if is_success {
                    TaskState::Finished
                } else {
                    TaskState::Failed
                };
                let mut end = status(id, state, count);
                end.exit = Some(ebb_types::ExitStatus::Code(code));
                Some(end)
            }
            End::Preempted => {
                let mut end = status(id, TaskState::Failed, count);
                end.reason = Some(Reason::ContainerPreempted);
                end.exit = Some(ebb_types::ExitStatus::Signal(9));
                Some(end)
            }
            End::WhenKilled | End::NoOffer => None,
        }
    }
}

fn status(id: &str, state: TaskState, count: u64) -> TaskStatus {
    let id = TaskId::new(id).expect("valid");
    let at = Timestamp::from_ms(1_700_000_003_000 + count);
    let mut status = TaskStatus::new(id, state, Source::Executor, at);
    status.agent_id = AgentId::new("cafe-1-S0").ok();
    status.uuid = Some(ebb_types::UpdateUuid::of(ebb_types::Incarnation(1), count));
    status
}

async fn tell(events: &Events, status: TaskStatus) {
    send(events, Event::Update(status.into())).await;
}

async fn send(events: &Events, event: Event) {
    // A framework that has gone is no fault of the played master.
    let _ = events.send(Ok(SchedulerEvent { event: Some(event) })).await;
}
