//! Inside the container: its pid 1, and the last steps of the command's process before its program is executed.
//!
//! Pid 1 joins the v1 cgroups, gives the container its own view of `/proc` and host name, forks the command, then reaps whatever the container leaves to it and passes SIGTERM on to every process. When the
//! command ends, pid 1 tells how and ends too: the kernel then kills the rest of the container.

use std::fs::{File, OpenOptions};
use std::io::{self, PipeWriter, Write};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio, exit};

use nix::sys::signal::{SigSet, Signal};
use rustix::fs::Mode;
use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_change};
use rustix::process::{
    Pid, WaitOptions, WaitStatus, set_parent_process_death_signal, setpriority_process, setsid,
    umask, wait,
};
use rustix::thread::{
    Gid, Uid, set_no_new_privs, set_thread_groups, set_thread_res_gid, set_thread_res_uid,
};

use super::OOM_SCORE_ADJ_REVOCABLE;
use super::launch::{self, Fork};
use super::rundir::RunDir;
use super::spec::{ExecutorSpec, Outcome, PATH_DEFAULT, User};
use super::{devices, volumes};

/// Pid 1's first word: the container stands and nobody has killed it.
const READY: u8 = b'R';
/// The length of pid 1's word about the command's end.
pub(super) const ENDED_BYTES: usize = 5;
/// Its first byte if the command ended by itself, and if by a signal; a 32-bit number follows.
const ENDED_EXITED: u8 = b'E';
const ENDED_SIGNALED: u8 = b'S';
/// Pid 1 is the last process of a container that the kernel may kill for want of memory.
const INIT_OOM_SCORE_ADJ: i32 = -1_000;
/// What files of a task are not: writable by others.
const UMASK: u32 = 0o022;

/// The command's output files.
pub(super) struct Output {
    pub(super) stdout: File,
    pub(super) stderr: File,
}

/// How the container speaks to its executor.
pub(super) struct Voice {
    /// Pid 1: that it stands, and how the command ended.
    pub(super) words: PipeWriter,
    /// Why the command was not executed; closed by its execution.
    pub(super) errors: PipeWriter,
}

/// Enters a cgroup by its `cgroup.procs`.
pub(super) fn join(procs: &Path) -> io::Result<()> {
    OpenOptions::new().write(true).open(procs)?.write_all(b"0")
}

/// Points the standard output nowhere.
pub(super) fn null_stdout() -> io::Result<()> {
    let null = OpenOptions::new().write(true).open("/dev/null")?;
    rustix::stdio::dup2_stdout(null.as_fd()).map_err(io::Error::from)
}

/// Pid 1 of the container. Never returns. `nice` is that of tasks.
pub(super) fn main(
    spec: &ExecutorSpec,
    run: &RunDir,
    nice: i32,
    output: Output,
    voice: Voice,
) -> ! {
    let Voice {
        mut words,
        mut errors,
    } = voice;
    let entered = enter(spec)
        .and_then(|()| volumes::bind(&spec.volumes, &run.sandbox()))
        .and_then(|()| match &spec.devices {
            Some(view) => devices::enter(view, spec.user.as_ref()),
            None => Ok(()),
        });
    if let Err(error) = entered {
        report(&mut errors, &error);
        exit(1);
    }
    // Every cgroup is joined: a forced kill from now on finds this process, an earlier one has left its mark. And without
    // an executor there is nobody to run for: it may have died before its death could be this process's.
    if run.is_marked_killed() || words.write_all(&[READY]).is_err() {
        exit(1);
    }
    match launch::fork() {
        Ok(Fork::Child) => {
            drop(words);
            let error = become_task(spec, &run.sandbox(), nice, output);
            report(&mut errors, &error);
            exit(1)
        }
        Ok(Fork::Parent(task)) => {
            drop((errors, output));
            let warning = spec.warn_signal.and_then(|number| {
                let number = i32::try_from(number).ok()?;
                Signal::try_from(number).ok()
            });
            tend(task, nice, warning, words)
        }
        Err(e) => {
            report(
                &mut errors,
                &format!("cannot fork the command's process: {e}"),
            );
            exit(1)
        }
    }
}

fn report(errors: &mut PipeWriter, text: &str) {
    // If the executor is gone, so is the container.
    let _ = errors.write_all(text.as_bytes());
}

/// Makes the new process a container.
fn enter(spec: &ExecutorSpec) -> Result<(), String> {
    let failed = |what: &'static str| move |e: rustix::io::Errno| format!("cannot {what}: {e}");
    set_parent_process_death_signal(Some(rustix::process::Signal::KILL))
        .map_err(failed("bind the container to its executor"))?;
    for procs in &spec.join.v1_procs {
        join(procs).map_err(|e| format!("cannot enter the cgroup {}: {e}", procs.display()))?;
    }
    null_stdout().map_err(|e| format!("cannot open /dev/null: {e}"))?;
    set_oom_score(INIT_OOM_SCORE_ADJ)?;
    // What the machine mounts later appears inside, what is mounted inside does not appear outside.
    mount_change(
        "/",
        MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC,
    )
    .map_err(failed("make the mounts private"))?;
    mount(
        "proc",
        "/proc",
        "proc",
        MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC,
        None,
    )
    .map_err(failed("mount /proc"))?;
    match &spec.hostname {
        Some(name) => {
            rustix::system::sethostname(name.as_bytes()).map_err(failed("set the host name"))
        }
        None => Ok(()),
    }
}

/// Sets `oom_score_adj`. Lowering it needs a right (CAP_SYS_RESOURCE) that an agent inside a sandbox may lack: then
/// the score stays as it is, which protects less and breaks nothing. Raising it, as for revocable tasks, needs none.
fn set_oom_score(value: i32) -> Result<(), String> {
    let path = "/proc/self/oom_score_adj";
    match std::fs::write(path, value.to_string()) {
        Ok(()) => Ok(()),
        Err(e)
            if e.kind() == io::ErrorKind::PermissionDenied && value < OOM_SCORE_ADJ_REVOCABLE =>
        {
            Ok(())
        }
        Err(e) => Err(format!("cannot set oom_score_adj: {e}")),
    }
}

/// Turns this process into the command. Returns only with what went wrong.
fn become_task(spec: &ExecutorSpec, sandbox: &Path, nice: i32, output: Output) -> String {
    match prepare_task(spec, sandbox, nice) {
        Err(error) => error,
        Ok(()) => {
            let mut command = command(spec);
            command
                .stdin(Stdio::null())
                .stdout(output.stdout)
                .stderr(output.stderr);
            let unblocked = SigSet::empty().thread_set_mask();
            let source = unblocked.map_or_else(io::Error::from, |()| command.exec());
            let user = spec
                .user
                .as_ref()
                .map_or("the agent's user", |user| &user.name);
            let program = if spec.command.shell {
                "/bin/sh"
            } else {
                &spec.command.value
            };
            format!(
                "cannot execute {program:?} as {user:?}: {source}; check that it exists on this machine, in the task's PATH, and that this user may execute it"
            )
        }
    }
}

fn prepare_task(spec: &ExecutorSpec, sandbox: &Path, nice: i32) -> Result<(), String> {
    setsid().map_err(|e| format!("cannot start a session: {e}"))?;
    set_oom_score(spec.oom_score_adj)?;
    setpriority_process(None, nice)
        .map_err(|e| format!("cannot return to the usual priority: {e}"))?;
    umask(Mode::from_raw_mode(UMASK));
    // As root still: the folders above the sandbox may be closed to the user.
    std::env::set_current_dir(sandbox)
        .map_err(|e| format!("cannot enter the sandbox {}: {e}", sandbox.display()))?;
    if spec.devices.is_some() {
        devices::give_up_rights()?;
    }
    if let Some(user) = &spec.user {
        become_user(user).map_err(|e| format!("cannot become the user {:?}: {e}", user.name))?;
    }
    set_no_new_privs(true).map_err(|e| format!("cannot give up gaining rights: {e}"))?;
    launch::close_on_exec().map_err(|e| format!("cannot close descriptors: {e}"))?;
    launch::default_dispositions();
    Ok(())
}

/// Groups first: without root's rights they could not be changed. The calls change one thread, which is all there is.
fn become_user(user: &User) -> rustix::io::Result<()> {
    let groups: Vec<Gid> = user.groups.iter().map(|gid| Gid::from_raw(*gid)).collect();
    let (uid, gid) = (Uid::from_raw(user.uid), Gid::from_raw(user.gid));
    set_thread_groups(&groups)?;
    set_thread_res_gid(gid, gid, gid)?;
    set_thread_res_uid(uid, uid, uid)
}

fn command(spec: &ExecutorSpec) -> Command {
    let asked = &spec.command;
    let mut command;
    if asked.shell {
        command = Command::new("/bin/sh");
        command.arg("-c").arg(&asked.value);
    } else {
        command = Command::new(&asked.value);
        if let Some((name, arguments)) = asked.arguments.split_first() {
            command.arg0(name).args(arguments);
        }
    }
    command
        .env_clear()
        .env("PATH", PATH_DEFAULT)
        .envs(&asked.environment);
    command
}

/// Pid 1's life: reap, pass SIGTERM on, and SIGUSR1 as the warning that the task chose; end when the command has ended.
fn tend(task: Pid, nice: i32, warning: Option<Signal>, mut words: PipeWriter) -> ! {
    // Reaping is the task's own work. Lowering the priority is always allowed.
    let _ = setpriority_process(None, nice);
    let mut awaited = SigSet::empty();
    awaited.add(Signal::SIGCHLD);
    awaited.add(Signal::SIGTERM);
    awaited.add(Signal::SIGUSR1);
    loop {
        while let Ok(Some((pid, status))) = wait(WaitOptions::NOHANG) {
            if pid == task {
                // If nobody listens any more, nobody is deceived either.
                let _ = words.write_all(&encode_end(status));
                exit(0);
            }
        }
        let passed_on = match awaited.wait() {
            Ok(Signal::SIGTERM) => Some(Signal::SIGTERM),
            Ok(Signal::SIGUSR1) => warning,
            _ => None,
        };
        if let Some(signal) = passed_on {
            // -1 from pid 1: every process of this pid namespace but the caller.
            let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(-1), signal);
        }
    }
}

fn encode_end(status: WaitStatus) -> [u8; ENDED_BYTES] {
    let (kind, number) = match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => (ENDED_EXITED, code),
        (None, signal) => (ENDED_SIGNALED, signal.unwrap_or_default()),
    };
    let [a, b, c, d] = number.to_le_bytes();
    [kind, a, b, c, d]
}

/// What pid 1 said about the command's end.
pub(super) fn decode_end([kind, a, b, c, d]: [u8; ENDED_BYTES]) -> Outcome {
    let number = i32::from_le_bytes([a, b, c, d]);
    match kind {
        ENDED_EXITED => Outcome::Exited { code: number },
        ENDED_SIGNALED => Outcome::Signaled { signal: number },
        _ => Outcome::Lost {
            reason: format!("pid 1 of the container sent an unknown word ({kind})"),
        },
    }
}
