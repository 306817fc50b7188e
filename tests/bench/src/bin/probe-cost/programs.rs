//! The time in the probes for each wake-up and switch, beside a run-queue monitor, by the kernel's own statistics.
//!
//! **Load.** Eight containers and the machine beside them, each with 25 threads that talk through pipes, or work and
//! sleep; it runs all the time. Containers are registered with the probes as the agent does it.
//!
//! **Rounds.** The two take turns and are never attached at once: they read the same fields of the same tasks, so the
//! one that runs second would find them in the cache. Which comes first in a round changes. Programs that do nothing
//! are attached all the time, before either; what the kernel says of them is the cost of its own accounting, in this
//! very round, and is taken off each run of the others. Each stretch begins when the load has run on for a moment
//! with what was just attached, so that its tables are filled.
//!
//! **What is compared.** *A pair* is one wake-up and one switch: the mean net time of the programs on the one plus
//! that on the other; a side without a program costs nothing there. *A switch, all in all*, is the net time of all
//! runs on both by the number of switches, of which some have no wake-up (the CPU goes idle, a task is preempted).
//! The second holds the same events against each other and is the harder one for a probe that works at switches alone.
//! The bar is on both.
//!
//! **Events.** What reaches user space is counted in the ring buffers of this process: the probes have one at most,
//! for what is rare, and nothing else could carry an event. The monitor's tell that it worked.

use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use ebb_agent::probe::Facts;
use ebb_tests_bench::play::{Part, Player};
use ebb_tests_bench::process::{Cost, EventMap, event_maps};
use ebb_tests_bench::{
    Beside, Containers, Program, at_most, figure, keep_statistics, order, quantile, spread,
    take_events_of,
};

const CONTAINERS: usize = 8;
const ROUNDS: usize = 20;
/// From attaching to the beginning of a stretch, and a stretch.
const SETTLE: Duration = Duration::from_millis(300);
const STRETCH: Duration = Duration::from_millis(1000);
/// The monitor's events are taken so often, by a reader that does not wait for them.
const TAKE: Duration = Duration::from_millis(50);
const MOST_OF_MONITOR: f64 = 0.6;
/// A stretch with fewer switches has measured nothing.
const LEAST_SWITCHES: u64 = 1_000;

const EBB: usize = 0;
const MONITOR: usize = 1;

/// On which side of the pair a program stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    Wake,
    Switch,
    /// Something else, which is told but no part of the pair.
    Other,
}

impl Side {
    fn of(program: &str) -> Self {
        if program.contains("wak") {
            Self::Wake
        } else if program.contains("switch") {
            Self::Switch
        } else {
            Self::Other
        }
    }
}

/// What ran in a stretch.
#[derive(Clone, Debug)]
struct Stretch {
    nothing_wake: Cost,
    nothing_switch: Cost,
    programs: Vec<(String, Cost)>,
}

impl Stretch {
    fn since(mut self, before: &Self) -> Self {
        self.nothing_wake = self.nothing_wake.since(before.nothing_wake);
        self.nothing_switch = self.nothing_switch.since(before.nothing_switch);
        for (name, cost) in &mut self.programs {
            let earlier = before.programs.iter().find(|(other, _)| other == name);
            *cost = cost.since(earlier.map(|(_, cost)| *cost).unwrap_or_default());
        }
        self
    }

    /// What ran on one side, and what doing nothing took there.
    fn side(&self, side: Side) -> (Cost, f64) {
        let nothing = match side {
            Side::Wake => self.nothing_wake,
            Side::Switch | Side::Other => self.nothing_switch,
        };
        let own = self
            .programs
            .iter()
            .filter(|(name, _)| Side::of(name) == side);
        let cost = own.fold(Cost::default(), |sum, (_, cost)| sum.and(*cost));
        (cost, nothing.mean_ns().unwrap_or_default())
    }

    /// Net time of a run on one side; 0 without any.
    fn net_ns(&self, side: Side) -> f64 {
        let (cost, nothing_ns) = self.side(side);
        cost.mean_ns().map_or(0.0, |mean_ns| mean_ns - nothing_ns)
    }

    fn pair_ns(&self) -> f64 {
        self.net_ns(Side::Wake) + self.net_ns(Side::Switch)
    }

    fn all_in_all_ns(&self) -> f64 {
        let total: f64 = [Side::Wake, Side::Switch]
            .map(|side| self.net_ns(side) * self.side(side).0.run_count as f64)
            .iter()
            .sum();
        total / self.nothing_switch.run_count as f64
    }
}

/// The figures of all rounds, of each of the two.
#[derive(Default)]
struct Series {
    pair_ns: [Vec<f64>; 2],
    wake_ns: [Vec<f64>; 2],
    switch_ns: [Vec<f64>; 2],
    all_in_all_ns: [Vec<f64>; 2],
    nothing_ns: Vec<f64>,
    switches_per_s: Vec<f64>,
    wakes_per_s: Vec<f64>,
    events: [u64; 2],
    others: Vec<(String, Vec<f64>)>,
}

/// Measures and prints the rows.
pub fn measure(facts: &Facts, beside: &mut Beside) -> Result<()> {
    let containers = Containers::make(CONTAINERS)?;
    let players = (0..=CONTAINERS)
        // The last one has no doors: it stays beside the containers.
        .map(|number| Player::start(Part::Mix, &containers.doors(number)))
        .collect::<Result<Vec<_>>>()?;
    let statistics = keep_statistics()?;
    beside.attach(&Program::NOTHING)?;
    let mut series = Series::default();
    for round in 0..ROUNDS {
        for who in order(round, 2) {
            let stretch = if who == EBB {
                ebb(facts, &containers, beside, &mut series.events[EBB])?
            } else {
                monitor(beside, &mut series.events[MONITOR])?
            };
            series.add(who, &stretch)?;
        }
    }
    beside.detach(&Program::NOTHING)?;
    drop(statistics);
    drop(players);
    series.report();
    Ok(())
}

fn ebb(
    facts: &Facts,
    containers: &Containers,
    beside: &mut Beside,
    events: &mut u64,
) -> Result<Stretch> {
    let own = std::process::id();
    let others = event_maps(own, EventMap::Ring)?;
    let mut sampler = super::attach(facts, &containers.paths())?;
    // What was counted in a part of the time would be scaled up.
    sampler.account_costs_always(true);
    ensure!(
        event_maps(own, EventMap::Perf)?.is_empty(),
        "the probes have a perf event array, whose events are not counted here"
    );
    let mut read = || {
        let costs = sampler.costs().into_iter().map(|cost| {
            let spent = Cost {
                run_time_ns: cost.run_time_ns,
                run_count: cost.run_count,
            };
            (cost.program.to_string(), spent)
        });
        snapshot(beside, costs.collect())
    };
    sleep(SETTLE);
    let before = read()?;
    sleep(STRETCH);
    let stretch = read()?.since(&before);
    for ring in event_maps(own, EventMap::Ring)? {
        if !others.contains(&ring) {
            *events += take_events_of(ring)?;
        }
    }
    Ok(stretch)
}

fn monitor(beside: &mut Beside, events: &mut u64) -> Result<Stretch> {
    beside.attach(&Program::MONITOR)?;
    sleep(SETTLE);
    beside.take_events();
    let before = snapshot(beside, monitor_costs(beside)?)?;
    let mut slept = Duration::ZERO;
    while slept < STRETCH {
        sleep(TAKE);
        slept += TAKE;
        *events += beside.take_events();
    }
    let stretch = snapshot(beside, monitor_costs(beside)?)?.since(&before);
    beside.detach(&Program::MONITOR)?;
    Ok(stretch)
}

fn monitor_costs(beside: &Beside) -> Result<Vec<(String, Cost)>> {
    let costs =
        Program::MONITOR.map(|program| Ok((program.name().to_owned(), beside.cost(program)?)));
    costs.into_iter().collect()
}

fn snapshot(beside: &Beside, programs: Vec<(String, Cost)>) -> Result<Stretch> {
    Ok(Stretch {
        nothing_wake: beside.cost(Program::NothingWakeup)?,
        nothing_switch: beside.cost(Program::NothingSwitch)?,
        programs,
    })
}

impl Series {
    fn add(&mut self, who: usize, stretch: &Stretch) -> Result<()> {
        let switches = stretch.nothing_switch.run_count;
        ensure!(
            switches >= LEAST_SWITCHES,
            "only {switches} switches in a stretch: the load does not run"
        );
        let (on_switches, _) = stretch.side(Side::Switch);
        if on_switches.run_count < switches / 2 {
            bail!(
                "of {switches} switches only {} were seen by {}",
                on_switches.run_count,
                ["the probes", "the monitor"][who]
            );
        }
        self.pair_ns[who].push(stretch.pair_ns());
        self.wake_ns[who].push(stretch.net_ns(Side::Wake));
        self.switch_ns[who].push(stretch.net_ns(Side::Switch));
        self.all_in_all_ns[who].push(stretch.all_in_all_ns());
        let nothing_ns = stretch.nothing_switch.mean_ns();
        self.nothing_ns
            .push(nothing_ns.context("nothing never ran")?);
        let seconds = STRETCH.as_secs_f64();
        self.switches_per_s.push(switches as f64 / seconds);
        self.wakes_per_s
            .push(stretch.nothing_wake.run_count as f64 / seconds);
        if who == EBB {
            self.add_others(stretch);
        }
        Ok(())
    }

    fn add_others(&mut self, stretch: &Stretch) {
        let (_, nothing_ns) = stretch.side(Side::Other);
        for (name, cost) in &stretch.programs {
            let Some(mean_ns) = cost.mean_ns().filter(|_| Side::of(name) == Side::Other) else {
                continue;
            };
            let net_ns = mean_ns - nothing_ns;
            match self.others.iter_mut().find(|(other, _)| other == name) {
                Some((_, all)) => all.push(net_ns),
                None => self.others.push((name.clone(), vec![net_ns])),
            }
        }
    }

    fn report(&mut self) {
        let load = "8 containers x 25 threads, and beside them";
        spread(load, "switches", &mut self.switches_per_s, "1/s");
        spread(load, "wake-ups", &mut self.wakes_per_s, "1/s");
        spread("nothing", "a run", &mut self.nothing_ns, "ns");
        for (who, case) in [(EBB, "ebb"), (MONITOR, "run-queue monitor")] {
            spread(case, "net of a wake-up", &mut self.wake_ns[who], "ns");
            spread(case, "net of a switch", &mut self.switch_ns[who], "ns");
            spread(case, "net of a pair", &mut self.pair_ns[who], "ns");
            let all = &mut self.all_in_all_ns[who];
            spread(case, "net of a switch, all in all", all, "ns");
        }
        for (name, all) in &mut self.others {
            spread(&format!("ebb {name}"), "net of a run", all, "ns");
        }
        let median = |values: &mut [Vec<f64>; 2]| {
            let [ebb, monitor] = values;
            quantile(ebb, 0.5) / quantile(monitor, 0.5)
        };
        let case = "ebb / run-queue monitor";
        let share = median(&mut self.pair_ns);
        at_most(case, "net of a pair", share, "x", MOST_OF_MONITOR);
        let share = median(&mut self.all_in_all_ns);
        let metric = "net of a switch, all in all";
        at_most(case, metric, share, "x", MOST_OF_MONITOR);
        let [ebb, monitor] = self.events.map(|events| events as f64);
        at_most("ebb", "events to user space", ebb, "", 0.0);
        figure("run-queue monitor", "events to user space", monitor, "");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cost(run_time_ns: u64, run_count: u64) -> Cost {
        Cost {
            run_time_ns,
            run_count,
        }
    }

    #[test]
    fn what_nothing_takes_is_taken_off_each_run() {
        let stretch = Stretch {
            nothing_wake: cost(200, 10),
            nothing_switch: cost(600, 20),
            programs: vec![
                ("sched_wakeup".to_owned(), cost(450, 9)),
                ("sched_wakeup_new".to_owned(), cost(50, 1)),
                ("sched_switch".to_owned(), cost(2_000, 20)),
                ("flush".to_owned(), cost(70, 1)),
            ],
        };
        assert_eq!(stretch.net_ns(Side::Wake), 30.0);
        assert_eq!(stretch.net_ns(Side::Switch), 70.0);
        assert_eq!(stretch.net_ns(Side::Other), 40.0);
        assert_eq!(stretch.pair_ns(), 100.0);
        assert_eq!(stretch.all_in_all_ns(), (30.0 * 10.0 + 70.0 * 20.0) / 20.0);
    }

    #[test]
    fn a_side_without_a_program_costs_nothing() {
        let stretch = Stretch {
            nothing_wake: cost(200, 10),
            nothing_switch: cost(600, 20),
            programs: vec![("sched_switch".to_owned(), cost(2_000, 20))],
        };
        assert_eq!(stretch.pair_ns(), 70.0);
    }

    #[test]
    fn a_stretch_is_what_came_since_its_beginning() {
        let at = |ns| Stretch {
            nothing_wake: cost(ns, 1),
            nothing_switch: cost(ns, 1),
            programs: vec![("sched_switch".to_owned(), cost(ns, 1))],
        };
        let stretch = at(9).since(&at(4));
        assert_eq!(stretch.programs[0].1, cost(5, 0));
        assert_eq!(stretch.nothing_switch, cost(5, 0));
    }
}
