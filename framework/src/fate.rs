//! What a status says of the fate of a task, as a framework must see it that promises to run a
//! command at most so often.

use ebb_types::{Reason, TaskState, TaskStatus};

/// What became of a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It may run, now or later.
    Alive,
    /// It certainly never started.
    NeverStarted,
    /// It ended with success.
    Finished,
    /// It ended without success.
    Failed,
    /// Its revocable resources were taken back, or its agent is being drained: it has to make room,
    /// through no fault of its own.
    Preempted,
    /// It was ended because somebody asked.
    Killed,
    /// Its description broke a rule; it never started and never will.
    Invalid,
    /// It is gone, and nobody knows whether it ran to its end.
    Lost,
}

/// What a status says of the fate of its task. `heard` is whether any earlier status said that the
/// task was starting or running.
///
/// A task that an agent knows is on that agent's disk before it starts, is named when the agent
/// registers anew, and is reported until its end was acknowledged. So when the master answers a
/// question for a task that nothing was ever heard of with GONE — its agent is there and does not know
/// it — the launch never arrived.
pub fn fate(status: &TaskStatus, heard: bool) -> Fate {
    if status.state.is_terminal() && status.reason == Some(Reason::ContainerPreempted) {
        return Fate::Preempted;
    }
    // One that still did its work when it was asked to end must not do it twice.
    let unfinished = status.exit.is_none_or(|exit| !exit.is_success());
    let draining = status.reason == Some(Reason::AgentDraining);
    if status.state == TaskState::Killed && draining && unfinished {
        return Fate::Preempted;
    }
    match status.state {
        TaskState::Finished => Fate::Finished,
        TaskState::Failed => Fate::Failed,
        TaskState::Killed => Fate::Killed,
        TaskState::Error => Fate::Invalid,
        TaskState::Dropped => Fate::NeverStarted,
        TaskState::Gone | TaskState::Lost
            if !heard && status.reason == Some(Reason::Reconciliation) =>
        {
            Fate::NeverStarted
        }
        TaskState::Gone | TaskState::Lost | TaskState::GoneByOperator => Fate::Lost,
        TaskState::Starting
        | TaskState::Running
        | TaskState::Staging
        | TaskState::Killing
        | TaskState::Unreachable
        | TaskState::Unknown => Fate::Alive,
    }
}

/// Whether a status proves that its task reached its agent.
pub const fn is_heard(state: TaskState) -> bool {
    matches!(
        state,
        TaskState::Starting | TaskState::Running | TaskState::Killing
    )
}

#[cfg(test)]
mod tests {
    use ebb_types::{Source, TaskId, Timestamp};

    use super::*;

    fn status(state: TaskState, reason: Option<Reason>) -> TaskStatus {
        let task_id = TaskId::new("t").expect("valid");
        TaskStatus {
            reason,
            ..TaskStatus::new(task_id, state, Source::Master, Timestamp::from_ms(0))
        }
    }

    #[test]
    fn every_terminal_state_is_an_end_and_no_other_is() {
        for state in TaskState::ALL {
            for heard in [false, true] {
                let alive = fate(&status(state, None), heard) == Fate::Alive;
                assert_eq!(alive, !state.is_terminal(), "{}", state.name());
            }
        }
    }

    #[test]
    fn a_task_that_ran_is_never_taken_for_one_that_did_not_start() {
        for state in [TaskState::Gone, TaskState::Lost] {
            let answer = status(state, Some(Reason::Reconciliation));
            assert_eq!(fate(&answer, true), Fate::Lost);
            assert_eq!(fate(&answer, false), Fate::NeverStarted);
            let removed = status(state, Some(Reason::AgentRemoved));
            assert_eq!(fate(&removed, false), Fate::Lost);
        }
    }

    #[test]
    fn a_task_of_a_draining_agent_has_to_make_room_unless_it_had_ended_by_itself() {
        let draining = Some(Reason::AgentDraining);
        for (state, expected) in [
            (TaskState::Killed, Fate::Preempted),
            (TaskState::Killing, Fate::Alive),
            (TaskState::Finished, Fate::Finished),
        ] {
            assert_eq!(fate(&status(state, draining), true), expected);
        }
        assert_eq!(fate(&status(TaskState::Killed, None), true), Fate::Killed);
        let mut done = status(TaskState::Killed, draining);
        done.exit = Some(ebb_types::ExitStatus::Code(0));
        assert_eq!(fate(&done, true), Fate::Killed);
    }

    #[test]
    fn preemption_is_its_own_kind_whatever_the_state() {
        for state in [TaskState::Gone, TaskState::Killed, TaskState::Failed] {
            let preempted = status(state, Some(Reason::ContainerPreempted));
            assert_eq!(fate(&preempted, true), Fate::Preempted);
        }
    }
}
