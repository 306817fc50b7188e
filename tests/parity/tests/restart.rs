//! An agent that ends and comes back goes on counting without a gap: what it left attached has counted meanwhile.
//!
//! The sampler of each test keeps its probes in a folder of its own on the bpf file system; dropping it is what happens
//! when an agent is killed. All is held against the CPU controller over the whole run.

#![allow(clippy::unwrap_used, reason = "the helpers of tests fail as tests do")]

use std::fs;
use std::process::Child;
use std::thread;
use std::time::{Duration, Instant};

use ebb_agent::probe::{ContainerCounters, ContainerFiles, Detail, Facts, Sampler};
use ebb_tests_parity::Container;
use ebb_tests_parity::measured::{
    alone, cpu_bracket, finish, nothing_lost, of, on_cpu_ns, probes_with, told,
};
use ebb_tests_parity::pins::PinFolder;
use ebb_tests_parity::rows::Rows;

const LOAD: &str = env!("CARGO_BIN_EXE_ebb-parity-load");
const RESTARTS: u32 = 5;
const MAX_PERCENT: f64 = 0.1;
const DEADLINE: Duration = Duration::from_secs(60);

/// Waits until a container has used so much CPU time by its controller, whoever looks.
fn until_used(files: &mut ContainerFiles, ns: u64) {
    let deadline = Instant::now() + DEADLINE;
    while files.on_cpu_ns().unwrap() < ns {
        assert!(Instant::now() < deadline, "the load gets no CPU");
        thread::sleep(Duration::from_millis(5));
    }
}

fn has_not_fallen(before: &ContainerCounters, after: &ContainerCounters) {
    assert!(on_cpu_ns(before) <= on_cpu_ns(after));
    let (one, other) = (before.run_queue.unwrap(), after.run_queue.unwrap());
    assert!(one.wait_ns <= other.wait_ns && one.wait_count <= other.wait_count);
    let mut buckets = one.wait_hist.iter().zip(&other.wait_hist);
    assert!(buckets.all(|(before, after)| before <= after));
    let (one, other) = (before.switches.unwrap(), after.switches.unwrap());
    assert!(one.voluntary <= other.voluntary && one.involuntary() <= other.involuntary());
    let (one, other) = (before.processes.unwrap(), after.processes.unwrap());
    assert!(one.forks <= other.forks && one.exits <= other.exits);
    let (one, other) = (before.faults.unwrap().value, after.faults.unwrap().value);
    assert!(one.minor <= other.minor && one.major <= other.major);
}

#[test]
fn counters_go_on_over_restarts_without_a_gap() {
    let _alone = alone();
    let facts = Facts::gather();
    let pins = PinFolder::new("goes-on");
    let container = Container::new(&facts, "goes-on").unwrap();
    let mut yardstick = ContainerFiles::open(&container.paths);
    let mut sampler = probes_with(&facts, &pins.options(16));
    assert!(sampler.is_pinned());
    sampler
        .register("goes-on", &container.paths, false)
        .unwrap();
    let start = cpu_bracket(&mut sampler, &mut yardstick, "goes-on");
    let loads: [Child; 2] = [&["processes", "400", "2000", "2"][..], &["spin", "4000"]]
        .map(|arguments| container.spawn(LOAD, arguments).unwrap());
    let mut last = of(&sampler.sample(Detail::Quick), "goes-on").clone();
    for restart in 0..u64::from(RESTARTS) {
        until_used(&mut yardstick, (restart + 1) * 300_000_000);
        drop(sampler);
        // Nobody looks, and the load goes on.
        until_used(&mut yardstick, (restart + 1) * 300_000_000 + 150_000_000);
        sampler = probes_with(&facts, &pins.options(16));
        sampler
            .register("goes-on", &container.paths, false)
            .unwrap();
        sampler.settle();
        let now = of(&sampler.sample(Detail::Quick), "goes-on").clone();
        has_not_fallen(&last, &now);
        assert!(
            on_cpu_ns(&now) > on_cpu_ns(&last),
            "what was used meanwhile is there"
        );
        last = now;
    }
    let mut printed = String::new();
    for load in loads {
        printed.push_str(&finish(load));
    }
    let end = cpu_bracket(&mut sampler, &mut yardstick, "goes-on");
    let counters = of(&sampler.sample(Detail::Quick), "goes-on").clone();
    has_not_fallen(&last, &counters);
    let processes = counters.processes.unwrap();
    let mut rows = Rows::new("restart", "a load over five restarts");
    rows.figure("restarts", f64::from(RESTARTS), "");
    let used_s = (end.after - start.before) as f64 / 1e9;
    rows.at_least("CPU time compared", used_s, "s", 2.0);
    rows.at_most(
        "error of CPU time",
        end.error_percent(&start),
        "%",
        MAX_PERCENT,
    );
    let made = told(&printed, "made");
    rows.exactly("forks", processes.forks, made);
    rows.exactly("exits", processes.exits, made + 2);
    nothing_lost(&sampler);
    sampler.remove();
    assert!(!pins.0.exists(), "something is left on the bpf file system");
    rows.finish();
}

#[test]
fn a_container_that_ended_meanwhile_is_forgotten_and_its_slot_is_free() {
    let _alone = alone();
    let facts = Facts::gather();
    let pins = PinFolder::new("forgets");
    let stays = Container::new(&facts, "stays").unwrap();
    let ends = Container::new(&facts, "ends").unwrap();
    // Room for two containers.
    let options = pins.options(3);
    let mut sampler = probes_with(&facts, &options);
    sampler.register("stays", &stays.paths, false).unwrap();
    sampler.register("ends", &ends.paths, false).unwrap();
    for container in [&stays, &ends] {
        finish(container.spawn(LOAD, &["spin", "100"]).unwrap());
    }
    let before = on_cpu_ns(of(&sampler.sample(Detail::Quick), "stays"));
    drop(sampler);
    drop(ends);
    let mut sampler = probes_with(&facts, &options);
    sampler.register("stays", &stays.paths, false).unwrap();
    let after = on_cpu_ns(of(&sampler.sample(Detail::Quick), "stays"));
    assert_eq!(before, after, "nothing ran in it");
    let new = Container::new(&facts, "new").unwrap();
    sampler
        .register("new", &new.paths, false)
        .expect_err("its slot is still kept for it");
    sampler.settle();
    sampler.register("new", &new.paths, false).unwrap();
    assert_eq!(sampler.slots(), (2, 2));
    let fresh = on_cpu_ns(of(&sampler.sample(Detail::Quick), "new"));
    let mut rows = Rows::new("restart", "a container that ended meanwhile");
    rows.exactly("CPU time of the next one in its slot, ns", fresh, 0);
    finish(new.spawn(LOAD, &["spin", "100"]).unwrap());
    let used = on_cpu_ns(of(&sampler.sample(Detail::Quick), "new"));
    rows.at_least("CPU time of its load", used as f64 / 1e6, "ms", 20.0);
    sampler.remove();
    assert!(!pins.0.exists(), "something is left on the bpf file system");
    rows.finish();
}

#[test]
fn other_probes_start_anew_and_what_the_earlier_ones_left_is_removed() {
    let _alone = alone();
    let facts = Facts::gather();
    let pins = PinFolder::new("anew");
    let container = Container::new(&facts, "anew").unwrap();
    let mut sampler = probes_with(&facts, &pins.options(8));
    sampler.register("anew", &container.paths, false).unwrap();
    finish(container.spawn(LOAD, &["spin", "100"]).unwrap());
    let before = on_cpu_ns(of(&sampler.sample(Detail::Quick), "anew"));
    assert!(before > 0);
    drop(sampler);
    let first = pins.kept();
    assert_eq!(first.len(), 1);
    let mut sampler = probes_with(&facts, &pins.options(9));
    sampler.register("anew", &container.paths, false).unwrap();
    let mut rows = Rows::new("restart", "probes with other slots");
    let anew = on_cpu_ns(of(&sampler.sample(Detail::Quick), "anew"));
    rows.exactly("CPU time after the change, ns", anew, 0);
    let second = pins.kept();
    rows.exactly("folders of probes", second.len() as u64, 1);
    assert_ne!(first, second, "the earlier ones are gone");
    rows.exactly(
        "probes that switches run",
        attached("sched_switch", &sampler),
        1,
    );
    finish(container.spawn(LOAD, &["spin", "100"]).unwrap());
    let used = on_cpu_ns(of(&sampler.sample(Detail::Quick), "anew"));
    rows.at_least("CPU time of its load", used as f64 / 1e6, "ms", 20.0);
    sampler.remove();
    assert!(!pins.0.exists(), "something is left on the bpf file system");
    rows.finish();
}

/// Links of this sampler's that are attached to a tracepoint, by what the kernel shows of this process's descriptors.
fn attached(tracepoint: &str, sampler: &Sampler<&'static str>) -> u64 {
    assert!(sampler.has_probes());
    let infos = fs::read_dir("/proc/self/fdinfo").unwrap().flatten();
    let texts = infos.filter_map(|entry| fs::read_to_string(entry.path()).ok());
    let wanted = format!("tp_name:\t{tracepoint}");
    let links = texts.filter(|text| text.contains("link_type:") && text.contains(&wanted));
    links.count() as u64
}
