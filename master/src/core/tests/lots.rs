//! Lots: ports, sets, GPUs and other named resources, and what is reserved for roles.

use ebb_types::{
    ExecutorId, ExecutorInfo, ExplainSubject, Limits, Lots, Quota, Verdict, WrittenResources,
};

use super::*;
use crate::core::limits::LOTS_WAIT_MS;
use crate::core::{OperatorCommand, RequestId};

pub(super) fn lots(text: &str) -> Lots {
    text.parse::<WrittenResources>().unwrap().lots
}

/// An agent of 4 cores and 4 GiB, with lots beside.
pub(super) fn agent_with(text: &str) -> AgentInfo {
    AgentInfo {
        lots: lots(text),
        ..agent_info(4000, 4096)
    }
}

/// An agent of nothing but lots.
pub(super) fn agent_of(text: &str) -> AgentInfo {
    AgentInfo {
        total: Quantities::ZERO,
        ..agent_with(text)
    }
}

pub(super) fn able(name: &str, roles: &[&str], more: &[Capability]) -> FrameworkInfo {
    let mut info = framework_info(name, roles);
    info.capabilities.extend(more);
    info
}

pub(super) fn task_with(id: &str, agent: &Played, resources: Resources, text: &str) -> TaskInfo {
    TaskInfo {
        lots: lots(text),
        ..command_task(id, &agent.id, resources)
    }
}

pub(super) fn lots_offered(world: &World, scheduler: &Scheduler) -> String {
    let offers = world.offers(scheduler);
    let sum = offers.iter().fold(Lots::NONE, |sum, offer| {
        sum.checked_add(&offer.lots)
            .expect("nothing is offered twice")
    });
    sum.to_string()
}

fn set_quota(world: &mut World, name: &str, quota: Quota) {
    world.step(Input::Operator {
        request: RequestId(9),
        command: OperatorCommand::SetQuotas {
            quotas: vec![(role(name), quota)],
            lot_limits: Vec::new(),
            force: true,
        },
    });
    assert_eq!(world.answers.pop(), Some(Ok(())));
}

fn guarantee_to(world: &mut World, name: &str, guarantee: Quantities) {
    let quota = Quota {
        guarantee,
        ..Quota::default()
    };
    set_quota(world, name, quota);
}

fn limit_to(world: &mut World, name: &str, limits: Limits) {
    let quota = Quota {
        limits,
        ..Quota::default()
    };
    set_quota(world, name, quota);
}

pub(super) fn decline(world: &mut World, scheduler: &Scheduler, refuse_ms: u64) {
    let offer_ids = world.offers(scheduler).into_iter().map(|offer| offer.id);
    let call = Call::Decline {
        offer_ids: offer_ids.collect(),
        filters: Filters { refuse_ms },
    };
    world.call(scheduler, call);
}

#[test]
fn ports_sets_and_named_scalars_are_offered_used_and_free_again() {
    let mut world = World::new();
    let scheduler = world.subscribe(framework_info("f", &["r"]));
    let agent = world.register(agent_with("ports:[100-109];zones:{a,b};bugs:2.5"));
    let offer = world.offer(&scheduler);
    assert_eq!(offer.lots, lots("ports:[100-109];zones:{a,b};bugs:2.5"));
    let task = task_with(
        "t",
        &agent,
        res(1000, 64),
        "ports:[103-104];zones:{b};bugs:1",
    );
    world.accept(&scheduler, &offer, vec![task.clone()]);
    assert!(world.orders(&agent).iter().any(|order| matches!(order,
        MasterToAgent::Launch { task: sent, .. } if **sent == task)));
    let left = "bugs:1.500;ports:[100-102,105-109];zones:{a}";
    assert_eq!(lots_offered(&world, &scheduler), left);
    let state = world.core.cluster_state();
    assert_eq!(state.agents[0].allocated_lots, task.lots);
    assert_eq!(state.tasks[0].lots, task.lots);
    decline(&mut world, &scheduler, 0);
    world.offering = false;
    world.update(&agent, &scheduler, "t", TaskState::Finished, 1);
    decline(&mut world, &scheduler, 0);
    world.offering = true;
    let call = Call::Revive { roles: Vec::new() };
    world.call(&scheduler, call);
    let all = lots("ports:[100-109];zones:{a,b};bugs:2.5").to_string();
    assert_eq!(lots_offered(&world, &scheduler), all);
}

#[test]
fn a_port_is_never_given_to_two_tasks() {
    let mut world = World::new();
    let scheduler = world.subscribe(framework_info("f", &["r"]));
    let agent = world.register(agent_with("ports:[1-4]"));
    let offer = world.offer(&scheduler);
    let task = |id: &str, ports: &str| task_with(id, &agent, res(100, 32), ports);
    let tasks = vec![
        task("a", "ports:[1-2]"),
        task("b", "ports:[2-3]"),
        task("c", "ports:[5-5]"),
        task("d", "ports:[3-4]"),
        task("e", "ports:{x}"),
    ];
    world.accept(&scheduler, &offer, tasks);
    let wrong: Vec<_> = world.updates(&scheduler);
    let ids: Vec<_> = wrong.iter().map(|status| status.task_id.as_str()).collect();
    assert_eq!(ids, ["b", "c", "e"]);
    assert!(
        wrong.iter().all(|status| status.state == TaskState::Error
            && status.message.contains("left of the offer"))
    );
}

#[test]
fn agents_with_gpus_are_kept_for_those_who_can_use_them() {
    let mut world = World::new();
    let plain = world.subscribe(framework_info("plain", &["r"]));
    let agent = world.register(agent_with("gpus:2"));
    assert!(world.offers(&plain).is_empty());
    let verdict = |world: &World, whose: &Scheduler| {
        let subject = ExplainSubject::Framework(whose.id.clone());
        let explanation = world.core.explain(world.now, subject).unwrap();
        let claim = &explanation.claims[0];
        (explanation.verdict(claim), claim.free.with_gpus)
    };
    assert_eq!(verdict(&world, &plain), (Verdict::WithGpus, 1));
    assert_eq!(world.core.claims().refusals(), 0);
    let skilled = world.subscribe(able("skilled", &["r"], &[Capability::GpuResources]));
    let offer = world.offer(&skilled);
    assert_eq!(offer.lots, lots("gpus:2"));
    let task = task_with("t", &agent, res(100, 64), "gpus:1");
    world.accept(&skilled, &offer, vec![task]);
    assert!(world.updates(&skilled).is_empty());
    assert_eq!(lots_offered(&world, &skilled), "gpus:1");
    assert!(world.offers(&plain).is_empty());
    world.call(&plain, Call::Revive { roles: Vec::new() });
    assert!(world.offers(&plain).is_empty());
    decline(&mut world, &skilled, 10_000);
    assert!(world.offers(&plain).is_empty());
    let mut info = able("plain", &["r"], &[Capability::GpuResources]);
    info.id = Some(plain.id.clone());
    let call = Call::UpdateFramework {
        info,
        suppressed_roles: Vec::new(),
        terms: ebb_types::OfferTerms::new(),
    };
    world.call(&plain, call);
    assert_eq!(lots_offered(&world, &plain), "gpus:1");
    assert_eq!(verdict(&world, &plain).1, 0);
    // Whoever cannot use them any more gives them back.
    let mut info = framework_info("plain", &["r"]);
    info.id = Some(plain.id.clone());
    let call = Call::UpdateFramework {
        info,
        suppressed_roles: Vec::new(),
        terms: ebb_types::OfferTerms::new(),
    };
    world.call(&plain, call);
    assert!(world.offers(&plain).is_empty());
}

#[test]
fn an_agent_that_comes_back_without_its_gpus_is_for_everybody() {
    let mut world = World::new();
    let plain = world.subscribe(framework_info("plain", &["r"]));
    let agent = world.register(agent_with("gpus(eng):1"));
    assert!(world.offers(&plain).is_empty());
    let agent = world.reregister(&agent, agent_with(""), Vec::new());
    assert_eq!(world.offer(&plain).agent_id, agent.id);
    world.reregister(&agent, agent_with("gpus:1"), Vec::new());
    assert!(world.offers(&plain).is_empty());
}

#[test]
fn non_scalars_take_no_part_in_fairness() {
    let mut world = World::new();
    let a = world.subscribe(framework_info("a", &["a"]));
    let first = world.register(agent_with("ports:[1-1000]"));
    let offer = world.offer(&a);
    world.offering = false;
    let task = task_with("t", &first, res(100, 32), "ports:[1-1000]");
    world.accept(&a, &offer, vec![task]);
    let standing = world.core.claims().standing(&a.id, &role("a"));
    assert_eq!(
        standing
            .held(crate::core::drf::Class::Regular)
            .get(ResourceKind::Cpus),
        100
    );
}

#[test]
fn whoever_holds_all_of_a_named_amount_comes_after_those_who_hold_much_of_the_rest() {
    let mut world = World::new();
    let b = world.subscribe(framework_info("b", &["b"]));
    let first = world.register(agent_with(""));
    let offer = world.offer(&b);
    let task = command_task("b", &first.id, res(4000, 4096));
    world.accept(&b, &offer, vec![task]);
    let a = world.subscribe(framework_info("a", &["a"]));
    // Offered to the neediest, who holds nothing.
    let second = world.register(agent_with("licences:4"));
    let offer = world.offer(&a);
    world.offering = false;
    let task = task_with("a", &second, res(100, 32), "licences:4");
    world.accept(&a, &offer, vec![task]);
    world.offering = true;
    world.register(agent_with(""));
    assert!(world.offers(&a).is_empty());
    assert!(!world.offers(&b).is_empty());
    let places = |scheduler: &Scheduler| {
        let subject = ExplainSubject::Framework(scheduler.id.clone());
        let explanation = world.core.explain(world.now, subject).unwrap();
        explanation.claims[0].regular.places[0].own.share_milli
    };
    assert_eq!(places(&a), 1000);
}

#[test]
fn lots_survive_a_restart_of_the_master_with_their_agent() {
    let mut world = World::new();
    let scheduler = world.subscribe(framework_info("f", &["r"]));
    let agent = world.register(agent_with("ports:[1-4];cpus(r):2;gpus:0"));
    let offer = world.offer(&scheduler);
    let task = task_with("t", &agent, res(1000, 64), "ports:[2-3];cpus(r):1");
    world.accept(&scheduler, &offer, vec![task.clone()]);
    let mut world = World::restored(world.registry());
    let running = running(&scheduler.id, task, TaskState::Running);
    let agent = world.reregister(&agent, agent_with("ports:[1-4];cpus(r):2"), vec![running]);
    let mut info = framework_info("f", &["r"]);
    info.id = Some(scheduler.id.clone());
    let scheduler = world.subscribe(info);
    assert_eq!(
        lots_offered(&world, &scheduler),
        "cpus(r):1.000;ports:[1-1,4-4]"
    );
    world.update(&agent, &scheduler, "t", TaskState::Finished, 1);
    decline(&mut world, &scheduler, 0);
    assert_eq!(
        lots_offered(&world, &scheduler),
        "cpus(r):2.000;ports:[1-4]"
    );
}

#[test]
fn an_agent_that_comes_back_with_less_is_offered_from_when_it_fits_again() {
    let mut world = World::new();
    let scheduler = world.subscribe(framework_info("f", &["r"]));
    let agent = world.register(agent_with("ports:[1-4]"));
    let offer = world.offer(&scheduler);
    let task = task_with("t", &agent, res(1000, 64), "ports:[3-4]");
    world.accept(&scheduler, &offer, vec![task.clone()]);
    let running = running(&scheduler.id, task, TaskState::Running);
    let agent = world.reregister(&agent, agent_with("ports:[1-3]"), vec![running]);
    assert!(world.offers(&scheduler).is_empty());
    world.update(&agent, &scheduler, "t", TaskState::Finished, 1);
    assert_eq!(lots_offered(&world, &scheduler), "ports:[1-3]");
}

#[test]
fn what_an_agent_in_confusion_brings_twice_is_counted_once() {
    let mut world = World::new();
    let scheduler = world.subscribe(framework_info("f", &["r"]));
    let agent = world.register(agent_with("ports:[1-4]"));
    let both = ["a", "b"].map(|id| {
        let task = task_with(id, &agent, res(100, 64), "ports:[3-4]");
        running(&scheduler.id, task, TaskState::Running)
    });
    world.reregister(&agent, agent_with("ports:[1-4]"), both.to_vec());
    assert_eq!(world.core.counters().lots_uncounted, 1);
    assert_eq!(lots_offered(&world, &scheduler), "ports:[1-2]");
}

#[test]
fn the_lots_of_an_executor_are_held_as_long_as_it_runs() {
    let mut world = World::new();
    let scheduler = world.subscribe(framework_info("f", &["r"]));
    let agent = world.register(agent_with("ports:[1-4]"));
    let executor = ExecutorInfo {
        executor_id: ExecutorId::new("e").unwrap(),
        name: String::new(),
        command: CommandInfo {
            value: String::from("run"),
            ..CommandInfo::default()
        },
        resources: res(100, 32),
        lots: lots("ports:[1-1]"),
        data: Vec::new(),
    };
    let offer = world.offer(&scheduler);
    let mut task = task_with("t", &agent, res(100, 32), "ports:[2-2]");
    (task.command, task.executor) = (None, Some(executor));
    let mut other = task.clone();
    other.task_id = task_id("u");
    other.lots = lots("ports:[1-1]");
    world.accept(&scheduler, &offer, vec![task, other]);
    assert!(
        world
            .last_update(&scheduler)
            .message
            .contains("left of the offer")
    );
    world.update(&agent, &scheduler, "t", TaskState::Finished, 1);
    decline(&mut world, &scheduler, 0);
    assert_eq!(lots_offered(&world, &scheduler), "ports:[2-4]");
    let message = AgentToMaster::ExecutorExited {
        framework_id: scheduler.id.clone(),
        executor_id: ExecutorId::new("e").unwrap(),
        status: 0,
    };
    world.say(&agent, message);
    decline(&mut world, &scheduler, 0);
    assert_eq!(lots_offered(&world, &scheduler), "ports:[1-4]");
}

#[test]
fn what_is_reserved_is_offered_to_its_role_and_those_below_it_only() {
    let mut world = World::new();
    let other = world.subscribe(framework_info("other", &["ops"]));
    let agent = world.register(agent_with("cpus(eng):2;mem(eng):1GiB;ports(eng/ci):[1-9]"));
    assert_eq!(world.offer(&other).lots, Lots::NONE);
    let child = world.subscribe(framework_info("child", &["eng/ci"]));
    world.pass_ms(LOTS_WAIT_MS);
    let offer = world.offer(&child);
    assert!(offer.resources.is_zero());
    let text = "cpus(eng):2;mem(eng):1GiB;ports(eng/ci):[1-9]";
    assert_eq!(offer.lots, lots(text));
    let task = task_with("t", &agent, Resources::ZERO, "cpus(eng):1;mem(eng):512MiB");
    world.accept(&child, &offer, vec![task]);
    assert!(world.updates(&child).is_empty());
    world.pass_ms(LOTS_WAIT_MS);
    let left = lots("cpus(eng):1;mem(eng):512MiB;ports(eng/ci):[1-9]").to_string();
    assert_eq!(lots_offered(&world, &child), left);
}

#[test]
fn what_is_reserved_rides_along_with_a_plain_offer_to_its_role() {
    let mut world = World::new();
    let scheduler = world.subscribe(framework_info("f", &["eng"]));
    world.register(agent_with("cpus(eng):2"));
    let offer = world.offer(&scheduler);
    assert_eq!(
        (offer.resources, offer.lots),
        (res(4000, 4096), lots("cpus(eng):2"))
    );
}

#[test]
fn the_neediest_below_a_role_is_offered_what_is_reserved_for_it() {
    let mut world = World::new();
    let rich = world.subscribe(framework_info("rich", &["eng/a"]));
    let big = world.register(agent_info(4000, 4096));
    let offer = world.offer(&rich);
    let task = command_task("t", &big.id, res(4000, 4096));
    world.accept(&rich, &offer, vec![task]);
    let poor = world.subscribe(framework_info("poor", &["eng/b"]));
    let outside = world.subscribe(framework_info("outside", &["ops"]));
    world.register(agent_of("cpus(eng):2"));
    world.pass_ms(LOTS_WAIT_MS);
    assert_eq!(lots_offered(&world, &poor), "cpus(eng):2.000");
    decline(&mut world, &poor, 60_000);
    world.pass_ms(LOTS_WAIT_MS);
    assert_eq!(lots_offered(&world, &rich), "cpus(eng):2.000");
    decline(&mut world, &rich, 5_000);
    world.pass_ms(4_000);
    assert_eq!(lots_offered(&world, &rich), "nothing");
    world.pass_ms(1_000 + LOTS_WAIT_MS);
    assert_eq!(lots_offered(&world, &rich), "cpus(eng):2.000");
    assert!(world.offers(&outside).is_empty());
}

#[test]
fn a_refusal_of_what_is_reserved_ends_with_a_revive() {
    let mut world = World::new();
    let scheduler = world.subscribe(framework_info("f", &["eng"]));
    world.register(agent_of("cpus(eng):2"));
    world.pass_ms(LOTS_WAIT_MS);
    decline(&mut world, &scheduler, 3_600_000);
    world.pass_ms(60_000);
    assert!(world.offers(&scheduler).is_empty());
    world.call(&scheduler, Call::Suppress { roles: Vec::new() });
    world.call(&scheduler, Call::Revive { roles: Vec::new() });
    world.pass_ms(LOTS_WAIT_MS);
    assert_eq!(lots_offered(&world, &scheduler), "cpus(eng):2.000");
}

#[test]
fn reserved_amounts_that_are_held_count_in_shares() {
    let mut world = World::new();
    let a = world.subscribe(framework_info("a", &["a"]));
    world.register(agent_of("cpus(a):4;mem(a):1GiB"));
    world.pass_ms(LOTS_WAIT_MS);
    assert_eq!(world.offers(&a).len(), 1);
    let b = world.subscribe(framework_info("b", &["b"]));
    world.register(agent_info(2000, 1024));
    assert_eq!(
        world.offers(&b).len(),
        1,
        "who has a reservation is not the neediest"
    );
    decline(&mut world, &b, 60_000);
    assert_eq!(world.offers(&a).len(), 2);
}

#[test]
fn a_reservation_counts_towards_its_role_s_quota_whether_it_is_held_or_not() {
    let mut world = World::new();
    let guarantee = Quantities::cpus_mem(2000, 0);
    guarantee_to(&mut world, "a", guarantee);
    let b = world.subscribe(framework_info("b", &["b"]));
    world.register(AgentInfo {
        lots: lots("cpus(a):2"),
        ..agent_info(4000, 4096)
    });
    // What is guaranteed to the absent role is its reservation, so that nothing else is kept free for it.
    assert_eq!(world.offer(&b).resources, res(4000, 4096));
    let consumed = world.core.claims().held_below(&role("a"));
    assert_eq!(consumed.cpu_milli(), 2000);
}

#[test]
fn a_reservation_of_others_is_no_headroom() {
    let mut world = World::new();
    let guarantee = Quantities::cpus_mem(2000, 0);
    guarantee_to(&mut world, "a", guarantee);
    let b = world.subscribe(framework_info("b", &["b"]));
    world.register(agent_with("cpus(c):2;mem(c):1GiB"));
    assert_eq!(world.offer(&b).resources.regular.cpu_milli(), 2000);
}

#[test]
fn a_reservation_fills_the_limit_of_its_role() {
    let mut world = World::new();
    let limits = Limits::NONE.with(ResourceKind::Cpus, Some(3000));
    limit_to(&mut world, "a", limits);
    let a = world.subscribe(framework_info("a", &["a"]));
    world.register(agent_with("cpus(a):2;mem(a):1GiB"));
    let offer = world.offer(&a);
    assert_eq!(offer.resources.regular.cpu_milli(), 1000);
    assert_eq!(offer.lots, lots("cpus(a):2;mem(a):1GiB"));
}

#[test]
fn headroom_stands_when_reservations_exceed_a_quota() {
    let mut world = World::new();
    let guarantee = Quantities::cpus_mem(1000, 0);
    guarantee_to(&mut world, "a", guarantee);
    guarantee_to(&mut world, "c", guarantee);
    let b = world.subscribe(framework_info("b", &["b"]));
    world.register(agent_with("cpus(a):3"));
    // The excess of the one covers nothing of the other.
    assert_eq!(world.offer(&b).resources.regular.cpu_milli(), 3000);
}

#[test]
fn reservations_below_a_role_count_towards_its_quota() {
    let mut world = World::new();
    let guarantee = Quantities::cpus_mem(2000, 0);
    guarantee_to(&mut world, "a", guarantee);
    let b = world.subscribe(framework_info("b", &["b"]));
    let agent = world.register(agent_with("cpus(a/x):1;mem(a/x):1GiB"));
    assert_eq!(world.offer(&b).resources.regular.cpu_milli(), 3000);
    world.agent_gone(&agent);
    world.pass_ms(100_000);
    assert_eq!(world.core.claims().held_below(&role("a")), Quantities::ZERO);
}

#[test]
fn an_offer_names_no_more_ranges_than_it_may() {
    use crate::core::limits::MAX_RANGES_PER_OFFER;
    let mut world = World::new();
    let scheduler = world.subscribe(framework_info("f", &["r"]));
    let most = 2 * MAX_RANGES_PER_OFFER as u64;
    let text: Vec<String> = (0..most).map(|at| (2 * at).to_string()).collect();
    world.register(agent_with(&format!("ports:[{}]", text.join(","))));
    let offer = world.offer(&scheduler);
    let Some((_, ebb_types::LotValue::Ranges(ranges))) = offer.lots.iter().next() else {
        panic!("{offer:?}");
    };
    assert_eq!(ranges.len(), MAX_RANGES_PER_OFFER);
}

#[test]
fn gpus_of_a_task_with_an_executor_are_to_be_the_executor_s() {
    let mut world = World::new();
    let scheduler = world.subscribe(able("f", &["r"], &[Capability::GpuResources]));
    let agent = world.register(agent_with("gpus:2"));
    let offer = world.offer(&scheduler);
    let executor = |text: &str| ExecutorInfo {
        executor_id: ExecutorId::new("e").unwrap(),
        name: String::new(),
        command: CommandInfo {
            value: String::from("run"),
            ..CommandInfo::default()
        },
        resources: res(100, 32),
        lots: lots(text),
        data: Vec::new(),
    };
    let task = |id: &str, own: &str, of_executor: &str| TaskInfo {
        command: None,
        executor: Some(executor(of_executor)),
        ..task_with(id, &agent, res(100, 32), own)
    };
    let tasks = vec![task("a", "gpus:1", ""), task("b", "", "gpus:1")];
    world.accept(&scheduler, &offer, tasks);
    let wrong = world.updates(&scheduler);
    assert_eq!(wrong.len(), 1);
    assert!(
        wrong[0].message.contains("executor's resources"),
        "{wrong:?}"
    );
}
