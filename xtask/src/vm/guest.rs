//! One machine: QEMU with a kernel, its first files and two disks; what it says is read until it is off.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::console::Console;

/// A guest that is not off after this is stopped, and has failed.
const DEADLINE: Duration = Duration::from_secs(300);
const CPUS: &str = "2";
const MEMORY: &str = "2G";
/// The kernel's command line, but for what a boot adds. Its own words go to the first serial line, the tests' to the
/// second, so that neither breaks into the other's; a fault of the kernel ends the machine. The time stamp counter is the
/// host's clock: a guest that is late by the host's doing must not give it up, and with it the steady clock of its scheduler.
const APPEND: &str =
    "console=ttyS0 panic=-1 oops=panic loglevel=4 rdinit=/init random.trust_cpu=on tsc=reliable";
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

/// The end of a kernel.
#[derive(Debug, PartialEq, Eq)]
pub enum Panic {
    /// The emulation ran a breakpoint that the kernel had taken away again while it patched its code: with more than
    /// one processor QEMU may keep such an instruction. No real processor does; another boot tells.
    Emulation,
    /// Anything else, in the kernel's words.
    Kernel(String),
}

/// The panic in a kernel's log.
fn panic_in(log: &str) -> Option<Panic> {
    let panic = log.lines().find(|line| line.contains("Kernel panic"))?;
    let first = log.lines().find(|line| line.contains("[#1]"));
    if first.is_some_and(|line| line.contains("int3: 0000")) {
        return Some(Panic::Emulation);
    }
    Some(Panic::Kernel(first.unwrap_or(panic).trim().to_owned()))
}

impl Machine<'_> {
    /// Starts it and reads until it is off or its time is over.
    pub fn boot(&self) -> Result<Console> {
        let mut qemu = self
            .command()
            .spawn()
            .context("qemu-system-x86_64 cannot be started")?;
        let Some(stdout) = qemu.stdout.take() else {
            stop(&mut qemu);
            anyhow::bail!("the guest has no serial line");
        };
        let mut console = Console::default();
        let done = follow(&read_lines(stdout), &mut console);
        if !done {
            println!("vm: not off after {} s; stopped", DEADLINE.as_secs());
            stop(&mut qemu);
        }
        qemu.wait().context("cannot wait for qemu-system-x86_64")?;
        let evidence = console.evidence();
        if !evidence.is_empty() {
            println!("{evidence}");
        }
        Ok(console)
    }

    /// Why the kernel gave up, if it did.
    pub fn panic(&self) -> Option<Panic> {
        panic_in(&String::from_utf8_lossy(
            &fs::read(self.log).unwrap_or_default(),
        ))
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
            .args(["-display", "none", "-monitor", "none"])
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

/// False if the deadline passed before the machine was off.
fn follow(lines: &Receiver<String>, console: &mut Console) -> bool {
    let start = Instant::now();
    loop {
        match lines.recv_timeout(DEADLINE.saturating_sub(start.elapsed())) {
            Ok(line) => {
                if console.take(&line) {
                    println!("  {:3} s  {}", start.elapsed().as_secs(), line.trim_end());
                }
            }
            Err(RecvTimeoutError::Disconnected) => return true,
            Err(RecvTimeoutError::Timeout) => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stale_breakpoint_is_the_emulations_fault_and_nothing_else_is() {
        let log = "[ 9.1] Oops: int3: 0000 [#1] PREEMPT SMP\r\n[ 9.2] Kernel panic - not syncing: Fatal\r\n";
        assert_eq!(panic_in(log), Some(Panic::Emulation));
        let fault = log.replace("int3", "general protection fault");
        let told = "[ 9.1] Oops: general protection fault: 0000 [#1] PREEMPT SMP";
        assert_eq!(panic_in(&fault), Some(Panic::Kernel(told.to_owned())));
        let bare = "[ 1.0] Kernel panic - not syncing: No working init found.";
        assert_eq!(panic_in(bare), Some(Panic::Kernel(bare.to_owned())));
        assert_eq!(panic_in("[ 9.0] reboot: Power down"), None);
    }
}
