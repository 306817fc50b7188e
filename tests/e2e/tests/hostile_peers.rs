//! What peers do that do not keep the rules: each is answered or cut off with a reason, and the others go on.
#![allow(clippy::unwrap_used, reason = "the helpers of tests fail as tests do")]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use ebb_api::proto;
use ebb_api::proto::sandbox_client::SandboxClient;
use ebb_api::proto::scheduler_call::{Accept, Acknowledge, Call, Kill, Reconcile, Subscribe};
use ebb_api::proto::scheduler_client::SchedulerClient;
use ebb_api::proto::scheduler_event::Event;
use ebb_tests_e2e::running::Output;
use ebb_tests_e2e::{Cluster, PATIENCE, wire};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Code, Status, Streaming};

/// A framework that speaks to the master by hand.
struct Framework {
    calls: mpsc::Sender<proto::SchedulerCall>,
    events: Streaming<proto::SchedulerEvent>,
    id: String,
}

impl Framework {
    async fn subscribe(address: SocketAddr) -> Self {
        Self::over(wire::channel(address).await.unwrap(), true).await
    }

    async fn over(channel: Channel, wants_offers: bool) -> Self {
        let (calls, stream) = mpsc::channel(16);
        let info = proto::FrameworkInfo {
            name: "by hand".into(),
            roles: vec!["*".into()],
            ..proto::FrameworkInfo::default()
        };
        let subscribe = Call::Subscribe(Subscribe {
            framework_info: Some(info),
            suppressed_roles: if wants_offers {
                vec![]
            } else {
                vec!["*".into()]
            },
            terms: Vec::new(),
        });
        calls.send(call(subscribe)).await.unwrap();
        let mut client = SchedulerClient::new(channel);
        let answer = client.subscribe(ReceiverStream::new(stream)).await.unwrap();
        let mut framework = Self {
            calls,
            events: answer.into_inner(),
            id: String::new(),
        };
        framework.id = framework
            .until("the subscription", |event| match event {
                Event::Subscribed(subscribed) => Some(subscribed.framework_id.clone()),
                _ => None,
            })
            .await;
        framework
    }

    async fn say(&self, what: Call) {
        self.calls.send(call(what)).await.unwrap();
    }

    /// The next event in which `found` finds something.
    async fn until<T>(&mut self, what: &str, mut found: impl FnMut(&Event) -> Option<T>) -> T {
        let search = async {
            loop {
                let message = self.events.message().await;
                let message = message.unwrap_or_else(|status| panic!("no {what}: {status}"));
                let event = message.unwrap_or_else(|| panic!("no {what}: the stream ended"));
                let event = event.event.expect("an event");
                if let Event::Update(status) = &event {
                    acknowledge(&self.calls, status).await;
                }
                if let Some(thing) = found(&event) {
                    return thing;
                }
            }
        };
        let found = tokio::time::timeout(PATIENCE, search).await;
        found.unwrap_or_else(|_| panic!("no {what} in time"))
    }

    async fn offer(&mut self) -> proto::Offer {
        self.until("offer", |event| match event {
            Event::Offers(offers) => offers.offers.first().cloned(),
            _ => None,
        })
        .await
    }

    async fn status_of(&mut self, task_id: &str) -> proto::TaskStatus {
        self.until("status", |event| match event {
            Event::Update(status) if status.task_id == task_id => Some(status.clone()),
            _ => None,
        })
        .await
    }

    /// How the master ends the stream: its last error event, and the status.
    async fn end(mut self) -> String {
        let mut said = String::new();
        let search = async {
            loop {
                match self.events.message().await {
                    Ok(Some(event)) => {
                        if let Some(Event::Error(error)) = event.event {
                            said.push_str(&error);
                        }
                    }
                    Ok(None) => return said,
                    Err(status) => return format!("{said} {}", status.message()),
                }
            }
        };
        tokio::time::timeout(PATIENCE, search)
            .await
            .expect("an end")
    }
}

/// Says that a status has arrived, so that the next one comes.
async fn acknowledge(calls: &mpsc::Sender<proto::SchedulerCall>, status: &proto::TaskStatus) {
    if status.uuid.is_empty() {
        return;
    }
    let acknowledgement = Call::Acknowledge(Acknowledge {
        agent_id: status.agent_id.clone(),
        task_id: status.task_id.clone(),
        uuid: status.uuid.clone(),
    });
    // Whether the stream still stands shows at the next event.
    let _ = calls.send(call(acknowledgement)).await;
}

fn call(call: Call) -> proto::SchedulerCall {
    proto::SchedulerCall { call: Some(call) }
}

fn resource(name: &str, amount: i64) -> proto::Resource {
    proto::Resource {
        name: name.into(),
        amount,
        revocable: false,
        ..proto::Resource::default()
    }
}

fn task(
    id: &str,
    offer: &proto::Offer,
    resources: Vec<proto::Resource>,
    line: &str,
) -> proto::TaskInfo {
    proto::TaskInfo {
        task_id: id.into(),
        name: "by hand".into(),
        agent_id: offer.agent_id.clone(),
        resources,
        command: Some(proto::CommandInfo {
            value: line.into(),
            shell: true,
            ..proto::CommandInfo::default()
        }),
        ..proto::TaskInfo::default()
    }
}

fn small() -> Vec<proto::Resource> {
    vec![resource("cpus", 100), resource("mem", 16 << 20)]
}

fn accept(offer: &proto::Offer, tasks: Vec<proto::TaskInfo>) -> Call {
    let launch = proto::operation::Operation::Launch(proto::operation::Launch { tasks });
    Call::Accept(Accept {
        offer_ids: vec![offer.id.clone()],
        operations: vec![proto::Operation {
            id: String::new(),
            operation: Some(launch),
        }],
        filters: Some(proto::Filters { refuse_ms: Some(0) }),
    })
}

/// The cluster takes and runs work as before.
fn assert_unharmed(cluster: &Cluster) {
    let ended = cluster.ebb(&["run", "--", "echo", "unharmed"]);
    assert_eq!(
        (ended.code(), ended.stdout.as_str()),
        (0, "unharmed\n"),
        "{ended:?}"
    );
}

#[test]
fn an_offer_accepted_twice_launches_once_and_the_second_is_told_why() {
    let cluster = Cluster::start();
    let effect = cluster.folder().join("effect");
    let line = format!("echo once >> {}", effect.display());
    wire::block_on(async {
        let mut framework = Framework::subscribe(cluster.address()).await;
        let offer = framework.offer().await;
        framework
            .say(accept(&offer, vec![task("first", &offer, small(), &line)]))
            .await;
        framework
            .say(accept(&offer, vec![task("second", &offer, small(), &line)]))
            .await;
        let (mut second, mut finished) = (None, false);
        let second = framework
            .until("answers to both", |event| {
                if let Event::Update(status) = event {
                    match status.task_id.as_str() {
                        "second" => second = Some(status.clone()),
                        _ => finished |= status.state() == proto::TaskState::TaskFinished,
                    }
                }
                second.clone().filter(|_| finished)
            })
            .await;
        assert!(second.message.contains("not valid any more"), "{second:?}");
        let of_offers = [proto::TaskState::TaskDropped, proto::TaskState::TaskLost];
        assert!(of_offers.contains(&second.state()), "{second:?}");
    });
    assert_eq!(std::fs::read_to_string(&effect).unwrap(), "once\n");
    assert_unharmed(&cluster);
    cluster.finish();
}

#[test]
fn resources_that_are_unknown_negative_or_enormous_fail_their_task_alone() {
    let cluster = Cluster::start();
    wire::block_on(async {
        let mut framework = Framework::subscribe(cluster.address()).await;
        for (id, resources, word) in [
            ("unknown", vec![resource("gpus", 1)], "gpus"),
            ("negative", vec![resource("cpus", -1)], "-1"),
            ("enormous", vec![resource("mem", i64::MAX)], "mem"),
            (
                "too-much",
                vec![resource("cpus", 1 << 40)],
                "left of the offer",
            ),
            (
                "twice",
                vec![resource("cpus", 1), resource("cpus", 1)],
                "twice",
            ),
            ("nothing", Vec::new(), "no resources"),
        ] {
            let offer = framework.offer().await;
            let good = format!("beside-{id}");
            let tasks = vec![
                task(id, &offer, resources, "true"),
                task(&good, &offer, small(), "true"),
            ];
            framework.say(accept(&offer, tasks)).await;
            let status = framework.status_of(id).await;
            assert_eq!(status.state(), proto::TaskState::TaskError, "{status:?}");
            assert!(status.message.contains(word), "{status:?}");
            let beside = framework.status_of(&good).await;
            assert_ne!(beside.state(), proto::TaskState::TaskError, "{beside:?}");
        }
    });
    assert_unharmed(&cluster);
    cluster.finish();
}

#[test]
fn ids_that_no_id_can_be_are_refused_wherever_they_stand() {
    let cluster = Cluster::start();
    let huge = "x".repeat(65_536);
    let bad = ["a/b", "..", "../../../etc", "a\0b", "", huge.as_str()];
    wire::block_on(async {
        for id in bad {
            let mut framework = Framework::subscribe(cluster.address()).await;
            let offer = framework.offer().await;
            let mut one = task(id, &offer, small(), "true");
            one.task_id = id.into();
            framework.say(accept(&offer, vec![one])).await;
            let refusal = framework.until_refused().await;
            assert!(
                refusal.len() > 20 && refusal.len() < 2_000,
                "{id:.20}: {refusal:.200}"
            );

            let framework = Framework::subscribe(cluster.address()).await;
            framework
                .say(Call::Kill(Kill {
                    task_id: id.into(),
                    agent_id: String::new(),
                    grace_ms: None,
                }))
                .await;
            let end = framework.end().await;
            assert!(end.len() > 20 && end.len() < 2_000, "{id:.20}: {end:.200}");

            let mut operator = wire::operator(cluster.address()).await.unwrap();
            let status = operator
                .teardown(proto::TeardownRequest {
                    framework_id: id.into(),
                })
                .await
                .unwrap_err();
            assert_eq!(status.code(), Code::InvalidArgument, "{status:?}");
            let mut sandbox =
                SandboxClient::new(wire::channel(cluster.agent_address()).await.unwrap());
            let status = sandbox
                .read(read_request(id, "t", "stdout"))
                .await
                .unwrap_err();
            assert_eq!(status.code(), Code::InvalidArgument, "{status:?}");
        }
    });
    assert_unharmed(&cluster);
    cluster.finish();
}

impl Framework {
    /// The sentence with which a task or the whole stream is refused.
    async fn until_refused(mut self) -> String {
        let search = async {
            let mut said = String::new();
            loop {
                match self.events.message().await {
                    Ok(Some(event)) => match event.event {
                        Some(Event::Update(status)) => {
                            assert_eq!(status.state(), proto::TaskState::TaskError, "{status:?}");
                            return status.message;
                        }
                        Some(Event::Error(error)) => said = error,
                        _ => {}
                    },
                    Ok(None) => return said,
                    Err(status) => return format!("{said} {}", status.message()),
                }
            }
        };
        tokio::time::timeout(PATIENCE, search)
            .await
            .expect("a refusal")
    }
}

fn read_request(framework_id: &str, task_id: &str, path: &str) -> proto::ReadRequest {
    proto::ReadRequest {
        framework_id: framework_id.into(),
        task_id: task_id.into(),
        path: path.into(),
        offset: 0,
        follow: false,
    }
}

#[test]
fn nobody_reads_beyond_a_sandbox() {
    let cluster = Cluster::start();
    let link = "ln -s /etc/passwd passwd; ln -s /etc etc; echo mine > own";
    let run = cluster.spawn(&[
        "run",
        "--json",
        "--",
        "sh",
        "-c",
        &format!("{link}; sleep 1000"),
    ]);
    let framework_id = run.json_line(0, "its framework", |event| {
        Some(event["framework_id"].as_str()?.to_owned())
    });
    let task_id = run.json_line(0, "its task", |event| {
        Some(event["task_id"].as_str()?.to_owned())
    });
    run.json_line(0, "that it runs", |event| {
        (event["state"] == "TASK_RUNNING").then_some(())
    });
    wire::block_on(async {
        let mut sandbox = SandboxClient::new(wire::channel(cluster.agent_address()).await.unwrap());
        let deep = "../".repeat(40) + "etc/passwd";
        for path in [
            "../spec.json",
            "/etc/passwd",
            &deep,
            "passwd",
            "etc/passwd",
            "a\0b",
            "",
            ".",
        ] {
            let mut text = Vec::new();
            let outcome: Result<(), Status> = async {
                let request = read_request(&framework_id, &task_id, path);
                let mut chunks = sandbox.read(request).await?.into_inner();
                while let Some(chunk) = chunks.message().await? {
                    text.extend(chunk.data);
                }
                Ok(())
            }
            .await;
            let status = outcome.expect_err(path);
            assert!(
                text.is_empty(),
                "{path:?} was read: {}",
                String::from_utf8_lossy(&text)
            );
            assert!(status.message().len() > 10, "{status:?}");
        }
    });
    run.signal(rustix::process::Signal::INT);
    run.exit_status();
    drop(run);
    assert_unharmed(&cluster);
    cluster.finish();
}

/// A frame of HTTP/2.
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut bytes = length[1..].to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// A gRPC call with this body, frame by frame.
fn grpc_call(path: &str, body: &[u8]) -> Vec<u8> {
    const DATA: u8 = 0;
    const HEADERS: u8 = 1;
    const SETTINGS: u8 = 4;
    const END_STREAM: u8 = 1;
    const END_HEADERS: u8 = 4;
    let mut headers = Vec::new();
    for (name, value) in [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", path),
        (":authority", "master"),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
    ] {
        // A literal without index, its name written out, nothing compressed.
        headers.push(0);
        for text in [name, value] {
            headers.push(u8::try_from(text.len()).unwrap());
            headers.extend(text.as_bytes());
        }
    }
    let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    bytes.extend(frame(SETTINGS, 0, 0, &[]));
    bytes.extend(frame(HEADERS, END_HEADERS, 1, &headers));
    bytes.extend(frame(DATA, END_STREAM, 1, body));
    bytes
}

/// Sends bytes and reads what comes until the peer is silent or gone.
fn answer_to(address: SocketAddr, bytes: &[u8]) -> Vec<u8> {
    const SILENCE: Duration = Duration::from_millis(500);
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(SILENCE)).unwrap();
    // It may close the connection before all is written.
    let _ = stream.write_all(bytes);
    let mut answer = Vec::new();
    let mut buffer = [0; 4096];
    while let Ok(read @ 1..) = stream.read(&mut buffer) {
        answer.extend(&buffer[..read]);
    }
    answer
}

#[test]
fn messages_that_lie_about_their_length_and_garbage_end_their_own_connection_only() {
    let cluster = Cluster::start();
    let body = |flag: u8, length: u32, bytes: &[u8]| {
        let mut body = vec![flag];
        body.extend(length.to_be_bytes());
        body.extend(bytes);
        body
    };
    let bodies = [
        ("longer than any", body(0, u32::MAX, b"0123456789")),
        ("longer than sent", body(0, 1000, b"0123456789")),
        ("shorter than sent", body(0, 3, &[0xff; 64])),
        ("no protobuf", body(0, 10, &[0xff; 10])),
        (
            "a field that lies",
            body(0, 6, &[0x0a, 0xff, 0xff, 0xff, 0x7f, 0]),
        ),
        ("compressed by nothing known", body(7, 10, b"0123456789")),
        ("not even a prefix", vec![0, 0]),
    ];
    let services = [
        (cluster.address(), "/ebb.v1.Scheduler/Subscribe"),
        (cluster.address(), "/ebb.v1.AgentLink/Join"),
        (cluster.address(), "/ebb.v1.Operator/Teardown"),
        (cluster.agent_address(), "/ebb.v1.Sandbox/Read"),
    ];
    for (address, path) in services {
        for (what, body) in &bodies {
            let answer = answer_to(address, &grpc_call(path, body));
            assert!(
                answer.len() > 9,
                "{path}, {what}: no answer, not even a refusal"
            );
        }
        for garbage in [
            &b"\0\0\0\0\0\0\0\0\0\0\0\0"[..],
            &[0xff; 70_000],
            b"GET / HTTP/9.9\r\n\r\n",
        ] {
            answer_to(address, garbage);
        }
    }
    assert!(cluster.master().is_alive() && cluster.agent().is_alive());
    assert_eq!(wire::get(cluster.address(), "/health"), "ok\n");
    assert_eq!(wire::get(cluster.agent_address(), "/health"), "ok\n");
    assert_unharmed(&cluster);
    cluster.finish();
}

/// Asks for the state of tasks that nobody knows: each is answered with a status.
fn ask_for_unknown(tasks: usize) -> Call {
    let tasks = (0..tasks).map(|number| proto::scheduler_call::reconcile::Task {
        task_id: format!("unknown-{number:0200}"),
        agent_id: String::new(),
    });
    Call::Reconcile(Reconcile {
        tasks: tasks.collect(),
    })
}

#[test]
fn a_scheduler_that_never_reads_is_cut_off_with_a_reason_and_others_go_on() {
    const ROUNDS: usize = 100;
    const TASKS: usize = 50;
    const WINDOW_BYTES: u32 = 65_535;
    // At most so many messages may wait for one reader in this test: two rounds.
    let cluster = Cluster::start_with(&["--outbox-limit", "100"], &[]);
    let mark = cluster.master().mark(Output::Stderr);
    let cuts = || {
        wire::metric(
            &cluster.master_metrics(),
            "ebb_master_slow_readers_cut_total",
            &[],
        )
    };
    wire::block_on(async {
        // Whoever reads what it asked for may ask as often as it likes.
        let channel = wire::channel(cluster.address()).await.unwrap();
        let mut reader = Framework::over(channel, false).await;
        for _ in 0..ROUNDS {
            reader.say(ask_for_unknown(TASKS)).await;
            for _ in 0..TASKS {
                reader
                    .until("status", |event| {
                        matches!(event, Event::Update(_)).then_some(())
                    })
                    .await;
            }
        }
        assert_eq!(cuts(), Some(0.0));

        let channel = Channel::from_shared(format!("http://{}", cluster.address())).unwrap();
        let channel = channel
            .initial_stream_window_size(WINDOW_BYTES)
            .initial_connection_window_size(WINDOW_BYTES)
            .connect()
            .await
            .unwrap();
        let framework = Framework::over(channel, false).await;
        for _ in 0..ROUNDS {
            // Once it is cut off, nobody takes its calls any more.
            if framework
                .calls
                .send(call(ask_for_unknown(TASKS)))
                .await
                .is_err()
            {
                break;
            }
        }
        cluster
            .master()
            .line(Output::Stderr, mark, "the cut", |line| {
                line.contains("did not keep up").then_some(())
            });
        assert_unharmed(&cluster);
        let reason = framework.end().await;
        assert!(reason.contains("read faster"), "{reason}");
        // The reader is still there.
        reader.say(ask_for_unknown(1)).await;
        reader
            .until("status", |event| {
                matches!(event, Event::Update(_)).then_some(())
            })
            .await;
    });
    assert_eq!(cuts(), Some(1.0));
    cluster.finish();
}
