//! What agents measure and did about interference.
//!
//! An entry of a report with a word that is not known here comes from a newer agent. It is left out and the rest counts:
//! to refuse the report would be to refuse the agent, until every machine of a cluster is of one version.

use ebb_types::limits::{
    MAX_DISTURBANCES, MAX_DISTURBERS, MAX_FRAME_BYTES, MAX_GRACE_MS, MAX_RECENT_CORRECTIONS,
};
use ebb_types::{
    AgentUsage, Choice, ChoiceRule, ContainerId, Contended, Correction, CorrectionAction,
    Disturbance, Disturber, FigureSource, FrameworkId, MeasureSource, Promise, Promises, Signal,
    TaskId, TaskSources, TaskUsage, TaskUsageFigures, Timestamp,
};
use proto::correction::Action;

use crate::check::{
    Invalid, bounded, duration_ms, id, optional_id, quantities, required, resources,
    write_quantities, write_resources,
};
use crate::lasting::{lasting, write_lasting};
use crate::proto;

/// More tasks than any frame could hold; a bound of its own keeps the reason in the error.
const MAX_TASKS_PER_REPORT: usize = MAX_FRAME_BYTES / 64;

/// More kinds of figures than any agent measures.
const MAX_SOURCES: usize = 64;

const fn by(ebpf: bool) -> MeasureSource {
    if ebpf {
        MeasureSource::Ebpf
    } else {
        MeasureSource::Files
    }
}

const fn is_ebpf(source: MeasureSource) -> bool {
    matches!(source, MeasureSource::Ebpf)
}

impl TryFrom<proto::FigureSource> for FigureSource {
    type Error = Invalid;

    fn try_from(wire: proto::FigureSource) -> Result<Self, Invalid> {
        Ok(Self {
            figure: wire.figure,
            source: read(&SOURCES, "usage.sources.source", wire.source)?,
            why: wire.why,
        })
    }
}

impl From<FigureSource> for proto::FigureSource {
    fn from(figure: FigureSource) -> Self {
        Self {
            figure: figure.figure,
            source: write(&SOURCES, figure.source),
            why: figure.why,
        }
    }
}

impl TryFrom<proto::TaskUsage> for TaskUsage {
    type Error = Invalid;

    fn try_from(usage: proto::TaskUsage) -> Result<Self, Invalid> {
        Ok(Self {
            framework_id: id("usage.framework_id", &usage.framework_id, |t| {
                FrameworkId::new(t)
            })?,
            task_id: id("usage.task_id", &usage.task_id, |t| TaskId::new(t))?,
            container_id: id("usage.container_id", &usage.container_id, |t| {
                ContainerId::new(t)
            })?,
            allocated: resources("usage.allocated", &usage.allocated)?,
            used: TaskUsageFigures {
                cpu_milli: usage.cpu_milli,
                cpu_user_milli: usage.cpu_user_milli,
                cpu_system_milli: usage.cpu_system_milli,
                throttled_permille: usage.throttled_permille,
                mem_bytes: usage.mem_bytes,
                mem_anon_bytes: usage.mem_anon_bytes,
                mem_file_bytes: usage.mem_file_bytes,
                mem_swap_bytes: usage.mem_swap_bytes,
                mem_peak_bytes: usage.mem_peak_bytes,
                reclaim_permille: usage.reclaim_permille,
                faults_minor_per_s: usage.faults_minor_per_s,
                faults_major_per_s: usage.faults_major_per_s,
                oom_kills: usage.oom_kills,
                disk_bytes_per_s: usage.disk_bytes_per_s,
                disk_read_bytes_per_s: usage.disk_read_bytes_per_s,
                disk_write_bytes_per_s: usage.disk_write_bytes_per_s,
                io_mean_ns: usage.io_mean_ns,
                io_queue_p99_ns: usage.io_queue_p99_ns,
                io_device_p99_ns: usage.io_device_p99_ns,
                net_in_bytes_per_s: usage.net_in_bytes_per_s,
                net_out_bytes_per_s: usage.net_out_bytes_per_s,
                traffic_in_bytes_per_s: usage.traffic_in_bytes_per_s,
                traffic_out_bytes_per_s: usage.traffic_out_bytes_per_s,
                traffic_dropped_per_s: usage.traffic_dropped_per_s,
                run_queue_wait_ns: usage.run_queue_wait_ns,
                run_queue_p99_ns: usage.run_queue_p99_ns,
                waiting_milli: usage.waiting_milli,
                waiting_own_milli: usage.waiting_own_milli,
                preempted_by_revocable_per_s: usage.preempted_by_revocable_per_s,
                preempted_by_other_per_s: usage.preempted_by_other_per_s,
                migrations_per_s: usage.migrations_per_s,
                forks_per_s: usage.forks_per_s,
                cpu_pressure_permille: usage.cpu_pressure_permille,
                mem_pressure_permille: usage.mem_pressure_permille,
                io_pressure_permille: usage.io_pressure_permille,
            },
            sources: TaskSources {
                cpu: by(usage.cpu_by_ebpf),
                faults: by(usage.faults_by_ebpf),
                oom_kills: by(usage.oom_kills_by_ebpf),
                disk: by(usage.disk_by_ebpf),
            },
            throttled_to_milli: usage.throttled_to_milli,
            frozen: usage.frozen,
            network_limited_to_bytes_per_s: usage.network_limited_to_bytes_per_s,
            memory_reclaimed_to_bytes: usage.memory_reclaimed_to_bytes,
        })
    }
}

impl From<TaskUsage> for proto::TaskUsage {
    fn from(usage: TaskUsage) -> Self {
        let (used, sources) = (usage.used, usage.sources);
        Self {
            framework_id: usage.framework_id.to_string(),
            task_id: usage.task_id.to_string(),
            container_id: usage.container_id.to_string(),
            allocated: write_resources(&usage.allocated),
            cpu_milli: used.cpu_milli,
            cpu_user_milli: used.cpu_user_milli,
            cpu_system_milli: used.cpu_system_milli,
            throttled_permille: used.throttled_permille,
            mem_bytes: used.mem_bytes,
            mem_anon_bytes: used.mem_anon_bytes,
            mem_file_bytes: used.mem_file_bytes,
            mem_swap_bytes: used.mem_swap_bytes,
            mem_peak_bytes: used.mem_peak_bytes,
            reclaim_permille: used.reclaim_permille,
            faults_minor_per_s: used.faults_minor_per_s,
            faults_major_per_s: used.faults_major_per_s,
            oom_kills: used.oom_kills,
            disk_bytes_per_s: used.disk_bytes_per_s,
            disk_read_bytes_per_s: used.disk_read_bytes_per_s,
            disk_write_bytes_per_s: used.disk_write_bytes_per_s,
            io_mean_ns: used.io_mean_ns,
            io_queue_p99_ns: used.io_queue_p99_ns,
            io_device_p99_ns: used.io_device_p99_ns,
            net_in_bytes_per_s: used.net_in_bytes_per_s,
            net_out_bytes_per_s: used.net_out_bytes_per_s,
            traffic_in_bytes_per_s: used.traffic_in_bytes_per_s,
            traffic_out_bytes_per_s: used.traffic_out_bytes_per_s,
            traffic_dropped_per_s: used.traffic_dropped_per_s,
            run_queue_wait_ns: used.run_queue_wait_ns,
            run_queue_p99_ns: used.run_queue_p99_ns,
            waiting_milli: used.waiting_milli,
            waiting_own_milli: used.waiting_own_milli,
            preempted_by_revocable_per_s: used.preempted_by_revocable_per_s,
            preempted_by_other_per_s: used.preempted_by_other_per_s,
            migrations_per_s: used.migrations_per_s,
            forks_per_s: used.forks_per_s,
            cpu_pressure_permille: used.cpu_pressure_permille,
            mem_pressure_permille: used.mem_pressure_permille,
            io_pressure_permille: used.io_pressure_permille,
            cpu_by_ebpf: is_ebpf(sources.cpu),
            faults_by_ebpf: is_ebpf(sources.faults),
            oom_kills_by_ebpf: is_ebpf(sources.oom_kills),
            disk_by_ebpf: is_ebpf(sources.disk),
            throttled_to_milli: usage.throttled_to_milli,
            frozen: usage.frozen,
            network_limited_to_bytes_per_s: usage.network_limited_to_bytes_per_s,
            memory_reclaimed_to_bytes: usage.memory_reclaimed_to_bytes,
        }
    }
}

const SOURCES: [(Option<MeasureSource>, proto::MeasureSource); 3] = [
    (None, proto::MeasureSource::None),
    (Some(MeasureSource::Ebpf), proto::MeasureSource::Ebpf),
    (Some(MeasureSource::Files), proto::MeasureSource::Files),
];

const SIGNALS: [(Signal, proto::Signal); 7] = [
    (Signal::RunQueueLatency, proto::Signal::RunQueueLatency),
    (
        Signal::PreemptedByRevocable,
        proto::Signal::PreemptedByRevocable,
    ),
    (Signal::MachineCpu, proto::Signal::MachineCpu),
    (Signal::MachineMemory, proto::Signal::MachineMemory),
    (Signal::MemoryStall, proto::Signal::MemoryStall),
    (Signal::DiskLatency, proto::Signal::DiskLatency),
    (Signal::MachineNetwork, proto::Signal::MachineNetwork),
];

const RULES: [(ChoiceRule, proto::ChoiceRule); 6] = [
    (ChoiceRule::MostCpu, proto::ChoiceRule::MostCpu),
    (ChoiceRule::MostMemory, proto::ChoiceRule::MostMemory),
    (ChoiceRule::MostDisk, proto::ChoiceRule::MostDisk),
    (ChoiceRule::MostNetwork, proto::ChoiceRule::MostNetwork),
    (ChoiceRule::HeldHardest, proto::ChoiceRule::HeldHardest),
    (ChoiceRule::NotEnded, proto::ChoiceRule::NotEnded),
];

const CONTENDED: [(Contended, proto::Contended); 3] = [
    (Contended::Cpu, proto::Contended::Cpu),
    (Contended::Memory, proto::Contended::Memory),
    (Contended::Disk, proto::Contended::Disk),
];

/// The word for a number of the wire, by one of the tables above.
fn read<T: Copy, W: Copy + Into<i32>>(
    table: &[(T, W)],
    field: &'static str,
    number: i32,
) -> Result<T, Invalid> {
    let found = table.iter().find(|(_, wire)| (*wire).into() == number);
    found
        .map(|(word, _)| *word)
        .ok_or_else(|| Invalid::new(field, format!("is {number}, which is not known")))
}

/// Whether a number is of a word that a newer version has added.
fn is_newer<T, W: Copy + Into<i32>>(table: &[(T, W)], number: i32) -> bool {
    table.iter().all(|(_, wire)| number > (*wire).into())
}

/// The number of a word; 0 for one that is in no table, which nobody reads.
fn write<T: Copy + PartialEq, W: Copy + Into<i32>>(table: &[(T, W)], word: T) -> i32 {
    let found = table.iter().find(|(one, _)| *one == word);
    found.map_or(0, |(_, wire)| (*wire).into())
}

impl TryFrom<proto::Choice> for Choice {
    type Error = Invalid;

    fn try_from(choice: proto::Choice) -> Result<Self, Invalid> {
        Ok(Self {
            rule: read(&RULES, "correction.choice.rule", choice.rule)?,
            amount: choice.amount,
            rank: choice.rank,
            candidates: choice.candidates,
            spared: choice.spared,
        })
    }
}

impl From<Choice> for proto::Choice {
    fn from(choice: Choice) -> Self {
        Self {
            rule: write(&RULES, choice.rule),
            amount: choice.amount,
            rank: choice.rank,
            candidates: choice.candidates,
            spared: choice.spared,
        }
    }
}

impl TryFrom<proto::Disturber> for Disturber {
    type Error = Invalid;

    fn try_from(by: proto::Disturber) -> Result<Self, Invalid> {
        Ok(Self {
            framework_id: id("disturber.framework_id", &by.framework_id, |t| {
                FrameworkId::new(t)
            })?,
            task_id: id("disturber.task_id", &by.task_id, |t| TaskId::new(t))?,
            container_id: id("disturber.container_id", &by.container_id, |t| {
                ContainerId::new(t)
            })?,
            revocable: by.revocable,
            share_permille: by.share_permille,
        })
    }
}

impl From<Disturber> for proto::Disturber {
    fn from(by: Disturber) -> Self {
        Self {
            framework_id: by.framework_id.to_string(),
            task_id: by.task_id.to_string(),
            container_id: by.container_id.to_string(),
            revocable: by.revocable,
            share_permille: by.share_permille,
        }
    }
}

impl TryFrom<proto::Disturbance> for Disturbance {
    type Error = Invalid;

    fn try_from(one: proto::Disturbance) -> Result<Self, Invalid> {
        bounded("disturbance.by", one.by.len(), MAX_DISTURBERS)?;
        Ok(Self {
            framework_id: id("disturbance.framework_id", &one.framework_id, |t| {
                FrameworkId::new(t)
            })?,
            task_id: id("disturbance.task_id", &one.task_id, |t| TaskId::new(t))?,
            container_id: id("disturbance.container_id", &one.container_id, |t| {
                ContainerId::new(t)
            })?,
            resource: read(&CONTENDED, "disturbance.resource", one.resource)?,
            signal: read(&SIGNALS, "disturbance.signal", one.signal)?,
            value: one.value,
            baseline: one.baseline,
            threshold: one.threshold,
            since: Timestamp::from_ms(one.since_ms),
            by: one
                .by
                .into_iter()
                .map(Disturber::try_from)
                .collect::<Result<_, _>>()?,
        })
    }
}

impl From<Disturbance> for proto::Disturbance {
    fn from(one: Disturbance) -> Self {
        Self {
            framework_id: one.framework_id.to_string(),
            task_id: one.task_id.to_string(),
            container_id: one.container_id.to_string(),
            resource: write(&CONTENDED, one.resource),
            signal: write(&SIGNALS, one.signal),
            value: one.value,
            baseline: one.baseline,
            threshold: one.threshold,
            since_ms: one.since.as_ms(),
            by: one.by.into_iter().map(Into::into).collect(),
        }
    }
}

/// A promise that nothing is said of has not been watched.
fn promises(wire: Option<proto::Promises>) -> Promises {
    let wire = wire.unwrap_or_default();
    let one = |promise: Option<proto::Promise>| {
        let promise = promise.unwrap_or_default();
        Promise {
            watched_ms: promise.watched_ms,
            broken_ms: promise.broken_ms,
        }
    };
    Promises {
        cpu: one(wire.cpu),
        mem: one(wire.mem),
        budget_ppm: wire.budget_ppm,
    }
}

fn write_promises(promises: &Promises) -> proto::Promises {
    let one = |promise: &Promise| proto::Promise {
        watched_ms: promise.watched_ms,
        broken_ms: promise.broken_ms,
    };
    proto::Promises {
        cpu: Some(one(&promises.cpu)),
        mem: Some(one(&promises.mem)),
        budget_ppm: promises.budget_ppm,
    }
}

fn corrections(wire: Vec<proto::Correction>) -> Result<Vec<Correction>, Invalid> {
    let is_known = |one: &proto::Correction| {
        let rule = one.choice.as_ref().map(|choice| choice.rule);
        let is_newer = is_newer(&SIGNALS, one.signal)
            || rule.is_some_and(|rule| is_newer(&RULES, rule))
            || one.action.is_none();
        !is_newer
    };
    let known = wire.into_iter().filter(is_known);
    known.map(Correction::try_from).collect()
}

fn disturbances(wire: Vec<proto::Disturbance>) -> Result<Vec<Disturbance>, Invalid> {
    let is_known = |one: &proto::Disturbance| {
        !is_newer(&CONTENDED, one.resource) && !is_newer(&SIGNALS, one.signal)
    };
    let known = wire.into_iter().filter(is_known);
    known.map(Disturbance::try_from).collect()
}

fn sources(wire: Vec<proto::FigureSource>) -> Result<Vec<FigureSource>, Invalid> {
    let known = wire
        .into_iter()
        .filter(|one| !is_newer(&SOURCES, one.source));
    known.map(FigureSource::try_from).collect()
}

impl TryFrom<proto::Correction> for Correction {
    type Error = Invalid;

    fn try_from(correction: proto::Correction) -> Result<Self, Invalid> {
        let signal = read(&SIGNALS, "correction.signal", correction.signal)?;
        Ok(Self {
            at: Timestamp::from_ms(correction.at_ms),
            container_id: id("correction.container_id", &correction.container_id, |t| {
                ContainerId::new(t)
            })?,
            task_id: id("correction.task_id", &correction.task_id, |t| {
                TaskId::new(t)
            })?,
            framework_id: id("correction.framework_id", &correction.framework_id, |t| {
                FrameworkId::new(t)
            })?,
            action: match required("correction.action", correction.action)? {
                Action::ThrottleToMilli(cpu_milli) => CorrectionAction::Throttle { cpu_milli },
                Action::Freeze(_) => CorrectionAction::Freeze,
                Action::Release(_) => CorrectionAction::Release,
                Action::Evict(_) => CorrectionAction::Evict,
                Action::LimitNetworkToBytesPerS(bytes_per_s) => {
                    CorrectionAction::LimitNetwork { bytes_per_s }
                }
                Action::ReleaseNetwork(_) => CorrectionAction::ReleaseNetwork,
                Action::ReclaimMemoryToBytes(to_bytes) => {
                    CorrectionAction::ReclaimMemory { to_bytes }
                }
                Action::ReleaseMemory(_) => CorrectionAction::ReleaseMemory,
            },
            signal,
            on_behalf_of: optional_id("correction.on_behalf_of", &correction.on_behalf_of, |t| {
                TaskId::new(t)
            })?,
            value: correction.value,
            threshold: correction.threshold,
            baseline: correction.baseline,
            duration_ms: correction.duration_ms,
            choice: required("correction.choice", correction.choice)?.try_into()?,
            grace_ms: duration_ms("correction.grace_ms", correction.grace_ms, MAX_GRACE_MS)?,
        })
    }
}

impl From<Correction> for proto::Correction {
    fn from(correction: Correction) -> Self {
        Self {
            at_ms: correction.at.as_ms(),
            container_id: correction.container_id.to_string(),
            task_id: correction.task_id.to_string(),
            framework_id: correction.framework_id.to_string(),
            action: Some(match correction.action {
                CorrectionAction::Throttle { cpu_milli } => Action::ThrottleToMilli(cpu_milli),
                CorrectionAction::Freeze => Action::Freeze(proto::Empty {}),
                CorrectionAction::Release => Action::Release(proto::Empty {}),
                CorrectionAction::Evict => Action::Evict(proto::Empty {}),
                CorrectionAction::LimitNetwork { bytes_per_s } => {
                    Action::LimitNetworkToBytesPerS(bytes_per_s)
                }
                CorrectionAction::ReleaseNetwork => Action::ReleaseNetwork(proto::Empty {}),
                CorrectionAction::ReclaimMemory { to_bytes } => {
                    Action::ReclaimMemoryToBytes(to_bytes)
                }
                CorrectionAction::ReleaseMemory => Action::ReleaseMemory(proto::Empty {}),
            }),
            signal: write(&SIGNALS, correction.signal),
            on_behalf_of: correction
                .on_behalf_of
                .map(|id| id.to_string())
                .unwrap_or_default(),
            value: correction.value,
            threshold: correction.threshold,
            baseline: correction.baseline,
            duration_ms: correction.duration_ms,
            choice: Some(correction.choice.into()),
            grace_ms: correction.grace_ms,
        }
    }
}

impl TryFrom<proto::AgentUsage> for AgentUsage {
    type Error = Invalid;

    fn try_from(usage: proto::AgentUsage) -> Result<Self, Invalid> {
        bounded("usage.tasks", usage.tasks.len(), MAX_TASKS_PER_REPORT)?;
        bounded(
            "usage.corrections",
            usage.corrections.len(),
            MAX_TASKS_PER_REPORT,
        )?;
        bounded("usage.sources", usage.sources.len(), MAX_SOURCES)?;
        bounded("usage.recent", usage.recent.len(), MAX_RECENT_CORRECTIONS)?;
        bounded(
            "usage.disturbances",
            usage.disturbances.len(),
            MAX_DISTURBANCES,
        )?;
        Ok(Self {
            at: Timestamp::from_ms(usage.at_ms),
            machine_cpu_milli: usage.machine_cpu_milli,
            machine_mem_bytes: usage.machine_mem_bytes,
            cpu_pressure_permille: usage.cpu_pressure_permille,
            mem_pressure_permille: usage.mem_pressure_permille,
            io_pressure_permille: usage.io_pressure_permille,
            sources: sources(usage.sources)?,
            lent: quantities("usage.lent", &usage.lent)?,
            taken_back_cpu_milli: usage.taken_back_cpu_milli,
            tasks: usage
                .tasks
                .into_iter()
                .map(TaskUsage::try_from)
                .collect::<Result<_, _>>()?,
            corrections: corrections(usage.corrections)?,
            recent: corrections(usage.recent)?,
            disturbances: disturbances(usage.disturbances)?,
            promises: promises(usage.promises),
            lasting: lasting("usage.lasting", usage.lasting)?,
        })
    }
}

impl From<AgentUsage> for proto::AgentUsage {
    fn from(usage: AgentUsage) -> Self {
        Self {
            at_ms: usage.at.as_ms(),
            machine_cpu_milli: usage.machine_cpu_milli,
            machine_mem_bytes: usage.machine_mem_bytes,
            cpu_pressure_permille: usage.cpu_pressure_permille,
            mem_pressure_permille: usage.mem_pressure_permille,
            io_pressure_permille: usage.io_pressure_permille,
            sources: usage.sources.into_iter().map(Into::into).collect(),
            lent: write_quantities(&usage.lent, false),
            taken_back_cpu_milli: usage.taken_back_cpu_milli,
            tasks: usage.tasks.into_iter().map(Into::into).collect(),
            corrections: usage.corrections.into_iter().map(Into::into).collect(),
            recent: usage.recent.into_iter().map(Into::into).collect(),
            disturbances: usage.disturbances.into_iter().map(Into::into).collect(),
            promises: Some(write_promises(&usage.promises)),
            lasting: write_lasting(&usage.lasting),
        }
    }
}
