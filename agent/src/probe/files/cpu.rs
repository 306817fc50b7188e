//! Time on the CPUs and time held back, from `cpuacct`, the v1 `cpu` controller and the v2 tree's `cpu.stat`.
//!
//! The v2 tree tells the time of every cgroup in it, whatever controllers it has, so the split by mode is taken from
//! there first: the kernel scales it to the time that was really used, while v1 counts it by ticks.

use super::super::figures::{CpuSplit, Throttling};
use super::CgroupPaths;
use super::kept::{Kept, field, number, read};

const NS_PER_US: u64 = 1000;

#[derive(Debug)]
pub(super) struct CpuFiles {
    usage_v1: Option<Kept>,
    /// `cpuacct.usage_user` and `cpuacct.usage_sys`; only where the v2 tree does not tell.
    split_v1: Option<(Kept, Kept)>,
    stat_v1: Option<Kept>,
    stat_v2: Option<Kept>,
}

impl CpuFiles {
    pub(super) fn open(paths: &CgroupPaths) -> Self {
        let cpuacct = |name| Kept::open(paths.cpuacct.as_deref(), name);
        let stat_v2 = Kept::open(paths.v2.as_deref(), "cpu.stat");
        let split_v1 = if stat_v2.is_none() {
            cpuacct("cpuacct.usage_user").zip(cpuacct("cpuacct.usage_sys"))
        } else {
            None
        };
        Self {
            usage_v1: cpuacct("cpuacct.usage"),
            split_v1,
            stat_v1: Kept::open(paths.cpu.as_deref(), "cpu.stat"),
            stat_v2,
        }
    }

    /// Time on the CPUs, by the v1 controller or the v2 tree.
    pub(super) fn on_cpu_ns(&self) -> Option<u64> {
        match &self.usage_v1 {
            Some(usage) => usage.read(number),
            None => read(self.stat_v2.as_ref(), usage_v2),
        }
    }

    /// Time by mode, and time held back by the quota.
    pub(super) fn stat(&self) -> (Option<CpuSplit>, Option<Throttling>) {
        let mut split = None;
        let mut throttling = None;
        if let Some(stat) = &self.stat_v2 {
            stat.read(|text| {
                split = split_v2(text);
                throttling = throttling_of(text, "throttled_usec", NS_PER_US);
                Some(())
            });
        }
        if let Some((user, system)) = &self.split_v1 {
            split = user
                .read(number)
                .zip(system.read(number))
                .map(|(user_ns, system_ns)| CpuSplit { user_ns, system_ns });
        }
        if let Some(stat) = &self.stat_v1 {
            throttling = stat.read(|text| throttling_of(text, "throttled_time", 1));
        }
        (split, throttling)
    }
}

pub(super) fn usage_v2(text: &str) -> Option<u64> {
    field(text, "usage_usec")?.checked_mul(NS_PER_US)
}

pub(super) fn split_v2(text: &str) -> Option<CpuSplit> {
    Some(CpuSplit {
        user_ns: field(text, "user_usec")?.checked_mul(NS_PER_US)?,
        system_ns: field(text, "system_usec")?.checked_mul(NS_PER_US)?,
    })
}

pub(super) fn throttling_of(text: &str, time: &str, unit_ns: u64) -> Option<Throttling> {
    Some(Throttling {
        periods: field(text, "nr_periods")?,
        throttled_periods: field(text, "nr_throttled")?,
        throttled_ns: field(text, time)?.checked_mul(unit_ns)?,
    })
}

#[cfg(test)]
mod tests {
    use super::super::testing::{folder, v1, v2};
    use super::*;

    #[test]
    fn the_v2_tree_is_read_in_nanoseconds() {
        let folder = folder(&[(
            "cpu.stat",
            "usage_usec 1500\nuser_usec 1\nsystem_usec 2\nnr_periods 7\nnr_throttled 3\nthrottled_usec 9\n",
        )]);
        let files = CpuFiles::open(&v2(&folder));
        assert_eq!(files.on_cpu_ns(), Some(1_500_000));
        let (split, throttling) = files.stat();
        let expected = CpuSplit {
            user_ns: 1_000,
            system_ns: 2_000,
        };
        assert_eq!(split, Some(expected));
        let expected = Throttling {
            periods: 7,
            throttled_periods: 3,
            throttled_ns: 9_000,
        };
        assert_eq!(throttling, Some(expected));
    }

    #[test]
    fn v1_is_read_from_its_controllers() {
        let folder = folder(&[
            ("cpuacct.usage", "77\n"),
            ("cpuacct.usage_user", "40\n"),
            ("cpuacct.usage_sys", "30\n"),
            (
                "cpu.stat",
                "nr_periods 1\nnr_throttled 1\nthrottled_time 5\n",
            ),
        ]);
        let files = CpuFiles::open(&v1(&folder));
        assert_eq!(files.on_cpu_ns(), Some(77));
        let (split, throttling) = files.stat();
        let expected = CpuSplit {
            user_ns: 40,
            system_ns: 30,
        };
        assert_eq!(split, Some(expected));
        assert_eq!(throttling.unwrap().throttled_ns, 5);
    }

    #[test]
    fn on_a_hybrid_host_v1_tells_time_and_throttling_and_v2_the_split() {
        let old = folder(&[
            ("cpuacct.usage", "77\n"),
            ("cpuacct.usage_user", "40\n"),
            ("cpuacct.usage_sys", "30\n"),
            (
                "cpu.stat",
                "nr_periods 1\nnr_throttled 1\nthrottled_time 5\n",
            ),
        ]);
        let new = folder(&[(
            "cpu.stat",
            "usage_usec 1\nuser_usec 2\nsystem_usec 3\nnr_periods 0\nnr_throttled 0\nthrottled_usec 0\n",
        )]);
        let files = CpuFiles::open(&CgroupPaths {
            v2: Some(new.path().to_owned()),
            ..v1(&old)
        });
        assert_eq!(files.on_cpu_ns(), Some(77));
        let (split, throttling) = files.stat();
        assert_eq!(split.unwrap().system_ns, 3_000);
        assert_eq!(throttling.unwrap().throttled_ns, 5);
    }

    #[test]
    fn nonsense_is_none() {
        let folder = folder(&[("cpu.stat", "usage_usec lots\nuser_usec 1\nnr_periods\n")]);
        let files = CpuFiles::open(&v2(&folder));
        assert_eq!(files.on_cpu_ns(), None);
        assert_eq!(files.stat(), (None, None));
        let none = CpuFiles::open(&CgroupPaths::default());
        assert_eq!((none.on_cpu_ns(), none.stat()), (None, (None, None)));
    }
}
