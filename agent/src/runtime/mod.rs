//! How the agent runs a command in a container, and finds it again.
//!
//! **Problem.** A task must have its own cgroups, namespaces, folder, user and environment; must be killable at every
//! moment; must go on when the agent stops; and how it ended must be known to the next agent. So each task has an
//! [`executor`](executor_main) process, a fresh instance of the agent's own binary, that records its end on the disk.
//!
//! **Units.** `*_ms` milliseconds since 1970 (records are for people and for later agents), `*_us` microseconds.
//!
//! **Invariants.** A run has one folder and one claim; either its executor launches it or the agent takes it back. A
//! run that is gone has an exit record. A process is known by number, start time and boot together, and is held by
//! pidfd. Nothing of a container is left when [`crate::cgroup::Container::destroy`] has returned.
//!
//! **Limits.** A task that runs as root can leave its cgroups and reach the machine's devices and files: no capability
//! is taken from it, only the gaining of new ones. Trusted frameworks, or a user, until containers have images. On
//! machines whose disks are given to tasks as devices it can do neither, but still reach files; see [`devices`].
//!
//! **Price.** Two processes of about 100 KiB for each task, a fork from one thread, two small records without and
//! one with a sync to the disk. Calls block for a few milliseconds at most, [`Executor::wait_exit`] and
//! `Container::destroy` longer: an event loop gives them to a blocking thread.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

mod devices;
mod error;
mod executor;
mod identity;
mod init;
mod launch;
mod reap;
mod record;
mod recover;
mod rundir;
mod sandbox;
mod spec;
mod user;
mod volumes;

pub use devices::{DeviceSpec, View};
pub use error::RuntimeError;
pub use executor::executor_main;
pub use reap::{Executor, StartSignal};
pub use recover::{Recovered, Recovery, RunState};
pub use rundir::{RunDir, RunKey};
pub use sandbox::{Collected, open_file};
pub use spec::{
    Claim, CommandSpec, ExecutorSpec, ExitRecord, Outcome, PATH_DEFAULT, ProcessIdentity,
    StartedRecord, UsageRecord, User,
};
pub use volumes::{VolumeSpec, leftovers, retire};

use crate::cgroup::{CgroupRoot, Container, Limits};

/// The first argument that makes the agent's binary an executor: `main` hands the arguments behind it to
/// [`executor_main`], before it starts any thread.
pub const EXECUTOR_ARG: &str = "executor";
/// `oom_score_adj` of revocable tasks: the first to go.
pub const OOM_SCORE_ADJ_REVOCABLE: i32 = 1_000;
/// The longest single argument or variable that the kernel passes to a program.
const ARGUMENT_MAX_BYTES: usize = 128 << 10;
/// The most bytes of arguments and environment together.
const ARGUMENTS_MAX_BYTES: usize = 1 << 20;
/// The longest host name of Linux.
const HOSTNAME_MAX_BYTES: usize = 64;

/// What to launch.
#[derive(Debug, Clone, Default)]
pub struct LaunchRequest {
    /// The framework.
    pub framework_id: String,
    /// The task.
    pub task_id: String,
    /// The container: an id that is used once.
    pub container_id: String,
    /// The command.
    pub command: CommandSpec,
    /// The name of the user that it runs as; the agent's own if none.
    pub user: Option<String>,
    /// The host name inside; the machine's if none.
    pub hostname: Option<String>,
    /// What it may use.
    pub limits: Limits,
    /// The volumes that it sees.
    pub volumes: Vec<VolumeSpec>,
    /// The block devices that it has, in a `/dev` of its own; the machine's `/dev` if none.
    pub devices: Option<Vec<DeviceSpec>>,
    /// The signal, by its number, that warns it before it is evicted.
    pub warn_signal: Option<u32>,
}

/// A launch under way.
#[derive(Debug)]
pub struct Launched {
    /// The executor: tells the end.
    pub executor: Executor,
    /// The cgroups.
    pub container: Container,
    /// Tells the start.
    pub start: StartSignal,
}

/// The containers of one agent.
#[derive(Debug, Clone)]
pub struct Runtime {
    work_dir: PathBuf,
    agent_id: String,
    executor_exe: PathBuf,
    cgroups: CgroupRoot,
}

impl Runtime {
    /// The containers of the agent `agent_id` under `work_dir`; executors are instances of the running binary.
    pub fn new(
        work_dir: &Path,
        agent_id: &str,
        cgroups: CgroupRoot,
    ) -> Result<Runtime, RuntimeError> {
        rundir::check_id("agent id", agent_id)?;
        let work_dir =
            std::path::absolute(work_dir).map_err(RuntimeError::file("find", work_dir))?;
        Ok(Runtime {
            work_dir,
            agent_id: agent_id.to_owned(),
            executor_exe: "/proc/self/exe".into(),
            cgroups,
        })
    }

    /// Takes another binary for the executors: one whose `main` knows [`EXECUTOR_ARG`].
    pub fn with_executor_exe(self, exe: &Path) -> Runtime {
        Runtime {
            executor_exe: exe.to_owned(),
            ..self
        }
    }

    /// The cgroups.
    pub fn cgroups(&self) -> &CgroupRoot {
        &self.cgroups
    }

    /// The folder of a run.
    pub fn run_dir(&self, key: &RunKey) -> Result<RunDir, RuntimeError> {
        RunDir::of(&self.work_dir, &self.agent_id, key)
    }

    /// Launches a task: returns when its executor has been spawned. On an error nothing runs and nothing is left behind.
    pub fn launch(&self, request: &LaunchRequest) -> Result<Launched, RuntimeError> {
        self.launch_measured(request, |_| {})
    }

    /// The same, and tells of the container's cgroups as soon as they are made, so that whoever measures it misses
    /// nothing of a task that ends at once. They are gone again if the launch fails.
    ///
    /// # Errors
    /// As [`Self::launch`].
    pub fn launch_measured(
        &self,
        request: &LaunchRequest,
        made: impl FnOnce(&Container),
    ) -> Result<Launched, RuntimeError> {
        check_command(request)?;
        let user = request.user.as_deref().map(user::resolve).transpose()?;
        let key = RunKey {
            framework_id: request.framework_id.clone(),
            task_id: request.task_id.clone(),
            container_id: request.container_id.clone(),
        };
        let run = self.run_dir(&key)?;
        run.make()?;
        let launched = self.launch_in(&run, request, user, made);
        if launched.is_err() {
            // The error says what happened; a folder that cannot be removed is found by recovery and reported there.
            let _ = sandbox::remove(&run);
        }
        launched
    }

    fn launch_in(
        &self,
        run: &RunDir,
        request: &LaunchRequest,
        user: Option<User>,
        made: impl FnOnce(&Container),
    ) -> Result<Launched, RuntimeError> {
        sandbox::make(run, user.as_ref())?;
        for volume in &request.volumes {
            volumes::prepare(volume, &run.sandbox(), user.as_ref())?;
        }
        let devices = request.devices.as_deref().map(View::of).transpose()?;
        let container = self
            .cgroups
            .create(&request.container_id, &request.limits)?;
        if let Some(view) = &devices
            && let Err(error) = view.confine(&container)
        {
            // Nobody has entered; what cannot be removed is found by `CgroupRoot::list`.
            let _ = container.destroy();
            return Err(error);
        }
        made(&container);
        let spec = ExecutorSpec {
            agent_id: self.agent_id.clone(),
            framework_id: request.framework_id.clone(),
            task_id: request.task_id.clone(),
            container_id: request.container_id.clone(),
            command: request.command.clone(),
            user,
            hostname: request.hostname.clone(),
            oom_score_adj: if request.limits.revocable {
                OOM_SCORE_ADJ_REVOCABLE
            } else {
                0
            },
            limits: request.limits.clone(),
            join: container.join_paths(),
            executors_dir: self.cgroups.executors_dir(),
            volumes: request.volumes.clone(),
            devices,
            warn_signal: request.warn_signal,
        };
        let spawned = run
            .write_spec(&spec)
            .and_then(|()| launch::spawn_executor(&self.executor_exe, run));
        match spawned {
            Ok((executor, start)) => Ok(Launched {
                executor,
                container,
                start,
            }),
            Err(e) => {
                // The spawning failed, so the cgroups are empty; if removing them fails, `CgroupRoot::list` finds them.
                let _ = container.destroy();
                Err(e)
            }
        }
    }

    /// Keeps a container that runs without a `/dev` of its own to the devices that everybody may use, whatever it sees.
    ///
    /// # Errors
    /// The kernel's answer.
    pub fn confine(&self, container: &Container) -> Result<(), RuntimeError> {
        View::of(&[])?.confine(container)
    }

    /// Finds every run of this agent that was not retired.
    pub fn recover(&self) -> Result<Recovery, RuntimeError> {
        recover::recover(&self.work_dir, &self.agent_id, &self.cgroups)
    }

    /// Removes the folders of runs that were retired at least `age` before `now`.
    pub fn collect(&self, now: SystemTime, age: Duration) -> Result<Collected, RuntimeError> {
        sandbox::collect(&self.work_dir, &self.agent_id, now, age)
    }
}

/// Refuses what the kernel would refuse, or worse, misunderstand.
fn check_command(request: &LaunchRequest) -> Result<(), RuntimeError> {
    let command = &request.command;
    let bad = |rule: String| RuntimeError::BadCommand {
        container_id: request.container_id.chars().take(64).collect(),
        rule,
    };
    let texts = || {
        let variables = command
            .environment
            .iter()
            .flat_map(|(name, value)| [name, value]);
        command
            .arguments
            .iter()
            .chain(variables)
            .chain([&command.value])
            .chain(&request.hostname)
    };
    if command.value.is_empty() {
        return Err(bad(
            "its value is empty: name a program or a shell command".to_owned()
        ));
    }
    if let Some(text) = texts().find(|text| text.contains('\0')) {
        let start: String = text.chars().take(32).collect();
        return Err(bad(format!(
            "a NUL byte stands in a text that begins with {start:?}"
        )));
    }
    if let Some(name) = command
        .environment
        .keys()
        .find(|name| name.is_empty() || name.contains('='))
    {
        let start: String = name.chars().take(32).collect();
        return Err(bad(format!(
            "an environment variable cannot be called {start:?}"
        )));
    }
    if let Some(text) = texts().find(|text| text.len() >= ARGUMENT_MAX_BYTES) {
        return Err(bad(format!(
            "an argument or variable has {} bytes, the limit is {ARGUMENT_MAX_BYTES}",
            text.len()
        )));
    }
    let total: usize = texts().map(String::len).sum();
    if total > ARGUMENTS_MAX_BYTES {
        return Err(bad(format!(
            "arguments and environment have {total} bytes, the limit is {ARGUMENTS_MAX_BYTES}"
        )));
    }
    match &request.hostname {
        Some(name) if name.is_empty() || name.len() > HOSTNAME_MAX_BYTES => Err(bad(format!(
            "a host name of {} bytes was asked, it may have 1 to {HOSTNAME_MAX_BYTES}",
            name.len()
        ))),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(change: impl FnOnce(&mut LaunchRequest)) -> LaunchRequest {
        let command = CommandSpec {
            shell: true,
            value: "true".into(),
            ..CommandSpec::default()
        };
        let mut request = LaunchRequest {
            command,
            ..LaunchRequest::default()
        };
        change(&mut request);
        request
    }

    #[test]
    fn commands_that_the_kernel_would_refuse_are_refused_with_the_rule() {
        check_command(&request(|_| {})).expect("a good command");
        let variable = |name: &str, value: &str| {
            let (name, value) = (name.to_owned(), value.to_owned());
            request(|r| drop(r.command.environment.insert(name, value)))
        };
        let bad = [
            (request(|r| r.command.value.clear()), "empty"),
            (request(|r| r.command.value = "a\0b".into()), "NUL"),
            (request(|r| r.command.arguments = vec!["\0".into()]), "NUL"),
            (variable("A\0", "b"), "NUL"),
            (variable("A=B", "c"), "A=B"),
            (variable("", "c"), "called"),
            (
                variable("A", &"x".repeat(ARGUMENT_MAX_BYTES)),
                "the limit is 131072",
            ),
            (
                request(|r| r.command.arguments = vec!["x".repeat(100_000); 11]),
                "the limit is 1048576",
            ),
            (request(|r| r.hostname = Some("h".repeat(65))), "host name"),
        ];
        for (request, word) in bad {
            let error = check_command(&request).expect_err(word).to_string();
            assert!(error.contains(word) && error.len() < 400, "{error}");
        }
    }
}
