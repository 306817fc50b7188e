//! Tests of the service against a scripted master.

use std::sync::{Arc, Mutex};

use ebb_types::{ResourceKind, Timestamp, Unavailability};
use proptest::prelude::*;
use tokio::sync::watch;

use super::core::{Orders, Service};
use super::store::{Saved, Store};
use super::*;
use crate::command::CommandSpec;
use crate::offers::Demand;
use crate::scheduler::Input;
use crate::testing::{Faults, Manners, World};

const STEPS: u64 = 100_000;
const ENDLESS: Manners = Manners {
    fail: 0,
    preempt: 0,
    endless: 100,
};

fn spec(line: &str, instances: u32) -> ServiceSpec {
    ServiceSpec {
        command: CommandSpec::shell(line),
        demand: Demand::cpus_mem(1000, 1 << 20),
        cpu_limit_milli: None,
        instances,
        kill_grace_ms: None,
    }
}

/// A state file in memory.
#[derive(Clone, Default)]
struct Shared(Arc<Mutex<Saved>>);

impl Store for Shared {
    fn save(&mut self, saved: &Saved) -> Result<(), ServiceError> {
        *self.0.lock().expect("not poisoned") = saved.clone();
        Ok(())
    }
}

struct Running {
    world: World<Service>,
    orders: Arc<Mutex<Orders>>,
    status: watch::Receiver<ServiceStatus>,
    store: Shared,
}

fn scheduler() -> SchedulerConfig {
    SchedulerConfig::new(["m"], "s")
}

fn service(
    spec: ServiceSpec,
    store: &Shared,
) -> (Service, Arc<Mutex<Orders>>, watch::Receiver<ServiceStatus>) {
    let orders = Arc::new(Mutex::new(Orders::default()));
    let (sender, status) = watch::channel(ServiceStatus::default());
    let saved = store.0.lock().expect("not poisoned").clone();
    let boxed = Box::new(store.clone());
    let service = Service::new("s", spec, Arc::clone(&orders), boxed, saved, sender);
    (service.expect("valid"), orders, status)
}

impl Running {
    fn start(spec: ServiceSpec, seed: u64, agents: usize, cpus: u64) -> Self {
        let store = Shared::default();
        let (service, orders, status) = service(spec, &store);
        Self {
            world: World::new(service, &scheduler(), seed, agents, cpus)
                .with(Faults::NONE, ENDLESS),
            orders,
            status,
            store,
        }
    }

    fn order(&mut self, order: impl FnOnce(&mut Orders)) {
        order(&mut self.orders.lock().expect("not poisoned"));
        self.world.input(Input::Wake);
    }

    /// Instances of a version that really run.
    fn running(&self, version: &str) -> usize {
        let tasks = self.world.running();
        tasks
            .filter(|task| task.info.task_id.as_str().contains(version))
            .count()
    }

    fn settled(&mut self, version: &str, count: u32) {
        let status = self.status.clone();
        self.world
            .until(STEPS, "all run and nothing else", |world| {
                let status = status.borrow();
                let alive = world
                    .tasks
                    .values()
                    .filter(|t| !t.state.is_terminal())
                    .count();
                status.running == count
                    && status.instances.len() == count as usize
                    && alive == count as usize
            });
        assert_eq!(self.running(version), count as usize);
    }
}

#[test]
fn a_version_stays_over_upgrades_and_counts_every_kind() {
    let plain = spec("serve", 1);
    assert_eq!(plain.version(), "984a714b");
    for kind in ResourceKind::ALL {
        let mut more = spec("serve", 1);
        let amount = more.demand.amount.get(kind) + 1;
        more.demand.amount = more.demand.amount.with(kind, amount);
        assert_ne!(more.version(), plain.version(), "{kind:?}");
    }
}

#[test]
fn instances_are_spread_over_agents_and_know_their_slots() {
    let spec = spec("serve", 6);
    let version = spec.version();
    let mut running = Running::start(spec, 2, 3, 4);
    running.settled(&version, 6);
    let mut per_agent = std::collections::BTreeMap::new();
    let mut slots = std::collections::BTreeSet::new();
    for task in running.world.running() {
        *per_agent.entry(task.info.agent_id.clone()).or_insert(0) += 1;
        let command = task.info.command.as_ref().expect("a command");
        let slot = command
            .environment
            .iter()
            .find(|(name, _)| name == "EBB_INSTANCE");
        slots.insert(slot.expect("set").1.clone());
    }
    assert!(per_agent.values().all(|count| *count <= 4), "{per_agent:?}");
    assert!(per_agent.len() >= 2, "{per_agent:?}");
    assert_eq!(slots.len(), 6);
}

#[test]
fn scaling_starts_and_ends_only_the_difference() {
    let first = spec("serve", 2);
    let version = first.version();
    let mut running = Running::start(first, 4, 3, 4);
    running.settled(&version, 2);
    running.order(|orders| orders.spec = Some(spec("serve", 5)));
    running.settled(&version, 5);
    assert_eq!(running.world.started.len(), 5);
    running.order(|orders| orders.spec = Some(spec("serve", 1)));
    running.settled(&version, 1);
    assert_eq!(
        running.world.started.len(),
        5,
        "nothing was started by scaling down"
    );
}

#[test]
fn a_rolling_change_keeps_the_wanted_number_running_all_the_time() {
    let first = spec("old", 3);
    let (old, new) = (first.version(), spec("new", 3).version());
    let mut running = Running::start(first, 11, 3, 4);
    running.settled(&old, 3);
    running.order(|orders| orders.spec = Some(spec("new", 3)));
    for _ in 0..STEPS {
        if running.running(&new) == 3 && running.running(&old) == 0 {
            break;
        }
        running.world.step();
        let both = running.running(&old) + running.running(&new);
        let alive = running
            .world
            .tasks
            .values()
            .filter(|t| !t.state.is_terminal());
        assert!(
            both >= 3,
            "only {both} run in the middle of a rolling change"
        );
        assert!(
            alive.count() <= 5,
            "one beyond the wanted number, and one that ends"
        );
    }
    running.settled(&new, 3);
}

#[test]
fn a_rolling_change_on_a_full_cluster_takes_one_at_a_time() {
    let first = spec("old", 2);
    let (old, new) = (first.version(), spec("new", 2).version());
    let mut running = Running::start(first, 8, 1, 2);
    running.settled(&old, 2);
    running.order(|orders| orders.spec = Some(spec("new", 2)));
    for _ in 0..STEPS {
        if running.running(&new) == 2 {
            break;
        }
        running.world.step();
    }
    running.settled(&new, 2);
}

fn window(now: Timestamp, in_ms: u64) -> Unavailability {
    Unavailability {
        start: now.plus_ms(in_ms),
        duration_ms: None,
    }
}

#[test]
fn without_room_elsewhere_instances_stay_and_the_service_says_so() {
    let spec = spec("serve", 3);
    let version = spec.version();
    let mut running = Running::start(spec, 7, 2, 2);
    running.settled(&version, 3);
    // Of the two agents with room for two each, one has two: room for one is elsewhere.
    let index = usize::from(running.world.live_on(0) < 2);
    running.world.leaving = Some((index, window(running.world.now, 600_000)));
    for _ in 0..20_000 {
        running.world.step();
        assert_eq!(running.running(&version).max(3), running.running(&version));
    }
    assert_eq!(
        running.world.live_on(1 - index),
        2,
        "as many as fit have moved"
    );
    assert_eq!(running.world.live_on(index), 1);
    assert_eq!(running.world.answers, [false]);
    let said = running.status.borrow().waiting_for.clone();
    assert!(
        said.contains("out of use") && said.contains(&format!("agent-{index}")),
        "{said}"
    );
}

#[test]
fn a_window_that_is_far_away_moves_nothing_yet() {
    let spec = spec("serve", 3);
    let version = spec.version();
    let mut running = Running::start(spec, 9, 3, 4);
    running.settled(&version, 3);
    let index = (0..3)
        .max_by_key(|index| running.world.live_on(*index))
        .expect("three");
    let (before, start) = (
        running.world.live_on(index),
        2 * crate::offers::EXPECTED_RUN_MS,
    );
    running.world.leaving = Some((index, window(running.world.now, start)));
    for _ in 0..5_000 {
        running.world.step();
    }
    assert_eq!(
        (running.world.live_on(index), running.world.started.len()),
        (before, 3)
    );
    assert_eq!(running.world.answers, [true; 0]);
    running.world.pass(start - 1_000_000);
    running
        .world
        .until(STEPS, "nothing there", |world| world.live_on(index) == 0);
}

#[test]
fn what_keeps_failing_is_started_again_with_growing_waits() {
    let mut running = Running::start(spec("crash", 1), 6, 1, 4);
    let crash = Manners {
        fail: 100,
        preempt: 0,
        endless: 0,
    };
    running.world = running.world.with(Faults::NONE, crash);
    let start = running.world.now;
    running
        .world
        .until(STEPS, "six starts", |world| world.started.len() == 6);
    let waited_ms = running.world.now.ms_since(start);
    assert!(
        waited_ms >= 1000 + 2000 + 4000 + 8000 + 16_000,
        "{waited_ms} ms"
    );
    let status = running.status.borrow();
    assert_eq!(status.restarts, 5);
    drop(status);
    running.world.until(STEPS, "it is said", |_| {
        running.status.borrow().waiting_for.contains("exit code 3")
    });
}

#[test]
fn a_stopped_service_ends_every_instance_and_then_its_framework() {
    let first = spec("serve", 3);
    let version = first.version();
    let mut running = Running::start(first, 4, 2, 4);
    running.settled(&version, 3);
    running.order(|orders| orders.stop = true);
    running
        .world
        .until(STEPS, "the end", |world| world.finished.is_some());
    assert!(running.world.torn_down);
    assert_eq!(running.world.running().count(), 0);
    assert_eq!(
        *running.store.0.lock().expect("not poisoned"),
        Saved::default()
    );
}

#[test]
fn a_service_that_is_started_again_takes_its_instances_over() {
    let first = spec("serve", 4);
    let version = first.version();
    let mut running = Running::start(first.clone(), 4, 2, 4);
    running.settled(&version, 4);
    let (next, _orders, status) = service(first, &running.store);
    let resumed = scheduler().resuming(next.framework_id().cloned());
    running.world.restart(next, &resumed, 77);
    running.status = status;
    running.settled(&version, 4);
    assert_eq!(running.world.started.len(), 4, "nothing was started anew");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn maintenance_never_costs_an_instance_while_there_is_room_elsewhere(
        seed in any::<u64>(),
        instances in 1u32..7,
        which in 0usize..3,
        in_ms in 600_000u64..3_000_000,
        again in any::<bool>(),
    ) {
        let spec = spec("serve", instances);
        let version = spec.version();
        let mut running = Running::start(spec, seed, 3, 4);
        running.settled(&version, instances);
        for which in [Some(which), again.then_some((which + 1) % 3)].into_iter().flatten() {
            running.world.answers.clear();
            let there = running.world.live_on(which);
            let window = window(running.world.now, in_ms);
            running.world.leaving = Some((which, window));
            let mut steps = 0;
            while steps < 2_000 || running.world.live_on(which) > 0 {
                running.world.step();
                steps += 1;
                let runs = running.running(&version);
                prop_assert!(runs >= instances as usize, "only {} run", runs);
                prop_assert!(running.world.now < window.start, "it is there when the window begins");
            }
            prop_assert_eq!(running.world.answers.iter().any(|gone| *gone), there > 0);
            running.settled(&version, instances);
        }
        prop_assert_eq!(running.status.borrow().restarts, 0, "a move is no restart");
    }

    #[test]
    fn through_every_fault_instances_leave_in_the_end_and_all_run(
        seed in any::<u64>(),
        instances in 1u32..7,
        which in 0usize..3,
        steps in 0u64..1500,
    ) {
        let spec = spec("serve", instances);
        let version = spec.version();
        let mut running = Running::start(spec, seed, 3, 4);
        running.settled(&version, instances);
        running.world.leaving = Some((which, window(running.world.now, 3_000_000)));
        let manners = Manners { fail: 2, preempt: 0, endless: 98 };
        running.world = running.world.with(Faults::ALL, manners);
        for _ in 0..steps {
            running.world.step();
        }
        running.world = running.world.with(Faults::NONE, ENDLESS);
        running.world.until(STEPS, "nothing there", |world| world.live_on(which) == 0);
        running.settled(&version, instances);
        prop_assert_eq!(running.world.live_on(which), 0);
    }

    #[test]
    fn whatever_happens_the_wanted_instances_run_in_the_end(
        seed in any::<u64>(),
        first in 1u32..5,
        second in 0u32..5,
        change in any::<bool>(),
        steps in 0u64..1500,
    ) {
        let mut running = Running::start(spec("one", first), seed, 3, 4);
        let manners = Manners { fail: 5, preempt: 0, endless: 90 };
        running.world = running.world.with(Faults::ALL, manners);
        for _ in 0..steps {
            running.world.step();
        }
        let wanted = spec(if change { "two" } else { "one" }, second);
        let version = wanted.version();
        running.order(|orders| orders.spec = Some(wanted));
        for _ in 0..steps {
            running.world.step();
        }
        running.world = running.world.with(Faults::NONE, ENDLESS);
        running.settled(&version, second);
    }
}
