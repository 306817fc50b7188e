//! What the core knows.

use std::collections::BTreeMap;

use ebb_types::{
    AgentId, AgentInfo, AgentToMaster, AgentUsage, ContainerId, ExecutorId, ExecutorInfo,
    FrameworkId, Generation, Incarnation, Lots, Quantities, Resources, TaskInfo, TaskKey,
    TaskState, Timestamp, UpdateUuid,
};

use super::account::Account;
use super::classes::ClassCounters;
use super::lending;
use super::lots::{LotState, with_dynamic};
use super::sample::Samples;
use super::timers::{Timer, Timers};
use super::updates::Updates;
use super::{
    Conn, CoreConfig, Effect, Ending, ExecutorKey, ExecutorRecord, Record, Restored, Session,
    TaskRecord,
};

/// How far the container of a task or executor is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// The task waits for its executor to subscribe.
    Queued,
    /// The container's start was ordered.
    Launching,
    /// It runs; for the task of an executor: the executor has it.
    Running,
    /// It has ended; only statuses are left to be told.
    Ended,
}

/// One task.
#[derive(Clone, Debug)]
pub(super) struct Task {
    pub(super) framework_id: FrameworkId,
    pub(super) user: String,
    pub(super) info: TaskInfo,
    pub(super) container_id: ContainerId,
    pub(super) state: TaskState,
    pub(super) phase: Phase,
    pub(super) ordered_at: Timestamp,
    pub(super) started_at: Option<Timestamp>,
    pub(super) ending: Option<Ending>,
    pub(super) updates: Updates,
    pub(super) frozen: bool,
    pub(super) gpus: Vec<u32>,
}

impl Task {
    pub(super) fn record(&self) -> TaskRecord {
        TaskRecord {
            framework_id: self.framework_id.clone(),
            user: self.user.clone(),
            info: self.info.clone(),
            container_id: self.container_id.clone(),
            state: self.state,
            started_at: self.started_at,
            ending: self.ending.clone(),
            updates: self.updates.iter().cloned().collect(),
            gpus: self.gpus.clone(),
        }
    }

    /// Whether it runs in a container of its own.
    pub(super) fn has_own_container(&self) -> bool {
        self.info.executor.is_none()
    }

    /// Whether it holds resources.
    pub(super) fn is_live(&self) -> bool {
        self.phase != Phase::Ended
    }
}

/// One executor of a framework's own.
#[derive(Clone, Debug)]
pub(super) struct Executor {
    pub(super) framework_id: FrameworkId,
    pub(super) user: String,
    pub(super) info: ExecutorInfo,
    pub(super) container_id: ContainerId,
    pub(super) phase: Phase,
    pub(super) ordered_at: Timestamp,
    pub(super) session: Option<Session>,
    /// Whether it was ever given a task.
    pub(super) given: bool,
    pub(super) ending: Option<Ending>,
    pub(super) frozen: bool,
    pub(super) gpus: Vec<u32>,
}

impl Executor {
    pub(super) fn record(&self) -> ExecutorRecord {
        ExecutorRecord {
            framework_id: self.framework_id.clone(),
            user: self.user.clone(),
            info: self.info.clone(),
            container_id: self.container_id.clone(),
            started: self.phase == Phase::Running,
            ending: self.ending.clone(),
            gpus: self.gpus.clone(),
        }
    }
}

/// Whose a container is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Owner {
    Task(TaskKey),
    Executor(ExecutorKey),
}

/// The connection to the master.
#[derive(Clone, Copy, Debug)]
pub(super) struct Link {
    pub(super) conn: Conn,
    pub(super) registered: bool,
    pub(super) heard_at: Timestamp,
    pub(super) heartbeat_interval_ms: u64,
    pub(super) unreachable_after_ms: u64,
}

/// What has been counted since the start; each only rises.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Messages of an earlier connection or generation, which were refused.
    pub stale_messages: u64,
    /// Orders that came before the registration was answered, which were refused.
    pub early_messages: u64,
    /// Launches of a task that is known already, which were ignored.
    pub duplicate_launches: u64,
    /// Launches that were refused with a status.
    pub refused_launches: u64,
    /// Kills and messages for what is not known, which were ignored.
    pub orders_for_unknown: u64,
    /// Acknowledgements that name nothing that waits for one.
    pub acknowledgements_ignored: u64,
    /// Statuses sent, repetitions included.
    pub updates_sent: u64,
    /// Statuses sent again because no acknowledgement came.
    pub updates_retried: u64,
    /// Statuses of executors that were not forwarded.
    pub executor_updates_dropped: u64,
    /// Messages between schedulers and executors that were dropped.
    pub messages_dropped: u64,
    /// Containers that were found and belong to no known task.
    pub orphans: u64,
    /// Corrections whose container is no more.
    pub stale_corrections: u64,
    /// Corrections that a report had no room for.
    pub corrections_unreported: u64,
    /// Tasks that were ended to give their resources back.
    pub evictions: u64,
    /// Tasks that were found running after a restart.
    pub adopted: u64,
    /// Orders about lots that did not fit the agent.
    pub lots_refused: u64,
    /// Lent resources set to nothing because there were no fresh samples.
    pub stale_samples: u64,
}

/// The state machine of an agent.
#[derive(Clone, Debug)]
pub struct Core {
    pub(super) config: CoreConfig,
    pub(super) incarnation: Incarnation,
    pub(super) agent_id: Option<AgentId>,
    pub(super) generation: Generation,
    pub(super) now: Timestamp,
    pub(super) link: Option<Link>,
    /// What the master hears once it has answered: ends of what the registration has named, of which no status is kept.
    pub(super) owed: Vec<AgentToMaster>,
    pub(super) last_conn: Conn,
    pub(super) recovered: bool,
    pub(super) shutting_down: bool,
    pub(super) tasks: BTreeMap<TaskKey, Task>,
    pub(super) executors: BTreeMap<ExecutorKey, Executor>,
    pub(super) containers: BTreeMap<ContainerId, Owner>,
    /// What live tasks and executors hold.
    pub(super) held: Resources,
    pub(super) lots: LotState,
    /// What the tasks that were restored held: they may run on though the agent has less now.
    pub(super) restored_held: Resources,
    pub(super) timers: Timers,
    pub(super) uuid_count: u64,
    pub(super) container_count: u64,
    pub(super) pending_updates: usize,
    pub(super) samples: Samples,
    pub(super) counters: Counters,
}

/// What one step answers, in the order in which it is handed out: records first.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    records: Vec<Record>,
    durable: bool,
    effects: Vec<Effect>,
}

impl Outbox {
    /// To be durable before any effect of this step.
    pub(super) fn persist(&mut self, record: Record) {
        self.records.push(record);
        self.durable = true;
    }

    /// To be written in order; nothing waits for it.
    pub(super) fn note(&mut self, record: Record) {
        self.records.push(record);
    }

    pub(super) fn effect(&mut self, effect: Effect) {
        self.effects.push(effect);
    }

    pub(super) fn tell(&mut self, conn: Conn, message: AgentToMaster) {
        self.effects.push(Effect::ToMaster {
            conn,
            message: Box::new(message),
        });
    }

    pub(super) fn into_effects(self) -> Vec<Effect> {
        let mut effects = Vec::with_capacity(self.effects.len() + 1);
        if !self.records.is_empty() {
            effects.push(if self.durable {
                Effect::Persist(self.records)
            } else {
                Effect::Note(self.records)
            });
        }
        effects.extend(self.effects);
        effects
    }
}

/// A task, for people and metrics.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaskView {
    /// Names it.
    pub key: TaskKey,
    /// Its latest state.
    pub state: TaskState,
    /// What it is allocated.
    pub allocated: Resources,
    /// Its container.
    pub container_id: ContainerId,
    /// The framework's own executor that runs it.
    pub executor_id: Option<ExecutorId>,
    /// Whether it still holds resources.
    pub live: bool,
}

/// An executor, for people and metrics.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExecutorView {
    /// Names it.
    pub key: ExecutorKey,
    /// Its container.
    pub container_id: ContainerId,
    /// Whether it has subscribed.
    pub subscribed: bool,
}

impl Core {
    /// A core in the given life, with what was on disk. Its first input is
    /// [`super::Input::Recovered`].
    pub fn new(config: CoreConfig, restored: Restored, incarnation: Incarnation) -> Self {
        let made = with_dynamic(&config.lots, &config.total, &restored.lots);
        let lots = LotState {
            total: made.unwrap_or_else(|_| config.lots.clone()),
            dynamic: restored.lots,
            version: restored.lots_version,
            held: Lots::NONE,
        };
        let mut core = Self {
            lots,
            samples: Samples::new(&config),
            config,
            incarnation,
            agent_id: restored.agent_id,
            generation: restored.generation,
            now: Timestamp::default(),
            link: None,
            owed: Vec::new(),
            last_conn: Conn::default(),
            recovered: false,
            shutting_down: false,
            tasks: BTreeMap::new(),
            executors: BTreeMap::new(),
            containers: BTreeMap::new(),
            held: Resources::ZERO,
            restored_held: Resources::ZERO,
            timers: Timers::default(),
            uuid_count: 0,
            container_count: 0,
            pending_updates: 0,
            counters: Counters::default(),
        };
        core.adopt_executors(restored.executors);
        core.adopt_tasks(restored.tasks);
        core.restored_held = core.held;
        core
    }

    /// When the core has to be stepped with [`super::Input::Tick`] at the latest.
    pub fn next_deadline(&self) -> Option<Timestamp> {
        self.timers.next()
    }

    /// What has been counted.
    pub const fn counters(&self) -> &Counters {
        &self.counters
    }

    /// The agent's id, once it has one.
    pub const fn agent_id(&self) -> Option<&AgentId> {
        self.agent_id.as_ref()
    }

    /// The present life.
    pub const fn incarnation(&self) -> Incarnation {
        self.incarnation
    }

    /// The latest term of a master that was heard.
    pub const fn generation(&self) -> Generation {
        self.generation
    }

    /// Whether the master has answered the registration over the present connection.
    pub fn is_registered(&self) -> bool {
        self.link.is_some_and(|link| link.registered)
    }

    /// What the agent has, without what it lends.
    pub const fn total(&self) -> Quantities {
        self.config.total
    }

    /// What live tasks and executors hold.
    pub const fn held(&self) -> Resources {
        self.held
    }

    /// How many statuses are not acknowledged.
    pub const fn pending_updates(&self) -> usize {
        self.pending_updates
    }

    /// Whether anything still runs or is being started.
    pub fn is_idle(&self) -> bool {
        self.containers.is_empty()
    }

    /// Every task that is known.
    pub fn tasks(&self) -> impl Iterator<Item = TaskView> + '_ {
        self.tasks.iter().map(|(key, task)| TaskView {
            key: key.clone(),
            state: task.state,
            allocated: task.info.usable(),
            container_id: task.container_id.clone(),
            executor_id: task.info.executor.as_ref().map(|e| e.executor_id.clone()),
            live: task.is_live(),
        })
    }

    /// Every executor of frameworks' own.
    pub fn executors(&self) -> impl Iterator<Item = ExecutorView> + '_ {
        self.executors.iter().map(|(key, executor)| ExecutorView {
            key: key.clone(),
            container_id: executor.container_id.clone(),
            subscribed: executor.session.is_some(),
        })
    }

    /// Whether a task is known and has not ended.
    pub fn is_live(&self, key: &TaskKey) -> bool {
        self.tasks.get(key).is_some_and(Task::is_live)
    }

    /// What was last measured, with every task.
    pub const fn usage(&self) -> &AgentUsage {
        self.samples.usage()
    }

    /// What is lent in all, in use and not.
    pub const fn lent(&self) -> Quantities {
        self.samples.lent()
    }

    /// What each framework has used in all.
    pub const fn account(&self) -> &Account {
        self.samples.account()
    }

    /// Of how many classes of tasks it keeps what they use, and what went wrong.
    pub fn classes(&self) -> (usize, ClassCounters) {
        self.samples.classes()
    }

    /// What lending has counted.
    pub fn lending_counters(&self) -> lending::Counters {
        self.samples.lending_counters()
    }

    /// Everything as records: replayed, they give what all records so far give.
    pub fn snapshot(&self) -> Vec<Record> {
        let mut records = Vec::with_capacity(self.tasks.len() + self.executors.len() + 2);
        records.extend(self.agent_id.clone().map(Record::AgentId));
        records.push(Record::Generation(self.generation));
        if self.lots.version > 0 {
            records.push(Record::Lots {
                version: self.lots.version,
                dynamic: self.lots.dynamic.clone(),
            });
        }
        records.extend(
            self.executors
                .values()
                .map(|executor| Record::Executor(Box::new(executor.record()))),
        );
        records.extend(
            self.tasks
                .values()
                .map(|task| Record::Task(Box::new(task.record()))),
        );
        records
    }

    pub(super) fn info(&self) -> AgentInfo {
        AgentInfo {
            id: self.agent_id.clone(),
            hostname: self.config.hostname.clone(),
            port: self.config.port,
            total: self.plain(),
            lots: self.lots.total.clone(),
            lots_version: self.lots.version,
            attributes: self.config.attributes.clone(),
            version: self.config.version.clone(),
            domain: self.config.domain.clone(),
        }
    }

    pub(super) fn next_uuid(&mut self) -> UpdateUuid {
        self.uuid_count += 1;
        UpdateUuid::of(self.incarnation, self.uuid_count)
    }

    pub(super) fn hold(&mut self, resources: &Resources) {
        self.held = self.held.saturating_add(resources);
    }

    pub(super) fn release(&mut self, resources: &Resources) {
        self.held = self.held.saturating_sub(resources);
    }

    /// Forgets a task of which nothing is left to be told.
    pub(super) fn drop_task(&mut self, key: &TaskKey) {
        if let Some(task) = self.tasks.remove(key) {
            self.pending_updates -= task.updates.len();
            debug_assert!(!task.is_live(), "a task that runs is forgotten");
        }
        for timer in [
            Timer::Retry(key.clone()),
            Timer::Forced(key.clone()),
            Timer::Completion(key.clone()),
        ] {
            self.timers.clear(&timer);
        }
    }
}
