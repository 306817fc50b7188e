//! How long it takes from an event to the next offer of what it has freed, on the wire: a framework declines an offer,
//! and another one is offered that agent. A real master with a durable registry, 50,000 simulated agents and ten
//! frameworks, all over gRPC on loopback; the frameworks' and the agents' own work is part of the time.
//!
//! One event at a time: what is measured is the way of one, not how many go through.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use ebb_tests_bench::{Declining, Master, at_most, connect, figure, join_agents, quantile};
use ebb_types::AgentId;
use tokio::runtime::Runtime;

const AGENTS: usize = 50_000;
/// Streams that share a connection: agents are as many as a machine has ports for only so.
const AGENTS_PER_CONNECTION: usize = 200;
const FRAMEWORKS: usize = 10;
const EVENTS: usize = 4000;
/// The first events, which do not count.
const WARM_UP: usize = 400;
/// Far from one another among the agents.
const STRIDE: usize = 7919;
/// Longer than the benchmark.
const REFUSE_MS: u64 = 3_600_000;
const MAX_P99_MS: f64 = 1.0;
/// Offers that take longer have failed.
const TIMEOUT: Duration = Duration::from_secs(60);
const CASE: &str = "50000 agents, 10 frameworks, one decline at a time";

async fn play(master: &Master) -> Result<Vec<f64>> {
    let address = master.address();
    join_agents(address, AGENTS, AGENTS_PER_CONNECTION).await?;
    let mut frameworks = Declining::open(connect(address).await?, FRAMEWORKS).await?;
    let mut holders = BTreeMap::new();
    while holders.len() < AGENTS {
        let offered = tokio::time::timeout(TIMEOUT, frameworks.hear()).await;
        for (at, offer) in offered.context("not everything is offered")?? {
            holders.insert(offer.agent_id.clone(), (at, offer));
        }
    }
    let agents: Vec<AgentId> = holders.keys().cloned().collect();
    let mut times_ms = Vec::with_capacity(EVENTS);
    for event in 0..EVENTS {
        let agent_id = &agents[(event * STRIDE) % AGENTS];
        let (at, offer) = holders.remove(agent_id).context("an agent is lost")?;
        let start = Instant::now();
        frameworks.decline(at, offer.id, REFUSE_MS).await?;
        while !holders.contains_key(agent_id) {
            let offered = tokio::time::timeout(TIMEOUT, frameworks.hear()).await;
            for (at, offer) in offered.context("a declined agent is not offered again")?? {
                holders.insert(offer.agent_id.clone(), (at, offer));
            }
        }
        times_ms.push(start.elapsed().as_secs_f64() * 1000.0);
        ensure!(
            holders[agent_id].0 != at,
            "it was offered to who refused it"
        );
    }
    Ok(times_ms.split_off(WARM_UP))
}

fn main() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let master = Master::start(folder.path())?;
    let runtime = Runtime::new()?;
    let mut times_ms = runtime.block_on(play(&master))?;
    // The agents end with it, each of which would complain of the master's end otherwise.
    drop(runtime);
    master.stop()?;
    for (metric, share) in [("min", 0.0), ("p50", 0.5)] {
        let time_ms = quantile(&mut times_ms, share);
        figure(CASE, &format!("decline_to_offer_{metric}"), time_ms, "ms");
    }
    let p99_ms = quantile(&mut times_ms, 0.99);
    at_most(CASE, "decline_to_offer_p99", p99_ms, "ms", MAX_P99_MS);
    Ok(())
}
