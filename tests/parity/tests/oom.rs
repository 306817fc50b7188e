//! Want of memory: every kill is seen with its container and its victim, stalls are counted where the kernel frees
//! memory before it gives some, and page faults are those that stress-ng makes.
//!
//! Kills are held against the memory controller's own count (`memory.oom_control`, `memory.events`) and against the
//! process that the test saw die. Stalls are held against bpftrace, in number and in time: the controller counts what it
//! frees, not how often somebody waited for it.

#![allow(clippy::unwrap_used, reason = "the helpers of tests fail as tests do")]

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::process::Child;

use ebb_agent::probe::{ContainerFiles, Detail, Facts, OomEvent};
use ebb_tests_parity::Container;
use ebb_tests_parity::disk::DiskFolder;
use ebb_tests_parity::measured::{alone, differ_percent, finish, nothing_lost, of, probes};
use ebb_tests_parity::rows::Rows;
use ebb_tests_parity::tools::{Bpftrace, map_value};

const LOAD: &str = env!("CARGO_BIN_EXE_ebb-parity-load");
const NAMES: [&str; 5] = ["a", "b", "c", "d", "e"];
const KILLS: usize = 100;
const LIMIT_BYTES: u64 = 16 << 20;
const HOG_BYTES: &str = "134217728";
/// What the kernel sends.
const SIGKILL: i32 = 9;
/// Chooses the order; any other number is as good.
const SEED: u64 = 0x0eb_b00d;

/// Numbers that look like chance and are the same in every run.
struct Order(u64);

impl Order {
    /// One of `0..below`.
    fn next(&mut self, below: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % below as u64).unwrap()
    }
}

/// A hog that must be killed, and who it is.
struct Doomed {
    name: &'static str,
    child: Child,
}

impl Doomed {
    /// Waits for its death. The shell has become the hog, so its process id is the victim's.
    fn end(mut self) -> (u32, &'static str) {
        let status = self.child.wait().unwrap();
        assert_eq!(status.signal(), Some(SIGKILL), "the hog was not killed");
        (self.child.id(), self.name)
    }
}

#[test]
fn every_kill_is_seen_with_its_container_and_its_victim() {
    let _alone = alone();
    let facts = Facts::gather();
    let mut sampler = probes(&facts);
    let containers = NAMES.map(|name| {
        let container = Container::new(&facts, name).unwrap();
        container.limit_memory(LIMIT_BYTES).unwrap();
        sampler.register(name, &container.paths, false).unwrap();
        container
    });
    let mut order = Order(SEED);
    let mut killed: BTreeMap<u32, &'static str> = BTreeMap::new();
    let mut seen: Vec<OomEvent<&'static str>> = Vec::new();
    let mut rounds_at_once = 0;
    while killed.len() < KILLS {
        // Some alone and some at once, never two in one container: then the kernel could kill one for the other.
        let first = order.next(NAMES.len());
        let at_once = (1 + order.next(3)).min(KILLS - killed.len());
        rounds_at_once += usize::from(at_once > 1);
        let doomed: Vec<Doomed> = (0..at_once)
            .map(|more| (first + more) % NAMES.len())
            .map(|at| Doomed {
                name: NAMES[at],
                child: containers[at].spawn(LOAD, &["hog", HOG_BYTES]).unwrap(),
            })
            .collect();
        killed.extend(doomed.into_iter().map(Doomed::end));
        if order.next(4) == 0 {
            seen.extend(sampler.sample(Detail::Quick).oom_kills);
        }
    }
    let sample = sampler.sample(Detail::Full);
    seen.extend(sample.oom_kills.iter().copied());
    // Whatever else is killed on this machine meanwhile is not ours to count, and must be seen to be nobody's.
    let right = seen.iter().filter(|event| {
        killed.get(&event.pid).copied() == event.container && event.container.is_some()
    });
    let mut rows = Rows::new("oom", "kills for want of memory");
    rows.exactly("kills", killed.len() as u64, KILLS as u64);
    rows.exactly(
        "seen with the right container and victim",
        right.count() as u64,
        KILLS as u64,
    );
    let strange = seen
        .iter()
        .filter(|event| event.container.is_some() && !killed.contains_key(&event.pid));
    rows.exactly("seen and not made", strange.count() as u64, 0);
    rows.figure("rounds with several at once", rounds_at_once as f64, "");
    for (name, container) in NAMES.into_iter().zip(&containers) {
        let figure = of(&sample, name).oom_kills.unwrap();
        assert_eq!(figure.source.name(), "ebpf");
        let memory = ContainerFiles::open(&container.paths).memory().unwrap();
        let by_controller = memory.oom_kills.expect("the controller counts no kills");
        rows.exactly(&format!("{name}: counted"), figure.value, by_controller);
        let made = killed.values().filter(|one| **one == name).count() as u64;
        rows.exactly(&format!("{name}: by the controller"), by_controller, made);
    }
    nothing_lost(&sampler);
    rows.finish();
}

/// Stalls of the load and how long they took.
const STALLS: &str = "tracepoint:vmscan:mm_vmscan_memcg_reclaim_begin /comm == \"ebb-parity-load\"/ { @at[tid] = nsecs; } \
                      tracepoint:vmscan:mm_vmscan_memcg_reclaim_end /@at[tid]/ \
                      { @count = count(); @ns = sum(nsecs - @at[tid]); delete(@at[tid]); } END { clear(@at); }";
/// How far their number may be from bpftrace's, and their time, which each measures with a clock of its own.
const STALLS_MAX_PERCENT: f64 = 1.0;
const STALLED_MAX_PERCENT: f64 = 5.0;
/// What the cache load writes and reads, and what it may have of it in memory.
const CACHED_BYTES: &str = "67108864";
const CACHE_LIMIT_BYTES: u64 = 24 << 20;

#[test]
fn stalls_at_the_limit_are_counted_and_timed() {
    let _alone = alone();
    let facts = Facts::gather();
    let folder = DiskFolder::new();
    let container = Container::new(&facts, "cache").unwrap();
    container.limit_memory(CACHE_LIMIT_BYTES).unwrap();
    let free = Container::new(&facts, "free").unwrap();
    let mut sampler = probes(&facts);
    sampler.register("cache", &container.paths, false).unwrap();
    sampler.register("free", &free.paths, false).unwrap();
    let trace = Bpftrace::start(STALLS);
    for (container, file) in [(&container, "cache"), (&free, "free")] {
        let path = folder.path.join(file);
        let arguments = ["cache", path.to_str().unwrap(), CACHED_BYTES, "4"];
        finish(container.spawn(LOAD, &arguments).unwrap());
    }
    let traced = trace.stop();
    let sample = sampler.sample(Detail::Full);
    let reclaim = of(&sample, "cache")
        .reclaim
        .expect("the probes tell no stalls");
    let (stalls, stalled_ns) = (map_value(&traced, "@count"), map_value(&traced, "@ns"));
    let mut rows = Rows::new("oom", "stalls at the limit");
    rows.at_least("stalls by bpftrace", stalls as f64, "", 50.0);
    let error = differ_percent(reclaim.limit_count, stalls);
    rows.at_most(
        "stalls: difference to bpftrace",
        error,
        "%",
        STALLS_MAX_PERCENT,
    );
    rows.at_least("stalled by bpftrace", stalled_ns as f64 / 1e6, "ms", 0.1);
    let error = differ_percent(reclaim.limit_ns, stalled_ns);
    rows.at_most(
        "time stalled: difference to bpftrace",
        error,
        "%",
        STALLED_MAX_PERCENT,
    );
    rows.exactly("stalls of all the machine", reclaim.direct_count, 0);
    let without = of(&sample, "free").reclaim.unwrap();
    rows.exactly("stalls of one without a limit", without.limit_count, 0);
    nothing_lost(&sampler);
    rows.finish();
}

/// How far the count of faults may be from stress-ng's.
const FAULTS_MAX_PERCENT: f64 = 1.0;

/// Runs stress-ng's page faults in a container: what its worker had by its own resource usage, minor and major.
fn stress_faults(container: &Container, folder: &DiskFolder, operations: &str) -> u64 {
    let log = folder.path.join(format!("stress-{operations}"));
    let arguments = [
        "--fault",
        "1",
        "--fault-ops",
        operations,
        "--verbose",
        "--temp-path",
        folder.path.to_str().unwrap(),
        "--log-file",
        log.to_str().unwrap(),
    ];
    finish(container.spawn("stress-ng", &arguments).unwrap());
    let text = fs::read_to_string(log).unwrap();
    let (_, told) = text
        .split_once("page faults: minor: ")
        .expect("stress-ng tells its faults");
    let line = told.lines().next().unwrap_or_default();
    let (minor, major) = line.split_once(", major: ").unwrap();
    minor.trim().parse::<u64>().unwrap() + major.trim().parse::<u64>().unwrap()
}

#[test]
fn page_faults_are_those_of_stress_ng() {
    let _alone = alone();
    let facts = Facts::gather();
    let folder = DiskFolder::new();
    let container = Container::new(&facts, "faults").unwrap();
    let mut sampler = probes(&facts);
    sampler.register("faults", &container.paths, false).unwrap();
    // A small run and a large one: their difference is the worker's alone, without what stress-ng itself has.
    let mut counted = Vec::new();
    let mut said = Vec::new();
    let mut by_controller = Vec::new();
    for operations in ["10", "4010"] {
        said.push(stress_faults(&container, &folder, operations));
        let faults = of(&sampler.sample(Detail::Full), "faults").faults.unwrap();
        assert_eq!(faults.source.name(), "ebpf");
        counted.push(faults.value.minor + faults.value.major);
        let faults = ContainerFiles::open(&container.paths).faults().unwrap();
        by_controller.push(faults.minor + faults.major);
    }
    // The counters go on over both runs, and stress-ng's start anew: twice the first is what the first run has cost.
    let ours = counted[1] - 2 * counted[0];
    let theirs = said[1] - said[0];
    let mut rows = Rows::new("oom", "page faults of stress-ng");
    rows.at_least("faults by stress-ng", theirs as f64, "", 10_000.0);
    let error = differ_percent(ours, theirs);
    rows.at_most("difference to stress-ng", error, "%", FAULTS_MAX_PERCENT);
    let error = differ_percent(counted[1], by_controller[1]);
    rows.at_most("difference to memory.stat", error, "%", FAULTS_MAX_PERCENT);
    nothing_lost(&sampler);
    rows.finish();
}
