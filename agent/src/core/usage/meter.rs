//! The meter: follows every counter of every container from sample to sample.

use std::collections::BTreeMap;

use ebb_types::{ContainerId, MeasureSource};

use super::track::{Delta, Limits, Track, quantile_ns};
use super::{
    Config, ContainerSample, ContainerUse, Counters, HostCounters, MAX_CONTAINERS, MachineUse,
    RUN_QUEUE_BUCKETS, Rates, Sample, SampleVerdict, UsageView,
};

/// CPU time beyond this many times what the machine has is a wrong measurement. Twice, because the
/// readings of a sample are not all taken at the very same moment.
const IMPLAUSIBLE_FACTOR: u64 = 2;

const NS_PER_MS: u64 = 1_000_000;

/// Takes samples in and gives rates out.
#[derive(Clone, Debug)]
pub struct Meter {
    limits: Limits,
    last_taken_ns: Option<u64>,
    busy: Track<u64>,
    total: Track<u64>,
    containers: BTreeMap<ContainerId, Tracks>,
    counters: Counters,
}

/// Every counter of one container.
#[derive(Clone, Debug)]
struct Tracks {
    seen_ns: u64,
    cpu_source: MeasureSource,
    cpu: Track<u64>,
    wait: Track<u64>,
    waits: Track<u64>,
    histogram: Track<[u64; RUN_QUEUE_BUCKETS]>,
    by_revocable: Track<u64>,
    by_other: Track<u64>,
    throttled: Track<u64>,
    disk: Track<u64>,
}

impl Meter {
    /// A meter that has seen nothing.
    pub fn new(config: Config) -> Self {
        Self {
            limits: Limits {
                max_gap_ns: config.max_gap_ms.saturating_mul(NS_PER_MS),
                window_ns: config.window_ms.saturating_mul(NS_PER_MS),
            },
            last_taken_ns: None,
            busy: Track::default(),
            total: Track::default(),
            containers: BTreeMap::new(),
            counters: Counters::default(),
        }
    }

    /// What went wrong so far.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// Forgets a container; one that is not known is fine.
    pub fn forget(&mut self, container_id: &ContainerId) {
        self.containers.remove(container_id);
    }

    /// Takes a sample in.
    pub fn push(&mut self, sample: &Sample) -> UsageView {
        self.counters.samples += 1;
        let verdict = self.judge(sample.taken_ns);
        if verdict == SampleVerdict::Duplicate {
            return UsageView {
                verdict,
                ..UsageView::default()
            };
        }
        if matches!(verdict, SampleVerdict::Gap | SampleVerdict::Backward) {
            self.clear();
        }
        self.last_taken_ns = Some(sample.taken_ns);
        let machine = self.push_host(sample.taken_ns, &sample.host);
        let containers = self.push_containers(sample, machine.capacity_milli);
        if verdict == SampleVerdict::Valid {
            UsageView {
                verdict,
                machine,
                containers,
            }
        } else {
            UsageView {
                verdict,
                ..UsageView::default()
            }
        }
    }

    fn judge(&mut self, taken_ns: u64) -> SampleVerdict {
        let Some(last_ns) = self.last_taken_ns else {
            return SampleVerdict::Baseline;
        };
        if taken_ns == last_ns {
            self.counters.duplicates += 1;
            SampleVerdict::Duplicate
        } else if taken_ns < last_ns {
            self.counters.backward += 1;
            SampleVerdict::Backward
        } else if taken_ns - last_ns > self.limits.max_gap_ns {
            self.counters.gaps += 1;
            SampleVerdict::Gap
        } else {
            SampleVerdict::Valid
        }
    }

    fn clear(&mut self) {
        self.busy.clear();
        self.total.clear();
        for tracks in self.containers.values_mut() {
            tracks.clear();
        }
    }

    fn push_host(&mut self, taken_ns: u64, host: &HostCounters) -> MachineUse {
        let limits = self.limits;
        for (track, reading) in [
            (&mut self.busy, host.cpu_busy_ns),
            (&mut self.total, host.cpu_total_ns),
        ] {
            self.counters.resets += u64::from(track.push(taken_ns, reading, limits));
        }
        // The kernel counts in ticks, so only a second of them tells how many CPUs there are.
        let capacity = self.total.slow(taken_ns, limits).map(|d| d.permille());
        MachineUse {
            fast_busy_milli: self.busy.fast(taken_ns).map(|d| d.permille()),
            slow_busy_milli: self.busy.slow(taken_ns, limits).map(|d| d.permille()),
            capacity_milli: capacity
                .map(|milli| (milli + 500) / 1000 * 1000)
                .filter(|milli| *milli > 0),
            mem_available_bytes: host.mem_available_bytes,
            mem_total_bytes: host.mem_total_bytes,
        }
    }

    fn push_containers(
        &mut self,
        sample: &Sample,
        capacity_milli: Option<u64>,
    ) -> BTreeMap<ContainerId, ContainerUse> {
        let taken_ns = sample.taken_ns;
        let (limits, counters) = (self.limits, &mut self.counters);
        // A container that is no longer sampled would be a gap by now anyway.
        self.containers
            .retain(|_, tracks| taken_ns.saturating_sub(tracks.seen_ns) <= limits.max_gap_ns);
        let mut view = BTreeMap::new();
        for (id, reading) in &sample.containers {
            if !self.containers.contains_key(id) && self.containers.len() >= MAX_CONTAINERS {
                counters.containers_ignored += 1;
                continue;
            }
            let tracks = self
                .containers
                .entry(id.clone())
                .or_insert_with(|| Tracks::new(taken_ns, reading.cpu_source));
            tracks.push(taken_ns, reading, limits, counters);
            let most_milli = capacity_milli.map(|milli| milli.saturating_mul(IMPLAUSIBLE_FACTOR));
            let (fast, slow) = tracks.rates(taken_ns, limits, most_milli, counters);
            view.insert(
                id.clone(),
                ContainerUse {
                    fast,
                    slow,
                    mem_bytes: reading.mem_bytes,
                    cpu_source: reading.cpu_source,
                },
            );
        }
        view
    }
}

impl Tracks {
    fn new(seen_ns: u64, cpu_source: MeasureSource) -> Self {
        Self {
            seen_ns,
            cpu_source,
            cpu: Track::default(),
            wait: Track::default(),
            waits: Track::default(),
            histogram: Track::default(),
            by_revocable: Track::default(),
            by_other: Track::default(),
            throttled: Track::default(),
            disk: Track::default(),
        }
    }

    fn clear(&mut self) {
        *self = Self::new(self.seen_ns, self.cpu_source);
    }

    fn push(
        &mut self,
        taken_ns: u64,
        reading: &ContainerSample,
        limits: Limits,
        counters: &mut Counters,
    ) {
        self.seen_ns = taken_ns;
        if self.cpu_source != reading.cpu_source {
            self.cpu_source = reading.cpu_source;
            self.cpu.clear();
        }
        let mut resets = 0;
        for (track, value) in [
            (&mut self.cpu, reading.cpu_ns),
            (&mut self.wait, reading.run_queue_wait_ns),
            (&mut self.waits, reading.run_queue_count),
            (&mut self.by_revocable, reading.preempted_by_revocable),
            (&mut self.by_other, reading.preempted_by_other),
            (&mut self.throttled, reading.throttled_ns),
            (&mut self.disk, reading.disk_bytes),
        ] {
            resets += u64::from(track.push(taken_ns, value, limits));
        }
        let histogram = reading.run_queue_histogram;
        resets += u64::from(self.histogram.push(taken_ns, histogram, limits));
        counters.resets += resets;
    }

    fn rates(
        &mut self,
        taken_ns: u64,
        limits: Limits,
        most_milli: Option<u64>,
        counters: &mut Counters,
    ) -> (Rates, Rates) {
        let too_much = |delta: Delta<u64>| most_milli.is_some_and(|most| delta.permille() > most);
        if self.cpu.fast(taken_ns).is_some_and(too_much) {
            counters.implausible += 1;
            self.cpu.clear();
        }
        let fast = Rates {
            cpu_milli: self.cpu.fast(taken_ns).map(|d| d.permille()),
            waiting_milli: self.wait.fast(taken_ns).map(|d| d.permille()),
            preempted_by_revocable_per_s: self.by_revocable.fast(taken_ns).map(|d| d.per_second()),
            preempted_by_other_per_s: self.by_other.fast(taken_ns).map(|d| d.per_second()),
            throttled_permille: self.throttled.fast(taken_ns).map(|d| d.permille()),
            disk_bytes_per_s: self.disk.fast(taken_ns).map(|d| d.per_second()),
            ..waits(
                self.wait.fast(taken_ns),
                self.waits.fast(taken_ns),
                self.histogram.fast(taken_ns),
            )
        };
        let second = |track: &Track<u64>| track.slow(taken_ns, limits);
        let slow = Rates {
            cpu_milli: second(&self.cpu).map(|d| d.permille()),
            waiting_milli: second(&self.wait).map(|d| d.permille()),
            preempted_by_revocable_per_s: second(&self.by_revocable).map(|d| d.per_second()),
            preempted_by_other_per_s: second(&self.by_other).map(|d| d.per_second()),
            throttled_permille: second(&self.throttled).map(|d| d.permille()),
            disk_bytes_per_s: second(&self.disk).map(|d| d.per_second()),
            ..waits(
                second(&self.wait),
                second(&self.waits),
                self.histogram.slow(taken_ns, limits),
            )
        };
        (fast, slow)
    }
}

/// The figures about waits alone.
fn waits(
    sum: Option<Delta<u64>>,
    count: Option<Delta<u64>>,
    histogram: Option<Delta<[u64; RUN_QUEUE_BUCKETS]>>,
) -> Rates {
    let mean = sum
        .zip(count)
        .filter(|(sum, count)| sum.span_ns == count.span_ns)
        .and_then(|(sum, count)| sum.amount.checked_div(count.amount));
    Rates {
        waits: count.map(|delta| delta.amount),
        wait_mean_ns: mean,
        wait_p50_ns: histogram.and_then(|delta| quantile_ns(&delta.amount, 500)),
        wait_p99_ns: histogram.and_then(|delta| quantile_ns(&delta.amount, 990)),
        ..Rates::default()
    }
}
