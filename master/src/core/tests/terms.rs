//! What frameworks say of their offers: constraints, the least that they take, and regions.

use std::sync::Arc;

use ebb_types::{
    Attribute, AttributeValue, Constraint, ExplainSubject, Explanation, FaultDomain, OfferTerms,
    Pattern, Predicate, RoleTerms, Selector, Verdict,
};

use super::*;

fn attribute(name: &str) -> Selector {
    Selector::Attribute(name.to_owned())
}

fn racked(rack: &str) -> AgentInfo {
    AgentInfo {
        attributes: vec![Attribute {
            name: String::from("rack"),
            value: AttributeValue::Text(rack.to_owned()),
        }],
        ..agent_info(1000, 1024)
    }
}

fn domain(region: &str) -> Option<FaultDomain> {
    Some(FaultDomain {
        region: region.to_owned(),
        zone: String::from("z"),
    })
}

fn wants(selector: Selector, predicate: Predicate) -> OfferTerms {
    let terms = RoleTerms {
        groups: vec![vec![Constraint {
            selector,
            predicate,
        }]],
        minimum: None,
    };
    OfferTerms::from([(role("r"), terms)])
}

fn wants_rack(pattern: &str) -> OfferTerms {
    let pattern = Pattern::new(pattern).unwrap();
    wants(attribute("rack"), Predicate::TextMatches(pattern))
}

fn takes(least: &[Quantities]) -> OfferTerms {
    let terms = RoleTerms {
        groups: Vec::new(),
        minimum: Some(Arc::from(least)),
    };
    OfferTerms::from([(role("r"), terms)])
}

fn subscribe(world: &mut World, info: FrameworkInfo, terms: OfferTerms) -> Scheduler {
    let connection = world.connection();
    let call = Call::Subscribe {
        info,
        suppressed_roles: Vec::new(),
        terms,
    };
    world.step(Input::Scheduler { connection, call });
    match world.events[&connection].first() {
        Some(Event::Subscribed { framework_id, .. }) => Scheduler {
            connection,
            id: framework_id.clone(),
        },
        other => panic!("not subscribed: {other:?}"),
    }
}

fn update(world: &mut World, scheduler: &Scheduler, terms: OfferTerms) {
    let call = Call::UpdateFramework {
        info: FrameworkInfo {
            id: Some(scheduler.id.clone()),
            ..framework_info("f", &["r"])
        },
        suppressed_roles: Vec::new(),
        terms,
    };
    world.call(scheduler, call);
}

fn offered(world: &World, scheduler: &Scheduler) -> Vec<AgentId> {
    let offers = world.offers(scheduler).into_iter();
    let mut agents: Vec<AgentId> = offers.map(|offer| offer.agent_id).collect();
    agents.sort();
    agents
}

fn explain(world: &World, scheduler: &Scheduler) -> (Explanation, Verdict) {
    let subject = ExplainSubject::Framework(scheduler.id.clone());
    let explanation = world.core.explain(world.now, subject).unwrap();
    let verdict = explanation.verdict(&explanation.claims[0]);
    (explanation, verdict)
}

#[test]
fn only_agents_that_suit_its_constraints_are_offered_whichever_came_first() {
    let mut world = World::new();
    let before = world.register(racked("a1"));
    let other = world.register(racked("b1"));
    let scheduler = subscribe(&mut world, framework_info("f", &["r"]), wants_rack("a.*"));
    let after = world.register(racked("a2"));
    world.register(agent_info(1000, 1024));
    assert_eq!(offered(&world, &scheduler), [before.id, after.id]);
    let (explanation, verdict) = explain(&world, &scheduler);
    assert_eq!(verdict, Verdict::Unsuited);
    let claim = &explanation.claims[0];
    assert_eq!((claim.free.unsuited, claim.free.in_offers), (2, 2));
    let failed = &claim.failed[0];
    assert_eq!(failed.constraint, "rack matches \"a.*\"");
    assert_eq!(failed.agents, 2);
    // The rest is there for others.
    let second = world.subscribe(framework_info("g", &["r"]));
    assert!(offered(&world, &second).contains(&other.id));
}

#[test]
fn an_agent_that_comes_back_with_other_attributes_is_looked_at_again() {
    let mut world = World::new();
    let scheduler = subscribe(&mut world, framework_info("f", &["r"]), wants_rack("a"));
    let agent = world.register(racked("a"));
    assert_eq!(offered(&world, &scheduler).len(), 1);
    let agent = world.reregister(&agent, racked("b"), Vec::new());
    assert_eq!(offered(&world, &scheduler), []);
    let agent = world.reregister(&agent, racked("a"), Vec::new());
    assert_eq!(offered(&world, &scheduler), [agent.id]);
}

#[test]
fn new_terms_replace_the_old_ones_and_offers_against_them_are_withdrawn() {
    let mut world = World::new();
    let scheduler = subscribe(&mut world, framework_info("f", &["r"]), wants_rack("a"));
    let (a, b) = (world.register(racked("a")), world.register(racked("b")));
    assert_eq!(offered(&world, &scheduler), std::slice::from_ref(&a.id));
    update(&mut world, &scheduler, wants_rack("b"));
    assert_eq!(offered(&world, &scheduler), std::slice::from_ref(&b.id));
    update(&mut world, &scheduler, OfferTerms::new());
    assert_eq!(offered(&world, &scheduler), [a.id, b.id]);
}

#[test]
fn a_proposal_that_was_planned_before_the_constraints_were_stated_is_refused() {
    let mut world = World::new();
    let scheduler = world.subscribe(framework_info("f", &["r"]));
    world.offering = false;
    world.register(racked("b"));
    let proposals = world.propose();
    assert_eq!(proposals.len(), 1);
    world.in_flight = proposals.clone();
    update(&mut world, &scheduler, wants_rack("a"));
    world.in_flight.clear();
    world.step(Input::Proposals {
        batch: None,
        proposals,
    });
    assert_eq!(world.core.counters().proposals_refused, 1);
    assert!(world.core.offers.is_empty());
}

#[test]
fn terms_of_a_role_that_it_is_not_in_end_the_subscription_with_a_sentence() {
    let mut world = World::new();
    let connection = world.connection();
    let call = Call::Subscribe {
        info: framework_info("f", &["other"]),
        suppressed_roles: Vec::new(),
        terms: wants_rack("a"),
    };
    world.step(Input::Scheduler { connection, call });
    assert!(world.closed[&connection].contains("not in it"));
}

#[test]
fn agents_of_another_region_are_offered_only_to_those_who_take_such() {
    let mut world = World::configured(CoreConfig {
        domain: domain("here"),
        ..CoreConfig::default()
    });
    let scheduler = world.subscribe(framework_info("f", &["r"]));
    let mut remote = agent_info(1000, 1024);
    remote.domain = domain("there");
    let remote = world.register(remote);
    let (explanation, verdict) = explain(&world, &scheduler);
    assert_eq!(verdict, Verdict::OtherRegion);
    assert_eq!(explanation.region.as_deref(), Some("here"));
    let mut near = agent_info(1000, 1024);
    near.domain = domain("here");
    let near = world.register(near);
    let nowhere = world.register(agent_info(1000, 1024));
    assert_eq!(offered(&world, &scheduler), [near.id, nowhere.id]);
    let offers = world.offers(&scheduler);
    assert_eq!(offers[0].domain, domain("here"));
    let mut info = framework_info("g", &["r"]);
    info.capabilities.push(Capability::RegionAware);
    let aware = world.subscribe(info);
    assert_eq!(offered(&world, &aware), [remote.id]);
}

#[test]
fn without_a_region_of_the_master_no_agent_is_remote() {
    let mut world = World::new();
    let scheduler = world.subscribe(framework_info("f", &["r"]));
    let mut info = agent_info(1000, 1024);
    info.domain = domain("there");
    world.register(info);
    assert_eq!(offered(&world, &scheduler).len(), 1);
}

#[test]
fn an_offer_holds_at_least_what_its_framework_states() {
    let mut world = World::new();
    let two = Quantities::cpus_mem(2000, 0);
    let scheduler = subscribe(&mut world, framework_info("f", &["r"]), takes(&[two]));
    world.register(agent_info(1999, 4096));
    assert_eq!(offered(&world, &scheduler), []);
    let (explanation, verdict) = explain(&world, &scheduler);
    assert_eq!(verdict, Verdict::BelowMinimum);
    let claim = &explanation.claims[0];
    assert_eq!(claim.minimum.as_deref(), Some(&[two][..]));
    assert_eq!(claim.free.below_minimum, 1);
    world.register(agent_info(2000, 16));
    assert_eq!(offered(&world, &scheduler).len(), 1);
    // One of several is enough.
    let memory = Quantities::cpus_mem(0, 4096 * MIB);
    update(&mut world, &scheduler, takes(&[two, memory]));
    assert_eq!(offered(&world, &scheduler).len(), 2);
}

#[test]
fn whoever_states_no_minimum_is_offered_what_is_too_small_for_others() {
    let mut world = World::new();
    let usual = world.subscribe(framework_info("f", &["r"]));
    world.register(agent_info(5, 16));
    assert_eq!(offered(&world, &usual), []);
    let modest = subscribe(&mut world, framework_info("g", &["r"]), takes(&[]));
    assert_eq!(world.offer(&modest).resources, res(5, 16));
    assert_eq!(offered(&world, &usual), []);
    world.hang_up(&modest);
    let (_, verdict) = explain(&world, &usual);
    assert_eq!(verdict, Verdict::TooLittle);
}
