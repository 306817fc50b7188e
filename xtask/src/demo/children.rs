//! The programs that the demo starts, each in a process group of its own, so that Ctrl-C reaches the
//! demo alone and the demo ends them in order.

use std::fs::{self, File};
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

/// How long a program may take to end after it was asked to.
const GRACE: Duration = Duration::from_secs(20);

struct Program {
    name: String,
    child: Child,
    ended: Option<ExitStatus>,
}

/// Every program of one demo.
pub struct Children {
    folder: PathBuf,
    programs: Vec<Program>,
}

impl Children {
    /// No program yet; their output goes into files of that folder.
    pub fn new(folder: &Path) -> Self {
        Self {
            folder: folder.to_owned(),
            programs: Vec::new(),
        }
    }

    /// Starts a program.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(&mut self, program: PathBuf, name: &str, arguments: &[&str]) -> Result<()> {
        let file = |kind: &str| {
            let path = self.folder.join(format!("{name}.{kind}"));
            File::create(&path).with_context(|| format!("cannot write {}", path.display()))
        };
        let child = Command::new(&program)
            .args(arguments)
            .process_group(0)
            .env("RUST_LOG", "info")
            .stdin(Stdio::null())
            .stdout(file("out")?)
            .stderr(file("log")?)
            .spawn()
            .with_context(|| format!("cannot start {}", program.display()))?;
        self.programs.push(Program {
            name: name.to_owned(),
            child,
            ended: None,
        });
        Ok(())
    }

    /// Fails if a program other than the batch has ended by itself.
    ///
    /// # Errors
    /// Names it, with the last lines that it wrote.
    pub fn check(&mut self) -> Result<()> {
        for program in &mut self.programs {
            if program.ended.is_none() {
                program.ended = program.child.try_wait()?;
            }
            if let Some(status) = program.ended.filter(|_| program.name != "batch") {
                let log = fs::read_to_string(self.folder.join(format!("{}.log", program.name)))?;
                let lines: Vec<&str> = log.lines().rev().take(5).collect();
                let last: Vec<&str> = lines.into_iter().rev().collect();
                bail!(
                    "{} has ended with {status}:\n{}",
                    program.name,
                    last.join("\n")
                );
            }
        }
        Ok(())
    }

    /// Whether a program has ended.
    ///
    /// # Errors
    /// When there is none of that name.
    pub fn has_ended(&mut self, name: &str) -> Result<bool> {
        self.check()?;
        let program = self.programs.iter().find(|program| program.name == name);
        program
            .map(|program| program.ended.is_some())
            .with_context(|| format!("{name} was never started"))
    }

    /// What a program wrote to its standard output.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn output(&self, name: &str) -> Result<String> {
        let path = self.folder.join(format!("{name}.out"));
        fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
    }

    /// The process ids of what still runs, the last started first.
    pub fn pids(&self) -> String {
        let running = self
            .programs
            .iter()
            .rev()
            .filter(|program| program.ended.is_none());
        running
            .map(|program| program.child.id().to_string())
            .collect::<Vec<_>>()
            .join(" ")
    }

    /// Ends everything, the last started first: frameworks, then agents with their tasks, then the master.
    ///
    /// # Errors
    /// Names what had to be killed.
    pub fn end(&mut self) -> Result<()> {
        let mut stubborn = Vec::new();
        while let Some(mut program) = self.programs.pop() {
            if program.ended.is_none() && !end(&mut program.child)? {
                stubborn.push(program.name);
            }
        }
        ensure!(
            stubborn.is_empty(),
            "{} did not end in {} s when asked to",
            stubborn.join(", "),
            GRACE.as_secs()
        );
        Ok(())
    }
}

/// Asks a program to end; whether it did without force.
fn end(child: &mut Child) -> Result<bool> {
    let pid = child.id().to_string();
    Command::new("kill")
        .args(["-TERM", &pid])
        .status()
        .context("cannot run `kill`")?;
    let start = Instant::now();
    while child.try_wait()?.is_none() {
        if start.elapsed() > GRACE {
            child.kill()?;
            child.wait()?;
            return Ok(false);
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(true)
}

/// A port that was free a moment ago.
///
/// # Errors
/// When the machine has none.
pub fn free_port() -> Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .context("no port is free on the loopback interface")?;
    Ok(listener.local_addr()?.port())
}
