//! Crashes: what was promised stands, whichever daemon is killed, and when.
#![allow(clippy::unwrap_used, reason = "the helpers of tests fail as tests do")]

use std::collections::BTreeMap;
use std::fs;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use ebb_tests_e2e::{Cluster, host};
use ebb_types::TaskState;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::inotify;
use serde_json::Value;

const COMMANDS: usize = 500;
const KILLS_EACH: usize = 5;
/// The whole batch must be over by then; it takes some 30 s on two idle cores.
const BATCH_PATIENCE: Duration = Duration::from_secs(240);

/// Random numbers from a seed (SplitMix64), so that a run can be repeated from what it printed.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (x ^ (x >> 31)) % bound
    }
}

fn seed() -> u64 {
    let given = std::env::var("EBB_TEST_SEED")
        .ok()
        .and_then(|text| text.parse().ok());
    let clock = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    given.unwrap_or_else(|| clock.unwrap().as_millis() as u64)
}

/// A folder that fills with files, and wakes whoever waits for them.
struct Filling<'a> {
    folder: &'a Path,
    notices: OwnedFd,
}

impl<'a> Filling<'a> {
    fn watch(folder: &'a Path) -> Self {
        let notices = inotify::init(inotify::CreateFlags::NONBLOCK).unwrap();
        inotify::add_watch(&notices, folder, inotify::WatchFlags::CREATE).unwrap();
        Self { folder, notices }
    }

    fn files(&self) -> usize {
        fs::read_dir(self.folder).unwrap().count()
    }

    /// Waits for a number of files; false if something else happened instead.
    fn wait_for(&self, files: usize, or: impl Fn() -> bool) -> bool {
        let second = Timespec {
            tv_sec: 1,
            tv_nsec: 0,
        };
        let deadline = Instant::now() + BATCH_PATIENCE;
        while self.files() < files {
            assert!(Instant::now() < deadline, "{} files only", self.files());
            if or() {
                return false;
            }
            poll(
                &mut [PollFd::new(&self.notices, PollFlags::IN)],
                Some(&second),
            )
            .unwrap();
            let mut buffer = [0; 4096];
            while rustix::io::read(&self.notices, &mut buffer).is_ok_and(|read| read > 0) {}
        }
        true
    }
}

/// One line for the shell for each command: it shows that it began, works for 0 to 1 s, and shows that it ended.
/// Every line goes to the end of the command's own file, so that whatever is done twice stands there twice.
fn commands(random: &mut Random, effects: &Path) -> String {
    (0..COMMANDS)
        .map(|number| {
            let file = effects.join(number.to_string());
            let file = file.display();
            let ms = random.below(1000);
            format!("echo begun >> {file}; sleep 0.{ms:03}; echo ended >> {file}\n")
        })
        .collect()
}

#[test]
fn five_hundred_commands_each_stand_exactly_once_through_kills_of_master_and_agent() {
    let seed = seed();
    println!("EBB_TEST_SEED={seed}");
    let mut random = Random(seed);
    let mut cluster = Cluster::start();
    let effects = cluster.folder().join("effects");
    fs::create_dir(&effects).unwrap();
    let list = cluster.folder().join("list");
    fs::write(&list, commands(&mut random, &effects)).unwrap();
    let list = list.to_str().unwrap().to_owned();
    // Each at a random number of commands begun, and then a little later.
    let mut kills: Vec<(u64, bool)> = (0..2 * KILLS_EACH)
        .map(|number| (2 + random.below(450), number % 2 == 0))
        .collect();
    kills.sort_unstable();

    let filling = Filling::watch(&effects);
    let begun_at = Instant::now();
    let batch = cluster.spawn(&[
        "batch", "--json", "-n", "24", "--cpus", "0.05", "--mem", "16MiB", &list,
    ]);
    for (after, of_master) in kills {
        let reached = filling.wait_for(after as usize, || !batch.is_alive());
        assert!(reached, "the batch has ended early: {:?}", batch.ended());
        thread::sleep(Duration::from_millis(random.below(300)));
        assert!(
            batch.is_alive(),
            "the batch has ended early: {:?}",
            batch.ended()
        );
        let down_ms = random.below(500);
        println!(
            "at {after} commands: kill -9 of the {}, down for {down_ms} ms",
            if of_master { "master" } else { "agent" }
        );
        if of_master {
            cluster.kill9_master();
        } else {
            cluster.kill9_agent();
        }
        thread::sleep(Duration::from_millis(down_ms));
        if of_master {
            cluster.start_master();
        } else {
            cluster.start_agent();
        }
    }
    let ended = batch.ended_within(BATCH_PATIENCE);
    println!("the batch took {} ms", begun_at.elapsed().as_millis());
    let report: Value =
        serde_json::from_str(&ended.stdout).unwrap_or_else(|e| panic!("{e}: {ended:?}"));
    println!("{report:#}");
    assert_eq!(ended.code(), 0, "{ended:?}");
    assert_eq!(report["finished"], COMMANDS);
    assert_eq!(report["failed"], 0);
    assert_eq!(report["retries"], 0);
    assert_each_exactly_once(&effects);
    nothing_runs_on(&cluster);
    drop(batch);
    cluster.finish();
}

fn assert_each_exactly_once(effects: &Path) {
    let mut wrong = BTreeMap::new();
    for number in 0..COMMANDS {
        let text = fs::read_to_string(effects.join(number.to_string())).unwrap_or_default();
        if text != "begun\nended\n" {
            wrong.insert(number, text);
        }
    }
    assert!(wrong.is_empty(), "not exactly once: {wrong:#?}");
}

/// No task, no container and no process of one is left, though the cluster itself is up.
fn nothing_runs_on(cluster: &Cluster) {
    let live = cluster.wait_until("an end of all tasks", |state| {
        let live = state.tasks.iter().filter(|task| !task.state.is_terminal());
        (live.count() == 0).then_some(0)
    });
    assert_eq!(live, 0);
    let containers = host::container_cgroups(cluster.base());
    assert!(containers.is_empty(), "orphans: {containers:#?}");
    let daemons = [cluster.master().id(), cluster.agent().id()];
    let others = host::processes_naming(cluster.folder()).into_iter();
    let orphans: Vec<_> = others.filter(|(pid, _)| !daemons.contains(pid)).collect();
    assert!(orphans.is_empty(), "orphans: {orphans:#?}");
}

#[test]
fn a_killed_agent_disturbs_no_task_and_loses_no_exit_status() {
    let mut cluster = Cluster::start();
    let gate = cluster.gate("gate");
    // The shell waits within itself, so that its processes are always the same.
    let line = format!("echo up; read go < {}; echo down; exit 7", gate.display());
    let run = cluster.spawn(&["run", "--json", "--", "sh", "-c", &line]);
    run.json_line(0, "the task's first line", |event| {
        (event["event"] == "output").then_some(())
    });
    let container_id = cluster.wait_until("the container", |state| {
        let task = state
            .tasks
            .iter()
            .find(|task| task.state == TaskState::Running)?;
        Some(task.container_id.clone()?.to_string())
    });
    let identity = |pid: u32| (pid, host::started_at(pid));
    let pids = host::processes_of(cluster.base(), &container_id);
    let before: Vec<_> = pids.iter().map(|pid| identity(*pid)).collect();
    let shells = pids
        .iter()
        .filter(|pid| host::command_line(**pid).contains("echo up"));
    assert!(
        shells.count() > 0,
        "the command is not in its container: {pids:?}"
    );
    assert!(before.iter().all(|(_, at)| at.is_some()), "{before:?}");

    // It is killed and comes back while the task runs.
    cluster.kill9_agent();
    cluster.start_agent();
    cluster.wait_until("the task adopted by a new life of the agent", |state| {
        let agent = state.agents.first()?;
        let runs = state
            .tasks
            .iter()
            .any(|task| task.state == TaskState::Running);
        (agent.status == ebb_types::AgentStatus::Registered && runs).then_some(())
    });
    let after: Vec<_> = pids.iter().map(|pid| identity(*pid)).collect();
    assert_eq!(before, after, "the task was disturbed");
    let adopted = ebb_tests_e2e::wire::metric(
        &cluster.agent_metrics(),
        "ebb_agent_tasks_adopted_total",
        &[],
    );
    assert_eq!(adopted, Some(1.0));

    // The task ends while the agent is dead.
    cluster.kill9_agent();
    assert!(pids.iter().all(|pid| host::started_at(*pid).is_some()));
    fs::write(&gate, "go\n").unwrap();
    host::await_gone(&pids, ebb_tests_e2e::PATIENCE);
    cluster.start_agent();
    let ended = run.ended();
    assert_eq!(ended.code(), 7, "{ended:?}");
    assert!(ended.stdout.contains("down"), "{ended:?}");
    let tasks = cluster.ebb(&["tasks", "--all", "--json"]).json();
    let last = tasks[0]["statuses"]
        .as_array()
        .unwrap()
        .last()
        .unwrap()
        .clone();
    assert_eq!(last["exit_code"], 7, "{tasks:#}");
    drop(run);
    nothing_runs_on(&cluster);
    cluster.finish();
}

#[test]
fn a_killed_master_disturbs_no_task_and_comes_back_by_the_same_command() {
    let mut cluster = Cluster::start();
    let gate = cluster.gate("gate");
    let line = format!("read go < {}; exit 5", gate.display());
    let run = cluster.spawn(&["run", "--json", "--", "sh", "-c", &line]);
    run.json_line(0, "that it runs", |event| {
        (event["state"] == "TASK_RUNNING").then_some(())
    });
    let before = cluster.state();
    assert_eq!(cluster.ebb(&["weight", "gold", "3"]).code(), 0);
    cluster.kill9_master();
    // It ends while nobody is there to be told.
    fs::write(&gate, "go\n").unwrap();
    cluster.start_master();
    let ended = run.ended();
    assert_eq!(ended.code(), 5, "{ended:?}");
    cluster.wait_registered();
    let after = cluster.state();
    assert!(after.master.generation > before.master.generation);
    assert_eq!(
        after.agents[0].id, before.agents[0].id,
        "the agent has a new id"
    );
    let gold = after.roles.iter().find(|role| role.role.as_str() == "gold");
    assert_eq!(
        gold.map(|role| role.weight_milli),
        Some(3000),
        "{:?}",
        after.roles
    );
    drop(run);
    nothing_runs_on(&cluster);
    cluster.finish();
}
