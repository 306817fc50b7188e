//! What the agent says when it cannot start, and that it runs on where it can.
//!
//! Needs root and cgroups, as the agent does: without them these tests fail.
#![allow(clippy::unwrap_used, reason = "a test says where it fails by its line")]

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::process::{Pid, Signal, kill_process};

const PATIENCE: Duration = Duration::from_secs(30);

fn agent(program: &Path, work_dir: &Path, more: &[&str]) -> Command {
    agent_of("127.0.0.1:1", program, work_dir, more)
}

fn agent_of(master: &str, program: &Path, work_dir: &Path, more: &[&str]) -> Command {
    let mut command = Command::new(program);
    command
        .args(["--master", master, "--cgroup-base", &base()])
        .args(["--disk-bandwidth", "1MiB/s", "--kill-tasks-on-shutdown"])
        .arg("--work-dir")
        .arg(work_dir)
        .args(more)
        .env("EBB_LOG", "info")
        .stdin(Stdio::null())
        .stderr(Stdio::piped());
    command
}

fn base() -> String {
    format!("ebb-start-{}", std::process::id())
}

fn own() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_ebb-agent"))
}

/// Runs an agent that must give up, and returns what it says.
fn gives_up(mut command: Command) -> String {
    let mut child = command.spawn().unwrap();
    let until = Instant::now() + PATIENCE;
    while child.try_wait().unwrap().is_none() {
        if Instant::now() > until {
            child.kill().unwrap();
            panic!("it runs on: {:?}", child.wait_with_output());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let said = String::from_utf8(output.stderr).unwrap();
    let at = said.rfind("ebb-agent: ");
    said[at.unwrap_or_else(|| panic!("no sentence: {said}"))..].to_owned()
}

/// An agent that serves.
struct Serving {
    child: Child,
    address: SocketAddr,
    log: BufReader<std::process::ChildStderr>,
    /// What it has logged so far.
    said: String,
}

impl Serving {
    fn start(mut command: Command) -> Self {
        let mut child = command.spawn().unwrap();
        let log = BufReader::new(child.stderr.take().unwrap());
        let mut serving = Self {
            child,
            address: SocketAddr::from(([0, 0, 0, 0], 0)),
            log,
            said: String::new(),
        };
        loop {
            let at = serving.said.len();
            assert!(
                serving.log.read_line(&mut serving.said).unwrap() > 0,
                "it gave up: {}",
                serving.said
            );
            if let Some((_, rest)) = serving.said[at..].split_once("the agent serves address=") {
                serving.address = rest.split_whitespace().next().unwrap().parse().unwrap();
                return serving;
            }
        }
    }

    fn health(&self) -> String {
        let mut stream = TcpStream::connect(self.address).unwrap();
        write!(stream, "GET /health HTTP/1.0\r\nHost: x\r\n\r\n").unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        text
    }

    /// Ends it; all that it has logged in its life.
    fn end(&mut self, signal: Signal) -> &str {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
        self.child.wait().unwrap();
        self.log.read_to_string(&mut self.said).unwrap();
        &self.said
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        // Already ended, unless the test has failed.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_port_in_use_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let said = gives_up(agent(own(), folder.path(), &["--listen", &address]));
    assert!(
        said.contains(&address) && said.contains("--listen"),
        "{said}"
    );
}

#[test]
fn without_root_it_says_how_to_run_it() {
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let program = folder.path().join("ebb-agent");
    fs::copy(own(), &program).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    let mut command = agent(
        &program,
        &folder.path().join("work"),
        &["--listen", "127.0.0.1:0"],
    );
    command.uid(65_534).gid(65_534);
    let said = gives_up(command);
    assert!(
        said.contains("needs root") && said.contains("sudo"),
        "{said}"
    );
}

#[test]
fn a_work_folder_that_is_in_use_or_cannot_be_written_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let any_port = ["--listen", "127.0.0.1:0"];
    let mut serving = Serving::start(agent(own(), folder.path(), &any_port));
    let said = gives_up(agent(own(), folder.path(), &any_port));
    assert!(said.contains("another agent uses"), "{said}");
    serving.end(Signal::TERM);
    let said = gives_up(agent(own(), Path::new("/proc/ebb"), &any_port));
    assert!(
        said.contains("/proc/ebb") && said.contains("--work-dir"),
        "{said}"
    );
}

#[test]
fn a_damaged_journal_is_named_and_not_touched() {
    let folder = tempfile::tempdir().unwrap();
    let journal = folder.path().join("journal");
    fs::write(&journal, "EBBAGT1\nnot a journal").unwrap();
    let any_port = ["--listen", "127.0.0.1:0"];
    // Garbage at the end looks like a write that was not finished.
    Serving::start(agent(own(), folder.path(), &any_port)).end(Signal::TERM);
    let garbage = "garbage from the first byte on";
    fs::write(&journal, garbage).unwrap();
    let said = gives_up(agent(own(), folder.path(), &any_port));
    assert!(said.contains("journal is damaged at byte 0"), "{said}");
    assert_eq!(fs::read_to_string(&journal).unwrap(), garbage);
}

#[test]
fn wrong_settings_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let said = gives_up(agent(own(), folder.path(), &["--mem", "4 apples"]));
    assert!(said.contains("4 apples") && said.contains("GiB"), "{said}");
    let file = folder.path().join("agent.toml");
    fs::write(&file, "wrok_dir = '/tmp'\n").unwrap();
    let said = gives_up(agent(
        own(),
        folder.path(),
        &["--config", file.to_str().unwrap()],
    ));
    assert!(
        said.contains("is not understood") && said.contains("wrok_dir"),
        "{said}"
    );
}

#[test]
fn devices_that_are_none_or_are_in_use_are_refused_with_a_sentence() {
    let folder = tempfile::tempdir().unwrap();
    let image = folder.path().join("image");
    fs::write(&image, vec![0; 1 << 20]).unwrap();
    let root = root_device();
    for (device, words) in [
        (
            "d=/dev/no-such-device",
            ["/dev/no-such-device", "No such file", "lsblk"],
        ),
        ("d=/dev/null", ["/dev/null", "no block device", "lsblk"]),
        (
            &format!("d={}", image.display()),
            ["image", "no block device", "lsblk"],
        ),
        (
            &format!("d={root}"),
            [root.as_str(), "is mounted at", "unmount"],
        ),
        (
            "other=/dev/null",
            ["\"d\" has no device", "[devices]", "--device d="],
        ),
        ("d", ["device", "a name and a device", "fast=/dev/sdb"]),
    ] {
        let work = folder.path().join("work");
        let disk = ["--resources", "disk[block:d]:1MiB", "--device", device];
        let said = gives_up(agent(own(), &work, &disk));
        for word in words {
            assert!(
                said.contains(word),
                "{device}: {word:?} is not said: {said}"
            );
        }
    }
}

/// A block device that is mounted: of the file system of this machine that has one.
fn root_device() -> String {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let numbers = mounts.lines().filter_map(|line| line.split(' ').nth(2));
    let mut named = numbers.filter_map(|number| {
        let event = fs::read_to_string(format!("/sys/dev/block/{number}/uevent")).ok()?;
        let name = event
            .lines()
            .find_map(|line| line.strip_prefix("DEVNAME="))?;
        Some(format!("/dev/{name}"))
    });
    named
        .find(|path| Path::new(path).exists())
        .expect("a file system on a block device: this test needs one")
}

#[test]
fn a_master_that_is_down_is_told_once_and_the_agent_runs_on() {
    let folder = tempfile::tempdir().unwrap();
    // It hangs up on whoever calls: such calls can be counted, and calls at a closed port cannot.
    let down = TcpListener::bind("127.0.0.1:0").unwrap();
    set_socket_timeout(&down, Timeout::Recv, Some(PATIENCE)).unwrap();
    let master = down.local_addr().unwrap().to_string();
    let any_port = ["--listen", "127.0.0.1:0"];
    let mut serving = Serving::start(agent_of(&master, own(), folder.path(), &any_port));
    for _ in 0..4 {
        down.accept().unwrap();
    }
    assert!(serving.health().contains("200 OK"));
    let log = serving.end(Signal::TERM);
    assert_eq!(log.matches("cannot be reached").count(), 1, "{log}");
    assert!(log.contains("the agent has ended"), "{log}");
}

#[test]
fn bytes_that_are_no_request_do_not_end_it() {
    let folder = tempfile::tempdir().unwrap();
    let mut serving = Serving::start(agent(own(), folder.path(), &["--listen", "127.0.0.1:0"]));
    let mut stream = TcpStream::connect(serving.address).unwrap();
    let _ = stream.write_all(&[0xff; 100_000]);
    // A gRPC frame that lies about its length: 4 GiB in 5 bytes.
    let mut liar = TcpStream::connect(serving.address).unwrap();
    liar.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00")
        .unwrap();
    liar.write_all(&[0xff, 0xff, 0xff, 0x00, 0x01]).unwrap();
    assert!(serving.health().contains("200 OK"));
    serving.end(Signal::TERM);
}
