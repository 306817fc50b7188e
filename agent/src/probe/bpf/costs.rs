//! What the probes cost. The kernel keeps account of the time that programs take only while somebody asks for it, for
//! every program of the machine, and that costs about as much as a small program: so it is asked for one reading in
//! ten, and what was counted then is scaled up.

use std::collections::BTreeMap;
use std::fs;
use std::os::fd::{AsRawFd, OwnedFd};

use super::object::account_run_time;

/// One in so many readings is kept account of.
const ONE_IN: u64 = 10;

/// What a program of the probes has cost since it was loaded. Where account was kept only for a part of the time, both
/// figures are scaled up to the whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProbeCost {
    /// Name of the program.
    pub program: &'static str,
    /// Time in it, on all CPUs.
    pub run_time_ns: u64,
    /// Times it ran.
    pub run_count: u64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    /// The kernel's account when it was last read: time and runs.
    account: (u64, u64),
    /// What it has grown by, scaled up.
    cost: (u64, u64),
}

pub(super) struct Costs {
    seen: BTreeMap<&'static str, Seen>,
    /// Keeps the kernel at it.
    accounting: Option<OwnedFd>,
    always: bool,
    readings: u64,
}

impl Costs {
    /// What was counted before this agent does not count.
    pub(super) fn new(programs: &BTreeMap<&'static str, OwnedFd>) -> Self {
        let seen = programs
            .iter()
            .filter_map(|(&name, fd)| {
                let seen = Seen {
                    account: account(fd)?,
                    ..Seen::default()
                };
                Some((name, seen))
            })
            .collect();
        Self {
            seen,
            accounting: account_run_time(),
            always: false,
            readings: 0,
        }
    }

    pub(super) fn account_always(
        &mut self,
        always: bool,
        programs: &BTreeMap<&'static str, OwnedFd>,
    ) {
        self.add(programs);
        self.always = always;
        self.accounting = always.then(account_run_time).flatten();
    }

    /// Begins or ends to keep account, as it is time.
    pub(super) fn account(&mut self, programs: &BTreeMap<&'static str, OwnedFd>) {
        if self.always {
            return;
        }
        if self.accounting.is_some() {
            self.add(programs);
            self.accounting = None;
        }
        self.readings += 1;
        if self.readings.is_multiple_of(ONE_IN) {
            self.accounting = account_run_time();
        }
    }

    /// The cost so far.
    pub(super) fn read(&mut self, programs: &BTreeMap<&'static str, OwnedFd>) -> Vec<ProbeCost> {
        self.add(programs);
        let costs = self.seen.iter().map(|(&program, seen)| ProbeCost {
            program,
            run_time_ns: seen.cost.0,
            run_count: seen.cost.1,
        });
        costs.collect()
    }

    fn add(&mut self, programs: &BTreeMap<&'static str, OwnedFd>) {
        let scale = if self.always { 1 } else { ONE_IN };
        for (name, seen) in &mut self.seen {
            let Some((time_ns, runs)) = programs.get(name).and_then(account) else {
                continue;
            };
            seen.cost.0 += time_ns.saturating_sub(seen.account.0) * scale;
            seen.cost.1 += runs.saturating_sub(seen.account.1) * scale;
            seen.account = (time_ns, runs);
        }
    }
}

/// The kernel's account of a program: its time in nanoseconds and its runs.
fn account(program: &OwnedFd) -> Option<(u64, u64)> {
    let path = format!("/proc/self/fdinfo/{}", program.as_raw_fd());
    parse(&fs::read_to_string(path).ok()?)
}

fn parse(text: &str) -> Option<(u64, u64)> {
    let field = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name))?;
        line.trim().parse::<u64>().ok()
    };
    Some((field("run_time_ns:")?, field("run_cnt:")?))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::fuzzing::{Numbers, any_bytes, timed};

    const FDINFO: &str = "pos:\t0\nflags:\t02000002\nprog_type:\t26\nprog_jited:\t1\nmemlock:\t8192\nrun_time_ns:\t123\nrun_cnt:\t4\nrecursion_misses:\t0\n";

    proptest! {
        #[test]
        fn an_account_of_nonsense_is_none_or_stands_in_the_text(text in any_bytes(FDINFO)) {
            let text = String::from_utf8_lossy(&text);
            let (account, soon) = timed(|| parse(&text));
            prop_assert!(soon);
            // A name may have run into its number: then neither is a word by itself.
            let spaced = text.replace(':', ": ");
            let numbers = Numbers::of(spaced.as_bytes());
            if let Some((time_ns, runs)) = account {
                prop_assert!(numbers.hold(Some(time_ns), 1) && numbers.hold(Some(runs), 1));
            }
        }
    }

    #[test]
    fn an_account_is_read_whole_or_not_at_all() {
        let text = "pos:\t0\nrun_time_ns:\t123\nrun_cnt:\t4\n";
        assert_eq!(parse(text), Some((123, 4)));
        assert_eq!(parse("run_time_ns:\t123\n"), None);
        assert_eq!(parse("run_time_ns:\t-1\nrun_cnt:\t4\n"), None);
    }
}
