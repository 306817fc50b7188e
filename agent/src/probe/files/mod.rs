//! What files of the kernel tell of a container and of the machine: the memory figures, the fallback for all that the
//! probes do not tell, and the yardstick for the probes' parity.
//!
//! A file that is absent, or whose content is not understood, makes its figure `None` and never 0. Everything is
//! absolute and in bytes and nanoseconds, whatever the kernel's unit.
//!
//! **What stands.** A full reading of a container is a dozen files, and most containers of most machines do nothing.
//! So the dear files (`memory.stat` and all others of the memory controller but its usage, `cpu.stat`, the pressure)
//! are read again only if the container shows a sign of life since they were read last: its CPU time, its memory usage
//! or its traffic with disks has changed. Else the last reading stands, and it is still the kernel's figure:
//! - Faults, reclaim, throttling and modes of CPU time only move while a task of it runs, which its CPU time shows to
//!   the nanosecond. The signs are read *before* the files: what happens between shows as a sign at the next reading.
//! - Its memory only changes by its tasks or by reclaim of others', which takes pages from it and so changes its usage.
//! - A task that stalls without running (pressure on a disk) has run up to then. A reading stands only if it found
//!   nothing moved itself, so that a stall that was seen to grow is followed to its end.
//! - What is left are changes that nobody in the container makes: its limit set anew, pages that move between lists.
//!   These show after [`READINGS_THAT_STAND`] readings at the latest.
//!
//! Traffic with disks is read every time: writeback for a container goes on without it.
//!
//! **Price** of one read, measured on the host (6.18, v1 with a v2 tree beside it, one cgroup with one process, optimised
//! build; what a whole reading costs is told by `cargo xtask bench sample`):
//!
//! | file | kept open | opened, read, closed |
//! |---|---|---|
//! | `cpuacct.usage` | 0.8 µs | 7.6 µs |
//! | `cpu.stat` (v1, v2) | 1.1, 1.6 µs | 9.0, 8.7 µs |
//! | `memory.usage_in_bytes`, `memory.failcnt` | 0.8 µs | 7.6 µs |
//! | `memory.oom_control` | 1.1 µs | 8.5 µs |
//! | `memory.stat` | 7.0 µs | 16.8 µs |
//! | `blkio.throttle.io_service_bytes_recursive` | 0.9 µs | 8.0 µs |
//! | each pressure file | 1.8 µs | 9.6 µs |
//!
//! A full reading beside the probes takes 23 µs of a busy container and, on average, 2.8 µs of one that rests (0.8 µs
//! and each eleventh time all of it): 100 resting containers cost 0.03 % of a core.

pub(super) mod kept;

mod cpu;
mod disk;
mod host;
mod memory;
mod pressure;

#[cfg(test)]
mod fuzz;
#[cfg(test)]
mod testing;

use std::path::PathBuf;

use self::cpu::CpuFiles;
use self::disk::DiskFiles;
pub use self::host::HostFiles;
use self::memory::MemoryFiles;
use self::pressure::PressureFiles;
use super::figures::{
    ContainerCounters, CpuSplit, Detail, DeviceCounters, Faults, Figure, Memory, Pressure,
    Throttling, disk_totals,
};

/// So many full readings in a row may show the dear figures as they were read before.
pub const READINGS_THAT_STAND: u32 = 10;

/// The cgroups of one container, one in each hierarchy in which it has one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CgroupPaths {
    /// Its folder in the v2 tree. The probes know it by this.
    pub v2: Option<PathBuf>,
    /// Its folder in the v1 hierarchy of `cpu`.
    pub cpu: Option<PathBuf>,
    /// Its folder in the v1 hierarchy of `cpuacct`.
    pub cpuacct: Option<PathBuf>,
    /// Its folder in the v1 hierarchy of `memory`.
    pub memory: Option<PathBuf>,
    /// Its folder in the v1 hierarchy of `blkio`.
    pub blkio: Option<PathBuf>,
}

/// The dear figures.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Reading {
    cpu_split: Option<CpuSplit>,
    throttling: Option<Throttling>,
    memory: Option<Memory>,
    faults: Option<Faults>,
    pressure: Option<Pressure>,
}

/// What shows that a container has done something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Signs {
    on_cpu_ns: u64,
    usage_bytes: Option<u64>,
    disk_bytes: Option<(u64, u64)>,
}

/// The last reading of the dear figures.
#[derive(Clone, Copy, Debug)]
struct Standing {
    signs: Signs,
    reading: Reading,
    /// Whether it found the figures as they were before.
    is_quiet: bool,
    /// Readings that it has stood for.
    age: u32,
}

/// The open files of one container.
#[derive(Debug)]
pub struct ContainerFiles {
    cpu: CpuFiles,
    memory: MemoryFiles,
    disk: DiskFiles,
    pressure: PressureFiles,
    standing: Option<Standing>,
}

impl ContainerFiles {
    /// Opens what there is.
    pub fn open(paths: &CgroupPaths) -> Self {
        Self {
            cpu: CpuFiles::open(paths),
            memory: MemoryFiles::open(paths),
            disk: DiskFiles::open(paths),
            pressure: PressureFiles::of_cgroup(paths.v2.as_deref()),
            standing: None,
        }
    }

    /// Reads what the probes have not told. In a quick reading only the time on the CPUs.
    pub fn fill(&mut self, counters: &mut ContainerCounters, detail: Detail) {
        if counters.on_cpu_ns.is_none() {
            counters.on_cpu_ns = self.on_cpu_ns().map(Figure::files);
        }
        if detail == Detail::Quick {
            return;
        }
        if counters.disk.is_none() {
            counters.disk = self.disk().map(Figure::files);
        }
        let usage_bytes = self.memory.usage_bytes();
        let reading = self.dear(counters, usage_bytes);
        counters.cpu_split = reading.cpu_split;
        counters.throttling = reading.throttling;
        counters.pressure = reading.pressure;
        counters.memory = reading.memory;
        if let (Some(memory), Some(usage_bytes)) = (&mut counters.memory, usage_bytes) {
            memory.usage_bytes = usage_bytes;
        }
        if counters.faults.is_none() {
            counters.faults = reading.faults.map(Figure::files);
        }
        if counters.oom_kills.is_none() {
            let kills = reading.memory.and_then(|memory| memory.oom_kills);
            counters.oom_kills = kills.map(Figure::files);
        }
    }

    /// The dear figures: read, or as they stand.
    fn dear(&mut self, counters: &ContainerCounters, usage_bytes: Option<u64>) -> Reading {
        let disk = counters.disk.as_ref();
        let disk = disk.map(|disk| disk_totals(&disk.value));
        let signs = counters.on_cpu_ns.map(|on_cpu| Signs {
            on_cpu_ns: on_cpu.value,
            usage_bytes,
            disk_bytes: disk.map(|totals| (totals.read_bytes, totals.write_bytes)),
        });
        if let (Some(standing), Some(signs)) = (&mut self.standing, signs)
            && standing.is_quiet
            && standing.signs == signs
            && standing.age < READINGS_THAT_STAND
        {
            standing.age += 1;
            return standing.reading;
        }
        let reading = self.read_dear(usage_bytes);
        let before = self.standing.map(|standing| standing.reading);
        // Without its CPU time nothing tells whether it did something.
        self.standing = signs.map(|signs| Standing {
            signs,
            reading,
            is_quiet: before == Some(reading),
            age: 0,
        });
        reading
    }

    fn read_dear(&self, usage_bytes: Option<u64>) -> Reading {
        let (cpu_split, throttling) = self.cpu.stat();
        let detail = usage_bytes.map(|bytes| self.memory.detail(bytes));
        Reading {
            cpu_split,
            throttling,
            memory: detail.map(|(memory, _)| memory),
            faults: detail.and_then(|(_, faults)| faults),
            pressure: self.pressure.read(),
        }
    }

    /// Time on the CPUs, by the v1 controller or the v2 tree.
    pub fn on_cpu_ns(&mut self) -> Option<u64> {
        self.cpu.on_cpu_ns()
    }

    /// The same by mode.
    pub fn cpu_split(&mut self) -> Option<CpuSplit> {
        self.cpu.stat().0
    }

    /// Time held back by the CPU quota.
    pub fn throttling(&mut self) -> Option<Throttling> {
        self.cpu.stat().1
    }

    /// Memory in use.
    pub fn memory(&mut self) -> Option<Memory> {
        let usage_bytes = self.memory.usage_bytes()?;
        Some(self.memory.detail(usage_bytes).0)
    }

    /// Page faults.
    pub fn faults(&mut self) -> Option<Faults> {
        self.memory.detail(0).1
    }

    /// Traffic with each block device, in the order of the devices.
    pub fn disk(&mut self) -> Option<Vec<DeviceCounters>> {
        self.disk.read()
    }

    /// Time that tasks stood still for want of CPU, memory or disk.
    pub fn pressure(&mut self) -> Option<Pressure> {
        self.pressure.read()
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::testing::{folder, v2};
    use super::*;

    /// A container that rests, in files.
    fn resting() -> tempfile::TempDir {
        folder(&[
            ("cpu.stat", "usage_usec 5\nuser_usec 2\nsystem_usec 3\n"),
            ("memory.current", "1000\n"),
            ("memory.stat", "anon 300\npgfault 9\npgmajfault 1\n"),
            ("memory.events", "oom_kill 1\n"),
            ("io.stat", "8:0 rbytes=1 wbytes=2 rios=3 wios=4\n"),
        ])
    }

    fn full(files: &mut ContainerFiles, from: ContainerCounters) -> ContainerCounters {
        let mut counters = from;
        files.fill(&mut counters, Detail::Full);
        counters
    }

    #[test]
    fn files_fill_in_what_the_probes_have_not_told_and_say_so() {
        let place = resting();
        let mut files = ContainerFiles::open(&v2(&place));
        let counters = full(&mut files, ContainerCounters::default());
        assert_eq!(counters.on_cpu_ns, Some(Figure::files(5_000)));
        let faults = Faults { minor: 8, major: 1 };
        assert_eq!(counters.faults, Some(Figure::files(faults)));
        assert_eq!(counters.oom_kills, Some(Figure::files(1)));
        assert_eq!(counters.disk.unwrap().value.len(), 1);
        assert_eq!(counters.memory.unwrap().anon_bytes, Some(300));
        assert_eq!((counters.throttling, counters.pressure), (None, None));
        let probes = ContainerCounters {
            on_cpu_ns: Some(Figure::ebpf(7)),
            faults: Some(Figure::ebpf(Faults::default())),
            oom_kills: Some(Figure::ebpf(0)),
            disk: Some(Figure::ebpf(Vec::new())),
            ..ContainerCounters::default()
        };
        let counters = full(&mut files, probes.clone());
        assert_eq!(counters.on_cpu_ns, probes.on_cpu_ns);
        assert_eq!(counters.faults, probes.faults);
        assert_eq!(counters.oom_kills, probes.oom_kills);
        assert_eq!(counters.disk, probes.disk);
        let mut quick = ContainerCounters::default();
        files.fill(&mut quick, Detail::Quick);
        let expected = ContainerCounters {
            on_cpu_ns: Some(Figure::files(5_000)),
            ..ContainerCounters::default()
        };
        assert_eq!(quick, expected);
    }

    #[test]
    fn a_container_that_rests_keeps_its_figures_and_every_sign_of_life_reads_them_anew() {
        let place = resting();
        let mut files = ContainerFiles::open(&v2(&place));
        let change = |name: &str, text: &str| fs::write(place.path().join(name), text).unwrap();
        let faults = |files: &mut ContainerFiles| {
            let counters = full(files, ContainerCounters::default());
            counters.faults.unwrap().value.minor
        };
        // Two readings to know that nothing moves.
        assert_eq!((faults(&mut files), faults(&mut files)), (8, 8));
        let signs = [
            ("cpu.stat", "usage_usec 6\nuser_usec 2\nsystem_usec 3\n"),
            ("memory.current", "1001\n"),
            ("io.stat", "8:0 rbytes=1 wbytes=9 rios=3 wios=4\n"),
        ];
        for (at, (name, text)) in (20u64..).zip(signs) {
            change("memory.stat", &format!("pgfault {at}\npgmajfault 0\n"));
            assert_ne!(faults(&mut files), at, "no sign, and the last one stands");
            change(name, text);
            assert_eq!(faults(&mut files), at, "{name}");
            assert_eq!(faults(&mut files), at, "read again: the last one moved");
        }
    }

    #[test]
    fn a_figure_that_moves_without_a_sign_is_seen_in_time_and_then_followed() {
        let place = resting();
        let mut files = ContainerFiles::open(&v2(&place));
        let anon = |files: &mut ContainerFiles| {
            let counters = full(files, ContainerCounters::default());
            counters.memory.unwrap().anon_bytes.unwrap()
        };
        assert_eq!((anon(&mut files), anon(&mut files)), (300, 300));
        fs::write(place.path().join("memory.stat"), "anon 301\n").unwrap();
        for reading in 0..READINGS_THAT_STAND {
            assert_eq!(anon(&mut files), 300, "reading {reading}");
        }
        assert_eq!(anon(&mut files), 301);
        fs::write(place.path().join("memory.stat"), "anon 302\n").unwrap();
        assert_eq!(anon(&mut files), 302, "what moved once is read again");
    }

    #[test]
    fn usage_is_always_as_it_is_now() {
        let place = resting();
        let mut files = ContainerFiles::open(&v2(&place));
        for usage in [1000, 1000, 1000, 12_345] {
            let text = format!("{usage}\n");
            fs::write(place.path().join("memory.current"), text).unwrap();
            let counters = full(&mut files, ContainerCounters::default());
            assert_eq!(counters.memory.unwrap().usage_bytes, usage);
        }
    }

    #[test]
    fn what_is_absent_or_nonsense_is_none_and_not_zero() {
        let place = folder(&[
            ("cpu.stat", "usage_usec lots\nnr_periods\n"),
            ("memory.current", "\n"),
            ("memory.stat", "anon 4\n"),
            ("cpu.pressure", "none\n"),
        ]);
        for paths in [v2(&place), CgroupPaths::default()] {
            let mut files = ContainerFiles::open(&paths);
            let counters = full(&mut files, ContainerCounters::default());
            assert_eq!(counters, ContainerCounters::default());
        }
    }
}
