//! The plan against a slow, obvious reference that keeps everything in lists and sorts whenever it
//! is asked, on random small clusters that reach their state by random changes.

mod explain;
mod fairness;
mod reference;
mod scenes;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ebb_types::{
    AgentId, FrameworkId, Incarnation, Limits, Quantities, Quota, ResourceKind, Resources, Role,
    Timestamp,
};
use proptest::prelude::*;

use reference::{Change, NAMES, Racks, Reference, Who, apply};

use super::{AgentView, Outcome, Planner};
use crate::core::claims::{Claims, FrameworkTerms};
use crate::core::drf::Class;

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
    let able = || any::<bool>();
    let flags = (prop::bool::weighted(0.9), able(), able(), able());
    (roles(), roles(), flags, minima()).prop_map(
        |(roles, suppressed, (active, revocable, any_region, takes_gpus), minima)| FrameworkTerms {
            suppressed: if roles.len() > 1 {
                suppressed
            } else {
                BTreeSet::new()
            },
            roles,
            active,
            revocable,
            any_region,
            takes_gpus,
            minima,
        },
    )
}

/// The least that is stated in some roles: much, little, one of several, or something.
fn minima() -> impl Strategy<Value = BTreeMap<Role, Arc<[Quantities]>>> {
    let least = prop_oneof![
        Just(Vec::new()),
        Just(vec![Quantities::cpus_mem(3, 0)]),
        Just(vec![Quantities::cpus_mem(1500, 40 * MIB)]),
        Just(vec![
            Quantities::cpus_mem(0, 100 * MIB),
            Quantities::cpus_mem(2500, 0)
        ]),
    ];
    let of_role = ((0..ROLES.len()).prop_map(role), least.prop_map(Arc::from));
    prop_oneof![
        2 => Just(BTreeMap::new()),
        1 => prop::collection::vec(of_role, 1..3).prop_map(BTreeMap::from_iter),
    ]
}

/// The racks that suit in some roles.
fn racks() -> impl Strategy<Value = Racks> {
    let of_role = (0..ROLES.len(), prop::collection::btree_set(0..3u8, 0..=3));
    let of_role = of_role.prop_map(|(of, racks)| (role(of), racks));
    prop_oneof![
        1 => Just(Racks::new()),
        1 => prop::collection::vec(of_role, 1..3).prop_map(Racks::from_iter),
    ]
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
    let of_lent = (prop::option::of(0..8u64), prop::option::of(0..8u64)).prop_map(|(cpu, mem)| {
        Limits::NONE
            .with(ResourceKind::Cpus, cpu.map(|cpu| cpu * 400))
            .with(ResourceKind::Mem, mem.map(|mem| mem * 30 * MIB))
    });
    let of_lent = prop_oneof![Just(Limits::NONE), of_lent];
    let quota =
        (amounts(), limits, of_lent).prop_map(|(guarantee, limits, revocable_limits)| Quota {
            guarantee: limits.iter().fold(guarantee, |least, (kind, limit)| {
                least.with(kind, least.get(kind).min(limit))
            }),
            limits,
            revocable_limits,
        });
    prop_oneof![4 => quota, 1 => Just(Quota::default())]
}

fn named() -> impl Strategy<Value = [u64; NAMES.len()]> {
    prop::array::uniform2(0..4u64)
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
        2 => (on.clone(), (0..3u8, prop::bool::weighted(0.2), prop::bool::weighted(0.2))).prop_map(|(on, place)| Change::Place(on, place)),
        5 => (who.clone(), terms(), racks())
            .prop_map(|(who, terms, racks)| Change::Framework(who, terms, racks)),
        1 => who.clone().prop_map(Change::FrameworkGone),
        1 => (of.clone(), 1..4u32).prop_map(|(of, weight)| Change::Weight(of, weight * 500)),
        3 => (of.clone(), quota()).prop_map(|(of, quota)| Change::Quota(of, quota)),
        1 => (on.clone(), quantities()).prop_map(|(on, withheld)| Change::Withheld(on, withheld)),
        4 => (who.clone(), of.clone(), small()).prop_map(|(who, of, what)| Change::Charge(who, of, what)),
        3 => (who.clone(), of.clone(), small()).prop_map(|(who, of, what)| Change::Credit(who, of, what)),
        2 => (on.clone(), named()).prop_map(|(on, amounts)| Change::Named(on, amounts)),
        2 => (who.clone(), of.clone(), named()).prop_map(|(who, of, what)| Change::ChargeNamed(who, of, what)),
        1 => (who.clone(), of.clone(), named()).prop_map(|(who, of, what)| Change::CreditNamed(who, of, what)),
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
        incarnation: Incarnation(1),
        agent: *agent,
        free: *free,
    });
    let views: Vec<AgentView> = views.collect();
    planner.plan(&views, |position, part| {
        left[position] = left[position]
            .checked_sub(part)
            .expect("it is offered twice");
        Outcome::Offered
    });
    let ids: Vec<&AgentId> = known.values().map(|(id, _)| id).collect();
    let named = planner.choices().iter().map(|choice| {
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
            prop_assert!(!reference.is_kept(&who, &agent));
            let mut parts = Class::ALL.into_iter().map(|class| class.part(&resources));
            prop_assert!(parts.any(|part| reference.admits(&who, part)));
        }
        for class in Class::ALL {
            let all = reference.by_need(class, None);
            for (agent, left) in &rest {
                let takes = |who: &&Who| {
                    !reference.is_kept(who, agent) && reference.admits(who, class.part(left))
                };
                prop_assert_eq!(all.iter().find(takes), None, "{:?} of {} is left", left, agent);
            }
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
        incarnation: Incarnation(1),
        agent: *agent,
        free: *free,
    });
    let half = Resources::regular(Quantities::cpus_mem(2000, 0));
    let views: Vec<AgentView> = views.collect();
    planner.plan(&views, |position, part| {
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
    let choices = planner.choices();
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
