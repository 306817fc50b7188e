//! What the work on the machine loses by the probes.
//!
//! Two kinds of work, each two processes that hand a token to and fro in registered containers:
//! - *ping-pong*: on one CPU, without any work between, which is the most switches that a CPU can make;
//! - *paced*: on every CPU, with so much work between that the machine makes 20,000 switches a second.
//!
//! **States.** Without the probes; with them as they ship, which includes the statistics that the kernel keeps of them
//! while they are attached; and with them alone. For the last the probes are loaded without `CAP_SYS_ADMIN`, as by an
//! agent that has no more than it needs: then the kernel refuses the statistics, and the agent goes on without.
//!
//! **Rounds.** The states take turns, in changing order. The same processes work in all of them. What is told of a
//! state is the median over the rounds of how much longer its work took than the same work without probes in the same
//! round; the quartiles say how far that can be trusted.

use std::thread::available_parallelism;

use anyhow::{Context, Result, ensure};
use ebb_agent::probe::{CgroupPaths, Detail, Facts, Sampler};
use ebb_tests_bench::play::{Part, Player};
use ebb_tests_bench::process::context_switches;
use ebb_tests_bench::{
    Containers, at_least, at_most, figure, longer_percent, monotonic_ns, order, quantile,
};
use rustix::thread::{CapabilitySet, CapabilitySets, capabilities, set_capabilities};

const ROUNDS: usize = 24;
/// How long the work of a state takes, without probes; before it comes a tenth of it that does not count.
const STRETCH_NS: f64 = 400e6;
const WARM_SHARE: u64 = 10;
/// To find out how long a trip takes.
const TRIAL_TRIPS: u64 = 2_000;
const TRIAL_WORK: u64 = 100_000;
const TRIALS: usize = 5;
const PING_PONG_MOST_PERCENT: f64 = 10.0;
const PACED_MOST_PERCENT: f64 = 1.0;
/// Switches on the whole machine, and what is aimed at so that they are reached.
const PACED_SWITCHES_PER_S: f64 = 20_000.0;
const PACED_AIM_PER_S: f64 = 20_500.0;
const SWITCHES_PER_TRIP: f64 = 2.0;

/// The states of a round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Without,
    Shipped,
    NoStatistics,
}

const STATES: [State; 3] = [State::Without, State::Shipped, State::NoStatistics];

/// Measures both kinds and prints the rows.
pub fn measure(facts: &Facts) -> Result<()> {
    let cpus = available_parallelism()?.get();
    let containers = Containers::make(cpus)?;
    let mut work = Work::start(&containers, 1)?;
    let case = "ping-pong on one CPU";
    let figures = work.measure(facts, 0)?;
    let trip_us = quantile(&mut figures.trip_ns(0), 0.5) / 1e3;
    figure(case, "round trip without probes", trip_us, "us");
    figures.report(case, PING_PONG_MOST_PERCENT);

    let mut work = Work::start(&containers, cpus)?;
    let steps = work.pace()?;
    let case = "20,000 switches a second";
    let mut figures = work.measure(facts, steps)?;
    let median = quantile(&mut figures.switches_per_s, 0.5);
    at_least(case, "switches", median, "1/s", PACED_SWITCHES_PER_S);
    figures.report(case, PACED_MOST_PERCENT);
    Ok(())
}

/// The processes that work, each on a CPU and in a container of its own.
struct Work {
    players: Vec<Player>,
    containers: Vec<CgroupPaths>,
}

/// How long the work of a round took in each state, and how many switches the machine made meanwhile without probes.
struct Figures {
    rounds_ns: Vec<[f64; STATES.len()]>,
    trips: u64,
    switches_per_s: Vec<f64>,
}

impl Work {
    fn start(containers: &Containers, cpus: usize) -> Result<Self> {
        let players = (0..cpus)
            .map(|cpu| Player::start(Part::Ping(cpu), &containers.doors(cpu)))
            .collect::<Result<Vec<_>>>()?;
        Ok(Self {
            players,
            containers: containers.paths(),
        })
    }

    /// The mean time of all players for so many trips with so much work each.
    fn run_ns(&mut self, trips: u64, steps: u64) -> Result<f64> {
        for player in &mut self.players {
            player.ask(trips, steps)?;
        }
        let mut sum_ns = 0;
        for player in &mut self.players {
            sum_ns += player.answer_ns()?;
        }
        Ok(sum_ns as f64 / self.players.len() as f64)
    }

    /// The time of a trip with so much work, the least of some trials.
    fn trip_ns(&mut self, trips: u64, steps: u64) -> Result<f64> {
        let mut least_ns = f64::INFINITY;
        for _ in 0..TRIALS {
            least_ns = least_ns.min(self.run_ns(trips, steps)? / trips as f64);
        }
        Ok(least_ns)
    }

    /// So much work before each hand-over that the machine makes the switches that are aimed at.
    fn pace(&mut self) -> Result<u64> {
        let empty_ns = self.trip_ns(TRIAL_TRIPS, 0)?;
        let worked_ns = self.trip_ns(TRIAL_TRIPS / 10, TRIAL_WORK)?;
        let steps = steps(empty_ns, worked_ns, self.players.len());
        steps.context("handing over alone takes longer than the pace allows")
    }

    fn measure(&mut self, facts: &Facts, steps: u64) -> Result<Figures> {
        let trip_ns = self.trip_ns((TRIAL_TRIPS / 10).max(1), steps)?;
        let trips = (STRETCH_NS / trip_ns) as u64;
        let mut figures = Figures {
            rounds_ns: Vec::with_capacity(ROUNDS),
            trips,
            switches_per_s: Vec::new(),
        };
        for round in 0..ROUNDS {
            let mut times_ns = [0.0; STATES.len()];
            for at in order(round, STATES.len()) {
                let (time_ns, switches_per_s) = self.stretch(STATES[at], facts, trips, steps)?;
                times_ns[at] = time_ns;
                if STATES[at] == State::Without {
                    figures.switches_per_s.push(switches_per_s);
                }
            }
            figures.rounds_ns.push(times_ns);
        }
        Ok(figures)
    }

    /// The work of one state: its time, and the switches of the machine.
    fn stretch(
        &mut self,
        state: State,
        facts: &Facts,
        trips: u64,
        steps: u64,
    ) -> Result<(f64, f64)> {
        let mut sampler = match state {
            State::Without => None,
            State::Shipped => Some(super::attach(facts, &self.containers)?),
            State::NoStatistics => Some(without_statistics(|| {
                super::attach(facts, &self.containers)
            })?),
        };
        self.run_ns(trips / WARM_SHARE, steps)?;
        let (from_ns, from_switches) = (monotonic_ns(), context_switches()?);
        let time_ns = self.run_ns(trips, steps)?;
        let wall_ns = (monotonic_ns() - from_ns) as f64;
        let switches = (context_switches()? - from_switches) as f64;
        if let Some(sampler) = &mut sampler {
            check(sampler, state, self.players.len(), trips)?;
        }
        Ok((time_ns, switches * 1e9 / wall_ns))
    }
}

/// Steps of work before each hand-over, from what a trip takes without work and with that of the trial.
fn steps(empty_ns: f64, worked_ns: f64, cpus: usize) -> Option<u64> {
    let trip_ns = cpus as f64 * SWITCHES_PER_TRIP * 1e9 / PACED_AIM_PER_S;
    let step_ns = (worked_ns - empty_ns) / (2.0 * TRIAL_WORK as f64);
    let steps = (trip_ns - empty_ns) / (2.0 * step_ns);
    (steps.is_finite() && steps >= 1.0).then_some(steps as u64)
}

/// The probes must have been in the state that is measured, and have seen the work.
fn check(sampler: &mut Sampler<usize>, state: State, players: usize, trips: u64) -> Result<()> {
    let counted = sampler.costs().iter().any(|cost| cost.run_count > 0);
    ensure!(
        counted == (state == State::Shipped),
        "the kernel keeps statistics of the probes where it should not, or does not where it should: {state:?}"
    );
    let sample = sampler.sample(Detail::Quick);
    let seen = sample.containers.iter().take(players).all(|(_, counters)| {
        let switches = counters.switches.as_ref();
        switches.is_some_and(|switches| switches.voluntary >= trips)
    });
    ensure!(seen, "the probes have not seen the work that was measured");
    Ok(())
}

/// Does something without `CAP_SYS_ADMIN`, which the kernel's statistics take and the probes do not.
fn without_statistics<T>(act: impl FnOnce() -> Result<T>) -> Result<T> {
    let all = capabilities(None)?;
    let fewer = CapabilitySets {
        effective: all.effective - CapabilitySet::SYS_ADMIN,
        ..all
    };
    set_capabilities(None, fewer)?;
    let done = act();
    set_capabilities(None, all)?;
    done
}

impl Figures {
    /// The time of a trip in one state, of all rounds.
    fn trip_ns(&self, state: usize) -> Vec<f64> {
        let times = self.rounds_ns.iter().map(|round| round[state]);
        times.map(|time_ns| time_ns / self.trips as f64).collect()
    }

    fn report(&self, case: &str, most_percent: f64) {
        for (at, name) in [(1, "as shipped"), (2, "without statistics")] {
            let mut longer = self.longer_percent(at);
            let case = format!("{case}, {name}");
            let median = quantile(&mut longer, 0.5);
            at_most(&case, "longer_median", median, "%", most_percent);
            for (metric, share) in [("longer_quartile_1", 0.25), ("longer_quartile_3", 0.75)] {
                figure(&case, metric, quantile(&mut longer, share), "%");
            }
        }
    }

    fn longer_percent(&self, state: usize) -> Vec<f64> {
        let rounds = self.rounds_ns.iter();
        rounds
            .map(|round| longer_percent(round[state], round[0]))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_work_fills_what_handing_over_leaves_of_the_pace() {
        // Two CPUs: 10,250 switches a second each, 195 us a trip, of which 5 us are handing over.
        let worked_ns = 5_000.0 + 2.0 * TRIAL_WORK as f64;
        let steps = steps(5_000.0, worked_ns, 2).unwrap();
        assert!((95_000..95_200).contains(&steps), "{steps}");
        assert_eq!(super::steps(400_000.0, 600_000.0, 2), None);
    }

    #[test]
    fn a_round_is_held_against_itself() {
        let figures = Figures {
            rounds_ns: vec![[100.0, 110.0, 105.0], [200.0, 220.0, 200.0]],
            trips: 10,
            switches_per_s: Vec::new(),
        };
        for (state, expected) in [(1, [10.0, 10.0]), (2, [5.0, 0.0])] {
            for (longer, expected) in figures.longer_percent(state).iter().zip(expected) {
                assert!((longer - expected).abs() < 1e-9);
            }
        }
        assert_eq!(figures.trip_ns(0), [10.0, 20.0]);
    }
}
