//! What continuous integration runs, in order of how soon it can fail. The last line gives the counts.

use std::process::Command;
use std::time::Instant;

use anyhow::{Result, ensure};

use crate::programs::{self, Program};
use crate::shell::{cargo, run, run_read};
use crate::{ebpf, parity, setup, tidy, vm};

/// Tests that need the machine to themselves: real probes, real processes, real time.
const ALONE: [&str; 2] = ["ebb-tests-parity", "ebb-tests-e2e"];

/// What the test runs said of themselves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Tests that passed.
    pub passed: u64,
    /// Tests that failed.
    pub failed: u64,
    /// Tests that were skipped.
    pub ignored: u64,
}

impl Counts {
    /// Adds what the result lines of a test run say. A test that another one starts in a process of
    /// its own stands as ignored, and says so; it is not skipped.
    pub fn add(&mut self, output: &str) {
        let mark = format!("... ignored, {}", tidy::PLAYED);
        let played = output.lines().filter(|line| line.contains(&mark)).count() as u64;
        for line in output
            .lines()
            .filter(|line| line.starts_with("test result:"))
        {
            let mut words = line
                .split([' ', ';'])
                .filter(|word| !word.is_empty())
                .peekable();
            while let Some(word) = words.next() {
                let Ok(number) = word.parse::<u64>() else {
                    continue;
                };
                match words.peek().copied() {
                    Some("passed") => self.passed += number,
                    Some("failed") => self.failed += number,
                    Some("ignored") => self.ignored += number,
                    _ => {}
                }
            }
        }
        self.ignored = self.ignored.saturating_sub(played);
    }

    fn merge(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.ignored += other.ignored;
    }
}

struct Run {
    counts: Counts,
    failures: Vec<String>,
}

impl Run {
    fn step(&mut self, name: &str, step: impl FnOnce() -> Result<()>) {
        println!("== {name}");
        let start = Instant::now();
        if let Err(error) = step() {
            eprintln!("{name}: {error:#}");
            self.failures.push(name.to_owned());
        }
        println!("== {name}: {} s", start.elapsed().as_secs());
    }

    /// Runs tests and counts them; what runs none has failed.
    fn tests(&mut self, name: &str, mut command: Command) {
        let mut output = String::new();
        self.step(name, || {
            let (text, result) = run_read(&mut command);
            output = text;
            ensure!(
                output.contains("test result:"),
                "no test ran; a run that tests nothing is a failure"
            );
            result
        });
        self.counts.add(&output);
    }

    /// Runs every test of the workspace, first those that can run beside each other.
    fn workspace(&mut self) {
        let mut programs = Vec::new();
        self.step("build", || {
            programs = programs::build()?;
            Ok(())
        });
        let is_alone = |program: &Program| ALONE.contains(&program.package.as_str());
        for program in programs.iter().filter(|program| !is_alone(program)) {
            self.tests(&title(program), program.command(&[]));
        }
        self.tests("doc", cargo(&["test", "--workspace", "--doc"]));
        for program in programs.iter().filter(|program| is_alone(program)) {
            self.tests(&title(program), program.command(&["--test-threads=1"]));
        }
    }
}

fn title(program: &Program) -> String {
    format!("{}/{}", program.package, program.name)
}

/// Runs every check and test.
///
/// # Errors
/// When the tool chain cannot be had, or any check or test fails; all of them are run first.
pub fn run_all() -> Result<()> {
    let mut all = Run {
        counts: Counts::default(),
        failures: Vec::new(),
    };
    all.step("fmt", || run(&mut cargo(&["fmt", "--all", "--check"])));
    all.step("tidy", tidy::run);
    setup::setup()?;
    parity::tools()?;
    ebpf::build_ebpf()?;
    all.step("clippy", || {
        run(&mut cargo(&[
            "clippy",
            "--workspace",
            "--all-targets",
            "--",
            "--deny",
            "warnings",
        ]))
    });
    all.workspace();
    let loom = [
        "--features",
        "loom",
        "--test",
        "loom",
        "--test",
        "loom_wakes",
        "--test",
        "loom_chain",
    ];
    let mut command = cargo(&["test", "--package", "ebb-master"]);
    command.args(loom);
    all.tests("loom", command);
    let mut in_guests = Counts::default();
    all.step("vm", || {
        let (counts, result) = vm::run(&vm::Options::default());
        in_guests = counts;
        result
    });
    all.counts.merge(in_guests);
    let Counts {
        passed,
        failed,
        ignored,
    } = all.counts;
    if !all.failures.is_empty() {
        println!("failed: {}", all.failures.join(", "));
    }
    println!("{passed} passed, {failed} failed, {ignored} skipped");
    ensure!(
        all.failures.is_empty(),
        "{} steps failed: {}",
        all.failures.len(),
        all.failures.join(", ")
    );
    ensure!(
        ignored == 0,
        "{ignored} tests were skipped; a skipped test is a failure"
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_add_up_over_several_result_lines() {
        let mut counts = Counts::default();
        counts.add(
            "test result: ok. 8 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s\n\
             running 3 tests\n\
             test result: FAILED. 2 passed; 3 failed; 0 ignored; 0 measured; 5 filtered out; finished in 1.00s\n",
        );
        assert_eq!(
            counts,
            Counts {
                passed: 10,
                failed: 3,
                ignored: 1
            }
        );
    }

    #[test]
    fn a_test_that_another_one_starts_is_not_skipped() {
        let mut counts = Counts::default();
        counts.add(
            "test child ... ignored, played by another test, which starts it\n\
             test result: ok. 1 passed; 0 failed; 2 ignored; 0 measured; 0 filtered out; finished in 0.00s\n",
        );
        assert_eq!((counts.passed, counts.ignored), (1, 1));
    }
}
