//! The generator's process, as the benchmark commands it.

use std::io::{BufRead, BufReader, Lines, Write};
use std::process::{ChildStdin, ChildStdout, Command, Stdio};

use anyhow::{Context, Result};
use serde::de::DeserializeOwned;

use crate::generator::{Report, Step};
use crate::service::Service;
use ebb_tests_bench::Running;

/// The argument with which this program is the generator.
pub const GENERATE: &str = "--generate";

/// A running generator. Dropping it ends it.
pub struct Load {
    commands: ChildStdin,
    answers: Lines<BufReader<ChildStdout>>,
    _program: Running,
}

impl Load {
    /// Starts it, with a real-time claim: it uses little, and what is measured is the service.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(service: Service, port: u16) -> Result<Self> {
        let mut child = Command::new("chrt")
            .args(["--fifo", "1"])
            .arg(std::env::current_exe()?)
            .args([GENERATE, service.name(), &port.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start the generator; util-linux brings chrt")?;
        let commands = child.stdin.take().context("the generator has no input")?;
        let stdout = child.stdout.take().context("the generator has no output")?;
        Ok(Self {
            commands,
            answers: BufReader::new(stdout).lines(),
            _program: Running::new("the generator", child),
        })
    }

    fn ask<T: DeserializeOwned>(&mut self, command: &str) -> Result<T> {
        writeln!(self.commands, "{command}").context("the generator has ended")?;
        let line = self.answers.next().context("the generator has ended")??;
        serde_json::from_str(&line).with_context(|| format!("{line:?} is no answer"))
    }

    /// So many requests a second from now on.
    ///
    /// # Errors
    /// When the generator has ended.
    pub fn rate(&mut self, per_second: f64) -> Result<()> {
        self.ask::<bool>(&format!("rate {per_second}")).map(drop)
    }

    /// What was seen since the last report.
    ///
    /// # Errors
    /// When the generator has ended.
    pub fn report(&mut self) -> Result<Report> {
        self.ask("report")
    }

    /// Another rate for a while; returns at its end.
    ///
    /// # Errors
    /// When the generator has ended.
    pub fn step(&mut self, per_second: f64, ms: u64) -> Result<Step> {
        self.ask(&format!("step {per_second} {ms}"))
    }
}
