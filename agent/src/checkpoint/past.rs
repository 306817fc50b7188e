//! What lending has learnt and what was seen of classes of tasks, on disk: one file that is replaced whole, beside the journal.
//!
//! ```text
//! file:    MAGIC version (u8) | CRC-32 of the payload (u32) | payload
//! payload: kinds (u64) | of each kind: bin, what was kept, mistakes, tasks | how estimates have lasted | classes
//! ```
//!
//! Numbers are little-endian; lists and texts carry their length. The journal's rules do not apply: nothing rests on this
//! file. One that is damaged, of another version or too long is thrown away, and tasks are learnt anew.
//!
//! **Price.** About 8 KiB a task and 2 KiB a class, written every [`KEEP_EVERY`] and when the agent ends, by a thread of its own.

mod classes;

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::time::Duration;

use ebb_types::ContainerId;
use ebb_types::limits::MAX_CLASSES_PER_AGENT;

use super::journal::{crc32, sync_folder};
use super::{CheckpointError, error};
use crate::core::Past;
use crate::core::estimator;
use crate::core::estimator::lasting::KEPT_COUNTS;
use crate::core::estimator::peaks::BINS;
use crate::core::estimator::peaks::kept::{Kept, KeptTask, MAX_KEPT_TASKS, MISTAKES};
use crate::metrics::Metrics;

const MAGIC: &[u8; 7] = b"EBBPAST";
const VERSION: u8 = 3;
/// Bytes before the payload.
const HEADER_BYTES: usize = MAGIC.len() + 1 + 4;
/// Longest file that is read, in bytes.
const MAX_BYTES: u64 = 64 << 20;
/// Most kinds in a file.
const MAX_KINDS: u64 = 16;
/// How often it is written.
pub const KEEP_EVERY: Duration = Duration::from_secs(240);

/// Why a file is thrown away.
#[derive(Debug, thiserror::Error)]
pub enum UnfitFile {
    /// It cannot be read.
    #[error("cannot read {}: {source}; tasks are learnt anew", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system answered.
        source: io::Error,
    },
    /// It is not what this version writes.
    #[error("{} {what}; tasks are learnt anew", path.display())]
    Unknown {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        what: &'static str,
    },
}

/// Reads what was kept; `None` if there is no file.
///
/// # Errors
/// [`UnfitFile`] if it is of no use.
pub fn read(path: &Path) -> Result<Option<Past>, UnfitFile> {
    let unreadable = |source| UnfitFile::Unreadable {
        path: path.to_owned(),
        source,
    };
    let mut content = Vec::new();
    match File::open(path) {
        Ok(file) => file
            .take(MAX_BYTES + 1)
            .read_to_end(&mut content)
            .map_err(unreadable)?,
        Err(source) if source.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(unreadable(source)),
    };
    decode(&content)
        .map(Some)
        .map_err(|what| UnfitFile::Unknown {
            path: path.to_owned(),
            what,
        })
}

/// Replaces the file.
///
/// # Errors
/// [`CheckpointError`] if it cannot be written; the old one then stands.
pub fn write(path: &Path, past: &Past) -> Result<(), CheckpointError> {
    let aside = path.with_extension("new");
    let mut file = File::create(&aside).map_err(error("make", &aside))?;
    file.write_all(&encode(past))
        .map_err(error("write", &aside))?;
    file.sync_all().map_err(error("sync", &aside))?;
    fs::rename(&aside, path).map_err(error("replace", path))?;
    sync_folder(path)
}

/// As bytes.
pub fn encode(past: &Past) -> Vec<u8> {
    let mut out = MAGIC.to_vec();
    out.push(VERSION);
    out.extend_from_slice(&[0; 4]);
    let lending = &past.lending;
    put(lending.kinds.len() as u64, &mut out);
    for kind in &lending.kinds {
        put(kind.bin, &mut out);
        put(kind.keep, &mut out);
        put(kind.mistakes.len() as u64, &mut out);
        kind.mistakes
            .iter()
            .for_each(|amount| put(*amount, &mut out));
        put(kind.tasks.len() as u64, &mut out);
        for task in &kind.tasks {
            put_text(task.key.as_str(), &mut out);
            for number in [
                task.limit,
                task.born,
                task.last,
                task.seen_bins,
                task.remembered,
                task.shares.len() as u64,
            ] {
                put(number, &mut out);
            }
            let shares = task.shares.iter().flat_map(|share| share.to_le_bytes());
            out.extend(shares);
        }
    }
    put(lending.lasted.len() as u64, &mut out);
    lending
        .lasted
        .iter()
        .for_each(|count| put(*count, &mut out));
    put(past.classes.len() as u64, &mut out);
    for seen in &past.classes {
        classes::put_class(seen, &mut out);
    }
    let sum = crc32(&out[HEADER_BYTES..]);
    out[HEADER_BYTES - 4..HEADER_BYTES].copy_from_slice(&sum.to_le_bytes());
    out
}

/// From bytes; whatever they are, no more is made of them than they are long.
///
/// # Errors
/// What is wrong with them.
pub fn decode(content: &[u8]) -> Result<Past, &'static str> {
    let rest = content
        .strip_prefix(MAGIC)
        .ok_or("does not begin as such a file does")?;
    let (version, rest) = rest.split_first().ok_or("ends too early")?;
    if *version != VERSION {
        return Err("was written by another version");
    }
    let (sum, payload) = rest.split_first_chunk().ok_or("ends too early")?;
    if crc32(payload) != u32::from_le_bytes(*sum) {
        return Err("is damaged");
    }
    let mut rest = Rest(payload);
    let kinds = (0..rest.count(MAX_KINDS)?)
        .map(|_| rest.kind())
        .collect::<Result<_, _>>()?;
    let lasted = rest.numbers(KEPT_COUNTS)?;
    let classes = (0..rest.count(MAX_CLASSES_PER_AGENT as u64)?)
        .map(|_| rest.class())
        .collect::<Result<_, _>>()?;
    let lending = estimator::Past { kinds, lasted };
    match rest.0 {
        [] => Ok(Past { lending, classes }),
        _ => Err("is longer than it says"),
    }
}

fn put(number: u64, out: &mut Vec<u8>) {
    out.extend_from_slice(&number.to_le_bytes());
}

fn put_text(text: &str, out: &mut Vec<u8>) {
    put(text.len() as u64, out);
    out.extend_from_slice(text.as_bytes());
}

struct Rest<'a>(&'a [u8]);

impl<'a> Rest<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], &'static str> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or("ends too early")?;
        self.0 = rest;
        Ok(taken)
    }

    fn number(&mut self) -> Result<u64, &'static str> {
        let (taken, rest) = self.0.split_first_chunk().ok_or("ends too early")?;
        self.0 = rest;
        Ok(u64::from_le_bytes(*taken))
    }

    fn count(&mut self, most: u64) -> Result<usize, &'static str> {
        let count = self.number()?;
        if count > most {
            return Err("names more than there can be");
        }
        usize::try_from(count).map_err(|_| "names more than there can be")
    }

    fn numbers(&mut self, most: usize) -> Result<Vec<u64>, &'static str> {
        (0..self.count(most as u64)?)
            .map(|_| self.number())
            .collect()
    }

    fn kind(&mut self) -> Result<Kept<ContainerId>, &'static str> {
        let (bin, keep) = (self.number()?, self.number()?);
        let mistakes = self.numbers(MISTAKES)?;
        let tasks = (0..self.count(MAX_KEPT_TASKS as u64)?)
            .map(|_| self.task())
            .collect::<Result<_, _>>()?;
        Ok(Kept {
            bin,
            keep,
            mistakes,
            tasks,
        })
    }

    fn text(&mut self) -> Result<&'a str, &'static str> {
        let length = self.count(MAX_BYTES)?;
        std::str::from_utf8(self.take(length)?).map_err(|_| "has an id that is no text")
    }

    fn task(&mut self) -> Result<KeptTask<ContainerId>, &'static str> {
        let key = ContainerId::new(self.text()?).map_err(|_| "has an id that cannot be")?;
        let [limit, born, last, seen_bins, remembered] = [
            self.number()?,
            self.number()?,
            self.number()?,
            self.number()?,
            self.number()?,
        ];
        let count = self.count(BINS as u64)?;
        let shares = self.take(2 * count)?.chunks_exact(2);
        Ok(KeptTask {
            key,
            limit,
            born,
            last,
            seen_bins,
            remembered,
            shares: shares
                .map(|share| u16::from_le_bytes([share[0], share[1]]))
                .collect(),
        })
    }
}

/// The thread that writes, seen from the loop.
#[derive(Debug)]
pub struct Keeper {
    orders: SyncSender<Past>,
    thread: std::thread::JoinHandle<()>,
    metrics: Arc<Metrics>,
}

impl Keeper {
    /// Starts the thread.
    ///
    /// # Errors
    /// The system's answer if it could not be started.
    pub fn start(path: PathBuf, metrics: Arc<Metrics>) -> io::Result<Self> {
        let (orders, inbox) = mpsc::sync_channel(1);
        let counted = Arc::clone(&metrics);
        let thread = std::thread::Builder::new()
            .name("ebb-past".to_owned())
            .spawn(move || work(&path, &inbox, &counted))?;
        Ok(Self {
            orders,
            thread,
            metrics,
        })
    }

    /// Has it written when the thread comes to it; if it has not come to the one before, this one is dropped and counted.
    pub fn keep(&self, past: Past) {
        if self.orders.try_send(past).is_err() {
            self.metrics.past_fault("past_unkept");
        }
    }

    /// Writes the last, and ends the thread. Blocks.
    pub fn finish(self, last: Option<Past>) {
        if last.is_some_and(|past| self.orders.send(past).is_err()) {
            self.metrics.past_fault("past_unkept");
        }
        drop(self.orders);
        // A thread that has panicked has said so.
        let _ = self.thread.join();
    }
}

fn work(path: &Path, inbox: &Receiver<Past>, metrics: &Metrics) {
    for past in inbox {
        if let Err(error) = write(path, &past) {
            metrics.past_fault("past_unkept");
            tracing::warn!(%error, "what was learnt of tasks is not kept over a restart");
        }
    }
}

#[cfg(test)]
mod tests;
