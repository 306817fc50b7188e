//! How status updates and messages pass.

use super::*;

fn acks(world: &World, agent: &Played) -> usize {
    world.count_orders(agent, |order| {
        matches!(order, MasterToAgent::Acknowledge { .. })
    })
}

#[test]
fn an_update_is_forwarded_and_its_acknowledgement_reaches_the_agent() {
    let (world, scheduler, agent) = World::with_running_task();
    let update = world.last_update(&scheduler);
    assert_eq!(update.state, TaskState::Running);
    assert_eq!(update.agent_id, Some(agent.id.clone()));
    assert_eq!(acks(&world, &agent), 1);
}

#[test]
fn the_first_terminal_state_frees_the_resources_once() {
    let (mut world, scheduler, agent) = World::with_running_task();
    for _ in 0..3 {
        world.update(&agent, &scheduler, "t", TaskState::Finished, 2);
        assert_eq!(world.allocated(&agent), Resources::ZERO);
    }
    assert_eq!(
        world.updates(&scheduler).len(),
        4,
        "repetitions are forwarded"
    );
    assert_eq!(
        world.core.counters().tasks_by_state[TaskState::Finished as usize],
        1
    );
}

#[test]
fn a_later_terminal_state_is_seen_before_its_update_comes() {
    let (mut world, scheduler, agent) = World::with_running_task();
    let mut status = TaskStatus::new(
        task_id("t"),
        TaskState::Running,
        Source::Executor,
        world.now,
    );
    status.uuid = Some(UpdateUuid::of(Incarnation(1), 7));
    let message = AgentToMaster::Update {
        framework_id: scheduler.id.clone(),
        status,
        latest_state: TaskState::Failed,
    };
    world.say(&agent, message);
    assert_eq!(world.allocated(&agent), Resources::ZERO);
    assert_eq!(world.last_update(&scheduler).state, TaskState::Running);
}

#[test]
fn an_ended_task_stays_in_the_books_until_its_end_is_acknowledged() {
    let (mut world, scheduler, agent) = World::with_running_task();
    let uuid = world.update(&agent, &scheduler, "t", TaskState::Finished, 2);
    let other = UpdateUuid::of(Incarnation(1), 99);
    world.acknowledge(&scheduler, &agent, "t", other);
    assert!(
        world.core.frameworks[&scheduler.id]
            .tasks
            .contains_key(&task_id("t"))
    );
    world.acknowledge(&scheduler, &agent, "t", uuid);
    let framework = &world.core.frameworks[&scheduler.id];
    assert!(framework.tasks.is_empty());
    assert!(framework.completed.contains(&task_id("t")));
}

#[test]
fn what_comes_again_from_before_the_end_keeps_no_task_in_the_books() {
    let (mut world, scheduler, agent) = World::with_running_task();
    let uuid = world.update(&agent, &scheduler, "t", TaskState::Finished, 2);
    world.update(&agent, &scheduler, "t", TaskState::Running, 1);
    assert_eq!(world.last_update(&scheduler).state, TaskState::Finished);
    assert_eq!(acks(&world, &agent), 2, "no agent repeats it for ever");
    world.acknowledge(&scheduler, &agent, "t", uuid);
    assert!(world.core.frameworks[&scheduler.id].tasks.is_empty());
}

#[test]
fn a_second_end_does_not_change_the_first() {
    let (mut world, scheduler, agent) = World::with_running_task();
    world.update(&agent, &scheduler, "t", TaskState::Finished, 2);
    world.update(&agent, &scheduler, "t", TaskState::Failed, 3);
    let state = world.core.frameworks[&scheduler.id].tasks[&task_id("t")].state;
    assert_eq!(state, TaskState::Finished);
    assert_eq!(world.allocated(&agent), Resources::ZERO);
}

#[test]
fn an_acknowledged_end_that_is_repeated_is_acknowledged_by_the_master() {
    let (mut world, scheduler, agent) = World::with_running_task();
    let uuid = world.update(&agent, &scheduler, "t", TaskState::Finished, 2);
    world.acknowledge(&scheduler, &agent, "t", uuid);
    let (told, acked) = (world.updates(&scheduler).len(), acks(&world, &agent));
    world.update(&agent, &scheduler, "t", TaskState::Finished, 2);
    assert_eq!(world.updates(&scheduler).len(), told);
    assert_eq!(acks(&world, &agent), acked + 1);
}

#[test]
fn updates_of_a_removed_framework_are_acknowledged_and_its_tasks_shut_down() {
    let (mut world, scheduler, agent) = World::with_running_task();
    world.call(&scheduler, Call::Teardown);
    let before = acks(&world, &agent);
    world.update(&agent, &scheduler, "t", TaskState::Running, 2);
    assert_eq!(acks(&world, &agent), before + 1);
    let shut = |order: &MasterToAgent| matches!(order, MasterToAgent::ShutdownFramework { .. });
    assert_eq!(world.count_orders(&agent, shut), 2);
}

#[test]
fn an_unknown_task_that_runs_is_killed_and_not_told() {
    let (mut world, scheduler, agent) = World::with_running_task();
    let told = world.updates(&scheduler).len();
    world.update(&agent, &scheduler, "phantom", TaskState::Running, 9);
    assert_eq!(world.updates(&scheduler).len(), told);
    let killed = world.count_orders(&agent, |order| {
        matches!(order, MasterToAgent::Kill { task_id, .. } if task_id.as_str() == "phantom")
    });
    assert_eq!(killed, 1);
}

#[test]
fn killing_is_hidden_from_those_that_do_not_know_it() {
    let (mut world, scheduler, agent) = World::with_running_task();
    let (told, acked) = (world.updates(&scheduler).len(), acks(&world, &agent));
    world.update(&agent, &scheduler, "t", TaskState::Killing, 2);
    assert_eq!(world.updates(&scheduler).len(), told);
    assert_eq!(acks(&world, &agent), acked + 1);
}

#[test]
fn states_that_only_a_master_can_find_are_not_taken_from_agents() {
    let (mut world, scheduler, agent) = World::with_running_task();
    for state in [TaskState::Unreachable, TaskState::Unknown] {
        world.update(&agent, &scheduler, "t", state, 2);
    }
    assert_eq!(world.allocated(&agent), res(1000, 1024));
    assert_eq!(world.core.counters().calls_invalid, 2);
}

#[test]
fn updates_without_a_scheduler_are_kept_for_the_agent_to_repeat() {
    let (mut world, scheduler, agent) = World::with_running_task();
    world.hang_up(&scheduler);
    world.update(&agent, &scheduler, "t", TaskState::Finished, 2);
    assert_eq!(world.allocated(&agent), Resources::ZERO);
    assert_eq!(world.core.counters().updates_held, 1);
    assert_eq!(acks(&world, &agent), 1, "only that of the first update");
}

#[test]
fn messages_pass_both_ways_and_are_lost_without_a_receiver() {
    let (mut world, scheduler, agent) = World::with_running_task();
    let executor_id = ebb_types::ExecutorId::new("e").unwrap();
    let down = Call::Message {
        agent_id: agent.id.clone(),
        executor_id: executor_id.clone(),
        data: vec![1],
    };
    let up = AgentToMaster::Message {
        framework_id: scheduler.id.clone(),
        executor_id,
        data: vec![2],
    };
    world.call(&scheduler, down.clone());
    world.say(&agent, up.clone());
    assert_eq!(
        world.count_orders(&agent, |o| matches!(o, MasterToAgent::Message { .. })),
        1
    );
    assert_eq!(
        world.count_events(&scheduler, |e| matches!(e, Event::Message { .. })),
        1
    );
    world.hang_up(&scheduler);
    world.say(&agent, up);
    assert_eq!(world.core.counters().messages_dropped, 1);
}

#[test]
fn a_shutdown_of_an_executor_is_forwarded() {
    let (mut world, scheduler, agent) = World::with_running_task();
    let call = Call::Shutdown {
        executor_id: ebb_types::ExecutorId::new("e").unwrap(),
        agent_id: agent.id.clone(),
    };
    world.call(&scheduler, call);
    let shut = |order: &MasterToAgent| matches!(order, MasterToAgent::ShutdownExecutor { .. });
    assert_eq!(world.count_orders(&agent, shut), 1);
}
