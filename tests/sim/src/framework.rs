//! A framework of random behaviour. It remembers what it launched across its own crashes, as one with
//! a journal does.

use std::collections::BTreeMap;
use std::sync::Arc;

use ebb_types::{
    AgentId, AgentInfo, Call, Capability, CommandInfo, Constraint, Event, Filters, FrameworkId,
    FrameworkInfo, InverseOffer, Lots, Offer, OfferId, OfferTerms, Operation, Pattern, Predicate,
    Quantities, Reason, ReconcileTask, Resources, Role, RoleTerms, Selector, TaskId, TaskInfo,
    TaskState, TaskStatus,
};

use crate::agent::place;
use crate::lots::Left;
use crate::network::{AT_MASTER, AT_PEER, LinkId, Message, Peer};
use crate::world::{Happening, World};

/// How often a framework looks at what to do by itself, in milliseconds.
const ACT_MS: u64 = 2_000;
/// How long a task runs that ends only when it is killed, in milliseconds.
const FOR_EVER_MS: u64 = 1 << 40;
/// How long after a framework has said what it wants, in milliseconds, no offer that it hears of is older.
const HEARD_MS: u64 = 15_000;
/// Most tasks one framework launches in a run.
const MAX_TASKS: usize = 60;

/// A task that a framework has asked for.
#[derive(Clone, Debug)]
pub struct Wanted {
    pub agent_id: AgentId,
    /// Its lots.
    pub lots: Lots,
    /// What was heard last.
    pub last: Option<TaskState>,
    /// Whether an end was heard, or that nobody knows the task.
    pub settled: bool,
    /// The end that its agent has told; it never changes.
    pub end: Option<TaskState>,
}

/// A framework.
pub struct Framework {
    pub id: Option<FrameworkId>,
    info: FrameworkInfo,
    pub tasks: BTreeMap<TaskId, Wanted>,
    held: BTreeMap<OfferId, Offer>,
    link: Option<LinkId>,
    life: u64,
    dialling: bool,
    /// The master will not have it any more.
    pub removed: bool,
    /// Whether it has said, since all faults are over, that it takes whatever there is.
    takes_all: bool,
    /// What it has said last of its offers.
    terms: OfferTerms,
    /// Since when, and whether it takes agents of other regions.
    said: (u64, bool),
    /// Offers that it was made of the agents that it has chosen.
    pub chosen: u64,
}

impl Framework {
    /// Framework number so-and-so of a run.
    pub fn new(number: usize, short_lived: bool) -> Self {
        let role = if number.is_multiple_of(2) {
            "*".to_owned()
        } else {
            format!("role-{number}")
        };
        let roles = Role::new(role).into_iter().collect();
        let mut capabilities = vec![Capability::PartitionAware];
        if number.is_multiple_of(2) {
            capabilities.insert(0, Capability::RevocableResources);
        }
        let info = FrameworkInfo {
            id: None,
            name: format!("framework-{number}"),
            user: String::new(),
            roles,
            failover_timeout_ms: if short_lived { 5_000 } else { 24 * 3_600_000 },
            hostname: String::new(),
            principal: String::from("simulated"),
            webui_url: String::new(),
            capabilities,
            labels: Vec::new(),
        };
        Self {
            id: None,
            info,
            tasks: BTreeMap::new(),
            held: BTreeMap::new(),
            link: None,
            life: 0,
            dialling: false,
            removed: false,
            takes_all: false,
            terms: OfferTerms::new(),
            said: (0, false),
            chosen: 0,
        }
    }

    fn unsettled(&self) -> Vec<ReconcileTask> {
        let open = self.tasks.iter().filter(|(_, task)| !task.settled);
        open.map(|(id, task)| ReconcileTask {
            task_id: id.clone(),
            agent_id: Some(task.agent_id.clone()),
        })
        .collect()
    }
}

impl World {
    pub(crate) fn call(&mut self, number: usize, call: Call) {
        if let Some(link) = self.frameworks[number].link {
            self.send(link, AT_MASTER, Message::Call(call));
        }
    }

    /// A framework's scheduler starts, or tries again to reach the master.
    pub fn subscribe(&mut self, number: usize) {
        let framework = &mut self.frameworks[number];
        framework.dialling = false;
        if framework.removed || framework.link.is_some() {
            return;
        }
        let peer = Peer::Framework {
            number,
            life: framework.life + 1,
        };
        let reachable = !self.partitioned(peer);
        let Some(master_life) = self
            .master
            .as_ref()
            .map(|master| master.life)
            .filter(|_| reachable)
        else {
            self.subscribe_again(number);
            return;
        };
        let link = self.connect(peer, master_life);
        let framework = &mut self.frameworks[number];
        framework.life += 1;
        framework.link = Some(link);
        framework.held.clear();
        let (info, terms) = self.says(number);
        self.call(
            number,
            Call::Subscribe {
                info,
                suppressed_roles: Vec::new(),
                terms,
            },
        );
    }

    /// What a framework says of itself and of its offers. After all faults it takes whatever there is.
    fn says(&mut self, number: usize) -> (FrameworkInfo, OfferTerms) {
        let is_calm = !self.faulty();
        let mut info = self.frameworks[number].info.clone();
        info.id.clone_from(&self.frameworks[number].id);
        if is_calm || self.rng.chance(500) {
            info.capabilities.push(Capability::RegionAware);
        }
        let mut terms = OfferTerms::new();
        if !is_calm && self.rng.chance(500) {
            let of_role = RoleTerms {
                groups: self.groups(),
                minimum: self.minimum(),
            };
            terms.extend(info.roles.first().map(|role| (role.clone(), of_role)));
        }
        let framework = &mut self.frameworks[number];
        framework.takes_all = is_calm;
        framework.terms.clone_from(&terms);
        framework.said = (self.now_ms, info.has(Capability::RegionAware));
        (info, terms)
    }

    fn groups(&mut self) -> Vec<Vec<Constraint>> {
        let rack = self.rng.between(0, 3);
        let other = self.rng.between(0, 3);
        let predicate = match self.rng.between(0, 2) {
            0 => return Vec::new(),
            1 => Predicate::TextNotEquals(format!("r{rack}")),
            _ => match Pattern::new(&format!("r({rack}|{other})")) {
                Ok(pattern) => Predicate::TextMatches(pattern),
                Err(_) => return Vec::new(),
            },
        };
        vec![vec![Constraint {
            selector: Selector::Attribute(String::from("rack")),
            predicate,
        }]]
    }

    fn minimum(&mut self) -> Option<Arc<[Quantities]>> {
        match self.rng.between(0, 3) {
            0 | 1 => None,
            2 => Some(Arc::from([])),
            _ => Some(Arc::from([Quantities::cpus_mem(
                self.rng.between(1, 2_000),
                0,
            )])),
        }
    }

    /// A framework says anew what it wants.
    fn update(&mut self, number: usize) {
        let (info, terms) = self.says(number);
        self.call(
            number,
            Call::UpdateFramework {
                info,
                suppressed_roles: Vec::new(),
                terms,
            },
        );
    }

    fn subscribe_again(&mut self, number: usize) {
        if !std::mem::replace(&mut self.frameworks[number].dialling, true) {
            let at = self.now_ms + self.rng.between(20, 4_000);
            self.at(at, Happening::Subscribe { number });
        }
    }

    /// A framework's scheduler crashes; its memory stays.
    pub fn crash_framework(&mut self, number: usize) {
        if let Some(link) = self.frameworks[number].link.take() {
            self.log(|| format!("framework {number} crashes"));
            self.break_link(link);
            if let Some(link) = self.links.get_mut(&link) {
                link.open[AT_PEER] = false;
            }
            self.subscribe_again(number);
        }
    }

    /// A framework's end of a stream is gone.
    pub fn framework_loses(&mut self, number: usize, link: LinkId) {
        if self.frameworks[number].link == Some(link) {
            self.frameworks[number].link = None;
            self.subscribe_again(number);
        }
    }

    /// A framework does something of its own accord.
    pub fn act(&mut self, number: usize) {
        self.at(self.now_ms + ACT_MS, Happening::Act { number });
        if self.frameworks[number].link.is_none() || self.frameworks[number].id.is_none() {
            return;
        }
        let open = self.frameworks[number].unsettled();
        match self.rng.between(0, 9) {
            0 | 1 if !open.is_empty() => {
                let task = open[self.rng.index(open.len())].clone();
                let agent_id = self.rng.chance(500).then_some(task.agent_id).flatten();
                let grace_ms = self.rng.chance(500).then_some(1_000);
                self.call(
                    number,
                    Call::Kill {
                        task_id: task.task_id,
                        agent_id,
                        grace_ms,
                    },
                );
            }
            2 => self.call(number, Call::Reconcile { tasks: Vec::new() }),
            3 | 4 if !open.is_empty() => self.call(number, Call::Reconcile { tasks: open }),
            5 if self.faulty() => self.call(number, Call::Suppress { roles: Vec::new() }),
            6 => self.call(number, Call::Revive { roles: Vec::new() }),
            7 if self.faulty() => self.update(number),
            _ => {}
        }
        // After all faults everything is asked for again and again, as a careful framework does.
        if !self.faulty() {
            self.ask_operations(number);
            if !self.frameworks[number].takes_all {
                self.update(number);
            }
            let open = self.frameworks[number].unsettled();
            self.call(number, Call::Revive { roles: Vec::new() });
            for task in &open {
                let (task_id, agent_id) = (task.task_id.clone(), task.agent_id.clone());
                self.call(
                    number,
                    Call::Kill {
                        task_id,
                        agent_id,
                        grace_ms: None,
                    },
                );
            }
            if !open.is_empty() {
                self.call(number, Call::Reconcile { tasks: open });
            }
        }
    }

    /// A message reaches a framework.
    pub fn framework_hears(&mut self, number: usize, link: LinkId, message: Message) {
        let Message::Event(event) = message else {
            return;
        };
        if self.frameworks[number].link != Some(link) {
            return;
        }
        self.log(|| format!("framework {number} hears {event:?}"));
        match event {
            Event::Subscribed { framework_id, .. } => {
                let earlier = self.frameworks[number].id.replace(framework_id.clone());
                if earlier.is_some_and(|earlier| earlier != framework_id) {
                    self.fail(format!(
                        "framework {number} is given another id: {framework_id}"
                    ));
                }
                let tasks = self.frameworks[number].unsettled();
                self.call(number, Call::Reconcile { tasks });
                self.ask_operations(number);
            }
            Event::Offers(offers) => {
                for offer in &offers {
                    self.check_choice(number, offer);
                }
                offers
                    .into_iter()
                    .for_each(|offer| self.consider(number, offer));
            }
            Event::Rescind(id) => {
                self.frameworks[number].held.remove(&id);
            }
            Event::Update(status) => self.note_status(number, &status),
            Event::Error(message) => {
                self.frameworks[number].removed |= message.contains("removed");
                self.frameworks[number].link = None;
                self.close_link(link, AT_PEER);
                self.subscribe_again(number);
            }
            Event::Operation(status) => self.note_operation_answer(number, status),
            Event::InverseOffers(offers) => self.answer_inverse(number, &offers),
            Event::Message { .. }
            | Event::Failure { .. }
            | Event::RescindInverseOffer(_)
            | Event::Heartbeat => {}
        }
    }

    /// Whatever was said, an agent that is offered a good while later is one that was asked for.
    fn check_choice(&mut self, number: usize, offer: &Offer) {
        let framework = &mut self.frameworks[number];
        let (since_ms, takes_any) = framework.said;
        if self.now_ms < since_ms + HEARD_MS {
            return;
        }
        let machine = offer.hostname.strip_prefix("machine-");
        let Some(machine) = machine.and_then(|number| number.parse().ok()) else {
            return;
        };
        let (attributes, domain) = place(machine);
        let is_remote = domain
            .as_ref()
            .is_some_and(|domain| domain.region != "here");
        let terms = framework
            .terms
            .get(&offer.role)
            .cloned()
            .unwrap_or_default();
        let info = AgentInfo {
            id: None,
            hostname: offer.hostname.clone(),
            port: 0,
            total: Quantities::ZERO,
            lots: Lots::NONE,
            lots_version: 0,
            attributes,
            version: String::new(),
            domain,
        };
        let least = terms.minimum.as_deref().unwrap_or_default();
        // What is reserved comes by itself where it is enough.
        let parts = match offer.resources.is_zero() {
            true => [offer.lots.charged(), Quantities::ZERO],
            false => [offer.resources.regular, offer.resources.revocable],
        };
        let holds = |least| parts.iter().any(|part| part.contains(least));
        let is_enough = least.is_empty() || least.iter().any(holds);
        framework.chosen += u64::from(!terms.is_none());
        if !terms.suits(&info) || is_remote && !takes_any || !is_enough {
            self.fail(format!(
                "framework {number} is offered {} of {}, which it does not want: {terms:?}",
                offer.resources, offer.hostname
            ));
        }
    }

    /// Says yes, no or nothing to being gone from agents.
    fn answer_inverse(&mut self, number: usize, offers: &[InverseOffer]) {
        let offer_ids = offers.iter().map(|offer| offer.id.clone()).collect();
        let refuse_ms = self.rng.between(0, 20_000);
        let filters = Filters { refuse_ms };
        match self.rng.between(0, 2) {
            0 => self.call(number, Call::AcceptInverseOffers { offer_ids, filters }),
            1 => self.call(number, Call::DeclineInverseOffers { offer_ids, filters }),
            _ => {}
        }
    }

    fn consider(&mut self, number: usize, offer: Offer) {
        self.frameworks[number]
            .held
            .insert(offer.id.clone(), offer.clone());
        match self.rng.between(0, 99) {
            // It is kept until its deadline.
            0..=4 if self.faulty() => {}
            5..=30 if self.faulty() => self.refuse(number, offer.id),
            _ => {
                let at = self.now_ms + self.rng.between(0, 500);
                self.at(
                    at,
                    Happening::Answer {
                        number,
                        offer_id: offer.id,
                    },
                );
            }
        }
    }

    fn refuse(&mut self, number: usize, id: OfferId) {
        self.frameworks[number].held.remove(&id);
        let refuse_ms = if self.faulty() {
            self.rng.between(0, 20_000)
        } else {
            1_000
        };
        self.call(
            number,
            Call::Decline {
                offer_ids: vec![id],
                filters: Filters { refuse_ms },
            },
        );
    }

    /// A framework answers an offer that it still holds.
    pub fn answer(&mut self, number: usize, offer_id: OfferId) {
        let Some(offer) = self.frameworks[number].held.remove(&offer_id) else {
            return;
        };
        let done = self.frameworks[number].tasks.len() >= MAX_TASKS;
        if done || !self.faulty() {
            // At the end offers are held, so that the last check sees that all can be offered.
            if self.faulty() {
                self.refuse(number, offer_id);
            }
            return;
        }
        let (mut left, mut tasks) = (offer.resources, Vec::new());
        let mut left_lots = Left::of(&offer);
        let name = format!("f{number}-o{}", self.operations.next());
        let mut operations = left_lots.operations(&mut self.rng, &name);
        self.note_operations(number, &operations);
        for _ in 0..self.rng.between(1, 3) {
            let want = self.want(&offer.resources);
            let Some(rest) = left.checked_sub(&want) else {
                break;
            };
            left = rest;
            let lots = left_lots.take(&mut self.rng);
            tasks.push(TaskInfo {
                lots,
                ..self.task(number, &offer, want)
            });
        }
        if self.faulty() && self.rng.chance(30) {
            let absurd = Resources::regular(Quantities::cpus_mem(1 << 40, 0));
            tasks.push(self.task(number, &offer, absurd));
        }
        for task in &tasks {
            let wanted = Wanted {
                agent_id: offer.agent_id.clone(),
                lots: task.lots.clone(),
                last: None,
                settled: false,
                end: None,
            };
            self.frameworks[number]
                .tasks
                .insert(task.task_id.clone(), wanted);
        }
        let refuse_ms = self.rng.between(0, 5_000);
        operations.push(Operation::Launch {
            tasks,
            malformed: Vec::new(),
        });
        let filters = Filters { refuse_ms };
        self.call(
            number,
            Call::Accept {
                offer_ids: vec![offer_id],
                operations,
                filters,
            },
        );
    }

    fn want(&mut self, offered: &Resources) -> Resources {
        let size =
            Quantities::cpus_mem(self.rng.between(1, 20) * 100, self.rng.between(1, 16) << 26);
        if offered.is_revocable() && self.rng.chance(500) {
            let cpus = Quantities::cpus_mem(size.cpu_milli(), 0);
            return Resources {
                regular: Quantities::cpus_mem(0, size.mem_bytes()),
                revocable: cpus,
            };
        }
        Resources::regular(size)
    }

    fn task(&mut self, number: usize, offer: &Offer, resources: Resources) -> TaskInfo {
        let for_ever = self.rng.chance(50);
        let run_ms = if for_ever {
            FOR_EVER_MS
        } else {
            self.rng.between(1, 40_000)
        };
        let code = u64::from(self.rng.chance(300)) * 3;
        self.next_task += 1;
        let task_id = TaskId::new(format!("f{number}-t{}", self.next_task));
        let busy = self.rng.between(0, 1_000);
        TaskInfo {
            task_id: task_id
                .unwrap_or_else(|error| panic!("a task id of the simulation is wrong: {error}")),
            name: "simulated".to_owned(),
            agent_id: offer.agent_id.clone(),
            lots: ebb_types::Lots::NONE,
            resources,
            command: Some(CommandInfo {
                value: format!("run {run_ms} {code} {busy}"),
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

    fn note_status(&mut self, number: usize, status: &TaskStatus) {
        if let (Some(uuid), Some(agent_id)) = (status.uuid, status.agent_id.clone()) {
            let task_id = status.task_id.clone();
            self.call(
                number,
                Call::Acknowledge {
                    agent_id,
                    task_id,
                    uuid,
                },
            );
        }
        self.check_status(number, status);
        let answer = status.reason == Some(Reason::Reconciliation);
        let Some(task) = self.frameworks[number].tasks.get_mut(&status.task_id) else {
            return;
        };
        task.last = Some(status.state);
        let unknown = answer && status.state == TaskState::Unknown;
        // What was unheard of or believed lost may come back with its agent.
        task.settled = status.state.is_terminal() || unknown || task.end.is_some();
    }
}
