//! Disks that are devices: reserved and held as other lots are, seen by the tasks that hold them and by nobody else.
#![allow(clippy::unwrap_used, reason = "the helpers of tests fail as tests do")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use ebb_framework::SchedulerConfig;
use ebb_tests_e2e::{Cluster, Framework, Running};
use ebb_types::{Lots, Offer, Quantities, Resources, Role, TaskState};

const MIB: u64 = 1 << 20;

fn small() -> Resources {
    Resources::regular(Quantities::cpus_mem(100, 16 * MIB))
}

/// A loop device of a file, until it is dropped.
struct Loop(PathBuf);

impl Loop {
    fn new(file: &Path) -> Self {
        fs::write(file, vec![0; 1 << 20]).unwrap();
        let mut command = Command::new("losetup");
        let made = command.args(["--find", "--show"]).arg(file).output();
        let made = made.expect("losetup runs: this test needs loop devices");
        assert!(made.status.success(), "{made:?}");
        Self(String::from_utf8(made.stdout).unwrap().trim().into())
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        let ended = Command::new("losetup").arg("-d").arg(&self.0).status();
        if !ended.as_ref().is_ok_and(std::process::ExitStatus::success) {
            eprintln!("left behind: {} ({ended:?})", self.0.display());
        }
    }
}

/// The disk of that name in an offer.
fn disk(offer: &Offer, name: &str) -> Lots {
    offer
        .lots
        .only(|key| key.to_string().contains(&format!(":{name}:")))
}

fn has_disk(name: &'static str) -> impl Fn(&Offer) -> bool {
    move |offer| !disk(offer, name).is_none() && offer.resources.contains(&small())
}

fn in_eng(config: &mut SchedulerConfig) {
    config.info.roles = vec![Role::new("eng").unwrap()];
}

/// What a task finds in its `/dev` and is told, in a file.
fn look(cluster: &Cluster, task: &str) -> (PathBuf, String) {
    let said = cluster.folder().join(format!("seen-by-{task}"));
    let line = format!(
        "{{ find /dev -type b; echo \"${{EBB_DISKS-none}}\"; }} > {}",
        said.display()
    );
    (said, line)
}

#[test]
fn each_task_has_the_devices_of_its_disks_alone_and_what_it_wrote_outlives_it_and_the_agent() {
    let mut cluster = Cluster::new();
    let fast = Loop::new(&cluster.folder().join("fast"));
    let slow = Loop::new(&cluster.folder().join("slow"));
    cluster.add_agent_settings(&format!(
        "resources = 'disk[block:fast]:1MiB;disk[raw:slow:hdd]:1MiB'\n\
         [devices]\nfast = '{}'\nslow = '{}'\n",
        fast.0.display(),
        slow.0.display()
    ));
    cluster.bring_up();
    let agent = cluster.state().agents[0].id.to_string();
    let reserved = cluster.ebb(&["reserve", &agent, "eng", "disk[block:fast]:1MiB"]);
    assert_eq!(reserved.code(), 0, "{reserved:?}");

    // Two at once, and one that has no disk.
    let mut framework = Framework::start(cluster.address(), "eng", in_eng);
    let gates = [cluster.gate("first"), cluster.gate("second")];
    for (name, gate) in [("fast", &gates[0]), ("slow", &gates[1])] {
        let offer = framework.offer("its disk", has_disk(name));
        let (_, look) = look(&cluster, name);
        let line = format!(
            "{look}; printf 'of {name}' | dd of=/dev/ebb/{name} conv=notrunc,fsync status=none && \
             read go < {}",
            gate.display()
        );
        framework.launch(&offer, name, &line, (small(), disk(&offer, name)));
        framework.state(name, TaskState::Running);
    }
    let offer = framework.offer("an offer", |offer| offer.resources.contains(&small()));
    assert!(disk(&offer, "fast").is_none() && disk(&offer, "slow").is_none());
    let (said, look_at) = look(&cluster, "none");
    let line = format!(
        "{look_at}; cat {} {} >> {}",
        fast.0.display(),
        slow.0.display(),
        said.display()
    );
    framework.launch(&offer, "none", &line, (small(), Lots::NONE));
    let end = framework.until("the end of one without disks", |heard| match heard {
        ebb_tests_e2e::framework::Heard::Status(status) if status.state.is_terminal() => {
            Some(status.clone())
        }
        _ => None,
    });
    assert_eq!(end.state, TaskState::Failed, "it has opened one: {end:?}");
    assert_eq!(fs::read_to_string(&said).unwrap(), "none\n");
    for (name, gate) in [("fast", &gates[0]), ("slow", &gates[1])] {
        fs::write(gate, "go\n").unwrap();
        framework.state(name, TaskState::Finished);
        let (said, _) = look(&cluster, name);
        let path = format!("/dev/ebb/{name}");
        let expected = format!("{path}\n{name}={path}\n");
        assert_eq!(fs::read_to_string(&said).unwrap(), expected);
    }

    cluster.kill9_agent();
    cluster.start_agent();
    cluster.wait_registered();
    let offer = framework.offer("its disk again", has_disk("fast"));
    let read = cluster.folder().join("read");
    let line = format!("head -c 7 /dev/ebb/fast > {}", read.display());
    framework.launch(&offer, "next", &line, (small(), disk(&offer, "fast")));
    framework.state("next", TaskState::Finished);
    assert_eq!(fs::read_to_string(&read).unwrap(), "of fast");
    framework.finish();
    cluster.finish();
}

#[test]
fn tasks_that_outlive_a_change_of_devices_have_none_that_became_anothers() {
    let mut cluster = Cluster::new();
    let fast = Loop::new(&cluster.folder().join("fast"));
    let other = Loop::new(&cluster.folder().join("other"));
    let settings = |device: &Loop| {
        let device = device.0.display();
        format!("resources = 'disk[block:fast]:1MiB'\n[devices]\nfast = '{device}'\n")
    };
    cluster.bring_up();
    let mut framework = Framework::start(cluster.address(), "eng", in_eng);
    let offer = framework.offer("an offer", |offer| offer.resources.contains(&small()));
    let (before, said) = (cluster.gate("before"), cluster.folder().join("said"));
    let line = format!(
        "read go < {}; head -c 1 {} > {}; echo $? >> {}",
        before.display(),
        fast.0.display(),
        said.display(),
        said.display()
    );
    framework.launch(&offer, "before", &line, (small(), Lots::NONE));
    framework.state("before", TaskState::Running);
    cluster.kill9_agent();
    cluster.add_agent_settings(&settings(&fast));
    cluster.start_agent();
    cluster.wait_registered();
    fs::write(&before, "go\n").unwrap();
    framework.state("before", TaskState::Finished);
    assert_eq!(
        fs::read_to_string(&said).unwrap(),
        "1\n",
        "it has opened it"
    );

    let offer = framework.offer("the disk", has_disk("fast"));
    let gate = cluster.gate("holder");
    let line = format!("read go < {}", gate.display());
    framework.launch(&offer, "holder", &line, (small(), disk(&offer, "fast")));
    framework.state("holder", TaskState::Running);
    cluster.kill9_agent();
    cluster.add_agent_settings(&settings(&other));
    let refused = Running::start("ebb-agent", cluster.agent_command()).ended();
    assert_eq!(refused.code(), 1, "{refused:?}");
    for word in ["fast", "[devices]", "end its task"] {
        assert!(
            refused.stderr.contains(word),
            "{word:?} is not said: {refused:?}"
        );
    }
    cluster.add_agent_settings(&settings(&fast));
    cluster.start_agent();
    cluster.wait_registered();
    fs::write(&gate, "go\n").unwrap();
    framework.state("holder", TaskState::Finished);
    framework.finish();
    cluster.finish();
}
