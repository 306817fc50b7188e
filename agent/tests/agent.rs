//! The whole agent as a process of its own, with real containers, before a master that the test plays.
//!
//! Needs root and cgroups, as the agent does: without them these tests fail.
#![allow(clippy::unwrap_used, reason = "a test says where it fails by its line")]

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use ebb_agent::runtime::{RunDir, RunKey};
use ebb_api::proto::agent_link_server::{AgentLink, AgentLinkServer};
use ebb_api::proto::executor_client::ExecutorClient;
use ebb_api::proto::sandbox_client::SandboxClient;
use ebb_api::proto::{AgentMessage, MasterMessage, ReadRequest};
use ebb_api::{AgentEnvelope, MasterEnvelope};
use ebb_types::{
    AgentId, AgentToMaster, CommandInfo, ExecutorCall, ExecutorEvent, ExecutorId, ExecutorInfo,
    ExitStatus, FrameworkId, Generation, Incarnation, MasterToAgent, Quantities, Reason, Resources,
    TaskId, TaskInfo, TaskState, TaskStatus,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::{Request, Response, Status, Streaming};

const PATIENCE: Duration = Duration::from_secs(30);
const MIB: u64 = 1 << 20;

type Outbound = mpsc::Sender<Result<MasterMessage, Status>>;

/// What the played master hears: a connection's beginning, or a message.
enum Heard {
    Joined(Outbound),
    Said(Box<AgentEnvelope>),
}

struct Link {
    heard: mpsc::Sender<Heard>,
}

#[tonic::async_trait]
impl AgentLink for Link {
    type JoinStream = ReceiverStream<Result<MasterMessage, Status>>;

    async fn join(
        &self,
        request: Request<Streaming<AgentMessage>>,
    ) -> Result<Response<Self::JoinStream>, Status> {
        let (outbound, stream) = mpsc::channel(10_000);
        let heard = self.heard.clone();
        let _ = heard.send(Heard::Joined(outbound)).await;
        let mut messages = request.into_inner();
        tokio::spawn(async move {
            while let Ok(Some(message)) = messages.message().await {
                let envelope = AgentEnvelope::try_from(message).expect("a valid message");
                if heard.send(Heard::Said(Box::new(envelope))).await.is_err() {
                    return;
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(stream)))
    }
}

/// A master that the test plays, and the agent that it talks to.
struct Stage {
    folder: tempfile::TempDir,
    base: String,
    master: SocketAddr,
    agent: Option<Child>,
    port: u16,
    heard: mpsc::Receiver<Heard>,
    outbound: Option<Outbound>,
    incarnation: Incarnation,
    /// Every status of each task, as it came, repetitions left out.
    statuses: BTreeMap<String, Vec<TaskStatus>>,
    acknowledging: bool,
}

impl Stage {
    async fn open(name: &str) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let master = listener.local_addr().unwrap();
        let (tell, heard) = mpsc::channel(10_000);
        let service = AgentLinkServer::new(Link { heard: tell });
        tokio::spawn(
            tonic::transport::Server::builder()
                .add_service(service)
                .serve_with_incoming(TcpListenerStream::new(listener)),
        );
        let mut stage = Self {
            folder: tempfile::tempdir().unwrap(),
            base: format!("ebb-test-{}-{name}", std::process::id()),
            master,
            agent: None,
            port: free_port(),
            heard,
            outbound: None,
            incarnation: Incarnation(0),
            statuses: BTreeMap::new(),
            acknowledging: true,
        };
        stage.start_agent();
        stage.await_registration().await;
        stage
    }

    fn start_agent(&mut self) {
        let log = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.folder.path().join("log"))
            .unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_ebb-agent"))
            .args(["--master", &self.master.to_string()])
            .args(["--listen", &format!("127.0.0.1:{}", self.port)])
            .args(["--cgroup-base", &self.base])
            .args(["--cpus", "64", "--mem", "64GiB", "--disk", "1GiB"])
            .args(["--resources", "ports:[31000-31009];gpus:2"])
            .arg("--kill-tasks-on-shutdown")
            .arg("--work-dir")
            .arg(self.work_dir())
            .env("EBB_LOG", "info,ebb_agent=debug")
            .stdin(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        self.agent = Some(child);
    }

    fn work_dir(&self) -> PathBuf {
        self.folder.path().join("work")
    }

    /// The folder of a task's only run.
    fn run(&self, name: &str) -> RunDir {
        let agents = self.work_dir().join("agents");
        let instance = first_in(&agents);
        let tasks = agents.join(&instance).join("frameworks/framework-1/tasks");
        let key = RunKey {
            framework_id: "framework-1".to_owned(),
            task_id: name.to_owned(),
            container_id: first_in(&tasks.join(name).join("runs")),
        };
        RunDir::of(&self.work_dir(), &instance, &key).unwrap()
    }

    /// A command that waits until the test releases it.
    fn held(&self, name: &str, then: &str) -> String {
        let gate = self.gate(name);
        rustix::fs::mknodat(
            rustix::fs::CWD,
            &gate,
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::from_raw_mode(0o600),
            0,
        )
        .unwrap();
        format!("read go < '{}'; {then}", gate.display())
    }

    /// Lets a task that is held go on; waits until it stands at its gate.
    fn release(&self, name: &str) {
        std::fs::write(self.gate(name), "\n").unwrap();
    }

    fn gate(&self, name: &str) -> PathBuf {
        self.folder.path().join(format!("gate-of-{name}"))
    }

    /// Looks again and again until it is so, for what gives the test no event: a file of an executor that is nobody's
    /// child any more, and a metric.
    async fn until(&self, what: &str, done: impl Fn() -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !done() {
            assert!(
                Instant::now() < deadline,
                "{what} did not come:\n{}",
                self.log()
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    async fn say(&self, message: MasterToAgent) {
        let envelope = MasterEnvelope {
            generation: Generation(1),
            message,
        };
        let outbound = self.outbound.as_ref().expect("an agent has joined");
        outbound.send(Ok(envelope.into())).await.unwrap();
    }

    /// Hears one message; registrations are answered, statuses kept and acknowledged.
    async fn hear(&mut self) -> Option<AgentToMaster> {
        let heard = tokio::time::timeout(PATIENCE, self.heard.recv()).await;
        let Ok(Some(heard)) = heard else {
            panic!("nothing was heard; the agent says:\n{}", self.log());
        };
        let envelope = match heard {
            Heard::Joined(outbound) => {
                self.outbound = Some(outbound);
                return None;
            }
            Heard::Said(envelope) => *envelope,
        };
        match &envelope.message {
            AgentToMaster::Register { incarnation, .. }
            | AgentToMaster::Reregister { incarnation, .. } => {
                self.incarnation = *incarnation;
                self.say(MasterToAgent::Registered {
                    agent_id: AgentId::new("agent-1").unwrap(),
                    generation: Generation(1),
                    heartbeat_interval_ms: 1_000,
                    unreachable_after_ms: 10_000,
                })
                .await;
            }
            AgentToMaster::Update { status, .. } => {
                let all = self.statuses.entry(status.task_id.to_string()).or_default();
                if all.last().is_none_or(|last| last.uuid != status.uuid) {
                    all.push(status.clone());
                }
                if self.acknowledging {
                    self.say(MasterToAgent::Acknowledge {
                        framework_id: framework(),
                        task_id: status.task_id.clone(),
                        uuid: status.uuid.unwrap(),
                    })
                    .await;
                }
            }
            _ => {}
        }
        Some(envelope.message)
    }

    async fn await_registration(&mut self) -> AgentToMaster {
        loop {
            let message = self.hear().await;
            if let Some(
                message @ (AgentToMaster::Register { .. } | AgentToMaster::Reregister { .. }),
            ) = message
            {
                return message;
            }
        }
    }

    async fn await_state(&mut self, name: &str, wanted: impl Fn(TaskState) -> bool) -> TaskStatus {
        let until = Instant::now() + PATIENCE;
        loop {
            let all = self.statuses.get(name).into_iter().flatten();
            if let Some(status) = all.clone().find(|status| wanted(status.state)) {
                return status.clone();
            }
            assert!(Instant::now() < until, "{name}: {all:?}\n{}", self.log());
            self.hear().await;
        }
    }

    async fn await_end(&mut self, name: &str) -> TaskStatus {
        self.await_state(name, TaskState::is_terminal).await
    }

    async fn launch(&self, name: &str, line: &str) {
        let mut info = task(name, line);
        info.resources = Resources::regular(Quantities::cpus_mem(100, 64 * MIB));
        self.launch_info(info).await;
    }

    async fn launch_info(&self, info: TaskInfo) {
        self.say(MasterToAgent::Launch {
            framework_id: framework(),
            user: String::new(),
            incarnation: self.incarnation,
            task: Box::new(info),
        })
        .await;
    }

    async fn kill(&self, name: &str, grace_ms: u64) {
        self.say(MasterToAgent::Kill {
            framework_id: framework(),
            task_id: TaskId::new(name).unwrap(),
            grace_ms: Some(grace_ms),
        })
        .await;
    }

    async fn read(&self, name: &str, path: &str, follow: bool) -> Result<String, Status> {
        let address = format!("http://127.0.0.1:{}", self.port);
        let mut client = SandboxClient::connect(address).await.unwrap();
        let request = ReadRequest {
            framework_id: "framework-1".to_owned(),
            task_id: name.to_owned(),
            path: path.to_owned(),
            offset: 0,
            follow,
        };
        let mut stream = client.read(request).await?.into_inner();
        let mut bytes = Vec::new();
        while let Some(chunk) = stream.message().await? {
            assert_eq!(chunk.offset, bytes.len() as u64);
            bytes.extend(chunk.data);
        }
        Ok(String::from_utf8(bytes).unwrap())
    }

    fn agent_pid(&self) -> u32 {
        self.agent.as_ref().expect("an agent runs").id()
    }

    /// As a crash does it: no chance to do anything.
    fn kill_agent(&mut self) {
        let mut agent = self.agent.take().expect("an agent runs");
        agent.kill().unwrap();
        agent.wait().unwrap();
    }

    /// Ends the agent politely: nothing may be left of it.
    async fn close(mut self) {
        let mut agent = self.agent.take().expect("an agent runs");
        let pid = rustix::process::Pid::from_child(&agent);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        let until = Instant::now() + PATIENCE;
        let status = loop {
            if let Some(status) = agent.try_wait().unwrap() {
                break status;
            }
            assert!(Instant::now() < until, "it does not end:\n{}", self.log());
            tokio::time::sleep(Duration::from_millis(20)).await;
        };
        assert!(status.success(), "{status}\n{}", self.log());
        let left = cgroups_of(&self.base);
        assert!(left.is_empty(), "left behind: {left:?}\n{}", self.log());
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        if let Some(mut agent) = self.agent.take() {
            let pid = rustix::process::Pid::from_child(&agent);
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
            let _ = agent.wait();
        }
        // A test that failed while its agent was gone has left its tasks.
        cgroups_of(&self.base).iter().for_each(|path| end_all(path));
    }
}

/// Kills what runs in a cgroup and below.
fn end_all(cgroup: &Path) {
    let pids = std::fs::read_to_string(cgroup.join("cgroup.procs")).unwrap_or_default();
    let pids = pids.lines().filter_map(|pid| pid.parse().ok());
    for pid in pids.filter_map(rustix::process::Pid::from_raw) {
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
    }
    let below = std::fs::read_dir(cgroup).into_iter().flatten().flatten();
    for entry in below.filter(|entry| entry.path().is_dir()) {
        end_all(&entry.path());
    }
}

/// Every cgroup of that base in any mount.
fn cgroups_of(base: &str) -> Vec<PathBuf> {
    let mut mounts = vec![PathBuf::from("/sys/fs/cgroup")];
    mounts.extend(
        std::fs::read_dir("/sys/fs/cgroup")
            .unwrap()
            .flatten()
            .map(|entry| entry.path()),
    );
    mounts
        .iter()
        .flat_map(|mount| [mount.join(base), mount.join(format!("{base}-revocable"))])
        .filter(|path| path.exists())
        .collect()
}

fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

fn framework() -> FrameworkId {
    FrameworkId::new("framework-1").unwrap()
}

fn task(name: &str, line: &str) -> TaskInfo {
    TaskInfo {
        task_id: TaskId::new(name).unwrap(),
        name: name.to_owned(),
        agent_id: AgentId::new("agent-1").unwrap(),
        lots: ebb_types::Lots::NONE,
        resources: Resources::ZERO,
        command: Some(CommandInfo {
            value: line.to_owned(),
            shell: true,
            ..CommandInfo::default()
        }),
        executor: None,
        kill_grace_ms: None,
        max_completion_ms: None,
        cpu_limit_milli: None,
        data: Vec::new(),
        labels: Vec::new(),
    }
}

fn get(port: u16, path: &str) -> String {
    use std::io::{Read, Write};
    let mut stream = std::net::TcpStream::connect(("127.0.0.1", port)).unwrap();
    write!(stream, "GET {path} HTTP/1.0\r\nHost: x\r\n\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text
}

/// The name of what a folder holds.
fn first_in(folder: &Path) -> String {
    let mut entries = std::fs::read_dir(folder).unwrap();
    let name = entries.next().unwrap().unwrap().file_name();
    name.into_string().unwrap()
}

fn exists(pid: &str) -> bool {
    Path::new("/proc").join(pid.trim()).exists()
}

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
    let metrics = get(stage.port, "/metrics");
    for line in [
        "ebb_agent_tasks{state=\"TASK_RUNNING\"} 1",
        "ebb_agent_registered 1",
        "ebb_agent_launch_seconds_count 1",
        "ebb_agent_measure_source{figure=\"on_cpu\"",
    ] {
        assert!(metrics.contains(line), "{line} is missing in:\n{metrics}");
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

/// A volume of 64 MiB as a task sees it at `data`.
fn volume(mode: ebb_types::VolumeMode) -> ebb_types::Lots {
    use ebb_types::{Disk, LotKey, LotValue, Lots, Reservation, ReservationKind, Role, Volume};
    let key = LotKey {
        reservations: vec![Reservation {
            role: Role::new("eng").unwrap(),
            kind: ReservationKind::Dynamic,
            principal: String::new(),
            labels: Vec::new(),
        }],
        disk: Some(Box::new(Disk {
            source: None,
            volume: Some(Volume {
                id: "v".to_owned(),
                principal: String::new(),
                container_path: "data".to_owned(),
                mode,
            }),
        })),
        ..LotKey::named("disk")
    };
    Lots::new([(key, LotValue::Scalar(64 * MIB))]).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_volume_outlives_its_task_and_the_agent_and_ends_with_its_order() {
    use ebb_types::VolumeMode;
    let mut stage = Stage::open("volume").await;
    let dynamic = volume(VolumeMode::ReadWrite);
    let order = |version, dynamic| MasterToAgent::Lots { version, dynamic };
    stage.say(order(1, dynamic.clone())).await;
    let mut writer = task(
        "writer",
        "echo kept > data/file; ls data; echo $NVIDIA_VISIBLE_DEVICES",
    );
    writer.lots = dynamic.clone();
    stage.launch_info(writer).await;
    let end = stage.await_end("writer").await;
    assert_eq!(end.state, TaskState::Finished, "{end:?}");
    let said = stage.read("writer", "stdout", false).await.unwrap();
    assert_eq!(said, "file\nvoid\n");
    // The volume stood in the container's view alone.
    let place = stage.run("writer").sandbox().join("data");
    assert!(std::fs::read_dir(place).unwrap().next().is_none());

    stage.kill_agent();
    stage.start_agent();
    let registration = stage.await_registration().await;
    let AgentToMaster::Reregister { info, .. } = registration else {
        panic!("{registration:?}");
    };
    assert_eq!(info.lots_version, 1);
    assert!(info.lots.contains(&dynamic), "{}", info.lots);

    let mut reader = task(
        "reader",
        "cat data/file; touch data/other || echo protected; echo $NVIDIA_VISIBLE_DEVICES",
    );
    let gpu: ebb_types::WrittenResources = "gpus:1".parse().unwrap();
    reader.lots = volume(VolumeMode::ReadOnly).checked_add(&gpu.lots).unwrap();
    stage.launch_info(reader).await;
    assert_eq!(stage.await_end("reader").await.state, TaskState::Finished);
    let said = stage.read("reader", "stdout", false).await.unwrap();
    assert_eq!(said, "kept\nprotected\n0\n");

    let volumes = stage.work_dir().join("ebb-volumes");
    let of_role = volumes.join(first_in(&volumes)).join("eng");
    assert!(of_role.join("v/file").exists());
    stage.say(order(2, ebb_types::Lots::NONE)).await;
    stage
        .until("the volume's end", || {
            std::fs::read_dir(&of_role).unwrap().next().is_none()
        })
        .await;
    stage.close().await;
}
