//! What the book can be asked by those who explain it: who is in a role, who stands where, what was refused until when.
//! Nothing here changes it.

use ebb_types::{FrameworkId, Place, Role, Timestamp};

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
}
