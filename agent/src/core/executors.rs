//! Executors of frameworks' own: one container that runs many tasks of one framework.
//!
//! The executor dials the agent's socket, subscribes, is given tasks, and reports their states; the
//! agent records each status before it confirms it. When the executor ends, its tasks end.
//!
//! A task is *queued* until its executor has it. On a new session the executor names the tasks that
//! it knows without a confirmed status: queued ones among them have reached it, the others have not
//! and are given to it then, so that no task is given twice.

use std::collections::BTreeMap;

use ebb_types::{
    AgentToMaster, ContainerId, ExitStatus, FrameworkId, Reason, Resources, Source, TaskId,
    TaskInfo, TaskKey, TaskState, TaskStatus,
};

use super::account::{Holder, Since};
use super::classes::End;
use super::container::Verdict;
use super::disks::name_devices;
use super::launch::Refusal;
use super::record::{EndCause, Ending, ExecutorRecord};
use super::sample::sum;
use super::state::{Core, Executor, Outbox, Owner, Phase, Task};
use super::timers::Timer;
use super::updates::Says;
use super::{
    EXECUTOR_REGISTRATION_TIMEOUT_MS, EXECUTOR_REREGISTRATION_TIMEOUT_MS,
    EXECUTOR_SHUTDOWN_GRACE_MS, Effect, ExecutorCall, ExecutorEvent, ExecutorKey, Exit,
    FORCED_KILL_RETRY_MS, Found, LaunchOrder, MAX_EXECUTORS, Record, Session,
};

impl Core {
    /// Takes over the executors that were on disk.
    pub(super) fn adopt_executors(&mut self, records: BTreeMap<ExecutorKey, ExecutorRecord>) {
        for (key, record) in records {
            self.held = self.held.saturating_add(&record.info.resources);
            self.hold_lots(&record.info.lots);
            self.containers
                .insert(record.container_id.clone(), Owner::Executor(key.clone()));
            let executor = Executor {
                framework_id: record.framework_id,
                user: record.user,
                info: record.info,
                container_id: record.container_id,
                phase: if record.started {
                    Phase::Running
                } else {
                    Phase::Launching
                },
                ordered_at: self.now,
                session: None,
                given: true,
                ending: record.ending,
                frozen: false,
                gpus: record.gpus,
            };
            self.executors.insert(key, executor);
        }
    }

    /// Which rule a task breaks that names an executor.
    pub(super) fn executor_refusal(
        &self,
        framework_id: &FrameworkId,
        info: &TaskInfo,
    ) -> Option<Refusal> {
        let wanted = info.executor.as_ref()?;
        let key = (framework_id.clone(), wanted.executor_id.clone());
        match self.executors.get(&key) {
            None if self.executors.len() >= MAX_EXECUTORS => Some(Refusal::dropped(
                Reason::ResourcesUnknown,
                format!(
                    "The agent runs {MAX_EXECUTORS} executors, which is the most that it takes"
                ),
            )),
            None => None,
            Some(known) if known.ending.is_some() => Some(Refusal::dropped(
                Reason::ExecutorTerminated,
                "The executor is being shut down; launch the task anew",
            )),
            Some(known) if known.info != *wanted => Some(Refusal {
                state: TaskState::Error,
                reason: Reason::TaskInvalid,
                message: format!(
                    "Executor {} runs already with another description",
                    wanted.executor_id
                ),
            }),
            Some(_) => None,
        }
    }

    /// The live tasks of an executor.
    pub(super) fn live_tasks_of<'a>(
        &'a self,
        key: &'a ExecutorKey,
    ) -> impl Iterator<Item = (&'a TaskKey, &'a Task)> + 'a {
        self.tasks.iter().filter(move |(task_key, task)| {
            task_key.0 == key.0
                && task.is_live()
                && task
                    .info
                    .executor
                    .as_ref()
                    .is_some_and(|executor| executor.executor_id == key.1)
        })
    }

    /// What the container of an executor may use: its own and its tasks' resources.
    pub(super) fn executor_resources(&self, key: &ExecutorKey) -> Resources {
        let own = self
            .executors
            .get(key)
            .map_or(Resources::ZERO, |executor| executor.info.usable());
        self.live_tasks_of(key)
            .fold(own, |all, (_, task)| sum(all, &task.info.usable()))
    }

    /// Gives a new task to its executor, which is started first if it does not run.
    pub(super) fn give_to_executor(&mut self, task_key: &TaskKey, out: &mut Outbox) {
        let Some(key) = self.executor_key(task_key) else {
            return;
        };
        if self.executors.contains_key(&key) {
            self.resize_executor(&key, out);
            self.deliver(&key, task_key, out);
        } else {
            self.launch_executor(&key, task_key, out);
        }
    }

    fn executor_key(&self, task_key: &TaskKey) -> Option<ExecutorKey> {
        let executor = self.tasks.get(task_key)?.info.executor.as_ref()?;
        Some((task_key.0.clone(), executor.executor_id.clone()))
    }

    fn launch_executor(&mut self, key: &ExecutorKey, task_key: &TaskKey, out: &mut Outbox) {
        let Some(task) = self.tasks.get(task_key) else {
            return;
        };
        let Some(info) = task.info.executor.clone() else {
            return;
        };
        let executor = Executor {
            framework_id: key.0.clone(),
            user: task.user.clone(),
            container_id: task.container_id.clone(),
            phase: Phase::Launching,
            ordered_at: self.now,
            session: None,
            given: false,
            ending: None,
            frozen: false,
            gpus: self.choose_gpus(&info.lots),
            info,
        };
        out.persist(Record::Executor(Box::new(executor.record())));
        let mut environment = vec![
            ("EBB_FRAMEWORK_ID".to_owned(), key.0.to_string()),
            ("EBB_EXECUTOR_ID".to_owned(), key.1.to_string()),
            (
                "EBB_CONTAINER_ID".to_owned(),
                executor.container_id.to_string(),
            ),
        ];
        environment.extend(
            self.agent_id
                .as_ref()
                .map(|id| ("EBB_AGENT_ID".to_owned(), id.to_string())),
        );
        self.name_gpus(&executor.gpus, &mut environment);
        Self::name_ports(&executor.info.lots, &mut environment);
        let devices = name_devices(&executor.info.lots, &mut environment);
        let command = executor.info.command.clone();
        let mut order = LaunchOrder {
            container_id: executor.container_id.clone(),
            framework_id: key.0.clone(),
            task_id: None,
            executor_id: Some(key.1.clone()),
            user: command
                .user
                .clone()
                .unwrap_or_else(|| executor.user.clone()),
            command,
            environment,
            resources: Resources::ZERO,
            volumes: self.mounts(&executor.info.lots),
            devices,
            cpu_limit_milli: None,
            warn_signal: None,
        };
        let own = executor.info.resources;
        let lots = executor.info.lots.clone();
        let container_id = order.container_id.clone();
        let holder = Holder::of_executor(key);
        self.samples
            .container_began(self.now, &container_id, holder, Since::Launch);
        self.containers
            .insert(container_id, Owner::Executor(key.clone()));
        self.executors.insert(key.clone(), executor);
        self.hold(&own);
        self.hold_lots(&lots);
        order.resources = self.executor_resources(key);
        out.effect(Effect::Launch(Box::new(order)));
    }

    fn resize_executor(&self, key: &ExecutorKey, out: &mut Outbox) {
        if let Some(executor) = self.executors.get(key)
            && executor.phase == Phase::Running
        {
            out.effect(Effect::Resize {
                container_id: executor.container_id.clone(),
                resources: self.executor_resources(key),
            });
        }
    }

    /// Sends a queued task to its executor if that has subscribed.
    fn deliver(&mut self, key: &ExecutorKey, task_key: &TaskKey, out: &mut Outbox) {
        let Some(executor) = self.executors.get_mut(key) else {
            return;
        };
        let (Some(session), Some(task)) = (executor.session, self.tasks.get_mut(task_key)) else {
            return;
        };
        if task.phase != Phase::Queued {
            return;
        }
        executor.given = true;
        task.phase = Phase::Running;
        let event = ExecutorEvent::Launch(Box::new(task.info.clone()));
        say(session, event, out);
    }

    /// The container of an executor runs.
    pub(super) fn executor_started(&mut self, key: &ExecutorKey, out: &mut Outbox) {
        let until = self.now.plus_ms(EXECUTOR_REGISTRATION_TIMEOUT_MS);
        let Some(executor) = self.executors.get_mut(key) else {
            return;
        };
        if executor.phase != Phase::Launching {
            return;
        }
        executor.phase = Phase::Running;
        out.note(Record::Executor(Box::new(executor.record())));
        let ending = executor.ending.is_some();
        let subscribed = executor.session.is_some();
        self.resize_executor(key, out);
        if ending {
            self.ask_executor_to_end(key, out);
        } else if !subscribed {
            self.timers.set(Timer::Subscription(key.clone()), until);
        }
    }

    /// An executor did not subscribe in time: it and its tasks end.
    pub(super) fn subscription_timed_out(&mut self, key: &ExecutorKey, out: &mut Outbox) {
        let now = self.now;
        let Some(executor) = self.executors.get_mut(key) else {
            return;
        };
        if executor.session.is_some() {
            return;
        }
        let (reason, message) = if executor.given {
            (
                Reason::ExecutorReregistrationTimeout,
                "The executor did not subscribe again in time",
            )
        } else {
            (
                Reason::ExecutorRegistrationTimeout,
                "The executor did not subscribe in time",
            )
        };
        executor.ending = Some(Ending {
            cause: EndCause::ExecutorShutdown,
            forced_at: now,
        });
        out.persist(Record::Executor(Box::new(executor.record())));
        self.fail_tasks_of(key, TaskState::Failed, reason, message, out);
        self.force_executor(key, out);
    }

    fn fail_tasks_of(
        &mut self,
        key: &ExecutorKey,
        state: TaskState,
        reason: Reason,
        message: &str,
        out: &mut Outbox,
    ) {
        let tasks: Vec<TaskKey> = self
            .live_tasks_of(key)
            .map(|(key, _)| key.clone())
            .collect();
        for task_key in tasks {
            let says = Says::because(reason, message);
            self.task_ended(&task_key, Verdict { state, says }, out);
        }
    }

    /// The container of an executor has ended.
    pub(super) fn executor_exited(&mut self, key: &ExecutorKey, exit: &Exit, out: &mut Outbox) {
        let sentence = exit.launch_error.clone().unwrap_or_else(|| {
            exit.status.map_or_else(
                || "The executor ended without leaving an exit status".to_owned(),
                |status| format!("The executor has ended: {}", status.sentence()),
            )
        });
        let reason = if exit.launch_error.is_some() {
            Reason::ContainerLaunchFailed
        } else if exit.oom {
            Reason::ContainerLimitationMemory
        } else {
            Reason::ExecutorTerminated
        };
        self.executor_ended(key, exit.status, reason, &sentence, out);
    }

    /// An executor is no more, and neither are its tasks.
    pub(super) fn executor_ended(
        &mut self,
        key: &ExecutorKey,
        status: Option<ExitStatus>,
        reason: Reason,
        why: &str,
        out: &mut Outbox,
    ) {
        let Some(executor) = self.executors.get(key) else {
            return;
        };
        let evicted = match executor.ending.as_ref().map(|ending| &ending.cause) {
            Some(EndCause::Evicted(why)) => Some(why.clone()),
            _ => None,
        };
        match evicted {
            Some(why) => {
                let reason = Reason::ContainerPreempted;
                self.fail_tasks_of(key, TaskState::Gone, reason, &why, out);
            }
            None => self.fail_tasks_of(key, TaskState::Failed, reason, why, out),
        }
        let Some(executor) = self.executors.remove(key) else {
            return;
        };
        self.containers.remove(&executor.container_id);
        self.samples
            .container_ended(self.now, &executor.container_id, End::Other);
        self.release(&executor.info.resources);
        self.release_lots(&executor.info.lots);
        self.timers.clear(&Timer::Subscription(key.clone()));
        self.timers.clear(&Timer::ExecutorForced(key.clone()));
        out.persist(Record::ExecutorForgotten {
            framework_id: key.0.clone(),
            executor_id: key.1.clone(),
        });
        if let Some(session) = executor.session {
            out.effect(Effect::DropExecutor { session });
        }
        let status = match status {
            Some(ExitStatus::Code(code)) => (code & 0xff) << 8,
            Some(ExitStatus::Signal(signal)) => signal,
            None => -1,
        };
        let message = AgentToMaster::ExecutorExited {
            framework_id: key.0.clone(),
            executor_id: key.1.clone(),
            status,
        };
        self.tell_end(message, out);
    }

    /// What stands of an executor after a restart of the agent.
    pub(super) fn recover_executor(
        &mut self,
        key: &ExecutorKey,
        container_id: &ContainerId,
        found: Option<&Found>,
        out: &mut Outbox,
    ) {
        let until = self.now.plus_ms(EXECUTOR_REREGISTRATION_TIMEOUT_MS);
        match found {
            Some(Found::Running) => {
                self.counters.adopted += 1;
                let holder = Holder::of_executor(key);
                self.samples
                    .container_began(self.now, container_id, holder, Since::Before);
                self.lift_all_caps(container_id, out);
                let Some(executor) = self.executors.get_mut(key) else {
                    return;
                };
                executor.phase = Phase::Running;
                if executor.ending.is_some() {
                    self.ask_executor_to_end(key, out);
                } else {
                    self.timers.set(Timer::Subscription(key.clone()), until);
                }
            }
            Some(Found::Ended(exit)) => self.executor_exited(key, exit, out),
            None => {
                let why = "The executor's container was gone when the agent came back";
                self.executor_ended(key, None, Reason::ExecutorTerminated, why, out);
            }
        }
        if found != Some(&Found::Running) {
            out.effect(Effect::Destroy {
                container_id: container_id.clone(),
            });
        }
    }

    /// The framework wants one of its executors ended.
    pub(super) fn shutdown_executor(&mut self, key: &ExecutorKey, out: &mut Outbox) {
        if self.executors.contains_key(key) {
            self.shut_executor(key, EndCause::ExecutorShutdown, out);
        } else {
            self.counters.orders_for_unknown += 1;
        }
    }

    /// Ends an executor: asks it to, and uses force after 5 s.
    pub(super) fn shut_executor(&mut self, key: &ExecutorKey, cause: EndCause, out: &mut Outbox) {
        let forced_at = self.now.plus_ms(EXECUTOR_SHUTDOWN_GRACE_MS);
        let Some(executor) = self.executors.get_mut(key) else {
            return;
        };
        if executor.ending.is_some() {
            return;
        }
        executor.ending = Some(Ending { cause, forced_at });
        out.persist(Record::Executor(Box::new(executor.record())));
        if executor.phase == Phase::Launching {
            out.effect(Effect::CancelLaunch {
                container_id: executor.container_id.clone(),
            });
        } else {
            self.ask_executor_to_end(key, out);
        }
    }

    fn ask_executor_to_end(&mut self, key: &ExecutorKey, out: &mut Outbox) {
        let now = self.now;
        let Some(executor) = self.executors.get_mut(key) else {
            return;
        };
        let container_id = executor.container_id.clone();
        if std::mem::take(&mut executor.frozen) {
            out.effect(Effect::Thaw {
                container_id: container_id.clone(),
            });
        }
        match executor.session {
            Some(session) => say(session, ExecutorEvent::Shutdown, out),
            None => out.effect(Effect::Terminate { container_id }),
        }
        let forced_at = executor
            .ending
            .as_ref()
            .map_or(now, |ending| ending.forced_at.max(now));
        self.timers.clear(&Timer::Subscription(key.clone()));
        self.timers
            .set(Timer::ExecutorForced(key.clone()), forced_at);
    }

    /// Ends an executor by force, again and again until its end is seen.
    pub(super) fn force_executor(&mut self, key: &ExecutorKey, out: &mut Outbox) {
        let again = self.now.plus_ms(FORCED_KILL_RETRY_MS);
        if let Some(executor) = self.executors.get(key)
            && executor.phase == Phase::Running
        {
            out.effect(Effect::KillContainer {
                container_id: executor.container_id.clone(),
            });
            self.timers.set(Timer::ExecutorForced(key.clone()), again);
        }
    }

    /// Ends one task of an executor: one that it has not been given is over at once.
    pub(super) fn end_executor_task(&mut self, task_key: &TaskKey, out: &mut Outbox) {
        let now = self.now;
        let Some(key) = self.executor_key(task_key) else {
            return;
        };
        let Some(task) = self.tasks.get(task_key) else {
            return;
        };
        if task.phase == Phase::Queued {
            let verdict = super::container::not_started(task, String::new());
            self.task_ended(task_key, verdict, out);
            self.resize_executor(&key, out);
            return;
        }
        let grace_ms = task
            .ending
            .as_ref()
            .map_or(0, |ending| ending.forced_at.ms_since(now));
        if let Some(session) = self
            .executors
            .get(&key)
            .and_then(|executor| executor.session)
        {
            let task_id = task_key.1.clone();
            say(session, ExecutorEvent::Kill { task_id, grace_ms }, out);
        }
    }

    /// Bytes of a scheduler; dropped when the executor does not listen.
    pub(super) fn message_to_executor(
        &mut self,
        key: &ExecutorKey,
        data: Vec<u8>,
        out: &mut Outbox,
    ) {
        match self
            .executors
            .get(key)
            .and_then(|executor| executor.session)
        {
            Some(session) => say(session, ExecutorEvent::Message(data), out),
            None => self.counters.messages_dropped += 1,
        }
    }

    /// The connection of an executor is gone; it has some time to come back.
    pub(super) fn executor_gone(&mut self, session: Session, _out: &mut Outbox) {
        let until = self.now.plus_ms(EXECUTOR_REREGISTRATION_TIMEOUT_MS);
        let gone = self
            .executors
            .iter_mut()
            .find(|(_, executor)| executor.session == Some(session));
        if let Some((key, executor)) = gone {
            executor.session = None;
            if executor.ending.is_none() {
                self.timers.set(Timer::Subscription(key.clone()), until);
            }
        }
    }

    /// An executor speaks.
    pub(super) fn hear_executor(
        &mut self,
        session: Session,
        key: &ExecutorKey,
        call: ExecutorCall,
        out: &mut Outbox,
    ) {
        let Some(executor) = self.executors.get(key) else {
            refuse(session, "The agent runs no such executor", out);
            return;
        };
        let current = executor.session;
        if let ExecutorCall::Subscribe {
            unacknowledged_tasks,
            unacknowledged_updates,
            ..
        } = call
        {
            if current.is_some_and(|current| current >= session) {
                refuse(session, "A later session of this executor stands", out);
                return;
            }
            if let Some(before) = current {
                out.effect(Effect::DropExecutor { session: before });
            }
            self.subscribe(
                session,
                key,
                &unacknowledged_tasks,
                unacknowledged_updates,
                out,
            );
            return;
        }
        if current != Some(session) {
            refuse(session, "Subscribe first", out);
            return;
        }
        match call {
            ExecutorCall::Update(status) => self.executor_update(session, key, status, out),
            ExecutorCall::Message(data) => match self.registered_conn() {
                Some(conn) => out.tell(
                    conn,
                    AgentToMaster::Message {
                        framework_id: key.0.clone(),
                        executor_id: key.1.clone(),
                        data,
                    },
                ),
                None => self.counters.messages_dropped += 1,
            },
            ExecutorCall::Subscribe { .. } => {}
        }
    }

    fn subscribe(
        &mut self,
        session: Session,
        key: &ExecutorKey,
        has: &[TaskId],
        updates: Vec<TaskStatus>,
        out: &mut Outbox,
    ) {
        let (Some(agent_id), Some(executor)) = (self.agent_id.clone(), self.executors.get_mut(key))
        else {
            return;
        };
        executor.session = Some(session);
        let ending = executor.ending.is_some();
        let event = ExecutorEvent::Subscribed {
            executor: executor.info.clone(),
            agent_id,
            container_id: executor.container_id.clone(),
        };
        self.timers.clear(&Timer::Subscription(key.clone()));
        say(session, event, out);
        for status in updates {
            self.executor_update(session, key, status, out);
        }
        if ending {
            self.ask_executor_to_end(key, out);
            return;
        }
        let tasks: Vec<TaskKey> = self
            .live_tasks_of(key)
            .map(|(key, _)| key.clone())
            .collect();
        for task_key in &tasks {
            if let Some(task) = self.tasks.get_mut(task_key)
                && task.phase == Phase::Queued
                && has.contains(&task_key.1)
            {
                task.phase = Phase::Running;
            }
            self.deliver(key, task_key, out);
            if self
                .tasks
                .get(task_key)
                .is_some_and(|task| task.ending.is_some())
            {
                self.end_executor_task(task_key, out);
            }
        }
        if tasks.is_empty()
            && self
                .executors
                .get(key)
                .is_some_and(|executor| !executor.given)
        {
            self.shut_executor(key, EndCause::ExecutorShutdown, out);
        }
    }

    /// A status that an executor made: recorded, confirmed to it, forwarded.
    fn executor_update(
        &mut self,
        session: Session,
        key: &ExecutorKey,
        mut status: TaskStatus,
        out: &mut Outbox,
    ) {
        let now = self.now;
        let Some(uuid) = status.uuid else {
            refuse(session, "An update needs a uuid of 16 bytes", out);
            return;
        };
        if status.state == TaskState::Staging {
            refuse(
                session,
                "TASK_STAGING is not a state that executors report",
                out,
            );
            return;
        }
        let task_key = (key.0.clone(), status.task_id.clone());
        let acknowledged = ExecutorEvent::Acknowledged {
            task_id: status.task_id.clone(),
            uuid,
        };
        let is_mine = self.executor_key(&task_key).as_ref() == Some(key);
        let task = self.tasks.get_mut(&task_key);
        let Some(task) = task.filter(|task| is_mine && task.is_live()) else {
            self.counters.executor_updates_dropped += 1;
            say(session, acknowledged, out);
            return;
        };
        let known = task.updates.iter().any(|queued| queued.uuid == Some(uuid));
        let terminal = status.state.is_terminal();
        if known || (!terminal && !task.updates.has_room()) {
            self.counters.executor_updates_dropped += 1;
            say(session, acknowledged, out);
            return;
        }
        if task.phase == Phase::Queued {
            task.phase = Phase::Running;
        }
        complete_status(&mut status, task, key, self.agent_id.clone());
        if status.timestamp.as_ms() == 0 {
            status.timestamp = now;
        }
        let limit_ms = task.info.max_completion_ms;
        let first_run = status.state == TaskState::Running && task.started_at.is_none();
        if terminal {
            self.end_by_executor(&task_key, status, out);
            self.resize_executor(key, out);
        } else {
            self.queue_status(&task_key, status, now, out);
            if let (true, Some(limit_ms)) = (first_run, limit_ms) {
                self.timers
                    .set(Timer::Completion(task_key), now.plus_ms(limit_ms));
            }
        }
        say(session, acknowledged, out);
    }
}

/// What the agent knows better than the executor.
fn complete_status(
    status: &mut TaskStatus,
    task: &Task,
    key: &ExecutorKey,
    agent_id: Option<ebb_types::AgentId>,
) {
    status.source = Source::Executor;
    status.agent_id = agent_id;
    status.executor_id = Some(key.1.clone());
    status.container_id = Some(task.container_id.clone());
    let overran = task
        .ending
        .as_ref()
        .is_some_and(|ending| ending.cause == EndCause::MaxCompletion);
    if overran && status.state == TaskState::Killed {
        status.state = TaskState::Failed;
        status.reason = Some(Reason::MaxCompletionTimeReached);
    }
}

/// Tells an executor.
fn say(session: Session, event: ExecutorEvent, out: &mut Outbox) {
    out.effect(Effect::ToExecutor {
        session,
        event: Box::new(event),
    });
}

/// Ends a session with a sentence.
fn refuse(session: Session, why: &str, out: &mut Outbox) {
    say(session, ExecutorEvent::Error(why.to_owned()), out);
    out.effect(Effect::DropExecutor { session });
}
