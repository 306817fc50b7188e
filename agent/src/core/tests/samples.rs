//! What is lent and reported with samples and without them.

use super::*;

#[test]
fn without_samples_nothing_is_lent_and_the_use_is_reported_once_a_second() {
    let mut world = World::registered();
    world.run("t");
    let container = world.container("t");
    let mut reports = 0;
    for count in 0..100_u64 {
        world.now_ms += 100;
        let mut sample = usage::Sample {
            taken_ns: count * 100_000_000,
            full: count % 10 == 0,
            ..usage::Sample::default()
        };
        let mut counters = usage::ContainerSample::absent(ebb_types::MeasureSource::Files);
        counters.cpu_ns = Some(count * 50_000_000);
        sample.containers.insert(container.clone(), counters);
        world.step(Input::Sample(Box::new(sample)));
        for message in world.said() {
            if let AgentToMaster::Usage(usage) = message {
                reports += 1;
                if count > 20 {
                    assert_eq!(usage.tasks[0].used.cpu_milli, Some(500));
                }
            }
        }
    }
    assert_eq!(reports, 10);
    world.wait(SAMPLE_STALE_MS * 3);
    assert!(world.core.counters().stale_samples > 0);
    assert!(world.core.lent().is_zero());
}

#[test]
fn lending_hears_when_a_task_ends_if_its_framework_said_so() {
    let mut world = World::registered();
    for (name, max_completion_ms) in [("a", Some(60_000)), ("b", None)] {
        world.launch(TaskInfo {
            max_completion_ms,
            kill_grace_ms: Some(2_000),
            ..task(name)
        });
        world.started(name);
    }
    let ends: Vec<_> = world.core.lending_views();
    let ends: Vec<_> = ends
        .iter()
        .map(|view| (view.task_id.as_str(), view.ends_at))
        .collect();
    let at = Timestamp::from_ms(world.now_ms + 62_000);
    assert_eq!(ends.len(), 2);
    assert!(ends.contains(&("a", Some(at))), "{ends:?}");
    assert!(ends.contains(&("b", None)), "{ends:?}");
}
