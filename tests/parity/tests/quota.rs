//! Whose fault a wait is: what a container's own quota causes is not blamed on its neighbours, and what they cause is not
//! blamed on the quota.
//!
//! **What may be blamed.** A runnable task waits because another runs on its CPU, or because its quota holds it back.
//! While it waits and its CPU stands idle, only the quota can be the cause. So of each wait the most that others can
//! have caused (siblings in the same container are others here, see `RunQueue::wait_blamed_ns`) is the time for which
//! its CPU was busy meanwhile, which the kernel's tracer tells of every wait ([`Trace`]).
//!
//! **A case** is a stretch between two readings of the probes in which the quota has held the container back. It is
//! wrong if the probes have blamed more of it on others than the CPU was busy in all waits that ended in it, and a
//! moment for each: a processor takes that long to come out of its sleep. What the hypervisor has stolen of that CPU
//! meanwhile is nobody's fault: so much more may be blamed. It steals more than it says, in pauses that come a few times in
//! a thousand cases, so as many may be wrong ([`PAUSES`]); a mistake of the probes would show in most. A wait counts when it ends; one that ended just while a
//! reading was taken counts in the truth of both stretches.
//!
//! That says little where others keep the CPU busy while the quota holds the container back. So of a container with one
//! thread, a case is wrong too if the kernel's account of the time held back (`cpu.stat`) has grown and the own part
//! of the waits does not follow. It follows when the thread comes to its CPU; so what is missing at a reading counts
//! only if it is missing at all later readings too.

#![allow(clippy::unwrap_used, reason = "the helpers of tests fail as tests do")]

use std::thread;
use std::time::{Duration, Instant};

use ebb_agent::probe::{ContainerFiles, Detail, Facts, Sample};
use ebb_tests_parity::Container;
use ebb_tests_parity::measured::{alone, differ_percent, finish, of, on_cpu_ns, probes};
use ebb_tests_parity::rows::Rows;
use ebb_tests_parity::switches::{Trace, Wait};
use rustix::time::{ClockId, clock_gettime};

const LOAD: &str = env!("CARGO_BIN_EXE_ebb-parity-load");
/// What the load calls its threads.
const COMM: &str = "ebb-held";
const CASES: usize = 1000;
const DEADLINE: Duration = Duration::from_secs(40);
/// The load has started when it was held back for so long: before that its threads have other names.
const STARTED_NS: u64 = 50_000_000;
const PERIOD_US: u64 = 5_000;
const QUOTA_US: u64 = 1_000;
/// For each wait: what a processor takes to wake up, and the hypervisor to let it, which was seen to take a little more
/// than a millisecond. Half of what the quota holds back at a time, so that no such wait can hide in it.
const MOMENT_NS: u64 = (PERIOD_US - QUOTA_US) / 2 * 1000;

/// Most cases that a hypervisor may spoil by pauses of which it does not tell.
const PAUSES: usize = CASES * 2 / 1000;

/// What the probes say of a container's waits, and between which moments they said it.
#[derive(Clone, Copy, Debug)]
struct Reading {
    before_ns: u64,
    after_ns: u64,
    own_ns: u64,
    blamed_ns: u64,
    /// The kernel's account of the time held back, read afterwards.
    held_ns: u64,
    /// What the hypervisor has stolen of the CPU, read afterwards, in ticks.
    stolen_ticks: u64,
}

/// A tick of the kernel's accounts, in nanoseconds.
const TICK_NS: u64 = 10_000_000;

/// What the hypervisor has stolen of a CPU since the start, in ticks.
fn stolen_ticks(cpu: &str) -> u64 {
    let stat = std::fs::read_to_string("/proc/stat").unwrap();
    let name = format!("cpu{cpu}");
    let mut lines = stat.lines().map(str::split_whitespace);
    let mut line = lines.find(|line| line.clone().next() == Some(&name));
    let stolen = line.as_mut().and_then(|line| line.nth(8));
    stolen.expect("the CPU has a line").parse().unwrap()
}

fn now_ns() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    now.tv_sec.cast_unsigned() * 1_000_000_000 + now.tv_nsec.cast_unsigned()
}

/// One container with a quota on a CPU of its own.
struct Held {
    name: &'static str,
    /// Cgroups that it makes itself.
    below: &'static str,
    cpu: &'static str,
    threads: &'static str,
    nap_us: &'static str,
}

/// Holds two containers back, each on its CPU, until there are enough cases of each.
fn compare(helds: [Held; 2]) {
    let _alone = alone();
    let facts = Facts::gather();
    let containers = helds
        .each_ref()
        .map(|one| Container::new(&facts, one.name).unwrap());
    let mut sampler = probes(&facts);
    for (held, container) in helds.iter().zip(&containers) {
        container.limit_cpu(QUOTA_US, PERIOD_US).unwrap();
        sampler
            .register(held.name, &container.paths, false)
            .unwrap();
    }
    let mut yardsticks = containers
        .each_ref()
        .map(|one| ContainerFiles::open(&one.paths));
    let trace = Trace::start(COMM);
    let ms = DEADLINE.as_millis().to_string();
    let mut loads: Vec<_> = helds
        .iter()
        .zip(&containers)
        .map(|(held, container)| {
            let arguments = ["held", &ms, held.threads, held.cpu, held.nap_us];
            container.spawn_below(held.below, LOAD, &arguments).unwrap()
        })
        .collect();
    let mut readings = [Vec::new(), Vec::new()];
    let deadline = Instant::now() + DEADLINE;
    while Instant::now() < deadline && readings.iter().any(|one| cases(one) < CASES + 10) {
        thread::sleep(Duration::from_micros(PERIOD_US));
        let before_ns = now_ns();
        let sample = sampler.sample(Detail::Quick);
        let after_ns = now_ns();
        for ((held, files), readings) in helds.iter().zip(&mut yardsticks).zip(&mut readings) {
            let run_queue = of(&sample, held.name).run_queue.unwrap();
            if run_queue.wait_own_ns < Some(STARTED_NS) {
                continue;
            }
            readings.push(Reading {
                before_ns,
                after_ns,
                own_ns: run_queue.wait_own_ns.expect("the kernel tells no quota"),
                blamed_ns: run_queue.wait_blamed_ns(),
                held_ns: files.throttling().unwrap().throttled_ns,
                stolen_ticks: stolen_ticks(held.cpu),
            });
        }
    }
    for load in &mut loads {
        load.kill().unwrap();
    }
    for mut load in loads {
        load.wait().unwrap();
    }
    let waits = trace.stop();
    for (held, readings) in helds.iter().zip(&readings) {
        judge(held, readings, &waits);
    }
}

fn is_case(pair: &[Reading]) -> bool {
    pair[1].own_ns > pair[0].own_ns
}

fn cases(readings: &[Reading]) -> usize {
    readings.windows(2).filter(|pair| is_case(pair)).count()
}

fn judge(held: &Held, readings: &[Reading], waits: &[Wait]) {
    let cpu: u64 = held.cpu.parse().unwrap();
    let waits: Vec<Wait> = waits
        .iter()
        .copied()
        .filter(|wait| wait.cpu == cpu)
        .collect();
    let (first, last) = (readings[0], readings[readings.len() - 1]);
    let within = waits
        .iter()
        .filter(|wait| first.after_ns < wait.ended_ns && wait.ended_ns < last.before_ns);
    // The end of some was not seen: of those it is only known how long they were at the most.
    let (seen_ns, wait_ns, busy_ns) = within.fold((0, 0, 0), |sum, wait| {
        let is_seen = u64::from(wait.earliest_ns == wait.ended_ns);
        let (seen_ns, wait_ns, busy_ns) = sum;
        (
            seen_ns + is_seen * wait.wait_ns,
            wait_ns + wait.wait_ns,
            busy_ns + wait.busy_ns,
        )
    });
    let own_ns = last.own_ns - first.own_ns;
    let blamed_ns = last.blamed_ns - first.blamed_ns;
    let held_ns = last.held_ns - first.held_ns;
    let mut rows = Rows::new("quota", held.name);
    rows.at_least("cases", cases(readings) as f64, "", CASES as f64);
    rows.figure("held back, by the kernel", held_ns as f64 / 1e6, "ms");
    rows.figure(
        "waited at the most, by the tracer",
        wait_ns as f64 / 1e6,
        "ms",
    );
    rows.figure(
        "waited at the least, by the tracer",
        seen_ns as f64 / 1e6,
        "ms",
    );
    rows.figure("waited while the CPU was busy", busy_ns as f64 / 1e6, "ms");
    rows.figure("its own part", own_ns as f64 / 1e6, "ms");
    rows.figure("blamed on others", blamed_ns as f64 / 1e6, "ms");
    let (wrong, worst_ns) = blamed_beyond_busy(readings, &waits);
    let name = "cases in which more is blamed on others than they can have caused";
    rows.at_most(name, wrong as f64, "", PAUSES as f64);
    rows.figure("the worst of them", worst_ns as f64 / 1e6, "ms");
    if held.threads == "1" {
        let (wrong, worst_ns) = held_and_not_its_own(readings);
        let name = "cases in which it was held back and that is not its own part";
        rows.at_most(name, wrong as f64, "", 0.0);
        rows.figure("the worst of these", worst_ns as f64 / 1e6, "ms");
        rows.at_most(
            "own part: difference to the kernel",
            differ_percent(own_ns, held_ns),
            "%",
            2.0,
        );
    }
    // Not simply everything is its own part: both together are all waits.
    let all_ns = own_ns + blamed_ns;
    let outside_ns = seen_ns
        .saturating_sub(all_ns)
        .max(all_ns.saturating_sub(wait_ns));
    let error = 100.0 * outside_ns as f64 / wait_ns as f64;
    rows.at_most("waits: difference to the tracer", error, "%", 2.0);
    rows.finish();
}

fn blamed_beyond_busy(readings: &[Reading], waits: &[Wait]) -> (usize, u64) {
    let (mut wrong, mut worst_ns) = (0, 0);
    for (at, pair) in readings.windows(2).enumerate() {
        if !is_case(pair) {
            continue;
        }
        // What is stolen comes to the account with a tick, which may be after the reading.
        let later = readings.get(at + 2).unwrap_or(&pair[1]);
        let stolen = match later.stolen_ticks - pair[0].stolen_ticks {
            0 => 0,
            ticks => (ticks + 1) * TICK_NS,
        };
        let ended = waits.iter().filter(|wait| {
            pair[0].before_ns <= wait.ended_ns && wait.earliest_ns <= pair[1].after_ns
        });
        let most: u64 = ended.map(|wait| wait.busy_ns + MOMENT_NS).sum();
        let over_ns = (pair[1].blamed_ns - pair[0].blamed_ns).saturating_sub(most + stolen);
        if over_ns > 0 {
            println!("{over_ns} ns too much of {pair:?}");
        }
        wrong += usize::from(over_ns > 0);
        worst_ns = worst_ns.max(over_ns);
    }
    (wrong, worst_ns)
}

fn held_and_not_its_own(readings: &[Reading]) -> (usize, u64) {
    let mut missing: Vec<u64> = readings
        .iter()
        .map(|one| one.held_ns.saturating_sub(one.own_ns))
        .collect();
    let mut stays = u64::MAX;
    for one in missing.iter_mut().rev() {
        stays = stays.min(*one);
        *one = stays;
    }
    // The last ones may be of a wait that was not over yet: nothing later tells whether they stay.
    missing.truncate(missing.len() * 99 / 100);
    let steps = missing.windows(2).map(|pair| pair[1] - pair[0]);
    steps.fold((0, 0), |(wrong, worst_ns), step| {
        (wrong + usize::from(step > MOMENT_NS), worst_ns.max(step))
    })
}

#[test]
fn one_thread_in_its_own_and_in_nested_cgroups() {
    compare([
        Held {
            name: "one thread",
            below: "",
            cpu: "0",
            threads: "1",
            nap_us: "0",
        },
        Held {
            name: "one thread in nested cgroups",
            below: "its/own",
            cpu: "1",
            threads: "1",
            nap_us: "0",
        },
    ]);
}

#[test]
fn several_threads_and_threads_that_wake_while_they_are_held_back() {
    compare([
        Held {
            name: "three threads",
            below: "",
            cpu: "0",
            threads: "3",
            nap_us: "0",
        },
        Held {
            name: "four threads that sleep and wake",
            below: "",
            cpu: "1",
            threads: "4",
            nap_us: "1500",
        },
    ]);
}

/// What a container that is never held back and its neighbour spin beside each other.
const SPIN_MS: u64 = 3000;

/// One spinner beside another on one CPU, with a quota or without.
struct Beside {
    own_ns: u64,
    blamed_ns: u64,
    on_cpu_ns: u64,
    held_ns: u64,
    wall_ns: u64,
    neighbour_ns: u64,
}

impl Beside {
    /// The least and the most that others can have kept it waiting: what it spun and what passed until it had ended,
    /// without the time for which it had the CPU or was held back.
    fn waited_for_others_ns(&self) -> (f64, f64) {
        let used_ns = self.on_cpu_ns + self.held_ns;
        let least = (SPIN_MS * 1_000_000).saturating_sub(used_ns);
        (least as f64, self.wall_ns.saturating_sub(used_ns) as f64)
    }
}

fn beside_a_neighbour(quota: bool) -> Beside {
    let facts = Facts::gather();
    let [one, neighbour] = ["one", "neighbour"].map(|name| Container::new(&facts, name).unwrap());
    if quota {
        one.limit_cpu(2 * QUOTA_US, 2 * PERIOD_US).unwrap();
    }
    let mut sampler = probes(&facts);
    sampler.register("one", &one.paths, false).unwrap();
    sampler
        .register("neighbour", &neighbour.paths, true)
        .unwrap();
    let mut hog = neighbour.spawn(LOAD, &["spin", "60000", "0"]).unwrap();
    let neighbour_ns = |sample: &Sample<&'static str>| on_cpu_ns(of(sample, "neighbour"));
    let mut start = sampler.sample(Detail::Quick);
    let deadline = Instant::now() + DEADLINE;
    while neighbour_ns(&start) < 50_000_000 {
        assert!(Instant::now() < deadline, "the neighbour gets no CPU");
        thread::sleep(Duration::from_millis(10));
        start = sampler.sample(Detail::Quick);
    }
    let from = Instant::now();
    let ms = SPIN_MS.to_string();
    finish(one.spawn(LOAD, &["spin", &ms, "0"]).unwrap());
    let end = sampler.sample(Detail::Quick);
    let wall_ns = u64::try_from(from.elapsed().as_nanos()).unwrap();
    hog.kill().unwrap();
    hog.wait().unwrap();
    let run_queue = of(&end, "one").run_queue.unwrap();
    Beside {
        own_ns: run_queue.wait_own_ns.unwrap(),
        blamed_ns: run_queue.wait_blamed_ns(),
        on_cpu_ns: on_cpu_ns(of(&end, "one")),
        held_ns: ContainerFiles::open(&one.paths)
            .throttling()
            .unwrap()
            .throttled_ns,
        wall_ns,
        neighbour_ns: neighbour_ns(&end) - neighbour_ns(&start),
    }
}

#[test]
fn a_neighbour_alone_is_to_blame_for_all_of_a_wait() {
    let _alone = alone();
    let one = beside_a_neighbour(false);
    let mut rows = Rows::new("quota", "a neighbour on the same CPU, and no quota");
    rows.exactly("its own part, ns", one.own_ns, 0);
    rows.figure(
        "the neighbour's CPU time",
        one.neighbour_ns as f64 / 1e6,
        "ms",
    );
    // The neighbour ran while it waited, but for the moments before it had come to its CPU; others may have, too.
    let share = 100.0 * one.blamed_ns as f64 / one.neighbour_ns as f64;
    rows.at_least(
        "blamed on others, of the neighbour's CPU time",
        share,
        "%",
        95.0,
    );
    blamed_in_full(&mut rows, &one);
    rows.finish();
}

#[test]
fn a_quota_and_a_neighbour_share_the_blame_as_the_kernel_says() {
    let _alone = alone();
    let one = beside_a_neighbour(true);
    let mut rows = Rows::new("quota", "a neighbour on the same CPU, and a quota");
    rows.at_least(
        "held back, by the kernel",
        one.held_ns as f64 / 1e6,
        "ms",
        100.0,
    );
    rows.figure("its own part", one.own_ns as f64 / 1e6, "ms");
    rows.figure("blamed on others", one.blamed_ns as f64 / 1e6, "ms");
    let error = differ_percent(one.own_ns, one.held_ns);
    rows.at_most("own part: difference to the kernel", error, "%", 5.0);
    blamed_in_full(&mut rows, &one);
    rows.finish();
}

fn blamed_in_full(rows: &mut Rows, one: &Beside) {
    let (least, most) = one.waited_for_others_ns();
    let blamed = one.blamed_ns as f64;
    rows.at_least(
        "blamed on others, of the least that is theirs",
        100.0 * blamed / least,
        "%",
        98.0,
    );
    rows.at_most(
        "blamed on others, of the most that is theirs",
        100.0 * blamed / most,
        "%",
        101.0,
    );
}
