//! How long it takes to hand out a cluster by quotas: 3,000 agents and 3,000 roles, each with a framework, a guarantee and
//! a limit of the same, so that agents are split and each role ends exactly at its limit. Then what a cycle looks at in
//! which nothing has changed.
//!
//! Half an agent is guaranteed to a third of the roles, one agent to half of them, two to the others: together all there
//! is, in 3,500 offers. Printed on standard output, a row a line: `{"case","metric","value","unit","bar"}`.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use ebb_master::allocator::Allocator;
use ebb_master::core::claims::FrameworkTerms;
use ebb_types::{FrameworkId, Limits, Quantities, Quota, Role};

use support::books::{AGENT_CPU_MILLI, AGENT_MEM_BYTES, Books};
use support::cluster::Cluster;
use support::error::Error;
use support::row::Row;
use support::times::{at, micros};

#[allow(dead_code, reason = "each benchmark uses some of what they share")]
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

const ROUNDS: usize = 20;
const AGENTS: usize = 3000;
/// How many roles are guaranteed how many halves of an agent.
const ROLES: [(usize, u64); 3] = [(1000, 1), (1500, 2), (500, 4)];
const OFFERS: usize = 3500;
const MAX_ROUND_US: f64 = 30_000.0;
/// How long a batch may take to come, and nothing to come where nothing has changed.
const PATIENCE: Duration = Duration::from_secs(60);
const QUIET: Duration = Duration::from_millis(200);

fn set_quotas(books: &mut Books) -> Result<(), Error> {
    let halves = ROLES
        .iter()
        .flat_map(|(roles, halves)| std::iter::repeat_n(*halves, *roles));
    for (number, halves) in halves.enumerate() {
        let role = Role::new(format!("role-{number:05}"))?;
        let guarantee =
            Quantities::cpus_mem(AGENT_CPU_MILLI / 2 * halves, AGENT_MEM_BYTES / 2 * halves);
        let limits = guarantee
            .iter()
            .fold(Limits::NONE, |limits, (kind, amount)| {
                limits.with(kind, Some(amount))
            });
        books.claims.set_quota(
            &role,
            Quota {
                guarantee,
                limits,
                ..Quota::default()
            },
        );
        let terms = FrameworkTerms {
            roles: BTreeSet::from([role]),
            active: true,
            ..FrameworkTerms::default()
        };
        let id = FrameworkId::new(format!("framework-{number:05}"))?;
        books.claims.set_framework(&id, terms);
    }
    Ok(())
}

/// A pass over the whole cluster, and taking it in.
fn round() -> Result<[Duration; 2], Error> {
    let mut cluster = Cluster::new(AGENTS, 0)?;
    set_quotas(&mut cluster.books)?;
    cluster.follow();
    let slots = cluster.slots();
    let start = Instant::now();
    let proposals = cluster.pass(&slots);
    let pass = start.elapsed();
    if proposals.len() != OFFERS {
        return Err(format!("{} offers were made, not {OFFERS}", proposals.len()).into());
    }
    let start = Instant::now();
    cluster.take_in(&proposals);
    Ok([pass, start.elapsed()])
}

/// What a worker thread looks at after everything is handed out and nothing changes any more: passes, and agents.
fn unchanged() -> Result<[u64; 2], Error> {
    let mut books = Books::new(AGENTS, 0)?;
    set_quotas(&mut books)?;
    let (sender, batches) = channel();
    let sink = move |batch| sender.send(batch).map_err(|error| error.0);
    let allocator = Allocator::start(1, Arc::clone(&books.ledger), &books.claims, sink)?;
    allocator.wake_all();
    let mut offers = 0;
    while offers < OFFERS {
        let batch = batches.recv_timeout(PATIENCE)?;
        offers += batch.proposals.len();
        books.take_in(batch.id, &batch.proposals);
        let entries = books.claims.publish();
        allocator.publish(&entries, || books.claims.copy());
    }
    let before = allocator.figures();
    let entries = books.claims.publish();
    allocator.publish(&entries, || books.claims.copy());
    allocator.wake_held_back();
    if batches.recv_timeout(QUIET).is_ok() {
        return Err("something is offered though all is handed out".into());
    }
    let after = allocator.figures();
    Ok([after.passes - before.passes, after.agents - before.agents])
}

fn main() -> Result<(), Error> {
    let mut times = [Vec::new(), Vec::new()];
    for _ in 0..ROUNDS {
        for (times, time) in times.iter_mut().zip(round()?) {
            times.push(time);
        }
    }
    let case = format!("{AGENTS} agents, 3000 roles, {OFFERS} offers");
    let row = |metric: &str, value, unit, at_most| Row {
        case: case.clone(),
        metric: metric.to_owned(),
        value,
        unit,
        at_most,
    };
    for (name, times) in ["pass", "take_in_offers"].into_iter().zip(&times) {
        let bar = (name == "pass").then_some(MAX_ROUND_US);
        row(&format!("{name}_min"), micros(at(times, 0.0)), "us", None).print();
        row(&format!("{name}_median"), micros(at(times, 0.5)), "us", bar).print();
    }
    let [passes, agents] = unchanged()?;
    row("unchanged_passes", passes as f64, "passes", Some(0.0)).print();
    row("unchanged_agents", agents as f64, "agents", Some(0.0)).print();
    Ok(())
}
