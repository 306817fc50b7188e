//! Quotas: what operators may set, that no offer passes a limit or takes what is guaranteed to others, and what becomes
//! of offers and restarts.

use ebb_types::{Limits, Quota};

use super::*;
use crate::core::{OperatorCommand, RequestId};

const GIB: u64 = 1 << 30;

fn operate(world: &mut World, command: OperatorCommand) -> Result<(), OperatorError> {
    world.step(Input::Operator {
        request: RequestId(9),
        command,
    });
    world.answers.pop().expect("no answer")
}

fn cpus(cores: u64) -> Quantities {
    Quantities::cpus_mem(cores * 1000, cores * GIB)
}

fn at_most(most: Quantities) -> Limits {
    let kinds = [ResourceKind::Cpus, ResourceKind::Mem];
    kinds.into_iter().fold(Limits::NONE, |limits, kind| {
        limits.with(kind, Some(most.get(kind)))
    })
}

fn guarantee(amount: Quantities) -> Quota {
    Quota {
        guarantee: amount,
        ..Quota::default()
    }
}

fn limit(amount: Quantities) -> Quota {
    Quota {
        limits: at_most(amount),
        ..Quota::default()
    }
}

fn set(world: &mut World, quotas: &[(&str, Quota)], force: bool) -> Result<(), OperatorError> {
    let quotas = quotas.iter().map(|(name, quota)| (role(name), *quota));
    let quotas = quotas.collect();
    let lot_limits = Vec::new();
    let command = OperatorCommand::SetQuotas {
        quotas,
        lot_limits,
        force,
    };
    operate(world, command)
}

/// What a framework is offered now, in all.
fn offered(world: &World, scheduler: &Scheduler) -> Quantities {
    let offers = world.offers(scheduler);
    offers.iter().fold(Quantities::ZERO, |sum, offer| {
        sum.saturating_add(&offer.resources.regular)
    })
}

/// Runs tasks of all that a framework is offered.
fn take_all(world: &mut World, scheduler: &Scheduler) {
    for offer in world.offers(scheduler) {
        let id = format!("t-{}", offer.id);
        let task = command_task(&id, &offer.agent_id, offer.resources);
        world.accept(scheduler, &offer, vec![task]);
    }
}

fn agent(world: &mut World, cores: u64) -> Played {
    world.register(agent_info(cores * 1000, cores * 1024))
}

#[test]
fn what_is_guaranteed_is_kept_free_for_a_role_that_nobody_is_in() {
    let mut world = World::new();
    let a = agent(&mut world, 4);
    agent(&mut world, 4);
    assert_eq!(
        set(&mut world, &[("prod", guarantee(cpus(5)))], false),
        Ok(())
    );
    let other = world.subscribe(framework_info("other", &["batch"]));
    assert_eq!(offered(&world, &other), cpus(3));
    take_all(&mut world, &other);
    let prod = world.subscribe(framework_info("prod", &["prod"]));
    assert_eq!(offered(&world, &prod), cpus(5));
    take_all(&mut world, &prod);
    assert_eq!(offered(&world, &other), Quantities::ZERO);
    // What ends of the others' is theirs again: nothing is owed now.
    let task = world.core.frameworks[&other.id]
        .tasks
        .keys()
        .next()
        .cloned()
        .unwrap();
    let uuid = world.update(&a, &other, task.as_str(), TaskState::Finished, 1);
    world.acknowledge(&other, &a, task.as_str(), uuid);
    let all = offered(&world, &other).saturating_add(&offered(&world, &prod));
    assert_eq!(all, cpus(3));
}

#[test]
fn a_role_that_is_owed_comes_before_one_that_holds_less() {
    let mut world = World::new();
    agent(&mut world, 2);
    let prod = world.subscribe(framework_info("prod", &["prod"]));
    take_all(&mut world, &prod);
    assert_eq!(
        set(&mut world, &[("prod", guarantee(cpus(4)))], true),
        Ok(())
    );
    let other = world.subscribe(framework_info("other", &["batch"]));
    agent(&mut world, 2);
    assert_eq!(offered(&world, &prod), cpus(2));
    take_all(&mut world, &prod);
    agent(&mut world, 2);
    assert_eq!(
        (offered(&world, &prod), offered(&world, &other)),
        (Quantities::ZERO, cpus(2))
    );
}

#[test]
fn no_offer_passes_a_limit_and_what_ends_may_be_offered_again() {
    let mut world = World::new();
    let held = agent(&mut world, 2);
    agent(&mut world, 6);
    assert_eq!(set(&mut world, &[("a", limit(cpus(3)))], false), Ok(()));
    let one = world.subscribe(framework_info("one", &["a"]));
    let two = world.subscribe(framework_info("two", &["a"]));
    let both = |world: &World| offered(world, &one).saturating_add(&offered(world, &two));
    assert_eq!(both(&world), cpus(3));
    take_all(&mut world, &one);
    take_all(&mut world, &two);
    assert_eq!(both(&world), Quantities::ZERO);
    // A task ends on one agent, and the other one, which was passed over, is offered again too.
    let ended = [&one, &two].into_iter().find_map(|scheduler| {
        let tasks = &world.core.frameworks[&scheduler.id].tasks;
        let task = tasks.iter().find(|(_, task)| task.agent_id == held.id)?;
        Some((scheduler.clone(), task.0.clone()))
    });
    let (scheduler, task) = ended.unwrap();
    let uuid = world.update(&held, &scheduler, task.as_str(), TaskState::Finished, 1);
    world.acknowledge(&scheduler, &held, task.as_str(), uuid);
    assert_eq!(both(&world), cpus(2));
}

#[test]
fn a_limit_of_some_kinds_leaves_the_others_alone() {
    let mut world = World::new();
    agent(&mut world, 4);
    let quota = Quota {
        limits: Limits::NONE.with(ResourceKind::Cpus, Some(1000)),
        ..Quota::default()
    };
    assert_eq!(set(&mut world, &[("a", quota)], false), Ok(()));
    let one = world.subscribe(framework_info("one", &["a"]));
    assert_eq!(offered(&world, &one), Quantities::cpus_mem(1000, 4 * GIB));
}

#[test]
fn a_limit_of_nothing_offers_nothing_and_its_removal_offers_all() {
    let mut world = World::new();
    agent(&mut world, 4);
    assert_eq!(set(&mut world, &[("a", limit(cpus(0)))], false), Ok(()));
    let one = world.subscribe(framework_info("one", &["a"]));
    assert_eq!(offered(&world, &one), Quantities::ZERO);
    assert_eq!(set(&mut world, &[("a", Quota::default())], false), Ok(()));
    assert_eq!(offered(&world, &one), cpus(4));
    assert!(world.registry().quotas.is_empty());
}

#[test]
fn a_guarantee_within_a_guarantee_is_kept_free_once_and_first_for_the_inner_role() {
    let mut world = World::new();
    agent(&mut world, 8);
    let quotas = [("a", guarantee(cpus(6))), ("a/b", guarantee(cpus(4)))];
    assert_eq!(set(&mut world, &quotas, false), Ok(()));
    let other = world.subscribe(framework_info("other", &["z"]));
    assert_eq!(offered(&world, &other), cpus(2));
    let sibling = world.subscribe(framework_info("sibling", &["a/c"]));
    assert_eq!(offered(&world, &sibling), cpus(2));
    let inner = world.subscribe(framework_info("inner", &["a/b"]));
    assert_eq!(offered(&world, &inner), cpus(4));
}

#[test]
fn a_limit_leaves_room_for_what_is_guaranteed_below_it() {
    let mut world = World::new();
    agent(&mut world, 8);
    let outer = Quota {
        guarantee: cpus(0),
        limits: at_most(cpus(5)),
        ..Quota::default()
    };
    let quotas = [("a", outer), ("a/b", guarantee(cpus(4)))];
    assert_eq!(set(&mut world, &quotas, false), Ok(()));
    let sibling = world.subscribe(framework_info("sibling", &["a/c"]));
    assert_eq!(offered(&world, &sibling), cpus(1));
    let inner = world.subscribe(framework_info("inner", &["a/b"]));
    assert_eq!(offered(&world, &inner), cpus(4));
}

#[test]
fn what_is_lent_is_neither_limited_nor_does_it_pay_a_guarantee() {
    let mut world = World::new();
    let lender = agent(&mut world, 2);
    world.say(&lender, AgentToMaster::Oversubscribed(cpus(2)));
    let quota = Quota {
        guarantee: cpus(1),
        limits: at_most(cpus(1)),
        ..Quota::default()
    };
    assert_eq!(set(&mut world, &[("a", quota)], false), Ok(()));
    let mut info = framework_info("one", &["a"]);
    info.capabilities.push(Capability::RevocableResources);
    let one = world.subscribe(info);
    let offer = world.offer(&one);
    let expected = Resources {
        regular: cpus(1),
        revocable: cpus(2),
    };
    assert_eq!(offer.resources, expected);
}

#[test]
fn quotas_that_cannot_be_are_refused_all_or_none() {
    let mut world = World::new();
    agent(&mut world, 4);
    let crossed = Quota {
        guarantee: cpus(2),
        limits: at_most(cpus(1)),
        ..Quota::default()
    };
    let within = [
        ("b", limit(cpus(3))),
        ("b/c", guarantee(cpus(2))),
        ("b/d/e", guarantee(cpus(2))),
    ];
    for quotas in [&[("a", guarantee(cpus(1))), ("b", crossed)][..], &within] {
        let error = set(&mut world, quotas, true).unwrap_err();
        assert!(
            matches!(&error, OperatorError::QuotaUnfit { role: of, .. } if *of == role("b")),
            "{error}"
        );
    }
    let beyond = set(&mut world, &[("a", guarantee(cpus(5)))], false);
    let kind = ResourceKind::Cpus;
    assert_eq!(beyond, Err(OperatorError::QuotaBeyondCluster { kind }));
    assert!(world.registry().quotas.is_empty());
    let one = world.subscribe(framework_info("one", &["a"]));
    take_all(&mut world, &one);
    let passed = set(&mut world, &[("a", limit(cpus(3)))], false);
    let of = role("a");
    assert_eq!(
        passed,
        Err(OperatorError::QuotaExceeded {
            role: of,
            kind,
            is_revocable: false
        })
    );
    assert_eq!(set(&mut world, &[("a", limit(cpus(3)))], true), Ok(()));
    let states = world.core.cluster_state().roles;
    assert_eq!(
        (states[0].quota, states[0].consumed),
        (limit(cpus(3)), cpus(4))
    );
}

#[test]
fn offers_that_stand_against_a_quota_are_withdrawn_and_no_others() {
    let mut world = World::new();
    for _ in 0..3 {
        agent(&mut world, 2);
    }
    let other = world.subscribe(framework_info("other", &["batch"]));
    assert_eq!(world.offers(&other).len(), 3);
    let prod = world.subscribe(framework_info("prod", &["prod"]));
    assert_eq!(
        set(&mut world, &[("prod", guarantee(cpus(2)))], false),
        Ok(())
    );
    assert_eq!(
        (offered(&world, &other), offered(&world, &prod)),
        (cpus(4), cpus(2))
    );
    // What it is offered within its guarantee it keeps, whatever the others are guaranteed.
    assert_eq!(
        set(&mut world, &[("third", guarantee(cpus(4)))], false),
        Ok(())
    );
    assert_eq!(
        (offered(&world, &other), offered(&world, &prod)),
        (Quantities::ZERO, cpus(2))
    );
    assert_eq!(set(&mut world, &[("prod", limit(cpus(1)))], false), Ok(()));
    assert_eq!(offered(&world, &prod), cpus(1));
}

#[test]
fn a_proposal_that_passes_a_quota_by_now_is_given_back() {
    let mut world = World::new();
    world.offering = false;
    agent(&mut world, 4);
    let one = world.subscribe(framework_info("one", &["a"]));
    let proposals = world.propose();
    assert_eq!(proposals.len(), 1);
    world.in_flight.clone_from(&proposals);
    assert_eq!(set(&mut world, &[("a", limit(cpus(1)))], false), Ok(()));
    world.in_flight.clear();
    world.offering = true;
    world.step(Input::Proposals {
        batch: None,
        proposals,
    });
    assert_eq!(offered(&world, &one), cpus(1));
    assert_eq!(world.core.counters().proposals_refused, 1);
}

#[test]
fn what_is_free_of_an_agent_that_is_out_of_use_keeps_no_guarantee() {
    let mut world = World::new();
    agent(&mut world, 4);
    let out = agent(&mut world, 4);
    assert_eq!(
        set(&mut world, &[("prod", guarantee(cpus(3)))], false),
        Ok(())
    );
    let other = world.subscribe(framework_info("other", &["batch"]));
    assert_eq!(offered(&world, &other), cpus(5));
    world.offering = false;
    for offer in world.offers(&other) {
        let offer_ids = vec![offer.id];
        let filters = NO_FILTER;
        world.call(&other, Call::Decline { offer_ids, filters });
    }
    assert_eq!(
        operate(&mut world, OperatorCommand::Deactivate(out.id.clone())),
        Ok(())
    );
    world.offering = true;
    world.call(&other, Call::Revive { roles: Vec::new() });
    assert_eq!(offered(&world, &other), cpus(1));
    assert_eq!(
        operate(&mut world, OperatorCommand::Reactivate(out.id)),
        Ok(())
    );
    assert_eq!(offered(&world, &other), cpus(5));
}

#[test]
fn after_a_restart_nothing_is_offered_before_most_agents_are_back() {
    let mut world = World::new();
    let agents: Vec<Played> = (0..5).map(|_| agent(&mut world, 2)).collect();
    let prod = world.subscribe(framework_info("prod", &["prod"]));
    assert_eq!(set(&mut world, &[("prod", limit(cpus(2)))], false), Ok(()));
    take_all(&mut world, &prod);
    let (id, runs_on) = world.core.frameworks[&prod.id].tasks.iter().next().unwrap();
    let (task, on) = (
        command_task(id.as_str(), &runs_on.agent_id, runs_on.resources),
        &runs_on.agent_id,
    );
    let mut next = World::restored(world.registry());
    let mut info = framework_info("prod", &["prod"]);
    info.id = Some(prod.id.clone());
    let prod = next.subscribe(info);
    // The one that runs what fills the limit comes back last but one.
    let (last, first): (Vec<_>, Vec<_>) = agents.iter().partition(|agent| agent.id == *on);
    for agent in &first[..3] {
        next.reregister(agent, agent_info(2000, 2048), Vec::new());
        assert_eq!(offered(&next, &prod), Quantities::ZERO);
    }
    let brought = running(&prod.id, task, TaskState::Running);
    next.reregister(last[0], agent_info(2000, 2048), vec![brought]);
    assert_eq!(
        offered(&next, &prod),
        Quantities::ZERO,
        "it is at its limit"
    );
    assert_eq!(set(&mut next, &[("prod", Quota::default())], false), Ok(()));
    assert_eq!(offered(&next, &prod), cpus(6));
}

#[test]
fn after_a_restart_agents_that_stay_away_are_not_awaited_for_ever() {
    let mut world = World::new();
    let agents: Vec<Played> = (0..2).map(|_| agent(&mut world, 2)).collect();
    assert_eq!(set(&mut world, &[("a", limit(cpus(2)))], false), Ok(()));
    let mut next = World::restored(world.registry());
    let one = next.subscribe(framework_info("one", &["a"]));
    next.reregister(&agents[0], agent_info(2000, 2048), Vec::new());
    assert_eq!(offered(&next, &one), Quantities::ZERO);
    for _ in 0..20 {
        next.pass_ms(30_000);
        let back = Played {
            connection: ConnectionId(2),
            ..agents[0].clone()
        };
        next.say(&back, AgentToMaster::Heartbeat);
    }
    assert_eq!(offered(&next, &one), cpus(2));
}

#[test]
fn metrics_show_what_roles_with_a_quota_hold_with_all_below_them() {
    let mut world = World::new();
    agent(&mut world, 4);
    let quota = Quota {
        guarantee: cpus(1),
        limits: at_most(cpus(8)),
        ..Quota::default()
    };
    assert_eq!(set(&mut world, &[("eng", quota)], false), Ok(()));
    let below = world.subscribe(framework_info("f", &["eng/web"]));
    take_all(&mut world, &below);
    agent(&mut world, 2);
    let gauges = world.gauges();
    assert_eq!(gauges.quotas_left_out, 0);
    let [shown] = &gauges.quotas[..] else {
        panic!("{:?}", gauges.quotas)
    };
    assert_eq!((&shown.role, shown.quota), (&role("eng"), quota));
    assert_eq!((shown.consumed, shown.allocated), (cpus(6), cpus(4)));
    assert_eq!(set(&mut world, &[("eng", Quota::default())], false), Ok(()));
    assert_eq!(world.gauges().quotas, []);
}
