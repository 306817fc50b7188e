//! A program that runs as long as it is needed.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::process::{Pid, Signal, kill_process};

/// Longest wait for its end.
const PATIENCE: Duration = Duration::from_secs(30);
/// Between two looks at whether it has ended.
const LOOK: Duration = Duration::from_millis(10);

/// A program that is asked to end when it is dropped, and ends by then.
pub struct Running {
    name: &'static str,
    child: Child,
}

impl Running {
    /// Wraps one that was started.
    pub fn new(name: &'static str, child: Child) -> Self {
        Self { name, child }
    }

    /// Starts a command of `ebb`, as it was built beside the running program; what it complains of goes to `log`.
    ///
    /// # Errors
    /// When it is not built, or cannot be started.
    pub fn ebb(name: &'static str, log: &Path, stdout: Stdio, arguments: &[&str]) -> Result<Self> {
        let path = std::env::current_exe()?.with_file_name("ebb");
        let child = Command::new(&path)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(stdout)
            .stderr(fs::File::create(log)?)
            .spawn()
            .with_context(|| format!("cannot start {}", path.display()))?;
        Ok(Self::new(name, child))
    }

    /// Its process.
    pub fn child(&mut self) -> &mut Child {
        &mut self.child
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // One that has ended by itself cannot be told to.
        let _ = kill_process(Pid::from_child(&self.child), Signal::TERM);
        let until = Instant::now() + PATIENCE;
        while matches!(self.child.try_wait(), Ok(None)) {
            if Instant::now() >= until {
                eprintln!("{} did not end when it was asked to", self.name);
                let _ = self.child.kill();
            }
            std::thread::sleep(LOOK);
        }
    }
}
