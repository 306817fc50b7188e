//! A cluster of one machine: a real master and a real agent, as processes of their own.

use std::path::Path;

use anyhow::{Context, Result};
use ebb_api::proto::ReadRequest;
use ebb_api::proto::sandbox_client::SandboxClient;
use ebb_types::{FrameworkId, TaskId};
use tokio::runtime::Runtime;
use tonic::transport::{Channel, Endpoint};

use crate::daemon::Daemon;
use crate::one_by_one::OneByOne;

/// A running cluster. Dropping it ends it, with its tasks.
pub struct Cluster {
    runtime: Runtime,
    // The agent ends first, and its tasks with it.
    agent: Daemon,
    master: Daemon,
}

impl Cluster {
    /// Starts both in a folder of their own; the agent offers so much, in the words of its flags.
    ///
    /// # Errors
    /// When one does not start; the agent needs root.
    pub fn start(folder: &Path, cpus: &str, mem: &str) -> Result<Self> {
        let path = |name: &str| folder.join(name).to_string_lossy().into_owned();
        let (data, work) = (path("master"), path("agent"));
        let master = Daemon::start(
            "ebb-master",
            &["--listen", "127.0.0.1:0", "--data-dir", &data],
        )?;
        let address = master.address().to_string();
        let base = format!("ebb-bench-{}", std::process::id());
        let agent = Daemon::start(
            "ebb-agent",
            &[
                &["--master", &address, "--listen", "127.0.0.1:0"][..],
                &["--work-dir", &work, "--cgroup-base", &base],
                &["--cpus", cpus, "--mem", mem, "--disk", "1GiB"],
                &["--disk-bandwidth", "100MiB/s", "--kill-tasks-on-shutdown"],
            ]
            .concat(),
        )?;
        Ok(Self {
            runtime: Runtime::new()?,
            agent,
            master,
        })
    }

    /// What runs the frameworks.
    pub fn runtime(&self) -> &Runtime {
        &self.runtime
    }

    /// The master.
    pub fn master(&self) -> &Daemon {
        &self.master
    }

    /// The agent.
    pub fn agent(&self) -> &Daemon {
        &self.agent
    }

    /// A connection to the master.
    ///
    /// # Errors
    /// When the master is gone.
    pub fn channel(&self) -> Result<Channel> {
        let address = format!("http://{}", self.master.address());
        let endpoint = Endpoint::from_shared(address)?.tcp_nodelay(true);
        let connect = endpoint.connect();
        self.runtime.block_on(connect).context("the master is gone")
    }

    /// A framework that runs one task after another.
    ///
    /// # Errors
    /// When the master does not take it.
    pub fn open(&self) -> Result<OneByOne> {
        self.runtime.block_on(OneByOne::open(self.channel()?))
    }

    /// What a task wrote, as the agent serves it.
    ///
    /// # Errors
    /// When the agent does not serve it, or it is no text.
    pub fn output(&self, framework_id: &FrameworkId, task_id: &TaskId) -> Result<String> {
        let request = ReadRequest {
            framework_id: framework_id.to_string(),
            task_id: task_id.to_string(),
            path: "stdout".to_owned(),
            offset: 0,
            follow: false,
        };
        let address = format!("http://{}", self.agent.address());
        self.runtime.block_on(async {
            let mut client = SandboxClient::connect(address).await?;
            let mut chunks = client.read(request).await?.into_inner();
            let mut bytes = Vec::new();
            while let Some(chunk) = chunks.message().await? {
                bytes.extend(chunk.data);
            }
            Ok(String::from_utf8(bytes)?)
        })
    }

    /// Ends both.
    ///
    /// # Errors
    /// When one does not end with success.
    pub fn stop(self) -> Result<()> {
        self.agent.stop()?;
        self.master.stop()
    }
}
