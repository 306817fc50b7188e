//! The loads that the parity tests measure: `ebb-parity-load KIND MILLISECONDS [CPU]`.
//!
//! - `spin` computes without ever leaving the CPU, on one CPU if one is named;
//! - `wake` runs 50 threads that work for a moment, sleep for a moment, and so on;
//! - `fork` forks one process after the other that works for a moment, through the shell, and prints how many.

use std::hint::black_box;
use std::process::{Command, ExitCode};
use std::thread;
use std::time::{Duration, Instant};

const SLEEPERS: u32 = 50;
const NAP: Duration = Duration::from_millis(10);
const WORK: Duration = Duration::from_micros(150);

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let number = |at: usize| arguments.get(at).and_then(|word| word.parse::<u64>().ok());
    let (Some(kind), Some(ms)) = (arguments.first(), number(1)) else {
        eprintln!("usage: ebb-parity-load spin|wake|fork MILLISECONDS [CPU]");
        return ExitCode::from(2);
    };
    if let Some(cpu) = number(2).and_then(|cpu| usize::try_from(cpu).ok()) {
        let mut cpus = rustix::thread::CpuSet::new();
        cpus.set(cpu);
        if let Err(error) = rustix::thread::sched_setaffinity(None, &cpus) {
            eprintln!("cannot pin to CPU {cpu}: {error}");
            return ExitCode::FAILURE;
        }
    }
    let until = Instant::now() + Duration::from_millis(ms);
    match kind.as_str() {
        "spin" => work(until),
        "wake" => wake(until),
        "fork" => return fork(ms),
        _ => return ExitCode::from(2),
    }
    ExitCode::SUCCESS
}

fn work(until: Instant) {
    let mut sum = 0u64;
    while Instant::now() < until {
        for i in 0..1000u64 {
            sum = black_box(sum.wrapping_mul(31).wrapping_add(i));
        }
    }
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

/// The shell forks a process for each pair of parentheses, and runs what stands in them without an exec.
fn fork(ms: u64) -> ExitCode {
    let script = "count=0; trap 'echo $count; exit 0' TERM; \
                  while :; do (x=0; while [ $x -lt 20 ]; do x=$((x+1)); done); count=$((count+1)); done";
    let shell = Command::new("sh").args(["-c", script]).spawn();
    let Ok(mut shell) = shell else {
        return ExitCode::FAILURE;
    };
    thread::sleep(Duration::from_millis(ms));
    let ended = i32::try_from(shell.id())
        .ok()
        .and_then(rustix::process::Pid::from_raw)
        .map(|pid| rustix::process::kill_process(pid, rustix::process::Signal::TERM));
    if !matches!(ended, Some(Ok(()))) {
        return ExitCode::FAILURE;
    }
    match shell.wait() {
        Ok(status) if status.success() => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    }
}
