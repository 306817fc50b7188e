//! What a command finds: arguments, environment, user, descriptors, namespaces; and how its end is told.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};

use ebb_agent::runtime::{LaunchRequest, Outcome, PATH_DEFAULT, RuntimeError};

use crate::host::{Host, program, shell, until};

#[test]
fn the_end_of_a_command_is_told_as_it_was() {
    let host = Host::new();
    let ends = [
        ("true", Outcome::Exited { code: 0 }),
        ("exit 3", Outcome::Exited { code: 3 }),
        ("no-such-command-anywhere", Outcome::Exited { code: 127 }),
        ("kill -9 $$", Outcome::Signaled { signal: 9 }),
        ("kill -SEGV $$", Outcome::Signaled { signal: 11 }),
        ("exit 255", Outcome::Exited { code: 255 }),
    ];
    for (command, outcome) in ends {
        let (record, _, _) = host.run(&shell(command));
        assert_eq!(record.outcome, outcome, "{command}");
        assert!(
            record
                .started_at_ms
                .is_some_and(|at| at > 0 && at <= record.finished_at_ms)
        );
        assert!(!record.oom_killed());
        assert!(record.usage.is_some_and(|usage| usage.max_rss_bytes > 0));
    }
    host.finish();
}

#[test]
fn output_stands_in_the_sandbox() {
    let host = Host::new();
    let request = shell("echo out; echo err >&2; pwd; echo more");
    let (record, stdout, stderr) = host.run(&request);
    assert_eq!(record.outcome, Outcome::Exited { code: 0 });
    assert_eq!(
        stdout,
        format!("out\n{}\nmore\n", host.sandbox(&request).display())
    );
    assert_eq!(stderr, "err\n");
    host.finish();
}

#[test]
fn the_environment_is_exactly_what_was_asked_for() {
    let host = Host::new();
    let mut request = program(&["env"]);
    request.command.environment =
        BTreeMap::from([("A".into(), "one two".into()), ("Z".into(), "=\n".into())]);
    let (_, stdout, _) = host.run(&request);
    let mut lines: Vec<_> = stdout.lines().collect();
    lines.sort_unstable();
    let path = format!("PATH={PATH_DEFAULT}");
    assert_eq!(lines, ["", "A=one two", path.as_str(), "Z=="]);

    let mut request = program(&["sh", "-c", "echo \"$PATH\""]);
    request.command.environment = BTreeMap::from([("PATH".into(), "/bin:/usr/bin".into())]);
    assert_eq!(host.run(&request).1, "/bin:/usr/bin\n");
    host.finish();
}

#[test]
fn the_arguments_and_the_name_are_exactly_those_asked_for() {
    let host = Host::new();
    let mut request = program(&["my name", "-c", "echo \"$0|$1|$#\"", "zero", "a b", ""]);
    request.command.value = "/bin/sh".into();
    assert_eq!(host.run(&request).1, "zero|a b|2\n");
    let mut request = program(&["my name", "-c", "tr '\\0' '|' < /proc/$$/cmdline"]);
    request.command.value = "/bin/sh".into();
    assert!(host.run(&request).1.starts_with("my name|-c|"));
    host.finish();
}

#[test]
fn a_command_that_cannot_be_executed_says_why() {
    let host = Host::new();
    let (record, _, _) = host.run(&program(&["/no/such/program"]));
    let Outcome::LaunchFailed { error } = &record.outcome else {
        panic!("{record:?}")
    };
    assert!(
        error.contains("/no/such/program") && error.contains("No such file"),
        "{error}"
    );
    assert_eq!(record.started_at_ms, None);

    let (record, _, _) = host.run(&program(&["/etc/passwd"]));
    let Outcome::LaunchFailed { error } = &record.outcome else {
        panic!("{record:?}")
    };
    assert!(error.contains("Permission denied"), "{error}");
    host.finish();
}

#[test]
fn a_launch_that_is_refused_leaves_nothing() {
    let host = Host::new();
    let unknown = LaunchRequest {
        user: Some("no-such-user".into()),
        ..shell("true")
    };
    let error = host.runtime.launch(&unknown).expect_err("unknown");
    assert!(matches!(error, RuntimeError::UnknownUser { .. }), "{error}");
    let above = LaunchRequest {
        task_id: "../../..".into(),
        ..shell("true")
    };
    assert!(matches!(
        host.runtime.launch(&above),
        Err(RuntimeError::BadId { .. })
    ));
    let reserved = LaunchRequest {
        container_id: "+executors".into(),
        ..shell("true")
    };
    assert!(matches!(
        host.runtime.launch(&reserved),
        Err(RuntimeError::Cgroup(_))
    ));
    let no_exe = host
        .runtime
        .clone()
        .with_executor_exe("/no/such/executor".as_ref());
    assert!(matches!(
        no_exe.launch(&shell("true")),
        Err(RuntimeError::Spawn { .. })
    ));
    assert!(host.runtime.recover().expect("a look").runs.is_empty());

    let request = shell("true");
    host.run(&request);
    assert!(
        matches!(
            host.runtime.launch(&request),
            Err(RuntimeError::RunExists { .. })
        ),
        "ids are used once"
    );
    host.finish();
}

#[test]
fn a_task_runs_as_the_user_asked_for() {
    let host = Host::new();
    let request = LaunchRequest {
        user: Some("nobody".into()),
        ..shell(
            "id -u; id -un; touch mine; cat ../spec.json || echo closed; echo 0 > /proc/self/oom_score_adj; grep NoNewPrivs /proc/self/status",
        )
    };
    let (record, stdout, _) = host.run(&request);
    assert_eq!(record.outcome, Outcome::Exited { code: 0 });
    let uid = fs::read_to_string("/etc/passwd").expect("users");
    let uid: u32 = uid
        .lines()
        .find_map(|l| l.strip_prefix("nobody:x:")?.split(':').next()?.parse().ok())
        .expect("nobody");
    assert_eq!(stdout, format!("{uid}\nnobody\nclosed\nNoNewPrivs:\t1\n"));
    let sandbox = fs::metadata(host.sandbox(&request)).expect("a sandbox");
    assert_eq!(
        (sandbox.uid(), sandbox.permissions().mode() & 0o777),
        (uid, 0o700)
    );
    for file in ["mine", "stdout", "stderr"] {
        assert_eq!(
            fs::metadata(host.sandbox(&request).join(file))
                .expect(file)
                .uid(),
            uid,
            "{file}"
        );
    }
    host.finish();
}

#[test]
fn a_fresh_task_has_three_descriptors_and_its_own_namespaces() {
    let host = Host::new();
    let request = LaunchRequest {
        hostname: Some("tide".into()),
        ..program(&["sleep", "1000"])
    };
    let running = host.start(&request);
    let pid = running.task_pid();
    let mut fds: Vec<_> = fs::read_dir(format!("/proc/{pid}/fd"))
        .expect("descriptors")
        .flatten()
        .collect();
    fds.sort_by_key(|fd| fd.file_name());
    let targets: Vec<_> = fds
        .iter()
        .map(|fd| fs::read_link(fd.path()).expect("a target"))
        .collect();
    let sandbox = host.sandbox(&request);
    assert_eq!(
        targets,
        [
            "/dev/null".into(),
            sandbox.join("stdout"),
            sandbox.join("stderr")
        ]
    );
    for (namespace, own) in [
        ("pid", true),
        ("mnt", true),
        ("ipc", true),
        ("uts", true),
        ("net", false),
        ("user", false),
    ] {
        let of =
            |pid: &str| fs::read_link(format!("/proc/{pid}/ns/{namespace}")).expect("a namespace");
        assert_eq!(of(&pid.to_string()) != of("self"), own, "{namespace}");
    }
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("a status");
    let of = |key: &str| {
        status
            .lines()
            .find_map(|l| l.strip_prefix(key))
            .expect(key)
            .trim()
            .to_owned()
    };
    assert_eq!(
        of("NSpid:").split_whitespace().last(),
        Some("2"),
        "pid 1 is its parent"
    );
    for signals in ["SigBlk:", "SigIgn:", "SigCgt:"] {
        assert_eq!(u64::from_str_radix(&of(signals), 16), Ok(0), "{signals}");
    }
    let nice = |pid: u32| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("a status");
        let fields = stat.rsplit_once(')').expect("a name").1;
        fields.split_whitespace().nth(16).expect("it").to_owned()
    };
    assert_eq!(
        nice(pid),
        nice(std::process::id()),
        "the executor's haste is its own"
    );
    running.executor.terminate().expect("asked");
    assert_eq!(
        running.wait_and_destroy().outcome,
        Outcome::Signaled { signal: 15 }
    );
    let inside = LaunchRequest {
        hostname: Some("tide".into()),
        ..shell("uname -n; set -- /proc/[0-9]*; echo $#")
    };
    // Pid 1 and the shell, which counts without starting another.
    assert_eq!(host.run(&inside).1, "tide\n2\n");
    host.finish();
}

#[test]
fn pid_1_reaps_what_is_left_to_it() {
    let host = Host::new();
    let orphans = "for i in 1 2 3 4 5 6 7 8; do (true & true &); done; (sleep 0.05 & ); \
        for i in $(seq 200); do sleep 0.02; set -- /proc/[0-9]*; [ $# = 2 ] && echo clean && exit 0; done; exit 1";
    let (record, stdout, _) = host.run(&shell(orphans));
    assert_eq!(
        (record.outcome, stdout.as_str()),
        (Outcome::Exited { code: 0 }, "clean\n")
    );
    host.finish();
}

#[test]
fn what_a_command_leaves_running_ends_with_it() {
    let host = Host::new();
    let running = host.start(&shell("setsid sleep 1000 & setsid sleep 1000 & exit 5"));
    assert_eq!(running.wait().outcome, Outcome::Exited { code: 5 });
    assert_eq!(
        running.container.procs().expect("a list"),
        Vec::<u32>::new(),
        "gone before the record is seen"
    );
    assert!(!running.container.is_populated().expect("an answer"));
    running.container.destroy().expect("destroyed");
    running
        .container
        .destroy()
        .expect("destroying twice is harmless");
    host.finish();
}

#[test]
fn the_executor_is_small_and_apart() {
    let host = Host::new();
    let running = host.start(&program(&["sleep", "1000"]));
    let pid = running.executor.pid();
    for (name, pid) in [("executor", pid), ("pid 1", running.started.init_pid)] {
        // Else a program that was just linked counts as written to.
        rustix::fs::sync();
        let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).expect("a summary");
        let kib = |key: &str| -> u64 {
            rollup
                .lines()
                .find_map(|l| {
                    l.strip_prefix(key)?
                        .trim()
                        .strip_suffix(" kB")?
                        .parse()
                        .ok()
                })
                .expect(key)
        };
        let (own, share, resident) = (kib("Private_Dirty:"), kib("Pss_Anon:"), kib("Rss:"));
        println!(
            "{name}: {own} KiB private, {share} KiB anonymous with its share, {resident} KiB resident"
        );
        assert!(own < 1_024 && share < 1_024, "{rollup}");
    }
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("a status");
    let session: u32 = stat
        .rsplit_once(')')
        .expect("a name")
        .1
        .split_whitespace()
        .nth(3)
        .expect("it")
        .parse()
        .expect("it");
    assert_eq!(session, pid, "a session of its own");
    assert!(
        !running.container.procs().expect("a list").contains(&pid),
        "outside of the container"
    );
    let executors = host
        .runtime
        .cgroups()
        .executors_dir()
        .expect("v2 is mounted");
    until("the move to the executors' cgroup", || {
        let procs = fs::read_to_string(executors.join("cgroup.procs")).expect("a list");
        procs.lines().any(|line| line == pid.to_string())
    });
    running.executor.kill(&running.container).expect("asked");
    assert_eq!(
        running.wait_and_destroy().outcome,
        Outcome::Signaled { signal: 9 }
    );
    until("the executor's end", || host.executors().is_empty());
    host.finish();
}
