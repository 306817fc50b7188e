//! Time, chance and what is to happen.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

use ebb_master::core::record::Restored;
use ebb_types::{ContainerId, ExitStatus, OfferId, Timestamp};

use crate::Failure;
use crate::agent::Machine;
use crate::check::Truth;
use crate::framework::Framework;
use crate::master::{Master, new_registry};
use crate::network::{AT_MASTER, Link, LinkId, Message, Peer};
use crate::operations::Operations;
use crate::operator::Operator;
use crate::planted::Planted;
use crate::rng::Rng;

/// When the simulated clock starts.
const EPOCH_MS: u64 = 1_700_000_000_000;
/// For how long things go wrong, in milliseconds.
const FAULTS_MS: u64 = 180_000;
/// How long after that everything must have settled, in milliseconds: statuses that were sent into a
/// void are sent again after ten minutes at the latest.
const REST_MS: u64 = 240_000;
/// How long what comes back may take to be offered again, in milliseconds.
const MOMENT_MS: u64 = 1_500;
/// Time between two looks at what may go wrong next, in milliseconds.
const CHAOS_MS: u64 = 1_000;
/// Most steps of one run; more means that the cores keep each other busy for nothing.
const MAX_STEPS: u64 = 400_000;

/// What is to happen.
#[derive(Clone, Debug)]
pub enum Happening {
    StartMaster,
    MasterTick {
        life: u64,
    },
    Allocate {
        life: u64,
    },
    Propose {
        life: u64,
        batch: u64,
    },
    StartAgent {
        number: usize,
    },
    AgentTick {
        number: usize,
        life: u64,
    },
    Dial {
        number: usize,
        life: u64,
    },
    Sample {
        number: usize,
        life: u64,
    },
    Started {
        number: usize,
        container_id: ContainerId,
    },
    Ends {
        number: usize,
        container_id: ContainerId,
        status: ExitStatus,
    },
    Subscribe {
        number: usize,
    },
    Act {
        number: usize,
    },
    Answer {
        number: usize,
        offer_id: OfferId,
    },
    Deliver {
        link: LinkId,
        towards: usize,
        message: Box<Message>,
    },
    Gone {
        link: LinkId,
        end: usize,
    },
    Chaos,
    Heal {
        number: usize,
    },
}

/// A whole cluster.
pub struct World {
    seed: u64,
    pub(crate) now_ms: u64,
    pub(crate) rng: Rng,
    pub(crate) planted: Option<Planted>,
    pub(crate) master: Option<Master>,
    pub(crate) master_lives: u64,
    pub(crate) registry: Restored,
    pub(crate) machines: Vec<Machine>,
    pub(crate) frameworks: Vec<Framework>,
    pub(crate) links: BTreeMap<LinkId, Link>,
    pub(crate) next_link: LinkId,
    pub(crate) next_task: u64,
    pub(crate) operations: Operations,
    pub(crate) truth: Truth,
    pub(crate) operator: Operator,
    pub(crate) steps: u64,
    queue: BTreeMap<(u64, u64), Happening>,
    queued: u64,
    silent: Vec<bool>,
    failure: Option<Failure>,
    show: bool,
}

/// What a run that broke no rule did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Steps of all cores.
    pub steps: u64,
    /// Tasks that were asked for.
    pub tasks: usize,
    /// Tasks that ran.
    pub runs: usize,
    /// Starts of the master.
    pub master_lives: u64,
    /// Drains of agents that were seen to be over.
    pub drains: u64,
    /// Offers that were made under a quota.
    pub limited: u64,
    /// Maintenances that were started and ended.
    pub maintained: u64,
    /// Offers to those who had said what they want.
    pub chosen: u64,
    /// Operations on lots that were done.
    pub operations: u64,
    /// Answers to operations that came again.
    pub repeated: u64,
}

impl Report {
    /// What two runs did together.
    pub(crate) fn plus(&self, other: &Report) -> Report {
        Report {
            steps: self.steps + other.steps,
            tasks: self.tasks + other.tasks,
            runs: self.runs + other.runs,
            master_lives: self.master_lives + other.master_lives,
            drains: self.drains + other.drains,
            limited: self.limited + other.limited,
            maintained: self.maintained + other.maintained,
            chosen: self.chosen + other.chosen,
            operations: self.operations + other.operations,
            repeated: self.repeated + other.repeated,
        }
    }
}

/// Runs one seed to its end; `show` prints every step.
///
/// # Errors
/// [`Failure`] names the first rule that was broken; a panic of a core is one.
pub fn run(seed: u64, planted: Option<Planted>, show: bool) -> Result<Report, Failure> {
    let mut world = World::new(seed, planted, show);
    let outcome = catch_unwind(AssertUnwindSafe(|| world.go()));
    if let Err(panic) = outcome {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        world.fail(format!("a core panics: {}", text.unwrap_or_default()));
    }
    match world.failure.take() {
        Some(failure) => Err(failure),
        None => Ok(Report {
            steps: world.steps,
            tasks: world
                .frameworks
                .iter()
                .map(|framework| framework.tasks.len())
                .sum(),
            runs: world.truth.runs(),
            master_lives: world.master_lives,
            drains: world.operator.drains(),
            limited: world.operator.limited(),
            maintained: world.operator.maintained(),
            chosen: world
                .frameworks
                .iter()
                .map(|framework| framework.chosen)
                .sum(),
            operations: world.operations.done(),
            repeated: world.operations.repeated(),
        }),
    }
}

impl World {
    fn new(seed: u64, planted: Option<Planted>, show: bool) -> Self {
        let mut rng = Rng::new(seed);
        let (agents, frameworks) = (rng.between(1, 4), rng.between(1, 4));
        let frameworks = (0..frameworks)
            .map(|number| Framework::new(usize::try_from(number).unwrap_or(0), rng.chance(150)));
        let frameworks: Vec<_> = frameworks.collect();
        Self {
            seed,
            now_ms: EPOCH_MS,
            planted,
            master: None,
            master_lives: 0,
            registry: new_registry(),
            machines: (0..agents).map(|_| Machine::new()).collect(),
            silent: vec![false; usize::try_from(agents).unwrap_or(0) + frameworks.len()],
            frameworks,
            links: BTreeMap::new(),
            next_link: 0,
            next_task: 0,
            operations: Operations::default(),
            truth: Truth::default(),
            operator: Operator::default(),
            steps: 0,
            queue: BTreeMap::new(),
            queued: 0,
            failure: None,
            show,
            rng,
        }
    }

    fn go(&mut self) {
        self.at(EPOCH_MS, Happening::StartMaster);
        for number in 0..self.machines.len() {
            let at = EPOCH_MS + self.rng.between(0, 2_000);
            self.at(at, Happening::StartAgent { number });
        }
        for number in 0..self.frameworks.len() {
            let at = EPOCH_MS + self.rng.between(0, 2_000);
            self.at(at, Happening::Subscribe { number });
            self.at(at + 1_000, Happening::Act { number });
        }
        self.at(EPOCH_MS + CHAOS_MS, Happening::Chaos);
        while let Some(((at, _), happening)) = self.queue.pop_first() {
            self.now_ms = at;
            let over_ms = at.saturating_sub(EPOCH_MS + FAULTS_MS + REST_MS);
            // An offer that has just reached its deadline is made anew within a moment.
            if self.failure.is_some()
                || (over_ms > 0 && !self.is_unoffered())
                || over_ms > MOMENT_MS
            {
                break;
            }
            if self.steps > MAX_STEPS {
                self.fail(format!(
                    "more than {MAX_STEPS} steps: the cores keep each other busy"
                ));
                break;
            }
            self.happen(happening);
        }
        if self.failure.is_none() {
            self.check_at_rest();
        }
    }

    fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::StartMaster => self.start_master(),
            Happening::MasterTick { life } => self.master_tick(life),
            Happening::Allocate { life } => self.allocate(life),
            Happening::Propose { life, batch } => self.propose(life, batch),
            Happening::StartAgent { number } => self.start_agent(number),
            Happening::AgentTick { number, life } => self.agent_tick(number, life),
            Happening::Dial { number, life } => self.dial(number, life),
            Happening::Sample { number, life } => self.sample(number, life),
            Happening::Started {
                number,
                container_id,
            } => self.container_started(number, container_id),
            Happening::Ends {
                number,
                container_id,
                status,
            } => {
                self.container_ends(number, container_id, status);
            }
            Happening::Subscribe { number } => self.subscribe(number),
            Happening::Act { number } => self.act(number),
            Happening::Answer { number, offer_id } => self.answer(number, offer_id),
            Happening::Deliver {
                link,
                towards,
                message,
            } => self.deliver(link, towards, *message),
            Happening::Gone { link, end } => self.gone(link, end),
            Happening::Chaos => self.chaos(),
            Happening::Heal { number } => self.silent[number] = false,
        }
    }

    fn deliver(&mut self, id: LinkId, towards: usize, message: Message) {
        if !self.arrives(id, towards) {
            return;
        }
        let (peer, master_life) = (self.links[&id].peer, self.links[&id].master_life);
        if towards == AT_MASTER {
            if self
                .master
                .as_ref()
                .is_some_and(|master| master.life == master_life)
            {
                self.master_hears(id, message);
            }
            return;
        }
        match peer {
            Peer::Agent { number, life } => {
                if self.machines[number]
                    .process
                    .as_ref()
                    .is_some_and(|process| process.life == life)
                {
                    self.agent_hears(number, id, message);
                }
            }
            Peer::Framework { number, .. } => self.framework_hears(number, id, message),
        }
    }

    fn gone(&mut self, id: LinkId, end: usize) {
        let Some(link) = self.links.get_mut(&id) else {
            return;
        };
        if !std::mem::replace(&mut link.open[end], false) {
            return;
        }
        let (peer, master_life) = (link.peer, link.master_life);
        if end == AT_MASTER {
            if self
                .master
                .as_ref()
                .is_some_and(|master| master.life == master_life)
            {
                self.master_loses(id);
            }
            return;
        }
        match peer {
            Peer::Agent { number, life } => self.agent_loses(number, life, id),
            Peer::Framework { number, .. } => self.framework_loses(number, id),
        }
    }

    /// Something may go wrong.
    fn chaos(&mut self) {
        self.at(self.now_ms + CHAOS_MS, Happening::Chaos);
        self.check_activities();
        if !self.faulty() {
            self.silent.fill(false);
            self.reactivate_all();
            return;
        }
        let agent = self.rng.index(self.machines.len());
        let framework = self.rng.index(self.frameworks.len());
        match self.rng.between(0, 199) {
            0..=2 => self.crash_master(),
            3..=6 => self.crash_agent(agent),
            7 => self.reboot(agent),
            8..=11 => self.crash_framework(framework),
            12..=17 => {
                let links = self.open_links();
                if !links.is_empty() {
                    let link = links[self.rng.index(links.len())];
                    self.break_link(link);
                }
            }
            18..=19 => self.partition(agent),
            20 => self.partition(self.machines.len() + framework),
            21..=32 => self.decide(),
            _ => {}
        }
    }

    /// Silences everything between the master and one peer for a while.
    fn partition(&mut self, number: usize) {
        self.silent[number] = true;
        let links = self
            .links
            .iter()
            .filter(|(_, link)| self.place(link.peer) == number);
        let links: Vec<LinkId> = links.map(|(id, _)| *id).collect();
        self.log(|| format!("peer {number} is cut off"));
        for link in links {
            self.silence_link(link);
            // A stream that hears nothing is given up by its own ends, or by the kernel in the end.
            let at = self.now_ms + self.rng.between(5_000, 60_000);
            self.at(at, Happening::Gone { link, end: 0 });
            self.at(at + 1, Happening::Gone { link, end: 1 });
        }
        let heals = self.now_ms + self.rng.between(1_000, 50_000);
        self.at(heals, Happening::Heal { number });
    }

    fn place(&self, peer: Peer) -> usize {
        match peer {
            Peer::Agent { number, .. } => number,
            Peer::Framework { number, .. } => self.machines.len() + number,
        }
    }

    /// Whether the master and a peer cannot reach each other.
    pub(crate) fn partitioned(&self, peer: Peer) -> bool {
        self.silent[self.place(peer)]
    }

    /// The streams of a peer.
    pub(crate) fn links_of(&self, peer: Peer) -> Vec<LinkId> {
        self.links
            .iter()
            .filter(|(_, link)| link.peer == peer)
            .map(|(id, _)| *id)
            .collect()
    }

    /// Whether things still go wrong.
    pub(crate) fn faulty(&self) -> bool {
        self.now_ms < EPOCH_MS + FAULTS_MS
    }

    /// The time for a core.
    pub(crate) fn now(&self) -> Timestamp {
        Timestamp::from_ms(self.now_ms)
    }

    /// Lets something happen at a time.
    pub(crate) fn at(&mut self, at_ms: u64, happening: Happening) {
        self.queued += 1;
        self.queue
            .insert((at_ms.max(self.now_ms), self.queued), happening);
    }

    /// A rule is broken; the first one counts.
    pub(crate) fn fail(&mut self, what: String) {
        let at_ms = self.now_ms - EPOCH_MS;
        self.log(|| format!("BROKEN: {what}"));
        self.failure.get_or_insert(Failure {
            seed: self.seed,
            at_ms,
            what,
        });
    }

    /// Shows a step to a person who watches.
    pub(crate) fn log(&self, text: impl FnOnce() -> String) {
        if self.show {
            println!("{:>8} {}", self.now_ms - EPOCH_MS, text());
        }
    }
}
