//! One container on a hybrid host: each limit is held where its controller is mounted; freezing, killing, waiting and
//! the id are v2's, which needs no controller for them.

use std::path::Path;
use std::time::Duration;

use super::v1::V1;
use super::v2::V2;
use super::{CgroupError, ContainerPaths, Control, Controller, Limits};

/// One container's directories in v1 and v2.
#[derive(Debug)]
pub(super) struct Hybrid {
    pub(super) v1: V1,
    pub(super) v2: V2,
}

impl Control for Hybrid {
    fn make(&self) -> Result<(), CgroupError> {
        self.v1.make()?;
        self.v2.make()
    }

    fn apply(&self, limits: &Limits, before: Option<&Limits>) -> Result<(), CgroupError> {
        self.v1.apply(limits, before)?;
        self.v2.apply(limits, before)
    }

    fn set_cpu_quota(&self, cpu_milli: Option<u64>) -> Result<(), CgroupError> {
        if self.v1.dirs.contains_key(&Controller::Cpu) {
            self.v1.set_cpu_quota(cpu_milli)
        } else {
            self.v2.set_cpu_quota(cpu_milli)
        }
    }

    fn set_memory_kept(&self, bytes: Option<u64>) -> Result<(), CgroupError> {
        if self.v1.dirs.contains_key(&Controller::Memory) {
            self.v1.set_memory_kept(bytes)
        } else {
            self.v2.set_memory_kept(bytes)
        }
    }

    fn set_frozen(&self, frozen: bool) -> Result<(), CgroupError> {
        self.v2.set_frozen(frozen)
    }

    fn wait_frozen(&self, frozen: bool, timeout: Duration) -> Result<bool, CgroupError> {
        self.v2.wait_frozen(frozen, timeout)
    }

    fn kill_all(&self) -> Result<(), CgroupError> {
        self.v2.kill_all()
    }

    fn procs(&self) -> Result<Vec<u32>, CgroupError> {
        self.v2.procs()
    }

    fn is_populated(&self) -> Result<bool, CgroupError> {
        self.v2.is_populated()
    }

    fn wait_empty(&self, timeout: Duration) -> Result<bool, CgroupError> {
        self.v2.wait_empty(timeout)
    }

    fn v2_dir(&self) -> Option<&Path> {
        self.v2.v2_dir()
    }

    fn paths(&self) -> ContainerPaths {
        ContainerPaths {
            v1: self.v1.dirs.clone(),
            ..self.v2.paths()
        }
    }

    fn remove(&self) -> Result<(), CgroupError> {
        let (v1, v2) = (self.v1.remove(), self.v2.remove());
        v1.and(v2)
    }
}
