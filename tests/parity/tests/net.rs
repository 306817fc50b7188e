//! Bytes and packets of containers against what the kernel counts at the interfaces (`/proc/net/dev`), and against what
//! the programs sent.
//!
//! An interface counts a frame: 14 bytes of Ethernet before the IP packet. What else passes it are a few frames that no
//! socket of the containers sends: neighbour discovery, and reports of multicast groups. Both stay within the 1 %.

#![allow(clippy::unwrap_used, reason = "the helpers of tests fail as tests do")]

use std::io::{BufRead, BufReader};
use std::net::{TcpListener, UdpSocket};
use std::process::Child;

use ebb_agent::probe::{Detail, Facts, Network, Sampler};
use ebb_tests_parity::Container;
use ebb_tests_parity::measured::{alone, differ_percent, finish, nothing_lost, of, probes, told};
use ebb_tests_parity::namespaces::{ADDRESSES, Namespaces};
use ebb_tests_parity::rows::Rows;

const LOAD: &str = env!("CARGO_BIN_EXE_ebb-parity-load");
const MAX_PERCENT: f64 = 1.0;
const ETHERNET_BYTES: u64 = 14;
/// Payload of a TCP packet on an interface of 1,500 bytes, with time stamps.
const SEGMENT_BYTES: u64 = 1448;
/// What stands before it: Ethernet, IP, TCP with time stamps.
const HEADERS_BYTES: u64 = ETHERNET_BYTES + 20 + 32;
const TCP_BYTES: &str = "50000000";
const UDP_BYTES: &str = "7000000";

fn network(sampler: &mut Sampler<&'static str>, name: &str) -> Network {
    let sample = sampler.sample(Detail::Quick);
    of(&sample, name)
        .network
        .expect("the probes tell no traffic")
}

fn less(after: Network, before: Network) -> Network {
    Network {
        in_bytes: after.in_bytes - before.in_bytes,
        in_packets: after.in_packets - before.in_packets,
        out_bytes: after.out_bytes - before.out_bytes,
        out_packets: after.out_packets - before.out_packets,
    }
}

/// A receiver and a sender, whose traffic the probes count from now on.
fn receiver_and_sender(sender_is_revocable: bool) -> ([Container; 2], Sampler<&'static str>) {
    let facts = Facts::gather();
    let containers = ["receiver", "sender"].map(|name| Container::new(&facts, name).unwrap());
    let mut sampler = probes(&facts);
    let [receiver, sender] = containers.each_ref().map(|container| &container.paths);
    sampler.register("receiver", receiver, false).unwrap();
    sampler
        .register("sender", sender, sender_is_revocable)
        .unwrap();
    (containers, sampler)
}

/// Waits until a receiver listens, then has a sender send. Gives the payload that was sent, which must all have come.
fn transfer(mut receiver: Child, sender: impl FnOnce() -> Child, rows: &mut Rows) -> u64 {
    let mut output = BufReader::new(receiver.stdout.take().unwrap());
    let mut line = String::new();
    output.read_line(&mut line).unwrap();
    assert_eq!(line.trim(), "listening");
    let sent = told(&finish(sender()), "sent");
    line.clear();
    output.read_line(&mut line).unwrap();
    assert!(receiver.wait().unwrap().success());
    rows.exactly("payload received", told(&line, "received"), sent);
    sent
}

/// One container sends to the other over the pair of interfaces.
fn over_interfaces(protocol: &'static str, bytes: &str, cut: bool) {
    let _alone = alone();
    let namespaces = Namespaces::new(cut);
    let ([receiver, sender], mut sampler) = receiver_and_sender(false);
    let before = [0, 1].map(|at| namespaces.counted(at));
    let address = format!("{}:7007", ADDRESSES[0]);
    let cut_later = if cut { ", cut by the card" } else { "" };
    let mut rows = Rows::new(
        "net",
        &format!("{protocol} between two namespaces{cut_later}"),
    );
    let listener = namespaces.spawn(0, &receiver, LOAD, &["receive", protocol, &address]);
    let send = || namespaces.spawn(1, &sender, LOAD, &["send", protocol, &address, bytes]);
    let sent = transfer(listener, send, &mut rows);
    for (at, name) in ["receiver", "sender"].into_iter().enumerate() {
        let ours = network(&mut sampler, name);
        let theirs = less(namespaces.counted(at), before[at]);
        for (what, bytes, packets, frames_bytes, frames) in [
            (
                "in",
                ours.in_bytes,
                ours.in_packets,
                theirs.in_bytes,
                theirs.in_packets,
            ),
            (
                "out",
                ours.out_bytes,
                ours.out_packets,
                theirs.out_bytes,
                theirs.out_packets,
            ),
        ] {
            rows.figure(&format!("{name}, {what}: frames"), frames as f64, "");
            // Those that are to be cut are one frame to the interface, and one header to the probes.
            let headers = if cut { frames } else { packets };
            let error = differ_percent(bytes + ETHERNET_BYTES * headers, frames_bytes);
            rows.at_most(
                &format!("{name}, {what}: error of bytes"),
                error,
                "%",
                MAX_PERCENT,
            );
            // A few frames of the namespace's own beside few packets would be a large part of them.
            let carries = (name == "receiver") == (what == "in");
            let payload = frames_bytes.saturating_sub(frames * HEADERS_BYTES);
            let expected = if cut && carries {
                payload.div_ceil(SEGMENT_BYTES)
            } else {
                frames
            };
            // The last piece of each that is cut may be a small one.
            let small = if cut && carries { frames as f64 } else { 0.0 };
            let apart = packets.abs_diff(expected) as f64;
            let allowed = expected as f64 * MAX_PERCENT / 100.0 + small + FRAMES_OF_ITS_OWN;
            rows.at_most(
                &format!("{name}, {what}: packets apart"),
                apart,
                "",
                allowed,
            );
        }
    }
    let out = network(&mut sampler, "sender").out_bytes;
    rows.at_least(
        "bytes sent for each of payload",
        out as f64 / sent as f64,
        "",
        1.0,
    );
    nothing_lost(&sampler);
    rows.finish();
}

/// Frames of a namespace that comes up: neighbour discovery, group reports, router solicitations.
const FRAMES_OF_ITS_OWN: f64 = 30.0;

#[test]
fn a_stream_between_two_namespaces() {
    over_interfaces("tcp", TCP_BYTES, false);
}

#[test]
fn a_stream_that_a_card_would_cut() {
    over_interfaces("tcp", TCP_BYTES, true);
}

#[test]
fn datagrams_between_two_namespaces() {
    over_interfaces("udp", UDP_BYTES, false);
}

/// One container sends to another over the machine's own loopback.
fn over_loopback(protocol: &'static str, bytes: &str) {
    let _alone = alone();
    let ([receiver, sender], mut sampler) = receiver_and_sender(true);
    let port = if protocol == "tcp" {
        TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port()
    } else {
        UdpSocket::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port()
    };
    let address = format!("127.0.0.1:{port}");
    let mut rows = Rows::new("net", &format!("{protocol} over the machine's loopback"));
    let listener = receiver.spawn(LOAD, &["receive", protocol, &address]);
    let send = || {
        let sending = ["send", protocol, &address, bytes];
        sender.spawn(LOAD, &sending).unwrap()
    };
    let sent = transfer(listener.unwrap(), send, &mut rows);
    let (from, to) = (
        network(&mut sampler, "sender"),
        network(&mut sampler, "receiver"),
    );
    rows.figure("bytes sent by the sender", from.out_bytes as f64, "B");
    // What one sends the other receives: nothing is lost on a loopback but what a full socket drops, and is sent anew.
    let error = differ_percent(to.in_bytes, from.out_bytes);
    rows.at_most(
        "difference of what came to what went",
        error,
        "%",
        MAX_PERCENT,
    );
    let error = differ_percent(from.in_bytes, to.out_bytes);
    rows.at_most(
        "difference of answers that came to those that went",
        error,
        "%",
        MAX_PERCENT,
    );
    // Headers: 20 bytes of IP and 8 of UDP, or up to 60 of TCP for each packet, which it cuts as large as loopback lets.
    let headers = from.out_packets * if protocol == "udp" { 28 } else { 60 };
    let over = from.out_bytes as f64 / sent as f64;
    rows.at_least("bytes for each of payload", over, "", 1.0);
    let most = (sent + headers) as f64 / sent as f64 + MAX_PERCENT / 100.0;
    rows.at_most("bytes for each of payload", over, "", most);
    nothing_lost(&sampler);
    rows.finish();
}

#[test]
fn a_stream_over_the_machines_loopback() {
    over_loopback("tcp", TCP_BYTES);
}

#[test]
fn datagrams_over_the_machines_loopback() {
    over_loopback("udp", UDP_BYTES);
}
