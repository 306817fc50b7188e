//! Amounts of what has a name of its own, such as GPUs: what there is in the cluster, and what each node of the tree holds.
//! They count in the dominant share of what is owned as the kinds of [`ebb_types::ResourceKind`] do. Amounts are thousandths.
//!
//! Where nobody holds any they cost a look.

use std::collections::BTreeMap;
use std::sync::Arc;

use ebb_types::{FrameworkId, Role};

use super::{Claims, Entry};
use crate::core::drf::Share;

/// Amounts by name; none is 0, and names rise.
pub type Amounts = Arc<[(String, u64)]>;

/// Sums of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Named(BTreeMap<String, u128>);

impl Named {
    pub(super) fn is_none(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn add(&mut self, amounts: &Amounts) {
        for (name, amount) in amounts.iter() {
            *self.0.entry(name.clone()).or_default() += u128::from(*amount);
        }
    }

    /// Takes away what is in it.
    pub(super) fn take(&mut self, amounts: &Amounts) {
        for (name, amount) in amounts.iter() {
            let sum = self.0.get(name).copied().unwrap_or(0);
            debug_assert!(
                sum >= u128::from(*amount),
                "{amount} of {name} are not in {self:?}"
            );
            match sum.saturating_sub(u128::from(*amount)) {
                0 => self.0.remove(name),
                rest => self.0.insert(name.clone(), rest),
            };
        }
    }

    pub(super) fn add_all(&mut self, other: &Self) {
        for (name, amount) in &other.0 {
            *self.0.entry(name.clone()).or_default() += amount;
        }
    }

    fn contains(&self, amounts: &Amounts) -> bool {
        let mut amounts = amounts.iter();
        amounts.all(|(name, amount)| {
            let sum = self.0.get(name).copied().unwrap_or(0);
            sum >= u128::from(*amount)
        })
    }

    /// The largest share of what the cluster has, divided by the weight (in thousandths, at least 1).
    pub(super) fn share(&self, cluster: &Self, weight_milli: u32) -> Share {
        let shares = self.0.iter().filter_map(|(name, used)| {
            let total = *cluster.0.get(name)?;
            Some(Share::of(*used, total, weight_milli))
        });
        shares.fold(Share::ZERO, std::cmp::max)
    }
}

impl Claims {
    /// Says how much an agent that is known has of what has a name of its own.
    pub fn set_named(&mut self, agent: u32, amounts: Amounts) {
        let known = self.agents.get(agent as usize).and_then(Option::as_ref);
        if known.is_some_and(|known| known.named.as_ref() != &*amounts) {
            self.enter(Entry::Named { agent, amounts });
        }
    }

    pub(super) fn put_named(&mut self, agent: u32, amounts: &Amounts) {
        if let Some(Some(agent)) = self.agents.get_mut(agent as usize) {
            let old = std::mem::replace(&mut agent.named, Arc::clone(amounts));
            self.tree.change_named_totals(&old, amounts);
        }
    }

    /// Counts such amounts as held (offered or allocated) by a framework in a role, which need not be known (yet).
    pub fn charge_named(&mut self, framework_id: &FrameworkId, role: &Role, amounts: Amounts) {
        if amounts.is_empty() {
            return;
        }
        let member = self.take_seat(framework_id, role);
        self.enter(Entry::HoldNamed { member, amounts });
    }

    /// Counts them as held no more; false, and nothing is changed, where less is held.
    #[must_use]
    pub fn credit_named(
        &mut self,
        framework_id: &FrameworkId,
        role: &Role,
        amounts: Amounts,
    ) -> bool {
        if amounts.is_empty() {
            return true;
        }
        let member = self.member(framework_id, role);
        let holds = |member: &u32| {
            let named = self.tree.named(*member);
            named.is_some_and(|named| named.contains(&amounts))
        };
        let Some(member) = member.filter(holds) else {
            return false;
        };
        self.enter(Entry::LeaveNamed { member, amounts });
        self.forget_if_idle(member);
        true
    }

    /// What a framework holds of a name in a role.
    pub(in crate::core) fn named_held(
        &self,
        framework_id: &FrameworkId,
        role: &Role,
    ) -> BTreeMap<String, u128> {
        let member = self.member(framework_id, role);
        let named = member.and_then(|member| self.tree.named(member));
        named.map_or_else(BTreeMap::new, |named| named.0.clone())
    }
}
