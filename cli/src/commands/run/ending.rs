//! From the last status of a task to an exit code and, where the code alone does not say it, a
//! sentence. Pure.

use ebb_framework::RunEvent;
use ebb_types::{Reason, TaskState, TaskStatus};

use crate::error::EXIT_INTERRUPTED;
use crate::output::quantity::resources;
use crate::output::table::clean;

/// The task was never started.
pub(crate) const EXIT_NEVER_STARTED: u8 = 120;
/// Nobody knows what became of the task.
pub(crate) const EXIT_LOST: u8 = 121;
/// The task was preempted, or its agent is being drained.
pub(crate) const EXIT_PREEMPTED: u8 = 122;
/// The task was killed, and its exit status is not known.
pub(crate) const EXIT_KILLED: u8 = 123;
/// The task ran longer than it may, as with timeout(1).
pub(crate) const EXIT_TIMED_OUT: u8 = 124;

/// How a run ends.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Ending {
    /// The code to exit with.
    pub(crate) code: u8,
    /// What the code does not say.
    pub(crate) sentence: Option<String>,
}

fn ending(code: u8, sentence: impl Into<String>) -> Ending {
    Ending {
        code,
        sentence: Some(sentence.into()),
    }
}

/// The ending that a last status means.
pub(crate) fn of(status: &TaskStatus, interrupted: bool) -> Ending {
    let message = match clean(&status.message) {
        message if message.is_empty() => "no more is known".to_owned(),
        message => message,
    };
    match (status.reason, status.state) {
        (Some(Reason::ContainerPreempted), _) => ending(
            EXIT_PREEMPTED,
            format!(
                "the task was preempted: the owner of its resources needed them back ({message}); run it again, or without --revocable"
            ),
        ),
        (Some(Reason::AgentDraining), TaskState::Killed) => ending(
            EXIT_PREEMPTED,
            format!(
                "the task had to make room: an operator drains its agent ({message}); run it again"
            ),
        ),
        (Some(Reason::MaxCompletionTimeReached), _) => ending(
            EXIT_TIMED_OUT,
            format!("the task ran longer than --timeout allows and was ended ({message})"),
        ),
        (Some(Reason::ContainerLaunchFailed), _) | (_, TaskState::Error) => ending(
            EXIT_NEVER_STARTED,
            format!("the task was not started: {message}"),
        ),
        (_, TaskState::Dropped) => ending(
            EXIT_NEVER_STARTED,
            format!("the task was not started ({message}); run it again"),
        ),
        (
            _,
            TaskState::Lost
            | TaskState::Gone
            | TaskState::GoneByOperator
            | TaskState::Unknown
            | TaskState::Unreachable,
        ) => ending(
            EXIT_LOST,
            format!(
                "the task is lost with its agent: {message}; whether it had finished is not known"
            ),
        ),
        (_, TaskState::Killed) if interrupted => Ending {
            code: EXIT_INTERRUPTED,
            sentence: None,
        },
        (_, TaskState::Killed) => Ending {
            code: status
                .exit
                .map_or(EXIT_KILLED, |_| RunEvent::exit_code(status)),
            sentence: Some(format!("the task was killed ({message})")),
        },
        _ => Ending {
            code: RunEvent::exit_code(status),
            sentence: limit(status),
        },
    }
}

/// The limit that a task broke, as a sentence.
fn limit(status: &TaskStatus) -> Option<String> {
    let over = match status.reason? {
        Reason::ContainerLimitationMemory => "memory",
        Reason::ContainerLimitationDisk => "disk space",
        Reason::ContainerLimitation => "of something",
        _ => return status.exit.is_none().then(|| clean(&status.message)),
    };
    let limit = match &status.limitation {
        Some(limitation) => format!(" ({})", resources(&limitation.resources)),
        None => String::new(),
    };
    Some(format!(
        "the task used more {over} than it may{limit}; ask for more"
    ))
}

#[cfg(test)]
mod tests {
    use ebb_types::{ExitStatus, Source, TaskId, Timestamp};

    use super::*;

    fn status(state: TaskState, reason: Option<Reason>, exit: Option<ExitStatus>) -> TaskStatus {
        let id = TaskId::new("t").expect("valid");
        TaskStatus {
            reason,
            exit,
            ..TaskStatus::new(id, state, Source::Executor, Timestamp::default())
        }
    }

    #[test]
    fn the_exit_status_of_the_task_is_ours() {
        let code = |code| Some(ExitStatus::Code(code));
        for (state, exit, expected) in [
            (TaskState::Finished, code(0), 0),
            (TaskState::Failed, code(3), 3),
            (TaskState::Failed, code(255), 255),
            (TaskState::Failed, Some(ExitStatus::Signal(9)), 137),
            (TaskState::Killed, Some(ExitStatus::Signal(15)), 143),
        ] {
            assert_eq!(of(&status(state, None, exit), false).code, expected);
        }
        let plain = of(&status(TaskState::Failed, None, code(3)), false);
        assert_eq!(plain.sentence, None);
    }

    #[test]
    fn what_is_no_exit_of_the_task_has_a_code_and_a_sentence_of_its_own() {
        let signal = Some(ExitStatus::Signal(9));
        let preempted = Some(Reason::ContainerPreempted);
        let draining = Some(Reason::AgentDraining);
        let too_long = Some(Reason::MaxCompletionTimeReached);
        let no_launch = Some(Reason::ContainerLaunchFailed);
        let memory = Some(Reason::ContainerLimitationMemory);
        for (status, code) in [
            (status(TaskState::Failed, preempted, signal), EXIT_PREEMPTED),
            (status(TaskState::Killed, draining, signal), EXIT_PREEMPTED),
            (status(TaskState::Failed, too_long, signal), EXIT_TIMED_OUT),
            (
                status(TaskState::Failed, no_launch, None),
                EXIT_NEVER_STARTED,
            ),
            (status(TaskState::Error, None, None), EXIT_NEVER_STARTED),
            (status(TaskState::Dropped, None, None), EXIT_NEVER_STARTED),
            (status(TaskState::Gone, None, None), EXIT_LOST),
            (status(TaskState::Lost, None, None), EXIT_LOST),
            (status(TaskState::Killed, None, None), EXIT_KILLED),
            (status(TaskState::Failed, memory, signal), 137),
        ] {
            let ending = of(&status, false);
            assert_eq!(ending.code, code, "{status:?}");
            assert!(ending.sentence.is_some_and(|sentence| sentence.len() > 20));
        }
        let interrupted = of(&status(TaskState::Killed, None, signal), true);
        assert_eq!(interrupted.code, EXIT_INTERRUPTED);
    }
}
