//! What the probes cost: as a time for each wake-up and switch, beside another monitor ([`programs`]), and as what the
//! work on the machine loses ([`work`]).
//!
//! `probe-cost OBJECT`; `cargo xtask bench probe-cost` builds the object, which holds the other monitor and programs
//! that do nothing. Needs root.

mod programs;
mod work;

use std::path::PathBuf;
use std::process::ExitCode;
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail, ensure};
use ebb_agent::probe::{CgroupPaths, Facts, Sampler, built_in_object};
use ebb_tests_bench::process::load_average;
use ebb_tests_bench::{Beside, Program, figure, play};

/// How long a program that does nothing waits for a switch; idle machines switch, too.
const LOOK: Duration = Duration::from_millis(100);
/// How often it waits at most.
const LOOKS: usize = 20;

fn main() -> Result<ExitCode> {
    if let Some(code) = play::dispatch() {
        return Ok(code);
    }
    let object = std::env::args_os().nth(1).map(PathBuf::from);
    let object = object.context("usage: probe-cost OBJECT; `cargo xtask bench` builds it")?;
    figure("machine", "load_average_before", load_average()?, "tasks");
    let facts = Facts::gather();
    let fields = facts.fields.as_ref().map_err(|why| anyhow!("{why}"))?;
    let mut beside = Beside::load(&object, fields)?;
    programs::measure(&facts, &mut beside)?;
    no_statistics(&mut beside)?;
    work::measure(&facts)?;
    no_statistics(&mut beside)?;
    figure("machine", "load_average_after", load_average()?, "tasks");
    Ok(ExitCode::SUCCESS)
}

/// Ebb's probes, attached, with these containers registered.
fn attach(facts: &Facts, containers: &[CgroupPaths]) -> Result<Sampler<usize>> {
    let mut sampler = Sampler::new(facts, built_in_object());
    ensure!(sampler.has_probes(), "{}", sampler.message());
    for (number, paths) in containers.iter().enumerate() {
        sampler.register(number, paths, false)?;
    }
    Ok(sampler)
}

/// Makes sure that the kernel does not keep statistics of programs all the time: they cost time, and without the probes
/// there should be none. Another agent that asks for them now and then is let pass.
fn no_statistics(beside: &mut Beside) -> Result<()> {
    for _ in 0..LOOKS {
        let before = beside.cost(Program::NothingSwitch)?;
        beside.attach(&[Program::NothingSwitch])?;
        sleep(LOOK);
        beside.detach(&[Program::NothingSwitch])?;
        if beside.cost(Program::NothingSwitch)?.since(before).run_count == 0 {
            return Ok(());
        }
    }
    bail!(
        "the kernel keeps statistics of eBPF programs for somebody else, which slows down what is measured; end the \
         other agent, or write 0 to /proc/sys/kernel/bpf_stats_enabled"
    )
}
