//! What containers of frameworks that are gone still hold: nobody is offered it before they have ended.

use ebb_types::{ExecutorId, ExecutorInfo, Limits, Quota};

use super::lots::{agent_with, lots, lots_offered, task_with};
use super::*;
use crate::core::{OperatorCommand, RequestId};

const ALL: &str = "cpus(r):1.000;gpus(r):2;ports:[1-4]";
const TAKEN: &str = "cpus(r):1;gpus(r):1;ports:[1-2]";
/// What is left of all but what is taken.
const LEFT: &str = "gpus(r):1;ports:[3-4]";

/// An agent on which a framework has a task `t`, whose framework is then removed; and another framework of its role.
fn left_behind() -> (World, [Scheduler; 2], Played) {
    let mut world = World::new();
    let gone = world.subscribe(able("gone"));
    let agent = world.register(agent_with(ALL));
    let offer = world.offer(&gone);
    let task = task_with("t", &agent, res(1000, 1024), TAKEN);
    world.accept(&gone, &offer, vec![task]);
    world.update(&agent, &gone, "t", TaskState::Running, 1);
    world.call(&gone, Call::Teardown);
    let next = world.subscribe(able("next"));
    (world, [gone, next], agent)
}

fn able(name: &str) -> FrameworkInfo {
    let mut info = framework_info(name, &["r"]);
    info.capabilities.push(Capability::GpuResources);
    info
}

/// What is offered to a framework, and what is allocated of the agent.
#[track_caller]
fn stands(world: &World, next: &Scheduler, offered: (Resources, &str), allocated: Resources) {
    let offers = world.offers(next);
    let plain = offers.iter().fold(Resources::ZERO, |sum, offer| {
        sum.saturating_add(&offer.resources)
    });
    assert_eq!(plain, offered.0);
    assert_eq!(lots_offered(world, next), lots(offered.1).to_string());
    let state = world.core.cluster_state();
    assert_eq!(state.agents[0].allocated, allocated);
}

#[test]
fn what_a_container_of_a_removed_framework_holds_is_offered_when_it_has_ended() {
    let (mut world, [gone, next], agent) = left_behind();
    stands(&world, &next, (res(3000, 3072), LEFT), res(1000, 1024));
    // That it is being killed is not its end.
    world.update(&agent, &gone, "t", TaskState::Killing, 2);
    stands(&world, &next, (res(3000, 3072), LEFT), res(1000, 1024));
    world.update(&agent, &gone, "t", TaskState::Killed, 3);
    world.pass_ms(1_000);
    stands(&world, &next, (res(4000, 4096), ALL), Resources::ZERO);
    // It ends once.
    world.update(&agent, &gone, "t", TaskState::Killed, 3);
    stands(&world, &next, (res(4000, 4096), ALL), Resources::ZERO);
}

#[test]
fn what_an_agent_in_confusion_names_twice_is_held_once() {
    let (mut world, [gone, next], agent) = left_behind();
    let task = task_with("t", &agent, res(1000, 1024), TAKEN);
    let task = running(&gone.id, task, TaskState::Killing);
    world.agent_gone(&agent);
    let agent = world.reregister(&agent, agent_with(ALL), vec![task.clone(), task]);
    stands(&world, &next, (res(3000, 3072), LEFT), res(1000, 1024));
    world.update(&agent, &gone, "t", TaskState::Killed, 3);
    stands(&world, &next, (res(4000, 4096), ALL), Resources::ZERO);
}

#[test]
fn what_an_agent_comes_back_without_has_ended() {
    let (mut world, [gone, next], agent) = left_behind();
    let mut task = running(
        &gone.id,
        task_with("t", &agent, res(1000, 1024), TAKEN),
        TaskState::Killing,
    );
    world.agent_gone(&agent);
    let agent = world.reregister(&agent, agent_with(ALL), vec![task.clone()]);
    stands(&world, &next, (res(3000, 3072), LEFT), res(1000, 1024));
    // Its end may come along, until it is acknowledged.
    task.state = TaskState::Killed;
    world.agent_gone(&agent);
    let agent = world.reregister(&agent, agent_with(ALL), vec![task]);
    stands(&world, &next, (res(4000, 4096), ALL), Resources::ZERO);
    world.agent_gone(&agent);
    world.reregister(&agent, agent_with(ALL), Vec::new());
    stands(&world, &next, (res(4000, 4096), ALL), Resources::ZERO);
}

#[test]
fn a_restarted_master_knows_what_remains_from_the_agents() {
    let (world, [gone, _], agent) = left_behind();
    let mut world = World::restored(world.registry());
    let task = task_with("t", &agent, res(1000, 1024), TAKEN);
    let task = running(&gone.id, task, TaskState::Running);
    let agent = world.reregister(&agent, agent_with(ALL), vec![task]);
    let next = world.subscribe(able("next"));
    stands(&world, &next, (res(3000, 3072), LEFT), res(1000, 1024));
    world.update(&agent, &gone, "t", TaskState::Killed, 9);
    world.pass_ms(1_000);
    stands(&world, &next, (res(4000, 4096), ALL), Resources::ZERO);
}

#[test]
fn nothing_remains_on_an_agent_that_is_out_of_reach() {
    let (mut world, [_, next], agent) = left_behind();
    world.agent_gone(&agent);
    world.pass_ms(600_000);
    assert!(world.core.agents.is_empty());
    world.reregister(&agent, agent_with(ALL), Vec::new());
    stands(&world, &next, (res(4000, 4096), ALL), Resources::ZERO);
}

#[test]
fn what_remains_of_an_executor_ends_with_it() {
    let mut world = World::new();
    let gone = world.subscribe(able("gone"));
    let agent = world.register(agent_with(ALL));
    let executor_id = ExecutorId::new("e").unwrap();
    let executor = ExecutorInfo {
        executor_id: executor_id.clone(),
        name: String::new(),
        command: CommandInfo {
            value: String::from("run"),
            ..CommandInfo::default()
        },
        resources: res(1000, 1024),
        lots: lots(TAKEN),
        data: Vec::new(),
    };
    let mut task = command_task("t", &agent.id, res(100, 32));
    task.command = None;
    task.executor = Some(executor);
    let offer = world.offer(&gone);
    world.accept(&gone, &offer, vec![task]);
    world.update(&agent, &gone, "t", TaskState::Running, 1);
    world.call(&gone, Call::Teardown);
    let next = world.subscribe(able("next"));
    stands(&world, &next, (res(2900, 3040), LEFT), res(1100, 1056));
    world.update(&agent, &gone, "t", TaskState::Killed, 2);
    world.pass_ms(1_000);
    stands(&world, &next, (res(3000, 3072), LEFT), res(1000, 1024));
    let exited = AgentToMaster::ExecutorExited {
        framework_id: gone.id,
        executor_id,
        status: 0,
    };
    world.say(&agent, exited);
    world.pass_ms(1_000);
    stands(&world, &next, (res(4000, 4096), ALL), Resources::ZERO);
}

#[test]
fn what_remains_counts_towards_no_quota_but_that_of_the_role_it_is_reserved_for() {
    let (mut world, [gone, next], agent) = left_behind();
    let cpus = |cpus: u64| Quantities::cpus_mem(cpus * 1000, 0);
    let limits = Limits::NONE.with(ResourceKind::Cpus, Some(4_000));
    world.step(Input::Operator {
        request: RequestId(1),
        command: OperatorCommand::SetQuotas {
            quotas: vec![(
                role("r"),
                Quota {
                    limits,
                    ..Quota::default()
                },
            )],
            lot_limits: Vec::new(),
            force: false,
        },
    });
    assert_eq!(world.answers.last(), Some(&Ok(())));
    let consumed = |world: &World| {
        let roles = world.core.cluster_state().roles.into_iter();
        let mut of = roles.filter(|state| state.role == role("r"));
        of.next()
            .map(|state| state.consumed.get(ResourceKind::Cpus))
    };
    // Three are offered, and one is reserved.
    stands(&world, &next, (res(3000, 3072), LEFT), res(1000, 1024));
    assert_eq!(consumed(&world), Some(cpus(4).cpu_milli()));
    world.update(&agent, &gone, "t", TaskState::Killed, 2);
    world.pass_ms(1_000);
    // No more of them: the limit is reached.
    let allowed = (res(3000, 4096), ALL);
    stands(&world, &next, allowed, Resources::ZERO);
    assert_eq!(consumed(&world), Some(cpus(4).cpu_milli()));
}
