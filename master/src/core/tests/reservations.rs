//! Dynamic reservations and volumes, made by frameworks and operators.

use ebb_types::{
    Disk, DiskSource, LotKey, LotValue, Lots, OperationId, OperationKind, OperationState,
    OperationStatus, Reservation, ReservationKind, Volume, VolumeMode,
};

use super::lots::{able, agent_of, agent_with, decline, lots, lots_offered, task_with};
use super::*;
use crate::core::limits::LOTS_WAIT_MS;
use crate::core::{OperatorCommand, RequestId};

fn reservation(name: &str) -> Reservation {
    Reservation {
        role: role(name),
        kind: ReservationKind::Dynamic,
        principal: String::from("p"),
        labels: Vec::new(),
    }
}

/// Some lots with one more dynamic reservation; plain amounts are written as `cpus:1`.
pub(super) fn reserved(text: &str, name: &str) -> Lots {
    let written: ebb_types::WrittenResources = text.parse().unwrap();
    let plain = written
        .plain
        .iter()
        .map(|(kind, amount)| (LotKey::named(kind.name()), LotValue::Scalar(amount)));
    let all = plain.chain(
        written
            .lots
            .iter()
            .map(|(key, value)| (key.clone(), value.clone())),
    );
    let all = all.map(|(mut key, value)| {
        key.reservations.push(reservation(name));
        (key, value)
    });
    Lots::new(all).unwrap()
}

pub(super) fn volume_of(space: &Lots, id: &str, shared: bool) -> Lots {
    let volumes = space.iter().map(|(key, value)| {
        let mut key = key.clone();
        key.shared = shared;
        key.disk = Some(Box::new(Disk {
            source: key.source().cloned(),
            volume: Some(Volume {
                id: id.to_owned(),
                principal: String::from("p"),
                container_path: String::from("data"),
                mode: VolumeMode::ReadWrite,
            }),
        }));
        (key, value.clone())
    });
    Lots::new(volumes).unwrap()
}

pub(super) fn convert(id: &str, kind: OperationKind, lots: &Lots) -> Operation {
    Operation::Convert {
        id: Some(OperationId::new(id).unwrap()),
        kind,
        lots: lots.clone(),
    }
}

pub(super) fn operate(world: &mut World, scheduler: &Scheduler, operations: Vec<Operation>) {
    let offer_ids = world.offers(scheduler).into_iter().map(|offer| offer.id);
    let call = Call::Accept {
        offer_ids: offer_ids.collect(),
        operations,
        filters: NO_FILTER,
    };
    world.call(scheduler, call);
}

/// [`operate`] with one operation: its id, what it is, and of what.
pub(super) fn convert_one(
    world: &mut World,
    scheduler: &Scheduler,
    (id, kind): (&str, OperationKind),
    lots: &Lots,
) {
    operate(world, scheduler, vec![convert(id, kind, lots)]);
}

fn command(
    world: &mut World,
    agent: &Played,
    kind: OperationKind,
    lots: &Lots,
) -> Result<(), OperatorError> {
    world.step(Input::Operator {
        request: RequestId(3),
        command: OperatorCommand::ConvertLots {
            agent_id: agent.id.clone(),
            kind,
            lots: lots.clone(),
        },
    });
    world.answers.pop().expect("no answer")
}

pub(super) fn answers(world: &World, scheduler: &Scheduler) -> Vec<OperationStatus> {
    let events = world
        .events
        .get(&scheduler.connection)
        .into_iter()
        .flatten();
    let answers = events.filter_map(|event| match event {
        Event::Operation(status) => Some(status.clone()),
        _ => None,
    });
    answers.collect()
}

/// The last order about lots.
pub(super) fn ordered(world: &World, agent: &Played) -> Option<(u64, Lots)> {
    let orders = world.orders(agent).iter().rev();
    let mut lots = orders.filter_map(|order| match order {
        MasterToAgent::Lots { version, dynamic } => Some((*version, dynamic.clone())),
        _ => None,
    });
    lots.next()
}

/// The agent carries out what it was ordered last.
pub(super) fn apply(world: &mut World, agent: &Played) {
    let (version, _) = ordered(world, agent).expect("no order");
    world.say(agent, AgentToMaster::LotsApplied { version });
}

#[test]
fn a_framework_reserves_what_it_was_offered_and_uses_it_in_the_same_call() {
    let mut world = World::new();
    let other = world.subscribe(framework_info("other", &["ops"]));
    world.call(&other, Call::Suppress { roles: Vec::new() });
    let scheduler = world.subscribe(framework_info("f", &["eng"]));
    let agent = world.register(agent_info(4000, 4096));
    let mine = reserved("cpus:2;mem:1GiB", "eng");
    let mut task = command_task("t", &agent.id, Resources::ZERO);
    task.lots = reserved("cpus:1;mem:512MiB", "eng");
    let mut operations = vec![convert("o", OperationKind::Reserve, &mine)];
    operations.extend(launch(vec![task.clone()]));
    operate(&mut world, &scheduler, operations);
    assert!(
        world.updates(&scheduler).is_empty(),
        "{:?}",
        world.updates(&scheduler)
    );
    assert_eq!(ordered(&world, &agent), Some((1, mine)));
    let place = |is_meant: fn(&MasterToAgent) -> bool| {
        world
            .orders(&agent)
            .iter()
            .position(is_meant)
            .expect("no such order")
    };
    let lots_at = place(|order| matches!(order, MasterToAgent::Lots { .. }));
    assert!(lots_at < place(|order| matches!(order, MasterToAgent::Launch { .. })));
    assert!(answers(&world, &scheduler).is_empty());
    apply(&mut world, &agent);
    let answer = &answers(&world, &scheduler)[0];
    assert_eq!(
        (answer.id.as_str(), answer.state),
        ("o", OperationState::Finished)
    );
    decline(&mut world, &scheduler, 60_000);
    world.call(&other, Call::Revive { roles: Vec::new() });
    assert_eq!(world.offer(&other).resources, res(2000, 3072));
    assert_eq!(world.offer(&other).lots, Lots::NONE);
    let state = world.core.cluster_state();
    assert_eq!(
        state.agents[0].info.total,
        Quantities::cpus_mem(2000, 3072 * MIB)
    );
    assert_eq!(state.agents[0].allocated_lots, task.lots);
}

#[test]
fn what_is_unreserved_is_everybody_s_again() {
    let mut world = World::new();
    let scheduler = world.subscribe(framework_info("f", &["eng"]));
    let agent = world.register(agent_info(4000, 4096));
    let mine = reserved("cpus:4;mem:4GiB", "eng");
    convert_one(&mut world, &scheduler, ("a", OperationKind::Reserve), &mine);
    let other = world.subscribe(framework_info("other", &["ops"]));
    world.pass_ms(LOTS_WAIT_MS);
    assert!(world.offer(&scheduler).resources.is_zero());
    assert!(world.offers(&other).is_empty());
    let part = reserved("cpus:3;mem:1GiB", "eng");
    convert_one(
        &mut world,
        &scheduler,
        ("b", OperationKind::Unreserve),
        &part,
    );
    apply(&mut world, &agent);
    assert_eq!(answers(&world, &scheduler).len(), 2);
    assert_eq!(world.offer(&other).resources, res(3000, 1024));
    world.pass_ms(LOTS_WAIT_MS);
    let left = reserved("cpus:1;mem:3GiB", "eng").to_string();
    assert_eq!(lots_offered(&world, &scheduler), left);
}

#[test]
fn reservations_are_refined_down_the_tree_of_roles() {
    let mut world = World::new();
    let scheduler = world.subscribe(framework_info("f", &["eng/ci"]));
    let agent = world.register(agent_of("cpus(eng):2"));
    world.pass_ms(LOTS_WAIT_MS);
    let refined = reserved("cpus(eng):1", "eng/ci");
    convert_one(
        &mut world,
        &scheduler,
        ("a", OperationKind::Reserve),
        &refined,
    );
    assert_eq!(ordered(&world, &agent), Some((1, refined.clone())));
    let sibling = world.subscribe(framework_info("sibling", &["eng/cd"]));
    world.pass_ms(LOTS_WAIT_MS);
    let all = refined.checked_add(&lots("cpus(eng):1")).unwrap();
    assert_eq!(lots_offered(&world, &scheduler), all.to_string());
    decline(&mut world, &scheduler, 60_000);
    world.pass_ms(LOTS_WAIT_MS);
    assert_eq!(lots_offered(&world, &sibling), "cpus(eng):1.000");
    world.call(&scheduler, Call::Revive { roles: Vec::new() });
    world.pass_ms(LOTS_WAIT_MS);
    assert_eq!(lots_offered(&world, &scheduler), refined.to_string());
    convert_one(
        &mut world,
        &scheduler,
        ("b", OperationKind::Unreserve),
        &refined,
    );
    assert_eq!(ordered(&world, &agent), Some((2, Lots::NONE)));
}

#[test]
fn operations_that_break_a_rule_are_answered_with_it_and_change_nothing() {
    let mut world = World::new();
    let scheduler = world.subscribe(framework_info("f", &["eng"]));
    let agent = world.register(agent_with("cpus(eng):1;disk(eng):1GiB"));
    let foreign = {
        let mut lots = Vec::new();
        for (key, value) in reserved("cpus:1", "eng").iter() {
            let mut key = key.clone();
            key.reservations[0].principal = String::from("q");
            lots.push((key, value.clone()));
        }
        Lots::new(lots).unwrap()
    };
    let disk = lots("disk(eng):1GiB");
    let cases = [
        (OperationKind::Reserve, Lots::NONE, "names nothing"),
        (
            OperationKind::Reserve,
            reserved("cpus:1", "ops"),
            "the offer is for eng",
        ),
        (OperationKind::Reserve, foreign, "principal"),
        (
            OperationKind::Reserve,
            reserved("cpus:5", "eng"),
            "left of the offer",
        ),
        (
            OperationKind::Unreserve,
            lots("cpus(eng):1"),
            "no dynamic reservation",
        ),
        (
            OperationKind::Unreserve,
            reserved("cpus:1", "eng"),
            "left of the offer",
        ),
        (OperationKind::Create, disk.clone(), "is no volume"),
        (
            OperationKind::Create,
            volume_of(&lots("disk(eng):2GiB"), "v", false),
            "left of the offer",
        ),
        (
            OperationKind::Destroy,
            volume_of(&disk, "v", false),
            "left of the offer",
        ),
    ];
    let operations = cases
        .iter()
        .enumerate()
        .map(|(number, (kind, lots, _))| convert(&format!("x{number}"), *kind, lots));
    operate(&mut world, &scheduler, operations.collect());
    let answers = answers(&world, &scheduler);
    assert_eq!(answers.len(), cases.len());
    for (answer, (_, _, word)) in answers.iter().zip(&cases) {
        assert_eq!(answer.state, OperationState::Error);
        assert!(
            answer.message.contains(word),
            "{} says nothing of {word}",
            answer.message
        );
    }
    assert_eq!(ordered(&world, &agent), None);
    assert_eq!(world.core.counters().operations_failed, cases.len() as u64);
    assert_eq!(world.offer(&scheduler).resources, res(4000, 4096));
}

#[test]
fn an_operation_on_offers_that_are_gone_is_dropped() {
    let mut world = World::new();
    let scheduler = world.subscribe(framework_info("f", &["eng"]));
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
    assert_eq!(
        answers(&world, &scheduler)[0].state,
        OperationState::Dropped
    );
}

#[test]
fn the_word_of_an_agent_that_comes_back_is_what_it_has() {
    let mut world = World::new();
    let scheduler = world.subscribe(framework_info("f", &["eng"]));
    let agent = world.register(agent_info(4000, 4096));
    let mine = reserved("cpus:4;mem:4GiB", "eng");
    convert_one(&mut world, &scheduler, ("a", OperationKind::Reserve), &mine);
    // The order is lost with the connection.
    world.agent_gone(&agent);
    let agent = world.reregister(&agent, agent_info(4000, 4096), Vec::new());
    assert_eq!(
        answers(&world, &scheduler)[0].state,
        OperationState::Dropped
    );
    assert_eq!(world.offer(&scheduler).resources, res(4000, 4096));
    // This one is not, though its confirmation is; its version is another, so that no delayed order is taken for it.
    convert_one(&mut world, &scheduler, ("b", OperationKind::Reserve), &mine);
    let (version, _) = ordered(&world, &agent).expect("no order");
    assert_eq!(version, 2);
    world.agent_gone(&agent);
    let mut info = agent_of("ports:[1-1]");
    (info.lots, info.lots_version) = (mine.clone(), version);
    world.reregister(&agent, info, Vec::new());
    assert_eq!(
        answers(&world, &scheduler)[1].state,
        OperationState::Finished
    );
    world.pass_ms(LOTS_WAIT_MS);
    assert_eq!(lots_offered(&world, &scheduler), mine.to_string());
}

#[test]
fn a_volume_outlives_its_task_and_is_used_by_one_at_a_time() {
    let mut world = World::new();
    let scheduler = world.subscribe(framework_info("f", &["eng"]));
    let agent = world.register(agent_with("disk(eng):2GiB"));
    let space = lots("disk(eng):1GiB");
    let volume = volume_of(&space, "v", false);
    let mut task = command_task("t", &agent.id, res(100, 64));
    task.lots = volume.clone();
    let mut operations = vec![convert("a", OperationKind::Create, &volume)];
    operations.extend(launch(vec![task.clone()]));
    operate(&mut world, &scheduler, operations);
    assert!(
        world.updates(&scheduler).is_empty(),
        "{:?}",
        world.updates(&scheduler)
    );
    assert_eq!(lots_offered(&world, &scheduler), space.to_string());
    world.offering = false;
    world.update(&agent, &scheduler, "t", TaskState::Finished, 1);
    decline(&mut world, &scheduler, 0);
    world.offering = true;
    world.call(&scheduler, Call::Revive { roles: Vec::new() });
    let all = space.checked_add(&volume).unwrap();
    assert_eq!(lots_offered(&world, &scheduler), all.to_string());
    let again = convert("b", OperationKind::Create, &volume_of(&space, "v", false));
    operate(&mut world, &scheduler, vec![again]);
    assert!(
        answers(&world, &scheduler)
            .last()
            .unwrap()
            .message
            .contains("choose another id")
    );
    convert_one(
        &mut world,
        &scheduler,
        ("c", OperationKind::Destroy),
        &volume,
    );
    assert_eq!(ordered(&world, &agent).unwrap().1, Lots::NONE);
    assert_eq!(
        lots_offered(&world, &scheduler),
        lots("disk(eng):2GiB").to_string()
    );
}

#[test]
fn two_volumes_of_one_role_have_two_ids() {
    let mut world = World::new();
    let scheduler = world.subscribe(framework_info("f", &["eng"]));
    world.register(agent_with("disk(eng):1GiB;disk(eng)[path:/d]:1GiB"));
    let spaces = [("x", "disk(eng):1GiB"), ("y", "disk(eng)[path:/d]:1GiB")];
    let operations = spaces.map(|(id, space)| {
        convert(
            id,
            OperationKind::Create,
            &volume_of(&lots(space), "v", false),
        )
    });
    operate(&mut world, &scheduler, operations.to_vec());
    let answers = answers(&world, &scheduler);
    assert_eq!(answers.len(), 1);
    assert!(
        answers[0].message.contains("choose another id"),
        "{answers:?}"
    );
}

#[test]
fn a_disk_that_is_a_device_is_reserved_as_a_whole_and_is_no_volume() {
    let mut world = World::new();
    let scheduler = world.subscribe(framework_info("f", &["eng"]));
    let agent = world.register(agent_with("disk[block:fast]:2GiB;disk[raw:slow:hdd]:2GiB"));
    let reserve = OperationKind::Reserve;
    let part = reserved("disk[block:fast]:1GiB", "eng");
    convert_one(&mut world, &scheduler, ("w", reserve), &part);
    let whole = reserved("disk[block:fast]:2GiB", "eng");
    convert_one(&mut world, &scheduler, ("x", reserve), &whole);
    let volume = volume_of(&whole, "v", false);
    let create = OperationKind::Create;
    convert_one(&mut world, &scheduler, ("y", create), &volume);
    let said: Vec<_> = answers(&world, &scheduler)
        .into_iter()
        .map(|answer| (answer.state, answer.message))
        .collect();
    assert_eq!(said.len(), 2, "{said:#?}");
    for ((state, message), word) in said.iter().zip(["as a whole", "is a device"]) {
        assert_eq!(*state, OperationState::Error);
        assert!(message.contains(word), "{message}");
    }
    assert_eq!(ordered(&world, &agent).map(|(_, made)| made), Some(whole));
}

#[test]
fn a_disk_of_its_own_is_taken_as_a_whole() {
    let mut world = World::new();
    let scheduler = world.subscribe(framework_info("f", &["eng"]));
    let agent = world.register(agent_with("disk(eng)[mount:/m]:2GiB;disk[mount:/n]:2GiB"));
    let part = volume_of(&lots("disk(eng)[mount:/m]:1GiB"), "v", false);
    convert_one(&mut world, &scheduler, ("x", OperationKind::Create), &part);
    assert!(
        answers(&world, &scheduler)[0]
            .message
            .contains("as a whole")
    );
    let offer = world.offer(&scheduler);
    let tasks = vec![
        task_with("a", &agent, res(100, 32), "disk[mount:/n]:1GiB"),
        task_with("b", &agent, res(100, 32), "disk[mount:/n]:2GiB"),
    ];
    world.accept(&scheduler, &offer, tasks);
    assert_eq!(world.updates(&scheduler).len(), 1);
    assert!(
        world
            .last_update(&scheduler)
            .message
            .contains("use all of it")
    );
    let whole = volume_of(&lots("disk(eng)[mount:/m]:2GiB"), "v", false);
    convert_one(&mut world, &scheduler, ("y", OperationKind::Create), &whole);
    let DiskSource::Mount { root } = ordered(&world, &agent)
        .unwrap()
        .1
        .iter()
        .next()
        .unwrap()
        .0
        .source()
        .unwrap()
        .clone()
    else {
        panic!("another disk");
    };
    assert_eq!(root, "/m");
}

#[test]
fn a_shared_volume_is_offered_to_and_used_by_several_at_once() {
    let mut world = World::new();
    let skills = [Capability::SharedResources];
    let a = world.subscribe(able("a", &["eng"], &skills));
    let agent = world.register(agent_with("disk(eng):1GiB"));
    let volume = volume_of(&lots("disk(eng):1GiB"), "v", true);
    let task = |id: &str| TaskInfo {
        lots: volume.clone(),
        ..command_task(id, &agent.id, res(500, 256))
    };
    let mut operations = vec![convert("x", OperationKind::Create, &volume)];
    operations.extend(launch(vec![task("t"), task("u")]));
    operate(&mut world, &a, operations);
    assert!(world.updates(&a).is_empty(), "{:?}", world.updates(&a));
    assert_eq!(lots_offered(&world, &a), volume.to_string());
    decline(&mut world, &a, 60_000);
    let unable = world.subscribe(framework_info("unable", &["eng"]));
    assert_eq!(world.offer(&unable).lots, Lots::NONE);
    decline(&mut world, &unable, 60_000);
    let b = world.subscribe(able("b", &["eng"], &skills));
    let offer = world.offer(&b);
    assert_eq!(offer.lots, volume);
    world.accept(&b, &offer, vec![task("w")]);
    assert!(world.updates(&b).is_empty());
    let state = world.core.cluster_state();
    let counted = state.agents[0].allocated_lots.quantities();
    assert_eq!(counted.get(ResourceKind::Disk), 3 << 30);
    let destroy = |id| convert(id, OperationKind::Destroy, &volume);
    operate(&mut world, &b, vec![destroy("y")]);
    assert!(
        answers(&world, &b)
            .last()
            .unwrap()
            .message
            .contains("in use")
    );
    for (scheduler, task, count) in [(&a, "t", 1), (&a, "u", 2), (&b, "w", 3)] {
        world.update(&agent, scheduler, task, TaskState::Finished, count);
    }
    operate(&mut world, &b, vec![destroy("z")]);
    assert_eq!(ordered(&world, &agent).unwrap().1, Lots::NONE);
}

#[test]
fn a_shared_volume_counts_once_towards_the_quota_of_its_role() {
    let mut world = World::new();
    let scheduler = world.subscribe(able("a", &["eng"], &[Capability::SharedResources]));
    let agent = world.register(agent_with("disk(eng):1GiB"));
    let volume = volume_of(&lots("disk(eng):1GiB"), "v", true);
    let task = |id: &str| TaskInfo {
        lots: volume.clone(),
        ..command_task(id, &agent.id, res(500, 256))
    };
    let mut operations = vec![convert("x", OperationKind::Create, &volume)];
    operations.extend(launch(vec![task("t"), task("u")]));
    operate(&mut world, &scheduler, operations);
    let consumed = world.core.claims().held_below(&role("eng"));
    assert_eq!(consumed.get(ResourceKind::Disk), 1 << 30);
}

#[test]
fn an_operator_reserves_what_is_free_or_offered_but_not_what_is_used() {
    let mut world = World::new();
    let scheduler = world.subscribe(framework_info("f", &["ops"]));
    let agent = world.register(agent_info(4000, 4096));
    let offer = world.offer(&scheduler);
    let task = command_task("t", &agent.id, res(1000, 1024));
    world.accept(&scheduler, &offer, vec![task]);
    let most = reserved("cpus:4", "eng");
    let refused = command(&mut world, &agent, OperationKind::Reserve, &most);
    assert!(
        refused
            .unwrap_err()
            .to_string()
            .contains("free or in offers")
    );
    let some = reserved("cpus:2;mem:1GiB", "eng");
    assert_eq!(
        command(&mut world, &agent, OperationKind::Reserve, &some),
        Ok(())
    );
    assert_eq!(world.offer(&scheduler).resources, res(1000, 2048));
    assert_eq!(ordered(&world, &agent), Some((1, some.clone())));
    assert_eq!(
        command(&mut world, &agent, OperationKind::Unreserve, &some),
        Ok(())
    );
    // The offer that was not needed has stayed beside it.
    let offers = world.offers(&scheduler).into_iter();
    let mut parts: Vec<Resources> = offers.map(|offer| offer.resources).collect();
    parts.sort_by_key(|part| part.regular.cpu_milli());
    assert_eq!(parts, [res(1000, 2048), res(2000, 1024)]);
    let nobody = Played {
        id: AgentId::new("no").unwrap(),
        ..agent
    };
    let refused = command(&mut world, &nobody, OperationKind::Unreserve, &some);
    assert!(matches!(refused, Err(OperatorError::NoAgent(_))));
}

#[test]
fn what_was_planned_before_an_operator_reserved_is_void() {
    let mut world = World::new();
    let scheduler = world.subscribe(framework_info("f", &["ops"]));
    world.offering = false;
    let agent = world.register(agent_info(4000, 4096));
    let proposals = world.propose();
    assert_eq!(proposals.len(), 1);
    world.in_flight.clone_from(&proposals);
    let some = reserved("cpus:4", "eng");
    world.in_flight.clear();
    assert_eq!(
        command(&mut world, &agent, OperationKind::Reserve, &some),
        Ok(())
    );
    world.step(Input::Proposals {
        batch: None,
        proposals,
    });
    assert!(world.offers(&scheduler).is_empty());
    assert_eq!(world.core.counters().proposals_refused, 1);
}

#[test]
fn labels_tell_reservations_apart() {
    let mut world = World::new();
    let scheduler = world.subscribe(framework_info("f", &["eng"]));
    world.register(agent_info(4000, 4096));
    let labelled = |label: &str| {
        let mut lots = Vec::new();
        for (key, value) in reserved("cpus:1", "eng").iter() {
            let mut key = key.clone();
            key.reservations[0].labels = vec![(String::from("for"), label.to_owned())];
            lots.push((key, value.clone()));
        }
        Lots::new(lots).unwrap()
    };
    let operations =
        ["a", "b"].map(|label| convert(label, OperationKind::Reserve, &labelled(label)));
    operate(&mut world, &scheduler, operations.to_vec());
    let offer = world.offer(&scheduler);
    assert_eq!(offer.lots.count(), 2);
    assert!(
        offer.lots.contains(&labelled("a")) && !offer.lots.contains(&reserved("cpus:1", "eng"))
    );
}

#[test]
fn an_operator_s_operation_withdraws_only_the_offers_that_it_needs() {
    let mut world = World::new();
    let f = world.subscribe(framework_info("f", &["r"]));
    let agent = world.register(agent_with("ports:[1-10]"));
    // Three offers of one agent: what tasks leave, bit by bit.
    let offer = world.offer(&f);
    let tasks = ["a", "b"].map(|id| task_with(id, &agent, res(1000, 1024), "ports:[1-2]"));
    let [mut a, mut b] = tasks;
    (a.lots, b.lots) = (lots("ports:[1-2]"), lots("ports:[3-4]"));
    world.accept(&f, &offer, vec![a, b]);
    world.update(&agent, &f, "a", TaskState::Finished, 1);
    world.update(&agent, &f, "b", TaskState::Finished, 2);
    let mut out = world.offers(&f);
    out.sort_by_key(|offer| offer.lots.to_string());
    let parts: Vec<String> = out.iter().map(|offer| offer.lots.to_string()).collect();
    assert_eq!(parts, ["ports:[1-2]", "ports:[3-4]", "ports:[5-10]"]);
    let wanted = reserved("ports:[3-3]", "eng");
    assert_eq!(
        command(&mut world, &agent, OperationKind::Reserve, &wanted),
        Ok(())
    );
    let left: Vec<OfferId> = world.offers(&f).into_iter().map(|offer| offer.id).collect();
    assert!(
        left.contains(&out[0].id) && left.contains(&out[2].id),
        "{left:?}"
    );
    assert!(!left.contains(&out[1].id));
    // What was withdrawn is offered again, without what is reserved.
    let now: Vec<String> = (world.offers(&f).iter())
        .map(|offer| offer.lots.to_string())
        .collect();
    assert!(now.contains(&String::from("ports:[4-4]")), "{now:?}");
    // An offer that stayed can be accepted as ever.
    let task = task_with("c", &agent, out[0].resources, "ports:[1-2]");
    world.accept(&f, &out[0], vec![task]);
    assert!(
        world
            .updates(&f)
            .iter()
            .all(|status| status.state != TaskState::Error)
    );
    world.check_ledger();
}
