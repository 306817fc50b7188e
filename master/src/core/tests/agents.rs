//! How agents come, go and come back.

use super::*;
use ebb_types::{AgentStatus, Reason};

fn status(world: &World, agent: &Played) -> AgentStatus {
    world.core.agent_state(&agent.id).unwrap().status
}

#[test]
fn a_new_agent_is_durable_before_it_hears_of_its_id() {
    let mut world = World::new();
    let agent = Played {
        connection: world.connection(),
        id: AgentId::new("unset").unwrap(),
        incarnation: Incarnation(1),
    };
    let message = AgentToMaster::Register {
        info: agent_info(1000, 1024),
        incarnation: agent.incarnation,
    };
    let effects = world.say(&agent, message.clone());
    assert!(matches!(effects[0], Effect::Persist(_)), "{effects:?}");
    assert!(matches!(effects[1], Effect::ToAgent { .. }), "{effects:?}");
    // Asking again changes nothing.
    world.say(&agent, message);
    assert_eq!((world.core.agents.len(), world.writes.len()), (1, 1));
}

#[test]
fn messages_before_registration_end_the_connection() {
    let mut world = World::new();
    let stranger = Played {
        connection: world.connection(),
        id: AgentId::new("x").unwrap(),
        incarnation: Incarnation(1),
    };
    world.say(&stranger, AgentToMaster::Heartbeat);
    assert!(world.closed.contains_key(&stranger.connection));
}

#[test]
fn an_agent_with_enormous_resources_is_refused() {
    let mut world = World::new();
    let connection = world.connection();
    let message = AgentToMaster::Register {
        info: agent_info(u64::MAX, 1),
        incarnation: Incarnation(1),
    };
    world.step(Input::Agent {
        connection,
        incarnation: Incarnation(1),
        message,
    });
    assert!(matches!(
        world.orders[&connection][0],
        MasterToAgent::Refused { .. }
    ));
    assert!(world.closed.contains_key(&connection) && world.core.agents.is_empty());
}

#[test]
fn a_disconnected_agents_offers_are_rescinded_and_it_is_offered_from_when_it_is_back() {
    let mut world = World::new();
    let scheduler = world.subscribe(framework_info("f", &["r"]));
    let agent = world.register(agent_info(1000, 1024));
    let offer = world.offer(&scheduler);
    world.agent_gone(&agent);
    assert_eq!(status(&world, &agent), AgentStatus::Disconnected);
    let rescinded = Event::Rescind(offer.id.clone());
    assert_eq!(
        world.count_events(&scheduler, |event| *event == rescinded),
        1
    );
    // Using it now drops the task.
    world.accept(
        &scheduler,
        &offer,
        vec![command_task("t", &agent.id, res(1, 0))],
    );
    assert_eq!(world.last_update(&scheduler).state, TaskState::Dropped);
    world.reregister(&agent, agent_info(1000, 1024), Vec::new());
    assert_eq!(status(&world, &agent), AgentStatus::Registered);
    assert_ne!(world.offer(&scheduler).id, offer.id);
}

#[test]
fn a_silent_agent_becomes_unreachable_durably_with_its_tasks() {
    let (mut world, scheduler, agent) = World::with_running_task();
    world.pass_ms(74_999);
    assert_eq!(status(&world, &agent), AgentStatus::Registered);
    let failures = |world: &World| {
        world.count_events(&scheduler, |event| {
            matches!(
                event,
                Event::Failure {
                    executor_id: None,
                    ..
                }
            )
        })
    };
    assert_eq!(failures(&world), 0);
    world.pass_ms(1);
    assert_eq!(status(&world, &agent), AgentStatus::Unreachable);
    let marked = world.writes.iter().any(|write| {
        matches!(write, RegistryWrite::PutAgent(record) if record.unreachable_since.is_some())
    });
    assert!(marked);
    let update = world.last_update(&scheduler);
    assert_eq!(update.state, TaskState::Unreachable);
    assert_eq!(
        (update.reason, update.uuid),
        (Some(Reason::AgentRemoved), None)
    );
    assert_eq!(failures(&world), 1);
    assert!(world.closed.contains_key(&agent.connection));
    assert!(world.ledger.get(&agent.id).is_none());
}

#[test]
fn an_agent_that_speaks_stays() {
    let (mut world, _, agent) = World::with_running_task();
    for _ in 0..10 {
        world.pass_ms(70_000);
        world.say(&agent, AgentToMaster::Heartbeat);
    }
    assert_eq!(status(&world, &agent), AgentStatus::Registered);
}

#[test]
fn a_disconnected_agent_becomes_unreachable_too() {
    let (mut world, _, agent) = World::with_running_task();
    world.agent_gone(&agent);
    world.pass_ms(75_000);
    assert_eq!(status(&world, &agent), AgentStatus::Unreachable);
}

#[test]
fn an_unreachable_agent_that_returns_brings_its_tasks_back() {
    let (mut world, scheduler, agent) = World::with_running_task();
    world.pass_ms(80_000);
    let task = world.running_task(&scheduler, &agent);
    let back = world.reregister(&agent, agent_info(4000, 4096), vec![task]);
    let update = world.last_update(&scheduler);
    assert_eq!(update.state, TaskState::Running);
    assert_eq!(
        (update.reason, update.uuid),
        (Some(Reason::AgentReregistered), None)
    );
    assert_eq!(world.allocated(&back), res(1000, 1024));
    let marked = world.registry().agents[0].unreachable_since;
    assert_eq!(marked, None, "its return is durable");
    // And its end is told as ever.
    let uuid = world.update(&back, &scheduler, "t", TaskState::Finished, 5);
    world.acknowledge(&scheduler, &back, "t", uuid);
    assert!(world.core.frameworks[&scheduler.id].tasks.is_empty());
}

#[test]
fn an_unreachable_agent_that_returns_without_its_task_lets_it_be_unknown_no_more() {
    let (mut world, scheduler, agent) = World::with_running_task();
    world.pass_ms(80_000);
    world.reregister(&agent, agent_info(4000, 4096), Vec::new());
    let update = world.last_update(&scheduler);
    assert_eq!(update.state, TaskState::Gone);
    assert_eq!(
        world.core.frameworks[&scheduler.id]
            .unreachable
            .iter()
            .count(),
        0
    );
}

#[test]
fn an_end_that_was_not_acknowledged_survives_the_agents_absence() {
    let (mut world, scheduler, agent) = World::with_running_task();
    world.update(&agent, &scheduler, "t", TaskState::Finished, 2);
    world.pass_ms(80_000);
    assert_ne!(world.last_update(&scheduler).state, TaskState::Unreachable);
    let mut task = world.running_task(&scheduler, &agent);
    task.state = TaskState::Finished;
    let back = world.reregister(&agent, agent_info(4000, 4096), vec![task]);
    let uuid = world.update(&back, &scheduler, "t", TaskState::Finished, 2);
    world.acknowledge(&scheduler, &back, "t", uuid);
    let framework = &world.core.frameworks[&scheduler.id];
    assert!(framework.tasks.is_empty() && framework.completed.contains(&task_id("t")));
}

#[test]
fn a_task_that_the_agent_never_had_is_dropped_and_one_that_it_lost_is_gone() {
    let (mut world, scheduler, agent) = World::with_running_task();
    world.offering = true;
    world.call(&scheduler, Call::Revive { roles: Vec::new() });
    let offer = world.offer(&scheduler);
    world.accept(
        &scheduler,
        &offer,
        vec![command_task("new", &agent.id, res(100, 0))],
    );
    world.offering = false;
    let back = world.reregister(&agent, agent_info(4000, 4096), Vec::new());
    let told: BTreeMap<_, _> = world
        .updates(&scheduler)
        .into_iter()
        .filter(|status| status.reason == Some(Reason::Reconciliation))
        .map(|status| (status.task_id.to_string(), status.state))
        .collect();
    assert_eq!(told["new"], TaskState::Dropped);
    assert_eq!(told["t"], TaskState::Gone);
    assert_eq!(world.allocated(&back), Resources::ZERO);
    // Should one of them show up after all, it is ended without a second story.
    let before = world.updates(&scheduler).len();
    world.update(&back, &scheduler, "new", TaskState::Running, 8);
    assert_eq!(world.updates(&scheduler).len(), before);
    assert_eq!(
        world.count_orders(&back, |o| matches!(o, MasterToAgent::Kill { .. })),
        1
    );
}

#[test]
fn an_end_that_the_agent_brings_along_frees_the_resources() {
    let (mut world, scheduler, agent) = World::with_running_task();
    let mut task = world.running_task(&scheduler, &agent);
    task.state = TaskState::Finished;
    let back = world.reregister(&agent, agent_info(4000, 4096), vec![task]);
    assert_eq!(world.allocated(&back), Resources::ZERO);
    let known = world.core.frameworks[&scheduler.id]
        .tasks
        .contains_key(&task_id("t"));
    assert!(known, "its end is yet to be acknowledged");
}

#[test]
fn a_later_incarnation_takes_over_and_an_earlier_one_is_refused() {
    let (mut world, scheduler, agent) = World::with_running_task();
    let task = world.running_task(&scheduler, &agent);
    let newer = Played {
        incarnation: Incarnation(5),
        ..agent.clone()
    };
    let newer = world.reregister(&newer, agent_info(4000, 4096), vec![task.clone()]);
    assert!(world.closed.contains_key(&agent.connection));
    // The old process's words count no more.
    world.update(&agent, &scheduler, "t", TaskState::Failed, 3);
    assert_eq!(world.allocated(&newer), res(1000, 1024));
    let older = world.reregister(&agent, agent_info(4000, 4096), vec![task]);
    assert!(matches!(
        world.orders(&older)[0],
        MasterToAgent::Refused { .. }
    ));
    assert!(!world.closed.contains_key(&newer.connection));
}

#[test]
fn words_of_another_incarnation_on_the_connection_are_stale() {
    let (mut world, scheduler, agent) = World::with_running_task();
    let stale = Played {
        incarnation: Incarnation(0),
        ..agent.clone()
    };
    world.update(&stale, &scheduler, "t", TaskState::Failed, 3);
    assert_eq!(world.allocated(&agent), res(1000, 1024));
    assert_eq!(world.core.counters().stale_messages, 1);
}

#[test]
fn an_earlier_incarnation_is_refused_while_the_agent_is_unreachable_too() {
    let (mut world, _, agent) = World::with_running_task();
    world.pass_ms(80_000);
    let older = Played {
        incarnation: Incarnation(0),
        ..agent
    };
    let older = world.reregister(&older, agent_info(4000, 4096), Vec::new());
    assert!(matches!(
        world.orders(&older)[0],
        MasterToAgent::Refused { .. }
    ));
}

#[test]
fn an_agent_that_came_back_smaller_is_offered_from_when_its_tasks_fit() {
    let (mut world, scheduler, agent) = World::with_running_task();
    let task = world.running_task(&scheduler, &agent);
    let back = world.reregister(&agent, agent_info(500, 4096), vec![task]);
    assert!(world.ledger.get(&back.id).is_none());
    world.update(&back, &scheduler, "t", TaskState::Finished, 2);
    assert_eq!(world.free(&back), res(500, 4096));
}

#[test]
fn tasks_of_a_removed_framework_are_shut_down_when_their_agent_returns() {
    let (mut world, scheduler, agent) = World::with_running_task();
    world.agent_gone(&agent);
    world.call(&scheduler, Call::Teardown);
    let task = world.running_task(&scheduler, &agent);
    let back = world.reregister(&agent, agent_info(4000, 4096), vec![task]);
    let shut = |order: &MasterToAgent| matches!(order, MasterToAgent::ShutdownFramework { .. });
    assert_eq!(world.count_orders(&back, shut), 1);
    assert_eq!(world.free(&back), res(3000, 3072));
    world.update(&back, &scheduler, "t", TaskState::Killed, 2);
    assert_eq!(world.free(&back), res(4000, 4096));
}

#[test]
fn a_task_that_runs_elsewhere_is_not_taken_twice() {
    let (world, scheduler, agent) = World::with_running_task();
    // The master restarts; before the agent is back, the framework runs the task on another.
    let mut world = World::restored(world.registry());
    let mut info = framework_info("f", &["r"]);
    info.id = Some(scheduler.id.clone());
    let scheduler = world.subscribe(info);
    let other = world.register(agent_info(1000, 1024));
    let offer = world.offer(&scheduler);
    world.accept(
        &scheduler,
        &offer,
        vec![command_task("t", &other.id, res(1000, 0))],
    );
    let task = world.running_task(&scheduler, &agent);
    world.offering = false;
    let back = world.reregister(&agent, agent_info(4000, 4096), vec![task]);
    assert_eq!(
        world.count_orders(&back, |o| matches!(o, MasterToAgent::Kill { .. })),
        1
    );
    assert_eq!(
        world.core.frameworks[&scheduler.id].tasks[&task_id("t")].agent_id,
        other.id
    );
    let told = world.updates(&scheduler).len();
    world.update(&back, &scheduler, "t", TaskState::Killed, 9);
    assert_eq!(
        world.updates(&scheduler).len(),
        told,
        "the other task's end is not this one's"
    );
}

#[test]
fn the_last_usage_of_an_agent_is_kept_for_operators() {
    let (mut world, _, agent) = World::with_running_task();
    let usage = ebb_types::AgentUsage {
        machine_cpu_milli: Some(123),
        ..Default::default()
    };
    world.say(&agent, AgentToMaster::Usage(usage.clone()));
    assert_eq!(
        world.core.agent_state(&agent.id).unwrap().usage,
        Some(usage)
    );
}

#[test]
fn the_last_corrections_of_an_agent_are_kept_and_no_more_than_there_is_room_for() {
    let (mut world, _, agent) = World::with_running_task();
    let correction = |n: u64| ebb_types::Correction {
        at: ebb_types::Timestamp::from_ms(n),
        container_id: ebb_types::ContainerId::new("c").unwrap(),
        task_id: task_id("t"),
        framework_id: FrameworkId::new("f").unwrap(),
        action: ebb_types::CorrectionAction::Freeze,
        signal: ebb_types::Signal::DiskLatency,
        on_behalf_of: None,
        value: 2,
        threshold: 1,
        baseline: Some(1),
        duration_ms: 1,
        choice: ebb_types::Choice {
            rule: ebb_types::ChoiceRule::MostDisk,
            amount: 1,
            rank: 1,
            candidates: 1,
            spared: false,
        },
        grace_ms: 0,
    };
    let most = ebb_types::limits::MAX_RECENT_CORRECTIONS as u64;
    for n in 0..most + 5 {
        let usage = ebb_types::AgentUsage {
            corrections: vec![correction(n)],
            // What an agent says of it does not count.
            recent: vec![correction(999); 3],
            ..Default::default()
        };
        world.say(&agent, AgentToMaster::Usage(usage));
        world.say(
            &agent,
            AgentToMaster::Usage(ebb_types::AgentUsage::default()),
        );
    }
    let kept = world.core.agent_state(&agent.id).unwrap().usage.unwrap();
    let at: Vec<u64> = kept.recent.iter().map(|c| c.at.as_ms()).collect();
    assert_eq!(at, (5..most + 5).collect::<Vec<_>>());
}

#[test]
fn an_agent_may_not_bring_along_what_cannot_be_counted() {
    let (mut world, scheduler, agent) = World::with_running_task();
    world.agent_gone(&agent);
    let mut task = world.running_task(&scheduler, &agent);
    task.info.resources = res(u64::MAX, 1);
    let back = world.reregister(&agent, agent_info(4000, 4096), vec![task]);
    assert!(matches!(
        world.orders(&back)[0],
        MasterToAgent::Refused { .. }
    ));
}

#[test]
fn a_registration_that_comes_twice_or_late_does_not_undo_what_came_after_it() {
    let mut world = World::new();
    let scheduler = world.subscribe(framework_info("f", &["r"]));
    let agent = world.register(agent_info(4000, 4096));
    let late = world.connection();
    let back = world.reregister(&agent, agent_info(4000, 4096), Vec::new());
    let offer = world.offer(&scheduler);
    world.accept(
        &scheduler,
        &offer,
        vec![command_task("t", &agent.id, res(1000, 0))],
    );
    let mut info = agent_info(4000, 4096);
    info.id = Some(agent.id.clone());
    let again = AgentToMaster::Reregister {
        info,
        incarnation: agent.incarnation,
        tasks: Vec::new(),
        executors: Vec::new(),
        oversubscribed: Quantities::ZERO,
    };
    world.say(&back, again.clone());
    let overtaken = Played {
        connection: late,
        ..agent
    };
    world.say(&overtaken, again);
    assert!(world.closed.contains_key(&late) && !world.closed.contains_key(&back.connection));
    assert_eq!(world.allocated(&back), res(1000, 0));
    assert!(world.updates(&scheduler).is_empty());
}
