//! Ending containers: politely, by force, while they fork, while they are frozen, before they have begun.

use std::fs;
use std::time::{Duration, Instant};

use ebb_agent::runtime::Outcome;

use crate::host::{Host, LONG, shell, until};

#[test]
fn sigterm_reaches_every_process() {
    let host = Host::new();
    let command = "setsid sh -c 'trap \"echo child >> said; exit\" TERM; echo r >> ready; while :; do sleep 0.02; done' & \
        trap 'sleep 0.3; echo main >> said; exit 7' TERM; echo r >> ready; while :; do sleep 0.02; done";
    let request = shell(command);
    let running = host.start(&request);
    until("both traps", || {
        host.output(&request, "ready").lines().count() == 2
    });
    running.executor.terminate().expect("asked");
    assert_eq!(
        running.wait_and_destroy().outcome,
        Outcome::Exited { code: 7 }
    );
    assert_eq!(host.output(&request, "said"), "child\nmain\n");
    host.finish();
}

#[test]
fn a_task_may_ignore_sigterm_but_not_the_cgroup() {
    let host = Host::new();
    let request = shell("trap '' TERM; echo r > ready; while :; do sleep 0.02; done");
    let running = host.start(&request);
    until("the trap", || host.output(&request, "ready") == "r\n");
    running.executor.terminate().expect("asked");
    assert_eq!(
        running
            .executor
            .wait_exit(Duration::from_millis(200))
            .expect("an answer"),
        None
    );
    running.executor.kill(&running.container).expect("asked");
    assert_eq!(
        running.wait_and_destroy().outcome,
        Outcome::Signaled { signal: 9 }
    );
    host.finish();
}

#[test]
fn a_forced_kill_ends_forks_in_nested_cgroups() {
    let host = Host::new();
    let mut request = shell(
        "for d in $DIRS; do mkdir -p $d/nested/deeper; done; \
         fork() { while :; do sh -c 'for d in $DIRS; do echo 0 > $d/nested/deeper/cgroup.procs; done; exec setsid sleep 1000' & sleep 0.01; done; }; \
         fork & fork",
    );
    let probe = host
        .runtime
        .cgroups()
        .open(&request.container_id, &request.limits)
        .expect("a handle");
    let paths = probe.paths();
    let dirs: Vec<_> = paths
        .v1
        .values()
        .chain(&paths.v2)
        .map(|d| d.to_str().expect("a path").to_owned())
        .collect();
    request
        .command
        .environment
        .insert("DIRS".into(), dirs.join(" "));
    let running = host.start(&request);
    let nested = paths
        .v2
        .expect("v2 is mounted")
        .join("nested/deeper/cgroup.procs");
    until("twenty forks in a nested cgroup", || {
        fs::read_to_string(&nested).is_ok_and(|p| p.lines().count() > 20)
    });
    assert!(running.container.procs().expect("a list").len() > 20);
    running.executor.kill(&running.container).expect("asked");
    assert_eq!(running.wait().outcome, Outcome::Signaled { signal: 9 });
    assert_eq!(
        running.container.procs().expect("a list"),
        Vec::<u32>::new()
    );
    running.container.destroy().expect("destroyed");
    assert!(!nested.exists());
    host.finish();
}

#[test]
fn a_frozen_container_stands_still_and_goes_on_and_dies() {
    let host = Host::new();
    let request = shell("while :; do :; done");
    let running = host.start(&request);
    let used = || -> u64 {
        let stat =
            fs::read_to_string(format!("/proc/{}/stat", running.task_pid())).expect("a status");
        let fields: Vec<_> = stat
            .rsplit_once(')')
            .expect("a name")
            .1
            .split_whitespace()
            .collect();
        fields[11].parse::<u64>().expect("a number") + fields[12].parse::<u64>().expect("a number")
    };
    until("some use", || used() > 2);
    let asked = Instant::now();
    running.container.freeze().expect("asked");
    assert!(
        running
            .container
            .wait_frozen(true, LONG)
            .expect("an answer")
    );
    println!("frozen after {:?}", asked.elapsed());
    let before = used();
    // The interval is what is tested: nothing may come in it.
    std::thread::sleep(Duration::from_millis(200));
    assert_eq!(used(), before, "it ran while frozen");
    running.container.thaw().expect("asked");
    assert!(
        running
            .container
            .wait_frozen(false, LONG)
            .expect("an answer")
    );
    until("more use", || used() > before + 2);
    running.container.freeze().expect("asked");
    assert!(
        running
            .container
            .wait_frozen(true, LONG)
            .expect("an answer")
    );
    running.executor.kill(&running.container).expect("asked");
    assert_eq!(
        running.wait_and_destroy().outcome,
        Outcome::Signaled { signal: 9 }
    );
    host.finish();
}

/// A kill at whatever moment between the spawning of the executor and the execution of the command is effective.
#[test]
fn a_kill_is_effective_at_every_moment() {
    let host = Host::new();
    let (mut never, mut signaled) = (0, 0);
    for round in 0..120_u64 {
        let request = shell("exec sleep 1000");
        let launched = host.runtime.launch(&request).expect("a launch");
        let until = Instant::now() + Duration::from_micros(round / 2 * 60);
        // However slow the machine is, the last ones run when they are killed.
        let started = || {
            launched
                .executor
                .run()
                .started()
                .expect("an answer")
                .is_some()
        };
        while Instant::now() < until || (round >= 110 && !started()) {
            std::hint::spin_loop();
        }
        let polite = round % 2 == 0;
        if polite {
            launched.executor.terminate().expect("asked");
        } else {
            launched.executor.kill(&launched.container).expect("asked");
        }
        let record = launched
            .executor
            .wait_exit(LONG)
            .expect("an answer")
            .expect("an end in time");
        match record.outcome {
            Outcome::NeverStarted { .. } => never += 1,
            Outcome::Signaled { signal } if signal == if polite { 15 } else { 9 } => signaled += 1,
            other => panic!("round {round}: {other:?}"),
        }
        assert_eq!(
            launched.start.read().is_some(),
            record.started_at_ms.is_some()
        );
        launched.container.destroy().expect("destroyed");
        assert_eq!(
            launched.container.procs().expect("a list"),
            Vec::<u32>::new()
        );
    }
    println!("killed before the start: {never}, after: {signaled}");
    assert!(
        never > 0 && signaled > 0,
        "both sides were tried: {never}, {signaled}"
    );
    host.finish();
}
