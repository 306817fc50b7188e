//! Who looks at the agents for those who choose among them: constraints, regions and GPUs, and what follows from them for
//! the [book](super::Claims).
//!
//! The gatekeeper stands beside the book, with its owner. An agent is looked at when it comes or changes, for every
//! framework in a role that has constraints; a framework's constraints are held against all agents when it states them.
//! What was found are entries of the book: planners see bits and no text.

use std::collections::{BTreeMap, BTreeSet};

use ebb_types::{
    AgentInfo, Constraint, FailedConstraint, FrameworkId, GPUS, OfferTerms, Role, RoleTerms,
};

use super::{Claims, Traits};

/// The constraints of all frameworks, and where the master stands.
#[derive(Debug, Default)]
pub(in crate::core) struct Gatekeeper {
    /// The master's region; without one no agent is remote.
    region: Option<String>,
    /// Those that have constraints.
    terms: BTreeMap<FrameworkId, BTreeMap<Role, RoleTerms>>,
    /// How much there is of them.
    size: Size,
}

/// How much is kept of constraints.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::core) struct Size {
    /// Frameworks in roles that have some.
    pub(in crate::core) claims: usize,
    /// Patterns in them.
    pub(in crate::core) patterns: usize,
}

impl Size {
    fn of<'a>(terms: impl Iterator<Item = &'a RoleTerms>) -> Self {
        let mut size = Self::default();
        for terms in terms.filter(|terms| !terms.groups.is_empty()) {
            size.claims += 1;
            size.patterns += terms.constraints().filter_map(Constraint::pattern).count();
        }
        size
    }
}

impl Gatekeeper {
    pub(in crate::core) fn new(region: Option<String>) -> Self {
        Self {
            region,
            ..Self::default()
        }
    }

    /// How much would be kept if a framework stated these terms.
    pub(in crate::core) fn would_have(&self, id: Option<&FrameworkId>, terms: &OfferTerms) -> Size {
        let old = id.and_then(|id| self.terms.get(id));
        let old = old.map_or_else(Size::default, |old| Size::of(old.values()));
        let new = Size::of(terms.values());
        Size {
            claims: self.size.claims - old.claims + new.claims,
            patterns: self.size.patterns - old.patterns + new.patterns,
        }
    }

    /// Takes in what a framework says of its roles, all anew. It stands in the book already.
    pub(in crate::core) fn set_terms<'a>(
        &mut self,
        claims: &mut Claims,
        id: &FrameworkId,
        (roles, terms): (&[Role], &OfferTerms),
        agents: impl Iterator<Item = &'a AgentInfo> + Clone,
    ) {
        self.size = self.would_have(Some(id), terms);
        let old = self.terms.remove(id).unwrap_or_default();
        let mut new = BTreeMap::new();
        for role in BTreeSet::from_iter(roles.iter().chain(old.keys())) {
            match terms.get(role).filter(|said| !said.groups.is_empty()) {
                Some(said) => {
                    claims.keep_member(id, role, unsuited(claims, said, agents.clone()));
                    new.insert(role.clone(), said.clone());
                }
                None => claims.keep_member(id, role, Vec::new()),
            }
        }
        if !new.is_empty() {
            self.terms.insert(id.clone(), new);
        }
    }

    /// Forgets a framework.
    pub(in crate::core) fn forget_framework(&mut self, id: &FrameworkId) {
        self.size = self.would_have(Some(id), &OfferTerms::new());
        self.terms.remove(id);
    }

    fn all(&self) -> impl Iterator<Item = (&FrameworkId, &Role, &RoleTerms)> {
        let all = self.terms.iter();
        all.flat_map(|(id, terms)| terms.iter().map(move |(role, terms)| (id, role, terms)))
    }

    /// Looks at an agent that has come, come back, or changed. It stands in the book already.
    pub(in crate::core) fn see_agent(&self, claims: &mut Claims, info: &AgentInfo) {
        let Some(agent) = info.id.as_ref().and_then(|id| claims.agent_number(id)) else {
            return;
        };
        let unsuited = self.all().filter(|(_, _, terms)| !terms.suits(info));
        let mut members: Vec<u32> = unsuited
            .filter_map(|(id, role, _)| claims.member(id, role))
            .collect();
        members.sort_unstable();
        claims.keep_agent(agent, self.traits(info), members);
    }

    /// Whether an agent is in another region than the master. One that says nothing is in the same.
    pub(in crate::core) fn is_remote(&self, info: &AgentInfo) -> bool {
        let of_agent = info.domain.as_ref().map(|domain| &domain.region);
        of_agent
            .zip(self.region.as_ref())
            .is_some_and(|(a, b)| a != b)
    }

    /// What of an agent concerns all who do not declare that they can deal with it.
    pub(in crate::core) fn traits(&self, info: &AgentInfo) -> Traits {
        Traits {
            is_remote: self.is_remote(info),
            has_gpus: has_gpus(info),
        }
    }

    /// The master's region.
    pub(in crate::core) const fn region(&self) -> Option<&String> {
        self.region.as_ref()
    }

    /// Which of a framework's constraints do not hold of the agents that they keep it from, and of how many.
    pub(in crate::core) fn failed<'a>(
        &self,
        id: &FrameworkId,
        role: &Role,
        agents: impl Iterator<Item = &'a AgentInfo>,
    ) -> Vec<FailedConstraint> {
        let Some(terms) = self.terms.get(id).and_then(|terms| terms.get(role)) else {
            return Vec::new();
        };
        let mut failed: BTreeMap<String, u64> = BTreeMap::new();
        for agent in agents.filter(|agent| !self.is_remote(agent) && !terms.suits(agent)) {
            let of_it = terms.constraints().filter(|one| !one.holds(agent));
            let distinct: BTreeSet<String> = of_it.map(ToString::to_string).collect();
            for constraint in distinct {
                *failed.entry(constraint).or_default() += 1;
            }
        }
        let failed = failed.into_iter();
        failed
            .map(|(constraint, agents)| FailedConstraint { constraint, agents })
            .collect()
    }
}

impl Gatekeeper {
    /// What the book has wrong of an agent, if anything: for checks after every step.
    pub(in crate::core) fn fault(&self, claims: &Claims, info: &AgentInfo) -> Option<String> {
        let agent = info.id.as_ref().and_then(|id| claims.agent_number(id))?;
        let wrong = self.all().find(|(id, role, terms)| {
            let member = claims.member(id, role);
            member.is_none_or(|member| claims.gate(member).is_kept(agent) == terms.suits(info))
        });
        let is_wrong_of_traits = claims.traits(agent) != self.traits(info);
        match wrong {
            Some((id, role, _)) => Some(format!(
                "it is noted wrongly whether {id} is kept from an agent in role {role}"
            )),
            None if is_wrong_of_traits => Some(String::from(
                "an agent's region, or whether it has GPUs, is noted wrongly",
            )),
            None if Size::of(self.all().map(|(_, _, terms)| terms)) != self.size => {
                Some(String::from("the constraints are counted wrongly"))
            }
            None => None,
        }
    }
}

/// Whether an agent has GPUs, reserved ones included.
pub(in crate::core) fn has_gpus(info: &AgentInfo) -> bool {
    info.lots.scalar(GPUS) > 0
}

/// Words of bits with the agents that do not suit.
fn unsuited<'a>(
    claims: &Claims,
    terms: &RoleTerms,
    agents: impl Iterator<Item = &'a AgentInfo>,
) -> Vec<u64> {
    let mut words = Vec::new();
    for info in agents.filter(|info| !terms.suits(info)) {
        let Some(number) = info.id.as_ref().and_then(|id| claims.agent_number(id)) else {
            continue;
        };
        let page = number as usize / 64;
        if page >= words.len() {
            words.resize(page + 1, 0);
        }
        words[page] |= 1 << (number % 64);
    }
    words
}
