//! What is reserved for roles: it counts towards their quotas while nobody holds it.

use ebb_types::{FrameworkId, Quantities, Role};

use super::{Claims, Entry};
use crate::core::drf::Need;

impl Claims {
    /// Says how much is reserved for a role, without those below it, and held by nobody.
    pub fn set_reserved(&mut self, role: &Role, reserved: Quantities) {
        self.enter(Entry::Reserved {
            role: role.clone(),
            reserved,
        });
    }

    /// How needy a framework in a role is among those below another role, level by level from the top: the smallest is the
    /// neediest.
    pub(in crate::core) fn needs_below(
        &self,
        framework_id: &FrameworkId,
        role: &Role,
        above: &Role,
    ) -> Vec<Need> {
        let member = self.member(framework_id, role);
        member.map_or_else(Vec::new, |member| self.tree.needs_below(member, above))
    }
}
