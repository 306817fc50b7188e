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
    FrameworkId, FreeCounts, InLine, OffersOut, OpenAgent, Quantities, Resources, Role, Timestamp,
};

use super::allocate::{MIN_CPU_MILLI, MIN_MEM_BYTES, is_allocatable};
use super::claims::Claims;
use super::drf::Class;
use super::input::OperatorError;
use super::limits::MAX_OFFERS;
use super::record::Activity;
use super::state::{Agent, Core, Framework};

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
pub(super) struct Asker {
    /// Its number in the book; none where it is not there and so has refused nothing.
    pub(super) member: Option<u32>,
    pub(super) takes_revocable: bool,
}

/// What somebody finds at an agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// It would be offered this.
    Open(Resources),
    /// It has refused as much, until then.
    Refused(Timestamp),
    /// All that is large enough is revocable, which it does not take.
    OnlyRevocable,
    /// Nothing is large enough.
    Small,
}

/// The classes of which a pass would offer an asker something of an agent, apart from what rides along.
fn opens(claims: &Claims, asker: Asker, agent: &AgentFree<'_>) -> [bool; Class::ALL.len()] {
    Class::ALL.map(|class| {
        let part = class.part(&agent.free);
        let withheld = |member| claims.withholds(member, agent.number, class, part);
        may_take(asker, class) && is_allocatable(part) && !asker.member.is_some_and(withheld)
    })
}

fn may_take(asker: Asker, class: Class) -> bool {
    class == Class::Regular || asker.takes_revocable
}

/// What an asker finds at an agent where nobody else wants anything.
pub(super) fn found(claims: &Claims, asker: Asker, agent: &AgentFree<'_>) -> Found {
    let large = |class: Class| is_allocatable(class.part(&agent.free));
    let mut would = agent.free;
    match opens(claims, asker, agent) {
        [true, true] => {}
        [true, false] => {
            if !asker.takes_revocable {
                would.revocable = Quantities::ZERO;
            }
        }
        [false, true] => {
            if large(Class::Regular) {
                would.regular = Quantities::ZERO;
            }
        }
        [false, false] => {
            let is_refused =
                (Class::ALL.into_iter()).any(|class| may_take(asker, class) && large(class));
            let end = asker
                .member
                .and_then(|member| claims.refusal_end(member, agent.number));
            return match end {
                Some(end) if is_refused => Found::Refused(end),
                _ if large(Class::Revocable) => Found::OnlyRevocable,
                _ => Found::Small,
            };
        }
    }
    Found::Open(would)
}

/// What the usable agents, by rising number, hold for an asker, and the first open one of each class.
pub(super) fn survey(
    claims: &Claims,
    asker: Asker,
    agents: &[AgentFree<'_>],
) -> (FreeCounts, [Option<OpenAgent>; Class::ALL.len()]) {
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
                let opens = opens(claims, asker, agent);
                for class in Class::ALL {
                    let slot = &mut first[class as usize];
                    if opens[class as usize] && slot.is_none() {
                        *slot = Some(open(only(class, &agent.free)));
                    }
                }
            }
            Found::Refused(end) => {
                counts.refused += 1;
                let earlier = counts.first_refusal_end.map_or(end, |first| first.min(end));
                counts.first_refusal_end = Some(earlier);
            }
            Found::OnlyRevocable => counts.only_revocable += 1,
            Found::Small => {
                counts.small += 1;
                let back = agent.free.saturating_add(&agent.offered);
                let is_enough = parts().any(|class| is_allocatable(class.part(&back)));
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
    asker: Asker,
    class: Class,
    first: Option<OpenAgent>,
) -> InLine {
    let places = asker
        .member
        .map_or_else(Vec::new, |member| claims.places(member, class));
    let is_first = !places.is_empty() && places.iter().all(|place| place.place == 1);
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
                free: free_of(agent),
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
        for agent in self.agents.values() {
            match (agent.in_ledger, agent.connection) {
                (true, _) => counts.usable += 1,
                (false, Some(_)) if agent.activity != Activity::Active => counts.inactive += 1,
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
        let asker = Asker {
            member: self.roles.member(id, role),
            takes_revocable: framework.info.has(Capability::RevocableResources),
        };
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
            offers: self.offers_out(framework, role),
            free,
            regular: in_line(&self.roles, asker, Class::Regular, regular),
            revocable: in_line(&self.roles, asker, Class::Revocable, revocable),
        }
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

fn free_of(agent: &Agent) -> Resources {
    let all = Resources {
        regular: agent.info.total,
        revocable: agent.oversubscribed,
    };
    let held = (agent.holding.offered).saturating_add(&agent.holding.allocated);
    all.saturating_sub(&held)
}
