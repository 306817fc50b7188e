//! The executor's driver against an agent's end of the socket in this process.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use ebb_api::proto;
use ebb_api::proto::executor_server::{Executor as Service, ExecutorServer};
use ebb_framework::executor::{
    Executor, ExecutorConfig, ExecutorError, ExecutorHandle, ExecutorSubscribed, run_executor,
};
use ebb_types::{
    CommandInfo, ExecutorCall, ExecutorEvent, ExecutorInfo, Resources, TaskId, TaskInfo, TaskState,
    TaskStatus,
};
use tokio::net::UnixListener;
use tokio::runtime::Runtime;
use tokio::sync::{Mutex, mpsc, oneshot};
use tokio::time::timeout;
use tokio_stream::wrappers::{ReceiverStream, UnixListenerStream};
use tonic::{Request, Response, Status, Streaming};

const PATIENCE: Duration = Duration::from_secs(60);

fn id<T: std::str::FromStr<Err: std::fmt::Debug>>(text: &str) -> T {
    text.parse().expect("valid")
}

type Events = mpsc::Sender<Result<proto::ExecutorEvent, Status>>;

/// The agent's end: hands every call to the test, and the events of the latest stream back.
#[derive(Clone)]
struct Agent {
    calls: mpsc::Sender<ExecutorCall>,
    events: Arc<Mutex<Option<Events>>>,
}

#[tonic::async_trait]
impl Service for Agent {
    type SubscribeStream = ReceiverStream<Result<proto::ExecutorEvent, Status>>;

    async fn subscribe(
        &self,
        request: Request<Streaming<proto::ExecutorCall>>,
    ) -> Result<Response<Self::SubscribeStream>, Status> {
        let (events, stream) = mpsc::channel(64);
        *self.events.lock().await = Some(events);
        let calls = self.calls.clone();
        let mut incoming = request.into_inner();
        tokio::spawn(async move {
            while let Ok(Some(call)) = incoming.message().await {
                let call = ExecutorCall::try_from(call).expect("a valid call");
                if calls.send(call).await.is_err() {
                    return;
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(stream)))
    }
}

/// An agent in a runtime of its own, so that its end closes every socket as a kill would.
struct Fake {
    calls: mpsc::Receiver<ExecutorCall>,
    events: Arc<Mutex<Option<Events>>>,
    runtime: Option<Runtime>,
}

impl Drop for Fake {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Fake {
    async fn start(socket: &Path) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime");
        let (sender, calls) = mpsc::channel(64);
        let events = Arc::new(Mutex::new(None));
        let agent = Agent {
            calls: sender,
            events: Arc::clone(&events),
        };
        let (bound, listens) = oneshot::channel();
        let socket: PathBuf = socket.to_owned();
        runtime.spawn(async move {
            if socket.exists() {
                std::fs::remove_file(&socket).expect("removed");
            }
            let listener = UnixListener::bind(&socket).expect("bound");
            bound.send(()).expect("somebody waits");
            tonic::transport::Server::builder()
                .add_service(ExecutorServer::new(agent))
                .serve_with_incoming(UnixListenerStream::new(listener))
                .await
                .expect("served");
        });
        listens.await.expect("bound");
        Self {
            calls,
            events,
            runtime: Some(runtime),
        }
    }

    async fn call(&mut self) -> ExecutorCall {
        let call = timeout(PATIENCE, self.calls.recv()).await.expect("in time");
        call.expect("the agent lives")
    }

    async fn update(&mut self) -> TaskStatus {
        match self.call().await {
            ExecutorCall::Update(status) => status,
            other => panic!("{other:?}"),
        }
    }

    async fn send(&self, event: ExecutorEvent) {
        let events = self.events.lock().await.clone().expect("a stream");
        events.send(Ok(event.into())).await.expect("it reads");
    }

    async fn subscribed(&self) {
        self.send(ExecutorEvent::Subscribed {
            executor: ExecutorInfo {
                executor_id: id("e"),
                name: "e".into(),
                command: CommandInfo::default(),
                lots: ebb_types::Lots::NONE,
                resources: Resources::ZERO,
                data: b"for you".to_vec(),
            },
            agent_id: id("agent"),
            container_id: id("container"),
        })
        .await;
    }

    async fn acknowledge(&self, status: &TaskStatus) {
        self.send(ExecutorEvent::Acknowledged {
            task_id: status.task_id.clone(),
            uuid: status.uuid.expect("an executor's status has one"),
        })
        .await;
    }
}

fn task(name: &str) -> TaskInfo {
    TaskInfo {
        task_id: id(name),
        name: name.into(),
        agent_id: id("agent"),
        lots: ebb_types::Lots::NONE,
        resources: Resources::ZERO,
        command: None,
        executor: None,
        kill_grace_ms: None,
        warn_signal: None,
        max_completion_ms: None,
        cpu_limit_milli: None,
        data: Vec::new(),
        labels: Vec::new(),
    }
}

/// Says RUNNING at a launch and KILLED at a kill, and answers messages with themselves.
#[derive(Default)]
struct Plain {
    launched: Vec<TaskId>,
    handed: Vec<u8>,
    subscriptions: u32,
}

impl Executor for Plain {
    fn subscribed(&mut self, _handle: &ExecutorHandle, subscribed: &ExecutorSubscribed) {
        self.handed.clone_from(&subscribed.data);
        assert_eq!(subscribed.again, self.subscriptions > 0);
        self.subscriptions += 1;
    }

    fn launch(&mut self, handle: &ExecutorHandle, task: TaskInfo) {
        handle
            .update(&task.task_id, TaskState::Running, "")
            .expect("room");
        self.launched.push(task.task_id);
    }

    fn kill(&mut self, handle: &ExecutorHandle, task_id: &TaskId, grace_ms: u64) {
        let message = format!("after {grace_ms}");
        handle
            .update(task_id, TaskState::Killed, message)
            .expect("room");
    }

    fn message(&mut self, handle: &ExecutorHandle, data: &[u8]) {
        handle.message(data.to_vec()).expect("room");
    }
}

fn config(socket: &Path) -> ExecutorConfig {
    ExecutorConfig {
        socket: socket.to_owned(),
        framework_id: id("f"),
        executor_id: id("e"),
    }
}

fn what_it_has(call: ExecutorCall) -> (Vec<TaskId>, Vec<TaskStatus>) {
    match call {
        ExecutorCall::Subscribe {
            unacknowledged_tasks,
            unacknowledged_updates,
            ..
        } => (unacknowledged_tasks, unacknowledged_updates),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn an_executor_outlives_its_agent_and_says_again_what_was_not_acknowledged() {
    let folder = tempfile::tempdir().expect("folder");
    let socket = folder.path().join("agent.sock");
    let mut agent = Fake::start(&socket).await;
    let running = tokio::spawn(run_executor(Plain::default(), config(&socket)));
    assert_eq!(what_it_has(agent.call().await), (Vec::new(), Vec::new()));
    agent.subscribed().await;
    agent.send(ExecutorEvent::Launch(Box::new(task("a")))).await;
    let first = agent.update().await;
    assert_eq!(
        (first.state, first.executor_id.clone()),
        (TaskState::Running, Some(id("e")))
    );
    agent.acknowledge(&first).await;
    agent.send(ExecutorEvent::Launch(Box::new(task("b")))).await;
    let second = agent.update().await;
    agent.send(ExecutorEvent::Message(b"hello".to_vec())).await;
    assert_eq!(agent.call().await, ExecutorCall::Message(b"hello".to_vec()));

    drop(agent);
    let mut agent = Fake::start(&socket).await;
    let (tasks, updates) = what_it_has(agent.call().await);
    assert_eq!(tasks, [id::<TaskId>("b")], "the first was acknowledged");
    assert_eq!(updates, std::slice::from_ref(&second));
    agent.subscribed().await;
    agent.acknowledge(&second).await;
    agent.send(ExecutorEvent::Launch(Box::new(task("b")))).await;
    let kill = |task: &str, grace_ms| ExecutorEvent::Kill {
        task_id: id(task),
        grace_ms,
    };
    agent.send(kill("b", 7)).await;
    let killed = agent.update().await;
    assert_eq!(
        (killed.state, killed.message.as_str()),
        (TaskState::Killed, "after 7")
    );
    agent.acknowledge(&killed).await;
    agent.send(ExecutorEvent::Shutdown).await;
    let ended = timeout(PATIENCE, running)
        .await
        .expect("in time")
        .expect("no panic");
    let plain = ended.expect("as asked");
    assert_eq!(
        plain.launched,
        [id::<TaskId>("a"), id::<TaskId>("b")],
        "each launch once"
    );
    assert_eq!(
        (plain.handed.as_slice(), plain.subscriptions),
        (&b"for you"[..], 2)
    );
}

#[tokio::test]
async fn an_executor_that_is_refused_ends_with_the_reason() {
    let folder = tempfile::tempdir().expect("folder");
    let socket = folder.path().join("agent.sock");
    let mut agent = Fake::start(&socket).await;
    let running = tokio::spawn(run_executor(Plain::default(), config(&socket)));
    agent.call().await;
    agent
        .send(ExecutorEvent::Error("unknown executor".into()))
        .await;
    let ended = timeout(PATIENCE, running)
        .await
        .expect("in time")
        .expect("no panic");
    let error = ended.err().expect("refused");
    assert!(matches!(&error, ExecutorError::Refused { message } if message == "unknown executor"));
}
