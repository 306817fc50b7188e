//! A master without threads and sockets: the core, the ledger and one planner, driven as the driver does it. What is
//! durable is taken to be so.

use ebb_master::allocator::pass_slots;
use ebb_master::core::allocate::Planner;
use ebb_master::core::claims::BatchId;
use ebb_master::core::record::Restored;
use ebb_master::core::{ConnectionId, Core, CoreConfig, Effect, Input};
use ebb_master::ledger::Ledger;
use ebb_types::{
    AgentId, AgentInfo, AgentToMaster, Call, Capability, CommandInfo, Event, FrameworkId,
    FrameworkInfo, Generation, Incarnation, MasterToAgent, Offer, Operation, Quantities, Resources,
    Role, Source, TaskId, TaskInfo, TaskState, TaskStatus, Timestamp, UpdateUuid,
};

use super::error::Error;

const WORKER: u32 = 0;
const LIFE: Incarnation = Incarnation(1);

/// A framework's scheduler.
#[derive(Clone)]
pub struct Scheduler {
    pub connection: ConnectionId,
    pub id: FrameworkId,
}

/// An agent.
#[derive(Clone)]
pub struct Played {
    pub connection: ConnectionId,
    pub id: AgentId,
}

pub struct Master {
    core: Core,
    ledger: Ledger,
    planner: Planner,
    now: Timestamp,
    batches: u64,
    connections: u64,
    updates: u64,
    /// Whether the allocator runs.
    pub offering: bool,
    /// What has been offered since it was last taken.
    pub offers: Vec<(ConnectionId, Offer)>,
    subscribed: Option<FrameworkId>,
    registered: Option<AgentId>,
}

impl Master {
    pub fn new() -> Self {
        let restored = Restored {
            cluster: String::from("c"),
            generation: Generation(1),
            ..Restored::default()
        };
        let now = Timestamp::from_ms(1_000_000);
        let core = Core::new(now, CoreConfig::default(), restored);
        Self {
            planner: Planner::of_worker(WORKER, core.claims().copy()),
            core,
            ledger: Ledger::new(),
            now,
            batches: 0,
            connections: 0,
            updates: 0,
            offering: true,
            offers: Vec::new(),
            subscribed: None,
            registered: None,
        }
    }

    fn connection(&mut self) -> ConnectionId {
        self.connections += 1;
        ConnectionId(self.connections)
    }

    /// Takes in one input, and what the allocator makes of it.
    pub fn step(&mut self, input: Input) -> Result<(), Error> {
        let mut next = Some(input);
        while let Some(input) = next.take() {
            let woken = self.perform(input)?;
            if self.offering && !woken.is_empty() {
                next = self.propose(&woken);
            }
        }
        Ok(())
    }

    /// Has the allocator look at agents.
    pub fn offer(&mut self, agents: &[AgentId]) -> Result<(), Error> {
        self.propose(agents)
            .map_or(Ok(()), |proposals| self.step(proposals))
    }

    fn propose(&mut self, agents: &[AgentId]) -> Option<Input> {
        let slots = agents.iter().filter_map(|id| self.ledger.get(id));
        let proposals = pass_slots(&mut self.planner, &slots.collect::<Vec<_>>());
        if proposals.is_empty() {
            return None;
        }
        self.batches += 1;
        let batch = Some(BatchId {
            worker: WORKER,
            number: self.batches,
        });
        Some(Input::Proposals { batch, proposals })
    }

    /// Steps the core and performs its effects; the agents to be looked at.
    fn perform(&mut self, input: Input) -> Result<Vec<AgentId>, Error> {
        let mut woken = Vec::new();
        for effect in self.core.step(self.now, input) {
            match effect {
                Effect::InsertSlot {
                    agent_id,
                    number,
                    ledger,
                } => drop(self.ledger.insert(agent_id, number, ledger)),
                Effect::Ledger {
                    agent_id,
                    incarnation,
                    transition,
                } => self.ledger.apply(&agent_id, incarnation, &transition)?,
                Effect::ToScheduler { connection, event } => match event {
                    Event::Offers(offers) => {
                        let named = offers.into_iter().map(|offer| (connection, offer));
                        self.offers.extend(named);
                    }
                    Event::Subscribed { framework_id, .. } => self.subscribed = Some(framework_id),
                    Event::Error(why) => return Err(why.into()),
                    _ => {}
                },
                Effect::ToAgent { message, .. } => match message {
                    MasterToAgent::Registered { agent_id, .. } => self.registered = Some(agent_id),
                    MasterToAgent::Refused { .. } => return Err("an agent is refused".into()),
                    _ => {}
                },
                Effect::Publish => self.planner.follow(&self.core.publish()),
                Effect::Wake(agents) => woken.extend(agents),
                Effect::WakeAll => woken.extend(self.ledger.slots().keys().cloned()),
                _ => {}
            }
        }
        Ok(woken)
    }

    /// How many tasks have come to a state.
    pub fn tasks_that_came_to(&self, state: TaskState) -> u64 {
        self.core.counters().tasks_by_state[state as usize]
    }

    pub fn call(&mut self, connection: ConnectionId, call: Call) -> Result<(), Error> {
        self.step(Input::Scheduler { connection, call })
    }

    fn say(&mut self, connection: ConnectionId, message: AgentToMaster) -> Result<(), Error> {
        self.step(Input::Agent {
            connection,
            incarnation: LIFE,
            message,
        })
    }

    pub fn subscribe(&mut self, name: String, role: Role) -> Result<Scheduler, Error> {
        let connection = self.connection();
        let info = FrameworkInfo {
            id: None,
            name,
            user: String::from("user"),
            roles: vec![role],
            failover_timeout_ms: 60_000,
            hostname: String::from("scheduler.example.org"),
            principal: String::from("principal"),
            webui_url: String::new(),
            capabilities: vec![Capability::PartitionAware],
            labels: Vec::new(),
        };
        let call = Call::Subscribe {
            info,
            suppressed_roles: Vec::new(),
            terms: ebb_types::OfferTerms::new(),
        };
        self.call(connection, call)?;
        let id = self.subscribed.take().ok_or("nobody is subscribed")?;
        Ok(Scheduler { connection, id })
    }

    pub fn register(&mut self, hostname: String, total: Quantities) -> Result<Played, Error> {
        let connection = self.connection();
        let info = AgentInfo {
            id: None,
            hostname,
            port: 5051,
            lots: ebb_types::Lots::NONE,
            lots_version: 0,
            total,
            attributes: Vec::new(),
            version: String::from("0.1.0"),
            domain: None,
        };
        let message = AgentToMaster::Register {
            info,
            incarnation: LIFE,
        };
        self.say(connection, message)?;
        let id = self.registered.take().ok_or("nobody is registered")?;
        Ok(Played { connection, id })
    }

    /// Starts tasks of an offer.
    pub fn accept(
        &mut self,
        (connection, offer): (ConnectionId, &Offer),
        tasks: Vec<TaskInfo>,
    ) -> Result<(), Error> {
        let launch = Operation::Launch {
            tasks,
            malformed: Vec::new(),
        };
        let call = Call::Accept {
            offer_ids: vec![offer.id.clone()],
            operations: vec![launch],
            filters: ebb_types::Filters { refuse_ms: 0 },
        };
        self.call(connection, call)
    }

    /// The next update of a task.
    pub fn status(&mut self, task_id: &TaskId, state: TaskState) -> TaskStatus {
        self.updates += 1;
        let mut status = TaskStatus::new(task_id.clone(), state, Source::Executor, self.now);
        status.uuid = Some(UpdateUuid::of(LIFE, self.updates));
        status
    }

    /// An agent tells of that.
    pub fn update(
        &mut self,
        agent: &Played,
        framework_id: &FrameworkId,
        status: TaskStatus,
    ) -> Result<(), Error> {
        let message = AgentToMaster::Update {
            framework_id: framework_id.clone(),
            latest_state: status.state,
            status,
        };
        self.say(agent.connection, message)
    }
}

pub fn task(id: &TaskId, agent_id: &AgentId, resources: Resources) -> TaskInfo {
    TaskInfo {
        task_id: id.clone(),
        name: id.to_string(),
        agent_id: agent_id.clone(),
        lots: ebb_types::Lots::NONE,
        resources,
        command: Some(CommandInfo {
            value: String::from("sleep 1000"),
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
