//! Maintenance: windows, inverse offers and what is answered to them.

use ebb_types::{
    AgentActivity, InverseAnswer, InverseOffer, Machine, MaintenanceMode, MaintenanceState,
    Unavailability,
};

use super::activity::operate;
use super::*;
use crate::core::OperatorCommand;
use crate::core::limits::MIN_INVERSE_REFUSE_MS;

const HOUR_MS: u64 = 3_600_000;

fn host() -> Machine {
    Machine::host("h").unwrap()
}

/// In an hour, for an hour.
fn soon(world: &World) -> Unavailability {
    Unavailability {
        start: world.now.plus_ms(HOUR_MS),
        duration_ms: Some(HOUR_MS),
    }
}

fn schedule(world: &mut World, machine: Machine) -> Unavailability {
    let window = soon(world);
    let command = OperatorCommand::ScheduleMaintenance(vec![(machine, window)]);
    assert_eq!(operate(world, command), Ok(()));
    window
}

fn start(world: &mut World, machine: Machine) -> Result<(), OperatorError> {
    operate(world, OperatorCommand::StartMaintenance(vec![machine]))
}

fn stop(world: &mut World, machine: Machine) -> Result<(), OperatorError> {
    operate(world, OperatorCommand::StopMaintenance(vec![machine]))
}

fn cancel(world: &mut World, machine: Machine) -> Result<(), OperatorError> {
    operate(world, OperatorCommand::CancelMaintenance(vec![machine]))
}

/// The inverse offers that a scheduler was sent and that were not withdrawn.
fn asked(world: &World, scheduler: &Scheduler) -> Vec<InverseOffer> {
    let mut offers: Vec<InverseOffer> = Vec::new();
    for event in &world.events[&scheduler.connection] {
        match event {
            Event::InverseOffers(more) => offers.extend(more.clone()),
            Event::RescindInverseOffer(id) => offers.retain(|offer| offer.id != *id),
            _ => {}
        }
    }
    offers
}

fn answer(world: &mut World, scheduler: &Scheduler, accepts: bool, refuse_ms: u64) {
    let offer_ids = asked(world, scheduler).into_iter().map(|one| one.id);
    let (offer_ids, filters) = (offer_ids.collect(), Filters { refuse_ms });
    let call = match accepts {
        true => Call::AcceptInverseOffers { offer_ids, filters },
        false => Call::DeclineInverseOffers { offer_ids, filters },
    };
    world.call(scheduler, call);
}

fn state(world: &World) -> MaintenanceState {
    let states = world.core.cluster_state().maintenance;
    assert_eq!(states.len(), 1);
    states.into_iter().next().unwrap()
}

fn answers(world: &World) -> Vec<InverseAnswer> {
    let answers = state(world).answers.into_iter();
    answers.map(|one| one.answer).collect()
}

fn activity(world: &World, agent: &Played) -> AgentActivity {
    world.core.agent_state(&agent.id).unwrap().activity
}

#[test]
fn offers_of_an_agent_say_when_it_will_be_out_of_use_and_older_ones_are_withdrawn() {
    let mut world = World::new();
    let scheduler = world.subscribe(framework_info("f", &["r"]));
    world.register(agent_info(4000, 4096));
    let before = world.offer(&scheduler);
    assert_eq!(before.unavailability, None);
    let window = schedule(&mut world, host());
    let offer = world.offer(&scheduler);
    assert_ne!(offer.id, before.id);
    assert_eq!(offer.unavailability, Some(window));
    assert_eq!(asked(&world, &scheduler), [], "it holds nothing there");
    assert_eq!(cancel(&mut world, host()), Ok(()));
    assert_eq!(world.offer(&scheduler).unavailability, None);
}

#[test]
fn whoever_has_tasks_on_the_agent_is_asked_and_its_answer_is_shown() {
    let (mut world, scheduler, agent) = World::with_running_task();
    let other = world.subscribe(framework_info("g", &["r"]));
    let window = schedule(&mut world, Machine::Agent(agent.id.clone()));
    let inverse = asked(&world, &scheduler);
    assert_eq!(inverse.len(), 1);
    assert_eq!(inverse[0].agent_id, agent.id);
    assert_eq!(inverse[0].unavailability, window);
    assert_eq!(asked(&world, &other), []);
    assert_eq!(answers(&world), [InverseAnswer::Open]);
    answer(&mut world, &scheduler, true, HOUR_MS);
    let shown = state(&world);
    assert_eq!(shown.agents, [agent.id]);
    assert_eq!(shown.answers[0].answer, InverseAnswer::Accepted);
    assert_eq!(shown.answers[0].framework_id, scheduler.id);
    assert_eq!(shown.window.mode, MaintenanceMode::Scheduled);
}

#[test]
fn it_is_asked_again_when_the_filter_of_its_answer_ends_and_not_before() {
    let (mut world, scheduler, _) = World::with_running_task();
    schedule(&mut world, host());
    let count = |world: &World| {
        world.count_events(&scheduler, |one| matches!(one, Event::InverseOffers(_)))
    };
    answer(&mut world, &scheduler, false, 60_000);
    assert_eq!(answers(&world), [InverseAnswer::Declined]);
    world.pass_ms(59_999);
    assert_eq!(count(&world), 1);
    world.pass_ms(1);
    assert_eq!(count(&world), 2);
    assert_eq!(
        answers(&world),
        [InverseAnswer::Declined],
        "until it says else"
    );
    answer(&mut world, &scheduler, true, 0);
    assert_eq!(answers(&world), [InverseAnswer::Accepted]);
    world.pass_ms(MIN_INVERSE_REFUSE_MS - 1);
    assert_eq!(count(&world), 2, "no filter asks for a flood");
    world.pass_ms(1);
    assert_eq!(count(&world), 3);
}

#[test]
fn what_was_asked_is_withdrawn_when_its_reason_is_gone() {
    let (mut world, scheduler, agent) = World::with_running_task();
    schedule(&mut world, host());
    assert_eq!(asked(&world, &scheduler).len(), 1);
    let uuid = world.update(&agent, &scheduler, "t", TaskState::Finished, 2);
    assert_eq!(asked(&world, &scheduler), []);
    assert_eq!(answers(&world), []);
    world.acknowledge(&scheduler, &agent, "t", uuid);
    let (mut world, scheduler, _) = World::with_running_task();
    schedule(&mut world, host());
    assert_eq!(cancel(&mut world, host()), Ok(()));
    assert_eq!(asked(&world, &scheduler), []);
    assert_eq!(world.core.cluster_state().maintenance, []);
    assert!(matches!(
        cancel(&mut world, host()),
        Err(OperatorError::NoWindow(_))
    ));
}

#[test]
fn a_scheduler_that_comes_back_is_asked_anew() {
    let (mut world, scheduler, _) = World::with_running_task();
    schedule(&mut world, host());
    let before = asked(&world, &scheduler);
    world.hang_up(&scheduler);
    let mut info = framework_info("f", &["r"]);
    info.id = Some(scheduler.id.clone());
    let again = world.subscribe(info);
    let after = asked(&world, &again);
    assert_eq!(after.len(), 1);
    assert_ne!(after[0].id, before[0].id);
    // The answer to the old one says nothing.
    let call = Call::AcceptInverseOffers {
        offer_ids: vec![before[0].id.clone()],
        filters: NO_FILTER,
    };
    world.call(&again, call);
    assert_eq!(answers(&world), [InverseAnswer::Open]);
}

#[test]
fn an_agent_that_is_lost_is_asked_back_no_more() {
    let (mut world, scheduler, agent) = World::with_running_task();
    schedule(&mut world, Machine::Agent(agent.id.clone()));
    world.agent_gone(&agent);
    assert_eq!(asked(&world, &scheduler).len(), 1, "it may come back");
    world.pass_ms(100_000);
    assert_eq!(asked(&world, &scheduler), []);
}

#[test]
fn to_start_it_is_to_drain_the_agents_and_to_stop_it_brings_them_back() {
    let (mut world, scheduler, agent) = World::with_running_task();
    assert!(matches!(
        start(&mut world, host()),
        Err(OperatorError::NoWindow(_))
    ));
    schedule(&mut world, host());
    assert!(matches!(
        stop(&mut world, host()),
        Err(OperatorError::NotStarted(_))
    ));
    assert_eq!(start(&mut world, host()), Ok(()));
    assert_eq!(asked(&world, &scheduler), []);
    assert_eq!(activity(&world, &agent), AgentActivity::Draining);
    let killed = |order: &MasterToAgent| matches!(order, MasterToAgent::Kill { .. });
    assert_eq!(world.count_orders(&agent, killed), 1);
    assert!(matches!(
        stop(&mut world, host()),
        Err(OperatorError::StillDraining(_))
    ));
    assert!(matches!(
        cancel(&mut world, host()),
        Err(OperatorError::MachineDown(_))
    ));
    let uuid = world.update(&agent, &scheduler, "t", TaskState::Killed, 2);
    world.acknowledge(&scheduler, &agent, "t", uuid);
    assert_eq!(activity(&world, &agent), AgentActivity::Drained);
    // One that joins meanwhile is of that host, too.
    let late = world.register(agent_info(1000, 1024));
    assert_eq!(activity(&world, &late), AgentActivity::Drained);
    let subject = ebb_types::ExplainSubject::Framework(scheduler.id.clone());
    let explanation = world.core.explain(world.now, subject).unwrap();
    assert_eq!(explanation.agents.inactive, 2);
    assert_eq!(explanation.agents.in_maintenance, 2);
    world.offering = true;
    let early = OperatorCommand::Reactivate(late.id.clone());
    assert!(matches!(
        operate(&mut world, early),
        Err(OperatorError::MachineDown(_))
    ));
    assert_eq!(stop(&mut world, host()), Ok(()));
    assert_eq!(activity(&world, &agent), AgentActivity::Active);
    assert_eq!(activity(&world, &late), AgentActivity::Active);
    assert_eq!(world.offers(&scheduler).len(), 2);
    assert_eq!(world.core.cluster_state().maintenance, []);
}

#[test]
fn an_agent_is_out_of_use_with_its_host_though_its_own_maintenance_is_to_come() {
    let mut world = World::new();
    let scheduler = world.subscribe(framework_info("f", &["r"]));
    let agent = world.register(agent_info(4000, 4096));
    let own = Machine::Agent(agent.id.clone());
    let window = schedule(&mut world, own.clone());
    schedule(&mut world, host());
    assert_eq!(start(&mut world, host()), Ok(()));
    assert_eq!(activity(&world, &agent), AgentActivity::Drained);
    assert!(world.offers(&scheduler).is_empty());
    world.offering = true;
    let early = OperatorCommand::Reactivate(agent.id.clone());
    let held_by = OperatorError::MachineDown(host());
    assert_eq!(operate(&mut world, early), Err(held_by));
    assert_eq!(stop(&mut world, host()), Ok(()));
    assert_eq!(activity(&world, &agent), AgentActivity::Active);
    let offer = world.offer(&scheduler);
    assert_eq!(offer.unavailability, Some(window), "its own is to come");
    // Started both, it comes back with the last of them.
    schedule(&mut world, host());
    let both = vec![own.clone(), host()];
    let command = OperatorCommand::StartMaintenance(both);
    assert_eq!(operate(&mut world, command), Ok(()));
    assert_eq!(stop(&mut world, own), Ok(()));
    assert_eq!(activity(&world, &agent), AgentActivity::Drained);
    assert_eq!(stop(&mut world, host()), Ok(()));
    assert_eq!(activity(&world, &agent), AgentActivity::Active);
}

#[test]
fn an_agent_that_is_lost_while_it_drains_does_not_keep_the_maintenance_from_ending() {
    let (mut world, _, agent) = World::with_running_task();
    schedule(&mut world, host());
    assert_eq!(start(&mut world, host()), Ok(()));
    world.agent_gone(&agent);
    assert!(
        stop(&mut world, host()).is_err(),
        "it may come back at once"
    );
    world.pass_ms(100_000);
    assert_eq!(stop(&mut world, host()), Ok(()));
    assert_eq!(activity(&world, &agent), AgentActivity::Active);
}

#[test]
fn windows_outlast_the_master_and_a_started_one_awaits_its_agents() {
    let (mut world, scheduler, agent) = World::with_running_task();
    let window = schedule(&mut world, host());
    let again = World::restored(world.registry());
    let shown = state(&again);
    assert_eq!(shown.window.unavailability, window);
    assert_eq!(shown.agents, std::slice::from_ref(&agent.id));
    assert_eq!(start(&mut world, host()), Ok(()));
    let mut again = World::restored(world.registry());
    assert_eq!(state(&again).window.mode, MaintenanceMode::Down);
    let task = world.running_task(&scheduler, &agent);
    let agent = again.reregister(&agent, agent_info(4000, 4096), vec![task]);
    assert_eq!(activity(&again, &agent), AgentActivity::Draining);
}

#[test]
fn a_window_that_was_never_started_is_forgotten_when_it_is_over() {
    let mut world = World::new();
    let scheduler = world.subscribe(framework_info("f", &["r"]));
    world.register(agent_info(4000, 4096));
    let short = Unavailability {
        start: world.now.plus_ms(10_000),
        duration_ms: Some(20_000),
    };
    let command = OperatorCommand::ScheduleMaintenance(vec![(host(), short)]);
    assert_eq!(operate(&mut world, command), Ok(()));
    world.pass_ms(29_999);
    assert_eq!(world.core.cluster_state().maintenance.len(), 1);
    assert_eq!(world.offer(&scheduler).unavailability, Some(short));
    world.pass_ms(1);
    assert_eq!(world.core.cluster_state().maintenance, []);
    assert_eq!(world.offer(&scheduler).unavailability, None);
    assert_eq!(world.registry().windows, []);
    let over = Unavailability {
        start: Timestamp::from_ms(0),
        duration_ms: Some(1),
    };
    let command = OperatorCommand::ScheduleMaintenance(vec![(host(), over)]);
    assert!(matches!(
        operate(&mut world, command),
        Err(OperatorError::WindowOver(_))
    ));
    let nobody = Machine::Agent(AgentId::new("nobody").unwrap());
    let command = OperatorCommand::ScheduleMaintenance(vec![(nobody, soon(&world))]);
    assert!(matches!(
        operate(&mut world, command),
        Err(OperatorError::NoAgent(_))
    ));
}
