//! One container in cgroup v2. Freezing, killing and events are v2's own and need no controller, so on hybrid hosts
//! this directory does them while v1 holds the limits.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use super::{
    CPU_PERIOD_US, CgroupError, ContainerPaths, Control, Controller, DiskLimits, Limits, files,
    no_memory_to_keep, quota_us,
};

/// The weight of one CPU: the kernel's default weight.
const WEIGHT_OF_A_CPU: u64 = 100;
/// The range of `cpu.weight`.
const WEIGHT_RANGE: (u64, u64) = (1, 10_000);
/// How often the processes are listed anew where `cgroup.kill` (kernel 5.14) does not exist.
const KILL_ROUNDS: u32 = 100;

/// One container's v2 directory.
#[derive(Debug)]
pub(super) struct V2 {
    pub(super) dir: PathBuf,
    pub(super) controllers: BTreeSet<Controller>,
}

impl V2 {
    fn write(&self, file: &str, value: &str) -> Result<(), CgroupError> {
        files::write(&self.dir.join(file), value)
    }

    fn has(&self, controller: Controller) -> bool {
        self.controllers.contains(&controller)
    }

    fn apply_disk(&self, disk: &DiskLimits, lift: bool) -> Result<(), CgroupError> {
        let text = |limit: Option<u64>| {
            limit
                .filter(|_| !lift)
                .map_or_else(|| "max".to_owned(), |b| b.to_string())
        };
        let (read, write) = (
            text(disk.read_bytes_per_sec),
            text(disk.write_bytes_per_sec),
        );
        self.write(
            "io.max",
            &format!("{} rbps={read} wbps={write}", disk.device),
        )
    }
}

/// A number, or v2's word for none.
fn or_max(limit: Option<u64>) -> String {
    limit.map_or_else(|| "max".to_owned(), |number| number.to_string())
}

/// `cpu.weight` for so much CPU.
pub(super) fn weight(cpu_milli: u64) -> u64 {
    (cpu_milli.saturating_mul(WEIGHT_OF_A_CPU) / 1_000).clamp(WEIGHT_RANGE.0, WEIGHT_RANGE.1)
}

impl Control for V2 {
    fn make(&self) -> Result<(), CgroupError> {
        files::make_dir(&self.dir).map(drop)
    }

    fn apply(&self, limits: &Limits, before: Option<&Limits>) -> Result<(), CgroupError> {
        let none = Limits::default();
        let old = before.unwrap_or(&none);
        if self.has(Controller::Cpu) {
            if before.is_none() || limits.cpu_milli != old.cpu_milli {
                self.write("cpu.weight", &weight(limits.cpu_milli).to_string())?;
            }
            if limits.cpu_limit_milli != old.cpu_limit_milli {
                self.set_cpu_quota(limits.cpu_limit_milli)?;
            }
        }
        if self.has(Controller::Memory) && limits.mem_bytes != old.mem_bytes {
            self.write("memory.max", &or_max(limits.mem_bytes))?;
            let swap = if limits.mem_bytes.is_some() {
                "0"
            } else {
                "max"
            };
            files::write_if_present(&self.dir.join("memory.swap.max"), swap)?;
            self.write("memory.oom.group", "1")?;
        }
        if self.has(Controller::Pids) && limits.pids != old.pids {
            self.write("pids.max", &or_max(limits.pids))?;
        }
        if self.has(Controller::Io) && limits.disk != old.disk {
            old.disk
                .iter()
                .try_for_each(|disk| self.apply_disk(disk, true))?;
            limits
                .disk
                .iter()
                .try_for_each(|disk| self.apply_disk(disk, false))?;
        }
        Ok(())
    }

    fn set_cpu_quota(&self, cpu_milli: Option<u64>) -> Result<(), CgroupError> {
        if !self.has(Controller::Cpu) {
            return match cpu_milli {
                None => Ok(()),
                Some(_) => Err(CgroupError::NoController {
                    controller: Controller::Cpu,
                    asked: "a CPU quota",
                }),
            };
        }
        let quota = cpu_milli.map_or_else(|| "max".to_owned(), |milli| quota_us(milli).to_string());
        self.write("cpu.max", &format!("{quota} {CPU_PERIOD_US}"))
    }

    fn set_memory_kept(&self, bytes: Option<u64>) -> Result<(), CgroupError> {
        if !self.has(Controller::Memory) {
            return no_memory_to_keep(bytes);
        }
        self.write("memory.high", &or_max(bytes))
    }

    fn set_frozen(&self, frozen: bool) -> Result<(), CgroupError> {
        self.write("cgroup.freeze", if frozen { "1" } else { "0" })
    }

    fn wait_frozen(&self, frozen: bool, timeout: Duration) -> Result<bool, CgroupError> {
        files::wait_event(
            &self.dir.join("cgroup.events"),
            "frozen",
            u64::from(frozen),
            timeout,
        )
    }

    fn kill_all(&self) -> Result<(), CgroupError> {
        let kill = self.dir.join("cgroup.kill");
        if kill.exists() {
            return match files::write(&kill, "1") {
                Err(e) if files::says_gone(&e) => Ok(()),
                done => done,
            };
        }
        kill_each(|| self.procs())
    }

    fn procs(&self) -> Result<Vec<u32>, CgroupError> {
        files::procs(&self.dir)
    }

    fn is_populated(&self) -> Result<bool, CgroupError> {
        match files::read_key(&self.dir.join("cgroup.events"), "populated") {
            Ok(value) => Ok(value != Some(0)),
            Err(e) if files::says_gone(&e) => Ok(false),
            Err(e) => Err(e),
        }
    }

    fn wait_empty(&self, timeout: Duration) -> Result<bool, CgroupError> {
        files::wait_event(&self.dir.join("cgroup.events"), "populated", 0, timeout)
    }

    fn v2_dir(&self) -> Option<&Path> {
        Some(&self.dir)
    }

    fn paths(&self) -> ContainerPaths {
        let v2_controllers = self.controllers.clone();
        ContainerPaths {
            v2: Some(self.dir.clone()),
            v2_controllers,
            ..ContainerPaths::default()
        }
    }

    fn remove(&self) -> Result<(), CgroupError> {
        files::remove_tree(&self.dir)
    }
}

/// Kills what `list` lists until it lists nothing new: a process that forks while it is killed leaves a child that the
/// next round finds. A killed process may stay listed until its parent reaps it, so a round without new ones ends it.
pub(super) fn kill_each(
    list: impl Fn() -> Result<Vec<u32>, CgroupError>,
) -> Result<(), CgroupError> {
    let mut killed = BTreeSet::new();
    for _ in 0..KILL_ROUNDS {
        let before = killed.len();
        for pid in list()? {
            if killed.insert(pid)
                && let Some(target) = Pid::from_raw(pid as i32)
            {
                match kill_process(target, Signal::KILL) {
                    Ok(()) | Err(rustix::io::Errno::SRCH) => {}
                    Err(e) => {
                        return Err(files::error(
                            "kill",
                            &PathBuf::from(format!("/proc/{pid}")),
                            e.into(),
                        ));
                    }
                }
            }
        }
        if killed.len() == before {
            return Ok(());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::BlockDevice;
    use super::*;
    use std::fs;

    #[test]
    fn a_weight_is_proportional_and_within_the_kernels_range() {
        assert_eq!(weight(1_000), 100);
        assert_eq!(weight(250), 25);
        assert_eq!(weight(1), 1);
        assert_eq!(weight(u64::MAX), 10_000);
    }

    /// A folder with the files that the kernel would have put there.
    fn fixture(files: &[&str]) -> (tempfile::TempDir, V2) {
        let dir = tempfile::tempdir().expect("a folder");
        for file in files {
            fs::write(dir.path().join(file), "").expect("a file");
        }
        let controllers = [
            Controller::Cpu,
            Controller::Memory,
            Controller::Io,
            Controller::Pids,
        ]
        .into();
        let v2 = V2 {
            dir: dir.path().to_owned(),
            controllers,
        };
        (dir, v2)
    }

    #[test]
    fn every_limit_reaches_its_file() {
        let names = [
            "cpu.weight",
            "cpu.max",
            "memory.max",
            "memory.swap.max",
            "memory.oom.group",
            "pids.max",
            "io.max",
        ];
        let (dir, v2) = fixture(&names);
        let device = BlockDevice { major: 8, minor: 0 };
        let limits = Limits {
            cpu_milli: 1_500,
            cpu_limit_milli: Some(2_000),
            mem_bytes: Some(64 << 20),
            pids: Some(32),
            disk: Some(DiskLimits {
                device,
                read_bytes_per_sec: Some(1_000),
                write_bytes_per_sec: None,
            }),
            network_bytes_per_s: None,
            revocable: false,
        };
        v2.apply(&limits, None).expect("applied");
        let read = |name: &str| fs::read_to_string(dir.path().join(name)).expect("a file");
        assert_eq!(read("cpu.weight"), "150");
        assert_eq!(read("cpu.max"), "200000 100000");
        assert_eq!(read("memory.max"), "67108864");
        assert_eq!(read("memory.swap.max"), "0");
        assert_eq!(read("memory.oom.group"), "1");
        assert_eq!(read("pids.max"), "32");
        assert_eq!(read("io.max"), "8:0 rbps=1000 wbps=max");
        for name in names {
            fs::write(dir.path().join(name), "").expect("a file");
        }
        let lifted = Limits {
            cpu_milli: 1_500,
            ..Limits::default()
        };
        v2.apply(&lifted, Some(&limits)).expect("applied");
        assert_eq!(read("cpu.weight"), "", "what is the same is not written");
        assert_eq!(read("cpu.max"), "max 100000");
        assert_eq!(
            (read("memory.max"), read("pids.max")),
            ("max".into(), "max".into())
        );
        assert_eq!(read("io.max"), "8:0 rbps=max wbps=max");
    }

    #[test]
    fn a_file_that_is_missing_is_an_error() {
        let (_dir, v2) = fixture(&["cpu.weight", "cpu.max"]);
        let limits = Limits {
            mem_bytes: Some(1 << 20),
            ..Limits::default()
        };
        let error = v2.apply(&limits, None).expect_err("no memory.max");
        assert!(error.to_string().contains("memory.max"), "{error}");
    }
}
