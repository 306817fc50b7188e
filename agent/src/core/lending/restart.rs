//! What is lent after the agent has been away.

use super::world::World;
use super::{Config, Lending};
use crate::core::estimator::peaks::kept::Unfit;
use ebb_types::Timestamp;

/// A service that was busy for ten minutes, more than two hours ago or less, and is calm since.
fn calm_after(busy_milli: u64) -> World {
    let mut world = World::new();
    world.own("service", 2_000, busy_milli);
    world.seconds(600);
    world.sim("service").wants_milli = 400;
    world.seconds(7_000);
    world
}

fn restarted(world: &World) -> Lending {
    Lending::new(Config::default(), world.total)
}

#[test]
fn a_restart_of_the_agent_lends_nothing_at_first_and_then_no_more_than_before() {
    let mut world = calm_after(1_200);
    let before = world.step().usage.lent.cpu_milli();
    let past = world.lending.past().expect("samples were taken");
    let mut forgetful = calm_after(1_200);
    forgetful.lending = restarted(&forgetful);
    let forgotten = forgetful.seconds(90).usage.lent.cpu_milli();

    world.lending = restarted(&world);
    let now = Timestamp::from_ms(world.now_ms);
    let lasted = past.lasted.clone();
    world.lending.take_up(now, past).expect("it is fresh");
    let kept = world.lending.past().expect("what was taken up");
    assert!(kept.lasted == lasted && lasted.iter().any(|count| *count > 0));
    for second in 0..90 {
        let lent = world.seconds(1).usage.lent.cpu_milli();
        assert!(lent <= before, "{lent} after {second} s, {before} before");
        assert!(second > 28 || lent == 0, "{lent} after {second} s");
    }
    let after = world.step().usage.lent.cpu_milli();
    assert!(
        after > 0 && forgotten > after,
        "{after}, {forgotten} if all is forgotten"
    );
}

#[test]
fn a_past_from_a_clock_that_has_gone_backward_is_thrown_away_and_tasks_are_cold() {
    let mut world = calm_after(400);
    let past = world.lending.past().expect("samples were taken");
    world.lending = restarted(&world);
    let taken = world.lending.take_up(Timestamp::from_ms(1), past);
    assert_eq!(taken, Err(Unfit::Future));
    for _ in 0..280 {
        assert!(world.step().usage.lent.is_zero());
    }
}
