//! Network bandwidth on the kernel: a task is held to what it asked for, also while no agent runs; what an owner leaves of
//! it is lent; and whoever fills the network without owning any of it leaves it when the owner wants it.
#![allow(clippy::unwrap_used, reason = "the helpers of tests fail as tests do")]

use std::fs::{self, File};
use std::io;
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener};
use std::os::fd::AsFd;
use std::process::Command;
use std::sync::mpsc;
use std::thread;

use ebb_tests_e2e::framework::Heard;
use ebb_tests_e2e::{Cluster, Framework};
use ebb_types::{
    Capability, ChoiceRule, ClusterState, CorrectionAction, Lots, Quantities, ResourceKind,
    Resources, Signal, TaskState, TaskUsage, Timestamp,
};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// What the agent has and the network carries, in megabytes a second.
const AGENT_FLAGS: [&str; 4] = ["--cpus", "1", "--network-bandwidth", "50MB/s"];
const LINK_MBIT: &str = "400mbit";
const MB: u64 = 1_000_000;
/// A test has no five minutes to get to know an owner.
const SETTINGS: &str = "[lending]\nwarm_up = '5s'\nhold = '1s'\ncool_down = '2s'\n";
const PORT: u16 = 9_000;
/// Reports of which the middle one counts.
const REPORTS: usize = 7;
/// How far the middle one may be from a limit, in thousandths of it.
const NEAR_PERMILLE: u64 = 150;

fn run(program: &str, arguments: &[&str]) {
    let status = Command::new(program).args(arguments).status();
    let status = status.unwrap_or_else(|error| {
        panic!("{program} cannot be started ({error}); cargo xtask parity installs it")
    });
    assert!(status.success(), "{program} {} failed", arguments.join(" "));
}

/// A network that ends in a network namespace where somebody takes whatever is sent there.
struct Link {
    name: String,
    address: Ipv4Addr,
}

impl Link {
    fn new(end: u8) -> Self {
        let id = std::process::id();
        let [high, low] = [id >> 8, id].map(|part| (part & 0xff) as u8);
        let near = Ipv4Addr::new(10, 128 | (high & 0x7f), low, 4 * end + 1);
        let link = Self {
            name: format!("ebb{id}-{end}"),
            address: Ipv4Addr::new(10, 128 | (high & 0x7f), low, 4 * end + 2),
        };
        let name = link.name.as_str();
        run("ip", &["netns", "add", name]);
        let pair = ["link", "add", name, "type", "veth", "peer", "name", "eth0"];
        run("ip", &[&pair[..], &["netns", name]].concat());
        run("ip", &["addr", "add", &format!("{near}/30"), "dev", name]);
        let far = format!("{}/30", link.address);
        run("ip", &["-n", name, "addr", "add", &far, "dev", "eth0"]);
        run("ip", &["-n", name, "link", "set", "eth0", "up"]);
        run("ip", &["link", "set", name, "up"]);
        let shape = ["burst", "1mb", "latency", "50ms"];
        let add = [
            "qdisc", "add", "dev", name, "root", "tbf", "rate", LINK_MBIT,
        ];
        run("tc", &[&add[..], &shape].concat());
        link.serve();
        link
    }

    /// Takes what is sent, and throws it away. The threads end with the test.
    fn serve(&self) {
        let space = File::open(format!("/run/netns/{}", self.name)).unwrap();
        let address = SocketAddrV4::new(self.address, PORT);
        let (ready, is_ready) = mpsc::channel();
        thread::spawn(move || {
            move_into_link_name_space(space.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
            let listener = TcpListener::bind(address).unwrap();
            ready.send(()).unwrap();
            for mut stream in listener.incoming().filter_map(Result::ok) {
                thread::spawn(move || io::copy(&mut stream, &mut io::sink()));
            }
        });
        is_ready.recv().unwrap();
    }

    /// A line for the shell that sends as much as it can.
    fn send(&self) -> String {
        format!(
            "exec bash -c 'exec dd if=/dev/zero bs=64k > /dev/tcp/{}/{PORT}'",
            self.address
        )
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        // Absent if they could not be made.
        drop(
            Command::new("ip")
                .args(["link", "del", &self.name])
                .status(),
        );
        drop(
            Command::new("ip")
                .args(["netns", "del", &self.name])
                .status(),
        );
    }
}

/// What an agent last said of a task, and when.
fn of<'a>(state: &'a ClusterState, task: &str) -> Option<(Timestamp, &'a TaskUsage)> {
    let usage = state.agents.first()?.usage.as_ref()?;
    let mut tasks = usage.tasks.iter();
    Some((usage.at, tasks.find(|one| one.task_id.as_str() == task)?))
}

/// The middle of what a task sent in the next seconds, in bytes a second.
fn sends(cluster: &Cluster, task: &str) -> u64 {
    let mut seen: Vec<(Timestamp, u64)> = Vec::new();
    cluster.wait_until("what it sends", |state| {
        let (at, usage) = of(state, task)?;
        let sent = usage.used.traffic_out_bytes_per_s?;
        if seen.last().is_none_or(|(last, _)| *last != at) {
            seen.push((at, sent));
        }
        (seen.len() == REPORTS).then_some(())
    });
    let mut rates: Vec<u64> = seen.into_iter().map(|(_, rate)| rate).collect();
    rates.sort_unstable();
    rates[REPORTS / 2]
}

fn is_near(rate: u64, limit: u64) {
    let off = rate.abs_diff(limit) * 1_000 / limit;
    assert!(off <= NEAR_PERMILLE, "{rate} of {limit} bytes a second");
}

#[test]
fn a_task_is_held_to_the_bandwidth_that_it_asked_for_also_while_no_agent_runs() {
    let link = Link::new(0);
    let mut cluster = Cluster::start_with(&[], &AGENT_FLAGS);
    let mut framework = Framework::start(cluster.address(), "mixed", |_| ());
    let offer = framework.offer("the network", |offer| {
        offer.resources.regular.get(ResourceKind::NetworkBandwidth) == 50 * MB
    });
    let few = Quantities::cpus_mem(100, 64 << 20).with(ResourceKind::NetworkBandwidth, 5 * MB);
    framework.launch(
        &offer,
        "held",
        &link.send(),
        (Resources::regular(few), Lots::NONE),
    );
    framework.state("held", TaskState::Running);
    is_near(sends(&cluster, "held"), 5 * MB);
    // TCP is paced: it is held without losing anything.
    cluster.wait_until("a second in which nothing is dropped", |state| {
        let used = &of(state, "held")?.1.used;
        (used.traffic_dropped_per_s? == 0).then_some(())
    });

    cluster.kill9_agent();
    let counted = || -> u64 {
        let path = format!("/sys/class/net/{}/statistics/tx_bytes", link.name);
        fs::read_to_string(path).unwrap().trim().parse().unwrap()
    };
    let (before, since) = (counted(), std::time::Instant::now());
    let mut sent = 0;
    while sent < 15 * MB {
        thread::yield_now();
        sent = counted() - before;
    }
    let per_s = u128::from(sent) * 1_000_000 / since.elapsed().as_micros();
    is_near(u64::try_from(per_s).unwrap(), 5 * MB);
    cluster.start_agent();
    cluster.wait_registered();
    is_near(sends(&cluster, "held"), 5 * MB);
    framework.finish();
    cluster.finish();
}

#[test]
fn what_an_owner_leaves_of_the_network_is_lent_and_it_has_it_back_when_it_wants_it() {
    let link = Link::new(1);
    let mut cluster = Cluster::new_with(&[], &AGENT_FLAGS);
    cluster.add_agent_settings(SETTINGS);
    cluster.bring_up();

    let mut owner = Framework::start(cluster.address(), "owner", |_| ());
    let whole = owner.offer("the whole agent", |offer| {
        offer.resources.regular.cpu_milli() == 1_000
    });
    let gate = cluster.gate("rise");
    let line = format!("read go < {}; {}", gate.display(), link.send());
    let most = Quantities::cpus_mem(1_000, 64 << 20).with(ResourceKind::NetworkBandwidth, 40 * MB);
    owner.launch(
        &whole,
        "service",
        &line,
        (Resources::regular(most), Lots::NONE),
    );
    owner.state("service", TaskState::Running);

    let mut batch = Framework::start(cluster.address(), "batch", |config| {
        config
            .info
            .capabilities
            .push(Capability::RevocableResources);
        config.info.capabilities.sort();
    });
    let lent = batch.offer("what the owner leaves idle", |offer| {
        let revocable = offer.resources.revocable;
        revocable.cpu_milli() >= 200 && revocable.get(ResourceKind::NetworkBandwidth) >= 25 * MB
    });
    // It borrows none of the network, and takes all that there is.
    let borrowed = Resources::revocable(Quantities::cpus_mem(200, 0));
    batch.launch(&lent, "flood", &link.send(), (borrowed, Lots::NONE));
    batch.state("flood", TaskState::Running);
    let limited = cluster.wait_until("an answer", |state| {
        let usage = state.agents.first()?.usage.as_ref()?;
        let mut recent = usage.recent.iter();
        let is_limit = |action| matches!(action, CorrectionAction::LimitNetwork { .. });
        recent.find(|one| is_limit(one.action)).cloned()
    });
    assert_eq!(limited.task_id.as_str(), "flood", "{limited:#?}");
    assert_eq!(limited.signal, Signal::MachineNetwork, "{limited:#?}");
    assert_eq!(limited.choice.rule, ChoiceRule::MostNetwork, "{limited:#?}");
    assert_eq!(
        limited.threshold,
        45 * MB,
        "a tenth is left free: {limited:#?}"
    );

    fs::write(&gate, "go\n").unwrap();
    cluster.wait_until("an owner that has what it asked for", |state| {
        let (_, service) = of(state, "service")?;
        let (_, flood) = of(state, "flood")?;
        let has = service.used.traffic_out_bytes_per_s?;
        let left = flood.network_limited_to_bytes_per_s?;
        (has >= 34 * MB && left <= 11 * MB).then_some(())
    });
    let agent = cluster.state().agents[0].id.to_string();
    let told = cluster.ebb(&["status", &agent]);
    assert!(told.stdout.contains("limit network to"), "{told:?}");
    batch.news();
    let lost = batch
        .all
        .iter()
        .any(|heard| matches!(heard, Heard::Status(status) if status.state.is_terminal()));
    assert!(!lost, "it is slowed and lives: {:#?}", batch.all);
    owner.finish();
    batch.finish();
    cluster.finish();
}
