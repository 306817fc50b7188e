//! One step: what is due, then what happened, then the check.

use std::collections::BTreeMap;

use ebb_types::{ContainerId, Reason, TaskKey, TaskState, Timestamp};

use super::account::{Holder, Since};
use super::container::{Verdict, not_started, verdict};
use super::record::{EndCause, TaskRecord};
use super::state::{Core, Outbox, Owner, Phase, Task};
use super::timers::Timer;
use super::updates::{Says, Updates};
use super::{Effect, Exit, Found, Input};

impl Core {
    /// Takes in what happened and says what is to be done, in order.
    ///
    /// Time never runs backwards here: an earlier `now` counts as the last one.
    pub fn step(&mut self, now: Timestamp, input: Input) -> Vec<Effect> {
        self.now = self.now.max(now);
        let mut out = Outbox::default();
        debug_assert!(
            self.recovered || matches!(input, Input::Recovered { .. }),
            "the first input says what stands of the containers"
        );
        while let Some(timer) = self.timers.pop_due(self.now) {
            self.fire(timer, &mut out);
        }
        self.take(input, &mut out);
        #[cfg(debug_assertions)]
        if let Err(broken) = self.check() {
            panic!("an invariant of the agent's core is broken: {broken}");
        }
        out.into_effects()
    }

    fn take(&mut self, input: Input, out: &mut Outbox) {
        match input {
            Input::Recovered { containers } => self.recover(containers, out),
            Input::LinkUp { conn } => self.link_up(conn, out),
            Input::LinkDown { conn } => self.link_down(conn),
            Input::FromMaster {
                conn,
                generation,
                message,
            } => self.hear_master(conn, generation, message, out),
            Input::Started { container_id } => self.container_started(&container_id, out),
            Input::StartFailed {
                container_id,
                cancelled,
                message,
            } => self.container_failed(&container_id, cancelled, message, out),
            Input::Exited { container_id, exit } => {
                self.container_exited(&container_id, &exit, out);
            }
            Input::Sample(sample) => self.sample(&sample, out),
            Input::FromExecutor {
                session,
                framework_id,
                executor_id,
                call,
            } => self.hear_executor(session, &(framework_id, executor_id), *call, out),
            Input::ExecutorGone { session } => self.executor_gone(session, out),
            Input::ShutDown => self.shut_down(out),
            Input::Tick => {}
        }
    }

    fn fire(&mut self, timer: Timer, out: &mut Outbox) {
        let now = self.now;
        match timer {
            Timer::Registration => self.registration_timed_out(out),
            Timer::Heartbeat => self.heartbeat(now, out),
            Timer::Silence => self.silence(now, out),
            Timer::Stale => self.samples_are_stale(out),
            Timer::Retry(key) => self.retry_update(&key, now, out),
            Timer::Forced(key) => self.force(&key, out),
            Timer::Completion(key) => self.end_task(&key, EndCause::MaxCompletion, None, out),
            Timer::Subscription(key) => self.subscription_timed_out(&key, out),
            Timer::ExecutorForced(key) => self.force_executor(&key, out),
        }
    }

    /// Takes over the tasks that were on disk. What became of their containers comes with the first
    /// input.
    pub(super) fn adopt_tasks(&mut self, records: BTreeMap<TaskKey, TaskRecord>) {
        for (key, record) in records {
            let phase = match (record.state, &record.info.executor) {
                (state, _) if state.is_terminal() => Phase::Ended,
                (TaskState::Staging, Some(_)) => Phase::Queued,
                (TaskState::Staging | TaskState::Starting, None) => Phase::Launching,
                _ => Phase::Running,
            };
            let task = Task {
                framework_id: record.framework_id,
                user: record.user,
                info: record.info,
                container_id: record.container_id,
                state: record.state,
                phase,
                ordered_at: record.started_at.unwrap_or_default(),
                started_at: record.started_at,
                ending: record.ending,
                updates: Updates::restored(record.updates),
                frozen: false,
                gpus: record.gpus,
            };
            self.pending_updates += task.updates.len();
            if task.is_live() {
                self.held = self.held.saturating_add(&task.info.resources);
                self.hold_lots(&task.info.lots);
                if task.has_own_container() {
                    self.containers
                        .insert(task.container_id.clone(), Owner::Task(key.clone()));
                }
            }
            self.tasks.insert(key, task);
        }
    }

    /// Compares what was on disk with the containers that were found.
    fn recover(&mut self, found: BTreeMap<ContainerId, Found>, out: &mut Outbox) {
        if std::mem::replace(&mut self.recovered, true) {
            return;
        }
        for (container_id, state) in &found {
            if self.containers.contains_key(container_id) {
                continue;
            }
            self.counters.orphans += 1;
            if *state == Found::Running {
                out.effect(Effect::KillContainer {
                    container_id: container_id.clone(),
                });
            }
            out.effect(Effect::Destroy {
                container_id: container_id.clone(),
            });
        }
        let known: Vec<(ContainerId, Owner)> = self
            .containers
            .iter()
            .map(|(id, owner)| (id.clone(), owner.clone()))
            .collect();
        for (container_id, owner) in known {
            let state = found.get(&container_id);
            match owner {
                Owner::Task(key) => self.recover_task(&key, &container_id, state, out),
                Owner::Executor(key) => self.recover_executor(&key, &container_id, state, out),
            }
        }
    }

    fn recover_task(
        &mut self,
        key: &TaskKey,
        container_id: &ContainerId,
        found: Option<&Found>,
        out: &mut Outbox,
    ) {
        let Some(task) = self.tasks.get(key) else {
            return;
        };
        match found {
            Some(Found::Running) => {
                let holder = Holder::of_task(key, &task.info.name);
                self.samples
                    .container_began(self.now, container_id, holder, Since::Before);
                self.lift_all_caps(container_id, out);
                self.adopt(key, out);
            }
            Some(Found::Ended(exit)) => {
                let verdict = verdict(task, exit);
                self.task_ended(key, verdict, out);
            }
            None => {
                let verdict = vanished(task);
                self.task_ended(key, verdict, out);
            }
        }
        if found != Some(&Found::Running) {
            out.effect(Effect::Destroy {
                container_id: container_id.clone(),
            });
        }
    }

    /// A container is taken over as it runs, without the caps and the frost of the life before.
    pub(super) fn lift_all_caps(&mut self, container_id: &ContainerId, out: &mut Outbox) {
        out.effect(Effect::Thaw {
            container_id: container_id.clone(),
        });
        out.effect(Effect::Throttle {
            container_id: container_id.clone(),
            cpu_milli: None,
        });
        out.effect(Effect::ReclaimMemory {
            container_id: container_id.clone(),
            to_bytes: None,
        });
    }

    fn adopt(&mut self, key: &TaskKey, out: &mut Outbox) {
        let now = self.now;
        self.counters.adopted += 1;
        let Some(task) = self.tasks.get_mut(key) else {
            return;
        };
        if task.phase == Phase::Launching {
            task.phase = Phase::Running;
            self.report(key, TaskState::Running, Says::default(), now, out);
        }
        let Some(task) = self.tasks.get(key) else {
            return;
        };
        if let (Some(limit_ms), Some(started_at)) = (task.info.max_completion_ms, task.started_at) {
            self.timers
                .set(Timer::Completion(key.clone()), started_at.plus_ms(limit_ms));
        }
        self.begin_end_if_wanted(key, out);
    }
}

/// Of a task whose container is gone without a trace.
fn vanished(task: &Task) -> Verdict {
    if task.ending.is_some() {
        return match task.phase {
            Phase::Launching => not_started(task, String::new()),
            _ => verdict(task, &Exit::default()),
        };
    }
    if task.phase == Phase::Launching {
        return Verdict {
            state: TaskState::Dropped,
            says: Says::because(
                Reason::AgentRestarted,
                "The agent restarted before the task was started; launch it anew",
            ),
        };
    }
    Verdict {
        state: TaskState::Failed,
        says: Says::because(
            Reason::ExecutorTerminated,
            "The task's container was gone when the agent came back, without leaving an exit \
             status; the machine may have been rebooted",
        ),
    }
}
