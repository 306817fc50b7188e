//! Whatever a sampler gives: a fuzz of what none should ever give.

use ebb_types::{Quantities, Timestamp};
use proptest::prelude::*;

use super::super::usage::{
    ContainerSample, HostCounters, IoLatencySample, IoSample, Sample, SampleVerdict, TrafficSample,
};
use super::world::{World, container};
use super::{Config, Lending};

/// Any reading at all.
fn any_counter() -> impl Strategy<Value = Option<u64>> {
    prop_oneof![
        Just(None),
        (0u64..2_000_000_000).prop_map(Some),
        any::<u64>().prop_map(Some)
    ]
}

fn source(ebpf: bool) -> ebb_types::MeasureSource {
    if ebpf {
        ebb_types::MeasureSource::Ebpf
    } else {
        ebb_types::MeasureSource::Files
    }
}

prop_compose! {
    fn any_io()(
        given in any::<bool>(), timed in any::<bool>(), bytes in any::<(u64, u64)>(),
        total_ns in any::<u64>(), histogram in prop::array::uniform24(any::<u64>()),
    ) -> Option<IoSample> {
        given.then_some(IoSample {
            read_bytes: bytes.0,
            write_bytes: bytes.1,
            latency: timed.then_some(IoLatencySample {
                total_ns,
                queue_histogram: histogram,
                device_histogram: histogram,
            }),
        })
    }
}

prop_compose! {
    fn any_container()(
        cpu_ns in any_counter(), wait in any_counter(), count in any_counter(),
        by_revocable in any_counter(), by_other in any_counter(), throttled in any_counter(),
        mem in any_counter(), disk in any_io(), ebpf in any::<bool>(),
        own in any_counter(), reclaim in any_counter(), forks in any_counter(),
        faults in prop::option::of((any::<u64>(), any::<u64>())),
        net in prop::option::of((any::<u64>(), any::<u64>())),
        traffic in prop::option::of((any::<u64>(), any::<u64>(), any::<u64>())),
        histogram in prop::option::of(prop::array::uniform(any::<u64>())),
    ) -> ContainerSample {
        ContainerSample {
            cpu_ns,
            cpu_source: source(ebpf),
            faults_source: source(!ebpf),
            disk_source: source(ebpf),
            faults,
            net_bytes: net,
            traffic: traffic.map(|(in_bytes, out_bytes, dropped_packets)| TrafficSample {
                in_bytes,
                out_bytes,
                dropped_packets,
            }),
            reclaim_ns: reclaim,
            forks,
            run_queue_wait_own_ns: own,
            run_queue_wait_ns: wait,
            run_queue_count: count,
            run_queue_histogram: histogram,
            preempted_by_revocable: by_revocable,
            preempted_by_other: by_other,
            throttled_ns: throttled,
            mem_bytes: mem,
            disk,
            ..ContainerSample::absent(source(ebpf))
        }
    }
}

prop_compose! {
    fn any_sample()(
        step_ms in prop_oneof![8 => 50u64..200, 1 => Just(0u64), 1 => 900u64..5_000],
        backwards in prop::bool::weighted(0.05), full in any::<bool>(),
        busy in any_counter(), unmanaged in any_counter(), cpus in prop::option::of(0u32..5_000),
        available in any_counter(), total in any_counter(),
        containers in prop::collection::vec(any_container(), 4),
    ) -> (u64, bool, Sample) {
        let host = HostCounters {
            cpu_busy_ns: busy,
            unmanaged_cpu_ns: unmanaged,
            cpus,
            mem_available_bytes: available,
            mem_total_bytes: total,
            pressure: None,
        };
        let containers = ["a", "b", "c", "d"].into_iter().map(container).zip(containers).collect();
        (step_ms, backwards, Sample { taken_ns: 0, full, host, containers, ..Sample::default() })
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn whatever_a_sampler_says_no_promise_is_broken(
        samples in prop::collection::vec(any_sample(), 1..120)
    ) {
        let mut world = World::new();
        world.own("a", 500, 0);
        world.own("b", 1_500, 0);
        world.lend("c", 300, 0);
        world.lend("d", 400, 0);
        let views = world.views();
        let mut config = Config::default();
        config.estimator.cpus.warm_blocks = 2;
        config.estimator.hold_ms = 200;
        let total = world.total;
        let mut lending = Lending::new(config, total);
        let (mut now_ms, mut taken_ns) = (1_000_000u64, 1_000_000_000u64);
        let mut lent_before = Quantities::ZERO;
        for (step_ms, backwards, mut sample) in samples {
            now_ms += step_ms;
            taken_ns = if backwards { taken_ns - 1 } else { taken_ns + step_ms * 1_000_000 };
            sample.taken_ns = taken_ns;
            let outcome = lending.on_sample(Timestamp::from_ms(now_ms), &sample, &views);
            let lent = outcome.usage.lent;
            prop_assert!(lent.cpu_milli() >= 700);
            prop_assert!(outcome.offerable.is_zero() || total.contains(&lent), "{}", lent);
            prop_assert!(outcome.offerable.cpu_milli() + 700 <= 2_000);
            prop_assert_eq!(outcome.oversubscribed.unwrap_or(lent_before), lent);
            if outcome.verdict != SampleVerdict::Valid {
                prop_assert!(outcome.usage.corrections.is_empty());
                prop_assert!(lent_before.contains(&lent) || lent_before.is_zero());
            }
            let mut named = std::collections::BTreeSet::new();
            for correction in &outcome.usage.corrections {
                prop_assert!(["c", "d"].contains(&correction.container_id.as_str()));
                prop_assert!(named.insert(correction.container_id.clone()));
            }
            lent_before = lent;
        }
    }
}
