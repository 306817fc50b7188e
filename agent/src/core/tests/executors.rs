//! Executors: started, subscribed, given tasks, lost, found again.

use super::*;

#[test]
fn an_executor_is_started_once_and_given_its_tasks_when_it_subscribes() {
    let mut world = World::registered();
    world.launch(executor_task("a"));
    assert!(world.did(|effect| matches!(effect, Effect::Launch(order)
        if order.executor_id == Some(executor_key().1)
            && order.resources.regular.cpu_milli() == 1100)));
    world.launch(executor_task("b"));
    assert!(!world.did(|effect| matches!(effect, Effect::Launch(_))));
    world.started("a");
    world.subscribe(1, &[]);
    let launched = |world: &World| {
        let events = world.events();
        let launches = events
            .iter()
            .filter(|event| matches!(event, ExecutorEvent::Launch(_)));
        launches.count()
    };
    assert_eq!(launched(&world), 2);
    world.executor_update(1, "a", TaskState::Running, 1);
    assert_eq!(world.states(), [TaskState::Running]);
    assert!(matches!(
        world.events()[0],
        ExecutorEvent::Acknowledged { .. }
    ));
    world.launch(executor_task("c"));
    assert_eq!(launched(&world), 1);
    world.executor_update(1, "a", TaskState::Finished, 2);
    assert_eq!(world.core.held().regular.cpu_milli(), 2100);
    world.acknowledge("a");
    assert_eq!(world.states(), [TaskState::Finished]);
    world.acknowledge("a");
    assert!(!world.disk.tasks.contains_key(&key("a")));
}

#[test]
fn a_status_that_an_executor_sends_twice_is_forwarded_once() {
    let mut world = World::registered();
    world.launch(executor_task("a"));
    world.started("a");
    world.subscribe(1, &[]);
    world.executor_update(1, "a", TaskState::Running, 1);
    world.executor_update(1, "a", TaskState::Running, 1);
    assert!(matches!(
        world.events()[0],
        ExecutorEvent::Acknowledged { .. }
    ));
    assert_eq!(world.core.pending_updates(), 1);
}

#[test]
fn the_tasks_of_an_executor_that_ends_fail_and_its_framework_hears_of_it() {
    let mut world = World::registered();
    world.launch(executor_task("a"));
    world.started("a");
    world.subscribe(1, &[]);
    world.executor_update(1, "a", TaskState::Running, 1);
    let container_id = world.container("a");
    world.step(Input::Exited {
        container_id,
        exit: Exit {
            status: Some(ExitStatus::Code(1)),
            ..Exit::default()
        },
    });
    assert_eq!(world.last("a").reason, Some(Reason::ExecutorTerminated));
    assert!(
        world
            .said()
            .iter()
            .any(|message| matches!(message, AgentToMaster::ExecutorExited { status: 256, .. }))
    );
    assert_eq!(world.core.held(), Resources::ZERO);
}

#[test]
fn an_executor_that_does_not_subscribe_in_time_is_ended() {
    let mut world = World::registered();
    world.launch(executor_task("a"));
    world.started("a");
    world.wait(EXECUTOR_REGISTRATION_TIMEOUT_MS);
    assert!(world.did(is_kill));
    let last = world.last("a");
    assert_eq!(last.state, TaskState::Failed);
    assert_eq!(last.reason, Some(Reason::ExecutorRegistrationTimeout));
}

#[test]
fn an_executor_comes_back_after_a_restart_and_no_task_is_given_twice() {
    let mut world = World::registered();
    world.launch(executor_task("given"));
    let container = world.container("given");
    world.started("given");
    world.subscribe(1, &[]);
    world.launch(executor_task("second"));
    world.restart(&[(&container, Found::Running)]);
    world.connect();
    world.subscribe(1, &["given"]);
    let launched: Vec<_> = world
        .events()
        .into_iter()
        .filter_map(|event| match event {
            ExecutorEvent::Launch(info) => Some(info.name),
            _ => None,
        })
        .collect();
    assert_eq!(launched, ["second"]);
}

#[test]
fn a_kill_of_an_executors_task_reaches_the_executor_or_ends_a_task_it_never_had() {
    let mut world = World::registered();
    world.launch(executor_task("a"));
    world.kill("a", None);
    let last = world.last("a");
    assert_eq!(last.state, TaskState::Killed);
    assert_eq!(last.reason, Some(Reason::TaskKilledDuringLaunch));
    let executors: Vec<_> = world.core.executors().collect();
    let container_id = executors[0].container_id.clone();
    world.step(Input::Started { container_id });
    world.subscribe(1, &[]);
    assert!(world.events().contains(&ExecutorEvent::Shutdown));

    let mut world = World::registered();
    world.launch(executor_task("a"));
    world.started("a");
    world.subscribe(1, &[]);
    world.kill("a", Some(7));
    assert!(matches!(
        world.events()[..],
        [ExecutorEvent::Kill { grace_ms: 7, .. }]
    ));
}
