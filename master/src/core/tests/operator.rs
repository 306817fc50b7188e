//! What operators see and have done.

use super::*;
use crate::core::{OperatorCommand, RequestId};
use ebb_types::AgentStatus;

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
    assert_eq!(world.allocated(&agent), res(1000, 1024));
    world.update(&agent, &scheduler, "t", TaskState::Killed, 2);
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
fn changes_are_told_to_those_who_watch() {
    let (mut world, scheduler, agent) = World::with_running_task();
    let added =
        |change: &Change| matches!(change, Change::TaskAdded(task) if task.task_id == task_id("t"));
    assert_eq!(world.changes.iter().filter(|one| added(one)).count(), 1);
    world.changes.clear();
    let uuid = world.update(&agent, &scheduler, "t", TaskState::Finished, 2);
    match world.changes.as_slice() {
        [
            Change::TaskUpdated {
                framework_id,
                status,
            },
        ] => {
            assert_eq!(*framework_id, scheduler.id);
            assert_eq!(
                (status.state, status.uuid),
                (TaskState::Finished, Some(uuid))
            );
        }
        other => panic!("{other:?}"),
    }
    world.acknowledge(&scheduler, &agent, "t", uuid);
    assert_eq!(world.changes.len(), 1, "an acknowledgement is no news");
    world.agent_gone(&agent);
    let gone = |change: &Change| matches!(change, Change::AgentUpdated(one) if one.status == AgentStatus::Disconnected);
    assert_eq!(world.changes.iter().filter(|one| gone(one)).count(), 1);
    let id = scheduler.id.clone();
    assert_eq!(
        operate(&mut world, OperatorCommand::Teardown(id.clone())),
        Ok(())
    );
    assert_eq!(world.changes.last(), Some(&Change::FrameworkRemoved(id)));
}

#[test]
fn there_are_news_only_while_somebody_keeps_a_copy() {
    let (mut world, scheduler, agent) = World::with_running_task();
    world.core.observe(false);
    let status = TaskStatus::new(
        task_id("t"),
        TaskState::Finished,
        Source::Executor,
        world.now,
    );
    let message = AgentToMaster::Update {
        framework_id: scheduler.id.clone(),
        status,
        latest_state: TaskState::Finished,
    };
    let input = Input::Agent {
        connection: agent.connection,
        incarnation: agent.incarnation,
        message,
    };
    world.core.step(world.now, input.clone());
    assert!(world.core.news().is_empty());
    world.core.observe(true);
    world.core.step(world.now, input);
    assert!(!world.core.news().is_empty());
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
    let gauges = world.gauges();
    assert_eq!(
        (gauges.offers, gauges.frameworks_connected, gauges.agents[0]),
        (1, 1, 1)
    );
    assert_eq!(gauges.tasks[TaskState::Running as usize], 1);
}
