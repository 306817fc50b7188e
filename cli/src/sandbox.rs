//! Reads what tasks wrote, from the agents that ran them.
//!
//! The invariant: bytes are handed on in order and once, whatever the chunks: a chunk names its
//! offset, and what was handed on already is cut off. A gap is an error, never silence.

use std::time::Duration;

use ebb_api::proto::ReadRequest;
use ebb_api::proto::sandbox_client::SandboxClient;
use ebb_types::limits::MAX_FRAME_BYTES;
use ebb_types::{AgentId, AgentInfo, FrameworkId, TaskId};
use tonic::transport::Channel;
use tonic::{Code, Status, Streaming};

use crate::client::open;
use crate::error::CliError;
use crate::output::table::clean;

/// The longest that the first answer may take.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(15);

/// One agent's sandboxes.
#[derive(Clone, Debug)]
pub(crate) struct Sandboxes {
    agent: AgentId,
    address: String,
    client: SandboxClient<Channel>,
}

/// Which file, and how.
#[derive(Clone, Debug)]
pub(crate) struct FileOf {
    /// Whose task.
    pub(crate) framework_id: FrameworkId,
    /// The task.
    pub(crate) task_id: TaskId,
    /// `stdout` or `stderr`.
    pub(crate) path: &'static str,
}

impl Sandboxes {
    /// Connects to an agent.
    ///
    /// # Errors
    /// [`CliError::AgentUnreachable`] names the agent, its address and the cause.
    pub(crate) async fn connect(agent: &AgentId, info: &AgentInfo) -> Result<Self, CliError> {
        let host = if info.hostname.contains(':') {
            format!("[{}]", info.hostname)
        } else {
            info.hostname.clone()
        };
        let address = format!("{host}:{}", info.port);
        match open(&address).await {
            Ok(channel) => Ok(Self {
                agent: agent.clone(),
                address,
                client: SandboxClient::new(channel).max_decoding_message_size(MAX_FRAME_BYTES),
            }),
            Err(cause) => Err(CliError::AgentUnreachable {
                agent: agent.to_string(),
                address: clean(&address),
                cause,
            }),
        }
    }

    /// Begins to read a file; with `follow`, until the task has ended.
    pub(crate) async fn read(
        &mut self,
        file: &FileOf,
        offset: u64,
        follow: bool,
    ) -> Result<Reader, CliError> {
        let answer = self.client.read(ReadRequest {
            framework_id: file.framework_id.to_string(),
            task_id: file.task_id.to_string(),
            path: file.path.to_owned(),
            offset,
            follow,
        });
        match tokio::time::timeout(ANSWER_TIMEOUT, answer).await {
            Ok(Ok(response)) => Ok(Reader {
                agent: self.agent.clone(),
                address: self.address.clone(),
                stream: response.into_inner(),
                offset,
            }),
            Ok(Err(status)) => Err(fault(&self.agent, &self.address, &status)),
            Err(_) => Err(CliError::Silent {
                who: format!("agent {} at {}", self.agent, clean(&self.address)),
                seconds: ANSWER_TIMEOUT.as_secs(),
                operation: "read a file",
            }),
        }
    }
}

fn fault(agent: &AgentId, address: &str, status: &Status) -> CliError {
    match status.code() {
        Code::Unavailable => CliError::AgentUnreachable {
            agent: agent.to_string(),
            address: clean(address),
            cause: clean(status.message()),
        },
        _ => CliError::Refused {
            operation: "read what the task wrote",
            message: clean(status.message()),
        },
    }
}

/// A file that is being read.
#[derive(Debug)]
pub(crate) struct Reader {
    agent: AgentId,
    address: String,
    stream: Streaming<ebb_api::proto::ReadChunk>,
    offset: u64,
}

impl Reader {
    /// Where the next byte stands in the file.
    pub(crate) const fn offset(&self) -> u64 {
        self.offset
    }

    /// The next bytes; none at the end.
    pub(crate) async fn next(&mut self) -> Result<Option<Vec<u8>>, CliError> {
        loop {
            let message = self.stream.message().await;
            let chunk = message.map_err(|status| fault(&self.agent, &self.address, &status))?;
            let Some(chunk) = chunk else {
                return Ok(None);
            };
            match fresh(self.offset, chunk.offset, chunk.data) {
                Ok(bytes) if bytes.is_empty() => {}
                Ok(bytes) => {
                    self.offset += bytes.len() as u64;
                    return Ok(Some(bytes));
                }
                Err(missing) => {
                    return Err(CliError::Answer {
                        who: format!("agent {} at {}", self.agent, clean(&self.address)),
                        cause: format!("{missing} bytes are missing at offset {}", self.offset),
                    });
                }
            }
        }
    }
}

/// What of a chunk was not handed on yet; the error is how many bytes are missing before it.
fn fresh(have: u64, offset: u64, mut data: Vec<u8>) -> Result<Vec<u8>, u64> {
    if offset > have {
        return Err(offset - have);
    }
    let known = usize::try_from(have - offset).unwrap_or(usize::MAX);
    data.drain(..known.min(data.len()));
    Ok(data)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_come_once_and_without_gaps() {
        assert_eq!(fresh(0, 0, b"abc".to_vec()), Ok(b"abc".to_vec()));
        assert_eq!(fresh(2, 0, b"abc".to_vec()), Ok(b"c".to_vec()));
        assert_eq!(fresh(9, 0, b"abc".to_vec()), Ok(Vec::new()));
        assert_eq!(fresh(3, 5, b"abc".to_vec()), Err(2));
    }
}
