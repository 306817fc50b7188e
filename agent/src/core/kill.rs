//! Ending tasks: politely, then by force.
//!
//! The first cause stays the cause. A repeated kill may only bring force forward, never put it off.

use ebb_types::limits::DEFAULT_GRACE_MS;
use ebb_types::{FrameworkId, TaskKey};

use super::record::{EndCause, Ending};
use super::state::{Core, Outbox, Phase, Task};
use super::timers::Timer;
use super::{Effect, FORCED_KILL_RETRY_MS, Record, SHUTDOWN_GRACE_MAX_MS, WARNED_CPU_MILLI};

impl Core {
    /// The framework wants a task ended.
    pub(super) fn kill(&mut self, key: &TaskKey, grace_ms: Option<u64>, out: &mut Outbox) {
        match self.tasks.get(key) {
            Some(task) if task.is_live() => {
                self.end_task(key, EndCause::Killed, grace_ms, out);
            }
            Some(_) => {}
            None => self.counters.orders_for_unknown += 1,
        }
    }

    /// Ends a task that has not ended, with the grace of the call, else of the task, else 3 s.
    pub(super) fn end_task(
        &mut self,
        key: &TaskKey,
        cause: EndCause,
        grace_ms: Option<u64>,
        out: &mut Outbox,
    ) {
        let now = self.now;
        let Some(task) = self.tasks.get_mut(key) else {
            return;
        };
        if !task.is_live() {
            return;
        }
        let grace_ms = grace_ms
            .or(task.info.kill_grace_ms)
            .unwrap_or(DEFAULT_GRACE_MS);
        let forced_at = now.plus_ms(grace_ms);
        let (ending, is_first) = match task.ending.take() {
            None => (Ending { cause, forced_at }, true),
            Some(before) if forced_at < before.forced_at => {
                let cause = before.cause;
                (Ending { cause, forced_at }, false)
            }
            Some(before) => {
                task.ending = Some(before);
                return;
            }
        };
        task.ending = Some(ending.clone());
        out.persist(Record::Ending {
            framework_id: key.0.clone(),
            task_id: key.1.clone(),
            ending,
        });
        let own_container = task.has_own_container();
        match (task.phase, own_container) {
            (Phase::Launching, _) if is_first => out.effect(Effect::CancelLaunch {
                container_id: task.container_id.clone(),
            }),
            (Phase::Running, true) if is_first => self.begin_end_if_wanted(key, out),
            (Phase::Running, true) => self.timers.set(Timer::Forced(key.clone()), forced_at),
            (Phase::Queued | Phase::Running, false) => self.end_executor_task(key, out),
            _ => {}
        }
    }

    /// If a task that runs in a container of its own is to end, asks it to, and sets the time of
    /// force.
    pub(super) fn begin_end_if_wanted(&mut self, key: &TaskKey, out: &mut Outbox) {
        let now = self.now;
        let Some(task) = self.tasks.get_mut(key) else {
            return;
        };
        let Some(ending) = &task.ending else {
            return;
        };
        if ending.forced_at <= now {
            self.force(key, out);
            return;
        }
        let forced_at = ending.forced_at;
        let container_id = task.container_id.clone();
        let cause = match &ending.cause {
            EndCause::Evicted(why) => Some(why.clone()),
            _ => None,
        };
        if task.frozen && cause.is_some() {
            // It may set its things in order, and no more: the CPU is its owner's.
            out.effect(Effect::Throttle {
                container_id: container_id.clone(),
                cpu_milli: Some(WARNED_CPU_MILLI),
            });
        }
        if std::mem::take(&mut task.frozen) {
            out.effect(Effect::Thaw {
                container_id: container_id.clone(),
            });
        }
        let signal = task.info.warn_signal;
        if let Some(cause) = cause {
            out.effect(Effect::Warn {
                container_id: container_id.clone(),
                signal: signal.is_some(),
                ends_at: forced_at,
                cause,
            });
            if signal.is_none() {
                out.effect(Effect::Terminate { container_id });
            }
        } else {
            out.effect(Effect::Terminate { container_id });
        }
        self.timers.set(Timer::Forced(key.clone()), forced_at);
    }

    /// Ends a task by force, again and again until its end is seen.
    pub(super) fn force(&mut self, key: &TaskKey, out: &mut Outbox) {
        let now = self.now;
        let Some(task) = self.tasks.get(key) else {
            return;
        };
        if task.phase != Phase::Running || !task.has_own_container() {
            return;
        }
        out.effect(Effect::KillContainer {
            container_id: task.container_id.clone(),
        });
        self.timers.set(
            Timer::Forced(key.clone()),
            now.plus_ms(FORCED_KILL_RETRY_MS),
        );
    }

    /// A framework is no more: everything of it ends, and nobody will acknowledge anything.
    pub(super) fn shutdown_framework(&mut self, framework_id: &FrameworkId, out: &mut Outbox) {
        let keys: Vec<(TaskKey, bool)> = self
            .tasks
            .iter()
            .filter(|((framework, _), _)| framework == framework_id)
            .map(|(key, task)| (key.clone(), task.is_live()))
            .collect();
        let executors: Vec<_> = self
            .executors
            .keys()
            .filter(|(framework, _)| framework == framework_id)
            .cloned()
            .collect();
        for (key, live) in keys {
            if live {
                self.remove_framework_of(&key, out);
            } else {
                self.forget_unheard(&key, out);
            }
        }
        for key in executors {
            self.shut_executor(&key, EndCause::FrameworkRemoved, out);
        }
    }

    /// As the end of its framework outweighs every earlier cause, it replaces it.
    fn remove_framework_of(&mut self, key: &TaskKey, out: &mut Outbox) {
        self.end_task(key, EndCause::FrameworkRemoved, None, out);
        let Some(task) = self.tasks.get_mut(key) else {
            return;
        };
        if let Some(ending) = &mut task.ending
            && ending.cause != EndCause::FrameworkRemoved
        {
            ending.cause = EndCause::FrameworkRemoved;
            out.persist(Record::Ending {
                framework_id: key.0.clone(),
                task_id: key.1.clone(),
                ending: ending.clone(),
            });
        }
    }

    /// The agent is shut down for good: all tasks and executors end.
    pub(super) fn shut_down(&mut self, out: &mut Outbox) {
        self.shutting_down = true;
        let own_grace = |task: &Task| task.info.kill_grace_ms.unwrap_or(DEFAULT_GRACE_MS);
        let keys: Vec<(TaskKey, u64)> = self
            .tasks
            .iter()
            .map(|(key, task)| (key.clone(), own_grace(task).min(SHUTDOWN_GRACE_MAX_MS)))
            .collect();
        for (key, grace_ms) in keys {
            self.end_task(&key, EndCause::AgentShutdown, Some(grace_ms), out);
        }
        let executors: Vec<_> = self.executors.keys().cloned().collect();
        for key in executors {
            self.shut_executor(&key, EndCause::AgentShutdown, out);
        }
    }
}
