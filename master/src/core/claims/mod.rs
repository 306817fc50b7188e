//! Who has a claim to what: roles, frameworks, their holdings and their refusals, as the allocator sees them.
//!
//! There is one book, kept by its single owner, the master's core. Every change of it is an [`Entry`]; the entries are
//! handed on ([`Claims::publish`]), and each of the allocator's threads repeats them on a copy of its own
//! ([`Planner::follow`](super::allocate::Planner::follow)). So nothing is shared between threads but entries that never change, planning needs no lock and
//! no persistent structure, and what a change costs does not depend on what else there is.
//!
//! Invariants: what a framework holds in a role is what its offers and tasks hold, each charged once and credited once
//! by the core; a refusal lasts until it expires, is voided by its framework (revive, deactivation) or its agent
//! changes; copies that have followed the same entries are alike in all but what a planner has charged ahead.
//!
//! Order of use: change, [`Claims::publish`], then wake the allocator for the agents concerned. What each change asks
//! for: an agent's resources became free, its total rose or refusals of it expired: wake it; a framework became active,
//! was unsuppressed or revived: wake all.

mod access;
mod entry;
mod expiry;
mod gatekeeper;
mod grid;
mod look;
mod named;
mod order;
mod refusals;
mod refuse;
mod reserved;
mod tree;

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU64;
use std::sync::Arc;

use ebb_types::{AgentId, FrameworkId, Quantities, Quota, Resources, Role};

use super::drf::{Class, Standing, Sums};
pub(super) use access::Gate;
use access::Kept;
pub use access::Traits;
pub use entry::{BatchId, Entry};
use expiry::Expiries;
pub(super) use gatekeeper::{Gatekeeper, has_gpus};
use grid::Grid;
pub use named::Amounts;
use refusals::{Meet, Profiles};
pub use tree::DEFAULT_WEIGHT_MILLI;
pub(super) use tree::Room;
use tree::Tree;

/// Most refusals that are remembered; beyond that a refused offer may be made again at once (counted).
pub const MAX_REFUSALS: usize = 8 << 20;

/// Most entries that room is made for ahead, if there were as many before.
const MAX_ROOM: usize = 64 << 10;

const CLASSES: usize = Class::ALL.len();

/// What a framework wants of the allocator.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FrameworkTerms {
    /// The roles it is offered resources for.
    pub roles: BTreeSet<Role>,
    /// Those of them for which it wants no offers now.
    pub suppressed: BTreeSet<Role>,
    /// Whether its scheduler is connected: others are offered nothing.
    pub active: bool,
    /// Whether it may be offered revocable resources.
    pub revocable: bool,
    /// Whether it may be offered agents of other regions than the master's.
    pub any_region: bool,
    /// Whether it may be offered agents with GPUs.
    pub takes_gpus: bool,
    /// The least that it states for an offer, in the roles where it does: one of these, or something.
    pub minima: BTreeMap<Role, Arc<[Quantities]>>,
}

impl FrameworkTerms {
    fn wants(&self, role: &Role) -> [bool; CLASSES] {
        let wanted = self.active && self.roles.contains(role) && !self.suppressed.contains(role);
        [wanted, wanted && self.revocable]
    }
}

/// A framework in a role, as it is named outside of the book: by its number, and by when it came, since numbers are used
/// again. All copies of a book number alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seat {
    member: u32,
    born: NonZeroU64,
}

/// More is to be taken back than is held: always a fault in Ebb.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{framework_id} in role {role} does not hold {resources}")]
pub struct NotHeld {
    /// The framework.
    pub framework_id: FrameworkId,
    /// The role.
    pub role: Role,
    /// What was to be taken back.
    pub resources: Resources,
}

/// What an agent has and lends, and how much of it was refused.
#[derive(Clone, Debug)]
struct AgentEntry {
    id: AgentId,
    total: Quantities,
    oversubscribed: Quantities,
    /// What of the total is free and yet cannot be offered.
    withheld: Quantities,
    named: Amounts,
    refusals: u32,
    meet: Meet,
}

/// The book.
#[derive(Clone, Debug, Default)]
pub struct Claims {
    tree: Tree,
    frameworks: BTreeMap<FrameworkId, FrameworkTerms>,
    agents: Vec<Option<AgentEntry>>,
    free_agents: Vec<u32>,
    agent_numbers: BTreeMap<AgentId, u32>,
    profiles: Profiles,
    /// Of whom members have refused something, by class.
    refused: [Grid; CLASSES],
    expiries: Expiries,
    refusals: usize,
    kept: Kept,
    crowded_out: u64,
    /// The last batch of each worker thread that is accounted for.
    batches: BTreeMap<u32, u64>,
    /// What was not published yet.
    log: Vec<Entry>,
}

impl Claims {
    /// A book of nothing.
    pub fn new() -> Self {
        Self::default()
    }

    fn enter(&mut self, entry: Entry) {
        self.repeat(&entry);
        self.log.push(entry);
    }

    /// What has changed since the last call, for planners to follow; nothing if nothing has.
    #[must_use]
    pub fn publish(&mut self) -> Arc<Vec<Entry>> {
        let room = self.log.len().min(MAX_ROOM);
        Arc::new(std::mem::replace(&mut self.log, Vec::with_capacity(room)))
    }

    /// A copy that has followed everything that was entered so far.
    #[must_use]
    pub fn copy(&self) -> Self {
        let mut copy = self.clone();
        copy.log = Vec::new();
        copy
    }

    /// Repeats what another book has entered.
    pub(super) fn repeat(&mut self, entry: &Entry) {
        match entry {
            Entry::Agent {
                id,
                total,
                oversubscribed,
            } => self.put_agent(id, *total, *oversubscribed),
            Entry::AgentGone { agent } => self.drop_agent(*agent),
            Entry::Framework { id, terms } => self.put_framework(id, terms),
            Entry::FrameworkGone { id } => {
                self.put_framework(id, &FrameworkTerms::default());
                self.frameworks.remove(id);
            }
            Entry::Weight { role, weight_milli } => self.tree.set_weight(role, *weight_milli),
            Entry::Quota { role, quota } => self.tree.set_quota(role, **quota),
            Entry::Reserved { role, reserved } => self.tree.set_reserved(role, *reserved),
            Entry::Withheld { agent, withheld } => self.put_withheld(*agent, *withheld),
            Entry::Named { agent, amounts } => self.put_named(*agent, amounts),
            Entry::HoldNamed { member, amounts } => {
                self.tree.change_named(*member, |held| held.add(amounts));
            }
            Entry::LeaveNamed { member, amounts } => {
                self.tree.change_named(*member, |held| held.take(amounts));
            }
            Entry::Member { id, role } => {
                self.tree.intern(id, role);
            }
            Entry::Forget { member } => {
                self.void_member(*member);
                self.drop_access(*member);
                self.tree.forget(*member);
            }
            Entry::Charge { member, resources } => self.tree.charge(*member, resources),
            Entry::Credit { member, resources } => {
                let credited = self.tree.credit(*member, resources);
                debug_assert!(credited, "an entry takes back what is not held");
            }
            Entry::Refuse {
                member,
                agent,
                refused,
                expires,
            } => self.note_refusal(*member, *agent, refused, *expires),
            Entry::VoidMember { member } => self.void_member(*member),
            Entry::VoidAgent { agent } => self.void_agent(*agent),
            Entry::Expire { now } => {
                self.drop_expired(*now, |_| {});
            }
            Entry::Kept { member, words } => self.put_kept(*member, words),
            Entry::KeptFrom {
                agent,
                traits,
                members,
            } => self.put_kept_from(*agent, *traits, members),
            Entry::Batch(batch) => {
                self.batches.insert(batch.worker, batch.number);
            }
        }
    }

    /// Sets what an agent has and lends. A new total (not a new estimate) voids the refusals of its
    /// resources: an offer that grows by more lent resources passes them anyway.
    pub fn set_agent(&mut self, agent_id: &AgentId, total: Quantities, oversubscribed: Quantities) {
        self.enter(Entry::Agent {
            id: agent_id.clone(),
            total,
            oversubscribed,
        });
    }

    fn put_agent(&mut self, id: &AgentId, total: Quantities, oversubscribed: Quantities) {
        let number = match self.agent_numbers.get(id) {
            Some(number) => *number,
            None => self.number_agent(id),
        };
        let Some(Some(agent)) = self.agents.get_mut(number as usize) else {
            return;
        };
        let old_total = std::mem::replace(&mut agent.total, total);
        let old_lent = std::mem::replace(&mut agent.oversubscribed, oversubscribed);
        self.change_total(Class::Regular, &old_total, &total);
        self.change_total(Class::Revocable, &old_lent, &oversubscribed);
        if old_total != total {
            self.void_agent(number);
        }
    }

    fn number_agent(&mut self, id: &AgentId) -> u32 {
        let entry = Some(AgentEntry {
            id: id.clone(),
            total: Quantities::ZERO,
            oversubscribed: Quantities::ZERO,
            withheld: Quantities::ZERO,
            named: Amounts::default(),
            refusals: 0,
            meet: Meet::default(),
        });
        let number = match self.free_agents.pop() {
            Some(number) => {
                self.agents[number as usize] = entry;
                number
            }
            None => {
                self.agents.push(entry);
                // Each takes far more than a byte of memory, so a `u32` holds them.
                self.agents.len() as u32 - 1
            }
        };
        self.agent_numbers.insert(id.clone(), number);
        number
    }

    /// Removes an agent and the refusals of its resources. Holdings on it are to be credited apart.
    pub fn remove_agent(&mut self, agent_id: &AgentId) {
        if let Some(agent) = self.agent_number(agent_id) {
            self.enter(Entry::AgentGone { agent });
        }
    }

    fn drop_agent(&mut self, number: u32) {
        self.void_agent(number);
        self.put_kept_from(number, Traits::default(), &[]);
        self.put_withheld(number, Quantities::ZERO);
        self.put_named(number, &Amounts::default());
        let Some(agent) = self.agents.get_mut(number as usize).and_then(Option::take) else {
            return;
        };
        self.change_total(Class::Regular, &agent.total, &Quantities::ZERO);
        self.change_total(Class::Revocable, &agent.oversubscribed, &Quantities::ZERO);
        self.agent_numbers.remove(&agent.id);
        self.free_agents.push(number);
    }

    fn change_total(&mut self, class: Class, old: &Quantities, new: &Quantities) {
        let mut total = *self.tree.totals(class);
        let held = total.sub(old);
        debug_assert!(held, "the cluster has less than one of its agents");
        total.add(new);
        self.tree.set_totals(class, total);
    }

    /// The number of an agent, which is its own until it is removed.
    pub fn agent_number(&self, agent_id: &AgentId) -> Option<u32> {
        self.agent_numbers.get(agent_id).copied()
    }

    /// What the cluster has of a class.
    pub const fn cluster_total(&self, class: Class) -> &Sums {
        self.tree.totals(class)
    }

    /// Adds a framework or changes its terms. A framework that is not active in a role has no refusals there.
    pub fn set_framework(&mut self, framework_id: &FrameworkId, terms: FrameworkTerms) {
        let old = self.framework(framework_id).cloned().unwrap_or_default();
        self.enter(Entry::Framework {
            id: framework_id.clone(),
            terms: Box::new(terms),
        });
        self.forget_idle(framework_id, &old.roles);
    }

    fn put_framework(&mut self, id: &FrameworkId, terms: &FrameworkTerms) {
        let old = self.frameworks.insert(id.clone(), terms.clone());
        let old = old.unwrap_or_default();
        for role in terms.roles.union(&old.roles) {
            let member = self.tree.intern(id, role);
            if !terms.active || !terms.roles.contains(role) {
                self.void_member(member);
            }
            self.put_access(member, role, terms);
            self.tree.set_wants(
                member,
                (terms.roles.contains(role), terms.active),
                terms.wants(role),
            );
        }
    }

    /// A framework's terms.
    pub fn framework(&self, framework_id: &FrameworkId) -> Option<&FrameworkTerms> {
        self.frameworks.get(framework_id)
    }

    /// Removes a framework and its refusals. What it still holds is to be credited apart.
    pub fn remove_framework(&mut self, framework_id: &FrameworkId) {
        if let Some(old) = self.framework(framework_id).cloned() {
            self.enter(Entry::FrameworkGone {
                id: framework_id.clone(),
            });
            self.forget_idle(framework_id, &old.roles);
        }
    }

    fn forget_idle(&mut self, framework_id: &FrameworkId, roles: &BTreeSet<Role>) {
        for role in roles {
            if let Some(member) = self.member(framework_id, role) {
                self.forget_if_idle(member);
            }
        }
    }

    fn forget_if_idle(&mut self, member: u32) {
        let subscribed = |one: &tree::Member| one.is_subscribed;
        if self.tree.member(member).is_some_and(subscribed) {
            return;
        }
        if self.tree.standing(member).is_zero() && self.tree.named(member).is_none() {
            self.enter(Entry::Forget { member });
        }
    }

    /// Sets a role's weight, in thousandths, at least 1.
    pub fn set_weight(&mut self, role: &Role, weight_milli: u32) {
        self.enter(Entry::Weight {
            role: role.clone(),
            weight_milli,
        });
    }

    /// Sets a role's quota; one that guarantees and limits nothing takes it away.
    pub fn set_quota(&mut self, role: &Role, quota: Quota) {
        self.enter(Entry::Quota {
            role: role.clone(),
            quota: Box::new(quota),
        });
    }

    /// A role's quota.
    pub fn quota(&self, role: &Role) -> Option<&Quota> {
        self.tree.quota(self.tree.role(role)?)
    }

    /// Whether any role has a quota.
    pub fn has_quotas(&self) -> bool {
        self.tree.has_quotas()
    }

    /// Whether some role is offered nothing of a class because of its limits.
    pub(super) fn has_full_roles(&self) -> bool {
        self.tree.has_full_roles()
    }

    /// Says how much of what is owned of an agent is free and yet cannot be offered, as it is out of use: what is owed is
    /// kept free elsewhere.
    /// Answers whether that is new.
    pub fn set_withheld(&mut self, agent_id: &AgentId, withheld: Quantities) -> bool {
        let Some(agent) = self.agent_number(agent_id) else {
            return false;
        };
        let known = self.agents[agent as usize].as_ref();
        let is_new = known.is_some_and(|known| known.withheld != withheld);
        if is_new {
            self.enter(Entry::Withheld { agent, withheld });
        }
        is_new
    }

    /// How much of what is owed is neither free nor can be offered.
    pub fn shortage(&self) -> Quantities {
        self.tree.shortage()
    }

    /// What was [said](Claims::set_withheld) of an agent.
    pub(super) fn withheld(&self, agent_id: &AgentId) -> Quantities {
        let agent = self
            .agent_number(agent_id)
            .map(|agent| &self.agents[agent as usize]);
        let known = agent.and_then(Option::as_ref);
        known.map_or(Quantities::ZERO, |known| known.withheld)
    }

    fn put_withheld(&mut self, agent: u32, withheld: Quantities) {
        if let Some(Some(agent)) = self.agents.get_mut(agent as usize) {
            self.tree.change_withheld(&agent.withheld, &withheld);
            agent.withheld = withheld;
        }
    }

    /// A role's weight, in thousandths.
    pub fn weight_milli(&self, role: &Role) -> u32 {
        let index = self.tree.role(role);
        index.map_or(DEFAULT_WEIGHT_MILLI, |index| self.tree.weight_milli(index))
    }

    /// The number of a framework in a role, which is its own while it is subscribed or holds something.
    pub fn member(&self, framework_id: &FrameworkId, role: &Role) -> Option<u32> {
        self.tree.member_of(framework_id, role)
    }

    /// The framework and the role of a member.
    pub fn names(&self, member: u32) -> Option<(&FrameworkId, &Role)> {
        let member = self.tree.member(member)?;
        Some((&member.framework_id, &member.role))
    }

    /// The name of a member for the world outside.
    pub fn seat(&self, member: u32) -> Option<Seat> {
        let born = NonZeroU64::new(self.tree.born(member))?;
        Some(Seat { member, born })
    }

    /// Whether who has had a seat has it still.
    fn is_taken(&self, seat: Seat) -> bool {
        self.tree.born(seat.member) == seat.born.get()
    }

    /// The framework and the role in a seat, unless they have left it.
    pub fn in_seat(&self, seat: Seat) -> Option<(&FrameworkId, &Role)> {
        self.names(seat.member).filter(|_| self.is_taken(seat))
    }

    /// The agent of a number.
    pub fn agent_id(&self, number: u32) -> Option<&AgentId> {
        let agent = self.agents.get(number as usize)?.as_ref()?;
        Some(&agent.id)
    }

    /// Counts resources as held (offered or allocated) by a framework in a role. The framework need
    /// not be known (yet): after a fail-over its tasks may be heard of before it is. Its seat, which it has at least
    /// until that is credited; none where there is nothing to be held.
    pub fn charge(
        &mut self,
        framework_id: &FrameworkId,
        role: &Role,
        resources: &Resources,
    ) -> Option<Seat> {
        if resources.is_zero() {
            return None;
        }
        let member = self.take_seat(framework_id, role);
        self.charge_member(member, resources);
        self.seat(member)
    }

    /// The number of a framework in a role, which is known from now on.
    fn take_seat(&mut self, framework_id: &FrameworkId, role: &Role) -> u32 {
        if let Some(member) = self.member(framework_id, role) {
            return member;
        }
        self.enter(Entry::Member {
            id: framework_id.clone(),
            role: role.clone(),
        });
        self.tree.intern(framework_id, role)
    }

    /// [`Claims::charge`] to a seat that is taken.
    pub fn charge_seat(&mut self, seat: Seat, resources: &Resources) {
        debug_assert!(self.in_seat(seat).is_some(), "{seat:?} is empty");
        self.charge_member(seat.member, resources);
    }

    /// Counts resources as held by a member.
    fn charge_member(&mut self, member: u32, resources: &Resources) {
        self.enter(Entry::Charge {
            member,
            resources: *resources,
        });
    }

    /// Counts resources as held no more.
    ///
    /// # Errors
    /// [`NotHeld`] when it holds less; nothing is changed then.
    pub fn credit(
        &mut self,
        framework_id: &FrameworkId,
        role: &Role,
        resources: &Resources,
    ) -> Result<(), NotHeld> {
        if resources.is_zero() {
            return Ok(());
        }
        let member = self.member(framework_id, role);
        if member.is_some_and(|member| self.credit_member(member, resources)) {
            return Ok(());
        }
        Err(NotHeld {
            framework_id: framework_id.clone(),
            role: role.clone(),
            resources: *resources,
        })
    }

    /// [`Claims::credit`] to a seat; false, and nothing is changed, where less is held there.
    #[must_use]
    pub fn credit_seat(&mut self, seat: Seat, resources: &Resources) -> bool {
        self.is_taken(seat) && self.credit_member(seat.member, resources)
    }

    /// Counts resources as held by a member no more; false, and nothing is changed, where it holds less.
    #[must_use]
    fn credit_member(&mut self, member: u32, resources: &Resources) -> bool {
        if !self.tree.credit(member, resources) {
            return false;
        }
        self.log.push(Entry::Credit {
            member,
            resources: *resources,
        });
        self.forget_if_idle(member);
        true
    }

    /// What the frameworks of a role hold.
    pub fn role_standing(&self, role: &Role) -> Standing {
        let index = self.tree.role(role);
        index.map_or_else(Standing::default, |index| self.tree.own_standing(index))
    }

    /// What a framework holds in a role.
    pub fn standing(&self, framework_id: &FrameworkId, role: &Role) -> Standing {
        let member = self.member(framework_id, role);
        member.map_or_else(Standing::default, |member| *self.tree.standing(member))
    }

    /// Notes that the proposals of a batch are being taken in: offered and charged, or rescinded.
    pub fn note_batch(&mut self, batch: BatchId) {
        self.enter(Entry::Batch(batch));
    }

    /// The last batch of a worker thread that is accounted for; 0 if there is none.
    pub fn last_batch(&self, worker: u32) -> u64 {
        self.batches.get(&worker).copied().unwrap_or(0)
    }

    /// Whether the proposals of a batch are accounted for.
    pub fn has_batch(&self, batch: BatchId) -> bool {
        self.last_batch(batch.worker) >= batch.number
    }

    /// The neediest member that wants a class, of those that were not set aside.
    pub(super) fn neediest(&mut self, class: Class) -> Option<u32> {
        self.tree.neediest(class)
    }

    /// The neediest role that is owed something of its own, and its neediest member.
    pub(super) fn neediest_creditor(&mut self) -> Option<(u32, u32)> {
        self.tree.neediest_creditor()
    }

    /// Whether what a role is owed of its own is worth an offer.
    pub(super) fn is_worth_paying(&self, role: u32) -> bool {
        self.tree.is_worth_paying(role)
    }

    /// What a member may be offered of what is owned; nothing where there is no bound but what is free.
    pub(super) fn room(&self, member: u32) -> Option<Room> {
        self.tree.room(member)
    }

    /// [`Claims::room`] once the member has taken so much of what is owned.
    pub(super) fn room_beyond(&self, member: u32, taken: &Quantities) -> Option<Room> {
        self.tree.room_beyond(member, Some(taken))
    }

    /// The most of what is lent that a member may be offered; nothing where there is no bound but what is free.
    pub(super) fn revocable_room(&self, member: u32) -> Option<Quantities> {
        self.tree.revocable_room(member)
    }

    /// Whether whoever has a seat may be offered so much: it passes no limit, and takes nothing that is owed to others.
    pub fn has_room(&self, seat: Seat, resources: &Resources) -> bool {
        let room = self.room(seat.member);
        let lent = self.revocable_room(seat.member);
        room.is_none_or(|room| room.most.contains(&resources.regular))
            && lent.is_none_or(|most| most.contains(&resources.revocable))
    }

    /// Whether nobody wants a class.
    pub(super) fn is_idle(&self, class: Class) -> bool {
        self.tree.is_idle(class)
    }

    /// Leaves a member or a role out of the order of a class until it is [brought back](Self::bring_back).
    pub(super) fn set_aside(&mut self, node: u32, class: Class) {
        self.tree.set_aside(node, class);
    }

    /// The reverse of [`Claims::set_aside`].
    pub(super) fn bring_back(&mut self, node: u32, class: Class) {
        self.tree.place(node, class);
    }

    /// Counts what a planner has proposed and the core does not know yet.
    pub(super) fn charge_ahead(&mut self, member: u32, resources: &Resources) {
        self.tree.charge(member, resources);
    }

    /// Enters what was charged ahead.
    pub fn adopt(&mut self, member: u32, resources: &Resources) {
        self.log.push(Entry::Charge {
            member,
            resources: *resources,
        });
    }

    /// The reverse of [`Claims::charge_ahead`].
    pub fn uncharge(&mut self, member: u32, resources: &Resources) {
        self.tree.uncharge(member, resources);
    }

    /// Whether a member may be offered a class.
    pub(super) fn wants(&self, member: u32, class: Class) -> bool {
        let member = self.tree.member(member);
        member.is_some_and(|member| member.wants[class as usize])
    }

    /// What is wrong with the book, if anything: for the checks after every step.
    pub fn fault(&self) -> Option<String> {
        let mut of_agents = vec![0; self.agents.len()];
        let mut users = 0;
        for (member, by) in self.tree.members() {
            for (agent, refusal) in by.refusals.iter() {
                users += 1;
                let Some(Some(of)) = self.agents.get(agent as usize) else {
                    return Some(format!("{member} has refused an agent that is gone"));
                };
                of_agents[agent as usize] += 1;
                let refused = self.profiles.get(refusal.profile);
                let is_marked = |class: Class| self.refused[class as usize].has(member, agent);
                if !Class::ALL
                    .into_iter()
                    .all(|class| is_marked(class) != class.part(refused).is_zero())
                {
                    return Some(format!(
                        "the refusal of {agent} by {member} is marked wrongly"
                    ));
                }
                let passed = Class::ALL.into_iter().any(|class| {
                    let part = class.part(refused);
                    let more = part.saturating_add(&Quantities::cpus_mem(1, 0));
                    !part.is_zero() && !of.meet.is_passed_by(class, &more)
                });
                if passed {
                    return Some(format!(
                        "agent {agent} knows nothing of a refusal by {member}"
                    ));
                }
            }
        }
        let counts = self
            .agents
            .iter()
            .map(|agent| agent.as_ref().map_or(0, |agent| agent.refusals));
        let marks = (0..self.agents.len() as u32).flat_map(|agent| {
            let marked = self
                .refused
                .iter()
                .flat_map(move |grid| grid.members(agent));
            BTreeSet::from_iter(marked)
        });
        if marks.count() != users {
            return Some(String::from("there are marks of refusals that are gone"));
        }
        if !counts.eq(of_agents) || users != self.refusals || self.profiles.len() > users {
            return Some(String::from("the refusals are counted wrongly"));
        }
        self.fault_of_access().or_else(|| self.tree.fault())
    }
}

#[cfg(test)]
mod tests;
