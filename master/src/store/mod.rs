//! The registry: what must survive the master, kept durably.
//!
//! A [`Registry`] is a plain synchronous store; a [`Writer`] owns one on a thread of its own, so that
//! waiting for the disk never holds up anything but the effects that depend on it. The driver hands
//! over the writes of a whole batch of inputs at once (group commit) and performs what follows them
//! when they are durable. A commit that fails ends the master: what it could not make durable, it
//! must not act upon.

mod codec;
mod embedded;
mod memory;

use std::path::PathBuf;
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Instant;

use tokio::sync::oneshot;

use crate::core::record::{RegistryWrite, Restored};

pub use embedded::{Embedded, FILE_NAME};
pub use memory::Memory;

/// Most commits that wait for the thread; the driver waits for each, so one suffices.
const MAX_PENDING_COMMITS: usize = 1;

/// What went wrong with the registry.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// The folder cannot be made or used.
    #[error(
        "the data folder {} cannot be used; make it writable for this user, or name another with --data-dir",
        path.display()
    )]
    Folder {
        /// The folder.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// Another process has it open.
    #[error(
        "the registry {} is in use by another master; end that one, or name another folder with --data-dir",
        path.display()
    )]
    InUse {
        /// The file.
        path: PathBuf,
    },
    /// The file is no registry, or a damaged one. Nothing was written to it.
    #[error(
        "the registry {} is damaged or is no registry ({cause}); it was left as it is. Restore it from a copy, or move it away to start afresh: agents bring their tasks along, but weights and the list of removed frameworks are lost",
        path.display()
    )]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        cause: String,
    },
    /// The file is of another version of Ebb.
    #[error(
        "the registry {} has format {found}, and this master reads format {known}; use the version of Ebb that wrote it",
        path.display()
    )]
    Version {
        /// The file.
        path: PathBuf,
        /// Its format.
        found: u64,
        /// The format of this master.
        known: u64,
    },
    /// It cannot be read or written.
    #[error(
        "the registry {} cannot be {operation}; see to the disk and its free space, and start the master again",
        path.display()
    )]
    Storage {
        /// The file.
        path: PathBuf,
        /// What was tried: read or written.
        operation: &'static str,
        /// What the store said.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Its thread is no more.
    #[error(
        "the registry's thread has ended; see the log above for why, and start the master again"
    )]
    Ended,
    /// Its thread cannot be started.
    #[error("the registry's thread cannot be started; raise the limit of threads (ulimit -u)")]
    Thread(#[source] std::io::Error),
}

/// A durable store of what the core says must survive.
pub trait Registry: Send {
    /// Begins a new term of a master: what is stored, with a generation that was never used before.
    ///
    /// # Errors
    /// [`RegistryError`] says what is wrong and what to do.
    fn load(&mut self) -> Result<Restored, RegistryError>;

    /// Makes writes durable, all or none.
    ///
    /// # Errors
    /// [`RegistryError`]; then none of them is durable, or it is not known whether they are.
    fn commit(&mut self, writes: &[RegistryWrite]) -> Result<(), RegistryError>;
}

struct Commit {
    writes: Vec<RegistryWrite>,
    done: oneshot::Sender<Result<(), RegistryError>>,
}

/// A registry on a thread of its own.
#[derive(Debug)]
pub struct Writer {
    sender: Option<mpsc::SyncSender<Commit>>,
    thread: Option<JoinHandle<()>>,
}

impl Writer {
    /// Starts the thread.
    ///
    /// # Errors
    /// [`RegistryError::Thread`].
    pub fn start(mut registry: Box<dyn Registry>) -> Result<Self, RegistryError> {
        let (sender, receiver) = mpsc::sync_channel::<Commit>(MAX_PENDING_COMMITS);
        let thread = std::thread::Builder::new()
            .name(String::from("ebb-registry"))
            .spawn(move || {
                for Commit { writes, done } in receiver {
                    let result = registry.commit(&writes);
                    // Nobody waits any more when the driver was stopped meanwhile.
                    let _unheard = done.send(result).is_err();
                }
            })
            .map_err(RegistryError::Thread)?;
        Ok(Self {
            sender: Some(sender),
            thread: Some(thread),
        })
    }

    /// Makes writes durable; how long that took, in seconds.
    ///
    /// # Errors
    /// As [`Registry::commit`].
    pub async fn commit(&self, writes: Vec<RegistryWrite>) -> Result<f64, RegistryError> {
        let started = Instant::now();
        let (done, result) = oneshot::channel();
        let sender = self.sender.as_ref().ok_or(RegistryError::Ended)?;
        // Waits for nobody: the one commit that may be pending is this one.
        sender
            .send(Commit { writes, done })
            .map_err(|_| RegistryError::Ended)?;
        result.await.map_err(|_| RegistryError::Ended)??;
        Ok(started.elapsed().as_secs_f64())
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.sender = None;
        if let Some(thread) = self.thread.take() {
            // A thread that panicked has said so on standard error; there is nothing to add.
            let _panicked = thread.join().is_err();
        }
    }
}
