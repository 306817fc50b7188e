//! Scenes of the plan that can be followed by hand, each named by the behaviour that it holds: those of Mesos'
//! hierarchical allocator that need no more than a book and agents.

use super::*;

const FOR_EVER: Timestamp = Timestamp::from_ms(u64::MAX);

/// A book of equal agents and of frameworks in one role each, that are offered what is owned.
struct Scene {
    claims: Claims,
    planner: Planner,
    frees: BTreeMap<usize, Resources>,
}

type Offered = (usize, usize, Resources);

impl Scene {
    fn new(agents: usize, frameworks: &[usize]) -> Self {
        let mut claims = Claims::new();
        let total = Quantities::cpus_mem(4000, 8192 * MIB);
        for number in 0..agents {
            claims.set_agent(&agent(number), total, Quantities::ZERO);
        }
        for (number, of) in frameworks.iter().enumerate() {
            join(&mut claims, number, *of, false);
        }
        let frees = (0..agents).map(|number| (number, Resources::regular(total)));
        Self {
            planner: Planner::new(claims.copy()),
            frees: frees.collect(),
            claims,
        }
    }

    /// Who is offered what of which agent; nothing is charged.
    fn offers(&mut self) -> Vec<Offered> {
        self.planner.follow(&self.claims.publish());
        let known = known(&self.claims, &self.frees);
        let planned = plan(&mut self.planner, &known);
        self.planner.forget_proposals();
        assert_eq!(self.planner.claims().fault(), None);
        let number = |text: &str| text.rsplit_once('-').unwrap().1.parse().unwrap();
        let named = planned
            .into_iter()
            .map(|(agent, (_, framework), resources)| {
                (
                    number(framework.as_str()),
                    number(agent.as_str()),
                    resources,
                )
            });
        named.collect()
    }

    fn role_of(&self, who: usize) -> Role {
        let terms = self.claims.framework(&framework(who)).unwrap();
        terms.roles.first().unwrap().clone()
    }

    fn charge(&mut self, (who, _, resources): Offered) {
        let role = self.role_of(who);
        self.claims.charge(&framework(who), &role, &resources);
    }

    fn decline(&mut self, (who, on, resources): Offered, expires: Timestamp) {
        let role = self.role_of(who);
        self.claims
            .credit(&framework(who), &role, &resources)
            .unwrap();
        self.claims
            .refuse(&framework(who), &role, &agent(on), &resources, expires);
    }

    /// Offers everything and has it all declined.
    fn offer_and_decline(&mut self, expires: Timestamp) -> Vec<Offered> {
        let offers = self.offers();
        offers.iter().for_each(|offer| self.charge(*offer));
        offers
            .iter()
            .for_each(|offer| self.decline(*offer, expires));
        offers
    }

    fn suppress(&mut self, who: usize, suppressed: bool) {
        let mut terms = self.claims.framework(&framework(who)).unwrap().clone();
        terms.suppressed = if suppressed {
            terms.roles.clone()
        } else {
            BTreeSet::new()
        };
        self.claims.set_framework(&framework(who), terms);
    }
}

/// How many of the offers each of the frameworks is made.
fn counts(offers: &[Offered], frameworks: usize) -> Vec<usize> {
    let of = |who| offers.iter().filter(|offer| offer.0 == who).count();
    (0..frameworks).map(of).collect()
}

#[test]
fn an_agent_is_offered_if_it_has_enough_cpu_or_enough_memory() {
    let mut scene = Scene::new(6, &[0]);
    let frees = [
        (10, 0, true),
        (9, 0, false),
        (0, 32 * MIB, true),
        (0, 32 * MIB - 1, false),
        (9, 32 * MIB - 1, false),
        (10, 32 * MIB, true),
    ];
    for (number, (cpu_milli, mem_bytes, _)) in frees.iter().enumerate() {
        let free = Quantities::cpus_mem(*cpu_milli, *mem_bytes).with(ResourceKind::Disk, 1 << 40);
        scene.frees.insert(number, Resources::regular(free));
    }
    let offered: BTreeSet<usize> = scene.offers().iter().map(|offer| offer.1).collect();
    let enough = |number: &usize| frees[*number].2;
    assert_eq!(offered, (0..frees.len()).filter(enough).collect());
}

#[test]
fn whoever_is_neediest_is_offered_all_that_is_free_of_an_agent() {
    let mut scene = Scene::new(4, &[0, 3]);
    for (number, free) in &mut scene.frees {
        free.regular = Quantities::cpus_mem(1000 + *number as u64, 512 * MIB);
    }
    let offers = scene.offers();
    assert_eq!(counts(&offers, 2), [2, 2]);
    let by_agent: BTreeMap<usize, Resources> =
        offers.iter().map(|offer| (offer.1, offer.2)).collect();
    assert_eq!((by_agent, offers.len()), (scene.frees, 4));
}

#[test]
fn frameworks_with_equal_shares_take_turns() {
    for roles in [[0, 0, 0], [0, 3, 4]] {
        let mut scene = Scene::new(1, &roles);
        let mut turns = Vec::new();
        for _ in 0..12 {
            let offers = scene.offers();
            assert_eq!(offers.len(), 1);
            turns.push(offers[0].0);
            // It is used and given back: the shares are as they were.
            scene.charge(offers[0]);
            let role = scene.role_of(offers[0].0);
            scene
                .claims
                .credit(&framework(offers[0].0), &role, &offers[0].2)
                .unwrap();
        }
        assert_eq!(turns, [0, 1, 2].repeat(4), "{roles:?}");
    }
}

#[test]
fn a_smaller_holding_makes_needier_even_if_it_is_of_another_resource() {
    let mut scene = Scene::new(2, &[0, 3]);
    // 1.6 of 8 cores are more of them than 3 of 16 GiB are of the memory.
    scene.charge((0, 0, Resources::regular(Quantities::cpus_mem(1600, 0))));
    scene.charge((
        1,
        0,
        Resources::regular(Quantities::cpus_mem(0, 3072 * MIB)),
    ));
    scene.frees.remove(&0);
    assert_eq!(counts(&scene.offers(), 2), [0, 1]);
    scene.charge((1, 0, Resources::regular(Quantities::cpus_mem(0, 512 * MIB))));
    assert_eq!(counts(&scene.offers(), 2), [1, 0]);
}

#[test]
fn declining_everything_shows_every_agent_to_every_framework_once() {
    let (agents, frameworks) = (130, 12);
    let roles: Vec<usize> = (0..frameworks).map(|number| number % ROLES.len()).collect();
    let mut scene = Scene::new(agents, &roles);
    let mut seen = BTreeSet::new();
    for _ in 0..frameworks {
        let offers = scene.offer_and_decline(FOR_EVER);
        assert_eq!(offers.len(), agents);
        for (who, on, _) in offers {
            assert!(seen.insert((who, on)), "{who} was offered {on} twice");
        }
    }
    assert_eq!(scene.offers(), []);
}

#[test]
fn one_that_declines_everything_keeps_nothing_from_those_that_hold_more() {
    let mut scene = Scene::new(6, &[0, 0, 3]);
    for who in 1..3 {
        scene.charge((who, 0, Resources::regular(Quantities::cpus_mem(4000, 0))));
    }
    let all_to_first = scene.offer_and_decline(Timestamp::from_ms(5));
    assert!(all_to_first.iter().any(|offer| offer.0 == 0));
    let refused: BTreeSet<usize> = all_to_first
        .iter()
        .filter(|offer| offer.0 == 0)
        .map(|offer| offer.1)
        .collect();
    let offers = scene.offers();
    assert_eq!(offers.len(), 6);
    for (who, on, _) in offers {
        assert!(
            who != 0 || !refused.contains(&on),
            "{on} was offered to it again"
        );
    }
}

#[test]
fn who_suppresses_is_passed_over_and_the_others_share_what_there_is() {
    let frameworks = 200;
    let mut scene = Scene::new(100, &vec![0; frameworks]);
    for who in 0..frameworks {
        scene.suppress(who, who % 4 != 0);
    }
    let half: Vec<usize> = (0..frameworks)
        .map(|who| if who % 4 == 0 { 2 } else { 0 })
        .collect();
    assert_eq!(counts(&scene.offers(), frameworks), half);
    for who in 0..frameworks {
        scene.suppress(who, who != 77);
    }
    let offers = scene.offers();
    assert_eq!((offers.len(), counts(&offers, frameworks)[77]), (100, 100));
    scene.suppress(77, true);
    assert_eq!(scene.offers(), []);
    for who in 0..frameworks {
        scene.suppress(who, false);
    }
    let offers = scene.offers();
    assert!(offers.len() == 100 && counts(&offers, frameworks).iter().all(|count| *count <= 1));
}

#[test]
fn what_was_refused_is_offered_again_when_it_ends_for_whatever_reason() {
    let end = Timestamp::from_ms(5000);
    let refuse_all = || {
        let mut scene = Scene::new(40, &[0, 3, 3]);
        for _ in 0..3 {
            assert_eq!(scene.offer_and_decline(end).len(), 40);
        }
        assert_eq!((scene.offers(), scene.claims.refusals()), (Vec::new(), 120));
        scene
    };
    let mut expired = refuse_all();
    assert_eq!(expired.claims.expire(end).len(), 40);
    assert_eq!((expired.offers().len(), expired.claims.refusals()), (40, 0));
    let mut revived = refuse_all();
    revived.claims.void_refusals(&framework(1), &role(3));
    assert_eq!(counts(&revived.offers(), 3), [0, 40, 0]);
    let mut changed = refuse_all();
    let total = Quantities::cpus_mem(4000, 8000 * MIB);
    changed.claims.set_agent(&agent(7), total, Quantities::ZERO);
    changed.frees.insert(7, Resources::regular(total));
    let offers = changed.offers();
    assert_eq!((offers.len(), offers[0].1), (1, 7));
    let mut joined = refuse_all();
    join(&mut joined.claims, 3, 0, false);
    assert_eq!(counts(&joined.offers(), 4), [0, 0, 0, 40]);
}
