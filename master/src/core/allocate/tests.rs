//! The plan against a slow, obvious reference that keeps everything in lists and sorts whenever it
//! is asked, on random small clusters that reach their state by random changes.

use std::collections::{BTreeMap, BTreeSet};

use ebb_types::{
    AgentId, FrameworkId, Incarnation, Quantities, ResourceKind, Resources, Role, Timestamp,
};
use proptest::prelude::*;

use super::{AgentView, Proposal, is_allocatable, plan};
use crate::core::drf::Class;
use crate::core::snapshot::{FrameworkTerms, RoleSnapshot};

const FRAMEWORKS: usize = 5;
const ROLES: usize = 3;
const AGENTS: usize = 6;
const MIB: u64 = 1 << 20;

fn framework(number: usize) -> FrameworkId {
    FrameworkId::new(format!("framework-{number}")).unwrap()
}

fn role(number: usize) -> Role {
    Role::new(format!("role-{number}")).unwrap()
}

fn agent(number: usize) -> AgentId {
    AgentId::new(format!("agent-{number}")).unwrap()
}

#[derive(Clone, Copy, Default)]
struct Held {
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

struct Refused {
    framework: FrameworkId,
    role: Role,
    agent: AgentId,
    resources: Resources,
    expires: Timestamp,
}

/// The cluster as lists.
#[derive(Default)]
struct Reference {
    agents: BTreeMap<AgentId, (Quantities, Quantities)>,
    frameworks: BTreeMap<FrameworkId, FrameworkTerms>,
    weights: BTreeMap<Role, u32>,
    held: BTreeMap<(Role, FrameworkId), Held>,
    of_roles: BTreeMap<Role, Held>,
    refusals: Vec<Refused>,
}

impl Reference {
    fn weight(&self, role: &Role) -> u128 {
        u128::from(self.weights.get(role).copied().unwrap_or(1000))
    }

    fn subscribed(&self, role: &Role, framework: &FrameworkId) -> bool {
        self.frameworks
            .get(framework)
            .is_some_and(|terms| terms.roles.contains(role))
    }

    fn wants(&self, class: Class, role: &Role, framework: &FrameworkId) -> bool {
        self.frameworks.get(framework).is_some_and(|terms| {
            terms.active
                && terms.roles.contains(role)
                && !terms.suppressed.contains(role)
                && (class == Class::Regular || terms.revocable)
        })
    }

    /// Who neither subscribes nor holds anything is forgotten, with the count of its allocations.
    fn forget(&mut self) {
        let idle: Vec<_> = self
            .held
            .iter()
            .filter(|((role, framework), held)| {
                !self.subscribed(role, framework) && held.sums == [[0; 4]; 2]
            })
            .map(|(key, _)| key.clone())
            .collect();
        for key in idle {
            self.held.remove(&key);
        }
        let held = &self.held;
        let weights = &self.weights;
        self.of_roles.retain(|role, _| {
            held.keys().any(|(of, _)| of == role) || weights.get(role).is_some_and(|w| *w != 1000)
        });
        let frameworks = &self.frameworks;
        self.refusals.retain(|refused| {
            frameworks
                .get(&refused.framework)
                .is_some_and(|terms| terms.active)
        });
        self.refusals.retain(|refused| {
            held.contains_key(&(refused.role.clone(), refused.framework.clone()))
        });
    }

    fn share(&self, class: Class, held: &Held, weight: u128) -> (u128, u128) {
        let mut largest = (0, 1);
        for kind in ResourceKind::ALL {
            let total: u128 = self
                .agents
                .values()
                .map(|(total, lent)| match class {
                    Class::Regular => u128::from(total.get(kind)),
                    Class::Revocable => u128::from(lent.get(kind)),
                })
                .sum();
            let used = held.sums[class as usize][kind as usize];
            if total > 0 && used * largest.1 > largest.0 * total * weight {
                largest = (used, total * weight);
            }
        }
        largest
    }

    /// All who want something of a class, sorted by need.
    fn by_need(&self, class: Class) -> Vec<(Role, FrameworkId)> {
        let by_share = |a: (u128, u128), b: (u128, u128)| (a.0 * b.1).cmp(&(b.0 * a.1));
        let count = |held: &Held| held.allocations[class as usize];
        let mut all: Vec<_> = self
            .held
            .keys()
            .filter(|(role, framework)| self.wants(class, role, framework))
            .cloned()
            .collect();
        all.sort_by(|a, b| {
            let roles = (self.of_roles[&a.0], self.of_roles[&b.0]);
            let members = (self.held[a], self.held[b]);
            let of_role = |held, role| self.share(class, held, self.weight(role));
            let of_member = |held| self.share(class, held, 1);
            by_share(of_role(&roles.0, &a.0), of_role(&roles.1, &b.0))
                .then(count(&roles.0).cmp(&count(&roles.1)))
                .then(a.0.cmp(&b.0))
                .then(by_share(of_member(&members.0), of_member(&members.1)))
                .then(count(&members.0).cmp(&count(&members.1)))
                .then(a.1.cmp(&b.1))
        });
        all
    }

    fn withheld(
        &self,
        who: &(Role, FrameworkId),
        agent: &AgentId,
        what: &Resources,
        now: Timestamp,
    ) -> bool {
        self.refusals.iter().any(|refused| {
            (&refused.role, &refused.framework) == (&who.0, &who.1)
                && refused.agent == *agent
                && refused.expires > now
                && refused.resources.contains(what)
        })
    }

    fn charge(&mut self, who: &(Role, FrameworkId), resources: &Resources) {
        self.held.entry(who.clone()).or_default().add(resources);
        self.of_roles
            .entry(who.0.clone())
            .or_default()
            .add(resources);
    }

    fn plan(&mut self, agents: &[AgentView], now: Timestamp) -> Vec<Proposal> {
        let mut proposals = Vec::new();
        for view in agents {
            let free = view.free;
            let (owns, lends) = (
                is_allocatable(&free.regular),
                is_allocatable(&free.revocable),
            );
            let mut shares: Vec<((Role, FrameworkId), Resources)> = Vec::new();
            let mut borrower = None;
            if lends {
                let mut resources = Resources::revocable(free.revocable);
                if !owns {
                    resources.regular = free.regular;
                }
                borrower = self
                    .by_need(Class::Revocable)
                    .into_iter()
                    .find(|who| !self.withheld(who, &view.agent_id, &resources, now));
                shares.extend(borrower.clone().map(|who| (who, resources)));
            }
            if owns {
                for who in self.by_need(Class::Regular) {
                    let lent_too = match &borrower {
                        Some(borrower) => *borrower == who,
                        None => self.wants(Class::Revocable, &who.0, &who.1),
                    };
                    let mut resources = Resources::regular(free.regular);
                    if lent_too {
                        resources.revocable = free.revocable;
                    }
                    if !self.withheld(&who, &view.agent_id, &resources, now) {
                        if borrower.as_ref() == Some(&who) {
                            shares.clear();
                        }
                        shares.insert(0, (who, resources));
                        break;
                    }
                }
            }
            for (who, resources) in shares {
                self.charge(&who, &resources);
                proposals.push(Proposal {
                    agent_id: view.agent_id.clone(),
                    incarnation: view.incarnation,
                    framework_id: who.1,
                    role: who.0,
                    resources,
                });
            }
        }
        proposals
    }
}

#[derive(Clone, Debug)]
enum Change {
    Agent(usize, Quantities, Quantities),
    AgentGone(usize),
    Framework(usize, FrameworkTerms),
    FrameworkGone(usize),
    Weight(usize, u32),
    Charge(usize, usize, Resources),
    Credit(usize, usize, Resources),
    Refuse(usize, usize, usize, Resources, u64),
    Revive(usize, usize),
    Expire(u64),
}

fn apply(change: &Change, snapshot: &mut RoleSnapshot, reference: &mut Reference) {
    match change {
        Change::Agent(number, total, lent) => {
            snapshot.set_agent(&agent(*number), *total, *lent);
            let old = reference.agents.insert(agent(*number), (*total, *lent));
            if old.is_some_and(|old| old.0 != *total) {
                reference
                    .refusals
                    .retain(|refused| refused.agent != agent(*number));
            }
        }
        Change::AgentGone(number) => {
            snapshot.remove_agent(&agent(*number));
            reference.agents.remove(&agent(*number));
            reference
                .refusals
                .retain(|refused| refused.agent != agent(*number));
        }
        Change::Framework(number, terms) => {
            snapshot.set_framework(&framework(*number), terms.clone());
            for role in &terms.roles {
                reference
                    .held
                    .entry((role.clone(), framework(*number)))
                    .or_default();
                reference.of_roles.entry(role.clone()).or_default();
            }
            reference
                .frameworks
                .insert(framework(*number), terms.clone());
        }
        Change::FrameworkGone(number) => {
            snapshot.remove_framework(&framework(*number));
            reference.frameworks.remove(&framework(*number));
        }
        Change::Weight(number, weight_milli) => {
            snapshot.set_weight(&role(*number), *weight_milli);
            reference.weights.insert(role(*number), *weight_milli);
            reference.of_roles.entry(role(*number)).or_default();
        }
        Change::Charge(who, of, resources) => {
            snapshot.charge(&framework(*who), &role(*of), resources);
            if !resources.is_zero() {
                reference.charge(&(role(*of), framework(*who)), resources);
            }
        }
        Change::Credit(who, of, resources) => {
            let key = (role(*of), framework(*who));
            let credited = snapshot.credit(&key.1, &key.0, resources).is_ok();
            let held = reference
                .held
                .get_mut(&key)
                .is_some_and(|held| held.take(resources));
            assert_eq!(credited, held || resources.is_zero(), "{change:?}");
            if held {
                assert!(reference.of_roles.get_mut(&key.0).unwrap().take(resources));
            }
        }
        Change::Refuse(who, of, on, resources, expires) => {
            let expires = Timestamp::from_ms(*expires);
            snapshot.refuse(
                &framework(*who),
                &role(*of),
                &agent(*on),
                resources,
                expires,
            );
            let known = reference.held.contains_key(&(role(*of), framework(*who)));
            if known && reference.agents.contains_key(&agent(*on)) {
                reference.refusals.push(Refused {
                    framework: framework(*who),
                    role: role(*of),
                    agent: agent(*on),
                    resources: *resources,
                    expires,
                });
            }
        }
        Change::Revive(who, of) => {
            snapshot.void_refusals(&framework(*who), &role(*of));
            reference.refusals.retain(|refused| {
                refused.framework != framework(*who) || refused.role != role(*of)
            });
        }
        Change::Expire(now) => {
            let now = Timestamp::from_ms(*now);
            snapshot.expire(now);
            reference.refusals.retain(|refused| refused.expires > now);
            assert!(snapshot.next_expiry().is_none_or(|next| next > now));
        }
    }
    reference.forget();
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
    let roles = || prop::collection::btree_set((0..ROLES).prop_map(role), 0..=ROLES);
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

fn change() -> impl Strategy<Value = Change> {
    let (who, of, on) = (0..FRAMEWORKS, 0..ROLES, 0..AGENTS);
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
        4 => (who.clone(), of.clone(), small()).prop_map(|(who, of, what)| Change::Charge(who, of, what)),
        3 => (who.clone(), of.clone(), small()).prop_map(|(who, of, what)| Change::Credit(who, of, what)),
        8 => (who.clone(), of.clone(), on, refused, 1..100u64)
            .prop_map(|(who, of, on, what, expires)| Change::Refuse(who, of, on, what, expires)),
        1 => (who, of).prop_map(|(who, of)| Change::Revive(who, of)),
        1 => (1..60u64).prop_map(Change::Expire),
    ]
}

fn views() -> impl Strategy<Value = Vec<AgentView>> {
    let view = (0..AGENTS, resources()).prop_map(|(number, free)| AgentView {
        agent_id: agent(number),
        incarnation: Incarnation(1),
        free,
    });
    prop::collection::vec(view, 0..12)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]

    #[test]
    fn the_plan_is_that_of_the_slow_reference(
        changes in prop::collection::vec(change(), 0..60), agents in views(), now in 0..100u64
    ) {
        let (mut snapshot, mut reference) = (RoleSnapshot::new(), Reference::default());
        for change in &changes {
            let before = snapshot.publish();
            apply(change, &mut snapshot, &mut reference);
            prop_assert_eq!(snapshot.publish().fault(), None, "after {:?}", change);
            prop_assert_eq!(before.fault(), None, "a published picture changed by {:?}", change);
        }
        let now = Timestamp::from_ms(now);
        let planned = plan(&snapshot, &agents, now);
        prop_assert_eq!(planned, reference.plan(&agents, now));
    }

    #[test]
    fn a_plan_never_passes_what_is_free_and_wastes_nothing_that_somebody_wants(
        changes in prop::collection::vec(change(), 20..60), agents in views()
    ) {
        let (mut snapshot, mut reference) = (RoleSnapshot::new(), Reference::default());
        for change in &changes {
            apply(change, &mut snapshot, &mut reference);
        }
        // No refusal lasts as long as this.
        let now = Timestamp::from_ms(1000);
        let planned = plan(&snapshot, &agents, now);
        let mut planned = planned.into_iter().peekable();
        for view in &agents {
            let mut rest = view.free;
            while let Some(proposal) = planned.next_if(|next| next.agent_id == view.agent_id
                && rest.contains(&next.resources)) {
                let wants = |class| reference.wants(class, &proposal.role, &proposal.framework_id);
                prop_assert!(wants(Class::Regular));
                prop_assert!(proposal.resources.revocable.is_zero() || wants(Class::Revocable));
                rest = rest.checked_sub(&proposal.resources).unwrap();
            }
            let wanted = |class| !reference.by_need(class).is_empty();
            prop_assert!(!is_allocatable(&rest.regular) || !wanted(Class::Regular));
            prop_assert!(!is_allocatable(&rest.revocable) || !wanted(Class::Revocable));
        }
        prop_assert_eq!(planned.next(), None);
    }
}

fn cluster(agents: usize, frameworks: &[(usize, bool)]) -> (RoleSnapshot, Vec<AgentView>) {
    let mut snapshot = RoleSnapshot::new();
    let total = Quantities::cpus_mem(4000, 8192 * MIB);
    let lent = Quantities::cpus_mem(2000, 0);
    for (number, revocable) in frameworks {
        let terms = FrameworkTerms {
            roles: BTreeSet::from([role(0)]),
            active: true,
            revocable: *revocable,
            ..FrameworkTerms::default()
        };
        snapshot.set_framework(&framework(*number), terms);
    }
    let views = (0..agents)
        .map(|number| {
            snapshot.set_agent(&agent(number), total, lent);
            AgentView {
                agent_id: agent(number),
                incarnation: Incarnation(1),
                free: Resources {
                    regular: total,
                    revocable: lent,
                },
            }
        })
        .collect();
    (snapshot, views)
}

fn takers(proposals: &[Proposal]) -> Vec<(String, bool, bool)> {
    proposals
        .iter()
        .map(|p| {
            let (owned, lent) = (
                p.resources.regular.is_zero(),
                p.resources.revocable.is_zero(),
            );
            (p.framework_id.to_string(), !owned, !lent)
        })
        .collect()
}

#[test]
fn both_parts_of_an_agent_that_fall_to_one_framework_make_one_offer() {
    let (snapshot, views) = cluster(1, &[(0, true)]);
    let proposals = plan(&snapshot, &views, Timestamp::from_ms(0));
    assert_eq!(takers(&proposals), [("framework-0".to_owned(), true, true)]);
}

#[test]
fn the_lent_part_goes_to_the_next_framework_that_may_have_it() {
    let (snapshot, views) = cluster(1, &[(0, false), (1, true)]);
    let proposals = plan(&snapshot, &views, Timestamp::from_ms(0));
    let expected = [
        ("framework-0".to_owned(), true, false),
        ("framework-1".to_owned(), false, true),
    ];
    assert_eq!(takers(&proposals), expected);
}

#[test]
fn borrowing_never_buys_less_of_what_is_owned() {
    let (mut snapshot, views) = cluster(2, &[(0, true), (1, true)]);
    let lent = Resources::revocable(Quantities::cpus_mem(2000, 0));
    snapshot.charge(&framework(0), &role(0), &lent);
    let proposals = plan(&snapshot, &views, Timestamp::from_ms(0));
    let owners: Vec<_> = proposals
        .iter()
        .filter(|proposal| !proposal.resources.regular.is_zero())
        .map(|proposal| proposal.framework_id.clone())
        .collect();
    assert_eq!(owners, [framework(0), framework(1)]);
    assert!(!proposals[0].resources.is_revocable());
}

#[test]
fn a_refusal_withholds_until_it_expires_and_no_offer_that_holds_more() {
    let (mut snapshot, mut views) = cluster(1, &[(0, true)]);
    let refused = views[0].free;
    let at = Timestamp::from_ms;
    snapshot.refuse(&framework(0), &role(0), &agent(0), &refused, at(50));
    assert_eq!(plan(&snapshot, &views, at(49)), []);
    assert_eq!(plan(&snapshot, &views, at(50)).len(), 1);
    views[0].free.revocable = Quantities::cpus_mem(2001, 0);
    let more = plan(&snapshot, &views, at(0));
    assert_eq!(takers(&more), [("framework-0".to_owned(), true, true)]);
    assert_eq!(snapshot.next_expiry(), Some(at(50)));
    assert_eq!(snapshot.expire(at(50)), BTreeSet::from([agent(0)]));
    assert_eq!(snapshot.refusals(), 0);
}

#[test]
fn reviving_voids_refusals_without_touching_them_and_they_leave_with_the_next() {
    let (mut snapshot, views) = cluster(1, &[(0, false)]);
    let at = Timestamp::from_ms;
    for round in 0..100 {
        snapshot.refuse(
            &framework(0),
            &role(0),
            &agent(0),
            &views[0].free,
            at(1000 + round),
        );
        assert_eq!(
            takers(&plan(&snapshot, &views, at(0))).len(),
            0,
            "round {round}"
        );
        snapshot.void_refusals(&framework(0), &role(0));
        assert_eq!(plan(&snapshot, &views, at(0)).len(), 1, "round {round}");
        assert_eq!(snapshot.refusals(), 1, "void refusals pile up");
        assert_eq!(snapshot.fault(), None);
    }
}

#[test]
fn refusals_of_one_framework_on_one_agent_are_bounded() {
    let (mut snapshot, _) = cluster(1, &[(0, false)]);
    for number in 0..100 {
        // Less CPU and more memory each time, so that none says all of another.
        let refused = Resources::regular(Quantities::cpus_mem(1000 - number, number));
        let expires = Timestamp::from_ms(1000 + number);
        snapshot.refuse(&framework(0), &role(0), &agent(0), &refused, expires);
    }
    assert_eq!(
        snapshot.refusals(),
        crate::core::snapshot::MAX_REFUSALS_PER_MEMBER
    );
    assert_eq!(snapshot.crowded_out(), 92);
    assert_eq!(snapshot.next_expiry(), Some(Timestamp::from_ms(1092)));
    assert_eq!(snapshot.fault(), None);
}

#[test]
fn weights_divide_the_cluster_in_their_proportion() {
    let (mut snapshot, views) = cluster(6, &[(0, false)]);
    let terms = FrameworkTerms {
        roles: BTreeSet::from([role(1)]),
        active: true,
        ..FrameworkTerms::default()
    };
    snapshot.set_framework(&framework(1), terms);
    snapshot.set_weight(&role(1), 2000);
    let proposals = plan(&snapshot, &views, Timestamp::from_ms(0));
    let of_role = |number| proposals.iter().filter(|p| p.role == role(number)).count();
    assert_eq!((of_role(0), of_role(1)), (2, 4));
}
