//! Many processes, one after the other in several rows: prints how many there were and how many surely lived for less
//! than 5 ms, which is so if all of it, from before the fork to after the wait, took less.

use std::env;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

const SHORT: Duration = Duration::from_millis(5);

/// Runs them.
pub fn run(count: u64, micros: u64, at_once: u64) -> Result<(), String> {
    let rows = (0..at_once).map(|row| {
        let share = count / at_once + u64::from(row < count % at_once);
        thread::spawn(move || one_after_the_other(share, micros))
    });
    let rows: Vec<_> = rows.collect();
    let mut surely_short = 0;
    for row in rows {
        surely_short += row.join().map_err(|_| "a thread failed".to_owned())??;
    }
    println!("made={count} surely_short={surely_short}");
    Ok(())
}

fn one_after_the_other(count: u64, micros: u64) -> Result<u64, String> {
    let own = env::current_exe().map_err(|error| error.to_string())?;
    let mut surely_short = 0;
    for _ in 0..count {
        let began = Instant::now();
        let status = Command::new(&own)
            .args(["moment", &micros.to_string()])
            .stdin(Stdio::null())
            .status()
            .map_err(|error| format!("a process cannot be started: {error}"))?;
        if !status.success() {
            return Err(format!("a process failed: {status}"));
        }
        surely_short += u64::from(began.elapsed() < SHORT);
    }
    Ok(surely_short)
}
