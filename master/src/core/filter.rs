//! Refusals: how long what a framework refused is not offered to it again.
//!
//! The refusals themselves stand in the book of claims, where the allocator reads them; here is how long
//! they last, and that the allocator looks again when they end.

use ebb_types::limits::MAX_REFUSE_MS;
use ebb_types::{AgentId, Filters, Resources};

use super::claims::Seat;
use super::state::Core;

impl Core {
    /// Remembers a refusal; a time of 0 is none.
    pub(super) fn refuse(
        &mut self,
        seat: Option<Seat>,
        agent_id: &AgentId,
        resources: &Resources,
        filters: Filters,
    ) {
        if filters.refuse_ms == 0 || resources.is_zero() {
            return;
        }
        let expires = self.now.plus_ms(filters.refuse_ms.min(MAX_REFUSE_MS));
        if let (Some(seat), Some(agent)) = (seat, self.roles.agent_number(agent_id)) {
            self.roles.refuse_seat(seat, agent, resources, expires);
            self.changed = true;
        }
    }

    /// Forgets the refusals that have ended.
    pub(super) fn expire_filters(&mut self) {
        if self
            .roles
            .next_expiry()
            .is_none_or(|expiry| expiry > self.now)
        {
            return;
        }
        let agents = self.roles.expire(self.now);
        self.changed = true;
        self.wake.extend(agents);
    }
}
