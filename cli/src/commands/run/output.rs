//! Brings a task's stdout and stderr here while it runs.
//!
//! **Invariant.** A stream is complete when a read that began after the task was known to have ended
//! came to its end by itself; only then, or after [`MAX_ATTEMPTS`] failures in a row, is it given up.
//! So neither a restart of the agent nor an end of the task between two reads loses a byte.

use std::time::Duration;

use ebb_types::{AgentId, AgentInfo, FrameworkId, TaskId};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use crate::client::Master;
use crate::error::CliError;
use crate::output::Out;
use crate::output::stream::Stream;
use crate::sandbox::{FileOf, Sandboxes};

/// Most pieces that wait to be printed.
const MAX_PIECES: usize = 64;
/// After so many failures in a row once the task has ended, the rest is given up.
const MAX_ATTEMPTS: u32 = 6;
/// First wait before another attempt; each further one is twice as long.
const FIRST_RETRY: Duration = Duration::from_millis(100);
/// Longest wait before another attempt.
const LAST_RETRY: Duration = Duration::from_secs(2);
const STREAMS: [&str; 2] = ["stdout", "stderr"];

/// Some bytes of one stream, by its index.
#[derive(Debug)]
pub(crate) struct Piece {
    stream: usize,
    bytes: Vec<u8>,
}

/// Both streams of one task.
#[derive(Debug)]
pub(crate) struct Output {
    streams: [Stream; 2],
    pieces: Option<mpsc::Receiver<Piece>>,
    pumps: Vec<JoinHandle<Result<(), CliError>>>,
    ended: watch::Sender<bool>,
}

impl Output {
    /// Nothing yet.
    pub(crate) fn new() -> Self {
        Self {
            streams: STREAMS.map(Stream::new),
            pieces: None,
            pumps: Vec::new(),
            ended: watch::Sender::new(false),
        }
    }

    /// Whether the streams are being read.
    pub(crate) const fn has_begun(&self) -> bool {
        self.pieces.is_some()
    }

    /// Begins to read both streams.
    pub(crate) fn begin(
        &mut self,
        master: &Master,
        framework_id: &FrameworkId,
        task_id: &TaskId,
        agent_id: &AgentId,
    ) {
        let (sender, receiver) = mpsc::channel(MAX_PIECES);
        self.pieces = Some(receiver);
        self.pumps = STREAMS
            .into_iter()
            .enumerate()
            .map(|(stream, path)| {
                let pump = Pump {
                    file: FileOf {
                        framework_id: framework_id.clone(),
                        task_id: task_id.clone(),
                        path,
                    },
                    master: master.clone(),
                    agent_id: agent_id.clone(),
                    agent: None,
                    stream,
                    offset: 0,
                    pieces: sender.clone(),
                    ended: self.ended.subscribe(),
                };
                tokio::spawn(pump.run())
            })
            .collect();
    }

    /// The task has ended: what it wrote so far is all.
    pub(crate) fn task_has_ended(&self) {
        self.ended.send_replace(true);
    }

    /// The next piece; pending for ever while nothing is read and after the end.
    pub(crate) async fn next(&mut self) -> Option<Piece> {
        match self.next_or_end().await {
            Some(piece) => Some(piece),
            None => std::future::pending().await,
        }
    }

    /// The next piece; none at the end of both streams.
    pub(crate) async fn next_or_end(&mut self) -> Option<Piece> {
        match &mut self.pieces {
            Some(pieces) => pieces.recv().await,
            None => None,
        }
    }

    /// Prints a piece.
    pub(crate) fn put(&mut self, piece: Option<Piece>, out: &mut Out) -> Result<(), CliError> {
        if let Some(piece) = piece {
            self.streams[piece.stream].put_on_own(out, &piece.bytes)?;
        }
        Ok(())
    }

    /// Prints what is left; gives what could not be read.
    pub(crate) async fn finish(&mut self, out: &mut Out) -> Result<Vec<CliError>, CliError> {
        let mut missing = Vec::new();
        for pump in self.pumps.drain(..) {
            if !pump.is_finished() && self.pieces.as_ref().is_some_and(|p| !p.is_closed()) {
                pump.abort();
                continue;
            }
            if let Ok(Err(error)) = pump.await {
                missing.push(error);
            }
        }
        for stream in &mut self.streams {
            stream.finish(out)?;
        }
        Ok(missing)
    }
}

/// Reads one stream to its end.
struct Pump {
    file: FileOf,
    master: Master,
    agent_id: AgentId,
    /// Where the agent is, once the master has said so.
    agent: Option<AgentInfo>,
    stream: usize,
    offset: u64,
    pieces: mpsc::Sender<Piece>,
    ended: watch::Receiver<bool>,
}

impl Pump {
    async fn run(mut self) -> Result<(), CliError> {
        let mut failures = 0;
        loop {
            let had_ended = *self.ended.borrow_and_update();
            let before = self.offset;
            let result = self.read().await;
            if self.offset > before {
                failures = 0;
            }
            match result {
                Ok(()) if had_ended => return Ok(()),
                Ok(()) => self.wait(FIRST_RETRY).await,
                Err(error) => {
                    failures += 1;
                    if had_ended && failures >= MAX_ATTEMPTS {
                        return Err(error);
                    }
                    let wait = FIRST_RETRY * 2_u32.pow(failures.min(8) - 1);
                    self.wait(wait.min(LAST_RETRY)).await;
                }
            }
            if self.pieces.is_closed() {
                return Ok(());
            }
        }
    }

    /// Waits so long, or until the task has ended.
    async fn wait(&mut self, time: Duration) {
        if *self.ended.borrow() {
            tokio::time::sleep(time).await;
            return;
        }
        // The sender lives as long as the output that aborts this; an error cannot come first.
        let _ = tokio::time::timeout(time, self.ended.changed()).await;
    }

    /// Reads on from where it stands, until the agent ends the stream.
    async fn read(&mut self) -> Result<(), CliError> {
        let agent = match self.agent.take() {
            Some(agent) => agent,
            None => self.master.agent(&self.agent_id).await?,
        };
        // Kept only while it serves: an agent that was started anew may listen elsewhere.
        let mut sandboxes = Sandboxes::connect(&self.agent_id, &agent).await?;
        let mut reader = sandboxes.read(&self.file, self.offset, true).await?;
        while let Some(bytes) = reader.next().await? {
            self.offset = reader.offset();
            let stream = self.stream;
            if self.pieces.send(Piece { stream, bytes }).await.is_err() {
                return Ok(());
            }
        }
        self.agent = Some(agent);
        Ok(())
    }
}
