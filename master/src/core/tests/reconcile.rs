//! What reconciliation answers.

use super::*;
use ebb_types::{Reason, ReconcileTask};

fn ask(
    world: &mut World,
    scheduler: &Scheduler,
    task: &str,
    agent: Option<&str>,
) -> Vec<TaskStatus> {
    let before = world.updates(scheduler).len();
    let call = Call::Reconcile {
        tasks: vec![ReconcileTask {
            task_id: task_id(task),
            agent_id: agent.map(|id| AgentId::new(id).unwrap()),
        }],
    };
    world.call(scheduler, call);
    world.updates(scheduler).split_off(before)
}

#[test]
fn a_known_task_is_answered_with_what_was_told_last() {
    let (mut world, scheduler, agent) = World::with_running_task();
    let answers = ask(&mut world, &scheduler, "t", None);
    assert_eq!(answers.len(), 1);
    let answer = &answers[0];
    assert_eq!(answer.state, TaskState::Running);
    assert_eq!(
        (answer.source, answer.reason),
        (Source::Master, Some(Reason::Reconciliation))
    );
    assert_eq!((answer.uuid, &answer.agent_id), (None, &Some(agent.id)));
}

#[test]
fn an_unknown_task_on_a_registered_agent_is_gone() {
    let (mut world, scheduler, agent) = World::with_running_task();
    let answers = ask(&mut world, &scheduler, "x", Some(agent.id.as_str()));
    assert_eq!(answers[0].state, TaskState::Gone);
}

#[test]
fn an_unknown_task_on_an_unreachable_agent_is_unreachable() {
    let (mut world, scheduler, agent) = World::with_running_task();
    world.pass_ms(75_000);
    let answers = ask(&mut world, &scheduler, "x", Some(agent.id.as_str()));
    assert_eq!(answers[0].state, TaskState::Unreachable);
}

#[test]
fn an_unknown_task_on_an_unknown_agent_or_none_is_unknown() {
    let (mut world, scheduler, _) = World::with_running_task();
    assert_eq!(
        ask(&mut world, &scheduler, "x", Some("nobody"))[0].state,
        TaskState::Unknown
    );
    assert_eq!(
        ask(&mut world, &scheduler, "x", None)[0].state,
        TaskState::Unknown
    );
}

#[test]
fn nothing_is_answered_while_the_agent_is_awaited() {
    let (world, scheduler, agent) = World::with_running_task();
    let mut world = World::restored(world.registry());
    let mut info = framework_info("f", &["r"]);
    info.id = Some(scheduler.id);
    let scheduler = world.subscribe(info);
    assert!(ask(&mut world, &scheduler, "t", Some(agent.id.as_str())).is_empty());
    assert!(ask(&mut world, &scheduler, "t", None).is_empty());
    assert_eq!(ask(&mut world, &scheduler, "t", Some("nobody")).len(), 1);
    world.pass_ms(600_000);
    let answers = ask(&mut world, &scheduler, "t", Some(agent.id.as_str()));
    assert_eq!(answers[0].state, TaskState::Unreachable);
    assert_eq!(
        ask(&mut world, &scheduler, "t", None)[0].state,
        TaskState::Unknown
    );
}

#[test]
fn an_implicit_reconciliation_tells_of_every_task() {
    let (mut world, scheduler, agent) = World::with_running_task();
    world.offering = true;
    world.call(&scheduler, Call::Revive { roles: Vec::new() });
    let offer = world.offer(&scheduler);
    world.accept(
        &scheduler,
        &offer,
        vec![command_task("u", &agent.id, res(100, 0))],
    );
    let before = world.updates(&scheduler).len();
    world.call(&scheduler, Call::Reconcile { tasks: Vec::new() });
    let answers: Vec<_> = world
        .updates(&scheduler)
        .split_off(before)
        .into_iter()
        .map(|status| (status.task_id.to_string(), status.state))
        .collect();
    let expected = [
        (String::from("t"), TaskState::Running),
        (String::from("u"), TaskState::Staging),
    ];
    assert_eq!(answers, expected);
}

#[test]
fn frameworks_that_are_not_partition_aware_hear_lost() {
    let mut world = World::new();
    let mut info = framework_info("f", &["r"]);
    info.capabilities.clear();
    let scheduler = world.subscribe(info);
    assert_eq!(
        ask(&mut world, &scheduler, "x", None)[0].state,
        TaskState::Lost
    );
}
