//! News: what has changed in the books, in order, for those who keep a copy of them to be read.
//!
//! News speak of what stands in the books by itself: agents, frameworks, executors, tasks, offers,
//! weights and quotas. Sums (who holds what) follow from these and are left to the copy. News are small, so that a
//! step costs little more with them than without: what is large is shared, not copied. A copy that
//! begins, or has missed some, starts from [`Core::everything`].
//!
//! Invariant: a copy that has followed all news shows what [`Core::cluster_state`] shows, after every
//! step.

use std::sync::Arc;

use ebb_types::{
    AgentActivity, AgentId, AgentInfo, AgentStatus, AgentUsage, ClassUse, ContainerId, ExecutorId,
    ExecutorInfo, FrameworkId, FrameworkInfo, LotLimits, Lots, Machine, MaintenanceState, OfferId,
    Quantities, Quota, Resources, Role, TaskId, TaskState, TaskStatus, Timestamp,
};

use super::classes::ClassBook;
use super::state::{Agent, Core, Framework, OfferRecord};
use super::task::{Remembered, Task};

/// Most news that room is made for ahead, if there were as many before.
const MAX_ROOM: usize = 16 << 10;

/// One change of the books.
#[derive(Clone, Debug)]
pub enum News {
    /// An agent came, went, or changed.
    Agent(Arc<AgentLine>),
    /// An agent was forgotten.
    AgentGone(AgentId),
    /// An agent has told then what it has seen of classes of tasks.
    Classes(AgentId, Timestamp, Vec<Arc<ClassUse>>),
    /// What all agents have told of them. Only of a copy that begins.
    ClassBook(Box<ClassBook>),
    /// A framework's own executor is on an agent now.
    Executor(Box<ExecutorLine>),
    /// It is no longer.
    ExecutorGone {
        /// Where it was.
        agent_id: AgentId,
        /// Whose it was.
        framework_id: FrameworkId,
        /// The executor.
        executor_id: ExecutorId,
    },
    /// So much is allocated of an agent and nobody's.
    Remains(AgentId, Resources, Lots),
    /// A framework came, lost its scheduler, or changed.
    Framework(Arc<FrameworkLine>),
    /// A framework is completed: it has ended tasks at the most.
    FrameworkGone(FrameworkId),
    /// A completed framework is forgotten, and its ended tasks with it.
    FrameworkForgotten(FrameworkId),
    /// A task came, changed or ended.
    Task(Arc<TaskLine>),
    /// A task is forgotten.
    TaskGone(FrameworkId, TaskId),
    /// An offer was made.
    Offer(OfferId, OfferRecord),
    /// An offer is over.
    OfferGone(OfferId),
    /// A role's weight was set, in thousandths.
    Weight(Role, u32),
    /// A role's quota was set; one that says nothing is none.
    Quota(Role, Quota),
    /// A role has these limits of named lots.
    LotLimits(Role, LotLimits),
    /// A machine's maintenance was scheduled, or changed; without its agents, which follow from the others.
    Window(Box<MaintenanceState>),
    /// A machine's maintenance is over.
    WindowGone(Machine),
}

/// An agent, without what is held of it.
#[derive(Clone, Debug)]
pub struct AgentLine {
    pub(crate) id: AgentId,
    pub(crate) info: Arc<AgentInfo>,
    pub(crate) status: AgentStatus,
    pub(crate) registered_at: Timestamp,
    pub(crate) oversubscribed: Quantities,
    pub(crate) usage: Option<Arc<AgentUsage>>,
    pub(crate) activity: AgentActivity,
}

/// A framework, without what it holds.
#[derive(Clone, Debug)]
pub struct FrameworkLine {
    pub(crate) id: FrameworkId,
    pub(crate) info: FrameworkInfo,
    pub(crate) connected: bool,
    pub(crate) registered_at: Timestamp,
    pub(crate) failover_deadline: Option<Timestamp>,
    pub(crate) suppressed: Vec<Role>,
}

/// An executor of a framework's own.
#[derive(Clone, Debug)]
pub struct ExecutorLine {
    pub(crate) agent_id: AgentId,
    pub(crate) framework_id: FrameworkId,
    pub(crate) executor_id: ExecutorId,
    pub(crate) role: Role,
    pub(crate) resources: Resources,
    pub(crate) lots: Lots,
}

/// A task.
#[derive(Clone, Debug)]
pub struct TaskLine {
    pub(crate) framework_id: FrameworkId,
    pub(crate) task_id: TaskId,
    /// Whether it is only remembered.
    pub(crate) is_ended: bool,
    pub(crate) agent_id: AgentId,
    pub(crate) name: Arc<str>,
    pub(crate) role: Role,
    pub(crate) resources: Resources,
    pub(crate) lots: Lots,
    pub(crate) state: TaskState,
    pub(crate) executor_id: Option<ExecutorId>,
    pub(crate) container_id: Option<ContainerId>,
    pub(crate) statuses: Vec<Arc<TaskStatus>>,
}

impl Core {
    /// Keeps news from now on, or no longer.
    pub fn observe(&mut self, on: bool) {
        self.observed = on;
        self.news.clear();
    }

    /// What has changed since the last call.
    #[must_use]
    pub fn news(&mut self) -> Vec<News> {
        let room = self.news.len().min(MAX_ROOM);
        std::mem::replace(&mut self.news, Vec::with_capacity(room))
    }

    /// The whole books as news, for a copy that begins. Reads everything.
    pub fn everything(&self) -> Vec<News> {
        let mut all: Vec<News> = self
            .weights
            .iter()
            .map(|(role, weight)| News::Weight(role.clone(), *weight))
            .collect();
        let quotas = self.quotas.iter();
        all.extend(quotas.map(|(role, quota)| News::Quota(role.clone(), *quota)));
        let limits = self.lots.limits.iter();
        all.extend(limits.map(|(role, limits)| News::LotLimits(role.clone(), limits.clone())));
        all.extend(self.window_news());
        for (id, framework) in &self.frameworks {
            all.push(News::Framework(Arc::new(framework.line(id))));
            let live = framework.tasks.iter().chain(framework.unreachable.iter());
            all.extend(live.map(|(task_id, task)| task.news(id, task_id, false)));
            all.extend(ended(id, &framework.completed));
        }
        for framework in &self.completed {
            all.extend(ended(&framework.id, &framework.tasks));
        }
        for id in self.agents.keys().chain(self.absent.keys()) {
            all.extend(self.agent_line(id).map(|line| News::Agent(Arc::new(line))));
        }
        for (id, agent) in &self.agents {
            all.extend(agent.executor_news(id));
            if !agent.remains.is_none() {
                let (resources, lots) = agent.remains.sum().clone();
                all.push(News::Remains(id.clone(), resources, lots));
            }
        }
        all.push(News::ClassBook(Box::new(self.classes.clone())));
        let offers = self.offers.iter();
        all.extend(offers.map(|(id, record)| News::Offer(id.clone(), record.clone())));
        all
    }

    /// Notes a change, if anybody wants to know.
    pub(super) fn note(&mut self, news: impl FnOnce() -> News) {
        if self.observed {
            self.news.push(news());
        }
    }

    pub(super) fn agent_changed(&mut self, id: &AgentId) {
        if self.observed
            && let Some(line) = self.agent_line(id)
        {
            self.news.push(News::Agent(Arc::new(line)));
        }
    }

    pub(super) fn framework_changed(&mut self, id: &FrameworkId) {
        if self.observed
            && let Some(framework) = self.frameworks.get(id)
        {
            self.news
                .push(News::Framework(Arc::new(framework.line(id))));
        }
    }

    /// A task that has not been put away has changed.
    pub(super) fn task_changed(&mut self, id: &FrameworkId, task_id: &TaskId) {
        if self.observed
            && let Some(framework) = self.frameworks.get(id)
            && let Some(task) = framework.tasks.get(task_id)
        {
            self.news.push(task.news(id, task_id, false));
        }
    }

    pub(super) fn executor_added(
        &mut self,
        agent_id: &AgentId,
        framework_id: &FrameworkId,
        role: &Role,
        (info, lots): (&ExecutorInfo, &Lots),
    ) {
        self.note(|| {
            News::Executor(Box::new(ExecutorLine {
                agent_id: agent_id.clone(),
                framework_id: framework_id.clone(),
                executor_id: info.executor_id.clone(),
                role: role.clone(),
                resources: info.resources,
                lots: lots.clone(),
            }))
        });
    }

    pub(super) fn executor_gone(
        &mut self,
        agent_id: &AgentId,
        framework_id: &FrameworkId,
        executor_id: &ExecutorId,
    ) {
        self.note(|| News::ExecutorGone {
            agent_id: agent_id.clone(),
            framework_id: framework_id.clone(),
            executor_id: executor_id.clone(),
        });
    }

    fn agent_line(&self, id: &AgentId) -> Option<AgentLine> {
        if let Some(agent) = self.agents.get(id) {
            return Some(AgentLine {
                id: id.clone(),
                info: Arc::clone(&agent.info),
                status: agent.status(),
                registered_at: agent.registered_at,
                oversubscribed: agent.oversubscribed,
                usage: agent.usage.clone(),
                activity: agent.activity.view(),
            });
        }
        let absent = self.absent.get(id)?;
        Some(AgentLine {
            id: id.clone(),
            info: Arc::clone(&absent.info),
            status: absent.absence.status(),
            registered_at: absent.registered_at,
            oversubscribed: Quantities::ZERO,
            usage: None,
            activity: absent.activity.view(),
        })
    }
}

fn ended<'a>(id: &'a FrameworkId, tasks: &'a Remembered) -> impl Iterator<Item = News> + 'a {
    let tasks = tasks.iter();
    tasks.map(|(task_id, task)| task.news(id, task_id, true))
}

impl Agent {
    fn executor_news(&self, id: &AgentId) -> impl Iterator<Item = News> {
        let executors = self.executors.iter();
        executors.map(|((framework_id, executor_id), executor)| {
            News::Executor(Box::new(ExecutorLine {
                agent_id: id.clone(),
                framework_id: framework_id.clone(),
                executor_id: executor_id.clone(),
                role: executor.role.clone(),
                resources: executor.info.resources,
                lots: executor.lots.clone(),
            }))
        })
    }
}

impl Framework {
    fn line(&self, id: &FrameworkId) -> FrameworkLine {
        FrameworkLine {
            id: id.clone(),
            info: self.info.clone(),
            connected: self.connection.is_some(),
            registered_at: self.registered_at,
            failover_deadline: self.failover_deadline,
            suppressed: self.suppressed.iter().cloned().collect(),
        }
    }
}

impl Task {
    pub(super) fn news(&self, id: &FrameworkId, task_id: &TaskId, is_ended: bool) -> News {
        News::Task(Arc::new(TaskLine {
            framework_id: id.clone(),
            task_id: task_id.clone(),
            is_ended,
            agent_id: self.agent_id.clone(),
            name: Arc::clone(&self.name),
            role: self.role.clone(),
            resources: self.resources,
            lots: self.lots.clone(),
            state: self.state,
            executor_id: self.executor_id.clone(),
            container_id: self.container_id.clone(),
            statuses: self.statuses.iter().cloned().collect(),
        }))
    }
}
