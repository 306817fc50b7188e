//! Containers without a cluster: cgroups made as the agent makes them, in roots of this process's own, and removed
//! again however the benchmark ends.

use std::path::PathBuf;

use anyhow::{Context, Result};
use ebb_agent::cgroup::{CgroupRoot, Container, Controller, Limits, Mounts};
use ebb_agent::probe::CgroupPaths;

/// Memory of a container.
const MEM_BYTES: u64 = 64 << 20;
/// Weight of a container, in thousandths of a CPU.
const CPU_MILLI: u64 = 100;

/// Some containers in cgroups of their own.
pub struct Containers {
    root: CgroupRoot,
    containers: Vec<Container>,
}

impl Containers {
    /// Makes so many. Whatever fails, none is left behind.
    ///
    /// # Errors
    /// When the kernel refuses; it takes root.
    pub fn make(count: usize) -> Result<Self> {
        let limits = Limits {
            cpu_milli: CPU_MILLI,
            mem_bytes: Some(MEM_BYTES),
            ..Limits::default()
        };
        Self::with(count, &limits)
    }

    /// Makes so many with these limits. Whatever fails, none is left behind.
    ///
    /// # Errors
    /// When the kernel refuses; it takes root.
    pub fn with(count: usize, limits: &Limits) -> Result<Self> {
        let base = format!("ebb-bench-{}", std::process::id());
        let mounts = Mounts::detect()?;
        let root = CgroupRoot::prepare(mounts, &base, "containers")
            .context("cannot make cgroups; run it as root")?;
        let mut made = Self {
            root,
            containers: Vec::with_capacity(count),
        };
        for number in 0..count {
            let container = made.root.create(&format!("container-{number}"), limits)?;
            made.containers.push(container);
        }
        Ok(made)
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.containers.len()
    }

    /// Where the figures of each stand.
    pub fn paths(&self) -> Vec<CgroupPaths> {
        self.containers.iter().map(paths).collect()
    }

    /// The files into which a process writes itself to be in one of them.
    pub fn doors(&self, number: usize) -> Vec<PathBuf> {
        let Some(container) = self.containers.get(number) else {
            return Vec::new();
        };
        let join = container.join_paths();
        let v2 = join.v2_dir.map(|dir| dir.join("cgroup.procs"));
        join.v1_procs.into_iter().chain(v2).collect()
    }
}

fn paths(container: &Container) -> CgroupPaths {
    let paths = container.paths();
    let v1 = |controller| paths.v1.get(&controller).cloned();
    CgroupPaths {
        cpu: v1(Controller::Cpu),
        cpuacct: v1(Controller::Cpuacct),
        memory: v1(Controller::Memory),
        blkio: v1(Controller::Io),
        v2: paths.v2,
    }
}

impl Drop for Containers {
    fn drop(&mut self) {
        for container in &self.containers {
            if let Err(error) = container.destroy() {
                eprintln!("container {} is left: {error}", container.id());
            }
        }
        match self.root.remove() {
            Ok(true) => {}
            Ok(false) => eprintln!("cgroups of the benchmark are left"),
            Err(error) => eprintln!("cgroups of the benchmark are left: {error}"),
        }
    }
}
