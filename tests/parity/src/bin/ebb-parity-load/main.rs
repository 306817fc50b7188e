//! The loads that the parity tests measure: `ebb-parity-load KIND NUMBER...`.
//!
//! - `spin MILLISECONDS [CPU]` computes without ever leaving the CPU, on one CPU if one is named;
//! - `wake MILLISECONDS [CPU]` runs 50 threads that work for a moment, sleep for a moment, and so on;
//! - `fork MILLISECONDS` forks one process after the other that works for a moment, through the shell, and prints how
//!   many;
//! - `held MILLISECONDS THREADS CPU NAP_US` computes on one CPU with calls into the kernel, where a quota is enforced,
//!   in threads that also sleep if there are naps;
//! - `moment MICROSECONDS` computes until it has used this much CPU time, `nap MILLISECONDS` none;
//! - `processes COUNT MICROSECONDS AT_ONCE` runs so many moments: see [`processes`];
//! - `pages COUNT ROUNDS`, `hog BYTES`, `cache FILE BYTES ROUNDS`: see [`memory`];
//! - `receive tcp|udp ADDRESS`, `send tcp|udp ADDRESS BYTES`, `flood ADDRESS`: see [`network`].

mod memory;
mod network;
mod processes;

use std::hint::black_box;
use std::process::{Command, ExitCode};
use std::thread;
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

const SLEEPERS: u32 = 50;
const NAP: Duration = Duration::from_millis(10);
const WORK: Duration = Duration::from_micros(150);
/// How long `held` computes between two calls into the kernel, and how many of them before a nap.
const HELD_WORK: Duration = Duration::from_micros(50);
const HELD_WORKS: u32 = 10;

/// What the command line says after the kind.
struct Words(Vec<String>);

impl Words {
    fn text(&self, at: usize) -> Result<&str, String> {
        let word = self.0.get(at).map(String::as_str);
        word.ok_or_else(|| format!("word {} is missing", at + 1))
    }

    fn number(&self, at: usize) -> Result<u64, String> {
        let word = self.text(at)?;
        word.parse()
            .map_err(|error| format!("`{word}` is no number: {error}"))
    }

    fn until(&self, at: usize) -> Result<Instant, String> {
        Ok(Instant::now() + Duration::from_millis(self.number(at)?))
    }
}

fn main() -> ExitCode {
    let mut words = std::env::args().skip(1);
    let kind = words.next().unwrap_or_default();
    match run(&kind, &Words(words.collect())) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("ebb-parity-load {kind}: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(kind: &str, words: &Words) -> Result<(), String> {
    match kind {
        "spin" => {
            if words.0.len() > 1 {
                pin(words.number(1)?)?;
            }
            work(words.until(0)?);
        }
        "wake" => {
            if words.0.len() > 1 {
                pin(words.number(1)?)?;
            }
            wake(words.until(0)?);
        }
        "fork" => fork(words.number(0)?)?,
        "held" => {
            pin(words.number(2)?)?;
            let nap = Duration::from_micros(words.number(3)?);
            held(words.until(0)?, words.number(1)?, nap)?;
        }
        "moment" => moment(Duration::from_micros(words.number(0)?)),
        "nap" => thread::sleep(Duration::from_millis(words.number(0)?)),
        "processes" => processes::run(words.number(0)?, words.number(1)?, words.number(2)?)?,
        "pages" => memory::pages(words.number(0)?, words.number(1)?),
        "hog" => memory::hog(words.number(0)?),
        "cache" => memory::cache(words.text(0)?, words.number(1)?, words.number(2)?)?,
        "receive" => network::receive(words.text(0)?, words.text(1)?)?,
        "send" => network::send(words.text(0)?, words.text(1)?, words.number(2)?)?,
        "flood" => network::flood(words.text(0)?)?,
        _ => return Err("there is no such load".to_owned()),
    }
    Ok(())
}

fn pin(cpu: u64) -> Result<(), String> {
    let mut cpus = rustix::thread::CpuSet::new();
    cpus.set(usize::try_from(cpu).unwrap_or(usize::MAX));
    rustix::thread::sched_setaffinity(None, &cpus)
        .map_err(|error| format!("it cannot be pinned to CPU {cpu}: {error}"))
}

fn work(until: Instant) {
    let mut sum = 0u64;
    while Instant::now() < until {
        for i in 0..1000u64 {
            sum = black_box(sum.wrapping_mul(31).wrapping_add(i));
        }
    }
}

fn moment(long: Duration) {
    let mut sum = 0u64;
    while used() < long {
        for i in 0..1000u64 {
            sum = black_box(sum.wrapping_mul(31).wrapping_add(i));
        }
    }
}

/// CPU time of this process.
fn used() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(
        u64::try_from(time.tv_sec).unwrap_or(0),
        u32::try_from(time.tv_nsec).unwrap_or(0),
    )
}

fn wake(until: Instant) {
    let sleeper = move || {
        while Instant::now() < until {
            work(Instant::now() + WORK);
            thread::sleep(NAP);
        }
    };
    let sleepers: Vec<_> = (0..SLEEPERS).map(|_| thread::spawn(sleeper)).collect();
    for sleeper in sleepers {
        drop(sleeper.join());
    }
}

/// The threads are named, so that tools can tell them from other loads.
fn held(until: Instant, threads: u64, nap: Duration) -> Result<(), String> {
    let hold = move || {
        while Instant::now() < until {
            for _ in 0..HELD_WORKS {
                work(Instant::now() + HELD_WORK);
                rustix::thread::sched_yield();
            }
            if !nap.is_zero() {
                thread::sleep(nap);
            }
        }
    };
    let spawn = |_| {
        let named = thread::Builder::new().name("ebb-held".to_owned());
        named.spawn(hold).map_err(|error| error.to_string())
    };
    let threads: Vec<_> = (0..threads).map(spawn).collect::<Result<_, _>>()?;
    for thread in threads {
        drop(thread.join());
    }
    Ok(())
}

/// The shell forks a process for each pair of parentheses, and runs what stands in them without an exec.
fn fork(ms: u64) -> Result<(), String> {
    let script = "count=0; trap 'echo $count; exit 0' TERM; \
                  while :; do (x=0; while [ $x -lt 20 ]; do x=$((x+1)); done); count=$((count+1)); done";
    let shell = Command::new("sh").args(["-c", script]).spawn();
    let mut shell = shell.map_err(|error| format!("sh cannot be started: {error}"))?;
    thread::sleep(Duration::from_millis(ms));
    let ended = i32::try_from(shell.id())
        .ok()
        .and_then(rustix::process::Pid::from_raw)
        .map(|pid| rustix::process::kill_process(pid, rustix::process::Signal::TERM));
    if !matches!(ended, Some(Ok(()))) {
        return Err("sh cannot be ended".to_owned());
    }
    match shell.wait() {
        Ok(status) if status.success() => Ok(()),
        other => Err(format!("sh failed: {other:?}")),
    }
}
