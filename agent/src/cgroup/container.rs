//! One container's cgroups as the rest of the agent holds them.

use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::{
    CgroupError, ContainerPaths, Control, Controller, DESTROY_WAIT, JoinPaths, Limits, files,
};

/// One container's cgroups.
#[derive(Debug)]
pub struct Container {
    pub(super) id: String,
    pub(super) control: Box<dyn Control>,
    claim: Mutex<Claim>,
}

/// What the container may use now.
#[derive(Debug)]
struct Claim {
    limits: Limits,
    /// The quota that it is held to for the time being.
    throttle_milli: Option<u64>,
}

impl Claim {
    /// The lesser of limit and throttle.
    fn quota_milli(&self) -> Option<u64> {
        match (self.throttle_milli, self.limits.cpu_limit_milli) {
            (Some(throttle), Some(limit)) => Some(throttle.min(limit)),
            (throttle, limit) => throttle.or(limit),
        }
    }
}

impl Container {
    pub(super) fn new(id: &str, limits: &Limits, control: Box<dyn Control>) -> Container {
        let claim = Claim {
            limits: limits.clone(),
            throttle_milli: None,
        };
        Container {
            id: id.to_owned(),
            control,
            claim: Mutex::new(claim),
        }
    }

    /// No holder of the lock leaves it half-changed, so one that panicked is no reason to.
    fn claim(&self) -> MutexGuard<'_, Claim> {
        self.claim.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The container's id.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The limits that it has.
    pub fn limits(&self) -> Limits {
        self.claim().limits.clone()
    }

    /// The cgroup v2 id: what `bpf_get_current_cgroup_id()` answers inside. `None` where v2 is not mounted.
    pub fn cgroup_id(&self) -> Result<Option<u64>, CgroupError> {
        self.control.v2_dir().map(files::inode).transpose()
    }

    /// Gives it other limits while it runs: for containers whose tasks come and go. A throttle stays; whether it is
    /// revocable cannot change. Memory below what is in use: v1 refuses it (`EBUSY`) if it cannot be reclaimed, v2 kills.
    pub fn resize(&self, limits: &Limits) -> Result<(), CgroupError> {
        let mut claim = self.claim();
        let limits = Limits {
            revocable: claim.limits.revocable,
            ..limits.clone()
        };
        self.control.apply(&limits, Some(&claim.limits))?;
        claim.limits = limits;
        match claim.throttle_milli {
            Some(_) => self.control.set_cpu_quota(claim.quota_milli()),
            None => Ok(()),
        }
    }

    /// Holds the container to `cpu_milli`, or with `None` returns it to its limit. Never gives more than that.
    pub fn throttle(&self, cpu_milli: Option<u64>) -> Result<(), CgroupError> {
        let mut claim = self.claim();
        claim.throttle_milli = cpu_milli;
        self.control.set_cpu_quota(claim.quota_milli())
    }

    /// Has the kernel reclaim its memory down to `to_bytes`, what is only cached first, or with `None` leaves it what its
    /// limit allows. Nothing is killed for it: v2 (`memory.high`) reclaims before this returns and slows down whoever
    /// asks for more; v1 (`memory.soft_limit_in_bytes`) takes from it first whenever the machine runs short.
    pub fn reclaim_memory(&self, to_bytes: Option<u64>) -> Result<(), CgroupError> {
        self.control.set_memory_kept(to_bytes)
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
