//! The two frameworks: services, which own what they run on, and a batch system without end, which takes what is lent.

use std::collections::BTreeMap;

use ebb_master::core::{ConnectionId, Input};
use ebb_types::{
    AgentId, Call, Capability, CommandInfo, Event, Filters, FrameworkId, FrameworkInfo, Lots,
    Offer, OfferTerms, Operation, Quantities, Resources, Role, TaskId, TaskInfo, TaskStatus,
};

use super::cluster::Cluster;
use super::machine::{Work, capacity};

/// Services of an agent, and what one of them may have of CPU and has of memory.
const SERVICES_PER_AGENT: usize = 8;
const SERVICE_MILLI: [u64; 4] = [1_000, 1_500, 2_000, 3_000];
const SERVICE_MEM_BYTES: u64 = 7 << 30;
/// What a lent task uses, and how long it takes with that: from a minute to an hour.
const LENT_MILLI: u64 = 1_000;
const LENT_MEM_BYTES: u64 = 1 << 30;
const LENT_MS: (u64, u64) = (60_000, 3_600_000);
/// Every other of them says by when it will have ended: after so many times that at most.
const LENT_AT_MOST: u64 = 3;
/// A service that has nothing to place comes back when it has.
const SERVICES_REFUSE_MS: u64 = 3_600_000;
const BATCH_REFUSE_MS: u64 = 1_000;

/// One of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Who {
    Services,
    Batch,
}

impl Who {
    pub(super) const ALL: [Self; 2] = [Self::Services, Self::Batch];

    const fn name(self) -> &'static str {
        match self {
            Self::Services => "services",
            Self::Batch => "batch",
        }
    }
}

/// What they know.
#[derive(Debug, Default)]
pub(super) struct Frameworks {
    pub(super) ids: BTreeMap<FrameworkId, Who>,
    /// Services on each agent.
    services: BTreeMap<AgentId, usize>,
    /// Services that are still to be placed.
    wanted: usize,
    next_task: u64,
}

impl Frameworks {
    pub(super) fn new(agents: usize) -> Self {
        Self {
            wanted: agents * SERVICES_PER_AGENT,
            ..Self::default()
        }
    }
}

fn info(who: Who) -> FrameworkInfo {
    let revocable = (who == Who::Batch).then_some(Capability::RevocableResources);
    FrameworkInfo {
        id: None,
        name: who.name().to_owned(),
        user: String::new(),
        roles: Role::new(who.name()).into_iter().collect(),
        failover_timeout_ms: 24 * 3_600_000,
        hostname: String::new(),
        principal: String::new(),
        webui_url: String::new(),
        capabilities: revocable.into_iter().collect(),
        labels: Vec::new(),
    }
}

impl Cluster<'_> {
    pub(super) fn subscribe(&mut self, who: Who) -> Result<(), String> {
        self.call(
            who,
            Call::Subscribe {
                info: info(who),
                suppressed_roles: Vec::new(),
                terms: OfferTerms::new(),
            },
        )
    }

    pub(super) const fn connection(&self, who: Who) -> ConnectionId {
        ConnectionId(1 + self.day.agents as u64 + who as u64)
    }

    fn call(&mut self, who: Who, call: Call) -> Result<(), String> {
        let connection = self.connection(who);
        self.step(Input::Scheduler { connection, call })
    }

    /// An event reaches a framework.
    pub(super) fn framework_hears(
        &mut self,
        connection: ConnectionId,
        event: Event,
    ) -> Result<(), String> {
        let mut all = Who::ALL.into_iter();
        let who = all.find(|who| self.connection(*who) == connection);
        let who = who.ok_or_else(|| format!("{connection:?} is nobody's"))?;
        match event {
            Event::Subscribed { framework_id, .. } => {
                self.frameworks.ids.insert(framework_id, who);
            }
            Event::Offers(offers) => {
                for offer in offers {
                    self.answer(who, offer)?;
                }
            }
            Event::Update(status) => self.acknowledge(who, status)?,
            Event::Rescind(_) | Event::Heartbeat => {}
            event => return Err(format!("{} hears {event:?}", who.name())),
        }
        Ok(())
    }

    fn acknowledge(&mut self, who: Who, status: TaskStatus) -> Result<(), String> {
        let TaskStatus {
            task_id,
            state,
            agent_id,
            uuid,
            ..
        } = status;
        if state.is_terminal()
            && who == Who::Services
            && let Some(agent_id) = &agent_id
        {
            if let Some(count) = self.frameworks.services.get_mut(agent_id) {
                *count -= 1;
            }
            self.frameworks.wanted += 1;
            self.call(who, Call::Revive { roles: Vec::new() })?;
        }
        match (agent_id, uuid) {
            (Some(agent_id), Some(uuid)) => self.call(
                who,
                Call::Acknowledge {
                    agent_id,
                    task_id,
                    uuid,
                },
            ),
            _ => Err(format!("{task_id} is {state:?} on no agent")),
        }
    }

    fn answer(&mut self, who: Who, offer: Offer) -> Result<(), String> {
        let tasks = match who {
            Who::Services => self.place_services(&offer)?,
            Who::Batch => self.place_lent(&offer)?,
        };
        let refuse_ms = match who {
            Who::Services => SERVICES_REFUSE_MS,
            Who::Batch => BATCH_REFUSE_MS,
        };
        let (offer_ids, filters) = (vec![offer.id], Filters { refuse_ms });
        if tasks.is_empty() {
            return self.call(who, Call::Decline { offer_ids, filters });
        }
        let operations = vec![Operation::Launch {
            tasks,
            malformed: Vec::new(),
        }];
        self.call(
            who,
            Call::Accept {
                offer_ids,
                operations,
                filters,
            },
        )
    }

    fn place_services(&mut self, offer: &Offer) -> Result<Vec<TaskInfo>, String> {
        let (mut left, mut tasks) = (offer.resources.regular, Vec::new());
        loop {
            let here = self.frameworks.services.entry(offer.agent_id.clone());
            let here = here.or_default();
            let cpu_milli = SERVICE_MILLI[self.rng.index(SERVICE_MILLI.len())];
            let limit = Quantities::cpus_mem(cpu_milli, SERVICE_MEM_BYTES);
            let Some(rest) = left.checked_sub(&limit) else {
                break;
            };
            if *here == SERVICES_PER_AGENT || self.frameworks.wanted == 0 {
                break;
            }
            *here += 1;
            self.frameworks.wanted -= 1;
            left = rest;
            let resources = Resources::regular(limit);
            tasks.push(self.task(offer, "serve", cpu_milli, resources)?);
        }
        Ok(tasks)
    }

    fn place_lent(&mut self, offer: &Offer) -> Result<Vec<TaskInfo>, String> {
        let one = Quantities::cpus_mem(LENT_MILLI, LENT_MEM_BYTES);
        let (mut left, mut tasks) = (offer.resources.revocable, Vec::new());
        while let Some(rest) = left.checked_sub(&one) {
            left = rest;
            let ms = self.rng.between(LENT_MS.0, LENT_MS.1);
            let resources = Resources::revocable(one);
            let mut task = self.task(offer, "compute", LENT_MILLI * ms, resources)?;
            task.max_completion_ms = self.rng.chance(500).then_some(LENT_AT_MOST * ms);
            tasks.push(task);
        }
        Ok(tasks)
    }

    fn task(
        &mut self,
        offer: &Offer,
        verb: &str,
        amount: u64,
        resources: Resources,
    ) -> Result<TaskInfo, String> {
        self.frameworks.next_task += 1;
        let name = format!("{verb}-{}", self.frameworks.next_task);
        Ok(TaskInfo {
            task_id: TaskId::new(name).map_err(|invalid| invalid.to_string())?,
            name: verb.to_owned(),
            agent_id: offer.agent_id.clone(),
            lots: Lots::NONE,
            resources,
            command: Some(CommandInfo {
                value: format!("{verb} {amount}"),
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
        })
    }

    /// What a task does, as its command line says it.
    pub(super) fn read_command(&mut self, command: &str) -> Result<Work, String> {
        let broken = || format!("a command line has changed on its way: {command:?}");
        let (verb, amount) = command.split_once(' ').ok_or_else(broken)?;
        let amount = amount.parse().map_err(|_| broken())?;
        match verb {
            "serve" => Ok(Work::Serve(self.loads.choose(&mut self.rng, amount))),
            "compute" => Ok(Work::Compute { left_us: amount }),
            _ => Err(broken()),
        }
    }

    /// What is offered of an agent on which nothing runs.
    pub(super) fn whole() -> Resources {
        Resources::regular(capacity())
    }
}
