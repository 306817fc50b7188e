//! What the agent keeps on disk: its identity, and a journal of its tasks.
//!
//! The work folder belongs to one agent process at a time (a lock), and holds
//! * `identity`: the name of this installation and the number of its present life,
//! * `journal`: every record of the core (see [`journal`]),
//! * `lending`: what was learnt of the tasks (see [`past`]),
//! * the folders of runs, which are [`crate::runtime`]'s.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use ebb_types::Incarnation;

pub mod codec;
pub mod journal;
pub mod past;
#[cfg(test)]
mod tests;
pub mod writer;

/// Longest identity file that is read, in bytes.
const MAX_IDENTITY_BYTES: u64 = 4_096;

/// Something about the work folder is wrong.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// A file could not be used.
    #[error(
        "cannot {operation} {}: {source}; the agent needs a work folder that it may write to (--work-dir)",
        path.display()
    )]
    File {
        /// What was tried.
        operation: &'static str,
        /// On which file.
        path: PathBuf,
        /// What the system answered.
        source: io::Error,
    },
    /// Another agent uses the work folder.
    #[error(
        "another agent uses the work folder {}; stop it, or give this one a folder of its own (--work-dir)",
        path.display()
    )]
    InUse {
        /// The folder.
        path: PathBuf,
    },
    /// A file does not say what it should.
    #[error(
        "{} is damaged at byte {at}: {what}; restore it from a backup, or end the tasks that run here and \
         move the file away to start as a new agent",
        path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where.
        at: u64,
        /// What is wrong.
        what: String,
    },
}

pub(crate) fn error(
    operation: &'static str,
    path: &Path,
) -> impl FnOnce(io::Error) -> CheckpointError {
    let path = path.to_owned();
    move |source| CheckpointError::File {
        operation,
        path,
        source,
    }
}

/// Who this agent is, from its first start to the end of its work folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Names the installation: a random word, safe in file names.
    pub instance: String,
    /// Its present life.
    pub incarnation: Incarnation,
}

/// A work folder that this process holds.
#[derive(Debug)]
pub struct WorkDir {
    path: PathBuf,
    identity: Identity,
    /// Held as long as the folder is.
    _lock: File,
}

impl WorkDir {
    /// Makes the folder if need be, locks it, and begins a new life in it.
    ///
    /// # Errors
    /// [`CheckpointError`] if it cannot be written, is in use, or its identity is damaged.
    pub fn open(path: &Path) -> Result<Self, CheckpointError> {
        fs::create_dir_all(path).map_err(error("make", path))?;
        let path = fs::canonicalize(path).map_err(error("find", path))?;
        let lock_path = path.join("lock");
        let lock = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .open(&lock_path)
            .map_err(error("open", &lock_path))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(fs::TryLockError::WouldBlock) => return Err(CheckpointError::InUse { path }),
            Err(fs::TryLockError::Error(source)) => {
                return Err(error("lock", &lock_path)(source));
            }
        }
        let identity_path = path.join("identity");
        let identity = match read_identity(&identity_path)? {
            Some(before) => Identity {
                incarnation: Incarnation(before.incarnation.0 + 1),
                ..before
            },
            None => Identity {
                instance: random_word()?,
                incarnation: Incarnation(1),
            },
        };
        write_identity(&identity_path, &identity)?;
        Ok(Self {
            path,
            identity,
            _lock: lock,
        })
    }

    /// Where it is, as an absolute path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Who this agent is.
    pub const fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Where what was learnt of the tasks is kept.
    pub fn past_path(&self) -> PathBuf {
        self.path.join("lending")
    }

    /// Opens the journal.
    ///
    /// # Errors
    /// [`CheckpointError`] if it cannot be used or is damaged.
    pub fn journal(&self) -> Result<journal::Opened, CheckpointError> {
        journal::Journal::open(&self.path.join("journal"))
    }
}

fn read_identity(path: &Path) -> Result<Option<Identity>, CheckpointError> {
    let mut bytes = Vec::new();
    match File::open(path) {
        Ok(file) => file
            .take(MAX_IDENTITY_BYTES)
            .read_to_end(&mut bytes)
            .map_err(error("read", path))?,
        Err(source) if source.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(error("open", path)(source)),
    };
    // What is no text names nothing, which is said below.
    let text = String::from_utf8_lossy(&bytes);
    let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name));
    let instance = field("instance=").filter(|name| {
        !name.is_empty() && name.len() <= 64 && name.chars().all(|c| c.is_ascii_alphanumeric())
    });
    let incarnation = field("incarnation=").and_then(|number| number.parse().ok());
    match (instance, incarnation) {
        (Some(instance), Some(incarnation)) => Ok(Some(Identity {
            instance: instance.to_owned(),
            incarnation: Incarnation(incarnation),
        })),
        _ => Err(CheckpointError::Damaged {
            path: path.to_owned(),
            at: 0,
            what: "it names no instance and incarnation".to_owned(),
        }),
    }
}

fn write_identity(path: &Path, identity: &Identity) -> Result<(), CheckpointError> {
    let aside = path.with_extension("new");
    let text = format!(
        "instance={}\nincarnation={}\n",
        identity.instance, identity.incarnation.0
    );
    let mut file = File::create(&aside).map_err(error("make", &aside))?;
    file.write_all(text.as_bytes())
        .map_err(error("write", &aside))?;
    file.sync_all().map_err(error("sync", &aside))?;
    fs::rename(&aside, path).map_err(error("replace", path))?;
    journal::sync_folder(path)
}

/// Twelve hexadecimal digits from the kernel.
fn random_word() -> Result<String, CheckpointError> {
    let path = Path::new("/dev/urandom");
    let mut bytes = [0; 6];
    File::open(path)
        .and_then(|mut file| file.read_exact(&mut bytes))
        .map_err(error("read", path))?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}
