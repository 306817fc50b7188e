//! Limits of named lots: no offer passes one, children count for those above them, and what may be handed out is what a
//! slow reference finds.

use std::collections::BTreeMap;

use ebb_types::{ExplainSubject, LotKey, LotLimits, LotValue, Lots, Quota};
use proptest::prelude::*;

use super::lots::{able, agent_with, lots, lots_offered, task_with};
use super::*;
use crate::core::{OperatorCommand, RequestId};

fn set_limits(
    world: &mut World,
    name: &str,
    limits: &[(&str, u64)],
    force: bool,
) -> Result<(), OperatorError> {
    let limits = limits
        .iter()
        .map(|(name, most)| ((*name).to_owned(), most * 1000));
    world.step(Input::Operator {
        request: RequestId(5),
        command: OperatorCommand::SetQuotas {
            quotas: vec![(role(name), Quota::default())],
            lot_limits: vec![(role(name), LotLimits::new(limits).unwrap())],
            force,
        },
    });
    world.answers.pop().expect("no answer")
}

fn skilled(name: &str, roles: &[&str]) -> FrameworkInfo {
    able(name, roles, &[Capability::GpuResources])
}

fn quotas(world: &World, scheduler: &Scheduler) -> Vec<(String, String, u64, u64)> {
    let subject = ExplainSubject::Framework(scheduler.id.clone());
    let explanation = world.core.explain(world.now, subject).unwrap();
    let quotas = explanation.claims[0].lot_quotas.iter();
    let quotas = quotas.map(|one| (one.role.to_string(), one.name.clone(), one.limit, one.held));
    quotas.collect()
}

#[test]
fn children_count_for_those_above_and_a_part_is_offered_of_what_is_left() {
    let mut world = World::new();
    let web = world.subscribe(skilled("web", &["eng/web"]));
    let one = world.register(agent_with("gpus:2;ports:[1-10]"));
    assert_eq!(
        set_limits(&mut world, "eng", &[("gpus", 3), ("ports", 12)], false),
        Ok(())
    );
    let offer = world.offer(&web);
    assert_eq!(offer.lots, lots("gpus:2;ports:[1-10]"));
    let all = task_with("t", &one, res(4000, 4096), "gpus:2;ports:[1-10]");
    world.accept(&web, &offer, vec![all]);
    let own = world.subscribe(skilled("own", &["eng"]));
    world.call(&web, Call::Suppress { roles: Vec::new() });
    world.register(agent_with("gpus:4;ports:[20-24,30]"));
    assert_eq!(lots_offered(&world, &own), "gpus:1;ports:[20-21]");
    let eng = |name: &str, limit, held| (String::from("eng"), name.to_owned(), limit, held);
    let expected = [eng("gpus", 3000, 3000), eng("ports", 12_000, 12_000)];
    assert_eq!(quotas(&world, &own), expected);
    assert_eq!(quotas(&world, &web), expected);
    // Others are not bound by it.
    let ops = world.subscribe(skilled("ops", &["ops"]));
    world.register(agent_with("gpus:1"));
    world.call(&own, Call::Suppress { roles: Vec::new() });
    world.hang_up(&own);
    assert!(lots_offered(&world, &ops).contains("gpus"));
}

#[test]
fn what_is_left_because_of_a_limit_is_offered_once_less_counts() {
    let mut world = World::new();
    let f = world.subscribe(skilled("f", &["eng"]));
    let one = world.register(agent_with("gpus:1"));
    assert_eq!(set_limits(&mut world, "eng", &[("gpus", 1)], false), Ok(()));
    let offer = world.offer(&f);
    let task = task_with("t", &one, res(4000, 4096), "gpus:1");
    world.accept(&f, &offer, vec![task]);
    world.register(agent_with("gpus:2"));
    assert_eq!(lots_offered(&world, &f), "nothing");
    super::lots::decline(&mut world, &f, 0);
    world.update(&one, &f, "t", TaskState::Finished, 1);
    assert_eq!(lots_offered(&world, &f), "gpus:1");
}

#[test]
fn limits_survive_a_restart_and_count_what_is_reserved() {
    let mut world = World::new();
    let f = world.subscribe(skilled("f", &["eng"]));
    let agent = world.register(agent_with("gpus(eng):2;gpus:2"));
    assert_eq!(set_limits(&mut world, "eng", &[("gpus", 3)], false), Ok(()));
    assert_eq!(lots_offered(&world, &f), "gpus:1;gpus(eng):2");
    let mut world = World::restored(world.registry());
    let f = world.subscribe(FrameworkInfo {
        id: Some(f.id),
        ..skilled("f", &["eng"])
    });
    world.reregister(&agent, agent_with("gpus(eng):2;gpus:2"), Vec::new());
    assert_eq!(lots_offered(&world, &f), "gpus:1;gpus(eng):2");
    assert_eq!(set_limits(&mut world, "eng", &[], false), Ok(()));
    assert_eq!(quotas(&world, &f), []);
}

#[test]
fn a_limit_below_what_tasks_hold_or_of_nothing_is_refused_unless_it_is_meant() {
    let mut world = World::new();
    let f = world.subscribe(skilled("f", &["eng"]));
    let agent = world.register(agent_with("gpus:2"));
    let offer = world.offer(&f);
    let task = task_with("t", &agent, res(100, 64), "gpus:2");
    world.accept(&f, &offer, vec![task]);
    let refused = set_limits(&mut world, "eng", &[("gpus", 1)], false);
    assert!(matches!(
        refused,
        Err(OperatorError::LotLimitExceeded { .. })
    ));
    let refused = set_limits(&mut world, "eng", &[("cpu", 1)], false);
    assert!(matches!(refused, Err(OperatorError::NoLot { .. })));
    assert_eq!(
        set_limits(&mut world, "eng", &[("gpus", 1), ("cpu", 1)], true),
        Ok(())
    );
    assert_eq!(quotas(&world, &f)[1].3, 2000);
}

/// What counts towards a role's limit, added up anew.
fn held(world: &World, of: &Role, name: &str) -> u64 {
    let core = &world.core;
    let mut sum = 0;
    let mut count = |role: &Role, lots: &Lots| {
        let named = lots.iter().filter(|(key, _)| key.name == name);
        sum += named
            .filter(|_| role.is_within(of))
            .map(|(_, value)| value.amount())
            .sum::<u64>();
    };
    core.offers
        .values()
        .for_each(|offer| count(&offer.role, &offer.lots));
    for framework in core.frameworks.values() {
        let tasks = framework.tasks.values().filter(|task| task.holds());
        tasks.for_each(|task| count(&task.role, &task.lots));
    }
    for agent in core.agents.values() {
        for (key, value) in agent.free_lots().iter() {
            if let Some(role) = key.role() {
                let one = Lots::new([(key.clone(), value.clone())]).unwrap();
                count(role, &one);
            }
        }
    }
    sum
}

/// What may be handed out of an agent: number by number, whole by whole, thousandth by thousandth.
fn may_have(world: &World, limits: &Known, of: &Role, agent: &AgentId) -> BTreeMap<LotKey, u64> {
    let mut taken: BTreeMap<(Role, String), u64> = BTreeMap::new();
    let mut all = BTreeMap::new();
    for (key, value) in world.core.agents[agent].free_lots().iter() {
        if key.role().is_some_and(|role| !of.is_within(role)) {
            continue;
        }
        let above = std::iter::successors(Some(of.clone()), Role::parent);
        let bounds: Vec<(Role, u64)> = above
            .filter(|above| !key.role().is_some_and(|role| role.is_within(above)))
            .filter_map(|above| {
                let limit = *limits.get(&above)?.get(key.name.as_str())?;
                Some((above, limit))
            })
            .collect();
        let grain = match value {
            LotValue::Scalar(_) if key.name != "gpus" => 500,
            _ => 1000,
        };
        let mut part = 0;
        let has_room = |part: u64, taken: &BTreeMap<(Role, String), u64>| {
            bounds.iter().all(|(above, limit)| {
                let before = taken.get(&(above.clone(), key.name.clone()));
                held(world, above, &key.name) + before.unwrap_or(&0) + part <= *limit
            })
        };
        while part < value.amount() && has_room(part + grain, &taken) {
            part += grain;
        }
        for (above, _) in bounds {
            *taken.entry((above, key.name.clone())).or_default() += part;
        }
        if part > 0 {
            all.insert(key.clone(), part);
        }
    }
    all
}

type Known = BTreeMap<Role, BTreeMap<&'static str, u64>>;

const ROLES: [&str; 4] = ["a", "a/b", "a/b/c", "d"];
const NAMES: [&str; 3] = ["gpus", "licences", "ports"];
const AGENTS: [&str; 5] = [
    "gpus:3;ports:[1-4]",
    "gpus:2;gpus(a):1;licences:2.5",
    "gpus(a/b):2;licences(d):1.5;licences:1",
    "ports(a):[1-2];ports:[5-9]",
    "licences(a/b):2;gpus(d):2;ports(a/b):[3-4]",
];

#[derive(Clone, Debug)]
enum Change {
    Limit(usize, usize, Option<u64>),
    Register(usize),
    Launch(usize, bool),
    Decline(usize),
    End(usize),
    Leave(usize),
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        2 => (0..4usize, 0..3usize, prop::option::of(0..5u64)).prop_map(|(a, b, c)| Change::Limit(a, b, c)),
        2 => (0..5usize).prop_map(Change::Register),
        4 => (0..4usize, any::<bool>()).prop_map(|(a, b)| Change::Launch(a, b)),
        2 => (0..4usize).prop_map(Change::Decline),
        3 => (0..4usize).prop_map(Change::End),
        1 => (0..5usize).prop_map(Change::Leave),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn no_limit_is_passed_and_what_may_be_handed_out_is_what_the_slow_reference_finds(
        changes in prop::collection::vec(change(), 1..40)
    ) {
        let mut world = World::new();
        let frameworks = ROLES.map(|name| world.subscribe(skilled(name, &[name])));
        let mut agents = Vec::new();
        let mut limits = Known::new();
        let mut tasks: Vec<(usize, Played, String)> = Vec::new();
        let mut count = 0;
        for change in changes {
            let before: Vec<OfferId> = world.core.offers.keys().cloned().collect();
            match change {
                Change::Limit(of, name, limit) => {
                    let all = limits.entry(role(ROLES[of])).or_default();
                    match limit {
                        Some(limit) => all.insert(NAMES[name], limit * 1000),
                        None => all.remove(NAMES[name]),
                    };
                    let all: Vec<(&str, u64)> = all.iter().map(|(name, most)| (*name, most / 1000)).collect();
                    prop_assert_eq!(set_limits(&mut world, ROLES[of], &all, true), Ok(()));
                }
                Change::Register(with) => agents.push(world.register(agent_with(AGENTS[with]))),
                Change::Launch(who, takes_all) => {
                    let Some(offer) = world.offers(&frameworks[who]).into_iter().next() else { continue };
                    let Some(agent) = agents.iter().find(|agent| agent.id == offer.agent_id) else { continue };
                    count += 1;
                    let name = format!("t{count}");
                    let mut task = task_with(&name, agent, res(100, 32), "");
                    task.lots = match takes_all {
                        true => offer.lots.clone(),
                        false => offer.lots.only(|key| key.role().is_none()),
                    };
                    world.accept(&frameworks[who], &offer, vec![task]);
                    tasks.push((who, agent.clone(), name));
                }
                Change::Decline(who) => super::lots::decline(&mut world, &frameworks[who], 0),
                Change::End(which) => {
                    if which < tasks.len() {
                        let (who, agent, name) = tasks.remove(which);
                        world.update(&agent, &frameworks[who], &name, TaskState::Finished, count);
                    }
                }
                Change::Leave(which) => {
                    if which < agents.len() {
                        let agent = agents.remove(which);
                        world.agent_gone(&agent);
                        tasks.retain(|(_, on, _)| on.id != agent.id);
                    }
                }
            }
            world.pass_ms(1000);
            // An offer that came in this step passes no limit of what it counts towards.
            for (id, offer) in &world.core.offers {
                if before.contains(id) {
                    continue;
                }
                for (key, _) in offer.lots.iter() {
                    for (of, all) in &limits {
                        let counts = offer.role.is_within(of) && !key.role().is_some_and(|role| role.is_within(of));
                        if let (true, Some(limit)) = (counts, all.get(key.name.as_str())) {
                            let held = held(&world, of, &key.name);
                            prop_assert!(held <= *limit, "{of} holds {held} of {key}, at most {limit}");
                        }
                    }
                }
            }
            for (name, framework) in ROLES.iter().zip(&frameworks) {
                for agent in &agents {
                    let found = world.core.lots_for((&framework.id, &role(name)), &agent.id);
                    let found: BTreeMap<LotKey, u64> = found
                        .iter()
                        .map(|(key, value)| (key.clone(), value.amount()))
                        .collect();
                    prop_assert_eq!(found, may_have(&world, &limits, &role(name), &agent.id));
                }
            }
        }
    }
}
