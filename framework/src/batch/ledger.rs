//! What a batch knows of its commands: where each stands, in which order those that wait are ready,
//! which tasks are out, and the counts of it all. Changed only by records, and by what is said of
//! tasks that live.
//!
//! # Invariants
//! * `ready` holds exactly the commands that wait, `live` exactly the tasks of those that are launched.
//! * `progress` counts each command in exactly one of waiting, launched, finished and failed.

use std::collections::{BTreeMap, BTreeSet};

use ebb_types::{AgentId, FrameworkId, InvalidId, TaskId, TaskState, TaskStatus, Timestamp};

use super::config::{AGAIN_CAP_MS, AGAIN_FIRST_MS};
use super::journal::{Again, LastTask, Record};
use super::report::{CommandEnd, Progress};
use crate::backoff::Backoff;

/// Where a command stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    Waiting { ready_at: Timestamp },
    Launched(Live),
    Ended(CommandEnd),
}

/// A task that is not known to have ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Live {
    pub(super) task_id: TaskId,
    pub(super) agent_id: AgentId,
    /// Whether it is known to have reached its agent.
    pub(super) heard: bool,
    pub(super) state: TaskState,
    pub(super) running_since: Option<Timestamp>,
    pub(super) unknown_since: Option<Timestamp>,
}

#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) stage: Stage,
    pub(super) launches: u32,
    pub(super) retries: u32,
    pub(super) preemptions: u32,
    pub(super) drops: u32,
    pub(super) again: Backoff,
    pub(super) last: Option<Box<LastTask>>,
}

/// What a batch knows of its commands.
#[derive(Clone, Debug)]
pub(super) struct Ledger {
    pub(super) entries: Vec<Entry>,
    pub(super) ready: BTreeSet<(Timestamp, usize)>,
    pub(super) live: BTreeMap<TaskId, usize>,
    pub(super) framework_id: Option<FrameworkId>,
    pub(super) progress: Progress,
    pub(super) running_ms: u64,
}

impl Ledger {
    /// So many commands, none of them launched.
    pub(super) fn new(count: usize) -> Self {
        let start = Timestamp::from_ms(0);
        let entry = Entry {
            stage: Stage::Waiting { ready_at: start },
            launches: 0,
            retries: 0,
            preemptions: 0,
            drops: 0,
            again: Backoff::new(AGAIN_FIRST_MS, AGAIN_CAP_MS),
            last: None,
        };
        Self {
            entries: vec![entry; count],
            ready: (0..count).map(|index| (start, index)).collect(),
            live: BTreeMap::new(),
            framework_id: None,
            progress: Progress {
                commands: count as u64,
                waiting: count as u64,
                ..Progress::default()
            },
            running_ms: 0,
        }
    }

    /// Takes over what an earlier process wrote.
    pub(super) fn replay(&mut self, records: &[Record]) -> Result<(), String> {
        let now = Timestamp::from_ms(0);
        for record in records {
            let index = match record {
                Record::Launch { command, .. }
                | Record::Heard { command }
                | Record::Again { command, .. }
                | Record::End { command, .. } => Some(*command),
                Record::Batch { .. } | Record::Framework { .. } | Record::Closed => None,
            };
            if index.is_some_and(|index| index >= self.entries.len()) {
                return Err("names a command that the batch does not have".to_owned());
            }
            self.apply(now, record)
                .map_err(|error| format!("holds an id that is not valid: {error}"))?;
        }
        Ok(())
    }

    /// Whether every command has ended.
    pub(super) fn is_complete(&self) -> bool {
        self.progress.finished + self.progress.failed == self.progress.commands
    }

    /// Counts an entry in or out of the figures of its stage.
    fn tally(progress: &mut Progress, stage: &Stage, add: bool) {
        let change = |figure: &mut u64| {
            *figure = if add {
                *figure + 1
            } else {
                figure.saturating_sub(1)
            };
        };
        match stage {
            Stage::Waiting { .. } => change(&mut progress.waiting),
            Stage::Ended(CommandEnd::Finished) => change(&mut progress.finished),
            Stage::Ended(_) => change(&mut progress.failed),
            Stage::Launched(live) => {
                change(&mut progress.launched);
                match live.state {
                    TaskState::Running => change(&mut progress.running),
                    TaskState::Unreachable | TaskState::Unknown => {
                        change(&mut progress.unreachable);
                    }
                    _ => {}
                }
            }
        }
    }

    /// Moves a command to a stage.
    fn enter(&mut self, index: usize, stage: Stage) {
        let Some(entry) = self.entries.get_mut(index) else {
            return;
        };
        Self::tally(&mut self.progress, &entry.stage, false);
        Self::tally(&mut self.progress, &stage, true);
        match std::mem::replace(&mut entry.stage, stage) {
            Stage::Waiting { ready_at } => {
                self.ready.remove(&(ready_at, index));
            }
            Stage::Launched(live) => {
                self.live.remove(&live.task_id);
            }
            Stage::Ended(_) => {}
        }
        match &entry.stage {
            Stage::Waiting { ready_at } => {
                self.ready.insert((*ready_at, index));
            }
            Stage::Launched(live) => {
                self.live.insert(live.task_id.clone(), index);
            }
            Stage::Ended(_) => {}
        }
    }

    /// Carries out what a record says; the same when it is written as when it is read again.
    pub(super) fn apply(&mut self, now: Timestamp, record: &Record) -> Result<(), InvalidId> {
        match record {
            Record::Batch { .. } => {}
            Record::Framework { id } => self.framework_id = Some(FrameworkId::new(id)?),
            Record::Closed => self.framework_id = None,
            Record::Launch {
                command,
                task,
                agent,
            } => {
                let live = Live {
                    task_id: TaskId::new(task)?,
                    agent_id: AgentId::new(agent)?,
                    heard: false,
                    state: TaskState::Staging,
                    running_since: None,
                    unknown_since: None,
                };
                self.entries[*command].launches += 1;
                self.progress.launches += 1;
                self.enter(*command, Stage::Launched(live));
            }
            Record::Heard { command } => {
                if let Stage::Launched(live) = &mut self.entries[*command].stage {
                    live.heard = true;
                }
            }
            Record::Again { command, why } => self.apply_again(now, *command, *why),
            Record::End { command, end, last } => {
                if *end == CommandEnd::Preempted {
                    self.progress.preemptions += 1;
                }
                if *end != CommandEnd::Finished {
                    self.entries[*command].last = Some(Box::new(last.clone()));
                }
                self.enter(*command, Stage::Ended(*end));
            }
        }
        Ok(())
    }

    fn apply_again(&mut self, now: Timestamp, command: usize, why: Again) {
        let entry = &mut self.entries[command];
        let mut wait_ms = 0;
        match why {
            Again::Retry => {
                entry.retries += 1;
                self.progress.retries += 1;
                wait_ms = entry.again.next_bound_ms();
            }
            Again::Preemption => {
                entry.preemptions += 1;
                self.progress.preemptions += 1;
            }
            Again::Drop => {
                // The first drop is usual: the offer was withdrawn at the same moment.
                if entry.drops > 0 {
                    wait_ms = entry.again.next_bound_ms();
                }
                entry.drops += 1;
                self.progress.drops += 1;
            }
        }
        let ready_at = now.plus_ms(wait_ms);
        self.enter(command, Stage::Waiting { ready_at });
    }

    /// Notes what a status says of a live task.
    pub(super) fn note(&mut self, index: usize, status: &TaskStatus, now: Timestamp) {
        let Some(entry) = self.entries.get_mut(index) else {
            return;
        };
        let Stage::Launched(live) = &entry.stage else {
            return;
        };
        let mut live = live.clone();
        live.state = status.state;
        if status.state == TaskState::Running {
            live.running_since.get_or_insert(status.timestamp);
        }
        if status.state == TaskState::Unknown {
            live.unknown_since.get_or_insert(now);
        } else {
            live.unknown_since = None;
        }
        if status.state.is_terminal()
            && let Some(since) = live.running_since
        {
            self.running_ms += status.timestamp.ms_since(since);
        }
        self.enter(index, Stage::Launched(live));
    }

    /// The task of a command that is launched.
    pub(super) fn live_task(&self, index: usize) -> Option<&Live> {
        match &self.entries.get(index)?.stage {
            Stage::Launched(live) => Some(live),
            _ => None,
        }
    }
}
