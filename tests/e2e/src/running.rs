//! A program that was started: its lines, its end, and the signals that it is sent.
//!
//! Threads read its output and wait for its end, so that whoever waits for a line or the end is woken by it. The
//! process is named by a pidfd, so that a signal never meets another.

use std::io::{BufRead, BufReader, Read};
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde_json::Value;

use crate::PATIENCE;

/// How long the rest of the output of a program that has ended is waited for: somebody else may hold its pipes.
const DRAIN: Duration = Duration::from_secs(5);

#[derive(Debug, Default)]
struct State {
    stdout: Vec<String>,
    stderr: Vec<String>,
    open_pipes: u32,
    exit: Option<ExitStatus>,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.lock());
        self.changed.notify_all();
    }
}

/// Which of a program's outputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output {
    /// What it was asked for.
    Stdout,
    /// What it says besides; the daemons' logs.
    Stderr,
}

/// How a program ended.
#[derive(Clone, Debug)]
pub struct Ended {
    /// Its exit status.
    pub status: ExitStatus,
    /// All that it wrote to its standard output.
    pub stdout: String,
    /// All that it wrote to its standard error output.
    pub stderr: String,
}

impl Ended {
    /// Its exit code.
    ///
    /// # Panics
    /// When a signal ended it.
    pub fn code(&self) -> i32 {
        self.status
            .code()
            .unwrap_or_else(|| panic!("a signal ended it: {self:?}"))
    }

    /// Its output as JSON.
    ///
    /// # Panics
    /// When it failed, or its output is no JSON.
    pub fn json(&self) -> Value {
        assert_eq!(self.code(), 0, "it failed: {self:?}");
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

/// A program that was started. It ends when this is dropped.
#[derive(Debug)]
pub struct Running {
    name: String,
    id: u32,
    pidfd: OwnedFd,
    shared: Arc<Shared>,
}

impl Running {
    /// Starts it.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn start(name: &str, mut command: Command) -> Self {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{name} cannot be started: {error}"));
        let id = child.id();
        let pid = Pid::from_child(&child);
        let pidfd = pidfd_open(pid, PidfdFlags::empty()).expect("a pidfd of one's own child");
        let shared = Arc::new(Shared::default());
        shared.lock().open_pipes = 2;
        let stdout = child.stdout.take().expect("a pipe");
        let stderr = child.stderr.take().expect("a pipe");
        read(stdout, Arc::clone(&shared), |state| &mut state.stdout);
        read(stderr, Arc::clone(&shared), |state| &mut state.stderr);
        await_end(child, Arc::clone(&shared));
        Self {
            name: name.to_owned(),
            id,
            pidfd,
            shared,
        }
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.id
    }

    /// How many lines it has written so far: those after are new.
    pub fn mark(&self, output: Output) -> usize {
        let state = self.shared.lock();
        match output {
            Output::Stdout => state.stdout.len(),
            Output::Stderr => state.stderr.len(),
        }
    }

    /// Waits for a line, after the first `mark` ones, in which `found` finds something.
    ///
    /// # Panics
    /// When none comes in time, or the program ends before.
    pub fn line<T>(
        &self,
        output: Output,
        mark: usize,
        what: &str,
        mut found: impl FnMut(&str) -> Option<T>,
    ) -> T {
        let deadline = Instant::now() + PATIENCE;
        let mut next = mark;
        let mut state = self.shared.lock();
        loop {
            let lines = match output {
                Output::Stdout => &state.stdout,
                Output::Stderr => &state.stderr,
            };
            if let Some(thing) = lines.iter().skip(next).find_map(|line| found(line)) {
                return thing;
            }
            next = lines.len().max(next);
            let over = state.exit.is_some() && state.open_pipes == 0;
            let left = deadline.saturating_duration_since(Instant::now());
            if over || left.is_zero() {
                let told = self.told(&state);
                drop(state);
                panic!("{} has not shown {what}: {told}", self.name);
            }
            state = self.wait(state, left);
        }
    }

    /// Waits for a line of JSON on its standard output in which `found` finds something.
    ///
    /// # Panics
    /// As [`Running::line`].
    pub fn json_line<T>(
        &self,
        mark: usize,
        what: &str,
        mut found: impl FnMut(&Value) -> Option<T>,
    ) -> T {
        self.line(Output::Stdout, mark, what, |line| {
            found(&serde_json::from_str(line).ok()?)
        })
    }

    /// Sends it a signal; that it has ended already is fine.
    pub fn signal(&self, signal: Signal) {
        match pidfd_send_signal(&self.pidfd, signal) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => {}
            Err(error) => panic!("{} cannot be signalled: {error}", self.name),
        }
    }

    /// Whether it still runs.
    pub fn is_alive(&self) -> bool {
        self.shared.lock().exit.is_none()
    }

    /// Ends it as a crash would, at once, and waits until it is gone.
    pub fn kill9(&self) {
        self.signal(Signal::KILL);
        self.exit_status();
    }

    /// Waits for its end.
    ///
    /// # Panics
    /// When it does not end in time.
    pub fn exit_status(&self) -> ExitStatus {
        self.exit_within(PATIENCE)
    }

    fn exit_within(&self, patience: Duration) -> ExitStatus {
        let deadline = Instant::now() + patience;
        let mut state = self.shared.lock();
        loop {
            if let Some(status) = state.exit {
                return status;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                let told = self.told(&state);
                drop(state);
                panic!("{} does not end: {told}", self.name);
            }
            state = self.wait(state, left);
        }
    }

    /// Waits for its end and gives all that it wrote.
    ///
    /// # Panics
    /// When it does not end in time.
    pub fn ended(&self) -> Ended {
        self.ended_within(PATIENCE)
    }

    /// The same with another patience.
    ///
    /// # Panics
    /// When it does not end in time.
    pub fn ended_within(&self, patience: Duration) -> Ended {
        let status = self.exit_within(patience);
        let deadline = Instant::now() + DRAIN;
        let mut state = self.shared.lock();
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if state.open_pipes == 0 || left.is_zero() {
                return Ended {
                    status,
                    stdout: text(&state.stdout),
                    stderr: text(&state.stderr),
                };
            }
            state = self.wait(state, left);
        }
    }

    fn wait<'a>(&self, state: MutexGuard<'a, State>, left: Duration) -> MutexGuard<'a, State> {
        let waited = self.shared.changed.wait_timeout(state, left);
        waited.unwrap_or_else(PoisonError::into_inner).0
    }

    fn told(&self, state: &State) -> String {
        const LAST: usize = 40;
        let last = |lines: &[String]| text(&lines[lines.len().saturating_sub(LAST)..]);
        format!(
            "exit {:?}\n--- stdout\n{}--- stderr\n{}",
            state
                .exit
                .map(|exit| (exit.code(), ExitStatusExt::signal(&exit))),
            last(&state.stdout),
            last(&state.stderr)
        )
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // A failing test ends here too: nothing more may panic.
        let _ = pidfd_send_signal(&self.pidfd, Signal::KILL);
        let deadline = Instant::now() + DRAIN;
        let mut state = self.shared.lock();
        while state.exit.is_none() && Instant::now() < deadline {
            state = self.wait(state, DRAIN);
        }
        if thread::panicking() {
            eprintln!("--- {}: {}", self.name, self.told(&state));
        }
    }
}

fn text(lines: &[String]) -> String {
    lines.iter().map(|line| format!("{line}\n")).collect()
}

fn read(
    pipe: impl Read + Send + 'static,
    shared: Arc<Shared>,
    lines: fn(&mut State) -> &mut Vec<String>,
) {
    thread::spawn(move || {
        let mut reader = BufReader::new(pipe);
        let mut line = Vec::new();
        loop {
            line.clear();
            match reader.read_until(b'\n', &mut line) {
                Ok(0) | Err(_) => break,
                Ok(_) => {
                    let text = String::from_utf8_lossy(&line);
                    let text = text.strip_suffix('\n').unwrap_or(&text).to_owned();
                    shared.change(|state| lines(state).push(text));
                }
            }
        }
        shared.change(|state| state.open_pipes -= 1);
    });
}

fn await_end(mut child: Child, shared: Arc<Shared>) {
    thread::spawn(move || {
        let status = child.wait().expect("one's own child can be waited for");
        shared.change(|state| state.exit = Some(status));
    });
}
