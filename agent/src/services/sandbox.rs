//! Reads what tasks wrote, for whoever asks: from an offset on, and on as it grows until the task has
//! ended.
//!
//! Paths come from outside and are resolved beneath the sandbox by the kernel, links included (see
//! [`crate::runtime`]). A reader that does not read is cut off. Growth is awaited on the kernel's word
//! (inotify), not by looking again and again.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ebb_api::proto::{ReadChunk, ReadRequest, sandbox_server::Sandbox};
use ebb_types::{ContainerId, ExecutorId, FrameworkId, TaskId, TaskKey};
use rustix::fs::inotify;
use tokio::io::unix::AsyncFd;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use crate::metrics::Metrics;
use crate::readiness;
use crate::runtime::{RunDir, RunKey, Runtime, RuntimeError, open_file};

/// Most bytes of one chunk.
const CHUNK_BYTES: usize = 64 << 10;
/// Chunks that wait for a reader.
const CHUNKS_AHEAD: usize = 4;
/// How long a reader may leave chunks lying before it is cut off.
const READER_PATIENCE: Duration = Duration::from_secs(60);
/// Most reads at a time.
const MAX_READERS: usize = 1_024;
/// Longest path within a sandbox, in bytes.
const MAX_PATH_BYTES: usize = 4_096;

/// Where a task that has not ended runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LiveTask {
    /// Its container.
    pub container_id: ContainerId,
    /// The framework's own executor that runs it, whose sandbox it shares.
    pub executor_id: Option<ExecutorId>,
}

/// Which tasks have not ended. The loop writes it, readers wait on it.
#[derive(Debug, Default)]
pub struct LiveTasks {
    tasks: Mutex<HashMap<TaskKey, (LiveTask, watch::Sender<bool>)>>,
}

impl LiveTasks {
    /// A task has come, or is known already: then whoever waits for its end goes on waiting.
    pub fn begin(&self, key: TaskKey, task: LiveTask) {
        let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        tasks
            .entry(key)
            .or_insert_with(|| (task, watch::Sender::new(false)));
    }

    /// A task has ended.
    pub fn end(&self, key: &TaskKey) {
        let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, ended)) = tasks.remove(key) {
            ended.send_replace(true);
        }
    }

    fn get(&self, key: &TaskKey) -> Option<(LiveTask, watch::Receiver<bool>)> {
        let tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        tasks
            .get(key)
            .map(|(task, ended)| (task.clone(), ended.subscribe()))
    }
}

/// The service.
#[derive(Clone, Debug)]
pub struct SandboxService {
    runtime: Runtime,
    live: Arc<LiveTasks>,
    readers: Arc<Semaphore>,
    metrics: Arc<Metrics>,
}

impl SandboxService {
    /// Reads the sandboxes of `runtime`.
    pub fn new(runtime: Runtime, live: Arc<LiveTasks>, metrics: Arc<Metrics>) -> Self {
        Self {
            runtime,
            live,
            readers: Arc::new(Semaphore::new(MAX_READERS)),
            metrics,
        }
    }

    /// The run whose sandbox is meant: that of the live task, else the latest.
    fn run(&self, key: &TaskKey, live: Option<&LiveTask>) -> Result<RunDir, Status> {
        let run_of = |task_id: &str, container_id: &str| {
            let key = RunKey {
                framework_id: key.0.to_string(),
                task_id: task_id.to_owned(),
                container_id: container_id.to_owned(),
            };
            self.runtime
                .run_dir(&key)
                .map_err(|error| Status::invalid_argument(error.to_string()))
        };
        if let Some(live) = live {
            let folder = live
                .executor_id
                .as_ref()
                .map_or(key.1.as_str(), |id| id.as_str());
            return run_of(folder, live.container_id.as_str());
        }
        let any = run_of(key.1.as_str(), "any")?;
        let latest = any.path().parent().and_then(latest_folder);
        match latest {
            Some(container_id) => run_of(key.1.as_str(), &container_id),
            None => Err(Status::not_found(format!(
                "this agent has no sandbox of task {} of framework {}; it ran elsewhere, or its sandbox was removed \
                 after its time",
                key.1, key.0
            ))),
        }
    }
}

/// The folder that was made last.
fn latest_folder(folder: &Path) -> Option<String> {
    std::fs::read_dir(folder)
        .ok()?
        .flatten()
        .filter_map(|entry| {
            let made = entry
                .metadata()
                .and_then(|meta| meta.created().or_else(|_| meta.modified()));
            Some((made.ok()?, entry.file_name().into_string().ok()?))
        })
        .max()
        .map(|(_, name)| name)
}

#[tonic::async_trait]
impl Sandbox for SandboxService {
    type ReadStream = ReceiverStream<Result<ReadChunk, Status>>;

    async fn read(
        &self,
        request: Request<ReadRequest>,
    ) -> Result<Response<Self::ReadStream>, Status> {
        let request = request.into_inner();
        let invalid = |error: ebb_types::InvalidId| Status::invalid_argument(error.to_string());
        let framework_id = FrameworkId::new(&request.framework_id).map_err(invalid)?;
        let task_id = TaskId::new(&request.task_id).map_err(invalid)?;
        if request.path.is_empty()
            || request.path.len() > MAX_PATH_BYTES
            || request.path.contains('\0')
        {
            return Err(Status::invalid_argument(
                "name a file within the sandbox, like stdout",
            ));
        }
        let Ok(permit) = Arc::clone(&self.readers).try_acquire_owned() else {
            return Err(Status::resource_exhausted(format!(
                "{MAX_READERS} reads are under way, which is the most; try again later"
            )));
        };
        let key = (framework_id, task_id);
        let live = self.live.get(&key);
        let run = self.run(&key, live.as_ref().map(|(task, _)| task))?;
        let reading = Reading {
            run,
            path: request.path.into(),
            offset: request.offset,
            ended: live.map(|(_, ended)| ended).filter(|_| request.follow),
            chunk: vec![0; CHUNK_BYTES],
            patience: READER_PATIENCE,
        };
        if reading.ended.is_none() {
            // What is not there now never will be: said at once rather than in the stream.
            reading.open().map_err(|error| status(&error))?;
        }
        let (chunks, stream) = mpsc::channel(CHUNKS_AHEAD);
        let metrics = Arc::clone(&self.metrics);
        tokio::spawn(async move {
            let _permit = permit;
            reading.send(&chunks, &metrics).await;
        });
        Ok(Response::new(ReceiverStream::new(stream)))
    }
}

fn status(error: &RuntimeError) -> Status {
    let text = crate::containers::chain(error);
    match error {
        RuntimeError::File { source, .. } if source.kind() == io::ErrorKind::NotFound => {
            Status::not_found(text)
        }
        _ => Status::invalid_argument(text),
    }
}

/// One read.
struct Reading {
    run: RunDir,
    path: PathBuf,
    offset: u64,
    /// To be followed until this becomes true.
    ended: Option<watch::Receiver<bool>>,
    chunk: Vec<u8>,
    patience: Duration,
}

impl Reading {
    fn open(&self) -> Result<File, RuntimeError> {
        open_file(&self.run, &self.path)
    }

    /// Whether nothing is to be waited for: the task has ended, or is not to be followed, or the agent
    /// itself ends.
    fn has_ended(&self) -> bool {
        self.ended
            .as_ref()
            .is_none_or(|ended| *ended.borrow() || ended.has_changed().is_err())
    }

    async fn send(mut self, chunks: &mpsc::Sender<Result<ReadChunk, Status>>, metrics: &Metrics) {
        let outcome = tokio::select! {
            outcome = self.send_all(chunks) => outcome,
            () = chunks.closed() => Ok(()),
        };
        match outcome {
            Ok(()) => {}
            Err(Stop::CutOff) => {
                metrics.reader_cut_off();
                tracing::info!(file = %self.path.display(), "a reader was cut off because it did not read");
            }
            Err(Stop::Failed(status)) => {
                // If the reader is gone there is nobody to tell.
                let _ = chunks.try_send(Err(status));
            }
        }
    }

    async fn send_all(
        &mut self,
        chunks: &mpsc::Sender<Result<ReadChunk, Status>>,
    ) -> Result<(), Stop> {
        let Some(file) = self.await_file().await? else {
            return Ok(());
        };
        let mut growth = match self.ended {
            Some(_) => Some(Growth::of(&self.run.sandbox().join(&self.path)).map_err(failed)?),
            None => None,
        };
        loop {
            // Looked at before reading: what is written until then is read in this round.
            let is_last = self.has_ended();
            while self.send_next(&file, chunks).await? {}
            let (Some(growth), Some(ended), false) = (&mut growth, &mut self.ended, is_last) else {
                return Ok(());
            };
            tokio::select! {
                grown = growth.next() => grown.map_err(failed)?,
                // The task has ended: one more round reads what is left.
                _ = ended.wait_for(|ended| *ended) => {}
            }
        }
    }

    /// Waits for the file of a task that is still being started. `None` if the task ended without one.
    async fn await_file(&mut self) -> Result<Option<File>, Stop> {
        loop {
            let is_last = self.has_ended();
            match self.open() {
                Ok(file) => return Ok(Some(file)),
                Err(RuntimeError::File { source, .. })
                    if source.kind() == io::ErrorKind::NotFound && !is_last =>
                {
                    let folder = nearest_folder(&self.run.sandbox());
                    let mut growth = Growth::of(&folder).map_err(failed)?;
                    // It, or a folder above it, may have come between the look and the watch.
                    if self.open().is_ok() || nearest_folder(&self.run.sandbox()) != folder {
                        continue;
                    }
                    let Some(ended) = &mut self.ended else {
                        return Ok(None);
                    };
                    tokio::select! {
                        grown = growth.next() => grown.map_err(failed)?,
                        _ = ended.wait_for(|ended| *ended) => {}
                    }
                }
                Err(RuntimeError::File { source, .. })
                    if source.kind() == io::ErrorKind::NotFound && self.ended.is_some() =>
                {
                    return Ok(None);
                }
                Err(error) => return Err(Stop::Failed(status(&error))),
            }
        }
    }

    /// Sends the next chunk; false at the present end of the file.
    async fn send_next(
        &mut self,
        file: &File,
        chunks: &mpsc::Sender<Result<ReadChunk, Status>>,
    ) -> Result<bool, Stop> {
        let count = file.read_at(&mut self.chunk, self.offset).map_err(failed)?;
        if count == 0 {
            return Ok(false);
        }
        let chunk = ReadChunk {
            offset: self.offset,
            data: self.chunk[..count].to_vec(),
        };
        self.offset += count as u64;
        match tokio::time::timeout(self.patience, chunks.send(Ok(chunk))).await {
            Ok(Ok(())) => Ok(true),
            // The reader is gone.
            Ok(Err(_)) => Err(Stop::Failed(Status::cancelled("the reader is gone"))),
            Err(_) => Err(Stop::CutOff),
        }
    }
}

/// Why a read ends before its time.
enum Stop {
    CutOff,
    Failed(Status),
}

fn failed(error: io::Error) -> Stop {
    Stop::Failed(Status::internal(format!(
        "the file cannot be read: {error}"
    )))
}

/// The folder itself, or the first above it that exists.
fn nearest_folder(path: &Path) -> PathBuf {
    path.ancestors()
        .find(|folder| folder.is_dir())
        .unwrap_or(Path::new("/"))
        .to_owned()
}

/// The kernel's word that a file or folder has changed.
struct Growth {
    watch: AsyncFd<OwnedFd>,
}

impl Growth {
    fn of(path: &Path) -> io::Result<Self> {
        let flags = inotify::CreateFlags::NONBLOCK | inotify::CreateFlags::CLOEXEC;
        let watch = inotify::init(flags)?;
        inotify::add_watch(
            &watch,
            path,
            inotify::WatchFlags::MODIFY
                | inotify::WatchFlags::CREATE
                | inotify::WatchFlags::MOVED_TO,
        )?;
        Ok(Self {
            watch: readiness::readable(watch)?,
        })
    }

    async fn next(&mut self) -> io::Result<()> {
        let mut ready = self.watch.readable_mut().await?;
        let mut buffer = [0; 4_096];
        // All events that have gathered count as one.
        while rustix::io::read(ready.get_inner(), &mut buffer).is_ok_and(|count| count > 0) {}
        ready.clear_ready();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_reader_that_does_not_read_is_cut_off_and_counted() {
        let work = tempfile::tempdir().expect("a folder");
        let key = RunKey {
            framework_id: "f".to_owned(),
            task_id: "t".to_owned(),
            container_id: "c".to_owned(),
        };
        let run = RunDir::of(work.path(), "a", &key).expect("a run");
        std::fs::create_dir_all(run.sandbox()).expect("made");
        let content = vec![b'x'; CHUNK_BYTES * 3];
        std::fs::write(run.sandbox().join("stdout"), content).expect("written");
        let reading = || Reading {
            run: run.clone(),
            path: "stdout".into(),
            offset: 0,
            ended: None,
            chunk: vec![0; CHUNK_BYTES],
            patience: Duration::from_millis(50),
        };
        let metrics = Metrics::new();
        let (chunks, mut stream) = mpsc::channel(1);
        reading().send(&chunks, &metrics).await;
        assert!(
            metrics
                .render()
                .contains("ebb_agent_sandbox_readers_cut_off_total 1")
        );
        assert!(stream.try_recv().is_ok(), "what fitted was sent");
        let (chunks, mut stream) = mpsc::channel(8);
        reading().send(&chunks, &metrics).await;
        drop(chunks);
        let mut bytes = 0;
        while let Some(chunk) = stream.recv().await {
            bytes += chunk.expect("no error").data.len();
        }
        assert_eq!(bytes, CHUNK_BYTES * 3);
    }

    #[test]
    fn whoever_waits_for_a_task_to_end_hears_it_however_often_the_task_was_announced() {
        let live = LiveTasks::default();
        let key = (
            FrameworkId::new("f").expect("valid"),
            TaskId::new("t").expect("valid"),
        );
        let task = LiveTask {
            container_id: ContainerId::new("c").expect("valid"),
            executor_id: None,
        };
        assert!(live.get(&key).is_none());
        live.begin(key.clone(), task.clone());
        let (known, ended) = live.get(&key).expect("it has come");
        assert_eq!(known, task);
        live.begin(key.clone(), task);
        assert!(!*ended.borrow() && ended.has_changed().is_ok());
        live.end(&key);
        assert!(*ended.borrow());
        assert!(live.get(&key).is_none());
    }
}
