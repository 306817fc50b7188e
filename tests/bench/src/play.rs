//! What runs in the containers that are measured: processes that are this very program with another argument, so that
//! nothing has to be installed.
//!
//! A player enters its cgroups by itself, says that it is ready, and ends when its input does, so that none outlives
//! the benchmark. Three kinds: a *mix* of threads as a service has them, a *nap* that works a little now and then, and
//! *ping*, which hands a token to and fro between two processes on one CPU and tells how long that took.

use std::fs;
use std::hint::black_box;
use std::io::{BufRead, BufReader, Read, Write, pipe};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitCode, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use rustix::thread::{CpuSet, sched_setaffinity};
use rustix::time::{ClockId, clock_gettime};

use crate::monotonic_ns;
use crate::process::on_cpu_ns;

/// The argument with which a program plays.
const PLAY: &str = "--play";
/// Where a player finds the files through which it enters its cgroups.
const DOORS: &str = "EBB_BENCH_DOORS";
const READY: &str = "ready";

/// Threads of a mix: pairs that talk to each other through pipes, and single ones that work and sleep.
const PAIRS: u64 = 5;
const SLEEPERS: u64 = 15;
/// How often a pair hands over before it rests.
const TRIPS: usize = 5;
/// Rest and sleep; each thread takes a little longer than the one before, so that they do not keep step.
const REST: Duration = Duration::from_millis(10);
const OUT_OF_STEP: Duration = Duration::from_micros(130);
/// What is computed between two sleeps: some 20 us.
const WORK: u64 = 20_000;
/// Between two naps.
const NAP: Duration = Duration::from_millis(50);

/// What a player plays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// 25 threads that talk, work and sleep.
    Mix,
    /// One thread that works for a moment twenty times a second.
    Nap,
    /// Two processes on this CPU that hand over to each other when told.
    Ping(usize),
}

/// What work took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Took {
    /// From its beginning to its end.
    pub wall_ns: u64,
    /// On a CPU, of both processes.
    pub cpu_ns: u64,
}

/// A running player.
pub struct Player {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

impl Player {
    /// Starts one in the cgroups behind these doors; it has entered them and begun when this returns.
    ///
    /// # Errors
    /// When it cannot be started or cannot enter.
    pub fn start(part: Part, doors: &[PathBuf]) -> Result<Self> {
        let doors = std::env::join_paths(doors).context("a cgroup has a colon in its path")?;
        let mut command = Command::new(std::env::current_exe()?);
        command.arg(PLAY).env(DOORS, doors);
        match part {
            Part::Mix => command.arg("mix"),
            Part::Nap => command.arg("nap"),
            Part::Ping(cpu) => command.args(["ping", &cpu.to_string()]),
        };
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start a player")?;
        let input = child.stdin.take();
        let output = child.stdout.take().context("a player has no output")?;
        let mut player = Self {
            child,
            input,
            output: BufReader::new(output),
        };
        let line = player.line()?;
        ensure!(line == READY, "a player said {line:?}");
        Ok(player)
    }

    /// Has a ping make so many round trips, with so much work before each hand-over.
    ///
    /// # Errors
    /// When it has ended.
    pub fn ask(&mut self, trips: u64, work: u64) -> Result<()> {
        let input = self.input.as_mut().context("the player has ended")?;
        writeln!(input, "{trips} {work}").context("the player has ended")
    }

    /// What the round trips took that it was asked for.
    ///
    /// # Errors
    /// When it has ended.
    pub fn answer(&mut self) -> Result<Took> {
        let line = self.line()?;
        let numbers = line.split_once(' ');
        let took = numbers.and_then(|(wall, cpu)| {
            Some(Took {
                wall_ns: wall.parse().ok()?,
                cpu_ns: cpu.parse().ok()?,
            })
        });
        took.with_context(|| format!("a player said {line:?}"))
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        let length = self.output.read_line(&mut line)?;
        ensure!(length > 0, "a player has ended early");
        Ok(line.trim().to_owned())
    }
}

impl Drop for Player {
    fn drop(&mut self) {
        drop(self.input.take());
        if let Err(error) = self.child.wait() {
            eprintln!("a player does not end: {error}");
        }
    }
}

/// If this process was started to play, plays to the end and returns its exit code. To be called first in `main`.
pub fn dispatch() -> Option<ExitCode> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (first, part) = arguments.split_first()?;
    (first == PLAY).then(|| match play(part) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("a player fails: {error:#}");
            ExitCode::FAILURE
        }
    })
}

fn play(part: &[String]) -> Result<()> {
    let words: Vec<&str> = part.iter().map(String::as_str).collect();
    if words != ["echo"] {
        let doors = std::env::var_os(DOORS).unwrap_or_default();
        // No doors at all are one without a name.
        for door in std::env::split_paths(&doors).filter(|door| !door.as_os_str().is_empty()) {
            fs::write(&door, "0").with_context(|| format!("cannot write {}", door.display()))?;
        }
    }
    match words[..] {
        ["mix"] => mix()?,
        ["nap"] => drop(thread::spawn(|| work_and_sleep(NAP))),
        ["ping", cpu] => return ping(cpu.parse()?),
        ["echo"] => return echo(),
        _ => bail!("there is no part {words:?}"),
    }
    println!("{READY}");
    // Nothing is ever said: this waits for the end.
    std::io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}

fn mix() -> Result<()> {
    for number in 0..PAIRS {
        let (mut there_end, mut there) = pipe()?;
        let (mut back_end, mut back) = pipe()?;
        let rest = REST + OUT_OF_STEP * number as u32;
        thread::spawn(move || {
            let mut token = [0; 1];
            while there_end.read_exact(&mut token).is_ok() && back.write_all(&token).is_ok() {}
        });
        thread::spawn(move || {
            let mut token = [0; 1];
            loop {
                for _ in 0..TRIPS {
                    if there.write_all(&token).is_err() || back_end.read_exact(&mut token).is_err()
                    {
                        return;
                    }
                }
                thread::sleep(rest);
            }
        });
    }
    for number in 0..SLEEPERS {
        let rest = REST + OUT_OF_STEP * number as u32;
        thread::spawn(move || work_and_sleep(rest));
    }
    Ok(())
}

fn work_and_sleep(rest: Duration) {
    loop {
        work(WORK);
        thread::sleep(rest);
    }
}

/// So many steps of a computation that the compiler cannot shorten.
fn work(steps: u64) {
    let mut sum = 0u64;
    for step in 0..steps {
        sum = black_box(sum.wrapping_mul(31).wrapping_add(step));
    }
}

/// Hands over to [`echo`], a process of its own that inherits cgroups and CPU, and back.
fn ping(cpu: usize) -> Result<()> {
    let mut cpus = CpuSet::new();
    cpus.set(cpu);
    sched_setaffinity(None, &cpus).with_context(|| format!("cannot run on CPU {cpu} alone"))?;
    let mut child = Command::new(std::env::current_exe()?)
        .args([PLAY, "echo"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut there = child.stdin.take().context("the other has no input")?;
    let mut back = child.stdout.take().context("the other has no output")?;
    println!("{READY}");
    for line in std::io::stdin().lines() {
        let line = line?;
        let asked = line.split_once(' ').context("not understood")?;
        let (trips, steps): (u64, u64) = (asked.0.parse()?, asked.1.parse()?);
        let mut token = steps.to_ne_bytes();
        let cpu_ns = || Ok::<_, anyhow::Error>(own_cpu_ns() + on_cpu_ns(child.id())?);
        let (from_ns, from_cpu_ns) = (monotonic_ns(), cpu_ns()?);
        for _ in 0..trips {
            work(steps);
            there.write_all(&token)?;
            back.read_exact(&mut token)?;
        }
        let wall_ns = monotonic_ns() - from_ns;
        println!("{wall_ns} {}", cpu_ns()? - from_cpu_ns);
    }
    drop(there);
    child.wait()?;
    Ok(())
}

/// CPU time of this process up to now.
fn own_cpu_ns() -> u64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    // It counts from the process's start: it is neither negative nor too large.
    (time.tv_sec as u64) * 1_000_000_000 + time.tv_nsec as u64
}

/// Works as much as the token says, and gives it back.
fn echo() -> Result<()> {
    let mut output = fs::File::from(rustix::io::dup(std::io::stdout())?);
    let mut input = fs::File::from(rustix::io::dup(std::io::stdin())?);
    let mut token = [0; size_of::<u64>()];
    while input.read_exact(&mut token).is_ok() {
        work(u64::from_ne_bytes(token));
        output.write_all(&token)?;
    }
    Ok(())
}
