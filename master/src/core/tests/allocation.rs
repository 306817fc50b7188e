//! Who is offered what, over the life of agents, frameworks and tasks: the behaviours of Mesos' hierarchical allocator
//! that need offers, filters, tasks or operators.

use ebb_types::limits::MIN_DECLINE_MS;
use ebb_types::{ResourceKind, RoleState};

use super::activity::operate;
use super::*;
use crate::core::OperatorCommand;
use crate::core::drf::Class;
use crate::core::limits::EVICTION_COOL_DOWN_MS;

fn decline_all(world: &mut World, scheduler: &Scheduler, refuse_ms: u64) {
    let offers = world.offers(scheduler).into_iter();
    let offer_ids = offers.map(|offer| offer.id).collect();
    let filters = Filters { refuse_ms };
    world.call(scheduler, Call::Decline { offer_ids, filters });
}

/// Uses the whole of every offer that a scheduler has, with a task each that is named after its offer.
fn use_all(world: &mut World, scheduler: &Scheduler) {
    for offer in world.offers(scheduler) {
        let task = command_task(offer.id.as_str(), &offer.agent_id, offer.resources);
        world.accept(scheduler, &offer, vec![task]);
    }
}

/// The resources of the offers that a scheduler has.
fn offered(world: &World, scheduler: &Scheduler) -> Vec<Resources> {
    let offers = world.offers(scheduler).into_iter();
    offers.map(|offer| offer.resources).collect()
}

fn borrower(roles: &[&str]) -> FrameworkInfo {
    let mut info = framework_info("f", roles);
    info.capabilities.push(Capability::RevocableResources);
    info
}

fn lend(world: &mut World, agent: &Played, cpu_milli: u64) {
    let lent = AgentToMaster::Oversubscribed(Quantities::cpus_mem(cpu_milli, 0));
    world.say(agent, lent);
}

#[test]
fn each_new_agent_is_offered_to_the_role_with_the_smallest_dominant_share() {
    let mut world = World::new();
    let a = world.subscribe(framework_info("f", &["a"]));
    let comes = |world: &mut World, cpu_milli, mem_mib, to: &Scheduler| {
        world.register(agent_info(cpu_milli, mem_mib));
        assert_eq!(offered(world, to), [res(cpu_milli, mem_mib)]);
        use_all(world, to);
    };
    comes(&mut world, 2000, 1024, &a);
    let b = world.subscribe(framework_info("g", &["b"]));
    // a has all: 2 of 2 cores.
    comes(&mut world, 1000, 512, &b);
    // a has 2 of 3 cores, b 1 of 3; each the same part of the memory.
    comes(&mut world, 3000, 2048, &b);
    // a has 2 of 6 cores, b 4 of 6.
    comes(&mut world, 4000, 4096, &a);
    // a has 6 of 10 cores and 5 of 7.5 GiB, b 4 cores and 2.5 GiB.
    comes(&mut world, 1000, 4096, &b);
    // a has 6 of 11 cores; b only 5 of them, but 6.5 of 11.5 GiB.
    comes(&mut world, 1000, 1024, &a);
    let c = world.subscribe(framework_info("h", &["c"]));
    comes(&mut world, 1000, 512, &c);
    let state = world.core.cluster_state();
    let allocated: Vec<Resources> = state.roles.iter().map(|role| role.allocated).collect();
    assert_eq!(
        allocated,
        [res(7000, 6144), res(5000, 6656), res(1000, 512)]
    );
}

#[test]
fn a_filter_of_a_millisecond_lasts_as_long_as_the_shortest() {
    let mut world = World::new();
    let scheduler = world.subscribe(framework_info("f", &["r"]));
    world.register(agent_info(1000, 1024));
    decline_all(&mut world, &scheduler, 1);
    world.pass_ms(MIN_DECLINE_MS - 1);
    assert_eq!(offered(&world, &scheduler), []);
    world.pass_ms(1);
    assert_eq!(offered(&world, &scheduler), [res(1000, 1024)]);
}

#[test]
fn what_an_ended_task_held_is_offered_at_once_and_to_the_neediest() {
    let mut world = World::new();
    let first = world.subscribe(framework_info("f", &["a"]));
    let agent = world.register(agent_info(3000, 3072));
    let offer = world.offer(&first);
    let tasks = ["t", "u"].map(|id| command_task(id, &agent.id, res(1500, 1536)));
    world.accept(&first, &offer, tasks.to_vec());
    let second = world.subscribe(framework_info("g", &["b"]));
    assert_eq!(offered(&world, &second), []);
    world.update(&agent, &first, "t", TaskState::Finished, 1);
    assert_eq!(offered(&world, &second), [res(1500, 1536)]);
    assert_eq!(offered(&world, &first), []);
}

#[test]
fn an_accepted_offer_counts_for_its_framework_as_far_as_it_is_used() {
    let mut world = World::new();
    let scheduler = world.subscribe(framework_info("f", &["r"]));
    let agent = world.register(agent_info(4000, 4096));
    let offer = world.offer(&scheduler);
    world.offering = false;
    let held = |world: &World| {
        let role = &world.core.cluster_state().roles[0];
        let counted = world.core.claims().role_standing(&role.role);
        (
            role.offered,
            role.allocated,
            counted.held(Class::Regular).get(ResourceKind::Cpus),
        )
    };
    assert_eq!(held(&world), (res(4000, 4096), Resources::ZERO, 4000));
    let task = command_task("t", &agent.id, res(1000, 1024));
    world.accept(&scheduler, &offer, vec![task]);
    assert_eq!(held(&world), (Resources::ZERO, res(1000, 1024), 1000));
}

#[test]
fn an_agent_that_comes_back_larger_is_offered_as_it_is_now_even_to_whom_had_refused_it() {
    let (mut world, scheduler, agent) = World::with_running_task();
    world.offering = true;
    world.call(&scheduler, Call::Revive { roles: Vec::new() });
    decline_all(&mut world, &scheduler, 600_000);
    let task = world.running_task(&scheduler, &agent);
    let back = world.reregister(&agent, agent_info(4000, 4096), vec![task.clone()]);
    decline_all(&mut world, &scheduler, 600_000);
    assert_eq!(offered(&world, &scheduler), []);
    world.reregister(&back, agent_info(8000, 4096), vec![task]);
    assert_eq!(offered(&world, &scheduler), [res(7000, 3072)]);
}

#[test]
fn what_was_held_on_an_agent_that_is_lost_counts_no_more() {
    let mut world = World::new();
    let (a, b) = (
        world.subscribe(framework_info("f", &["a"])),
        world.subscribe(framework_info("g", &["b"])),
    );
    let large = world.register(agent_info(8000, 8192));
    use_all(&mut world, &a);
    let small = world.register(agent_info(1000, 1024));
    use_all(&mut world, &b);
    assert_eq!(world.allocated(&large), res(8000, 8192));
    // The large one is silent.
    for _ in 0..4 {
        world.say(&small, AgentToMaster::Heartbeat);
        world.pass_ms(20_000);
    }
    assert!(world.ledger.get(&large.id).is_none(), "the premise");
    world.register(agent_info(500, 512));
    assert_eq!(offered(&world, &a), [res(500, 512)]);
    assert_eq!(offered(&world, &b), []);
}

#[test]
fn one_that_declines_everything_with_a_filter_starves_nobody() {
    let mut world = World::new();
    let idle = world.subscribe(framework_info("f", &["a"]));
    let busy = world.subscribe(framework_info("g", &["b"]));
    world.register(agent_info(1000, 1024));
    decline_all(&mut world, &idle, 1);
    use_all(&mut world, &busy);
    for _ in 0..20 {
        world.register(agent_info(1000, 1024));
        assert_eq!(
            offered(&world, &idle),
            [res(1000, 1024)],
            "it holds nothing"
        );
        decline_all(&mut world, &idle, 1);
        assert_eq!(offered(&world, &busy), [res(1000, 1024)]);
        use_all(&mut world, &busy);
        world.pass_ms(10);
    }
}

#[test]
fn what_an_agent_lends_more_is_offered_by_itself() {
    let mut world = World::new();
    let scheduler = world.subscribe(borrower(&["r"]));
    let agent = world.register(agent_info(1000, 1024));
    use_all(&mut world, &scheduler);
    let lent = |cpu_milli| Resources::revocable(Quantities::cpus_mem(cpu_milli, 0));
    lend(&mut world, &agent, 600);
    lend(&mut world, &agent, 900);
    assert_eq!(offered(&world, &scheduler), [lent(600), lent(300)]);
}

#[test]
fn what_a_revocable_task_held_is_offered_again_as_revocable() {
    let mut world = World::new();
    let scheduler = world.subscribe(borrower(&["r"]));
    let other = world.subscribe(framework_info("g", &["r"]));
    let agent = world.register(agent_info(1000, 1024));
    use_all(&mut world, &scheduler);
    use_all(&mut world, &other);
    lend(&mut world, &agent, 800);
    let offer = world.offer(&scheduler);
    let part = Resources::revocable(Quantities::cpus_mem(500, 0));
    world.offering = false;
    world.accept(&scheduler, &offer, vec![command_task("t", &agent.id, part)]);
    let borrowed = world.allocated(&agent).revocable;
    assert_eq!(borrowed, part.revocable);
    world.offering = true;
    world.update(&agent, &scheduler, "t", TaskState::Finished, 1);
    let lent = Resources::revocable(Quantities::cpus_mem(800, 0));
    assert_eq!(offered(&world, &scheduler), [lent]);
    assert_eq!(offered(&world, &other), []);
}

/// An agent on which a task of the first of two borrowers has just been evicted; 800 are lent there.
fn evicted() -> (World, [Scheduler; 2], Played) {
    let mut world = World::new();
    let victim = world.subscribe(borrower(&["r"]));
    let agent = world.register(agent_info(1000, 1024));
    use_all(&mut world, &victim);
    lend(&mut world, &agent, 800);
    let offer = world.offer(&victim);
    let all = Resources::revocable(Quantities::cpus_mem(800, 0));
    world.offering = false;
    world.accept(&victim, &offer, vec![command_task("t", &agent.id, all)]);
    let other = world.subscribe(framework_info("g", &["r"]));
    world.offering = true;
    let mut status = TaskStatus::new(task_id("t"), TaskState::Gone, Source::Agent, world.now);
    status.uuid = Some(UpdateUuid::of(agent.incarnation, 1));
    status.reason = Some(ebb_types::Reason::ContainerPreempted);
    let message = AgentToMaster::Update {
        framework_id: victim.id.clone(),
        latest_state: TaskState::Gone,
        status,
    };
    world.say(&agent, message);
    (world, [victim, other], agent)
}

#[test]
fn who_was_evicted_does_not_come_back_within_the_cool_down() {
    let (mut world, [victim, _], agent) = evicted();
    assert_eq!(offered(&world, &victim), []);
    for _ in 0..3 {
        world.pass_ms(EVICTION_COOL_DOWN_MS / 4);
        // Neither asking for offers nor more to lend changes that.
        world.call(&victim, Call::Revive { roles: Vec::new() });
        lend(&mut world, &agent, 700);
        lend(&mut world, &agent, 800);
        assert_eq!(offered(&world, &victim), []);
    }
    world.pass_ms(EVICTION_COOL_DOWN_MS / 4 + 1);
    let lent = Resources::revocable(Quantities::cpus_mem(800, 0));
    assert_eq!(offered(&world, &victim), [lent]);
}

#[test]
fn others_are_offered_what_a_victim_is_not() {
    let (mut world, [victim, _], _) = evicted();
    let eager = world.subscribe(borrower(&["r"]));
    let lent = Resources::revocable(Quantities::cpus_mem(800, 0));
    assert_eq!(offered(&world, &eager), [lent]);
    assert_eq!(offered(&world, &victim), []);
}

#[test]
fn a_victim_is_offered_what_other_agents_own_and_lend() {
    let (mut world, [victim, other], _) = evicted();
    world.hang_up(&other);
    let second = world.register(agent_info(500, 512));
    lend(&mut world, &second, 300);
    let offers = world.offers(&victim);
    assert!(offers.iter().all(|offer| offer.agent_id == second.id));
    let sum = |part: fn(&Resources) -> u64| -> u64 {
        offers.iter().map(|offer| part(&offer.resources)).sum()
    };
    let found = (
        sum(|all| all.regular.cpu_milli()),
        sum(|all| all.revocable.cpu_milli()),
    );
    assert_eq!(found, (500, 300), "{offers:?}");
}

#[test]
fn a_framework_that_comes_back_is_offered_what_it_had_refused() {
    let mut world = World::new();
    let scheduler = world.subscribe(framework_info("f", &["r"]));
    world.register(agent_info(1000, 1024));
    decline_all(&mut world, &scheduler, 600_000);
    world.hang_up(&scheduler);
    world.register(agent_info(500, 512));
    assert_eq!(world.gauges().offers, 0);
    let mut info = framework_info("f", &["r"]);
    info.id = Some(scheduler.id);
    let back = world.subscribe(info);
    assert_eq!(offered(&world, &back), [res(1000, 1024), res(500, 512)]);
}

#[test]
fn suppressing_and_reviving_one_role_leaves_the_other_as_it_is() {
    let mut world = World::new();
    let scheduler = world.subscribe(framework_info("f", &["a", "b"]));
    let comes = |world: &mut World| {
        decline_all(world, &scheduler, 600_000);
        world.register(agent_info(1000, 1024));
        let offers = world.offers(&scheduler).into_iter();
        offers.map(|offer| offer.role).collect::<Vec<_>>()
    };
    let only = |text: &str| vec![role(text)];
    world.call(&scheduler, Call::Suppress { roles: only("a") });
    for _ in 0..3 {
        assert_eq!(comes(&mut world), only("b"));
    }
    world.call(&scheduler, Call::Suppress { roles: only("b") });
    assert_eq!(comes(&mut world), []);
    // It refused three for b alone, and was never asked for the fourth.
    world.call(&scheduler, Call::Revive { roles: only("a") });
    let offers = world.offers(&scheduler);
    assert_eq!(offers.len(), 4);
    assert!(offers.iter().all(|offer| offer.role == role("a")));
    decline_all(&mut world, &scheduler, 600_000);
    assert_eq!(offered(&world, &scheduler), []);
    world.call(&scheduler, Call::Revive { roles: only("b") });
    let offers = world.offers(&scheduler);
    assert_eq!(offers.len(), 4);
    assert!(offers.iter().all(|offer| offer.role == role("b")));
}

#[test]
fn a_weight_that_an_operator_sets_counts_from_the_next_offer_on() {
    let mut world = World::new();
    let all = ["a", "b"].map(|name| world.subscribe(framework_info(name, &[name])));
    // How many agents each role has of those so far.
    let come = |world: &mut World| {
        for _ in 0..4 {
            world.register(agent_info(1000, 1024));
            all.iter().for_each(|scheduler| use_all(world, scheduler));
        }
        let state = world.core.cluster_state();
        let held = |role: &RoleState| role.allocated.regular.cpu_milli() / 1000;
        state.roles.iter().map(held).collect::<Vec<_>>()
    };
    assert_eq!(come(&mut world), [2, 2]);
    let command = OperatorCommand::SetWeights(vec![(role("b"), 3000)]);
    assert_eq!(operate(&mut world, command), Ok(()));
    assert_eq!(come(&mut world), [2, 6]);
    assert_eq!(come(&mut world), [3, 9]);
}

#[test]
fn new_weights_withdraw_the_offers_that_compete_with_them_and_no_others() {
    let mut world = World::new();
    let roles = ["eng/web", "eng/db", "ops"];
    let all = roles.map(|name| world.subscribe(framework_info(name, &[name])));
    for _ in 0..12 {
        world.register(agent_info(1000, 1024));
    }
    let out = |world: &World| {
        let ids = |one: &Scheduler| {
            let offers = world.offers(one).into_iter();
            offers.map(|offer| offer.id).collect::<BTreeSet<_>>()
        };
        all.each_ref().map(ids)
    };
    let counts = |out: &[BTreeSet<OfferId>; 3]| out.each_ref().map(BTreeSet::len);
    let first = out(&world);
    assert_eq!(counts(&first), [3, 3, 6]);
    let set = |world: &mut World, weights: &[(&str, u64)]| {
        let weights = weights.iter().map(|(name, weight)| (role(name), *weight));
        let command = OperatorCommand::SetWeights(weights.collect());
        assert_eq!(operate(world, command), Ok(()));
    };
    set(&mut world, &[("eng/web", 5000)]);
    let second = out(&world);
    assert_eq!(counts(&second), [5, 1, 6]);
    assert_eq!(second[2], first[2], "nothing has changed for ops");
    assert!(second[0].is_disjoint(&first[0]) && second[1].is_disjoint(&first[1]));
    // What is as it was, and who is in a role that nobody is in, concerns nobody.
    set(&mut world, &[("eng/web", 5000), ("empty", 3000)]);
    assert_eq!(out(&world), second);
    set(&mut world, &[("ops", 5000)]);
    let third = out(&world);
    assert_eq!(counts(&third), [1, 1, 10]);
    assert!((0..3).all(|at| third[at].is_disjoint(&second[at])));
}

#[test]
fn many_agents_are_offered_as_they_come_and_what_they_lend_as_they_lend_it() {
    let (mut world, agents) = (World::new(), 60);
    let schedulers: Vec<Scheduler> = (0..5).map(|_| world.subscribe(borrower(&["r"]))).collect();
    let of_each = |world: &World| {
        schedulers
            .iter()
            .map(|one| offered(world, one).len())
            .collect::<Vec<_>>()
    };
    let played: Vec<Played> = (0..agents)
        .map(|_| world.register(agent_info(1000, 1024)))
        .collect();
    assert_eq!(of_each(&world), [12; 5]);
    for agent in &played {
        lend(&mut world, agent, 500);
    }
    assert_eq!(of_each(&world), [24; 5]);
    let out = world.gauges().offered;
    assert_eq!(
        out.regular,
        Quantities::cpus_mem(1000 * agents, 1024 * MIB * agents)
    );
    assert_eq!(out.revocable, Quantities::cpus_mem(500 * agents, 0));
}

#[test]
fn every_offer_is_counted_once_when_it_is_made_and_once_when_it_ends() {
    let mut world = World::new();
    let scheduler = world.subscribe(framework_info("f", &["r"]));
    let agents: Vec<Played> = (0..5)
        .map(|_| world.register(agent_info(1000, 1024)))
        .collect();
    let offers = world.offers(&scheduler);
    world.offering = false;
    let task = command_task("t", &offers[0].agent_id, offers[0].resources);
    world.accept(&scheduler, &offers[0], vec![task]);
    let call = Call::Decline {
        offer_ids: vec![offers[1].id.clone(), offers[1].id.clone()],
        filters: NO_FILTER,
    };
    world.call(&scheduler, call);
    world.agent_gone(&agents[2]);
    let counters = world.core.counters();
    assert_eq!((counters.offers_made, counters.offers_accepted), (5, 1));
    assert_eq!(
        (counters.offers_declined, counters.offers_rescinded),
        (1, 1)
    );
    let gauges = world.gauges();
    assert_eq!((gauges.offers, gauges.offered), (2, res(2000, 2048)));
    assert_eq!(gauges.allocated, res(1000, 1024));
    assert_eq!(gauges.total, Quantities::cpus_mem(5000, 5 * 1024 * MIB));
    for agent in &agents {
        world.say(agent, AgentToMaster::Heartbeat);
    }
    for _ in 0..6 {
        world.pass_ms(50_000);
        for agent in &agents {
            world.say(agent, AgentToMaster::Heartbeat);
        }
    }
    let counters = world.core.counters();
    assert_eq!((counters.offers_expired, counters.offers_rescinded), (2, 3));
    assert_eq!(world.gauges().offers, 0);
}
