//! The agent link: one stream an agent.

use ebb_api::{AgentEnvelope, MasterEnvelope, proto};
use ebb_types::Generation;
use tonic::{Request, Response, Status, Streaming};

use super::stopped;
use super::stream::{Answer, Ended, answer};
use crate::core::ConnectionId;
use crate::driver::{Handle, Stopped};

pub(super) struct Service(pub(super) Handle);

#[tonic::async_trait]
impl proto::agent_link_server::AgentLink for Service {
    type JoinStream = Answer<proto::MasterMessage>;

    async fn join(
        &self,
        request: Request<Streaming<proto::AgentMessage>>,
    ) -> Result<Response<Self::JoinStream>, Status> {
        let (connection, inlet) = self.0.connect_agent().await.map_err(stopped)?;
        let generation = Generation(self.0.generation());
        let (stream, ended) = answer(inlet, move |message| {
            proto::MasterMessage::from(MasterEnvelope {
                generation,
                message,
            })
        });
        let handle = self.0.clone();
        tokio::spawn(async move {
            // The driver is no more: there is nobody to tell.
            let _stopped = read(&handle, connection, request.into_inner(), ended)
                .await
                .is_err();
        });
        Ok(Response::new(stream))
    }
}

async fn read(
    handle: &Handle,
    connection: ConnectionId,
    mut messages: Streaming<proto::AgentMessage>,
    mut ended: Ended,
) -> Result<(), Stopped> {
    loop {
        let message = tokio::select! {
            message = messages.message() => message,
            () = ended.closed() => break,
        };
        match message {
            Ok(Some(wire)) => match AgentEnvelope::try_from(wire) {
                Ok(AgentEnvelope {
                    incarnation,
                    message,
                }) => handle.agent(connection, incarnation, message).await?,
                Err(invalid) => {
                    handle.agent_broke(connection, invalid.to_string()).await?;
                    return Ok(());
                }
            },
            Ok(None) => break,
            Err(status) => {
                tracing::info!(connection = connection.0, %status, "an agent's stream broke");
                break;
            }
        }
    }
    handle.agent_gone(connection).await
}
