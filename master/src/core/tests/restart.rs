//! What survives a restart of the master.

use super::*;

#[test]
fn after_a_restart_agents_bring_their_tasks_and_frameworks_find_them() {
    let (world, scheduler, agent) = World::with_running_task();
    let mut next = World::restored(world.registry());
    let task = world.running_task(&scheduler, &agent);
    next.offering = false;
    let back = next.reregister(&agent, agent_info(4000, 4096), vec![task]);
    assert_eq!(back.id, agent.id);
    assert_eq!(next.allocated(&back), res(1000, 1024));
    assert!(
        next.orders(&back).len() == 1,
        "no task is disturbed: {:?}",
        next.orders(&back)
    );
    let mut info = framework_info("f", &["r"]);
    info.id = Some(scheduler.id.clone());
    let again = next.subscribe(info);
    assert_eq!(again.id, scheduler.id);
    let uuid = next.update(&back, &again, "t", TaskState::Finished, 2);
    assert_eq!(next.last_update(&again).uuid, Some(uuid));
    assert_eq!(next.allocated(&back), Resources::ZERO);
}

#[test]
fn frameworks_get_their_time_to_come_back_after_a_restart() {
    let mut world = World::new();
    let mut info = framework_info("f", &["r"]);
    info.failover_timeout_ms = 0;
    let brief = world.subscribe(info.clone());
    info.failover_timeout_ms = 300_000;
    let patient = world.subscribe(info);
    let mut next = World::restored(world.registry());
    next.pass_ms(59_999);
    assert_eq!(next.core.frameworks.len(), 2);
    next.pass_ms(1);
    assert!(!next.core.frameworks.contains_key(&brief.id));
    next.pass_ms(239_999);
    assert!(next.core.frameworks.contains_key(&patient.id));
    next.pass_ms(1);
    assert!(next.core.frameworks.is_empty());
}

#[test]
fn agents_that_do_not_come_back_after_a_restart_become_unreachable() {
    let (world, _, agent) = World::with_running_task();
    let mut next = World::restored(world.registry());
    let status = |world: &World| world.core.agent_state(&agent.id).unwrap().status;
    assert_eq!(status(&next), ebb_types::AgentStatus::Recovered);
    next.pass_ms(600_000);
    assert_eq!(status(&next), ebb_types::AgentStatus::Unreachable);
    assert!(next.registry().agents[0].unreachable_since.is_some());
}

#[test]
fn a_framework_that_only_agents_know_is_taken_in_until_it_comes_back() {
    let (world, scheduler, agent) = World::with_running_task();
    // The registry is lost.
    let mut next = World::restored(Restored {
        cluster: String::from("other"),
        generation: Generation(1),
        ..Restored::default()
    });
    let task = world.running_task(&scheduler, &agent);
    next.offering = false;
    let back = next.reregister(&agent, agent_info(4000, 4096), vec![task]);
    assert_eq!(next.allocated(&back), res(1000, 1024));
    let mut info = framework_info("f", &["r"]);
    info.id = Some(scheduler.id.clone());
    let again = next.subscribe(info);
    assert_eq!(next.core.frameworks[&again.id].info.user, "u");
    next.update(&back, &again, "t", TaskState::Finished, 2);
    assert_eq!(next.last_update(&again).state, TaskState::Finished);
}

#[test]
fn a_framework_that_only_agents_know_ends_when_it_does_not_come_back() {
    let (world, scheduler, agent) = World::with_running_task();
    let mut next = World::new();
    let task = world.running_task(&scheduler, &agent);
    let back = next.reregister(&agent, agent_info(4000, 4096), vec![task]);
    for _ in 0..10 {
        next.pass_ms(60_000);
        next.say(&back, AgentToMaster::Heartbeat);
    }
    let shut = |order: &MasterToAgent| matches!(order, MasterToAgent::ShutdownFramework { .. });
    assert_eq!(next.count_orders(&back, shut), 1);
    assert!(next.core.frameworks.is_empty());
}

#[test]
fn weights_survive_a_restart() {
    let mut world = World::new();
    world.step(Input::Operator {
        request: crate::core::RequestId(1),
        command: crate::core::OperatorCommand::SetWeights(vec![(role("r"), 2500)]),
    });
    let next = World::restored(world.registry());
    let roles = next.core.cluster_state().roles;
    assert_eq!((roles[0].role.as_str(), roles[0].weight_milli), ("r", 2500));
}
