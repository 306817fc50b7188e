//! What waits to be read by one connection: bounded, so that a reader that does not keep up is cut
//! off with a reason and never holds up the driver.

use std::sync::{Arc, OnceLock};

use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;

/// Why a connection was ended by the master, where its last message does not say so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cut {
    /// Its reader did not keep up.
    Slow(String),
    /// The core ended it.
    Closed(String),
}

/// The driver's end.
#[derive(Debug)]
pub struct Outbox<T> {
    sender: mpsc::Sender<T>,
    cut: Arc<OnceLock<Cut>>,
}

/// The connection's end.
#[derive(Debug)]
pub struct Inlet<T> {
    receiver: mpsc::Receiver<T>,
    cut: Arc<OnceLock<Cut>>,
}

/// Why a message could not be handed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unsent {
    /// The reader does not keep up.
    Full,
    /// The reader is gone.
    Gone,
}

/// A pair of ends that holds at most `limit` messages.
pub(crate) fn outbox<T>(limit: usize) -> (Outbox<T>, Inlet<T>) {
    let (sender, receiver) = mpsc::channel(limit.max(1));
    let cut = Arc::new(OnceLock::new());
    let inlet = Inlet {
        receiver,
        cut: Arc::clone(&cut),
    };
    (Outbox { sender, cut }, inlet)
}

impl<T> Outbox<T> {
    pub(crate) fn push(&self, message: T) -> Result<(), Unsent> {
        self.sender.try_send(message).map_err(|error| match error {
            TrySendError::Full(_) => Unsent::Full,
            TrySendError::Closed(_) => Unsent::Gone,
        })
    }

    /// Ends the connection after what was handed over. The first reason stands.
    pub(crate) fn end(self, cut: Cut) {
        let _first = self.cut.set(cut).is_ok();
    }

    /// Ends the connection of a reader that does not keep up.
    pub(crate) fn cut_off(self) {
        tracing::warn!("a reader did not keep up and is cut off");
        self.end(Cut::Slow(String::from(
            "you did not read what the master sent for too long and were cut off; connect again and read faster",
        )));
    }
}

impl<T> Inlet<T> {
    /// The next message; none when the connection is to end.
    pub async fn next(&mut self) -> Option<T> {
        self.receiver.recv().await
    }

    /// Why it is to end, where the last message does not say so.
    pub fn cut(&self) -> Option<Cut> {
        self.cut.get().cloned()
    }
}
