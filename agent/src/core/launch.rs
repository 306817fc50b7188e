//! From the master's order to a container's start.
//!
//! An order either makes a task that is launched, or a task whose only status says why it is not. No
//! order is lost without a status, except those that a status exists for already.

use ebb_types::{
    ContainerId, FrameworkId, Incarnation, Reason, ResourceKind, Resources, TaskInfo, TaskKey,
    TaskState,
};

use super::account::{Holder, Since};
use super::disks::name_devices;
use super::state::{Core, Outbox, Owner, Phase, Task};
use super::updates::{Says, Updates};
use super::{Effect, LaunchOrder, MAX_TASKS, Record};

/// Why a task is not started.
pub(super) struct Refusal {
    pub(super) state: TaskState,
    pub(super) reason: Reason,
    pub(super) message: String,
}

impl Refusal {
    pub(super) fn dropped(reason: Reason, message: impl Into<String>) -> Self {
        Self {
            state: TaskState::Dropped,
            reason,
            message: message.into(),
        }
    }

    fn invalid(message: impl Into<String>) -> Self {
        Self {
            state: TaskState::Error,
            reason: Reason::TaskInvalid,
            message: message.into(),
        }
    }
}

impl Core {
    /// An order to run a task.
    pub(super) fn launch(
        &mut self,
        framework_id: FrameworkId,
        user: String,
        incarnation: Incarnation,
        info: TaskInfo,
        out: &mut Outbox,
    ) {
        let now = self.now;
        let key = (framework_id.clone(), info.task_id.clone());
        if self.tasks.contains_key(&key) {
            self.counters.duplicate_launches += 1;
            return;
        }
        let refusal = self.refusal(incarnation, &key, &info);
        let home = info.executor.as_ref().filter(|_| refusal.is_none());
        let home = home.and_then(|executor| {
            let key = (framework_id.clone(), executor.executor_id.clone());
            self.executors
                .get(&key)
                .map(|known| known.container_id.clone())
        });
        let container_id = home.unwrap_or_else(|| self.next_container_id());
        let own_executor = info.executor.is_some();
        let gpus = match refusal.is_none() && !own_executor {
            true => self.choose_gpus(&info.lots),
            false => Vec::new(),
        };
        let task = Task {
            framework_id,
            user,
            info,
            container_id,
            state: TaskState::Staging,
            phase: match (&refusal, own_executor) {
                (Some(_), _) => Phase::Ended,
                (None, true) => Phase::Queued,
                (None, false) => Phase::Launching,
            },
            ordered_at: now,
            started_at: None,
            ending: None,
            updates: Updates::default(),
            frozen: false,
            gpus,
        };
        out.persist(Record::Task(Box::new(task.record())));
        let (resources, lots) = (task.info.resources, task.info.lots.clone());
        self.tasks.insert(key.clone(), task);
        if let Some(refusal) = refusal {
            self.counters.refused_launches += 1;
            let says = Says::because(refusal.reason, refusal.message);
            self.report(&key, refusal.state, says, now, out);
            return;
        }
        self.hold(&resources);
        self.hold_lots(&lots);
        if own_executor {
            self.give_to_executor(&key, out);
        } else {
            self.start_command(&key, out);
        }
    }

    /// Facts, then the first rule that an order breaks.
    fn refusal(&self, incarnation: Incarnation, key: &TaskKey, info: &TaskInfo) -> Option<Refusal> {
        if incarnation != self.incarnation {
            return Some(Refusal::dropped(
                Reason::AgentRestarted,
                "The agent restarted before the task was started; launch it anew",
            ));
        }
        if self.shutting_down {
            return Some(Refusal::dropped(
                Reason::AgentDisconnected,
                "The agent is being shut down; launch the task elsewhere",
            ));
        }
        if self.agent_id.as_ref() != Some(&info.agent_id) {
            return Some(Refusal::invalid(format!(
                "The task is meant for agent {}, which this is not",
                info.agent_id
            )));
        }
        if info.command.is_some() == info.executor.is_some() {
            return Some(Refusal::invalid(
                "A task has either a command or an executor, and not both",
            ));
        }
        if self.tasks.len() >= MAX_TASKS {
            return Some(Refusal::dropped(
                Reason::ResourcesUnknown,
                format!("The agent knows {MAX_TASKS} tasks, which is the most that it takes"),
            ));
        }
        self.executor_refusal(&key.0, info)
            .or_else(|| self.lacking(&self.needed(&key.0, info)))
            .or_else(|| self.lacking_lots(&key.0, info))
    }

    /// What a task would add to what is held: its own resources and, with the first task of an
    /// executor, those of the executor.
    fn needed(&self, framework_id: &FrameworkId, info: &TaskInfo) -> Resources {
        match &info.executor {
            Some(executor)
                if !self
                    .executors
                    .contains_key(&(framework_id.clone(), executor.executor_id.clone())) =>
            {
                info.resources.saturating_add(&executor.resources)
            }
            _ => info.resources,
        }
    }

    /// Which lots are not there.
    fn lacking_lots(&self, framework_id: &FrameworkId, info: &TaskInfo) -> Option<Refusal> {
        let own = info.executor.as_ref().filter(|executor| {
            let key = (framework_id.clone(), executor.executor_id.clone());
            !self.executors.contains_key(&key)
        });
        let needed = match own {
            None => Some(info.lots.clone()),
            Some(executor) => info.lots.checked_add(&executor.lots),
        };
        let lack = match needed {
            Some(needed) => self.lacks_lots(&needed),
            None => Some(String::from("The task and its executor use the same lots")),
        };
        lack.map(|message| Refusal::dropped(Reason::ResourcesUnknown, message))
    }

    /// Which resources are not there. Revocable ones are held against the whole machine only: what
    /// is lent may have shrunk since the offer, and taking back is the QoS controller's part.
    fn lacking(&self, needed: &Resources) -> Option<Refusal> {
        let (total, all) = (self.plain(), self.config.total);
        let regular = self.held.regular.saturating_add(&needed.regular);
        let revocable = self.held.revocable.saturating_add(&needed.revocable);
        let lacks = |kind: ResourceKind| {
            (needed.regular.get(kind) > 0 && regular.get(kind) > total.get(kind))
                || (needed.revocable.get(kind) > 0 && revocable.get(kind) > all.get(kind))
        };
        let kind = ResourceKind::ALL.into_iter().find(|kind| lacks(*kind))?;
        Some(Refusal::dropped(
            Reason::ResourcesUnknown,
            format!(
                "The task asks for {needed}, but the agent has {total} of which {} is in use: not \
                 enough {}",
                self.held,
                kind.name()
            ),
        ))
    }

    fn start_command(&mut self, key: &TaskKey, out: &mut Outbox) {
        let now = self.now;
        let agent_id = self.agent_id.clone();
        let Some(task) = self.tasks.get(key) else {
            return;
        };
        let Some(command) = task.info.command.clone() else {
            return;
        };
        let mut environment = vec![
            ("EBB_FRAMEWORK_ID".to_owned(), key.0.to_string()),
            ("EBB_TASK_ID".to_owned(), key.1.to_string()),
            ("EBB_CONTAINER_ID".to_owned(), task.container_id.to_string()),
        ];
        environment.extend(agent_id.map(|id| ("EBB_AGENT_ID".to_owned(), id.to_string())));
        self.name_gpus(&task.gpus, &mut environment);
        Self::name_ports(&task.info.lots, &mut environment);
        let devices = name_devices(&task.info.lots, &mut environment);
        let order = LaunchOrder {
            container_id: task.container_id.clone(),
            framework_id: key.0.clone(),
            task_id: Some(key.1.clone()),
            executor_id: None,
            user: command.user.clone().unwrap_or_else(|| task.user.clone()),
            command,
            environment,
            resources: task.info.usable(),
            volumes: self.mounts(&task.info.lots),
            devices,
            cpu_limit_milli: task.info.cpu_limit_milli,
            warn_signal: task.info.warn_signal,
        };
        let container_id = order.container_id.clone();
        let holder = Holder::of_task(key, &task.info.name);
        self.samples
            .container_began(now, &container_id, holder, Since::Launch);
        self.containers
            .insert(container_id, Owner::Task(key.clone()));
        out.effect(Effect::Launch(Box::new(order)));
        self.report(key, TaskState::Starting, Says::default(), now, out);
    }

    pub(super) fn next_container_id(&mut self) -> ContainerId {
        self.container_count += 1;
        let count = self.container_count;
        let text = format!(
            "{}-{}-{count}",
            self.config.container_prefix, self.incarnation.0
        );
        ContainerId::new(text).expect("a valid prefix makes valid container ids")
    }
}
