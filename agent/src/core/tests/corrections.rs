//! What a correction does to a revocable task.

use ebb_types::{Correction, CorrectionAction, Signal};

use super::*;

/// A correction of a task's container, carried out as if a sample had led to it.
fn correct(world: &mut World, container_id: ContainerId, action: CorrectionAction) {
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
        duration_ms: 200,
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
    for word in ["task owner", "run_queue_latency", "9", "5", "200 ms"] {
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
