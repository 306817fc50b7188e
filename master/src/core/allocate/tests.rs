//! The plan against a slow, obvious reference that keeps everything in lists and sorts whenever it
//! is asked, on random small clusters that reach their state by random changes.

mod explain;
mod fairness;
mod scenes;

use std::collections::{BTreeMap, BTreeSet};

use ebb_types::{
    AgentId, FrameworkId, Limits, Quantities, Quota, ResourceKind, Resources, Role, Timestamp,
};
use proptest::prelude::*;

use super::{AgentView, Outcome, Planner};
use crate::core::claims::{Claims, FrameworkTerms};
use crate::core::drf::Class;
use crate::core::limits::is_allocatable;

const FRAMEWORKS: usize = 5;
const ROLES: [&str; 5] = ["a", "a/b", "a/b/c", "d", "e/f"];
const AGENTS: usize = 6;
const MIB: u64 = 1 << 20;

fn framework(number: usize) -> FrameworkId {
    FrameworkId::new(format!("framework-{number}")).unwrap()
}

fn role(number: usize) -> Role {
    Role::new(ROLES[number]).unwrap()
}

fn agent(number: usize) -> AgentId {
    AgentId::new(format!("agent-{number}")).unwrap()
}

#[derive(Clone, Copy, Default)]
struct Held {
    born: u64,
    sums: [[u128; 4]; 2],
    allocations: [u64; 2],
}

impl Held {
    fn add(&mut self, resources: &Resources) {
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

    fn is_zero(&self) -> bool {
        self.sums == [[0; 4]; 2]
    }

    fn take(&mut self, resources: &Resources) -> bool {
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
enum Name {
    Role(Role),
    /// The frameworks of a role.
    Own(Role),
    Member(Role, FrameworkId),
}

fn parent(role: &Role) -> Option<Role> {
    let (parent, _) = role.as_str().rsplit_once('/')?;
    Some(Role::new(parent).unwrap())
}

impl Name {
    fn parent(&self) -> Option<Self> {
        match self {
            Self::Role(role) => parent(role).map(Self::Role),
            Self::Own(role) => Some(Self::Role(role.clone())),
            Self::Member(role, _) => Some(Self::Own(role.clone())),
        }
    }

    /// It and all above it, the highest last.
    fn line(&self) -> Vec<Self> {
        std::iter::successors(Some(self.clone()), Self::parent).collect()
    }
}

type Who = (Role, FrameworkId);

/// More than the tests have of anything.
const LARGEST: u64 = 1 << 45;

#[derive(Clone)]
struct Refused {
    resources: Resources,
    expires: Timestamp,
}

/// The cluster as lists.
#[derive(Default)]
struct Reference {
    agents: BTreeMap<AgentId, (Quantities, Quantities)>,
    frameworks: BTreeMap<FrameworkId, FrameworkTerms>,
    weights: BTreeMap<Role, u32>,
    quotas: BTreeMap<Role, Quota>,
    withheld: BTreeMap<AgentId, Quantities>,
    nodes: BTreeMap<Name, Held>,
    born: u64,
    refusals: BTreeMap<(Who, AgentId), Refused>,
}

impl Reference {
    fn wants(&self, class: Class, (role, framework): &Who) -> bool {
        self.frameworks.get(framework).is_some_and(|terms| {
            terms.active
                && terms.roles.contains(role)
                && !terms.suppressed.contains(role)
                && (class == Class::Regular || terms.revocable)
        })
    }

    /// Adds a node and all above it.
    fn add(&mut self, name: &Name) {
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
    fn forget(&mut self) {
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

    fn share(&self, class: Class, name: &Name) -> (u128, u128) {
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
        largest
    }

    /// All who want something of a class, sorted by need: the children of each node apart.
    fn by_need(&self, class: Class, above: Option<&Name>) -> Vec<Who> {
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
            Name::Role(role) if class == Class::Regular && self.is_full(role) => Vec::new(),
            Name::Member(role, framework) => {
                let who = (role.clone(), framework.clone());
                Vec::from_iter(self.wants(class, &who).then_some(who))
            }
            _ => self.by_need(class, Some(name)),
        };
        children.into_iter().flat_map(below).collect()
    }

    fn withholds(&self, class: Class, who: &Who, agent: &AgentId, free: &Resources) -> bool {
        let refused = self.refusals.get(&(who.clone(), agent.clone()));
        refused.is_some_and(|refused| class.part(&refused.resources).contains(class.part(free)))
    }

    fn charge(&mut self, (role, framework): &Who, resources: &Resources) {
        for name in Name::Member(role.clone(), framework.clone()).line() {
            self.nodes.get_mut(&name).unwrap().add(resources);
        }
    }

    fn held(&self, name: &Name, kind: ResourceKind) -> u128 {
        self.nodes[name].sums[Class::Regular as usize][kind as usize]
    }

    /// What a node, or all at the top, is owed of a kind if somebody took so much more.
    fn owed(&self, name: Option<&Name>, kind: ResourceKind, (who, more): (&Who, u64)) -> u128 {
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
    fn owed_itself(&self, role: &Role) -> Quantities {
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
    fn free(&self) -> Quantities {
        Quantities::from_pairs(ResourceKind::ALL.map(|kind| {
            let usable = self.usable(kind);
            let free = usable.saturating_sub(self.all_held(None, kind));
            (kind, u64::try_from(free).unwrap())
        }))
    }

    fn usable(&self, kind: ResourceKind) -> u128 {
        let total = |(total, _): &(Quantities, Quantities)| u128::from(total.get(kind));
        let withheld = |withheld: &Quantities| u128::from(withheld.get(kind));
        let all: u128 = self.agents.values().map(total).sum();
        all.saturating_sub(self.withheld.values().map(withheld).sum())
    }

    /// What may be held of a kind below a node, or by all.
    fn bound(&self, name: Option<&Name>, kind: ResourceKind) -> Option<u128> {
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

    fn all_held(&self, name: Option<&Name>, kind: ResourceKind) -> u128 {
        match name {
            Some(name) => self.held(name, kind),
            None => {
                let top = self.nodes.keys().filter(|one| one.parent().is_none());
                top.map(|one| self.held(one, kind)).sum()
            }
        }
    }

    /// Whether the limits of a role leave nothing that is worth an offer.
    fn is_full(&self, role: &Role) -> bool {
        let name = Name::Role(role.clone());
        self.quotas.get(role).is_some_and(|quota| {
            let left = quota.limits.iter().map(|(kind, limit)| {
                let left = u128::from(limit).saturating_sub(self.held(&name, kind));
                (kind, u64::try_from(left).unwrap())
            });
            let left = left.fold(Quantities::MAX, |all, (kind, left)| all.with(kind, left));
            !is_allocatable(&left)
        })
    }

    fn has_quota_of(&self, kind: ResourceKind) -> bool {
        let mut quotas = self.quotas.values();
        quotas.any(|quota| quota.guarantee.get(kind) > 0 || quota.limits.get(kind).is_some())
    }

    /// The largest amount for which something holds that holds for all smaller ones.
    fn largest(holds: impl Fn(u64) -> bool) -> u64 {
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
    fn most(&self, who: &Who) -> Quantities {
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
    fn covers(&self, who: &Who) -> Quantities {
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
    fn plan(&mut self, mut agents: Vec<(AgentId, Resources)>) -> Vec<(AgentId, Who, Resources)> {
        let mut offers: Vec<(AgentId, Who, Resources)> = Vec::new();
        self.hand_out(Class::Revocable, &mut agents, &mut offers);
        self.pay(&mut agents, &mut offers);
        self.hand_out(Class::Regular, &mut agents, &mut offers);
        offers
    }

    /// The first agent that suits somebody who may have so much of it.
    fn first(
        &self,
        class: Class,
        who: &Who,
        most: &Quantities,
        agents: &[(AgentId, Resources)],
    ) -> Option<usize> {
        agents.iter().position(|(id, free)| {
            let mut part = *free;
            if class == Class::Regular {
                part.regular = part.regular.min(most);
            }
            is_allocatable(class.part(&part)) && !self.withholds(class, who, id, &part)
        })
    }

    fn hand_out(
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
                Class::Revocable => Quantities::MAX,
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
    fn pay(
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

    fn offer(
        &mut self,
        class: Class,
        who: &Who,
        most: &Quantities,
        (id, free): &mut (AgentId, Resources),
        offers: &mut Vec<(AgentId, Who, Resources)>,
    ) {
        let mut part = *free;
        match class {
            Class::Revocable if is_allocatable(&free.regular) => part.regular = Quantities::ZERO,
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

#[derive(Clone, Debug)]
enum Change {
    Agent(usize, Quantities, Quantities),
    AgentGone(usize),
    Framework(usize, FrameworkTerms),
    FrameworkGone(usize),
    Weight(usize, u32),
    Quota(usize, Quota),
    Withheld(usize, Quantities),
    Charge(usize, usize, Resources),
    Credit(usize, usize, Resources),
    Refuse(usize, usize, usize, Resources, u64),
    Revive(usize, usize),
    Expire(u64),
}

fn apply(change: &Change, claims: &mut Claims, reference: &mut Reference) {
    match change {
        Change::Agent(number, total, lent) => {
            claims.set_agent(&agent(*number), *total, *lent);
            let old = reference.agents.insert(agent(*number), (*total, *lent));
            if old.is_some_and(|old| old.0 != *total) {
                reference
                    .refusals
                    .retain(|(_, on), _| *on != agent(*number));
            }
        }
        Change::AgentGone(number) => {
            claims.remove_agent(&agent(*number));
            reference.agents.remove(&agent(*number));
            reference.withheld.remove(&agent(*number));
        }
        Change::Framework(number, terms) => {
            claims.set_framework(&framework(*number), terms.clone());
            for role in &terms.roles {
                reference.add(&Name::Member(role.clone(), framework(*number)));
            }
            let id = framework(*number);
            reference.frameworks.insert(id, terms.clone());
        }
        Change::FrameworkGone(number) => {
            claims.remove_framework(&framework(*number));
            reference.frameworks.remove(&framework(*number));
        }
        Change::Weight(number, weight_milli) => {
            claims.set_weight(&role(*number), *weight_milli);
            reference.add(&Name::Role(role(*number)));
            reference.weights.insert(role(*number), *weight_milli);
        }
        Change::Quota(number, quota) => {
            let role = role(*number);
            claims.set_quota(&role, *quota);
            reference.add(&Name::Role(role.clone()));
            if quota.is_none() {
                reference.quotas.remove(&role);
            } else {
                reference.quotas.insert(role, *quota);
            }
        }
        Change::Withheld(number, withheld) => {
            claims.set_withheld(&agent(*number), *withheld);
            if reference.agents.contains_key(&agent(*number)) {
                reference.withheld.insert(agent(*number), *withheld);
            }
        }
        Change::Charge(who, of, resources) => {
            claims.charge(&framework(*who), &role(*of), resources);
            if !resources.is_zero() {
                reference.add(&Name::Member(role(*of), framework(*who)));
                reference.charge(&(role(*of), framework(*who)), resources);
            }
        }
        Change::Credit(who, of, resources) => {
            let credited = claims.credit(&framework(*who), &role(*of), resources);
            let name = Name::Member(role(*of), framework(*who));
            let held = reference.nodes.get_mut(&name);
            let held = held.is_some_and(|held| held.take(resources));
            assert_eq!(credited.is_ok(), held || resources.is_zero(), "{change:?}");
            if held {
                for name in &name.line()[1..] {
                    assert!(reference.nodes.get_mut(name).unwrap().take(resources));
                }
            }
        }
        Change::Refuse(who, of, on, resources, expires) => {
            let expires = Timestamp::from_ms(*expires);
            let (id, role, on) = (framework(*who), role(*of), agent(*on));
            claims.refuse(&id, &role, &on, resources, expires);
            let key = ((role, id), on);
            let says_all = reference.refusals.get(&key).is_some_and(|earlier| {
                earlier.expires >= expires && earlier.resources.contains(resources)
            });
            if !says_all && !resources.is_zero() {
                let refused = Refused {
                    resources: *resources,
                    expires,
                };
                reference.refusals.insert(key, refused);
            }
        }
        Change::Revive(who, of) => {
            claims.void_refusals(&framework(*who), &role(*of));
            let who = (role(*of), framework(*who));
            reference.refusals.retain(|(by, _), _| *by != who);
        }
        Change::Expire(now) => {
            let now = Timestamp::from_ms(*now);
            let woken = claims.expire(now);
            let ended = reference
                .refusals
                .extract_if(.., |_, refused| refused.expires <= now);
            let agents: BTreeSet<AgentId> = ended.map(|((_, on), _)| on).collect();
            assert_eq!(woken, agents);
            assert!(claims.next_expiry().is_none_or(|next| next > now));
        }
    }
    reference.forget();
    assert_eq!(claims.refusals(), reference.refusals.len(), "{change:?}");
}

fn quantities() -> impl Strategy<Value = Quantities> {
    let cpu = prop_oneof![Just(0u64), Just(5), Just(10), 0..6000u64];
    let mem = prop_oneof![Just(0u64), Just(31), Just(32), 0..300u64];
    (cpu, mem, 0..3u64).prop_map(|(cpu, mem, disk)| {
        Quantities::cpus_mem(cpu, mem * MIB).with(ResourceKind::Disk, disk * MIB)
    })
}

fn resources() -> impl Strategy<Value = Resources> {
    let part = || prop_oneof![1 => Just(Quantities::ZERO), 2 => quantities()];
    (part(), part()).prop_map(|(regular, revocable)| Resources { regular, revocable })
}

fn terms() -> impl Strategy<Value = FrameworkTerms> {
    let roles = || prop::collection::btree_set((0..ROLES.len()).prop_map(role), 0..=ROLES.len());
    (roles(), roles(), prop::bool::weighted(0.9), any::<bool>()).prop_map(
        |(roles, suppressed, active, revocable)| FrameworkTerms {
            suppressed: if roles.len() > 1 {
                suppressed
            } else {
                BTreeSet::new()
            },
            roles,
            active,
            revocable,
        },
    )
}

fn quota() -> impl Strategy<Value = Quota> {
    let amounts = || {
        (0..6u64, 0..6u64).prop_map(|(cpu, mem)| Quantities::cpus_mem(cpu * 700, mem * 40 * MIB))
    };
    let limits = (prop::option::of(0..8u64), prop::option::of(0..8u64)).prop_map(|(cpu, mem)| {
        Limits::NONE
            .with(ResourceKind::Cpus, cpu.map(|cpu| cpu * 700))
            .with(ResourceKind::Mem, mem.map(|mem| mem * 40 * MIB))
    });
    let quota = (amounts(), limits).prop_map(|(guarantee, limits)| Quota {
        guarantee: limits.iter().fold(guarantee, |least, (kind, limit)| {
            least.with(kind, least.get(kind).min(limit))
        }),
        limits,
    });
    prop_oneof![4 => quota, 1 => Just(Quota::default())]
}

fn change() -> impl Strategy<Value = Change> {
    let (who, of, on) = (0..FRAMEWORKS, 0..ROLES.len(), 0..AGENTS);
    let small = || {
        (0..3u64, 0..3u64).prop_map(|(cpu, mem)| Resources {
            regular: Quantities::cpus_mem(cpu * 1000, mem * 64 * MIB),
            revocable: Quantities::cpus_mem(mem * 500, 0),
        })
    };
    let all = Quantities::from_pairs(ResourceKind::ALL.map(|kind| (kind, 1 << 50)));
    let refused = prop_oneof![
        1 => resources(),
        2 => Just(Resources { regular: all, revocable: all }),
    ];
    prop_oneof![
        4 => (on.clone(), quantities(), quantities()).prop_map(|(on, total, lent)| Change::Agent(on, total, lent)),
        1 => on.clone().prop_map(Change::AgentGone),
        5 => (who.clone(), terms()).prop_map(|(who, terms)| Change::Framework(who, terms)),
        1 => who.clone().prop_map(Change::FrameworkGone),
        1 => (of.clone(), 1..4u32).prop_map(|(of, weight)| Change::Weight(of, weight * 500)),
        3 => (of.clone(), quota()).prop_map(|(of, quota)| Change::Quota(of, quota)),
        1 => (on.clone(), quantities()).prop_map(|(on, withheld)| Change::Withheld(on, withheld)),
        4 => (who.clone(), of.clone(), small()).prop_map(|(who, of, what)| Change::Charge(who, of, what)),
        3 => (who.clone(), of.clone(), small()).prop_map(|(who, of, what)| Change::Credit(who, of, what)),
        8 => (who.clone(), of.clone(), on, refused, 1..100u64)
            .prop_map(|(who, of, on, what, expires)| Change::Refuse(who, of, on, what, expires)),
        1 => (who, of).prop_map(|(who, of)| Change::Revive(who, of)),
        1 => (1..60u64).prop_map(Change::Expire),
    ]
}

fn frees() -> impl Strategy<Value = BTreeMap<usize, Resources>> {
    prop::collection::btree_map(0..AGENTS, resources(), 0..=AGENTS)
}

/// What is free of the agents that the book knows, by their numbers in it.
fn known(
    claims: &Claims,
    frees: &BTreeMap<usize, Resources>,
) -> BTreeMap<u32, (AgentId, Resources)> {
    let numbered = frees.iter().filter_map(|(at, free)| {
        let number = claims.agent_number(&agent(*at))?;
        Some((number, (agent(*at), *free)))
    });
    numbered.collect()
}

/// The plan with names, where nobody is in the way.
fn plan(
    planner: &mut Planner,
    known: &BTreeMap<u32, (AgentId, Resources)>,
) -> Vec<(AgentId, Who, Resources)> {
    let mut left: Vec<Resources> = known.values().map(|(_, free)| *free).collect();
    let views = known.iter().map(|(agent, (_, free))| AgentView {
        agent: *agent,
        free: *free,
    });
    let views: Vec<AgentView> = views.collect();
    let choices = planner.plan(&views, |position, part| {
        left[position] = left[position]
            .checked_sub(part)
            .expect("it is offered twice");
        Outcome::Offered
    });
    let ids: Vec<&AgentId> = known.values().map(|(id, _)| id).collect();
    let named = choices.into_iter().map(|choice| {
        let (framework, role) = planner.claims().names(choice.member).unwrap();
        let who = (role.clone(), framework.clone());
        (ids[choice.position].clone(), who, choice.resources)
    });
    named.collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]

    #[test]
    fn the_plan_is_that_of_the_slow_reference_and_of_every_copy(
        changes in prop::collection::vec(change(), 0..60), frees in frees(), more in prop::collection::vec(change(), 0..6)
    ) {
        let (mut claims, mut reference) = (Claims::new(), Reference::default());
        let (mut follower, mut ahead) = (Planner::default(), Planner::default());
        for (at, change) in changes.iter().chain(&more).enumerate() {
            if at == changes.len() {
                // One that has planned meanwhile.
                let known = known(&claims, &frees);
                plan(&mut ahead, &known);
            }
            apply(change, &mut claims, &mut reference);
            prop_assert_eq!(claims.fault(), None, "after {:?}", change);
            let entries = claims.publish();
            follower.follow(&entries);
            ahead.follow(&entries);
        }
        ahead.forget_proposals();
        prop_assert_eq!(follower.claims().fault(), None);
        prop_assert_eq!(ahead.claims().fault(), None);
        let known = known(&claims, &frees);
        let planned = plan(&mut Planner::new(claims.copy()), &known);
        prop_assert_eq!(&plan(&mut follower, &known), &planned);
        prop_assert_eq!(&plan(&mut ahead, &known), &planned);
        follower.forget_proposals();
        prop_assert_eq!(follower.claims().fault(), None);
        prop_assert_eq!(&plan(&mut follower, &known), &planned, "again");
        let agents = known.into_values().collect();
        prop_assert_eq!(planned, reference.plan(agents));
    }

    #[test]
    fn a_plan_never_passes_what_is_free_and_wastes_nothing_that_somebody_wants(
        changes in prop::collection::vec(change(), 20..60), frees in frees()
    ) {
        let (mut claims, mut reference) = (Claims::new(), Reference::default());
        // Quotas keep things free; and no refusal lasts as long as this.
        let changes = changes.iter().filter(|change| !matches!(change, Change::Quota(..)));
        for change in changes.chain([&Change::Expire(1000)]) {
            apply(change, &mut claims, &mut reference);
        }
        let mut known = known(&claims, &frees);
        let planned = plan(&mut Planner::new(claims), &known);
        let mut rest: BTreeMap<AgentId, Resources> = std::mem::take(&mut known).into_values().collect();
        for (agent, who, resources) in planned {
            let left = rest.get_mut(&agent).unwrap();
            *left = left.checked_sub(&resources).unwrap();
            prop_assert!(reference.wants(Class::Regular, &who));
            prop_assert!(resources.revocable.is_zero() || reference.wants(Class::Revocable, &who));
        }
        for class in Class::ALL {
            let wanted = !reference.by_need(class, None).is_empty();
            let wasted = rest.values().any(|left| is_allocatable(class.part(left)));
            prop_assert!(!wasted || !wanted);
        }
    }
}

/// Others are faster, or the agent goes: what is proposed is what was committed, nobody is looked at for ever, and all
/// is as before once the proposals are forgotten.
#[test]
fn a_plan_goes_on_where_others_are_faster() {
    let (claims, frees) = cluster(4, &[(0, true), (1, false)]);
    let known = known(&claims, &frees);
    let mut planner = Planner::new(claims);
    let mut asked = [0; 4];
    let views = known.iter().map(|(agent, (_, free))| AgentView {
        agent: *agent,
        free: *free,
    });
    let half = Resources::regular(Quantities::cpus_mem(2000, 0));
    let views: Vec<AgentView> = views.collect();
    let choices = planner.plan(&views, |position, part| {
        asked[position] += 1;
        match position {
            0 => Outcome::Gone,
            1 => Outcome::Changed(*part),
            2 if asked[2] == 1 => Outcome::Changed(half),
            _ => Outcome::Offered,
        }
    });
    assert_eq!(asked[0], 1);
    assert_eq!(asked[1], super::MAX_LOOKS_PER_AGENT);
    let of_third: Vec<_> = choices
        .iter()
        .filter(|choice| choice.position == 2)
        .collect();
    assert_eq!((of_third.len(), of_third[0].resources), (1, half));
    assert!(choices.iter().all(|choice| choice.position >= 2));
    planner.forget_proposals();
    assert_eq!(planner.claims().fault(), None);
}

fn cluster(agents: usize, frameworks: &[(usize, bool)]) -> (Claims, BTreeMap<usize, Resources>) {
    let mut claims = Claims::new();
    let total = Quantities::cpus_mem(4000, 8192 * MIB);
    let lent = Quantities::cpus_mem(2000, 0);
    for (number, revocable) in frameworks {
        join(&mut claims, *number, 0, *revocable);
    }
    let free = Resources {
        regular: total,
        revocable: lent,
    };
    for number in 0..agents {
        claims.set_agent(&agent(number), total, lent);
    }
    (claims, (0..agents).map(|number| (number, free)).collect())
}

fn join(claims: &mut Claims, number: usize, of: usize, revocable: bool) {
    let terms = FrameworkTerms {
        roles: BTreeSet::from([role(of)]),
        active: true,
        revocable,
        ..FrameworkTerms::default()
    };
    claims.set_framework(&framework(number), terms);
}

/// Who is offered something: what is owned, what is lent.
fn takers(claims: &Claims, frees: &BTreeMap<usize, Resources>) -> Vec<(String, bool, bool)> {
    let planned = plan(&mut Planner::new(claims.copy()), &known(claims, frees));
    let named = planned.into_iter().map(|(_, who, resources)| {
        let owned = !resources.regular.is_zero();
        let lent = !resources.revocable.is_zero();
        (who.1.to_string(), owned, lent)
    });
    named.collect()
}

#[test]
fn both_parts_of_an_agent_that_fall_to_one_framework_make_one_offer() {
    let (claims, frees) = cluster(1, &[(0, true)]);
    let expected = [("framework-0".to_owned(), true, true)];
    assert_eq!(takers(&claims, &frees), expected);
}

#[test]
fn the_lent_part_goes_to_the_framework_that_may_have_it() {
    let (claims, frees) = cluster(1, &[(0, false), (1, true)]);
    let expected = [
        ("framework-1".to_owned(), false, true),
        ("framework-0".to_owned(), true, false),
    ];
    assert_eq!(takers(&claims, &frees), expected);
}

#[test]
fn borrowing_never_buys_less_of_what_is_owned() {
    let (mut claims, mut frees) = cluster(2, &[(0, true), (1, true)]);
    let lent = Resources::revocable(Quantities::cpus_mem(2000, 0));
    claims.charge(&framework(0), &role(0), &lent);
    for free in frees.values_mut() {
        free.revocable = Quantities::ZERO;
    }
    let expected = ["framework-0", "framework-1"].map(|id| (id.to_owned(), true, false));
    assert_eq!(takers(&claims, &frees), expected);
}

#[test]
fn a_refusal_withholds_until_it_expires_and_nothing_that_is_more() {
    let (mut claims, mut frees) = cluster(1, &[(0, true)]);
    let refused = frees[&0];
    let at = Timestamp::from_ms;
    claims.refuse(&framework(0), &role(0), &agent(0), &refused, at(50));
    assert_eq!(claims.expire(at(49)), BTreeSet::new());
    assert_eq!(takers(&claims, &frees), []);
    frees.get_mut(&0).unwrap().revocable = Quantities::cpus_mem(2001, 0);
    let more = [("framework-0".to_owned(), false, true)];
    assert_eq!(takers(&claims, &frees), more);
    frees.get_mut(&0).unwrap().revocable = Quantities::cpus_mem(2000, 0);
    assert_eq!(claims.next_expiry(), Some(at(50)));
    assert_eq!(claims.expire(at(50)), BTreeSet::from([agent(0)]));
    assert_eq!(takers(&claims, &frees).len(), 1);
    assert_eq!(claims.refusals(), 0);
}

#[test]
fn refusals_that_are_voided_again_and_again_take_no_memory() {
    let (mut claims, frees) = cluster(1, &[(0, false)]);
    let mut planner = Planner::new(claims.copy());
    for round in 0..20_000 {
        let expires = Timestamp::from_ms(1_000_000 + round);
        claims.refuse(&framework(0), &role(0), &agent(0), &frees[&0], expires);
        assert_eq!(claims.refusals(), 1);
        claims.void_refusals(&framework(0), &role(0));
        planner.follow(&claims.publish());
    }
    assert_eq!(claims.fault(), None);
    assert_eq!(claims.refusals(), 0);
    assert!(
        claims.next_expiry() > Some(Timestamp::from_ms(1_010_000)),
        "void ones pile up"
    );
    assert_eq!(takers(&claims, &frees).len(), 1);
}

#[test]
fn weights_divide_the_cluster_in_their_proportion() {
    let (mut claims, frees) = cluster(6, &[(0, false)]);
    join(&mut claims, 1, 3, false);
    claims.set_weight(&role(3), 2000);
    let takers = takers(&claims, &frees);
    let of = |id: &str| takers.iter().filter(|taker| taker.0 == id).count();
    assert_eq!((of("framework-0"), of("framework-1")), (2, 4));
}

#[test]
fn roles_below_a_role_share_what_it_gets_with_its_own_frameworks_as_one() {
    // "a" with two frameworks of its own and "a/b" below it stands beside "d".
    let (mut claims, frees) = cluster(8, &[(0, false), (1, false)]);
    join(&mut claims, 2, 1, false);
    join(&mut claims, 3, 3, false);
    let takers = takers(&claims, &frees);
    let of = |id: &str| takers.iter().filter(|taker| taker.0 == id).count();
    let ids = ["framework-0", "framework-1", "framework-2", "framework-3"];
    assert_eq!(ids.map(of), [1, 1, 2, 4]);
}
