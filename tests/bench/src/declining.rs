//! Frameworks that hold on to what they are offered until they are told to decline it.

use anyhow::{Context, Result};
use ebb_types::{Call, Event, Filters, Offer, OfferId};
use tokio::sync::mpsc;
use tonic::transport::Channel;

use crate::connection::Connection;

/// Offers that nobody has taken in yet.
const INBOX: usize = 1024;

/// Frameworks with one ear: whoever is offered something, it is heard at one place.
pub struct Declining {
    calls: Vec<mpsc::Sender<Call>>,
    offers: mpsc::Receiver<Result<(usize, Vec<Offer>)>>,
}

impl Declining {
    /// Subscribes so many frameworks, each on a stream of its own.
    ///
    /// # Errors
    /// When the master does not take one.
    pub async fn open(channel: Channel, frameworks: usize) -> Result<Self> {
        let (heard, offers) = mpsc::channel(INBOX);
        let mut calls = Vec::with_capacity(frameworks);
        for at in 0..frameworks {
            let connection = Connection::open(channel.clone()).await?;
            let (say, to_say) = mpsc::channel(INBOX);
            calls.push(say);
            tokio::spawn(serve(connection, at, to_say, heard.clone()));
        }
        Ok(Self { calls, offers })
    }

    /// What is offered next, and to whom.
    ///
    /// # Errors
    /// When a stream has ended.
    pub async fn hear(&mut self) -> Result<impl Iterator<Item = (usize, Offer)> + use<>> {
        let heard = self.offers.recv().await;
        let (at, offers) = heard.context("all streams to the master have ended")??;
        Ok(offers.into_iter().map(move |offer| (at, offer)))
    }

    /// Has a framework decline an offer.
    ///
    /// # Errors
    /// When its stream has ended.
    pub async fn decline(&self, at: usize, id: OfferId, refuse_ms: u64) -> Result<()> {
        let call = Call::Decline {
            offer_ids: vec![id],
            filters: Filters { refuse_ms },
        };
        let sent = self.calls[at].send(call).await;
        sent.context("the stream to the master has ended")
    }
}

async fn serve(
    mut connection: Connection,
    at: usize,
    mut to_say: mpsc::Receiver<Call>,
    heard: mpsc::Sender<Result<(usize, Vec<Offer>)>>,
) {
    loop {
        let told = tokio::select! {
            event = connection.hear() => match event {
                Ok(Event::Offers(offers)) => Ok((at, offers)),
                Ok(_) => continue,
                Err(error) => Err(error),
            },
            call = to_say.recv() => {
                let Some(call) = call else { return };
                match connection.say(call).await {
                    Ok(()) => continue,
                    Err(error) => Err(error),
                }
            }
        };
        let is_over = told.is_err();
        if heard.send(told).await.is_err() || is_over {
            return;
        }
    }
}
