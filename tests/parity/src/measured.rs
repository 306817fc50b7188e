//! What the parity tests share beside containers: one test at a time, probes that must be there, readings in brackets.

#![allow(clippy::unwrap_used, reason = "the helpers of tests fail as tests do")]

use std::io::Read;
use std::process::Child;
use std::sync::{Mutex, MutexGuard, PoisonError};

use ebb_agent::probe::{
    ContainerCounters, ContainerFiles, Detail, Facts, Losses, Options, Sample, Sampler,
    built_in_object,
};

/// The name of a container.
pub type Name = &'static str;

/// One test at a time: they measure the machine, and two loads at once would only slow each other down.
pub fn alone() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    ONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A sampler that has its probes.
pub fn probes(facts: &Facts) -> Sampler<Name> {
    probes_with(
        facts,
        &Options {
            slots: 64,
            ..Options::default()
        },
    )
}

/// The same, set up otherwise.
pub fn probes_with(facts: &Facts, options: &Options) -> Sampler<Name> {
    let sampler = Sampler::with(facts, built_in_object(), options);
    assert!(sampler.has_probes(), "{}", sampler.message());
    sampler
}

/// The counters of one container in a sample.
pub fn of<'a>(sample: &'a Sample<Name>, name: &str) -> &'a ContainerCounters {
    let mut containers = sample.containers.iter();
    let found = containers.find(|(key, _)| *key == name);
    &found.expect("the container is in the sample").1
}

/// Its time on the CPUs, which must be the probes'.
pub fn on_cpu_ns(counters: &ContainerCounters) -> u64 {
    let figure = counters.on_cpu_ns.expect("the probes tell no time");
    assert_eq!(figure.source.name(), "ebpf");
    figure.value
}

/// A rising figure of the controller before and after one of the probes.
#[derive(Clone, Copy, Debug)]
pub struct Bracket {
    /// The controller's, read before.
    pub before: u64,
    /// The probes'.
    pub probes: u64,
    /// The controller's, read after.
    pub after: u64,
}

impl Bracket {
    /// By how much the probes' growth since `from` is outside of what the controller's can have been, and the most
    /// that that can have been.
    pub fn outside(&self, from: &Self) -> (u64, u64) {
        let grown = self.probes.checked_sub(from.probes);
        let grown = grown.expect("a counter fell");
        let least = self.before.saturating_sub(from.after);
        let most = self.after - from.before;
        let outside = least.saturating_sub(grown).max(grown.saturating_sub(most));
        (outside, most)
    }

    /// The same in percent.
    pub fn error_percent(&self, from: &Self) -> f64 {
        let (outside, most) = self.outside(from);
        100.0 * outside as f64 / most.max(1) as f64
    }
}

/// Time on the CPUs of a container, in brackets of its CPU controller.
pub fn cpu_bracket(
    sampler: &mut Sampler<Name>,
    yardstick: &mut ContainerFiles,
    name: &str,
) -> Bracket {
    let before = yardstick.on_cpu_ns().expect("the controller tells no time");
    let probes = on_cpu_ns(of(&sampler.sample(Detail::Quick), name));
    let after = yardstick.on_cpu_ns().expect("the controller tells no time");
    Bracket {
        before,
        probes,
        after,
    }
}

/// By how much two figures differ, in percent of the second.
pub fn differ_percent(one: u64, other: u64) -> f64 {
    100.0 * one.abs_diff(other) as f64 / other.max(1) as f64
}

/// Waits for a program's end, which must be a good one, and gives what it printed.
pub fn finish(mut load: Child) -> String {
    let mut printed = String::new();
    if let Some(mut output) = load.stdout.take() {
        output.read_to_string(&mut printed).unwrap();
    }
    let status = load.wait().unwrap();
    assert!(status.success(), "the load failed: {status}");
    printed
}

/// A number that a load printed as `NAME=NUMBER`.
pub fn told(printed: &str, name: &str) -> u64 {
    let mut words = printed.split_whitespace();
    let found = words.find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
    let number = found.and_then(|number| number.parse().ok());
    number.unwrap_or_else(|| panic!("the load does not tell {name}: {printed:?}"))
}

/// Asserts that nothing was lost. Switches that the kernel did not show to the probes are the kernel's.
pub fn nothing_lost(sampler: &Sampler<Name>) {
    let losses = sampler.losses();
    let expected = Losses {
        missed_switches: losses.missed_switches,
        ..Losses::default()
    };
    assert_eq!(losses, expected);
}

/// The bucket below which this many thousandths of a histogram's entries are, or in which they end.
pub fn percentile_bucket(hist: &[u64], thousandths: u64) -> usize {
    let all: u64 = hist.iter().sum();
    assert!(all > 0, "the histogram is empty");
    let rank = (all * thousandths).div_ceil(1000).max(1);
    let mut below = 0;
    hist.iter()
        .position(|count| {
            below += count;
            below >= rank
        })
        .unwrap_or(hist.len() - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentile_is_the_bucket_in_which_its_rank_stands() {
        let hist = [5, 0, 4, 1];
        let at = |thousandths| percentile_bucket(&hist, thousandths);
        assert_eq!((at(500), at(501), at(900), at(901)), (0, 2, 2, 3));
        assert_eq!((at(1), at(1000)), (0, 3));
    }

    #[test]
    fn what_is_outside_of_a_bracket_is_the_error() {
        let bracket = |before, probes, after| Bracket {
            before,
            probes,
            after,
        };
        let from = bracket(10, 3, 12);
        assert_eq!(bracket(110, 103, 112).outside(&from), (0, 102));
        assert_eq!(bracket(110, 100, 112).outside(&from).0, 1);
        assert_eq!(bracket(110, 106, 112).outside(&from).0, 1);
    }
}
