//! What operators see and have done.

use super::*;
use crate::core::{OperatorCommand, RequestId};

fn operate(world: &mut World, command: OperatorCommand) -> Result<(), OperatorError> {
    world.step(Input::Operator {
        request: RequestId(7),
        command,
    });
    world.answers.pop().expect("no answer")
}

#[test]
fn weights_are_checked_persisted_and_shown() {
    let mut world = World::new();
    for wrong in [0, u64::MAX] {
        let command = OperatorCommand::SetWeights(vec![(role("a"), 2000), (role("b"), wrong)]);
        let error = operate(&mut world, command).unwrap_err();
        assert!(matches!(error, OperatorError::Weight { .. }));
    }
    assert!(world.writes.is_empty(), "all or none");
    let command = OperatorCommand::SetWeights(vec![(role("a"), 2000)]);
    assert_eq!(operate(&mut world, command), Ok(()));
    assert_eq!(world.core.cluster_state().roles[0].weight_milli, 2000);
}

#[test]
fn an_operator_can_tear_a_framework_down() {
    let (mut world, scheduler, agent) = World::with_running_task();
    let id = scheduler.id.clone();
    assert_eq!(
        operate(&mut world, OperatorCommand::Teardown(id.clone())),
        Ok(())
    );
    assert!(world.closed.contains_key(&scheduler.connection));
    assert_eq!(world.allocated(&agent), Resources::ZERO);
    let again = operate(&mut world, OperatorCommand::Teardown(id.clone()));
    assert_eq!(again, Err(OperatorError::NoFramework(id)));
}

#[test]
fn an_operator_can_kill_a_task() {
    let (mut world, scheduler, agent) = World::with_running_task();
    let mut kill = |task: &str| {
        let command = OperatorCommand::KillTask {
            framework_id: scheduler.id.clone(),
            task_id: task_id(task),
            grace_ms: Some(1),
        };
        operate(&mut world, command)
    };
    assert_eq!(kill("t"), Ok(()));
    assert!(matches!(kill("u"), Err(OperatorError::NoTask { .. })));
    assert_eq!(
        world.count_orders(&agent, |o| matches!(o, MasterToAgent::Kill { .. })),
        1
    );
}

#[test]
fn changes_are_told_only_while_somebody_watches() {
    let (mut world, scheduler, agent) = World::with_running_task();
    assert!(world.changes.is_empty());
    world.step(Input::Observe(true));
    world.update(&agent, &scheduler, "t", TaskState::Finished, 2);
    let told = world.changes.iter().any(|change| {
        matches!(change, Change::TaskUpdated { status, .. } if status.state == TaskState::Finished)
    });
    assert!(told, "{:?}", world.changes);
    world.step(Input::Observe(false));
    let before = world.changes.len();
    world.agent_gone(&agent);
    assert_eq!(world.changes.len(), before);
}

#[test]
fn the_state_shows_what_everybody_holds() {
    let (mut world, scheduler, agent) = World::with_running_task();
    world.offering = true;
    world.call(&scheduler, Call::Revive { roles: Vec::new() });
    let state = world.core.cluster_state();
    assert_eq!(state.agents[0].id, agent.id);
    assert_eq!(state.agents[0].allocated, res(1000, 1024));
    assert_eq!(state.agents[0].offered, res(3000, 3072));
    assert_eq!(state.frameworks[0].allocated, res(1000, 1024));
    assert_eq!((state.frameworks[0].live_tasks, state.offers.len()), (1, 1));
    assert_eq!(state.roles[0].offered, res(3000, 3072));
    let gauges = world.core.gauges();
    assert_eq!(
        (gauges.offers, gauges.frameworks_connected, gauges.agents[0]),
        (1, 1, 1)
    );
    assert_eq!(gauges.tasks[TaskState::Running as usize], 1);
}
