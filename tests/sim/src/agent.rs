//! A machine with its agent's process, journal and containers. Containers outlive the process; a
//! restart of the machine ends them.

use std::collections::BTreeMap;

use ebb_agent::core::usage::{ContainerSample, HostCounters, Sample};
use ebb_agent::core::{
    Conn, Core, CoreConfig, Effect, Exit, Found, Input, LaunchOrder, Record, Restored,
};
use ebb_types::{
    AgentToMaster, Attribute, AttributeValue, ContainerId, ExitStatus, FaultDomain, Incarnation,
    LotKey, Lots, MasterToAgent, MeasureSource, Quantities, ResourceKind, Resources, TaskKey,
};

use crate::network::{AT_MASTER, AT_PEER, LinkId, Message, Peer};
use crate::planted::Planted;
use crate::world::{Happening, World};

/// Time between two samples, in milliseconds.
const SAMPLE_MS: u64 = 500;
const SIGKILL: i32 = 9;
const SIGTERM: i32 = 15;

/// What each machine has.
pub fn capacity() -> Quantities {
    Quantities::cpus_mem(4_000, 8 << 30).with(ResourceKind::Disk, 100 << 30)
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum State {
    Starting,
    Running,
    Ended(Exit),
}

/// A container of a machine.
#[derive(Clone, Debug)]
pub struct Container {
    pub task: Option<TaskKey>,
    state: State,
    script: Script,
    resources: Resources,
    cpu_ns: u64,
}

/// What a task does, as its command line says it: `run MILLISECONDS CODE BUSY`.
#[derive(Clone, Copy, Debug)]
struct Script {
    run_ms: u64,
    code: i32,
    busy_per_mille: u64,
}

impl Script {
    fn read(order: &LaunchOrder) -> Option<Self> {
        let mut words = order.command.value.split(' ').skip(1);
        Some(Self {
            run_ms: words.next()?.parse().ok()?,
            code: words.next()?.parse().ok()?,
            busy_per_mille: words.next()?.parse().ok()?,
        })
    }
}

/// One life of an agent's process.
pub struct Process {
    pub life: u64,
    core: Core,
    tick_at: Option<u64>,
    dialling: bool,
}

/// A machine.
pub struct Machine {
    pub process: Option<Process>,
    pub containers: BTreeMap<ContainerId, Container>,
    disk: Restored,
    /// What it has confirmed to the master of what was made of its lots, by version.
    confirmed: (u64, Lots),
    lives: u64,
    boot_ns: u64,
}

impl Machine {
    /// A machine on which no agent ever ran.
    pub fn new() -> Self {
        Self {
            process: None,
            containers: BTreeMap::new(),
            disk: Restored::default(),
            confirmed: (0, Lots::NONE),
            lives: 0,
            boot_ns: 0,
        }
    }

    /// What its agent still knows, for the last check.
    pub fn leftovers(&self) -> Vec<String> {
        let tasks = self.process.iter().flat_map(|process| process.core.tasks());
        let mut left: Vec<String> = tasks.map(|task| format!("{task:?}")).collect();
        left.extend(
            self.containers
                .iter()
                .map(|(id, container)| format!("{id}: {container:?}")),
        );
        left
    }

    /// Its agent's id and lots, where it runs and has an id.
    pub fn lots(&self) -> Option<(ebb_types::AgentId, ebb_types::Lots)> {
        let core = &self.process.as_ref()?.core;
        Some((core.agent_id()?.clone(), core.lots().clone()))
    }

    /// Whether its agent is registered.
    pub fn is_registered(&self) -> bool {
        self.process
            .as_ref()
            .is_some_and(|process| process.core.is_registered())
    }
}

/// Where a machine stands.
pub(crate) fn place(number: usize) -> (Vec<Attribute>, Option<FaultDomain>) {
    let rack = Attribute {
        name: String::from("rack"),
        value: AttributeValue::Text(format!("r{}", number % 3)),
    };
    let region = if number % 4 == 3 { "there/z" } else { "here/z" };
    (vec![rack], region.parse().ok())
}

impl World {
    fn config(number: usize, life: u64, planted: Option<Planted>) -> CoreConfig {
        let (mut attributes, mut domain) = place(number);
        if planted == Some(Planted::DomainLost) {
            domain = None;
        }
        if planted == Some(Planted::AttributesLost) {
            attributes.clear();
        }
        CoreConfig {
            hostname: format!("machine-{number}"),
            port: 5051,
            total: capacity(),
            lots: crate::lots::of_machine(),
            work_dir: String::from("/var/ebb"),
            attributes,
            domain,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            container_prefix: format!("m{number}-{life}"),
            lending: Default::default(),
        }
    }

    /// Starts an agent with what its journal holds.
    pub fn start_agent(&mut self, number: usize) {
        let reused = self.planted == Some(Planted::IncarnationReused);
        let adopts_nothing = self.planted == Some(Planted::AgentAdoptsNothing);
        let planted = self.planted;
        let machine = &mut self.machines[number];
        if machine.process.is_some() {
            return;
        }
        if planted == Some(Planted::ReservationForgotten) {
            machine.disk.lots = Lots::NONE;
        }
        machine.lives += 1;
        let life = machine.lives;
        let incarnation = Incarnation(if reused { 1 } else { life });
        // What was being started when the agent died has either begun or never will.
        let mut containers = BTreeMap::new();
        machine
            .containers
            .retain(|_, container| container.state != State::Starting);
        for (id, container) in &machine.containers {
            let found = match &container.state {
                State::Ended(exit) => Found::Ended(exit.clone()),
                _ => Found::Running,
            };
            containers.insert(id.clone(), found);
        }
        if adopts_nothing {
            containers.clear();
        }
        let core = Core::new(
            Self::config(number, life, planted),
            machine.disk.clone(),
            incarnation,
        );
        machine.process = Some(Process {
            life,
            core,
            tick_at: None,
            dialling: false,
        });
        self.log(|| format!("agent {number} starts its life {life}"));
        self.agent_step(number, Input::Recovered { containers });
        self.at(self.now_ms + 1, Happening::Dial { number, life });
        self.at(self.now_ms + SAMPLE_MS, Happening::Sample { number, life });
    }

    /// Ends an agent's process as `kill -9` does; its containers go on.
    pub fn crash_agent(&mut self, number: usize) {
        let Some(process) = self.machines[number].process.take() else {
            return;
        };
        self.log(|| format!("agent {number} crashes"));
        for link in self.links_of(Peer::Agent {
            number,
            life: process.life,
        }) {
            self.break_link(link);
            if let Some(link) = self.links.get_mut(&link) {
                link.open[AT_PEER] = false;
            }
        }
        let again = self.now_ms + self.rng.between(10, 40_000);
        self.at(again, Happening::StartAgent { number });
    }

    /// Restarts a machine: its agent and all its containers are gone, its disk stays.
    pub fn reboot(&mut self, number: usize) {
        self.log(|| format!("machine {number} restarts"));
        self.crash_agent(number);
        let machine = &mut self.machines[number];
        machine.boot_ns = 0;
        let mut cut_short = Vec::new();
        // The disk still says what had begun, and how it ended if it had.
        for container in machine.containers.values_mut() {
            if container.state == State::Running {
                container.state = State::Ended(Exit::default());
                cut_short.push(container.task.clone());
            }
        }
        for task in cut_short {
            self.truth_ended(&task, None);
        }
    }

    /// Hands an input to an agent's core and performs what it answers.
    pub fn agent_step(&mut self, number: usize, input: Input) {
        let now = self.now();
        let faulty = self.faulty();
        let Some(mut process) = self.machines[number].process.take() else {
            return;
        };
        self.steps += 1;
        let effects = process.core.step(now, input);
        let crash_after = (faulty && self.rng.chance(1)).then(|| self.rng.index(effects.len() + 1));
        let life = process.life;
        let deadline = process
            .core
            .next_deadline()
            .map(|at| at.as_ms().max(self.now_ms + 1));
        let changed = deadline.is_some()
            && deadline != process.tick_at
            && self.planted != Some(Planted::NoTicks);
        if changed {
            process.tick_at = deadline;
            self.at(deadline.unwrap_or(0), Happening::AgentTick { number, life });
        }
        if let Err(broken) = process.core.check() {
            self.fail(format!("agent {number}: {broken}"));
        }
        self.machines[number].process = Some(process);
        for (done, effect) in effects.into_iter().enumerate() {
            if crash_after == Some(done) {
                self.crash_agent(number);
                return;
            }
            self.perform_agent(number, life, effect);
        }
    }

    fn perform_agent(&mut self, number: usize, life: u64, effect: Effect) {
        match effect {
            Effect::Persist(records) | Effect::Note(records) => {
                if self.planted != Some(Planted::AgentForgetsPersist) {
                    for record in records {
                        if let Record::Lots { dynamic, .. } = &record {
                            self.note_made(dynamic);
                        }
                        self.machines[number].disk.apply(record);
                    }
                }
            }
            Effect::ToMaster { conn, message } => self.agent_says(number, conn, message),
            Effect::Reconnect { conn, .. } => {
                self.close_link(conn.0, AT_PEER);
                self.agent_step(number, Input::LinkDown { conn });
                self.at(self.now_ms + 100, Happening::Dial { number, life });
            }
            Effect::Stop { message } => {
                self.fail(format!("agent {number} is told to stop: {message}"))
            }
            Effect::Launch(order) => self.launch(number, &order),
            Effect::Warn { signal: false, .. } => {}
            Effect::Terminate { container_id }
            | Effect::Warn {
                container_id,
                signal: true,
                ..
            } => {
                if self.rng.chance(700) {
                    let at = self.now_ms + self.rng.between(1, 2_000);
                    let status = ExitStatus::Signal(SIGTERM);
                    self.at(
                        at,
                        Happening::Ends {
                            number,
                            container_id,
                            status,
                        },
                    );
                }
            }
            Effect::KillContainer { container_id } => {
                if self.planted != Some(Planted::KillIsLost) {
                    let at = self.now_ms + self.rng.between(1, 50);
                    let status = ExitStatus::Signal(SIGKILL);
                    self.at(
                        at,
                        Happening::Ends {
                            number,
                            container_id,
                            status,
                        },
                    );
                }
            }
            Effect::Destroy { container_id } => {
                self.machines[number].containers.remove(&container_id);
            }
            Effect::CancelLaunch { container_id } => self.cancel(number, container_id),
            Effect::RemoveVolume { .. }
            | Effect::Throttle { .. }
            | Effect::LimitNetwork { .. }
            | Effect::ReclaimMemory { .. }
            | Effect::Freeze { .. }
            | Effect::Thaw { .. }
            | Effect::Resize { .. }
            | Effect::ToExecutor { .. }
            | Effect::DropExecutor { .. }
            | Effect::Observe(_) => {}
        }
    }

    fn agent_says(&mut self, number: usize, conn: Conn, message: Box<AgentToMaster>) {
        let Some(process) = &self.machines[number].process else {
            return;
        };
        let incarnation = process.core.incarnation();
        let sent = match (&*message, self.planted) {
            (
                AgentToMaster::Update {
                    framework_id,
                    status,
                    ..
                },
                Some(Planted::AgentAcknowledgesItself),
            ) => status.uuid.map(|uuid| MasterToAgent::Acknowledge {
                framework_id: framework_id.clone(),
                task_id: status.task_id.clone(),
                uuid,
            }),
            _ => None,
        };
        let generation = process.core.generation();
        self.check_confirmed(number, &message);
        self.send(conn.0, AT_MASTER, Message::Up(incarnation, message));
        if let Some(message) = sent {
            self.agent_step(
                number,
                Input::FromMaster {
                    conn,
                    generation,
                    message,
                },
            );
        }
    }

    /// What an agent has confirmed of its lots it goes on to say, whatever is restarted.
    fn check_confirmed(&mut self, number: usize, message: &AgentToMaster) {
        let machine = &mut self.machines[number];
        match message {
            AgentToMaster::LotsApplied { version } => {
                let lots = machine.process.as_ref().map(|process| process.core.lots());
                let lots = lots.map(|lots| lots.only(LotKey::is_dynamic));
                machine.confirmed = (*version, lots.unwrap_or_default());
            }
            AgentToMaster::Reregister { info, .. } => {
                let (version, lots) = &machine.confirmed;
                let said = info.lots.only(LotKey::is_dynamic);
                let is_older = info.lots_version < *version;
                if is_older || info.lots_version == *version && said != *lots {
                    let broken = format!(
                        "agent {number} has confirmed {lots} as version {version}, and comes back with {said} as {}",
                        info.lots_version
                    );
                    self.fail(broken);
                }
            }
            _ => {}
        }
    }

    /// The lots of the tasks that run on a machine.
    pub(crate) fn lots_in_use(&self, number: usize) -> Vec<(ebb_types::AgentId, Lots)> {
        let Some(machine) = self.machines.get(number) else {
            return Vec::new();
        };
        let running = (machine.containers.values()).filter(|one| one.state == State::Running);
        let tasks = running.filter_map(|container| container.task.as_ref());
        let lots = tasks.filter_map(|(framework_id, task_id)| {
            let mut frameworks = self.frameworks.iter();
            let of = frameworks.find(|one| one.id.as_ref() == Some(framework_id))?;
            let task = of.tasks.get(task_id)?;
            Some((task.agent_id.clone(), task.lots.clone()))
        });
        lots.collect()
    }

    fn launch(&mut self, number: usize, order: &LaunchOrder) {
        let task = order
            .task_id
            .clone()
            .map(|task_id| (order.framework_id.clone(), task_id));
        let Some(script) = Script::read(order) else {
            self.fail(format!(
                "a task's command line has changed on its way: {:?}",
                order.command
            ));
            return;
        };
        let container = Container {
            task,
            state: State::Starting,
            script,
            resources: order.resources,
            cpu_ns: 0,
        };
        self.machines[number]
            .containers
            .insert(order.container_id.clone(), container);
        let twice = self.planted == Some(Planted::LaunchedTwice);
        for _ in 0..=u64::from(twice) {
            let at = self.now_ms + self.rng.between(1, 300);
            self.at(
                at,
                Happening::Started {
                    number,
                    container_id: order.container_id.clone(),
                },
            );
        }
    }

    fn cancel(&mut self, number: usize, container_id: ContainerId) {
        let containers = &mut self.machines[number].containers;
        let waiting = containers
            .get(&container_id)
            .is_some_and(|container| container.state == State::Starting);
        if waiting && self.rng.chance(500) {
            self.machines[number].containers.remove(&container_id);
            let message = "cancelled".to_owned();
            self.agent_step(
                number,
                Input::StartFailed {
                    container_id,
                    cancelled: true,
                    message,
                },
            );
        }
    }

    /// A container begins to run, unless it is gone.
    pub fn container_started(&mut self, number: usize, container_id: ContainerId) {
        let twice = self.planted == Some(Planted::LaunchedTwice);
        let Some(container) = self.machines[number].containers.get_mut(&container_id) else {
            return;
        };
        if container.state != State::Starting && !twice {
            return;
        }
        if container.state == State::Starting {
            container.state = State::Running;
        }
        let (task, script) = (container.task.clone(), container.script);
        self.truth_started(&task, &container_id);
        let ends = self.now_ms + script.run_ms;
        let status = ExitStatus::Code(script.code);
        self.at(
            ends,
            Happening::Ends {
                number,
                container_id: container_id.clone(),
                status,
            },
        );
        self.agent_step(number, Input::Started { container_id });
    }

    /// A container ends, unless it already has.
    pub fn container_ends(&mut self, number: usize, container_id: ContainerId, status: ExitStatus) {
        let Some(container) = self.machines[number].containers.get_mut(&container_id) else {
            return;
        };
        if matches!(container.state, State::Ended(_)) {
            return;
        }
        let started = container.state == State::Running;
        let mut exit = Exit {
            status: Some(status),
            oom: false,
            launch_error: None,
        };
        container.state = State::Ended(exit.clone());
        let task = container.task.clone();
        if started {
            self.truth_ended(&task, Some(status));
        }
        if self.planted == Some(Planted::ExitStatusLost) {
            exit.status = Some(ExitStatus::Code(0));
        }
        self.agent_step(number, Input::Exited { container_id, exit });
    }

    /// One reading of a machine's counters.
    pub fn sample(&mut self, number: usize, life: u64) {
        let machine = &mut self.machines[number];
        machine.boot_ns += SAMPLE_MS * 1_000_000;
        if machine
            .process
            .as_ref()
            .is_none_or(|process| process.life != life)
        {
            return;
        }
        let mut busy_ns = 0;
        let mut containers = BTreeMap::new();
        for (id, container) in machine
            .containers
            .iter_mut()
            .filter(|(_, c)| c.state == State::Running)
        {
            let milli = container.resources.total(ResourceKind::Cpus)
                * container.script.busy_per_mille
                / 1000;
            container.cpu_ns += milli * SAMPLE_MS * 1_000;
            busy_ns += container.cpu_ns;
            let sample = ContainerSample {
                cpu_ns: Some(container.cpu_ns),
                mem_bytes: Some(container.resources.total(ResourceKind::Mem) / 2),
                ..ContainerSample::absent(MeasureSource::Ebpf)
            };
            containers.insert(id.clone(), sample);
        }
        let sample = Sample {
            taken_ns: self.now_ms * 1_000_000,
            full: true,
            host: HostCounters {
                cpu_busy_ns: Some(busy_ns),
                unmanaged_cpu_ns: Some(0),
                cpus: Some(4),
                mem_available_bytes: Some(6 << 30),
                mem_total_bytes: Some(8 << 30),
                pressure: None,
            },
            containers,
            ..Sample::default()
        };
        self.agent_step(number, Input::Sample(Box::new(sample)));
        self.at(self.now_ms + SAMPLE_MS, Happening::Sample { number, life });
    }

    /// A deadline of an agent's core may be due.
    pub fn agent_tick(&mut self, number: usize, life: u64) {
        let now_ms = self.now_ms;
        let process = self.machines[number].process.as_mut();
        let Some(process) = process.filter(|process| process.life == life) else {
            return;
        };
        if process.tick_at == Some(now_ms) {
            process.tick_at = None;
            self.agent_step(number, Input::Tick);
        }
    }

    /// An agent dials the master; if there is none it tries again.
    pub fn dial(&mut self, number: usize, life: u64) {
        let Some(process) = self.machines[number]
            .process
            .as_mut()
            .filter(|p| p.life == life)
        else {
            return;
        };
        process.dialling = false;
        let peer = Peer::Agent { number, life };
        if self
            .links_of(peer)
            .iter()
            .any(|id| self.links[id].open[AT_PEER])
        {
            return;
        }
        let reachable = !self.partitioned(peer);
        match self
            .master
            .as_ref()
            .map(|master| master.life)
            .filter(|_| reachable)
        {
            Some(master_life) => {
                let link = self.connect(peer, master_life);
                self.agent_step(number, Input::LinkUp { conn: Conn(link) });
            }
            None => self.dial_again(number, life),
        }
    }

    fn dial_again(&mut self, number: usize, life: u64) {
        let Some(process) = self.machines[number]
            .process
            .as_mut()
            .filter(|p| p.life == life)
        else {
            return;
        };
        if !std::mem::replace(&mut process.dialling, true) {
            let at = self.now_ms + self.rng.between(50, 3_000);
            self.at(at, Happening::Dial { number, life });
        }
    }

    /// A message reaches an agent's end of a stream.
    pub fn agent_hears(&mut self, number: usize, link: LinkId, message: Message) {
        if let Message::Down(generation, message) = message {
            self.log(|| format!("agent {number} hears {message:?}"));
            self.agent_step(
                number,
                Input::FromMaster {
                    conn: Conn(link),
                    generation,
                    message: *message,
                },
            );
        }
    }

    /// An agent's end of a stream is gone.
    pub fn agent_loses(&mut self, number: usize, life: u64, link: LinkId) {
        if self.machines[number]
            .process
            .as_ref()
            .is_some_and(|process| process.life == life)
        {
            self.agent_step(number, Input::LinkDown { conn: Conn(link) });
            self.dial_again(number, life);
        }
    }
}
