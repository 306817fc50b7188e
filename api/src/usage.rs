//! What agents measure and did about interference.

use ebb_types::limits::MAX_FRAME_BYTES;
use ebb_types::{
    AgentUsage, ContainerId, Correction, CorrectionAction, FrameworkId, MeasureSource, Signal,
    TaskId, TaskUsage, TaskUsageFigures, Timestamp,
};
use proto::correction::Action;

use crate::check::{
    Invalid, bounded, id, optional_id, quantities, required, resources, write_quantities,
    write_resources,
};
use crate::proto;

/// More tasks than any frame could hold; a bound of its own keeps the reason in the error.
const MAX_TASKS_PER_REPORT: usize = MAX_FRAME_BYTES / 64;

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
                mem_bytes: usage.mem_bytes,
                disk_bytes_per_s: usage.disk_bytes_per_s,
                run_queue_wait_ns: usage.run_queue_wait_ns,
                run_queue_p99_ns: usage.run_queue_p99_ns,
                preempted_by_revocable_per_s: usage.preempted_by_revocable_per_s,
            },
            cpu_source: if usage.cpu_by_ebpf {
                MeasureSource::Ebpf
            } else {
                MeasureSource::Files
            },
            throttled_to_milli: usage.throttled_to_milli,
            frozen: usage.frozen,
        })
    }
}

impl From<TaskUsage> for proto::TaskUsage {
    fn from(usage: TaskUsage) -> Self {
        Self {
            framework_id: usage.framework_id.to_string(),
            task_id: usage.task_id.to_string(),
            container_id: usage.container_id.to_string(),
            allocated: write_resources(&usage.allocated),
            cpu_milli: usage.used.cpu_milli,
            mem_bytes: usage.used.mem_bytes,
            disk_bytes_per_s: usage.used.disk_bytes_per_s,
            run_queue_wait_ns: usage.used.run_queue_wait_ns,
            run_queue_p99_ns: usage.used.run_queue_p99_ns,
            preempted_by_revocable_per_s: usage.used.preempted_by_revocable_per_s,
            cpu_by_ebpf: usage.cpu_source == MeasureSource::Ebpf,
            throttled_to_milli: usage.throttled_to_milli,
            frozen: usage.frozen,
        }
    }
}

const SIGNALS: [(Signal, proto::Signal); 4] = [
    (Signal::RunQueueLatency, proto::Signal::RunQueueLatency),
    (
        Signal::PreemptedByRevocable,
        proto::Signal::PreemptedByRevocable,
    ),
    (Signal::MachineCpu, proto::Signal::MachineCpu),
    (Signal::MachineMemory, proto::Signal::MachineMemory),
];

impl TryFrom<proto::Correction> for Correction {
    type Error = Invalid;

    fn try_from(correction: proto::Correction) -> Result<Self, Invalid> {
        let signal = SIGNALS
            .into_iter()
            .find(|(_, wire)| *wire as i32 == correction.signal);
        let Some((signal, _)) = signal else {
            return Err(Invalid::new(
                "correction.signal",
                format!("is {}, which is no signal", correction.signal),
            ));
        };
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
            },
            signal,
            on_behalf_of: optional_id("correction.on_behalf_of", &correction.on_behalf_of, |t| {
                TaskId::new(t)
            })?,
            value: correction.value,
            threshold: correction.threshold,
            duration_ms: correction.duration_ms,
        })
    }
}

impl From<Correction> for proto::Correction {
    fn from(correction: Correction) -> Self {
        let signal = SIGNALS
            .into_iter()
            .find(|(signal, _)| *signal == correction.signal);
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
            }),
            signal: signal.map_or(0, |(_, wire)| wire as i32),
            on_behalf_of: correction
                .on_behalf_of
                .map(|id| id.to_string())
                .unwrap_or_default(),
            value: correction.value,
            threshold: correction.threshold,
            duration_ms: correction.duration_ms,
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
        Ok(Self {
            at: Timestamp::from_ms(usage.at_ms),
            machine_cpu_milli: usage.machine_cpu_milli,
            machine_mem_bytes: usage.machine_mem_bytes,
            lent: quantities("usage.lent", &usage.lent)?,
            taken_back_cpu_milli: usage.taken_back_cpu_milli,
            tasks: usage
                .tasks
                .into_iter()
                .map(TaskUsage::try_from)
                .collect::<Result<_, _>>()?,
            corrections: usage
                .corrections
                .into_iter()
                .map(Correction::try_from)
                .collect::<Result<_, _>>()?,
        })
    }
}

impl From<AgentUsage> for proto::AgentUsage {
    fn from(usage: AgentUsage) -> Self {
        Self {
            at_ms: usage.at.as_ms(),
            machine_cpu_milli: usage.machine_cpu_milli,
            machine_mem_bytes: usage.machine_mem_bytes,
            lent: write_quantities(&usage.lent, false),
            taken_back_cpu_milli: usage.taken_back_cpu_milli,
            tasks: usage.tasks.into_iter().map(Into::into).collect(),
            corrections: usage.corrections.into_iter().map(Into::into).collect(),
        }
    }
}
