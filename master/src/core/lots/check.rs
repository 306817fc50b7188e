//! The invariants of lots, added up anew.

use std::collections::BTreeMap;

use ebb_types::{AgentId, FrameworkId, Lots, Quantities, Role};

use super::NamedSums;
use crate::core::check::{Violation, ensure};
use crate::core::drf::{Class, Sums};
use crate::core::state::Core;

/// What somebody is charged with.
#[derive(Default)]
struct Charged {
    plain: Quantities,
    named: BTreeMap<String, u128>,
}

impl Core {
    pub(in crate::core) fn check_lots(&self) -> Result<(), Violation> {
        let mut held: BTreeMap<&AgentId, [Lots; 2]> = BTreeMap::new();
        let mut charged: BTreeMap<(&FrameworkId, &Role), Charged> = BTreeMap::new();
        let mut counted = NamedSums::default();
        let mut parts = Vec::new();
        let refusals: usize = self.lots.refusals.values().map(BTreeMap::len).sum();
        ensure(refusals == self.lots.refusal_count, || {
            format!(
                "{refusals} refusals of lots, {} by the count",
                self.lots.refusal_count
            )
        })?;
        for offer in self.offers.values() {
            let owner = (&offer.framework_id, &offer.role);
            parts.push((&offer.agent_id, owner, 0, &offer.lots));
        }
        for (id, framework) in &self.frameworks {
            for task in framework.tasks.values().filter(|task| task.holds()) {
                parts.push((&task.agent_id, (id, &task.role), 1, &task.lots));
            }
        }
        for (agent_id, agent) in &self.agents {
            for ((framework_id, _), executor) in &agent.executors {
                let owner = (framework_id, &executor.role);
                parts.push((agent_id, owner, 1, &executor.lots));
            }
            held.entry(agent_id).or_default()[1] = agent.remains.sum().1.clone();
        }
        for (agent_id, owner, part, lots) in parts {
            if lots.is_none() {
                continue;
            }
            counted.add(owner.1, lots);
            let sums = held.entry(agent_id).or_default();
            let sum = sums[part].checked_add(lots);
            ensure(sum.is_some(), || {
                format!("{lots} of agent {agent_id} are held twice")
            })?;
            sums[part] = sum.unwrap_or_default();
            let of = charged.entry(owner).or_default();
            of.plain = of.plain.saturating_add(&lots.charged());
            for (name, amount) in lots.named_amounts() {
                *of.named.entry(name).or_default() += u128::from(amount);
            }
        }
        self.agents
            .values()
            .for_each(|agent| counted.add_reserved(&agent.unowned_lots()));
        ensure(counted == self.lots.counted, || {
            let known = &self.lots.counted;
            format!("towards limits of lots counts {counted:?}, by the count {known:?}")
        })?;
        self.check_lot_accounts(&held)?;
        self.check_charged(&charged)
    }

    fn check_lot_accounts(&self, held: &BTreeMap<&AgentId, [Lots; 2]>) -> Result<(), Violation> {
        let mut reserved: BTreeMap<Role, Quantities> = BTreeMap::new();
        for (id, agent) in &self.agents {
            let [offered, allocated] = held.get(id).cloned().unwrap_or_default();
            let account = &agent.lots;
            ensure(
                offered == account.offered && allocated == account.allocated,
                || format!("agent {id} holds {account:?}, its parts {offered} and {allocated}"),
            )?;
            let free = agent.free_lots();
            let all = offered.checked_add(&allocated);
            let adds_up = all.as_ref().is_some_and(|all| {
                let owned = all.only(|key| !key.shared);
                let whole = free.checked_add(&owned);
                agent.info.lots.covers(all) && whole.as_ref() == Some(&agent.info.lots)
            });
            ensure(!agent.in_ledger || adds_up, || {
                let total = &agent.info.lots;
                format!(
                    "agent {id} has {total}, but {offered} offered, {allocated} allocated and {free} free"
                )
            })?;
            let unowned = agent.unowned_lots();
            ensure(account.noted == unowned, || {
                format!(
                    "of agent {id} {unowned} are nobody's, and the book knows {}",
                    account.noted
                )
            })?;
            for (role, amount) in super::reserved_by_role(&unowned) {
                let sum = reserved.entry(role).or_default();
                *sum = sum.saturating_add(&amount);
            }
        }
        ensure(reserved == self.lots.reserved, || {
            format!(
                "{reserved:?} is reserved and nobody's, by the count {:?}",
                self.lots.reserved
            )
        })
    }

    /// The book of claims counts what everybody holds, lots included.
    fn check_charged(
        &self,
        charged: &BTreeMap<(&FrameworkId, &Role), Charged>,
    ) -> Result<(), Violation> {
        let nothing = Charged::default();
        for (id, framework) in &self.frameworks {
            for role in framework.holdings.keys().chain(&framework.info.roles) {
                let holding = framework.holdings.get(role).copied().unwrap_or_default();
                let mut sum = Sums::default();
                sum.add(&holding.offered.regular);
                sum.add(&holding.allocated.regular);
                let charged = charged.get(&(id, role)).unwrap_or(&nothing);
                sum.add(&charged.plain);
                let standing = self.roles.standing(id, role);
                ensure(*standing.held(Class::Regular) == sum, || {
                    format!("{id} in {role} holds {sum:?}, the book says {standing:?}")
                })?;
                let named = self.roles.named_held(id, role);
                ensure(named == charged.named, || {
                    let held = &charged.named;
                    format!("{id} in {role} holds {held:?}, the book says {named:?}")
                })?;
            }
        }
        Ok(())
    }
}
