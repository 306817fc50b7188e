//! Refusals: how long what a framework refused is not offered to it again.
//!
//! The refusals themselves stand in the book of claims, where the allocator reads them; here is how long
//! they last, and that the allocator looks again when they end. A long refusal lasts up to a thirty-second of its time
//! longer, so that those of one framework end together, and are kept as one (`claims/refusals.rs`).

use ebb_types::limits::MAX_REFUSE_MS;
use ebb_types::{AgentId, Filters, Resources, Timestamp};

use super::claims::Seat;
use super::state::Core;

/// Shorter refusals end when they were asked to.
const MIN_ROUNDED_MS: u64 = 60_000;

/// When a refusal ends.
fn end(now: Timestamp, refuse_ms: u64) -> Timestamp {
    let end = now.plus_ms(refuse_ms.min(MAX_REFUSE_MS));
    if refuse_ms < MIN_ROUNDED_MS {
        return end;
    }
    let step = 1 << (refuse_ms.min(MAX_REFUSE_MS) / 32).ilog2();
    let rounded = end.as_ms().checked_next_multiple_of(step);
    rounded.map_or(end, Timestamp::from_ms)
}

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
        let expires = end(self.now, filters.refuse_ms);
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_refusal_lasts_as_long_as_it_is_asked_to_and_hardly_longer(
            now in 0..1u64 << 45, refuse_ms in prop_oneof![0..2 * MIN_ROUNDED_MS, 0..2 * MAX_REFUSE_MS]
        ) {
            let now = Timestamp::from_ms(now);
            let asked_ms = refuse_ms.min(MAX_REFUSE_MS);
            let lasts_ms = end(now, refuse_ms).ms_since(now);
            prop_assert!(lasts_ms >= asked_ms && lasts_ms <= asked_ms + asked_ms / 32);
            prop_assert!(asked_ms >= MIN_ROUNDED_MS || lasts_ms == asked_ms);
        }
    }
}
