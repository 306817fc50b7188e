//! What samples lead to: what is lent, corrections, and the report to the master.
//!
//! The rules are [`super::lending`]'s. Here stand only what surrounds them: which containers are
//! judged, that a correction acts on nothing but the container that it names, and who is told.

use ebb_types::limits::DEFAULT_GRACE_MS;
use ebb_types::{
    AgentToMaster, AgentUsage, ClassUse, ContainerId, Correction, CorrectionAction, FigureSource,
    Quantities, Reason, ResourceKind, Resources, TaskId, TaskKey, Timestamp,
};

use super::account::{Account, Holder, Since};
use super::classes::{ClassCounters, Classes, End};
use super::estimator;
use super::estimator::peaks::kept::Unfit;
use super::lending::{self, Lending, LendingOutcome};
use super::record::{EndCause, Ending};
use super::running::RunningView;
use super::state::{Core, Outbox, Owner, Phase, Task};
use super::timers::Timer;
use super::updates::Says;
use super::usage::{Sample, SampleVerdict};
use super::{
    CoreConfig, Effect, ExecutorKey, MAX_CORRECTIONS_PER_REPORT, Observation, REPORT_INTERVAL_MS,
    Record, SAMPLE_STALE_MS,
};

/// What is kept over a restart of the agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Past {
    /// What lending has learnt.
    pub lending: estimator::Past,
    /// What was seen of each class of tasks.
    pub classes: Vec<ClassUse>,
}

/// What the core keeps of samples.
#[derive(Clone, Debug)]
pub(super) struct Samples {
    lending: Lending,
    account: Account,
    classes: Classes,
    sources: Vec<FigureSource>,
    usage: AgentUsage,
    lent: Quantities,
    unreported: Vec<Correction>,
    reported_at: Option<Timestamp>,
}

impl Samples {
    pub(super) fn new(config: &CoreConfig) -> Self {
        Self {
            lending: Lending::new(config.lending, config.total),
            account: Account::default(),
            classes: Classes::default(),
            sources: Vec::new(),
            usage: AgentUsage::default(),
            lent: Quantities::ZERO,
            unreported: Vec::new(),
            reported_at: None,
        }
    }

    pub(super) const fn usage(&self) -> &AgentUsage {
        &self.usage
    }

    pub(super) const fn lent(&self) -> Quantities {
        self.lent
    }

    pub(super) fn lending_counters(&self) -> lending::Counters {
        self.lending.counters()
    }

    pub(super) const fn account(&self) -> &Account {
        &self.account
    }

    /// How many classes of tasks are followed, and what went wrong.
    pub(super) fn classes(&self) -> (usize, ClassCounters) {
        (self.classes.len(), self.classes.counters())
    }

    /// The master may know nothing of what was seen of classes.
    pub(super) fn tell_all_classes(&mut self) {
        self.classes.tell_all();
    }

    /// A container is launched, or was found running.
    pub(super) fn container_began(
        &mut self,
        now: Timestamp,
        container_id: &ContainerId,
        holder: Holder,
        since: Since,
    ) {
        self.classes.begin(now, container_id, &holder, since);
        self.account.begin(container_id, holder, since);
    }

    pub(super) fn container_ended(&mut self, now: Timestamp, container_id: &ContainerId, end: End) {
        self.lending.on_container_ended(container_id);
        self.account.end(container_id);
        self.classes.end(now, container_id, end);
    }
}

impl Core {
    /// What is to be kept over a restart; nothing before the first sample.
    pub fn past(&self) -> Option<Past> {
        Some(Past {
            lending: self.samples.lending.past()?,
            classes: self.samples.classes.kept(),
        })
    }

    /// Takes up what was kept before a restart. To be called before the first step.
    ///
    /// # Errors
    /// [`Unfit`] if what lending has learnt is of no use; then every task is cold. What was seen of classes ages by itself
    /// and is taken up all the same.
    pub fn take_up_past(&mut self, now: Timestamp, past: Past) -> Result<(), Unfit> {
        self.samples.classes.take_up(now, past.classes);
        self.samples.lending.take_up(now, past.lending)
    }

    /// One reading of all counters.
    pub(super) fn sample(&mut self, sample: &Sample, out: &mut Outbox) {
        let now = self.now;
        for killed in self.samples.account.on_sample(sample) {
            self.samples.classes.on_kill(now, &killed);
            out.effect(Effect::Observe(Observation::OomKilled(killed)));
        }
        if let Some(sources) = &sample.sources {
            self.samples.sources.clone_from(sources);
        }
        let views = self.lending_views();
        let outcome = self.samples.lending.on_sample(now, sample, &views);
        if outcome.verdict == SampleVerdict::Valid {
            let tasks = views.iter().zip(&outcome.usage.tasks);
            self.samples.classes.fold(now, tasks);
        }
        self.timers.set(Timer::Stale, now.plus_ms(SAMPLE_STALE_MS));
        self.follow(outcome, out);
    }

    /// No sample came in time.
    pub(super) fn samples_are_stale(&mut self, out: &mut Outbox) {
        let now = self.now;
        self.counters.stale_samples += 1;
        let views = self.lending_views();
        let outcome = self.samples.lending.on_tick(now, &views);
        self.timers.set(Timer::Stale, now.plus_ms(SAMPLE_STALE_MS));
        self.follow(outcome, out);
    }

    fn follow(&mut self, outcome: LendingOutcome, out: &mut Outbox) {
        let now = self.now;
        for correction in &outcome.usage.corrections {
            self.correct(correction, out);
        }
        self.samples.usage = outcome.usage;
        self.samples.usage.sources.clone_from(&self.samples.sources);
        if let Some(lent) = outcome.oversubscribed {
            self.samples.lent = lent;
            out.effect(Effect::Observe(Observation::Lent(lent)));
            if let Some(conn) = self.registered_conn() {
                out.tell(conn, AgentToMaster::Oversubscribed(lent));
            }
        }
        self.tell_usage(now, out);
    }

    /// After a registration: what is lent.
    pub(super) fn tell_lent(&self, out: &mut Outbox) {
        if let Some(conn) = self.registered_conn()
            && !self.samples.lent.is_zero()
        {
            out.tell(conn, AgentToMaster::Oversubscribed(self.samples.lent));
        }
    }

    fn tell_usage(&mut self, now: Timestamp, out: &mut Outbox) {
        let due = self
            .samples
            .reported_at
            .is_none_or(|at| now.ms_since(at) >= REPORT_INTERVAL_MS);
        let Some(conn) = self.registered_conn().filter(|_| due) else {
            return;
        };
        self.samples.reported_at = Some(now);
        let mut usage = self.samples.usage.clone();
        usage.corrections = std::mem::take(&mut self.samples.unreported);
        out.tell(conn, AgentToMaster::Usage(usage));
        let classes = self.samples.classes.due(now);
        if !classes.is_empty() {
            out.tell(conn, AgentToMaster::Classes(classes));
        }
    }

    /// Containers that run and are not being ended, in the order of their ids.
    pub(super) fn lending_views(&self) -> Vec<RunningView> {
        self.containers
            .iter()
            .filter_map(|(container_id, owner)| match owner {
                Owner::Task(key) => self.view_of_task(key, container_id),
                Owner::Executor(key) => self.view_of_executor(key, container_id),
            })
            .collect()
    }

    fn view_of_task(&self, key: &TaskKey, container_id: &ContainerId) -> Option<RunningView> {
        let task = self.tasks.get(key)?;
        (task.phase == Phase::Running).then(|| RunningView {
            container_id: container_id.clone(),
            framework_id: key.0.clone(),
            task_id: key.1.clone(),
            allocated: task.info.usable(),
            cpu_limit_milli: task.info.cpu_limit_milli,
            started_at: task.started_at.unwrap_or_default(),
            ends_at: ends_at(task),
            siblings: self.samples.classes.siblings(container_id),
        })
    }

    /// An executor's container counts as one task, named after its first one, else after itself.
    fn view_of_executor(
        &self,
        key: &ExecutorKey,
        container_id: &ContainerId,
    ) -> Option<RunningView> {
        let executor = self.executors.get(key)?;
        if executor.phase != Phase::Running {
            return None;
        }
        let first = self
            .live_tasks_of(key)
            .next()
            .map(|(task_key, _)| task_key.1.clone());
        Some(RunningView {
            container_id: container_id.clone(),
            framework_id: key.0.clone(),
            task_id: first.or_else(|| TaskId::new(key.1.as_str()).ok())?,
            allocated: self.executor_resources(key),
            cpu_limit_milli: None,
            started_at: executor.ordered_at,
            ends_at: None,
            siblings: self.samples.classes.siblings(container_id),
        })
    }

    /// Carries a decision out, if its container is still there.
    pub(super) fn correct(&mut self, correction: &Correction, out: &mut Outbox) {
        let carried_out = match self.containers.get(&correction.container_id).cloned() {
            Some(Owner::Task(key)) => self.correct_task(&key, correction, out),
            Some(Owner::Executor(key)) => self.correct_executor(&key, correction, out),
            None => false,
        };
        if !carried_out {
            self.counters.stale_corrections += 1;
            return;
        }
        out.effect(Effect::Observe(Observation::Corrected(correction.clone())));
        if self.samples.unreported.len() >= MAX_CORRECTIONS_PER_REPORT {
            self.samples.unreported.remove(0);
            self.counters.corrections_unreported += 1;
        }
        self.samples.unreported.push(correction.clone());
    }

    fn correct_task(&mut self, key: &TaskKey, correction: &Correction, out: &mut Outbox) -> bool {
        let Some(task) = self.tasks.get_mut(key) else {
            return false;
        };
        if task.phase != Phase::Running || !task.info.resources.is_revocable() {
            return false;
        }
        let is_ending = task.ending.is_some();
        if correction.action == CorrectionAction::Evict {
            self.counters.evictions += u64::from(!is_ending);
            let own_ms = task.info.kill_grace_ms.unwrap_or(DEFAULT_GRACE_MS);
            let grace_ms = own_ms.min(correction.grace_ms);
            let why = eviction_sentence(correction);
            if grace_ms > 0 && !is_ending && task.has_own_container() {
                let (state, now) = (task.state, self.now);
                let says = Says::because(
                    Reason::ContainerPreempted,
                    format!("Warned: it is evicted in {grace_ms} ms. {why}"),
                );
                self.report(key, state, says, now, out);
            }
            // Also where a longer grace is running: it is brought forward.
            self.end_task(key, EndCause::Evicted(why), Some(grace_ms), out);
            return true;
        }
        if is_ending {
            return false;
        }
        let container_id = task.container_id.clone();
        restrain(&mut task.frozen, container_id, correction.action, out);
        true
    }

    fn correct_executor(
        &mut self,
        key: &ExecutorKey,
        correction: &Correction,
        out: &mut Outbox,
    ) -> bool {
        let revocable = self.executor_resources(key).is_revocable();
        let now = self.now;
        let Some(executor) = self.executors.get_mut(key) else {
            return false;
        };
        if executor.phase != Phase::Running || !revocable {
            return false;
        }
        if correction.action == CorrectionAction::Evict {
            self.counters.evictions += u64::from(executor.ending.is_none());
            executor.ending = Some(Ending {
                cause: EndCause::Evicted(eviction_sentence(correction)),
                forced_at: now,
            });
            out.persist(Record::Executor(Box::new(executor.record())));
            self.force_executor(key, out);
            return true;
        }
        if executor.ending.is_some() {
            return false;
        }
        let container_id = executor.container_id.clone();
        restrain(&mut executor.frozen, container_id, correction.action, out);
        true
    }
}

/// When a task will have ended: the agent ends it once it has run for as long as it may, and its grace is over.
fn ends_at(task: &Task) -> Option<Timestamp> {
    let limit_ms = task.info.max_completion_ms?;
    let grace_ms = task.info.kill_grace_ms.unwrap_or(DEFAULT_GRACE_MS);
    Some(task.started_at?.plus_ms(limit_ms.saturating_add(grace_ms)))
}

/// Caps, limits, freezes or releases a container, or takes memory from it.
fn restrain(
    frozen: &mut bool,
    container_id: ContainerId,
    action: CorrectionAction,
    out: &mut Outbox,
) {
    let cap = match action {
        CorrectionAction::Freeze => {
            *frozen = true;
            out.effect(Effect::Freeze { container_id });
            return;
        }
        CorrectionAction::LimitNetwork { .. } | CorrectionAction::ReleaseNetwork => {
            let bytes_per_s = match action {
                CorrectionAction::LimitNetwork { bytes_per_s } => Some(bytes_per_s),
                _ => None,
            };
            out.effect(Effect::LimitNetwork {
                container_id,
                bytes_per_s,
            });
            return;
        }
        CorrectionAction::ReclaimMemory { .. } | CorrectionAction::ReleaseMemory => {
            let to_bytes = match action {
                CorrectionAction::ReclaimMemory { to_bytes } => Some(to_bytes),
                _ => None,
            };
            out.effect(Effect::ReclaimMemory {
                container_id,
                to_bytes,
            });
            return;
        }
        CorrectionAction::Throttle { cpu_milli } => Some(cpu_milli),
        CorrectionAction::Release | CorrectionAction::Evict => None,
    };
    out.effect(Effect::Throttle {
        container_id: container_id.clone(),
        cpu_milli: cap,
    });
    if std::mem::take(frozen) {
        out.effect(Effect::Thaw { container_id });
    }
}

/// What a framework is told of an eviction.
fn eviction_sentence(correction: &Correction) -> String {
    let whose = correction
        .on_behalf_of
        .as_ref()
        .map_or_else(|| "the machine".to_owned(), |task| format!("task {task}"));
    let normal = correction
        .baseline
        .map_or_else(String::new, |normal| format!(", {normal} is normal"));
    let choice = &correction.choice;
    format!(
        "Preempted: {whose} needed its resources back; {} was {} (more than {} allows{normal}) for {} ms; \
         chosen by {} of {} as number {} of {}",
        correction.signal.name(),
        correction.value,
        correction.threshold,
        correction.duration_ms,
        choice.rule.name(),
        choice.amount,
        choice.rank,
        choice.candidates
    )
}

/// What two bags hold together of the resources that a container may use.
pub(super) fn sum(first: Resources, second: &Resources) -> Resources {
    debug_assert!(
        ResourceKind::ALL
            .into_iter()
            .all(|kind| first.total(kind).checked_add(second.total(kind)).is_some()),
        "valid quantities never overflow"
    );
    first.saturating_add(second)
}
