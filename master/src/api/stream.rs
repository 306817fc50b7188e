//! The answering half of a stream: what the driver has for the peer, in the format of the wire.

use std::pin::Pin;

use futures_util::Stream;
use futures_util::stream::unfold;
use tokio::sync::oneshot;
use tonic::Status;

use super::cut_status;
use crate::driver::Inlet;

/// What a server answers with.
pub(super) type Answer<W> = Pin<Box<dyn Stream<Item = Result<W, Status>> + Send>>;

/// Resolves when the answering half has ended, whoever ended it.
pub(super) type Ended = oneshot::Sender<()>;

/// The answering half, and the means for the reading half to learn of its end.
pub(super) fn answer<T, W>(
    inlet: Inlet<T>,
    encode: impl Fn(T) -> W + Send + 'static,
) -> (Answer<W>, Ended)
where
    T: Send + 'static,
    W: Send + 'static,
{
    let (ended, alive) = oneshot::channel::<()>();
    let state = (Some(inlet), encode, alive);
    let stream = unfold(state, |(inlet, encode, alive)| async move {
        let mut inlet = inlet?;
        match inlet.next().await {
            Some(message) => {
                let item = Ok(encode(message));
                Some((item, (Some(inlet), encode, alive)))
            }
            None => {
                let status = cut_status(inlet.cut()?);
                Some((Err(status), (None, encode, alive)))
            }
        }
    });
    (Box::pin(stream), ended)
}
