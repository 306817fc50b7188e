//! The life of frameworks.

use super::*;
use crate::core::limits::MAX_COMPLETED_FRAMEWORKS;

fn error_of(world: &World, connection: ConnectionId) -> String {
    match world
        .events
        .get(&connection)
        .and_then(|events| events.last())
    {
        Some(Event::Error(message)) => message.clone(),
        other => panic!("no error but {other:?}"),
    }
}

#[test]
fn a_new_framework_is_durable_before_it_hears_of_its_id() {
    let mut world = World::new();
    let (_, effects) = world.try_subscribe(framework_info("f", &["r"]));
    let at = |is_meant: fn(&Effect) -> bool| effects.iter().position(is_meant).unwrap();
    let persist = at(|effect| matches!(effect, Effect::Persist(_)));
    let tell = at(|effect| matches!(effect, Effect::ToScheduler { .. }));
    assert!(persist < tell, "{effects:?}");
}

#[test]
fn ids_of_frameworks_agents_and_offers_differ_across_restarts() {
    let ids = |world: &mut World| {
        let scheduler = world.subscribe(framework_info("f", &["r"]));
        let agent = world.register(agent_info(1000, 1024));
        (scheduler.id.clone(), agent.id, world.offer(&scheduler).id)
    };
    let mut first = World::new();
    let mut second = World::restored(Restored {
        cluster: String::from("c"),
        generation: Generation(2),
        ..Restored::default()
    });
    let (a, b) = (ids(&mut first), ids(&mut second));
    assert!(a.0 != b.0 && a.1 != b.1 && a.2 != b.2, "{a:?} {b:?}");
}

#[test]
fn the_first_call_must_subscribe() {
    let mut world = World::new();
    let connection = world.connection();
    world.step(Input::Scheduler {
        connection,
        call: Call::Teardown,
    });
    assert!(error_of(&world, connection).starts_with("Framework is not subscribed"));
    assert!(world.closed.contains_key(&connection));
}

#[test]
fn subscribing_twice_on_one_stream_ends_it() {
    let mut world = World::new();
    let scheduler = world.subscribe(framework_info("f", &["r"]));
    let call = Call::Subscribe {
        info: framework_info("f", &["r"]),
        suppressed_roles: Vec::new(),
        terms: ebb_types::OfferTerms::new(),
    };
    world.call(&scheduler, call);
    assert!(error_of(&world, scheduler.connection).contains("already"));
    assert!(world.core.frameworks[&scheduler.id].connection.is_none());
}

#[test]
fn wrong_descriptions_are_refused_with_the_rule() {
    type Spoil = fn(&mut FrameworkInfo);
    let wrong: [(Spoil, &str); 4] = [
        (|info| info.roles.clear(), "no role"),
        (|info| info.roles.push(role("r")), "twice"),
        (|info| info.failover_timeout_ms = u64::MAX, "ten years"),
        (
            |info| info.roles = (0..65).map(|n| role(&format!("r{n}"))).collect(),
            "more than 64",
        ),
    ];
    for (spoil, rule) in wrong {
        let mut world = World::new();
        let mut info = framework_info("f", &["r"]);
        spoil(&mut info);
        let (connection, _) = world.try_subscribe(info);
        assert!(error_of(&world, connection).contains(rule), "{rule}");
        assert!(world.core.frameworks.is_empty() && world.writes.is_empty());
    }
    let mut world = World::new();
    let connection = world.connection();
    let call = Call::Subscribe {
        info: framework_info("f", &["r"]),
        suppressed_roles: vec![role("other")],
        terms: ebb_types::OfferTerms::new(),
    };
    world.step(Input::Scheduler { connection, call });
    assert!(error_of(&world, connection).contains("suppress only its own"));
}

#[test]
fn a_second_scheduler_takes_over_and_the_first_hears_that_it_failed_over() {
    let (mut world, first, _) = World::with_running_task();
    world.offering = true;
    let mut info = framework_info("f2", &["r"]);
    info.id = Some(first.id.clone());
    let second = world.subscribe(info);
    assert_eq!(second.id, first.id);
    assert_eq!(error_of(&world, first.connection), "Framework failed over");
    assert!(world.closed.contains_key(&first.connection));
    assert_eq!(world.core.frameworks[&first.id].info.name, "f2");
    // The tasks live, and what the first was offered is offered to the second.
    assert_eq!(world.core.frameworks[&first.id].tasks.len(), 1);
    assert_eq!(world.offer(&second).resources, res(3000, 3072));
    // The old stream's end changes nothing.
    world.hang_up(&first);
    assert!(world.core.frameworks[&first.id].connection.is_some());
}

#[test]
fn a_changed_principal_is_refused_and_a_changed_user_ignored() {
    let mut world = World::new();
    let first = world.subscribe(framework_info("f", &["r"]));
    let mut info = framework_info("f", &["r"]);
    info.id = Some(first.id.clone());
    info.principal = String::from("other");
    let (connection, _) = world.try_subscribe(info.clone());
    assert!(error_of(&world, connection).contains("principal"));
    assert!(!world.closed.contains_key(&first.connection));
    info.principal = String::from("p");
    info.user = String::from("other");
    world.subscribe(info);
    assert_eq!(world.core.frameworks[&first.id].info.user, "u");
}

#[test]
fn a_framework_is_removed_when_its_failover_timeout_passes() {
    let (mut world, scheduler, agent) = World::with_running_task();
    world.hang_up(&scheduler);
    let deadline = world.now.plus_ms(60_000);
    let persisted = world.writes.iter().rev().find_map(|write| match write {
        RegistryWrite::PutFramework(record) => record.failover_deadline,
        _ => None,
    });
    assert_eq!(persisted, Some(deadline));
    for _ in 0..3 {
        world.pass_ms(19_999);
        world.say(&agent, AgentToMaster::Heartbeat);
    }
    assert!(world.core.frameworks.contains_key(&scheduler.id));
    world.pass_ms(3);
    assert!(!world.core.frameworks.contains_key(&scheduler.id));
    let shut = |order: &MasterToAgent| {
        *order
            == MasterToAgent::ShutdownFramework {
                framework_id: scheduler.id.clone(),
            }
    };
    assert_eq!(world.count_orders(&agent, shut), 1);
    assert!(matches!(
        world.writes.last(),
        Some(RegistryWrite::CompleteFramework { .. })
    ));
    let state = world.core.cluster_state();
    assert_eq!(state.tasks[0].state, TaskState::Killed);
    let reason = state.tasks[0].statuses.last().unwrap().reason;
    assert_eq!(reason, Some(ebb_types::Reason::FrameworkRemoved));
    // Its container has yet to end.
    assert_eq!(world.allocated(&agent), res(1000, 1024));
    world.update(&agent, &scheduler, "t", TaskState::Killed, 2);
    assert_eq!(world.allocated(&agent), Resources::ZERO);
}

#[test]
fn a_framework_that_comes_back_in_time_stays() {
    let (mut world, scheduler, _) = World::with_running_task();
    world.hang_up(&scheduler);
    world.pass_ms(59_000);
    let mut info = framework_info("f", &["r"]);
    info.id = Some(scheduler.id.clone());
    let back = world.subscribe(info);
    world.pass_ms(120_000);
    assert_eq!(back.id, scheduler.id);
    assert!(world.core.frameworks[&scheduler.id].connection.is_some());
}

#[test]
fn without_a_failover_timeout_a_framework_ends_with_its_stream() {
    let mut world = World::new();
    let mut info = framework_info("f", &["r"]);
    info.failover_timeout_ms = 0;
    let scheduler = world.subscribe(info);
    world.hang_up(&scheduler);
    assert!(world.core.frameworks.is_empty());
}

#[test]
fn a_completed_framework_is_refused_for_good() {
    let mut world = World::new();
    let scheduler = world.subscribe(framework_info("f", &["r"]));
    world.call(&scheduler, Call::Teardown);
    assert!(world.closed.contains_key(&scheduler.connection));
    let mut info = framework_info("f", &["r"]);
    info.id = Some(scheduler.id.clone());
    let (connection, _) = world.try_subscribe(info.clone());
    assert_eq!(error_of(&world, connection), "Framework has been removed");
    // A restart of the master does not change that.
    let mut world = World::restored(world.registry());
    let (connection, _) = world.try_subscribe(info);
    assert_eq!(error_of(&world, connection), "Framework has been removed");
}

#[test]
fn only_so_many_completed_frameworks_are_remembered() {
    let mut world = World::new();
    for _ in 0..MAX_COMPLETED_FRAMEWORKS + 5 {
        let scheduler = world.subscribe(framework_info("f", &["r"]));
        world.call(&scheduler, Call::Teardown);
    }
    assert_eq!(world.core.completed.len(), MAX_COMPLETED_FRAMEWORKS);
    assert_eq!(world.registry().completed.len(), MAX_COMPLETED_FRAMEWORKS);
    assert!(world.registry().frameworks.is_empty());
}

#[test]
fn an_update_of_the_framework_rescinds_offers_of_roles_that_it_leaves() {
    let mut world = World::new();
    let scheduler = world.subscribe(framework_info("f", &["a"]));
    world.register(agent_info(1000, 1024));
    assert_eq!(world.offer(&scheduler).role, role("a"));
    let mut info = framework_info("f", &["b"]);
    info.id = Some(scheduler.id.clone());
    let call = Call::UpdateFramework {
        info,
        suppressed_roles: Vec::new(),
        terms: ebb_types::OfferTerms::new(),
    };
    world.call(&scheduler, call);
    assert_eq!(
        world.count_events(&scheduler, |event| matches!(event, Event::Rescind(_))),
        1
    );
    assert_eq!(world.offer(&scheduler).role, role("b"));
}

#[test]
fn an_update_of_the_framework_may_not_change_principal_user_or_id() {
    for spoil in [
        (|info| info.principal = String::from("x")) as fn(&mut FrameworkInfo),
        |info| info.user = String::from("x"),
        |info| info.id = None,
    ] {
        let mut world = World::new();
        let scheduler = world.subscribe(framework_info("f", &["a"]));
        let mut info = framework_info("f", &["a"]);
        info.id = Some(scheduler.id.clone());
        spoil(&mut info);
        let call = Call::UpdateFramework {
            info,
            suppressed_roles: Vec::new(),
            terms: ebb_types::OfferTerms::new(),
        };
        world.call(&scheduler, call);
        assert!(world.closed.contains_key(&scheduler.connection));
    }
}

#[test]
fn connected_schedulers_and_agents_hear_heartbeats() {
    let mut world = World::new();
    let scheduler = world.subscribe(framework_info("f", &["a"]));
    let agent = world.register(agent_info(1000, 1024));
    world.pass_ms(45_000);
    let beats = world.count_events(&scheduler, |event| *event == Event::Heartbeat);
    assert_eq!(beats, 3);
    assert_eq!(
        world.count_orders(&agent, |order| *order == MasterToAgent::Heartbeat),
        3
    );
}

#[test]
fn updates_that_were_not_acknowledged_are_repeated_to_the_next_scheduler() {
    let (mut world, scheduler, agent) = World::with_running_task();
    world.hang_up(&scheduler);
    let uuid = world.update(&agent, &scheduler, "t", TaskState::Finished, 2);
    let mut info = framework_info("f", &["r"]);
    info.id = Some(scheduler.id.clone());
    let back = world.subscribe(info);
    let update = world.last_update(&back);
    assert_eq!(
        (update.state, update.uuid),
        (TaskState::Finished, Some(uuid))
    );
}

#[test]
fn a_subscription_that_was_overtaken_by_a_newer_one_does_not_take_over() {
    let mut world = World::new();
    let first = world.subscribe(framework_info("f", &["r"]));
    let late = world.connection();
    let mut info = framework_info("f", &["r"]);
    info.id = Some(first.id.clone());
    let second = world.subscribe(info.clone());
    world.step(Input::Scheduler {
        connection: late,
        call: Call::Subscribe {
            info,
            suppressed_roles: Vec::new(),
            terms: ebb_types::OfferTerms::new(),
        },
    });
    assert_eq!(error_of(&world, late), "Framework failed over");
    assert_eq!(
        world.core.frameworks[&first.id].connection,
        Some(second.connection)
    );
}
