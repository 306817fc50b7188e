//! One machine: QEMU with a kernel, its first files and two disks; what it says is read until it is off.
//!
//! Every ten seconds the guest writes into its kernel's log what each of its processes waits for. A log that ceases to grow
//! is a machine that stands still, and the last pulse of one that is merely late says what it was late with.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::console::Console;
use super::folder;

/// A guest that is not off after this is stopped, and has failed.
const DEADLINE: Duration = Duration::from_secs(300);
/// A guest without a pulse for this stands still.
const STILL: Duration = Duration::from_secs(60);
/// How often its log is looked at, while it says nothing.
const LOOK: Duration = Duration::from_secs(1);
/// As much of the end of the log as is shown with a failure.
const LOG_LINES: usize = 40;
/// The monitor's socket, beside the disks.
const MONITOR: &str = "monitor";
const CPUS: &str = "2";
const MEMORY: &str = "2G";
/// The kernel's command line, but for what a boot adds. Its own words go to the first serial line, the tests' to the
/// second, so that neither breaks into the other's; a fault of the kernel ends the machine. The time stamp counter is the
/// host's clock: a guest that is late by the host's doing must not give it up, and with it the steady clock of its scheduler.
/// The pulse must not be held back; and where a machine stood still is told by addresses that are those of every boot.
const APPEND: &str = "console=ttyS0 panic=-1 oops=panic loglevel=4 rdinit=/init random.trust_cpu=on tsc=reliable \
    printk.devkmsg=on nokaslr";
/// Lines that wait to be read; the guest stands still when there are more.
const LINES_MAX: usize = 1024;

/// A machine to be started.
pub struct Machine<'a> {
    /// The kernel.
    pub kernel: &'a Path,
    /// The first files.
    pub initramfs: &'a Path,
    /// The disk with the programs, which is not changed.
    pub root: &'a Path,
    /// The disk to work on.
    pub scratch: &'a Path,
    /// What is added to the command line.
    pub append: &'a str,
    /// Where the kernel's own words go.
    pub log: &'a Path,
}

/// How a boot came to its end.
#[derive(Debug, PartialEq, Eq)]
pub enum End {
    /// It switched itself off.
    Off,
    /// It was stopped at the deadline, alive.
    Late,
    /// It was stopped because it showed no life.
    Still,
    /// The emulation ran a breakpoint that the kernel had taken away again while it patched its code: with more than
    /// one processor QEMU may keep such an instruction. No real processor does; another boot tells.
    Emulation,
    /// The kernel gave up, in its words.
    Panic(String),
}

/// The end that a kernel's log tells of.
fn panic_in(log: &str) -> Option<End> {
    let panic = log.lines().find(|line| line.contains("Kernel panic"))?;
    let first = log.lines().find(|line| line.contains("[#1]"));
    if first.is_some_and(|line| line.contains("int3: 0000")) {
        return Some(End::Emulation);
    }
    Some(End::Panic(first.unwrap_or(panic).trim().to_owned()))
}

impl Machine<'_> {
    /// Starts it and reads until it is off, stands still, or its time is over. Prints what is known of a boot that failed.
    pub fn boot(&self) -> Result<(Console, End)> {
        let mut qemu = self
            .command()
            .spawn()
            .context("qemu-system-x86_64 cannot be started")?;
        let Some(stdout) = qemu.stdout.take() else {
            stop(&mut qemu);
            anyhow::bail!("the guest has no serial line");
        };
        let mut console = Console::default();
        let log_bytes = || fs::metadata(self.log).map_or(0, |log| log.len());
        let followed = follow(&read_lines(stdout), log_bytes, &mut console);
        if followed != End::Off {
            println!("vm: stopped; where its processors are:");
            println!("{}", self.registers());
            stop(&mut qemu);
        }
        qemu.wait().context("cannot wait for qemu-system-x86_64")?;
        let log = String::from_utf8_lossy(&fs::read(self.log).unwrap_or_default()).into_owned();
        let end = panic_in(&log).unwrap_or(followed);
        let evidence = console.evidence();
        if !evidence.is_empty() {
            println!("{evidence}");
        }
        if end != End::Off {
            println!("vm: the end of the kernel's log, {}:", self.log.display());
            println!("{}", last_lines(&log, LOG_LINES));
        }
        Ok((console, end))
    }

    /// What QEMU says of the processors, of each the lines that tell where it is.
    fn registers(&self) -> String {
        let ask = || -> std::io::Result<String> {
            let mut monitor = UnixStream::connect(folder().join(MONITOR))?;
            monitor.set_read_timeout(Some(LOOK))?;
            monitor.write_all(b"info registers -a\n")?;
            let mut answer = Vec::new();
            // The monitor stays open: its silence ends the answer.
            let mut part = [0; 4096];
            while let Ok(bytes @ 1..) = monitor.read(&mut part) {
                answer.extend_from_slice(&part[..bytes]);
            }
            Ok(String::from_utf8_lossy(&answer).into_owned())
        };
        match ask() {
            Ok(answer) => answer
                .lines()
                .filter(|line| {
                    ["CPU#", "RIP=", "RSP="]
                        .iter()
                        .any(|name| line.contains(name))
                })
                .collect::<Vec<_>>()
                .join("\n"),
            Err(error) => format!("the monitor cannot be asked: {error}"),
        }
    }

    fn command(&self) -> Command {
        let disk = |path: &Path, more: &str| {
            format!("file={},format=raw,if=virtio,{more}", path.display())
        };
        let mut command = Command::new("qemu-system-x86_64");
        command
            .args(["-accel", "tcg,thread=multi", "-cpu", "max"])
            .args(["-smp", CPUS, "-m", MEMORY])
            .args(["-nodefaults", "-no-user-config", "-no-reboot"])
            .args(["-display", "none"])
            // Relative, because a socket's path is short.
            .current_dir(folder())
            .arg("-monitor")
            .arg(format!("unix:{MONITOR},server=on,wait=off"))
            .arg("-serial")
            .arg(format!("file:{}", self.log.display()))
            .args(["-serial", "stdio"])
            .arg("-kernel")
            .arg(self.kernel)
            .arg("-initrd")
            .arg(self.initramfs)
            .arg("-drive")
            .arg(disk(self.root, "snapshot=on"))
            .arg("-drive")
            .arg(disk(self.scratch, "cache=unsafe"))
            .arg("-append")
            .arg(format!("{APPEND} {}", self.append))
            .stdin(Stdio::null())
            .stdout(Stdio::piped());
        command
    }
}

fn stop(qemu: &mut Child) {
    if let Err(error) = qemu.kill() {
        eprintln!("vm: the machine cannot be stopped: {error}");
    }
}

/// Reads lines in a thread of its own, so that a deadline can pass while none come.
fn read_lines(from: impl Read + Send + 'static) -> Receiver<String> {
    let (sender, receiver) = sync_channel(LINES_MAX);
    thread::spawn(move || {
        for line in BufReader::new(from).split(b'\n') {
            let Ok(line) = line else {
                return;
            };
            if sender
                .send(String::from_utf8_lossy(&line).into_owned())
                .is_err()
            {
                return;
            }
        }
    });
    receiver
}

/// Follows the guest's words until it is off, stands still or is late; its log's size tells that it lives.
fn follow(lines: &Receiver<String>, log_bytes: impl Fn() -> u64, console: &mut Console) -> End {
    let start = Instant::now();
    let mut grown = (0, start);
    loop {
        let bytes = log_bytes();
        if bytes != grown.0 {
            grown = (bytes, Instant::now());
        }
        match lines.recv_timeout(LOOK) {
            Ok(line) => {
                if console.take(&line) {
                    println!("  {:3} s  {}", start.elapsed().as_secs(), line.trim_end());
                }
            }
            Err(RecvTimeoutError::Disconnected) => return End::Off,
            Err(RecvTimeoutError::Timeout) if grown.1.elapsed() >= STILL => {
                println!("vm: no sign of life for {} s", STILL.as_secs());
                return End::Still;
            }
            Err(RecvTimeoutError::Timeout) => {}
        }
        if start.elapsed() >= DEADLINE {
            println!("vm: not off after {} s", DEADLINE.as_secs());
            return End::Late;
        }
    }
}

fn last_lines(text: &str, most: usize) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(most)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stale_breakpoint_is_the_emulations_fault_and_nothing_else_is() {
        let log = "[ 9.1] Oops: int3: 0000 [#1] PREEMPT SMP\r\n[ 9.2] Kernel panic - not syncing: Fatal\r\n";
        assert_eq!(panic_in(log), Some(End::Emulation));
        let fault = log.replace("int3", "general protection fault");
        let told = "[ 9.1] Oops: general protection fault: 0000 [#1] PREEMPT SMP";
        assert_eq!(panic_in(&fault), Some(End::Panic(told.to_owned())));
        let bare = "[ 1.0] Kernel panic - not syncing: No working init found.";
        assert_eq!(panic_in(bare), Some(End::Panic(bare.to_owned())));
        assert_eq!(panic_in("[ 9.0] reboot: Power down"), None);
    }
}
