//! Traffic with disks against what fio says that it did, and against bpftrace.
//!
//! **Bytes.** fio counts what it asked for, the probes what the device has moved on the container's behalf. With direct
//! I/O the two are one; what the file system writes of its own accord (journal, inodes) belongs to no container but for
//! blocks that the container was the first to touch, and stays within the tolerance. Files are laid out from outside
//! beforehand, so that a direct write changes no metadata but the time of change.
//!
//! **Later writeback.** Two containers write different amounts at once into the page cache; `syncfs` then has the
//! kernel's own threads write it and waits for them. So everything is issued by a thread of no container.
//!
//! **Latency.** fio measures a whole system call: the kernel's queue, the device, and the wait for a CPU afterwards, of
//! which the container's run-queue latency tells. So fio's percentiles stand in the same bucket as those of the device's
//! histogram or in the one above (buckets are powers of two, and a value near a bound falls into either), and further
//! up only as far as the same percentile of the waits takes them. One below is let pass too, since fio tells reads and
//! writes apart, and a percentile of both lies only somewhere between theirs. bpftrace takes the same two moments as the
//! probes (`block_rq_issue`, `block_rq_complete`), and its percentiles may be one bucket away from ours.

#![allow(clippy::unwrap_used, reason = "the helpers of tests fail as tests do")]

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::process::Command;

use ebb_agent::probe::{Detail, DeviceCounters, DeviceLatency, Facts, RunQueue, Sample};
use ebb_tests_parity::Container;
use ebb_tests_parity::disk::DiskFolder;
use ebb_tests_parity::measured::{
    Name, alone, differ_percent, finish, nothing_lost, of, percentile_bucket, probes,
};
use ebb_tests_parity::rows::Rows;
use ebb_tests_parity::tools::{Bpftrace, fio, histogram, job, start_fio};
use serde_json::Value;

const DIRECT_MAX_PERCENT: f64 = 0.5;
const BUFFERED_MAX_PERCENT: f64 = 2.0;
/// Of all requests, those whose end a tracepoint tells of: 0.86 was seen where idle CPUs took the interrupts.
const TIMED_LEAST: f64 = 0.7;
const FILE_BYTES: usize = 128 << 20;
/// Runs for which the machine may have taken fio out of its page cache, and one more.
const MAX_RUNS: u32 = 4;
/// What two containers write at once into the page cache.
const BUFFERED: [(&str, u64); 2] = [("more", 96 << 20), ("less", 32 << 20)];
/// The histograms count in units of 1,024 ns.
const UNIT_SHIFT: u32 = 10;

/// The container's counters of this disk.
fn disk(sample: &Sample<Name>, name: &str, folder: &DiskFolder) -> DeviceCounters {
    let figure = of(sample, name).disk.clone();
    let figure = figure.expect("the probes tell nothing of disks");
    assert_eq!(figure.source.name(), "ebpf");
    let mut disks = figure.value.into_iter();
    disks
        .find(|one| one.device == folder.device)
        .unwrap_or_else(|| panic!("no traffic of {name} with {:?}", folder.device))
}

/// A file with content, on the disk and not in the cache.
fn lay_out(path: &Path) {
    let mut file = File::create(path).unwrap();
    let block = vec![5; 1 << 20];
    for _ in 0..FILE_BYTES >> 20 {
        file.write_all(&block).unwrap();
    }
    file.sync_all().unwrap();
    rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).unwrap();
}

/// Has fio, what it loads and what it looks up in the page cache, so that in the container it reads nothing but the file:
/// it does the same before, from outside, with less of the file.
fn warm(arguments: &[&str]) {
    let mut fio = Command::new("fio");
    fio.args(["--output-format=json", "--thread=1"])
        .args(arguments)
        .arg("--io_size=1m");
    let output = fio.output().unwrap();
    assert!(output.status.success(), "{output:?}");
}

fn number(value: &Value) -> u64 {
    value.as_u64().expect("fio tells a number")
}

/// A run that is over.
struct Run {
    sample: Sample<Name>,
    ours: DeviceCounters,
    job: Value,
    traced: Vec<Value>,
}

/// Runs fio with direct I/O; nothing if parts of it had to be read from the disk all the same, because the machine has
/// taken them out of its page cache meanwhile: that is traffic of the container which fio knows nothing of.
fn run(arguments: &[&str], trace: bool) -> Option<Run> {
    let facts = Facts::gather();
    let folder = DiskFolder::new();
    let path = folder.path.join("direct");
    lay_out(&path);
    let container = Container::new(&facts, "direct").unwrap();
    container.favour().unwrap();
    let mut sampler = probes(&facts);
    sampler.register("direct", &container.paths, false).unwrap();
    let file = format!("--filename={}", path.display());
    let size = format!("--size={FILE_BYTES}");
    let common = ["--name=direct", "--direct=1", "--bs=64k", &file, &size];
    let arguments = [&common[..], arguments].concat();
    warm(&arguments);
    let traced = trace.then(|| Bpftrace::start(&trace_of(&folder)));
    let job = fio(&container, &arguments);
    let traced = traced.map(Bpftrace::stop).unwrap_or_default();
    let sample = sampler.sample(Detail::Full);
    let ours = disk(&sample, "direct", &folder);
    nothing_lost(&sampler);
    let faults = of(&sample, "direct")
        .faults
        .expect("the probes tell faults");
    (faults.value.major == 0).then_some(Run {
        sample,
        ours,
        job,
        traced,
    })
}

/// What one run gave.
struct Direct {
    latency: DeviceLatency,
    waits: RunQueue,
    job: Value,
    traced: Vec<Value>,
}

/// Runs fio with direct I/O and compares bytes and requests.
fn direct(rows: &mut Rows, arguments: &[&str], trace: bool) -> Direct {
    let mut runs = (0..MAX_RUNS).filter_map(|_| run(arguments, trace));
    let Run {
        sample,
        ours,
        job,
        traced,
    } = runs
        .next()
        .expect("the machine keeps fio in its page cache");
    for (what, bytes, requests) in [
        ("read", ours.read_bytes, ours.read_count),
        ("write", ours.write_bytes, ours.write_count),
    ] {
        let (said, asked) = (
            number(&job[what]["io_bytes"]),
            number(&job[what]["total_ios"]),
        );
        rows.at_least(&format!("{what}: bytes by fio"), said as f64, "B", 8e6);
        rows.figure(&format!("{what}: bytes"), bytes as f64, "B");
        let error = differ_percent(bytes, said);
        rows.at_most(
            &format!("{what}: error of bytes"),
            error,
            "%",
            DIRECT_MAX_PERCENT,
        );
        // The file system and the block layer may cut a request at the bounds of extents and of what the device takes,
        // and may join those that stand in the queue together.
        let each = requests.unwrap() as f64 / asked as f64;
        rows.at_least(
            &format!("{what}: requests for each of fio's"),
            each,
            "",
            0.9,
        );
        rows.at_most(
            &format!("{what}: requests for each of fio's"),
            each,
            "",
            1.25,
        );
    }
    let latency = ours.latency.expect("the probes tell latencies");
    let requests = ours.read_count.unwrap() + ours.write_count.unwrap();
    // The kernel hides some completions from every tracepoint, see the probes.
    let timed = latency.device_hist.iter().sum::<u64>() as f64 / requests as f64;
    rows.at_least("requests with a latency", timed, "", TIMED_LEAST);
    rows.at_most("requests with a latency", timed, "", 1.0);
    assert_eq!(latency.errors, 0);
    Direct {
        latency,
        waits: of(&sample, "direct").run_queue.unwrap(),
        job,
        traced,
    }
}

/// Latencies of the device for requests that fio's thread issues. The histogram counts in nanoseconds.
fn trace_of(folder: &DiskFolder) -> String {
    let device = (u64::from(folder.device.major) << 20) | u64::from(folder.device.minor);
    format!(
        "tracepoint:block:block_rq_issue /args->dev == {device} && comm == \"fio\"/ \
         {{ @at[args->sector] = nsecs; }} \
         tracepoint:block:block_rq_complete /args->dev == {device} && @at[args->sector]/ \
         {{ @device = hist(nsecs - @at[args->sector]); delete(@at[args->sector]); }} \
         END {{ clear(@at); }}"
    )
}

#[test]
fn one_direct_request_at_a_time_in_bytes_and_latency() {
    let _alone = alone();
    let mut rows = Rows::new("io", "direct I/O, one request at a time");
    let arguments = ["--ioengine=psync", "--rw=randrw"];
    let Direct {
        latency,
        waits,
        job,
        traced,
    } = direct(&mut rows, &arguments, true);
    let traced = histogram(&traced, "@device");
    let seen: u64 = traced.iter().sum();
    let ours: u64 = latency.device_hist.iter().sum();
    rows.at_most(
        "requests: difference to bpftrace",
        differ_percent(ours, seen),
        "%",
        1.0,
    );
    for (name, thousandths) in [("50.000000", 500), ("95.000000", 950)] {
        let device = percentile_bucket(&latency.device_hist, thousandths) as f64;
        let by_bpftrace = percentile_bucket(&traced, thousandths) as f64 - f64::from(UNIT_SHIFT);
        let percent = thousandths / 10;
        rows.figure(&format!("p{percent}: bucket"), device, "log2 of 1,024 ns");
        let away = (device - by_bpftrace.max(0.0)).abs();
        rows.at_most(&format!("p{percent}: buckets from bpftrace"), away, "", 1.0);
        let by_fio = bucket_of_fio(&job, name);
        // The upper bounds of both buckets together: one bucket above the device's, unless the waits are as long.
        let waited = 2u64 << percentile_bucket(&waits.wait_hist, thousandths);
        let most = f64::from(((2u64 << device as u32) + (waited >> UNIT_SHIFT)).ilog2());
        let name = format!("p{percent}: bucket of fio's");
        rows.at_least(&name, by_fio, "log2 of 1,024 ns", device - 1.0);
        rows.at_most(&name, by_fio, "log2 of 1,024 ns", most);
    }
    rows.finish();
}

/// The bucket of a percentile of reads and writes together: fio tells them apart, and the figure of both is between.
fn bucket_of_fio(job: &Value, percentile: &str) -> f64 {
    let mean = |what: &str| {
        let latency = &job[what]["clat_ns"];
        (
            number(&latency["percentile"][percentile]) >> UNIT_SHIFT,
            number(&latency["N"]),
        )
    };
    let ((read, reads), (write, writes)) = (mean("read"), mean("write"));
    let both = (read * reads + write * writes) / (reads + writes);
    f64::from(both.max(1).ilog2())
}

#[test]
fn many_direct_requests_at_a_time_in_bytes() {
    let _alone = alone();
    let mut rows = Rows::new("io", "direct I/O, sixteen requests at a time");
    let arguments = ["--ioengine=libaio", "--iodepth=16", "--rw=randrw"];
    let job = direct(&mut rows, &arguments, false).job;
    assert_eq!(job["job options"]["iodepth"], "16");
    rows.finish();
}

#[test]
fn buffered_writes_are_charged_to_who_made_them_when_the_kernel_writes_them_back() {
    let _alone = alone();
    let facts = Facts::gather();
    let folder = DiskFolder::new();
    let mut sampler = probes(&facts);
    let containers = BUFFERED.map(|(name, _)| Container::new(&facts, name).unwrap());
    let mut loads = Vec::new();
    for ((name, bytes), container) in BUFFERED.into_iter().zip(&containers) {
        sampler.register(name, &container.paths, false).unwrap();
        let file = format!("--filename={}", folder.path.join(name).display());
        let size = format!("--size={bytes}");
        let arguments = [
            "--name=buffered",
            "--rw=write",
            "--bs=256k",
            "--ioengine=psync",
            "--fallocate=none",
            &file,
            &size,
        ];
        loads.push(start_fio(container, &arguments));
    }
    let jobs: Vec<Value> = loads.into_iter().map(|load| job(&finish(load))).collect();
    // The kernel's threads write it, and are awaited.
    rustix::fs::syncfs(File::open(&folder.path).unwrap()).unwrap();
    let mut rows = Rows::new(
        "io",
        "buffered writes of two containers, written back by the kernel",
    );
    let sample = sampler.sample(Detail::Full);
    for ((name, bytes), job) in BUFFERED.into_iter().zip(jobs) {
        let said = number(&job["write"]["io_bytes"]);
        assert_eq!(said, bytes, "fio has written everything");
        let ours = disk(&sample, name, &folder);
        rows.figure(&format!("{name}: bytes by fio"), said as f64, "B");
        let error = differ_percent(ours.write_bytes, said);
        rows.at_most(
            &format!("{name}: error of bytes"),
            error,
            "%",
            BUFFERED_MAX_PERCENT,
        );
    }
    nothing_lost(&sampler);
    rows.finish();
}
