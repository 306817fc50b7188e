//! What is measured, as JSON. A figure that was not measured is null; each says its source, or its kind stands in the
//! agent's `sources`.

use ebb_types::{AgentUsage, FigureSource, Lasting, MeasureSource, Promise, TaskUsage};
use serde::Serialize;

use super::{CorrectionJson, DisturbanceJson, QuantitiesJson, ResourcesJson};

/// What a task uses.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct TaskUsageJson {
    framework_id: String,
    task_id: String,
    container_id: String,
    allocated: ResourcesJson,
    cpu_milli: Option<u64>,
    cpu_user_milli: Option<u64>,
    cpu_system_milli: Option<u64>,
    throttled_permille: Option<u64>,
    mem_bytes: Option<u64>,
    mem_anon_bytes: Option<u64>,
    mem_file_bytes: Option<u64>,
    mem_swap_bytes: Option<u64>,
    mem_peak_bytes: Option<u64>,
    reclaim_permille: Option<u64>,
    faults_minor_per_s: Option<u64>,
    faults_major_per_s: Option<u64>,
    oom_kills: Option<u64>,
    disk_bytes_per_s: Option<u64>,
    disk_read_bytes_per_s: Option<u64>,
    disk_write_bytes_per_s: Option<u64>,
    io_mean_ns: Option<u64>,
    io_queue_p99_ns: Option<u64>,
    io_device_p99_ns: Option<u64>,
    net_in_bytes_per_s: Option<u64>,
    net_out_bytes_per_s: Option<u64>,
    traffic_in_bytes_per_s: Option<u64>,
    traffic_out_bytes_per_s: Option<u64>,
    traffic_dropped_per_s: Option<u64>,
    run_queue_wait_ns: Option<u64>,
    run_queue_p99_ns: Option<u64>,
    waiting_milli: Option<u64>,
    waiting_own_milli: Option<u64>,
    preempted_by_revocable_per_s: Option<u64>,
    preempted_by_other_per_s: Option<u64>,
    migrations_per_s: Option<u64>,
    forks_per_s: Option<u64>,
    cpu_pressure_permille: Option<u64>,
    mem_pressure_permille: Option<u64>,
    io_pressure_permille: Option<u64>,
    cpu_source: &'static str,
    faults_source: &'static str,
    oom_kills_source: &'static str,
    disk_source: &'static str,
    throttled_to_milli: Option<u64>,
    frozen: bool,
    network_limited_to_bytes_per_s: Option<u64>,
    memory_reclaimed_to_bytes: Option<u64>,
}

impl From<&TaskUsage> for TaskUsageJson {
    fn from(usage: &TaskUsage) -> Self {
        let (used, sources) = (&usage.used, &usage.sources);
        Self {
            framework_id: usage.framework_id.to_string(),
            task_id: usage.task_id.to_string(),
            container_id: usage.container_id.to_string(),
            allocated: (&usage.allocated).into(),
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
            cpu_source: sources.cpu.name(),
            faults_source: sources.faults.name(),
            oom_kills_source: sources.oom_kills.name(),
            disk_source: sources.disk.name(),
            throttled_to_milli: usage.throttled_to_milli,
            frozen: usage.frozen,
            network_limited_to_bytes_per_s: usage.network_limited_to_bytes_per_s,
            memory_reclaimed_to_bytes: usage.memory_reclaimed_to_bytes,
        }
    }
}

/// Where an agent measures one kind of figure.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct FigureSourceJson {
    figure: String,
    /// Null if it is not measured.
    source: Option<&'static str>,
    why: String,
}

impl From<&FigureSource> for FigureSourceJson {
    fn from(figure: &FigureSource) -> Self {
        Self {
            figure: figure.figure.clone(),
            source: figure.source.map(MeasureSource::name),
            why: figure.why.clone(),
        }
    }
}

/// An agent's last report.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct AgentUsageJson {
    at_ms: u64,
    machine_cpu_milli: Option<u64>,
    machine_mem_bytes: Option<u64>,
    cpu_pressure_permille: Option<u64>,
    mem_pressure_permille: Option<u64>,
    io_pressure_permille: Option<u64>,
    lent: QuantitiesJson,
    taken_back_cpu_milli: u64,
    sources: Vec<FigureSourceJson>,
    tasks: Vec<TaskUsageJson>,
    corrections: Vec<CorrectionJson>,
    recent: Vec<CorrectionJson>,
    disturbances: Vec<DisturbanceJson>,
    promises: PromisesJson,
    lasting: LastingJson,
}

/// How well one kind of resource was kept for its owners while part of it was lent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct PromiseJson {
    watched_ms: u64,
    broken_ms: u64,
    /// Null while nothing was lent.
    broken_ppm: Option<u64>,
}

impl From<&Promise> for PromiseJson {
    fn from(promise: &Promise) -> Self {
        Self {
            watched_ms: promise.watched_ms,
            broken_ms: promise.broken_ms,
            broken_ppm: promise.broken_ppm(),
        }
    }
}

/// What an agent keeps of its promise to those whose resources it lends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct PromisesJson {
    cpu: PromiseJson,
    mem: PromiseJson,
    budget_ppm: u64,
}

/// How much of what is lent stays lent for how long.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct LastingJson {
    confidence_permille: u64,
    /// Empty where nothing is known.
    points: Vec<LastingPointJson>,
}

/// What stays for one time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct LastingPointJson {
    time_ms: u64,
    amount: QuantitiesJson,
}

impl From<&Lasting> for LastingJson {
    fn from(lasting: &Lasting) -> Self {
        let points = lasting.points.iter().map(|point| LastingPointJson {
            time_ms: point.time_ms,
            amount: (&point.amount).into(),
        });
        Self {
            confidence_permille: lasting.confidence_permille,
            points: points.collect(),
        }
    }
}

impl From<&AgentUsage> for AgentUsageJson {
    fn from(usage: &AgentUsage) -> Self {
        Self {
            at_ms: usage.at.as_ms(),
            machine_cpu_milli: usage.machine_cpu_milli,
            machine_mem_bytes: usage.machine_mem_bytes,
            cpu_pressure_permille: usage.cpu_pressure_permille,
            mem_pressure_permille: usage.mem_pressure_permille,
            io_pressure_permille: usage.io_pressure_permille,
            lent: (&usage.lent).into(),
            taken_back_cpu_milli: usage.taken_back_cpu_milli,
            sources: usage.sources.iter().map(Into::into).collect(),
            tasks: usage.tasks.iter().map(Into::into).collect(),
            corrections: usage.corrections.iter().map(Into::into).collect(),
            recent: usage.recent.iter().map(Into::into).collect(),
            disturbances: usage.disturbances.iter().map(Into::into).collect(),
            promises: PromisesJson {
                cpu: (&usage.promises.cpu).into(),
                mem: (&usage.promises.mem).into(),
                budget_ppm: usage.promises.budget_ppm,
            },
            lasting: (&usage.lasting).into(),
        }
    }
}
