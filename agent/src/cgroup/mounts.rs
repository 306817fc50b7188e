//! What is mounted: which controllers in v1, which in v2, where. Read once from `/proc/self/mountinfo`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use super::{CgroupError, Controller, files};

/// The shape of a host's cgroups.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hierarchy {
    /// v1 controllers only: no cgroup ids for the probes, freezing and killing process by process.
    V1,
    /// v2 only.
    V2,
    /// v1 controllers, and v2 beside them.
    Hybrid,
}

impl fmt::Display for Hierarchy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V1 => "v1",
            Self::V2 => "v2",
            Self::Hybrid => "hybrid",
        })
    }
}

/// The cgroup mounts of a host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mounts {
    pub(super) v1: BTreeMap<Controller, PathBuf>,
    pub(super) v2: Option<PathBuf>,
    pub(super) v2_controllers: BTreeSet<Controller>,
}

impl Mounts {
    /// Looks at what is mounted.
    pub fn detect() -> Result<Mounts, CgroupError> {
        let path = Path::new("/proc/self/mountinfo");
        let mounts = fs::read(path).map_err(|e| files::error("read", path, e))?;
        // Anybody's mount point may hold bytes that are no text; the cgroups' do not.
        Self::of(&String::from_utf8_lossy(&mounts))
    }

    /// Takes the mounts from the text of a `mountinfo` file, and v2's controllers from where that says v2 is.
    pub fn of(mountinfo: &str) -> Result<Mounts, CgroupError> {
        let mut mounts = Self::parse(mountinfo)?;
        if let Some(v2) = &mounts.v2 {
            let names = files::read(&v2.join("cgroup.controllers"))?;
            mounts.v2_controllers = v2_controllers(&names, &mounts.v1);
        }
        Ok(mounts)
    }

    fn parse(mountinfo: &str) -> Result<Mounts, CgroupError> {
        let mut v1 = BTreeMap::new();
        let mut v2 = None;
        for line in mountinfo.lines() {
            let Some((mount_point, kind, options)) = fields(line) else {
                continue;
            };
            match kind {
                "cgroup2" if v2.is_none() => v2 = Some(mount_point),
                "cgroup" => {
                    for controller in Controller::ALL {
                        if options
                            .split(',')
                            .any(|option| option == controller.v1_name())
                        {
                            v1.entry(controller).or_insert_with(|| mount_point.clone());
                        }
                    }
                }
                _ => {}
            }
        }
        if v1.is_empty() && v2.is_none() {
            return Err(CgroupError::NotMounted);
        }
        if v2.is_some() {
            // v2 freezes every container by itself; one controller less to join at each launch.
            v1.remove(&Controller::Freezer);
        }
        Ok(Mounts {
            v1,
            v2,
            v2_controllers: BTreeSet::new(),
        })
    }

    /// The shape.
    pub fn hierarchy(&self) -> Hierarchy {
        match (self.v1.is_empty(), &self.v2) {
            (true, _) => Hierarchy::V2,
            (false, None) => Hierarchy::V1,
            (false, Some(_)) => Hierarchy::Hybrid,
        }
    }

    /// Where v2 is mounted.
    pub fn v2(&self) -> Option<&Path> {
        self.v2.as_deref()
    }

    /// Where a v1 controller is mounted.
    pub fn v1(&self, controller: Controller) -> Option<&Path> {
        self.v1.get(&controller).map(PathBuf::as_path)
    }

    /// Whether a limit of this controller can be held here.
    pub fn has(&self, controller: Controller) -> bool {
        self.v1.contains_key(&controller) || self.v2_controllers.contains(&controller)
    }

    /// Every directory in which containers stand: one for each distinct mount.
    pub(super) fn all(&self) -> BTreeSet<&Path> {
        self.v1
            .values()
            .map(PathBuf::as_path)
            .chain(self.v2())
            .collect()
    }
}

/// Which of v2's controllers are ours to use: those that v1 does not hold.
fn v2_controllers(names: &str, v1: &BTreeMap<Controller, PathBuf>) -> BTreeSet<Controller> {
    let has = |controller: &Controller| {
        controller
            .v2_name()
            .is_some_and(|name| names.split_whitespace().any(|found| found == name))
    };
    Controller::ALL
        .into_iter()
        .filter(|c| !v1.contains_key(c))
        .filter(has)
        .collect()
}

/// Mount point, type and super options of a line.
fn fields(line: &str) -> Option<(PathBuf, &str, &str)> {
    let (before, after) = line.split_once(" - ")?;
    let mount_point = before.split(' ').nth(4)?;
    let mut after = after.split(' ');
    let kind = after.next()?;
    let options = after.nth(1)?;
    Some((PathBuf::from(unescape(mount_point)), kind, options))
}

/// Undoes the kernel's `\040` for blanks in paths.
fn unescape(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len());
    let bytes = text.as_bytes();
    let mut i = 0;
    while i < bytes.len() {
        let octal = (bytes[i] == b'\\')
            .then(|| text.get(i + 1..i + 4))
            .flatten();
        match octal.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) => {
                out.push(byte);
                i += 4;
            }
            None => {
                out.push(bytes[i]);
                i += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::fuzzing::{any_bytes, timed};

    proptest! {
        #[test]
        fn mounts_of_nonsense_are_none_or_stand_in_the_text(text in any_bytes(HYBRID_SEPARATE)) {
            let text = String::from_utf8_lossy(&text);
            let (mounts, soon) = timed(|| Mounts::parse(&text));
            prop_assert!(soon);
            if let Ok(mounts) = mounts {
                let lines = text.lines().filter(|line| line.contains("cgroup")).count();
                prop_assert!(lines > 0 && mounts.v1.len() <= Controller::ALL.len());
                for at in mounts.v1.values().chain(&mounts.v2) {
                    let at = at.to_str().unwrap();
                    prop_assert!(at.len() <= text.len());
                    prop_assert!(text.contains(at) || text.contains('\\'), "{} is not mounted", at);
                }
            }
        }
    }

    const HYBRID_SEPARATE: &str = "\
23 27 0:22 / /sys rw,relatime - sysfs sysfs rw
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu
33 31 0:30 / /sys/fs/cgroup/cpuacct rw,relatime - cgroup cgroup rw,cpuacct
34 31 0:31 / /sys/fs/cgroup/cpuset rw,relatime - cgroup cgroup rw,cpuset
35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
37 31 0:34 / /sys/fs/cgroup/freezer rw,relatime - cgroup cgroup rw,freezer
38 31 0:35 / /sys/fs/cgroup/blkio rw,relatime - cgroup cgroup rw,blkio
39 31 0:36 / /sys/fs/cgroup/pids rw,relatime - cgroup cgroup rw,pids
40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,name=systemd
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
";
    const V1_COMOUNTED: &str = "\
24 30 0:22 / /sys/fs/cgroup ro,nosuid,nodev,noexec shared:9 - tmpfs tmpfs ro,mode=755
25 24 0:23 / /sys/fs/cgroup/systemd rw,nosuid shared:10 - cgroup cgroup rw,xattr,name=systemd
29 24 0:27 / /sys/fs/cgroup/cpu,cpuacct rw,nosuid shared:14 master:2 - cgroup cgroup rw,cpu,cpuacct
31 24 0:29 / /sys/fs/cgroup/memory rw,nosuid shared:16 - cgroup cgroup rw,memory
32 24 0:30 / /sys/fs/cgroup/free\\040zer rw,nosuid shared:17 - cgroup cgroup rw,freezer
";
    const V2_ONLY: &str = "\
27 23 0:24 / /sys/fs/cgroup rw,nosuid,nodev,noexec,relatime shared:4 - cgroup2 cgroup2 rw,nsdelegate,memory_recursiveprot
";

    #[test]
    fn a_hybrid_host_with_one_mount_for_each_controller() {
        let mounts = Mounts::parse(HYBRID_SEPARATE).expect("mounts");
        assert_eq!(mounts.hierarchy(), Hierarchy::Hybrid);
        assert_eq!(mounts.v2(), Some(Path::new("/sys/fs/cgroup/unified")));
        assert_eq!(
            mounts.v1(Controller::Cpu),
            Some(Path::new("/sys/fs/cgroup/cpu"))
        );
        assert_eq!(
            mounts.v1(Controller::Io),
            Some(Path::new("/sys/fs/cgroup/blkio"))
        );
        assert_eq!(mounts.v1(Controller::Freezer), None, "v2 freezes");
        assert_eq!(mounts.all().len(), 6);
    }

    #[test]
    fn a_v1_host_with_controllers_mounted_together() {
        let mounts = Mounts::parse(V1_COMOUNTED).expect("mounts");
        assert_eq!(mounts.hierarchy(), Hierarchy::V1);
        assert_eq!(mounts.v1(Controller::Cpu), mounts.v1(Controller::Cpuacct));
        assert_eq!(
            mounts.v1(Controller::Freezer),
            Some(Path::new("/sys/fs/cgroup/free zer"))
        );
        assert!(!mounts.has(Controller::Pids));
        assert_eq!(mounts.all().len(), 3, "cpu and cpuacct are one mount");
    }

    #[test]
    fn a_v2_host() {
        let mut mounts = Mounts::parse(V2_ONLY).expect("mounts");
        assert_eq!(mounts.hierarchy(), Hierarchy::V2);
        mounts.v2_controllers =
            v2_controllers("cpuset cpu io memory hugetlb pids rdma\n", &mounts.v1);
        for controller in [
            Controller::Cpu,
            Controller::Memory,
            Controller::Io,
            Controller::Pids,
        ] {
            assert!(mounts.has(controller), "{controller}");
        }
    }

    #[test]
    fn controllers_that_v1_holds_are_not_looked_for_in_v2() {
        let mounts = Mounts::parse(HYBRID_SEPARATE).expect("mounts");
        assert!(v2_controllers("hugetlb cpu", &mounts.v1).is_empty());
    }

    #[test]
    fn a_host_without_cgroups_is_an_error() {
        let text = "23 27 0:22 / /sys rw,relatime - sysfs sysfs rw\nnonsense\n\n";
        assert!(matches!(Mounts::parse(text), Err(CgroupError::NotMounted)));
    }

    #[test]
    fn a_half_escape_stays_as_it_is() {
        assert_eq!(unescape(r"a\04"), r"a\04");
        assert_eq!(unescape(r"a\134b"), r"a\b");
    }
}
