//! What the book can be asked by those who explain it: who is in a role, who stands where, what was refused until when.
//! Nothing here changes it.

use ebb_types::{FrameworkId, Place, Quantities, QuotaState, Role, Timestamp};

use super::Claims;
use crate::core::drf::Class;

impl Claims {
    /// The frameworks that are in a role itself, or hold something there.
    pub fn frameworks_of(&self, role: &Role) -> impl Iterator<Item = &FrameworkId> {
        self.tree.members_of(role)
    }

    /// Where a member stands among those who want a class, on each level of the tree of roles from the top; nothing
    /// where it does not want it. Costs as much as there are others on those levels.
    pub fn places(&self, member: u32, class: Class) -> Vec<Place> {
        self.tree.places(member, class)
    }

    /// When a member's refusal of an agent ends, if there is one.
    pub fn refusal_end(&self, member: u32, agent: u32) -> Option<Timestamp> {
        let refusal = self.tree.member(member)?.refusals.get(agent)?;
        Some(refusal.expires)
    }

    /// The quotas of a role and of those above it that have one, its own first.
    pub fn quotas_above(&self, role: &Role) -> Vec<QuotaState> {
        self.tree.quotas_above(role)
    }

    /// What a role and those below it hold of what is owned.
    pub fn held_below(&self, role: &Role) -> Quantities {
        self.tree.held_below(role)
    }

    /// What a role and those below it hold of what is lent.
    pub fn held_revocable_below(&self, role: &Role) -> Quantities {
        self.tree.held_revocable_below(role)
    }

    /// The neediest of the roles that are owed something of their own and want something, and its neediest member.
    pub(in crate::core) fn find_neediest_creditor(&self) -> Option<(&Role, u32)> {
        self.tree.find_neediest_creditor()
    }
}
