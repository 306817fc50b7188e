//! The driver, the command, the batch and the service against a real gRPC server in this process.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ebb_api::proto;
use ebb_api::proto::scheduler_server::{Scheduler as Service, SchedulerServer};
use ebb_framework::batch::{self, BatchConfig};
use ebb_framework::service::{self, ServiceConfig, ServiceSpec};
use ebb_framework::{
    Calls, CommandSpec, Demand, DriverError, Outcome, RunConfig, RunEvent, Scheduler,
    SchedulerConfig, Subscribed, run, run_command,
};
use ebb_types::{
    Call, Event, ExitStatus, FrameworkId, Generation, Incarnation, MasterInfo, Offer, Quantities,
    ReconcileTask, Resources, Role, Source, TaskInfo, TaskState, TaskStatus, Timestamp, UpdateUuid,
};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::timeout;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::{Request, Response, Status, Streaming};

/// Longer than anything here takes, also on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

fn id<T: std::str::FromStr<Err: std::fmt::Debug>>(text: &str) -> T {
    text.parse().expect("valid")
}

/// What the fake master has seen and has, over all its lives.
#[derive(Default)]
struct Book {
    calls: Vec<Call>,
    offers: u64,
    running: BTreeMap<String, TaskInfo>,
    /// Cut the connection after the next launch, before anything is said of it.
    cut_after_launch: bool,
    /// Refuses the framework `f-1`, and calls new ones `f-2`.
    removed: bool,
}

/// A master that offers one machine again and again, and whose tasks end as their command says:
/// `exit N`, or not at all.
#[derive(Clone)]
struct Master {
    book: Arc<Mutex<Book>>,
}

type Events = mpsc::Sender<Result<proto::SchedulerEvent, Status>>;

#[tonic::async_trait]
impl Service for Master {
    type SubscribeStream = ReceiverStream<Result<proto::SchedulerEvent, Status>>;

    async fn subscribe(
        &self,
        request: Request<Streaming<proto::SchedulerCall>>,
    ) -> Result<Response<Self::SubscribeStream>, Status> {
        let (events, stream) = mpsc::channel(1024);
        let master = self.clone();
        tokio::spawn(async move { master.serve(request.into_inner(), events).await });
        Ok(Response::new(ReceiverStream::new(stream)))
    }
}

fn status(task: &TaskInfo, state: TaskState, count: u64) -> TaskStatus {
    TaskStatus {
        agent_id: Some(task.agent_id.clone()),
        uuid: Some(UpdateUuid::of(Incarnation(1), count)),
        ..TaskStatus::new(
            task.task_id.clone(),
            state,
            Source::Executor,
            Timestamp::from_ms(count),
        )
    }
}

/// How a task's command says that it ends.
fn end_of(task: &TaskInfo) -> Option<i32> {
    let command = task.command.as_ref()?;
    command.value.strip_prefix("exit ")?.trim().parse().ok()
}

impl Master {
    async fn serve(self, mut calls: Streaming<proto::SchedulerCall>, events: Events) {
        while let Ok(Some(call)) = calls.message().await {
            let call = Call::try_from(call).expect("a valid call");
            let answers = self.answer(&call);
            self.book
                .lock()
                .expect("not poisoned")
                .calls
                .push(call.clone());
            for event in answers {
                if events.send(Ok(event.into())).await.is_err() {
                    return;
                }
            }
            if self.cuts(&call) || matches!(call, Call::Teardown) {
                return;
            }
        }
    }

    fn cuts(&self, call: &Call) -> bool {
        let mut book = self.book.lock().expect("not poisoned");
        matches!(call, Call::Accept { .. }) && std::mem::take(&mut book.cut_after_launch)
    }

    fn answer(&self, call: &Call) -> Vec<Event> {
        let mut book = self.book.lock().expect("not poisoned");
        match call {
            Call::Subscribe { info, .. } if book.removed && info.id == Some(id("f-1")) => {
                vec![Event::Error("Framework has been removed".into())]
            }
            Call::Subscribe { info, .. } => vec![
                Event::Subscribed {
                    framework_id: info.id.clone().unwrap_or_else(|| book.new_id()),
                    heartbeat_interval_ms: 15_000,
                    master: MasterInfo {
                        id: "m".into(),
                        generation: Generation(1),
                        hostname: "localhost".into(),
                        port: 1,
                        version: "0".into(),
                        domain: None,
                    },
                },
                book.offer(),
            ],
            Call::Accept { operations, .. } => {
                let tasks = operations
                    .iter()
                    .flat_map(|operation| operation.tasks().to_vec());
                let mut events: Vec<Event> = tasks.flat_map(|task| book.start(task)).collect();
                if book.cut_after_launch {
                    return Vec::new();
                }
                events.push(book.offer());
                events
            }
            Call::Revive { .. } => vec![book.offer()],
            Call::Kill { task_id, .. } => {
                let killed = book.running.remove(task_id.as_str());
                let killed = killed.map(|task| Event::Update(status(&task, TaskState::Killed, 9)));
                killed.into_iter().collect()
            }
            Call::Reconcile { tasks } => book.reconcile(tasks),
            Call::Teardown => vec![Event::Error("Framework has been removed".into())],
            _ => Vec::new(),
        }
    }
}

impl Book {
    fn new_id(&self) -> FrameworkId {
        id(if self.removed { "f-2" } else { "f-1" })
    }

    fn offer(&mut self) -> Event {
        self.offers += 1;
        Event::Offers(vec![Offer {
            id: id(&format!("o{}", self.offers)),
            framework_id: id("f-1"),
            agent_id: id("agent"),
            hostname: "localhost".into(),
            role: id::<Role>("*"),
            lots: ebb_types::Lots::NONE,
            resources: Resources::regular(Quantities::cpus_mem(4_000, 4 << 30)),
            attributes: Vec::new(),
            executor_ids: Vec::new(),
            deadline: None,
            domain: None,
            unavailability: None,
            lasting: ebb_types::Lasting::UNKNOWN,
        }])
    }

    fn start(&mut self, task: TaskInfo) -> Vec<Event> {
        let mut events = vec![Event::Update(status(&task, TaskState::Running, 1))];
        match end_of(&task) {
            None => {
                self.running.insert(task.task_id.to_string(), task);
            }
            Some(code) => {
                let state = if code == 0 {
                    TaskState::Finished
                } else {
                    TaskState::Failed
                };
                let exit = Some(ExitStatus::Code(code));
                events.push(Event::Update(TaskStatus {
                    exit,
                    ..status(&task, state, 2)
                }));
            }
        }
        events
    }

    fn reconcile(&self, tasks: &[ReconcileTask]) -> Vec<Event> {
        let known = self.running.values();
        known
            .filter(|task| tasks.is_empty() || tasks.iter().any(|t| t.task_id == task.task_id))
            .map(|task| {
                let mut status = status(task, TaskState::Running, 1);
                status.uuid = None;
                status.reason = Some(ebb_types::Reason::Reconciliation);
                Event::Update(status)
            })
            .collect()
    }

    fn count(&self, is: impl Fn(&Call) -> bool) -> usize {
        self.calls.iter().filter(|call| is(call)).count()
    }
}

/// A fake master in a runtime of its own, so that its end closes every socket as a kill would.
struct Server {
    address: SocketAddr,
    book: Arc<Mutex<Book>>,
    runtime: Option<Runtime>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

impl Server {
    async fn start() -> Self {
        Self::start_at(SocketAddr::from(([127, 0, 0, 1], 0)), Arc::default()).await
    }

    async fn start_at(address: SocketAddr, book: Arc<Mutex<Book>>) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime");
        let master = Master {
            book: Arc::clone(&book),
        };
        let (bound, address_of) = oneshot::channel();
        runtime.spawn(async move {
            let listener = TcpListener::bind(address).await.expect("a free port");
            let address = listener.local_addr().expect("bound");
            bound.send(address).expect("somebody waits");
            tonic::transport::Server::builder()
                .add_service(SchedulerServer::new(master))
                .serve_with_incoming(TcpListenerStream::new(listener))
                .await
                .expect("served");
        });
        Self {
            address: address_of.await.expect("bound"),
            book,
            runtime: Some(runtime),
        }
    }

    fn kill(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // On a thread of its own, since this one may not block. Its sockets are closed once it has ended.
            let ended = std::thread::spawn(move || runtime.shutdown_timeout(PATIENCE)).join();
            ended.expect("the runtime ends");
        }
    }

    fn config(&self) -> SchedulerConfig {
        SchedulerConfig::new([self.address.to_string()], "test")
    }

    fn book<T>(&self, read: impl FnOnce(&Book) -> T) -> T {
        read(&self.book.lock().expect("not poisoned"))
    }
}

/// Launches one task and ends with its end.
struct One {
    line: &'static str,
    heard: mpsc::UnboundedSender<String>,
    launched: bool,
    states: Vec<TaskState>,
}

impl One {
    fn new(line: &'static str) -> (Self, mpsc::UnboundedReceiver<String>) {
        let (heard, receiver) = mpsc::unbounded_channel();
        let one = Self {
            line,
            heard,
            launched: false,
            states: Vec::new(),
        };
        (one, receiver)
    }
}

impl Scheduler for One {
    fn subscribed(&mut self, _calls: &mut Calls, subscribed: &Subscribed) -> Outcome {
        Ok(self
            .heard
            .send(format!("subscribed again {}", subscribed.again))?)
    }

    fn offers(&mut self, calls: &mut Calls, offers: Vec<Offer>) -> Outcome {
        for offer in offers {
            if std::mem::replace(&mut self.launched, true) {
                calls.decline(&offer.id);
            } else {
                let agent_id = offer.agent_id.clone();
                let demand = Demand::cpus_mem(100, 1 << 20);
                let task = CommandSpec::shell(self.line).to_task(id("t"), agent_id, &demand);
                calls.launch(&offer, vec![task]);
            }
        }
        Ok(())
    }

    fn update(&mut self, calls: &mut Calls, status: &TaskStatus) -> Outcome {
        self.states.push(status.state);
        self.heard.send(status.state.name().to_owned())?;
        if status.state.is_terminal() {
            calls.teardown();
        }
        Ok(())
    }

    fn disconnected(&mut self, _calls: &mut Calls, _cause: &str) -> Outcome {
        Ok(self.heard.send("disconnected".to_owned())?)
    }
}

async fn wait_for(heard: &mut mpsc::UnboundedReceiver<String>, what: &str) {
    let waiting = async {
        while let Some(word) = heard.recv().await {
            if word == what {
                return;
            }
        }
        panic!("the driver ended before: {what}");
    };
    timeout(PATIENCE, waiting).await.expect(what);
}

#[tokio::test]
async fn a_task_is_launched_acknowledged_and_its_framework_ended() {
    let server = Server::start().await;
    let (one, _heard) = One::new("exit 0");
    let one = timeout(PATIENCE, run(one, server.config()))
        .await
        .expect("in time")
        .expect("ran");
    assert_eq!(one.states, [TaskState::Running, TaskState::Finished]);
    let count = |is: fn(&Call) -> bool| server.book(|book| book.count(is));
    assert_eq!(count(|call| matches!(call, Call::Acknowledge { .. })), 2);
    assert_eq!(count(|call| matches!(call, Call::Teardown)), 1);
}

#[tokio::test]
async fn a_master_that_comes_back_gets_the_same_framework_and_is_asked_for_its_tasks() {
    let mut server = Server::start().await;
    let (one, mut heard) = One::new("sleep");
    let driver = tokio::spawn(run(one, server.config()));
    wait_for(&mut heard, "TASK_RUNNING").await;
    server.kill();
    wait_for(&mut heard, "disconnected").await;
    let server = Server::start_at(server.address, Arc::clone(&server.book)).await;
    wait_for(&mut heard, "subscribed again true").await;
    wait_for(&mut heard, "TASK_RUNNING").await;
    let again = server.book(|book| {
        book.count(
            |call| matches!(call, Call::Subscribe { info, .. } if info.id == Some(id("f-1"))),
        )
    });
    assert!(again >= 1, "it came back under its id");
    let asked = server
        .book(|book| book.count(|c| matches!(c, Call::Reconcile { tasks } if tasks.is_empty())));
    assert!(asked >= 1, "it asked for everything");
    driver.abort();
}

#[tokio::test]
async fn a_task_whose_connection_broke_right_after_its_launch_is_found_again() {
    let server = Server::start().await;
    server.book.lock().expect("not poisoned").cut_after_launch = true;
    let (one, mut heard) = One::new("sleep");
    let driver = tokio::spawn(run(one, server.config()));
    wait_for(&mut heard, "disconnected").await;
    wait_for(&mut heard, "subscribed again true").await;
    wait_for(&mut heard, "TASK_RUNNING").await;
    assert_eq!(
        server.book(|book| book.count(|call| matches!(call, Call::Accept { .. }))),
        1
    );
    driver.abort();
}

#[tokio::test]
async fn the_second_master_is_taken_where_the_first_does_not_answer() {
    let nobody = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let closed = nobody.local_addr().expect("bound").to_string();
    drop(nobody);
    let server = Server::start().await;
    let mut config = server.config();
    config.masters.insert(0, closed);
    let (one, _heard) = One::new("exit 0");
    timeout(PATIENCE, run(one, config))
        .await
        .expect("in time")
        .expect("ran");
}

#[tokio::test]
async fn a_master_that_is_not_there_is_given_up_with_what_to_do() {
    let mut config = SchedulerConfig::new(["127.0.0.1:1"], "test");
    config.timing.give_up_after_ms = Some(200);
    let (one, _heard) = One::new("exit 0");
    let error = timeout(PATIENCE, run(one, config))
        .await
        .expect("in time")
        .err()
        .expect("gave up");
    let text = error.to_string();
    assert!(
        text.contains("127.0.0.1:1") && text.contains("check that one runs"),
        "{text}"
    );
    assert!(text.contains("refused"), "the cause is said: {text}");
}

#[tokio::test]
async fn an_address_that_is_none_and_a_server_that_is_no_master_are_said() {
    let (one, _heard) = One::new("exit 0");
    let none = SchedulerConfig::new(Vec::<String>::new(), "test");
    assert!(matches!(run(one, none).await, Err(DriverError::NoMaster)));
    let (one, _heard) = One::new("exit 0");
    let bad = SchedulerConfig::new(["not an address"], "test");
    assert!(matches!(
        run(one, bad).await,
        Err(DriverError::Address { .. })
    ));

    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("bound").to_string();
    // A gRPC server without a scheduler service.
    let serving = tokio::spawn(
        tonic::transport::Server::builder()
            .add_routes(tonic::service::Routes::default())
            .serve_with_incoming(TcpListenerStream::new(listener)),
    );
    let (one, _heard) = One::new("exit 0");
    let config = SchedulerConfig::new([address], "test");
    let error = timeout(PATIENCE, run(one, config))
        .await
        .expect("in time")
        .err()
        .expect("refused");
    assert!(error.to_string().contains("is no master"), "{error}");
    serving.abort();
}

fn run_config(server: &Server, line: &str) -> RunConfig {
    RunConfig {
        masters: vec![server.address.to_string()],
        name: "run".into(),
        role: id("*"),
        user: String::new(),
        command: CommandSpec::shell(line),
        demand: Demand::cpus_mem(500, 32 << 20),
        cpu_limit_milli: None,
        max_completion_ms: None,
        kill_grace_ms: None,
        give_up_after_ms: Some(30_000),
    }
}

async fn ended(events: &mut mpsc::Receiver<RunEvent>) -> TaskStatus {
    let waiting = async {
        while let Some(event) = events.recv().await {
            match event {
                RunEvent::Ended { status } => return status,
                RunEvent::Failed(error) => panic!("{error}"),
                _ => {}
            }
        }
        panic!("the events ended before the task");
    };
    timeout(PATIENCE, waiting).await.expect("an end")
}

#[tokio::test]
async fn one_command_ends_with_its_exit_code() {
    let server = Server::start().await;
    let (handle, mut events) = run_command(run_config(&server, "exit 3"));
    let status = ended(&mut events).await;
    assert_eq!(
        (status.state, RunEvent::exit_code(&status)),
        (TaskState::Failed, 3)
    );
    timeout(PATIENCE, handle.close()).await.expect("closed");
    assert_eq!(
        server.book(|book| book.count(|call| matches!(call, Call::Teardown))),
        1
    );
    assert!(events.recv().await.is_none(), "nothing comes after");
}

#[tokio::test]
async fn one_command_can_be_killed_while_it_runs_and_while_it_waits() {
    let server = Server::start().await;
    let (handle, mut events) = run_command(run_config(&server, "sleep"));
    loop {
        match timeout(PATIENCE, events.recv()).await.expect("in time") {
            Some(RunEvent::Status(status)) if status.state == TaskState::Running => break,
            Some(_) => {}
            None => panic!("ended"),
        }
    }
    handle.kill(None).await;
    assert_eq!(ended(&mut events).await.state, TaskState::Killed);
    handle.close().await;

    let mut too_big = run_config(&server, "sleep");
    too_big.demand = Demand::cpus_mem(64_000, 1);
    let (handle, mut events) = run_command(too_big);
    loop {
        match timeout(PATIENCE, events.recv()).await.expect("in time") {
            Some(RunEvent::Waiting { reason }) => {
                assert!(reason.contains("lacks cpus:60.000"), "{reason}");
                break;
            }
            Some(_) => {}
            None => panic!("ended"),
        }
    }
    handle.kill(None).await;
    assert_eq!(ended(&mut events).await.state, TaskState::Killed);
    handle.close().await;
}

fn batch_config(server: &Server, lines: &str) -> BatchConfig {
    BatchConfig {
        masters: vec![server.address.to_string()],
        name: "batch".into(),
        role: id("*"),
        user: String::new(),
        commands: batch::parse_lines(lines).expect("valid"),
        at_most: 3,
        demand: Demand::cpus_mem(1_000, 1 << 20),
        retries: 1,
        preemptions: 0,
        expected_run_ms: None,
        max_completion_ms: None,
        kill_grace_ms: None,
        state: None,
        give_up_after_ms: Some(30_000),
    }
}

#[tokio::test]
async fn a_batch_reports_its_counts_its_failures_and_where_they_were() {
    let server = Server::start().await;
    let mut lines = "exit 0\n".repeat(20);
    lines.push_str("exit 7\n");
    let (_stop, stopped) = watch::channel(false);
    let seen = Arc::new(Mutex::new(Vec::new()));
    let notes = Arc::clone(&seen);
    let progress = move |p: &batch::Progress| notes.lock().expect("not poisoned").push(p.finished);
    let running = batch::run(batch_config(&server, &lines), progress, stopped);
    let report = timeout(PATIENCE, running)
        .await
        .expect("in time")
        .expect("ran");
    assert_eq!((report.counts.finished, report.counts.failed), (20, 1));
    assert_eq!((report.counts.launches, report.counts.retries), (22, 1));
    let failure = &report.failures[0];
    assert_eq!((failure.number, failure.exit_code), (21, Some(7)));
    assert_eq!(failure.agent_id.as_deref(), Some("agent"));
    assert_eq!(seen.lock().expect("not poisoned").last(), Some(&20));
}

#[tokio::test]
async fn a_batch_with_a_state_file_is_done_only_once() {
    let server = Server::start().await;
    let folder = tempfile::tempdir().expect("folder");
    let mut config = batch_config(&server, "exit 0\nexit 0\n");
    config.state = Some(folder.path().join("state"));
    for _ in 0..2 {
        let (_stop, stopped) = watch::channel(false);
        let running = batch::run(config.clone(), |_| {}, stopped);
        let report = timeout(PATIENCE, running)
            .await
            .expect("in time")
            .expect("ran");
        assert!(report.is_success());
    }
    assert_eq!(
        server.book(|book| book.count(|call| matches!(call, Call::Subscribe { .. }))),
        1
    );
}

#[tokio::test]
async fn a_batch_whose_framework_was_removed_goes_on_with_a_new_one_and_counts_what_was_out_as_lost()
 {
    let server = Server::start().await;
    let folder = tempfile::tempdir().expect("folder");
    let mut config = batch_config(&server, "sleep\nsleep\nexit 0\nexit 0\n");
    config.state = Some(folder.path().join("state"));
    config.at_most = 2;
    config.retries = 0;
    let (out, mut launched) = mpsc::unbounded_channel();
    let (_stop, stopped) = watch::channel(false);
    let say = move |progress: &batch::Progress| out.send(progress.running).unwrap_or_default();
    let first = tokio::spawn(batch::run(config.clone(), say, stopped.clone()));
    while timeout(PATIENCE, launched.recv()).await.expect("in time") != Some(2) {}
    first.abort();
    assert!(first.await.expect_err("killed").is_cancelled());
    server.book.lock().expect("not poisoned").removed = true;
    let second = batch::run(config, |_| {}, stopped);
    let report = timeout(PATIENCE, second)
        .await
        .expect("in time")
        .expect("ran");
    assert_eq!(report.framework_id.as_deref(), Some("f-2"));
    assert_eq!((report.counts.finished, report.counts.failed), (2, 2));
    let lost = |failure: &batch::Failure| failure.end == batch::CommandEnd::Lost;
    assert!(report.failures.iter().all(lost), "{:?}", report.failures);
}

#[tokio::test]
async fn a_stopped_batch_ends_with_a_report() {
    let server = Server::start().await;
    let (stop, stopped) = watch::channel(false);
    let running = batch::run(
        batch_config(&server, "sleep\nsleep\nsleep\nsleep\n"),
        move |progress| {
            if progress.running == 3 {
                stop.send_replace(true);
            }
        },
        stopped,
    );
    let report = timeout(PATIENCE, running)
        .await
        .expect("in time")
        .expect("ran");
    assert!(report.stopped && !report.is_success());
    assert_eq!(report.failures.len(), 4);
}

fn service_config(server: &Server) -> ServiceConfig {
    ServiceConfig {
        masters: vec![server.address.to_string()],
        name: "web".into(),
        role: id("*"),
        user: String::new(),
        state: None,
        give_up_after_ms: Some(30_000),
    }
}

fn service_spec(instances: u32) -> ServiceSpec {
    ServiceSpec {
        command: CommandSpec::shell("serve"),
        demand: Demand::cpus_mem(500, 1 << 20),
        cpu_limit_milli: None,
        instances,
        kill_grace_ms: None,
    }
}

async fn runs(handle: &service::ServiceHandle, count: u32) {
    let mut status = handle.status();
    let all = status.wait_for(|status| status.running == count);
    timeout(PATIENCE, all)
        .await
        .expect("in time")
        .expect("runs");
}

#[tokio::test]
async fn a_detached_service_is_taken_over_and_one_whose_framework_was_removed_begins_anew() {
    let server = Server::start().await;
    let folder = tempfile::tempdir().expect("folder");
    let mut config = service_config(&server);
    config.state = Some(folder.path().join("state"));
    let mut launches = Vec::new();
    for removed in [false, false, true] {
        server.book.lock().expect("not poisoned").removed = removed;
        let (handle, running) = service::start(config.clone(), service_spec(2)).expect("valid");
        let running = tokio::spawn(running);
        runs(&handle, 2).await;
        handle.detach();
        let ended = timeout(PATIENCE, running)
            .await
            .expect("in time")
            .expect("no panic");
        let report = ended.expect("ran");
        assert!(report.detached);
        launches.push((report.framework_id, report.launches));
    }
    let id = |text: &str| Some(text.to_owned());
    assert_eq!(launches, [(id("f-1"), 2), (id("f-1"), 0), (id("f-2"), 2)]);
}

#[tokio::test]
async fn a_service_runs_scales_and_stops() {
    let server = Server::start().await;
    let config = service_config(&server);
    let mut spec = service_spec(2);
    let (handle, running) = service::start(config, spec.clone()).expect("valid");
    let running = tokio::spawn(running);
    let mut status = handle.status();
    let two = status.wait_for(|status| status.running == 2);
    timeout(PATIENCE, two)
        .await
        .expect("in time")
        .expect("runs");
    spec.instances = 3;
    handle.set(spec.clone()).expect("valid");
    let three = status.wait_for(|status| status.running == 3);
    timeout(PATIENCE, three)
        .await
        .expect("in time")
        .expect("runs");
    spec.instances = u32::MAX;
    assert!(handle.set(spec).is_err());
    handle.stop();
    let report = timeout(PATIENCE, running)
        .await
        .expect("in time")
        .expect("no panic")
        .expect("ran");
    assert_eq!((report.launches, report.restarts), (3, 0));
    assert!(server.book(|book| book.running.is_empty()));
}
