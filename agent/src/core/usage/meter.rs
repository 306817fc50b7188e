//! The meter: follows every counter of every container from sample to sample.

use std::collections::BTreeMap;

use ebb_types::ContainerId;

use super::container::{Bounds, Tracks};
use super::track::{Delta, Limits, Track};
use super::{
    Config, ContainerUse, Counters, MAX_CONTAINERS, MachineUse, PressureSample, Sample,
    SampleVerdict, UsageView,
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
    pressure: Track<[u64; 3]>,
    containers: BTreeMap<ContainerId, Tracks>,
    counters: Counters,
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
            pressure: Track::default(),
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
        let machine = self.push_host(sample, capacity_milli);
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
        self.pressure.clear();
        for tracks in self.containers.values_mut() {
            tracks.clear();
        }
    }

    fn push_host(&mut self, sample: &Sample, capacity_milli: Option<u64>) -> MachineUse {
        let (taken_ns, host) = (sample.taken_ns, &sample.host);
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
        let usage = MachineUse {
            fast_busy_milli: self.busy.fast(taken_ns).map(|d| d.permille()),
            slow_busy_milli: second(&self.busy),
            slow_unmanaged_milli: second(&self.unmanaged).or(rest),
            capacity_milli,
            mem_available_bytes: host.mem_available_bytes,
            mem_total_bytes: host.mem_total_bytes,
            ..MachineUse::default()
        };
        self.push_pressure(sample, usage)
    }

    /// Adds the pressure: of this sample if it is full, else of the last full one.
    fn push_pressure(&mut self, sample: &Sample, usage: MachineUse) -> MachineUse {
        let (taken_ns, limits) = (sample.taken_ns, self.full_limits);
        if sample.full {
            let reading = sample.host.pressure.as_ref().map(PressureSample::parts);
            let reset = self.pressure.push(taken_ns, reading, limits);
            self.counters.resets += u64::from(reset);
        }
        let last_ns = self.pressure.last_ns(taken_ns, limits);
        let delta = last_ns.and_then(|at_ns| self.pressure.slow(at_ns, limits));
        let permille = |index| delta.map(|d: Delta<[u64; 3]>| d.part(index).permille());
        MachineUse {
            cpu_pressure_permille: permille(0),
            mem_pressure_permille: permille(1),
            io_pressure_permille: permille(2),
            ..usage
        }
    }

    fn push_containers(
        &mut self,
        sample: &Sample,
        capacity_milli: Option<u64>,
    ) -> BTreeMap<ContainerId, ContainerUse> {
        let taken_ns = sample.taken_ns;
        let counters = &mut self.counters;
        let bounds = Bounds {
            quick: self.limits,
            full: self.full_limits,
            is_full: sample.full,
            most_milli: capacity_milli.map(|milli| milli.saturating_mul(IMPLAUSIBLE_FACTOR)),
        };
        // A container that is no longer sampled would be a gap by now anyway.
        self.containers
            .retain(|_, tracks| !tracks.is_lost(taken_ns, bounds.quick));
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
                .or_insert_with(|| Tracks::new(taken_ns, reading));
            let (used, used_ns) = tracks.push(taken_ns, reading, &bounds, counters);
            managed_ns = managed_ns.saturating_add(used_ns);
            view.insert(id.clone(), used);
        }
        self.managed_ns = managed_ns;
        view
    }
}
