//! What the estimator costs for a task and a sample: of CPU, memory, and bandwidth of disks and network together.
//!
//! An agent's own [`Meter`] and [`Estimator`] see three hours of tasks whose use wanders, so that windows are full and all
//! tasks are warm; then samples come ten times a second, as an agent takes them, and each step is timed. Beside it stands
//! the whole of lending for the same samples: meter, QoS controller, estimator and report.

use std::collections::BTreeMap;
use std::time::Instant;

use anyhow::{Context, Result};
use ebb_agent::core::estimator::{Config, Estimator, Facts};
use ebb_agent::core::lending::{self, Lending};
use ebb_agent::core::running::RunningView;
use ebb_agent::core::usage::{
    self, ContainerSample, HostCounters, IoSample, Meter, RUN_QUEUE_BUCKETS, Sample, TrafficSample,
};
use ebb_tests_bench::{at_most, figure, quantile};
use ebb_types::{
    ContainerId, FrameworkId, MeasureSource, Quantities, ResourceKind, Resources, TaskId, Timestamp,
};

/// Tasks of an agent.
const CASES: [usize; 2] = [20, 200];
/// How long they have been there when time is measured, in samples of a second.
const WARM_SAMPLES: u64 = 3 * 3_600;
const WARM_MS: u64 = 1_000;
const ROUNDS: usize = 20;
/// Samples of a round, a tenth of a second apart; every tenth is full.
const SAMPLES: u64 = 100;
const SAMPLE_MS: u64 = 100;
const EPOCH_MS: u64 = 1_000_000;
/// For a task and sample.
const MOST_US: f64 = 2.0;

const CPU_MILLI: u64 = 1_000;
const MEM_BYTES: u64 = 1 << 30;
const DISK_BYTES_PER_S: u64 = 10 << 20;
const NETWORK_BYTES_PER_S: u64 = 10 << 20;

/// Tasks whose use wanders.
struct Machine {
    now_ms: u64,
    samples: u64,
    tasks: Vec<RunningView>,
    /// The use of each, in thousandths of what it is allocated.
    shares: Vec<u64>,
    counters: BTreeMap<ContainerId, ContainerSample>,
    busy_ns: u64,
    random: u64,
}

impl Machine {
    fn new(tasks: usize) -> Result<Self> {
        let allocated = Quantities::cpus_mem(CPU_MILLI, MEM_BYTES)
            .with(ResourceKind::DiskBandwidth, DISK_BYTES_PER_S)
            .with(ResourceKind::NetworkBandwidth, NETWORK_BYTES_PER_S);
        let view = |number: usize| -> Result<RunningView> {
            let name = format!("task-{number:06}-of-a-framework");
            Ok(RunningView {
                container_id: ContainerId::new(name.as_str()).context("a container's id")?,
                framework_id: FrameworkId::new("framework").context("a framework's id")?,
                task_id: TaskId::new(name).context("a task's id")?,
                allocated: Resources::regular(allocated),
                cpu_limit_milli: None,
                started_at: Timestamp::from_ms(EPOCH_MS),
                ends_at: None,
                siblings: None,
            })
        };
        let views = (0..tasks).map(view).collect::<Result<Vec<_>>>()?;
        let first = ContainerSample {
            cpu_ns: Some(0),
            run_queue_wait_ns: Some(0),
            run_queue_count: Some(0),
            run_queue_histogram: Some([0; RUN_QUEUE_BUCKETS]),
            preempted_by_revocable: Some(0),
            preempted_by_other: Some(0),
            mem_bytes: Some(0),
            disk: Some(IoSample::default()),
            disk_source: MeasureSource::Ebpf,
            traffic: Some(TrafficSample::default()),
            ..ContainerSample::absent(MeasureSource::Ebpf)
        };
        let ids = views.iter().map(|view| view.container_id.clone());
        Ok(Self {
            now_ms: EPOCH_MS,
            samples: 0,
            counters: ids.map(|id| (id, first)).collect(),
            shares: vec![200; views.len()],
            tasks: views,
            busy_ns: 0,
            random: 1,
        })
    }

    fn total(&self) -> Quantities {
        let tasks = self.tasks.len() as u64;
        Quantities::cpus_mem(tasks * CPU_MILLI, tasks * MEM_BYTES)
            .with(ResourceKind::DiskBandwidth, tasks * DISK_BYTES_PER_S)
            .with(ResourceKind::NetworkBandwidth, tasks * NETWORK_BYTES_PER_S)
    }

    /// A number below another one.
    fn below(&mut self, end: u64) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random % end
    }

    /// The reading after so long.
    fn sample(&mut self, after_ms: u64) -> Sample {
        self.now_ms += after_ms;
        self.samples += 1;
        let is_full = after_ms >= 1_000 || self.samples.is_multiple_of(10);
        for at in 0..self.shares.len() {
            let step = self.below(41);
            self.shares[at] = (self.shares[at] + step).saturating_sub(20).clamp(50, 900);
        }
        for (one, share) in self.counters.values_mut().zip(&self.shares) {
            let ran_ns = CPU_MILLI * share / 1_000 * after_ms * 1_000;
            self.busy_ns += ran_ns;
            one.cpu_ns = one.cpu_ns.map(|ns| ns + ran_ns);
            one.run_queue_wait_ns = one.run_queue_wait_ns.map(|ns| ns + after_ms * 20_000);
            one.run_queue_count = one.run_queue_count.map(|count| count + after_ms);
            one.mem_bytes = Some(MEM_BYTES / 1_000 * share);
            if let Some(traffic) = &mut one.traffic {
                traffic.out_bytes += NETWORK_BYTES_PER_S * share / 1_000 * after_ms / 1_000;
            }
            if let Some(disk) = &mut one.disk {
                disk.read_bytes += DISK_BYTES_PER_S * share / 1_000 * after_ms / 1_000;
            }
        }
        let quick = |one: &ContainerSample| match is_full {
            true => *one,
            false => ContainerSample {
                mem_bytes: None,
                disk: None,
                ..*one
            },
        };
        let all = self.counters.iter();
        Sample {
            taken_ns: self.now_ms * 1_000_000,
            full: is_full,
            host: HostCounters {
                cpu_busy_ns: Some(self.busy_ns),
                unmanaged_cpu_ns: Some(0),
                cpus: Some(self.tasks.len() as u32),
                mem_available_bytes: Some(self.tasks.len() as u64 * MEM_BYTES),
                mem_total_bytes: Some(2 * self.tasks.len() as u64 * MEM_BYTES),
                pressure: None,
            },
            containers: all.map(|(id, one)| (id.clone(), quick(one))).collect(),
            ..Sample::default()
        }
    }
}

/// What runs through the same samples.
struct Subjects {
    meter: Meter,
    estimator: Estimator,
    lending: Lending,
    total: Quantities,
}

impl Subjects {
    /// Takes a sample in; how long the estimator took, and all of lending, in seconds.
    fn step(&mut self, machine: &mut Machine, after_ms: u64) -> (f64, f64) {
        let sample = machine.sample(after_ms);
        let now = Timestamp::from_ms(machine.now_ms);
        let view = self.meter.push(&sample);
        let facts = Facts {
            usage: Some(&view),
            tasks: &machine.tasks,
            total: &self.total,
            holding_back: false,
            limiting_network: false,
            reclaiming_memory: false,
        };
        let start = Instant::now();
        std::hint::black_box(self.estimator.step(now, facts));
        let estimator = start.elapsed();
        let start = Instant::now();
        std::hint::black_box(self.lending.on_sample(now, &sample, &machine.tasks));
        (estimator.as_secs_f64(), start.elapsed().as_secs_f64())
    }
}

fn main() -> Result<()> {
    for tasks in CASES {
        let mut machine = Machine::new(tasks)?;
        let total = machine.total();
        let mut subjects = Subjects {
            meter: Meter::new(usage::Config::default()),
            estimator: Estimator::new(Config::default()),
            lending: Lending::new(lending::Config::default(), total),
            total,
        };
        for _ in 0..WARM_SAMPLES {
            subjects.step(&mut machine, WARM_MS);
        }
        let (mut estimator_us, mut lending_us) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            let (mut estimator, mut lending) = (0.0, 0.0);
            for _ in 0..SAMPLES {
                let took = subjects.step(&mut machine, SAMPLE_MS);
                estimator += took.0;
                lending += took.1;
            }
            let each = 1e6 / (SAMPLES as f64 * tasks as f64);
            estimator_us.push(estimator * each);
            lending_us.push(lending * each);
        }
        let case = format!("{tasks} tasks");
        let unit = "us for a task and sample";
        let least = quantile(&mut estimator_us, 0.0);
        figure(&case, "estimator_min", least, unit);
        let median = quantile(&mut estimator_us, 0.5);
        at_most(&case, "estimator_median", median, unit, MOST_US);
        let all = quantile(&mut lending_us, 0.5);
        figure(&case, "lending_median", all, unit);
    }
    Ok(())
}
