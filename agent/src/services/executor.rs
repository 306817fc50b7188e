//! Frameworks' own executors dial in here, over the Unix socket.
//!
//! A stream is one session; the core knows executors by it. A stream whose first call is not a
//! subscription, or that does not read, is ended with a reason.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use ebb_api::proto;
use ebb_types::{ExecutorCall, ExecutorEvent, ExecutorId, FrameworkId};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use crate::core::{Input, Session};
use crate::driver::Event;

/// Most events that wait for an executor to read them. More ends its session.
const MAX_OUTBOUND: usize = 16_384;

type Outbound = mpsc::Sender<Result<proto::ExecutorEvent, Status>>;

/// The agent's end of an executor's stream. When it is dropped the stream ends.
#[derive(Clone, Debug)]
pub struct ExecutorLink {
    outbound: Outbound,
}

impl ExecutorLink {
    /// Sends an event; false if the executor is gone or does not read.
    pub fn send(&self, event: ExecutorEvent) -> bool {
        self.outbound.try_send(Ok(event.into())).is_ok()
    }
}

/// The service.
#[derive(Clone, Debug)]
pub struct ExecutorService {
    events: mpsc::Sender<Event>,
    sessions: Arc<AtomicU64>,
}

impl ExecutorService {
    /// Hands calls to the loop.
    pub fn new(events: mpsc::Sender<Event>) -> Self {
        Self {
            events,
            sessions: Arc::default(),
        }
    }
}

#[tonic::async_trait]
impl proto::executor_server::Executor for ExecutorService {
    type SubscribeStream = ReceiverStream<Result<proto::ExecutorEvent, Status>>;

    async fn subscribe(
        &self,
        request: Request<Streaming<proto::ExecutorCall>>,
    ) -> Result<Response<Self::SubscribeStream>, Status> {
        let session = Session(self.sessions.fetch_add(1, Ordering::Relaxed) + 1);
        let (outbound, stream) = mpsc::channel(MAX_OUTBOUND);
        let link = ExecutorLink { outbound };
        let listener = Listener {
            session,
            events: self.events.clone(),
            calls: request.into_inner(),
        };
        tokio::spawn(listener.run(link));
        Ok(Response::new(ReceiverStream::new(stream)))
    }
}

struct Listener {
    session: Session,
    events: mpsc::Sender<Event>,
    calls: Streaming<proto::ExecutorCall>,
}

impl Listener {
    async fn run(mut self, link: ExecutorLink) {
        // Weak, so that the stream ends when the loop drops its end.
        let refusals = link.outbound.downgrade();
        let session = self.session;
        if self
            .events
            .send(Event::ExecutorUp(session, link))
            .await
            .is_err()
        {
            return;
        }
        if let Err(status) = self.listen().await
            && let Some(refusals) = refusals.upgrade()
        {
            // If the executor is gone there is nobody to tell.
            let _ = refusals.try_send(Err(status));
        }
        let gone = Event::from(Input::ExecutorGone { session });
        let _ = self.events.send(gone).await;
    }

    async fn listen(&mut self) -> Result<(), Status> {
        let mut who: Option<(FrameworkId, ExecutorId)> = None;
        while let Some(call) = self.calls.message().await? {
            let call = ExecutorCall::try_from(call)
                .map_err(|invalid| Status::invalid_argument(invalid.to_string()))?;
            if let ExecutorCall::Subscribe {
                framework_id,
                executor_id,
                ..
            } = &call
            {
                who = Some((framework_id.clone(), executor_id.clone()));
            }
            let Some((framework_id, executor_id)) = who.clone() else {
                return Err(Status::failed_precondition(
                    "the first call of a stream must be a subscription",
                ));
            };
            let input = Input::FromExecutor {
                session: self.session,
                framework_id,
                executor_id,
                call: Box::new(call),
            };
            if self.events.send(Event::from(input)).await.is_err() {
                return Err(Status::unavailable("the agent is being shut down"));
            }
        }
        Ok(())
    }
}
