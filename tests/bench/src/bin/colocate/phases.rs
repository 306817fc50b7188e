//! One phase after the other, and what each of them shows.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use hdrhistogram::Histogram;

use crate::batch::{Batch, Work};
use crate::cluster::Cluster;
use crate::load::Load;
use crate::machine::{Machine, Meter};

/// What takes its course before a phase is measured.
const SETTLE: Duration = Duration::from_millis(1_500);
/// Load under which a request's price is found, in requests a second, and for how long.
const TRIAL: (f64, Duration) = (1_000.0, Duration::from_secs(2));
/// How long a step of the load lasts.
const STEP_MS: u64 = 700;
/// How long the machine is left to itself before a step.
const BEFORE_STEP: Duration = Duration::from_millis(1_300);
/// Where full demand is served so soon, nothing has to be taken back: less than one look of the agent.
const NOT_NOTICED_NS: u64 = 20_000_000;
/// After this the last decision of a step has been told.
const TOLD: Duration = Duration::from_millis(250);
/// Longest time without a look at whether the user has had enough.
const LOOK: Duration = Duration::from_millis(50);

/// Shares of what one core serves: the load of the rounds, and both ends of a step. An open loop at the whole of a
/// one-threaded service has no steady state.
pub const BASE: f64 = 0.25;
/// Before a step.
pub const LOW: f64 = 0.10;
/// In a step.
pub const FULL: f64 = 0.90;

/// What shares the machine with the service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Nothing.
    Alone,
    /// The batch in ordinary cgroups of the same weight.
    Equal,
    /// The batch on revocable offers.
    Ebb,
    /// The batch as bare processes with the kernel's lowest claim.
    Floor,
}

impl Phase {
    /// In the order in which a round takes them.
    pub const ALL: [Self; 4] = [Self::Alone, Self::Ebb, Self::Floor, Self::Equal];

    /// Its case in the report.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Alone => "alone",
            Self::Equal => "equal",
            Self::Ebb => "ebb",
            Self::Floor => "floor",
        }
    }
}

/// All rounds of one phase together.
#[derive(Clone, Debug)]
pub struct Seen {
    /// Latencies, in nanoseconds.
    pub latencies: Histogram<u64>,
    /// The largest 99.9th percentile of how late the generator was, in nanoseconds.
    pub late_p999_ns: u64,
    /// CPU time in all, in nanoseconds.
    pub machine: Machine,
    /// By the generator.
    pub generator_ns: f64,
    /// By the service.
    pub service_ns: f64,
    /// By the batch, where it is in cgroups.
    pub batch_ns: f64,
    /// By agent and master.
    pub daemons_ns: f64,
    /// Time that was measured, in seconds.
    pub span_s: f64,
    /// Units of work of each kind.
    pub units: BTreeMap<&'static str, u64>,
    /// Corrections by action.
    pub corrections: BTreeMap<String, u64>,
}

impl Seen {
    fn none() -> Result<Self> {
        Ok(Self {
            latencies: Histogram::new_with_bounds(1_000, 60_000_000_000, 3)?,
            late_p999_ns: 0,
            machine: Machine::default(),
            generator_ns: 0.0,
            service_ns: 0.0,
            batch_ns: 0.0,
            daemons_ns: 0.0,
            span_s: 0.0,
            units: BTreeMap::new(),
            corrections: BTreeMap::new(),
        })
    }

    /// Busy share of the machine, without what was stolen and what the generator took.
    pub fn utilisation(&self) -> f64 {
        let had = self.machine.all_ns - self.machine.stolen_ns - self.generator_ns;
        (self.machine.busy_ns() - self.generator_ns) / had.max(1.0)
    }

    /// A percentile of the latencies, in microseconds.
    pub fn latency_us(&self, share: f64) -> f64 {
        self.latencies.value_at_quantile(share) as f64 / 1_000.0
    }

    /// Units of each kind a second.
    pub fn rates(&self) -> BTreeMap<&'static str, f64> {
        let rate = |(kind, units): (&&'static str, &u64)| (*kind, *units as f64 / self.span_s);
        self.units.iter().map(rate).collect()
    }
}

/// Steps of the load.
#[derive(Clone, Debug, Default)]
pub struct Steps {
    /// Time to the first throttle or freeze, in milliseconds.
    pub throttled_ms: Vec<f64>,
    /// Steps in which there was none, and none was needed: time until full demand was served, in milliseconds.
    pub served_without_ms: Vec<f64>,
    /// Steps in which there was none although the demand was not served in time.
    pub missed: u64,
    /// Time until full demand was served, in milliseconds.
    pub served_ms: Vec<f64>,
    /// Steps in which it never was.
    pub unserved: u64,
    /// Containers that were ended.
    pub evictions: u64,
}

/// What the phases work with.
pub struct Stage<'a> {
    /// The cluster with the service.
    pub cluster: &'a Cluster,
    /// The generator.
    pub load: Load,
    /// What the batch does.
    pub work: &'a Work,
    /// CPUs of the machine.
    pub cpus: usize,
    /// Set when the user has had enough.
    pub interrupted: Arc<AtomicBool>,
}

impl Stage<'_> {
    fn wait(&self, time: Duration) -> Result<()> {
        let until = Instant::now() + time;
        loop {
            ensure!(!self.interrupted.load(Ordering::Relaxed), "interrupted");
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            std::thread::sleep(left.min(LOOK));
        }
    }

    /// Requests a second that one core serves.
    ///
    /// # Errors
    /// When the service uses no CPU.
    pub fn per_core(&mut self) -> Result<f64> {
        let service = Meter::of(&self.cluster.bases().0)?;
        self.load.rate(TRIAL.0)?;
        self.wait(SETTLE)?;
        let (before_ns, _) = (service.read_ns(), self.load.report()?);
        self.wait(TRIAL.1)?;
        let (report, after_ns) = (self.load.report()?, service.read_ns());
        ensure!(after_ns > before_ns, "the service uses no CPU");
        Ok(report.due as f64 * 1e9 / (after_ns - before_ns))
    }

    /// One phase of a round.
    ///
    /// # Errors
    /// When something of it ends or does not start.
    pub fn phase(
        &mut self,
        phase: Phase,
        rate: f64,
        time: Duration,
        seen: &mut BTreeMap<Phase, Seen>,
    ) -> Result<()> {
        self.load.rate(rate)?;
        let (batch, revocable) = match phase {
            Phase::Alone => (None, None),
            Phase::Equal => (Some(Batch::on_equal_terms(self.work, self.cpus)?), None),
            Phase::Floor => (Some(Batch::bare_idle(self.work)?), None),
            Phase::Ebb => (None, Some(self.cluster.start_batch(self.work)?)),
        };
        self.wait(SETTLE)?;
        let (owned, lent) = self.cluster.bases();
        let service = Meter::of(&owned)?;
        let base = batch.as_ref().and_then(Batch::base).unwrap_or(lent);
        let batch_meter = Meter::of(&base)?;
        let units = self.work.units();
        self.load.report()?;
        let (at_ms, began) = (now_ms(), Instant::now());
        let machine = Machine::read()?;
        let (service_ns, batch_ns) = (service.read_ns(), batch_meter.read_ns());
        let daemons_ns = self.cluster.daemons_ns()?;
        self.wait(time)?;
        let report = self.load.report()?;
        let entry = match seen.entry(phase) {
            std::collections::btree_map::Entry::Occupied(entry) => entry.into_mut(),
            std::collections::btree_map::Entry::Vacant(entry) => entry.insert(Seen::none()?),
        };
        let passed = Machine::read()?.since(machine);
        entry.machine.all_ns += passed.all_ns;
        entry.machine.idle_ns += passed.idle_ns;
        entry.machine.stolen_ns += passed.stolen_ns;
        entry.service_ns += service.read_ns() - service_ns;
        entry.batch_ns += batch_meter.read_ns() - batch_ns;
        entry.daemons_ns += self.cluster.daemons_ns()? - daemons_ns;
        entry.span_s += began.elapsed().as_secs_f64();
        entry.generator_ns += report.cpu_ns as f64;
        entry.late_p999_ns = entry.late_p999_ns.max(report.late_p999_ns);
        for (value, count) in report.latencies_ns {
            entry.latencies.saturating_record_n(value, count);
        }
        for (kind, count) in self.work.units() {
            *entry.units.entry(kind).or_default() += count - units.get(kind).unwrap_or(&0);
        }
        for correction in self.cluster.corrections_since(at_ms) {
            *entry.corrections.entry(correction.action).or_default() += 1;
        }
        drop(batch);
        revocable.map_or(Ok(()), |batch| batch.end())
    }

    /// One step of the load on a machine that is full of revocable work.
    ///
    /// # Errors
    /// When something of it ends or does not start.
    pub fn step(&mut self, per_core: f64, steps: &mut Steps) -> Result<()> {
        self.load.rate(per_core * LOW)?;
        let batch = self.cluster.start_batch(self.work)?;
        self.wait(BEFORE_STEP)?;
        let step = self.load.step(per_core * FULL, STEP_MS)?;
        self.wait(TOLD)?;
        match step.served_ns {
            Some(ns) => steps.served_ms.push(ns as f64 / 1e6),
            None => steps.unserved += 1,
        }
        let corrections = self.cluster.corrections_since(step.at_ms);
        for one in &corrections {
            let after_ms = one.at_ms - step.at_ms;
            eprintln!("  {} for {} after {after_ms} ms", one.action, one.signal);
        }
        let held = |action: &str| action == "throttle" || action == "freeze";
        match corrections.iter().find(|one| held(&one.action)) {
            Some(first) if first.at_ms <= step.at_ms + STEP_MS => {
                steps.throttled_ms.push((first.at_ms - step.at_ms) as f64);
            }
            _ => match step.served_ns {
                Some(ns) if ns <= NOT_NOTICED_NS => steps.served_without_ms.push(ns as f64 / 1e6),
                _ => steps.missed += 1,
            },
        }
        let evicted = corrections.iter().filter(|one| one.action == "evict");
        steps.evictions += evicted.count() as u64;
        batch.end()
    }
}

fn now_ms() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| {
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stolen_time_and_the_generators_are_no_part_of_the_utilisation() {
        let mut seen = Seen::none().expect("a histogram");
        seen.machine = Machine {
            all_ns: 100.0,
            idle_ns: 8.0,
            stolen_ns: 10.0,
        };
        seen.generator_ns = 10.0;
        assert!((seen.utilisation() - 0.9).abs() < 1e-9);
    }
}
