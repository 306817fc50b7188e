//! A small machine for the tests: owners get what they ask for, revocable containers what is left
//! and what their caps allow, and every correction is obeyed at once.

use std::collections::BTreeMap;

use ebb_types::{
    ContainerId, Correction, CorrectionAction, FrameworkId, MeasureSource, Quantities,
    ResourceKind, Resources, TaskId, Timestamp,
};

use super::super::running::RunningView;
use super::super::usage::{
    ContainerSample, HostCounters, IO_BUCKETS, IoLatencySample, IoSample, MemorySample,
    RUN_QUEUE_BUCKETS, Sample, SampleVerdict, TrafficSample,
};
use super::{Config, Lending, LendingOutcome};

pub(super) const GIB: u64 = 1 << 30;

/// One container of the small machine.
#[derive(Clone, Debug)]
pub(super) struct Sim {
    pub(super) view: RunningView,
    /// CPU that it asks for, in thousandths of a core.
    pub(super) wants_milli: u64,
    pub(super) mem_bytes: u64,
    pub(super) disk_bytes_per_s: u64,
    /// What it would receive and send through the network, in bytes a second.
    pub(super) wants_traffic: [u64; 2],
    pub(super) traffic: [u64; 2],
    pub(super) network_limit: Option<u64>,
    /// What of its memory is only cached.
    pub(super) cached_bytes: u64,
    pub(super) memory_kept: Option<u64>,
    /// Mean wait of each of 1,000 wake-ups a second, in nanoseconds.
    pub(super) wait_ns: u64,
    /// What its own quota adds to each, in nanoseconds, where the probes tell.
    pub(super) wait_own_ns: Option<u64>,
    pub(super) preempted_by_revocable_per_s: u64,
    pub(super) preempted_by_other_per_s: u64,
    pub(super) throttled_permille: u64,
    /// Time that it spends freeing memory, in thousandths.
    pub(super) reclaim_permille: u64,
    pub(super) mem_limit_bytes: Option<u64>,
    /// Mean time of each of its 100 disk requests a second, in nanoseconds.
    pub(super) io_ns: u64,
    pub(super) forks_per_s: u64,
    pub(super) counters: ContainerSample,
    pub(super) readable: bool,
    cap_milli: Option<u64>,
    frozen: bool,
    used_milli: u64,
}

impl Sim {
    pub(super) fn used_milli(&self) -> u64 {
        self.used_milli
    }

    pub(super) fn is_held(&self) -> bool {
        self.frozen || self.cap_milli.is_some()
    }

    pub(super) fn is_frozen(&self) -> bool {
        self.frozen
    }
}

/// The machine with its agent's lending.
pub(super) struct World {
    pub(super) lending: Lending,
    pub(super) now_ms: u64,
    pub(super) cpus: u32,
    pub(super) total: Quantities,
    pub(super) unmanaged_milli: u64,
    pub(super) mem_available_bytes: u64,
    pub(super) clock_runs: bool,
    /// Whether containers that are told to end do so.
    pub(super) obeys_evictions: bool,
    /// Whether every tenth sample is a full one.
    pub(super) full_samples: bool,
    /// Whether work outside of Ebb is measured by itself.
    pub(super) probes: bool,
    pub(super) sims: BTreeMap<String, Sim>,
    pub(super) corrections: Vec<Correction>,
    /// Every value told to the master, with when.
    pub(super) told: Vec<(u64, Quantities)>,
    taken_ns: u64,
    busy_ns: u64,
    unmanaged_ns: u64,
    samples: u64,
}

pub(super) fn container(name: &str) -> ContainerId {
    ContainerId::new(name).unwrap()
}

impl World {
    /// Two CPUs and 8 GiB, all of it the agent's.
    pub(super) fn new() -> Self {
        Self::with(Config::default(), Quantities::cpus_mem(2_000, 8 * GIB))
    }

    pub(super) fn with(config: Config, total: Quantities) -> Self {
        Self {
            lending: Lending::new(config, total),
            now_ms: 1_000_000,
            cpus: 2,
            total,
            unmanaged_milli: 0,
            mem_available_bytes: 7 * GIB,
            clock_runs: true,
            sims: BTreeMap::new(),
            corrections: Vec::new(),
            told: Vec::new(),
            taken_ns: 5_000_000_000,
            busy_ns: 0,
            unmanaged_ns: 0,
            probes: true,
            full_samples: true,
            obeys_evictions: true,
            samples: 0,
        }
    }

    pub(super) fn add(&mut self, name: &str, allocated: Resources, wants_milli: u64) {
        let view = RunningView {
            container_id: container(name),
            framework_id: FrameworkId::new("framework").unwrap(),
            task_id: TaskId::new(name).unwrap(),
            allocated,
            cpu_limit_milli: None,
            started_at: Timestamp::from_ms(self.now_ms),
            ends_at: None,
            siblings: None,
        };
        let counters = ContainerSample {
            cpu_ns: Some(0),
            run_queue_wait_ns: Some(0),
            run_queue_count: Some(0),
            run_queue_histogram: Some([0; RUN_QUEUE_BUCKETS]),
            preempted_by_revocable: Some(0),
            preempted_by_other: Some(0),
            throttled_ns: Some(0),
            mem_bytes: Some(0),
            disk: Some(IoSample {
                latency: Some(IoLatencySample::default()),
                ..IoSample::default()
            }),
            disk_source: MeasureSource::Ebpf,
            reclaim_ns: Some(0),
            traffic: Some(TrafficSample::default()),
            forks: Some(0),
            ..ContainerSample::absent(MeasureSource::Ebpf)
        };
        let sim = Sim {
            view,
            wants_milli,
            mem_bytes: 100 << 20,
            disk_bytes_per_s: 0,
            wants_traffic: [0; 2],
            traffic: [0; 2],
            network_limit: None,
            cached_bytes: 0,
            memory_kept: None,
            wait_ns: 20_000,
            wait_own_ns: None,
            preempted_by_revocable_per_s: 0,
            preempted_by_other_per_s: 0,
            throttled_permille: 0,
            reclaim_permille: 0,
            mem_limit_bytes: None,
            io_ns: 1_000_000,
            forks_per_s: 0,
            counters,
            readable: true,
            cap_milli: None,
            frozen: false,
            used_milli: 0,
        };
        self.sims.insert(name.to_owned(), sim);
    }

    /// A task that owns `cpu_milli` and 1 GiB.
    pub(super) fn own(&mut self, name: &str, cpu_milli: u64, wants_milli: u64) {
        let allocated = Resources::regular(Quantities::cpus_mem(cpu_milli, GIB));
        self.add(name, allocated, wants_milli);
    }

    /// A task that has `cpu_milli` on loan.
    pub(super) fn lend(&mut self, name: &str, cpu_milli: u64, wants_milli: u64) {
        let allocated = Resources::revocable(Quantities::cpus_mem(cpu_milli, 0));
        self.add(name, allocated, wants_milli);
    }

    pub(super) fn sim(&mut self, name: &str) -> &mut Sim {
        self.sims.get_mut(name).unwrap()
    }

    pub(super) fn end(&mut self, name: &str) {
        self.sims.remove(name);
        self.lending.on_container_ended(&container(name));
    }

    pub(super) fn views(&self) -> Vec<RunningView> {
        self.sims.values().map(|sim| sim.view.clone()).collect()
    }

    pub(super) fn in_use_milli(&self) -> u64 {
        self.sims
            .values()
            .map(|sim| sim.view.allocated.revocable.cpu_milli())
            .sum()
    }

    /// Lets 100 ms pass and takes a sample.
    pub(super) fn step(&mut self) -> LendingOutcome {
        self.run_for(100);
        let sample = self.sample();
        self.feed(&sample)
    }

    /// The same for so many seconds; gives the last outcome.
    pub(super) fn seconds(&mut self, seconds: u64) -> LendingOutcome {
        let mut last = LendingOutcome::default();
        for _ in 0..seconds * 10 {
            last = self.step();
        }
        last
    }

    pub(super) fn turn_clock_back(&mut self, ms: u64) {
        self.taken_ns -= ms * 1_000_000;
    }

    /// Lets time pass without a sample.
    pub(super) fn run_for(&mut self, ms: u64) {
        self.now_ms += ms;
        if self.clock_runs {
            self.taken_ns += ms * 1_000_000;
        }
        let mut free =
            u64::from(self.cpus) * 1000 - self.unmanaged_milli.min(u64::from(self.cpus) * 1000);
        let mut sims: Vec<_> = self.sims.values_mut().collect();
        sims.sort_by_key(|sim| sim.view.allocated.is_revocable());
        let mut busy = self.unmanaged_milli;
        for sim in sims {
            let cap = if sim.frozen {
                0
            } else {
                sim.cap_milli.unwrap_or(u64::MAX)
            };
            sim.used_milli = sim.wants_milli.min(cap).min(free);
            free -= sim.used_milli;
            busy += sim.used_milli;
            let ran = sim.used_milli * ms * 1_000;
            let wakes = ms;
            let counters = &mut sim.counters;
            add(&mut counters.cpu_ns, ran);
            let own_ns = sim.wait_own_ns.map(|ns| wakes * ns);
            add(
                &mut counters.run_queue_wait_ns,
                wakes * sim.wait_ns + own_ns.unwrap_or(0),
            );
            if let Some(own_ns) = own_ns {
                *counters.run_queue_wait_own_ns.get_or_insert(0) += own_ns;
            }
            add(&mut counters.run_queue_count, wakes);
            if let Some(histogram) = &mut counters.run_queue_histogram {
                histogram[sim.wait_ns.max(1).ilog2() as usize] += wakes;
            }
            add(
                &mut counters.preempted_by_revocable,
                sim.preempted_by_revocable_per_s * ms / 1_000,
            );
            add(
                &mut counters.preempted_by_other,
                sim.preempted_by_other_per_s * ms / 1_000,
            );
            add(&mut counters.reclaim_ns, sim.reclaim_permille * ms * 1_000);
            add(&mut counters.forks, sim.forks_per_s * ms / 1_000);
            let reclaimed = sim
                .mem_bytes
                .saturating_sub(sim.memory_kept.unwrap_or(u64::MAX));
            counters.memory = Some(MemorySample {
                anon_bytes: Some(sim.mem_bytes - sim.cached_bytes),
                file_bytes: Some(sim.cached_bytes.saturating_sub(reclaimed)),
                limit_bytes: sim.mem_limit_bytes,
                ..MemorySample::default()
            });
            add(
                &mut counters.throttled_ns,
                sim.throttled_permille * ms * 1_000,
            );
            counters.mem_bytes = Some(sim.mem_bytes - reclaimed.min(sim.cached_bytes));
            if let Some(disk) = &mut counters.disk {
                let runs = !sim.frozen;
                disk.write_bytes += u64::from(runs) * sim.disk_bytes_per_s * ms / 1_000;
                let requests = u64::from(runs && sim.disk_bytes_per_s > 0) * ms / 10;
                if let Some(latency) = &mut disk.latency {
                    latency.total_ns += requests * sim.io_ns;
                    let bucket = (sim.io_ns / 1_024).max(1).ilog2() as usize;
                    latency.device_histogram[bucket.min(IO_BUCKETS - 1)] += requests;
                }
            }
        }
        self.send_and_receive(ms);
        self.busy_ns += busy * ms * 1_000;
        self.unmanaged_ns += self.unmanaged_milli * ms * 1_000;
    }

    /// A network that is full gives each the same part of what it would send, whoever it is.
    fn send_and_receive(&mut self, ms: u64) {
        let all = self.total.get(ResourceKind::NetworkBandwidth);
        for way in 0..2 {
            let would = |sim: &Sim| {
                let own = sim.view.allocated.total(ResourceKind::NetworkBandwidth);
                let own = Some(own).filter(|own| *own > 0);
                let most = own.into_iter().chain(sim.network_limit).min();
                let wants = sim.wants_traffic[way].min(most.unwrap_or(u64::MAX));
                if sim.frozen { 0 } else { wants }
            };
            let together: u64 = self.sims.values().map(would).sum();
            for sim in self.sims.values_mut() {
                let share = would(sim) * all.min(together) / together.max(1);
                sim.traffic[way] = share;
                if let Some(traffic) = &mut sim.counters.traffic {
                    let ways = [&mut traffic.in_bytes, &mut traffic.out_bytes];
                    *ways[way] += share * ms / 1_000;
                }
            }
        }
    }

    /// A sample between the regular ones.
    pub(super) fn quick_sample(&mut self) -> Sample {
        self.sample_of(false)
    }

    pub(super) fn sample(&mut self) -> Sample {
        self.samples += 1;
        self.sample_of(self.full_samples && self.samples.is_multiple_of(10))
    }

    fn sample_of(&self, full: bool) -> Sample {
        Sample {
            taken_ns: self.taken_ns,
            full,
            host: HostCounters {
                cpu_busy_ns: Some(self.busy_ns),
                unmanaged_cpu_ns: self.probes.then_some(self.unmanaged_ns),
                cpus: Some(self.cpus),
                mem_available_bytes: Some(self.mem_available_bytes),
                mem_total_bytes: Some(8 * GIB),
                pressure: None,
            },
            containers: self
                .sims
                .values()
                .map(|sim| {
                    let quick = ContainerSample {
                        throttled_ns: None,
                        mem_bytes: None,
                        memory: None,
                        disk: None,
                        ..sim.counters
                    };
                    let counters = if sim.readable {
                        if full { sim.counters } else { quick }
                    } else {
                        ContainerSample::absent(MeasureSource::Ebpf)
                    };
                    (sim.view.container_id.clone(), counters)
                })
                .collect(),
            ..Sample::default()
        }
    }

    /// Hands a sample in, checks what must always hold, and obeys.
    pub(super) fn feed(&mut self, sample: &Sample) -> LendingOutcome {
        let views = self.views();
        let outcome = self
            .lending
            .on_sample(Timestamp::from_ms(self.now_ms), sample, &views);
        self.follow(&outcome);
        outcome
    }

    /// What a driver does without a sample.
    pub(super) fn tick(&mut self) -> LendingOutcome {
        let views = self.views();
        let outcome = self
            .lending
            .on_tick(Timestamp::from_ms(self.now_ms), &views);
        self.follow(&outcome);
        outcome
    }

    fn follow(&mut self, outcome: &LendingOutcome) {
        let lent = outcome.usage.lent;
        assert!(
            lent.cpu_milli() >= self.in_use_milli(),
            "less lent than in use"
        );
        assert_eq!(
            outcome.offerable.cpu_milli(),
            lent.cpu_milli() - self.in_use_milli()
        );
        if outcome.verdict == SampleVerdict::Valid && outcome.offerable.cpu_milli() > 0 {
            let slack = measured_slack_milli(outcome);
            assert!(
                lent.cpu_milli() <= slack,
                "{lent} of {slack} at {}",
                self.now_ms
            );
        }
        if let Some(changed) = outcome.oversubscribed {
            assert_eq!(changed, lent);
            self.told.push((self.now_ms, changed));
        }
        let mut named = std::collections::BTreeSet::new();
        for correction in &outcome.usage.corrections {
            assert!(
                named.insert(correction.container_id.clone()),
                "corrected twice"
            );
            let sim = self
                .sims
                .get_mut(correction.task_id.as_str())
                .expect("a task that runs");
            assert!(sim.view.allocated.is_revocable(), "an owner was corrected");
            match correction.action {
                CorrectionAction::Throttle { cpu_milli } => {
                    (sim.cap_milli, sim.frozen) = (Some(cpu_milli), false);
                }
                CorrectionAction::Freeze => sim.frozen = true,
                CorrectionAction::Release => (sim.cap_milli, sim.frozen) = (None, false),
                CorrectionAction::LimitNetwork { bytes_per_s } => {
                    sim.network_limit = Some(bytes_per_s);
                }
                CorrectionAction::ReleaseNetwork => sim.network_limit = None,
                CorrectionAction::ReclaimMemory { to_bytes } => sim.memory_kept = Some(to_bytes),
                CorrectionAction::ReleaseMemory => sim.memory_kept = None,
                CorrectionAction::Evict if !self.obeys_evictions => {}
                CorrectionAction::Evict => {
                    self.mem_available_bytes += sim.mem_bytes;
                    self.end(correction.task_id.as_str());
                }
            }
        }
        self.corrections
            .extend(outcome.usage.corrections.iter().cloned());
    }

    pub(super) fn actions(&self) -> Vec<(u64, &'static str, String)> {
        self.corrections
            .iter()
            .map(|c| (c.at.as_ms(), c.action.name(), c.task_id.to_string()))
            .collect()
    }
}

/// What owners are allocated and did not use over the last second, in thousandths of a core.
fn measured_slack_milli(outcome: &LendingOutcome) -> u64 {
    let owned = outcome
        .usage
        .tasks
        .iter()
        .filter(|task| !task.allocated.is_revocable());
    owned
        .filter_map(|task| {
            let allocated = task.allocated.regular.cpu_milli();
            Some(allocated.saturating_sub(task.used.cpu_milli?))
        })
        .sum()
}

fn add(counter: &mut Option<u64>, amount: u64) {
    if let Some(value) = counter {
        *value += amount;
    }
}
