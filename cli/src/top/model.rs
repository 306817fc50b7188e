//! The state behind `ebb top`: changes in, a view out. Pure: the time is an argument.
//!
//! **Invariants.** Only live tasks are kept. A report counts as measured until [`STALE_AFTER_MS`]
//! after it was heard here (the agent's own clock is not compared with ours); then its figures are
//! absent, not frozen. A report's corrections are taken once, however often its agent's state is
//! repeated. At most [`MAX_CORRECTIONS`] corrections are remembered; all are counted.

use std::collections::{BTreeMap, VecDeque};

use ebb_types::{
    AgentId, AgentState, AgentStatus, AgentUsage, Change, ClusterState, Correction, FrameworkId,
    TaskKey, TaskRecord, TaskUsage, Timestamp,
};

use super::view::{AgentRow, Amount, TaskRow, View};
use crate::resolve::Cluster;

/// A report that is older than this is no measurement any more, in milliseconds.
pub(crate) const STALE_AFTER_MS: u64 = 5_000;
/// How many of the latest corrections are remembered.
pub(crate) const MAX_CORRECTIONS: usize = 8;

/// An agent, and when its report was heard.
#[derive(Clone, Debug)]
struct Agent {
    state: AgentState,
    heard_at: Timestamp,
}

/// What the changes so far have told.
#[derive(Clone, Debug, Default)]
pub(crate) struct Model {
    cluster: Cluster,
    master_id: String,
    agents: BTreeMap<AgentId, Agent>,
    frameworks: BTreeMap<FrameworkId, String>,
    tasks: BTreeMap<TaskKey, TaskRecord>,
    corrections: VecDeque<Correction>,
    corrections_total: u64,
}

impl Model {
    /// Takes one change that was heard at `now`.
    pub(crate) fn apply(&mut self, change: Change, now: Timestamp) {
        match change {
            Change::Snapshot(state) => self.reset(*state, now),
            Change::TaskAdded(task) => self.put_task(*task),
            Change::TaskUpdated {
                framework_id,
                status,
            } => {
                let key = (framework_id, status.task_id.clone());
                if status.state.is_terminal() {
                    self.tasks.remove(&key);
                } else if let Some(task) = self.tasks.get_mut(&key) {
                    task.state = status.state;
                }
            }
            Change::AgentUpdated(agent) => self.put_agent(*agent, now),
            Change::AgentRemoved(id) => {
                self.agents.remove(&id);
            }
            Change::FrameworkUpdated(framework) => {
                self.frameworks.insert(framework.id, framework.info.name);
            }
            Change::FrameworkRemoved(id) => {
                self.frameworks.remove(&id);
                self.tasks
                    .retain(|(framework_id, _), _| *framework_id != id);
            }
            Change::Heartbeat => {}
        }
    }

    /// Everything anew: after a first connection, or another one.
    fn reset(&mut self, state: ClusterState, now: Timestamp) {
        self.cluster = Cluster::of_master(&state.master.id);
        self.master_id = state.master.id;
        let frameworks = state.frameworks.into_iter();
        self.frameworks = frameworks.map(|f| (f.id, f.info.name)).collect();
        self.tasks.clear();
        state.tasks.into_iter().for_each(|task| self.put_task(task));
        self.agents
            .retain(|id, _| state.agents.iter().any(|agent| agent.id == *id));
        for agent in state.agents {
            self.put_agent(agent, now);
        }
    }

    fn put_task(&mut self, task: TaskRecord) {
        let key = (task.framework_id.clone(), task.task_id.clone());
        if task.state.is_terminal() {
            self.tasks.remove(&key);
        } else {
            self.tasks.insert(key, task);
        }
    }

    fn put_agent(&mut self, state: AgentState, now: Timestamp) {
        let at = |usage: &Option<AgentUsage>| usage.as_ref().map(|usage| usage.at);
        let known = self.agents.get(&state.id);
        let is_news = known.is_none_or(|known| at(&known.state.usage) != at(&state.usage));
        let heard_at = match known {
            Some(known) if !is_news => known.heard_at,
            _ => now,
        };
        if is_news && let Some(usage) = &state.usage {
            self.corrections_total += usage.corrections.len() as u64;
            for correction in &usage.corrections {
                if self.corrections.len() == MAX_CORRECTIONS {
                    self.corrections.pop_front();
                }
                self.corrections.push_back(correction.clone());
            }
        }
        self.agents
            .insert(state.id.clone(), Agent { state, heard_at });
    }

    /// What there is to see at `now`; `trouble` is why no changes come for now.
    pub(crate) fn view(&self, now: Timestamp, trouble: Option<&str>) -> View {
        let mut tasks: Vec<TaskRow> = self
            .tasks
            .values()
            .map(|task| self.task_row(task, now))
            .collect();
        tasks.sort_by(|a, b| {
            let key = |row: &TaskRow| std::cmp::Reverse(row.used_cpu_milli);
            key(a)
                .cmp(&key(b))
                .then_with(|| (&a.framework_id, &a.task_id).cmp(&(&b.framework_id, &b.task_id)))
        });
        View {
            at_ms: now.as_ms(),
            master_id: self.master_id.clone(),
            trouble: trouble.map(ToOwned::to_owned),
            agents: self
                .agents
                .values()
                .map(|agent| self.agent_row(agent, now))
                .collect(),
            tasks,
            corrections: self.corrections.iter().map(Into::into).collect(),
            corrections_total: self.corrections_total,
            notes: self
                .corrections
                .iter()
                .map(crate::commands::details::correction)
                .collect(),
        }
    }

    /// An agent's last report, unless it is too old to be one.
    fn usage(agent: &Agent, now: Timestamp) -> Option<&AgentUsage> {
        let is_fresh = now.ms_since(agent.heard_at) <= STALE_AFTER_MS
            && agent.state.status == AgentStatus::Registered;
        agent.state.usage.as_ref().filter(|_| is_fresh)
    }

    fn agent_row(&self, agent: &Agent, now: Timestamp) -> AgentRow {
        let state = &agent.state;
        let usage = Self::usage(agent, now);
        let tasks = usage.map_or(&[][..], |usage| &usage.tasks);
        // A sum of no tasks is 0; a sum of tasks of which none was measured is absent.
        let used = |revocable: bool, figure: fn(&TaskUsage) -> Option<u64>| {
            let mut of_kind = tasks
                .iter()
                .filter(|task| task.allocated.is_revocable() == revocable);
            let none = usage.is_some() && of_kind.clone().next().is_none();
            of_kind
                .try_fold(none.then_some(0_u64), |sum, task| {
                    Some(
                        figure(task)
                            .map_or(sum, |used| Some(sum.unwrap_or(0).saturating_add(used))),
                    )
                })
                .flatten()
        };
        let cpu: fn(&TaskUsage) -> Option<u64> = |task| task.used.cpu_milli;
        let mem: fn(&TaskUsage) -> Option<u64> = |task| task.used.mem_bytes;
        let on_it = |task: &&TaskRecord| task.agent_id == state.id;
        AgentRow {
            id: state.id.to_string(),
            short_id: self.cluster.short(state.id.as_str()).to_owned(),
            hostname: state.info.hostname.clone(),
            status: state.status.name(),
            status_kind: state.status,
            measured: usage.is_some(),
            tasks: self.tasks.values().filter(on_it).count(),
            cpu_milli: Amount {
                total: state.info.total.cpu_milli(),
                allocated: state.allocated.regular.cpu_milli(),
                used: used(false, cpu),
                lent: state.oversubscribed.cpu_milli(),
                lent_allocated: state.allocated.revocable.cpu_milli(),
                lent_used: used(true, cpu),
                machine_used: usage.and_then(|usage| usage.machine_cpu_milli),
            },
            mem_bytes: Amount {
                total: state.info.total.mem_bytes(),
                allocated: state.allocated.regular.mem_bytes(),
                used: used(false, mem),
                lent: state.oversubscribed.mem_bytes(),
                lent_allocated: state.allocated.revocable.mem_bytes(),
                lent_used: used(true, mem),
                machine_used: usage.and_then(|usage| usage.machine_mem_bytes),
            },
            taken_back_cpu_milli: usage.map(|usage| usage.taken_back_cpu_milli),
        }
    }

    fn task_row(&self, task: &TaskRecord, now: Timestamp) -> TaskRow {
        let usage = self
            .agents
            .get(&task.agent_id)
            .and_then(|agent| Self::usage(agent, now))
            .and_then(|usage| {
                let is_it = |usage: &&TaskUsage| {
                    usage.task_id == task.task_id && usage.framework_id == task.framework_id
                };
                usage.tasks.iter().find(is_it)
            });
        let used = usage.map(|usage| usage.used).unwrap_or_default();
        let framework = self.frameworks.get(&task.framework_id);
        TaskRow {
            framework_id: task.framework_id.to_string(),
            framework: framework.cloned().unwrap_or_default(),
            task_id: task.task_id.to_string(),
            name: task.name.clone(),
            agent_id: task.agent_id.to_string(),
            short_agent_id: self.cluster.short(task.agent_id.as_str()).to_owned(),
            state: task.state.name(),
            state_kind: task.state,
            revocable: task.resources.is_revocable(),
            allocated: (&task.resources).into(),
            allocated_cpu_milli: task.resources.total(ebb_types::ResourceKind::Cpus),
            allocated_mem_bytes: task.resources.total(ebb_types::ResourceKind::Mem),
            used_cpu_milli: used.cpu_milli,
            used_mem_bytes: used.mem_bytes,
            used_disk_bytes_per_s: used.disk_bytes_per_s,
            run_queue_p99_ns: used.run_queue_p99_ns,
            cpu_source: usage.map(|usage| usage.sources.cpu.name()),
            throttled_to_milli: usage.and_then(|usage| usage.throttled_to_milli),
            frozen: usage.is_some_and(|usage| usage.frozen),
        }
    }
}

#[cfg(test)]
#[path = "model_tests.rs"]
mod tests;
