//! A machine: its agent's core, its containers, and a kernel without priorities.
//!
//! Units: milliseconds, thousandths of a core. Demands are constant between two moments at which the machine is looked at
//! ([`Machine::advance`]): a reading, a change of a demand, a correction, a start or an end.

use std::collections::BTreeMap;

use ebb_agent::core::usage::{ContainerSample, HostCounters, RUN_QUEUE_BUCKETS, Sample};
use ebb_agent::core::{Conn, Core, CoreConfig, Input, LaunchOrder};
use ebb_types::{
    AgentId, ContainerId, FrameworkId, Incarnation, Lots, MeasureSource, Quantities, ResourceKind,
    Resources,
};

use super::load::Load;
use super::{Loads, REACTION_MS};

pub(super) const CORES: u32 = 16;
const CAPACITY_MILLI: u64 = CORES as u64 * 1_000;
const MEM_BYTES: u64 = 64 << 30;
/// What the machine itself needs of it.
const SYSTEM_MEM_BYTES: u64 = 2 << 30;
/// Wake-ups of a task, a second, and what each waits on an idle machine.
const WAKES_PER_S: u64 = 1_000;
const WAKE_NS: u64 = 20_000;
/// An owner is short of CPU below so much of what it asks for.
const ENOUGH_PERMILLE: u64 = 950;
pub(super) const LIFE: Incarnation = Incarnation(1);

/// What a container does.
#[derive(Clone, Copy, Debug)]
pub(super) enum Work {
    /// A service, which asks for what its load says.
    Serve(Load),
    /// Lent work: so much CPU time is left, in microseconds.
    Compute { left_us: u64 },
}

#[derive(Debug)]
pub(super) struct Container {
    pub(super) resources: Resources,
    pub(super) work: Work,
    cap_milli: Option<u64>,
    frozen: bool,
    short_since_ms: Option<u64>,
    counters: ContainerSample,
    /// What it has used, in microseconds.
    pub(super) used_us: u64,
    /// Whether its agent has decided to end it.
    pub(super) evicted: bool,
}

/// What machines count.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counts {
    pub(super) passed_ms: u64,
    pub(super) owned_us: u64,
    pub(super) lent_us: u64,
    pub(super) asked_us: u64,
    pub(super) short_us: u64,
    pub(super) shortages: u64,
    pub(super) longest_ms: u64,
    pub(super) late: u64,
}

pub(super) struct Machine {
    pub(super) core: Core,
    pub(super) agent_id: Option<AgentId>,
    pub(super) containers: BTreeMap<ContainerId, Container>,
    /// What its agent has told the master to be lent.
    pub(super) told: Quantities,
    /// When something of a framework was evicted last.
    pub(super) evicted_ms: BTreeMap<FrameworkId, u64>,
    pub(super) counts: Counts,
    pub(super) tick_at: Option<u64>,
    /// The reading that is due next; those of an earlier number are void.
    pub(super) reading: u64,
    /// Until when readings are taken ten times a second.
    pub(super) alert_until_ms: u64,
    at_ms: u64,
    busy_us: u64,
}

pub(super) fn capacity() -> Quantities {
    Quantities::cpus_mem(CAPACITY_MILLI, MEM_BYTES - SYSTEM_MEM_BYTES)
}

impl Machine {
    pub(super) fn new(number: usize, now_ms: u64) -> Self {
        let config = CoreConfig {
            hostname: format!("machine-{number}"),
            port: 5051,
            total: capacity(),
            lots: Lots::NONE,
            work_dir: String::from("/var/ebb"),
            attributes: Vec::new(),
            domain: None,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            container_prefix: format!("m{number}"),
            lending: Default::default(),
        };
        Self {
            core: Core::new(config, Default::default(), LIFE),
            agent_id: None,
            containers: BTreeMap::new(),
            told: Quantities::ZERO,
            evicted_ms: BTreeMap::new(),
            counts: Counts::default(),
            tick_at: None,
            reading: 0,
            alert_until_ms: 0,
            at_ms: now_ms,
            busy_us: 0,
        }
    }

    pub(super) fn conn(number: usize) -> Conn {
        Conn(1 + number as u64)
    }

    /// A container runs from now on.
    pub(super) fn start(&mut self, order: &LaunchOrder, work: Work) {
        let counters = ContainerSample {
            cpu_ns: Some(0),
            run_queue_wait_ns: Some(0),
            run_queue_count: Some(0),
            run_queue_histogram: Some([0; RUN_QUEUE_BUCKETS]),
            preempted_by_revocable: Some(0),
            preempted_by_other: Some(0),
            ..ContainerSample::absent(MeasureSource::Ebpf)
        };
        let container = Container {
            resources: order.resources,
            work,
            cap_milli: None,
            frozen: false,
            short_since_ms: None,
            counters,
            used_us: 0,
            evicted: false,
        };
        self.containers
            .insert(order.container_id.clone(), container);
    }

    pub(super) fn throttle(&mut self, container_id: &ContainerId, cap_milli: Option<u64>) {
        if let Some(container) = self.containers.get_mut(container_id) {
            container.cap_milli = cap_milli;
        }
    }

    pub(super) fn freeze(&mut self, container_id: &ContainerId, frozen: bool) {
        if let Some(container) = self.containers.get_mut(container_id) {
            container.frozen = frozen;
        }
    }

    /// What all that runs was allocated.
    pub(super) fn in_use(&self) -> Resources {
        let all = self.containers.values();
        all.fold(Resources::ZERO, |sum, one| {
            sum.saturating_add(&one.resources)
        })
    }

    /// Whether readings are to be taken often.
    pub(super) fn is_tense(&self, now_ms: u64) -> bool {
        let is_held = |one: &Container| one.frozen || one.cap_milli.is_some() || one.evicted;
        now_ms < self.alert_until_ms || self.containers.values().any(is_held)
    }

    /// Passes the time up to a moment.
    pub(super) fn advance(&mut self, to_ms: u64, loads: &Loads) {
        let ms = to_ms.saturating_sub(self.at_ms);
        if ms == 0 {
            return;
        }
        let asked: u64 = self.containers.values().map(|one| one.asks(loads)).sum();
        let fits = asked <= CAPACITY_MILLI;
        let lent_runs = (self.containers.values())
            .any(|one| matches!(one.work, Work::Compute { .. }) && one.asks(loads) > 0);
        let counts = &mut self.counts;
        counts.passed_ms += ms;
        for one in self.containers.values_mut() {
            let asks = one.asks(loads);
            let gets = if fits {
                asks
            } else {
                asks * CAPACITY_MILLI / asked
            };
            one.pass(ms, asks, gets);
            let used_us = gets * ms;
            self.busy_us += used_us;
            match &mut one.work {
                Work::Compute { left_us } => {
                    *left_us = left_us.saturating_sub(used_us);
                    counts.lent_us += used_us;
                }
                Work::Serve(_) => {
                    counts.owned_us += used_us;
                    counts.asked_us += asks * ms;
                    if gets * 1_000 >= asks * ENOUGH_PERMILLE || !lent_runs {
                        one.short_since_ms = None;
                        continue;
                    }
                    counts.short_us += (asks - gets) * ms;
                    if one.short_since_ms.is_none() {
                        counts.shortages += 1;
                    }
                    let since_ms = *one.short_since_ms.get_or_insert(self.at_ms);
                    let was_late = self.at_ms - since_ms > REACTION_MS;
                    let short_ms = to_ms - since_ms;
                    counts.longest_ms = counts.longest_ms.max(short_ms);
                    counts.late += u64::from(!was_late && short_ms > REACTION_MS);
                }
            }
        }
        self.at_ms = to_ms;
    }

    /// Lent work that is done.
    pub(super) fn done(&self) -> Vec<ContainerId> {
        let done = |one: &Container| matches!(one.work, Work::Compute { left_us: 0 });
        let all = self.containers.iter().filter(|(_, one)| done(one));
        all.map(|(id, _)| id.clone()).collect()
    }

    /// A reading of all counters.
    pub(super) fn sample(&self, full: bool) -> Input {
        let held = self.containers.values().map(Container::mem_bytes).sum();
        let containers = self.containers.iter().map(|(id, one)| {
            let counters = ContainerSample {
                mem_bytes: full.then(|| one.mem_bytes()),
                ..one.counters
            };
            (id.clone(), counters)
        });
        Input::Sample(Box::new(Sample {
            taken_ns: self.at_ms * 1_000_000,
            full,
            host: HostCounters {
                cpu_busy_ns: Some(self.busy_us * 1_000),
                unmanaged_cpu_ns: Some(0),
                cpus: Some(CORES),
                mem_available_bytes: Some((MEM_BYTES - SYSTEM_MEM_BYTES).saturating_sub(held)),
                mem_total_bytes: Some(MEM_BYTES),
                pressure: None,
            },
            containers: containers.collect(),
            ..Sample::default()
        }))
    }
}

impl Container {
    fn mem_bytes(&self) -> u64 {
        let limit_bytes = self.resources.total(ResourceKind::Mem);
        match &self.work {
            Work::Serve(load) => limit_bytes / 1_000 * Loads::mem_permille(load),
            Work::Compute { .. } => limit_bytes,
        }
    }

    /// What it would use if it got it.
    fn asks(&self, loads: &Loads) -> u64 {
        let wants = match &self.work {
            Work::Serve(load) => loads.wants_milli(load),
            Work::Compute { left_us: 0 } => 0,
            Work::Compute { .. } => self.resources.revocable.cpu_milli(),
        };
        if self.frozen {
            return 0;
        }
        self.cap_milli.map_or(wants, |cap| wants.min(cap))
    }

    /// Counts what it has used and waited for.
    fn pass(&mut self, ms: u64, asks: u64, gets: u64) {
        self.used_us += gets * ms;
        let wakes = WAKES_PER_S * ms / 1_000 * u64::from(asks > 0);
        let waits_ns = wakes * WAKE_NS + (asks - gets) * ms * 1_000;
        let add = |counter: &mut Option<u64>, amount: u64| {
            *counter = counter.map(|value| value + amount);
        };
        add(&mut self.counters.cpu_ns, gets * ms * 1_000);
        add(&mut self.counters.run_queue_wait_ns, waits_ns);
        add(&mut self.counters.run_queue_count, wakes);
        if let Some(histogram) = &mut self.counters.run_queue_histogram {
            let bucket = (waits_ns / wakes.max(1)).max(1).ilog2() as usize;
            histogram[bucket.min(RUN_QUEUE_BUCKETS - 1)] += wakes;
        }
    }
}
