//! Why a framework is offered something now, or nothing: the rule of the plan (`allocate.rs`), asked of the core's own
//! books for one framework in one role.
//!
//! What is free of an agent is what the core knows: its total less what is held of it. The ledger is ahead of that by
//! what the allocator has just taken and not yet reported.
//!
//! Invariants, held by `allocate/tests/explain.rs`: [`found`] is what a pass offers of the agent where nobody else wants
//! anything; [`InLine::next`] is what a pass over all agents offers first of that class. The price: O(agents) for each
//! claim and O(siblings) for each of its levels, with at most [`MAX_EXPLAINED_CLAIMS`] claims.

use ebb_types::limits::{MAX_EXPLAINED_AGENTS, MAX_EXPLAINED_CLAIMS};
use ebb_types::{
    AgentCounts, AgentId, Away, Capability, ExplainSubject, ExplainedClaim, Explanation,
    FailedConstraint, FrameworkId, FreeCounts, InLine, Limits, OffersOut, OpenAgent, Quantities,
    ResourceKind, Resources, Role, Timestamp,
};

use super::claims::{Claims, Gate, Room};
use super::drf::Class;
use super::input::OperatorError;
use super::limits::{MAX_OFFERS, MIN_CPU_MILLI, MIN_MEM_BYTES, is_allocatable};
use super::record::Activity;
use super::state::{Core, Framework};

/// A usable agent as the books have it.
#[derive(Clone, Copy, Debug)]
pub(super) struct AgentFree<'a> {
    pub(super) id: &'a AgentId,
    /// Its number in the book of claims: agents are offered in the order of these.
    pub(super) number: u32,
    pub(super) free: Resources,
    /// What is out in offers.
    pub(super) offered: Resources,
}

/// A framework in a role as the plan sees it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asker<'a> {
    /// Its number in the book; none where it is not there and so has refused nothing.
    pub(super) member: Option<u32>,
    pub(super) takes_revocable: bool,
    /// What quotas leave it of what is owned; none where there are none.
    room: Option<Room>,
    /// What they leave it of what is lent.
    revocable_room: Option<Quantities>,
    /// Which agents it may be offered, and how much at least; none where it is not in the book.
    gate: Option<Gate<'a>>,
}

impl<'a> Asker<'a> {
    pub(super) fn new(claims: &'a Claims, member: Option<u32>, takes_revocable: bool) -> Self {
        Self {
            member,
            takes_revocable,
            room: member.and_then(|member| claims.room(member)),
            revocable_room: member.and_then(|member| claims.revocable_room(member)),
            gate: member.map(|member| claims.gate(member)),
        }
    }

    /// Whether quotas leave it enough for an offer: even to whoever takes little, they leave what is usual or nothing.
    fn has_room(&self, class: Class) -> bool {
        match class {
            Class::Regular => self.room.is_none_or(|room| is_allocatable(&room.most)),
            Class::Revocable => self.revocable_room.is_none_or(|most| is_allocatable(&most)),
        }
    }

    /// What quotas leave it of a part once it has taken so much; nothing where that is not enough for an offer.
    fn left_of(&self, claims: &Claims, part: &Quantities, taken: &Quantities) -> Quantities {
        let member = self.member.filter(|_| self.room.is_some());
        match member.and_then(|member| claims.room_beyond(member, taken)) {
            Some(room) if is_allocatable(&room.most) => part.min(&room.most),
            Some(_) => Quantities::ZERO,
            None => *part,
        }
    }

    /// Whether a part is large enough to be offered to it.
    fn admits(&self, part: &Quantities) -> bool {
        match &self.gate {
            Some(gate) => gate.floor.admits(part),
            None => is_allocatable(part),
        }
    }

    /// The kinds of which quotas leave it only so much.
    fn bounds(&self) -> Limits {
        let kinds = ResourceKind::ALL.into_iter();
        kinds.fold(Limits::NONE, |bounds, kind| {
            let most = self.room.map(|room| room.most.get(kind));
            bounds.with(kind, most.filter(|most| *most < u64::MAX))
        })
    }

    /// What of an agent's free resources it may be offered.
    fn may_have(&self, free: &Resources) -> Resources {
        let most = self.room.map(|room| room.most);
        Resources {
            regular: most.map_or(free.regular, |most| free.regular.min(&most)),
            revocable: (self.revocable_room)
                .map_or(free.revocable, |most| free.revocable.min(&most)),
        }
    }
}

/// What somebody finds at an agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// It would be offered this.
    Open(Resources),
    /// It has refused as much, until then.
    Refused(Timestamp),
    /// Quotas leave it less than is large enough.
    OverQuota,
    /// All that is large enough is revocable, which it does not take.
    OnlyRevocable,
    /// Its constraints keep it from the agent.
    Unsuited,
    /// The agent is in another region, of which it takes none.
    OtherRegion,
    /// The agent has GPUs, which it cannot use.
    Gpus,
    /// Nothing is as large as it states.
    BelowMinimum,
    /// Nothing is large enough.
    Small,
}

/// What a pass would offer an asker of the owned part of an agent where nobody else wants anything: what it is owed, then
/// what more it may have.
fn open_regular(claims: &Claims, asker: Asker<'_>, agent: &AgentFree<'_>) -> Quantities {
    let mut taken = paid(claims, asker, agent);
    // What it takes may be the last that is owed of a kind, of which it may have all then.
    loop {
        let free = agent.free.regular.saturating_sub(&taken);
        let rest = asker.left_of(claims, &free, &taken);
        if rest.is_zero() || !is_open(claims, asker, agent, &rest) {
            return taken;
        }
        taken = taken.saturating_add(&rest);
    }
}

/// What a pass would offer an asker of the owned part of an agent because it is owed it.
fn paid(claims: &Claims, asker: Asker<'_>, agent: &AgentFree<'_>) -> Quantities {
    let most = asker.room.map(|room| room.most.min(&room.covers));
    let most = most.filter(is_allocatable);
    let part = most.map_or(Quantities::ZERO, |most| agent.free.regular.min(&most));
    if is_open(claims, asker, agent, &part) {
        part
    } else {
        Quantities::ZERO
    }
}

fn is_open(claims: &Claims, asker: Asker<'_>, agent: &AgentFree<'_>, part: &Quantities) -> bool {
    let withheld = |member| claims.withholds(member, agent.number, Class::Regular, part);
    asker.admits(part) && !asker.member.is_some_and(withheld)
}

/// The classes of which a pass would offer an asker something of an agent, apart from what rides along.
fn opens(claims: &Claims, asker: Asker<'_>, agent: &AgentFree<'_>) -> [bool; Class::ALL.len()] {
    let class = Class::Revocable;
    let lent = asker.may_have(&agent.free).revocable;
    let withheld = |member| claims.withholds(member, agent.number, class, &lent);
    let is_lent = asker.takes_revocable
        && asker.has_room(class)
        && asker.admits(&lent)
        && !asker.member.is_some_and(withheld);
    [!open_regular(claims, asker, agent).is_zero(), is_lent]
}

fn may_take(asker: Asker<'_>, class: Class) -> bool {
    class == Class::Regular || asker.takes_revocable
}

/// What an asker finds at an agent where nobody else wants anything.
pub(super) fn found(claims: &Claims, asker: Asker<'_>, agent: &AgentFree<'_>) -> Found {
    match &asker.gate {
        Some(gate) if gate.is_remote(agent.number) => return Found::OtherRegion,
        Some(gate) if gate.has_gpus(agent.number) => return Found::Gpus,
        Some(gate) if gate.is_kept(agent.number) => return Found::Unsuited,
        _ => {}
    }
    let may_have = asker.may_have(&agent.free);
    let large = |class: Class, free: &Resources| asker.admits(class.part(free));
    let usual = |class: Class| may_take(asker, class) && is_allocatable(class.part(&agent.free));
    let mut would = Resources {
        regular: open_regular(claims, asker, agent),
        revocable: may_have.revocable,
    };
    match opens(claims, asker, agent) {
        [true, true] => {}
        [true, false] => {
            if !asker.takes_revocable {
                would.revocable = Quantities::ZERO;
            }
        }
        [false, true] => {
            if !claims.is_offerable(&agent.free.regular) {
                would.regular = may_have.regular;
            }
        }
        [false, false] => {
            let is_refused = (Class::ALL.into_iter()).any(|class| {
                may_take(asker, class) && asker.has_room(class) && large(class, &may_have)
            });
            let end = asker
                .member
                .and_then(|member| claims.refusal_end(member, agent.number));
            return match end {
                Some(end) if is_refused => Found::Refused(end),
                _ if Class::ALL
                    .into_iter()
                    .any(|class| may_take(asker, class) && large(class, &agent.free)) =>
                {
                    Found::OverQuota
                }
                _ if large(Class::Revocable, &agent.free) => Found::OnlyRevocable,
                _ if Class::ALL.into_iter().any(usual) => Found::BelowMinimum,
                _ => Found::Small,
            };
        }
    }
    Found::Open(would)
}

/// Whether an asker comes before all others with what is owned, because it is the neediest of those who are owed
/// something; nothing where nobody is.
fn is_paid_first(claims: &Claims, asker: Asker<'_>) -> Option<bool> {
    let (_, member) = claims.find_neediest_creditor()?;
    Some(Some(member) == asker.member)
}

/// What the usable agents, by rising number, hold for an asker, and the first open one of each class.
pub(super) fn survey(
    claims: &Claims,
    asker: Asker<'_>,
    agents: &[AgentFree<'_>],
) -> (FreeCounts, [Option<OpenAgent>; Class::ALL.len()]) {
    let is_paid_first = is_paid_first(claims, asker) == Some(true);
    let mut counts = FreeCounts::default();
    let mut first = [None, None];
    for agent in agents {
        let parts = || {
            Class::ALL
                .into_iter()
                .filter(|class| may_take(asker, *class))
        };
        let is_short = |is_enough: fn(&Quantities) -> bool| {
            !parts().any(|class| is_enough(class.part(&agent.free)))
        };
        counts.short_of_cpu += u64::from(is_short(|part| part.cpu_milli() >= MIN_CPU_MILLI));
        counts.short_of_mem += u64::from(is_short(|part| part.mem_bytes() >= MIN_MEM_BYTES));
        match found(claims, asker, agent) {
            Found::Open(resources) => {
                counts.open += 1;
                let open = |resources| OpenAgent {
                    agent_id: agent.id.clone(),
                    resources,
                };
                if counts.examples.len() < MAX_EXPLAINED_AGENTS {
                    counts.examples.push(open(resources));
                }
                let mut opens = opens(claims, asker, agent);
                // Whoever comes before all others does so with what it is owed.
                opens[0] &= !is_paid_first || !paid(claims, asker, agent).is_zero();
                for class in Class::ALL {
                    let slot = &mut first[class as usize];
                    if opens[class as usize] && slot.is_none() {
                        *slot = Some(open(only(class, &resources)));
                    }
                }
            }
            Found::Refused(end) => {
                counts.refused += 1;
                let earlier = counts.first_refusal_end.map_or(end, |first| first.min(end));
                counts.first_refusal_end = Some(earlier);
            }
            Found::OverQuota => {
                counts.over_quota += 1;
                let by_limits = asker
                    .room
                    .map(|room| room.by_limits.min(&agent.free.regular));
                let is_over = by_limits.is_some_and(|left| !asker.admits(&left));
                counts.over_limit += u64::from(is_over);
            }
            Found::OnlyRevocable => counts.only_revocable += 1,
            Found::Unsuited => counts.unsuited += 1,
            Found::OtherRegion => counts.other_region += 1,
            Found::Gpus => counts.with_gpus += 1,
            Found::BelowMinimum => counts.below_minimum += 1,
            Found::Small => {
                counts.small += 1;
                let back = agent.free.saturating_add(&agent.offered);
                let is_enough = parts().any(|class| asker.admits(class.part(&back)));
                counts.in_offers += u64::from(is_enough);
            }
        }
    }
    (counts, first)
}

const fn only(class: Class, resources: &Resources) -> Resources {
    match class {
        Class::Regular => Resources::regular(resources.regular),
        Class::Revocable => Resources::revocable(resources.revocable),
    }
}

/// Where an asker stands among those who want a class, and what it is offered first where it is the neediest.
pub(super) fn in_line(
    claims: &Claims,
    asker: Asker<'_>,
    class: Class,
    first: Option<OpenAgent>,
) -> InLine {
    let places = asker
        .member
        .map_or_else(Vec::new, |member| claims.places(member, class));
    let is_neediest = !places.is_empty() && places.iter().all(|place| place.place == 1);
    let is_first = match (class, is_paid_first(claims, asker)) {
        (Class::Regular, Some(is_paid_first)) => is_paid_first,
        _ => is_neediest,
    };
    InLine {
        next: first.filter(|_| is_first),
        places,
    }
}

impl Core {
    /// Why a framework, or the frameworks of a role, are offered something now, or nothing.
    ///
    /// # Errors
    /// [`OperatorError::NoFramework`]. A role that nobody is in is none: it has no claims.
    pub fn explain(
        &self,
        now: Timestamp,
        subject: ExplainSubject,
    ) -> Result<Explanation, OperatorError> {
        let meant = self.claims_of(&subject)?;
        let left_out = meant.len().saturating_sub(MAX_EXPLAINED_CLAIMS);
        let agents = self.usable_agents();
        let offers_full = self.offers.len() >= MAX_OFFERS;
        let explained = meant.into_iter().take(MAX_EXPLAINED_CLAIMS);
        let claims = explained.map(|(id, framework, role)| {
            self.explain_claim((id, framework), role, &agents, offers_full)
        });
        Ok(Explanation {
            at: now.max(self.now),
            subject: subject.clone(),
            agents: self.agent_counts(),
            minimum: Quantities::cpus_mem(MIN_CPU_MILLI, MIN_MEM_BYTES),
            offers_full,
            region: self.gate.region().cloned(),
            paid_first: self
                .roles
                .find_neediest_creditor()
                .map(|(role, _)| role.clone()),
            claims: claims.collect(),
            left_out: left_out as u64,
        })
    }

    fn claims_of<'a>(
        &'a self,
        subject: &'a ExplainSubject,
    ) -> Result<Vec<(&'a FrameworkId, &'a Framework, &'a Role)>, OperatorError> {
        match subject {
            ExplainSubject::Framework(id) => {
                let Some((id, framework)) = self.frameworks.get_key_value(id) else {
                    return Err(OperatorError::NoFramework(id.clone()));
                };
                let roles = framework.info.roles.iter();
                let held = framework.holdings.keys();
                let left = held.filter(|role| !framework.info.roles.contains(role));
                Ok(roles
                    .chain(left)
                    .map(|role| (id, framework, role))
                    .collect())
            }
            ExplainSubject::Role(role) => {
                let members = self.roles.frameworks_of(role);
                let known = members.filter_map(|id| {
                    let (id, framework) = self.frameworks.get_key_value(id)?;
                    Some((id, framework, role))
                });
                Ok(known.collect())
            }
        }
    }

    /// The agents that resources are offered of, in the order in which a pass looks at them.
    fn usable_agents(&self) -> Vec<AgentFree<'_>> {
        let usable = self.agents.iter().filter(|(_, agent)| agent.in_ledger);
        let known = usable.filter_map(|(id, agent)| {
            Some(AgentFree {
                id,
                number: self.roles.agent_number(id)?,
                free: agent.free(),
                offered: agent.holding.offered,
            })
        });
        let mut agents: Vec<AgentFree<'_>> = known.collect();
        agents.sort_unstable_by_key(|agent| agent.number);
        agents
    }

    fn agent_counts(&self) -> AgentCounts {
        let mut counts = AgentCounts {
            absent: self.absent.len() as u64,
            ..AgentCounts::default()
        };
        for (id, agent) in &self.agents {
            match (agent.in_ledger, agent.connection) {
                (true, _) => counts.usable += 1,
                (false, Some(_)) if agent.activity != Activity::Active => {
                    counts.inactive += 1;
                    counts.in_maintenance += u64::from(self.down_machine(id).is_some());
                }
                (false, Some(_)) if self.is_awaiting_agents() => counts.waiting += 1,
                (false, Some(_)) => counts.overfull += 1,
                (false, None) => counts.disconnected += 1,
            }
        }
        counts
    }

    fn explain_claim(
        &self,
        (id, framework): (&FrameworkId, &Framework),
        role: &Role,
        agents: &[AgentFree<'_>],
        offers_full: bool,
    ) -> ExplainedClaim {
        let takes_revocable = framework.info.has(Capability::RevocableResources);
        let asker = Asker::new(&self.roles, self.roles.member(id, role), takes_revocable);
        let (free, first) = survey(&self.roles, asker, agents);
        let [regular, revocable] = first.map(|open| open.filter(|_| !offers_full));
        ExplainedClaim {
            framework_id: id.clone(),
            framework_name: framework.info.name.clone(),
            role: role.clone(),
            away: framework.connection.is_none().then_some(Away {
                since: framework.away_since,
                until: framework.failover_deadline,
            }),
            subscribed: framework.info.roles.contains(role),
            suppressed: framework.suppressed.contains(role),
            takes_revocable: asker.takes_revocable,
            any_region: framework.info.has(Capability::RegionAware),
            takes_gpus: framework.info.has(Capability::GpuResources),
            minimum: framework
                .terms
                .get(role)
                .and_then(|terms| terms.minimum.as_deref())
                .map(<[Quantities]>::to_vec),
            failed: self.failed_constraints(id, role),
            offers: self.offers_out(framework, role),
            quotas: self.roles.quotas_above(role),
            lot_quotas: std::iter::successors(Some(role.clone()), Role::parent)
                .flat_map(|role| self.lot_quotas(&role))
                .collect(),
            most: asker.bounds(),
            free,
            regular: in_line(&self.roles, asker, Class::Regular, regular),
            revocable: in_line(&self.roles, asker, Class::Revocable, revocable),
        }
    }

    fn failed_constraints(&self, id: &FrameworkId, role: &Role) -> Vec<FailedConstraint> {
        let usable = self.agents.values().filter(|agent| agent.in_ledger);
        self.gate.failed(id, role, usable.map(|agent| &*agent.info))
    }

    fn offers_out(&self, framework: &Framework, role: &Role) -> OffersOut {
        let mut out = OffersOut::default();
        let offers = framework.offers.iter().filter_map(|id| self.offers.get(id));
        for offer in offers.filter(|offer| offer.role == *role) {
            out.count += 1;
            out.resources = out.resources.saturating_add(&offer.resources);
            out.first_deadline = match (out.first_deadline, offer.deadline) {
                (Some(a), Some(b)) => Some(a.min(b)),
                (a, b) => a.or(b),
            };
        }
        out
    }
}
