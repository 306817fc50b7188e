//! The executor: one small process for each task, so that the task outlives the agent and its end is recorded.
//!
//! It stands outside of the container (a forced kill of the container leaves it alive to record the kill) and in a session of its own
//! (nothing that happens to the agent's terminal reaches it). It has one thread, waits for signals only, and ends when
//! the container has ended.
//!
//! ```text
//! agent ─spawn→ executor ─clone3→ init (pid 1 of the container) ─fork→ the command
//! ```
//!
//! **Order.** Signals are blocked, then the run is claimed (`executor.json`); who claims it first decides whether
//! anything runs. The container's pid 1 joins every cgroup, then looks whether a forced kill was asked meanwhile, only
//! then forks the command. So a kill is effective at every moment: before the claim it takes the run back, after it the
//! cgroups hold every process or the mark is seen.
//!
//! **Latency.** A launch passes through four processes, and on a busy machine each hand-over may wait for somebody's
//! time slice. So nothing is handed back and forth, and the executor works at a raised priority. On v1 and hybrid hosts
//! pid 1's first entry into a cgroup waits for an RCU grace period: 0.6 ms on an idle machine, 6 to 18 ms on a busy one
//! (v2 alone has nothing to wait for: `CLONE_INTO_CGROUP`); launches in quick succession share it.
//!
//! If the executor is killed, the kernel kills pid 1 and with it the container (`PR_SET_PDEATHSIG`): a task without
//! anybody to record its end does not go on.

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::{self, PipeReader, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{
    Pid, WaitOptions, getpriority_process, kill_process, setpriority_process, waitpid,
};

use super::error::RuntimeError;
use super::launch::{self, Fork};
use super::rundir::{RunDir, now_ms};
use super::spec::{
    Claim, ExecutorSpec, ExitRecord, Outcome, ProcessIdentity, StartedRecord, UsageRecord,
};
use super::{identity, init};
use crate::cgroup;

/// The executor's own `oom_score_adj`: when memory is short, tasks go before those who record their end.
const OOM_SCORE_ADJ: &str = "-900";
/// The executor's own priority: it needs milliseconds, but at once.
const NICE: i32 = -15;
/// The longest text about a failed launch.
const LAUNCH_ERROR_MAX_BYTES: u64 = 4_096;
/// How long a task runs before its executor leaves the agent's v2 cgroup.
const LEAVE_AFTER: Timespec = Timespec {
    tv_sec: 1,
    tv_nsec: 0,
};
/// The exit status of an executor whose run was taken back before it began.
const EXIT_TAKEN_BACK: u8 = 3;

/// The entry point: what the agent's `main` calls when its first argument is [`super::EXECUTOR_ARG`]; `args` are
/// those behind it. Must be called before any thread is started.
pub fn executor_main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    SigSet::all()
        .thread_block()
        .unwrap_or_else(|e| complain("cannot block signals", &e));
    launch::close_inherited()
        .unwrap_or_else(|e| complain("cannot close inherited descriptors", &e));
    let mut args = args.into_iter();
    let (Some(flag), Some(path)) = (args.next(), args.next()) else {
        return usage();
    };
    if flag != "--spec" {
        return usage();
    }
    match run(&PathBuf::from(path)) {
        Ok(code) => code,
        Err(e) => {
            complain("the executor gives up", &e);
            ExitCode::FAILURE
        }
    }
}

fn usage() -> ExitCode {
    complain(
        "usage",
        &"executor --spec FILE (started by the agent, not by hand)",
    );
    ExitCode::from(2)
}

/// Says something in the run's `executor.log`.
fn complain(what: &str, why: &dyn std::fmt::Display) {
    // There is nobody left to tell if this fails.
    let _ = writeln!(io::stderr(), "{what}: {why}");
}

fn run(spec_path: &Path) -> Result<ExitCode, RuntimeError> {
    let no_run =
        || RuntimeError::file("find the run of", spec_path)(io::ErrorKind::NotFound.into());
    let run = RunDir::of_spec(spec_path).ok_or_else(no_run)?;
    let spec = run.spec()?.ok_or_else(no_run)?;
    let own = identity::own()?;
    if !run.claim(&Claim::Executor(own.clone()))? {
        return Ok(ExitCode::from(EXIT_TAKEN_BACK));
    }
    detach();
    let nice = hurry();
    let ended = supervise(&run, &spec, own, nice);
    run.write_exit(&ended)?;
    Ok(ExitCode::SUCCESS)
}

/// Asks the scheduler to be served soon, if that is allowed; returns the nice value of tasks. Where sessions are
/// scheduled as groups (`sched_autogroup`) it counts within the session only, so that of the session is set too.
fn hurry() -> i32 {
    let usual = getpriority_process(None).unwrap_or_default();
    let hasty = usual.min(NICE);
    setpriority_process(None, hasty).unwrap_or_else(|e| complain("cannot raise the priority", &e));
    match std::fs::write("/proc/self/autogroup", hasty.to_string()) {
        Ok(()) => {}
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        Err(e) => complain("cannot raise the session's priority", &e),
    }
    usual
}

/// Leaves the agent's session and folder. Each is for robustness only: where one fails the task still runs.
fn detach() {
    rustix::process::setsid()
        .map(drop)
        .unwrap_or_else(|e| complain("cannot start a session", &e));
    std::env::set_current_dir("/").unwrap_or_else(|e| complain("cannot leave the folder", &e));
    std::fs::write("/proc/self/oom_score_adj", OOM_SCORE_ADJ)
        .unwrap_or_else(|e| complain("cannot lower the OOM score", &e));
}

/// Leaves the agent's v2 cgroup, so that a service manager that ends a service by its cgroup does not find executors
/// there. Entering a cgroup may wait for an RCU grace period, many milliseconds on a busy machine: it is done when
/// nobody waits for the executor, and short tasks are spared it.
fn leave_agents_cgroup(spec: &ExecutorSpec) {
    if let Some(dir) = &spec.executors_dir {
        init::join(&dir.join("cgroup.procs"))
            .unwrap_or_else(|e| complain("cannot leave the agent's cgroup", &e));
    }
}

/// The container's pid 1 as the executor sees it.
struct Container {
    init: Pid,
    words: PipeReader,
    launch_errors: PipeReader,
}

/// Launches the command and waits for its end.
fn supervise(run: &RunDir, spec: &ExecutorSpec, own: ProcessIdentity, nice: i32) -> ExitRecord {
    let mut started_at_ms = None;
    let outcome = match start(run, spec, nice) {
        Err(error) => Outcome::LaunchFailed { error },
        Ok(mut container) => match await_start(&mut container) {
            Ok(()) => {
                let record = StartedRecord {
                    executor: own,
                    init_pid: container.init.as_raw_nonzero().get().unsigned_abs(),
                    started_at_ms: now_ms(),
                };
                started_at_ms = Some(record.started_at_ms);
                announce(run, &record);
                wait_end(container, spec)
            }
            Err(outcome) => {
                // Whatever of it is left must go before the record says that nothing runs.
                let _ = kill_process(container.init, rustix::process::Signal::KILL);
                reap(container.init);
                outcome
            }
        },
    };
    let oom_kills = spec.join.memory_dir.as_ref().and_then(|dir| {
        cgroup::oom_kills(dir)
            .map_err(|e| complain("cannot count OOM kills", &e))
            .ok()
    });
    ExitRecord {
        container_id: run.container_id().to_owned(),
        outcome,
        started_at_ms,
        finished_at_ms: now_ms(),
        oom_kills,
        usage: started_at_ms.and_then(|_| usage_of_children()),
    }
}

/// Opens the task's output and clones the container's pid 1.
fn start(run: &RunDir, spec: &ExecutorSpec, nice: i32) -> Result<Container, String> {
    let failed = |what: &str| {
        let what = what.to_owned();
        move |e: io::Error| format!("{what}: {e}")
    };
    let output = init::Output {
        stdout: open_output(run, spec, "stdout")?,
        stderr: open_output(run, spec, "stderr")?,
    };
    let (launch_errors, error_writer) = io::pipe().map_err(failed("cannot make a pipe"))?;
    let (words, word_writer) = io::pipe().map_err(failed("cannot make a pipe"))?;
    let cgroup = spec.join.v2_dir.as_ref().map(File::open).transpose();
    let cgroup = cgroup.map_err(failed("cannot open the container's cgroup"))?;
    match launch::clone_init(cgroup.as_ref().map(AsFd::as_fd)) {
        Err(e) => Err(format!(
            "cannot clone the container's first process (are you root?): {e}"
        )),
        Ok(Fork::Child) => {
            drop((words, launch_errors, cgroup));
            let voice = init::Voice {
                words: word_writer,
                errors: error_writer,
            };
            init::main(spec, run, nice, output, voice)
        }
        Ok(Fork::Parent(init)) => Ok(Container {
            init,
            words,
            launch_errors,
        }),
    }
}

/// A file for the task's output, in its sandbox and its own. The sandbox is new: nothing can lie in wait there.
fn open_output(run: &RunDir, spec: &ExecutorSpec, name: &str) -> Result<File, String> {
    let path = run.sandbox().join(name);
    let failed = |e: io::Error| format!("cannot make {}: {e}", path.display());
    let flags = rustix::fs::OFlags::NOFOLLOW.bits() as i32;
    let options = OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o644)
        .custom_flags(flags)
        .open(&path);
    let file = options.map_err(failed)?;
    if let Some(user) = &spec.user {
        std::os::unix::fs::fchown(&file, Some(user.uid), Some(user.gid)).map_err(failed)?;
    }
    Ok(file)
}

/// Returns when the program has been executed.
///
/// The error pipe ends in three ways: with a text; silently because the program's execution closed it; silently because
/// everybody who held it died. The last is told from the second by pid 1's word, which comes before the fork.
fn await_start(container: &mut Container) -> Result<(), Outcome> {
    let mut text = String::new();
    let errors = container
        .launch_errors
        .by_ref()
        .take(LAUNCH_ERROR_MAX_BYTES)
        .read_to_string(&mut text);
    if let Err(e) = errors {
        let error = format!("the launch is not known to have succeeded: {e}");
        return Err(Outcome::LaunchFailed { error });
    }
    if !text.is_empty() {
        return Err(Outcome::LaunchFailed { error: text });
    }
    let mut word = [0];
    match container.words.read_exact(&mut word) {
        Ok(()) => Ok(()),
        Err(_) => Err(Outcome::NeverStarted {
            reason: "it was killed before the command was executed".to_owned(),
        }),
    }
}

/// Leaves the start record, and tells the agent if it still listens.
fn announce(run: &RunDir, record: &StartedRecord) {
    run.write_started(record)
        .unwrap_or_else(|e| complain("cannot record the start", &e));
    if let Ok(mut line) = serde_json::to_vec(record) {
        line.push(b'\n');
        let mut out = io::stdout();
        // A closed pipe is an agent that is gone: the one that comes reads the record.
        let _ = out.write_all(&line).and_then(|()| out.flush());
    }
    if let Err(e) = init::null_stdout() {
        complain("cannot close the start pipe", &e);
    }
}

/// Forwards SIGTERM, and SIGUSR1 as the task's warning, to the container until its pid 1 has ended.
fn wait_end(mut container: Container, spec: &ExecutorSpec) -> Outcome {
    if let Err(e) = tend(&container, spec) {
        // Without ears the executor could not be asked to end the task: better no task than one that cannot be ended.
        let _ = kill_process(container.init, rustix::process::Signal::KILL);
        reap(container.init);
        let reason = format!("the executor could not wait for its container and ended it: {e}");
        return Outcome::Lost { reason };
    }
    let mut word = [0; init::ENDED_BYTES];
    match container.words.read_exact(&mut word) {
        Ok(()) => init::decode_end(word),
        // Pid 1 ended without a word: it was killed, and the kernel killed everything else with it.
        Err(_) => Outcome::Signaled {
            signal: rustix::process::Signal::KILL.as_raw(),
        },
    }
}

/// Returns when pid 1 has ended and is reaped.
fn tend(container: &Container, spec: &ExecutorSpec) -> io::Result<()> {
    let mut awaited = SigSet::empty();
    awaited.add(Signal::SIGCHLD);
    awaited.add(Signal::SIGTERM);
    awaited.add(Signal::SIGUSR1);
    let signals = SignalFd::with_flags(&awaited, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
    let mut quiet = Some(LEAVE_AFTER);
    loop {
        if waitpid(Some(container.init), WaitOptions::NOHANG)?.is_some() {
            return Ok(());
        }
        let mut fds = [PollFd::new(&signals, PollFlags::IN)];
        match poll(&mut fds, quiet.as_ref()) {
            Ok(0) => {
                leave_agents_cgroup(spec);
                quiet = None;
            }
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(e) => return Err(e.into()),
        }
        while let Some(signal) = signals.read_signal()? {
            if signal.ssi_signo == Signal::SIGTERM as u32 {
                // It fails only if pid 1 has just ended, which the next round finds.
                let _ = kill_process(container.init, rustix::process::Signal::TERM);
            }
            if signal.ssi_signo == Signal::SIGUSR1 as u32 && spec.warn_signal.is_some() {
                let _ = kill_process(container.init, rustix::process::Signal::USR1);
            }
        }
    }
}

/// Waits for a process that is certain to end.
fn reap(pid: Pid) {
    while let Err(rustix::io::Errno::INTR) = waitpid(Some(pid), WaitOptions::empty()) {}
}

/// What the container's processes used. All of them are descendants that have been waited for: pid 1 by the executor, the others
/// by pid 1 or, when it ended, by the kernel in its name.
fn usage_of_children() -> Option<UsageRecord> {
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN)
        .map_err(|e| complain("cannot read the usage", &e))
        .ok()?;
    let us =
        |time: nix::sys::time::TimeVal| (time.tv_sec() as u64) * 1_000_000 + time.tv_usec() as u64;
    Some(UsageRecord {
        user_us: us(usage.user_time()),
        system_us: us(usage.system_time()),
        max_rss_bytes: (usage.max_rss() as u64) * 1_024,
    })
}
