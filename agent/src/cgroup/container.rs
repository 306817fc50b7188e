//! One container's cgroups as the rest of the agent holds them.

use std::path::PathBuf;
use std::time::Duration;

use super::{
    CgroupError, ContainerPaths, Control, Controller, DESTROY_WAIT, JoinPaths, Limits, files,
};

/// One container's cgroups.
#[derive(Debug)]
pub struct Container {
    pub(super) id: String,
    pub(super) limits: Limits,
    pub(super) control: Box<dyn Control>,
}

impl Container {
    /// The container's id.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The limits that it was made with.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// The cgroup v2 id: what `bpf_get_current_cgroup_id()` answers inside. `None` where v2 is not mounted.
    pub fn cgroup_id(&self) -> Result<Option<u64>, CgroupError> {
        self.control.v2_dir().map(files::inode).transpose()
    }

    /// Gives it other limits while it runs: for containers whose tasks come and go.
    pub fn resize(&self, limits: &Limits) -> Result<(), CgroupError> {
        self.control.apply(limits)
    }

    /// Holds the container to `cpu_milli`, or with `None` returns it to the limit that it was made with.
    pub fn throttle(&self, cpu_milli: Option<u64>) -> Result<(), CgroupError> {
        let quota_milli = match (cpu_milli, self.limits.cpu_limit_milli) {
            (Some(asked), Some(limit)) => Some(asked.min(limit)),
            (asked, limit) => asked.or(limit),
        };
        self.control.set_cpu_quota(quota_milli)
    }

    /// Stops every process where it stands. Returns at once; [`Container::wait_frozen`] waits.
    pub fn freeze(&self) -> Result<(), CgroupError> {
        self.control.set_frozen(true)
    }

    /// Continues every process.
    pub fn thaw(&self) -> Result<(), CgroupError> {
        self.control.set_frozen(false)
    }

    /// Waits until freezing (or thawing) is complete; false when `timeout` has passed.
    pub fn wait_frozen(&self, frozen: bool, timeout: Duration) -> Result<bool, CgroupError> {
        self.control.wait_frozen(frozen, timeout)
    }

    /// Sends SIGKILL to every process, those in nested cgroups and frozen ones too.
    pub fn kill_all(&self) -> Result<(), CgroupError> {
        self.control.kill_all()
    }

    /// The processes of the container, those in nested cgroups too.
    pub fn procs(&self) -> Result<Vec<u32>, CgroupError> {
        self.control.procs()
    }

    /// Whether a live process is left.
    pub fn is_populated(&self) -> Result<bool, CgroupError> {
        self.control.is_populated()
    }

    /// Waits until no live process is left; false when `timeout` has passed.
    pub fn wait_empty(&self, timeout: Duration) -> Result<bool, CgroupError> {
        self.control.wait_empty(timeout)
    }

    /// Where the sampler finds each controller's figures.
    pub fn paths(&self) -> ContainerPaths {
        self.control.paths()
    }

    /// How a process enters.
    pub fn join_paths(&self) -> JoinPaths {
        let paths = self.control.paths();
        let memory_dir = paths.v1.get(&Controller::Memory).or({
            if paths.v2_controllers.contains(&Controller::Memory) {
                paths.v2.as_ref()
            } else {
                None
            }
        });
        let mut v1_procs: Vec<PathBuf> = paths
            .v1
            .values()
            .map(|dir| dir.join("cgroup.procs"))
            .collect();
        v1_procs.sort();
        v1_procs.dedup();
        JoinPaths {
            memory_dir: memory_dir.cloned(),
            v2_dir: paths.v2,
            v1_procs,
        }
    }

    /// Kills what is left, waits for it to be gone and removes the cgroups. Removing what is gone succeeds.
    pub fn destroy(&self) -> Result<(), CgroupError> {
        self.control.kill_all()?;
        if !self.control.wait_empty(DESTROY_WAIT)? {
            let paths = self.paths();
            let path = paths
                .v2
                .or_else(|| paths.v1.into_values().next())
                .unwrap_or_default();
            let waited_ms = DESTROY_WAIT.as_millis() as u64;
            return Err(CgroupError::NotEmptied {
                id: self.id.clone(),
                waited_ms,
                path,
            });
        }
        self.control.remove()
    }
}
