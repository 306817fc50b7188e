//! `ebb status`: the cluster in a dozen lines, or everything about one thing.

use std::collections::BTreeMap;

use ebb_types::{AgentStatus, ClusterState, Quantities, ResourceKind, Resources, TaskState};
use serde::Serialize;

use super::details;
use crate::args::StatusArgs;
use crate::client::Master;
use crate::error::{CliError, EXIT_OK};
use crate::find;
use crate::output::Out;
use crate::output::json::{MasterJson, QuantitiesJson, ResourcesJson, ThingJson};
use crate::output::quantity::{bytes, milli};
use crate::output::table::{Cell, Style, Table, clean};

/// The cluster in numbers.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Summary {
    master: MasterJson,
    at_ms: u64,
    agents: BTreeMap<&'static str, usize>,
    frameworks: usize,
    connected_frameworks: usize,
    tasks: BTreeMap<&'static str, usize>,
    live_tasks: usize,
    roles: usize,
    offers: usize,
    total: QuantitiesJson,
    offered: ResourcesJson,
    allocated: ResourcesJson,
    oversubscribed: QuantitiesJson,
    used_cpu_milli: Option<u64>,
    used_mem_bytes: Option<u64>,
    taken_back_cpu_milli: u64,
}

/// What all registered agents have, give, lend and measure together.
#[derive(Debug, Default)]
struct Sums {
    total: Quantities,
    offered: Resources,
    allocated: Resources,
    lent: Quantities,
    used_cpu_milli: Option<u64>,
    used_mem_bytes: Option<u64>,
    taken_back_cpu_milli: u64,
}

pub(crate) async fn perform(args: &StatusArgs, out: &mut Out) -> Result<u8, CliError> {
    let state = Master::connect(&args.client.master).await?.state().await?;
    match &args.id {
        Some(id) => thing(&state, id, out)?,
        None => summary(&state, out)?,
    }
    Ok(EXIT_OK)
}

fn thing(state: &ClusterState, id: &str, out: &mut Out) -> Result<(), CliError> {
    let thing = find::thing(state, id)?;
    if out.json {
        out.json(&match thing {
            find::Thing::Agent(agent) => ThingJson::Agent(Box::new(agent.into())),
            find::Thing::Framework(framework) => ThingJson::Framework(framework.into()),
            find::Thing::Task(task) => ThingJson::Task(task.into()),
            find::Thing::Offer(offer) => ThingJson::Offer(offer.into()),
            find::Thing::Role(role) => ThingJson::Role(role.into()),
        })?;
        return Ok(());
    }
    for (label, value) in details::of(state, thing) {
        out.labelled(label, &value)?;
    }
    Ok(())
}

fn sums(state: &ClusterState) -> Sums {
    let mut sums = Sums::default();
    let registered = |status| status == AgentStatus::Registered;
    for agent in state.agents.iter().filter(|agent| registered(agent.status)) {
        sums.total = sums.total.saturating_add(&agent.info.total);
        sums.offered = sums.offered.saturating_add(&agent.offered);
        sums.allocated = sums.allocated.saturating_add(&agent.allocated);
        sums.lent = sums.lent.saturating_add(&agent.oversubscribed);
        let Some(usage) = &agent.usage else {
            continue;
        };
        sums.taken_back_cpu_milli += usage.taken_back_cpu_milli;
        for task in &usage.tasks {
            add(&mut sums.used_cpu_milli, task.used.cpu_milli);
            add(&mut sums.used_mem_bytes, task.used.mem_bytes);
        }
    }
    sums
}

/// Adds what was measured; a sum of nothing measured stays absent.
fn add(sum: &mut Option<u64>, value: Option<u64>) {
    if let Some(value) = value {
        *sum = Some(sum.unwrap_or(0).saturating_add(value));
    }
}

fn count<K: Ord>(keys: impl Iterator<Item = K>) -> BTreeMap<K, usize> {
    let mut counts = BTreeMap::new();
    for key in keys {
        *counts.entry(key).or_default() += 1;
    }
    counts
}

fn summary(state: &ClusterState, out: &mut Out) -> Result<(), CliError> {
    let sums = sums(state);
    let live = state.tasks.iter().filter(|task| !task.state.is_terminal());
    let connected = state.frameworks.iter().filter(|f| f.connected).count();
    if out.json {
        out.json(&Summary {
            master: state.into(),
            at_ms: state.at.as_ms(),
            agents: count(state.agents.iter().map(|agent| agent.status.name())),
            frameworks: state.frameworks.len(),
            connected_frameworks: connected,
            tasks: count(state.tasks.iter().map(|task| task.state.name())),
            live_tasks: live.count(),
            roles: state.roles.len(),
            offers: state.offers.len(),
            total: (&sums.total).into(),
            offered: (&sums.offered).into(),
            allocated: (&sums.allocated).into(),
            oversubscribed: (&sums.lent).into(),
            used_cpu_milli: sums.used_cpu_milli,
            used_mem_bytes: sums.used_mem_bytes,
            taken_back_cpu_milli: sums.taken_back_cpu_milli,
        })?;
        return Ok(());
    }
    let master = &state.master;
    out.line(&format!(
        "master      {} at {}:{}, generation {}, version {}",
        clean(&master.id),
        clean(&master.hostname),
        master.port,
        master.generation.0,
        clean(&master.version)
    ))?;
    let statuses = count(state.agents.iter().map(|agent| agent.status.name()));
    out.line(&format!("agents      {}", counted(&statuses)))?;
    out.line(&format!(
        "frameworks  {} ({connected} connected)",
        state.frameworks.len()
    ))?;
    let live: BTreeMap<TaskState, usize> = count(live.map(|task| task.state));
    let live = live
        .into_iter()
        .map(|(state, n)| (state.name(), n))
        .collect();
    out.line(&format!("tasks       {}", counted(&live)))?;
    out.line(&format!(
        "offers      {} outstanding; roles {}",
        state.offers.len(),
        state.roles.len()
    ))?;
    out.line("")?;
    out.table(&resources_table(&sums), "")?;
    hint(state, out)
}

/// What to do next in a cluster that cannot run anything.
fn hint(state: &ClusterState, out: &mut Out) -> Result<(), CliError> {
    if state.agents.is_empty() {
        let address = format!("{}:{}", clean(&state.master.hostname), state.master.port);
        out.line("")?;
        out.line(&format!(
            "no agent has joined, so no task can run; start one with `ebb agent --master {address}`"
        ))?;
    }
    Ok(())
}

fn counted(counts: &BTreeMap<&'static str, usize>) -> String {
    if counts.is_empty() {
        return "none".to_owned();
    }
    let parts = counts.iter().map(|(name, n)| {
        let name = name.strip_prefix("TASK_").unwrap_or(name).to_lowercase();
        format!("{n} {name}")
    });
    parts.collect::<Vec<_>>().join(", ")
}

fn resources_table(sums: &Sums) -> Table {
    let mut table = Table::new(&[
        "RESOURCE",
        "TOTAL",
        "ALLOCATED",
        "OFFERED",
        "FREE",
        "USED",
        "LENT",
        "LENT IN USE",
        "TAKEN BACK",
    ]);
    for kind in ResourceKind::ALL {
        let write = |amount: u64| match kind {
            ResourceKind::Cpus => milli(amount),
            ResourceKind::DiskBandwidth | ResourceKind::NetworkBandwidth => {
                format!("{}/s", bytes(amount))
            }
            ResourceKind::Mem | ResourceKind::Disk => bytes(amount),
        };
        let allocated = sums.allocated.regular.get(kind);
        let offered = sums.offered.regular.get(kind);
        let free = sums
            .total
            .get(kind)
            .saturating_sub(allocated)
            .saturating_sub(offered);
        let used = match kind {
            ResourceKind::Cpus => sums.used_cpu_milli,
            ResourceKind::Mem => sums.used_mem_bytes,
            ResourceKind::Disk | ResourceKind::DiskBandwidth | ResourceKind::NetworkBandwidth => {
                None
            }
        };
        let taken_back = (kind == ResourceKind::Cpus).then(|| write(sums.taken_back_cpu_milli));
        table.row(vec![
            kind.name().into(),
            Cell::right(write(sums.total.get(kind))),
            Cell::right(write(allocated)),
            Cell::right(write(offered)),
            Cell::right(write(free)),
            Cell::figure(used.map(write)),
            Cell::right(write(sums.lent.get(kind))).styled(Style::Lent),
            Cell::right(write(sums.allocated.revocable.get(kind))).styled(Style::Lent),
            Cell::figure(taken_back),
        ]);
    }
    table
}
