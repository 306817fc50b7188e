//! Who is offered what: a plan over a book of the claims and what is free of the agents, committed decision by decision.
//!
//! One offer covers one agent and one role. As in Mesos the plan is coarse: the neediest framework takes all that it may
//! of the first agent that suits it, and its share counts at once. The two classes of resources are handed out apart,
//! each in its own order of need: first what is lent, by shares of what is lent, among those that may be offered it;
//! then what is owned, by regular shares. Where both parts of an agent fall to one framework they make one offer.
//!
//! Of what is owned, those who are owed some of their guarantees come first, and nobody is offered more than limits and
//! what is owed to others allow (`claims/tree/quota.rs`); an agent is split where that is less than it has. What is lent
//! has limits of its own and is owed to nobody. What is left because of that is [held back](Planner::held_back).
//!
//! A part that is too small to be offered by itself ([`is_allocatable`](super::limits::is_allocatable), or less where
//! somebody says that it takes less), or that is lent and nobody
//! took, rides along with the other part. A part is withheld from a framework that has refused as much of it, that is kept
//! from the agent by its constraints or its region, or that states a minimum that is not in it (`claims/access.rs`).
//!
//! The neediest looks for an agent, not an agent for the neediest: what was refused stands in words of bits, so that
//! refusals cost nothing as they accumulate. The price: O(depth of the tree × log of its width) an offer, and a search
//! of one step for 64 agents that wait, once for each member that finds none.

mod pool;

use ebb_types::{Incarnation, Quantities, Resources};

use self::pool::{Candidate, Pool};
use super::claims::{Claims, Entry};
use super::drf::Class;
use crate::allocator::Proposal;

/// How often one pass looks at one agent again because another thread took what it had planned with.
/// Then the agent is left alone: whoever took it wakes the allocator when it is free again.
pub const MAX_LOOKS_PER_AGENT: u32 = 4;

/// An agent that a pass is to look at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AgentView {
    /// The agent's number.
    pub agent: u32,
    /// Its registration.
    pub incarnation: Incarnation,
    /// What can be offered of it.
    pub free: Resources,
}

/// What became of a decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is done.
    Offered,
    /// Another thread was faster: this is what is free now.
    Changed(Resources),
    /// The agent has gone, or is another now.
    Gone,
}

/// Resources of one agent for one member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Choice {
    /// Where the agent stands in the list that the pass was given.
    pub position: usize,
    /// Who is to be offered them.
    pub member: u32,
    /// What.
    pub resources: Resources,
}

/// A copy of the book that plans.
#[derive(Clone, Debug, Default)]
pub struct Planner {
    claims: Box<Claims>,
    pool: Pool,
    /// What was proposed and stands in no entry yet.
    ahead: Vec<(u32, Resources)>,
    /// Of each proposal of this pass one more than the one before it of the same agent; 0 if there is none.
    before: Vec<usize>,
    aside: Vec<u32>,
    /// The worker thread whose batches are its own.
    worker: Option<u32>,
    /// Whether somebody was not offered something because of a quota in this pass.
    is_bounded: bool,
    /// Where the agents stand in the caller's list of which the last pass has left something because of a quota.
    held_back: Vec<usize>,
    /// What the last pass has chosen.
    choices: Vec<Choice>,
    /// Room for the agents of the next pass.
    views: Vec<AgentView>,
    /// Room for what the next one proposes.
    proposals: Vec<Proposal>,
}

impl Planner {
    /// A planner with a copy of a book.
    pub fn new(claims: Claims) -> Self {
        Self {
            claims: Box::new(claims),
            ..Self::default()
        }
    }

    /// The planner of a worker thread: once a batch of that thread is accounted for, it forgets what it has proposed.
    pub fn of_worker(worker: u32, claims: Claims) -> Self {
        Self {
            claims: Box::new(claims),
            worker: Some(worker),
            ..Self::default()
        }
    }

    /// Goes on with another copy of the book.
    pub fn start_anew(&mut self, claims: Claims) {
        self.ahead.clear();
        *self.claims = claims;
    }

    /// Hands over what it has proposed, in that order: it stays charged in the book, and whoever has the book is to
    /// [adopt](Claims::adopt) or [undo](Claims::uncharge) each charge.
    pub fn hand_over(&mut self, proposed: &mut Vec<(u32, Resources)>) {
        debug_assert!(proposed.is_empty(), "some were neither adopted nor undone");
        std::mem::swap(&mut self.ahead, proposed);
    }

    /// Exchanges its book for another one. What it has proposed is to be forgotten or handed over before.
    pub fn exchange(&mut self, claims: &mut Box<Claims>) {
        debug_assert!(self.ahead.is_empty(), "proposals stand in the book");
        std::mem::swap(&mut self.claims, claims);
    }

    /// Repeats what the book has entered since.
    pub fn follow(&mut self, entries: &[Entry]) {
        // How many of the proposals of its own batch have been found to be taken, or are passed over.
        let mut adopted = None;
        for entry in entries {
            match (entry, &mut adopted) {
                (Entry::Batch(batch), _) if Some(batch.worker) == self.worker => {
                    self.settle(&mut adopted);
                    adopted = Some(0);
                }
                // Counted already.
                (Entry::Charge { member, resources }, Some(at))
                    if self.ahead.get(*at) == Some(&(*member, *resources)) =>
                {
                    *at += 1;
                    continue;
                }
                (Entry::Charge { member, resources }, Some(at)) => {
                    if let Some(later) = self.find_ahead(*at, *member, resources) {
                        self.ahead
                            .drain(*at..later)
                            .for_each(|(member, resources)| {
                                self.claims.uncharge(member, &resources);
                            });
                        *at += 1;
                        continue;
                    }
                    // The batch is over.
                    self.settle(&mut adopted);
                }
                // Proposals to it are about to be taken back.
                (Entry::Forget { member }, _) => {
                    self.settle(&mut adopted);
                    self.forget_proposals_to(*member);
                }
                _ => {}
            }
            self.claims.repeat(entry);
        }
        self.settle(&mut adopted);
    }

    fn find_ahead(&self, from: usize, member: u32, resources: &Resources) -> Option<usize> {
        let mut rest = self.ahead[from..].iter();
        rest.position(|one| *one == (member, *resources))
            .map(|at| from + at)
    }

    /// Ends the taking in of a batch: what of it was not found was refused.
    fn settle(&mut self, adopted: &mut Option<usize>) {
        if let Some(at) = adopted.take() {
            self.ahead.drain(..at);
            self.forget_proposals();
        }
    }

    fn forget_proposals_to(&mut self, gone: u32) {
        let claims = &mut self.claims;
        self.ahead.retain(|(member, resources)| {
            if *member == gone {
                claims.uncharge(gone, resources);
            }
            *member != gone
        });
    }

    /// What it knows.
    pub fn claims(&self) -> &Claims {
        &self.claims
    }

    /// Whether nobody wants anything, not even those who are at their limits.
    pub fn is_idle(&self) -> bool {
        let mut all = Class::ALL.into_iter();
        all.all(|class| self.claims.is_idle(class)) && !self.claims.has_full_roles()
    }

    /// Forgets what it has proposed: it was taken in, and stands in the entries, or was taken back.
    pub fn forget_proposals(&mut self) {
        for (member, resources) in self.ahead.drain(..).rev() {
            self.claims.uncharge(member, &resources);
        }
    }

    /// An empty list for the agents of a pass, with the room of one that was [kept](Self::keep_views).
    pub fn views(&mut self) -> Vec<AgentView> {
        std::mem::take(&mut self.views)
    }

    /// Keeps the room of a list for the next pass.
    pub fn keep_views(&mut self, mut views: Vec<AgentView>) {
        views.clear();
        self.views = views;
    }

    /// An empty list for what a pass proposes, with the room of one that was [kept](Self::keep_proposals).
    pub fn proposals(&mut self) -> Vec<Proposal> {
        std::mem::take(&mut self.proposals)
    }

    /// Keeps the room of a list for the next pass: of one whose proposals were taken in.
    pub fn keep_proposals(&mut self, mut proposals: Vec<Proposal>) {
        proposals.clear();
        self.proposals = proposals;
    }

    /// Plans offers of what is free of the agents, in the order in which they are decided. Each decision is handed to
    /// `commit` before the next is made, and counted in its taker's share until [`Self::forget_proposals`];
    /// all of them are then the pass's [choices](Self::choices).
    pub fn plan(
        &mut self,
        agents: &[AgentView],
        mut commit: impl FnMut(usize, &Resources) -> Outcome,
    ) {
        self.choices.clear();
        self.held_back.clear();
        self.before.clear();
        if self.is_idle() {
            return;
        }
        self.is_bounded = false;
        for (position, view) in agents.iter().enumerate() {
            let candidate = Candidate {
                free: view.free,
                position,
                ..Candidate::default()
            };
            self.pool.add(&self.claims, view.agent, &candidate);
        }
        self.pool.look_up_refusals(&self.claims);
        self.hand_out(Class::Revocable, &mut commit);
        self.pay_creditors(&mut commit);
        self.hand_out(Class::Regular, &mut commit);
        // Nobody asks for those who are at their limits, at the beginning or by now.
        if self.is_bounded || self.claims.has_full_roles() {
            for class in Class::ALL {
                self.held_back.extend(self.pool.left(class));
            }
        }
        for class in Class::ALL {
            self.pool.clear(class);
        }
    }

    /// What the last pass has chosen.
    pub fn choices(&self) -> &[Choice] {
        &self.choices
    }

    /// Where the agents stand in the list of the last pass of which something is left because of a quota: they are to be
    /// looked at again once a quota, or what it bounds, has changed.
    pub fn held_back(&self) -> &[usize] {
        &self.held_back
    }

    /// Offers what roles are owed of their guarantees, and no more of what is guaranteed.
    fn pay_creditors(&mut self, commit: &mut impl FnMut(usize, &Resources) -> Outcome) {
        let class = Class::Regular;
        if !self.claims.has_quotas() {
            return;
        }
        while self.pool.len(class) > 0
            && let Some((role, member)) = self.claims.neediest_creditor()
        {
            if !self.claims.is_worth_paying(role) {
                self.leave_out(role, class);
                continue;
            }
            let room = self.claims.room(member);
            let most = room.map(|room| room.most.min(&room.covers));
            self.offer_or_leave_out(class, member, most, commit);
        }
        self.bring_back(class);
    }

    /// Offers what is free to the neediest, as far as limits and what is owed to others allow.
    fn hand_out(&mut self, class: Class, commit: &mut impl FnMut(usize, &Resources) -> Outcome) {
        while self.pool.len(class) > 0
            && let Some(member) = self.claims.neediest(class)
        {
            let most = match class {
                Class::Revocable => self.claims.revocable_room(member),
                Class::Regular => self.claims.room(member).map(|room| room.most),
            };
            self.offer_or_leave_out(class, member, most, commit);
        }
        self.bring_back(class);
    }

    fn offer_or_leave_out(
        &mut self,
        class: Class,
        member: u32,
        most: Option<Quantities>,
        commit: &mut impl FnMut(usize, &Resources) -> Outcome,
    ) {
        let (pool, claims) = (&self.pool, &self.claims);
        match pool.first_for(claims, member, class, most.as_ref()) {
            Some(agent) => self.decide(class, member, agent, most.as_ref(), commit),
            None => {
                self.is_bounded |=
                    most.is_some() && pool.first_for(claims, member, class, None).is_some();
                self.leave_out(member, class);
            }
        }
    }

    fn leave_out(&mut self, node: u32, class: Class) {
        self.claims.set_aside(node, class);
        self.aside.push(node);
    }

    #[inline]
    fn bring_back(&mut self, class: Class) {
        while let Some(node) = self.aside.pop() {
            self.claims.bring_back(node, class);
        }
    }

    fn decide(
        &mut self,
        class: Class,
        member: u32,
        agent: u32,
        most: Option<&Quantities>,
        commit: &mut impl FnMut(usize, &Resources) -> Outcome,
    ) {
        let candidate = self.pool.candidate(agent);
        let (position, looked) = (candidate.position, candidate.looked);
        let mut part = candidate.free;
        let within = |part: &Quantities| most.map_or(*part, |most| part.min(most));
        match class {
            Class::Revocable => {
                part.revocable = within(&part.revocable);
                if self.claims.is_offerable(&part.regular) {
                    part.regular = Quantities::ZERO;
                } else if let Some(room) = self.claims.room(member) {
                    part.regular = part.regular.min(&room.most);
                }
            }
            // What is lent is here only if nobody took it.
            Class::Regular => {
                part.regular = within(&part.regular);
                if !self.claims.wants(member, Class::Revocable) {
                    part.revocable = Quantities::ZERO;
                } else if let Some(most) = self.claims.revocable_room(member) {
                    part.revocable = part.revocable.min(&most);
                }
            }
        }
        match commit(position, &part) {
            Outcome::Offered => {
                self.take(agent, &part);
                self.note(agent, member, &part);
            }
            Outcome::Changed(free) if looked + 1 < MAX_LOOKS_PER_AGENT => {
                let candidate = self.pool.candidate(agent);
                candidate.free = free;
                candidate.looked += 1;
                self.pool.look_again(&self.claims, agent);
            }
            Outcome::Changed(_) | Outcome::Gone => {
                for class in Class::ALL {
                    self.pool.remove(agent, class);
                }
            }
        }
    }

    fn take(&mut self, agent: u32, part: &Resources) {
        let free = &mut self.pool.candidate(agent).free;
        *free = free.without(part);
        let rest = *free;
        for class in Class::ALL {
            if !self.claims.is_offerable(class.part(&rest)) {
                self.pool.remove(agent, class);
            }
        }
    }

    /// Counts a proposal. What falls to one member of one agent is one allocation.
    fn note(&mut self, agent: u32, member: u32, part: &Resources) {
        let candidate = self.pool.candidate(agent);
        let mut earlier = candidate.proposal.checked_sub(1);
        while let Some(at) = earlier
            && let Some(choice) = self.choices.get_mut(at)
        {
            if choice.member == member {
                self.claims.uncharge(member, &choice.resources);
                choice.resources = choice.resources.saturating_add(part);
                self.claims.charge_ahead(member, &choice.resources);
                let all = choice.resources;
                let ahead = self.ahead.len() - self.choices.len() + at;
                self.ahead[ahead].1 = all;
                return;
            }
            earlier = self.before[at].checked_sub(1);
        }
        self.claims.charge_ahead(member, part);
        self.ahead.push((member, *part));
        self.before.push(candidate.proposal);
        self.choices.push(Choice {
            position: candidate.position,
            member,
            resources: *part,
        });
        candidate.proposal = self.choices.len();
    }
}

#[cfg(test)]
mod tests;
