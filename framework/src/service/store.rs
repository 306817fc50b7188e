//! The state file of a service: its framework and its instances, replaced as a whole at every change.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::Write;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::spec::ServiceError;

/// What is remembered.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Saved {
    pub(super) framework_id: Option<String>,
    pub(super) instances: Vec<SavedInstance>,
}

/// An instance that was launched and is not known to have ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct SavedInstance {
    pub(super) task_id: String,
    pub(super) agent_id: String,
    pub(super) hostname: String,
}

/// Where it is remembered.
pub(super) trait Store: Send {
    /// Makes the state durable.
    fn save(&mut self, saved: &Saved) -> Result<(), ServiceError>;
}

/// Remembers nothing.
#[derive(Debug)]
pub(super) struct NoStore;

impl Store for NoStore {
    fn save(&mut self, _saved: &Saved) -> Result<(), ServiceError> {
        Ok(())
    }
}

/// The file. A second file beside it is locked while it is used, because the first is replaced.
#[derive(Debug)]
pub(super) struct FileStore {
    path: PathBuf,
    lock: File,
}

impl Drop for FileStore {
    fn drop(&mut self) {
        // A process that is being started at this moment still shares the open file; closing it here
        // would leave it locked until that one has executed its program. An error leaves just that.
        let _ = self.lock.unlock();
    }
}

fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    PathBuf::from(name)
}

impl FileStore {
    /// Opens the file and reads what it holds.
    pub(super) fn open(path: &Path) -> Result<(Self, Saved), ServiceError> {
        let failed = |operation, remedy| {
            let path = path.to_owned();
            move |source| ServiceError::State {
                operation,
                path,
                remedy,
                source,
            }
        };
        let lock = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .open(beside(path, ".lock"))
            .map_err(failed(
                "lock",
                "name a file in a folder that can be written",
            ))?;
        lock.try_lock().map_err(|error| {
            let source = match error {
                TryLockError::Error(source) => source,
                TryLockError::WouldBlock => std::io::ErrorKind::WouldBlock.into(),
            };
            failed(
                "lock",
                "another service uses it; stop it or name another file",
            )(source)
        })?;
        let saved = match fs::read(path) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(|error| {
                failed(
                    "read",
                    "it is no service's state; name another file, or remove it to start over",
                )(error.into())
            })?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Saved::default(),
            Err(error) => return Err(failed("read", "check its permissions")(error)),
        };
        let path = path.to_owned();
        Ok((Self { path, lock }, saved))
    }

    fn replace(&self, saved: &Saved) -> std::io::Result<()> {
        let new = beside(&self.path, ".new");
        let mut file = File::create(&new)?;
        file.write_all(&serde_json::to_vec(saved)?)?;
        file.sync_all()?;
        fs::rename(&new, &self.path)?;
        let folder = self.path.parent().filter(|p| !p.as_os_str().is_empty());
        File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
    }
}

impl Store for FileStore {
    fn save(&mut self, saved: &Saved) -> Result<(), ServiceError> {
        self.replace(saved).map_err(|source| ServiceError::State {
            operation: "write",
            path: self.path.clone(),
            remedy: "make room on its file system; nothing is launched until it can be written",
            source,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_saved_is_read_again_and_a_file_in_use_is_refused() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("state");
        let saved = Saved {
            framework_id: Some("f".into()),
            instances: vec![SavedInstance {
                task_id: "t".into(),
                agent_id: "a".into(),
                hostname: "h".into(),
            }],
        };
        let (mut store, found) = FileStore::open(&path).expect("opened");
        assert_eq!(found, Saved::default());
        store.save(&saved).expect("saved");
        assert!(FileStore::open(&path).is_err(), "in use");
        drop(store);
        let (store, found) = FileStore::open(&path).expect("opened");
        assert_eq!(found, saved);
        drop(store);
        fs::write(&path, "hello").expect("written");
        let error = FileStore::open(&path).expect_err("no state");
        assert!(error.to_string().contains("no service's state"), "{error}");
    }
}
