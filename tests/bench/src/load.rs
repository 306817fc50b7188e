//! A framework that launches tasks as fast as it is offered resources, on the real API.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
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
/// How often a paced framework looks which tasks are due.
const TICK: Duration = Duration::from_millis(1);
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
    to_launch: Range<usize>,
    /// When each task that does not run yet was accepted, or due.
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
    let mut load = Load::open(channel, tasks).await?;
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
    load.report(start, tasks).await
}

/// Launches tasks at a steady pace until all have finished: a task is due at its time, however those before it fare, and
/// the times until it runs count from then.
///
/// # Errors
/// As of [`submit`].
pub async fn submit_paced(
    channel: Channel,
    tasks: usize,
    tasks_per_s: f64,
    command: CommandInfo,
) -> Result<LoadReport> {
    tokio::time::timeout(TIMEOUT, run_paced(channel, tasks, tasks_per_s, command))
        .await
        .with_context(|| format!("{tasks} tasks did not finish in {} s", TIMEOUT.as_secs()))?
}

async fn run_paced(
    channel: Channel,
    tasks: usize,
    tasks_per_s: f64,
    command: CommandInfo,
) -> Result<LoadReport> {
    let mut load = Load::open(channel, tasks).await?;
    let mut offers = VecDeque::new();
    // The pace begins once there is something to start tasks on.
    while offers.is_empty() {
        let event = load.connection.hear().await?;
        load.take_in(event, &mut offers).await?;
    }
    let start = Instant::now();
    let mut tick = tokio::time::interval(TICK);
    while load.finished < tasks {
        // Taken in outside of this, since what is given up here is begun anew.
        let event = tokio::select! {
            event = load.connection.hear() => Some(event?),
            _ = tick.tick() => None,
        };
        if let Some(event) = event {
            load.take_in(event, &mut offers).await?;
        }
        let due = (start.elapsed().as_secs_f64() * tasks_per_s) as usize;
        let mut to_launch = load.to_launch.start..due.min(tasks);
        while !to_launch.is_empty()
            && let Some(offer) = offers.pop_front()
        {
            let first = to_launch.start;
            let ids = launch(&load.connection, vec![offer], &command, &mut to_launch).await?;
            for (number, task_id) in (first..).zip(ids) {
                let due_at = start + Duration::from_secs_f64(number as f64 / tasks_per_s);
                load.accepted.insert(task_id, due_at);
            }
            load.to_launch.start = to_launch.start;
        }
    }
    load.report(start, tasks).await
}

impl Load {
    async fn open(channel: Channel, tasks: usize) -> Result<Self> {
        Ok(Self {
            connection: Connection::open(channel).await?,
            to_launch: 0..tasks,
            accepted: BTreeMap::new(),
            running_ms: Vec::with_capacity(tasks),
            finished: 0,
        })
    }

    async fn take_in(&mut self, event: Event, offers: &mut VecDeque<Offer>) -> Result<()> {
        match event {
            Event::Offers(more) => offers.extend(more),
            Event::Rescind(id) => offers.retain(|offer| offer.id != id),
            Event::Update(status) => self.note(status).await?,
            _ => {}
        }
        Ok(())
    }

    async fn report(mut self, start: Instant, tasks: usize) -> Result<LoadReport> {
        let seconds = start.elapsed().as_secs_f64();
        self.connection.leave().await?;
        ensure!(
            self.running_ms.len() == tasks,
            "{} of {tasks} tasks were never said to run",
            tasks - self.running_ms.len()
        );
        Ok(LoadReport {
            tasks_per_s: tasks as f64 / seconds,
            running_p50_ms: quantile(&mut self.running_ms, 0.5),
            running_p99_ms: quantile(&mut self.running_ms, 0.99),
        })
    }

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

/// Launches as many of the tasks that are still to be launched, by their numbers, as fit into these offers, and declines
/// the other offers for long. Returns those that were launched.
pub(crate) async fn launch(
    connection: &Connection,
    offers: Vec<Offer>,
    command: &CommandInfo,
    to_launch: &mut Range<usize>,
) -> Result<Vec<TaskId>> {
    let mut launched = Vec::new();
    for offer in offers {
        let mut left = offer.resources;
        let mut tasks = Vec::new();
        while let Some(rest) = left.checked_sub(&task_resources())
            && let Some(number) = to_launch.next()
        {
            left = rest;
            let task_id = TaskId::new(format!("task-{number}"))?;
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
