//! The other shapes of hosts, out of this machine's mounts: v1 alone, and v2 without a controller.

use std::fs;
use std::time::Duration;

use ebb_agent::cgroup::{CgroupError, Hierarchy, Limits, Mounts};
use ebb_agent::runtime::{Outcome, RuntimeError};

use crate::host::{Host, LONG, program, shell, until};

/// This machine as if only the mounts of this type were there.
fn only(kind: &str) -> Mounts {
    let all = fs::read_to_string("/proc/self/mountinfo").expect("the mounts");
    let some: String = all
        .lines()
        .filter(|l| l.contains(&format!(" - {kind} ")))
        .map(|l| format!("{l}\n"))
        .collect();
    Mounts::of(&some).expect("a mount of this type")
}

#[test]
fn v1_alone_limits_freezes_and_kills() {
    let host = Host::with(only("cgroup"));
    assert_eq!(host.runtime.cgroups().mounts().hierarchy(), Hierarchy::V1);
    let mut request = shell("exec tail /dev/zero");
    request.limits.mem_bytes = Some(32 << 20);
    let (record, _, _) = host.run(&request);
    assert!(record.oom_killed(), "{record:?}");

    let request = shell("n=0; while :; do n=$((n+1)); echo $n > n; done");
    let running = host.start(&request);
    assert_eq!(running.container.cgroup_id().expect("an answer"), None);
    until("a count", || !host.output(&request, "n").is_empty());
    running.container.freeze().expect("asked");
    assert!(
        running
            .container
            .wait_frozen(true, LONG)
            .expect("an answer")
    );
    let before = host.output(&request, "n");
    // The interval is what is tested: nothing may come in it.
    std::thread::sleep(Duration::from_millis(100));
    assert_eq!(host.output(&request, "n"), before, "it ran while frozen");
    running.container.thaw().expect("asked");
    assert!(
        running
            .container
            .wait_frozen(false, LONG)
            .expect("an answer")
    );
    until("more", || {
        !["", &before].contains(&host.output(&request, "n").as_str())
    });
    running.executor.terminate().expect("asked");
    assert_eq!(
        running.wait_and_destroy().outcome,
        Outcome::Signaled { signal: 15 }
    );

    let forking = "fork() { while :; do setsid sleep 1000 & sleep 0.01; done; }; fork & fork";
    let running = host.start(&shell(forking));
    until("twenty forks", || {
        running.container.procs().expect("a list").len() > 20
    });
    assert!(running.container.is_populated().expect("an answer"));
    assert!(
        !running
            .container
            .wait_empty(Duration::from_millis(10))
            .expect("an answer")
    );
    running.container.freeze().expect("asked");
    running.executor.kill(&running.container).expect("asked");
    assert_eq!(running.wait().outcome, Outcome::Signaled { signal: 9 });
    assert!(running.container.wait_empty(LONG).expect("an answer"));
    running.container.destroy().expect("destroyed");
    host.finish();
}

#[test]
fn v2_without_controllers_runs_tasks_and_refuses_limits() {
    let host = Host::with(only("cgroup2"));
    let mounts = host.runtime.cgroups().mounts().clone();
    assert_eq!(mounts.hierarchy(), Hierarchy::V2);
    assert_eq!(
        host.run(&shell("exit 4")).0.outcome,
        Outcome::Exited { code: 4 }
    );
    let running = host.start(&program(&["sleep", "1000"]));
    assert!(
        running
            .container
            .procs()
            .expect("a list")
            .contains(&running.task_pid())
    );
    running.executor.kill(&running.container).expect("asked");
    assert_eq!(
        running.wait_and_destroy().outcome,
        Outcome::Signaled { signal: 9 }
    );
    let mut limited = shell("true");
    limited.limits = Limits {
        mem_bytes: Some(1 << 30),
        ..Limits::default()
    };
    let refused = host
        .runtime
        .launch(&limited)
        .expect_err("there is no memory controller");
    assert!(
        matches!(
            refused,
            RuntimeError::Cgroup(CgroupError::NoController { .. })
        ),
        "{refused}"
    );
    host.finish();
}
