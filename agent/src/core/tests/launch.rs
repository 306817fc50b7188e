//! A task from its launch to its end: what is refused, what is reported, what is kept on disk first.

use super::*;

#[test]
fn a_task_is_on_disk_before_it_is_launched_and_its_status_before_it_is_sent() {
    let mut world = World::registered();
    world.launch(task("t"));
    let kinds: Vec<_> = world
        .effects
        .iter()
        .map(|effect| match effect {
            Effect::Persist(records) => format!("persist {}", records.len()),
            Effect::Launch(_) => "launch".to_owned(),
            Effect::ToMaster { .. } => "tell".to_owned(),
            Effect::Observe(_) => "observe".to_owned(),
            other => format!("{other:?}"),
        })
        .collect();
    assert_eq!(kinds, ["persist 2", "launch", "observe", "tell"]);
}

#[test]
fn a_command_task_goes_from_starting_over_running_to_finished_one_acknowledged_status_at_a_time() {
    let mut world = World::registered();
    world.launch(task("t"));
    assert_eq!(world.states(), [TaskState::Starting]);
    world.started("t");
    assert_eq!(world.states(), [], "the first is not acknowledged yet");
    assert_eq!(world.acknowledge("t").state, TaskState::Starting);
    assert_eq!(world.states(), [TaskState::Running]);
    world.exited("t", ExitStatus::Code(0));
    assert!(world.did(|effect| matches!(effect, Effect::Destroy { .. })));
    assert_eq!(world.core.held(), Resources::ZERO);
    assert_eq!(world.acknowledge("t").state, TaskState::Running);
    assert_eq!(world.states(), [TaskState::Finished]);
    let last = world.acknowledge("t");
    assert_eq!(last.exit, Some(ExitStatus::Code(0)));
    assert!(world.disk.tasks.is_empty() && world.core.tasks().next().is_none());
}

#[test]
fn an_exit_code_or_signal_makes_a_task_fail_with_the_sentence_of_mesos() {
    for (status, sentence) in [
        (ExitStatus::Code(3), "Command exited with status 3"),
        (ExitStatus::Signal(11), "Command terminated with signal 11"),
    ] {
        let mut world = World::registered();
        world.run("t");
        world.exited("t", status);
        let last = world.last("t");
        assert_eq!((last.state, last.exit), (TaskState::Failed, Some(status)));
        assert_eq!(last.message, sentence);
        assert_eq!(last.reason, None);
    }
}

#[test]
fn a_task_that_the_kernel_ended_for_its_memory_names_the_limit() {
    let mut world = World::registered();
    world.run("t");
    world.exited_with(
        "t",
        Exit {
            status: Some(ExitStatus::Signal(9)),
            oom: true,
            launch_error: None,
        },
    );
    let last = world.last("t");
    assert_eq!(last.state, TaskState::Failed);
    assert_eq!(last.reason, Some(Reason::ContainerLimitationMemory));
    let limit = last.limitation.expect("a limitation").resources;
    assert_eq!(limit, Resources::regular(Quantities::cpus_mem(0, GIB)));
}

#[test]
fn a_program_that_cannot_be_started_fails_with_the_cause() {
    let mut world = World::registered();
    world.launch(task("t"));
    let container_id = world.container("t");
    world.step(Input::StartFailed {
        container_id,
        cancelled: false,
        message: "no such user".to_owned(),
    });
    let last = world.last("t");
    assert_eq!(last.reason, Some(Reason::ContainerLaunchFailed));
    assert_eq!(last.message, "no such user");

    let mut world = World::registered();
    world.run("t");
    world.exited_with(
        "t",
        Exit {
            status: Some(ExitStatus::Code(127)),
            oom: false,
            launch_error: Some("no such file".to_owned()),
        },
    );
    assert_eq!(world.last("t").reason, Some(Reason::ContainerLaunchFailed));
    assert_eq!(world.last("t").message, "no such file");
}

#[test]
fn a_launch_that_comes_twice_starts_one_container() {
    let mut world = World::registered();
    world.launch(task("t"));
    world.launch(task("t"));
    assert!(world.effects.is_empty());
    assert_eq!(world.core.counters().duplicate_launches, 1);
}

#[test]
fn an_order_for_an_earlier_life_is_dropped_with_a_status() {
    let mut world = World::registered();
    world.order(MasterToAgent::Launch {
        framework_id: framework(),
        user: String::new(),
        incarnation: Incarnation(0),
        task: Box::new(task("t")),
    });
    assert!(!world.did(|effect| matches!(effect, Effect::Launch(_))));
    let status = &world.updates()[0];
    assert_eq!(status.state, TaskState::Dropped);
    assert_eq!(status.reason, Some(Reason::AgentRestarted));
    world.acknowledge("t");
    assert!(world.disk.tasks.is_empty());
}

#[test]
fn a_task_that_does_not_fit_is_dropped_and_one_that_does_is_not() {
    let mut world = World::registered();
    for name in ["a", "b", "c", "d"] {
        world.launch(task(name));
        assert_eq!(world.states(), [TaskState::Starting]);
    }
    world.launch(task("e"));
    assert_eq!(world.updates()[0].reason, Some(Reason::ResourcesUnknown));
    world.launch(TaskInfo {
        lots: ebb_types::Lots::NONE,
        resources: Resources::revocable(Quantities::cpus_mem(4000, 0)),
        ..task("lent")
    });
    assert_eq!(world.states(), [TaskState::Starting], "lent ones are apart");
    world.launch(TaskInfo {
        lots: ebb_types::Lots::NONE,
        resources: Resources::revocable(Quantities::cpus_mem(1, 0)),
        ..task("too much")
    });
    assert_eq!(world.states(), [TaskState::Dropped]);
}

#[test]
fn a_task_that_runs_for_too_long_fails_with_that_reason() {
    let mut world = World::registered();
    world.launch(TaskInfo {
        max_completion_ms: Some(5_000),
        ..task("t")
    });
    world.started("t");
    world.wait(5_000);
    assert!(world.did(is_terminate));
    world.exited("t", ExitStatus::Signal(15));
    let last = world.last("t");
    assert_eq!(last.state, TaskState::Failed);
    assert_eq!(last.reason, Some(Reason::MaxCompletionTimeReached));
}
