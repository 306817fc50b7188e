//! What agents tell of classes of tasks, and what operators read of it.

use ebb_types::{Advice, ClassKey, ClassUse, Fit};

use super::*;

const HOUR_MS: u64 = 3_600_000;

/// Two hours of a task, by the clock of its agent.
fn seen(agent_clock_ms: u64, asked: (u64, u64), used: (u64, u64)) -> ClassUse {
    let key = ClassKey {
        framework_id: FrameworkId::new("f").unwrap(),
        class: String::from("web"),
    };
    let mut seen = ClassUse::new(key, Timestamp::from_ms(agent_clock_ms));
    (seen.tasks, seen.running) = (1, 1);
    (seen.seen_ms, seen.cpu_seen_ms) = (2 * HOUR_MS, 2 * HOUR_MS);
    (seen.asked_cpu_milli, seen.asked_mem_bytes) = asked;
    seen.cpu.add(used.0, 2 * HOUR_MS);
    seen.mem.add(used.1, 2 * HOUR_MS);
    (seen.days[0].cpu_milli, seen.days[0].mem_bytes) = used;
    seen
}

fn advice(world: &mut World) -> Advice {
    let at = world.now;
    world.books.show(at).advice(&AdviceFilter::default())
}

#[test]
fn what_two_agents_saw_becomes_one_advice_whatever_their_clocks_say() {
    let mut world = World::new();
    let agents = [0, 1].map(|_| world.register(agent_info(4000, 4096)));
    let far = 400 * 24 * HOUR_MS;
    for (agent, clock_ms, used) in [
        (&agents[0], 5, (400, 200 * MIB)),
        (&agents[1], far, (100, 100 * MIB)),
    ] {
        let one = seen(clock_ms, (1_000, 1_000 * MIB), used);
        world.say(agent, AgentToMaster::Classes(vec![one.clone()]));
        world.say(agent, AgentToMaster::Classes(vec![one]));
    }
    let told = advice(&mut world);
    let [web] = &told.classes[..] else {
        panic!("{told:?}")
    };
    assert_eq!((web.running, web.tasks, web.seen_ms), (2, 2, 4 * HOUR_MS));
    assert_eq!(web.mem.advice, Some(230 * MIB));
    assert_eq!(web.fit(), Fit::OverAsked);
    let gauges = world.gauges().advice;
    assert_eq!((gauges.entries, gauges.classes), (2, [1, 0, 0, 0]));
    assert_eq!(gauges.spared_mem_bytes, u128::from(2 * 770 * MIB));
    assert_eq!(gauges.lacking_cpu_milli, 0);
    // Tasks of an agent that is away may run or not; what was seen of them stands.
    world.agent_gone(&agents[1]);
    for _ in 0..3 {
        world.pass_ms(40_000);
        world.say(&agents[0], AgentToMaster::Heartbeat);
    }
    let told = advice(&mut world);
    assert_eq!((told.classes[0].running, told.classes[0].tasks), (1, 2));
    assert_eq!(told.classes[0].mem.advice, Some(230 * MIB));
}

#[test]
fn who_is_not_registered_tells_nothing() {
    let mut world = World::new();
    let agent = world.register(agent_info(4000, 4096));
    world.agent_gone(&agent);
    let one = seen(5, (1_000, MIB), (100, MIB));
    world.say(&agent, AgentToMaster::Classes(vec![one]));
    assert!(advice(&mut world).classes.is_empty());
    assert_eq!(world.core.counters.stale_messages, 1);
}
