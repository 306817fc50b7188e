//! `ebb dev`: a whole cluster in one process, from its first line to the last thing that it takes away.
#![allow(clippy::unwrap_used, reason = "the helpers of tests fail as tests do")]

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use ebb_tests_e2e::running::Output;
use ebb_tests_e2e::{Ended, PATIENCE, Running, host, programs};
use rustix::process::Signal;
use serde_json::Value;

/// The base that `ebb dev` uses; its instance tells it from others.
const BASE: &str = "ebb";

struct Dev {
    folder: tempfile::TempDir,
    program: Running,
    ready: Value,
}

impl Dev {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut command = programs::program("ebb");
        command
            .args(["dev", "--json", "--listen", "127.0.0.1:0", "--data"])
            .arg(folder.path());
        let program = Running::start("ebb dev", command);
        let ready = program.json_line(0, "that it is ready", |line| {
            (line["event"] == "ready").then(|| line.clone())
        });
        Self {
            folder,
            program,
            ready,
        }
    }

    fn instance(&self) -> String {
        let identity = std::fs::read_to_string(self.folder.path().join("agent/identity")).unwrap();
        let instance = identity
            .lines()
            .find_map(|line| line.strip_prefix("instance="));
        instance.unwrap().to_owned()
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = programs::program("ebb");
        command
            .args(args)
            .env("EBB_MASTER", self.ready["master"].as_str().unwrap());
        command
    }

    fn ebb(&self, args: &[&str]) -> Ended {
        Running::start("ebb", self.command(args)).ended()
    }
}

impl Drop for Dev {
    fn drop(&mut self) {
        if self.program.is_alive() {
            self.program.signal(Signal::TERM);
            self.program.exit_status();
        }
        if std::thread::panicking() {
            host::sweep(self.folder.path(), BASE, Some(&self.instance()));
        }
    }
}

#[test]
fn a_command_prints_hello_and_exits_3_and_top_and_tasks_show_it() {
    let dev = Dev::start();
    let measures = dev.ready["measures"].as_str().unwrap();
    assert!(measures.contains("eBPF"), "no probes: {measures}");

    let run = dev.ebb(&["run", "--", "sh", "-c", "echo hello; exit 3"]);
    assert_eq!((run.stdout.as_str(), run.code()), ("hello\n", 3), "{run:?}");

    let tasks = dev.ebb(&["tasks", "--all", "--json"]).json();
    let [task] = tasks.as_array().unwrap().as_slice() else {
        panic!("one task was run: {tasks:#}");
    };
    assert_eq!(task["state"], "TASK_FAILED", "{task:#}");
    let last = task["statuses"].as_array().unwrap().last().unwrap();
    assert_eq!(last["exit_code"], 3, "{task:#}");
    let top = dev.ebb(&["top", "--once", "--json"]).json();
    assert_eq!(top["agents"].as_array().unwrap().len(), 1, "{top:#}");
    assert_eq!(top["agents"][0]["status"], "registered", "{top:#}");
    let status = dev.ebb(&["status"]);
    assert_eq!(status.code(), 0, "{status:?}");
    assert!(!status.stdout.is_empty(), "{status:?}");
}

/// What the scheduler's own account and `ebb top` say of the task's CPU over the same seconds, in thousandths.
fn compare(dev: &Dev, task_id: &str, container_id: &str) -> (f64, f64, String) {
    const PICTURES: usize = 8;
    let top = Running::start(
        "ebb top",
        dev.command(&["top", "--json", "--interval", "500ms"]),
    );
    let mut seen = Vec::new();
    let (mut begun, mut first_ns) = (None, 0);
    let cpu_ns = || host::on_cpu_ns(&host::processes_of(BASE, container_id));
    for _ in 0..PICTURES {
        let mark = top.mark(Output::Stdout);
        let (used, source) = top.json_line(mark, "what the task uses", |picture| {
            let rows = picture["tasks"].as_array()?;
            let row = rows.iter().find(|row| row["task_id"] == task_id)?;
            let source = row["cpu_source"].as_str()?.to_owned();
            Some((row["used_cpu_milli"].as_u64()?, source))
        });
        if begun.is_none() {
            first_ns = cpu_ns();
            begun = Some(Instant::now());
        } else {
            seen.push((used, source));
        }
    }
    let wall_ns = begun.unwrap().elapsed().as_nanos() as f64;
    let kernel_milli = (cpu_ns() - first_ns) as f64 / wall_ns * 1000.0;
    let told_milli = seen.iter().map(|(used, _)| *used as f64).sum::<f64>() / seen.len() as f64;
    (kernel_milli, told_milli, seen[0].1.clone())
}

#[test]
fn a_spinners_cpu_comes_from_ebpf_and_is_what_the_scheduler_says() {
    let dev = Dev::start();
    let line = "while :; do :; done";
    let args = ["run", "--json", "--cpus", "1", "--", "sh", "-c", line];
    let run = Running::start("ebb run", dev.command(&args));
    let task_id = run.json_line(0, "the launch", |event| {
        Some(event["task_id"].as_str()?.to_owned())
    });
    run.json_line(0, "that it runs", |event| {
        (event["state"] == "TASK_RUNNING").then_some(())
    });
    let tasks = dev.ebb(&["tasks", "--json"]).json();
    let container_id = tasks[0]["container_id"].as_str().unwrap();

    let (kernel_milli, told_milli, source) = compare(&dev, &task_id, container_id);
    println!(
        "the scheduler says {kernel_milli:.0}, ebb top {told_milli:.0} thousandths ({source})"
    );
    assert_eq!(source, "ebpf");
    // Alone it takes the whole core; how much it gets beside others is not Ebb's to promise.
    assert!(kernel_milli > 200.0, "the spinner got {kernel_milli:.0}");
    let ratio = told_milli / kernel_milli;
    assert!(
        (0.85..1.15).contains(&ratio),
        "told {told_milli:.0}, true {kernel_milli:.0}"
    );

    run.signal(Signal::INT);
    assert_eq!(run.ended().code(), 130);
}

#[test]
fn ctrl_c_ends_the_cluster_with_its_tasks_and_leaves_nothing_behind() {
    let dev = Dev::start();
    let args = ["run", "--json", "--", "sh", "-c", "sleep 1000 & wait"];
    let run = Running::start("ebb run", dev.command(&args));
    run.json_line(0, "that it runs", |event| {
        (event["state"] == "TASK_RUNNING").then_some(())
    });
    let tasks = dev.ebb(&["tasks", "--json"]).json();
    let container_id = tasks[0]["container_id"].as_str().unwrap().to_owned();
    let processes = host::processes_of(BASE, &container_id);
    assert!(processes.len() >= 2, "the task has {processes:?}");

    dev.program.signal(Signal::INT);
    let ended = dev.program.ended_within(PATIENCE);
    assert_eq!(ended.code(), 0, "{ended:?}");
    drop(run);
    for pid in processes {
        assert!(host::started_at(pid).is_none(), "process {pid} lives on");
    }
    let left = host::leftovers(dev.folder.path(), BASE, Some(&dev.instance()));
    assert!(left.is_empty(), "left behind: {left:#?}");
}

#[test]
fn a_second_cluster_takes_another_port_and_a_second_on_one_folder_is_refused() {
    let dev = Dev::start();
    let master: SocketAddr = dev.ready["master"].as_str().unwrap().parse().unwrap();
    let start = |folder: &Path| {
        let mut command = programs::program("ebb");
        command
            .args(["dev", "--listen", &master.to_string(), "--data"])
            .arg(folder);
        Running::start("ebb dev", command).ended()
    };
    let other = tempfile::tempdir().unwrap();
    let taken = start(other.path());
    assert_eq!(taken.code(), 1, "{taken:?}");
    assert!(taken.stderr.contains("--listen"), "{taken:?}");

    let mut command = programs::program("ebb");
    command
        .args(["dev", "--listen", "127.0.0.1:0", "--data"])
        .arg(dev.folder.path());
    let in_use = Running::start("ebb dev", command).ended();
    assert_eq!(in_use.code(), 1, "{in_use:?}");
    assert!(in_use.stderr.contains("in use"), "{in_use:?}");
    assert_eq!(dev.ebb(&["run", "--", "true"]).code(), 0);
}
