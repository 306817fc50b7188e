//! Network bandwidth: what is lent of it, and how fast its owners have it back.

use ebb_types::{ChoiceRule, CorrectionAction, Quantities, ResourceKind, Resources, Signal};
use proptest::prelude::*;

use super::Config;
use super::world::{GIB, World};

/// One megabyte a second.
const MB: u64 = 1_000_000;
/// What the agent has, and what the QoS controller lets be used of it.
const TOTAL: u64 = 100 * MB;
const LEVEL: u64 = 90 * MB;

fn quantities(network: u64) -> Quantities {
    Quantities::cpus_mem(100, 0).with(ResourceKind::NetworkBandwidth, network)
}

/// An agent with 100 MB/s and no task.
fn idle() -> World {
    let total = Quantities::cpus_mem(2_000, 8 * GIB).with(ResourceKind::NetworkBandwidth, TOTAL);
    World::with(Config::default(), total)
}

/// The same with a service that owns most of it and receives and sends a little.
fn settled() -> World {
    let mut world = idle();
    own(&mut world, "service", 80 * MB, [5 * MB, 10 * MB]);
    world.seconds(10);
    world
}

fn own(world: &mut World, name: &str, network: u64, wants: [u64; 2]) {
    world.add(name, Resources::regular(quantities(network)), 50);
    world.sim(name).wants_traffic = wants;
}

fn lend(world: &mut World, name: &str, network: u64, wants: [u64; 2]) {
    world.add(name, Resources::revocable(quantities(network)), 50);
    world.sim(name).wants_traffic = wants;
}

fn limits(world: &World) -> usize {
    let actions = world.corrections.iter().map(|correction| correction.action);
    let limits = actions.filter(|action| matches!(action, CorrectionAction::LimitNetwork { .. }));
    limits.count()
}

#[test]
fn what_an_owner_leaves_of_its_bandwidth_is_lent_and_no_more() {
    let mut world = settled();
    let lent = world
        .seconds(120)
        .usage
        .lent
        .get(ResourceKind::NetworkBandwidth);
    // Its larger direction with a quarter more is kept for it, and a tenth of the machine for all.
    let left = 80 * MB - 12_500_000 - 10 * MB;
    assert!(lent > left - 2 * MB && lent <= left, "{lent} of {left}");
}

#[test]
fn nothing_is_lent_of_a_network_that_is_not_measured() {
    let mut world = idle();
    own(&mut world, "service", 80 * MB, [0; 2]);
    world.sim("service").counters.traffic = None;
    let lent = world.seconds(120).usage.lent;
    assert_eq!(lent.get(ResourceKind::NetworkBandwidth), 0);
}

#[test]
fn while_all_fits_nobody_is_limited() {
    let mut world = settled();
    lend(&mut world, "copy", 50 * MB, [0, 80 * MB]);
    lend(&mut world, "sync", 25 * MB, [25 * MB, 25 * MB]);
    world.seconds(60);
    assert_eq!(limits(&world), 0);
    assert_eq!(
        world.sim("copy").traffic[1],
        50 * MB,
        "its allocation is its limit"
    );
}

#[test]
fn an_owner_that_rises_on_a_full_network_has_what_it_asks_for_within_a_second() {
    let mut world = settled();
    lend(&mut world, "large", 40 * MB, [0, 40 * MB]);
    lend(&mut world, "small", 25 * MB, [0, 25 * MB]);
    world.seconds(5);
    world.sim("service").wants_traffic = [5 * MB, 80 * MB];
    world.step();
    assert!(
        world.sim("service").traffic[1] < 80 * MB,
        "they stand in one queue"
    );
    world.seconds(1);
    assert_eq!(world.sim("service").traffic[1], 80 * MB);
    let first = &world.corrections[0];
    assert_eq!(first.task_id.as_str(), "large");
    assert_eq!(first.signal, Signal::MachineNetwork);
    assert_eq!(
        (first.threshold, first.on_behalf_of.is_some()),
        (LEVEL, false)
    );
    let choice = first.choice;
    assert_eq!((choice.rule, choice.rank), (ChoiceRule::MostNetwork, 1));
    assert_eq!(choice.candidates, 2);
    assert!(
        choice.amount > 20 * MB,
        "what it had beside them: {}",
        choice.amount
    );
    let left = world.sim("large").traffic[1] + world.sim("small").traffic[1];
    assert!(left >= 2 * MB, "connections live on, with {left}");
}

#[test]
fn the_direction_that_is_fuller_counts() {
    let mut world = settled();
    lend(&mut world, "fetch", 60 * MB, [60 * MB, 0]);
    lend(&mut world, "push", 60 * MB, [0, 60 * MB]);
    world.seconds(5);
    assert_eq!(limits(&world), 0, "each way has room");
    world.sim("service").wants_traffic = [70 * MB, 10 * MB];
    world.seconds(1);
    assert_eq!(world.sim("service").traffic[0], 70 * MB);
    assert!(world.sim("fetch").network_limit.is_some());
    assert!(world.sim("push").network_limit.is_none(), "it sends");
}

#[test]
fn a_container_without_bandwidth_of_its_own_leaves_the_reserve_free() {
    let mut world = settled();
    lend(&mut world, "flood", 0, [0, 10 * TOTAL]);
    world.seconds(2);
    let (service, flood) = (
        world.sim("service").traffic[1],
        world.sim("flood").traffic[1],
    );
    assert_eq!(service, 10 * MB);
    assert!(service + flood <= LEVEL, "{flood}");
    world.seconds(120);
    let flood = world.sim("flood").traffic[1];
    assert!(
        flood > 60 * MB && flood <= LEVEL,
        "it has what is free: {flood}"
    );
}

#[test]
fn limits_are_widened_in_steps_and_lifted_when_it_is_calm() {
    let mut world = settled();
    lend(&mut world, "copy", 60 * MB, [0, 60 * MB]);
    world.sim("service").wants_traffic[1] = 70 * MB;
    world.seconds(5);
    let tight = world.sim("copy").network_limit.expect("limited");
    assert!(tight <= 20 * MB, "{tight}");
    world.sim("service").wants_traffic[1] = 10 * MB;
    world.seconds(2);
    assert_eq!(world.sim("copy").network_limit, Some(tight), "not at once");
    world.seconds(30);
    assert_eq!(world.sim("copy").network_limit, None);
    assert_eq!(world.sim("copy").traffic[1], 60 * MB);
    let steps: Vec<_> = world
        .actions()
        .into_iter()
        .map(|(_, name, _)| name)
        .collect();
    assert!(
        steps.ends_with(&["limit_network", "release_network"]),
        "{steps:?}"
    );
    assert!(
        world
            .corrections
            .iter()
            .rev()
            .take(2)
            .all(|c| c.choice.rule == ChoiceRule::HeldHardest)
    );
}

#[test]
fn a_load_that_swings_does_not_make_limits_flap() {
    for period_s in [1, 2, 5, 10] {
        let mut world = settled();
        lend(&mut world, "copy", 60 * MB, [0, 60 * MB]);
        for half in 0..(240 / period_s) {
            world.sim("service").wants_traffic[1] = if half % 2 == 0 { 75 * MB } else { 10 * MB };
            world.seconds(period_s);
        }
        let loosened = world.actions().into_iter();
        let loosened = loosened
            .filter(|(_, name, _)| *name == "release_network")
            .count();
        assert!(
            loosened <= 8,
            "{loosened} times in 240 s, every {period_s} s"
        );
    }
}

#[test]
fn limits_of_the_network_hold_no_lending_of_cpu_up() {
    let mut world = settled();
    lend(&mut world, "flood", 0, [0, 10 * TOTAL]);
    world.own("other", 1_500, 100);
    let before = world.seconds(20).usage.lent.cpu_milli();
    assert!(world.sim("flood").network_limit.is_some());
    let after = world.seconds(60).usage.lent.cpu_milli();
    assert!(after > before, "{after} after {before}");
}

#[test]
fn what_cannot_be_measured_counts_what_it_is_allocated_and_is_not_limited() {
    let mut world = idle();
    own(&mut world, "unknown", 70 * MB, [0; 2]);
    world.sim("unknown").counters.traffic = None;
    lend(&mut world, "dark", 10 * MB, [0; 2]);
    world.sim("dark").counters.traffic = None;
    lend(&mut world, "copy", 30 * MB, [0, 30 * MB]);
    world.seconds(5);
    assert_eq!(world.sim("copy").network_limit, Some(10 * MB));
    assert!(world.sim("dark").network_limit.is_none());
}

#[derive(Clone, Debug)]
enum Event {
    Wants(usize, u64, u64),
    Seconds(u64),
    Ends(usize),
    Blind(bool),
}

fn any_event() -> impl Strategy<Value = Event> {
    prop_oneof![
        4 => (0..6usize, 0..150u64, 0..150u64).prop_map(|(i, a, b)| Event::Wants(i, a, b)),
        4 => (1..20u64).prop_map(Event::Seconds),
        1 => (0..6usize).prop_map(Event::Ends),
        1 => any::<bool>().prop_map(Event::Blind),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever tasks want: no limit exceeds what its container could want, only revocable containers have one (the small
    /// machine sees to that), and an owner whose demand lasts has it, if owners together leave room for the least limits.
    #[test]
    fn owners_have_what_they_want_in_the_end(
        own_mb in prop::collection::vec(5..40u64, 2),
        lent_mb in prop::collection::vec(0..60u64, 4),
        events in prop::collection::vec(any_event(), 1..30),
    ) {
        let mut world = idle();
        let names = ["a", "b", "p", "q", "r", "s"];
        for (name, mb) in names.iter().zip(&own_mb) {
            own(&mut world, name, mb * MB, [0; 2]);
        }
        for (name, mb) in names[2..].iter().zip(&lent_mb) {
            lend(&mut world, name, mb * MB, [0; 2]);
        }
        for event in events {
            match event {
                Event::Wants(i, received, sent) => {
                    if let Some(sim) = world.sims.get_mut(names[i]) {
                        sim.wants_traffic = [received * MB, sent * MB];
                    }
                }
                Event::Seconds(seconds) => {
                    world.seconds(seconds);
                }
                Event::Ends(i) => world.end(names[i]),
                Event::Blind(blind) => {
                    if let Some(sim) = world.sims.get_mut("p") {
                        sim.readable = !blind;
                    }
                }
            }
            for sim in world.sims.values() {
                let allocated = sim.view.allocated.total(ResourceKind::NetworkBandwidth);
                let most = if allocated == 0 { TOTAL } else { allocated };
                prop_assert!(sim.network_limit.is_none_or(|limit| limit < most));
            }
        }
        if let Some(sim) = world.sims.get_mut("p") {
            sim.readable = true;
        }
        world.seconds(3);
        for sim in world.sims.values().filter(|sim| !sim.view.allocated.is_revocable()) {
            let own = sim.view.allocated.total(ResourceKind::NetworkBandwidth);
            for way in 0..2 {
                let wants = sim.wants_traffic[way].min(own);
                prop_assert!(sim.traffic[way] >= wants, "{} of {wants}", sim.traffic[way]);
            }
        }
    }
}
