//! The journal: an append-only file of frames, each a batch of records that became durable together.
//!
//! ```text
//! file:  MAGIC frame frame …
//! frame: payload length (u32) | CRC-32 of the payload (u32) | payload
//! ```
//!
//! **Invariants.** One frame is one write and one sync, and the next is written after the sync: so at
//! most the last frame can be torn, and a frame that is torn was never confirmed to anybody. A bad
//! frame that is followed by a good one is damage, which is reported and never repaired by guessing.
//!
//! **Price.** One `fdatasync` for all records that have gathered while the last was under way; the file
//! is rewritten when it has grown to several times what it says.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use super::codec::{self, Reader};
use super::{CheckpointError, error};
use crate::core::{Record, Restored};

const MAGIC: &[u8; 8] = b"EBBAGT1\n";
/// Bytes before each payload.
const HEADER_BYTES: usize = 8;
/// Largest payload of a frame that is read; larger lengths are damage.
const MAX_FRAME_BYTES: usize = 256 << 20;
/// Payload at which a rewritten journal begins a new frame.
const FRAME_TARGET_BYTES: usize = 1 << 20;
/// A smaller journal is never rewritten.
const COMPACT_MIN_BYTES: u64 = 4 << 20;
/// A journal is rewritten when it has grown to so many times its size after the last rewriting.
const COMPACT_FACTOR: u64 = 4;

/// What opening a journal found.
#[derive(Debug)]
pub struct Opened {
    /// The journal, ready for more.
    pub journal: Journal,
    /// Everything that it says.
    pub restored: Restored,
    /// Bytes of a torn frame that were cut off; 0 for none.
    pub torn_bytes: u64,
}

/// A journal that is open for writing.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    file: File,
    bytes: u64,
    compact_at_bytes: u64,
}

impl Journal {
    /// Opens or makes the journal at `path` and reads what it says.
    ///
    /// # Errors
    /// [`CheckpointError`] if it cannot be read or written, or is damaged.
    pub fn open(path: &Path) -> Result<Opened, CheckpointError> {
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)
            .map_err(error("open", path))?;
        let mut content = Vec::new();
        file.read_to_end(&mut content)
            .map_err(error("read", path))?;
        let mut restored = Restored::default();
        let good = replay(path, &content, &mut restored)?;
        let torn_bytes = content.len() as u64 - good;
        if good == 0 {
            file.set_len(0).map_err(error("truncate", path))?;
            file.rewind().map_err(error("write", path))?;
            file.write_all(MAGIC).map_err(error("write", path))?;
        } else if torn_bytes > 0 {
            file.set_len(good).map_err(error("truncate", path))?;
        }
        file.sync_all().map_err(error("sync", path))?;
        sync_folder(path)?;
        let bytes = good.max(MAGIC.len() as u64);
        file.seek(SeekFrom::Start(bytes))
            .map_err(error("write", path))?;
        Ok(Opened {
            journal: Self {
                path: path.to_owned(),
                file,
                bytes,
                compact_at_bytes: COMPACT_MIN_BYTES.max(bytes),
            },
            restored,
            torn_bytes,
        })
    }

    /// Makes records durable, as one frame.
    ///
    /// # Errors
    /// [`CheckpointError`] if they could not be written; then nothing that rests on them may happen.
    pub fn append(&mut self, records: &[Record]) -> Result<(), CheckpointError> {
        let mut frame = vec![0; HEADER_BYTES];
        for record in records {
            codec::encode(record, &mut frame);
        }
        seal(&mut frame);
        self.file
            .write_all(&frame)
            .map_err(error("write", &self.path))?;
        self.file.sync_data().map_err(error("sync", &self.path))?;
        self.bytes += frame.len() as u64;
        Ok(())
    }

    /// Whether it has grown so much that it should be rewritten.
    pub const fn wants_compaction(&self) -> bool {
        self.bytes >= self.compact_at_bytes
    }

    /// Its size, in bytes.
    pub const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Replaces everything that it says by `records`.
    ///
    /// # Errors
    /// [`CheckpointError`] if that could not be written; the old journal then stands.
    pub fn compact(&mut self, records: &[Record]) -> Result<(), CheckpointError> {
        let aside = self.path.with_extension("new");
        let mut content = MAGIC.to_vec();
        let mut frame = vec![0; HEADER_BYTES];
        for record in records {
            codec::encode(record, &mut frame);
            if frame.len() >= FRAME_TARGET_BYTES {
                seal(&mut frame);
                content.append(&mut frame);
                frame.resize(HEADER_BYTES, 0);
            }
        }
        if frame.len() > HEADER_BYTES {
            seal(&mut frame);
            content.append(&mut frame);
        }
        let mut file = File::create(&aside).map_err(error("make", &aside))?;
        file.write_all(&content).map_err(error("write", &aside))?;
        file.sync_all().map_err(error("sync", &aside))?;
        fs::rename(&aside, &self.path).map_err(error("replace", &self.path))?;
        sync_folder(&self.path)?;
        self.file = file;
        self.bytes = content.len() as u64;
        self.compact_at_bytes = COMPACT_MIN_BYTES.max(self.bytes.saturating_mul(COMPACT_FACTOR));
        Ok(())
    }
}

/// Writes length and checksum into the space before a payload.
fn seal(frame: &mut [u8]) {
    let (header, payload) = frame.split_at_mut(HEADER_BYTES);
    let length = u32::try_from(payload.len()).unwrap_or(u32::MAX);
    header[..4].copy_from_slice(&length.to_le_bytes());
    header[4..].copy_from_slice(&crc32(payload).to_le_bytes());
}

/// Applies every good frame; says how many bytes are good.
fn replay(path: &Path, content: &[u8], restored: &mut Restored) -> Result<u64, CheckpointError> {
    let damaged = |at: usize, what: String| CheckpointError::Damaged {
        path: path.to_owned(),
        at: at as u64,
        what,
    };
    if content.len() < MAGIC.len() && MAGIC.starts_with(content) {
        return Ok(0);
    }
    if !content.starts_with(MAGIC) {
        return Err(damaged(0, "it does not begin as a journal does".to_owned()));
    }
    let mut at = MAGIC.len();
    while at < content.len() {
        let Some(payload) = good_frame(&content[at..]) else {
            if good_frame_follows(content, at) {
                return Err(damaged(at, "a damaged part is followed by more".to_owned()));
            }
            return Ok(at as u64);
        };
        let mut reader = Reader::new(payload);
        while let Some(record) = reader
            .read()
            .map_err(|error| damaged(at, error.to_string()))?
        {
            restored.apply(record);
        }
        at += HEADER_BYTES + payload.len();
    }
    Ok(at as u64)
}

/// The payload of the frame at the beginning of `bytes`, if it is whole.
fn good_frame(bytes: &[u8]) -> Option<&[u8]> {
    let (header, rest) = bytes.split_at_checked(HEADER_BYTES)?;
    let length = u32::from_le_bytes(header[..4].try_into().ok()?) as usize;
    let sum = u32::from_le_bytes(header[4..].try_into().ok()?);
    if length == 0 || length > MAX_FRAME_BYTES {
        return None;
    }
    let payload = rest.get(..length)?;
    (crc32(payload) == sum).then_some(payload)
}

/// Whether a whole frame stands where the bad one at `at` says that it ends.
fn good_frame_follows(content: &[u8], at: usize) -> bool {
    let Some(length) = content.get(at..at + 4) else {
        return false;
    };
    let length = u32::from_le_bytes(length.try_into().unwrap_or_default()) as usize;
    content
        .get(at.saturating_add(HEADER_BYTES).saturating_add(length)..)
        .is_some_and(|rest| good_frame(rest).is_some())
}

/// Makes a rename or a new file durable.
pub(super) fn sync_folder(path: &Path) -> Result<(), CheckpointError> {
    let folder = path.parent().unwrap_or(Path::new("."));
    File::open(folder)
        .and_then(|folder| folder.sync_all())
        .or_else(|source| match source.kind() {
            // Some file systems cannot sync folders; then a rename is as durable as they make it.
            io::ErrorKind::InvalidInput => Ok(()),
            _ => Err(source),
        })
        .map_err(error("sync", folder))
}

/// CRC-32 (IEEE 802.3).
pub(super) fn crc32(bytes: &[u8]) -> u32 {
    const TABLE: [u32; 256] = table();
    let sum = bytes.iter().fold(u32::MAX, |sum, byte| {
        let index = (sum ^ u32::from(*byte)) & 0xff;
        TABLE[index as usize] ^ (sum >> 8)
    });
    !sum
}

const fn table() -> [u32; 256] {
    let mut table = [0; 256];
    let mut index = 0;
    while index < 256 {
        let mut value = index as u32;
        let mut bit = 0;
        while bit < 8 {
            value = if value & 1 == 1 {
                (value >> 1) ^ 0xedb8_8320
            } else {
                value >> 1
            };
            bit += 1;
        }
        table[index] = value;
        index += 1;
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_the_usual_one() {
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
    }
}
