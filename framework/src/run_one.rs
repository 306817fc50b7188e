//! One command on the first offer that holds it, for `ebb run` and for everybody who wants no more.
//!
//! A launch that certainly never started (TASK_DROPPED: the offer was withdrawn at the same moment)
//! is made again under another task id; whatever else ends the task is its end.

use std::sync::{Arc, Mutex, PoisonError};

use ebb_types::{
    AgentId, ExitStatus, Filters, FrameworkId, Offer, Resources, Role, Source, TaskId, TaskState,
    TaskStatus,
};
use tokio::sync::{mpsc, watch};

use crate::command::{CommandSpec, stamp, stem};
use crate::fate::{Fate, fate, is_heard};
use crate::offers::{Claim, Demand, fit, lacking};
use crate::scheduler::{
    Calls, Driver, DriverError, Handle, Outcome, Scheduler, SchedulerConfig, Subscribed,
};

/// Most events that wait for a slow reader. Statuses that find no room are not acknowledged and come
/// again; other events are left out.
pub const MAX_RUN_EVENTS: usize = 256;
/// How long the command outlives this process, in milliseconds: time enough for a new connection.
pub const RUN_FAILOVER_MS: u64 = 60_000;
/// Most launches of one command that certainly never started.
pub const MAX_RUN_DROPS: u32 = 100;

/// How to run one command.
#[derive(Clone, Debug)]
pub struct RunConfig {
    /// Addresses of masters, `host:port`.
    pub masters: Vec<String>,
    /// Display name of the framework and its task.
    pub name: String,
    /// The role whose offers it uses.
    pub role: Role,
    /// The account to run as unless the command says otherwise; empty means the agent's.
    pub user: String,
    /// The command.
    pub command: CommandSpec,
    /// What it wants.
    pub demand: Demand,
    /// A hard ceiling on CPU, in thousandths of a core.
    pub cpu_limit_milli: Option<u64>,
    /// The task is killed after so long, in milliseconds.
    pub max_completion_ms: Option<u64>,
    /// Time between the polite and the forced kill, in milliseconds.
    pub kill_grace_ms: Option<u64>,
    /// Without a subscription after so long it is given up, in milliseconds; unset means never.
    pub give_up_after_ms: Option<u64>,
}

/// What happens to the command.
#[derive(Clone, Debug)]
pub enum RunEvent {
    /// The framework is in, for the first time or anew.
    Subscribed {
        /// Its id.
        framework_id: FrameworkId,
    },
    /// Offers came, but none holds the command; said once for each different lack.
    Waiting {
        /// What lacks in the best of them, as a sentence.
        reason: String,
    },
    /// An offer was accepted.
    Launched {
        /// Names the task.
        task_id: TaskId,
        /// Where it runs.
        agent_id: AgentId,
        /// The agent's host name.
        hostname: String,
    },
    /// A state of the task.
    Status(TaskStatus),
    /// The connection to the master broke; it is being made anew.
    Disconnected {
        /// Why.
        cause: String,
    },
    /// The task has ended. The framework stays until [`RunHandle::close`], so that its sandbox can be
    /// read.
    Ended {
        /// Its last status.
        status: TaskStatus,
    },
    /// The framework is over before the task was; the last event.
    Failed(Arc<DriverError>),
}

impl RunEvent {
    /// The exit code that a shell would give for the end of a task: the code itself, 128 and the
    /// signal's number, or 1 where it ended without either.
    pub fn exit_code(status: &TaskStatus) -> u8 {
        match status.exit {
            Some(ExitStatus::Code(code)) => u8::try_from(code & 0xff).unwrap_or(1),
            Some(ExitStatus::Signal(signal)) => u8::try_from(128 + (signal & 0x7f)).unwrap_or(255),
            None => u8::from(status.state != TaskState::Finished),
        }
    }
}

/// A kill that was asked for, with its grace in milliseconds.
type KillOrder = Arc<Mutex<Option<Option<u64>>>>;

/// Ends the command or the framework.
#[derive(Clone, Debug)]
pub struct RunHandle {
    driver: Handle,
    kill: KillOrder,
    done: watch::Receiver<bool>,
}

impl RunHandle {
    /// Kills the task, or gives up waiting for an offer. The end is still reported.
    pub async fn kill(&self, grace_ms: Option<u64>) {
        *self.kill.lock().unwrap_or_else(PoisonError::into_inner) = Some(grace_ms);
        self.driver.wake();
    }

    /// Ends the framework, and with it the task if it still lives, and waits until the master was
    /// told.
    pub async fn close(mut self) {
        self.driver.teardown().await;
        // An error means that the driver's task is gone, which is what is waited for.
        let _ = self.done.wait_for(|done| *done).await;
    }
}

/// Starts one command. Must be called within a tokio runtime; the events end after
/// [`RunEvent::Ended`] and [`RunHandle::close`], or after [`RunEvent::Failed`].
pub fn run_command(config: RunConfig) -> (RunHandle, mpsc::Receiver<RunEvent>) {
    let (events, receiver) = mpsc::channel(MAX_RUN_EVENTS);
    let (finished, done) = watch::channel(false);
    let kill = KillOrder::default();
    let mut scheduler = SchedulerConfig::new(config.masters.clone(), &config.name);
    scheduler.info.roles = vec![config.role.clone()];
    scheduler.info.user.clone_from(&config.user);
    scheduler.info.failover_timeout_ms = RUN_FAILOVER_MS;
    scheduler.timing.give_up_after_ms = config.give_up_after_ms;
    if config.demand.claim != Claim::Regular {
        scheduler = scheduler.revocable();
    }
    let one = RunOne::new(config, events.clone(), Arc::clone(&kill));
    let driver = Driver::new(one, scheduler);
    let handle = RunHandle {
        driver: driver.handle(),
        kill,
        done,
    };
    tokio::spawn(async move {
        if let Err(error) = driver.run().await {
            // Nobody reads any more: there is nobody to tell.
            let _ = events.send(RunEvent::Failed(Arc::new(error))).await;
        }
        finished.send_replace(true);
    });
    (handle, receiver)
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Stage {
    Waiting,
    Launched { task_id: TaskId, agent_id: AgentId },
    Ended,
}

struct RunOne {
    config: RunConfig,
    wanted: Resources,
    events: mpsc::Sender<RunEvent>,
    kill: KillOrder,
    stage: Stage,
    drops: u32,
    /// Whether the present task is known to have reached its agent.
    heard: bool,
    said_lack: Option<Resources>,
}

impl RunOne {
    fn new(config: RunConfig, events: mpsc::Sender<RunEvent>, kill: KillOrder) -> Self {
        Self {
            wanted: config.demand.resources(),
            config,
            events,
            kill,
            stage: Stage::Waiting,
            drops: 0,
            heard: false,
            said_lack: None,
        }
    }

    fn is_killed(&self) -> bool {
        let order = self.kill.lock().unwrap_or_else(PoisonError::into_inner);
        order.is_some()
    }

    /// Says something that may be left out when nobody reads.
    fn say(&self, event: RunEvent) {
        if self.events.try_send(event).is_err() {
            tracing::warn!("an event of the command was left out: its reader is too slow or gone");
        }
    }

    fn launch(&mut self, calls: &mut Calls, offer: &Offer) -> Outcome {
        let stamp = stamp(calls.now().as_ms());
        let task_id = TaskId::new(format!(
            "{}-{stamp}.{}",
            stem(&self.config.name),
            self.drops
        ))?;
        let mut task = self.config.command.to_task(
            task_id.clone(),
            offer.agent_id.clone(),
            &self.config.demand,
        );
        task.name.clone_from(&self.config.name);
        task.cpu_limit_milli = self.config.cpu_limit_milli;
        task.max_completion_ms = self.config.max_completion_ms;
        task.kill_grace_ms = self.config.kill_grace_ms;
        self.say(RunEvent::Launched {
            task_id: task_id.clone(),
            agent_id: offer.agent_id.clone(),
            hostname: offer.hostname.clone(),
        });
        self.stage = Stage::Launched {
            task_id,
            agent_id: offer.agent_id.clone(),
        };
        calls.launch(offer, vec![task]);
        calls.suppress(Vec::new());
        Ok(())
    }

    fn end(&mut self, status: TaskStatus) -> Outcome {
        self.events.try_send(RunEvent::Ended { status })?;
        self.stage = Stage::Ended;
        Ok(())
    }

    fn never_started(&mut self, calls: &mut Calls) {
        self.drops += 1;
        self.heard = false;
        self.stage = Stage::Waiting;
        calls.revive(Vec::new());
    }

    fn say_lack(&mut self, offers: &[Offer]) {
        let least = offers
            .iter()
            .map(|offer| lacking(&self.wanted, offer))
            .min_by_key(|lack| {
                let kinds = lack.regular.iter().count() + lack.revocable.iter().count();
                (kinds, lack.to_string())
            });
        if let Some(lack) = least
            && self.said_lack != Some(lack)
        {
            self.said_lack = Some(lack);
            let reason = format!("no offer holds {}; the best one lacks {lack}", self.wanted);
            self.say(RunEvent::Waiting { reason });
        }
    }
}

impl Scheduler for RunOne {
    fn subscribed(&mut self, _calls: &mut Calls, subscribed: &Subscribed) -> Outcome {
        self.say(RunEvent::Subscribed {
            framework_id: subscribed.framework_id.clone(),
        });
        Ok(())
    }

    fn offers(&mut self, calls: &mut Calls, offers: Vec<Offer>) -> Outcome {
        let chosen = offers
            .iter()
            .position(|offer| self.stage == Stage::Waiting && fit(&self.wanted, offer));
        let rest = offers
            .iter()
            .enumerate()
            .filter(|(index, _)| Some(*index) != chosen)
            .map(|(_, offer)| offer.id.clone())
            .collect();
        match chosen {
            Some(index) => self.launch(calls, &offers[index])?,
            None if self.stage == Stage::Waiting => self.say_lack(&offers),
            None => {}
        }
        calls.decline_all(rest, Filters::default());
        Ok(())
    }

    fn update(&mut self, calls: &mut Calls, status: &TaskStatus) -> Outcome {
        match &self.stage {
            Stage::Launched { task_id, .. } if *task_id == status.task_id => {}
            _ => return Ok(()),
        }
        match fate(status, self.heard) {
            Fate::NeverStarted if self.drops < MAX_RUN_DROPS && !self.is_killed() => {
                self.never_started(calls);
                Ok(())
            }
            Fate::Alive => {
                self.events.try_send(RunEvent::Status(status.clone()))?;
                self.heard |= is_heard(status.state);
                Ok(())
            }
            _ => self.end(status.clone()),
        }
    }

    fn woken(&mut self, calls: &mut Calls) -> Outcome {
        let order = *self.kill.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(grace_ms) = order else {
            return Ok(());
        };
        match &self.stage {
            Stage::Launched { task_id, agent_id } => {
                calls.kill(task_id, Some(agent_id), grace_ms);
                Ok(())
            }
            Stage::Waiting => {
                calls.suppress(Vec::new());
                let task_id = TaskId::new(stem(&self.config.name))?;
                let message = "given up before an offer held it".to_owned();
                self.end(TaskStatus {
                    message,
                    ..TaskStatus::new(task_id, TaskState::Killed, Source::Master, calls.now())
                })
            }
            Stage::Ended => Ok(()),
        }
    }

    fn disconnected(&mut self, _calls: &mut Calls, cause: &str) -> Outcome {
        self.say(RunEvent::Disconnected {
            cause: cause.to_owned(),
        });
        Ok(())
    }
}
