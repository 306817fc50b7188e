//! Records as bytes.
//!
//! A record is a tag and its fields in order; numbers are little-endian, texts and parts of the
//! vocabulary carry their length. Tasks, statuses and executors stand in the format of the wire, so
//! that fields which later versions add do no harm.

use ebb_api::Stored;
use ebb_types::{
    AgentId, ContainerId, ExecutorId, ExecutorInfo, FrameworkId, Generation, Lots, TaskId,
    TaskInfo, TaskState, TaskStatus, Timestamp, UpdateUuid,
};

use crate::core::{EndCause, Ending, ExecutorRecord, Record, TaskRecord};

/// Bytes that are no record.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what}")]
pub struct DecodeError {
    what: String,
}

fn bad(what: impl Into<String>) -> DecodeError {
    DecodeError { what: what.into() }
}

const AGENT_ID: u8 = 1;
const GENERATION: u8 = 2;
const TASK: u8 = 3;
const UPDATE: u8 = 4;
const ACKNOWLEDGED: u8 = 5;
const ENDING: u8 = 6;
const FORGOTTEN: u8 = 7;
const EXECUTOR: u8 = 8;
const EXECUTOR_FORGOTTEN: u8 = 9;
const LOTS: u8 = 10;
/// As [`TASK`] and [`EXECUTOR`], with the numbers of GPUs behind.
const TASK_WITH_GPUS: u8 = 11;
const EXECUTOR_WITH_GPUS: u8 = 12;

/// Appends a record.
pub fn encode(record: &Record, out: &mut Vec<u8>) {
    match record {
        Record::AgentId(id) => {
            out.push(AGENT_ID);
            put_text(id.as_str(), out);
        }
        Record::Generation(generation) => {
            out.push(GENERATION);
            put_u64(generation.0, out);
        }
        Record::Task(task) => {
            out.push(if task.gpus.is_empty() {
                TASK
            } else {
                TASK_WITH_GPUS
            });
            put_task(task, out);
            put_gpus(&task.gpus, out);
        }
        Record::Update {
            framework_id,
            status,
        } => {
            out.push(UPDATE);
            put_text(framework_id.as_str(), out);
            put_bytes(&status.to_bytes(), out);
        }
        Record::Acknowledged {
            framework_id,
            task_id,
            uuid,
        } => {
            out.push(ACKNOWLEDGED);
            put_text(framework_id.as_str(), out);
            put_text(task_id.as_str(), out);
            out.extend_from_slice(&uuid.0);
        }
        Record::Ending {
            framework_id,
            task_id,
            ending,
        } => {
            out.push(ENDING);
            put_text(framework_id.as_str(), out);
            put_text(task_id.as_str(), out);
            put_ending(Some(ending), out);
        }
        Record::Forgotten {
            framework_id,
            task_id,
        } => {
            out.push(FORGOTTEN);
            put_text(framework_id.as_str(), out);
            put_text(task_id.as_str(), out);
        }
        Record::Executor(executor) => {
            let has_none = executor.gpus.is_empty();
            out.push(if has_none {
                EXECUTOR
            } else {
                EXECUTOR_WITH_GPUS
            });
            put_executor(executor, out);
            put_gpus(&executor.gpus, out);
        }
        Record::Lots { version, dynamic } => {
            out.push(LOTS);
            put_u64(*version, out);
            put_bytes(&dynamic.to_bytes(), out);
        }
        Record::ExecutorForgotten {
            framework_id,
            executor_id,
        } => {
            out.push(EXECUTOR_FORGOTTEN);
            put_text(framework_id.as_str(), out);
            put_text(executor_id.as_str(), out);
        }
    }
}

/// Nothing at all where there are none.
fn put_gpus(gpus: &[u32], out: &mut Vec<u8>) {
    if !gpus.is_empty() {
        put_u64(gpus.len() as u64, out);
        gpus.iter().for_each(|gpu| put_u64(u64::from(*gpu), out));
    }
}

fn put_u64(number: u64, out: &mut Vec<u8>) {
    out.extend_from_slice(&number.to_le_bytes());
}

fn put_bytes(bytes: &[u8], out: &mut Vec<u8>) {
    put_u64(bytes.len() as u64, out);
    out.extend_from_slice(bytes);
}

fn put_text(text: &str, out: &mut Vec<u8>) {
    put_bytes(text.as_bytes(), out);
}

fn put_ending(ending: Option<&Ending>, out: &mut Vec<u8>) {
    let Some(ending) = ending else {
        out.push(0);
        return;
    };
    let (tag, why) = match &ending.cause {
        EndCause::Killed => (1, ""),
        EndCause::Evicted(why) => (2, why.as_str()),
        EndCause::MaxCompletion => (3, ""),
        EndCause::FrameworkRemoved => (4, ""),
        EndCause::ExecutorShutdown => (5, ""),
        EndCause::AgentShutdown => (6, ""),
    };
    out.push(tag);
    put_text(why, out);
    put_u64(ending.forced_at.as_ms(), out);
}

fn put_task(task: &TaskRecord, out: &mut Vec<u8>) {
    put_text(task.framework_id.as_str(), out);
    put_text(&task.user, out);
    put_bytes(&task.info.to_bytes(), out);
    put_text(task.container_id.as_str(), out);
    put_u64(task.state as u64, out);
    put_u64(task.started_at.map_or(0, Timestamp::as_ms), out);
    put_ending(task.ending.as_ref(), out);
    put_u64(task.updates.len() as u64, out);
    for status in &task.updates {
        put_bytes(&status.to_bytes(), out);
    }
}

fn put_executor(executor: &ExecutorRecord, out: &mut Vec<u8>) {
    put_text(executor.framework_id.as_str(), out);
    put_text(&executor.user, out);
    put_bytes(&executor.info.to_bytes(), out);
    put_text(executor.container_id.as_str(), out);
    out.push(u8::from(executor.started));
    put_ending(executor.ending.as_ref(), out);
}

/// Reads records one after the other.
pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// Reads from `bytes`.
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// The next record, or `None` at the end.
    ///
    /// # Errors
    /// [`DecodeError`] if what follows is no record.
    pub fn read(&mut self) -> Result<Option<Record>, DecodeError> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        self.record().map(Some)
    }

    fn record(&mut self) -> Result<Record, DecodeError> {
        Ok(match self.byte()? {
            AGENT_ID => Record::AgentId(self.id(|text| AgentId::new(text))?),
            GENERATION => Record::Generation(Generation(self.number()?)),
            TASK => Record::Task(Box::new(self.task()?)),
            UPDATE => Record::Update {
                framework_id: self.framework()?,
                status: self.stored::<TaskStatus>()?,
            },
            ACKNOWLEDGED => Record::Acknowledged {
                framework_id: self.framework()?,
                task_id: self.id(|text| TaskId::new(text))?,
                uuid: UpdateUuid(self.array()?),
            },
            ENDING => Record::Ending {
                framework_id: self.framework()?,
                task_id: self.id(|text| TaskId::new(text))?,
                ending: self
                    .ending()?
                    .ok_or_else(|| bad("an ending without a cause"))?,
            },
            FORGOTTEN => Record::Forgotten {
                framework_id: self.framework()?,
                task_id: self.id(|text| TaskId::new(text))?,
            },
            EXECUTOR => Record::Executor(Box::new(self.executor()?)),
            TASK_WITH_GPUS => {
                let mut task = self.task()?;
                task.gpus = self.gpus()?;
                Record::Task(Box::new(task))
            }
            EXECUTOR_WITH_GPUS => {
                let mut executor = self.executor()?;
                executor.gpus = self.gpus()?;
                Record::Executor(Box::new(executor))
            }
            LOTS => Record::Lots {
                version: self.number()?,
                dynamic: self.stored::<Lots>()?,
            },
            EXECUTOR_FORGOTTEN => Record::ExecutorForgotten {
                framework_id: self.framework()?,
                executor_id: self.id(|text| ExecutorId::new(text))?,
            },
            other => return Err(bad(format!("no record has the tag {other}"))),
        })
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8], DecodeError> {
        let (taken, rest) = self
            .rest
            .split_at_checked(count)
            .ok_or_else(|| bad("a record ends too early"))?;
        self.rest = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let taken = self.take(N)?;
        taken.try_into().map_err(|_| bad("a record ends too early"))
    }

    fn byte(&mut self) -> Result<u8, DecodeError> {
        self.array::<1>().map(|[byte]| byte)
    }

    fn number(&mut self) -> Result<u64, DecodeError> {
        self.array().map(u64::from_le_bytes)
    }

    fn bytes(&mut self) -> Result<&'a [u8], DecodeError> {
        let length = self.number()?;
        self.take(usize::try_from(length).unwrap_or(usize::MAX))
    }

    fn text(&mut self) -> Result<&'a str, DecodeError> {
        std::str::from_utf8(self.bytes()?).map_err(|_| bad("a text is not UTF-8"))
    }

    fn id<T>(
        &mut self,
        new: impl Fn(&str) -> Result<T, ebb_types::InvalidId>,
    ) -> Result<T, DecodeError> {
        new(self.text()?).map_err(|error| bad(error.to_string()))
    }

    fn framework(&mut self) -> Result<FrameworkId, DecodeError> {
        self.id(|text| FrameworkId::new(text))
    }

    fn stored<T: Stored>(&mut self) -> Result<T, DecodeError> {
        T::from_bytes(self.bytes()?).map_err(|error| bad(error.to_string()))
    }

    fn ending(&mut self) -> Result<Option<Ending>, DecodeError> {
        let tag = self.byte()?;
        if tag == 0 {
            return Ok(None);
        }
        let why = self.text()?;
        let cause = match tag {
            1 => EndCause::Killed,
            2 => EndCause::Evicted(why.to_owned()),
            3 => EndCause::MaxCompletion,
            4 => EndCause::FrameworkRemoved,
            5 => EndCause::ExecutorShutdown,
            6 => EndCause::AgentShutdown,
            other => return Err(bad(format!("no cause of an end has the tag {other}"))),
        };
        Ok(Some(Ending {
            cause,
            forced_at: Timestamp::from_ms(self.number()?),
        }))
    }

    fn task(&mut self) -> Result<TaskRecord, DecodeError> {
        let framework_id = self.framework()?;
        let user = self.text()?.to_owned();
        let info = self.stored::<TaskInfo>()?;
        let container_id = self.id(|text| ContainerId::new(text))?;
        let number = self.number()?;
        let state = i32::try_from(number)
            .ok()
            .and_then(TaskState::from_number)
            .ok_or_else(|| bad(format!("no task state has the number {number}")))?;
        let started_at_ms = self.number()?;
        let ending = self.ending()?;
        let count = self.number()?;
        let mut updates = Vec::new();
        for _ in 0..count {
            updates.push(self.stored::<TaskStatus>()?);
        }
        Ok(TaskRecord {
            framework_id,
            user,
            info,
            container_id,
            state,
            started_at: (started_at_ms > 0).then(|| Timestamp::from_ms(started_at_ms)),
            ending,
            updates,
            gpus: Vec::new(),
        })
    }

    fn gpus(&mut self) -> Result<Vec<u32>, DecodeError> {
        let mut gpus = Vec::new();
        for _ in 0..self.number()? {
            let gpu = u32::try_from(self.number()?);
            gpus.push(gpu.map_err(|_| bad("a GPU has too large a number"))?);
        }
        Ok(gpus)
    }

    fn executor(&mut self) -> Result<ExecutorRecord, DecodeError> {
        Ok(ExecutorRecord {
            framework_id: self.framework()?,
            user: self.text()?.to_owned(),
            info: self.stored::<ExecutorInfo>()?,
            container_id: self.id(|text| ContainerId::new(text))?,
            started: self.byte()? != 0,
            ending: self.ending()?,
            gpus: Vec::new(),
        })
    }
}
