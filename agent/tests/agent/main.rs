//! The whole agent as a process of its own, with real containers, before a master that the test plays.
//!
//! Needs root and cgroups, as the agent does: without them these tests fail.
#![allow(clippy::unwrap_used, reason = "a test says where it fails by its line")]

mod stage;
mod volumes;

use std::time::{Duration, Instant};

use ebb_api::proto::executor_client::ExecutorClient;
use ebb_types::{
    AgentId, AgentToMaster, CommandInfo, ExecutorCall, ExecutorEvent, ExecutorId, ExecutorInfo,
    ExitStatus, FrameworkId, Incarnation, MasterToAgent, Quantities, Reason, Resources, TaskId,
    TaskInfo, TaskState, TaskStatus,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use stage::{MIB, PATIENCE, Stage, exists, framework, get, task};

#[tokio::test(flavor = "multi_thread")]
async fn a_task_runs_to_its_end_and_its_output_can_be_followed() {
    let mut stage = Stage::open("run").await;
    stage
        .launch(
            "t",
            "echo hello; sleep 0.3; echo $EBB_TASK_ID >&2; echo world; exit 3",
        )
        .await;
    // From the very beginning on: the sandbox may not stand yet.
    stage
        .await_state("t", |state| state == TaskState::Starting)
        .await;
    let output = stage.read("t", "stdout", true);
    let output = tokio::time::timeout(PATIENCE, output).await.unwrap();
    assert_eq!(output.unwrap(), "hello\nworld\n");
    let end = stage.await_end("t").await;
    assert_eq!(end.state, TaskState::Failed);
    assert_eq!(end.exit, Some(ExitStatus::Code(3)));
    assert_eq!(end.message, "Command exited with status 3");
    let states: Vec<_> = stage.statuses["t"]
        .iter()
        .map(|status| status.state)
        .collect();
    assert_eq!(
        states,
        [TaskState::Starting, TaskState::Running, TaskState::Failed]
    );
    assert_eq!(stage.read("t", "stderr", false).await.unwrap(), "t\n");
    for bad in ["../spec.json", "/etc/passwd", "..", "none"] {
        assert!(stage.read("t", bad, false).await.is_err(), "{bad} was read");
    }
    assert!(stage.read("nobody", "stdout", false).await.is_err());
    stage.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_that_does_not_exist_and_one_that_eats_its_memory_say_so() {
    let mut stage = Stage::open("bad").await;
    let mut info = task("absent", "/no/such/program");
    info.command.as_mut().unwrap().shell = false;
    stage.launch_info(info).await;
    stage
        .launch(
            "greedy",
            "head -c 300m /dev/zero | tail -c 300m > /dev/null",
        )
        .await;
    let absent = stage.await_end("absent").await;
    assert_eq!(absent.state, TaskState::Failed);
    assert_eq!(absent.reason, Some(Reason::ContainerLaunchFailed));
    assert!(
        absent.message.contains("/no/such/program"),
        "{}",
        absent.message
    );
    let greedy = stage.await_end("greedy").await;
    assert_eq!(
        greedy.reason,
        Some(Reason::ContainerLimitationMemory),
        "{greedy:?}"
    );
    assert!(greedy.limitation.is_some());
    stage.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kill_asks_first_and_then_forces() {
    let mut stage = Stage::open("kill").await;
    stage
        .launch("polite", "trap 'exit 0' TERM; while :; do sleep 0.05; done")
        .await;
    stage
        .launch("deaf", "trap '' TERM; while :; do sleep 0.05; done")
        .await;
    for name in ["polite", "deaf"] {
        stage
            .await_state(name, |state| state == TaskState::Running)
            .await;
    }
    // The shells have to have set their traps; their sandboxes cannot tell, so they may also die of it.
    stage.kill("polite", 20_000).await;
    assert_eq!(stage.await_end("polite").await.state, TaskState::Killed);
    let since = Instant::now();
    stage.kill("deaf", 500).await;
    let deaf = stage.await_end("deaf").await;
    assert_eq!(deaf.state, TaskState::Killed);
    assert!(since.elapsed() < Duration::from_secs(5));
    stage.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_agent_comes_back_to_its_tasks_and_loses_no_end() {
    let mut stage = Stage::open("adopt").await;
    let [long, short] = [("long", "exit 7"), ("short", "exit 5")];
    let [long, short] = [long, short].map(|(name, then)| stage.held(name, then));
    stage.launch("long", &long).await;
    stage.launch("short", &short).await;
    stage.launch("kept", "echo started; sleep 1000").await;
    for name in ["long", "short", "kept"] {
        stage
            .await_state(name, |state| state == TaskState::Running)
            .await;
    }
    stage.kill_agent();
    // Its end comes while there is no agent.
    stage.release("short");
    let short = stage.run("short");
    stage
        .until("the short task's end", || short.exit().unwrap().is_some())
        .await;
    stage.start_agent();
    let registration = stage.await_registration().await;
    let AgentToMaster::Reregister {
        info,
        incarnation,
        tasks,
        ..
    } = registration
    else {
        panic!("{registration:?}");
    };
    assert_eq!(incarnation, Incarnation(2));
    assert_eq!(info.id, AgentId::new("agent-1").ok());
    assert_eq!(tasks.len(), 3, "{tasks:?}");
    assert_eq!(
        stage.await_end("short").await.exit,
        Some(ExitStatus::Code(5))
    );
    stage.release("long");
    assert_eq!(
        stage.await_end("long").await.exit,
        Some(ExitStatus::Code(7))
    );
    assert_eq!(
        stage.read("kept", "stdout", false).await.unwrap(),
        "started\n"
    );
    stage.kill("kept", 0).await;
    assert_eq!(stage.await_end("kept").await.state, TaskState::Killed);
    stage.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn statuses_wait_for_a_master_that_does_not_acknowledge_and_are_sent_anew_after_a_crash() {
    let mut stage = Stage::open("unheard").await;
    stage.acknowledging = false;
    stage.launch("t", "exit 4").await;
    stage
        .await_state("t", |state| state == TaskState::Starting)
        .await;
    stage
        .until("the third status", || {
            let metrics = get(stage.port, "/metrics");
            metrics
                .lines()
                .any(|line| line == "ebb_agent_updates_pending 3")
        })
        .await;
    stage.kill_agent();
    stage.statuses.clear();
    stage.acknowledging = true;
    stage.start_agent();
    let end = stage.await_end("t").await;
    assert_eq!(end.exit, Some(ExitStatus::Code(4)));
    let states: Vec<_> = stage.statuses["t"]
        .iter()
        .map(|status| status.state)
        .collect();
    assert_eq!(
        states,
        [TaskState::Starting, TaskState::Running, TaskState::Failed]
    );
    stage.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn shutting_down_ends_every_process_of_every_task() {
    let mut stage = Stage::open("drain").await;
    stage.launch("t", "sleep 1000 & echo $!; wait").await;
    stage
        .await_state("t", |state| state == TaskState::Running)
        .await;
    let agent = stage.agent_pid().to_string();
    stage.close().await;
    assert!(!exists(&agent));
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_and_health_are_served_and_figures_are_measured() {
    let mut stage = Stage::open("metrics").await;
    stage.launch("busy", "while :; do :; done").await;
    stage
        .await_state("busy", |state| state == TaskState::Running)
        .await;
    let until = Instant::now() + PATIENCE;
    let used = loop {
        assert!(
            Instant::now() < until,
            "no use was measured:\n{}",
            stage.log()
        );
        if let Some(AgentToMaster::Usage(usage)) = stage.hear().await {
            let task = usage
                .tasks
                .iter()
                .find(|task| task.task_id.as_str() == "busy");
            if let Some(milli) = task
                .and_then(|task| task.used.cpu_milli)
                .filter(|m| *m > 300)
            {
                assert!(task.unwrap().used.mem_bytes.is_some());
                break milli;
            }
        }
    };
    assert!(
        used < 1_500,
        "one spinner uses {used} thousandths of a core"
    );
    assert!(get(stage.port, "/health").contains("200 OK"));
    // What is served is of the last second.
    for line in [
        "ebb_agent_tasks{state=\"TASK_RUNNING\"} 1",
        "ebb_agent_registered 1",
        "ebb_agent_launch_seconds_count 1",
        "ebb_agent_measure_source{figure=\"on_cpu\"",
    ] {
        let is_served = || get(stage.port, "/metrics").contains(line);
        stage.until(line, is_served).await;
    }
    stage.close().await;
}

/// The program of the executor in the test below: this binary, started by the agent.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "played by another test, which has an agent start it as an executor"]
async fn plays_an_executor() {
    let socket = std::env::var("EBB_AGENT_SOCKET").unwrap();
    let mut client = ExecutorClient::connect(format!("unix:{socket}"))
        .await
        .unwrap();
    let (calls, outbound) = mpsc::channel(100);
    let send = async |call: ExecutorCall| calls.send(call.into()).await.unwrap();
    send(ExecutorCall::Subscribe {
        framework_id: FrameworkId::new(std::env::var("EBB_FRAMEWORK_ID").unwrap()).unwrap(),
        executor_id: ExecutorId::new(std::env::var("EBB_EXECUTOR_ID").unwrap()).unwrap(),
        unacknowledged_tasks: Vec::new(),
        unacknowledged_updates: Vec::new(),
    })
    .await;
    let response = client
        .subscribe(ReceiverStream::new(outbound))
        .await
        .unwrap();
    let mut events = response.into_inner();
    let mut count = 0;
    let mut status = |task_id: TaskId, state: TaskState| {
        count += 1;
        let now = ebb_types::Timestamp::default();
        let mut status = TaskStatus::new(task_id, state, ebb_types::Source::Executor, now);
        status.uuid = Some(ebb_types::UpdateUuid([count; 16]));
        ExecutorCall::Update(status)
    };
    while let Some(event) = events.message().await.unwrap() {
        match ExecutorEvent::try_from(event).unwrap() {
            ExecutorEvent::Launch(info) => {
                send(status(info.task_id.clone(), TaskState::Running)).await;
                if info.data == b"end" {
                    send(status(info.task_id, TaskState::Finished)).await;
                }
            }
            ExecutorEvent::Kill { task_id, .. } => {
                send(status(task_id, TaskState::Killed)).await;
            }
            ExecutorEvent::Message(bytes) => send(ExecutorCall::Message(bytes)).await,
            ExecutorEvent::Shutdown => return,
            ExecutorEvent::Subscribed { .. } | ExecutorEvent::Acknowledged { .. } => {}
            ExecutorEvent::Error(message) => panic!("{message}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_executor_of_a_frameworks_own_runs_its_tasks_in_one_container() {
    let mut stage = Stage::open("executor").await;
    let executor_id = ExecutorId::new("e").unwrap();
    let info = |name: &str, data: &[u8]| TaskInfo {
        command: None,
        executor: Some(ExecutorInfo {
            executor_id: executor_id.clone(),
            name: "played".to_owned(),
            command: CommandInfo {
                value: std::env::current_exe().unwrap().display().to_string(),
                arguments: ["agent", "--ignored", "--exact", "plays_an_executor"]
                    .map(str::to_owned)
                    .to_vec(),
                ..CommandInfo::default()
            },
            lots: ebb_types::Lots::NONE,
            resources: Resources::regular(Quantities::cpus_mem(100, 256 * MIB)),
            data: Vec::new(),
        }),
        lots: ebb_types::Lots::NONE,
        resources: Resources::regular(Quantities::cpus_mem(100, 64 * MIB)),
        data: data.to_vec(),
        ..task(name, "")
    };
    stage.launch_info(info("short", b"end")).await;
    stage.launch_info(info("long", b"")).await;
    let short = stage.await_end("short").await;
    assert_eq!(short.state, TaskState::Finished);
    let long = stage
        .await_state("long", |state| state == TaskState::Running)
        .await;
    assert_eq!(long.container_id, short.container_id);
    assert_eq!(long.executor_id, Some(executor_id.clone()));
    stage
        .say(MasterToAgent::Message {
            framework_id: framework(),
            executor_id: executor_id.clone(),
            data: b"echo".to_vec(),
        })
        .await;
    loop {
        if let Some(AgentToMaster::Message { data, .. }) = stage.hear().await {
            assert_eq!(data, b"echo");
            break;
        }
    }
    stage.kill("long", 1_000).await;
    assert_eq!(stage.await_end("long").await.state, TaskState::Killed);
    stage
        .say(MasterToAgent::ShutdownExecutor {
            framework_id: framework(),
            executor_id,
        })
        .await;
    loop {
        if let Some(AgentToMaster::ExecutorExited { status, .. }) = stage.hear().await {
            assert_eq!(status, 0);
            break;
        }
    }
    stage.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn hundreds_of_tasks_run_to_their_ends_one_container_each() {
    const COUNT: usize = 300;
    let mut stage = Stage::open("many").await;
    let since = Instant::now();
    for index in 0..COUNT {
        stage.launch(&format!("t{index}"), "true").await;
    }
    for index in 0..COUNT {
        let end = stage.await_end(&format!("t{index}")).await;
        assert_eq!(end.state, TaskState::Finished, "{end:?}");
    }
    let seconds = since.elapsed().as_secs_f64();
    println!(
        "{COUNT} tasks in {seconds:.2} s: {:.0} a second",
        COUNT as f64 / seconds
    );
    stage.close().await;
}
