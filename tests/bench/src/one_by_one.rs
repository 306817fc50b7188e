//! A framework that holds an offer in its hand and runs one task after another, so that nothing but
//! the way of a single launch is measured.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use ebb_types::{
    Call, CommandInfo, Event, Filters, FrameworkId, Offer, Operation, TaskId, TaskState,
};
use tonic::transport::Channel;

use crate::connection::{Connection, task, task_resources};
use crate::monotonic_ns;

/// A task that takes longer from accept to end has failed.
const TIMEOUT: Duration = Duration::from_secs(30);

/// How a task started.
#[derive(Clone, Debug)]
pub struct Start {
    /// Which task it was.
    pub task_id: TaskId,
    /// When the accept was sent, on the clock of [`monotonic_ns`].
    pub accepted_ns: u64,
    /// When the framework heard that the task runs, on the same clock.
    pub running_ns: u64,
}

/// The framework.
pub struct OneByOne {
    connection: Connection,
    framework_id: FrameworkId,
    offers: Vec<Offer>,
    tasks: usize,
}

impl OneByOne {
    /// Subscribes.
    ///
    /// # Errors
    /// When the master does not take it.
    pub async fn open(channel: Channel) -> Result<Self> {
        let mut connection = Connection::open(channel).await?;
        let framework_id = loop {
            if let Event::Subscribed { framework_id, .. } = connection.hear().await? {
                break framework_id;
            }
        };
        Ok(Self {
            connection,
            framework_id,
            offers: Vec::new(),
            tasks: 0,
        })
    }

    /// The id that the master gave it.
    pub fn framework_id(&self) -> &FrameworkId {
        &self.framework_id
    }

    /// Runs one task to its end. The wait for an offer is not part of the times.
    ///
    /// # Errors
    /// When the task does not finish, or takes too long.
    pub async fn run(&mut self, command: CommandInfo) -> Result<Start> {
        tokio::time::timeout(TIMEOUT, self.run_one(command))
            .await
            .with_context(|| format!("a task did not finish in {} s", TIMEOUT.as_secs()))?
    }

    async fn run_one(&mut self, command: CommandInfo) -> Result<Start> {
        self.await_offer().await?;
        // All offers of that agent are used together, so that they become one again.
        let agent_id = self.offers[0].agent_id.clone();
        let (offers, kept) = std::mem::take(&mut self.offers)
            .into_iter()
            .partition::<Vec<_>, _>(|offer| offer.agent_id == agent_id);
        self.offers = kept;
        self.tasks += 1;
        let task_id = TaskId::new(format!("single-{}", self.tasks))?;
        let tasks = vec![task(task_id.clone(), &offers[0], command)];
        let malformed = Vec::new();
        let accept = Call::Accept {
            offer_ids: offers.into_iter().map(|offer| offer.id).collect(),
            operations: vec![Operation::Launch { tasks, malformed }],
            filters: Filters { refuse_ms: 0 },
        };
        let accepted_ns = monotonic_ns();
        self.connection.say(accept).await?;
        let mut running_ns = None;
        loop {
            let status = match self.connection.hear().await? {
                Event::Update(status) if status.task_id == task_id => status,
                event => {
                    self.note_offers(event);
                    continue;
                }
            };
            if status.state == TaskState::Running {
                running_ns.get_or_insert_with(monotonic_ns);
            }
            self.connection.acknowledge(&status).await?;
            if status.state.is_terminal() {
                ensure!(
                    status.state == TaskState::Finished,
                    "a task ended otherwise: {status:?}"
                );
                break;
            }
        }
        Ok(Start {
            task_id,
            accepted_ns,
            running_ns: running_ns.context("a task finished that was never said to run")?,
        })
    }

    /// Returns once the first offer in the hand is large enough.
    async fn await_offer(&mut self) -> Result<()> {
        loop {
            let fits = |offer: &Offer| offer.resources.checked_sub(&task_resources()).is_some();
            if let Some(first) = self.offers.iter().position(fits) {
                self.offers.swap(0, first);
                return Ok(());
            }
            let event = self.connection.hear().await?;
            self.note_offers(event);
        }
    }

    fn note_offers(&mut self, event: Event) {
        match event {
            Event::Offers(offers) => self.offers.extend(offers),
            Event::Rescind(id) => self.offers.retain(|offer| offer.id != id),
            _ => {}
        }
    }

    /// Ends the framework.
    ///
    /// # Errors
    /// When the stream has ended before.
    pub async fn leave(self) -> Result<()> {
        self.connection.leave().await
    }
}
