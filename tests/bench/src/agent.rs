//! A simulated agent: speaks the agent link like a real one, and ends every task as soon as it has
//! said that it runs. It keeps the order that a real one keeps: of each task only the oldest
//! unacknowledged status is on its way.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail};
use ebb_api::proto::agent_link_client::AgentLinkClient;
use ebb_api::{AgentEnvelope, MasterEnvelope};
use ebb_types::{
    AgentId, AgentInfo, AgentToMaster, FrameworkId, Incarnation, MasterToAgent, Quantities,
    ResourceKind, Source, TaskId, TaskState, TaskStatus, Timestamp, UpdateUuid,
};
use tokio::sync::{mpsc, oneshot};
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;

/// Messages under way to the master, of one agent.
const OUTBOX: usize = 1024;
const INCARNATION: Incarnation = Incarnation(1);

/// What each simulated agent has.
pub fn agent_capacity() -> Quantities {
    Quantities::cpus_mem(64_000, 64 << 30).with(ResourceKind::Disk, 1 << 40)
}

/// An agent without a machine.
pub struct SimulatedAgent {
    id: Option<AgentId>,
    outbox: mpsc::Sender<ebb_api::proto::AgentMessage>,
    updates: u64,
    live: BTreeMap<(FrameworkId, TaskId), UpdateUuid>,
    registered: Option<oneshot::Sender<()>>,
}

impl SimulatedAgent {
    /// Joins over a channel and serves until the master ends the stream; tells when it is registered.
    ///
    /// # Errors
    /// When the master refuses it or says something that it does not understand.
    pub async fn serve(
        channel: Channel,
        number: usize,
        registered: oneshot::Sender<()>,
    ) -> Result<()> {
        let (outbox, inbox) = mpsc::channel(OUTBOX);
        let mut agent = Self {
            id: None,
            outbox,
            updates: 0,
            live: BTreeMap::new(),
            registered: Some(registered),
        };
        let info = AgentInfo {
            id: None,
            hostname: format!("simulated-{number}"),
            port: 1,
            lots: ebb_types::Lots::NONE,
            lots_version: 0,
            total: agent_capacity(),
            attributes: Vec::new(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            domain: None,
        };
        agent
            .tell(AgentToMaster::Register {
                info,
                incarnation: INCARNATION,
            })
            .await?;
        let mut orders = AgentLinkClient::new(channel)
            .join(ReceiverStream::new(inbox))
            .await
            .context("the master does not take a simulated agent")?
            .into_inner();
        while let Some(order) = orders.next().await {
            agent
                .obey(MasterEnvelope::try_from(order?)?.message)
                .await?;
        }
        Ok(())
    }

    async fn tell(&self, message: AgentToMaster) -> Result<()> {
        let envelope = AgentEnvelope {
            incarnation: INCARNATION,
            message,
        };
        self.outbox
            .send(envelope.into())
            .await
            .context("the stream to the master has ended")
    }

    async fn obey(&mut self, order: MasterToAgent) -> Result<()> {
        match order {
            MasterToAgent::Registered { agent_id, .. } => {
                self.id = Some(agent_id);
                // Whoever waited for it may have gone.
                let _heard = self.registered.take().map(|waiting| waiting.send(()));
            }
            MasterToAgent::Refused { message } => {
                bail!("the master refuses a simulated agent: {message}")
            }
            MasterToAgent::Heartbeat => self.tell(AgentToMaster::Heartbeat).await?,
            MasterToAgent::Launch {
                framework_id, task, ..
            } => {
                self.update(framework_id, task.task_id, TaskState::Running)
                    .await?;
            }
            MasterToAgent::Acknowledge {
                framework_id,
                task_id,
                uuid,
            } if self.live.remove(&(framework_id.clone(), task_id.clone())) == Some(uuid) => {
                self.update(framework_id, task_id, TaskState::Finished)
                    .await?;
            }
            _ => {}
        }
        Ok(())
    }

    async fn update(
        &mut self,
        framework_id: FrameworkId,
        task_id: TaskId,
        state: TaskState,
    ) -> Result<()> {
        self.updates += 1;
        let uuid = UpdateUuid::of(INCARNATION, self.updates);
        let mut status = TaskStatus::new(
            task_id.clone(),
            state,
            Source::Executor,
            Timestamp::from_ms(self.updates),
        );
        status.uuid = Some(uuid);
        status.agent_id.clone_from(&self.id);
        if !state.is_terminal() {
            self.live.insert((framework_id.clone(), task_id), uuid);
        }
        self.tell(AgentToMaster::Update {
            framework_id,
            status,
            latest_state: state,
        })
        .await
    }
}
