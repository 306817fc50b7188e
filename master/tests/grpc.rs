//! The whole master over its real wire, with real clients.

#![allow(clippy::unwrap_used, reason = "a test")]

mod support;

use ebb_api::proto;
use ebb_api::proto::operator_client::OperatorClient;
use ebb_master::{MasterError, run};
use ebb_types::{
    AgentActivity, AgentId, AgentToMaster, Call, Change, ClusterState, Event, ExplainSubject,
    Explanation, Filters, FrameworkId, Limits, MasterToAgent, Quantities, Quota, Reason,
    ReconcileTask, ResourceKind, Resources, RunningTask, Source, TaskId, TaskState, TaskStatus,
    Timestamp, UpdateUuid, Verdict,
};
use support::{Agent, Master, Scheduler, accept, agent_info, config, framework_info, soon, task};
use tonic::transport::Channel;

async fn register(agent: &mut Agent) -> AgentId {
    agent.say(AgentToMaster::Register {
        info: agent_info(),
        incarnation: agent.incarnation,
    });
    agent.registered().await
}

fn update(agent: &Agent, framework: &FrameworkId, state: TaskState, count: u64) {
    let now = Timestamp::from_ms(1);
    let mut status = TaskStatus::new(TaskId::new("t").unwrap(), state, Source::Executor, now);
    status.uuid = Some(UpdateUuid::of(agent.incarnation, count));
    agent.say(AgentToMaster::Update {
        framework_id: framework.clone(),
        status,
        latest_state: state,
    });
}

/// A framework with one task on one agent.
struct Started {
    scheduler: Scheduler,
    framework: FrameworkId,
    agent: Agent,
    agent_id: AgentId,
}

impl Started {
    async fn task(master: &Master) -> Self {
        let mut scheduler = master.scheduler().await;
        let framework = scheduler.subscribe(framework_info("f")).await;
        let mut agent = master.agent().await;
        let agent_id = register(&mut agent).await;
        let offer = scheduler.offer().await;
        scheduler.call(accept(&offer, vec![task("t", &agent_id)]));
        agent
            .until(|order| matches!(order, MasterToAgent::Launch { .. }).then_some(()))
            .await;
        Self {
            scheduler,
            framework,
            agent,
            agent_id,
        }
    }
}

/// The agent registers anew with its task.
fn come_back(agent: &Agent, agent_id: &AgentId, framework: &FrameworkId) {
    let mut info = agent_info();
    info.id = Some(agent_id.clone());
    agent.say(AgentToMaster::Reregister {
        info,
        incarnation: agent.incarnation,
        tasks: vec![RunningTask {
            framework_id: framework.clone(),
            info: task("t", agent_id),
            state: TaskState::Running,
            container_id: None,
        }],
        executors: Vec::new(),
        oversubscribed: Quantities::ZERO,
    });
}

async fn told(scheduler: &mut Scheduler) -> TaskStatus {
    scheduler
        .until(|event| match event {
            Event::Update(status) => Some(status),
            _ => None,
        })
        .await
}

#[tokio::test]
async fn a_task_goes_from_subscription_to_its_acknowledged_end() {
    let folder = tempfile::tempdir().unwrap();
    let master = Master::start(config(folder.path())).await;
    let mut scheduler = master.scheduler().await;
    let framework = scheduler.subscribe(framework_info("f")).await;
    let mut agent = master.agent().await;
    let agent_id = register(&mut agent).await;
    let offer = scheduler.offer().await;
    assert_eq!(offer.agent_id, agent_id);
    scheduler.call(accept(&offer, vec![task("t", &agent_id)]));
    let launched = agent
        .until(|order| match order {
            MasterToAgent::Launch { task, .. } => Some(task),
            _ => None,
        })
        .await;
    assert_eq!(*launched, task("t", &agent_id));
    update(&agent, &framework, TaskState::Finished, 1);
    let status = told(&mut scheduler).await;
    assert_eq!(status.state, TaskState::Finished);
    scheduler.call(Call::Acknowledge {
        agent_id,
        task_id: status.task_id,
        uuid: status.uuid.unwrap(),
    });
    let acknowledged = agent
        .until(|order| match order {
            MasterToAgent::Acknowledge { uuid, .. } => Some(uuid),
            _ => None,
        })
        .await;
    assert_eq!(Some(acknowledged), status.uuid);
    master.stop().await;
}

#[tokio::test]
async fn a_restarted_master_knows_its_framework_agent_and_task() {
    let folder = tempfile::tempdir().unwrap();
    let master = Master::start(config(folder.path())).await;
    let Started {
        framework,
        agent_id,
        ..
    } = Started::task(&master).await;
    master.stop().await;

    let master = Master::start(config(folder.path())).await;
    let mut agent = master.agent().await;
    come_back(&agent, &agent_id, &framework);
    assert_eq!(agent.registered().await, agent_id);
    let mut scheduler = master.scheduler().await;
    let mut info = framework_info("f");
    info.id = Some(framework.clone());
    assert_eq!(scheduler.subscribe(info).await, framework);
    scheduler.call(Call::Reconcile { tasks: Vec::new() });
    assert_eq!(told(&mut scheduler).await.state, TaskState::Running);
    master.stop().await;
}

#[tokio::test]
async fn a_reader_that_never_reads_is_cut_off_with_a_reason_and_the_master_runs_on() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = config(folder.path());
    config.outbox_limit = 64;
    let master = Master::start(config).await;
    let mut slow = master.scheduler().await;
    slow.subscribe(framework_info("slow")).await;
    let ask = Call::Reconcile {
        tasks: (0..1000)
            .map(|n| ReconcileTask {
                task_id: TaskId::new(format!("task-{n}")).unwrap(),
                agent_id: None,
            })
            .collect(),
    };
    for _ in 0..100 {
        slow.call(ask.clone());
    }
    let end = loop {
        match slow.next().await {
            Ok(Some(_)) => {}
            other => break other,
        }
    };
    let status = end.expect_err("the stream ended without a reason");
    assert_eq!(status.code(), tonic::Code::ResourceExhausted);
    assert!(status.message().contains("cut off"), "{status}");
    assert!(
        master
            .http("/metrics")
            .await
            .contains("ebb_master_slow_readers_cut_total 1\n")
    );
    let mut other = master.scheduler().await;
    other.subscribe(framework_info("other")).await;
    master.stop().await;
}

#[tokio::test]
async fn a_call_that_breaks_a_rule_is_answered_with_the_rule() {
    let folder = tempfile::tempdir().unwrap();
    let master = Master::start(config(folder.path())).await;
    let mut scheduler = master.scheduler().await;
    scheduler.subscribe(framework_info("f")).await;
    let wire = proto::SchedulerCall {
        call: Some(proto::scheduler_call::Call::Kill(
            proto::scheduler_call::Kill {
                task_id: String::from("../etc"),
                ..Default::default()
            },
        )),
    };
    scheduler.calls.send(wire).unwrap();
    let message = scheduler
        .until(|event| match event {
            Event::Error(message) => Some(message),
            _ => None,
        })
        .await;
    assert!(message.contains("kill.task_id"), "{message}");
    assert_eq!(scheduler.next().await.unwrap(), None);
    master.stop().await;
}

#[tokio::test]
async fn garbage_and_lies_about_length_harm_nobody_else() {
    use tokio::io::AsyncWriteExt;
    let folder = tempfile::tempdir().unwrap();
    let master = Master::start(config(folder.path())).await;
    // A gRPC frame that claims 4 GiB, in a DATA frame that claims 16 MiB, behind a valid preface.
    let mut preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    preface.extend([0, 0, 0, 4, 0, 0, 0, 0, 0]);
    let mut lie = preface.clone();
    lie.extend([
        0xff, 0xff, 0xff, 0, 0, 0, 0, 0, 1, 0, 0xff, 0xff, 0xff, 0xff,
    ]);
    for bytes in [b"\0\xff nonsense".to_vec(), vec![0; 100_000], preface, lie] {
        let mut stream = tokio::net::TcpStream::connect(master.address)
            .await
            .unwrap();
        // The master may hang up while it is still being written to.
        let _hung_up = stream.write_all(&bytes).await.is_err();
    }
    let mut scheduler = master.scheduler().await;
    scheduler.subscribe(framework_info("f")).await;
    master.stop().await;
}

#[tokio::test]
async fn a_port_in_use_is_named_with_the_remedy() {
    let folder = tempfile::tempdir().unwrap();
    let other = tempfile::tempdir().unwrap();
    let master = Master::start(config(folder.path())).await;
    let mut second = config(other.path());
    second.listen = master.address;
    let error = soon(run(second, |_| {}, std::future::pending()))
        .await
        .unwrap_err();
    assert!(matches!(error, MasterError::Listen { .. }), "{error:?}");
    assert!(error.to_string().contains("--listen"), "{error}");
    master.stop().await;
}

#[tokio::test]
async fn a_data_folder_in_use_or_missing_is_named_with_the_remedy() {
    let folder = tempfile::tempdir().unwrap();
    let master = Master::start(config(folder.path())).await;
    let error = soon(run(config(folder.path()), |_| {}, std::future::pending()))
        .await
        .unwrap_err();
    assert!(error.to_string().contains("another master"), "{error}");
    let missing = config(&folder.path().join("no/such"));
    let error = soon(run(missing, |_| {}, std::future::pending()))
        .await
        .unwrap_err();
    assert!(error.to_string().contains("--data-dir"), "{error}");
    master.stop().await;
}

#[tokio::test]
async fn operators_see_the_cluster_and_its_changes_and_can_act() {
    let folder = tempfile::tempdir().unwrap();
    let master = Master::start(config(folder.path())).await;
    let mut operator = master.operator().await;
    let mut changes = operator
        .watch(proto::WatchRequest {})
        .await
        .unwrap()
        .into_inner();
    let first = soon(changes.message()).await.unwrap().unwrap();
    assert!(matches!(
        Change::try_from(first).unwrap(),
        Change::Snapshot(_)
    ));
    let mut scheduler = master.scheduler().await;
    let framework = scheduler.subscribe(framework_info("f")).await;
    let next = soon(changes.message()).await.unwrap().unwrap();
    match Change::try_from(next).unwrap() {
        Change::FrameworkUpdated(state) => assert_eq!(state.id, framework),
        other => panic!("{other:?}"),
    }
    let weight = proto::set_weights_request::Weight {
        role: String::from("*"),
        weight_milli: 3000,
    };
    let weights = proto::SetWeightsRequest {
        weights: vec![weight],
    };
    operator.set_weights(weights).await.unwrap();
    let wire = operator
        .get_state(proto::StateRequest::default())
        .await
        .unwrap()
        .into_inner();
    let state = ClusterState::try_from(wire).unwrap();
    assert_eq!(state.roles[0].weight_milli, 3000);
    assert_eq!(state.frameworks[0].id, framework);
    let roles_only = proto::StateRequest {
        roles: true,
        ..Default::default()
    };
    let wire = operator.get_state(roles_only).await.unwrap().into_inner();
    assert!(wire.frameworks.is_empty() && !wire.roles.is_empty());
    let teardown = |id: &str| proto::TeardownRequest {
        framework_id: id.to_owned(),
    };
    operator
        .teardown(teardown(framework.as_str()))
        .await
        .unwrap();
    let again = operator
        .teardown(teardown(framework.as_str()))
        .await
        .unwrap_err();
    assert_eq!(again.code(), tonic::Code::NotFound);
    let bad = operator.teardown(teardown("a/b")).await.unwrap_err();
    assert_eq!(bad.code(), tonic::Code::InvalidArgument);
    master.stop().await;
}

/// What is said of the only agent.
async fn activity(operator: &mut proto::operator_client::OperatorClient<Channel>) -> AgentActivity {
    let request = proto::StateRequest::default();
    let wire = operator.get_state(request).await.unwrap().into_inner();
    let state = ClusterState::try_from(wire).unwrap();
    assert_eq!(state.agents.len(), 1);
    state.agents[0].activity
}

#[tokio::test]
async fn an_agent_is_drained_and_reactivated_over_a_restart_of_the_master() {
    let folder = tempfile::tempdir().unwrap();
    let master = Master::start(config(folder.path())).await;
    let Started {
        framework,
        mut agent,
        agent_id,
        scheduler: _scheduler,
    } = Started::task(&master).await;
    let mut operator = master.operator().await;
    let drain = |agent_id: &str, max_grace_ms| proto::DrainAgentRequest {
        agent_id: agent_id.to_owned(),
        max_grace_ms,
    };
    let long = drain(agent_id.as_str(), Some(u64::MAX));
    let refused = operator.drain_agent(long).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::InvalidArgument);
    let unknown = operator.drain_agent(drain("nobody", None)).await;
    assert_eq!(unknown.unwrap_err().code(), tonic::Code::NotFound);
    let meant = drain(agent_id.as_str(), Some(1));
    operator.drain_agent(meant).await.unwrap();
    let kill = |order| match order {
        MasterToAgent::Kill { grace_ms, .. } => Some(grace_ms),
        _ => None,
    };
    assert_eq!(agent.until(kill).await, Some(1));
    master.stop().await;

    let master = Master::start(config(folder.path())).await;
    let mut operator = master.operator().await;
    assert_eq!(activity(&mut operator).await, AgentActivity::Draining);
    let request = || proto::ReactivateAgentRequest {
        agent_id: agent_id.to_string(),
    };
    let refused = operator.reactivate_agent(request()).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::FailedPrecondition);
    let mut scheduler = master.scheduler().await;
    let mut info = framework_info("f");
    info.id = Some(framework.clone());
    scheduler.subscribe(info).await;
    let mut agent = master.agent().await;
    come_back(&agent, &agent_id, &framework);
    assert_eq!(agent.until(kill).await, Some(1));
    update(&agent, &framework, TaskState::Killed, 2);
    let status = told(&mut scheduler).await;
    assert_eq!(status.reason, Some(Reason::AgentDraining));
    scheduler.call(Call::Acknowledge {
        agent_id: agent_id.clone(),
        task_id: status.task_id,
        uuid: status.uuid.unwrap(),
    });
    agent
        .until(|order| matches!(order, MasterToAgent::Acknowledge { .. }).then_some(()))
        .await;
    assert_eq!(activity(&mut operator).await, AgentActivity::Drained);
    operator.reactivate_agent(request()).await.unwrap();
    assert_eq!(scheduler.offer().await.agent_id, agent_id);
    let deactivate = proto::DeactivateAgentRequest {
        agent_id: agent_id.to_string(),
    };
    operator.deactivate_agent(deactivate).await.unwrap();
    assert_eq!(activity(&mut operator).await, AgentActivity::Deactivated);
    master.stop().await;
}

#[tokio::test]
async fn operators_are_told_why_a_framework_gets_no_offer() {
    let folder = tempfile::tempdir().unwrap();
    let master = Master::start(config(folder.path())).await;
    let mut operator = master.operator().await;
    let mut scheduler = master.scheduler().await;
    let framework = scheduler.subscribe(framework_info("f")).await;
    let subject = ExplainSubject::Framework(framework);
    let request = proto::ExplainRequest::from(subject.clone());
    let wire = operator.explain(request.clone()).await.unwrap();
    let explanation = Explanation::try_from(wire.into_inner()).unwrap();
    assert_eq!(explanation.subject, subject);
    assert_eq!(
        explanation.verdict(&explanation.claims[0]),
        Verdict::NoAgent
    );
    let mut agent = master.agent().await;
    register(&mut agent).await;
    let offer = scheduler.offer().await;
    let wire = operator.explain(request).await.unwrap();
    let explanation = Explanation::try_from(wire.into_inner()).unwrap();
    let claim = &explanation.claims[0];
    assert_eq!(explanation.verdict(claim), Verdict::TooLittle);
    assert_eq!(
        (claim.offers.count, claim.offers.resources),
        (1, offer.resources)
    );
    let stranger = ExplainSubject::Framework(FrameworkId::new("x").unwrap());
    let error = operator
        .explain(proto::ExplainRequest::from(stranger))
        .await
        .unwrap_err();
    assert_eq!(error.code(), tonic::Code::NotFound);
    let error = operator
        .explain(proto::ExplainRequest::default())
        .await
        .unwrap_err();
    assert_eq!(error.code(), tonic::Code::InvalidArgument);
    master.stop().await;
}

#[tokio::test]
async fn metrics_and_health_are_served_on_the_same_port() {
    let folder = tempfile::tempdir().unwrap();
    let master = Master::start(config(folder.path())).await;
    let health = master.http("/health").await;
    assert!(health.starts_with("HTTP/1.1 200"), "{health}");
    // Without one there are no metrics of quotas.
    let limits = ResourceKind::ALL.map(|kind| proto::Resource {
        name: kind.name().to_owned(),
        amount: 1000,
        ..proto::Resource::default()
    });
    let quota = proto::set_quotas_request::RoleQuota {
        role: String::from("r"),
        quota: Some(proto::Quota {
            limits: limits.to_vec(),
            ..Default::default()
        }),
    };
    let request = proto::SetQuotasRequest {
        quotas: vec![quota],
        ..Default::default()
    };
    soon(master.operator().await.set_quotas(request))
        .await
        .unwrap();
    let metrics = master.http("/metrics").await;
    for metric in ebb_master::metrics::TABLE {
        assert!(
            metrics.contains(&format!("# TYPE {} ", metric.name)),
            "{}",
            metric.name
        );
    }
    assert!(metrics.contains("ebb_master_registry_commit_seconds_count"));
    assert!(master.http("/nothing").await.starts_with("HTTP/1.1 404"));
    master.stop().await;
}

#[tokio::test]
async fn an_agent_that_stays_silent_becomes_unreachable() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = config(folder.path());
    config.core.heartbeat_interval_ms = 50;
    config.core.unreachable_after_ms = 300;
    let master = Master::start(config).await;
    let mut scheduler = master.scheduler().await;
    scheduler.subscribe(framework_info("f")).await;
    let mut agent = master.agent().await;
    let agent_id = register(&mut agent).await;
    let lost = scheduler
        .until(|event| match event {
            Event::Failure { agent_id, .. } => Some(agent_id),
            _ => None,
        })
        .await;
    assert_eq!(lost, Some(agent_id));
    let end = loop {
        match agent.next().await {
            Ok(Some(_)) => {}
            other => break other,
        }
    };
    assert_eq!(end.unwrap_err().code(), tonic::Code::Aborted);
    master.stop().await;
}

/// What a reader of the whole state checks in every one.
fn check(state: &ClusterState) {
    for agent in &state.agents {
        let zero = Resources::ZERO;
        let offers = state.offers.iter().filter(|one| one.agent_id == agent.id);
        let offered = offers.fold(zero, |sum, one| sum.saturating_add(&one.resources));
        assert_eq!(offered, agent.offered, "{}", agent.id);
        let promised = agent.offered.saturating_add(&agent.allocated);
        assert!(agent.info.total.contains(&promised.regular), "{}", agent.id);
    }
}

async fn state(operator: &mut OperatorClient<Channel>) -> ClusterState {
    let wire = soon(operator.get_state(proto::StateRequest::default()));
    ClusterState::try_from(wire.await.unwrap().into_inner()).unwrap()
}

/// A scheduler that declines whatever it is offered, until its stream ends.
async fn decline_all(mut scheduler: Scheduler) -> usize {
    let mut declined = 0;
    while let Ok(Some(event)) = scheduler.next().await {
        if let Event::Offers(offers) = event {
            declined += offers.len();
            scheduler.call(Call::Decline {
                offer_ids: offers.into_iter().map(|offer| offer.id).collect(),
                filters: Filters { refuse_ms: 0 },
            });
        }
    }
    declined
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_was_answered_reads_what_was_done_also_while_offers_come_and_go() {
    const WEIGHTS: u64 = 200;
    let folder = tempfile::tempdir().unwrap();
    let master = Master::start(config(folder.path())).await;
    let mut declining = Vec::new();
    for name in ["f", "g"] {
        let mut scheduler = master.scheduler().await;
        scheduler.subscribe(framework_info(name)).await;
        declining.push(tokio::spawn(decline_all(scheduler)));
    }
    let mut agents = Vec::new();
    for _ in 0..5 {
        let mut agent = master.agent().await;
        register(&mut agent).await;
        agents.push(agent);
    }
    let mut operator = master.operator().await;
    for weight_milli in 1..=WEIGHTS {
        let role = String::from("written");
        let weight = proto::set_weights_request::Weight { role, weight_milli };
        let weights = proto::SetWeightsRequest {
            weights: vec![weight],
        };
        soon(operator.set_weights(weights)).await.unwrap();
        let state = state(&mut operator).await;
        check(&state);
        assert_eq!(state.agents.len(), 5);
        let written = state
            .roles
            .iter()
            .find(|one| one.role.as_str() == "written");
        assert_eq!(written.unwrap().weight_milli, weight_milli);
    }
    let text = master.http("/metrics").await;
    let shows = |line: &str| assert!(text.contains(line), "{line} is not in {text}");
    // And the reading for the metrics themselves.
    shows(&format!("ebb_master_state_reads_total {}\n", WEIGHTS + 1));
    shows("ebb_master_mirror_copies_total 0\n");
    shows("ebb_master_agents{status=\"registered\"} 5\n");
    shows("ebb_master_frameworks{status=\"connected\"} 2\n");
    master.stop().await;
    for declining in declining {
        assert!(soon(declining).await.unwrap() > 0, "nothing was offered");
    }
}

#[tokio::test]
async fn quotas_hold_are_refused_with_reasons_and_outlast_the_master() {
    let folder = tempfile::tempdir().unwrap();
    let master = Master::start(config(folder.path())).await;
    let mut agent = master.agent().await;
    let agent_id = register(&mut agent).await;
    let mut operator = master.operator().await;
    let quota = |guarantee: &Quantities, limits: &Limits| {
        let quota = Quota {
            guarantee: *guarantee,
            limits: *limits,
            ..Quota::default()
        };
        proto::SetQuotasRequest {
            quotas: vec![proto::set_quotas_request::RoleQuota {
                role: "*".into(),
                quota: Some(quota.into()),
            }],
            force: false,
        }
    };
    let one = Quantities::cpus_mem(1000, 0);
    let limit = Limits::NONE.with(ResourceKind::Cpus, Some(1000));
    let too_much = quota(&Quantities::cpus_mem(1 << 30, 0), &Limits::NONE);
    let refused = operator.set_quotas(too_much).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::FailedPrecondition);
    assert!(refused.message().contains("more cpus"), "{refused}");
    let crossed = quota(&Quantities::cpus_mem(1001, 0), &limit);
    let refused = operator.set_quotas(crossed).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::InvalidArgument);
    operator.set_quotas(quota(&one, &limit)).await.unwrap();
    master.stop().await;

    let master = Master::start(config(folder.path())).await;
    let mut operator = master.operator().await;
    let state = operator.get_state(proto::StateRequest::default()).await;
    let state = ClusterState::try_from(state.unwrap().into_inner()).unwrap();
    assert_eq!(
        (state.roles[0].quota.guarantee, state.roles[0].quota.limits),
        (one, limit)
    );
    let mut scheduler = master.scheduler().await;
    scheduler.subscribe(framework_info("f")).await;
    let mut agent = master.agent().await;
    let mut info = agent_info();
    info.id = Some(agent_id);
    agent.say(AgentToMaster::Reregister {
        info,
        incarnation: agent.incarnation,
        tasks: Vec::new(),
        executors: Vec::new(),
        oversubscribed: Quantities::ZERO,
    });
    agent.registered().await;
    let offer = scheduler.offer().await;
    assert_eq!(offer.resources.regular.cpu_milli(), 1000);
    master.stop().await;
}
