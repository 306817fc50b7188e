//! Process spawning: how the agent starts an executor, and the few system calls behind containers that have no safe
//! wrapper. All `unsafe` of the runtime is here.
//!
//! The agent has many threads, so it forks nothing: it spawns its own binary anew (`posix_spawn`), and everything
//! that must be done between fork and exec is done in that fresh, single-threaded process. [`fork`] and
//! [`clone_init`] check that they are called in such a process.

use std::fs::{self, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::process::{Pid, PidfdFlags, pidfd_open};

use super::EXECUTOR_ARG;
use super::error::RuntimeError;
use super::reap::{Executor, StartSignal};
use super::rundir::RunDir;

/// `clone3`: be born in this v2 cgroup. Wider than the C library's constants.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;
/// What a container does not share with the machine.
const NAMESPACES: i32 =
    libc::CLONE_NEWPID | libc::CLONE_NEWNS | libc::CLONE_NEWIPC | libc::CLONE_NEWUTS;
/// One above the last signal of Linux.
const SIGNALS_END: i32 = 65;
/// The size of the kernel's signal sets.
const SIGSET_BYTES: usize = 8;

/// Starts the executor of a run whose spec is written. It inherits no environment and no descriptor but the start
/// pipe, and outlives the agent.
pub(super) fn spawn_executor(
    exe: &Path,
    run: &RunDir,
) -> Result<(Executor, StartSignal), RuntimeError> {
    let failed = |source: io::Error| RuntimeError::Spawn {
        exe: exe.to_owned(),
        container_id: run.container_id().to_owned(),
        source,
    };
    let log_path = run.executor_log();
    let log = OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        .open(&log_path);
    let log = log.map_err(RuntimeError::file("make", &log_path))?;
    let mut command = Command::new(exe);
    command
        .arg0("ebb-executor")
        .arg(EXECUTOR_ARG)
        .arg("--spec")
        .arg(run.spec_path())
        .env_clear();
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(log)
        .spawn()
        .map_err(failed)?;
    // The child is not waited for before its pidfd is opened, so its number cannot have been given to another.
    let pid = child.id();
    let pidfd = Pid::from_raw(pid as i32).ok_or(rustix::io::Errno::SRCH);
    let pidfd = pidfd
        .and_then(|pid| pidfd_open(pid, PidfdFlags::empty()))
        .map_err(|e| failed(e.into()))?;
    let start = child
        .stdout
        .take()
        .ok_or_else(|| failed(io::ErrorKind::BrokenPipe.into()))?;
    Ok((
        Executor::new(run.clone(), pid, pidfd),
        StartSignal::new(OwnedFd::from(start)),
    ))
}

/// Which side of a fork this is.
pub(super) enum Fork {
    /// The new process.
    Child,
    /// The old one, with the new one's number.
    Parent(Pid),
}

fn check_single_threaded() -> io::Result<()> {
    match fs::read_dir("/proc/self/task")?.count() {
        1 => Ok(()),
        n => Err(io::Error::other(format!(
            "forking needs a process of one thread, this one has {n}"
        ))),
    }
}

fn fork_result(result: i64) -> io::Result<Fork> {
    match result {
        0 => Ok(Fork::Child),
        pid => Pid::from_raw(pid as i32)
            .filter(|_| pid > 0)
            .map(Fork::Parent)
            .ok_or_else(io::Error::last_os_error),
    }
}

/// Forks into new pid, mount, ipc and uts namespaces, and into the v2 cgroup if one is given: the child is never, not
/// for one instruction, outside of it.
pub(super) fn clone_init(cgroup: Option<BorrowedFd<'_>>) -> io::Result<Fork> {
    check_single_threaded()?;
    // SAFETY: `clone_args` is plain integers, for which zero is valid and means "not used".
    let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
    args.flags = NAMESPACES as u64;
    args.exit_signal = libc::SIGCHLD as u64;
    if let Some(fd) = cgroup {
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = fd.as_raw_fd() as u64;
    }
    // SAFETY: without CLONE_VM and without a stack of its own the call is a fork: the child goes on here with a copy
    // of everything. The process has one thread (checked above), so no lock is held by a thread that is not copied.
    // `args` lives through the call and its size is passed with it.
    let result = unsafe {
        libc::syscall(
            libc::SYS_clone3,
            &raw const args,
            size_of::<libc::clone_args>(),
        )
    };
    fork_result(result)
}

/// Forks.
pub(super) fn fork() -> io::Result<Fork> {
    check_single_threaded()?;
    // SAFETY: the process has one thread (checked above), so the child may do whatever the parent may.
    let result = unsafe { libc::fork() };
    fork_result(i64::from(result))
}

/// Marks every descriptor from 3 up to be closed when a program is executed.
pub(super) fn close_on_exec() -> io::Result<()> {
    // SAFETY: closes nothing now, so no owner of a descriptor is deceived; takes three integers.
    let result = unsafe {
        libc::syscall(
            libc::SYS_close_range,
            3,
            u32::MAX,
            libc::CLOSE_RANGE_CLOEXEC,
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Closes every descriptor from 3 up: whatever the agent was started with. For the very beginning of `main`.
pub(super) fn close_inherited() -> io::Result<()> {
    // SAFETY: called first in an executor, when the process has opened nothing of its own above 2.
    let result = unsafe { libc::syscall(libc::SYS_close_range, 3, u32::MAX, 0) };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Gives every signal its default disposition: ignored ones would stay ignored in the program executed next. Asks the
/// kernel itself, because the C library refuses to touch the signals that it keeps to itself, which an agent may have
/// been started with ignored as well.
pub(super) fn default_dispositions() {
    // The kernel's `sigaction`: handler (0 is SIG_DFL), flags, restorer, mask; the largest of all architectures.
    let default = [0_u64; 4];
    for signal in 1..SIGNALS_END {
        // SAFETY: the kernel reads at most the 32 bytes of `default`, and writes nothing. No handler is set. KILL and
        // STOP are refused, harmlessly.
        unsafe {
            libc::syscall(
                libc::SYS_rt_sigaction,
                signal,
                default.as_ptr(),
                std::ptr::null_mut::<u64>(),
                SIGSET_BYTES,
            )
        };
    }
}
