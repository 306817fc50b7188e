//! The agent goes, the tasks stay, the next agent finds them.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::time::Duration;

use ebb_agent::cgroup::Limits;
use ebb_agent::runtime::{Launched, Outcome, ProcessIdentity, RunState};
use rustix::process::{Pid, Signal, kill_process};

use crate::host::{Host, LONG, Running, executor_exe, key, shell, until};

fn kill_executor(running: &Running) {
    let pid = Pid::from_raw(running.executor.pid() as i32).expect("a pid");
    kill_process(pid, Signal::KILL).expect("killed");
}

/// The executor's parent ends at once, as an agent that is killed does.
#[test]
fn an_executor_outlives_its_parent_and_is_adopted() {
    let host = Host::new();
    let parent = host.work.path().join("parent");
    let script = format!("#!/bin/sh\n{} \"$@\" &\n", executor_exe().display());
    fs::write(&parent, script).expect("written");
    fs::set_permissions(&parent, fs::Permissions::from_mode(0o700)).expect("executable");
    let short_lived = host.runtime.clone().with_executor_exe(&parent);
    let request = shell("read line < ../../../../../../../../../fifo; echo \"$line\"; exit 6");
    let fifo = host.work.path().join("fifo");
    assert!(
        Command::new("mkfifo")
            .arg(&fifo)
            .status()
            .expect("mkfifo")
            .success()
    );

    let Launched {
        executor: parent,
        container,
        start,
    } = short_lived.launch(&request).expect("a launch");
    let started = start.read().expect("started");
    until("the parent's end", || {
        fs::read_to_string(format!("/proc/{}/stat", parent.pid())).is_ok_and(|s| s.contains(") Z"))
    });
    assert_ne!(started.executor.pid, parent.pid());
    let parent_of = |pid: u32| -> u32 {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("a status");
        stat.rsplit_once(')')
            .expect("a name")
            .1
            .split_whitespace()
            .nth(1)
            .expect("it")
            .parse()
            .expect("it")
    };
    until("the adoption by the system", || {
        parent_of(started.executor.pid) != parent.pid()
    });
    drop((parent, container));

    let mut recovery = host.runtime.recover().expect("a look");
    assert_eq!(
        (
            recovery.runs.len(),
            recovery.broken.len(),
            recovery.orphans.len()
        ),
        (1, 0, 0)
    );
    let recovered = recovery.runs.remove(0);
    assert_eq!(
        (&recovered.key, &recovered.spec.command),
        (&key(&request), &request.command)
    );
    let RunState::Running {
        executor,
        started: again,
    } = recovered.state
    else {
        panic!("{:?}", recovered.state)
    };
    assert_eq!(again, Some(started));
    assert_eq!(executor.try_exit().expect("an answer"), None);
    fs::write(&fifo, "let go\n").expect("written");
    let record = executor
        .wait_exit(LONG)
        .expect("an answer")
        .expect("an end");
    assert_eq!(record.outcome, Outcome::Exited { code: 6 });
    assert_eq!(host.output(&request, "stdout"), "let go\n");
    recovered.container.destroy().expect("destroyed");

    let recovery = host.runtime.recover().expect("a look");
    let RunState::Finished { record: same } = &recovery.runs[0].state else {
        panic!("finished")
    };
    assert_eq!(same, &record);
    host.runtime
        .run_dir(&key(&request))
        .expect("a run")
        .retire()
        .expect("retired");
    assert!(host.runtime.recover().expect("a look").runs.is_empty());
    host.finish();
}

#[test]
fn a_killed_executor_takes_its_container_with_it_and_the_run_is_lost() {
    let host = Host::new();
    let request = shell("setsid sleep 1000 & exec sleep 1000");
    let running = host.start(&request);
    kill_executor(&running);
    assert!(
        running.container.wait_empty(LONG).expect("an answer"),
        "the kernel ends the container"
    );
    let RunState::Finished { record } =
        host.runtime.recover().expect("a look").runs.remove(0).state
    else {
        panic!("it is finished")
    };
    let Outcome::Lost { reason } = &record.outcome else {
        panic!("{record:?}")
    };
    assert!(
        reason.contains(&running.executor.pid().to_string()),
        "{reason}"
    );
    assert_eq!(running.wait(), record, "every look gives the same answer");
    running.container.destroy().expect("destroyed");

    let running = host.start(&shell("exec sleep 1000"));
    kill_executor(&running);
    let Outcome::Lost { reason } = running.wait_and_destroy().outcome else {
        panic!("lost")
    };
    assert!(reason.contains("signal 9"), "{reason}");
    host.finish();
}

#[test]
fn a_process_with_a_reused_number_is_not_adopted() {
    let host = Host::new();
    let request = shell("exec sleep 1000");
    let running = host.start(&request);
    kill_executor(&running);
    assert!(running.container.wait_empty(LONG).expect("an answer"));
    running.container.destroy().expect("destroyed");
    // The same number, as if given to another process: this one.
    let run = host.runtime.run_dir(&key(&request)).expect("a run");
    let forged = ProcessIdentity {
        pid: std::process::id(),
        ..running.started.executor.clone()
    };
    let claim = serde_json::json!({ "executor": forged });
    fs::write(run.path().join("executor.json"), claim.to_string()).expect("written");
    let recovered = host.runtime.recover().expect("a look").runs.remove(0);
    let RunState::Finished { record } = recovered.state else {
        panic!("a stranger was adopted")
    };
    assert!(matches!(record.outcome, Outcome::Lost { .. }), "{record:?}");
    assert_eq!(running.wait(), record);
    host.finish();
}

/// The agent died between writing the spec and spawning the executor, or the executor is only just beginning.
#[test]
fn an_executor_that_begins_after_recovery_launches_nothing() {
    let host = Host::new();
    let request = shell("touch ran; exec sleep 1000");
    let late = host.runtime.clone().with_executor_exe("/bin/true".as_ref());
    let Launched {
        executor,
        container,
        start,
    } = late.launch(&request).expect("a launch");
    assert!(start.read().is_none());
    let recovered = host.runtime.recover().expect("a look").runs.remove(0);
    let RunState::Finished { record } = recovered.state else {
        panic!("it never began")
    };
    assert!(
        matches!(record.outcome, Outcome::NeverStarted { .. }),
        "{record:?}"
    );
    let spec = executor.run().path().join("spec.json");
    let status = Command::new(executor_exe())
        .arg("executor")
        .arg("--spec")
        .arg(spec)
        .status()
        .expect("run");
    assert_eq!(status.code(), Some(3));
    assert!(!host.sandbox(&request).join("ran").exists());
    assert_eq!(executor.wait_exit(LONG).expect("an answer"), Some(record));
    container.destroy().expect("destroyed");
    host.finish();
}

#[test]
fn what_belongs_to_no_run_is_told() {
    let host = Host::new();
    let limits = Limits {
        revocable: true,
        ..Limits::default()
    };
    let stray = host
        .runtime
        .cgroups()
        .create("stray", &limits)
        .expect("made");
    let request = shell("true");
    host.run(&request);
    let run = host.runtime.run_dir(&key(&request)).expect("a run");
    fs::write(run.path().join("spec.json"), "{\"torn\":").expect("written");
    let recovery = host.runtime.recover().expect("a look");
    assert_eq!(recovery.runs.len(), 0);
    assert!(
        recovery.broken[0].1.contains("spec.json"),
        "{:?}",
        recovery.broken
    );
    assert_eq!(
        (
            recovery.orphans[0].id.as_str(),
            recovery.orphans[0].revocable
        ),
        ("stray", true)
    );
    stray.destroy().expect("destroyed");
    host.finish();
}

#[test]
fn a_hand_that_starts_an_executor_without_a_run_is_told_so() {
    let output = Command::new(executor_exe())
        .args(["executor", "--spec", "/no/such/spec.json"])
        .output()
        .expect("run");
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("/no/such/spec.json"));
    let output = Command::new(executor_exe())
        .arg("executor")
        .output()
        .expect("run");
    assert_eq!(output.status.code(), Some(2));
}

/// A container may be frozen before its first process is there; its agent may be another one when it is thawed.
#[test]
fn the_start_of_an_adopted_run_is_awaited() {
    let host = Host::new();
    let request = shell("exit 8");
    let launched = host.runtime.launch(&request).expect("a launch");
    launched.container.freeze().expect("asked");
    until("the executor's claim", || {
        launched
            .executor
            .run()
            .claimed()
            .expect("an answer")
            .is_some()
    });
    drop(launched);
    let recovered = host.runtime.recover().expect("a look").runs.remove(0);
    let RunState::Running {
        executor,
        started: None,
    } = recovered.state
    else {
        panic!("{:?}", recovered.state)
    };
    assert_eq!(
        executor
            .wait_started(Duration::from_millis(50))
            .expect("an answer"),
        None
    );
    let thaw = std::thread::scope(|scope| {
        let awaited = scope.spawn(|| executor.wait_started(LONG).expect("an answer"));
        recovered.container.thaw().expect("asked");
        awaited.join().expect("joined")
    });
    assert!(thaw.is_some_and(|started| started.executor.pid == executor.pid()));
    let record = executor
        .wait_exit(LONG)
        .expect("an answer")
        .expect("an end");
    assert_eq!(record.outcome, Outcome::Exited { code: 8 });
    recovered.container.destroy().expect("destroyed");
    host.finish();
}
