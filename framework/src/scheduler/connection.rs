//! One connection to one master: the outgoing calls and the incoming events of a stream.
//!
//! The outgoing queue is bounded twice: what the transport holds ([`IN_TRANSPORT`]) and what waits for
//! it ([`MAX_WAITING_CALLS`]). A master that reads too slowly for both is given up; the session then
//! makes a new connection and asks for everything anew.

use std::collections::VecDeque;
use std::error::Error;
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use ebb_api::proto;
use ebb_api::proto::scheduler_client::SchedulerClient;
use ebb_types::limits::MAX_FRAME_BYTES;
use ebb_types::{Call, Event};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status, Streaming};

use super::driver::DriverError;

/// Calls that the transport holds.
const IN_TRANSPORT: usize = 64;
/// Most calls that wait for the transport.
pub const MAX_WAITING_CALLS: usize = 65_536;
/// How long calls that were made before the end may take to leave.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(2);

/// Why there is no connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Broken {
    /// As a sentence.
    pub(super) cause: String,
    /// Whether another attempt would meet the same.
    pub(super) fatal: bool,
}

impl Broken {
    fn passing(cause: impl Into<String>) -> Self {
        Self {
            cause: cause.into(),
            fatal: false,
        }
    }

    fn by(address: &str, status: &Status) -> Self {
        let fatal = matches!(
            status.code(),
            Code::InvalidArgument
                | Code::PermissionDenied
                | Code::Unauthenticated
                | Code::Unimplemented
        );
        let cause = match status.code() {
            Code::Unimplemented => {
                format!("what answers at {address} is no master; check the address")
            }
            _ => format!("the master at {address} said: {}", status.message()),
        };
        Self { cause, fatal }
    }
}

/// An error with everything beneath it, in one line.
pub(crate) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

/// Reads the address of a master.
pub(super) fn endpoint(address: &str) -> Result<Endpoint, DriverError> {
    let url = if address.contains("://") {
        address.to_owned()
    } else {
        format!("http://{address}")
    };
    Endpoint::from_shared(url)
        .map(|endpoint| endpoint.tcp_nodelay(true))
        .map_err(|source| DriverError::Address {
            address: address.to_owned(),
            source,
        })
}

type Opening =
    Pin<Box<dyn Future<Output = Result<Streaming<proto::SchedulerEvent>, Broken>> + Send>>;

/// One connection, made or in the making.
pub(super) struct Connection {
    address: String,
    opening: Option<Opening>,
    incoming: Option<Streaming<proto::SchedulerEvent>>,
    outgoing: mpsc::Sender<proto::SchedulerCall>,
    waiting: VecDeque<proto::SchedulerCall>,
    overflowed: bool,
}

impl Connection {
    /// Begins to connect, and subscribes as soon as it can.
    pub(super) fn open(address: String, endpoint: Endpoint, subscribe: Call) -> Self {
        let (outgoing, calls) = mpsc::channel(IN_TRANSPORT);
        let opening = Box::pin(open(address.clone(), endpoint, calls));
        Self {
            address,
            opening: Some(opening),
            incoming: None,
            outgoing,
            waiting: VecDeque::from([subscribe.into()]),
            overflowed: false,
        }
    }

    /// Queues a call.
    pub(super) fn send(&mut self, call: Call) {
        if self.waiting.len() >= MAX_WAITING_CALLS {
            self.overflowed = true;
        } else {
            self.waiting.push_back(call.into());
        }
    }

    /// The next event, while calls leave. May be dropped and called again at any time.
    pub(super) async fn next(&mut self) -> Result<Event, Broken> {
        loop {
            if self.overflowed {
                return Err(Broken::passing(format!(
                    "the master at {} reads too slowly: {MAX_WAITING_CALLS} calls wait for it",
                    self.address
                )));
            }
            tokio::select! {
                permit = self.outgoing.reserve(), if !self.waiting.is_empty() => {
                    let permit = permit.map_err(|_| self.ended())?;
                    if let Some(call) = self.waiting.pop_front() {
                        permit.send(call);
                    }
                }
                opened = opened(&mut self.opening), if self.opening.is_some() => {
                    self.opening = None;
                    self.incoming = Some(opened?);
                }
                event = message(&mut self.incoming), if self.incoming.is_some() => {
                    return match event {
                        Ok(Some(event)) => Event::try_from(event).map_err(|invalid| {
                            let address = &self.address;
                            Broken::passing(format!("the master at {address} sent what cannot be read: {invalid}"))
                        }),
                        Ok(None) => Err(self.ended()),
                        Err(status) => Err(Broken::by(&self.address, &status)),
                    };
                }
            }
        }
    }

    fn ended(&self) -> Broken {
        Broken::passing(format!("the master at {} ended the stream", self.address))
    }

    /// Sends what waits, closes the outgoing half and waits until the master has closed its own.
    pub(super) async fn close(mut self) {
        let flush = async {
            while let Some(call) = self.waiting.pop_front() {
                if self.outgoing.send(call).await.is_err() {
                    return;
                }
            }
            drop(self.outgoing);
            while let Some(incoming) = &mut self.incoming
                && let Ok(Some(_)) = incoming.message().await
            {}
        };
        if self.opening.is_none() && tokio::time::timeout(FLUSH_TIMEOUT, flush).await.is_err() {
            tracing::warn!(address = %self.address, "the master did not take the last calls in time");
        }
    }
}

async fn opened(opening: &mut Option<Opening>) -> Result<Streaming<proto::SchedulerEvent>, Broken> {
    match opening {
        Some(opening) => opening.await,
        None => std::future::pending().await,
    }
}

async fn message(
    incoming: &mut Option<Streaming<proto::SchedulerEvent>>,
) -> Result<Option<proto::SchedulerEvent>, Status> {
    match incoming {
        Some(incoming) => incoming.message().await,
        None => std::future::pending().await,
    }
}

async fn open(
    address: String,
    endpoint: Endpoint,
    calls: mpsc::Receiver<proto::SchedulerCall>,
) -> Result<Streaming<proto::SchedulerEvent>, Broken> {
    let channel: Channel = endpoint.connect().await.map_err(|error| {
        Broken::passing(format!(
            "cannot connect to the master at {address}: {}",
            chain(&error)
        ))
    })?;
    let mut client = SchedulerClient::new(channel)
        .max_decoding_message_size(MAX_FRAME_BYTES)
        .max_encoding_message_size(MAX_FRAME_BYTES);
    let response = client
        .subscribe(ReceiverStream::new(calls))
        .await
        .map_err(|status| Broken::by(&address, &status))?;
    Ok(response.into_inner())
}
