//! The copy of the books: it follows news, adds up who holds what, and shows itself.
//!
//! Lines never change once they are shown: what is shown shares them, so that showing copies pointers,
//! and only of those kinds of lines in which something has changed since they were shown last.
//!
//! Invariants: an agent's and a framework's sums are those of the offers, tasks and executors that
//! stand in the copy, without what remains on an agent; a task stands in one of the two shelves.

use std::collections::BTreeMap;
use std::sync::Arc;

use ebb_types::{
    AgentId, Change, ExecutorId, FrameworkId, LotLimits, Lots, Machine, MaintenanceState,
    MasterInfo, OfferId, Quota, Resources, Role, TaskId, Timestamp,
};

use super::view::{AgentEntry, FrameworkEntry, OfferEntry, Shown, View};
use crate::core::{
    AgentLine, ClassBook, ExecutorLine, FrameworkLine, Holding, News, OfferRecord, Part, TaskLine,
    holds,
};

/// Lines of one kind, and what was shown of them last, if that still holds.
#[derive(Debug)]
struct Shelf<K, V> {
    lines: BTreeMap<K, Arc<V>>,
    shown: Option<Shown<V>>,
}

impl<K: Ord, V> Shelf<K, V> {
    const fn new() -> Self {
        Self {
            lines: BTreeMap::new(),
            shown: None,
        }
    }

    fn put(&mut self, key: K, line: V) {
        self.shown = None;
        self.lines.insert(key, Arc::new(line));
    }

    fn take(&mut self, key: &K) -> Option<Arc<V>> {
        self.shown = None;
        self.lines.remove(key)
    }

    fn show(&mut self) -> Shown<V> {
        let lines = &self.lines;
        let shown = self
            .shown
            .get_or_insert_with(|| Arc::new(lines.values().cloned().collect()));
        Arc::clone(shown)
    }
}

impl<K: Ord + Clone, V: Clone> Shelf<K, V> {
    /// Changes a line; a new one where there is none. The key is not even counted unless it is new: the
    /// driver holds the same ids, and counting them here as well would slow it down.
    fn change<R>(
        &mut self,
        key: &K,
        new: impl FnOnce() -> V,
        change: impl FnOnce(&mut V) -> R,
    ) -> R {
        self.shown = None;
        if let Some(line) = self.lines.get_mut(key) {
            return change(Arc::make_mut(line));
        }
        let mut line = new();
        let changed = change(&mut line);
        self.lines.insert(key.clone(), Arc::new(line));
        changed
    }
}

/// Tasks by framework.
#[derive(Debug, Default)]
struct TaskShelf {
    lines: BTreeMap<FrameworkId, BTreeMap<TaskId, Arc<TaskLine>>>,
    shown: Option<Shown<TaskLine>>,
}

impl TaskShelf {
    fn put(&mut self, line: Arc<TaskLine>) -> Option<Arc<TaskLine>> {
        self.shown = None;
        let tasks = match self.lines.get_mut(&line.framework_id) {
            Some(tasks) => tasks,
            None => self.lines.entry(line.framework_id.clone()).or_default(),
        };
        tasks.insert(line.task_id.clone(), line)
    }

    fn take(&mut self, framework_id: &FrameworkId, task_id: &TaskId) -> Option<Arc<TaskLine>> {
        let tasks = self.lines.get_mut(framework_id)?;
        let line = tasks.remove(task_id)?;
        if tasks.is_empty() {
            self.lines.remove(framework_id);
        }
        self.shown = None;
        Some(line)
    }

    fn forget(&mut self, framework_id: &FrameworkId) {
        if self.lines.remove(framework_id).is_some() {
            self.shown = None;
        }
    }

    fn show(&mut self) -> Shown<TaskLine> {
        let lines = &self.lines;
        let shown = self.shown.get_or_insert_with(|| {
            let tasks = lines.values().flat_map(BTreeMap::values);
            Arc::new(tasks.cloned().collect())
        });
        Arc::clone(shown)
    }
}

/// Whose resources are counted where.
#[derive(Clone, Copy)]
struct Account<'a> {
    agent_id: &'a AgentId,
    framework_id: &'a FrameworkId,
    role: &'a Role,
    part: Part,
}

/// The copy.
#[derive(Debug)]
pub struct Books {
    master: MasterInfo,
    version: u64,
    agents: Shelf<AgentId, AgentEntry>,
    frameworks: Shelf<FrameworkId, FrameworkEntry>,
    tasks: TaskShelf,
    ended: TaskShelf,
    offers: Shelf<OfferId, OfferEntry>,
    weights: Arc<BTreeMap<Role, u32>>,
    quotas: Arc<BTreeMap<Role, Quota>>,
    lot_limits: Arc<BTreeMap<Role, LotLimits>>,
    windows: Arc<BTreeMap<Machine, MaintenanceState>>,
    classes: Arc<ClassBook>,
    /// What those who watch have yet to be told, if anybody watches.
    changes: Option<Vec<Change>>,
}

impl Books {
    /// A copy of the books of a master that knows nothing.
    pub fn new(master: MasterInfo) -> Self {
        Self {
            master,
            version: 0,
            agents: Shelf::new(),
            frameworks: Shelf::new(),
            tasks: TaskShelf::default(),
            ended: TaskShelf::default(),
            offers: Shelf::new(),
            weights: Arc::default(),
            quotas: Arc::default(),
            lot_limits: Arc::default(),
            windows: Arc::default(),
            classes: Arc::default(),
            changes: None,
        }
    }

    /// Begins anew with everything that there is.
    pub fn start_anew(&mut self, everything: Vec<News>) {
        let changes = self.changes.take();
        *self = Self {
            version: self.version,
            ..Self::new(self.master.clone())
        };
        self.follow(everything);
        self.changes = changes.map(|_| Vec::new());
    }

    /// Follows what has changed.
    pub fn follow(&mut self, news: Vec<News>) {
        self.version += 1;
        for news in news {
            self.take_in(news);
        }
    }

    /// Everything as it is now.
    pub fn show(&mut self, at: Timestamp) -> View {
        View {
            master: self.master.clone(),
            at,
            version: self.version,
            agents: self.agents.show(),
            frameworks: self.frameworks.show(),
            tasks: self.tasks.show(),
            ended: self.ended.show(),
            offers: self.offers.show(),
            weights: Arc::clone(&self.weights),
            quotas: Arc::clone(&self.quotas),
            lot_limits: Arc::clone(&self.lot_limits),
            windows: Arc::clone(&self.windows),
            classes: Arc::clone(&self.classes),
        }
    }

    /// Whether [`Books::changes`] is to say anything.
    pub(crate) fn observe(&mut self, on: bool) {
        self.changes = on.then(|| self.changes.take().unwrap_or_default());
    }

    /// What those who watch are to be told.
    pub(crate) fn changes(&mut self) -> Vec<Change> {
        self.changes
            .as_mut()
            .map(std::mem::take)
            .unwrap_or_default()
    }

    fn tell(&mut self, change: impl FnOnce(&mut Self) -> Option<Change>) {
        if self.changes.is_some()
            && let Some(change) = change(self)
            && let Some(changes) = &mut self.changes
        {
            changes.push(change);
        }
    }

    fn take_in(&mut self, news: News) {
        match news {
            News::Agent(line) => self.put_agent(line),
            News::AgentGone(id) => {
                self.agents.take(&id);
                // The books count what is lost.
                let _lost = Arc::make_mut(&mut self.classes).forget(&id);
                self.tell(|_| Some(Change::AgentRemoved(id)));
            }
            News::Classes(id, at, classes) => {
                let _lost = Arc::make_mut(&mut self.classes).take(&id, at, classes);
            }
            News::ClassBook(book) => self.classes = Arc::new(*book),
            News::Executor(line) => self.put_executor(&line),
            News::ExecutorGone {
                agent_id,
                framework_id,
                executor_id,
            } => self.drop_executor(&agent_id, (framework_id, executor_id)),
            News::Remains(id, resources, lots) => {
                self.agent(&id, |agent| agent.remains = (resources, lots));
            }
            News::Framework(line) => self.put_framework(line),
            News::FrameworkGone(id) => {
                self.frameworks.take(&id);
                self.tell(|_| Some(Change::FrameworkRemoved(id)));
            }
            News::FrameworkForgotten(id) => self.ended.forget(&id),
            News::Task(line) => self.put_task(line),
            News::TaskGone(framework_id, task_id) => {
                let current = self.tasks.take(&framework_id, &task_id);
                let old = current.or_else(|| self.ended.take(&framework_id, &task_id));
                if let Some(old) = old {
                    self.discount_task(&old);
                }
            }
            News::Offer(id, record) => self.put_offer(id, record),
            News::OfferGone(id) => {
                if let Some(offer) = self.offers.take(&id) {
                    let held = (&offer.record.resources, &offer.record.lots);
                    self.count(offer_account(&offer.record), held, false);
                }
            }
            News::Weight(role, weight_milli) => {
                Arc::make_mut(&mut self.weights).insert(role, weight_milli);
            }
            News::Window(line) => {
                let machine = line.window.machine.clone();
                Arc::make_mut(&mut self.windows).insert(machine, *line);
            }
            News::WindowGone(machine) => {
                Arc::make_mut(&mut self.windows).remove(&machine);
            }
            News::LotLimits(role, limits) => {
                let all = Arc::make_mut(&mut self.lot_limits);
                if limits.is_none() {
                    all.remove(&role);
                } else {
                    all.insert(role, limits);
                }
            }
            News::Quota(role, quota) => {
                let quotas = Arc::make_mut(&mut self.quotas);
                if quota.is_none() {
                    quotas.remove(&role);
                } else {
                    quotas.insert(role, quota);
                }
            }
        }
    }

    fn agent<R>(&mut self, id: &AgentId, change: impl FnOnce(&mut AgentEntry) -> R) -> R {
        let new = || AgentEntry::new(id.clone());
        self.agents.change(id, new, change)
    }

    fn framework<R>(
        &mut self,
        id: &FrameworkId,
        change: impl FnOnce(&mut FrameworkEntry) -> R,
    ) -> R {
        let new = || FrameworkEntry::new(id.clone());
        self.frameworks.change(id, new, change)
    }

    /// Adds to the sums of an agent and of a framework, or takes away.
    fn count(&mut self, account: Account<'_>, held: (&Resources, &Lots), is_more: bool) {
        let (resources, lots) = held;
        if !lots.is_none() {
            self.agent(account.agent_id, |agent| {
                agent.count_lots(account.part, lots, is_more);
            });
            let charged = lots.charged();
            self.framework(account.framework_id, |framework| {
                match is_more {
                    true => framework.lots_held.add(account.role, lots),
                    false => framework.lots_held.sub(account.role, lots),
                }
                let sum = framework.charged.entry(account.role.clone()).or_default();
                *sum = match is_more {
                    true => sum.saturating_add(&charged),
                    false => sum.saturating_sub(&charged),
                };
            });
        }
        if resources.is_zero() {
            return;
        }
        let (role, part) = (account.role, account.part);
        self.agent(account.agent_id, |agent| match is_more {
            true => agent.holding.add(part, resources),
            false => agent.holding.sub(part, resources),
        });
        self.framework(account.framework_id, |framework| {
            let holdings = &mut framework.holdings;
            match holdings.get_mut(role) {
                Some(holding) if is_more => holding.add(part, resources),
                Some(holding) => {
                    holding.sub(part, resources);
                    if holding.is_zero() {
                        holdings.remove(role);
                    }
                }
                None => {
                    debug_assert!(is_more, "what was not counted is taken away");
                    let mut holding = Holding::default();
                    holding.add(part, resources);
                    holdings.insert(role.clone(), holding);
                }
            }
        });
    }

    fn put_agent(&mut self, line: Arc<AgentLine>) {
        let told = Arc::clone(&line);
        self.agent(&told.id, |agent| agent.line = Some(line));
        self.tell(|books| {
            let state = books.agent(&told.id, |agent| agent.state())?;
            Some(Change::AgentUpdated(Box::new(state)))
        });
    }

    fn put_framework(&mut self, line: Arc<FrameworkLine>) {
        let told = Arc::clone(&line);
        self.framework(&told.id, |framework| framework.line = Some(line));
        self.tell(|books| {
            let state = books.framework(&told.id, |framework| framework.state())?;
            Some(Change::FrameworkUpdated(Box::new(state)))
        });
    }

    fn put_executor(&mut self, line: &ExecutorLine) {
        let key = (line.framework_id.clone(), line.executor_id.clone());
        let held = (line.role.clone(), line.resources, line.lots.clone());
        let old = self.agent(&line.agent_id, |agent| agent.executors.insert(key, held));
        debug_assert!(old.is_none(), "an executor came twice");
        let account = Account {
            agent_id: &line.agent_id,
            framework_id: &line.framework_id,
            role: &line.role,
            part: Part::Allocated,
        };
        self.count(account, (&line.resources, &line.lots), true);
    }

    fn drop_executor(&mut self, agent_id: &AgentId, key: (FrameworkId, ExecutorId)) {
        let held = self.agent(agent_id, |agent| agent.executors.remove(&key));
        let Some((role, resources, lots)) = held else {
            return;
        };
        let account = Account {
            agent_id,
            framework_id: &key.0,
            role: &role,
            part: Part::Allocated,
        };
        self.count(account, (&resources, &lots), false);
    }

    fn put_offer(&mut self, id: OfferId, record: OfferRecord) {
        let held = (&record.resources, &record.lots);
        self.count(offer_account(&record), held, true);
        self.offers.put(id.clone(), OfferEntry { id, record });
    }

    fn put_task(&mut self, line: Arc<TaskLine>) {
        let (shelf, other) = match line.is_ended {
            false => (&mut self.tasks, &mut self.ended),
            true => (&mut self.ended, &mut self.tasks),
        };
        let moved = other.take(&line.framework_id, &line.task_id);
        let old = shelf.put(Arc::clone(&line)).or(moved);
        if let Some(old) = &old {
            self.discount_task(old);
        }
        if holds(line.state) {
            self.count(task_account(&line), (&line.resources, &line.lots), true);
            self.framework(&line.framework_id, |framework| framework.live_tasks += 1);
        }
        self.tell(|_| line.change(old.as_deref()));
    }

    fn discount_task(&mut self, old: &TaskLine) {
        if holds(old.state) {
            self.count(task_account(old), (&old.resources, &old.lots), false);
            self.framework(&old.framework_id, |framework| framework.live_tasks -= 1);
        }
    }
}

const fn offer_account(offer: &OfferRecord) -> Account<'_> {
    Account {
        agent_id: &offer.agent_id,
        framework_id: &offer.framework_id,
        role: &offer.role,
        part: Part::Offered,
    }
}

const fn task_account(task: &TaskLine) -> Account<'_> {
    Account {
        agent_id: &task.agent_id,
        framework_id: &task.framework_id,
        role: &task.role,
        part: Part::Allocated,
    }
}
