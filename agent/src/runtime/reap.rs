//! A running executor as the agent holds it: a pidfd that becomes readable when it has ended, never a bare number.
//!
//! Both descriptors can be given to an event loop (`AsFd`): [`StartSignal`] is readable when the command has been
//! executed or never will be, [`Executor`] when the run has ended. Then the record is read without blocking.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::inotify;
use rustix::process::{Signal, WaitId, WaitIdOptions, pidfd_send_signal, waitid};

use super::error::RuntimeError;
use super::rundir::RunDir;
use super::spec::{ExitRecord, RECORD_MAX_BYTES, StartedRecord};
use crate::cgroup::Container;

/// Room for the events that are read and thrown away at once.
const INOTIFY_BYTES: usize = 4_096;

/// A running executor.
#[derive(Debug)]
pub struct Executor {
    run: RunDir,
    pid: u32,
    pidfd: OwnedFd,
}

impl AsFd for Executor {
    /// Readable once the executor has ended.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }
}

impl Executor {
    pub(super) fn new(run: RunDir, pid: u32, pidfd: OwnedFd) -> Executor {
        Executor { run, pid, pidfd }
    }

    /// Its process number: for people, not for signals.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// The container.
    pub fn container_id(&self) -> &str {
        self.run.container_id()
    }

    /// The run's folder.
    pub fn run(&self) -> &RunDir {
        &self.run
    }

    fn error(&self, operation: &'static str) -> impl FnOnce(rustix::io::Errno) -> RuntimeError {
        let (container_id, pid) = (self.run.container_id().to_owned(), self.pid);
        move |e| RuntimeError::Process {
            operation,
            container_id,
            pid,
            source: e.into(),
        }
    }

    /// Asks the task to end: SIGTERM to every process of the container; a frozen one hears it when it is thawed. A run whose executor has not begun yet is taken
    /// back instead.
    pub fn terminate(&self) -> Result<(), RuntimeError> {
        if self
            .run
            .take_back("it was asked to end before the command was executed")?
        {
            return Ok(());
        }
        match pidfd_send_signal(&self.pidfd, Signal::TERM) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
            Err(e) => Err(self.error("signal")(e)),
        }
    }

    /// Warns the task with the signal that it chose: sent to every process of the container. Runs that chose none do not
    /// hear it.
    pub fn warn(&self) -> Result<(), RuntimeError> {
        match pidfd_send_signal(&self.pidfd, Signal::USR1) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
            Err(e) => Err(self.error("signal")(e)),
        }
    }

    /// Ends the task: SIGKILL to every process of the container, or, if it is not there yet, a mark that keeps it from
    /// starting. The exit record says `Signaled` with 9, or `NeverStarted`.
    pub fn kill(&self, container: &Container) -> Result<(), RuntimeError> {
        self.run.mark_killed()?;
        container.kill_all().map_err(RuntimeError::from)
    }

    /// The end of the run, if it has ended; does not block. A run whose executor ended without a record gets one:
    /// [`super::Outcome::Lost`]. The container's cgroups are the caller's to destroy then.
    pub fn try_exit(&self) -> Result<Option<ExitRecord>, RuntimeError> {
        if !self.wait_readable(Duration::ZERO)? {
            return Ok(None);
        }
        let status = match waitid(
            WaitId::PidFd(self.pidfd.as_fd()),
            WaitIdOptions::EXITED | WaitIdOptions::NOHANG,
        ) {
            Ok(status) => status,
            // Adopted: another process is its parent and reaps it.
            Err(rustix::io::Errno::CHILD) => None,
            Err(e) => return Err(self.error("reap")(e)),
        };
        if let Some(record) = self.run.exit()? {
            return Ok(Some(record));
        }
        let how = match status
            .as_ref()
            .map(|s| (s.exit_status(), s.terminating_signal()))
        {
            Some((Some(code), _)) => format!("with status {code}"),
            Some((None, Some(signal))) => format!("by signal {signal}"),
            _ => "unseen".to_owned(),
        };
        let reason = format!(
            "the executor (pid {}) ended {how} and left no record of the command's end",
            self.pid
        );
        Ok(Some(self.run.record_lost(reason)))
    }

    /// Waits for the end of the run; `None` when `timeout` has passed. Blocks the thread.
    pub fn wait_exit(&self, timeout: Duration) -> Result<Option<ExitRecord>, RuntimeError> {
        if self.wait_readable(timeout)? {
            self.try_exit()
        } else {
            Ok(None)
        }
    }

    /// Waits for the start record of an adopted run that had none yet; `None` when the run has ended or `timeout` has
    /// passed. Blocks the thread.
    pub fn wait_started(&self, timeout: Duration) -> Result<Option<StartedRecord>, RuntimeError> {
        let deadline = Instant::now() + timeout;
        let path = self.run.path();
        let failed = |e: rustix::io::Errno| RuntimeError::file("watch", path)(e.into());
        let watch = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)
            .map_err(failed)?;
        inotify::add_watch(&watch, path, inotify::WatchFlags::MOVED_TO).map_err(failed)?;
        loop {
            // Looked at after the watch is set, so that none is missed.
            if let Some(started) = self.run.started()? {
                return Ok(Some(started));
            }
            if self.wait_readable(Duration::ZERO)? || Instant::now() >= deadline {
                return self.run.started();
            }
            self.wait_any(Some(watch.as_fd()), deadline)?;
            let mut events = [0; INOTIFY_BYTES];
            while rustix::io::read(&watch, &mut events).is_ok_and(|n| n > 0) {}
        }
    }

    fn wait_readable(&self, timeout: Duration) -> Result<bool, RuntimeError> {
        self.wait_any(None, Instant::now() + timeout)
    }

    /// Waits for the executor's end (true) or for the other descriptor.
    fn wait_any(
        &self,
        other: Option<BorrowedFd<'_>>,
        deadline: Instant,
    ) -> Result<bool, RuntimeError> {
        let mut fds = vec![PollFd::from_borrowed_fd(self.pidfd.as_fd(), PollFlags::IN)];
        fds.extend(other.map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)));
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let left = Timespec {
                tv_sec: left.as_secs() as i64,
                tv_nsec: i64::from(left.subsec_nanos()),
            };
            match poll(&mut fds, Some(&left)) {
                Ok(_) => return Ok(!fds[0].revents().is_empty()),
                Err(rustix::io::Errno::INTR) => {}
                Err(e) => return Err(self.error("wait for")(e)),
            }
        }
    }
}

/// Tells once whether the command has been executed.
#[derive(Debug)]
pub struct StartSignal {
    pipe: File,
}

impl AsFd for StartSignal {
    /// Readable once the answer is there.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pipe.as_fd()
    }
}

impl StartSignal {
    pub(super) fn new(pipe: OwnedFd) -> StartSignal {
        StartSignal {
            pipe: File::from(pipe),
        }
    }

    /// The start record, or `None` if the command was never executed: the exit record tells why. Blocks until the
    /// answer is there, at most until the executor has ended.
    pub fn read(self) -> Option<StartedRecord> {
        let mut line = Vec::new();
        let mut pipe = BufReader::new(self.pipe.take(RECORD_MAX_BYTES));
        pipe.read_until(b'\n', &mut line).ok()?;
        serde_json::from_slice(&line).ok()
    }
}
