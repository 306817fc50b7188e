//! `cargo xtask vm`: runs the real test programs on other kernels, in machines of their own.
//!
//! **Problem.** The probes must pass the verifier of more than one kernel, and the agent must work where all controllers
//! are in a pure cgroup v2 tree. The host is one kernel with one layout.
//!
//! **Way.** Debian's cloud kernels are downloaded as packages and unpacked, never installed. The test programs are linked
//! statically, so that the guest needs nothing but busybox, and stand on a disk image at the paths at which they were
//! built. QEMU without KVM boots the kernel; the guest's first process runs the programs one after the other, frames
//! their output with markers on a serial line, and switches the machine off. Everything is kept in `target/vm`.
//!
//! **Invariants.** What was asked and did not run is a failure: a missing marker, a program in which no test ran, a
//! kernel that panicked, a deadline that passed. The guest is root, has no network, and cannot reach the host's files.
//!
//! **Price.** The first run downloads about 65 MB. A boot takes some 10 s, and code runs ten to twenty times slower than
//! on the host, so that tests in guests are chosen: [`suites`] says which are not, and why.

mod binaries;
mod console;
mod guest;
mod image;
mod kernels;
mod modules;
mod suites;

use std::fs;
use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context, Result, ensure};

use self::console::Console;
use self::guest::{End, Machine};
use self::image::Images;
use self::kernels::Kernel;
use self::suites::Boot;
use crate::ci::Counts;
use crate::shell::root;
use crate::{ebpf, setup};

/// Boots where the emulation fails.
const BOOTS_MAX: u32 = 3;
/// Boots where a machine stands still: once may be the emulation's doing, twice is the kernel's or the program's.
const STILL_MAX: u32 = 2;

/// Which kernels, and which tests.
#[derive(clap::Args, Default)]
pub struct Options {
    /// Only this kernel, as 6.1
    #[arg(long, value_parser = clap::builder::PossibleValuesParser::new(kernels::SERIES))]
    kernel: Option<String>,
    /// Only this test program, as figures, or else only the tests whose names contain this
    #[arg(long)]
    test: Option<String>,
}

/// Where everything of it is kept.
fn folder() -> PathBuf {
    root().join("target/vm")
}

/// Boots each kernel and runs the tests in it. What they said is counted even where they failed.
pub fn run(options: &Options) -> (Counts, Result<()>) {
    let mut counts = Counts::default();
    let result = boots(options, &mut counts);
    let Counts {
        passed,
        failed,
        ignored,
    } = counts;
    println!("vm: {passed} passed, {failed} failed, {ignored} skipped");
    (counts, result)
}

fn boots(options: &Options, counts: &mut Counts) -> Result<()> {
    fs::create_dir_all(folder()).context("cannot create target/vm")?;
    setup::need(&[
        ("qemu-system-x86_64", "qemu-system-x86"),
        ("mkfs.ext4", "e2fsprogs"),
    ])?;
    for suite in suites::SUITES {
        for skipped in suite.skipped {
            println!("vm: not in guests: {} ({})", skipped.test, skipped.why);
        }
    }
    let busybox = kernels::busybox()?;
    ebpf::build_ebpf()?;
    let programs = binaries::build(suites::SUITES)?;
    let images = Images::make(&busybox, &programs)?;
    let filter = options.test.as_deref();
    let mut failures = Vec::new();
    for series in kernels::SERIES {
        if options.kernel.as_deref().is_some_and(|only| only != series) {
            continue;
        }
        let kernel = kernels::get(series)?;
        for boot in suites::boots(series, filter) {
            let start = Instant::now();
            println!("vm: {} {}", kernel.version, boot.name);
            let problems = one(&kernel, &images, &boot, filter, counts)?;
            println!(
                "vm: {} {}: {} s",
                kernel.version,
                boot.name,
                start.elapsed().as_secs()
            );
            failures.extend(
                problems
                    .into_iter()
                    .map(|problem| format!("{series} {}: {problem}", boot.name)),
            );
        }
    }
    ensure!(
        counts.passed + counts.failed > 0,
        "no test ran in a guest; a run that tests nothing is a failure"
    );
    ensure!(
        failures.is_empty(),
        "in the guests: {}",
        failures.join("; ")
    );
    Ok(())
}

/// One boot; its problems, in sentences.
fn one(
    kernel: &Kernel,
    images: &Images,
    boot: &Boot,
    filter: Option<&str>,
    counts: &mut Counts,
) -> Result<Vec<String>> {
    let runs = images.runs(kernel.series, boot, filter)?;
    let mut said = Console::default();
    let mut attempt = 1;
    let mut stills = 0;
    let end = loop {
        // One for each boot, so that what an earlier one said is not lost.
        let log = format!("{}-{}-{attempt}.log", kernel.series, boot.name);
        let log = folder().join(log);
        let machine = Machine {
            kernel: &kernel.image,
            initramfs: &images.initramfs(kernel, boot, &runs.left(&said))?,
            root: &images.root,
            scratch: &images.scratch()?,
            append: boot.append,
            log: &log,
        };
        let (mut console, end) = machine.boot()?;
        console.go_on_from(said);
        said = console;
        stills += u32::from(end == End::Still);
        let why = match end {
            End::Emulation => "the emulation ran a stale instruction",
            End::Still if stills < STILL_MAX => "the machine stood still",
            _ => break end,
        };
        if attempt == BOOTS_MAX {
            break end;
        }
        println!("vm: {why} (boot {attempt} of {BOOTS_MAX}); on with what is left");
        attempt += 1;
    };
    for run in said.runs() {
        counts.add(&run.output);
    }
    let needs_tests = filter.is_none();
    let mut problems = said.problems(&runs.names(), needs_tests);
    problems.extend(match end {
        End::Off | End::Late => None,
        End::Still => Some(format!("the machine stood still {stills} times")),
        End::Emulation => Some(format!("the emulation failed in each of {BOOTS_MAX} boots")),
        End::Panic(words) => Some(words),
    });
    Ok(problems)
}
