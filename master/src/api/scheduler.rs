//! The scheduler service: one stream a framework.

use ebb_api::proto;
use ebb_types::Call;
use tonic::{Request, Response, Status, Streaming};

use super::stopped;
use super::stream::{Answer, Ended, answer};
use crate::core::ConnectionId;
use crate::driver::{Handle, Stopped};

pub(super) struct Service(pub(super) Handle);

#[tonic::async_trait]
impl proto::scheduler_server::Scheduler for Service {
    type SubscribeStream = Answer<proto::SchedulerEvent>;

    async fn subscribe(
        &self,
        request: Request<Streaming<proto::SchedulerCall>>,
    ) -> Result<Response<Self::SubscribeStream>, Status> {
        let (connection, inlet) = self.0.connect_scheduler().await.map_err(stopped)?;
        let (stream, ended) = answer(inlet, proto::SchedulerEvent::from);
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
    mut calls: Streaming<proto::SchedulerCall>,
    mut ended: Ended,
) -> Result<(), Stopped> {
    loop {
        let message = tokio::select! {
            message = calls.message() => message,
            () = ended.closed() => break,
        };
        match message {
            Ok(Some(wire)) => match Call::try_from(wire) {
                Ok(call) => handle.call(connection, call).await?,
                Err(invalid) => {
                    handle
                        .scheduler_broke(connection, invalid.to_string())
                        .await?;
                    return Ok(());
                }
            },
            Ok(None) => break,
            Err(status) => {
                tracing::info!(connection = connection.0, %status, "a scheduler's stream broke");
                break;
            }
        }
    }
    handle.scheduler_gone(connection).await
}
