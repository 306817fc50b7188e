//! Every figure of the probes, small and without any tool, so that it runs on every kernel that there is a machine for.
//!
//! That a kernel takes the probes does not say that they read the right things: fields, tracepoints and their arguments
//! differ. So here each part of them measures a load that says itself what it did, or that the kernel has counted too.
//! The tolerances tell right from wrong, also on an emulated processor; how exact the figures are is held elsewhere.

#![allow(clippy::unwrap_used, reason = "the helpers of tests fail as tests do")]

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::os::unix::process::ExitStatusExt;

use ebb_agent::probe::{
    ContainerCounters, ContainerFiles, Detail, DeviceCounters, Facts, Sampler, Traffic,
};
use ebb_tests_parity::Container;
use ebb_tests_parity::disk::DiskFolder;
use ebb_tests_parity::measured::{alone, finish, nothing_lost, of, probes, told};

const LOAD: &str = env!("CARGO_BIN_EXE_ebb-parity-load");
const MIB: u64 = 1 << 20;
/// What file systems and protocols add of their own, of what was asked for.
const ADDED_MAX_PERCENT: u64 = 10;
/// What one kill takes: the limit, and the memory that is asked for under it.
const OOM_LIMIT_BYTES: u64 = 24 * MIB;
const OOM_ASKED_BYTES: u64 = 96 * MIB;
/// Faults of the shell on its way into its cgroups, which one side may count and the other not.
const FAULTS_BESIDE: u64 = 300;
const SIGKILL: i32 = 9;

/// Measures one load in a container, which must end well. Gives the counters and what it printed.
fn measure(
    name: &'static str,
    container: &Container,
    sampler: &mut Sampler<&'static str>,
    program: &str,
    arguments: &[&str],
) -> (ContainerCounters, String) {
    sampler.register(name, &container.paths, false).unwrap();
    let printed = finish(container.spawn(program, arguments).unwrap());
    let sample = sampler.sample(Detail::Full);
    (of(&sample, name).clone(), printed)
}

/// Asserts that it is what was asked for, and not much more.
fn about(what: &str, figure: u64, asked: u64) {
    println!("{what}: {figure} of {asked}");
    let most = asked + asked * ADDED_MAX_PERCENT / 100;
    assert!(
        (asked..=most).contains(&figure),
        "{what}: {figure} of {asked}"
    );
}

fn disk(counters: &ContainerCounters, folder: &DiskFolder) -> DeviceCounters {
    let figure = counters.disk.clone().expect("no disk");
    assert_eq!(figure.source.name(), "ebpf");
    let mut devices = figure.value.into_iter();
    let found = devices.find(|one| one.device == folder.device);
    found.expect("no traffic with this disk")
}

#[test]
fn direct_traffic_with_a_disk() {
    let _alone = alone();
    let facts = Facts::gather();
    let folder = DiskFolder::new();
    let container = Container::new(&facts, "direct").unwrap();
    let mut sampler = probes(&facts);
    let path = folder.path.join("direct");
    let path = path.display();
    let script = format!(
        "dd if=/dev/zero of='{path}' bs=256k count=32 oflag=direct 2>/dev/null\n\
         dd if='{path}' of=/dev/null bs=256k iflag=direct 2>/dev/null"
    );
    let (counters, _) = measure("direct", &container, &mut sampler, "sh", &["-c", &script]);
    let disk = disk(&counters, &folder);
    about("written", disk.write_bytes, 8 * MIB);
    about("read", disk.read_bytes, 8 * MIB);
    let latency = disk.latency.unwrap();
    let requests = disk.read_count.unwrap() + disk.write_count.unwrap();
    assert!(requests >= 16, "{disk:?}");
    let timed = latency.device_hist.iter().sum::<u64>();
    // The kernel hides some completions from every tracepoint, see the probes.
    assert!(
        timed <= requests && timed > requests / 2,
        "{timed} of {requests}"
    );
    assert!(latency.device_ns > 0 && latency.errors == 0, "{latency:?}");
    nothing_lost(&sampler);
}

#[test]
fn writes_that_the_kernel_carries_out_later_are_charged_to_who_made_them() {
    let _alone = alone();
    let facts = Facts::gather();
    let folder = DiskFolder::new();
    let mut sampler = probes(&facts);
    let asked = [("more", 12), ("less", 4)];
    let containers = asked.map(|(name, mib)| {
        let container = Container::new(&facts, name).unwrap();
        sampler.register(name, &container.paths, false).unwrap();
        let path = folder.path.join(name);
        let script = format!(
            "dd if=/dev/zero of='{}' bs=1048576 count={mib} 2>/dev/null",
            path.display()
        );
        (container.spawn("sh", &["-c", &script]).unwrap(), container)
    });
    let containers = containers.map(|(load, container)| {
        finish(load);
        container
    });
    rustix::fs::syncfs(File::open(&folder.path).unwrap()).unwrap();
    let sample = sampler.sample(Detail::Full);
    for (name, mib) in asked {
        let disk = disk(of(&sample, name), &folder);
        about(name, disk.write_bytes, mib * MIB);
    }
    nothing_lost(&sampler);
    drop(containers);
}

#[test]
fn page_faults_are_those_of_the_memory_controller() {
    let _alone = alone();
    let facts = Facts::gather();
    let container = Container::new(&facts, "faults").unwrap();
    let mut sampler = probes(&facts);
    let arguments = ["pages", "2000", "3"];
    let (counters, _) = measure("faults", &container, &mut sampler, LOAD, &arguments);
    let ours = counters.faults.unwrap();
    assert_eq!(ours.source.name(), "ebpf");
    let mut files = ContainerFiles::open(&container.paths);
    let theirs = files.faults().unwrap();
    println!("faults: {ours:?}, controller {theirs:?}");
    let all = theirs.minor + theirs.major;
    let counted = ours.value.minor + ours.value.major;
    assert!(all > 100, "{theirs:?}");
    assert!(
        counted.abs_diff(all) <= FAULTS_BESIDE,
        "{counted} of {all} faults"
    );
    nothing_lost(&sampler);
}

#[test]
fn a_kill_for_want_of_memory_is_seen_with_its_victim() {
    let _alone = alone();
    let facts = Facts::gather();
    let container = Container::new(&facts, "hog").unwrap();
    container.limit_memory(OOM_LIMIT_BYTES).unwrap();
    let mut sampler = probes(&facts);
    sampler.register("hog", &container.paths, false).unwrap();
    let asked = OOM_ASKED_BYTES.to_string();
    let mut load = container.spawn(LOAD, &["hog", &asked]).unwrap();
    let status = load.wait().unwrap();
    assert_eq!(status.signal(), Some(SIGKILL), "{status}");
    let sample = sampler.sample(Detail::Full);
    println!("{:?}", sample.oom_kills);
    assert_eq!(sample.oom_kills.len(), 1, "{:?}", sample.oom_kills);
    let kill = &sample.oom_kills[0];
    assert_eq!((kill.container, kill.pid), (Some("hog"), load.id()));
    let counters = of(&sample, "hog");
    let kills = counters.oom_kills.unwrap();
    assert_eq!((kills.source.name(), kills.value), ("ebpf", 1));
    let stalls = counters.reclaim.unwrap();
    assert!(stalls.limit_count > 0 && stalls.limit_ns > 0, "{stalls:?}");
    // Not a full one: the probes would have been asked twice without a switch in between.
    let later = sampler.sample(Detail::Quick).oom_kills;
    assert_eq!(later, [], "a kill is told once");
    nothing_lost(&sampler);
}

/// Each is taken by the verifier of this kernel, also where it measures nothing by itself.
#[test]
fn every_part_of_the_probes_is_used() {
    let _alone = alone();
    let sampler = probes(&Facts::gather());
    let parts = &sampler.plan().parts;
    assert!(parts.len() > 1);
    for part in parts {
        assert_eq!(part.off, None, "{:?}", part.part);
    }
}

#[test]
fn traffic_between_two_containers_of_one_network() {
    let _alone = alone();
    let facts = Facts::gather();
    let mut sampler = probes(&facts);
    let [from, to] = ["from", "to"].map(|name| {
        let container = Container::new(&facts, name).unwrap();
        sampler.register(name, &container.paths, false).unwrap();
        // Loopback is not limited.
        assert!(sampler.limit_network(&name, Some(1)));
        container
    });
    let address = format!("127.0.0.1:{}", 20_000 + std::process::id() % 10_000);
    let mut receiver = to.spawn(LOAD, &["receive", "tcp", &address]).unwrap();
    let mut heard = BufReader::new(receiver.stdout.take().unwrap());
    let mut line = String::new();
    heard.read_line(&mut line).unwrap();
    assert_eq!(line, "listening\n");
    let sent = finish(
        from.spawn(LOAD, &["send", "tcp", &address, &MIB.to_string()])
            .unwrap(),
    );
    assert_eq!(told(&sent, "sent"), MIB);
    assert!(receiver.wait().unwrap().success());
    let sample = sampler.sample(Detail::Full);
    for name in ["from", "to"] {
        let traffic = of(&sample, name).traffic;
        assert_eq!(traffic, Some(Traffic::default()), "no device has seen it");
    }
    let [from, to] = ["from", "to"].map(|name| of(&sample, name).network.unwrap());
    println!("{from:?} {to:?}");
    about("sent", from.out_bytes, MIB);
    about("received", to.in_bytes, MIB);
    assert!(from.out_packets > 0 && to.in_packets > 0);
    // What comes back is acknowledgements.
    assert!(from.in_bytes < MIB / 5 && to.out_bytes < MIB / 5);
    nothing_lost(&sampler);
}

#[test]
fn processes_and_threads_from_birth_to_death() {
    const MADE: u64 = 40;
    let _alone = alone();
    let facts = Facts::gather();
    let container = Container::new(&facts, "births").unwrap();
    let mut sampler = probes(&facts);
    let arguments = ["processes", &MADE.to_string(), "200", "2"];
    let (counters, printed) = measure("births", &container, &mut sampler, LOAD, &arguments);
    let processes = counters.processes.unwrap();
    println!("{processes:?} {printed}");
    assert_eq!(processes.forks, MADE);
    // The load itself, which was born outside.
    assert_eq!(processes.exits, MADE + 1);
    assert!(processes.threads >= 2, "{processes:?}");
    assert!((told(&printed, "surely_short")..=MADE).contains(&processes.short_lived));
    nothing_lost(&sampler);
}

#[test]
fn waits_that_a_quota_makes_are_told_from_others() {
    let _alone = alone();
    let facts = Facts::gather();
    let container = Container::new(&facts, "held").unwrap();
    container.limit_cpu(20_000, 100_000).unwrap();
    let mut sampler = probes(&facts);
    let (counters, _) = measure(
        "held",
        &container,
        &mut sampler,
        LOAD,
        &["spin", "1500", "0"],
    );
    let waits = counters.run_queue.unwrap();
    let own_ns = waits.wait_own_ns.unwrap();
    let throttled = counters.throttling.unwrap();
    println!("{waits:?} {throttled:?}");
    assert!(throttled.throttled_periods >= 5, "{throttled:?}");
    assert!(
        own_ns >= 300_000_000 && own_ns <= waits.wait_ns,
        "{waits:?}"
    );
    assert!(counters.switches.unwrap().preempted_by_quota > 0);
    nothing_lost(&sampler);
}
