//! What is measured, as labelled lines. A figure that was not measured says so.

use ebb_types::{AgentUsage, FigureSource, MeasureSource, TaskUsage};

use super::Line;
use crate::output::quantity::{bytes, duration_ns, milli};

/// A figure that may not have been measured.
fn figure(value: Option<String>) -> String {
    value.unwrap_or_else(|| "not measured".to_owned())
}

/// Several figures with their names in one value; those that were not measured are left out.
fn figures<const N: usize>(parts: [(Option<String>, &str); N]) -> Option<String> {
    let shown: Vec<String> = parts
        .into_iter()
        .filter_map(|(value, name)| Some(format!("{} {name}", value?)))
        .collect();
    (!shown.is_empty()).then(|| shown.join(", "))
}

/// A figure with more about it in parentheses: parts of it and its source.
fn with(value: String, parts: Option<String>, source: Option<MeasureSource>) -> String {
    let source = source.map(|source| format!("by {}", source.name()));
    let notes: Vec<String> = parts.into_iter().chain(source).collect();
    if notes.is_empty() {
        return value;
    }
    format!("{value} ({})", notes.join("; "))
}

pub(super) fn percent(permille: u64) -> String {
    format!("{} %", milli(permille.saturating_mul(100)))
}

fn per_s(value: u64) -> String {
    format!("{value}/s")
}

pub(super) fn bytes_per_s(value: u64) -> String {
    format!("{}/s", bytes(value))
}

/// What a task uses.
pub(super) fn of_task(usage: &TaskUsage) -> Vec<Line> {
    let mut lines = Vec::from(cpu(usage));
    lines.extend(memory(usage));
    lines.extend(traffic(usage));
    if let Some(cap) = usage.throttled_to_milli {
        lines.push(("throttled to", format!("{} cpus", milli(cap))));
    }
    if usage.frozen {
        lines.push(("frozen", "yes: its owner needs the resources".to_owned()));
    }
    if let Some(limit) = usage.network_limited_to_bytes_per_s {
        lines.push(("network limited to", bytes_per_s(limit)));
    }
    if let Some(left) = usage.memory_reclaimed_to_bytes {
        lines.push(("memory reclaimed to", bytes(left)));
    }
    lines
}

fn cpu(usage: &TaskUsage) -> [Line; 6] {
    let (used, sources) = (&usage.used, &usage.sources);
    let modes = figures([
        (used.cpu_user_milli.map(milli), "user"),
        (used.cpu_system_milli.map(milli), "system"),
    ]);
    let cpus = figure(used.cpu_milli.map(milli));
    let waiting = figures([
        (used.waiting_milli.map(milli), "threads for others"),
        (used.waiting_own_milli.map(milli), "for its own quota"),
    ]);
    let preempted = figures([
        (
            used.preempted_by_revocable_per_s.map(per_s),
            "by revocable tasks",
        ),
        (used.preempted_by_other_per_s.map(per_s), "by others"),
    ]);
    let switches = figures([
        (used.migrations_per_s.map(per_s), "migrations"),
        (used.forks_per_s.map(per_s), "forks"),
        (
            used.throttled_permille.map(percent),
            "held back by its own quota",
        ),
    ]);
    [
        ("used cpus", with(cpus, modes, Some(sources.cpu))),
        ("run queue", figure(used.run_queue_wait_ns.map(duration_ns))),
        (
            "run queue p99",
            figure(used.run_queue_p99_ns.map(duration_ns)),
        ),
        ("waiting", figure(waiting)),
        ("preempted", figure(preempted)),
        ("scheduling", figure(switches)),
    ]
}

fn memory(usage: &TaskUsage) -> [Line; 5] {
    let (used, sources) = (&usage.used, &usage.sources);
    let parts = figures([
        (used.mem_anon_bytes.map(bytes), "anonymous"),
        (used.mem_file_bytes.map(bytes), "page cache"),
        (used.mem_swap_bytes.map(bytes), "swapped"),
        (used.mem_peak_bytes.map(bytes), "peak"),
    ]);
    let faults = figures([
        (used.faults_minor_per_s.map(per_s), "minor"),
        (used.faults_major_per_s.map(per_s), "major"),
    ]);
    let faults = faults.map(|faults| with(faults, None, Some(sources.faults)));
    let kills = used.oom_kills.map(|kills| kills.to_string());
    let kills = kills.map(|kills| with(kills, None, Some(sources.oom_kills)));
    let pressure = figures([
        (used.cpu_pressure_permille.map(percent), "cpu"),
        (used.mem_pressure_permille.map(percent), "mem"),
        (used.io_pressure_permille.map(percent), "disk"),
    ]);
    [
        (
            "used mem",
            with(figure(used.mem_bytes.map(bytes)), parts, None),
        ),
        ("reclaim", figure(used.reclaim_permille.map(percent))),
        ("page faults", figure(faults)),
        ("oom kills", figure(kills)),
        ("pressure", figure(pressure)),
    ]
}

fn traffic(usage: &TaskUsage) -> [Line; 4] {
    let used = &usage.used;
    let parts = figures([
        (used.disk_read_bytes_per_s.map(bytes_per_s), "read"),
        (used.disk_write_bytes_per_s.map(bytes_per_s), "written"),
    ]);
    let disk = used.disk_bytes_per_s.map(bytes_per_s);
    let disk = disk.map(|disk| with(disk, parts, Some(usage.sources.disk)));
    let latency = figures([
        (used.io_mean_ns.map(duration_ns), "mean"),
        (used.io_queue_p99_ns.map(duration_ns), "p99 queued"),
        (used.io_device_p99_ns.map(duration_ns), "p99 in the device"),
    ]);
    let network = figures([
        (used.net_in_bytes_per_s.map(bytes_per_s), "in"),
        (used.net_out_bytes_per_s.map(bytes_per_s), "out"),
    ]);
    let dropped = used.traffic_dropped_per_s.filter(|packets| *packets > 0);
    let devices = figures([
        (used.traffic_in_bytes_per_s.map(bytes_per_s), "in"),
        (used.traffic_out_bytes_per_s.map(bytes_per_s), "out"),
        (dropped.map(per_s), "packets dropped"),
    ]);
    [
        ("used disk", figure(disk)),
        ("disk latency", figure(latency)),
        ("network", figure(network)),
        ("network devices", figure(devices)),
    ]
}

/// What an agent's machine uses.
pub(super) fn of_machine(usage: &AgentUsage) -> [Line; 3] {
    let pressure = figures([
        (usage.cpu_pressure_permille.map(percent), "cpu"),
        (usage.mem_pressure_permille.map(percent), "mem"),
        (usage.io_pressure_permille.map(percent), "disk"),
    ]);
    [
        ("machine cpu", figure(usage.machine_cpu_milli.map(milli))),
        ("machine mem", figure(usage.machine_mem_bytes.map(bytes))),
        ("pressure", figure(pressure)),
    ]
}

/// Where an agent measures one kind of figure, and why not better.
pub(super) fn source(figure: &FigureSource) -> Line {
    let source = figure.source.map_or("none", MeasureSource::name);
    let why = if figure.why.is_empty() {
        String::new()
    } else {
        format!(" ({})", figure.why)
    };
    ("source", format!("{} {source}{why}", figure.figure))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_that_were_not_measured_are_left_out_and_nothing_measured_says_so() {
        let parts = |first: Option<u64>, second: Option<u64>| {
            figure(figures([
                (first.map(per_s), "in"),
                (second.map(per_s), "out"),
            ]))
        };
        assert_eq!(parts(Some(1), Some(0)), "1/s in, 0/s out");
        assert_eq!(parts(None, Some(2)), "2/s out");
        assert_eq!(parts(None, None), "not measured");
        assert_eq!(percent(15), "1.5 %");
        let noted = with(
            "1".into(),
            Some("2 user".into()),
            Some(MeasureSource::Files),
        );
        assert_eq!(noted, "1 (2 user; by files)");
    }

    #[test]
    fn a_source_says_why_it_is_not_a_better_one() {
        let line = |source, why: &str| {
            let figure = FigureSource {
                figure: "disk".into(),
                source,
                why: why.into(),
            };
            super::source(&figure).1
        };
        assert_eq!(line(Some(MeasureSource::Ebpf), ""), "disk ebpf");
        assert_eq!(line(None, "no controller"), "disk none (no controller)");
    }
}
