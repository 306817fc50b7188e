//! `ebb run`: the real program and the real SDK against a played master and agent.

use std::time::Duration;

use crate::played::{End, Played};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_output_and_the_exit_status_of_the_task_are_its_own() {
    for code in [0, 3, 255] {
        let played = Played::start(End::Exits(code)).await;
        let args = [
            "run",
            "--env",
            "A=b c",
            "--disk-bandwidth",
            "10MiB/s",
            "--network-bandwidth",
            "100Mbit",
            "--",
            "sh",
            "-c",
            "echo hello; exit 3",
        ];
        let ended = played.ebb(&args).await;
        assert_eq!(ended.code, Some(code), "{}", ended.stderr);
        assert_eq!(ended.stdout, "hello\nwörld\n");
        assert_eq!(ended.stderr, "oh\n");
        let asked = played.asked();
        for part in [
            "\"echo hello; exit 3\"",
            "key: \"A\", value: \"b c\"",
            "shell: false",
            " on cpus:500;mem:67108864;disk_bandwidth:10485760;network_bandwidth:12500000",
        ] {
            assert!(asked[0].contains(part), "{part} is not in {asked:?}");
        }
        assert_eq!(asked.last().map(String::as_str), Some("framework ended"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_preempted_task_has_a_code_and_a_sentence_of_its_own() {
    let played = Played::start(End::Preempted).await;
    let ended = played.ebb(&["run", "--", "true"]).await;
    assert_eq!(ended.code, Some(122));
    assert!(
        ended.stderr.contains("the task was preempted"),
        "{}",
        ended.stderr
    );
    assert_eq!(
        ended.stdout, "hello\nwörld\n",
        "its output is printed all the same"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn json_tells_every_event_a_line() {
    let played = Played::start(End::Exits(3)).await;
    let ended = played.ebb(&["run", "--json", "--", "true"]).await;
    assert_eq!(ended.code, Some(3));
    assert_eq!(ended.stderr, "");
    let lines: Vec<serde_json::Value> = ended
        .stdout
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect();
    let of = |event: &str| lines.iter().filter(|line| line["event"] == event).count();
    assert_eq!(
        (of("subscribed"), of("launched"), of("ended")),
        (1, 1, 1),
        "{lines:#?}"
    );
    let last = lines.last().expect("some");
    assert_eq!(last["event"], "ended");
    assert_eq!(
        (&last["exit_code"], &last["state"]),
        (&3.into(), &"TASK_FAILED".into())
    );
    let text = |stream: &str| -> String {
        let mine = lines.iter().filter(|line| line["stream"] == stream);
        mine.filter_map(|line| line["text"].as_str()).collect()
    };
    assert_eq!(
        (text("stdout").as_str(), text("stderr").as_str()),
        ("hello\nwörld\n", "oh\n")
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn why_it_waits_is_said_once() {
    let played = Played::start(End::NoOffer).await;
    for (args, says) in [
        (
            &["run", "--cpus", "64", "--", "true"][..],
            "no agent has that much even when it is empty",
        ),
        (
            &["run", "--network-bandwidth", "10Gbit", "--", "true"],
            "no agent has that much even when it is empty",
        ),
        (
            &["run", "--revocable", "--cpus", "2", "--", "true"],
            "no agent lends that much now",
        ),
        (
            &["run", "--", "true"],
            "nothing was offered so far (the most that one agent has free is 2.5 cpus",
        ),
    ] {
        let mut run = played.command(args).spawn().expect("starts");
        let mut lines = BufReader::new(run.stderr.take().expect("piped")).lines();
        let line = tokio::time::timeout(Duration::from_secs(30), lines.next_line()).await;
        let line = line.expect("in time").expect("readable").expect("a line");
        assert!(line.contains(says), "{args:?}: {line}");
        interrupt(&run);
        let status = tokio::time::timeout(Duration::from_secs(30), run.wait()).await;
        assert_eq!(status.expect("ends").expect("waited for").code(), Some(130));
        assert!(played.asked().contains(&"framework ended".to_owned()));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ctrl_c_kills_the_task_and_ends_the_framework() {
    let played = Played::start(End::WhenKilled).await;
    let mut run = played
        .command(&["run", "--", "sleep", "1000"])
        .spawn()
        .expect("starts");
    let mut stdout = run.stdout.take().expect("piped");
    // Its output shows that the task runs.
    let mut first = [0; 5];
    stdout.read_exact(&mut first).await.expect("output");
    interrupt(&run);
    let status = tokio::time::timeout(Duration::from_secs(30), run.wait()).await;
    assert_eq!(status.expect("ends").expect("waited for").code(), Some(130));
    let asked = played.asked();
    assert_eq!(asked[1..], ["kill", "framework ended"]);
}

fn interrupt(child: &tokio::process::Child) {
    let id = child
        .id()
        .and_then(|id| i32::try_from(id).ok())
        .expect("runs");
    let id = rustix::process::Pid::from_raw(id).expect("a number");
    rustix::process::kill_process(id, rustix::process::Signal::INT).expect("is signalled");
}
