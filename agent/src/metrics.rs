//! Everything that the agent counts and shows at `/metrics`, in one table.
//!
//! Each agent has a recorder of its own and never the process-wide one, so that a master and several
//! agents in one process do not mix. Labels come from small closed sets (states, resources, actions,
//! signals, figures); the only open one, the framework, is bounded by [`MAX_FRAMEWORK_SERIES`]. There
//! are no task ids in labels.

use std::collections::BTreeMap;
use std::time::Duration;

use ebb_types::{
    Contended, Correction, CorrectionAction, Disturbance, FrameworkId, Quantities, ResourceKind,
    Signal, TaskState, TaskUsageFigures,
};
use metrics::{Key, KeyName, Label, Level, Metadata, Recorder, SharedString, Unit};
use metrics_exporter_prometheus::{
    Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder,
};
use metrics_util::MetricKindMask;

use crate::core::Core;
use crate::core::estimator::LENT_KINDS;
use crate::sampling::SamplerView;

/// Most frameworks that have series of their own; the rest are summed up as `other`.
pub const MAX_FRAMEWORK_SERIES: usize = 200;
/// A gauge that was not set for so long is no longer shown: its framework is gone.
const GAUGE_IDLE: Duration = Duration::from_secs(30);
/// Upper bounds of the histograms of times, in seconds.
const SECONDS_BUCKETS: [f64; 14] = [
    0.000_1, 0.000_3, 0.001, 0.003, 0.005, 0.01, 0.02, 0.05, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0,
];

/// What a correction can be.
const CORRECTION_ACTIONS: [&str; 8] = [
    CorrectionAction::Throttle { cpu_milli: 0 }.name(),
    CorrectionAction::Freeze.name(),
    CorrectionAction::Release.name(),
    CorrectionAction::Evict.name(),
    CorrectionAction::LimitNetwork { bytes_per_s: 0 }.name(),
    CorrectionAction::ReleaseNetwork.name(),
    CorrectionAction::ReclaimMemory { to_bytes: 0 }.name(),
    CorrectionAction::ReleaseMemory.name(),
];

/// Who disturbs a task.
const DISTURBERS: [&str; 3] = ["revocable", "owner", "outside"];

/// The worst of those that disturb a task.
fn disturber(one: &Disturbance) -> &'static str {
    let [revocable, owner, outside] = DISTURBERS;
    match one.by.first() {
        Some(by) if by.revocable => revocable,
        Some(_) => owner,
        None => outside,
    }
}

/// What kind of figure a metric is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only rises.
    Counter,
    /// Is read anew.
    Gauge,
    /// A distribution.
    Histogram,
}

/// One metric.
#[derive(Clone, Copy, Debug)]
pub struct Metric {
    /// Its name.
    pub name: &'static str,
    /// Its kind.
    pub kind: Kind,
    /// What it says, and in which unit.
    pub help: &'static str,
}

macro_rules! table {
    ($($constant:ident = $kind:ident $name:literal, $help:literal;)*) => {
        $(const $constant: Metric = Metric { name: $name, kind: Kind::$kind, help: $help };)*

        /// Every metric of the agent.
        pub const TABLE: &[Metric] = &[$($constant,)*];
    };
}

table! {
    REGISTERED = Gauge "ebb_agent_registered",
        "1 while the master has answered the registration over the present connection.";
    CONNECTIONS = Counter "ebb_agent_master_connections_total",
        "Connections to a master that stood.";
    TASKS = Gauge "ebb_agent_tasks",
        "Tasks that the agent knows, by state; ended ones until their end is acknowledged.";
    LAUNCH_SECONDS = Histogram "ebb_agent_launch_seconds",
        "Time from the order of a launch to the program's first instruction.";
    LAUNCHES_REFUSED = Counter "ebb_agent_launches_refused_total",
        "Launches that were answered with a terminal status at once.";
    LAUNCHES_DUPLICATE = Counter "ebb_agent_launches_duplicate_total",
        "Launches of tasks that were known already, which were ignored.";
    ADOPTED = Counter "ebb_agent_tasks_adopted_total",
        "Containers that were found running after a restart and taken over.";
    ORPHANS = Counter "ebb_agent_orphans_total",
        "Containers that were found and belong to no known task.";
    RESOURCE_TOTAL = Gauge "ebb_agent_resource_total",
        "What the agent has: cpus in thousandths of a core, the others in bytes or bytes a second.";
    RESOURCE_ALLOCATED = Gauge "ebb_agent_resource_allocated",
        "What live tasks and executors are allocated, in the units of ebb_agent_resource_total.";
    RESOURCE_LENT = Gauge "ebb_agent_resource_lent",
        "What is lent in all as revocable, in use and not, in the units of ebb_agent_resource_total.";
    MACHINE_CPU = Gauge "ebb_agent_machine_cpu_used_milli",
        "CPU in use on the whole machine, in thousandths of a core.";
    MACHINE_MEM = Gauge "ebb_agent_machine_mem_used_bytes",
        "Memory in use on the whole machine, in bytes.";
    MACHINE_CPUS = Gauge "ebb_agent_machine_cpus",
        "CPUs that are online; from /proc/stat.";
    MACHINE_PRESSURE = Gauge "ebb_agent_machine_pressure_permille",
        "Time that at least one thread of the machine waited for a resource (PSI), in thousandths of the time passed; from /proc/pressure.";
    FRAMEWORK_CPU_ALLOCATED = Gauge "ebb_agent_framework_cpu_allocated_milli",
        "CPU allocated to a framework's tasks, in thousandths of a core.";
    FRAMEWORK_CPU_USED = Gauge "ebb_agent_framework_cpu_used_milli",
        "CPU used by a framework's tasks, in thousandths of a core; source: figure on_cpu of ebb_agent_measure_source.";
    FRAMEWORK_MEM_USED = Gauge "ebb_agent_framework_mem_used_bytes",
        "Memory used by a framework's tasks, in bytes; from the memory controller's files.";
    FRAMEWORK_RUN_QUEUE_P99 = Gauge "ebb_agent_framework_run_queue_p99_ns",
        "99th percentile of the time from runnable to running, without what a task's own CPU quota made of it, of the framework's task that waits longest, in nanoseconds; from the probes.";
    FRAMEWORK_RECLAIM = Gauge "ebb_agent_framework_reclaim_permille",
        "Time for which a framework's tasks freed memory before they got some, summed over their threads, in thousandths of the time passed; from the probes.";
    FRAMEWORK_IO_QUEUE_P99 = Gauge "ebb_agent_framework_io_queue_p99_ns",
        "99th percentile of the time of disk requests in the kernel's queue, of the framework's slowest task, in nanoseconds; from the probes.";
    FRAMEWORK_IO_DEVICE_P99 = Gauge "ebb_agent_framework_io_device_p99_ns",
        "99th percentile of the time of disk requests in the device, of the framework's slowest task, in nanoseconds; from the probes.";
    FRAMEWORK_CPU_TOTAL = Counter "ebb_agent_framework_cpu_ns_total",
        "CPU time that a framework's containers have used, ended ones included, in nanoseconds; source: figure on_cpu of ebb_agent_measure_source.";
    FRAMEWORK_DISK_READ = Counter "ebb_agent_framework_disk_read_bytes_total",
        "Bytes that a framework's containers have read from block devices, ended ones included; source: figure disk of ebb_agent_measure_source.";
    FRAMEWORK_DISK_WRITTEN = Counter "ebb_agent_framework_disk_written_bytes_total",
        "Bytes that were written to block devices for a framework's containers, ended ones and later writeback included; source: figure disk of ebb_agent_measure_source.";
    FRAMEWORK_NET_IN = Counter "ebb_agent_framework_net_in_bytes_total",
        "Bytes of IP packets that a framework's containers have received, ended ones included; from the probes.";
    FRAMEWORK_NET_OUT = Counter "ebb_agent_framework_net_out_bytes_total",
        "Bytes of IP packets that a framework's containers have sent, ended ones included; from the probes.";
    FRAMEWORK_TRAFFIC_IN = Counter "ebb_agent_framework_traffic_in_bytes_total",
        "The part of what a framework's containers have received that came through network devices other than loopback, in bytes; from the probes.";
    FRAMEWORK_TRAFFIC_OUT = Counter "ebb_agent_framework_traffic_out_bytes_total",
        "The part of what a framework's containers have sent that went through network devices other than loopback, in bytes; from the probes.";
    FRAMEWORK_PACKETS_DROPPED = Counter "ebb_agent_framework_dropped_packets_total",
        "Packets of a framework's containers that were dropped for exceeding their network bandwidth; from the probes.";
    FRAMEWORK_OOM_KILLS = Counter "ebb_agent_framework_oom_kills_total",
        "Processes of a framework's containers that were killed for want of memory; source: figure oom_kills of ebb_agent_measure_source.";
    FRAMEWORK_FORKS = Counter "ebb_agent_framework_forks_total",
        "Processes that a framework's containers have made, ended ones included; from the probes.";
    OOM_KILLS_OUTSIDE = Counter "ebb_agent_oom_kills_outside_total",
        "Processes outside of every container that were killed for want of memory; from the probes.";
    ACCOUNT_FAULTS = Counter "ebb_agent_account_faults_total",
        "Containers that the totals of frameworks lack, by fault: unaccounted (there were too many), unfinished (the last reading never came).";
    CLASSES = Gauge "ebb_agent_classes",
        "Classes of tasks of which is kept what they use.";
    CLASS_FAULTS = Counter "ebb_agent_class_faults_total",
        "What of classes of tasks is not kept since there are too many, by fault: dropped (classes that were idle for longest), unfollowed (tasks that began while all that there may be ran).";
    TAKEN_BACK = Gauge "ebb_agent_taken_back_cpu_milli",
        "CPU of revocable tasks that is held back now, in thousandths of a core.";
    CORRECTIONS = Counter "ebb_agent_corrections_total",
        "Decisions of the QoS controller that were carried out, by action and signal.";
    CORRECTIONS_STALE = Counter "ebb_agent_corrections_stale_total",
        "Decisions of the QoS controller whose container was gone.";
    EVICTIONS = Counter "ebb_agent_evictions_total",
        "Revocable tasks and executors that were ended to give their resources back.";
    EVICTIONS_SPARED = Counter "ebb_agent_evictions_spared_total",
        "Times that a revocable task was frozen instead of ended because enough tasks of its framework had been ended of late.";
    DISTURBED = Gauge "ebb_agent_disturbed_tasks",
        "Tasks that are disturbed by their neighbours, by resource and by whom: revocable, owner (a task that is not revocable), outside (nobody of this agent).";
    LENT_LASTING = Gauge "ebb_agent_lent_lasting",
        "How much of what is lent can be expected to stay lent for so many seconds, in four of five cases, in the units of ebb_agent_resource_total; 0 until that has been seen often enough.";
    PROMISE_WATCHED = Counter "ebb_agent_promise_watched_ms_total",
        "Time for which some of a resource was lent and all its owners were measured, in milliseconds.";
    PROMISE_BROKEN = Counter "ebb_agent_promise_broken_ms_total",
        "The part of ebb_agent_promise_watched_ms_total in which owners used more than the estimate had kept for them, in milliseconds.";
    PROMISE_BUDGET = Gauge "ebb_agent_promise_budget_ppm",
        "How much of the time owners may use more than was kept for them, in millionths: the setting lending.violation_budget.";
    SAMPLE_SECONDS = Histogram "ebb_agent_sample_seconds",
        "Time that one reading of all counters took.";
    SAMPLES_DROPPED = Counter "ebb_agent_samples_dropped_total",
        "Readings that the core had no room for.";
    SAMPLES_STALE = Counter "ebb_agent_samples_stale_total",
        "Times that no reading had come for longer than lending puts up with.";
    SAMPLE_LOOKS = Counter "ebb_agent_sample_looks_total",
        "What jumps of owners' demand led to while something revocable ran: readings between the regular ones (read), or none, since there were so many (refused).";
    SAMPLE_FAULTS = Counter "ebb_agent_sample_faults_total",
        "Readings that were no good, by fault: gap, duplicate, backward, reset, implausible; what was learnt from them and is lost to the next start: past_unfit, past_unkept.";
    MEASURE_SOURCE = Gauge "ebb_agent_measure_source",
        "1 for the source of each figure: ebpf, files, or none where it is not measured.";
    PROBE_SECONDS = Counter "ebb_agent_probe_run_ns_total",
        "Time spent in the probes on all CPUs, in nanoseconds, by program; from the kernel's account of one reading in ten, scaled up.";
    PROBE_RUNS = Counter "ebb_agent_probe_runs_total",
        "How often the probes ran, by program; from the kernel's account of one reading in ten, scaled up.";
    PROBE_SLOTS = Gauge "ebb_agent_probe_slots",
        "Slots of the probes for containers, taken and in all.";
    PROBE_LOSSES = Counter "ebb_agent_probe_losses_total",
        "What measuring lost or left to files, by kind: see the page on dashboards.";
    JOURNAL_SECONDS = Histogram "ebb_agent_journal_write_seconds",
        "Time that writing and syncing one batch of records took.";
    JOURNAL_BYTES = Gauge "ebb_agent_journal_bytes",
        "Size of the journal, in bytes.";
    JOURNAL_REWRITES = Counter "ebb_agent_journal_rewrites_total",
        "Times that the journal was rewritten because it had grown.";
    UPDATES_PENDING = Gauge "ebb_agent_updates_pending",
        "Statuses that are not acknowledged yet.";
    UPDATES_SENT = Counter "ebb_agent_updates_sent_total",
        "Statuses sent to the master, repetitions included.";
    UPDATES_RETRIED = Counter "ebb_agent_updates_retried_total",
        "Statuses sent again because no acknowledgement came.";
    ACKNOWLEDGEMENTS_IGNORED = Counter "ebb_agent_acknowledgements_ignored_total",
        "Acknowledgements that named nothing that waits for one.";
    MESSAGES_REFUSED = Counter "ebb_agent_messages_refused_total",
        "Messages of the master that were refused, by why: stale, early, unknown, malformed.";
    EXECUTOR_UPDATES_DROPPED = Counter "ebb_agent_executor_updates_dropped_total",
        "Statuses of frameworks' own executors that were not forwarded.";
    FRAMEWORK_MESSAGES_DROPPED = Counter "ebb_agent_framework_messages_dropped_total",
        "Messages between schedulers and executors that were dropped.";
    CONTAINER_SECONDS = Histogram "ebb_agent_container_operation_seconds",
        "Time that an operation on a container took, by operation.";
    CONTAINER_FAULTS = Counter "ebb_agent_container_faults_total",
        "Operations on containers that failed, by operation.";
    READERS_CUT_OFF = Counter "ebb_agent_sandbox_readers_cut_off_total",
        "Readers of sandboxes that were cut off because they did not read.";
    SANDBOXES_COLLECTED = Counter "ebb_agent_sandboxes_collected_total",
        "Sandboxes of ended tasks that were removed after their time.";
}

/// The recorder of one agent.
pub struct Metrics {
    recorder: PrometheusRecorder,
    handle: PrometheusHandle,
}

impl std::fmt::Debug for Metrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

const META: Metadata<'static> = Metadata::new("ebb_agent", Level::INFO, None);

impl Metrics {
    /// A recorder that knows the table.
    pub fn new() -> Self {
        let mut builder =
            PrometheusBuilder::new().idle_timeout(MetricKindMask::GAUGE, Some(GAUGE_IDLE));
        for metric in TABLE.iter().filter(|metric| metric.kind == Kind::Histogram) {
            let matcher = Matcher::Full(metric.name.to_owned());
            builder = builder
                .set_buckets_for_metric(matcher, &SECONDS_BUCKETS)
                .expect("the buckets are not empty");
        }
        let recorder = builder.build_recorder();
        let handle = recorder.handle();
        let metrics = Self { recorder, handle };
        metrics.describe();
        metrics.begin();
        metrics
    }

    /// Shows at 0 what is otherwise shown with its first count only: a rate needs the value before it.
    fn begin(&self) {
        for metric in [
            &SAMPLES_DROPPED,
            &JOURNAL_REWRITES,
            &READERS_CUT_OFF,
            &OOM_KILLS_OUTSIDE,
        ] {
            self.add(metric, &[], 0);
        }
        for action in CORRECTION_ACTIONS {
            for signal in Signal::ALL {
                let labels = [("action", action.into()), ("signal", signal.name().into())];
                self.add(&CORRECTIONS, &labels, 0);
            }
        }
    }

    fn describe(&self) {
        for metric in TABLE {
            let name = KeyName::from_const_str(metric.name);
            let help = SharedString::const_str(metric.help);
            let unit: Option<Unit> = None;
            match metric.kind {
                Kind::Counter => self.recorder.describe_counter(name, unit, help),
                Kind::Gauge => self.recorder.describe_gauge(name, unit, help),
                Kind::Histogram => self.recorder.describe_histogram(name, unit, help),
            }
        }
    }

    /// The text for Prometheus.
    pub fn render(&self) -> String {
        self.handle.render()
    }

    /// Bounded work that has to be done now and then.
    pub fn upkeep(&self) {
        self.handle.run_upkeep();
    }

    fn key(metric: &Metric, labels: &[(&'static str, SharedString)]) -> Key {
        let labels = labels
            .iter()
            .map(|(name, value)| Label::new(*name, value.clone()));
        Key::from_parts(metric.name, labels.collect::<Vec<_>>())
    }

    fn add(&self, metric: &Metric, labels: &[(&'static str, SharedString)], count: u64) {
        let key = Self::key(metric, labels);
        self.recorder.register_counter(&key, &META).increment(count);
    }

    fn rise_to(&self, metric: &Metric, labels: &[(&'static str, SharedString)], count: u64) {
        let key = Self::key(metric, labels);
        self.recorder.register_counter(&key, &META).absolute(count);
    }

    fn set(&self, metric: &Metric, labels: &[(&'static str, SharedString)], value: u64) {
        let key = Self::key(metric, labels);
        self.recorder.register_gauge(&key, &META).set(value as f64);
    }

    fn record(&self, metric: &Metric, labels: &[(&'static str, SharedString)], took: Duration) {
        let key = Self::key(metric, labels);
        let histogram = self.recorder.register_histogram(&key, &META);
        histogram.record(took.as_secs_f64());
    }

    /// A container runs; so long after the order came.
    pub fn launched(&self, after: Duration) {
        self.record(&LAUNCH_SECONDS, &[], after);
    }

    /// A connection to a master stands.
    pub fn connected(&self) {
        self.add(&CONNECTIONS, &[], 1);
    }

    /// A message of the master was no message.
    pub fn malformed(&self) {
        self.add(&MESSAGES_REFUSED, &[("why", "malformed".into())], 1);
    }

    /// A decision of the QoS controller was carried out.
    pub fn corrected(&self, correction: &Correction) {
        let action = correction.action.name().into();
        let signal = correction.signal.name().into();
        self.add(&CORRECTIONS, &[("action", action), ("signal", signal)], 1);
    }

    /// A reading took so long.
    pub fn sampled(&self, took: Duration) {
        self.record(&SAMPLE_SECONDS, &[], took);
    }

    /// The core had no room for a reading.
    pub fn sample_dropped(&self) {
        self.add(&SAMPLES_DROPPED, &[], 1);
    }

    /// A batch of records was written.
    pub fn journaled(&self, took: Duration, bytes: u64) {
        self.record(&JOURNAL_SECONDS, &[], took);
        self.set(&JOURNAL_BYTES, &[], bytes);
    }

    /// The journal was rewritten.
    pub fn journal_rewritten(&self, bytes: u64) {
        self.add(&JOURNAL_REWRITES, &[], 1);
        self.set(&JOURNAL_BYTES, &[], bytes);
    }

    /// An operation on a container took so long.
    pub fn container_operation(&self, operation: &'static str, took: Duration) {
        let labels = [("operation", operation.into())];
        self.record(&CONTAINER_SECONDS, &labels, took);
        self.add(&CONTAINER_FAULTS, &labels, 0);
    }

    /// An operation on a container failed.
    pub fn container_fault(&self, operation: &'static str) {
        self.add(&CONTAINER_FAULTS, &[("operation", operation.into())], 1);
    }

    /// A reader of a sandbox was cut off.
    pub fn reader_cut_off(&self) {
        self.add(&READERS_CUT_OFF, &[], 1);
    }

    /// Sandboxes were removed after their time.
    pub fn collected(&self, count: u64) {
        self.add(&SANDBOXES_COLLECTED, &[], count);
    }

    /// Reads everything anew that the core knows.
    pub fn refresh(&self, core: &Core, view: &SamplerView) {
        self.counters(core);
        self.tasks(core);
        self.resources(core);
        self.frameworks(core);
        self.totals(core);
        self.promises(core);
        self.disturbed(core);
        self.sampler(view);
    }

    fn promises(&self, core: &Core) {
        let promises = core.usage().promises;
        for (kind, promise) in [
            (ResourceKind::Cpus, promises.cpu),
            (ResourceKind::Mem, promises.mem),
        ] {
            let labels = [("resource", kind.name().into())];
            self.rise_to(&PROMISE_WATCHED, &labels, promise.watched_ms);
            self.rise_to(&PROMISE_BROKEN, &labels, promise.broken_ms);
        }
        self.set(&PROMISE_BUDGET, &[], promises.budget_ppm);
    }

    fn disturbed(&self, core: &Core) {
        let disturbances = &core.usage().disturbances;
        for resource in Contended::ALL {
            for by in DISTURBERS {
                let of = disturbances
                    .iter()
                    .filter(|one| one.resource == resource && disturber(one) == by)
                    .count();
                let labels = [("resource", resource.name().into()), ("by", by.into())];
                self.set(&DISTURBED, &labels, of as u64);
            }
        }
    }

    fn counters(&self, core: &Core) {
        let counters = core.counters();
        let plain = [
            (&LAUNCHES_REFUSED, counters.refused_launches),
            (&LAUNCHES_DUPLICATE, counters.duplicate_launches),
            (&ADOPTED, counters.adopted),
            (&ORPHANS, counters.orphans),
            (&CORRECTIONS_STALE, counters.stale_corrections),
            (&EVICTIONS, counters.evictions),
            (&EVICTIONS_SPARED, core.lending_counters().spared),
            (&SAMPLES_STALE, counters.stale_samples),
            (&UPDATES_SENT, counters.updates_sent),
            (&UPDATES_RETRIED, counters.updates_retried),
            (&ACKNOWLEDGEMENTS_IGNORED, counters.acknowledgements_ignored),
            (&EXECUTOR_UPDATES_DROPPED, counters.executor_updates_dropped),
            (&FRAMEWORK_MESSAGES_DROPPED, counters.messages_dropped),
        ];
        for (metric, count) in plain {
            self.rise_to(metric, &[], count);
        }
        let refused = [
            ("stale", counters.stale_messages),
            ("early", counters.early_messages),
            ("unknown", counters.orders_for_unknown),
        ];
        for (why, count) in refused {
            self.rise_to(&MESSAGES_REFUSED, &[("why", why.into())], count);
        }
        let usage = core.lending_counters().usage;
        let faults = [
            ("gap", usage.gaps),
            ("duplicate", usage.duplicates),
            ("backward", usage.backward),
            ("reset", usage.resets),
            ("implausible", usage.implausible),
        ];
        for (fault, count) in faults {
            self.rise_to(&SAMPLE_FAULTS, &[("fault", fault.into())], count);
        }
        self.set(&UPDATES_PENDING, &[], core.pending_updates() as u64);
        self.set(&REGISTERED, &[], u64::from(core.is_registered()));
    }

    fn tasks(&self, core: &Core) {
        let mut counts: BTreeMap<TaskState, u64> = BTreeMap::new();
        for task in core.tasks() {
            *counts.entry(task.state).or_default() += 1;
        }
        for state in TaskState::ALL {
            let count = counts.get(&state).copied().unwrap_or_default();
            self.set(&TASKS, &[("state", state.name().into())], count);
        }
    }

    fn resources(&self, core: &Core) {
        let held = core.held();
        let each = |metric: &Metric, amounts: Quantities, revocable: Option<&'static str>| {
            for kind in ResourceKind::ALL {
                let mut labels = vec![("resource", SharedString::from(kind.name()))];
                labels.extend(revocable.map(|text| ("revocable", text.into())));
                self.set(metric, &labels, amounts.get(kind));
            }
        };
        each(&RESOURCE_TOTAL, core.total(), None);
        each(&RESOURCE_ALLOCATED, held.regular, Some("false"));
        each(&RESOURCE_ALLOCATED, held.revocable, Some("true"));
        each(&RESOURCE_LENT, core.lent(), None);
        for point in &core.usage().lasting.points {
            let seconds = SharedString::from((point.time_ms / 1_000).to_string());
            for kind in LENT_KINDS {
                let labels = [
                    ("resource", kind.name().into()),
                    ("seconds", seconds.clone()),
                ];
                self.set(&LENT_LASTING, &labels, point.amount.get(kind));
            }
        }
        let usage = core.usage();
        self.set(&TAKEN_BACK, &[], usage.taken_back_cpu_milli);
        let pressure = [
            ("cpu", usage.cpu_pressure_permille),
            ("mem", usage.mem_pressure_permille),
            ("disk", usage.io_pressure_permille),
        ];
        for (resource, permille) in pressure {
            if let Some(permille) = permille {
                self.set(
                    &MACHINE_PRESSURE,
                    &[("resource", resource.into())],
                    permille,
                );
            }
        }
        if let Some(cpu_milli) = usage.machine_cpu_milli {
            self.set(&MACHINE_CPU, &[], cpu_milli);
        }
        if let Some(mem_bytes) = usage.machine_mem_bytes {
            self.set(&MACHINE_MEM, &[], mem_bytes);
        }
    }

    fn frameworks(&self, core: &Core) {
        #[derive(Default)]
        struct Sum {
            allocated_milli: u64,
            used_milli: u64,
            used_bytes: u64,
            worst: Worst,
        }
        let mut sums: BTreeMap<(Option<&FrameworkId>, bool), Sum> = BTreeMap::new();
        let usage = core.usage();
        let mut named: BTreeMap<&FrameworkId, ()> = BTreeMap::new();
        for task in &usage.tasks {
            if named.len() < MAX_FRAMEWORK_SERIES {
                named.insert(&task.framework_id, ());
            }
            let framework = named.get_key_value(&task.framework_id).map(|(id, ())| *id);
            let sum = sums
                .entry((framework, task.allocated.is_revocable()))
                .or_default();
            sum.allocated_milli += task.allocated.total(ResourceKind::Cpus);
            sum.used_milli += task.used.cpu_milli.unwrap_or_default();
            sum.used_bytes += task.used.mem_bytes.unwrap_or_default();
            sum.worst.take(&task.used);
        }
        for ((framework, revocable), sum) in sums {
            let name = framework.map_or_else(|| "other".to_owned(), ToString::to_string);
            let labels = [
                ("framework", SharedString::from(name)),
                ("revocable", if revocable { "true" } else { "false" }.into()),
            ];
            self.set(&FRAMEWORK_CPU_ALLOCATED, &labels, sum.allocated_milli);
            self.set(&FRAMEWORK_CPU_USED, &labels, sum.used_milli);
            self.set(&FRAMEWORK_MEM_USED, &labels, sum.used_bytes);
            for (metric, value) in sum.worst.each() {
                if let Some(value) = value {
                    self.set(metric, &labels, value);
                }
            }
        }
    }

    /// What frameworks have used in all. The account bounds their number.
    fn totals(&self, core: &Core) {
        let account = core.account();
        for (framework, totals) in account.totals() {
            let name = framework.map_or_else(|| "other".to_owned(), ToString::to_string);
            let labels = [("framework", SharedString::from(name))];
            let each = [
                (&FRAMEWORK_CPU_TOTAL, totals.cpu_ns),
                (&FRAMEWORK_DISK_READ, totals.disk_read_bytes),
                (&FRAMEWORK_DISK_WRITTEN, totals.disk_write_bytes),
                (&FRAMEWORK_NET_IN, totals.net_in_bytes),
                (&FRAMEWORK_NET_OUT, totals.net_out_bytes),
                (&FRAMEWORK_TRAFFIC_IN, totals.traffic_in_bytes),
                (&FRAMEWORK_TRAFFIC_OUT, totals.traffic_out_bytes),
                (&FRAMEWORK_PACKETS_DROPPED, totals.dropped_packets),
                (&FRAMEWORK_OOM_KILLS, totals.oom_kills),
                (&FRAMEWORK_FORKS, totals.forks),
            ];
            for (metric, total) in each {
                if let Some(total) = total {
                    self.rise_to(metric, &labels, total);
                }
            }
        }
        let counters = account.counters();
        self.rise_to(&OOM_KILLS_OUTSIDE, &[], counters.killed_outside);
        let faults = [
            ("unaccounted", counters.unaccounted),
            ("unfinished", counters.unfinished),
        ];
        for (fault, count) in faults {
            self.rise_to(&ACCOUNT_FAULTS, &[("fault", fault.into())], count);
        }
        let (count, counters) = core.classes();
        self.set(&CLASSES, &[], count as u64);
        let faults = [
            ("dropped", counters.dropped),
            ("unfollowed", counters.unfollowed),
        ];
        for (fault, count) in faults {
            self.rise_to(&CLASS_FAULTS, &[("fault", fault.into())], count);
        }
    }

    /// What lending has learnt was of no use after a restart (`past_unfit`), or could not be kept for one (`past_unkept`).
    pub fn past_fault(&self, fault: &'static str) {
        self.add(&SAMPLE_FAULTS, &[("fault", fault.into())], 1);
    }

    fn sampler(&self, view: &SamplerView) {
        for figure in &view.sources {
            let source = figure.source.map_or("none", ebb_types::MeasureSource::name);
            let name = SharedString::from(figure.figure.clone());
            let labels = [("figure", name), ("source", source.into())];
            self.set(&MEASURE_SOURCE, &labels, 1);
        }
        for cost in &view.costs {
            let labels = [("program", SharedString::from(cost.program))];
            self.rise_to(&PROBE_SECONDS, &labels, cost.run_time_ns);
            self.rise_to(&PROBE_RUNS, &labels, cost.run_count);
        }
        let (taken, all) = view.slots;
        self.set(&PROBE_SLOTS, &[("which", "taken".into())], taken);
        self.set(&PROBE_SLOTS, &[("which", "all".into())], all);
        let losses = [
            ("without_slot", view.losses.without_slot),
            ("failed_read", view.losses.failed_reads),
            ("failed_unregister", view.losses.failed_unregisters),
            ("late_charge", view.losses.late_charges),
            ("missed_switch", view.losses.missed_switches),
            ("io_untracked", view.losses.io_untracked),
            ("event_lost", view.losses.events_lost),
            ("probe_detached", view.losses.probes_detached),
            ("storage_miss", view.losses.storage_misses),
            ("reading_unkept", view.unkept),
            ("reading_hurried", view.hurried),
        ];
        for (kind, count) in losses {
            self.rise_to(&PROBE_LOSSES, &[("kind", kind.into())], count);
        }
        for (answer, count) in [("read", view.looks), ("refused", view.looks_refused)] {
            self.rise_to(&SAMPLE_LOOKS, &[("answer", answer.into())], count);
        }
        if let Some(cpus) = view.cpus {
            self.set(&MACHINE_CPUS, &[], u64::from(cpus));
        }
    }
}

/// How a framework's tasks fare: sums of stalls, the longest latencies.
#[derive(Default)]
struct Worst {
    run_queue_p99_ns: Option<u64>,
    reclaim_permille: Option<u64>,
    io_queue_p99_ns: Option<u64>,
    io_device_p99_ns: Option<u64>,
}

impl Worst {
    fn take(&mut self, used: &TaskUsageFigures) {
        self.run_queue_p99_ns = self.run_queue_p99_ns.max(used.run_queue_p99_ns);
        self.io_queue_p99_ns = self.io_queue_p99_ns.max(used.io_queue_p99_ns);
        self.io_device_p99_ns = self.io_device_p99_ns.max(used.io_device_p99_ns);
        if let Some(permille) = used.reclaim_permille {
            *self.reclaim_permille.get_or_insert(0) += permille;
        }
    }

    const fn each(&self) -> [(&'static Metric, Option<u64>); 4] {
        [
            (&FRAMEWORK_RUN_QUEUE_P99, self.run_queue_p99_ns),
            (&FRAMEWORK_RECLAIM, self.reclaim_permille),
            (&FRAMEWORK_IO_QUEUE_P99, self.io_queue_p99_ns),
            (&FRAMEWORK_IO_DEVICE_P99, self.io_device_p99_ns),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_told_apart_and_follow_the_rules() {
        let mut names: Vec<&str> = TABLE.iter().map(|metric| metric.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), TABLE.len());
        for metric in TABLE {
            assert!(metric.name.starts_with("ebb_agent_"), "{}", metric.name);
            assert!(metric.help.ends_with('.'), "{}", metric.name);
            let total = metric.name.ends_with("_total") && metric.kind != Kind::Gauge;
            let is_counter = metric.kind == Kind::Counter;
            assert_eq!(total, is_counter, "{}", metric.name);
        }
    }

    #[test]
    fn what_is_recorded_is_rendered_with_its_help() {
        let metrics = Metrics::new();
        metrics.launched(Duration::from_millis(4));
        metrics.container_fault("freeze");
        let text = metrics.render();
        assert!(text.contains("# HELP ebb_agent_launch_seconds"), "{text}");
        assert!(
            text.contains("ebb_agent_launch_seconds_bucket{le=\"0.005\"} 1"),
            "{text}"
        );
        assert!(text.contains("ebb_agent_container_faults_total{operation=\"freeze\"} 1"));
        // Another agent in the process knows nothing of it.
        assert!(!Metrics::new().render().contains("operation=\"freeze\""));
    }

    #[test]
    fn counts_are_shown_before_the_first_one() {
        let metrics = Metrics::new();
        metrics.container_operation("thaw", Duration::ZERO);
        let text = metrics.render();
        for series in [
            "ebb_agent_samples_dropped_total 0",
            "ebb_agent_corrections_total{action=\"evict\",signal=\"machine_memory\"} 0",
            "ebb_agent_container_faults_total{operation=\"thaw\"} 0",
        ] {
            assert!(text.contains(series), "{series}: {text}");
        }
    }
}
