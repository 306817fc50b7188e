//! An agent as a process of its own, before a master that the test plays.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use ebb_agent::runtime::{RunDir, RunKey};
use ebb_api::proto::agent_link_server::{AgentLink, AgentLinkServer};
use ebb_api::proto::sandbox_client::SandboxClient;
use ebb_api::proto::{AgentMessage, MasterMessage, ReadRequest};
use ebb_api::{AgentEnvelope, MasterEnvelope};
use ebb_types::{
    AgentId, AgentToMaster, CommandInfo, FrameworkId, Generation, Incarnation, MasterToAgent,
    Quantities, Resources, TaskId, TaskInfo, TaskState, TaskStatus,
};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tokio::sync::mpsc;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::{Request, Response, Status, Streaming};

pub const PATIENCE: Duration = Duration::from_secs(30);
pub const MIB: u64 = 1 << 20;

pub type Outbound = mpsc::Sender<Result<MasterMessage, Status>>;

/// What the played master hears: a connection's beginning, or a message.
pub enum Heard {
    Joined(Outbound),
    Said(Box<AgentEnvelope>),
}

pub struct Link {
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
pub struct Stage {
    folder: tempfile::TempDir,
    base: String,
    master: SocketAddr,
    agent: Option<Child>,
    pub port: u16,
    heard: mpsc::Receiver<Heard>,
    outbound: Option<Outbound>,
    incarnation: Incarnation,
    /// Every status of each task, as it came, repetitions left out.
    pub statuses: BTreeMap<String, Vec<TaskStatus>>,
    pub acknowledging: bool,
}

impl Stage {
    pub async fn open(name: &str) -> Self {
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

    pub fn start_agent(&mut self) {
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

    pub fn work_dir(&self) -> PathBuf {
        self.folder.path().join("work")
    }

    /// The folder of a task's only run.
    pub fn run(&self, name: &str) -> RunDir {
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
    pub fn held(&self, name: &str, then: &str) -> String {
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
    pub fn release(&self, name: &str) {
        std::fs::write(self.gate(name), "\n").unwrap();
    }

    pub fn gate(&self, name: &str) -> PathBuf {
        self.folder.path().join(format!("gate-of-{name}"))
    }

    /// Looks again and again until it is so, for what gives the test no event: a file of an executor that is nobody's
    /// child any more, and a metric.
    pub async fn until(&self, what: &str, done: impl Fn() -> bool) {
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

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    pub async fn say(&self, message: MasterToAgent) {
        let envelope = MasterEnvelope {
            generation: Generation(1),
            message,
        };
        let outbound = self.outbound.as_ref().expect("an agent has joined");
        outbound.send(Ok(envelope.into())).await.unwrap();
    }

    /// Hears one message; registrations are answered, statuses kept and acknowledged.
    pub async fn hear(&mut self) -> Option<AgentToMaster> {
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

    pub async fn await_registration(&mut self) -> AgentToMaster {
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

    pub async fn await_state(
        &mut self,
        name: &str,
        wanted: impl Fn(TaskState) -> bool,
    ) -> TaskStatus {
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

    pub async fn await_end(&mut self, name: &str) -> TaskStatus {
        self.await_state(name, TaskState::is_terminal).await
    }

    pub async fn launch(&self, name: &str, line: &str) {
        let mut info = task(name, line);
        info.resources = Resources::regular(Quantities::cpus_mem(100, 64 * MIB));
        self.launch_info(info).await;
    }

    pub async fn launch_info(&self, info: TaskInfo) {
        self.say(MasterToAgent::Launch {
            framework_id: framework(),
            user: String::new(),
            incarnation: self.incarnation,
            task: Box::new(info),
        })
        .await;
    }

    pub async fn kill(&self, name: &str, grace_ms: u64) {
        self.say(MasterToAgent::Kill {
            framework_id: framework(),
            task_id: TaskId::new(name).unwrap(),
            grace_ms: Some(grace_ms),
        })
        .await;
    }

    pub async fn read(&self, name: &str, path: &str, follow: bool) -> Result<String, Status> {
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

    pub fn agent_pid(&self) -> u32 {
        self.agent.as_ref().expect("an agent runs").id()
    }

    /// As a crash does it: no chance to do anything.
    pub fn kill_agent(&mut self) {
        let mut agent = self.agent.take().expect("an agent runs");
        agent.kill().unwrap();
        agent.wait().unwrap();
    }

    /// Ends the agent politely: nothing may be left of it.
    pub async fn close(mut self) {
        let mut agent = self.agent.take().expect("an agent runs");
        let pid = rustix::process::Pid::from_child(&agent);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        let ended = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty());
        let ended = ended.unwrap();
        let in_time = tokio::task::spawn_blocking(move || {
            let patience = Timespec::try_from(PATIENCE).unwrap();
            poll(&mut [PollFd::new(&ended, PollFlags::IN)], Some(&patience))
        });
        let in_time = in_time.await.unwrap() == Ok(1);
        assert!(in_time, "it does not end:\n{}", self.log());
        let status = agent.wait().unwrap();
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
pub fn end_all(cgroup: &Path) {
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
pub fn cgroups_of(base: &str) -> Vec<PathBuf> {
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

pub fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

pub fn framework() -> FrameworkId {
    FrameworkId::new("framework-1").unwrap()
}

pub fn task(name: &str, line: &str) -> TaskInfo {
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
        warn_signal: None,
        max_completion_ms: None,
        cpu_limit_milli: None,
        data: Vec::new(),
        labels: Vec::new(),
    }
}

pub fn get(port: u16, path: &str) -> String {
    use std::io::{Read, Write};
    let mut stream = std::net::TcpStream::connect(("127.0.0.1", port)).unwrap();
    write!(stream, "GET {path} HTTP/1.0\r\nHost: x\r\n\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text
}

/// The name of what a folder holds.
pub fn first_in(folder: &Path) -> String {
    let mut entries = std::fs::read_dir(folder).unwrap();
    let name = entries.next().unwrap().unwrap().file_name();
    name.into_string().unwrap()
}

pub fn exists(pid: &str) -> bool {
    Path::new("/proc").join(pid.trim()).exists()
}
