//! The batch's decisions, as a scheduler: which command goes on which offer, what a status means for
//! its command, when the batch is over.
//!
//! # Invariants
//! * A command has at most one task that is not known to have ended; a task id is never used twice.
//! * A command is launched at most once, and again only after a failure (at most `retries` times), a
//!   preemption (at most `preemptions` times) or a launch that certainly never started.
//! * A task whose agent is out of reach is waited for.
//! * What a decision rests on is in the journal before the decision is acted on.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use ebb_types::limits::{DEFAULT_GRACE_MS, MAX_TASKS_PER_CALL};
use ebb_types::{
    AgentId, ExitStatus, Filters, FrameworkId, InvalidId, Offer, OfferId, Resources, Source,
    TaskId, TaskInfo, TaskState, TaskStatus, Timestamp,
};

use super::config::{
    BatchCommand, BatchConfig, BatchError, MAX_ACCEPT_BYTES, MAX_DROPS, STOP_PATIENCE_MS,
    UNKNOWN_PATIENCE_MS,
};
use super::journal::{Again, Journal, LastTask, Record};
use super::ledger::{Entry, Ledger, Stage};
use super::report::{CommandEnd, Failure, Progress, Report};
use crate::command::{Program, stem};
use crate::fate::{Fate, fate, is_heard};
use crate::offers::{EXPECTED_RUN_MS, is_leaving, lasting};
use crate::scheduler::{Calls, Outcome, Scheduler, Subscribed};

/// A batch in the making.
pub(super) struct Batch {
    config: BatchConfig,
    /// Starts every task id.
    stem: String,
    wanted: Resources,
    ledger: Ledger,
    journal: Box<dyn Journal>,
    said: Option<Progress>,
    say: Box<dyn FnMut(&Progress) + Send>,
    stop: Arc<AtomicBool>,
    stop_deadline: Option<Timestamp>,
    /// Whether the master may make offers.
    asking: bool,
    /// Whether there was a subscription in this process' life.
    subscribed: bool,
    over: bool,
}

impl Batch {
    /// A batch that has not begun. `tag` tells its task ids from those of other batches.
    pub(super) fn new(
        config: BatchConfig,
        tag: &str,
        journal: Box<dyn Journal>,
        say: Box<dyn FnMut(&Progress) + Send>,
        stop: Arc<AtomicBool>,
    ) -> Self {
        Self {
            stem: format!("{}-{tag}", stem(&config.name)),
            wanted: config.demand.resources(),
            ledger: Ledger::new(config.commands.len()),
            journal,
            said: None,
            say,
            stop,
            stop_deadline: None,
            asking: true,
            subscribed: false,
            over: false,
            config,
        }
    }

    /// Takes over what an earlier process wrote.
    pub(super) fn replay(&mut self, records: &[Record]) -> Result<(), String> {
        self.ledger.replay(records)
    }

    /// The framework to go on as.
    pub(super) const fn framework_id(&self) -> Option<&FrameworkId> {
        self.ledger.framework_id.as_ref()
    }

    /// Whether it came with the id of an earlier framework and was never subscribed under it.
    pub(super) const fn is_left_behind(&self) -> bool {
        self.ledger.framework_id.is_some() && !self.subscribed
    }

    /// The earlier framework was removed, and its tasks were ended with it: nobody knows how far each
    /// had come. Goes on without it.
    pub(super) fn give_up_framework(
        &mut self,
        now: Timestamp,
        message: &str,
    ) -> Result<(), BatchError> {
        let live: Vec<(usize, TaskId)> = self
            .ledger
            .live
            .iter()
            .map(|(task_id, index)| (*index, task_id.clone()))
            .collect();
        let records = live.into_iter().filter_map(|(index, task_id)| {
            let status = TaskStatus {
                message: format!("its framework was removed: {message}"),
                ..TaskStatus::new(task_id, TaskState::Lost, Source::Master, now)
            };
            self.verdict(index, &status, Fate::Lost)
        });
        let records: Vec<Record> = records.chain([Record::Closed]).collect();
        self.commit(now, &records)
    }

    /// The framework was ended.
    pub(super) fn close(&mut self) {
        if let Err(error) = self.journal.append(&[Record::Closed]) {
            tracing::warn!(%error, "the state file does not say that the framework was ended");
        }
    }

    /// Whether nothing is left to do: no command, and no framework that was not ended.
    pub(super) fn is_closed(&self) -> bool {
        self.is_complete() && self.ledger.framework_id.is_none()
    }

    /// Whether every command has ended.
    pub(super) fn is_complete(&self) -> bool {
        self.ledger.is_complete()
    }

    /// What came of it so far.
    pub(super) fn report(&self, wall_ms: u64) -> Report {
        let failures = self.ledger.entries.iter().enumerate();
        Report {
            framework_id: self.ledger.framework_id.as_ref().map(ToString::to_string),
            counts: self.ledger.progress,
            wall_ms,
            running_ms: self.ledger.running_ms,
            stopped: !self.is_complete() || self.stop_deadline.is_some(),
            failures: failures
                .filter_map(|(index, entry)| self.failure(index, entry))
                .collect(),
        }
    }

    fn failure(&self, index: usize, entry: &Entry) -> Option<Failure> {
        let end = match &entry.stage {
            Stage::Ended(CommandEnd::Finished) => return None,
            Stage::Ended(end) => *end,
            Stage::Launched(_) => CommandEnd::Killed,
            Stage::Waiting { .. } => CommandEnd::NotRun,
        };
        let last = entry.last.as_deref().cloned().unwrap_or_default();
        Some(Failure {
            name: self.name(index),
            number: index as u64 + 1,
            end,
            task_id: last.task_id,
            agent_id: last.agent_id,
            exit_code: last.exit_code,
            exit_signal: last.exit_signal,
            state: last.state,
            reason: last.reason,
            message: last.message,
        })
    }

    fn name(&self, index: usize) -> String {
        match self.config.commands.get(index) {
            Some(command) if !command.name.is_empty() => command.name.clone(),
            _ => (index + 1).to_string(),
        }
    }

    /// Writes records, then carries them out.
    fn commit(&mut self, now: Timestamp, records: &[Record]) -> Result<(), BatchError> {
        self.journal.append(records)?;
        for record in records {
            self.ledger.apply(now, record)?;
        }
        Ok(())
    }

    /// What the end of a task means for its command.
    fn verdict(&self, index: usize, status: &TaskStatus, fate: Fate) -> Option<Record> {
        let entry = &self.ledger.entries[index];
        let stopping = self.stop_deadline.is_some();
        let again = |why| {
            Some(Record::Again {
                command: index,
                why,
            })
        };
        let may_retry = !stopping && entry.retries < self.config.retries;
        let end = match fate {
            Fate::Alive => return None,
            Fate::NeverStarted if entry.drops < MAX_DROPS => return again(Again::Drop),
            Fate::Failed | Fate::Lost | Fate::NeverStarted if may_retry => {
                return again(Again::Retry);
            }
            Fate::Preempted if !stopping && entry.preemptions < self.config.preemptions => {
                return again(Again::Preemption);
            }
            Fate::Finished => CommandEnd::Finished,
            Fate::Failed => CommandEnd::Failed,
            Fate::Preempted => CommandEnd::Preempted,
            Fate::Killed => CommandEnd::Killed,
            Fate::Invalid => CommandEnd::Invalid,
            Fate::Lost | Fate::NeverStarted => CommandEnd::Lost,
        };
        let last = last_task(status, &entry.stage);
        Some(Record::End {
            command: index,
            end,
            last,
        })
    }

    fn may_launch(&self, now: Timestamp) -> bool {
        self.stop_deadline.is_none()
            && self.ledger.live.len() < self.config.at_most
            && self.ledger.ready.first().is_some_and(|(at, _)| *at <= now)
    }

    /// Ends the batch if it is over, else says whether offers are wanted and when to look again.
    fn settle(&mut self, calls: &mut Calls) {
        let now = calls.now();
        let stopped = self
            .stop_deadline
            .is_some_and(|deadline| self.ledger.live.is_empty() || deadline <= now);
        if !self.over && (self.is_complete() || stopped) {
            self.over = true;
            calls.teardown();
        }
        let wants = self.may_launch(now);
        if wants != self.asking && !self.over {
            self.asking = wants;
            if wants {
                calls.revive(Vec::new());
            } else {
                calls.suppress(Vec::new());
            }
        }
        if let Some((at, _)) = self.ledger.ready.first().filter(|(at, _)| *at > now) {
            calls.wake_at(*at);
        }
        if let Some(deadline) = self.stop_deadline.filter(|deadline| *deadline > now) {
            calls.wake_at(deadline);
        }
        if self.said != Some(self.ledger.progress) {
            self.said = Some(self.ledger.progress);
            (self.say)(&self.ledger.progress);
        }
    }

    /// Begins to stop: every task is killed, nothing is launched any more.
    fn begin_to_stop(&mut self, calls: &mut Calls) {
        let grace_ms = self.config.kill_grace_ms.unwrap_or(DEFAULT_GRACE_MS);
        let patience_ms = grace_ms.saturating_add(STOP_PATIENCE_MS);
        self.stop_deadline = Some(calls.now().plus_ms(patience_ms));
        for index in self.ledger.live.values() {
            if let Some(live) = self.ledger.live_task(*index) {
                calls.kill(
                    &live.task_id,
                    Some(&live.agent_id),
                    self.config.kill_grace_ms,
                );
            }
        }
    }

    /// Spreads ready commands over offers, one a round on each. Nothing is changed yet.
    fn place(&self, now: Timestamp, offers: &[Offer]) -> Result<Vec<Placed>, InvalidId> {
        let expected = self.config.expected_run_ms;
        let run_ms = expected.or(self.config.max_completion_ms);
        let run_ms = run_ms.unwrap_or(EXPECTED_RUN_MS);
        let on = |offer: &Offer| {
            let usable = expected.map_or(offer.resources, |run_ms| lasting(offer, run_ms));
            Placed::on(offer, usable, is_leaving(offer, now, run_ms))
        };
        let mut placed: Vec<Placed> = offers.iter().map(on).collect();
        if self.stop_deadline.is_some() {
            return Ok(placed);
        }
        let room = self.config.at_most.saturating_sub(self.ledger.live.len());
        let mut ready = self
            .ledger
            .ready
            .iter()
            .take_while(|(at, _)| *at <= now)
            .take(room)
            .map(|(_, index)| *index)
            .peekable();
        let mut progress = true;
        while progress && ready.peek().is_some() {
            progress = false;
            for place in &mut placed {
                let Some(index) = ready.peek().copied() else {
                    break;
                };
                let Some(command) = self.config.commands.get(index) else {
                    break;
                };
                if !place.is_leaving && place.take(&self.wanted, command) {
                    let task = self.task(index, command, &place.agent_id)?;
                    place.tasks.push((index, task));
                    ready.next();
                    progress = true;
                }
            }
        }
        Ok(placed)
    }

    fn task(
        &self,
        index: usize,
        command: &BatchCommand,
        agent_id: &AgentId,
    ) -> Result<TaskInfo, InvalidId> {
        let attempt = self
            .ledger
            .entries
            .get(index)
            .map_or(0, |entry| entry.launches)
            + 1;
        let task_id = TaskId::new(format!("{}-{}.{attempt}", self.stem, index + 1))?;
        let mut task = command
            .command
            .to_task(task_id, agent_id.clone(), &self.config.demand);
        task.name = self.name(index);
        task.kill_grace_ms = self.config.kill_grace_ms;
        task.max_completion_ms = self.config.max_completion_ms;
        Ok(task)
    }

    /// A task that no command waits for: it came back after its command was given up.
    fn stranger(&mut self, calls: &mut Calls, status: &TaskStatus) {
        if is_heard(status.state) {
            self.ledger.progress.strangers += 1;
            calls.kill(&status.task_id, status.agent_id.as_ref(), None);
        }
    }
}

/// An offer and what is to run on it.
struct Placed {
    offer_id: OfferId,
    agent_id: AgentId,
    left: Resources,
    bytes: usize,
    /// Whether its agent will be out of use before a command is expected to end.
    is_leaving: bool,
    tasks: Vec<(usize, TaskInfo)>,
}

impl Placed {
    fn on(offer: &Offer, usable: Resources, is_leaving: bool) -> Self {
        Self {
            offer_id: offer.id.clone(),
            agent_id: offer.agent_id.clone(),
            left: usable,
            bytes: 0,
            is_leaving,
            tasks: Vec::new(),
        }
    }

    /// Takes what a command wants from what is left, if it is there.
    fn take(&mut self, wanted: &Resources, command: &BatchCommand) -> bool {
        let bytes = self.bytes + size(command);
        let full = self.tasks.len() >= MAX_TASKS_PER_CALL
            || (bytes > MAX_ACCEPT_BYTES && !self.tasks.is_empty());
        match self.left.checked_sub(wanted).filter(|_| !full) {
            Some(left) => {
                self.left = left;
                self.bytes = bytes;
                true
            }
            None => false,
        }
    }
}

fn size(command: &BatchCommand) -> usize {
    let program = match &command.command.program {
        Program::Shell(line) => line.len(),
        Program::Exec(words) => words.iter().map(String::len).sum(),
    };
    let environment = command.command.environment.iter();
    program + environment.map(|(n, v)| n.len() + v.len()).sum::<usize>()
}

fn last_task(status: &TaskStatus, stage: &Stage) -> LastTask {
    let agent_id = match (&status.agent_id, stage) {
        (Some(agent_id), _) => Some(agent_id.to_string()),
        (None, Stage::Launched(live)) => Some(live.agent_id.to_string()),
        _ => None,
    };
    let (exit_code, exit_signal) = match status.exit {
        Some(ExitStatus::Code(code)) => (Some(code), None),
        Some(ExitStatus::Signal(signal)) => (None, Some(signal)),
        None => (None, None),
    };
    LastTask {
        task_id: Some(status.task_id.to_string()),
        agent_id,
        exit_code,
        exit_signal,
        state: Some(status.state.name().to_owned()),
        reason: status.reason.map(|reason| reason.name().to_owned()),
        message: status.message.clone(),
    }
}

impl Scheduler for Batch {
    fn subscribed(&mut self, calls: &mut Calls, subscribed: &Subscribed) -> Outcome {
        if self.ledger.framework_id.as_ref() != Some(&subscribed.framework_id) {
            let id = subscribed.framework_id.to_string();
            self.commit(calls.now(), &[Record::Framework { id }])?;
        }
        if !subscribed.again {
            for index in self.ledger.live.values() {
                if let Some(live) = self.ledger.live_task(*index) {
                    calls.watch(live.task_id.clone(), Some(live.agent_id.clone()));
                }
            }
        }
        self.ledger.progress.connected = true;
        self.subscribed = true;
        self.settle(calls);
        Ok(())
    }

    fn offers(&mut self, calls: &mut Calls, offers: Vec<Offer>) -> Outcome {
        let placed = self.place(calls.now(), &offers)?;
        let launches: Vec<Record> = placed
            .iter()
            .flat_map(|place| &place.tasks)
            .map(|(command, task)| Record::Launch {
                command: *command,
                task: task.task_id.to_string(),
                agent: task.agent_id.to_string(),
            })
            .collect();
        self.commit(calls.now(), &launches)?;
        let (used, unused): (Vec<_>, Vec<_>) = placed
            .into_iter()
            .partition(|place| !place.tasks.is_empty());
        for place in used {
            let tasks = place.tasks.into_iter().map(|(_, task)| task).collect();
            calls.accept(vec![place.offer_id], tasks, Filters::default());
        }
        let unused = unused.into_iter().map(|place| place.offer_id).collect();
        calls.decline_all(unused, Filters::default());
        self.settle(calls);
        Ok(())
    }

    fn update(&mut self, calls: &mut Calls, status: &TaskStatus) -> Outcome {
        let now = calls.now();
        let Some(index) = self.ledger.live.get(&status.task_id).copied() else {
            self.stranger(calls, status);
            self.settle(calls);
            return Ok(());
        };
        let heard = self.ledger.live_task(index).is_some_and(|live| live.heard);
        let unknown_since = self
            .ledger
            .live_task(index)
            .and_then(|live| live.unknown_since);
        let mut fate = fate(status, heard);
        let given_up = unknown_since.is_some_and(|at| now.ms_since(at) >= UNKNOWN_PATIENCE_MS);
        if status.state == TaskState::Unknown && given_up {
            fate = Fate::Lost;
        }
        let records: Vec<Record> = if fate != Fate::Alive {
            self.verdict(index, status, fate).into_iter().collect()
        } else if is_heard(status.state) && !heard {
            vec![Record::Heard { command: index }]
        } else {
            Vec::new()
        };
        self.journal.append(&records)?;
        self.ledger.note(index, status, now);
        for record in &records {
            self.ledger.apply(now, record)?;
        }
        self.settle(calls);
        Ok(())
    }

    fn woken(&mut self, calls: &mut Calls) -> Outcome {
        if self.stop.load(Ordering::Acquire) && self.stop_deadline.is_none() {
            self.begin_to_stop(calls);
        }
        self.settle(calls);
        Ok(())
    }

    fn disconnected(&mut self, calls: &mut Calls, _cause: &str) -> Outcome {
        self.ledger.progress.connected = false;
        self.settle(calls);
        Ok(())
    }
}
