//! `ebb service`: so many instances, whatever happens to them.
#![allow(clippy::unwrap_used, reason = "the helpers of tests fail as tests do")]

use std::fs;

use ebb_tests_e2e::running::Output;
use ebb_tests_e2e::{Cluster, Running, host};
use ebb_types::{InverseAnswer, TaskState};
use rustix::process::Signal;
use serde_json::Value;

fn start(cluster: &Cluster, instances: &str, line: &str) -> Running {
    let state = cluster.folder().join("service.json");
    cluster.spawn(&[
        "service",
        "--json",
        "--name",
        "web",
        "-n",
        instances,
        "--keep",
        "--state",
        state.to_str().unwrap(),
        "--cpus",
        "0.1",
        "--mem",
        "16MiB",
        "--grace",
        "5m",
        "--",
        "sh",
        "-c",
        line,
    ])
}

/// Waits until so many instances of the wanted version run, and no others.
fn all_run(service: &Running, mark: usize, instances: u64) -> Value {
    service.json_line(mark, "all instances", |status| {
        let settled = status["running"] == instances
            && status["outdated"] == 0
            && status["instances"].as_array()?.len() as u64 == instances;
        settled.then(|| status.clone())
    })
}

/// The processes of each instance that now runs.
fn processes(cluster: &Cluster) -> Vec<(String, Vec<u32>)> {
    let state = cluster.state();
    let live = state.tasks.iter().filter(|task| !task.state.is_terminal());
    live.filter_map(|task| {
        let container = task.container_id.as_ref()?.to_string();
        let pids = host::processes_of(cluster.base(), &container);
        Some((task.task_id.to_string(), pids))
    })
    .collect()
}

fn version_of(pids: &[u32]) -> String {
    let mut lines = pids.iter().map(|pid| host::command_line(*pid));
    lines
        .find(|line| line.contains("version-"))
        .unwrap_or_default()
}

#[test]
fn a_service_restarts_what_dies_and_changes_what_runs_without_ever_standing_empty() {
    let cluster = Cluster::start();
    let first = start(&cluster, "3", ": version-1; while :; do sleep 1; done");
    all_run(&first, 0, 3);
    let before = processes(&cluster);
    assert_eq!(before.len(), 3, "{before:?}");

    // One instance's processes are killed from outside.
    let (victim, pids) = before[0].clone();
    assert!(version_of(&pids).contains("version-1"), "{before:?}");
    let mark = first.mark(Output::Stdout);
    pids.iter().for_each(|pid| host::signal(*pid, Signal::KILL));
    let restarted = first.json_line(mark, "a restart", |status| {
        let again = status["restarts"].as_u64()? >= 1 && status["running"] == 3;
        again.then(|| status.clone())
    });
    let live = restarted["instances"].as_array().unwrap();
    assert!(
        live.iter().all(|one| one["task_id"] != victim.as_str()),
        "{restarted:#}"
    );

    // It goes, its instances stay, and the next start changes them one by one.
    first.signal(Signal::INT);
    let ended = first.ended();
    assert_eq!(ended.code(), 0, "{ended:?}");
    assert_eq!(
        processes(&cluster).len(),
        3,
        "instances went with the service"
    );
    let second = start(&cluster, "3", ": version-2; while :; do sleep 1; done");
    let changed = all_run(&second, 0, 3);
    assert!(changed["framework_id"].is_string(), "{changed:#}");
    let after = processes(&cluster);
    assert_eq!(after.len(), 3, "{after:?}");
    for (task, pids) in &after {
        assert!(version_of(pids).contains("version-2"), "{task}: {after:?}");
    }
    // Some instance ran at every moment of the change.
    let told = second.json_line(0, "the change as it went", |status| {
        (status["outdated"].as_u64()? > 0).then(|| status.clone())
    });
    let running = told["running"].as_u64().unwrap() + told["outdated"].as_u64().unwrap();
    assert!(running >= 3, "fewer than wanted while it changed: {told:#}");

    let framework = changed["framework_id"].as_str().unwrap().to_owned();
    second.signal(Signal::INT);
    second.ended();
    let torn_down = cluster.ebb(&["teardown", &framework]);
    assert_eq!(torn_down.code(), 0, "{torn_down:?}");
    cluster.wait_until("the end of all instances", |state| {
        state
            .tasks
            .iter()
            .all(|task| task.state.is_terminal())
            .then_some(())
    });
    cluster.finish();
}

#[test]
fn a_service_leaves_a_machine_before_it_is_out_of_use_and_runs_all_the_time() {
    let mut cluster = Cluster::start();
    let home = cluster.state().agents[0].info.hostname.clone();
    cluster.start_other("localhost", &[]);
    // They end when they may, and their promise stands as long as they are there.
    let gate = cluster.folder().join("gate");
    let line = format!(
        "trap 'until test -e {}; do sleep 0.1; done; exit 0' TERM; while :; do sleep 1; done",
        gate.display()
    );
    let service = start(&cluster, "3", &line);
    let spread = all_run(&service, 0, 3);
    let is_home = |one: &Value| one["hostname"] == home.as_str();
    let instances = spread["instances"].as_array().unwrap();
    assert!(instances.iter().any(is_home), "{spread:#}");

    let mark = service.mark(Output::Stdout);
    let planned = cluster.ebb(&["maintenance", "schedule", "--in", "30m", &home]);
    assert_eq!(planned.code(), 0, "{planned:?}");
    let promised = cluster.wait_until("the service's promise", |state| {
        let answers = &state.maintenance.first()?.answers;
        let accepted = |one: &ebb_types::AgentAnswer| one.answer == InverseAnswer::Accepted;
        answers.iter().any(accepted).then(|| state.clone())
    });
    // It is said when enough run elsewhere, and only ending ones are left.
    let away = |state: &ebb_types::ClusterState| {
        let agents = state.agents.iter();
        let mut away = agents.filter(|agent| agent.info.hostname != home);
        let id = away.next().unwrap().id.clone();
        let running = |task: &&ebb_types::TaskRecord| task.state == TaskState::Running;
        let tasks = state.tasks.iter().filter(running);
        tasks.filter(|task| task.agent_id == id).count()
    };
    assert_eq!(away(&promised), 3, "{:#?}", promised.tasks);
    fs::write(&gate, "").unwrap();
    service.json_line(mark, "all instances on the other machine", |status| {
        assert!(status["running"].as_u64()? >= 3, "too few run: {status:#}");
        let instances = status["instances"].as_array()?;
        (instances.len() == 3 && !instances.iter().any(is_home)).then_some(())
    });
    // Nobody is asked where nobody is left.
    let left = cluster.wait_until("an agent that nobody is on", |state| {
        let answers = &state.maintenance.first()?.answers;
        answers.is_empty().then(|| state.clone())
    });
    assert_eq!(away(&left), 3);
    service.signal(Signal::INT);
    assert_eq!(service.ended().code(), 0);
    let framework = spread["framework_id"].as_str().unwrap();
    assert_eq!(cluster.ebb(&["teardown", framework]).code(), 0);
    cluster.wait_until("the end of all instances", |state| {
        let mut tasks = state.tasks.iter();
        tasks.all(|task| task.state.is_terminal()).then_some(())
    });
    cluster.finish();
}
