//! Files of figures that the kernel would never write: nothing panics, nothing is made up, everything ends soon.

use std::fs;

use proptest::prelude::*;
use tempfile::TempDir;

use super::super::figures::HostCounters;
use super::host::{NS_PER_TICK, meminfo, proc_stat};
use super::kept::{FILE_BYTES_MAX, buffer_len};
use super::testing::{v1, v2};
use super::*;
use crate::fuzzing::{Numbers, any_bytes, timed};

const NS_PER_US: u64 = 1000;

const CPU_STAT: &str = "usage_usec 21675478081\nuser_usec 19063195188\nsystem_usec 2612282892\nnice_usec 10259547555\ncore_sched.force_idle_usec 0\nnr_periods 12\nnr_throttled 3\nthrottled_usec 4500\nnr_bursts 0\nburst_usec 0\n";
const CPU_STAT_V1: &str = "nr_periods 12\nnr_throttled 3\nthrottled_time 4500123\nwait_sum 77\n";
const MEMORY_STAT: &str = "anon 13328384\nfile 361439232\nkernel 1187840\nshmem 9084928\ninactive_anon 5484544\nactive_anon 1564672\ninactive_file 247775232\nactive_file 104574976\nworkingset_refault_file 26996157\npgfault 320574704\npgmajfault 159103\npgscan 0\n";
const MEMORY_STAT_V1: &str = "cache 10887168\nrss 7680000\ninactive_file 16384\npgfault 318388\nhierarchical_memory_limit 9223372036854771712\ntotal_cache 361439232\ntotal_rss 13328384\ntotal_rss_huge 0\ntotal_swap 4096\ntotal_pgfault 320574704\ntotal_pgmajfault 159103\ntotal_inactive_file 247775232\n";
const MEMORY_EVENTS: &str = "low 0\nhigh 2\nmax 71\noom 5\noom_kill 4\noom_group_kill 1\n";
const OOM_CONTROL: &str = "oom_kill_disable 0\nunder_oom 1\noom_kill 4\n";
const IO_STAT: &str = "254:0 rbytes=4096 wbytes=12288 rios=1 wios=3 dbytes=0 dios=0\n8:16 rbytes=1 wbytes=2 rios=33 wios=4 dbytes=5 dios=6\n7:0 \n";
const BLKIO: &str = "254:0 Read 4096\n254:0 Write 12288\n254:0 Sync 16384\n254:0 Async 0\n254:0 Discard 0\n254:0 Total 16384\n8:16 Read 9\n8:16 Write 11\nTotal 16404\n";
const PRESSURE: &str = "some avg10=0.59 avg60=0.63 avg300=1.02 total=212824802\nfull avg10=0.58 avg60=0.56 avg300=0.87 total=69201307\n";
const STAT: &str = "cpu  880363 1025954 256982 903093 14614 0 4245 12253 0 0\ncpu0 435712 507428 122416 472592 3879 0 552 5852 0 0\ncpu1 444651 518525 134565 430501 10735 0 3693 6401 0 0\nintr 15289820 0 0 0 1 15\nctxt 99\nbtime 1795332907\nprocesses 30211\n";
const MEMINFO: &str = "MemTotal:       24684084 kB\nMemFree:        21786548 kB\nMemAvailable:   22835628 kB\nBuffers:            2500 kB\nHugePages_Total:       0\n";

fn texts(
    files: &[(&'static str, &'static str)],
) -> impl Strategy<Value = Vec<(&'static str, Vec<u8>)>> {
    let each: Vec<_> = files
        .iter()
        .map(|&(name, real)| any_bytes(real).prop_map(move |text| (name, text)))
        .collect();
    each
}

fn write(files: &[(&'static str, Vec<u8>)]) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in files {
        fs::write(folder.path().join(name), text).unwrap();
    }
    folder
}

/// Reads a container three times: anew, as it stands, and as it stands after an idle second.
fn read(paths: &CgroupPaths) -> (ContainerCounters, bool) {
    let (counters, soon) = timed(|| {
        let mut files = ContainerFiles::open(paths);
        let mut readings = [(); 3].map(|()| {
            let mut counters = ContainerCounters::default();
            files.fill(&mut counters, Detail::Full);
            counters
        });
        assert_eq!(readings[0], readings[1], "the files have not changed");
        assert_eq!(readings[1], readings[2], "the files have not changed");
        std::mem::take(&mut readings[0])
    });
    (counters, soon && buffer_len() <= FILE_BYTES_MAX)
}

/// Whether every figure stands in the file that it is said to come from.
fn check(
    counters: &ContainerCounters,
    files: &[(&'static str, Vec<u8>)],
    cpu_unit: u64,
) -> Result<(), TestCaseError> {
    let of = |name: &str| {
        let found = files.iter().find(|(file, _)| *file == name);
        Numbers::of(found.map_or(b"", |(_, text)| text))
    };
    let is_v1 = files.iter().any(|(name, _)| *name == "cpuacct.usage");
    let file = |old: &'static str, new: &'static str| of(if is_v1 { old } else { new });
    let usage = file("cpuacct.usage", "cpu.stat");
    prop_assert!(usage.hold(counters.on_cpu_ns.map(|figure| figure.value), cpu_unit));
    if let Some(split) = counters.cpu_split {
        prop_assert!(file("cpuacct.usage_user", "cpu.stat").hold(Some(split.user_ns), cpu_unit));
        prop_assert!(file("cpuacct.usage_sys", "cpu.stat").hold(Some(split.system_ns), cpu_unit));
    }
    if let Some(throttling) = counters.throttling {
        let stat = of("cpu.stat");
        prop_assert!(stat.hold(Some(throttling.periods), 1));
        prop_assert!(stat.hold(Some(throttling.throttled_periods), 1));
        prop_assert!(stat.hold(Some(throttling.throttled_ns), cpu_unit));
    }
    let stat = of("memory.stat");
    if let Some(memory) = counters.memory {
        prop_assert!(
            file("memory.usage_in_bytes", "memory.current").hold(Some(memory.usage_bytes), 1)
        );
        prop_assert!(stat.hold(memory.anon_bytes, 1));
        prop_assert!(stat.hold(memory.file_bytes, 1));
        prop_assert!(stat.hold(memory.inactive_file_bytes, 1));
        prop_assert!(file("memory.stat", "memory.swap.current").hold(memory.swap_bytes, 1));
        prop_assert!(file("memory.limit_in_bytes", "memory.max").hold(memory.limit_bytes, 1));
        prop_assert!(file("memory.max_usage_in_bytes", "memory.peak").hold(memory.peak_bytes, 1));
        prop_assert!(file("memory.failcnt", "memory.events").hold(memory.limit_hits, 1));
        prop_assert!(of("memory.events").hold(memory.limit_ooms, 1));
        prop_assert!(file("memory.oom_control", "memory.events").hold(memory.oom_kills, 1));
    }
    if let Some(faults) = counters.faults {
        prop_assert!(stat.hold(Some(faults.value.major), 1));
        prop_assert!(stat.hold_difference(faults.value.minor));
    }
    check_disks(counters, files)?;
    if let Some(pressure) = counters.pressure {
        let cpu = of("cpu.pressure");
        prop_assert!(cpu.hold(Some(pressure.cpu_some_ns), NS_PER_US));
        let memory = of("memory.pressure");
        prop_assert!(memory.hold(Some(pressure.memory_some_ns), NS_PER_US));
        prop_assert!(memory.hold(Some(pressure.memory_full_ns), NS_PER_US));
        let io = of("io.pressure");
        prop_assert!(io.hold(Some(pressure.io_some_ns), NS_PER_US));
        prop_assert!(io.hold(Some(pressure.io_full_ns), NS_PER_US));
    }
    Ok(())
}

fn check_disks(
    counters: &ContainerCounters,
    files: &[(&'static str, Vec<u8>)],
) -> Result<(), TestCaseError> {
    let Some(disk) = &counters.disk else {
        return Ok(());
    };
    let text = |names: [&str; 2]| {
        let found = files.iter().find(|(file, _)| names.contains(file));
        found.map_or(&b""[..], |(_, text)| text)
    };
    let bytes = text(["blkio.throttle.io_service_bytes_recursive", "io.stat"]);
    let counts = Numbers::of(text(["blkio.throttle.io_serviced_recursive", "io.stat"]));
    let numbers = Numbers::of(bytes);
    for one in &disk.value {
        // A v1 device whose other direction has no line has had no traffic in it.
        let zero_or = |value: u64| value == 0 || numbers.hold(Some(value), 1);
        prop_assert!(zero_or(one.read_bytes) && zero_or(one.write_bytes));
        for count in [one.read_count, one.write_count] {
            prop_assert!(count == Some(0) || counts.hold(count, 1));
        }
        prop_assert_eq!(one.latency, None);
    }
    let lines = bytes.split(|byte| *byte == b'\n').count();
    prop_assert!(disk.value.len() <= lines, "no device without a line");
    let ordered = disk
        .value
        .windows(2)
        .all(|pair| pair[0].device < pair[1].device);
    prop_assert!(ordered, "each device once");
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn a_v2_cgroup_of_nonsense(files in texts(&[
        ("cpu.stat", CPU_STAT),
        ("memory.current", "361439232\n"),
        ("memory.stat", MEMORY_STAT),
        ("memory.max", "1073741824\n"),
        ("memory.peak", "461439232\n"),
        ("memory.swap.current", "4096\n"),
        ("memory.events", MEMORY_EVENTS),
        ("io.stat", IO_STAT),
        ("cpu.pressure", PRESSURE),
        ("memory.pressure", PRESSURE),
        ("io.pressure", PRESSURE),
    ])) {
        let folder = write(&files);
        let (counters, soon) = read(&v2(&folder));
        prop_assert!(soon);
        check(&counters, &files, NS_PER_US)?;
    }

    #[test]
    fn a_v1_container_of_nonsense(files in texts(&[
        ("cpuacct.usage", "21675478081123\n"),
        ("cpuacct.usage_user", "19063195188123\n"),
        ("cpuacct.usage_sys", "2612282892123\n"),
        ("cpu.stat", CPU_STAT_V1),
        ("memory.usage_in_bytes", "361439232\n"),
        ("memory.stat", MEMORY_STAT_V1),
        ("memory.limit_in_bytes", "9223372036854771712\n"),
        ("memory.max_usage_in_bytes", "461439232\n"),
        ("memory.failcnt", "17\n"),
        ("memory.oom_control", OOM_CONTROL),
        ("blkio.throttle.io_service_bytes_recursive", BLKIO),
        ("blkio.throttle.io_serviced_recursive", BLKIO),
    ])) {
        let folder = write(&files);
        let (counters, soon) = read(&v1(&folder));
        prop_assert!(soon);
        check(&counters, &files, 1)?;
    }

    #[test]
    fn a_machine_of_nonsense(stat in any_bytes(STAT), mem in any_bytes(MEMINFO)) {
        let (stat, mem) = (String::from_utf8_lossy(&stat), String::from_utf8_lossy(&mem));
        let (times, soon) = timed(|| proc_stat(&stat));
        prop_assert!(soon);
        if let Some(times) = times {
            let line = stat.lines().find_map(|line| line.strip_prefix("cpu ")).unwrap();
            let ticks: Vec<u128> = line.split_ascii_whitespace().map_while(|word| word.parse().ok()).collect();
            let sum = |which: &[usize]| which.iter().map(|&i| ticks[i]).sum::<u128>() * u128::from(NS_PER_TICK);
            prop_assert_eq!(u128::from(times.busy_ns), sum(&[0, 1, 2, 5, 6]));
            prop_assert_eq!(u128::from(times.idle_ns), sum(&[3, 4]));
            prop_assert_eq!(u128::from(times.steal_ns), sum(&[7]));
            prop_assert!(times.cpus as usize <= stat.lines().count());
        }
        let mut host = HostCounters::default();
        let ((), soon) = timed(|| meminfo(&mut host, &mem));
        prop_assert!(soon);
        let numbers = Numbers::of(mem.as_bytes());
        for bytes in [host.mem_total_bytes, host.mem_available_bytes, host.mem_free_bytes] {
            prop_assert!(numbers.hold(bytes, 1024));
        }
    }
}

#[test]
fn texts_that_were_not_spoilt_are_understood_whole() {
    // Else the properties above might hold because nothing is ever read.
    let folder = super::testing::folder(&[
        ("cpu.stat", CPU_STAT),
        ("memory.current", "361439232\n"),
        ("memory.stat", MEMORY_STAT),
        ("memory.max", "1073741824\n"),
        ("memory.peak", "461439232\n"),
        ("memory.swap.current", "4096\n"),
        ("memory.events", MEMORY_EVENTS),
        ("io.stat", IO_STAT),
        ("cpu.pressure", PRESSURE),
        ("memory.pressure", PRESSURE),
        ("io.pressure", PRESSURE),
    ]);
    let (new, _) = read(&v2(&folder));
    let folder = super::testing::folder(&[
        ("cpuacct.usage", "21675478081123\n"),
        ("cpuacct.usage_user", "19063195188123\n"),
        ("cpuacct.usage_sys", "2612282892123\n"),
        ("cpu.stat", CPU_STAT_V1),
        ("memory.usage_in_bytes", "361439232\n"),
        ("memory.stat", MEMORY_STAT_V1),
        ("memory.oom_control", OOM_CONTROL),
        ("blkio.throttle.io_service_bytes_recursive", BLKIO),
        ("blkio.throttle.io_serviced_recursive", BLKIO),
    ]);
    let (old, _) = read(&v1(&folder));
    for counters in [&new, &old] {
        assert!(counters.on_cpu_ns.is_some() && counters.cpu_split.is_some());
        assert!(counters.throttling.is_some() && counters.memory.is_some());
        assert!(counters.faults.is_some() && counters.oom_kills.is_some());
        let disks = &counters.disk.as_ref().unwrap().value;
        assert!(disks.len() >= 2 && disks.iter().all(|one| one.write_count.is_some()));
    }
    assert!(new.pressure.is_some());
    assert!(proc_stat(STAT).is_some());
}
