//! How much memory of a master an agent takes, and how much a task that runs.
//!
//! Agents register, frameworks subscribe, all that is offered is used by tasks, and these run and that is acknowledged:
//! by the messages that a master gets, through the core, beside the ledger and the planner of one worker. What is
//! resident is read before and after, so that all that there is of mimalloc's own counts too, and no byte of agents'
//! and frameworks' own processes. Printed on standard output, a row a line: `{"case","metric","value","unit","bar"}`.
//!
//! Arguments: `AGENTSxTASKS` (else 50000x500000). `--bench`, which cargo adds, is ignored.

use std::collections::BTreeMap;

use ebb_master::core::ConnectionId;
use ebb_types::{AgentId, Call, Quantities, Resources, Role, TaskId, TaskState};

use support::error::Error;
use support::master::{Master, Played, Scheduler, task};
use support::row::Row;

mod support {
    pub mod error;
    pub mod master;
    pub mod row;
}

/// As in `ebb-master`.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const SHAPE: (usize, usize) = (50_000, 500_000);
const FRAMEWORKS: usize = 10;
/// Few, so that what offers take while they are out does not count.
const OFFERED_AT_ONCE: usize = 100;
const MAX_AGENT_BYTES: f64 = 4.0 * 1024.0;
const MAX_TASK_BYTES: f64 = 1.2 * 1024.0;
const TASK_CPU_MILLI: u64 = 100;
const TASK_MEM_BYTES: u64 = 256 << 20;

/// What is resident of this process, in bytes.
fn resident_bytes() -> Result<u64, Error> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB"));
    let kib: u64 = kib
        .ok_or("/proc/self/status has no VmRSS")?
        .trim()
        .parse()?;
    Ok(kib << 10)
}

/// Has an offer used up by tasks that run.
fn use_up(
    master: &mut Master,
    agent: &Played,
    scheduler: &Scheduler,
    offer: &ebb_types::Offer,
    tasks: std::ops::Range<usize>,
) -> Result<(), Error> {
    let each = Quantities::cpus_mem(TASK_CPU_MILLI, TASK_MEM_BYTES);
    let ids: Vec<TaskId> = tasks
        .map(|number| TaskId::new(format!("task-{number:08}")))
        .collect::<Result<_, _>>()?;
    let infos = ids
        .iter()
        .map(|id| task(id, &offer.agent_id, Resources::regular(each)));
    master.accept((scheduler.connection, offer), infos.collect())?;
    for id in &ids {
        let status = master.status(id, TaskState::Running);
        let uuid = status.uuid.ok_or("an update has no uuid")?;
        master.update(agent, &scheduler.id, status)?;
        let call = Call::Acknowledge {
            agent_id: agent.id.clone(),
            task_id: id.clone(),
            uuid,
        };
        master.call(scheduler.connection, call)?;
    }
    Ok(())
}

fn measure((agents, tasks): (usize, usize)) -> Result<[u64; 3], Error> {
    let on_each = tasks / agents;
    let total = Quantities::cpus_mem(
        TASK_CPU_MILLI * on_each as u64,
        TASK_MEM_BYTES * on_each as u64,
    );
    let mut played: BTreeMap<AgentId, Played> = BTreeMap::new();
    let mut master = Master::new();
    let empty = resident_bytes()?;
    for number in 0..agents {
        let agent = master.register(format!("agent-{number:06}.example.org"), total)?;
        played.insert(agent.id.clone(), agent);
    }
    let with_agents = resident_bytes()?;
    let mut schedulers: BTreeMap<ConnectionId, Scheduler> = BTreeMap::new();
    master.offering = false;
    for number in 0..FRAMEWORKS {
        let role = Role::new(format!("role-{number}"))?;
        let one = master.subscribe(format!("framework-{number}"), role)?;
        schedulers.insert(one.connection, one);
    }
    let mut started = 0;
    let all: Vec<AgentId> = played.keys().cloned().collect();
    for some in all.chunks(OFFERED_AT_ONCE) {
        master.offer(some)?;
        for (connection, offer) in std::mem::take(&mut master.offers) {
            let (agent, scheduler) = (&played[&offer.agent_id], &schedulers[&connection]);
            let tasks = started..started + on_each;
            use_up(&mut master, agent, scheduler, &offer, tasks)?;
            started += on_each;
        }
    }
    let with_tasks = resident_bytes()?;
    let running = master.tasks_that_came_to(TaskState::Running);
    if running != tasks as u64 {
        return Err(format!("{running} of {tasks} tasks run").into());
    }
    Ok([empty, with_agents, with_tasks])
}

fn main() -> Result<(), Error> {
    let asked = std::env::args().skip(1).find(|arg| arg != "--bench");
    let shape = match asked.as_deref() {
        Some(shape) => {
            let (agents, tasks) = shape
                .split_once('x')
                .ok_or_else(|| format!("{shape:?} is no shape; say for example 50000x500000"))?;
            (agents.parse()?, tasks.parse()?)
        }
        None => SHAPE,
    };
    let [empty, with_agents, with_tasks] = measure(shape)?;
    let row = |metric: &str, bytes: u64, count: usize, bar| Row {
        case: format!("{} agents, {} tasks", shape.0, shape.1),
        metric: metric.to_owned(),
        value: bytes as f64 / count as f64,
        unit: "bytes",
        at_most: bar,
    };
    let (of_agents, of_tasks) = (with_agents - empty, with_tasks - with_agents);
    row("agent", of_agents, shape.0, Some(MAX_AGENT_BYTES)).print();
    row("task", of_tasks, shape.1, Some(MAX_TASK_BYTES)).print();
    row("resident_after_all", with_tasks, 1, None).print();
    Ok(())
}
