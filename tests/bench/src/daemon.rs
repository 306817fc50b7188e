//! A real daemon of Ebb as a process: started, awaited by what it says, ended politely.

use std::collections::VecDeque;
use std::ffi::OsStr;
use std::fs;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, ChildStderr, Command, Stdio};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open};

/// A daemon that says later that it serves has failed.
const START_TIMEOUT: Duration = Duration::from_secs(60);
/// A daemon that takes longer to end is killed.
const END_TIMEOUT_S: i64 = 30;
/// Lines of its log that are kept, to be shown if it fails.
const LOG_LINES: usize = 40;

type Log = Arc<Mutex<VecDeque<String>>>;

/// A running daemon.
pub struct Daemon {
    name: &'static str,
    child: Child,
    address: SocketAddr,
    log: Log,
}

impl Daemon {
    /// Starts the program of that name that was built beside the running one, and returns when it
    /// has said where it listens.
    ///
    /// # Errors
    /// When it is not built, cannot be started, or ends or says nothing; what it logged is told.
    pub fn start<A: AsRef<OsStr>>(name: &'static str, arguments: &[A]) -> Result<Self> {
        let path = beside(name)?;
        let mut child = Command::new(&path)
            .args(arguments)
            .env("NO_COLOR", "1")
            .env("EBB_LOG", "info")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start {}", path.display()))?;
        let log = Log::default();
        let (tell, told) = channel();
        if let Some(stderr) = child.stderr.take() {
            let log = Arc::clone(&log);
            std::thread::spawn(move || keep(stderr, &tell, &log));
        }
        let address = told.recv_timeout(START_TIMEOUT);
        // Also ends it if it does not serve.
        let mut daemon = Self {
            name,
            child,
            address: SocketAddr::from(([127, 0, 0, 1], 0)),
            log,
        };
        daemon.address = address.with_context(|| {
            format!(
                "{name} does not say where it listens; its log:\n{}",
                daemon.log()
            )
        })?;
        Ok(daemon)
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The last lines that it logged.
    pub fn log(&self) -> String {
        let lines = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        lines.iter().cloned().collect::<Vec<_>>().join("\n")
    }

    /// Memory that is resident now, and that was at most, in bytes.
    ///
    /// # Errors
    /// When the process has ended.
    pub fn resident_bytes(&self) -> Result<(u64, u64)> {
        let path = format!("/proc/{}/status", self.child.id());
        let status = fs::read_to_string(&path)
            .with_context(|| format!("{} has ended; its log:\n{}", self.name, self.log()))?;
        let read = |key: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(key));
            let kib = line.and_then(|rest| rest.trim().strip_suffix(" kB"));
            kib.and_then(|number| number.parse::<u64>().ok())
                .map(|kib| kib << 10)
                .with_context(|| format!("{path} has no {key}"))
        };
        Ok((read("VmRSS:")?, read("VmHWM:")?))
    }

    /// Ends it and says how it ended.
    ///
    /// # Errors
    /// When it did not end with success.
    pub fn stop(mut self) -> Result<()> {
        let ended =
            end(&mut self.child).with_context(|| format!("{} cannot be ended", self.name))?;
        ensure!(
            ended,
            "{} did not end with success; its log:\n{}",
            self.name,
            self.log()
        );
        Ok(())
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if let Err(error) = end(&mut self.child) {
            eprintln!("{} cannot be ended: {error}", self.name);
        }
    }
}

/// Ends a process, by force if it takes too long; whether it ended with success.
fn end(child: &mut Child) -> std::io::Result<bool> {
    if let Some(status) = child.try_wait()? {
        return Ok(status.success());
    }
    let pid = Pid::from_child(child);
    let pidfd = pidfd_open(pid, PidfdFlags::empty())?;
    kill_process(pid, Signal::TERM)?;
    let patience = Timespec {
        tv_sec: END_TIMEOUT_S,
        tv_nsec: 0,
    };
    let ended = poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&patience))?;
    if ended == 0 {
        child.kill()?;
    }
    Ok(child.wait()?.success())
}

fn beside(name: &str) -> Result<PathBuf> {
    let path = std::env::current_exe()?.with_file_name(name);
    ensure!(
        path.is_file(),
        "{} is not built; run `cargo xtask bench`, which builds it",
        path.display()
    );
    Ok(path)
}

/// Reads a log to its end; tells the first address that the daemon says it serves at.
fn keep(stderr: ChildStderr, tell: &Sender<SocketAddr>, log: &Log) {
    for line in BufReader::new(stderr).lines().map_while(Result::ok) {
        let words = line.contains("the master listens") || line.contains("the agent serves");
        let address = line.split_whitespace().find_map(|word| {
            let text = word.strip_prefix("address=")?;
            text.parse().ok()
        });
        if let Some(address) = address.filter(|_| words) {
            // Nobody listens any more after the first.
            let _heard = tell.send(address).is_ok();
        }
        let mut lines = log.lock().unwrap_or_else(PoisonError::into_inner);
        if lines.len() == LOG_LINES {
            lines.pop_front();
        }
        lines.push_back(line);
    }
}
