//! The agent's own part of the cgroup tree: made at start, emptied container by container, removed at the end.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::thread::available_parallelism;

use super::hybrid::Hybrid;
use super::v1::{self, V1};
use super::v2::{self, V2};
use super::{
    CgroupError, Container, Control, Controller, Hierarchy, Limits, Mounts, check_name, files,
};

/// The directory of the executors, beside the containers. Its first letter cannot begin a container's id.
pub const EXECUTORS: &str = "+executors";
/// How often making a directory is tried when another agent removes the shared base at the same moment.
const MAKE_ATTEMPTS: u32 = 8;

/// A container found in the cgroup tree.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Listed {
    /// Its id.
    pub id: String,
    /// Whether it stands under the revocable root.
    pub revocable: bool,
}

/// The agent's roots in every mount.
#[derive(Debug, Clone)]
pub struct CgroupRoot {
    mounts: Mounts,
    base: String,
    instance: String,
}

impl CgroupRoot {
    /// Makes the roots `<base>/<instance>` and `<base>-revocable/<instance>` in every mount, and sets the claim of
    /// each: the first weighs as much as all CPUs together, the second yields to everything else on the machine.
    pub fn prepare(mounts: Mounts, base: &str, instance: &str) -> Result<CgroupRoot, CgroupError> {
        check_name(base)?;
        check_name(instance)?;
        let root = CgroupRoot {
            mounts,
            base: base.to_owned(),
            instance: instance.to_owned(),
        };
        let mut attempt = 1;
        loop {
            match root.make() {
                Err(e) if files::says_gone(&e) && attempt < MAKE_ATTEMPTS => attempt += 1,
                done => return done.map(|()| root),
            }
        }
    }

    fn make(&self) -> Result<(), CgroupError> {
        let cpu_milli = available_parallelism().map_or(1, |n| n.get() as u64) * 1_000;
        for revocable in [false, true] {
            for mount in self.mounts.all() {
                let base = mount.join(self.base_name(revocable));
                let instance = base.join(&self.instance);
                files::make_dir(&base)?;
                files::make_dir(&instance)?;
                if self.mounts.v2() == Some(mount) {
                    self.enable_controllers(&[mount, &base, &instance])?;
                }
            }
            self.set_claim(revocable, cpu_milli)?;
        }
        match self.executors_dir() {
            Some(dir) => files::make_dir(&dir).map(drop),
            None => Ok(()),
        }
    }

    /// Switches the controllers on, from the mount downwards.
    fn enable_controllers(&self, dirs: &[&Path]) -> Result<(), CgroupError> {
        let names: Vec<String> = self
            .mounts
            .v2_controllers
            .iter()
            .filter_map(|c| c.v2_name())
            .map(|n| format!("+{n}"))
            .collect();
        if names.is_empty() {
            return Ok(());
        }
        let text = names.join(" ");
        dirs.iter().try_for_each(|dir| {
            let path = dir.join("cgroup.subtree_control");
            match files::write(&path, &text) {
                Err(CgroupError::File { source, .. })
                    if source.kind() == io::ErrorKind::ResourceBusy =>
                {
                    Err(CgroupError::NotDelegated { path })
                }
                done => done,
            }
        })
    }

    fn set_claim(&self, revocable: bool, cpu_milli: u64) -> Result<(), CgroupError> {
        let base_name = self.base_name(revocable);
        if let Some(mount) = self.mounts.v1(Controller::Cpu) {
            let base = mount.join(&base_name);
            let shares = v1::shares(cpu_milli).to_string();
            if revocable {
                v1::make_idle(&base)?;
            } else {
                files::write(&base.join("cpu.shares"), &shares)?;
            }
            files::write(&base.join(&self.instance).join("cpu.shares"), &shares)?;
        }
        if let (true, Some(mount)) = (revocable, self.mounts.v1(Controller::Io)) {
            v1::make_io_lowest(&mount.join(&base_name))?;
        }
        let Some(mount) = self.mounts.v2() else {
            return Ok(());
        };
        let base = mount.join(&base_name);
        if self.mounts.v2_controllers.contains(&Controller::Cpu) {
            let weight = v2::weight(cpu_milli).to_string();
            if revocable {
                set_v2_idle(&base)?;
            } else {
                files::write(&base.join("cpu.weight"), &weight)?;
            }
            files::write(&base.join(&self.instance).join("cpu.weight"), &weight)?;
        }
        if revocable && self.mounts.v2_controllers.contains(&Controller::Io) {
            for file in ["io.weight", "io.bfq.weight"] {
                files::write_if_present(&base.join(file), "1")?;
            }
        }
        Ok(())
    }

    /// What is mounted.
    pub fn mounts(&self) -> &Mounts {
        &self.mounts
    }

    /// How deep a container's v2 cgroup stands below the mount: the level for
    /// `bpf_get_current_ancestor_cgroup_id()` where the mount shows the machine's own root.
    pub fn container_level(&self) -> u32 {
        3
    }

    /// The v2 directory of the executors.
    pub fn executors_dir(&self) -> Option<PathBuf> {
        self.mounts
            .v2()
            .map(|mount| mount.join(&self.base).join(&self.instance).join(EXECUTORS))
    }

    fn base_name(&self, revocable: bool) -> String {
        if revocable {
            format!("{}-revocable", self.base)
        } else {
            self.base.clone()
        }
    }

    fn instance_dir(&self, mount: &Path, revocable: bool) -> PathBuf {
        mount.join(self.base_name(revocable)).join(&self.instance)
    }

    /// Makes a container's cgroups and sets its limits. On an error nothing is left behind.
    pub fn create(&self, id: &str, limits: &Limits) -> Result<Container, CgroupError> {
        self.check_holdable(limits)?;
        let container = self.open(id, limits)?;
        if self.exists(id, limits.revocable) {
            return Err(CgroupError::Exists { id: id.to_owned() });
        }
        match container
            .control
            .make()
            .and_then(|()| container.control.apply(limits, None))
        {
            Ok(()) => Ok(container),
            Err(e) => match container.control.remove() {
                // Both are worth knowing; the first is the cause, and what is left is found again by `list`.
                Ok(()) | Err(_) => Err(e),
            },
        }
    }

    /// A handle on a container's cgroups, whether they exist or not: for recovery.
    pub fn open(&self, id: &str, limits: &Limits) -> Result<Container, CgroupError> {
        check_name(id)?;
        let dir = |mount: &Path| self.instance_dir(mount, limits.revocable).join(id);
        let v1 = V1 {
            dirs: self
                .mounts
                .v1
                .iter()
                .map(|(c, mount)| (*c, dir(mount)))
                .collect(),
        };
        let v2 = self.mounts.v2().map(|mount| V2 {
            dir: dir(mount),
            controllers: self.mounts.v2_controllers.clone(),
        });
        let control: Box<dyn Control> = match (self.mounts.hierarchy(), v2) {
            (Hierarchy::V1, _) | (_, None) => Box::new(v1),
            (Hierarchy::V2, Some(v2)) => Box::new(v2),
            (Hierarchy::Hybrid, Some(v2)) => Box::new(Hybrid { v1, v2 }),
        };
        Ok(Container::new(id, limits, control))
    }

    fn exists(&self, id: &str, revocable: bool) -> bool {
        self.mounts
            .all()
            .into_iter()
            .any(|mount| self.instance_dir(mount, revocable).join(id).exists())
    }

    /// Refuses limits that no controller here can hold.
    fn check_holdable(&self, limits: &Limits) -> Result<(), CgroupError> {
        let asked = [
            (
                limits.cpu_limit_milli.is_some(),
                Controller::Cpu,
                "a CPU limit",
            ),
            (
                limits.mem_bytes.is_some(),
                Controller::Memory,
                "a memory limit",
            ),
            (
                limits.pids.is_some(),
                Controller::Pids,
                "a limit of processes",
            ),
            (limits.disk.is_some(), Controller::Io, "a disk limit"),
        ];
        match asked
            .into_iter()
            .find(|(asked, controller, _)| *asked && !self.mounts.has(*controller))
        {
            None => Ok(()),
            Some((_, controller, asked)) => Err(CgroupError::NoController { controller, asked }),
        }
    }

    /// Every container of this agent that has a directory in any mount, also a half-made one.
    pub fn list(&self) -> Result<Vec<Listed>, CgroupError> {
        let mut found = BTreeSet::new();
        for revocable in [false, true] {
            for mount in self.mounts.all() {
                let dir = self.instance_dir(mount, revocable);
                let entries = match fs::read_dir(&dir) {
                    Ok(entries) => entries,
                    Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
                    Err(e) => return Err(files::error("list", &dir, e)),
                };
                let dirs = entries
                    .flatten()
                    .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
                let names = dirs.filter_map(|entry| entry.file_name().into_string().ok());
                found.extend(
                    names
                        .filter(|name| check_name(name).is_ok())
                        .map(|id| Listed { id, revocable }),
                );
            }
        }
        Ok(found.into_iter().collect())
    }

    /// Removes the agent's roots, and the shared base where no other agent is left in it. False (and nothing lost)
    /// while containers or executors remain.
    pub fn remove(&self) -> Result<bool, CgroupError> {
        if let Some(dir) = self.executors_dir()
            && !files::remove_if_empty(&dir)?
        {
            return Ok(false);
        }
        let mut gone = true;
        for revocable in [false, true] {
            for mount in self.mounts.all() {
                let removed = files::remove_if_empty(&self.instance_dir(mount, revocable))?;
                gone &= removed;
                if removed {
                    files::remove_if_empty(&mount.join(self.base_name(revocable)))?;
                }
            }
        }
        Ok(gone)
    }
}

/// `cpu.idle` (kernel 5.15), else the least weight.
fn set_v2_idle(dir: &Path) -> Result<(), CgroupError> {
    if files::write_if_present(&dir.join("cpu.idle"), "1")? {
        return Ok(());
    }
    files::write(&dir.join("cpu.weight"), "1")
}
