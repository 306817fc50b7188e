//! Who is offered what: a pure plan over a snapshot of the roles and views of the agents.
//!
//! One offer covers one agent and one role. As in Mesos the plan is coarse: the neediest suitable
//! framework takes all that it may of an agent, and its share counts for the next agent. The two
//! classes of resources are handed out apart, each in its own order of need: what is owned by
//! regular shares, what is lent by shares of what is lent, among those that may be offered it.
//! Where both parts of an agent fall to one framework they make one offer.
//!
//! A part that is too small to be offered by itself ([`MIN_CPU_MILLI`], [`MIN_MEM_BYTES`]) rides
//! along with the other part. An offer is withheld from a framework only when the whole of it is
//! within what that framework refused.
//!
//! The price: O(log members + log roles) an agent, plus one step for each claimant ahead of the taker
//! that refused this very agent. Suppressed, inactive and incapable frameworks are not in the order
//! and cost nothing. Nothing is copied from the snapshot but the claimants that a round touches.

mod queue;

use std::collections::BTreeMap;

use ebb_types::{AgentId, FrameworkId, Incarnation, Quantities, Resources, Role, Timestamp};

use self::queue::Queue;
use super::drf::Class;
use super::snapshot::{Claimants, DEFAULT_WEIGHT_MILLI, Member, RefusalReader, RoleSnapshot};

/// Resources are offered where they hold at least this much CPU, in thousandths of a core …
pub const MIN_CPU_MILLI: u64 = 10;
/// … or at least this much memory, in bytes. Both as in Mesos.
pub const MIN_MEM_BYTES: u64 = 32 * 1024 * 1024;

/// What the plan needs to know of an agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentView {
    /// The agent.
    pub agent_id: AgentId,
    /// Its life.
    pub incarnation: Incarnation,
    /// What can be offered.
    pub free: Resources,
}

/// Resources of one agent for one framework in one role: an offer without an id yet. They are
/// already offered in the ledger when the driver receives it from the allocator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proposal {
    /// The agent.
    pub agent_id: AgentId,
    /// Its life.
    pub incarnation: Incarnation,
    /// Who is to be offered them.
    pub framework_id: FrameworkId,
    /// For which of its roles.
    pub role: Role,
    /// What.
    pub resources: Resources,
}

/// Whether a part is large enough to be offered by itself.
pub const fn is_allocatable(part: &Quantities) -> bool {
    part.cpu_milli() >= MIN_CPU_MILLI || part.mem_bytes() >= MIN_MEM_BYTES
}

/// Plans offers for the agents in the given order.
pub fn plan(snapshot: &RoleSnapshot, agents: &[AgentView], now: Timestamp) -> Vec<Proposal> {
    let snapshot = snapshot.clone().publish();
    let mut round = Round::new(&snapshot, now);
    let mut proposals = Vec::new();
    for agent in agents {
        for choice in round
            .choose(&agent.agent_id, &agent.free)
            .into_iter()
            .flatten()
        {
            round.charge(&choice);
            proposals.extend(round.proposal(&choice, &agent.agent_id, agent.incarnation));
        }
    }
    proposals
}

/// A decision of a round: what falls to which member.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Choice {
    member: u32,
    pub(crate) resources: Resources,
}

/// One round of planning over a snapshot, and how the shares of those who were chosen have grown.
#[derive(Debug)]
pub(crate) struct Round<'a> {
    claimants: &'a Claimants,
    refusals: RefusalReader<'a>,
    now: Timestamp,
    classes: [ClassRound<'a>; Class::ALL.len()],
}

impl<'a> Round<'a> {
    /// A round over a published snapshot.
    pub(crate) fn new(snapshot: &'a RoleSnapshot, now: Timestamp) -> Self {
        let claimants = snapshot.claimants();
        debug_assert!(!claimants.is_stale(), "the snapshot was not published");
        Self {
            claimants,
            refusals: snapshot.refusal_reader(),
            now,
            classes: Class::ALL.map(|class| ClassRound::new(claimants, class)),
        }
    }

    /// Whether nobody can be offered anything.
    pub(crate) fn is_idle(&self) -> bool {
        Class::ALL
            .into_iter()
            .all(|class| self.claimants.order(class).is_empty())
    }

    /// Who should be offered the free resources of an agent: at most one for each class.
    pub(crate) fn choose(&mut self, agent_id: &AgentId, free: &Resources) -> [Option<Choice>; 2] {
        let owns = is_allocatable(&free.regular);
        let lends = is_allocatable(&free.revocable);
        if !owns && !lends {
            return [None, None];
        }
        let refusals = self.refusals.of(agent_id);
        let now = self.now;
        let suits = |index: u32, member: &Member, whole: &Resources| {
            refusals
                .is_none_or(|refusals| !refusals.withhold(index, member.refusals_from, whole, now))
        };
        let [regular, revocable] = &mut self.classes;
        let borrower = lends
            .then(|| {
                let resources = Resources {
                    regular: if owns { Quantities::ZERO } else { free.regular },
                    revocable: free.revocable,
                };
                let chosen = revocable.neediest(|index, member| {
                    suits(index, member, &resources).then_some(resources)
                });
                chosen.map(|(member, resources)| Choice { member, resources })
            })
            .flatten();
        let owner = owns
            .then(|| {
                let chosen = regular.neediest(|index, member| {
                    let takes_both = match &borrower {
                        Some(borrower) => borrower.member == index,
                        None => member.wants(Class::Revocable),
                    };
                    let revocable = if takes_both {
                        free.revocable
                    } else {
                        Quantities::ZERO
                    };
                    let whole = Resources {
                        regular: free.regular,
                        revocable,
                    };
                    suits(index, member, &whole).then_some(whole)
                });
                chosen.map(|(member, resources)| Choice { member, resources })
            })
            .flatten();
        match (&owner, &borrower) {
            (Some(owner_choice), Some(same)) if owner_choice.member == same.member => [owner, None],
            _ => [owner, borrower],
        }
    }

    /// Counts a choice in the shares of its taker.
    pub(crate) fn charge(&mut self, choice: &Choice) {
        for class in Class::ALL {
            let part = class.part(&choice.resources);
            if !part.is_zero() {
                self.classes[class as usize].charge(choice.member, part);
            }
        }
    }

    /// A choice with names instead of indices.
    pub(crate) fn proposal(
        &self,
        choice: &Choice,
        agent_id: &AgentId,
        incarnation: Incarnation,
    ) -> Option<Proposal> {
        let member = self.claimants.member(choice.member)?;
        let role = self.claimants.role(member.role)?;
        Some(Proposal {
            agent_id: agent_id.clone(),
            incarnation,
            framework_id: member.framework_id.clone(),
            role: role.role.clone(),
            resources: choice.resources,
        })
    }
}

/// The order of need of one class as it changes during a round.
#[derive(Debug)]
struct ClassRound<'a> {
    claimants: &'a Claimants,
    class: Class,
    roles: Queue<'a, Role>,
    /// The members of the roles that were looked at.
    members: BTreeMap<u32, Queue<'a, FrameworkId>>,
}

impl<'a> ClassRound<'a> {
    fn new(claimants: &'a Claimants, class: Class) -> Self {
        Self {
            claimants,
            class,
            roles: Queue::new(claimants.order(class)),
            members: BTreeMap::new(),
        }
    }

    /// The neediest member of the neediest role for which `test` has something.
    fn neediest<T>(&mut self, test: impl Fn(u32, &Member) -> Option<T>) -> Option<(u32, T)> {
        self.roles.rewind();
        while let Some(role) = self.roles.next() {
            let members = members_of(&mut self.members, self.claimants, self.class, role)?;
            members.rewind();
            while let Some(index) = members.next() {
                let member = self.claimants.member(index);
                if let Some(found) = member.and_then(|member| test(index, member)) {
                    return Some((index, found));
                }
            }
        }
        None
    }

    fn charge(&mut self, index: u32, part: &Quantities) {
        let (claimants, class) = (self.claimants, self.class);
        let cluster = claimants.totals(class);
        let Some(member) = claimants.member(index) else {
            return;
        };
        let Some(role) = claimants.role(member.role) else {
            return;
        };
        if let Some(place) = role.place(class) {
            let held = role.standing.held(class);
            self.roles
                .charge(place, held, part, cluster, role.weight_milli);
        }
        let members = members_of(&mut self.members, claimants, class, member.role);
        if let (Some(members), Some(place)) = (members, member.place(class)) {
            let held = member.standing.held(class);
            members.charge(place, held, part, cluster, DEFAULT_WEIGHT_MILLI);
        }
    }
}

fn members_of<'q, 'a>(
    queues: &'q mut BTreeMap<u32, Queue<'a, FrameworkId>>,
    claimants: &'a Claimants,
    class: Class,
    role: u32,
) -> Option<&'q mut Queue<'a, FrameworkId>> {
    let entry = claimants.role(role)?;
    Some(
        queues
            .entry(role)
            .or_insert_with(|| Queue::new(entry.order(class))),
    )
}

#[cfg(test)]
mod tests;
