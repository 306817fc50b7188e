//! One container in the v1 controllers. Where v2 is mounted too, [`super::hybrid`] leaves freezing, killing and waiting
//! to v2; alone, v1 freezes by its `freezer` controller and kills process by process.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use super::v2::kill_each;
use super::{
    CPU_PERIOD_US, CgroupError, ContainerPaths, Control, Controller, DiskLimits, Limits, files,
    no_memory_to_keep, quota_us,
};

/// The shares of one CPU: the kernel's default.
pub(super) const SHARES_OF_A_CPU: u64 = 1_024;
/// The range of `cpu.shares`.
const SHARES_RANGE: (u64, u64) = (2, 262_144);
/// The pause between looks at `freezer.state`, which v1 gives no event for.
const FREEZER_PAUSE: Duration = Duration::from_millis(2);

/// One container's directory in each v1 controller.
#[derive(Debug)]
pub(super) struct V1 {
    pub(super) dirs: BTreeMap<Controller, PathBuf>,
}

/// `cpu.shares` for so much CPU.
pub(super) fn shares(cpu_milli: u64) -> u64 {
    (cpu_milli.saturating_mul(SHARES_OF_A_CPU) / 1_000).clamp(SHARES_RANGE.0, SHARES_RANGE.1)
}

impl V1 {
    fn dir(&self, controller: Controller) -> Option<&Path> {
        self.dirs.get(&controller).map(PathBuf::as_path)
    }

    /// The directories, each once: controllers may be mounted together.
    fn distinct(&self) -> BTreeSet<&Path> {
        self.dirs.values().map(PathBuf::as_path).collect()
    }

    /// The directory that lists the container's processes.
    fn any_dir(&self) -> Option<&Path> {
        self.dirs.values().next().map(PathBuf::as_path)
    }

    fn freezer(&self) -> Result<PathBuf, CgroupError> {
        let none = CgroupError::NoController {
            controller: Controller::Freezer,
            asked: "freezing",
        };
        self.dir(Controller::Freezer)
            .map(|dir| dir.join("freezer.state"))
            .ok_or(none)
    }

    /// One that is a live process, opened so that its end can be waited for.
    fn open_live(&self) -> Result<Option<std::os::fd::OwnedFd>, CgroupError> {
        for pid in self.procs()? {
            let Some(target) = Pid::from_raw(pid as i32) else {
                continue;
            };
            match pidfd_open(target, PidfdFlags::empty()) {
                Ok(pidfd) => {
                    let mut fds = [PollFd::from_borrowed_fd(pidfd.as_fd(), PollFlags::IN)];
                    if poll(&mut fds, Some(&files::timespec(Duration::ZERO))) == Ok(0) {
                        return Ok(Some(pidfd));
                    }
                }
                Err(rustix::io::Errno::SRCH) => {}
                Err(e) => {
                    return Err(files::error(
                        "watch",
                        Path::new(&format!("/proc/{pid}")),
                        e.into(),
                    ));
                }
            }
        }
        Ok(None)
    }
}

/// Memory, and memory with swap: without the second a task at its limit would push itself to the disk and be slow
/// instead of killed. The kernel refuses a moment in which the second is the lesser one.
fn apply_memory(dir: &Path, bytes: Option<u64>, before: Option<u64>) -> Result<(), CgroupError> {
    let text = bytes.map_or_else(|| "-1".to_owned(), |bytes| bytes.to_string());
    let limit = || files::write(&dir.join("memory.limit_in_bytes"), &text);
    let with_swap =
        || files::write_if_present(&dir.join("memory.memsw.limit_in_bytes"), &text).map(drop);
    if bytes.unwrap_or(u64::MAX) < before.unwrap_or(u64::MAX) {
        limit().and_then(|()| with_swap())
    } else {
        with_swap().and_then(|()| limit())
    }
}

/// Writes a device's limits; 0 lifts one.
fn apply_disk(dir: &Path, disk: &DiskLimits, lift: bool) -> Result<(), CgroupError> {
    let limits = [
        ("read", disk.read_bytes_per_sec),
        ("write", disk.write_bytes_per_sec),
    ];
    for (direction, limit) in limits {
        if let Some(bytes) = limit {
            let file = dir.join(format!("blkio.throttle.{direction}_bps_device"));
            let bytes = if lift { 0 } else { bytes };
            files::write(&file, &format!("{} {bytes}", disk.device))?;
        }
    }
    Ok(())
}

impl Control for V1 {
    fn make(&self) -> Result<(), CgroupError> {
        self.distinct()
            .into_iter()
            .try_for_each(|dir| files::make_dir(dir).map(drop))
    }

    fn apply(&self, limits: &Limits, before: Option<&Limits>) -> Result<(), CgroupError> {
        let none = Limits::default();
        let old = before.unwrap_or(&none);
        if let Some(dir) = self.dir(Controller::Cpu) {
            if before.is_none() || limits.cpu_milli != old.cpu_milli {
                files::write(
                    &dir.join("cpu.shares"),
                    &shares(limits.cpu_milli).to_string(),
                )?;
            }
            if limits.cpu_limit_milli != old.cpu_limit_milli {
                self.set_cpu_quota(limits.cpu_limit_milli)?;
            }
        }
        if let (Some(dir), true) = (
            self.dir(Controller::Memory),
            limits.mem_bytes != old.mem_bytes,
        ) {
            apply_memory(dir, limits.mem_bytes, old.mem_bytes)?;
        }
        if let (Some(dir), true) = (self.dir(Controller::Pids), limits.pids != old.pids) {
            let text = limits
                .pids
                .map_or_else(|| "max".to_owned(), |pids| pids.to_string());
            files::write(&dir.join("pids.max"), &text)?;
        }
        match self.dir(Controller::Io) {
            Some(dir) if limits.disk != old.disk => {
                old.disk
                    .iter()
                    .try_for_each(|disk| apply_disk(dir, disk, true))?;
                limits
                    .disk
                    .iter()
                    .try_for_each(|disk| apply_disk(dir, disk, false))
            }
            _ => Ok(()),
        }
    }

    fn set_cpu_quota(&self, cpu_milli: Option<u64>) -> Result<(), CgroupError> {
        let Some(dir) = self.dir(Controller::Cpu) else {
            return match cpu_milli {
                None => Ok(()),
                Some(_) => Err(CgroupError::NoController {
                    controller: Controller::Cpu,
                    asked: "a CPU quota",
                }),
            };
        };
        files::write(&dir.join("cpu.cfs_period_us"), &CPU_PERIOD_US.to_string())?;
        let quota = cpu_milli.map_or_else(|| "-1".to_owned(), |milli| quota_us(milli).to_string());
        files::write(&dir.join("cpu.cfs_quota_us"), &quota)
    }

    fn set_memory_kept(&self, bytes: Option<u64>) -> Result<(), CgroupError> {
        let Some(dir) = self.dir(Controller::Memory) else {
            return no_memory_to_keep(bytes);
        };
        let text = bytes.map_or_else(|| "-1".to_owned(), |bytes| bytes.to_string());
        files::write(&dir.join("memory.soft_limit_in_bytes"), &text)
    }

    fn set_frozen(&self, frozen: bool) -> Result<(), CgroupError> {
        files::write(&self.freezer()?, if frozen { "FROZEN" } else { "THAWED" })
    }

    fn wait_frozen(&self, frozen: bool, timeout: Duration) -> Result<bool, CgroupError> {
        let (path, wanted) = (self.freezer()?, if frozen { "FROZEN" } else { "THAWED" });
        let deadline = Instant::now() + timeout;
        while files::read(&path)?.trim() != wanted {
            if Instant::now() >= deadline {
                return Ok(false);
            }
            std::thread::sleep(FREEZER_PAUSE);
        }
        Ok(true)
    }

    fn kill_all(&self) -> Result<(), CgroupError> {
        kill_each(|| self.procs())?;
        // A frozen v1 process dies only when it is thawed.
        match self.freezer() {
            Ok(path) if path.exists() => self.set_frozen(false),
            _ => Ok(()),
        }
    }

    fn procs(&self) -> Result<Vec<u32>, CgroupError> {
        self.any_dir().map_or_else(|| Ok(Vec::new()), files::procs)
    }

    fn is_populated(&self) -> Result<bool, CgroupError> {
        self.open_live().map(|live| live.is_some())
    }

    fn wait_empty(&self, timeout: Duration) -> Result<bool, CgroupError> {
        let deadline = Instant::now() + timeout;
        while let Some(pidfd) = self.open_live()? {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(false);
            }
            let mut fds = [PollFd::from_borrowed_fd(pidfd.as_fd(), PollFlags::IN)];
            match poll(&mut fds, Some(&files::timespec(left))) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(e) => return Err(files::error("wait on", Path::new("a process"), e.into())),
            }
        }
        Ok(true)
    }

    fn v2_dir(&self) -> Option<&Path> {
        None
    }

    fn paths(&self) -> ContainerPaths {
        ContainerPaths {
            v1: self.dirs.clone(),
            ..ContainerPaths::default()
        }
    }

    fn remove(&self) -> Result<(), CgroupError> {
        // Every controller is tried, so that one that is stuck leaves no other behind.
        let results: Vec<_> = self
            .distinct()
            .into_iter()
            .map(files::remove_tree)
            .collect();
        results.into_iter().collect()
    }
}

/// Gives a directory of the v1 `cpu` controller the lowest claim: `cpu.idle` (kernel 5.15), else the fewest shares.
pub(super) fn make_idle(dir: &Path) -> Result<(), CgroupError> {
    if files::write_if_present(&dir.join("cpu.idle"), "1")? {
        return Ok(());
    }
    files::write(&dir.join("cpu.shares"), &SHARES_RANGE.0.to_string())
}

/// Gives a directory of `blkio` the lowest weight, where the I/O scheduler has weights at all; whether it has.
pub(super) fn make_io_lowest(dir: &Path) -> Result<bool, CgroupError> {
    for (file, lowest) in [("blkio.bfq.weight", "1"), ("blkio.weight", "10")] {
        if fs::exists(dir.join(file)).unwrap_or(false) {
            return files::write_if_present(&dir.join(file), lowest);
        }
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::super::BlockDevice;
    use super::*;

    #[test]
    fn shares_are_proportional_and_within_the_kernels_range() {
        assert_eq!(shares(1_000), 1_024);
        assert_eq!(shares(250), 256);
        assert_eq!(shares(0), 2);
        assert_eq!(shares(u64::MAX), 262_144);
    }

    #[test]
    fn every_limit_reaches_its_file() {
        let dir = tempfile::tempdir().expect("a folder");
        let names = [
            "cpu.shares",
            "cpu.cfs_period_us",
            "cpu.cfs_quota_us",
            "memory.limit_in_bytes",
            "pids.max",
        ];
        let disk_names = [
            "blkio.throttle.read_bps_device",
            "blkio.throttle.write_bps_device",
        ];
        for name in names.iter().chain(&disk_names) {
            fs::write(dir.path().join(name), "").expect("a file");
        }
        let dirs = Controller::ALL
            .into_iter()
            .map(|c| (c, dir.path().to_owned()))
            .collect();
        let device = BlockDevice {
            major: 254,
            minor: 0,
        };
        let limits = Limits {
            cpu_milli: 500,
            cpu_limit_milli: Some(750),
            mem_bytes: Some(1 << 20),
            pids: Some(7),
            disk: Some(DiskLimits {
                device,
                read_bytes_per_sec: Some(5),
                write_bytes_per_sec: Some(6),
            }),
            network_bytes_per_s: None,
            revocable: false,
        };
        let v1 = V1 { dirs };
        v1.apply(&limits, None).expect("applied");
        let read = |name: &str| fs::read_to_string(dir.path().join(name)).expect("a file");
        assert_eq!(read("cpu.shares"), "512");
        assert_eq!(read("cpu.cfs_quota_us"), "75000");
        assert_eq!(read("cpu.cfs_period_us"), "100000");
        assert_eq!(read("memory.limit_in_bytes"), "1048576");
        assert_eq!(read("pids.max"), "7");
        assert_eq!(read("blkio.throttle.read_bps_device"), "254:0 5");
        assert_eq!(read("blkio.throttle.write_bps_device"), "254:0 6");
        let lifted = Limits {
            cpu_milli: 500,
            ..Limits::default()
        };
        for name in names.iter().chain(&disk_names) {
            fs::write(dir.path().join(name), "").expect("a file");
        }
        v1.apply(&lifted, Some(&limits)).expect("applied");
        assert_eq!(read("cpu.shares"), "", "what is the same is not written");
        assert_eq!(read("cpu.cfs_quota_us"), "-1");
        assert_eq!(read("memory.limit_in_bytes"), "-1");
        assert_eq!(read("pids.max"), "max");
        assert_eq!(read("blkio.throttle.write_bps_device"), "254:0 0");
    }

    #[test]
    fn without_cpu_idle_the_fewest_shares_are_given() {
        let dir = tempfile::tempdir().expect("a folder");
        fs::write(dir.path().join("cpu.shares"), "").expect("a file");
        make_idle(dir.path()).expect("done");
        assert_eq!(
            fs::read_to_string(dir.path().join("cpu.shares")).expect("a file"),
            "2"
        );
        fs::write(dir.path().join("cpu.idle"), "").expect("a file");
        make_idle(dir.path()).expect("done");
        assert_eq!(
            fs::read_to_string(dir.path().join("cpu.idle")).expect("a file"),
            "1"
        );
    }
}
