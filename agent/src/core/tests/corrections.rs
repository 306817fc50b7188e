//! What a correction does to a revocable task.

use ebb_types::{Correction, CorrectionAction, Signal};

use super::*;

fn correct(world: &mut World, container_id: ContainerId, action: CorrectionAction) {
    correct_with(world, container_id, action, 0);
}

/// A correction of a task's container, carried out as if a sample had led to it.
fn correct_with(
    world: &mut World,
    container_id: ContainerId,
    action: CorrectionAction,
    grace_ms: u64,
) {
    let correction = Correction {
        at: Timestamp::from_ms(world.now_ms),
        container_id,
        task_id: key("lent").1,
        framework_id: framework(),
        action,
        signal: Signal::RunQueueLatency,
        on_behalf_of: TaskId::new("owner").ok(),
        value: 9,
        threshold: 5,
        baseline: Some(1),
        duration_ms: 200,
        choice: ebb_types::Choice {
            rule: ebb_types::ChoiceRule::MostCpu,
            amount: 700,
            rank: 1,
            candidates: 3,
            spared: false,
        },
        grace_ms,
    };
    let mut out = state::Outbox::default();
    world.core.correct(&correction, &mut out);
    world.effects = out.into_effects();
    for effect in &world.effects {
        if let Effect::Persist(records) = effect {
            for record in records {
                world.disk.apply(record.clone());
            }
        }
    }
    world.core.check().expect("the invariants hold");
}

fn with_lent_task() -> World {
    let mut world = World::registered();
    world.launch(TaskInfo {
        lots: ebb_types::Lots::NONE,
        resources: Resources::revocable(Quantities::cpus_mem(1000, GIB)),
        ..task("lent")
    });
    world.started("lent");
    world
}

#[test]
fn an_eviction_uses_force_at_once_and_names_its_cause() {
    let mut world = with_lent_task();
    let container = world.container("lent");
    correct(&mut world, container, CorrectionAction::Evict);
    assert!(world.did(is_kill) && !world.did(is_terminate));
    assert!(world.did(|effect| matches!(effect, Effect::Observe(Observation::Corrected(_)))));
    assert_eq!(world.core.counters().evictions, 1);
    world.exited("lent", ExitStatus::Signal(9));
    let last = world.last("lent");
    assert_eq!(last.state, TaskState::Gone);
    assert_eq!(last.reason, Some(Reason::ContainerPreempted));
    for word in [
        "task owner",
        "run_queue_latency",
        "9",
        "5",
        "200 ms",
        "1 is normal",
        "most_cpu of 700 as number 1 of 3",
    ] {
        assert!(last.message.contains(word), "{}", last.message);
    }
}

#[test]
fn a_correction_of_a_container_that_is_gone_or_not_revocable_does_nothing() {
    let mut world = with_lent_task();
    let gone = ContainerId::new("c-0-9").expect("valid");
    correct(&mut world, gone, CorrectionAction::Evict);
    assert!(world.effects.is_empty());
    world.run("owner");
    let owner = world.container("owner");
    correct(&mut world, owner, CorrectionAction::Freeze);
    assert!(world.effects.is_empty());
    assert_eq!(world.core.counters().stale_corrections, 2);
    assert_eq!(world.core.counters().evictions, 0);
}

#[test]
fn a_frozen_task_is_thawed_under_its_cap_and_before_it_is_asked_to_end() {
    let mut world = with_lent_task();
    let container = world.container("lent");
    correct(&mut world, container.clone(), CorrectionAction::Freeze);
    assert!(world.did(|effect| matches!(effect, Effect::Freeze { .. })));
    correct(
        &mut world,
        container.clone(),
        CorrectionAction::Throttle { cpu_milli: 100 },
    );
    assert!(matches!(
        world.effects[..2],
        [
            Effect::Throttle {
                cpu_milli: Some(100),
                ..
            },
            Effect::Thaw { .. }
        ]
    ));
    correct(&mut world, container, CorrectionAction::Freeze);
    world.kill("lent", None);
    let order: Vec<_> = world
        .effects
        .iter()
        .filter(|effect| matches!(effect, Effect::Thaw { .. }) || is_terminate(effect))
        .map(is_terminate)
        .collect();
    assert_eq!(order, [false, true]);
}

fn is_warning(effect: &Effect) -> bool {
    matches!(effect, Effect::Warn { .. })
}

/// What an eviction does to a container, in order.
fn polite_steps(world: &World) -> Vec<&'static str> {
    let steps = world.effects.iter().filter_map(|effect| match effect {
        Effect::Throttle { cpu_milli, .. } => {
            assert_eq!(*cpu_milli, Some(WARNED_CPU_MILLI));
            Some("cap")
        }
        Effect::Thaw { .. } => Some("thaw"),
        Effect::Warn { .. } => Some("warn"),
        Effect::Terminate { .. } => Some("terminate"),
        Effect::KillContainer { .. } => Some("kill"),
        _ => None,
    });
    steps.collect()
}

#[test]
fn whoever_is_to_be_evicted_is_warned_thawed_and_given_the_grace_and_no_more() {
    for (own_ms, given_ms, signal) in [
        (None, 5_000, None),
        (Some(100), 5_000, Some(10)),
        (Some(60_000), 1_000, Some(12)),
    ] {
        let mut world = World::registered();
        world.launch(TaskInfo {
            lots: ebb_types::Lots::NONE,
            resources: Resources::revocable(Quantities::cpus_mem(1000, GIB)),
            kill_grace_ms: own_ms,
            warn_signal: signal,
            ..task("lent")
        });
        world.started("lent");
        let container = world.container("lent");
        correct(&mut world, container.clone(), CorrectionAction::Freeze);
        correct_with(&mut world, container, CorrectionAction::Evict, given_ms);
        let grace_ms = own_ms
            .unwrap_or(ebb_types::limits::DEFAULT_GRACE_MS)
            .min(given_ms);
        let expected = Timestamp::from_ms(world.now_ms + grace_ms);
        assert!(world.did(|effect| matches!(effect,
            Effect::Warn { signal: by_signal, ends_at, cause, .. }
                if *by_signal == signal.is_some() && *ends_at == expected
                    && cause.contains("run_queue_latency"))));
        let polite: &[&str] = match signal {
            Some(_) => &["cap", "thaw", "warn"],
            None => &["cap", "thaw", "warn", "terminate"],
        };
        assert_eq!(polite_steps(&world), polite);
        let told = world.last("lent");
        assert_eq!(told.state, TaskState::Running);
        assert_eq!(told.reason, Some(Reason::ContainerPreempted));
        let says = format!("in {grace_ms} ms");
        assert!(told.message.contains(&says), "{}", told.message);
        world.wait(grace_ms - 1);
        assert!(!world.did(is_kill), "before the grace has passed");
        world.wait(1);
        assert!(world.did(is_kill));
        world.exited("lent", ExitStatus::Signal(9));
        assert_eq!(world.last("lent").state, TaskState::Gone);
    }
}

#[test]
fn in_danger_a_grace_that_runs_is_cut_short() {
    let mut world = with_lent_task();
    let container = world.container("lent");
    correct_with(
        &mut world,
        container.clone(),
        CorrectionAction::Evict,
        5_000,
    );
    assert!(world.did(is_warning) && !world.did(is_kill));
    correct_with(&mut world, container, CorrectionAction::Evict, 0);
    world.wait(0);
    assert!(world.did(is_kill));
    assert_eq!(world.core.counters().evictions, 1);
}
