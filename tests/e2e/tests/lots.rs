//! Lots: what an agent has beside CPU and memory reaches the tasks that take it, and what was written stays until it is
//! destroyed.
#![allow(clippy::unwrap_used, reason = "the helpers of tests fail as tests do")]

use std::fs;
use std::path::{Path, PathBuf};

use ebb_framework::SchedulerConfig;
use ebb_tests_e2e::{Cluster, Ended, Framework, PATIENCE, host};
use ebb_types::{
    Capability, LotKey, LotValue, Lots, Offer, Quantities, Ranges, ReservationKind, ResourceKind,
    Resources, Role, TaskState,
};

const MIB: u64 = 1 << 20;

/// What each task takes beside lots.
fn small() -> Resources {
    Resources::regular(Quantities::cpus_mem(100, 16 * MIB))
}

fn lots<const N: usize>(all: [(&str, LotValue); N]) -> Lots {
    let all = all.map(|(name, value)| (LotKey::named(name), value));
    Lots::new(all).unwrap()
}

fn ports(first: u64, last: u64) -> LotValue {
    LotValue::Ranges(Ranges::new([(first, last)]).unwrap())
}

fn set(items: &[&str]) -> LotValue {
    LotValue::Set(items.iter().map(|item| (*item).to_owned()).collect())
}

fn in_eng(config: &mut SchedulerConfig) {
    config.info.roles = vec![Role::new("eng").unwrap()];
    config.info.capabilities.push(Capability::SharedResources);
    config.info.capabilities.sort();
}

/// The volume of that name in an offer.
fn volume(offer: &Offer, id: &str) -> Lots {
    offer
        .lots
        .only(|key| key.volume().is_some_and(|volume| volume.id == id))
}

fn has_volume(id: &'static str) -> impl Fn(&Offer) -> bool {
    move |offer| !volume(offer, id).is_none() && offer.resources.contains(&small())
}

/// A cluster whose agent has one of each sort of lot, and a disk of its own.
fn cluster() -> (Cluster, PathBuf, String) {
    let mut cluster = Cluster::new();
    let disk = cluster.folder().join("disk");
    fs::create_dir(&disk).unwrap();
    let root = disk.display();
    cluster.add_agent_settings(&format!(
        "resources = 'ports:[31000-31009];zones:{{a,b}};licences:2.5;cpus(eng):1;disk[path:{root}]:1GiB'\n"
    ));
    cluster.bring_up();
    let agent = cluster.state().agents[0].id.to_string();
    (cluster, disk, agent)
}

/// Asserts that a command went well.
fn done(ended: &Ended) {
    assert_eq!(ended.code(), 0, "{ended:?}");
}

fn reserve_and_create(cluster: &Cluster, agent: &str, disk: &Path, shared: bool) {
    let source = format!("path:{}", disk.display());
    done(&cluster.ebb(&["reserve", agent, "eng", &format!("disk[{source}]:64MiB")]));
    let mut create = vec![
        "create-volume",
        agent,
        "eng",
        "logs",
        "32MiB",
        "--path",
        "data",
    ];
    create.extend(["--disk", &source]);
    create.extend(shared.then_some("--shared"));
    done(&cluster.ebb(&create));
}

/// All files that volumes on a disk hold.
fn kept(disk: &Path) -> Vec<String> {
    let files = host::files_below(disk).into_iter();
    files
        .map(|file| fs::read_to_string(file).unwrap())
        .collect()
}

#[test]
fn every_sort_of_lot_is_offered_and_a_task_learns_its_ports() {
    let (cluster, disk, _) = cluster();
    let mut framework = Framework::start(cluster.address(), "lots", in_eng);
    let offer = framework.offer("an offer", |offer| !offer.lots.is_none());
    let plain = lots([
        ("ports", ports(31000, 31009)),
        ("zones", set(&["a", "b"])),
        ("licences", LotValue::Scalar(2500)),
    ]);
    assert!(offer.lots.contains(&plain), "{:?}", offer.lots);
    let reserved = offer.lots.only(|key| key.role().is_some());
    let (key, value) = reserved.iter().next().unwrap();
    assert_eq!(key.reservations[0].kind, ReservationKind::Static);
    assert_eq!(
        (key.name.as_str(), value),
        ("cpus", &LotValue::Scalar(1000))
    );
    let of_disk = offer.lots.only(|key| key.source().is_some());
    assert!(
        of_disk.to_string().contains(disk.to_str().unwrap()),
        "{of_disk:?}"
    );
    // What is reserved is a part of what the agent has.
    assert_eq!(offer.resources.regular.cpu_milli(), 3000);

    let taken = lots([
        ("ports", ports(31000, 31001)),
        ("zones", set(&["a"])),
        ("licences", LotValue::Scalar(1500)),
    ]);
    let gate = cluster.gate("gate");
    let said = cluster.folder().join("said");
    let line = format!(
        "echo \"$EBB_PORTS\" > {}; read go < {}",
        said.display(),
        gate.display()
    );
    // It runs on nothing but reserved CPU.
    let memory = Resources::regular(Quantities::cpus_mem(0, 16 * MIB));
    framework.launch(
        &offer,
        "taker",
        &line,
        (memory, taken.checked_add(&reserved).unwrap()),
    );
    framework.state("taker", TaskState::Running);
    let rest = framework.offer("the rest", |offer| !offer.lots.is_none());
    let of_rest = rest.lots.only(|key| key.source().is_none());
    let left = lots([
        ("ports", ports(31002, 31009)),
        ("zones", set(&["b"])),
        ("licences", LotValue::Scalar(1000)),
    ]);
    assert_eq!(of_rest, left);
    assert_eq!(rest.resources.regular.cpu_milli(), 3000);
    let agent = cluster.state().agents.remove(0);
    assert!(
        agent.allocated_lots.contains(&taken),
        "{:?}",
        agent.allocated_lots
    );
    framework.decline(&[rest]);
    fs::write(&gate, "go\n").unwrap();
    framework.state("taker", TaskState::Finished);
    assert_eq!(fs::read_to_string(&said).unwrap(), "31000-31001\n");
    let all = framework.offer("all of it again", |offer| offer.lots.contains(&plain));
    framework.decline(&[all]);

    // A task without ports is not told of any.
    let offer = framework.offer("an offer", |offer| offer.resources.contains(&small()));
    let line = format!(
        "test -z \"${{EBB_PORTS+set}}\" && echo none > {}",
        said.display()
    );
    framework.launch(&offer, "without", &line, (small(), Lots::NONE));
    framework.state("without", TaskState::Finished);
    assert_eq!(fs::read_to_string(&said).unwrap(), "none\n");
    framework.finish();
    cluster.finish();
}

#[test]
fn a_volume_keeps_what_was_written_through_crashes_until_it_is_destroyed() {
    let (mut cluster, disk, agent) = cluster();
    let before = cluster.state().agents.remove(0).info;
    reserve_and_create(&cluster, &agent, &disk, false);
    let mut framework = Framework::start(cluster.address(), "writer", in_eng);
    let offer = framework.offer("the volume", has_volume("logs"));
    let taken = volume(&offer, "logs");
    framework.launch(
        &offer,
        "write",
        "echo kept > data/file",
        (small(), taken.clone()),
    );
    framework.state("write", TaskState::Finished);
    assert_eq!(
        kept(&disk),
        ["kept\n"],
        "it stands on the disk that was asked for"
    );
    framework.finish();

    let made = cluster.state().agents.remove(0).info.lots;
    cluster.kill9_agent();
    cluster.start_agent();
    cluster.kill9_master();
    cluster.start_master();
    cluster.wait_registered();
    assert_eq!(cluster.state().agents.remove(0).info.lots, made);
    let mut framework = Framework::start(cluster.address(), "reader", in_eng);
    let offer = framework.offer("the volume", has_volume("logs"));
    let gate = cluster.gate("gate");
    let read = cluster.folder().join("read");
    let line = format!(
        "cat data/file > {}; read go < {}",
        read.display(),
        gate.display()
    );
    framework.launch(&offer, "read", &line, (small(), taken));
    framework.state("read", TaskState::Running);

    // Not while it is used.
    let refused = cluster.ebb(&["destroy-volume", &agent, "eng", "logs"]);
    assert_eq!(refused.code(), 1, "{refused:?}");
    for word in ["DESTROY", "logs", "free", "tasks"] {
        assert!(
            refused.stderr.contains(word),
            "{word:?} is not said: {refused:?}"
        );
    }
    assert_eq!(cluster.state().agents.remove(0).info.lots, made);
    fs::write(&gate, "go\n").unwrap();
    framework.state("read", TaskState::Finished);
    assert_eq!(fs::read_to_string(&read).unwrap(), "kept\n");
    assert_eq!(kept(&disk), ["kept\n"]);

    let of_role = host::files_below(&disk).remove(0);
    let of_role = of_role.parent().unwrap().parent().unwrap();
    done(&cluster.ebb(&["destroy-volume", &agent, "eng", "logs"]));
    let is_empty = || fs::read_dir(of_role).unwrap().count() == 0;
    host::await_in(of_role, PATIENCE, is_empty);
    assert_eq!(kept(&disk), [""; 0]);
    let source = format!("path:{}", disk.display());
    done(&cluster.ebb(&["unreserve", &agent, &format!("disk(eng)[{source}]:64MiB")]));
    let after = cluster.state().agents.remove(0).info;
    assert_eq!((after.lots, after.total), (before.lots, before.total));
    framework.finish();
    cluster.finish();
}

#[test]
fn two_tasks_see_a_shared_volume_at_once_and_it_goes_when_neither_does() {
    let (cluster, disk, agent) = cluster();
    reserve_and_create(&cluster, &agent, &disk, true);
    let mut framework = Framework::start(cluster.address(), "sharer", in_eng);
    let gates = [cluster.gate("first"), cluster.gate("second")];
    let mut taken = Lots::NONE;
    for (task, gate, line) in [
        ("writer", &gates[0], "echo shared > data/file"),
        ("reader", &gates[1], "grep -q shared data/file"),
    ] {
        let offer = framework.offer("the volume", has_volume("logs"));
        taken = volume(&offer, "logs");
        let up = cluster.folder().join(task);
        let line = format!(
            "{line} && mkdir {} && read go < {}",
            up.display(),
            gate.display()
        );
        framework.launch(&offer, task, &line, (small(), taken.clone()));
        host::await_in(cluster.folder(), PATIENCE, || up.exists());
    }
    let held = cluster.state().agents.remove(0).allocated_lots;
    let disk_bytes = held.quantities().get(ResourceKind::Disk);
    assert_eq!(
        disk_bytes,
        64 * MIB,
        "each of the two holds all of it: {held:?}"
    );
    for gate in &gates {
        let refused = cluster.ebb(&["destroy-volume", &agent, "eng", "logs"]);
        assert_eq!(refused.code(), 1, "{refused:?}");
        for word in ["logs", "in use", "end the tasks"] {
            assert!(
                refused.stderr.contains(word),
                "{word:?} is not said: {refused:?}"
            );
        }
        assert!(cluster.state().agents[0].info.lots.contains(&taken));
        fs::write(gate, "go\n").unwrap();
        framework.until("the end of a task", |heard| match heard {
            ebb_tests_e2e::framework::Heard::Status(status) if status.state.is_terminal() => {
                assert_eq!(status.state, TaskState::Finished, "{status:#?}");
                Some(())
            }
            _ => None,
        });
    }
    done(&cluster.ebb(&["destroy-volume", &agent, "eng", "logs"]));
    assert!(!cluster.state().agents[0].info.lots.contains(&taken));
    framework.finish();
    cluster.finish();
}

#[test]
fn what_cannot_be_done_is_said_with_what_to_do_and_changes_nothing() {
    let (cluster, disk, agent) = cluster();
    let before = cluster.state().agents.remove(0).info;
    let source = format!("path:{}", disk.display());
    let too_much = format!("disk[{source}]:2GiB");
    let wrong: [(&[&str], &[&str]); 7] = [
        (
            &["reserve", &agent, "eng", "cpus:99"],
            &["RESERVE needs", "cpus:99", "name less"],
        ),
        (
            &["reserve", &agent, "eng", &too_much],
            &["has no", &source, "ebb status"],
        ),
        (
            &["reserve", "nowhere", "eng", "cpus:1"],
            &["nowhere", "ebb agents"],
        ),
        (
            &["unreserve", &agent, "cpus(ops):1"],
            &["has no", "ops", "ebb status"],
        ),
        (
            &["unreserve", &agent, "cpus(eng):1"],
            &["no dynamic reservation", "name one"],
        ),
        (
            &["create-volume", &agent, "eng", "v", "1MiB"],
            &["disk", "ebb reserve"],
        ),
        (
            &["destroy-volume", &agent, "eng", "v"],
            &["no volume v", "ebb status"],
        ),
    ];
    for (args, words) in wrong {
        let refused = cluster.ebb(args);
        assert_eq!(refused.code(), 1, "{refused:?}");
        assert!(!refused.stderr.contains("panicked"), "{refused:?}");
        for word in words {
            assert!(
                refused.stderr.contains(word),
                "{word:?} is not said: {refused:?}"
            );
        }
        let after = cluster.state().agents.remove(0).info;
        assert_eq!(
            (after.lots, after.total),
            (before.lots.clone(), before.total),
            "{args:?}"
        );
    }
    cluster.finish();
}
