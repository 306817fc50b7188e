//! A whole master on a free port, and real gRPC peers that speak the vocabulary.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]
#![allow(dead_code, reason = "each test file uses its own part of it")]

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use ebb_api::proto::agent_link_client::AgentLinkClient;
use ebb_api::proto::operator_client::OperatorClient;
use ebb_api::proto::scheduler_client::SchedulerClient;
use ebb_api::{AgentEnvelope, MasterEnvelope, proto};
use ebb_master::{Config, MasterError, run};
use ebb_types::{
    AgentId, AgentInfo, AgentToMaster, Call, Capability, CommandInfo, Event, Filters, FrameworkId,
    FrameworkInfo, Incarnation, MasterToAgent, Offer, Operation, Quantities, Resources, Role,
    TaskId, TaskInfo,
};
use futures_util::stream::unfold;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tonic::transport::Channel;
use tonic::{Status, Streaming};

/// Longest wait for anything that must happen.
const PATIENCE: Duration = Duration::from_secs(30);

pub async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, what)
        .await
        .expect("it did not happen in time")
}

pub struct Master {
    pub address: SocketAddr,
    stop: oneshot::Sender<()>,
    ended: JoinHandle<Result<(), MasterError>>,
}

pub fn config(data_dir: &Path) -> Config {
    Config {
        listen: SocketAddr::from(([127, 0, 0, 1], 0)),
        data_dir: data_dir.to_owned(),
        ..Config::default()
    }
}

impl Master {
    pub async fn start(config: Config) -> Self {
        let (stop, stopped) = oneshot::channel();
        let (ready, address) = oneshot::channel();
        let ended = tokio::spawn(run(
            config,
            move |address| ready.send(address).unwrap(),
            async move {
                let _dropped = stopped.await.is_err();
            },
        ));
        let address = soon(address).await.expect("the master did not start");
        Self {
            address,
            stop,
            ended,
        }
    }

    pub async fn stop(self) {
        self.stop.send(()).unwrap();
        soon(self.ended).await.unwrap().unwrap();
    }

    pub async fn channel(&self) -> Channel {
        Channel::from_shared(format!("http://{}", self.address))
            .unwrap()
            .connect()
            .await
            .unwrap()
    }

    pub async fn operator(&self) -> OperatorClient<Channel> {
        OperatorClient::new(self.channel().await)
    }

    pub async fn scheduler(&self) -> Scheduler {
        let (calls, queue) = mpsc::unbounded_channel::<proto::SchedulerCall>();
        let outgoing = unfold(queue, |mut queue| async move {
            queue.recv().await.map(|call| (call, queue))
        });
        let mut client = SchedulerClient::new(self.channel().await);
        let events = client.subscribe(outgoing).await.unwrap().into_inner();
        Scheduler { calls, events }
    }

    pub async fn agent(&self) -> Agent {
        let (messages, queue) = mpsc::unbounded_channel::<proto::AgentMessage>();
        let outgoing = unfold(queue, |mut queue| async move {
            queue.recv().await.map(|message| (message, queue))
        });
        let mut client = AgentLinkClient::new(self.channel().await);
        let orders = client.join(outgoing).await.unwrap().into_inner();
        Agent {
            messages,
            orders,
            incarnation: Incarnation(1),
        }
    }

    /// What a plain HTTP client is answered.
    pub async fn http(&self, path: &str) -> String {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let mut stream = tokio::net::TcpStream::connect(self.address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }
}

pub struct Scheduler {
    pub calls: mpsc::UnboundedSender<proto::SchedulerCall>,
    pub events: Streaming<proto::SchedulerEvent>,
}

impl Scheduler {
    pub fn call(&self, call: Call) {
        // A stream that the master has ended takes no more; the test sees it at the other end.
        let _ended = self.calls.send(call.into()).is_err();
    }

    pub async fn next(&mut self) -> Result<Option<Event>, Status> {
        let wire = soon(self.events.message()).await?;
        Ok(wire.map(|wire| Event::try_from(wire).unwrap()))
    }

    pub async fn until<T>(&mut self, mut pick: impl FnMut(Event) -> Option<T>) -> T {
        loop {
            let event = self.next().await.unwrap().expect("the stream ended");
            if let Some(picked) = pick(event) {
                return picked;
            }
        }
    }

    pub async fn subscribe(&mut self, info: FrameworkInfo) -> FrameworkId {
        self.call(Call::Subscribe {
            info,
            suppressed_roles: Vec::new(),
            terms: ebb_types::OfferTerms::new(),
        });
        self.until(|event| match event {
            Event::Subscribed { framework_id, .. } => Some(framework_id),
            other => panic!("{other:?}"),
        })
        .await
    }

    pub async fn offer(&mut self) -> Offer {
        self.until(|event| match event {
            Event::Offers(mut offers) => offers.pop(),
            _ => None,
        })
        .await
    }
}

pub struct Agent {
    pub messages: mpsc::UnboundedSender<proto::AgentMessage>,
    pub orders: Streaming<proto::MasterMessage>,
    pub incarnation: Incarnation,
}

impl Agent {
    pub fn say(&self, message: AgentToMaster) {
        let envelope = AgentEnvelope {
            incarnation: self.incarnation,
            message,
        };
        let _ended = self.messages.send(envelope.into()).is_err();
    }

    pub async fn next(&mut self) -> Result<Option<MasterToAgent>, Status> {
        let wire = soon(self.orders.message()).await?;
        Ok(wire.map(|wire| MasterEnvelope::try_from(wire).unwrap().message))
    }

    pub async fn until<T>(&mut self, mut pick: impl FnMut(MasterToAgent) -> Option<T>) -> T {
        loop {
            let order = self.next().await.unwrap().expect("the stream ended");
            if let Some(picked) = pick(order) {
                return picked;
            }
        }
    }

    pub async fn registered(&mut self) -> AgentId {
        self.until(|order| match order {
            MasterToAgent::Registered { agent_id, .. } => Some(agent_id),
            other => panic!("{other:?}"),
        })
        .await
    }
}

pub fn framework_info(name: &str) -> FrameworkInfo {
    FrameworkInfo {
        id: None,
        name: name.to_owned(),
        user: String::new(),
        roles: vec![Role::new("*").unwrap()],
        failover_timeout_ms: 60_000,
        hostname: String::new(),
        principal: String::new(),
        webui_url: String::new(),
        capabilities: vec![Capability::PartitionAware],
        labels: Vec::new(),
    }
}

pub fn agent_info() -> AgentInfo {
    AgentInfo {
        id: None,
        hostname: String::from("h"),
        port: 5051,
        lots: ebb_types::Lots::NONE,
        lots_version: 0,
        total: Quantities::cpus_mem(4000, 4 << 30),
        attributes: Vec::new(),
        version: String::from("0"),
        domain: None,
    }
}

pub fn task(id: &str, agent: &AgentId) -> TaskInfo {
    TaskInfo {
        task_id: TaskId::new(id).unwrap(),
        name: id.to_owned(),
        agent_id: agent.clone(),
        lots: ebb_types::Lots::NONE,
        resources: Resources::regular(Quantities::cpus_mem(1000, 1 << 30)),
        command: Some(CommandInfo {
            value: String::from("true"),
            shell: true,
            ..CommandInfo::default()
        }),
        executor: None,
        kill_grace_ms: None,
        warn_signal: None,
        max_completion_ms: None,
        cpu_limit_milli: None,
        data: Vec::new(),
        labels: Vec::new(),
    }
}

pub fn accept(offer: &Offer, tasks: Vec<TaskInfo>) -> Call {
    Call::Accept {
        offer_ids: vec![offer.id.clone()],
        operations: vec![Operation::Launch {
            tasks,
            malformed: Vec::new(),
        }],
        filters: Filters { refuse_ms: 0 },
    }
}
