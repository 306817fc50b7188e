//! The slow reference: the cluster as lists, in which everything is added up anew, sorted and searched for each decision.

use std::collections::{BTreeMap, BTreeSet};

use ebb_types::{
    AgentId, AgentInfo, Attribute, AttributeValue, Constraint, FaultDomain, FrameworkId, GPUS,
    LotKey, LotValue, Lots, OfferTerms, Pattern, Predicate, Quantities, Quota, ResourceKind,
    Resources, Role, RoleTerms, Selector, Timestamp,
};

mod change;

pub(super) use change::{Change, apply};

use super::{framework, role};
use crate::core::claims::{Amounts, FrameworkTerms, Gatekeeper};
use crate::core::drf::Class;
use crate::core::limits::is_allocatable;

#[derive(Clone, Copy, Default)]
pub(super) struct Held {
    born: u64,
    sums: [[u128; ResourceKind::ALL.len()]; 2],
    /// What it holds of each of [`NAMES`].
    named: [u64; NAMES.len()],
    allocations: [u64; 2],
}

/// What is of no [`ResourceKind`].
pub(super) const NAMES: [&str; 2] = ["gpus", "licences"];

/// So much of each of them.
pub(super) fn amounts(of: [u64; NAMES.len()]) -> Amounts {
    let all = NAMES.into_iter().zip(of).filter(|(_, amount)| *amount > 0);
    all.map(|(name, amount)| (name.to_owned(), amount))
        .collect()
}

impl Held {
    pub(super) fn add(&mut self, resources: &Resources) {
        for class in Class::ALL {
            let part = class.part(resources);
            if !part.is_zero() {
                self.allocations[class as usize] += 1;
            }
            for kind in ResourceKind::ALL {
                self.sums[class as usize][kind as usize] += u128::from(part.get(kind));
            }
        }
    }

    pub(super) fn is_zero(&self) -> bool {
        self.sums == [[0; ResourceKind::ALL.len()]; 2] && self.named == [0; NAMES.len()]
    }

    pub(super) fn take(&mut self, resources: &Resources) -> bool {
        let mut next = *self;
        for class in Class::ALL {
            for kind in ResourceKind::ALL {
                let sum = &mut next.sums[class as usize][kind as usize];
                let Some(rest) = sum.checked_sub(u128::from(class.part(resources).get(kind)))
                else {
                    return false;
                };
                *sum = rest;
            }
        }
        *self = next;
        true
    }
}

/// A node of the tree of roles.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Name {
    Role(Role),
    /// The frameworks of a role.
    Own(Role),
    Member(Role, FrameworkId),
}

pub(super) fn parent(role: &Role) -> Option<Role> {
    let (parent, _) = role.as_str().rsplit_once('/')?;
    Some(Role::new(parent).unwrap())
}

impl Name {
    pub(super) fn parent(&self) -> Option<Self> {
        match self {
            Self::Role(role) => parent(role).map(Self::Role),
            Self::Own(role) => Some(Self::Role(role.clone())),
            Self::Member(role, _) => Some(Self::Own(role.clone())),
        }
    }

    /// It and all above it, the highest last.
    pub(super) fn line(&self) -> Vec<Self> {
        std::iter::successors(Some(self.clone()), Self::parent).collect()
    }
}

pub(super) type Who = (Role, FrameworkId);

/// More than the tests have of anything.
pub(super) const LARGEST: u64 = 1 << 45;

#[derive(Clone)]
pub(super) struct Refused {
    resources: Resources,
    expires: Timestamp,
}

/// Where an agent stands: its rack, and whether it is in another region.
pub(super) type Place = (u8, bool, bool);

/// The racks that suit a framework in a role; all do in the roles that are not named.
pub(super) type Racks = BTreeMap<Role, BTreeSet<u8>>;

/// The cluster as lists.
pub(super) struct Reference {
    /// Who looks at agents for the book.
    gate: Gatekeeper,
    places: BTreeMap<AgentId, Place>,
    racks: BTreeMap<FrameworkId, Racks>,
    agents: BTreeMap<AgentId, (Quantities, Quantities)>,
    named: BTreeMap<AgentId, [u64; NAMES.len()]>,
    frameworks: BTreeMap<FrameworkId, FrameworkTerms>,
    weights: BTreeMap<Role, u32>,
    quotas: BTreeMap<Role, Quota>,
    withheld: BTreeMap<AgentId, Quantities>,
    nodes: BTreeMap<Name, Held>,
    born: u64,
    refusals: BTreeMap<(Who, AgentId), Refused>,
}

impl Default for Reference {
    fn default() -> Self {
        Self {
            gate: Gatekeeper::new(Some(String::from("here"))),
            places: BTreeMap::new(),
            racks: BTreeMap::new(),
            agents: BTreeMap::new(),
            named: BTreeMap::new(),
            frameworks: BTreeMap::new(),
            weights: BTreeMap::new(),
            quotas: BTreeMap::new(),
            withheld: BTreeMap::new(),
            nodes: BTreeMap::new(),
            born: 0,
            refusals: BTreeMap::new(),
        }
    }
}

fn info_of(id: &AgentId, (rack, is_remote, has_gpus): Place) -> AgentInfo {
    let gpus = LotValue::Scalar(u64::from(has_gpus) * 1000);
    let gpus = (LotKey::named(GPUS), gpus);
    let region = if is_remote { "there" } else { "here" };
    AgentInfo {
        id: Some(id.clone()),
        hostname: id.to_string(),
        port: 0,
        total: Quantities::ZERO,
        lots: Lots::new(has_gpus.then_some(gpus)).unwrap(),
        lots_version: 0,
        attributes: vec![Attribute {
            name: String::from("rack"),
            value: AttributeValue::Text(format!("r{rack}")),
        }],
        version: String::new(),
        domain: Some(FaultDomain {
            region: region.to_owned(),
            zone: String::from("z"),
        }),
    }
}

/// The same as constraints: one group a rack, or one pattern for all.
fn as_terms(racks: &Racks) -> OfferTerms {
    let constraint = |predicate| Constraint {
        selector: Selector::Attribute(String::from("rack")),
        predicate,
    };
    let of_role = |(role, racks): (&Role, &BTreeSet<u8>)| {
        let names = racks.iter().map(|rack| format!("r{rack}"));
        let groups = if racks.is_empty() || racks.len() > 2 {
            let pattern = names.collect::<Vec<_>>().join("|");
            let pattern = Pattern::new(&format!("none|{pattern}")).unwrap();
            vec![vec![constraint(Predicate::TextMatches(pattern))]]
        } else {
            let group = |name| vec![constraint(Predicate::TextEquals(name))];
            names.map(group).collect()
        };
        let minimum = None;
        (role.clone(), RoleTerms { groups, minimum })
    };
    racks.iter().map(of_role).collect()
}

impl Reference {
    /// Whether somebody may not be offered an agent at all.
    pub(super) fn is_kept(&self, (role, framework): &Who, agent: &AgentId) -> bool {
        let (rack, is_remote, has_gpus) = self.places.get(agent).copied().unwrap_or_default();
        let racks = self.racks.get(framework).and_then(|racks| racks.get(role));
        let terms = self.frameworks.get(framework);
        let takes_any = terms.is_some_and(|terms| terms.any_region);
        let takes_gpus = terms.is_some_and(|terms| terms.takes_gpus);
        racks.is_some_and(|racks| !racks.contains(&rack))
            || is_remote && !takes_any
            || has_gpus && !takes_gpus
    }

    /// Whether a part is large enough for somebody.
    pub(super) fn admits(&self, (role, framework): &Who, part: &Quantities) -> bool {
        let terms = self.frameworks.get(framework);
        match terms
            .and_then(|terms| terms.minima.get(role))
            .map(|least| &**least)
        {
            None => is_allocatable(part),
            Some([]) => !part.is_zero(),
            Some(least) => least.iter().any(|least| part.contains(least)),
        }
    }

    /// Whether a part is large enough for anybody who is subscribed, or by what is usual.
    fn is_offerable(&self, part: &Quantities) -> bool {
        let takes_little = |least: &[Quantities]| {
            least.is_empty() || least.iter().any(|least| !is_allocatable(least))
        };
        let takes_little = self.frameworks.values().any(|terms| {
            let own = terms
                .minima
                .iter()
                .filter(|(role, _)| terms.roles.contains(*role));
            own.into_iter().any(|(_, least)| takes_little(least))
        });
        is_allocatable(part) || takes_little && !part.is_zero()
    }

    pub(super) fn wants(&self, class: Class, (role, framework): &Who) -> bool {
        self.frameworks.get(framework).is_some_and(|terms| {
            terms.active
                && terms.roles.contains(role)
                && !terms.suppressed.contains(role)
                && (class == Class::Regular || terms.revocable)
        })
    }

    /// Adds a node and all above it.
    pub(super) fn add(&mut self, name: &Name) {
        for name in name.line().into_iter().rev() {
            self.nodes.entry(name).or_insert_with(|| {
                self.born += 1;
                Held {
                    born: self.born,
                    ..Held::default()
                }
            });
        }
    }

    /// Whoever neither subscribes nor holds anything is forgotten, with the count of its allocations, and so are roles
    /// that nobody is in and that have no weight of their own.
    pub(super) fn forget(&mut self) {
        let frameworks = &self.frameworks;
        self.nodes.retain(|name, held| match name {
            Name::Member(role, framework) => {
                let terms = frameworks.get(framework);
                terms.is_some_and(|terms| terms.roles.contains(role)) || !held.is_zero()
            }
            _ => true,
        });
        loop {
            let parents: BTreeSet<Name> = self.nodes.keys().filter_map(Name::parent).collect();
            let (weights, quotas) = (&self.weights, &self.quotas);
            let before = self.nodes.len();
            self.nodes.retain(|name, _| match name {
                Name::Member(..) => true,
                Name::Own(_) => parents.contains(name),
                Name::Role(role) => {
                    parents.contains(name)
                        || weights.get(role).is_some_and(|weight| *weight != 1000)
                        || quotas.contains_key(role)
                }
            });
            if self.nodes.len() == before {
                break;
            }
        }
        let nodes = &self.nodes;
        let roles: BTreeSet<&Role> = nodes
            .keys()
            .filter_map(|name| match name {
                Name::Role(role) => Some(role),
                _ => None,
            })
            .collect();
        self.weights.retain(|role, _| roles.contains(role));
        self.refusals.retain(|((role, framework), agent), _| {
            let terms = frameworks.get(framework);
            terms.is_some_and(|terms| terms.active && terms.roles.contains(role))
                && self.agents.contains_key(agent)
        });
    }

    pub(super) fn share(&self, class: Class, name: &Name) -> (u128, u128) {
        let weight = match name {
            Name::Role(role) => u128::from(self.weights.get(role).copied().unwrap_or(1000)),
            _ => 1000,
        };
        let mut largest = (0, 1);
        for kind in ResourceKind::ALL {
            let of_class = |(total, lent): &(Quantities, Quantities)| match class {
                Class::Regular => u128::from(total.get(kind)),
                Class::Revocable => u128::from(lent.get(kind)),
            };
            let total: u128 = self.agents.values().map(of_class).sum();
            let used = self.nodes[name].sums[class as usize][kind as usize];
            if total > 0 && used * largest.1 > largest.0 * total * weight {
                largest = (used, total * weight);
            }
        }
        for name_at in (0..NAMES.len()).filter(|_| class == Class::Regular) {
            let all = self.named.values().map(|of| u128::from(of[name_at]));
            let (total, used) = (
                all.sum::<u128>(),
                u128::from(self.nodes[name].named[name_at]),
            );
            if total > 0 && used * largest.1 > largest.0 * total * weight {
                largest = (used, total * weight);
            }
        }
        largest
    }

    /// All who want something of a class, sorted by need: the children of each node apart.
    pub(super) fn by_need(&self, class: Class, above: Option<&Name>) -> Vec<Who> {
        let mut children: Vec<&Name> = self
            .nodes
            .keys()
            .filter(|name| name.parent().as_ref() == above)
            .collect();
        children.sort_by(|a, b| {
            let (x, y) = (self.share(class, a), self.share(class, b));
            let count = |name: &Name| self.nodes[name].allocations[class as usize];
            (x.0 * y.1)
                .cmp(&(y.0 * x.1))
                .then(count(a).cmp(&count(b)))
                .then(self.nodes[*a].born.cmp(&self.nodes[*b].born))
        });
        let below = |name: &Name| match name {
            Name::Role(role) if self.is_full(class, role) => Vec::new(),
            Name::Member(role, framework) => {
                let who = (role.clone(), framework.clone());
                Vec::from_iter(self.wants(class, &who).then_some(who))
            }
            _ => self.by_need(class, Some(name)),
        };
        children.into_iter().flat_map(below).collect()
    }

    pub(super) fn withholds(
        &self,
        class: Class,
        who: &Who,
        agent: &AgentId,
        free: &Resources,
    ) -> bool {
        let refused = self.refusals.get(&(who.clone(), agent.clone()));
        refused.is_some_and(|refused| class.part(&refused.resources).contains(class.part(free)))
    }

    pub(super) fn charge(&mut self, (role, framework): &Who, resources: &Resources) {
        for name in Name::Member(role.clone(), framework.clone()).line() {
            self.nodes.get_mut(&name).unwrap().add(resources);
        }
    }

    pub(super) fn held(&self, name: &Name, kind: ResourceKind) -> u128 {
        self.nodes[name].sums[Class::Regular as usize][kind as usize]
    }

    /// What a node, or all at the top, is owed of a kind if somebody took so much more.
    pub(super) fn owed(
        &self,
        name: Option<&Name>,
        kind: ResourceKind,
        (who, more): (&Who, u64),
    ) -> u128 {
        let children = self
            .nodes
            .keys()
            .filter(|one| one.parent().as_ref() == name);
        let below: u128 = children
            .map(|one| self.owed(Some(one), kind, (who, more)))
            .sum();
        let quota = match name {
            Some(Name::Role(role)) => self.quotas.get(role),
            _ => None,
        };
        let (Some(name), Some(quota)) = (name, quota) else {
            return below;
        };
        let is_above = Name::Own(who.0.clone()).line().contains(name);
        let held = self.held(name, kind) + if is_above { u128::from(more) } else { 0 };
        below.max(u128::from(quota.guarantee.get(kind)).saturating_sub(held))
    }

    /// What a role is owed beyond what its children are.
    pub(super) fn owed_itself(&self, role: &Role) -> Quantities {
        let (name, nobody) = (Name::Role(role.clone()), (role.clone(), framework(0)));
        Quantities::from_pairs(ResourceKind::ALL.map(|kind| {
            let owed = self.owed(Some(&name), kind, (&nobody, 0));
            let children = self
                .nodes
                .keys()
                .filter(|one| one.parent().as_ref() == Some(&name));
            let below: u128 = children
                .map(|one| self.owed(Some(one), kind, (&nobody, 0)))
                .sum();
            (kind, u64::try_from(owed - below).unwrap())
        }))
    }

    /// What the cluster has that is neither held nor withheld.
    pub(super) fn free(&self) -> Quantities {
        Quantities::from_pairs(ResourceKind::ALL.map(|kind| {
            let usable = self.usable(kind);
            let free = usable.saturating_sub(self.all_held(None, kind));
            (kind, u64::try_from(free).unwrap())
        }))
    }

    pub(super) fn usable(&self, kind: ResourceKind) -> u128 {
        let total = |(total, _): &(Quantities, Quantities)| u128::from(total.get(kind));
        let withheld = |withheld: &Quantities| u128::from(withheld.get(kind));
        let all: u128 = self.agents.values().map(total).sum();
        all.saturating_sub(self.withheld.values().map(withheld).sum())
    }

    /// What may be held of a kind below a node, or by all.
    pub(super) fn bound(&self, name: Option<&Name>, kind: ResourceKind) -> Option<u128> {
        match name {
            Some(Name::Role(role)) => self.quotas.get(role)?.limits.get(kind).map(u128::from),
            Some(_) => None,
            None => {
                let nobody = (role(0), framework(0));
                let is_owed = self.owed(None, kind, (&nobody, 0)) > 0;
                is_owed.then(|| self.usable(kind))
            }
        }
    }

    pub(super) fn all_held(&self, name: Option<&Name>, kind: ResourceKind) -> u128 {
        match name {
            Some(name) => self.held(name, kind),
            None => {
                let top = self.nodes.keys().filter(|one| one.parent().is_none());
                top.map(|one| self.held(one, kind)).sum()
            }
        }
    }

    /// What the limits of a role leave of a class.
    fn left(&self, class: Class, role: &Role) -> Quantities {
        let sums = &self.nodes[&Name::Role(role.clone())].sums[class as usize];
        let limits = self.quotas.get(role).map(|quota| match class {
            Class::Regular => quota.limits,
            Class::Revocable => quota.revocable_limits,
        });
        let limits = limits.unwrap_or_default();
        let left = limits.iter().map(|(kind, limit)| {
            let left = u128::from(limit).saturating_sub(sums[kind as usize]);
            (kind, u64::try_from(left).unwrap())
        });
        left.fold(Quantities::MAX, |all, (kind, left)| all.with(kind, left))
    }

    /// Whether the limits of a role leave nothing of a class that is worth an offer.
    pub(super) fn is_full(&self, class: Class, role: &Role) -> bool {
        !is_allocatable(&self.left(class, role))
    }

    /// The most of what is lent that somebody may be offered.
    pub(super) fn most_lent(&self, who: &Who) -> Quantities {
        let roles = std::iter::successors(Some(who.0.clone()), Role::parent);
        let left = roles.map(|role| self.left(Class::Revocable, &role));
        left.fold(Quantities::MAX, |most, left| most.min(&left))
    }

    pub(super) fn has_quota_of(&self, kind: ResourceKind) -> bool {
        let mut quotas = self.quotas.values();
        quotas.any(|quota| quota.guarantee.get(kind) > 0 || quota.limits.get(kind).is_some())
    }

    /// The largest amount for which something holds that holds for all smaller ones.
    pub(super) fn largest(holds: impl Fn(u64) -> bool) -> u64 {
        if holds(LARGEST) {
            return u64::MAX;
        }
        let (mut yes, mut no) = (0, LARGEST);
        while no - yes > 1 {
            let middle = yes.midpoint(no);
            if holds(middle) {
                yes = middle;
            } else {
                no = middle;
            }
        }
        yes
    }

    /// The most that somebody may be offered: no bound is passed, and wherever what is owed below it can be met it still
    /// can be afterwards, and else no less of it.
    pub(super) fn most(&self, who: &Who) -> Quantities {
        let line = Name::Own(who.0.clone()).line();
        let levels = || line.iter().map(Some).chain([None]);
        Quantities::from_pairs(ResourceKind::ALL.map(|kind| {
            if !self.has_quota_of(kind) {
                return (kind, u64::MAX);
            }
            let headroom = |name: Option<&Name>, bound: u128, more: u64| {
                let children = self
                    .nodes
                    .keys()
                    .filter(|one| one.parent().as_ref() == name);
                let below: u128 = children
                    .map(|one| self.owed(Some(one), kind, (who, more)))
                    .sum();
                let held = self.all_held(name, kind) + u128::from(more);
                bound.cast_signed() - held.cast_signed() - below.cast_signed()
            };
            let allows = |more| {
                levels().all(|name| {
                    let Some(bound) = self.bound(name, kind) else {
                        return true;
                    };
                    let is_within = self.all_held(name, kind) + u128::from(more) <= bound;
                    let before = headroom(name, bound, 0).min(0);
                    more == 0 || is_within && headroom(name, bound, more) >= before
                })
            };
            (kind, Self::largest(allows))
        }))
    }

    /// How much somebody can take without anything being taken that is not owed to it.
    pub(super) fn covers(&self, who: &Who) -> Quantities {
        Quantities::from_pairs(ResourceKind::ALL.map(|kind| {
            if !self.has_quota_of(kind) {
                return (kind, 0);
            }
            let owed = |more| self.owed(None, kind, (who, more));
            let is_owed = |more| owed(0) == owed(more) + u128::from(more);
            (kind, Self::largest(is_owed))
        }))
    }

    /// The offers of what is free of the agents, of which the first are offered first.
    pub(super) fn plan(
        &mut self,
        mut agents: Vec<(AgentId, Resources)>,
    ) -> Vec<(AgentId, Who, Resources)> {
        let mut offers: Vec<(AgentId, Who, Resources)> = Vec::new();
        self.hand_out(Class::Revocable, &mut agents, &mut offers);
        self.pay(&mut agents, &mut offers);
        self.hand_out(Class::Regular, &mut agents, &mut offers);
        offers
    }

    /// The first agent that suits somebody who may have so much of it.
    pub(super) fn first(
        &self,
        class: Class,
        who: &Who,
        most: &Quantities,
        agents: &[(AgentId, Resources)],
    ) -> Option<usize> {
        if !is_allocatable(most) {
            return None;
        }
        agents.iter().position(|(id, free)| {
            let mut part = *free;
            match class {
                Class::Regular => part.regular = part.regular.min(most),
                Class::Revocable => part.revocable = part.revocable.min(most),
            }
            self.admits(who, class.part(&part))
                && !self.is_kept(who, id)
                && !self.withholds(class, who, id, &part)
        })
    }

    pub(super) fn hand_out(
        &mut self,
        class: Class,
        agents: &mut [(AgentId, Resources)],
        offers: &mut Vec<(AgentId, Who, Resources)>,
    ) {
        let mut aside: BTreeSet<Who> = BTreeSet::new();
        loop {
            let mut by_need = self.by_need(class, None).into_iter();
            let Some(who) = by_need.find(|who| !aside.contains(who)) else {
                break;
            };
            let most = match class {
                Class::Regular => self.most(&who),
                Class::Revocable => self.most_lent(&who),
            };
            match self.first(class, &who, &most, agents) {
                Some(at) => self.offer(class, &who, &most, &mut agents[at], offers),
                None => {
                    aside.insert(who);
                }
            }
        }
    }

    /// What is owed comes first, to the neediest role that is owed something.
    pub(super) fn pay(
        &mut self,
        agents: &mut [(AgentId, Resources)],
        offers: &mut Vec<(AgentId, Who, Resources)>,
    ) {
        let class = Class::Regular;
        let (mut aside, mut roles_aside) = (BTreeSet::new(), BTreeSet::new());
        loop {
            let wants = |role: &Role, aside: &BTreeSet<Who>, roles_aside: &BTreeSet<Role>| {
                let by_need = self.by_need(class, Some(&Name::Role(role.clone())));
                let is_left = |who: &Who| {
                    let line = Name::Own(who.0.clone()).line();
                    let below = line
                        .iter()
                        .take_while(|name| **name != Name::Role(role.clone()));
                    let is_aside = |name: &Name| matches!(name, Name::Role(role) if roles_aside.contains(role));
                    !aside.contains(who) && !below.into_iter().any(is_aside)
                };
                by_need.into_iter().find(is_left)
            };
            let creditors = self.quotas.keys().filter(|role| {
                !roles_aside.contains(*role)
                    && !self.owed_itself(role).is_zero()
                    && wants(role, &aside, &roles_aside).is_some()
            });
            let neediest = creditors.min_by(|a, b| {
                let (a, b) = (Name::Role((*a).clone()), Name::Role((*b).clone()));
                let (x, y) = (self.share(class, &a), self.share(class, &b));
                let count = |name: &Name| self.nodes[name].allocations[class as usize];
                (x.0 * y.1)
                    .cmp(&(y.0 * x.1))
                    .then(count(&a).cmp(&count(&b)))
                    .then(self.nodes[&a].born.cmp(&self.nodes[&b].born))
            });
            let Some(role) = neediest.cloned() else { break };
            let who = wants(&role, &aside, &roles_aside).unwrap();
            let own = (role.clone(), who.1.clone());
            if !is_allocatable(&self.covers(&own)) {
                roles_aside.insert(role);
                continue;
            }
            let most = self.most(&who).min(&self.covers(&who));
            match self.first(class, &who, &most, agents) {
                Some(at) => self.offer(class, &who, &most, &mut agents[at], offers),
                None => {
                    aside.insert(who);
                }
            }
        }
    }

    pub(super) fn offer(
        &mut self,
        class: Class,
        who: &Who,
        most: &Quantities,
        (id, free): &mut (AgentId, Resources),
        offers: &mut Vec<(AgentId, Who, Resources)>,
    ) {
        let mut part = *free;
        part.revocable = part.revocable.min(&self.most_lent(who));
        match class {
            Class::Revocable if self.is_offerable(&free.regular) => part.regular = Quantities::ZERO,
            Class::Revocable => part.regular = part.regular.min(&self.most(who)),
            Class::Regular => {
                part.regular = part.regular.min(most);
                if !self.wants(Class::Revocable, who) {
                    part.revocable = Quantities::ZERO;
                }
            }
        }
        *free = free.checked_sub(&part).unwrap();
        self.charge(who, &part);
        let mut earlier = offers.iter_mut();
        match earlier.find(|offer| offer.0 == *id && offer.1 == *who) {
            Some(offer) => {
                for class in Class::ALL {
                    if [&offer.2, &part]
                        .iter()
                        .all(|one| !class.part(one).is_zero())
                    {
                        // It is one allocation.
                        for name in Name::Member(who.0.clone(), who.1.clone()).line() {
                            let held = self.nodes.get_mut(&name).unwrap();
                            held.allocations[class as usize] -= 1;
                        }
                    }
                }
                offer.2 = offer.2.checked_add(&part).unwrap();
            }
            None => offers.push((id.clone(), who.clone(), part)),
        }
    }
}
