//! The probes tell at once when an owner's demand jumps while somebody is there to give way: once, and of nothing else.
//!
//! Time is told in the owner's own CPU time, so that it does not matter what else the machine does.

#![allow(clippy::unwrap_used, reason = "the helpers of tests fail as tests do")]

use std::process::Child;
use std::thread;
use std::time::Duration;

use ebb_agent::probe::{Detail, Facts, Sampler};
use ebb_tests_parity::Container;
use ebb_tests_parity::measured::{alone, of, on_cpu_ns, probes};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

const LOAD: &str = env!("CARGO_BIN_EXE_ebb-parity-load");
/// As the agent's own.
const INTERVAL: Duration = Duration::from_millis(100);
const READINGS: u64 = 20;
/// Longer than the test.
const LONG_MS: &str = "120000";
const PATIENCE: Duration = Duration::from_secs(20);

type Name = &'static str;

/// Programs that are ended with the test.
struct Running(Vec<Child>);

impl Drop for Running {
    fn drop(&mut self) {
        for child in &mut self.0 {
            drop(child.kill());
            drop(child.wait());
        }
    }
}

/// Has every CPU busy in a container.
fn spin_everywhere(container: &Container) -> Running {
    let cpus = thread::available_parallelism().unwrap().get();
    let spin = |_| container.spawn(LOAD, &["spin", LONG_MS]).unwrap();
    Running((0..cpus).map(spin).collect())
}

/// Whether something is told within this time.
fn is_told(sampler: &Sampler<Name>, wait: Duration) -> bool {
    let fd = sampler.alerts_fd().unwrap();
    let mut fds = [PollFd::from_borrowed_fd(fd, PollFlags::IN)];
    let timeout = Timespec {
        tv_sec: wait.as_secs().try_into().unwrap(),
        tv_nsec: wait.subsec_nanos().into(),
    };
    poll(&mut fds, Some(&timeout)).unwrap();
    fds[0].revents().contains(PollFlags::IN)
}

/// Reads and listens for a while; gives how often something was told.
fn listen(sampler: &mut Sampler<Name>, readings: u64) -> u64 {
    let mut told = 0;
    for _ in 0..readings {
        sampler.sample_and_listen(Detail::Quick);
        thread::sleep(INTERVAL);
        told += sampler.take_alerts();
    }
    told
}

fn on_cpu(sampler: &mut Sampler<Name>, name: Name) -> u64 {
    on_cpu_ns(of(&sampler.sample(Detail::Quick), name))
}

#[test]
fn an_owners_jump_is_told_at_once_and_once_and_a_guests_is_not() {
    let _alone = alone();
    let facts = Facts::gather();
    let mut sampler = probes(&facts);
    let [owner, guest] = ["owner", "guest"].map(|name| Container::new(&facts, name).unwrap());
    sampler.register("owner", &owner.paths, false).unwrap();
    sampler.register("guest", &guest.paths, true).unwrap();
    listen(&mut sampler, READINGS / 4);
    let _guests = spin_everywhere(&guest);
    let told = listen(&mut sampler, READINGS / 4);
    assert_eq!(told, 0, "a guest that fills the machine is nobody's jump");

    sampler.sample_and_listen(Detail::Quick);
    let before_ns = on_cpu(&mut sampler, "owner");
    let _owners = spin_everywhere(&owner);
    assert!(is_told(&sampler, PATIENCE), "the jump is not told");
    let used_ns = on_cpu(&mut sampler, "owner") - before_ns;
    let interval_ns = u64::try_from(INTERVAL.as_nanos()).unwrap();
    assert!(
        used_ns < interval_ns / 2,
        "told after {used_ns} ns, which a reading would have seen too"
    );
    assert_eq!(sampler.take_alerts(), 1);
    // It goes on, and nobody listens anew.
    assert!(!is_told(&sampler, INTERVAL * 3), "told twice");

    let told = listen(&mut sampler, READINGS);
    assert!(
        told * 2 < READINGS,
        "what goes on is told {told} times in {READINGS} readings"
    );
}

#[test]
fn where_nobody_could_give_way_nothing_is_told() {
    let _alone = alone();
    let facts = Facts::gather();
    let mut sampler = probes(&facts);
    let [owner, other] = ["owner", "other"].map(|name| Container::new(&facts, name).unwrap());
    sampler.register("owner", &owner.paths, false).unwrap();
    sampler.register("other", &other.paths, false).unwrap();
    let _others = spin_everywhere(&other);
    listen(&mut sampler, READINGS / 4);
    let before_ns = on_cpu(&mut sampler, "owner");
    let _owners = spin_everywhere(&owner);
    let told = listen(&mut sampler, READINGS / 4);
    let used_ns = on_cpu(&mut sampler, "owner") - before_ns;
    assert!(used_ns > 0, "the owner has not run");
    assert_eq!(told, 0);
}
