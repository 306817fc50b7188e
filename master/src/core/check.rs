//! The invariants of the core, added up anew from what it holds.
//!
//! A debug build checks them after every step while little is held, and after every so many steps
//! when much is; the simulator calls [`Core::check`] and [`Core::check_ledger`] itself.

use std::collections::BTreeMap;

use ebb_types::{AgentId, Resources};

use super::limits::{CHECK_ALWAYS_BELOW, CHECK_EVERY};
use super::record::Activity;
use super::state::{Absence, Core, Holding, Part};
use crate::allocator::Proposal;
use crate::ledger::AgentLedger;

/// An invariant that does not hold: always a fault in Ebb.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the master's books do not add up: {0}")]
pub struct Violation(pub String);

pub(super) fn ensure(holds: bool, what: impl FnOnce() -> String) -> Result<(), Violation> {
    if holds {
        Ok(())
    } else {
        Err(Violation(what()))
    }
}

impl Core {
    /// Checks every invariant that the core can check by itself.
    ///
    /// # Errors
    /// [`Violation`] says what does not hold.
    pub fn check(&self) -> Result<(), Violation> {
        self.check_connections()?;
        self.check_offers()?;
        self.check_tasks()?;
        self.check_holdings()?;
        self.check_withheld()?;
        self.check_constraints()?;
        self.check_maintenance()?;
        self.check_lots()?;
        self.check_operations()?;
        self.check_absent()
    }

    /// Checks the core's accounts against the ledger. `in_flight` are proposals that the allocator
    /// has made and the core has not been told of.
    ///
    /// # Errors
    /// [`Violation`] names the first agent on which they differ.
    pub fn check_ledger<'a>(
        &self,
        ledger: impl Fn(&AgentId) -> Option<AgentLedger>,
        in_flight: impl IntoIterator<Item = &'a Proposal>,
    ) -> Result<(), Violation> {
        let mut proposed: BTreeMap<_, Resources> = BTreeMap::new();
        for proposal in in_flight {
            let sum = proposed.entry(proposal.incarnation).or_default();
            *sum = sum.saturating_add(&proposal.resources);
        }
        for (id, agent) in &self.agents {
            let ledger = ledger(id);
            ensure(ledger.is_some() == agent.in_ledger, || {
                format!(
                    "agent {id} in the ledger: {}, but {ledger:?}",
                    agent.in_ledger
                )
            })?;
            let Some(ledger) = ledger else { continue };
            let extra = proposed
                .get(&agent.registration)
                .copied()
                .unwrap_or_default();
            let offered = agent.holding.offered.saturating_add(&extra);
            let agrees = ledger.incarnation == agent.registration
                && ledger.total == agent.info.total
                && ledger.oversubscribed == agent.oversubscribed
                && ledger.offered == offered
                && ledger.allocated == agent.holding.allocated;
            ensure(agrees, || {
                format!(
                    "agent {id}: {ledger:?}, but offered {offered}, {:?}",
                    agent.holding
                )
            })?;
        }
        Ok(())
    }

    /// How much is held in all; decides how often a debug build checks.
    fn size(&self) -> usize {
        let tasks: usize = self
            .frameworks
            .values()
            .map(|framework| framework.tasks.len())
            .sum();
        self.frameworks.len() + self.agents.len() + self.offers.len() + tasks
    }

    pub(super) fn check_sometimes(&self) {
        if cfg!(debug_assertions)
            && (self.counters.steps.is_multiple_of(CHECK_EVERY) || self.size() < CHECK_ALWAYS_BELOW)
        {
            let checked = self.check();
            assert!(checked.is_ok(), "{checked:?}");
        }
    }

    fn check_withheld(&self) -> Result<(), Violation> {
        for (id, agent) in &self.agents {
            let withheld = self.withheld_of(agent);
            let known = self.roles.withheld(id);
            ensure(known == withheld, || {
                format!("of agent {id} {withheld} cannot be offered, and the book says {known}")
            })?;
        }
        Ok(())
    }

    fn check_connections(&self) -> Result<(), Violation> {
        for (connection, id) in &self.schedulers {
            let back = self
                .frameworks
                .get(id)
                .and_then(|framework| framework.connection);
            ensure(back == Some(*connection), || {
                format!("{connection:?} is not that of {id}")
            })?;
        }
        for (id, framework) in &self.frameworks {
            let known = match framework.connection {
                Some(connection) => self.schedulers.get(&connection) == Some(id),
                None => framework.failover_deadline.is_some() && framework.offers.is_empty(),
            };
            ensure(known, || {
                format!("framework {id} is neither connected nor awaited")
            })?;
            ensure(framework.info.id.as_ref() == Some(id), || {
                format!("{id} has another id")
            })?;
            ensure(
                !self.completed.iter().any(|completed| completed.id == *id),
                || format!("framework {id} is live and completed"),
            )?;
        }
        for (connection, id) in &self.links {
            let back = self.agents.get(id).and_then(|agent| agent.connection);
            ensure(back == Some(*connection), || {
                format!("{connection:?} is not that of {id}")
            })?;
        }
        for (id, agent) in &self.agents {
            let known = agent
                .connection
                .is_none_or(|connection| self.links.get(&connection) == Some(id));
            ensure(known, || {
                format!("the connection of agent {id} is not known")
            })?;
            ensure(!agent.in_ledger || agent.connection.is_some(), || {
                format!("agent {id} is offered from while it is disconnected")
            })?;
            ensure(
                !agent.in_ledger || agent.activity == Activity::Active,
                || {
                    format!(
                        "agent {id} is offered from while it is {:?}",
                        agent.activity
                    )
                },
            )?;
            ensure(agent.info.id.as_ref() == Some(id), || {
                format!("{id} has another id")
            })?;
        }
        Ok(())
    }

    fn check_offers(&self) -> Result<(), Violation> {
        for (id, offer) in &self.offers {
            let framework = self.frameworks.get(&offer.framework_id);
            let agent = self.agents.get(&offer.agent_id);
            let owned = framework.is_some_and(|framework| {
                framework.connection.is_some() && framework.offers.contains(id)
            });
            let backed = agent.is_some_and(|agent| agent.in_ledger && agent.offers.contains(id));
            ensure(owned && backed, || {
                format!("offer {id} has no framework or agent")
            })?;
        }
        let by_framework: usize = self.frameworks.values().map(|f| f.offers.len()).sum();
        let by_agent: usize = self.agents.values().map(|agent| agent.offers.len()).sum();
        ensure(
            by_framework == self.offers.len() && by_agent == self.offers.len(),
            || {
                format!(
                    "{} offers, {by_framework} of frameworks, {by_agent} of agents",
                    self.offers.len()
                )
            },
        )
    }

    fn check_tasks(&self) -> Result<(), Violation> {
        let mut count = 0;
        for (id, framework) in &self.frameworks {
            for (task_id, task) in &framework.tasks {
                count += 1;
                let key = (id.clone(), task_id.clone());
                let placed = self
                    .agents
                    .get(&task.agent_id)
                    .is_some_and(|agent| agent.tasks.contains(&key));
                ensure(placed, || format!("task {task_id} is not on its agent"))?;
                let twice = framework.unreachable.contains(task_id)
                    || framework.completed.contains(task_id);
                ensure(!twice, || {
                    format!("task {task_id} of {id} is in two places")
                })?;
            }
            for (task_id, task) in framework.unreachable.iter() {
                ensure(
                    !task.holds() && !framework.completed.contains(task_id),
                    || format!("stranded task {task_id} holds resources or is in two places"),
                )?;
            }
            for (task_id, task) in framework.completed.iter() {
                ensure(task.state.is_terminal(), || {
                    format!("task {task_id} ended as {:?}", task.state)
                })?;
            }
        }
        let by_agent: usize = self.agents.values().map(|agent| agent.tasks.len()).sum();
        ensure(by_agent == count, || {
            format!("{count} tasks, {by_agent} of agents")
        })
    }

    fn check_holdings(&self) -> Result<(), Violation> {
        let mut by_agent: BTreeMap<&AgentId, Holding> = BTreeMap::new();
        let mut by_owner: BTreeMap<_, Holding> = BTreeMap::new();
        let mut count = |agent_id, owner, part, resources: &Resources| {
            if !resources.is_zero() {
                by_agent.entry(agent_id).or_default().add(part, resources);
                by_owner.entry(owner).or_default().add(part, resources);
            }
        };
        for offer in self.offers.values() {
            let owner = (&offer.framework_id, &offer.role);
            count(&offer.agent_id, owner, Part::Offered, &offer.resources);
        }
        for (id, framework) in &self.frameworks {
            for task in framework.tasks.values().filter(|task| task.holds()) {
                count(
                    &task.agent_id,
                    (id, &task.role),
                    Part::Allocated,
                    &task.resources,
                );
            }
        }
        for (agent_id, agent) in &self.agents {
            for ((framework_id, _), executor) in &agent.executors {
                let owner = (framework_id, &executor.role);
                count(agent_id, owner, Part::Allocated, &executor.info.resources);
            }
        }
        for (id, agent) in &self.agents {
            let mut sum = by_agent.get(id).copied().unwrap_or_default();
            sum.add(Part::Allocated, &agent.remains.sum().0);
            ensure(agent.remains.adds_up(), || {
                format!("of agent {id} remains {:?}", agent.remains)
            })?;
            ensure(sum == agent.holding, || {
                format!("agent {id} holds {:?}, its parts {sum:?}", agent.holding)
            })?;
            ensure(
                !agent.in_ledger
                    || agent.info.total.contains(
                        &agent
                            .holding
                            .offered
                            .regular
                            .saturating_add(&agent.holding.allocated.regular),
                    ),
                || {
                    format!(
                        "agent {id} is promised beyond what it has: {:?}",
                        agent.holding
                    )
                },
            )?;
        }
        for (id, framework) in &self.frameworks {
            for role in framework.holdings.keys().chain(&framework.info.roles) {
                let held = framework.holdings.get(role).copied().unwrap_or_default();
                let sum = by_owner.get(&(id, role)).copied().unwrap_or_default();
                ensure(sum == held, || {
                    format!("{id} in {role} holds {held:?}, its parts {sum:?}")
                })?;
            }
        }
        let owners: usize = self.frameworks.values().map(|f| f.holdings.len()).sum();
        ensure(owners == by_owner.len(), || {
            format!(
                "{owners} holdings of frameworks, {} by their parts",
                by_owner.len()
            )
        })
    }

    fn check_absent(&self) -> Result<(), Violation> {
        let awaited = self
            .absent
            .values()
            .filter(|absent| matches!(absent.absence, Absence::Recovered { .. }))
            .count();
        ensure(awaited == self.awaited, || {
            format!(
                "{awaited} agents are awaited, {} by the count",
                self.awaited
            )
        })?;
        let twice = self.absent.keys().find(|id| self.agents.contains_key(*id));
        ensure(twice.is_none(), || {
            format!("agent {twice:?} is registered and absent")
        })
    }
}
