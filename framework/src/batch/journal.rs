//! The state file of a batch: what was launched, what was heard of it, how it ended. One JSON object a
//! line, only ever appended to, on disk before anything is done on the strength of it.
//!
//! # Invariants
//! * A launch is on disk before it is sent, and an end before it is acknowledged: so a batch that is
//!   killed at any moment and started again neither repeats a command nor forgets one.
//! * A last line without its end was never acted on, and is cut off.
//! * The file is locked while it is used.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::config::{BatchCommand, BatchError};
use super::report::CommandEnd;
use crate::command::Program;

/// The format of the file.
const VERSION: u32 = 1;

/// Why a command goes again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Again {
    /// It failed.
    Retry,
    /// It was preempted.
    Preemption,
    /// It never started.
    Drop,
}

/// How the last task of a command ended, for the report.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct LastTask {
    pub(super) task_id: Option<String>,
    pub(super) agent_id: Option<String>,
    pub(super) exit_code: Option<i32>,
    pub(super) exit_signal: Option<i32>,
    pub(super) state: Option<String>,
    pub(super) reason: Option<String>,
    pub(super) message: String,
}

/// One line of the file. Commands are named by their number, from 0.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Record {
    /// The first line: which batch this is.
    Batch {
        version: u32,
        commands: usize,
        digest: String,
        tag: String,
    },
    /// The framework is in.
    Framework { id: String },
    /// A command is about to be launched.
    Launch {
        command: usize,
        task: String,
        agent: String,
    },
    /// The present task of a command is known to have reached its agent.
    Heard { command: usize },
    /// The present task of a command is over, and the command goes again.
    Again { command: usize, why: Again },
    /// A command is over.
    End {
        command: usize,
        end: CommandEnd,
        last: LastTask,
    },
    /// The framework was ended; whoever goes on needs a new one.
    Closed,
}

/// Where records go.
pub(super) trait Journal: Send {
    /// Makes records durable.
    fn append(&mut self, records: &[Record]) -> Result<(), BatchError>;
}

/// Remembers nothing.
#[derive(Debug)]
pub(super) struct NoJournal;

impl Journal for NoJournal {
    fn append(&mut self, _records: &[Record]) -> Result<(), BatchError> {
        Ok(())
    }
}

/// The file.
#[derive(Debug)]
pub(super) struct FileJournal {
    file: File,
    path: PathBuf,
    /// Where the next record belongs; what stands behind it was not acted on.
    end: u64,
}

impl FileJournal {
    /// Opens or makes the file, and reads what it holds.
    pub(super) fn open(path: &Path) -> Result<(Self, Vec<Record>), BatchError> {
        let failed = |operation, remedy| {
            let path = path.to_owned();
            move |source| BatchError::State {
                operation,
                path,
                remedy,
                source,
            }
        };
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)
            .map_err(failed(
                "open",
                "name a file in a folder that can be written",
            ))?;
        file.try_lock().map_err(|error| {
            let source = match error {
                TryLockError::Error(source) => source,
                TryLockError::WouldBlock => std::io::ErrorKind::WouldBlock.into(),
            };
            failed(
                "lock",
                "another batch uses it; wait for it or name another file",
            )(source)
        })?;
        let mut text = Vec::new();
        file.read_to_end(&mut text)
            .map_err(failed("read", "check the file system"))?;
        let whole = text
            .iter()
            .rposition(|byte| *byte == b'\n')
            .map_or(0, |at| at + 1);
        let records = read_records(path, &text[..whole])?;
        let journal = Self {
            file,
            path: path.to_owned(),
            end: whole as u64,
        };
        Ok((journal, records))
    }

    fn write(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.file.seek(SeekFrom::Start(self.end))?;
        self.file.write_all(bytes)?;
        self.file.set_len(self.end + bytes.len() as u64)?;
        self.file.sync_data()?;
        self.end += bytes.len() as u64;
        Ok(())
    }
}

impl Drop for FileJournal {
    fn drop(&mut self) {
        // A process that is being started at this moment still shares the open file; closing it here
        // would leave it locked until that one has executed its program. An error leaves just that.
        let _ = self.file.unlock();
    }
}

impl Journal for FileJournal {
    fn append(&mut self, records: &[Record]) -> Result<(), BatchError> {
        let mut bytes = Vec::new();
        for record in records {
            serde_json::to_writer(&mut bytes, record)
                .map_err(std::io::Error::from)
                .map_err(|source| self.failed(source))?;
            bytes.push(b'\n');
        }
        if bytes.is_empty() {
            return Ok(());
        }
        self.write(&bytes).map_err(|source| self.failed(source))
    }
}

impl FileJournal {
    fn failed(&self, source: std::io::Error) -> BatchError {
        BatchError::State {
            operation: "write",
            path: self.path.clone(),
            remedy: "make room on its file system; nothing is launched until it can be written",
            source,
        }
    }
}

fn read_records(path: &Path, bytes: &[u8]) -> Result<Vec<Record>, BatchError> {
    bytes
        .split(|byte| *byte == b'\n')
        .enumerate()
        .filter(|(_, line)| !line.is_empty())
        .map(|(index, line)| {
            serde_json::from_slice(line).map_err(|error| BatchError::Journal {
                path: path.to_owned(),
                line: index + 1,
                problem: format!(
                    "is no record of a batch ({error}); name another file, or remove this one to start over"
                ),
            })
        })
        .collect()
}

/// The first record of a batch of these commands.
pub(super) fn header(commands: &[BatchCommand], tag: &str) -> Record {
    Record::Batch {
        version: VERSION,
        commands: commands.len(),
        digest: digest(commands),
        tag: tag.to_owned(),
    }
}

/// The tag of the batch that the records are of, or why they are of another.
pub(super) fn check_header(
    records: &[Record],
    commands: &[BatchCommand],
) -> Result<Option<String>, String> {
    match records.first() {
        None => Ok(None),
        Some(Record::Batch {
            version,
            commands: count,
            digest: theirs,
            tag,
        }) => {
            if *version != VERSION {
                return Err(format!(
                    "is of format {version}; this batch writes {VERSION}"
                ));
            }
            if *count != commands.len() || *theirs != digest(commands) {
                return Err(format!(
                    "is of another list of {count} commands; give the same list again, or another file"
                ));
            }
            Ok(Some(tag.clone()))
        }
        Some(_) => Err("does not say of which batch it is; name another file".to_owned()),
    }
}

/// Tells lists of commands apart.
fn digest(commands: &[BatchCommand]) -> String {
    let mut digest = crate::digest::Digest::default();
    for command in commands {
        match &command.command.program {
            Program::Shell(line) => digest.text("shell").text(line),
            Program::Exec(words) => {
                digest.text("exec").number(words.len() as u64);
                words
                    .iter()
                    .fold(&mut digest, |digest, word| digest.text(word))
            }
        };
        digest.number(command.command.environment.len() as u64);
        for (name, value) in &command.command.environment {
            digest.text(name).text(value);
        }
        digest.text(command.command.user.as_deref().unwrap_or(""));
    }
    digest.hex()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::CommandSpec;

    fn commands(lines: &[&str]) -> Vec<BatchCommand> {
        lines
            .iter()
            .map(|line| BatchCommand {
                name: String::new(),
                command: CommandSpec::shell(*line),
            })
            .collect()
    }

    #[test]
    fn what_was_appended_is_read_and_a_torn_line_is_cut_off() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("state");
        let list = commands(&["a", "b"]);
        let records = [header(&list, "t"), Record::Heard { command: 1 }];
        {
            let (mut journal, found) = FileJournal::open(&path).expect("opened");
            assert!(found.is_empty());
            journal.append(&records).expect("written");
        }
        let mut torn = std::fs::read(&path).expect("read");
        torn.extend_from_slice(br#"{"end":{"command":0,"#);
        std::fs::write(&path, torn).expect("written");
        {
            let (mut journal, found) = FileJournal::open(&path).expect("opened");
            assert_eq!(found, records);
            assert_eq!(check_header(&found, &list), Ok(Some("t".into())));
            journal.append(&[Record::Closed]).expect("written");
        }
        let (_, found) = FileJournal::open(&path).expect("opened");
        assert_eq!(found.last(), Some(&Record::Closed));
        assert_eq!(found.len(), 3);
    }

    #[test]
    fn a_file_in_use_a_strange_file_and_another_batch_are_refused() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("state");
        let (mut journal, _) = FileJournal::open(&path).expect("opened");
        let error = FileJournal::open(&path).expect_err("locked");
        assert!(
            error.to_string().contains("another batch uses it"),
            "{error}"
        );
        journal
            .append(&[header(&commands(&["a"]), "t")])
            .expect("written");
        drop(journal);
        let (_, found) = FileJournal::open(&path).expect("opened");
        assert!(check_header(&found, &commands(&["b"])).is_err());
        assert!(check_header(&found, &commands(&["a", "a"])).is_err());
        std::fs::write(&path, "hello\n").expect("written");
        let error = FileJournal::open(&path).expect_err("no journal");
        assert!(error.to_string().contains("line 1"), "{error}");
    }
}
