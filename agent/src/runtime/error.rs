//! What can go wrong between the agent and its containers.

use std::io;
use std::path::{Path, PathBuf};

use crate::cgroup::CgroupError;

/// A launch, an adoption or a look into a sandbox failed.
#[derive(Debug, thiserror::Error)]
pub enum RuntimeError {
    /// A file or folder could not be used.
    #[error("cannot {operation} {}", path.display())]
    File {
        /// What was tried.
        operation: &'static str,
        /// On which file.
        path: PathBuf,
        /// What the system answered.
        #[source]
        source: io::Error,
    },
    /// An id that cannot name a folder.
    #[error("the {what} {id:?} cannot name a folder: {rule}")]
    BadId {
        /// Which id.
        what: &'static str,
        /// Its beginning.
        id: String,
        /// The rule that it breaks.
        rule: &'static str,
    },
    /// The run's path is too long for the system.
    #[error(
        "the run folder of container {container_id} would have a path of {bytes} bytes, the limit is {limit}: use shorter ids or a shorter work folder"
    )]
    PathTooLong {
        /// The container.
        container_id: String,
        /// How long it would be.
        bytes: usize,
        /// How long it may be.
        limit: usize,
    },
    /// The container id has been used.
    #[error("container {container_id} has a run folder already: container ids are used once")]
    RunExists {
        /// The container.
        container_id: String,
    },
    /// The command cannot be handed to the kernel.
    #[error("the command of container {container_id} cannot be run: {rule}")]
    BadCommand {
        /// The container.
        container_id: String,
        /// The rule that it breaks.
        rule: String,
    },
    /// No such user.
    #[error("there is no user {name:?} in {}: create it on this machine, or name another", path.display())]
    UnknownUser {
        /// The name.
        name: String,
        /// Where it was looked up.
        path: PathBuf,
    },
    /// A record that cannot be understood.
    #[error("{} is not a record of this agent", path.display())]
    Record {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: serde_json::Error,
    },
    /// The executor could not be spawned.
    #[error("cannot start the executor {} of container {container_id}", exe.display())]
    Spawn {
        /// The program.
        exe: PathBuf,
        /// The container.
        container_id: String,
        /// What the system answered.
        #[source]
        source: io::Error,
    },
    /// The executor could not be watched or signalled.
    #[error("cannot {operation} the executor of container {container_id} (pid {pid})")]
    Process {
        /// What was tried.
        operation: &'static str,
        /// The container.
        container_id: String,
        /// The process.
        pid: u32,
        /// What the system answered.
        #[source]
        source: io::Error,
    },
    /// A path inside a sandbox that is no plain file.
    #[error("{} is not a plain file: only plain files of a sandbox can be read", path.display())]
    NotAFile {
        /// The path.
        path: PathBuf,
    },
    /// The device behind a disk cannot be given to a container.
    #[error("the device {} of the disk {disk} cannot be used: {rule}; tell its operator to look at [devices]", path.display())]
    Device {
        /// The disk.
        disk: String,
        /// Where the device should be.
        path: PathBuf,
        /// What is wrong with it.
        rule: String,
    },
    /// A container that goes on has a device that is not its disk's any more.
    #[error(
        "container {container_id} runs with a device that is not that of its disk {disk} now: name under [devices] the one that it has, or end its task before that is changed"
    )]
    OtherDevice {
        /// The container.
        container_id: String,
        /// The disk.
        disk: String,
    },
    /// The kernel does not keep a container to its devices.
    #[error("container {container_id} cannot be kept to its devices")]
    DeviceFilter {
        /// The container.
        container_id: String,
        /// What the system answered.
        #[source]
        source: io::Error,
    },
    /// A cgroup refused.
    #[error("the cgroups of the container failed")]
    Cgroup(#[from] CgroupError),
}

impl RuntimeError {
    /// An error about a file, for `map_err`.
    pub(super) fn file(
        operation: &'static str,
        path: &Path,
    ) -> impl FnOnce(io::Error) -> RuntimeError {
        let path = path.to_owned();
        move |source| RuntimeError::File {
            operation,
            path,
            source,
        }
    }
}
