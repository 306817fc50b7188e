//! Refusals: how long what a framework refused is not offered to it again.
//!
//! An eviction counts as a refusal of everything revocable of its agent, for [`EVICTION_COOL_DOWN_MS`]: the victim must not
//! come back to where it was in the way. It needs no rule of its own in the plan, `ebb explain` shows it, and the rest of
//! the agent is offered as before. Unlike a refusal it outlives REVIVE, and a decline of something else there joins it. An
//! agent that refused launches instead would be offered again and again.
//!
//! The refusals themselves stand in the book of claims, where the allocator reads them; here is how long
//! they last, and that the allocator looks again when they end. A long refusal lasts up to a thirty-second of its time
//! longer, so that those of one framework end together, and are kept as one (`claims/refusals.rs`).

use ebb_types::limits::{MAX_QUANTITY, MAX_REFUSE_MS};
use ebb_types::{
    AgentId, Filters, FrameworkId, Quantities, ResourceKind, Resources, Role, Timestamp,
};

use super::claims::Seat;
use super::limits::{EVICTION_COOL_DOWN_MS, MAX_COOLING};
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
        let mut expires = end(self.now, filters.refuse_ms);
        let mut resources = *resources;
        // Of one agent a framework has one refusal in a role; the later replaces the earlier.
        if let Some(until) = seat.and_then(|seat| self.cooling_until(seat, agent_id)) {
            resources.revocable = everything();
            expires = expires.max(until);
        }
        if let (Some(seat), Some(agent)) = (seat, self.roles.agent_number(agent_id)) {
            self.roles.refuse_seat(seat, agent, &resources, expires);
            self.changed = true;
        }
    }

    /// A task was evicted: nothing revocable of its agent is offered to its framework, in its role, for a while.
    pub(super) fn cool_down(&mut self, owner: (&FrameworkId, &Role), agent_id: &AgentId) {
        let (framework_id, role) = owner;
        let now = self.now;
        let until = now.plus_ms(EVICTION_COOL_DOWN_MS);
        let Some(framework) = self.frameworks.get_mut(framework_id) else {
            return;
        };
        framework.cooling.retain(|_, until| *until > now);
        if framework.cooling.len() >= MAX_COOLING {
            self.counters.cool_downs_dropped += 1;
            return;
        }
        let key = (role.clone(), agent_id.clone());
        framework.cooling.insert(key, until);
        self.refuse_revocable(owner, agent_id, until);
    }

    /// After a framework's refusals in a role were voided: evictions are not.
    pub(super) fn cool_down_again(&mut self, framework_id: &FrameworkId, role: &Role) {
        let now = self.now;
        let Some(framework) = self.frameworks.get(framework_id) else {
            return;
        };
        let cooling: Vec<(AgentId, Timestamp)> = framework
            .cooling
            .iter()
            .filter(|((of, _), until)| of == role && **until > now)
            .map(|((_, agent_id), until)| (agent_id.clone(), *until))
            .collect();
        for (agent_id, until) in cooling {
            self.refuse_revocable((framework_id, role), &agent_id, until);
        }
    }

    fn refuse_revocable(
        &mut self,
        (framework_id, role): (&FrameworkId, &Role),
        agent_id: &AgentId,
        until: Timestamp,
    ) {
        let all = Resources::revocable(everything());
        self.roles.refuse(framework_id, role, agent_id, &all, until);
        self.changed = true;
    }

    fn cooling_until(&self, seat: Seat, agent_id: &AgentId) -> Option<Timestamp> {
        let (framework_id, role) = self.roles.in_seat(seat)?;
        let framework = self.frameworks.get(framework_id)?;
        if framework.cooling.is_empty() {
            return None;
        }
        let until = framework.cooling.get(&(role.clone(), agent_id.clone()))?;
        Some(*until).filter(|until| *until > self.now)
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

/// More than any agent has.
fn everything() -> Quantities {
    ResourceKind::ALL
        .into_iter()
        .fold(Quantities::ZERO, |all, kind| all.with(kind, MAX_QUANTITY))
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
