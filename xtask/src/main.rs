//! Everything that is done to this repository: `cargo xtask NAME`.

mod artifacts;
mod bench;
mod ci;
mod demo;
mod ebpf;
mod parity;
mod programs;
mod setup;
mod shell;
mod tidy;
mod vm;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(
    name = "cargo xtask",
    about = "Everything that is done to this repository"
)]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Finds or installs what building the probes needs
    Setup,
    /// Builds the eBPF probes
    BuildEbpf,
    /// Runs a cluster on this machine: a service, revocable batch work, and the return of what was lent
    Demo(demo::Options),
    /// Runs every test (the same as `ci`)
    Test,
    /// Checks and tests everything, as continuous integration does
    Ci,
    /// Checks the architecture's invariants and the house rules
    Tidy,
    /// Measures; writes target/bench/NAME.json and fails where a bar does not hold
    Bench(bench::Options),
    /// Holds the probes' figures against independent tools; writes target/bench/parity-SUBJECT.json
    Parity(parity::Options),
    /// Runs tests on other kernels with cgroup v2, under QEMU
    Vm(vm::Options),
}

fn main() -> ExitCode {
    match perform(Arguments::parse().task) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn perform(task: Task) -> Result<()> {
    match task {
        Task::Setup => setup::setup().map(|_| ()),
        Task::BuildEbpf => ebpf::build_ebpf().map(|_| ()),
        Task::Demo(options) => demo::run(&options),
        Task::Test | Task::Ci => ci::run_all(),
        Task::Tidy => tidy::run(),
        Task::Bench(options) => bench::run(&options),
        Task::Parity(options) => parity::run(&options),
        Task::Vm(options) => vm::run(&options).1,
    }
}
