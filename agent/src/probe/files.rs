//! What files of the kernel tell of a container and of the machine: the memory and disk figures, the
//! fallback for time where there are no probes, and the yardstick for the probes' parity.
//!
//! Files are opened once and read again with `pread`, which spares a path walk for each figure and
//! each reading. A file that is absent, or whose content is not understood, makes its figure `None`
//! and never 0. Everything is absolute and in bytes and nanoseconds, whatever the kernel's unit.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::figures::{
    ContainerCounters, Detail, Device, DeviceCounters, Figure, HostCounters, Memory, Pressure,
    Throttling,
};

/// A file of figures is not read beyond this; a longer one counts as unreadable.
const FILE_BYTES_MAX: usize = 256 * 1024;

/// `/proc/stat` counts in hundredths of a second on every architecture (`USER_HZ`).
const NS_PER_TICK: u64 = 10_000_000;

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

/// An open file that is read again and again.
#[derive(Debug)]
struct Kept {
    file: File,
    buffer: Vec<u8>,
}

impl Kept {
    fn open(folder: Option<&Path>, name: &str) -> Option<Self> {
        let file = File::open(folder?.join(name)).ok()?;
        Some(Self {
            file,
            buffer: vec![0; 4096],
        })
    }

    fn read(&mut self) -> Option<&str> {
        let mut len = 0;
        loop {
            let got = self
                .file
                .read_at(self.buffer.get_mut(len..)?, len as u64)
                .ok()?;
            if got == 0 {
                return std::str::from_utf8(self.buffer.get(..len)?).ok();
            }
            len += got;
            if len == self.buffer.len() {
                if len >= FILE_BYTES_MAX {
                    return None;
                }
                self.buffer.resize(len * 2, 0);
            }
        }
    }
}

/// Reads a file through its keeper, if it is there.
fn text(kept: &mut Option<Kept>) -> Option<&str> {
    kept.as_mut()?.read()
}

/// The open files of one container.
#[derive(Debug)]
pub struct ContainerFiles {
    cpuacct_usage: Option<Kept>,
    cpu_stat_v1: Option<Kept>,
    cpu_stat_v2: Option<Kept>,
    memory: MemoryFiles,
    disk: DiskFiles,
    pressure: [Option<Kept>; 3],
}

#[derive(Debug)]
enum MemoryFiles {
    V1 {
        usage: Kept,
        stat: Option<Kept>,
        limit: Option<Kept>,
        oom: Option<Kept>,
    },
    V2 {
        current: Kept,
        stat: Option<Kept>,
        max: Option<Kept>,
        events: Option<Kept>,
    },
    None,
}

#[derive(Debug)]
enum DiskFiles {
    V1 {
        bytes: Kept,
        operations: Option<Kept>,
    },
    V2 {
        stat: Kept,
    },
    None,
}

impl ContainerFiles {
    /// Opens what there is.
    pub fn open(paths: &CgroupPaths) -> Self {
        let v2 = paths.v2.as_deref();
        let memory = paths.memory.as_deref();
        let blkio = paths.blkio.as_deref();
        let recursive = |name: &str| {
            Kept::open(blkio, &format!("blkio.throttle.{name}_recursive"))
                .or_else(|| Kept::open(blkio, &format!("blkio.throttle.{name}")))
        };
        Self {
            cpuacct_usage: Kept::open(paths.cpuacct.as_deref(), "cpuacct.usage"),
            cpu_stat_v1: Kept::open(paths.cpu.as_deref(), "cpu.stat"),
            cpu_stat_v2: Kept::open(v2, "cpu.stat"),
            memory: if let Some(usage) = Kept::open(memory, "memory.usage_in_bytes") {
                MemoryFiles::V1 {
                    usage,
                    stat: Kept::open(memory, "memory.stat"),
                    limit: Kept::open(memory, "memory.limit_in_bytes"),
                    oom: Kept::open(memory, "memory.oom_control"),
                }
            } else if let Some(current) = Kept::open(v2, "memory.current") {
                MemoryFiles::V2 {
                    current,
                    stat: Kept::open(v2, "memory.stat"),
                    max: Kept::open(v2, "memory.max"),
                    events: Kept::open(v2, "memory.events"),
                }
            } else {
                MemoryFiles::None
            },
            disk: if let Some(bytes) = recursive("io_service_bytes") {
                DiskFiles::V1 {
                    bytes,
                    operations: recursive("io_serviced"),
                }
            } else if let Some(stat) = Kept::open(v2, "io.stat") {
                DiskFiles::V2 { stat }
            } else {
                DiskFiles::None
            },
            pressure: ["cpu", "memory", "io"]
                .map(|name| Kept::open(v2, &format!("{name}.pressure"))),
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
        counters.throttling = self.throttling();
        counters.memory = self.memory();
        if counters.oom_kills.is_none() {
            let kills = counters.memory.and_then(|memory| memory.oom_kills);
            counters.oom_kills = kills.map(Figure::files);
        }
        if counters.disk.is_none() {
            counters.disk = self.disk().map(Figure::files);
        }
        counters.pressure = self.pressure();
    }

    /// Time on the CPUs, by the v1 controller or the v2 tree.
    pub fn on_cpu_ns(&mut self) -> Option<u64> {
        if let Some(text) = text(&mut self.cpuacct_usage) {
            return number(text);
        }
        field(text(&mut self.cpu_stat_v2)?, "usage_usec")?.checked_mul(1000)
    }

    /// Time held back by the CPU quota.
    pub fn throttling(&mut self) -> Option<Throttling> {
        if let Some(text) = text(&mut self.cpu_stat_v1) {
            return throttling(text, "throttled_time", 1);
        }
        throttling(text(&mut self.cpu_stat_v2)?, "throttled_usec", 1000)
    }

    /// Memory in use.
    pub fn memory(&mut self) -> Option<Memory> {
        match &mut self.memory {
            MemoryFiles::V1 {
                usage,
                stat,
                limit,
                oom,
            } => {
                let mut memory = Memory {
                    usage_bytes: number(usage.read()?)?,
                    limit_bytes: text(limit)
                        .and_then(number)
                        .filter(|&bytes| bytes < V1_UNLIMITED),
                    oom_kills: text(oom).and_then(|text| field(text, "oom_kill")),
                    ..Memory::default()
                };
                memory_stat(&mut memory, text(stat), "total_rss", "total_");
                Some(memory)
            }
            MemoryFiles::V2 {
                current,
                stat,
                max,
                events,
            } => {
                let mut memory = Memory {
                    usage_bytes: number(current.read()?)?,
                    limit_bytes: text(max).and_then(number),
                    oom_kills: text(events).and_then(|text| field(text, "oom_kill")),
                    ..Memory::default()
                };
                memory_stat(&mut memory, text(stat), "anon", "");
                Some(memory)
            }
            MemoryFiles::None => None,
        }
    }

    /// Traffic with each block device.
    pub fn disk(&mut self) -> Option<Vec<DeviceCounters>> {
        match &mut self.disk {
            DiskFiles::V1 { bytes, operations } => {
                let bytes = blkio(bytes.read()?);
                let counts = text(operations).map(blkio);
                Some(join(bytes, counts))
            }
            DiskFiles::V2 { stat } => Some(io_stat(stat.read()?)),
            DiskFiles::None => None,
        }
    }

    /// Time that tasks stood still for want of CPU, memory or disk.
    pub fn pressure(&mut self) -> Option<Pressure> {
        let [cpu, memory, io] = &mut self.pressure;
        Some(Pressure {
            cpu_some_ns: stalled(text(cpu)?, "some")?,
            memory_some_ns: stalled(text(memory)?, "some")?,
            memory_full_ns: stalled(text(memory)?, "full")?,
            io_some_ns: stalled(text(io)?, "some")?,
            io_full_ns: stalled(text(io)?, "full")?,
        })
    }
}

/// A v1 limit at or above this is none: the kernel shows the largest multiple of its page size.
const V1_UNLIMITED: u64 = 1 << 62;

/// The machine's own files.
#[derive(Debug)]
pub struct HostFiles {
    stat: Option<Kept>,
    meminfo: Option<Kept>,
}

impl HostFiles {
    /// Opens them.
    pub fn open() -> Self {
        let proc = Path::new("/proc");
        Self {
            stat: Kept::open(Some(proc), "stat"),
            meminfo: Kept::open(Some(proc), "meminfo"),
        }
    }

    /// The machine's counters.
    pub fn read(&mut self) -> HostCounters {
        let mut host = HostCounters::default();
        if let Some((busy_ns, idle_ns, steal_ns, cpus)) = text(&mut self.stat).and_then(proc_stat) {
            host.busy_ns = Some(busy_ns);
            host.idle_ns = Some(idle_ns);
            host.steal_ns = Some(steal_ns);
            host.cpus = Some(cpus);
        }
        if let Some(text) = text(&mut self.meminfo) {
            let bytes = |name| field(text, name).and_then(|kib| kib.checked_mul(1024));
            host.mem_total_bytes = bytes("MemTotal:");
            host.mem_available_bytes = bytes("MemAvailable:");
            host.mem_free_bytes = bytes("MemFree:");
        }
        host
    }
}

/// A file of a single number.
fn number(text: &str) -> Option<u64> {
    text.trim().parse().ok()
}

/// The number after a name, in a file of `NAME NUMBER` lines.
fn field(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| {
        let mut words = line.split_ascii_whitespace();
        if words.next()? != name {
            return None;
        }
        words.next()?.parse().ok()
    })
}

fn throttling(text: &str, time: &str, unit_ns: u64) -> Option<Throttling> {
    Some(Throttling {
        periods: field(text, "nr_periods")?,
        throttled_periods: field(text, "nr_throttled")?,
        throttled_ns: field(text, time)?.checked_mul(unit_ns)?,
    })
}

fn memory_stat(memory: &mut Memory, text: Option<&str>, anonymous: &str, prefix: &str) {
    let Some(text) = text else {
        return;
    };
    for line in text.lines() {
        let Some((name, value)) = line.split_once(' ') else {
            continue;
        };
        let value = value.trim().parse().ok();
        if name == anonymous {
            memory.anon_bytes = value;
        } else {
            match name.strip_prefix(prefix) {
                Some("inactive_file") => memory.inactive_file_bytes = value,
                _ => {}
            }
        }
    }
}

type ReadWrite = BTreeMap<Device, (u64, u64)>;

/// Read and written of each device, from `8:0 Read 4096` lines.
fn blkio(text: &str) -> ReadWrite {
    let mut devices = ReadWrite::new();
    for line in text.lines() {
        let mut words = line.split_ascii_whitespace();
        let (Some(device), Some(kind), Some(value)) = (words.next(), words.next(), words.next())
        else {
            continue;
        };
        let (Some(device), Ok(value)) = (device_of(device), value.parse::<u64>()) else {
            continue;
        };
        let sums = devices.entry(device).or_default();
        match kind {
            "Read" => sums.0 = value,
            "Write" => sums.1 = value,
            _ => {}
        }
    }
    devices
}

fn join(bytes: ReadWrite, counts: Option<ReadWrite>) -> Vec<DeviceCounters> {
    let one = |(device, (read_bytes, write_bytes))| {
        let counts = counts.as_ref().and_then(|counts| counts.get(&device));
        DeviceCounters {
            device,
            read_bytes,
            write_bytes,
            read_count: counts.map(|counts| counts.0),
            write_count: counts.map(|counts| counts.1),
            latency: None,
        }
    };
    bytes.into_iter().map(one).collect()
}

fn device_of(text: &str) -> Option<Device> {
    let (major, minor) = text.split_once(':')?;
    Some(Device {
        major: major.parse().ok()?,
        minor: minor.parse().ok()?,
    })
}

/// Each device of `8:0 rbytes=1 wbytes=2 rios=3 wios=4` lines.
fn io_stat(text: &str) -> Vec<DeviceCounters> {
    let one = |line: &str| {
        let mut words = line.split_ascii_whitespace();
        let device = device_of(words.next()?)?;
        let fields: BTreeMap<_, _> = words.filter_map(|word| word.split_once('=')).collect();
        let field = |name| fields.get(name)?.parse::<u64>().ok();
        Some(DeviceCounters {
            device,
            read_bytes: field("rbytes")?,
            write_bytes: field("wbytes")?,
            read_count: field("rios"),
            write_count: field("wios"),
            latency: None,
        })
    };
    text.lines().filter_map(one).collect()
}

/// The `total=` of the `some` or `full` line of a pressure file.
fn stalled(text: &str, which: &str) -> Option<u64> {
    let line = text
        .lines()
        .find(|line| line.split(' ').next() == Some(which))?;
    let total = line
        .split(' ')
        .find_map(|word| word.strip_prefix("total="))?;
    total.parse::<u64>().ok()?.checked_mul(1000)
}

/// Busy, idle and stolen time and the number of CPUs.
fn proc_stat(text: &str) -> Option<(u64, u64, u64, u32)> {
    let line = text.lines().find_map(|line| line.strip_prefix("cpu "))?;
    let ticks: Vec<u64> = line
        .split_ascii_whitespace()
        .map_while(|word| word.parse().ok())
        .collect();
    let [user, nice, system, idle, iowait, irq, softirq, steal, ..] = ticks[..] else {
        return None;
    };
    let cpus = text
        .lines()
        .filter(|line| {
            line.strip_prefix("cpu")
                .is_some_and(|rest| !rest.starts_with(' '))
        })
        .count();
    let busy = user + nice + system + irq + softirq;
    Some((
        busy.checked_mul(NS_PER_TICK)?,
        (idle + iowait).checked_mul(NS_PER_TICK)?,
        steal.checked_mul(NS_PER_TICK)?,
        u32::try_from(cpus).ok()?,
    ))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::super::figures::disk_totals;
    use super::*;

    fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (name, content) in files {
            fs::write(folder.path().join(name), content).unwrap();
        }
        folder
    }

    #[test]
    fn a_v2_cgroup_is_read_in_nanoseconds_and_bytes() {
        let folder = folder(&[
            (
                "cpu.stat",
                "usage_usec 1500\nuser_usec 1\nnr_periods 7\nnr_throttled 3\nthrottled_usec 9\n",
            ),
            ("memory.current", "1000\n"),
            (
                "memory.stat",
                "anon 300\nfile 600\ninactive_file 400\npgmajfault 5\n",
            ),
            ("memory.max", "max\n"),
            ("memory.events", "low 0\noom 2\noom_kill 1\n"),
            (
                "io.stat",
                "8:0 rbytes=10 wbytes=20 rios=1 wios=2 dbytes=9 dios=9\n8:16 rbytes=1 wbytes=2 rios=3 wios=4\n",
            ),
            (
                "cpu.pressure",
                "some avg10=0.00 avg60=0.00 avg300=0.00 total=11\n",
            ),
            (
                "memory.pressure",
                "some avg10=0.00 total=12\nfull avg10=0.00 total=13\n",
            ),
            (
                "io.pressure",
                "some avg10=0.00 total=14\nfull avg10=0.00 total=15\n",
            ),
        ]);
        let paths = CgroupPaths {
            v2: Some(folder.path().to_owned()),
            ..CgroupPaths::default()
        };
        let mut files = ContainerFiles::open(&paths);
        assert_eq!(files.on_cpu_ns(), Some(1_500_000));
        assert_eq!(
            files.throttling(),
            Some(Throttling {
                periods: 7,
                throttled_periods: 3,
                throttled_ns: 9000
            })
        );
        let memory = files.memory().unwrap();
        assert_eq!(memory.working_set_bytes(), 600);
        assert_eq!(memory.limit_bytes, None);
        assert_eq!(memory.anon_bytes, Some(300));
        assert_eq!(memory.oom_kills, Some(1));
        let totals = disk_totals(&files.disk().unwrap());
        assert_eq!((totals.read_bytes, totals.write_bytes), (11, 22));
        assert_eq!((totals.read_count, totals.write_count), (Some(4), Some(6)));
        let pressure = files.pressure().unwrap();
        assert_eq!(
            (
                pressure.cpu_some_ns,
                pressure.memory_full_ns,
                pressure.io_some_ns
            ),
            (11_000, 13_000, 14_000)
        );
        // The same open files show what has changed since.
        fs::write(folder.path().join("memory.current"), "12345\n").unwrap();
        assert_eq!(files.memory().unwrap().usage_bytes, 12345);
    }

    #[test]
    fn a_v1_container_is_read_from_its_own_hierarchies() {
        let folder = folder(&[
            ("cpuacct.usage", "77\n"),
            (
                "cpu.stat",
                "nr_periods 1\nnr_throttled 1\nthrottled_time 5\n",
            ),
            ("memory.usage_in_bytes", "900\n"),
            ("memory.limit_in_bytes", "9223372036854771712\n"),
            (
                "memory.stat",
                "rss 1\ninactive_file 1\ntotal_rss 10\ntotal_inactive_file 100\ntotal_pgmajfault 2\n",
            ),
            (
                "memory.oom_control",
                "oom_kill_disable 0\nunder_oom 0\noom_kill 4\n",
            ),
            (
                "blkio.throttle.io_service_bytes_recursive",
                "8:0 Read 5\n8:0 Write 6\n8:0 Sync 11\n8:0 Total 11\nTotal 11\n",
            ),
        ]);
        let path = Some(folder.path().to_owned());
        let paths = CgroupPaths {
            v2: None,
            cpu: path.clone(),
            cpuacct: path.clone(),
            memory: path.clone(),
            blkio: path,
        };
        let mut files = ContainerFiles::open(&paths);
        assert_eq!(files.on_cpu_ns(), Some(77));
        assert_eq!(files.throttling().unwrap().throttled_ns, 5);
        let memory = files.memory().unwrap();
        assert_eq!(memory.working_set_bytes(), 800);
        assert_eq!(memory.limit_bytes, None);
        assert_eq!(memory.anon_bytes, Some(10));
        assert_eq!(memory.oom_kills, Some(4));
        let disk = disk_totals(&files.disk().unwrap());
        assert_eq!(
            (disk.read_bytes, disk.write_bytes, disk.read_count),
            (5, 6, None)
        );
        assert_eq!(files.pressure(), None);
    }

    #[test]
    fn what_is_absent_or_nonsense_is_none_and_not_zero() {
        let folder = folder(&[
            ("cpu.stat", "usage_usec lots\nnr_periods\n"),
            ("memory.current", "\n"),
            ("cpu.pressure", "none\n"),
        ]);
        let paths = CgroupPaths {
            v2: Some(folder.path().to_owned()),
            ..CgroupPaths::default()
        };
        let mut files = ContainerFiles::open(&paths);
        assert_eq!(files.on_cpu_ns(), None);
        assert_eq!(files.throttling(), None);
        assert_eq!(files.memory(), None);
        assert_eq!(files.disk(), None);
        assert_eq!(files.pressure(), None);
        let mut nothing = ContainerFiles::open(&CgroupPaths::default());
        assert_eq!(nothing.on_cpu_ns(), None);
        assert_eq!(nothing.memory(), None);
    }

    #[test]
    fn a_file_longer_than_the_buffer_is_read_whole_and_one_without_end_is_given_up() {
        let long = format!("{}last 7\n", "filler 1\n".repeat(2000));
        let endless = "x".repeat(FILE_BYTES_MAX + 1);
        let folder = folder(&[("long", &long), ("endless", &endless)]);
        let mut kept = Kept::open(Some(folder.path()), "long");
        assert_eq!(
            text(&mut kept).and_then(|text| field(text, "last")),
            Some(7)
        );
        let mut kept = Kept::open(Some(folder.path()), "endless");
        assert_eq!(text(&mut kept), None);
    }

    #[test]
    fn the_machine_is_read_with_iowait_as_idle_and_steal_apart() {
        let text = "cpu  1 2 3 4 5 6 7 8 0 0\ncpu0 1 2 3 4 5 6 7 8 0 0\ncpu1 0 0 0 0 0 0 0 0 0 0\nintr 5\n";
        assert_eq!(
            proc_stat(text),
            Some((19 * NS_PER_TICK, 9 * NS_PER_TICK, 8 * NS_PER_TICK, 2))
        );
        assert_eq!(proc_stat("cpu 1 2\n"), None);
        let host = HostFiles::open().read();
        assert!(host.cpus.unwrap() >= 1);
        assert!(host.mem_available_bytes.unwrap() <= host.mem_total_bytes.unwrap());
    }
}
