//! How tasks are ended: on order, with their framework, with the agent.

use ebb_types::limits::DEFAULT_GRACE_MS;

use super::*;

#[test]
fn a_kill_asks_first_and_uses_force_after_the_grace() {
    let mut world = World::registered();
    world.run("t");
    world.kill("t", None);
    assert!(world.did(is_terminate) && !world.did(is_kill));
    world.wait(DEFAULT_GRACE_MS - 1);
    assert!(!world.did(is_kill));
    world.wait(1);
    assert!(world.did(is_kill));
    world.wait(FORCED_KILL_RETRY_MS);
    assert!(world.did(is_kill), "force is repeated until it has worked");
    world.exited("t", ExitStatus::Signal(9));
    assert_eq!(world.last("t").state, TaskState::Killed);
    world.wait(FORCED_KILL_RETRY_MS);
    assert!(!world.did(is_kill));
}

#[test]
fn a_repeated_kill_may_only_bring_force_forward() {
    let mut world = World::registered();
    world.run("t");
    world.kill("t", Some(10_000));
    world.kill("t", Some(60_000));
    world.kill("t", Some(2_000));
    assert!(!world.did(is_terminate), "it has been asked already");
    world.wait(2_000);
    assert!(world.did(is_kill));
}

#[test]
fn the_grace_of_the_task_counts_where_the_call_names_none() {
    let mut world = World::registered();
    world.launch(TaskInfo {
        kill_grace_ms: Some(100),
        ..task("t")
    });
    world.started("t");
    world.kill("t", None);
    world.wait(100);
    assert!(world.did(is_kill));
}

#[test]
fn a_task_that_exits_with_success_after_a_kill_is_killed() {
    let mut world = World::registered();
    world.run("t");
    world.kill("t", None);
    world.exited("t", ExitStatus::Code(0));
    assert_eq!(world.last("t").state, TaskState::Killed);
}

#[test]
fn a_task_killed_before_it_starts_is_killed_during_launch_or_right_after_its_start() {
    let mut world = World::registered();
    world.launch(task("t"));
    world.kill("t", None);
    assert!(world.did(|effect| matches!(effect, Effect::CancelLaunch { .. })));
    let container_id = world.container("t");
    world.step(Input::StartFailed {
        container_id,
        cancelled: true,
        message: String::new(),
    });
    let last = world.last("t");
    assert_eq!(last.state, TaskState::Killed);
    assert_eq!(last.reason, Some(Reason::TaskKilledDuringLaunch));

    let mut world = World::registered();
    world.launch(task("t"));
    world.kill("t", None);
    world.started("t");
    assert!(world.did(is_terminate));
    world.exited("t", ExitStatus::Signal(15));
    assert_eq!(world.last("t").state, TaskState::Killed);
}

#[test]
fn the_end_of_a_framework_ends_its_tasks_and_nothing_waits_for_acknowledgements() {
    let mut world = World::registered();
    world.run("runs");
    world.run("ended");
    world.exited("ended", ExitStatus::Code(0));
    world.order(MasterToAgent::ShutdownFramework {
        framework_id: framework(),
    });
    assert!(world.did(is_terminate));
    assert!(!world.disk.tasks.contains_key(&key("ended")));
    world.exited("runs", ExitStatus::Signal(15));
    assert_eq!(world.states(), [TaskState::Killed]);
    assert!(world.disk.tasks.is_empty());
    assert_eq!(world.core.pending_updates(), 0);
}

#[test]
fn shutting_down_ends_every_task_and_takes_no_more() {
    let mut world = World::registered();
    world.run("t");
    world.step(Input::ShutDown);
    assert!(world.did(is_terminate));
    world.launch(task("late"));
    assert_eq!(world.states(), [TaskState::Dropped]);
    world.exited("t", ExitStatus::Signal(15));
    assert!(world.core.is_idle());
    assert_eq!(world.last("t").state, TaskState::Killed);
}

#[test]
fn shutting_down_waits_for_no_grace_above_its_own_limit() {
    let mut world = World::registered();
    world.launch(TaskInfo {
        kill_grace_ms: Some(24 * 3600 * 1000),
        ..task("slow")
    });
    world.started("slow");
    world.step(Input::ShutDown);
    assert!(world.did(is_terminate) && !world.did(is_kill));
    world.wait(SHUTDOWN_GRACE_MAX_MS);
    assert!(world.did(is_kill));
}
