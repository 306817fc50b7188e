//! Records on the disk: JSON files that appear whole or not at all.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::error::RuntimeError;

/// Whether a record must survive a loss of power. Those about live processes need not: no process survives it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Durable {
    Yes,
    No,
}

/// Makes an empty file.
pub(super) fn touch(path: &Path) -> Result<(), RuntimeError> {
    let opened = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path);
    opened.map(drop).map_err(RuntimeError::file("make", path))
}

/// The bytes of a record.
pub(super) fn encode<T: Serialize>(path: &Path, record: &T) -> Result<Vec<u8>, RuntimeError> {
    serde_json::to_vec(record).map_err(|source| RuntimeError::Record {
        path: path.to_owned(),
        source,
    })
}

/// Writes a file in place.
pub(super) fn write_file(path: &Path, bytes: &[u8], durable: Durable) -> Result<(), RuntimeError> {
    let options = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path);
    let mut file = options.map_err(RuntimeError::file("make", path))?;
    file.write_all(bytes)
        .map_err(RuntimeError::file("write", path))?;
    if durable == Durable::Yes {
        file.sync_all().map_err(RuntimeError::file("sync", path))?;
    }
    Ok(())
}

/// Writes aside, then renames: readers see the whole record or none.
pub(super) fn write_record<T: Serialize>(
    path: &Path,
    record: &T,
    durable: Durable,
) -> Result<(), RuntimeError> {
    let aside = path.with_extension("json.new");
    write_file(&aside, &encode(path, record)?, durable)?;
    fs::rename(&aside, path).map_err(RuntimeError::file("rename to", path))?;
    match (durable, path.parent()) {
        (Durable::Yes, Some(parent)) => File::open(parent)
            .and_then(|dir| dir.sync_all())
            .map_err(RuntimeError::file("sync", parent)),
        _ => Ok(()),
    }
}

/// Reads a record, if it is there.
pub(super) fn read_record<T: DeserializeOwned>(
    path: &Path,
    max_bytes: u64,
) -> Result<Option<T>, RuntimeError> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(RuntimeError::file("open", path)(e)),
    };
    let mut bytes = Vec::new();
    file.take(max_bytes)
        .read_to_end(&mut bytes)
        .map_err(RuntimeError::file("read", path))?;
    let record = serde_json::from_slice(&bytes);
    record.map(Some).map_err(|source| RuntimeError::Record {
        path: path.to_owned(),
        source,
    })
}
