//! A runtime of its own for one test, and the proof that nothing is left of it.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use ebb_agent::cgroup::{CgroupRoot, Container, Limits, Mounts};
use ebb_agent::runtime::{
    CommandSpec, Executor, ExitRecord, LaunchRequest, Launched, RunKey, Runtime, StartedRecord,
};

/// No test's task runs longer.
pub(crate) const LONG: Duration = Duration::from_secs(30);
pub(crate) const AGENT_ID: &str = "agent-1";

static COUNT: AtomicU32 = AtomicU32::new(0);

/// One agent's runtime on this machine.
pub(crate) struct Host {
    pub(crate) runtime: Runtime,
    pub(crate) work: tempfile::TempDir,
    base: String,
    mounts_before: Vec<String>,
}

/// A run that was started.
pub(crate) struct Running {
    pub(crate) executor: Executor,
    pub(crate) container: Container,
    pub(crate) started: StartedRecord,
}

pub(crate) fn executor_exe() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_ebb-agent"))
}

pub(crate) fn shell(value: &str) -> LaunchRequest {
    request(CommandSpec {
        shell: true,
        value: value.into(),
        ..CommandSpec::default()
    })
}

pub(crate) fn program(arguments: &[&str]) -> LaunchRequest {
    let arguments: Vec<String> = arguments.iter().map(|a| a.to_string()).collect();
    request(CommandSpec {
        shell: false,
        value: arguments[0].clone(),
        arguments,
        ..CommandSpec::default()
    })
}

fn request(command: CommandSpec) -> LaunchRequest {
    LaunchRequest {
        framework_id: "framework".into(),
        task_id: "task".into(),
        container_id: format!("c-{}", COUNT.fetch_add(1, Ordering::Relaxed)),
        command,
        limits: Limits {
            cpu_milli: 1_000,
            ..Limits::default()
        },
        ..LaunchRequest::default()
    }
}

pub(crate) fn key(request: &LaunchRequest) -> RunKey {
    RunKey {
        framework_id: request.framework_id.clone(),
        task_id: request.task_id.clone(),
        container_id: request.container_id.clone(),
    }
}

/// The mounts that a container could leave: others on this machine come and go.
fn mounts_like_ours(work: &Path) -> Vec<String> {
    let all = fs::read_to_string("/proc/self/mountinfo").expect("the mounts");
    let work = work.to_str().expect("a path");
    all.lines()
        .filter(|l| l.contains(" - proc ") || l.contains(work))
        .map(str::to_owned)
        .collect()
}

/// Waits until `done`, looking often: for things outside of the runtime that give no event.
pub(crate) fn until(what: &str, done: impl Fn() -> bool) {
    let deadline = Instant::now() + LONG;
    while !done() {
        assert!(Instant::now() < deadline, "{what} did not happen");
        std::thread::sleep(Duration::from_millis(2));
    }
}

impl Host {
    pub(crate) fn new() -> Host {
        Host::with(Mounts::detect().expect("a cgroup file system"))
    }

    /// A host of which only some mounts are used.
    pub(crate) fn with(mounts: Mounts) -> Host {
        assert!(
            rustix::process::geteuid().is_root(),
            "containers need root: run these tests as root"
        );
        let base = format!(
            "ebb-test-{}-{}",
            std::process::id(),
            COUNT.fetch_add(1, Ordering::Relaxed)
        );
        let cgroups = CgroupRoot::prepare(mounts, &base, "one").expect("roots in every hierarchy");
        let work = tempfile::tempdir().expect("a folder");
        // As an agent's folder is: tasks of other users must reach their sandboxes.
        fs::set_permissions(
            work.path(),
            std::os::unix::fs::PermissionsExt::from_mode(0o711),
        )
        .expect("opened");
        let mounts_before = mounts_like_ours(work.path());
        let runtime = Runtime::new(work.path(), AGENT_ID, cgroups).expect("a runtime");
        Host {
            runtime: runtime.with_executor_exe(executor_exe()),
            work,
            base,
            mounts_before,
        }
    }

    /// Launches and waits until the command runs.
    pub(crate) fn start(&self, request: &LaunchRequest) -> Running {
        let Launched {
            executor,
            container,
            start,
        } = self.runtime.launch(request).expect("a launch");
        let started = start
            .read()
            .unwrap_or_else(|| panic!("not started: {:?}", executor.wait_exit(LONG)));
        Running {
            executor,
            container,
            started,
        }
    }

    /// Launches, waits for the end, destroys, and returns how it ended and what it wrote.
    pub(crate) fn run(&self, request: &LaunchRequest) -> (ExitRecord, String, String) {
        let Launched {
            executor,
            container,
            start,
        } = self.runtime.launch(request).expect("a launch");
        let started = start.read();
        let record = executor
            .wait_exit(LONG)
            .expect("an answer")
            .expect("an end in time");
        assert_eq!(started.is_some(), record.started_at_ms.is_some());
        container.destroy().expect("destroyed");
        (
            record,
            self.output(request, "stdout"),
            self.output(request, "stderr"),
        )
    }

    pub(crate) fn sandbox(&self, request: &LaunchRequest) -> PathBuf {
        self.runtime
            .run_dir(&key(request))
            .expect("a run")
            .sandbox()
    }

    pub(crate) fn output(&self, request: &LaunchRequest, name: &str) -> String {
        fs::read_to_string(self.sandbox(request).join(name)).unwrap_or_default()
    }

    /// Every process that belongs to this host's runs: executors by their arguments.
    pub(crate) fn executors(&self) -> Vec<u32> {
        let work = self.work.path().to_str().expect("a path").to_owned();
        let pids = fs::read_dir("/proc").expect("proc").flatten();
        let pids = pids.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
        pids.filter(|pid| {
            fs::read(format!("/proc/{pid}/cmdline"))
                .is_ok_and(|c| String::from_utf8_lossy(&c).contains(&work))
        })
        .filter(|pid| *pid != std::process::id())
        .collect()
    }

    /// The directories of this host in the cgroup tree.
    fn directories(&self) -> Vec<PathBuf> {
        let mounts = self.runtime.cgroups().mounts();
        let all = ebb_agent::cgroup::Controller::ALL;
        let mounted = all.iter().filter_map(|c| mounts.v1(*c)).chain(mounts.v2());
        let bases = mounted.flat_map(|m| {
            [
                m.join(&self.base),
                m.join(format!("{}-revocable", self.base)),
            ]
        });
        let mut bases: Vec<_> = bases.filter(|path| path.exists()).collect();
        bases.sort();
        bases.dedup();
        bases
    }

    /// Asserts that nothing is left: no container, no process, no mount, and after removing the roots no cgroup.
    pub(crate) fn finish(self) {
        assert_eq!(self.runtime.cgroups().list().expect("a list"), []);
        until("the end of every executor", || self.executors().is_empty());
        assert!(!self.directories().is_empty(), "the roots were there");
        assert!(
            self.runtime.cgroups().remove().expect("removed"),
            "the roots were not empty"
        );
        assert_eq!(self.directories(), Vec::<PathBuf>::new());
        assert_eq!(
            mounts_like_ours(self.work.path()),
            self.mounts_before,
            "a mount was left"
        );
    }
}

impl Drop for Host {
    /// After a failed test: leave the machine as it was. After [`Host::finish`] nothing is found.
    fn drop(&mut self) {
        let cgroups = self.runtime.cgroups();
        for listed in cgroups.list().unwrap_or_default() {
            let limits = Limits {
                revocable: listed.revocable,
                ..Limits::default()
            };
            let destroyed = cgroups
                .open(&listed.id, &limits)
                .and_then(|container| container.destroy());
            if let Err(e) = destroyed {
                eprintln!("left behind: {} ({e})", listed.id);
            }
        }
        for _ in 0..100 {
            if cgroups.remove().unwrap_or(true) {
                break;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Running {
    pub(crate) fn wait(&self) -> ExitRecord {
        self.executor
            .wait_exit(LONG)
            .expect("an answer")
            .expect("an end in time")
    }

    pub(crate) fn wait_and_destroy(&self) -> ExitRecord {
        let record = self.wait();
        self.container.destroy().expect("destroyed");
        record
    }

    /// The command's process as the machine numbers it: the first child of pid 1.
    pub(crate) fn task_pid(&self) -> u32 {
        let init = self.started.init_pid;
        let children =
            fs::read_to_string(format!("/proc/{init}/task/{init}/children")).expect("children");
        children
            .split_whitespace()
            .next()
            .expect("a child")
            .parse()
            .expect("a number")
    }
}
