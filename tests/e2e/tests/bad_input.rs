//! What people get wrong: each mistake is answered with a sentence that says what to do, and what runs, runs on.
#![allow(clippy::unwrap_used, reason = "the helpers of tests fail as tests do")]

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use ebb_tests_e2e::running::Output;
use ebb_tests_e2e::{Cluster, Ended, Running, programs, wire};

/// Asserts that a program refused to start, with one sentence that holds all these words.
fn refused(ended: &Ended, words: &[&str]) {
    assert_eq!(ended.code(), 1, "{ended:?}");
    assert!(!ended.stderr.contains("panicked"), "{ended:?}");
    let last = ended.stderr.lines().last().unwrap_or_default();
    for word in words {
        assert!(ended.stderr.contains(word), "{word:?} is not said: {last}");
    }
}

fn run(name: &str, command: Command) -> Ended {
    Running::start(name, command).ended()
}

/// A program in a mount namespace of its own, in which a line for the shell was done first.
fn behind(line: &str, command: &Command) -> Command {
    let mut wrapped = Command::new("unshare");
    wrapped
        .args(["--mount", "--propagation", "private", "sh", "-ec"])
        .arg(format!("{line}\nexec \"$@\""))
        .arg("sh")
        .arg(command.get_program())
        .args(command.get_args())
        .env("NO_COLOR", "1");
    wrapped
}

#[test]
fn a_port_in_use_is_named_with_what_to_do_and_its_owner_runs_on() {
    let cluster = Cluster::start();
    let taken = [cluster.address(), cluster.agent_address()].map(|address| address.to_string());
    for address in &taken {
        let mut master = programs::program("ebb-master");
        master.args(["--listen", address, "--data-dir"]);
        master.arg(cluster.folder().join("other"));
        refused(&run("ebb-master", master), &[address, "--listen"]);
        let mut agent = cluster.agent_command();
        let at = agent.get_args().position(|arg| arg == "--listen").unwrap();
        let args: Vec<_> = agent.get_args().map(ToOwned::to_owned).collect();
        agent = programs::program("ebb-agent");
        agent.args(&args[..=at]).arg(address).args(&args[at + 2..]);
        refused(&run("ebb-agent", agent), &[address, "--listen"]);
    }
    assert_eq!(cluster.ebb(&["run", "--", "true"]).code(), 0);
    cluster.finish();
}

#[test]
fn without_root_the_agent_says_why_it_needs_it() {
    let mut cluster = Cluster::new();
    cluster.start_master();
    // Whoever it runs as must be able to read the program.
    let copy = cluster.folder().join("ebb-agent");
    fs::copy(programs::path_of("ebb-agent"), &copy).unwrap();
    fs::set_permissions(cluster.folder(), fs::Permissions::from_mode(0o755)).unwrap();
    let mut agent = Command::new(&copy);
    agent
        .args(["--listen", "127.0.0.1:0", "--work-dir"])
        .arg(cluster.work_dir())
        .uid(65534)
        .gid(65534)
        .env("NO_COLOR", "1");
    refused(&run("ebb-agent", agent), &["root", "sudo"]);
    assert_eq!(cluster.ebb(&["agents"]).code(), 0);
    cluster.finish();
}

#[test]
fn without_btf_the_agent_says_that_it_measures_by_the_clock_and_runs_tasks() {
    let mut cluster = Cluster::new();
    cluster.start_master();
    let hidden = behind(
        "mount -t tmpfs none /sys/kernel/btf",
        &cluster.agent_command(),
    );
    let agent = Running::start("ebb-agent", hidden);
    agent.line(Output::Stderr, 0, "that it measures by the clock", |line| {
        (line.contains("by the clock") && line.contains("btf")).then_some(())
    });
    cluster.wait_registered();
    let service = cluster.spawn(&["service", "--json", "--", "sh", "-c", "while :; do :; done"]);
    service.json_line(0, "its instance", |status| {
        (status["running"] == 1).then_some(())
    });
    let source = cluster.wait_until("what the instance uses", |state| {
        let usage = state.agents.first()?.usage.as_ref()?;
        let task = usage.tasks.first()?;
        (task.used.cpu_milli? > 0).then(|| task.sources.cpu.name())
    });
    assert_eq!(source, "ebpf");
    service.signal(rustix::process::Signal::INT);
    assert_eq!(service.ended().code(), 0);
    agent.signal(rustix::process::Signal::TERM);
    assert_eq!(agent.ended().code(), 0);
    drop((service, agent));
    cluster.finish();
}

#[test]
fn a_data_folder_that_cannot_be_used_is_named() {
    let mut cluster = Cluster::new();
    cluster.start_master();
    let file = cluster.folder().join("file");
    fs::write(&file, "not a folder").unwrap();
    let folder = cluster.folder().join("sealed");
    fs::create_dir(&folder).unwrap();
    let sealed = folder.display();
    let seal = format!("mount --bind {sealed} {sealed}; mount -o remount,ro,bind {sealed}");
    let daemons: [(&str, &[&str]); 2] = [
        ("ebb-master", &["--data-dir"]),
        (
            "ebb-agent",
            &["--cgroup-base", cluster.base(), "--work-dir"],
        ),
    ];
    for (name, flags) in daemons {
        let command = |path: &Path| {
            let mut command = programs::program(name);
            command
                .args(["--listen", "127.0.0.1:0"])
                .args(flags)
                .arg(path);
            command
        };
        let flag = flags.last().unwrap();
        for path in [file.clone(), file.join("below")] {
            let said = run(name, command(&path));
            refused(&said, &[path.to_str().unwrap(), flag]);
        }
        for path in [folder.clone(), folder.join("below")] {
            let said = run(name, behind(&seal, &command(&path)));
            refused(&said, &[path.to_str().unwrap(), flag]);
        }
    }
    assert_eq!(cluster.ebb(&["agents"]).code(), 0);
    cluster.finish();
}

#[test]
fn a_corrupt_registry_is_named_and_left_as_it_is() {
    let mut cluster = Cluster::start();
    let registry = cluster
        .folder()
        .join("master")
        .join(ebb_master::store::FILE_NAME);
    cluster.kill9_master();
    let good = fs::read(&registry).unwrap();
    let mut scribbled = good.clone();
    scribbled[64..4096].fill(0xa5);
    for (what, bad) in [
        ("text", b"this is no registry, but a letter\n".to_vec()),
        ("half", good[..good.len() / 2].to_vec()),
        ("scribbled", scribbled),
    ] {
        fs::write(&registry, &bad).unwrap();
        let said = run(what, cluster.master_command());
        refused(
            &said,
            &[registry.to_str().unwrap(), "left as it is", "Restore"],
        );
        assert!(
            fs::read(&registry).unwrap() == bad,
            "{what}: the file was changed"
        );
    }
    // Restored from a copy, as the sentence says, all is well again.
    fs::write(&registry, &good).unwrap();
    cluster.start_master();
    cluster.wait_registered();
    assert_eq!(cluster.ebb(&["run", "--", "true"]).code(), 0);
    cluster.finish();
}

#[test]
fn a_corrupt_work_folder_of_an_agent_is_named_and_left_as_it_is() {
    let mut cluster = Cluster::start();
    assert_eq!(cluster.ebb(&["run", "--", "true"]).code(), 0);
    cluster.kill9_agent();
    for name in ["identity", "journal"] {
        let path = cluster.work_dir().join(name);
        let good = fs::read(&path).unwrap();
        let bad = vec![0xa5; good.len()];
        fs::write(&path, &bad).unwrap();
        let said = run("ebb-agent", cluster.agent_command());
        refused(&said, &[path.to_str().unwrap(), "backup"]);
        assert!(fs::read(&path).unwrap() == bad, "{name} was changed");
        fs::write(&path, &good).unwrap();
    }
    cluster.start_agent();
    cluster.wait_registered();
    assert_eq!(cluster.ebb(&["run", "--", "true"]).code(), 0);
    cluster.finish();
}

#[test]
fn wrong_settings_are_named_with_what_is_allowed() {
    let folder = tempfile::tempdir().unwrap();
    for (name, text, words) in [
        (
            "ebb-master",
            "agent_timeuot = '75s'",
            ["agent_timeuot", "expected one of"],
        ),
        (
            "ebb-master",
            "agent_timeout = '75'",
            ["agent_timeout", "like 15s"],
        ),
        (
            "ebb-agent",
            "memory = '1GiB'",
            ["memory", "expected one of"],
        ),
        ("ebb-agent", "mem = '4 apples'", ["4 apples", "GiB"]),
        ("ebb-agent", "cpus = -3", ["cpus", "like 2 or 1.5"]),
        ("ebb-agent", "mem = '99999999999TiB'", ["mem", "up to"]),
    ] {
        let path = folder.path().join("settings.toml");
        fs::write(&path, text).unwrap();
        let mut command = programs::program(name);
        command.arg("--config").arg(&path);
        refused(&run(name, command), &words);
    }
    let mut missing = programs::program("ebb-master");
    missing.args(["--config", "/no/such/settings.toml"]);
    refused(
        &run("ebb-master", missing),
        &["/no/such/settings.toml", "--config"],
    );
}

/// An address at which nobody listens.
fn nobody() -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    listener.local_addr().unwrap()
}

#[test]
fn a_master_that_is_down_or_out_of_reach_is_told_with_a_remedy() {
    let down = nobody().to_string();
    // From the range that is kept for documentation: no machine has it.
    for address in [down.as_str(), "192.0.2.1:5050"] {
        for args in [
            &["agents"][..],
            &["run", "--", "true"],
            &["top", "--once"],
            &["logs", "t"],
            &["service", "--", "true"],
        ] {
            let mut command = programs::program("ebb");
            command.args(args).env("EBB_MASTER", address);
            let ended = run("ebb", command);
            refused(
                &ended,
                &["cannot reach the master", address, "ebb dev", "--master"],
            );
            if address != down {
                break;
            }
        }
    }
    let mut command = programs::program("ebb");
    command.args(["tasks", "--json", "--master", &down]);
    let ended = run("ebb", command);
    assert_eq!((ended.code(), ended.stdout.as_str()), (1, ""));
    let error: serde_json::Value = serde_json::from_str(&ended.stderr).unwrap();
    assert_eq!(error["exit_code"], 1);
    assert!(
        error["error"].as_str().unwrap().contains("ebb dev"),
        "{error}"
    );
}

#[test]
fn an_agent_whose_master_is_down_says_so_and_finds_it_when_it_comes() {
    let mut cluster = Cluster::new();
    cluster.start_master();
    cluster.kill9_master();
    cluster.start_agent();
    let address = cluster.address().to_string();
    cluster
        .agent()
        .line(Output::Stderr, 0, "that it has no master", |line| {
            (line.contains("cannot be reached") && line.contains(&address)).then_some(())
        });
    assert_eq!(wire::get(cluster.agent_address(), "/health"), "ok\n");
    cluster.start_master();
    cluster.wait_registered();
    assert_eq!(cluster.ebb(&["run", "--", "true"]).code(), 0);
    cluster.finish();
}

#[test]
fn what_cannot_be_an_id_or_an_amount_is_refused_on_the_command_line() {
    let cluster = Cluster::start();
    let huge = "x".repeat(65_536);
    for (args, code) in [
        (&["logs", "../../etc/passwd"][..], 1),
        (&["kill", "a/b/../.."], 1),
        (&["kill", "nobody"], 1),
        (&["status", &huge], 2),
        (&["status", ""], 2),
        (&["teardown", "a\u{1}b"], 2),
        (&["weight", "../up", "1"], 2),
        (&["weight", &huge, "1"], 2),
        (&["weight", "gold", "-1"], 2),
        (&["run", "--cpus", "-1", "--", "true"], 2),
        (
            &["run", "--cpus", "99999999999999999999999", "--", "true"],
            2,
        ),
        (&["run", "--mem", "9999999999999TiB", "--", "true"], 2),
        (&["run", "--mem", "64", "--", "true"], 2),
        (&["run", "--gpus", "1", "--", "true"], 2),
        (&["run", "--role", "a//b", "--", "true"], 2),
        (&["run", "--env", "novalue", "--", "true"], 2),
        (&["batch", "/no/such/list"], 2),
    ] {
        let ended = cluster.ebb(args);
        assert_eq!(ended.code(), code, "{args:.80?}: {ended:?}");
        assert!(!ended.stderr.contains("panicked"), "{ended:?}");
        assert!(ended.stderr.len() > 20, "no sentence: {ended:?}");
        assert!(
            ended.stderr.len() < 2_000,
            "{} bytes: {:.200}",
            ended.stderr.len(),
            ended.stderr
        );
    }
    assert_eq!(cluster.ebb(&["run", "--", "true"]).code(), 0);
    cluster.finish();
}

#[test]
fn a_command_that_cannot_be_run_is_told_with_its_cause() {
    let cluster = Cluster::start();
    for (args, words) in [
        (
            &["run", "--", "/no/such/program"][..],
            &["/no/such/program"][..],
        ),
        (
            &["run", "--user", "nobody-of-that-name", "--", "true"],
            &["nobody-of-that-name"],
        ),
    ] {
        let ended = cluster.ebb(args);
        assert_ne!(ended.code(), 0, "{ended:?}");
        for word in words {
            assert!(ended.stderr.contains(word), "{word} is not said: {ended:?}");
        }
    }
    // More than any agent has: it waits, and says why.
    let waiting = cluster.spawn(&["run", "--json", "--cpus", "1000", "--", "true"]);
    let reason = waiting.json_line(0, "why it waits", |event| {
        Some(event["reason"].as_str()?.to_owned()).filter(|_| event["event"] == "waiting")
    });
    assert!(reason.contains("1000"), "{reason}");
    waiting.signal(rustix::process::Signal::INT);
    assert_ne!(waiting.ended().code(), 0);
    drop(waiting);
    cluster.finish();
}
