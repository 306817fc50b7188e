//! Pressure (PSI) of a cgroup of the v2 tree, or of the machine.

use std::path::Path;

use super::super::figures::Pressure;
use super::kept::{Kept, read};

const NS_PER_US: u64 = 1000;

#[derive(Debug)]
pub(super) struct PressureFiles {
    cpu: Option<Kept>,
    memory: Option<Kept>,
    io: Option<Kept>,
}

impl PressureFiles {
    /// Those of a cgroup.
    pub(super) fn of_cgroup(folder: Option<&Path>) -> Self {
        Self {
            cpu: Kept::open(folder, "cpu.pressure"),
            memory: Kept::open(folder, "memory.pressure"),
            io: Kept::open(folder, "io.pressure"),
        }
    }

    /// Those of the machine.
    pub(super) fn of_machine(proc: &Path) -> Self {
        let folder = proc.join("pressure");
        Self {
            cpu: Kept::open(Some(&folder), "cpu"),
            memory: Kept::open(Some(&folder), "memory"),
            io: Kept::open(Some(&folder), "io"),
        }
    }

    pub(super) fn read(&self) -> Option<Pressure> {
        let both = |text: &str| stalled(text, "some").zip(stalled(text, "full"));
        let cpu_some_ns = read(self.cpu.as_ref(), |text| stalled(text, "some"))?;
        let (memory_some_ns, memory_full_ns) = read(self.memory.as_ref(), both)?;
        let (io_some_ns, io_full_ns) = read(self.io.as_ref(), both)?;
        Some(Pressure {
            cpu_some_ns,
            memory_some_ns,
            memory_full_ns,
            io_some_ns,
            io_full_ns,
        })
    }
}

/// The `total=` of the `some` or `full` line of a pressure file.
pub(super) fn stalled(text: &str, which: &str) -> Option<u64> {
    let line = text
        .lines()
        .find(|line| line.split(' ').next() == Some(which))?;
    let total = line
        .split(' ')
        .find_map(|word| word.strip_prefix("total="))?;
    total.parse::<u64>().ok()?.checked_mul(NS_PER_US)
}

#[cfg(test)]
mod tests {
    use super::super::testing::folder;
    use super::*;

    #[test]
    fn a_cgroup_and_the_machine_are_read_in_nanoseconds() {
        let cpu = "some avg10=0.00 avg60=0.00 avg300=0.00 total=11\n";
        let memory = "some avg10=0.00 total=12\nfull avg10=0.00 total=13\n";
        let io = "some avg10=0.00 total=14\nfull avg10=0.00 total=15\n";
        let expected = Pressure {
            cpu_some_ns: 11_000,
            memory_some_ns: 12_000,
            memory_full_ns: 13_000,
            io_some_ns: 14_000,
            io_full_ns: 15_000,
        };
        let cgroup = folder(&[
            ("cpu.pressure", cpu),
            ("memory.pressure", memory),
            ("io.pressure", io),
        ]);
        let files = PressureFiles::of_cgroup(Some(cgroup.path()));
        assert_eq!(files.read(), Some(expected));
        let proc = tempfile::tempdir().unwrap();
        std::fs::create_dir(proc.path().join("pressure")).unwrap();
        for (name, text) in [("cpu", cpu), ("memory", memory), ("io", io)] {
            std::fs::write(proc.path().join("pressure").join(name), text).unwrap();
        }
        let files = PressureFiles::of_machine(proc.path());
        assert_eq!(files.read(), Some(expected));
    }

    #[test]
    fn a_file_that_is_missing_or_nonsense_leaves_no_pressure() {
        let cgroup = folder(&[("cpu.pressure", "some avg10=0.00 total=11\n")]);
        assert_eq!(PressureFiles::of_cgroup(Some(cgroup.path())).read(), None);
        assert_eq!(PressureFiles::of_cgroup(None).read(), None);
        assert_eq!(stalled("none\n", "some"), None);
        assert_eq!(stalled("some total=x\n", "some"), None);
    }
}
