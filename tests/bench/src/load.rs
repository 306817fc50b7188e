//! A framework that launches tasks as fast as it is offered resources, on the real API.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use ebb_types::{
    Call, CommandInfo, Event, Filters, Offer, Operation, TaskId, TaskState, TaskStatus,
};
use tonic::transport::Channel;

use crate::connection::{Connection, task, task_resources};
use crate::row::quantile;

/// A run that takes longer has failed.
const TIMEOUT: Duration = Duration::from_secs(120);
/// How long offers that are not wanted any more are refused, in milliseconds.
const REFUSE_MS: u64 = 3_600_000;

/// What a run took.
#[derive(Clone, Debug)]
pub struct LoadReport {
    /// Tasks that were accepted, run, finished and acknowledged, a second.
    pub tasks_per_s: f64,
    /// Accept to running, the median, in milliseconds.
    pub running_p50_ms: f64,
    /// Accept to running, the 99th percentile, in milliseconds.
    pub running_p99_ms: f64,
}

struct Load {
    connection: Connection,
    to_launch: usize,
    accepted: BTreeMap<TaskId, Instant>,
    running_ms: Vec<f64>,
    finished: usize,
}

/// Launches tasks with the given command until all have finished, as a framework of its own.
///
/// The time counts from the subscription, so that the first offer is part of it.
///
/// # Errors
/// When the master cannot be reached, a task does not finish, or it takes too long.
pub async fn submit(channel: Channel, tasks: usize, command: CommandInfo) -> Result<LoadReport> {
    tokio::time::timeout(TIMEOUT, run(channel, tasks, command))
        .await
        .with_context(|| format!("{tasks} tasks did not finish in {} s", TIMEOUT.as_secs()))?
}

async fn run(channel: Channel, tasks: usize, command: CommandInfo) -> Result<LoadReport> {
    let start = Instant::now();
    let mut load = Load {
        connection: Connection::open(channel).await?,
        to_launch: tasks,
        accepted: BTreeMap::new(),
        running_ms: Vec::with_capacity(tasks),
        finished: 0,
    };
    while load.finished < tasks {
        match load.connection.hear().await? {
            Event::Offers(offers) => {
                let accepted = Instant::now();
                let launched = launch(&load.connection, offers, &command, &mut load.to_launch);
                let launched = launched.await?.into_iter();
                load.accepted
                    .extend(launched.map(|task_id| (task_id, accepted)));
            }
            Event::Update(status) => load.note(status).await?,
            _ => {}
        }
    }
    let seconds = start.elapsed().as_secs_f64();
    load.connection.leave().await?;
    ensure!(
        load.running_ms.len() == tasks,
        "{} of {tasks} tasks were never said to run",
        tasks - load.running_ms.len()
    );
    Ok(LoadReport {
        tasks_per_s: tasks as f64 / seconds,
        running_p50_ms: quantile(&mut load.running_ms, 0.5),
        running_p99_ms: quantile(&mut load.running_ms, 0.99),
    })
}

impl Load {
    async fn note(&mut self, status: TaskStatus) -> Result<()> {
        if status.state == TaskState::Running
            && let Some(accepted) = self.accepted.remove(&status.task_id)
        {
            self.running_ms
                .push(accepted.elapsed().as_secs_f64() * 1000.0);
        }
        if status.state.is_terminal() {
            ensure!(
                status.state == TaskState::Finished,
                "a task ended otherwise: {status:?}"
            );
            self.finished += 1;
        }
        self.connection.acknowledge(&status).await
    }
}

/// Launches as many of the tasks that are still to be launched as fit into these offers, and declines the others for
/// long. Returns those that were launched.
pub(crate) async fn launch(
    connection: &Connection,
    offers: Vec<Offer>,
    command: &CommandInfo,
    to_launch: &mut usize,
) -> Result<Vec<TaskId>> {
    let mut launched = Vec::new();
    for offer in offers {
        let mut left = offer.resources;
        let mut tasks = Vec::new();
        while *to_launch > 0
            && let Some(rest) = left.checked_sub(&task_resources())
        {
            left = rest;
            *to_launch -= 1;
            let task_id = TaskId::new(format!("task-{to_launch}"))?;
            launched.push(task_id.clone());
            tasks.push(task(task_id, &offer, command.clone()));
        }
        let offer_ids = vec![offer.id];
        let call = if tasks.is_empty() {
            Call::Decline {
                offer_ids,
                filters: Filters {
                    refuse_ms: REFUSE_MS,
                },
            }
        } else {
            let malformed = Vec::new();
            Call::Accept {
                offer_ids,
                operations: vec![Operation::Launch { tasks, malformed }],
                filters: Filters { refuse_ms: 0 },
            }
        };
        connection.say(call).await?;
    }
    Ok(launched)
}
