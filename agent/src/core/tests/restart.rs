//! What a restarted agent makes of the tasks and containers that it finds.

use super::*;

#[test]
fn a_restarted_agent_adopts_what_runs() {
    let mut world = World::registered();
    world.launch(task("seen"));
    world.started("seen");
    world.launch(task("unseen"));
    let seen = world.container("seen");
    let unseen = world.container("unseen");
    world.restart(&[(&seen, Found::Running), (&unseen, Found::Running)]);
    assert!(!world.did(|effect| is_kill(effect) || is_terminate(effect)));
    assert_eq!(world.last("unseen").state, TaskState::Running);
    assert_eq!(world.core.counters().adopted, 2);
    assert_eq!(world.core.held().regular.cpu_milli(), 2000);
    let said = world.connect();
    assert!(
        matches!(&said[0], AgentToMaster::Reregister { tasks, incarnation, .. }
            if tasks.len() == 2 && *incarnation == Incarnation(2))
    );
    world.exited("seen", ExitStatus::Code(0));
    assert_eq!(world.last("seen").state, TaskState::Finished);
}

#[test]
fn a_restarted_agent_reports_what_ended_and_what_never_started() {
    let mut world = World::registered();
    world.run("ended");
    world.launch(task("never"));
    world.run("lost");
    let ended = world.container("ended");
    let exit = Exit {
        status: Some(ExitStatus::Code(7)),
        ..Exit::default()
    };
    world.restart(&[(&ended, Found::Ended(exit))]);
    assert_eq!(world.last("ended").exit, Some(ExitStatus::Code(7)));
    let never = world.last("never");
    assert_eq!(never.state, TaskState::Dropped);
    assert_eq!(never.reason, Some(Reason::AgentRestarted));
    let lost = world.last("lost");
    assert_eq!(lost.state, TaskState::Failed);
    assert_eq!(lost.reason, Some(Reason::ExecutorTerminated));
    assert_eq!(world.core.held(), Resources::ZERO);
}

#[test]
fn a_kill_goes_on_after_a_restart() {
    let mut world = World::registered();
    world.run("t");
    world.kill("t", Some(10_000));
    let container = world.container("t");
    world.restart(&[(&container, Found::Running)]);
    assert!(world.did(is_terminate));
    world.wait(10_000);
    assert!(world.did(is_kill));
    world.exited("t", ExitStatus::Signal(9));
    assert_eq!(world.last("t").state, TaskState::Killed);
}

#[test]
fn containers_of_no_known_task_are_killed_and_removed() {
    let mut world = World::registered();
    let orphan = ContainerId::new("c-0-1").expect("valid");
    world.restart(&[(&orphan, Found::Running)]);
    assert!(world.did(is_kill));
    assert!(
        world.did(|effect| matches!(effect, Effect::Destroy { container_id }
        if *container_id == orphan))
    );
}

#[test]
fn container_ids_and_uuids_of_two_lives_differ() {
    let mut world = World::registered();
    world.launch(task("a"));
    let first = (world.container("a"), world.last("a").uuid);
    world.restart(&[(&first.0, Found::Running)]);
    world.connect();
    world.launch(task("b"));
    let second = (world.container("b"), world.last("b").uuid);
    assert!(first.0 != second.0 && first.1 != second.1);
}
