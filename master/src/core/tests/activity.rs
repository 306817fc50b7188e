//! What operators decide about agents.

use ebb_types::{AgentActivity, AgentStatus, Reason};

use super::*;
use crate::core::record::Activity;
use crate::core::{OperatorCommand, RequestId};
use crate::ledger::Refused;

pub(super) fn operate(world: &mut World, command: OperatorCommand) -> Result<(), OperatorError> {
    world.answers.clear();
    world.step(Input::Operator {
        request: RequestId(7),
        command,
    });
    world.answers.pop().expect("no answer")
}

fn deactivate(world: &mut World, agent: &Played) {
    let command = OperatorCommand::Deactivate(agent.id.clone());
    assert_eq!(operate(world, command), Ok(()));
}

fn reactivate(world: &mut World, agent: &Played) -> Result<(), OperatorError> {
    operate(world, OperatorCommand::Reactivate(agent.id.clone()))
}

fn drain(world: &mut World, agent: &Played, max_grace_ms: Option<u64>) {
    let command = OperatorCommand::Drain {
        agent_id: agent.id.clone(),
        max_grace_ms,
    };
    assert_eq!(operate(world, command), Ok(()));
}

fn activity(world: &World, agent: &Played) -> AgentActivity {
    world.core.agent_state(&agent.id).unwrap().activity
}

/// The graces of the kills that an agent was sent.
fn kills(world: &World, agent: &Played) -> Vec<Option<u64>> {
    let orders = world.orders(agent).iter();
    orders
        .filter_map(|order| match order {
            MasterToAgent::Kill { grace_ms, .. } => Some(*grace_ms),
            _ => None,
        })
        .collect()
}

fn offered_and_free() -> (World, Scheduler, Played) {
    let mut world = World::new();
    let scheduler = world.subscribe(framework_info("f", &["r"]));
    let agent = world.register(agent_info(4000, 4096));
    (world, scheduler, agent)
}

#[test]
fn a_deactivated_agent_is_offered_to_nobody_and_its_tasks_run_on() {
    let (mut world, scheduler, agent) = World::with_running_task();
    world.offering = true;
    deactivate(&mut world, &agent);
    world.call(&scheduler, Call::Revive { roles: Vec::new() });
    let other = world.subscribe(framework_info("g", &["s"]));
    assert!(world.offers(&scheduler).is_empty() && world.offers(&other).is_empty());
    assert_eq!(kills(&world, &agent), []);
    let state = world.core.agent_state(&agent.id).unwrap();
    assert_eq!(state.activity, AgentActivity::Deactivated);
    assert_eq!(state.status, AgentStatus::Registered);
    assert_eq!(state.allocated, res(1000, 1024));
    world.update(&agent, &scheduler, "t", TaskState::Finished, 2);
    assert_eq!(world.last_update(&scheduler).state, TaskState::Finished);
    assert!(world.offers(&scheduler).is_empty() && world.offers(&other).is_empty());
}

#[test]
fn the_offers_of_a_deactivated_agent_are_rescinded_and_can_be_accepted_no_more() {
    let (mut world, scheduler, agent) = offered_and_free();
    let offer = world.offer(&scheduler);
    deactivate(&mut world, &agent);
    let rescinded = world.count_events(
        &scheduler,
        |event| matches!(event, Event::Rescind(id) if *id == offer.id),
    );
    assert_eq!(rescinded, 1);
    let task = command_task("t", &agent.id, res(1000, 1024));
    world.accept(&scheduler, &offer, vec![task]);
    let update = world.last_update(&scheduler);
    assert_eq!(update.state, TaskState::Dropped);
    assert_eq!(update.reason, Some(Reason::InvalidOffers));
    let launched = |order: &MasterToAgent| matches!(order, MasterToAgent::Launch { .. });
    assert_eq!(world.count_orders(&agent, launched), 0);
}

#[test]
fn a_reactivated_agent_is_offered_again_even_to_whom_had_refused_it() {
    let (mut world, scheduler, agent) = offered_and_free();
    let offer = world.offer(&scheduler);
    let call = Call::Decline {
        offer_ids: vec![offer.id],
        filters: Filters { refuse_ms: 600_000 },
    };
    world.call(&scheduler, call);
    deactivate(&mut world, &agent);
    deactivate(&mut world, &agent);
    assert_eq!(reactivate(&mut world, &agent), Ok(()));
    assert_eq!(world.offer(&scheduler).resources, res(4000, 4096));
    assert_eq!(activity(&world, &agent), AgentActivity::Active);
}

#[test]
fn a_proposal_from_before_the_deactivation_is_void_after_the_reactivation() {
    let (mut world, scheduler, agent) = offered_and_free();
    let offer = world.offer(&scheduler);
    world.offering = false;
    world.accept(&scheduler, &offer, Vec::new());
    world.call(&scheduler, Call::Revive { roles: Vec::new() });
    let proposals = world.propose();
    assert_eq!(proposals.len(), 1, "the premise");
    world.in_flight = proposals.clone();
    let slot = world.ledger.get(&agent.id).unwrap();
    deactivate(&mut world, &agent);
    let late = slot.apply(
        proposals[0].incarnation,
        &crate::ledger::Transition::Offer(res(1, 1)),
    );
    assert!(matches!(late, Err(Refused::Incarnation { .. })), "{late:?}");
    assert_eq!(reactivate(&mut world, &agent), Ok(()));
    world.in_flight.clear();
    world.step(Input::Proposals {
        batch: None,
        proposals,
    });
    assert!(world.offers(&scheduler).is_empty());
    assert_eq!(world.free(&agent), res(4000, 4096));
    world.offering = true;
    world.call(&scheduler, Call::Revive { roles: Vec::new() });
    assert_eq!(world.offer(&scheduler).resources, res(4000, 4096));
}

#[test]
fn a_deactivation_outlasts_the_agents_connection_and_a_change_of_what_it_lends() {
    let (mut world, scheduler, agent) = offered_and_free();
    deactivate(&mut world, &agent);
    world.agent_gone(&agent);
    let agent = world.reregister(&agent, agent_info(8000, 4096), Vec::new());
    let lent = Quantities::cpus_mem(500, 0);
    world.say(&agent, AgentToMaster::Oversubscribed(lent));
    assert!(world.offers(&scheduler).is_empty());
    world.pass_ms(75_000);
    let status = world.core.agent_state(&agent.id).unwrap().status;
    assert_eq!(status, AgentStatus::Unreachable, "the premise");
    assert_eq!(activity(&world, &agent), AgentActivity::Deactivated);
    let agent = world.reregister(&agent, agent_info(8000, 4096), Vec::new());
    assert!(world.offers(&scheduler).is_empty());
    assert_eq!(reactivate(&mut world, &agent), Ok(()));
    assert_eq!(world.offer(&scheduler).resources, res(8000, 4096));
}

#[test]
fn a_deactivation_outlasts_a_restart_of_the_master() {
    let (mut world, _, agent) = World::with_running_task();
    deactivate(&mut world, &agent);
    let mut next = World::restored(world.registry());
    assert_eq!(activity(&next, &agent), AgentActivity::Deactivated);
    let other = next.subscribe(framework_info("g", &["s"]));
    let back = next.reregister(&agent, agent_info(4000, 4096), Vec::new());
    assert!(next.offers(&other).is_empty());
    assert_eq!(reactivate(&mut next, &back), Ok(()));
    assert_eq!(next.offer(&other).resources, res(4000, 4096));
    let after = World::restored(next.registry());
    assert_eq!(activity(&after, &agent), AgentActivity::Active);
}

#[test]
fn a_drained_agent_has_its_tasks_killed_and_says_when_it_is_empty() {
    let (mut world, scheduler, agent) = World::with_running_task();
    world.offering = true;
    world.call(&scheduler, Call::Revive { roles: Vec::new() });
    world.offer(&scheduler);
    drain(&mut world, &agent, Some(30_000));
    assert!(world.offers(&scheduler).is_empty());
    assert_eq!(kills(&world, &agent), [None], "3 s is less than 30 s");
    assert_eq!(activity(&world, &agent), AgentActivity::Draining);
    let uuid = world.update(&agent, &scheduler, "t", TaskState::Killed, 2);
    let update = world.last_update(&scheduler);
    assert_eq!(
        (update.state, update.reason),
        (TaskState::Killed, Some(Reason::AgentDraining))
    );
    assert_eq!(
        activity(&world, &agent),
        AgentActivity::Draining,
        "its end is pending"
    );
    world.acknowledge(&scheduler, &agent, "t", uuid);
    assert_eq!(activity(&world, &agent), AgentActivity::Drained);
    let told = world.changes.iter().any(|change| {
        matches!(change, Change::AgentUpdated(agent) if agent.activity == AgentActivity::Drained)
    });
    assert!(told, "{:?}", world.changes);
    assert!(world.offers(&scheduler).is_empty());
    assert_eq!(world.registry().agents[0].activity, Activity::Drained);
    assert_eq!(reactivate(&mut world, &agent), Ok(()));
    assert_eq!(world.offer(&scheduler).resources, res(4000, 4096));
}

#[test]
fn an_agent_without_tasks_is_drained_at_once() {
    let (mut world, scheduler, agent) = offered_and_free();
    drain(&mut world, &agent, None);
    assert_eq!(activity(&world, &agent), AgentActivity::Drained);
    assert!(world.offers(&scheduler).is_empty());
}

#[test]
fn draining_shortens_the_grace_of_tasks_and_never_lengthens_it() {
    for (own_ms, max_ms, sent_ms) in [
        (None, None, None),
        (Some(60_000), None, None),
        (None, Some(1_000), Some(1_000)),
        (None, Some(30_000), None),
        (Some(60_000), Some(30_000), Some(30_000)),
        (Some(60_000), Some(0), Some(0)),
        (Some(10), Some(30_000), None),
    ] {
        let (mut world, scheduler, agent) = offered_and_free();
        let offer = world.offer(&scheduler);
        let mut task = command_task("t", &agent.id, res(1000, 1024));
        task.kill_grace_ms = own_ms;
        world.accept(&scheduler, &offer, vec![task.clone()]);
        drain(&mut world, &agent, max_ms);
        assert_eq!(kills(&world, &agent), [sent_ms], "{own_ms:?} {max_ms:?}");
        // The agent brings the task's own grace along.
        let mut next = World::restored(world.registry());
        let task = running(&scheduler.id, task, TaskState::Running);
        let back = next.reregister(&agent, agent_info(4000, 4096), vec![task]);
        assert_eq!(kills(&next, &back), [sent_ms], "{own_ms:?} {max_ms:?}");
    }
}

#[test]
fn a_task_that_was_launched_just_before_the_draining_is_killed_after_its_launch() {
    let (mut world, scheduler, agent) = offered_and_free();
    let offer = world.offer(&scheduler);
    world.offering = false;
    let task = command_task("t", &agent.id, res(1000, 1024));
    world.accept(&scheduler, &offer, vec![task]);
    drain(&mut world, &agent, None);
    let orders = world.orders(&agent);
    let launch = orders
        .iter()
        .position(|o| matches!(o, MasterToAgent::Launch { .. }));
    let kill = orders
        .iter()
        .position(|o| matches!(o, MasterToAgent::Kill { .. }));
    assert!(launch.is_some() && launch < kill, "{orders:?}");
    // Its launch is lost with the connection.
    world.agent_gone(&agent);
    assert_eq!(activity(&world, &agent), AgentActivity::Draining);
    world.reregister(&agent, agent_info(4000, 4096), Vec::new());
    assert_eq!(world.last_update(&scheduler).state, TaskState::Dropped);
    assert_eq!(activity(&world, &agent), AgentActivity::Drained);
}

#[test]
fn a_draining_agent_cannot_be_reactivated() {
    let (mut world, _, agent) = World::with_running_task();
    assert_eq!(
        reactivate(&mut world, &agent),
        Err(OperatorError::AlreadyActive(agent.id.clone()))
    );
    drain(&mut world, &agent, None);
    let refused = reactivate(&mut world, &agent).unwrap_err();
    assert_eq!(refused, OperatorError::StillDraining(agent.id.clone()));
    assert!(refused.to_string().contains("cannot be called off"));
    deactivate(&mut world, &agent);
    assert_eq!(activity(&world, &agent), AgentActivity::Draining);
}

#[test]
fn an_agent_that_nobody_knows_is_refused() {
    let mut world = World::new();
    let id = AgentId::new("nobody").unwrap();
    for command in [
        OperatorCommand::Deactivate(id.clone()),
        OperatorCommand::Reactivate(id.clone()),
        OperatorCommand::Drain {
            agent_id: id.clone(),
            max_grace_ms: None,
        },
    ] {
        let answer = operate(&mut world, command);
        assert_eq!(answer, Err(OperatorError::NoAgent(id.clone())));
    }
    assert!(world.writes.is_empty());
}

#[test]
fn a_master_that_restarts_goes_on_draining_when_the_agent_comes_back() {
    let (mut world, scheduler, agent) = World::with_running_task();
    drain(&mut world, &agent, Some(5));
    let mut next = World::restored(world.registry());
    assert_eq!(activity(&next, &agent), AgentActivity::Draining);
    let mut info = framework_info("f", &["r"]);
    info.id = Some(scheduler.id.clone());
    let again = next.subscribe(info);
    let task = world.running_task(&scheduler, &agent);
    let back = next.reregister(&agent, agent_info(4000, 4096), vec![task]);
    assert_eq!(kills(&next, &back), [Some(5)]);
    assert!(next.offers(&again).is_empty());
    let uuid = next.update(&back, &again, "t", TaskState::Killed, 2);
    let update = next.last_update(&again);
    assert_eq!(update.reason, Some(Reason::AgentDraining));
    next.acknowledge(&again, &back, "t", uuid);
    assert_eq!(activity(&next, &back), AgentActivity::Drained);
}

#[test]
fn an_agent_that_is_out_of_reach_is_drained_when_it_comes_back() {
    let (mut world, scheduler, agent) = World::with_running_task();
    world.agent_gone(&agent);
    drain(&mut world, &agent, None);
    assert_eq!(activity(&world, &agent), AgentActivity::Draining);
    world.pass_ms(75_000);
    assert_eq!(activity(&world, &agent), AgentActivity::Draining);
    drain(&mut world, &agent, Some(1));
    let task = world.running_task(&scheduler, &agent);
    let back = world.reregister(&agent, agent_info(4000, 4096), vec![task]);
    assert_eq!(kills(&world, &back), [Some(1)]);
    assert_eq!(activity(&world, &back), AgentActivity::Draining);
}

#[test]
fn an_agent_is_drained_too_when_the_framework_of_its_last_task_ends() {
    let (mut world, scheduler, agent) = World::with_running_task();
    drain(&mut world, &agent, None);
    world.call(&scheduler, Call::Teardown);
    assert_eq!(activity(&world, &agent), AgentActivity::Draining);
    world.update(&agent, &scheduler, "t", TaskState::Killed, 2);
    assert_eq!(activity(&world, &agent), AgentActivity::Drained);
}

#[test]
fn only_kills_without_a_better_reason_are_laid_to_the_draining() {
    let (mut world, scheduler, agent) = World::with_running_task();
    drain(&mut world, &agent, None);
    let mut said = |state, reason, count| {
        let mut status = TaskStatus::new(task_id("t"), state, Source::Agent, world.now);
        status.uuid = Some(UpdateUuid::of(agent.incarnation, count));
        status.reason = reason;
        let message = AgentToMaster::Update {
            framework_id: scheduler.id.clone(),
            latest_state: TaskState::Running,
            status,
        };
        world.say(&agent, message);
        world.last_update(&scheduler).reason
    };
    let draining = Some(Reason::AgentDraining);
    let preempted = Some(Reason::ContainerPreempted);
    assert_eq!(said(TaskState::Running, None, 2), None);
    assert_eq!(said(TaskState::Killed, preempted, 3), preempted);
    assert_eq!(said(TaskState::Failed, None, 4), None);
    assert_eq!(
        said(TaskState::Killed, Some(Reason::TaskKilledDuringLaunch), 5),
        draining
    );
    assert_eq!(said(TaskState::Killed, None, 6), draining);
}
