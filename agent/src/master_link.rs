//! The connection to the master: dialled again and again, with growing pauses, for as long as the agent
//! runs.
//!
//! The first attempt after a loss comes within 100 ms, later ones after twice the time up to 10 s, each
//! with jitter, so that a thousand agents do not come back in the same moment. A master that is out of
//! reach is told once in the log, not at every attempt; tasks run on meanwhile.

use std::sync::Arc;
use std::time::{Duration, Instant};

use ebb_api::proto::agent_link_client::AgentLinkClient;
use ebb_api::proto::{AgentMessage, MasterMessage};
use ebb_api::{AgentEnvelope, MasterEnvelope};
use ebb_types::limits::MAX_FRAME_BYTES;
use ebb_types::{AgentToMaster, Incarnation};
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Endpoint;

use crate::core::{Conn, Input};
use crate::driver::Event;
use crate::metrics::Metrics;

/// First wait after a lost connection.
const BACKOFF_MIN: Duration = Duration::from_millis(50);
/// Longest wait between two attempts.
const BACKOFF_MAX: Duration = Duration::from_secs(10);
/// After a connection that stood for so long the next attempt comes quickly again.
const STOOD: Duration = Duration::from_millis(500);
/// How long an attempt may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Most messages that wait to be sent. More means that the master does not read: the link is given up.
pub const MAX_OUTBOUND: usize = 65_536;

/// The agent's end of a connection that stands. When it is dropped the connection ends.
#[derive(Debug)]
pub struct Link {
    /// The connection's number.
    pub conn: Conn,
    incarnation: Incarnation,
    outbound: mpsc::Sender<AgentMessage>,
    /// Tells the dialler when this is dropped.
    _alive: oneshot::Sender<()>,
}

impl Link {
    /// Sends a message; false if the connection is gone or the master does not read.
    pub fn send(&self, message: AgentToMaster) -> bool {
        let incarnation = self.incarnation;
        let envelope = AgentEnvelope {
            incarnation,
            message,
        };
        self.outbound.try_send(envelope.into()).is_ok()
    }
}

/// Keeps a connection to the master until the loop is gone.
pub struct Dialler {
    /// Where the master is, as `host:port`.
    pub master: String,
    /// The agent's present life.
    pub incarnation: Incarnation,
    /// Where the loop hears of it.
    pub events: mpsc::Sender<Event>,
    /// Counts.
    pub metrics: Arc<Metrics>,
}

impl Dialler {
    /// Dials for ever.
    pub async fn run(self) {
        let mut backoff = Backoff::new();
        let mut conn = Conn::default();
        let mut said = false;
        while !self.events.is_closed() {
            conn = Conn(conn.0 + 1);
            let since = Instant::now();
            let attempt = match self.attempt(conn).await {
                Ok(false) => Err("it ended the connection without a word".to_owned()),
                other => other,
            };
            match attempt {
                Ok(_) => {
                    tracing::info!(master = %self.master, "the connection to the master has ended; tasks run on");
                    said = false;
                    // One that ends at once is likely to end at once again.
                    if since.elapsed() >= STOOD {
                        backoff = Backoff::new();
                    }
                }
                Err(cause) => {
                    if !said {
                        tracing::warn!(master = %self.master, cause,
                            "the master cannot be reached; tasks run on, and it is tried again and again. \
                             Check that a master listens there");
                    }
                    said = true;
                }
            }
            tokio::time::sleep(backoff.next()).await;
        }
    }

    /// One connection, from its beginning to its end. Says whether anything was heard.
    async fn attempt(&self, conn: Conn) -> Result<bool, String> {
        let channel = Endpoint::from_shared(format!("http://{}", self.master))
            .map_err(|error| error.to_string())?
            .connect_timeout(CONNECT_TIMEOUT)
            .tcp_nodelay(true)
            .http2_keep_alive_interval(Duration::from_secs(20))
            .keep_alive_while_idle(true)
            .connect()
            .await
            .map_err(|error| crate::containers::chain(&error))?;
        let mut client = AgentLinkClient::new(channel)
            .max_decoding_message_size(MAX_FRAME_BYTES)
            .max_encoding_message_size(MAX_FRAME_BYTES);
        let (outbound, messages) = mpsc::channel(MAX_OUTBOUND);
        let (alive, given_up) = oneshot::channel();
        let link = Link {
            conn,
            incarnation: self.incarnation,
            outbound,
            _alive: alive,
        };
        // The loop sends the registration at once, so the master has something to answer.
        if self.events.send(Event::LinkUp(link)).await.is_err() {
            return Ok(false);
        }
        let talk = async {
            let response = client.join(ReceiverStream::new(messages)).await;
            let stream = response.map_err(|status| status.message().to_owned())?;
            self.metrics.connected();
            Ok(self.listen(conn, stream.into_inner()).await)
        };
        let heard = tokio::select! {
            heard = talk => heard,
            // The loop gives a connection up by dropping its end.
            _ = given_up => Ok(false),
        };
        let gone = Event::from(Input::LinkDown { conn });
        // If the loop is gone there is nobody to tell.
        let _ = self.events.send(gone).await;
        heard
    }

    /// Hands messages on until the stream ends. Says whether there were any.
    async fn listen(&self, conn: Conn, mut stream: tonic::Streaming<MasterMessage>) -> bool {
        let mut heard = false;
        loop {
            match stream.message().await {
                Ok(Some(message)) => {
                    heard = true;
                    if !self.hand_on(conn, message).await {
                        return heard;
                    }
                }
                Ok(None) => return heard,
                Err(status) => {
                    tracing::debug!(%status, "the master's stream has broken");
                    return heard;
                }
            }
        }
    }

    async fn hand_on(&self, conn: Conn, message: MasterMessage) -> bool {
        match MasterEnvelope::try_from(message) {
            Ok(envelope) => {
                let input = Input::FromMaster {
                    conn,
                    generation: envelope.generation,
                    message: envelope.message,
                };
                self.events.send(Event::from(input)).await.is_ok()
            }
            Err(invalid) => {
                self.metrics.malformed();
                tracing::warn!(%invalid, "a message of the master was refused");
                true
            }
        }
    }
}

/// Growing pauses with jitter.
#[derive(Debug)]
struct Backoff {
    next: Duration,
}

impl Backoff {
    const fn new() -> Self {
        Self { next: BACKOFF_MIN }
    }

    /// The next pause: between once and twice the present step, at most [`BACKOFF_MAX`].
    fn next(&mut self) -> Duration {
        let step = self.next;
        self.next = (step * 2).min(BACKOFF_MAX);
        (step + step.mul_f64(random_share())).min(BACKOFF_MAX)
    }
}

/// A number from 0 up to 1, from the random keys that the standard library gives its hash maps.
fn random_share() -> f64 {
    use std::hash::{BuildHasher, RandomState};
    let number = RandomState::new().hash_one(0_u8) >> 32;
    number as f64 / f64::from(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_attempt_comes_within_100_ms_and_none_waits_for_more_than_10_s() {
        for _ in 0..100 {
            let mut backoff = Backoff::new();
            assert!(backoff.next() <= Duration::from_millis(100));
            let mut longest = Duration::ZERO;
            for _ in 0..20 {
                longest = longest.max(backoff.next());
            }
            assert!(longest <= BACKOFF_MAX && longest >= BACKOFF_MAX / 2);
        }
    }
}
