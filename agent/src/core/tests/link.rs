//! Registration and the link to the master: which messages count, and what ends a link.

use super::*;

#[test]
fn a_new_agent_registers_and_keeps_the_id_that_it_is_given() {
    let mut world = World::new();
    let said = world.connect();
    assert!(matches!(said[0], AgentToMaster::Register { .. }));
    assert_eq!(world.disk.agent_id, AgentId::new("a1").ok());
    let said = world.connect();
    assert!(matches!(
        &said[0],
        AgentToMaster::Reregister { info, .. } if info.id == AgentId::new("a1").ok()
    ));
}

#[test]
fn on_a_new_registration_every_oldest_status_is_sent_at_once() {
    let mut world = World::registered();
    world.launch(task("a"));
    world.launch(task("b"));
    let conn = Conn(world.conn);
    world.step(Input::LinkDown { conn });
    world.started("a");
    assert_eq!(world.said(), [], "nobody listens");
    let said = world.connect();
    let AgentToMaster::Reregister { tasks, .. } = &said[0] else {
        panic!("{said:?}");
    };
    let states: Vec<_> = tasks.iter().map(|task| task.state).collect();
    assert_eq!(states, [TaskState::Running, TaskState::Starting]);
    assert_eq!(world.states(), [TaskState::Starting, TaskState::Starting]);
}

#[test]
fn what_ends_while_a_registration_is_on_its_way_is_told_once_it_is_answered() {
    let mut world = World::registered();
    world.launch(executor_task("of-executor"));
    world.started("of-executor");
    world.subscribe(1, &[]);
    world.launch(task("removed"));
    world.started("removed");
    world.order(MasterToAgent::ShutdownFramework {
        framework_id: framework(),
    });
    world.conn += 1;
    world.step(Input::LinkUp {
        conn: Conn(world.conn),
    });
    let said = world.said();
    let AgentToMaster::Reregister {
        tasks, executors, ..
    } = &said[0]
    else {
        panic!("{said:?}");
    };
    assert_eq!((tasks.len(), executors.len()), (2, 1));
    let container_id = world.container("of-executor");
    world.step(Input::Exited {
        container_id,
        exit: Exit::default(),
    });
    world.exited("removed", ExitStatus::Signal(15));
    assert_eq!(world.said(), [], "the master does not listen yet");
    world.answer_registration();
    let ended = |name: &str| {
        let of = key(name).1;
        let said = world.said();
        let mut ends = said.iter().filter_map(|message| match message {
            AgentToMaster::Update { status, .. } if status.task_id == of => Some(status.state),
            _ => None,
        });
        ends.any(TaskState::is_terminal)
    };
    assert!(ended("removed") && ended("of-executor"));
    let exited = |message: &_| matches!(message, AgentToMaster::ExecutorExited { .. });
    assert!(world.said().iter().any(exited));
    // A registration that names none of them needs no word.
    let said = world.connect();
    assert!(matches!(
        &said[0],
        AgentToMaster::Reregister { tasks, executors, .. } if tasks.is_empty() && executors.is_empty()
    ));
    assert!(!said.iter().any(exited));
}

#[test]
fn a_registration_leaves_out_what_only_programs_need() {
    let mut world = World::registered();
    let mut info = task("t");
    info.data = vec![7; 500_000];
    info.command.as_mut().expect("a command").environment = vec![("A".to_owned(), "b".to_owned())];
    world.launch(info.clone());
    assert_eq!(
        world.disk.tasks[&key("t")].info,
        info,
        "the disk has all of it"
    );
    let said = world.connect();
    let AgentToMaster::Reregister { tasks, .. } = &said[0] else {
        panic!("{said:?}");
    };
    let mut expected = info;
    expected.data.clear();
    expected
        .command
        .as_mut()
        .expect("a command")
        .environment
        .clear();
    assert_eq!(tasks[0].info, expected);
}

#[test]
fn messages_of_an_earlier_connection_or_generation_are_refused_and_counted() {
    let mut world = World::registered();
    let old = Conn(world.conn);
    world.connect();
    world.step(Input::FromMaster {
        conn: old,
        generation: Generation(1),
        message: MasterToAgent::ShutdownFramework {
            framework_id: framework(),
        },
    });
    assert_eq!(world.core.counters().stale_messages, 1);
    let conn = Conn(world.conn);
    world.step(Input::FromMaster {
        conn,
        generation: Generation(0),
        message: MasterToAgent::Heartbeat,
    });
    assert_eq!(world.core.counters().stale_messages, 2);
    assert!(world.did(|effect| matches!(effect, Effect::Reconnect { .. })));
}

#[test]
fn the_generation_is_remembered_across_a_restart() {
    let mut world = World::registered();
    world.restart(&[]);
    assert_eq!(world.core.generation(), Generation(1));
}

#[test]
fn orders_before_the_registration_is_answered_are_refused() {
    let mut world = World::new();
    world.conn = 1;
    world.step(Input::LinkUp { conn: Conn(1) });
    world.launch(task("t"));
    assert!(world.effects.is_empty());
    assert_eq!(world.core.counters().early_messages, 1);
}

#[test]
fn a_silent_master_is_given_up_and_a_heartbeat_keeps_it() {
    let mut world = World::registered();
    for _ in 0..10 {
        world.wait(15_000);
        assert_eq!(world.said(), [AgentToMaster::Heartbeat]);
        world.order(MasterToAgent::Heartbeat);
    }
    let mut gave_up = false;
    for _ in 0..5 {
        world.wait(15_000);
        gave_up |= world.did(|effect| matches!(effect, Effect::Reconnect { .. }));
    }
    assert!(gave_up);
    let mut world = World::new();
    world.step(Input::LinkUp { conn: Conn(1) });
    world.wait(REGISTRATION_TIMEOUT_MS);
    assert!(world.did(|effect| matches!(effect, Effect::Reconnect { .. })));
}

#[test]
fn a_refusal_stops_the_agent() {
    let mut world = World::registered();
    world.order(MasterToAgent::Refused {
        message: "gone".to_owned(),
    });
    assert!(world.did(|effect| matches!(effect, Effect::Stop { .. })));
}
