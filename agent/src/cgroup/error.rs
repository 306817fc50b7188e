//! What can go wrong with a cgroup.

use std::io;
use std::path::PathBuf;

use super::Controller;

/// What went wrong with a cgroup.
#[derive(Debug, thiserror::Error)]
pub enum CgroupError {
    /// No cgroup file system is mounted.
    #[error(
        "no cgroup hierarchy is mounted: mount cgroup2 at /sys/fs/cgroup, or start the agent where it is visible"
    )]
    NotMounted,
    /// A cgroup file or directory could not be used.
    #[error("cannot {operation} {}", path.display())]
    File {
        /// What was tried.
        operation: &'static str,
        /// On which file.
        path: PathBuf,
        /// What the kernel answered.
        #[source]
        source: io::Error,
    },
    /// The controllers cannot be switched on, because processes stand in the very cgroup that is to be divided.
    #[error(
        "cannot switch on the controllers in {}: processes stand in that cgroup itself, as in a container without delegation; start the agent in the machine's root cgroup, or move those processes to a child",
        path.display()
    )]
    NotDelegated {
        /// The file.
        path: PathBuf,
    },
    /// A limit was asked that no mounted controller can hold.
    #[error(
        "{asked} was asked but the {controller} controller is not available: enable it in the kernel, or ask no such limit"
    )]
    NoController {
        /// The controller.
        controller: Controller,
        /// What was asked of it.
        asked: &'static str,
    },
    /// A name that cannot be a cgroup directory of ours.
    #[error("{name:?} cannot name a cgroup: {rule}")]
    BadName {
        /// The name.
        name: String,
        /// The rule that it breaks.
        rule: &'static str,
    },
    /// The container exists already.
    #[error("container {id} has a cgroup already: container ids are used once")]
    Exists {
        /// The container.
        id: String,
    },
    /// Processes outlived their killing.
    #[error("container {id} still has processes {waited_ms} ms after they were killed: see {}", path.display())]
    NotEmptied {
        /// The container.
        id: String,
        /// How long was waited.
        waited_ms: u64,
        /// Where the processes are listed.
        path: PathBuf,
    },
    /// A file's content was not understood.
    #[error("{} holds {content:?}, which is not {expected}", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// What stood in it.
        content: String,
        /// What was expected.
        expected: &'static str,
    },
    /// No block device stands behind a path, so its bandwidth cannot be limited.
    #[error("no block device stands behind {}: a disk limit needs a work folder on a disk", path.display())]
    NoBlockDevice {
        /// The path.
        path: PathBuf,
    },
}
