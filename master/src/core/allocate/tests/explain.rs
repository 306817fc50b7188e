//! What is explained against what a pass does, on the random clusters of the plan's own tests.

use super::*;
use crate::core::explain::{AgentFree, Asker, Found, found, in_line, survey};

type Known = BTreeMap<u32, (AgentId, Resources)>;

fn reached(changes: &[Change]) -> Claims {
    let (mut claims, mut reference) = (Claims::new(), Reference::default());
    for change in changes {
        apply(change, &mut claims, &mut reference);
    }
    claims
}

fn as_agents(known: &Known) -> Vec<AgentFree<'_>> {
    let all = known.iter().map(|(number, (id, free))| AgentFree {
        id,
        number: *number,
        free: *free,
        offered: Resources::ZERO,
    });
    all.collect()
}

fn asker<'a>(claims: &'a Claims, who: &Who) -> Asker<'a> {
    let terms = claims.framework(&who.1);
    let takes_revocable = terms.is_some_and(|terms| terms.revocable);
    Asker::new(claims, claims.member(&who.1, &who.0), takes_revocable)
}

fn wants(claims: &Claims, who: &Who) -> bool {
    let member = claims.member(&who.1, &who.0);
    member.is_some_and(|member| claims.wants(member, Class::Regular))
}

/// Everybody in every role.
fn everybody() -> impl Iterator<Item = Who> {
    (0..FRAMEWORKS).flat_map(|one| (0..ROLES.len()).map(move |of| (role(of), framework(one))))
}

/// The same book, in which nobody else wants anything; what was refused stays so.
fn alone(claims: &Claims, who: &Who) -> Claims {
    let mut claims = claims.copy();
    for number in 0..FRAMEWORKS {
        let id = framework(number);
        if let Some(mut terms) = claims.framework(&id).cloned() {
            let of_it = terms
                .roles
                .iter()
                .filter(|role| (*role, &id) != (&who.0, &who.1));
            terms.suppressed.extend(of_it.cloned());
            claims.set_framework(&id, terms);
        }
    }
    claims
}

fn frees_without_lent(frees: &BTreeMap<usize, Resources>) -> BTreeMap<usize, Resources> {
    let owned = |free: &Resources| Resources::regular(free.regular);
    frees.iter().map(|(at, free)| (*at, owned(free))).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn what_is_explained_as_open_is_what_a_pass_offers_where_nobody_else_wants_anything(
        changes in prop::collection::vec(change(), 0..60), frees in frees()
    ) {
        let (mut claims, mut reference) = (Claims::new(), Reference::default());
        for change in &changes {
            apply(change, &mut claims, &mut reference);
        }
        // No agent has more free than the cluster.
        let most = reference.free();
        let mut known = known(&claims, &frees);
        for (_, free) in known.values_mut() {
            free.regular = free.regular.min(&most);
        }
        let agents = as_agents(&known);
        for who in everybody() {
            let asker = asker(&claims, &who);
            let alone = alone(&claims, &who);
            let mut offered = BTreeMap::new();
            // Of each agent by itself: by quotas what is offered of one counts for the next.
            for (number, agent) in &known {
                let only = BTreeMap::from([(*number, agent.clone())]);
                for (agent, to, what) in plan(&mut Planner::new(alone.copy()), &only) {
                    prop_assert_eq!(&to, &who);
                    prop_assert_eq!(offered.insert(agent, what), None);
                }
            }
            let (counts, _) = survey(&claims, asker, &agents);
            let ebb_types::FreeCounts { open, refused, over_quota, only_revocable, small, .. } = counts;
            let ebb_types::FreeCounts { unsuited, other_region, with_gpus, below_minimum, .. } = counts;
            let by_terms = unsuited + other_region + with_gpus + below_minimum;
            let all = open + refused + over_quota + only_revocable + small + by_terms;
            prop_assert_eq!(all, agents.len() as u64);
            if !wants(&claims, &who) {
                prop_assert_eq!(offered, BTreeMap::new());
                continue;
            }
            prop_assert_eq!(counts.open, offered.len() as u64, "{:?}", counts);
            for agent in &agents {
                let open = match found(&claims, asker, agent) {
                    Found::Open(resources) => Some(resources),
                    _ => None,
                };
                prop_assert_eq!(open.as_ref(), offered.get(agent.id), "{:?}", agent);
            }
            for example in &counts.examples {
                prop_assert_eq!(Some(&example.resources), offered.get(&example.agent_id));
            }
        }
    }

    #[test]
    fn whoever_is_explained_to_be_next_is_the_first_whom_a_pass_offers_anything(
        changes in prop::collection::vec(change(), 0..60), frees in frees()
    ) {
        let claims = reached(&changes);
        // What is lent is handed out first; without it the first offer is of what is owned.
        for (class, frees) in [(Class::Revocable, frees.clone()), (Class::Regular, frees_without_lent(&frees))] {
            let known = known(&claims, &frees);
            let agents = as_agents(&known);
            let planned = plan(&mut Planner::new(claims.copy()), &known);
            let mut nexts = 0;
            for who in everybody() {
                let asker = asker(&claims, &who);
                let (_, first) = survey(&claims, asker, &agents);
                let line = in_line(&claims, asker, class, first[class as usize].clone());
                if let Some(next) = line.next {
                    nexts += 1;
                    let (agent, to, what) = &planned[0];
                    prop_assert_eq!((agent, to), (&next.agent_id, &who));
                    prop_assert!(!class.part(&next.resources).is_zero());
                    let is_bounded = claims.has_quotas();
                    prop_assert!(is_bounded || class.part(what) == class.part(&next.resources));
                    prop_assert!(class.part(what).contains(class.part(&next.resources)) || is_bounded);
                }
            }
            prop_assert!(nexts <= 1, "several are next");
            if let Some((agent, to, _)) = planned.first() {
                let at = agents.iter().find(|one| one.id == agent).unwrap();
                prop_assert!(matches!(found(&claims, asker(&claims, to), at), Found::Open(_)));
            }
        }
    }

    #[test]
    fn places_are_those_of_the_slow_reference(changes in prop::collection::vec(change(), 0..60)) {
        let (mut claims, mut reference) = (Claims::new(), Reference::default());
        for change in &changes {
            apply(change, &mut claims, &mut reference);
        }
        for class in Class::ALL {
            let sorted = reference.by_need(class, None);
            for who in everybody() {
                let member = claims.member(&who.1, &who.0);
                let places = member.map_or_else(Vec::new, |member| claims.places(member, class));
                prop_assert_eq!(places.is_empty(), !sorted.contains(&who));
                let is_first = !places.is_empty() && places.iter().all(|place| place.place == 1);
                prop_assert_eq!(is_first, sorted.first() == Some(&who));
                prop_assert!(places.iter().all(|at| (at.place == 1) == (at.own == at.first) && at.place <= at.of));
            }
        }
    }
}

#[test]
fn the_neediest_is_next_for_the_first_agent_that_it_has_not_refused() {
    let (mut claims, frees) = cluster(3, &[(0, false), (1, false)]);
    let who = (role(0), framework(0));
    let later = Timestamp::from_ms(50);
    claims.refuse(&who.1, &who.0, &agent(0), &frees[&0], later);
    let known = known(&claims, &frees);
    let agents = as_agents(&known);
    let next_of = |who: &Who| {
        let asker = asker(&claims, who);
        let (counts, [regular, _]) = survey(&claims, asker, &agents);
        (counts, in_line(&claims, asker, Class::Regular, regular))
    };
    let (counts, line) = next_of(&who);
    assert_eq!(
        (counts.open, counts.refused, counts.first_refusal_end),
        (2, 1, Some(later))
    );
    assert_eq!(line.next.map(|next| next.agent_id), Some(agent(1)));
    let (_, other) = next_of(&(role(0), framework(1)));
    assert_eq!(other.next, None);
    let last = other.places.last().unwrap();
    assert_eq!((last.place, last.of), (2, 2));
}
