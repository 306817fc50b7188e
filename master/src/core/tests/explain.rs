//! Why a framework gets no offer: each reason as it comes about.

use ebb_types::{Claimant, ExplainSubject, ExplainedClaim, Explanation, Verdict};

use super::*;
use crate::core::OperatorCommand;

fn explain(world: &World, scheduler: &Scheduler) -> (Explanation, ExplainedClaim) {
    let subject = ExplainSubject::Framework(scheduler.id.clone());
    let explanation = world.core.explain(world.now, subject).unwrap();
    assert_eq!(explanation.claims.len(), 1);
    let claim = explanation.claims[0].clone();
    (explanation, claim)
}

fn verdict(world: &World, scheduler: &Scheduler) -> Verdict {
    let (explanation, claim) = explain(world, scheduler);
    explanation.verdict(&claim)
}

fn decline_all(world: &mut World, scheduler: &Scheduler, refuse_ms: u64) {
    let offer_ids = world
        .offers(scheduler)
        .into_iter()
        .map(|offer| offer.id)
        .collect();
    let filters = Filters { refuse_ms };
    world.call(scheduler, Call::Decline { offer_ids, filters });
}

fn lending(name: &str) -> FrameworkInfo {
    let mut info = framework_info(name, &["r"]);
    info.capabilities.push(Capability::RevocableResources);
    info
}

/// Runs the allocator on what is free, and says what a framework got of it.
fn got(world: &mut World, scheduler: &Scheduler) -> Vec<(AgentId, Resources)> {
    let before: Vec<OfferId> = world
        .offers(scheduler)
        .into_iter()
        .map(|offer| offer.id)
        .collect();
    world.offering = false;
    let proposals = world.propose();
    world.step(Input::Proposals {
        batch: None,
        proposals,
    });
    let offers = world.offers(scheduler).into_iter();
    let new = offers.filter(|offer| !before.contains(&offer.id));
    new.map(|offer| (offer.agent_id, offer.resources)).collect()
}

#[test]
fn it_is_away_since_its_connection_ended_and_until_its_failover_deadline() {
    let mut world = World::new();
    let scheduler = world.subscribe(framework_info("f", &["r"]));
    world.register(agent_info(1000, 1024));
    world.pass_ms(5);
    world.hang_up(&scheduler);
    let since = world.now;
    world.pass_ms(1000);
    let (explanation, claim) = explain(&world, &scheduler);
    assert_eq!(explanation.verdict(&claim), Verdict::Away);
    assert_eq!(explanation.at, world.now);
    let away = claim.away.unwrap();
    assert_eq!(
        (away.since, away.until),
        (since, Some(since.plus_ms(60_000)))
    );
    assert_eq!(claim.regular.places, []);
}

#[test]
fn after_a_start_of_the_master_it_is_away_since_that_start() {
    let mut world = World::new();
    let scheduler = world.subscribe(framework_info("f", &["r"]));
    world.pass_ms(1);
    let again = World::restored(world.registry());
    let (explanation, claim) = explain(&again, &scheduler);
    assert_eq!(explanation.verdict(&claim), Verdict::Away);
    assert_eq!(claim.away.unwrap().since, again.now);
}

#[test]
fn it_has_suppressed_the_role() {
    let mut world = World::new();
    let scheduler = world.subscribe(framework_info("f", &["r"]));
    world.call(&scheduler, Call::Suppress { roles: Vec::new() });
    world.register(agent_info(1000, 1024));
    assert_eq!(verdict(&world, &scheduler), Verdict::Suppressed);
    assert_eq!(got(&mut world, &scheduler), []);
}

#[test]
fn it_has_left_the_role_and_only_holds_something_there() {
    let (mut world, scheduler, _) = World::with_running_task();
    let mut info = framework_info("f", &["other"]);
    info.id = Some(scheduler.id.clone());
    let call = Call::UpdateFramework {
        info,
        suppressed_roles: Vec::new(),
        terms: ebb_types::OfferTerms::new(),
    };
    world.call(&scheduler, call);
    let subject = ExplainSubject::Role(role("r"));
    let explanation = world.core.explain(world.now, subject).unwrap();
    let verdicts: Vec<_> = explanation
        .claims
        .iter()
        .map(|claim| explanation.verdict(claim))
        .collect();
    assert_eq!(verdicts, [Verdict::NotInRole]);
    let subject = ExplainSubject::Framework(scheduler.id);
    let of_it = world.core.explain(world.now, subject).unwrap();
    let roles: Vec<&str> = of_it
        .claims
        .iter()
        .map(|claim| claim.role.as_str())
        .collect();
    assert_eq!(roles, ["other", "r"]);
}

#[test]
fn no_agent_is_connected() {
    let mut world = World::new();
    let scheduler = world.subscribe(framework_info("f", &["r"]));
    assert_eq!(verdict(&world, &scheduler), Verdict::NoAgent);
    let agent = world.register(agent_info(1000, 1024));
    world.agent_gone(&agent);
    let (explanation, claim) = explain(&world, &scheduler);
    assert_eq!(explanation.verdict(&claim), Verdict::NoAgent);
    assert_eq!(
        (explanation.agents.usable, explanation.agents.disconnected),
        (0, 1)
    );
    world.pass_ms(100_000);
    let (explanation, _) = explain(&world, &scheduler);
    assert_eq!(
        (explanation.agents.disconnected, explanation.agents.absent),
        (0, 1)
    );
}

#[test]
fn all_that_is_free_is_out_in_its_own_offer() {
    let mut world = World::new();
    let scheduler = world.subscribe(framework_info("f", &["r"]));
    world.register(agent_info(1000, 1024));
    let (explanation, claim) = explain(&world, &scheduler);
    assert_eq!(explanation.verdict(&claim), Verdict::TooLittle);
    assert_eq!(
        (claim.offers.count, claim.offers.resources),
        (1, res(1000, 1024))
    );
    assert_eq!(
        claim.offers.first_deadline,
        world.offer(&scheduler).deadline
    );
    assert_eq!((claim.free.small, claim.free.in_offers), (1, 1));
    assert_eq!((claim.free.short_of_cpu, claim.free.short_of_mem), (1, 1));
}

#[test]
fn what_is_left_of_an_agent_is_too_small() {
    let mut world = World::new();
    let scheduler = world.subscribe(framework_info("f", &["r"]));
    world.register(agent_info(9, 31));
    world.register(agent_info(9, 32));
    let (explanation, claim) = explain(&world, &scheduler);
    assert_eq!(explanation.minimum, Quantities::cpus_mem(10, 32 * MIB));
    assert_eq!(claim.offers.count, 1, "memory alone is enough");
    world.offering = false;
    decline_all(&mut world, &scheduler, 0);
    world.call(&scheduler, Call::Revive { roles: Vec::new() });
    let (_, claim) = explain(&world, &scheduler);
    assert_eq!(
        (claim.free.open, claim.free.small, claim.free.in_offers),
        (1, 1, 0)
    );
    assert_eq!((claim.free.short_of_cpu, claim.free.short_of_mem), (2, 1));
}

#[test]
fn it_has_refused_what_is_free_until_the_first_refusal_ends() {
    let mut world = World::new();
    let scheduler = world.subscribe(framework_info("f", &["r"]));
    world.register(agent_info(1000, 1024));
    decline_all(&mut world, &scheduler, 5_000);
    let first = world.now.plus_ms(5_000);
    world.pass_ms(10);
    world.register(agent_info(1000, 1024));
    decline_all(&mut world, &scheduler, 6_000);
    let (explanation, claim) = explain(&world, &scheduler);
    assert_eq!(explanation.verdict(&claim), Verdict::Refused);
    assert_eq!(
        (claim.free.refused, claim.free.first_refusal_end),
        (2, Some(first))
    );
    assert_eq!(got(&mut world, &scheduler), []);
    world.call(&scheduler, Call::Revive { roles: Vec::new() });
    assert_eq!(verdict(&world, &scheduler), Verdict::Next);
}

#[test]
fn what_is_free_is_only_lent_and_it_does_not_borrow() {
    let (mut world, scheduler, agent) = World::with_running_task();
    let offers = |world: &World| world.offers(&scheduler);
    world.offering = true;
    world.call(&scheduler, Call::Revive { roles: Vec::new() });
    let rest = offers(&world).remove(0);
    world.offering = false;
    let all = command_task("rest", &agent.id, rest.resources);
    world.accept(&scheduler, &rest, vec![all]);
    world.say(
        &agent,
        AgentToMaster::Oversubscribed(Quantities::cpus_mem(500, 0)),
    );
    let (explanation, claim) = explain(&world, &scheduler);
    assert_eq!(explanation.verdict(&claim), Verdict::OnlyRevocable);
    assert_eq!(
        (claim.free.only_revocable, claim.takes_revocable),
        (1, false)
    );
    assert_eq!(got(&mut world, &scheduler), []);
    let borrower = world.subscribe(lending("b"));
    let (explanation, claim) = explain(&world, &borrower);
    assert_eq!(explanation.verdict(&claim), Verdict::Next);
    let next = claim.revocable.next.unwrap();
    let offered = (agent.id, Resources::revocable(Quantities::cpus_mem(500, 0)));
    assert_eq!((next.agent_id, next.resources), offered);
    assert_eq!(got(&mut world, &borrower), [offered]);
}

#[test]
fn another_is_needier_and_it_says_who_on_which_level() {
    let (mut world, busy, _) = World::with_running_task();
    let idle = world.subscribe(framework_info("g", &["other"]));
    world.register(agent_info(4000, 4096));
    let (explanation, claim) = explain(&world, &busy);
    assert_eq!(explanation.verdict(&claim), Verdict::Behind);
    let place = &claim.regular.places[0];
    assert_eq!((place.place, place.of), (2, 2));
    assert_eq!((place.own.share_milli, place.own.weight_milli), (125, 1000));
    assert_eq!(place.first.claimant, Claimant::Role(role("other")));
    let (explanation, claim) = explain(&world, &idle);
    assert_eq!(explanation.verdict(&claim), Verdict::Next);
    let next = claim.regular.next.unwrap();
    assert!(got(&mut world, &idle).contains(&(next.agent_id, next.resources)));
}

#[test]
fn a_role_is_explained_framework_by_framework_and_one_without_any_has_none() {
    let mut world = World::new();
    let one = world.subscribe(framework_info("f", &["r"]));
    let two = world.subscribe(framework_info("g", &["r", "r/below"]));
    let of = |name: &str| {
        world
            .core
            .explain(world.now, ExplainSubject::Role(role(name)))
            .unwrap()
    };
    let ids: Vec<_> = of("r")
        .claims
        .into_iter()
        .map(|claim| claim.framework_id)
        .collect();
    assert_eq!(ids, [one.id, two.id]);
    assert_eq!(of("r/below").claims.len(), 1);
    assert_eq!(of("nobody").claims, []);
}

#[test]
fn a_framework_that_is_not_there_is_named() {
    let world = World::new();
    let id = FrameworkId::new("c-1-0009").unwrap();
    let error = world
        .core
        .explain(world.now, ExplainSubject::Framework(id.clone()));
    assert_eq!(error, Err(OperatorError::NoFramework(id)));
}

#[test]
fn an_explanation_stays_small_in_a_large_role() {
    let mut world = World::new();
    world.offering = false;
    for number in 0..70 {
        world.subscribe(framework_info(&format!("f{number}"), &["r"]));
    }
    for _ in 0..5 {
        world.register(agent_info(1000, 1024));
    }
    let explanation = world
        .core
        .explain(world.now, ExplainSubject::Role(role("r")))
        .unwrap();
    assert_eq!((explanation.claims.len(), explanation.left_out), (64, 6));
    let examples = |claim: &ExplainedClaim| (claim.free.open, claim.free.examples.len());
    assert!(
        explanation
            .claims
            .iter()
            .all(|claim| examples(claim) == (5, 3))
    );
}

#[test]
fn an_agent_that_an_operator_has_drained_is_counted_as_such_and_not_as_free() {
    let mut world = World::new();
    let scheduler = world.subscribe(framework_info("f", &["r"]));
    let agent = world.register(agent_info(1000, 1024));
    let command = OperatorCommand::Deactivate(agent.id.clone());
    super::activity::operate(&mut world, command).unwrap();
    let subject = ExplainSubject::Framework(scheduler.id.clone());
    let explanation = world.core.explain(world.now, subject).unwrap();
    assert_eq!(explanation.agents.inactive, 1);
    assert_eq!(
        (explanation.agents.usable, explanation.agents.overfull),
        (0, 0)
    );
    assert_eq!(
        explanation.verdict(&explanation.claims[0]),
        Verdict::NoAgent
    );
}
