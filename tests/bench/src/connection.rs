//! A framework's connection to the master, on the real API and without an SDK in between.

use anyhow::{Context, Result, bail};
use ebb_api::proto::scheduler_client::SchedulerClient;
use ebb_api::proto::{SchedulerCall, SchedulerEvent};
use ebb_types::{
    Call, CommandInfo, Event, FrameworkInfo, Offer, Quantities, Resources, Role, TaskId, TaskInfo,
    TaskStatus,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use tonic::transport::Channel;

/// Calls under way to the master.
const OUTBOX: usize = 64 * 1024;
/// What each task asks for: thousandths of a core, and bytes.
const TASK: (u64, u64) = (100, 32 << 20);

/// A subscribed framework.
pub(crate) struct Connection {
    calls: mpsc::Sender<SchedulerCall>,
    events: Streaming<SchedulerEvent>,
}

impl Connection {
    /// Subscribes a new framework.
    pub(crate) async fn open(channel: Channel) -> Result<Self> {
        let (calls, outbox) = mpsc::channel(OUTBOX);
        let info = FrameworkInfo {
            id: None,
            name: "bench".to_owned(),
            user: String::new(),
            roles: vec![Role::new("*")?],
            failover_timeout_ms: 0,
            hostname: String::new(),
            principal: String::new(),
            webui_url: String::new(),
            capabilities: Vec::new(),
            labels: Vec::new(),
        };
        let subscribe = Call::Subscribe {
            info,
            suppressed_roles: Vec::new(),
            terms: ebb_types::OfferTerms::new(),
        };
        calls.send(subscribe.into()).await?;
        let events = SchedulerClient::new(channel)
            .subscribe(ReceiverStream::new(outbox))
            .await
            .context("the master does not take a framework")?
            .into_inner();
        Ok(Self { calls, events })
    }

    /// Sends a call.
    pub(crate) async fn say(&self, call: Call) -> Result<()> {
        self.calls
            .send(call.into())
            .await
            .context("the stream to the master has ended")
    }

    /// The next event.
    pub(crate) async fn hear(&mut self) -> Result<Event> {
        let event = self.events.message().await?;
        let event = event.context("the master has ended the stream")?;
        match Event::try_from(event)? {
            Event::Error(message) => bail!("the master says: {message}"),
            event => Ok(event),
        }
    }

    /// Acknowledges a status that has to be.
    pub(crate) async fn acknowledge(&self, status: &TaskStatus) -> Result<()> {
        let (Some(uuid), Some(agent_id)) = (status.uuid, status.agent_id.clone()) else {
            return Ok(());
        };
        self.say(Call::Acknowledge {
            agent_id,
            task_id: status.task_id.clone(),
            uuid,
        })
        .await
    }

    /// Ends the framework, and returns when the master has ended the stream.
    pub(crate) async fn leave(mut self) -> Result<()> {
        self.say(Call::Teardown).await?;
        while let Ok(Some(_)) = self.events.message().await {}
        Ok(())
    }
}

/// What each task asks for.
pub(crate) fn task_resources() -> Resources {
    Resources::regular(Quantities::cpus_mem(TASK.0, TASK.1))
}

/// A task on an offer's agent.
pub(crate) fn task(task_id: TaskId, offer: &Offer, command: CommandInfo) -> TaskInfo {
    TaskInfo {
        task_id,
        name: "bench".to_owned(),
        agent_id: offer.agent_id.clone(),
        lots: ebb_types::Lots::NONE,
        resources: task_resources(),
        command: Some(command),
        executor: None,
        kill_grace_ms: None,
        warn_signal: None,
        max_completion_ms: None,
        cpu_limit_milli: None,
        data: Vec::new(),
        labels: Vec::new(),
    }
}
