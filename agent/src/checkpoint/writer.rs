//! The journal's thread: writes what the core wants kept, all that has gathered at once.
//!
//! While one batch is being synced, further records gather, and the next sync is for all of them: so
//! hundreds of launches a second need only as many syncs as the disk gives. After each the thread
//! publishes up to which record everything is durable.

use std::sync::Arc;
use std::time::Instant;

use tokio::sync::{mpsc, watch};

use super::CheckpointError;
use super::journal::Journal;
use crate::core::Record;
use crate::metrics::Metrics;

/// Most batches that wait to be written. Each stands for one step of the core.
const MAX_QUEUE: usize = 262_144;
/// Most records that are written as one batch.
const MAX_BATCH: usize = 16_384;

enum Order {
    Append {
        sequence: u64,
        records: Vec<Record>,
    },
    /// Replace everything by these records, which include all that were ordered before.
    Rewrite {
        records: Vec<Record>,
    },
}

/// What the thread publishes.
#[derive(Clone, Debug, Default)]
pub struct Progress {
    /// Every record up to this one is durable.
    pub durable: u64,
    /// The journal has grown and should be rewritten.
    pub wants_rewriting: bool,
    /// Why nothing can be written any more.
    pub failed: Option<String>,
}

/// More batches wait than there is room for.
#[derive(Debug, thiserror::Error)]
#[error(
    "more than {MAX_QUEUE} changes wait to be written to the journal: the disk of the work folder does not \
     keep up; start the agent anew, on a faster disk"
)]
pub struct Overrun;

/// The thread, seen from the loop.
pub struct Writer {
    orders: mpsc::Sender<Order>,
    progress: watch::Receiver<Progress>,
    sequence: u64,
    thread: std::thread::JoinHandle<()>,
}

impl Writer {
    /// Starts the thread.
    ///
    /// # Errors
    /// The system's answer if it could not be started.
    pub fn start(journal: Journal, metrics: Arc<Metrics>) -> std::io::Result<Self> {
        let (orders, inbox) = mpsc::channel(MAX_QUEUE);
        let (publish, progress) = watch::channel(Progress::default());
        let thread = std::thread::Builder::new()
            .name("ebb-journal".to_owned())
            .spawn(move || work(journal, inbox, &publish, &metrics))?;
        Ok(Self {
            orders,
            progress,
            sequence: 0,
            thread,
        })
    }

    /// Hands records over; says the number under which they will be durable.
    ///
    /// # Errors
    /// [`Overrun`] if the thread has not kept up.
    pub fn append(&mut self, records: Vec<Record>) -> Result<u64, Overrun> {
        self.sequence += 1;
        let sequence = self.sequence;
        self.orders
            .try_send(Order::Append { sequence, records })
            .map_err(|_| Overrun)?;
        Ok(sequence)
    }

    /// Orders a rewriting by what all records so far amount to.
    ///
    /// # Errors
    /// [`Overrun`] if the thread has not kept up.
    pub fn rewrite(&self, records: Vec<Record>) -> Result<(), Overrun> {
        self.orders
            .try_send(Order::Rewrite { records })
            .map_err(|_| Overrun)
    }

    /// What the thread publishes.
    pub fn progress(&self) -> watch::Receiver<Progress> {
        self.progress.clone()
    }

    /// Waits until everything is durable, and ends the thread.
    pub fn finish(self) {
        drop(self.orders);
        // A thread that has panicked has said so.
        let _ = self.thread.join();
    }
}

fn work(
    mut journal: Journal,
    mut inbox: mpsc::Receiver<Order>,
    publish: &watch::Sender<Progress>,
    metrics: &Metrics,
) {
    let mut orders = Vec::new();
    while inbox.blocking_recv_many(&mut orders, MAX_BATCH) > 0 {
        if let Err(error) = write_all(&mut journal, orders.drain(..), publish, metrics) {
            publish.send_modify(|progress| progress.failed = Some(error.to_string()));
            return;
        }
    }
}

fn write_all(
    journal: &mut Journal,
    orders: impl Iterator<Item = Order>,
    publish: &watch::Sender<Progress>,
    metrics: &Metrics,
) -> Result<(), CheckpointError> {
    let mut gathered = Vec::new();
    let mut last = None;
    for order in orders {
        match order {
            Order::Append { sequence, records } => {
                gathered.extend(records);
                last = Some(sequence);
            }
            Order::Rewrite { records } => {
                // What had gathered is part of what is written now.
                gathered.clear();
                journal.compact(&records)?;
                metrics.journal_rewritten(journal.bytes());
            }
        }
    }
    if !gathered.is_empty() {
        let since = Instant::now();
        journal.append(&gathered)?;
        metrics.journaled(since.elapsed(), journal.bytes());
    }
    publish.send_modify(|progress| {
        progress.durable = last.unwrap_or(progress.durable);
        progress.wants_rewriting = journal.wants_compaction();
    });
    Ok(())
}
