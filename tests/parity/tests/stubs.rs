//! What the agent does on machines that lack something: the plan says why in a sentence, and figures come from what is
//! left, in the end from files.
//!
//! What is lacking is taken away from a process of its own, in which the test that asserts is played: BTF and the
//! machine's pressure are hidden in mounts of its own, tracefs is unmounted there, capabilities are taken from the
//! thread that starts it. So these tests run on every machine, whatever it has. A machine that was booted without
//! pressure plays [`played_without_pressure`] itself.

#![allow(clippy::unwrap_used, reason = "the helpers of tests fail as tests do")]

use std::fs;
use std::path::Path;
use std::process::Command;
use std::thread;

use ebb_agent::probe::{
    Attach, Choice, ContainerCounters, Detail, Facts, Plan, Sampler, built_in_object,
};
use ebb_tests_parity::Container;
use ebb_types::MeasureSource;
use rustix::thread::{CapabilitySet, remove_capability_from_bounding_set};

const LOAD: &str = env!("CARGO_BIN_EXE_ebb-parity-load");
const SPIN_MS: &str = "400";
/// The least of it that is on a CPU, beside whatever else the machine does.
const SPIN_LEAST_NS: u64 = 100_000_000;

/// Plays a test of this program in a process of its own, in mounts that a shell script has changed.
fn play(test: &str, script: &str) {
    let own = std::env::current_exe().unwrap();
    let output = Command::new("unshare")
        .args(["-m", "sh", "-c", &format!("{script}\nexec \"$0\" \"$@\"")])
        .arg(own)
        .args([
            "--ignored",
            "--exact",
            test,
            "--nocapture",
            "--test-threads=1",
        ])
        .output()
        .unwrap();
    let printed = String::from_utf8_lossy(&output.stdout);
    let told = String::from_utf8_lossy(&output.stderr);
    println!("{printed}{told}");
    assert!(
        output.status.success() && printed.contains(" 1 passed"),
        "{test} was not played to its end: {}",
        output.status
    );
}

fn choice(plan: &Plan, figure: &str) -> Choice {
    let mut figures = plan.figures().into_iter();
    let found = figures.find(|(name, _)| *name == figure);
    found.map(|(_, choice)| choice.clone()).unwrap()
}

/// A sentence that somebody can act on, and which has this word.
fn tells(why: &str, word: &str) {
    assert!(
        why.contains(word) && why.split(' ').count() > 3 && !why.contains('\n'),
        "{word}: {why}"
    );
}

/// Measures a load in a container of its own.
fn measure(sampler: &mut Sampler<&'static str>, facts: &Facts) -> ContainerCounters {
    let container = Container::new(facts, "stub").unwrap();
    sampler.register("stub", &container.paths, false).unwrap();
    let load = container.spawn(LOAD, &["spin", SPIN_MS]).unwrap();
    let ended = load.wait_with_output().unwrap();
    assert!(ended.status.success(), "{ended:?}");
    let sample = sampler.sample(Detail::Full);
    sampler.unregister(&"stub");
    assert_eq!(sample.containers.len(), 1);
    sample.containers[0].1.clone()
}

/// Asserts that everything that files can tell comes from files, and that the reason for it has this word.
fn measured_by_files(facts: &Facts, word: &str) {
    let mut sampler: Sampler<&'static str> = Sampler::new(facts, built_in_object());
    assert!(!sampler.has_probes());
    tells(sampler.message(), word);
    tells(sampler.message(), "files");
    let plan = sampler.plan().clone();
    let on_cpu = choice(&plan, "on_cpu");
    assert_eq!(on_cpu.source, Some(MeasureSource::Files));
    tells(&on_cpu.why, word);
    for figure in ["run_queue", "switches"] {
        let none = choice(&plan, figure);
        assert_eq!(none.source, None, "{figure}");
        tells(&none.why, word);
    }
    for figure in ["memory", "disk", "throttling"] {
        let by_files = choice(&plan, figure);
        assert_eq!(by_files.source, Some(MeasureSource::Files), "{figure}");
    }
    let counters = measure(&mut sampler, facts);
    let figure = counters.on_cpu_ns.unwrap();
    assert_eq!(figure.source, MeasureSource::Files);
    assert!(figure.value >= SPIN_LEAST_NS, "{figure:?}");
    assert!(counters.memory.is_some_and(|memory| memory.usage_bytes > 0));
    assert!(counters.throttling.is_some());
    assert_eq!(counters.run_queue, None);
    assert_eq!(counters.switches, None);
}

/// Asserts that the probes measure.
fn measured_by_probes(facts: &Facts) -> (Plan, ContainerCounters) {
    let mut sampler: Sampler<&'static str> = Sampler::new(facts, built_in_object());
    assert!(sampler.has_probes(), "{}", sampler.message());
    let counters = measure(&mut sampler, facts);
    let figure = counters.on_cpu_ns.unwrap();
    assert_eq!(figure.source, MeasureSource::Ebpf);
    assert!(figure.value >= SPIN_LEAST_NS, "{figure:?}");
    (sampler.plan().clone(), counters)
}

#[test]
fn without_capabilities_files_measure() {
    // The process inherits what its parent's thread may still hand on; this thread ends with the test.
    let played = thread::spawn(|| {
        for capability in [
            CapabilitySet::SYS_ADMIN,
            CapabilitySet::PERFMON,
            CapabilitySet::BPF,
        ] {
            remove_capability_from_bounding_set(capability).unwrap();
        }
        let own = std::env::current_exe().unwrap();
        Command::new(own)
            .args(["--ignored", "--exact", "played_without_capabilities"])
            .args(["--nocapture", "--test-threads=1"])
            .output()
            .unwrap()
    });
    let output = played.join().unwrap();
    let printed = String::from_utf8_lossy(&output.stdout);
    println!("{printed}{}", String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && printed.contains(" 1 passed"));
}

#[test]
#[ignore = "played by another test, which takes the capabilities away"]
fn played_without_capabilities() {
    let facts = Facts::gather();
    tells(facts.may_load.as_ref().unwrap_err(), "CAP_BPF");
    measured_by_files(&facts, "CAP_BPF");
}

/// A machine with everything: the other tests take away from this.
#[test]
fn with_all_of_it_every_part_of_the_probes_is_attached() {
    let facts = Facts::gather();
    let (plan, counters) = measured_by_probes(&facts);
    for part in &plan.parts {
        println!("{:?}: {:?}", part.part, part.off);
    }
    for (figure, choice) in plan.figures() {
        println!("{figure}: {choice:?}");
    }
    assert!(plan.parts.iter().all(|part| part.off.is_none()));
    assert!(matches!(plan.attach, Attach::Btf(_)));
    assert!(counters.reclaim.is_some() && counters.network.is_some());
    let disk = counters.disk.unwrap();
    assert_eq!(disk.source, MeasureSource::Ebpf);
}

#[test]
fn without_btf_plain_probes_measure_the_time_and_files_the_rest() {
    play("played_without_btf", "mount -t tmpfs tmpfs /sys/kernel/btf");
}

#[test]
#[ignore = "played by another test, which hides the kernel's BTF"]
fn played_without_btf() {
    let facts = Facts::gather();
    tells(facts.fields.as_ref().unwrap_err(), "CONFIG_DEBUG_INFO_BTF");
    let (plan, counters) = measured_by_probes(&facts);
    assert_eq!(plan.attach, Attach::Plain);
    for figure in ["run_queue", "reclaim", "processes"] {
        let none = choice(&plan, figure);
        assert_eq!(none.source, None, "{figure}");
        tells(&none.why, "BTF");
    }
    for figure in ["disk", "faults", "oom_kills"] {
        let by_files = choice(&plan, figure);
        assert_eq!(by_files.source, Some(MeasureSource::Files), "{figure}");
        tells(&by_files.why, "BTF");
    }
    assert_eq!(counters.disk.unwrap().source, MeasureSource::Files);
    assert_eq!(counters.faults.unwrap().source, MeasureSource::Files);
    assert_eq!(counters.run_queue, None);
}

#[test]
fn without_tracefs_the_probes_measure() {
    let script = "while umount -l /sys/kernel/tracing 2>/dev/null; do :; done\n\
                  while umount -l /sys/kernel/debug 2>/dev/null; do :; done";
    play("played_without_tracefs", script);
}

#[test]
#[ignore = "played by another test, which unmounts tracefs"]
fn played_without_tracefs() {
    let facts = Facts::gather();
    assert!(!facts.tracefs);
    assert!(!Path::new("/sys/kernel/tracing/events").exists());
    let (_, counters) = measured_by_probes(&facts);
    assert!(counters.run_queue.is_some() && counters.switches.is_some());
}

#[test]
fn without_pressure_everything_else_is_measured() {
    play(
        "played_without_pressure",
        "mount -t tmpfs tmpfs /proc/pressure",
    );
}

#[test]
#[ignore = "played by another test, which hides the machine's pressure, and on kernels without it"]
fn played_without_pressure() {
    let facts = Facts::gather();
    assert!(!facts.pressure);
    assert!(!Path::new("/proc/pressure/cpu").exists() || fs::read("/proc/pressure/cpu").is_err());
    let (plan, counters) = measured_by_probes(&facts);
    let pressure = choice(&plan, "pressure");
    assert_eq!(pressure.source, None);
    tells(&pressure.why, "psi=1");
    assert!(counters.memory.is_some_and(|memory| memory.usage_bytes > 0));
}
