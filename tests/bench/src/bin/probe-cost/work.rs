//! What the work on the machine loses by the probes.
//!
//! Two kinds of work, each two processes that hand a token to and fro in registered containers:
//! - *ping-pong*: on one CPU, without any work between, which is the most switches that a CPU can make;
//! - *paced*: on every CPU, with so much work between that the machine makes 20,000 switches a second.
//!
//! **States.** Without the probes; with them *as shipped*, which includes an agent's readings ten times a second, and
//! the kernel's account of the probes' time, which the agent asks for in a tenth of the time; with the probes alone; and
//! with that account kept all the time. The account itself costs time in every program of the machine.
//!
//! **Rounds.** The states take turns, in changing order. The same processes work in all of them. What is told of a
//! state is the median over the rounds of how much longer its work took than the same work without probes in the same
//! round; the quartiles say how far that can be trusted. Beside it stands the same of the CPU time of the work alone,
//! which others on the machine disturb less.

use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread::{self, available_parallelism};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use ebb_agent::probe::{CgroupPaths, Detail, Facts, Sampler};
use ebb_tests_bench::play::{Part, Player, Took};
use ebb_tests_bench::process::context_switches;
use ebb_tests_bench::{
    Containers, at_least, at_most, figure, longer_percent, monotonic_ns, order, quantile,
};

const ROUNDS: usize = 100;
/// How long the work of a state takes, without probes; before it comes a tenth of it that does not count.
const STRETCH_NS: f64 = 100e6;
const WARM_SHARE: u64 = 10;
/// To find out how long a trip takes.
const TRIAL_TRIPS: u64 = 2_000;
const TRIAL_WORK: u64 = 100_000;
const TRIALS: usize = 5;
const PING_PONG_MOST_PERCENT: f64 = 10.0;
const PACED_MOST_PERCENT: f64 = 1.0;
/// Switches on the whole machine, and what is aimed at so that they are reached.
const PACED_SWITCHES_PER_S: f64 = 20_000.0;
const PACED_AIM_PER_S: f64 = 23_000.0;
const SWITCHES_PER_TRIP: f64 = 2.0;

/// How often work is measured anew that another agent's account of the probes has slowed down.
const MAX_ATTEMPTS: usize = 40;
/// The agent's readings, of which one in so many is full.
const READ_INTERVAL: Duration = Duration::from_millis(100);
const FULL_EVERY: usize = 10;

/// The states of a round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Without,
    Shipped,
    Alone,
    Accounted,
}

const STATES: [State; 4] = [
    State::Without,
    State::Shipped,
    State::Alone,
    State::Accounted,
];

/// Measures both kinds and prints the rows.
pub fn measure(facts: &Facts) -> Result<()> {
    let cpus = available_parallelism()?.get();
    let containers = Containers::make(cpus)?;
    let mut work = Work::start(&containers, 1)?;
    let case = "ping-pong on one CPU";
    let figures = work.measure(facts, 0)?;
    let trip_us = quantile(&mut figures.trip_ns(), 0.5) / 1e3;
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
    rounds: Vec<[Took; STATES.len()]>,
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

    /// What so many trips with so much work each took, as the sum of all players.
    fn run(&mut self, trips: u64, steps: u64) -> Result<Took> {
        for player in &mut self.players {
            player.ask(trips, steps)?;
        }
        let mut sum = Took::default();
        for player in &mut self.players {
            let took = player.answer()?;
            sum.wall_ns += took.wall_ns;
            sum.cpu_ns += took.cpu_ns;
        }
        Ok(sum)
    }

    /// The time of a trip with so much work, the least of some trials. By the CPU, which the two of a pair share
    /// without a gap, so that others on the machine do not matter.
    fn trip_ns(&mut self, trips: u64, steps: u64) -> Result<f64> {
        let mut least_ns = f64::INFINITY;
        for _ in 0..TRIALS {
            let all_ns = self.run(trips, steps)?.cpu_ns as f64;
            least_ns = least_ns.min(all_ns / self.players.len() as f64 / trips as f64);
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
            rounds: Vec::with_capacity(ROUNDS),
            trips,
            switches_per_s: Vec::new(),
        };
        for round in 0..ROUNDS {
            let mut took = [Took::default(); STATES.len()];
            for at in order(round, STATES.len()) {
                let (one, switches_per_s) = self.stretch(STATES[at], facts, trips, steps)?;
                took[at] = one;
                if STATES[at] == State::Without {
                    figures.switches_per_s.push(switches_per_s);
                }
            }
            figures.rounds.push(took);
        }
        Ok(figures)
    }

    /// The work of one state: what it took, and the switches of the machine.
    fn stretch(
        &mut self,
        state: State,
        facts: &Facts,
        trips: u64,
        steps: u64,
    ) -> Result<(Took, f64)> {
        for _ in 0..MAX_ATTEMPTS {
            if let Some(timed) = self.attempt(state, facts, trips, steps)? {
                return Ok(timed);
            }
        }
        bail!(
            "somebody else keeps account of the machine's eBPF programs, again and again; end the other agent, or \
             write 0 to /proc/sys/kernel/bpf_stats_enabled"
        )
    }

    /// Nothing if account was kept where it should not be.
    fn attempt(
        &mut self,
        state: State,
        facts: &Facts,
        trips: u64,
        steps: u64,
    ) -> Result<Option<(Took, f64)>> {
        let mut sampler = super::attach(facts, &self.containers)?;
        if state == State::Without {
            // Only now, so that the same went before in every state: who has rested has a better claim to a CPU.
            drop(sampler);
            return self.timed(trips, steps).map(Some);
        }
        if state != State::Shipped {
            sampler.account_costs_always(state == State::Accounted);
        }
        let runs = |sampler: &mut Sampler<usize>| {
            let costs = sampler.costs();
            costs.iter().map(|cost| cost.run_count).sum::<u64>()
        };
        let before = runs(&mut sampler);
        let timed = if state == State::Shipped {
            self.timed_beside_readings(&mut sampler, trips, steps)?
        } else {
            self.timed(trips, steps)?
        };
        let accounted = runs(&mut sampler) > before;
        if state == State::Alone && accounted {
            return Ok(None);
        }
        ensure!(
            state != State::Accounted || accounted,
            "the kernel keeps no account of the probes"
        );
        self.check(&mut sampler, trips)?;
        Ok(Some(timed))
    }

    fn timed(&mut self, trips: u64, steps: u64) -> Result<(Took, f64)> {
        self.run(trips / WARM_SHARE, steps)?;
        let (from_ns, from_switches) = (monotonic_ns(), context_switches()?);
        let took = self.run(trips, steps)?;
        let wall_ns = (monotonic_ns() - from_ns) as f64;
        let switches = (context_switches()? - from_switches) as f64;
        Ok((took, switches * 1e9 / wall_ns))
    }

    /// The same while another thread reads as the agent does.
    fn timed_beside_readings(
        &mut self,
        sampler: &mut Sampler<usize>,
        trips: u64,
        steps: u64,
    ) -> Result<(Took, f64)> {
        let (stop, stopped) = channel::<()>();
        thread::scope(|scope| {
            scope.spawn(move || {
                for reading in 0.. {
                    let full = reading % FULL_EVERY == 0;
                    sampler.sample(if full { Detail::Full } else { Detail::Quick });
                    if stopped.recv_timeout(READ_INTERVAL) != Err(RecvTimeoutError::Timeout) {
                        return;
                    }
                }
            });
            let timed = self.timed(trips, steps);
            drop(stop);
            timed
        })
    }

    /// The probes must have seen the work that was measured.
    fn check(&self, sampler: &mut Sampler<usize>, trips: u64) -> Result<()> {
        let sample = sampler.sample(Detail::Quick);
        let mut working = sample.containers.iter().take(self.players.len());
        let seen = working.all(|(_, counters)| {
            let switches = counters.switches.as_ref();
            switches.is_some_and(|switches| switches.voluntary >= trips)
        });
        ensure!(seen, "the probes have not seen the work that was measured");
        Ok(())
    }
}

/// Steps of work before each hand-over, from what a trip takes without work and with that of the trial.
fn steps(empty_ns: f64, worked_ns: f64, cpus: usize) -> Option<u64> {
    let trip_ns = cpus as f64 * SWITCHES_PER_TRIP * 1e9 / PACED_AIM_PER_S;
    let step_ns = (worked_ns - empty_ns) / (2.0 * TRIAL_WORK as f64);
    let steps = (trip_ns - empty_ns) / (2.0 * step_ns);
    (steps.is_finite() && steps >= 1.0).then_some(steps as u64)
}

impl Figures {
    /// The time of a trip without probes, of all rounds.
    fn trip_ns(&self) -> Vec<f64> {
        let times = self.rounds.iter().map(|round| round[0].wall_ns as f64);
        times.map(|time_ns| time_ns / self.trips as f64).collect()
    }

    fn report(&self, case: &str, most_percent: f64) {
        for (at, name) in [
            (1, "as shipped"),
            (2, "probes alone"),
            (3, "accounted all the time"),
        ] {
            let case = format!("{case}, {name}");
            let mut longer = self.longer_percent(at, |took| took.wall_ns);
            let median = quantile(&mut longer, 0.5);
            if STATES[at] == State::Accounted {
                figure(&case, "longer_median", median, "%");
            } else {
                at_most(&case, "longer_median", median, "%", most_percent);
            }
            for (metric, share) in [("longer_quartile_1", 0.25), ("longer_quartile_3", 0.75)] {
                figure(&case, metric, quantile(&mut longer, share), "%");
            }
            let mut longer = self.longer_percent(at, |took| took.cpu_ns);
            figure(&case, "longer_cpu_median", quantile(&mut longer, 0.5), "%");
        }
    }

    /// By how much each round's work took longer in a state.
    fn longer_percent(&self, state: usize, time: impl Fn(Took) -> u64) -> Vec<f64> {
        let rounds = self.rounds.iter();
        rounds
            .map(|round| longer_percent(time(round[state]) as f64, time(round[0]) as f64))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_work_fills_what_handing_over_leaves_of_the_pace() {
        let (empty_ns, step_ns, cpus) = (5_000.0, 1.0, 2);
        let worked_ns = empty_ns + 2.0 * step_ns * TRIAL_WORK as f64;
        let steps = steps(empty_ns, worked_ns, cpus).unwrap();
        let trip_ns = empty_ns + 2.0 * step_ns * steps as f64;
        let switches_per_s = cpus as f64 * SWITCHES_PER_TRIP * 1e9 / trip_ns;
        let miss = (switches_per_s - PACED_AIM_PER_S).abs();
        assert!(miss <= PACED_AIM_PER_S / 1_000.0, "{switches_per_s}");
        assert_eq!(super::steps(400_000.0, 600_000.0, 2), None);
    }

    #[test]
    fn a_round_is_held_against_itself() {
        let round = |walls: [u64; 4]| {
            walls.map(|wall_ns| Took {
                wall_ns,
                cpu_ns: wall_ns / 2,
            })
        };
        let figures = Figures {
            rounds: vec![round([100, 110, 106, 100]), round([200, 220, 200, 200])],
            trips: 10,
            switches_per_s: Vec::new(),
        };
        for (state, expected) in [(1, [10.0, 10.0]), (2, [6.0, 0.0])] {
            let by_wall = figures.longer_percent(state, |took| took.wall_ns);
            let by_cpu = figures.longer_percent(state, |took| took.cpu_ns);
            for (longer, expected) in by_wall.iter().chain(&by_cpu).zip(expected.repeat(2)) {
                assert!((longer - expected).abs() < 1e-9);
            }
        }
        assert_eq!(figures.trip_ns(), [10.0, 20.0]);
    }
}
