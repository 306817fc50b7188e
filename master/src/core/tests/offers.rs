//! How offers are made and end.

use ebb_types::limits::MIN_DECLINE_MS;
use ebb_types::{AgentUsage, Lasting, LastingPoint};

use super::*;

fn decline(world: &mut World, scheduler: &Scheduler, id: &OfferId, refuse_ms: u64) {
    let call = Call::Decline {
        offer_ids: vec![id.clone()],
        filters: Filters { refuse_ms },
    };
    world.call(scheduler, call);
}

#[test]
fn a_declined_offer_is_not_made_again_before_the_filter_ends() {
    let mut world = World::new();
    let scheduler = world.subscribe(framework_info("f", &["r"]));
    world.register(agent_info(1000, 1024));
    let offer = world.offer(&scheduler);
    decline(&mut world, &scheduler, &offer.id, 5_000);
    assert!(world.offers(&scheduler).is_empty());
    world.pass_ms(4_999);
    assert!(world.offers(&scheduler).is_empty());
    world.pass_ms(1);
    assert_ne!(world.offer(&scheduler).id, offer.id);
}

#[test]
fn what_was_declined_without_a_filter_comes_again_after_the_others_were_asked() {
    let mut world = World::new();
    let first = world.subscribe(framework_info("f", &["r"]));
    world.register(agent_info(1000, 1024));
    let second = world.subscribe(framework_info("g", &["r"]));
    // Both are as needy, and the first one came first.
    let offer = world.offer(&first);
    decline(&mut world, &first, &offer.id, 0);
    let next = world.offer(&second);
    decline(&mut world, &second, &next.id, 0);
    assert!(world.offers(&first).is_empty() && world.offers(&second).is_empty());
    world.pass_ms(MIN_DECLINE_MS);
    assert_ne!(world.offer(&first).id, offer.id);
}

#[test]
fn a_filter_holds_for_its_framework_alone() {
    let mut world = World::new();
    let first = world.subscribe(framework_info("f", &["r"]));
    world.register(agent_info(1000, 1024));
    let second = world.subscribe(framework_info("g", &["r"]));
    let offer = world.offer(&first);
    decline(&mut world, &first, &offer.id, 60_000);
    assert!(world.offers(&first).is_empty());
    assert_eq!(world.offer(&second).resources, offer.resources);
}

#[test]
fn declining_the_offer_of_another_or_an_unknown_one_does_nothing() {
    let mut world = World::new();
    let first = world.subscribe(framework_info("f", &["r"]));
    world.register(agent_info(1000, 1024));
    let second = world.subscribe(framework_info("g", &["r"]));
    let offer = world.offer(&first);
    decline(&mut world, &second, &offer.id, 5_000);
    decline(&mut world, &second, &OfferId::new("none").unwrap(), 5_000);
    assert_eq!(world.offer(&first), offer);
}

#[test]
fn revive_forgets_filters() {
    let mut world = World::new();
    let scheduler = world.subscribe(framework_info("f", &["r"]));
    world.register(agent_info(1000, 1024));
    let offer = world.offer(&scheduler);
    decline(&mut world, &scheduler, &offer.id, u64::MAX);
    assert!(world.offers(&scheduler).is_empty());
    world.call(&scheduler, Call::Revive { roles: Vec::new() });
    assert_eq!(world.offers(&scheduler).len(), 1);
}

#[test]
fn suppressed_roles_get_no_offers_until_revived_but_keep_those_that_are_out() {
    let mut world = World::new();
    let scheduler = world.subscribe(framework_info("f", &["r"]));
    world.register(agent_info(1000, 1024));
    let call = Call::Suppress {
        roles: vec![role("r")],
    };
    world.call(&scheduler, call);
    let offer = world.offer(&scheduler);
    decline(&mut world, &scheduler, &offer.id, 0);
    world.register(agent_info(1000, 1024));
    assert!(world.offers(&scheduler).is_empty());
    world.call(&scheduler, Call::Revive { roles: Vec::new() });
    assert_eq!(world.offers(&scheduler).len(), 2);
}

#[test]
fn a_foreign_role_voids_the_whole_suppress() {
    let mut world = World::new();
    let scheduler = world.subscribe(framework_info("f", &["r"]));
    let call = Call::Suppress {
        roles: vec![role("r"), role("other")],
    };
    world.call(&scheduler, call);
    world.register(agent_info(1000, 1024));
    assert_eq!(world.offers(&scheduler).len(), 1);
}

#[test]
fn an_offer_lapses_at_its_deadline_and_is_made_anew() {
    let mut world = World::new();
    let scheduler = world.subscribe(framework_info("f", &["r"]));
    let agent = world.register(agent_info(1000, 1024));
    let offer = world.offer(&scheduler);
    assert_eq!(offer.deadline, Some(world.now.plus_ms(300_000)));
    for _ in 0..6 {
        world.say(&agent, AgentToMaster::Heartbeat);
        world.pass_ms(50_000);
    }
    let rescinded = world.count_events(&scheduler, |event| {
        *event == Event::Rescind(offer.id.clone())
    });
    assert_eq!(rescinded, 1);
    assert_ne!(world.offer(&scheduler).id, offer.id);
    assert_eq!(world.core.counters().offers_expired, 1);
}

#[test]
fn offers_of_a_disconnected_framework_go_to_others() {
    let mut world = World::new();
    let first = world.subscribe(framework_info("f", &["r"]));
    world.register(agent_info(1000, 1024));
    let second = world.subscribe(framework_info("g", &["r"]));
    assert_eq!(world.offers(&first).len(), 1);
    world.hang_up(&first);
    assert!(world.core.frameworks[&first.id].offers.is_empty());
    assert_eq!(world.offers(&second).len(), 1);
}

#[test]
fn a_proposal_of_an_older_registration_is_void_and_harms_no_book() {
    let mut world = World::new();
    let scheduler = world.subscribe(framework_info("f", &["r"]));
    world.offering = false;
    let agent = world.register(agent_info(1000, 1024));
    let proposals = world.propose();
    assert_eq!(proposals.len(), 1);
    let agent = world.reregister(&agent, agent_info(1000, 1024), Vec::new());
    world.step(Input::Proposals {
        batch: None,
        proposals,
    });
    assert!(world.offers(&scheduler).is_empty());
    assert_eq!(world.core.counters().proposals_refused, 1);
    assert_eq!(world.free(&agent), res(1000, 1024));
}

#[test]
fn a_proposal_for_a_framework_that_left_or_was_suppressed_meanwhile_is_taken_back() {
    for leave in [
        (|world, scheduler| world.hang_up(scheduler)) as fn(&mut World, &Scheduler),
        |world, scheduler| {
            world.call(scheduler, Call::Teardown);
        },
        |world, scheduler| {
            world.call(scheduler, Call::Suppress { roles: Vec::new() });
        },
    ] {
        let mut world = World::new();
        let scheduler = world.subscribe(framework_info("f", &["r"]));
        world.offering = false;
        let agent = world.register(agent_info(1000, 1024));
        let proposals = world.propose();
        assert_eq!(world.free(&agent), Resources::ZERO);
        world.in_flight.clone_from(&proposals);
        leave(&mut world, &scheduler);
        world.in_flight.clear();
        world.step(Input::Proposals {
            batch: None,
            proposals,
        });
        assert_eq!(world.core.counters().proposals_refused, 1);
        assert_eq!(world.free(&agent), res(1000, 1024));
    }
}

#[test]
fn a_smaller_estimate_withdraws_revocable_offers_and_a_larger_one_does_not() {
    let mut world = World::new();
    let mut info = framework_info("f", &["r"]);
    info.capabilities.push(Capability::RevocableResources);
    let scheduler = world.subscribe(info);
    let agent = world.register(agent_info(1000, 1024));
    let lend = |world: &mut World, cpu_milli| {
        world.say(
            &agent,
            AgentToMaster::Oversubscribed(Quantities::cpus_mem(cpu_milli, 0)),
        );
    };
    let rescinded =
        |world: &World| world.count_events(&scheduler, |event| matches!(event, Event::Rescind(_)));
    lend(&mut world, 800);
    let lent: u64 = world
        .offers(&scheduler)
        .iter()
        .map(|offer| offer.resources.revocable.cpu_milli())
        .sum();
    assert_eq!(lent, 800);
    lend(&mut world, 900);
    assert_eq!(rescinded(&world), 0);
    lend(&mut world, 300);
    assert!(rescinded(&world) > 0);
    let lent: u64 = world
        .offers(&scheduler)
        .iter()
        .map(|offer| offer.resources.revocable.cpu_milli())
        .sum();
    assert_eq!(lent, 300);
}

#[test]
fn a_revocable_offer_says_how_long_it_stays_less_what_others_hold() {
    let mut world = World::new();
    let mut info = framework_info("f", &["r"]);
    info.capabilities.push(Capability::RevocableResources);
    let agent = world.register(agent_info(1000, 1024));
    let cpus = |milli| Quantities::cpus_mem(milli, 0);
    let points = [(60_000, 800), (600_000, 500)].map(|(time_ms, milli)| LastingPoint {
        time_ms,
        amount: cpus(milli),
    });
    let usage = AgentUsage {
        lasting: Lasting {
            confidence_permille: 900,
            points: points.to_vec(),
        },
        ..AgentUsage::default()
    };
    world.say(&agent, AgentToMaster::Usage(usage));
    world.say(&agent, AgentToMaster::Oversubscribed(cpus(800)));
    let scheduler = world.subscribe(info);
    let revocable = |world: &World| {
        let offers = world.offers(&scheduler).into_iter();
        let mut offers = offers.filter(|offer| offer.resources.is_revocable());
        let offer = offers.next().expect("a revocable offer");
        assert!(offers.next().is_none());
        offer
    };
    let stays = |offer: &Offer| {
        [60_000, 600_000, 600_001].map(|time_ms| offer.lasting.amount_for(time_ms).cpu_milli())
    };
    let first = revocable(&world);
    assert_eq!(stays(&first), [800, 500, 0]);
    let wanted = Resources {
        regular: Quantities::ZERO,
        revocable: cpus(300),
    };
    let task = command_task("t", &agent.id, wanted);
    world.accept(&scheduler, &first, vec![task]);
    let second = revocable(&world);
    assert_eq!(second.resources.revocable, cpus(500));
    assert_eq!(stays(&second), [500, 200, 0]);
    world.say(&agent, AgentToMaster::Oversubscribed(cpus(400)));
    let third = revocable(&world);
    assert_eq!(stays(&third), [100, 100, 0]);
}

#[test]
fn an_agent_that_says_nothing_of_how_long_it_lends_is_one_of_which_nothing_is_known() {
    let mut world = World::new();
    let mut info = framework_info("f", &["r"]);
    info.capabilities.push(Capability::RevocableResources);
    let scheduler = world.subscribe(info);
    let agent = world.register(agent_info(1000, 1024));
    world.say(&agent, AgentToMaster::Usage(AgentUsage::default()));
    world.say(
        &agent,
        AgentToMaster::Oversubscribed(Quantities::cpus_mem(800, 0)),
    );
    let offers = world.offers(&scheduler);
    assert!(offers.iter().any(|offer| offer.resources.is_revocable()));
    assert!(offers.iter().all(|offer| offer.lasting.points.is_empty()));
}

#[test]
fn revocable_resources_are_offered_only_to_those_that_ask_for_them() {
    let mut world = World::new();
    let scheduler = world.subscribe(framework_info("f", &["r"]));
    let agent = world.register(agent_info(1000, 1024));
    world.say(
        &agent,
        AgentToMaster::Oversubscribed(Quantities::cpus_mem(800, 0)),
    );
    assert!(
        world
            .offers(&scheduler)
            .iter()
            .all(|offer| !offer.resources.is_revocable())
    );
}
