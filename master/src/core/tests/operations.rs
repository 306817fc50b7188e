//! Answers to operations: what is said of an operation until its framework has acknowledged what became of it.

use ebb_types::{Lots, OperationId, OperationKind, OperationState, OperationStatus};

use super::reservations::{answers, apply, convert, convert_one, operate, ordered, reserved};
use super::*;
use crate::core::limits::MAX_OPERATIONS_PER_FRAMEWORK;

fn op(id: &str) -> OperationId {
    OperationId::new(id).unwrap()
}

/// A framework whose operation `a` reserves one core of an agent.
fn with_operation() -> (World, Scheduler, Played) {
    let mut world = World::new();
    let scheduler = world.subscribe(framework_info("f", &["eng"]));
    let agent = world.register(agent_info(4000, 4096));
    reserve(&mut world, &scheduler, "a");
    (world, scheduler, agent)
}

fn reserve(world: &mut World, scheduler: &Scheduler, id: &str) {
    let mine = reserved("cpus:1", "eng");
    convert_one(world, scheduler, (id, OperationKind::Reserve), &mine);
}

fn acknowledge(world: &mut World, scheduler: &Scheduler, status: &OperationStatus) -> Vec<Effect> {
    let call = Call::AcknowledgeOperation {
        id: status.id.clone(),
        uuid: status.uuid.expect("an answer has a uuid"),
    };
    world.call(scheduler, call)
}

/// What is said of operations when they are asked for.
fn ask(world: &mut World, scheduler: &Scheduler, ids: &[&str]) -> Vec<(String, OperationState)> {
    let before = answers(world, scheduler).len();
    let ids = ids.iter().map(|id| op(id)).collect();
    world.call(scheduler, Call::ReconcileOperations { ids });
    let said = answers(world, scheduler).split_off(before);
    let said = said.into_iter();
    said.map(|status| (status.id.to_string(), status.state))
        .collect()
}

fn says(id: &str, state: OperationState) -> Vec<(String, OperationState)> {
    vec![(id.to_owned(), state)]
}

fn come_back(world: &mut World, scheduler: &Scheduler) -> Scheduler {
    let mut info = framework_info("f", &["eng"]);
    info.id = Some(scheduler.id.clone());
    world.subscribe(info)
}

/// A master that starts with what the registry of another holds.
fn restart(world: &World) -> World {
    let mut next = World::restored(world.registry());
    // What one master has written the next one finds, too.
    next.writes.clone_from(&world.writes);
    // A connection of the new process is none of the old one.
    next.next_connection = world.next_connection;
    next
}

fn has_done(agent: &Played, version: u64) -> AgentInfo {
    let mut info = agent_info(3000, 4096);
    (info.lots, info.lots_version) = (reserved("cpus:1", "eng"), version);
    info.id = Some(agent.id.clone());
    info
}

#[test]
fn an_answer_is_kept_until_it_is_acknowledged_and_then_forgotten() {
    let (mut world, scheduler, agent) = with_operation();
    assert_eq!(
        ask(&mut world, &scheduler, &[]),
        says("a", OperationState::Pending)
    );
    apply(&mut world, &agent);
    let answer = answers(&world, &scheduler).pop().unwrap();
    assert_eq!(answer.state, OperationState::Finished);
    assert_eq!(
        ask(&mut world, &scheduler, &["a"]),
        says("a", OperationState::Finished)
    );
    assert_eq!(
        answers(&world, &scheduler).pop(),
        Some(answer.clone()),
        "the same answer, by its uuid too"
    );
    // The uuid of another answer confirms nothing.
    let mut other = answer.clone();
    other.uuid = Some(UpdateUuid([7; 16]));
    acknowledge(&mut world, &scheduler, &other);
    assert_eq!(
        ask(&mut world, &scheduler, &[]),
        says("a", OperationState::Finished)
    );
    acknowledge(&mut world, &scheduler, &answer);
    assert_eq!(ask(&mut world, &scheduler, &[]), []);
    assert_eq!(
        ask(&mut world, &scheduler, &["a"]),
        says("a", OperationState::Unknown)
    );
    assert_eq!(world.registry().operations, []);
    let counters = world.core.counters();
    assert_eq!(
        (
            counters.operations_acknowledged,
            counters.acknowledgements_dropped
        ),
        (1, 1)
    );
}

#[test]
fn an_answer_that_nobody_heard_comes_with_the_next_subscription_and_every_one_after() {
    let (mut world, scheduler, agent) = with_operation();
    world.hang_up(&scheduler);
    apply(&mut world, &agent);
    assert_eq!(answers(&world, &scheduler), []);
    let scheduler = come_back(&mut world, &scheduler);
    let answer = answers(&world, &scheduler);
    assert_eq!(answer.len(), 1, "{answer:?}");
    assert_eq!(answer[0].state, OperationState::Finished);
    let scheduler = come_back(&mut world, &scheduler);
    assert_eq!(answers(&world, &scheduler), answer, "with the same uuid");
    acknowledge(&mut world, &scheduler, &answer[0]);
    let scheduler = come_back(&mut world, &scheduler);
    assert_eq!(answers(&world, &scheduler), []);
    assert_eq!(world.core.counters().operation_answers_repeated, 2);
}

#[test]
fn an_answer_is_the_same_after_a_restart_of_the_master() {
    let (mut world, scheduler, agent) = with_operation();
    apply(&mut world, &agent);
    let answer = answers(&world, &scheduler);
    let mut world = restart(&world);
    let scheduler = come_back(&mut world, &scheduler);
    assert_eq!(answers(&world, &scheduler), answer);
    acknowledge(&mut world, &scheduler, &answer[0]);
    let mut world = restart(&world);
    let scheduler = come_back(&mut world, &scheduler);
    assert_eq!(answers(&world, &scheduler), []);
    assert_eq!(
        ask(&mut world, &scheduler, &["a"]),
        says("a", OperationState::Unknown)
    );
}

#[test]
fn an_operation_without_an_answer_is_answered_by_the_next_master_as_its_agent_says() {
    for (is_done, becomes) in [
        (true, OperationState::Finished),
        (false, OperationState::Dropped),
    ] {
        let (world, scheduler, agent) = with_operation();
        let (version, _) = ordered(&world, &agent).unwrap();
        let mut world = restart(&world);
        let scheduler = come_back(&mut world, &scheduler);
        assert_eq!(answers(&world, &scheduler), []);
        assert_eq!(
            ask(&mut world, &scheduler, &["a"]),
            says("a", OperationState::Recovering)
        );
        assert_eq!(answers(&world, &scheduler)[0].uuid, None);
        // Another restart before the agent is back changes nothing.
        let mut world = restart(&world);
        let scheduler = come_back(&mut world, &scheduler);
        let info = match is_done {
            true => has_done(&agent, version),
            false => agent_info(4000, 4096),
        };
        world.reregister(&agent, info, Vec::new());
        let answer = answers(&world, &scheduler);
        assert_eq!(answer.len(), 1, "{answer:?}");
        assert_eq!(answer[0].state, becomes);
        let mut world = restart(&world);
        let scheduler = come_back(&mut world, &scheduler);
        assert_eq!(answers(&world, &scheduler), answer);
    }
}

#[test]
fn an_operation_is_durable_before_its_agent_is_ordered_and_its_answer_before_it_is_told() {
    let mut world = World::new();
    let scheduler = world.subscribe(framework_info("f", &["eng"]));
    let agent = world.register(agent_info(4000, 4096));
    let offer = world.offer(&scheduler);
    let mine = reserved("cpus:1", "eng");
    let call = Call::Accept {
        offer_ids: vec![offer.id],
        operations: vec![convert("a", OperationKind::Reserve, &mine)],
        filters: NO_FILTER,
    };
    let is_persist = |effect: &Effect| matches!(effect, Effect::Persist(_));
    let is_order = |effect: &Effect| matches!(effect, Effect::ToAgent { .. });
    let effects = world.call(&scheduler, call);
    let (kept, ordered) = (
        effects.iter().position(is_persist),
        effects.iter().position(is_order),
    );
    assert!(kept.is_some() && kept < ordered, "{effects:?}");
    let effects = world.say(&agent, AgentToMaster::LotsApplied { version: 1 });
    let is_told = |effect: &Effect| {
        matches!(
            effect,
            Effect::ToScheduler {
                event: Event::Operation(_),
                ..
            }
        )
    };
    let (kept, told) = (
        effects.iter().position(is_persist),
        effects.iter().position(is_told),
    );
    assert!(kept.is_some() && kept < told, "{effects:?}");
}

#[test]
fn an_operation_waits_for_an_agent_that_is_unreachable() {
    let (mut world, scheduler, agent) = with_operation();
    let (version, _) = ordered(&world, &agent).unwrap();
    world.agent_gone(&agent);
    assert_eq!(answers(&world, &scheduler), []);
    world.pass_ms(200_000);
    let said = answers(&world, &scheduler);
    assert_eq!(said.len(), 1, "{said:?}");
    assert_eq!(
        (said[0].state, said[0].uuid),
        (OperationState::Unreachable, None)
    );
    // Not even a restart of the master takes it for lost.
    let mut world = restart(&world);
    let scheduler = come_back(&mut world, &scheduler);
    assert_eq!(
        ask(&mut world, &scheduler, &[]),
        says("a", OperationState::Unreachable)
    );
    world.reregister(&agent, has_done(&agent, version), Vec::new());
    let answer = answers(&world, &scheduler).pop().unwrap();
    assert_eq!(answer.state, OperationState::Finished);
    assert!(answer.uuid.is_some());
}

#[test]
fn an_id_in_use_is_not_carried_out_twice() {
    let (mut world, scheduler, agent) = with_operation();
    reserve(&mut world, &scheduler, "a");
    let answer = answers(&world, &scheduler).pop().unwrap();
    assert_eq!((answer.state, answer.uuid), (OperationState::Pending, None));
    apply(&mut world, &agent);
    reserve(&mut world, &scheduler, "a");
    // On offers that are gone it would be dropped, were it another.
    let call = Call::Accept {
        offer_ids: vec![OfferId::new("gone").unwrap()],
        operations: vec![convert(
            "a",
            OperationKind::Reserve,
            &reserved("cpus:1", "eng"),
        )],
        filters: NO_FILTER,
    };
    world.call(&scheduler, call);
    let answer = answers(&world, &scheduler);
    assert!(
        answer[1..]
            .iter()
            .all(|status| status == &answer[1] && status.state == OperationState::Finished),
        "{answer:?}"
    );
    assert_eq!(answer.len(), 4);
    assert_eq!(
        ordered(&world, &agent).unwrap().1,
        reserved("cpus:1", "eng")
    );
    assert_eq!(world.core.counters().operations_repeated, 3);
    // Once its answer is acknowledged, the id is free.
    acknowledge(&mut world, &scheduler, &answer[1]);
    reserve(&mut world, &scheduler, "a");
    apply(&mut world, &agent);
    let next = answers(&world, &scheduler).pop().unwrap();
    assert_eq!(next.state, OperationState::Finished);
    assert_ne!(next.uuid, answer[1].uuid);
}

#[test]
fn what_is_kept_of_one_framework_is_bounded() {
    let mut world = World::new();
    let scheduler = world.subscribe(framework_info("f", &["eng"]));
    let agent = world.register(agent_info(4000, 4096));
    let wrong = (0..=MAX_OPERATIONS_PER_FRAMEWORK)
        .map(|number| convert(&format!("o{number}"), OperationKind::Reserve, &Lots::NONE));
    operate(&mut world, &scheduler, wrong.collect());
    let told = answers(&world, &scheduler);
    assert_eq!(told.len(), MAX_OPERATIONS_PER_FRAMEWORK + 1);
    let named: BTreeSet<_> = told.iter().filter_map(|status| status.uuid).collect();
    assert_eq!(named.len(), MAX_OPERATIONS_PER_FRAMEWORK);
    assert_eq!(told.last().unwrap().uuid, None);
    assert_eq!(world.core.counters().operation_answers_unkept, 1);
    // One that could be carried out is not, for its answer could be lost.
    reserve(&mut world, &scheduler, "more");
    let refused = answers(&world, &scheduler).pop().unwrap();
    assert_eq!(refused.state, OperationState::Error);
    assert!(refused.message.contains("acknowledge"), "{refused:?}");
    assert_eq!(ordered(&world, &agent), None);
    acknowledge(&mut world, &scheduler, &told[0]);
    reserve(&mut world, &scheduler, "more");
    assert!(ordered(&world, &agent).is_some());
}

#[test]
fn of_a_framework_that_is_no_more_nothing_is_kept() {
    let (mut world, scheduler, agent) = with_operation();
    assert_eq!(world.registry().operations.len(), 1);
    world.call(&scheduler, Call::Teardown);
    assert_eq!(world.registry().operations, []);
    apply(&mut world, &agent);
    let mut world = restart(&world);
    world.reregister(&agent, has_done(&agent, 1), Vec::new());
    assert_eq!(world.registry().operations, []);
}

#[test]
fn an_operation_without_an_id_leaves_nothing_behind() {
    let (mut world, scheduler, agent) = with_operation();
    let mine = reserved("cpus:2", "eng");
    let unnamed = |kind| Operation::Convert {
        id: None,
        kind,
        lots: mine.clone(),
    };
    operate(
        &mut world,
        &scheduler,
        vec![unnamed(OperationKind::Reserve)],
    );
    world.call(&scheduler, Call::Revive { roles: Vec::new() });
    operate(&mut world, &scheduler, vec![unnamed(OperationKind::Create)]);
    assert_eq!(ordered(&world, &agent).unwrap().0, 2);
    assert_eq!(answers(&world, &scheduler), []);
    assert_eq!(world.registry().operations.len(), 1);
}
