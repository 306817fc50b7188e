//! Rates of one container, sample by sample.

use ebb_types::{ContainerId, MeasureSource};

use super::*;

use MeasureSource::{Ebpf, Files};

const STEP_NS: u64 = 100_000_000;

/// A container whose counters rise evenly: ten quick samples a second, of which one is full.
struct Even {
    meter: Meter,
    sample: u64,
}

impl Even {
    fn new() -> Self {
        Self {
            meter: Meter::new(Config::default()),
            sample: 0,
        }
    }

    /// Takes one sample with what `reading` makes of the tenths of a second that have passed.
    fn step(&mut self, reading: impl Fn(u64, bool) -> ContainerSample) -> Option<ContainerUse> {
        self.sample += 1;
        let full = self.sample.is_multiple_of(10);
        let id = ContainerId::new("c").unwrap();
        let sample = Sample {
            taken_ns: self.sample * STEP_NS,
            full,
            containers: [(id.clone(), reading(self.sample, full))].into(),
            ..Sample::default()
        };
        self.meter.push(&sample).containers.get(&id).copied()
    }

    fn seconds(
        &mut self,
        seconds: u64,
        reading: impl Fn(u64, bool) -> ContainerSample,
    ) -> ContainerUse {
        let mut last = None;
        for _ in 0..seconds * 10 {
            last = self.step(&reading);
        }
        last.unwrap()
    }
}

/// Everything by the probes, as the sampler hands it over: what is dear only in full samples.
fn probed(tenths: u64, full: bool) -> ContainerSample {
    let requests = |count: u64, bucket: usize| {
        let mut histogram = [0; IO_BUCKETS];
        histogram[bucket] = count;
        histogram
    };
    let disk = IoSample {
        read_bytes: tenths * 100,
        write_bytes: tenths * 200,
        latency: Some(IoLatencySample {
            total_ns: tenths * 10 * 5_000,
            queue_histogram: requests(tenths * 10, 0),
            device_histogram: requests(tenths * 10, 2),
        }),
    };
    ContainerSample {
        cpu_ns: Some(tenths * STEP_NS / 2),
        run_queue_wait_ns: Some(tenths * 30_000_000),
        run_queue_wait_own_ns: Some(tenths * 20_000_000),
        run_queue_count: Some(tenths * 10),
        migrations: Some(tenths * 3),
        faults: Some((tenths * 7, tenths)),
        faults_source: Ebpf,
        reclaim_ns: Some(tenths * 1_000_000),
        oom_kills: Some(2),
        oom_source: Ebpf,
        net_bytes: Some((tenths * 50, tenths * 60)),
        traffic: Some(TrafficSample {
            in_bytes: tenths * 40,
            out_bytes: tenths * 30,
            dropped_packets: tenths * 2,
        }),
        forks: Some(tenths),
        cpu_split_ns: full.then_some((tenths * STEP_NS / 4, tenths * STEP_NS / 4)),
        memory: full.then_some(MemorySample {
            anon_bytes: Some(5),
            ..MemorySample::default()
        }),
        disk: full.then_some(disk),
        // A sample without the figure knows no source of it.
        disk_source: if full { Ebpf } else { Files },
        pressure: full.then_some(PressureSample {
            cpu_ns: tenths * 10_000_000,
            memory_ns: 0,
            io_ns: tenths * 20_000_000,
        }),
        ..ContainerSample::absent(Ebpf)
    }
}

#[test]
fn every_figure_of_the_probes_becomes_a_rate_that_stands_between_full_samples() {
    let mut even = Even::new();
    even.seconds(3, probed);
    for _ in 0..10 {
        let used = even.step(probed).unwrap();
        let slow = used.slow;
        assert_eq!(slow.cpu_milli, Some(500));
        assert_eq!(
            (slow.cpu_user_milli, slow.cpu_system_milli),
            (Some(250), Some(250))
        );
        assert_eq!(
            (slow.waiting_milli, slow.waiting_own_milli),
            (Some(100), Some(200))
        );
        assert_eq!(
            slow.wait_mean_ns,
            Some(1_000_000),
            "without its own quota's part"
        );
        assert_eq!(slow.migrations_per_s, Some(30));
        assert_eq!(
            (slow.faults_minor_per_s, slow.faults_major_per_s),
            (Some(70), Some(10))
        );
        assert_eq!(slow.reclaim_permille, Some(10));
        assert_eq!(slow.disk_bytes_per_s, Some(3_000));
        assert_eq!(slow.disk_read_bytes_per_s, Some(1_000));
        assert_eq!(slow.disk_write_bytes_per_s, Some(2_000));
        assert_eq!(slow.io.mean_ns, Some(5_000));
        assert_eq!(slow.io.queue_p99_ns, Some(2 * 1_024));
        assert_eq!(slow.io.device_p99_ns, Some(8 * 1_024));
        assert_eq!(
            (slow.net_in_bytes_per_s, slow.net_out_bytes_per_s),
            (Some(500), Some(600))
        );
        assert_eq!(
            (slow.traffic_in_bytes_per_s, slow.traffic_out_bytes_per_s),
            (Some(400), Some(300))
        );
        assert_eq!(slow.traffic_bytes_per_s(), Some(400));
        assert_eq!(slow.traffic_dropped_per_s, Some(20));
        assert_eq!(slow.forks_per_s, Some(10));
        assert_eq!(slow.cpu_pressure_permille, Some(100));
        assert_eq!(
            (slow.mem_pressure_permille, slow.io_pressure_permille),
            (Some(0), Some(200))
        );
        assert_eq!((used.memory.anon_bytes, used.oom_kills), (Some(5), Some(2)));
        let sources = [
            used.cpu_source,
            used.faults_source,
            used.oom_source,
            used.disk_source,
        ];
        assert_eq!(sources, [Ebpf; 4], "also in a sample without the figure");
    }
    assert_eq!(even.meter.counters().resets, 0);
}

#[test]
fn a_change_of_source_starts_anew_and_yields_no_rate_across() {
    let by_files = |tenths: u64, full: bool| {
        let mut sample = probed(tenths, full);
        sample.disk_source = Files;
        sample.disk = sample.disk.map(|disk| IoSample {
            read_bytes: disk.read_bytes + 1_000_000,
            latency: None,
            ..disk
        });
        sample.faults_source = Files;
        sample.faults = full.then_some((1_000_000 + tenths * 7, 1_000_000 + tenths));
        sample
    };
    let mut even = Even::new();
    even.seconds(3, probed);
    let used = even.seconds(1, by_files);
    assert_eq!((used.disk_source, used.faults_source), (Files, Files));
    assert_eq!(
        used.slow.disk_bytes_per_s, None,
        "one reading is a baseline"
    );
    assert_eq!(used.slow.faults_major_per_s, None);
    let used = even.seconds(1, by_files);
    assert_eq!(used.slow.disk_read_bytes_per_s, Some(1_000));
    assert_eq!(used.slow.faults_major_per_s, Some(10));
    assert_eq!(used.slow.io, IoLatency::default());
    assert_eq!(even.meter.counters().resets, 0, "nothing stepped back");
}

#[test]
fn what_is_not_measured_has_no_rate() {
    let mut even = Even::new();
    let used = even.seconds(3, |_, _| ContainerSample::absent(Files));
    assert_eq!((used.fast, used.slow), (Rates::default(), Rates::default()));
    assert_eq!((used.mem_bytes, used.oom_kills), (None, None));
}

#[test]
fn figures_of_full_samples_stand_for_a_while_and_not_for_ever() {
    let mut even = Even::new();
    even.seconds(3, probed);
    let quick = |tenths: u64, _: bool| probed(tenths, false);
    let mut last = None;
    for _ in 0..40 {
        even.sample += u64::from((even.sample + 1).is_multiple_of(10));
        last = even.step(quick);
    }
    let used = last.unwrap();
    assert_eq!(used.slow.disk_bytes_per_s, None);
    assert_eq!(used.memory, MemorySample::default());
    assert_eq!(used.slow.forks_per_s, Some(10));
}
