//! One master and one agent, or more, as processes of their own, in a folder of their own.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use ebb_api::proto::WatchRequest;
use ebb_types::{AgentId, AgentStatus, ClusterState};
use rustix::process::Signal;

use crate::running::Output;
use crate::{Ended, PATIENCE, Running, host, programs, wire};

/// Wait before a master that cannot be reached is tried again.
const RECONNECT_AFTER: Duration = Duration::from_millis(50);

/// What every agent has, so that nothing has to be measured first.
const AGENT_SETTINGS: &str = "cpus = 4\nmem = '2GiB'\ndisk = '1GiB'\ndisk_bandwidth = '100MiB/s'\nnetwork_bandwidth = '100MB/s'\n";

/// One master and one agent, and others beside it. At its end nothing of them is left.
#[derive(Debug)]
pub struct Cluster {
    folder: tempfile::TempDir,
    base: String,
    master_args: Vec<String>,
    agent_args: Vec<String>,
    address: Option<SocketAddr>,
    agent_address: Option<SocketAddr>,
    master: Option<Running>,
    agent: Option<Running>,
    others: Vec<Running>,
}

impl Cluster {
    /// A cluster that is not started yet.
    ///
    /// # Panics
    /// Without root, or when no folder can be made.
    pub fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        assert!(
            rustix::process::geteuid().is_root(),
            "these tests need root: they run real containers; run them with sudo"
        );
        let folder = tempfile::Builder::new()
            .prefix("ebb-e2e-")
            .tempdir()
            .expect("a folder for temporary files");
        fs::write(folder.path().join("agent.toml"), AGENT_SETTINGS).expect("a writable folder");
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        Self {
            folder,
            base: format!("ebb-e2e-{}-{number}", std::process::id()),
            master_args: Vec::new(),
            agent_args: Vec::new(),
            address: None,
            agent_address: None,
            master: None,
            agent: None,
            others: Vec::new(),
        }
    }

    /// A cluster whose master and agent are up.
    pub fn start() -> Self {
        Self::start_with(&[], &[])
    }

    /// The same, with more flags for the master and the agent.
    pub fn start_with(master_args: &[&str], agent_args: &[&str]) -> Self {
        let mut cluster = Self::new_with(master_args, agent_args);
        cluster.bring_up();
        cluster
    }

    /// A cluster that is not started yet, with more flags for the master and the agent.
    pub fn new_with(master_args: &[&str], agent_args: &[&str]) -> Self {
        let mut cluster = Self::new();
        cluster.master_args = owned(master_args);
        cluster.agent_args = owned(agent_args);
        cluster
    }

    /// Starts master and agent and waits until they know each other.
    pub fn bring_up(&mut self) {
        self.start_master();
        self.start_agent();
        self.wait_registered();
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The name below which its containers' cgroups stand.
    pub fn base(&self) -> &str {
        &self.base
    }

    /// Where the master listens, also while it is down.
    ///
    /// # Panics
    /// Before its first start.
    pub fn address(&self) -> SocketAddr {
        self.address.expect("the master was started once")
    }

    /// Where the agent listens.
    ///
    /// # Panics
    /// Before its first start.
    pub fn agent_address(&self) -> SocketAddr {
        self.agent_address.expect("the agent was started once")
    }

    /// The master's process.
    ///
    /// # Panics
    /// While it is down.
    pub fn master(&self) -> &Running {
        self.master.as_ref().expect("the master is up")
    }

    /// The agent's process.
    ///
    /// # Panics
    /// While it is down.
    pub fn agent(&self) -> &Running {
        self.agent.as_ref().expect("the agent is up")
    }

    /// Adds lines to the file of the agent's settings, for its next start.
    ///
    /// # Panics
    /// When the file cannot be written.
    pub fn add_agent_settings(&self, lines: &str) {
        let text = format!("{AGENT_SETTINGS}{lines}");
        fs::write(self.agent_settings(), text).expect("a writable folder");
    }

    /// The command that starts the master; always on the same port after the first time.
    pub fn master_command(&self) -> Command {
        let mut command = programs::program("ebb-master");
        let listen = self
            .address
            .unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], 0)));
        command
            .args(["--listen", &listen.to_string(), "--hostname", "127.0.0.1"])
            .arg("--data-dir")
            .arg(self.folder().join("master"))
            .args(&self.master_args);
        command
    }

    /// The command that starts the agent.
    pub fn agent_command(&self) -> Command {
        let mut command = self.command_of_agent("127.0.0.1", &self.work_dir());
        command.args(&self.agent_args);
        command
    }

    fn command_of_agent(&self, hostname: &str, work_dir: &Path) -> Command {
        let mut command = programs::program("ebb-agent");
        command
            .args(["--master", &self.address().to_string()])
            .args(["--listen", "127.0.0.1:0", "--hostname", hostname])
            .arg("--work-dir")
            .arg(work_dir)
            .args(["--cgroup-base", &self.base, "--kill-tasks-on-shutdown"])
            .arg("--config")
            .arg(self.agent_settings());
        command
    }

    /// Starts one more agent, with a host name of its own and more flags, and gives its id.
    pub fn start_other(&mut self, hostname: &str, args: &[&str]) -> AgentId {
        let work_dir = self.folder().join(hostname);
        let mut command = self.command_of_agent(hostname, &work_dir);
        command.args(args);
        self.others.push(Running::start("ebb-agent", command));
        self.wait_until("another registered agent", |state| {
            let mut agents = state.agents.iter();
            let agent = agents.find(|agent| agent.info.hostname == hostname)?;
            (agent.status == AgentStatus::Registered).then(|| agent.id.clone())
        })
    }

    /// The file of the agent's settings; flags win over it.
    pub fn agent_settings(&self) -> PathBuf {
        self.folder().join("agent.toml")
    }

    /// The agent's work folder.
    pub fn work_dir(&self) -> PathBuf {
        self.folder().join("agent")
    }

    /// Starts the master and waits until it listens.
    pub fn start_master(&mut self) {
        let master = Running::start("ebb-master", self.master_command());
        let address = address_in(&master, "the master listens");
        self.address = Some(address);
        self.master = Some(master);
    }

    /// Starts the agent and waits until it serves.
    pub fn start_agent(&mut self) {
        let agent = Running::start("ebb-agent", self.agent_command());
        self.agent_address = Some(address_in(&agent, "the agent serves"));
        self.agent = Some(agent);
    }

    /// Ends the master as a crash would.
    pub fn kill9_master(&mut self) {
        if let Some(master) = self.master.take() {
            master.kill9();
        }
    }

    /// Ends the agent as a crash would.
    pub fn kill9_agent(&mut self) {
        if let Some(agent) = self.agent.take() {
            agent.kill9();
        }
    }

    /// Waits until the agent is registered with the master.
    pub fn wait_registered(&self) {
        self.wait_until("a registered agent", |state| {
            let mut agents = state.agents.iter();
            agents
                .any(|agent| agent.status == AgentStatus::Registered)
                .then_some(())
        });
    }

    /// Waits for a change of the cluster after which `found` finds something in its state.
    ///
    /// # Panics
    /// When it does not in time.
    pub fn wait_until<T>(
        &self,
        what: &str,
        mut found: impl FnMut(&ClusterState) -> Option<T>,
    ) -> T {
        let mut last = None;
        let search = async {
            loop {
                match self.watch(&mut found, &mut last).await {
                    Some(thing) => return thing,
                    None => tokio::time::sleep(RECONNECT_AFTER).await,
                }
            }
        };
        let found = wire::block_on(async { tokio::time::timeout(PATIENCE, search).await });
        found.unwrap_or_else(|_| {
            panic!("the cluster has not shown {what}; its last state: {last:#?}")
        })
    }

    /// Looks at the state after each change, until the stream ends.
    async fn watch<T>(
        &self,
        found: &mut impl FnMut(&ClusterState) -> Option<T>,
        last: &mut Option<ClusterState>,
    ) -> Option<T> {
        let mut client = wire::operator(self.address()).await.ok()?;
        let mut changes = client.watch(WatchRequest {}).await.ok()?.into_inner();
        while let Ok(Some(_)) = changes.message().await {
            let state = wire::state(&mut client).await.ok()?;
            if let Some(thing) = found(&state) {
                return Some(thing);
            }
            *last = Some(state);
        }
        None
    }

    /// The state now.
    ///
    /// # Panics
    /// When the master does not answer.
    pub fn state(&self) -> ClusterState {
        wire::block_on(async {
            let mut client = wire::operator(self.address()).await.expect("a master");
            wire::state(&mut client).await.expect("an answer")
        })
    }

    /// A pipe in the folder at which a task waits until something is written to it.
    ///
    /// # Panics
    /// When it cannot be made.
    pub fn gate(&self, name: &str) -> PathBuf {
        let path = self.folder().join(name);
        let mode = rustix::fs::Mode::from_raw_mode(0o600);
        let kind = rustix::fs::FileType::Fifo;
        rustix::fs::mknodat(rustix::fs::CWD, &path, kind, mode, 0).expect("a pipe");
        path
    }

    /// Starts `ebb` against this master.
    pub fn spawn(&self, args: &[&str]) -> Running {
        let mut command = programs::program("ebb");
        command
            .args(args)
            .env("EBB_MASTER", self.address().to_string());
        Running::start(&format!("ebb {}", args.first().unwrap_or(&"")), command)
    }

    /// Runs `ebb` against this master to its end.
    pub fn ebb(&self, args: &[&str]) -> Ended {
        self.spawn(args).ended()
    }

    /// What the master shows at `/metrics`.
    pub fn master_metrics(&self) -> String {
        wire::get(self.address(), "/metrics")
    }

    /// What the agent shows at `/metrics`.
    pub fn agent_metrics(&self) -> String {
        wire::get(self.agent_address(), "/metrics")
    }

    /// Ends both as an operator would.
    ///
    /// # Panics
    /// When one fails, or anything but the folder is left on the machine.
    pub fn finish(mut self) {
        let others = std::mem::take(&mut self.others);
        let daemons = [self.agent.take(), self.master.take()];
        for daemon in others.into_iter().chain(daemons.into_iter().flatten()) {
            daemon.signal(Signal::TERM);
            let ended = daemon.ended();
            assert_eq!(ended.code(), 0, "{ended:?}");
        }
        let left = host::leftovers(self.folder(), &self.base, None);
        assert!(left.is_empty(), "the cluster has left: {left:#?}");
    }
}

impl Default for Cluster {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.others.clear();
        drop(self.agent.take());
        drop(self.master.take());
        if thread::panicking() {
            let identity = fs::read_to_string(self.work_dir().join("identity"));
            eprintln!("--- swept {}, agent {identity:?}", self.base);
        }
        host::sweep(self.folder(), &self.base, None);
    }
}

fn owned(list: &[&str]) -> Vec<String> {
    list.iter().map(|text| (*text).to_owned()).collect()
}

/// The address in the line of the log that says where a daemon listens.
fn address_in(daemon: &Running, says: &str) -> SocketAddr {
    daemon.line(Output::Stderr, 0, says, |line| {
        let rest = line.split_once(says)?.1.split_once("address=")?.1;
        rest.split(' ').next()?.parse().ok()
    })
}
