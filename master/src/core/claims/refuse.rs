//! What was refused: which agents are withheld from whom, as much of them, and until when.
//!
//! A refusal stands with who has made it; an agent knows how many there are of it and how much all of them have in common.
//! Both go when the refusal ends: it expires, is voided by its framework or its agent, or either is gone.

use std::collections::BTreeSet;

use ebb_types::{AgentId, FrameworkId, Quantities, Resources, Role, Timestamp};

use super::refusals::{Meet, Refusal};
use super::tree::Tree;
use super::{AgentEntry, Claims, Entry, MAX_REFUSALS, Seat, expiry};
use crate::core::drf::Class;

impl Claims {
    /// Remembers that a framework refused resources of an agent: until `expires` it is offered
    /// nothing of a class there that is within them. Nothing is remembered of an agent that is not
    /// known nor of a framework that is not active in the role.
    pub fn refuse(
        &mut self,
        framework_id: &FrameworkId,
        role: &Role,
        agent_id: &AgentId,
        refused: &Resources,
        expires: Timestamp,
    ) {
        let is_active = self
            .framework(framework_id)
            .is_some_and(|terms| terms.active && terms.roles.contains(role));
        let member = self.member(framework_id, role).filter(|_| is_active);
        if let (Some(member), Some(agent)) = (member, self.agent_number(agent_id)) {
            self.refuse_numbered(member, agent, refused, expires);
        }
    }

    /// [`Claims::refuse`] by a seat and the number of an agent.
    pub fn refuse_seat(&mut self, seat: Seat, agent: u32, refused: &Resources, expires: Timestamp) {
        let is_active = self.is_taken(seat)
            && (self.tree.member(seat.member)).is_some_and(|member| member.is_active);
        if is_active && self.agent_id(agent).is_some() {
            self.refuse_numbered(seat.member, agent, refused, expires);
        }
    }

    /// [`Claims::refuse`] by the numbers of an active framework's member and of an agent.
    fn refuse_numbered(
        &mut self,
        member: u32,
        agent: u32,
        refused: &Resources,
        expires: Timestamp,
    ) {
        if self.refusals >= MAX_REFUSALS {
            self.crowded_out += 1;
            return;
        }
        self.enter(Entry::Refuse {
            member,
            agent,
            refused: *refused,
            expires,
        });
    }

    pub(super) fn note_refusal(
        &mut self,
        member: u32,
        agent: u32,
        refused: &Resources,
        expires: Timestamp,
    ) {
        let Some(Some(of)) = self.agents.get_mut(agent as usize) else {
            return;
        };
        let Some(by) = self.tree.member_mut(member) else {
            return;
        };
        if refused.is_zero() {
            return;
        }
        let is_marked = self.refused.iter().any(|grid| grid.has(member, agent));
        let earlier = is_marked.then(|| by.refusals.get(agent)).flatten();
        if let Some(earlier) = earlier {
            let says_all =
                earlier.expires >= expires && self.profiles.get(earlier.profile).contains(refused);
            if says_all {
                return;
            }
            by.refusals.remove(agent);
            self.profiles.leave(earlier.profile);
        } else {
            of.refusals += 1;
            self.refusals += 1;
        }
        let profile = self.profiles.take(refused);
        by.refusals.add(agent, Refusal { profile, expires });
        for class in Class::ALL {
            let grid = &mut self.refused[class as usize];
            if !class.part(refused).is_zero() {
                grid.set(member, agent);
            } else if is_marked {
                grid.unset(member, agent);
            }
        }
        of.meet.add(refused);
        let (tree, live) = (&self.tree, self.refusals);
        self.expiries
            .add(expires, (member, agent), live, |at, pair| {
                is_live(tree, at, pair)
            });
    }

    /// Voids a framework's refusals in one role (revive), on every agent.
    pub fn void_refusals(&mut self, framework_id: &FrameworkId, role: &Role) {
        if let Some(member) = self.member(framework_id, role) {
            self.enter(Entry::VoidMember { member });
        }
    }

    pub(super) fn void_member(&mut self, member: u32) {
        let Some(by) = self.tree.member_mut(member) else {
            return;
        };
        for (agent, refusal) in std::mem::take(&mut by.refusals).iter() {
            self.profiles.leave(refusal.profile);
            self.refusals -= 1;
            for grid in &mut self.refused {
                grid.unset(member, agent);
            }
            if let Some(Some(of)) = self.agents.get_mut(agent as usize) {
                of.lose_refusal();
            }
        }
    }

    /// Voids the refusals of an agent's resources (it came back, perhaps another).
    pub fn void_agent_refusals(&mut self, agent_id: &AgentId) {
        if let Some(agent) = self.agent_number(agent_id) {
            self.enter(Entry::VoidAgent { agent });
        }
    }

    pub(super) fn void_agent(&mut self, agent: u32) {
        let Some(Some(of)) = self.agents.get_mut(agent as usize) else {
            return;
        };
        if of.refusals == 0 {
            return;
        }
        of.refusals = 0;
        of.meet = Meet::default();
        let marked = self.refused.iter().flat_map(|grid| grid.members(agent));
        for member in BTreeSet::from_iter(marked) {
            self.drop_refusal(member, agent, |_| true);
        }
    }

    /// Drops a member's refusal of an agent if it is one of those; says whether it was.
    fn drop_refusal(
        &mut self,
        member: u32,
        agent: u32,
        is_one: impl FnOnce(&Refusal) -> bool,
    ) -> bool {
        let Some(by) = self.tree.member_mut(member) else {
            return false;
        };
        let Some(refusal) = by.refusals.get(agent).filter(is_one) else {
            return false;
        };
        by.refusals.remove(agent);
        for grid in &mut self.refused {
            grid.unset(member, agent);
        }
        self.profiles.leave(refusal.profile);
        self.refusals -= 1;
        true
    }

    /// Drops the refusals that have expired; the agents that they spoke of, which the allocator is
    /// to be woken for.
    pub fn expire(&mut self, now: Timestamp) -> BTreeSet<AgentId> {
        let mut agents = Vec::new();
        if self.drop_expired(now, |agent| agents.push(agent)) {
            self.log.push(Entry::Expire { now });
        }
        agents.sort_unstable();
        agents.dedup();
        let entries = agents.into_iter().map(|agent| &self.agents[agent as usize]);
        entries.flatten().map(|agent| agent.id.clone()).collect()
    }

    /// Says whether there was anything to drop.
    pub(super) fn drop_expired(&mut self, now: Timestamp, mut each: impl FnMut(u32)) -> bool {
        let mut any = false;
        while let Some((at, pairs)) = self.expiries.pop(now) {
            any = true;
            for pair in pairs {
                let (member, agent) = pair;
                if !self.drop_refusal(member, agent, |refusal| refusal.expires == at) {
                    continue;
                }
                if let Some(Some(of)) = self.agents.get_mut(agent as usize) {
                    of.lose_refusal();
                }
                each(agent);
            }
        }
        any
    }

    /// When the next refusal expires: the driver's timer for [`Claims::expire`].
    pub fn next_expiry(&self) -> Option<Timestamp> {
        self.expiries.next()
    }

    /// How many refusals are remembered.
    pub const fn refusals(&self) -> usize {
        self.refusals
    }

    /// How many refusals were not remembered because of [`MAX_REFUSALS`].
    pub const fn crowded_out(&self) -> u64 {
        self.crowded_out
    }

    /// Of which of the agents from 64 times `row` on a member has refused something of a class.
    #[inline]
    pub(in crate::core) fn refused(&self, member: u32, row: u32, class: Class) -> u64 {
        self.refused[class as usize].word(member, row)
    }

    /// Of which of them anybody has, or nobody knows whether somebody has; to be asked once before so many of them are
    /// handed out.
    pub(in crate::core) fn refused_by_anybody(&self, row: u32, class: Class, agents: u32) -> u64 {
        self.refused[class as usize].by_anybody(row, agents)
    }

    /// Whether a member has refused as much of an agent as this.
    pub(in crate::core) fn withholds(
        &self,
        member: u32,
        agent: u32,
        class: Class,
        part: &Quantities,
    ) -> bool {
        let refusal = self
            .tree
            .member(member)
            .and_then(|member| member.refusals.get(agent));
        refusal.is_some_and(|refusal| {
            class
                .part(self.profiles.get(refusal.profile))
                .contains(part)
        })
    }

    /// Whether more of an agent is free than everybody has refused who refused some of it.
    pub(in crate::core) fn passes_refusals(
        &self,
        agent: u32,
        class: Class,
        part: &Quantities,
    ) -> bool {
        let agent = self.agents.get(agent as usize).and_then(Option::as_ref);
        agent.is_some_and(|agent| agent.meet.is_passed_by(class, part))
    }
}

impl AgentEntry {
    fn lose_refusal(&mut self) {
        self.refusals -= 1;
        if self.refusals == 0 {
            self.meet = Meet::default();
        }
    }
}

/// Whether a refusal that was to end then still stands.
fn is_live(tree: &Tree, at: Timestamp, (member, agent): expiry::Pair) -> bool {
    let refusal = tree.member(member).and_then(|by| by.refusals.get(agent));
    refusal.is_some_and(|refusal| refusal.expires == at)
}
