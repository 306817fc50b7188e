//! How many instructions lie between an event and the next offer of what it has freed: a decline, and a task's end.
//!
//! Counted by callgrind, one event at a time, so that there is a median: this program starts itself under valgrind and
//! has it count inside of [`counted_event`] alone and write down its count at each return. Three views of each event:
//! `at once` is the whole path of what a single event frees, which the driver offers again itself: the ledger, the book of
//! claims, the plan, the commit, the charge; `worker` is what a worker thread does when it is woken for more than that
//! (follow what was published, plan, commit); `core` is all that the master does with the event's message, from the core's
//! step to the offer as it is handed to the framework's connection. Not counted: decoding, encoding, sockets, system calls.
//! Printed on standard output, a row a line: `{"case","metric","value","unit","bar"}`.
//!
//! Arguments: `AGENTSxFRAMEWORKS` (else 10000x1000); `--play SHAPE`, with which it starts itself. `--bench`, which
//! cargo adds, is ignored.

use std::collections::BTreeMap;
use std::process::{Command, Stdio};

use ebb_master::allocator::{Proposal, pass_slots};
use ebb_master::core::ConnectionId;
use ebb_master::core::allocate::Planner;
use ebb_master::ledger::Transition;
use ebb_types::{
    Call, Filters, FrameworkId, Offer, Quantities, Resources, Role, TaskId, TaskState, Timestamp,
};

use support::books::{AGENT_CPU_MILLI, AGENT_MEM_BYTES, Books, ROLES};
use support::cluster::Cluster;
use support::error::Error;
use support::master::{Master, Played, task};
use support::row::Row;

mod support {
    pub mod books;
    pub mod cluster;
    pub mod error;
    pub mod master;
    pub mod row;
}

/// As in `ebb-master`.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const SHAPE: &str = "10000x1000";
/// Of each kind and view; the first of them do not count, for memory is taken then that is kept.
const EVENTS: usize = 301;
const WARM_UP: usize = 100;
/// Far from one another among the agents.
const STRIDE: usize = 7919;
const REFUSE_MS: u64 = 5000;
/// When the events happen. Before that everything is declined a few times, so that refusals stand and memory that is
/// kept has been taken.
const START_MS: u64 = 1_000_000;
const ROUNDS: u64 = 10;
const ROUND_MS: u64 = 1000;
const MAX_INSTRUCTIONS: f64 = 3000.0;
/// In the order in which they are played.
const CASES: [(&str, Option<f64>); 6] = [
    ("decline, worker", None),
    ("task's end, worker", None),
    ("decline, at once", Some(MAX_INSTRUCTIONS)),
    ("task's end, at once", Some(MAX_INSTRUCTIONS)),
    ("decline, core", None),
    ("task's end, core", None),
];
const HELP: &str = "valgrind cannot be started; install it as root: apt-get install valgrind";

/// [`counted_event`] as callgrind names it.
const COUNTED: &str = concat!(module_path!(), "::counted_event");

/// What is counted.
#[inline(never)]
fn counted_event<T>(event: impl FnOnce() -> Result<T, Error>) -> Result<T, Error> {
    std::hint::black_box(event())
}

/// What frees an agent, on the books: a decline of all of it, or the end of a task that had all of it.
fn free(books: &mut Books, offer: &Proposal, is_end: bool) -> Result<(), Error> {
    if !is_end {
        let expires = Timestamp::from_ms(START_MS + REFUSE_MS);
        return books.decline(std::slice::from_ref(offer), expires);
    }
    let (all, life) = (offer.resources, offer.incarnation);
    let recover = Transition::Recover(all);
    books.ledger.apply_at(offer.agent, life, &recover)?;
    books.credit(offer)
}

/// What the allocator makes of that.
fn offer_again(cluster: &mut Cluster, agent: u32) -> Result<Vec<Proposal>, Error> {
    cluster.follow();
    let slot = cluster.books.ledger.get_at(agent);
    Ok(cluster.pass(&[slot.ok_or("an agent is gone")?]))
}

/// What the driver makes of that itself: it plans with the book, and takes in what is proposed.
fn offer_at_once(
    books: &mut Books,
    (planner, planned): (&mut Planner, &mut Vec<(u32, Resources)>),
    agent: u32,
) -> Result<Vec<Proposal>, Error> {
    let slot = books.ledger.get_at(agent).ok_or("an agent is gone")?;
    planner.exchange(&mut books.claims);
    let proposals = pass_slots(planner, &[slot]);
    planner.hand_over(planned);
    planner.exchange(&mut books.claims);
    for (member, resources) in planned.drain(..) {
        books.claims.adopt(member, &resources);
    }
    Ok(proposals)
}

/// The events without the core.
fn play_books(agents: usize, frameworks: usize) -> Result<(), Error> {
    let mut cluster = Cluster::new(agents, frameworks)?;
    let mut offers = warm_up(&mut cluster)?;
    let (mut planner, mut planned) = (Planner::default(), Vec::new());
    for (only_worker, is_end) in [(true, false), (true, true), (false, false), (false, true)] {
        for event in 0..EVENTS {
            let offer = &mut offers[(event * STRIDE) % agents];
            if is_end {
                let accept = Transition::Accept {
                    offered: offer.resources,
                    used: offer.resources,
                };
                let ledger = &cluster.books.ledger;
                ledger.apply_at(offer.agent, offer.incarnation, &accept)?;
            }
            let next = if only_worker {
                free(&mut cluster.books, offer, is_end)?;
                let next = counted_event(|| offer_again(&mut cluster, offer.agent))?;
                cluster.take_in(&next);
                next
            } else {
                let next = counted_event(|| {
                    free(&mut cluster.books, offer, is_end)?;
                    offer_at_once(
                        &mut cluster.books,
                        (&mut planner, &mut planned),
                        offer.agent,
                    )
                })?;
                cluster.follow();
                next
            };
            *offer = *next.first().ok_or("it was not offered")?;
            if !only_worker {
                // As the core does once it has made offers of them.
                planner.keep_proposals(next);
            }
        }
    }
    Ok(())
}

/// Declines everything a few times, and has all of it offered.
fn warm_up(cluster: &mut Cluster) -> Result<Vec<Proposal>, Error> {
    let slots = cluster.slots();
    for round in 0..ROUNDS {
        let now = Timestamp::from_ms(START_MS - (ROUNDS - round) * ROUND_MS);
        cluster.books.claims.expire(now);
        cluster.follow();
        let offers = cluster.pass(&slots);
        cluster.take_in(&offers);
        cluster.books.decline(&offers, now.plus_ms(REFUSE_MS))?;
    }
    cluster.books.claims.expire(Timestamp::from_ms(START_MS));
    cluster.follow();
    let offers = cluster.pass(&slots);
    cluster.take_in(&offers);
    cluster.follow();
    Ok(offers)
}

/// An offer that is out.
struct Out {
    agent: Played,
    connection: ConnectionId,
    offer: Offer,
}

/// A master through whose core the events go.
struct Stand {
    master: Master,
    schedulers: BTreeMap<ConnectionId, FrameworkId>,
    out: Vec<Out>,
}

impl Stand {
    /// All that there is is offered.
    fn new(agents: usize, frameworks: usize) -> Result<Self, Error> {
        let mut stand = Self {
            master: Master::new(),
            schedulers: BTreeMap::new(),
            out: Vec::with_capacity(agents),
        };
        for number in 0..frameworks {
            let role = Role::new(format!("role-{}", number % ROLES))?;
            let name = format!("framework-{number:05}");
            let one = stand.master.subscribe(name, role)?;
            stand.schedulers.insert(one.connection, one.id);
        }
        let total = Quantities::cpus_mem(AGENT_CPU_MILLI, AGENT_MEM_BYTES);
        stand.master.offering = false;
        for number in 0..agents {
            let agent = stand.master.register(format!("agent-{number:06}"), total)?;
            stand.master.offer(std::slice::from_ref(&agent.id))?;
            let (connection, offer) = stand.offer()?;
            stand.out.push(Out {
                agent,
                connection,
                offer,
            });
        }
        stand.master.offering = true;
        Ok(stand)
    }

    /// The only offer that was made.
    fn offer(&mut self) -> Result<(ConnectionId, Offer), Error> {
        let offer = self.master.offers.pop().ok_or("nothing was offered")?;
        if !self.master.offers.is_empty() {
            return Err("more was offered than one agent".into());
        }
        Ok(offer)
    }

    fn decline(&mut self, at: usize) -> Result<(), Error> {
        let Out {
            connection, offer, ..
        } = &self.out[at];
        let call = Call::Decline {
            offer_ids: vec![offer.id.clone()],
            filters: Filters {
                refuse_ms: REFUSE_MS,
            },
        };
        let (master, connection) = (&mut self.master, *connection);
        counted_event(|| master.call(connection, call))
    }

    /// Has a task run that takes the whole offer, and then end.
    fn run_and_end(&mut self, at: usize, name: String) -> Result<(), Error> {
        let Out {
            agent,
            connection,
            offer,
        } = &self.out[at];
        let (master, connection) = (&mut self.master, *connection);
        let framework_id = &self.schedulers[&connection];
        let id = TaskId::new(name)?;
        let info = task(&id, &offer.agent_id, offer.resources);
        master.accept((connection, offer), vec![info])?;
        for state in [TaskState::Running, TaskState::Finished] {
            let status = master.status(&id, state);
            let uuid = status.uuid.ok_or("an update has no uuid")?;
            if state.is_terminal() {
                counted_event(|| master.update(agent, framework_id, status))?;
            } else {
                master.update(agent, framework_id, status)?;
            }
            let call = Call::Acknowledge {
                agent_id: agent.id.clone(),
                task_id: id.clone(),
                uuid,
            };
            master.call(connection, call)?;
        }
        Ok(())
    }
}

/// The events through the whole core.
fn play_core(agents: usize, frameworks: usize) -> Result<(), Error> {
    let mut stand = Stand::new(agents, frameworks)?;
    for ended in [false, true] {
        for event in 0..EVENTS {
            let at = (event * STRIDE) % agents;
            if ended {
                stand.run_and_end(at, format!("task-{event:06}"))?;
            } else {
                stand.decline(at)?;
            }
            (stand.out[at].connection, stand.out[at].offer) = stand.offer()?;
        }
    }
    match stand.master.tasks_that_came_to(TaskState::Finished) {
        ended if ended == EVENTS as u64 => Ok(()),
        ended => Err(format!("{ended} of {EVENTS} tasks have ended").into()),
    }
}

/// The counts that callgrind wrote down, in order.
fn counts(profile: &str) -> Result<Vec<u64>, Error> {
    let sums = profile
        .lines()
        .filter_map(|line| line.strip_prefix("summary:"));
    let counts = sums
        .map(|sum| Ok(sum.trim().parse()?))
        .collect::<Result<Vec<u64>, Error>>()?;
    // The last is of what came after the last event.
    match counts.split_last() {
        Some((0, counts)) if counts.len() == CASES.len() * EVENTS => Ok(counts.to_vec()),
        _ => Err(format!("{} counts, which are not those of the events", counts.len()).into()),
    }
}

fn count(shape: &str) -> Result<Vec<u64>, Error> {
    let folder = tempfile::tempdir()?;
    let profile = folder.path().join("profile");
    let status = Command::new("valgrind")
        .args(["--tool=callgrind", "--quiet", "--combine-dumps=yes"])
        .arg("--dump-line=no")
        .arg(format!("--toggle-collect={COUNTED}"))
        .arg(format!("--dump-after={COUNTED}"))
        .arg(format!("--callgrind-out-file={}", profile.display()))
        .arg(std::env::current_exe()?)
        .args(["--play", shape])
        .stdout(Stdio::null())
        .status()
        .map_err(|error| format!("{error}: {HELP}"))?;
    if !status.success() {
        return Err(format!("valgrind failed with {status}; what it said stands above").into());
    }
    counts(&std::fs::read_to_string(profile)?)
}

fn main() -> Result<(), Error> {
    let asked: Vec<String> = std::env::args()
        .skip(1)
        .filter(|arg| arg != "--bench")
        .collect();
    let shape = asked.last().map_or(SHAPE, String::as_str);
    let (agents, frameworks) = shape
        .split_once('x')
        .ok_or_else(|| format!("{shape:?} is no shape; say for example {SHAPE}"))?;
    if asked.first().is_some_and(|arg| arg == "--play") {
        play_books(agents.parse()?, frameworks.parse()?)?;
        return play_core(agents.parse()?, frameworks.parse()?);
    }
    let counts = count(shape)?;
    for ((case, at_most), counts) in CASES.into_iter().zip(counts.chunks(EVENTS)) {
        let mut counts = counts[WARM_UP..].to_vec();
        counts.sort_unstable();
        let row = |metric: &str, value: u64, at_most| Row {
            case: format!("{shape}, {case}"),
            metric: format!("event_to_offer_{metric}"),
            value: value as f64,
            unit: "instructions",
            at_most,
        };
        row("min", counts[0], None).print();
        row("median", counts[counts.len() / 2], at_most).print();
        row("max", counts[counts.len() - 1], None).print();
    }
    Ok(())
}
