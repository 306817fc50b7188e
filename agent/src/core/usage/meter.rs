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
    full_limits: Limits,
    last_taken_ns: Option<u64>,
    busy: Track<u64>,
    unmanaged: Track<u64>,
    /// All CPU time that containers were ever seen to use, those that have ended included.
    managed_ns: u64,
    managed: Track<u64>,
    containers: BTreeMap<ContainerId, Tracks>,
    counters: Counters,
}

/// Every counter of one container.
#[derive(Clone, Debug)]
struct Tracks {
    seen_ns: u64,
    /// When the last full sample was taken, and the memory that it found.
    full: Option<(u64, Option<u64>)>,
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
        let limits = |max_gap_ms: u64| Limits {
            max_gap_ns: max_gap_ms.saturating_mul(NS_PER_MS),
            window_ns: config.window_ms.saturating_mul(NS_PER_MS),
        };
        Self {
            limits: limits(config.max_gap_ms),
            full_limits: limits(config.full_max_gap_ms.max(config.max_gap_ms)),
            last_taken_ns: None,
            busy: Track::default(),
            unmanaged: Track::default(),
            managed_ns: 0,
            managed: Track::default(),
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
        let capacity_milli = sample.host.cpus.map(|cpus| u64::from(cpus) * 1000);
        let capacity_milli = capacity_milli.filter(|milli| *milli > 0);
        let containers = self.push_containers(sample, capacity_milli);
        let machine = self.push_host(sample.taken_ns, &sample.host, capacity_milli);
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
        self.unmanaged.clear();
        self.managed.clear();
        for tracks in self.containers.values_mut() {
            tracks.clear();
        }
    }

    fn push_host(
        &mut self,
        taken_ns: u64,
        host: &HostCounters,
        capacity_milli: Option<u64>,
    ) -> MachineUse {
        let limits = self.limits;
        let managed_ns = self.managed_ns;
        for (track, reading) in [
            (&mut self.busy, host.cpu_busy_ns),
            (&mut self.unmanaged, host.unmanaged_cpu_ns),
            (&mut self.managed, Some(managed_ns)),
        ] {
            self.counters.resets += u64::from(track.push(taken_ns, reading, limits));
        }
        let second = |track: &Track<u64>| track.slow(taken_ns, limits).map(|d| d.permille());
        let rest = second(&self.busy)
            .zip(second(&self.managed))
            .map(|(busy, managed)| busy.saturating_sub(managed));
        MachineUse {
            fast_busy_milli: self.busy.fast(taken_ns).map(|d| d.permille()),
            slow_busy_milli: second(&self.busy),
            slow_unmanaged_milli: second(&self.unmanaged).or(rest),
            capacity_milli,
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
        let full_limits = self.full_limits;
        let full = sample.full.then_some(full_limits);
        // A container that is no longer sampled would be a gap by now anyway.
        self.containers
            .retain(|_, tracks| taken_ns.saturating_sub(tracks.seen_ns) <= limits.max_gap_ns);
        let mut managed_ns = self.managed_ns;
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
            tracks.push(taken_ns, reading, limits, full, counters);
            let most_milli = capacity_milli.map(|milli| milli.saturating_mul(IMPLAUSIBLE_FACTOR));
            let (fast, slow) = tracks.rates(taken_ns, limits, full_limits, most_milli, counters);
            let used_ns = tracks.cpu.fast(taken_ns).map_or(0, |delta| delta.amount);
            managed_ns = managed_ns.saturating_add(used_ns);
            view.insert(
                id.clone(),
                ContainerUse {
                    fast,
                    slow,
                    mem_bytes: tracks
                        .full_within(taken_ns, full_limits)
                        .and_then(|at| at.1),
                    cpu_source: reading.cpu_source,
                },
            );
        }
        self.managed_ns = managed_ns;
        view
    }
}

impl Tracks {
    fn new(seen_ns: u64, cpu_source: MeasureSource) -> Self {
        Self {
            seen_ns,
            full: None,
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

    /// The last full sample, if it is not too old.
    fn full_within(&self, taken_ns: u64, limits: Limits) -> Option<(u64, Option<u64>)> {
        self.full
            .filter(|(at_ns, _)| taken_ns.saturating_sub(*at_ns) <= limits.max_gap_ns)
    }

    fn clear(&mut self) {
        *self = Self::new(self.seen_ns, self.cpu_source);
    }

    fn push(
        &mut self,
        taken_ns: u64,
        reading: &ContainerSample,
        limits: Limits,
        full: Option<Limits>,
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
        ] {
            resets += u64::from(track.push(taken_ns, value, limits));
        }
        if let Some(limits) = full {
            self.full = Some((taken_ns, reading.mem_bytes));
            resets += u64::from(self.throttled.push(taken_ns, reading.throttled_ns, limits));
            resets += u64::from(self.disk.push(taken_ns, reading.disk_bytes, limits));
        }
        let histogram = reading.run_queue_histogram;
        resets += u64::from(self.histogram.push(taken_ns, histogram, limits));
        counters.resets += resets;
    }

    fn rates(
        &mut self,
        taken_ns: u64,
        limits: Limits,
        full_limits: Limits,
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
        let full_ns = self.full_within(taken_ns, full_limits).map(|at| at.0);
        let of_full = |track: &Track<u64>| track.slow(full_ns?, full_limits);
        let slow = Rates {
            cpu_milli: second(&self.cpu).map(|d| d.permille()),
            waiting_milli: second(&self.wait).map(|d| d.permille()),
            preempted_by_revocable_per_s: second(&self.by_revocable).map(|d| d.per_second()),
            preempted_by_other_per_s: second(&self.by_other).map(|d| d.per_second()),
            throttled_permille: of_full(&self.throttled).map(|d| d.permille()),
            disk_bytes_per_s: of_full(&self.disk).map(|d| d.per_second()),
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
