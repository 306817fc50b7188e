//! How accepted offers become tasks.

use super::*;
use ebb_types::{ExecutorId, ExecutorInfo, MalformedTask, Reason};

fn setup() -> (World, Scheduler, Played, Offer) {
    let mut world = World::new();
    let scheduler = world.subscribe(framework_info("f", &["r"]));
    let agent = world.register(agent_info(4000, 4096));
    let offer = world.offer(&scheduler);
    world.offering = false;
    (world, scheduler, agent, offer)
}

fn executor(name: &str, cpu_milli: u64) -> ExecutorInfo {
    ExecutorInfo {
        executor_id: ExecutorId::new(name).unwrap(),
        name: name.to_owned(),
        command: CommandInfo {
            value: String::from("run"),
            shell: true,
            ..CommandInfo::default()
        },
        lots: ebb_types::Lots::NONE,
        resources: res(cpu_milli, 32),
        data: Vec::new(),
    }
}

fn executor_task(id: &str, agent: &AgentId, executor: &ExecutorInfo) -> TaskInfo {
    TaskInfo {
        command: None,
        executor: Some(executor.clone()),
        ..command_task(id, agent, res(500, 64))
    }
}

fn launches(world: &World, agent: &Played) -> usize {
    world.count_orders(agent, |order| matches!(order, MasterToAgent::Launch { .. }))
}

#[test]
fn an_accepted_task_is_launched_and_what_is_left_is_free() {
    let (mut world, scheduler, agent, offer) = setup();
    world.accept(
        &scheduler,
        &offer,
        vec![command_task("t", &agent.id, res(1000, 1024))],
    );
    match world.orders(&agent).last() {
        Some(MasterToAgent::Launch {
            framework_id,
            user,
            incarnation,
            task,
        }) => {
            assert_eq!((framework_id, user.as_str()), (&scheduler.id, "u"));
            assert_eq!(
                (*incarnation, task.task_id.as_str()),
                (agent.incarnation, "t")
            );
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(world.allocated(&agent), res(1000, 1024));
    assert_eq!(world.free(&agent), res(3000, 3072));
    // TASK_STAGING is not told.
    assert!(world.updates(&scheduler).is_empty());
}

#[test]
fn an_offer_is_accepted_once() {
    let (mut world, scheduler, agent, offer) = setup();
    world.accept(
        &scheduler,
        &offer,
        vec![command_task("a", &agent.id, res(1000, 0))],
    );
    world.accept(
        &scheduler,
        &offer,
        vec![command_task("b", &agent.id, res(1000, 0))],
    );
    let update = world.last_update(&scheduler);
    assert_eq!(update.state, TaskState::Dropped);
    assert_eq!(update.reason, Some(Reason::InvalidOffers));
    assert_eq!((update.source, update.uuid), (Source::Master, None));
    assert_eq!(world.allocated(&agent), res(1000, 0));
    assert_eq!(launches(&world, &agent), 1);
}

#[test]
fn an_invalid_offer_drops_every_task_and_gives_back_the_valid_ones() {
    let (mut world, scheduler, agent, offer) = setup();
    let call = Call::Accept {
        offer_ids: vec![offer.id.clone(), OfferId::new("gone").unwrap()],
        operations: vec![Operation::Launch {
            tasks: vec![
                command_task("a", &agent.id, res(1000, 0)),
                command_task("b", &agent.id, res(1000, 0)),
            ],
            malformed: vec![MalformedTask {
                task_id: task_id("c"),
                rule: String::from("nonsense"),
            }],
        }],
        filters: Filters::default(),
    };
    world.call(&scheduler, call);
    let told: Vec<_> = world
        .updates(&scheduler)
        .into_iter()
        .map(|status| status.state)
        .collect();
    assert_eq!(told, [TaskState::Dropped; 3]);
    assert_eq!(world.free(&agent), res(4000, 4096));
    assert_eq!(launches(&world, &agent), 0);
}

#[test]
fn frameworks_that_are_not_partition_aware_hear_lost_instead_of_dropped() {
    let mut world = World::new();
    let mut info = framework_info("f", &["r"]);
    info.capabilities.clear();
    let scheduler = world.subscribe(info);
    let agent = world.register(agent_info(1000, 1024));
    let offer = world.offer(&scheduler);
    let mut gone = offer.clone();
    gone.id = OfferId::new("gone").unwrap();
    world.accept(
        &scheduler,
        &gone,
        vec![command_task("a", &agent.id, res(1000, 0))],
    );
    assert_eq!(world.last_update(&scheduler).state, TaskState::Lost);
}

#[test]
fn offers_named_twice_of_others_or_of_several_agents_or_roles_are_invalid() {
    let mut world = World::new();
    let scheduler = world.subscribe(framework_info("f", &["r"]));
    let (a, b) = (
        world.register(agent_info(1000, 1024)),
        world.register(agent_info(1000, 1024)),
    );
    let offers = world.offers(&scheduler);
    let other = world.subscribe(framework_info("g", &["r"]));
    world.offering = false;
    let ids = |picked: &[usize]| {
        picked
            .iter()
            .map(|n| offers[*n].id.clone())
            .collect::<Vec<_>>()
    };
    let tries = [
        (&other, ids(&[0])),
        (&scheduler, Vec::new()),
        (&scheduler, ids(&[0, 0])),
    ];
    for (who, offer_ids) in tries {
        let before = launches(&world, &a) + launches(&world, &b);
        let call = Call::Accept {
            offer_ids,
            operations: launch(vec![command_task("t", &a.id, res(100, 0))]),
            filters: NO_FILTER,
        };
        world.call(who, call);
        assert_eq!(world.last_update(who).reason, Some(Reason::InvalidOffers));
        assert_eq!(launches(&world, &a) + launches(&world, &b), before);
    }
    assert!(
        world.core.offers.contains_key(&offers[1].id),
        "another's accept took an offer"
    );
    world.offering = true;
    world.call(&other, Call::Teardown);
    world.call(&scheduler, Call::Revive { roles: Vec::new() });
    let call = Call::Accept {
        offer_ids: world
            .offers(&scheduler)
            .into_iter()
            .map(|offer| offer.id)
            .collect(),
        operations: launch(vec![command_task("t", &a.id, res(100, 0))]),
        filters: NO_FILTER,
    };
    world.call(&scheduler, call);
    assert!(
        world
            .last_update(&scheduler)
            .message
            .contains("different agents")
    );
}

#[test]
fn several_offers_of_one_agent_can_be_used_together() {
    let (mut world, scheduler, agent, offer) = setup();
    world.offering = true;
    world.accept(
        &scheduler,
        &offer,
        vec![command_task("a", &agent.id, res(3000, 0))],
    );
    let uuid = world.update(&agent, &scheduler, "a", TaskState::Finished, 1);
    world.acknowledge(&scheduler, &agent, "a", uuid);
    let offers = world.offers(&scheduler);
    assert_eq!(offers.len(), 2, "{offers:?}");
    let call = Call::Accept {
        offer_ids: offers.iter().map(|offer| offer.id.clone()).collect(),
        operations: launch(vec![command_task("b", &agent.id, res(4000, 4096))]),
        filters: NO_FILTER,
    };
    world.call(&scheduler, call);
    assert_eq!(world.allocated(&agent), res(4000, 4096));
}

#[test]
fn an_accept_without_tasks_declines() {
    let (mut world, scheduler, agent, offer) = setup();
    let call = Call::Accept {
        offer_ids: vec![offer.id],
        operations: launch(Vec::new()),
        filters: Filters { refuse_ms: 1000 },
    };
    world.call(&scheduler, call);
    assert_eq!(world.free(&agent), res(4000, 4096));
    assert_eq!(world.core.counters().offers_declined, 1);
    world.offering = true;
    world.pass_ms(999);
    assert!(world.offers(&scheduler).is_empty());
    world.pass_ms(1);
    assert_eq!(world.offers(&scheduler).len(), 1);
}

#[test]
fn a_wrong_task_fails_alone_and_its_share_is_offered_again() {
    let (mut world, scheduler, agent, offer) = setup();
    world.offering = true;
    let good = command_task("good", &agent.id, res(1000, 1024));
    let greedy = command_task("greedy", &agent.id, res(3500, 0));
    let last = command_task("last", &agent.id, res(1000, 1024));
    world.accept(&scheduler, &offer, vec![good, greedy, last]);
    let updates = world.updates(&scheduler);
    assert_eq!(updates.len(), 1);
    assert_eq!(updates[0].task_id.as_str(), "greedy");
    assert_eq!(updates[0].state, TaskState::Error);
    assert_eq!(updates[0].reason, Some(Reason::TaskInvalid));
    assert!(
        updates[0].message.contains("left of the offer"),
        "{}",
        updates[0].message
    );
    assert_eq!(launches(&world, &agent), 2);
    assert_eq!(world.offer(&scheduler).resources, res(2000, 2048));
}

#[test]
fn a_task_that_could_not_be_read_gets_its_rule_back() {
    let (mut world, scheduler, agent, offer) = setup();
    let call = Call::Accept {
        offer_ids: vec![offer.id],
        operations: vec![Operation::Launch {
            tasks: Vec::new(),
            malformed: vec![MalformedTask {
                task_id: task_id("t"),
                rule: String::from("there is no resource named gpu"),
            }],
        }],
        filters: NO_FILTER,
    };
    world.call(&scheduler, call);
    let update = world.last_update(&scheduler);
    assert_eq!(
        (update.state, update.reason),
        (TaskState::Error, Some(Reason::TaskInvalid))
    );
    assert!(update.message.contains("gpu"));
    assert_eq!(world.free(&agent), res(4000, 4096));
}

#[test]
fn a_task_id_is_used_once_while_its_task_lives_and_may_be_used_again_after() {
    let (mut world, scheduler, agent) = World::with_running_task();
    world.offering = true;
    world.call(&scheduler, Call::Revive { roles: Vec::new() });
    let offer = world.offer(&scheduler);
    world.accept(
        &scheduler,
        &offer,
        vec![command_task("t", &agent.id, res(1000, 0))],
    );
    assert!(
        world
            .last_update(&scheduler)
            .message
            .contains("choose another id")
    );
    let uuid = world.update(&agent, &scheduler, "t", TaskState::Finished, 2);
    world.acknowledge(&scheduler, &agent, "t", uuid);
    let offer = world.offers(&scheduler).pop().unwrap();
    let before = launches(&world, &agent);
    world.accept(
        &scheduler,
        &offer,
        vec![command_task("t", &agent.id, res(1000, 0))],
    );
    assert_eq!(launches(&world, &agent), before + 1);
}

#[test]
fn a_new_executor_is_charged_once_and_freed_when_it_exits() {
    let (mut world, scheduler, agent, offer) = setup();
    let own = executor("e", 200);
    let tasks = vec![
        executor_task("a", &agent.id, &own),
        executor_task("b", &agent.id, &own),
    ];
    world.accept(&scheduler, &offer, tasks);
    assert_eq!(world.allocated(&agent), res(1200, 160));
    for (count, task) in ["a", "b"].into_iter().enumerate() {
        world.update(&agent, &scheduler, task, TaskState::Finished, count as u64);
    }
    assert_eq!(world.allocated(&agent), res(200, 32));
    let message = AgentToMaster::ExecutorExited {
        framework_id: scheduler.id.clone(),
        executor_id: own.executor_id.clone(),
        status: 256,
    };
    world.say(&agent, message.clone());
    assert_eq!(world.allocated(&agent), Resources::ZERO);
    let failure = Event::Failure {
        agent_id: Some(agent.id.clone()),
        executor_id: Some(own.executor_id),
        status: Some(256),
    };
    // The second report is no news.
    world.say(&agent, message);
    assert_eq!(world.count_events(&scheduler, |event| *event == failure), 1);
}

#[test]
fn an_executor_must_be_described_as_it_runs() {
    let (mut world, scheduler, agent, offer) = setup();
    let tasks = vec![
        executor_task("a", &agent.id, &executor("e", 200)),
        executor_task("b", &agent.id, &executor("e", 300)),
    ];
    world.accept(&scheduler, &offer, tasks);
    let update = world.last_update(&scheduler);
    assert_eq!(
        (update.task_id.as_str(), update.state),
        ("b", TaskState::Error)
    );
    assert!(update.message.contains("differs"), "{}", update.message);
}

#[test]
fn offers_name_the_frameworks_own_executors_on_the_agent() {
    let (mut world, scheduler, agent, offer) = setup();
    world.offering = true;
    world.accept(
        &scheduler,
        &offer,
        vec![executor_task("a", &agent.id, &executor("e", 200))],
    );
    let offer = world.offer(&scheduler);
    assert_eq!(offer.executor_ids, [ExecutorId::new("e").unwrap()]);
}
