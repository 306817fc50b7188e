//! How tasks are killed.

use super::*;

fn kill(agent_id: Option<AgentId>) -> Call {
    Call::Kill {
        task_id: task_id("t"),
        agent_id,
        grace_ms: Some(7),
    }
}

fn kills(world: &World, agent: &Played) -> usize {
    world.count_orders(agent, |order| {
        matches!(
            order,
            MasterToAgent::Kill {
                grace_ms: Some(7),
                ..
            }
        )
    })
}

#[test]
fn a_kill_reaches_the_agent_with_its_grace() {
    let (mut world, scheduler, agent) = World::with_running_task();
    world.call(&scheduler, kill(None));
    world.call(&scheduler, kill(Some(agent.id.clone())));
    assert_eq!(kills(&world, &agent), 2);
}

#[test]
fn a_kill_that_names_the_wrong_agent_is_ignored() {
    let (mut world, scheduler, agent) = World::with_running_task();
    world.call(&scheduler, kill(AgentId::new("other").ok()));
    assert_eq!(kills(&world, &agent), 0);
    assert_eq!(world.core.counters().calls_invalid, 1);
}

#[test]
fn a_kill_of_an_unknown_task_is_answered_as_a_reconciliation() {
    let (mut world, scheduler, _) = World::with_running_task();
    let call = Call::Kill {
        task_id: task_id("nobody"),
        agent_id: None,
        grace_ms: None,
    };
    world.call(&scheduler, call);
    let update = world.last_update(&scheduler);
    assert_eq!(update.state, TaskState::Unknown);
    assert_eq!(update.reason, Some(ebb_types::Reason::Reconciliation));
}

#[test]
fn a_kill_for_a_disconnected_agent_is_sent_when_it_comes_back() {
    let (mut world, scheduler, agent) = World::with_running_task();
    world.agent_gone(&agent);
    world.call(&scheduler, kill(None));
    assert_eq!(kills(&world, &agent), 0);
    let task = world.running_task(&scheduler, &agent);
    let back = world.reregister(&agent, agent_info(4000, 4096), vec![task]);
    assert_eq!(kills(&world, &back), 1);
    let greeted = matches!(world.orders(&back)[0], MasterToAgent::Registered { .. });
    assert!(greeted, "an agent hears first that it is registered");
}

#[test]
fn a_kill_of_a_task_on_an_unreachable_agent_is_answered_as_a_reconciliation() {
    let (mut world, scheduler, _) = World::with_running_task();
    world.pass_ms(75_000);
    world.call(&scheduler, kill(None));
    let update = world.last_update(&scheduler);
    assert_eq!(update.state, TaskState::Unreachable);
    assert_eq!(update.reason, Some(ebb_types::Reason::Reconciliation));
}
