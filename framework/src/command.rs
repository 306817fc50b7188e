//! A command as a framework's author writes it, and the task that runs it.

use ebb_types::{AgentId, CommandInfo, TaskId, TaskInfo};

use crate::offers::Demand;

/// Longest start of a task id that is taken from a name, in bytes; the rest of an id is numbers.
const MAX_STEM_BYTES: usize = 128;

/// What to run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CommandSpec {
    /// A line for `/bin/sh -c`, or the program and its arguments.
    pub program: Program,
    /// Environment.
    pub environment: Vec<(String, String)>,
    /// The account to run as; unset means the framework's.
    pub user: Option<String>,
    /// The signal, by its number, that warns it before it is evicted; SIGTERM if unset.
    pub warn_signal: Option<u32>,
}

/// How a program is named.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Program {
    /// A line for `/bin/sh -c`.
    Shell(String),
    /// The program, and the whole argument vector with the program as its first element.
    Exec(Vec<String>),
}

impl Default for Program {
    fn default() -> Self {
        Self::Shell(String::new())
    }
}

impl CommandSpec {
    /// A line for the shell.
    pub fn shell(line: impl Into<String>) -> Self {
        Self {
            program: Program::Shell(line.into()),
            ..Self::default()
        }
    }

    /// A program and its arguments, the program first.
    pub fn exec(words: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self {
            program: Program::Exec(words.into_iter().map(Into::into).collect()),
            ..Self::default()
        }
    }

    /// As a task's description has it.
    pub fn to_command(&self) -> CommandInfo {
        let (value, shell, arguments) = match &self.program {
            Program::Shell(line) => (line.clone(), true, Vec::new()),
            Program::Exec(words) => (
                words.first().cloned().unwrap_or_default(),
                false,
                words.clone(),
            ),
        };
        CommandInfo {
            value,
            shell,
            arguments,
            environment: self.environment.clone(),
            user: self.user.clone(),
        }
    }

    /// A task that runs it.
    pub fn to_task(&self, task_id: TaskId, agent_id: AgentId, demand: &Demand) -> TaskInfo {
        TaskInfo {
            name: task_id.to_string(),
            task_id,
            agent_id,
            lots: ebb_types::Lots::NONE,
            resources: demand.resources(),
            command: Some(self.to_command()),
            executor: None,
            kill_grace_ms: None,
            warn_signal: self.warn_signal,
            max_completion_ms: None,
            cpu_limit_milli: None,
            data: Vec::new(),
            labels: Vec::new(),
        }
    }
}

/// A name made fit to start a task id: what ids may not hold becomes `_`, and it is cut to 128 bytes.
pub(crate) fn stem(name: &str) -> String {
    let mut stem: String = name
        .chars()
        .map(|c| {
            if c.is_control() || c.is_whitespace() || c == '/' || c == '\\' {
                '_'
            } else {
                c
            }
        })
        .collect();
    stem.truncate(stem.floor_char_boundary(MAX_STEM_BYTES));
    if stem.is_empty() {
        stem.push_str("task");
    }
    stem
}

/// A time as a part of an id that tells instances apart: between two digits, so that nobody takes it for a word of the name.
pub(crate) fn stamp(ms: u64) -> String {
    format!("0{}0", base36(ms))
}

/// A number in as few letters and digits as people can still tell apart.
pub(crate) fn base36(mut number: u64) -> String {
    const DIGITS: &[u8; 36] = b"0123456789abcdefghijklmnopqrstuvwxyz";
    let mut digits = Vec::new();
    loop {
        digits.push(char::from(
            DIGITS[usize::try_from(number % 36).unwrap_or(0)],
        ));
        number /= 36;
        if number == 0 {
            return digits.into_iter().rev().collect();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_becomes_the_start_of_a_valid_id() {
        for name in [
            "",
            "..",
            "a/b",
            "a\\b\0",
            "\u{7f}",
            &"ü".repeat(400),
            "plain",
        ] {
            let id = format!("{}-{}", stem(name), base36(u64::MAX));
            assert!(TaskId::new(&id).is_ok(), "{name:?} became {id:?}");
        }
        assert_eq!(stem("a b/c"), "a_b_c");
    }

    #[test]
    fn numbers_become_short_and_stay_apart() {
        assert_eq!(base36(0), "0");
        assert_eq!(base36(35), "z");
        assert_eq!(base36(36), "10");
        let all: std::collections::BTreeSet<_> = (0..5000).map(base36).collect();
        assert_eq!(all.len(), 5000);
    }

    #[test]
    fn tasks_that_differ_by_their_stamp_are_of_one_class() {
        for ms in (0..2_000).map(|n| 1_800_000_000_000 + n * 77_777_777) {
            let id = format!("a_b-{}-17.1", stamp(ms));
            assert_eq!(ebb_types::task_class(&id, "a/b -9"), "a_b", "{id}");
        }
    }

    #[test]
    fn a_program_carries_its_whole_argument_vector() {
        let command = CommandSpec::exec(["ls", "-l"]).to_command();
        assert_eq!((command.value.as_str(), command.shell), ("ls", false));
        assert_eq!(command.arguments, ["ls", "-l"]);
        let command = CommandSpec::shell("ls | wc").to_command();
        assert!(command.shell && command.arguments.is_empty());
    }
}
