//! Traffic of containers with network devices: what is counted against the interfaces, and limits against what passes.
//!
//! A container stands in one of two network namespaces that a pair of interfaces joins; whom it talks to stands in the
//! other one and in no container. Where a limit holds by drops, rates are taken once it has begun to drop: what may be ahead
//! of it is used up then, and over the time that is looked at only what TCP leaves of it is gained or lost.

#![allow(clippy::unwrap_used, reason = "the helpers of tests fail as tests do")]

use std::io::{BufRead, BufReader};
use std::process::{Child, ChildStdout};
use std::thread;
use std::time::{Duration, Instant};

use ebb_agent::probe::{ContainerCounters, Detail, Facts, Sampler, Traffic};
use ebb_tests_parity::Container;
use ebb_tests_parity::measured::{
    alone, differ_percent, finish, nothing_lost, of, probes, probes_with, told,
};
use ebb_tests_parity::namespaces::{ADDRESSES, Namespaces};
use ebb_tests_parity::pins::PinFolder;
use ebb_tests_parity::rows::Rows;

const LOAD: &str = env!("CARGO_BIN_EXE_ebb-parity-load");
const MB: u64 = 1_000_000;
/// Of the namespaces.
const OUTSIDE: usize = 0;
const INSIDE: usize = 1;
/// More than any test waits for.
const ENDLESS: &str = "1000000000000000";
const LIMIT: u64 = 8 * MB;
/// So far may a rate be from its limit.
const MAX_PERCENT: f64 = 15.0;
/// What a limited stream is slower by than one that is not, at least.
const FACTOR: f64 = 3.0;
/// So long rates are looked at: of this, TCP's silence of 200 ms at either end is a small part.
const LOOK: Duration = Duration::from_secs(3);
const BIN: Duration = Duration::from_millis(50);
/// How many times more, and less, than its limit a paced container may send in that time. What the card cuts leaves in
/// pieces of 64 kB.
const UNEVEN: f64 = 2.0;
const PACKET_BYTES: f64 = 1_500.0;
const PAUSE: Duration = Duration::from_millis(10);
const DEADLINE: Duration = Duration::from_secs(30);
const ETHERNET_BYTES: u64 = 14;
/// What the interfaces carry for themselves: neighbour discovery, group reports.
const BESIDE_BYTES: u64 = 10_000;

/// The direction of a flow, as the container sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    In,
    Out,
}

impl Way {
    fn bytes(self, traffic: Traffic) -> u64 {
        match self {
            Self::In => traffic.in_bytes,
            Self::Out => traffic.out_bytes,
        }
    }
}

/// A program that is ended with the test, however that ends.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// A stream that goes on.
struct Stream {
    ends: [Running; 2],
    /// Of the receiver, which fails when it cannot print.
    output: BufReader<ChildStdout>,
}

fn now(sampler: &mut Sampler<&'static str>, name: &str) -> (u64, ContainerCounters) {
    let sample = sampler.sample(Detail::Quick);
    (sample.taken_ns, of(&sample, name).clone())
}

fn traffic(sampler: &mut Sampler<&'static str>, name: &str) -> Traffic {
    let counters = now(sampler, name).1;
    counters.traffic.expect("the probes tell no traffic")
}

/// Waits until a limit is used up: what is received is dropped then, and what is sent goes at its pace once so much has
/// gone that the first moments do not count.
fn until_full(sampler: &mut Sampler<&'static str>, name: &str, way: Way, limit: u64) {
    match way {
        Way::In => until_dropped(sampler, name, Traffic::default()),
        Way::Out => {
            let deadline = Instant::now() + DEADLINE;
            while traffic(sampler, name).out_bytes < limit {
                assert!(Instant::now() < deadline, "nothing is sent");
                thread::sleep(PAUSE);
            }
        }
    }
}

/// Waits until the limit has dropped something since.
fn until_dropped(sampler: &mut Sampler<&'static str>, name: &str, before: Traffic) {
    let deadline = Instant::now() + DEADLINE;
    while traffic(sampler, name).dropped_packets == before.dropped_packets {
        assert!(Instant::now() < deadline, "nothing is dropped");
        thread::sleep(PAUSE);
    }
}

/// Bytes a second of each of these containers, over the same time.
fn rates(sampler: &mut Sampler<&'static str>, names: &[&str], way: Way) -> Vec<f64> {
    let read = |sampler: &mut Sampler<&'static str>| {
        let sample = sampler.sample(Detail::Quick);
        let bytes = |name: &&str| way.bytes(of(&sample, name).traffic.unwrap());
        let bytes: Vec<u64> = names.iter().map(bytes).collect();
        (sample.taken_ns, bytes)
    };
    let (from_ns, before) = read(sampler);
    thread::sleep(LOOK);
    let (to_ns, after) = read(sampler);
    let seconds = (to_ns - from_ns) as f64 / 1e9;
    let pairs = after.iter().zip(&before);
    pairs
        .map(|(after, before)| (after - before) as f64 / seconds)
        .collect()
}

fn rate(sampler: &mut Sampler<&'static str>, name: &str, way: Way) -> f64 {
    rates(sampler, &[name], way)[0]
}

fn near(rows: &mut Rows, what: &str, rate: f64, limit: u64) {
    rows.figure(what, rate / 1e6, "MB/s");
    let error = differ_percent(rate as u64, limit);
    rows.at_most(&format!("{what}: from the limit"), error, "%", MAX_PERCENT);
}

/// Waits until a receiver listens.
fn listening(receiver: Child) -> (Running, BufReader<ChildStdout>) {
    let mut receiver = Running(receiver);
    let mut output = BufReader::new(receiver.0.stdout.take().unwrap());
    let mut line = String::new();
    output.read_line(&mut line).unwrap();
    assert_eq!(line.trim(), "listening");
    (receiver, output)
}

/// A stream between a container and the outside.
fn stream(
    namespaces: &Namespaces,
    container: &Container,
    way: Way,
    port: u16,
    bytes: &str,
) -> Stream {
    let (to, from) = match way {
        Way::In => (INSIDE, OUTSIDE),
        Way::Out => (OUTSIDE, INSIDE),
    };
    let spawn = |at, arguments: &[&str]| {
        if at == INSIDE {
            namespaces.spawn(at, container, LOAD, arguments)
        } else {
            namespaces.spawn_outside(at, LOAD, arguments)
        }
    };
    let address = format!("{}:{port}", ADDRESSES[to]);
    let (receiver, output) = listening(spawn(to, &["receive", "tcp", &address]));
    let sender = spawn(from, &["send", "tcp", &address, bytes]);
    Stream {
        ends: [Running(sender), receiver],
        output,
    }
}

/// Waits for the end of a stream that has one.
fn until_sent(mut stream: Stream) {
    let mut line = String::new();
    stream.output.read_line(&mut line).unwrap();
    assert!(told(&line, "received") > 0);
    let mut ended = stream.ends.iter_mut();
    assert!(ended.all(|one| one.0.wait().unwrap().success()));
}

/// Sends on the loopback of a container. Gives the time that it took.
fn loopback(namespaces: &Namespaces, container: &Container, bytes: u64) -> Duration {
    let address = "127.0.0.1:7010";
    let spawn = |arguments: &[&str]| namespaces.spawn(INSIDE, container, LOAD, arguments);
    let (mut receiver, mut output) = listening(spawn(&["receive", "tcp", address]));
    let start = Instant::now();
    finish(spawn(&["send", "tcp", address, &bytes.to_string()]));
    let mut line = String::new();
    output.read_line(&mut line).unwrap();
    let took = start.elapsed();
    assert!(receiver.0.wait().unwrap().success());
    assert_eq!(told(&line, "received"), bytes);
    took
}

#[test]
fn what_passes_a_device_is_counted_and_loopback_is_not() {
    let _alone = alone();
    let facts = Facts::gather();
    let namespaces = Namespaces::new(false);
    let container = Container::new(&facts, "counted").unwrap();
    let mut sampler = probes(&facts);
    sampler
        .register("counted", &container.paths, false)
        .unwrap();
    assert_eq!(traffic(&mut sampler, "counted"), Traffic::default());
    let before = namespaces.counted(INSIDE);
    for way in [Way::Out, Way::In] {
        until_sent(stream(&namespaces, &container, way, 7007, "50000000"));
    }
    let counters = now(&mut sampler, "counted").1;
    let (all, devices) = (counters.network.unwrap(), counters.traffic.unwrap());
    let theirs = namespaces.counted(INSIDE);
    let mut rows = Rows::new("traffic", "a container between a device and loopback");
    for (way, ours, packets, frames) in [
        (
            "in",
            devices.in_bytes,
            all.in_packets,
            theirs.in_bytes - before.in_bytes,
        ),
        (
            "out",
            devices.out_bytes,
            all.out_packets,
            theirs.out_bytes - before.out_bytes,
        ),
    ] {
        rows.at_least(&format!("{way}: counted"), ours as f64 / 1e6, "MB", 50.0);
        // Nothing is cut, so that each packet is a frame, with its own header before it.
        let beside = frames as f64 - (ours + ETHERNET_BYTES * packets) as f64;
        let what = format!("{way}: at the interface and not counted");
        rows.at_least(&what, beside, "B", 0.0);
        rows.at_most(&what, beside, "B", BESIDE_BYTES as f64);
    }
    rows.exactly("bytes in by devices of all", devices.in_bytes, all.in_bytes);
    rows.exactly(
        "bytes out by devices of all",
        devices.out_bytes,
        all.out_bytes,
    );
    loopback(&namespaces, &container, 20 * MB);
    let later = now(&mut sampler, "counted").1;
    assert_eq!(later.traffic, Some(devices), "loopback is no device");
    let grown = later.network.unwrap().in_bytes - all.in_bytes;
    rows.at_least("bytes in on loopback", grown as f64 / 1e6, "MB", 20.0);
    nothing_lost(&sampler);
    sampler.unregister(&"counted");
    let last = sampler.sample(Detail::Quick).ended;
    assert_eq!(
        last[0].1.traffic,
        Some(devices),
        "a last reading has it too"
    );
    rows.finish();
}

/// A stream is held to a limit, loopback is not, and the stream gets faster when the limit is taken away.
fn is_limited(way: Way, cut: bool, case: &str) {
    let _alone = alone();
    let facts = Facts::gather();
    let namespaces = Namespaces::new(cut);
    let container = Container::new(&facts, "limited").unwrap();
    let mut sampler = probes(&facts);
    assert!(!sampler.limit_network(&"limited", Some(LIMIT)), "not known");
    sampler
        .register("limited", &container.paths, false)
        .unwrap();
    assert!(sampler.limit_network(&"limited", Some(LIMIT)));
    let mut rows = Rows::new("traffic", case);
    let running = stream(&namespaces, &container, way, 7007, ENDLESS);
    until_full(&mut sampler, "limited", way, LIMIT);
    near(
        &mut rows,
        "limited",
        rate(&mut sampler, "limited", way),
        LIMIT,
    );
    let bytes = 20 * LIMIT;
    let took = loopback(&namespaces, &container, bytes);
    let on_loopback = bytes as f64 / took.as_secs_f64() / LIMIT as f64;
    rows.at_least("loopback, limits", on_loopback, "", FACTOR);
    assert!(sampler.limit_network(&"limited", None));
    let free = rate(&mut sampler, "limited", way);
    rows.figure("without a limit", free / 1e6, "MB/s");
    rows.at_least("without a limit, limits", free / LIMIT as f64, "", FACTOR);
    let dropped = traffic(&mut sampler, "limited").dropped_packets;
    rate(&mut sampler, "limited", way);
    let later = traffic(&mut sampler, "limited").dropped_packets;
    rows.exactly("dropped without a limit", later - dropped, 0);
    drop(running);
    nothing_lost(&sampler);
    rows.finish();
}

#[test]
fn what_is_sent_is_limited() {
    is_limited(Way::Out, false, "a stream that is sent");
}

#[test]
fn what_is_received_is_limited() {
    is_limited(Way::In, false, "a stream that is received");
}

#[test]
fn what_is_sent_to_be_cut_is_limited() {
    is_limited(Way::Out, true, "a stream that is sent and cut by the card");
}

#[test]
fn what_comes_joined_is_limited() {
    is_limited(Way::In, true, "a stream that is received joined");
}

/// Bytes a second over each of these short times, one after the other.
fn bins(sampler: &mut Sampler<&'static str>, name: &str, way: Way) -> Vec<f64> {
    let (mut at_ns, mut before) = (0, 0);
    let mut bins = Vec::new();
    for i in 0..=LOOK.as_nanos() / BIN.as_nanos() {
        let (now_ns, counters) = now(sampler, name);
        let bytes = way.bytes(counters.traffic.unwrap());
        if i > 0 {
            bins.push((bytes - before) as f64 * 1e9 / (now_ns - at_ns) as f64);
        }
        (at_ns, before) = (now_ns, bytes);
        thread::sleep(BIN);
    }
    bins
}

/// TCP is paced: hardly anything is dropped of it, and it sends at all times what it may.
fn is_paced(streams: u16, case: &str) {
    let _alone = alone();
    let facts = Facts::gather();
    let namespaces = Namespaces::new(true);
    let container = Container::new(&facts, "paced").unwrap();
    let mut sampler = probes(&facts);
    sampler.register("paced", &container.paths, false).unwrap();
    assert!(sampler.limit_network(&"paced", Some(20 * MB)));
    let ports = 7007..7007 + streams;
    let _running: Vec<Stream> = ports
        .map(|port| stream(&namespaces, &container, Way::Out, port, ENDLESS))
        .collect();
    let mut rows = Rows::new("traffic", case);
    for limit in [20 * MB, 40 * MB, 10 * MB] {
        assert!(sampler.limit_network(&"paced", Some(limit)));
        // Each socket hears of it with what comes back to it, and the parts of many are made equal in steps.
        thread::sleep(Duration::from_secs(1));
        let before = traffic(&mut sampler, "paced").dropped_packets;
        let mut bins = bins(&mut sampler, "paced", Way::Out);
        let dropped = traffic(&mut sampler, "paced").dropped_packets - before;
        let mean = bins.iter().sum::<f64>() / bins.len() as f64;
        bins.sort_by(f64::total_cmp);
        let part = |q: usize| bins[(bins.len() - 1) * q / 100] / limit as f64;
        near(&mut rows, &format!("{limit}"), mean, limit);
        rows.at_least("in 50 ms, p5, limits", part(5), "", 1.0 / UNEVEN);
        rows.at_most("in 50 ms, p95, limits", part(95), "", UNEVEN);
        let packets = mean * LOOK.as_secs_f64() / PACKET_BYTES;
        rows.at_most(
            "dropped of sent",
            dropped as f64 / packets * 100.0,
            "%",
            1.0,
        );
    }
    rows.finish();
}

#[test]
fn one_stream_is_paced() {
    is_paced(1, "one stream");
}

#[test]
fn many_streams_are_paced() {
    is_paced(8, "eight streams");
}

/// Paces its own socket, and sends.
const PACED_BY_ITSELF: &str = "
import socket, sys
sender = socket.create_connection((sys.argv[1], int(sys.argv[2])))
SO_MAX_PACING_RATE = 47
sender.setsockopt(socket.SOL_SOCKET, SO_MAX_PACING_RATE, int(sys.argv[3]))
while True:
    sender.sendall(bytes(1 << 16))
";

#[test]
fn a_pace_that_a_program_has_chosen_stays_below_a_limit_and_after_it() {
    const CHOSEN: u64 = 4 * MB;
    let _alone = alone();
    let facts = Facts::gather();
    let namespaces = Namespaces::new(true);
    let container = Container::new(&facts, "chosen").unwrap();
    let mut sampler = probes(&facts);
    sampler.register("chosen", &container.paths, false).unwrap();
    let (to, port) = (ADDRESSES[OUTSIDE], "7007");
    let address = format!("{to}:{port}");
    let receive = ["receive", "tcp", &address];
    let (_receiver, _output) = listening(namespaces.spawn_outside(OUTSIDE, LOAD, &receive));
    let arguments = ["-c", PACED_BY_ITSELF, to, port, &CHOSEN.to_string()];
    let _sender = Running(namespaces.spawn(INSIDE, &container, "python3", &arguments));
    until_full(&mut sampler, "chosen", Way::Out, CHOSEN / 4);
    let mut rows = Rows::new("traffic", "a stream that paces itself");
    for (limit, expected) in [
        (Some(20 * MB), CHOSEN),
        (Some(MB), MB),
        (None, CHOSEN),
        (Some(2 * MB), 2 * MB),
        (Some(20 * MB), CHOSEN),
    ] {
        assert!(sampler.limit_network(&"chosen", limit));
        // Its socket hears of it with what comes back to it.
        thread::sleep(Duration::from_secs(1));
        let sent = rate(&mut sampler, "chosen", Way::Out);
        near(&mut rows, &format!("{limit:?}"), sent, expected);
    }
    nothing_lost(&sampler);
    rows.finish();
}

/// A sender of datagrams hears nothing of those that are dropped; an error would end it.
#[test]
fn datagrams_beyond_a_limit_are_dropped_and_their_sender_goes_on() {
    let _alone = alone();
    let facts = Facts::gather();
    let namespaces = Namespaces::new(false);
    let container = Container::new(&facts, "flood").unwrap();
    let mut sampler = probes(&facts);
    sampler.register("flood", &container.paths, false).unwrap();
    assert!(sampler.limit_network(&"flood", Some(LIMIT)));
    let start = traffic(&mut sampler, "flood");
    let address = format!("{}:7007", ADDRESSES[OUTSIDE]);
    let flood = namespaces.spawn(INSIDE, &container, LOAD, &["flood", &address]);
    let mut flood = Running(flood);
    until_dropped(&mut sampler, "flood", start);
    let mut rows = Rows::new("traffic", "datagrams that nobody holds back");
    let sent = rate(&mut sampler, "flood", Way::Out);
    near(&mut rows, "limited", sent, LIMIT);
    let ended = flood.0.try_wait().unwrap();
    assert_eq!(ended, None, "it goes on");
    let dropped = traffic(&mut sampler, "flood").dropped_packets;
    rows.at_least("dropped packets", dropped as f64, "", 1.0);
    nothing_lost(&sampler);
    rows.finish();
}

#[test]
fn two_containers_have_each_its_own_limit() {
    const LIMITS: [u64; 2] = [4 * MB, 20 * MB];
    const NAMES: [&str; 2] = ["slow", "fast"];
    let _alone = alone();
    let facts = Facts::gather();
    let namespaces = Namespaces::new(true);
    let containers = NAMES.map(|name| Container::new(&facts, name).unwrap());
    let mut sampler = probes(&facts);
    let mut rows = Rows::new("traffic", "two containers");
    for way in [Way::Out, Way::In] {
        let mut running = Vec::new();
        for (i, container) in containers.iter().enumerate() {
            sampler.register(NAMES[i], &container.paths, false).unwrap();
            assert!(sampler.limit_network(&NAMES[i], Some(LIMITS[i])));
            let port = if i == 0 { 7007 } else { 7008 };
            running.push(stream(&namespaces, container, way, port, ENDLESS));
        }
        for (name, limit) in NAMES.into_iter().zip(LIMITS) {
            until_full(&mut sampler, name, way, limit);
        }
        let rates = rates(&mut sampler, &NAMES, way);
        for i in 0..NAMES.len() {
            near(
                &mut rows,
                &format!("{}, {way:?}", NAMES[i]),
                rates[i],
                LIMITS[i],
            );
        }
        drop(running);
    }
    nothing_lost(&sampler);
    rows.finish();
}

#[test]
fn a_limit_holds_while_no_agent_runs_and_for_the_next_one() {
    let _alone = alone();
    let facts = Facts::gather();
    let namespaces = Namespaces::new(true);
    let pins = PinFolder::new("traffic");
    let container = Container::new(&facts, "adopted").unwrap();
    let mut sampler = probes_with(&facts, &pins.options(16));
    sampler
        .register("adopted", &container.paths, false)
        .unwrap();
    assert!(sampler.limit_network(&"adopted", Some(LIMIT)));
    let running = stream(&namespaces, &container, Way::Out, 7007, ENDLESS);
    until_full(&mut sampler, "adopted", Way::Out, LIMIT);
    let (from_ns, before) = now(&mut sampler, "adopted");
    drop(sampler);
    thread::sleep(LOOK);
    let mut sampler = probes_with(&facts, &pins.options(16));
    sampler
        .register("adopted", &container.paths, false)
        .unwrap();
    sampler.settle();
    let (to_ns, after) = now(&mut sampler, "adopted");
    let (before, after) = (before.traffic.unwrap(), after.traffic.unwrap());
    let seconds = (to_ns - from_ns) as f64 / 1e9;
    let mut rows = Rows::new("traffic", "an agent that ends and comes back");
    let meanwhile = (after.out_bytes - before.out_bytes) as f64 / seconds;
    near(&mut rows, "meanwhile", meanwhile, LIMIT);
    let later = rate(&mut sampler, "adopted", Way::Out);
    near(&mut rows, "afterwards", later, LIMIT);
    drop(running);
    // The next one in its slot is as free as any.
    sampler.unregister(&"adopted");
    sampler
        .register("adopted", &container.paths, false)
        .unwrap();
    assert_eq!(traffic(&mut sampler, "adopted"), Traffic::default());
    let _running = stream(&namespaces, &container, Way::Out, 7009, ENDLESS);
    let free = rate(&mut sampler, "adopted", Way::Out);
    rows.at_least("anew, limits", free / LIMIT as f64, "", FACTOR);
    sampler.remove();
    assert!(!pins.0.exists(), "something is left on the bpf file system");
    rows.finish();
}
