//! Limits of what is lent: no offer passes one, what is owned is as before, and what becomes of offers, tasks and restarts.

use ebb_types::{ExplainSubject, Limits, Quota, Verdict};

use super::*;
use crate::core::{OperatorCommand, RequestId};

fn operate(world: &mut World, command: OperatorCommand) -> Result<(), OperatorError> {
    let request = RequestId(9);
    world.step(Input::Operator { request, command });
    world.answers.pop().expect("no answer")
}

/// Limits what a role is lent of CPU.
fn limit(
    world: &mut World,
    name: &str,
    cpu_milli: Option<u64>,
    force: bool,
) -> Result<(), OperatorError> {
    let limits = [ResourceKind::Cpus, ResourceKind::Mem];
    let revocable_limits = limits.into_iter().fold(Limits::NONE, |limits, kind| {
        // Nothing of memory is lent here, and none is to be offered by itself.
        limits.with(
            kind,
            cpu_milli.map(|cpu_milli| {
                if kind == ResourceKind::Cpus {
                    cpu_milli
                } else {
                    0
                }
            }),
        )
    });
    let quota = Quota {
        revocable_limits,
        ..Quota::default()
    };
    let command = OperatorCommand::SetQuotas {
        quotas: vec![(role(name), quota)],
        lot_limits: Vec::new(),
        force,
    };
    operate(world, command)
}

fn borrower(name: &str, roles: &[&str]) -> FrameworkInfo {
    let mut info = framework_info(name, roles);
    info.capabilities.push(Capability::RevocableResources);
    info
}

fn lend(world: &mut World, agent: &Played, cpu_milli: u64) {
    let lent = AgentToMaster::Oversubscribed(Quantities::cpus_mem(cpu_milli, 0));
    world.say(agent, lent);
}

/// An agent all of which is in use by somebody who borrows nothing.
fn busy_agent(world: &mut World) -> Played {
    let owner = world.subscribe(framework_info("owner", &["owner"]));
    let agent = world.register(agent_info(4000, 4096));
    for offer in world.offers(&owner) {
        let id = format!("own-{}", offer.id);
        let task = command_task(&id, &offer.agent_id, offer.resources);
        world.accept(&owner, &offer, vec![task]);
    }
    agent
}

/// The CPU that a framework is offered of what is lent.
fn lent_to(world: &World, scheduler: &Scheduler) -> u64 {
    let offers = world.offers(scheduler).into_iter();
    offers
        .map(|offer| offer.resources.revocable.cpu_milli())
        .sum()
}

/// Runs a task of all that a framework is offered; its name.
fn borrow(world: &mut World, scheduler: &Scheduler) -> String {
    let offer = world.offer(scheduler);
    let id = format!("t-{}", offer.id);
    let task = command_task(&id, &offer.agent_id, offer.resources);
    world.accept(scheduler, &offer, vec![task]);
    id
}

fn held(world: &World, name: &str) -> u64 {
    let claims = world.core.claims();
    claims.held_revocable_below(&role(name)).cpu_milli()
}

#[test]
fn no_more_is_lent_to_a_role_and_those_below_it_than_its_limit_and_the_rest_goes_to_others() {
    let mut world = World::new();
    let agent = busy_agent(&mut world);
    assert_eq!(limit(&mut world, "batch", Some(1500), false), Ok(()));
    let web = world.subscribe(borrower("one", &["batch/one"]));
    lend(&mut world, &agent, 1000);
    assert_eq!(lent_to(&world, &web), 1000);
    borrow(&mut world, &web);
    let sibling = world.subscribe(borrower("two", &["batch/two"]));
    lend(&mut world, &agent, 2500);
    assert_eq!(
        lent_to(&world, &web) + lent_to(&world, &sibling),
        500,
        "together they may hold 1,500"
    );
    let other = world.subscribe(borrower("other", &["other"]));
    assert_eq!(lent_to(&world, &other), 1000);
    assert_eq!(held(&world, "batch"), 1500);
}

#[test]
fn what_ends_and_what_is_declined_may_be_lent_again() {
    let mut world = World::new();
    let agent = busy_agent(&mut world);
    assert_eq!(limit(&mut world, "batch", Some(600), false), Ok(()));
    let one = world.subscribe(borrower("one", &["batch"]));
    lend(&mut world, &agent, 2000);
    let task = borrow(&mut world, &one);
    assert_eq!(lent_to(&world, &one), 0, "it is at its limit");
    world.update(&agent, &one, &task, TaskState::Finished, 1);
    assert_eq!(lent_to(&world, &one), 600);
    let two = world.subscribe(borrower("two", &["batch"]));
    let offer_ids = vec![world.offer(&one).id];
    let filters = Filters { refuse_ms: 60_000 };
    world.call(&one, Call::Decline { offer_ids, filters });
    assert_eq!(lent_to(&world, &two), 600, "its sibling has it now");
}

#[test]
fn limits_of_what_is_owned_and_of_what_is_lent_know_nothing_of_each_other() {
    let mut world = World::new();
    let agent = world.register(agent_info(4000, 4096));
    let quota = Quota {
        limits: Limits::NONE
            .with(ResourceKind::Cpus, Some(1000))
            .with(ResourceKind::Mem, Some(1024 * MIB)),
        ..Quota::default()
    };
    let command = OperatorCommand::SetQuotas {
        quotas: vec![(role("owned"), quota)],
        lot_limits: Vec::new(),
        force: false,
    };
    assert_eq!(operate(&mut world, command), Ok(()));
    assert_eq!(limit(&mut world, "lent", Some(0), false), Ok(()));
    lend(&mut world, &agent, 800);
    let owned = world.subscribe(borrower("owned", &["owned"]));
    assert_eq!(lent_to(&world, &owned), 800);
    assert_eq!(
        world.core.claims().held_below(&role("owned")).cpu_milli(),
        1000
    );
    let lent = world.subscribe(borrower("lent", &["lent"]));
    assert_eq!(lent_to(&world, &lent), 0);
    let rest = world.core.claims().held_below(&role("lent"));
    assert_eq!(rest.cpu_milli(), 3000, "all of what is owned that is left");
}

#[test]
fn a_lower_limit_withdraws_offers_and_is_refused_below_what_tasks_hold_unless_it_is_meant() {
    let mut world = World::new();
    let agent = busy_agent(&mut world);
    let one = world.subscribe(borrower("one", &["batch"]));
    lend(&mut world, &agent, 1000);
    assert_eq!(lent_to(&world, &one), 1000);
    assert_eq!(limit(&mut world, "batch", Some(400), false), Ok(()));
    assert_eq!(lent_to(&world, &one), 400, "the larger offer is withdrawn");
    borrow(&mut world, &one);
    let (of, kind) = (role("batch"), ResourceKind::Cpus);
    let refused = OperatorError::QuotaExceeded {
        role: of,
        kind,
        is_revocable: true,
    };
    assert!(
        refused.to_string().contains("more revocable cpus"),
        "{refused}"
    );
    assert_eq!(limit(&mut world, "batch", Some(300), false), Err(refused));
    assert_eq!(limit(&mut world, "batch", Some(300), true), Ok(()));
    assert_eq!((held(&world, "batch"), lent_to(&world, &one)), (400, 0));
    assert_eq!(limit(&mut world, "batch", None, false), Ok(()));
    assert_eq!(
        lent_to(&world, &one),
        600,
        "without a limit it may have the rest"
    );
}

#[test]
fn a_proposal_that_passes_the_limit_by_now_is_given_back() {
    let mut world = World::new();
    let agent = busy_agent(&mut world);
    let one = world.subscribe(borrower("one", &["batch"]));
    world.offering = false;
    lend(&mut world, &agent, 1000);
    let proposals = world.propose();
    assert_eq!(proposals.len(), 1);
    world.in_flight.clone_from(&proposals);
    assert_eq!(limit(&mut world, "batch", Some(400), false), Ok(()));
    world.in_flight.clear();
    world.offering = true;
    world.step(Input::Proposals {
        batch: None,
        proposals,
    });
    assert_eq!(lent_to(&world, &one), 400);
    assert_eq!(world.core.counters().proposals_refused, 1);
}

#[test]
fn a_limit_survives_the_master() {
    let mut world = World::new();
    assert_eq!(limit(&mut world, "batch", Some(400), false), Ok(()));
    let mut next = World::restored(world.registry());
    let agent = busy_agent(&mut next);
    let one = next.subscribe(borrower("one", &["batch"]));
    lend(&mut next, &agent, 1000);
    assert_eq!(lent_to(&next, &one), 400);
}

#[test]
fn whoever_is_at_the_limit_is_told_so() {
    let mut world = World::new();
    let agent = busy_agent(&mut world);
    assert_eq!(limit(&mut world, "batch", Some(400), false), Ok(()));
    let one = world.subscribe(borrower("one", &["batch"]));
    lend(&mut world, &agent, 1000);
    borrow(&mut world, &one);
    let subject = ExplainSubject::Framework(one.id.clone());
    let explanation = world.core.explain(world.now, subject).unwrap();
    let claim = &explanation.claims[0];
    assert_eq!(explanation.verdict(claim), Verdict::AtLimit);
    let state = &claim.quotas[0];
    assert_eq!(state.held_revocable.cpu_milli(), 400);
    assert_eq!(
        state.quota.revocable_limits.get(ResourceKind::Cpus),
        Some(400)
    );
}
