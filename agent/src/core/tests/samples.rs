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

#[test]
fn what_instances_of_one_thing_use_becomes_advice_on_what_they_ask_for() {
    let mut world = World::registered();
    for name in ["web.1", "web.2"] {
        world.run(name);
    }
    let containers = [world.container("web.1"), world.container("web.2")];
    let mut told: BTreeMap<String, Vec<Timestamp>> = BTreeMap::new();
    let mut last = None;
    for count in 0..40_000_u64 {
        world.now_ms += 100;
        if count % 100 == 0 {
            world.order(MasterToAgent::Heartbeat);
        }
        let mut sample = usage::Sample {
            taken_ns: count * 100_000_000,
            full: count % 10 == 0,
            ..usage::Sample::default()
        };
        for (container, milli) in containers.iter().zip([100, 300]) {
            let mut counters = usage::ContainerSample::absent(ebb_types::MeasureSource::Files);
            counters.cpu_ns = Some(count * milli * 100_000);
            counters.mem_bytes = Some(milli << 20);
            sample.containers.insert(container.clone(), counters);
        }
        world.step(Input::Sample(Box::new(sample)));
        for message in world.said() {
            if let AgentToMaster::Classes(classes) = message {
                for seen in classes {
                    let times = told.entry(seen.key.class.clone()).or_default();
                    times.push(seen.at);
                    last = Some(seen);
                }
            }
        }
    }
    assert_eq!(told.keys().collect::<Vec<_>>(), ["web"]);
    let times = &told["web"];
    assert!(times.len() > 60, "{}", times.len());
    assert!(times.is_sorted_by(|a, b| b.ms_since(*a) >= 60_000));
    let advice = ebb_types::advise(&last.expect("it was told"));
    assert_eq!((advice.running, advice.tasks), (2, 2));
    let near =
        |found: Option<u64>, exact: u64| found.is_some_and(|it| it.abs_diff(exact) * 32 <= exact);
    assert!(
        near(advice.cpu.p50, 100) && near(advice.cpu.p95, 300),
        "{advice:?}"
    );
    assert_eq!(advice.mem.peak, Some(300 << 20));
    assert_eq!(advice.mem.advice, Some(345 << 20));
    assert_eq!(advice.fit(), ebb_types::Fit::OverAsked);
    assert!(near(advice.cpu.advice, 345), "{advice:?}");
}

#[test]
fn a_short_task_is_known_by_those_of_its_class_that_have_ended() {
    let mut world = World::registered();
    let mut count = 0;
    for number in 0..4_u64 {
        let name = format!("job.{number}");
        world.run(&name);
        let views = world.core.lending_views();
        let known = views[0].siblings;
        assert_eq!(
            known.map(|known| known.ended),
            (number > 0).then_some(number)
        );
        if let Some(known) = known {
            // It began at once, and its first second is where the reading begins.
            assert!((28_000..=31_000).contains(&known.life_ms), "{known:?}");
            assert_eq!(known.asked, views[0].allocated.regular);
            // The most of any, and that was the first one's.
            assert_eq!(known.most, Quantities::cpus_mem(400, 400 << 20));
        }
        let container = world.container(&name);
        for reading in 0..300_u64 {
            world.now_ms += 100;
            count += 1;
            let mut sample = usage::Sample {
                taken_ns: count * 100_000_000,
                full: count % 10 == 0,
                ..usage::Sample::default()
            };
            let mut counters = usage::ContainerSample::absent(ebb_types::MeasureSource::Files);
            counters.cpu_ns = Some(reading * (400 - 100 * number) * 100_000);
            counters.mem_bytes = Some((400 - 100 * number) << 20);
            sample.containers.insert(container.clone(), counters);
            world.step(Input::Sample(Box::new(sample)));
        }
        world.exited(&name, ExitStatus::Code(0));
    }
}
