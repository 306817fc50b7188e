//! The master's metrics: every name stands in one table, with its kind and its help.
//!
//! The core and the driver count in plain numbers; they are read when somebody asks for `/metrics`,
//! so that counting costs nothing else. Each master has a recorder of its own, so that several may
//! live in one process. Base units: cores, bytes, seconds.

use ebb_types::{AgentStatus, Fit, Quantities, Quota, ResourceKind, TaskState};
use metrics::{
    counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram,
    with_local_recorder,
};
use metrics_exporter_prometheus::{
    BuildError, Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder,
};

use crate::allocator::AllocatorFigures;
use crate::core::Counters;
use crate::ledger::LedgerFigures;
use crate::mirror::{AdviceGauges, Gauges, MirrorFigures, QuotaGauge};

/// What kind of metric it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only rises.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Counts by size.
    Histogram,
}

/// One metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Metric {
    /// Its name.
    pub name: &'static str,
    /// Its kind.
    pub kind: Kind,
    /// What it says.
    pub help: &'static str,
}

macro_rules! table {
    ($($konst:ident = $name:literal, $kind:ident, $help:literal;)*) => {
        $(const $konst: &str = $name;)*

        /// Every metric of the master.
        pub const TABLE: &[Metric] = &[
            $(Metric { name: $name, kind: Kind::$kind, help: $help },)*
        ];
    };
}

table! {
    AGENTS = "ebb_master_agents", Gauge, "Agents by how they stand (status).";
    FRAMEWORKS = "ebb_master_frameworks", Gauge, "Frameworks by whether their scheduler is connected (status).";
    TASKS = "ebb_master_tasks", Gauge, "Tasks in the books by state.";
    OFFERS = "ebb_master_offers_outstanding", Gauge, "Offers that are out.";
    CPUS = "ebb_master_cpus", Gauge, "Cores of registered agents by account: total, lent, offered, allocated, revocable_offered, revocable_allocated.";
    MEM = "ebb_master_mem_bytes", Gauge, "Memory of registered agents by account, in bytes.";
    DISK = "ebb_master_disk_bytes", Gauge, "Disk space of registered agents by account, in bytes.";
    DISK_BANDWIDTH = "ebb_master_disk_bandwidth_bytes_per_second", Gauge, "Disk bandwidth of registered agents by account, in bytes a second.";
    NETWORK_BANDWIDTH = "ebb_master_network_bandwidth_bytes_per_second", Gauge, "Network bandwidth of registered agents by account, in bytes a second.";
    ADVISED_CLASSES = "ebb_master_advised_classes", Gauge, "Classes of tasks by how what they ask for stands to what they use (fit).";
    ADVISED_CPUS = "ebb_master_advised_cpus", Gauge, "Cores that running tasks would ask for less (spared) or more (lacking) if what is advised of their classes were followed (change).";
    ADVISED_MEM = "ebb_master_advised_mem_bytes", Gauge, "The same of memory, in bytes.";
    CLASS_ENTRIES = "ebb_master_class_entries", Gauge, "Entries of what agents have seen of classes of tasks, each of one agent and class; of those that are gone, of a class.";
    QUOTA_CPUS = "ebb_master_quota_cpus", Gauge, "Cores of a role with a quota by account: guarantee, limit, consumed (offered and allocated, what counts), allocated; revocable_limit and revocable_consumed of what is lent. With all roles below it.";
    QUOTA_MEM = "ebb_master_quota_mem_bytes", Gauge, "Memory of a role with a quota by account, in bytes.";
    QUOTA_DISK = "ebb_master_quota_disk_bytes", Gauge, "Disk space of a role with a quota by account, in bytes.";
    QUOTA_DISK_BANDWIDTH = "ebb_master_quota_disk_bandwidth_bytes_per_second", Gauge, "Disk bandwidth of a role with a quota by account, in bytes a second.";
    QUOTA_NETWORK_BANDWIDTH = "ebb_master_quota_network_bandwidth_bytes_per_second", Gauge, "Network bandwidth of a role with a quota by account, in bytes a second.";
    QUOTAS_LEFT_OUT = "ebb_master_quota_roles_left_out", Gauge, "Roles with a quota that are left out of the metrics of quotas because they are too many.";
    QUEUE = "ebb_master_event_queue_depth", Gauge, "Inputs that wait for the driver.";
    CONNECTIONS = "ebb_master_connections", Gauge, "Open connections by peer.";
    STEPS = "ebb_master_inputs_total", Counter, "Inputs that the core has handled.";
    BATCHES = "ebb_master_batches_total", Counter, "Batches of inputs that the driver has handled.";
    OFFERS_MADE = "ebb_master_offers_made_total", Counter, "Offers sent to frameworks.";
    OFFERS_ACCEPTED = "ebb_master_offers_accepted_total", Counter, "Offers accepted with at least one task.";
    OFFERS_DECLINED = "ebb_master_offers_declined_total", Counter, "Offers declined, or accepted for nothing.";
    OFFERS_RESCINDED = "ebb_master_offers_rescinded_total", Counter, "Offers withdrawn by the master.";
    OFFERS_EXPIRED = "ebb_master_offers_expired_total", Counter, "Offers that passed their deadline.";
    INVERSE_MADE = "ebb_master_inverse_offers_made_total", Counter, "Inverse offers sent to frameworks because of a maintenance to come.";
    INVERSE_ANSWERED = "ebb_master_inverse_offers_answered_total", Counter, "Inverse offers that were accepted or declined.";
    INVERSE_HELD = "ebb_master_inverse_offers_held_total", Counter, "Inverse offers that were not made because too many are out.";
    PROPOSALS_REFUSED = "ebb_master_proposals_refused_total", Counter, "Proposals of the allocator that no longer held when they arrived.";
    ACCEPTS_INVALID = "ebb_master_accepts_invalid_total", Counter, "Accepts whose offers were not valid.";
    TASKS_LAUNCHED = "ebb_master_tasks_launched_total", Counter, "Tasks sent to agents.";
    TASKS_ENTERED = "ebb_master_task_states_total", Counter, "Times that a task entered a state, by state.";
    UPDATES = "ebb_master_status_updates_forwarded_total", Counter, "Status updates sent to frameworks.";
    UPDATES_HELD = "ebb_master_status_updates_held_total", Counter, "Status updates whose framework was not connected; agents repeat them.";
    UPDATES_SETTLED = "ebb_master_status_updates_settled_total", Counter, "Status updates that the master acknowledged in place of a framework.";
    ACKS = "ebb_master_acknowledgements_total", Counter, "Acknowledgements forwarded to agents.";
    ACKS_DROPPED = "ebb_master_acknowledgements_dropped_total", Counter, "Acknowledgements whose agent was not connected.";
    MESSAGES_DROPPED = "ebb_master_messages_dropped_total", Counter, "Messages to frameworks' executors, schedulers or agents without a connected receiver.";
    KILLS = "ebb_master_kills_total", Counter, "Kills sent to agents.";
    KILLS_DROPPED = "ebb_master_kills_dropped_total", Counter, "Kills that could not be kept for a disconnected agent.";
    STALE = "ebb_master_stale_messages_total", Counter, "Messages of a connection or incarnation that had been replaced.";
    CALLS_INVALID = "ebb_master_calls_invalid_total", Counter, "Calls and messages that broke a rule of the protocol.";
    SUBSCRIPTIONS = "ebb_master_subscriptions_total", Counter, "Subscriptions of frameworks, new and renewed.";
    FAILED_OVER = "ebb_master_frameworks_failed_over_total", Counter, "Schedulers that were replaced by another connection.";
    REMOVED = "ebb_master_frameworks_removed_total", Counter, "Frameworks removed.";
    AGENTS_ADMITTED = "ebb_master_agents_admitted_total", Counter, "Agents admitted for the first time.";
    AGENTS_REREGISTERED = "ebb_master_agents_reregistered_total", Counter, "Agents that registered anew.";
    AGENTS_UNREACHABLE = "ebb_master_agents_unreachable_total", Counter, "Agents that became unreachable.";
    AGENTS_REFUSED = "ebb_master_agents_refused_total", Counter, "Agents refused.";
    TASKS_DUPLICATED = "ebb_master_tasks_duplicated_total", Counter, "Tasks that an agent reported although the books hold another of that name, or its end.";
    LOTS_UNCOUNTED = "ebb_master_lots_uncounted_total", Counter, "Times that lots which an agent brought along did not add up with the books.";
    COOL_DOWNS_DROPPED = "ebb_master_cool_downs_dropped_total", Counter, "Evictions after which there was no room to keep the framework from the agent for a while.";
    LOT_REFUSALS_DROPPED = "ebb_master_lot_refusals_dropped_total", Counter, "Refusals of lots that there was no room for.";
    OPERATIONS_FAILED = "ebb_master_operations_failed_total", Counter, "Operations on lots that broke a rule.";
    OPERATIONS_REPEATED = "ebb_master_operations_repeated_total", Counter, "Operations on lots that were not carried out because their id is that of another without an acknowledged answer.";
    OPERATIONS_ACKNOWLEDGED = "ebb_master_operations_acknowledged_total", Counter, "Answers to operations on lots that frameworks have acknowledged.";
    OPERATION_ANSWERS_REPEATED = "ebb_master_operation_answers_repeated_total", Counter, "Answers to operations on lots that were sent again to frameworks that had subscribed anew.";
    OPERATION_ANSWERS_UNKEPT = "ebb_master_operation_answers_unkept_total", Counter, "Answers to operations on lots that there was no room to keep until they are acknowledged.";
    CLASSES_DROPPED = "ebb_master_classes_dropped_total", Counter, "What an agent had seen of a class of tasks, dropped for want of room.";
    FORGOTTEN = "ebb_master_forgotten_total", Counter, "Frameworks, agents and tasks forgotten because a bound was reached.";
    SLOW = "ebb_master_slow_readers_cut_total", Counter, "Connections cut off because their reader did not keep up.";
    LEDGER_APPLIED = "ebb_master_ledger_transitions_total", Counter, "Transitions of agents' ledgers.";
    LEDGER_CONFLICTS = "ebb_master_ledger_conflicts_total", Counter, "Exchanges on the ledger lost to another thread and tried again.";
    LEDGER_REFUSED = "ebb_master_ledger_refused_total", Counter, "Transitions refused because they do not add up.";
    LEDGER_CONTENDED = "ebb_master_ledger_contended_total", Counter, "Transitions given up after too many lost exchanges.";
    LEDGER_DISAGREEMENTS = "ebb_master_ledger_disagreements_total", Counter, "Transitions of the core that the ledger refused: a fault in Ebb.";
    PASSES = "ebb_master_allocation_passes_total", Counter, "Passes of the allocator's threads.";
    PASS_AGENTS = "ebb_master_allocation_agents_total", Counter, "Agents that passes of the allocator looked at.";
    PROPOSALS = "ebb_master_allocation_proposals_total", Counter, "Proposals of the allocator.";
    PROPOSALS_REJECTED = "ebb_master_allocation_proposals_rejected_total", Counter, "Proposals that the driver did not take.";
    COPIES = "ebb_master_allocation_copies_total", Counter, "Times that a thread of the allocator was so far behind that it was given a copy of all claims.";
    MIRROR_QUEUE = "ebb_master_mirror_queue_depth", Gauge, "Changes that the copy of the state for readers has yet to follow.";
    MIRROR_COPIES = "ebb_master_mirror_copies_total", Counter, "Times that the copy of the state for readers was so far behind that it was made anew.";
    READS = "ebb_master_state_reads_total", Counter, "Readings of the state, by operators and for metrics.";
    COMMITS = "ebb_master_registry_commit_seconds", Histogram, "Time of commits of the registry, in seconds.";
    WRITES = "ebb_master_registry_writes_total", Counter, "Records written to the registry.";
}

/// Bounds of the buckets for commits, in seconds.
const COMMIT_BUCKETS: &[f64] = &[
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5,
];
/// Most times of commits kept between two readings of the metrics; beyond it the later are left out.
const MAX_COMMITS_KEPT: usize = 4096;

/// What the driver counts.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct DriverFigures {
    /// Batches of inputs.
    pub batches: u64,
    /// Inputs that wait.
    pub inbox_depth: u64,
    /// Open connections of schedulers.
    pub scheduler_connections: u64,
    /// Open connections of agents.
    pub agent_connections: u64,
    /// Connections cut off because their reader did not keep up.
    pub slow_readers_cut: u64,
    /// Transitions of the core that the ledger refused.
    pub ledger_disagreements: u64,
    /// Records written to the registry.
    pub registry_writes: u64,
    /// Times of commits since the last reading, in seconds.
    pub commit_seconds: Vec<f64>,
}

impl DriverFigures {
    /// Notes the time of a commit.
    pub fn note_commit(&mut self, seconds: f64) {
        if self.commit_seconds.len() < MAX_COMMITS_KEPT {
            self.commit_seconds.push(seconds);
        }
    }

    /// A reading; the times of commits are handed over.
    pub fn take(&mut self) -> Self {
        let commit_seconds = std::mem::take(&mut self.commit_seconds);
        Self {
            commit_seconds,
            ..self.clone()
        }
    }
}

/// Everything that metrics show of what is counted.
#[derive(Clone, Debug, Default)]
pub struct Figures {
    /// Of the core.
    pub counters: Counters,
    /// Of the ledger.
    pub ledger: LedgerFigures,
    /// Of the allocator.
    pub allocator: AllocatorFigures,
    /// Of the driver.
    pub driver: DriverFigures,
    /// Of the mirror.
    pub mirror: MirrorFigures,
}

/// Shows figures in the text format of Prometheus.
pub struct Metrics {
    recorder: PrometheusRecorder,
    handle: PrometheusHandle,
}

impl std::fmt::Debug for Metrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

impl Metrics {
    /// A recorder of its own.
    ///
    /// # Errors
    /// When the exporter refuses the buckets.
    pub fn new() -> Result<Self, BuildError> {
        let recorder = PrometheusBuilder::new()
            .set_buckets_for_metric(Matcher::Full(COMMITS.to_owned()), COMMIT_BUCKETS)?
            .build_recorder();
        let handle = recorder.handle();
        with_local_recorder(&recorder, || {
            for metric in TABLE {
                match metric.kind {
                    Kind::Counter => describe_counter!(metric.name, metric.help),
                    Kind::Gauge => describe_gauge!(metric.name, metric.help),
                    Kind::Histogram => describe_histogram!(metric.name, metric.help),
                }
            }
        });
        Ok(Self { recorder, handle })
    }

    /// The figures as text.
    pub fn render(&self, figures: &Figures, gauges: &Gauges) -> String {
        with_local_recorder(&self.recorder, || {
            show_gauges(gauges);
            show_core(&figures.counters);
            show_agents(&figures.counters);
            show_driver(&figures.driver, &figures.mirror);
            show_ledger(&figures.ledger, &figures.allocator);
        });
        self.handle.run_upkeep();
        let mut text = self.handle.render();
        text.push_str(&quota_text(&gauges.quotas));
        text
    }
}

/// The quotas of roles: of a recorder of their own each time, since one would go on to show roles that have none any more.
fn quota_text(quotas: &[QuotaGauge]) -> String {
    let recorder = PrometheusBuilder::new().build_recorder();
    with_local_recorder(&recorder, || {
        let of_quotas = ResourceKind::ALL.map(|kind| of_quota(kind).0);
        for metric in TABLE
            .iter()
            .filter(|metric| of_quotas.contains(&metric.name))
        {
            describe_gauge!(metric.name, metric.help);
        }
        quotas.iter().for_each(show_quota);
    });
    recorder.handle().render()
}

/// The metric of a kind in quotas, and how much of the kind is 1 there.
const fn of_quota(kind: ResourceKind) -> (&'static str, f64) {
    match kind {
        ResourceKind::Cpus => (QUOTA_CPUS, 1000.0),
        ResourceKind::Mem => (QUOTA_MEM, 1.0),
        ResourceKind::Disk => (QUOTA_DISK, 1.0),
        ResourceKind::DiskBandwidth => (QUOTA_DISK_BANDWIDTH, 1.0),
        ResourceKind::NetworkBandwidth => (QUOTA_NETWORK_BANDWIDTH, 1.0),
    }
}

fn show_quota(quota: &QuotaGauge) {
    let QuotaGauge {
        quota:
            Quota {
                guarantee,
                limits,
                revocable_limits,
            },
        consumed,
        allocated,
        consumed_revocable,
        ..
    } = quota;
    for kind in ResourceKind::ALL {
        let of_owned = guarantee.get(kind) > 0 || limits.get(kind).is_some();
        let owned = |amount: u64| of_owned.then_some(amount);
        let lent_limit = revocable_limits.get(kind);
        let accounts = [
            ("guarantee", owned(guarantee.get(kind))),
            ("limit", limits.get(kind)),
            ("consumed", owned(consumed.get(kind))),
            ("allocated", owned(allocated.get(kind))),
            ("revocable_limit", lent_limit),
            (
                "revocable_consumed",
                lent_limit.map(|_| consumed_revocable.get(kind)),
            ),
        ];
        for (account, amount) in accounts {
            let Some(amount) = amount else { continue };
            let (name, unit) = of_quota(kind);
            let role = quota.role.to_string();
            gauge!(name, "role" => role, "account" => account).set(amount as f64 / unit);
        }
    }
}

fn count(name: &'static str, value: u64) {
    counter!(name).absolute(value);
}

fn set(name: &'static str, value: u64) {
    gauge!(name).set(value as f64);
}

fn show_gauges(gauges: &Gauges) {
    for (status, count) in AgentStatus::ALL.into_iter().zip(gauges.agents) {
        gauge!(AGENTS, "status" => status.name()).set(count as f64);
    }
    gauge!(FRAMEWORKS, "status" => "connected").set(gauges.frameworks_connected as f64);
    gauge!(FRAMEWORKS, "status" => "disconnected").set(gauges.frameworks_disconnected as f64);
    for state in TaskState::ALL {
        gauge!(TASKS, "state" => state.name()).set(gauges.tasks[state as usize] as f64);
    }
    set(OFFERS, gauges.offers);
    set(QUOTAS_LEFT_OUT, gauges.quotas_left_out);
    show_advice(&gauges.advice);
    show_account("total", &gauges.total);
    show_account("lent", &gauges.lent);
    show_account("offered", &gauges.offered.regular);
    show_account("allocated", &gauges.allocated.regular);
    show_account("revocable_offered", &gauges.offered.revocable);
    show_account("revocable_allocated", &gauges.allocated.revocable);
}

fn show_advice(advice: &AdviceGauges) {
    for (fit, count) in Fit::ALL.into_iter().zip(advice.classes) {
        gauge!(ADVISED_CLASSES, "fit" => fit.name()).set(count as f64);
    }
    set(CLASS_ENTRIES, advice.entries);
    for (change, milli, bytes) in [
        ("spared", advice.spared_cpu_milli, advice.spared_mem_bytes),
        (
            "lacking",
            advice.lacking_cpu_milli,
            advice.lacking_mem_bytes,
        ),
    ] {
        gauge!(ADVISED_CPUS, "change" => change).set(milli as f64 / 1000.0);
        gauge!(ADVISED_MEM, "change" => change).set(bytes as f64);
    }
}

fn show_account(account: &'static str, amounts: &Quantities) {
    for kind in ResourceKind::ALL {
        let amount = amounts.get(kind) as f64;
        match kind {
            ResourceKind::Cpus => gauge!(CPUS, "account" => account).set(amount / 1000.0),
            ResourceKind::Mem => gauge!(MEM, "account" => account).set(amount),
            ResourceKind::Disk => gauge!(DISK, "account" => account).set(amount),
            ResourceKind::DiskBandwidth => gauge!(DISK_BANDWIDTH, "account" => account).set(amount),
            ResourceKind::NetworkBandwidth => {
                gauge!(NETWORK_BANDWIDTH, "account" => account).set(amount);
            }
        }
    }
}

fn show_core(counters: &Counters) {
    count(STEPS, counters.steps);
    count(OFFERS_MADE, counters.offers_made);
    count(OFFERS_ACCEPTED, counters.offers_accepted);
    count(OFFERS_DECLINED, counters.offers_declined);
    count(OFFERS_RESCINDED, counters.offers_rescinded);
    count(OFFERS_EXPIRED, counters.offers_expired);
    count(INVERSE_MADE, counters.inverse_offers_made);
    count(INVERSE_ANSWERED, counters.inverse_offers_answered);
    count(INVERSE_HELD, counters.inverse_offers_held);
    count(PROPOSALS_REFUSED, counters.proposals_refused);
    count(ACCEPTS_INVALID, counters.accepts_invalid);
    count(TASKS_LAUNCHED, counters.tasks_launched);
    for state in TaskState::ALL {
        let entered = counters.tasks_by_state[state as usize];
        counter!(TASKS_ENTERED, "state" => state.name()).absolute(entered);
    }
    count(UPDATES, counters.updates_forwarded);
    count(UPDATES_HELD, counters.updates_held);
    count(UPDATES_SETTLED, counters.updates_settled);
    count(ACKS, counters.acknowledgements);
    count(ACKS_DROPPED, counters.acknowledgements_dropped);
    count(MESSAGES_DROPPED, counters.messages_dropped);
    count(KILLS, counters.kills);
    count(KILLS_DROPPED, counters.kills_dropped);
}

fn show_agents(counters: &Counters) {
    count(STALE, counters.stale_messages);
    count(CALLS_INVALID, counters.calls_invalid);
    count(SUBSCRIPTIONS, counters.subscriptions);
    count(FAILED_OVER, counters.frameworks_failed_over);
    count(REMOVED, counters.frameworks_removed);
    count(AGENTS_ADMITTED, counters.agents_admitted);
    count(AGENTS_REREGISTERED, counters.agents_reregistered);
    count(AGENTS_UNREACHABLE, counters.agents_unreachable);
    count(AGENTS_REFUSED, counters.agents_refused);
    count(TASKS_DUPLICATED, counters.tasks_duplicated);
    count(LOTS_UNCOUNTED, counters.lots_uncounted);
    count(LOT_REFUSALS_DROPPED, counters.lot_refusals_dropped);
    count(COOL_DOWNS_DROPPED, counters.cool_downs_dropped);
    count(OPERATIONS_FAILED, counters.operations_failed);
    count(OPERATIONS_REPEATED, counters.operations_repeated);
    count(OPERATIONS_ACKNOWLEDGED, counters.operations_acknowledged);
    count(
        OPERATION_ANSWERS_REPEATED,
        counters.operation_answers_repeated,
    );
    count(OPERATION_ANSWERS_UNKEPT, counters.operation_answers_unkept);
    count(CLASSES_DROPPED, counters.classes_dropped);
    count(FORGOTTEN, counters.forgotten);
}

fn show_driver(driver: &DriverFigures, mirror: &MirrorFigures) {
    set(QUEUE, driver.inbox_depth);
    gauge!(CONNECTIONS, "peer" => "scheduler").set(driver.scheduler_connections as f64);
    gauge!(CONNECTIONS, "peer" => "agent").set(driver.agent_connections as f64);
    count(BATCHES, driver.batches);
    count(SLOW, driver.slow_readers_cut + mirror.slow_readers_cut);
    set(MIRROR_QUEUE, mirror.depth);
    count(MIRROR_COPIES, mirror.copies);
    count(READS, mirror.reads);
    count(LEDGER_DISAGREEMENTS, driver.ledger_disagreements);
    count(WRITES, driver.registry_writes);
    let commits = histogram!(COMMITS);
    for seconds in &driver.commit_seconds {
        commits.record(*seconds);
    }
}

fn show_ledger(ledger: &LedgerFigures, allocator: &AllocatorFigures) {
    count(LEDGER_APPLIED, ledger.applied);
    count(LEDGER_CONFLICTS, ledger.conflicts);
    count(LEDGER_REFUSED, ledger.refused);
    count(LEDGER_CONTENDED, ledger.contended);
    count(PASSES, allocator.passes);
    count(PASS_AGENTS, allocator.agents);
    count(PROPOSALS, allocator.proposals);
    count(PROPOSALS_REJECTED, allocator.rejected);
    count(COPIES, allocator.copies);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_metric_of_the_table_is_shown_with_its_help_and_kind() {
        let metrics = Metrics::new().unwrap();
        let mut figures = Figures::default();
        figures.driver.note_commit(0.003);
        let gauges = Gauges {
            quotas: vec![quota("eng")],
            ..Gauges::default()
        };
        let text = metrics.render(&figures, &gauges);
        for metric in TABLE {
            assert!(
                text.contains(&format!("# HELP {} {}", metric.name, metric.help)),
                "{}",
                metric.name
            );
            let kind = format!("{:?}", metric.kind).to_lowercase();
            assert!(
                text.contains(&format!("# TYPE {} {kind}", metric.name)),
                "{}",
                metric.name
            );
        }
    }

    fn quota(role: &str) -> QuotaGauge {
        let kinds = ResourceKind::ALL.into_iter();
        let all = |amount: u64| {
            kinds
                .clone()
                .fold(Quantities::ZERO, |sum, kind| sum.with(kind, amount))
        };
        QuotaGauge {
            role: ebb_types::Role::new(role).unwrap(),
            quota: Quota {
                guarantee: all(1500),
                limits: ebb_types::Limits::NONE.with(ResourceKind::Cpus, Some(2500)),
                revocable_limits: ebb_types::Limits::NONE.with(ResourceKind::Cpus, Some(8000)),
            },
            consumed: all(700),
            allocated: all(500),
            consumed_revocable: all(300),
        }
    }

    #[test]
    fn a_role_with_a_quota_is_shown_by_account_and_no_longer_than_it_has_one() {
        let metrics = Metrics::new().unwrap();
        let of = |quotas| Gauges {
            quotas,
            ..Gauges::default()
        };
        let text = metrics.render(&Figures::default(), &of(vec![quota("eng/web")]));
        for line in [
            "ebb_master_quota_cpus{role=\"eng/web\",account=\"guarantee\"} 1.5",
            "ebb_master_quota_cpus{role=\"eng/web\",account=\"limit\"} 2.5",
            "ebb_master_quota_cpus{role=\"eng/web\",account=\"consumed\"} 0.7",
            "ebb_master_quota_mem_bytes{role=\"eng/web\",account=\"allocated\"} 500",
            "ebb_master_quota_cpus{role=\"eng/web\",account=\"revocable_limit\"} 8",
            "ebb_master_quota_cpus{role=\"eng/web\",account=\"revocable_consumed\"} 0.3",
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
        assert!(!text.contains("ebb_master_quota_mem_bytes{role=\"eng/web\",account=\"limit\"}"));
        let text = metrics.render(&Figures::default(), &of(Vec::new()));
        assert!(!text.contains("eng/web"));
    }

    #[test]
    fn names_follow_the_conventions() {
        for metric in TABLE {
            assert!(metric.name.starts_with("ebb_master_"), "{}", metric.name);
            assert_eq!(
                metric.name.ends_with("_total"),
                metric.kind == Kind::Counter,
                "{}",
                metric.name
            );
        }
    }

    #[test]
    fn two_masters_in_one_process_do_not_mix_their_figures() {
        let (a, b) = (Metrics::new().unwrap(), Metrics::new().unwrap());
        let mut figures = Figures::default();
        figures.counters.offers_made = 42;
        assert!(
            a.render(&figures, &Gauges::default())
                .contains("ebb_master_offers_made_total 42")
        );
        assert!(
            b.render(&Figures::default(), &Gauges::default())
                .contains("ebb_master_offers_made_total 0")
        );
    }
}
