//! Every counter of one container, and its rates.
//!
//! Figures that are only in full samples have their last value and their slow rate stand in between, for as long as
//! [`Config::full_max_gap_ms`](super::Config::full_max_gap_ms).

use ebb_types::MeasureSource;

use super::io::latency;
use super::sample::IoLatencySample;
use super::track::{Count, Delta, Limits, Track, quantile};
use super::{
    ContainerSample, ContainerUse, Counters, MemorySample, PressureSample, RUN_QUEUE_BUCKETS,
    Rates, TrafficSample,
};

/// Over how long traffic with the network is looked at, in nanoseconds: the time between two regular samples, with some
/// room for late ones.
const BURSTS_NS: u64 = 90_000_000;

/// When differences of this sample may be trusted.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    /// Of figures that are in every sample.
    pub(super) quick: Limits,
    /// Of those in full ones.
    pub(super) full: Limits,
    /// Whether this is one.
    pub(super) is_full: bool,
    /// CPU beyond this cannot be, in thousandths of a core.
    pub(super) most_milli: Option<u64>,
}

/// Where the figures come from that may have more than one source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Sources {
    cpu: MeasureSource,
    faults: MeasureSource,
    oom_kills: MeasureSource,
    disk: MeasureSource,
}

impl Sources {
    fn of(reading: &ContainerSample) -> Self {
        Self {
            cpu: reading.cpu_source,
            faults: reading.faults_source,
            oom_kills: reading.oom_source,
            disk: reading.disk_source,
        }
    }
}

/// Every counter of one container.
#[derive(Clone, Debug)]
pub(super) struct Tracks {
    seen_ns: u64,
    /// When the last full sample was taken.
    full_ns: Option<u64>,
    /// The memory that it found.
    mem_bytes: Option<u64>,
    memory: Option<MemorySample>,
    oom_kills: Option<u64>,
    sources: Sources,
    cpu: Track<u64>,
    split: Track<[u64; 2]>,
    wait: Track<u64>,
    wait_own: Track<u64>,
    waits: Track<u64>,
    histogram: Track<[u64; RUN_QUEUE_BUCKETS]>,
    by_revocable: Track<u64>,
    by_other: Track<u64>,
    migrations: Track<u64>,
    throttled: Track<u64>,
    reclaim: Track<u64>,
    faults: Track<[u64; 2]>,
    disk: Track<[u64; 2]>,
    io: Track<IoLatencySample>,
    net: Track<[u64; 2]>,
    traffic: Track<[u64; 3]>,
    forks: Track<u64>,
    pressure: Track<[u64; 3]>,
}

impl Tracks {
    pub(super) fn new(seen_ns: u64, reading: &ContainerSample) -> Self {
        Self::empty(seen_ns, Sources::of(reading))
    }

    fn empty(seen_ns: u64, sources: Sources) -> Self {
        Self {
            seen_ns,
            full_ns: None,
            mem_bytes: None,
            memory: None,
            oom_kills: None,
            sources,
            cpu: Track::default(),
            split: Track::default(),
            wait: Track::default(),
            wait_own: Track::default(),
            waits: Track::default(),
            histogram: Track::default(),
            by_revocable: Track::default(),
            by_other: Track::default(),
            migrations: Track::default(),
            throttled: Track::default(),
            reclaim: Track::default(),
            faults: Track::default(),
            disk: Track::default(),
            io: Track::default(),
            net: Track::default(),
            traffic: Track::default(),
            forks: Track::default(),
            pressure: Track::default(),
        }
    }

    /// Whether it was not sampled for so long that its next reading is a new baseline.
    pub(super) fn is_lost(&self, taken_ns: u64, limits: Limits) -> bool {
        taken_ns.saturating_sub(self.seen_ns) > limits.max_gap_ns
    }

    /// Forgets everything: the next reading is a baseline.
    pub(super) fn clear(&mut self) {
        *self = Self::empty(self.seen_ns, self.sources);
    }

    /// Takes a reading in; gives what it says, and the CPU time since the one before.
    pub(super) fn push(
        &mut self,
        taken_ns: u64,
        reading: &ContainerSample,
        bounds: &Bounds,
        counters: &mut Counters,
    ) -> (ContainerUse, u64) {
        self.seen_ns = taken_ns;
        self.follow_sources(reading);
        counters.resets += self.push_quick(taken_ns, reading, bounds.quick);
        if self.sources.faults == MeasureSource::Ebpf {
            counters.resets += self.push_faults(taken_ns, reading, bounds.quick);
        }
        self.oom_kills = reading.oom_kills.or(self.oom_kills);
        if bounds.is_full {
            self.full_ns = Some(taken_ns);
            self.mem_bytes = reading.mem_bytes;
            self.memory = reading.memory;
            counters.resets += self.push_full(taken_ns, reading, bounds.full);
            if self.sources.faults == MeasureSource::Files {
                counters.resets += self.push_faults(taken_ns, reading, bounds.full);
            }
        }
        let too_much = |delta: Delta<u64>| bounds.most_milli.is_some_and(|m| delta.permille() > m);
        if self.cpu.fast(taken_ns).is_some_and(too_much) {
            counters.implausible += 1;
            self.cpu.clear();
        }
        let used_ns = self.cpu.fast(taken_ns).map_or(0, |delta| delta.amount);
        (self.used(taken_ns, bounds), used_ns)
    }

    /// A source changes with a figure; a sample without the figure says nothing of its source.
    fn follow_sources(&mut self, reading: &ContainerSample) {
        let sources = &mut self.sources;
        if reading.cpu_ns.is_some() && sources.cpu != reading.cpu_source {
            sources.cpu = reading.cpu_source;
            self.cpu.clear();
        }
        if reading.faults.is_some() && sources.faults != reading.faults_source {
            sources.faults = reading.faults_source;
            self.faults.clear();
        }
        if reading.oom_kills.is_some() {
            sources.oom_kills = reading.oom_source;
        }
        if reading.disk.is_some() && sources.disk != reading.disk_source {
            sources.disk = reading.disk_source;
            self.disk.clear();
            self.io.clear();
        }
    }

    /// Says how many counters stepped back.
    fn push_quick(&mut self, taken_ns: u64, reading: &ContainerSample, limits: Limits) -> u64 {
        let own_ns = reading.run_queue_wait_own_ns;
        let blamed_ns = reading
            .run_queue_wait_ns
            .map(|wait_ns| wait_ns.saturating_sub(own_ns.unwrap_or(0)));
        let mut resets = 0;
        for (track, value) in [
            (&mut self.cpu, reading.cpu_ns),
            (&mut self.wait, blamed_ns),
            (&mut self.wait_own, own_ns),
            (&mut self.waits, reading.run_queue_count),
            (&mut self.by_revocable, reading.preempted_by_revocable),
            (&mut self.by_other, reading.preempted_by_other),
            (&mut self.migrations, reading.migrations),
            (&mut self.reclaim, reading.reclaim_ns),
            (&mut self.forks, reading.forks),
        ] {
            resets += u64::from(track.push(taken_ns, value, limits));
        }
        let histogram = reading.run_queue_histogram;
        resets += u64::from(self.histogram.push(taken_ns, histogram, limits));
        let net = reading.net_bytes.map(<[u64; 2]>::from);
        resets += u64::from(self.net.push(taken_ns, net, limits));
        let traffic = reading.traffic.as_ref().map(TrafficSample::parts);
        resets + u64::from(self.traffic.push(taken_ns, traffic, limits))
    }

    fn push_full(&mut self, taken_ns: u64, reading: &ContainerSample, limits: Limits) -> u64 {
        let disk = reading.disk.as_ref();
        let bytes = disk.map(|disk| [disk.read_bytes, disk.write_bytes]);
        let latency = disk.and_then(|disk| disk.latency);
        let split = reading.cpu_split_ns.map(<[u64; 2]>::from);
        let pressure = reading.pressure.as_ref().map(PressureSample::parts);
        let resets = [
            self.throttled.push(taken_ns, reading.throttled_ns, limits),
            self.disk.push(taken_ns, bytes, limits),
            self.io.push(taken_ns, latency, limits),
            self.split.push(taken_ns, split, limits),
            self.pressure.push(taken_ns, pressure, limits),
        ];
        resets.into_iter().map(u64::from).sum()
    }

    fn push_faults(&mut self, taken_ns: u64, reading: &ContainerSample, limits: Limits) -> u64 {
        let faults = reading.faults.map(<[u64; 2]>::from);
        u64::from(self.faults.push(taken_ns, faults, limits))
    }

    fn used(&self, taken_ns: u64, bounds: &Bounds) -> ContainerUse {
        let full_ns = self
            .full_ns
            .filter(|at_ns| taken_ns.saturating_sub(*at_ns) <= bounds.full.max_gap_ns);
        let by_files = self.sources.faults == MeasureSource::Files;
        ContainerUse {
            fast: self.rates(&Window::Fast { taken_ns }),
            slow: self.rates(&Window::Slow {
                taken_ns,
                full_ns,
                by_files,
                bounds,
            }),
            mem_bytes: full_ns.and(self.mem_bytes),
            memory: full_ns.and(self.memory).unwrap_or_default(),
            oom_kills: self.oom_kills,
            cpu_source: self.sources.cpu,
            faults_source: self.sources.faults,
            oom_source: self.sources.oom_kills,
            disk_source: self.sources.disk,
        }
    }

    fn rates(&self, window: &Window<'_>) -> Rates {
        let permille = |delta: Delta<u64>| delta.permille();
        let per_s = |delta: Delta<u64>| delta.per_second();
        let faults = window.of_faults(&self.faults);
        let disk = window.of_full(&self.disk);
        let net = window.of_quick(&self.net);
        let traffic = window.of_bursts(&self.traffic);
        let split = window.of_full(&self.split);
        let pressure = window.of_full(&self.pressure);
        let stalled = |index| pressure.map(|d| d.part(index).permille());
        let both = |d: Delta<[u64; 2]>| {
            let sum = d.part(0).amount.saturating_add(d.part(1).amount);
            let span_ns = d.span_ns;
            per_s(Delta {
                amount: sum,
                span_ns,
            })
        };
        Rates {
            cpu_milli: window.of_quick(&self.cpu).map(permille),
            cpu_user_milli: split.map(|d| d.part(0).permille()),
            cpu_system_milli: split.map(|d| d.part(1).permille()),
            waiting_milli: window.of_quick(&self.wait).map(permille),
            waiting_own_milli: window.of_quick(&self.wait_own).map(permille),
            preempted_by_revocable_per_s: window.of_quick(&self.by_revocable).map(per_s),
            preempted_by_other_per_s: window.of_quick(&self.by_other).map(per_s),
            migrations_per_s: window.of_quick(&self.migrations).map(per_s),
            throttled_permille: window.of_full(&self.throttled).map(permille),
            reclaim_permille: window.of_quick(&self.reclaim).map(permille),
            faults_minor_per_s: faults.map(|d| d.part(0).per_second()),
            faults_major_per_s: faults.map(|d| d.part(1).per_second()),
            disk_bytes_per_s: disk.map(both),
            disk_read_bytes_per_s: disk.map(|d| d.part(0).per_second()),
            disk_write_bytes_per_s: disk.map(|d| d.part(1).per_second()),
            io: latency(window.of_full(&self.io)),
            net_in_bytes_per_s: net.map(|d| d.part(0).per_second()),
            net_out_bytes_per_s: net.map(|d| d.part(1).per_second()),
            traffic_in_bytes_per_s: traffic.map(|d| d.part(0).per_second()),
            traffic_out_bytes_per_s: traffic.map(|d| d.part(1).per_second()),
            traffic_dropped_per_s: traffic.map(|d| d.part(2).per_second()),
            forks_per_s: window.of_quick(&self.forks).map(per_s),
            cpu_pressure_permille: stalled(0),
            mem_pressure_permille: stalled(1),
            io_pressure_permille: stalled(2),
            ..waits(
                window.of_quick(&self.wait),
                window.of_quick(&self.waits),
                window.of_quick(&self.histogram),
            )
        }
    }
}

/// Over what a rate is taken.
enum Window<'a> {
    /// The last sample.
    Fast { taken_ns: u64 },
    /// The last second; of figures in full samples, that before the last of these.
    Slow {
        taken_ns: u64,
        full_ns: Option<u64>,
        by_files: bool,
        bounds: &'a Bounds,
    },
}

impl Window<'_> {
    fn of_quick<C: Count>(&self, track: &Track<C>) -> Option<Delta<C>> {
        match self {
            Self::Fast { taken_ns } => track.fast(*taken_ns),
            Self::Slow {
                taken_ns, bounds, ..
            } => track.slow(*taken_ns, bounds.quick),
        }
    }

    /// Of what comes in bursts, which a shorter time would take for all there is.
    fn of_bursts<C: Count>(&self, track: &Track<C>) -> Option<Delta<C>> {
        match self {
            Self::Fast { taken_ns } => track.over(*taken_ns, BURSTS_NS),
            Self::Slow { .. } => self.of_quick(track),
        }
    }

    fn of_full<C: Count>(&self, track: &Track<C>) -> Option<Delta<C>> {
        match self {
            Self::Fast { taken_ns } => track.fast(*taken_ns),
            Self::Slow {
                full_ns, bounds, ..
            } => track.slow((*full_ns)?, bounds.full),
        }
    }

    fn of_faults<C: Count>(&self, track: &Track<C>) -> Option<Delta<C>> {
        match self {
            Self::Slow { by_files: true, .. } => self.of_full(track),
            _ => self.of_quick(track),
        }
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
        wait_p50_ns: histogram.and_then(|delta| quantile(&delta.amount, 500)),
        wait_p99_ns: histogram.and_then(|delta| quantile(&delta.amount, 990)),
        ..Rates::default()
    }
}
