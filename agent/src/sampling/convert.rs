//! The probes' words in the core's.

use ebb_types::{ContainerId, FigureSource, MeasureSource};

use crate::core::usage;
use crate::probe::{
    ContainerCounters, DeviceCounters, Memory, OomEvent, Plan, Pressure, Sample, disk_totals,
};

/// Where each kind of figure comes from.
pub(super) fn sources(plan: &Plan) -> Vec<FigureSource> {
    let figures = plan.figures().into_iter();
    let source = |(figure, choice): (&'static str, crate::probe::Choice)| FigureSource {
        figure: figure.to_owned(),
        source: choice.source,
        why: choice.why,
    };
    figures.map(source).collect()
}

/// One reading.
pub(super) fn sample(sample: Sample<ContainerId>, full: bool) -> usage::Sample {
    let all = |list: Vec<(ContainerId, ContainerCounters)>| {
        list.into_iter()
            .map(|(id, counters)| (id, container(&counters)))
    };
    usage::Sample {
        taken_ns: sample.taken_ns,
        full,
        host: usage::HostCounters {
            cpu_busy_ns: sample.host.busy_ns,
            cpus: sample.host.cpus,
            mem_available_bytes: sample.host.mem_available_bytes,
            mem_total_bytes: sample.host.mem_total_bytes,
            unmanaged_cpu_ns: sample
                .unmanaged
                .and_then(|counters| counters.on_cpu_ns)
                .map(|figure| figure.value),
            pressure: sample.host.pressure.as_ref().map(pressure),
        },
        containers: all(sample.containers).collect(),
        ended: all(sample.ended).collect(),
        oom_kills: sample.oom_kills.into_iter().map(oom_kill).collect(),
        sources: None,
    }
}

fn oom_kill(event: OomEvent<ContainerId>) -> usage::OomKill {
    usage::OomKill {
        container_id: event.container,
        pid: event.pid,
        asked_by: event.asked_by,
    }
}

fn container(counters: &ContainerCounters) -> usage::ContainerSample {
    let run_queue = counters.run_queue.as_ref();
    let switches = counters.switches.as_ref();
    let by = |source: Option<MeasureSource>| source.unwrap_or(MeasureSource::Files);
    let memory = counters.memory.as_ref();
    usage::ContainerSample {
        cpu_ns: counters.on_cpu_ns.map(|figure| figure.value),
        cpu_source: by(counters.on_cpu_ns.map(|figure| figure.source)),
        cpu_split_ns: counters
            .cpu_split
            .map(|split| (split.user_ns, split.system_ns)),
        run_queue_wait_ns: run_queue.map(|queue| queue.wait_ns),
        run_queue_wait_own_ns: run_queue.and_then(|queue| queue.wait_own_ns),
        run_queue_count: run_queue.map(|queue| queue.wait_count),
        run_queue_histogram: run_queue.map(|queue| queue.wait_hist),
        preempted_by_revocable: switches.map(|switches| switches.preempted_by_revocable),
        preempted_by_other: switches
            .map(|switches| switches.preempted_by_owned + switches.preempted_by_unmanaged),
        migrations: switches.map(|switches| switches.migrations),
        throttled_ns: counters
            .throttling
            .map(|throttling| throttling.throttled_ns),
        mem_bytes: memory.map(Memory::working_set_bytes),
        memory: memory.map(mem),
        faults: counters
            .faults
            .map(|faults| (faults.value.minor, faults.value.major)),
        faults_source: by(counters.faults.map(|figure| figure.source)),
        reclaim_ns: counters.reclaim.map(|reclaim| reclaim.stalled_ns()),
        oom_kills: counters.oom_kills.map(|kills| kills.value),
        oom_source: by(counters.oom_kills.map(|figure| figure.source)),
        disk: counters.disk.as_ref().map(|disk| io(&disk.value)),
        disk_source: by(counters.disk.as_ref().map(|figure| figure.source)),
        net_bytes: counters
            .network
            .map(|network| (network.in_bytes, network.out_bytes)),
        traffic: counters.traffic.map(|traffic| usage::TrafficSample {
            in_bytes: traffic.in_bytes,
            out_bytes: traffic.out_bytes,
            dropped_packets: traffic.dropped_packets,
        }),
        forks: counters.processes.map(|processes| processes.forks),
        pressure: counters.pressure.as_ref().map(pressure),
    }
}

fn mem(memory: &Memory) -> usage::MemorySample {
    usage::MemorySample {
        anon_bytes: memory.anon_bytes,
        file_bytes: memory.file_bytes,
        swap_bytes: memory.swap_bytes,
        peak_bytes: memory.peak_bytes,
        limit_bytes: memory.limit_bytes,
        limit_hits: memory.limit_hits,
        limit_ooms: memory.limit_ooms,
    }
}

fn io(devices: &[DeviceCounters]) -> usage::IoSample {
    let totals = disk_totals(devices);
    usage::IoSample {
        read_bytes: totals.read_bytes,
        write_bytes: totals.write_bytes,
        latency: totals.latency.map(|latency| usage::IoLatencySample {
            total_ns: latency.queue_ns.saturating_add(latency.device_ns),
            queue_histogram: latency.queue_hist,
            device_histogram: latency.device_hist,
        }),
    }
}

fn pressure(pressure: &Pressure) -> usage::PressureSample {
    usage::PressureSample {
        cpu_ns: pressure.cpu_some_ns,
        memory_ns: pressure.memory_some_ns,
        io_ns: pressure.io_some_ns,
    }
}

#[cfg(test)]
mod tests {
    use crate::probe::{Faults, Figure, HostCounters};

    use super::*;

    #[test]
    fn what_was_not_measured_stays_absent() {
        let converted = container(&ContainerCounters::default());
        assert_eq!(
            converted,
            usage::ContainerSample::absent(MeasureSource::Files)
        );
    }

    #[test]
    fn what_was_measured_keeps_its_source() {
        let source = MeasureSource::Ebpf;
        let faults = Faults { minor: 2, major: 3 };
        let counters = ContainerCounters {
            on_cpu_ns: Some(Figure { value: 1, source }),
            faults: Some(Figure {
                value: faults,
                source,
            }),
            disk: Some(Figure {
                value: Vec::new(),
                source,
            }),
            ..ContainerCounters::default()
        };
        let converted = container(&counters);
        assert_eq!((converted.cpu_ns, converted.cpu_source), (Some(1), source));
        assert_eq!(converted.faults, Some((2, 3)));
        assert_eq!(
            (converted.faults_source, converted.disk_source),
            (source, source)
        );
        assert_eq!(converted.disk.map(|disk| disk.read_bytes), Some(0));
        assert_eq!(converted.oom_source, MeasureSource::Files);
    }

    #[test]
    fn ended_containers_and_kills_are_handed_over() {
        let id = ContainerId::new("c").unwrap();
        let kill = OomEvent {
            container: Some(id.clone()),
            pid: 7,
            asked_by: 8,
            at_ns: 9,
        };
        let reading = Sample {
            taken_ns: 1,
            host: HostCounters::default(),
            containers: Vec::new(),
            ended: vec![(id.clone(), ContainerCounters::default())],
            oom_kills: vec![kill],
            unmanaged: None,
        };
        let converted = sample(reading, true);
        assert_eq!(converted.ended[0].0, id);
        assert_eq!(
            (converted.oom_kills[0].pid, converted.oom_kills[0].asked_by),
            (7, 8)
        );
    }
}
