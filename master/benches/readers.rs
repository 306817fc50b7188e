//! Whether those who read the whole state slow those who allocate.
//!
//! A core, an allocator and a mirror, driven as the driver does it: in each round every agent's resources are
//! offered, and every offer is declined with a filter; a round lasts from the first decline until every agent is
//! offered again. Rounds alternate between nobody reading, many threads (niced) that read the whole state in a
//! loop, each time with new state to be read, and as many that merely count: what the kernel and the machine take
//! for whoever reads whatever. Printed on standard output, a row a line:
//! `{"case","metric","value","unit","bar"}`.
//!
//! Arguments: `AGENTSxFRAMEWORKS` (else the usual shape). `--bench`, which cargo adds, is ignored.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, TryRecvError, TrySendError, sync_channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use ebb_master::allocator::{Allocator, Batch};
use ebb_master::core::record::Restored;
use ebb_master::core::{ConnectionId, Core, CoreConfig, Effect, Input, OperatorCommand, RequestId};
use ebb_master::ledger::Ledger;
use ebb_master::mirror::{self, Feed, Parts, Reads};
use ebb_types::{
    AgentInfo, AgentToMaster, Call, ClusterState, CommandInfo, Event, Filters, FrameworkInfo,
    Generation, Incarnation, Offer, Operation, Quantities, Resources, Role, TaskId, TaskInfo,
    Timestamp,
};

/// As in `ebb-master`.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

type Error = Box<dyn std::error::Error>;

const SHAPE: (usize, usize) = (10_000, 1000);
/// Rounds of each kind.
const ROUNDS: usize = 300;
/// Those of them after which as many only count.
const COUNT_EVERY: usize = 3;
const READERS: usize = 50;
const NICE: i32 = 19;
/// What one that merely counts does before it looks whether it should stop.
const COUNTS: u64 = 100_000;
const MAX_SLOWER: f64 = 1.1;
const ROLES: usize = 10;
const TASKS_PER_AGENT: usize = 2;
const ROUND_MS: u64 = 1000;
const REFUSE_MS: u64 = 5000;
/// Far beyond the end of the run.
const NEVER_MS: u64 = 1 << 50;
const AGENT_CPU_MILLI: u64 = 24_000;
const AGENT_MEM_BYTES: u64 = 64 << 30;
const TASK_CPU_MILLI: u64 = 1000;
const TASK_MEM_BYTES: u64 = 1 << 30;
/// Inputs that the driver takes in at once.
const MAX_BATCH: usize = 512;
const LIFE: Incarnation = Incarnation(1);

/// What the driver owns.
struct Cluster {
    core: Core,
    ledger: Arc<Ledger>,
    allocator: Allocator,
    proposals: Receiver<Batch>,
    feed: Feed,
    now: Timestamp,
    offers: Vec<(ConnectionId, Vec<Offer>)>,
    offered: usize,
    connections: u64,
}

/// What a round took.
#[derive(Clone, Copy)]
struct Took {
    time: Duration,
    /// Of the driver's own thread.
    cpu: Duration,
}

/// Which part of it is meant.
type Of = fn(&Took) -> Duration;

/// CPU time of this thread, as the kernel's scheduler counts it.
fn thread_cpu() -> Result<Duration, Error> {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat")?;
    let ns = text
        .split(' ')
        .next()
        .ok_or("the kernel counts no time of threads")?;
    Ok(Duration::from_nanos(ns.parse()?))
}

impl Cluster {
    fn new() -> Result<(Self, Reads), Error> {
        let now = Timestamp::from_ms(1);
        let config = CoreConfig {
            heartbeat_interval_ms: NEVER_MS,
            unreachable_after_ms: NEVER_MS,
            ..CoreConfig::default()
        };
        let restored = Restored {
            cluster: String::from("bench"),
            generation: Generation(1),
            ..Restored::default()
        };
        let mut core = Core::new(now, config, restored);
        core.observe(true);
        let (feed, reads) = mirror::start(core.master_info())?;
        let ledger = Arc::new(Ledger::new());
        let (sink, proposals) = sync_channel(1);
        let allocator = Allocator::start(1, Arc::clone(&ledger), core.claims(), move |batch| {
            sink.try_send(batch).map_err(|error| match error {
                TrySendError::Full(batch) | TrySendError::Disconnected(batch) => batch,
            })
        })?;
        let cluster = Self {
            core,
            ledger,
            allocator,
            proposals,
            feed,
            now,
            offers: Vec::new(),
            offered: 0,
            connections: 0,
        };
        Ok((cluster, reads))
    }

    fn connection(&mut self) -> ConnectionId {
        self.connections += 1;
        ConnectionId(self.connections)
    }

    /// Agents and frameworks come, every agent is given some tasks, and the rest of it is offered.
    fn fill(&mut self, agents: usize, frameworks: usize) -> Result<(), Error> {
        for role in 0..ROLES {
            let weight_milli = 1000 + 500 * role as u64;
            let command = OperatorCommand::SetWeights(vec![(self.role(role)?, weight_milli)]);
            let request = RequestId(0);
            self.take_in([Input::Operator { request, command }])?;
        }
        for number in 0..frameworks {
            let connection = self.connection();
            let info = framework_info(number, self.role(number)?);
            let suppressed_roles = Vec::new();
            let call = Call::Subscribe {
                info,
                suppressed_roles,
                terms: ebb_types::OfferTerms::new(),
            };
            self.take_in([Input::Scheduler { connection, call }])?;
        }
        for number in 0..agents {
            let connection = self.connection();
            let info = agent_info(number);
            let incarnation = LIFE;
            let message = AgentToMaster::Register { info, incarnation };
            self.take_in([Input::Agent {
                connection,
                incarnation,
                message,
            }])?;
        }
        self.await_offers(agents)?;
        for (connection, offers) in std::mem::take(&mut self.offers) {
            for offer in offers {
                let call = accept(&offer)?;
                self.take_in([Input::Scheduler { connection, call }])?;
                self.offered -= 1;
            }
        }
        self.await_offers(agents)
    }

    fn role(&self, number: usize) -> Result<Role, Error> {
        Ok(Role::new(format!("role-{}", number % ROLES))?)
    }

    /// What the driver does with a batch of inputs.
    fn take_in(&mut self, inputs: impl IntoIterator<Item = Input>) -> Result<(), Error> {
        let mut effects = Vec::new();
        for input in inputs {
            effects.extend(self.core.step(self.now, input));
        }
        let news = self.core.news();
        self.feed.push(self.now, news, || self.core.everything());
        let (mut publish, mut wake_all, mut wake) = (false, false, Vec::new());
        for effect in effects {
            match effect {
                Effect::ToScheduler {
                    connection,
                    event: Event::Offers(offers),
                } => {
                    self.offered += offers.len();
                    self.offers.push((connection, offers));
                }
                Effect::InsertSlot {
                    agent_id,
                    number,
                    ledger,
                } => {
                    self.ledger.insert(agent_id, number, ledger);
                }
                Effect::Ledger {
                    agent_id,
                    incarnation,
                    transition,
                } => {
                    self.ledger.apply(&agent_id, incarnation, &transition)?;
                }
                Effect::Publish => publish = true,
                Effect::Wake(agents) => wake.extend(agents),
                Effect::WakeAll => wake_all = true,
                Effect::CloseScheduler { reason, .. } | Effect::CloseAgent { reason, .. } => {
                    return Err(reason.into());
                }
                _ => {}
            }
        }
        if publish {
            let entries = self.core.publish();
            let claims = self.core.claims();
            self.allocator.publish(&entries, || claims.copy());
        }
        match wake_all {
            true => self.allocator.wake_all(),
            false => self.allocator.wake_ids(&wake),
        }
        Ok(())
    }

    fn propose(&mut self, Batch { id, proposals }: Batch) -> Result<(), Error> {
        let batch = Some(id);
        self.take_in([Input::Proposals { batch, proposals }])
    }

    fn await_offers(&mut self, agents: usize) -> Result<(), Error> {
        while self.offered < agents {
            let batch = self.proposals.recv()?;
            self.propose(batch)?;
        }
        Ok(())
    }

    /// Every offer is declined; how long it takes until every agent is offered again.
    fn round(&mut self, agents: usize) -> Result<Took, Error> {
        self.now = self.now.plus_ms(ROUND_MS);
        let declines: Vec<Input> = std::mem::take(&mut self.offers)
            .into_iter()
            .map(|(connection, offers)| Input::Scheduler {
                connection,
                call: Call::Decline {
                    offer_ids: offers.into_iter().map(|offer| offer.id).collect(),
                    filters: Filters {
                        refuse_ms: REFUSE_MS,
                    },
                },
            })
            .collect();
        self.offered = 0;
        let mut declines = declines.into_iter();
        let (start, cpu) = (Instant::now(), thread_cpu()?);
        if self.core.next_deadline().is_some_and(|due| due <= self.now) {
            self.take_in([Input::Tick])?;
        }
        while declines.len() > 0 {
            let batch: Vec<_> = declines.by_ref().take(MAX_BATCH).collect();
            self.take_in(batch)?;
            match self.proposals.try_recv() {
                Ok(batch) => self.propose(batch)?,
                Err(TryRecvError::Empty) => {}
                Err(error) => return Err(error.into()),
            }
        }
        self.await_offers(agents)?;
        Ok(Took {
            time: start.elapsed(),
            cpu: thread_cpu()?.saturating_sub(cpu),
        })
    }
}

fn framework_info(number: usize, role: Role) -> FrameworkInfo {
    FrameworkInfo {
        id: None,
        name: format!("framework-{number:05}"),
        user: String::from("nobody"),
        roles: vec![role],
        failover_timeout_ms: 60_000,
        hostname: String::from("schedulers.example"),
        principal: String::new(),
        webui_url: String::new(),
        capabilities: Vec::new(),
        labels: Vec::new(),
    }
}

fn agent_info(number: usize) -> AgentInfo {
    AgentInfo {
        id: None,
        hostname: format!("agent-{number:06}.example"),
        port: 5051,
        lots: ebb_types::Lots::NONE,
        lots_version: 0,
        total: Quantities::cpus_mem(AGENT_CPU_MILLI, AGENT_MEM_BYTES),
        attributes: Vec::new(),
        version: String::from("bench"),
        domain: None,
    }
}

fn accept(offer: &Offer) -> Result<Call, Error> {
    let task = |number| -> Result<TaskInfo, Error> {
        Ok(TaskInfo {
            task_id: TaskId::new(format!("task-{}-{number}", offer.id))?,
            name: String::from("task"),
            agent_id: offer.agent_id.clone(),
            lots: ebb_types::Lots::NONE,
            resources: Resources::regular(Quantities::cpus_mem(TASK_CPU_MILLI, TASK_MEM_BYTES)),
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
        })
    };
    let tasks = (0..TASKS_PER_AGENT).map(task).collect::<Result<_, _>>()?;
    Ok(Call::Accept {
        offer_ids: vec![offer.id.clone()],
        operations: vec![Operation::Launch {
            tasks,
            malformed: Vec::new(),
        }],
        filters: Filters { refuse_ms: 0 },
    })
}

/// Whether a state adds up: it is read as a whole.
fn check(state: &ClusterState, agents: usize) {
    let sum = |sum: Resources, part: &Resources| sum.saturating_add(part);
    let offered = state.agents.iter().map(|one| &one.offered);
    let offers = state.offers.iter().map(|one| &one.resources);
    assert_eq!(
        offered.fold(Resources::ZERO, sum),
        offers.fold(Resources::ZERO, sum)
    );
    let allocated = state.agents.iter().map(|one| &one.allocated);
    let tasks = state.tasks.iter().map(|one| &one.resources);
    assert_eq!(
        allocated.fold(Resources::ZERO, sum),
        tasks.fold(Resources::ZERO, sum)
    );
    assert_eq!(
        (state.agents.len(), state.tasks.len()),
        (agents, agents * TASKS_PER_AGENT)
    );
}

/// What a reader does in its turn; whether it has read a state.
type Turn = Box<dyn FnMut(&Told) -> bool + Send>;

/// Reads the whole state. Those whose turn comes after the round leave it to others.
fn read_all(reads: &Reads, agents: usize) -> Result<Turn, Error> {
    let reads = reads.clone();
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    Ok(Box::new(move |told| {
        let Ok(reading) = runtime.block_on(reads.read()) else {
            return false;
        };
        let is_wanted = told.read.load(Ordering::Acquire);
        if is_wanted {
            check(&reading.state(Parts::ALL), agents);
        }
        is_wanted
    }))
}

/// Keeps a CPU busy without touching memory.
fn merely_count() -> Turn {
    Box::new(|_| {
        (0..COUNTS).for_each(|number| {
            std::hint::black_box(number);
        });
        true
    })
}

/// Threads that read in a loop while they are told to.
struct Readers {
    shared: Arc<Told>,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Default)]
struct Told {
    read: AtomicBool,
    stop: AtomicBool,
    reading: AtomicUsize,
    states: AtomicU64,
}

impl Readers {
    fn start(turn: impl Fn() -> Result<Turn, Error>) -> Result<Self, Error> {
        let shared = Arc::new(Told::default());
        let mut threads = Vec::new();
        for _ in 0..READERS {
            let told = Arc::clone(&shared);
            let mut turn = turn()?;
            threads.push(thread::spawn(move || {
                if let Err(error) = rustix::process::nice(NICE) {
                    eprintln!("a reader cannot be niced: {error}");
                    std::process::abort();
                }
                while !told.stop.load(Ordering::Acquire) {
                    if !told.read.load(Ordering::Acquire) {
                        thread::park();
                        continue;
                    }
                    told.reading.fetch_add(1, Ordering::AcqRel);
                    if turn(&told) {
                        told.states.fetch_add(1, Ordering::AcqRel);
                    }
                    told.reading.fetch_sub(1, Ordering::AcqRel);
                }
            }));
        }
        Ok(Self { shared, threads })
    }

    fn wake(&self) {
        for thread in &self.threads {
            thread.thread().unpark();
        }
    }

    /// Has all read, and waits until the first has.
    fn begin(&self) -> u64 {
        let before = self.states();
        self.shared.read.store(true, Ordering::Release);
        self.wake();
        while self.states() == before {
            thread::yield_now();
        }
        self.states()
    }

    /// Has all pause, and waits until they do.
    fn pause(&self) {
        self.shared.read.store(false, Ordering::Release);
        while self.shared.reading.load(Ordering::Acquire) > 0 {
            thread::yield_now();
        }
    }

    fn states(&self) -> u64 {
        self.shared.states.load(Ordering::Acquire)
    }

    fn stop(self) -> Result<(), Error> {
        self.shared.stop.store(true, Ordering::Release);
        self.wake();
        for thread in self.threads {
            thread
                .join()
                .map_err(|_| "a reader found a state that does not add up")?;
        }
        Ok(())
    }
}

fn print(case: &str, metric: &str, value: f64, unit: &str, at_most: Option<f64>) {
    let bar = at_most.map_or(String::new(), |bar| {
        format!(r#","bar":{{"at_most":{bar:?}}}"#)
    });
    println!(r#"{{"case":"{case}","metric":"{metric}","value":{value:.3},"unit":"{unit}"{bar}}}"#);
}

fn at(rounds: &[Took], part: f64, of: Of) -> f64 {
    let mut sorted: Vec<_> = rounds.iter().map(of).collect();
    sorted.sort_unstable();
    let last = sorted.len().saturating_sub(1);
    sorted[((last as f64) * part).round() as usize].as_secs_f64() * 1e3
}

fn report(case: &str, without: &[Took], with: &[Took], most: Option<f64>) {
    let mut ratios = Vec::new();
    let rows: [(&str, f64, Of, Option<f64>); 4] = [
        ("round_median", 0.5, |took| took.time, None),
        ("round_p99", 0.99, |took| took.time, most),
        ("driver_cpu_median", 0.5, |took| took.cpu, None),
        ("driver_cpu_p99", 0.99, |took| took.cpu, None),
    ];
    for (metric, part, of, bar) in rows {
        let (without, with) = (at(without, part, of), at(with, part, of));
        print(case, &format!("{metric}_without"), without, "ms", None);
        print(case, &format!("{metric}_with"), with, "ms", None);
        ratios.push((metric, with / without, bar));
    }
    for (metric, ratio, bar) in ratios {
        print(
            case,
            &format!("{metric}_with_over_without"),
            ratio,
            "ratio",
            bar,
        );
    }
}

fn main() -> Result<(), Error> {
    let asked = std::env::args().skip(1).find(|arg| arg != "--bench");
    let (agents, frameworks) = match asked {
        None => SHAPE,
        Some(shape) => {
            let (agents, frameworks) = shape
                .split_once('x')
                .ok_or_else(|| format!("{shape:?} is no shape; say for example 10000x1000"))?;
            (agents.parse()?, frameworks.parse()?)
        }
    };
    let (mut cluster, reads) = Cluster::new()?;
    cluster.fill(agents, frameworks)?;
    let readers = Readers::start(|| read_all(&reads, agents))?;
    let counters = Readers::start(|| Ok(merely_count()))?;
    let (mut without, mut with, mut counting) = (Vec::new(), Vec::new(), Vec::new());
    let (mut states, mut read_for) = (0, Duration::ZERO);
    for number in 0..ROUNDS {
        without.push(cluster.round(agents)?);
        let before = readers.begin();
        let took = cluster.round(agents)?;
        states += readers.states() - before;
        read_for += took.time;
        with.push(took);
        readers.pause();
        if number % COUNT_EVERY == 0 {
            counters.begin();
            counting.push(cluster.round(agents)?);
            counters.pause();
        }
    }
    readers.stop()?;
    counters.stop()?;
    let case = format!("{agents}x{frameworks}, {READERS} readers");
    let figures = cluster.feed.figures();
    let rate = states as f64 / read_for.as_secs_f64();
    print(&case, "states_read", rate, "1/s", None);
    print(&case, "copies", figures.copies as f64, "times", Some(0.0));
    report(&case, &without, &with, Some(MAX_SLOWER));
    let floor = format!("{agents}x{frameworks}, {READERS} that merely count");
    report(&floor, &without, &counting, None);
    Ok(())
}
