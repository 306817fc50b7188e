//! How long a round of the allocator takes, beside a floor measured in the same run.
//!
//! Subject: every agent's resources are offered by a pass over the real ledger and claims (roles,
//! weights and refusals on), then every offer is declined with a filter. Floor: the same number of
//! decisions by dominant share over plain arrays, with binary heaps, and nothing else. Subject and
//! floor alternate, and so do the shapes, a block of rounds each. Then cycles of declines whose refusals never end, in a
//! cluster that has seen many and, alternately, in new ones: whether they slow the allocator down as they accumulate. Printed on standard output, a row a line: `{"case","metric","value","unit","bar"}`.
//!
//! The shapes are those of Mesos' `hierarchical_allocator_benchmarks.cpp`. Arguments: `AGENTSxFRAMEWORKS` … (else the
//! usual shapes, and what is compared among them). `--bench`, which cargo adds, is ignored.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::time::{Duration, Instant};

use ebb_types::Timestamp;

use support::books::{AGENT_CPU_MILLI, AGENT_MEM_BYTES, ROLES};
use support::cluster::Cluster;
use support::error::Error;
use support::row::Row;
use support::times::{at, micros};

mod support {
    pub mod books;
    pub mod cluster;
    pub mod error;
    pub mod row;
    pub mod times;
}

/// As in `ebb-master`.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Rounds of one block, and how many blocks there are of each shape.
const ROUNDS: u64 = 10;
const BLOCKS: u64 = 3;
const EVENTS: usize = 2000;
/// Cycles of declines for ever after which the cluster is compared with new ones, so many cycles at a time.
const CYCLES: usize = 500;
const COMPARED: usize = 20;
const SMALL: (usize, usize) = (10_000, 1000);
const LARGE: (usize, usize) = (20_000, 2000);
/// Most times the floor that a round may take, by shape.
const BARS: [((usize, usize), f64); 2] = [(SMALL, 10.0), ((50_000, 6000), 25.0)];
const MAX_SCALING: f64 = 2.3;
const MAX_AFTER_CYCLES: f64 = 1.1;
const ROUND_MS: u64 = 1000;
const REFUSE_MS: u64 = 5000;

/// A claimant of the floor: what it holds, how often it was chosen, who it is.
type Plain = Reverse<(u64, u64, usize)>;

/// A round of dominant shares over plain arrays: two levels, as many decisions as agents.
fn floor(agents: usize, frameworks: usize) -> (Duration, u64) {
    let mut roles: BinaryHeap<Plain> = (0..ROLES).map(|role| Reverse((0, 0, role))).collect();
    let mut members: Vec<BinaryHeap<Plain>> = (0..ROLES)
        .map(|role| {
            (role..frameworks)
                .step_by(ROLES)
                .map(|one| Reverse((0, 0, one)))
                .collect()
        })
        .collect();
    let total_cpu_milli = AGENT_CPU_MILLI * agents as u64;
    let total_mem_mib = (AGENT_MEM_BYTES >> 20) * agents as u64;
    let mut held = vec![(0u64, 0u64); frameworks];
    let mut sum = 0;
    let start = Instant::now();
    for _ in 0..agents {
        let Some(mut role) = roles.peek_mut() else {
            break;
        };
        let Some(mut member) = members[role.0.2].peek_mut() else {
            break;
        };
        let one = &mut held[member.0.2];
        one.0 += AGENT_CPU_MILLI;
        one.1 += AGENT_MEM_BYTES >> 20;
        member.0.0 = (one.0 * total_mem_mib).max(one.1 * total_cpu_milli);
        member.0.1 += 1;
        role.0.0 += member.0.0;
        role.0.1 += 1;
        sum += member.0.2 as u64;
    }
    (start.elapsed(), sum)
}

#[derive(Default)]
struct Times {
    floor: Vec<Duration>,
    pass: Vec<Duration>,
    take_in: Vec<Duration>,
    decline: Vec<Duration>,
    publish: Vec<Duration>,
    empty: Vec<Duration>,
}

/// A shape that is measured.
struct Subject {
    shape: (usize, usize),
    cluster: Cluster,
    times: Times,
}

fn rounds(subject: &mut Subject, block: u64) -> Result<(), Error> {
    let Subject {
        shape: (agents, frameworks),
        cluster,
        times,
    } = subject;
    let (agents, frameworks) = (*agents, *frameworks);
    let slots = cluster.slots();
    for round in block * ROUNDS..(block + 1) * ROUNDS {
        let now = Timestamp::from_ms(1 + round * ROUND_MS);
        let (elapsed, _sum) = std::hint::black_box(floor(agents, frameworks));
        times.floor.push(elapsed);

        let start = Instant::now();
        cluster.books.claims.expire(now);
        cluster.follow();
        times.publish.push(start.elapsed());

        let start = Instant::now();
        let proposals = cluster.pass(&slots);
        times.pass.push(start.elapsed());
        if proposals.len() != agents {
            return Err(format!("{} of {agents} agents were offered", proposals.len()).into());
        }

        let start = Instant::now();
        cluster.take_in(&proposals);
        times.take_in.push(start.elapsed());

        cluster.follow();
        let start = Instant::now();
        let none = cluster.pass(&slots);
        times.empty.push(start.elapsed());
        if !none.is_empty() {
            return Err("an agent was offered twice".into());
        }

        let start = Instant::now();
        cluster.books.decline(&proposals, now.plus_ms(REFUSE_MS))?;
        times.decline.push(start.elapsed());
    }
    Ok(())
}

/// One decline, and the next offer of the same agent: core, publication and pass.
fn events(cluster: &mut Cluster, agents: usize) -> Result<Vec<Duration>, Error> {
    let now = Timestamp::from_ms(1 << 40);
    cluster.books.claims.expire(now);
    cluster.follow();
    let slots = cluster.slots();
    let mut offers = cluster.pass(&slots);
    cluster.take_in(&offers);
    let mut times = Vec::with_capacity(EVENTS);
    for event in 0..EVENTS {
        let offer = &mut offers[(event * 7919) % agents];
        let start = Instant::now();
        cluster
            .books
            .decline(std::slice::from_ref(offer), now.plus_ms(REFUSE_MS))?;
        cluster.follow();
        let slot = cluster
            .books
            .ledger
            .get_at(offer.agent)
            .ok_or("an agent is gone")?;
        let next = cluster.pass(&[slot]);
        cluster.take_in(&next);
        times.push(start.elapsed());
        *offer = next
            .into_iter()
            .next()
            .ok_or("an agent was not offered again")?;
    }
    Ok(times)
}

/// How long rounds take in which everything is declined for ever.
fn cycles(cluster: &mut Cluster, cycles: usize) -> Result<Vec<Duration>, Error> {
    let slots = cluster.slots();
    let mut times = Vec::with_capacity(cycles);
    for cycle in 0..cycles {
        let start = Instant::now();
        let proposals = cluster.pass(&slots);
        times.push(start.elapsed());
        if proposals.len() != slots.len() {
            let (offered, agents) = (proposals.len(), slots.len());
            return Err(
                format!("{offered} of {agents} agents were offered in cycle {cycle}").into(),
            );
        }
        cluster.take_in(&proposals);
        cluster
            .books
            .decline(&proposals, Timestamp::from_ms(u64::MAX))?;
        cluster.follow();
    }
    Ok(times)
}

/// How many times as long they take after [`CYCLES`] of them as in a new cluster.
fn slower_after_cycles((agents, frameworks): (usize, usize)) -> Result<f64, Error> {
    let mut old = Cluster::new(agents, frameworks)?;
    cycles(&mut old, CYCLES)?;
    let (mut first, mut later) = (Vec::new(), Vec::new());
    for _ in 0..BLOCKS {
        let mut new = Cluster::new(agents, frameworks)?;
        first.extend(cycles(&mut new, COMPARED)?);
        later.extend(cycles(&mut old, COMPARED)?);
    }
    Ok(micros(at(&later, 0.5)) / micros(at(&first, 0.5)))
}

fn report((agents, frameworks): (usize, usize), times: &Times, events: &[Duration]) -> Vec<Row> {
    let case = format!("{agents}x{frameworks}");
    let bar = BARS
        .iter()
        .find(|(shape, _)| *shape == (agents, frameworks));
    let mut rows = Vec::new();
    let mut row = |metric: &str, value: f64, unit: &'static str| {
        let is_barred = metric == "pass_over_floor_median";
        rows.push(Row {
            case: case.clone(),
            metric: metric.to_owned(),
            value,
            unit,
            at_most: bar.filter(|_| is_barred).map(|(_, bar)| *bar),
        });
    };
    let all = [
        ("floor", &times.floor),
        ("pass", &times.pass),
        ("empty_pass", &times.empty),
        ("take_in_offers", &times.take_in),
        ("take_in_declines", &times.decline),
        ("expire_and_publish", &times.publish),
    ];
    for (name, times) in all {
        row(&format!("{name}_min"), micros(at(times, 0.0)), "us");
        row(&format!("{name}_median"), micros(at(times, 0.5)), "us");
    }
    let ratio = |part| micros(at(&times.pass, part)) / micros(at(&times.floor, part));
    row("pass_over_floor_min", ratio(0.0), "ratio");
    row("pass_over_floor_median", ratio(0.5), "ratio");
    row("event_to_offer_median", micros(at(events, 0.5)), "us");
    row("event_to_offer_p99", micros(at(events, 0.99)), "us");
    rows
}

fn parse(shape: &str) -> Result<(usize, usize), Error> {
    let (agents, frameworks) = shape
        .split_once('x')
        .ok_or_else(|| format!("{shape:?} is no shape; say for example 10000x1000"))?;
    Ok((agents.parse()?, frameworks.parse()?))
}

fn main() -> Result<(), Error> {
    let asked: Vec<String> = std::env::args()
        .skip(1)
        .filter(|arg| arg != "--bench")
        .collect();
    let shapes = match asked.as_slice() {
        [] => vec![(1000, 100), SMALL, LARGE, (50_000, 6000)],
        shapes => shapes
            .iter()
            .map(|shape| parse(shape))
            .collect::<Result<_, _>>()?,
    };
    let mut subjects = Vec::with_capacity(shapes.len());
    for shape in shapes {
        subjects.push(Subject {
            shape,
            cluster: Cluster::new(shape.0, shape.1)?,
            times: Times::default(),
        });
    }
    for block in 0..BLOCKS {
        for subject in &mut subjects {
            rounds(subject, block)?;
        }
    }
    let mut medians = BTreeMap::new();
    for mut subject in subjects {
        let (shape, times) = (subject.shape, &subject.times);
        let events = events(&mut subject.cluster, shape.0)?;
        medians.insert(shape, micros(at(&times.pass, 0.5)));
        report(shape, times, &events).iter().for_each(Row::print);
    }
    let ratio = |case: String, value, bar| Row {
        case,
        metric: String::from("pass_median"),
        value,
        unit: "ratio",
        at_most: Some(bar),
    };
    if let (Some(small), Some(large)) = (medians.get(&SMALL), medians.get(&LARGE)) {
        let case = format!("{}x{} over {}x{}", LARGE.0, LARGE.1, SMALL.0, SMALL.1);
        ratio(case, large / small, MAX_SCALING).print();
    }
    if asked.is_empty() {
        let slower = slower_after_cycles(SMALL)?;
        let case = format!("{}x{} after {CYCLES} cycles of declines", SMALL.0, SMALL.1);
        ratio(case, slower, MAX_AFTER_CYCLES).print();
    }
    Ok(())
}
