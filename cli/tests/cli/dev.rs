//! `ebb dev`: the real cluster in one process, from its start to its end.

use std::process::Stdio;
use std::time::Duration;

use crate::played::{ebb, end_of};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};

const PATIENCE: Duration = Duration::from_secs(90);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_runs_a_command_and_leaves_nothing_behind() {
    assert!(
        rustix::process::geteuid().is_root(),
        "the agent needs root: run the tests as root"
    );
    let data = tempfile::tempdir().expect("a folder");
    let folder = data.path().to_str().expect("text").to_owned();
    let mut dev = ebb(&[
        "dev",
        "--json",
        "--listen",
        "127.0.0.1:0",
        "--data",
        &folder,
    ])
    .spawn()
    .expect("starts");
    let mut lines = BufReader::new(dev.stdout.take().expect("piped")).lines();
    let line = tokio::time::timeout(PATIENCE, lines.next_line()).await;
    let line = line.expect("in time").expect("readable");
    let Some(line) = line else {
        let mut said = String::new();
        let stderr = dev.stderr.as_mut().expect("piped");
        stderr.read_to_string(&mut said).await.expect("readable");
        panic!("the cluster did not start: {said}");
    };
    let ready: serde_json::Value = serde_json::from_str(&line).expect("JSON");
    let master = ready["master"].as_str().expect("an address").to_owned();
    let with_master = |args: &[&str]| {
        let mut command = ebb(args);
        command.env("EBB_MASTER", &master);
        command
    };

    let ended = end_of(with_master(&[
        "run",
        "--",
        "sh",
        "-c",
        "echo hello; echo oh >&2; exit 3",
    ]))
    .await;
    assert_eq!(ended.stdout, "hello\n", "{}", ended.stderr);
    assert_eq!((ended.code, ended.stderr.as_str()), (Some(3), "oh\n"));

    // A task that would run for ever, told from all others by a number of its own.
    let seconds = 100_000 + std::process::id();
    let line = format!("echo up; exec sleep {seconds}");
    let mut long = with_master(&["run", "--cpus", "0.1", "--", "sh", "-c", &line])
        .stderr(Stdio::null())
        .spawn()
        .expect("starts");
    let mut said = BufReader::new(long.stdout.take().expect("piped")).lines();
    let first = tokio::time::timeout(PATIENCE, said.next_line()).await;
    assert!(first.expect("in time").expect("readable").is_some());
    let top = end_of(with_master(&["top", "--once", "--json"])).await;
    let top: serde_json::Value = serde_json::from_str(&top.stdout).expect("JSON");
    assert_eq!(top["tasks"].as_array().map(Vec::len), Some(1), "{top:#}");
    assert_eq!(top["tasks"][0]["state"], "TASK_RUNNING");
    assert_eq!(sleepers(seconds).len(), 1, "the task runs");

    let pid = dev
        .id()
        .and_then(|id| i32::try_from(id).ok())
        .expect("runs");
    let pid = rustix::process::Pid::from_raw(pid).expect("a number");
    rustix::process::kill_process(pid, rustix::process::Signal::INT).expect("is signalled");
    let status = tokio::time::timeout(PATIENCE, dev.wait()).await;
    assert_eq!(status.expect("ends").expect("waited for").code(), Some(0));
    assert_eq!(sleepers(seconds), Vec::<String>::new(), "a task was left");
    let mounts = std::fs::read_to_string("/proc/self/mounts").expect("readable");
    assert!(!mounts.contains(&folder), "a mount was left: {mounts}");
    long.kill().await.expect("is ended");
}

/// The processes on this machine that sleep so many seconds.
fn sleepers(seconds: u32) -> Vec<String> {
    let wanted = format!("sleep\0{seconds}\0");
    std::fs::read_dir("/proc")
        .expect("there")
        .flatten()
        .filter_map(|entry| std::fs::read_to_string(entry.path().join("cmdline")).ok())
        .filter(|line| *line == wanted)
        .collect()
}

#[tokio::test]
async fn the_daemons_refuse_wrong_settings_as_a_wrong_command_line() {
    for (args, says) in [
        (&["master", "--listen", "everywhere"][..], "everywhere"),
        (&["master", "--config", "/nonexistent"], "/nonexistent"),
        (&["agent", "--mem", "5 apples"], "5 apples"),
        (&["agent", "--master", "nowhere"], "nowhere"),
        (&["agent", "--frobnicate"], "--frobnicate"),
    ] {
        let ended = end_of(ebb(args)).await;
        assert_eq!(ended.code, Some(2), "{args:?}: {}", ended.stderr);
        assert!(ended.stderr.contains(says), "{args:?}: {}", ended.stderr);
    }
}

#[tokio::test]
async fn what_dev_cannot_use_is_named() {
    let data = tempfile::tempdir().expect("a folder");
    let folder = data.path().to_str().expect("text");
    let held = tokio::net::TcpListener::bind("127.0.0.1:0")
        .await
        .expect("a port");
    let held = held.local_addr().map(|address| (address.to_string(), held));
    let (taken, _held) = held.expect("bound");
    for (args, code, says) in [
        (
            &["--data", folder, "--listen", &taken][..],
            1,
            "cannot listen on",
        ),
        (
            &["--data", "/proc/ebb"],
            1,
            "cannot use the data folder /proc/ebb",
        ),
        (
            &["--data", "/dev/null"],
            1,
            "cannot use the data folder /dev/null",
        ),
        (&["--listen", "nowhere"], 2, "nowhere"),
    ] {
        let ended = end_of(ebb(&[&["dev"][..], args].concat())).await;
        assert_eq!(ended.code, Some(code), "{args:?}: {}", ended.stderr);
        assert!(ended.stderr.contains(says), "{args:?}: {}", ended.stderr);
    }
    let mut homeless = ebb(&["dev"]);
    homeless.env_remove("HOME").env_remove("XDG_STATE_HOME");
    let ended = end_of(homeless).await;
    assert_eq!(ended.code, Some(2), "{}", ended.stderr);
    assert!(ended.stderr.contains("--data"));
}
