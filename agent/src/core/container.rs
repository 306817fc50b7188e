//! What containers report: they run, they could not be started, they have ended.

use ebb_types::{
    ContainerId, ExitStatus, Limitation, Quantities, Reason, ResourceKind, Resources, TaskKey,
    TaskState, TaskStatus,
};

use super::classes::End;
use super::record::EndCause;
use super::state::{Core, Outbox, Owner, Phase, Task};
use super::timers::Timer;
use super::updates::Says;
use super::{Effect, Exit, Observation, Record};

impl Core {
    /// A container runs.
    pub(super) fn container_started(&mut self, container_id: &ContainerId, out: &mut Outbox) {
        match self.containers.get(container_id).cloned() {
            Some(Owner::Task(key)) => self.task_started(&key, out),
            Some(Owner::Executor(key)) => self.executor_started(&key, out),
            None => self.counters.orphans += 1,
        }
    }

    fn task_started(&mut self, key: &TaskKey, out: &mut Outbox) {
        let now = self.now;
        let Some(task) = self.tasks.get_mut(key) else {
            return;
        };
        if task.phase != Phase::Launching {
            return;
        }
        task.phase = Phase::Running;
        let ms = now.ms_since(task.ordered_at);
        let limit_ms = task.info.max_completion_ms;
        out.effect(Effect::Observe(Observation::LaunchTook { ms }));
        self.report(key, TaskState::Running, Says::default(), now, out);
        if let Some(limit_ms) = limit_ms {
            self.timers
                .set(Timer::Completion(key.clone()), now.plus_ms(limit_ms));
        }
        self.begin_end_if_wanted(key, out);
    }

    /// A container could not be started, or was cancelled before.
    pub(super) fn container_failed(
        &mut self,
        container_id: &ContainerId,
        cancelled: bool,
        message: String,
        out: &mut Outbox,
    ) {
        match self.containers.get(container_id).cloned() {
            Some(Owner::Task(key)) => {
                let verdict = match self.tasks.get(&key) {
                    Some(task) if task.ending.is_some() || cancelled => not_started(task, message),
                    _ => Verdict {
                        state: TaskState::Failed,
                        says: Says::because(Reason::ContainerLaunchFailed, message),
                    },
                };
                self.task_ended(&key, verdict, out);
            }
            Some(Owner::Executor(key)) => {
                let why = format!("The executor's container could not be started: {message}");
                self.executor_ended(&key, None, Reason::ContainerLaunchFailed, &why, out);
            }
            None => self.counters.orphans += 1,
        }
        out.effect(Effect::Destroy {
            container_id: container_id.clone(),
        });
    }

    /// A container has ended.
    pub(super) fn container_exited(
        &mut self,
        container_id: &ContainerId,
        exit: &Exit,
        out: &mut Outbox,
    ) {
        match self.containers.get(container_id).cloned() {
            Some(Owner::Task(key)) => {
                if let Some(task) = self.tasks.get(&key) {
                    let verdict = verdict(task, exit);
                    self.task_ended(&key, verdict, out);
                }
            }
            Some(Owner::Executor(key)) => self.executor_exited(&key, exit, out),
            None => self.counters.orphans += 1,
        }
        out.effect(Effect::Destroy {
            container_id: container_id.clone(),
        });
    }

    /// A task will never run again: its resources are free, its last status is on its way.
    pub(super) fn task_ended(&mut self, key: &TaskKey, verdict: Verdict, out: &mut Outbox) {
        let now = self.now;
        let task = self.tasks.get(key);
        let is_unasked = task.is_some_and(|task| task.ending.is_none());
        let end = match verdict.state {
            TaskState::Finished if is_unasked => End::Finished,
            _ => End::Other,
        };
        if self.close_task(key, end) {
            self.report(key, verdict.state, verdict.says, now, out);
            self.forget_if_unheard(key, out);
        }
    }

    /// The same, with the status of the executor that ran it.
    pub(super) fn end_by_executor(&mut self, key: &TaskKey, status: TaskStatus, out: &mut Outbox) {
        let now = self.now;
        // The end of an executor's task is not that of its container.
        if self.close_task(key, End::Other) {
            self.queue_status(key, status, now, out);
            self.forget_if_unheard(key, out);
        }
    }

    /// Frees what a live task holds; says whether it was live.
    fn close_task(&mut self, key: &TaskKey, end: End) -> bool {
        let Some(task) = self.tasks.get_mut(key).filter(|task| task.is_live()) else {
            return false;
        };
        task.phase = Phase::Ended;
        task.frozen = false;
        let (resources, lots) = (task.info.resources, task.info.lots.clone());
        if task.has_own_container() {
            let container_id = task.container_id.clone();
            self.containers.remove(&container_id);
            self.samples.container_ended(self.now, &container_id, end);
        }
        self.release(&resources);
        self.release_lots(&lots);
        self.timers.clear(&Timer::Forced(key.clone()));
        self.timers.clear(&Timer::Completion(key.clone()));
        true
    }

    fn forget_if_unheard(&mut self, key: &TaskKey, out: &mut Outbox) {
        let unheard = self.tasks.get(key).is_some_and(|task| {
            let cause = task.ending.as_ref().map(|ending| &ending.cause);
            cause == Some(&EndCause::FrameworkRemoved)
        });
        if unheard {
            self.forget_unheard(key, out);
        }
    }

    /// Forgets a task of a framework that is no more: the master is told of its end once, and takes
    /// what the agent does not name at its next registration as ended anyway.
    pub(super) fn forget_unheard(&mut self, key: &TaskKey, out: &mut Outbox) {
        // Who is registered has sent the oldest one already.
        let sent = usize::from(self.registered_conn().is_some());
        if let Some(task) = self.tasks.get(key)
            && task.updates.len() > sent
            && let Some(last) = task.updates.iter().last()
        {
            let message = ebb_types::AgentToMaster::Update {
                framework_id: key.0.clone(),
                status: last.clone(),
                latest_state: task.state,
            };
            self.tell_end(message, out);
        }
        out.note(Record::Forgotten {
            framework_id: key.0.clone(),
            task_id: key.1.clone(),
        });
        self.drop_task(key);
    }
}

/// The last thing said of a task.
pub(super) struct Verdict {
    pub(super) state: TaskState,
    pub(super) says: Says,
}

/// Of a task that was asked to end before it was started.
pub(super) fn not_started(task: &Task, message: String) -> Verdict {
    let (state, reason, default) = match task.ending.as_ref().map(|ending| &ending.cause) {
        Some(EndCause::Evicted(why)) => (TaskState::Gone, Reason::ContainerPreempted, why.clone()),
        Some(EndCause::FrameworkRemoved) => (
            TaskState::Killed,
            Reason::FrameworkRemoved,
            "The framework was removed".to_owned(),
        ),
        _ => (
            TaskState::Killed,
            Reason::TaskKilledDuringLaunch,
            "Killed before it was started".to_owned(),
        ),
    };
    let message = if message.is_empty() { default } else { message };
    Verdict {
        state,
        says: Says::because(reason, message),
    }
}

/// Of a task whose container has ended.
pub(super) fn verdict(task: &Task, exit: &Exit) -> Verdict {
    let mut verdict = judge(task, exit);
    verdict.says.exit = exit.status;
    verdict
}

fn judge(task: &Task, exit: &Exit) -> Verdict {
    let finished_itself = exit.status.is_some_and(ExitStatus::is_success);
    let sentence = exit.status.map_or_else(
        || "Command ended without leaving an exit status".to_owned(),
        ExitStatus::sentence,
    );
    let says = |reason: Option<Reason>, message: String| Says {
        reason,
        message,
        ..Says::default()
    };
    match task.ending.as_ref().map(|ending| &ending.cause) {
        // A success counts, also after a warning: what did its work must not do it twice.
        Some(EndCause::Evicted(why)) if !finished_itself => Verdict {
            state: TaskState::Gone,
            says: says(Some(Reason::ContainerPreempted), why.clone()),
        },
        Some(EndCause::MaxCompletion) => Verdict {
            state: TaskState::Failed,
            says: says(
                Some(Reason::MaxCompletionTimeReached),
                format!(
                    "It ran longer than its max_completion_ms of {}; {sentence}",
                    task.info.max_completion_ms.unwrap_or_default()
                ),
            ),
        },
        Some(EndCause::FrameworkRemoved) => Verdict {
            state: TaskState::Killed,
            says: says(Some(Reason::FrameworkRemoved), sentence),
        },
        Some(EndCause::AgentShutdown) => Verdict {
            state: TaskState::Killed,
            says: says(None, format!("The agent was shut down; {sentence}")),
        },
        Some(EndCause::Killed | EndCause::ExecutorShutdown) => Verdict {
            state: TaskState::Killed,
            says: says(None, sentence),
        },
        None | Some(EndCause::Evicted(_)) => unasked(task, exit, sentence),
    }
}

/// Of a task that ended by itself.
fn unasked(task: &Task, exit: &Exit, sentence: String) -> Verdict {
    if let Some(error) = &exit.launch_error {
        return Verdict {
            state: TaskState::Failed,
            says: Says::because(Reason::ContainerLaunchFailed, error.clone()),
        };
    }
    if exit.status.is_some_and(ExitStatus::is_success) {
        return Verdict {
            state: TaskState::Finished,
            says: Says {
                message: sentence,
                ..Says::default()
            },
        };
    }
    if exit.oom {
        let mem_bytes = task.info.usable().total(ResourceKind::Mem);
        let only_mem = Quantities::ZERO.with(ResourceKind::Mem, mem_bytes);
        let resources = if task.info.resources.revocable.mem_bytes() > 0 {
            Resources::revocable(only_mem)
        } else {
            Resources::regular(only_mem)
        };
        let message = format!(
            "Memory limit of {mem_bytes} bytes exceeded: the kernel ended a process of the task; \
             {sentence}"
        );
        return Verdict {
            state: TaskState::Failed,
            says: Says {
                limitation: Some(Limitation { resources }),
                ..Says::because(Reason::ContainerLimitationMemory, message)
            },
        };
    }
    let reason = exit.status.is_none().then_some(Reason::ExecutorTerminated);
    Verdict {
        state: TaskState::Failed,
        says: Says {
            reason,
            message: sentence,
            ..Says::default()
        },
    }
}
