//! Lending: usage, estimator and QoS controller behind one door.
//!
//! **Problem.** The three must agree on what they saw and on one water level: while the QoS
//! controller takes CPU back, the estimator must not offer more of it, or the agent would lend and
//! evict in a loop. So one call takes one sample and gives everything that follows from it.
//!
//! **Units.** As in `ebb-types`. `now` is the core's clock and rules all durations; the sample's
//! `taken_ns` rules rates only.
//!
//! **Invariants.**
//! - Without valid data nothing is offered: what is lent falls to what is in use, and no
//!   correction is made or lifted.
//! - At most one correction a container and sample, each naming the container id that it judges,
//!   and only of revocable containers among the given tasks.
//! - What is lent is never below what is in use: shrinking that is the QoS controller's business.
//!
//! **Price.** O(tasks × samples in a second) a sample; state is bounded by the tasks given last.
//!
//! **For the driver.** Call [`Lending::on_sample`] with each sample, [`Lending::on_tick`] when one
//! is overdue, [`Lending::on_container_ended`] when a container is gone. A container is taken to run
//! without a cap when it is first seen: after a restart of the agent, lift caps and thaw before the
//! first sample. A `Throttle` of a frozen container thaws it under that cap; a `Release` thaws it
//! and lifts the cap.

use ebb_types::{
    AgentUsage, ContainerId, Correction, CorrectionAction, MeasureSource, Quantities, TaskSources,
    TaskUsage, TaskUsageFigures, Timestamp,
};

pub mod promise;

use super::estimator::lasting::{CONFIDENCE_PERMILLE, Survival};
use super::estimator::{self, Estimate, Estimator};
use super::qos::{self, Controller};
use super::running::RunningView;
use super::usage::{self, ContainerUse, Meter, Rates, Sample, SampleVerdict, UsageView};

/// Samples of one and the same time in a row that change nothing; with one more the sampler counts
/// as stuck, and nothing is lent.
const MAX_DUPLICATES: u32 = 2;

/// Every setting of lending, with defaults that say why.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Config {
    /// When a difference of counters may be trusted.
    pub usage: usage::Config,
    /// How much is lent.
    pub estimator: estimator::Config,
    /// When it is taken back.
    pub qos: qos::Config,
    /// What is promised to owners.
    pub promise: promise::Config,
}

/// What follows from one sample.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LendingOutcome {
    /// Everything to show and to tell the master; its corrections are those of this sample, to be
    /// carried out now.
    pub usage: AgentUsage,
    /// What the agent lends in all from now on, in use and not; `None` unless it changed.
    pub oversubscribed: Option<Quantities>,
    /// How much of that is not in use: what new revocable tasks may take.
    pub offerable: Quantities,
    /// What the sample was good for.
    pub verdict: SampleVerdict,
}

/// What lending did, ever; these only rise.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// What went wrong with readings.
    pub usage: usage::Counters,
    /// Samples and ticks without valid data.
    pub blind: u64,
    /// Caps set or changed.
    pub throttles: u64,
    /// Containers frozen.
    pub freezes: u64,
    /// Containers let go.
    pub releases: u64,
    /// Limits of network bandwidth set or changed.
    pub network_limits: u64,
    /// Limits of network bandwidth lifted.
    pub network_releases: u64,
    /// Containers that were left less memory.
    pub memory_reclaims: u64,
    /// Containers that had theirs again.
    pub memory_releases: u64,
    /// Containers told to end, repetitions included.
    pub evictions: u64,
    /// Containers that were frozen instead, for the sake of their framework.
    pub spared: u64,
}

/// Usage, estimator and QoS controller of one agent.
#[derive(Clone, Debug)]
pub struct Lending {
    total: Quantities,
    meter: Meter,
    estimator: Estimator,
    qos: Controller,
    stale_ms: u64,
    valid_at: Option<Timestamp>,
    duplicates: u32,
    estimate: Estimate,
    told: Quantities,
    counters: Counters,
    keeper: promise::Keeper,
    survival: Survival,
}

impl Lending {
    /// For an agent that has `total` to offer. Lends nothing and holds nothing back yet.
    pub fn new(config: Config, total: Quantities) -> Self {
        Self {
            total,
            meter: Meter::new(config.usage),
            estimator: Estimator::new(config.estimator),
            qos: Controller::new(
                config.qos,
                config.estimator.cpus.reserve_permille,
                config.estimator.network_bandwidth.reserve_permille,
            ),
            stale_ms: config.usage.max_gap_ms,
            valid_at: None,
            duplicates: 0,
            estimate: Estimate::default(),
            told: Quantities::ZERO,
            counters: Counters::default(),
            keeper: promise::Keeper::new(config.promise),
            survival: Survival::new(CONFIDENCE_PERMILLE, config.usage.max_gap_ms),
        }
    }

    /// Takes a sample in, together with every task that runs.
    pub fn on_sample(
        &mut self,
        now: Timestamp,
        sample: &Sample,
        tasks: &[RunningView],
    ) -> LendingOutcome {
        let view = self.meter.push(sample);
        self.duplicates = match view.verdict {
            SampleVerdict::Duplicate => self.duplicates.saturating_add(1),
            _ => 0,
        };
        let corrections = match view.verdict {
            SampleVerdict::Valid => {
                if let Some(before) = self.valid_at.replace(now) {
                    let passed_ms = now.ms_since(before).min(self.stale_ms);
                    self.keeper.watch(passed_ms, &view, tasks, &self.told);
                }
                self.decide(now, &view, tasks)
            }
            SampleVerdict::Duplicate if self.duplicates <= MAX_DUPLICATES => {
                self.estimate.in_use = in_use(tasks);
                Vec::new()
            }
            _ => {
                self.go_blind(now, tasks);
                Vec::new()
            }
        };
        self.outcome(now, &view, tasks, corrections)
    }

    /// Without a sample for longer than a rate may span, nothing is lent any more. Earlier nothing
    /// happens.
    pub fn on_tick(&mut self, now: Timestamp, tasks: &[RunningView]) -> LendingOutcome {
        let stale = self
            .valid_at
            .is_none_or(|at| now.ms_since(at) > self.stale_ms);
        if stale {
            self.go_blind(now, tasks);
        } else {
            self.estimate.in_use = in_use(tasks);
        }
        self.outcome(now, &UsageView::default(), tasks, Vec::new())
    }

    /// Forgets a container; one that is not known is fine.
    pub fn on_container_ended(&mut self, container_id: &ContainerId) {
        self.meter.forget(container_id);
        self.estimator.forget(container_id);
        self.qos.forget(container_id);
    }

    /// What to keep over a restart.
    pub fn past(&self) -> Option<estimator::Past> {
        Some(estimator::Past {
            kinds: self.estimator.kept()?,
            lasted: self.survival.kept(),
        })
    }

    /// Takes up what was kept before a restart.
    ///
    /// # Errors
    /// [`estimator::peaks::kept::Unfit`] if any of it is of no use; then every task is cold, and of no time is known what
    /// lasts.
    pub fn take_up(
        &mut self,
        now: Timestamp,
        past: estimator::Past,
    ) -> Result<(), estimator::peaks::kept::Unfit> {
        let mut survival = self.survival.clone();
        survival.take_up(&past.lasted)?;
        self.estimator.take_up(now, past.kinds)?;
        self.survival = survival;
        Ok(())
    }

    /// What the master was told last to be lent in all.
    pub fn lent(&self) -> Quantities {
        self.told
    }

    /// What was done so far.
    pub fn counters(&self) -> Counters {
        Counters {
            usage: self.meter.counters(),
            ..self.counters
        }
    }

    fn decide(
        &mut self,
        now: Timestamp,
        view: &UsageView,
        tasks: &[RunningView],
    ) -> Vec<Correction> {
        let corrections = self.qos.step(now, view, tasks, &self.total);
        for correction in &corrections {
            self.counters.spared += u64::from(correction.choice.spared);
            match correction.action {
                CorrectionAction::Throttle { .. } => self.counters.throttles += 1,
                CorrectionAction::Freeze => self.counters.freezes += 1,
                CorrectionAction::Release => self.counters.releases += 1,
                CorrectionAction::Evict => self.counters.evictions += 1,
                CorrectionAction::LimitNetwork { .. } => self.counters.network_limits += 1,
                CorrectionAction::ReleaseNetwork => self.counters.network_releases += 1,
                CorrectionAction::ReclaimMemory { .. } => self.counters.memory_reclaims += 1,
                CorrectionAction::ReleaseMemory => self.counters.memory_releases += 1,
            }
        }
        let corrected = corrections.iter().any(|correction| {
            matches!(
                correction.action,
                CorrectionAction::Throttle { .. }
                    | CorrectionAction::Freeze
                    | CorrectionAction::Evict
            )
        });
        self.estimate = self.estimator.step(
            now,
            estimator::Facts {
                usage: Some(view),
                tasks,
                total: &self.total,
                holding_back: corrected || self.qos.taken_back_milli(tasks) > 0,
                limiting_network: self.qos.limits_network(),
                reclaiming_memory: self.qos.reclaims_memory(),
            },
        );
        self.survival.step(now, &self.estimate.lendable);
        corrections
    }

    fn go_blind(&mut self, now: Timestamp, tasks: &[RunningView]) {
        self.counters.blind += 1;
        self.qos.go_blind();
        self.estimate = self.estimator.step(
            now,
            estimator::Facts {
                usage: None,
                tasks,
                total: &self.total,
                holding_back: self.qos.taken_back_milli(tasks) > 0,
                limiting_network: self.qos.limits_network(),
                reclaiming_memory: self.qos.reclaims_memory(),
            },
        );
        self.survival.step(now, &self.estimate.lendable);
    }

    fn outcome(
        &mut self,
        now: Timestamp,
        view: &UsageView,
        tasks: &[RunningView],
        corrections: Vec<Correction>,
    ) -> LendingOutcome {
        let lent = self.estimate.oversubscribed();
        let changed = lent != self.told;
        self.told = lent;
        let machine = &view.machine;
        let usage = AgentUsage {
            at: now,
            machine_cpu_milli: machine.slow_busy_milli.or(machine.fast_busy_milli),
            machine_mem_bytes: machine
                .mem_total_bytes
                .zip(machine.mem_available_bytes)
                .map(|(all, available)| all.saturating_sub(available)),
            cpu_pressure_permille: machine.cpu_pressure_permille,
            mem_pressure_permille: machine.mem_pressure_permille,
            io_pressure_permille: machine.io_pressure_permille,
            sources: Vec::new(),
            lent,
            taken_back_cpu_milli: self.qos.taken_back_milli(tasks),
            tasks: tasks
                .iter()
                .map(|task| self.task_usage(view, task))
                .collect(),
            corrections,
            recent: Vec::new(),
            disturbances: self.qos.disturbances().to_vec(),
            promises: self.keeper.promises(),
            lasting: self.survival.lasting(&self.estimate.lendable),
        };
        LendingOutcome {
            usage,
            oversubscribed: changed.then_some(lent),
            offerable: self.estimate.offerable(),
            verdict: view.verdict,
        }
    }

    fn task_usage(&self, view: &UsageView, task: &RunningView) -> TaskUsage {
        let used = view.containers.get(&task.container_id);
        let hold = self.qos.hold(&task.container_id);
        TaskUsage {
            framework_id: task.framework_id.clone(),
            task_id: task.task_id.clone(),
            container_id: task.container_id.clone(),
            allocated: task.allocated,
            used: used.map(figures).unwrap_or_default(),
            sources: used.map_or(TaskSources::all(MeasureSource::Files), |used| TaskSources {
                cpu: used.cpu_source,
                faults: used.faults_source,
                oom_kills: used.oom_source,
                disk: used.disk_source,
            }),
            throttled_to_milli: hold.throttled_to_milli,
            frozen: hold.frozen,
            network_limited_to_bytes_per_s: hold.network_limited_to_bytes_per_s,
            memory_reclaimed_to_bytes: hold.memory_reclaimed_to_bytes,
        }
    }
}

/// The figures to show: those of the last second, of the last sample while there is no second yet.
fn figures(used: &ContainerUse) -> TaskUsageFigures {
    let (slow, fast) = (&used.slow, &used.fast);
    let memory = &used.memory;
    let shown = |figure: fn(&Rates) -> Option<u64>| figure(slow).or(figure(fast));
    TaskUsageFigures {
        cpu_milli: shown(|rates| rates.cpu_milli),
        cpu_user_milli: shown(|rates| rates.cpu_user_milli),
        cpu_system_milli: shown(|rates| rates.cpu_system_milli),
        throttled_permille: shown(|rates| rates.throttled_permille),
        mem_bytes: used.mem_bytes,
        mem_anon_bytes: memory.anon_bytes,
        mem_file_bytes: memory.file_bytes,
        mem_swap_bytes: memory.swap_bytes,
        mem_peak_bytes: memory.peak_bytes,
        reclaim_permille: shown(|rates| rates.reclaim_permille),
        faults_minor_per_s: shown(|rates| rates.faults_minor_per_s),
        faults_major_per_s: shown(|rates| rates.faults_major_per_s),
        oom_kills: used.oom_kills,
        disk_bytes_per_s: shown(|rates| rates.disk_bytes_per_s),
        disk_read_bytes_per_s: shown(|rates| rates.disk_read_bytes_per_s),
        disk_write_bytes_per_s: shown(|rates| rates.disk_write_bytes_per_s),
        io_mean_ns: shown(|rates| rates.io.mean_ns),
        io_queue_p99_ns: shown(|rates| rates.io.queue_p99_ns),
        io_device_p99_ns: shown(|rates| rates.io.device_p99_ns),
        net_in_bytes_per_s: shown(|rates| rates.net_in_bytes_per_s),
        net_out_bytes_per_s: shown(|rates| rates.net_out_bytes_per_s),
        traffic_in_bytes_per_s: shown(|rates| rates.traffic_in_bytes_per_s),
        traffic_out_bytes_per_s: shown(|rates| rates.traffic_out_bytes_per_s),
        traffic_dropped_per_s: shown(|rates| rates.traffic_dropped_per_s),
        run_queue_wait_ns: shown(|rates| rates.wait_mean_ns),
        run_queue_p99_ns: shown(|rates| rates.wait_p99_ns),
        waiting_milli: shown(|rates| rates.waiting_milli),
        waiting_own_milli: shown(|rates| rates.waiting_own_milli),
        preempted_by_revocable_per_s: shown(|rates| rates.preempted_by_revocable_per_s),
        preempted_by_other_per_s: shown(|rates| rates.preempted_by_other_per_s),
        migrations_per_s: shown(|rates| rates.migrations_per_s),
        forks_per_s: shown(|rates| rates.forks_per_s),
        cpu_pressure_permille: shown(|rates| rates.cpu_pressure_permille),
        mem_pressure_permille: shown(|rates| rates.mem_pressure_permille),
        io_pressure_permille: shown(|rates| rates.io_pressure_permille),
    }
}

/// What revocable tasks hold.
fn in_use(tasks: &[RunningView]) -> Quantities {
    tasks.iter().fold(Quantities::ZERO, |sum, task| {
        sum.saturating_add(&task.allocated.revocable)
    })
}

#[cfg(test)]
mod blame;
#[cfg(test)]
mod faults;
#[cfg(test)]
mod gentle;
#[cfg(test)]
mod network;
#[cfg(test)]
mod readings;
#[cfg(test)]
mod restart;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod world;
